"""What mixtures share, whatever their emission: weights, starts, draws, predictions."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from .. import draws, evidence, portfolio, starts
from ..answers import AveragedMixture, Known
from ..conjugate import MOST_ROWS, StickBreaking
from ..data import ArrayData, Frame, check_finite, check_weights
from ..exceptions import TruncationWarning, convergence_warning
from ..latents.mixture import WeightPrior
from ..methods import Fit, FullInference, Method
from ..model import Model, Theta
from ..stats import Stats
from .base import FittedByMethod, feature_names
from .checks import (
    as_generator,
    as_labels,
    as_probabilities,
    check_choice,
    check_number,
    check_samples,
    in_type_of,
    sum_of_logs,
)

__all__ = ["MixtureBase"]

Array = NDArray[np.float64]

INITS = get_args(starts.Init)
WEIGHT_PRIORS = ("dirichlet_distribution", "dirichlet_process")
# Rows that one weight may stand for in full inference, each with a draw of its own.
MOST_COPIES = 2**53
# Shares that the last stick of a Dirichlet process may have of the prior's weight, and of q's.
MOST_LEFT, MOST_HELD = 0.5, 0.1


class MixtureBase(FittedByMethod):
    """A mixture of some emission; what is left to subclasses is about that emission."""

    # Set by the subclasses' constructors.
    n_components: int
    init_params: starts.Init
    weights_init: ArrayLike | None
    weight_concentration_prior_type: WeightPrior
    weight_concentration_prior: float | None
    warm_start: bool

    # Set by fit.
    weights_: Array
    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: Array
    objective_: float
    # With full inference.
    draws_: dict[str, Array]
    log_evidence_: float
    log_evidence_se_: float
    r_hat_: float
    effective_sample_size_: float

    # Whether priors that are not given are weakly informative for every method, or flat for those
    # that can do with flat ones; and whether lower_bound_ is per row.
    _informative: ClassVar[bool]
    _bound_per_row: ClassVar[bool]

    # -- what an emission brings --------------------------------------------------------------

    @abstractmethod
    def _check_parameters(self) -> Method:
        """Check the parameters, and return the method."""

    @abstractmethod
    def _data(self, X: ArrayLike, sample_weight: ArrayLike | None) -> ArrayData:
        """Rows to fit, checked."""

    @abstractmethod
    def _check_memory(self, data: ArrayData, method: Method) -> None:
        """Raise MemoryError where there is too little."""

    @abstractmethod
    def _model_of(self, data: ArrayData, method: Method) -> tuple[Model, dict[str, Any]]:
        """Return the model with its priors, and the attributes that tell of them."""

    @abstractmethod
    def _given(self, data: ArrayData) -> dict[str, Array | None]:
        """Parameters to start from, checked."""

    @abstractmethod
    def _previous(self, data: ArrayData) -> dict[str, Array | None] | None:
        """Parameters of the last fit, for a warm start."""

    @abstractmethod
    def _start_from(
        self,
        model: Model,
        total_weight: float,
        given: dict[str, Array | None],
        method: Method,
        located: Callable[[], Stats],
    ) -> Stats:
        """Return the posterior of the given parameters; ``located()`` tells what is not given."""

    @abstractmethod
    def _climbed(
        self, model: Model, frame: Frame, total_weight: float, method: Any, best: Fit[Theta]
    ) -> dict[str, Any]:
        """Attributes that tell where a method that climbs ended."""

    @abstractmethod
    def _drawn(
        self,
        model: Model,
        theta: dict[str, Array],
        of: NDArray[np.int64],
        orders: NDArray[np.int64],
    ) -> dict[str, Any]:
        """Attributes that tell of draws of theta, of which [of, orders] puts components in order.

        Among them "draws_", whose arrays have the draw first.
        """

    @abstractmethod
    def _keep_with_frame(self, fitted: dict[str, Any], frame: Frame, method: Method) -> None:
        """Make these the fitted attributes."""

    @property
    @abstractmethod
    def _current_answers(self) -> Known | AveragedMixture:
        """What predictions are made from."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Free parameters, weights among them."""

    # -- fitting ------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
        *,
        labels: ArrayLike | None = None,
    ) -> Self:
        """Fit the mixture.

        Parameters
        ----------
        X : array-like of shape (N, D)
            float64 or float32 is read where it lies, in any layout (memory maps too); other real
            types are converted to float64.
        y : ignored
        sample_weight : array-like of shape (N,), optional
            A row of weight 2 counts as two rows, one of weight 0 as none. Full inference takes
            whole numbers only.
        labels : array-like of shape (N,), optional
            Components of rows that are known, 0 to K - 1; -1 or NaN for others. The fit is to these
            as well: `objective_` is of X and them, and a component is that of its number. With full
            inference there is no `log_evidence_` then, but NaN. Predictions take rows for new ones.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an argument or a parameter is not allowed; nothing has changed then.
        DegenerateError
            If the likelihood has no bound and neither `reg_covar` nor a prior gives it one.
        MemoryError
            If the fit would need more memory than there is.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` came first, or chains disagree.
        """
        self._fit(X, sample_weight, labels)
        return self

    def fit_predict(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.int64]:
        """Fit, and return each row's most probable component, (N,)."""
        return self.fit(X, y, sample_weight).predict(X)

    def _arranged(self, data: ArrayData) -> ArrayData:
        """The rows in an order that takes less time."""
        return data

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None, labels: ArrayLike | None) -> None:
        method = self._check_parameters()
        rng = as_generator(self.random_state)
        names = feature_names(X)
        X, codes = self._coded(X)
        data = self._data(X, sample_weight)
        self._check_data(data, method)
        known = as_labels(labels, data.n_rows, int(self.n_components))
        model, priors = self._model_of(data, method)
        given = self._given(data)
        if known is not None:
            data = data.with_labels(known)
            model = replace(model, latent=replace(model.latent, numbered=True))
        data = self._arranged(data)
        n_starts = method.n_chains if isinstance(method, FullInference) else self.n_init
        previous = self._previous(data) if self.warm_start else None
        if previous is not None:
            given, n_starts = previous, (n_starts if isinstance(method, FullInference) else 1)
        races = self._races(given, method)
        if races and not model.emission.located:
            data = data.merged()
        posteriors = self._starts(model, data, given, method, n_starts, rng)
        if isinstance(method, FullInference):
            fitted = self._sample(model, data, [start for start, _ in posteriors], method, rng)
        else:
            best = self._climb(model, data, posteriors, method, several=races or n_starts > 1)
            fitted = self._climbed(model, data.frame, data.total_weight, method, best)
        if names is not None:
            fitted["feature_names_in_"] = names
        self._tell_of_truncation(model, fitted["weights_"])
        self._keep_with_frame(fitted | priors | codes, data.frame, method)

    def _starts(
        self,
        model: Model,
        data: ArrayData,
        given: dict[str, Array | None],
        method: Method,
        n_starts: int,
        rng: np.random.Generator,
    ) -> Iterable[portfolio.Finalist]:
        """Posteriors that fits begin with, and the highest objectives that they may come to."""
        total = data.total_weight

        def start(located: Callable[[], Stats]) -> Stats:
            return self._start_from(model, total, given, method, located)

        return self._starts_by(start, model, data, given, method, n_starts, rng)

    def _sample(
        self,
        model: Model,
        data: ArrayData,
        posteriors: list[Stats],
        method: FullInference,
        rng: np.random.Generator,
    ) -> dict[str, Any]:
        """Draws, their relabelled means, and the evidence."""
        drawn = method.fit(model, data, posteriors, rng, report=self._report(0))
        shape = drawn.log_joint.shape
        k = model.latent.n_components
        log_evidence, error = self._evidence(model, data, posteriors, drawn, rng)
        if data.labels is None:
            orders = draws.orders(drawn.terms.reshape(-1, k, k))
        else:  # numbers mean something
            orders = np.tile(np.arange(k), (drawn.log_joint.size, 1))
        flat = {name: part.reshape(-1, *part.shape[2:]) for name, part in drawn.theta.items()}
        of = np.arange(len(orders))[:, None]
        of_draws = self._drawn(model, flat, of, orders)
        parts = of_draws["draws_"]
        for name, part in parts.items():
            parts[name] = part.reshape(*shape, *part.shape[1:])
        parts["log_joint"] = drawn.log_joint
        ordered = np.sort(parts["weights"], axis=2)[:, :, ::-1]
        of_weights = {
            f"the weight that is number {n + 1} in size": ordered[:, :, n] for n in range(k - 1)
        }
        mixed = self._mixing(
            {"log p(X, T, theta)": drawn.log_joint, **of_weights}, self._stacklevel + 1
        )
        unit = data.total_weight if self._bound_per_row else 1.0
        objective = float(drawn.log_joint.max())
        return {
            **of_draws,
            "log_evidence_": log_evidence,
            "log_evidence_se_": error,
            **mixed,
            "n_iter_": method.n_sweeps,
            "objective_": objective,
            "lower_bound_": objective / unit,
            "lower_bounds_": drawn.log_joint.ravel() / unit,
        }

    def _evidence(
        self,
        model: Model,
        data: ArrayData,
        posteriors: list[Stats],
        drawn: draws.Draws[Theta],
        rng: np.random.Generator,
    ) -> tuple[float, float]:
        """log p(X) and its standard error; NaN, and a warning, where there is a contradiction."""
        if data.labels is not None:
            return np.nan, np.nan
        begin = posteriors
        if self.n_components > 1 and (self.init_params != "auto" or len(begin) == 1):
            # Starts of one kind may all be far from the best there is.
            begin = [*begin, *portfolio.varied(model, data, 1, rng, lambda posterior: posterior)]
        low = portfolio.bound(model, data, begin)
        value, error, against = evidence.estimate(model, data, drawn, low, rng)
        if against:
            warnings.warn(
                f"log_evidence_ is NaN, since {against}. Raise n_tune, n_draws and n_chains of "
                "FullInference, or try other starts (init_params)",
                convergence_warning(),
                stacklevel=self._stacklevel + 1,
            )
        return value, error

    def _ended(self, best: Fit[Theta], total_weight: float) -> dict[str, Any]:
        """Attributes of any climb."""
        unit = total_weight if self._bound_per_row else 1.0
        return {
            "converged_": best.converged,
            "n_iter_": best.n_iter,
            "objective_": best.objective,
            "lower_bound_": best.objective / unit,
            "lower_bounds_": best.objectives / unit,
        }

    def _tell_of_truncation(self, model: Model, weights: Array) -> None:
        """Warn where the last stick, which has all that is left, has much of the prior and of q."""
        k = model.latent.n_components
        if model.latent.exchangeable or k == 1:
            return
        alpha = model.latent.prior_concentration
        expected = (alpha / (1 + alpha)) ** (k - 1)
        if expected > MOST_LEFT and weights[-1] > MOST_HELD:
            warnings.warn(
                f"the last of n_components={k} sticks holds {weights[-1]:.3g} of the weight, and "
                f"{expected:.3g} of it under weight_concentration_prior={alpha:g}: so much of the "
                "Dirichlet process is cut off. Raise n_components",
                TruncationWarning,
                stacklevel=self._stacklevel,
            )

    def _weight_concentration(self, model: Model, posterior: Stats) -> Any:
        """Concentrations of q(weights), (K,); of sticks a pair of such."""
        weights = model.latent.distribution(posterior)
        if isinstance(weights, StickBreaking):
            prior = model.latent.concentration or 1.0
            return np.append(weights.a, 1.0), np.append(weights.b, prior)
        return weights.concentration.copy()

    # -- checks -------------------------------------------------------------------------------

    def _check_mixture(self) -> Method:
        """Check the parameters that are here, and return the method."""
        check_number("n_components", self.n_components, whole=True, least=1)
        check_choice("init_params", self.init_params, INITS)
        check_choice(
            "weight_concentration_prior_type", self.weight_concentration_prior_type, WEIGHT_PRIORS
        )
        check_number("weight_concentration_prior", self.weight_concentration_prior, above=0,
                     most=MOST_ROWS, optional=True)  # fmt: skip
        if not isinstance(self.warm_start, (bool, np.bool_)):
            raise TypeError(f"warm_start must be True or False, not {self.warm_start!r}")
        return self._check_fitting()

    def _given_weights(self) -> Array | None:
        """weights_init, checked."""
        if self.weights_init is None:
            return None
        return as_probabilities("weights_init", self.weights_init, (self.n_components,))

    def _concentration(self, method: Method, proper: bool) -> float | None:
        """Concentration of the prior on the weights; None where it is flat."""
        concentration = self.weight_concentration_prior
        if concentration is None and proper:
            # 1/K has no mode, which a point estimate needs.
            concentration = 1.0 if method.read == "mode" else 1.0 / self.n_components
        elif concentration is not None and concentration < 1 and method.read == "mode":
            raise ValueError(
                f"weight_concentration_prior={concentration!r} is below 1: p(theta) then has no "
                f"mode for {method.name!r} to find; give 1 or more, or use 'mean_field' or 'full'"
            )
        return concentration

    def _check_data(self, data: ArrayData, method: Method) -> None:
        present = data.n_rows if data.weights is None else int(np.count_nonzero(data.weights))
        if present < self.n_components:
            raise ValueError(
                f"n_components={self.n_components} is more than the {present} rows of X (of "
                f"positive weight): Expected n_samples >= n_components but got n_components = "
                f"{self.n_components}, n_samples = {present}"
            )
        if isinstance(method, FullInference) and data.weights is not None:
            weights = data.weights
            bad = np.flatnonzero((weights != np.floor(weights)) | (weights > MOST_COPIES))
            if len(bad):
                raise ValueError(
                    f"sample_weight[{bad[0]}] is {weights[bad[0]]}; full inference draws a "
                    "component for each row that a weight stands for and takes whole weights from "
                    f"0 to {MOST_COPIES} only (other methods take any)"
                )
        self._check_memory(data, method)

    # -- predictions --------------------------------------------------------------------------

    def _prepare(self, X: ArrayLike) -> tuple[Known | AveragedMixture, NDArray[Any], int]:
        """What tells of rows, rows and threads of a prediction, checked."""
        now = self._now()
        answers = now._current_answers
        values = now._rows(X, answers.emission.n_features)
        threads = now._threads_for(values)
        check_finite(values, threads, missing=answers.emission.missing_columns)
        answers.emission.check_rows(values)
        return answers, values, threads

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probability of each component for each row.

        p(t | x, theta) for a point estimate; q(t) for mean field, from E[log theta] under q(theta),
        of which `weights_`, `means_` and so on are the means: an estimator with these attributes
        alone gives p(t | x, theta) at the means, which is not the same. p(t | x, X), averaged over
        (relabelled) draws, for full inference, x being a new row: one of the fit itself, which
        draws have seen, is taken for another like it (`co_assignment` tells of rows of the fit).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N, K)
            Rows sum to 1, for a row however far away; float32 where X is.
        """
        answers, values, threads = self._prepare(X)
        return in_type_of(values, answers.responsibilities(values, threads))

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable component of each row, (N,)."""
        answers, values, threads = self._prepare(X)
        return answers.labels(values, threads)

    def score_samples(self, X: ArrayLike) -> Array:
        """Log density of each row, in nats.

        log p(x | theta) for a point estimate; the log posterior predictive density for mean field
        and full inference (averaged over draws).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N,)
        """
        answers, values, threads = self._prepare(X)
        return in_type_of(values, answers.log_density(values, threads))

    def score(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Mean of `score_samples(X)`, weighted: log density per row, in nats.

        `objective_` per row is another number even for EM with flat priors: `reg_covar` counts each
        row as a cloud there, which takes half of tr(cloud Lambda) from its log density, and here
        rows are points. With a prior or a bound they differ by what `objective_` has beside
        log p(X | theta). With reg_covar=0 and flat priors EM's are the same.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : ignored
        sample_weight : array-like of shape (N,), optional
            A row of weight 2 is two rows, of weight 0 none.
        """
        total, n_rows = self._log_likelihood(X, sample_weight)
        return total / n_rows

    def _log_likelihood(self, X: ArrayLike, sample_weight: ArrayLike | None) -> tuple[float, float]:
        """Sum of `score_samples(X)`, and how many rows that is."""
        answers, values, threads = self._prepare(X)
        each = answers.log_density(values, threads)
        weights = check_weights(sample_weight, len(each))
        if weights is None:
            return sum_of_logs(each), float(len(each))
        # A row of weight 0 is absent, even one whose density is 0.
        present = weights > 0
        return sum_of_logs(each[present] * weights[present]), float(weights.sum())

    def co_assignment(self, X: ArrayLike) -> Array:
        """Probability that two rows share a component, (N, N): free of the components' order.

        From `predict_proba` for a point estimate and mean field; averaged over draws for full
        inference.

        Parameters
        ----------
        X : array-like of shape (N, D)
        """
        answers, values, threads = self._prepare(X)
        together = answers.co_assignment(values, threads)
        np.fill_diagonal(together, 1.0)
        return np.asarray(np.minimum(together, 1.0, out=together))

    def sample(
        self, n_samples: int = 1, random_state: Any = None
    ) -> tuple[Array, NDArray[np.int64]]:
        """Draw rows from the density that `score_samples` tells of.

        Parameters
        ----------
        n_samples : int
        random_state : int, numpy.random.Generator or numpy.random.RandomState, optional
            The estimator's own where not given.

        Returns
        -------
        X : ndarray of shape (n_samples, D)
        y : ndarray of shape (n_samples,)
            Components.
        """
        now = self._now()
        answers = now._current_answers
        n_samples = check_samples(n_samples)
        seed = now.random_state if random_state is None else random_state
        rows, components = answers.sample(n_samples, as_generator(seed))
        return now._decoded(rows), components

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Bayesian information criterion, -2 log p(X | theta) + p log N: the lower the better.

        N is the sum of the weights (N,), where they are given.
        """
        now = self._now()
        total, n_rows = now._log_likelihood(X, sample_weight)
        return float(-2 * total + now.n_parameters * np.log(n_rows))

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Akaike's information criterion, -2 log p(X | theta) + 2 p: the lower the better."""
        now = self._now()
        return -2 * now._log_likelihood(X, sample_weight)[0] + 2 * now.n_parameters

    def icl(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Integrated completed likelihood: BIC + twice the entropy of the responsibilities.

        Biernacki, Celeux & Govaert (2000), in BIC's sign: the lower the better.
        """
        now = self._now()
        answers, values, threads = now._prepare(X)
        each = entr(answers.responsibilities(values, threads)).sum(axis=1)
        weights = check_weights(sample_weight, len(each))
        entropy = each.sum() if weights is None else (each * weights).sum()
        return now.bic(X, sample_weight) + 2 * float(entropy)
