"""Estimators with scikit-learn's interface: thin, no numerics of their own."""

from .gaussian_mixture import BayesianGaussianMixture, GaussianMixture
from .many import ManyFits, fit_many

__all__ = ["BayesianGaussianMixture", "GaussianMixture", "ManyFits", "fit_many"]
