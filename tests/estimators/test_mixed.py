"""Estimators of columns of several kinds."""

import pickle

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import bernoulli, expon, multivariate_normal, poisson
from sklearn.base import clone

import vbfast
from vbfast import HiddenMarkovModel, MixtureModel

KINDS = [
    ("gaussian", [0, 2], {"covariance_type": "full"}),
    ("poisson", [1]),
    ("categorical", [3]),
    ("bernoulli", [4]),
    ("exponential", [5]),
]
METHODS = [
    "em",
    "mean_field",
    "variational_em",
    "crisp_em",
    vbfast.FullInference(n_draws=150, n_tune=100, n_chains=2),
]
models = pytest.mark.parametrize("model", [MixtureModel, HiddenMarkovModel])


def people(n=300, seed=0):
    """Columns of several kinds, and the groups that they are of."""
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(2, size=n))
    X = np.column_stack(
        [
            rng.normal(size=n) + 3 * group,
            rng.poisson(2 + 6 * group),
            2 * rng.normal(size=n) - 3 * group,
            rng.integers(3, size=n) + 2 * group * (rng.random(n) < 0.5),
            rng.random(n) < 0.2 + 0.6 * group,
            rng.exponential(1 + group),
        ]
    )
    return X, group


class Frame:
    """What of a data frame an estimator looks at."""

    def __init__(self, columns):
        self.named = {name: np.asarray(column) for name, column in columns.items()}
        self.columns = list(columns)
        self.shape = len(next(iter(self.named.values()))), len(columns)

    @property
    def iloc(self):
        return self

    def __getitem__(self, at):
        rows, column = at
        return self.named[self.columns[column]][rows]

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("columns are taken one by one")


def as_frame(X):
    names = np.array(["red", "green", "blue", "grey", "pink"], dtype=object)
    return Frame(
        {
            "height": X[:, 0],
            "visits": X[:, 1].astype(np.int64),
            "weight": X[:, 2],
            "colour": names[X[:, 3].astype(int)],
            "member": X[:, 4] > 0,
            "wait": X[:, 5],
        }
    )


BY_NAME = [
    ("gaussian", ["height", "weight"], {"covariance_type": "full"}),
    ("poisson", ["visits"]),
    ("categorical", ["colour"]),
    ("bernoulli", "member"),
    ("exponential", "wait"),
]


def scores(model, X):
    """log p(x | k) by SciPy from what the parts say, (N, K)."""
    normal, counts, symbols, ones, waits = model.parts_
    k = len(normal.means_)
    out = np.empty((len(X), k))
    for j in range(k):
        covariance = normal.covariances_[j]
        out[:, j] = multivariate_normal(normal.means_[j], covariance).logpdf(X[:, [0, 2]])
        out[:, j] += poisson(counts.rates_[j, 0]).logpmf(X[:, 1])
        codes = np.searchsorted(symbols.categories_[0], X[:, 3])
        with np.errstate(divide="ignore"):
            out[:, j] += np.log(symbols.probabilities_[j, 0, codes])
        out[:, j] += bernoulli(ones.probabilities_[j, 0]).logpmf(X[:, 4])
        out[:, j] += expon(scale=1 / waits.rates_[j, 0]).logpdf(X[:, 5])
    return out


@pytest.mark.parametrize("method", METHODS, ids=str)
@models
def test_fit_finds_the_groups(model, method):
    X, group = people()
    fitted = model(2, emission=KINDS, method=method, random_state=0).fit(X)
    labels = fitted.predict(X)
    assert max(np.mean(labels == group), np.mean(labels != group)) > 0.95
    q = fitted.predict_proba(X)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.isfinite(fitted.score_samples(X)).all()
    assert [part.emission for part in fitted.parts_] == [name for name, *_ in KINDS]
    assert [part.columns for part in fitted.parts_] == [(0, 2), (1,), (3,), (4,), (5,)]
    assert fitted.n_parameters == (1 if model is MixtureModel else 3) + 2 * (5 + 1 + 4 + 1 + 1)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), q)
    rows, _ = fitted.sample(20)
    assert rows.shape == (20, 6)
    assert np.isfinite(rows).all()
    fitted.score_samples(rows)


@pytest.mark.parametrize("method", ["em", "variational_em", "crisp_em"])
def test_mixtures_say_what_their_parts_say(method):
    X, _ = people()
    mixture = MixtureModel(2, emission=KINDS, method=method, reg_covar=0, random_state=1).fit(X)
    joint = scores(mixture, X) + np.log(mixture.weights_)
    total = logsumexp(joint, axis=1)
    np.testing.assert_allclose(mixture.score_samples(X), total, rtol=1e-10)
    expected = np.exp(joint - total[:, None])
    np.testing.assert_allclose(mixture.predict_proba(X), expected, rtol=0, atol=1e-10)
    if method == "em":
        assert mixture.objective_ == pytest.approx(total.sum(), rel=1e-10)


def test_chains_say_what_their_parts_say():
    X, _ = people()
    chain = HiddenMarkovModel(2, emission=KINDS, reg_covar=0, random_state=1).fit(X)
    alpha = np.log(chain.startprob_ + 1e-300) + scores(chain, X)[0]
    for row in scores(chain, X)[1:]:
        alpha = logsumexp(alpha[:, None] + np.log(chain.transmat_ + 1e-300), axis=0) + row
    assert chain.score(X) == pytest.approx(logsumexp(alpha), rel=1e-10)
    assert chain.objective_ == pytest.approx(chain.score(X), rel=1e-10)


@pytest.mark.parametrize("method", ["mean_field", vbfast.FullInference(n_draws=300, n_chains=2)])
def test_of_one_component_all_is_a_sum_over_parts(method):
    """Densities integrated over theta, evidence, and bounds: parts are independent then."""
    X, _ = people(40)
    together = MixtureModel(1, emission=KINDS, method=method, random_state=0).fit(X)
    objective, evidence, each = 0.0, 0.0, 0.0
    for name, columns, *more in KINDS:
        alone = MixtureModel(
            1, emission=name, method=method, random_state=0, **(more[0] if more else {})
        ).fit(X[:, columns])
        objective += alone.objective_
        each = each + alone.score_samples(X[:, columns])
        evidence += getattr(alone, "log_evidence_", 0.0)
    if method == "mean_field":
        assert together.objective_ == pytest.approx(objective, rel=1e-10)
        np.testing.assert_allclose(together.score_samples(X), each, rtol=1e-9)
    else:
        assert together.log_evidence_ == pytest.approx(evidence, abs=1e-6 * abs(evidence))
        assert set(together.draws_) == {
            "weights", "0.means", "0.covariances", "1.rates", "2.probabilities",
            "3.probabilities", "4.rates", "log_joint",
        }  # fmt: skip
        assert together.draws_["0.means"].shape == (2, 300, 1, 2)
        assert together.draws_["2.probabilities"].shape == (2, 300, 1, 1, 5)
        assert together.draws_["3.probabilities"].shape == (2, 300, 1, 1)


@models
def test_columns_by_name_number_slice_truth_and_function(model):
    X, _ = people()
    first = model(2, emission=KINDS, random_state=0).fit(X)
    more = [tuple(part) for part in KINDS[1:]]
    for columns in (
        slice(0, 3, 2),
        [-6, -4],
        [True, False, True, False, False, False],
        np.array([0, 2]),
        lambda X: [0, 2],
    ):
        emission = [("gaussian", columns, {"covariance_type": "full"}), *more]
        same = model(2, emission=emission, random_state=0).fit(X)
        np.testing.assert_array_equal(same.predict_proba(X), first.predict_proba(X))
    frame = as_frame(X)
    named = model(2, emission=BY_NAME, random_state=0).fit(frame)
    np.testing.assert_allclose(named.score_samples(frame), first.score_samples(X), rtol=1e-6)
    assert named.parts_[0].columns == ("height", "weight")
    assert list(named.feature_names_in_) == frame.columns
    # In the order of the columns, whatever that of the parts.
    rows, _ = named.sample(5)
    assert all(isinstance(colour, str) for colour in rows[:, 3])
    assert set(rows[:, 3]) <= {"red", "green", "blue", "grey", "pink"}
    other = Frame({name: frame.named[name] for name in reversed(frame.columns)})
    with pytest.raises(ValueError, match="feature names should match"):
        named.predict(other)


@models
def test_auto_takes_columns_by_their_types(model):
    X, _ = people()
    frame = as_frame(X)
    fitted = model(2, emission="auto", random_state=0).fit(frame)
    told = {part.emission: part.columns for part in fitted.parts_}
    assert told == {
        "gaussian": ("height", "weight", "wait"),
        "poisson": ("visits",),
        "categorical": ("colour",),
        "bernoulli": ("member",),
    }
    assert fitted.parts_[0].covariances_.shape == (2, 3)
    # Whole numbers below 0 are no counts; objects that are numbers are.
    frame.named["visits"] = frame.named["visits"] - 20
    frame.named["member"] = frame.named["member"].astype(object)
    fitted.fit(frame)
    told = {part.emission: part.columns for part in fitted.parts_}
    assert told["gaussian"] == ("height", "visits", "weight", "wait")
    assert told["bernoulli"] == ("member",)
    alone = model(2, emission="auto", random_state=0).fit(X[:, [0, 2]])
    (part,) = alone.parts_
    assert (part.emission, part.columns) == ("gaussian", (0, 1))
    expected = model(2, covariance_type="diag", random_state=0).fit(X[:, [0, 2]])
    assert alone.score(X[:, [0, 2]]) == pytest.approx(expected.score(X[:, [0, 2]]), rel=1e-6)
    counts = model(2, emission="auto", random_state=0).fit(X[:, [1]].astype(int))
    assert [part.emission for part in counts.parts_] == ["poisson"]


@models
def test_columns_that_no_part_sees_are_read_past(model):
    X, _ = people()
    expected = model(2, emission=KINDS[:3], random_state=0).fit(X[:, :4])
    wide = np.column_stack([X[:, :4], np.full(len(X), np.nan), np.full(len(X), np.inf)])
    found = model(2, emission=KINDS[:3], random_state=0).fit(wide)
    np.testing.assert_array_equal(found.predict_proba(wide), expected.predict_proba(X[:, :4]))
    assert found.score(wide) == expected.score(X[:, :4])
    rows, _ = found.sample(3)
    assert np.isnan(rows[:, 4:]).all()
    assert np.isfinite(rows[:, :4]).all()
    wide[7, 1] = np.nan
    with pytest.raises(ValueError, match="NaN at row 7, column 1"):
        found.predict(wide)


def test_weights_are_repeated_rows_and_threads_leave_no_trace():
    X, _ = people(60)
    w = np.arange(60) % 3 + (np.arange(60) % 7 == 0)
    weighted = MixtureModel(2, emission=KINDS, random_state=0).fit(X, sample_weight=w)
    repeated = MixtureModel(2, emission=KINDS, random_state=0).fit(np.repeat(X, w, axis=0))
    assert weighted.objective_ == pytest.approx(repeated.objective_, abs=0.01)
    assert weighted.bic(X, w) == pytest.approx(repeated.bic(np.repeat(X, w, axis=0)), abs=0.05)
    X, _ = people(3000)
    for model in (MixtureModel, HiddenMarkovModel):
        for layout in (np.ascontiguousarray, np.asfortranarray):
            one, two = (
                model(2, emission=KINDS, random_state=0, n_threads=n).fit(layout(X)) for n in (1, 2)
            )
            assert one.objective_ == two.objective_
            np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_float32_rows():
    X, _ = people(500)
    X = X.astype(np.float32)
    mixture = MixtureModel(2, emission=KINDS[:2] + KINDS[3:], random_state=0).fit(X)
    double = MixtureModel(2, emission=KINDS[:2] + KINDS[3:], random_state=0).fit(X.astype(float))
    assert mixture.predict_proba(X).dtype == np.float32
    assert mixture.objective_ == pytest.approx(double.objective_, rel=1e-6)


def test_parameters_and_priors_of_parts():
    X, _ = people()
    emission = [
        ("gaussian", [0], {"covariance_type": "spherical", "mean_prior": [7.0]}),
        ("gaussian", [2], {"mean_precision_prior": 4.0, "reg_covar": 1e-3}),
        ("poisson", [1], {"shape_prior": 2.0, "rate_prior": 0.5}),
        ("categorical", [3], {"categories": [[0, 1, 2, 3, 4, 9]], "concentration_prior": 2.0}),
    ]
    mixture = MixtureModel(
        2, emission=emission, method="mean_field", covariance_type="diag", random_state=0
    ).fit(X)
    one, two, counts, symbols = mixture.parts_
    assert one.covariances_.shape == (2,)
    assert two.covariances_.shape == (2, 1)
    np.testing.assert_array_equal(one.mean_prior_, [7.0])
    assert two.mean_precision_prior_ == 4.0
    assert (counts.shape_prior_, counts.rate_prior_) == (2.0, 0.5)
    assert counts.shape_.shape == (2, 1)
    assert symbols.probabilities_.shape == (2, 1, 6)
    assert symbols.concentration_.shape == (2, 1, 6)
    assert mixture.get_params()["emission"] is emission
    assert clone(mixture).fit(X).objective_ == mixture.objective_
    with pytest.raises(AttributeError, match="rates_ can't be set"):
        counts.rates_ = 3
    with pytest.raises(ValueError, match="read-only"):
        counts.rates_[0] = 3
    with pytest.raises(AttributeError):
        mixture.parts_ = ()
    assert "rates_" in repr(counts)


@models
def test_what_was_fitted_stays(model):
    X, _ = people()
    fitted = model(2, emission=KINDS, random_state=0).fit(X)
    q = fitted.predict_proba(X)
    fitted.set_params(emission="poisson", covariance_type="diag")
    np.testing.assert_array_equal(fitted.predict_proba(X), q)
    fitted.fit(X[:, [1]])
    assert not hasattr(fitted, "parts_")
    assert fitted.rates_.shape == (2, 1)
    with pytest.raises(ValueError, match="more than the"):
        fitted.set_params(emission=KINDS, n_components=1000).fit(X)
    fitted.predict(X[:, [1]])


def test_weights_and_transitions_by_hand():
    X, _ = people()
    mixture = MixtureModel(2, emission=KINDS, reg_covar=0, random_state=0).fit(X)
    mixture.weights_ = np.array([0.1, 0.9])
    expected = logsumexp(scores(mixture, X) + np.log([0.1, 0.9]), axis=1)
    np.testing.assert_allclose(mixture.score_samples(X), expected, rtol=1e-10)
    chain = HiddenMarkovModel(2, emission=KINDS, reg_covar=0, random_state=0).fit(X)
    chain.startprob_, chain.transmat_ = np.array([0.3, 0.7]), np.tile([0.3, 0.7], (2, 1))
    expected = logsumexp(scores(chain, X) + np.log([0.3, 0.7]), axis=1)
    np.testing.assert_allclose(chain.score_samples(X), expected, rtol=1e-10)


BAD = [
    ("autos", ValueError, "emission must be one of"),
    (3, ValueError, "emission must be one of"),
    ([], TypeError, "emission must be a name"),
    ([("gaussian",)], TypeError, r"emission\[0\] is"),
    ([("normal", [0])], ValueError, r"emission\[0\] must begin with one of"),
    ([("gaussian", [0], 3)], TypeError, r"parameters of emission\[0\] must be a dict"),
    ([("gaussian", [0], {"rate_prior": 1})], ValueError, "has 'rate_prior'; 'gaussian' takes"),
    ([("gaussian", [0], {"means_init": 1})], ValueError, "has 'means_init'"),
    ([("gaussian", [0], {"covariance_type": "x"})], ValueError, "covariance_type must be one of"),
    ([("gaussian", [0]), ("poisson", [1, 0])], ValueError, r"column 0 is in emission\[0\] and \[1"),
    ([("gaussian", [])], ValueError, r"emission\[0\] sees no column"),
    ([("gaussian", [6])], ValueError, "have 6; X has 6 columns"),
    ([("gaussian", ["age"])], ValueError, "have 'age'; X has no names"),
    ([("gaussian", [True, False])], ValueError, "must be 6 truths, not 2"),
    ([("gaussian", [1.5])], TypeError, "must be names or integers, not 1.5"),
    ([("gaussian", [0]), ("poisson", [2])], ValueError, r"X\[\d+, 2\] is -?\d"),
    ([("gaussian", [0]), ("poisson", [1], {"rate_prior": 1.0})], ValueError, "and rate_prior, or"),
]


@pytest.mark.parametrize(("emission", "error", "message"), BAD)
@models
def test_what_is_refused_leaves_the_fit_alone(model, emission, error, message):
    X, _ = people()
    fitted = model(2, emission=KINDS, random_state=0).fit(X)
    before = dict(vars(fitted))
    fitted.emission = emission
    with pytest.raises(error, match=message):
        fitted.fit(X)
    fitted.emission = before["emission"]
    assert vars(fitted).keys() == before.keys()
    assert all(vars(fitted)[name] is value for name, value in before.items())


@models
def test_parameters_of_a_single_emission_are_refused(model):
    X, _ = people()
    for name, value in [("mean_prior", [0.0]), ("rate_prior", 1.0), ("means_init", [[0.0]])]:
        with pytest.raises(ValueError, match=f"{name} is for a single emission"):
            model(2, emission=KINDS, **{name: value}).fit(X)
    with pytest.raises(ValueError, match="fit_many is for estimators of a single emission"):
        vbfast.fit_many(model(2, emission=KINDS), [X])
    with pytest.raises(vbfast.NotFittedError):
        model(2, emission=KINDS).predict(X)
    assert not hasattr(model(2, emission=KINDS), "parts_")
    if model is MixtureModel:
        with pytest.raises(ValueError, match="warm_start"):
            model(2, emission=KINDS, warm_start=True).fit(X)


@models
def test_symbols_that_were_not_seen_are_refused_by_their_column(model):
    X, _ = people()
    fitted = model(2, emission=KINDS, random_state=0).fit(X)
    frame = as_frame(X)
    named = model(2, emission=BY_NAME, random_state=0).fit(frame)
    X[5, 3] = 77
    with pytest.raises(ValueError, match=r"X\[5, 3\] is 77 \(row 5, column 3\)"):
        fitted.predict(X)
    frame.named["colour"][5] = "black"
    with pytest.raises(ValueError, match=r"X\[5, 3\] is 'black' \(row 5, column 3\)"):
        named.predict(frame)
    frame.named["height"] = frame.named["colour"]
    with pytest.raises(ValueError, match=r"columns \['height', 'weight'\]: X must hold real"):
        named.predict(frame)
