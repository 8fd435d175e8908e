"""All that a visit gives against the plain references, for whatever may be visited.

Independent rows and chains x every emission x every kind of assignment, of any shape: around and
between the edges of blocks, panels, tiles, bundles and spans, near and far. Coupled chains are in
test_factorial.py, edges of chunks in test_kernels.py and test_chain.py.
"""

import zlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pytest
import reference as ref
from conftest import COVARIANCE_TYPES, RATES, DiscreteRow, examples
from hypothesis import given, seed
from hypothesis import strategies as st
from test_chain import KINDS, Chain
from test_kernels import (
    LEVELS,
    Data,
    DiscreteTheta,
    Theta,
    check,
    check_discrete,
    discrete_rows,
)

from vbfast import _kernels
from vbfast._kernels.inputs import Assignment, Coefficients

EMISSIONS = (*COVARIANCE_TYPES, *RATES, "bernoulli", "categorical")


def seeded(*names, n=14):
    """The same ones each time, but others for each of `names`."""
    return lambda run: seed(zlib.crc32(repr(names).encode()))(examples(n)(run))


@dataclass(frozen=True)
class Case:
    """Rows of an emission and parameters for them."""

    emission: str
    n: int
    d: int
    k: int
    far: str = "near"
    row_away: float = 0.0
    dtype: str = "float64"
    layout: str = "C"
    seed: int = 0

    @cached_property
    def rng(self):
        return np.random.default_rng(self.seed)

    @property
    def gaussian(self):
        return self.emission in COVARIANCE_TYPES

    def theta(self, zeros=0.0):
        if self.gaussian:
            return Theta(self.rng, self.emission, self.k, self.d, self.far)
        return DiscreteTheta(self.rng, DiscreteRow(self.emission), self.k, self.d, zeros)

    def data(self, theta, weights=None):
        """Rows, two of them `row_away` from the others where they may be."""
        away = self.rng.integers(self.n, size=2)
        if self.gaussian:
            # Beside the components, more of some than of others, so that tiles lack some.
            share = self.rng.dirichlet(np.ones(self.k))
            labels = self.rng.choice(self.k, size=self.n, p=share)
            if self.rng.random() < 0.5:
                labels = np.sort(labels)
            rows = theta.means[labels] + self.rng.standard_normal((self.n, self.d))
            if self.row_away:
                rows[away] = self.row_away * self.rng.choice([-1, 1], (2, 1))
            return Data(self.rng, self.n, self.d, self.dtype, self.layout, weights, rows)
        data = Data(self.rng, self.n, self.d, weights=weights)
        rows = discrete_rows(self.rng, theta.row, self.n, self.d)
        if self.row_away and self.emission in RATES:
            rows[away] = np.floor(self.row_away)
        data.values = np.asarray(rows, self.dtype, order="F" if self.layout == "F" else "C")
        data.rows = data.values.astype(np.float64)
        data.origin, data.scale = np.zeros(self.d), np.ones(self.d)
        return data


# Edges of blocks (32, 64), tiles (256 down to 128; twice that in single precision), of spans that
# are cut (256), and what lies between.
ROWS = [7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 160, 223, 225, 255, 256, 257, 300, 430, 513]
# Those of squares that are read, of panels, of gathering.
FEATURES = [8, 9, 11, 12, 13, 15, 16, 17, 24, 31, 32, 33, 47, 49, 64, 65, 70]


def cases(emission, most=513):
    gaussian = emission in COVARIANCE_TYPES
    return st.builds(
        Case,
        st.just(emission),
        st.one_of(st.sampled_from([n for n in ROWS if n <= most]), st.integers(1, most)),
        st.one_of(st.sampled_from(FEATURES), st.integers(1, 70), st.integers(1, 8)),
        st.one_of(st.integers(1, 9), st.sampled_from([12, 16, 17, 20])),
        st.sampled_from(["near", "some", "all"] if gaussian else ["near"]),
        st.sampled_from([0.0, 0.0, 0.0, 1e3, 1e9] if emission not in RATES else [0.0, 0.0, 1e12]),
        st.sampled_from(["float64", "float32"]),
        st.sampled_from(["C", "F", "strided"] if gaussian else ["C", "F"]),
        st.integers(0, 2**32 - 1),
    )


# Independent rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("emission", EMISSIONS)
@pytest.mark.parametrize("kind", ["scores", "exact", "factorised", "best", "hard", "draw", "given"])
def test_mixture(emission, kind):
    @seeded(emission, kind)
    @given(
        case=cases(emission),
        truncation=st.integers(1, 9),
        weights=st.sampled_from([None, "whole", "whole" if kind == "draw" else "real"]),
        zeros=st.sampled_from([0.0, 0.2]),
    )
    def run(case, truncation, weights, zeros):
        theta = case.theta(zeros)
        data = case.data(theta, weights)
        for level in LEVELS:
            if case.gaussian:
                check(level, theta, data, kind, case.rng, 2, truncation)
            else:
                check_discrete(level, theta, data.values, kind, case.rng, data.weights, truncation)

    run()


@pytest.mark.parametrize("emission", COVARIANCE_TYPES)
@pytest.mark.parametrize("kind", ["scores", "exact", "factorised", "best", "hard", "draw", "given"])
def test_mixture_in_single_precision(emission, kind):
    @seeded(emission, kind, "single")
    @given(
        case=cases(emission),
        truncation=st.integers(1, 9),
        weights=st.sampled_from([None, "whole", "whole" if kind == "draw" else "real"]),
    )
    def run(case, truncation, weights):
        # Far rows are where float32 numbers won't do: Gaussian.single_resolves.
        case = replace(case, row_away=0.0)
        theta = case.theta()
        data = case.data(theta, weights)
        for level in LEVELS:
            check(level, theta, data, kind, case.rng, 2, truncation, single=True)

    run()


# Chains -------------------------------------------------------------------------------------------


def lengths_of(case):
    """One sequence, some, or many short ones."""
    n = case.n
    cuts = case.rng.choice(n, size=min(n, case.rng.choice([1, 2, 9, 40])), replace=False)
    return np.diff(np.unique(np.concatenate([[0], cuts, [n]])))


def take_own_scores(chain, level):
    """Take the kernel's scores for the chain's, having seen that they are right."""
    found = np.full(chain.scores.shape, np.nan)
    told = chain.theta
    told = Coefficients(
        told.emission, told.coefficients, told.offsets, n_categories=told.n_categories
    )
    block = chain.block()
    block.sequences = None
    _kernels.load(level).mixture.visit(block, told, Assignment("scores"), q=found)
    tolerance = 1e-12 * (1 + np.abs(chain.scores))
    if chain.emission not in COVARIANCE_TYPES:
        # Reference and kernel differ in log x!.
        tolerance = 1e-11 * (1 + np.abs(chain.scores) + chain.data.rows.max())
    assert np.all(np.abs(found - chain.scores) <= tolerance)
    chain.scores = found
    vars(chain).pop("smoothed", None)


def assert_drawn(chain, found):
    """Statistics are those of the path that was drawn, and so is log p(rows, path)."""
    k, objective, pairs, starts = len(chain.start), 0.0, 0.0, 0.0
    q = ref.one_hot(found["labels"], k)
    for rows, (scores, start, transitions) in chain.parts():
        path = found["labels"][rows]
        pairs = pairs + ref.count_path(path, k)
        starts = starts + q[rows][0]
        objective += scores[np.arange(len(path)), path].sum() + np.log(start[path[0]])
        objective += np.log(transitions[path[:-1], path[1:]]).sum()
    np.testing.assert_array_equal(found["counts"], q.sum(axis=0))
    np.testing.assert_array_equal(found["start"], starts)
    np.testing.assert_array_equal(found["transitions"], pairs)
    assert found["objective"] == pytest.approx(objective, rel=1e-11, abs=1e-11 * len(q))
    chain.assert_emission(found, q)


def assert_factorised(chain, found):
    """Statistics are those of q, which no ascent betters, and so is the free energy."""
    q, objective, pairs, starts, most = found["q"], 0.0, 0.0, 0.0, 0.0
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=0, atol=1e-12)
    for i, (rows, (scores, *rest)) in enumerate(chain.parts()):
        # Without what all states of a row have in common, beside which nothing is resolved.
        level = scores.max(axis=1, keepdims=True)
        energy = ref.chain_free_energy(q[rows], scores - level, *rest)
        _, best = ref.factorise_chain(q[rows], scores - level, *rest)
        assert best <= energy + 1e-9 * (1 + abs(energy)) + 1e-12 * len(scores)
        objective += level.sum() + energy
        most += chain.smoothed[i][0].sum()
        starts, pairs = starts + q[rows][0], pairs + q[rows][:-1].T @ q[rows][1:]
    n = len(q)
    assert found["objective"] == pytest.approx(objective, rel=1e-11, abs=1e-11 * n)
    assert found["objective"] <= most + 1e-11 * (n + abs(most))
    np.testing.assert_allclose(found["counts"], q.sum(axis=0), rtol=0, atol=1e-12 * n)
    np.testing.assert_allclose(found["start"], starts, rtol=0, atol=1e-12 * n)
    np.testing.assert_allclose(found["transitions"], pairs, rtol=0, atol=1e-12 * n)
    chain.assert_emission(found, q)


def check_chain(case, kind, lengths, stay):
    theta = case.theta()
    chain = Chain.of(case.rng, theta, case.data(theta), lengths, stay)
    labels = case.rng.integers(case.k, size=case.n)
    for level in LEVELS:
        take_own_scores(chain, level)
        if kind in ("draw", "factorised"):
            found = chain.visit(kind, level, 2, seed=case.seed)
            assert found["impossible"] == -1
            (assert_drawn if kind == "draw" else assert_factorised)(chain, found)
        else:
            known = labels if kind == "given" else None
            chain.assert_as_expected(kind, level=level, n_threads=2, labels=known)


@pytest.mark.parametrize("emission", EMISSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_chain(emission, kind):
    most = 200 if kind == "factorised" else 513  # the reference is slow

    @seeded(emission, kind, "chain")
    @given(case=cases(emission, most), stay=st.sampled_from([0.0, 2.0, 20.0]))
    def run(case, stay):
        check_chain(case, kind, lengths_of(case), stay)

    run()


@pytest.mark.parametrize("emission", EMISSIONS)
@pytest.mark.parametrize("kind", ["exact", "filter", "hard", "draw", "given"])
@pytest.mark.parametrize(
    ("d", "lengths"), [(3, [2049, 30, 1]), (17, [900, 300, 7, 7])], ids=["spans", "cut"]
)
def test_long_chain(emission, kind, d, lengths):
    """Sequences that are cut into spans, beside short ones."""
    case = Case(emission, sum(lengths), d, 3, "all", seed=d)
    check_chain(case, kind, lengths, 2.0)


# Rows so far away that scores are numbers of 1e20, or none ----------------------------------------


def assert_consistent(chain, kind, level, n_threads=1):
    """Probabilities sum to 1, and statistics are of these; a row's pairs to its q."""
    n, k = chain.scores.shape
    found = chain.visit(kind, level, n_threads)
    assert found["impossible"] == -1
    for name in (KINDS[kind] - {"statistics"}) | ({"counts", "objective"} & found.keys()):
        assert not np.isnan(found[name]).any(), name
    q = found["q"] if "q" in found else ref.one_hot(found["labels"], k)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=0, atol=1e-13)
    if "statistics" not in found:
        return found
    bounds = chain.sequences.offsets
    pairs, last = found["transitions"], q[bounds[1:] - 1].sum(axis=0)
    tolerance = {"rtol": 0, "atol": 1e-12 * n}
    np.testing.assert_allclose(found["counts"], q.sum(axis=0), **tolerance)
    np.testing.assert_allclose(found["start"], q[bounds[:-1]].sum(axis=0), **tolerance)
    np.testing.assert_allclose(pairs.sum(axis=1), q.sum(axis=0) - last, **tolerance)
    np.testing.assert_allclose(pairs.sum(axis=0), q.sum(axis=0) - found["start"], **tolerance)
    return found


@pytest.mark.parametrize("kind", ["exact", "filter", "hard", "draw", "factorised"])
@pytest.mark.parametrize("transitions", ["dense", "mild zeros", "next to zeros", "left to right"])
def test_chain_of_huge_scores(kind, transitions):
    """Whatever they are, and however far `apart`, in units of them, states are."""

    @seeded(kind, transitions, n=10)
    @given(
        n=st.integers(1, 300),
        k=st.integers(1, 5),
        away=st.sampled_from([1e3, 1e9, 1e20, 1e200]),
        apart=st.sampled_from([0.0, 1e-16, 1.0]),
        share=st.sampled_from([0.02, 0.3, 1.0]),
        number=st.integers(0, 2**32 - 1),
    )
    def run(n, k, away, apart, share, number):
        rng = np.random.default_rng(number)
        start, matrix = rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(k), k)
        if transitions == "left to right":
            start, matrix = np.eye(k)[0], np.triu(matrix)
        elif transitions != "dense":
            small = 0.0 if transitions == "mild zeros" else 1e-150
            matrix[(rng.random((k, k)) < 0.4) & (np.eye(k) == 0)] = small
        matrix /= matrix.sum(axis=1, keepdims=True)
        scores = -3 * rng.random((n, k))
        huge = rng.random(n) < share
        scores[huge] -= away * (1 + apart * rng.random((huge.sum(), k)))
        case = Case("diag", n, 1, k, seed=number)
        chain = Chain.of_scores(scores, start, matrix, lengths_of(case).tolist())
        for level in LEVELS:
            found = assert_consistent(chain, kind, level, 2)
            if apart == 0.0 and kind in ("exact", "filter", "hard"):
                # What is common to all states makes no difference but to rounding of the scores.
                take_own_scores(chain, level)
                expected = chain.expected(kind)
                if kind == "hard":
                    size = 1 + np.abs(chain.scores).sum()
                    assert abs(found["objective"] - expected["objective"]) <= 1e-12 * size
                elif transitions == "dense":
                    np.testing.assert_allclose(found["q"], expected["q"], rtol=0, atol=1e-9)

    run()


@pytest.mark.parametrize("emission", COVARIANCE_TYPES)
@pytest.mark.parametrize("kind", ["exact", "filter", "hard", "draw", "factorised"])
@pytest.mark.parametrize("engine", ["scaled", "logarithms"])
def test_rows_out_of_reach_tell_nothing(emission, kind, engine):
    """As in mixtures, where no row is impossible: log_z is -inf, q what other rows say of it."""
    rng = np.random.default_rng(5)
    theta, lengths = Theta(rng, emission, 3, 4), [60, 9, 300]
    data = Data(rng, sum(lengths), 4)
    chain = Chain.of(rng, theta, data, lengths)
    if engine == "logarithms":
        # A transition so unlikely that all is left to logarithms.
        chain.transitions = np.where(np.eye(3) == 1, 1 - 2e-150, 1e-150)
        chain.theta.latent[3:] = chain.transitions.ravel()
    gone = [0, 30, 31, 64, 200, len(data.rows) - 1]
    chain.scores[gone] = 0.0  # as if nothing had been seen
    for level in LEVELS:
        data.values[gone] = 0.0
        data.values[gone] = 1e160 * rng.choice([-1, 1], (len(gone), 1))
        chain.theta.may_be_impossible = True
        assert chain.visit(kind, level)["impossible"] == 0
        chain.theta.may_be_impossible = False
        found = assert_consistent(chain, kind, level, 2)
        if "objective" in found:
            assert found["objective"] == -np.inf
        if kind in ("exact", "filter"):
            expected = chain.expected(kind)
            np.testing.assert_allclose(found["q"], expected["q"], rtol=0, atol=1e-10)
            np.testing.assert_array_equal(np.flatnonzero(np.isneginf(found["log_z"])), gone)
            seen = np.setdiff1d(np.arange(len(data.rows)), gone)
            np.testing.assert_allclose(found["log_z"][seen], expected["log_z"][seen], atol=1e-9)
        if kind == "hard":
            np.testing.assert_array_equal(
                ref.one_hot(found["labels"], 3), chain.expected(kind)["q"]
            )
