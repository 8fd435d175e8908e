"""Where a fit starts, and restarts that share passes over the data."""

import numpy as np
import pytest

import vbfast
from vbfast import ArrayData, DegenerateError, GaussianMixture, _kernels, starts
from vbfast._kernels.inputs import Assignment
from vbfast.methods import METHODS, lockstep

CLIMBS = ("mean_field", "em", "variational_em", "crisp_em")
LEVELS = _kernels.available_levels()


def clusters(n_rows=2000, n_features=3, n_components=5, width=1.0, seed=0, gap=4.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n_rows) % n_components
    centres = gap * rng.standard_normal((n_components, n_features))
    return centres[labels] + width * rng.standard_normal((n_rows, n_features)), labels


def model_of(data, n_components, covariance_type="full", **options):
    emission = vbfast.Gaussian(
        data.values.shape[1], covariance_type, frame=data.frame, reg_covar=1e-6, **options
    )
    return vbfast.Model(vbfast.Mixture(n_components), emission)


def proper(data, n_components):
    d = data.values.shape[1]
    emission = vbfast.Gaussian(
        d, "full", frame=data.frame, reg_covar=1e-6, mean_prior=np.zeros(d), mean_precision=1.0,
        degrees_of_freedom=d, scatter=np.eye(d),
    )  # fmt: skip
    return vbfast.Model(vbfast.Mixture(n_components, concentration=1.0), emission)


# Centroids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n_rows", [1, 7, 255, 256, 257, 1000])
def test_the_candidate_that_leaves_least_is_chosen(level, n_rows):
    rng = np.random.default_rng(n_rows)
    columns = rng.standard_normal((4, n_rows))
    weights = rng.uniform(0, 2, n_rows)
    nearest = rng.uniform(0, 9, n_rows)
    chosen = set()
    for _ in range(30):
        candidates = 2 * rng.standard_normal((5, 4))
        after = np.minimum(((columns.T[:, None] - candidates) ** 2).sum(axis=2), nearest[:, None])
        best = int(np.argmin(weights @ after))
        found = nearest.copy()
        assert _kernels.load(level).seeds.choose(columns, weights, candidates, found) == best
        np.testing.assert_allclose(found, after[:, best], rtol=1e-14)
        chosen.add(best)
    assert n_rows == 1 or len(chosen) > 1


def test_arrays_of_candidates_that_do_not_fit():
    choose = _kernels.seeds.choose
    columns, weights, candidates, nearest = np.ones((2, 9)), np.ones(9), np.ones((3, 2)), np.ones(9)
    for arguments in (
        (columns, weights, np.ones((3, 1)), nearest),
        (columns, weights, candidates, np.ones(8)),
        (columns, np.ones(8), candidates, nearest),
        (columns, weights, np.ones((0, 2)), nearest),
        (np.ones((2, 0)), np.ones(0), candidates, np.ones(0)),
    ):
        with pytest.raises(ValueError, match=r"fit columns|at least"):
            choose(*arguments)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("width", [1.0, 1e-6])
def test_a_start_is_the_posterior_of_the_nearest_centroids(covariance_type, width):
    # Narrow clusters: moments about anything but their own means would lose all digits.
    X, _ = clusters(width=width)
    data = ArrayData.of(X + 5.0, isotropic=covariance_type == "spherical")
    emission = vbfast.Gaussian(3, covariance_type, frame=data.frame)
    model = vbfast.Model(vbfast.Mixture(5), emission)
    start = starts.posterior(model, data, "kmeans", np.random.default_rng(3))
    centroids = starts._centroids(data, 5, "kmeans", np.random.default_rng(3))
    rows = (data.values - data.frame.origin) * data.frame.scale
    labels = ((rows[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
    expected = starts.from_labels(model, data, labels)
    assert np.all(expected["strength"] > 0)
    for name in ("strength", "mean", "dof", "scatter"):
        size = np.abs(expected[name]).max()
        np.testing.assert_allclose(start[name], expected[name], rtol=0, atol=1e-8 * size)


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_start_is_the_same_for_any_threads_and_layout(init, dtype):
    X = clusters(40_000, 3, 5)[0].astype(dtype)
    found = []
    for values, n_threads in ((X, 1), (X, 2), (np.asfortranarray(X), 2), (X[::-1][::-1], 4)):
        data = ArrayData.of(values, n_threads=n_threads)
        start = starts.posterior(model_of(data, 5), data, init, np.random.default_rng(0))
        found.append(start.buffer)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random_from_data"])
def test_rows_of_weight_zero_are_nobodys_centroid(init):
    X, _ = clusters(60_000, 2, 3)
    weights = np.zeros(len(X))
    weights[:30] = 1.0
    X[30:] += 1e6
    data = ArrayData.of(X, weights)
    start = starts.posterior(model_of(data, 3), data, init, np.random.default_rng(0))
    assert start["strength"].sum() == pytest.approx(30)
    assert np.all(start["strength"] > 0)
    assert np.abs(start["mean"]).max() < 5


def test_fewer_distinct_rows_than_components():
    X = np.repeat(np.array([[0.0, 1.0], [2.0, 5.0]]), 20, axis=0)
    data = ArrayData.of(X)
    start = starts.posterior(model_of(data, 4), data, "kmeans", np.random.default_rng(0))
    assert sorted(start["strength"]) == [0, 0, 20, 20]


def test_a_part_of_the_rows_finds_distinct_clusters():
    # 6 clusters in 120,000 rows: centroids are sought among a tenth of them.
    X, labels = clusters(120_000, 6, 6, gap=6.0)
    data = ArrayData.of(X)
    model = model_of(data, 6)
    best = starts.from_labels(model, data, labels)
    best = (
        model.mode(best).log_prior
        + data.sum(model.visit, model.mode(best), Assignment("exact"))["log_z"]
    )
    found = 0
    for seed in range(6):
        start = starts.posterior(model, data, "kmeans", np.random.default_rng(seed))
        value = data.sum(model.visit, model.mode(start), Assignment("exact"))["log_z"]
        found += value > best - 0.01 * len(X)
    assert found >= 3


# Restarts ----------------------------------------------------------------------------------------


def assert_same_fit(one, other):
    np.testing.assert_array_equal(one.posterior.buffer, other.posterior.buffer)
    np.testing.assert_array_equal(one.objectives, other.objectives)
    assert (one.n_iter, one.converged) == (other.n_iter, other.converged)


@pytest.mark.parametrize("method", CLIMBS)
@pytest.mark.parametrize("most", [1, 3, 10])
def test_restarts_in_lockstep_are_those_alone(method, most):
    X, _ = clusters(700, 2, 4, gap=1.5)
    data = ArrayData.of(X)
    model = proper(data, 4)
    climber = METHODS[method](max_iter=60, tol=1e-4)
    rng = np.random.default_rng(0)
    begin = [starts.posterior(model, data, "random_from_data", rng) for _ in range(6)]
    alone = [climber.fit(model, data, start) for start in begin]
    assert len({fitted.n_iter for fitted in alone}) > 1
    passes, served = 0, 0

    def sum_each(requests):
        nonlocal passes, served
        passes += 1
        served += len(requests)
        assert len(requests) <= most
        return data.sum_each(model.visit_each, requests)

    climbs = (climber.climb(model, data, start) for start in begin)
    together = dict(lockstep(climbs, sum_each, most))
    for number, fitted in enumerate(alone):
        assert_same_fit(together[number], fitted)
    assert served == sum(fitted.n_iter + 1 for fitted in alone)
    if most == 10:  # the longest climb's passes served all
        assert passes <= max(fitted.n_iter + 1 for fitted in alone) + 1


def test_a_degenerate_restart_leaves_the_others_alone():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 2))
    data = ArrayData.of(X)
    model = vbfast.Model(vbfast.Mixture(3), vbfast.Gaussian(2, frame=data.frame))
    climber = vbfast.EM(max_iter=300, tol=1e-8)
    begin = [starts.posterior(model, data, "random", rng) for _ in range(12)]
    alone = []
    for start in begin:
        try:
            alone.append(climber.fit(model, data, start))
        except DegenerateError as error:
            alone.append(error)
    climbs = [climber.climb(model, data, start) for start in begin]
    outcomes = list(lockstep(climbs, lambda requests: data.sum_each(model.visit_each, requests), 4))
    assert sorted(number for number, _ in outcomes) == list(range(12))
    assert 0 < sum(isinstance(outcome, DegenerateError) for _, outcome in outcomes) < 12
    for number, outcome in outcomes:
        if isinstance(outcome, DegenerateError):
            assert str(outcome) == str(alone[number])
        else:
            assert_same_fit(outcome, alone[number])


def test_among_equal_restarts_the_first_is_kept():
    # One component: every start leads to the same fit, whichever ends first.
    X, _ = clusters(200)
    one = GaussianMixture(1, random_state=0, n_init=1).fit(X)
    several = GaussianMixture(1, random_state=0, n_init=5).fit(X)
    np.testing.assert_array_equal(one.means_, several.means_)
    assert one.objective_ == several.objective_


def test_restarts_that_somebody_reads_along_are_the_same(capsys):
    X, _ = clusters(300, 2, 4, gap=1.0)
    options = {"n_init": 3, "random_state": 0, "init_params": "random_from_data", "max_iter": 500}
    quiet = GaussianMixture(4, **options).fit(X)
    loud = GaussianMixture(4, verbose=1, **options).fit(X)
    assert quiet.objective_ == loud.objective_
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == [f"Initialization {n}" for n in range(3)]
    # One after another: iterations count from 0 under each head.
    counts = [int(line.split()[1]) for line in lines if line.startswith("  Iteration")]
    assert counts.count(0) == 3


def test_restarts_of_many_numbers_are_fitted_in_turn(monkeypatch):
    X, _ = clusters(300, 2, 4, gap=1.0)
    options = {"n_init": 4, "random_state": 0, "init_params": "random_from_data", "max_iter": 500}
    together = GaussianMixture(4, **options).fit(X)
    monkeypatch.setattr("vbfast.estimators.base.TOGETHER", 1)
    in_turn = GaussianMixture(4, **options).fit(X)
    np.testing.assert_array_equal(together.means_, in_turn.means_)
    assert together.objective_ == in_turn.objective_


def test_centroids_of_many_features_take_no_matrix():
    # Symbols are points of as many features as there are symbols.
    d = 2**21
    points = np.zeros((2, d))
    points[1, 5] = 1.0
    model = starts.Centroids(2, d)
    data = ArrayData.of(points, standardise=False)
    stats = data.sum(model.visit, model.at(points.copy()), Assignment("hard"))
    np.testing.assert_array_equal(stats["strength"], [1, 1])
    np.testing.assert_array_equal(stats["mean"], points)


@pytest.mark.parametrize("init_params", ["whitened", "auto"])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_rows_of_no_weight_may_lie_anywhere(init_params, covariance_type):
    X = np.random.default_rng(0).normal(size=(60, 2)) + 5 * (np.arange(60) % 2)[:, None]
    mixture = vbfast.GaussianMixture(
        2, covariance_type=covariance_type, init_params=init_params, random_state=0
    )
    expected = mixture.fit(X, sample_weight=np.ones(60)).score(X)
    far = np.vstack([X * 1e-20, [[1e300, -1e300]]])
    mixture.fit(far, sample_weight=np.append(np.ones(60), 0.0))
    assert mixture.score(far[:60]) == pytest.approx(expected + 2 * np.log(1e20), rel=1e-6)
