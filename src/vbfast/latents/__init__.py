"""Latent structures: p(t | theta), how rows come by their components."""

from .mixture import Mixture

__all__ = ["Mixture"]
