"""The one loop, and the methods on it.

A method is two words: how it reads theta off a posterior, and how it assigns T given theta.

=================  =========  ==========================  =====================================
method             theta      T                           objective
=================  =========  ==========================  =====================================
`FullInference`    sample     draw                        log p(X, T, theta) of each draw
`MeanField`        mean       exact                       evidence lower bound
`EM`               mode       exact                       log p(X | theta) + log p(theta)
`VariationalEM`    mode       factorised, or truncated    free energy + log p(theta)
`CrispEM`          mode       hard                        log p(X, T | theta) + log p(theta)
=================  =========  ==========================  =====================================

Neal & Hinton (1998): EM and its variational forms climb one free energy, by turns in q(T) and in
theta.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    runtime_checkable,
)

import numpy as np
from numpy.typing import NDArray

from . import _kernels
from ._kernels.inputs import Assignment, Block
from .acceleration import Extrapolation, HasCoordinates
from .draws import At, Draws, chosen, places
from .exceptions import NO_NUMBER, DegenerateError, ImpossibleRowError, ObjectiveFellWarning
from .stats import Stats

__all__ = [
    "EM",
    "METHODS",
    "Acceleration",
    "CrispEM",
    "Draws",
    "Fit",
    "FullInference",
    "MeanField",
    "Method",
    "Sweep",
    "VariationalEM",
    "lockstep",
    "sweeps",
]

# Made once: making it takes as long as visiting some rows.
EXACT, FACTORISED = Assignment("exact"), Assignment("factorised")
# Gains of a smaller share are left to plain steps.
LEAST_SHARE = 1e-12

Acceleration = Literal["anderson"]


class ThetaLike(Protocol):
    """What a method sees of theta: what it adds to the objective."""

    @property
    def log_prior(self) -> float:
        """log p(theta) of a point, or -KL(q || p) of a mean."""

    @property
    def rounding(self) -> float:
        """Nats a row that rounding may take from an objective here, beside a share of itself."""


T = TypeVar("T", bound=ThetaLike)


class ModelLike(Protocol[T]):
    """What a method asks of a model."""

    @property
    def prior(self) -> Stats:
        """Hyperparameters."""

    def mode(self, posterior: Stats, /) -> T:
        """theta_MP."""

    def mean(self, posterior: Stats, /) -> T:
        """Expected natural parameters."""

    def sample(self, posterior: Stats, rng: np.random.Generator, /) -> T:
        """Draw theta."""

    def visit(self, block: Block, theta: T, assignment: Assignment, /) -> Stats:
        """Statistics of a block of rows."""


class DrawnThetaLike(ThetaLike, Protocol):
    """What full inference sees of theta besides: what it keeps of a draw."""

    @property
    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Parts of theta by name."""


S = TypeVar("S", bound=DrawnThetaLike)


class DrawnModelLike(ModelLike[S], Protocol[S]):
    """What full inference asks of a model besides."""

    def log_density_terms(self, posterior: Stats, theta: S, /) -> tuple[float, NDArray[np.float64]]:
        """Density of theta under a posterior: see `Model.log_density_terms`."""


@runtime_checkable
class HasChains(Protocol):
    """What full inference asks of a model. One that lacks it is swept chain by chain."""

    def chains(
        self,
        block: Block,
        posteriors: list[Stats],
        rngs: list[np.random.Generator],
        n_tune: int,
        n_draws: int,
        thin: int,
        /,
    ) -> tuple[Draws[Any], NDArray[np.float64]] | None:
        """Whole chains at once, where a block is small: see `Model.chains`."""


@runtime_checkable
class HasCentre(Protocol):
    """What full inference asks of a model. Of one that lacks it a draw is taken in its place."""

    def centre(self, posterior: Stats, /) -> Any:
        """Theta at the posterior's means."""


class DataLike(Protocol):
    """What a method asks of data."""

    @property
    def n_rows(self) -> int:
        """Rows, whatever their weight."""

    @property
    def total_weight(self) -> float:
        """Rows that the data stand for."""

    @property
    def resolution(self) -> float:
        """Changes of an objective, nats a row, that float32 arithmetic can't tell from 0; or 0."""

    def sum(
        self, visit: Callable[[Block, T, Assignment], Stats], theta: T, assignment: Assignment
    ) -> Stats:
        """Statistics of all rows."""


@runtime_checkable
class HasBlock(Protocol):
    """What full inference asks of data. Those that lack it are swept chain by chain."""

    @property
    def block(self) -> Block:
        """All rows."""


@dataclass(frozen=True)
class Sweep(Generic[T]):
    """One turn of the loop.

    Attributes
    ----------
    posterior : Stats
        What theta was read from.
    theta : Theta
    stats : Stats
        What the data say of T given theta.
    """

    posterior: Stats
    theta: T
    stats: Stats

    @cached_property
    def objective(self) -> float:
        """The method's objective at `posterior`, in nats, with all constants."""
        return float(self.stats["log_z"]) + self.theta.log_prior


def sweeps(
    model: ModelLike[T],
    data: DataLike,
    posterior: Stats,
    read: Callable[[Stats], T],
    assign: Callable[[int], Assignment],
) -> Iterator[Sweep[T]]:
    """Yield sweeps for ever: read theta, assign T, add up.

    Parameters
    ----------
    model, data
    posterior : Stats
        Where to start.
    read : callable
        ``read(posterior)`` gives theta: a method of the model.
    assign : callable
        ``assign(n)`` gives the assignment of sweep n = 0, 1, ...
    """
    n = 0
    while True:
        theta = read(posterior)
        stats = data.sum(model.visit, theta, assign(n))
        yield Sweep(posterior, theta, stats)
        posterior = model.prior + stats
        n += 1


@dataclass(frozen=True)
class Fit(Generic[T]):
    """Where a method ended.

    Attributes
    ----------
    posterior : Stats
    theta : Theta
        Read off that posterior.
    objective : float
        At that posterior, in nats.
    objectives : ndarray of shape (n_iter + 1,)
        Best after 0, 1, ... further sweeps.
    n_iter : int
        Sweeps over the data after the first: updates of the posterior, and the steps of an
        acceleration that were refused.
    converged : bool
    left : float
        What the last updates foretell of gains to come, in nats; inf where they foretell nothing.
    """

    posterior: Stats
    theta: T
    objective: float
    objectives: NDArray[np.float64]
    n_iter: int
    converged: bool
    left: float = np.inf


# A climb asks for the statistics of all rows given theta, and returns a fit in the end.
Climb = Generator[tuple[T, Assignment], Stats, Fit[T]]


def lockstep(
    climbs: Iterable[Climb[T]],
    sum_each: Callable[[Sequence[tuple[T, Assignment]]], list[Stats]],
    most: int,
) -> Iterator[tuple[int, Fit[T] | DegenerateError | ImpossibleRowError]]:
    """Advance climbs together, so that each pass over the data serves all that are under way.

    Every climb runs to its own end, with the same bits as alone.

    Parameters
    ----------
    climbs : iterable
        Of what `climb` of a method returns; taken from it as their turn comes.
    sum_each : callable
        ``sum_each(requests)`` gives the statistics of all rows for each (theta, assignment).
    most : int
        Climbs under way at a time.

    Yields
    ------
    number : int
        Of the climb that has ended, 0, 1, ...
    outcome : Fit, DegenerateError or ImpossibleRowError
    """
    coming = enumerate(climbs)
    running: dict[int, Climb[T]] = {}
    answers: dict[int, Stats] = {}
    while True:
        while len(running) < most and (new := next(coming, None)) is not None:
            running[new[0]] = new[1]
        if not running:
            return
        requests = {}
        for number, climb in list(running.items()):
            try:
                requests[number] = climb.send(answers[number]) if number in answers else next(climb)
            except StopIteration as end:
                del running[number]
                yield number, end.value
            except DegenerateError as error:
                del running[number]
                yield number, error
        try:
            answers = dict(zip(requests, sum_each(list(requests.values())), strict=True))
        except ImpossibleRowError:
            # Under one theta, or some: the others go on.
            answers = {}
            for number, request in requests.items():
                try:
                    (answers[number],) = sum_each([request])
                except ImpossibleRowError as error:
                    del running[number]
                    yield number, error


@dataclass(frozen=True)
class _Climb:
    """A method that climbs its objective until there is no more to gain.

    Parameters
    ----------
    max_iter : int
        Sweeps over the data at most, after the first.
    tol : float, optional
        Stop when an update changes the objective per row (unit of weight) by no more, in nats, and
        by less than the one before. Where not given: when no more than 0.001 nats in total are
        left to gain, as the last updates foretell it.
    """

    max_iter: int = 1000
    tol: float | None = None

    name: ClassVar[str]
    read: ClassVar[str]
    objective: ClassVar[str]

    def __post_init__(self) -> None:
        _check_integer("max_iter", self.max_iter, 0)
        if self.tol is None:
            return
        if isinstance(self.tol, bool) or not isinstance(self.tol, (int, float, np.number)):
            raise TypeError(f"tol must be None or a number >= 0, not {self.tol!r}")
        if not 0 <= self.tol < np.inf:
            raise ValueError(f"tol must be None or a finite number >= 0, not {self.tol!r}")

    def assign(self, n: int) -> Assignment:
        """How sweep n assigns T."""
        return EXACT

    def _coordinates(self, model: object) -> HasCoordinates | None:
        """In what to extrapolate updates; None: not at all."""
        return None

    def fit(
        self,
        model: ModelLike[T],
        data: DataLike,
        posterior: Stats,
        *,
        report: Callable[[int, float], None] | None = None,
    ) -> Fit[T]:
        """Climb from `posterior`.

        Parameters
        ----------
        model, data
        posterior : Stats
        report : callable, optional
            ``report(n, objective)`` after every sweep.

        Raises
        ------
        DegenerateError
            Where the likelihood has no bound, or the objective ends as no finite number.

        Warns
        -----
        ObjectiveFellWarning
            If the objective falls by more than rounding.
        """
        climb = self.climb(model, data, posterior, report=report)
        try:
            request = next(climb)
            while True:
                request = climb.send(data.sum(model.visit, *request))
        except StopIteration as end:
            fitted: Fit[T] = end.value
        return fitted

    def climb(
        self,
        model: ModelLike[T],
        data: DataLike,
        posterior: Stats,
        *,
        report: Callable[[int, float], None] | None = None,
    ) -> Climb[T]:
        """`fit` turned inside out: yields what to visit all rows with, is sent their statistics.

        So that whoever drives it may serve several climbs by one pass over the data (`lockstep`).
        """
        _check_parts(model, data)
        _check_posterior("posterior", model, posterior)
        read: Callable[[Stats], T] = getattr(model, self.read)
        prior = model.prior
        # A mode found by an ascent is looked for from the last theta; see `Model.ascends`.
        near: Any = model if self.read == "mode" and getattr(model, "ascends", False) else None
        total_weight = data.total_weight
        # Arithmetic in float32 tells no smaller changes.
        unseen = data.resolution * total_weight
        precise = unseen == 0 or (self.tol is not None and data.resolution > self.tol)
        objectives: list[float] = []

        def note(objective: float) -> None:
            objectives.append(objective)
            if report is not None:
                report(len(objectives) - 1, objective)

        def visit(posterior: Stats, theta: T) -> Generator[tuple[T, Assignment], Stats, Sweep[T]]:
            assignment = self.assign(len(objectives))
            if unseen and precise:
                assignment = replace(assignment, precise=True)
            stats = yield theta, assignment
            return Sweep(posterior, theta, stats)

        sweep = yield from visit(posterior, read(posterior))
        note(sweep.objective)
        least = LEAST_SHARE * max(abs(sweep.objective), total_weight)
        tol = np.nan if self.tol is None else self.tol
        stopping = _kernels.loop.Stopping(tol, total_weight, data.n_rows)
        # A step ahead that is refused would spoil the q(T) that data remember.
        remembers = getattr(data, "memory", None) is not None
        coordinates = None if remembers else self._coordinates(model)
        extrapolation = Extrapolation(coordinates, max(stopping.target, least), total_weight)
        converged, left = False, np.inf
        # Where the first step ahead was taken, and when: updates alone may avoid what steps ahead
        # lead into.
        before: Stats | None = None
        first_ahead = 0
        while not converged and len(objectives) <= self.max_iter:
            last, image = sweep.objective, model.prior + sweep.stats
            ahead = extrapolation.propose(sweep.posterior, image)
            if ahead is not None:
                try:
                    with np.errstate(all="ignore"):
                        theta = read(ahead)
                except np.linalg.LinAlgError:
                    extrapolation.refuse()  # no theta to be read there, and no sweep
                else:
                    further = yield from visit(ahead, theta)
                    change = further.objective - last
                    if 0 <= change < np.inf:
                        extrapolation.accept(change)
                        stopping.went_ahead(change)
                        if before is None:
                            before, first_ahead = sweep.posterior, len(objectives)
                        sweep = further
                        note(sweep.objective)
                        continue
                    extrapolation.refuse()
                    note(last)
                    if len(objectives) > self.max_iter:
                        break
            try:
                theta = near.mode_near(image, sweep.theta) if near else read(image)
            except DegenerateError:
                if precise:
                    if before is None:
                        raise
                    extrapolation = Extrapolation(None, stopping.target, total_weight)
                    stopping.went_ahead(0.0)
                    sweep = yield from visit(before, read(before))
                    before = None
                    # What was gained is given up.
                    given_up = len(objectives) - first_ahead
                    objectives[first_ahead:] = [sweep.objective] * given_up
                    note(sweep.objective)
                    continue
                precise = True
                sweep = yield from visit(sweep.posterior, sweep.theta)
                objectives[-1] = sweep.objective
                continue
            sweep = yield from visit(image, theta)
            note(sweep.objective)
            if not (isfinite(sweep.objective) or isfinite(last)):
                break  # no step from here on would have a gain to be judged by
            change = sweep.objective - last
            fell = change < 0 and -change > sweep.theta.rounding * total_weight + (
                _kernels.loop.rounding(
                    sweep.objective, total_weight, prior.buffer, prior.layout.n_normalisers
                )
            )
            seen = precise or abs(change) > unseen
            if not precise and (change < -unseen if self.tol is not None else not seen):
                precise = True
                # Again, so that the next change is one between objectives of equal precision.
                sweep = yield from visit(sweep.posterior, sweep.theta)
                objectives[-1] = sweep.objective
                continue
            if fell and precise:
                warnings.warn(
                    f"the {self.objective} fell by {-change:g} to {sweep.objective:.10g} in "
                    f"sweep {len(objectives) - 1} of {self.name}",
                    ObjectiveFellWarning,
                    stacklevel=2,
                )
            # Only plain steps tell how far the map still goes.
            converged = stopping.settled(change, least)
            left = stopping.left
            extrapolation.observe(change, left)
        if not np.isfinite(sweep.objective):
            raise DegenerateError(
                f"the {self.objective} is {sweep.objective:g} after {len(objectives) - 1} sweeps "
                f"of {self.name}: {NO_NUMBER}"
            )
        return Fit(
            sweep.posterior,
            sweep.theta,
            sweep.objective,
            np.array(objectives),
            len(objectives) - 1,
            converged,
            left,
        )


@dataclass(frozen=True)
class _Smooth(_Climb):
    """A method whose map is smooth, so that it can be accelerated."""

    acceleration: Acceleration | None = field(default="anderson", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.acceleration not in (None, *get_args(Acceleration)):
            raise ValueError(f"acceleration must be 'anderson' or None, not {self.acceleration!r}")

    def _coordinates(self, model: object) -> HasCoordinates | None:
        return model if self.acceleration and isinstance(model, HasCoordinates) else None


@dataclass(frozen=True)
class MeanField(_Smooth):
    """Mean field (variational Bayes): q(T) q(theta); the objective is the evidence lower bound.

    Parameters
    ----------
    max_iter, tol, acceleration
        As for `EM`.
    factorised : bool
        Restrict q(T) to q_1(T_1) ... q_d(T_d), as `VariationalEM` does; for a mixture that is no
        restriction.
    """

    factorised: bool = False

    name: ClassVar[str] = "mean_field"
    read: ClassVar[str] = "mean"
    objective: ClassVar[str] = "evidence lower bound"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.factorised, (bool, np.bool_)):
            raise TypeError(f"factorised must be True or False, not {self.factorised!r}")

    def assign(self, n: int) -> Assignment:
        """How sweep n assigns T."""
        return FACTORISED if self.factorised else EXACT


@dataclass(frozen=True)
class EM(_Smooth):
    """EM: exact q(T), point theta_MP; maximum likelihood where the prior is flat.

    Parameters
    ----------
    max_iter : int
        Sweeps over the data at most, after the first.
    tol : float, optional
        Stop when an update changes the objective per row (unit of weight) by no more, in nats, and
        by less than the one before. Where not given: when no more than 0.001 nats in total are
        left to gain, as the last updates foretell it.
    acceleration : {"anderson"} or None
        What to do once updates are visibly slow, and many more are needed: Anderson's
        acceleration in unconstrained coordinates (Walker & Ni 2011), or nothing. A step ahead
        costs one sweep, as an update does; it is kept only if the objective does not fall, and
        only an update's own change ends the fit. Where a likelihood has several maxima, the fit
        may end in another one than plain EM.
    """

    name: ClassVar[str] = "em"
    read: ClassVar[str] = "mode"
    objective: ClassVar[str] = "log p(X | theta) + log p(theta)"


@dataclass(frozen=True)
class VariationalEM(_Smooth):
    """EM with q(T) from a restricted family, q_1(T_1) ... q_d(T_d).

    For a mixture, q factorised over rows is exact, and this is EM; for a chain it is not.
    `truncation` restricts each row of a mixture to its C best components: the free energy is then
    a lower bound of log p(X | theta), and C = 1 is crisp EM.

    Parameters
    ----------
    max_iter, tol, acceleration
        As for `EM`.
    truncation : int, optional
        C >= 1; all components where not given, or where there are no more.
    """

    truncation: int | None = None

    name: ClassVar[str] = "variational_em"
    read: ClassVar[str] = "mode"
    objective: ClassVar[str] = "free energy + log p(theta)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.truncation is not None:
            _check_integer("truncation", self.truncation, 1)

    def assign(self, n: int) -> Assignment:
        """How sweep n assigns T."""
        if self.truncation is None:
            return FACTORISED
        return Assignment("best", truncation=self.truncation)


@dataclass(frozen=True)
class CrispEM(_Climb):
    """EM with all of each row on its best component (classification EM; k-means is a case)."""

    name: ClassVar[str] = "crisp_em"
    read: ClassVar[str] = "mode"
    objective: ClassVar[str] = "log p(X, T | theta) + log p(theta)"

    def assign(self, n: int) -> Assignment:
        """How sweep n assigns T."""
        return Assignment("hard")


@dataclass(frozen=True)
class FullInference:
    """Full inference p(T, theta | X) by blocked Gibbs sampling: T given theta, theta given T.

    Parameters
    ----------
    n_draws : int
        Draws kept of each chain.
    n_tune : int
        Sweeps before them, not kept.
    n_chains : int
    thin : int
        Sweeps from one kept draw to the next.
    """

    n_draws: int = 1000
    n_tune: int = 500
    n_chains: int = 4
    thin: int = 1

    name: ClassVar[str] = "full"
    read: ClassVar[str] = "sample"
    objective: ClassVar[str] = "log p(X, T, theta)"

    def __post_init__(self) -> None:
        _check_integer("n_draws", self.n_draws, 1)
        _check_integer("n_tune", self.n_tune, 0)
        _check_integer("n_chains", self.n_chains, 1)
        _check_integer("thin", self.thin, 1)

    @property
    def n_sweeps(self) -> int:
        """Sweeps of all chains together."""
        return self.n_chains * (self.n_tune + self.thin * self.n_draws)

    def chain(
        self, model: ModelLike[T], data: DataLike, posterior: Stats, rng: np.random.Generator
    ) -> Iterator[Sweep[T]]:
        """Yield sweeps of one chain for ever: the draw of T is the next posterior's."""
        seed = int(rng.integers(2**63))
        return sweeps(
            model,
            data,
            posterior,
            lambda p: model.sample(p, rng),
            lambda n: Assignment("draw", seed=seed, sweep=n % 2**32),
        )

    def fit(
        self,
        model: DrawnModelLike[S],
        data: DataLike,
        posteriors: list[Stats],
        rng: np.random.Generator,
        *,
        report: Callable[[int, float], None] | None = None,
    ) -> Draws[S]:
        """Run the chains.

        Parameters
        ----------
        model, data
        posteriors : list of Stats
            Where each chain starts.
        rng : numpy.random.Generator
        report : callable, optional
            ``report(n, log joint)`` for every sweep of the first chain before the draws, and for
            every draw; where data are small, when all chains are done.

        Notes
        -----
        Where data are small, chains run in compiled code, one on each thread.
        """
        _check_parts(model, data)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator, not {rng!r}")
        if isinstance(posteriors, Stats) or len(posteriors) != self.n_chains:
            n = "one alone" if isinstance(posteriors, Stats) else len(posteriors)
            raise ValueError(f"posteriors must be {self.n_chains}, one for each chain, not {n}")
        for number, posterior in enumerate(posteriors):
            _check_posterior(f"posteriors[{number}]", model, posterior)
        children = rng.spawn(self.n_chains)
        n_tune = max(self.n_tune, 1)
        at_once = None
        if isinstance(model, HasChains) and isinstance(data, HasBlock):
            at_once = model.chains(
                data.block, posteriors, children, n_tune, self.n_draws, self.thin
            )
        if at_once is not None:
            drawn, tuning = at_once
            if report is not None:
                for n, value in enumerate([*tuning[0], *drawn.log_joint[0]]):
                    report(n, float(value))
            return drawn
        chains = [
            self.chain(model, data, posterior, child)
            for posterior, child in zip(posteriors, children, strict=True)
        ]
        for number, chain in enumerate(chains):
            for n in range(n_tune):
                sweep = next(chain)
                if report is not None and number == 0:
                    report(n, sweep.objective)
        shape = self.n_chains, self.n_draws
        size = sum(part.size for part in sweep.theta.arrays.values())
        if 8.0 * self.n_chains * self.n_draws * size > 2.0**62:
            raise MemoryError(
                f"no memory for n_draws={self.n_draws} of n_chains={self.n_chains}, of {size} "
                "numbers each"
            )
        theta = {name: np.empty((*shape, *part.shape)) for name, part in sweep.theta.arrays.items()}
        log_joint = np.empty(shape)
        after: list[Stats] = []
        stops: dict[int, S] = {}
        stop = set(places(*shape).tolist())
        for number, chain in enumerate(chains):
            for n in range(self.n_draws):
                for _ in range(self.thin):
                    sweep = next(chain)
                for name, part in sweep.theta.arrays.items():
                    theta[name][number, n] = part
                log_joint[number, n] = sweep.objective
                after.append(model.prior + sweep.stats)
                if n in stop:
                    centred: Any = model if isinstance(model, HasCentre) else None
                    theta_there = centred.centre(after[-1]) if centred else sweep.theta
                    stops[len(after) - 1] = theta_there
                if report is not None and number == 0:
                    report(n_tune + n, sweep.objective)
        centres, seen = list(stops.values()), [after[n] for n in stops]
        centre = centres[chosen(centres, seen, model.log_density_terms)]
        found = [model.log_density_terms(posterior, centre) for posterior in after]
        common = np.array([common for common, _ in found]).reshape(shape)
        terms = np.array([terms for _, terms in found])
        point = At(centre, common, terms.reshape(*shape, *terms.shape[1:]))
        return Draws(theta, log_joint, point, seen, after[self.n_draws - 1 :: self.n_draws])


Method = MeanField | EM | VariationalEM | CrispEM | FullInference

METHODS: dict[str, type[MeanField | EM | VariationalEM | CrispEM | FullInference]] = {
    method.name: method for method in (FullInference, MeanField, EM, VariationalEM, CrispEM)
}


def _check_parts(model: object, data: object) -> None:
    """Raise TypeError where one of the two is something else."""
    if not isinstance(getattr(model, "prior", None), Stats):
        raise TypeError(f"model must be a model, such as Model(Mixture(2), ...), not {model!r}")
    if not hasattr(data, "total_weight"):
        raise TypeError(f"data must be such as ArrayData.of(X), not {type(data).__name__}")


def _check_posterior(name: str, model: Any, posterior: object) -> None:
    """Raise TypeError or ValueError where it isn't one of the model's."""
    if not isinstance(posterior, Stats):
        raise TypeError(f"{name} must be Stats, such as model.prior + statistics: {posterior!r}")
    mine, theirs = model.prior.layout.fields, posterior.layout.fields
    if mine is not theirs and mine != theirs:
        raise ValueError(
            f"{name} is of another model: it has {posterior!r}, the model {model.prior!r}"
        )


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer >= {least}, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be an integer >= {least}, not {value!r}")
