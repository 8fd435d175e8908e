"""Mixtures of any emission by every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import starts
from ..answers import AveragedMixture, Expected, Known
from ..data import ArrayData, Frame
from ..emissions.gaussian import CovarianceType
from ..latents import Mixture
from ..latents.mixture import WeightPrior
from ..methods import Fit, FullInference, Method
from ..model import Model, Theta
from ..stats import Stats
from .base import Estimator, MethodName, unchanged
from .categories import Uncoded
from .checks import as_generator, as_probabilities, check_memory
from .discrete_parameters import DiscreteParameters
from .emission_parameters import (
    EMISSIONS,
    EmissionName,
    Missing,
    check_emission,
    is_product,
    names_several,
)
from .gaussian_mixture import _GaussianMixtureBase
from .gaussian_parameters import SettableCovariances
from .mixture import MixtureBase
from .product import EmissionPart, ProductParameters, imputing, parts_of

__all__ = ["EmissionName", "MixtureModel"]

Array = NDArray[np.float64]


class _Face:
    """What all faces have in common: they are pickled by the emission that they are of."""

    def __reduce__(self) -> tuple[Any, ...]:
        kind: Any = type(self)
        emission = next(name for name, each in _FACES.items() if each is kind)
        return _face_again, (emission, dict(vars(self)))


def _face_again(emission: str, attributes: dict[str, Any]) -> Any:
    kind = _FACES[emission]
    face = kind.__new__(kind)
    face.__dict__ = attributes
    return face


class _GaussianFace(_Face, _GaussianMixtureBase):
    """A mixture model's face for Gaussians: `GaussianMixture`."""

    _informative = False
    _bound_per_row = True
    _stacklevel = 5


class _DiscreteFace(_Face, MixtureBase, DiscreteParameters):
    """A mixture model's face for counts and symbols."""

    _informative = False
    _bound_per_row = True
    _stacklevel = 5

    # -- fitting ------------------------------------------------------------------------------

    def _check_parameters(self) -> Method:
        return self._check_mixture()

    def _data(self, X: ArrayLike, sample_weight: ArrayLike | None) -> ArrayData:
        return self._read(X, sample_weight=sample_weight)

    def _check_memory(self, data: ArrayData, method: Method) -> None:
        k, emission = int(self.n_components), self._plain(data.values)
        size = max(emission.width, 2) * data.values.shape[1]
        # Statistics of the fewest chunks, some posteriors and thetas, what acceleration remembers.
        needed = 8.0 * k * size * 40
        what = f"n_components={k} with {data.values.shape[1]} features"
        if emission.width:
            what += f" of up to {emission.width} categories"
        if isinstance(method, FullInference):
            needed += 8.0 * method.n_chains * method.n_draws * k * (5 * size + 2 * k)
            what += f", n_draws={method.n_draws} and n_chains={method.n_chains}"
        check_memory(needed, what)

    def _model_of(self, data: ArrayData, method: Method) -> tuple[Model, dict[str, Any]]:
        return self._model(self._emission_with_prior(data, method, method.read != "mode"), method)

    def _model(
        self, emission_and_priors: tuple[Any, dict[str, Any]], method: Method
    ) -> tuple[Model, dict[str, Any]]:
        """Return the model with its priors, and the attributes that tell of them."""
        emission, priors = emission_and_priors
        concentration = self._concentration(method, method.read != "mode")
        latent = Mixture(self.n_components, self.weight_concentration_prior_type, concentration)
        return Model(latent, emission), {"weight_concentration_prior_": concentration, **priors}

    def _given(self, data: ArrayData) -> dict[str, Array | None]:
        return self._given_for_emission(self._plain(data.values))

    def _given_for_emission(self, emission: Any) -> dict[str, Array | None]:
        return {"weights": self._given_weights(), "values": self._given_values(emission)}

    def _previous(self, data: ArrayData) -> dict[str, Array | None] | None:
        if not self.__sklearn_is_fitted__():
            return None
        values = self._current_values
        d = data.values.shape[1]
        expected = self._plain(data.values).unit(np.zeros((self.n_components, d)))
        shape = next(iter(expected.arrays.values())).shape
        if values.shape != shape:
            raise ValueError(
                f"warm_start: the last fit had parameters of shape {values.shape}, this one has "
                f"{shape}; set warm_start=False to start anew"
            )
        return {"weights": self.weights_, "values": values}

    @property
    def _current_values(self) -> Array:
        """Parameters (K, D, ...), as emissions have them: fitted, or set since."""
        set_since = self._as_set_since
        if set_since is None:
            return self._values
        (values,) = set_since.parameters.arrays.values()
        return np.asarray(values)

    def _start_from(
        self,
        model: Model,
        total_weight: float,
        given: dict[str, Array | None],
        method: Method,
        located: Callable[[], Stats],
    ) -> Stats:
        """Return the posterior of the given parameters; ``located()`` tells what is not given."""
        weights, values = given["weights"], given["values"]
        posterior = model.prior
        if weights is None or values is None:
            posterior = located()
        if values is not None:
            counts = posterior["strength"] - model.prior["strength"]
            if weights is not None:
                counts = total_weight * weights
            return model.prior + model.around(model.emission.parameters(values), counts)
        if weights is None:
            return posterior
        return starts.from_parameters(model, posterior, method.read, weights=weights)

    def _climbed(
        self, model: Model, frame: Frame, total_weight: float, method: Any, best: Fit[Theta]
    ) -> dict[str, Any]:
        posterior, theta, emission = best.posterior, best.theta, model.emission
        weights, parameters = theta.weights, theta.parameters
        answers = Known(model.latent, emission, weights, parameters)
        fitted = self._ended(best, total_weight)
        if method.read == "mean":
            distribution = emission.distribution(posterior.copy())
            weights = model.latent.distribution(posterior).mean()
            answers = Expected(
                model.latent, emission, theta.weights, parameters, weights, distribution
            )
            parameters = distribution.mean_point()
            fitted |= self._posterior_attributes(distribution)
            fitted["weight_concentration_"] = self._weight_concentration(model, posterior)
        (values,) = parameters.arrays.values()
        return fitted | self._told(weights, values) | {"_answers": answers}

    def _told(self, weights: Array, values: Array) -> dict[str, Any]:
        return {"weights_": weights, f"{self._parameter}_": self._shown(values), "_values": values}

    def _drawn(
        self,
        model: Model,
        theta: dict[str, Array],
        of: NDArray[np.int64],
        orders: NDArray[np.int64],
    ) -> dict[str, Any]:
        weights, values = theta["weights"][of, orders], theta[self._parameter][of, orders]
        return {
            **self._told(weights.mean(axis=0), values.mean(axis=0)),
            "draws_": {"weights": weights, self._parameter: self._shown(values)},
            "_answers": AveragedMixture(model.emission, weights, (values,)),
        }

    def _keep_with_frame(self, fitted: dict[str, Any], frame: Frame, method: Method) -> None:
        fitted["n_features_in_"] = len(frame.origin)
        fitted["_made"] = tuple(fitted[name].copy() for name in self._settable)
        self._keep(fitted, method)

    # -- predictions --------------------------------------------------------------------------

    _answers: Known | AveragedMixture
    _values: Array

    _made: tuple[Array, Array]

    @property
    def _settable(self) -> tuple[str, str]:
        """What predictions are made from, and somebody may set by hand."""
        return "weights_", f"{self._parameter}_"

    @property
    def _as_set_since(self) -> Known | None:
        """What the parameters say, checked, if somebody has set them since the fit."""
        state = vars(self)
        if "_made" in state and unchanged(state, self._settable, self._made):
            return None
        self._check_is_fitted()
        weights = as_probabilities("weights_", self.weights_, (np.size(self.weights_),))
        emission, parameters = self._as_they_are(len(weights))
        if emission.n_features != getattr(self, "n_features_in_", emission.n_features):
            raise ValueError(
                f"{self._parameter}_ must be of {self.n_features_in_} features, as X of the fit, "
                f"not of {emission.n_features}"
            )
        return Known(Mixture(len(weights)), emission, weights, parameters)

    @property
    def _current_answers(self) -> Known | AveragedMixture:
        return self._as_set_since or self._answers

    def __sklearn_is_fitted__(self) -> bool:
        return all(name in vars(self) for name in self._settable)

    @property
    def n_parameters(self) -> int:
        """Free parameters, weights among them."""
        k = len(self.weights_)
        return k - 1 + self._n_emission_parameters(self._current_answers.emission, k)


class _ProductFace(_Face, MixtureBase, Uncoded):
    """A mixture model's face for columns of several kinds."""

    _informative = False
    _bound_per_row = True
    _stacklevel = 5

    _product: ProductParameters
    _answers: Known | AveragedMixture
    _made: tuple[Array]

    # -- fitting ------------------------------------------------------------------------------

    def _check_parameters(self) -> Method:
        return self._check_mixture()

    def _coded(self, X: ArrayLike) -> tuple[ArrayLike, dict[str, Any]]:
        self._product = ProductParameters(self, X)
        return self._product._coded(X)

    def _data(self, X: ArrayLike, sample_weight: ArrayLike | None) -> ArrayData:
        return self._product._read(X, sample_weight=sample_weight)

    def _arranged(self, data: ArrayData) -> ArrayData:
        gaps = self._product.columns_with_gaps
        return data.by_gaps(gaps) if gaps else data

    def _check_memory(self, data: ArrayData, method: Method) -> None:
        k, d = int(self.n_components), data.values.shape[1]
        size = self._product.width(data) * d
        needed = 8.0 * k * size * 40
        if isinstance(method, FullInference):
            needed += 8.0 * method.n_chains * method.n_draws * k * (5 * size + 2 * k)
        check_memory(needed, f"n_components={k} with {d} features")

    def _model_of(self, data: ArrayData, method: Method) -> tuple[Model, dict[str, Any]]:
        proper = method.read != "mode"
        emission, _ = self._product._emission_with_prior(data, method, proper)
        concentration = self._concentration(method, proper)
        latent = Mixture(self.n_components, self.weight_concentration_prior_type, concentration)
        return Model(latent, emission), {"weight_concentration_prior_": concentration}

    def _given(self, data: ArrayData) -> dict[str, Array | None]:
        return {"weights": self._given_weights()}

    def _previous(self, data: ArrayData) -> None:
        return None

    def _start_from(
        self,
        model: Model,
        total_weight: float,
        given: dict[str, Array | None],
        method: Method,
        located: Callable[[], Stats],
    ) -> Stats:
        posterior = located()
        if given["weights"] is None:
            return posterior
        return starts.from_parameters(model, posterior, method.read, weights=given["weights"])

    def _climbed(
        self, model: Model, frame: Frame, total_weight: float, method: Any, best: Fit[Theta]
    ) -> dict[str, Any]:
        posterior, theta, emission = best.posterior, best.theta, model.emission
        weights, parameters, distribution = theta.weights, theta.parameters, None
        fitted = self._ended(best, total_weight)
        answers = Known(model.latent, emission.plain, weights, parameters)
        if method.read == "mean":
            distribution = emission.distribution(posterior.copy())
            weights = model.latent.distribution(posterior).mean()
            answers = Expected(
                model.latent, emission.plain, theta.weights, parameters, weights, distribution
            )
            parameters = emission.mean_point(posterior)
            fitted["weight_concentration_"] = self._weight_concentration(model, posterior)
        self._product._told_of(emission, parameters, distribution)
        return fitted | {"weights_": weights, "_answers": answers}

    def _drawn(
        self,
        model: Model,
        theta: dict[str, Array],
        of: NDArray[np.int64],
        orders: NDArray[np.int64],
    ) -> dict[str, Any]:
        k, emission = model.latent.n_components, model.emission
        weights = theta["weights"][of, orders]
        arrays = {
            name: part if part.shape[1] != k else part[of, orders]
            for name, part in theta.items()
            if name != "weights"
        }
        self._product._told_of(emission, emission.mean_of_draws(*arrays.values()))
        return {
            "weights_": weights.mean(axis=0),
            "draws_": {"weights": weights, **self._product._told_of_draws(emission, arrays)},
            "_answers": AveragedMixture(emission.plain, weights, tuple(arrays.values())),
        }

    def _keep_with_frame(self, fitted: dict[str, Any], frame: Frame, method: Method) -> None:
        fitted["n_features_in_"] = len(frame.origin)
        fitted["_made"] = (fitted["weights_"].copy(),)
        fitted["_product"] = self._product
        self._keep(fitted, method)

    # -- predictions --------------------------------------------------------------------------

    def _read_rows(self, X: ArrayLike) -> NDArray[Any]:
        return self._product._read_rows(X)

    def _codes(self, values: NDArray[Any]) -> NDArray[Any]:
        return self._product._codes(values)

    def _decoded(self, rows: NDArray[Any]) -> NDArray[Any]:
        return self._product._decoded(rows)

    @property
    def _current_answers(self) -> Known | AveragedMixture:
        """Those of the fit; at its parameters, where somebody has set the weights since."""
        state = vars(self)
        self._check_is_fitted()
        if unchanged(state, ("weights_",), self._made):
            return self._answers
        weights = as_probabilities("weights_", self.weights_, (np.size(self.weights_),))
        emission, parameters = self._product._as_they_are(len(weights))
        return Known(Mixture(len(weights)), emission, weights, parameters)

    def __sklearn_is_fitted__(self) -> bool:
        return vars(self).get("_product") is not None and "weights_" in vars(self)

    @property
    def n_parameters(self) -> int:
        """Free parameters, weights among them."""
        k = len(self.weights_)
        return k - 1 + self._product._n_emission_parameters(self._product.emission, k)


# Of the name that messages are to tell: that of the estimator that somebody made.
_FACES: dict[str, type[MixtureBase]] = {
    emission: type(
        "MixtureModel",
        (_GaussianFace,) if emission == "gaussian" else (parameters, _DiscreteFace),
        {},
    )
    for emission, parameters in EMISSIONS.items()
} | {"product": type("MixtureModel", (_ProductFace,), {})}


class MixtureModel(SettableCovariances, Estimator):
    """Mixture of Gaussians, counts, waiting times or symbols; by default maximum likelihood by EM.

    Features are independent given the component, but for Gaussians.

    Parameters
    ----------
    n_components : int
        K.
    emission : {"gaussian", "poisson", "exponential", "bernoulli", "categorical", "auto"} or list
        What rows of a component look like: `GaussianMixture`'s; counts 0, 1, 2, ...; waiting times
        and other numbers >= 0, of density rate exp(-rate x); zeros and ones; symbols, which are any
        integers or strings (latent classes). Of columns of several kinds a list of (name, columns)
        or (name, columns, parameters): columns are numbers, names, a slice, truths or a function of
        X that gives such; parameters a dict of `covariance_type`, `reg_covar` and priors of this
        part. Parts are independent given the component; columns in none are read past. "auto" takes
        columns by their types: floats, and whole numbers some of which are below 0, are Gaussian
        (diagonal), whole numbers counts, truths zeros and ones, all else symbols. Starts are
        sought (`init_params`); of what parameters start from only `weights_init` may be given.
    method : {"em", "mean_field", "full", "variational_em", "crisp_em"} or object
        By name, with `max_iter` and `tol` from here; or an object that brings its own, such as
        ``vbfast.FullInference(n_draws=2000)``.
    tol : float, optional
        Stop when an update changes the objective by no more than this a row (nats), and by less
        than the one before. Where not given: when no more than 0.001 nats in total are left to
        gain, as the last updates foretell it.
    max_iter : int
        Sweeps over the data at most, after the first, for methods given by name; 0 is a start only.
    n_init : int
        Starts, of which the best objective is kept; of "auto", races.
    init_params : {"auto", "kmeans", "whitened", "k-means++", "random", "random_from_data"}
        "auto" lets some starts of each of the other kinds race, on a part of the rows where there
        are many, and the best few climb to their ends. Else rows start in the component of the
        nearest centroid (after k-means; the same where the covariance of all rows is 1, of
        Gaussians; of those that k-means++ chose; of rows drawn), or in a random one. Counts are
        compared by 2 sqrt(x), waiting times by x^(1/4), symbols by being the same; a tenth of each
        component then is what all rows have in common.
    weights_init : array-like of shape (K,), optional
    means_init : array-like of shape (K, D), optional
        Means of Gaussians, of counts, of waiting times.
    precisions_init : array-like, optional
        For Gaussians: as `GaussianMixture` has it.
    probabilities_init : array-like of shape (K, D) or (K, D, C), optional
        Of ones; of symbols.
    weight_concentration_prior_type : {"dirichlet_distribution", "dirichlet_process"}
    weight_concentration_prior : float, optional
        As `GaussianMixture` has them: 1/K for mean field and full inference where not given.
    shape_prior, rate_prior : float or array-like of shape (D,), optional
        For counts and waiting times: rates ~ Gamma(shape, rate), both or neither. A point estimate
        needs shape >= 1. Where not given, mean field and full inference take 1 and, of counts, 1 /
        mean of X, of waiting times the mean (1 for a feature that is always 0): worth one row of
        that mean.
    concentration_prior : float or array-like, optional
        For symbols: Dirichlet(concentration), a number, (C,) or (D, C). For zeros and ones, a
        number, or two, of 0 and of 1. A point estimate needs 1 or more. Where not given, mean
        field and full inference take 1: all probabilities are equally likely.
    n_categories : int or array-like of D ints, optional
        Symbols are 0 ... C - 1, whether X has them or not; C of all features or of each.
    categories : sequence of integers or strings, or of D such sequences, optional
        Symbols of all features, or of each, whether X has them or not. Where neither this nor
        n_categories is given, those that X has.
    missing : {"error", "at_random"}
        Whether X may have what is missing, at random: NaN, None, pandas' NA, what a masked array
        masks, and -1 among symbols. It is integrated out: what is said of a row is of what was seen
        of it, and a row with nothing seen has the weights. Columns that are independent given
        the component are then parts, one by one (`parts_`); of Gaussians with "full" or "tied"
        covariances a row may miss any columns of the part, but with full inference, and with
        "spherical" ones, all of them or none. There `reg_covar` widens covariances by as much as
        where nothing is missing.
    covariance_type, reg_covar, mean_precision_prior, mean_variance_prior, mean_prior
    degrees_of_freedom_prior, covariance_prior
        For Gaussians: as `GaussianMixture` has them.
    random_state : None, int, numpy.random.Generator or numpy.random.RandomState
    warm_start : bool
        Start from the last fit's parameters.
    verbose, verbose_interval : int
    n_threads : int, optional
        None takes the smallest of CPU affinity, cgroup quota and OMP_NUM_THREADS. Results have
        the same bits for every number.

    Priors that are not given are flat for EM, variational EM and crisp EM.

    Attributes
    ----------
    weights_ : ndarray of shape (K,)
    rates_ : ndarray of shape (K, D)
        Of counts, and of waiting times, whose means are 1 / rates_.
    probabilities_ : ndarray of shape (K, D) or (K, D, C)
        Of ones; of symbols, 0 for those that a feature doesn't have.
    means_, covariances_, precisions_, precisions_cholesky_ : ndarray
        Of Gaussians.
    parts_ : tuple of EmissionPart
        Where `emission` names several: of each part `emission`, `columns`, and the attributes that
        it would have alone, read-only. `draws_` has "0.means", ... then, with the part's number.
    objective_ : float
        Of the whole data, in nats, with all constants: see `GaussianMixture`.
    lower_bound_ : float
        The same per row (unit of weight).
    lower_bounds_ : ndarray
        The best after 0, 1, ..., n_iter_ sweeps (full inference: of each draw); -inf where that
        of a start is beyond the range of float64.
    converged_ : bool
    n_iter_ : int
    method_ : object
        The method as it was used.
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X is a data frame with names.
    categories_ : list of D ndarrays
        Symbols of each feature, in the order that `probabilities_` has them: sorted, or as
        `categories` has them. Predictions refuse others.
    n_categories_ : ndarray of shape (D,)
        How many these are.
    weight_concentration_prior_, shape_prior_, rate_prior_, concentration_prior_
        Priors as used; None where flat.
    weight_concentration_, shape_, rate_, concentration_
        Of q(theta), with mean field: (K,), (K, D), (K, D), (K, D, C), C = 2 for zeros and ones.
    draws_ : dict of ndarray
        With full inference: "weights" (chain, draw, K), "rates" (chain, draw, K, D) or
        "probabilities" (chain, draw, K, D[, C]), "log_joint" (chain, draw), relabelled.
    log_evidence_, log_evidence_se_, r_hat_, effective_sample_size_ : float
        With full inference: as `GaussianMixture` has them.

    Notes
    -----
    Mixtures of exponential families by EM: McLachlan & Peel (2000), chapter 2; latent classes:
    Goodman (1974); Bernoulli mixtures: Bishop (2006), section 9.3.3. A component that holds no
    row has weight 0 (flat prior), and the parameters of all rows together. A rate, or a
    probability, of 0 is taken at its word: rows that no component can make have log probability
    -inf, and no most probable component.

    Predictions are made from `weights_` and `means_` with `precisions_cholesky_`, `rates_` or
    `probabilities_`, whoever has set them, with or without a fit; who sets `covariances_` or
    `precisions_` sets `precisions_cholesky_` as well.
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        emission: EmissionName | Sequence[tuple[Any, ...]] = "gaussian",
        method: MethodName | Method = "em",
        tol: float | None = None,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: starts.Init = "auto",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        probabilities_init: ArrayLike | None = None,
        weight_concentration_prior_type: WeightPrior = "dirichlet_distribution",
        weight_concentration_prior: float | None = None,
        shape_prior: ArrayLike | None = None,
        rate_prior: ArrayLike | None = None,
        concentration_prior: ArrayLike | None = None,
        n_categories: int | ArrayLike | None = None,
        categories: Any = None,
        missing: Missing = "error",
        covariance_type: CovarianceType = "full",
        reg_covar: float = 1e-6,
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
        self.emission = emission
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.probabilities_init = probabilities_init
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.shape_prior = shape_prior
        self.rate_prior = rate_prior
        self.concentration_prior = concentration_prior
        self.n_categories = n_categories
        self.categories = categories
        self.missing = missing
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
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

    def _face(self, emission: Any) -> Any:
        """This estimator as one of its emission: another class on the same attributes."""
        kind = _FACES["product" if names_several(emission) else emission]
        face = kind.__new__(kind)
        face.__dict__ = self.__dict__
        return face

    @property
    def _fitted(self) -> Any:
        """The face that was fitted, whatever `emission` says now."""
        now = self._now()
        now._check_is_fitted()
        return now._face(now._told_emission)

    _fitted_emission: Any

    @property
    def _told_emission(self) -> Any:
        """The emission that attributes tell of: what was fitted, or what somebody set them for."""
        told: Any = vars(self).get("_fitted_emission", self.emission)
        return told

    def __sklearn_is_fitted__(self) -> bool:
        told = self._told_emission
        known = names_several(told) or told in EMISSIONS
        return known and self._face(told).__sklearn_is_fitted__()

    @property
    def parts_(self) -> tuple[EmissionPart, ...]:
        """What the fit says of the columns of each kind, where `emission` names several."""
        return parts_of(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.emission != "gaussian"
        return tags

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
            types are converted to float64. Counts are whole numbers of any type, symbols also
            strings.
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
        ImpossibleRowError
            If the parameters to start from can't have made a row.
        DegenerateError
            If the likelihood of Gaussians has no bound, and nothing gives it one.
        MemoryError
            If the fit would need more memory than there is.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` came first, or chains disagree.
        """
        check_emission(self)
        last = vars(self).get("_fitted_emission", self.emission)
        if self.warm_start and last != self.emission:
            raise ValueError(
                f"warm_start: the last fit was of emission {last!r}, this one is of "
                f"{self.emission!r}; set warm_start=False to start anew"
            )
        face = self._face([] if is_product(self) else self.emission)
        # A fit finds things out on the way, which are the face's own until it has ended.
        face.__dict__ = dict(vars(self))
        face.fit(X, y, sample_weight, labels=labels)
        self._take_over(face)
        return self

    def _take_over(self, face: Any) -> None:
        """Have the attributes that a face was given by a fit."""
        told = face._product.told if is_product(self) else self.emission
        self.__dict__ = face.__dict__ | {"_fitted_emission": told}

    def fit_predict(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.int64]:
        """Fit, and return each row's most probable component, (N,)."""
        return self.fit(X, y, sample_weight).predict(X)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probability of each component for each row.

        p(t | x, theta) for a point estimate; q(t) for mean field, from E[log theta] under q(theta)
        (attributes, its means, give p(t | x, theta) there, which is not the same); p(t | x, X)
        averaged over (relabelled) draws for full inference.

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N, K)
            Rows sum to 1.

        Raises
        ------
        ImpossibleRowError
            If no component can have made a row.
        """
        return np.asarray(self._fitted.predict_proba(X))

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable component of each row, (N,); raises as `predict_proba` does."""
        return np.asarray(self._fitted.predict(X))

    def score_samples(self, X: ArrayLike) -> Array:
        """Log density or log probability of each row, in nats.

        log p(x | theta) for a point estimate; the log posterior predictive for mean field
        (mixtures of Student's t, of negative binomials, of Beta-Bernoulli or Dirichlet-categorical
        distributions) and full inference (averaged over draws).

        Parameters
        ----------
        X : array-like of shape (N, D)

        Returns
        -------
        ndarray of shape (N,)
            -inf where no component can have made a row.
        """
        return np.asarray(self._fitted.score_samples(X))

    def score(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Mean of `score_samples(X)`, weighted: log density per row, in nats.

        Why it is not `objective_` a row: see `GaussianMixture.score`.
        """
        return float(self._fitted.score(X, sample_weight=sample_weight))

    def impute(
        self, X: ArrayLike, *, draws: int | None = None, random_state: Any = None
    ) -> NDArray[Any]:
        """Fill in what is missing of rows, given what is seen of them.

        Expectations, averaged over components by their probabilities; of symbols, and of zeros and
        ones, the most probable one. Or draws of all that is missing at once, and of components:
        with full inference by draws of the parameters, else at those that attributes tell.

        Parameters
        ----------
        X : array-like of shape (N, D)
            With what is missing as `fit` takes it.
        draws : int, optional
            Completed data sets that are drawn.
        random_state : None, int, numpy.random.Generator or numpy.random.RandomState
            Of draws; the estimator's own where it is not given.

        Returns
        -------
        ndarray of shape (N, D), or (draws, N, D)
            Of objects where symbols are strings.

        Raises
        ------
        ValueError
            If the fit was not one with ``missing="at_random"``.
        """
        face = self._fitted
        product = imputing(self, draws)
        answers, values, threads = face._prepare(X)
        rng = as_generator(self.random_state if random_state is None else random_state)
        return product.imputed(answers, (values, threads, None), X, draws, rng)

    def co_assignment(self, X: ArrayLike) -> Array:
        """Probability that two rows share a component, (N, N): free of the components' order."""
        return np.asarray(self._fitted.co_assignment(X))

    def sample(
        self, n_samples: int = 1, random_state: Any = None
    ) -> tuple[Array, NDArray[np.int64]]:
        """Draw rows, (n_samples, D), and their components, (n_samples,).

        Rows are float64, or of objects where symbols are strings.

        By `random_state`, or the estimator's own where it is not given.
        """
        drawn: tuple[Array, NDArray[np.int64]] = self._fitted.sample(n_samples, random_state)
        return drawn

    @property
    def n_parameters(self) -> int:
        """Free parameters, weights among them."""
        return int(self._fitted.n_parameters)

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Bayesian information criterion, -2 log p(X | theta) + p log N: the lower the better."""
        return float(self._fitted.bic(X, sample_weight))

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Akaike's information criterion, -2 log p(X | theta) + 2 p: the lower the better."""
        return float(self._fitted.aic(X, sample_weight))

    def icl(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Integrated completed likelihood: BIC + twice the entropy of the responsibilities."""
        return float(self._fitted.icl(X, sample_weight))
