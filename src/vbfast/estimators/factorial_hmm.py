"""Factorial hidden Markov models by every method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import draws
from ..answers import Known
from ..conjugate import MOST_ROWS, Regression, precision_factors, regression
from ..data import ArrayData, Frame
from ..emissions.additive import AdditiveCovariance, AdditiveGaussian
from ..emissions.gaussian import NARROWEST_PRIOR, WIDEST_PRIOR
from ..latents.chain import joined, reordered
from ..latents.coupled import CoupledChains, Factorisation
from ..methods import Fit, FullInference, MeanField, Method
from ..model import Model, Theta
from ..portfolio import coupled_finalists, one_chain_of
from ..starts import of_coupled
from ..stats import Stats
from .base import MethodName, feature_names
from .checks import (
    as_array,
    as_generator,
    as_probabilities,
    check_choice,
    check_distance,
    check_ignored,
    check_memory,
    check_number,
    check_positive,
    in_type_of,
)
from .gaussian_parameters import check_variances
from .sequences import FittedToSequences

__all__ = ["FactorialHMM"]

Array = NDArray[np.float64]

INITS = ("auto", "random")
# Variance of noise that is set by hand: its inverse is a float64.
LEAST_NOISE = 1e-300
# Joint states of a block of chains in a fit: larger ones take longer than they are worth there.
STATES_OF_FITS = 256
# What predictions are made from.
_PARAMETER_NAMES = ("startprob_", "transmat_", "means_", "covariance_")
# Priors that are not given, where a method needs proper ones: rows that a state's mean is worth,
# and the noise's part of the features' variances.
MEAN_PRECISION, NOISE = 0.01, 0.1
# Standard deviations of the data between its mean and means to start from, or a prior's, beside
# whose squares variances keep half of their digits.
FARTHEST = 1e4
# Variances to start from, in units of the data's.
LEAST_VARIANCE, MOST_VARIANCE = 1e-25, 1e25


class FactorialHMM(FittedToSequences):
    """Factorial hidden Markov model: M independent Markov chains, whose states' means add up.

    A row is x_t ~ N(sum_m W_m[s_t^m], C); chain m starts in s_1^m ~ startprob_m and steps to
    s_t^m ~ transmat_m[s_t-1^m] (Ghahramani & Jordan 1997).

    Parameters
    ----------
    n_chains, n_components : int
        M, and K, the states of each chain.
    method : {"variational_em", "em", "mean_field", "crisp_em", "full"} or object
        By name, with `max_iter` and `tol` from here; or an object that brings its own, such as
        ``vbfast.FullInference(n_draws=2000)``. EM takes q(T) = p(T | X, theta), exactly, on the
        product chain of K^M states, 4,096 at most; variational EM, and mean field by name, take
        one that is factorised as `factorisation` says (``vbfast.MeanField()`` takes the exact one).
        Crisp EM finds the best path of the product chain up to 4,096 states, beyond that of a block
        of chains at a time ("structured", "complete": of a chain) until none changes. Full
        inference draws a chain at a time given the others.
    factorisation : {"blocks", "structured", "complete"}
        Of variational EM, and mean field by name. "blocks": q(T) = prod_b q(all chains of b), of
        256 joint states a block at most, so that q(T) is exact where all chains have no more; which
        chains go together is drawn anew in each sweep, and kept where the bound is higher.
        "structured": prod_m q(s_1^m ... s_T^m); "complete": prod_m prod_t q(s_t^m): the bound is
        lower, and depends on the order of the chains. Predictions beyond 4,096 joint states take
        the same family, with blocks of 4,096.
    covariance_type : {"full", "diag"}
    tol : float, optional
        Stop when an update changes the objective by no more than this a row (nats), and by less
        than the one before. Where not given: when no more than 0.001 nats in total are left to
        gain, as the last updates foretell it.
    max_iter : int
        Sweeps over the data at most, after the first, for methods given by name, and to where the
        chains of full inference begin.
    n_init : int
        Starts, or with `init_params` "auto" races of starts, of which the best objective is kept.
        Full inference climbs from as many by mean field, and begins each chain at the best end,
        each with starts of its own.
    init_params : {"auto", "random"}
        Where means come from that are not given. "auto": starts of several kinds race, the worse
        ones dropping out, and the best three climb to the end: centroids, or rows, taken apart into
        a summand for each chain; one chain after another fitted to what the others leave; random
        rows. "random": random rows over sqrt(M), the variances of X.
    reg_covar : float
        Added to the diagonal of C, in units of each feature's variance in X (of 1 for a constant
        feature). All objectives stay monotone: each row is taken for a cloud of this variance.
    startprob_init, transmat_init, means_init, covariance_init : array-like, optional
        (M, K), (M, K, K), (M, K, D), and (D, D) or, for "diag", (D,). Where not given: as
        `init_params` says; all chains start in their states with equal probabilities.
    start_concentration_prior, transition_concentration_prior : float, optional
        Of Dirichlet priors on startprob and each row of transmat. A point estimate needs 1 or more.
    mean_prior : array-like of shape (D,), optional
        Prior mean of sums of W; the mean of X where not given.
    mean_precision_prior : float, optional
        kappa_0: W_m[k] ~ N(mean_prior / M, C / kappa_0).
    degrees_of_freedom_prior : float, optional
        nu_0 > D - 1; > 0 for "diag".
    covariance_prior : array-like, optional
        W_0^-1 of the Wishart prior on C^-1: (D, D), or (D,) for "diag".
    random_state : None, int, numpy.random.Generator or numpy.random.RandomState
    verbose, verbose_interval : int
    n_threads : int, optional
        None takes the smallest of CPU affinity, cgroup quota and OMP_NUM_THREADS. Threads share
        sequences out; results have the same bits for every number.

    Attributes
    ----------
    startprob_, transmat_, means_, covariance_ : ndarray
        (M, K), (M, K, K), (M, K, D), (D, D) or (D,). theta_MP for a point estimate; under q(theta)
        E[startprob], E[transmat], E[W], E[C^-1]^-1 for mean field, and the same over relabelled
        draws for full inference. A constant can be moved from one chain's means to another's:
        `means_` are those in which all chains' have the same average over their states.
    objective_ : float
        Of the whole data, in nats, with all constants: free energy + log p(theta) for variational
        EM, log p(X|theta) + log p(theta) for EM, the evidence lower bound for mean field,
        log p(X, T|theta) + log p(theta) for crisp EM, the largest log p(X, T, theta) drawn for full
        inference. A flat prior adds nothing.
    lower_bound_ : float
        The same.
    lower_bounds_ : ndarray
        After 0, 1, ..., n_iter_ sweeps (full inference: of each draw); -inf where that
        of a start is beyond the range of float64.
    converged_ : bool
    n_iter_ : int
    method_ : object
        The method as it was used.
    draws_ : dict of ndarray
        With full inference: "startprob" (chain, draw, M, K), "transmat" (chain, draw, M, K, K),
        "means" (chain, draw, M, K, D), "covariance" (chain, draw, ...), "log_joint" (chain, draw).
        Chains and their states are in the order in which their centred means are closest to those
        of the draw of highest log joint.
    r_hat_ : float
        With full inference: rank-normalised split R-hat of the log joint, NaN for fewer than 4
        draws a chain; `converged_` is r_hat_ < 1.05.
    effective_sample_size_ : float
        With full inference: how many independent draws tell as much of it.
    n_features_in_ : int
    feature_names_in_ : ndarray
        Where X is a data frame with names.
    start_concentration_prior_, transition_concentration_prior_, mean_prior_
    mean_precision_prior_, degrees_of_freedom_prior_, covariance_prior_
        Priors as used; None where flat.

    Notes
    -----
    Priors that are not given are flat for EM, variational EM and crisp EM. Mean field and full
    inference take concentrations of 1, kappa_0 = 0.01, the mean of X, nu_0 = D + 2 and a tenth of
    X's variances.

    Structured mean field is Ghahramani & Jordan's (1997) section 3.4 and appendix D, starting from
    the completely factorised one, their section 3.3; sweeps go on from the last q(T), so that
    objectives never fall. Draws of a chain: Chib (1996).

    Blocks are structured mean field as well (Saul & Jordan 1996), with more than a chain in each
    part. Where nothing is known of rows yet, blocks first count what the others do not know as
    noise.

    The likelihood has many maxima: more races (`n_init`) find better ones where there are many
    chains.
    """

    # Set by fit.
    startprob_: Array
    transmat_: Array
    means_: Array
    covariance_: Array
    objective_: float
    lower_bound_: float
    lower_bounds_: Array
    converged_: bool
    n_iter_: int
    method_: Method
    # With full inference.
    draws_: dict[str, Array]
    r_hat_: float
    effective_sample_size_: float

    def __init__(
        self,
        n_chains: int = 2,
        n_components: int = 2,
        *,
        method: MethodName | Method = "variational_em",
        factorisation: Factorisation = "blocks",
        covariance_type: AdditiveCovariance = "full",
        tol: float | None = None,
        max_iter: int = 500,
        n_init: int = 1,
        init_params: Literal["auto", "random"] = "auto",
        reg_covar: float = 1e-6,
        startprob_init: ArrayLike | None = None,
        transmat_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        covariance_init: ArrayLike | None = None,
        start_concentration_prior: float | None = None,
        transition_concentration_prior: float | None = None,
        mean_prior: ArrayLike | None = None,
        mean_precision_prior: float | None = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: ArrayLike | None = None,
        random_state: Any = None,
        verbose: int = 0,
        verbose_interval: int = 10,
        n_threads: int | None = None,
    ) -> None:
        self.n_chains = n_chains
        self.n_components = n_components
        self.method = method
        self.factorisation = factorisation
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.reg_covar = reg_covar
        self.startprob_init = startprob_init
        self.transmat_init = transmat_init
        self.means_init = means_init
        self.covariance_init = covariance_init
        self.start_concentration_prior = start_concentration_prior
        self.transition_concentration_prior = transition_concentration_prior
        self.mean_prior = mean_prior
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.n_threads = n_threads

    # -- fitting ------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: object = None, lengths: ArrayLike | None = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array-like of shape (N, D)
            Sequences one after the other.
        y : None
            Where scikit-learn has it; anything else is refused. Lengths go by name.
        lengths : array-like of shape (S,), optional
            Rows of each sequence; one sequence where not given.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an argument or a parameter is not allowed, as EM for more than 4,096 joint states;
            nothing has changed then.
        DegenerateError
            If the likelihood has no bound and neither `reg_covar` nor a prior gives it one.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` came first, or chains disagree.
        """
        method = self._check_parameters()
        rng = as_generator(self.random_state)
        data = ArrayData.of(X, lengths=lengths, n_threads=self.n_threads)
        check_ignored(y)
        # Recursions are in float64 arithmetic whatever the data.
        data = replace(data, single=False)
        self._check_memory(data)
        check_variances(data.frame, self.reg_covar)
        model, priors = self._model(data.frame, method)
        if not isinstance(method, FullInference):
            model.latent.kind(method.assign(0))
        given = self._given_parameters(data.frame)
        if isinstance(method, FullInference):
            fitted = self._sampled(model, data, given, method, rng)
        else:
            best, _ = self._climb_each(model, data, given, method, rng)
            self._tell_of_convergence(best, method, 3)
            fitted = self._climbed(model, method, best)
        names = feature_names(X)
        if names is not None:
            fitted["feature_names_in_"] = names
        fitted["n_features_in_"] = data.values.shape[1]
        self._keep(fitted | priors, method)
        return self

    def _climb_each(
        self,
        model: Model,
        data: ArrayData,
        given: dict[str, Array | None],
        method: Any,
        rng: np.random.Generator,
    ) -> tuple[Fit[Theta], ArrayData]:
        """Best of several starts, each with a memory of its own; the data with the best's."""
        posteriors = self._starts(model, data, given, method, rng)
        return self._climb_apart(model, data, posteriors, method)

    def _climbed(self, model: Model, method: Any, best: Fit[Theta]) -> dict[str, Any]:
        """Attributes that tell where a method that climbs ended."""
        theta = best.theta
        weights = theta.weights
        if method.read == "mean":
            weights = model.latent.distribution(best.posterior).mean()
        return {
            **self._parameter_attributes(model, weights, theta.parameters),
            "converged_": best.converged,
            "n_iter_": best.n_iter,
            "objective_": best.objective,
            "lower_bound_": best.objective,
            "lower_bounds_": best.objectives,
        }

    def _sampled(
        self,
        model: Model,
        data: ArrayData,
        given: dict[str, Array | None],
        method: FullInference,
        rng: np.random.Generator,
    ) -> dict[str, Any]:
        """Attributes that tell of draws."""
        # A chain that begins far from the posterior's modes seldom finds the best of them; and its
        # states are drawn given those that the climb's q(T) tells of, a chain at a time.
        climb = MeanField(self.max_iter, self.tol, factorised=True)
        climbs = [self._climb_each(model, data, given, climb, rng) for _ in range(method.n_chains)]
        one = replace(method, n_chains=1)
        chains = [
            one.fit(model, own, [fit.posterior], child, report=None if n else self._report(0))
            for n, ((fit, own), child) in enumerate(
                zip(climbs, rng.spawn(method.n_chains), strict=True)
            )
        ]
        log_joint = np.concatenate([chain.log_joint for chain in chains])
        theta = {
            name: np.concatenate([chain.theta[name][0] for chain in chains])
            for name in chains[0].theta
        }
        theta = self._relabelled(theta, int(log_joint.argmax()))
        mixed = self._mixing({"log p(X, T, theta)": log_joint}, 4)
        weights = theta.pop("weights")
        average = model.emission.mean_of_draws(*theta.values())
        means, covariance = model.emission.in_data_units(*theta.values())
        if self.covariance_type == "diag":
            covariance = np.diagonal(covariance, axis1=1, axis2=2)
        parts = {
            "startprob": weights[:, :, 0],
            "transmat": weights[:, :, 1:],
            "means": means,
            "covariance": covariance,
        }
        shape = log_joint.shape
        objective = float(log_joint.max())
        return {
            **self._parameter_attributes(model, weights.mean(axis=0), average),
            "draws_": {
                **{name: part.reshape(*shape, *part.shape[1:]) for name, part in parts.items()},
                "log_joint": log_joint,
            },
            **mixed,
            "n_iter_": method.n_sweeps,
            "objective_": objective,
            "lower_bound_": objective,
            "lower_bounds_": log_joint.ravel(),
        }

    def _relabelled(self, theta: dict[str, Array], best: int) -> dict[str, Array]:
        """Draws with chains and states in the order of those of draw `best`."""
        m, k = int(self.n_chains), int(self.n_components)
        factor = theta["factor"][best]
        means = self._levelled(theta["means"])
        each = means.reshape(len(means), m, k, -1)
        white = each @ factor.T
        chains, states = draws.chain_orders(white, white[best])
        of = np.arange(len(means))[:, None, None]
        chain = chains[:, :, None]
        return {
            "weights": reordered(theta["weights"][of[..., 0], chains], states),
            "means": each[of, chain, states].reshape(means.shape),
            "factor": theta["factor"],
        }

    def _levelled(self, means: Array) -> Array:
        """Means (..., M K, D) of the same sums, all chains' of the same average over states."""
        each = means.reshape(*means.shape[:-2], int(self.n_chains), int(self.n_components), -1)
        own = each.mean(axis=-2, keepdims=True)
        return (each + (own.mean(axis=-3, keepdims=True) - own)).reshape(means.shape)

    # -- checks -------------------------------------------------------------------------------

    def _check_parameters(self) -> Method:
        check_number("n_chains", self.n_chains, whole=True, least=1)
        check_number("n_components", self.n_components, whole=True, least=1)
        check_choice("factorisation", self.factorisation, get_args(Factorisation))
        check_choice("covariance_type", self.covariance_type, get_args(AdditiveCovariance))
        check_choice("init_params", self.init_params, INITS)
        check_number("reg_covar", self.reg_covar, least=0)
        for name in (
            "start_concentration_prior",
            "transition_concentration_prior",
            "mean_precision_prior",
            "degrees_of_freedom_prior",
        ):
            check_number(name, getattr(self, name), above=0, most=MOST_ROWS, optional=True)
        method = self._check_fitting()
        if isinstance(self.method, str) and isinstance(method, MeanField):
            return replace(method, factorised=True)
        return method

    def _check_memory(self, data: ArrayData) -> None:
        m, k, d = int(self.n_chains), int(self.n_components), data.values.shape[1]
        # Statistics, some posteriors and thetas, and what solves for the means; a memory of rows.
        needed = 8.0 * (20 * m * k * (m * k + k + d) + data.n_rows * m * (k + 1))
        what = f"n_chains={m} of n_components={k} with {d} features and {data.n_rows} rows"
        check_memory(needed, what)

    # -- model, priors, starts ----------------------------------------------------------------

    def _model(self, frame: Frame, method: Method) -> tuple[Model, dict[str, Any]]:
        """Return the model with its priors, and the attributes that tell of them."""
        d = len(frame.origin)
        proper = method.read != "mode"
        concentrations: list[float | None] = []
        for name in ("start_concentration_prior", "transition_concentration_prior"):
            value = getattr(self, name)
            if value is None and proper:
                value = 1.0
            elif value is not None and value < 1 and not proper:
                raise ValueError(
                    f"{name}={value!r} is below 1: p(theta) then has no mode for {method.name!r} "
                    "to find; give 1 or more, or use 'mean_field' or 'full'"
                )
            concentrations.append(value)
        dof, least = self.degrees_of_freedom_prior, d - 1 if self.covariance_type == "full" else 0
        if dof is None:
            dof = float(d + 2) if proper else None
        elif dof <= least:
            raise ValueError(
                f"degrees_of_freedom_prior must be greater than {least} (features - 1; 0 for "
                f"'diag'), not {dof!r}"
            )
        mean = None
        if self.mean_prior is not None:
            mean = as_array("mean_prior", self.mean_prior, (d,))
            check_distance("mean_prior", mean, frame, FARTHEST)
        precision = self.mean_precision_prior
        if precision is None and (proper or mean is not None):
            precision = MEAN_PRECISION
        if mean is None and precision is not None:
            mean = frame.origin.copy()
        shape = (d, d) if self.covariance_type == "full" else (d,)
        scatter = None
        if self.covariance_prior is not None:
            scatter = as_array("covariance_prior", self.covariance_prior, shape)
            check_positive("covariance_prior", scatter, self.covariance_type == "full")
            _check_relative("covariance_prior", scatter, frame, NARROWEST_PRIOR, WIDEST_PRIOR)
        elif proper:
            scatter = NOISE * frame.variance / frame.scale**2
            scatter = np.diag(scatter) if self.covariance_type == "full" else scatter
        sizes = int(self.n_chains), int(self.n_components)
        model = Model(
            CoupledChains(
                *sizes,
                self.factorisation,
                concentrations[0],
                concentrations[1],
                block_states=STATES_OF_FITS,
                block_trials=1,
            ),
            AdditiveGaussian(
                d,
                *sizes,
                self.covariance_type,
                mean_prior=mean,
                mean_precision=precision,
                degrees_of_freedom=dof,
                scatter=scatter,
                reg_covar=self.reg_covar,
                frame=frame,
            ),
        )
        return model, {
            "start_concentration_prior_": concentrations[0],
            "transition_concentration_prior_": concentrations[1],
            "mean_prior_": mean,
            "mean_precision_prior_": precision,
            "degrees_of_freedom_prior_": dof,
            "covariance_prior_": scatter,
        }

    def _given_parameters(self, frame: Frame) -> dict[str, Array | None]:
        """What is given to start from, checked; covariance as (D, D)."""
        m, k, d = int(self.n_chains), int(self.n_components), len(frame.origin)
        given: dict[str, Array | None] = dict.fromkeys(("start", "transition", "means"))
        given["covariance"] = None
        if self.startprob_init is not None:
            given["start"] = as_probabilities("startprob_init", self.startprob_init, (m, k))
        if self.transmat_init is not None:
            given["transition"] = as_probabilities("transmat_init", self.transmat_init, (m, k, k))
        if self.means_init is not None:
            means = as_array("means_init", self.means_init, (m, k, d))
            check_distance("means_init", means - frame.origin / m + frame.origin, frame,
                           FARTHEST)  # fmt: skip
            given["means"] = means
        if self.covariance_init is not None:
            full = self.covariance_type == "full"
            covariance = as_array("covariance_init", self.covariance_init, (d, d) if full else (d,))
            check_positive("covariance_init", covariance, full)
            _check_relative("covariance_init", covariance, frame, LEAST_VARIANCE, MOST_VARIANCE)
            given["covariance"] = covariance if full else np.diag(covariance)
        return given

    def _starts(
        self,
        model: Model,
        data: ArrayData,
        given: dict[str, Array | None],
        method: Any,
        rng: np.random.Generator,
    ) -> Iterable[Stats]:
        """Return the posteriors that a fit begins with."""
        m, k = int(self.n_chains), int(self.n_components)
        frame = data.frame
        start = np.full((m, k), 1 / k) if given["start"] is None else given["start"]

        def around(transition: Array, means: Array, covariance: Array) -> Stats:
            if given["transition"] is not None:
                transition = given["transition"]
            if given["covariance"] is not None:
                covariance = given["covariance"] * np.outer(frame.scale, frame.scale)
            if given["means"] is not None:
                means, _ = model.emission.in_frame(given["means"], covariance)
            return model.prior + model.around(
                (means, covariance), (data.n_sequences, data.n_rows), joined(start, transition)
            )

        if self.init_params == "auto" and given["means"] is None and m * k > m:
            return coupled_finalists(model, data, method, self.n_init, rng, around)
        one_chain = partial(one_chain_of, model)
        return (
            around(*of_coupled(data, m, k, ("random", False), one_chain, rng))
            for _ in range(self.n_init)
        )

    def _parameter_attributes(
        self, model: Model, weights: Array, parameters: Regression
    ) -> dict[str, Any]:
        means, covariance = model.emission.in_data_units(
            self._levelled(parameters.means), parameters.factor
        )
        if self.covariance_type == "diag":
            covariance = np.diagonal(covariance).copy()
        return {
            "startprob_": weights[:, 0].copy(),
            "transmat_": weights[:, 1:].copy(),
            "means_": means,
            "covariance_": covariance,
        }

    # -- predictions --------------------------------------------------------------------------

    def __sklearn_is_fitted__(self) -> bool:
        return all(name in vars(self) for name in _PARAMETER_NAMES)

    def _known(self, middle: bool) -> Known:
        """The parameters, whoever has set them, checked."""
        shape = np.shape(self.means_)
        if len(shape) != 3:
            raise ValueError(f"means_ must have shape (M, K, D), got {shape}")
        m, k, d = shape
        means = as_array("means_", self.means_, shape)
        with np.errstate(over="ignore"):
            most = 2 * k * np.abs(means).max(axis=1).sum(axis=0).max()
        if not np.isfinite(most):
            raise ValueError(
                f"means_ are as large as {np.abs(means).max():g}: their sums over chains and "
                "states would be no float64"
            )
        start = as_probabilities("startprob_", self.startprob_, (m, k))
        transition = as_probabilities("transmat_", self.transmat_, (m, k, k))
        full = np.ndim(self.covariance_) == 2
        covariance = as_array("covariance_", self.covariance_, (d, d) if full else (d,))
        check_positive("covariance_", covariance, full)
        covariance = covariance if full else np.diag(covariance)
        least = float(np.diagonal(covariance).min())
        if least < LEAST_NOISE:
            raise ValueError(f"covariance_ has a variance of {least:g}, below {LEAST_NOISE:g}")
        # Units in which the noise has variance 1, whatever data these parameters are from.
        # About a state's, so that equal means average to themselves.
        away = means - means[:, :1]
        origin = np.asarray(sum(means[:, 0] + away.mean(axis=1)))
        frame = Frame(origin, np.diagonal(covariance) ** -0.5, np.ones(d))
        emission = AdditiveGaussian(d, m, k, frame=frame)
        means, covariance = emission.in_frame(means, covariance)
        return Known(
            CoupledChains(m, k, self.factorisation),
            emission,
            joined(start, transition),
            regression(means, precision_factors(covariance[None])[0]),
        )

    def predict(self, X: ArrayLike, lengths: ArrayLike | None = None) -> NDArray[np.int64]:
        """Return the most probable path of all chains together, (N, M).

        Beyond 4,096 joint states paths of which each block of chains (of 4,096; otherwise each
        chain: see `factorisation`) has the best given the others: the best there is in most cases,
        which nothing guarantees.

        Parameters
        ----------
        X : array-like of shape (N, D)
        lengths : array-like of shape (S,), optional
        """
        answers, rows = self._prepare(X, lengths)
        return np.asarray(answers.labels(*rows))

    def decode(
        self, X: ArrayLike, lengths: ArrayLike | None = None
    ) -> tuple[float, NDArray[np.int64]]:
        """Return log p(X, T | theta) of the paths that `predict` finds, and the paths (N, M).

        Parameters
        ----------
        X : array-like of shape (N, D)
        lengths : array-like of shape (S,), optional

        Returns
        -------
        log_prob : float
            In nats, of all sequences together.
        states : ndarray of shape (N, M)
        """
        answers, rows = self._prepare(X, lengths)
        log_prob, states = answers.decode(*rows)
        return log_prob, states

    def predict_proba(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Probability of each chain's states for each row, (N, M, K), given the parameters.

        Exact up to 4,096 joint states; beyond that of q(T) as `factorisation` says, with blocks of
        4,096.

        Parameters
        ----------
        X : array-like of shape (N, D)
        lengths : array-like of shape (S,), optional
        """
        answers, rows = self._prepare(X, lengths)
        return in_type_of(rows[0], answers.responsibilities(*rows))

    def _log_likelihood(self, X: ArrayLike, lengths: ArrayLike | None) -> tuple[float, int]:
        answers, rows = self._prepare(X, lengths)
        return answers.log_evidence(*rows), len(rows[0])

    def score(self, X: ArrayLike, y: object = None, lengths: ArrayLike | None = None) -> float:
        """log p(X | theta) at the fitted parameters, in nats, of all sequences together.

        Exact up to 4,096 joint states. Beyond that it is a lower bound, the free energy of q(T) as
        `factorisation` says, with blocks of 4,096: log p(X | theta) is no less, and how much more
        is not known. `bic` and `aic` are then upper bounds.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : None
            Where scikit-learn has it; anything else is refused. Lengths go by name.
        lengths : array-like of shape (S,), optional
        """
        check_ignored(y)
        value, _ = self._log_likelihood(X, lengths)
        return value

    @property
    def n_parameters(self) -> int:
        """Free parameters: first states, transitions, the chains' means, and the covariance.

        Means add up, so that each chain but one has a level that could as well be another's.
        """
        now = self._now()
        now._check_is_fitted()
        m, k, d = np.shape(now.means_)
        covariance = d * (d + 1) // 2 if np.ndim(now.covariance_) == 2 else d
        return m * (k - 1) * (1 + k) + (m * (k - 1) + 1) * d + covariance


def _check_relative(name: str, covariance: Array, frame: Frame, least: float, most: float) -> None:
    """Raise ValueError where a variance of (D, D), or (D,), is far from that of the data."""
    each = np.diagonal(covariance) if covariance.ndim == 2 else covariance
    with np.errstate(over="ignore", under="ignore"):
        relative = each * frame.scale * frame.scale
    bad = np.flatnonzero(~((relative >= least) & (relative <= most)))
    if len(bad):
        index = [int(bad[0])] * covariance.ndim
        raise ValueError(
            f"{name}{index} is {each[bad[0]]:g}, {relative[bad[0]]:g} times that of X; "
            f"{least:g} to {most:g} times are allowed"
        )
