"""Latent structures: p(t | theta), how rows come by their components."""

from .chain import Chain
from .mixture import Mixture

__all__ = ["Chain", "Mixture"]
