"""Symbols by any names: which there are, what they cost, and what is refused."""

import pickle

import numpy as np
import pytest
from test_answers import gss82

import vbfast
from vbfast import HiddenMarkovModel, MixtureModel, fit_many

pytestmark = pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")

# The same answers by codes from 1, by names, by numbers far apart, and of mixed columns.
NAMES = np.array(["good", "medium", "poor"], dtype=object)
MIXED = gss82()[0].astype(object)
MIXED[:, 0] = NAMES[gss82()[0][:, 0]]
ALIKE = {
    "from 1": gss82()[0] + 1,
    "names": NAMES[gss82()[0]],
    "text": NAMES[gss82()[0]].astype(str),
    "StringDType": NAMES[gss82()[0]].astype(np.dtypes.StringDType()),
    "list": NAMES[gss82()[0]].tolist(),
    "far": gss82()[0] * 1_000_000 - 7,
    "single": (gss82()[0] + 1).astype(np.float32),
    "mixed": MIXED,
}


@pytest.mark.parametrize("kind", ALIKE)
def test_names_of_categories_make_no_difference(kind):
    cells, counts = gss82()
    plain = MixtureModel(3, emission="categorical", random_state=0)
    plain.fit(cells, sample_weight=counts)
    assert plain.n_parameters == 20
    X = ALIKE[kind]
    named = MixtureModel(3, emission="categorical", random_state=0).fit(X, sample_weight=counts)
    assert named.bic(X, counts) == plain.bic(cells, counts)
    np.testing.assert_array_equal(named.probabilities_, plain.probabilities_)
    # float32 rows are answered in float32.
    expected = plain.predict_proba(cells)
    np.testing.assert_array_equal(
        named.predict_proba(X), expected.astype(named.predict_proba(X).dtype)
    )
    drawn, _ = named.sample(50, random_state=1)
    codes, _ = plain.sample(50, random_state=1)
    for column in range(4):
        known = named.categories_[column]
        np.testing.assert_array_equal(known, np.unique(np.asarray(X, dtype=object)[:, column]))
        np.testing.assert_array_equal(drawn[:, column], known[codes[:, column].astype(int)])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(named)).predict(drawn),
                                  plain.predict(codes))  # fmt: skip


def test_codes_from_one_cost_nothing():
    cells, counts = gss82()
    best = min(
        MixtureModel(3, emission="categorical", random_state=seed)
        .fit(cells + 1, sample_weight=counts).bic(cells + 1, counts)
        for seed in range(2)
    )  # fmt: skip
    assert best == pytest.approx(5650.928, abs=0.01)


@pytest.mark.parametrize("method", ["em", "mean_field", "full"])
def test_hidden_markov_models_of_names(method):
    if method == "full":
        method = vbfast.FullInference(n_draws=5, n_tune=5, n_chains=1)
    codes = np.random.default_rng(0).integers(3, size=(80, 1))
    plain = HiddenMarkovModel(2, emission="categorical", method=method, random_state=0).fit(codes)
    X = np.array(["x", "y", "z"])[codes]
    named = HiddenMarkovModel(2, emission="categorical", method=method, random_state=0).fit(X)
    assert named.objective_ == plain.objective_
    assert named.bic(X) == plain.bic(codes)
    assert named.decode(X)[0] == plain.decode(codes)[0]
    np.testing.assert_array_equal(named.filter(X), plain.filter(codes))
    drawn, _ = named.sample(lengths=[4, 5], random_state=0)
    assert set(drawn[:, 0]) <= {"x", "y", "z"}
    with pytest.raises(ValueError, match=r"X\[1, 0\] is 'w' .* categories, which are 'x', 'y',"):
        named.predict([["x"], ["w"]])


@pytest.mark.parametrize("estimator", [MixtureModel, HiddenMarkovModel])
def test_categories_that_are_given(estimator):
    rows = np.array([[3, 1], [5, 1], [3, 2], [5, 2], [3, 1]])
    model = estimator(1, emission="categorical", categories=[[5, 4, 3], [1, 2]], random_state=0)
    model.fit(rows)
    np.testing.assert_allclose(model.probabilities_[0], [[0.4, 0, 0.6], [0.6, 0.4, 0]])
    np.testing.assert_array_equal(model.n_categories_, [3, 2])
    assert model.score_samples([[4, 1]])[0] == -np.inf
    before = dict(vars(model))
    for call in (model.fit, model.predict):
        with pytest.raises(ValueError, match=r"X\[0, 0\] is 6 .* which are 5, 4, 3;"):
            call([[6, 1], [5, 1]])
    assert vars(model) == before
    model.set_params(categories=[1, 2, 3, 4, 5]).fit(rows)
    assert model.probabilities_.shape == (1, 2, 5)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"categories": [[0, 1], [0, 1]], "n_categories": 2}, ValueError, "not both"),
        ({"categories": [[0, 1]]}, ValueError, "2 of them, not 1"),
        ({"categories": [[0, 1], [0, 0]]}, ValueError, r"categories\[1\] has 0 twice"),
        ({"categories": [[0, 1], [0, "a"]]}, TypeError, r"categories\[1\] must hold integers or"),
        ({"categories": [[0, 1], 0.5]}, TypeError, r"categories\[1\] must hold integers or"),
        ({"categories": "ab"}, TypeError, "categories must be a sequence"),
        ({"categories": [0, 1], "emission": "poisson"}, ValueError, "categories is for emission"),
    ],
)
def test_categories_that_are_none(parameters, error, words):
    model = MixtureModel(**({"emission": "categorical"} | parameters))
    before = dict(vars(model))
    with pytest.raises(error, match=words):
        model.fit([[0, 1], [1, 0]])
    assert vars(model) == before
    if parameters.get("emission") is None:
        with pytest.raises(error, match=words):
            fit_many(model, np.array([[[0, 1], [1, 0], [0, 1]]] * 2))


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([["a"], [1]], TypeError, r"X\[1, 0\] is 1 .*strings alone"),
        ([["a", 1], ["b", "c"]], TypeError, r"X\[1, 1\] is 'c' .*integers alone"),
        ([["a", 1], ["b", 1.5]], ValueError, r"X\[1, 1\] is 1.5 .*whole numbers"),
        ([["a", 1], ["b", None]], TypeError, r"X\[1, 1\] is None"),
        ([["a", 1], ["b", float("nan")]], ValueError, r"X\[1, 1\] is nan"),
        (np.array([["a"], ["b"]], dtype="S1"), ValueError, "X holds bytes"),
        (["a", "b"], ValueError, "X must be two-dimensional"),
    ],
)
def test_values_that_are_no_categories(rows, error, words):
    with pytest.raises(error, match=words):
        MixtureModel(emission="categorical").fit(rows)


def test_warm_starts_are_of_the_same_categories():
    model = MixtureModel(2, emission="categorical", warm_start=True, random_state=0)
    model.fit([["a"], ["b"], ["a"], ["b"]]).fit([["b"], ["a"], ["b"]])
    with pytest.raises(ValueError, match="warm_start: categories of column 0 are other ones"):
        model.fit([["a"], ["c"], ["a"], ["c"]])


def test_many_data_sets_of_other_codes():
    codes = np.random.default_rng(0).integers(3, size=(3, 40, 2))
    codes[0] = codes[0] % 2
    for estimator in (MixtureModel, HiddenMarkovModel):
        plain = fit_many(estimator(2, emission="categorical", random_state=0), codes)
        coded = fit_many(estimator(2, emission="categorical", random_state=0), 10 * codes + 1)
        np.testing.assert_array_equal(plain.probabilities_, coded.probabilities_)
        for s in range(3):
            np.testing.assert_array_equal(coded[s].categories_[1], [1, 11, 21])
            np.testing.assert_array_equal(
                plain[s].predict_proba(codes[s]), coded[s].predict_proba(10 * codes[s] + 1)
            )
    with pytest.raises(ValueError, match=r"data set 1: .*\[2, 0\] is 0.5"):
        fit_many(
            MixtureModel(emission="categorical"), [codes[0], np.array([[0, 1], [0, 1], [0.5, 1]])]
        )


@pytest.mark.parametrize("value", [2**53, 2**53 + 1, -(2**53)])
@pytest.mark.parametrize("dtype", [np.int64, object, np.float64])
def test_integers_that_float64_can_not_tell_apart_are_refused(value, dtype):
    X = np.array([[0], [value], [1]], dtype=dtype)
    with pytest.raises(ValueError, match=r"whole numbers below 2\^53"):
        vbfast.MixtureModel(1, emission="categorical").fit(X)
