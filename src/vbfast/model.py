"""A model: a latent structure and an emission, and what a method can ask of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _kernels, loops
from ._kernels.inputs import Assignment, Block, Coefficients, Kernel
from .draws import Draws
from .exceptions import impossible_error, improper_error
from .stats import Layout, Stats

__all__ = ["Model", "Theta", "packed"]

Array = NDArray[np.float64]


@dataclass(kw_only=True)
class Theta(Coefficients):
    """What a sweep reads off a posterior over theta; kernels see its `Coefficients`.

    Attributes
    ----------
    log_prior : float
        What theta adds to the objective: log p(theta) for a point, -KL(q || p) for a mean.
    weights : ndarray
        The latent structure's probabilities, or exp E[log .] of them: of a mixture (K,), of a
        chain (K + 1, K), start and transition matrix, of coupled chains (M, K + 1, K).
    parameters
        The emission's: `Gaussians`, ...
    reference : ndarray
        What statistics are taken about, as the emission chooses: (K, ...), or nothing; of a product
        a tuple of each part's.
    """

    log_prior: float
    weights: Array
    parameters: Any
    reference: Any

    @property
    def arrays(self) -> dict[str, Array]:
        """What draws of theta are kept as."""
        return {"weights": self.weights, **self.parameters.arrays}

    @property
    def rounding(self) -> float:
        """Nats a row that rounding may take from an objective here, beside a share of itself."""
        return float(self.parameters.rounding)


def packed(
    latent: Any,
    emission: Any,
    log_weights: Array,
    weights: Array,
    parameters: Any,
    reference: Any = None,
) -> tuple[Kernel, Array, Array, Array | None, int, bool]:
    """Return theta as kernels read it: what `Coefficients` is made of.

    Parameters
    ----------
    latent, emission
    log_weights, weights : ndarray
        The latent structure's.
    parameters
        The emission's.
    reference : ndarray of shape (K, ...), optional
        What statistics are taken about; as the emission chooses where not given.
    """
    if reference is None:
        reference = emission.reference(parameters)
    scores, more = latent.coefficients(log_weights, weights)
    return (
        emission.kernel,
        emission.coefficients(parameters, reference),
        emission.offsets(parameters) + scores,
        more,
        emission.width,
        emission.may_be_impossible,
    )


# Rows that a component holds if it is not empty.
LEAST_HELD = 0.5


@dataclass(frozen=True)
class Model:
    """Rows t ~ latent, x | t ~ emission, with conjugate priors on theta.

    Parameters
    ----------
    latent : Mixture, Chain or CoupledChains
    emission : Gaussian, ...
        For coupled chains one to which all of them contribute, such as `AdditiveGaussian`.

    Attributes
    ----------
    prior : Stats
        Hyperparameters, of the same type as the statistics of data: a posterior is
        ``model.prior + statistics``.
    """

    latent: Any
    emission: Any
    layout: Layout = field(init=False, repr=False)
    prior: Stats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        latent, emission = self.latent, self.emission
        if not hasattr(latent, "memory_width"):
            raise TypeError(f"latent of a Model must be such as Mixture(2), not {latent!r}")
        coupled = hasattr(latent, "n_chains")
        if not hasattr(emission, "single_resolves") or hasattr(emission, "n_chains") != coupled:
            example = "AdditiveGaussian(2, 2, 2)" if coupled else "Gaussian(2)"
            raise TypeError(
                f"emission of a Model must be such as {example} where latent is "
                f"{type(latent).__name__}(...), not {emission!r}"
            )
        for name in ("n_chains", "n_components") if coupled else ():
            of_latent, of_emission = getattr(latent, name), getattr(emission, name)
            if of_latent != of_emission:
                raise ValueError(f"{name} of latent is {of_latent}, of emission {of_emission}")
        n_components = self.latent.n_components
        layout = Layout(
            (("log_z", ()), *self.latent.fields(), *self.emission.fields(n_components)),
            self.emission.moments,
        )
        object.__setattr__(self, "layout", layout)
        prior = {**self.latent.prior(), **self.emission.prior(n_components)}
        object.__setattr__(self, "prior", layout.stats(prior))

    @property
    def memory_width(self) -> int:
        """Numbers that data remember of a row where q(T) is found from the last one."""
        return int(self.latent.memory_width)

    @cached_property
    def _prior_weights(self) -> Any:
        return self.latent.distribution(self.prior)

    @cached_property
    def _prior_parameters(self) -> Any:
        return self.emission.distribution(self.prior)

    def _check_proper(self) -> None:
        if not self._prior_parameters.proper:
            raise improper_error(type(self.emission).__name__, self.emission.proper_with)

    def mode(self, posterior: Stats) -> Theta:
        """theta_MP: the mode of the posterior, for Gaussians in (weights, mu, Lambda)."""
        weights = self.latent.distribution(posterior).mode()
        return self.point(weights, self.emission.distribution(posterior).mode())

    @property
    def ascends(self) -> bool:
        """Whether it takes an ascent to find the mode: of a chain with a stationary start."""
        return bool(getattr(self.latent, "initial", "free") == "stationary")

    def mode_near(self, posterior: Stats, theta: Theta) -> Theta:
        """theta_MP where `ascends`; the ascent begins at `theta` where that is better."""
        weights = self.latent.distribution(posterior).mode_near(theta.weights)
        return self.point(weights, self.emission.distribution(posterior).mode())

    def sample(self, posterior: Stats, rng: np.random.Generator) -> Theta:
        """Draw theta from the posterior, after an order of its components.

        Raises
        ------
        ValueError
            If the prior is improper.
        """
        self._check_proper()
        posterior = self.in_order(posterior, self.latent.draw_order(posterior, rng))
        weights = self.latent.distribution(posterior).sample(rng)
        return self.point(weights, self.emission.distribution(posterior).sample(rng))

    def in_order(self, posterior: Stats, order: NDArray[np.int64]) -> Stats:
        """The posterior with its components in another order."""
        if np.array_equal(order, np.arange(len(order))):
            return posterior
        out = posterior.copy()
        for name, _ in self.emission.fields(len(order)):
            if len(out[name]) == len(order):
                out[name][...] = posterior[name][order]
        counts = posterior["strength"] - self.prior["strength"]
        for name, value in self.latent.around(counts[order]).items():
            out[name][...] = self.prior[name] + value
        return out

    def mean(self, posterior: Stats) -> Theta:
        """Expected natural parameters, E[log pi], E[Lambda], ... (Bishop 10.46).

        Raises
        ------
        ValueError
            If the prior is improper.
        """
        self._check_proper()
        weights = self.latent.distribution(posterior)
        parameters = self.emission.distribution(posterior)
        kl = weights.kl(self._prior_weights)
        kl += parameters.kl(self._prior_parameters)
        return self._theta(weights.mean_log(), parameters.mean(), -kl)

    def centre(self, posterior: Stats) -> Theta:
        """Theta at the posterior's means: of weights, means, precisions, rates, probabilities."""
        weights = self.latent.distribution(posterior).mean()
        return self.point(weights, self.emission.mean_point(posterior))

    def point(self, weights: Array, parameters: Any) -> Theta:
        """Theta at a point: the latent structure's probabilities, the emission's parameters."""
        log_prior = self.latent.log_prior(self._prior_weights, weights)
        log_prior += self.emission.log_prior(self._prior_parameters, parameters)
        return self._theta(_kernels.parameters.logarithms(weights), parameters, log_prior)

    def _theta(
        self,
        log_weights: Array,
        parameters: Any,
        log_prior: float,
        reference: Any = None,
    ) -> Theta:
        if reference is None:
            reference = self.emission.reference(parameters)
        # exp(-inf) is 0: what is impossible for the latent structure.
        weights = np.exp(log_weights)
        return Theta(
            *packed(self.latent, self.emission, log_weights, weights, parameters, reference),
            log_prior=log_prior,
            weights=weights,
            parameters=parameters,
            reference=reference,
        )

    def about(self, means: Array) -> Theta:
        """Theta of equal weights that statistics can be taken about: Gaussians of precision 1."""
        n_components = self.latent.n_components
        if np.ndim(means) != 2 or len(means) != n_components:
            raise ValueError(
                f"means must be ({n_components}, D), a row a component, not {np.shape(means)}"
            )
        means = np.ascontiguousarray(means, dtype=np.float64)
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.latent.equal)
        emission = self.emission
        return self._theta(log_weights, emission.unit(means), 0.0, emission.reference_at(means))

    def around(self, parameters: Any, counts: Any, *weights: Array) -> Stats:
        """Statistics of `counts` rows (K,) that are as the emission's parameters say.

        Of a Gaussian: about means (K, D), with the variance of all rows. Of an additive one: about
        sums of means (M K, D), with a covariance (D, D), both in the frame's units; the counts are
        those of sequences and rows, and the chains' probabilities (M, K + 1, K) the third argument.
        """
        return self.layout.stats(
            {**self.latent.around(counts, *weights), **self.emission.around(parameters, counts)}
        )

    def common(self, stats: Stats) -> Stats:
        """Statistics of as many rows in each component that are like all together.

        Of counts and symbols, of which a component that has not seen some would hold them
        impossible for ever; of Gaussians there is nothing.
        """
        return self.layout.stats(
            {**self.latent.around(stats["strength"]), **self.emission.common(stats)}
        )

    def coordinates(self, posterior: Stats) -> Array:
        """Unconstrained numbers for a posterior, (P,): what `at_coordinates` takes back.

        The latent structure's and the emission's. They say all of a posterior that data of known
        weight led to, and whatever their values are, they say one that can be read.

        Raises
        ------
        LinAlgError
            If there are none: a scatter is not positive definite, or the parts have none at all.
        """
        if not hasattr(self.latent, "coordinates"):
            raise np.linalg.LinAlgError(f"{type(self.latent).__name__} has no coordinates")
        counts = posterior["strength"] - self.prior["strength"]
        emission = self.emission.coordinates(posterior, self.latent.held(counts))
        return np.concatenate([self.latent.coordinates(posterior, counts), emission])

    def at_coordinates(self, coordinates: Array, like: Stats) -> Stats:
        """The posterior with these numbers, of as many rows as `like`.

        Components that are all but empty in `like` are as they are there.

        Raises
        ------
        LinAlgError
            If the numbers are too large.
        """
        like_counts = like["strength"] - self.prior["strength"]
        n = self.latent.n_coordinates
        with np.errstate(all="ignore"):
            counts, latent = self.latent.at_coordinates(coordinates[:n], like, like_counts)
            fields = self.emission.at_coordinates(
                coordinates[n:], counts, self.latent.held(like_counts), like
            )
        out = self.layout.stats({**latent, **fields})
        out.buffer += self.prior.buffer
        for moments in self.layout.moments:
            for name in (moments.mean, moments.scatter):  # these have the prior's in them
                out[name][...] = fields[name]
        if not np.isfinite(out.buffer).all():
            raise np.linalg.LinAlgError("these coordinates are too large for a posterior")
        return out

    def spurious(self, posteriors: Array, rows: float) -> NDArray[np.int64]:
        """A component of each posterior (n, size) that holds too few of the rows, (n,); or -1.

        Parameters
        ----------
        posteriors : ndarray of shape (n, size)
        rows : float
            That a unit of weight is.
        """
        few: Any = np.zeros((len(posteriors), self.latent.n_components), dtype=bool)
        for name, fewest in getattr(self.emission, "fewest_rows", {}).items():
            start, end, _ = self.layout.places[name]
            held = (posteriors[:, start:end] - self.prior[name]) * rows
            few = few | ((held > LEAST_HELD) & (held < fewest))
        return np.where(few.any(axis=1), few.argmax(axis=1), -1)

    def check_frame(self, block: Block) -> None:
        """Raise ValueError if the block is in another frame than the emission."""
        self.emission.units.check(block)

    def visit(self, block: Block, theta: Theta, assignment: Assignment) -> Stats:
        """Assign the rows of a block to components and return their expected statistics.

        Raises
        ------
        ValueError
            If the block is in another frame than the emission, or has no memory where the latent
            structure needs one.
        """
        raw = self._visit(block, theta, self._precise_enough(block, theta, assignment), 1)
        return self._collect(block, raw[0], theta)

    def visit_each(self, block: Block, requests: Sequence[tuple[Theta, Assignment]]) -> list[Stats]:
        """Return what `visit` does for each theta and assignment, from one pass for all alike."""
        if not self.latent.several:
            return [self.visit(block, *request) for request in requests]
        out: dict[int, Stats] = {}
        assignments = [self._precise_enough(block, *request) for request in requests]
        for assignment in dict.fromkeys(assignments):
            thetas = {n: requests[n][0] for n, each in enumerate(assignments) if each == assignment}
            together = Coefficients(
                self.emission.kernel,
                np.stack([theta.coefficients for theta in thetas.values()]),
                np.stack([theta.offsets for theta in thetas.values()]),
                n_categories=self.emission.width,
            )
            raw = self._visit(block, together, assignment, len(thetas))
            for row, (n, theta) in zip(raw, thetas.items(), strict=True):
                out[n] = self._collect(block, row, theta)
        return [out[n] for n in range(len(requests))]

    def _visit(
        self, block: Block, theta: Coefficients, assignment: Assignment, n_thetas: int
    ) -> Array:
        """What the kernel adds up, (n_thetas, size)."""
        self.check_frame(block)
        kernel = self.latent.kernel(block.single and not assignment.precise)
        size = kernel.statistics_size(
            theta.emission, self.latent.n_components, self.emission.n_features, theta.n_categories
        )
        raw = np.empty((n_thetas, size))
        likely = self.latent.likely(theta, assignment)
        impossible = kernel.visit(block, likely, assignment, statistics=raw.reshape(-1))
        if likely is not theta and impossible >= 0:
            impossible = kernel.visit(block, theta, assignment, statistics=raw.reshape(-1))
        looked_for = impossible is None and self.emission.may_be_impossible
        if looked_for and np.isneginf(raw[:, 0]).any():
            impossible = self._first_impossible(block, theta, assignment, raw)
        if impossible is not None and impossible >= 0:
            raise impossible_error(block.first_row + impossible)
        return raw

    def _first_impossible(
        self, block: Block, theta: Coefficients, assignment: Assignment, raw: Array
    ) -> int:
        """Number of the first row that is impossible under one of the thetas; -1 if none is."""
        if theta.offsets.ndim > 1:
            n = int(np.isneginf(raw[:, 0]).argmax())
            one = {"coefficients": theta.coefficients[n], "offsets": theta.offsets[n]}
            theta = replace(theta, **one)
        log_z = np.empty(len(block.values))
        kernel = self.latent.kernel(block.single and not assignment.precise)
        kernel.visit(block, theta, assignment, log_z=log_z)
        bad = np.isneginf(log_z)
        if block.weights is not None:
            bad &= block.weights > 0
        return int(bad.argmax()) if bad.any() else -1

    def _collect(self, block: Block, raw: Array, theta: Theta) -> Stats:
        fields, counts, rest = self.latent.collect(raw[1:], len(block.values))
        return self.layout.stats(
            {
                "log_z": raw[0] + block.constant,
                **fields,
                **self.emission.collect(rest, counts, theta.reference),
            }
        )

    def _precise_enough(self, block: Block, theta: Theta, assignment: Assignment) -> Assignment:
        """The assignment; a precise one where float32 numbers don't resolve some component.

        Nor do they count many copies of a row, as draws do.
        """
        single = block.single and not assignment.precise
        copies = assignment.kind == "draw" and block.weights is not None
        if single and (copies or not self.emission.single_resolves(theta.parameters)):
            return replace(assignment, precise=True)
        return assignment

    @property
    def compiled(self) -> bool:
        """Whether the compiled loop knows this model: see loops.py."""
        return bool(self.latent.compiled and self.emission.compiled)

    def chains(
        self,
        block: Block,
        posteriors: list[Stats],
        rngs: list[np.random.Generator],
        n_tune: int,
        n_draws: int,
        thin: int,
    ) -> tuple[Draws[Theta], Array] | None:
        """Run whole chains of full inference in compiled code; None where it doesn't take them.

        Returns the draws, and log p(X, T, theta) of each sweep before them, (chain, n_tune).

        Parameters
        ----------
        block : Block
            All rows.
        posteriors : list of Stats
            Where each chain starts.
        rngs : list of numpy.random.Generator
            One for each chain.
        n_tune, n_draws, thin : int
            Sweeps before the draws, 1 at least; draws; sweeps a draw.

        Raises
        ------
        ValueError
            If the block is in another frame than the emission, or the prior improper.
        """
        self._check_proper()
        if len(block.values) > loops.most_rows(self) or block.labels is not None:
            return None
        seeds = [int(rng.integers(2**63)) for rng in rngs]
        return loops.sample(self, block, posteriors, seeds, n_tune, n_draws, thin)

    def log_density_terms(self, posterior: Stats, theta: Theta) -> tuple[float, Array]:
        """Density of theta under a posterior, averaged over the components' orders.

        Returns c and M (K, K): the density is exp(c) times the sum over orders sigma of
        prod_k exp M[sigma(k), k], where the posterior's component sigma(k) plays theta's k. Of
        coupled chains in one order alone, M (1, 1) is 0.
        """
        common, terms = self.emission.distribution(posterior).log_density_terms(theta.parameters)
        common += self.emission.log_volume(self.latent.n_components)
        more, more_terms = self.latent.log_density_terms(posterior, theta.weights)
        return common + more, terms + more_terms
