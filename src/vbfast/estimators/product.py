"""Products of emissions, as estimators take them and tell of them: columns of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._kernels.inputs import Assignment
from ..answers import Expected, Known
from ..data import ArrayData, as_rows, check_number, columns_of
from ..emissions import Gaussian, Product
from ..imputation import drawn, expected
from ..latents import Mixture
from ..methods import FullInference, Method
from ..model import Model
from ..stats import Stats
from .base import feature_names
from .categories import as_categories, as_symbols
from .emission_parameters import EMISSIONS, INITS, OWN, SHARED
from .gaussian_parameters import LEAST_PART

__all__ = ["EmissionPart", "ProductParameters", "imputing", "parts_of"]

Array = NDArray[np.float64]

# Columns of data frames, by NumPy's kinds of dtypes, that "auto" takes for an emission.
KINDS = {"f": "gaussian", "i": "poisson", "u": "poisson", "b": "bernoulli"}
# Sweeps, at most, that look for the covariance of all rows where values are missing.
SWEEPS_OF_COVARIANCE = 100


class EmissionPart:
    """What a fit says of columns of one kind.

    Attributes
    ----------
    emission : str
    columns : tuple of int or str
        As they were told: numbers, or names.
    means_, covariances_, precisions_, precisions_cholesky_, rates_, probabilities_ : ndarray
        What `MixtureModel` has for this emission alone, priors as well. Read-only.
    """

    emission: str
    columns: tuple[Any, ...]

    def __init__(self, attributes: dict[str, Any]) -> None:
        for name, value in attributes.items():
            if name.startswith("_"):
                continue
            if isinstance(value, np.ndarray):
                value = value.copy()
                value.flags.writeable = False
            self.__dict__[name] = value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} can't be set: a part tells of a fit")

    def __repr__(self) -> str:
        names = ", ".join(name for name in vars(self) if name.endswith("_"))
        return f"EmissionPart({self.emission!r}, {list(self.columns)}: {names})"


def parts_of(estimator: Any) -> tuple[EmissionPart, ...]:
    """What a fit of an estimator says of each part; AttributeError where there are none."""
    found = vars(estimator).get("_product")
    if found is None:
        raise AttributeError(
            f"{type(estimator).__name__} has no parts_: it isn't fitted with several emissions"
        )
    parts: tuple[EmissionPart, ...] = found.parts
    return parts


def imputing(estimator: Any, draws: int | None) -> ProductParameters:
    """What a fit that may miss values says of the parts; ValueError where it may not."""
    estimator._now()._check_is_fitted()
    check_number("draws", draws, whole=True, least=1, optional=True)
    found = vars(estimator).get("_product")
    if found is None or not found.may_miss:
        raise ValueError("impute is for a fit with missing='at_random'")
    product: ProductParameters = found
    return product


def read_frame(X: Any) -> Any:
    """Return a data frame's columns side by side, of objects where not all are numbers; else X."""
    if isinstance(X, np.ndarray) or not (hasattr(X, "columns") and hasattr(X, "shape")):
        return X
    columns = list(_columns_in(X))
    if all(column.dtype.kind in "fiub" for column in columns):
        return np.column_stack(columns).astype(np.float64) if columns else np.empty(X.shape)
    out = np.empty(X.shape, dtype=object)
    for d, column in enumerate(columns):
        out[:, d] = column
    return out


def _series_of(X: Any) -> Iterator[Any]:
    """A data frame's columns."""
    for d in range(X.shape[1]):
        yield X.iloc[:, d] if hasattr(X, "iloc") else X[:, d]


def _columns_in(X: Any) -> Iterator[NDArray[Any]]:
    """A data frame's columns, as arrays."""
    return map(np.asarray, _series_of(X))


def _unmasked(X: Any) -> Any:
    """Rows of a masked array with None, or NaN, in place of what is masked; others as they are."""
    if not isinstance(X, np.ma.MaskedArray):
        return X
    if X.dtype.kind == "f":
        return X.filled(np.nan)
    out = np.array(X.data, dtype=object)
    out[np.ma.getmaskarray(X)] = None
    return out


def _holds_integers(column: Any) -> bool:
    """Whether a data frame's column is of whole numbers: with gaps its array may be of floats."""
    kind = getattr(column.dtype, "kind", None)  # NumPy's and pandas'
    of_polars = getattr(column.dtype, "is_integer", None)
    return kind in ("i", "u") or bool(of_polars is not None and of_polars())


def _told_automatically(X: Any, missing: bool) -> list[tuple[Any, ...]]:
    """What `emission="auto"` takes columns for, by their types."""
    if hasattr(X, "columns") and hasattr(X, "shape"):
        columns = list(_columns_in(X))
        whole = [_holds_integers(column) for column in _series_of(X)]
    else:
        values = np.asarray(X)
        if values.dtype.kind not in "iub":
            values = values if missing else as_symbols(X)
        columns = list(values.T)
        whole = [False] * len(columns)
    of: dict[str, list[int]] = {}
    for d, column in enumerate(columns):
        if missing:
            column = column[~_absent(column)]
        if column.dtype.kind == "O":
            numbers = all(not isinstance(value, str) for value in column)
            if numbers:
                try:
                    column = np.array(column.tolist())
                except (TypeError, ValueError):
                    numbers = False
        kind = "i" if whole[d] else column.dtype.kind
        name = KINDS.get(kind, "categorical")
        if name == "poisson" and column.min(initial=0) < 0:
            name = "gaussian"
        of.setdefault(name, []).append(d)
    more = {"gaussian": ({"covariance_type": "diag"},)}
    return [(name, own, *more.get(name, ())) for name, own in of.items()]


def _columns_told(told: Any, X: Any, names: Sequence[str] | None, d: int, n: int) -> list[int]:
    """Numbers of the columns that part n is told to see, of d."""
    if callable(told):
        told = told(X)
    if isinstance(told, slice):
        return list(range(d)[told])
    if isinstance(told, (str, int, np.integer)) and not isinstance(told, (bool, np.bool_)):
        told = [told]
    each = list(told)
    if each and all(isinstance(one, (bool, np.bool_)) for one in each):
        if len(each) != d:
            raise ValueError(f"columns of emission[{n}] must be {d} truths, not {len(each)}")
        return [int(i) for i in np.flatnonzero(each)]
    out = []
    for one in each:
        if isinstance(one, str):
            if names is None or one not in names:
                known = "X has no names" if names is None else f"X has {', '.join(names)}"
                raise ValueError(f"columns of emission[{n}] have {one!r}; {known}")
            out.append(list(names).index(one))
        elif isinstance(one, (int, np.integer)) and not isinstance(one, (bool, np.bool_)):
            if not -d <= one < d:
                raise ValueError(f"columns of emission[{n}] have {one}; X has {d} columns")
            out.append(int(one) % d)
        else:
            raise TypeError(f"columns of emission[{n}] must be names or integers, not {one!r}")
    return out


def _absent(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values are missing: NaN, None, pandas' NA and NaT."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind != "O":
        return np.zeros(len(column), dtype=bool)
    return np.array(
        [
            value is None
            or type(value).__name__ in ("NAType", "NaTType")
            or (isinstance(value, (float, np.floating)) and value != value)
            for value in column
        ],
        dtype=bool,
    )


def _of_column(name: str, parameters: dict[str, Any], place: int, d: int) -> dict[str, Any]:
    """Of parameters of d columns, those of one."""
    out = dict(parameters)
    for key, value in parameters.items():
        if key == "categories":
            out[key] = [as_categories(key, value, d)[place].tolist()]
            continue
        axes = 2 if key == "concentration_prior" else 1
        of_bits = key == "concentration_prior" and name == "bernoulli"
        shape: tuple[int, ...] = np.shape(value) if value is not None else ()
        if len(shape) >= axes and shape[0] == d and not of_bits:
            out[key] = np.asarray(value)[place : place + 1]
    return out


class ProductParameters:
    """Parts of one fit: which columns each sees, its parameters, what is told of it.

    It has the verbs that parameters of one emission have for the estimators, and keeps what a fit
    finds out on the way.

    Parameters
    ----------
    estimator
        Of which `check_emission` has nothing to say.
    X : array-like
        Rows to fit.
    """

    def __init__(self, estimator: Any, X: Any) -> None:
        names = feature_names(X)
        self.n_threads = estimator.n_threads
        shape = np.shape(X)
        if len(shape) != 2:
            as_rows(X)  # tells
        d = shape[1]
        self.may_miss: bool = estimator.missing == "at_random"
        full = estimator.method == "full" or isinstance(estimator.method, FullInference)
        told: Any = estimator.emission
        if isinstance(told, str) and told == "auto":
            told = _told_automatically(_unmasked(X) if self.may_miss else X, self.may_miss)
        elif isinstance(told, str):
            given = {name: getattr(estimator, name) for name in EMISSIONS[told].reads}
            given = {name: value for name, value in given.items() if value is not None}
            told = [(told, slice(None), given)]
        #: As `emission` may be told.
        self.told: list[tuple[Any, ...]] = list(told)
        of_parts: list[tuple[str, list[int], dict[str, Any]]] = []
        #: Of each part, how many columns were told together.
        self.widths: list[int] = []
        seen: dict[int, int] = {}
        for n, part in enumerate(told):
            own = _columns_told(part[1], X, None if names is None else list(names), d, n)
            if not own:
                raise ValueError(f"emission[{n}] sees no column")
            for column in own:
                if column in seen:
                    raise ValueError(f"column {column} is in emission[{seen[column]}] and [{n}]")
                seen[column] = n
            parameters = part[2] if len(part) == 3 else {}
            covariance_type = parameters.get("covariance_type", estimator.covariance_type)
            if self.may_miss and (part[0] != "gaussian" or covariance_type == "diag"):
                # Independent given the component: each may be missing by itself.
                of_parts += [
                    (part[0], [column], _of_column(part[0], parameters, place, len(own)))
                    for place, column in enumerate(own)
                ]
            else:
                of_parts.append((part[0], own, parameters))
            self.widths += [len(own)] * (len(of_parts) - len(self.widths))
        self.names: list[str] = [name for name, _, _ in of_parts]
        self.columns: list[list[int]] = [own for _, own, _ in of_parts]
        self.faces: list[Any] = []
        self._priors: list[dict[str, Any]] = [{} for _ in of_parts]
        self._codes_told: list[dict[str, Any]] = [{} for _ in of_parts]
        for name, own, parameters in of_parts:
            kind = EMISSIONS[name]
            face = kind.__new__(kind)
            vars(face).update(dict.fromkeys((*OWN, *INITS)))
            vars(face).update({each: getattr(estimator, each) for each in SHARED})
            vars(face).update(
                n_components=estimator.n_components, n_threads=estimator.n_threads, _columns=own
            )
            vars(face).update(parameters)
            if name == "gaussian":
                face._check_gaussian_parameters()
            self.faces.append(face)
        #: Of each part, whether a row may miss some of its columns.
        self.gaps: list[bool] = [
            self.may_miss
            and name == "gaussian"
            and face.covariance_type in ("full", "tied")
            and len(own) > 1
            and not full
            for name, face, own in zip(self.names, self.faces, self.columns, strict=True)
        ]
        self.n_columns = d
        self.shown: list[tuple[Any, ...]] = [
            tuple(own if names is None else [str(names[column]) for column in own])
            for own in self.columns
        ]

    @property
    def _seen_all(self) -> bool:
        return sum(map(len, self.columns)) == self.n_columns

    @property
    def columns_with_gaps(self) -> list[int]:
        """Columns of parts of which a row may miss some."""
        each = zip(self.columns, self.gaps, strict=True)
        return [column for own, gaps in each if gaps for column in own]

    # -- rows -----------------------------------------------------------------------------------

    def _read_rows(self, X: ArrayLike) -> NDArray[Any]:
        if not self.may_miss:
            return as_symbols(read_frame(X))
        rows = read_frame(_unmasked(X))
        if isinstance(rows, np.ndarray) and rows.dtype.kind in "fiub":
            return as_rows(rows)
        rows = np.array(rows, dtype=object)
        if rows.ndim == 2:
            for d in range(rows.shape[1]):
                rows[_absent(rows[:, d]), d] = np.nan
            if not any(isinstance(value, str) for value in rows.flat):
                return as_rows(rows)
        return rows if rows.ndim == 2 and rows.size else as_rows(rows)

    def _put_together(
        self, values: NDArray[Any], of_part: Callable[[int, Any, NDArray[Any]], ArrayLike]
    ) -> NDArray[Any]:
        """Rows as the model has them: each part's by ``of_part(n, face, columns)``."""
        parts, changed = [], values.dtype.kind == "O" or not self._seen_all
        for n, (face, own) in enumerate(zip(self.faces, self.columns, strict=True)):
            part: NDArray[Any] = columns_of(values, own)
            if self.may_miss and self.names[n] == "categorical":
                codes = self._symbols_seen(n, face, part, of_part)
                changed = changed or codes is not part
                parts.append(codes)
                continue
            if self.names[n] != "categorical" and part.dtype.kind == "O":
                try:
                    part = as_rows(part)
                except (TypeError, ValueError) as error:
                    raise type(error)(f"columns {list(self.shown[n])}: {error}") from None
            made = of_part(n, face, part)
            changed = changed or made is not part
            parts.append(np.asarray(made))
        if not changed:
            return values
        out = np.zeros(values.shape, np.result_type(*parts), order="F")
        for own, part in zip(self.columns, parts, strict=True):
            out[:, own] = part
        return out

    def _symbols_seen(
        self,
        n: int,
        face: Any,
        part: NDArray[Any],
        of_part: Callable[[int, Any, NDArray[Any]], ArrayLike],
    ) -> NDArray[Any]:
        """Codes of a column of symbols, NaN of what is missing."""
        column = part[:, 0]
        absent = _absent(column) | (column == -1)
        if not absent.any():
            return np.asarray(of_part(n, face, part))
        if absent.all():
            return np.full(part.shape, np.nan)
        filled = part.copy()
        filled[absent] = column[absent.argmin()]
        kind = part.dtype if part.dtype == np.float32 else np.float64
        codes = np.array(of_part(n, face, filled), dtype=kind)
        codes[absent] = np.nan
        return codes

    def _coded(self, X: ArrayLike) -> tuple[ArrayLike, dict[str, Any]]:
        """Rows to fit as the model has them; categories are kept by the parts."""

        def of_part(n: int, face: Any, part: NDArray[Any]) -> ArrayLike:
            made, told = face._coded(part)
            vars(face).update(told)
            self._codes_told[n] = told
            return cast(ArrayLike, made)

        return self._put_together(self._read_rows(X), of_part), {}

    def _codes(self, values: NDArray[Any]) -> NDArray[Any]:
        return self._put_together(values, lambda n, face, part: face._codes(part))

    def _decoded(self, rows: NDArray[Any]) -> NDArray[Any]:
        parts = [
            face._decoded(rows[:, own]) for face, own in zip(self.faces, self.columns, strict=True)
        ]
        text = any(part.dtype.kind == "O" for part in parts)
        out = rows.astype(object if text else rows.dtype)
        for own, part in zip(self.columns, parts, strict=True):
            out[:, own] = part
        return out

    def _read(
        self,
        X: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> ArrayData:
        """Rows to fit, checked."""
        data = ArrayData.of(
            X,
            sample_weight,
            lengths=lengths,
            standardise=[
                (columns, face.covariance_type == "spherical")
                for n, (face, own) in enumerate(zip(self.faces, self.columns, strict=True))
                if self.names[n] == "gaussian"
                for columns in ([[column] for column in own] if self.gaps[n] else [own])
            ],
            missing=[column for own in self.columns for column in own] if self.may_miss else (),
            n_threads=self.n_threads,
        )
        plain = []
        for n, face in enumerate(self.faces):
            part = self._seen_by(data, n)
            if self.names[n] == "gaussian":
                plain.append(self._gaussian(n, part))
            else:
                plain.append(face._plain(part.values))
        return self._product(plain, data).check(data)

    def _product(self, parts: Sequence[Any], data: ArrayData) -> Product:
        return Product(parts, self.columns, data.values.shape[1], self.may_miss)

    def _gaussian(self, n: int, data: ArrayData) -> Gaussian:
        """The emission of part n, without a prior, for what it sees."""
        face = self.faces[n]
        return Gaussian(
            data.values.shape[1], face.covariance_type, frame=data.frame, missing=self.gaps[n]
        )

    def _seen_by(self, data: ArrayData, n: int) -> ArrayData:
        """What part n sees: its columns, of the rows where they, or some, are not missing."""
        columns = self.columns[n]
        part = data.of_columns(columns)
        if not self.may_miss:
            return part
        absent = np.isnan(part.values)
        rows = np.logical_not(absent.all(axis=1) if self.gaps[n] else absent.any(axis=1))
        weights = None if part.weights is None else part.weights[rows]
        if not rows.any() or (weights is not None and not weights.any()):
            raise ValueError(f"column {columns[0]} of X is missing in every row")
        return replace(part, values=part.values[rows], weights=weights, sequences=None)

    def width(self, data: ArrayData) -> int:
        """Numbers that statistics have of a component, for each column."""
        most = [2]
        for n, (name, face, own) in enumerate(
            zip(self.names, self.faces, self.columns, strict=True)
        ):
            if name == "categorical":
                most.append(face._plain(self._seen_by(data, n).values).width)
            elif name == "gaussian" and face.covariance_type in ("full", "tied"):
                most.append(len(own))
        return max(most)

    # -- the model ------------------------------------------------------------------------------

    def _emission_with_prior(
        self, data: ArrayData, method: Method, proper: bool
    ) -> tuple[Product, dict[str, Any]]:
        """Return the emission; what tells of priors is kept by the parts."""
        emissions = []
        for n, face in enumerate(self.faces):
            part = self._seen_by(data, n)
            # Of columns that are parts one by one the prior is that of all together.
            together = proper and self.widths[n] > len(self.columns[n])
            if together and self.names[n] == "gaussian" and face.degrees_of_freedom_prior is None:
                face.degrees_of_freedom_prior = float(self.widths[n])
            if self.gaps[n]:
                emission, self._priors[n] = face._emission(
                    part.frame, method, proper, partial(self._covariance_with_gaps, n, part)
                )
                emission = replace(emission, missing=True)
            else:
                emission, self._priors[n] = face._emission_with_prior(part, method, proper)
            emissions.append(emission)
        return self._product(emissions, data), {}

    def _covariance_with_gaps(self, n: int, data: ArrayData) -> Array:
        """Covariance of all rows that part n sees, where values are missing: the likeliest."""
        face, d = self.faces[n], data.values.shape[1]
        own = replace(self._gaussian(n, data), reg_covar=max(face.reg_covar, LEAST_PART))
        model = Model(Mixture(1), Product([own], [range(d)]))
        theta = model.about(np.zeros((1, d)))
        scatter = np.zeros((1, d, d))
        for _ in range(SWEEPS_OF_COVARIANCE):
            before = scatter
            stats = data.sum(model.visit, theta, Assignment("hard"))
            scatter = stats["0.scatter"]
            if np.abs(scatter - before).max() <= 1e-6 * data.total_weight:
                break
            theta = model.mode(model.prior + stats)
        return np.asarray(
            face._empirical_covariance(
                scatter[0],
                np.asarray(data.total_weight),
                data.frame.scale,
                data.frame.variance,
            )
        )

    def _given_for(self, data: ArrayData) -> dict[str, Array | None]:
        return {}

    def _start_with(
        self,
        model: Model,
        given: dict[str, Array | None],
        counts: Array,
        read: str,
        located: Callable[[], Stats],
    ) -> Stats:
        return located()

    def _told_of(
        self, emission: Product, parameters: Any, distribution: Any = None
    ) -> dict[str, Any]:
        """What is told of parameters, and of their posterior, kept for `parts` as well."""
        self.emission, self.parameters = emission.plain, parameters
        told = []
        for n, (face, part, own) in enumerate(
            zip(self.faces, emission.parts, parameters.parts, strict=True)
        ):
            attributes = face._told_of(part, own)
            if distribution is not None:
                attributes |= face._posterior_attributes(distribution.parts[n])
            vars(face).update(attributes)
            told.append(
                EmissionPart(
                    {"emission": self.names[n], "columns": self.shown[n]}
                    | attributes
                    | self._priors[n]
                    | self._codes_told[n]
                )
            )
        self.parts = tuple(told)
        return {}

    def _told_of_draws(self, emission: Product, arrays: dict[str, Array]) -> dict[str, Array]:
        out = {}
        for n, (face, part) in enumerate(zip(self.faces, emission.parts, strict=True)):
            own = {name: arrays[f"{n}.{name}"] for name in part.arrays(1)}
            for name, value in face._told_of_draws(part, own).items():
                out[f"{n}.{name}"] = value
        return out

    #: Attributes that say all of the parameters: none that may be set.
    _told_names: tuple[str, ...] = ()

    def imputed(
        self,
        answers: Any,
        rows: tuple[NDArray[Any], int, Any],
        X: ArrayLike,
        n_draws: int | None,
        rng: np.random.Generator,
    ) -> NDArray[Any]:
        """X with what is missing filled in, (N, D), or drawn n times, (n, N, D).

        `answers` tell of T, `rows` are X as the model has it, threads and sequences.
        """
        read = self._read_rows(X)
        if n_draws is None:
            q = answers.responsibilities(*rows)
            return self._restored(read, expected(self.emission, self.parameters, rows[0], q))
        if isinstance(answers, Expected):
            point = answers.latent, self.emission, answers.mean_weights, self.parameters
            answers = Known(*point)
        out = []
        for known in answers.points(n_draws):
            states = known.draw_labels(*rows, rng)
            filled = drawn(known.emission, known.parameters, rows[0], states, rng)
            out.append(self._restored(read, filled))
        return np.array(out)

    def _restored(self, read: NDArray[Any], filled: Array) -> NDArray[Any]:
        """Rows as they were read, with what is missing of them from rows as the model has them."""
        decoded = self._decoded(filled)
        out = read.astype(object) if decoded.dtype.kind == "O" else read.copy()
        for name, own in zip(self.names, self.columns, strict=True):
            for column in own:
                absent = _absent(read[:, column])
                if name == "categorical":
                    absent |= read[:, column] == -1
                out[absent, column] = decoded[absent, column]
        return out

    def _n_emission_parameters(self, emission: Product, k: int) -> int:
        return sum(
            face._n_emission_parameters(part, k)
            for face, part in zip(self.faces, emission.parts, strict=True)
        )

    def _as_they_are(self, k: int) -> tuple[Product, Any]:
        """The emission and the parameters that were fitted."""
        found = len(next(iter(self.parameters.parts[0].arrays.values())))
        if found != k:
            raise ValueError(f"the fit was of {found} components, not {k}")
        return self.emission, self.parameters
