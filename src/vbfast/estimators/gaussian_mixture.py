"""Gaussian mixtures by every method, with scikit-learn's parameters and attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import starts
from ..answers import AveragedMixture, Expected, Known
from ..data import ArrayData, Frame
from ..emissions import Gaussian
from ..emissions.gaussian import CovarianceType
from ..latents import Mixture
from ..latents.mixture import WeightPrior
from ..methods import Fit, FullInference, Method
from ..model import Model, Theta
from ..stats import Stats
from .base import MethodName, unchanged
from .checks import (
    as_probabilities,
    check_distance,
    check_memory,
)
from .gaussian_parameters import (
    FARTHEST_START,
    SPREAD,
    GaussianParameters,
    SettableCovariances,
    covariances_of,
    n_free,
)
from .mixture import MixtureBase

__all__ = ["BayesianGaussianMixture", "GaussianMixture"]

Array = NDArray[np.float64]


# What predictions are made from, or should be, and somebody may set by hand or change in place.
_SETTABLE = ("weights_", "means_", *SPREAD)


class _GaussianMixtureBase(SettableCovariances, MixtureBase, GaussianParameters):
    """All that the two estimators share; they differ in defaults and one unit."""

    # -- fitting ------------------------------------------------------------------------------

    def _data(self, X: ArrayLike, sample_weight: ArrayLike | None) -> ArrayData:
        isotropic = self.covariance_type == "spherical"
        return ArrayData.of(X, sample_weight, isotropic=isotropic, n_threads=self.n_threads)

    def _model_of(self, data: ArrayData, method: Method) -> tuple[Model, dict[str, Any]]:
        return self._model(data.frame, method, lambda: self._covariance_of(data))

    def _given(self, data: ArrayData) -> dict[str, Array | None]:
        return self._given_parameters(data.frame)

    def _keep_with_frame(self, fitted: dict[str, Any], frame: Frame, method: Method) -> None:
        arrays = fitted["weights_"].copy(), fitted["means_"].copy(), *fitted["_spread"]
        fitted["_made"] = (self.covariance_type, arrays)
        fitted["n_features_in_"] = len(frame.origin)
        fitted["_frame"] = frame
        self._keep(fitted, method)

    def _climbed(
        self, model: Model, frame: Frame, total_weight: float, method: Any, best: Fit[Theta]
    ) -> dict[str, Any]:
        """Attributes that tell where a method that climbs ended."""
        posterior, theta = best.posterior, best.theta
        plain = model.emission.plain
        answers = Known(model.latent, plain, theta.weights, theta.parameters)
        weights, parameters = theta.weights, theta.parameters
        if method.read == "mean":
            distribution = model.emission.distribution(posterior.copy())
            weights, parameters = model.latent.distribution(posterior).mean(), distribution.mean()
            answers = Expected(
                model.latent, plain, theta.weights, theta.parameters, weights, distribution
            )
        return {
            "weights_": weights,
            **self._gaussian_attributes(frame, parameters),
            **self._told_of_posterior(model, posterior, method),
            **self._ended(best, total_weight),
            "_answers": answers,
        }

    def _drawn(
        self,
        model: Model,
        theta: dict[str, Array],
        of: NDArray[np.int64],
        orders: NDArray[np.int64],
    ) -> dict[str, Any]:
        frame, k = model.emission.units, model.latent.n_components
        weights, means = theta["weights"][of, orders], theta["means"][of, orders]
        factors = theta["factors"]
        if self.covariance_type != "tied":
            factors = factors[of, orders]
        covariances = covariances_of(factors, self.covariance_type)
        parameters = model.emission.mean_of_draws(means, factors)
        raw_means = frame.origin + means / frame.scale
        raw_covariances = self._raw_covariances(frame, covariances)
        return {
            "weights_": weights.mean(axis=0),
            **self._gaussian_attributes(frame, parameters),
            "draws_": {
                "weights": weights,
                "means": raw_means.reshape(len(orders), k, -1),
                "covariances": raw_covariances,
            },
            "_answers": AveragedMixture(model.emission.plain, weights, (means, factors)),
        }

    # -- checks -------------------------------------------------------------------------------

    def _check_parameters(self) -> Method:
        self._check_gaussian_parameters()
        return self._check_mixture()

    def _check_memory(self, data: ArrayData, method: Method) -> None:
        k, d = int(self.n_components), data.values.shape[1]
        per_component = {"full": d * d, "tied": d, "diag": d, "spherical": d}[self.covariance_type]
        # Statistics of the fewest chunks, and some posteriors, thetas and attributes; and what an
        # acceleration remembers.
        n_copies = 8 + 12 + (20 if getattr(method, "acceleration", None) else 0)
        needed = 8.0 * k * (per_component + 2 * d) * n_copies
        if isinstance(method, FullInference):
            needed += 8.0 * method.n_chains * method.n_draws * k * (5 * per_component + 2 * k)
        what = f"n_components={k} with {d} features and covariance_type={self.covariance_type!r}"
        check_memory(needed, what)

    # -- model, priors, starts ----------------------------------------------------------------

    def _model(
        self, frame: Frame, method: Method, covariance: Callable[[], Array]
    ) -> tuple[Model, dict[str, Any]]:
        """Return the model with its priors, and the attributes that tell of them.

        ``covariance()`` is that of all rows, asked for where a prior takes it.
        """
        k = int(self.n_components)
        proper = self._informative or method.read != "mode"
        concentration = self._concentration(method, proper)
        emission, priors = self._emission(frame, method, proper, covariance)
        model = Model(Mixture(k, self.weight_concentration_prior_type, concentration), emission)
        return model, {"weight_concentration_prior_": concentration, **priors}

    def _given_parameters(self, frame: Frame) -> dict[str, Array | None]:
        """weights_init, means_init and the covariances of precisions_init, checked."""
        return {"weights": self._given_weights(), **self._given_gaussians(frame)}

    def _previous(self, data: ArrayData) -> dict[str, Array | None] | None:
        """Parameters of the last fit, for a warm start."""
        if not self.__sklearn_is_fitted__():
            return None
        k, d = int(self.n_components), data.values.shape[1]
        shapes = {"means_": (k, d), "precisions_cholesky_": self._parameter_shape(k, d)}
        for name, shape in shapes.items():
            last = np.shape(getattr(self, name))
            if last != shape:
                raise ValueError(
                    f"warm_start: the last fit had {name} of shape {last}, this one has {shape}; "
                    "set warm_start=False to start anew"
                )
        check_distance("warm_start: means_", np.asarray(self.means_), data.frame, FARTHEST_START)
        # What predictions are made from, too: whoever has set it.
        self._check_spread()
        frame, gaussians = self._gaussians_as_they_are()
        covariances = covariances_of(gaussians.factor, self.covariance_type)
        return {
            "weights": as_probabilities("weights_", self.weights_, (k,)),
            "means": frame.origin + gaussians.means,
            "covariances": self._raw_covariances(frame, covariances[None])[0],
        }

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

    def _told_of_posterior(self, model: Model, posterior: Stats, method: Method) -> dict[str, Any]:
        """What scikit-learn's BayesianGaussianMixture tells of q(theta)."""
        if method.read != "mean":
            return {}
        return {
            "weight_concentration_": self._weight_concentration(model, posterior),
            **self._posterior_attributes(model.emission.distribution(posterior.copy())),
        }

    # -- predictions --------------------------------------------------------------------------

    _answers: Known | AveragedMixture

    @property
    def _current_answers(self) -> Known | AveragedMixture:
        """Those of the fit; those of the parameters if somebody has set them since."""
        state = vars(self)
        covariance_type, arrays = state.get("_made", (None, ()))
        if covariance_type == self.covariance_type and unchanged(state, _SETTABLE, arrays):
            return self._answers
        self._check_is_fitted()
        self._check_spread()
        weights = as_probabilities("weights_", self.weights_, (len(self.means_),))
        frame, gaussians = self._gaussians_as_they_are()
        emission = Gaussian(len(frame.origin), self.covariance_type, frame=frame)
        return Known(Mixture(len(weights)), emission, weights, gaussians)

    def __sklearn_is_fitted__(self) -> bool:
        state = vars(self)
        return "weights_" in state and "means_" in state and "precisions_cholesky_" in state

    @property
    def n_parameters(self) -> int:
        """Free parameters: weights, means and covariances."""
        k, d = np.shape(self.means_)
        return k - 1 + n_free(self.covariance_type, k, d)


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
    tol : float, optional
        Stop when an update changes the objective by no more than this a row (nats), and by less
        than the one before. Where not given: when no more than 0.001 nats in total are left to
        gain, as the last updates foretell it.
    reg_covar : float
        Added to the diagonal of covariances, in units of each feature's variance in X (of 1 for
        a constant feature). All objectives stay monotone: each row is taken for a cloud of this
        variance.
    max_iter : int
        Sweeps over the data at most, after the first, for methods given by name; 0 is a start only.
    n_init : int
        Starts, of which the best objective is kept: all climb to their ends, several at a time in
        each pass over X; of "auto", races. Full inference starts each chain anew instead.
    init_params : {{"auto", "kmeans", "whitened", "k-means++", "random", "random_from_data"}}
        "auto" lets some starts of each of the other kinds race, on a part of the rows where there
        are many, and the best few climb to their ends. Else rows start in the component of the
        nearest centroid (after k-means; after k-means where the covariance of all rows is 1; of
        those that k-means++ chose; of rows drawn), or in a random one. Distances are in units of
        each feature's standard deviation (spherical: of one for all).
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
        each row's log density, so that N `score(X)`, of rows that are points, is larger than EM's
        with flat priors too.
    lower_bound_ : float
        The same{unit}.
    lower_bounds_ : ndarray
        The best after 0, 1, ..., n_iter_ sweeps (full inference: of each draw); -inf where that
        of a start is beyond the range of float64.
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
        With full inference: estimate of log p(X) and its standard error, by Chib's identity (1995,
        averaged over the components' orders) or by bridge sampling, whichever has the less error.
        NaN, with a ConvergenceWarning that says why, where the two contradict each other or a bound
        that is known; and NaN for more than 12 components.
    r_hat_ : float
        With full inference: the largest rank-normalised split R-hat (Vehtari et al. 2021) of the
        log joint and of the weights in order of size, NaN for fewer than 4 draws a chain;
        `converged_` is r_hat_ < 1.05.
    effective_sample_size_ : float
        With full inference: of the same, how many independent draws the least tells as much as.

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
        tol: float | None = None,
        reg_covar: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: starts.Init = "auto",
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
        tol: float | None = None,
        reg_covar: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: starts.Init = "auto",
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
