"""Gaussian mixtures by every method, with scikit-learn's parameters and attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels, starts
from .._kernels.inputs import Assignment
from ..conjugate import Gaussians, point, precision_factors
from ..data import ArrayData, Frame
from ..densities import DrawnDensity, MeanFieldDensity, PointDensity
from ..emissions import Gaussian
from ..emissions.gaussian import CovarianceType
from ..latents import Mixture
from ..latents.mixture import WeightPrior
from ..methods import Fit, FullInference, Method
from ..model import Model, Theta
from ..stats import Stats
from .base import MethodName
from .checks import (
    as_array,
    available_memory,
    check_choice,
    check_distance,
    check_number,
    check_positive,
)
from .mixture import MixtureBase

__all__ = ["BayesianGaussianMixture", "GaussianMixture"]

Array = NDArray[np.float64]

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")

# What predictions are made from, and somebody may set by hand.
_PARAMETER_NAMES = ("weights_", "means_", "precisions_cholesky_")
# Bytes that no fit is refused for.
LITTLE_MEMORY = 2.0**26
# Standard deviations of the data between its mean and one to start from, whose squares keep half
# of their digits; or a prior's, whose squares don't overflow.
FARTHEST_START, FARTHEST_PRIOR = 1e8, 1e100
# Precisions to start from, in units of the data's.
LEAST_PRECISION, MOST_PRECISION = 1e-100, 1e25


class _GaussianMixtureBase(MixtureBase):
    """All that the two estimators share; they differ in defaults and one unit."""

    # Set by the subclasses' constructors.
    covariance_type: CovarianceType
    reg_covar: float
    means_init: ArrayLike | None
    precisions_init: ArrayLike | None
    mean_precision_prior: float | None
    mean_variance_prior: ArrayLike | None
    mean_prior: ArrayLike | None
    degrees_of_freedom_prior: float | None
    covariance_prior: ArrayLike | None
    warm_start: bool

    # Set by fit.
    means_: Array
    covariances_: Array
    precisions_: Array
    precisions_cholesky_: Array

    # -- fitting ------------------------------------------------------------------------------

    def _data(self, X: ArrayLike, sample_weight: ArrayLike | None) -> ArrayData:
        isotropic = self.covariance_type == "spherical"
        return ArrayData.of(X, sample_weight, isotropic=isotropic, n_threads=self.n_threads)

    def _model_of(self, data: ArrayData, method: Method) -> tuple[Model, dict[str, Any]]:
        return self._model(data.frame, method, lambda: self._covariance_of(data))

    def _given(self, data: ArrayData) -> dict[str, Array | None]:
        return self._given_parameters(data.frame)

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
            **self._parameter_attributes(frame, weights, parameters),
            **self._posterior_attributes(model, posterior, method),
            **self._ended(best, total_weight),
            "_density": density,
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
        covariances = _covariances(factors, self.covariance_type)
        if self.covariance_type in ("full", "tied"):
            mean_precision = np.einsum("ngji,ngjk->gik", factors, factors) / len(factors)
            mean_factor = precision_factors(np.linalg.inv(mean_precision))
        else:
            mean_factor = np.sqrt((factors**2).mean(axis=0))
        parameters = point(means.mean(axis=0), mean_factor)
        raw_means = frame.origin + means / frame.scale
        raw_covariances = self._raw_covariances(frame, covariances)
        return {
            **self._parameter_attributes(frame, weights.mean(axis=0), parameters),
            "draws_": {
                "weights": weights,
                "means": raw_means.reshape(len(orders), k, -1),
                "covariances": raw_covariances,
            },
            "_density": DrawnDensity(frame, self.covariance_type, weights, means, factors),
        }

    # -- checks -------------------------------------------------------------------------------

    def _check_parameters(self) -> Method:
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        check_number("reg_covar", self.reg_covar, least=0)
        check_number("mean_precision_prior", self.mean_precision_prior, above=0, optional=True)
        check_number("degrees_of_freedom_prior", self.degrees_of_freedom_prior, above=0,
                     optional=True)  # fmt: skip
        if not isinstance(self.warm_start, (bool, np.bool_)):
            raise TypeError(f"warm_start must be True or False, not {self.warm_start!r}")
        return self._check_mixture()

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
        d, k = len(frame.origin), self.n_components
        proper = self._informative or method.read != "mode"
        concentration = self._concentration(method, proper)
        dof = self.degrees_of_freedom_prior
        if dof is None:
            dof = float(d) if proper else None
        elif dof <= d - 1:
            raise ValueError(
                f"degrees_of_freedom_prior must be greater than {d - 1} (features - 1), not {dof!r}"
            )
        elif dof < d and method.read == "mode":
            raise ValueError(
                f"degrees_of_freedom_prior={dof!r} is below {d}, the number of features: p(theta) "
                f"then has no mode for {method.name!r} to find"
            )
        mean_precision = self.mean_precision_prior
        mean_variance = self._mean_variance_prior(d)
        if mean_precision is None and mean_variance is None:
            mean_precision = 1.0 if proper or self.mean_prior is not None else None
        mean = self._mean_prior(frame)
        if mean is None and not (mean_precision is None and mean_variance is None):
            mean = frame.origin.copy()
        scatter = self._covariance_prior(d)
        if scatter is None and proper:
            scatter = covariance()
        emission = Gaussian(
            d,
            self.covariance_type,
            mean_prior=mean,
            mean_precision=mean_precision,
            mean_variance=mean_variance,
            degrees_of_freedom=dof,
            scatter=scatter,
            reg_covar=self.reg_covar,
            frame=frame,
        )
        model = Model(Mixture(k, self.weight_concentration_prior_type, concentration), emission)
        return model, {
            "weight_concentration_prior_": concentration,
            "mean_precision_prior_": mean_precision,
            "mean_variance_prior_": mean_variance,
            "mean_prior_": mean,
            "degrees_of_freedom_prior_": dof,
            "covariance_prior_": scatter,
        }

    def _mean_prior(self, frame: Frame) -> Array | None:
        if self.mean_prior is None:
            return None
        mean = as_array("mean_prior", self.mean_prior, frame.origin.shape)
        check_distance("mean_prior", mean, frame, FARTHEST_PRIOR)
        return mean

    def _mean_variance_prior(self, d: int) -> Array | None:
        if self.mean_variance_prior is None:
            return None
        if self.mean_precision_prior is not None:
            raise ValueError("give mean_precision_prior or mean_variance_prior, not both")
        if self.covariance_type not in ("diag", "spherical"):
            raise ValueError(
                "mean_variance_prior is for covariance_type 'diag' and 'spherical', not "
                f"{self.covariance_type!r}, which has mean_precision_prior"
            )
        shape = () if np.ndim(self.mean_variance_prior) == 0 else (d,)
        variance = as_array("mean_variance_prior", self.mean_variance_prior, shape)
        check_positive("mean_variance_prior", variance, False)
        return variance

    def _covariance_prior(self, d: int) -> Array | None:
        if self.covariance_prior is None:
            return None
        shape = {"full": (d, d), "tied": (d, d), "diag": (d,), "spherical": ()}
        scatter = as_array("covariance_prior", self.covariance_prior, shape[self.covariance_type])
        check_positive("covariance_prior", scatter, self.covariance_type in ("full", "tied"))
        return scatter

    def _covariance_of(self, data: ArrayData) -> Array:
        """Covariance of all rows, in the shape of a prior's."""
        emission = Gaussian(data.values.shape[1], self.covariance_type, frame=data.frame)
        whole = Model(Mixture(1), emission)
        about = whole.about(np.zeros((1, data.values.shape[1])))
        stats = data.sum(whole.visit, about, Assignment("hard", precise=True))
        frame = data.frame
        return self._empirical_covariance(
            stats["scatter"][0], np.asarray(data.total_weight), frame.scale, frame.variance
        )

    def _empirical_covariance(
        self, scatter: Array, total_weight: Array, scale: Array, variance: Array
    ) -> Array:
        """Covariance of all rows of one or more data sets, in the units of the data.

        With a part of the variance where it is singular. All arguments have the data sets first:
        scatter (..., D, D), (..., D) or (..., 1) in the frames' units; frames (..., D).
        """
        d = scale.shape[-1]
        # Less than a row stands for itself.
        each = np.maximum(total_weight - 1, np.minimum(total_weight, 1))[..., None]
        part = max(self.reg_covar, 1e-12)
        if self.covariance_type in ("full", "tied"):
            scatter = scatter / each[..., None]
            smallest = np.linalg.eigvalsh(scatter)[..., 0]
            trace = np.trace(scatter, axis1=-2, axis2=-1)
            singular = smallest <= d * np.finfo(float).eps * trace
            scatter = scatter + singular[..., None, None] * part * (variance[..., None] * np.eye(d))
            return np.asarray(scatter / scale[..., :, None] / scale[..., None, :])
        scatter = scatter / each
        if self.covariance_type == "spherical":
            scatter = scatter[..., 0] / d
            floor = part * variance.mean(axis=-1)
            return np.asarray(np.where(scatter > 0, scatter, floor) / scale[..., 0] ** 2)
        return np.asarray(np.where(scatter > 0, scatter, part * variance) / scale**2)

    def _parameter_shape(self, k: int, d: int) -> tuple[int, ...]:
        """Shape of covariances and precisions."""
        shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
        return shapes[self.covariance_type]

    def _given_parameters(self, frame: Frame) -> dict[str, Array | None]:
        """weights_init, means_init and the covariances of precisions_init, checked."""
        k, d = self.n_components, len(frame.origin)
        weights, means, covariances = self._given_weights(), None, None
        if self.means_init is not None:
            means = as_array("means_init", self.means_init, (k, d))
            check_distance("means_init", means, frame, FARTHEST_START)
        if self.precisions_init is not None:
            precisions = as_array(
                "precisions_init", self.precisions_init, self._parameter_shape(k, d)
            )
            matrices = self.covariance_type in ("full", "tied")
            check_positive("precisions_init", precisions, matrices)
            self._check_precisions(precisions, frame)
            covariances = np.asarray(np.linalg.inv(precisions) if matrices else 1 / precisions)
        return {"weights": weights, "means": means, "covariances": covariances}

    def _check_precisions(self, precisions: Array, frame: Frame) -> None:
        """Raise ValueError where a variance is out of all proportion to that of the data."""
        matrices = self.covariance_type in ("full", "tied")
        each = np.diagonal(precisions, axis1=-2, axis2=-1) if matrices else precisions
        scale = frame.scale[0] if self.covariance_type == "spherical" else frame.scale
        with np.errstate(over="ignore", under="ignore"):
            relative = each / scale / scale
        bad = np.argwhere(~((relative >= LEAST_PRECISION) & (relative <= MOST_PRECISION)))
        if len(bad):
            index = [int(i) for i in bad[0]]
            where = index + index[-1:] if matrices else index
            raise ValueError(
                f"precisions_init{where} is {each[tuple(index)]:g}, {relative[tuple(index)]:g} "
                f"times that of X; {LEAST_PRECISION:g} to {MOST_PRECISION:g} times are allowed"
            )

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
        frame, d = model.emission.units, model.emission.n_features
        weights, means, covariances = given["weights"], given["means"], given["covariances"]
        if means is not None:
            means = (means - frame.origin) * frame.scale
        if covariances is not None:
            if self.covariance_type in ("full", "tied"):
                covariances = covariances * frame.scale[:, None] * frame.scale
                covariances = covariances.reshape(-1, d, d)
            elif self.covariance_type == "diag":
                covariances = covariances * frame.scale**2
            else:
                covariances = (covariances * frame.scale[0] ** 2)[:, None]
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

    def _raw_covariances(self, frame: Frame, covariances: Array) -> Array:
        """(draws, groups, ...) in the frame's units to scikit-learn's shapes in the data's."""
        if self.covariance_type in ("full", "tied"):
            raw = covariances / frame.scale[:, None] / frame.scale
            return np.asarray(raw[:, 0] if self.covariance_type == "tied" else raw)
        if self.covariance_type == "diag":
            return np.asarray(covariances / frame.scale**2)
        return np.asarray(covariances[..., 0] / frame.scale[0] ** 2)

    def _parameter_attributes(
        self, frame: Frame, weights: Array, gaussians: Gaussians
    ) -> dict[str, Any]:
        factor = gaussians.factor
        covariances = _covariances(factor, self.covariance_type)
        covariances = self._raw_covariances(frame, covariances[None])[0]
        if self.covariance_type in ("full", "tied"):
            cholesky = np.ascontiguousarray(np.swapaxes(factor * frame.scale, 1, 2))
            precisions = cholesky @ np.swapaxes(cholesky, 1, 2)
            if self.covariance_type == "tied":
                cholesky, precisions = cholesky[0], precisions[0]
        else:
            cholesky = factor * frame.scale if self.covariance_type == "diag" else (
                factor[:, 0] * frame.scale[0]
            )  # fmt: skip
            precisions = cholesky**2
        return {
            "weights_": weights,
            "means_": frame.origin + gaussians.means / frame.scale,
            "covariances_": covariances,
            "precisions_": precisions,
            "precisions_cholesky_": cholesky,
        }

    def _posterior_attributes(
        self, model: Model, posterior: Stats, method: Method
    ) -> dict[str, Any]:
        """What scikit-learn's BayesianGaussianMixture tells of q(theta)."""
        if method.read != "mean":
            return {}
        dof = posterior["dof"] / model.emission._rows_per_dof
        return {
            "weight_concentration_": self._weight_concentration(model, posterior),
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
        k, d = np.shape(self.means_)
        weights = as_array("weights_", self.weights_, (k,))
        means = as_array("means_", self.means_, (k, d))
        cholesky = as_array(
            "precisions_cholesky_", self.precisions_cholesky_, self._parameter_shape(k, d)
        )
        if self.covariance_type in ("full", "tied"):
            factor = np.ascontiguousarray(np.swapaxes(cholesky.reshape(-1, d, d), 1, 2))
        else:
            factor = cholesky.reshape(k, -1)
        frame = Frame(means.mean(axis=0), np.ones(d), np.ones(d))
        gaussians = point(means - frame.origin, factor)
        return PointDensity(frame, self.covariance_type, weights, gaussians)

    def __sklearn_is_fitted__(self) -> bool:
        state = vars(self)
        return "weights_" in state and "means_" in state and "precisions_cholesky_" in state

    @property
    def _n_features(self) -> int:
        return int(np.shape(self.means_)[-1])

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


def _covariances(factor: Array, covariance_type: CovarianceType) -> Array:
    """Covariances of precision factors, for any number of leading axes."""
    if covariance_type in ("full", "tied"):
        root = np.linalg.inv(factor)
        return np.asarray(root @ np.swapaxes(root, -1, -2))
    return np.asarray(factor**-2.0)


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
