"""The loop without Python: the same as the loop with it, and draws of the right distribution."""

import numpy as np
import pytest
import reference as ref
from conftest import DISCRETE, MIXTURES, DiscreteRow
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from scipy import stats as distributions
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln, xlogy

from vbfast import (
    EM,
    CrispEM,
    DegenerateError,
    FullInference,
    Gaussian,
    MeanField,
    Mixture,
    Model,
    VariationalEM,
    _kernels,
    draws,
    loops,
    starts,
)
from vbfast._kernels.inputs import Assignment

COMPILED = [
    row
    for row in [*MIXTURES, *DISCRETE]
    if row.weights != "dirichlet_process" and row.prior != "independent"
]
PROPER = [row for row in COMPILED if row.proper]
METHODS = {
    "em": lambda **kw: EM(acceleration=None, **kw),
    "mean_field": lambda **kw: MeanField(acceleration=None, **kw),
    "variational_em": lambda **kw: VariationalEM(truncation=2, acceleration=None, **kw),
    "crisp_em": CrispEM,
}
CASES = [(m, r) for r in COMPILED for m in METHODS if r.proper or m != "mean_field"]
levels = pytest.mark.parametrize("level", _kernels.available_levels())


def problem(rng, row, n=None, far=0.0):
    """Overlapping clusters in some units, weights or none, labels."""
    d, k = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    n = n or int(rng.integers(15 * k, 70 + 15 * k))
    if isinstance(row, DiscreteRow):
        _, values = DiscreteRow(row.emission).draw_prior(1, k, d, rng)
        X = row.draw_rows(values[0][rng.integers(k, size=n)], rng)
        return X, *weights_and_labels(rng, n, k), k
    X = 2 * rng.standard_normal((k, d))[rng.integers(k, size=n)] + rng.standard_normal((n, d))
    X[: n // 4] += far
    X = X * rng.uniform(0.5, 2, d) + rng.uniform(-3, 3, d)
    return X, *weights_and_labels(rng, n, k), k


def weights_and_labels(rng, n, k):
    weights = [None, rng.uniform(0, 2, n) * (rng.random(n) > 0.1)][rng.integers(2)]
    labels = rng.integers(k, size=n)
    labels[: n // 4] = 0
    return weights, labels


def model_of(row, k, data, reg_covar=0.0):
    d = data.values.shape[1]
    if isinstance(row, DiscreteRow):
        return row.model(k, d)
    return row.model(k, d, data.frame, reg_covar=reg_covar)


def rows_of(data, times=1):
    """The data as the compiled loop takes them, several times."""
    rows = _kernels.loop.Rows(
        [data.values] * times, None if data.weights is None else [data.weights] * times
    )
    frame = data.frame
    rows.set_frames(
        *(np.tile(part, (times, 1)) for part in (frame.origin, frame.scale, frame.variance))
    )
    return rows


def climb(model, data, start, method, n_threads=1):
    return loops.climb(
        rows_of(data), loops.mixtures(model), model, method, start.buffer[None].copy(), n_threads,
        np.array([data.block.constant]),
    )  # fmt: skip


@pytest.mark.parametrize(("method", "row"), CASES, ids=lambda case: str(case))
def test_climbs_as_the_loop_with_python(method, row):
    rng = np.random.default_rng([CASES.index((method, row)), 3])
    n_compared = 0
    for number in range(6):
        n, far = [(None, 0.0), (700, 0.0), (None, 300.0)][number % 3]
        X, weights, labels, k = problem(rng, row, n, far)
        data = row.data(X, weights)
        model = model_of(row, k, data, reg_covar=0.0 if number < 3 else 1e-3)
        start = starts.from_labels(model, data, labels)
        how = METHODS[method](max_iter=8, tol=1e-4)
        found = climb(model, data, start, how)
        try:
            expected = how.fit(model, data, start)
        except DegenerateError:
            assert found.degenerate[0] >= 0
            continue
        assert found.degenerate[0] == -1
        assert found.n_sweeps[0] == expected.n_iter + 1
        assert found.converged[0] == expected.converged
        objectives = found.trace(0)
        tolerance = 1e-11 * np.maximum(np.abs(expected.objectives), len(X))
        assert np.all(np.abs(objectives - expected.objectives) <= tolerance)
        for name, part in expected.theta.arrays.items():
            np.testing.assert_allclose(found.parameters[name][0], part, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(
            found.posterior[0, 1:], expected.posterior.buffer[1:], rtol=1e-7, atol=1e-7
        )
        n_compared += 1
    assert n_compared >= 4


@pytest.mark.parametrize(("method", "row"), CASES, ids=lambda case: str(case))
def test_reads_a_posterior_to_rounding(method, row):
    """Theta, its prior's density or KL divergence, and what data say of it, after one update."""
    rng = np.random.default_rng([CASES.index((method, row)), 4])
    for _ in range(5):
        X, _, labels, k = problem(rng, row)
        data = row.data(X)
        model = model_of(row, k, data, reg_covar=1e-6)
        start = starts.from_labels(model, data, labels)
        found = climb(model, data, start, METHODS[method](max_iter=1, tol=0))
        expected = METHODS[method](max_iter=1, tol=0).fit(model, data, start)
        size = np.maximum(np.abs(expected.objectives), len(X))
        assert np.all(np.abs(found.trace(0) - expected.objectives) <= 1e-12 * size)
        for name, part in expected.theta.arrays.items():
            np.testing.assert_allclose(found.parameters[name][0], part, rtol=1e-11, atol=1e-11)


# By another way than either loop's: that both go wrong alike is found.
KINDS = {"em": "exact", "mean_field": "exact", "variational_em": "best", "crisp_em": "hard"}
PLAIN = [
    (method, row)
    for method, row in CASES
    if row.prior != "partial" and (method != "mean_field" or row.proper)
]


@pytest.mark.parametrize(("method", "row"), PLAIN, ids=lambda case: str(case))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=12)
def test_climbs_as_the_plain_reference(method, row, seed):
    rng = np.random.default_rng(seed)
    X, weights, labels, k = problem(rng, row)
    # Every component holds some rows, and a covariance.
    labels[: 8 * k] = np.arange(8 * k) % k
    if weights is not None:
        weights[: 8 * k] = 1.0
    data = row.data(X, weights)
    model = model_of(row, k, data)
    start = starts.from_labels(model, data, labels)
    found = climb(model, data, start, METHODS[method](max_iter=4, tol=0))
    try:
        expected = plain_trace(method, row, X, ref.one_hot(labels, k), weights)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        reject()  # a component comes to have no covariance, or no row
    assume(found.degenerate[0] < 0)
    n = min(len(found.trace(0)), len(expected))
    assert n >= 2 or k == 1
    size = np.maximum(np.abs(expected[:n]), len(X))
    assert np.all(np.abs(found.trace(0)[:n] - expected[:n]) <= 1e-8 * size)


def plain_trace(method, row, X, q, weights):
    """Objectives of five sweeps, by reference.py."""
    k = q.shape[1]
    more = {"n_sweeps": 5, "sample_weight": weights}
    truncation = min(2, k) if method == "variational_em" else None
    if isinstance(row, DiscreteRow):
        read = "mean" if method == "mean_field" else "mode"
        return ref.discrete_climb(X, q, row, KINDS[method], read, truncation=truncation, **more)
    prior = row.reference(X.shape[1])
    if method == "mean_field":
        return ref.mean_field(X, q, row.covariance_type, prior, **more)["trace"]
    more |= {"kind": KINDS[method], "truncation": truncation}
    return ref.em(X, q, row.covariance_type, prior, **more)["trace"]


def test_degenerate_component_is_told():
    """Three equal rows of a component of their own have no covariance."""
    rng = np.random.default_rng(0)
    X = np.concatenate([np.full((3, 2), 50.0), rng.standard_normal((30, 2))])
    row = next(r for r in COMPILED if r.covariance_type == "full" and r.prior == "flat")
    data = row.data(X)
    model = row.model(2, 2, data.frame)
    start = starts.from_labels(model, data, np.repeat([1, 0], [3, 30]))
    assert climb(model, data, start, EM()).degenerate[0] == 1


@pytest.mark.parametrize("max_iter", [1, 2**62])
@pytest.mark.parametrize("field", ["strength", "mean"])
def test_a_climb_ends_where_its_objective_is_no_finite_number(max_iter, field):
    """As a bound is whose prior is no density: from the start, or from the first update on."""
    row = next(r for r in PROPER if str(r).startswith("diag"))
    X = np.random.default_rng(0).standard_normal((33, 2))
    data = row.data(X)
    model = row.model(2, 2, data.frame)
    start = starts.from_labels(model, data, np.arange(33) % 2)
    model.prior[field].flat[0] = np.nan
    found = climb(model, data, start, MeanField(max_iter=max_iter))
    assert found.degenerate[0] == 2
    assert not found.converged[0]
    assert np.isnan(found.objective[0])


@pytest.mark.parametrize("row", PROPER, ids=str)
def test_chains_keep_what_they_say(row):
    """log p(X, T, theta) and the density of a central theta, by the parts with Python."""
    rng = np.random.default_rng(5)
    for weighted in (False, True):
        X, _, labels, k = problem(rng, row, 400)
        weights = rng.integers(0, 4, len(X)).astype(float) if weighted else None
        data = row.data(X, weights)
        model = model_of(row, k, data, reg_covar=1e-4)
        start = starts.from_labels(model, data, labels)
        seeds = [7, 2**62 + 11]
        for n_draws, thin in ((1, 1), (1, 3), (4, 2)):
            drawn, tuning = loops.sample(model, data.block, [start, start], seeds, 5, n_draws, thin)
            assert tuning.shape == (2, 5)
            assert drawn.log_joint.shape == (2, n_draws)
            after = []
            for chain, seed in enumerate(seeds):
                for n in range(n_draws):
                    theta = model.point(*point_of(model, drawn.theta, chain, n))
                    how = Assignment("draw", seed=seed, sweep=5 + thin * (n + 1) - 1)
                    stats = data.sum(model.visit, theta, how)
                    expected = stats["log_z"] + theta.log_prior
                    assert drawn.log_joint[chain, n] == pytest.approx(expected, rel=1e-11)
                    posterior = model.prior + stats
                    after.append(posterior)
                    common, terms = model.log_density_terms(posterior, drawn.best)
                    assert drawn.common[chain, n] == pytest.approx(common, rel=1e-10, abs=1e-10)
                    np.testing.assert_allclose(drawn.terms[chain, n], terms, rtol=1e-9)
                np.testing.assert_allclose(
                    drawn.posteriors[chain].buffer, posterior.buffer, rtol=1e-9, atol=1e-9
                )
        # The point is the centre of a posterior that a kept draw of T led to.
        assert any(
            np.allclose(model.centre(posterior).coefficients, drawn.best.coefficients)
            for posterior in after
        )


def point_of(model, theta, chain, n):
    """Weights and parameters of a draw."""
    weights, *parameters = (part[chain, n] for part in theta.values())
    return weights, model.emission.parameters(*parameters)


def test_chains_differ_and_depend_on_their_seed_alone():
    row = PROPER[0]
    rng = np.random.default_rng(6)
    X, _, labels, k = problem(rng, row, 300)
    data = row.data(X)
    model = model_of(row, k, data)
    start = starts.from_labels(model, data, labels)
    several, _ = loops.sample(model, data.block, [start] * 3, [3, 4, 5], 2, 30, 1)
    alone, _ = loops.sample(model, data.block, [start], [4], 2, 30, 1)
    assert len(np.unique(several.log_joint)) == 90
    np.testing.assert_array_equal(several.log_joint[1], alone.log_joint[0])


def test_python_loop_and_compiled_one_agree_in_distribution(monkeypatch):
    """Means of a posterior of one mode."""
    rng = np.random.default_rng(8)
    X = np.concatenate([rng.normal(-4, 1, (40, 1)), rng.normal(4, 1, (30, 1))])
    row = next(r for r in PROPER if str(r).startswith("diag"))
    data = row.data(X)
    model = row.model(2, 1, data.frame)
    start = starts.from_labels(model, data, np.repeat([0, 1], [40, 30]))
    method = FullInference(n_draws=1500, n_tune=20, n_chains=2)
    compiled = method.fit(model, data, [start] * 2, np.random.default_rng(0))
    monkeypatch.setattr(loops, "SMALL", 0)
    python = method.fit(model, data, [start] * 2, np.random.default_rng(0))
    assert compiled.theta.keys() == python.theta.keys()
    for name, part in python.theta.items():
        other = compiled.theta[name]
        assert other.shape == part.shape
        # Draws are nearly independent here: a few standard errors.
        error = part.std(axis=(0, 1)) / np.sqrt(part[..., 0].size / 2 / part[0, 0, ..., 0].size)
        assert np.all(np.abs(other.mean(axis=(0, 1)) - part.mean(axis=(0, 1))) < 5 * error)
    assert compiled.terms.shape == python.terms.shape == (2, 1500, 2, 2)
    evidence = []
    for drawn in (compiled, python):
        at_best = data.sum(model.visit, drawn.best, Assignment("exact"))["log_z"]
        log_joint = at_best + drawn.best.log_prior
        evidence.append(draws.evidence(log_joint, drawn.common, drawn.terms)[0])
    assert evidence[0] == pytest.approx(evidence[1], abs=0.01)


# Draws of theta ----------------------------------------------------------------------------------


def theta_draws(model, posterior, n):
    """n draws of theta from one posterior, by chains of one sweep on a row of data."""
    d = model.emission.n_features
    rows = _kernels.loop.Rows([np.zeros((1, d))] * n)
    rows.set_frames(np.zeros((n, d)), np.ones((n, d)), np.ones((n, d)))
    theta = loops._theta(model, n, 1)
    _kernels.loop.run(
        rows,
        loops.mixtures(model),
        "sample",
        Assignment("draw"),
        np.tile(posterior.buffer, (n, 1)),
        1,
        1,
        state=np.zeros((n, 4), dtype=np.int64),
        seeds=np.arange(n, dtype=np.uint64),
        theta=theta,
    )
    return loops._parameters(model, theta[:, 0])


def assert_distributed(values, distribution):
    assert distributions.kstest(values, distribution.cdf).pvalue > 1e-4


N_DRAWS = 20_000


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_theta_is_drawn_from_the_posterior(kind, d):
    """Marginals of the weights (beta), precisions (gamma, chi^2) and means (normal given them)."""
    rng = np.random.default_rng(d)
    k = 3
    scatter = {"full": np.eye(d), "tied": np.eye(d), "diag": np.ones(d), "spherical": 1.0}[kind]
    emission = Gaussian(d, kind, mean_prior=np.zeros(d), mean_precision=0.5,
                        degrees_of_freedom=float(d), scatter=scatter)  # fmt: skip
    model = Model(Mixture(k, concentration=0.02), emission)
    posterior = model.prior.copy()
    # One component is empty, as its prior is.
    posterior["concentration"][1:] += [1.7, 40.0]
    posterior["strength"][1:] += [2.5, 60.0]
    posterior["dof"][-1:] += 25.0
    posterior["mean"][...] = rng.standard_normal((k, d))
    if kind in ("full", "tied"):
        root = rng.standard_normal((len(posterior["scatter"]), d, d))
        posterior["scatter"][...] += root @ np.swapaxes(root, 1, 2)
    else:
        posterior["scatter"][...] *= rng.uniform(0.5, 3, posterior["scatter"].shape)
    drawn = theta_draws(model, posterior, N_DRAWS)
    weights, means, factors = drawn["weights"], drawn["means"], drawn["factors"]
    alpha = posterior["concentration"]
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
    assert weights.min() >= 1e-300
    for j in range(1, k):
        assert_distributed(weights[:, j], distributions.beta(alpha[j], alpha.sum() - alpha[j]))
    expected = distributions.beta(alpha[0], alpha.sum() - alpha[0])
    above = weights[:, 0] > 1e-3
    tail = expected.sf(1e-3)
    assert abs(above.mean() - tail) < 5 * np.sqrt(tail * (1 - tail) / N_DRAWS)
    for g in range(len(posterior["scatter"])):
        dof, own = posterior["dof"][g], posterior["scatter"][g]
        if kind in ("full", "tied"):
            precision = np.swapaxes(factors[:, g], 1, 2) @ factors[:, g]
            assert np.all(np.triu(factors[:, g], 1) == 0)
            a = rng.standard_normal(d)
            scale = a @ np.linalg.solve(own, a)
            assert_distributed(np.einsum("i,nij,j->n", a, precision, a) / scale,
                               distributions.chi2(dof))  # fmt: skip
            # a' Lambda^-1 a = |A'^-1 a|^2.
            back = np.swapaxes(np.linalg.inv(factors[:, g]), 1, 2) @ a
            assert_distributed((a @ own @ a) / (back**2).sum(axis=1),
                               distributions.chi2(dof - d + 1))  # fmt: skip
        else:
            for j in range(factors.shape[2]):
                assert_distributed(factors[:, g, j] ** 2,
                                   distributions.gamma(dof / 2, scale=2 / own[j]))  # fmt: skip
    standard = np.empty_like(means)
    for j in range(k):
        gap = (means[:, j] - posterior["mean"][j]) * np.sqrt(posterior["strength"][j])
        factor = factors[:, 0 if kind == "tied" else j]
        if kind in ("full", "tied"):
            standard[:, j] = (factor @ gap[:, :, None])[:, :, 0]
        else:
            standard[:, j] = factor * gap
    flat = standard.reshape(N_DRAWS, -1)
    for j in range(k * d):
        assert_distributed(flat[:, j], distributions.norm)
    precision = np.log(factors.reshape(N_DRAWS, -1)[:, 0])
    correlation = np.corrcoef(np.column_stack([flat, precision, weights[:, -1]]).T)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5 / np.sqrt(N_DRAWS)


def posterior_of(row, k, d, rng):
    """A model, and a posterior of it under which one component is empty."""
    model = row.model(k, d)
    posterior = model.prior.copy()
    posterior["concentration"][1:] += rng.uniform(1, 40, k - 1)
    posterior["strength"][1:] += rng.uniform(1, 40, k - 1)
    name = "sums" if row.of_rates else "tally"
    possible = model.prior[name][1:] > -1
    posterior[name][1:] += rng.uniform(0, 30, possible.shape) * possible
    return model, posterior


def laws(row, model, posterior):
    """Each part of theta as SciPy has it: (k, feature, law), by reference's hyperparameters."""
    k, d = model.latent.n_components, model.emission.n_features
    for i in range(k):
        for j in range(d):
            if row.of_rates:
                shape, rate = (each[j] for each in row.hyperparameters(d))
                counted, summed = posterior["strength"][i], posterior["sums"][i, j]
                if row.emission == "poisson":
                    yield i, j, distributions.gamma(summed + 1.0, scale=1 / (rate + counted))
                else:
                    yield i, j, distributions.gamma(shape + counted, scale=1 / summed)
            else:
                alpha = posterior["tally"][i, j] + 1.0
                yield i, j, distributions.dirichlet(alpha[alpha > 0])


DISCRETE_PROPER = [row for row in PROPER if isinstance(row, DiscreteRow)]


@pytest.mark.parametrize("row", DISCRETE_PROPER, ids=str)
def test_rates_and_tables_are_drawn_from_the_posterior(row):
    """By the compiled loop, and by the one with Python."""
    rng = np.random.default_rng(DISCRETE_PROPER.index(row))
    model, posterior = posterior_of(row, 3, 3, rng)
    theta = model.sample(posterior, rng)
    by_python = [model.emission.distribution(posterior).sample(rng) for _ in range(4000)]
    found = theta_draws(model, posterior, N_DRAWS)
    (name,) = theta.parameters.arrays
    alpha = posterior["concentration"]
    for k in range(3):
        law = distributions.beta(alpha[k], alpha.sum() - alpha[k])
        assert_distributed(found["weights"][:, k], law)
    for values in (found[name], np.array([each.arrays[name] for each in by_python])):
        for k, j, law in laws(row, model, posterior):
            if row.of_rates:
                assert_distributed(values[:, k, j], law)
                continue
            n = len(law.alpha)
            for c in range(n):
                marginal = distributions.beta(law.alpha[c], law.alpha.sum() - law.alpha[c])
                if n > 1:
                    assert_distributed(values[:, k, j, c], marginal)
            assert not values[:, k, j, n:].any()


@pytest.mark.parametrize("row", DISCRETE_PROPER, ids=str)
def test_densities_of_draws_are_those_of_scipy(row):
    rng = np.random.default_rng(7)
    X, _, labels, k = problem(rng, row, 60)
    data = row.data(X)
    model = model_of(row, k, data)
    start = starts.from_labels(model, data, labels)
    drawn, _ = loops.sample(model, data.block, [start], [3], 3, 1, 1)
    posterior, best = drawn.posteriors[0], drawn.best
    values = row.values(best)
    alpha = posterior["concentration"]
    expected = distributions.dirichlet(alpha).logpdf(best.weights) if k > 1 else 0.0
    for i, j, law in laws(row, model, posterior):
        at = values[i, j]
        if not row.of_rates:
            at = at[: len(law.alpha)]
        if np.size(at) > 1 or row.of_rates:
            expected += law.logpdf(at)
    found = drawn.common[0, 0] + np.trace(drawn.terms[0, 0]) + gammaln(k + 1)
    assert found == pytest.approx(expected, rel=1e-10)
    common, terms = model.log_density_terms(posterior, best)
    assert common + np.trace(terms) + gammaln(k + 1) == pytest.approx(expected, rel=1e-10)


# Order of components -----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6, 7])
def test_orders_are_the_best(k):
    rng = np.random.default_rng(k)
    terms = 10 * rng.standard_normal((50, k, k))
    terms[0] = xlogy(1.0, np.eye(k))  # -inf off the diagonal
    found = draws.orders(terms)
    assert found.shape == (50, k)
    np.testing.assert_array_equal(found[0], np.arange(k))
    for order, matrix in zip(found[1:], terms[1:], strict=True):
        rows, columns = linear_sum_assignment(matrix, maximize=True)
        best = matrix[rows, columns].sum()
        assert matrix[order, np.arange(k)].sum() == pytest.approx(best)


# SIMD levels, arguments ---------------------------------------------------------------------------


@levels
def test_every_level_climbs_the_same(level, monkeypatch):
    rng = np.random.default_rng(9)
    for row in COMPILED:
        X, weights, labels, k = problem(rng, row)
        data = row.data(X, weights)
        model = model_of(row, k, data, reg_covar=1e-3)
        start = starts.from_labels(model, data, labels)
        with monkeypatch.context() as patch:
            patch.setattr(_kernels, "loop", _kernels.load(level).loop)
            found = climb(model, data, start, EM(max_iter=5, tol=0, acceleration=None))
        expected = EM(max_iter=5, tol=0, acceleration=None).fit(model, data, start)
        # Rounding decides whether the last change is 0.
        n = min(found.n_sweeps[0], expected.n_iter + 1)
        np.testing.assert_allclose(found.trace(0)[:n], expected.objectives[:n], rtol=1e-11)


def test_chains_refuse_data_in_another_frame():
    row = PROPER[0]
    X = np.random.default_rng(0).standard_normal((20, 2))
    data = row.data(X)
    model = row.model(2, 2, data.frame)
    with pytest.raises(ValueError, match="another frame than the model"):
        FullInference(n_draws=2, n_chains=1).fit(
            model, row.data(2 * X), [model.prior], np.random.default_rng(0)
        )


def test_kernel_refuses_arrays_of_the_wrong_shape():
    with pytest.raises(TypeError, match="two-dimensional float64 or float32"):
        _kernels.loop.Rows([np.zeros((3, 2), dtype=int)])
    with pytest.raises(ValueError, match="a row of values has shape"):
        _kernels.loop.Rows([np.zeros((3, 2)), np.zeros((3, 1))])
    with pytest.raises(ValueError, match="weights has shape"):
        _kernels.loop.Rows([np.zeros((3, 2))], [np.ones(4)])
    row = COMPILED[0]
    data = row.data(np.random.default_rng(0).standard_normal((20, 2)))
    model = row.model(2, 2, data.frame)
    rows = rows_of(data)
    with pytest.raises(ValueError, match="posterior has shape"):
        loops.climb(rows, loops.mixtures(model), model, EM(), np.zeros((1, 3)), 1)
    size = model.layout.size
    short = loops.mixtures(model, np.zeros((1, size - 1)))
    with pytest.raises(ValueError, match="prior has shape"):
        loops.climb(rows, short, model, EM(), np.zeros((1, size)), 1)
    with pytest.raises(ValueError, match="seeds has shape"):
        _kernels.loop.begin_all(
            rows, loops.mixtures(model), "kmeans", np.zeros(2, dtype=np.uint64),
            np.zeros((1, model.layout.size)), 1, kmeans_sweeps=1, kmeans_tol=0.0, spread=0.0,
        )  # fmt: skip
