"""Conjugate distributions: mode, mean, draws, KL and density, each against plain numerics."""

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats
from scipy.special import digamma, gammaln, logsumexp

import vbfast
from vbfast import Mixture
from vbfast.conjugate import (
    Dirichlet,
    Gamma,
    IndependentNormalGamma,
    NormalGamma,
    NormalWishart,
    Rates,
    StickBreaking,
    Tables,
    definite_solution,
    least_norm_solution,
    point,
    precision_factors,
)
from vbfast.exceptions import DegenerateError
from vbfast.stats import Layout

K, D = 3, 2


def dirichlet(rng):
    return Dirichlet(rng.uniform(1.2, 6, K))


def sticks(rng):
    return StickBreaking(rng.uniform(1.2, 6, (K - 1, 2)))


def wishart(groups):
    def make(rng):
        root = rng.standard_normal((groups, D, D))
        scatter = root @ np.swapaxes(root, 1, 2) + np.eye(D)
        strength, dof = rng.uniform(0.5, 4, K), rng.uniform(5, 9, groups)
        return NormalWishart(rng.standard_normal((K, D)), strength, dof, scatter)

    return make


def gamma(width):
    def make(rng):
        strength, dof = rng.uniform(0.5, 4, K), rng.uniform(5, 9, K)
        scatter = rng.uniform(1, 5, (K, width))
        return NormalGamma(rng.standard_normal((K, D)), strength, dof, scatter)

    return make


def independent(width, rows=True):
    def make(rng):
        strength = rng.uniform(1, 6, K) if rows else np.zeros(K)
        mean = rng.standard_normal((K, D)) if rows else np.zeros((K, D))
        dof, scatter = rng.uniform(5, 9, K), rng.uniform(1, 5, (K, width))
        center, pull = np.array([0.4, -0.3]), np.array([0.5, 1.2])
        return IndependentNormalGamma(mean, strength, dof, scatter, center, pull)

    return make


WEIGHTS = {"dirichlet": dirichlet, "sticks": sticks}
CONJUGATE = {
    "full": wishart(K), "tied": wishart(1), "diag": gamma(D), "spherical": gamma(1),
}  # fmt: skip
INDEPENDENT = {"independent-diag": independent(D), "independent-spherical": independent(1)}
ANY = CONJUGATE | INDEPENDENT


def table(*rows):
    makers = {name: maker for row in rows for name, maker in row.items()}
    return pytest.mark.parametrize("make", makers.values(), ids=makers.keys())


def unnormalised(distribution, theta):
    """Log density of theta up to a constant, also of the independent kind with rows."""
    if not isinstance(distribution, IndependentNormalGamma):
        return distribution.log_density(theta)
    lam = np.broadcast_to(theta.factor**2, (K, D))
    gap = distribution.strength * (theta.means - distribution.rows_mean) ** 2
    value = -0.5 * (lam * gap).sum()
    value += ((0.5 * distribution.dof - 1) * np.log(theta.factor**2)).sum()
    value -= 0.5 * (distribution.scatter * theta.factor**2).sum()
    return value - 0.5 * (distribution.pull * (theta.means - distribution.center) ** 2).sum()


def moved(theta, direction, step):
    """Theta a step further in (mu, Lambda)."""
    d_means, d_precision = direction
    means = theta.means + step * d_means
    if theta.factor.ndim == 2:
        return point(means, np.sqrt(theta.factor**2 * (1 + step * d_precision)))
    precision = np.swapaxes(theta.factor, 1, 2) @ theta.factor
    precision = precision + step * d_precision
    # A lower triangular with A'A = precision, from the Cholesky factor of the reversed matrix.
    reversed_ = np.linalg.cholesky(precision[:, ::-1, ::-1])
    return point(means, np.swapaxes(reversed_[:, ::-1, ::-1], 1, 2))


def directions(rng, theta, n):
    for _ in range(n):
        d_precision = 0.3 * rng.standard_normal(theta.factor.shape)
        if theta.factor.ndim == 3:
            d_precision = d_precision + np.swapaxes(d_precision, 1, 2)
        yield rng.standard_normal(theta.means.shape), d_precision


# Modes -------------------------------------------------------------------------------------------


@table(WEIGHTS)
def test_mode_of_weights(make):
    rng = np.random.default_rng(0)
    distribution = make(rng)
    mode = distribution.mode()
    assert mode.sum() == pytest.approx(1)
    best = distribution.log_density(mode)
    for _ in range(50):
        direction = rng.standard_normal(K)
        direction = mode * (direction - direction @ mode)  # the sum stays 1
        near = [distribution.log_density(mode + step * direction) for step in (1e-4, -1e-4)]
        assert max(near) < best
        assert abs(near[0] - near[1]) < 1e-4 * abs(best - near[0]) + 1e-9
    assert all(distribution.log_density(rng.dirichlet(np.ones(K))) <= best for _ in range(200))


def test_mode_of_weights_at_the_edge():
    np.testing.assert_array_equal(Dirichlet(np.array([1.0, 3.0, 1.0])).mode(), [0, 1, 0])
    np.testing.assert_allclose(Dirichlet(np.ones(4)).mode(), 0.25)
    flat = StickBreaking(np.array([[1.0, 1.0], [3.0, 1.0]]))
    np.testing.assert_allclose(flat.mode(), [0.5, 0.5, 0])
    for distribution in (
        Dirichlet(np.array([0.5, 2.0])),
        StickBreaking(np.array([[0.5, 2.0]])),
        StickBreaking(np.array([[2.0, 0.5]])),
    ):
        with pytest.raises(ValueError, match="no mode"):
            distribution.mode()


@table(ANY)
def test_mode_of_gaussians(make):
    rng = np.random.default_rng(1)
    distribution = make(rng)
    mode = distribution.mode()
    np.testing.assert_array_equal(mode.slack, 0)
    best = unnormalised(distribution, mode)
    for direction in directions(rng, mode, 50):
        up, down = (unnormalised(distribution, moved(mode, direction, s)) for s in (1e-4, -1e-4))
        assert max(up, down) < best
        assert abs(up - down) < 1e-2 * (best - min(up, down)) + 1e-9  # no slope
        assert unnormalised(distribution, moved(mode, direction, 0.3)) < best


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_flat_prior_has_the_mode_of_maximum_likelihood(kind):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((30, D))
    q = rng.dirichlet(np.ones(K), 30)
    prior = ref.flat_prior(kind, K, D)
    posterior = ref.update(prior, kind, *ref.moments(X, q, kind))
    weights, means, covariances = ref.mode(posterior, kind)
    np.testing.assert_allclose(weights, q.sum(0) / 30)
    np.testing.assert_allclose(Dirichlet(posterior.alpha).mode(), weights)
    groups = {"full": K, "tied": 1, "diag": K, "spherical": K}[kind]
    dof = np.broadcast_to(posterior.nu, groups)
    shape = {"full": (K, D, D), "tied": (1, D, D), "diag": (K, D), "spherical": (K, 1)}[kind]
    family = NormalWishart if kind in ("full", "tied") else NormalGamma
    mode = family(posterior.m, posterior.kappa, dof, posterior.S.reshape(shape)).mode()
    np.testing.assert_allclose(mode.means, means)
    if kind in ("full", "tied"):
        found = np.linalg.inv(np.swapaxes(mode.factor, 1, 2) @ mode.factor)
    else:
        found = mode.factor**-2
    np.testing.assert_allclose(found, covariances.reshape(shape))


def test_degenerate_and_empty():
    scatter = np.array([np.eye(2), [[1.0, 1.0], [1.0, 1.0]]])
    dof = np.array([5.0, 6.0])
    with pytest.raises(DegenerateError, match="component 1 "):
        NormalWishart(np.zeros((2, 2)), np.ones(2), dof, scatter).mode()
    with pytest.raises(DegenerateError, match="component 1 "):
        NormalGamma(np.zeros((2, 2)), np.ones(2), dof, np.array([[1, 1], [1, 0.0]])).mode()
    # exponent 0: no row at all under a flat prior
    empty = NormalWishart(np.full((2, 2), 9.0), np.zeros(2), np.array([2.0, 2.0]), 0 * scatter)
    mode = empty.mode()
    np.testing.assert_array_equal(mode.means, 0)
    np.testing.assert_array_equal(mode.factor, [np.eye(2)] * 2)
    mode = NormalGamma(np.full((2, 2), 9.0), np.zeros(2), np.ones(2), np.zeros((2, 2))).mode()
    np.testing.assert_array_equal(mode.means, 0)
    np.testing.assert_array_equal(mode.factor, 1)


# Draws, means and KL by Monte Carlo --------------------------------------------------------------


def assert_mean(values, expected):
    """Average of independent values is as expected, within 5 standard errors."""
    values = np.asarray(values)
    error = values.std(axis=0) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - expected) <= 5 * error + 1e-12)


@table(WEIGHTS)
def test_draws_of_weights(make):
    rng = np.random.default_rng(3)
    distribution, other = make(rng), make(rng)
    drawn = np.array([distribution.sample(rng) for _ in range(20_000)])
    assert np.all(drawn > 0)
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    assert_mean(drawn, distribution.mean())
    assert_mean(np.log(drawn), distribution.mean_log())
    part = drawn[:5000]
    gap = [distribution.log_density(w) - other.log_density(w) for w in part]
    assert_mean(gap, distribution.kl(other))
    assert distribution.kl(distribution) == pytest.approx(0, abs=1e-12)


def precisions(gaussians):
    if gaussians.factor.ndim == 3:
        return np.swapaxes(gaussians.factor, 1, 2) @ gaussians.factor
    return gaussians.factor**2


def squared(gaussians, x):
    """Squared distances |A (x - m)|^2 of a row from each component, (K,)."""
    away = x - gaussians.means
    if gaussians.factor.ndim == 3:
        return ((gaussians.factor @ away[:, :, None])[:, :, 0] ** 2).sum(axis=1)
    return ((gaussians.factor * away) ** 2).sum(axis=1)


def assert_is_expectation(mean, drawn, rng):
    """A mean's fields are expectations of those of the draws."""
    assert_mean([g.means for g in drawn], mean.means)
    assert_mean([precisions(g) for g in drawn], precisions(mean))
    assert_mean([g.log_det for g in drawn], mean.log_det)
    for x in 2 * rng.standard_normal((3, D)):
        assert_mean([squared(g, x) for g in drawn], squared(mean, x) + 2 * mean.slack)


@table(CONJUGATE)
def test_draws_of_gaussians(make):
    rng = np.random.default_rng(4)
    distribution = make(rng)
    drawn = [distribution.sample(rng) for _ in range(8000)]
    assert_is_expectation(distribution.mean(), drawn, rng)
    for g in drawn[:3]:
        again = point(g.means, g.factor)
        np.testing.assert_allclose(g.log_det, again.log_det)
        matrices = precisions(g) if g.factor.ndim == 3 else None
        if matrices is not None:
            np.testing.assert_allclose(g.log_det, np.linalg.slogdet(matrices)[1])
            assert not np.triu(g.factor, 1).any()
        else:
            each = np.log(np.broadcast_to(g.factor**2, (K, D))).sum(axis=1)
            np.testing.assert_allclose(g.log_det, each)
    inside = [squared(g, distribution.means) * distribution.strength for g in drawn]
    assert_mean(inside, D)  # strength (mu - m)' Lambda (mu - m) ~ chi^2(D)
    assert stats.kstest(np.array(inside)[:, 1], stats.chi2(D).cdf).pvalue > 1e-4
    # Not far from it, or the average would not settle.
    other = type(distribution)(
        distribution.means + 0.2, 0.4 * distribution.strength,
        distribution.dof + 1, 1.2 * distribution.scatter,
    )  # fmt: skip
    values = [distribution.log_density(g) - other.log_density(g) for g in drawn[:4000]]
    assert np.std(values) < 5
    assert_mean(values, distribution.kl(other))
    assert distribution.kl(distribution) == pytest.approx(0, abs=1e-10)


@table(CONJUGATE)
def test_kl_is_that_of_the_book(make):
    rng = np.random.default_rng(16)
    q, p = make(rng), make(rng)
    expected = 0.0
    for group in range(len(q.scatter)):
        if q.scatter.shape == (K, D):  # a gamma for each feature
            for d in range(D):
                expected += ref.normal_gamma_kl(
                    *(part for x in (q, p) for part in (
                        x.means[group, d : d + 1], x.strength[group], x.dof[group],
                        x.scatter[group, d],
                    ))
                )  # fmt: skip
        elif q.scatter.ndim == 2:
            expected += ref.normal_gamma_kl(
                *(part for x in (q, p) for part in (
                    x.means[group], x.strength[group], x.dof[group], x.scatter[group, 0],
                ))
            )  # fmt: skip
        else:
            of = slice(None) if len(q.scatter) == 1 else slice(group, group + 1)
            expected += ref.normal_wishart_kl(
                *(part for x in (q, p) for part in (
                    x.means[of], x.strength[of], x.dof[group], x.scatter[group],
                ))
            )  # fmt: skip
    assert q.kl(p) == pytest.approx(expected)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("d", [1, 3, 4, 5, 7, 8, 9, 13])
def test_densities_and_kl_of_many_features(d, tied):
    rng = np.random.default_rng([d, tied])
    groups = 1 if tied else K

    def make():
        root = rng.standard_normal((groups, d, 2 * d))
        scatter = root @ np.swapaxes(root, 1, 2)
        strength, dof = rng.uniform(0.5, 4, K), rng.uniform(d + 1, d + 9, groups)
        return NormalWishart(rng.standard_normal((K, d)), strength, dof, scatter)

    q, p = make(), make()
    theta = make().sample(rng)
    density = kl = 0.0
    for group, precision in enumerate(precisions(theta)):
        of = slice(None) if tied else slice(group, group + 1)
        of_q, of_p = ((x.means[of], x.strength[of], x.dof[group], x.scatter[group]) for x in (q, p))
        density += ref.normal_wishart_log_density(theta.means[of], precision, *of_q)
        kl += ref.normal_wishart_kl(*of_q, *of_p)
    assert q.log_density(theta) == pytest.approx(density, rel=1e-11)
    assert q.kl(p) == pytest.approx(kl, rel=1e-11)
    common, terms = q.log_density_terms(theta)
    assert common + np.trace(terms) == pytest.approx(density, rel=1e-11)


def test_distribution_without_a_covariance_is_told():
    scatter = np.array([np.eye(2), [[1.0, 2.0], [2.0, 1.0]]])
    distribution = NormalWishart(np.zeros((2, 2)), np.ones(2), np.full(2, 5.0), scatter)
    for ask in (lambda: distribution.mean(), lambda: distribution.log_normalizer):
        with pytest.raises(DegenerateError, match="component 1 "):
            ask()
    with pytest.raises(ValueError, match="strength has length 3, not 2"):
        NormalWishart(np.zeros((2, 2)), np.ones(3), np.full(2, 5.0), scatter).mode()
    with pytest.raises(TypeError, match="scatter must be contiguous float64"):
        NormalWishart(np.zeros((2, 2)), np.ones(2), np.full(2, 5.0), scatter.astype("f4")).mode()


def test_statistics_of_any_values():
    layout = Layout((("a", ()), ("b", (2,)), ("c", (2, 3)), ("d", (1,))))
    c = np.arange(6.0).reshape(3, 2).T
    for values in (
        {"a": 2, "b": [3, 4], "c": c},
        {"a": np.float64(2), "b": np.array([3, 4]), "c": c.copy()},
        {"a": np.float32(2), "b": np.array([3.0, 4.0]), "c": np.ascontiguousarray(c)},
    ):
        found = layout.stats(values)
        np.testing.assert_array_equal(found.buffer, [2, 3, 4, 0, 2, 4, 1, 3, 5, 0])
        np.testing.assert_array_equal(found["c"], c)
    np.testing.assert_array_equal(layout.stats({"c": 1.0}).buffer[3:9], 1)
    np.testing.assert_array_equal(layout.stats({"c": np.ones(3)})["c"], 1)
    for wrong in ({"b": np.ones(3)}, {"c": np.ones((3, 2))}, {"b": np.ones((2, 2))}):
        with pytest.raises(ValueError, match="could not broadcast"):
            layout.stats(wrong)


@table(CONJUGATE)
def test_marginal_law_of_precisions(make):
    rng = np.random.default_rng(5)
    distribution = make(rng)
    drawn = [distribution.sample(rng) for _ in range(4000)]
    if isinstance(distribution, NormalWishart):
        for group, (nu, S) in enumerate(zip(distribution.dof, distribution.scatter, strict=True)):
            # u'Lambda u / u'Wu ~ chi^2(nu), and u'Su / u'Lambda^-1 u ~ chi^2(nu - D + 1).
            u = rng.standard_normal(D)
            matrices = np.array([precisions(g)[group] for g in drawn])
            ratio = np.einsum("i,gij,j->g", u, matrices, u) / (u @ np.linalg.inv(S) @ u)
            assert stats.kstest(ratio, stats.chi2(nu).cdf).pvalue > 1e-4
            inverse = np.einsum("i,gij,j->g", u, np.linalg.inv(matrices), u)
            assert stats.kstest(u @ S @ u / inverse, stats.chi2(nu - D + 1).cdf).pvalue > 1e-4
    else:
        lam = np.array([g.factor**2 for g in drawn])
        for k in range(K):
            law = stats.gamma(distribution.dof[k] / 2, scale=2 / distribution.scatter[k, 0])
            assert stats.kstest(lam[:, k, 0], law.cdf).pvalue > 1e-4


# Densities ---------------------------------------------------------------------------------------


def test_weights_densities_are_those_of_scipy():
    rng = np.random.default_rng(6)
    for _ in range(20):
        alpha, weights = rng.uniform(0.3, 5, K), rng.dirichlet(np.ones(K))
        expected = stats.dirichlet.logpdf(weights, alpha)
        assert Dirichlet(alpha).log_density(weights) == pytest.approx(expected)
        ab, v = rng.uniform(0.3, 5, (K - 1, 2)), rng.uniform(size=K - 1)
        expected = stats.beta.logpdf(v, ab[:, 0], ab[:, 1]).sum()
        weights = StickBreaking.weights(v)
        assert StickBreaking(ab).log_density(weights) == pytest.approx(expected)


def test_densities_integrate_to_one():
    for alpha in ([1.0, 1.0], [2.5, 1.3], [0.7, 4.0]):
        two = Dirichlet(np.array(alpha))
        assert integrate.quad(lambda p, d=two: np.exp(d.log_density(np.array([p, 1 - p]))), 0, 1)[
            0
        ] == pytest.approx(1, abs=1e-6)
        one = StickBreaking(np.array([alpha]))
        assert integrate.quad(lambda p, d=one: np.exp(d.log_density(np.array([p, 1 - p]))), 0, 1)[
            0
        ] == pytest.approx(1, abs=1e-6)
    strength, dof = np.array([0.7]), np.array([4.0])
    mean, scatter = np.array([[0.3]]), np.array([[2.0]])
    for family, shape in ((NormalWishart, (1, 1, 1)), (NormalGamma, (1, 1))):
        distribution = family(mean, strength, dof, scatter.reshape(shape))
        u, m = np.meshgrid(np.linspace(-9, 4, 400), np.linspace(-1, 1, 801), indexing="ij")
        lam = np.exp(u)
        mu = mean[0, 0] + 9 * m / np.sqrt(strength * lam)
        density = np.array([
            np.exp(distribution.log_density(
                point(np.array([[a]]), np.full(shape, np.sqrt(b)))
            ))
            for a, b in zip(mu[::4, ::8].ravel(), lam[::4, ::8].ravel(), strict=True)
        ])  # fmt: skip
        jacobian = (lam * 9 / np.sqrt(strength * lam))[::4, ::8].ravel()
        cell = (u[4, 0] - u[0, 0]) * (m[0, 8] - m[0, 0])
        assert (density * jacobian).sum() * cell == pytest.approx(1, abs=1e-4)


@table(CONJUGATE)
def test_gaussian_densities_are_those_of_scipy(make):
    rng = np.random.default_rng(7)
    distribution = make(rng)
    theta = make(rng).sample(rng)
    lam = precisions(theta)
    expected = 0.0
    if isinstance(distribution, NormalWishart):
        for nu, S, L in zip(distribution.dof, distribution.scatter, lam, strict=True):
            expected += stats.wishart.logpdf(L, nu, np.linalg.inv(S))
        matrices = np.broadcast_to(lam, (K, D, D))
        for k in range(K):
            covariance = np.linalg.inv(distribution.strength[k] * matrices[k])
            law = stats.multivariate_normal(distribution.means[k], covariance)
            expected += law.logpdf(theta.means[k])
    else:
        rate = distribution.scatter / 2
        expected += stats.gamma.logpdf(lam, distribution.dof[:, None] / 2, scale=1 / rate).sum()
        spread = (distribution.strength[:, None] * lam) ** -0.5
        expected += stats.norm.logpdf(theta.means, distribution.means, spread).sum()
    assert distribution.log_density(theta) == pytest.approx(expected)


@table(CONJUGATE, INDEPENDENT)
def test_density_with_components_in_any_order(make):
    rng = np.random.default_rng(8)
    distribution = make(rng)
    theta = distribution.sample(rng)
    common, terms = distribution.log_density_terms(theta)
    rows = np.arange(K)
    for sigma in ([0, 1, 2], [1, 2, 0], [2, 1, 0]):
        permuted = reordered(distribution, sigma)
        if isinstance(permuted, IndependentNormalGamma):
            base_common, base = permuted.log_density_terms(theta)
            expected = base_common + np.trace(base)
        else:
            expected = permuted.log_density(theta)
        assert common + terms[sigma, rows].sum() == pytest.approx(expected)


def reordered(distribution, sigma):
    """The distribution whose component k is component sigma(k)."""
    if isinstance(distribution, IndependentNormalGamma):
        return IndependentNormalGamma(
            distribution.rows_mean[sigma], distribution.strength[sigma, 0],
            distribution.dof[sigma, 0], distribution.scatter[sigma],
            distribution.center, distribution.pull,
        )  # fmt: skip
    tied = len(distribution.scatter) < K
    group = slice(None) if tied else sigma
    return type(distribution)(
        distribution.means[sigma], distribution.strength[sigma],
        distribution.dof[group], distribution.scatter[group],
    )  # fmt: skip


# Predictive densities ----------------------------------------------------------------------------


def with_row(distribution, x, k):
    """The distribution after one row of component k."""
    strength = distribution.strength.copy()
    strength[k] += 1
    share = distribution.strength[k] / strength[k]
    away = x - distribution.means[k]
    means = distribution.means.copy()
    means[k] += away / strength[k]
    tied = len(distribution.scatter) < K
    group = 0 if tied else k
    dof, scatter = distribution.dof.copy(), distribution.scatter.copy()
    dof[group] += 1 if scatter.shape[1] > 1 else D
    more = share * (np.outer(away, away) if scatter.ndim == 3 else away**2)
    scatter[group] += more if scatter.shape[1] > 1 else more.sum()
    return type(distribution)(means, strength, dof, scatter)


@table(CONJUGATE)
def test_predictive_is_ratio_of_evidences(make):
    rng = np.random.default_rng(9)
    distribution = make(rng)
    X = 2 * rng.standard_normal((6, D))
    found = distribution.log_predictive(X)
    before = distribution.log_normalizer.sum()
    for x, row in zip(X, found, strict=True):
        for k in range(K):
            after = with_row(distribution, x, k).log_normalizer.sum()
            assert row[k] == pytest.approx(after - before - D / 2 * np.log(2 * np.pi))


def predictive_cdf(distribution, k):
    """CDF of a component's predictive density, one feature."""
    grid = np.linspace(-60, 60, 24_001)
    density = np.exp(distribution.log_predictive(grid[:, None]))[:, k]
    cdf = integrate.cumulative_trapezoid(density, grid, initial=0)
    assert cdf[-1] == pytest.approx(1, abs=2e-3)
    return lambda x: np.interp(x, grid, cdf)


@pytest.mark.parametrize("kind", ["wishart", "gamma", "independent"])
def test_rows_drawn_have_the_predictive_density(kind):
    rng = np.random.default_rng(10)
    mean, strength = np.array([[0.5], [-2.0]]), np.array([0.7, 3.0])
    dof, scatter = np.array([5.0, 8.0]), np.array([[2.0], [6.0]])
    distribution = {
        "wishart": lambda: NormalWishart(mean, strength, dof, scatter[:, :, None]),
        "gamma": lambda: NormalGamma(mean, strength, dof, scatter),
        "independent": lambda: IndependentNormalGamma(
            mean, strength, dof, scatter, np.array([0.3]), np.array([0.8])
        ),
    }[kind]()
    for k in range(2):
        rows = distribution.sample_rows(np.full(5000, k), rng)[:, 0]
        assert stats.kstest(rows, predictive_cdf(distribution, k)).pvalue > 1e-4


@table(CONJUGATE)
def test_rows_drawn_have_the_predictive_moments(make):
    rng = np.random.default_rng(11)
    distribution = make(rng)
    for k in range(K):
        rows = distribution.sample_rows(np.full(20_000, k), rng)
        assert_mean(np.tanh(rows - distribution.means[k]), 0)
        # Covariance of Student's t: E[Sigma] (1 + 1 / strength).
        group = 0 if len(distribution.scatter) < K else k
        covariance = np.cov(rows.T)
        scale = distribution.scatter[group]
        scale = np.diag(np.broadcast_to(scale, D)) if scale.ndim == 1 else scale
        drop = D + 1 if distribution.scatter.ndim == 3 else 2
        mean_covariance = scale / (distribution.dof[group] - drop)
        expected_covariance = mean_covariance * (1 + 1 / distribution.strength[k])
        size = np.sqrt(np.outer(np.diag(expected_covariance), np.diag(expected_covariance)))
        assert np.all(np.abs(covariance - expected_covariance) < 0.15 * size)


# Means independent of precisions: against brute-force quadrature ---------------------------------


class Grid:
    """One feature's density over (mu, log lambda), by brute force."""

    def __init__(self, m, n, dof, s, center, pull):
        self.u, self.mu = np.linspace(-14, 8, 2201), np.linspace(-14, 14, 2801)
        lam = np.exp(self.u)[:, None]
        self.log_joint = (
            dof / 2 * self.u[:, None]  # with the Jacobian of log lambda
            - lam * (s + n * (m - self.mu) ** 2) / 2
            - pull * (self.mu - center) ** 2 / 2
        )
        cell = (self.u[1] - self.u[0]) * (self.mu[1] - self.mu[0])
        self.log_total = logsumexp(self.log_joint) + np.log(cell)
        self.share = np.exp(self.log_joint - self.log_total) * cell


SINGLE = [
    # m, n, dof, s, center, pull
    (0.5, 0.0, 4.0, 2.0, 0.0, 1.0),
    (1.5, 8.0, 6.0, 3.0, 0.0, 0.5),
    (-2.0, 3.0, 5.0, 0.8, 2.0, 1.0),  # prior and data disagree
    (0.0, 40.0, 44.0, 30.0, 0.3, 0.2),
]


def single(row):
    m, n, dof, s, center, pull = row
    return IndependentNormalGamma(
        np.array([[m]]), np.array([n]), np.array([dof]), np.array([[s]]),
        np.array([center]), np.array([pull]),
    )  # fmt: skip


@pytest.mark.parametrize("row", SINGLE)
def test_independent_normaliser_and_draws(row):
    distribution, grid = single(row), Grid(*row)
    # The normaliser shows in log_density_terms: unnormalised density minus it.
    theta = point(np.array([[0.4]]), np.array([[1.3]]))
    m, n, dof, s, center, pull = row
    lam = 1.3**2
    log_density = (dof / 2 - 1) * np.log(lam) - lam * (s + n * (m - 0.4) ** 2) / 2
    log_density -= pull * (0.4 - center) ** 2 / 2
    common, terms = distribution.log_density_terms(theta)
    assert common + terms[0, 0] == pytest.approx(log_density - grid.log_total, abs=1e-6)
    # Draws.
    rng = np.random.default_rng(12)
    drawn = [distribution.sample(rng) for _ in range(6000)]
    mu = np.array([g.means[0, 0] for g in drawn])
    u = np.array([2 * np.log(g.factor[0, 0]) for g in drawn])
    for values, axis, marginal in ((mu, grid.mu, 0), (u, grid.u, 1)):
        mass = grid.share.sum(axis=marginal)
        cdf = np.cumsum(mass) - mass / 2
        test = stats.kstest(values, lambda x, a=axis, c=cdf: np.interp(x, a, c))
        assert test.pvalue > 1e-4
    assert_mean(mu * u, (grid.share * grid.mu * grid.u[:, None]).sum())


@pytest.mark.slow
@pytest.mark.parametrize("row", SINGLE)
def test_independent_mean_field_is_the_best_factorised(row):
    distribution, grid = single(row), Grid(*row)
    mean = distribution.mean()
    _m, _n, dof, _s, center, pull = row
    expected_precision = mean.factor[0, 0] ** 2

    def divergence(mu_mean, mu_variance, a, b):
        """KL(q(mu) q(lambda) || density), q normal and gamma."""
        log_q = stats.norm.logpdf(grid.mu, mu_mean, np.sqrt(mu_variance))
        log_q = log_q + (stats.gamma.logpdf(np.exp(grid.u), a, scale=1 / b) + grid.u)[:, None]
        cell = (grid.u[1] - grid.u[0]) * (grid.mu[1] - grid.mu[0])
        q = np.exp(log_q) * cell
        return (q * (log_q - (grid.log_joint - grid.log_total))).sum()

    variance = 2 * mean.slack[0] / expected_precision
    a, b = dof / 2, dof / 2 / expected_precision
    best = divergence(mean.means[0, 0], variance, a, b)
    assert best >= -1e-9
    for factor in (0.98, 1.02):
        assert divergence(mean.means[0, 0] + 0.05 * (factor - 1) * 50, variance, a, b) > best
        assert divergence(mean.means[0, 0], variance * factor, a, b) > best
        assert divergence(mean.means[0, 0], variance, a, b * factor) > best
        assert divergence(mean.means[0, 0], variance, a * factor, b) > best
    # log_det is E[log lambda] of q.
    assert mean.log_det[0] == pytest.approx(digamma(a) - np.log(b))
    # kl: against the prior, which has no rows.
    prior = single((0.0, 0.0, 4.0, 2.0, center, pull))
    expected = stats_kl_normal(mean.means[0, 0], variance, center, 1 / pull)
    expected += ref.gamma_kl(a, b, 2.0, 1.0)
    assert distribution.kl(prior) == pytest.approx(expected)


def stats_kl_normal(m, v, m0, v0):
    return 0.5 * (v / v0 - 1 - np.log(v / v0) + (m - m0) ** 2 / v0)


@pytest.mark.parametrize("row", SINGLE)
def test_independent_predictive(row):
    distribution = single(row)
    mean = distribution.mean()
    precision = mean.factor[0, 0] ** 2
    variance = 2 * mean.slack[0] / precision
    a = row[2] / 2
    u = np.linspace(-25, 6, 40_001)
    lam = np.exp(u)
    weight = stats.gamma.pdf(lam, a, scale=precision / a) * lam
    for x in (-3.0, 0.2, 8.0):
        density = stats.norm.pdf(x, mean.means[0, 0], np.sqrt(1 / lam + variance))
        expected = np.log(integrate.trapezoid(weight * density, u))
        found = distribution.log_predictive(np.array([[x]]))[0, 0]
        assert found == pytest.approx(expected, abs=1e-5)


def test_independent_prior_density():
    rng = np.random.default_rng(13)
    for width in (1, D):
        prior = independent(width, rows=False)(rng)
        theta = prior.sample(rng)
        expected = stats.norm.logpdf(theta.means, prior.center, prior.pull**-0.5).sum()
        expected += stats.gamma.logpdf(
            theta.factor**2, prior.dof / 2, scale=2 / prior.scatter
        ).sum()
        assert prior.log_density(theta) == pytest.approx(expected)
        common, terms = prior.log_density_terms(theta)
        assert common + np.trace(terms) == pytest.approx(expected)
        drawn = [prior.sample(rng) for _ in range(4000)]
        assert_is_expectation(prior.mean(), drawn, rng)


def test_independent_spherical_draws_agree_with_importance_weights():
    # No closed form for P = D means on one precision: weigh prior draws by the rows' likelihood.
    rng = np.random.default_rng(14)
    distribution = independent(1)(rng)
    n = 400_000
    k = 1
    lam = rng.standard_gamma(distribution.dof[k, 0] / 2, n) / (distribution.scatter[k, 0] / 2)
    mu = distribution.center + rng.standard_normal((n, D)) / np.sqrt(distribution.pull)
    gap = ((mu - distribution.rows_mean[k]) ** 2).sum(axis=1)
    log_weight = -distribution.strength[k, 0] * lam * gap / 2
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    drawn = [distribution.sample(rng) for _ in range(4000)]
    for of_draw, of_prior in (
        (np.array([g.means[k] for g in drawn]), mu),
        (np.array([[np.log(g.factor[k, 0] ** 2)] for g in drawn]), np.log(lam)[:, None]),
        (np.array([g.means[k] * g.factor[k, 0] for g in drawn]), mu * np.sqrt(lam)[:, None]),
    ):
        expected = weight @ of_prior
        error = np.sqrt((weight**2) @ (of_prior - expected) ** 2)
        error = np.hypot(error, of_draw.std(axis=0) / np.sqrt(len(of_draw)))
        assert np.all(np.abs(of_draw.mean(axis=0) - expected) < 5 * error)


# One feature: all families are the same ----------------------------------------------------------


def test_one_feature_is_the_same_in_every_family():
    rng = np.random.default_rng(15)
    mean, strength = rng.standard_normal((K, 1)), rng.uniform(0.5, 4, K)
    dof, scatter = rng.uniform(3, 9, K), rng.uniform(1, 5, (K, 1))
    a = NormalWishart(mean, strength, dof, scatter[:, :, None])
    b = NormalGamma(mean, strength, dof, scatter)
    theta = b.sample(rng)
    as_matrix = point(theta.means, theta.factor[:, :, None])
    assert a.log_density(as_matrix) == pytest.approx(b.log_density(theta))
    np.testing.assert_allclose(a.mean().log_det, b.mean().log_det)
    np.testing.assert_allclose(a.mean().slack, b.mean().slack)
    np.testing.assert_allclose(a.mode().factor[:, :, 0], b.mode().factor)
    np.testing.assert_allclose(a.log_predictive(mean), b.log_predictive(mean))
    np.testing.assert_allclose(a.log_normalizer, b.log_normalizer)


def test_expected_log_weights_are_slopes():
    # mean_log of a Dirichlet is the slope of its log normaliser.
    alpha = np.array([0.3, 2.0, 7.0])
    step = 1e-6
    for k in range(3):
        up, down = alpha.copy(), alpha.copy()
        up[k] += step
        down[k] -= step
        slope = (Dirichlet(up).log_normalizer - Dirichlet(down).log_normalizer) / (2 * step)
        assert Dirichlet(alpha).mean_log()[k] == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("weight_prior", ["dirichlet_distribution", "dirichlet_process"])
def test_density_of_weights_averaged_over_orders(weight_prior):
    # Orders weighed by p(T), densities by the book: against the sum over all of them.
    latent = Mixture(3, weight_prior, 0.7)
    counts, weights = np.array([4.0, 1.0, 2.0]), np.array([0.5, 0.3, 0.2])
    layout = Layout(latent.fields())

    def posterior(order):
        return layout.stats(latent.prior()) + layout.stats(latent.around(counts[list(order)]))

    def log_prob(order):
        if weight_prior == "dirichlet_distribution":
            return 0.0
        n = counts[list(order)]
        beyond = n[::-1].cumsum()[::-1][1:]
        return (special.betaln(1 + n[:-1], 0.7 + beyond) - special.betaln(1, 0.7)).sum()

    orders = list(itertools.permutations(range(3)))
    log_share = np.array([log_prob(order) for order in orders])
    log_share -= special.logsumexp(log_share)
    each = [latent.distribution(posterior(order)).log_density(weights) for order in orders]
    common, terms = latent.log_density_terms(posterior(range(3)), weights)
    over = special.logsumexp([terms[list(order), range(3)].sum() for order in orders])
    assert common + over == pytest.approx(special.logsumexp(log_share + each), rel=1e-12)
    # A chain of draws visits orders in proportion.
    rng = np.random.default_rng(15)
    now, seen = (0, 1, 2), dict.fromkeys(orders, 0)
    for _ in range(20_000):
        now = tuple(now[i] for i in latent.draw_order(posterior(now), rng))
        seen[now] += 1
    if weight_prior == "dirichlet_distribution":
        assert seen[0, 1, 2] == 20_000
    else:
        np.testing.assert_allclose(
            np.array(list(seen.values())) / 2e4, np.exp(log_share), atol=0.02
        )


def test_independent_mode_is_the_higher_of_two():
    # Rows far from the prior's mean: mu near them and lambda large, or mu near it and lambda small.
    one = np.ones(1)
    for apart, scatter, pull in ((5.0, 0.01, 10.0), (5.0, 0.001, 3.0), (0.3, 0.01, 10.0)):
        made = IndependentNormalGamma(
            np.array([[apart]]), 10 * one, 12 * one, np.array([[scatter]]), 0 * one, pull * one
        )

        def log_density(mu, log_lam, apart=apart, scatter=scatter, pull=pull):
            lam = np.exp(log_lam)
            return 5 * log_lam - lam * (scatter + 10 * (apart - mu) ** 2) / 2 - pull * mu**2 / 2

        mode = made.mode()
        grid = np.meshgrid(np.linspace(-1, 6, 701), np.linspace(-5, 11, 701))
        reached = log_density(mode.means[0, 0], 2 * np.log(mode.factor[0, 0]))
        assert reached >= log_density(*grid).max() - 1e-9


@pytest.mark.parametrize("held", [1.0, 1e-6, 1e-11])
def test_mode_of_a_component_that_holds_little_of_a_row(held):
    # Under a flat prior rows of weight w have w times the scatter, and the same covariance.
    mean, strength = np.zeros((1, 2)), np.full(1, held)
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    found = NormalWishart(mean, strength, 2 + strength, held * covariance[None]).mode().factor[0]
    np.testing.assert_allclose(found.T @ found, np.linalg.inv(covariance), rtol=1e-4)
    variances = np.array([[2.0, 0.5]])
    found = NormalGamma(mean, strength, 1 + strength, held * variances).mode().factor
    np.testing.assert_allclose(found, variances**-0.5, rtol=1e-4)


# Rates and tables --------------------------------------------------------------------------------

C = 3


def rates(rng):
    return Gamma(rng.uniform(0.2, 5, (K, D)), rng.uniform(0.5, 3, (K, D)))


def tables(rng):
    excess = rng.uniform(0.2, 5, (K, D, C))
    excess[:, 1, 2] = -1.0  # a symbol that the second feature doesn't have
    return Tables(excess)


discrete = table({"gamma": rates, "tables": tables})


def parts(distribution):
    """Each independent part as SciPy has it: (k, name of its entries in a theta, frozen law)."""
    for k, j in itertools.product(range(K), range(D)):
        if isinstance(distribution, Gamma):
            shape, rate = distribution.shape[k, j], distribution.rate[k, j]
            yield k, j, slice(None), stats.gamma(shape, scale=1 / rate)
        else:
            alpha = distribution.dirichlet.concentration[k, j]
            yield k, j, alpha > 0, stats.dirichlet(alpha[alpha > 0])


def values_of(theta):
    (values,) = theta.arrays.values()
    return values


@discrete
def test_densities_of_rates_and_tables_are_those_of_scipy(make):
    rng = np.random.default_rng(1)
    distribution = make(rng)
    theta = distribution.sample(rng)
    expected = np.zeros(K)
    terms = np.zeros((K, K))
    for k, j, possible, law in parts(distribution):
        expected[k] += law.logpdf(np.atleast_1d(values_of(theta)[k, j])[possible]).item()
        for i in range(K):
            terms[k, i] += law.logpdf(np.atleast_1d(values_of(theta)[i, j])[possible]).item()
    assert distribution.log_density(theta) == pytest.approx(expected.sum())
    common, found = distribution.log_density_terms(theta)
    np.testing.assert_allclose(common + found, terms)


@discrete
def test_draws_and_means_of_rates_and_tables(make):
    rng = np.random.default_rng(2)
    distribution = make(rng)
    drawn = np.array([values_of(distribution.sample(rng)) for _ in range(4000)])
    mean = distribution.mean()
    expected = (mean.rates, mean.log_rates) if make is rates else (mean.values, mean.logs)
    possible = drawn[0] > 0
    np.testing.assert_array_equal(values_of(distribution.mean_point()), expected[0])
    for values, want in ((drawn, expected[0]), (np.log(np.maximum(drawn, 1e-300)), expected[1])):
        error = values.std(axis=0)[possible] / np.sqrt(4000)
        assert np.all(np.abs(values.mean(axis=0) - want)[possible] < 5 * error)
    for k, j, at, law in parts(distribution):
        marginal = law if make is rates else stats.beta(law.alpha[0], law.alpha[1:].sum())
        values = drawn[:, k, j] if make is rates else drawn[:, k, j][:, at][:, 0]
        assert stats.kstest(values, marginal.cdf).pvalue > 1e-4


@discrete
def test_mode_of_rates_and_tables(make):
    rng = np.random.default_rng(3)
    distribution = make(rng)
    mode = distribution.mode()
    top = distribution.log_density(mode)
    for _ in range(200):
        values = values_of(mode) * np.exp(0.05 * rng.standard_normal(values_of(mode).shape))
        if make is tables:
            values /= values.sum(axis=2, keepdims=True)
        assert distribution.log_density(type(mode).point(values)) < top


@discrete
def test_kl_of_rates_and_tables(make):
    rng = np.random.default_rng(4)
    q, p = make(rng), make(rng)
    assert q.kl(q) == pytest.approx(0, abs=1e-12)
    gaps = []
    for _ in range(4000):
        theta = q.sample(rng)
        gaps.append(q.log_density(theta) - p.log_density(theta))
    assert abs(np.mean(gaps) - q.kl(p)) < 5 * np.std(gaps) / np.sqrt(4000)
    plain = 0.0
    if make is rates:
        each = (x.ravel() for x in (q.shape, q.rate, p.shape, p.rate))
        for a, b, a0, b0 in zip(*each, strict=True):
            plain += ref.gamma_kl(a, b, a0, b0)
    else:
        plain = ref.dirichlet_tables_kl(q.dirichlet.concentration, p.dirichlet.concentration)
    assert q.kl(p) == pytest.approx(plain)


def test_predictive_counts_are_negative_binomial():
    rng = np.random.default_rng(5)
    distribution = rates(rng)
    X = rng.integers(0, 12, (20, D)).astype(float)
    p = distribution.rate / (distribution.rate + 1)
    expected = stats.nbinom.logpmf(X[:, None], distribution.shape, p).sum(axis=2)
    np.testing.assert_allclose(distribution.log_predictive(X), expected, rtol=1e-12)
    # By quadrature over one rate, and by draws.
    law = stats.gamma(distribution.shape[0, 0], scale=1 / distribution.rate[0, 0])
    value, _ = integrate.quad(lambda r: stats.poisson.pmf(3, r) * law.pdf(r), 0, np.inf)
    assert stats.nbinom.pmf(3, distribution.shape[0, 0], p[0, 0]) == pytest.approx(value)
    drawn = distribution.sample_rows(np.zeros(20_000, dtype=int), rng)[:, 0]
    assert np.mean(drawn == 3) == pytest.approx(value, abs=5 * np.sqrt(value / 20_000))


def test_rates_and_tables_without_a_mode():
    with pytest.raises(ValueError, match="shape < 1 has no mode"):
        Gamma(np.full((1, 1), -0.1), np.ones((1, 1))).mode()
    with pytest.raises(ValueError, match="concentration < 1 has no mode"):
        Tables(np.full((1, 1, 2), -0.1)).mode()


def test_parameters_of_an_empty_component_are_those_of_all_rows():
    mode = Gamma(np.array([[6.0, 0.0], [0.0, 0.0]]), np.array([[3.0, 3.0], [0.0, 0.0]])).mode()
    np.testing.assert_array_equal(mode.rates, [[2.0, 0.0], [2.0, 0.0]])
    assert mode.log_rates[0, 1] == -np.inf
    excess = np.array([[[3.0, 1.0, 0.0], [4.0, 0.0, -1.0]], np.zeros((2, 3))])
    excess[1, 1, 2] = -1.0
    mode = Tables(excess).mode()
    np.testing.assert_array_equal(mode.values[0], [[0.75, 0.25, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(mode.values[1], mode.values[0])
    none = Tables(np.minimum(excess, 0.0)).mode().values
    np.testing.assert_allclose(none[0], [[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    assert not Gamma(np.zeros((1, 1)), np.zeros((1, 1))).mode().rates.any()


def test_tables_of_tiny_concentrations_can_be_drawn():
    rng = np.random.default_rng(6)
    drawn = Tables(np.full((1, 500, 3), 1e-8 - 1)).sample(rng).values[0]
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0)
    share = np.bincount(drawn.argmax(axis=1), minlength=3) / 500
    np.testing.assert_allclose(share, 1 / 3, atol=0.1)
    assert (drawn.max(axis=1) > 1 - 1e-6).all()
    assert (drawn > 0).all()


# Precisions of independent means ------------------------------------------------------------------


def one_precision(dof, strength, scatter, gaps, pulls):
    """One component; `gaps` of the rows' mean from the centre, on one precision."""
    gaps, pulls = np.atleast_1d(gaps).astype(float), np.atleast_1d(pulls).astype(float)
    return IndependentNormalGamma(
        gaps[None], np.array([float(strength)]), np.array([float(dof)]),
        np.array([[float(scatter)]]), np.zeros(len(gaps)), pulls,
    )  # fmt: skip


def density_on_grid(distribution):
    """Points of u = log lambda, log density of u there less its largest, the largest, and steps.

    Around each place where the density is stationary, found by sign changes of its slope: 40 widths
    of the narrowest mode that there may be, in steps of a 50th.
    """
    d = distribution
    a, b, s = 0.5 * d.dof[0, 0], 0.5 * d.scatter[0, 0], d.strength[0, 0]
    squares = (d.rows_mean[0] - d.center) ** 2

    def slope(u):
        with np.errstate(over="ignore"):
            w = s / d.pull * np.exp(u)[:, None]
        v = 1 / (1 + 1 / np.maximum(w, 1e-300))
        return a - b * np.exp(u) - (0.5 * v + 0.5 * d.pull * squares * v * (1 - v)).sum(axis=1)

    low = 2 * a / (2 * b + s * (squares + 1 / d.pull).sum())
    coarse = np.linspace(np.log(low) - 1e-3, np.log(a / b) + 1e-3, 200_001)
    found = coarse[:-1][np.diff(np.sign(slope(coarse))) != 0]
    width = 1 / np.sqrt(a)
    for n in range(40):  # by halves
        step = (coarse[1] - coarse[0]) / 2 ** (n + 1)
        found = np.where(np.sign(slope(found)) == np.sign(slope(found + step)), found + step, found)
    side = width * np.arange(-40, 40, 0.02)
    side = np.concatenate([side, np.arange(-40 / a, 40 / a, 1 / a / 50)]) if a < 20 else side
    u = np.unique(np.concatenate([x + side for x in [*found, coarse[0], coarse[-1]]]))
    values = d._log_marginal(np.exp(u)[:, None, None])[:, 0, 0] + u
    return u, values - values.max(), values.max()


PRECISIONS = {
    "plain": (5, 3, 2, 0.5, 1),
    "no rows": (5, 0, 2, 0.5, 1),
    "few degrees": (0.2, 1, 1e-3, 2.0, 1),
    "far": (5, 3, 2, 1e5, 1),
    "constant": (15, 13, 1e-6, 1e5, 1),
    "far and loose": (15, 13, 1e-6, 1e5, 1e-9),
    "far and tight": (15, 13, 1e-6, 30.0, 1e6),
    "two modes": (30, 10, 1e-3, 5.0, 2.35),
    "many degrees": (1e6, 3, 2e6, 0.5, 1),
    "many degrees, far": (1e6, 3, 2, 1e5, 1),
    "many degrees, two modes": (1e4, 1e4, 1.0, 100.0, 6.0),
    "most degrees": (1e12, 3, 1e12, 0.1, 1),
    "spherical": (9, 4, 2, [0.5, 3.0], [1, 0.1]),
    "spherical, many modes": (400, 10, 1e-9, [30.0, 1e4, 2e8], [1e4, 1, 1e-6]),
}


@pytest.mark.parametrize("told", PRECISIONS.values(), ids=PRECISIONS)
def test_precisions_of_independent_means(told):
    """Integrals and draws are those of the density, by brute force."""
    distribution = one_precision(*told)
    u, values, top = density_on_grid(distribution)
    steps = np.diff(u)
    mass = 0.5 * steps * (np.exp(values[1:]) + np.exp(values[:-1]))
    # A term of the density is known to so many digits.
    digits = 1e-15 * (abs(top) + 0.5 * told[0] * np.abs(u).max())
    expected = np.log(mass.sum()) + top
    found = distribution._over_precisions(None)[0, 0]
    assert found == pytest.approx(expected, rel=1e-12, abs=2e-4 + 10 * digits)
    if digits > 1e-3:
        return
    rng = np.random.default_rng(1)
    n = 4_000
    draws = np.log(
        [distribution._over_precisions(int(rng.integers(2**63)))[0, 0] for _ in range(n)]
    )
    chance = np.interp(draws, u, np.concatenate([[0], np.cumsum(mass)]) / mass.sum())
    assert stats.kstest(chance, "uniform").pvalue > 1e-4


def test_normaliser_of_a_gamma_precision():
    for dof in (0.01, 1, 30, 1e5, 1e9, 1e14):
        for scatter in (1e-200, 1e-6, 1.0, 1e9, 1e200):
            distribution = one_precision(dof, 0, max(scatter, dof * 1e-25), 0.5, 1)
            a, b = 0.5 * dof, 0.5 * distribution.scatter[0, 0]
            found = distribution._over_precisions(None)[0, 0]
            size = abs(gammaln(a)) + abs(a * np.log(b)) + 1
            assert found == pytest.approx(gammaln(a) - a * np.log(b), abs=1e-10 + 1e-14 * size)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_full_inference_of_constant_rows_far_from_the_prior_mean(covariance_type):
    """Where two modes are far apart, a draw takes as long as any other."""
    method = vbfast.FullInference(n_draws=5, n_tune=2, n_chains=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        for dof in (None, 1e6, 1e12):
            fitted = vbfast.BayesianGaussianMixture(
                2, method=method, covariance_type=covariance_type, mean_prior=[1e5, 1e5],
                mean_variance_prior=1.0, degrees_of_freedom_prior=dof, random_state=0,
            ).fit(np.ones((13, 2)))  # fmt: skip
            assert np.isfinite(fitted.means_).all()
            assert np.isfinite(fitted.covariances_).all()
            assert np.all(fitted.covariances_ > 0)


def test_divergence_of_large_concentrations():
    """Of constants of 10^10 nothing but rounding would be left."""
    for prior in (0.5, 30.0, 99.0, 1e4, 1e8, 1e12):
        p = np.array([prior, prior, 2 * prior])
        q = p + np.array([0.0, 3.0, 5.0])
        # The same by the integral of the difference of two digammas: d (d/ds) log Gamma.
        expected = 0.0
        nodes, weights = np.polynomial.legendre.leggauss(60)
        for a, b, sign in [*zip(q, p, (1, 1, 1), strict=True), (q.sum(), p.sum(), -1)]:
            t = b + (a - b) * (nodes + 1) / 2
            gap = np.log1p((a - t) / t) + (psi_rest(a) - psi_rest(t))  # digamma(a) - digamma(t)
            expected += sign * (a - b) * (weights * gap).sum() / 2
        assert Dirichlet(q).kl(Dirichlet(p)) == pytest.approx(expected, rel=1e-7, abs=1e-13)


def test_divergence_of_large_concentrations_that_are_not_whole():
    """A total rounds off what its parts differ by."""
    rng = np.random.default_rng(0)
    p = np.full((7, 9), 1e8)
    q = p + 40 * rng.random(p.shape)
    more = q - p
    # To the second order, of which the next ones are 1e-7.
    expected = (more**2 / p).sum() - (more.sum(axis=1) ** 2 / p.sum(axis=1)).sum()
    assert Dirichlet(q).kl(Dirichlet(p)) == pytest.approx(0.5 * expected, rel=1e-6)


def test_density_under_many_large_concentrations():
    """Terms that are all but the same err to the same side."""
    rng = np.random.default_rng(0)
    excess = np.full((14, 1000), 8.0)  # no row so heavy that another formula is taken
    weights = 1.0 + 1e-3 * rng.random(excess.shape)
    weights /= weights.sum(axis=1, keepdims=True)
    prior = Dirichlet(excess + 1.0, excess)
    found = prior.log_density(weights) + prior.log_normalizer
    expected = math.fsum((excess * np.log(weights)).ravel())
    assert found == pytest.approx(expected, abs=4 * np.spacing(abs(expected)))


@pytest.mark.parametrize("n_rows", [3, 200])
@pytest.mark.parametrize("heavy", [1.0, 1e9])
def test_solutions_of_collinear_indicators(n_rows, heavy):
    """Of least norm, as by singular values; where a prior makes them definite, the only ones."""
    rng = np.random.default_rng(0)
    m, k = 4, 5
    marks = np.zeros((n_rows, m * k))
    for chain in range(m):  # the last state of each is empty
        marks[np.arange(n_rows), chain * k + rng.integers(0, k - 1, n_rows)] = 1.0
    weight = np.where(np.arange(n_rows) % 2, heavy, 1.0)[:, None]
    gram, cross = marks.T @ (weight * marks), marks.T @ (weight * rng.standard_normal((n_rows, 3)))
    expected = np.linalg.lstsq(gram, cross, rcond=None)[0]
    found = least_norm_solution(gram, cross)
    np.testing.assert_allclose(found, expected, atol=1e-15 * heavy + 1e-12)
    assert np.all(found[k - 1 :: k] == 0)
    assert np.all(least_norm_solution(0 * gram, 0 * cross) == 0)
    whole = gram + np.eye(m * k)
    np.testing.assert_allclose(
        definite_solution(whole, cross), np.linalg.solve(whole, cross), atol=1e-14 * heavy
    )
    # An empty state's prior is its own, however weak; chains' levels need one that is seen.
    alone = np.diag([3.0, 2.0, 1e-100])
    np.testing.assert_allclose(definite_solution(alone, alone @ np.ones((3, 2))), np.ones((3, 2)))
    with pytest.raises(vbfast.DegenerateError, match="mean_precision is lost"):
        definite_solution(gram + 1e-30 * np.eye(m * k), cross)


def psi_rest(x):
    """digamma(x) - log(x), by its series where that leaves no digits."""
    series = -1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4)
    return np.where(x > 1e3, series, digamma(x) - np.log(x))


def test_densities_at_precisions_along_an_all_but_singular_scatter():
    """Where log p(Lambda) differs by little the difference is right, to what a fit can see."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((30, 9))
    x[:, 7:] = x[:, :7] @ rng.uniform(1, 10, (7, 2))
    scatter = x.T @ x / 4 + 1e-8 * np.eye(9)
    factors = [
        precision_factors((scatter + share * np.diag(np.arange(9.0)))[None])
        for share in (0, 1e-11, 3e-11, 1e-10)
    ]
    # Rounding of each factor is another one, so that some of the sums' is too.
    prior = NormalWishart(np.zeros((1, 9)), np.zeros(1), np.full(1, 10.0), scatter[None])
    found, expected = [], []
    for factor in factors:
        theta = point(np.zeros((1, 9)), factor)
        found.append(prior.log_density(theta) - 0.5 * prior.exponent[0] * theta.log_det[0])
        a = [[Fraction(each) for each in row] for row in factor[0].tolist()]
        s = [[Fraction(each) for each in row] for row in scatter.tolist()]
        trace = sum(
            a[i][j] * a[i][k] * s[j][k]
            for i in range(9)
            for j in range(i + 1)
            for k in range(i + 1)
        )
        expected.append(-trace / 2)
    expected = [float(each - expected[0]) for each in expected]
    np.testing.assert_allclose(np.array(found) - found[0], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@given(
    total=st.sampled_from([1e-3, 1.0, 1e3, 9e3, 1.1e4, 1e6, 1e9, 1e12]),
    n=st.sampled_from([1, 2, 3, 10, 300]),
    away=st.sampled_from([0.0, 1e-6, 1e-3, 0.04, 0.06, 1.0, 30.0]),
    uneven=st.booleans(),
    seed=st.integers(0, 9),
)
def test_densities_of_heavy_dirichlets(total, n, away, uneven, seed):
    """To rounding of what they are, not of n log n for the n rows that they stand for."""
    rng = np.random.default_rng(seed)
    excess = total / n * (10.0 ** rng.uniform(-9, 0, n) if uneven else np.ones(n))
    p = excess * np.exp(away * rng.normal(size=n))
    p = np.maximum(p / p.sum(), 1e-250)
    p /= p.sum()
    expected = ref.precise_log_dirichlet(excess, p)
    found = Dirichlet(excess + 1.0, excess).log_density(p)
    # A logarithm of p is rounded, and counts as often as it is away from the mode.
    slope = np.abs(excess - excess.sum() * p) @ np.abs(np.log(p))
    rounding = 1e-14 * (abs(expected) + n * 30 + slope)
    # Of a light one by its formula.
    rounding += 4e-15 * (1e4 * 10 if excess.sum() + n <= 1e4 else 0.0)
    assert abs(found - expected) <= rounding
    single = float(rng.gamma(3.0)) + excess[0]
    rate, x = 10.0 ** rng.uniform(-8, 8), np.exp(away * rng.normal())
    x *= single / rate
    found = Gamma(np.full((1, 1), single), np.full((1, 1), rate)).log_density(
        Rates.point(np.full((1, 1), x))
    )
    expected = ref.precise_log_gamma_density(single, rate, x)
    slope = abs(single - rate * x) * (abs(np.log(x)) + abs(np.log(rate)) + 1)
    assert abs(found - expected) <= 1e-14 * (abs(expected) + 100 + slope)


def test_what_is_predicted_of_waiting_times():
    """Rates integrated out are Lomax densities, of which rows are drawn."""
    rng = np.random.default_rng(0)
    shape, rate = rng.uniform(2.0, 5.0, (2, 3)), rng.uniform(0.1, 9.0, (2, 3))
    law = vbfast.Exponential(3).distribution({"strength": shape[:, 0] - 1.0, "sums": rate})
    shape = np.repeat(shape[:, :1], 3, axis=1)
    x = rng.exponential(2.0, (5, 3))
    expected = [
        stats.lomax.logpdf(x, a, scale=b).sum(axis=1) for a, b in zip(shape, rate, strict=True)
    ]
    np.testing.assert_allclose(law.log_predictive(x), np.transpose(expected))
    rows = law.sample_rows(np.repeat([0, 1], 4000), rng).reshape(2, 4000, 3)
    for k, d in np.ndindex(2, 3):
        lomax = stats.lomax(shape[k, d], scale=rate[k, d])
        assert stats.kstest(rows[k, :, d], lomax.cdf).pvalue > 1e-4
