"""Emissions: p(x | t, theta), what a row looks like given its component."""

from .additive import AdditiveGaussian
from .gaussian import Gaussian

__all__ = ["AdditiveGaussian", "Gaussian"]
