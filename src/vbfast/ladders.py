"""One model of sequences, fitted by every method: what each says of the same data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .compare import DESCRIPTIONS, LADDER, as_table, can_print_symbols, json_number, starts
from .estimators import HiddenMarkovModel
from .methods import EM, CrispEM, FullInference, MeanField, Method, VariationalEM

__all__ = ["Ladder", "LadderRow", "climb_ladder", "compare_hmm", "make_chain_method"]


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
        head = ["method", "q(T)", "θ", "objective", "log p(X|θ)", "sweeps", "seconds"]
        body = [
            [
                row.label,
                row.q,
                row.theta,
                f"{row.objective:.4f}",
                f"{row.log_likelihood:.4f}",
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
        if self.n_init > 1:
            notes.append(f"best of {self.n_init} starts (full inference: its chains).")
        if not all(row.converged for row in self.rows):
            notes.append("*: not converged.")
        return as_table(self.title, head, body, set(head[3:]), notes, ascii=ascii)

    def __str__(self) -> str:
        return self.table(ascii=not can_print_symbols())


# What q(T) is over a chain, where that differs from a mixture.
Q = {"variational_em": "q(T_1) ... q(T_N)"}


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


def climb_ladder(
    title: str,
    methods: Iterable[Method],
    fit: Callable[[Method], Any],
    log_likelihood: Callable[[Any], float],
    *,
    q: dict[str, str],
    n_init: int,
    random_state: int,
) -> Ladder:
    """Fit by each method in turn.

    Parameters
    ----------
    title : str
    methods : iterable of method objects
    fit : callable
        ``fit(method)`` gives a fitted estimator.
    log_likelihood : callable
        ``log_likelihood(estimator)``.
    q : dict of str
        What q(T) is in symbols, for methods by name of which `compare` says something else.
    n_init, random_state : int
        To be told of.
    """
    rows = []
    for method in methods:
        start = time.perf_counter()
        estimator = fit(method)
        seconds = time.perf_counter() - start
        description = DESCRIPTIONS[method.name]
        full = isinstance(method, FullInference)
        rows.append(
            LadderRow(
                method=method.name,
                label=description.label,
                q=q.get(method.name, description.q),
                theta=description.theta,
                objective=float(estimator.objective_),
                objective_kind=f"largest {method.objective} drawn" if full else method.objective,
                log_likelihood=log_likelihood(estimator),
                sweeps=int(estimator.n_iter_),
                seconds=seconds,
                converged=bool(estimator.converged_),
                estimator=estimator,
            )
        )
    return Ladder(title, n_init, random_state, tuple(rows))


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
    emission : {"gaussian", "poisson", "categorical", "bernoulli"}
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

    def fit(method: Method) -> HiddenMarkovModel:
        return HiddenMarkovModel(
            n_components,
            emission=emission,
            covariance_type=covariance_type,  # type: ignore[arg-type]
            method=method,
            n_init=starts(method, n_init),
            random_state=random_state,
            n_threads=n_threads,
        ).fit(X, lengths=lengths)

    n_rows, n_features = np.shape(X)
    n_sequences = 1 if lengths is None else len(np.asarray(lengths))
    kind = f"{covariance_type} covariances" if emission == "gaussian" else f"{emission} rows"
    return climb_ladder(
        f"{n_rows} rows x {n_features} features in {n_sequences} "
        f"sequence{'s' * (n_sequences > 1)}; hidden Markov model of {n_components} "
        f"state{'s' * (n_components > 1)}, {kind}; seed {random_state}",
        chosen,
        fit,
        lambda estimator: estimator.score(X, lengths=lengths),
        q=Q,
        n_init=n_init,
        random_state=random_state,
    )
