"""Emissions: p(x | t, theta), what a row looks like given its component."""

from .gaussian import Gaussian

__all__ = ["Gaussian"]
