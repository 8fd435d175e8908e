"""Gaussian mixtures by every method, with scikit-learn's parameters and attributes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from .. import _kernels, draws, starts
from .._kernels.inputs import Assignment
from .._threads import resolve_threads
from ..conjugate import StickBreaking
from ..data import ArrayData, Frame, check_finite
from ..densities import DrawnDensity, MeanFieldDensity, PointDensity
from ..emissions.gaussian import CovarianceType
from ..exceptions import ConvergenceWarning
from ..latents import Mixture
from ..latents.mixture import WeightPrior
from ..methods import Fit, FullInference, Method
from ..model import Model, Theta
from ..stats import Stats
from .base import MethodName, feature_names
from .checks import (
    as_array,
    as_generator,
    as_probabilities,
    available_memory,
    check_choice,
    check_distance,
    check_number,
)
from .gaussian_parameters import (
    FARTHEST_START,
    GaussianParameters,
    covariances_of,
)

__all__ = ["BayesianGaussianMixture", "GaussianMixture"]

Array = NDArray[np.float64]

INITS = ("kmeans", "k-means++", "random", "random_from_data")
WEIGHT_PRIORS = ("dirichlet_distribution", "dirichlet_process")

# What predictions are made from, and somebody may set by hand.
_PARAMETER_NAMES = ("weights_", "means_", "precisions_cholesky_")
# Rows that one weight may stand for in full inference, each with a draw of its own.
MOST_COPIES = 100_000
# Bytes that no fit is refused for.
LITTLE_MEMORY = 2.0**26


class _GaussianMixtureBase(GaussianParameters):
    """All that the two estimators share; they differ in defaults and one unit."""

    # Set by the subclasses' constructors.
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

    # Whether priors that are not given are weakly informative for every method, or flat for those
    # that can do with flat ones; and whether lower_bound_ is per row.
    _informative: ClassVar[bool]
    _bound_per_row: ClassVar[bool]

    # -- fitting ------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
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
        self._fit(X, sample_weight)
        return self

    def fit_predict(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.int64]:
        """Fit, and return each row's most probable component, (N,)."""
        return self.fit(X, y, sample_weight).predict(X)

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> None:
        method = self._check_parameters()
        rng = as_generator(self.random_state)
        data = ArrayData.of(
            X,
            sample_weight,
            isotropic=self.covariance_type == "spherical",
            n_threads=self.n_threads,
        )
        self._check_data(data, method)
        model, priors = self._model(data.frame, method, lambda: self._covariance_of(data))
        given = self._given_parameters(data.frame)
        names = feature_names(X)
        n_starts = method.n_chains if isinstance(method, FullInference) else self.n_init
        previous = self._previous(data) if self.warm_start else None
        if previous is not None:
            given, n_starts = previous, (n_starts if isinstance(method, FullInference) else 1)
        posteriors = (self._start(model, data, given, method, rng) for _ in range(n_starts))
        if isinstance(method, FullInference):
            fitted = self._sample(model, data, list(posteriors), method, rng)
        else:
            best = self._climb(model, data, posteriors, method)
            fitted = self._climbed(model, data.frame, data.total_weight, method, best)
        if names is not None:
            fitted["feature_names_in_"] = names
        self._keep_with_frame(fitted | priors, data.frame, method)

    def _keep_with_frame(self, fitted: dict[str, Any], frame: Frame, method: Method) -> None:
        arrays = tuple(fitted[name].copy() for name in _PARAMETER_NAMES)
        fitted["_made"] = (self.covariance_type, arrays)
        fitted["n_features_in_"] = len(frame.origin)
        fitted["_frame"] = frame
        self._keep(fitted, method)

    def _climbed(
        self, model: Model, frame: Frame, total_weight: float, method: Any, best: Fit[Theta]
    ) -> dict[str, Any]:
        """Attributes that tell where a method that climbs ended."""
        unit = total_weight if self._bound_per_row else 1.0
        posterior, theta = best.posterior, best.theta
        density = PointDensity(frame, self.covariance_type, theta.weights, theta.parameters)
        weights, parameters = theta.weights, theta.parameters
        if method.read == "mean":
            distribution = model.emission.distribution(posterior.copy())
            weights, parameters = model.latent.distribution(posterior).mean(), distribution.mean()
            density = MeanFieldDensity(
                frame, self.covariance_type, theta.weights, theta.parameters, weights, distribution
            )
        return {
            "weights_": weights,
            **self._gaussian_attributes(frame, parameters),
            **self._posterior_attributes(model, posterior, method),
            "_density": density,
            "converged_": best.converged,
            "n_iter_": best.n_iter,
            "objective_": best.objective,
            "lower_bound_": best.objective / unit,
            "lower_bounds_": best.objectives / unit,
        }

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
        at_best = data.sum(model.visit, drawn.best, Assignment("exact", precise=True))
        log_evidence, error = draws.evidence(
            float(at_best["log_z"]) + drawn.best.log_prior, drawn.common, drawn.terms
        )
        orders = draws.orders(drawn.terms.reshape(-1, k, k))
        flat = {name: part.reshape(-1, *part.shape[2:]) for name, part in drawn.theta.items()}
        of = np.arange(len(orders))[:, None]
        weights, means = flat["weights"][of, orders], flat["means"][of, orders]
        factors = flat["factors"]
        if self.covariance_type != "tied":
            factors = factors[of, orders]
        frame = data.frame
        covariances = covariances_of(factors, self.covariance_type)
        parameters = model.emission.mean_of_draws(means, factors)
        mixing = draws.r_hat(drawn.log_joint)
        converged = bool(mixing < 1.05)
        if mixing >= 1.05:
            warnings.warn(
                f"chains have not mixed: split R-hat of the log joint is {mixing:.3f}, not below "
                "1.05. Raise n_tune and n_draws of FullInference",
                ConvergenceWarning,
                stacklevel=4,
            )
        unit = data.total_weight if self._bound_per_row else 1.0
        objective = float(drawn.log_joint.max())
        raw_means = frame.origin + means / frame.scale
        raw_covariances = self._raw_covariances(frame, covariances)
        return {
            "weights_": weights.mean(axis=0),
            **self._gaussian_attributes(frame, parameters),
            "draws_": {
                "weights": weights.reshape(*shape, k),
                "means": raw_means.reshape(*shape, k, -1),
                "covariances": raw_covariances.reshape(*shape, *raw_covariances.shape[1:]),
                "log_joint": drawn.log_joint,
            },
            "_density": DrawnDensity(frame, self.covariance_type, weights, means, factors),
            "log_evidence_": log_evidence,
            "log_evidence_se_": error,
            "r_hat_": mixing,
            "converged_": converged,
            "n_iter_": method.n_sweeps,
            "objective_": objective,
            "lower_bound_": objective / unit,
            "lower_bounds_": drawn.log_joint.ravel() / unit,
        }

    # -- checks -------------------------------------------------------------------------------

    def _check_parameters(self) -> Method:
        check_number("n_components", self.n_components, whole=True, least=1)
        self._check_gaussian_parameters()
        check_choice("init_params", self.init_params, INITS)
        check_choice(
            "weight_concentration_prior_type", self.weight_concentration_prior_type, WEIGHT_PRIORS
        )
        check_number("weight_concentration_prior", self.weight_concentration_prior, above=0,
                     optional=True)  # fmt: skip
        if not isinstance(self.warm_start, (bool, np.bool_)):
            raise TypeError(f"warm_start must be True or False, not {self.warm_start!r}")
        return self._check_fitting()

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

    def _check_memory(self, data: ArrayData, method: Method) -> None:
        k, d = self.n_components, data.values.shape[1]
        per_component = {"full": d * d, "tied": d, "diag": d, "spherical": d}[self.covariance_type]
        # Statistics of the fewest chunks, and some posteriors, thetas and attributes; and what an
        # acceleration remembers.
        n_copies = 8 + 12 + (20 if getattr(method, "acceleration", None) else 0)
        needed = 8.0 * k * (per_component + 2 * d) * n_copies
        if isinstance(method, FullInference):
            needed += 8.0 * method.n_chains * method.n_draws * k * (3 * per_component + 2 * k)
        available = np.inf if needed < LITTLE_MEMORY else available_memory()
        if needed > available:
            raise MemoryError(
                f"n_components={k} with {d} features and covariance_type="
                f"{self.covariance_type!r} would need about {needed / 2**30:.1f} GiB; "
                f"{available / 2**30:.1f} GiB are available"
            )

    # -- model, priors, starts ----------------------------------------------------------------

    def _model(
        self, frame: Frame, method: Method, covariance: Callable[[], Array]
    ) -> tuple[Model, dict[str, Any]]:
        """Return the model with its priors, and the attributes that tell of them.

        ``covariance()`` is that of all rows, asked for where a prior takes it.
        """
        k = self.n_components
        proper = self._informative or method.read != "mode"
        concentration = self.weight_concentration_prior
        if concentration is None and proper:
            # 1/K has no mode, which a point estimate needs.
            concentration = 1.0 if method.read == "mode" else 1.0 / k
        elif concentration is not None and concentration < 1 and method.read == "mode":
            raise ValueError(
                f"weight_concentration_prior={concentration!r} is below 1: p(theta) then has no "
                f"mode for {method.name!r} to find; give 1 or more, or use 'mean_field' or 'full'"
            )
        emission, priors = self._emission(frame, method, proper, covariance)
        model = Model(Mixture(k, self.weight_concentration_prior_type, concentration), emission)
        return model, {"weight_concentration_prior_": concentration, **priors}

    def _given_parameters(self, frame: Frame) -> dict[str, Array | None]:
        """weights_init, means_init and the covariances of precisions_init, checked."""
        weights = None
        if self.weights_init is not None:
            weights = as_probabilities("weights_init", self.weights_init, (self.n_components,))
        return {"weights": weights, **self._given_gaussians(frame)}

    def _previous(self, data: ArrayData) -> dict[str, Array | None] | None:
        """Parameters of the last fit, for a warm start."""
        if not self.__sklearn_is_fitted__():
            return None
        k, d = self.n_components, data.values.shape[1]
        shapes = {"means_": (k, d), "covariances_": self._parameter_shape(k, d)}
        for name, shape in shapes.items():
            last = np.shape(getattr(self, name))
            if last != shape:
                raise ValueError(
                    f"warm_start: the last fit had {name} of shape {last}, this one has {shape}; "
                    "set warm_start=False to start anew"
                )
        check_distance("warm_start: means_", np.asarray(self.means_), data.frame, FARTHEST_START)
        return {
            "weights": self.weights_,
            "means": self.means_,
            "covariances": self.covariances_,
        }

    def _start(
        self,
        model: Model,
        data: ArrayData,
        given: dict[str, Array | None],
        method: Method,
        rng: np.random.Generator,
    ) -> Stats:
        """Return the posterior that a fit begins with."""

        def located() -> Stats:
            return starts.posterior(model, data, self.init_params, rng)

        return self._start_from(model, data.total_weight, given, method, located)

    def _start_from(
        self,
        model: Model,
        total_weight: float,
        given: dict[str, Array | None],
        method: Method,
        located: Callable[[], Stats],
    ) -> Stats:
        """Return the posterior of the given parameters; ``located()`` tells what is not given."""
        weights = given["weights"]
        means, covariances = self._in_frame(
            model.emission.units, given["means"], given["covariances"]
        )
        if weights is not None and means is not None and covariances is not None:
            posterior = model.prior + model.around(means, total_weight * weights)
        else:
            posterior = located()
        if weights is None and means is None and covariances is None:
            return posterior
        return starts.from_parameters(
            model,
            posterior,
            method.read,
            weights=weights,
            means=means,
            covariances=covariances,
        )

    # -- attributes ---------------------------------------------------------------------------

    def _posterior_attributes(
        self, model: Model, posterior: Stats, method: Method
    ) -> dict[str, Any]:
        """What scikit-learn's BayesianGaussianMixture tells of q(theta)."""
        if method.read != "mean":
            return {}
        weights = model.latent.distribution(posterior)
        if isinstance(weights, StickBreaking):
            prior = model.latent.concentration or 1.0
            concentration: Any = (np.append(weights.a, 1.0), np.append(weights.b, prior))
        else:
            concentration = weights.concentration.copy()
        dof = posterior["dof"] / model.emission._rows_per_dof
        return {
            "weight_concentration_": concentration,
            "mean_precision_": posterior["strength"].copy(),
            "degrees_of_freedom_": float(dof[0]) if self.covariance_type == "tied" else dof,
        }

    # -- predictions --------------------------------------------------------------------------

    _density: PointDensity | DrawnDensity

    @property
    def _current_density(self) -> PointDensity | DrawnDensity:
        """The density that was fitted; that of the parameters if somebody has set them since."""
        covariance_type, arrays = getattr(self, "_made", (None, ()))
        now = (self.weights_, self.means_, self.precisions_cholesky_)
        if covariance_type == self.covariance_type and (
            all(map(_kernels.columns.same, now, arrays)) or all(map(np.array_equal, now, arrays))
        ):
            return self._density
        weights = as_array("weights_", self.weights_, (len(self.means_),))
        frame, gaussians = self._gaussians_as_they_are()
        return PointDensity(frame, self.covariance_type, weights, gaussians)

    def __sklearn_is_fitted__(self) -> bool:
        state = vars(self)
        return "weights_" in state and "means_" in state and "precisions_cholesky_" in state

    def _prepare(self, X: ArrayLike) -> tuple[PointDensity | DrawnDensity, NDArray[Any], int]:
        """Density, rows and threads of a prediction, checked."""
        self._check_is_fitted()
        values = self._rows(X, np.shape(self.means_)[-1])
        # So few rows are never shared out: no need to ask the system for processors.
        few = self.n_threads is None and len(values) <= 32
        threads = 1 if few else resolve_threads(self.n_threads)
        check_finite(values, threads)
        return self._current_density, values, threads

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probability of each component for each row.

        p(t | x, theta) for a point estimate, q(t) for mean field, p(t | x, X) averaged over
        (relabelled) draws for full inference.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N, K)
            Rows sum to 1, for a row however far away.
        """
        density, values, threads = self._prepare(X)
        return density.responsibilities(values, threads)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable component of each row, (N,)."""
        density, values, threads = self._prepare(X)
        return density.labels(values, threads)

    def score_samples(self, X: ArrayLike) -> Array:
        """Log density of each row, in nats.

        log p(x | theta) for a point estimate; the log posterior predictive density for mean field
        (a mixture of Student's t, Bishop 10.81) and full inference (averaged over draws).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N,)
        """
        density, values, threads = self._prepare(X)
        return density.log_density(values, threads)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean of `score_samples(X)`: log density per row, in nats."""
        return float(self.score_samples(X).mean())

    def co_assignment(self, X: ArrayLike) -> Array:
        """Probability that two rows share a component, (N, N): free of the components' order.

        From `predict_proba` for a point estimate and mean field; averaged over draws for full
        inference.

        Parameters
        ----------
        X : array-like of shape (N, D)
        """
        density, values, threads = self._prepare(X)
        together = density.co_assignment(values, threads)
        np.fill_diagonal(together, 1.0)
        return np.minimum(together, 1.0)

    def sample(self, n_samples: int = 1) -> tuple[Array, NDArray[np.int64]]:
        """Draw rows from the density that `score_samples` tells of.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        X : ndarray of shape (n_samples, D)
        y : ndarray of shape (n_samples,)
            Components.
        """
        self._check_is_fitted()
        check_number("n_samples", n_samples, whole=True, least=1)
        return self._current_density.sample(n_samples, as_generator(self.random_state))

    def _n_parameters(self) -> int:
        """Free parameters: weights, means and covariances."""
        k, d = self.means_.shape
        covariances = {
            "full": k * d * (d + 1) // 2,
            "tied": d * (d + 1) // 2,
            "diag": k * d,
            "spherical": k,
        }
        return k - 1 + k * d + covariances[self.covariance_type]

    def bic(self, X: ArrayLike) -> float:
        """Bayesian information criterion, -2 log p(X | theta) + p log N: the lower the better."""
        log_density = self.score_samples(X)
        return float(-2 * log_density.sum() + self._n_parameters() * np.log(len(log_density)))

    def aic(self, X: ArrayLike) -> float:
        """Akaike's information criterion, -2 log p(X | theta) + 2 p: the lower the better."""
        return float(-2 * self.score_samples(X).sum() + 2 * self._n_parameters())

    def icl(self, X: ArrayLike) -> float:
        """Integrated completed likelihood: BIC + twice the entropy of the responsibilities.

        Biernacki, Celeux & Govaert (2000), in BIC's sign: the lower the better.
        """
        return self.bic(X) + 2 * float(entr(self.predict_proba(X)).sum())


_DOC = """{summary}

    Parameters
    ----------
    n_components : int
        K.
    method : {{"em", "mean_field", "full", "variational_em", "crisp_em"}} or object
        By name, with `max_iter` and `tol` from here; or an object that brings its own, such as
        ``vbfast.VariationalEM(truncation=3)`` or ``vbfast.FullInference(n_draws=2000)``. Slow
        climbs are accelerated; ``vbfast.EM(acceleration=None)`` takes plain updates alone.
    covariance_type : {{"full", "tied", "diag", "spherical"}}
    tol : float
        Stop when the objective changes by no more than this a row (nats).
    reg_covar : float
        Added to the diagonal of covariances, in units of each feature's variance in X (of 1 for
        a constant feature). All objectives stay monotone: each row is taken for a cloud of this
        variance.
    max_iter : int
        Sweeps over the data at most, after the first, for methods given by name.
    n_init : int
        Starts, of which the best objective is kept: all climb to their ends, several at a time in
        each pass over X. Full inference starts each chain anew instead.
    init_params : {{"kmeans", "k-means++", "random", "random_from_data"}}
        Rows start in the component of the nearest centroid (after k-means; of those that
        k-means++ chose; of rows drawn), or in a random one. Distances are in units of each
        feature's standard deviation (spherical: of one for all).
    weights_init, means_init, precisions_init : array-like, optional
        (K,), (K, D), and in the shape of `precisions_`; these take the place of what
        `init_params` gives.
    weight_concentration_prior_type : {{"dirichlet_distribution", "dirichlet_process"}}
        Dirichlet(alpha, ..., alpha), or sticks v_k ~ Beta(1, alpha) truncated at K with v_K = 1.
    weight_concentration_prior : float, optional
        alpha. A point estimate needs alpha >= 1.
    mean_precision_prior : float, optional
        kappa_0: how many rows the prior mean is worth.
    mean_variance_prior : array-like of shape (D,) or float, optional
        In place of mean_precision_prior: mu ~ N(mean_prior, mean_variance_prior), independent of
        Lambda. For "diag" and "spherical".
    mean_prior : array-like of shape (D,), optional
    degrees_of_freedom_prior : float, optional
        nu_0 > D - 1; a point estimate needs nu_0 >= D.
    covariance_prior : array-like, optional
        W_0^-1: (D, D) for "full" and "tied", (D,) for "diag", a number for "spherical".
    random_state : None, int, numpy.random.Generator or numpy.random.RandomState
    warm_start : bool
        Start from the last fit's parameters.
    verbose, verbose_interval : int
    n_threads : int, optional
        None takes the smallest of CPU affinity, cgroup quota and OMP_NUM_THREADS. Results have
        the same bits for every number.
{defaults}

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : ndarray
        As scikit-learn's. theta_MP for a point estimate; under q(theta) E[pi], E[mu],
        E[Lambda]^-1 for mean field, and the same over relabelled draws for full inference.
    objective_ : float
        Of the whole data, in nats, with all constants: the evidence lower bound for mean field,
        log p(X | theta) + log p(theta) for EM, free energy + log p(theta) for variational EM,
        log p(X, T | theta) + log p(theta) for crisp EM, the largest log p(X, T, theta) drawn for
        full inference. A flat prior adds nothing; `reg_covar` takes half of tr(cloud Lambda) from
        each row's log density.
    lower_bound_ : float
        The same{unit}.
    lower_bounds_ : ndarray
        The best after 0, 1, ..., n_iter_ sweeps (full inference: of each draw).
    converged_ : bool
    n_iter_ : int
        Sweeps over the data after the first: updates, and steps of `acceleration` refused.
    method_ : object
        The method as it was used.
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X is a data frame with names.
    weight_concentration_prior_, mean_precision_prior_, mean_variance_prior_, mean_prior_
    degrees_of_freedom_prior_, covariance_prior_
        Priors as used; None where flat.
    weight_concentration_, mean_precision_, degrees_of_freedom_
        Of q(theta), with mean field.
    draws_ : dict of ndarray
        With full inference: "weights" (chain, draw, K), "means" (chain, draw, K, D),
        "covariances" (chain, draw, ...), "log_joint" (chain, draw), relabelled.
    log_evidence_, log_evidence_se_ : float
        With full inference: estimate of log p(X) and its standard error (Chib 1995, averaged over
        the components' orders; NaN for more than 12 components).
    r_hat_ : float
        With full inference: split R-hat of the log joint, NaN for fewer than 4 draws a chain;
        `converged_` is r_hat_ < 1.05.

    Notes
    -----
    The joint mode is taken in (weights, mu, Lambda): Bishop (2006), chapter 9; mean field: his
    section 10.2; blocked Gibbs sampling: Diebolt & Robert (1994). A component that holds no row
    has weight 0 (flat prior) and takes the mean and variances of all rows.
    """


class GaussianMixture(_GaussianMixtureBase):  # noqa: D101
    __doc__ = _DOC.format(
        summary="Gaussian mixture; by default maximum likelihood by EM.",
        defaults="""
    Priors that are not given are flat for EM, variational EM and crisp EM, and those of
    `BayesianGaussianMixture` for mean field and full inference, which need proper ones.""",
        unit=" per row (unit of weight), as in scikit-learn",
    )
    _informative = False
    _bound_per_row = True

    def __init__(
        self,
        n_components: int = 1,
        *,
        method: MethodName | Method = "em",
        covariance_type: CovarianceType = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: starts.Init = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        weight_concentration_prior_type: WeightPrior = "dirichlet_distribution",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_variance_prior: ArrayLike | None = None,
        mean_prior: ArrayLike | None = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        n_threads: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_variance_prior = mean_variance_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.n_threads = n_threads


class BayesianGaussianMixture(_GaussianMixtureBase):  # noqa: D101
    __doc__ = _DOC.format(
        summary="Gaussian mixture with priors; by default mean field.",
        defaults="""
    Priors that are not given are scikit-learn's for every method: alpha = 1/K (1 for a point
    estimate, which needs a mode), kappa_0 = 1, the mean of X, nu_0 = D, the covariance of X.""",
        unit=", as in scikit-learn",
    )
    _informative = True
    _bound_per_row = False

    def __init__(
        self,
        n_components: int = 1,
        *,
        method: MethodName | Method = "mean_field",
        covariance_type: CovarianceType = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: starts.Init = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        weight_concentration_prior_type: WeightPrior = "dirichlet_process",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_variance_prior: ArrayLike | None = None,
        mean_prior: ArrayLike | None = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        n_threads: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_variance_prior = mean_variance_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.n_threads = n_threads
