"""Estimators with scikit-learn's interface: thin, no numerics of their own."""

from .factorial_hmm import FactorialHMM
from .gaussian_mixture import BayesianGaussianMixture, GaussianMixture
from .many import ManyFits, fit_many

__all__ = ["BayesianGaussianMixture", "FactorialHMM", "GaussianMixture", "ManyFits", "fit_many"]
