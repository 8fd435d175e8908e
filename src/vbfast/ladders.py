"""One model of sequences, fitted by every method: what each says of the same data."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .compare import (
    DESCRIPTIONS,
    LADDER,
    Description,
    as_table,
    can_print_symbols,
    json_number,
    starts,
    whole_number,
)
from .data import as_rows, as_sequences, check_finite
from .emissions.additive import AdditiveCovariance
from .estimators import FactorialHMM, HiddenMarkovModel
from .estimators.categories import as_symbols
from .exceptions import ConvergenceWarning
from .latents.coupled import MOST_STATES
from .methods import EM, CrispEM, FullInference, MeanField, Method, VariationalEM

__all__ = [
    "FACTORIAL",
    "Ladder",
    "LadderRow",
    "compare_factorial_hmm",
    "compare_hmm",
    "make_chain_method",
]


@dataclass(frozen=True)
class LadderRow:
    """What one method gave.

    Attributes
    ----------
    method : str
        The method's name as the estimators take it.
    label : str
        Its name in words.
    q, theta : str
        The distribution over the latent variables T, and what the parameters are, in symbols.
    objective : float
        What the method made large.
    objective_kind : str
        What that is.
    log_likelihood : float
        log p(X | theta), T summed over exactly, where the method ended; for full inference and mean
        field as the estimator's ``score`` has it.
    held_out : float or None
        The same of a row of other data, on average; None where there are none.
    sweeps : int
        Passes over the data, of the best start.
    seconds : float
        Time of the fit, every start included.
    converged : bool
    estimator
        Fitted.
    """

    method: str
    label: str
    q: str
    theta: str
    objective: float
    objective_kind: str
    log_likelihood: float
    held_out: float | None
    sweeps: int
    seconds: float
    converged: bool
    estimator: Any = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON can hold it: no estimator, and None for infinities and NaN."""
        return {
            name: json_number(value) for name, value in vars(self).items() if name != "estimator"
        }


@dataclass(frozen=True)
class Ladder:
    """One row for each method. ``print`` shows it as a table."""

    title: str
    n_init: int
    random_state: int
    rows: tuple[LadderRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the estimators, as JSON can hold it."""
        return vars(self) | {"rows": [row.to_dict() for row in self.rows]}

    def table(self, *, ascii: bool = False) -> str:
        """Return the ladder as a table with aligned columns.

        Parameters
        ----------
        ascii : bool
            Write "theta" for θ.
        """
        head = ["method", "q(T)", "θ", "objective", "log p(X|θ)", "held-out", "sweeps", "seconds"]
        body = [
            [
                row.label,
                row.q,
                row.theta,
                f"{row.objective:.4f}",
                f"{row.log_likelihood:.4f}",
                "-" if row.held_out is None else f"{row.held_out:.4f}",
                ("" if row.converged else "*") + f"{row.sweeps}",
                f"{row.seconds:.3f}" if row.seconds < 10 else f"{row.seconds:.1f}",
            ]
            for row in self.rows
        ]
        notes = [f"{row.label}: {row.objective_kind}." for row in self.rows]
        notes.append(
            "log p(X|θ): T summed over exactly, at the θ a method ends in (mean field: at E[θ]; "
            "full inference: averaged over draws)."
        )
        if any(row.held_out is not None for row in self.rows):
            notes.append("held-out: the same of a row of other data, on average.")
        if self.n_init > 1:
            notes.append(f"best of {self.n_init} starts (full inference: its chains).")
        if not all(row.converged for row in self.rows):
            notes.append("*: not converged.")
        return as_table(self.title, head, body, set(head[3:]), notes, ascii=ascii)

    def __str__(self) -> str:
        return self.table(ascii=not can_print_symbols())


# Where a method on a chain is something else than on a mixture.
CHAIN = {
    "variational_em": Description("variational EM", "q(T_1) ... q(T_N)", "θ = θ_MP", "lower bound")
}
FACTORIAL = {
    "full": DESCRIPTIONS["full"],
    "mean_field": Description("mean field", "q(T) a chain each", "θ ~ q(θ)", "lower bound"),
    "em": DESCRIPTIONS["em"],
    "variational_em": Description("variational EM", "q(T) a chain each", "θ = θ_MP", "lower bound"),
    "variational_em_complete": Description(
        "variational EM, complete", "q(T) a state each", "θ = θ_MP", "lower bound"
    ),
    "crisp_em": DESCRIPTIONS["crisp_em"],
}


def make_chain_method(name: str, *, tol: float, max_iter: int) -> Method:
    """Return a method by its name; variational EM with q(T) factorised."""
    climbs: dict[str, Any] = {
        "mean_field": MeanField,
        "em": EM,
        "variational_em": VariationalEM,
        "crisp_em": CrispEM,
    }
    if name == "full":
        return FullInference()
    if name not in climbs:
        raise ValueError(f"methods must be among {', '.join(LADDER)}, not {name!r}")
    made: Method = climbs[name](max_iter, tol)
    return made


def _climbed(
    name: str,
    description: Description,
    estimator: Any,
    X: NDArray[Any],
    lengths: ArrayLike | None,
    held_out: NDArray[Any] | None = None,
    held_out_lengths: ArrayLike | None = None,
) -> LadderRow:
    """Fit an estimator, and say what it gave."""
    start = time.perf_counter()
    with warnings.catch_warnings():  # told by converged
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X, lengths=lengths)
    seconds = time.perf_counter() - start
    other = None
    if held_out is not None:
        other = estimator.score(held_out, lengths=held_out_lengths) / len(held_out)
    kind = estimator.method_.objective
    return LadderRow(
        method=name,
        label=description.label,
        q=description.q,
        theta=description.theta,
        objective=float(estimator.objective_),
        objective_kind=f"largest {kind} drawn" if name == "full" else kind,
        log_likelihood=estimator.score(X, lengths=lengths),
        held_out=other,
        sweeps=int(estimator.n_iter_),
        seconds=seconds,
        converged=bool(estimator.converged_),
        estimator=estimator,
    )


def _checked(
    held_out: ArrayLike | None, lengths: ArrayLike | None, n_features: int
) -> NDArray[Any] | None:
    """Rows to be scored by all methods, checked before any is fitted."""
    if held_out is None:
        if lengths is not None:
            raise ValueError("held_out_lengths goes with held_out, which is not given")
        return None
    rows = as_rows(held_out, "held_out")
    if rows.shape[1] != n_features:
        raise ValueError(f"held_out has {rows.shape[1]} features, X has {n_features}")
    check_finite(rows, 1, "held_out")
    as_sequences(lengths, len(rows))
    return rows


def _size(X: NDArray[Any], lengths: ArrayLike | None) -> str:
    n_rows, n_features = X.shape
    n_sequences = 1 if lengths is None else len(np.asarray(lengths))
    return (
        f"{n_rows} rows x {n_features} features in {n_sequences} sequence{'s' * (n_sequences > 1)}"
    )


def compare_hmm(
    X: ArrayLike,
    n_components: int,
    *,
    lengths: ArrayLike | None = None,
    emission: str = "gaussian",
    covariance_type: str = "diag",
    methods: Sequence[str | Method] = LADDER,
    random_state: int = 0,
    n_init: int = 5,
    tol: float = 1e-8,
    max_iter: int = 1000,
    n_threads: int | None = None,
) -> Ladder:
    """Fit one hidden Markov model by every method and lay the results side by side.

    Priors are flat for EM, variational EM and crisp EM, and the estimator's own for mean field and
    full inference, which need proper ones.

    Parameters
    ----------
    X : array-like of shape (n_rows, n_features)
    n_components : int
        States.
    lengths : array-like, optional
        Rows of each sequence; one sequence if not given.
    emission : {"gaussian", "poisson", "exponential", "categorical", "bernoulli"}
    covariance_type : {"full", "tied", "diag", "spherical"}
        For "gaussian".
    methods : sequence of str or method objects
        In the order of the table. By name, variational EM has q(T) factorised over rows.
    random_state : int
    n_init : int
        Starts of each fit, of which the best is kept; full inference takes its chains instead.
    tol, max_iter
        When to stop: tighter than the estimator's defaults, so that the methods differ and not
        their stopping.
    n_threads : int or None

    Returns
    -------
    Ladder
        ``print`` it, or take ``rows`` or ``to_dict()``.

    Examples
    --------
    >>> import vbfast
    >>> from vbfast.datasets import load_earthquakes
    >>> print(vbfast.compare_hmm(load_earthquakes(), 3, emission="poisson"))  # doctest: +SKIP
    """
    chosen = [
        make_chain_method(method, tol=tol, max_iter=max_iter) if isinstance(method, str) else method
        for method in methods
    ]

    n_components = whole_number("n_components", n_components, 1)
    n_init = whole_number("n_init", n_init, 1)
    random_state = whole_number("random_state", random_state, 0)
    rows = as_symbols(X) if emission == "categorical" else as_rows(X)
    found = []
    for method in chosen:
        estimator = HiddenMarkovModel(
            n_components,
            emission=emission,  # type: ignore[arg-type]
            covariance_type=covariance_type,  # type: ignore[arg-type]
            method=method,
            n_init=starts(method, n_init),
            random_state=random_state,
            n_threads=n_threads,
        )
        description = CHAIN.get(method.name, DESCRIPTIONS[method.name])
        found.append(_climbed(method.name, description, estimator, rows, lengths))
    kind = f"{covariance_type} covariances" if emission == "gaussian" else f"{emission} rows"
    title = (
        f"{_size(rows, lengths)}; hidden Markov model of {n_components} "
        f"state{'s' * (n_components > 1)}, {kind}; seed {random_state}"
    )
    return Ladder(title, n_init, random_state, tuple(found))


def compare_factorial_hmm(
    X: ArrayLike,
    n_chains: int,
    n_components: int,
    *,
    lengths: ArrayLike | None = None,
    held_out: ArrayLike | None = None,
    held_out_lengths: ArrayLike | None = None,
    covariance_type: AdditiveCovariance = "full",
    methods: Sequence[str] = tuple(FACTORIAL),
    random_state: int = 0,
    n_init: int = 5,
    tol: float = 1e-6,
    max_iter: int = 1000,
    n_draws: int = 500,
    n_threads: int | None = None,
) -> Ladder:
    """Fit one factorial hidden Markov model by every method and lay the results side by side.

    All methods begin at the same places. Priors are flat for methods that find a point, those of
    :class:`vbfast.FactorialHMM` for mean field and full inference.

    Parameters
    ----------
    X : array-like of shape (n_rows, n_features)
    n_chains, n_components : int
        With 4,096 joint states, n_components ** n_chains, at most.
    lengths : array-like, optional
        Rows of each sequence.
    held_out, held_out_lengths : array-like, optional
        Other data, to tell how likely they are.
    covariance_type : {"full", "diag"}
    methods : sequence of str
        Among "full", "mean_field", "em", "variational_em" (a chain each), "variational_em_complete"
        (a state of a chain each) and "crisp_em".
    random_state : int
    n_init : int
        Starts of each fit, of which the best is kept; full inference takes its chains instead.
    tol, max_iter
        When to stop.
    n_draws : int
        Of full inference, for each of its chains, after as many that are not kept.
    n_threads : int or None

    Returns
    -------
    Ladder
        ``print`` it, or take ``rows`` or ``to_dict()``.
    """
    rows = as_rows(X)
    for name in methods:
        if name not in FACTORIAL:
            raise ValueError(f"methods must be among {', '.join(FACTORIAL)}, not {name!r}")
    n_chains = whole_number("n_chains", n_chains, 1)
    n_init = whole_number("n_init", n_init, 1)
    random_state = whole_number("random_state", random_state, 0)
    n_components = whole_number("n_components", n_components, 1)
    if n_components**n_chains > MOST_STATES:
        raise ValueError(
            f"n_components ** n_chains is {n_components**n_chains}; log p(X|θ) is computed for "
            f"{MOST_STATES} joint states at most"
        )
    held_out = _checked(held_out, held_out_lengths, rows.shape[1])
    found = []
    for name in methods:
        method: Any = name.removesuffix("_complete")
        estimator = FactorialHMM(
            n_chains,
            n_components,
            method=FullInference(n_draws, n_draws) if name == "full" else method,
            factorisation="complete" if name != method else "structured",
            covariance_type=covariance_type,
            tol=tol,
            max_iter=max_iter,
            n_init=n_init,
            random_state=random_state,
            n_threads=n_threads,
        )
        found.append(
            _climbed(name, FACTORIAL[name], estimator, rows, lengths, held_out, held_out_lengths)
        )
    title = (
        f"{_size(rows, lengths)}; factorial hidden Markov model of {n_chains} "
        f"chain{'s' * (n_chains > 1)} x {n_components} states, {covariance_type} covariance; "
        f"seed {random_state}"
    )
    return Ladder(title, n_init, random_state, tuple(found))
