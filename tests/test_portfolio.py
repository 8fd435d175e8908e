"""Default fits end at the best optimum that is known: when they stop, and where they start."""

import warnings
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st

import vbfast
from vbfast import EM, GaussianMixture, HiddenMarkovModel, MixtureModel, _kernels, portfolio, starts
from vbfast._kernels.inputs import Assignment

TABLE = "419 35 2 71 25 5 270 25 4 42 16 5 23 4 1 6 2 0 43 9 2 9 3 2 26 3 0 1 2 0 85 23 6 13 12 8"
GSS82 = np.indices((3, 2, 2, 3)).reshape(4, -1).T.repeat([int(n) for n in TABLE.split()], axis=0)

# When to stop ------------------------------------------------------------------------------------


def stopping(tol=np.nan, total_weight=100.0):
    return _kernels.loop.Stopping(tol, total_weight, 50)


@given(rho=st.floats(0.05, 0.995), first=st.floats(1e-3, 1e6))
def test_geometric_gains_end_where_little_is_left(rho, first):
    rule = stopping()
    n = 0
    while not rule.settled(first * rho**n, 0.0):
        n += 1
        assert n < 10_000
    left = first * rho ** (n + 1) / (1 - rho)
    assert rule.left == pytest.approx(left, rel=1e-6)
    assert left <= rule.target * (1 + 1e-9)
    assert n <= 1 or first * rho**n / (1 - rho) > rule.target * (1 - 1e-9)


def test_growing_gains_are_no_end():
    """However small they are, by either rule."""
    for rule in (stopping(), stopping(1e-3)):
        for n in range(200):
            assert not rule.settled(1e-9 * 1.05**n, 0.0)
            assert rule.left == np.inf


def test_a_tolerance_is_of_a_change_per_row():
    rule = stopping(1e-4, 50.0)
    assert rule.target == pytest.approx(5e-3)
    assert not rule.settled(6e-3, 0.0)
    assert not rule.settled(5.1e-3, 0.0)
    assert rule.settled(4.9e-3, 0.0)
    # A change that is no gain counts as well.
    assert rule.settled(-4e-3, 0.0)


def test_weights_may_be_shares():
    """Of rows that weigh 1 together the same is left, a row, as of rows that weigh 1 each."""
    share = _kernels.loop.Stopping(np.nan, 1.0, 200)
    rows = _kernels.loop.Stopping(np.nan, 200.0, 200)
    heavy = _kernels.loop.Stopping(np.nan, 2000.0, 200)
    assert share.target / 1.0 == pytest.approx(rows.target / 200.0)
    assert heavy.target == rows.target
    X = ref.load("faithful")
    one = GaussianMixture(3, random_state=0).fit(X)
    light = GaussianMixture(3, random_state=0).fit(X, sample_weight=np.full(272, 1 / 272))
    np.testing.assert_allclose(light.means_, one.means_, rtol=1e-4)


def test_rounding_is_an_end():
    assert stopping().settled(1e-9, 1e-8)
    assert stopping().settled(-1e-9, 1e-8)
    assert not stopping(1e-13).settled(1e-9, 1e-8)


def test_updates_after_a_step_ahead_tell_less():
    rule = stopping()
    rule.settled(1e-2, 0.0)
    rule.went_ahead(1.0)
    gains = [1e-5 * 0.1**n for n in range(10)]
    assert [rule.settled(gain, 0.0) for gain in gains].index(True) == 5
    rule = stopping()
    rule.went_ahead(1e-4)
    assert [rule.settled(gain, 0.0) for gain in gains].index(True) == 1


def test_a_fit_goes_on_where_gains_grow():
    """Random labels are next to a saddle, where all components are alike."""
    X = ref.load("faithful")
    data = vbfast.ArrayData.of(X, n_threads=1)
    model = vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(2, frame=data.frame))
    for seed in range(3):
        labels = np.random.default_rng(seed).integers(0, 2, len(X))
        start = starts.from_labels(model, data, labels)
        for method in (EM(), EM(acceleration=None)):
            found = method.fit(model, data, start)
            gains = np.diff(found.objectives)
            assert gains[0] < 1e-2 * len(X)
            assert found.converged
            assert found.objective > found.objectives[0] + 50


@pytest.mark.parametrize("acceleration", [None, "anderson"])
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_little_is_left_after_a_default_fit(kind, acceleration):
    X = ref.load("faithful")
    data = vbfast.ArrayData.of(X, isotropic=kind == "spherical")
    model = vbfast.Model(vbfast.Mixture(3), vbfast.Gaussian(2, kind, frame=data.frame))
    for seed in range(4):
        start = starts.posterior(model, data, "random_from_data", np.random.default_rng(seed))
        found = EM(acceleration=acceleration).fit(model, data, start)
        assert found.converged
        assert found.left <= 1e-3
        end = EM(max_iter=10_000, tol=1e-13, acceleration=None).fit(model, data, found.posterior)
        assert end.objective - found.objective < 0.05


def test_both_loops_stop_at_the_same_sweep():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4, 60, 2)) + 2.5 * rng.integers(0, 2, (4, 60, 1))
    given = {"means_init": [[0, 0], [2, 2]], "weights_init": [0.5, 0.5],
             "precisions_init": [np.eye(2), np.eye(2)]}  # fmt: skip
    for tol in (None, 1e-4):
        method = EM(tol=tol, acceleration=None)
        many = vbfast.fit_many(GaussianMixture(2, method=method, **given), X)
        for s, rows in enumerate(X):
            one = GaussianMixture(2, method=method, **given).fit(rows)
            assert many.n_iter_[s] == one.n_iter_
            assert many.converged_[s]


def test_float32_rows_end_where_float64_ones_do():
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(m, 1, (10_000, 2)) for m in (0, 2.0, 5)])
    estimator = GaussianMixture(3, random_state=0)
    double = estimator.fit(X.astype(np.float32).astype(float)).objective_
    single = estimator.fit(X.astype(np.float32)).objective_
    assert single == pytest.approx(double, abs=0.02)


def test_a_fit_that_ends_too_soon_says_what_is_left():
    X = ref.load("faithful")
    with pytest.warns(vbfast.ConvergenceWarning, match=r"8 iterations: some .* nats seem"):
        GaussianMixture(4, max_iter=8, init_params="kmeans", random_state=0).fit(X)


# The race ----------------------------------------------------------------------------------------


def climb_to(heights, rates):
    """Advance of starts whose number is in the first place: objectives go to a height of theirs."""

    def advance(posteriors, n):
        posteriors[:, 1] += n
        which = posteriors[:, 0].astype(int)
        return heights[which] - 100.0 * rates[which] ** posteriors[:, 1]

    return advance


def race(heights, rates, kinds):
    posteriors = np.array([[number, 0.0] for number in range(len(heights))])
    advance = climb_to(np.array(heights, dtype=float), np.array(rates, dtype=float))
    return portfolio.race(posteriors, np.array(kinds), advance, (12, 24, 24))[:, 0].tolist()


def test_the_best_are_left_one_of_each_optimum():
    found = race([1.0, 5.0, 3.0, 5.0, 2.0, 4.0], [0.5] * 6, [0] * 6)
    assert found == [1.0]
    found = race([1, 5, 3, 5, 2, 4, 9, 9], [0.5] * 8, [0, 0, 0, 0, 1, 1, 2, 2])
    assert found == [6.0, 1.0]


def test_what_is_as_good_as_the_one_before_is_at_its_optimum():
    found = race([5.0, 5.0, 4.0, 4.001, 3.0, 2.0], [0.5] * 6, range(6))
    assert found == [0.0, 2.0]


@pytest.mark.parametrize(("doubt", "kept"), [(np.inf, [1, 2]), (50.0, [1, 2]), (20.0, [1])])
def test_what_may_still_be_the_best_goes_on(doubt, kept):
    """As gains foretell, and by no more than a part of the rows may mislead."""
    # At its end; slow, with much to come; at its end, and lower; degenerate.
    model = vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(1))
    start, _, _ = model.layout.places["strength"]
    heights, rates = np.array([4.0, 5.0, 9.0, np.nan]), np.array([0.5, 0.5, 0.99, 0.5])
    there = np.zeros((4, model.layout.size))
    there[:, start] = [5, 6, 7, 8]  # each of another optimum
    climb, n = climb_to(heights, rates), np.zeros((4, 2))
    n[:, 0] = range(4)

    def advance(posteriors, sweeps):
        return climb(n, sweeps)

    left, most = portfolio._settled(model, there, advance, 30, doubt)
    assert [int(each[start]) - 5 for each in left] == kept
    assert all(top >= heights[number] for number, top in zip(kept, most, strict=True))


def test_a_kind_that_is_slow_at_first_is_not_dropped_for_it():
    heights, rates = [1.0, 2.0, 3.0, 4.0, 50.0, 40.0], [0.1] * 4 + [0.95] * 2
    assert race(heights, rates, [0, 0, 0, 0, 1, 1])[0] == 4.0


def test_degenerate_starts_drop_out():
    assert race([np.nan, 2.0, np.nan, 1.0], [0.5] * 4, [0, 0, 1, 1]) == [1.0]
    assert race([np.nan] * 4, [0.5] * 4, [0, 0, 1, 1]) == [0.0]


@pytest.mark.parametrize("n_components", [2, 3])
def test_a_default_fit_has_the_same_bits_for_any_number_of_threads(n_components):
    X = ref.load("diabetes")
    one = GaussianMixture(n_components, random_state=3, n_threads=1).fit(X)
    two = GaussianMixture(n_components, random_state=3, n_threads=2).fit(X)
    np.testing.assert_array_equal(one.means_, two.means_)
    assert one.objective_ == two.objective_


def test_a_part_of_the_rows_stands_for_all():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(m, 1, (n, 3)) for m, n in ((0, 20_000), (6, 2_000), (12, 500))])
    fitted = GaussianMixture(3, random_state=0).fit(X[rng.permutation(len(X))])
    np.testing.assert_allclose(np.sort(fitted.means_[:, 0]), [0, 6, 12], atol=0.2)
    # Symbols that the part has not seen are not impossible.
    groups = rng.integers(0, 2, (200_000, 1))
    rare = np.concatenate([5 * groups + rng.integers(0, 6, (200_000, 8)), np.full((1, 8), 11)])
    assert np.isfinite(MixtureModel(2, emission="categorical", random_state=0).fit(rare).objective_)


@given(
    d=st.integers(1, 4), n_symbols=st.integers(1, 5), n=st.integers(1, 400), seed=st.integers(0, 99)
)
def test_equal_rows_are_merged(d, n_symbols, n, seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(-1, n_symbols, (n, d)).astype(float)
    weights = None if seed % 2 else rng.integers(0, 3, n) + 1.0
    data = vbfast.ArrayData.of(X, weights, standardise=False)
    merged = data.merged()
    rows, of = np.unique(X, axis=0, return_inverse=True)
    if 2 * len(rows) > n:
        assert merged is data
        return
    np.testing.assert_array_equal(merged.values, rows)
    np.testing.assert_array_equal(merged.weights, np.bincount(of.ravel(), weights))
    assert merged.values.dtype == data.values.dtype
    # Not what may be shares, or is no whole numbers; nor what has no number.
    for other in (
        vbfast.ArrayData.of(X, np.full(n, 1 / n), standardise=False),
        vbfast.ArrayData.of(X + 0.5, standardise=False),
        vbfast.ArrayData.of(np.concatenate([X, np.full((1, d), 1e300)]), standardise=False),
    ):
        if n > 1:
            assert other.merged() is other


def test_rows_are_merged_a_part_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, (1000, 2)).astype(np.float32)
    weights = rng.integers(1, 4, 1000).astype(float)
    of_sparse = np.concatenate([X, 10_000 + X])  # cells that are too many for a weight each
    for rows, own in ((X, weights), (X, None), (of_sparse, np.tile(weights, 2))):
        data = vbfast.ArrayData.of(rows, own, standardise=False)
        whole = data.merged()
        with monkeypatch.context() as patch:
            patch.setattr(vbfast.data, "PORTION", 64)
            parts = data.merged()
        expected, of = np.unique(rows, axis=0, return_inverse=True)
        np.testing.assert_array_equal(whole.values, expected)
        np.testing.assert_array_equal(whole.weights, np.bincount(of.ravel(), own))
        assert parts.values.dtype == np.float32
        np.testing.assert_array_equal(parts.values, whole.values)
        np.testing.assert_array_equal(parts.weights, whole.weights)
    X[-1, 0] = 0.5
    data = vbfast.ArrayData.of(X, standardise=False)
    monkeypatch.setattr(vbfast.data, "PORTION", 64)
    assert data.merged() is data


def test_equal_rows_fit_as_the_table_of_their_counts():
    rows, counts = np.unique(GSS82, axis=0, return_counts=True)
    classes = MixtureModel(2, emission="categorical", random_state=0)
    fitted, table = classes.fit(GSS82), MixtureModel(**classes.get_params())
    table.fit(rows, sample_weight=counts)
    assert fitted.objective_ == pytest.approx(table.objective_, rel=1e-12)
    np.testing.assert_allclose(fitted.weights_, table.weights_, rtol=1e-9)


def test_what_is_given_is_where_a_race_starts():
    X = ref.load("faithful")
    given = {
        "weights_init": [0.3, 0.7],
        "means_init": X[[0, 1]],
        "precisions_init": [np.eye(2)] * 2,
    }
    plain = GaussianMixture(2, init_params="kmeans", **given).fit(X)
    np.testing.assert_array_equal(GaussianMixture(2, **given).fit(X).means_, plain.means_)


# Moves -------------------------------------------------------------------------------------------


def test_moves_leave_a_local_optimum():
    """Two components in one group and one in two: no update leads out."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 300)
    X = np.array([[0.0, 0.0], [20.0, 0.0], [40.0, 0.0]])[groups] + rng.normal(size=(300, 2))
    data = vbfast.ArrayData.of(X, isotropic=True, n_threads=1)
    model = vbfast.Model(vbfast.Mixture(3), vbfast.Gaussian(2, "spherical", frame=data.frame))
    wrong = np.where(groups == 0, rng.integers(0, 2, 300), 2)
    caught = EM().fit(model, data, starts.from_labels(model, data, wrong))
    right = EM().fit(model, data, starts.from_labels(model, data, groups))
    assert caught.objective < right.objective - 100
    moved = starts.moved(model, data, caught.posterior, "mode", 20, rng)
    found = [EM().fit(model, data, vbfast.Stats(model.layout, each)).objective for each in moved]
    assert max(found) == pytest.approx(right.objective, abs=0.01)
    # A race takes some of them, and goes on from the best.
    advance = partial(portfolio._advance, model, data, EM(tol=0.0, acceleration=None))
    caught = caught.posterior.buffer[None].copy()
    left = portfolio._moved(model, data, caught, "mode", advance, portfolio.QUICK, rng)
    assert advance(left[:1], 20)[0] == pytest.approx(right.objective, abs=0.01)


def test_moves_keep_every_row():
    rng = np.random.default_rng(1)
    data = vbfast.ArrayData.of(GSS82, standardise=False, n_threads=1)
    model = vbfast.Model(vbfast.Mixture(4), vbfast.Categorical(4, (3, 2, 2, 3)))
    start = EM().fit(model, data, starts.posterior(model, data, "random", rng)).posterior
    for each in starts.moved(model, data, start, "mode", 12, rng):
        held = vbfast.Stats(model.layout, each)["strength"]
        assert held.sum() == pytest.approx(len(GSS82))
        assert held.min() > 0


# Where default fits end --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_components", "best"), [(2, -2783.268), (3, -2754.545)], ids=["two", "three"]
)
def test_latent_classes(n_components, best):
    for seed in range(3):
        fitted = MixtureModel(n_components, emission="categorical", random_state=seed).fit(GSS82)
        assert fitted.score(GSS82) * len(GSS82) > best - 0.1
        assert fitted.converged_


@pytest.mark.parametrize(
    ("kind", "n_components", "best"),
    [("full", 2, -1130.264), ("full", 3, -1119.214), ("full", 4, -1106.031), ("tied", 2, -1141.9)],
)
def test_old_faithful(kind, n_components, best):
    X = ref.load("faithful")
    for seed in range(4):
        fitted = GaussianMixture(n_components, covariance_type=kind, random_state=seed).fit(X)
        assert fitted.score(X) * len(X) > best - 0.5


def test_long_parallel_groups():
    """k-means cuts them across; BIC picks two."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=300)
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    X = np.column_stack([rng.normal(0, 30, 300), rng.normal(0, 1, 300) + 6 * y]) @ turn
    bic = [GaussianMixture(k, random_state=0).fit(X).bic(X) for k in (1, 2, 3)]
    assert np.argmin(bic) == 1
    labels = GaussianMixture(2, random_state=0).fit_predict(X)
    assert max(np.mean(labels == y), np.mean(labels != y)) > 0.99


def path(rng, n, transmat):
    states = np.zeros(n, dtype=int)
    for t in range(1, n):
        states[t] = rng.choice(len(transmat), p=transmat[states[t - 1]])
    return states


def sticky(k, stay):
    return np.full((k, k), (1 - stay) / (k - 1)) + (stay - (1 - stay) / (k - 1)) * np.eye(k)


def test_states_that_differ_in_spread_alone():
    rng = np.random.default_rng(0)
    states = path(rng, 3000, sticky(2, 0.99))
    X = rng.normal(size=(3000, 1)) * np.where(states, 1.6, 1.0)[:, None]
    for seed in range(2):
        fitted = HiddenMarkovModel(2, random_state=seed).fit(X)
        right = np.mean(fitted.predict(X) == states)
        assert max(right, 1 - right) > 0.9
        assert np.diag(fitted.transmat_).min() > 0.95


def test_stretches_are_told_apart_by_their_spread():
    rng = np.random.default_rng(0)
    states = np.repeat(rng.integers(0, 2, 60), 50)
    X = rng.normal(size=(3000, 1)) * np.where(states, 2.0, 1.0)[:, None]
    data = vbfast.ArrayData.of(X)
    model = vbfast.Model(vbfast.Chain(2), vbfast.Gaussian(1, frame=data.frame))
    for (buffer,) in (starts.of_chain(model, data, [("spread", 25)], rng) for _ in range(3)):
        theta = model.mode(vbfast.Stats(model.layout, buffer))
        deviations = np.sort(1 / (theta.parameters.factor.ravel() * data.frame.scale))
        np.testing.assert_allclose(deviations, [1, 2], rtol=0.1)


def test_states_that_differ_in_what_symbols_they_are_made_up_of():
    rng = np.random.default_rng(1)
    states = path(rng, 4000, sticky(2, 0.99))
    tables = np.array([[0.35, 0.15, 0.15, 0.35], [0.15, 0.35, 0.35, 0.15]])
    X = (tables[states].cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1)[:, None]
    for seed in range(2):
        fitted = HiddenMarkovModel(2, emission="categorical", random_state=seed).fit(X)
        right = np.mean(fitted.predict(X) == states)
        assert max(right, 1 - right) > 0.9


def test_groups_go_to_states_in_the_order_that_zeros_allow():
    rng = np.random.default_rng(2)
    states = np.tile(np.repeat(np.arange(4), 10), 8)
    X = np.array([0.0, 15.0, 5.0, 10.0])[states][:, None] + rng.normal(size=(320, 1))
    transmat = 0.9 * np.eye(4) + np.diag([0.1] * 3, 1)
    transmat[3, 3] = 1
    # Starts have the groups in that order already.
    data = vbfast.ArrayData.of(X, lengths=[40] * 8)
    possible = np.concatenate([np.eye(1, 4), transmat]) > 0
    model = vbfast.Model(vbfast.Chain(4, possible=possible), vbfast.Gaussian(1, frame=data.frame))
    for buffer in starts.of_chain(model, data, [("rows", 1)] * 3, rng):
        theta = model.mode(vbfast.Stats(model.layout, buffer))
        means = data.frame.origin + theta.parameters.means / data.frame.scale
        np.testing.assert_allclose(means[:, 0], [0, 15, 5, 10], atol=0.5)
    for seed in range(3):
        fitted = HiddenMarkovModel(
            4, startprob_init=[1, 0, 0, 0], transmat_init=transmat, random_state=seed
        ).fit(X, lengths=[40] * 8)
        np.testing.assert_allclose(fitted.means_[:, 0], [0, 15, 5, 10], atol=0.5)
        assert (fitted.transmat_[transmat == 0] == 0).all()
        np.testing.assert_array_equal(fitted.startprob_, [1, 0, 0, 0])


def test_arrangements_are_the_best_ones():
    """Of left-to-right chains, few states and many."""
    rng = np.random.default_rng(0)
    for k in (2, 4, 6, 7, 9):
        moves = np.concatenate([np.eye(1, k), np.eye(k) + np.eye(k, k=1)])
        chain = vbfast.Chain(k, possible=moves > 0)
        order = rng.permutation(k)
        counted = np.zeros((k + 1, k))
        counted[0, order[0]] = 8
        for here, there in pairwise(order):
            counted[1 + here, there] = 8
        found = chain.arrangement(counted)
        assert sorted(found) == list(range(k))
        if k <= 6:
            np.testing.assert_array_equal(found[order], np.arange(k))
        else:
            allowed = sum(moves[1 + found[a], found[b]] for a, b in pairwise(order))
            assert allowed >= 0.6 * (k - 1)


def test_long_chains_race_on_stretches():
    rng = np.random.default_rng(3)
    states = path(rng, 12_000, sticky(3, 0.98))
    X = 4.0 * states[:, None] + rng.normal(size=(12_000, 1))
    part = starts.stretches_of(vbfast.ArrayData.of(X), rng)
    assert len(part.values) < 6_000
    assert part.sequences.offsets[-1] == len(part.values)
    fitted = HiddenMarkovModel(3, random_state=0).fit(X)
    np.testing.assert_allclose(np.sort(fitted.means_[:, 0]), [0, 4, 8], atol=0.2)


# Spurious maxima ---------------------------------------------------------------------------------


def with_twins():
    """Two groups, and two rows that all but coincide."""
    rng = np.random.default_rng(4)
    X = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(8, 1, (60, 2))])
    return np.concatenate([X, [[3.0, 3.0], [3.0, 3.0 + 1e-4], [3.0 + 1e-4, 3.0]]])


def test_a_spurious_maximum_does_not_win():
    X = with_twins()
    labels = np.repeat([0, 1, 2], [60, 60, 3])
    means = [X[labels == k].mean(axis=0) for k in range(3)]
    precisions = [np.eye(2), np.eye(2), 1e5 * np.eye(2)]
    given = {"means_init": means, "precisions_init": precisions, "init_params": "kmeans"}
    spurious = GaussianMixture(3, weights_init=[0.49, 0.49, 0.02], **given).fit(X)
    assert spurious.weights_.min() < 5 / len(X)
    for seed in range(3):
        found = GaussianMixture(3, random_state=seed).fit(X)
        assert found.objective_ < spurious.objective_
        assert found.weights_.min() >= 4 / len(X)


def test_a_spurious_maximum_is_behind_others_in_a_race():
    X = with_twins()
    data = vbfast.ArrayData.of(X)
    model = vbfast.Model(vbfast.Mixture(3), vbfast.Gaussian(2, frame=data.frame))
    labels = [np.repeat([0, 1, 2], [60, 60, 3]), np.repeat([0, 1, 2], [60, 40, 23])]
    there = np.array([starts.from_labels(model, data, each).buffer for each in labels])
    advance = partial(portfolio._advance, model, data, EM(tol=0.0, acceleration=None))
    spurious, other = advance(there.copy(), 1)
    assert spurious > other
    spurious, other = portfolio._sound_first(model, 1.0, advance, there, 1)
    assert spurious < other


def test_a_fit_with_no_other_end_says_so():
    X = np.concatenate([np.zeros((1, 2)), np.eye(2), [[9.0, 9.0], [9.5, 9.0], [9.0, 9.7]]])
    with pytest.warns(vbfast.SpuriousWarning, match=r"component [01] is close to fewer than 4 row"):
        GaussianMixture(2, random_state=0).fit(X)


def test_a_prior_makes_few_rows_enough():
    X = np.concatenate([np.zeros((1, 2)), np.eye(2), [[9.0, 9.0], [9.5, 9.0], [9.0, 9.7]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianMixture(2, random_state=0, method="mean_field").fit(X)
        GaussianMixture(2, random_state=0, covariance_prior=np.eye(2),
                        degrees_of_freedom_prior=4.0).fit(X)  # fmt: skip


def test_updates_go_on_where_steps_ahead_led_into_a_singularity(monkeypatch):
    """A step ahead is taken to where theta can be read, but not after the next update."""
    X = ref.load("faithful")
    data = vbfast.ArrayData.of(X)
    model = vbfast.Model(vbfast.Mixture(4), vbfast.Gaussian(2, frame=data.frame))
    start = starts.from_labels(model, data, ref.labels("faithful")[:, 3])
    plain = EM(max_iter=2000, acceleration=None).fit(model, data, start)
    ahead, failed = [], []
    original, mode = vbfast.Model.at_coordinates, vbfast.Model.mode

    def at_coordinates(self, coordinates, like):
        ahead.append(original(self, coordinates, like))
        return ahead[-1]

    def fails_once(self, posterior):
        if len(ahead) >= 3 and not failed and posterior is not ahead[-1]:
            failed.append(len(ahead))
            raise vbfast.DegenerateError("component 0")
        return mode(self, posterior)

    monkeypatch.setattr(vbfast.Model, "at_coordinates", at_coordinates)
    read = partial(fails_once, model)
    monkeypatch.setattr(vbfast.Model, "mode", lambda self, posterior: read(posterior))
    fitted = EM(max_iter=2000).fit(model, data, start)
    # Nothing is extrapolated from then on.
    assert failed == [len(ahead)]
    assert fitted.converged
    assert fitted.objective == pytest.approx(plain.objective, abs=0.01)
    stats = data.sum(model.visit, fitted.theta, Assignment("exact"))
    assert float(stats["log_z"]) == pytest.approx(fitted.objective)
