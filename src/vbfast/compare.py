"""One model, fitted by every method: what each gives, and what it costs."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimators import BayesianGaussianMixture
from .exceptions import ConvergenceWarning
from .methods import EM, CrispEM, FullInference, MeanField, Method, VariationalEM

__all__ = ["LADDER", "Comparison", "ComparisonRow", "compare"]


@dataclass(frozen=True)
class Description:
    """A method in words and in symbols, and what its figure for log p(X) is."""

    label: str
    q: str
    theta: str
    kind: str


DESCRIPTIONS = {
    "full": Description("full inference", "p(T,θ|X)", "θ ~ p(θ|X)", "estimate"),
    "mean_field": Description("mean field", "q(T)", "θ ~ q(θ)", "lower bound"),
    "em": Description("EM", "p(T|X,θ)", "θ = θ_MP", "BIC approximation"),
    "variational_em": Description(
        "variational EM", "q(T), {truncation} best", "θ = θ_MP", "BIC approximation"
    ),
    "crisp_em": Description("crisp EM", "T = T_MP", "θ = θ_MP", "ICL approximation"),
}

#: Names of the methods, from accurate and slow to rough and fast.
LADDER = tuple(DESCRIPTIONS)

_ASCII = str.maketrans({"θ": "theta", "±": "+/-"})


@dataclass(frozen=True)
class ComparisonRow:
    """What one method gave.

    Attributes
    ----------
    method : str
        The method's name as the estimators take it.
    label : str
        Its name in words.
    q, theta : str
        The distribution over the latent variables T, and what the parameters θ are, in symbols.
    log_marginal : float
        The method's figure for log p(X), the parameters integrated out.
    log_marginal_error : float or None
        Its standard error; None where no error is known.
    kind : str
        What the figure is: "estimate", "lower bound", "BIC approximation" or "ICL approximation".
    log_marginal_all_labellings : float or None
        Mean field only: its bound + log K!. The bound covers one of the K! ways to number the
        components.
    held_out : float or None
        Mean log density of a row that the fit has not seen, by cross-validation.
    held_out_error : float or None
        Its standard error over the rows.
    held_out_converged : bool or None
        Whether the fits to all training folds converged.
    objective : float
        What the method made large.
    objective_kind : str
        What that is.
    sweeps : int
        Passes over the data; of the best start, where there are several.
    seconds : float
        Time of the fit to all rows, every start included.
    converged : bool
    estimator : BayesianGaussianMixture
        The estimator, fitted to all rows.
    """

    method: str
    label: str
    q: str
    theta: str
    log_marginal: float
    log_marginal_error: float | None
    kind: str
    log_marginal_all_labellings: float | None
    held_out: float | None
    held_out_error: float | None
    held_out_converged: bool | None
    objective: float
    objective_kind: str
    sweeps: int
    seconds: float
    converged: bool
    estimator: BayesianGaussianMixture = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON can hold it: no estimator, and None for infinities and NaN."""
        return {
            name: json_number(value) for name, value in vars(self).items() if name != "estimator"
        }


@dataclass(frozen=True)
class Comparison:
    """The ladder: one row for each method. ``print`` shows it as a table."""

    n_rows: int
    n_features: int
    n_components: int
    covariance_type: str
    folds: int
    n_init: int
    random_state: int
    rows: tuple[ComparisonRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the estimators, as JSON can hold it."""
        return vars(self) | {"rows": [row.to_dict() for row in self.rows]}

    def table(self, *, ascii: bool = False) -> str:
        """Return the ladder as a table with aligned columns.

        Parameters
        ----------
        ascii : bool
            Write "theta" for θ and "+/-" for ±.
        """
        parts = "component" if self.n_components == 1 else "components"
        title = (
            f"{self.n_rows} rows x {self.n_features} features; "
            f"Gaussian mixture of {self.n_components} {parts}, "
            f"{self.covariance_type} covariances; seed {self.random_state}"
        )
        head = ["method", "q(T)", "θ", "log p(X)", "±", "kind", "held-out", "sweeps", "seconds"]
        body = [
            [
                row.label,
                row.q,
                row.theta,
                f"{row.log_marginal:.2f}",
                "-" if row.log_marginal_error is None else _error(row.log_marginal_error),
                row.kind,
                "-"
                if row.held_out is None
                else _star(row.held_out_converged) + f"{row.held_out:.4f}",
                _star(row.converged) + f"{row.sweeps}",
                f"{row.seconds:.3f}" if row.seconds < 10 else f"{row.seconds:.1f}",
            ]
            for row in self.rows
        ]
        right = {"log p(X)", "±", "held-out", "sweeps", "seconds"}
        return as_table(title, head, body, right, self._notes(), ascii=ascii)

    def _notes(self) -> list[str]:
        notes = [
            "log p(X): parameters integrated out; ± its standard error, - where none is known."
        ]
        for row in self.rows:
            if row.log_marginal_all_labellings is not None and self.n_components > 1:
                notes.append(
                    f"{row.label}: the bound covers one of the {self.n_components}! numberings of "
                    f"the components; bound + log {self.n_components}! = "
                    f"{row.log_marginal_all_labellings:.2f}."
                )
        if self.folds:
            notes.append(
                f"held-out: log density of an unseen row, mean over {self.folds}-fold "
                "cross-validation."
            )
        else:
            notes.append("held-out: -, there was no cross-validation.")
        if self.n_init > 1 and any(row.method != "full" for row in self.rows):
            notes.append(
                f"best of {self.n_init} starts (full inference: its chains): "
                "sweeps of the best start, seconds of all."
            )
        if any(not row.converged or row.held_out_converged is False for row in self.rows):
            notes.append("*: not converged (held-out: in a fold at least).")
        return notes

    def __str__(self) -> str:
        return self.table(ascii=not can_print_symbols())


def compare(
    X: ArrayLike,
    n_components: int,
    *,
    covariance_type: str = "full",
    methods: Sequence[str | Method] = LADDER,
    folds: int = 5,
    random_state: int = 0,
    n_init: int = 5,
    tol: float = 1e-6,
    max_iter: int = 1000,
    mean_precision_prior: float | None = None,
    mean_prior: ArrayLike | None = None,
    degrees_of_freedom_prior: float | None = None,
    covariance_prior: ArrayLike | float | None = None,
    n_threads: int | None = None,
) -> Comparison:
    """Fit one Gaussian mixture by every method and lay the results side by side.

    The model is the same for every method: :class:`vbfast.BayesianGaussianMixture` with a uniform
    prior on the weights and the same priors on means and covariances, so that methods are compared
    and not models.

    Parameters
    ----------
    X : array-like of shape (n_rows, n_features)
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    methods : sequence of str or method objects
        Methods to run, in the order of the table. By name, variational EM keeps half of the
        components for each row; an object has its own ``tol`` and ``max_iter``.
    folds : int
        Folds of the cross-validation; 0 leaves it out. Fewer rows than that make as many folds, or
        none where these leave too few rows to train on: ``folds`` of the result says how many.
        Priors that depend on the data are set anew from each training fold.
    random_state : int
        Seed of the fits and of the shuffling.
    n_init : int
        Starts of each fit, of which the best is kept; full inference takes its chains instead.
    tol, max_iter
        When to stop: tighter than the estimators' defaults, so that the methods differ and not
        their stopping.
    mean_precision_prior, mean_prior, degrees_of_freedom_prior, covariance_prior
        The priors, as BayesianGaussianMixture takes them, but for the degrees of freedom, which by
        default are n_features + 2: an empty component's covariance then has a mean and a mode.
    n_threads : int or None

    Returns
    -------
    Comparison
        ``print`` it, or take ``rows`` or ``to_dict()``.

    Notes
    -----
    log p(X) is what each method has to say of it: full inference an estimate with its standard
    error; mean field its lower bound; EM and variational EM -BIC/2, crisp EM -ICL/2, approximations
    whose error is not known. log p(X|θ) at one θ bounds nothing and stands for nothing here.

    Held-out densities are those of ``score_samples``: the posterior predictive density for full
    inference and mean field, the density at θ_MP for the others.

    Examples
    --------
    >>> import vbfast
    >>> from vbfast.datasets import load_faithful
    >>> print(vbfast.compare(load_faithful(), n_components=2))  # doctest: +SKIP
    """
    X = np.asarray(X)
    if X.ndim != 2:
        raise ValueError(f"X must have two dimensions, rows and features, but has {X.ndim}")
    n_components = whole_number("n_components", n_components, 1)
    random_state = whole_number("random_state", random_state, 0)
    n_init = whole_number("n_init", n_init, 1)
    folds = whole_number("folds", folds, 0)
    folds = _possible_folds(folds, len(X), n_components)
    chosen = [
        make_method(method, n_components, tol=tol, max_iter=max_iter)
        if isinstance(method, str)
        else method
        for method in methods
    ]
    for method in chosen:
        if not isinstance(method, Method):
            raise ValueError(
                f"methods must be names ({', '.join(LADDER)}) or method objects, not {method!r}"
            )
    options = {
        "n_components": n_components,
        "covariance_type": covariance_type,
        "random_state": random_state,
        "mean_precision_prior": mean_precision_prior,
        "mean_prior": mean_prior,
        "covariance_prior": covariance_prior,
        "n_threads": n_threads,
        **default_priors(X.shape[1]),
    }
    if degrees_of_freedom_prior is not None:
        options["degrees_of_freedom_prior"] = degrees_of_freedom_prior
    rows = [
        _run(X, method, folds, options | {"n_init": starts(method, n_init)}) for method in chosen
    ]
    return Comparison(
        n_rows=len(X),
        n_features=X.shape[1],
        n_components=n_components,
        covariance_type=covariance_type,
        folds=folds,
        n_init=n_init,
        random_state=random_state,
        rows=tuple(rows),
    )


def default_priors(n_features: int) -> dict[str, Any]:
    """Return the priors under which every method has an answer; the others are set from the data.

    Finitely many components with uniformly distributed weights: the weights then have a mode, which
    point methods need, and components are exchangeable, which log K! relies on. Two degrees of
    freedom more than features: a covariance then has a mode and a mean a priori, the mean being the
    data's, so that they exist a posteriori for an empty component too.
    """
    return {
        "weight_concentration_prior_type": "dirichlet_distribution",
        "weight_concentration_prior": 1.0,
        "degrees_of_freedom_prior": n_features + 2.0,
    }


def make_method(name: str, n_components: int, *, tol: float, max_iter: int) -> Method:
    """Return a method by its name."""
    match name:
        case "full":
            return FullInference()
        case "mean_field":
            return MeanField(max_iter, tol)
        case "em":
            return EM(max_iter, tol)
        case "variational_em":
            # Half of the components, rounded up: all of them would be EM.
            return VariationalEM(max_iter, tol, truncation=(n_components + 1) // 2)
        case "crisp_em":
            return CrispEM(max_iter, tol)
    raise ValueError(f"methods must be among {', '.join(LADDER)}, not {name!r}")


def figures(method: Method, estimator: BayesianGaussianMixture, X: NDArray[Any]) -> dict[str, Any]:
    """Return what a fit says of log p(X), its objective, and the sweeps it took."""
    error = all_labellings = None
    sweeps = int(estimator.n_iter_)
    objective_kind = method.objective
    if isinstance(method, FullInference):
        value = float(estimator.log_evidence_)
        error = float(estimator.log_evidence_se_)
        sweeps = method.n_sweeps
        objective_kind = f"largest {objective_kind} drawn"
    elif isinstance(method, MeanField):
        value = float(estimator.objective_)
        all_labellings = value + math.lgamma(estimator.n_components + 1)
    elif isinstance(method, CrispEM):
        value = -float(estimator.icl(X)) / 2
    else:
        value = -float(estimator.bic(X)) / 2
    return {
        "log_marginal": value,
        "log_marginal_error": error,
        "kind": DESCRIPTIONS[method.name].kind,
        "log_marginal_all_labellings": all_labellings,
        "objective": float(estimator.objective_),
        "objective_kind": objective_kind,
        "sweeps": sweeps,
        "converged": bool(estimator.converged_),
    }


def starts(method: Method, n_init: int) -> int:
    """Return how many starts a method has a use for: full inference has its chains."""
    return 1 if isinstance(method, FullInference) else n_init


def _run(X: NDArray[Any], method: Method, folds: int, options: dict[str, Any]) -> ComparisonRow:
    def fitted(rows: NDArray[Any]) -> BayesianGaussianMixture:
        return BayesianGaussianMixture(method=method, **options).fit(rows)

    start = time.perf_counter()
    estimator = fitted(X)
    seconds = time.perf_counter() - start

    held_out = held_out_error = held_out_converged = None
    if folds:
        # The same split for every method.
        shuffled = np.random.default_rng(options["random_state"]).permutation(len(X))
        scores = []
        held_out_converged = True
        for test in np.array_split(shuffled, folds):
            with warnings.catch_warnings():  # told once, by held_out_converged
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = fitted(X[np.setdiff1d(shuffled, test)])
            scores.append(model.score_samples(X[test]))
            held_out_converged &= bool(model.converged_)
        density = np.concatenate(scores)
        held_out = float(density.mean())
        with np.errstate(invalid="ignore"):  # a density of 0 is -inf
            held_out_error = float(density.std(ddof=1) / math.sqrt(len(density)))

    description = DESCRIPTIONS[method.name]
    return ComparisonRow(
        method=method.name,
        label=description.label,
        q=description.q.format(truncation=getattr(method, "truncation", None) or "all"),
        theta=description.theta,
        **figures(method, estimator, X),
        held_out=held_out,
        held_out_error=held_out_error,
        held_out_converged=held_out_converged,
        seconds=seconds,
        estimator=estimator,
    )


def whole_number(name: str, value: Any, least: int) -> int:
    """Return an argument that is a whole number, not below `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def _possible_folds(folds: int, n_rows: int, n_components: int) -> int:
    """Return how many folds the rows make: those asked for, or where rows are fewer, all or none.

    What would leave a training fold with too few rows is refused before any time is spent.
    """
    if n_rows < n_components:
        raise ValueError(f"{n_rows} rows are too few for {n_components} components")
    if folds == 0:
        return 0
    if folds == 1:
        raise ValueError("folds must be 0 (no cross-validation) or at least 2, not 1")
    if folds >= n_rows:
        # Folds of one row each, if the other rows are enough to train on.
        return n_rows if n_rows - 1 >= n_components else 0
    training = n_rows - math.ceil(n_rows / folds)
    if training < n_components:
        raise ValueError(
            f"{n_rows} rows in {folds} folds leave {training} to train on, "
            f"too few for {n_components} components"
        )
    return folds


def as_table(
    title: str,
    head: list[str],
    body: list[list[str]],
    right: set[str],
    notes: list[str],
    *,
    ascii: bool,
) -> str:
    """Return a table with aligned columns, those in `right` to the right, and notes under it."""
    lines = [head, *body]
    if ascii:
        lines = [[cell.translate(_ASCII) for cell in line] for line in lines]
    widths = [max(len(line[j]) for line in lines) for j in range(len(head))]
    aligned = [
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, head, strict=True)
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, aligned))
    text = "\n".join([title, "", aligned[0], rule, *aligned[1:], "", *notes])
    return text.translate(_ASCII) if ascii else text


def can_print_symbols() -> bool:
    """Whether standard output takes θ and ±."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "θ±".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _star(converged: bool | None) -> str:
    return "" if converged else "*"


def _error(error: float) -> str:
    """Write a standard error: two decimals, more where these would read 0."""
    return f"{error:.2f}" if error >= 0.01 else f"{error:.1g}"


def json_number(value: Any) -> Any:
    """Return a value as JSON can hold it: None for infinities and NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
