"""Acceleration: the same optima in fewer sweeps, monotone, never in the way of a fast fit."""

import dataclasses
import itertools

import numpy as np
import pytest
import reference as ref
from conftest import CHAINS, DISCRETE, MIXTURES, MixtureRow

import vbfast
from vbfast import EM, MeanField, VariationalEM, starts
from vbfast.acceleration import LONGEST_PAUSE, Anderson, Extrapolation, Gate
from vbfast.exceptions import DegenerateError
from vbfast.stats import Layout

each_model = pytest.mark.parametrize("row", MIXTURES, ids=str)
SLOW = [
    pytest.param(method, row, id=f"{method.name}-{row}")
    for row in MIXTURES
    for method in (EM, MeanField)
    if method is EM or row.proper
]


def problem(row, X, labels, k, weights=None):
    """Model, data, and the posterior that labels give."""
    data = row.data(X, weights)
    model = row.model(k, X.shape[1], data.frame, reg_covar=1e-6)
    return model, data, starts.from_labels(model, data, labels)


def overlapping(row, n=400, d=3, k=2, apart=2.2, seed=1):
    """Two components that overlap: some hundred updates, one optimum."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + apart * (np.arange(n) % 2)[:, None] * (np.arange(d) == 0)
    return problem(row, X, (X[:, 0] > np.median(X[:, 0]) + 0.8).astype(int), k)


def far_apart(row, n=300, d=2, k=3):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((n, d)) + 9 * np.arange(n)[:, None] % 27
    return problem(row, X, np.arange(n) % k, k)


# Coordinates -------------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 3), (3, 1), (4, 3)])
def test_coordinates_there_and_back(row, k, d):
    rng = np.random.default_rng(k + 10 * d)
    X = rng.standard_normal((90, d)) * np.linspace(0.5, 2, d) + 3
    model, data, start = problem(row, X, np.arange(90) % k, k, rng.uniform(0.1, 2, 90))
    posterior = model.prior + data.sum(model.visit, model.mode(start), EM().assign(0))
    coordinates = model.coordinates(posterior)
    per_scatter = start["scatter"][0].size if start["scatter"].ndim < 3 else d * (d + 1) // 2
    assert len(coordinates) == k + k * d + len(start["scatter"]) * per_scatter
    back = model.at_coordinates(coordinates, start)
    posterior["log_z"][...] = 0  # of the visit, not of the posterior
    np.testing.assert_allclose(back.buffer, posterior.buffer, rtol=1e-11, atol=1e-11)
    again = model.coordinates(back)
    np.testing.assert_allclose(again, coordinates, rtol=1e-9, atol=1e-9)


@each_model
def test_any_coordinates_make_a_posterior(row):
    model, data, start = far_apart(row)
    rng = np.random.default_rng(3)
    own = model.coordinates(start)
    for spread in (0.1, 1.0, 5.0):
        out = model.at_coordinates(own + spread * rng.standard_normal(len(own)), start)
        counts = out["strength"] - model.prior["strength"]
        assert np.all(counts > 0)
        assert counts.sum() == pytest.approx(data.total_weight)
        for name, rows in model.latent.around(counts).items():
            np.testing.assert_allclose(out[name] - model.prior[name], rows, atol=1e-10)
        dof = (out["dof"] - model.prior["dof"]) / model.emission._rows_per_dof
        held = counts if row.covariance_type != "tied" else counts.sum(keepdims=True)
        np.testing.assert_allclose(dof, held, atol=1e-10)
        for read in (model.mode, *([model.mean] if row.proper else [])):
            theta = read(out)
            stats = data.sum(model.visit, theta, EM().assign(0))
            assert np.isfinite(float(stats["log_z"]) + theta.log_prior)


@each_model
def test_empty_components_stay_as_they_are(row):
    model, data, _ = far_apart(row)
    labels = np.arange(300) % 3
    labels[labels == 1] = 0
    start = starts.from_labels(model, data, labels)
    coordinates = model.coordinates(start)
    assert np.isfinite(coordinates).all()
    out = model.at_coordinates(coordinates + 0.3, start)
    assert out["strength"][1] == start["strength"][1]
    np.testing.assert_array_equal(out["mean"][1], start["mean"][1])
    if row.covariance_type != "tied":
        np.testing.assert_array_equal(out["scatter"][1], start["scatter"][1])
    assert np.all(out["mean"][::2] != start["mean"][::2])
    assert model.mode(out).weights[0] == pytest.approx(model.mode(start).weights[0])


def test_coordinates_that_are_none():
    for row in MIXTURES[:: len(MIXTURES) // 4]:
        model, _, start = far_apart(row)
        coordinates = model.coordinates(start)
        for bad in (1e4, np.nan, np.inf):
            with pytest.raises(np.linalg.LinAlgError):
                model.at_coordinates(np.append(coordinates[:-1], bad), start)
        start["scatter"][...] *= -1
        with pytest.raises(np.linalg.LinAlgError):
            model.coordinates(start)


# The same optimum in fewer sweeps ----------------------------------------------------------------


def assert_climbs(fitted):
    steps = np.diff(fitted.objectives)
    assert np.all(steps >= -1e-10 * np.abs(fitted.objectives[1:]))
    assert len(steps) == fitted.n_iter
    assert fitted.objective == fitted.objectives[-1]


@pytest.mark.parametrize(("method", "row"), SLOW)
def test_slow_fits_end_in_the_same_optimum(method, row):
    parts = overlapping(row)
    plain = method(max_iter=20_000, tol=1e-11, acceleration=None).fit(*parts)
    fast = method(max_iter=20_000, tol=1e-11).fit(*parts)
    assert_climbs(fast)
    assert fast.converged
    assert plain.n_iter > 40
    assert fast.n_iter < plain.n_iter / 2
    assert fast.objective >= plain.objective - 1e-9 * abs(plain.objective)
    assert fast.objective == pytest.approx(plain.objective, rel=1e-7)
    np.testing.assert_allclose(fast.theta.weights, plain.theta.weights, atol=2e-3)
    np.testing.assert_allclose(fast.theta.parameters.means, plain.theta.parameters.means, atol=1e-2)
    # A fixed point, by the next plain update.
    model, data, _ = parts
    again = method(max_iter=1, tol=0, acceleration=None).fit(model, data, fast.posterior)
    assert np.diff(again.objectives) <= 1e-11 * data.total_weight


def test_old_faithful_with_four_components():
    """Plain EM takes 379 sweeps to a change of 1e-13 a row; SQUAREM 62 and Anderson 52, in R."""
    X = ref.load("faithful")
    labels = ref.labels("faithful")[:, 3]
    data = vbfast.ArrayData.of(X)
    model = vbfast.Model(vbfast.Mixture(4), vbfast.Gaussian(2, frame=data.frame))
    start = starts.from_labels(model, data, labels)
    plain = EM(max_iter=5000, tol=1e-13, acceleration=None).fit(model, data, start)
    fast = EM(max_iter=5000, tol=1e-13).fit(model, data, start)
    assert plain.n_iter > 350
    assert fast.n_iter <= 60
    assert fast.objective == pytest.approx(plain.objective, abs=1e-7)
    assert_climbs(fast)


@each_model
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_a_fit_that_stops_early_is_no_worse(row, tol):
    for make in (EM, MeanField, lambda **kw: VariationalEM(truncation=2, **kw)):
        if make is MeanField and not row.proper:
            continue
        parts = overlapping(row)
        plain = make(max_iter=5000, tol=tol, acceleration=None).fit(*parts)
        fast = make(max_iter=5000, tol=tol).fit(*parts)
        assert_climbs(fast)
        assert fast.converged
        assert fast.objective >= plain.objective - 1e-8 * abs(plain.objective)
        assert fast.n_iter <= plain.n_iter


@pytest.mark.slow
@each_model
def test_random_fits_climb(row):
    """Many components on few rows, some of which die or shrink; all warnings are errors."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        d, k = int(rng.integers(1, 4)), int(rng.integers(2, 7))
        n = int(rng.integers(15 * k, 200))
        X = rng.standard_normal((n, d)) + 2 * rng.integers(3, size=n)[:, None]
        parts = problem(row, X, rng.integers(k, size=n), k, rng.uniform(0, 2, n))
        for make in (EM, *([MeanField] if row.proper else []), VariationalEM):
            try:
                fitted = make(max_iter=400, tol=[0, 1e-8][seed % 2]).fit(*parts)
            except DegenerateError:
                assert row.prior == "flat"
                continue
            assert_climbs(fitted)


# The gate ----------------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("method", [EM, MeanField])
def test_fast_fits_take_plain_steps_alone(row, method, monkeypatch):
    if method is MeanField and not row.proper:
        return
    parts = far_apart(row)
    plain = method(tol=1e-9, acceleration=None).fit(*parts)

    def called(*args):
        raise AssertionError("coordinates were asked for")

    monkeypatch.setattr(vbfast.Model, "coordinates", called)
    fast = method(tol=1e-9).fit(*parts)
    np.testing.assert_array_equal(fast.objectives, plain.objectives)


@pytest.mark.parametrize(
    ("gains", "opens"),
    [
        (0.9 ** np.arange(4), False),  # too large a gain a row
        (1e-3 * 0.9 ** np.arange(2), False),  # one ratio is no proof
        (1e-3 * 0.9 ** np.arange(3), True),
        (1e-3 * 0.1 ** np.arange(6), False),  # fast
        (1e-3 * 1.1 ** np.arange(9), False),  # growing
        (1e-3 * np.array([1, 0.9, 0.01, 0.009, 1, 0.9]), False),  # never twice in turn
        ([1e-3, -1e-3, 0.0, 0.0], False),
        (1.01e-9 * 0.999 ** np.arange(4), False),  # few steps left
    ],
)
def test_gate(gains, opens):
    gate = Gate(1e-9, 1.0)
    for gain in gains:
        assert not gate.open
        gate.observe(float(gain))
    assert gate.open == opens
    heavy = Gate(1e-6, 1e3)  # the same of a thousand rows
    for gain in gains:
        heavy.observe(1e3 * float(gain))
    assert heavy.open == opens


# Steps that fail ---------------------------------------------------------------------------------


def refused_from(visits):
    """Sweeps between steps that were refused, of a fit all of whose steps are."""
    return [b - a for a, b in itertools.pairwise(visits)]


@pytest.mark.parametrize("kind", ["falls", "nan", "unreadable", "infinite"])
def test_steps_that_fail_cost_little(kind, monkeypatch):
    row = MixtureRow("full", prior="flat")
    model, data, start = overlapping(row)
    plain = EM(max_iter=3000, tol=1e-8, acceleration=None).fit(model, data, start)
    bad = start.copy()  # the worst there is: where the fit began
    if kind == "unreadable":
        bad["scatter"][...] = -1.0
    if kind == "nan":
        bad["mean"][...] = np.nan
    tried = []

    def at_coordinates(self, coordinates, like):
        tried.append(len(trace))
        if kind == "infinite":
            raise np.linalg.LinAlgError
        return bad

    trace = []
    monkeypatch.setattr(vbfast.Model, "at_coordinates", at_coordinates)
    fitted = EM(max_iter=3000, tol=1e-8).fit(
        model, data, start, report=lambda n, objective: trace.append(objective)
    )
    assert_climbs(fitted)
    np.testing.assert_array_equal(trace, fitted.objectives)
    assert fitted.objective == plain.objective
    # One sweep for each that could be read, none for the others, and ever fewer of them.
    cost = len(tried) if kind in ("falls", "nan") else 0
    assert fitted.n_iter == plain.n_iter + cost
    assert 3 <= len(tried) <= 3 + np.log2(plain.n_iter) + plain.n_iter / LONGEST_PAUSE
    pauses = refused_from(tried)
    assert pauses[0] < pauses[1] < pauses[2] <= 2 + LONGEST_PAUSE
    # The limit holds for sweeps that were refused too.
    for limit in range(tried[0] - 1, tried[0] + 4):
        trace = []
        short = EM(max_iter=limit, tol=1e-8).fit(model, data, start)
        assert short.n_iter == limit
        assert not short.converged
        assert_climbs(short)


def test_a_small_gain_ahead_does_not_end_a_fit(monkeypatch):
    """A step that leads nowhere, or back to where it came from, is followed by an update."""
    model, data, start = overlapping(MixtureRow("full", prior="flat"))
    plain = EM(max_iter=3000, tol=1e-8, acceleration=None).fit(model, data, start)
    places = []
    original = vbfast.Model.coordinates

    def coordinates(self, posterior):
        places.append(posterior)
        return original(self, posterior)

    monkeypatch.setattr(vbfast.Model, "coordinates", coordinates)
    monkeypatch.setattr(vbfast.Model, "at_coordinates", lambda self, c, like: places[-2])
    fitted = EM(max_iter=3000, tol=1e-8).fit(model, data, start)
    best = EM(max_iter=3000, tol=1e-13).fit(model, data, start)
    assert fitted.n_iter > plain.n_iter
    assert plain.objective - 1e-6 < fitted.objective < best.objective + 1e-9


def test_singular_coordinates_leave_plain_steps(monkeypatch):
    parts = overlapping(MixtureRow("full", prior="flat"))
    plain = EM(max_iter=300, tol=1e-8, acceleration=None).fit(*parts)

    def coordinates(self, posterior):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(vbfast.Model, "coordinates", coordinates)
    np.testing.assert_array_equal(EM(max_iter=300, tol=1e-8).fit(*parts).objectives,
                                  plain.objectives)  # fmt: skip


def test_anderson_solves_a_linear_map_in_as_many_steps_as_it_has_rates():
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    matrix = basis @ np.diag([0.99, 0.9, 0.5, 0.5, 0.5, 0.5]) @ basis.T
    answer = rng.standard_normal(6)
    x = np.zeros(6)
    anderson = Anderson()
    for n in range(5):
        image = answer + matrix @ (x - answer)
        ahead = anderson.propose(x, image)
        assert (ahead is None) == (n == 0)
        x = image if ahead is None else ahead
        anderson.accept()
    np.testing.assert_allclose(x, answer, atol=1e-6)


def test_anderson_goes_away_from_a_saddle():
    """Newton's step would go to it: x grows by 1.1 at each update."""
    anderson = Anderson()
    x, distances = np.array([1.0, 1.0]), []
    for _ in range(8):
        image = x * [1.1, 0.2]
        ahead = anderson.propose(x, image)
        x = image if ahead is None else ahead
        anderson.accept()
        distances.append(x[0])
    assert np.all(np.diff(distances) > 0)
    assert distances[-1] > 1.1**8 * 5


def test_refused_steps_are_forgotten():
    """Of the points before a step that was refused, only the last one is remembered."""
    rng = np.random.default_rng(7)
    points = rng.standard_normal((5, 4))
    images = 0.9 * points + 0.1 * rng.standard_normal((5, 4))
    anderson, fresh = Anderson(), Anderson()
    for x, image in zip(points[:3], images[:3], strict=True):
        anderson.propose(x, image)
    anderson.refuse()
    assert anderson.propose(points[3], images[3]) is None
    for x, image in zip(points[2:4], images[2:4], strict=True):
        fresh.propose(x, image)
    np.testing.assert_array_equal(
        anderson.propose(points[4], images[4]), fresh.propose(points[4], images[4])
    )


def test_small_gains_call_for_a_plain_step():
    class Numbers:
        def coordinates(self, posterior):
            return posterior.buffer.copy()

        def at_coordinates(self, coordinates, like):
            return vbfast.Stats(like.layout, coordinates)

    def stats(x):
        return layout.stats({"x": x})

    layout = Layout((("x", (2,)),))
    extrapolation = Extrapolation(Numbers(), target=1e-6, total_weight=1.0)
    x = np.array([1.0, 2.0])
    for n in range(5):
        assert (extrapolation.propose(stats(x), stats(0.9 * x * [1, 0.9])) is None) == (n < 4)
        extrapolation.observe(1e-3 * 0.9**n, np.inf)
        x = 0.9 * x * [1, 0.9]
    for gain, plain in [(1e-3, False), (2e-6, False), (1e-6, True), (0.0, True)]:
        extrapolation.accept(gain)
        x = 0.9 * x * [1, 0.8]
        assert (extrapolation.propose(stats(x), stats(0.9 * x * [1, 0.9])) is None) == plain
    # Plain steps that foretell more than that to come call for a step ahead again.
    for left, plain in [(1e-3, False), (np.inf, True)]:
        extrapolation.observe(1e-7, left)
        x = 0.9 * x * [1, 0.8]
        assert (extrapolation.propose(stats(x), stats(0.9 * x * [1, 0.9])) is None) == plain


# Options -----------------------------------------------------------------------------------------


def test_acceleration_is_checked():
    for make in (EM, MeanField, VariationalEM):
        assert make().acceleration == "anderson"
        for bad in ("squarem", True, 1, ""):
            with pytest.raises(ValueError, match="acceleration must be 'anderson' or None, not"):
                make(acceleration=bad)
    with pytest.raises(TypeError, match="acceleration"):
        vbfast.CrispEM(acceleration=None)


def test_estimators_take_it_with_a_method():
    row = MixtureRow("full", prior="flat")
    X = np.random.default_rng(1).standard_normal((400, 3))
    X[::2, 0] += 2.2
    assert row.data(X).n_rows == 400
    options = {"random_state": 0, "max_iter": 1000, "tol": 1e-8}
    by_name = vbfast.GaussianMixture(2, **options).fit(X)
    fast = vbfast.GaussianMixture(2, random_state=0, method=EM(1000, 1e-8)).fit(X)
    plain = vbfast.GaussianMixture(2, random_state=0, method=EM(1000, 1e-8, acceleration=None)).fit(
        X
    )
    assert by_name.n_iter_ == fast.n_iter_ < plain.n_iter_ / 2
    assert by_name.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-5)
    assert len(fast.lower_bounds_) == fast.n_iter_ + 1


# Counts and symbols ------------------------------------------------------------------------------

each_discrete = pytest.mark.parametrize("row", DISCRETE, ids=str)


def discrete_start(row, k, d, n=120):
    rng = np.random.default_rng(k + 10 * d)
    proper = dataclasses.replace(row, prior="conjugate")
    values = proper.draw_prior(1, k, d, rng)[1][0]
    labels = rng.integers(k, size=n)
    X = row.draw_rows(values[labels], rng)
    model, data = row.model(k, d), row.data(X, rng.uniform(0.1, 2, n))
    return model, data, starts.from_labels(model, data, labels)


@each_discrete
@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 3), (3, 1), (4, 3)])
def test_discrete_coordinates_there_and_back(row, k, d):
    model, data, start = discrete_start(row, k, d)
    read = model.mean if row.proper else model.mode
    posterior = model.prior + data.sum(model.visit, read(start), EM().assign(0))
    coordinates = model.coordinates(posterior)
    back = model.at_coordinates(coordinates, posterior)
    posterior["log_z"][...] = 0
    np.testing.assert_allclose(back.buffer, posterior.buffer, rtol=1e-11, atol=1e-11)
    # What no row was stays impossible, and nothing else becomes so.
    (name,) = set(dict(model.emission.fields(k))) - {"strength"}
    seen = posterior[name] > model.prior[name]
    rng = np.random.default_rng(0)
    for spread in (0.1, 1.0, 100.0):
        step = spread * rng.standard_normal(len(coordinates))
        out = model.at_coordinates(coordinates + step, posterior)
        if not row.proper:  # beside a prior next to nothing is lost, and not impossible
            np.testing.assert_array_equal(out[name] > model.prior[name], seen)
        assert (out["strength"] - model.prior["strength"]).sum() == pytest.approx(data.total_weight)
        if not row.of_rates:
            tally = (out[name] - model.prior[name]).sum(axis=2)
            np.testing.assert_allclose(
                tally, np.broadcast_to(out["strength"][:, None], tally.shape)
            )
        theta = read(out)
        stats = data.sum(model.visit, theta, EM().assign(0))
        assert np.isfinite(float(stats["log_z"]) + theta.log_prior)


def test_discrete_coordinates_of_an_empty_component():
    for row in DISCRETE[1::4]:
        model, data, start = discrete_start(row, 3, 2)
        labels = np.zeros(data.n_rows, dtype=int)
        labels[::2] = 2
        start = starts.from_labels(model, data, labels)
        coordinates = model.coordinates(start)
        out = model.at_coordinates(coordinates + 0.3, start)
        for name, _ in model.emission.fields(3):
            np.testing.assert_array_equal(out[name][1], start[name][1])


@pytest.mark.parametrize("method", [EM, MeanField])
@pytest.mark.parametrize("row", [r for r in DISCRETE if r.proper], ids=str)
def test_slow_discrete_fits_take_fewer_sweeps(row, method):
    rng = np.random.default_rng(2)
    values = row.draw_prior(1, 1, 3, rng)[1][0]
    # Components that lie close together: slow.
    X = row.draw_rows(np.repeat(values, 300, axis=0), rng)
    model, data = row.model(3, 3), row.data(X)
    start = starts.from_labels(model, data, rng.integers(3, size=300))
    plain = method(max_iter=20_000, tol=1e-9, acceleration=None).fit(model, data, start)
    fitted = method(max_iter=20_000, tol=1e-9).fit(model, data, start)
    assert_climbs(fitted)
    assert fitted.objective > plain.objective - 0.5
    if plain.n_iter > 200:
        assert fitted.n_iter < plain.n_iter


# Hidden Markov models ----------------------------------------------------------------------------

each_chain = pytest.mark.parametrize("row", CHAINS, ids=str)
LENGTHS = [60, 1, 40, 30]


def chain_problem(row, k, d, lengths, seed=0):
    rng = np.random.default_rng([k, d, seed])
    X, states = row.draw_data(k, d, lengths, rng)
    data = row.data(X, lengths)
    model = row.model(k, data)
    states = np.where(rng.random(len(X)) < 0.3, rng.integers(k, size=len(X)), states)
    states[: 4 * k] = np.arange(4 * k) % k
    return model, data, starts.from_labels(model, data, states)


def assert_adds_up(model, posterior, data, n_sequences):
    """First states and transitions counted are of all rows, and each state's rows are those."""
    counted = posterior["excess"] - model.prior["excess"]
    strength = posterior["strength"] - model.prior["strength"]
    assert counted[0].sum() == pytest.approx(n_sequences)
    assert counted[1:].sum() == pytest.approx(data.total_weight - n_sequences)
    np.testing.assert_allclose(counted.sum(axis=0), strength, rtol=1e-9, atol=1e-9)


@each_chain
@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 3), (3, 1), (4, 3)])
def test_coordinates_of_chains_there_and_back(row, k, d):
    model, data, start = chain_problem(row, k, d, LENGTHS)
    posterior = model.prior + data.sum(model.visit, model.mode(start), EM().assign(0))
    assert_adds_up(model, posterior, data, len(LENGTHS))
    coordinates = model.coordinates(posterior)
    back = model.at_coordinates(coordinates, posterior)
    posterior["log_z"][...] = 0
    np.testing.assert_allclose(back.buffer, posterior.buffer, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.coordinates(back), coordinates, rtol=1e-9, atol=1e-9)


@each_chain
def test_any_coordinates_make_a_posterior_of_a_chain(row):
    model, data, start = chain_problem(row, 3, 2, LENGTHS)
    posterior = model.prior + data.sum(model.visit, model.mode(start), EM().assign(0))
    own = model.coordinates(posterior)
    rng = np.random.default_rng(3)
    for spread in (0.1, 1.0, 5.0):
        step = spread * rng.standard_normal(len(own))
        step[model.latent.n_coordinates :] /= max(spread, 1.0)
        out = model.at_coordinates(own + step, posterior)
        assert_adds_up(model, out, data, len(LENGTHS))
        for read in (model.mode, *([model.mean] if row.proper else [])):
            theta = read(out)
            # What is missing stays so; nothing else comes to be.
            np.testing.assert_array_equal(theta.weights > 0, read(posterior).weights > 0)
            if read == model.mode:
                np.testing.assert_allclose(theta.weights.sum(axis=1), 1)
            stats = data.sum(model.visit, theta, EM().assign(0))
            assert np.isfinite(float(stats["log_z"]) + theta.log_prior)


@each_chain
def test_transitions_that_are_not_stay_so(row):
    """Those that nobody took, and a state without rows."""
    model, data, start = chain_problem(row, 3, 2, LENGTHS)
    labels = np.sort(np.arange(data.n_rows) % 3)
    labels[labels == 1] = 0
    start = starts.from_labels(model, data, labels)
    out = model.at_coordinates(model.coordinates(start) + 0.3, start)
    before, after = (each["excess"] - model.prior["excess"] for each in (start, out))
    np.testing.assert_array_equal(after == 0, before == 0)
    assert np.all(after[:, 1] == 0)
    assert np.all(after[2] == 0)
    assert_adds_up(model, out, data, len(LENGTHS))


@each_chain
@pytest.mark.parametrize("method", [EM, MeanField])
def test_slow_fits_of_chains_reach_the_same_optimum(row, method):
    """Never falling, in fewer sweeps."""
    if method is MeanField and not row.proper:
        return
    rng = np.random.default_rng(5)
    _, *values = row.draw_prior(1, 2, 2, rng)
    weights = np.array([[[0.5, 0.5], [0.8, 0.2], [0.3, 0.7]]])
    if len(values) > 1:  # states that overlap: slow
        values[0][0, 1] = values[0][0, 0] + 1.5
        values[1][...] = np.eye(2) if row.emission in ("full", "tied") else 1.0
    lengths = [150, 1, 90, 60]
    states = row.draw_states(weights, lengths, rng)
    X = row.draw_rows(states, rng, *values)[0]
    data = row.data(X, lengths)
    model = row.model(2, data)
    start = starts.from_labels(model, data, np.where(rng.random(len(X)) < 0.2, 0, states[0]))
    plain = method(max_iter=20_000, tol=1e-11, acceleration=None).fit(model, data, start)
    fitted = method(max_iter=20_000, tol=1e-11).fit(model, data, start)
    assert_climbs(fitted)
    assert fitted.converged
    assert fitted.objective == pytest.approx(plain.objective, rel=1e-7)
    np.testing.assert_allclose(fitted.theta.weights, plain.theta.weights, atol=2e-3)
    assert fitted.n_iter < 0.7 * plain.n_iter
