"""The estimators: scikit-learn's conventions and answers, weights, layouts, threads, densities."""

import copy
import io
import pickle
import subprocess
import sys
import warnings
from contextlib import redirect_stdout

import numpy as np
import pytest
import reference as ref
import sklearn.mixture
from scipy import stats
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import vbfast
from vbfast import BayesianGaussianMixture, GaussianMixture, MixtureModel

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
ESTIMATORS = (GaussianMixture, BayesianGaussianMixture)
FEW_DRAWS = vbfast.FullInference(n_draws=100, n_tune=50, n_chains=2)
CLIMBS = ("mean_field", "em", "variational_em", "crisp_em")
METHODS = (*CLIMBS, vbfast.VariationalEM(truncation=2), FEW_DRAWS)
SUMMARIES = ("weights", "means", "covariances")
PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")

each_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
each_estimator = pytest.mark.parametrize("Estimator", ESTIMATORS)
each_method = pytest.mark.parametrize(
    "method", METHODS, ids=[*CLIMBS, "truncated", "full_inference"]
)


def blobs(n_rows=300, n_features=2, n_components=3, seed=0, gap=6.0):
    """Rows of overlapping but distinct correlated clusters of unequal sizes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(n_components, n_rows, p=np.arange(1, n_components + 1) / sum(
        range(n_components + 1)))  # fmt: skip
    labels[:n_components] = range(n_components)
    centres = gap * rng.normal(size=(n_components, n_features))
    roots = np.eye(n_features) + 0.4 * rng.normal(size=(n_components, n_features, n_features))
    z = rng.normal(size=(n_rows, n_features))
    return centres[labels] + (roots[labels] @ z[:, :, None])[:, :, 0]


def separated(n_rows=150, n_features=2):
    """Three clusters that nobody can take for one another."""
    rng = np.random.default_rng(0)
    labels = np.arange(n_rows) % 3
    return (
        15.0 * np.eye(3)[labels, :n_features]
        - 5.0 * (labels == 2)[:, None]
        + rng.normal(size=(n_rows, n_features))
    )


def start(X, n_components, covariance_type):
    """A start that both libraries are told."""
    d = X.shape[1]
    precision = np.linalg.inv(np.cov(X.T).reshape(d, d))
    precisions = {
        "full": np.tile(precision, (n_components, 1, 1)),
        "tied": precision,
        "diag": np.tile(np.diag(precision), (n_components, 1)),
        "spherical": np.full(n_components, precision.trace() / d),
    }
    return {
        "weights_init": np.arange(1.0, n_components + 1) / sum(range(n_components + 1)),
        "means_init": X[:n_components] + 0.1,
        "precisions_init": precisions[covariance_type],
    }


def settled(method):
    """A point method or mean field, by name, run until next to nothing moves."""
    return {"method": method, "max_iter": 20_000, "tol": 1e-14}


def some_steps(method):
    """The same, a fixed number of updates."""
    return {"method": method, "max_iter": 8, "tol": 0.0}


# For tests that cut a fit or a chain short on purpose.
cut_short = pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")


def state(estimator):
    return {name: getattr(estimator, name) for name in PARAMETERS} | {
        "objective_": estimator.objective_
    }


def assert_same(one, other, rtol=0.0, atol=0.0):
    for name, value in state(one).items():
        np.testing.assert_allclose(getattr(other, name), value, rtol=rtol, atol=atol, err_msg=name)


# -- scikit-learn's conventions -----------------------------------------------------------------


def run_check_estimator(estimator):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not inherit from.*BaseEstimator")
        check_estimator(estimator, on_skip=None)


@pytest.mark.slow
@each_estimator
@each_type
@each_method
def test_check_estimator(Estimator, method, covariance_type):
    run_check_estimator(Estimator(method=method, covariance_type=covariance_type))


@pytest.mark.slow
def test_check_estimator_with_full_inference_by_name():
    run_check_estimator(BayesianGaussianMixture(method="full", covariance_type="spherical"))


def test_parameters_are_those_of_scikit_learn_and_their_defaults():
    for ours, theirs in (
        (GaussianMixture(), sklearn.mixture.GaussianMixture()),
        (BayesianGaussianMixture(), sklearn.mixture.BayesianGaussianMixture()),
    ):
        # Defaults that end at the right answer are other ones.
        own = {"tol": None, "max_iter": 1000, "init_params": "auto"}
        assert ours.get_params().items() >= (theirs.get_params() | own).items()


def test_set_params_and_repr():
    mixture = GaussianMixture(2, tol=1e-5)
    assert repr(mixture) == "GaussianMixture(n_components=2, tol=1e-05)"
    assert mixture.set_params(method="crisp_em", n_components=4) is mixture
    assert mixture.get_params()["method"] == "crisp_em"
    with pytest.raises(ValueError, match="Invalid parameter 'n_clusters'"):
        mixture.set_params(n_init=3, n_clusters=2)
    assert mixture.n_init == 1


@each_method
def test_clone_pickle_and_copy(method):
    X = blobs()
    mixture = BayesianGaussianMixture(2, method=method, random_state=3).fit(X)
    fresh = clone(mixture)
    assert not hasattr(fresh, "means_")
    assert_same(fresh.fit(X), mixture)
    for again in (
        pickle.loads(pickle.dumps(mixture)),
        copy.copy(mixture),
        copy.deepcopy(mixture),
    ):
        assert_same(again, mixture)
        # The whole predictive density comes along, not only the parameters.
        np.testing.assert_array_equal(again.score_samples(X), mixture.score_samples(X))
        np.testing.assert_array_equal(again.predict_proba(X), mixture.predict_proba(X))


def test_grid_search_and_pipeline():
    X = blobs()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GaussianMixture(random_state=0, n_init=3)),
        {"gaussianmixture__n_components": [1, 3], "gaussianmixture__method": ["em", "mean_field"]},
        cv=3,
    ).fit(X)
    assert search.best_params_["gaussianmixture__n_components"] == 3
    assert search.predict(X).shape == (300,)


class Frame:
    """What of a data frame an estimator looks at."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_feature_names():
    X = blobs()
    mixture = GaussianMixture(2, random_state=0).fit(Frame(X, ["height", "width"]))
    assert list(mixture.feature_names_in_) == ["height", "width"]
    mixture.predict(Frame(X, ["height", "width"]))
    mixture.predict(X)
    with pytest.raises(ValueError, match=r"feature names .*height.*width.*not .*width.*height"):
        mixture.predict(Frame(X, ["width", "height"]))
    # Fitted anew without names, it has none.
    assert not hasattr(mixture.fit(X), "feature_names_in_")
    assert not hasattr(GaussianMixture().fit(Frame(X, [0, 1])), "feature_names_in_")


def test_import_takes_no_optional_package():
    # Beyond what NumPy and SciPy take themselves.
    unwanted = {"sklearn", "matplotlib", "argparse", "scipy.optimize", "dask", "arviz", "pandas"}
    code = (
        "import sys, numpy, scipy.linalg, scipy.special; before = set(sys.modules)\n"
        f"import vbfast; print(({unwanted} & set(sys.modules)) - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_fit_and_predict_need_no_scikit_learn():
    code = (
        "import sys, numpy, vbfast; X = numpy.arange(20.0).reshape(10, 2)\n"
        "vbfast.GaussianMixture(2).fit(X).predict(X)\n"
        "try: vbfast.GaussianMixture().predict(X)\n"
        "except vbfast.NotFittedError: print('sklearn' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# -- agreement with scikit-learn ----------------------------------------------------------------


@each_type
def test_em_agrees_with_scikit_learn(covariance_type):
    X = blobs(400, 3)
    given = start(X, 3, covariance_type) | {"reg_covar": 0.0, "covariance_type": covariance_type}
    ours = GaussianMixture(3, **given, **settled("em")).fit(X)
    theirs = sklearn.mixture.GaussianMixture(3, **given, tol=1e-14, max_iter=20_000).fit(X)
    for name in PARAMETERS:
        expected = getattr(theirs, name)
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=1e-6, atol=1e-8)
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-9)
    Z = X[:50] + 0.3
    np.testing.assert_array_equal(ours.predict(Z), theirs.predict(Z))
    for function in ("predict_proba", "score_samples", "score", "bic", "aic"):
        np.testing.assert_allclose(
            getattr(ours, function)(Z), getattr(theirs, function)(Z), rtol=1e-6, atol=1e-8,
            err_msg=function,
        )  # fmt: skip


@each_type
def test_one_step_of_em_agrees_with_scikit_learn(covariance_type):
    # After a single update nothing but the given start decides.
    X = blobs(400, 3)
    given = start(X, 3, covariance_type) | {"reg_covar": 0.0, "covariance_type": covariance_type}
    given |= {"max_iter": 1, "tol": 0.0}
    with pytest.warns(vbfast.ConvergenceWarning):
        ours = GaussianMixture(3, **given).fit(X)
    with pytest.warns(UserWarning, match="converge"):
        theirs = sklearn.mixture.GaussianMixture(3, **given).fit(X)
    for name in PARAMETERS:
        expected = getattr(theirs, name)
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("covariance_type", "d"), [("full", 3), ("diag", 1), ("spherical", 1)])
def test_mean_field_agrees_with_scikit_learn(covariance_type, d):
    # Where scikit-learn's updates are mean field's: "full", and one feature. For more features its
    # "diag" and "spherical" take E[log lambda] of a Wishart, its "tied" counts N/K rows.
    X = separated(200, d)
    given = {
        "covariance_type": covariance_type,
        "weight_concentration_prior_type": "dirichlet_distribution",
        "weight_concentration_prior": 0.7,
        "mean_precision_prior": 0.5,
        "mean_prior": np.full(d, 0.2),
        "degrees_of_freedom_prior": d + 1.5,
        "reg_covar": 0.0,
        "random_state": 0,
        "max_iter": 20_000,
    }
    ours = BayesianGaussianMixture(3, **given, tol=1e-15).fit(X)
    theirs = sklearn.mixture.BayesianGaussianMixture(n_components=3, **given, tol=1e-12).fit(X)
    mine, other = np.argsort(ours.means_[:, 0]), np.argsort(theirs.means_[:, 0])
    for name in (*PARAMETERS, "weight_concentration_", "mean_precision_", "degrees_of_freedom_"):
        expected = getattr(theirs, name)[other]
        np.testing.assert_allclose(getattr(ours, name)[mine], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        ours.predict_proba(X)[:, mine], theirs.predict_proba(X)[:, other], atol=1e-7
    )
    assert ours.covariance_prior_ == pytest.approx(theirs.covariance_prior_)


def test_dirichlet_process_weights():
    # E[v_k] = a/(a + b) of Beta(1 + N_k, alpha + N_k+1 + ...), the last stick whole.
    X = blobs()
    mixture = BayesianGaussianMixture(
        5, weight_concentration_prior=0.8, random_state=0, **settled("mean_field")
    ).fit(X)
    a, b = mixture.weight_concentration_
    counts = mixture.predict_proba(X).sum(axis=0)
    np.testing.assert_allclose(a[:-1], 1 + counts[:-1], atol=1e-4)
    np.testing.assert_allclose(b[:-1], 0.8 + counts[::-1].cumsum()[::-1][1:], atol=1e-4)
    np.testing.assert_allclose(
        mixture.weights_, ref.sticks_to_weights(a[:-1] / (a + b)[:-1]), rtol=1e-12
    )
    assert mixture.weights_.sum() == pytest.approx(1.0, abs=1e-14)


@cut_short
def test_parameters_set_by_hand_predict_as_in_scikit_learn():
    X = blobs(60)
    for covariance_type in COVARIANCE_TYPES:
        fitted = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X)
        theirs = sklearn.mixture.GaussianMixture(3, covariance_type=covariance_type)
        bare = GaussianMixture(3, covariance_type=covariance_type)
        # Also with a method whose predictions are made of more than these three.
        sampled = BayesianGaussianMixture(
            3, method=FEW_DRAWS, covariance_type=covariance_type, random_state=0
        ).fit(X)
        for mixture in (theirs, bare, sampled):
            mixture.weights_ = np.array([0.5, 0.3, 0.2])
            mixture.means_ = fitted.means_ + 1.0
            mixture.precisions_cholesky_ = 0.7 * fitted.precisions_cholesky_
        for ours in (bare, sampled):
            np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
            np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-10)
            np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-10)
            assert ours.bic(X) == pytest.approx(theirs.bic(X), rel=1e-10)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_any_root_of_a_precision_may_be_set(covariance_type):
    # What many write is lower triangular; a fit leaves upper triangular ones.
    X = blobs(60)
    mixture = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X)
    before, rows = mixture.score_samples(X), mixture.predict_proba(X)
    theirs = sklearn.mixture.GaussianMixture(3, covariance_type=covariance_type)
    for model in (mixture, theirs):
        model.weights_, model.means_ = mixture.weights_, mixture.means_
        model.precisions_cholesky_ = np.linalg.cholesky(mixture.precisions_)
    np.testing.assert_allclose(mixture.score_samples(X), before, rtol=1e-10)
    np.testing.assert_allclose(mixture.score_samples(X), theirs.score_samples(X), rtol=1e-10)
    np.testing.assert_allclose(mixture.predict_proba(X), rows, atol=1e-10)
    mixture.precisions_cholesky_ = -mixture.precisions_cholesky_
    np.testing.assert_allclose(mixture.score_samples(X), before, rtol=1e-10)
    mixture.precisions_cholesky_ = np.zeros_like(mixture.precisions_cholesky_)
    with pytest.raises(ValueError, match="component 0 has 0 on its diagonal"):
        mixture.score(X)


def test_parameters_changed_in_place_count():
    X = blobs(60)
    mixture = GaussianMixture(2, random_state=0).fit(X)
    before = mixture.score(X)
    mixture.means_ += 100.0
    assert mixture.score(X) < before - 100


@pytest.mark.parametrize("method", ["em", "mean_field", FEW_DRAWS])
@pytest.mark.parametrize("emission", ["poisson", "bernoulli", "categorical"])
def test_parameters_of_counts_and_symbols_set_by_hand_count(emission, method):
    X = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]] * 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        mixture = MixtureModel(2, emission=emission, method=method, random_state=0).fit(X)
    ones = np.array([[0.2, 0.9], [0.6, 0.3]])
    mixture.weights_ = np.array([0.3, 0.7])
    if emission == "poisson":
        mixture.rates_ = ones
        each = np.exp(-ones) * ones ** X[:, None]
    else:
        mixture.probabilities_ = ones
        each = np.where(X[:, None] == 1, ones, 1 - ones)
        if emission == "categorical":
            with pytest.raises(ValueError, match=r"probabilities_ must have shape \(2, D, C\)"):
                mixture.score(X)
            mixture.probabilities_ = np.stack([1 - ones, ones, 0 * ones], axis=2)
    joint = each.prod(axis=2) * [0.3, 0.7]
    np.testing.assert_allclose(mixture.score_samples(X), np.log(joint.sum(axis=1)))
    np.testing.assert_allclose(
        mixture.predict_proba(X), joint / joint.sum(axis=1, keepdims=True), atol=1e-12
    )
    # A table of another width: rows are held against it, not against the fit's.
    if emission == "categorical":
        assert mixture.score([[2.0, 0.0]]) == -np.inf
        mixture.probabilities_ = np.ones((2, 2, 1))
        with pytest.raises(ValueError, match=r"X\[0, 1\] is 1 .* from 0 to 0 are allowed"):
            mixture.score(X)
    name = "rates_" if emission == "poisson" else "probabilities_"
    setattr(mixture, name, getattr(mixture, name)[:, :1])
    with pytest.raises(ValueError, match=f"{name} must be of 2 features"):
        mixture.score(X)


@pytest.mark.parametrize(("first", "then"), [("gaussian", "poisson"), ("bernoulli", "categorical")])
def test_no_warm_start_from_another_emission(first, then):
    X = np.array([[0.0], [1.0], [0.0], [1.0]])
    mixture = MixtureModel(1, emission=first, warm_start=True).fit(X)
    before = mixture.score(X)
    mixture.set_params(emission=then)
    with pytest.raises(ValueError, match=f"the last fit was of emission '{first}', this one is"):
        mixture.fit(X)
    assert mixture.score(X) == before
    assert mixture.set_params(warm_start=False).fit(X).score(X) < 0


def test_parameters_set_by_hand_must_fit_together():
    # Kernels read as far as shapes say: what doesn't fit together is refused before.
    X = blobs(60)
    mixture = GaussianMixture(3, random_state=0).fit(X)
    mixture.set_params(covariance_type="diag")
    with pytest.raises(ValueError, match=r"precisions_cholesky_ must have shape \(3, 2\)"):
        mixture.predict(X)
    mixture.set_params(covariance_type="full")
    mixture.predict(X)
    mixture.weights_ = np.array([0.5, 0.5])
    with pytest.raises(ValueError, match=r"weights_ must have shape \(3,\), got \(2,\)"):
        mixture.predict(X)
    mixture.weights_ = np.array([0.5, 1.0, -0.5])
    with pytest.raises(ValueError, match=r"weights_\[2\] is -0.5; probabilities must lie"):
        mixture.predict(X)


# -- weights and layouts ------------------------------------------------------------------------


@cut_short
@each_type
@pytest.mark.parametrize("method", CLIMBS)
def test_integer_weight_is_repeated_row_and_zero_weight_absent_row(method, covariance_type):
    X = blobs(200)
    weight = np.random.default_rng(1).integers(0, 4, len(X))
    given = start(X, 3, covariance_type) | some_steps(method)
    given |= {"covariance_type": covariance_type}
    repeated = BayesianGaussianMixture(3, **given).fit(np.repeat(X, weight, axis=0))
    weighted = BayesianGaussianMixture(3, **given).fit(X, sample_weight=weight)
    assert_same(weighted, repeated, rtol=1e-9, atol=1e-9)
    # An absent row may be anywhere.
    far = X.copy()
    far[weight == 0] = [1e300, -1e300]
    assert_same(BayesianGaussianMixture(3, **given).fit(far, sample_weight=weight), weighted)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random_from_data"])
def test_zero_weight_rows_choose_no_centroid(init_params):
    X = blobs(200)
    weight = np.arange(200) % 2
    far = X.copy()
    far[weight == 0] = 1e300
    options = {"n_components": 3, "init_params": init_params, "random_state": 0, "max_iter": 500}
    one = GaussianMixture(**options).fit(X, sample_weight=weight)
    assert_same(GaussianMixture(**options).fit(far, sample_weight=weight), one)
    assert one.means_.max() < 100


@cut_short
@each_type
def test_scaled_weights_scale_the_objective_alone(covariance_type):
    X = blobs(200)
    given = start(X, 3, covariance_type) | some_steps("em")
    given |= {"covariance_type": covariance_type}
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    one = GaussianMixture(3, **given).fit(X, sample_weight=weight)
    other = GaussianMixture(3, **given).fit(X, sample_weight=1e-3 * weight)
    for name in PARAMETERS:
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-9, atol=1e-9)
    assert other.lower_bound_ == pytest.approx(one.lower_bound_, rel=1e-12)
    assert other.objective_ == pytest.approx(1e-3 * one.objective_, rel=1e-12)


def test_full_inference_counts_a_weight_as_rows():
    X = blobs(60)
    weight = np.arange(60) % 3
    options = {"method": vbfast.FullInference(100, 0, 2), "random_state": 0}
    options |= {"degrees_of_freedom_prior": 5.0, "covariance_prior": np.eye(2)}
    one = GaussianMixture(1, **options).fit(X, sample_weight=weight)
    other = GaussianMixture(1, **options).fit(np.repeat(X, weight, axis=0))
    # One component: nothing to draw for the rows, the draws are the same.
    assert_same(one, other, rtol=1e-10)
    with pytest.raises(ValueError, match=r"sample_weight\[1\] is 0\.5"):
        GaussianMixture(1, **options).fit(X, sample_weight=0.5 * weight)


def layouts(X, tmp_path):
    n, d = X.shape
    wide = np.zeros((2 * n, 3 * d), dtype=X.dtype)
    wide[::2, ::3] = X
    packed = np.zeros(X.nbytes + 1, dtype=np.uint8)[1:].view(X.dtype).reshape(n, d)
    packed[...] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    np.save(tmp_path / "X.npy", X)
    return {
        "fortran": np.asfortranarray(X),
        "strided": wide[::2, ::3],
        "negative strides": X[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "memory map": np.load(tmp_path / "X.npy", mmap_mode="r"),
        "big-endian": X.astype(X.dtype.newbyteorder(">")),
        "not aligned": packed,
    }


@pytest.mark.slow
@each_method
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_layouts_give_identical_bits(method, dtype, tmp_path):
    X = blobs(500).astype(dtype)
    for covariance_type in COVARIANCE_TYPES if method in CLIMBS else ("full", "diag"):
        mixture = BayesianGaussianMixture(
            2, method=method, covariance_type=covariance_type, random_state=0
        )
        expected = clone(mixture).fit(X)
        proba, score = expected.predict_proba(X), expected.score_samples(X)
        for name, other in layouts(X, tmp_path).items():
            before = other.tobytes()
            assert_same(clone(mixture).fit(other), expected)
            assert other.tobytes() == before
            np.testing.assert_array_equal(expected.predict_proba(other), proba, err_msg=name)
            np.testing.assert_array_equal(expected.score_samples(other), score, err_msg=name)


def test_other_byte_orders_are_read_as_float32_too():
    X = blobs(20_000).astype(np.float32)  # so many that arithmetic is in float32
    swapped = X.astype(X.dtype.newbyteorder())
    mixture = GaussianMixture(2, random_state=0)
    assert_same(clone(mixture).fit(swapped), clone(mixture).fit(X))


@each_type
def test_float32_data_is_summed_in_float64(covariance_type):
    # The very numbers, held in 4 or in 8 bytes, give the very same sums.
    X = (blobs(400) + 1000).astype(np.float32)
    options = {"covariance_type": covariance_type, "random_state": 0, "method": "mean_field"}
    single = GaussianMixture(3, **options).fit(X)
    double = GaussianMixture(3, **options).fit(X.astype(np.float64))
    assert_same(single, double)
    assert single.means_.dtype == np.float64
    assert single.predict_proba(X).dtype == np.float32


def many_in_float32(n=20_000, offset=1e4):
    """Enough rows for arithmetic in float32, as far from 0 as float32 can bear."""
    return (blobs(n) + offset).astype(np.float32)


@each_type
@pytest.mark.parametrize("method", ["em", "mean_field"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_float32_arithmetic_gives_the_same_fit(covariance_type, method, offset):
    X = many_in_float32(offset=offset)
    options = {"covariance_type": covariance_type, "method": method, "random_state": 0}
    single = GaussianMixture(3, tol=1e-4, **options).fit(X)
    double = GaussianMixture(3, tol=1e-4, **options).fit(X.astype(np.float64))
    assert single.objective_ != double.objective_  # it was float32
    assert single.objective_ == pytest.approx(double.objective_, rel=1e-6)
    scale = X.std(axis=0)
    np.testing.assert_allclose(
        (single.means_ - double.means_) / scale, np.zeros_like(double.means_), atol=1e-3
    )
    # Predictions are float64 arithmetic whatever the data.
    np.testing.assert_array_equal(
        single.score_samples(X[:50]),
        single.score_samples(X[:50].astype(np.float64)).astype(np.float32),
    )


def test_a_small_tolerance_asks_for_float64_arithmetic(monkeypatch):
    precise = []
    visit = vbfast.Model.visit_each

    def watched(self, block, requests):
        precise.extend(assignment.precise for _, assignment in requests)
        return visit(self, block, requests)

    monkeypatch.setattr(vbfast.Model, "visit_each", watched)
    X = many_in_float32()
    GaussianMixture(3, random_state=0, tol=1e-4).fit(X)
    assert precise
    assert not any(precise)
    precise.clear()
    GaussianMixture(3, random_state=0, tol=1e-6, max_iter=1000).fit(X)
    assert precise
    assert all(precise)


@pytest.mark.parametrize("apart", [3e-4, 1e-5])
def test_where_float32_arithmetic_falls_short_a_fit_goes_on_in_float64(apart):
    # Of two almost equal features: it takes the covariances for singular, or makes the objective
    # fall.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 1))
    y = x + apart * rng.standard_normal(x.shape)
    X = np.hstack([x, y, rng.standard_normal((20_000, 1))]).astype(np.float32)
    options = {"reg_covar": 0.0, "random_state": 0, "tol": 1e-4, "max_iter": 1000}
    single = GaussianMixture(2, **options).fit(X)
    double = GaussianMixture(2, **options).fit(X.astype(np.float64))
    assert single.objective_ == pytest.approx(double.objective_, rel=1e-4)


@pytest.mark.parametrize("width", [1e-5, 1e-7, 1e-8])
@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
def test_float32_arithmetic_is_left_where_components_are_too_narrow(covariance_type, width):
    # In units of the data's spread a cluster's rows differ by less than float32 numbers do.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 2)).astype(np.float32)
    X[:10_000] *= np.float32(width)
    X[10_000:] = 1 + X[10_000:] / 10
    options = {"covariance_type": covariance_type, "random_state": 0, "reg_covar": 0}
    single = GaussianMixture(2, **options).fit(X)
    double = GaussianMixture(2, **options).fit(X.astype(np.float64))
    np.testing.assert_allclose(single.lower_bound_, double.lower_bound_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(single.covariances_, double.covariances_, rtol=1e-5)
    assert single.lower_bounds_[-1] == single.lower_bound_


@pytest.mark.parametrize(("n_components", "seed"), [(2, 1), (3, 0), (3, 1)])
def test_float32_arithmetic_is_left_where_an_objective_falls(n_components, seed, monkeypatch):
    # Collinear columns: the likelihood and the scatter of float32 sums are not what they seem.
    monkeypatch.setattr("vbfast.emissions.gaussian.SHARPEST", np.inf)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(17_000, 3)) + 6 * rng.integers(3, size=(17_000, 1))
    X = X.astype(np.float32)
    X[:, 2] = X[:, 0] + X[:, 1]
    mixture = GaussianMixture(n_components, reg_covar=1e-12, random_state=seed).fit(X)
    assert mixture.lower_bounds_[-1] == mixture.lower_bound_
    np.testing.assert_allclose(mixture.lower_bound_, mixture.score(X), rtol=0, atol=1)


def test_float32_data_with_collinear_columns():
    # The first theta, and the prior, are read from sums in float64.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(17_000, 3)) + 6 * rng.integers(3, size=(17_000, 1))
    X = X.astype(np.float32)
    X[:, 2] = X[:, 0] + X[:, 1]
    for Estimator in ESTIMATORS:
        options = {"reg_covar": 1e-10, "random_state": 0}
        single = Estimator(3, **options).fit(X)
        double = Estimator(3, **options).fit(X.astype(np.float64))
        np.testing.assert_allclose(single.objective_, double.objective_, rtol=0, atol=0.01 * len(X))
        if Estimator is BayesianGaussianMixture:
            np.testing.assert_array_equal(single.covariance_prior_, double.covariance_prior_)


@each_type
@pytest.mark.parametrize("total", [1e-5, 0.1, 1.0])
def test_weights_of_less_than_a_row(covariance_type, total):
    X = blobs(300)
    weight = np.full(len(X), total / len(X))
    options = {"covariance_type": covariance_type, "random_state": 0}
    light = GaussianMixture(3, **options).fit(X, sample_weight=weight)
    heavy = GaussianMixture(3, **options).fit(X)
    for name in PARAMETERS:
        np.testing.assert_allclose(getattr(light, name), getattr(heavy, name), rtol=1e-6)
    prior = BayesianGaussianMixture(3, **options).fit(X, sample_weight=weight).covariance_prior_
    whole = BayesianGaussianMixture(3, **options).fit(X).covariance_prior_
    np.testing.assert_allclose(prior, whole, rtol=2 / len(X))


def test_whole_numbers_and_lists():
    X = np.round(blobs(50)).astype(np.int64)
    expected = GaussianMixture(2, random_state=0).fit(X.astype(float))
    for other in (X, X.astype(np.int8), X.tolist(), X.astype(np.float16), X.astype(object)):
        assert_same(GaussianMixture(2, random_state=0).fit(other), expected)


# -- threads ------------------------------------------------------------------------------------


@cut_short
@each_type
@each_method
def test_threads_give_identical_bits(method, covariance_type):
    if method is FEW_DRAWS:
        method = vbfast.FullInference(n_draws=3, n_tune=2, n_chains=2)
    elif isinstance(method, str):
        method = {"mean_field": vbfast.MeanField, "em": vbfast.EM, "crisp_em": vbfast.CrispEM,
                  "variational_em": vbfast.VariationalEM}[method](max_iter=3, tol=0.0)  # fmt: skip
    else:
        method = vbfast.VariationalEM(max_iter=3, tol=0.0, truncation=2)
    X = blobs(30_011, 4, 4, gap=2.0)
    fits, outputs = [], []
    for n_threads in (1, 2, 4):
        mixture = BayesianGaussianMixture(
            4, method=method, covariance_type=covariance_type, random_state=0,
            n_threads=n_threads,
        )  # fmt: skip
        fits.append(mixture.fit(X))
        outputs.append([mixture.predict_proba(X), mixture.predict(X)])
    for mixture, output in zip(fits[1:], outputs[1:], strict=True):
        assert_same(mixture, fits[0])
        for one, other in zip(output, outputs[0], strict=True):
            np.testing.assert_array_equal(one, other)


# -- objectives ---------------------------------------------------------------------------------


@each_estimator
@each_type
@each_method
def test_objectives_and_traces(Estimator, method, covariance_type):
    X = blobs(200)
    options = {"random_state": 0, "max_iter": 500, "init_params": "kmeans"}
    mixture = Estimator(3, method=method, covariance_type=covariance_type, **options).fit(X)
    unit = len(X) if Estimator is GaussianMixture else 1.0
    assert mixture.lower_bound_ == pytest.approx(mixture.objective_ / unit, rel=1e-14)
    if method is FEW_DRAWS:
        assert mixture.lower_bound_ == mixture.lower_bounds_.max()
        assert len(mixture.lower_bounds_) == 200
        return
    assert mixture.converged_
    assert len(mixture.lower_bounds_) == mixture.n_iter_ + 1
    assert mixture.lower_bounds_[-1] == mixture.lower_bound_
    assert np.diff(mixture.lower_bounds_).min() >= -1e-10 * abs(mixture.lower_bound_)
    assert mixture.lower_bounds_[-1] > mixture.lower_bounds_[0]


@each_type
def test_objective_of_em_is_the_score(covariance_type):
    X = blobs(200)
    options = {"covariance_type": covariance_type, "random_state": 0, "reg_covar": 0.0}
    mixture = GaussianMixture(3, **options).fit(X)
    assert mixture.objective_ == pytest.approx(mixture.score(X) * len(X), rel=1e-10)
    means, covariances = mixture.means_, mixture.covariances_
    scores = ref.gaussian_scores(X, mixture.weights_, means, covariances, covariance_type)
    assert mixture.objective_ == pytest.approx(logsumexp(scores, axis=1).sum(), rel=1e-10)
    crisp = GaussianMixture(3, method="crisp_em", **options).fit(X)
    means, covariances = crisp.means_, crisp.covariances_
    scores = ref.gaussian_scores(X, crisp.weights_, means, covariances, covariance_type)
    assert crisp.objective_ == pytest.approx(scores.max(axis=1).sum(), rel=1e-10)


@each_type
def test_posterior_mode_has_the_priors_in_it(covariance_type):
    # One component: theta_MP in closed form, and an objective that plain SciPy can add up.
    X, d = blobs(50, 2, 1), 2
    prior = {
        "full": [[3.0, 0.5], [0.5, 2.0]],
        "tied": [[3.0, 0.5], [0.5, 2.0]],
        "diag": [3.0, 2.0],
        "spherical": 2.5,
    }[covariance_type]
    options = {
        "mean_prior": [1.0, -1.0],
        "mean_precision_prior": 4.0,
        "degrees_of_freedom_prior": 6.0,
        "covariance_prior": prior,
        "reg_covar": 0.0,
    }
    mixture = GaussianMixture(1, covariance_type=covariance_type, **options).fit(X)
    mean = (4.0 * np.array([1.0, -1.0]) + X.sum(axis=0)) / 54
    np.testing.assert_allclose(mixture.means_[0], mean, rtol=1e-12)
    m0 = np.array([1.0, -1.0])
    scatter = (X - mean).T @ (X - mean) + 4.0 * np.outer(mean - m0, mean - m0)
    if covariance_type in ("full", "tied"):
        # Joint mode of (mu, Lambda): nu - D of a Normal-Wishart.
        covariance = (np.array(prior) + scatter) / (6.0 + 50 - d)
        log_prior = stats.wishart.logpdf(
            np.linalg.inv(covariance), 6.0, np.linalg.inv(prior)
        ) + stats.multivariate_normal.logpdf(mean, m0, covariance / 4.0)
        np.testing.assert_allclose(mixture.covariances_.reshape(2, 2), covariance, rtol=1e-10)
    elif covariance_type == "diag":
        covariance = np.diag((np.array(prior) + np.diag(scatter)) / (6.0 + 50 - 1))
        log_prior = stats.gamma.logpdf(
            1 / np.diag(covariance), 3.0, scale=2 / np.array(prior)
        ).sum() + stats.multivariate_normal.logpdf(mean, m0, covariance / 4.0)
        np.testing.assert_allclose(mixture.covariances_[0], np.diag(covariance), rtol=1e-10)
    else:
        variance = (2 * prior + scatter.trace()) / (2 * 6.0 + 2 * 50 - 2 + 2)
        covariance = variance * np.eye(2)
        log_prior = stats.gamma.logpdf(
            1 / variance, 6.0, scale=1 / prior
        ) + stats.multivariate_normal.logpdf(mean, m0, covariance / 4.0)
        assert mixture.covariances_[0] == pytest.approx(variance, rel=1e-10)
    log_likelihood = stats.multivariate_normal.logpdf(X, mean, covariance).sum()
    assert mixture.objective_ == pytest.approx(log_likelihood + log_prior, rel=1e-10)


def test_dirichlet_prior_pulls_weights():
    X = blobs(100)
    mixture = GaussianMixture(3, weight_concentration_prior=1000.0, random_state=0).fit(X)
    np.testing.assert_allclose(mixture.weights_, 1 / 3, atol=0.02)


@cut_short
@each_type
def test_truncations_end_in_em_and_crisp_em(covariance_type):
    X = blobs(300, gap=2.0)
    options = start(X, 4, covariance_type) | {"covariance_type": covariance_type}
    options["reg_covar"] = 0.0

    def fit(method):
        return GaussianMixture(4, method=method, **options).fit(X)

    em = fit(vbfast.EM(30, 0.0))
    crisp = fit(vbfast.CrispEM(30, 0.0))
    assert_same(fit(vbfast.VariationalEM(30, 0.0, truncation=4)), em, rtol=1e-12, atol=1e-12)
    assert_same(fit(vbfast.VariationalEM(30, 0.0)), em, rtol=1e-12, atol=1e-12)
    assert_same(fit(vbfast.VariationalEM(30, 0.0, truncation=1)), crisp, rtol=1e-12, atol=1e-12)
    between = fit(vbfast.VariationalEM(30, 0.0, truncation=2))
    # A bound that isn't tight, unlike EM's.
    assert between.objective_ < between.score(X) * len(X) - 1e-3
    assert abs(between.objective_ - crisp.objective_) > 1e-3
    assert em.objective_ == pytest.approx(em.score(X) * len(X))


# -- options of a fit ---------------------------------------------------------------------------


@cut_short
@each_type
@pytest.mark.parametrize(
    "method", [lambda n: vbfast.EM(n, 0.0, acceleration=None), lambda n: vbfast.CrispEM(n, 0.0)]
)
def test_warm_start_continues(method, covariance_type):
    # An acceleration's memory is not in the parameters: it starts anew.
    X = blobs(300, gap=1.5)
    options = {"covariance_type": covariance_type, **start(X, 3, covariance_type)}
    whole = GaussianMixture(3, method=method(7), **options).fit(X)
    parts = GaussianMixture(3, method=method(3), warm_start=True, **options).fit(X)
    parts.set_params(method=method(4)).fit(X)
    assert_same(parts, whole, rtol=1e-8, atol=1e-8)


@each_method
def test_warm_start_starts_from_the_last_fit(method):
    # Chains find clusters that are apart at once; the others need something to climb.
    X = separated() if method is FEW_DRAWS else blobs(300)
    options = {"random_state": 0, "tol": 1e-9, "max_iter": 500, "init_params": "kmeans"}
    cold = BayesianGaussianMixture(3, method=method, **options)
    warm = clone(cold).set_params(warm_start=True).fit(X)
    first = warm.lower_bounds_[0]
    warm.fit(X)
    if method is not FEW_DRAWS:
        assert warm.lower_bounds_[0] > first
        assert warm.lower_bounds_[-1] == pytest.approx(cold.fit(X).lower_bound_, abs=0.1)
    assert_components_found(warm, cold.fit(X), 0.5)


def assert_components_found(one, other, atol):
    mine, theirs = np.argsort(one.means_[:, 0]), np.argsort(other.means_[:, 0])
    np.testing.assert_allclose(one.means_[mine], other.means_[theirs], atol=atol)


def test_warm_start_needs_the_same_shapes():
    X = blobs(300)
    mixture = GaussianMixture(2, warm_start=True, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"warm_start: .*\(2, 2\).*\(3, 2\)"):
        mixture.set_params(n_components=3).fit(X)
    with pytest.raises(ValueError, match="warm_start"):
        mixture.set_params(n_components=2, covariance_type="diag").fit(X)


def test_the_best_of_several_starts_is_kept():
    X = blobs(300, 2, 6)
    options = {"init_params": "random_from_data", "max_iter": 500}
    rng = np.random.default_rng(0)
    single = [GaussianMixture(6, random_state=rng, **options).fit(X) for _ in range(8)]
    rng = np.random.default_rng(0)
    several = GaussianMixture(6, n_init=8, random_state=rng, **options).fit(X)
    bounds = [mixture.lower_bound_ for mixture in single]
    assert several.lower_bound_ == max(bounds) > min(bounds)
    assert_same(several, single[int(np.argmax(bounds))])


def test_a_start_that_fails_is_passed_over():
    # Without reg_covar and on few rows, components shrink onto too few of them.
    X = blobs(20)
    options = {"n_components": 3, "reg_covar": 0.0, "max_iter": 500, "init_params": "random"}
    failures = 0
    for seed in range(10):
        try:
            GaussianMixture(random_state=seed, **options).fit(X)
        except vbfast.DegenerateError:
            failures += 1
    assert failures > 0
    mixture = GaussianMixture(random_state=0, n_init=40, **options).fit(X)
    assert np.isfinite(mixture.objective_)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_every_start_leads_to_a_fit(init_params):
    X = blobs(400, gap=8.0)
    mixture = GaussianMixture(
        3, init_params=init_params, random_state=0, n_init=5, max_iter=1000, tol=1e-8
    ).fit(X)
    best = GaussianMixture(3, random_state=0, n_init=5, max_iter=1000, tol=1e-8).fit(X)
    assert mixture.lower_bound_ == pytest.approx(best.lower_bound_, abs=1e-6)


@cut_short
@each_method
def test_random_state_repeats(method):
    X = blobs(150)

    def fit(random_state):
        mixture = BayesianGaussianMixture(
            4, method=method, init_params="random", random_state=random_state, max_iter=1000
        )
        return mixture.fit(X)

    assert_same(fit(5), fit(5))
    assert_same(fit(np.random.default_rng(5)), fit(5))
    assert_same(fit(np.random.RandomState(5)), fit(np.random.RandomState(5)))
    assert fit(5).lower_bounds_[0] != fit(6).lower_bounds_[0]
    # A generator moves on, a seed doesn't.
    rng = np.random.default_rng(5)
    assert fit(rng).lower_bounds_[0] != fit(rng).lower_bounds_[0]


@cut_short
def test_verbose_prints_progress():
    X = blobs()
    for verbose, method in ((1, "em"), (2, "em"), (1, FEW_DRAWS)):
        out = io.StringIO()
        with redirect_stdout(out):
            options = {"random_state": 0, "tol": 1e-6, "init_params": "kmeans"}
            mixture = GaussianMixture(
                3, method=method, verbose=verbose, verbose_interval=2, **options
            ).fit(X)
        lines = out.getvalue().splitlines()
        assert lines[0] == "Initialization 0"
        assert lines[1].startswith("  Iteration 0\t objective")
        assert lines[2].startswith("  Iteration 2\t")
        assert ("time lapse" in lines[1]) == (verbose == 2)
        if method == "em":
            number = f"{mixture.lower_bounds_[2] * len(X):.6f}"
            assert number in lines[2]
    out = io.StringIO()
    with redirect_stdout(out):
        GaussianMixture(3, random_state=0).fit(X)
    assert out.getvalue() == ""


def test_convergence_warning_tells_where():
    X = blobs(gap=1.0)
    with pytest.warns(vbfast.ConvergenceWarning, match="em did not converge in 2 iter") as record:
        mixture = GaussianMixture(3, max_iter=2, tol=0.0, random_state=0).fit(X)
    assert record[0].filename == __file__
    assert not mixture.converged_
    assert mixture.n_iter_ == 2
    with pytest.warns(vbfast.ConvergenceWarning) as record:
        mixture = GaussianMixture(
            3, method=vbfast.FullInference(4, 0, 2), init_params="random", random_state=0
        ).fit(X)
    assert {each.filename for each in record} == {__file__}
    assert any("R-hat of" in str(each.message) for each in record)
    assert not mixture.converged_
    assert mixture.r_hat_ > 1.05


def test_methods_as_objects_bring_their_own_limits():
    X = blobs()
    with pytest.warns(vbfast.ConvergenceWarning, match="in 3 iterations"):
        mixture = GaussianMixture(
            3, method=vbfast.EM(max_iter=3, tol=0.0), max_iter=50, random_state=0
        ).fit(X)
    assert mixture.n_iter_ == 3
    assert mixture.method_ == vbfast.EM(max_iter=3, tol=0.0)
    assert GaussianMixture(3, random_state=0, tol=0.1).fit(X).method_ == vbfast.EM(tol=0.1)


# -- full inference -----------------------------------------------------------------------------


@cut_short
def check_summaries(mixture, draws, covariance_type):
    """Means of weights and means, and the inverse of the mean precision: E[Sigma] may not exist."""
    for name in ("weights", "means"):
        summary = getattr(mixture, name + "_")
        np.testing.assert_allclose(draws[name].mean(axis=0), summary, rtol=1e-9)
    covariances = draws["covariances"]
    if covariance_type in ("full", "tied"):
        expected = np.linalg.inv(np.linalg.inv(covariances).mean(axis=0))
    else:
        expected = 1 / (1 / covariances).mean(axis=0)
    np.testing.assert_allclose(mixture.covariances_, expected, rtol=1e-9)


@each_type
def test_draws_and_their_summaries(covariance_type):
    X, k, d = separated(), 3, 2
    mixture = GaussianMixture(
        k, method=FEW_DRAWS, covariance_type=covariance_type, random_state=0
    ).fit(X)
    draws = mixture.draws_
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]
    assert draws["weights"].shape == (2, 100, k)
    assert draws["means"].shape == (2, 100, k, d)
    assert draws["covariances"].shape == (2, 100, *shape)
    assert draws["log_joint"].shape == (2, 100)
    np.testing.assert_allclose(draws["weights"].sum(axis=2), 1.0, rtol=1e-12)
    flat = {name: np.concatenate(values) for name, values in draws.items()}
    check_summaries(mixture, flat, covariance_type)
    assert mixture.objective_ == draws["log_joint"].max()
    # Relabelled: over chains that number clusters as they please, a component's mean stays put.
    assert draws["means"].std(axis=(0, 1)).max() < 1.0
    assert np.isfinite(mixture.log_evidence_)
    assert 0 <= mixture.log_evidence_se_ < 1


@each_type
def test_draws_in_the_units_of_the_data(covariance_type):
    # log_joint of each draw is a density of the parameters in draws_; with one component and a
    # known prior plain SciPy can tell it.
    X = 1e3 + 7.0 * blobs(40, 2, 1)
    options = {"mean_prior": [1e3, 1e3], "mean_precision_prior": 0.1}
    prior = {"full": 50 * np.eye(2), "tied": 50 * np.eye(2), "diag": [50.0, 50.0],
             "spherical": 50.0}[covariance_type]  # fmt: skip
    options |= {"degrees_of_freedom_prior": 5.0, "covariance_prior": prior, "reg_covar": 0.0}
    mixture = GaussianMixture(
        1, method=vbfast.FullInference(3, 5, 1), covariance_type=covariance_type, random_state=0,
        **options,
    ).fit(X)  # fmt: skip
    for n in range(3):
        mean = mixture.draws_["means"][0, n, 0]
        covariance = np.squeeze(mixture.draws_["covariances"][0, n])
        if covariance_type in ("full", "tied"):
            density = stats.wishart.logpdf(np.linalg.inv(covariance), 5.0, np.linalg.inv(prior))
        elif covariance_type == "diag":
            density = stats.gamma.logpdf(1 / covariance, 2.5, scale=2 / np.array(prior)).sum()
            covariance = np.diag(covariance)
        else:
            density = stats.gamma.logpdf(1 / covariance, 5.0, scale=1 / prior)
            covariance = covariance * np.eye(2)
        density += stats.multivariate_normal.logpdf(mean, [1e3, 1e3], covariance / 0.1)
        density += stats.multivariate_normal.logpdf(X, mean, covariance).sum()
        assert mixture.draws_["log_joint"][0, n] == pytest.approx(density, rel=1e-9)


def test_full_inference_by_name():
    mixture = GaussianMixture(method="full", random_state=0).fit(blobs(20))
    assert mixture.draws_["weights"].shape == (4, 1000, 1)
    assert mixture.n_iter_ == 6000


# -- predictions --------------------------------------------------------------------------------


@each_type
@each_method
def test_score_samples_integrates_to_one(method, covariance_type):
    X = blobs(80, 1, 2, gap=4.0)
    mixture = BayesianGaussianMixture(
        2, method=method, covariance_type=covariance_type, random_state=0, max_iter=1000
    ).fit(X)
    # Even steps in asinh: the predictive density has heavy tails.
    u = np.linspace(-20, 20, 40_001)
    middle, width = X.mean(), X.std()
    density = np.exp(mixture.score_samples((middle + width * np.sinh(u))[:, None]))
    assert np.sum(density * width * np.cosh(u)) * 0.001 == pytest.approx(1.0, abs=1e-6)


@pytest.mark.slow
@cut_short
@each_type
@each_method
def test_samples_have_the_density_of_score_samples(method, covariance_type):
    # So few rows that what a posterior leaves open is much of the density.
    X = blobs(12, 2, 2, gap=3.0)
    options = {"random_state": 0, "max_iter": 1000, "init_params": "kmeans"}
    mixture = GaussianMixture(2, method=method, covariance_type=covariance_type, **options).fit(X)
    n = 40_000
    Z, y = mixture.sample(n)
    assert Z.shape == (n, 2)
    assert y.shape == (n,)
    np.testing.assert_allclose(np.bincount(y, minlength=2) / n, mixture.weights_, atol=0.02)
    # Share of samples in each cell of a partition of the plane, beside the integral of the
    # density over the cell: by importance weights of another sample, wide and known.
    rng = np.random.default_rng(1)
    center, spread = X.mean(axis=0), 2 * np.cov(X.T)
    other = stats.multivariate_t(center, spread, df=2, seed=rng)
    W = other.rvs(100_000)
    share = np.exp(mixture.score_samples(W) - other.logpdf(W)) / len(W)

    def cells(rows):
        return np.digitize(rows, center[0] + np.sqrt(spread[0, 0]) * np.linspace(-1, 1, 5))

    for column in (0, 1):
        got = np.bincount(cells(Z[:, column]), minlength=6) / n
        expected = np.bincount(cells(W[:, column]), weights=share, minlength=6)
        np.testing.assert_allclose(got, expected, atol=0.02)
    # The two columns together.
    middle = np.median(X, axis=0)
    got = np.mean((middle < Z).all(axis=1))
    assert got == pytest.approx(share[(middle < W).all(axis=1)].sum(), abs=0.02)


def test_samples_repeat_with_the_seed():
    mixture = GaussianMixture(2, random_state=0).fit(blobs())
    for one, other in zip(mixture.sample(5), mixture.sample(5), strict=True):
        np.testing.assert_array_equal(one, other)


@cut_short
@each_type
def test_predictions_of_full_inference_are_averages_over_draws(covariance_type):
    # As many features as components: no shape tells one axis from the other.
    X = blobs(40, 2, 2, gap=2.0)
    mixture = GaussianMixture(
        2,
        method=vbfast.FullInference(30, 20, 2),
        covariance_type=covariance_type,
        random_state=0,
    ).fit(X)
    draws = {name: np.concatenate(values) for name, values in mixture.draws_.items()}
    each = np.array(
        [
            ref.gaussian_scores(X, *(draws[name][n] for name in SUMMARIES), covariance_type)
            for n in range(60)
        ]
    )
    density = logsumexp(each, axis=(0, 2)) - np.log(60)
    np.testing.assert_allclose(mixture.score_samples(X), density, rtol=1e-9)
    q = np.exp(logsumexp(each, axis=0) - logsumexp(each, axis=(0, 2))[:, None])
    np.testing.assert_allclose(mixture.predict_proba(X), q, atol=1e-9)
    np.testing.assert_array_equal(mixture.predict(X), q.argmax(axis=1))
    q = np.exp(each - logsumexp(each, axis=2, keepdims=True))
    together = np.einsum("gik,gjk->ij", q, q) / 60
    np.fill_diagonal(together, 1.0)
    np.testing.assert_allclose(mixture.co_assignment(X), together, atol=1e-9)
    check_summaries(mixture, draws, covariance_type)


@each_type
def test_predictive_density_of_mean_field_is_a_mixture_of_t(covariance_type):
    X = blobs(60, 2, 2)
    prior = {
        "covariance_type": covariance_type,
        "reg_covar": 0.0,
        "random_state": 0,
        "degrees_of_freedom_prior": 4.0,
        "covariance_prior": {"full": 3 * np.eye(2), "tied": 3 * np.eye(2), "diag": [3.0, 3.0],
                             "spherical": 3.0}[covariance_type],
    }  # fmt: skip
    mixture = BayesianGaussianMixture(1, method="mean_field", **prior).fit(X)
    # One component: the posterior is exact, and so is p(x | X) = p(X, x) / p(X), which the
    # evidence gives. Its prior must not move with the row that is added.
    prior |= {"mean_prior": X.mean(axis=0), "mean_precision_prior": 1.0}
    both = BayesianGaussianMixture(1, method="mean_field", **prior)
    without = clone(both).fit(X).objective_
    for row in ([0.0, 0.0], [30.0, -20.0]):
        with_row = clone(both).fit(np.vstack([X, row])).objective_
        got = mixture.score_samples([row])[0]
        assert got == pytest.approx(with_row - without, abs=1e-8)


@each_method
def test_one_row_is_predicted_as_among_many(method):
    X = blobs(100)
    mixture = BayesianGaussianMixture(3, method=method, random_state=0).fit(X)
    for function in ("predict", "predict_proba", "score_samples"):
        whole = getattr(mixture, function)(X)
        rows = np.concatenate([getattr(mixture, function)(row[None]) for row in X[:9]])
        np.testing.assert_allclose(rows, whole[:9], rtol=1e-12, atol=1e-300)


@cut_short
@each_type
@each_method
def test_labels_probabilities_and_co_assignment(method, covariance_type):
    X = blobs(120, gap=3.0)
    mixture = GaussianMixture(
        3, method=method, covariance_type=covariance_type, random_state=0, max_iter=1000
    )
    labels = mixture.fit_predict(X)
    proba = mixture.predict_proba(X)
    np.testing.assert_array_equal(labels, mixture.predict(X))
    np.testing.assert_array_equal(labels, proba.argmax(axis=1))
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
    together = mixture.co_assignment(X)
    assert together.shape == (120, 120)
    np.testing.assert_array_equal(np.diag(together), 1.0)
    np.testing.assert_allclose(together, together.T, atol=1e-15)
    assert together.min() >= 0
    assert together.max() <= 1
    if method is not FEW_DRAWS:
        q = proba @ proba.T
        np.fill_diagonal(q, 1.0)
        np.testing.assert_allclose(together, q, atol=1e-12)
    assert np.mean((together > 0.5) == (labels[:, None] == labels)) > 0.8


@each_type
def test_criteria(covariance_type):
    X, k, d = blobs(150, 3, gap=2.0), 3, 3
    mixture = GaussianMixture(k, covariance_type=covariance_type, random_state=0).fit(X)
    free = {"full": k * 6, "tied": 6, "diag": k * d, "spherical": k}[covariance_type]
    free += k - 1 + k * d
    log_likelihood = mixture.score_samples(X).sum()
    bic = -2 * log_likelihood + free * np.log(150)
    assert mixture.bic(X) == pytest.approx(bic, rel=1e-12)
    assert mixture.aic(X) == pytest.approx(-2 * log_likelihood + 2 * free, rel=1e-12)
    q = mixture.predict_proba(X)
    entropy = -np.sum(q * np.log(np.maximum(q, 1e-300)))
    assert entropy > 0.1
    assert mixture.icl(X) == pytest.approx(bic + 2 * entropy, rel=1e-12)
    assert mixture.score(X) == pytest.approx(log_likelihood / 150, rel=1e-12)


@pytest.mark.parametrize(
    "method", ["em", "mean_field", "crisp_em", vbfast.FullInference(20, 10, 2)]
)
def test_pickled_after_predictions(method):
    X = separated()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        mixture = GaussianMixture(3, method=method, random_state=0).fit(X)
    density, q = mixture.score_samples(X), mixture.predict_proba(X)
    for again in (pickle.loads(pickle.dumps(mixture)), copy.deepcopy(mixture)):
        np.testing.assert_array_equal(again.score_samples(X), density)
        np.testing.assert_array_equal(again.predict_proba(X), q)


def test_too_few_draws_to_tell():
    mixture = GaussianMixture(1, method=vbfast.FullInference(2, 2, 2), random_state=0)
    mixture.fit(separated())
    assert np.isnan(mixture.r_hat_)
    assert not mixture.converged_
    assert np.isnan(mixture.log_evidence_se_)


# -- mixtures of any emission -------------------------------------------------------------------

RATES = ("poisson", "exponential")
EMISSIONS = (*RATES, "bernoulli", "categorical")
each_emission = pytest.mark.parametrize("emission", EMISSIONS)


def discrete_rows(emission, n=120, seed=0):
    """Rows of two or three components that can be told apart, three features."""
    rng = np.random.default_rng(seed)
    t = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    if emission == "poisson":
        return rng.poisson(np.array([[1, 4, 9], [8, 0.5, 9], [20, 20, 2]])[t]).astype(float)
    if emission == "exponential":
        return np.ceil(rng.exponential(np.array([[10, 4, 900], [800, 5, 90], [20, 2000, 2]])[t]))
    p = np.array([[0.1, 0.9, 0.2], [0.9, 0.2, 0.3], [0.8, 0.9, 0.95]])[t]
    x = (rng.random((n, 3)) < p).astype(float)
    if emission == "categorical":
        x[:, 2] += rng.integers(0, 2, n)  # three symbols; the others have two
    return x


def some_draws(**options):
    return vbfast.FullInference(n_draws=60, n_tune=60, n_chains=2, **options)


def shown(mixture):
    name = "rates_" if hasattr(mixture, "rates_") else "probabilities_"
    return {"weights_": mixture.weights_, name: getattr(mixture, name)}


@each_method
def test_check_estimator_of_mixture_model(method):
    run_check_estimator(MixtureModel(method=method))


@each_method
def test_mixture_model_of_gaussians_is_gaussian_mixture(method):
    X = blobs()
    options = {"method": method, "random_state": 0, "covariance_type": "diag"}
    one, other = MixtureModel(2, **options), GaussianMixture(2, **options)
    assert set(other.get_params()) < set(one.get_params())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        one.fit(X)
        other.fit(X)
    for name, value in vars(other).items():
        if name.endswith("_") and name != "draws_":
            np.testing.assert_equal(getattr(one, name), value)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    assert (one.bic(X), one.aic(X), one.icl(X)) == (other.bic(X), other.aic(X), other.icl(X))
    one.means_ = one.means_ + 1.0
    assert one.score(X) < other.score(X)


@each_emission
@each_method
@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
def test_discrete_mixtures_do_all_that_an_estimator_does(emission, method):
    X = discrete_rows(emission)
    options = {"emission": emission, "method": method, "init_params": "kmeans"}
    mixture = clone(MixtureModel(3, random_state=0, **options)).fit(X)
    assert mixture.n_features_in_ == 3
    assert mixture.weights_.sum() == pytest.approx(1)
    (_, values) = shown(mixture).values()
    expected = (3, 3, 3) if emission == "categorical" else (3, 3)
    assert values.shape == expected
    if emission == "categorical":
        np.testing.assert_allclose(values.sum(axis=2), 1)
        np.testing.assert_array_equal(mixture.n_categories_, [2, 2, 3])
        np.testing.assert_array_equal(values[:, :2, 2], 0)
    q = mixture.predict_proba(X)
    np.testing.assert_allclose(q.sum(axis=1), 1)
    np.testing.assert_array_equal(mixture.predict(X), q.argmax(axis=1))
    np.testing.assert_array_equal(mixture.predict(X), clone(mixture).fit_predict(X))
    together = mixture.co_assignment(X)
    np.testing.assert_allclose(together, together.T)
    np.testing.assert_array_equal(np.diag(together), 1)
    assert mixture.score(X) == pytest.approx(mixture.score_samples(X).mean())
    n_free = 2 + 3 * (4 if emission == "categorical" else 3)
    total = -2 * mixture.score_samples(X).sum()
    assert mixture.bic(X) == pytest.approx(total + n_free * np.log(len(X)))
    assert mixture.aic(X) == pytest.approx(total + 2 * n_free)
    assert mixture.icl(X) > mixture.bic(X)
    rows, y = mixture.sample(50)
    assert rows.shape == (50, 3)
    assert set(y) <= {0, 1, 2}
    assert np.isfinite(mixture.score_samples(rows)).all()
    again = pickle.loads(pickle.dumps(mixture))
    np.testing.assert_array_equal(again.predict_proba(X), q)
    threads = clone(mixture).set_params(n_threads=2).fit(np.asfortranarray(X))
    assert threads.objective_ == mixture.objective_
    # Whole numbers of any type, lists too.
    for rows in (X.astype(int), X.astype(np.float32), X.astype(int).tolist()):
        assert clone(mixture).fit(rows).objective_ == mixture.objective_
    with pytest.raises(ValueError, match="expecting 3 features"):
        mixture.predict(X[:, :2])
    # What was fitted predicts, whatever the parameter says now.
    np.testing.assert_array_equal(mixture.set_params(emission="gaussian").predict_proba(X), q)


@pytest.mark.parametrize("emission", ["poisson", "bernoulli", "categorical"])
@pytest.mark.parametrize("method", ["em", "mean_field", some_draws()], ids=str)
@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
def test_probabilities_of_all_rows_sum_to_one(emission, method):
    X = discrete_rows(emission)[:, :2]
    mixture = MixtureModel(2, emission=emission, method=method, random_state=0).fit(X)
    most = 80 if emission == "poisson" else 2
    every = np.array([(a, b) for a in range(most) for b in range(most)], dtype=float)
    p = np.exp(mixture.score_samples(every))
    assert p.sum() == pytest.approx(1, abs=1e-6)
    # And samples come from it.
    rows, _ = mixture.sample(4000)
    for row in np.unique(rows, axis=0)[:6]:
        found = np.mean((rows == row).all(axis=1))
        expected = np.exp(mixture.score_samples(row[None]))[0]
        assert abs(found - expected) < 5 * np.sqrt(expected / 4000)


@each_emission
@pytest.mark.parametrize("method", ["em", "mean_field", "crisp_em"])
def test_discrete_whole_weights_are_repeated_rows(emission, method):
    X = discrete_rows(emission)
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    start = {"weights_init": [0.6, 0.4]}
    if emission in RATES:
        start["means_init"] = [[2.0, 3.0, 9.0], [12.0, 8.0, 6.0]]
    else:
        p = np.array([[0.2, 0.8, 0.3], [0.8, 0.5, 0.6]])
        if emission == "categorical":
            p = np.stack([1 - p, p, 0 * p], axis=2)
            p[:, 2] = 1 / 3
        start["probabilities_init"] = p
    mixture = MixtureModel(
        2, emission=emission, method=method, tol=1e-6, max_iter=1000, **start,
        n_categories=[2, 2, 3] if emission == "categorical" else None,
    )  # fmt: skip
    one = clone(mixture).fit(X, sample_weight=weight)
    other = clone(mixture).fit(np.repeat(X, weight, axis=0))
    assert one.objective_ == pytest.approx(other.objective_, rel=1e-9)
    for name, value in shown(one).items():
        np.testing.assert_allclose(value, getattr(other, name), atol=1e-4)
    assert one.lower_bound_ * weight.sum() == pytest.approx(one.objective_)
    # Rows of weight zero are absent.
    junk = np.vstack([X, X[:5]])
    third = clone(mixture).fit(junk, sample_weight=np.append(weight, np.zeros(5)))
    assert third.objective_ == pytest.approx(one.objective_, rel=1e-12)


@each_emission
def test_discrete_objective_and_priors(emission):
    X = discrete_rows(emission)
    mixture = MixtureModel(2, emission=emission, random_state=0, tol=1e-8, max_iter=1000).fit(X)
    assert mixture.objective_ == pytest.approx(mixture.score_samples(X).sum())
    flat = mixture.shape_prior_ if emission in RATES else mixture.concentration_prior_
    assert flat is None
    assert mixture.weight_concentration_prior_ is None
    given = mixture.set_params(method="mean_field").fit(X)
    if emission in RATES:
        mean = X.mean(axis=0)
        rate = 1 / mean if emission == "poisson" else mean
        np.testing.assert_allclose(given.rate_prior_, rate)
        np.testing.assert_allclose(given.rates_, given.shape_ / given.rate_)
        counted = given.rate_ - rate if emission == "poisson" else given.shape_ - 1.0
        assert counted[:, 0].sum() == pytest.approx(len(X))
    else:
        total = given.concentration_.sum(axis=2)
        share = given.concentration_ / total[:, :, None]
        shown_share = share if emission == "categorical" else share[..., 1]
        np.testing.assert_allclose(given.probabilities_, shown_share)
    assert given.weight_concentration_.sum() == pytest.approx(len(X) + 1)
    # Another prior pulls.
    strong = (
        {"shape_prior": 1e9, "rate_prior": 1e8} if emission in RATES
        else {"concentration_prior": 1e6}
    )  # fmt: skip
    pulled = MixtureModel(2, emission=emission, random_state=0, tol=1e-3, **strong).fit(X)
    _, values = shown(pulled).values()
    if emission in RATES:
        np.testing.assert_allclose(values, 10.0, rtol=1e-2)
    elif emission == "bernoulli":
        np.testing.assert_allclose(values, 0.5, rtol=1e-2)


@each_emission
@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
def test_discrete_draws_and_their_summaries(emission):
    X = discrete_rows(emission)
    mixture = MixtureModel(2, emission=emission, method=some_draws(), random_state=0).fit(X)
    name = "rates" if emission in RATES else "probabilities"
    assert set(mixture.draws_) == {"weights", name, "log_joint"}
    assert mixture.draws_["weights"].shape == (2, 60, 2)
    for part, value in shown(mixture).items():
        draws = mixture.draws_[part[:-1]]
        assert draws.shape == (2, 60, *value.shape)
        np.testing.assert_allclose(draws.mean(axis=(0, 1)), value)
    # Predictions are averages over draws.
    plain = 0.0
    for chain, draw in np.ndindex(2, 60):
        values = mixture.draws_[name][chain, draw]
        weights = mixture.draws_["weights"][chain, draw]
        if emission == "poisson":
            scores = ref.count_scores(X[:5], np.log(weights), values)
        elif emission == "exponential":
            scores = ref.wait_scores(X[:5], np.log(weights), values)
        else:
            tables = np.stack([1 - values, values], axis=2) if emission == "bernoulli" else values
            with np.errstate(divide="ignore"):
                scores = ref.symbol_scores(X[:5], np.log(weights), np.log(tables))
        plain = plain + np.exp(scores) / 120
    np.testing.assert_allclose(mixture.score_samples(X[:5]), np.log(plain.sum(axis=1)))
    q = plain / plain.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mixture.predict_proba(X[:5]), q)


@each_emission
@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_every_start_leads_to_a_discrete_fit(emission, init_params):
    X = discrete_rows(emission, n=400)
    mixture = MixtureModel(
        3, emission=emission, init_params=init_params, n_init=4, tol=1e-6, max_iter=2000,
        random_state=0,
    ).fit(X)  # fmt: skip
    best = MixtureModel(
        3, emission=emission, n_init=10, tol=1e-6, max_iter=2000, random_state=1
    ).fit(X)
    assert mixture.objective_ == pytest.approx(best.objective_, abs=0.05)


def test_starts_of_many_rows_look_at_a_part():
    rng = np.random.default_rng(0)
    # Of so many cells that few rows are equal.
    X = 3.0 * rng.integers(0, 3, (30_000, 1)) + rng.integers(0, 3, (30_000, 10))
    X[-1, 0] = 17.0  # a symbol that next to no part has
    mixture = MixtureModel(3, emission="categorical", random_state=0).fit(X)
    assert np.isfinite(mixture.lower_bounds_).all()
    assert mixture.probabilities_.shape == (3, 10, 10)


@each_emission
@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
def test_discrete_warm_start_continues(emission):
    X = discrete_rows(emission)
    mixture = MixtureModel(
        2, emission=emission, max_iter=3, tol=0, random_state=0, warm_start=True
    ).fit(X)
    first = mixture.objective_
    assert mixture.fit(X).lower_bounds_[0] * len(X) == pytest.approx(first)
    with pytest.raises(ValueError, match="warm_start"):
        mixture.set_params(n_components=3).fit(X)


def test_convergence_warning_of_a_mixture_model_tells_where():
    X = discrete_rows("poisson")
    with pytest.warns(vbfast.ConvergenceWarning, match="max_iter or tol") as caught:
        MixtureModel(3, emission="poisson", max_iter=1, tol=0, init_params="kmeans").fit(X)
    assert caught[0].filename == __file__


def test_discrete_feature_names():
    class Frame:
        columns = ("a", "b", "c")

        def __array__(self, dtype=None, copy=None):
            return discrete_rows("poisson")

    mixture = MixtureModel(2, emission="poisson").fit(Frame())
    np.testing.assert_array_equal(mixture.feature_names_in_, ["a", "b", "c"])


def test_latent_structures_of_sticks():
    X = discrete_rows("bernoulli")
    mixture = MixtureModel(
        4, emission="bernoulli", method="mean_field", random_state=0,
        weight_concentration_prior_type="dirichlet_process",
    ).fit(X)  # fmt: skip
    a, b = mixture.weight_concentration_
    assert (len(a), len(b)) == (4, 4)
