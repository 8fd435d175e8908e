"""Rows of which some components are known."""

import itertools
import pickle

import numpy as np
import pytest
import reference as ref
from scipy.special import logsumexp
from scipy.stats import norm, poisson

import vbfast
from vbfast import BayesianGaussianMixture, GaussianMixture, HiddenMarkovModel, MixtureModel

METHODS = ["em", "mean_field", "variational_em", "crisp_em"]
FULL = vbfast.FullInference(n_draws=200, n_tune=100, n_chains=2)
pytestmark = pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")


def groups(n=240, k=3, share=0.15, seed=0, d=2, apart=3.0):
    """Rows of groups in an order that no start would find, and labels of some."""
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(k, size=n))
    means = apart * rng.permutation(np.arange(k))[:, None] * np.ones(d)
    X = means[group] + rng.standard_normal((n, d))
    labels = np.where(rng.random(n) < share, group, -1)
    return X, group, labels


def models(method, random_state=0):
    for covariance_type in ("full", "tied", "diag", "spherical"):
        yield MixtureModel(
            3, covariance_type=covariance_type, method=method, random_state=random_state
        )
        yield HiddenMarkovModel(
            3, covariance_type=covariance_type, method=method, random_state=random_state
        )
    yield GaussianMixture(3, method=method, random_state=random_state)
    yield BayesianGaussianMixture(3, method=method, random_state=random_state)
    yield MixtureModel(3, missing="at_random", method=method, random_state=random_state)


@pytest.mark.parametrize("method", [*METHODS, FULL])
def test_components_are_those_of_their_numbers(method):
    X, group, labels = groups()
    for model in models(method):
        found = model.fit(X, labels=labels).predict(X)
        assert np.mean(found == group) > 0.9
        assert np.isfinite(model.objective_)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict(X), found)


@pytest.mark.parametrize("init", ["auto", "kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("emission", ["gaussian", "poisson", "categorical", "exponential"])
def test_from_every_start(init, emission):
    X, group, labels = groups(share=0.3, apart=4.0)
    if emission != "gaussian":
        X = np.exp(0.4 * (X - X.min())) if emission == "exponential" else np.round(X - X.min())
    for model in (MixtureModel, HiddenMarkovModel):
        fitted = model(3, emission=emission, init_params=init, random_state=0)
        fitted.fit(X, labels=labels)
        assert np.mean(fitted.predict(X) == group) > (0.8 if emission == "exponential" else 0.9)


def test_all_known_is_the_maximum_in_closed_form():
    X, group, _ = groups()
    mixture = GaussianMixture(3, reg_covar=0).fit(X, labels=group)
    for k in range(3):
        rows = X[group == k]
        assert mixture.weights_[k] == pytest.approx(len(rows) / len(X))
        assert mixture.means_[k] == pytest.approx(rows.mean(axis=0))
        assert mixture.covariances_[k] == pytest.approx(np.cov(rows.T, bias=True))
    chain = HiddenMarkovModel(3, reg_covar=0, covariance_type="full").fit(X, labels=group)
    steps = np.zeros((3, 3))
    np.add.at(steps, (group[:-1], group[1:]), 1)
    assert chain.transmat_ == pytest.approx(steps / steps.sum(axis=1, keepdims=True), abs=1e-6)
    assert chain.means_ == pytest.approx(mixture.means_)


@pytest.mark.parametrize("method", ["em", "crisp_em"])
def test_the_objective_is_of_rows_and_labels(method):
    """log p(X, labels): a row whose component is known has that one's share alone."""
    X, _, labels = groups(60, 2)
    mixture = MixtureModel(
        2, covariance_type="diag", reg_covar=0, method=method, tol=1e-12, max_iter=5000,
        random_state=0,
    ).fit(X, labels=labels)  # fmt: skip
    each = norm.logpdf(X[:, None], mixture.means_, np.sqrt(mixture.covariances_)).sum(axis=2)
    each += np.log(mixture.weights_)
    known = labels >= 0
    each[known[:, None] & (np.arange(2) != labels[:, None])] = -np.inf
    total = logsumexp(each, axis=1) if method == "em" else each.max(axis=1)
    assert mixture.objective_ == pytest.approx(total.sum(), rel=1e-9)
    q = np.exp(each - logsumexp(each, axis=1, keepdims=True))
    if method == "em":  # a fixed point of EM
        assert mixture.weights_ == pytest.approx(q.mean(axis=0), abs=1e-5)
        assert mixture.means_ == pytest.approx(q.T @ X / q.sum(axis=0)[:, None], abs=1e-4)


def test_the_objective_of_a_chain_is_a_sum_over_the_paths_that_labels_leave():
    rng = np.random.default_rng(0)
    X = rng.poisson([[2], [2], [9], [9], [2], [9], [9], [2]])
    labels = np.array([-1, 1, -1, -1, 1, -1, 0, -1])
    chain = HiddenMarkovModel(
        2, emission="poisson", tol=1e-13, max_iter=10_000, random_state=0
    ).fit(X, lengths=[5, 3], labels=labels)
    each = poisson.logpmf(X, chain.rates_[:, 0])
    total = 0.0
    with np.errstate(divide="ignore"):
        start, moves = np.log(chain.startprob_), np.log(chain.transmat_)
    for rows in (slice(0, 5), slice(5, 8)):
        values = []
        for path in itertools.product(range(2), repeat=rows.stop - rows.start):
            known = labels[rows]
            if np.all((known < 0) | (known == path)):
                path = list(path)
                values.append(
                    start[path[0]] + moves[path[:-1], path[1:]].sum()
                    + each[rows][range(len(path)), path].sum()
                )  # fmt: skip
        total += logsumexp(values)
    assert chain.objective_ == pytest.approx(total, abs=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_objectives_never_fall(method):
    X, _, labels = groups(150, share=0.4, apart=1.0)
    for model in models(method):
        bounds = model.set_params(init_params="random").fit(X, labels=labels).lower_bounds_
        assert np.all(np.diff(bounds) > -1e-9)


def test_draws_keep_what_is_known():
    X, group, labels = groups(share=0.3)
    mixture = GaussianMixture(3, method=FULL, random_state=0).fit(X, labels=labels)
    assert np.isnan(mixture.log_evidence_)
    means = [X[group == k].mean(axis=0) for k in range(3)]
    assert mixture.draws_["means"].mean(axis=(0, 1)) == pytest.approx(np.array(means), abs=0.3)
    assert mixture.draws_["means"].std(axis=(0, 1)).max() < 0.3


def test_few_known_rows_among_many():
    """Where starts are sought in a part of the rows, which may miss all that are known."""
    X, group, _ = groups(60_000, apart=5.0)
    labels = np.full(len(X), -1)
    for k in range(3):
        labels[np.flatnonzero(group == k)[:2]] = k
    for model in (GaussianMixture(3, random_state=0), HiddenMarkovModel(3, random_state=0)):
        assert np.mean(model.fit(X, labels=labels).predict(X) == group) > 0.98


def test_weights_gaps_and_threads():
    X, _, labels = groups(2000)
    weights = np.arange(2000) % 3
    fits = [
        MixtureModel(3, random_state=0, n_threads=n).fit(X, None, weights, labels=labels)
        for n in (1, 2)
    ]
    assert fits[0].objective_ == fits[1].objective_
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    mixture = MixtureModel(3, missing="at_random", random_state=0).fit(X, labels=labels)
    part = mixture.parts_[0]
    scores = np.array(
        [[ref.completed(x, *theta)[0] for theta in zip(part.means_, part.covariances_, strict=True)]
         for x in X]
    ) + np.log(mixture.weights_)  # fmt: skip
    scores[(labels >= 0)[:, None] & (np.arange(3) != labels[:, None])] = -np.inf
    assert mixture.objective_ == pytest.approx(logsumexp(scores, axis=1).sum(), rel=1e-5)


@pytest.mark.parametrize(
    "labels", [np.full(240, -1), np.full(240, np.nan), [None] * 240, None], ids=repr
)
def test_nothing_known_is_as_if_nothing_were_told(labels):
    X, _, _ = groups()
    for model in (GaussianMixture, HiddenMarkovModel):
        plain, other = (model(3, random_state=0).fit(X, labels=told) for told in (None, labels))
        assert plain.objective_ == other.objective_


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.full(239, 0), ValueError, r"labels must have shape \(240,\).*\(239,\)"),
        (np.full((240, 1), 0), ValueError, "labels must have shape"),
        (np.r_[np.zeros(239), 3], ValueError, r"labels\[239\] is 3; 0 to 2, and -1 or NaN"),
        (np.r_[np.zeros(239), -2], ValueError, r"labels\[239\] is -2"),
        (np.r_[np.zeros(239), 0.5], ValueError, r"labels\[239\] is 0.5"),
        (np.r_[np.zeros(239), np.inf], ValueError, r"labels\[239\] is inf"),
        (["a"] * 240, TypeError, "labels must be integers"),
        (3, ValueError, "labels must have shape"),
    ],
)
def test_what_are_no_labels_is_refused(labels, error, message):
    X, _, _ = groups()
    for model in (GaussianMixture(3), MixtureModel(3), HiddenMarkovModel(3)):
        with pytest.raises(error, match=message):
            model.fit(X, labels=labels)
        assert not hasattr(model, "means_")


def test_a_known_state_that_zeros_make_impossible():
    X = np.arange(4.0)[:, None]
    chain = HiddenMarkovModel(2, transmat_init=[[0.5, 0.5], [0, 1]], random_state=0)
    with pytest.raises(vbfast.ImpossibleRowError):
        chain.fit(X, labels=[1, 0, -1, -1])
