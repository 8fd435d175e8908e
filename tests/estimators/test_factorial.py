"""Factorial hidden Markov models, against enumeration and a dense chain of all joint states."""

import itertools
import json
import os
import re
import signal
import threading
import time
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import reference as ref
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import vbfast
from vbfast import (
    EM,
    CrispEM,
    FactorialHMM,
    FullInference,
    MeanField,
    VariationalEM,
    _kernels,
    portfolio,
    starts,
)
from vbfast._kernels.inputs import Assignment, Block, CoupledCoefficients
from vbfast.conjugate import MatrixNormalWishart, NormalWishart, point, regression
from vbfast.data import ArrayData, Frame, as_sequences
from vbfast.draws import chain_orders
from vbfast.ladders import FACTORIAL, compare_factorial_hmm
from vbfast.latents import coupled
from vbfast.latents.chain import joined

EXACT, FACTORISED = Assignment("exact"), Assignment("factorised")
HARD, DRAW = Assignment("hard"), Assignment("draw", seed=7, sweep=1)
FAMILIES = ("structured", "complete")
SUMS = ("start", "transition", "gram", "cross", "square")


def hidden_markov(start, transition, scores, **options):
    """Return log p(X), q(s_t) (T, S) and the sum over t of q(s_t-1, s_t) (S, S)."""
    log_z, _, smoothed, pairs = ref.forward_backward(scores, start, transition, **options)
    return log_z.sum(), smoothed, pairs


def viterbi(start, transition, scores, **options):
    """Return the best path's log p(X, T) and the path (T,)."""
    path, value = ref.viterbi(scores, start, transition, **options)
    return value, path


def enumerate_paths(start, transition, scores):
    """Return all paths (n, T) of one chain and log p(X, path) of each (n,)."""
    return ref.enumerate_chain(scores, start, transition)


class Problem:
    """Parameters drawn, rows of several sequences drawn from them, and the parts that fit them."""

    def __init__(self, seed, m, k, d, lengths, *, noise=0.7, family="structured", kind="full",
                 **prior):  # fmt: skip
        rng = np.random.default_rng(seed)
        self.m, self.k, self.d, self.lengths = m, k, d, list(lengths)
        self.start = rng.dirichlet(np.ones(k), m)
        self.transition = rng.dirichlet(np.ones(k), (m, k))
        self.means = 3 + rng.standard_normal((m, k, d))
        root = rng.standard_normal((d, d))
        self.covariance = noise**2 * (root @ root.T / d + 0.5 * np.eye(d))
        if kind == "diag":
            self.covariance = np.diag(np.diagonal(self.covariance))
        rows, states = [], []
        for n in self.lengths:
            s = np.empty((n, m), dtype=int)
            for t in range(n):
                for i in range(m):
                    p = self.start[i] if t == 0 else self.transition[i, s[t - 1, i]]
                    s[t, i] = rng.choice(k, p=p)
            z = rng.standard_normal((n, d)) @ np.linalg.cholesky(self.covariance).T
            rows.append(self.means[np.arange(m), s].sum(axis=1) + z)
            states.append(s)
        self.sequences, self.states = rows, np.concatenate(states)
        self.X = np.concatenate(rows)
        self.rng = rng
        self.data = ArrayData.of(self.X, lengths=self.lengths, n_threads=1)
        self.model = vbfast.Model(
            vbfast.CoupledChains(m, k, family, block_states=4),
            vbfast.AdditiveGaussian(d, m, k, kind, frame=self.data.frame, **prior),
        )

    @property
    def fresh(self):
        return self.data.with_memory(self.model.memory_width)

    def theta(self):
        """The parameters that the rows were drawn from."""
        means, covariance = self.model.emission.in_frame(self.means, self.covariance)
        factor = np.linalg.inv(np.linalg.cholesky(covariance))
        return self.model.point(joined(self.start, self.transition), regression(means, factor))

    def random_start(self):
        rng, m, k, d = self.rng, self.m, self.k, self.d
        transition = rng.dirichlet(np.full(k, 5.0), (m, k))
        return self.model.prior + self.model.around(
            (rng.standard_normal((m * k, d)) / np.sqrt(m), np.eye(d)),
            (len(self.lengths), len(self.X)),
            joined(np.full((m, k), 1 / k), transition),
        )

    def dense(self, X):
        """Start, transitions and scores of the product chain."""
        scores = ref.factorial_scores(X, self.means, self.covariance)
        return (*ref.product_chain(self.start, self.transition), scores)

    def in_frame(self, X):
        return (X - self.data.frame.origin) * self.data.frame.scale


def by_row(statistics):
    """First states (M, K), and transitions (M, K, K), that are counted."""
    excess = statistics["excess"]
    return {"start": excess[:, 0], "transition": excess[:, 1:]}


def assert_statistics(found, q, pairs, problem, X):
    expected = ref.factorial_statistics(q, problem.in_frame(X), pairs, problem.m, problem.k)
    found = {name: found[name] for name in SUMS[2:]} | by_row(found)
    for name, value in zip(SUMS, expected, strict=True):
        np.testing.assert_allclose(
            found[name].reshape(value.shape), value, rtol=1e-9, atol=1e-9, err_msg=name
        )


# Statistics of a visit ---------------------------------------------------------------------------

LEVELS = _kernels.available_levels()


class Visit:
    """What a kernel is told, drawn: theta, rows of several sequences, and what is remembered."""

    def __init__(self, seed, m, k, d, more, lengths, far=1.0, layout="C", unlikely=None,
                 apart=None):  # fmt: skip
        rng = np.random.default_rng(seed)
        self.rng, self.m, self.k, self.d, self.lengths = rng, m, k, d, lengths
        n = sum(lengths)
        self.start = rng.dirichlet(np.full(k, 2.0), m)
        self.transition = rng.dirichlet(np.full(k, 2.0), (m, k))
        if unlikely is not None:
            # Some steps and starts that can't be, or all but can't.
            possible = (rng.random((m, k, k)) < 0.5) | (np.eye(k, k=1) + np.eye(k) > 0)
            begins = rng.random((m, k)) < 0.7
            begins[:, 0] = True
            self.transition = np.where(possible, self.transition, unlikely)
            self.start = np.where(begins, self.start, unlikely)
            self.transition /= self.transition.sum(axis=2, keepdims=True)
            self.start /= self.start.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            self.logs = np.log(self.start), np.log(self.transition)
        # What was drawn may have left all possible.
        self.sparse = not (self.start.all() and self.transition.all())
        self.v = rng.standard_normal((m, k, d + more)) / np.sqrt(d)
        self.whitening = np.tril(rng.standard_normal((d, d)) / d) + np.eye(d)
        self.constant = float(rng.standard_normal())
        self.origin, self.scale = rng.standard_normal(d), rng.uniform(0.5, 2.0, d)
        x = 1.5 * rng.standard_normal((n, d))
        if apart is None:
            x[rng.random(n) < 0.1] *= far
        else:
            # Rows near to states in any order: steps there can't be, and the way to one may lead
            # through another that is thousands of nats less likely.
            self.v *= apart
            near = self.v[np.arange(m), rng.integers(0, k, (n, m))].sum(axis=1)[:, :d]
            x += np.linalg.solve(self.whitening, near.T).T
        values = self.origin + x / self.scale
        if layout == "float32":
            values = values.astype(np.float32)
        elif layout == "strided":
            values = np.repeat(np.repeat(values, 2, axis=0), 3, axis=1)[::2, ::3]
        elif layout == "turned":
            values = np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1]
        elif layout == "columns":
            values = np.asfortranarray(values)
        self.values = values
        self.x = (values.astype(np.float64) - self.origin) * self.scale
        self.y = np.hstack([self.x @ self.whitening.T, np.zeros((n, more))])
        ends = np.cumsum(lengths)
        self.rows = [slice(end - each, end) for each, end in zip(lengths, ends, strict=True)]

    def __call__(self, level, kind, memory=None, **options):
        """Statistics by name, and q (N, M, K) that is remembered."""
        m, k, d = self.m, self.k, self.d
        kernel = _kernels.load(level).factorial
        memory = np.full((len(self.x), m * k), np.nan) if memory is None else memory.copy()
        if kind.startswith("blocks") and memory.shape[1] == m * k:
            memory = np.hstack([memory, np.full((len(self.x), m + 1), np.nan)])
        theta = CoupledCoefficients(
            self.whitening, self.v.reshape(m * k, -1), self.constant, *self.logs
        )
        block = Block(
            self.values, None, None, self.origin, self.scale, 5, 2,
            sequences=as_sequences(self.lengths, len(self.x)), memory=memory,
        )  # fmt: skip
        out = np.full(kernel.statistics_size(m, k, d), np.nan)
        kernel.visit(block, theta, kind, statistics=out, seed=3, sweep=2, **options)
        self.groups = memory[:, m * k : -1]
        shapes = {
            "log_z": (), "start": (m, k), "transition": (m, k, k), "gram": (m * k, m * k),
            "cross": (m * k, d), "square": (d, d),
        }  # fmt: skip
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        parts = np.split(out, ends[:-1])
        stats = {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        return stats, memory[:, : m * k].reshape(-1, m, k)

    def with_blocks(self, level, memory, groups, block_states):
        """Statistics, q (N, M, K) and blocks (N, M + 1), from those that are remembered."""
        memory = np.hstack([memory, groups])
        found, q = self(level, "blocks", memory, block_states=block_states)
        return found, q, self.groups

    @property
    def product(self):
        """Logarithms of start and transitions of the product chain, and its scores."""
        states = ref.joint_states(self.m, self.k)
        centers = self.v[np.arange(self.m), states].sum(axis=1)
        scores = self.constant - 0.5 * ((self.y[:, None] - centers) ** 2).sum(axis=2)
        return (*ref.log_product_chain(self.start, self.transition), scores)

    def rounding(self, scores):
        return 1e-9 + 1e-15 * np.abs(scores).max() * len(self.x)

    def sums(self, q, joint=None):
        """gram, cross and square of marginals q (N, M, K), chains independent but for `joint`."""
        z = q.reshape(len(q), -1)
        gram = z.T @ z
        for chain in range(self.m):
            own = slice(chain * self.k, (chain + 1) * self.k)
            gram[own, own] = np.diag(z[:, own].sum(axis=0))
        gram = gram if joint is None else joint
        return {"gram": gram, "cross": z.T @ self.x, "square": np.tril(self.x.T @ self.x)}

    def path_sums(self, q):
        """All statistics of the paths that q (N, M, K) is, and each sequence's log p(X, T)."""
        paths = q.argmax(axis=2)
        starts, steps = np.zeros((self.m, self.k)), np.zeros((self.m, self.k, self.k))
        value = 0.0
        for rows in self.rows:
            for chain, path in enumerate(paths[rows].T):
                starts[chain, path[0]] += 1
                steps[chain] += ref.count_path(path, self.k)
                value += np.log(self.start[chain, path[0]])
                value += np.log(self.transition[chain][path[:-1], path[1:]]).sum()
        mean = self.v[np.arange(self.m), paths].sum(axis=1)
        value += len(q) * self.constant - 0.5 * ((self.y - mean) ** 2).sum()
        return {"log_z": value, "start": starts, "transition": steps, **self.sums(q)}


def assert_same(found, expected, atol):
    # An error of q counts as often in sums of rows as these are large.
    largest = 1 + np.sqrt(np.diagonal(expected["square"]).max())
    for name, value in expected.items():
        got = np.tril(found[name]) if name == "square" else found[name]
        size = atol * largest if name == "cross" else atol
        np.testing.assert_allclose(
            got, value, rtol=1e-11, atol=max(size, 1e-12 * np.abs(value).max()), err_msg=name
        )


@st.composite
def visits(draw, most_states=64):
    k = draw(st.integers(1, 4))
    m = draw(st.integers(1, 4).filter(lambda m: k**m <= most_states))
    lengths = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 25])
    return Visit(
        draw(st.integers(0, 2**32 - 1)),
        m,
        k,
        draw(st.integers(1, 20)),
        draw(st.sampled_from([0, 0, 1, 2, 3, 5, 8])),
        draw(st.lists(lengths, min_size=1, max_size=4)),
        draw(st.sampled_from([1.0, 1.0, 10.0, 1e3, 1e4])),
        draw(st.sampled_from(["C", "float32", "strided", "turned", "columns"])),
        draw(st.sampled_from([None, None, 0.0, 0.0, 1e-40, 1e-150, 1e-300])),
        draw(st.sampled_from([None, None, 10.0, 50.0, 1e3])),
    )


def random_memory(visit, one_hot=False):
    q = visit.rng.dirichlet(np.ones(visit.k), (len(visit.x), visit.m))
    if one_hot:
        q = np.eye(visit.k)[q.argmax(axis=2)]
    return np.ascontiguousarray(q.reshape(len(q), -1))


@examples(100)
@given(visit=visits(), level=st.sampled_from(LEVELS), remembered=st.booleans())
def test_exact_visits(visit, level, remembered):
    start, transition, scores = visit.product
    states = ref.joint_states(visit.m, visit.k)
    z = np.concatenate([(states[:, [i]] == np.arange(visit.k)) for i in range(visit.m)], axis=1)
    z = z.astype(float)
    log_z, starts, joint, marginals = 0.0, 0.0, 0.0, []
    pairs = np.zeros((len(states), len(states)))
    for rows in visit.rows:
        each, q, steps = hidden_markov(start, transition, scores[rows], log=np.array)
        log_z += each
        pairs += steps
        starts = starts + q[0] @ z
        joint = joint + (z.T * q.sum(axis=0)) @ z
        marginals.append(q @ z)
    q = np.concatenate(marginals).reshape(-1, visit.m, visit.k)
    steps = np.stack([
        np.eye(visit.k)[states[:, i]].T @ pairs @ np.eye(visit.k)[states[:, i]]
        for i in range(visit.m)
    ])  # fmt: skip
    expected = {
        "log_z": log_z, "start": starts.reshape(visit.m, visit.k), "transition": steps,
        **visit.sums(q, joint),
    }  # fmt: skip
    found, memory = visit(level, "exact", random_memory(visit) if remembered else None)
    assert_same(found, expected, visit.rounding(scores))
    np.testing.assert_allclose(memory, q, atol=visit.rounding(scores))


@examples(60)
@given(visit=visits(), level=st.sampled_from(LEVELS), remembered=st.booleans())
def test_visits_along_the_best_paths(visit, level, remembered):
    start, transition, scores = visit.product
    of = start, transition
    best = sum(viterbi(*of, scores[rows], log=np.array)[0] for rows in visit.rows)
    memory = random_memory(visit) if remembered else None
    found, q = visit(level, "joint_best", memory)
    assert set(np.unique(q)) <= {0.0, 1.0}
    assert (q.sum(axis=2) == 1).all()
    assert_same(found, visit.path_sums(q), visit.rounding(scores))
    assert found["log_z"] == pytest.approx(best, rel=1e-11, abs=visit.rounding(scores))


@examples(100)
@given(visit=visits(most_states=256), level=st.sampled_from(LEVELS), remembered=st.booleans(),
       kind=st.sampled_from(["best", "draw"]))  # fmt: skip
def test_visits_a_path_at_a_time(visit, level, remembered, kind):
    memory = random_memory(visit, one_hot=kind == "draw") if remembered else None
    found, q = visit(level, kind, memory)
    assert set(np.unique(q)) <= {0.0, 1.0}
    assert (q.sum(axis=2) == 1).all()
    away = visit.y - visit.v[np.arange(visit.m), q.argmax(axis=2)].sum(axis=1)
    rounding = visit.rounding(away**2)
    assert_same(found, visit.path_sums(q), rounding)
    # A path drawn is the last chain's given those of the others.
    for chain in range(visit.m) if kind == "best" else [visit.m - 1]:
        others = np.einsum("tmk,mkr->tr", np.delete(q, chain, 1), np.delete(visit.v, chain, 0))
        scores = -0.5 * (((visit.y - others)[:, None] - visit.v[chain]) ** 2).sum(axis=2)
        for rows in visit.rows:
            # No chain's path can be bettered given those of the others.
            of = visit.start[chain], visit.transition[chain], scores[rows]
            path = q[rows, chain].argmax(axis=1)
            value = scores[rows][np.arange(len(path)), path].sum()
            value += np.log(visit.start[chain, path[0]])
            value += np.log(visit.transition[chain][path[:-1], path[1:]]).sum()
            if kind == "best":
                assert value == pytest.approx(viterbi(*of)[0], rel=1e-11, abs=rounding)
            else:
                # All paths that are less likely have a chance of exp(-40) together.
                likely = hidden_markov(*of)[0] - len(path) * np.log(visit.k) - 40
                assert value > likely - rounding


@examples(100)
@given(visit=visits(most_states=256), level=st.sampled_from(LEVELS), remembered=st.booleans(),
       family=st.sampled_from(FAMILIES))  # fmt: skip
def test_factorised_visits(visit, level, remembered, family):
    """q(T), its objective and its statistics are those after some round, where it has settled."""
    memory = random_memory(visit) if remembered else None
    if remembered and visit.sparse and family == "complete":
        # What rules itself out has no q(T) to settle at.
        _, memory = visit(level, "best", memory)
        memory = memory.reshape(len(memory), -1)
    found, q = visit(level, family, memory)
    expected = {"log_z": 0.0, "start": 0.0, "transition": 0.0}
    for rows in visit.rows:
        y = visit.y[rows]
        begin = np.full((len(y), visit.m, visit.k), 1 / visit.k)
        of = y, visit.v, visit.constant, visit.start, visit.transition
        rounding = visit.rounding(y**2)
        if remembered:
            begin = memory[rows].reshape(begin.shape)
        elif visit.sparse:
            begin = ref.factorised_rounds(*of, begin, "best")[-1][1]
        starts = [begin]
        if family == "structured" and not remembered:
            # Where exactly a round of many settles, rounding may say; the next ones start there.
            starts = [one[1] for one in ref.factorised_rounds(*of, begin, "complete")[-2:]]
        settled = []
        for begin in starts:
            rounds = ref.factorised_rounds(*of, begin, family)
            gains = np.diff([one[0] for one in rounds], prepend=-np.inf)
            small = gains < 1.01e-7 * len(y) + rounding
            small[-1] = True
            settled += [one for one, last in zip(rounds, small, strict=True) if last]
            # Of far rows the plain energy rounds, and may end rounds before the kernel's does.
            settled += ref.factorised_rounds(*of, rounds[-1][1], family)
        one = min(settled, key=lambda one: np.abs(one[1] - q[rows]).max())
        np.testing.assert_allclose(q[rows], one[1], atol=1e-8 + rounding)
        for name, value in zip(("log_z", "start", "transition"), (one[0], *one[2:]), strict=True):
            expected[name] = expected[name] + value
    assert_same(found, expected | visit.sums(q), 1e-7 + visit.rounding(visit.y**2))
    np.testing.assert_allclose(q.sum(axis=2), 1, rtol=1e-12)


def block_lists(visit, draw):
    """Blocks to begin with, of `size` chains at most, and how many states these have."""
    size = draw(st.integers(1, visit.m))
    labels = visit.rng.permutation(visit.m) // size
    return labels, visit.k**size


def same_partition(a, b):
    return np.array_equal(np.equal.outer(a, a), np.equal.outer(b, b))


@examples(60)
@given(data=st.data(), visit=visits(), level=st.sampled_from(LEVELS))
def test_visits_block_by_block(data, visit, level):
    """Of rows that are remembered: rounds with the blocks that were, and with others if better."""
    labels, block_states = block_lists(visit, data.draw)
    if visit.k == 1:
        labels = np.zeros(visit.m)
    memory = random_memory(visit)
    groups = np.full((len(memory), visit.m + 1), np.nan)
    for rows in visit.rows:
        groups[rows.start] = [*labels, 0]
    found, q, after = visit.with_blocks(level, memory, groups, block_states)
    expected = {"log_z": 0.0, "start": 0.0, "transition": 0.0, "gram": 0.0}
    for rows in visit.rows:
        y, now = visit.y[rows], after[rows.start]
        of = y, visit.v, visit.constant, visit.start, visit.transition
        begin = memory[rows].reshape(len(y), visit.m, visit.k)
        last = ref.block_rounds(*of, begin, labels, n_rounds=2)[-1]
        if not same_partition(now, labels):
            other = ref.block_rounds(*of, last[1], now, n_rounds=2)[-1]
            assert other[0] > last[0]
            last = other
        np.testing.assert_allclose(q[rows], last[1], atol=1e-8 + visit.rounding(y**2))
        for name, at in (("log_z", 0), ("start", 2), ("transition", 3), ("gram", 4)):
            expected[name] = expected[name] + last[at]
    sums = visit.sums(q)
    del sums["gram"]
    assert_same(found, expected | sums, 1e-7 + visit.rounding(visit.y**2))


@examples(60)
@given(data=st.data(), visit=visits(most_states=256), level=st.sampled_from(LEVELS),
       kind=st.sampled_from(["blocks", "blocks_best"]))  # fmt: skip
def test_blocks_of_which_nothing_is_known(data, visit, level, kind):
    """The last block is exact given the others, or no block has a better path."""
    _, block_states = block_lists(visit, data.draw)
    found, q = visit(level, kind, block_states=block_states)
    start, transition, scores = visit.product
    rounding = visit.rounding(scores)
    best = 0.0
    for rows in visit.rows:
        labels = visit.groups[rows.start]
        sizes = np.unique(labels, return_counts=True)[1]
        assert visit.k ** sizes.max() <= max(block_states, visit.k)
        if kind == "blocks":
            best += hidden_markov(start, transition, scores[rows], log=np.array)[0]
        else:
            best += viterbi(start, transition, scores[rows], log=np.array)[0]
        for block in range(len(sizes)) if kind == "blocks_best" else [len(sizes) - 1]:
            of = np.flatnonzero(labels == block)
            others = np.einsum("tmk,mkr->tr", np.delete(q[rows], of, 1), np.delete(visit.v, of, 0))
            states = ref.joint_states(len(of), visit.k)
            away = (visit.y[rows] - others)[:, None] - visit.v[of, states].sum(axis=1)
            own = -0.5 * (away**2).sum(axis=2)
            chain = ref.log_product_chain(visit.start[of], visit.transition[of])
            if kind == "blocks":
                joint = hidden_markov(*chain, own, log=np.array)[1]
                for i, one in enumerate(of):
                    expected = joint @ np.eye(visit.k)[states[:, i]]
                    np.testing.assert_allclose(q[rows, one], expected, atol=1e-8 + rounding)
            else:
                paths = q[rows][:, of].argmax(axis=2)
                joint = paths @ visit.k ** np.arange(len(of))[::-1]
                value = own[np.arange(len(joint)), joint].sum() + chain[0][joint[0]]
                value += chain[1][joint[:-1], joint[1:]].sum()
                top = viterbi(*chain, own, log=np.array)[0]
                assert value == pytest.approx(top, rel=1e-11, abs=rounding)
    assert found["log_z"] <= best + rounding + 1e-9 * abs(best)
    if kind == "blocks_best":
        assert_same(found, visit.path_sums(q), rounding)


def test_more_than_one_block_is_all_but_exact():
    """Blocks of a half of the chains, and of a quarter; in any order of chains."""
    for seed in range(10):
        p = Problem(seed, 8, 2, 4, [60], noise=0.5)
        exact = hidden_markov(*p.dense(p.X))[0]
        bounds = []
        for order in (np.arange(8), np.arange(8)[::-1], np.random.default_rng(0).permutation(8)):
            p.start, p.transition, p.means = p.start[order], p.transition[order], p.means[order]
            for states in (16, 4):
                latent = vbfast.CoupledChains(8, 2, "blocks", block_states=states)
                model = replace(p.model, latent=latent)
                data = p.data.with_memory(model.memory_width)
                bounds.append(float(data.sum(model.visit, p.theta(), FACTORISED)["log_z"]))
        bounds = np.reshape(bounds, (3, 2))
        assert (bounds <= exact + 1e-9).all()
        np.testing.assert_allclose(bounds, bounds[:1].repeat(3, axis=0), rtol=1e-6)
        p.model = replace(p.model, latent=vbfast.CoupledChains(8, 2, "structured"))
        structured = float(p.fresh.sum(p.model.visit, p.theta(), FACTORISED)["log_z"])
        assert exact - bounds[0, 0] < 0.5 * (exact - structured), seed


def summing(weights):
    """Chains that are on or off and last, of which each adds its weight while on."""
    m = len(weights)
    model = FactorialHMM(m, 2)
    model.startprob_ = np.full((m, 2), 0.5)
    model.transmat_ = np.tile([[0.98, 0.02], [0.02, 0.98]], (m, 1, 1))
    model.means_ = np.zeros((m, 2, 1))
    model.means_[:, 1, 0] = weights
    model.covariance_ = np.array([[625.0]])
    return model


WEIGHTS = [5, 60, 100, 150, 200, 300, 500, 800, 1000, 1200, 1500, 2000, 2500]


def test_the_bound_is_reached_in_either_order():
    model = summing([5, 200, 1000, 2500])
    X, _ = model.sample(300, random_state=0)
    assert model.score(X) == pytest.approx(-1487.4, abs=0.05)
    for order in (slice(None), slice(None, None, -1)):
        for block_states in (2, 4, 8, 4096):
            latent = vbfast.CoupledChains(4, 2, "blocks", block_states=block_states)
            emission = vbfast.AdditiveGaussian(1, 4, 2)
            parts = vbfast.Model(latent, emission)
            means = model.means_[order].reshape(8, 1)
            theta = parts.point(
                joined(model.startprob_, model.transmat_), regression(means, np.array([[1 / 25]]))
            )
            data = replace(ArrayData.of(X), frame=emission.units)
            data = data.with_memory(parts.memory_width)
            found = data.sum(parts.visit, theta, FACTORISED)["log_z"]
            assert found == pytest.approx(-1487.4, rel=1e-3), block_states


def test_thirteen_chains():
    """8,192 joint states, of which 4,096 at a time are exact."""
    right = {}
    for weights in (WEIGHTS, WEIGHTS[::-1], WEIGHTS[1:]):
        model = summing(weights)
        X, states = summing(WEIGHTS).sample(100, random_state=0)
        if len(weights) == 12:
            X, states = X - 5 * states[:, :1], states[:, 1:]
        elif weights is not WEIGHTS:
            states = states[:, ::-1]
        log_prob, paths = model.decode(X)
        np.testing.assert_array_equal(paths, model.predict(X))
        assert log_prob > log_joint(model, X, states)
        assert log_prob == pytest.approx(log_joint(model, X, paths), rel=1e-10)
        assert np.mean(paths == states) >= 0.95
        bound = model.score(X)
        assert log_prob < bound
        right[tuple(weights)] = np.mean(paths[:, -1] == states[:, -1]), bound
        chains = [weights.index(each) for each in WEIGHTS[1:]]
        assert np.mean(paths[:, chains] == states[:, chains]) > 0.99
        proba = model.predict_proba(X)
        np.testing.assert_allclose(proba.sum(axis=2), 1)
        assert np.mean(proba.argmax(axis=2) == states) >= 0.95
    assert right[tuple(WEIGHTS)][1] == pytest.approx(right[tuple(WEIGHTS[::-1])][1], rel=1e-6)


def log_joint(model, X, states):
    """log p(X, T | theta) of a sequence."""
    value = stats.norm(scale=25).logpdf(
        X[:, 0] - model.means_[np.arange(len(model.means_)), states, 0].sum(axis=1)
    ).sum()  # fmt: skip
    for m, path in enumerate(states.T):
        value += np.log(model.startprob_[m, path[0]])
        value += np.log(model.transmat_[m][path[:-1], path[1:]]).sum()
    return value


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("apart", np.linspace(35.0, 40.0, 21))
def test_what_is_all_but_impossible_rules_nothing_out(level, apart):
    """A state that underflows has no successors to rule out; one that doesn't, has."""
    visit = Visit(0, 1, 2, 1, 0, [3])
    visit.start = np.full((1, 2), 0.5)
    visit.transition = np.array([[[0.5, 0.5], [0.0, 1.0]]])
    with np.errstate(divide="ignore"):
        visit.logs = np.log(visit.start), np.log(visit.transition)
    visit.v = np.array([[[0.0], [apart]]])
    visit.whitening = np.eye(1)
    # In the first row the second state is exp(-apart^2 / 2) as likely as the first.
    visit.x = visit.y = np.array([[0.0], [apart / 2], [apart]])
    visit.values = visit.origin + visit.x / visit.scale
    begin = np.eye(2)[[0, 1, 1]]
    found, q = visit(level, "complete", begin)
    of = visit.y, visit.v, visit.constant, visit.start, visit.transition
    value, expected, _, _ = ref.factorised_rounds(*of, begin[:, None], "complete")[-1]
    np.testing.assert_allclose(q, expected, rtol=1e-9, atol=1e-12)
    assert found["log_z"] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("kind", ["exact", "structured", "draw"])
def test_a_way_through_what_underflows(kind):
    """A state that is thousands of nats less likely may be the only way to the next ones."""
    for seed in range(20):
        visit = Visit(seed, 1, 4, 2, 0, [17, 9], unlikely=0.0, apart=50.0)
        found, q = visit(LEVELS[0], kind)
        start, transition = visit.start[0], visit.transition[0]
        scores = visit.constant - 0.5 * ((visit.y[:, None] - visit.v[0]) ** 2).sum(axis=2)
        each = [hidden_markov(start, transition, scores[rows]) for rows in visit.rows]
        log_z = sum(one[0] for one in each)
        if kind == "draw":
            assert visit.path_sums(q)["log_z"] > log_z - 40 - len(q) * np.log(4)
        else:
            assert found["log_z"] == pytest.approx(log_z, rel=1e-12)
            np.testing.assert_allclose(q[:, 0], np.concatenate([one[1] for one in each]), atol=1e-8)
            np.testing.assert_allclose(
                found["transition"][0], sum(one[2] for one in each), atol=1e-8
            )


@pytest.mark.parametrize("kind", ["joint_best", "best"])
def test_a_row_far_from_all_states_takes_no_digits_of_their_paths(kind):
    visit = Visit(1, 1, 4, 3, 0, [30, 20])
    visit.whitening = np.eye(3)
    visit.v[..., 0] = 0.0
    x = visit.x.copy()
    x[[3, 35], 0] = 1e9
    visit.values = visit.origin + x / visit.scale
    _, q = visit(LEVELS[0], kind)
    scores = -0.5 * ((x[:, None, 1:] - visit.v[0, :, 1:]) ** 2).sum(axis=2)
    scores[[3, 35]] = 0.0  # of 1e18 each has lost the same
    for rows in visit.rows:
        _, path = viterbi(visit.start[0], visit.transition[0], scores[rows])
        np.testing.assert_array_equal(q[rows, 0].argmax(axis=1), path)


@examples(15)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.sampled_from([9, 10, 11, 12]),
    lengths=st.lists(st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129, 257]), min_size=1,
                     max_size=3),
    kind=st.sampled_from(["exact", "joint_best"]),
    level=st.sampled_from(LEVELS),
)  # fmt: skip
def test_blocks_of_the_product_chain(seed, m, lengths, kind, level):
    """Chains that move a feature each are so many hidden Markov models, whatever the blocks."""
    visit = Visit(seed, m, 2, m, 0, lengths)
    visit.v[:, :, :] = np.eye(m)[:, None] * visit.rng.standard_normal((m, 2, 1))
    visit.whitening = np.diag(np.diagonal(visit.whitening)).copy()
    visit.y = visit.x @ visit.whitening
    found, memory = visit(level, kind)
    value, q = len(visit.x) * visit.constant, np.empty((len(visit.x), m, 2))
    starts, steps = np.zeros((m, 2)), np.zeros((m, 2, 2))
    for chain in range(m):
        scores = -0.5 * (visit.y[:, [chain]] - visit.v[chain, :, chain]) ** 2
        for rows in visit.rows:
            of = visit.start[chain], visit.transition[chain], scores[rows]
            if kind == "exact":
                each, own, pairs = hidden_markov(*of)
            else:
                each, path = viterbi(*of)
                own, pairs = np.eye(2)[path], ref.count_path(path, 2)
            value += each
            q[rows, chain] = own
            starts[chain] += own[0]
            steps[chain] += pairs
    expected = {"log_z": value, "start": starts, "transition": steps, **visit.sums(q)}
    assert_same(found, expected, 1e-8)
    np.testing.assert_allclose(memory, q, atol=1e-9)


@examples(40)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    far=st.sampled_from([1e5, 1e10, 1e50, 1e99, 1e140, 1e300]),
    means=st.sampled_from([1.0, 1e20, 1e170]),
    kind=st.sampled_from(list(_kernels.factorial.KINDS)),
    level=st.sampled_from(LEVELS),
)
def test_visits_of_rows_far_away(seed, sizes, lengths, far, means, kind, level):
    """Rounding decides which state a row is in that is far from all, but it is in one."""
    visit = Visit(seed, *sizes, 1, lengths, far)
    visit.v *= means
    found, q = visit(level, kind)
    assert all(np.isfinite(value).all() for value in found.values())
    np.testing.assert_allclose(q.sum(axis=2), 1, rtol=1e-9)
    assert (q >= 0).all()
    n, n_sequences = len(visit.x), len(lengths)
    np.testing.assert_allclose(found["start"].sum(axis=1), n_sequences, rtol=1e-9)
    np.testing.assert_allclose(
        found["transition"].sum(axis=(1, 2)), n - n_sequences, rtol=1e-9, atol=1e-9
    )
    gram = found["gram"]
    np.testing.assert_allclose(np.diagonal(gram), q.reshape(n, -1).sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-9)


# Right answers -----------------------------------------------------------------------------------

SHAPES = [(2, 2, 2, [6]), (2, 2, 1, [1]), (3, 2, 2, [7]), (2, 3, 4, [9]), (1, 4, 2, [12])]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact_marginals_and_statistics(shape):
    p = Problem(1, *shape)
    data = p.fresh
    found = data.sum(p.model.visit, p.theta(), EXACT)
    log_z, q, pairs = hidden_markov(*p.dense(p.X))
    assert found["log_z"] == pytest.approx(log_z, rel=1e-12)
    assert_statistics(found, q, pairs, p, p.X)
    states = ref.joint_states(p.m, p.k)
    marginals = np.stack([q @ (states[:, [i]] == np.arange(p.k)) for i in range(p.m)], axis=1)
    np.testing.assert_allclose(data.memory.reshape(marginals.shape), marginals, atol=1e-12)
    # Nothing need be remembered.
    again = p.data.sum(p.model.visit, p.theta(), EXACT)
    np.testing.assert_array_equal(again.buffer, found.buffer)


@pytest.mark.parametrize("n_rows", range(1, 7))
@pytest.mark.parametrize("seed", range(3))
def test_all_joint_paths(seed, n_rows):
    """The dense reference itself, and all objectives, against a sum over every path."""
    p = Problem(seed, 2, 2, 2, [n_rows])
    start, transition, scores = p.dense(p.X)
    paths, log_p = enumerate_paths(start, transition, scores)
    log_z = np.logaddexp.reduce(log_p)
    assert hidden_markov(start, transition, scores)[0] == pytest.approx(log_z, rel=1e-12)
    theta = p.theta()
    assert p.data.sum(p.model.visit, theta, EXACT)["log_z"] == pytest.approx(log_z, rel=1e-12)
    best = p.fresh
    assert best.sum(p.model.visit, theta, HARD)["log_z"] == pytest.approx(log_p.max(), rel=1e-12)
    joint = best.memory.reshape(-1, 2, 2).argmax(axis=2) @ [2, 1]
    np.testing.assert_array_equal(joint, paths[log_p.argmax()])
    drawn = p.fresh
    value = drawn.sum(p.model.visit, theta, DRAW)["log_z"]
    joint = drawn.memory.reshape(-1, 2, 2).argmax(axis=2) @ [2, 1]
    (place,) = np.flatnonzero((paths == joint).all(axis=1))
    assert value == pytest.approx(log_p[place], rel=1e-12)


def one_chain_scores(p, q, chain):
    """Expected scores of a chain's states given the others' marginals q (T, M, K)."""
    states = ref.joint_states(p.m, p.k)
    weight = np.ones((len(q), len(states)))
    for other in range(p.m):
        if other != chain:
            weight *= q[:, other][:, states[:, other]]
    expected = weight * ref.factorial_scores(p.X, p.means, p.covariance)
    return expected @ (states[:, [chain]] == np.arange(p.k))


@pytest.mark.parametrize("n_rows", range(1, 6))
@pytest.mark.parametrize("family", FAMILIES)
def test_factorised_free_energy(family, n_rows):
    p = Problem(n_rows, 2, 2, 2, [n_rows], family=family)
    data, theta = p.fresh, p.theta()
    for _ in range(20):  # to the very end
        found = data.sum(p.model.visit, theta, FACTORISED)
    q = data.memory.reshape(-1, 2, 2)
    chains = []
    for chain in range(2):
        scores = one_chain_scores(p, q, chain)
        paths, log_q = enumerate_paths(p.start[chain], p.transition[chain], scores)
        if family == "complete":
            log_q = np.log(q[np.arange(n_rows), chain, paths]).sum(axis=1)
        each = np.exp(log_q - np.logaddexp.reduce(log_q))
        chains.append(each)
        marginals = np.stack([each @ (paths == k) for k in range(2)], axis=1)
        np.testing.assert_allclose(marginals, q[:, chain], atol=1e-6)
        steps = by_row(found)["transition"][chain]
        pairs = [
            (each[:, None] * ((paths[:, :-1] == j) & (paths[:, 1:] == k))).sum()
            for j, k in itertools.product(range(2), repeat=2)
        ]
        np.testing.assert_allclose(steps.ravel(), pairs, atol=1e-6)
    expected = ref.factorised_free_energy(chains, p.start, p.transition, p.means, p.covariance, p.X)
    assert found["log_z"] == pytest.approx(expected, abs=1e-9)
    # Chains are independent under q.
    z = q.reshape(n_rows, 4)
    gram = z.T @ z
    for chain in range(2):
        own = slice(2 * chain, 2 * chain + 2)
        gram[own, own] = np.diag(z[:, own].sum(axis=0))
    np.testing.assert_allclose(found["gram"], gram, atol=1e-12)
    np.testing.assert_allclose(found["cross"], z.T @ p.in_frame(p.X), atol=1e-12)


def test_bounds_are_in_order():
    """F of the complete family <= F of chains <= log p(X | theta), on every one of 100 sets."""
    for seed in range(100):
        p = Problem(seed, 3, 2, 2, [50])
        theta = p.theta()
        found = [hidden_markov(*p.dense(p.X))[0]]
        for family in FAMILIES:
            model = replace(p.model, latent=vbfast.CoupledChains(3, 2, family))
            found.append(float(p.fresh.sum(model.visit, theta, FACTORISED)["log_z"]))
        exact, structured, complete = found
        assert complete <= structured * (1 - 1e-13) <= exact + 1e-9, seed
        assert complete < structured < exact, seed


def test_structured_takes_up_where_complete_ends():
    p = Problem(0, 3, 2, 2, [50])
    theta = p.theta()
    data = p.fresh
    complete = replace(p.model, latent=vbfast.CoupledChains(3, 2, "complete"))
    data.sum(complete.visit, theta, FACTORISED)
    after = data.sum(p.model.visit, theta, FACTORISED)
    np.testing.assert_allclose(
        after.buffer, p.fresh.sum(p.model.visit, theta, FACTORISED).buffer, rtol=1e-12
    )


@pytest.mark.parametrize("assignment", [EXACT, FACTORISED, HARD], ids=lambda a: a.kind)
def test_one_chain_is_a_hidden_markov_model(assignment):
    p = Problem(4, 1, 3, 2, [40])
    found = p.fresh.sum(p.model.visit, p.theta(), assignment)
    scores = ref.factorial_scores(p.X, p.means, p.covariance)
    chain = p.start[0], p.transition[0], scores
    log_z, q, pairs = hidden_markov(*chain)
    if assignment is HARD:
        log_z, path = viterbi(*chain)
        q = ref.one_hot(path, 3)
        pairs = np.zeros((3, 3))
        np.add.at(pairs, (path[:-1], path[1:]), 1)
    assert found["log_z"] == pytest.approx(log_z, rel=1e-12)
    assert_statistics(found, q, pairs, p, p.X)


def test_the_former_name_of_the_parts_together():
    assert vbfast.FactorialModel is vbfast.Model


@pytest.mark.parametrize("method", [EM, CrispEM])
def test_one_chain_is_a_model_of_a_chain_and_tied_gaussians(method):
    """The same fit by either pair of parts; the one with coordinates by plain steps as well."""
    p = Problem(4, 1, 3, 2, [60, 30], noise=2.0)
    start = p.random_start()
    found = method(max_iter=60, tol=0).fit(p.model, p.data, start)
    theta = p.model.mode(start)
    emission = vbfast.Gaussian(2, "tied", frame=p.data.frame)
    other = vbfast.Model(vbfast.Chain(3), emission)
    first = other.point(
        theta.weights[0], point(theta.parameters.means, theta.parameters.factor[None])
    )
    same = other.prior + p.data.sum(other.visit, first, method().assign(0))
    plain = method(max_iter=59, tol=0, **({"acceleration": None} if method is EM else {}))
    expected = plain.fit(other, p.data, same)
    np.testing.assert_allclose(found.objectives[1:], expected.objectives, rtol=1e-9)
    np.testing.assert_allclose(found.theta.weights[0], expected.theta.weights, atol=1e-6)


def test_a_baum_welch_step():
    """The mode of a flat prior with these statistics: Rabiner (1989), 40; Bishop 13.20."""
    p = Problem(4, 1, 3, 2, [40, 30])
    stats_ = p.data.sum(p.model.visit, p.theta(), EXACT)
    theta = p.model.mode(p.model.prior + stats_)
    each = [
        hidden_markov(p.start[0], p.transition[0], ref.factorial_scores(X, p.means, p.covariance))
        for X in p.sequences
    ]
    q = np.concatenate([part[1] for part in each])
    pairs = sum(part[2] for part in each)
    np.testing.assert_allclose(theta.weights[0, 0], sum(part[1][0] for part in each) / 2)
    np.testing.assert_allclose(theta.weights[0, 1:], pairs / pairs.sum(axis=1, keepdims=True))
    means, covariance = p.model.emission.in_data_units(
        theta.parameters.means, theta.parameters.factor
    )
    centers = (q.T @ p.X) / q.sum(axis=0)[:, None]
    np.testing.assert_allclose(means[0], centers)
    away = p.X[:, None] - centers
    np.testing.assert_allclose(
        covariance, np.einsum("tk,tkd,tke->de", q, away, away) / len(p.X), rtol=1e-9
    )


def test_least_squares_of_the_means():
    """With states known, means are those of least squares, and of least norm."""
    p = Problem(2, 3, 2, 2, [60, 40])
    data = p.fresh
    data.memory[...] = np.eye(2)[p.states].reshape(len(p.X), -1)
    z = data.memory.copy()
    found = p.model.mode(p.model.prior + data.sum(p.model.visit, p.theta(), DRAW))
    z = data.memory.copy()  # of the draw
    expected = np.linalg.lstsq(z, p.in_frame(p.X), rcond=None)[0]
    np.testing.assert_allclose(found.parameters.means, expected, atol=1e-10)
    average = found.parameters.means.reshape(3, 2, 2).mean(axis=1)
    np.testing.assert_allclose(average, average[:1].repeat(3, axis=0), atol=1e-12)
    rest = p.in_frame(p.X) - z @ expected
    factor = found.parameters.factor
    np.testing.assert_allclose(np.linalg.inv(factor.T @ factor), rest.T @ rest / len(p.X))


def test_draws_are_from_the_posterior():
    """Frequencies of all joint paths in a long chain of T given theta."""
    p = Problem(5, 2, 2, 1, [3], noise=1.5)
    _, log_p = enumerate_paths(*p.dense(p.X))
    expected = np.exp(log_p - np.logaddexp.reduce(log_p))
    data, theta = p.fresh, p.theta()
    n = 20_000
    counts = np.zeros(len(expected))
    for sweep in range(n):
        data.sum(p.model.visit, theta, Assignment("draw", seed=3, sweep=sweep))
        joint = data.memory.reshape(-1, 2, 2).argmax(axis=2) @ [2, 1]
        counts[joint @ [16, 4, 1]] += 1
    # Draws are correlated; five standard errors of one in three.
    error = np.sqrt(expected * (1 - expected) / (n / 3))
    assert np.all(np.abs(counts / n - expected) < 5 * error + 1e-3)


def test_chains_that_do_not_meet():
    """Each chain moves a feature of its own: 4,096 joint states, in blocks, are 12 chains."""
    m, n_rows = 12, 150
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, m))
    start, transition = rng.dirichlet([1, 1], m), rng.dirichlet([1, 1], (m, 2))
    data = ArrayData.of(X, n_threads=1).with_memory(24)
    emission = vbfast.AdditiveGaussian(m, m, 2, frame=data.frame)
    model = vbfast.Model(vbfast.CoupledChains(m, 2), emission)
    means = np.zeros((m, 2, m))
    means[np.arange(m), :, np.arange(m)] = rng.standard_normal((m, 2))
    theta = model.point(joined(start, transition), regression(means.reshape(24, m), np.eye(m)))
    found = data.sum(model.visit, theta, EXACT)
    scaled = (X - data.frame.origin) * data.frame.scale
    log_z = n_rows * np.log(data.frame.scale).sum()
    best = log_z
    q = np.empty((n_rows, m, 2))
    for i in range(m):
        scores = stats.norm.logpdf(scaled[:, [i]], means[i, :, i])
        value, q[:, i], pairs = hidden_markov(start[i], transition[i], scores)
        log_z += value
        best += viterbi(start[i], transition[i], scores)[0]
        np.testing.assert_allclose(found["excess"][i, 1:], pairs, rtol=1e-9)
    assert found["log_z"] == pytest.approx(log_z, rel=1e-11)
    np.testing.assert_allclose(data.memory.reshape(q.shape), q, atol=1e-10)
    np.testing.assert_allclose(found["cross"], q.reshape(n_rows, -1).T @ scaled, atol=1e-9)
    q = q.reshape(n_rows, -1)
    i, j = np.triu_indices(24, 2)
    apart = i // 2 != j // 2
    np.testing.assert_allclose(
        found["gram"][i[apart], j[apart]], (q.T @ q)[i[apart], j[apart]], atol=1e-9
    )
    hard = data.sum(model.visit, theta, HARD)
    assert hard["log_z"] == pytest.approx(best, rel=1e-11)


# Conjugate distributions -------------------------------------------------------------------------


def matrix_normal_wishart(rng, p, d, diagonal=False, precision=None):
    root = rng.standard_normal((p, p))
    if precision is None:
        precision = root @ root.T / p + 0.3 * np.eye(p)
    if diagonal:
        scatter = rng.uniform(0.5, 2, (d, 1, 1))
    else:
        root = rng.standard_normal((1, d, d))
        scatter = root @ np.swapaxes(root, 1, 2) + np.eye(d)
    return MatrixNormalWishart(rng.standard_normal((p, d)), precision, d + 2.5, scatter)


def test_with_a_diagonal_precision_rows_are_a_tied_normal_wishart():
    rng = np.random.default_rng(0)
    strengths = rng.uniform(0.5, 3, (2, 4))
    q, prior = (matrix_normal_wishart(rng, 4, 3, precision=np.diag(s)) for s in strengths)
    same = [
        NormalWishart(each.means, strength, each.dof, each.scatter)
        for each, strength in zip((q, prior), strengths, strict=True)
    ]
    mode, expected = q.mode(), same[0].mode()
    np.testing.assert_allclose(mode.factor, expected.factor[0])
    np.testing.assert_allclose(mode.means, expected.means)
    mean, expected = q.mean(), same[0].mean()
    np.testing.assert_allclose(mean.factor, expected.factor[0])
    assert mean.log_det == pytest.approx(expected.log_det[0])
    np.testing.assert_allclose(mean.slack @ mean.slack.T / 2, np.diag(expected.slack))
    assert q.kl(prior) == pytest.approx(same[0].kl(same[1]))
    assert q.kl(q) == pytest.approx(0, abs=1e-12)
    at = point(mode.means + 1, mode.factor[None])
    assert q.log_density(regression(mode.means + 1, mode.factor)) == pytest.approx(
        same[0].log_density(at)
    )
    assert same[0].log_density(at) == pytest.approx(
        ref.normal_wishart_log_density(
            at.means, mode.factor.T @ mode.factor, q.means, strengths[0], q.dof[0], q.scatter[0]
        )
    )


@pytest.mark.parametrize("diagonal", [False, True])
def test_density_of_the_matrix_normal_wishart(diagonal):
    rng = np.random.default_rng(1)
    q = matrix_normal_wishart(rng, 4, 3, diagonal)
    theta = q.sample(rng)
    precision = theta.factor.T @ theta.factor
    expected = stats.matrix_normal.logpdf(
        theta.means, q.means, np.linalg.inv(q.precision), np.linalg.inv(precision)
    )
    if diagonal:
        gamma = stats.gamma(q.dof / 2, scale=2 / q.scatter[:, 0, 0])
        expected += gamma.logpdf(np.diagonal(precision)).sum()
    else:
        wishart = stats.wishart(q.dof[0], np.linalg.inv(q.scatter[0]))
        expected += wishart.logpdf(precision)
    assert q.log_density(theta) == pytest.approx(expected)
    # The mode is one.
    mode = q.mode()
    for _ in range(20):
        away = 1e-3 * rng.standard_normal(mode.means.shape)
        diagonal_ = np.diag(np.exp(1e-3 * rng.standard_normal(3)))
        other = regression(mode.means + away, mode.factor @ diagonal_)
        assert q.log_density(other) < q.log_density(mode)


@pytest.mark.parametrize("diagonal", [False, True])
def test_draws_of_the_matrix_normal_wishart(diagonal):
    """Expectations that `mean` and `kl` tell of, by draws."""
    rng = np.random.default_rng(2)
    q, prior = (matrix_normal_wishart(rng, 3, 2, diagonal) for _ in range(2))
    drawn = [q.sample(rng) for _ in range(20_000)]
    mean = q.mean()
    z, x = np.array([1.0, 0.0, 1.0]), np.array([0.3, -0.7])

    def close(values, expected):
        values = np.array(values)
        error = values.std(axis=0) / np.sqrt(len(values))
        assert np.all(np.abs(values.mean(axis=0) - expected) < 4.5 * error)

    close([theta.means for theta in drawn], mean.means)
    precision = mean.factor.T @ mean.factor
    n_kept = (np.eye(2) if diagonal else np.ones((2, 2))).astype(bool)
    close([(theta.factor.T @ theta.factor)[n_kept] for theta in drawn], precision[n_kept])
    close([theta.log_det for theta in drawn], mean.log_det)
    away = mean.factor @ (x - z @ mean.means)
    square = away @ away + ((mean.slack.T @ z) ** 2).sum()
    close([((theta.factor @ (x - z @ theta.means)) ** 2).sum() for theta in drawn], square)
    close([q.log_density(theta) - prior.log_density(theta) for theta in drawn], q.kl(prior))


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_without_states_the_bound_is_the_evidence(kind):
    """One chain of one state: log p(X) of a Gaussian with its conjugate prior."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((15, 2)) * [2.0, 0.5] + 4
    scatter = np.array([[0.7, 0.1], [0.1, 0.9]]) if kind == "full" else np.array([0.7, 0.9])
    data = ArrayData.of(X)
    emission = vbfast.AdditiveGaussian(
        2, 1, 1, kind, mean_prior=[3.0, 4.5], mean_precision=0.4, degrees_of_freedom=3.5,
        scatter=scatter, frame=data.frame,
    )  # fmt: skip
    model = vbfast.Model(vbfast.CoupledChains(1, 1), emission)
    fit = MeanField(tol=0, max_iter=3).fit(model, data, model.prior * 2)
    n, kappa = len(X), 0.4
    away = X.mean(axis=0) - [3.0, 4.5]
    after = np.diag(scatter) if kind == "diag" else scatter
    rest = X - X.mean(axis=0)
    after = after + rest.T @ rest + kappa * n / (kappa + n) * np.outer(away, away)
    expected = -n * np.log(2 * np.pi) + np.log(kappa / (kappa + n))
    if kind == "full":
        expected += ref.wishart_log_norm(3.5, scatter) - ref.wishart_log_norm(3.5 + n, after)
    else:
        for d in range(2):
            expected += ref.wishart_log_norm(3.5, scatter[d, None, None])
            expected -= ref.wishart_log_norm(3.5 + n, after[d, d, None, None])
    assert fit.objective == pytest.approx(expected, rel=1e-10)


# Sequences, threads, memory ----------------------------------------------------------------------

ALL = [("structured", each) for each in (EXACT, FACTORISED, HARD, DRAW)]
ALL += [("complete", FACTORISED), ("blocks", FACTORISED)]
by_kind = pytest.mark.parametrize(
    ("family", "assignment"), ALL, ids=lambda a: getattr(a, "kind", a)
)


@by_kind
def test_the_whole_is_the_sum_over_sequences(family, assignment):
    p = Problem(6, 3, 2, 2, [1, 20, 5, 1, 33], family=family)
    theta = p.theta()
    whole = p.fresh.sum(p.model.visit, theta, assignment)
    total, first = None, 0
    for X in p.sequences:
        one = replace(p.fresh.block, values=X, sequences=None, first_row=first,
                      memory=np.full((len(X), p.model.memory_width), np.nan))  # fmt: skip
        part = p.model.visit(one, theta, assignment)
        total = part if total is None else total + part
        first += len(X)
    np.testing.assert_allclose(whole.buffer, total.buffer, rtol=1e-10, atol=1e-10)
    assert by_row(whole)["start"].sum() == pytest.approx(3 * 5)
    assert by_row(whole)["transition"].sum() == pytest.approx(3 * 55)


def test_every_row_has_random_numbers_of_its_own():
    """Sequences that are the same are not drawn the same, nor are chains, nor sweeps."""
    p = Problem(6, 2, 2, 2, [60], noise=3.0)
    X = np.concatenate([p.X, p.X])
    data = replace(ArrayData.of(X, lengths=[60, 60]), frame=p.data.frame).with_memory(4)
    paths = []
    for sweep in range(2):
        data.memory[...] = 0.5
        data.sum(p.model.visit, p.theta(), Assignment("draw", seed=1, sweep=sweep))
        paths.append(data.memory.copy())
    assert not np.array_equal(paths[0][:60], paths[0][60:])
    assert not np.array_equal(*paths)
    data.memory[...] = 0.5
    data.sum(p.model.visit, p.theta(), Assignment("draw", seed=1, sweep=0))
    np.testing.assert_array_equal(data.memory, paths[0])


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("n_threads", [1, 2])
@by_kind
def test_interrupt_within_one_sweep(n_threads, family, assignment):
    """A single sweep of some seconds and more, most of it in one sequence, stops."""
    m, n_rows = 12, 400_000
    data = ArrayData.of(np.random.default_rng(0).standard_normal((n_rows, 1)))
    lengths = [n_rows - 20, 10, 10]
    sequences = as_sequences(lengths, n_rows)
    emission = vbfast.AdditiveGaussian(1, m, 2, frame=data.frame)
    latent = vbfast.CoupledChains(m, 2, family, block_states=64)
    model = vbfast.Model(latent, emission)
    data = replace(data, n_threads=n_threads, sequences=sequences)
    data = data.with_memory(model.memory_width)
    means = np.linspace(-1, 1, 2 * m)[:, None]
    probabilities = np.full((m, 2), 0.5), np.full((m, 2, 2), 0.5)
    theta = model.point(joined(*probabilities), regression(means, np.eye(1)))
    sent = []

    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    def visit():
        for _ in range(100):
            data.sum(model.visit, theta, assignment)

    timer = threading.Timer(0.1, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            visit()
    finally:
        timer.cancel()
        timer.join()
    assert time.perf_counter() - sent[0] < 5


@by_kind
def test_the_same_bits_for_every_number_of_threads(family, assignment):
    p = Problem(7, 3, 2, 20, [500, 3, 700, 1, 1000, 250, 250, 800], family=family)
    theta = p.theta()
    found = []
    for n_threads in (1, 2, 3, 8):
        # So much that threads are woken.
        many = np.tile(p.data.values, (6, 1))
        lengths = p.lengths * 6
        data = replace(
            ArrayData.of(many, lengths=lengths, n_threads=n_threads), frame=p.data.frame
        ).with_memory(p.model.memory_width)
        stats_ = data.sum(p.model.visit, theta, assignment)
        found.append((stats_.buffer, data.memory))
    for buffer, memory in found[1:]:
        np.testing.assert_array_equal(buffer, found[0][0])
        np.testing.assert_array_equal(memory, found[0][1])


@pytest.mark.parametrize("level", _kernels.available_levels())
@by_kind
def test_levels_agree(level, family, assignment, monkeypatch):
    p = Problem(8, 3, 2, 3, [40, 30], family=family)
    expected = p.fresh.sum(p.model.visit, p.theta(), assignment)
    monkeypatch.setattr(_kernels, "factorial", _kernels.load(level).factorial)
    found = p.fresh.sum(p.model.visit, p.theta(), assignment)
    np.testing.assert_allclose(found.buffer, expected.buffer, rtol=1e-9, atol=1e-9)


def test_layouts_and_float32():
    p = Problem(9, 2, 2, 3, [40])
    X = p.X.astype(np.float32)
    expected = FactorialHMM(2, 2, random_state=0, max_iter=5, tol=10).fit(X.astype(np.float64))
    for other in (X, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
        found = FactorialHMM(2, 2, random_state=0, max_iter=5, tol=10).fit(other)
        np.testing.assert_array_equal(found.means_, expected.means_)


def test_a_memory_is_asked_for():
    p = Problem(0, 2, 2, 2, [5])
    for assignment in (FACTORISED, DRAW):
        with pytest.raises(ValueError, match=r"data\.with_memory\(model\.memory_width\)"):
            p.data.sum(p.model.visit, p.theta(), assignment)
    first, second = p.data.with_memory(4), p.data.with_memory(4)
    assert not np.shares_memory(first.memory, second.memory)
    assert np.isnan(first.memory).all()
    assert p.data.memory is None


@pytest.mark.parametrize("method", ["variational_em", "crisp_em", "mean_field"])
def test_starts_do_not_share_memory(method):
    p = Problem(10, 3, 2, 2, [60])
    options = {"method": method, "max_iter": 500, "init_params": "random"}
    several = FactorialHMM(3, 2, n_init=3, random_state=4, **options).fit(p.X)
    rng = np.random.default_rng(4)
    alone = [FactorialHMM(3, 2, random_state=rng, **options).fit(p.X) for _ in range(3)]
    assert several.objective_ == max(each.objective_ for each in alone)


# Methods -----------------------------------------------------------------------------------------

PRIOR = {"mean_precision": 0.1, "degrees_of_freedom": 5.0, "scatter": np.full(3, 0.5)}
CLIMBS = [
    EM(tol=0, max_iter=40),
    VariationalEM(tol=0, max_iter=40),
    CrispEM(tol=0, max_iter=40),
    MeanField(tol=0, max_iter=40),
    MeanField(tol=0, max_iter=40, factorised=True),
]


@pytest.mark.parametrize("kind", ["full", "diag"])
@pytest.mark.parametrize("family", [*FAMILIES, "blocks"])
@pytest.mark.parametrize("method", CLIMBS, ids=str)
def test_objectives_never_fall(method, family, kind):
    """A fall is a warning, and warnings are errors; with reg_covar and without."""
    for seed in range(6):
        prior = PRIOR | {"reg_covar": [0.0, 1e-2][seed % 2]}
        if method.read == "mode" and seed < 4:
            prior = {"reg_covar": prior["reg_covar"]}
        p = Problem(seed, 3, 2, 3, [40, 20], family=family, kind=kind, noise=0.3, **prior)
        fit = method.fit(p.model, p.fresh, p.random_start())
        assert np.diff(fit.objectives).min() >= -1e-9 * abs(fit.objective)
        assert fit.objective > fit.objectives[0]


def test_crisp_em_a_chain_at_a_time_never_falls():
    p = Problem(0, 13, 2, 2, [60])
    fit = CrispEM(tol=0, max_iter=15).fit(p.model, p.fresh, p.random_start())
    assert np.diff(fit.objectives).min() >= -1e-9 * abs(fit.objective)


def test_a_path_a_chain_at_a_time_is_one_that_no_chain_can_better(monkeypatch):
    p = Problem(1, 3, 2, 2, [25], noise=1.5)
    data, theta = p.fresh, p.theta()
    with monkeypatch.context() as few:
        few.setattr(coupled, "MOST_STATES", 4)
        found = data.sum(p.model.visit, theta, HARD)["log_z"]
    q = data.memory.reshape(-1, 3, 2).copy()
    assert set(np.unique(q)) == {0.0, 1.0}
    for chain in range(3):
        scores = one_chain_scores(p, q, chain)
        _, path = viterbi(p.start[chain], p.transition[chain], scores)
        np.testing.assert_array_equal(path, q[:, chain].argmax(axis=1))
    assert found <= data.sum(p.model.visit, theta, HARD)["log_z"] + 1e-9


def test_the_objective_has_all_constants():
    """log p(X | theta) + log p(theta), in the units of the data."""
    scatter = np.array([[0.5, 0.1], [0.1, 0.4]])
    p = Problem(2, 2, 2, 2, [30])
    X = p.X * [5.0, 0.2]
    found = FactorialHMM(
        2, 2, method="em", reg_covar=0, start_concentration_prior=1.5, mean_precision_prior=0.3,
        transition_concentration_prior=2.0, degrees_of_freedom_prior=4.0, mean_prior=[25.0, 1.5],
        covariance_prior=scatter, random_state=0, tol=1e-9, max_iter=5000,
    ).fit(X)  # fmt: skip
    precision = np.linalg.inv(found.covariance_)
    log_prior = sum(
        stats.dirichlet.logpdf(row / row.sum(), np.full(2, alpha))
        for rows, alpha in ((found.startprob_, 1.5), (found.transmat_.reshape(-1, 2), 2.0))
        for row in rows
    )
    log_prior += ref.normal_wishart_log_density(
        found.means_.reshape(4, 2), precision, np.tile([12.5, 0.75], (4, 1)), np.full(4, 0.3),
        4.0, scatter,
    )  # fmt: skip
    scores = ref.factorial_scores(X, found.means_, found.covariance_)
    chain = ref.product_chain(found.startprob_, found.transmat_)
    expected = hidden_markov(*chain, scores)[0]
    assert found.score(X) == pytest.approx(expected, rel=1e-10)
    assert found.objective_ == pytest.approx(expected + log_prior, rel=1e-9)


def test_em_is_refused_in_words_where_the_product_chain_is_too_large():
    X = np.random.default_rng(0).standard_normal((30, 2))
    estimator = FactorialHMM(13, 2, method="em")
    before = dict(vars(estimator))
    with pytest.raises(ValueError, match=r"8192 joint states.*4096.*variational EM"):
        estimator.fit(X)
    assert vars(estimator) == before
    with pytest.raises(ValueError, match="variational EM"):
        FactorialHMM(13, 2, method=MeanField()).fit(X)
    for method in ("variational_em", "crisp_em", "mean_field"):
        options = {"method": method, "tol": 1.0, "random_state": 0, "init_params": "random"}
        fitted = FactorialHMM(13, 2, **options).fit(X)
        assert fitted.predict(X).shape == (30, 13)
        assert fitted.predict_proba(X).shape == (30, 13, 2)
        assert np.isfinite(fitted.score(X))


def test_truncation_is_refused():
    with pytest.raises(ValueError, match="truncation is for mixtures"):
        FactorialHMM(2, 2, method=VariationalEM(truncation=2)).fit(X20)


@pytest.mark.parametrize("seed", range(2))
def test_one_default_fit_finds_the_best_optimum(seed):
    """Of easy data: chains that last, and means far apart."""
    rng = np.random.default_rng(seed)
    X = lasting(rng, 2, 2, 500)
    found = [FactorialHMM(2, 2, random_state=n).fit(X).objective_ for n in range(10)]
    single = [
        FactorialHMM(2, 2, init_params="random", random_state=n).fit(X).objective_
        for n in range(20)
    ]  # fmt: skip
    best = max(found + single)
    assert np.sum(np.array(found) > best - 0.1) >= 9
    # It is no matter of course.
    assert np.sum(np.array(single) > best - 0.1) < 15


def lasting(rng, m, k, n_rows, noise=0.3):
    """Rows of chains that stay where they are nineteen times of twenty."""
    means = 3 * rng.standard_normal((m, k, 2))
    states = np.empty((n_rows, m), dtype=int)
    for t in range(n_rows):
        new = rng.integers(k, size=m)
        states[t] = new if t == 0 else np.where(rng.random(m) < 0.05, new, states[t - 1])
    rows = means[np.arange(m), states].sum(axis=1)
    return rows + noise * rng.standard_normal(rows.shape)


def test_starts_of_several_kinds():
    """Each kind comes near to the sums of means that rows are scattered about."""
    rng = np.random.default_rng(3)
    X = lasting(rng, 2, 2, 400, noise=0.05)
    data = ArrayData.of(X)
    model = vbfast.Model(
        vbfast.CoupledChains(2, 2), vbfast.AdditiveGaussian(2, 2, 2, frame=data.frame)
    )
    one_chain = partial(portfolio.one_chain_of, model)
    rows = (X - data.frame.origin) * data.frame.scale
    for kind in ("kmeans", "rows", "residuals", "random"):
        least = np.inf
        for _ in range(5):
            transition, means, covariance = starts.of_coupled(
                data, 2, 2, (kind, True), one_chain, rng
            )
            np.testing.assert_allclose(transition.sum(axis=2), 1)
            assert np.linalg.eigvalsh(covariance).min() > 0
            sums = means.reshape(2, 2, 2)[[0, 1], ref.joint_states(2, 2)].sum(axis=1)
            away = ((rows[:, None] - sums) ** 2).sum(axis=2).min(axis=1).mean()
            least = min(least, away)
        # Of 2.0. One chain after another takes the first one's noise for what the second does.
        assert least < {"residuals": 0.1, "random": 1.0}.get(kind, 0.01), kind


def test_starts_on_a_part_of_the_rows():
    """Of many rows the race sees some; what was found goes on with all."""
    X = lasting(np.random.default_rng(5), 2, 2, 8000)
    part = lasting(np.random.default_rng(5), 2, 2, 400)
    found = FactorialHMM(2, 2, random_state=0).fit(X)
    few = FactorialHMM(2, 2, random_state=0).fit(part)
    assert found.score(X) / len(X) == pytest.approx(few.score(part) / len(part), abs=0.1)


def test_more_chains_than_one_block_holds_are_fitted():
    """Nine chains, of which a fit takes eight at a time; the objective is that of a bound."""
    p = Problem(4, 9, 2, 3, [40], noise=0.3)
    for method in ("variational_em", "mean_field"):
        options = {"method": method, "max_iter": 15, "init_params": "random", "random_state": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
            found = FactorialHMM(9, 2, **options).fit(p.X)
            other = FactorialHMM(9, 2, factorisation="structured", **options).fit(p.X)
        assert np.diff(found.lower_bounds_).min() >= -1e-9 * abs(found.objective_)
        assert found.objective_ > other.objective_
        if method == "variational_em":
            assert found.objective_ <= found.score(p.X) + 1e-9 * abs(found.objective_)


@pytest.mark.parametrize("method", ["em", "variational_em", "mean_field", "crisp_em", "full"])
def test_simulated_parameters_are_found(method):
    p = Problem(11, 2, 3, 4, [150] * 6, noise=0.25)
    if method == "full":
        method = FullInference(n_draws=60, n_tune=60, n_chains=2)
    found = FactorialHMM(2, 3, method=method, random_state=0).fit(p.X, lengths=p.lengths)
    white = np.linalg.inv(np.linalg.cholesky(p.covariance)).T
    chains, states = chain_orders((found.means_ @ white)[None], p.means @ white)
    chains, states = chains[0], states[0]
    of = chains[:, None]
    means = found.means_[of, states]
    for each in (means, p.means):
        each -= each.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(means, p.means, atol=0.12)
    transition = found.transmat_[of[..., None], states[..., None], states[:, None]]
    np.testing.assert_allclose(transition, p.transition, atol=0.12)
    np.testing.assert_allclose(found.covariance_, p.covariance, atol=0.03)
    relabelled = np.stack(
        [np.argsort(states[i])[found.predict(p.X, p.lengths)[:, chains[i]]] for i in range(2)],
        axis=1,
    )
    assert (relabelled == p.states).mean() > 0.95


def test_draws():
    p = Problem(12, 2, 2, 2, [80], noise=0.3)
    method = FullInference(n_draws=100, n_tune=50, n_chains=2)
    found = FactorialHMM(2, 2, method=method, n_init=10, random_state=0).fit(p.X)
    drawn = found.draws_
    assert drawn["startprob"].shape == (2, 100, 2, 2)
    assert drawn["transmat"].shape == (2, 100, 2, 2, 2)
    assert drawn["means"].shape == (2, 100, 2, 2, 2)
    assert drawn["covariance"].shape == (2, 100, 2, 2)
    assert drawn["log_joint"].shape == (2, 100)
    assert found.n_iter_ == 300
    assert found.objective_ == drawn["log_joint"].max()
    np.testing.assert_allclose(found.means_, drawn["means"].mean(axis=(0, 1)))
    np.testing.assert_allclose(drawn["transmat"].sum(axis=-1), 1)
    # All in one order, and a chain alone is the same.
    spread = drawn["means"].std(axis=(0, 1)).max()
    assert spread < 0.3
    assert np.ptp(drawn["means"].mean(axis=3), axis=2).max() < 1e-9


def test_orders_of_chains_and_states():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((3, 4, 2))
    means = np.empty((5, 3, 4, 2))
    for g in range(5):
        chains = rng.permutation(3)
        for i in range(3):
            means[g, chains[i]] = reference[i][rng.permutation(4)] + rng.standard_normal(2)
    chains, states = chain_orders(means, reference)
    ordered = means[np.arange(5)[:, None, None], chains[..., None], states]
    ordered -= ordered.mean(axis=2, keepdims=True)
    expected = reference - reference.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ordered, np.broadcast_to(expected, ordered.shape), atol=1e-12)


# The estimator -----------------------------------------------------------------------------------


def test_predictions_of_sequences():
    p = Problem(13, 3, 2, 2, [30, 1, 40])
    found = FactorialHMM(3, 2, random_state=0, max_iter=300).fit(p.X, lengths=p.lengths)
    chain = ref.product_chain(found.startprob_, found.transmat_)
    states = ref.joint_states(3, 2)
    total, paths, marginals = 0.0, [], []
    for X in p.sequences:
        scores = ref.factorial_scores(X, found.means_, found.covariance_)
        log_z, q, _ = hidden_markov(*chain, scores)
        total += log_z
        paths.append(states[viterbi(*chain, scores)[1]])
        marginals.append(np.stack([q @ (states[:, [i]] == [0, 1]) for i in range(3)], axis=1))
    assert found.score(p.X, lengths=p.lengths) == pytest.approx(total, rel=1e-10)
    np.testing.assert_array_equal(found.predict(p.X, p.lengths), np.concatenate(paths))
    np.testing.assert_allclose(
        found.predict_proba(p.X, p.lengths), np.concatenate(marginals), atol=1e-9
    )
    assert found.score(p.X) != pytest.approx(total, rel=1e-6)


def test_beyond_the_product_chain_the_score_is_a_lower_bound(monkeypatch):
    p = Problem(14, 3, 2, 2, [60])
    found = FactorialHMM(3, 2, random_state=0, max_iter=300).fit(p.X)
    exact = found.score(p.X)
    monkeypatch.setattr("vbfast.latents.coupled.MOST_STATES", 4)
    structured = found.set_params(factorisation="structured").score(p.X)
    complete = found.set_params(factorisation="complete").score(p.X)
    assert complete < structured < exact


def test_sample():
    p = Problem(15, 2, 2, 2, [200])
    found = FactorialHMM(2, 2, random_state=0, max_iter=300, covariance_type="diag").fit(p.X)
    X, states = found.sample(20_000)
    assert X.shape == (20_000, 2)
    rest = X - found.means_[np.arange(2), states].sum(axis=1)
    np.testing.assert_allclose(np.cov(rest.T), np.diag(found.covariance_), atol=0.05)
    for i in range(2):
        steps = np.zeros((2, 2))
        np.add.at(steps, (states[:-1, i], states[1:, i]), 1)
        np.testing.assert_allclose(
            steps / steps.sum(axis=1, keepdims=True), found.transmat_[i], atol=0.03
        )


def test_rows_far_away():
    p = Problem(16, 2, 2, 2, [40])
    found = FactorialHMM(2, 2, random_state=0, max_iter=300).fit(p.X)
    X = p.X.copy()
    X[3], X[20] = 1e300, [-1e300, 1e200]
    proba = found.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=2), 1)
    assert np.isfinite(found.score(X))
    assert found.predict(X).shape == (40, 2)
    far = FactorialHMM(2, 2, random_state=0, max_iter=300).fit(X * [1e-200, 1e-250])
    assert np.isfinite(far.objective_)


@pytest.mark.parametrize(("value", "m", "k"), [
    (4.27e278, 1, 3), (-2.66e216, 5, 3), (1.82e290, 5, 3), (-1.63e301, 2, 3), (-2.49e210, 2, 3),
    (1.1e187, 12, 2), (0.1, 7, 2),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_constant_column_says_nothing_however_large(kind, value, m, k):
    """The last bit of what its means add up to may be 1e260 standard deviations."""
    rng = np.random.default_rng(0)
    X = np.c_[np.full(30, value), rng.standard_normal(30)]
    plain = np.c_[np.zeros(30), X[:, 1]]
    options = {"covariance_type": kind, "random_state": 0, "max_iter": 5, "tol": 0}
    one = FactorialHMM(m, k, **options).fit(X)
    other = FactorialHMM(m, k, **options).fit(plain)
    assert one.objective_ == pytest.approx(other.objective_, rel=1e-9)
    assert one.score(X) == pytest.approx(other.score(plain), rel=1e-6)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(plain), atol=1e-6)
    assert np.isfinite(one.sample(5)[0]).all()
    one.means_ = one.means_ * 0.7  # whoever sets them
    assert np.isfinite(one.score(X))
    np.testing.assert_allclose(one.predict_proba(X).sum(axis=2), 1, rtol=1e-9)


def test_shifted_and_scaled_data_give_the_shifted_and_scaled_fit():
    p = Problem(17, 2, 2, 2, [100])
    options = {"random_state": 0, "tol": 1e-7, "max_iter": 2000, "init_params": "random"}
    one = FactorialHMM(2, 2, **options).fit(p.X)
    other = FactorialHMM(2, 2, **options).fit(p.X * [1e-60, 1e60] + [0, 1e65])
    np.testing.assert_allclose(other.means_, one.means_ * [1e-60, 1e60] + [0, 5e64], rtol=1e-6)
    np.testing.assert_allclose(other.transmat_, one.transmat_, atol=1e-5)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_a_feature_without_noise_is_named(kind):
    p = Problem(18, 2, 2, 3, [80])
    X = p.X.copy()
    X[:, 1] = 2.0
    with pytest.raises(vbfast.DegenerateError, match="feature 1 of X"):
        FactorialHMM(2, 2, covariance_type=kind, reg_covar=0, random_state=0).fit(X)
    found = FactorialHMM(2, 2, covariance_type=kind, random_state=0).fit(X)
    variance = found.covariance_[1] if kind == "diag" else found.covariance_[1, 1]
    assert variance == pytest.approx(1e-6)
    np.testing.assert_allclose(found.means_[:, :, 1].sum(axis=0), 2.0)


def test_given_parameters_are_where_a_fit_starts():
    p = Problem(19, 2, 2, 2, [50])
    found = FactorialHMM(
        2, 2, method="em", reg_covar=0, tol=100.0, startprob_init=p.start,
        transmat_init=p.transition, means_init=p.means, covariance_init=p.covariance,
    ).fit(p.X)  # fmt: skip
    expected = hidden_markov(*p.dense(p.X))[0]
    assert found.lower_bounds_[0] == pytest.approx(expected, rel=1e-9)


def test_an_unused_state():
    """More components than the rows tell of: nothing breaks."""
    X = np.random.default_rng(0).standard_normal((4, 2))
    for method in ("em", "variational_em", "crisp_em", "mean_field"):
        found = FactorialHMM(2, 5, method=method, reg_covar=0.1, random_state=0).fit(X)
        assert np.isfinite(found.means_).all()
        np.testing.assert_allclose(found.transmat_.sum(axis=2), 1)


X20 = np.random.default_rng(0).standard_normal((20, 2))
BAD = [
    ("n_chains", 0, ValueError, "n_chains must be an integer >= 1, not 0"),
    ("n_components", 2.5, TypeError, "n_components must be an integer >= 1, not 2.5"),
    (
        "factorisation",
        "none",
        ValueError,
        "factorisation must be one of 'blocks', 'structured', 'complete'",
    ),
    ("covariance_type", "tied", ValueError, "covariance_type must be one of 'full', 'diag'"),
    ("reg_covar", -1.0, ValueError, "reg_covar must be a finite number >= 0, not -1.0"),
    ("method", "gibbs", ValueError, "method must be one of"),
    ("n_init", 0, ValueError, "n_init must be an integer >= 1"),
    ("start_concentration_prior", 0.5, ValueError, "start_concentration_prior=0.5 is below 1"),
    ("transition_concentration_prior", 0, ValueError, "must be None or a finite number > 0"),
    ("degrees_of_freedom_prior", 1.0, ValueError, "must be greater than 1 "),
    ("mean_prior", [1.0], ValueError, "mean_prior must have shape (2,), got (1,)"),
    ("covariance_prior", -np.eye(2), ValueError, "covariance_prior must be positive definite"),
    ("startprob_init", np.ones((2, 2)), ValueError, "startprob_init[0] must sum to 1, not to 2"),
    ("startprob_init", [[2.0, -1.0], [0.5, 0.5]], ValueError, "startprob_init[0, 0] is 2.0"),
    ("transmat_init", np.ones((2, 2)), ValueError, "must have shape (2, 2, 2), got (2, 2)"),
    ("transmat_init", np.ones((2, 2, 2)), ValueError, "transmat_init[0, 0] must sum to 1"),
    ("means_init", np.full((2, 2, 2), np.nan), ValueError, "means_init[0, 0, 0] is nan"),
    ("means_init", np.full((2, 2, 2), 1e5), ValueError, "standard deviations from the mean of X"),
    ("covariance_init", 1e-40 * np.eye(2), ValueError, "covariance_init[0, 0] is 1e-40"),
    ("random_state", -1, ValueError, "random_state must be >= 0"),
    ("n_threads", 0, ValueError, "n_threads must be None or an integer >= 1"),
]


@pytest.mark.parametrize(("name", "value", "error", "words"), BAD, ids=[b[0] for b in BAD])
def test_bad_parameters(name, value, error, words):
    estimator = FactorialHMM(**{name: value})
    with pytest.raises(error, match=re.escape(words)):
        estimator.fit(X20)
    assert not estimator.__sklearn_is_fitted__()


@pytest.mark.parametrize(("lengths", "error", "words"), [
    ([10, 9], ValueError, "lengths add up to 19, but X has 20 rows"),
    ([20, 0], ValueError, "lengths[1] is 0"),
    ([[20]], ValueError, "one-dimensional"),
    (["a"], TypeError, "whole numbers"),
])  # fmt: skip
def test_bad_lengths(lengths, error, words):
    estimator = FactorialHMM(random_state=0, tol=1.0)
    with pytest.raises(error, match=re.escape(words)):
        estimator.fit(X20, lengths=lengths)
    estimator.fit(X20)
    for predict in (estimator.predict, estimator.predict_proba):
        with pytest.raises(error, match=re.escape(words)):
            predict(X20, lengths)
    with pytest.raises(error, match=re.escape(words)):
        estimator.score(X20, lengths=lengths)


def test_bad_rows():
    estimator = FactorialHMM(random_state=0, tol=1.0)
    bad = X20.copy()
    bad[7, 1] = np.nan
    with pytest.raises(vbfast.NotFittedError):
        estimator.predict(X20)
    with pytest.raises(ValueError, match="NaN at row 7, column 1"):
        estimator.fit(bad)
    estimator.fit(X20)
    with pytest.raises(ValueError, match="NaN at row 7, column 1"):
        estimator.score(bad)
    with pytest.raises(ValueError, match="X has 1 features"):
        estimator.predict(X20[:, :1])
    p = Problem(0, 2, 2, 2, [5])
    other = replace(p.data, frame=Frame(np.zeros(2), np.ones(2), np.ones(2)))
    with pytest.raises(ValueError, match="another frame"):
        other.sum(p.model.visit, p.theta(), EXACT)


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"n_chains": 0}, ValueError, "n_chains must be an integer >= 1, not 0"),
    ({"n_components": 1.5}, TypeError, "n_components must be an integer >= 1, not 1.5"),
    ({"factorisation": "mean"}, ValueError, "factorisation must be 'blocks', 'structured' or"),
    ({"start_concentration": 0.0}, ValueError, "start_concentration must be None or a number"),
])  # fmt: skip
def test_parts_check_their_own(options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        vbfast.CoupledChains(**({"n_chains": 2, "n_components": 2} | options))


def test_what_the_parts_refuse():
    p = Problem(0, 2, 2, 2, [5])
    weighted = replace(p.data, weights=np.ones(5))
    with pytest.raises(ValueError, match="can't have weights"):
        weighted.sum(p.model.visit, p.theta(), EXACT)
    for kind in ("given", "scores", "best"):
        with pytest.raises(ValueError, match=f"no assignment '{kind}'"):
            p.data.sum(p.model.visit, p.theta(), Assignment(kind))
    sparse = replace(p.model, latent=vbfast.CoupledChains(2, 2, "structured", 0.5))
    with pytest.raises(ValueError, match="concentration < 1 has no mode"):
        sparse.mode(sparse.prior)
    with pytest.raises(ValueError, match="covariance_type must be one of 'full', 'diag', not"):
        vbfast.AdditiveGaussian(2, 2, 2, "tied")
    with pytest.raises(ValueError, match="frame has 2 features, not 3"):
        vbfast.AdditiveGaussian(3, 2, 2, frame=p.data.frame)


def test_parameters_as_scikit_learn_has_them():
    from sklearn.base import clone

    estimator = FactorialHMM(3, 2, method="em", n_init=4)
    assert clone(estimator).get_params() == estimator.get_params()
    assert repr(estimator) == "FactorialHMM(method='em', n_chains=3, n_init=4)"


def test_not_converged_is_told():
    with pytest.warns(vbfast.ConvergenceWarning, match="did not converge in 1 iterations"):
        FactorialHMM(max_iter=1, tol=0.0, init_params="random", random_state=0).fit(X20)


@pytest.mark.slow
def test_ladder():
    p = Problem(20, 3, 2, 2, [60, 60], noise=0.4)
    ladder = compare_factorial_hmm(
        p.X[:60], 3, 2, held_out=p.X[60:], n_init=2, tol=1e-4, n_draws=20, n_threads=1
    )
    assert [row.method for row in ladder.rows] == list(FACTORIAL)
    rows = {row.method: row for row in ladder.rows}
    em = rows["em"]
    assert em.objective == pytest.approx(em.log_likelihood, rel=1e-3)  # but for reg_covar
    for name in ("variational_em", "variational_em_complete", "crisp_em"):
        assert rows[name].objective < rows[name].log_likelihood
    table = ladder.table(ascii=True)
    assert all(row.label in table for row in ladder.rows)
    table.encode("ascii")
    assert str(ladder)
    assert len(ladder.to_dict()["rows"]) == 6
    with pytest.raises(ValueError, match="8192; log p"):
        compare_factorial_hmm(p.X, 13, 2)
    with pytest.raises(ValueError, match="methods must be among full, mean_field"):
        compare_factorial_hmm(p.X, 2, 2, methods=["nonsense"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"held_out": np.ones((3, 1))}, "held_out has 1 features, X has 2"),
        ({"held_out": [[0.0, np.nan]]}, "Input held_out contains NaN"),
        ({"held_out": np.ones((3, 2)), "held_out_lengths": [2]}, "lengths"),
        ({"held_out_lengths": [1]}, "held_out_lengths goes with held_out"),
    ],
)
def test_what_is_held_out_is_checked_before_any_fit(more, words):
    def broken(*args, **parameters):
        raise AssertionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FactorialHMM, "fit", broken)
        with pytest.raises(ValueError, match=words):
            compare_factorial_hmm(np.ones((9, 2)), 2, 2, **more)


def test_chains_of_names_are_laid_side_by_side():
    names = np.array(["a", "b", "b"])[np.arange(30) % 3, None]
    ladder = vbfast.compare_hmm(names, 2, emission="categorical", methods=["em"], n_init=1)
    codes = vbfast.compare_hmm(
        (names == "b").astype(float), 2, emission="categorical", methods=["em"], n_init=1
    )
    assert ladder.rows[0].log_likelihood == codes.rows[0].log_likelihood


def test_parameters_set_by_hand_are_checked():
    rng = np.random.default_rng(6)
    X = rng.standard_normal((30, 2))
    fitted = FactorialHMM(2, 2, max_iter=500, random_state=0).fit(X)
    for name, value, words in (
        ("startprob_", -fitted.startprob_, r"startprob_\[.*probabilities must lie in"),
        ("startprob_", np.array([0.5, 0.5]), r"startprob_ must have shape \(2, 2\), got \(2,\)"),
        ("transmat_", 2 * fitted.transmat_, "transmat_"),
        ("means_", np.nan * fitted.means_, r"means_\[0, 0, 0\] is nan"),
        ("means_", fitted.means_[:1], r"startprob_ must have shape \(1, 2\)"),
        ("means_", fitted.means_[0], r"means_ must have shape \(M, K, D\), got \(2, 2\)"),
        ("covariance_", -fitted.covariance_, "covariance_ must be positive definite"),
        ("covariance_", np.array([1.0, 0.0]), r"covariance_\[1\] is 0.0; values must be > 0"),
    ):
        model = FactorialHMM(2, 2)
        vars(model).update(vars(fitted))
        setattr(model, name, value)
        for ask in (lambda model=model: model.score(X), model.sample):
            with pytest.raises(ValueError, match=words):
                ask()
    model.covariance_ = [1.0, 4.0]
    assert np.isfinite(model.score(X))
    assert model.sample(3)[0].shape == (3, 2)


@pytest.mark.parametrize("kind", [np.int8, np.float16])
def test_parameters_of_narrow_types(kind):
    """As many rows as they have no room for."""
    X = np.random.default_rng(0).standard_normal((3000, 1))
    options = {"method": "mean_field", "max_iter": 3, "random_state": 0}
    narrow = {"reg_covar": kind(3), "mean_precision_prior": kind(2)}
    found, expected = (
        vbfast.FactorialHMM(1, 2, **options, **given).fit(X).objective_
        for given in (narrow, {name: float(value) for name, value in narrow.items()})
    )
    assert found == expected


def test_statistics_of_chains_like_these_hold_every_row():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), (2, 4))
    excess = vbfast.CoupledChains(2, 3).around((5, 80), weights)["excess"]
    np.testing.assert_allclose(excess[:, 0], 5 * weights[:, 0])
    np.testing.assert_allclose(excess[:, 1:].sum(axis=(1, 2)), 75)
    np.testing.assert_allclose(excess / excess.sum(axis=2, keepdims=True), weights)


@pytest.mark.parametrize("seed", [115, 185])
def test_no_noise_left_given_all_other_features(seed):
    """Though each has some given those before it: what sums of squares leave then is rounding."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(12, 18))
    X = rng.normal(size=(d + 3, 3)) @ rng.normal(size=(3, d)) * 3
    X += 0.1 * rng.normal(size=(d + 3, d))
    with pytest.raises(vbfast.DegenerateError, match="left without noise"):
        FactorialHMM(3, 2, method="crisp_em", reg_covar=0, max_iter=5, random_state=seed).fit(X)


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_bounds_of_factorised_rows_under_sparse_priors(seed):
    """Expected logarithms of -1e8 count in full where q(T) has next to none of such a step."""
    rng = np.random.default_rng(seed)
    X, lengths = rng.normal(size=(130, 3)), [16, 19, 24, 5, 20, 9, 7, 3, 5, 22]
    model = FactorialHMM(
        2, 4, factorisation="complete", init_params="random", method="mean_field",
        transition_concentration_prior=1e-8, random_state=seed, max_iter=60,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        model.fit(X, lengths=lengths)  # a fall is a warning, and so an error
    assert np.diff(model.lower_bounds_).min() >= -1e-9


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["exact", "structured", "complete", "blocks"])
@pytest.mark.parametrize("forced", ["start", "step", "both"])
def test_expected_logarithms_that_no_probability_is(level, kind, forced):
    """Where rows leave nothing else a start or a step of exp(-5000) counts as what it is."""
    n = 1 if forced == "start" else 2
    visit = Visit(0, 1, 2, 1, 0, [n])
    start = [-5000.0, -0.1] if forced != "step" else [-0.7, -0.7]
    step = [[-7000.0, -0.1], [-0.2, -0.3]] if forced != "start" else [[-0.7, -0.7]] * 2
    visit.logs = np.array([start]), np.array([step])
    visit.v = np.array([[[0.0], [300.0]]])
    visit.y = visit.x = np.zeros((n, 1))  # at state 0: 45,000 nats from the other
    visit.whitening, visit.constant = np.eye(1), -1.0
    visit.values = np.repeat(visit.origin[None], n, axis=0)
    found, q = visit(level, kind)
    expected = start[0] - n + (step[0][0] if n == 2 else 0.0)
    assert found["log_z"] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(q[:, 0], [[1.0, 0.0]] * n, atol=1e-12)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("d", [1, 3, 9])
@pytest.mark.parametrize("variance", [1.0, 1e-100, 1e-202, 1e-286])
def test_rows_many_standard_deviations_of_the_noise_away(covariance_type, d, variance):
    """Against all paths: neither rows nor means are moved where float64 holds their squares."""
    rng = np.random.default_rng(d)
    X, means = 3.0 * rng.normal(size=(3, d)), 3.0 * rng.normal(size=(2, 2, d))
    start, steps = (
        np.array([[0.5, 0.5], [0.1, 0.9]]),
        np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.3, 0.7]]]),
    )
    noise = np.diag(np.linspace(1.0, 2.0, d))
    if covariance_type == "full":
        noise = noise + 0.3
    chains = FactorialHMM(2, 2, covariance_type=covariance_type)
    chains.startprob_, chains.transmat_, chains.means_ = start, steps, means
    chains.covariance_ = variance * (noise if covariance_type == "full" else np.diagonal(noise))
    joint = list(itertools.product(range(2), repeat=2))
    paths = list(itertools.product(joint, repeat=3))
    logs = []
    for path in paths:
        value = -1.5 * (np.linalg.slogdet(noise)[1] + d * np.log(2 * np.pi * variance))
        for t, states in enumerate(path):
            for m, k in enumerate(states):
                value += np.log(start[m, k] if t == 0 else steps[m, path[t - 1][m], k])
            away = X[t] - sum(means[m, k] for m, k in enumerate(states))
            value -= 0.5 * (away @ np.linalg.solve(noise, away)) / variance
        logs.append(value)
    assert chains.score(X) == pytest.approx(np.logaddexp.reduce(logs), rel=1e-12)
    value, found = chains.decode(X)
    assert value == pytest.approx(max(logs), rel=1e-12)
    np.testing.assert_array_equal(found, paths[int(np.argmax(logs))])
    np.testing.assert_allclose(chains.predict_proba(X).sum(axis=-1), 1.0)


def test_noise_set_by_hand_has_an_inverse():
    X = np.random.default_rng(0).normal(size=(40, 2))
    chains = FactorialHMM(2, 2, covariance_type="diag", random_state=0).fit(X)
    chains.covariance_ = np.array([1e-320, 1.0])
    with pytest.raises(ValueError, match="covariance_ has a variance of"):
        chains.score(X)


def test_numbers_of_numpy_make_comparisons():
    names = np.arange(30)[:, None] % 3
    two, one = np.arange(1, 3)[::-1]
    ladder = vbfast.compare_hmm(
        names, two, emission="categorical", methods=["em"], n_init=one, random_state=one
    )
    json.dumps(ladder.to_dict())
