"""What tests share: the hypothesis profiles, and the table of models that they run over."""

import os
from dataclasses import dataclass, replace

# Arrays are small: threads would wait for each other longer than they compute.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import pytest
import reference as ref
from hypothesis import HealthCheck, settings
from scipy import stats
from scipy.special import gammaln

import vbfast
from vbfast import _kernels
from vbfast.data import as_sequences

settings.register_profile(
    "vbfast", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("vbfast-ci", settings.get_profile("vbfast"), derandomize=True)
# For kernels that take many times as long.
settings.register_profile("vbfast-few", settings.get_profile("vbfast"), max_examples=2)
settings.load_profile(
    os.environ.get("VBFAST_PROFILE") or ("vbfast-ci" if os.environ.get("CI") else "vbfast")
)


def examples(n):
    """Settings of a test that tries n examples, or as few as the profile says."""
    few = settings.get_current_profile_name() == "vbfast-few"
    return settings() if few else settings(max_examples=n)


def pytest_addoption(parser):
    parser.addoption(
        "--levels",
        choices=("loaded", "all"),
        default="loaded",
        help="SIMD levels to test kernels at: the one loaded (see VBFAST_SIMD), or all",
    )


def pytest_configure(config):
    if config.getoption("levels") == "loaded":
        _kernels.available_levels = lambda: [_kernels.level]


@pytest.fixture(autouse=True)
def repeatable(request, monkeypatch):
    """Seed what is told no seed by the test's name: a fit that fails a test fails it again."""
    seeds = np.random.SeedSequence(list(request.node.nodeid.encode()))
    default_rng = np.random.default_rng
    monkeypatch.setattr(
        np.random,
        "default_rng",
        lambda seed=None: default_rng(seeds.spawn(1)[0] if seed is None else seed),
    )


COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
RATES = {"poisson": vbfast.Poisson, "exponential": vbfast.Exponential}


@dataclass(frozen=True)
class MixtureRow:
    """A Gaussian mixture: covariance type, prior on the weights, kind of prior on the rest.

    "flat" has no prior at all (maximum likelihood), "partial" one on the covariances only,
    "conjugate" the full one, "independent" one on means that is independent of the precisions.
    """

    covariance_type: str
    weights: str = "dirichlet_distribution"
    prior: str = "conjugate"

    alpha = 1.6
    kappa = 0.4

    def __str__(self):
        return "-".join([self.covariance_type, self.weights.partition("_")[2], self.prior])

    @property
    def proper(self):
        return self.prior in ("conjugate", "independent")

    def hyperparameters(self, d):
        """Prior mean, its variance (independent), degrees of freedom and scatter."""
        matrix = 0.5 * np.eye(d) + 0.1
        scatter = {
            "full": matrix,
            "tied": matrix,
            "diag": np.linspace(0.4, 0.9, d),
            "spherical": 0.7,
        }
        return (
            np.linspace(-0.5, 0.4, d),
            np.linspace(3.0, 5.0, d),
            d + 1.5,
            scatter[self.covariance_type],
        )

    def model(self, n_components, n_features, frame=None, reg_covar=0.0):
        mean, variance, dof, scatter = self.hyperparameters(n_features)
        given = {"reg_covar": reg_covar, "frame": frame}
        if self.prior != "flat":
            given |= {"degrees_of_freedom": dof, "scatter": scatter}
        if self.prior == "conjugate":
            given |= {"mean_prior": mean, "mean_precision": self.kappa}
        if self.prior == "independent":
            given |= {"mean_prior": mean, "mean_variance": variance}
        return vbfast.Model(
            vbfast.Mixture(n_components, self.weights, self.alpha if self.proper else None),
            vbfast.Gaussian(n_features, self.covariance_type, **given),
        )

    def data(self, X, sample_weight=None, n_threads=1):
        isotropic = self.covariance_type == "spherical"
        return vbfast.ArrayData.of(X, sample_weight, isotropic=isotropic, n_threads=n_threads)

    def reference(self, d):
        """The prior as reference.py has it: None where flat, no such thing where independent."""
        if self.prior == "flat":
            return None
        assert self.prior == "conjugate"
        mean, _, dof, scatter = self.hyperparameters(d)
        rows = d if self.covariance_type == "spherical" else 1
        sticks = self.weights == "dirichlet_process"
        return ref.Prior(self.alpha, mean, self.kappa, rows * dof, rows * scatter, sticks)

    def log_prior(self, weights, means, covariances):
        """Plain log p(theta), a density in (pi or v, mu, Lambda)."""
        k, d = means.shape
        if self.prior != "independent":
            prior = self.reference(d)
            return ref.log_prior(weights, means, covariances, self.covariance_type, prior)
        mean, variance, dof, scatter = self.hyperparameters(d)
        if self.weights == "dirichlet_process":
            a, b = np.ones(k - 1), np.full(k - 1, self.alpha)
            value = ref.beta_log_density(ref.weights_to_sticks(weights), a, b).sum()
        else:
            value = ref.dirichlet_log_density(weights, np.full(k, self.alpha))
        rows = d if self.covariance_type == "spherical" else 1
        value += stats.norm.logpdf(means, mean, np.sqrt(variance)).sum()
        gamma = stats.gamma(rows * dof / 2, scale=2 / (rows * scatter))
        return value + gamma.logpdf(1 / covariances).sum()

    def draw_prior(self, size, k, d, rng):
        """`size` draws of weights, means and covariances, by NumPy and SciPy alone."""
        mean, variance, dof, scatter = self.hyperparameters(d)
        if self.weights == "dirichlet_process":
            v = rng.beta(1, self.alpha, (size, k - 1))
            weights = np.array([ref.sticks_to_weights(one) for one in v])
        else:
            weights = rng.dirichlet(np.full(k, self.alpha), size)
        z = rng.standard_normal((size, k, d))
        if self.covariance_type in ("full", "tied"):
            groups = k if self.covariance_type == "full" else 1
            covariances = stats.invwishart.rvs(dof, scatter, size * groups, rng)
            covariances = covariances.reshape(size, groups, d, d)
            deviations = (np.linalg.cholesky(covariances) @ z[..., None])[..., 0]
            covariances = covariances if groups == k else covariances[:, 0]
        elif self.covariance_type == "diag":
            covariances = scatter / 2 / rng.standard_gamma(dof / 2, (size, k, d))
            deviations = np.sqrt(covariances) * z
        else:
            covariances = d * scatter / 2 / rng.standard_gamma(d * dof / 2, (size, k))
            deviations = np.sqrt(covariances)[..., None] * z
        if self.prior == "independent":
            return weights, mean + np.sqrt(variance) * z, covariances
        return weights, mean + deviations / np.sqrt(self.kappa), covariances

    def draw_rows(self, means, covariances, t, rng):
        """Rows (S, N, D) of components t (S, N), given S parameters."""
        size, k, d = means.shape
        full = np.array([
            ref.full_covariances(covariance, self.covariance_type, k, d)
            for covariance in covariances
        ])  # fmt: skip
        root = np.linalg.cholesky(full)
        of = np.arange(size)[:, None]
        z = rng.standard_normal((*t.shape, d, 1))
        return means[of, t] + (root[of, t] @ z)[..., 0]


MIXTURES = [
    MixtureRow(covariance_type, weights, prior)
    for covariance_type in COVARIANCE_TYPES
    for weights in ("dirichlet_distribution", "dirichlet_process")
    for prior in ("flat", "partial", "conjugate", "independent")
    if not (prior == "independent" and covariance_type in ("full", "tied"))
]


@dataclass(frozen=True)
class DiscreteRow:
    """A mixture of counts or symbols, as `MixtureRow` is of Gaussians: flat or conjugate."""

    emission: str
    weights: str = "dirichlet_distribution"
    prior: str = "conjugate"

    alpha = 1.6

    def __str__(self):
        return "-".join([self.emission, self.weights.partition("_")[2], self.prior])

    @property
    def proper(self):
        return self.prior == "conjugate"

    @property
    def of_rates(self):
        """Whether a component has a rate of each feature, not a table."""
        return self.emission in RATES

    def categories(self, d):
        """Symbols of each feature: not all have as many."""
        return 2 + np.arange(d) % (1 if self.emission == "bernoulli" else 3)

    def hyperparameters(self, d):
        """Shape and rate of rates' gamma prior, each (D,)."""
        if self.prior == "flat":
            return np.ones(d), np.zeros(d)
        return np.linspace(1.5, 2.5, d), np.linspace(0.4, 0.7, d)

    def concentrations(self, d):
        """Of tables' Dirichlet prior, (D, C)."""
        n = self.categories(d)
        each = np.ones((d, n.max()))
        if self.prior != "flat":
            each = 1.2 + 0.3 * np.arange(n.max()) + np.zeros((d, 1))
        return np.where(np.arange(n.max()) < n[:, None], each, 0.0)

    def of(self, d):
        """The emission."""
        flat = self.prior == "flat"
        if self.of_rates:
            return RATES[self.emission](d, *([] if flat else self.hyperparameters(d)))
        table = self.concentrations(d)
        if self.emission == "bernoulli":
            return vbfast.Bernoulli(d, *([] if flat else [table[:, 1], table[:, 0]]))
        given = {} if flat else {"concentration": np.maximum(table, 0.1)}
        return vbfast.Categorical(d, self.categories(d).tolist(), **given)

    def model(self, n_components, n_features):
        latent = vbfast.Mixture(n_components, self.weights, self.alpha if self.proper else None)
        return vbfast.Model(latent, self.of(n_features))

    def data(self, X, sample_weight=None, n_threads=1):
        data = vbfast.ArrayData.of(X, sample_weight, standardise=False, n_threads=n_threads)
        return self.of(data.values.shape[1]).check(data)

    def scores(self, X, weights, values):
        with np.errstate(divide="ignore"):
            if self.emission == "poisson":
                return ref.count_scores(X, np.log(weights), values)
            if self.emission == "exponential":
                return ref.wait_scores(X, np.log(weights), values)
            return ref.symbol_scores(X, np.log(weights), np.log(values))

    def log_prior(self, weights, values):
        """Plain log p(theta), a density in (pi or v, rates or tables)."""
        k, d = values.shape[:2]
        if self.weights == "dirichlet_process":
            a, b = np.ones(k - 1), np.full(k - 1, self.alpha)
            value = ref.beta_log_density(ref.weights_to_sticks(weights), a, b).sum()
        else:
            value = ref.dirichlet_log_density(weights, np.full(k, self.alpha))
        if self.of_rates:
            shape, rate = self.hyperparameters(d)
            return value + stats.gamma.logpdf(values, shape, scale=1 / rate).sum()
        for table in values:
            for p, each in zip(table, self.concentrations(d), strict=True):
                value += ref.dirichlet_log_density(p[each > 0], each[each > 0])
        return value

    def log_marginal(self, x, j, d):
        """log p(x) of one component's feature j, its parameter integrated out."""
        if self.emission == "poisson":
            a, b = (each[j] for each in self.hyperparameters(d))
            value = a * np.log(b) - (a + x.sum()) * np.log(b + len(x))
            return value + gammaln(a + x.sum()) - gammaln(a) - gammaln(x + 1).sum()
        if self.emission == "exponential":
            a, b = (each[j] for each in self.hyperparameters(d))
            value = a * np.log(b) - (a + len(x)) * np.log(b + x.sum())
            return value + gammaln(a + len(x)) - gammaln(a)
        each = self.concentrations(d)[j]
        seen = np.bincount(x.astype(int), minlength=len(each))[each > 0]
        each = each[each > 0]
        value = gammaln(each.sum()) - gammaln(each.sum() + len(x))
        return value + (gammaln(each + seen) - gammaln(each)).sum()

    def draw_prior(self, size, k, d, rng):
        """`size` draws of weights (K,) and rates (K, D) or tables (K, D, C)."""
        if self.weights == "dirichlet_process":
            v = rng.beta(1, self.alpha, (size, k - 1))
            weights = np.array([ref.sticks_to_weights(one) for one in v])
        else:
            weights = rng.dirichlet(np.full(k, self.alpha), size)
        if self.of_rates:
            shape, rate = self.hyperparameters(d)
            return weights, rng.gamma(shape, 1 / rate, (size, k, d))
        each = self.concentrations(d)
        values = np.zeros((size, k, *each.shape))
        for j, alpha in enumerate(each):
            values[:, :, j, alpha > 0] = rng.dirichlet(alpha[alpha > 0], (size, k))
        return weights, values

    def draw_rows(self, values, rng):
        """Rows (..., D), each of parameters of its own, (..., D) or (..., D, C)."""
        if self.emission == "poisson":
            return rng.poisson(values).astype(float)
        if self.emission == "exponential":
            return rng.exponential(1 / values)
        marks = rng.random(values.shape[:-1])
        return (marks[..., None] > np.cumsum(values, axis=-1)[..., :-1]).sum(axis=-1).astype(float)

    def values(self, theta):
        """Rates or tables of a theta that is a point."""
        (values,) = theta.parameters.arrays.values()
        return values


DISCRETE = [
    DiscreteRow(emission, weights, prior)
    for emission in ("poisson", "exponential", "bernoulli", "categorical")
    for weights in ("dirichlet_distribution", "dirichlet_process")
    for prior in ("flat", "conjugate")
]


def raw_parameters(row, theta, frame):
    """Weights, means, covariances of a theta that is a point, in the units of the data."""
    gaussians = theta.parameters
    factor = gaussians.factor
    means = frame.origin + gaussians.means / frame.scale
    if row.covariance_type in ("full", "tied"):
        root = np.linalg.inv(factor * frame.scale)
        covariances = root @ np.swapaxes(root, 1, 2)
        covariances = covariances[0] if row.covariance_type == "tied" else covariances
    elif row.covariance_type == "diag":
        covariances = (factor * frame.scale) ** -2.0
    else:
        covariances = (factor[:, 0] * frame.scale[0]) ** -2.0
    return theta.weights, means, covariances


@dataclass(frozen=True)
class ChainRow:
    """A hidden Markov model whose states look like the components of a row above.

    The first state's distribution has the prior of that row's weights.
    """

    emission: str
    prior: str = "conjugate"

    def __str__(self):
        return f"{self.emission}-{self.prior}"

    @property
    def proper(self):
        return self.prior == "conjugate"

    @property
    def part(self):
        """The mixture of the same emission."""
        kind = MixtureRow if self.emission in COVARIANCE_TYPES else DiscreteRow
        return kind(self.emission, prior=self.prior)

    def concentrations(self, k):
        """Of the Dirichlet priors, (K + 1, K): the first state's, and transitions' from each."""
        if not self.proper:
            return np.ones((k + 1, k))
        rows = 1.2 + 0.8 * np.eye(k) + 0.1 * np.arange(k)
        return np.concatenate([np.full((1, k), self.part.alpha), rows])

    def model(self, n_components, data):
        given = {"frame": data.frame} if self.emission in COVARIANCE_TYPES else {}
        emission = self.part.model(n_components, data.values.shape[1], **given).emission
        concentrations = self.concentrations(n_components)
        priors = (concentrations[0], concentrations[1:]) if self.proper else ()
        return vbfast.Model(vbfast.Chain(n_components, *priors), emission)

    def data(self, X, lengths=None, n_threads=1):
        data = self.part.data(X, n_threads=n_threads)
        return replace(data, sequences=as_sequences(lengths, len(X)))

    def values(self, theta, frame):
        """Means and covariances, rates, or tables of a theta that is a point."""
        if self.emission in COVARIANCE_TYPES:
            return raw_parameters(self.part, theta, frame)[1:]
        return (self.part.values(theta),)

    def scores(self, X, *values):
        """log p(x_n | k), (N, K)."""
        ones = np.ones(len(values[0]))
        if self.emission in COVARIANCE_TYPES:
            return ref.gaussian_scores(X, ones, *values, self.emission)
        return self.part.scores(X, ones, *values)

    def log_prior(self, weights, *values):
        """Plain log p(theta); 0 where flat."""
        if not self.proper:
            return 0.0
        value = self.part.log_prior(weights[0], *values)
        rows = zip(weights[1:], self.concentrations(len(weights) - 1)[1:], strict=True)
        return value + sum(ref.dirichlet_log_density(*row) for row in rows)

    def draw_prior(self, size, k, d, rng):
        """`size` draws of first state's and transitions' probabilities, and of the rest."""
        start, *values = replace(self.part, prior="conjugate").draw_prior(size, k, d, rng)
        each = replace(self, prior="conjugate").concentrations(k)[1:]
        rows = [rng.dirichlet(concentration, size) for concentration in each]
        return np.stack([start, *rows], axis=1), *values

    def draw_states(self, weights, lengths, rng):
        """Draw paths (S, N) given S probabilities (S, K + 1, K)."""
        cumulative, of = np.cumsum(weights, axis=2)[..., :-1], np.arange(len(weights))
        states = []
        for length in lengths:
            row = np.zeros(len(weights), dtype=int)
            for _ in range(length):
                marks = rng.random((len(weights), 1))
                states.append((marks > cumulative[of, row]).sum(axis=1))
                row = 1 + states[-1]
        return np.stack(states, axis=1)

    def draw_rows(self, states, rng, *values):
        """Rows (S, N, D) of states (S, N), given S parameters."""
        if self.emission in COVARIANCE_TYPES:
            return self.part.draw_rows(*values, states, rng)
        return self.part.draw_rows(values[0][np.arange(len(states))[:, None], states], rng)

    def draw_data(self, k, d, lengths, rng):
        """Draw rows (N, D) of a theta drawn, and their states (N,)."""
        weights, *values = self.draw_prior(1, k, d, rng)
        states = self.draw_states(weights, lengths, rng)
        return self.draw_rows(states, rng, *values)[0], states[0]


CHAINS = [
    ChainRow(emission, prior)
    for emission in (*COVARIANCE_TYPES, *RATES, "bernoulli", "categorical")
    for prior in ("flat", "conjugate")
]
