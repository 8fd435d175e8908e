"""What is missing at random: mixtures and chains of rows of which some values are not there."""

import pickle

import numpy as np
import pytest
import reference as ref
from scipy.special import logsumexp
from test_mixed import BY_NAME, KINDS, Frame, as_frame, people, scores

import vbfast
from vbfast import HiddenMarkovModel, MixtureModel, starts

METHODS = [
    "em",
    "mean_field",
    "variational_em",
    "crisp_em",
    vbfast.FullInference(n_draws=150, n_tune=100, n_chains=2),
]
models = pytest.mark.parametrize("model", [MixtureModel, HiddenMarkovModel])
# Columns that are independent given the component.
APART = [("gaussian", [0, 2], {"covariance_type": "diag"}), *KINDS[1:]]


def with_gaps(n=300, share=0.2, seed=0):
    X, group = people(n, seed)
    X[np.random.default_rng(seed + 1).random(X.shape) < share] = np.nan
    return X, group


class NAType:
    """What stands for a missing value in a data frame: equal to nothing, and no truth."""

    def __eq__(self, other):
        return self

    __hash__ = None

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


def penguins():
    return ref.load("penguins_mixed")[:, :6]


MEASURED = [
    ("gaussian", [0, 1, 2, 3], {"covariance_type": "diag", "reg_covar": 0}),
    ("categorical", [4, 5]),
]


def test_penguins_end_at_the_best_known_optimum():
    X, reached = penguins(), 0
    for seed in range(20):
        mixture = MixtureModel(3, emission=MEASURED, missing="at_random", random_state=seed).fit(X)
        reached += mixture.objective_ == pytest.approx(-5724.80738205, abs=1e-3)
        assert mixture.objective_ < -5724.807
        assert mixture.score(X) * len(X) == pytest.approx(mixture.objective_, rel=1e-12)
    assert reached >= 19


def test_penguins_from_their_species():
    """Where a table has a 0 of a start it stays one."""
    X, species = penguins(), ref.load("penguins_mixed")[:, 6].astype(int)
    data = vbfast.ArrayData.of(X, standardise=[((d,), False) for d in range(4)], missing=range(6))
    parts = [vbfast.Gaussian(1, "diag", frame=data.of_columns((d,)).frame) for d in range(4)]
    parts += [vbfast.Categorical(1, 3), vbfast.Categorical(1, 2)]
    emission = vbfast.Product(parts, [(d,) for d in range(6)], missing=True)
    model, data = vbfast.Model(vbfast.Mixture(3), emission), emission.check(data)
    fit = vbfast.EM().fit(model, data, starts.from_labels(model, data, species))
    assert fit.objective == pytest.approx(-5806.27975506, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "expected"), [(1, -23782.306), (2, -22127.913), (3, -21311.536)])
def test_election_with_its_missing_answers(k, expected):
    X = ref.load("election")
    assert len(X) == 1785
    mixture = MixtureModel(
        k, emission="categorical", missing="at_random", random_state=0, n_init=2
    ).fit(X)
    assert mixture.objective_ == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("method", METHODS, ids=str)
@models
def test_every_method_finds_the_groups(model, method):
    X, group = with_gaps()
    fitted = model(2, emission=APART, method=method, missing="at_random", random_state=0).fit(X)
    labels = fitted.predict(X)
    assert max(np.mean(labels == group), np.mean(labels != group)) > 0.9
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.isfinite(fitted.score_samples(X)).all()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    rows, _ = fitted.sample(10)
    assert np.isfinite(rows).all()


def by_part(mixture, X):
    """log p(x_d | k) of each column, by SciPy, 0 where it is missing; (N, K)."""
    from scipy.stats import bernoulli, expon, norm, poisson

    out = np.zeros((len(X), mixture.n_components))
    for part in mixture.parts_:
        (d,) = part.columns
        seen = ~np.isnan(X[:, d])
        x = X[seen, d]
        for k in range(out.shape[1]):
            if part.emission == "gaussian":
                value = norm(part.means_[k, 0], part.covariances_[k, 0] ** 0.5).logpdf(x)
            elif part.emission == "poisson":
                value = poisson(part.rates_[k, 0]).logpmf(x)
            elif part.emission == "exponential":
                value = expon(scale=1 / part.rates_[k, 0]).logpdf(x)
            elif part.emission == "bernoulli":
                value = bernoulli(part.probabilities_[k, 0]).logpmf(x)
            else:
                codes = np.searchsorted(part.categories_[0], x)
                value = np.log(np.maximum(part.probabilities_[k, 0, codes], 1e-300))
            out[seen, k] += value
    return out


def test_mixtures_say_of_rows_what_is_seen_of_them():
    X, _ = with_gaps()
    X[5] = np.nan
    mixture = MixtureModel(2, emission=APART, reg_covar=0, missing="at_random", random_state=0).fit(
        X
    )
    joint = by_part(mixture, X) + np.log(mixture.weights_)
    total = logsumexp(joint, axis=1)
    np.testing.assert_allclose(mixture.score_samples(X), total, rtol=1e-10, atol=1e-12)
    assert mixture.objective_ == pytest.approx(total.sum(), rel=1e-10)
    q = np.exp(joint - total[:, None])
    np.testing.assert_allclose(mixture.predict_proba(X), q, rtol=0, atol=1e-10)
    # Nothing seen: the weights, and a density of 1.
    np.testing.assert_allclose(mixture.predict_proba(X[5:6])[0], mixture.weights_, rtol=1e-12)
    assert mixture.score_samples(X[5:6])[0] == pytest.approx(0, abs=1e-12)
    # Rows of which other values are missing than in the fit.
    rows, _ = people(50, seed=3)
    for d in range(6):
        some = rows.copy()
        some[:, d] = np.nan
        expected = logsumexp(by_part(mixture, some) + np.log(mixture.weights_), axis=1)
        np.testing.assert_allclose(mixture.score_samples(some), expected, rtol=1e-10)


def test_chains_go_across_gaps():
    X, _ = with_gaps()
    X[100:120] = np.nan
    X[-5:] = np.nan
    X[0] = np.nan
    chain = HiddenMarkovModel(
        2, emission=APART, reg_covar=0, missing="at_random", random_state=0
    ).fit(X)
    each = by_part(chain, X)
    alpha = np.log(chain.startprob_ + 1e-300) + each[0]
    for row in each[1:]:
        alpha = logsumexp(alpha[:, None] + np.log(chain.transmat_ + 1e-300), axis=0) + row
    assert chain.score(X) == pytest.approx(logsumexp(alpha), rel=1e-10)
    assert chain.objective_ == pytest.approx(chain.score(X), rel=1e-10)
    # What nobody saw comes from its neighbours.
    q, filtered = chain.predict_proba(X), chain.filter(X)
    np.testing.assert_allclose(filtered[110], filtered[109] @ chain.transmat_, rtol=1e-9)
    np.testing.assert_allclose(q[-1], q[-2] @ chain.transmat_, rtol=1e-9)
    log_prob, path = chain.decode(X)
    assert np.isfinite(log_prob)
    assert len(path) == len(X)


@models
def test_whatever_stands_for_missing(model):
    X, _ = with_gaps()
    first = model(2, emission=APART, missing="at_random", random_state=0).fit(X)
    q = first.predict_proba(X)
    masked = np.ma.masked_array(np.where(np.isnan(X), 7.0, X), np.isnan(X))
    nothing = np.where(np.isnan(X), None, X.astype(object))
    na = np.where(np.isnan(X), NAType(), X.astype(object))
    symbols = X.copy()
    symbols[np.isnan(X[:, 3]), 3] = -1
    for other in (masked, nothing, na, symbols, X.tolist(), np.asfortranarray(X)):
        same = model(2, emission=APART, missing="at_random", random_state=0).fit(other)
        np.testing.assert_array_equal(same.predict_proba(other), q)
    frame = as_frame(np.where(np.isnan(X), 0, X))
    for d, name in enumerate(frame.columns):
        frame.named[name] = frame.named[name].astype(object)
        frame.named[name][np.isnan(X[:, d])] = None
    emission = [("gaussian", ["height", "weight"], {"covariance_type": "diag"}), *BY_NAME[1:]]
    named = model(2, emission=emission, missing="at_random", random_state=0).fit(frame)
    assert named.score(frame) == pytest.approx(first.score(X), rel=1e-6)
    told = model(2, emission="auto", missing="at_random", random_state=0).fit(frame)
    kinds = {part.columns[0]: part.emission for part in told.parts_}
    assert kinds == {
        "height": "gaussian", "weight": "gaussian", "wait": "gaussian",
        "visits": "poisson", "member": "bernoulli", "colour": "categorical",
    }  # fmt: skip


@models
def test_where_nothing_is_missing_all_is_as_without(model):
    X, _ = people()
    found = model(2, emission=APART, missing="at_random", random_state=0).fit(X)
    expected = model(2, emission=APART, random_state=0).fit(X)
    assert found.objective_ == pytest.approx(expected.objective_, abs=2e-3)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-2)
    alone = model(
        2, emission="poisson", missing="at_random", random_state=0, rate_prior=0.5, shape_prior=2.0
    ).fit(X[:, [1]])
    plain = model(2, emission="poisson", random_state=0, rate_prior=0.5, shape_prior=2.0)
    assert alone.objective_ == pytest.approx(plain.fit(X[:, [1]]).objective_, abs=2e-3)
    (part,) = alone.parts_
    np.testing.assert_allclose(np.sort(part.rates_, axis=0), np.sort(plain.rates_, axis=0), 1e-2)


@models
def test_a_part_of_spherical_covariance_misses_whole_rows_only(model):
    X, _ = people()
    X[:40, [0, 2]] = np.nan
    kinds = [("gaussian", [0, 2], {"covariance_type": "spherical"}), *KINDS[1:]]
    fitted = model(2, emission=kinds, missing="at_random", random_state=0).fit(X)
    assert fitted.parts_[0].covariances_.shape == (2,)
    if model is MixtureModel:
        joint = scores(fitted, X[40:]) + np.log(fitted.weights_)
        np.testing.assert_allclose(
            fitted.score_samples(X[40:]), logsumexp(joint, axis=1), rtol=1e-4
        )
    X[41, 2] = np.nan
    with pytest.raises(ValueError, match=r"X\[41, 2\] is missing and others of its part, .*0, 2"):
        fitted.predict(X)
    with pytest.raises(ValueError, match=r"X\[41, 2\] is missing and others"):
        fitted.fit(X)


def test_weights_are_repeated_rows_and_threads_leave_no_trace():
    X, _ = with_gaps(60)
    w = np.arange(60) % 3 + (np.arange(60) % 7 == 0)
    repeated = np.repeat(X, w, axis=0)
    made = {"emission": APART, "missing": "at_random", "random_state": 0}
    one = MixtureModel(2, **made).fit(X, sample_weight=w)
    two = MixtureModel(2, **made).fit(repeated)
    assert one.objective_ == pytest.approx(two.objective_, abs=0.01)
    assert one.bic(X, w) == pytest.approx(two.bic(repeated), abs=0.05)
    X, _ = with_gaps(3000)
    for model in (MixtureModel, HiddenMarkovModel):
        one, two = (model(2, n_threads=n, **made).fit(X) for n in (1, 2))
        assert one.objective_ == two.objective_
        np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


@models
def test_parameters_go_to_their_columns(model):
    X, _ = with_gaps()
    emission = [
        (
            "gaussian",
            [0, 2],
            {"covariance_type": "diag", "mean_prior": [1.0, -2.0], "covariance_prior": [2.0, 3.0]},
        ),
        ("poisson", [1], {"shape_prior": [2.0], "rate_prior": 0.5}),
        ("bernoulli", [4], {"concentration_prior": [1.0, 2.0]}),
        ("categorical", [3], {"categories": [0, 1, 2, 3, 4, 9]}),
    ]
    fitted = model(
        2, emission=emission, method="mean_field", missing="at_random", random_state=0
    ).fit(X)
    first, second, counts, ones, symbols = fitted.parts_
    assert (first.columns, second.columns) == ((0,), (2,))
    assert (first.mean_prior_, second.mean_prior_) == (1.0, -2.0)
    assert (first.covariance_prior_, second.covariance_prior_) == (2.0, 3.0)
    assert counts.shape_prior_ == 2.0
    np.testing.assert_array_equal(ones.concentration_prior_, [1.0, 2.0])
    assert symbols.probabilities_.shape == (2, 1, 6)


@models
def test_what_is_refused_leaves_the_fit_alone(model):
    X, _ = with_gaps()
    fitted = model(2, emission=APART, missing="at_random", random_state=0).fit(X)
    q = fitted.predict_proba(X)
    for column, value, message in [
        (0, np.inf, "infinity at row 3, column 0"),
        (1, 0.5, r"X\[3, 1\] is 0.5"),
        (4, 2.0, r"X\[3, 4\] is 2"),
        (5, -1.0, r"X\[3, 5\] is -1"),
        (3, 77.0, r"X\[3, 3\] is 77"),
    ]:
        bad = X.copy()
        bad[3, column] = value
        with pytest.raises(ValueError, match=message):
            fitted.predict(bad)
        if column != 3:
            with pytest.raises(ValueError, match=message):
                fitted.fit(bad)
    bad = X.copy()
    bad[:, 1] = np.nan
    with pytest.raises(ValueError, match="missing in every row"):
        fitted.fit(bad)
    np.testing.assert_array_equal(fitted.predict_proba(X), q)
    with pytest.raises(ValueError, match=r"NaN at row .*missing='at_random'"):
        model(2, emission=APART).fit(X)
    with pytest.raises(ValueError, match="missing must be one of 'error', 'at_random', not 3"):
        model(2, emission=APART, missing=3).fit(X)
    with pytest.raises(ValueError, match="means_init is not for missing='at_random'"):
        model(2, means_init=np.zeros((2, 6)), missing="at_random").fit(X)
    with pytest.raises(ValueError, match="of which nothing is missing"):
        vbfast.fit_many(model(2, missing="at_random"), [X])
    # What was fitted stays what it is, whatever is told since.
    fitted.set_params(missing="error", emission="poisson")
    np.testing.assert_array_equal(fitted.predict_proba(X), q)


def test_frames_of_numbers_alone():
    X, _ = with_gaps()
    frame = Frame({f"c{d}": X[:, d] for d in (0, 2)})
    mixture = MixtureModel(2, covariance_type="diag", missing="at_random", random_state=0).fit(
        frame
    )
    other = MixtureModel(2, covariance_type="diag", missing="at_random", random_state=0).fit(
        X[:, [0, 2]]
    )
    assert mixture.objective_ == other.objective_
    assert [part.columns for part in mixture.parts_] == [("c0",), ("c2",)]


class Nullable:
    """A column of whole numbers that is told as floats where one is missing."""

    def __init__(self, values, dtype):
        self.values, self.dtype = values, dtype

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)


class OfPandas:
    kind = "i"


class OfPolars:
    def is_integer(self):
        return True


@pytest.mark.parametrize("dtype", [OfPandas(), OfPolars()])
def test_whole_numbers_with_gaps_are_counts(dtype):
    counts = np.r_[np.random.default_rng(0).poisson(4, 30).astype(float), np.nan]

    class OneColumn:
        columns, shape = ("n",), (31, 1)

        def __getitem__(self, place):
            return Nullable(counts, dtype)

        def __array__(self, dtype=None, copy=None):
            return counts[:, None]

    mixture = MixtureModel(1, emission="auto", missing="at_random").fit(OneColumn())
    assert [part.emission for part in mixture.parts_] == ["poisson"]


def test_float32_rows_give_float32():
    X, _ = with_gaps()
    mixture = MixtureModel(2, emission=APART, missing="at_random", random_state=0).fit(X)
    rows = X.astype(np.float32)
    assert mixture.predict_proba(rows).dtype == np.float32
    assert mixture.score_samples(rows).dtype == np.float32


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("method", ["mean_field", METHODS[-1]])
def test_what_could_have_been_missing_changes_nothing(covariance_type, method):
    """Nor the priors that are taken where none are given, nor what is told of the posterior."""
    X = people()[0][:, [0, 2]]
    made = {"covariance_type": covariance_type, "method": method, "random_state": 0}
    plain = MixtureModel(1, **made).fit(X)
    other = MixtureModel(1, missing="at_random", **made).fit(X)
    if method == "mean_field":
        assert other.objective_ == pytest.approx(plain.objective_, rel=1e-6)
        for name in ("mean_precision_", "degrees_of_freedom_"):
            for part in other.parts_:
                assert getattr(part, name) == pytest.approx(getattr(plain, name))
    else:
        assert other.log_evidence_ == pytest.approx(plain.log_evidence_, abs=1e-6)


@models
@pytest.mark.parametrize("method", ["em", "variational_em", "crisp_em", "mean_field"])
@pytest.mark.parametrize("rate", [20, 400])
def test_a_column_that_one_group_never_has(model, method, rate):
    """Of its rows a part has 1e-37 seen, or none: neither says what the other group's rows do."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        seen = rng.normal(size=20)
        counts = np.r_[rng.poisson(1, 20), rng.poisson(rate, 20)]
        X = np.column_stack([np.r_[seen, np.full(20, np.nan)], counts])
        emission = [("gaussian", [0], {"reg_covar": 1e-2}), ("poisson", [1])]
        fitted = model(
            2, emission=emission, method=method, missing="at_random", random_state=seed
        ).fit(X)
        group = fitted.predict(X)
        assert len(set(group[:20])) == len(set(group[20:])) == 1
        gaussian = fitted.parts_[0]
        assert gaussian.means_[group[0], 0] == pytest.approx(seen.mean(), abs=0.1)
        assert gaussian.covariances_[group[0], 0] == pytest.approx(seen.var(), rel=0.5)


def test_spurious_is_what_few_seen_rows_are_close_to():
    """Of one component on rows that a column was seen of in one or two only."""
    rng = np.random.default_rng(0)
    for seed in range(6):
        X = np.column_stack([rng.normal(size=100), rng.poisson(5, 100)]).astype(float)
        X[rng.random(100) < 0.75, 0] = np.nan
        emission = [("gaussian", [0], {"reg_covar": 1e-9}), ("poisson", [1])]
        mixture = MixtureModel(3, emission=emission, missing="at_random", random_state=seed).fit(X)
        q = mixture.predict_proba(X)[~np.isnan(X[:, 0])].sum(axis=0)
        assert not np.any((q > 0.5) & (q < 3))


def test_masked_symbols():
    names = np.array([["a"], ["b"], ["c"]] * 5, dtype=object)
    for rows in (names, names.astype(str)):
        masked = np.ma.MaskedArray(rows, np.arange(15)[:, None] == 2)
        (part,) = MixtureModel(1, emission="categorical", missing="at_random").fit(masked).parts_
        assert list(part.categories_[0]) == ["a", "b", "c"]
        assert part.probabilities_[0, 0] == pytest.approx([5 / 14, 5 / 14, 4 / 14])
    counts = np.ma.MaskedArray(np.arange(15)[:, None] % 4, np.arange(15)[:, None] == 3)
    counts.data[3] = -999
    mixture = MixtureModel(1, emission="auto", missing="at_random").fit(counts)
    assert mixture.parts_[0].emission == "poisson"
    assert mixture.parts_[0].rates_ == pytest.approx(counts.mean())
