"""Hidden Markov models by every method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import draws, portfolio, starts
from ..answers import AveragedChain, Known
from ..data import ArrayData
from ..emissions.gaussian import CovarianceType
from ..latents import Chain
from ..latents.chain import Initial, joined, reordered
from ..methods import Fit, FullInference, Method, VariationalEM
from ..model import Model, Theta
from ..stats import Stats
from .base import MethodName, feature_names, unchanged
from .checks import (
    as_generator,
    as_labels,
    as_probabilities,
    check_choice,
    check_ignored,
    check_memory,
    check_number,
    in_type_of,
    sum_of_logs,
)
from .emission_parameters import (
    EMISSIONS,
    EmissionName,
    Missing,
    check_emission,
    is_product,
    names_several,
)
from .gaussian_parameters import SettableCovariances
from .product import EmissionPart, ProductParameters, imputing, parts_of
from .sequences import FittedToSequences

__all__ = ["HiddenMarkovModel"]

Array = NDArray[np.float64]

INITS = get_args(starts.Init)
# Attributes that say all of a chain.
OF_CHAIN = "startprob_", "transmat_"
# Draws that predictions average over.
MOST_DRAWS = 200


class HiddenMarkovModel(SettableCovariances, FittedToSequences):
    """Hidden Markov model; by default maximum likelihood by EM.

    Parameters
    ----------
    n_components : int
        K, the states.
    emission : {"gaussian", "poisson", "exponential", "bernoulli", "categorical", "auto"} or list
        What rows of a state look like: see `MixtureModel`.
    method : {"em", "mean_field", "full", "variational_em", "crisp_em"} or object
        EM: forward-backward recursions. Mean field: the same on E[log theta]. Full inference:
        forward filtering, backward sampling. Variational EM: q(T) factorised over rows. Crisp EM:
        Viterbi training. By name, with `max_iter` and `tol` from here; or an object that brings its
        own, such as ``vbfast.EM(acceleration=None)``.
    covariance_type : {"diag", "full", "tied", "spherical"}
    tol : float, optional
        Stop when an update changes the objective by no more than this a row (nats), and by less
        than the one before. Where not given: when no more than 0.001 nats in total are left to
        gain, as the last updates foretell it.
    reg_covar : float
        Added to the diagonal of covariances, in units of each feature's variance in X: see
        `GaussianMixture`.
    max_iter : int
        Sweeps over the data at most, after the first, for methods given by name; 0 is a start only.
    n_init : int
        Starts, of which the best objective is kept; of "auto", races. Full inference starts each
        chain anew instead.
    init_params : {"auto", "kmeans", "whitened", "k-means++", "random", "random_from_data"}
        "auto" lets starts of several kinds race, on a part of the rows where there are many, and
        the best few climb to their ends: states of rows by k-means, with steps as they come or
        states that last; of stretches of rows, by their means (for symbols, what they are made up
        of) or their spread; random ones; equal parts of each sequence where `transmat_init` or
        `startprob_init` has zeros. Groups go to states in the order that zeros allow best. Else
        rows start in the state of the nearest centroid, as `GaussianMixture` has it, or in a
        random one.
    initial : {"free", "stationary"}
        Whether the first state's distribution is a parameter of its own, or the stationary
        distribution of the transition matrix (for EM, variational EM and crisp EM).
    startprob_init, transmat_init : array-like of shape (K,), (K, K), optional
        What is 0 in them stays 0: left-to-right models, and any other. What is below 1e-100 is
        taken for 0 in a fit with exact q(T), unless a sequence can't do without.
    means_init, precisions_init, probabilities_init : array-like, optional
        As for `MixtureModel`.
    startprob_prior, transmat_prior : float or array-like, optional
        Concentrations of the Dirichlet priors, of shape (K,) and (K, K). Flat where not given;
        uniform, 1, for mean field and full inference, which need proper ones. A point estimate
        needs 1 or more. Where `startprob_init` or `transmat_init` is 0 they may be 0, and count
        for nothing.
    mean_prior, mean_precision_prior, mean_variance_prior, degrees_of_freedom_prior
    covariance_prior, shape_prior, rate_prior, concentration_prior, n_categories, categories
        As for `MixtureModel`.
    missing : {"error", "at_random"}
        As for `MixtureModel`; gaps of a sequence are rows of NaN.
    random_state : None, int, numpy.random.Generator or numpy.random.RandomState
    verbose, verbose_interval : int
    n_threads : int, optional
        None takes the smallest of CPU affinity, cgroup quota and OMP_NUM_THREADS. Results have
        the same bits for every number.

    Attributes
    ----------
    startprob_ : ndarray of shape (K,)
    transmat_ : ndarray of shape (K, K)
        Row i: the probabilities of what follows state i. theta_MP for a point estimate; means
        under q(theta) for mean field, and over relabelled draws for full inference.
    means_, covariances_, precisions_, precisions_cholesky_, rates_, probabilities_ : ndarray
    categories_, n_categories_, parts_
        As `MixtureModel`'s.
    objective_ : float
        Of the whole data, in nats, with all constants: see `GaussianMixture`.
    lower_bound_ : float
        The same, a row.
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
    startprob_posterior_, transmat_posterior_ : ndarray
        Concentrations of q(theta), with mean field.
    draws_ : dict of ndarray
        With full inference: "startprob" (chain, draw, K), "transmat" (chain, draw, K, K), "means"
        and "covariances", "rates" or "probabilities", "log_joint" (chain, draw), relabelled by
        what rows of a state look like.
    r_hat_ : float
        With full inference: the largest rank-normalised split R-hat (Vehtari et al. 2021) of the
        log joint and of the probabilities to stay, in order of size; `converged_` is r_hat_ < 1.05.
    effective_sample_size_ : float
        With full inference: of the same, how many independent draws the least tells as much as.

    Notes
    -----
    Rabiner (1989); mean field: Beal (2003), chapter 3; full inference: Chib (1996). A row of
    probability zero under every state that the rows before it leave possible makes `fit` and
    `predict_proba` raise ImpossibleRowError, and `score` -inf.

    Predictions are made from `startprob_`, `transmat_` and `means_` with `precisions_cholesky_`,
    `rates_` or `probabilities_`, whoever has set them, with or without a fit; who sets
    `covariances_` or `precisions_` sets `precisions_cholesky_` as well.

    Examples
    --------
    >>> import numpy as np, vbfast
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat([[0.0], [5.0], [0.0]], 50, axis=0) + rng.normal(size=(150, 1))
    >>> vbfast.HiddenMarkovModel(2, random_state=0).fit(X).transmat_.shape
    (2, 2)
    """

    startprob_: Array
    transmat_: Array
    _product: ProductParameters | None
    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: Array
    objective_: float
    draws_: dict[str, Array]
    r_hat_: float
    effective_sample_size_: float

    def __init__(
        self,
        n_components: int = 1,
        *,
        emission: EmissionName | Sequence[tuple[Any, ...]] = "gaussian",
        method: MethodName | Method = "em",
        covariance_type: CovarianceType = "diag",
        tol: float | None = None,
        reg_covar: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: starts.Init = "auto",
        initial: Initial = "free",
        startprob_init: ArrayLike | None = None,
        transmat_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        probabilities_init: ArrayLike | None = None,
        startprob_prior: ArrayLike | None = None,
        transmat_prior: ArrayLike | None = None,
        mean_precision_prior: float | None = None,
        mean_variance_prior: ArrayLike | None = None,
        mean_prior: ArrayLike | None = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: ArrayLike | None = None,
        shape_prior: ArrayLike | None = None,
        rate_prior: ArrayLike | None = None,
        concentration_prior: ArrayLike | None = None,
        n_categories: int | ArrayLike | None = None,
        categories: Any = None,
        missing: Missing = "error",
        random_state: Any = None,
        verbose: int = 0,
        verbose_interval: int = 10,
        n_threads: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.emission = emission
        self.method = method
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.initial = initial
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.probabilities_init = probabilities_init
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_variance_prior = mean_variance_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.shape_prior = shape_prior
        self.rate_prior = rate_prior
        self.concentration_prior = concentration_prior
        self.n_categories = n_categories
        self.categories = categories
        self.missing = missing
        self.random_state = random_state
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.n_threads = n_threads

    # -- fitting ------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: object = None,
        lengths: ArrayLike | None = None,
        *,
        labels: ArrayLike | None = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array-like of shape (N, D)
            The rows of all sequences, one after the other.
        y : None
            Where scikit-learn has it; anything else is refused. Lengths go by name.
        lengths : array-like of shape (S,), optional
            Rows of each sequence, 1 or more, N together; one sequence if not given.
        labels : array-like of shape (N,), optional
            States of rows that are known, 0 to K - 1; -1 or NaN for others. The fit is to these as
            well: `objective_` is of X and them, and a state is that of its number. Predictions take
            rows for new ones.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an argument or a parameter is not allowed; nothing has changed then.
        ImpossibleRowError
            If a row has probability zero at the start given.
        DegenerateError
            If the likelihood has no bound and neither `reg_covar` nor a prior gives it one.
        MemoryError
            If the fit would need more memory than there is.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` came first, or chains disagree.
        """
        method = self._check_parameters()
        rng = as_generator(self.random_state)
        names = feature_names(X)
        face = ProductParameters(self, X) if is_product(self) else self._face
        X, codes = face._coded(X)
        data = face._read(X, lengths=lengths)
        check_ignored(y)
        if data.n_rows < self.n_components:
            raise ValueError(
                f"n_components={self.n_components} is more than the {data.n_rows} rows of X"
            )
        self._check_memory(data, face)
        known = as_labels(labels, data.n_rows, int(self.n_components))
        given: dict[str, Array | None] = {**self._given_probabilities(), **face._given_for(data)}
        proper = method.read != "mode"
        emission, priors = face._emission_with_prior(data, method, proper)
        data = data if known is None else data.with_labels(known)
        model = Model(self._latent(method, proper, given), emission)
        n_starts = method.n_chains if isinstance(method, FullInference) else self.n_init
        posteriors = self._starts(model, data, given, method, n_starts, rng, face)
        if isinstance(method, FullInference):
            begin = [start for start, _ in posteriors]
            fitted = self._sample(model, data, begin, method, rng, face)
        else:
            several = n_starts > 1 or self._races(given, method)
            best = self._best_climb(model, data, posteriors, method, several)
            fitted = self._climbed(model, method, best, face)
            fitted["lower_bound_"] = best.objective / data.total_weight
            fitted["lower_bounds_"] = best.objectives / data.total_weight
        if names is not None:
            fitted["feature_names_in_"] = names
        fitted["n_features_in_"] = data.values.shape[1]
        fitted["_made"] = (
            ("product", None) if is_product(self) else self._kind,
            tuple(fitted[name].copy() for name in (*OF_CHAIN, *face._told_names)),
        )
        fitted["_product"] = face if is_product(self) else None
        fitted["_fitted_emission"] = face.told if is_product(self) else self.emission
        self._keep(fitted | priors | codes, method)
        return self

    def _read_rows(self, X: ArrayLike) -> NDArray[Any]:
        return np.asarray(self._face._read_rows(X))

    def _codes(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self._face._codes(values))

    def _decoded(self, rows: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self._face._decoded(rows))

    def _check_memory(self, data: ArrayData, face: Any) -> None:
        """Raise MemoryError where there is too little."""
        k, d = int(self.n_components), data.values.shape[1]
        width = 2
        if is_product(self):
            width = face.width(data)
        elif self.emission == "categorical":
            width = face._plain(data.values).width
        elif self.emission == "gaussian" and self.covariance_type in ("full", "tied"):
            width = d
        # Statistics of the fewest tasks, some posteriors and thetas, what acceleration remembers.
        check_memory(
            8.0 * k * (k + width * d) * 40,
            f"n_components={k} with {d} features, of {width} numbers for each state,",
        )

    def _best_climb(
        self,
        model: Model,
        data: ArrayData,
        posteriors: Iterable[portfolio.Finalist],
        method: Any,
        several: bool,
    ) -> Fit[Theta]:
        if method.assign(0).kind != "factorised":
            return self._climb(model, data, posteriors, method, several)
        # Coordinate ascent goes on from the last q(T), or the free energy might fall.
        each = (posterior for posterior, most in posteriors if most > -np.inf)
        best, _ = self._climb_apart(model, data, each, method)
        self._tell_of_convergence(best, method, 4)
        return best

    @property
    def _face(self) -> Any:
        """This estimator as what tells of its emission: another class on the same attributes."""
        emission: Any = self.emission
        if names_several(emission):
            return self._product
        kind = EMISSIONS[emission]
        face = kind.__new__(kind)
        face.__dict__ = self.__dict__
        return face

    @property
    def _kind(self) -> tuple[str, str | None]:
        """What attributes are to be taken for."""
        emission: Any = self.emission
        if names_several(emission):
            return "product", None
        return emission, self.covariance_type if emission == "gaussian" else None

    @property
    def _told_names(self) -> tuple[str, ...]:
        """Attributes that say all of theta."""
        return (*OF_CHAIN, *self._face._told_names)

    def _check_parameters(self) -> Method:
        check_number("n_components", self.n_components, whole=True, least=1)
        check_emission(self)
        check_choice("init_params", self.init_params, INITS)
        check_choice("initial", self.initial, ("free", "stationary"))
        method = self._check_fitting()
        if isinstance(method, VariationalEM) and method.truncation is not None:
            raise ValueError(
                f"VariationalEM's truncation is for mixtures, not {method.truncation!r} for a "
                "hidden Markov model: q(T) is factorised over rows there"
            )
        if self.initial == "stationary":
            if method.read != "mode":
                raise ValueError(
                    f"initial='stationary' has no conjugate prior, which {method.name!r} needs: "
                    "use 'em', 'variational_em' or 'crisp_em', or initial='free'"
                )
            for name in ("startprob_init", "startprob_prior"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} can't be given with initial='stationary': the first state's "
                        "distribution follows from the transition matrix"
                    )
        return method

    def _given_probabilities(self) -> dict[str, Array | None]:
        k = int(self.n_components)
        out: dict[str, Array | None] = {"startprob": None, "transmat": None}
        if self.startprob_init is not None:
            out["startprob"] = as_probabilities("startprob_init", self.startprob_init, (k,))
        if self.transmat_init is not None:
            out["transmat"] = as_probabilities("transmat_init", self.transmat_init, (k, k))
        return out

    def _latent(self, method: Method, proper: bool, given: dict[str, Array | None]) -> Chain:
        k = int(self.n_components)
        possible = np.ones((k + 1, k), dtype=bool)
        if given["startprob"] is not None:
            possible[0] = given["startprob"] > 0
        if given["transmat"] is not None:
            possible[1:] = given["transmat"] > 0
        default = 1.0 if proper else None
        concentrations = []
        for name, there in (("startprob_prior", possible[0]), ("transmat_prior", possible[1:])):
            value = getattr(self, name)
            concentrations.append(default if value is None else value)
            if value is not None and np.asarray(value).dtype.kind not in "iuf":
                raise TypeError(f"{name} must hold real numbers, not {value!r}")
            if value is not None and not proper:
                below = np.asarray(value, dtype=float) < 1
                if below.shape == there.shape:
                    below &= there
                low = np.argwhere(below)
                if len(low):
                    raise ValueError(
                        f"{name} has {np.asarray(value)[tuple(low[0])]}, below 1: p(theta) then "
                        f"has no mode for {method.name!r} to find; give 1 or more, or use "
                        "'mean_field' or 'full'"
                    )
        try:
            return Chain(k, concentrations[0], concentrations[1], possible, self.initial)
        except ValueError as error:  # by the estimator's names
            text = str(error).replace("start_concentration", "startprob_prior")
            text = text.replace("transition_concentration", "transmat_prior")
            raise ValueError(text) from None

    def _starts(
        self,
        model: Model,
        data: ArrayData,
        given: dict[str, Array | None],
        method: Method,
        n_starts: int,
        rng: np.random.Generator,
        face: Any,
    ) -> Iterable[portfolio.Finalist]:
        """Posteriors that fits begin with, and the highest objectives that they may come to."""
        counts = np.full(self.n_components, data.total_weight / self.n_components)

        def start(located: Callable[[], Stats]) -> Stats:
            posterior = face._start_with(model, given, counts, method.read, located)
            return model.latent.with_probabilities(
                posterior, method.read, given["startprob"], given["transmat"]
            )

        return self._starts_by(start, model, data, given, method, n_starts, rng)

    def _climbed(self, model: Model, method: Any, best: Fit[Theta], face: Any) -> dict[str, Any]:
        """Attributes that tell where a method that climbs ended."""
        posterior, theta = best.posterior, best.theta
        answers = middle = Known(
            model.latent, model.emission.plain, theta.weights, theta.parameters
        )
        more = {}
        if method.read == "mean":
            concentration = model.latent.distribution(posterior).concentration
            middle = Known(
                model.latent,
                model.emission.plain,
                model.latent.distribution(posterior).mean(),
                model.emission.mean_point(posterior),
            )
            more = {
                "startprob_posterior_": concentration[0],
                "transmat_posterior_": concentration[1:],
            }
        return {
            **self._attributes(middle, face),
            **more,
            "_answers": answers,
            "_middle": middle,
            "converged_": best.converged,
            "n_iter_": best.n_iter,
            "objective_": best.objective,
        }

    def _attributes(self, middle: Known, face: Any) -> dict[str, Any]:
        return {
            "startprob_": middle.weights[0].copy(),
            "transmat_": middle.weights[1:].copy(),
            **face._told_of(middle.emission, middle.parameters),
        }

    def _sample(
        self,
        model: Model,
        data: ArrayData,
        posteriors: list[Stats],
        method: FullInference,
        rng: np.random.Generator,
        face: Any,
    ) -> dict[str, Any]:
        """Draws, their relabelled means."""
        drawn = method.fit(model, data, posteriors, rng, report=self._report(0))
        shape = drawn.log_joint.shape
        k = model.latent.n_components
        # The emissions alone tell states apart: the density of a transition matrix is not one of
        # each state with each.
        if data.labels is None:
            orders = draws.orders(drawn.terms.reshape(-1, k, k))
        else:  # numbers mean something
            orders = np.tile(np.arange(k), (drawn.log_joint.size, 1))
        # Nor may a state take the place of one that the prior tells from it.
        orders[~model.latent.like_prior(orders)] = np.arange(k)
        flat = {name: part.reshape(-1, *part.shape[2:]) for name, part in drawn.theta.items()}
        of = np.arange(len(orders))[:, None]
        weights = reordered(flat.pop("weights"), orders)
        parameters = {
            name: part if part.shape[1] != k else part[of, orders] for name, part in flat.items()
        }
        every = range(0, len(orders), -(-len(orders) // MOST_DRAWS))
        points = [
            Known(
                model.latent,
                model.emission.plain,
                weights[g],
                model.emission.parameters(*(part[g] for part in parameters.values())),
            )
            for g in every
        ]
        middle = Known(
            model.latent,
            model.emission.plain,
            weights.mean(axis=0),
            model.emission.mean_of_draws(*parameters.values()),
        )
        stay = np.sort(np.diagonal(weights[:, 1:], axis1=1, axis2=2))[:, ::-1].reshape(*shape, k)
        mixed = self._mixing(
            {
                "log p(X, T, theta)": drawn.log_joint,
                **{
                    f"the probability to stay that is number {n + 1} in size": stay[:, :, n]
                    for n in range(k if k > 1 else 0)
                },
            },
            4,
        )
        objective = float(drawn.log_joint.max())
        raw = {
            "startprob": weights[:, 0],
            "transmat": weights[:, 1:],
            **face._told_of_draws(model.emission, parameters),
        }
        return {
            **self._attributes(middle, face),
            "draws_": {
                **{name: part.reshape(*shape, *part.shape[1:]) for name, part in raw.items()},
                "log_joint": drawn.log_joint,
            },
            "_answers": AveragedChain(points, middle),
            "_middle": AveragedChain(points, middle),
            **mixed,
            "n_iter_": method.n_sweeps,
            "objective_": objective,
            "lower_bound_": objective / data.total_weight,
            "lower_bounds_": drawn.log_joint.ravel() / data.total_weight,
        }

    # -- predictions --------------------------------------------------------------------------

    _answers: Known | AveragedChain
    _middle: Known | AveragedChain

    def _now(self) -> Self:
        now = super()._now()
        # Attributes are of the emission that was fitted, whatever `emission` says since.
        emission = vars(now).get("_fitted_emission", now.emission)
        if emission is not now.emission:
            object.__setattr__(now, "__dict__", vars(now) | {"emission": emission})
        return now

    def __sklearn_is_fitted__(self) -> bool:
        if names_several(self.emission):
            return vars(self).get("_product") is not None
        return self.emission in EMISSIONS and all(name in vars(self) for name in self._told_names)

    @property
    def parts_(self) -> tuple[EmissionPart, ...]:
        """What the fit says of the columns of each kind, where `emission` names several."""
        return parts_of(self)

    def _as_they_are(self) -> Known | None:
        """The parameters, where somebody has set them since the fit; None if nobody has."""
        now = self._kind
        if now[0] == "gaussian":
            self._check_spread()
        kind, arrays = getattr(self, "_made", (None, ()))
        if kind == now and unchanged(vars(self), self._told_names, arrays):
            return None
        k = np.size(self.startprob_)
        weights = joined(
            as_probabilities("startprob_", self.startprob_, (k,)),
            as_probabilities("transmat_", self.transmat_, (k, k)),
        )
        emission, parameters = self._face._as_they_are(k)
        return Known(Chain(k), emission, weights, parameters)

    def _known(self, middle: bool) -> Known | AveragedChain:
        """The parameters, where set by hand; else as fitted, at the attributes if `middle`."""
        return self._as_they_are() or (self._middle if middle else self._answers)

    def predict_proba(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Smoothed probabilities: of each state for each row, given its whole sequence.

        p(t | X, theta) for a point estimate; q(t) for mean field, from E[log theta] under q(theta),
        of which `startprob_`, `transmat_` and so on are the means: a model with these attributes
        alone gives p(t | X, theta) at the means, which is not the same. Averaged over draws for
        full inference.

        Parameters
        ----------
        X : array-like of shape (N, D)
        lengths : array-like of shape (S,), optional

        Returns
        -------
        ndarray of shape (N, K)

        Raises
        ------
        ImpossibleRowError
            If a row has probability zero.
        """
        answers, rows = self._prepare(X, lengths)
        return in_type_of(rows[0], answers.responsibilities(*rows))

    def impute(
        self,
        X: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        draws: int | None = None,
        random_state: Any = None,
    ) -> NDArray[Any]:
        """Fill in what is missing of rows, given what is seen of them.

        Expectations, averaged over components by their probabilities; of symbols, and of zeros and
        ones, the most probable one. Or draws of all that is missing at once, and of components:
        with full inference by draws of the parameters, else at those that attributes tell.

        Parameters
        ----------
        X : array-like of shape (N, D)
            With what is missing as `fit` takes it.
        lengths : array-like of shape (S,), optional
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
        product = imputing(self, draws)
        answers, rows = self._prepare(X, lengths, middle=draws is not None)
        rng = as_generator(self.random_state if random_state is None else random_state)
        return product.imputed(answers, rows, X, draws, rng)

    def filter(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Filtered probabilities: of each state given this row and those before it, (N, K).

        Parameters
        ----------
        X : array-like of shape (N, D)
        lengths : array-like of shape (S,), optional

        Raises
        ------
        ImpossibleRowError
            If a row has probability zero.
        """
        answers, rows = self._prepare(X, lengths)
        return in_type_of(rows[0], answers.filtered(*rows))

    def predict(self, X: ArrayLike, lengths: ArrayLike | None = None) -> NDArray[np.int64]:
        """Return the most probable state of each row, (N,): the largest of `predict_proba`.

        These are of the smoothed marginals: one after the other they may make an impossible path.
        `decode` gives the most probable path.
        """
        answers, rows = self._prepare(X, lengths)
        return answers.labels(*rows)

    def decode(
        self,
        X: ArrayLike,
        lengths: ArrayLike | None = None,
        algorithm: Literal["viterbi", "map"] = "viterbi",
    ) -> tuple[float, NDArray[np.int64]]:
        """Most probable path of each sequence, or the most probable state of each row.

        Parameters
        ----------
        X : array-like of shape (N, D)
        lengths : array-like of shape (S,), optional
        algorithm : {"viterbi", "map"}
            The path by Viterbi's algorithm; or what `predict` returns, whose states may not follow
            one another.

        Returns
        -------
        log_prob : float
            log p(X, T | theta) of the paths, all sequences together; with "map" the sum over rows
            of the states' smoothed probabilities, as hmmlearn has it.
        states : ndarray of shape (N,)

        Raises
        ------
        ImpossibleRowError
            If a row has probability zero.
        """
        check_choice("algorithm", algorithm, ("viterbi", "map"))
        if algorithm == "map":
            answers, rows = self._prepare(X, lengths)
            q = answers.responsibilities(*rows)
            return float(q.max(axis=1).sum()), q.argmax(axis=1)
        answers, rows = self._prepare(X, lengths, middle=True)
        return answers.decode(*rows)

    def score_samples(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Log density of each row given those before it in its sequence, in nats, (N,).

        At `startprob_`, `transmat_` and so on; averaged over draws for full inference. -inf from
        an impossible row of a sequence on. No row is impossible for Gaussians: of one so far away
        that its distances are no float64 numbers it is -inf, and other rows tell of its state.

        Parameters
        ----------
        X : array-like of shape (N, D)
        lengths : array-like of shape (S,), optional
        """
        answers, rows = self._prepare(X, lengths, middle=True)
        return in_type_of(rows[0], answers.log_density(*rows))

    def _log_likelihood(self, X: ArrayLike, lengths: ArrayLike | None) -> tuple[float, int]:
        answers, rows = self._prepare(X, lengths, middle=True)
        each = answers.log_density(*rows)
        return sum_of_logs(each), len(each)

    def score(self, X: ArrayLike, y: object = None, lengths: ArrayLike | None = None) -> float:
        """Log p(X), of all sequences together, in nats: the sum of `score_samples`.

        `objective_` is another number: see `GaussianMixture.score`.
        """
        value, _ = self._log_likelihood(X, lengths)
        check_ignored(y)
        return value

    @property
    def n_parameters(self) -> int:
        """Free parameters: first states, transitions that are not fixed at 0, emissions."""
        now = self._now()
        now._check_is_fitted()
        answers = now._known(middle=True)
        free = np.asarray(answers.latent.equal > 0).sum(axis=1) - 1
        if now.initial == "stationary":
            free[0] = 0
        return int(free.sum()) + now._face._n_emission_parameters(answers.emission, len(free) - 1)
