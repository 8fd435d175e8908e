"""Parameters of counts and symbols, as estimators take them and tell of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._kernels.inputs import Assignment
from .._threads import resolve_threads
from ..conjugate import Gamma
from ..data import ArrayData
from ..emissions import Bernoulli, Categorical, Exponential, Poisson
from ..emissions.discrete import as_hyperparameter
from ..emissions.exponential import LEAST
from ..emissions.poisson import origin_of
from ..emissions.rates import OfRates
from ..latents import Mixture
from ..methods import Method
from ..model import Model
from ..stats import Stats
from .categories import Uncoded, as_categories, as_symbols, codes_of, decoded, seen_in
from .checks import as_array

__all__ = [
    "BernoulliParameters",
    "CategoricalParameters",
    "DiscreteParameters",
    "ExponentialParameters",
    "PoissonParameters",
]

Array = NDArray[np.float64]


class DiscreteParameters(Uncoded, ABC):
    """What estimators share whose rows are counts or symbols given a component."""

    # Set by the subclasses' constructors.
    n_components: int
    n_threads: int | None
    means_init: ArrayLike | None
    probabilities_init: ArrayLike | None
    shape_prior: ArrayLike | None
    rate_prior: ArrayLike | None
    concentration_prior: ArrayLike | None
    n_categories: int | ArrayLike | None
    categories: Any

    #: Parameters that are None unless given, and not for every emission.
    reads: ClassVar[tuple[str, ...]]
    # Name of the fitted parameters; of them in draws.
    _parameter: ClassVar[str]
    # Their axes after that of the components.
    _axes: ClassVar[tuple[str, ...]] = ("D",)

    @abstractmethod
    def _plain(self, values: NDArray[Any]) -> Any:
        """Return the emission with a flat prior."""

    @abstractmethod
    def _with_prior(
        self, plain: Any, method: Method, mean: Callable[[], Array]
    ) -> tuple[Any, dict[str, Any]]:
        """Return an emission like `plain` with its prior, and the attributes that tell of it.

        ``mean()`` is that of all rows, (D,), asked for where a prior takes it.
        """

    def _own_priors(self, model: Model, mean: Array) -> dict[str, Any]:
        """What `loops.mixtures` is told of data sets of these means (S, D), where none is given.

        Nothing, where priors are the same for all.
        """
        return {}

    @abstractmethod
    def _given_values(self, emission: Any) -> Array | None:
        """Parameters to start from, (K, ...), checked."""

    @abstractmethod
    def _check_values(self, name: str, values: Array) -> None:
        """Raise ValueError where values (K, ...), as attributes have them, are no parameters."""

    @abstractmethod
    def _posterior_attributes(self, distribution: Any) -> dict[str, Any]:
        """What is told of q(parameters)."""

    def _shown(self, values: Array) -> Array:
        """Parameters (..., K, D, ...) as attributes have them."""
        return values

    def _hidden(self, values: Array) -> Array:
        """Inverse of `_shown`."""
        return values

    def _n_free(self, emission: Any) -> int:
        """Free parameters of a component."""
        n_features: int = emission.n_features
        return n_features

    def _n_emission_parameters(self, emission: Any, k: int) -> int:
        """Free parameters of all components."""
        return k * self._n_free(emission)

    # -- of a model of sequences ------------------------------------------------------------

    @property
    def _told_names(self) -> tuple[str, ...]:
        """Attributes that say all of the parameters."""
        return (f"{self._parameter}_",)

    def _read(
        self,
        X: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> ArrayData:
        """Rows to fit, checked."""
        data = ArrayData.of(
            X, sample_weight, lengths=lengths, standardise=False, n_threads=self.n_threads
        )
        checked: ArrayData = self._plain(data.values).check(data)
        return checked

    def _emission_with_prior(
        self, data: ArrayData, method: Method, proper: bool
    ) -> tuple[Any, dict[str, Any]]:
        """Return the emission, and the attributes that tell of its prior."""
        return self._with_prior(self._plain(data.values), method, lambda: _mean_of(data))

    def _given_for(self, data: ArrayData) -> dict[str, Array | None]:
        """Parameters to start from, checked."""
        return {"values": self._given_values(self._plain(data.values))}

    def _start_with(
        self,
        model: Model,
        given: dict[str, Array | None],
        counts: Array,
        read: str,
        located: Callable[[], Stats],
    ) -> Stats:
        """Return a posterior of the given parameters; ``located()`` tells what is not given."""
        values = given["values"]
        if values is None:
            return located()
        return model.prior + model.around(model.emission.parameters(values), counts)

    def _told_of(self, emission: Any, parameters: Any) -> dict[str, Any]:
        """Attributes that say what parameters are."""
        (values,) = parameters.arrays.values()
        return {f"{self._parameter}_": self._shown(values)}

    def _told_of_draws(self, emission: Any, arrays: dict[str, Array]) -> dict[str, Array]:
        """Arrays of draws, as attributes have them."""
        return {name: self._shown(part) for name, part in arrays.items()}

    def _as_they_are(self, k: int) -> tuple[Any, Any]:
        """The emission and the parameters of k components that attributes say, checked."""
        name = f"{self._parameter}_"
        shown = np.asarray(getattr(self, name))
        if shown.ndim != len(self._axes) + 1:
            allowed = ", ".join([str(k), *self._axes])
            raise ValueError(f"{name} must have shape ({allowed}), got {shown.shape}")
        shown = as_array(name, shown, (k, *shown.shape[1:]))
        self._check_values(name, shown)
        values = self._hidden(shown)
        emission = self._of_values(values)
        return emission, emission.parameters(values)

    @abstractmethod
    def _of_values(self, values: Array) -> Any:
        """Return the emission that has parameters like these (K, D, ...)."""


class RatesParameters(DiscreteParameters):
    """Rates, of the emission `_kind`."""

    reads: ClassVar[tuple[str, ...]] = ("means_init", "shape_prior", "rate_prior")
    _parameter = "rates"
    _kind: ClassVar[type[OfRates]]

    @staticmethod
    @abstractmethod
    def _default_rate(mean: Array) -> Array:
        """The prior's where none is given, of shape 1 and mean that of all rows, (..., D)."""

    def _of_values(self, values: Array) -> OfRates:
        return self._kind(values.shape[1])

    def _plain(self, values: NDArray[Any]) -> OfRates:
        return self._kind(values.shape[1])

    def _with_prior(
        self, plain: OfRates, method: Method, mean: Callable[[], Array]
    ) -> tuple[OfRates, dict[str, Any]]:
        shape, rate = self.shape_prior, self.rate_prior
        if (shape is None) != (rate is None):
            raise ValueError("give shape_prior and rate_prior, or neither")
        if shape is None and method.read != "mode":
            shape, rate = 1.0, self._default_rate(mean())
        emission = _made(partial(replace, plain), shape=shape, rate=rate)
        _check_mode("shape_prior", shape, method)
        return emission, {"shape_prior_": shape, "rate_prior_": rate}

    def _given_values(self, emission: OfRates) -> Array | None:
        if self.means_init is None:
            return None
        values = as_array("means_init", self.means_init, (self.n_components, emission.n_features))
        self._check_values("means_init", values)
        return self._rates_of(values)

    @staticmethod
    def _rates_of(means: Array) -> Array:
        """Rates of components of these means (K, D)."""
        return means

    def _check_values(self, name: str, values: Array) -> None:
        bad = np.argwhere(values < 0)
        if len(bad):
            index = [int(i) for i in bad[0]]
            raise ValueError(f"{name}{index} is {values[tuple(index)]}; rates must be >= 0")

    def _posterior_attributes(self, distribution: Gamma) -> dict[str, Any]:
        return {"shape_": distribution.shape.copy(), "rate_": distribution.rate.copy()}


class PoissonParameters(RatesParameters):
    """Counts."""

    _kind = Poisson

    def _of_values(self, values: Array) -> Poisson:
        return Poisson(values.shape[1], origin=origin_of(values))

    def _plain(self, values: NDArray[Any]) -> Poisson:
        return self._of_values(values)

    @staticmethod
    def _default_rate(mean: Array) -> Array:
        return np.asarray(1.0 / np.where(mean > 0, mean, 1.0))

    def _own_priors(self, model: Model, mean: Array) -> dict[str, Any]:
        return {"constants": {"rate": self._default_rate(mean)}}


class ExponentialParameters(RatesParameters):
    """Waiting times."""

    _kind = Exponential

    @staticmethod
    def _default_rate(mean: Array) -> Array:
        return np.where(mean > 0, np.maximum(mean, LEAST), 1.0)

    def _own_priors(self, model: Model, mean: Array) -> dict[str, Any]:
        prior = np.repeat(model.prior.buffer[None], len(mean), axis=0)
        for buffer, rate in zip(prior, self._default_rate(mean), strict=True):
            Stats(model.layout, buffer)["sums"][...] = rate
        return {"prior": prior}

    @staticmethod
    def _rates_of(means: Array) -> Array:
        return 1.0 / means

    def _check_values(self, name: str, values: Array) -> None:
        bad = np.argwhere(~((values > 1e-100) & (values < 1e100)))
        if len(bad):
            index = [int(i) for i in bad[0]]
            raise ValueError(
                f"{name}{index} is {values[tuple(index)]}; rates and means must be > 1e-100 and "
                "< 1e100"
            )


class SymbolsParameters(DiscreteParameters):
    """Tables of probabilities."""

    reads: ClassVar[tuple[str, ...]] = ("probabilities_init", "concentration_prior")
    _parameter = "probabilities"

    def _flat_or_one(self, method: Method) -> Any:
        """The prior's concentration: where none is given, None for a mode, else 1."""
        _check_mode("concentration_prior", self.concentration_prior, method)
        if self.concentration_prior is None and method.read != "mode":
            return 1.0
        return self.concentration_prior

    def _posterior_attributes(self, distribution: Any) -> dict[str, Any]:
        return {"concentration_": distribution.dirichlet.concentration.copy()}


class BernoulliParameters(SymbolsParameters):
    """Zeros and ones."""

    def _shown(self, values: Array) -> Array:
        return values[..., 1].copy()

    def _hidden(self, values: Array) -> Array:
        return np.stack([1.0 - values, values], axis=-1)

    def _of_values(self, values: Array) -> Bernoulli:
        return Bernoulli(values.shape[1])

    def _plain(self, values: NDArray[Any]) -> Bernoulli:
        return Bernoulli(values.shape[1])

    def _with_prior(
        self, plain: Bernoulli, method: Method, mean: Callable[[], Array]
    ) -> tuple[Bernoulli, dict[str, Any]]:
        d, concentration = plain.n_features, self._flat_or_one(method)
        if concentration is None:
            return Bernoulli(d), {"concentration_prior_": None}
        pair = as_hyperparameter(
            "concentration_prior", _pair("concentration_prior", concentration), (2,)
        )
        return Bernoulli(d, pair[1], pair[0]), {"concentration_prior_": pair}

    def _given_values(self, emission: Bernoulli) -> Array | None:
        if self.probabilities_init is None:
            return None
        shape = (self.n_components, emission.n_features)
        ones = as_array("probabilities_init", self.probabilities_init, shape)
        self._check_values("probabilities_init", ones)
        return np.stack([1.0 - ones, ones], axis=2)

    def _check_values(self, name: str, values: Array) -> None:
        _check_probabilities(name, values)


class CategoricalParameters(SymbolsParameters):
    """Symbols."""

    reads = (*SymbolsParameters.reads, "n_categories", "categories")
    _axes = "D", "C"

    probabilities_: NDArray[Any]
    # Numbers that errors call columns by, where they are some of X alone.
    _columns: Sequence[int] | None = None

    # Set by fit; where it is not there, symbols are their own codes.
    categories_: list[NDArray[Any]]

    def _read_rows(self, X: ArrayLike) -> NDArray[Any]:
        return as_symbols(X)

    def _known(self) -> list[NDArray[Any]] | None:
        """Categories of each feature, checked where they are not as a fit leaves them."""
        known = vars(self).get("categories_")
        if known is None:
            return None
        n_features: int = np.shape(self.probabilities_)[1]
        if "n_features_in_" in vars(self):
            n_features = vars(self)["n_features_in_"]
        if not (
            isinstance(known, list)
            and len(known) == n_features
            and all(type(one) is np.ndarray and one.dtype.kind in "iO" for one in known)
        ):
            known = as_categories("categories_", known, n_features)
        return known

    def _codes(self, values: NDArray[Any]) -> NDArray[Any]:
        known = self._known()
        return values if known is None else codes_of(values, known, self._columns)

    def _coded(self, X: ArrayLike) -> tuple[ArrayLike, dict[str, Any]]:
        if self.n_categories is not None:
            self._given_categories(1)
            return X, {}
        values = as_symbols(X)
        known = self._given_categories(values.shape[1])
        if known is None:
            known = seen_in(values, resolve_threads(self.n_threads), self._columns)
        last = vars(self).get("categories_")
        if getattr(self, "warm_start", False) and last is not None:
            for column, (one, other) in enumerate(zip(last, known, strict=False)):
                if not np.array_equal(one, other):
                    raise ValueError(
                        f"warm_start: categories of column {column} are other ones than those of "
                        "the last fit; have the same by categories=..., or set warm_start=False"
                    )
        return codes_of(values, known, self._columns), {"categories_": known}

    def _given_categories(self, n_features: int) -> list[NDArray[Any]] | None:
        """Those of the parameter, checked."""
        if self.categories is None:
            return None
        if self.n_categories is not None:
            raise ValueError("give n_categories, of symbols 0, 1, ..., or categories, not both")
        return as_categories("categories", self.categories, n_features)

    def _decoded(self, rows: NDArray[Any]) -> NDArray[Any]:
        known = self._known()
        return rows if known is None else decoded(rows, known)

    def _of_values(self, values: Array) -> Categorical:
        known = self._known()
        n_categories: Any = values.shape[2]
        if known is not None:
            each = tuple(map(len, known))
            if (len(each), max(each)) == values.shape[1:]:
                n_categories = each
        return Categorical(values.shape[1], n_categories)

    def _plain(self, values: NDArray[Any]) -> Categorical:
        n_categories: Any = self.n_categories
        known = self._given_categories(values.shape[1])
        if known is not None:
            n_categories = tuple(map(len, known))
        elif n_categories is None:
            # Codes, of which each is there: see `_coded`.
            n_categories = tuple((values.max(axis=0) + 1).astype(np.int64).tolist())
        elif np.ndim(n_categories):
            n_categories = tuple(np.asarray(n_categories).tolist())
        return Categorical(values.shape[1], n_categories)

    def _with_prior(
        self, plain: Categorical, method: Method, mean: Callable[[], Array]
    ) -> tuple[Categorical, dict[str, Any]]:
        concentration = self._flat_or_one(method)
        emission = _made(
            Categorical, plain.n_features, plain.n_categories, concentration=concentration
        )
        return emission, {
            "concentration_prior_": concentration,
            "n_categories_": emission.categories.copy(),
            "categories_": [np.arange(n) for n in emission.categories],
        }

    def _given_values(self, emission: Categorical) -> Array | None:
        if self.probabilities_init is None:
            return None
        shape = (self.n_components, emission.n_features, emission.width)
        values = as_array("probabilities_init", self.probabilities_init, shape)
        self._check_values("probabilities_init", values)
        absent = np.argwhere(
            (values > 0) & (np.arange(emission.width) >= emission.categories[:, None])
        )
        if len(absent):
            index = [int(i) for i in absent[0]]
            raise ValueError(
                f"probabilities_init{index} is {values[tuple(index)]}, but feature {index[1]} has "
                f"{emission.categories[index[1]]} categories: it must be 0"
            )
        return values

    def _check_values(self, name: str, values: Array) -> None:
        _check_probabilities(name, values)
        sums = values.sum(axis=2)
        bad = np.argwhere(~np.isclose(sums, 1.0, rtol=1e-6))
        if len(bad):
            index = [int(i) for i in bad[0]]
            raise ValueError(f"{name}{index} must sum to 1, not to {sums[tuple(index)]:.8g}")

    def _n_free(self, emission: Categorical) -> int:
        return int((emission.categories - 1).sum())


def _mean_of(data: ArrayData) -> Array:
    """Mean of all counts, (D,)."""
    whole = Model(Mixture(1), Poisson(data.values.shape[1], origin=data.frame.origin))
    about = whole.about(np.ones((1, data.values.shape[1])))
    stats = data.sum(whole.visit, about, Assignment("hard"))
    return np.asarray(stats["sums"][0] / stats["strength"][0])


def _made(kind: Any, *args: Any, **priors: Any) -> Any:
    """An emission, of which errors name priors as the estimator does."""
    try:
        return kind(*args, **priors)
    except (TypeError, ValueError) as error:
        name, rest = str(error).split(maxsplit=1)[0], str(error)
        for prior in priors:
            if name.partition("[")[0] == prior:
                rest = rest.replace(prior, f"{prior}_prior", 1)
        raise type(error)(rest) from None


def _pair(name: str, value: Any) -> tuple[float, float]:
    """One or two numbers > 0, as two."""
    array = as_array(name, value, np.shape(value))
    if array.shape not in ((), (2,)):
        raise ValueError(f"{name} must be a number or two, of 0 and of 1, got {array.shape}")
    if not np.all(array > 0):
        raise ValueError(f"{name} is {value!r}; numbers > 0 are allowed")
    zero, one = np.broadcast_to(array, (2,))
    return float(zero), float(one)


def _check_mode(name: str, value: Any, method: Method) -> None:
    """Raise TypeError for no numbers, ValueError where a prior has no mode for a method to find."""
    if value is not None and np.asarray(value).dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, not {value!r}")
    if value is not None and method.read == "mode" and np.any(np.asarray(value, float) < 1):
        raise ValueError(
            f"{name}={value!r} is below 1: p(theta) then has no mode for {method.name!r} to find; "
            "give 1 or more, or use 'mean_field' or 'full'"
        )


def _check_probabilities(name: str, values: Array) -> None:
    bad = np.argwhere((values < 0) | (values > 1))
    if len(bad):
        index = [int(i) for i in bad[0]]
        raise ValueError(
            f"{name}{index} is {values[tuple(index)]}; probabilities must lie in [0, 1]"
        )
