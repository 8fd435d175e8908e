"""Filling in what is missing: expectations, and draws."""

import numpy as np
import pytest
import reference as ref
from test_missing import METHODS, with_gaps
from test_mixed import KINDS

import vbfast
from vbfast import HiddenMarkovModel, MixtureModel

models = pytest.mark.parametrize("model", [MixtureModel, HiddenMarkovModel])
pytestmark = pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")


def expectation(part, k, column, x):
    """E[x_d | what is seen of the part's columns, component k]."""
    if part.emission == "gaussian":
        covariance = part.covariances_[k] if part.covariances_.ndim == 3 else part.covariances_
        if covariance.shape != (len(x), len(x)):
            return part.means_[k, column]
        return ref.completed(x, part.means_[k], covariance)[1][column]
    rate = part.rates_[k, column]
    return rate if part.emission == "poisson" else 1 / rate


@models
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_expectations_are_averages_over_components(model, method):
    X, _ = with_gaps(120)
    if method is METHODS[-1]:  # which takes all columns of the part or none
        X[np.isnan(X[:, [0, 2]]).any(axis=1)[:, None] & np.isin(np.arange(6), [0, 2])] = np.nan
    fitted = model(2, emission=KINDS, method=method, missing="at_random", random_state=0).fit(X)
    q, filled = fitted.predict_proba(X), fitted.impute(X)
    seen = ~np.isnan(X)
    np.testing.assert_array_equal(filled[seen], X[seen])
    assert not np.isnan(filled).any()
    for n in range(len(X)):
        for part in fitted.parts_:
            x = X[n, list(part.columns)]
            for place, column in enumerate(part.columns):
                if seen[n, column]:
                    continue
                if part.emission == "categorical":
                    each = q[n] @ part.probabilities_[:, place]
                    assert filled[n, column] == part.categories_[place][each.argmax()]
                elif part.emission == "bernoulli":
                    assert filled[n, column] == (q[n] @ part.probabilities_[:, place] > 0.5)
                else:
                    each = [expectation(part, k, place, x) for k in range(2)]
                    assert filled[n, column] == pytest.approx(q[n] @ each, rel=1e-7, abs=1e-9)


@models
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_draws_have_the_moments_of_what_is_missing(model, covariance_type):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 3)) + 5
    if covariance_type == "spherical":
        X[:7] = np.nan
    else:
        X[:7, 0] = X[3:9, 2] = np.nan
    fitted = model(1, covariance_type=covariance_type, missing="at_random").fit(X)
    drawn = fitted.impute(X, draws=4000, random_state=1)
    filled = fitted.impute(X)
    np.testing.assert_array_equal(drawn, fitted.impute(X, draws=4000, random_state=1))
    assert drawn.shape == (4000, 60, 3)
    assert drawn.mean(axis=0) == pytest.approx(filled, abs=0.25)
    if covariance_type in ("full", "tied"):
        (part,) = fitted.parts_
        spread = np.reshape(part.covariances_, (3, 3))
        for row in (0, 4, 8):
            _, _, expected = ref.completed(X[row], part.means_[0], spread)
            scale = np.sqrt(np.outer(np.diag(spread), np.diag(spread)))
            found = np.cov(drawn[:, row].T)
            assert np.all(np.abs(found - expected) < 0.12 * scale)


def test_draws_of_components():
    """Of a row with nothing seen a mixture of both groups; in a chain what its neighbours say."""
    X = np.r_[np.zeros(40), np.full(40, 9.0)][:, None] + 0.1 * np.arange(80)[:, None] % 1
    X[[10, 60]] = np.nan
    mixture = MixtureModel(2, missing="at_random", random_state=0).fit(X)
    drawn = mixture.impute(X, draws=2000, random_state=0)[:, [10, 60], 0]
    assert (drawn > 5).mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.05)
    chain = HiddenMarkovModel(2, missing="at_random", random_state=0).fit(X)
    drawn = chain.impute(X, draws=200, random_state=0)[:, [10, 60], 0]
    assert (drawn > 5).mean(axis=0) == pytest.approx([0.0, 1.0], abs=0.02)


@models
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_draws_by_every_method(model, method):
    X, _ = with_gaps(150)
    emission = [("gaussian", [0, 2], {"covariance_type": "diag"}), *KINDS[1:]]
    fitted = model(2, emission=emission, method=method, missing="at_random", random_state=0).fit(X)
    drawn = fitted.impute(X, draws=40)
    assert drawn.shape == (40, 150, 6)
    seen = ~np.isnan(X)
    np.testing.assert_array_equal(drawn[:, seen], np.broadcast_to(X[seen], (40, seen.sum())))
    assert np.isfinite(drawn).all()
    assert np.all(drawn[..., 1] == np.floor(drawn[..., 1]))
    assert set(np.unique(drawn[..., 4])) <= {0.0, 1.0}
    means = np.nanmean(X, axis=0)
    assert drawn.mean(axis=(0, 1)) == pytest.approx(means, abs=0.35 * np.nanstd(X, axis=0).max())


def test_strings():
    names = np.array(
        [["a", 1.0], ["b", 2.0], [None, 1.1], ["b", None], ["a", 0.9]] * 8, dtype=object
    )
    emission = [("categorical", [0]), ("gaussian", [1])]
    mixture = MixtureModel(2, emission=emission, missing="at_random", random_state=0).fit(names)
    filled = mixture.impute(names)
    assert filled.dtype == object
    assert set(filled[:, 0]) == {"a", "b"}
    assert filled[3, 1] == pytest.approx(2.0, abs=0.1)


def test_columns_in_no_part_stay_as_they_are():
    X, _ = with_gaps(60)
    X[np.isnan(X[:, 5]), 5] = 3.0
    mixture = MixtureModel(
        2, emission=[("gaussian", [0, 2])], missing="at_random", random_state=0
    ).fit(X)
    filled = mixture.impute(X)
    np.testing.assert_array_equal(filled[:, [1, 3, 4, 5]], X[:, [1, 3, 4, 5]])
    assert not np.isnan(filled[:, [0, 2]]).any()


@models
def test_what_can_not_be_imputed_is_refused(model):
    X = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(ValueError, match="missing='at_random'"):
        model(1).fit(X).impute(X)
    fitted = model(1, missing="at_random").fit(X)
    for draws in (0, 1.5, "a"):
        with pytest.raises((TypeError, ValueError), match="draws must be"):
            fitted.impute(X, draws=draws)
    with pytest.raises(vbfast.NotFittedError):
        model(1, missing="at_random").impute(X)
