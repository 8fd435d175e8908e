"""`fit_many`: the same fits as one by one, whatever the shapes, threads and priors."""

import dataclasses
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import reference as ref
from test_processes import in_fork, posix

import vbfast
from vbfast import BayesianGaussianMixture, GaussianMixture, MixtureModel, fit_many, loops
from vbfast.estimators import many
from vbfast.estimators.many import _core
from vbfast.exceptions import ConvergenceWarning, DegenerateError

KINDS = ("full", "tied", "diag", "spherical")
DIRICHLET = {"weight_concentration_prior_type": "dirichlet_distribution"}


def clusters(rng, n_sets=5, n=90, k=3, d=2, away=3.0):
    """Data sets (S, N, D) with clusters of their own, in units of their own."""
    centres = away * rng.standard_normal((n_sets, k, d))
    X = centres[np.arange(n_sets)[:, None], rng.integers(k, size=(n_sets, n))]
    X = X + rng.standard_normal((n_sets, n, d))
    return X * rng.uniform(0.1, 30, (n_sets, 1, d)) + 100 * rng.standard_normal((n_sets, 1, d))


def quiet(work, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return work(*args, **kwargs)


def alone(estimator, X, **given):
    """The estimator fitted to one data set by `fit`, by plain updates as in `fit_many`."""
    one = type(estimator)(**estimator.get_params())
    method = _core(one)._check_parameters()
    if getattr(method, "acceleration", None):
        one.set_params(method=dataclasses.replace(method, acceleration=None))
    return quiet(one.fit, X, **given)


def assert_same(fits, s, single, rtol=1e-9):
    for name in fits.stacked:
        expected = getattr(single, name)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(fits, name)[s], expected, rtol, rtol * scale)


def assert_same_estimator(one, other, rtol=1e-9):
    """All that fit sets, but for the density, which predictions show."""
    assert vars(one).keys() == vars(other).keys()
    for name, value in vars(other).items():
        if name.startswith("_") or not name.endswith("_") or name == "method_":
            continue
        if value is None or isinstance(value, str):
            assert getattr(one, name) == value
        else:
            mine, scale = getattr(one, name), np.abs(value).max()
            np.testing.assert_allclose(mine, value, rtol, rtol * scale, err_msg=name)


def start(rng, X, kind, k=3):
    """Parameters to start from, which suit every data set."""
    d = X.shape[2]
    precisions = {"full": np.tile(np.eye(d), (k, 1, 1)), "tied": np.eye(d), "diag": np.ones((k, d)),
                  "spherical": np.ones(k)}[kind]  # fmt: skip
    return {
        "weights_init": np.full(k, 1 / k),
        "means_init": X.reshape(-1, d)[rng.choice(X.shape[0] * X.shape[1], k, replace=False)],
        "precisions_init": precisions / X.var(),
    }


CASES = [(kind, method) for kind in KINDS for method in vbfast.methods.METHODS if method != "full"]


@pytest.mark.parametrize(("kind", "method"), CASES)
@pytest.mark.parametrize("Estimator", [GaussianMixture, BayesianGaussianMixture])
def test_same_as_fit_from_the_same_start(kind, method, Estimator):
    rng = np.random.default_rng(CASES.index((kind, method)))
    X = clusters(rng)
    weights = rng.integers(0, 3, X.shape[:2]) + rng.random(X.shape[:2])
    for number, sample_weight in enumerate((None, weights)):
        estimator = Estimator(
            3, method=method, covariance_type=kind, max_iter=6, tol=1e-8, **DIRICHLET,
            **start(rng, X, kind), reg_covar=[1e-6, 1e-3][number],
        )  # fmt: skip
        fits = quiet(fit_many, estimator, X, sample_weight=sample_weight)
        assert not fits.degenerate_.any()
        assert len(fits) == 5
        for s in range(5):
            given = {} if sample_weight is None else {"sample_weight": sample_weight[s]}
            single = alone(estimator, X[s], **given)
            assert_same(fits, s, single)
            assert_same_estimator(fits[s], single)
            np.testing.assert_allclose(fits[s].score_samples(X[s]), single.score_samples(X[s]))
            np.testing.assert_array_equal(fits[s].predict(X[s]), single.predict(X[s]))


@pytest.mark.parametrize("kind", KINDS)
def test_same_as_fit_with_priors_that_are_given(kind):
    rng = np.random.default_rng(3)
    X = clusters(rng)
    scatter = {"full": np.diag([2.0, 5.0]) + 0.3, "tied": np.diag([2.0, 5.0]),
               "diag": np.array([2.0, 5.0]), "spherical": 3.0}[kind]  # fmt: skip
    for method in ("em", "mean_field"):
        estimator = GaussianMixture(
            3, method=method, covariance_type=kind, max_iter=5, tol=1e-8,
            weight_concentration_prior=1.7, mean_precision_prior=0.3, mean_prior=[1.0, -40.0],
            degrees_of_freedom_prior=4.5, covariance_prior=scatter, **start(rng, X, kind),
        )  # fmt: skip
        fits = quiet(fit_many, estimator, X)
        for s in range(5):
            single = alone(estimator, X[s])
            assert_same(fits, s, single)
            assert_same_estimator(fits[s], single)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_objectives_of_flat_components_do_not_fall(kind):
    """Rows in a plane: about the origin, sums of products would lose what variance there is."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 2000, 3)) + 6 * rng.integers(3, size=(12, 2000, 1))
    X = X.astype(np.float32).astype(float)
    X[..., 2] = (X[..., 0] + X[..., 1]).astype(np.float32)
    options = {"covariance_type": kind, "reg_covar": 1e-12, "tol": 1e-9, "max_iter": 300}
    estimator = GaussianMixture(3, random_state=0, **options)
    fits = quiet(fit_many, estimator, X)  # where one fell, it would warn
    for s in range(3):
        single = alone(estimator, X[s])
        np.testing.assert_allclose(fits.objective_[s], single.objective_, rtol=1e-9)


def test_same_as_the_plain_reference():
    """EM from labels that k-means finds at once: clusters far apart."""
    rng = np.random.default_rng(5)
    t = np.arange(60) % 3
    centres = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    X = centres[t] + rng.standard_normal((4, 60, 2))
    fits = quiet(fit_many, GaussianMixture(3, max_iter=3, tol=0, reg_covar=0.0, random_state=0), X)
    for s in range(4):
        expected = ref.em(X[s], ref.one_hot(t, 3), "full", None, n_sweeps=4)
        assert fits.objective_[s] == pytest.approx(expected["trace"][-1], rel=1e-10)


def test_some_parameters_given_and_the_others_from_a_start():
    rng = np.random.default_rng(6)
    X = clusters(rng, away=30.0)
    base = GaussianMixture(3, max_iter=200, tol=1e-10, random_state=0)
    expected = quiet(fit_many, base, X, n_threads=1)
    for names in (["weights_init"], ["means_init"], ["precisions_init", "weights_init"]):
        given = {name: value for name, value in start(rng, X, "full").items() if name in names}
        if "means_init" in given:
            given["means_init"] = expected.means_[0]
        estimator = GaussianMixture(3, max_iter=200, tol=1e-10, random_state=0, **given)
        fits = quiet(fit_many, estimator, X)
        assert fits.objective_[0] == pytest.approx(expected.objective_[0], rel=1e-6)


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
def test_starts_find_what_fit_finds(init):
    """With several of them the objective is as good; distributions of one are alike."""
    rng = np.random.default_rng(7)
    X = clusters(rng, n_sets=40, n=60, away=4.0)
    weights = (rng.random(X.shape[:2]) < 0.8).astype(float)
    estimator = GaussianMixture(3, init_params=init, max_iter=50, tol=1e-3, random_state=1)
    one = quiet(fit_many, estimator, X, sample_weight=weights)
    eight = quiet(fit_many, estimator.set_params(n_init=8), X, sample_weight=weights, n_threads=2)
    singles = [alone(estimator, x, sample_weight=w) for x, w in zip(X, weights, strict=True)]
    found = np.array([single.objective_ for single in singles])
    assert np.all(eight.objective_ >= one.objective_ - 1e-9 * np.abs(one.objective_))
    # In most sets, eight starts of either kind find the same best one.
    assert np.mean(np.abs(eight.objective_ - found) < 1e-2 * np.abs(found)) > 0.8
    assert eight.objective_.mean() > found.mean() - 2.0
    if init in ("random", "random_from_data"):
        assert (one.objective_ < eight.objective_ - 1e-6).any()


def test_kmeans_plus_plus_sees_every_cluster():
    """Groups of points on a line, far apart, one of them of weight 0."""
    rng = np.random.default_rng(8)
    places = np.repeat([0.0, 100.0, 200.0, 300.0, 400.0], 10)
    X = places[None, :, None] + rng.standard_normal((30, 50, 1))
    weights = np.tile((places != 200.0).astype(float), (30, 1))
    estimator = GaussianMixture(4, init_params="k-means++", max_iter=20, random_state=0)
    fits = fit_many(estimator, X, sample_weight=weights)
    means = np.sort(fits.means_[:, :, 0], axis=1)
    found = np.abs(means - [0, 100, 300, 400]).max(axis=1) < 5
    assert found.mean() > 0.9


def test_lists_of_any_length_type_and_layout():
    rng = np.random.default_rng(9)
    base = [clusters(rng, 1, n)[0] for n in (3, 40, 257, 1000, 31)]
    shapes = [
        base[0],
        base[1].astype(np.float32),
        np.asfortranarray(base[2]),
        np.repeat(base[3], 2, axis=0)[::2],
        np.round(base[4]).astype(int).tolist(),
    ]
    given = start(rng, base[1][None], "full")
    estimator = GaussianMixture(3, max_iter=4, tol=1e-8, reg_covar=1e-3, **given)
    fits = quiet(fit_many, estimator, shapes)
    for s, rows in enumerate(shapes):
        assert_same(fits, s, alone(estimator, rows))
    weights = [np.ones(len(rows)) for rows in shapes]
    weights[2] = rng.random(257)
    weighted = quiet(fit_many, estimator, shapes, sample_weight=weights)
    assert weighted.objective_[3] == pytest.approx(fits.objective_[3], rel=1e-12)
    assert weighted.objective_[2] == pytest.approx(
        alone(estimator, shapes[2], sample_weight=weights[2]).objective_, rel=1e-10
    )


def test_scales_and_shifts_of_the_data_do_not_matter():
    rng = np.random.default_rng(10)
    X = clusters(rng, 1, away=30.0)[0]
    moved = [X, X * 1e-100, X * 1e100, X + 1e7, (X - 5) * [1e-30, 1e30]]
    fits = fit_many(GaussianMixture(3, random_state=0, tol=1e-5, n_init=5), moved)
    unit = 90 * np.log(10) * 2
    expected = fits.objective_[0] + np.array([0, 100 * unit, -100 * unit, 0, 0])
    np.testing.assert_allclose(fits.objective_, expected, rtol=1e-6)
    np.testing.assert_allclose(fits.weights_.max(axis=1), fits.weights_[0].max(), rtol=1e-3)


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_same_bits_for_every_number_of_threads(n_threads):
    rng = np.random.default_rng(11)
    X = [clusters(rng, 1, n)[0] for n in rng.integers(10, 500, 60)]
    estimator = GaussianMixture(3, n_init=2, random_state=3, max_iter=30)
    one = quiet(fit_many, estimator, X, n_threads=1)
    other = quiet(fit_many, estimator, X, n_threads=n_threads)
    for name in one.stacked:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    # A data set's fit depends on its place, not on what comes after it.
    fewer = quiet(fit_many, estimator, X[:7], n_threads=n_threads)
    np.testing.assert_array_equal(fewer.means_, one.means_[:7])


def test_slices_of_time_do_not_matter():
    """Fits of many slices, which end at other sweeps each time."""
    rng = np.random.default_rng(12)
    X = clusters(rng, 2, 4000, k=8, d=3, away=1.5)
    estimator = GaussianMixture(8, max_iter=5000, tol=0, random_state=0)
    model_rows = loops.most_rows(vbfast.Model(vbfast.Mixture(8), vbfast.Gaussian(3)))
    assert model_rows >= 4000
    fits = quiet(fit_many, estimator, X, n_threads=1)
    assert np.all(fits.n_iter_ > 1000)
    both = quiet(fit_many, estimator, X, n_threads=2)
    np.testing.assert_array_equal(fits.means_, both.means_)


# One by one --------------------------------------------------------------------------------------


def test_dirichlet_processes_and_large_data_are_fitted_one_by_one(monkeypatch):
    rng = np.random.default_rng(13)
    X = clusters(rng, 3)
    for estimator in (
        BayesianGaussianMixture(3, random_state=0),
        GaussianMixture(3, covariance_type="diag", mean_variance_prior=3.0, method="mean_field"),
        GaussianMixture(2, method=vbfast.FullInference(n_draws=20, n_tune=20, n_chains=2)),
    ):
        estimator.set_params(**start(rng, X, estimator.covariance_type, estimator.n_components))
        fits = quiet(fit_many, estimator, X)
        for s in range(3):
            assert fits.objective_[s] == fits[s].objective_
            assert fits[s].random_state is estimator.random_state
            np.testing.assert_array_equal(fits.covariances_[s], fits[s].covariances_)
            if fits[s].method_.name != "full":
                one = type(estimator)(**estimator.get_params())
                assert_same(fits, s, quiet(one.fit, X[s]))
    assert fits[0].draws_["means"].shape == (2, 20, 2, 2)
    # Some compiled, one not.
    model = vbfast.Model(vbfast.Mixture(3), vbfast.Gaussian(2))
    monkeypatch.setattr(loops, "SMALL", 100 * model.layout.size)
    sets = [X[0], np.concatenate([X[1], X[1]]), X[2]]
    estimator = GaussianMixture(3, max_iter=5, tol=1e-8, **start(rng, X, "full"))
    fits = quiet(fit_many, estimator, sets)
    assert set(fits._made) == {1}
    for s in range(3):
        assert_same(fits, s, alone(estimator, sets[s]))
        assert_same_estimator(fits[s], alone(estimator, sets[s]))


# What is told ------------------------------------------------------------------------------------


def test_result_is_a_sequence():
    X = clusters(np.random.default_rng(14))
    estimator = GaussianMixture(3, random_state=0, covariance_type="tied")
    fits = quiet(fit_many, estimator, X)
    assert not hasattr(estimator, "means_")
    assert len(list(fits)) == len(fits) == 5
    assert fits[-1] is fits[4]
    assert fits[np.int64(2)].covariance_type == "tied"
    for index in (5, -6):
        with pytest.raises(IndexError, match=r"data set -?[56] of 5"):
            fits[index]
    with pytest.raises(TypeError):
        fits["0"]
    assert fits.covariances_.shape == (5, 2, 2)
    again = pickle.loads(pickle.dumps(fits))
    np.testing.assert_array_equal(again.means_, fits.means_)
    np.testing.assert_array_equal(again[3].means_, fits[3].means_)
    assert repr(fits).startswith("<ManyFits of 5 data sets by GaussianMixture(")
    np.testing.assert_array_equal(fits[1].means_, fits.means_[1])


def test_one_warning_for_all_that_did_not_converge():
    X = clusters(np.random.default_rng(15), away=0.5)
    with pytest.warns(ConvergenceWarning, match=r"in 5 of 5 data sets em did not converge in 1 "):
        fits = fit_many(GaussianMixture(3, max_iter=1, tol=0, random_state=0), X)
    assert not fits.converged_.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = fit_many(GaussianMixture(3, max_iter=500, tol=1e-3, random_state=0), X)
    assert fits.converged_.all()


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_data_sets_are_told_and_the_others_fitted(kind):
    rng = np.random.default_rng(16)
    X = clusters(rng, 4)
    X[2] = X[2, 0]
    X[2, 45:] += 1.0
    estimator = GaussianMixture(2, covariance_type=kind, reg_covar=0.0, random_state=0, n_init=2)
    with pytest.warns(ConvergenceWarning, match=r"1 of 4 data sets has no bound.*NaN: 2. Use"):
        fits = fit_many(estimator, X)
    np.testing.assert_array_equal(fits.degenerate_, [False, False, True, False])
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "objective_"):
        assert np.isnan(getattr(fits, name)[2]).all()
        assert np.isfinite(getattr(fits, name)[[0, 1, 3]]).all()
    assert not fits.converged_[2]
    with pytest.raises(DegenerateError, match="data set 2: component"):
        fits[2]
    assert fits[3].converged_


def test_nothing_but_degenerate_data_sets():
    X = np.zeros((2, 10, 2))
    X[:, 5:] = 1.0
    for estimator in (
        GaussianMixture(2, reg_covar=0.0, init_params="kmeans", random_state=0),
        GaussianMixture(
            2,
            covariance_type="diag",
            reg_covar=0.0,
            random_state=0,
            init_params="kmeans",
            weight_concentration_prior_type="dirichlet_process",
        ),
    ):
        with pytest.warns(ConvergenceWarning, match="2 of 2 data sets has no bound"):
            fits = fit_many(estimator, X)
        assert fits.degenerate_.all()
        assert fits.means_.shape == (2, 2, 2)
        assert np.isnan(fits.means_).all()
        assert fits.covariances_.shape[1:] == (
            (2, 2, 2) if estimator.covariance_type == "full" else (2, 2)
        )


@pytest.mark.parametrize(("change", "error", "words"), [
    (lambda X: np.where(np.arange(90)[:, None] == 7, np.nan, X), ValueError,
     "data set 0: Input X contains NaN at row 7, column 0"),
    (lambda X: X[0], ValueError, "three-dimensional.*One data set: estimator.fit"),
    (lambda X: [X[0], X[1][:, :1]], ValueError, "data set 1 has 1 features, data set 0 has 2"),
    (lambda X: [X[0], X[1][:2]], ValueError, "more than the 2 rows of data set 1"),
    (lambda X: [X[0], X[1][:0]], ValueError, r"X\[1\]: 0 sample"),
    (lambda X: [], ValueError, "no data set"),
    (lambda X: [X[0], X[1].astype(str)], ValueError, r"X\[1\] must hold real numbers"),
    (lambda X: [X[0], X[1] + 1j], ValueError, r"X\[1\]: Complex"),
    (lambda X: [X[0], X[1] * 1e200], ValueError, "data set 1: column 0 of X runs from"),
])  # fmt: skip
def test_bad_data(change, error, words):
    X = clusters(np.random.default_rng(17))
    with pytest.raises(error, match=words):
        fit_many(GaussianMixture(3), change(X))


def test_infinity_anywhere_is_found():
    for n, place in ((90, 3), (90, 89), (700, 699), (700, 256)):
        for value in (np.inf, -np.inf, np.nan):
            X = clusters(np.random.default_rng(18), n=n)
            X[4, place, 1] = value
            with pytest.raises(ValueError, match=f"data set 4: .*row {place}, column 1"):
                fit_many(GaussianMixture(3), X)
            # Even where its weight is 0.
            weights = np.ones(X.shape[:2])
            weights[4, place] = 0.0
            with pytest.raises(ValueError, match=f"data set 4: .*row {place}, column 1"):
                fit_many(GaussianMixture(3), X, sample_weight=weights)


def test_bad_arguments():
    X = clusters(np.random.default_rng(19))
    with pytest.raises(TypeError, match="estimator must be a GaussianMixture"):
        fit_many("em", X)
    with pytest.raises(ValueError, match="n_components must be an integer >= 1"):
        fit_many(GaussianMixture(0), X)
    with pytest.raises(ValueError, match="warm_start"):
        fit_many(GaussianMixture(2, warm_start=True), X)
    with pytest.raises(ValueError, match="n_threads"):
        fit_many(GaussianMixture(2), X, n_threads=0)
    with pytest.raises(ValueError, match="weights of each of 5 data sets"):
        fit_many(GaussianMixture(2), X, sample_weight=np.ones(4))
    weights = np.ones((5, 90))
    weights[3, 2] = -1
    with pytest.raises(ValueError, match=r"data set 3: sample_weight\[2\] is -1"):
        fit_many(GaussianMixture(2), X, sample_weight=weights)
    with pytest.raises(ValueError, match="data set 0: means_init"):
        fit_many(GaussianMixture(2, means_init=np.full((2, 2), 1e30)), X)
    sets = [X[0], X[1] * 1e-100]
    with pytest.raises(ValueError, match="data set 1: mean_prior"):
        fit_many(GaussianMixture(2, mean_prior=[1e10, 1e10]), sets)
    method = vbfast.FullInference(n_draws=2, n_tune=1, n_chains=1)
    with pytest.raises(ValueError, match=r"data set 0: sample_weight.*whole weights"):
        fit_many(GaussianMixture(2, method=method), X, sample_weight=np.full((5, 90), 0.5))


# Processes ---------------------------------------------------------------------------------------


@posix
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child():
    X = clusters(np.random.default_rng(20), 30)
    estimator = GaussianMixture(3, random_state=0, max_iter=500)

    def means():
        return fit_many(estimator, X, n_threads=2).means_

    expected = means()
    np.testing.assert_array_equal(in_fork(means), expected)


INTERRUPTED = """
import os, signal, threading, time
import numpy as np
import vbfast
X = np.random.default_rng(0).standard_normal({shape})
work = lambda: {work}
signal.signal(signal.SIGINT, signal.default_int_handler)
sent = []
def send():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(0.7, send).start()
try:
    work()
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
"""
LONG = [
    ("(300, 3000, 3)", "vbfast.fit_many(vbfast.GaussianMixture(8, max_iter=10**6, tol=0), X)"),
    ("(20000, 300, 2)", "vbfast.fit_many(vbfast.GaussianMixture(3, max_iter=2000, tol=0), X)"),
    (
        "(1000, 2)",
        "vbfast.GaussianMixture(3, method=vbfast.FullInference(n_draws=10**6, n_chains=3)).fit(X)",
    ),
]


@pytest.mark.skipif(os.name == "nt", reason="signals are otherwise there")
@pytest.mark.parametrize(("shape", "work"), LONG)
def test_interrupt(shape, work):
    """Ctrl-C ends it: soon, but how soon isn't asserted."""
    code = INTERRUPTED.format(shape=shape, work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 30


def test_weights_of_a_data_set_may_not_be_none():
    with pytest.raises(ValueError, match=r"sample_weight\[1\] is None"):
        fit_many(GaussianMixture(), np.ones((2, 5, 1)), sample_weight=[np.ones(5), None])


def test_errors_of_degenerate_data_sets_are_new_each_time():
    with pytest.warns(ConvergenceWarning, match="no bound"):
        fits = fit_many(GaussianMixture(reg_covar=0), np.ones((1, 5, 1)))
    caught = []
    for _ in range(2):
        with pytest.raises(DegenerateError, match="data set 0") as error:
            fits[0]
        caught.append(error.value)
    assert caught[0] is not caught[1]


# Counts and symbols ------------------------------------------------------------------------------

COUNTS = ("poisson", "exponential", "bernoulli", "categorical")
RATES = COUNTS[:2]
ALIKE = [(e, m) for e in COUNTS for m in vbfast.methods.METHODS if m != "full"]


def counted(rng, emission, n_sets=5, n=90, k=3, d=2):
    """Data sets (S, N, D) of overlapping components of their own."""
    rates = rng.uniform(0.2, 6.0, (n_sets, k, d))
    each = rates[np.arange(n_sets)[:, None], rng.integers(k, size=(n_sets, n))]
    if emission == "exponential":
        return rng.exponential(each)
    X = rng.poisson(each)
    most = {"poisson": np.inf, "bernoulli": 1, "categorical": 3}[emission]
    X = np.minimum(X, most).astype(float)
    X[:, : int(min(most, 3)) + 1] = np.arange(int(min(most, 3)) + 1)[:, None]
    return X


def given_for(rng, emission, k=3, d=2):
    """Parameters to start from, none of them 0."""
    if emission in RATES:
        parameters = {"means_init": rng.uniform(0.5, 5, (k, d))}
    elif emission == "bernoulli":
        parameters = {"probabilities_init": rng.uniform(0.2, 0.8, (k, d))}
    else:
        parameters = {"probabilities_init": rng.dirichlet(np.full(4, 5.0), (k, d))}
    return {"weights_init": rng.dirichlet(np.full(k, 5.0)), **parameters}


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize(("emission", "method"), ALIKE)
def test_counts_and_symbols_same_as_fit_from_the_same_start(emission, method, prior):
    rng = np.random.default_rng([ALIKE.index((emission, method)), prior])
    X = counted(rng, emission)
    weights = rng.integers(0, 3, X.shape[:2]) + rng.random(X.shape[:2])
    priors = {}
    if prior:
        priors = {
            **{rates: {"shape_prior": [1.5, 2.0], "rate_prior": 0.4} for rates in RATES},
            "bernoulli": {"concentration_prior": [1.2, 1.7]},
            "categorical": {"concentration_prior": [1.2, 1.7, 1.0, 2.0]},
        }[emission] | {"weight_concentration_prior": 1.3}
    for sample_weight in (None, weights):
        estimator = MixtureModel(
            3, emission=emission, method=method, max_iter=6, tol=1e-8, **priors,
            **given_for(rng, emission),
        )  # fmt: skip
        fits = quiet(fit_many, estimator, X, sample_weight=sample_weight)
        assert not fits._made
        for s in range(5):
            given = {} if sample_weight is None else {"sample_weight": sample_weight[s]}
            single = alone(estimator, X[s], **given)
            assert_same(fits, s, single)
            assert_same_estimator(fits[s], single)
            np.testing.assert_allclose(fits[s].score_samples(X[s]), single.score_samples(X[s]))
            np.testing.assert_array_equal(fits[s].predict(X[s]), single.predict(X[s]))


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("emission", COUNTS)
def test_counts_and_symbols_start_where_fit_starts(emission, init):
    """Clusters that any start finds: the posterior begun with is that of `fit`, in some order."""
    rng = np.random.default_rng(30)
    t = np.arange(60) % 2
    X = np.tile(np.array([[0.0] * 6, [1.0] * 6])[t], (20, 1, 1))
    flip = rng.random(X.shape) < 0.05
    X = np.where(flip, 1.0 - X, X) * (40.0 if emission in RATES else 1.0)
    if emission == "exponential":  # rows of 0 alone have no rate
        X += 1.0
    estimator = MixtureModel(2, emission=emission, init_params=init, max_iter=1, random_state=0)
    fits = quiet(fit_many, estimator, X)
    name = "rates_" if emission in RATES else "probabilities_"
    agreed = 0
    for s, rows in enumerate(X):
        single = quiet(estimator.fit, rows)
        mine, theirs = getattr(fits, name)[s], getattr(single, name)
        order = (
            [0, 1] if np.abs(mine - theirs).max() < np.abs(mine[::-1] - theirs).max() else [1, 0]
        )
        agreed += np.allclose(mine[order], theirs, rtol=1e-9)
    if init in ("kmeans", "k-means++"):
        assert agreed >= 18
    again = quiet(fit_many, estimator, X[:3], n_threads=2)
    np.testing.assert_array_equal(getattr(again, name), getattr(fits, name)[:3])


def test_waiting_times_start_where_fit_starts():
    """By k-means of x^(1/4), which parts one cluster of a skewed density elsewhere than x does."""
    X = np.random.default_rng(41).exponential(size=(20, 80, 1))
    estimator = MixtureModel(
        2, emission="exponential", init_params="kmeans", max_iter=0, random_state=0
    )
    fits = quiet(fit_many, estimator, X)
    theirs = np.array([np.sort(quiet(estimator.fit, rows).rates_[:, 0]) for rows in X])
    agreed = np.isclose(np.sort(fits.rates_[:, :, 0], axis=1), theirs, rtol=1e-9).all(axis=1)
    assert agreed.sum() >= 5  # of local optima


def test_waiting_times_that_are_all_zero():
    X = np.random.default_rng(42).exponential(size=(3, 30, 2))
    X[1, :, 1] = 0.0
    fits = quiet(fit_many, MixtureModel(2, emission="exponential", random_state=0), X)
    np.testing.assert_array_equal(fits.degenerate_, [False, True, False])
    assert np.isnan(fits.rates_[1]).all()


@pytest.mark.parametrize("emission", COUNTS)
def test_several_starts_of_counts_and_symbols(emission):
    X = counted(np.random.default_rng(31), emission, n_sets=12)
    estimator = MixtureModel(3, emission=emission, max_iter=300, random_state=0)
    one = quiet(fit_many, estimator, X)
    eight = quiet(fit_many, estimator.set_params(n_init=8), X, n_threads=2)
    assert np.all(eight.objective_ >= one.objective_ - 1e-9 * np.abs(one.objective_))
    found = np.array([alone(estimator, rows).objective_ for rows in X])
    assert eight.objective_.mean() > found.mean() - 1.0
    assert repr(eight).startswith("<ManyFits of 12 data sets by MixtureModel(")
    assert eight[3].n_init == 8


@pytest.mark.parametrize("emission", RATES)
def test_prior_rates_are_those_of_each_data_set(emission):
    rng = np.random.default_rng(32)
    X = [counted(rng, emission, 1, n)[0] * (1 + 4 * (n > 50)) for n in (20, 60, 90)]
    estimator = MixtureModel(
        2, emission=emission, method="mean_field", max_iter=5, tol=0,
        **given_for(rng, emission, 2),
    )  # fmt: skip
    fits = quiet(fit_many, estimator, X)
    for s, rows in enumerate(X):
        assert_same(fits, s, alone(estimator, rows))
        mean = rows.mean(axis=0)
        rate = 1 / mean if emission == "poisson" else mean
        np.testing.assert_allclose(fits[s].rate_prior_, rate)


def test_categories_are_those_of_all_data_sets():
    rng = np.random.default_rng(33)
    X = rng.integers(0, 3, (4, 40, 2)).astype(float)
    X[2, 5, 1] = 6.0
    estimator = MixtureModel(2, emission="categorical", random_state=0)
    fits = fit_many(estimator, X)
    assert fits.probabilities_.shape == (4, 2, 2, 4)
    np.testing.assert_array_equal(fits[0].n_categories_, [3, 4])
    np.testing.assert_array_equal(fits[0].categories_[1], [0, 1, 2, 6])
    assert fits[0].n_categories is None
    fits[2].predict(X[2])
    with pytest.raises(ValueError, match=r"X\[0, 1\] is 3 .* none of this column's categories"):
        fits[0].predict([[0.0, 3.0]])
    assert not fits.probabilities_[0, :, :, 3:].any()
    method = vbfast.FullInference(n_draws=3, n_tune=2, n_chains=1)
    one_by_one = quiet(fit_many, estimator.set_params(method=method), X)
    assert one_by_one[1].probabilities_.shape == (2, 2, 4)
    assert one_by_one[1].n_categories is None
    np.testing.assert_array_equal(one_by_one[1].categories_[1], [0, 1, 2, 6])


def test_gaussian_mixture_models_are_gaussian_mixtures():
    X = clusters(np.random.default_rng(34))
    options = {"max_iter": 20, "random_state": 0}
    fits = quiet(fit_many, vbfast.MixtureModel(3, **options), X)
    expected = quiet(fit_many, GaussianMixture(3, **options), X)
    np.testing.assert_array_equal(fits.means_, expected.means_)
    assert isinstance(fits[1], vbfast.MixtureModel)
    np.testing.assert_array_equal(fits[1].predict(X[1]), expected[1].predict(X[1]))


@pytest.mark.parametrize("emission", COUNTS)
def test_bad_counts_and_symbols(emission):
    X = counted(np.random.default_rng(35), emission)
    estimator = MixtureModel(3, emission=emission)
    # Symbols may be any integers.
    wrong = 0.5 if emission == "categorical" else -1.0
    X[3, 7, 1] = wrong
    with pytest.raises(ValueError, match=rf"data set 3: X\[7, 1\] is {wrong:g}"):
        fit_many(estimator, X)
    X[3, 7, 1] = np.nan
    with pytest.raises(ValueError, match="data set 3: Input X contains NaN at row 7, column 1"):
        fit_many(estimator, X)
    with pytest.raises(ValueError, match="lengths are for a HiddenMarkovModel"):
        fit_many(estimator, X[:3], lengths=[None] * 3)


def test_impossible_rows_are_named():
    X = np.zeros((3, 10, 1))
    X[1, 4] = 1.0
    estimator = MixtureModel(
        2, emission="bernoulli", weights_init=[0.5, 0.5], probabilities_init=np.zeros((2, 1))
    )
    with pytest.raises(vbfast.ImpossibleRowError, match="data set 1: row 4 of X"):
        fit_many(estimator, X)


# Hidden Markov models ----------------------------------------------------------------------------


@pytest.mark.parametrize("emission", ["gaussian", *COUNTS])
@pytest.mark.parametrize("method", ["em", "mean_field", "variational_em", "crisp_em"])
def test_hidden_markov_models_same_as_fit(emission, method):
    rng = np.random.default_rng(36)
    X = clusters(rng, 3, 40) if emission == "gaussian" else counted(rng, emission, 3, 40)
    sets = [X[0], X[1, :25], X[2]]
    given = {} if emission == "gaussian" else given_for(rng, emission)
    given.pop("weights_init", None)
    if emission == "gaussian":
        given = start(rng, X, "diag")
        given.pop("weights_init")
    estimator = vbfast.HiddenMarkovModel(
        3, emission=emission, method=method, max_iter=10, startprob_init=[0.5, 0.3, 0.2],
        transmat_init=rng.dirichlet(np.full(3, 5.0), 3), **given,
    )  # fmt: skip
    lengths = [None, [10, 8, 7], [1, 2, 37]]
    fits = quiet(fit_many, estimator, sets, lengths=lengths)
    for s, rows in enumerate(sets):
        single = quiet(vbfast.HiddenMarkovModel(**estimator.get_params()).fit, rows,
                       lengths=lengths[s])  # fmt: skip
        assert_same(fits, s, single)
        assert_same_estimator(fits[s], single)
        np.testing.assert_array_equal(fits[s].predict(rows, lengths[s]),
                                      single.predict(rows, lengths[s]))  # fmt: skip
    assert fits.transmat_.shape == (3, 3, 3)


def test_sequences_that_are_refused():
    X = clusters(np.random.default_rng(37), 2)
    estimator = vbfast.HiddenMarkovModel(2, random_state=0)
    with pytest.raises(ValueError, match="sample_weight is for mixtures"):
        fit_many(estimator, X, sample_weight=np.ones((2, 90)))
    with pytest.raises(ValueError, match="lengths must hold those of each of 2 data sets"):
        fit_many(estimator, X, lengths=[[90]])
    with pytest.raises(ValueError, match=r"data set 1: .*lengths"):
        fit_many(estimator, X, lengths=[None, [50, 50]])


@pytest.mark.parametrize("emission", COUNTS)
def test_data_sets_are_looked_at_in_parts(emission, monkeypatch):
    """A few, one that is larger than a part, the last alone."""
    rng = np.random.default_rng(38)
    X = [counted(rng, emission, 1, n)[0] for n in (20, 25, 90, 30, 31, 20)]
    weights = [rng.random(len(rows)) for rows in X]
    estimator = MixtureModel(2, emission=emission, method="mean_field", max_iter=4, random_state=0)
    expected = quiet(fit_many, estimator, X, sample_weight=weights)
    monkeypatch.setattr(many, "TOGETHER", 50)
    sizes = np.array([len(rows) for rows in X])
    assert many._parts(sizes) == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 6)]
    fits = quiet(fit_many, estimator, X, sample_weight=weights)
    for name in fits.stacked:
        np.testing.assert_allclose(getattr(fits, name), getattr(expected, name), rtol=1e-12)
    X[4][3, 1] = wrong = -1.0 if emission == "exponential" else 0.5
    with pytest.raises(ValueError, match=rf"data set 4: X\[3, 1\] is {wrong:g}"):
        fit_many(estimator, X)


@pytest.mark.parametrize("emission", ["gaussian", *COUNTS])
def test_full_inference_same_as_fit_with_its_seed(emission):
    rng = np.random.default_rng(39)
    X = clusters(rng, 3, 40) if emission == "gaussian" else counted(rng, emission, 3, 40)
    method = vbfast.FullInference(n_draws=20, n_tune=10, n_chains=2)
    estimator = MixtureModel(2, emission=emission, method=method, random_state=3)
    fits = quiet(fit_many, estimator, X)
    seeds = np.random.default_rng(3).integers(2**63, size=3, dtype=np.uint64)
    for s, rows in enumerate(X):
        single = MixtureModel(2, emission=emission, method=method, random_state=int(seeds[s]))
        quiet(single.fit, rows)
        assert_same(fits, s, single, rtol=0)
        for name, part in single.draws_.items():
            np.testing.assert_array_equal(fits[s].draws_[name], part)


@pytest.mark.parametrize("emission", ["gaussian", "poisson", "bernoulli", "categorical"])
def test_fits_of_mixture_models_survive_pickling(emission):
    X = np.random.default_rng(0).integers(2, size=(4, 60, 3)).astype(float)
    fits = vbfast.fit_many(vbfast.MixtureModel(2, emission=emission, tol=1e-2, random_state=0), X)
    again = pickle.loads(pickle.dumps(fits))
    np.testing.assert_array_equal(again.objective_, fits.objective_)
    np.testing.assert_array_equal(again[1].predict_proba(X[1]), fits[1].predict_proba(X[1]))
