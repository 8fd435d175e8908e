"""Products of emissions: columns of several kinds, by every method, against plain references."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import reference as ref
from conftest import COVARIANCE_TYPES, ChainRow
from scipy.special import logsumexp
from test_methods import CHAIN_METHODS, KINDS, assert_climbs

import vbfast
from vbfast import starts
from vbfast.data import as_sequences
from vbfast.exceptions import DegenerateError
from vbfast.methods import FullInference

MIXED = [
    ("full", "poisson"),
    ("categorical", "diag"),
    ("spherical", "bernoulli", "exponential"),
    ("tied", "categorical", "poisson", "diag"),
    ("poisson", "poisson"),
]


@dataclass(frozen=True)
class ProductRow:
    """A mixture or a chain whose rows have columns of several kinds."""

    parts: tuple
    prior: str = "conjugate"
    chain: bool = False
    missing: bool = False

    def __str__(self):
        kinds = "-".join(self.parts)
        return f"{kinds}-{self.prior}{'-chain' * self.chain}{'-missing' * self.missing}"

    @property
    def rows(self):
        return [ChainRow(part, self.prior) for part in self.parts]

    def columns(self, d, rng):
        """Of parts of d features, in any order."""
        order = rng.permutation(d * len(self.parts))
        return [tuple(each.tolist()) for each in np.split(order, len(self.parts))]

    def problem(self, rng, k, d, lengths):
        """Model, data, rows of each part, states some of which are wrong."""
        n = sum(lengths)
        columns = self.columns(d, rng)
        X = np.empty((n, d * len(self.parts)))
        states = rng.integers(k, size=n)
        for row, own in zip(self.rows, columns, strict=True):
            _, *values = row.draw_prior(1, k, d, rng)
            X[:, own] = row.draw_rows(states[None], rng, *values)[0]
        states = np.where(rng.random(n) < 0.3, rng.integers(k, size=n), states)
        states[: 4 * k] = (np.arange(4 * k) % k)[:n]
        for own in columns if self.missing else ():
            X[np.ix_(np.flatnonzero(rng.random(n) < 0.3), own)] = np.nan
        data = vbfast.ArrayData.of(
            X,
            standardise=[
                (own, part == "spherical")
                for part, own in zip(self.parts, columns, strict=True)
                if part in COVARIANCE_TYPES
            ],
            missing=range(X.shape[1]) if self.missing else (),
        )
        emission = vbfast.Product(
            [
                row.model(k, data.of_columns(own)).emission
                for row, own in zip(self.rows, columns, strict=True)
            ],
            columns,
            missing=self.missing,
        )
        data = emission.check(data)
        if self.chain:
            concentrations = self.rows[0].concentrations(k)
            priors = (concentrations[0], concentrations[1:]) if self.prior != "flat" else ()
            data = replace(data, sequences=as_sequences(lengths, n))
            latent = vbfast.Chain(k, *priors)
        else:
            alpha = self.rows[0].part.alpha if self.prior != "flat" else None
            latent = vbfast.Mixture(k, concentration=alpha)
        each = [(X[:, own], row) for own, row in zip(columns, self.rows, strict=True)]
        return vbfast.Model(latent, emission), data, each, states


PRODUCTS = [
    ProductRow(parts, prior, chain, missing)
    for parts in MIXED
    for prior in ("flat", "conjugate")
    for chain in (False, True)
    for missing in (False, True)
]
CASES = [
    (method, row)
    for row in PRODUCTS
    for method in ("em", "mean_field", "crisp_em", "variational_em")
    if row.prior != "flat" or method != "mean_field"
]


@pytest.mark.parametrize(("method", "row"), CASES, ids=str)
def test_fits_climb_and_agree_with_reference(method, row):
    rng = np.random.default_rng([CASES.index((method, row)), 8])
    make = CHAIN_METHODS[method][0]
    n_compared = n_degenerate = 0
    for _ in range(8):
        k, d = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        lengths = [7, 1, 6, 2, 5, 7, 7] if row.chain else [60]
        model, data, each, states = row.problem(rng, k, d, lengths)
        start = starts.from_labels(model, data, states)
        if method == "variational_em" and row.chain:
            data = data.with_memory(k)
        try:
            fitted = make(max_iter=25, tol=0).fit(model, data, start)
        except DegenerateError:
            assert row.prior == "flat"
            n_degenerate += 1
            continue
        assert_climbs(fitted.objectives, data.total_weight)
        if method == "variational_em":
            continue
        kind, read = KINDS[method]
        try:
            expected = ref.product_climb(
                each, states, lengths if row.chain else None, k, kind, read, n_sweeps=4
            )
        except (ZeroDivisionError, np.linalg.LinAlgError):
            assert row.prior == "flat"
            continue
        n = min(len(fitted.objectives), len(expected))
        found = fitted.objectives[:n]
        np.testing.assert_allclose(found, [one for one, *_ in expected[:n]], rtol=1e-9)
        n_compared += 1
    assert n_degenerate < 6
    assert n_compared or method == "variational_em"


def test_a_product_of_one_part_is_that_part():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 3)) + 3 * rng.integers(3, size=(300, 1))
    data = vbfast.ArrayData.of(X)
    labels = rng.integers(3, size=300)
    alone = vbfast.Gaussian(3, "full", frame=data.frame)
    product = vbfast.Product([alone], [(0, 1, 2)])
    fits = [
        vbfast.EM().fit(model, data, starts.from_labels(model, data, labels))
        for model in (vbfast.Model(vbfast.Mixture(3), part) for part in (alone, product))
    ]
    assert fits[0].objective == pytest.approx(fits[1].objective, rel=1e-13)
    assert fits[0].n_iter == fits[1].n_iter
    (own,) = fits[1].theta.parameters.parts
    np.testing.assert_allclose(own.means, fits[0].theta.parameters.means, rtol=1e-9)


@pytest.mark.parametrize("row", [each for each in PRODUCTS if not each.chain], ids=str)
def test_coordinates_there_and_back(row):
    rng = np.random.default_rng(2)
    model, data, _, states = row.problem(rng, 3, 2, [80])
    posterior = starts.from_labels(model, data, states)
    coordinates = model.coordinates(posterior)
    k = model.latent.n_components
    assert len(coordinates) == k + model.emission.n_coordinates(k)
    back = model.at_coordinates(coordinates, posterior)
    back["log_z"][...] = posterior["log_z"]
    np.testing.assert_allclose(back.buffer, posterior.buffer, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("missing", [False, True], ids=["all seen", "missing"])
@pytest.mark.parametrize("chain", [False, True], ids=["mixture", "chain"])
def test_draws_of_the_posterior_are_those_of_enumeration(chain, missing):
    """Means of draws of p(T, theta | X) against all T summed, parameters integrated out."""
    row = ProductRow(("poisson", "categorical", "bernoulli"), chain=chain, missing=missing)
    rng = np.random.default_rng(3)
    k, d, n = 2, 1, 6
    model, data, each, _ = row.problem(rng, k, d, [n])
    concentration = row.rows[0].concentrations(k)
    totals, first = [], []
    for labels in itertools.product(range(k), repeat=n):
        t = np.array(labels)
        if chain:
            counts = np.concatenate([[np.bincount(t[:1], minlength=k)], ref.count_path(t, k)])
            prior = concentration
        else:
            counts, prior = [np.bincount(t, minlength=k)], concentration[:1]
        value = sum(map(ref_dirichlet_multinomial, prior, counts))
        for X, of_part in each:
            seen = ~np.isnan(X[:, 0])
            value += sum(of_part.part.log_marginal(X[seen & (t == j), 0], 0, d) for j in range(k))
        totals.append(value)
        first.append(labels[0] == labels[1])
    share = np.exp(np.array(totals) - logsumexp(totals))
    expected = share @ np.array(first)
    drawn = FullInference(n_draws=4000, n_tune=300, n_chains=2)
    fit = drawn.fit(model, data, [starts.posterior(model, data, "random", rng)] * 2, rng)
    found = []
    for chain_ in range(2):
        for draw in range(0, 4000, 4):
            arrays = {name: part[chain_, draw] for name, part in fit.theta.items()}
            weights = arrays.pop("weights")
            theta = model.point(weights, model.emission.parameters(*arrays.values()))
            found.append(pair_probability(model, data, theta, chain))
    error = np.std(found) / np.sqrt(len(found) / 8)
    assert np.mean(found) == pytest.approx(expected, abs=5 * error + 1e-3)


def ref_dirichlet_multinomial(alpha, counts):
    """log p(labels) of these counts, probabilities integrated out."""
    from scipy.special import gammaln

    value = gammaln(alpha.sum()) - gammaln((alpha + counts).sum())
    return value + (gammaln(alpha + counts) - gammaln(alpha)).sum()


def pair_probability(model, data, theta, chain):
    """p(t_1 = t_2 | X, theta)."""
    k = model.latent.n_components
    scores = np.empty((data.n_rows, k))
    apart = replace(theta, latent=None) if chain else theta
    vbfast._kernels.mixture.visit(
        replace(data, sequences=None).block, apart, vbfast._kernels.inputs.Assignment("scores"),
        q=scores,
    )  # fmt: skip
    if not chain:
        q = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
        return q[0] @ q[1]
    paths, log_joint = ref.enumerate_chain(scores, theta.weights[0], theta.weights[1:])
    share = np.exp(log_joint - logsumexp(log_joint))
    return share @ (paths[:, 0] == paths[:, 1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: vbfast.Product([], []), ValueError, "parts must be one emission at least"),
        (lambda: vbfast.Product([3], [[0]]), TypeError, r"parts\[0\] must be an emission"),
        (
            lambda: vbfast.Product([vbfast.Product([vbfast.Poisson(1)], [[0]])], [[0]]),
            TypeError,
            r"parts\[0\] must be an emission",
        ),
        (lambda: vbfast.Product([vbfast.Poisson(1)], []), ValueError, "columns must be 1"),
        (
            lambda: vbfast.Product([vbfast.Poisson(2)], [[0]]),
            ValueError,
            r"columns\[0\] must be 2, as the part's features",
        ),
        (
            lambda: vbfast.Product([vbfast.Poisson(1), vbfast.Poisson(1)], [[1], [1]]),
            ValueError,
            "column 1 is in parts 0 and 1",
        ),
        (lambda: vbfast.Product([vbfast.Poisson(1)], [[-1]]), ValueError, "from 0 on"),
        (lambda: vbfast.Product([vbfast.Poisson(1)], [[0.5]]), TypeError, "integer"),
        (lambda: vbfast.Product([vbfast.Poisson(1)], [[4]], 4), ValueError, "must be 5 at least"),
    ],
)
def test_what_is_no_product_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_rows_are_checked_by_the_part_that_sees_them():
    emission = vbfast.Product([vbfast.Gaussian(1), vbfast.Poisson(1)], [[1], [3]])
    X = np.array([[np.nan, -0.5, np.nan, 2.0], [0.0, 1e9, 0.0, 1.5]])
    with pytest.raises(ValueError, match=r"X\[1, 3\] is 1.5 \(row 1, column 3\)"):
        emission.check_rows(X)
