"""Degenerate data never hang or give NaN, by any method, with any type of covariances.

Data shifted or scaled give the same fit, shifted or scaled.
"""

import warnings

import numpy as np
import pytest

import vbfast
from vbfast import BayesianGaussianMixture, GaussianMixture, MixtureModel

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
METHODS = {
    "full_inference": vbfast.FullInference(n_draws=20, n_tune=20, n_chains=2),
    "mean_field": vbfast.MeanField(max_iter=60),
    "em": vbfast.EM(max_iter=60),
    "variational_em": vbfast.VariationalEM(max_iter=60),
    "truncated": vbfast.VariationalEM(max_iter=60, truncation=2),
    "crisp_em": vbfast.CrispEM(max_iter=60),
}
CLIMBS = [name for name in METHODS if name != "full_inference"]

# Some of these fits and all of the chains are too short to settle; few rows, and rows far away,
# are what these tests are about.
pytestmark = [
    pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::vbfast.SpuriousWarning"),
]

each_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
each_method = pytest.mark.parametrize("method", METHODS)
each_estimator = pytest.mark.parametrize("Estimator", [GaussianMixture, BayesianGaussianMixture])


def clusters(n_rows=40, n_features=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features))
    X[n_rows // 2 :] += np.array([5.0, 0.0, 3.0])[:n_features]
    return X


def evidence_is_unknown(mixture, X):
    """Whether a fit like this one warns that log p(X) can't be told."""
    if mixture.log_evidence_ == 0.0:  # left out by the test
        return False
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        type(mixture)(**mixture.get_params()).fit(X)
    return any("log_evidence_ is NaN" in str(each.message) for each in record)


def assert_sane(mixture, X):
    """Finite wherever a number can be, and able to do all that it does."""
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert np.isfinite(getattr(mixture, name)).all(), name
    assert mixture.weights_.min() >= 0
    assert mixture.weights_.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.isfinite(mixture.objective_)
    assert np.isfinite(mixture.lower_bounds_).all()
    if hasattr(mixture, "draws_"):
        assert all(np.isfinite(draws).all() for draws in mixture.draws_.values())
        # Of 40 draws it may not be known: NaN, with its error, and only where a warning says so.
        told = mixture.log_evidence_, mixture.log_evidence_se_
        assert np.isnan(told).all() == np.isnan(told).any() == evidence_is_unknown(mixture, X)
    elif not (np.diff(mixture.lower_bounds_) >= -1e-9 * abs(mixture.lower_bound_)).all():
        pytest.fail(f"the objective fell: {mixture.lower_bounds_}")
    assert_predicts(mixture, X)
    assert np.isfinite(mixture.score_samples(X)).all()
    assert np.isfinite(mixture.bic(X) + mixture.aic(X) + mixture.icl(X))
    assert np.isfinite(mixture.sample(3)[0]).all()


def assert_predicts(mixture, X):
    proba = mixture.predict_proba(X)
    assert proba.min() >= 0
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(mixture.predict(X), proba.argmax(axis=1))
    assert not np.isnan(mixture.score_samples(X)).any()
    together = mixture.co_assignment(X)
    assert together.min() >= 0
    assert together.max() <= 1


ROWS = {
    "identical rows": (np.full((10, 3), 2.5), 2),
    "identical rows, one component": (np.full((10, 3), 0.1), 1),
    "identical rows of large numbers": (np.full((10, 3), -1e308), 2),
    "one feature, one value": (np.zeros((6, 1)), 2),
    "constant column": (np.column_stack([clusters(), np.full(40, 0.1)]), 2),
    "constant column of large numbers": (np.column_stack([clusters(), np.full(40, 1e300)]), 2),
    "column twice": (clusters()[:, [0, 0, 1]], 2),
    "fewer distinct rows than components": (np.repeat(clusters()[:2], 10, axis=0), 4),
    "as many rows as components": (clusters()[:3], 3),
    "fewer rows than features": (np.random.default_rng(0).normal(size=(5, 8)), 2),
    "one row": (clusters()[:1], 1),
    "one row, one feature": (np.array([[3.0]]), 1),
    "a row 1e150 away": (np.vstack([clusters(), [1e150, 0.0, 0.0]]), 2),
    "two rows 1e150 away": (np.vstack([clusters(), [1e150, 0, 0], [-1e150, 1e100, 3]]), 4),
    "scales of many kinds": (clusters() * [1e-150, 1.0, 1e150], 2),
    "whole numbers, many ties": (np.round(clusters()), 3),
}


@each_estimator
@each_type
@each_method
@pytest.mark.parametrize("name", ROWS)
def test_degenerate_rows(name, method, covariance_type, Estimator):
    X, n_components = ROWS[name]
    mixture = Estimator(
        n_components,
        method=METHODS[method],
        covariance_type=covariance_type,
        weight_concentration_prior_type="dirichlet_distribution",
        random_state=0,
    ).fit(X)
    assert_sane(mixture, X)


@each_type
@each_method
@pytest.mark.parametrize("n_components", [4, 20])
def test_sticks_on_degenerate_rows(method, covariance_type, n_components):
    # Many more components than there is data for, with a prior that empties them.
    for X in (np.repeat(clusters()[:2], 10, axis=0), clusters()):
        mixture = BayesianGaussianMixture(
            n_components, method=METHODS[method], covariance_type=covariance_type, random_state=0
        ).fit(X)
        if method == "full_inference":
            # The evidence, which is not for so many components, is left out.
            mixture.log_evidence_ = mixture.log_evidence_se_ = 0.0
        assert_sane(mixture, X)


@each_type
@pytest.mark.parametrize("method", [name for name in CLIMBS if name != "mean_field"])
def test_without_regularisation_it_is_refused_in_words(method, covariance_type):
    mixture = GaussianMixture(
        2, method=METHODS[method], covariance_type=covariance_type, reg_covar=0.0
    )
    with pytest.raises(vbfast.DegenerateError, match=r"component \d .*too few distinct rows"):
        mixture.fit(np.full((10, 3), 2.5))
    assert not hasattr(mixture, "means_")


@each_type
@each_method
def test_a_prior_does_without_regularisation(method, covariance_type):
    prior = {"full": np.eye(3), "tied": np.eye(3), "diag": np.ones(3), "spherical": 1.0}
    X = np.full((10, 3), 2.5)
    mixture = GaussianMixture(
        2, method=METHODS[method], covariance_type=covariance_type, reg_covar=0.0,
        covariance_prior=prior[covariance_type], degrees_of_freedom_prior=5.0, random_state=0,
    ).fit(X)  # fmt: skip
    assert_sane(mixture, X)


# -- the same answer, shifted or scaled ---------------------------------------------------------


def fit(method, covariance_type, X):
    # From labels that don't depend on rounding: a start far from any tie.
    return GaussianMixture(
        2, method=METHODS[method], covariance_type=covariance_type, random_state=0
    ).fit(X)


def scales_of(covariance_type, scale):
    """What covariances of scaled data are multiplied by."""
    if covariance_type in ("full", "tied"):
        return scale[:, None] * scale
    return scale**2 if covariance_type == "diag" else scale[0] ** 2


def assert_moved(mixture, Z, plain, X, scale, shift, rtol):
    """The fit to Z = X * scale + shift is the fit to X, scaled and shifted."""
    covariance_type = plain.covariance_type
    np.testing.assert_array_equal(mixture.predict(Z), plain.predict(X))
    np.testing.assert_allclose(mixture.weights_, plain.weights_, rtol=rtol)
    spread = X.std(axis=0)
    means = (mixture.means_ - shift) / scale
    np.testing.assert_allclose(means / spread, plain.means_ / spread, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(
        mixture.covariances_ / scales_of(covariance_type, scale),
        plain.covariances_,
        rtol=rtol,
        atol=rtol * (spread.min() ** 2),
    )
    np.testing.assert_allclose(
        mixture.precisions_ * scales_of(covariance_type, scale),
        plain.precisions_,
        rtol=10 * rtol,
        atol=rtol / spread.min() ** 2,
    )
    np.testing.assert_allclose(mixture.predict_proba(Z), plain.predict_proba(X), atol=10 * rtol)
    # A density of data in other units: the Jacobian comes off.
    jacobian = np.log(np.abs(scale)).sum()
    np.testing.assert_allclose(
        mixture.score_samples(Z) + jacobian, plain.score_samples(X), rtol=10 * rtol, atol=10 * rtol
    )
    if not hasattr(plain, "draws_"):
        assert mixture.n_iter_ == plain.n_iter_


@each_type
@each_method
@pytest.mark.parametrize("exponent", [-150, 150, -20, 3])
def test_scaled_data(method, covariance_type, exponent):
    X = clusters()
    scale = np.full(3, 10.0**exponent)
    Z = X * scale
    plain, mixture = fit(method, covariance_type, X), fit(method, covariance_type, Z)
    assert_sane(mixture, Z)
    assert_moved(mixture, Z, plain, X, scale, 0.0, 1e-7)


@each_type
@each_method
@pytest.mark.parametrize("shift", [1e8, -1e8])
def test_shifted_data(method, covariance_type, shift):
    # The shifted rows themselves keep 8 digits: compare with those digits alone.
    Z = clusters() + shift
    X = Z - shift
    plain, mixture = fit(method, covariance_type, X), fit(method, covariance_type, Z)
    assert_sane(mixture, Z)
    # Means are told in units of the data, where 1e8 leaves them 1e-8.
    assert_moved(mixture, Z, plain, X, np.ones(3), shift, 1e-6)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
@each_method
def test_columns_of_different_units(method, covariance_type):
    X = clusters()
    scale, shift = np.array([1e-150, 1e3, 1e150]), np.array([3e-147, 0.0, -1e151])
    Z = X * scale + shift
    X = (Z - shift) / scale
    plain, mixture = fit(method, covariance_type, X), fit(method, covariance_type, Z)
    assert_sane(mixture, Z)
    assert_moved(mixture, Z, plain, X, scale, shift, 1e-6)


@each_type
@pytest.mark.parametrize("method", CLIMBS)
def test_objectives_differ_by_the_jacobian_alone(method, covariance_type):
    # log p(X | theta) alone: by N log scale for each feature. Mean field's evidence also, since its
    # prior scales with the data.
    X = clusters()
    for scale in (1e-150, 1e150):
        objective = fit(method, covariance_type, X * scale).objective_
        jacobian = X.size * np.log(scale)
        expected = fit(method, covariance_type, X).objective_ - jacobian
        assert objective == pytest.approx(expected, rel=1e-9)


# -- empty components, rows far away ------------------------------------------------------------


@each_estimator
@each_type
@each_method
def test_an_empty_component(method, covariance_type, Estimator):
    # One mean starts where no row will ever be nearest, with no weight.
    X = clusters()
    mixture = Estimator(
        3,
        method=METHODS[method],
        covariance_type=covariance_type,
        weight_concentration_prior_type="dirichlet_distribution",
        weights_init=[0.5, 0.5, 0.0],
        means_init=[[0, 0, 0], [5, 0, 3], [1e6, 1e6, 1e6]],
        random_state=0,
    ).fit(X)
    assert_sane(mixture, X)
    if Estimator is GaussianMixture and method in ("em", "variational_em", "crisp_em"):
        two = GaussianMixture(
            2,
            method=METHODS[method],
            covariance_type=covariance_type,
            weights_init=[0.5, 0.5],
            means_init=[[0, 0, 0], [5, 0, 3]],
            random_state=0,
        ).fit(X)
        assert mixture.weights_[2] == 0
        np.testing.assert_allclose(mixture.means_[:2], two.means_, rtol=1e-2, atol=1e-2)
        # The empty one waits with the mean and the variances of all rows.
        np.testing.assert_allclose(mixture.means_[2], X.mean(axis=0), rtol=1e-12)
        assert mixture.predict_proba(X)[:, 2].max() == 0


FAR = np.array([1e150, -1e150, 1e200, -1e200, 1e308, -1e308, 1.7e308])


@each_estimator
@each_type
@each_method
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_predictions_of_rows_far_away(method, covariance_type, Estimator, scale):
    X = clusters() * scale
    mixture = Estimator(
        2, method=METHODS[method], covariance_type=covariance_type, random_state=0
    ).fit(X)
    for Z in (
        np.tile(FAR[:, None], 3),
        np.column_stack([FAR, -FAR, FAR]),
        np.column_stack([FAR, np.zeros(7), np.zeros(7)]),
        np.column_stack([np.zeros(7), np.zeros(7), FAR]),
    ):
        assert_predicts(mixture, Z)
    # A row of its own, 1e150 standard deviations away, no longer matters to the others.
    both = np.vstack([X, np.full((1, 3), 1e308)])
    np.testing.assert_array_equal(mixture.predict_proba(both)[:-1], mixture.predict_proba(X))
    np.testing.assert_array_equal(mixture.score_samples(both)[:-1], mixture.score_samples(X))


@each_type
@each_method
def test_further_is_less_likely(method, covariance_type):
    mixture = fit(method, covariance_type, clusters())
    distance = np.array([1e1, 1e2, 1e4, 1e8, 1e30, 1e90])
    density = mixture.score_samples(np.tile(distance[:, None], 3))
    assert (np.diff(density) < 0).all()
    # And than which component is more likely there depends on direction, not on rounding.
    proba = mixture.predict_proba(np.tile(distance[:, None], 3))
    assert np.isfinite(proba).all()


@each_type
@pytest.mark.parametrize("method", CLIMBS)
def test_a_far_row_gets_a_component_of_its_own(method, covariance_type):
    X = np.vstack([clusters(), [1e150, 1e150, 1e150]])
    options = {"random_state": 0, "init_params": "kmeans"}
    mixture = GaussianMixture(
        2, method=METHODS[method], covariance_type=covariance_type, **options
    ).fit(X)
    labels = mixture.predict(X)
    assert (labels[:-1] == labels[0]).all()
    assert labels[-1] != labels[0]
    assert sorted(mixture.weights_) == pytest.approx([1 / 41, 40 / 41], abs=0.03)


# Parameters on the boundary ----------------------------------------------------------------------


def test_rates_and_probabilities_of_zero_and_one():
    X = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 3.0]])
    counts = MixtureModel(1, emission="poisson").fit(X)
    np.testing.assert_allclose(counts.rates_, [[0.0, 5 / 3]])
    assert np.isfinite(counts.objective_)
    assert counts.score_samples([[1.0, 1.0]])[0] == -np.inf
    bits = MixtureModel(1, emission="bernoulli").fit(np.minimum(X, 1.0))
    np.testing.assert_array_equal(bits.probabilities_, [[0.0, 1.0]])
    np.testing.assert_array_equal(
        bits.score_samples([[0, 1], [1, 1], [0, 0], [1, 0]]), [0.0] + 3 * [-np.inf]
    )
    symbols = MixtureModel(1, emission="categorical", n_categories=4).fit(X)
    np.testing.assert_allclose(symbols.probabilities_[0, 1], [0, 2 / 3, 0, 1 / 3])
    assert symbols.score_samples([[0, 2]])[0] == -np.inf
    for mixture, row in ((counts, [1.0, 1.0]), (bits, [1.0, 0.0]), (symbols, [3.0, 3.0])):
        assert mixture.score([row]) == -np.inf
        for function in (mixture.predict, mixture.predict_proba, mixture.co_assignment):
            with pytest.raises(vbfast.ImpossibleRowError, match="row 1 of X"):
                function([[0.0, 1.0], row])


@pytest.mark.parametrize("method", ["em", "variational_em", "crisp_em"])
@pytest.mark.parametrize("n", [3, 200_000])
def test_waiting_times_that_are_all_zero(method, n):
    """A rate without bound, found by both drivers; a prior gives it one, and so does one row."""
    X = np.repeat([[0.0, 1.0], [0.0, 2.0]], n, axis=0)
    mixture = MixtureModel(
        1, emission="exponential", method=method, means_init=[[1.0, 1.0]], weights_init=[1.0]
    )
    with pytest.raises(vbfast.DegenerateError, match=r"component 0 has .* rows that are all 0"):
        mixture.fit(X)
    X[-1, 0] = 1e-3
    np.testing.assert_allclose(mixture.fit(X).rates_, [[2e3 * n, 1 / 1.5]])
    X[-1, 0] = 0.0
    mixture.set_params(shape_prior=2.0, rate_prior=0.5).fit(X)
    np.testing.assert_allclose(mixture.rates_, [[(1 + 2 * n) / 0.5, (1 + 2 * n) / (0.5 + 3 * n)]])


@pytest.mark.parametrize("method", ["em", "mean_field", vbfast.FullInference(50, 20, 2)])
@pytest.mark.parametrize("unit", [1e-95, 1e-20, 3e12, 1e98])
def test_waiting_times_in_any_unit(method, unit):
    """A fit is the same in other units, the prior that stands in for none among it."""
    X = np.random.default_rng(5).exponential(np.repeat([[1.0], [9.0]], 40, axis=0))
    mixture = MixtureModel(2, emission="exponential", method=method, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        rates = mixture.fit(X).rates_
        np.testing.assert_allclose(mixture.fit(X * unit).rates_ * unit, rates, rtol=1e-4)


@pytest.mark.parametrize("method", ["em", "variational_em", "crisp_em"])
def test_a_start_under_which_a_row_is_impossible(method):
    X = np.array([[0.0], [0.0], [4.0], [5.0]])
    start = {"weights_init": [0.5, 0.5], "means_init": [[0.0], [0.0]]}
    mixture = MixtureModel(2, emission="poisson", method=method, **start)
    with pytest.raises(vbfast.ImpossibleRowError, match="row 2 of X"):
        mixture.fit(X)
    # Under one component it may be.
    mixture.set_params(means_init=[[0.0], [3.0]]).fit(X)
    assert mixture.rates_[0, 0] == 0
    assert mixture.predict(X).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("emission", ["poisson", "bernoulli", "categorical"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_rows_that_are_all_alike(emission, method):
    for X in (np.zeros((6, 2)), np.ones((6, 2)), np.eye(2)[[0, 0, 0, 1, 1, 1]]):
        mixture = MixtureModel(3, emission=emission, method=method, random_state=0).fit(X)
        assert mixture.weights_.sum() == pytest.approx(1)
        assert np.isfinite(mixture.objective_)
        assert_predicts(mixture, X)
        values = mixture.rates_ if emission == "poisson" else mixture.probabilities_
        assert np.isfinite(values).all()


@pytest.mark.parametrize("emission", ["poisson", "bernoulli", "categorical"])
def test_an_empty_discrete_component(emission):
    X = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    start = {"weights_init": [1.0, 0.0]}
    values = np.full((2, 2), 0.5)
    if emission == "categorical":
        values = np.full((2, 2, 2), 0.5)
    start["means_init" if emission == "poisson" else "probabilities_init"] = values
    mixture = MixtureModel(2, emission=emission, **start).fit(X)
    np.testing.assert_array_equal(mixture.weights_, [1, 0])
    found = mixture.rates_ if emission == "poisson" else mixture.probabilities_
    np.testing.assert_allclose(found[1], found[0])


def test_large_counts():
    rng = np.random.default_rng(0)
    X = rng.poisson([[1e6, 3e9]] * 20 + [[2e6, 1e9]] * 20).astype(float)
    mixture = MixtureModel(2, emission="poisson", random_state=0, tol=1e-9).fit(X)
    np.testing.assert_allclose(np.sort(mixture.rates_[:, 0]), [1e6, 2e6], rtol=1e-3)
    assert mixture.converged_


# Numbers at the ends of float64, and what rounding leaves -----------------------------------------


@each_type
def test_regularisation_beyond_float64_is_refused(covariance_type):
    Z = np.ones((20, 2))
    Z[3] = 1e150
    with pytest.raises(ValueError, match=r"reg_covar is 10000000000.0 times the variance of col"):
        GaussianMixture(covariance_type=covariance_type, reg_covar=1e10).fit(Z)
    fitted = GaussianMixture(covariance_type=covariance_type, reg_covar=1e3).fit(Z)
    assert_sane(fitted, Z)


def test_means_by_hand_at_the_end_of_float64():
    X = clusters(n_features=2)
    mixture = GaussianMixture(2, random_state=0).fit(X)
    mixture.means_ = np.full((2, 2), 1e308)
    rows, _ = mixture.sample(20)
    np.testing.assert_array_equal(rows, 1e308)
    mixture.means_ = np.array([[1e308, 0.0], [-1e308, 0.0]])
    with pytest.raises(ValueError, match=r"means_\[0, 0\] is 1e\+308.*up to 1e\+152 is allowed"):
        mixture.sample(2)


def climbs(X, n_components, **parameters):
    """Fit; the objectives, or None where a component is degenerate. A fall would be an error."""
    try:
        mixture = GaussianMixture(n_components, reg_covar=0, random_state=0, **parameters).fit(X)
    except vbfast.DegenerateError:
        return None
    return mixture.lower_bounds_


@pytest.mark.parametrize("acceleration", [None, "anderson"])
@pytest.mark.parametrize("row", range(7))
def test_component_that_shrinks_onto_a_row_under_a_prior_on_means(row, acceleration):
    # Where the precision has no bound, the mean's distance from the row is nothing but rounding.
    X = np.array(
        [
            [-3.91, -18.84],
            [0.11, -0.69],
            [0.6, -0.11],
            [0.25, -0.89],
            [0.01, 0.95],
            [0.33, -0.44],
            [1.67, 0.27],
        ]
    )
    prior = {"mean_variance_prior": 10.0, "mean_prior": [-11.0, -13.0]}
    labels = np.zeros(7, dtype=int)
    labels[row] = 1
    start = {"weights_init": [6 / 7, 1 / 7], "means_init": [X[labels == k].mean(0) for k in (0, 1)]}
    for precision in (1e2, 1e4, 1e6):
        found = climbs(
            X,
            2,
            covariance_type="spherical",
            method=vbfast.EM(tol=1e-10, max_iter=60, acceleration=acceleration),
            precisions_init=[1.0, precision],
            **prior,
            **start,
        )
        assert found is None


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_covariance_that_rounding_hides(covariance_type):
    # A row so far away that all others are on a line with it but for rounding.
    outcomes = {}
    for power in range(1, 12):
        for seed in range(5):
            X = np.random.default_rng(seed).normal(size=(12, 3))
            X[0] *= 10.0**power
            for k in (1, 2):
                method = vbfast.EM(tol=1e-12, max_iter=100)
                outcomes[power, seed, k] = climbs(
                    X, k, covariance_type=covariance_type, method=method
                )
    assert all(outcomes[power, seed, 1] is not None for power in range(1, 6) for seed in range(5))
    assert all(outcomes[11, seed, 1] is None for seed in range(5))


@pytest.mark.parametrize("Estimator", [MixtureModel, vbfast.HiddenMarkovModel])
def test_waiting_times_of_an_empty_component_whose_prior_is_highest_at_0(Estimator):
    """A rate of 0 is of no distribution: one close to it stands in, by both drivers."""
    X = np.array([[66, 63.2], [1.8, 1.3], [0.1, 0.5], [106.4, 24.3], [0.6, 0.9]])
    estimator = Estimator(
        3, emission="exponential", method="crisp_em", shape_prior=1.0, rate_prior=1000.0,
        random_state=0,
    )  # fmt: skip
    rates = estimator.fit(X).rates_
    assert rates.min() == pytest.approx(1e-13, rel=1e-9, abs=0.0)  # 1e-10 / 1000
    assert np.isfinite(estimator.sample(9, random_state=0)[0]).all()
    if Estimator is MixtureModel:
        many = vbfast.fit_many(estimator, [X])
        np.testing.assert_allclose(np.sort(many.rates_[0], axis=0), np.sort(rates, axis=0))


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_bounds_under_a_prior_of_many_degrees_of_freedom_fall_by_rounding_alone(covariance_type):
    """Each feature has a normaliser of its own, n log n of the prior's n."""
    X = np.full((13, 9), -1e100)
    mixture = vbfast.BayesianGaussianMixture(
        n_components=2, covariance_type=covariance_type, degrees_of_freedom_prior=1e10 + 9,
        covariance_prior={"diag": np.ones(9), "spherical": 1.0}.get(covariance_type, np.eye(9)),
        mean_prior=X[0], max_iter=3,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        for seed in range(10):
            mixture.set_params(random_state=seed).fit(X)
        # By compiled code.
        mixture.set_params(
            weight_concentration_prior_type="dirichlet_distribution", tol=0.0, max_iter=5
        )
        vbfast.fit_many(mixture.set_params(random_state=0), [X] * 100)


@pytest.mark.parametrize("Estimator", [GaussianMixture, vbfast.HiddenMarkovModel])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dof", [1e-3, 1e-2])
def test_draws_under_next_to_no_degrees_of_freedom(Estimator, covariance_type, dof):
    """Of components without rows: gammas of such shapes are often less than any float64."""
    X = np.random.default_rng(0).normal(size=(40, 1))
    estimator = Estimator(
        3, method=vbfast.FullInference(100, 20, 2), covariance_type=covariance_type,
        degrees_of_freedom_prior=dof,
    )  # fmt: skip
    if Estimator is GaussianMixture:
        estimator.set_params(weight_concentration_prior=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        for seed in range(5):
            estimator.set_params(random_state=seed).fit(X)
            assert np.isfinite(estimator.score(X))
            assert np.isfinite(estimator.draws_["means"]).all()
            assert np.isfinite(estimator.sample(100, random_state=0)[0]).all()


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical", None])
def test_rows_drawn_of_a_component_of_next_to_no_rows(covariance_type):
    X = np.random.default_rng(0).exponential(size=(30, 1))
    start = {"weights_init": [1 - 3e-9, 1e-9, 1e-9, 1e-9], "random_state": 0}
    if covariance_type is None:
        mixture = MixtureModel(
            4, emission="exponential", method="mean_field", shape_prior=1e-2, rate_prior=1.0,
            weight_concentration_prior=0.3, means_init=[[1.0]] * 4, **start,
        )  # fmt: skip
    else:
        mixture = GaussianMixture(
            4, covariance_type=covariance_type, method="mean_field",
            degrees_of_freedom_prior=1e-2, weight_concentration_prior=0.3, **start,
        )  # fmt: skip
    assert np.isfinite(mixture.fit(X).sample(50_000, random_state=0)[0]).all()
