"""Counts so large that terms of a score are larger than the score by far, and weights likewise."""

import numpy as np
import pytest
import reference as ref
from scipy.stats import norm

import vbfast
from vbfast import HiddenMarkovModel, MixtureModel

scales = pytest.mark.parametrize("scale", [1e4, 1e7, 1e9, 1e12, 4e15])
FULL = vbfast.FullInference(n_draws=100, n_tune=50, n_chains=2)


def groups(scale, n=120, more=()):
    """Counts of two groups, six standard deviations apart in each of two features."""
    rng = np.random.default_rng(5)
    z = rng.integers(2, size=n)
    means = np.array([scale, scale + 6 * np.sqrt(scale)])
    return np.column_stack([rng.poisson(means[z]), rng.poisson(means[1 - z]), *more]), z


def agreement(y, z):
    return max((y == z).mean(), (y != z).mean())


@scales
@pytest.mark.parametrize("method", ["em", "mean_field", "variational_em", "crisp_em", FULL])
def test_groups_are_found(scale, method):
    X, z = groups(scale)
    for model in (MixtureModel, HiddenMarkovModel):
        fitted = model(2, emission="poisson", method=method, random_state=0).fit(X)
        assert agreement(fitted.predict(X), z) == 1.0
        assert fitted.predict_proba(X).sum(axis=1) == pytest.approx(1.0, abs=1e-12)


@scales
@pytest.mark.parametrize("small", [False, True])
def test_densities_are_right(scale, small):
    """Beside a feature of small counts as well."""
    X, _ = groups(scale, more=[np.arange(120) % 7] if small else ())
    # What rounding leaves of a rate is a share of its standard deviation.
    error = 1e-10 + 5e-14 * np.sqrt(scale)
    mixture = MixtureModel(2, emission="poisson", random_state=0).fit(X)
    expected = ref.precise_log_counts(X, mixture.weights_, mixture.rates_)
    assert mixture.score_samples(X) == pytest.approx(expected, abs=error)
    assert mixture.objective_ == pytest.approx(expected.sum(), abs=len(X) * error)
    assert mixture.score_samples(X[3:4]) == pytest.approx(expected[3:4], abs=error)
    chain = HiddenMarkovModel(1, emission="poisson").fit(X)
    expected = ref.precise_log_counts(X, [1.0], chain.rates_)
    assert chain.score_samples(X) == pytest.approx(expected, abs=error)


@scales
@pytest.mark.parametrize("method", ["mean_field", FULL])
def test_of_one_component_the_evidence_is_right(scale, method):
    X, _ = groups(scale)
    model = MixtureModel(1, emission="poisson", method=method, random_state=0).fit(X)
    shape = np.full(2, model.shape_prior_)
    expected = ref.precise_evidence_of_counts(X, shape, model.rate_prior_)
    found = model.objective_ if method == "mean_field" else model.log_evidence_
    assert found == pytest.approx(expected, abs=1e-8 + 1e-12 * np.sqrt(scale))


@scales
def test_predictive_densities_are_right(scale):
    X, _ = groups(scale)
    model = MixtureModel(1, emission="poisson", method="mean_field").fit(X)
    expected = ref.precise_log_negative_binomial(X, model.shape_[0], model.rate_[0])
    assert model.score_samples(X) == pytest.approx(expected, abs=1e-9 + 1e-14 * np.sqrt(scale))


@scales
@pytest.mark.parametrize("model", [MixtureModel, HiddenMarkovModel])
def test_a_product_with_gaps(scale, model):
    X, z = groups(scale)
    X = np.column_stack([X, np.random.default_rng(6).normal(size=len(X))])
    X[::7, 0] = np.nan
    emission = [("poisson", [0]), ("poisson", [1]), ("gaussian", [2], {"reg_covar": 0})]
    fitted = model(2, emission=emission, missing="at_random", random_state=0).fit(X)
    assert agreement(fitted.predict(X), z) > 0.95
    one = model(1, emission=emission, missing="at_random").fit(X)
    seen = ~np.isnan(X[:, 0])
    means = X[seen, 0].mean(), X[:, 1].mean()
    expected = norm.logpdf(X[:, 2], X[:, 2].mean(), X[:, 2].std())
    expected[seen] += ref.precise_log_counts(X[seen, :1], [1.0], [means[:1]])
    expected += ref.precise_log_counts(X[:, 1:2], [1.0], [means[1:]])
    assert one.score_samples(X) == pytest.approx(expected, abs=1e-8 + 1e-14 * np.sqrt(scale))


@scales
def test_fit_many_is_fit(scale):
    X, z = groups(scale)
    model = MixtureModel(2, emission="poisson", random_state=0)
    many = vbfast.fit_many(model, [X, X[::-1]])
    for s, order in enumerate([slice(None), slice(None, None, -1)]):
        one = many[s]
        assert agreement(one.predict(X[order]), z[order]) == 1.0
        assert one.objective_ == pytest.approx(model.fit(X[order]).objective_, abs=1e-5)


def test_counts_both_small_and_large():
    """No origin is close to all: the small ones lose no digits."""
    X = np.r_[np.arange(1.0, 41.0), 1e12 + 1e6 * np.arange(40)][:, None]
    model = MixtureModel(2, emission="poisson", random_state=0).fit(X)
    expected = ref.precise_log_counts(X[:40], model.weights_, model.rates_)
    assert model.score_samples(X[:40]) == pytest.approx(expected, abs=1e-11)


def test_a_fit_of_large_counts_answers_for_small_ones():
    X, _ = groups(1e9)
    model = MixtureModel(2, emission="poisson", random_state=0).fit(X)
    rows = np.array([[0.0, 1e9], [1e9, 0.0], [5.0, 5.0]])
    expected = ref.precise_log_counts(rows, model.weights_, model.rates_)
    assert model.score_samples(rows) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_predictive_densities_under_large_weights(covariance_type):
    """A Student's t of so many degrees of freedom is normal."""
    X = np.random.default_rng(0).normal(size=(50, 2))
    model = vbfast.BayesianGaussianMixture(
        1, covariance_type=covariance_type, reg_covar=0, mean_precision_prior=1e-3
    ).fit(X, sample_weight=np.full(50, 1e10))
    variance = X.var(axis=0)
    covariance = np.cov(X.T, bias=True)
    if covariance_type in ("diag", "spherical"):
        covariance = np.diag(variance if covariance_type == "diag" else [variance.mean()] * 2)
    gap = X - X.mean(axis=0)
    expected = -0.5 * (np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance), gap))
    expected -= np.log(2 * np.pi) + 0.5 * np.linalg.slogdet(covariance)[1]
    assert model.score_samples(X) == pytest.approx(expected, abs=1e-8)


@scales
@pytest.mark.parametrize("model", [MixtureModel, HiddenMarkovModel])
def test_starts_tell_close_rates_apart_beside_a_far_one(model, scale):
    rng = np.random.default_rng(0)
    means = np.array([scale, scale + 4 * np.sqrt(scale), 2 * scale])
    X = rng.poisson(means[rng.integers(3, size=300)])[:, None]
    best = model(3, emission="poisson", means_init=means[:, None]).fit(X).objective_
    for seed in range(3):
        fitted = model(3, emission="poisson", random_state=seed).fit(X)
        assert fitted.objective_ > best - 1e-2


def test_fit_many_of_sets_of_all_sizes():
    """A set's origin is its own, whatever others are like."""
    rng = np.random.default_rng(0)
    large = rng.poisson(np.repeat([1e13, 1e13 + 4e7], 50)).astype(float)[:, None]
    small = rng.poisson(np.repeat([10, 40], 50)).astype(float)[:, None]
    model = MixtureModel(2, emission="poisson", random_state=0)
    for sets in ([large, small], [small, large]):
        many = vbfast.fit_many(model, sets)
        for s, X in enumerate(sets):
            assert many[s].objective_ == pytest.approx(model.fit(X).objective_, abs=1e-3)
            expected = ref.precise_log_counts(X, many[s].weights_, many[s].rates_)
            assert many.objective_[s] == pytest.approx(expected.sum(), abs=1e-3)
