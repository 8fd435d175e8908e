"""Emissions: p(x | t, theta), what a row looks like given its component."""

from .additive import AdditiveGaussian
from .bernoulli import Bernoulli
from .categorical import Categorical
from .exponential import Exponential
from .gaussian import Gaussian
from .poisson import Poisson
from .product import Product

__all__ = [
    "AdditiveGaussian",
    "Bernoulli",
    "Categorical",
    "Exponential",
    "Gaussian",
    "Poisson",
    "Product",
]
