"""The factorial hidden Markov model: coupled chains, an additive emission, and what methods ask."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import _kernels
from ._kernels.inputs import Assignment, Block, CoupledCoefficients
from .conjugate import Regression
from .emissions.additive import AdditiveGaussian
from .exceptions import improper_error
from .latents.coupled import CoupledChains
from .stats import Layout, Stats

__all__ = ["FactorialModel", "FactorialTheta"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FactorialTheta(CoupledCoefficients):
    """What a sweep reads off a posterior over theta; kernels see its `CoupledCoefficients`.

    Attributes
    ----------
    log_prior : float
        log p(theta) for a point, -KL(q || p) for a mean.
    parameters : Regression
    """

    log_prior: float
    parameters: Regression

    @property
    def arrays(self) -> dict[str, Array]:
        """What draws of theta are kept as."""
        return {"start": self.start, "transition": self.transition, **self.parameters.arrays}

    @property
    def rounding(self) -> float:
        """Nats a row that rounding may take from an objective here, beside a share of itself."""
        return self.parameters.rounding


@dataclass(frozen=True)
class FactorialModel:
    """M chains s^m, and rows x | s ~ N(sum_m W_m[s^m], C) (Ghahramani & Jordan 1997).

    Factorised assignments, draws, and best paths of more than 4,096 joint states go chain by chain,
    or by blocks of chains, each given the last q(T) of the others: data must have a memory for it,
    ``data.with_memory(model.memory_width)``, and no two fits or chains may share it.

    Parameters
    ----------
    latent : CoupledChains
    emission : AdditiveGaussian

    Attributes
    ----------
    prior : Stats
        Hyperparameters: a posterior is ``model.prior + statistics``.
    """

    latent: CoupledChains
    emission: AdditiveGaussian
    layout: Layout = field(init=False, repr=False)
    prior: Stats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, kind in (("latent", CoupledChains), ("emission", AdditiveGaussian)):
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise TypeError(
                    f"{name} of a FactorialModel must be {kind.__name__}(...), not {part!r}"
                )
        for name in ("n_chains", "n_components"):
            of_latent, of_emission = getattr(self.latent, name), getattr(self.emission, name)
            if of_latent != of_emission:
                raise ValueError(f"{name} of latent is {of_latent}, of emission {of_emission}")
        layout = Layout((("log_z", ()), *self.latent.fields(), *self.emission.fields()))
        object.__setattr__(self, "layout", layout)
        prior = layout.stats({**self.latent.prior(), **self.emission.prior()})
        object.__setattr__(self, "prior", prior)

    @property
    def memory_width(self) -> int:
        """Numbers that data remember of a row's q(T): see `CoupledChains`."""
        return self.latent.memory_width

    def _check_proper(self) -> None:
        if not self.emission.proper:
            raise improper_error(type(self.emission).__name__, self.emission.proper_with)

    def mode(self, posterior: Stats) -> FactorialTheta:
        """theta_MP: the mode of the posterior in (start, transition, W, C^-1)."""
        start, transition = self.latent.mode(posterior)
        return self.point(start, transition, self.emission.distribution(posterior).mode())

    def sample(self, posterior: Stats, rng: np.random.Generator) -> FactorialTheta:
        """Draw theta from the posterior.

        Raises
        ------
        ValueError
            If the prior is improper.
        """
        self._check_proper()
        start, transition = (q.sample(rng) for q in self.latent.distributions(posterior))
        return self.point(start, transition, self.emission.distribution(posterior).sample(rng))

    def mean(self, posterior: Stats) -> FactorialTheta:
        """Expected natural parameters.

        Raises
        ------
        ValueError
            If the prior is improper.
        """
        self._check_proper()
        start, transition, kl = self.latent.mean(posterior)
        q = self.emission.distribution(posterior)
        return self._theta(start, transition, q.mean(), -kl - self.emission.kl(q))

    def point(self, start: Array, transition: Array, parameters: Regression) -> FactorialTheta:
        """Theta at a point."""
        log_prior = self.latent.log_prior(start, transition) + self.emission.log_prior(parameters)
        return self._theta(start, transition, parameters, log_prior)

    def _theta(
        self, start: Array, transition: Array, parameters: Regression, log_prior: float
    ) -> FactorialTheta:
        return FactorialTheta(
            np.ascontiguousarray(parameters.factor),
            np.ascontiguousarray(self.emission.whitened_means(parameters)),
            self.emission.constant(parameters),
            np.ascontiguousarray(start),
            np.ascontiguousarray(transition),
            log_prior=log_prior,
            parameters=parameters,
        )

    def around(
        self,
        start: Array,
        transition: Array,
        means: Array,
        covariance: Array,
        n_sequences: int,
        n_rows: int,
    ) -> Stats:
        """Statistics of so many rows with these parameters, in the units of the frame."""
        return self.layout.stats(
            {
                **self.latent.around(start, transition, n_sequences, n_rows),
                **self.emission.around(means, covariance, n_rows),
            }
        )

    def visit(self, block: Block, theta: FactorialTheta, assignment: Assignment) -> Stats:
        """Assign the rows of a block to states and return their expected statistics.

        Raises
        ------
        ValueError
            If the block is in another frame than the emission, has weights, or no memory where one
            is needed, or the assignment can't be had: see `CoupledChains.kind`.
        """
        self.emission.units.check(block)
        if block.weights is not None:
            raise ValueError("rows of sequences can't have weights: give data without")
        kind = self.latent.kind(assignment)
        n_rows = len(block.values)
        if block.memory is None and kind not in ("exact", "joint_best"):
            raise ValueError(
                f"{kind!r} q(T) is found from the last one: give the data a memory, "
                "data.with_memory(model.memory_width)"
            )
        m, k, d = self.latent.n_chains, self.latent.n_components, self.emission.n_features
        raw = np.empty(_kernels.factorial.statistics_size(m, k, d))
        _kernels.factorial.visit(
            block,
            theta,
            kind,
            statistics=raw,
            seed=assignment.seed,
            sweep=assignment.sweep,
            block_states=self.latent.block_states,
            n_trials=self.latent.block_trials,
        )
        log_z, start, transition, rest = np.split(raw, np.cumsum([1, m * k, m * k * k]))
        return self.layout.stats(
            {
                "log_z": log_z[0] + block.constant,
                "start": start.reshape(m, k),
                "transition": transition.reshape(m, k, k),
                **self.emission.collect(rest, n_rows),
            }
        )

    def log_density_terms(self, posterior: Stats, theta: FactorialTheta) -> tuple[float, Array]:
        """Density of theta under a posterior: as `Model.log_density_terms`, of one order alone."""
        value = self.emission.distribution(posterior).log_density(theta.parameters)
        value += self.emission.log_volume
        each = zip(
            self.latent.distributions(posterior), (theta.start, theta.transition), strict=True
        )
        return value + sum(q.log_density(part) for q, part in each), np.zeros((1, 1))
