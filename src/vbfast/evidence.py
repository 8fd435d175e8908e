"""log p(X) from draws: two estimates that must agree, and keep to the bounds that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ._kernels.inputs import Assignment
from .draws import MOST_COMPONENTS, Draws, effective_sample_size, evidence, log_densities, orders
from .stats import Stats

if TYPE_CHECKING:
    from .data import ArrayData
    from .model import Model, Theta

__all__ = ["bridge", "estimate"]

Array = NDArray[np.float64]

EXACT = Assignment("exact", precise=True)
# Standard errors by which estimates and bounds may contradict each other.
ERRORS = 4
# Nats: a larger error of an evidence is no error, it is ignorance.
LARGEST_ERROR = 0.5
# Share of an evidence that rounding may take.
ROUNDING = 1e-9
# Draws of theta that bridge sampling looks at, of the posterior and of its proposal each.
BRIDGED = 300
# The proposal mixes posteriors on behalf of these shares of the rows: p(theta | X) is wider than
# p(theta | X, T).
SHARES = (1.0, 0.5, 0.2)


def estimate(
    model: Model, data: ArrayData, drawn: Draws[Theta], low: float, rng: np.random.Generator
) -> tuple[float, float, str]:
    """Return log p(X), its standard error, and what speaks against them: NaN where anything does.

    By Chib's identity and, independently of its point, by bridge sampling: the one of less error
    is returned, if the other does not contradict it.

    Parameters
    ----------
    model : Model
    data : ArrayData
    drawn : Draws
    low : float
        A lower bound of log p(X).
    rng : numpy.random.Generator
    """
    if model.latent.n_components > MOST_COMPONENTS:
        return np.nan, np.nan, ""
    best = drawn.best
    height = float(data.sum(model.visit, best, EXACT)["log_z"])
    value, error = evidence(height + best.log_prior, drawn.common, drawn.terms)
    if np.isnan(error):
        return value, error, ""
    other, other_error, highest = _bridged(model, data, drawn, rng)
    by = ["Chib's identity", "bridge sampling"]
    if other_error < error:
        value, error, other, other_error = other, other_error, value, error
        by.reverse()
    high = max(height, highest)
    slack = ROUNDING * abs(value) + data.resolution * data.total_weight
    found = f"log p(X) by {by[0]}, {value:.6g} +- {error:.2g},"
    against = ""
    if not error <= LARGEST_ERROR:
        against = f"the standard error would be {error:.2g} nats"
    elif value < low - ERRORS * error - slack:
        against = f"{found} is below the bound of mean field, {low:.6g}"
    elif value > high + ERRORS * error + slack:
        against = f"{found} is above log p(X | theta) of every draw, {high:.6g}"
    elif other_error <= LARGEST_ERROR and (
        abs(value - other) > ERRORS * np.hypot(error, other_error) + slack
    ):
        against = f"{found} is not {other:.6g} +- {other_error:.2g} as by {by[1]}"
    return (np.nan, np.nan, against) if against else (value, error, "")


def _bridged(
    model: Model, data: ArrayData, drawn: Draws[Theta], rng: np.random.Generator
) -> tuple[float, float, float]:
    """log p(X) by bridge sampling, its error, and the highest log p(X | theta) of the draws."""
    proposal = _proposal(model, drawn)
    n_chains, n_draws = drawn.log_joint.shape
    n = min(max(BRIDGED // n_chains, 1), n_draws)
    names = list(drawn.theta)
    of_posterior = [
        model.point(
            drawn.theta["weights"][chain, draw],
            model.emission.parameters(
                *(drawn.theta[name][chain, draw] for name in names if name != "weights")
            ),
        )
        for chain in range(n_chains)
        for draw in np.arange(1, n + 1) * n_draws // n - 1
    ]
    of_proposal = [
        model.sample(part, rng) for part in proposal for _ in range(BRIDGED // len(proposal))
    ]
    likelihoods, ratios = [], []
    for thetas in (of_posterior, of_proposal):
        stats = data.sum_each(model.visit_each, [(theta, EXACT) for theta in thetas])
        log_z = np.array([float(each["log_z"]) for each in stats])
        log_joint = log_z + [theta.log_prior for theta in thetas]
        found = [[model.log_density_terms(part, theta) for part in proposal] for theta in thetas]
        common = np.array([[common for common, _ in row] for row in found])
        terms = np.array([[terms for _, terms in row] for row in found])
        density = log_densities(common.ravel(), terms.reshape(-1, *terms.shape[2:]))
        log_q = logsumexp(density.reshape(common.shape), axis=1) - np.log(len(proposal))
        likelihoods.append(log_z)
        with np.errstate(invalid="ignore"):  # at a pole of both densities: no ratio, NaN
            ratios.append(log_joint - log_q)
    value, error = bridge(ratios[0].reshape(n_chains, n), ratios[1])
    return value, error, float(likelihoods[0].max())


def _proposal(model: Model, drawn: Draws[Theta]) -> list[Stats]:
    """Posteriors of some draws put together, components in one order; each of a share of the rows.

    Components keep the places that they have in the first point.
    """
    terms = np.array([model.log_density_terms(each, drawn.best)[1] for each in drawn.seen])
    aligned = [
        model.in_order(each, order) for each, order in zip(drawn.seen, orders(terms), strict=True)
    ]
    total = aligned[0]
    for n, each in enumerate(aligned[1:], 2):
        # Two shares that make 1 to the last bit: what is impossible, an excess of -1, stays so.
        total = total * (1 - 1 / n) + each * (1 / n)
    return [total * share + model.prior * (1 - share) if share < 1 else total for share in SHARES]


def bridge(of_posterior: Array, of_proposal: Array) -> tuple[float, float]:
    """Log of a normaliser and its standard error (Meng & Wong 1996; Fruehwirth-Schnatter 2004).

    Parameters
    ----------
    of_posterior : ndarray of shape (chain, draw)
        log f(theta) - log q(theta) at draws of the density that is f / Z.
    of_proposal : ndarray of shape (n,)
        The same at independent draws of q.

    Returns
    -------
    log_z, standard_error : float
    """
    if not (np.isfinite(of_posterior).all() and (of_proposal < np.inf).all()):
        return np.nan, np.nan
    n_posterior, n_proposal = effective_sample_size(of_posterior), len(of_proposal)
    share = n_posterior / (n_posterior + n_proposal)
    log_shares = np.log(share), np.log1p(-share)
    value = float(np.median(of_posterior))
    for _ in range(1000):
        last = value
        # Of f over the optimal mixture of f / Z and q, at draws of q; of q, at draws of f / Z.
        one = of_proposal - np.logaddexp(log_shares[0] + of_proposal - value, log_shares[1])
        two = -np.logaddexp(log_shares[0] + of_posterior - value, log_shares[1])
        value = float(logsumexp(one) - np.log(one.size) - logsumexp(two) + np.log(two.size))
        if not np.isfinite(value):
            return np.nan, np.nan
        if abs(value - last) < 1e-10 * max(1.0, abs(value)):
            break
    one, two = np.exp(one - one.max()), np.exp(two - two.max())
    variance = one.var() / one.mean() ** 2 / n_proposal
    variance += two.var() / two.mean() ** 2 / effective_sample_size(two)
    return value, float(np.sqrt(variance))
