"""Emissions by name, and which parameters are for which."""

from __future__ import annotations

from typing import Any, Literal

from .checks import check_choice
from .discrete_parameters import (
    BernoulliParameters,
    CategoricalParameters,
    ExponentialParameters,
    PoissonParameters,
)
from .gaussian_parameters import GaussianParameters

__all__ = ["EMISSIONS", "EmissionName", "check_emission"]

EmissionName = Literal["gaussian", "poisson", "exponential", "bernoulli", "categorical"]

EMISSIONS: dict[str, Any] = {
    "gaussian": GaussianParameters,
    "poisson": PoissonParameters,
    "exponential": ExponentialParameters,
    "bernoulli": BernoulliParameters,
    "categorical": CategoricalParameters,
}

# Parameters that are None unless given, by the emissions that they are for.
_FOR = {
    name: tuple(emission for emission, kind in EMISSIONS.items() if name in kind.reads)
    for each in EMISSIONS.values()
    for name in each.reads
}


def check_emission(estimator: Any) -> None:
    """Raise ValueError where the emission is unknown, or a parameter is for another one.

    Parameters that are there for every emission are checked whether or not it reads them.
    """
    emission = estimator.emission
    check_choice("emission", emission, tuple(EMISSIONS))
    for name, emissions in _FOR.items():
        if getattr(estimator, name) is not None and emission not in emissions:
            raise ValueError(
                f"{name} is for emission {' or '.join(map(repr, emissions))}, not {emission!r}"
            )
    GaussianParameters._check_gaussian_parameters(estimator)
