"""Parameters that somebody sets: from a file, from another package, or to see what happens."""

import json
import pickle

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as Theirs

import vbfast
from vbfast import (
    BayesianGaussianMixture,
    FactorialHMM,
    GaussianMixture,
    HiddenMarkovModel,
    MixtureModel,
)

pytestmark = pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")

KINDS = ["full", "tied", "diag", "spherical"]
ROWS = np.random.default_rng(0).normal(size=(60, 2)) @ [[1, 0.5], [0, 2]]
ROWS[::2] += 4
SYMBOLS = np.random.default_rng(1).integers(3, size=(60, 2))
GAUSSIANS = [GaussianMixture, BayesianGaussianMixture, MixtureModel, HiddenMarkovModel]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", GAUSSIANS)
@pytest.mark.parametrize("name", ["covariances_", "precisions_"])
def test_what_is_set_is_what_predicts(estimator, kind, name):
    fitted = estimator(2, covariance_type=kind, random_state=0).fit(ROWS)
    other = pickle.loads(pickle.dumps(fitted))
    factor = 4.0 if name == "covariances_" else 0.25
    setattr(other, name, (factor * getattr(fitted, name)).tolist())
    np.testing.assert_allclose(other.covariances_, 4 * fitted.covariances_, rtol=1e-9)
    np.testing.assert_allclose(other.precisions_, fitted.precisions_ / 4, rtol=1e-9)
    np.testing.assert_allclose(
        other.precisions_cholesky_, fitted.precisions_cholesky_ / 2, rtol=1e-9, atol=1e-12
    )
    expected = pickle.loads(pickle.dumps(fitted))
    expected.precisions_cholesky_ = fitted.precisions_cholesky_ / 2
    np.testing.assert_allclose(other.score_samples(ROWS), expected.score_samples(ROWS), rtol=1e-9)
    assert other.score(ROWS) != fitted.score(ROWS)


@pytest.mark.parametrize("estimator", GAUSSIANS)
@pytest.mark.parametrize("name", ["covariances_", "precisions_"])
def test_what_is_changed_in_place_is_refused(estimator, name):
    fitted = estimator(2, covariance_type="full", random_state=0).fit(ROWS)
    fitted.predict(ROWS)
    getattr(fitted, name)[0] *= 2
    for call in (fitted.predict, fitted.predict_proba, fitted.score_samples):
        with pytest.raises(ValueError, match=f"{name} was changed in place"):
            call(ROWS)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("full", np.eye(2), r"covariances_ must have shape \(K, D, D\)"),
        ("tied", np.ones((2, 3)), r"covariances_ must have shape \(D, D\)"),
        ("diag", np.ones(2), r"covariances_ must have shape \(K, D\)"),
        ("spherical", np.ones((2, 2)), r"covariances_ must have shape \(K,\)"),
        ("full", [[[1, 2], [2, 1]]] * 2, r"covariances_\[0\] must be positive definite"),
        ("diag", [[1, 2], [2, -1]], r"covariances_\[1, 1\] is -1"),
        ("diag", [[1, 2], [2, np.nan]], r"covariances_\[1, 1\] is nan"),
        ("diag", [[1, 2], [2, 1e-320]], "inverses are no float64"),
        ("tied", 1e-320 * np.eye(2), "inverses are no float64"),
    ],
)
def test_what_is_no_covariance_is_refused(kind, value, words):
    fitted = GaussianMixture(2, covariance_type=kind, random_state=0).fit(ROWS)
    before = dict(vars(fitted))
    with pytest.raises(ValueError, match=words):
        fitted.covariances_ = value
    assert vars(fitted) == before


FITTED = [
    (GaussianMixture(2, random_state=0), ROWS, ["weights_", "means_", "covariances_"]),
    (GaussianMixture(2, covariance_type="tied", random_state=0), ROWS,
     ["weights_", "means_", "precisions_"]),
    (BayesianGaussianMixture(2, method="em", random_state=0), ROWS,
     ["weights_", "means_", "precisions_cholesky_"]),
    (MixtureModel(2, covariance_type="diag", random_state=0), ROWS,
     ["weights_", "means_", "covariances_"]),
    (MixtureModel(2, emission="poisson", random_state=0), SYMBOLS, ["weights_", "rates_"]),
    (MixtureModel(2, emission="exponential", random_state=0), SYMBOLS + 1, ["weights_", "rates_"]),
    (MixtureModel(2, emission="bernoulli", random_state=0), SYMBOLS > 0,
     ["weights_", "probabilities_"]),
    (MixtureModel(2, emission="categorical", random_state=0), SYMBOLS,
     ["weights_", "probabilities_"]),
    (HiddenMarkovModel(2, random_state=0), ROWS,
     ["startprob_", "transmat_", "means_", "covariances_"]),
    (HiddenMarkovModel(2, emission="categorical", random_state=0), SYMBOLS,
     ["startprob_", "transmat_", "probabilities_"]),
    (FactorialHMM(2, 2, random_state=0), ROWS,
     ["startprob_", "transmat_", "means_", "covariance_"]),
]  # fmt: skip


@pytest.mark.parametrize(("estimator", "X", "names"), FITTED)
def test_parameters_from_a_file_predict_without_a_fit(estimator, X, names):
    made = type(estimator)(**estimator.get_params())
    with pytest.raises(vbfast.NotFittedError):
        made.predict(X)
    fitted = type(estimator)(**estimator.get_params()).fit(X)
    told = json.loads(json.dumps({name: getattr(fitted, name).tolist() for name in names}))
    for name, value in told.items():
        setattr(made, name, np.array(value))
    np.testing.assert_array_equal(made.predict(X), fitted.predict(X))
    np.testing.assert_allclose(made.predict_proba(X), fitted.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(made.score(X), fitted.score(X), rtol=1e-9)
    np.testing.assert_allclose(made.bic(X), fitted.bic(X), rtol=1e-9)
    assert made.n_parameters == fitted.n_parameters
    assert made.sample(3)[0].shape == (3, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_of_another_package(kind):
    theirs = Theirs(2, covariance_type=kind, random_state=0).fit(ROWS)
    ours = GaussianMixture(2, covariance_type=kind)
    ours.weights_, ours.means_, ours.covariances_ = (
        theirs.weights_, theirs.means_, theirs.covariances_
    )  # fmt: skip
    np.testing.assert_allclose(ours.score_samples(ROWS), theirs.score_samples(ROWS), rtol=1e-9)


def test_categories_by_hand():
    """Lists, text of any kind; what does not go with the probabilities is refused."""
    made = MixtureModel(2, emission="categorical")
    made.weights_, made.probabilities_ = (
        np.array([0.5, 0.5]),
        np.array([[[0.2, 0.8]], [[0.7, 0.3]]]),
    )
    for known in (["a", "b"], [["a", "b"]], [np.array(["a", "b"])], (("a", "b"),)):
        made.categories_ = known
        np.testing.assert_array_equal(made.predict([["a"], ["b"]]), [1, 0])
        assert set(made.sample(50, random_state=0)[0].ravel()) == {"a", "b"}
    for known, words in (
        ([np.array([5, 7])] * 2, "or 1 of them, not 2"),
        ([[1, 1]], "categories_.0. has 1 twice"),
    ):
        made.categories_ = known
        with pytest.raises(ValueError, match=words):
            made.predict([[1]])
    made.categories_ = [[5]]
    with pytest.raises(ValueError, match=r"categories_\[0\] has 1 categories; probab"):
        made.sample(50, random_state=0)


def test_categories_from_a_file():
    names = np.array(["x", "y", "z"], dtype=object)
    fitted = MixtureModel(2, emission="categorical", random_state=0).fit(names[SYMBOLS])
    made = MixtureModel(2, emission="categorical")
    made.weights_, made.probabilities_ = fitted.weights_, fitted.probabilities_
    made.categories_ = [np.array(each.tolist(), dtype=object) for each in fitted.categories_]
    np.testing.assert_array_equal(made.predict(names[SYMBOLS]), fitted.predict(names[SYMBOLS]))
