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

__all__ = [
    "EMISSIONS",
    "INITS",
    "OWN",
    "SHARED",
    "EmissionName",
    "Missing",
    "check_emission",
    "is_product",
    "names_several",
]

EmissionName = Literal["gaussian", "poisson", "exponential", "bernoulli", "categorical", "auto"]

Missing = Literal["error", "at_random"]

EMISSIONS: dict[str, Any] = {
    "gaussian": GaussianParameters,
    "poisson": PoissonParameters,
    "exponential": ExponentialParameters,
    "bernoulli": BernoulliParameters,
    "categorical": CategoricalParameters,
}

# Of several emissions, what a part takes from its estimator unless it has its own, and what it has
# of its own alone; parameters to start from, which it has not.
SHARED = ("covariance_type", "reg_covar")
_NAMES = tuple(dict.fromkeys(name for kind in EMISSIONS.values() for name in kind.reads))
INITS = tuple(name for name in _NAMES if name.endswith("_init"))
OWN = tuple(name for name in _NAMES if name not in INITS)

# Parameters that are None unless given, by the emissions that they are for.
_FOR = {
    name: tuple(emission for emission, kind in EMISSIONS.items() if name in kind.reads)
    for name in _NAMES
}


def names_several(emission: Any) -> bool:
    """Whether an estimator's parameter tells of several emissions."""
    if type(emission) is str:  # predictions of one row ask
        return emission == "auto"
    return isinstance(emission, (list, tuple))


def is_product(estimator: Any) -> bool:
    """Whether an estimator fits a product: of several emissions, or of one that may miss rows."""
    return names_several(estimator.emission) or estimator.missing == "at_random"


def _check_product(estimator: Any) -> None:
    """Raise TypeError or ValueError where `emission` is no product, as far as X doesn't matter."""
    emission = estimator.emission
    allowed = (
        "emission must be a name, 'auto', or a list of (name, columns) or (name, columns, "
        "parameters)"
    )
    for name in OWN:
        if getattr(estimator, name, None) is not None:
            raise ValueError(
                f"{name} is for a single emission; of several, give it to its part: "
                f"emission=[(name, columns, {{{name!r}: ...}}), ...]"
            )
    for name in INITS:
        if getattr(estimator, name, None) is not None:
            raise ValueError(f"{name} is for a single emission, not for several")
    if getattr(estimator, "warm_start", False):
        raise ValueError("warm_start is for a single emission, not for several")
    GaussianParameters._check_gaussian_parameters(estimator)
    if isinstance(emission, str):
        return
    if not emission:
        raise TypeError(f"{allowed}, not {emission!r}")
    for n, part in enumerate(emission):
        if not isinstance(part, (list, tuple)) or len(part) not in (2, 3):
            raise TypeError(f"{allowed}; emission[{n}] is {part!r}")
        name, parameters = part[0], (part[2] if len(part) == 3 else {})
        if not isinstance(name, str) or name not in EMISSIONS:
            raise ValueError(
                f"emission[{n}] must begin with one of {', '.join(map(repr, EMISSIONS))}, "
                f"not {name!r}"
            )
        if not isinstance(parameters, dict):
            raise TypeError(f"parameters of emission[{n}] must be a dict, not {parameters!r}")
        reads = [each for each in EMISSIONS[name].reads if each in OWN]
        reads += SHARED if name == "gaussian" else ()
        for key in parameters:
            if key not in reads:
                raise ValueError(
                    f"emission[{n}] has {key!r}; {name!r} takes {', '.join(map(repr, reads))}"
                )


def check_emission(estimator: Any) -> None:
    """Raise ValueError where the emission is unknown, or a parameter is for another one.

    Parameters that are there for every emission are checked whether or not it reads them.
    """
    emission = estimator.emission
    check_choice("missing", estimator.missing, ("error", "at_random"))
    if names_several(emission):
        _check_product(estimator)
        return
    check_choice("emission", emission, tuple(EMISSIONS))
    for name, emissions in _FOR.items():
        if getattr(estimator, name) is not None and emission not in emissions:
            raise ValueError(
                f"{name} is for emission {' or '.join(map(repr, emissions))}, not {emission!r}"
            )
    GaussianParameters._check_gaussian_parameters(estimator)
    if estimator.missing == "error":
        return
    for name in INITS:
        if getattr(estimator, name) is not None:
            raise ValueError(f"{name} is not for missing='at_random': starts are sought")
    if getattr(estimator, "warm_start", False):
        raise ValueError("warm_start is not for missing='at_random'")
