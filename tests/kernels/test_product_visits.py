"""Products of emissions in kernels: any parts, of any columns, against each part's references."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import reference as ref
from conftest import COVARIANCE_TYPES, DiscreteRow
from hypothesis import given
from hypothesis import strategies as st
from test_chain import KINDS, Chain, random_chain
from test_kernels import (
    LEVELS,
    DiscreteTheta,
    Theta,
    assert_statistics,
    assert_tally,
    discrete_rows,
)
from test_visits import (
    EMISSIONS,
    FEATURES,
    ROWS,
    assert_drawn,
    assert_factorised,
    lengths_of,
    seeded,
)

import vbfast
from vbfast import _kernels
from vbfast._kernels.inputs import Assignment, Block, Coefficients
from vbfast.conjugate import point

GAPS = "_gaps"


class ThetaWithGaps(Theta):
    """Gaussians of whose rows some features may be missing."""

    def __init__(self, rng, covariance_type, n_components, n_features, far="near"):
        super().__init__(rng, covariance_type, n_components, n_features, far)
        self.emission = vbfast.Gaussian(n_features, covariance_type, missing=True)
        self.coefficients = self.emission.coefficients(
            point(self.means, self.factor), self.reference
        )

    def kernel(self):
        return Coefficients(self.emission.kernel, self.coefficients, self.offsets)

    @cached_property
    def _each_covariance(self):
        return np.broadcast_to(self.covariances, (len(self.means), *self.covariances.shape[-2:]))

    def completed(self, x):
        """Of a row, for each component: log density, completed row, covariance."""
        each = zip(self.means, self._each_covariance, strict=True)
        return [ref.completed(x, mean, covariance) for mean, covariance in each]

    def scores(self, X):
        return np.log(self.weights) + [[one[0] for one in self.completed(x)] for x in X]

    def assert_completed(self, counts, raw, X, q):
        found = self.emission.collect(raw, counts, self.reference)
        k, d = self.means.shape
        first, second = np.zeros((k, d)), np.zeros((k, d, d))
        for x, own in zip(X, q, strict=True):
            for n, (_, row, covariance) in enumerate(self.completed(x)):
                gap = row - self.means[n]
                first[n] += own[n] * gap
                second[n] += own[n] * (np.outer(gap, gap) + covariance)
        rows = q.sum(axis=0)
        held = np.where(rows > 0, rows, 1.0)
        np.testing.assert_allclose(counts, rows, rtol=1e-12, atol=1e-12)
        means = self.means + first / held[:, None]
        tolerance = 1e-9 * (1 + np.abs(X[~np.isnan(X)]).max(initial=0.0))
        np.testing.assert_allclose(found["mean"][rows > 1e-6], means[rows > 1e-6], atol=tolerance)
        scatter = second - first[:, :, None] * first[:, None, :] / held[:, None, None]
        if self.covariance_type == "tied":
            scatter = scatter.sum(axis=0, keepdims=True)
        np.testing.assert_allclose(
            found["scatter"], scatter, rtol=1e-9, atol=tolerance**2 + 1e-10 * len(X)
        )


@dataclass(frozen=True)
class Together:
    """Rows of several emissions, their columns anywhere among others, and parameters for them."""

    parts: list
    n: int
    k: int
    unused: int = 0
    order: str = "any"
    dtype: str = "float64"
    layout: str = "C"
    weights: str | None = None
    seed: int = 0
    missing: tuple = (0.0, 0.0, 0.0, 0.0)  # share of the rows of each part; 0: none

    @cached_property
    def rng(self):
        return np.random.default_rng(self.seed)

    @cached_property
    def thetas(self):
        return [
            Theta(self.rng, emission, self.k, d, far)
            if emission in COVARIANCE_TYPES
            else ThetaWithGaps(self.rng, emission.removesuffix(GAPS), self.k, d, far)
            if emission.endswith(GAPS)
            else DiscreteTheta(self.rng, DiscreteRow(emission), self.k, d, 0.0)
            for emission, d, far in self.parts
        ]

    @cached_property
    def misses(self):
        """What of a row may be missing, of each part: nothing, all of it, some of it."""
        return [
            2 if emission.endswith(GAPS) else int(share > 0)
            for (emission, _, _), share in zip(self.parts, self.missing, strict=False)
        ]

    @cached_property
    def columns(self):
        """Of each part."""
        widths = [d for _, d, _ in self.parts]
        total = sum(widths) + self.unused
        each = self.rng.permutation(total) if self.order == "any" else np.arange(total)
        return [tuple(own.tolist()) for own in np.split(each, np.cumsum(widths))[: len(widths)]]

    @cached_property
    def values(self):
        total = sum(d for _, d, _ in self.parts) + self.unused
        X = np.full((self.n, total), np.nan)  # of a column that nobody sees it is all the same
        for (_, d, _), theta, own in zip(self.parts, self.thetas, self.columns, strict=True):
            if isinstance(theta, Theta):
                rows = self.rng.standard_normal((self.n, d)) + theta.means[0]
                X[:, own] = rows / self.scale[list(own)] + self.origin[list(own)]
            else:
                X[:, own] = discrete_rows(self.rng, theta.row, self.n, d)
        for own, share in zip(self.columns, self.missing, strict=False):
            # All of a part's columns, or some of them: kernels look for any.
            rows = np.flatnonzero(self.rng.random(self.n) < share)
            some = self.rng.random((len(rows), len(own))) < self.rng.choice([0.3, 1.0])
            some[:, 0] |= ~some.any(axis=1)
            X[np.ix_(rows, own)] = np.where(some, np.nan, X[np.ix_(rows, own)])
        X = X.astype(self.dtype)
        if self.layout == "F":
            return np.asfortranarray(X)
        if self.layout == "strided":
            wide = np.full((2 * self.n, 3 * total), np.nan, self.dtype)
            wide[::2, 1::3] = X
            return wide[::2, 1::3]
        return X

    @cached_property
    def frame(self):
        total = sum(d for _, d, _ in self.parts) + self.unused
        origin, scale = np.zeros(total), np.ones(total)
        for (_, d, _), theta, own in zip(self.parts, self.thetas, self.columns, strict=True):
            if isinstance(theta, Theta):
                origin[list(own)] = self.rng.uniform(2, 4, d)
                scale[list(own)] = self.rng.uniform(0.3, 0.7, d)
        return origin, scale

    origin = property(lambda self: self.frame[0])
    scale = property(lambda self: self.frame[1])

    @cached_property
    def weight(self):
        if self.weights is None:
            return None
        if self.weights == "whole":
            return self.rng.integers(0, 4, self.n).astype(float)
        return self.rng.uniform(0, 3, self.n) * (self.rng.random(self.n) > 0.3)

    @cached_property
    def seen(self):
        """Which rows are seen, of each part."""
        absent = [np.isnan(self.values[:, list(own)]) for own in self.columns]
        return [
            ~(one.all(axis=1) if misses == 2 else one.any(axis=1))
            for one, misses in zip(absent, self.misses, strict=True)
        ]

    @cached_property
    def rows(self):
        """What kernels see of each part, and 0 of what is missing."""
        X = (self.values.astype(np.float64) - self.origin) * self.scale
        return [
            np.where(seen[:, None], X[:, list(own)], 0.0)
            for own, seen in zip(self.columns, self.seen, strict=True)
        ]

    @cached_property
    def scores(self):
        """Log densities of all parts together, as kernels have them."""
        total = np.zeros((self.n, self.k))
        for theta, rows, seen in zip(self.thetas, self.rows, self.seen, strict=True):
            own = theta.scores(rows) - np.reshape(theta.emission.log_base(rows), (-1, 1))
            # A part's weights are what all rows have of it, whatever is missing.
            own -= np.log(theta.weights)
            total += np.where(seen[:, None], own, 0.0) + np.log(theta.weights)
        return total

    def coefficients(self):
        told = [theta.kernel() for theta in self.thetas]
        parts, coefficients, offsets = [], [], np.zeros(self.k)
        for theta, one, own, misses in zip(
            self.thetas, told, self.columns, self.misses, strict=True
        ):
            parts.append((one.emission, own, one.n_categories, misses))
            offsets += np.log(theta.weights)
            if misses:
                coefficients.append(theta.offsets - np.log(theta.weights))
            else:
                offsets += theta.offsets - np.log(theta.weights)
            coefficients.append(np.ravel(one.coefficients))
        return Coefficients(tuple(parts), np.concatenate(coefficients), offsets)

    def sections(self, raw):
        """Of each part: what stands in raw statistics, and the rows of each component."""
        start = 0
        counts = raw[1 : 1 + self.k]
        emission = raw[1 + self.k :]
        for theta, rows, misses in zip(self.thetas, self.rows, self.misses, strict=True):
            told = theta.kernel()
            size = _kernels.mixture.statistics_size(
                told.emission, self.k, rows.shape[1], told.n_categories
            )
            seen = counts
            if misses:
                seen = emission[start : start + self.k]
                start += self.k
            end = start + size - 1 - self.k
            yield emission[start:end], seen.copy()
            start = end
        assert start == len(emission)

    def block(self, labels=None, n_threads=1, first_row=0):
        return Block(
            self.values, self.weight, labels, self.origin, self.scale, first_row, n_threads
        )

    def fields(self, raw):
        """All that raw statistics say, without what is padding in them."""
        yield raw[: 1 + self.k]
        for theta, (own, counts) in zip(self.thetas, self.sections(raw), strict=True):
            yield from theta.emission.collect(own, counts, theta.reference).values()

    def assert_parts(self, raw, q, weight):
        """What the parts got are the statistics of their own columns."""
        for theta, rows, seen, (own, counts) in zip(
            self.thetas, self.rows, self.seen, self.sections(raw), strict=True
        ):
            of_part = np.concatenate([[0.0], counts, own])
            weight_of = weight * seen
            if isinstance(theta, ThetaWithGaps):
                theta.assert_completed(counts, own, rows, weight_of[:, None] * q)
            elif isinstance(theta, Theta):
                assert_statistics(theta, of_part, rows, weight_of, q, np.zeros(len(rows)), 1e-10)
            else:
                np.testing.assert_allclose(counts, weight_of @ q, rtol=0, atol=1e-9 * len(q))
                assert_tally(theta, of_part, rows[seen], (weight_of[:, None] * q)[seen])


def together(most=513, weights=(None,)):
    part = st.tuples(
        st.sampled_from([*EMISSIONS, "full_gaps", "tied_gaps"]),
        st.one_of(st.integers(1, 5), st.sampled_from(FEATURES)),
        st.sampled_from(["near", "some", "all"]),
    )
    return st.builds(
        Together,
        st.lists(part, min_size=1, max_size=4),
        st.one_of(st.sampled_from([n for n in ROWS if n <= most]), st.integers(1, most)),
        st.one_of(st.integers(1, 9), st.sampled_from([12, 16, 17])),
        st.integers(0, 3),
        st.sampled_from(["any", "side by side"]),
        st.sampled_from(["float64", "float32"]),
        st.sampled_from(["C", "F", "strided"]),
        st.sampled_from(weights),
        st.integers(0, 2**32 - 1),
        st.tuples(*[st.sampled_from([0.0, 0.0, 0.3, 0.9, 1.0])] * 4),
    )


def some_known(case, labels):
    """Labels of some rows, none of which is impossible; -1 of others; or None."""
    share = case.rng.choice([0.0, 0.1, 0.9])
    if share == 0:
        return None
    known = case.rng.random(case.n) < share
    return np.where(known & np.isfinite(case.scores[np.arange(case.n), labels]), labels, -1)


def masked(scores, labels):
    """Scores of which a row whose label is known has that one alone."""
    if labels is None:
        return scores
    other = np.arange(scores.shape[1]) != labels[:, None]
    return np.where((labels >= 0)[:, None] & other, -np.inf, scores)


@pytest.mark.parametrize("kind", ["scores", "exact", "factorised", "best", "hard", "draw", "given"])
def test_mixture(kind):
    @seeded(kind, "product", n=40)
    @given(
        case=together(weights=(None, "whole", "whole" if kind == "draw" else "real")),
        truncation=st.integers(1, 9),
    )
    def run(case, truncation):
        n, k = case.scores.shape
        labels = case.rng.integers(k, size=n)
        if kind != "given":
            labels = some_known(case, labels)
        weight = np.ones(n) if case.weight is None else case.weight
        present = weight > 0
        theta = case.coefficients()
        assignment = Assignment(kind, truncation=min(truncation, k), seed=3)
        for level in LEVELS:
            kernel = _kernels.load(level).mixture
            size = kernel.statistics_size(theta.emission, k, case.values.shape[1])
            found = []
            for n_threads in (1, 2):
                out = {"q": np.full((n, k), np.nan)}
                if kind != "scores":
                    out |= {"log_z": np.full(n, np.nan), "statistics": np.full(size, np.nan)}
                kernel.visit(case.block(labels, n_threads), theta, assignment, **out)
                found.append(out)
            for name in set(found[0]) - {"statistics"}:
                np.testing.assert_array_equal(found[0][name], found[1][name])
            own = np.full((n, k), np.nan)
            kernel.visit(case.block(), theta, Assignment("scores"), q=own)
            tolerance = 1e-10 * (1 + np.abs(case.scores).max(axis=1, keepdims=True))
            assert np.all((np.abs(own - case.scores) <= tolerance)[present])
            if kind == "scores":
                continue
            own = masked(own, labels)
            if kind == "draw":
                drawn = found[0]["q"]
                np.testing.assert_array_equal(drawn.sum(axis=1), weight)
                assert np.all(labels is None or drawn[own == -np.inf] == 0)
                q = drawn / np.where(present, weight, 1)[:, None]
            elif kind == "given":
                q = ref.one_hot(labels, k)
            else:
                kept = "exact" if kind == "factorised" else kind
                log_z, q = ref.assign(own, kept, assignment.truncation)
                np.testing.assert_allclose(
                    found[0]["log_z"][present], log_z[present], rtol=1e-12, atol=1e-13
                )
            np.testing.assert_allclose(found[0]["q"], weight[:, None] * q, rtol=0, atol=1e-11)
            raw, other = (each["statistics"] for each in found)
            case.assert_parts(raw, q, weight)
            for one, two in zip(case.fields(raw), case.fields(other), strict=True):
                np.testing.assert_array_equal(one, two)

    run()


class ProductChain(Chain):
    """Sequences of rows of several emissions."""

    def assert_emission(self, found, q):
        raw = np.concatenate([[0.0], found["counts"], found["emission"]])
        self.data.assert_parts(raw, q, np.ones(len(q)))


@pytest.mark.parametrize("kind", KINDS)
def test_chain(kind):
    @seeded(kind, "product of a chain", n=30)
    @given(
        case=together(100 if kind == "factorised" else 513), stay=st.sampled_from([0.0, 2.0, 20.0])
    )
    def run(case, stay):
        theta = case.coefficients()
        lengths = lengths_of(case)
        start, transitions = random_chain(case.rng, case.k, stay)
        chain = ProductChain(
            case.scores.copy(), start, transitions, lengths, case, theta.emission,
            theta.coefficients, theta.offsets,
        )  # fmt: skip
        labels = case.rng.integers(case.k, size=case.n)
        if kind != "given":
            labels = some_known(case, labels)
        for level in LEVELS:
            own = np.full(case.scores.shape, np.nan)
            _kernels.load(level).mixture.visit(case.block(), theta, Assignment("scores"), q=own)
            tolerance = 1e-10 * (1 + np.abs(case.scores).max(axis=1, keepdims=True))
            assert np.all(np.abs(own - case.scores) <= tolerance)
            chain.scores = own if kind == "given" else masked(own, labels)
            vars(chain).pop("smoothed", None)
            if kind in ("draw", "factorised"):
                found = chain.visit(kind, level, 2, seed=case.seed, labels=labels)
                (assert_drawn if kind == "draw" else assert_factorised)(chain, found)
            else:
                chain.assert_as_expected(kind, level=level, n_threads=2, labels=labels)

    run()


def test_several_thetas_in_one_pass():
    rng = np.random.default_rng(0)
    case = Together([("diag", 3, "near"), ("poisson", 2, ""), ("categorical", 4, "")], 300, 3, 2)
    one = case.coefficients()
    thetas = [(one.coefficients, one.offsets + rng.standard_normal(3)) for _ in range(3)]
    size = _kernels.mixture.statistics_size(one.emission, 3, case.values.shape[1])
    each = []
    for coefficients, offsets in thetas:
        each.append(np.empty(size))
        told = Coefficients(one.emission, coefficients, offsets)
        _kernels.mixture.visit(case.block(), told, Assignment("exact"), statistics=each[-1])
    several = Coefficients(
        one.emission, np.stack([c for c, _ in thetas]), np.stack([o for _, o in thetas])
    )
    out = np.empty(3 * size)
    _kernels.mixture.visit(case.block(), several, Assignment("exact"), statistics=out)
    for found, expected in zip(np.split(out, 3), each, strict=True):
        for one, other in zip(case.fields(found), case.fields(expected), strict=True):
            np.testing.assert_array_equal(one, other)


GOOD = ("diag", (0, 1), 0, False)


@pytest.mark.parametrize(
    ("emission", "error", "message"),
    [
        ((), ValueError, "number of parts is 0"),
        ((GOOD, ("diag", (2, 3), 0, False)), ValueError, "of column 3; 0 to 2 are allowed"),
        ((GOOD, ("diag", (-1,), 0, False)), ValueError, "of column -1"),
        ((GOOD, ("none", (2,), 0, False)), ValueError, "emission must be one of"),
        ((GOOD, ("product", (2,), 0, False)), ValueError, "can't be a product"),
        ((GOOD, ("categorical", (2,), 0, False)), ValueError, "n_categories is 0"),
        ((GOOD, ("categorical", (2,), 2**60, False)), MemoryError, "no memory"),
        ((GOOD, ("diag", (), 0, False)), ValueError, "n_features is 0"),
        ((GOOD, ("diag", (2.5,), 0, False)), TypeError, None),
        ((GOOD, ("diag", 2, 0, False)), TypeError, None),
        ((GOOD, ("diag", (2,), 0)), ValueError, None),
        ((GOOD, 3), TypeError, None),
        ((GOOD, GOOD), ValueError, "coefficients has length"),
    ],
)
@pytest.mark.parametrize("kernel", ["mixture", "chain"])
def test_what_is_no_product_is_refused(kernel, emission, error, message):
    X = np.zeros((5, 3))
    latent = np.full(6, 0.5) if kernel == "chain" else None
    block = Block(X, None, None, np.zeros(3), np.ones(3), 0, 1)
    coefficients = Coefficients(emission, np.zeros(10), np.zeros(2), latent)
    visit = getattr(_kernels, kernel).visit
    with pytest.raises(error, match=message):
        visit(block, coefficients, Assignment("exact"), q=np.empty((5, 2)))
