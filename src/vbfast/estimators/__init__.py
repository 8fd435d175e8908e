"""Estimators with scikit-learn's interface: thin, no numerics of their own."""

from .factorial_hmm import FactorialHMM
from .gaussian_mixture import BayesianGaussianMixture, GaussianMixture
from .hidden_markov_model import HiddenMarkovModel
from .many import ManyFits, fit_many
from .mixture_model import MixtureModel

__all__ = [
    "BayesianGaussianMixture",
    "FactorialHMM",
    "GaussianMixture",
    "HiddenMarkovModel",
    "ManyFits",
    "MixtureModel",
    "fit_many",
]
