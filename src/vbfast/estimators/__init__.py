"""Estimators with scikit-learn's interface: thin, no numerics of their own."""

from .gaussian_mixture import BayesianGaussianMixture, GaussianMixture

__all__ = ["BayesianGaussianMixture", "GaussianMixture"]
