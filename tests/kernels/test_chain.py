"""The compiled recursions of hidden Markov chains against plain references."""

import dataclasses
import functools
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import reference as ref
from scipy.special import logsumexp
from scipy.stats import chisquare
from test_kernels import Data, Theta, assert_statistics, assert_tally

from vbfast import _kernels
from vbfast._kernels.inputs import Assignment, Block, Coefficients, Sequences

LEVELS = _kernels.available_levels()
EMISSIONS = ("full", "tied", "diag", "spherical")
KINDS = {
    "exact": {"statistics", "log_z", "labels", "q"},
    "filter": {"log_z", "labels", "q"},
    "hard": {"statistics", "labels"},
    "draw": {"statistics", "labels"},
    "factorised": {"statistics", "q"},
    "given": {"statistics"},
}
# Rows that the 8 spans of a bundle have at most, at K = 8 or more: see STEPS in chain.pyx.
BUNDLE_ROWS = 8 * 1024


def sequences(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(offsets, np.argsort(-np.diff(offsets), kind="stable"))


def random_chain(rng, k, stay=2.0):
    start = rng.dirichlet(np.ones(k))
    transitions = rng.dirichlet(np.ones(k), k) + stay * np.eye(k)
    return start, transitions / transitions.sum(axis=1, keepdims=True)


class Chain:
    """Sequences of rows, their scores, and the chain that they are visited with."""

    def __init__(self, scores, start, transitions, lengths, data, emission, coefficients, offsets):
        self.scores, self.start, self.transitions = scores, start, transitions
        self.lengths = np.asarray(lengths)
        self.sequences = sequences(lengths)
        self.data, self.emission = data, emission
        latent = np.concatenate([start, transitions.ravel()])
        self.theta = Coefficients(emission, coefficients, offsets, latent=latent)

    @classmethod
    def of_gaussians(cls, rng, covariance_type, k, d, lengths, stay=2.0, **layout):
        theta = Theta(rng, covariance_type, k, d)
        return cls.of(rng, theta, Data(rng, sum(lengths), d, **layout), lengths, stay)

    @classmethod
    def of(cls, rng, theta, data, lengths, stay=2.0):
        """States with the components of a Theta or DiscreteTheta."""
        told = theta.kernel()
        offsets = theta.offsets - np.log(theta.weights)
        scores = theta.scores(data.rows) - np.log(theta.weights)
        scores -= np.reshape(theta.emission.log_base(data.rows), (-1, 1))
        chain = cls(
            scores, *random_chain(rng, len(offsets), stay), lengths, data, told.emission,
            told.coefficients, offsets,
        )  # fmt: skip
        chain.theta.n_categories = told.n_categories
        chain.components = theta
        return chain

    @classmethod
    def of_scores(cls, scores, start, transitions, lengths=None):
        """Any scores <= 0: -(1e10 x_k)^2 / 2 for state k, of a feature that it alone sees."""
        n, k = scores.shape
        data = Data(np.random.default_rng(0), 1, k)
        # What has a finite square, but not in units of the standard deviation.
        data.values = np.minimum(1e-10 * np.sqrt(-2 * scores), 1e150)
        data.origin, data.scale = np.zeros(k), np.ones(k)
        factors = 1e10 * np.eye(k).ravel()
        coefficients = np.concatenate([np.zeros(k * (1 + k)), factors, np.zeros(k * k)])
        return cls(
            scores, np.asarray(start, float), np.asarray(transitions, float), lengths or [n], data,
            "diag", coefficients, np.zeros(k),
        )  # fmt: skip

    def parts(self):
        for begin, end in zip(self.sequences.offsets[:-1], self.sequences.offsets[1:], strict=True):
            yield slice(begin, end), (self.scores[begin:end], self.start, self.transitions)

    def block(self, n_threads=1, first_row=0, labels=None):
        block = self.data.block(None, n_threads, first_row)
        block.labels, block.sequences = labels, self.sequences
        return block

    def visit(self, kind, level=LEVELS[-1], n_threads=1, wanted=None, labels=None, **more):
        kernel = _kernels.load(level).chain
        n, d = self.data.values.shape
        k = len(self.start)
        out = {}
        for name in KINDS[kind] if wanted is None else wanted:
            out[name] = {
                "statistics": lambda: np.full(
                    kernel.statistics_size(self.emission, k, d, self.theta.n_categories), np.nan
                ),
                "log_z": lambda: np.full(n, np.nan),
                "labels": lambda: np.full(n, -7, dtype=np.int64),
                "q": lambda: np.full((n, k), np.nan),
            }[name]()
        block = self.block(n_threads, more.pop("first_row", 0), labels)
        impossible = kernel.visit(block, self.theta, Assignment(kind, **more), **out)
        found = {**out, "impossible": impossible}
        if "statistics" in out:
            raw = out["statistics"]
            found["objective"], found["counts"] = raw[0], raw[1 : 1 + k]
            found["start"] = raw[1 + k : 1 + 2 * k]
            found["transitions"] = raw[1 + 2 * k : 1 + (2 + k) * k].reshape(k, k)
            found["emission"] = raw[1 + (2 + k) * k :]
        return found

    @functools.cached_property
    def smoothed(self):
        """forward_backward of every sequence."""
        return [ref.forward_backward(*part) for _, part in self.parts()]

    def expected(self, kind, labels=None):
        """The references' q, log_z or objectives, start and transitions, of a possible chain."""
        k = len(self.start)
        q, log_z, objective = np.zeros_like(self.scores), np.zeros(len(self.scores)), 0.0
        start, transitions = np.zeros(k), np.zeros((k, k))
        for i, (rows, part) in enumerate(self.parts()):
            if kind in ("exact", "filter"):
                log_z[rows], filtered, smoothed, pairs = self.smoothed[i]
                q[rows] = filtered if kind == "filter" else smoothed
                objective += log_z[rows].sum()
            else:
                path = labels[rows] if kind == "given" else None
                if kind == "hard":
                    path, value = ref.viterbi(*part)
                    objective += value
                    if labels is not None and np.any(labels[rows] != path):
                        # Equal but for rounding.
                        other = ref.path_value(labels[rows], *part)
                        assert other == pytest.approx(ref.path_value(path, *part), rel=1e-12)
                        path = labels[rows]
                q[rows] = ref.one_hot(path, k)
                pairs = ref.count_path(path, k)
            start += q[rows][0]
            transitions += pairs
        return {
            "q": q, "log_z": log_z, "objective": objective, "start": start,
            "transitions": transitions, "counts": q.sum(axis=0),
        }  # fmt: skip

    def assert_all_as_expected(self, tolerance=1e-10, levels=LEVELS):
        for kind in ("exact", "filter", "hard"):
            for level in levels:
                self.assert_as_expected(kind, tolerance, level=level)

    def assert_as_expected(self, kind, tolerance=1e-10, **more):
        found = self.visit(kind, **more)
        expected = self.expected(kind, found["labels"] if kind == "hard" else more.get("labels"))
        assert found["impossible"] == -1
        n, size = len(self.scores), 1 + np.abs(expected["log_z"])
        if "log_z" in found:
            assert np.all(np.abs(found["log_z"] - expected["log_z"]) <= tolerance * size)
        if "q" in found:
            np.testing.assert_allclose(found["q"], expected["q"], rtol=0, atol=tolerance)
        if "labels" in found:
            # The largest but for rounding.
            best = expected["q"][np.arange(n), found["labels"]]
            assert np.all(best >= expected["q"].max(axis=1) - tolerance)
        if "statistics" in found:
            for name in ("counts", "start", "transitions"):
                np.testing.assert_allclose(
                    found[name], expected[name], rtol=0, atol=tolerance * n, err_msg=name
                )
            assert found["objective"] == pytest.approx(
                expected["objective"], rel=1e-12, abs=1e-12 * n
            )
            self.assert_emission(found, expected["q"])
        return found

    def assert_emission(self, found, q):
        """What the emission got are the moments of rows weighted by q."""
        raw = np.concatenate([[0.0], found["counts"], found["emission"]])
        n = len(q)
        if not hasattr(self, "components"):
            return
        if self.emission in EMISSIONS:
            rows, weight = self.data.rows, np.ones(n)
            assert_statistics(self.components, raw, rows, weight, q, np.zeros(n), 1e-10)
        else:
            assert_tally(self.components, raw, self.data.rows, q)


# Against the references ---------------------------------------------------------------------------


MIXED = [1, 7, 300, 2, 1, 60, 33, 32, 31, 8, 9, 129, 128, 127, 1, 255, 64, 5, 5, 5, 17]


@pytest.mark.parametrize("emission", EMISSIONS)
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 17, 40])
def test_many_sequences(emission, k):
    rng = np.random.default_rng([k, EMISSIONS.index(emission)])
    chain = Chain.of_gaussians(rng, emission, k, int(rng.integers(1, 12)), MIXED)
    chain.assert_all_as_expected()
    labels = rng.integers(k, size=sum(MIXED))
    for level in LEVELS:
        chain.assert_as_expected("given", level=level, labels=labels)


@pytest.mark.parametrize(
    ("k", "lengths"),
    [
        # Alone, cut into 8 spans; too short for that; beside others as long, not cut.
        (3, [256]), (2, [263]), (3, [255]), (2, [300] * 5), (2, [2048] * 4),
        # Longer than two spans: always cut, and from 8 spans on into several bundles.
        (8, [2049] * 9), (9, [BUNDLE_ROWS]), (8, [BUNDLE_ROWS + 1]),
        (8, [3 * BUNDLE_ROWS - 5, 40, 1]), (17, [2500, BUNDLE_ROWS + 500]), (2, [33_000]),
    ],
)  # fmt: skip
def test_long_sequences(k, lengths):
    rng = np.random.default_rng([k, *lengths])
    Chain.of_gaussians(rng, "full", k, 3, lengths).assert_all_as_expected()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("layout", ["C", "F", "reversed", "strided", "read-only"])
@pytest.mark.parametrize("d", [1, 2, 3, 8, 9, 20])
def test_rows_of_any_layout(dtype, layout, d):
    rng = np.random.default_rng(d)
    lengths = [40, 3, 70, 1, 1, 2, 9, 33, 600]
    chain = Chain.of_gaussians(rng, "diag", 3, d, lengths, dtype=dtype, layout=layout)
    chain.assert_all_as_expected()


@pytest.mark.parametrize("n", [1, 5, 8, 9, 2000])
def test_sequences_of_one_row(n):
    Chain.of_gaussians(np.random.default_rng(n), "full", 3, 2, [1] * n).assert_all_as_expected()


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_without_sequences_is_one(kind):
    rng = np.random.default_rng(2)
    chain = Chain.of_gaussians(rng, "diag", 3, 2, [700])
    labels = rng.integers(3, size=700)
    expected = chain.visit(kind, labels=labels)
    chain.sequences = None
    found = chain.visit(kind, labels=labels)
    for name in KINDS[kind]:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize(("k", "stay"), [(2, 5.0), (3, 0.0)])
def test_log_likelihood_to_the_last_digits(k, stay):
    rng = np.random.default_rng(k)
    for lengths in ([10_000], [100] * 50):
        chain = Chain.of_gaussians(rng, "full", k, 3, lengths, stay)
        precise = sum(ref.precise_log_likelihood(*part) for _, part in chain.parts())
        for level in LEVELS:
            found = chain.visit("exact", level)
            assert found["objective"] == pytest.approx(precise, rel=1e-12)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("t", [1, 2, 5, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_enumeration(k, t, zeros):
    rng = np.random.default_rng([k, t])
    for _ in range(5):
        start, transitions = random_chain(rng, k)
        if zeros:
            # The diagonal stays.
            transitions[rng.random((k, k)) < 0.4 * (1 - np.eye(k))] = 0
        chain = Chain.of_scores(-5 * rng.random((t, k)), start, transitions)
        paths, log_joint = ref.enumerate_chain(chain.scores, start, transitions)
        log_z = logsumexp(log_joint)
        posterior = np.exp(log_joint - log_z)
        q = np.stack([posterior @ (paths == j) for j in range(k)], axis=1)
        pairs = sum(p * ref.count_path(path, k) for p, path in zip(posterior, paths, strict=True))
        found = chain.visit("exact")
        assert found["objective"] == pytest.approx(log_z, abs=1e-12)
        assert found["log_z"].sum() == pytest.approx(log_z, abs=1e-12)
        np.testing.assert_allclose(found["q"], q, atol=1e-13)
        np.testing.assert_allclose(found["start"], q[0], atol=1e-13)
        np.testing.assert_allclose(found["transitions"], pairs, atol=1e-13)
        found = chain.visit("filter")
        for row in range(t):
            before = Chain.of_scores(chain.scores[: row + 1], start, transitions)
            last = before.visit("exact")["q"][row]
            np.testing.assert_allclose(found["q"][row], last, atol=1e-13)
        found = chain.visit("hard")
        assert found["objective"] == pytest.approx(log_joint.max(), abs=1e-12)
        np.testing.assert_array_equal(found["labels"], paths[log_joint.argmax()])
        found = chain.visit("draw", seed=5)
        drawn = np.flatnonzero((paths == found["labels"]).all(axis=1))
        assert found["objective"] == pytest.approx(log_joint[drawn[0]], abs=1e-12)
        found = chain.visit("factorised")
        assert found["objective"] <= log_z + 1e-12


def test_statistics_alone_are_the_same():
    rng = np.random.default_rng(1)
    chain = Chain.of_gaussians(rng, "full", 3, 2, [2600, 40, 30, 20, 3])
    labels = rng.integers(3, size=len(chain.scores))
    for kind in set(KINDS) - {"filter"}:
        alone = chain.visit(kind, wanted=["statistics"], labels=labels)
        with_all = chain.visit(kind, labels=labels)
        np.testing.assert_array_equal(alone["statistics"], with_all["statistics"])
    everything = chain.visit("exact")
    for name in ("log_z", "labels", "q"):
        np.testing.assert_array_equal(chain.visit("exact", wanted=[name])[name], everything[name])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[30_000], [2500, 2300] + [90] * 200, [3] * 3000])
def test_any_number_of_threads(level, kind, lengths):
    rng = np.random.default_rng(3)
    if kind == "factorised":
        # Sequences take their turns, whatever their length.
        lengths = [length // 20 + 1 for length in lengths]
    chain = Chain.of_gaussians(rng, "full", 4, 2, lengths)
    labels = rng.integers(4, size=len(chain.scores))
    one = chain.visit(kind, level, 1, labels=labels)
    for n_threads in (2, 3):
        other = chain.visit(kind, level, n_threads, labels=labels)
        for name in KINDS[kind]:
            np.testing.assert_array_equal(other[name], one[name])


@pytest.mark.parametrize("kind", ["exact", "hard", "given", "factorised", "draw"])
def test_the_whole_is_the_sum_over_its_sequences(kind):
    rng = np.random.default_rng(4)
    lengths = [2700, 40, 8, 300, 1, 90]
    chain = Chain.of_gaussians(rng, "diag", 3, 2, lengths)
    labels = rng.integers(3, size=len(chain.scores))
    whole = chain.visit(kind, labels=labels)
    total = 0.0
    values, chain_sequences = chain.data.values, chain.sequences
    for begin, end in zip(chain_sequences.offsets[:-1], chain_sequences.offsets[1:], strict=True):
        chain.data.values, chain.sequences = values[begin:end], sequences([end - begin])
        found = chain.visit(kind, labels=labels[begin:end], first_row=int(begin))
        total = total + found["statistics"]
        for name in KINDS[kind] - {"statistics"}:
            np.testing.assert_allclose(found[name], whole[name][begin:end], rtol=0, atol=1e-9)
    # Coordinate ascent stops a little before its end.
    tolerance = 1e-6 if kind == "factorised" else 1e-11
    np.testing.assert_allclose(whole["statistics"], total, rtol=tolerance, atol=tolerance)


# Chains that forget slowly, or never, and zeros ---------------------------------------------------


def left_to_right(k):
    transitions = 0.5 * (np.eye(k) + np.eye(k, k=1))
    transitions[-1, -1] = 1
    return np.eye(k)[0], transitions


@pytest.mark.parametrize("n", [7, 90, 700, 5000])
def test_left_to_right(n):
    rng = np.random.default_rng(n)
    chain = Chain.of_scores(-3 * rng.random((n, 5)), *left_to_right(5))
    chain.assert_all_as_expected()
    lengths = [n // 2, n - n // 2 - 1, 1]
    Chain.of_scores(chain.scores, *left_to_right(5), lengths).assert_all_as_expected()


@pytest.mark.parametrize("n", [5000, 17_000])
@pytest.mark.parametrize("leak", [0.0, 1e-300, 1e-90, 1e-9, 1e-4, 1e-2])
@pytest.mark.parametrize("spread", [0.0, 0.01, 3.0])
def test_a_chain_that_stays_where_it_is(n, leak, spread):
    rng = np.random.default_rng(n)
    transitions = np.where(np.eye(8) == 1, 1 - 7 * leak, leak)
    chain = Chain.of_scores(-spread * rng.random((n, 8)), np.arange(1, 9) / 36, transitions)
    # Log odds of hundreds of nats, from sums over all rows.
    chain.assert_all_as_expected(1e-9, LEVELS[-1:])


@pytest.mark.parametrize("n", [BUNDLE_ROWS, 3 * BUNDLE_ROWS])
@pytest.mark.parametrize("told", ["first", "last"])
def test_rows_that_tell_states_apart_are_far_between(n, told):
    """What comes before a span is forgotten in its last rows, what comes after is not, or so."""
    rng = np.random.default_rng(n)
    transitions = np.where(np.eye(8) == 1, 1 - 7e-6, 1e-6)
    scores = np.zeros((n, 8))
    # One row of a span tells its state.
    rows = np.arange(20 if told == "first" else BUNDLE_ROWS // 8 - 20, n, BUNDLE_ROWS // 8)
    scores[rows] = -2000 * (1 - ref.one_hot(rng.integers(8, size=len(rows)), 8))
    Chain.of_scores(scores, np.full(8, 0.125), transitions).assert_all_as_expected(
        1e-9, LEVELS[-1:]
    )


@pytest.mark.parametrize("n", [10, 3000])
@pytest.mark.parametrize("zeros", [False, True])
def test_scores_far_apart(n, zeros):
    """What can't be for one row is regained by a transition, or not, if that has probability 0."""
    rng = np.random.default_rng(n)
    start, transitions = random_chain(rng, 3)
    if zeros:
        # A cycle: one's way is known from where one starts.
        start, transitions = np.array([0.6, 0.4, 0.0]), np.roll(np.eye(3), 1, axis=1)
    scores = -2000 * rng.integers(0, 2, (n, 3)) - rng.random((n, 3))
    chain = Chain.of_scores(scores, start, transitions)
    chain.assert_all_as_expected(1e-8 if zeros else 1e-10)


@pytest.mark.parametrize("kind", ["exact", "filter"])
def test_a_state_that_one_row_all_but_rules_out_may_be_the_only_one(kind):
    """The first row says state 1, by 2000 nats; the second can be reached from state 0 only."""
    scores = np.array([[-2000.0, 0.0], [0.0, 0.0], [-3.0, -1.0]])
    transitions = np.array([[0.5, 0.5], [0.0, 1.0]])
    impossible_beside = np.array([[-1.0, -1.0], [-0.0, -np.inf], [-1.0, -2.0]])
    for n in (1, 40):
        chain = Chain.of_scores(
            np.tile(np.concatenate([scores + impossible_beside, scores]), (n, 1)), [0.5, 0.5],
            transitions, [3] * (2 * n),
        )  # fmt: skip
        chain.assert_as_expected(kind)


@pytest.mark.parametrize("n", [1, 300])
def test_what_underflows_may_be_the_truth_in_the_end(n):
    # Below exp(-708) in the first row, and the likeliest after four.
    lost = np.array([[-800.0, 0], [0, -400], [0, -400], [0, -400]])
    chain = Chain.of_scores(
        np.tile(lost, (n, 1)), [0.5, 0.5], [[0.5, 0.5], [0.0, 1.0]], [4] * n
    )  # fmt: skip
    chain.assert_all_as_expected()
    # Through a state of 1e-150 and a transition of 1e-250, whose product is no number.
    rows = np.tile([-100.0, -100, 0], (20, 1))
    rows[0] = 0
    transitions = [[1, 0, 0], [0, 1, 1e-250], [0, 0, 1]]
    chain = Chain.of_scores(np.tile(rows, (n, 1)), [1, 1e-150, 0], transitions, [20] * n)
    chain.assert_all_as_expected()
    assert chain.visit("exact")["q"][-1, 2] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["exact", "draw", "filter", "hard", "factorised"])
def test_transitions_that_sum_to_less_than_one(kind):
    rng = np.random.default_rng(8)
    lengths = [40, 2500]
    chain = Chain.of_gaussians(rng, "full", 3, 2, lengths)
    latent = chain.theta.latent * np.exp(-rng.random(12))
    chain.start, chain.transitions = latent[:3], latent[3:].reshape(3, 3)
    chain.theta = Coefficients("full", chain.theta.coefficients, chain.theta.offsets, latent=latent)
    if kind in ("draw", "factorised"):
        assert np.isfinite(chain.visit(kind)["statistics"]).all()
    else:
        chain.assert_as_expected(kind)


# Rows without probability -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exact", "filter", "hard", "draw", "factorised"])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("length", [1, 6, 400, 9000])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_impossible_row(kind, zeros, length, place):
    rng = np.random.default_rng([length, zeros])
    start, transitions = random_chain(rng, 3)
    if zeros:
        start, transitions = left_to_right(3)
    lengths = [5, 5, length, 5, 30]
    scores = -3 * rng.random((sum(lengths), 3))
    bad = 10 + round(place * (length - 1))
    # What rules out every state, or those that can be reached.
    scores[bad, : 1 if zeros and bad == 10 else 3] = -np.inf
    chain = Chain.of_scores(scores, start, transitions, lengths)
    found = chain.visit(kind)
    assert found["impossible"] == bad
    for name in KINDS[kind]:
        assert not np.isnan(found[name]).any(), name
    if "statistics" in found:
        assert found["objective"] == -np.inf
    rest = np.r_[0:10, 10 + length : sum(lengths)]
    possible = Chain.of_scores(scores[rest], start, transitions, [5, 5, 5, 30])
    expected = possible.visit(kind)
    if "log_z" in found:
        assert np.all(found["log_z"][bad : 10 + length] == -np.inf)
        before = ref.forward_backward(scores[10 : 10 + length], start, transitions)[0]
        np.testing.assert_allclose(found["log_z"][10:bad], before[: bad - 10], rtol=1e-10)
        np.testing.assert_allclose(found["log_z"][rest], expected["log_z"], rtol=1e-12)
    if "q" in found:
        np.testing.assert_allclose(found["q"][rest], expected["q"], rtol=0, atol=1e-12)
    if "labels" in found and kind != "draw":
        np.testing.assert_array_equal(found["labels"][rest], expected["labels"])


def test_the_first_of_several_impossible_rows():
    scores = np.zeros((40, 2))
    scores[[17, 12, 35]] = -np.inf
    for lengths in ([40], [10, 20, 10], [14, 3, 23]):
        chain = Chain.of_scores(scores, [0.5, 0.5], np.full((2, 2), 0.5), lengths)
        for kind in ("exact", "filter", "hard", "draw", "factorised"):
            assert chain.visit(kind)["impossible"] == 12


def test_a_state_without_any_chance():
    """Its scores are as low as they get: -1.7e308, -inf, or NaN by inf - inf."""
    rng = np.random.default_rng(3)
    for n in (30, 3000):
        chain = Chain.of_gaussians(rng, "full", 3, 2, [n])
        offsets = chain.theta.offsets.copy()
        chain.scores[:, 1] = -np.inf
        for low in (-1.7e308, -1.75e308, -np.inf, np.nan):
            chain.theta.offsets[:] = offsets
            chain.theta.offsets[1] = low
            for kind in ("exact", "filter", "hard"):
                found = chain.assert_as_expected(kind)
                assert not np.any(found["labels"] == 1)
            chain.theta.offsets[:] = low
            assert chain.visit("exact")["impossible"] == 0


# Paths --------------------------------------------------------------------------------------------


def test_among_equals_the_first_state():
    for n in (1, 9, 300):
        chain = Chain.of_scores(np.zeros((n, 4)), np.full(4, 0.25), np.full((4, 4), 0.25))
        for kind in ("exact", "filter", "hard"):
            assert not chain.visit(kind)["labels"].any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("engine", ["scaled", "logarithms"])
def test_paths_are_drawn_with_their_probabilities(level, engine):
    rng = np.random.default_rng(11)
    n, t, k = 20_000, 4, 2
    start, transitions = random_chain(rng, k, stay=0.5)
    scores = -2 * rng.random((t, k))
    if engine == "logarithms":
        # A transition so unlikely that all is left to logarithms, regained by a score.
        transitions[0] = [1 - 1e-110, 1e-110]
        scores[2, 0] -= 110 * np.log(10)
    paths, log_joint = ref.enumerate_chain(scores, start, transitions)
    chain = Chain.of_scores(np.tile(scores, (n, 1)), start, transitions, [t] * n)
    found = chain.visit("draw", level, seed=3, sweep=2)
    drawn = found["labels"].reshape(n, t) @ k ** np.arange(t)[::-1]
    counts = np.bincount(drawn, minlength=len(paths))
    expected = n * np.exp(log_joint - logsumexp(log_joint))
    assert not counts[expected < 1e-9].any()
    often = expected > 5
    table = np.append(counts[often], n - counts[often].sum())
    total = np.append(expected[often], n - expected[often].sum())
    kept = total > 1e-6
    assert chisquare(table[kept], total[kept] * table.sum() / total[kept].sum()).pvalue > 1e-4
    assert found["objective"] == pytest.approx(log_joint[drawn].sum(), rel=1e-10)
    np.testing.assert_array_equal(found["counts"], np.bincount(found["labels"], minlength=k))


def test_drawn_states_follow_the_marginals_of_a_long_sequence():
    rng = np.random.default_rng(12)
    chain = Chain.of_gaussians(rng, "full", 3, 2, [9000])
    exact = chain.visit("exact")
    sums, pairs, n = 0, 0, 60
    for sweep in range(n):
        found = chain.visit("draw", n_threads=2, seed=1, sweep=sweep)
        q = ref.one_hot(found["labels"], 3)
        np.testing.assert_array_equal(found["counts"], q.sum(axis=0))
        np.testing.assert_array_equal(found["transitions"], ref.count_path(found["labels"], 3))
        chain.assert_emission(found, q)
        sums, pairs = sums + q, pairs + found["transitions"]
    deviation = (sums - n * exact["q"]) / np.sqrt(n * exact["q"] * (1 - exact["q"]) + 1e-9)
    assert np.mean(deviation[exact["q"] > 0.05] ** 2) == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(pairs / n, exact["transitions"], rtol=0.02, atol=5)


def test_draws_are_those_of_the_row_and_the_sweep():
    rng = np.random.default_rng(13)
    chain = Chain.of_gaussians(rng, "full", 3, 2, [400, 30])
    first = chain.visit("draw", seed=1, sweep=1)["labels"]
    np.testing.assert_array_equal(chain.visit("draw", seed=1, sweep=1)["labels"], first)
    for other in ({"seed": 2, "sweep": 1}, {"seed": 1, "sweep": 2},
                  {"seed": 1, "sweep": 1, "first_row": 1000}):  # fmt: skip
        assert np.any(chain.visit("draw", **other)["labels"] != first)


# Factorised ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("lengths", [[6], [1, 1], [90, 3, 40], [260]])
def test_factorised(level, zeros, lengths):
    rng = np.random.default_rng(lengths)
    n = sum(lengths)
    start, transitions = left_to_right(3) if zeros else random_chain(rng, 3)
    chain = Chain.of_scores(-3 * rng.random((n, 3)), start, transitions, lengths)
    found = chain.visit("factorised", level)
    objective, starts, pairs = 0.0, 0.0, 0.0
    for rows, part in chain.parts():
        if zeros:
            q = ref.one_hot(ref.viterbi(*part)[0], 3).astype(float)
        else:
            q = ref.forward_backward(*part)[2]
        expected, energy = ref.factorise_chain(q, *part)
        q = found["q"][rows]
        assert ref.chain_free_energy(q, *part) == pytest.approx(energy, rel=1e-10)
        np.testing.assert_allclose(q, expected, rtol=0, atol=1e-4)
        objective += energy
        starts, pairs = starts + q[0], pairs + q[:-1].T @ q[1:]
    assert found["objective"] == pytest.approx(objective, rel=1e-10)
    np.testing.assert_allclose(found["start"], starts, atol=1e-12)
    np.testing.assert_allclose(found["transitions"], pairs, atol=1e-9)
    np.testing.assert_allclose(found["counts"], found["q"].sum(axis=0), atol=1e-9)
    exact = sum(ref.forward_backward(*part)[0].sum() for _, part in chain.parts())
    assert found["objective"] <= exact + 1e-9


def test_factorised_statistics_are_of_its_q():
    rng = np.random.default_rng(14)
    chain = Chain.of_gaussians(rng, "full", 3, 2, [500, 40, 2])
    found = chain.visit("factorised", n_threads=2)
    np.testing.assert_allclose(found["q"].sum(axis=1), 1, atol=1e-12)
    chain.assert_emission(found, found["q"])


# Arguments ----------------------------------------------------------------------------------------


def test_no_rows():
    chain = Chain.of_gaussians(np.random.default_rng(0), "full", 2, 2, [5])
    chain.data.values = chain.data.values[:0]
    for given in (None, Sequences(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))):
        chain.sequences = given
        for kind in KINDS:
            found = chain.visit(kind, labels=np.zeros(0, dtype=np.int64))
            assert found["impossible"] == -1
            assert not found.get("statistics", np.zeros(1)).any()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("offsets", [0, 3, 9], "from 0 to 9, not from 0 to 10"),
        ("offsets", [1, 3, 10], "from 1 to 10, not from 0 to 10"),
        ("offsets", [0, 10, 10], "offsets[2] is 10; it must be > 10"),
        ("offsets", [0, 12, 10], "offsets[2] is 10; it must be > 12"),
        ("offsets", [0, 3, 6, 10], "offsets has length 4, not 3"),
        ("order", [0, 2], "order[1] is 2; it must be >= 0 and < 2"),
        ("order", [-1, 0], "order[0] is -1; it must be >= 0 and < 2"),
        ("order", [1, 0], "order[1] is of a longer sequence than order[0]"),
        ("order", [0, 0], "order[1] is 0, which is there twice"),
        ("latent", [0.5, 0.5, 0.5, 0.5, 0.5], "latent has length 5, not 6"),
        ("latent", [0.5, 0.5, -0.1, 0.5, 0.5, 0.5], "latent[2] is -0.1; it must be >= 0 and <= 1"),
        ("latent", [0.5, 0.5, np.nan, 0.5, 0.5, 0.5], "latent[2] is nan"),
        ("latent", [0.5, 0.5, 0.5, 0.5, 0.5, 1.1], "latent[5] is 1.1"),
        ("latent", None, "theta.latent must hold start and transition probabilities"),
        ("weights", np.ones(10), "block.weights must be None"),
        ("labels", [0] * 9 + [2], "labels[9] is 2; it must be >= 0 and < 2"),
        ("labels", [-1] + [0] * 9, "labels[0] is -1; it must be >= 0 and < 2"),
        ("labels", [0] * 9, "labels has length 9, not 10"),
        ("kind", "best", "assignment must be one of exact, filter"),
        ("kind", "scores", "assignment must be one of exact, filter"),
        ("statistics", np.zeros(3), "statistics has length 3, not"),
        ("log_z", np.zeros(9), "log_z goes with exact, filter, not with 'given'"),
        ("q", np.zeros((10, 2)), "q goes with exact, filter, factorised, not with 'given'"),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(name, value, message):
    kernel = _kernels.chain
    chain = Chain.of_gaussians(np.random.default_rng(0), "full", 2, 2, [6, 4])
    out = {"statistics": np.full(kernel.statistics_size("full", 2, 2), 7.0)}
    told = {"offsets": [0, 6, 10], "order": [0, 1], "labels": [0] * 10, "kind": "given"}
    told |= {"latent": chain.theta.latent, "weights": None}
    if name in ("statistics", "log_z", "q"):
        out[name] = value
    else:
        told[name] = value
    block = chain.block(labels=np.array(told["labels"], dtype=np.int64))
    block.weights = told["weights"]
    block.sequences = Sequences(*(np.array(told[x], dtype=np.int64) for x in ("offsets", "order")))
    latent = None if told["latent"] is None else np.array(told["latent"], dtype=float)
    theta = Coefficients("full", chain.theta.coefficients, chain.theta.offsets, latent=latent)
    with pytest.raises(ValueError, match=re.escape(message)):
        kernel.visit(block, theta, Assignment(told["kind"]), **out)
    if name != "statistics":
        assert np.all(out["statistics"] == 7)


REFUSED = [
    # Of the block, of theta, of the assignment: a name, what it is, the error and its words.
    ("block", {"first_row": -1}, ValueError, "first_row is -1; it must be >= 0"),
    ("block", {"first_row": 2**63}, OverflowError, ""),
    ("block", {"n_threads": 0}, ValueError, "n_threads is 0; it must be >= 1"),
    ("block", {"n_threads": -(2**70)}, ValueError, "it must be >= 1"),
    ("block", {"n_threads": "two"}, TypeError, ""),
    ("block", {"labels": None}, ValueError, "block.labels must hold each row's component"),
    ("block", {"labels": np.zeros(10)}, TypeError, "labels must be contiguous one-dimensional"),
    ("block", {"origin": np.zeros(0), "scale": np.zeros(0)}, ValueError, "n_features is 0"),
    ("block", {"scale": np.ones(3)}, ValueError, "scale has length 3, not 2"),
    ("block", {"scale": None}, TypeError, "scale must be contiguous float64"),
    ("block", {"values": np.zeros(10)}, TypeError, "two-dimensional"),
    ("block", {"values": np.zeros((10, 2), int)}, TypeError, "float64 or float32"),
    ("block", {"values": np.zeros((10, 3))}, ValueError, "a row of values has length 3, not 2"),
    ("block", {"values": None}, TypeError, ""),
    ("block", {"values": np.broadcast_to(np.zeros(2), (2**58, 2)), "sequences": None}, MemoryError,
     "no memory for"),
    ("block", {"sequences": Sequences(np.zeros(0, int), np.zeros(0, int))}, ValueError,
     "offsets has length 0, not 1"),
    ("block", {"sequences": Sequences(None, None)}, TypeError, "offsets must be contiguous"),
    ("block", {"sequences": Sequences(np.array([0.0, 10]), np.zeros(1))}, TypeError,
     "offsets must be contiguous one-dimensional int64"),
    ("block", {"sequences": Sequences(np.array([0, -10, 10]), np.array([0, 1]))}, ValueError,
     "offsets[1] is -10; it must be > 0"),
    ("block", {"sequences": Sequences(np.array([0, 10]), np.array([10**9]))}, ValueError,
     "order[0] is 1000000000"),
    ("theta", {"offsets": np.zeros(0)}, ValueError, "n_components is 0"),
    ("theta", {"offsets": np.zeros((0, 2))}, ValueError, "offsets must be (K,), not (0, 2)"),
    ("theta", {"offsets": None}, TypeError, "offsets must be contiguous float64"),
    ("theta", {"offsets": np.zeros(65_537)}, ValueError, "at most 65536 states"),
    ("theta", {"coefficients": np.zeros(0)}, ValueError, "coefficients has length 0"),
    ("theta", {"coefficients": None}, TypeError, "coefficients must be contiguous float64"),
    ("theta", {"n_categories": -1}, ValueError, "n_categories is -1"),
    ("theta", {"emission": "categorical", "coefficients": np.zeros(0)}, ValueError,
     "n_categories is 0"),
    ("theta", {"emission": "categorical", "n_categories": 2**60}, MemoryError, "n_categories"),
    ("theta", {"emission": "categorical", "n_categories": 2**62}, MemoryError, "n_categories"),
    ("theta", {"emission": "none"}, ValueError, "emission must be one of"),
    ("theta", {"latent": np.full(6, np.inf)}, ValueError, "latent[0] is inf"),
    ("assignment", {"seed": -1}, OverflowError, ""),
]  # fmt: skip


@pytest.mark.parametrize(("of", "changed", "error", "words"), REFUSED)
def test_whatever_else_a_visit_is_told(of, changed, error, words):
    """An error before anything is written, whoever made the objects."""
    chain = Chain.of_gaussians(np.random.default_rng(0), "full", 2, 2, [6, 4])
    told = {
        "block": chain.block(labels=np.zeros(10, dtype=np.int64)),
        "theta": chain.theta,
        "assignment": Assignment("given"),
    }
    told[of] = dataclasses.replace(told[of], **changed)
    statistics = np.full(_kernels.chain.statistics_size("full", 2, 2), 7.0)
    with pytest.raises(error, match=re.escape(words) or None):
        _kernels.chain.visit(*told.values(), statistics=statistics)
    assert np.all(statistics == 7)


@pytest.mark.parametrize("n_threads", [3, 1000, 2**31 - 1, 2**70])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads_will_do(kind, n_threads):
    chain = Chain.of_gaussians(np.random.default_rng(0), "full", 4, 8, [900, 800])
    labels = np.zeros(1700, dtype=np.int64)
    expected = chain.visit(kind, labels=labels)
    found = chain.visit(kind, n_threads=n_threads, labels=labels)
    for name in KINDS[kind]:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((0, 2, 0), ValueError), ((2, 0, 0), ValueError), ((2, -1, 0), ValueError),
        ((2, 2, -1), ValueError), ((2, 2, 0), ValueError), ((2**40, 2**20, 2), MemoryError),
        ((2**62, 1, 2), MemoryError), ((1, 1, 2**62), MemoryError),
    ],
)  # fmt: skip
def test_sizes_that_are_none(shape, error):
    with pytest.raises(error):
        _kernels.chain.statistics_size("categorical", *shape)


def test_sequences_and_labels_may_change_during_a_visit():
    """Rows are found by numbers of the kernel's own, which it has checked."""
    code = """
import threading, numpy as np
from test_chain import Chain, Assignment, _kernels, sequences
chain = Chain.of_gaussians(np.random.default_rng(0), "full", 3, 2, [50] * 4000)
told = chain.sequences
labels = np.zeros(200_000, dtype=np.int64)
block, done = chain.block(labels=labels), threading.Event()
good = told.offsets.copy(), told.order.copy()
def change():
    while not done.is_set():
        for wrong in (10**12, -(10**12)):
            told.offsets[1:-1], told.order[:], labels[:] = wrong, wrong, wrong
            told.offsets[:], told.order[:], labels[:] = *good, 0
thread = threading.Thread(target=change)
thread.start()
n = 0
for kind in ("hard", "given", "exact", "draw") * 50:
    statistics = np.empty(_kernels.chain.statistics_size("full", 3, 2))
    try:
        _kernels.chain.visit(block, chain.theta, Assignment(kind), statistics=statistics)
        assert abs(statistics[1:4].sum() - 200_000) < 1e-6, statistics[1:4]
        n += 1
    except ValueError:
        pass
done.set()
thread.join()
"""
    path = {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | path, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_mixtures_refuse_what_is_for_chains():
    block = Block(np.zeros((4, 1)), None, None, np.zeros(1), np.ones(1), 0, 1)
    theta = Coefficients("diag", np.zeros(4), np.zeros(1))
    with pytest.raises(ValueError, match="not 'filter'"):
        _kernels.mixture.visit(block, theta, Assignment("filter"))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
@pytest.mark.parametrize("kind", ["exact", "hard", "draw", "factorised"])
@pytest.mark.parametrize("leak", [1e-150, 0.1])
def test_interrupt(kind, leak):
    class Interrupt(Exception):
        pass

    def interrupt(*_):
        raise Interrupt

    rng = np.random.default_rng(0)
    n, k = 200_000, 20
    transitions = np.full((k, k), leak) + np.eye(k) * (1 - k * leak if leak < 0.05 else 0)
    chain = Chain.of_scores(-rng.random((n, k)), np.full(k, 1 / k), transitions)

    def visit_on_and_on():
        while True:
            chain.visit(kind, n_threads=2)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Interrupt):
            visit_on_and_on()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert chain.visit("filter", wanted=[])["impossible"] == -1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
@pytest.mark.parametrize("kind", ["exact", "filter", "hard", "draw", "factorised"])
@pytest.mark.parametrize("leak", [1e-150, 0.1])
def test_interrupt_within_rows_of_many_states(kind, leak):
    """Where a visit takes half a minute or more, it ends long before."""

    class Interrupt(Exception):
        pass

    def interrupt(*_):
        raise Interrupt

    rng = np.random.default_rng(0)
    n, k = 20_000, 1500
    chain = Chain.of_gaussians(rng, "diag", k, 2, [n])
    if leak < 0.05:
        chain.theta.latent[k:] = (np.full((k, k), leak) + np.eye(k) * (1 - k * leak)).ravel()
    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(Interrupt):
            chain.visit(kind, n_threads=2, wanted={"statistics", "log_z"} & KINDS[kind])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 20
