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
    "means_init": ("gaussian", "poisson", "exponential"),
    "precisions_init": ("gaussian",),
    "probabilities_init": ("bernoulli", "categorical"),
    "mean_precision_prior": ("gaussian",),
    "mean_variance_prior": ("gaussian",),
    "mean_prior": ("gaussian",),
    "degrees_of_freedom_prior": ("gaussian",),
    "covariance_prior": ("gaussian",),
    "shape_prior": ("poisson", "exponential"),
    "rate_prior": ("poisson", "exponential"),
    "concentration_prior": ("bernoulli", "categorical"),
    "n_categories": ("categorical",),
    "categories": ("categorical",),
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
