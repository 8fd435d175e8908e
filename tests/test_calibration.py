"""Whether full inference draws from the posterior: two tests that see any defect, if it is large.

Simulation-based calibration (Talts et al. 2018): parameters from the prior, data from them, and
then the parameters' rank among draws given the data is uniform. The chain of theta of a blocked
Gibbs sampler is reversible, so that a chain run both ways from the true theta, which stands at a
random place in it, has uniform ranks however slowly it mixes (Gandy & Scott 2020).

Geweke's joint test (2004): a chain that by turns draws theta and T given X, and X given theta and
T, has the prior as its marginal.

Data and prior are simulated by NumPy and SciPy alone. Both tests must fail on planted bugs and on
mean field.
"""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import reference as ref
from conftest import ChainRow, DiscreteRow, MixtureRow, raw_parameters
from scipy.stats import chisquare, invwishart

import vbfast
from vbfast import FullInference, MeanField, _kernels, starts
from vbfast._kernels.inputs import Assignment, Block
from vbfast.conjugate import Gamma, NormalGamma, NormalWishart, Tables, point
from vbfast.data import Frame

pytestmark = pytest.mark.slow

ROWS = [
    # model, components, features
    (MixtureRow("full"), 2, 2),
    (MixtureRow("tied", "dirichlet_process"), 3, 2),
    (MixtureRow("diag", "dirichlet_process"), 2, 2),
    (MixtureRow("spherical"), 2, 2),
    (MixtureRow("diag", prior="independent"), 2, 1),
    (MixtureRow("spherical", "dirichlet_process", "independent"), 2, 2),
]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))

N_SETS, N_BINS, THIN = 1000, 20, 2
N_JOINT = 100_000


def variances(row, covariances, k, d):
    """Return variances (S, K, D) of covariances (S, ...) in scikit-learn's shapes."""
    size = len(covariances)
    if row.covariance_type in ("full", "tied"):
        diagonal = np.diagonal(covariances, axis1=-2, axis2=-1).reshape(size, -1, d)
        return np.broadcast_to(diagonal, (size, k, d))
    return np.broadcast_to(covariances.reshape(size, k, -1), (size, k, d))


def simulate(weights, means, covariances, row, n, rng):
    """Draw components (S, N) and rows (S, N, D) given S parameters."""
    marks = rng.random((len(means), n, 1))
    t = (marks > np.cumsum(weights, axis=1)[:, None, :-1]).sum(axis=2)
    return t, row.draw_rows(means, covariances, t, rng)


# Simulation-based calibration --------------------------------------------------------------------


def quantities(row, weights, means, covariances):
    """What is ranked, (S, ...): the first half without regard to the components' order."""
    _size, k, d = means.shape
    log_variance = np.log(variances(row, covariances, k, d))
    return np.stack(
        [
            weights.max(axis=1),
            means[:, :, 0].min(axis=1),
            means.mean(axis=(1, 2)),
            (weights[:, :, None] * means).sum(axis=(1, 2)),
            log_variance.sum(axis=(1, 2)),
            weights[:, 0],
            means[:, -1, -1],
            log_variance[:, 0, 0],
        ],
        axis=1,
    )


def log_scores(weights, means, covariances, row, X):
    """Return log pi_k + log N(x_n | mu_k, Sigma_k), (S, N, K), of S parameters and data sets."""
    _, k, d = means.shape
    full = np.array([
        ref.full_covariances(covariance, row.covariance_type, k, d) for covariance in covariances
    ])  # fmt: skip
    away = X[:, :, None] - means[:, None]
    square = np.einsum("snki,skij,snkj->snk", away, np.linalg.inv(full), away, optimize=True)
    constant = np.log(weights) - (d * ref.LOG_2PI + np.linalg.slogdet(full)[1]) / 2
    return constant[:, None] - square / 2


def draw_components(scores, rng):
    """Draw T given scores (S, N, K)."""
    q = np.exp(scores - scores.max(axis=2, keepdims=True)).cumsum(axis=2)
    marks = rng.random(scores.shape[:2]) * q[:, :, -1]
    return (marks[:, :, None] > q[:, :, :-1]).sum(axis=2)


def gibbs(model, data, labels, n_draws, rng):
    """Yield every THIN-th theta of full inference's chain from labels."""
    start = starts.from_labels(model, data, labels)
    chain = FullInference().chain(model, data, start, rng)
    for _ in range(n_draws):
        for _ in range(THIN):
            sweep = next(chain)
        yield sweep.theta


def compiled(model, data, labels, n_draws, rng):
    """The same by the loop without Python."""
    start = starts.from_labels(model, data, labels)
    # One sweep of tuning and THIN - 1 more come before the first draw that is kept.
    method = FullInference(n_draws=n_draws * THIN, n_tune=0, n_chains=1)
    theta = method.fit(model, data, [start], rng).theta
    for n in range(THIN - 2, n_draws * THIN - 1, THIN):
        weights, means, factors = (theta[name][0, n] for name in ("weights", "means", "factors"))
        yield model.point(weights, point(means, factors))


def mean_field(model, data, labels, n_draws, rng):
    """Yield draws of q(theta)."""
    start = starts.from_labels(model, data, labels)
    fitted = MeanField(max_iter=30, tol=1e-4).fit(model, data, start)
    for _ in range(n_draws):
        yield model.sample(fitted.posterior, rng)


def calibration(row, k, d, *, n_sets=N_SETS, n=12, sampler=gibbs, seed=0):
    """Return the p-values of uniform ranks, one a quantity."""
    rng = np.random.default_rng(seed)
    prior = row.draw_prior(n_sets, k, d, rng)
    t, X = simulate(*prior, row, n, rng)
    scores = log_scores(*prior, row, X)
    again = draw_components(scores, rng)
    ranked = quantities(row, *prior)
    # log p(X, T, theta) with a T of its own.
    fresh = np.take_along_axis(scores, draw_components(scores, rng)[:, :, None], axis=2)
    log_joint = fresh.sum(axis=(1, 2))
    log_joint += [row.log_prior(*theta) for theta in zip(*prior, strict=True)]
    ranks = np.empty((n_sets, ranked.shape[1] + 1), dtype=int)
    for number in range(n_sets):
        data = row.data(X[number])
        model = row.model(k, d, data.frame)
        place = int(rng.integers(N_BINS))
        drawn, joint = [], []
        for labels, n_draws in ((t[number], place), (again[number], N_BINS - 1 - place)):
            for draw in sampler(model, data, labels, n_draws, rng) if n_draws else ():
                drawn.append(raw_parameters(row, draw, data.frame))
                assignment = Assignment("draw", seed=int(rng.integers(2**63)))
                joint.append(data.sum(model.visit, draw, assignment)["log_z"] + draw.log_prior)
        found = quantities(row, *(np.array(part) for part in zip(*drawn, strict=True)))
        ranks[number, 1:] = (found < ranked[number]).sum(axis=0)
        ranks[number, 0] = np.sum(joint < log_joint[number])
    return np.array([chisquare(np.bincount(r, minlength=N_BINS)).pvalue for r in ranks.T])


@rows
def test_simulation_based_calibration(row):
    p_values = calibration(*row)
    assert np.all(p_values > 0.001), p_values


COMPILED = [
    (MixtureRow("full"), 2, 2),
    (MixtureRow("tied"), 3, 2),
    (MixtureRow("diag"), 2, 2),
    (MixtureRow("spherical"), 2, 2),
]


@pytest.mark.parametrize("row", COMPILED, ids=lambda row: str(row[0]))
def test_simulation_based_calibration_of_compiled_chains(row):
    p_values = calibration(*row, sampler=compiled)
    assert np.all(p_values > 0.001), p_values


# Geweke's joint test -----------------------------------------------------------------------------


class JointData:
    """Data that are drawn anew, X given T and theta, whenever a chain looks at them."""

    def __init__(self, row, model, n, frame, rng):
        self.row, self.model, self.n, self.frame, self.rng = row, model, n, frame, rng
        self.total_weight = float(n)
        self.t = None
        self.order = None

    @property
    def fixed(self):
        """The rows that were drawn last."""
        return vbfast.ArrayData(self.X, None, self.frame)

    def sum(self, visit, theta, assignment):
        gaussians, n = theta.parameters, self.n
        k, d = gaussians.means.shape
        if self.t is None:
            marks = self.rng.random((n, 1))
            self.t = (marks > np.cumsum(theta.weights)[:-1]).sum(axis=1)
        elif self.order is not None:
            # Theta was drawn after an order of the components: T goes along.
            self.t = np.argsort(self.order)[self.t]
        z = self.rng.standard_normal((n, d))
        factor = gaussians.factor
        if factor.ndim == 3:
            inverse = np.linalg.inv(factor)
            z = (inverse[self.t if len(factor) > 1 else 0 * self.t] @ z[:, :, None])[:, :, 0]
        else:
            z = z / factor[self.t]
        frame = self.frame
        self.X = frame.origin + (gaussians.means[self.t] + z) / frame.scale
        block = Block(self.X, None, None, frame.origin, frame.scale, 0, 1)
        # The T that is drawn: the same, as its random numbers are.
        q = np.empty((n, k))
        self.model.latent.kernel(False).visit(block, theta, assignment, q=q)
        self.t = q.argmax(axis=1)
        return visit(block, theta, assignment)


def joint_moments(row, weights, means, covariances, counts, X):
    """Return 20 functions of theta, T and X whose averages exist, (S, 20)."""
    _size, k, d = means.shape
    w, m = weights[:, 0], np.tanh(means)
    log_variance = np.log(variances(row, covariances, k, d))
    first, last = log_variance[:, 0, 0], log_variance[:, -1, -1]
    if row.covariance_type in ("full", "tied") and d > 1:
        matrices = covariances if row.covariance_type == "tied" else covariances[:, 0]
        cross = matrices[:, 0, 1] / np.sqrt(matrices[:, 0, 0] * matrices[:, 1, 1])
    else:
        cross = first**3
    # Of all rows, not of those counted: a row that is lost is seen here alone.
    share, x = counts[:, 0] / X.shape[1], np.tanh(X)
    mean_x = x.mean(axis=(1, 2))
    return np.stack(
        [
            w, w**2, weights[:, -1], weights.max(axis=1),
            m[:, 0, 0], m[:, 0, 0] ** 2, m[:, -1, -1], m[:, 0, 0] * m[:, -1, 0], w * m[:, 0, 0],
            first, first**2, last, first * last, cross, first * m[:, 0, 0] ** 2,
            share, share**2, share * w,
            mean_x, (x**2).mean(axis=(1, 2)),
        ],
        axis=1,
    )  # fmt: skip


def expected_moments(row, k, d, n, rng, size=200_000):
    """Return averages by independent draws of the prior, and their standard errors."""
    prior = row.draw_prior(size, k, d, rng)
    t, X = simulate(*prior, row, n, rng)
    counts = (t[:, :, None] == np.arange(k)).sum(axis=1)
    values = joint_moments(row, *prior, counts, X)
    return values.mean(axis=0), values.std(axis=0) / np.sqrt(size)


def geweke(row, k, d, *, n_draws=N_JOINT, n=6, seed=0, next_theta=None, size=200_000):
    """Return z of each moment, standard errors corrected for autocorrelation by batches."""
    rng = np.random.default_rng(seed)
    scale = np.full(d, 0.7) if row.covariance_type == "spherical" else np.linspace(0.7, 1.6, d)
    frame = Frame(np.full(d, 0.3), scale, np.ones(d))
    model = row.model(k, d, frame)
    data = JointData(row, model, n, frame, rng)
    draw_order = vbfast.Mixture.draw_order

    def recorded(latent, posterior, generator):
        data.order = draw_order(latent, posterior, generator)
        return data.order

    with mock.patch.object(vbfast.Mixture, "draw_order", recorded):
        return geweke_of(row, model, data, frame, n_draws, next_theta, size, rng)


def geweke_of(row, model, data, frame, n_draws, next_theta, size, rng):
    k, d, n, scale = model.latent.n_components, len(frame.scale), data.n, frame.scale
    if next_theta is None:
        chain = FullInference().chain(model, data, model.prior, rng)
    else:
        chain = next_theta(model, data, rng)
    parts = []
    for _ in range(n_draws):
        sweep = next(chain)
        counts = sweep.stats["strength"].copy()
        gaussians = sweep.theta.parameters
        parts.append((sweep.theta.weights, gaussians.means, gaussians.factor, counts, data.X))
    weights, means, factors, counts, X = (np.array(part) for part in zip(*parts, strict=True))
    if factors.ndim == 4:
        root = np.linalg.inv(factors * scale)
        covariances = root @ np.swapaxes(root, 2, 3)
        covariances = covariances[:, 0] if row.covariance_type == "tied" else covariances
    else:
        covariances = (factors * scale[: factors.shape[2]]) ** -2.0
    means = frame.origin + means / frame.scale
    values = joint_moments(row, weights, means, covariances, counts, X)
    n_batches = 50
    batches = values[: n_draws // n_batches * n_batches].reshape(n_batches, -1, values.shape[1])
    error = batches.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(n_batches)
    expected, expected_error = expected_moments(row, k, d, n, rng, size)
    return (values.mean(axis=0) - expected) / np.hypot(error, expected_error)


@rows
def test_geweke(row):
    # Where means are independent of precisions a draw takes several times as long.
    z = geweke(*row, n_draws=N_JOINT // 4 if row[0].prior == "independent" else N_JOINT)
    assert len(z) == 20
    assert np.all(np.abs(z) < 4), z


# They fail where they must -----------------------------------------------------------------------


def _kernel_changed(patch, change, latent=vbfast.Mixture, true=_kernels.mixture):
    """Give every visit what `change` makes of its block, assignment and wanted statistics."""

    class Kernel:
        statistics_size = staticmethod(true.statistics_size)

        @staticmethod
        def visit(block, theta, assignment, *, statistics=None, **out):
            block, assignment = change(block, assignment, statistics is not None)
            return true.visit(block, theta, assignment, statistics=statistics, **out)

    patch.setattr(latent, "kernel", lambda self, single: Kernel)


def drop_chunk(patch):
    """The last third of the rows is lost to statistics."""

    def change(block, assignment, counted):
        if counted:
            values = block.values[: len(block.values) * 2 // 3]
            labels = None if block.labels is None else block.labels[: len(values)]
            block = replace(block, values=values, labels=labels)
        return block, assignment

    _kernel_changed(patch, change)


def draws_from_hard(patch):
    """The best component stands in for a draw."""

    def change(block, assignment, counted):
        kind = "hard" if assignment.kind == "draw" else assignment.kind
        return block, replace(assignment, kind=kind)

    _kernel_changed(patch, change)


def _sample_changed(patch, change):
    for family in (NormalWishart, NormalGamma):
        sample = family.sample

        def changed(self, rng, sample=sample, family=family):
            parts = change(self.means, self.strength, self.dof, self.scatter)
            return sample(family(*parts), rng)

        patch.setattr(family, "sample", changed)


def degrees_of_freedom_off_by_one(patch):
    _sample_changed(patch, lambda means, kappa, nu, S: (means, kappa, nu + 1, S))


def strength_not_updated(patch):
    _sample_changed(
        patch, lambda means, kappa, nu, S: (means, np.full_like(kappa, MixtureRow.kappa), nu, S)
    )


def counts_ignored(patch):
    """The weights are drawn from their prior."""
    collect = vbfast.Mixture.collect

    def changed(self, raw, n_rows):
        fields, counts, rest = collect(self, raw, n_rows)
        return {name: 0 * field for name, field in fields.items()}, counts, rest

    patch.setattr(vbfast.Mixture, "collect", changed)


def between_scatter_forgotten(patch):
    """Prior and data add up without the spread of their means."""

    def add(self, other):
        total = original(self, other)
        total["scatter"][...] = self["scatter"] + other["scatter"]
        return total

    original = vbfast.Stats.__add__
    patch.setattr(vbfast.Stats, "__add__", add)


BUGS = [
    drop_chunk, degrees_of_freedom_off_by_one, strength_not_updated, draws_from_hard,
    counts_ignored, between_scatter_forgotten,
]  # fmt: skip
bugs = pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)


@bugs
def test_calibration_finds(plant, monkeypatch):
    plant(monkeypatch)
    assert calibration(*ROWS[0], n_sets=N_SETS // 2).min() < 1e-4


@bugs
def test_geweke_finds(plant, monkeypatch):
    plant(monkeypatch)
    assert np.abs(geweke(*ROWS[0], n_draws=N_JOINT // 10, size=50_000)).max() > 5


# Components that overlap, where q(T) q(theta) is far from the posterior.
OVERLAPPING = MixtureRow("spherical"), 3, 1


def test_calibration_finds_mean_field():
    assert calibration(*OVERLAPPING, n_sets=N_SETS // 5, sampler=mean_field).min() < 1e-4


def mean_field_chain(model, data, rng):
    """Sweeps whose theta is drawn from q(theta)."""
    theta = model.sample(model.prior, rng)
    seeds = iter(range(2**62))
    while True:
        stats = data.sum(model.visit, theta, Assignment("draw", seed=next(seeds)))
        yield vbfast.methods.Sweep(model.prior, theta, stats)
        start = model.prior + stats
        fitted = MeanField(max_iter=10, tol=1e-3).fit(model, data.fixed, start)
        theta = model.sample(fitted.posterior, rng)


def test_geweke_finds_mean_field():
    draws = {"n_draws": N_JOINT // 20, "size": 50_000}
    z = geweke(*OVERLAPPING, n=12, next_theta=mean_field_chain, **draws)
    assert np.abs(z).max() > 5


def test_both_pass_with_as_few_draws():
    """What finds the bugs is not the small number of draws."""
    assert calibration(*ROWS[0], n_sets=N_SETS // 2).min() > 0.001
    assert calibration(*OVERLAPPING, n_sets=N_SETS // 5).min() > 0.001
    assert np.abs(geweke(*ROWS[0], n_draws=N_JOINT // 10, size=50_000)).max() < 4


# Counts and symbols ------------------------------------------------------------------------------

DISCRETE_ROWS = [
    (DiscreteRow("poisson"), 2, 2),
    (DiscreteRow("bernoulli", "dirichlet_process"), 3, 2),
    (DiscreteRow("categorical"), 2, 3),
]
discrete_rows = pytest.mark.parametrize("row", DISCRETE_ROWS, ids=lambda row: str(row[0]))


def discrete_quantities(weights, values):
    """What is ranked or averaged of theta, (S, ...): of rates (S, K, D), of tables the first p."""
    x = np.log(values if values.ndim == 3 else values[..., 0])
    return np.stack(
        [
            weights.max(axis=1), weights[:, 0], x.min(axis=1)[:, 0], x.mean(axis=(1, 2)),
            (weights[:, :, None] * x).sum(axis=(1, 2)), x[:, 0, 0], x[:, -1, -1],
            x[:, 0, 0] * x[:, -1, 0], x[:, 0, 0] ** 2,
        ],
        axis=1,
    )  # fmt: skip


def draw_discrete(row, weights, values, n, rng):
    """Draw components (S, N) and rows (S, N, D) given S parameters."""
    t = (rng.random((len(weights), n, 1)) > np.cumsum(weights, axis=1)[:, None, :-1]).sum(axis=2)
    return t, row.draw_rows(values[np.arange(len(weights))[:, None], t], rng)


def discrete_calibration(row, k, d, *, n_sets=400, n=12, sampler=gibbs, seed=0):
    """Return the p-values of uniform ranks, one a quantity."""
    rng = np.random.default_rng(seed)
    weights, values = row.draw_prior(n_sets, k, d, rng)
    t, X = draw_discrete(row, weights, values, n, rng)
    scores = np.array([row.scores(*one) for one in zip(X, weights, values, strict=True)])
    again = draw_components(scores, rng)
    ranked = discrete_quantities(weights, values)
    ranks = np.empty(ranked.shape, dtype=int)
    model = row.model(k, d)
    for number in range(n_sets):
        data = row.data(X[number])
        place = int(rng.integers(N_BINS))
        drawn = []
        for labels, n_draws in ((t[number], place), (again[number], N_BINS - 1 - place)):
            for draw in sampler(model, data, labels, n_draws, rng) if n_draws else ():
                drawn.append((draw.weights, row.values(draw)))
        found = discrete_quantities(*(np.array(part) for part in zip(*drawn, strict=True)))
        ranks[number] = (found < ranked[number]).sum(axis=0)
    return np.array([chisquare(np.bincount(r, minlength=N_BINS)).pvalue for r in ranks.T])


@discrete_rows
def test_simulation_based_calibration_of_discrete_rows(row):
    p_values = discrete_calibration(*row)
    assert np.all(p_values > 0.001), p_values


class DiscreteJointData(JointData):
    """As its base, for counts and symbols."""

    def __init__(self, row, model, n, rng):
        super().__init__(row, model, n, model.emission.units, rng)

    def sum(self, visit, theta, assignment):
        if self.t is None:
            marks = self.rng.random((self.n, 1))
            self.t = (marks > np.cumsum(theta.weights)[:-1]).sum(axis=1)
        elif self.order is not None:
            self.t = np.argsort(self.order)[self.t]
        self.X = self.row.draw_rows(self.row.values(theta)[self.t], self.rng)
        block = self.row.data(self.X).block
        q = np.empty((self.n, len(theta.weights)))
        self.model.latent.kernel(False).visit(block, theta, assignment, q=q)
        self.t = q.argmax(axis=1)
        return visit(block, theta, assignment)


def discrete_moments(weights, values, counts, X):
    share, x = counts[:, 0] / X.shape[1], np.tanh(X)
    more = [share, share**2, share * weights[:, 0], x.mean(axis=(1, 2)), x[:, 0, 0] * x[:, 1, 0]]
    return np.concatenate([discrete_quantities(weights, values), np.stack(more, axis=1)], axis=1)


def discrete_geweke(row, k, d, *, n_draws=10_000, n=6, seed=0, next_theta=None):
    """Return z of each moment."""
    rng = np.random.default_rng(seed)
    model = row.model(k, d)
    data = DiscreteJointData(row, model, n, rng)
    draw_order = vbfast.Mixture.draw_order

    def recorded(latent, posterior, generator):
        data.order = draw_order(latent, posterior, generator)
        return data.order

    parts = []
    with mock.patch.object(vbfast.Mixture, "draw_order", recorded):
        make = next_theta or (lambda *of: FullInference().chain(of[0], of[1], model.prior, of[2]))
        chain = make(model, data, rng)
        for _ in range(n_draws):
            sweep = next(chain)
            counts = sweep.stats["strength"].copy()
            parts.append((sweep.theta.weights, row.values(sweep.theta), counts, data.X))
    values = discrete_moments(*(np.array(part) for part in zip(*parts, strict=True)))
    weights, tables = row.draw_prior(100_000, k, d, rng)
    t, X = draw_discrete(row, weights, tables, n, rng)
    counts = (t[:, :, None] == np.arange(k)).sum(axis=1)
    return deviations(values, discrete_moments(weights, tables, counts, X))


def deviations(values, expected):
    """Return z of each moment's mean: of a chain, in batches, and of draws of the prior."""
    batches = values.reshape(50, -1, values.shape[1]).mean(axis=1)
    error = batches.std(axis=0, ddof=1) / np.sqrt(50)
    own = expected.std(axis=0) / np.sqrt(len(expected))
    return (values.mean(axis=0) - expected.mean(axis=0)) / np.hypot(error, own)


@discrete_rows
def test_geweke_of_discrete_rows(row):
    z = discrete_geweke(*row)
    assert np.all(np.abs(z) < 4), z


def shape_off_by_one(patch):
    """Draws of rates as if one more had been counted, of tables as if one more had been seen."""
    for family in (Gamma, Tables):
        sample = family.sample

        def changed(self, rng, sample=sample, family=family):
            more = self.excess + 1.0 * (self.excess > -1)
            return sample(family(more, self.rate) if family is Gamma else family(more), rng)

        patch.setattr(family, "sample", changed)


# Rows that are lost leave ranks uniform, those of theta given fewer rows: Geweke's test finds them.
@pytest.mark.parametrize("plant", [draws_from_hard, shape_off_by_one])
@discrete_rows
def test_discrete_calibration_finds(plant, row, monkeypatch):
    plant(monkeypatch)
    assert discrete_calibration(*row).min() < 0.001


@pytest.mark.parametrize("plant", [drop_chunk, shape_off_by_one])
@discrete_rows
def test_discrete_geweke_finds(plant, row, monkeypatch):
    plant(monkeypatch)
    assert np.abs(discrete_geweke(*row, n_draws=5_000)).max() > 4


@discrete_rows
def test_discrete_calibration_finds_mean_field(row):
    assert discrete_calibration(*row, sampler=mean_field).min() < 0.001


# Factorial hidden Markov models ------------------------------------------------------------------


class FactorialRow:
    """Two chains of two states, with proper priors; `kind` is the covariance's."""

    m, k, d = 2, 2, 2
    alpha, kappa, dof = 1.5, 0.4, 5.0
    mean, scatter = np.array([0.4, -0.2]), np.array([2.0, 1.0])

    def __init__(self, kind):
        self.kind = kind

    def __str__(self):
        return self.kind

    def model(self, frame):
        prior = {
            "mean_prior": self.mean,
            "mean_precision": self.kappa,
            "degrees_of_freedom": self.dof,
            "scatter": self.scatter,
        }
        return vbfast.Model(
            vbfast.CoupledChains(self.m, self.k, "structured", self.alpha, self.alpha),
            vbfast.AdditiveGaussian(self.d, self.m, self.k, self.kind, frame=frame, **prior),
        )

    def draw_prior(self, rng):
        """Start, transition, means, covariance, by NumPy and SciPy alone."""
        m, k, d = self.m, self.k, self.d
        start = rng.dirichlet(np.full(k, self.alpha), m)
        transition = rng.dirichlet(np.full(k, self.alpha), (m, k))
        if self.kind == "full":
            covariance = invwishart.rvs(self.dof, np.diag(self.scatter), random_state=rng)
        else:
            covariance = np.diag(self.scatter / 2 / rng.standard_gamma(self.dof / 2, d))
        z = rng.standard_normal((m, k, d)) @ np.linalg.cholesky(covariance).T
        return start, transition, self.mean / m + z / np.sqrt(self.kappa), covariance

    def draw_states(self, start, transition, n, rng):
        states = np.empty((n, self.m), dtype=int)
        for t in range(n):
            p = start if t == 0 else transition[np.arange(self.m), states[t - 1]]
            states[t] = rng.random(self.m) >= p[:, 0]
        return states

    def draw_rows(self, states, means, covariance, rng):
        z = rng.standard_normal((len(states), self.d)) @ np.linalg.cholesky(covariance).T
        return means[np.arange(self.m), states].sum(axis=1) + z

    def moments(self, start, transition, means, covariance, states, X):
        """Functions of theta, T and X, some of them of the sums alone, some of one chain."""
        log_variance = np.log(np.diagonal(covariance))
        bounded = np.tanh(means)
        steps = states[1:] == states[:-1]
        return np.array(
            [
                start[0, 0], start[1, 0], start[1, 0] ** 2, transition[0, 0, 0],
                transition[1, 1, 0], transition[0, 1, 1] ** 2, transition[0, 0, 0] * start[0, 0],
                bounded[0, 0, 0], bounded[1, 1, 1], bounded[0, 1, 0] ** 2,
                bounded[0, 0, 0] * bounded[1, 0, 0], np.tanh(means.mean(axis=1).sum()),
                log_variance[0], log_variance[1], log_variance[0] ** 2,
                covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]),
                log_variance[0] * bounded[0, 0, 0] ** 2,
                states[:, 0].mean(), states[:, 1].mean() ** 2, steps[:, 0].mean(),
                steps[:, 1].mean(), (states[:, 0] == states[:, 1]).mean(),
                states[0, 0] * start[0, 0], steps[:, 1].mean() * transition[1, 0, 0],
                np.tanh(X).mean(), (np.tanh(X) ** 2).mean(), np.tanh(X[-1, 0] * X[0, 0]),
            ]
        )  # fmt: skip


class FactorialJointData:
    """Rows drawn anew, X given T and theta, whenever a chain looks; T is what is remembered."""

    def __init__(self, row, model, n, frame, rng):
        self.row, self.model, self.n, self.frame, self.rng = row, model, n, frame, rng
        self.total_weight = float(n)
        self.memory = None

    def sum(self, visit, theta, assignment):
        row, rng = self.row, self.rng
        if self.memory is None:
            states = row.draw_states(theta.weights[:, 0], theta.weights[:, 1:], self.n, rng)
            self.memory = np.eye(row.k)[states].reshape(self.n, -1)
        states = self.memory.reshape(self.n, row.m, row.k).argmax(axis=2)
        regression = theta.parameters
        means, covariance = self.model.emission.in_data_units(regression.means, regression.factor)
        self.X = row.draw_rows(states, means, covariance, rng)
        block = Block(self.X, None, None, self.frame.origin, self.frame.scale, 0, 1)
        block.memory = self.memory
        out = visit(block, theta, assignment)
        states = self.memory.reshape(self.n, row.m, row.k).argmax(axis=2)
        theta = theta.weights[:, 0], theta.weights[:, 1:], means, covariance
        self.found = row.moments(*theta, states, self.X)
        return out


factorial_rows = pytest.mark.parametrize(
    "row", [FactorialRow("full"), FactorialRow("diag")], ids=str
)


@factorial_rows
def test_geweke_of_factorial_models(row):
    n, n_draws = 5, 20_000
    rng = np.random.default_rng(1)
    frame = Frame(np.array([0.3, 0.1]), np.array([0.7, 1.6]), np.ones(2))
    model = row.model(frame)
    data = FactorialJointData(row, model, n, frame, rng)
    start = model.prior + model.around(
        (np.zeros((4, 2)), np.eye(2)), (1, 5), np.full((2, 3, 2), 0.5)
    )
    chain = FullInference().chain(model, data, start, rng)
    values = []
    for _ in range(n_draws):
        next(chain)
        values.append(data.found)
    values = np.array(values)
    expected = []
    for _ in range(n_draws):
        theta = row.draw_prior(rng)
        states = row.draw_states(*theta[:2], n, rng)
        expected.append(row.moments(*theta, states, row.draw_rows(states, *theta[2:], rng)))
    expected = np.array(expected)
    batches = values.reshape(50, -1, values.shape[1]).mean(axis=1)
    error = np.hypot(batches.std(axis=0, ddof=1) / 50**0.5, expected.std(axis=0) / n_draws**0.5)
    z = (values.mean(axis=0) - expected.mean(axis=0)) / np.where(error > 0, error, 1)
    assert np.all(np.abs(z) < 4.3), z


@factorial_rows
def test_calibration_of_factorial_models(row):
    """Ranks of the truth among draws that are all but independent."""
    n, n_sets, n_bins = 6, 200, 10
    rng = np.random.default_rng(2)
    ranks = []
    for _ in range(n_sets):
        truth = row.draw_prior(rng)
        states = row.draw_states(*truth[:2], n, rng)
        X = row.draw_rows(states, *truth[2:], rng)
        data = vbfast.ArrayData.of(X, n_threads=1).with_memory(4)
        model = row.model(data.frame)
        data.memory[...] = np.eye(2)[rng.integers(2, size=(n, 2))].reshape(n, 4)
        start = model.prior + model.around(
            (np.zeros((4, 2)), np.eye(2)), (1, n), np.full((2, 3, 2), 0.5)
        )
        method = FullInference(n_draws=n_bins - 1, n_tune=40, n_chains=1, thin=20)
        theta = method.fit(model, data, [start], rng).theta
        found = []
        for g in range(n_bins - 1):
            means, covariance = model.emission.in_data_units(
                theta["means"][0, g], theta["factor"][0, g]
            )
            weights = theta["weights"][0, g]
            drawn = weights[:, 0], weights[:, 1:], means, covariance
            found.append(row.moments(*drawn, states, X)[:17])
        ranks.append((np.array(found) < row.moments(*truth, states, X)[:17]).sum(axis=0))
    ranks = np.array(ranks)
    if row.kind == "diag":
        ranks = np.delete(ranks, 15, axis=1)  # of a correlation that is 0
    p_values = [chisquare(np.bincount(r, minlength=n_bins)).pvalue for r in ranks.T]
    assert min(p_values) > 0.0005, p_values


# Hidden Markov models ----------------------------------------------------------------------------

CHAIN_ROWS = [(ChainRow("diag"), 2), (ChainRow("poisson"), 2)]
# Rows of each sequence: with more of them Geweke's chain is slow to change the states' order.
CHAIN_LENGTHS, JOINT_LENGTHS = (9, 1, 1, 6), (4, 1, 2)
chain_rows = pytest.mark.parametrize("row", CHAIN_ROWS, ids=lambda row: str(row[0]))


def chain_quantities(weights, *values):
    """What is ranked or averaged of theta, (S, ...): the first half in any order of the states."""
    x = np.log(values[0]) if len(values) == 1 else np.tanh(values[0] / 2)
    stays = np.diagonal(weights[:, 1:], axis1=1, axis2=2)
    more = [] if len(values) == 1 else [np.log(values[1][:, 0, 0])]
    return np.stack(
        [
            stays.sum(axis=1), stays.min(axis=1), weights[:, 0].max(axis=1),
            x.min(axis=1)[:, 0], x.sum(axis=(1, 2)), (stays * x[:, :, 0]).sum(axis=1),
            stays[:, 0], weights[:, 0, 0], weights[:, -1, 0], x[:, 0, 0], x[:, -1, 0],
            x[:, 0, 0] * x[:, -1, 0], *more,
        ],
        axis=1,
    )  # fmt: skip


def draw_paths(scores, weights, lengths, rng):
    """Draw T given scores (S, N, K): filter forward, draw backward (Chib 1996)."""
    scores = scores - scores.max(axis=2, keepdims=True)
    filtered, paths = np.exp(scores), np.empty(scores.shape[:2], dtype=int)
    of, end = np.arange(len(scores)), 0
    for length in lengths:
        first, end = end, end + length
        for n in range(first, end):
            before = filtered[:, n - 1, None] @ weights[:, 1:] if n > first else weights[:, :1]
            filtered[:, n] *= before[:, 0]
            filtered[:, n] /= filtered[:, n].sum(axis=1, keepdims=True)
        for n in reversed(range(first, end)):
            p = filtered[:, n]
            if n < end - 1:
                p = p * weights[of, 1:, paths[:, n + 1]]
            marks = rng.random(len(p)) * p.sum(axis=1)
            paths[:, n] = (marks[:, None] > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return paths


def path_log_joint(scores, weights, lengths, t):
    """log p(X, T | theta) of T (S, N)."""
    of = np.arange(len(t))[:, None]
    before = np.concatenate([np.zeros((len(t), 1), dtype=int), 1 + t[:, :-1]], axis=1)
    before[:, np.cumsum((0, *lengths[:-1]))] = 0
    value = np.take_along_axis(scores, t[:, :, None], axis=2)[:, :, 0]
    return (value + np.log(weights[of, before, t])).sum(axis=1)


def chain_calibration(row, k, lengths=CHAIN_LENGTHS, *, n_sets=400, sampler=gibbs, seed=0):
    """Return the p-values of uniform ranks, one a quantity; the last of log p(X, T, theta)."""
    rng = np.random.default_rng(seed)
    weights, *values = row.draw_prior(n_sets, k, 1, rng)
    t = row.draw_states(weights, lengths, rng)
    X = row.draw_rows(t, rng, *values)
    scores = np.array([row.scores(*one) for one in zip(X, *values, strict=True)])
    again = draw_paths(scores, weights, lengths, rng)
    fresh = draw_paths(scores, weights, lengths, rng)
    log_joint = path_log_joint(scores, weights, lengths, fresh)
    log_joint += [row.log_prior(*theta) for theta in zip(weights, *values, strict=True)]
    ranked = np.column_stack([chain_quantities(weights, *values), log_joint])
    ranks = np.empty(ranked.shape, dtype=int)
    for number in range(n_sets):
        data = row.data(X[number], lengths)
        model = row.model(k, data)
        place = int(rng.integers(N_BINS))
        drawn, joint = [], []
        for labels, n_draws in ((t[number], place), (again[number], N_BINS - 1 - place)):
            for draw in sampler(model, data, labels, n_draws, rng) if n_draws else ():
                drawn.append((draw.weights, *row.values(draw, data.frame)))
                assignment = Assignment("draw", seed=int(rng.integers(2**63)))
                joint.append(data.sum(model.visit, draw, assignment)["log_z"] + draw.log_prior)
        found = chain_quantities(*(np.array(part) for part in zip(*drawn, strict=True)))
        found = np.column_stack([found, joint])
        ranks[number] = (found < ranked[number]).sum(axis=0)
    return np.array([chisquare(np.bincount(r, minlength=N_BINS)).pvalue for r in ranks.T])


@chain_rows
def test_simulation_based_calibration_of_chains(row):
    p_values = chain_calibration(*row)
    assert np.all(p_values > 0.001), p_values


class ChainJointData:
    """Rows drawn anew, X given T and theta, whenever a chain looks at them."""

    def __init__(self, row, model, like, lengths, rng):
        self.row, self.model, self.like, self.lengths, self.rng = row, model, like, lengths, rng
        self.total_weight = float(sum(lengths))
        self.t = None

    @property
    def fixed(self):
        """The rows that were drawn last."""
        return replace(self.like, values=self.X)

    def sum(self, visit, theta, assignment):
        row, rng = self.row, self.rng
        if self.t is None:
            self.t = row.draw_states(theta.weights[None], self.lengths, rng)[0]
        values = row.values(theta, self.like.frame)
        each = [value[None] for value in values]
        self.X = row.draw_rows(self.t[None], rng, *each)[0]
        # With the T that theta was drawn given: of that drawn next, p(T | X, theta) makes theta's.
        self.found = theta.weights, *values, self.t, self.X
        block, self.t = self.fixed.block, np.empty_like(self.t)
        self.model.latent.kernel(False).visit(block, theta, assignment, labels=self.t)
        return visit(block, theta, assignment)


def chain_moments(lengths, weights, *rest):
    """Functions of theta, T (S, N) and X (S, N, 1)."""
    *values, t, X = rest
    first = np.cumsum((0, *lengths[:-1]))
    inner = np.setdiff1d(np.arange(t.shape[1]), first)
    moved = t[:, inner] != t[:, inner - 1]
    x = np.tanh(X[:, :, 0] / 5)
    starts_in, stay = (t[:, first] == 0).mean(axis=1), weights[:, 1, 0]
    beyond = (t[:, first[1:]] == t[:, first[1:] - 1]).mean(axis=1)
    more = [
        (t == 0).mean(axis=1), (t == 0).mean(axis=1) ** 2, starts_in, starts_in * weights[:, 0, 0],
        moved.mean(axis=1), moved.mean(axis=1) ** 2, moved.mean(axis=1) * stay,
        x.mean(axis=1), (x**2).mean(axis=1), x[:, 0] * x[:, 1], x[:, inner[-1]] * x[:, first[-1]],
        x[:, 0] * x[:, first[-1]], beyond, beyond * stay,
    ]  # fmt: skip
    return np.column_stack([chain_quantities(weights, *values), *more])


def chain_geweke(row, k, lengths=JOINT_LENGTHS, *, n_draws=10_000, seed=0, next_theta=None):
    """Return z of each moment."""
    rng = np.random.default_rng(seed)
    like = row.data(np.abs(np.arange(sum(lengths))[:, None] - 3.0), lengths)
    model = row.model(k, like)
    data = ChainJointData(row, model, like, lengths, rng)
    make = next_theta or (lambda *of: FullInference().chain(of[0], of[1], model.prior, of[2]))
    found = []
    for _ in zip(range(n_draws), make(model, data, rng), strict=False):
        found.append(data.found)
    weights, *values = row.draw_prior(100_000, k, 1, rng)
    t = row.draw_states(weights, lengths, rng)
    expected = weights, *values, t, row.draw_rows(t, rng, *values)
    drawn = (np.array(part) for part in zip(*found, strict=True))
    return deviations(chain_moments(lengths, *drawn), chain_moments(lengths, *expected))


@chain_rows
def test_geweke_of_chains(row):
    z = chain_geweke(*row, n_draws=20_000)
    assert np.all(np.abs(z) < 4.3), z


def _chain_kernel_changed(patch, change):
    _kernel_changed(patch, change, vbfast.Chain, _kernels.chain)


def transitions_ignored(patch):
    """Transitions are drawn from their prior."""
    collect = vbfast.Chain.collect

    def changed(self, raw, n_rows):
        fields, counts, rest = collect(self, raw, n_rows)
        fields["excess"][1:] = 0
        return fields, counts, rest

    patch.setattr(vbfast.Chain, "collect", changed)


def path_of_viterbi(patch):
    """The best path stands in for a draw."""

    def change(block, assignment, counted):
        kind = "hard" if assignment.kind == "draw" else assignment.kind
        return block, replace(assignment, kind=kind)

    _chain_kernel_changed(patch, change)


def sequences_run_together(patch):
    """The first row of a sequence follows the last one of the sequence before."""
    _chain_kernel_changed(
        patch, lambda block, assignment, counted: (replace(block, sequences=None), assignment)
    )


def states_independent(patch):
    """Each state is drawn from its filtered probabilities, whatever the next one is."""
    true = _kernels.chain

    class Kernel:
        statistics_size = staticmethod(true.statistics_size)

        @staticmethod
        def visit(block, theta, assignment, *, statistics=None, labels=None):
            if assignment.kind == "draw":
                q = np.empty((len(block.values), len(theta.offsets)))
                true.visit(block, theta, Assignment("filter"), q=q)
                marks = np.random.default_rng(assignment.seed + assignment.sweep)
                drawn = (marks.random((len(q), 1)) > q.cumsum(axis=1)[:, :-1]).sum(axis=1)
                if labels is not None:
                    labels[...] = drawn
                    return None
                block, assignment = replace(block, labels=drawn), Assignment("given")
            return true.visit(block, theta, assignment, statistics=statistics)

    patch.setattr(vbfast.Chain, "kernel", lambda self, single: Kernel)


CHAIN_BUGS = [transitions_ignored, path_of_viterbi, states_independent]


@pytest.mark.parametrize("plant", CHAIN_BUGS)
@chain_rows
def test_calibration_of_chains_finds(plant, row, monkeypatch):
    plant(monkeypatch)
    assert chain_calibration(*row, n_sets=300).min() < 1e-4


# Of few sequences it matters little to ranks where they begin.
@pytest.mark.parametrize("plant", [*CHAIN_BUGS, sequences_run_together])
@chain_rows
def test_geweke_of_chains_finds(plant, row, monkeypatch):
    plant(monkeypatch)
    assert np.abs(chain_geweke(*row, n_draws=5_000)).max() > 5


@chain_rows
def test_both_pass_for_chains_with_as_few_draws(row):
    assert chain_calibration(*row, n_sets=300).min() > 0.001
    assert np.abs(chain_geweke(*row, n_draws=5_000)).max() < 5


@chain_rows
def test_calibration_of_chains_finds_mean_field(row):
    assert chain_calibration(*row, n_sets=300, sampler=mean_field).min() < 1e-4


@chain_rows
def test_geweke_of_chains_finds_mean_field(row):
    # More states for as many rows: q(T) q(theta) is further from the posterior.
    z = chain_geweke(row[0], 3, n_draws=2_500, next_theta=mean_field_chain)
    assert np.abs(z).max() > 5
