"""Latent structures: p(t | theta), how rows come by their components."""

from .coupled import CoupledChains
from .mixture import Mixture

__all__ = ["CoupledChains", "Mixture"]
