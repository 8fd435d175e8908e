"""The methods: monotone, equal to the plain references, equal to each other where they must be."""

import dataclasses
import functools
import itertools
import pickle

import numpy as np
import pytest
import reference as ref
from conftest import CHAINS, DISCRETE, MIXTURES, DiscreteRow, raw_parameters
from scipy.special import logsumexp

import vbfast
from vbfast import CrispEM, methods, starts
from vbfast._kernels.inputs import Assignment
from vbfast.exceptions import DegenerateError, ImpossibleRowError

# Methods by plain updates, and the reference that has their objective from the same labels.
EM = functools.partial(vbfast.EM, acceleration=None)
MeanField = functools.partial(vbfast.MeanField, acceleration=None)
VariationalEM = functools.partial(vbfast.VariationalEM, acceleration=None)
METHODS = {
    "em": (EM, lambda *args, **kw: ref.em(*args, **kw)),
    "mean_field": (MeanField, lambda *args, **kw: ref.mean_field(*args, **kw)),
    "variational_em": (
        lambda **kw: VariationalEM(truncation=2, **kw),
        lambda X, q0, kind, prior, **kw: ref.truncated_em(
            X, q0, kind, min(2, q0.shape[1]), prior, **kw
        ),
    ),
    "crisp_em": (CrispEM, lambda *args, **kw: ref.crisp_em(*args, **kw)),
}
REFERENCE_SWEEPS = 6

models = pytest.mark.parametrize("row", MIXTURES, ids=str)
proper_models = pytest.mark.parametrize("row", [r for r in MIXTURES if r.proper], ids=str)


def allowed(method, row):
    """Mean field needs proper priors."""
    return method != "mean_field" or row.proper


def random_problem(rng, row):
    """Rows of some clusters, weights or none, labels."""
    d, k = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    n = int(rng.integers(12 * k, 70 + 12 * k))
    centres = rng.uniform(0, 4) * rng.standard_normal((k, d))
    X = centres[rng.integers(k, size=n)] + rng.standard_normal((n, d))
    X = X * rng.uniform(0.5, 2, d) + rng.uniform(-3, 3, d)
    weights = [None, rng.uniform(0, 2, n) * (rng.random(n) > 0.1), rng.integers(0, 3, n)][
        rng.integers(3)
    ]
    if weights is not None:
        weights = np.asarray(weights, float)
        weights[: 2 * k] = 1.0
    labels = rng.integers(k, size=n)
    labels[: 2 * k] = np.arange(2 * k) % k
    return X, weights, labels, k


def fit(row, X, weights, labels, k, method, reg_covar=0.0):
    """Return the trace of a fit from labels, and the fit, None where it met a singularity."""
    data = row.data(X, weights)
    model = row.model(k, X.shape[1], data.frame, reg_covar)
    trace = []
    start = starts.from_labels(model, data, labels)
    try:
        fitted = method.fit(model, data, start, report=lambda n, value: trace.append(value))
    except DegenerateError:
        return np.array(trace), None
    np.testing.assert_array_equal(fitted.objectives, trace)
    return fitted.objectives, fitted


def assert_climbs(trace, weight):
    if len(trace) > 1:
        size = np.maximum(np.abs(trace[1:]), weight)
        assert np.min(np.diff(trace) / size) >= -1e-10


N_FITS = 1000
CASES = [(method, row) for row in MIXTURES for method in METHODS if allowed(method, row)]


@pytest.mark.parametrize(("method", "row"), CASES, ids=lambda case: str(case))
def test_random_fits_climb_and_agree_with_reference(method, row):
    """1000 fits over all cases; ObjectiveFellWarning is an error, as every warning is."""
    make, reference = METHODS[method]
    rng = np.random.default_rng([CASES.index((method, row)), 1])
    n_fits = -(-N_FITS // len(CASES))
    n_degenerate = n_compared = 0
    for number in range(n_fits):
        X, weights, labels, k = random_problem(rng, row)
        reg_covar = 0.0 if number % 2 else 10.0 ** rng.uniform(-6, -1)
        trace, fitted = fit(row, X, weights, labels, k, make(max_iter=40, tol=0), reg_covar)
        total = len(X) if weights is None else weights.sum()
        assert np.isfinite(trace).all()
        assert_climbs(trace, total)
        n_degenerate += fitted is None
        if reg_covar or row.prior in ("partial", "independent"):
            continue
        q0 = ref.one_hot(labels, k)
        n = min(REFERENCE_SWEEPS, len(trace))
        try:
            expected = reference(
                X, q0, row.covariance_type, row.reference(X.shape[1]),
                n_sweeps=n, sample_weight=weights,
            )  # fmt: skip
        except (ZeroDivisionError, np.linalg.LinAlgError):
            assert row.prior == "flat"  # a component went empty, or shrank onto a point
            continue
        n_compared += 1
        found = trace[: len(expected["trace"])]
        size = np.maximum(np.abs(expected["trace"]), total)
        assert np.all(np.abs(found - expected["trace"]) <= 1e-9 * size)
    assert n_compared or row.prior in ("partial", "independent")
    assert n_degenerate == 0 or (row.prior == "flat" and n_degenerate < n_fits / 2)


@models
@pytest.mark.parametrize("method", ["em", "variational_em", "crisp_em"])
def test_objective_is_that_of_the_point_it_ends_in(row, method):
    """log p(X | theta) + log p(theta) in the units of the data, by plain formulas."""
    rng = np.random.default_rng(3)
    d, k, n = 3, 3, 90
    X = 5 * rng.standard_normal((k, d))[rng.integers(k, size=n)] + rng.standard_normal((n, d))
    X = X * [1.0, 0.3, 4.0] + 20
    labels = np.arange(n) % k
    _, fitted = fit(row, X, None, labels, k, METHODS[method][0](max_iter=7, tol=0))
    if row.prior == "partial":
        return  # its improper density has no constant to compare with
    theta = raw_parameters(row, fitted.theta, row.data(X).frame)
    kind, truncation = {"em": ("exact", None), "variational_em": ("best", 2),
                        "crisp_em": ("hard", None)}[method]  # fmt: skip
    scores = ref.gaussian_scores(X, *theta, row.covariance_type)
    log_z, _ = ref.assign(scores, kind, truncation)
    expected = log_z.sum() + row.log_prior(*theta)
    assert fitted.objective == pytest.approx(expected, rel=1e-10)


@models
def test_variational_em_with_all_components_is_em(row):
    rng = np.random.default_rng(4)
    X, weights, labels, k = random_problem(rng, row)
    while k < 3:
        X, weights, labels, k = random_problem(rng, row)
    exact, _ = fit(row, X, weights, labels, k, EM(max_iter=30, tol=0))
    for truncation in (k, k + 5, None):
        method = VariationalEM(max_iter=30, tol=0, truncation=truncation)
        restricted, _ = fit(row, X, weights, labels, k, method)
        np.testing.assert_allclose(restricted, exact, rtol=1e-12)
    one, _ = fit(row, X, weights, labels, k, VariationalEM(max_iter=30, tol=0, truncation=1))
    crisp, _ = fit(row, X, weights, labels, k, CrispEM(max_iter=30, tol=0))
    np.testing.assert_allclose(one, crisp, rtol=1e-12)
    # The larger the family of q(T), the higher the bound at the same theta.
    two, _ = fit(row, X, weights, labels, k, VariationalEM(max_iter=1, tol=0, truncation=2))
    assert crisp[0] <= two[0] <= exact[0]


@pytest.mark.parametrize("row", [r for r in MIXTURES if r.prior == "flat"], ids=str)
def test_em_with_flat_prior_is_maximum_likelihood(row):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 3)) + 7
    # One component: sample mean and covariance.
    _, fitted = fit(row, X, None, np.zeros(50, dtype=int), 1, EM())
    weights, means, covariances = raw_parameters(row, fitted.theta, row.data(X).frame)
    full = np.cov(X.T, bias=True)
    expected = {
        "full": full, "tied": full, "diag": np.diag(full), "spherical": np.trace(full) / 3,
    }[row.covariance_type]  # fmt: skip
    assert weights == pytest.approx(1)
    np.testing.assert_allclose(means[0], X.mean(axis=0))
    np.testing.assert_allclose(np.reshape(covariances, np.shape(expected)), expected)
    # Two: the likelihood has no slope there, with weights too.
    X = rng.standard_normal((50, 3)) + 7
    X[:25] += 8
    weight = rng.integers(1, 4, 50).astype(float)
    labels = (np.arange(50) < 25).astype(int)
    _, fitted = fit(row, X, weight, labels, 2, vbfast.EM(max_iter=5000, tol=0))
    assert_local_maximum(row, X, weight, fitted, rng)


@models
def test_theta_mp_beats_its_neighbours(row):
    rng = np.random.default_rng(6)
    X = rng.standard_normal((60, 2)) + 4 * np.array([[0, 0], [1, 0], [0, 1]])[np.arange(60) % 3]
    labels = np.arange(60) % 3
    _, fitted = fit(row, X, None, labels, 3, vbfast.EM(max_iter=20_000, tol=0))
    assert_local_maximum(row, X, np.ones(60), fitted, rng)


def assert_local_maximum(row, X, weight, fitted, rng):
    """theta is a maximum of log p(X | theta) + log p(theta): no neighbour is higher, no slope."""

    def objective(weights, means, covariances):
        scores = ref.gaussian_scores(X, weights, means, covariances, row.covariance_type)
        value = weight @ logsumexp(scores, axis=1)
        if row.prior == "partial":
            return value + log_prior_of_covariances(row, covariances, X.shape[1])
        return value + row.log_prior(weights, means, covariances)

    theta = raw_parameters(row, fitted.theta, row.data(X, weight).frame)
    best = objective(*theta)
    k, d = theta[1].shape
    for _ in range(40):
        d_logit, d_means = rng.standard_normal(k), rng.standard_normal((k, d))
        shape = np.shape(theta[2])
        d_covariance = rng.standard_normal(shape)
        if row.covariance_type in ("full", "tied"):
            d_covariance = 0.2 * (d_covariance + np.swapaxes(d_covariance, -1, -2))
            d_covariance = d_covariance * np.abs(theta[2]).max()
        else:
            d_covariance = 0.5 * d_covariance * theta[2]
        near = []
        for step in (1e-3, -1e-3):
            # Weights and precisions are moved as such: the mode depends on what is flat.
            weights = theta[0] + step * theta[0] * (d_logit - d_logit @ theta[0])
            near.append(
                objective(weights, theta[1] + step * d_means, theta[2] + step * d_covariance)
            )
        assert max(near) < best
        assert abs(near[0] - near[1]) < 0.05 * (best - min(near))


def log_prior_of_covariances(row, covariances, d):
    """Log density of "partial" up to a constant: flat in the means, given them flat in nothing.

    Normal-Wishart of strength 0: |Lambda|^((nu - D - 1 + J)/2) exp(-tr(S Lambda)/2).
    """
    _, _, dof, scatter = row.hyperparameters(d)
    value = 0.0
    if row.covariance_type in ("full", "tied"):
        tied = row.covariance_type == "tied"
        for covariance in [covariances] if tied else covariances:
            precision = np.linalg.inv(covariance)
            power = dof - d - 1 + (row_means(row) if tied else 1)
            value += (power * ref.log_det(precision) - np.trace(scatter @ precision)) / 2
    elif row.covariance_type == "diag":
        value += (-(dof - 1) * np.log(covariances) - scatter / covariances).sum() / 2
    else:
        value += (-(d * dof - 2 + d) * np.log(covariances) - d * scatter / covariances).sum() / 2
    return value


def row_means(row):
    """Means on one precision where tied: the components of test_theta_mp_beats_its_neighbours."""
    return 3


# Stopping ----------------------------------------------------------------------------------------


def overlapping(n=200):
    rng = np.random.default_rng(7)
    X = rng.standard_normal((n, 2)) + 1.5 * (np.arange(n) % 2)[:, None]
    return X, np.arange(n) // 3 % 2


@pytest.mark.parametrize("method", METHODS)
def test_stopping(method):
    make = METHODS[method][0]
    row = next(r for r in MIXTURES if r.prior == "conjugate")
    X, labels = overlapping()
    total = len(X)
    trace, fitted = fit(row, X, None, labels, 2, make(max_iter=1, tol=0))
    assert (fitted.n_iter, len(trace), fitted.converged) == (1, 2, False)
    # One gain doesn't tell whether gains grow.
    trace, fitted = fit(row, X, None, labels, 2, make(max_iter=100, tol=1e6))
    assert (fitted.n_iter, len(trace), fitted.converged) == (2, 3, True)
    long, _ = fit(row, X, None, labels, 2, make(max_iter=3000, tol=0))
    for tol in (1e-2, 1e-4, 1e-6):
        trace, fitted = fit(row, X, None, labels, 2, make(max_iter=3000, tol=tol))
        assert fitted.converged
        assert fitted.n_iter == len(trace) - 1
        steps = np.abs(np.diff(trace)) / total
        assert steps[-1] <= tol
        # It ends with the first small step that is smaller than the one before.
        ends = (steps[1:] <= tol) & (steps[1:] < steps[:-1])
        assert np.flatnonzero(ends)[0] == len(ends) - 1
        np.testing.assert_array_equal(trace, long[: len(trace)])
    # Per row: the same rows thrice, or of weight 3, stop after as many sweeps (flat priors).
    flat = next(r for r in MIXTURES if r.prior == "flat")
    if method != "mean_field":
        options = make(max_iter=3000, tol=1e-5)
        once, _ = fit(flat, X, None, labels, 2, options)
        thrice, _ = fit(flat, np.tile(X, (3, 1)), None, np.tile(labels, 3), 2, options)
        heavy, _ = fit(flat, X, np.full(total, 3.0), labels, 2, options)
        np.testing.assert_allclose(thrice, 3 * once, rtol=1e-12)
        np.testing.assert_allclose(heavy, 3 * once, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", MIXTURES, ids=str)
def test_whole_weights_are_repeated_rows(method, row):
    if not allowed(method, row):
        return
    make = METHODS[method][0]
    rng = np.random.default_rng(8)
    X = rng.standard_normal((40, 2)) + 3 * (np.arange(40) % 2)[:, None]
    labels = np.arange(40) // 5 % 2
    counts = rng.integers(0, 4, 40)
    counts[:4] = 1
    weighted, a = fit(row, X, counts.astype(float), labels, 2, make(max_iter=10, tol=0))
    repeated, b = fit(
        row, np.repeat(X, counts, axis=0), None, np.repeat(labels, counts), 2,
        make(max_iter=10, tol=0),
    )  # fmt: skip
    n = min(len(weighted), len(repeated))  # rounding says when a change is exactly 0
    np.testing.assert_allclose(weighted[:n], repeated[:n], rtol=1e-11)
    np.testing.assert_allclose(a.posterior.buffer, b.posterior.buffer, rtol=1e-7, atol=1e-9)


def test_method_parameters_are_checked():
    for make in (EM, MeanField, VariationalEM, CrispEM):
        with pytest.raises(ValueError, match="max_iter"):
            make(max_iter=-1)
        for bad in (1.5, "10", True, None):
            with pytest.raises(TypeError, match="max_iter"):
                make(max_iter=bad)
        for bad in (-1e-3, np.inf, np.nan):
            with pytest.raises(ValueError, match="tol"):
                make(tol=bad)
        with pytest.raises(TypeError, match="tol"):
            make(tol="small")
    with pytest.raises(ValueError, match="truncation"):
        VariationalEM(truncation=0)
    with pytest.raises(TypeError, match="truncation"):
        VariationalEM(truncation=1.0)
    for name, bad in [("n_draws", 0), ("n_tune", -1), ("n_chains", 0), ("thin", 0)]:
        with pytest.raises(ValueError, match=name):
            vbfast.FullInference(**{name: bad})


# The loop is the user's --------------------------------------------------------------------------


def test_own_loop_reproduces_em():
    X, labels = overlapping()
    row = next(r for r in MIXTURES if r.prior == "flat")
    data = row.data(X)
    model = row.model(2, 2, data.frame)
    start = starts.from_labels(model, data, labels)
    method = EM(max_iter=25, tol=0)
    fitted = method.fit(model, data, start)
    trace = []
    for sweep in vbfast.sweeps(model, data, start, model.mode, method.assign):
        trace.append(sweep.objective)
        if len(trace) == 26:
            break
    np.testing.assert_array_equal(trace, fitted.objectives)
    assert sweep.posterior.buffer.tobytes() == fitted.posterior.buffer.tobytes()
    # Stochastic EM, "mode" + "draw", comes for nothing.
    stochastic = vbfast.sweeps(
        model, data, start, model.mode,
        lambda n: methods.Assignment("draw", seed=1, sweep=n),
    )  # fmt: skip
    for _ in range(20):
        last = next(stochastic)
    assert np.isfinite(last.objective)


@proper_models
def test_memoized_sum_is_the_sum(row):
    """Statistics of halves of the data, visited apart, add up to those of the whole."""
    X, labels = overlapping(101)
    data = row.data(X)
    model = row.model(2, 2, data.frame)
    posterior = starts.from_labels(model, data, labels)
    theta = model.mean(posterior)
    whole = data.sum(model.visit, theta, methods.Assignment("exact"))
    halves = [
        vbfast.ArrayData(X[rows], None, data.frame).sum(
            model.visit, theta, methods.Assignment("exact")
        )
        for rows in (slice(None, 37), slice(37, None))
    ]
    np.testing.assert_allclose((halves[0] + halves[1]).buffer, whole.buffer, rtol=1e-12, atol=1e-12)


def test_objective_that_falls_is_reported(monkeypatch):
    X, labels = overlapping()
    row = next(r for r in MIXTURES if r.prior == "flat")
    data = row.data(X)
    model = row.model(2, 2, data.frame)
    start = starts.from_labels(model, data, labels)
    good = EM(max_iter=50, tol=0).fit(model, data, start)
    original = vbfast.Model.mode
    calls = []

    def worse(self, posterior):
        calls.append(None)
        return original(self, posterior if len(calls) < 5 else start)

    monkeypatch.setattr(vbfast.Model, "mode", worse)
    with pytest.warns(vbfast.ObjectiveFellWarning, match="fell by"):
        EM(max_iter=10, tol=0).fit(model, data, start)
    assert good.objective > good.objectives[0]


# Full inference ----------------------------------------------------------------------------------


@proper_models
def test_draws_have_the_log_joint_they_report(row):
    """Each sweep's objective is log p(X, T, theta), T known by its counts alone (one component),

    and for several components between the bounds log p(X | theta) and the best T.
    """
    rng = np.random.default_rng(9)
    X, labels = overlapping(60)
    data = row.data(X)
    for k in (1, 2):
        model = row.model(k, 2, data.frame)
        chain = vbfast.FullInference().chain(
            model, data, starts.from_labels(model, data, labels % k), rng
        )
        for _ in range(5):
            sweep = next(chain)
            theta = raw_parameters(row, sweep.theta, data.frame)
            scores = ref.gaussian_scores(X, *theta, row.covariance_type)
            log_prior = row.log_prior(*theta)
            assert sweep.theta.log_prior == pytest.approx(log_prior, rel=1e-9, abs=1e-8)
            if k == 1:
                assert sweep.objective == pytest.approx(scores.sum() + log_prior)
            else:
                assert scores.min(axis=1).sum() + log_prior <= sweep.objective + 1e-9
                assert sweep.objective <= scores.max(axis=1).sum() + log_prior + 1e-9


def test_chains_are_reproducible_and_differ():
    X, labels = overlapping(60)
    row = next(r for r in MIXTURES if r.prior == "conjugate")
    data = row.data(X)
    model = row.model(2, 2, data.frame)
    start = starts.from_labels(model, data, labels)
    method = vbfast.FullInference(n_draws=20, n_tune=3, n_chains=2, thin=2)
    runs = [
        method.fit(model, data, [start, start], np.random.default_rng(seed)) for seed in (1, 1, 2)
    ]
    assert runs[0].log_joint.shape == (2, 20)
    np.testing.assert_array_equal(runs[0].log_joint, runs[1].log_joint)
    assert not np.any(runs[0].log_joint[0] == runs[0].log_joint[1])
    assert not np.any(runs[0].log_joint == runs[2].log_joint)


def test_emissions_that_do_not_fit_are_refused():
    X = np.random.default_rng(0).normal(size=(20, 2)) * [1.0, 5.0]
    frame = vbfast.ArrayData.of(X).frame
    with pytest.raises(ValueError, match=r"one of 'full', 'tied', 'diag', 'spherical', not 'ful'"):
        vbfast.Gaussian(2, "ful")
    with pytest.raises(ValueError, match="'diag' and 'spherical', not 'full'"):
        vbfast.Gaussian(2, "full", mean_variance=1.0)
    with pytest.raises(ValueError, match="2 features, not 3"):
        vbfast.Gaussian(3, "diag", frame=frame)
    with pytest.raises(ValueError, match="isotropic=True"):
        vbfast.Gaussian(2, "spherical", frame=frame)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0] * 19, r"shape \(20,\), not \(19,\)"),
        ([0.0] * 20, "integers, not dtype float64"),
        ([0] * 19 + [2], r"labels\[19\] is 2; 0 to 1 are allowed"),
        ([0, -1] + [0] * 18, r"labels\[1\] is -1"),
    ],
)
def test_labels_that_are_none_are_refused(labels, words):
    data = vbfast.ArrayData.of(np.random.default_rng(0).normal(size=(20, 2)))
    model = vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(2, frame=data.frame))
    with pytest.raises(ValueError, match=words):
        starts.from_labels(model, data, labels)


def test_kernels_refuse_arrays_that_do_not_fit():
    data = vbfast.ArrayData.of(np.random.default_rng(0).normal(size=(20, 5)))
    with pytest.raises(ValueError, match="another frame"):
        starts.from_labels(vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(2)), data, [0] * 20)
    model = vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(5, frame=data.frame))
    theta = model.about(np.zeros((2, 5)))
    for changed, words in (
        ({"values": data.values[:, :4]}, "a row of values has length 4, not 5"),
        ({"values": data.values.astype(np.int64)}, "float64 or float32"),
        ({"weights": np.ones(3)}, "weights has length 3, not 20"),
    ):
        block = dataclasses.replace(data.block, **changed)
        with pytest.raises((ValueError, TypeError), match=words):
            model.visit(block, theta, Assignment("exact"))
    short = dataclasses.replace(theta, coefficients=theta.coefficients[:-1])
    with pytest.raises(ValueError, match="coefficients has length"):
        model.visit(data.block, short, Assignment("exact"))


def test_parts_can_be_pickled_after_use():
    data = vbfast.ArrayData.of(np.random.default_rng(0).normal(size=(40, 2)))
    model = vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(2, frame=data.frame))
    start = starts.from_labels(model, data, np.arange(40) % 2)
    fit = EM(max_iter=5).fit(model, data, start)
    again, state = pickle.loads(pickle.dumps((model, fit)))
    np.testing.assert_array_equal(state.posterior.buffer, fit.posterior.buffer)
    continued = [EM(max_iter=5).fit(m, data, fit.posterior) for m in (model, again)]
    assert continued[0].objective == continued[1].objective


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
@pytest.mark.parametrize("method", ["em", "mean_field", "crisp_em"])
def test_objective_never_falls_where_prior_and_rows_disagree(method, covariance_type):
    # Means near the prior's or near the rows': two maxima, and the better one may change.
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 0.1, 6), rng.normal(3, 0.1, 6)])[:, None]
    for seed in range(40):
        mixture = vbfast.GaussianMixture(
            2,
            method=method,
            covariance_type=covariance_type,
            mean_prior=[[10.0], [3.0], [0.0]][seed % 3],
            mean_variance_prior=1.0,
            init_params="random",
            random_state=seed,
            tol=1e-10,
            max_iter=2000,
        ).fit(X)
        trace = mixture.lower_bounds_
        assert np.all(np.diff(trace) >= -1e-10 * np.abs(trace[1:]))


# Counts and symbols ------------------------------------------------------------------------------

discrete_models = pytest.mark.parametrize("row", DISCRETE, ids=str)
DISCRETE_CASES = [(method, row) for row in DISCRETE for method in METHODS if allowed(method, row)]
KINDS = {
    "em": ("exact", "mode"), "mean_field": ("exact", "mean"), "variational_em": ("best", "mode"),
    "crisp_em": ("hard", "mode"),
}  # fmt: skip


def discrete_problem(rng, row):
    """Rows of some components, weights or none, labels."""
    d, k = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    n = int(rng.integers(12 * k, 70 + 12 * k))
    values = row.draw_prior(1, k, d, rng)[1][0] if row.proper else None
    if values is None:
        values = dataclasses.replace(row, prior="conjugate").draw_prior(1, k, d, rng)[1][0]
    X = row.draw_rows(values[rng.integers(k, size=n)], rng)
    weights = [None, rng.uniform(0.01, 2, n), rng.integers(0, 3, n).astype(float)][rng.integers(3)]
    labels = rng.integers(k, size=n)
    labels[: 2 * k] = np.arange(2 * k) % k
    if weights is not None:
        weights[: 2 * k] = 1.0
    return X, weights, labels, k


@pytest.mark.parametrize(("method", "row"), DISCRETE_CASES, ids=lambda case: str(case))
def test_random_discrete_fits_climb_and_agree_with_reference(method, row):
    rng = np.random.default_rng([DISCRETE_CASES.index((method, row)), 2])
    kind, read = KINDS[method]
    for _ in range(12):
        X, weights, labels, k = discrete_problem(rng, row)
        data, model = row.data(X, weights), row.model(k, X.shape[1])
        start = starts.from_labels(model, data, labels)
        trace = METHODS[method][0](max_iter=40, tol=0).fit(model, data, start).objectives
        assert np.isfinite(trace).all()
        assert_climbs(trace, data.total_weight)
        if row.weights == "dirichlet_process":
            continue
        expected = ref.discrete_climb(
            X, ref.one_hot(labels, k), row, kind, read, n_sweeps=5, truncation=min(2, k),
            sample_weight=weights,
        )  # fmt: skip
        n = min(len(trace), len(expected))
        np.testing.assert_allclose(trace[:n], expected[:n], rtol=1e-10)


@discrete_models
@pytest.mark.parametrize("method", ["em", "variational_em", "crisp_em"])
def test_discrete_objective_is_that_of_the_point_it_ends_in(row, method):
    rng = np.random.default_rng(3)
    X, weights, labels, k = discrete_problem(rng, row)
    data, model = row.data(X, weights), row.model(k, X.shape[1])
    start = starts.from_labels(model, data, labels)
    fitted = METHODS[method][0](max_iter=7, tol=0).fit(model, data, start)
    values = row.values(fitted.theta)
    scores = row.scores(X, fitted.theta.weights, values)
    log_z, _ = ref.assign(scores, KINDS[method][0], 2)
    weight = np.ones(len(X)) if weights is None else weights
    expected = weight[weight > 0] @ log_z[weight > 0]
    if row.proper:
        expected += row.log_prior(fitted.theta.weights, values)
    assert fitted.objective == pytest.approx(expected, rel=1e-11)


@discrete_models
def test_discrete_theta_mp_beats_its_neighbours(row):
    rng = np.random.default_rng(6)
    k, d = 2, 2
    proper = dataclasses.replace(row, prior="conjugate")
    X = row.draw_rows(proper.draw_prior(1, k, d, rng)[1][0][rng.integers(k, size=80)], rng)
    data, model = row.data(X), row.model(k, d)
    start = starts.from_labels(model, data, rng.integers(k, size=80))
    theta = vbfast.EM(max_iter=20_000, tol=0).fit(model, data, start).theta

    def objective(weights, values):
        prior = row.log_prior(weights, values) if row.proper else 0.0
        return logsumexp(row.scores(X, weights, values), axis=1).sum() + prior

    top = objective(theta.weights, row.values(theta))
    for _ in range(100):
        weights = theta.weights * np.exp(1e-3 * rng.standard_normal(k))
        values = row.values(theta) * np.exp(1e-3 * rng.standard_normal(row.values(theta).shape))
        if not row.of_rates:
            values /= values.sum(axis=-1, keepdims=True)
        assert objective(weights / weights.sum(), values) <= top + 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", [r for r in DISCRETE if r.proper], ids=str)
def test_whole_weights_of_discrete_rows_are_repeated_rows(method, row):
    rng = np.random.default_rng(8)
    X, _, labels, k = discrete_problem(rng, row)
    weight = rng.integers(0, 4, len(X))
    weight[: 2 * k] = 1
    fits = []
    for rows, weights, t in (
        (X, weight.astype(float), labels),
        (np.repeat(X, weight, axis=0), None, np.repeat(labels, weight)),
    ):
        data, model = row.data(rows, weights), row.model(k, X.shape[1])
        start = starts.from_labels(model, data, t)
        fits.append(METHODS[method][0](max_iter=20, tol=0).fit(model, data, start).objectives)
    n = min(map(len, fits))
    np.testing.assert_allclose(fits[0][:n], fits[1][:n], rtol=1e-11)


@pytest.mark.parametrize("row", [r for r in DISCRETE if r.proper], ids=str)
def test_discrete_draws_have_the_log_joint_they_report(row):
    rng = np.random.default_rng(9)
    X, _, labels, k = discrete_problem(rng, row)
    data, model = row.data(X), row.model(k, X.shape[1])
    chain = vbfast.FullInference().chain(model, data, starts.from_labels(model, data, labels), rng)
    for _ in range(5):
        sweep = next(chain)
        values = row.values(sweep.theta)
        scores = row.scores(X, sweep.theta.weights, values)
        # The T drawn is known by its statistics alone; its scores are among all.
        assert sweep.theta.log_prior == pytest.approx(row.log_prior(sweep.theta.weights, values))
        log_z = float(sweep.stats["log_z"])
        assert scores.min(axis=1).sum() - 1e-9 <= log_z <= scores.max(axis=1).sum() + 1e-9
        assert sweep.stats["strength"].sum() == pytest.approx(len(X))


def test_data_in_other_units_are_refused_for_counts():
    X = np.arange(6.0)[:, None]
    model = vbfast.Model(vbfast.Mixture(1), vbfast.Poisson(1))
    with pytest.raises(ValueError, match="standardise=False"):
        vbfast.ArrayData.of(X).sum(model.visit, model.mode(model.prior), Assignment("exact"))


def test_a_row_of_little_weight_stays_possible():
    # A count of 1e-30 beside a prior of 1 would be lost.
    X = np.array([[0.0], [0.0], [1.0]])
    for row in (DiscreteRow("bernoulli", prior="flat"), DiscreteRow("categorical", prior="flat")):
        data = row.data(X, np.array([1.0, 1.0, 1e-30]))
        model = row.model(1, 1)
        start = starts.from_labels(model, data, np.zeros(3, dtype=int))
        fitted = EM(max_iter=5, tol=0).fit(model, data, start)
        assert np.isfinite(fitted.objectives).all()
        assert row.values(fitted.theta)[0, 0, 1] == pytest.approx(5e-31)


@pytest.mark.parametrize("several", [False, True])
def test_a_row_that_is_impossible_is_named(several):
    row = DISCRETE[0]
    X = np.array([[0.0], [3.0], [0.0], [2.0]])
    data, model = row.data(X, np.array([1.0, 0.0, 1.0, 1.0])), row.model(2, 1)
    theta = model.point(np.full(2, 0.5), model.emission.parameters(np.zeros((2, 1))))
    possible = model.point(np.full(2, 0.5), model.emission.parameters(np.ones((2, 1))))
    requests = [(one, Assignment("exact")) for one in ([possible, theta] if several else [theta])]
    with pytest.raises(ImpossibleRowError, match="row 3 of X"):
        data.sum_each(model.visit_each, requests)


# Hidden Markov models ----------------------------------------------------------------------------

chain_models = pytest.mark.parametrize("row", CHAINS, ids=str)
# Their q(T), and what theta is read off by.
CHAIN_METHODS = METHODS | {"variational_em": (VariationalEM, None)}
CHAIN_KINDS = KINDS | {"variational_em": ("factorised", "mode")}
# Methods that climb, plain update by plain update.
CLIMBING = ("em", "mean_field", "crisp_em", "variational_em")
CHAIN_CASES = [(method, row) for row in CHAINS for method in CLIMBING if allowed(method, row)]


def chain_problem(rng, row, k, d, lengths, n_threads=1):
    """Model, data, and the posterior that states give, some of them wrong."""
    X, states = row.draw_data(k, d, lengths, rng)
    wrong = rng.random(len(X)) < 0.3
    states = np.where(wrong, rng.integers(k, size=len(X)), states)
    states[: 4 * k] = np.arange(4 * k) % k
    data = row.data(X, lengths, n_threads)
    model = row.model(k, data)
    return model, data, states, starts.from_labels(model, data, states)


def sequences_of(data):
    """Rows of each sequence."""
    if data.sequences is None:
        return [slice(0, data.n_rows)]
    return [slice(*ends) for ends in itertools.pairwise(data.sequences.offsets)]


def chain_visit(model, data, theta, assignment, **wanted):
    """What the kernel says of rows: an array of each name and dtype wanted."""
    shapes = {"q": (data.n_rows, model.latent.n_components)}
    out = {name: np.empty(shapes.get(name, data.n_rows), kind) for name, kind in wanted.items()}
    model.latent.kernel(False).visit(data.block, theta, assignment, **out)
    return out


@pytest.mark.parametrize(("method", "row"), CHAIN_CASES, ids=lambda case: str(case))
def test_random_chain_fits_climb(method, row):
    """ObjectiveFellWarning is an error, as every warning is."""
    rng = np.random.default_rng([CHAIN_CASES.index((method, row)), 3])
    n_degenerate = 0
    for _ in range(12):
        k, d = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        lengths = [30 * k, *rng.integers(1, 60, size=rng.integers(4))]
        model, data, _, start = chain_problem(rng, row, k, d, lengths)
        if method == "variational_em":  # goes on from its last q(T)
            data = data.with_memory(k)
        try:
            fitted = CHAIN_METHODS[method][0](max_iter=40, tol=0).fit(model, data, start)
        except DegenerateError:
            assert not row.proper
            n_degenerate += 1
            continue
        assert np.isfinite(fitted.objectives).all()
        assert_climbs(fitted.objectives, data.total_weight)
    assert n_degenerate < 6


@pytest.mark.parametrize(
    ("method", "row"),
    [case for case in CHAIN_CASES if case[0] != "variational_em"],
    ids=lambda case: str(case),
)
def test_chain_fits_agree_with_sums_over_all_paths(method, row):
    kind, read = KINDS[method]
    n_compared = 0
    for seed in range(4):
        rng = np.random.default_rng([CHAIN_CASES.index((method, row)), seed])
        k, d = 2 + seed % 2, 1 + seed // 2
        lengths = [7, 1, 5, 6, 2, 6, 7, 1, 6]
        model, data, states, start = chain_problem(rng, row, k, d, lengths)
        try:
            expected = ref.chain_climb(
                data.values, states, lengths, row, k, kind, read, n_sweeps=4
            )  # fmt: skip
        except (ZeroDivisionError, np.linalg.LinAlgError):
            assert not row.proper
            continue
        n_sweeps = max(len(expected) - 1, 1)
        fitted = CHAIN_METHODS[method][0](max_iter=n_sweeps, tol=0).fit(model, data, start)
        objectives, qs, pairs = zip(*expected, strict=True)
        n = min(len(fitted.objectives), len(objectives))
        np.testing.assert_allclose(fitted.objectives[:n], objectives[:n], rtol=1e-9)
        n_compared += 1
        last = fitted.n_iter
        if last >= len(qs) or qs[last] is None:
            continue
        found = chain_visit(model, data, fitted.theta, Assignment("exact"), q=float)["q"]
        if kind == "hard":
            path = chain_visit(model, data, fitted.theta, Assignment("hard"), labels=np.int64)
            found = ref.one_hot(path["labels"], k)
        np.testing.assert_allclose(found, qs[last], atol=1e-7)
        stats = data.sum(model.visit, fitted.theta, Assignment(kind))
        first = sum(qs[last][part][0] for part in sequences_of(data))
        np.testing.assert_allclose(stats["excess"][0], first, atol=1e-7)
        np.testing.assert_allclose(stats["excess"][1:], pairs[last], atol=1e-7)
    assert n_compared


@chain_models
@pytest.mark.parametrize("method", ["em", "variational_em", "crisp_em"])
def test_chain_objective_is_that_of_the_point_it_ends_in(row, method):
    rng = np.random.default_rng(3)
    model, data, _, start = chain_problem(rng, row, 3, 2, [60, 1, 40, 25])
    fitted = CHAIN_METHODS[method][0](max_iter=7, tol=0).fit(model, data, start)
    values = row.values(fitted.theta, data.frame)
    weights, scores = fitted.theta.weights, row.scores(data.values, *values)
    expected = row.log_prior(weights, *values)
    for part in sequences_of(data):
        given = scores[part], weights[0], weights[1:]
        if method == "em":
            expected += ref.forward_backward(*given)[0].sum()
        elif method == "crisp_em":
            expected += ref.viterbi(*given)[1]
        else:
            q = chain_visit(model, data, fitted.theta, Assignment("factorised"), q=float)["q"]
            expected += ref.chain_free_energy(q[part], *given)
    assert fitted.objective == pytest.approx(expected, rel=1e-10)


@chain_models
@pytest.mark.parametrize("kind", ["exact", "hard", "factorised"])
def test_statistics_of_sequences_add_up(row, kind):
    """A chain's statistics are the sum over sequences, however they are split."""
    rng = np.random.default_rng(4)
    lengths = [30, 1, 12, 25, 1, 40]
    model, data, _, start = chain_problem(rng, row, 3, 2, lengths)
    theta = model.mode(start)
    whole = data.sum(model.visit, theta, Assignment(kind))
    ends = np.cumsum(lengths)
    for cuts in ([0, 1, 6], [0, 4, 5, 6], range(7)):
        total = model.layout.stats()
        for a, b in itertools.pairwise(cuts):
            rows = slice(sum(lengths[:a]), ends[b - 1])
            part = dataclasses.replace(row.data(data.values[rows], lengths[a:b]), frame=data.frame)
            total = total + part.sum(model.visit, theta, Assignment(kind))
        np.testing.assert_allclose(total.buffer, whole.buffer, rtol=1e-11, atol=1e-11)
    assert whole["excess"][0].sum() == pytest.approx(len(lengths))
    assert whole["excess"].sum() == pytest.approx(sum(lengths))
    # Sequences that are taken as one have other statistics.
    one = dataclasses.replace(data, sequences=None).sum(model.visit, theta, Assignment(kind))
    assert one["excess"][0].sum() == pytest.approx(1)
    assert float(one["log_z"]) != pytest.approx(float(whole["log_z"]), rel=1e-6)


@pytest.mark.parametrize("lengths", [[3000], [1500, 7, 900, 1, 592], [30] * 100])
@pytest.mark.parametrize("row", [row for row in CHAINS if row.proper], ids=str)
def test_chains_have_the_same_bits_with_any_number_of_threads(row, lengths):
    found = []
    for n_threads in (1, 2, 3):
        rng = np.random.default_rng(5)
        model, data, _, start = chain_problem(rng, row, 3, 2, lengths, n_threads)
        each = [
            make(max_iter=4, tol=0).fit(model, data, start) for make, _ in CHAIN_METHODS.values()
        ]
        parts = [part for fit in each for part in (fit.objectives, fit.posterior.buffer)]
        chain = vbfast.FullInference().chain(model, data, start, rng)
        parts += [next(chain).stats.buffer for _ in range(3)]
        found.append(np.concatenate(parts).tobytes())
    assert found[0] == found[1] == found[2]


class LabelledData:
    """Data that remember the states their last visit drew."""

    def __init__(self, data):
        self.data, self.total_weight = data, data.total_weight

    def sum(self, visit, theta, assignment):
        self.states = np.empty(self.data.n_rows, dtype=np.int64)
        kernel = visit.__self__.latent.kernel(False)
        kernel.visit(self.data.block, theta, assignment, labels=self.states)
        return self.data.sum(visit, theta, assignment)


@pytest.mark.parametrize("row", [row for row in CHAINS if row.proper], ids=str)
def test_draws_of_chains_have_the_log_joint_they_report(row):
    rng = np.random.default_rng(9)
    k = 3
    model, data, _, start = chain_problem(rng, row, k, 2, [40, 1, 30])
    labelled = LabelledData(data)
    paths = set()
    for sweep in itertools.islice(vbfast.FullInference().chain(model, labelled, start, rng), 5):
        weights, values = sweep.theta.weights, row.values(sweep.theta, data.frame)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        log_prior = row.log_prior(weights, *values)
        assert sweep.theta.log_prior == pytest.approx(log_prior, rel=1e-9, abs=1e-8)
        t, pairs = labelled.states, np.zeros((k, k))
        log_joint = log_prior + row.scores(data.values, *values)[np.arange(len(t)), t].sum()
        for part in sequences_of(data):
            log_joint += np.log(weights[0, t[part][0]])
            log_joint += np.log(weights[1 + t[part][:-1], t[part][1:]]).sum()
            pairs += ref.count_path(t[part], k)
        assert sweep.objective == pytest.approx(log_joint, rel=1e-9)
        np.testing.assert_array_equal(sweep.stats["excess"][1:], pairs)
        paths.add(t.tobytes())
    assert len(paths) == 5


# Priors and objectives that are no densities and no numbers ---------------------------------------


def improper(name):
    """A model that lacks some of its prior, data for it, and a posterior to start from."""
    rng = np.random.default_rng(0)
    X = rng.poisson(3.0, (40, 2)).astype(float)
    lengths = [30, 10] if name in ("chain", "coupled") else None
    if name == "poisson":
        data = vbfast.ArrayData.of(X, standardise=False)
        model = vbfast.Model(vbfast.Mixture(2), vbfast.Poisson(2))
        return model, data, starts.from_labels(model, data, np.arange(40) % 2)
    data = vbfast.ArrayData.of(X, lengths=lengths)
    if name == "coupled":
        model = vbfast.Model(
            vbfast.CoupledChains(2, 2), vbfast.AdditiveGaussian(2, 2, 2, frame=data.frame)
        )
        start = model.around((X[:4], np.eye(2)), (2, 40), np.full((2, 3, 2), 0.5))
        return model, data.with_memory(4), start
    given = {"mean_precision": 1.0} if name == "precision alone" else {}
    latent = vbfast.Chain(2) if name == "chain" else vbfast.Mixture(2)
    model = vbfast.Model(latent, vbfast.Gaussian(2, "diag", **given, frame=data.frame))
    return model, data, starts.from_labels(model, data, np.arange(40) % 2)


@pytest.mark.parametrize("name", ["mixture", "chain", "coupled", "poisson", "precision alone"])
def test_improper_priors_are_refused_where_they_say_nothing(name):
    """KL(q || p) is then infinite, or no number, and a climb would go on for ever."""
    model, data, start = improper(name)
    words = "improper.*shape and rate" if name == "poisson" else "improper.*degrees_of_freedom"
    for method in (MeanField(max_iter=2**62), MeanField(max_iter=2**62, factorised=True)):
        with pytest.raises(ValueError, match=words):
            method.fit(model, data, start)
    full = vbfast.FullInference(n_draws=5, n_tune=2, n_chains=2)
    with pytest.raises(ValueError, match=words):
        full.fit(model, data, [start] * 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match=words):
        next(full.chain(model, data, start, np.random.default_rng(0)))
    assert np.isfinite(EM(max_iter=3).fit(model, data, start).objective)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("method", [EM, MeanField, vbfast.VariationalEM, vbfast.CrispEM])
def test_a_climb_ends_where_its_objective_is_no_finite_number(method, value, monkeypatch):
    X = np.random.default_rng(0).standard_normal((40, 2))
    data = vbfast.ArrayData.of(X)
    emission = vbfast.Gaussian(
        2, mean_prior=np.zeros(2), mean_precision=1.0, degrees_of_freedom=4.0, scatter=np.eye(2),
        frame=data.frame,
    )  # fmt: skip
    model = vbfast.Model(vbfast.Mixture(2), emission)
    start = starts.from_labels(model, data, np.arange(40) % 2)
    visit, bad = vbfast.Model.visit, {2}

    def spoilt(self, *args):
        stats = visit(self, *args)
        if spoilt.calls in bad:
            stats["log_z"][...] = value
        spoilt.calls += 1
        assert spoilt.calls < 200
        return stats

    monkeypatch.setattr(vbfast.Model, "visit", spoilt)
    if not value > 0:
        # One that is, and is no more after the next update, does no harm.
        spoilt.calls = 0
        fit = method(max_iter=50).fit(model, data, start)
        assert np.isfinite(fit.objective)
    # The last one, or two in a row, do.
    spoilt.calls = 0
    with pytest.raises(DegenerateError, match="after 2 sweeps"):
        method(max_iter=2, tol=0.0).fit(model, data, start)
    spoilt.calls, bad = 0, set(range(2, 10**6))
    with pytest.raises(DegenerateError, match=f"is {value:g} after 3 sweeps"):
        method(max_iter=2**62, tol=0.0).fit(model, data, start)


def test_statistics_of_other_kinds_are_not_added():
    one = vbfast.Model(vbfast.Mixture(2), vbfast.Poisson(2)).prior
    other = vbfast.Model(vbfast.Mixture(2), vbfast.Bernoulli(2)).prior
    with pytest.raises(ValueError, match="statistics of other fields"):
        one + other
    with pytest.raises(TypeError, match="unsupported operand"):
        one + 1
    with pytest.raises(TypeError, match="not iterable"):
        list(one)
