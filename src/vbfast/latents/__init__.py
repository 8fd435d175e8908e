"""Latent structures: p(t | theta), how rows come by their components."""

from .chain import Chain
from .coupled import CoupledChains
from .mixture import Mixture

__all__ = ["Chain", "CoupledChains", "Mixture"]
