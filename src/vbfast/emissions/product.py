"""Products of emissions: columns of several kinds, independent given the component."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels
from ..conjugate import Tables
from ..data import ByValue, Frame, check_size, columns_of
from ..stats import Moments, Stats
from .discrete import PORTION, WithBase

__all__ = ["Product"]

Array = NDArray[np.float64]

# Of the rows of a component, the least share seen of which what is said means anything.
LEAST_SEEN = 1e-9


class _OfPart:
    """What a part sees of a product's statistics: its own fields."""

    def __init__(self, stats: Any, prefix: str) -> None:
        self._stats, self._prefix = stats, prefix

    def __getitem__(self, name: str) -> Array:
        field: Array = self._stats[self._prefix + name]
        return field

    def copy(self) -> _OfPart:
        return _OfPart(self._stats.copy(), self._prefix)


def seen_by(part: Any, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows of a part's columns, (N, D), that say something to it."""
    absent = np.isnan(values)
    return np.logical_not(absent.all(axis=1) if misses_values(part) else absent.any(axis=1))


def misses_values(part: Any) -> bool:
    """Whether a part takes rows of which some of its features are missing."""
    return bool(getattr(part, "missing", False))


def _filled(values: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
    """Values with what one of these rows has in the place of all others; 0 where there are none."""
    if rows.all():
        return values
    out = np.array(values)
    out[~rows] = values[rows.argmax()] if rows.any() else 0.0
    return out


@dataclass(frozen=True)
class ProductParameters:
    """Parameters of each part."""

    parts: tuple[Any, ...]

    @property
    def arrays(self) -> dict[str, Array]:
        """What draws are kept as."""
        return {
            f"{n}.{name}": part
            for n, of_part in enumerate(self.parts)
            for name, part in of_part.arrays.items()
        }

    @property
    def rounding(self) -> float:
        """Nats a row that rounding may take from an objective here."""
        return float(sum(part.rounding for part in self.parts))


@dataclass(frozen=True)
class ProductDistribution:
    """A distribution over the parameters of each part; all are independent."""

    emission: Product
    parts: tuple[Any, ...]

    @property
    def proper(self) -> bool:
        """Whether there is a density that integrates to 1."""
        return all(part.proper for part in self.parts)

    def mode(self) -> ProductParameters:
        """Return the parameters of highest density."""
        return ProductParameters(tuple(part.mode() for part in self.parts))

    def mean(self) -> ProductParameters:
        """Return expected natural parameters."""
        return ProductParameters(tuple(part.mean() for part in self.parts))

    def sample(self, rng: np.random.Generator) -> ProductParameters:
        """Draw parameters."""
        return ProductParameters(tuple(part.sample(rng) for part in self.parts))

    def kl(self, prior: ProductDistribution) -> float:
        """KL(self || prior), in nats."""
        return float(sum(one.kl(other) for one, other in zip(self.parts, prior.parts, strict=True)))

    def log_density_terms(self, theta: ProductParameters) -> tuple[float, Array]:
        """Density of theta: see `Model.log_density_terms`."""
        each = [
            part.log_density_terms(of_part)
            for part, of_part in zip(self.parts, theta.parts, strict=True)
        ]
        return sum(common for common, _ in each), np.asarray(sum(terms for _, terms in each))

    def log_predictive(self, x: Array) -> Array:
        """log p(x | component), parameters integrated out, (N, K) for x (N, D) in its units.

        Whoever turns it into a density in the units of the data takes every column for seen: what a
        missing one adds then is taken off here.
        """
        log_scale = np.log(self.emission.units.scale)
        total: Any = 0.0
        for emission, columns, part in zip(
            self.emission.parts, self.emission.columns, self.parts, strict=True
        ):
            own = columns_of(x, columns)
            rows = seen_by(emission, own)
            scores = part.log_predictive(_filled(own, rows))
            if not rows.all():
                scores = np.where(rows[:, None], scores, 0.0)
            scores = scores - (np.isnan(own) * log_scale[list(columns)]).sum(axis=1)[:, None]
            total = total + scores
        return np.asarray(total)

    def sample_rows(self, components: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Draw a row from each of `components`, parameters integrated out, (N, D)."""
        rows = np.full((len(components), self.emission.n_features), np.nan)
        for emission, columns, part in zip(
            self.emission.parts, self.emission.columns, self.parts, strict=True
        ):
            if isinstance(part, Tables):  # their expected probabilities say as much
                rows[:, columns] = emission.sample_rows(part.mean_point(), components, rng)
            else:
                rows[:, columns] = part.sample_rows(components, rng)
        return rows


@dataclass(frozen=True, eq=False)
class Product(WithBase, ByValue):
    """x_d | t = k: columns of several kinds, independent given the component.

    p(x | t) is the product of what each part says of its own columns: scores add, statistics stand
    side by side.

    Parameters
    ----------
    parts : sequence of Gaussian, Poisson, Exponential, Bernoulli or Categorical
    columns : sequence of sequences of int
        Of each part, the columns of X that it sees: as many as its features. None is in two parts;
        those in none are read past.
    n_features : int, optional
        D, the columns of X; one more than the last that a part sees where not given.
    missing : bool or sequence of bool
        Of each part, whether rows may be missing at random: with NaN in all of its columns. They
        say nothing then, and count for nothing in this part; what is said of the rest is exact. Of
        a `Gaussian` with ``missing=True`` a row may miss some columns and have others.

    Raises
    ------
    TypeError, ValueError
        If there is no part, a part is no such emission, or columns don't go with it.

    Examples
    --------
    >>> import vbfast
    >>> vbfast.Product([vbfast.Gaussian(2), vbfast.Poisson(1)], [[0, 2], [1]]).n_features
    3
    """

    parts: Sequence[Any]
    columns: Sequence[Sequence[int]]
    n_features: int = 0
    missing: bool | Sequence[bool] = False

    #: Where starts look for centroids: among `points`.
    located: ClassVar[bool] = False
    #: The compiled loop doesn't know it: see loops.py.
    compiled: ClassVar[bool] = False
    #: Symbols that a kernel's tables have room for: the parts tell, see `kernel`.
    width: ClassVar[int] = 0

    def __post_init__(self) -> None:
        parts = tuple(self.parts)
        if not parts:
            raise ValueError("parts must be one emission at least")
        for n, part in enumerate(parts):
            if not hasattr(part, "reference_at") or isinstance(part, Product):
                raise TypeError(f"parts[{n}] must be an emission such as Gaussian(2), not {part!r}")
        if len(self.columns) != len(parts):
            raise ValueError(f"columns must be {len(parts)}, one for each part, not {self.columns}")
        columns = tuple(tuple(map(operator.index, each)) for each in self.columns)
        seen: dict[int, int] = {}
        for n, (part, each) in enumerate(zip(parts, columns, strict=True)):
            if len(each) != part.n_features:
                raise ValueError(
                    f"columns[{n}] must be {part.n_features}, as the part's features, not {each}"
                )
            for column in each:
                if column < 0:
                    raise ValueError(f"columns[{n}] has {column}; numbers from 0 on are allowed")
                if column in seen:
                    raise ValueError(f"column {column} is in parts {seen[column]} and {n}")
                seen[column] = n
        needed = 1 + max(seen)
        n_features = check_size("n_features", self.n_features or needed)
        if n_features < needed:
            raise ValueError(f"n_features must be {needed} at least, not {n_features}")
        missing: Any = self.missing
        if isinstance(missing, (bool, np.bool_)):
            missing = [missing] * len(parts)
        if not hasattr(missing, "__len__"):
            raise TypeError(f"missing must be a truth, or one for each part, not {missing!r}")
        if len(missing) != len(parts):
            raise ValueError(f"missing must be {len(parts)}, one for each part, not {missing!r}")
        each_misses = tuple(
            bool(own) or misses_values(part) for own, part in zip(missing, parts, strict=True)
        )
        object.__setattr__(self, "missing", each_misses)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "n_features", n_features)

    def _each(self, *more: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """The name of a part's fields begins with it; the part; more."""
        names = [f"{n}." for n in range(len(self.parts))]
        return zip(names, self.parts, *more, strict=True)

    @property
    def _misses(self) -> tuple[bool, ...]:
        """Whether rows may be missing, of each part."""
        missing: Any = self.missing
        return tuple(missing)

    @cached_property
    def missing_columns(self) -> tuple[int, ...]:
        """Columns that may have NaN."""
        each = zip(self.columns, self._misses, strict=True)
        return tuple(column for columns, misses in each if misses for column in columns)

    @property
    def may_be_impossible(self) -> bool:
        """Whether a row may have probability 0."""
        return any(part.may_be_impossible for part in self.parts)

    @property
    def proper_with(self) -> str:
        """What makes the prior proper."""
        return " and ".join(f"{part.proper_with} of {type(part).__name__}" for part in self.parts)

    @property
    def fewest_rows(self) -> dict[str, int]:
        """As `Gaussian.fewest_rows`: of the rows that a part has seen."""
        return {
            prefix + name: fewest
            for prefix, part in self._each()
            for name, fewest in getattr(part, "fewest_rows", {}).items()
        }

    @cached_property
    def units(self) -> Frame:
        """Those of each part's columns."""
        d = self.n_features
        units = Frame(np.zeros(d), np.ones(d), np.ones(d))
        for part, columns in zip(self.parts, self.columns, strict=True):
            for name in ("origin", "scale", "variance"):
                getattr(units, name)[list(columns)] = getattr(part.units, name)
        return units

    @cached_property
    def kernel(self) -> tuple[tuple[str, tuple[int, ...], int, int], ...]:
        """Of each part: name of scores and statistics, columns, symbols, what may miss."""
        return tuple(
            (part.kernel, tuple(columns), part.width, misses + misses_values(part))
            for part, columns, misses in zip(self.parts, self.columns, self._misses, strict=True)
        )

    def single_resolves(self, theta: ProductParameters) -> bool:
        """Whether float32 numbers will do: kernels are for float64 numbers alone."""
        return False

    # -- statistics ---------------------------------------------------------------------------

    def fields(self, n_components: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of this emission's statistics."""
        return (
            ("strength", (n_components,)),
            *(
                (prefix + name, shape)
                for prefix, part in self._each()
                for name, shape in part.fields(n_components)
            ),
        )

    @cached_property
    def moments(self) -> tuple[Moments, ...]:
        """How those statistics add up."""
        return tuple(
            Moments(prefix + each.strength, prefix + each.mean, prefix + each.scatter)
            for prefix, part in self._each()
            for each in part.moments
        )

    def prior(self, n_components: int) -> dict[str, ArrayLike]:
        """Hyperparameters."""
        return {
            prefix + name: value
            for prefix, part in self._each()
            for name, value in part.prior(n_components).items()
        }

    def distribution(self, stats: Any) -> ProductDistribution:
        """Statistics read as a distribution over parameters."""
        return ProductDistribution(
            self, tuple(part.distribution(_OfPart(stats, prefix)) for prefix, part in self._each())
        )

    def _joined(self, counts: Array, each: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        """Fields of all parts."""
        fields = {
            prefix + name: value for prefix, of_part in each for name, value in of_part.items()
        }
        return {"strength": counts, **fields}

    def collect(
        self, raw: Array, counts: Array, reference: tuple[Array, ...]
    ) -> dict[str, ArrayLike]:
        """Statistics of what kernels added up, one part's after the other's."""
        out, start, k = [], 0, len(counts)
        for prefix, part, of_part, misses in self._each(reference, self._misses):
            of = _kernels.mixture.statistics_size(part.kernel, k, part.n_features, part.width)
            seen = counts
            if misses:
                seen = raw[start : start + k].copy()
                start += k
            end = start + of - 1 - k
            out.append((prefix, part.collect(raw[start:end], seen, of_part)))
            start = end
        return self._joined(counts, iter(out))

    def common(self, stats: Stats) -> dict[str, ArrayLike]:
        """Statistics of as many rows that are like all together; nothing, of Gaussians."""
        return self._joined(
            stats["strength"],
            ((prefix, part.common(_OfPart(stats, prefix))) for prefix, part in self._each()),
        )

    # -- coordinates --------------------------------------------------------------------------

    def n_coordinates(self, n_components: int) -> int:
        """How many numbers `coordinates` gives."""
        return sum(part.n_coordinates(n_components) for part in self.parts)

    def coordinates(self, stats: Stats, held: NDArray[np.bool_]) -> Array:
        """Unconstrained numbers for the statistics of all parts, one part's after the other's."""
        return np.concatenate(
            [
                part.coordinates(_OfPart(stats, prefix), self._held_by(prefix, stats, held))
                for prefix, part in self._each()
            ]
        )

    def _held_by(self, prefix: str, stats: Stats, held: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which components hold enough rows that a part has seen."""
        own = stats[prefix + "strength"]
        return np.asarray(held & (own > LEAST_SEEN * stats["strength"]))

    def at_coordinates(
        self, coordinates: Array, counts: Array, held: NDArray[np.bool_], like: Stats
    ) -> dict[str, Array]:
        """Inverse of `coordinates`: fields of what `counts` rows (K,) bring."""
        ends = np.cumsum([part.n_coordinates(len(counts)) for part in self.parts])[:-1]
        prior = self.prior(len(counts))
        out = []
        for prefix, part, own, misses in self._each(np.split(coordinates, ends), self._misses):
            seen = counts
            if misses:  # as large a share of the rows as there
                of_rows = like[prefix + "strength"] - np.asarray(
                    prior.get(prefix + "strength", 0.0), np.float64
                )
                share = of_rows / np.where(like["strength"] > 0, like["strength"], 1.0)
                seen = counts * np.minimum(share, 1.0)
            held_by = self._held_by(prefix, like, held)
            out.append((prefix, part.at_coordinates(own, seen, held_by, _OfPart(like, prefix))))
        return self._joined(counts, iter(out))

    # -- parameters ---------------------------------------------------------------------------

    def arrays(self, n_components: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what draws of the parameters are kept as."""
        return {
            prefix + name: shape
            for prefix, part in self._each()
            for name, shape in part.arrays(n_components).items()
        }

    def _shared_out(self, arrays: tuple[Array, ...]) -> Iterator[tuple[Any, tuple[Array, ...]]]:
        """Each part and its arrays, of those of all."""
        start = 0
        for part in self.parts:
            end = start + len(part.arrays(1))
            yield part, arrays[start:end]
            start = end

    def parameters(self, *arrays: Array) -> ProductParameters:
        """Parameters of the arrays that draws are kept as."""
        return ProductParameters(
            tuple(part.parameters(*own) for part, own in self._shared_out(arrays))
        )

    def together(self, *arrays: Array) -> tuple[Product, ProductParameters]:
        """G draws, arrays with these first, as one emission of G K components."""
        each = [part.together(*own) for part, own in self._shared_out(arrays)]
        return (
            replace(self, parts=tuple(part for part, _ in each)),
            ProductParameters(tuple(parameters for _, parameters in each)),
        )

    def mean_of_draws(self, *arrays: Array) -> ProductParameters:
        """Parameters that are means of those drawn, arrays with the draws first."""
        return ProductParameters(
            tuple(part.mean_of_draws(*own) for part, own in self._shared_out(arrays))
        )

    def mean_point(self, posterior: Stats) -> ProductParameters:
        """Expected parameters under a posterior, as if they were known."""
        return ProductParameters(
            tuple(part.mean_point(_OfPart(posterior, prefix)) for prefix, part in self._each())
        )

    @property
    def plain(self) -> Product:
        """Without priors: what is said of rows after a fit."""
        return replace(self, parts=tuple(part.plain for part in self.parts))

    def unit(self, means: Array) -> ProductParameters:
        """Parameters of components about means (K, D) that statistics can be taken about."""
        return ProductParameters(
            tuple(
                part.unit(np.ascontiguousarray(means[:, list(columns)]))
                for part, columns in zip(self.parts, self.columns, strict=True)
            )
        )

    def means_in(self, stats: Stats) -> Array:
        """What statistics are best taken about, (K, D): the means of Gaussians."""
        means = np.zeros((len(stats["strength"]), self.n_features))
        for prefix, part, columns in self._each(self.columns):
            means[:, list(columns)] = part.means_in(_OfPart(stats, prefix))
        return means

    def reference_at(self, means: Array) -> tuple[Array, ...]:
        """What kernels take moments about, of each part, where it is to be these (K, D)."""
        return tuple(
            part.reference_at(np.ascontiguousarray(means[:, list(columns)]))
            for part, columns in zip(self.parts, self.columns, strict=True)
        )

    def reference(self, theta: ProductParameters) -> tuple[Array, ...]:
        """What kernels take moments about, of each part."""
        return tuple(
            part.reference(of_part) for part, of_part in zip(self.parts, theta.parts, strict=True)
        )

    def coefficients(self, theta: ProductParameters, reference: tuple[Array, ...]) -> Array:
        """What kernels read of theta, one part's after the other's."""
        out: list[Array] = []
        for part, own, about, misses in zip(
            self.parts, theta.parts, reference, self._misses, strict=True
        ):
            if misses:
                out.append(part.offsets(own))
            out.append(np.ravel(part.coefficients(own, about)))
        return np.concatenate(out)

    def offsets(self, theta: ProductParameters) -> Array:
        """Scores but for what kernels add, (K,): those of parts that don't miss rows."""
        total = np.zeros(len(next(iter(theta.arrays.values()))))
        for part, own, misses in zip(self.parts, theta.parts, self._misses, strict=True):
            if not misses:
                total += part.offsets(own)
        return total

    def log_prior(self, prior: ProductDistribution, theta: ProductParameters) -> float:
        """log p(theta); 0 for what of it is flat."""
        return float(
            sum(
                part.log_prior(own, of_part)
                for part, own, of_part in zip(self.parts, prior.parts, theta.parts, strict=True)
            )
        )

    def log_volume(self, n_components: int) -> float:
        """Turn a density of parameters into one in the units of the data, by adding."""
        return float(sum(part.log_volume(n_components) for part in self.parts))

    # -- rows ---------------------------------------------------------------------------------

    def first_fault(self, values: NDArray[Any]) -> tuple[int, int, str] | None:
        """Row and column of the first value that can't come from its part, and why."""
        for part, columns, misses in zip(self.parts, self.columns, self._misses, strict=True):
            for first in range(0, len(values), PORTION):
                own = columns_of(values[first : first + PORTION], columns)
                absent = np.isnan(own) if misses else np.zeros(own.shape, dtype=bool)
                rows = seen_by(part, np.where(absent, np.nan, 0.0))
                partly = np.flatnonzero(~rows & ~absent.all(axis=1))
                if len(partly):
                    row = int(partly[0])
                    return (
                        first + row,
                        columns[int(absent[row].argmax())],
                        (
                            f"is missing and others of its part, columns {list(columns)}, are not: "
                            "make it a part of its own, or of Gaussians with full or tied "
                            "covariances take another method than full inference"
                        ),
                    )
                found = part.first_fault(_filled(own, rows))
                if found is not None:
                    row, place, why = found
                    return first + row, columns[place], why
        return None

    def log_base(self, values: NDArray[Any]) -> Array:
        """What kernels leave out of each row's log probability, whatever theta is, (N,)."""
        out = np.zeros(len(values))
        for part, columns, misses in zip(self.parts, self.columns, self._misses, strict=True):
            own = columns_of(values, columns)
            rows = seen_by(part, own) if misses else np.ones(len(own), dtype=bool)
            if rows.all():
                out += part.log_base(own)
            elif rows.any():
                out[rows] += part.log_base(own[rows])
        return out

    @property
    def point_width(self) -> int:
        """Numbers in one of `points`."""
        return sum(getattr(part, "point_width", part.n_features) for part in self.parts)

    def points(self, values: Array) -> Array:
        """Where rows lie, for a start to look for centroids: those of parts, side by side.

        Numbers in units of their standard deviations; of symbols as they are. What is missing is
        in the middle.
        """
        each = []
        for part, columns in zip(self.parts, self.columns, strict=True):
            own = columns_of(values, columns)
            if misses_values(part):  # an origin of units is in the middle
                points = np.nan_to_num(part.points(own))
            else:
                rows = seen_by(part, own)
                points = part.points(_filled(own, rows))
                if not rows.all():
                    points[~rows] = points[rows].mean(axis=0) if rows.any() else 0.0
            if not hasattr(part, "categories"):
                spread = points.std(axis=0)
                points = points / np.where(spread > 0, spread, 1.0)
            each.append(points)
        return np.concatenate(each, axis=1)

    def sample_rows(
        self, theta: ProductParameters, components: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw a row from each of `components`, (N, D); NaN in columns that no part sees."""
        rows = np.full((len(components), self.n_features), np.nan)
        for part, columns, own in zip(self.parts, self.columns, theta.parts, strict=True):
            rows[:, list(columns)] = part.sample_rows(own, components, rng)
        return rows
