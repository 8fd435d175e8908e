"""Compiled kernels against the plain references, at every SIMD level and number of threads."""

import threading
import time

import numpy as np
import pytest
import reference as ref
from conftest import DISCRETE, examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import xlogy
from scipy.stats import binom, chisquare, multinomial, norm

import vbfast
from vbfast import _kernels, starts
from vbfast._kernels.inputs import Assignment, Block, Coefficients
from vbfast.conjugate import point, precision_factors
from vbfast.data import ArrayData, Frame

LEVELS = _kernels.available_levels()
EMISSIONS = ("full", "tied", "diag", "spherical")
# By whether the kernel computes with float32 numbers.
TOLERANCE = {False: 1e-12, True: 2e-6}
PRECISIONS = pytest.mark.parametrize("single", [False, True], ids=["double", "single"])

sizes = st.one_of(
    st.integers(1, 70), st.sampled_from([127, 128, 129, 255, 257, 511, 512, 513, 1023, 1025])
)
features = st.one_of(st.integers(1, 10), st.sampled_from([15, 16, 17, 33]))


class Theta:
    """Random parameters, for the kernel of a level and for the reference.

    Kernels take moments of "near" components about the origin, of "far" ones about their means.
    """

    def __init__(self, rng, covariance_type, n_components, n_features, far="near", spread=1.5):
        self.covariance_type = covariance_type
        self.emission = vbfast.Gaussian(n_features, covariance_type)
        self.weights = rng.dirichlet(np.ones(n_components))
        self.means = spread * rng.standard_normal((n_components, n_features))
        if covariance_type == "diag":
            self.covariances = rng.uniform(0.3, 2.0, (n_components, n_features))
            factor = precision_factors(self.covariances)
        elif covariance_type == "spherical":
            self.covariances = rng.uniform(0.3, 2.0, n_components)
            factor = precision_factors(self.covariances[:, None])
        else:
            groups = n_components if covariance_type == "full" else 1
            root = rng.standard_normal((groups, n_features, n_features))
            covariances = root @ np.swapaxes(root, 1, 2) / n_features + 0.4 * np.eye(n_features)
            factor = precision_factors(covariances)
            self.covariances = covariances if covariance_type == "full" else covariances[0]
        self.factor = factor
        gaussians = point(self.means, factor)
        is_far = np.full((n_components, 1), far != "near")
        if far == "some" and covariance_type == "full":
            is_far = rng.random((n_components, 1)) < 0.5
        self.reference = np.where(is_far, self.means, 0.0)
        self.coefficients = self.emission.coefficients(gaussians, self.reference)
        self.offsets = np.log(self.weights) + self.emission.offsets(gaussians)

    def kernel(self):
        return Coefficients(self.covariance_type, self.coefficients, self.offsets)

    def scores(self, X):
        parameters = self.weights, self.means, self.covariances, self.covariance_type
        return ref.gaussian_scores(X, *parameters)

    def squares(self, X):
        """|A x|^2 for one factor or for one of each component."""
        if self.covariance_type == "tied":
            return ((X @ self.factor[0].T) ** 2).sum(axis=1, keepdims=True)
        return (X**2).sum(axis=1, keepdims=True) * self.factor[:, 0] ** 2


class Data:
    """Rows as an array of some type and layout, and what they are in the frame's units."""

    def __init__(self, rng, n, d, dtype="float64", layout="C", weights=None, rows=None):
        self.origin, self.scale = rng.uniform(2, 4, d), rng.uniform(0.3, 0.7, d)
        if rows is None:
            X = (2 * rng.standard_normal((n, d)) + 3).astype(dtype)
        else:
            X = (rows / self.scale + self.origin).astype(dtype)
        if layout == "F":
            X = np.asfortranarray(X)
        elif layout == "reversed":
            X = X[::-1, ::-1].copy()[::-1, ::-1]
        elif layout == "strided":
            wide = np.full((2 * n, 3 * d), np.nan, dtype)
            wide[::2, 1::3] = X
            X = wide[::2, 1::3]
        elif layout == "read-only":
            X.flags.writeable = False
        self.values = X
        self.weights = None
        if weights == "real":
            self.weights = rng.uniform(0, 3, n) * (rng.random(n) > 0.3)
        elif weights == "whole":
            self.weights = rng.integers(0, 4, n).astype(float)
        self.rows = (X.astype(np.float64) - self.origin) * self.scale

    def block(self, labels=None, n_threads=1, first_row=0, rows=slice(None), single=False):
        weights = None if self.weights is None else self.weights[rows]
        labels = None if labels is None else labels[rows]
        return Block(
            self.values[rows], weights, labels, self.origin, self.scale, first_row, n_threads,
            single,
        )  # fmt: skip


def visit(level, block, theta, assignment):
    """Return all that a kernel gives: raw statistics, log_z, q."""
    kernels = _kernels.load(level)
    kernel = kernels.mixture_single if block.single else kernels.mixture
    coefficients = theta.kernel()
    n, d = block.values.shape
    k = len(theta.offsets)
    out = {"q": np.full((n, k), np.nan)}
    if assignment.kind != "scores":
        size = kernel.statistics_size(coefficients.emission, k, d)
        out |= {"log_z": np.full(n, np.nan), "statistics": np.full(size, np.nan)}
    if assignment.kind == "hard":
        out["labels"] = np.full(n, -1, dtype=np.int64)
    kernel.visit(block, coefficients, assignment, **out)
    return out


def moments(theta, raw):
    """Return counts, means and scatter from raw statistics."""
    k = len(theta.offsets)
    counts = raw[1 : 1 + k]
    fields = theta.emission.collect(raw[1 + k :], counts, theta.reference)
    scatter = fields["scatter"][0] if theta.covariance_type == "tied" else fields["scatter"]
    scatter = scatter[:, 0] if theta.covariance_type == "spherical" else scatter
    return counts, fields["mean"], scatter


def assert_statistics(theta, raw, rows, weight, q, log_z, tolerance=TOLERANCE[False]):
    """Raw statistics are those of responsibilities q (without weights) of these rows."""
    counts, means, scatter = moments(theta, raw)
    n, expected_means, expected = ref.moments(rows, q, theta.covariance_type, weight)
    size = 1 + np.abs(rows).max()
    total = weight.sum() + 1
    np.testing.assert_allclose(counts, n, rtol=0, atol=tolerance * total)
    sums = counts[:, None] * means
    np.testing.assert_allclose(
        sums, n[:, None] * expected_means, rtol=0, atol=tolerance * total * size
    )
    # Taken about a point from which data are a few units away.
    away = (size + np.abs(theta.means).max()) ** 2
    if theta.covariance_type == "spherical":
        away *= rows.shape[1]
    np.testing.assert_allclose(scatter, expected, rtol=0, atol=tolerance * total * away)
    present = weight > 0
    largest = np.abs(log_z[present]).max(initial=1)
    assert raw[0] == pytest.approx(weight @ log_z, rel=0, abs=tolerance * total * largest)


def check(level, theta, data, kind, rng, n_threads=1, truncation=2, single=False):
    """One visit agrees with the reference.

    Assignments are those of the kernel's own scores: where these are large, or single precision
    rounds them, a pair of almost equal ones may come in either order.
    """
    n, k = len(data.rows), len(theta.weights)
    tolerance = TOLERANCE[single]
    truncation = min(truncation, k)
    labels = rng.integers(k, size=n)
    assignment = Assignment(kind, truncation=truncation)
    block = data.block(labels if kind == "given" else None, n_threads, single=single)
    out = visit(level, block, theta, assignment)
    weight = np.ones(n) if data.weights is None else data.weights
    scores = theta.scores(data.rows)
    size = 1 + np.abs(scores)
    present = weight > 0
    if kind != "scores":
        own = visit(level, block, theta, Assignment("scores"))["q"]
        if theta.covariance_type in ("tied", "spherical"):
            # Linear in A x where near: rounding is of |A x|^2, whatever the distance.
            size = size + theta.squares(data.rows)
        assert np.all(np.abs(own - scores)[present] <= tolerance * size[present])
        scores[present] = own[present]
    if kind == "scores":
        assert np.all(np.abs(out["q"] - scores)[present] <= tolerance * size[present])
        return
    if kind == "given":
        log_z, q = np.zeros(n), ref.one_hot(labels, k)
    elif kind == "draw":  # what is drawn is tested elsewhere
        q = out["q"] / np.where(present, weight, 1)[:, None]
        assert np.all(q[present].sum(axis=1) == 1)
        log_z = weight * np.where(q > 0, q * scores, 0.0).sum(axis=1)
        size = size * np.where(present, weight, 1)[:, None]
    else:
        log_z, q = ref.assign(scores, "exact" if kind == "factorised" else kind, truncation)
    np.testing.assert_allclose(out["q"], weight[:, None] * q, rtol=0, atol=3 * tolerance)
    assert np.all(np.abs(out["log_z"] - log_z)[present] <= tolerance * size.max(axis=1)[present])
    if kind == "hard":
        np.testing.assert_array_equal(out["labels"][present], q.argmax(axis=1)[present])
    raw = out["statistics"].copy()
    if kind == "draw":
        bound = tolerance * size.max(axis=1)[present].sum()
        assert raw[0] == pytest.approx(log_z[present].sum(), rel=0, abs=bound)
        raw[0], log_z = 0.0, np.zeros(n)
    assert_statistics(theta, raw, data.rows, weight, q, log_z, tolerance)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize("kind", ["scores", "exact", "best", "hard", "given"])
@examples(12)
@given(
    n=sizes,
    d=features,
    k=st.integers(1, 9),
    truncation=st.integers(1, 9),
    far=st.sampled_from(["near", "some", "all"]),
    dtype=st.sampled_from(["float64", "float32"]),
    layout=st.sampled_from(["C", "F", "reversed", "strided", "read-only"]),
    weights=st.sampled_from([None, "real", "whole"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_kernels_agree_with_reference(
    level, single, covariance_type, kind, n, d, k, truncation, far, dtype, layout, weights, seed
):
    rng = np.random.default_rng(seed)
    theta = Theta(rng, covariance_type, k, d, far)
    data = Data(rng, n, d, dtype, layout, weights)
    check(level, theta, data, kind, rng, 1, truncation, single)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [
        # Tiles of 256 rows; a chunk is one tile up to 64 tiles, then two.
        (255, 2, 3), (256, 2, 3), (257, 2, 3), (511, 3, 2), (513, 3, 2),
        (16384, 2, 2), (16385, 2, 2), (16897, 1, 2), (33793, 1, 1),
        # Wide rows: tiles of fewer rows, 224 to 128.
        (223, 9, 3), (225, 9, 3), (191, 10, 2), (193, 10, 2), (161, 11, 1), (159, 12, 2),
        (161, 12, 3), (129, 13, 2), (127, 16, 3), (129, 16, 2), (257, 20, 3),
        (128, 3, 400), (129, 3, 400), (383, 40, 40), (385, 41, 41),
        # One component, one feature, one row.
        (1, 1, 1), (33, 1, 1), (2, 64, 1), (1, 65, 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("far", ["near", "some"])
def test_tile_and_chunk_edges(level, covariance_type, n, d, k, far):
    rng = np.random.default_rng([n, d, k])
    theta = Theta(rng, covariance_type, k, d, far)
    check(level, theta, Data(rng, n, d, weights="real"), "exact", rng, 2)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [
        # Tiles of 512 rows down to 256; 33 793 rows are 67 of them, chunks of two.
        (63, 2, 3), (65, 2, 2), (511, 8, 3), (512, 3, 2), (513, 3, 2), (1025, 1, 2),
        (447, 9, 3), (449, 9, 2), (319, 12, 3), (321, 12, 2), (255, 16, 2), (257, 17, 3),
        (33_793, 2, 2), (300, 40, 21), (1, 65, 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("far", ["near", "some"])
def test_tile_and_chunk_edges_in_single_precision(level, covariance_type, n, d, k, far):
    rng = np.random.default_rng([n, d, k])
    theta = Theta(rng, covariance_type, k, d, far)
    check(level, theta, Data(rng, n, d, weights="real"), "exact", rng, 2, single=True)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize("d", [15, 16, 17, 31, 32, 33, 48, 50])
@pytest.mark.parametrize("far", ["near", "all"])
def test_panel_edges(level, single, covariance_type, d, far):
    """Moments are taken by panels of 16 features, for an odd and an even number of components."""
    for k in (2, 3):
        rng = np.random.default_rng([d, k])
        theta = Theta(rng, covariance_type, k, d, far)
        check(level, theta, Data(rng, 140, d, weights="real"), "exact", rng, single=single)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("layout", ["C", "wider rows", "rows reversed", "one row", "F"])
def test_every_number_is_read_into_its_place(level, single, dtype, layout):
    """Rows are read by squares of 8 or 4, what is left over one by one."""
    kernels = _kernels.load(level)
    kernel = kernels.mixture_single if single else kernels.mixture
    for n in [*range(1, 18), 31, 32, 33, 65]:
        for d in range(1, 19):
            X = (1 + np.arange(n * d) % 1021).reshape(n, d).astype(dtype)
            if layout == "wider rows":
                wide = np.full((n, d + 3), np.nan, dtype)
                wide[:, 1 : 1 + d] = X
                X = wide[:, 1 : 1 + d]
            elif layout == "rows reversed":
                X = X[::-1]
            elif layout == "one row":
                X = np.broadcast_to(X[:1], (n, d))
            elif layout == "F":
                X = np.asfortranarray(X)
            # Component d sees the square of feature d alone.
            theta = np.concatenate([np.zeros(d * (1 + d)), np.eye(d).ravel(), np.zeros(d * d)])
            origin, scale = np.arange(d) % 5.0, 2.0 ** (np.arange(d) % 3)
            q = np.full((n, d), np.nan)
            block = Block(X, None, None, origin, scale, 0, 1)
            coefficients = Coefficients("diag", theta, np.zeros(d))
            kernel.visit(block, coefficients, Assignment("scores"), q=q)
            np.testing.assert_array_equal(q, -(((X.astype(float) - origin) * scale) ** 2) / 2)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize("kind", ["exact", "best", "hard", "draw"])
@pytest.mark.parametrize("far", ["near", "some", "all"])
def test_components_that_take_few_rows(level, single, covariance_type, kind, far):
    """Their rows are gathered; what is less than 1e-30 of a component's rows so far is left out."""
    n, k = 900, 8
    for d, spread, order in [
        (12, 0.9, "any"), (13, 1.4, "sorted"), (33, 1.0, "sorted"),
        (17, 30.0, "sorted"), (12, 6.0, "any"), (3, 6.0, "sorted"),
    ]:  # fmt: skip
        rng = np.random.default_rng([d, n])
        theta = Theta(rng, covariance_type, k, d, far, spread)
        labels = rng.choice(k, size=n, p=[0.02, 0.04, 0.04, 0.1, 0.1, 0.2, 0.5, 0])
        if order == "sorted":  # whole tiles without some components, in this order or the other
            labels = np.sort(labels)[:: rng.choice([-1, 1])]
        rows = theta.means[labels] + 0.7 * rng.standard_normal((n, d))
        for weights in (None, "whole"):
            data = Data(rng, n, d, weights=weights, rows=rows)
            check(level, theta, data, kind, rng, truncation=3, single=single)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@pytest.mark.parametrize("d", [3, 12, 20])
@pytest.mark.parametrize("far", ["near", "all"])
def test_a_component_may_have_next_to_no_rows(level, single, covariance_type, d, far):
    """Small is small beside the component's own rows: a share of 1e-25 has a mean and scatter."""
    rng = np.random.default_rng(8)
    theta = Theta(rng, covariance_type, 2, d, far)
    for parameters in (theta.means, theta.factor):
        parameters[1] = parameters[0]
    gaussians = point(theta.means, theta.factor)
    theta.reference[1] = theta.reference[0]
    theta.coefficients = theta.emission.coefficients(gaussians, theta.reference)
    share = 1e-25
    theta.offsets = np.log([1.0, share])
    raw = visit(level, Data(rng, 700, d).block(single=single), theta, Assignment("exact"))
    counts, means, scatter = moments(theta, raw["statistics"])
    error = 3e-5 if single else 1e-12  # log(share) is rounded to 1 part in 1e7 too
    assert counts[1] == pytest.approx(share * 700, rel=error)
    np.testing.assert_allclose(means[1], means[0], rtol=error, atol=error)
    np.testing.assert_allclose(
        scatter[1] / counts[1], scatter[0] / counts[0], rtol=error, atol=10 * error
    )


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize("kind", ["scores", "exact", "best", "hard", "given", "draw"])
@pytest.mark.parametrize(("weights", "far"), [(None, "near"), ("whole", "some")])
def test_same_bits_for_any_number_of_threads_and_layout(
    level, single, covariance_type, kind, weights, far
):
    n, d, k = 21_007, 3, 5  # 42 chunks of two tiles, and work enough for several threads
    rng = np.random.default_rng(0)
    theta = Theta(rng, covariance_type, k, d, far)
    assert n * len(theta.coefficients) > 100_000
    data = Data(rng, n, d, weights=weights)
    labels = rng.integers(k, size=n)
    assignment = Assignment(kind, truncation=2, seed=3, sweep=1)

    def bits(n_threads):
        """All that is given, without the padding of statistics."""
        known = labels if kind == "given" else None
        out = visit(level, data.block(known, n_threads, single=single), theta, assignment)
        if "statistics" in out:
            raw = out.pop("statistics")
            out |= {str(i): part for i, part in enumerate([raw[0], *moments(theta, raw)])}
        assert not any(np.isnan(part).any() for part in out.values())
        return {name: part.tobytes() for name, part in out.items()}

    one = bits(1)
    for n_threads in (2, 2, 4, 7):
        assert bits(n_threads) == one
    for values in (np.asfortranarray(data.values), np.repeat(data.values, 2, axis=1)[:, ::2]):
        data.values = values
        assert bits(2) == one


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("covariance_type", EMISSIONS)
def test_components_far_from_the_origin(level, covariance_type):
    """Nothing cancels where means are 1e6 standard deviations away: rows are exact beside them."""
    rng = np.random.default_rng(6)
    n, d, k = 300, 5, 3
    theta = Theta(rng, covariance_type, k, d, "all")
    shift = np.round(1e6 * rng.standard_normal((k, d)))
    theta.means = np.round(theta.means * 2**10) / 2**10
    labels = rng.integers(k, size=n)
    rows = theta.means[labels] + np.round(rng.standard_normal((n, d)) * 2**10) / 2**10
    near_means, near_rows = theta.means, rows
    theta.means, rows = theta.means + shift, rows + shift[labels]
    gaussians = point(theta.means, theta.factor)
    theta.reference = theta.emission.reference(gaussians)
    np.testing.assert_array_equal(theta.reference, theta.means)
    theta.coefficients = theta.emission.coefficients(gaussians, theta.reference)
    block = Block(rows, None, None, np.zeros(d), np.ones(d), 0, 1)
    out = visit(level, block, theta, Assignment("exact"))
    # Tied scores are |A x - A m|^2: the size of A m is what their rounding is of.
    error = 1e-7 if covariance_type in ("tied", "diag") else 1e-11
    own = theta.scores(rows)[np.arange(n), labels]
    np.testing.assert_allclose(out["log_z"], own, rtol=error)
    _, _, scatter = moments(theta, out["statistics"])
    centred = near_rows - near_means[labels] + 0.0
    _, _, expected = ref.moments(centred, ref.one_hot(labels, k), covariance_type)
    np.testing.assert_allclose(scatter, expected, rtol=1e-10, atol=1e-9)


@PRECISIONS
@pytest.mark.parametrize("covariance_type", EMISSIONS)
def test_levels_agree(single, covariance_type):
    rng = np.random.default_rng(5)
    theta = Theta(rng, covariance_type, 4, 5)
    data = Data(rng, 700, 5, weights="real")
    block = data.block(single=single)
    outs = [visit(level, block, theta, Assignment("exact")) for level in LEVELS]
    for out in outs:
        out |= dict(zip("nms", moments(theta, out.pop("statistics")), strict=True))
    for out in outs[1:]:
        for name, array in outs[0].items():
            scale = 1 + np.abs(array).max()
            np.testing.assert_allclose(out[name], array, rtol=0, atol=TOLERANCE[single] * scale)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "d", "k"), [(1000, 1, 2), (1000, 5, 7), (3000, 20, 4)])
def test_likelihood_in_single_precision(level, covariance_type, dtype, n, d, k):
    """Within 1e-6 of the one in double precision, even of data 1e4 deviations from zero."""
    rng = np.random.default_rng([n, d, k])
    theta = Theta(rng, covariance_type, k, d)
    for offset in (0.0, 1e4):
        data = Data(rng, n, d, rows=theta.means[rng.integers(k, size=n)] + rng.normal(size=(n, d)))
        data.values = (data.values + offset).astype(dtype)
        data.origin = data.origin + offset
        for kind in ("exact", "best", "hard"):
            assignment = Assignment(kind, truncation=1)
            double, single = (
                visit(level, data.block(single=single), theta, assignment)
                for single in (False, True)
            )
            expected = double["statistics"][0]
            assert single["statistics"][0] == pytest.approx(expected, rel=1e-6, abs=0)
            assert single["log_z"].sum() == pytest.approx(expected, rel=1e-6, abs=0)
            assert double["statistics"][0] != single["statistics"][0]


@pytest.mark.parametrize("level", LEVELS)
def test_sums_in_single_precision_are_of_a_tile_only(level):
    # 2^40 + 512 is no float32: what is added to it in such numbers is lost. Chunks are two tiles.
    n = 34_000
    weights = np.ones(n)
    weights[0] = 2.0**40
    theta = Theta(np.random.default_rng(0), "full", 1, 1)
    block = Block(np.ones((n, 1)), weights, None, np.zeros(1), np.ones(1), 0, 1, True)
    raw = visit(level, block, theta, Assignment("exact"))["statistics"]
    lost = 511  # rows of the first tile
    assert raw[1] == weights.sum() - lost
    # The reference is the origin, rows are 1: all moments are the count.
    first, second = raw[2], raw[2 + 2 * 4 + 4]
    assert first == raw[1]
    assert second == raw[1]


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
def test_no_rows(level, single):
    theta = Theta(np.random.default_rng(0), "full", 3, 2)
    block = Block(np.zeros((0, 2)), None, None, np.zeros(2), np.ones(2), 0, 2, single)
    assert not visit(level, block, theta, Assignment("exact"))["statistics"].any()


# Ties, infinities, exp and log -------------------------------------------------------------------


class Offsets:
    """Scores that are the same offsets for every row, the rows lying at all means."""

    def __init__(self, offsets):
        self.offsets = np.asarray(offsets, dtype=float)
        self.k = len(self.offsets)
        zeros = np.zeros((self.k, 1))
        gaussians = point(zeros, np.ones((self.k, 1)))
        self.coefficients = vbfast.Gaussian(1, "diag").coefficients(gaussians, zeros)

    def kernel(self):
        return Coefficients("diag", self.coefficients, self.offsets)

    def visit(self, level, kind, n=3, single=False, **options):
        block = Block(np.zeros((n, 1)), None, None, np.zeros(1), np.ones(1), 0, 1, single)
        return visit(level, block, self, Assignment(kind, **options))


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
def test_among_equals_the_first_component(level, single):
    theta = Offsets([-1.0, 2.0, 2.0, 0.0, 2.0])
    assert theta.visit(level, "hard", single=single)["labels"].tolist() == [1, 1, 1]
    for truncation, chosen in [(1, [1]), (2, [1, 2]), (3, [1, 2, 4]), (4, [1, 2, 3, 4])]:
        q = theta.visit(level, "best", single=single, truncation=truncation)["q"]
        assert np.flatnonzero(q[0]).tolist() == chosen


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("k", [2, 5, 6, 9, 13, 17])
def test_best_components_of_rows_with_ties(level, single, k):
    """Scores -(x - m)^2 / 2 of small whole numbers are exact: ties are, and the first ones stay."""
    rng = np.random.default_rng(k)
    n = 150
    for spread in (1, 2, 12):
        means = rng.integers(-spread, spread, size=(k, 1), endpoint=True).astype(float)
        rows = rng.integers(-spread - 1, spread + 1, size=(n, 1), endpoint=True).astype(float)
        rows[::7] *= 30  # so far away that all but the best are nothing beside it
        weights = rng.integers(0, 3, n).astype(float)
        gaussians = point(means, np.ones((k, 1)))
        offsets = rng.choice([0.0, 0.0, 0.0, -0.5, -2.0, -np.inf], size=k)
        theta = Coefficients(
            "diag", vbfast.Gaussian(1, "diag").coefficients(gaussians, np.zeros((k, 1))), offsets
        )
        kernels = _kernels.load(level)
        kernel = kernels.mixture_single if single else kernels.mixture
        scores = offsets - (rows - means.T) ** 2 / 2
        block = Block(rows, weights, None, np.zeros(1), np.ones(1), 0, 1)
        for truncation in range(1, k + 1):
            q, log_z = np.empty((n, k)), np.empty(n)
            kernel.visit(block, theta, Assignment("best", truncation=truncation), q=q, log_z=log_z)
            expected_log_z, expected = ref.assign(scores, "best", truncation)
            present = (weights > 0) & (expected_log_z > -np.inf)
            expected *= weights[:, None]
            tolerance = TOLERANCE[single]
            np.testing.assert_allclose(q[present], expected[present], rtol=0, atol=tolerance)
            np.testing.assert_allclose(log_z[present], expected_log_z[present], rtol=tolerance,
                                       atol=tolerance)  # fmt: skip
            # Which, whatever little they have.
            certain = expected > 1e-30
            np.testing.assert_array_equal(q[present] > 1e-30, certain[present])


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
def test_exp_within_rounding(level, single):
    # q_k / q_0 is exp of the difference; to 2 ulp, and 1 for each of the divisions.
    rounding = 2.0**-23 if single else 2.0**-52
    lowest, tiny = (87, 1e-37) if single else (708, 1e-307)
    gaps = np.concatenate([np.linspace(0, lowest - 8, 3001), np.geomspace(1e-17, 1, 500)])
    gaps = gaps.astype(np.float32) if single else gaps
    q = Offsets(np.append(0.0, -gaps)).visit(level, "exact", single=single)["q"][0]
    expected = np.exp(-gaps.astype(float))
    # In single precision q itself is no normal number for the last of them.
    normal = expected > (1e-38 * len(gaps) if single else 0)
    error = (3 if single else 5) * rounding
    np.testing.assert_allclose((q[1:] / q[0])[normal], expected[normal], rtol=error)
    # Beyond, where the result leaves the normal range, it is 0: never negative, NaN or large.
    far = [1e3, 1e10, 3e38] if single else [1e3, 1e10, 1e300, 1.6e308]
    gaps = np.concatenate([np.linspace(lowest - 8, lowest + 52, 601), far, [np.inf]])
    gaps = gaps.astype(np.float32) if single else gaps
    q = Offsets(np.append(0.0, -gaps)).visit(level, "exact", single=single)["q"][0]
    rtol = 1e-6 if single else 1e-14
    np.testing.assert_allclose(q[1:], np.exp(-gaps.astype(float)), rtol=rtol, atol=tiny)
    assert np.all(q >= 0)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
def test_log_within_rounding(level, single):
    rounding = 2.0**-23 if single else 2.0**-52
    for k in [*range(1, 70), 127, 128, 129, 1000, 4095, 4097]:
        log_z = Offsets(np.zeros(k)).visit(level, "exact", single=single)["log_z"][0]
        assert log_z == pytest.approx(np.log(k), rel=(2 if single else 4) * rounding, abs=0)
    for gap in [1e-9, 0.1, 0.7, 1, 5, 20, 36, 40, 700]:
        log_z = Offsets([0.0, -gap]).visit(level, "exact", single=single)["log_z"][0]
        assert log_z == pytest.approx(np.log1p(np.exp(-gap)), rel=0, abs=2 * rounding)
    for shift in [-1e30, -1e10, 1e10, 1e30] if single else [-1e300, -1e10, 1e10, 1e300]:
        log_z = Offsets([shift, shift]).visit(level, "exact", single=single)["log_z"][0]
        assert log_z == pytest.approx(shift + np.log(2), rel=5 * rounding)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("truncation", [1, 2, 4, 5, 6])
def test_best_components_where_scores_are_nan(level, single, truncation):
    """NaN, by inf - inf, is as impossible as -inf, whatever comes before and after it."""
    scores = np.array([np.nan, 1.0, np.nan, -np.inf, 3.0, 0.5, np.nan, 2.0, 2.5, np.nan])
    possible = np.where(np.isnan(scores), -np.inf, scores)
    log_z, q = ref.assign(possible[None], "best", truncation)
    out = Offsets(scores).visit(level, "best", 40, single, truncation=truncation)
    np.testing.assert_allclose(out["q"], np.tile(q, (40, 1)), rtol=0, atol=TOLERANCE[single])
    np.testing.assert_allclose(out["log_z"], log_z[0], rtol=TOLERANCE[single])
    out = Offsets(np.full(10, np.nan)).visit(level, "best", 40, single, truncation=truncation)
    assert np.all(out["log_z"] == -np.inf)
    np.testing.assert_allclose(out["q"], 1 / 10, rtol=1e-7)


@pytest.mark.parametrize("level", LEVELS)
def test_some_impossible_scores_are_lower_than_others(level):
    """As many as are kept are the lowest number that stands for log 0, the rest -inf."""
    theta = Offsets([-1.7e308, -np.inf, -1.7e308])
    for truncation in (1, 2):
        out = theta.visit(level, "best", 40, truncation=truncation)
        assert np.all(out["log_z"] == -np.inf)
        np.testing.assert_allclose(out["q"], 1 / 3, rtol=1e-7)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("kind", ["exact", "best"])
def test_all_minus_infinity(level, single, kind):
    given_ = {"truncation": 2, "single": single}
    out = Offsets([-np.inf] * 3).visit(level, kind, **given_)
    assert np.all(out["log_z"] == -np.inf)
    np.testing.assert_allclose(out["q"], 1 / 3, rtol=1e-7)
    out = Offsets([-np.inf, 1.0, -np.inf]).visit(level, kind, **given_)
    assert np.all(out["log_z"] == 1.0)
    np.testing.assert_array_equal(out["q"], [[0, 1, 0]] * 3)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize("beside", ["near", "all"])
@pytest.mark.parametrize("far", [1e17, 1e20, 1e37, 1e100, 1e150, 1e160, 1e308, -1e308])
def test_row_out_of_reach(level, single, covariance_type, beside, far):
    rng = np.random.default_rng(3)
    theta = Theta(rng, covariance_type, 3, 4, beside)
    data = Data(rng, 40, 4)
    data.values[[7, 39]] = far
    with np.errstate(over="ignore"):
        out = visit(level, data.block(single=single), theta, Assignment("exact"))
        hard = visit(level, data.block(single=single), theta, Assignment("hard"))
        best = visit(level, data.block(single=single), theta, Assignment("best", truncation=2))
    np.testing.assert_allclose(out["q"].sum(axis=1), 1, rtol=TOLERANCE[single])
    np.testing.assert_allclose(best["q"].sum(axis=1), 1, rtol=TOLERANCE[single])
    # What is impossible is so under every assignment: beyond 1e19 in single precision.
    impossible = np.isinf(out["log_z"])
    assert impossible[7] == (abs(far) > (1e19 if single else 1e154))
    np.testing.assert_array_equal(np.isinf(best["log_z"]), impossible)
    np.testing.assert_array_equal(np.isinf(hard["log_z"]), impossible)
    assert np.all(out["q"] >= 0)
    assert not np.isnan(out["log_z"]).any()
    assert not np.isnan(hard["log_z"]).any()
    assert np.isfinite(np.delete(out["log_z"], [7, 39])).all()
    tops = out["q"][np.arange(40), hard["labels"]]
    np.testing.assert_allclose(tops, out["q"].max(axis=1), rtol=TOLERANCE[single])


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("kind", ["exact", "best", "hard", "draw"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("whole", [False, True])
def test_score_that_is_not_a_number(level, single, kind, order, whole):
    # Row 0 overflows under component 0: on the way to its squared distance inf - inf is met.
    n, d = 5, 2
    large, small, value = (1e25, 1e-8, 1e18) if single else (1e200, 1e-100, 1e150)
    factors = np.array([[[large, 0.0], [-large, large]], np.eye(2) * small])[list(order)]
    kernels = _kernels.load(level)
    kernel = kernels.mixture_single if single else kernels.mixture
    gaussians = point(np.zeros((2, d)), factors)
    coefficients = vbfast.Gaussian(d, "full").coefficients(gaussians, np.zeros((2, d)))
    theta = Coefficients("full", coefficients, np.zeros(2))
    values = np.zeros((n, d))
    values[0] = value
    weights = np.full(n, 2.0) if whole else None
    block = Block(values, weights, None, np.zeros(d), np.ones(d), 0, 1)
    q, log_z = np.empty((n, 2)), np.empty(n)
    kernel.visit(block, theta, Assignment(kind, truncation=1), q=q, log_z=log_z)
    np.testing.assert_array_equal(q.sum(axis=1), 2.0 if whole else 1.0)
    possible = np.array(order) == 1
    assert not np.isnan(log_z).any()
    if possible.any():
        assert q[0, ~possible] == 0
        score = -((small * value) ** 2)
        assert log_z[0] == pytest.approx(score * (2 if whole and kind == "draw" else 1))
    else:
        assert log_z[0] == -np.inf


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize("kind", ["exact", "best", "hard", "draw"])
@pytest.mark.parametrize("d", [2, 5, 13])
def test_row_of_weight_zero_is_absent(level, single, covariance_type, kind, d):
    rng = np.random.default_rng(4)
    theta = Theta(rng, covariance_type, 3, d)
    data = Data(rng, 50, d)
    keep = np.ones(50, dtype=bool)
    keep[[0, 31, 49]] = False
    data.weights = keep.astype(float)
    data.values[~keep] = [[np.inf], [np.nan], [-1e300]]
    assignment = Assignment(kind, truncation=2)
    out = visit(level, data.block(single=single), theta, assignment)
    assert all(np.isfinite(part).all() for part in moments(theta, out["statistics"]))
    assert not out["q"][~keep].any()
    data.values[~keep] = 0.0
    again = visit(level, data.block(single=single), theta, assignment)
    found, expected = (moments(theta, o["statistics"]) for o in (out, again))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))
    assert out["statistics"][0] == again["statistics"][0]


# Draws -------------------------------------------------------------------------------------------


def philox(seed, sweep, row, copy):
    """Philox4x32-10 (Salmon et al. 2011) in plain integers; a uniform of 52 bits."""
    low = 2**32 - 1
    c = [row & low, row >> 32, sweep, copy]
    key = [seed & low, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ key[0], b & low, (a >> 32) ^ c[3] ^ key[1], a & low]
        key = [(key[0] + 0x9E3779B9) & low, (key[1] + 0xBB67AE85) & low]
    assert all(0 <= word <= low for word in c)
    return (((c[0] << 32) | c[1]) >> 12) * 2.0**-52


def test_philox_known_answer():
    # The first two words of the known-answer tests of Random123, counter and key 0.
    assert philox(0, 0, 0, 0) == (0x6627E8D5E169C58D >> 12) * 2.0**-52


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("n", [1, 7, 45, 600])
def test_draws_are_those_of_the_counter(level, single, n):
    theta = Offsets(np.zeros(1024))  # a uniform u draws component floor(1024 u)
    some = np.unique(np.linspace(0, n - 1, 45).astype(int))
    for seed, sweep, first_row in [
        (0, 0, 0), (2**40 + 7, 3, 11), (2**63 - 1, 2**32 - 1, 2**35), (5, 1, 2**32 - 3),
    ]:  # fmt: skip
        assignment = Assignment("draw", seed=seed, sweep=sweep)
        # Rows of weight 1 are drawn in vectors, others copy by copy.
        for weights in (None, np.arange(n) % 3 != 2, np.array([3, 1, 0, 2])[np.arange(n) % 4]):
            weights = weights if weights is None else weights.astype(float)
            block = Block(
                np.zeros((n, 1)), weights, None, np.zeros(1), np.ones(1), first_row, 1, single
            )
            drawn = visit(level, block, theta, assignment)["q"]
            for row in some:
                copies = 1 if weights is None else int(weights[row])
                expected = [
                    int(1024 * philox(seed, sweep, first_row + int(row), copy))
                    for copy in range(copies)
                ]
                np.testing.assert_array_equal(drawn[row], np.bincount(expected, minlength=1024))


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("weight", [1, 2])
@pytest.mark.parametrize("offsets", [[0.0], [0.0] * 3, [0.0, -0.3, -np.inf], [0.1, -np.inf] * 40])
def test_the_largest_uniform_draws_a_component_too(level, single, weight, offsets):
    # 1 - 4.5e-9, which as a float32 number is 1.
    row = 38_471_471
    assert 1 - philox(0, 0, row, 0) < 2**-27
    theta = Offsets(offsets)
    weights = np.array([float(weight)])
    block = Block(np.zeros((1, 1)), weights, None, np.zeros(1), np.ones(1), row, 1, single)
    out = visit(level, block, theta, Assignment("draw"))
    assert out["q"].sum() == weight
    assert not out["q"][0, np.isinf(offsets)].any()
    assert out["q"][0, np.flatnonzero(np.isfinite(offsets))[-1]] >= 1
    assert out["log_z"][0] == pytest.approx(
        sum(drawn * score for drawn, score in zip(out["q"][0], offsets, strict=True) if drawn),
        rel=1e-6, abs=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("covariance_type", EMISSIONS)
def test_draws_have_the_frequencies_of_q(level, covariance_type):
    rng = np.random.default_rng(11)
    theta = Theta(rng, covariance_type, 4, 3)
    distinct = Data(rng, 5, 3)
    _, q = ref.assign(theta.scores(distinct.rows), "exact")
    n = 20_000
    for row in range(5):
        # The same row many times, as many rows or as one of a large weight.
        many = Block(
            np.repeat(distinct.values[[row]], n, axis=0), None, None,
            distinct.origin, distinct.scale, 0, 1,
        )  # fmt: skip
        one = Block(
            distinct.values[[row]], np.array([float(n)]), None,
            distinct.origin, distinct.scale, row, 1,
        )  # fmt: skip
        for sweep, block in enumerate((many, one)):
            counts = visit(level, block, theta, Assignment("draw", seed=8, sweep=sweep))["q"].sum(0)
            assert counts.sum() == n
            likely = q[row] * n > 5
            expected = np.append(q[row][likely], q[row][~likely].sum()) * n
            observed = np.append(counts[likely], counts[~likely].sum())
            kept = expected > 0.01
            expected = expected[kept] / expected[kept].sum() * n
            assert chisquare(observed[kept], expected).pvalue > 1e-5


@pytest.mark.parametrize("level", LEVELS)
def test_draws_of_rows_sweeps_and_seeds_are_independent(level):
    theta, n = Offsets([0.0, 0.0]), 40_000
    draws = {
        (seed, sweep): theta.visit(level, "draw", n, seed=seed, sweep=sweep)["q"][:, 0] - 0.5
        for seed in (0, 1, 2**32)
        for sweep in (0, 1)
    }
    limit = 4.5 / np.sqrt(n)
    for key, draw in draws.items():
        for lag in (1, 2, 31, 32, 512):
            assert abs(4 * np.mean(draw[lag:] * draw[:-lag])) < limit
        for other, second in draws.items():
            assert other == key or abs(4 * np.mean(draw * second)) < limit


@pytest.mark.parametrize("level", LEVELS)
def test_draws_of_whole_weights_are_multinomial(level):
    rng = np.random.default_rng(2)
    theta = Theta(rng, "full", 3, 2)
    data = Data(rng, 1, 2)
    data.weights = np.array([4.0])
    _, q = ref.assign(theta.scores(data.rows), "exact")
    n = 4000
    seen = {}
    for sweep in range(n):
        drawn = visit(level, data.block(), theta, Assignment("draw", seed=1, sweep=sweep))["q"][0]
        seen[tuple(drawn.astype(int))] = seen.get(tuple(drawn.astype(int)), 0) + 1
    outcomes = [(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]
    assert set(seen) <= set(outcomes)
    expected = n * multinomial.pmf(outcomes, 4, q[0])
    observed = np.array([seen.get(outcome, 0) for outcome in outcomes])
    likely = expected > 5
    expected = np.append(expected[likely], expected[~likely].sum() + 1e-9)
    observed = np.append(observed[likely], observed[~likely].sum())
    assert chisquare(observed, expected / expected.sum() * n).pvalue > 1e-4


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("weight", [17, 40, 1_000, 10**6, 10**12, 2**53])
def test_counts_of_many_copies_are_multinomial(level, weight):
    """Each count is binomial, in its bins, mean and variance; two are negatively correlated."""
    n = 4_000
    for number, q in enumerate(
        [[1.0], [0.3, 0.7], [1e-3, 0.999], [0.2, 0.05, 0.5, 0.25], [1e-13, 0.5, 0.5 - 1e-13, 0.0]]
    ):
        q = np.array(q)
        with np.errstate(divide="ignore"):
            theta = Offsets(np.log(q))
        block = Block(
            np.zeros((n, 1)), np.full(n, float(weight)), None, np.zeros(1), np.ones(1), 0, 1
        )
        out = visit(level, block, theta, Assignment("draw", seed=3, sweep=number))
        counts = out["q"]
        assert np.all(counts == np.floor(counts))
        assert np.all(counts.sum(axis=1) == weight)
        assert np.all(counts[:, q == 0] == 0)
        scores = xlogy(counts, q).sum(axis=1)
        np.testing.assert_allclose(out["log_z"], scores, rtol=1e-11, atol=1e-11 * weight)
        for k in np.flatnonzero((q > 0) & (q < 1)):
            spread = np.sqrt(weight * q[k] * (1 - q[k]))
            off = (counts[:, k] - weight * q[k]).mean()
            assert abs(off) <= 4.5 * spread / np.sqrt(n) + (spread < 1)
            edges = weight * q[k] + spread * norm.ppf(np.linspace(0, 1, 31)[1:-1])
            edges = np.unique(np.maximum(np.floor(edges), 0))
            chance = np.diff(np.concatenate([[0], binom.cdf(edges, weight, q[k]), [1]]))
            seen = np.bincount(np.searchsorted(edges, counts[:, k]), minlength=len(chance))
            likely = chance * n > 5
            chance = np.append(chance[likely], max(1 - chance[likely].sum(), 1e-12))
            seen = np.append(seen[likely], seen[~likely].sum())
            assert chisquare(seen, chance / chance.sum() * n).pvalue > 1e-5
            if spread > 1:
                # Of a variance, some sqrt(2 / n) of itself; more where the counts are few.
                error = np.sqrt((2 + 1 / spread**2) / n)
                assert abs(counts[:, k].var() / spread**2 - 1) < 5 * error
        if len(q) == 4 and q[3] > 0:
            both = np.corrcoef(counts[:, 0], counts[:, 2])[0, 1]
            expected = -np.sqrt(q[0] * q[2] / (1 - q[0]) / (1 - q[2]))
            assert abs(both - expected) < 5 / np.sqrt(n)


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
def test_counts_of_many_copies_do_not_depend_on_chunks(level, single):
    n, k = 3_000, 70
    rng = np.random.default_rng(0)
    theta = Theta(rng, "diag", k, 2)
    data = Data(rng, n, 2)
    data.weights = 10.0 ** rng.integers(0, 7, n)
    how = Assignment("draw", seed=2, sweep=9)
    whole = visit(level, data.block(first_row=7, single=single), theta, how)
    for n_threads in (2, 4):
        many = visit(level, data.block(None, n_threads, 7, single=single), theta, how)
        assert all(many[name].tobytes() == whole[name].tobytes() for name in whole)
    rows = slice(1_024, 2_000)
    part = visit(level, data.block(None, 1, 7 + 1_024, rows, single), theta, how)
    np.testing.assert_array_equal(part["q"], whole["q"][rows])
    # A row's counts are its own: those of rows that are the same differ.
    data.values[:], data.weights[:] = data.values[0], 10.0**6
    same = visit(level, data.block(single=single), theta, how)["q"]
    assert len(np.unique(same, axis=0)) > n // 2


@pytest.mark.parametrize("level", LEVELS)
@PRECISIONS
@pytest.mark.parametrize("weight", [0.5, -1.0, np.nan, np.inf, 1e300, 2.0**53 + 2])
def test_weights_that_no_row_is_drawn_by(level, single, weight):
    rng = np.random.default_rng(0)
    theta, data = Theta(rng, "diag", 2, 2), Data(rng, 100, 2)
    data.weights = np.ones(100)
    data.weights[41] = weight
    with pytest.raises(ValueError, match=r"weights\[41\] is .* whole weights from 0 to"):
        visit(level, data.block(single=single), theta, Assignment("draw"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("covariance_type", EMISSIONS)
@pytest.mark.parametrize("weights", [None, "whole"])
@examples(12)
@given(n=sizes, k=st.integers(1, 6), seed=st.integers(0, 2**32 - 1), cut=st.floats(0, 1))
def test_draws_sum_up_and_split(level, covariance_type, weights, n, k, seed, cut):
    rng = np.random.default_rng(seed)
    theta, d = Theta(rng, covariance_type, k, 3), 3
    data = Data(rng, n, d, weights=weights)
    assignment = Assignment("draw", seed=seed, sweep=seed % 7)
    whole = visit(level, data.block(first_row=5), theta, assignment)
    weight = np.ones(n) if data.weights is None else data.weights
    np.testing.assert_array_equal(whole["q"].sum(axis=1), weight)
    scores = theta.scores(data.rows)
    # log_z of a row is the sum over its copies; the statistics take it so.
    log_z = (whole["q"] * scores).sum(axis=1)
    size = np.where(weight > 0, weight, 1) * (1 + np.abs(scores).max(axis=1))
    assert np.all((np.abs(whole["log_z"] - log_z) <= 1e-11 * size)[weight > 0])
    assert whole["statistics"][0] == pytest.approx(log_z.sum(), abs=1e-11 * size.sum())
    q = whole["q"] / np.where(weight > 0, weight, 1)[:, None]
    raw = whole["statistics"].copy()
    raw[0] = 0.0
    assert_statistics(theta, raw, data.rows, weight, q, np.zeros(n))
    middle = int(cut * n)
    parts = [(slice(None, middle), 5), (slice(middle, None), 5 + middle)]
    halves = [
        visit(level, data.block(first_row=first, rows=rows), theta, assignment)["q"]
        for rows, first in parts
        if len(data.rows[rows])
    ]
    np.testing.assert_array_equal(np.concatenate(halves), whole["q"])


# Statistics add up -------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("apart", [0.0, 1e3, 1e6, 1e9])
@examples(10)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 300), parts=st.integers(2, 6))
def test_statistics_of_the_whole_are_the_sum_over_parts(covariance_type, apart, seed, n, parts):
    rng = np.random.default_rng(seed)
    d, k = 3, 2
    model = vbfast.Model(vbfast.Mixture(k), vbfast.Gaussian(d, covariance_type))
    X = rng.standard_normal((n, d))
    labels = rng.integers(k, size=n)
    group = np.sort(rng.integers(parts, size=n))  # parts of rows lie apart from each other
    X += apart * group[:, None]
    frame = Frame(np.zeros(d), np.ones(d), np.ones(d))
    total = model.layout.stats()
    for part in range(parts):
        rows = group == part
        if not rows.any():
            continue
        data = ArrayData(X[rows], None, frame, 1, labels[rows])
        about = model.about(np.full((k, d), apart * part))
        total = total + data.sum(model.visit, about, Assignment("given"))
    n_k, means, scatter = ref.moments(X, ref.one_hot(labels, k), covariance_type)
    scatter = np.reshape(scatter, total["scatter"].shape)
    np.testing.assert_allclose(total["strength"], n_k)
    size = 1 + apart * parts
    there = n_k > 0
    np.testing.assert_allclose(total["mean"][there], means[there], rtol=0, atol=1e-13 * size)
    # Rounding of X itself is eps x apart: the reference can't know scatter better.
    error = 1e-12 * n * size**2 if apart < 1e5 else 1e-13 * n * size**2
    np.testing.assert_allclose(total["scatter"], scatter, rtol=1e-12, atol=error)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_scatter_survives_components_far_apart(covariance_type):
    # Each component in the same place in both halves, the components 1e6 sigma apart: nothing of
    # the scatter may cancel.
    rng = np.random.default_rng(0)
    d, k, n = 3, 3, 400
    model = vbfast.Model(vbfast.Mixture(k), vbfast.Gaussian(d, covariance_type))
    labels = rng.integers(k, size=n)
    noise = np.round(rng.standard_normal((n, d)) * 2**12) / 2**12  # exact beside 1e6
    X = noise + 1e6 * labels[:, None]
    frame = Frame(np.zeros(d), np.ones(d), np.ones(d))
    means = np.repeat(1e6 * np.arange(k)[:, None], d, axis=1)
    halves = [
        ArrayData(X[rows], None, frame, 1, labels[rows]).sum(
            model.visit, model.about(means), Assignment("given")
        )
        for rows in (slice(None, 150), slice(150, None))
    ]
    total = halves[0] + halves[1]
    _, _, scatter = ref.moments(noise, ref.one_hot(labels, k), covariance_type)
    scatter = np.reshape(scatter, total["scatter"].shape)
    # The mean is a double near 1e6: its last bit is 1e-10, squared and times n.
    np.testing.assert_allclose(total["scatter"], scatter, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal((halves[1] + halves[0])["strength"], total["strength"])


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("empty", [0, 1, 2])
def test_statistics_of_labels_with_an_empty_component(covariance_type, empty):
    rng = np.random.default_rng(2)
    n, d, k = 50, 2, 3
    labels = np.delete(np.arange(k), empty)[np.arange(n) % 2]
    X = rng.standard_normal((n, d)) + 5 * labels[:, None]
    data = ArrayData.of(X, isotropic=covariance_type == "spherical")
    model = vbfast.Model(vbfast.Mixture(k), vbfast.Gaussian(d, covariance_type, frame=data.frame))
    stats = starts.from_labels(model, data, labels)
    rows = (X - data.frame.origin) * data.frame.scale
    n_k, means, scatter = ref.moments(rows, ref.one_hot(labels, k), covariance_type)
    np.testing.assert_allclose(stats["strength"], n_k)
    np.testing.assert_allclose(stats["mean"], means, atol=1e-14)
    scatter = np.reshape(scatter, stats["scatter"].shape)
    np.testing.assert_allclose(stats["scatter"], scatter, rtol=1e-12, atol=1e-12)


def test_scaled_statistics_are_those_of_repeated_rows():
    rng = np.random.default_rng(1)
    model = vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(2, "full"))
    X = rng.standard_normal((20, 2)) + 100
    labels = rng.integers(2, size=20)
    frame = Frame(np.zeros(2), np.ones(2), np.ones(2))
    about, given_ = model.about(np.full((2, 2), 100.0)), Assignment("given")
    once = ArrayData(X, None, frame, 1, labels).sum(model.visit, about, given_)
    thrice = ArrayData(np.tile(X, (3, 1)), None, frame, 1, np.tile(labels, 3))
    many = thrice.sum(model.visit, about, given_)
    np.testing.assert_allclose((3 * once).buffer, many.buffer, rtol=1e-12)
    np.testing.assert_allclose((once + once + once).buffer, many.buffer, rtol=1e-12)
    nothing = once + model.layout.stats()
    np.testing.assert_allclose(nothing.buffer, once.buffer, rtol=1e-15)


# What is looked at before a fit or a prediction --------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (70, 3), (60_000, 2)])
def test_the_first_value_that_is_not_finite(level, dtype, shape):
    columns = _kernels.load(level).columns
    rng = np.random.default_rng(shape[0])
    values = rng.standard_normal(shape).astype(dtype)
    for _ in range(10):
        bad = values.copy()
        places = [tuple(map(int, rng.integers(shape))) for _ in range(2)]
        bad[places[0]] = np.nan
        bad[places[1]] = np.inf
        for layout in (bad, np.asfortranarray(bad), bad[::-1][::-1]):
            for n_threads in (1, 2):
                assert columns.first_not_finite(layout, n_threads) == min(places)
                assert columns.ranges(layout, None, n_threads)[2] == min(places)
    assert columns.first_not_finite(values, 2) is None
    low, high, bad = columns.ranges(values, None, 2)
    assert bad is None
    np.testing.assert_array_equal(low, values.min(axis=0))
    np.testing.assert_array_equal(high, values.max(axis=0))
    mean, variance = columns.moments(values, None, np.zeros(shape[1]), np.ones(shape[1]), 2)
    np.testing.assert_allclose(mean, values.mean(axis=0, dtype=float), atol=1e-12)
    np.testing.assert_allclose(variance, values.var(axis=0, dtype=float), atol=1e-12)


def test_same_arrays():
    def same(first, second):
        return _kernels.columns.held({"x": first}, ("x",), (second,))

    a = np.arange(6.0).reshape(2, 3)
    assert same(a, a)
    assert same(a, a.copy())
    for other in (
        np.nextafter(a, 9), a.reshape(3, 2), a.ravel(), a.astype(np.float32), a[:1],
        a.astype(int), a.tolist(), None, np.asfortranarray(a), a[:, ::-1], -a,
    ):  # fmt: skip
        assert not same(a, other)
        assert not same(other, a)
    changed = a.copy()
    changed[1, 2] = 7
    assert not same(a, changed)
    assert same(np.float64(1), np.float64(1))
    state = {"x": a, "y": a[0]}
    assert _kernels.columns.held(state, ("x", "y"), (a.copy(), a[0]))
    assert not _kernels.columns.held(state, ("x", "y"), (a, a[1]))
    assert not _kernels.columns.held(state, ("x", "z"), (a, a[0]))
    assert not _kernels.columns.held(state, ("x", "y"), (a,))
    assert not _kernels.columns.held(state, (), (a,))


# Factors of precision matrices --------------------------------------------------------------------


def factors(level, matrices, scale, tiny=0.0):
    d = matrices.shape[1]
    out = np.full_like(matrices, np.nan)
    room = np.full((d + 1, d), np.nan)
    bad = _kernels.load(level).triangle.precision_factors(matrices, scale, tiny, room, out)
    return bad, out


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 2), (2, 3), (5, 8), (2, 17), (1, 64)])
def test_precision_factors(level, n, d):
    rng = np.random.default_rng([n, d])
    root = rng.standard_normal((n, d, 2 * d))
    matrices = root @ np.swapaxes(root, 1, 2)
    scale = rng.uniform(0.1, 10, n)
    # Upper triangles aren't read.
    bad, out = factors(level, np.tril(matrices) + np.triu(np.full((d, d), np.nan), 1), scale)
    assert bad == -1
    np.testing.assert_array_equal(np.triu(out, 1), 0)
    identity = np.swapaxes(out, 1, 2) @ out @ matrices / scale[:, None, None]
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(d), (n, d, d)), atol=1e-10)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("size", "rank"), [(1, 1), (5, 5), (40, 13), (150, 150), (150, 149)])
def test_pivoted_cholesky(level, size, rank):
    rng = np.random.default_rng([size, rank])
    root = rng.standard_normal((size, rank))
    matrix = root @ root.T
    # Upper triangles aren't read.
    lower = np.asfortranarray(np.tril(matrix) + np.triu(np.full((size, size), np.nan), 1))
    pivots = np.full(size, -1, dtype=np.int32)
    found = _kernels.load(level).triangle.pivoted_cholesky(lower, pivots, np.full(2 * size, np.nan))
    assert found == rank
    order = pivots - 1
    np.testing.assert_array_equal(np.sort(order), range(size))
    factor = np.tril(lower)[:, :rank]
    np.testing.assert_allclose(
        factor @ factor.T, matrix[np.ix_(order, order)], atol=1e-12 * matrix.max()
    )


def test_pivoted_cholesky_leaves_the_lock_to_others():
    size = 2500
    lower = np.asfortranarray(np.eye(size) + 1.0)
    pivots, room = np.empty(size, dtype=np.int32), np.empty(2 * size)
    took, seen = [], []

    def run():
        took.append(time.perf_counter())
        _kernels.triangle.pivoted_cholesky(lower, pivots, room)
        took.append(time.perf_counter())

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        seen.append(time.perf_counter())
        time.sleep(1e-4)
    # Not at its edges, where Python runs.
    quarter = (took[1] - took[0]) / 4
    assert any(took[0] + quarter < now < took[1] - quarter for now in seen)


@pytest.mark.parametrize("level", LEVELS)
def test_precision_factors_name_the_first_matrix_that_has_none(level):
    matrices = np.tile(np.eye(3), (4, 1, 1))
    assert factors(level, matrices, np.ones(4))[0] == -1
    singular = np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    for wrong in (singular, -np.eye(3), np.full((3, 3), np.nan), singular + 1e-16 * np.eye(3)):
        matrices[2] = matrices[3] = wrong
        assert factors(level, matrices, np.ones(4))[0] == 2
    matrices[2:] = np.diag([1.0, 1e-8, 1.0])
    assert factors(level, matrices, np.ones(4))[0] == -1
    assert factors(level, matrices, np.ones(4), tiny=1e-7)[0] == 2
    assert factors(level, matrices, np.full(4, 1e-2), tiny=1e-7)[0] == -1
    with pytest.raises(ValueError, match="do not go together"):
        factors(level, matrices, np.ones(3))


# Counts and symbols ------------------------------------------------------------------------------


class DiscreteTheta:
    """Random parameters of a row of DISCRETE, a share of them 0."""

    def __init__(self, rng, row, n_components, n_features, zeros=0.2):
        self.row = row
        self.emission = row.of(n_features)
        weights, values = row.draw_prior(1, n_components, n_features, rng)
        self.weights, self.values = weights[0], values[0]
        if row.emission != "exponential":  # a rate of 0 is none of waiting times
            self.values[rng.random(self.values.shape) < zeros] = 0.0
        if not row.of_rates:
            self.values[..., 0] += self.values.sum(axis=-1) == 0
            self.values /= self.values.sum(axis=-1, keepdims=True)
        parameters = self.emission.parameters(self.values)
        self.reference = self.emission.reference(parameters)
        self.coefficients = self.emission.coefficients(parameters, self.reference)
        self.offsets = np.log(self.weights) + self.emission.offsets(parameters)

    def kernel(self):
        return Coefficients(
            self.emission.kernel, self.coefficients, self.offsets, None, self.emission.width
        )

    def scores(self, X):
        return self.row.scores(X, self.weights, self.values)


def discrete_rows(rng, row, n, d):
    values = row.draw_prior(n, 1, d, rng)[1][:, 0]
    return row.draw_rows(values, rng)


def discrete_tally(row, X, weighted):
    """Sums of counts (K, D), or what was seen of each symbol (K, D, C)."""
    if row.of_rates:
        return weighted.T @ X
    n = row.categories(X.shape[1]).max()
    return np.einsum("nk,ndc->kdc", weighted, (X[:, :, None] == np.arange(n)).astype(float))


def check_discrete(level, theta, X, kind, rng, weight=None, truncation=2):
    """`check` of counts and symbols, rows X of any layout and dtype."""
    (n, d), k = X.shape, len(theta.weights)
    kernel, coefficients = _kernels.load(level).mixture, theta.kernel()
    labels = rng.integers(k, size=n)
    truncation = min(truncation, k)
    assignment = Assignment(kind, truncation=truncation, seed=3, sweep=1)
    results = []
    for n_threads in (1, 2):
        known = labels if kind == "given" else None
        block = Block(X, weight, known, np.zeros(d), np.ones(d), 0, n_threads)
        out = {"q": np.full((n, k), np.nan)}
        if kind != "scores":
            size = kernel.statistics_size(coefficients.emission, k, d, coefficients.n_categories)
            out |= {"log_z": np.full(n, np.nan), "statistics": np.full(size, np.nan)}
        kernel.visit(block, coefficients, assignment, **out)
        results.append(out)
    rows = X.astype(np.float64)
    w = np.ones(n) if weight is None else weight
    present = w > 0
    scores = theta.scores(rows) - theta.emission.log_base(rows)[:, None]
    q = own = results[0]["q"]
    if kind != "scores":
        own = np.full((n, k), np.nan)
        kernel.visit(block, coefficients, Assignment("scores"), q=own)
    possible = present[:, None] & (scores > -np.inf)
    np.testing.assert_array_equal((own > -1.7e308)[present], possible[present])
    np.testing.assert_allclose(own[possible], scores[possible], rtol=1e-11, atol=1e-13)
    if kind == "scores":
        return
    # As in `check`: where two are equal but for rounding either may be the better one.
    scores[possible] = own[possible]
    log_z = results[0]["log_z"]
    if kind == "given":
        np.testing.assert_array_equal(q, w[:, None] * ref.one_hot(labels, k))
        expected_log_z = np.zeros(n)
    elif kind == "draw":  # what is drawn is tested elsewhere
        np.testing.assert_array_equal(q.sum(axis=1), w)
        expected_log_z = np.where(q > 0, q * np.where(q > 0, scores, 0.0), 0.0).sum(axis=1)
    else:
        kept = "exact" if kind == "factorised" else kind
        expected_log_z, expected = ref.assign(scores, kept, truncation)
        finite = present & (expected_log_z > -np.inf)
        np.testing.assert_allclose(q[finite], (w[:, None] * expected)[finite], atol=1e-11)
    finite = present & (expected_log_z > -np.inf)
    np.testing.assert_array_equal(log_z[present] > -np.inf, finite[present])
    np.testing.assert_allclose(log_z[finite], expected_log_z[finite], rtol=1e-11, atol=1e-13)
    raw = results[0]["statistics"]
    # A draw's log_z is of all the rows that a weight stands for.
    of_row = np.where(present, log_z, 0.0) * (1.0 if kind == "draw" else w)
    assert raw[0] == pytest.approx(of_row.sum(), rel=1e-12, abs=1e-12 * n)
    counts = raw[1 : 1 + k].copy()
    np.testing.assert_allclose(counts, q.sum(axis=0), rtol=1e-12, atol=1e-12)
    fields = theta.emission.collect(raw[1 + k :], counts, theta.reference)
    other = results[1]["statistics"]  # by two threads
    more = theta.emission.collect(other[1 + k :], other[1 : 1 + k], theta.reference)
    for name, value in fields.items():
        np.testing.assert_array_equal(value, more[name])
    assert raw[0] == other[0]
    tally = assert_tally(theta, raw, rows, q)
    # What no row of a component is stays exactly 0: it is impossible from then on.
    if kind == "given":
        np.testing.assert_array_equal(tally == 0, discrete_tally(theta.row, rows, q) == 0)


def assert_tally(theta, raw, rows, weighted):
    """Raw statistics have the sums of these rows, or what was seen of each symbol."""
    k = len(theta.weights)
    fields = theta.emission.collect(raw[1 + k :], raw[1 : 1 + k], theta.reference)
    (tally,) = (value for name, value in fields.items() if name != "strength")
    expected = discrete_tally(theta.row, rows, weighted)
    size = np.abs(rows).max(initial=1)
    np.testing.assert_allclose(tally, expected, rtol=1e-12, atol=1e-12 * size)
    return tally


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("row", DISCRETE[1::4], ids=str)
@pytest.mark.parametrize("kind", ["scores", "exact", "best", "hard", "given", "draw"])
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(1, 1, 1), (31, 2, 3), (33, 4, 8), (129, 5, 9), (513, 17, 2), (1025, 3, 17), (700, 33, 4)],
)
@pytest.mark.parametrize(("weights", "dtype"), [(None, "float64"), ("whole", "float32")])
def test_discrete_kernels_agree_with_reference(level, row, kind, n, d, k, weights, dtype):
    rng = np.random.default_rng([n, d, k])
    theta = DiscreteTheta(rng, row, k, d)
    X = discrete_rows(rng, row, n, d)
    weight = None if weights is None else rng.integers(0, 3, n).astype(float)
    # Every other row of a wider array, from the second column on.
    wide = np.full((2 * n, d + 1), np.nan, dtype)
    wide[::2, 1:] = X
    check_discrete(level, theta, wide[::2, 1:], kind, rng, weight)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n_categories", [1, 2, 600])
def test_what_is_no_symbol_stays_within_the_table(level, n_categories):
    rng = np.random.default_rng(0)
    kernel, k, d = _kernels.load(level).mixture, 3, 2
    emission = vbfast.Categorical(d, n_categories)
    tables = emission.parameters(rng.dirichlet(np.ones(n_categories), (k, d)))
    coefficients = Coefficients(
        "categorical", emission.coefficients(tables, None), np.zeros(k), None, emission.width
    )
    X = rng.choice([-1e300, -1.0, 0.0, 1e300, np.inf, np.nan, n_categories], (200, d))
    block = Block(X, None, None, np.zeros(d), np.ones(d), 0, 1)
    statistics = np.empty(kernel.statistics_size("categorical", k, d, n_categories))
    kernel.visit(block, coefficients, Assignment("exact"), statistics=statistics)
    tally = emission.collect(statistics[1 + k :], statistics[1 : 1 + k], None)["tally"]
    np.testing.assert_allclose(tally.sum(axis=(0, 2)), 200.0)
