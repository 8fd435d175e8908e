"""Rows of which some values are missing, and Gaussians whose features are not independent."""

import pickle

import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

import vbfast
from vbfast import HiddenMarkovModel, MixtureModel
from vbfast._kernels.inputs import Assignment
from vbfast.conjugate import point, precision_factors
from vbfast.emissions.product import ProductParameters

models = pytest.mark.parametrize("model", [MixtureModel, HiddenMarkovModel])
types = pytest.mark.parametrize("covariance_type", ["full", "tied"])
METHODS = ["em", "mean_field", "variational_em", "crisp_em"]


def rows_with_gaps(n=240, d=4, k=2, share=0.25, seed=0, apart=4.0):
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(k, size=n))
    X = rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    X += apart * rng.standard_normal((k, d))[group]
    X[rng.random(X.shape) < share] = np.nan
    X[::29] = np.nan
    return X, group


def scores(model, X):
    """log p(what a row has | component), (N, K), from attributes."""
    (part,) = model.parts_
    k, d = part.means_.shape
    each = np.broadcast_to(part.covariances_, (k, d, d))
    return np.array(
        [[ref.completed(x, *theta)[0] for theta in zip(part.means_, each, strict=True)] for x in X]
    )


def air():
    return ref.load("airquality4")


def test_one_gaussian_of_air():
    model = MixtureModel(1, missing="at_random", reg_covar=0, tol=1e-13, max_iter=2000).fit(air())
    (part,) = model.parts_
    assert model.objective_ == pytest.approx(-2326.69738280, abs=1e-8)
    assert part.means_[0] == pytest.approx(
        [41.87117038, 184.84680635, 9.95751634, 77.88235294], rel=1e-6
    )
    lower = [
        1044.01844868, 942.52933552, 8090.70170236, -64.63594845, -17.33538214, 12.33041736,
        209.56342203, 238.07331710, -15.17231834, 89.00576701,
    ]  # fmt: skip
    assert part.covariances_[0][np.tril_indices(4)] == pytest.approx(lower, rel=1e-5)


def test_two_gaussians_of_air():
    X, reached = air(), 0
    for seed in range(20):
        model = MixtureModel(2, missing="at_random", reg_covar=0, random_state=seed).fit(X)
        reached += model.objective_ > -2273.516
        assert model.objective_ > -2274.345
    assert reached >= 10
    start = (X[:, 3] < 80).astype(int)
    emission = vbfast.Product([vbfast.Gaussian(4, missing=True)], [range(4)])
    data = emission.check(vbfast.ArrayData.of(X, standardise=False, missing=range(4)))
    mixture = vbfast.Model(vbfast.Mixture(2), emission)
    fit = vbfast.EM().fit(mixture, data, vbfast.starts.from_labels(mixture, data, start))
    assert fit.objective == pytest.approx(-2274.34126990, abs=1e-3)


def test_penguins_with_full_covariances():
    X = ref.load("penguins_mixed")[:, :6]
    emission = [("gaussian", [0, 1, 2, 3], {"reg_covar": 0}), ("categorical", [4, 5])]
    best = [
        MixtureModel(3, emission=emission, missing="at_random", random_state=seed).fit(X).objective_
        for seed in range(10)
    ]
    assert max(best) == pytest.approx(-5554.24735559, abs=1e-3)
    assert sum(each > -5554.249 for each in best) >= 8


def sweeps(case, covariance_type, prior, kind, read, n_sweeps):
    """Objectives and posteriors of sweeps by the package."""
    X, start = case
    weights, means, covariances = start
    k, d = means.shape
    more = {}
    if prior is not None:
        more = {
            "mean_prior": prior.m0, "mean_precision": prior.kappa0,
            "degrees_of_freedom": prior.nu0, "scatter": prior.S0,
        }  # fmt: skip
    gaussian = vbfast.Gaussian(d, covariance_type, missing=True, **more)
    emission = vbfast.Product([gaussian], [range(d)])
    data = emission.check(vbfast.ArrayData.of(X, standardise=False, missing=range(d)))
    alpha = None if prior is None else prior.alpha0
    model = vbfast.Model(vbfast.Mixture(k, concentration=alpha), emission)
    factors = precision_factors(covariances if covariance_type == "full" else covariances[None])
    theta = model.point(weights, ProductParameters((point(means, factors),)))
    out, more = [], 0.0
    for _ in range(n_sweeps + 1):
        found = data.sum(model.visit, theta, Assignment(kind))
        posterior = model.prior + found
        out.append((found["log_z"] + more, posterior))
        theta = getattr(model, read)(posterior)
        more = theta.log_prior
    return out


@types
@pytest.mark.parametrize(
    ("read", "kind", "proper"),
    [("mode", "exact", False), ("mode", "exact", True), ("mode", "hard", True),
     ("mean", "exact", True)],
)  # fmt: skip
def test_sweeps_are_those_of_plain_formulas(covariance_type, read, kind, proper):
    rng = np.random.default_rng(7)
    X, _ = rows_with_gaps(60, 3, apart=2.0)
    X = X[~np.isnan(X).all(axis=1)]
    root = rng.standard_normal((2, 3, 3))
    covariances = root @ np.swapaxes(root, 1, 2) + np.eye(3)
    if covariance_type == "tied":
        covariances = covariances[0]
    start = np.array([0.4, 0.6]), rng.standard_normal((2, 3)), covariances
    prior = ref.Prior(1.5, rng.standard_normal(3), 0.5, 6.0, np.eye(3)) if proper else None
    found = sweeps((X, start), covariance_type, prior, kind, read, 6)
    expected = ref.climb_with_gaps(X, start, covariance_type, prior, kind, read, n_sweeps=6)
    for n, ((objective, posterior), (other, own)) in enumerate(zip(found, expected, strict=True)):
        if n or not proper:
            assert objective == pytest.approx(other, rel=1e-11)
        assert posterior["0.mean"] == pytest.approx(own.m, rel=1e-9, abs=1e-10)
        S = own.S if covariance_type == "full" else own.S[None]
        assert posterior["0.scatter"] == pytest.approx(S, rel=1e-9, abs=1e-9)


@types
@models
@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_groups(model, covariance_type, method):
    X, group = rows_with_gaps()
    fitted = model(
        2, covariance_type=covariance_type, method=method, missing="at_random", random_state=0
    ).fit(X)
    labels = fitted.predict(X)
    seen = ~np.isnan(X).all(axis=1)
    assert max(np.mean(labels == group), np.mean(labels != group)) > 0.9
    assert np.all(np.diff(fitted.lower_bounds_) > -1e-9)
    assert fitted.predict_proba(X).sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    assert np.isfinite(fitted.score_samples(X)).all()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    if model is MixtureModel:
        assert fitted.score_samples(X[~seen]) == pytest.approx(0.0, abs=1e-12)
    if model is MixtureModel and method in ("em", "variational_em"):
        joint = scores(fitted, X) + np.log(fitted.weights_)
        total = logsumexp(joint, axis=1)
        assert fitted.score_samples(X) == pytest.approx(total, rel=1e-10, abs=1e-12)
        q = np.exp(joint - total[:, None])
        assert fitted.predict_proba(X) == pytest.approx(q, abs=1e-10)


@types
def test_chains_go_across_gaps(covariance_type):
    X, _ = rows_with_gaps(40, 3)
    lengths = [25, 15]
    chain = HiddenMarkovModel(
        2, covariance_type=covariance_type, missing="at_random", random_state=0
    ).fit(X, lengths=lengths)
    each = scores(chain, X)
    expected = sum(
        ref.precise_log_likelihood(part, chain.startprob_, chain.transmat_)
        for part in np.split(each, [25])
    )
    assert chain.score(X, lengths=lengths) == pytest.approx(expected, rel=1e-11)


@types
@pytest.mark.parametrize("method", ["em", "mean_field", "crisp_em"])
def test_weights_are_repeated_rows(covariance_type, method):
    X, _ = rows_with_gaps(80, 3)
    weights = np.random.default_rng(3).integers(1, 4, len(X))
    fits = [
        MixtureModel(
            1,
            covariance_type=covariance_type,
            method=method,
            missing="at_random",
            tol=1e-13,
            max_iter=3000,
        ).fit(rows, sample_weight=weight)
        for rows, weight in [(X, weights), (np.repeat(X, weights, axis=0), None)]
    ]
    assert fits[0].objective_ == pytest.approx(fits[1].objective_, rel=1e-9)
    assert fits[0].parts_[0].means_ == pytest.approx(fits[1].parts_[0].means_, rel=1e-6)


@types
def test_predictive_densities_are_marginal(covariance_type):
    """Of q(theta): Student's t of what a row has (Bishop B.68)."""
    X, _ = rows_with_gaps(80, 3)
    model = MixtureModel(
        1, covariance_type=covariance_type, method="mean_field", missing="at_random"
    ).fit(X)
    whole = np.random.default_rng(0).standard_normal((6, 3))
    q = model._answers.distribution.parts[0]
    frame = model._answers.emission.units
    dof = float(np.ravel(q.dof)[0]) + 1 - 3
    share = q.strength[0] / (1 + q.strength[0])
    shape = q.scatter[0] / (dof * share) / np.outer(frame.scale, frame.scale)
    centre = frame.origin + q.means[0] / frame.scale
    for absent in ([], [0], [1], [0, 2]):
        rows = whole.copy()
        rows[:, absent] = np.nan
        seen = np.setdiff1d(range(3), absent)
        t = stats.multivariate_t(centre[seen], shape[np.ix_(seen, seen)], df=dof)
        assert model.score_samples(rows) == pytest.approx(t.logpdf(rows[:, seen]), rel=1e-9)


@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
@pytest.mark.parametrize("method", ["em", "mean_field", vbfast.FullInference(n_draws=50)])
@pytest.mark.parametrize(
    ("emission", "parameters"),
    [("gaussian", {"covariance_type": kind}) for kind in ("full", "tied", "diag", "spherical")]
    + [(kind, {}) for kind in ("poisson", "exponential", "bernoulli", "categorical")],
)
def test_a_row_with_nothing_seen_has_density_1(method, emission, parameters):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (60, 2)).astype(float)
    if emission == "gaussian":
        X = rng.standard_normal((60, 2)) * [1e3, 1e-3]
    if parameters.get("covariance_type") == "spherical":
        X = 1e3 * rng.standard_normal((60, 2))
    X[::7] = np.nan
    model = MixtureModel(
        2, emission=emission, method=method, missing="at_random", random_state=0, **parameters
    ).fit(X)
    assert model.score_samples([[np.nan, np.nan]]) == pytest.approx(0.0, abs=1e-12)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_part_without_gaps_is_as_if_it_could_not_have_any(d, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((50, d)) @ rng.standard_normal((d, d))
    plain, other = (
        MixtureModel(1, missing=missing, reg_covar=1e-3).fit(X)
        for missing in ("error", "at_random")
    )
    assert other.objective_ == pytest.approx(plain.objective_, rel=1e-9, abs=1e-9)
    assert other.parts_[0].covariances_ == pytest.approx(plain.covariances_, rel=1e-7, abs=1e-10)


@types
def test_far_rows_and_collinear_columns(covariance_type):
    """Columns that are all but multiples of each other: what is said of a row keeps its digits."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(200)
    X = np.column_stack([x, 2 * x + 1e-4 * rng.standard_normal(200), rng.standard_normal(200)])
    X = 1e6 + X
    X[rng.random(X.shape) < 0.2] = np.nan
    model = MixtureModel(
        1, covariance_type=covariance_type, missing="at_random", reg_covar=0, tol=1e-9
    ).fit(X)
    rows = np.vstack([X, 1e6 + 1e3 * np.vstack([np.eye(3), [[1, np.nan, np.nan]]])])
    assert model.score_samples(rows) == pytest.approx(scores(model, rows)[:, 0], rel=1e-6, abs=1e-5)


def test_full_inference_says_that_it_can_not():
    X, _ = rows_with_gaps(40, 3)
    with pytest.raises(ValueError, match=r"is missing and others of its part.*full inference"):
        MixtureModel(2, method="full", missing="at_random").fit(X)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_independent_features_are_parts_of_their_own(covariance_type):
    with pytest.raises(ValueError, match="missing is for 'full' and 'tied'"):
        vbfast.Gaussian(2, covariance_type, missing=True)


def test_threads_leave_no_trace():
    X, _ = rows_with_gaps(3000, 5, 3)
    fits = [
        MixtureModel(3, missing="at_random", random_state=0, n_threads=n).fit(X) for n in (1, 2, 5)
    ]
    for one in fits[1:]:
        np.testing.assert_array_equal(one.parts_[0].covariances_, fits[0].parts_[0].covariances_)
        np.testing.assert_array_equal(one.score_samples(X), fits[0].score_samples(X))


@pytest.mark.parametrize("block", [8, 16, 32])
def test_rows_without_gaps_between_others(block):
    """What was found for the gaps before is no matter of rows that have none."""
    X, _ = rows_with_gaps(300, 4, share=0.3)
    mixture = MixtureModel(2, missing="at_random", random_state=0).fit(X)
    rows = np.random.default_rng(1).standard_normal((12 * block, 4))
    at = np.arange(len(rows))
    gaps = (at // block % 3 == 0) | (at // block % 3 == 2) & (at % block >= block // 4)
    rows[gaps, 1] = np.nan
    rows[gaps & (at % 2 == 0), 3] = np.nan
    expected = logsumexp(scores(mixture, rows) + np.log(mixture.weights_), axis=1)
    assert mixture.score_samples(rows) == pytest.approx(expected, rel=1e-10)
