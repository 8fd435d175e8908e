"""What every estimator does: parameters, checks of arguments, scikit-learn's tags.

scikit-learn isn't imported: an estimator only does what its conventions ask for.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels, draws, portfolio, starts
from .._threads import resolve_threads
from ..data import ArrayData
from ..exceptions import (
    DegenerateError,
    ImpossibleRowError,
    SpuriousWarning,
    convergence_warning,
    not_fitted_error,
)
from ..methods import METHODS, Climb, Fit, FullInference, Method, ThetaLike, lockstep
from ..model import Model, Theta
from ..portfolio import TOGETHER, Finalist
from ..stats import Stats
from .categories import Uncoded
from .checks import check_number

__all__ = ["Estimator", "FittedByMethod", "MethodName", "feature_names"]

T = TypeVar("T", bound=ThetaLike)
# What a start may end in.
Failure = DegenerateError | ImpossibleRowError
MethodName = Literal["full", "mean_field", "em", "variational_em", "crisp_em"]

# Rows that are never shared out.
FEW_ROWS = 32
# Parameters of a latent structure, by name.
OF_LATENTS = frozenset({"weights", "startprob", "transmat"})
# R-hat of chains that have mixed is below.
MIXED = 1.05


class Estimator(Uncoded, ABC):
    """Parameters by introspection of the constructor, as scikit-learn has them."""

    n_features_in_: int
    n_threads: int | None

    @classmethod
    def _parameter_names(cls) -> list[str]:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        if any(each.kind is each.VAR_POSITIONAL for each in parameters):
            raise RuntimeError(
                f"{cls.__name__}.__init__ takes *args, of which nobody knows the names: give each "
                "parameter one"
            )
        # What goes by **kwargs is for a subclass to know.
        return sorted(each.name for each in parameters if each.kind is not each.VAR_KEYWORD)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters and their values.

        Parameters
        ----------
        deep : bool
            Taken for scikit-learn's sake; no parameter is an estimator.
        """
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the constructor by name; returns the estimator.

        Raises
        ------
        ValueError
            If a name is not a parameter; nothing is set then.
        """
        names = self._parameter_names()
        for name in params:
            if name not in names:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: "
                    f"{names}."
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        parts = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default and repr(value) != repr(defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="density_estimator",
            target_tags=TargetTags(required=False),
            input_tags=InputTags(),
        )

    @abstractmethod
    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is enough to predict with."""

    def _check_is_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise not_fitted_error(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )

    def _now(self) -> Self:
        """This estimator with its attributes of now: a fit in another thread leaves them alone.

        A fit puts its attributes in place of all others at once: see `_keep`.
        """
        now = object.__new__(type(self))
        # Past `__setattr__` of subclasses, which looks for other names: this is asked of each row.
        object.__setattr__(now, "__dict__", self.__dict__)
        return now

    def _threads_for(self, values: NDArray[Any]) -> int:
        """Threads of a prediction."""
        # So few rows are never shared out: no need to ask the system for processors.
        if self.n_threads is None and len(values) <= FEW_ROWS:
            return 1
        return resolve_threads(self.n_threads)

    def _rows(self, X: ArrayLike, n_features: int) -> NDArray[Any]:
        """X as rows of as many features as were fitted."""
        values = self._read_rows(X)
        if values.shape[1] != n_features:
            raise ValueError(
                f"X has {values.shape[1]} features, but {type(self).__name__} is expecting "
                f"{n_features} features as input"
            )
        fitted: Any = vars(self).get("feature_names_in_")
        given = None if fitted is None else feature_names(X)
        if given is not None and list(fitted) != list(given):
            raise ValueError(
                "The feature names should match those that were passed during fit: "
                f"{list(fitted)}, not {list(given)}"
            )
        return self._codes(values)


class FittedByMethod(Estimator):
    """What estimators share that a method fits: its choice, several starts, progress."""

    # Set by the subclasses' constructors.
    method: Any
    tol: float | None
    max_iter: int
    n_init: int
    init_params: Any
    random_state: Any
    verbose: int
    verbose_interval: int
    n_threads: int | None

    # Calls from a warning of `_fit`'s to whoever called `fit`.
    _stacklevel: ClassVar[int] = 4

    def _check_fitting(self) -> Method:
        """Check the parameters that are here, and return the method."""
        check_number("tol", self.tol, least=0, optional=True)
        check_number("max_iter", self.max_iter, whole=True, least=0)
        check_number("n_init", self.n_init, whole=True, least=1, most=2**31)
        if not isinstance(self.verbose, (bool, np.bool_)):
            check_number("verbose", self.verbose, whole=True, least=0)
        check_number("verbose_interval", self.verbose_interval, whole=True, least=1)
        resolve_threads(self.n_threads)
        method = self.method
        if isinstance(method, tuple(METHODS.values())):
            given: Method = self.method
            return given
        if not isinstance(method, str) or method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(map(repr, METHODS))}, or an object such as "
                f"vbfast.EM(max_iter=100), not {method!r}"
            )
        if method == "full":
            return FullInference()
        climb: Any = METHODS[method]
        resolved: Method = climb(max_iter=self.max_iter, tol=self.tol)
        return resolved

    def _portfolio(self, given: dict[str, Any]) -> bool:
        """Whether there are starts of several kinds, where these parameters are given or None.

        Where something is given of what rows look like, that is the start.
        """
        several: bool = getattr(self, "n_components", 2) > 1
        free = all(value is None for name, value in given.items() if name not in OF_LATENTS)
        return several and free and self.init_params == "auto"

    def _races(self, given: dict[str, Any], method: Method) -> bool:
        """Whether these starts race."""
        return self._portfolio(given) and not isinstance(method, FullInference)

    def _starts_by(
        self,
        start: Callable[[Callable[[], Stats]], Stats],
        model: Model,
        data: ArrayData,
        given: dict[str, Any],
        method: Method,
        n_starts: int,
        rng: np.random.Generator,
    ) -> Iterable[Finalist]:
        """Posteriors that fits begin with, and the highest objectives that they may come to.

        ``start(located)`` is a start with the given parameters, and else as ``located()`` says.
        """
        init: Any = "kmeans" if self.init_params == "auto" else self.init_params

        def with_given(posterior: Stats) -> Stats:
            return start(lambda: posterior)

        if self._races(given, method):
            return portfolio.finalists(model, data, method, n_starts, rng, with_given)
        if self._portfolio(given):
            chains = portfolio.varied(model, data, n_starts, rng, with_given)
            return [(posterior, np.inf) for posterior in chains]

        def located() -> Stats:
            found = starts.posterior(model, data, init, rng)
            return starts.agreeing(model, data, found, method.read)

        return ((start(located), np.inf) for _ in range(n_starts))

    def _climb(
        self,
        model: Model,
        data: ArrayData,
        finalists: Iterable[Finalist],
        method: Any,
        several: bool,
    ) -> Fit[Theta]:
        """Best of several starts, but for those that can't come to be the best any more."""
        highest = -np.inf

        def climbs() -> Iterator[Climb[Theta]]:
            for number, (posterior, most) in enumerate(finalists):
                if most >= highest:
                    yield method.climb(model, data, posterior, report=self._report(number))

        def outcomes() -> Iterator[tuple[int, Fit[Theta] | Failure]]:
            nonlocal highest
            # One after another where somebody reads along, or after a race, which has told how
            # far each may come: one's end may spare the next.
            together = max(1, TOGETHER // model.layout.size)
            if self.verbose or isinstance(finalists, list):
                together = 1
            for number, outcome in lockstep(
                climbs(), partial(data.sum_each, model.visit_each), together
            ):
                if isinstance(outcome, Fit) and worth(outcome)[0]:
                    highest = max(highest, outcome.objective)
                yield number, outcome

        rows = data.n_rows / data.total_weight
        sound = method.read != "mode"

        def worth(fit: Fit[Theta]) -> tuple[bool, float]:
            return sound or model.spurious(fit.posterior.buffer[None], rows)[0] < 0, fit.objective

        _, best = self._best(outcomes(), worth)
        self._tell_of_convergence(best, method, self._stacklevel + 1)
        if several and not worth(best)[0]:
            component = int(model.spurious(best.posterior.buffer[None], rows)[0])
            warnings.warn(
                f"component {component} is close to fewer than "
                f"{max(model.emission.fewest_rows.values())} rows, and no start ended without such "
                "a one: the likelihood may be high there for no good reason. Use fewer components, "
                "a simpler covariance_type, a larger reg_covar or a prior",
                SpuriousWarning,
                stacklevel=self._stacklevel,
            )
        return best

    def _climb_apart(
        self, model: Model, data: ArrayData, posteriors: Iterable[Stats], method: Any
    ) -> tuple[Fit[Theta], ArrayData]:
        """Best of several starts, each with a memory of its own; the data with the best's."""
        owns: list[ArrayData] = []

        def outcomes() -> Iterator[tuple[int, Fit[Theta] | Failure]]:
            for number, posterior in enumerate(posteriors):
                owns.append(data.with_memory(model.memory_width))
                report = self._report(number)
                try:
                    yield number, method.fit(model, owns[-1], posterior, report=report)
                except (DegenerateError, ImpossibleRowError) as error:
                    yield number, error

        number, best = self._best(outcomes())
        return best, owns[number]

    def _best(
        self,
        outcomes: Iterable[tuple[int, Fit[T] | Failure]],
        worth: Callable[[Fit[T]], Any] = lambda fit: fit.objective,
    ) -> tuple[int, Fit[T]]:
        """Best of several starts' outcomes, each with its number; of equal ones the first."""
        best: Fit[T] | None = None
        first = 0
        failure: Failure | None = None
        for number, outcome in outcomes:
            if not isinstance(outcome, Fit):
                failure = outcome
            elif best is None or (worth(outcome), -number) > (worth(best), -first):
                best, first = outcome, number
        if best is None:
            assert failure is not None
            raise failure
        return first, best

    def _tell_of_convergence(self, best: Fit[Any], method: Any, stacklevel: int) -> None:
        """Warn where a fit that is kept ended at `max_iter`."""
        if not best.converged:
            left = "gains are still growing" if method.max_iter else "this is where it starts"
            if np.isfinite(best.left):
                left = f"some {best.left:.2g} nats seem to be left to gain"
            raised = "max_iter" if method.tol is None else "max_iter or tol"
            warnings.warn(
                f"{method.name} did not converge in {method.max_iter} iterations: {left}. Raise "
                f"{raised}, or try other starts (n_init)",
                convergence_warning(),
                stacklevel=stacklevel,
            )

    def _mixing(
        self, quantities: dict[str, NDArray[np.float64]], stacklevel: int
    ) -> dict[str, Any]:
        """Attributes that tell how chains have mixed; warns where they have not."""
        worst, name, size = draws.mixing(quantities)
        if worst >= MIXED:
            warnings.warn(
                f"chains have not mixed: R-hat of {name} is {worst:.3f}, not below {MIXED}, and "
                f"draws are worth {size:.0f} independent ones. Raise n_tune and n_draws of "
                "FullInference",
                convergence_warning(),
                stacklevel=stacklevel,
            )
        return {
            "r_hat_": worst,
            "effective_sample_size_": size,
            "converged_": bool(worst < MIXED),
        }

    def _report(self, start: int) -> Any:
        """Progress on standard output, as scikit-learn prints it."""
        if not self.verbose:
            return None
        print(f"Initialization {start}")
        since = perf_counter()
        last = np.nan

        def report(n: int, objective: float) -> None:
            nonlocal last
            if n % self.verbose_interval == 0:
                more = (
                    f"\t time lapse {perf_counter() - since:.5f}s\t change {objective - last:.5f}"
                )
                print(f"  Iteration {n}\t objective {objective:.6f}" + more * (self.verbose > 1))
            last = objective

        return report

    def _keep(self, fitted: dict[str, Any], method: Method) -> None:
        """Make these the fitted attributes, in place of those of an earlier fit."""
        fitted["method_"] = method
        fitted["_fitted_names"] = frozenset(fitted)
        stale: frozenset[str] = getattr(self, "_fitted_names", frozenset())
        kept = {name: value for name, value in vars(self).items() if name not in stale}
        # One assignment, so that Ctrl-C finds the old state or the new one.
        self.__dict__ = {**kept, **fitted}


def unchanged(state: dict[str, Any], names: tuple[str, ...], then: tuple[Any, ...]) -> bool:
    """Whether attributes by these names still are what they were; of a fit that was none, never."""
    return _kernels.columns.held(state, names, then) or (
        len(names) == len(then)
        and all(
            np.array_equal(state.get(name), each)  # type: ignore[arg-type]
            for name, each in zip(names, then, strict=True)
        )
    )


def feature_names(X: Any) -> NDArray[np.object_] | None:
    """Column names of a data frame where all are strings, else None."""
    columns = getattr(X, "columns", None)
    if columns is None or not all(isinstance(name, str) for name in columns):
        return None
    return np.asarray(list(columns), dtype=object)
