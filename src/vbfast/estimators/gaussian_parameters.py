"""Parameters of Gaussian emissions, as estimators take them and tell of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _kernels, starts
from .._interrupts import interruptible
from .._kernels.inputs import Assignment
from ..conjugate import MOST_ROWS, Gaussians, point
from ..data import WIDEST, ArrayData, Frame
from ..emissions import Gaussian
from ..emissions.gaussian import CovarianceType
from ..latents import Mixture
from ..methods import Method
from ..model import Model
from ..stats import Stats
from .categories import Uncoded
from .checks import as_array, check_choice, check_distance, check_number, check_positive

__all__ = [
    "SPREAD",
    "GaussianParameters",
    "SettableCovariances",
    "check_variances",
    "covariances_of",
    "n_free",
]

Array = NDArray[np.float64]

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
# Standard deviations of the data between its mean and one to start from, whose squares keep half
# of their digits; or a prior's, whose squares don't overflow.
FARTHEST_START, FARTHEST_PRIOR = 1e8, 1e100
# Precisions to start from, in units of the data's.
LEAST_PRECISION, MOST_PRECISION = 1e-100, 1e25
# Shares of the variance: what a singular covariance of all rows is given more of, as a prior, so
# that a bound keeps half of its digits; and its least eigenvalue below which it is one.
LEAST_PART, SINGULAR = 1e-8, 1e-10
LARGEST = float(np.finfo(np.float64).max)
# Attributes that tell of one thing; the first is what predictions are made from.
SPREAD = "precisions_cholesky_", "covariances_", "precisions_"
# Variances in the units of the data, whose precisions are normal float64 numbers.
MOST_VARIANCE = 1e305


class SettableCovariances:
    """Have `precisions_cholesky_`, which predictions are made from, follow what is set by hand."""

    covariance_type: CovarianceType

    def __setattr__(self, name: str, value: Any) -> None:
        gaussian = getattr(self, "emission", "gaussian") == "gaussian"
        if name in ("covariances_", "precisions_") and gaussian:
            vars(self).update(_spread_of(name, value, self.covariance_type))
        else:
            object.__setattr__(self, name, value)

    def _check_spread(self) -> None:
        """Raise ValueError where covariances or precisions were changed in place."""
        state = vars(self)
        then = state.get("_spread")
        if then is None:
            return
        if _kernels.columns.held(state, SPREAD, then):
            return
        now: tuple[Any, ...] = tuple(map(state.get, SPREAD))
        if not np.array_equal(now[0], then[0]):
            return
        for name, one, other in zip(SPREAD, now, then, strict=True):
            if one is not None and not np.array_equal(one, other):
                raise ValueError(
                    f"{name} was changed in place, and precisions_cholesky_, which predictions are "
                    f"made from, doesn't know: set all of it, estimator.{name} = ..."
                )


class GaussianParameters(Uncoded):
    """What estimators share whose rows are Gaussian given a component."""

    #: Parameters that are None unless given, and not for every emission.
    reads: ClassVar[tuple[str, ...]] = (
        "means_init",
        "precisions_init",
        "mean_precision_prior",
        "mean_variance_prior",
        "mean_prior",
        "degrees_of_freedom_prior",
        "covariance_prior",
    )

    # Set by the subclasses' constructors.
    n_components: int
    n_threads: int | None
    covariance_type: CovarianceType
    reg_covar: float
    means_init: ArrayLike | None
    precisions_init: ArrayLike | None
    mean_precision_prior: float | None
    mean_variance_prior: ArrayLike | None
    mean_prior: ArrayLike | None
    degrees_of_freedom_prior: float | None
    covariance_prior: ArrayLike | None

    # Set by fit.
    means_: Array
    covariances_: Array
    precisions_: Array
    precisions_cholesky_: Array

    def _check_gaussian_parameters(self) -> None:
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        check_number("reg_covar", self.reg_covar, least=0)
        for name in ("mean_precision_prior", "degrees_of_freedom_prior"):
            check_number(name, getattr(self, name), above=0, most=MOST_ROWS, optional=True)

    def _emission(
        self, frame: Frame, method: Method, proper: bool, covariance: Callable[[], Array]
    ) -> tuple[Gaussian, dict[str, Any]]:
        """Return the emission with its priors, and the attributes that tell of them.

        Priors that are not given are proper, or flat. ``covariance()`` is that of all rows, asked
        for where a prior takes it.
        """
        d = len(frame.origin)
        mode = method.read == "mode"
        check_variances(frame, self.reg_covar)
        mean_variance = self._mean_variance_prior(d)
        # For a mode: a mean that is independent of its precision adds nothing to the exponent.
        least = max(d, 2) if mode and mean_variance is not None else d
        dof = self.degrees_of_freedom_prior
        if dof is None:
            dof = float(least) if proper else None
        elif dof <= d - 1:
            raise ValueError(
                f"degrees_of_freedom_prior must be greater than {d - 1} (features - 1), not {dof!r}"
            )
        elif dof < least and mode:
            why = "the number of features" if least == d else "which mean_variance_prior needs"
            raise ValueError(
                f"degrees_of_freedom_prior={dof!r} is below {least}, {why}: p(theta) then has no "
                f"mode for {method.name!r} to find"
            )
        mean_precision = self.mean_precision_prior
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
        return emission, {
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
        part = max(float(self.reg_covar), LEAST_PART)
        if self.covariance_type in ("full", "tied"):
            scatter = scatter / each[..., None]
            cubes = scatter.size * d
            smallest = interruptible(cubes, partial(np.linalg.eigvalsh, scatter))[..., 0]
            trace = np.trace(scatter, axis1=-2, axis2=-1)
            singular = smallest <= SINGULAR * trace
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

    def _given_gaussians(self, frame: Frame) -> dict[str, Array | None]:
        """means_init and the covariances of precisions_init, checked."""
        k, d = int(self.n_components), len(frame.origin)
        means = covariances = None
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
        return {"means": means, "covariances": covariances}

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

    def _in_frame(
        self, frame: Frame, means: Array | None, covariances: Array | None
    ) -> tuple[Array | None, Array | None]:
        """Means and covariances in the units of the frame, in the shapes of statistics."""
        if means is not None:
            means = (means - frame.origin) * frame.scale
        if covariances is not None:
            if self.covariance_type in ("full", "tied"):
                d = len(frame.origin)
                covariances = covariances * frame.scale[:, None] * frame.scale
                covariances = covariances.reshape(-1, d, d)
            elif self.covariance_type == "diag":
                covariances = covariances * frame.scale**2
            else:
                covariances = (covariances * frame.scale[0] ** 2)[:, None]
        return means, covariances

    def _raw_covariances(self, frame: Frame, covariances: Array) -> Array:
        """(draws, groups, ...) in the frame's units to scikit-learn's shapes in the data's."""
        with np.errstate(over="ignore"):
            if self.covariance_type in ("full", "tied"):
                raw = covariances / frame.scale[:, None] / frame.scale
                raw = raw[:, 0] if self.covariance_type == "tied" else raw
            elif self.covariance_type == "diag":
                raw = covariances / frame.scale**2
            else:
                raw = covariances[..., 0] / frame.scale[0] ** 2
        # Of an empty component, whose prior's mode is at infinity, the largest number there is.
        return np.clip(raw, -LARGEST, LARGEST)

    def _gaussian_attributes(self, frame: Frame, gaussians: Gaussians) -> dict[str, Any]:
        """Means and covariances in the units of the data, as scikit-learn has them."""
        factor = gaussians.factor
        covariances = covariances_of(factor, self.covariance_type)
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
            "means_": frame.origin + gaussians.means / frame.scale,
            **_spread_as_told(cholesky, covariances, precisions),
        }

    def _gaussians_as_they_are(self) -> tuple[Frame, Gaussians]:
        """means_ and precisions_cholesky_, whoever has set them, and the units they are in."""
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        shape = np.shape(self.means_)
        if len(shape) != 2:
            raise ValueError(f"means_ must have shape (K, D), got {shape}")
        k, d = shape
        means = as_array("means_", self.means_, (k, d))
        cholesky = as_array(
            "precisions_cholesky_", self.precisions_cholesky_, self._parameter_shape(k, d)
        )
        if self.covariance_type in ("full", "tied"):
            factor = _lower_factor(np.swapaxes(cholesky.reshape(-1, d, d), 1, 2))
            diagonal = np.diagonal(factor, axis1=1, axis2=2)
        else:
            diagonal = factor = cholesky.reshape(k, -1)
        bad = np.argwhere(~(diagonal > 0))
        if len(bad):
            raise ValueError(
                f"precisions_cholesky_ of component {bad[0][0]} has {diagonal[tuple(bad[0])]:g} on "
                "its diagonal; numbers > 0 are allowed"
            )
        # Means may be as large as numbers go, as long as they are not too far apart.
        origin = (means / k).sum(axis=0)
        with np.errstate(over="ignore"):
            gaps = means - origin
        bad = np.argwhere(~(np.abs(gaps) <= WIDEST))
        if len(bad):
            at = tuple(bad[0])
            raise ValueError(
                f"means_[{at[0]}, {at[1]}] is {means[at]:g}, {gaps[at]:g} from the mean of all; up "
                f"to {WIDEST:g} is allowed"
            )
        return Frame(origin, np.ones(d), np.ones(d)), point(gaps, factor)

    # -- of a model of sequences ------------------------------------------------------------

    #: Attributes that say all of the parameters.
    _told_names: ClassVar[tuple[str, ...]] = ("means_", "precisions_cholesky_")

    def _read(self, X: ArrayLike, *, lengths: ArrayLike | None = None) -> ArrayData:
        """Rows to fit, checked."""
        return ArrayData.of(
            X,
            lengths=lengths,
            isotropic=self.covariance_type == "spherical",
            n_threads=self.n_threads,
        )

    def _emission_with_prior(
        self, data: ArrayData, method: Method, proper: bool
    ) -> tuple[Gaussian, dict[str, Any]]:
        """Return the emission, and the attributes that tell of its prior."""
        return self._emission(data.frame, method, proper, lambda: self._covariance_of(data))

    def _given_for(self, data: ArrayData) -> dict[str, Array | None]:
        """Parameters to start from, checked."""
        return self._given_gaussians(data.frame)

    def _start_with(
        self,
        model: Model,
        given: dict[str, Array | None],
        counts: Array,
        read: str,
        located: Callable[[], Stats],
    ) -> Stats:
        """Return a posterior of the given parameters; ``located()`` tells what is not given."""
        means, covariances = self._in_frame(
            model.emission.units, given["means"], given["covariances"]
        )
        whole = means is not None and covariances is not None
        posterior = model.prior + model.around(means, counts) if whole else located()
        return starts.from_parameters(model, posterior, read, means=means, covariances=covariances)

    def _told_of(self, emission: Gaussian, parameters: Gaussians) -> dict[str, Any]:
        """Attributes that say what parameters are."""
        return self._gaussian_attributes(emission.units, parameters)

    def _posterior_attributes(self, distribution: Any) -> dict[str, Any]:
        """What is told of q(means, precisions)."""
        rows = distribution.n_features if self.covariance_type == "spherical" else 1
        dof = np.ravel(distribution.dof) / rows
        return {
            "mean_precision_": np.ravel(distribution.strength).copy(),
            "degrees_of_freedom_": float(dof[0]) if self.covariance_type == "tied" else dof,
        }

    def _told_of_draws(self, emission: Gaussian, arrays: dict[str, Array]) -> dict[str, Array]:
        """Arrays of draws, as attributes have them."""
        frame = emission.units
        return {
            "means": frame.origin + arrays["means"] / frame.scale,
            "covariances": self._raw_covariances(
                frame, covariances_of(arrays["factors"], self.covariance_type)
            ),
        }

    def _n_emission_parameters(self, emission: Gaussian, k: int) -> int:
        """Free parameters of all components."""
        return n_free(emission.covariance_type, k, emission.n_features)

    def _as_they_are(self, k: int) -> tuple[Gaussian, Gaussians]:
        """The emission and the parameters of k components that attributes say, checked."""
        frame, gaussians = self._gaussians_as_they_are()
        if len(gaussians.means) != k:
            raise ValueError(
                f"means_ must have shape {(k, len(frame.origin))}, got {gaussians.means.shape}"
            )
        return Gaussian(len(frame.origin), self.covariance_type, frame=frame), gaussians


def check_variances(frame: Frame, reg_covar: float) -> None:
    """Raise ValueError where a variance with `reg_covar` would not be a float64."""
    own = frame.variance / frame.scale / frame.scale
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~((1.0 + reg_covar) * own <= MOST_VARIANCE))
    if len(bad):
        raise ValueError(
            f"reg_covar is {reg_covar!r} times the variance of column {bad[0]} of X, "
            f"{own[bad[0]]:g}; a product up to {MOST_VARIANCE:g} is allowed"
        )


def _spread_as_told(cholesky: Array, covariances: Array, precisions: Array) -> dict[str, Any]:
    """Attributes, and what they were."""
    each = cholesky, covariances, precisions
    return {**dict(zip(SPREAD, each, strict=True)), "_spread": tuple(one.copy() for one in each)}


def _spread_of(name: str, value: ArrayLike, covariance_type: CovarianceType) -> dict[str, Any]:
    """All attributes that follow from covariances or precisions of this type, checked."""
    check_choice("covariance_type", covariance_type, COVARIANCE_TYPES)
    matrices = covariance_type in ("full", "tied")
    shown = {"full": "(K, D, D)", "tied": "(D, D)", "diag": "(K, D)", "spherical": "(K,)"}
    shape = np.shape(value)
    if len(shape) != shown[covariance_type].count(",") + (covariance_type != "spherical") or (
        matrices and shape[-1] != shape[-2]
    ):
        raise ValueError(
            f"{name} must have shape {shown[covariance_type]} with covariance_type="
            f"{covariance_type!r}, got {shape}"
        )
    given = as_array(name, value, shape)
    check_positive(name, given, matrices)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        each = _spread(name, given, matrices)
    if not all(np.isfinite(one).all() for one in each):
        raise ValueError(f"{name} holds numbers of which the inverses are no float64 ones")
    return _spread_as_told(*each)


def _spread(name: str, given: Array, matrices: bool) -> tuple[Array, Array, Array]:
    """Factors of precisions, covariances and precisions, of either of the latter two."""
    shape = given.shape
    each = given
    if name == "precisions_":
        each = np.asarray(np.linalg.inv(given) if matrices else 1 / given)
    if not matrices:
        return np.asarray(each**-0.5), each, given if name == "precisions_" else 1 / each
    if name == "covariances_":
        factor = np.linalg.inv(np.linalg.cholesky(given))
        return np.swapaxes(factor, -1, -2).copy(), given, np.swapaxes(factor, -1, -2) @ factor
    root = np.swapaxes(np.linalg.cholesky(given), -1, -2).reshape(-1, *shape[-2:])
    factor = _lower_factor(root).reshape(shape)
    return np.swapaxes(factor, -1, -2).copy(), each, given


def _lower_factor(root: Array) -> Array:
    """Lower triangular A with A'A = R'R, for any R (G, D, D): kernels read no other half.

    R is A already where `precisions_cholesky_` is as a fit leaves it; a lower triangular one, such
    as ``np.linalg.cholesky(precisions)``, is as good a root of the precision.
    """
    if np.triu(root, 1).any():
        upper = np.linalg.qr(root[..., ::-1])[1]
        upper *= np.sign(np.diagonal(upper, axis1=1, axis2=2))[..., None]
        root = upper[..., ::-1, ::-1]
    return np.ascontiguousarray(root)


def n_free(covariance_type: CovarianceType, k: int, d: int) -> int:
    """Free parameters of k Gaussians of d features: means and covariances."""
    covariances = {
        "full": k * d * (d + 1) // 2,
        "tied": d * (d + 1) // 2,
        "diag": k * d,
        "spherical": k,
    }
    return k * d + covariances[covariance_type]


def covariances_of(factor: Array, covariance_type: CovarianceType) -> Array:
    """Covariances of precision factors, for any number of leading axes."""
    if covariance_type in ("full", "tied"):
        root = np.linalg.inv(factor)
        return np.asarray(root @ np.swapaxes(root, -1, -2))
    return np.asarray(factor**-2.0)
