"""Estimators with scikit-learn's interface: thin, no numerics of their own."""

from .gaussian_mixture import BayesianGaussianMixture, GaussianMixture
from .many import ManyFits, fit_many
from .mixture_model import MixtureModel

__all__ = ["BayesianGaussianMixture", "GaussianMixture", "ManyFits", "MixtureModel", "fit_many"]
