"""scikit-learn's conventions: types of what is told, its warnings, fits of no step."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn.base
import sklearn.exceptions

import vbfast
from vbfast import (
    BayesianGaussianMixture,
    FactorialHMM,
    GaussianMixture,
    HiddenMarkovModel,
    MixtureModel,
)

ROWS = np.random.default_rng(0).normal(size=(60, 2)) + 4 * (np.arange(60) % 2)[:, None]
SYMBOLS = np.random.default_rng(1).integers(3, size=(60, 2)).astype(float)
MAKERS = [
    (lambda **more: GaussianMixture(2, random_state=0, **more), ROWS),
    (lambda **more: BayesianGaussianMixture(2, random_state=0, **more), ROWS),
    (lambda **more: MixtureModel(2, random_state=0, **more), ROWS),
    (lambda **more: MixtureModel(2, emission="poisson", random_state=0, **more), SYMBOLS),
    (lambda **more: MixtureModel(2, emission="exponential", random_state=0, **more), SYMBOLS + 1),
    (lambda **more: MixtureModel(2, emission="bernoulli", random_state=0, **more), SYMBOLS > 0),
    (lambda **more: MixtureModel(2, emission="categorical", random_state=0, **more), SYMBOLS + 1),
    (lambda **more: HiddenMarkovModel(2, random_state=0, **more), ROWS),
    (lambda **more: HiddenMarkovModel(2, emission="poisson", random_state=0, **more), SYMBOLS),
    (lambda **more: FactorialHMM(2, 2, random_state=0, **more), ROWS),
]
each_estimator = pytest.mark.parametrize(("make", "X"), MAKERS)


@each_estimator
@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
def test_what_is_told_of_float32_rows_is_float32(make, X):
    fitted = make().fit(X)
    double, single = np.asarray(X, dtype=np.float64), np.asarray(X, dtype=np.float32)
    rounded = single.astype(np.float64)
    for name in ("predict_proba", "score_samples", "filter"):
        if not hasattr(fitted, name):
            continue
        assert getattr(fitted, name)(double).dtype == np.float64
        told = getattr(fitted, name)(single)
        assert told.dtype == np.float32
        expected = getattr(fitted, name)(rounded)
        np.testing.assert_allclose(told, expected, rtol=1e-6, atol=1e-6)
    # What is summed is summed in float64.
    assert fitted.score(single) == pytest.approx(fitted.score(rounded), rel=1e-12)
    assert fitted.bic(single) == pytest.approx(fitted.bic(rounded), rel=1e-12)


def test_scores_below_all_float32_numbers():
    fitted = GaussianMixture(2, random_state=0).fit(ROWS)
    assert fitted.score_samples(np.full((1, 2), 1e30, dtype=np.float32))[0] == -np.inf


@each_estimator
def test_no_step_is_a_start(make, X):
    with pytest.warns(vbfast.ConvergenceWarning, match="did not converge in 0 iterations"):
        fitted = make(max_iter=0).fit(X)
    assert not fitted.converged_
    assert fitted.n_iter_ == 0
    assert fitted.predict(X).shape[0] == 60
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        further = make(max_iter=3, tol=0.0).fit(X)
    assert further.objective_ >= fitted.objective_ - 1e-9


def test_no_step_leaves_what_was_given():
    means = np.array([[0.0, 1.0], [2.0, 3.0]])
    with pytest.warns(vbfast.ConvergenceWarning):
        fitted = GaussianMixture(
            2, max_iter=0, weights_init=[0.25, 0.75], means_init=means,
            precisions_init=[np.eye(2)] * 2,
        ).fit(ROWS)  # fmt: skip
    np.testing.assert_allclose(fitted.means_, means, atol=1e-9)
    np.testing.assert_allclose(fitted.weights_, [0.25, 0.75])
    with pytest.warns(vbfast.ConvergenceWarning):
        many = vbfast.fit_many(GaussianMixture(2, max_iter=0, random_state=0), [ROWS, ROWS + 1])
    assert not many.converged_.any()
    with pytest.raises(ValueError, match="max_iter must be an integer >= 0"):
        GaussianMixture(2, max_iter=-1).fit(ROWS)


@each_estimator
def test_warnings_are_theirs_as_well(make, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        make(max_iter=0).fit(X)
    with pytest.warns(sklearn.exceptions.ConvergenceWarning) as caught:
        make(max_iter=0).fit(X)
    (warning,) = caught
    assert isinstance(warning.message, vbfast.ConvergenceWarning)
    assert warning.filename == __file__
    again = pickle.loads(pickle.dumps(warning.message))
    assert isinstance(again, sklearn.exceptions.ConvergenceWarning)
    assert again.args == warning.message.args


def test_errors_are_theirs_as_well():
    with pytest.raises(sklearn.exceptions.NotFittedError):
        GaussianMixture().predict(ROWS)
    # What scikit-learn's mixtures raise where a covariance is none.
    for kind in (vbfast.DegenerateError, vbfast.ImpossibleRowError):
        assert issubclass(kind, ValueError)


def test_scikit_learn_is_not_imported():
    code = """if True:
        import sys, warnings, numpy as np, vbfast
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vbfast.GaussianMixture(2, max_iter=0).fit(np.arange(40.0).reshape(20, 2) % 11)
        assert [one.category for one in caught] == [vbfast.ConvergenceWarning], caught
        assert "sklearn" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("init", ["auto", "random", "random_from_data"])
@pytest.mark.parametrize("kind", ["full", "diag"])
@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::vbfast.SpuriousWarning")
def test_of_many_starts_some_are_degenerate(init, kind):
    n_degenerate = 0
    for seed in range(6):
        X = np.random.default_rng(seed).normal(size=(14, 1))
        options = {"covariance_type": kind, "reg_covar": 0.0, "init_params": init}
        best = GaussianMixture(3, n_init=30, random_state=seed, **options).fit(X)
        assert np.isfinite(best.objective_)
        assert best.covariances_.min() > 1e-9
        for start in range(10):
            try:
                GaussianMixture(3, random_state=start, **options).fit(X)
            except vbfast.DegenerateError:
                n_degenerate += 1
    assert init == "auto" or n_degenerate > 0


def test_where_all_starts_are_degenerate_it_is_said():
    X = np.array([[0.0], [1.0], [5.0]])
    with pytest.raises(vbfast.DegenerateError):
        GaussianMixture(3, reg_covar=0.0, n_init=5, init_params="kmeans", random_state=0).fit(X)


# What subclasses may be -----------------------------------------------------------------------


class Named(HiddenMarkovModel):
    """Knows one parameter by name, and hands on the others."""

    def __init__(self, n_components=2, **more):
        super().__init__(n_components, **more)


def test_subclasses_may_hand_parameters_on():
    chain = Named(3, emission="poisson", random_state=0)
    assert repr(chain) == "Named(n_components=3)"
    assert sklearn.base.clone(chain).get_params() == {"n_components": 3}
    assert chain.fit(SYMBOLS).rates_.shape == (3, 2)


def test_parameters_have_names():
    class Nameless(GaussianMixture):
        def __init__(self, *more):
            super().__init__(*more)

    with pytest.raises(RuntimeError, match=r"Nameless.__init__ takes \*args"):
        Nameless(2).get_params()


# What is said of a fit is so of the fit -------------------------------------------------------


@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
@pytest.mark.parametrize("Estimator", [MixtureModel, HiddenMarkovModel])
@pytest.mark.parametrize(
    ("fitted", "then"), [("poisson", "exponential"), ("categorical", "bernoulli")]
)
def test_an_emission_that_is_set_waits_for_a_fit(Estimator, fitted, then):
    estimator = Estimator(2, emission=fitted, random_state=0, max_iter=0).fit(SYMBOLS)
    before = estimator.predict(SYMBOLS), estimator.score(SYMBOLS), estimator.n_parameters
    estimator.set_params(emission=then)
    np.testing.assert_array_equal(estimator.predict(SYMBOLS), before[0])
    assert (estimator.score(SYMBOLS), estimator.n_parameters) == before[1:]
    X = SYMBOLS + 1 if then == "exponential" else (SYMBOLS > 0).astype(float)
    assert estimator.fit(X).score(X) != before[1]


# Parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda x: vbfast.Gaussian(
            2, mean_prior=[0.0, x], mean_precision=1.0, scatter=np.eye(2), degrees_of_freedom=3.0
        ),
        lambda x: vbfast.AdditiveGaussian(2, 2, 2, scatter=x * np.eye(2)),
        lambda x: vbfast.Poisson(2, np.full(2, x), np.ones(2)),
        lambda x: vbfast.Exponential(2, np.full(2, x), np.ones(2)),
        lambda x: vbfast.Bernoulli(2, [x, 1.0], [1.0, 1.0]),
        lambda x: vbfast.Categorical(2, 3, [1.0, 1.0, x]),
        lambda x: vbfast.Chain(2, transition_concentration=[[1.0, x], [1.0, 1.0]]),
    ],
)
def test_parts_are_equal_where_their_arrays_are(make):
    one, two, other = make(2.0), make(2.0), make(3.0)
    assert one == two
    assert hash(one) == hash(two)
    assert one != other
    assert one != "one"
    assert {one: 1}[two] == 1
