"""Right answers: by enumeration, brute force, and other people's converged fits."""

import dataclasses
import itertools
import warnings

import numpy as np
import pytest
import reference as ref
from conftest import DISCRETE
from scipy.special import betaln, gammaln, logsumexp, multigammaln
from sklearn.datasets import load_iris

import vbfast
from vbfast import (
    BayesianGaussianMixture,
    FullInference,
    GaussianMixture,
    draws,
    evidence,
    portfolio,
    starts,
)

METHODS = ("mean_field", "em", "crisp_em")
WEIGHTS = {
    "weight_concentration_prior_type": "dirichlet_distribution",
    "weight_concentration_prior": 1.0,
}
COMMON = {"covariance_type": "diag", "reg_covar": 0, **WEIGHTS}


def normal_inverse_gamma(m, kappa, a, b):
    """(mu, sigma^2) ~ NIG(m, kappa, a, b), as the estimators' parameters."""
    return {
        "mean_prior": [m],
        "mean_precision_prior": kappa,
        "degrees_of_freedom_prior": 2 * a,
        "covariance_prior": [2 * b],
    }


# Sixteen values, all 2^16 assignments summed -----------------------------------------------------

SIXTEEN = COMMON | normal_inverse_gamma(0.0, 0.1, 2.0, 1.0)
GRID = np.linspace(-6, 9, 31)


@pytest.fixture(scope="module")
def exact():
    return ref.enumerate_mixture(ref.SIXTEEN, 2, 1.0, 0.0, 0.1, 2.0, 1.0, GRID)


def climb(method, seed=0, **options):
    options = {"tol": 0, "max_iter": 20_000, "n_init": 30, "init_params": "random"} | options
    return BayesianGaussianMixture(2, method=method, random_state=seed, **SIXTEEN | options).fit(
        ref.SIXTEEN[:, None]
    )


def test_enumeration(exact):
    assert exact["log_evidence"] == pytest.approx(-38.2730947181, abs=1e-10)


def test_mean_field_of_sixteen(exact):
    fitted = climb("mean_field")
    assert fitted.objective_ == pytest.approx(-40.7847164164, abs=1e-9)
    assert fitted.objective_ < exact["log_evidence"]
    # Stick-breaking weights, flat: Beta(1, 1) on one stick is Dirichlet(1, 1).
    sticks = climb("mean_field", weight_concentration_prior_type="dirichlet_process")
    assert sticks.objective_ == pytest.approx(-40.7847164164, abs=1e-9)


def test_em_of_sixteen():
    fitted = climb("em")
    assert fitted.objective_ == pytest.approx(-39.26898442, abs=1e-8)
    # The likelihood at theta_MP is no bound of the evidence: above it here.
    assert fitted.score(ref.SIXTEEN[:, None]) * 16 == pytest.approx(-32.51, abs=0.005)
    assert climb("variational_em").objective_ == pytest.approx(-39.26898442, abs=1e-8)


def test_crisp_em_of_sixteen_by_enumeration(exact):
    """The best log p(X, T, theta), theta by its mode for each of the 2^16 assignments."""
    fitted = climb("crisp_em", n_init=200)
    y, t = ref.SIXTEEN, exact["assignments"]
    value = np.zeros(len(t))
    for k in range(2):
        member = (t == k).astype(float)
        n, total = member.sum(1), member @ y
        kappa = 0.1 + n
        m = total / kappa
        s = 2.0 + member @ y**2 - kappa * m**2
        nu = 4.0 + n
        power = (nu - 1) / 2  # of lambda, at its joint mode with mu
        lam = 2 * power / s
        value += power * np.log(lam) - power - (n + 1) / 2 * ref.LOG_2PI + np.log(0.1) / 2
        value += n * np.log(np.maximum(n, 1) / 16)  # Dirichlet(1, 1): counts alone
    assert fitted.objective_ == pytest.approx(value.max(), abs=1e-9)


@pytest.mark.slow
def test_full_inference_of_sixteen(exact):
    y = ref.SIXTEEN[:, None]
    method = FullInference(n_draws=8000, n_tune=300, n_chains=4)
    fitted = BayesianGaussianMixture(2, method=method, random_state=0, **SIXTEEN).fit(y)
    assert 0.005 < fitted.log_evidence_se_ < 0.05
    gap = fitted.log_evidence_ - exact["log_evidence"]
    assert abs(gap) < 4 * fitted.log_evidence_se_
    assert np.abs(fitted.co_assignment(y) - exact["co_assignment"]).max() <= 0.02
    density = fitted.score_samples(GRID[:, None])
    np.testing.assert_allclose(density, exact["predictive"], atol=0.05)
    middle = np.abs(GRID - 1) < 4
    np.testing.assert_allclose(density[middle], exact["predictive"][middle], atol=0.015)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
def test_evidence_error_is_honest(exact):
    """Errors of independent runs have the size that the standard error tells."""
    y = ref.SIXTEEN[:, None]
    method = FullInference(n_draws=250, n_tune=50, n_chains=4)
    gaps = []
    for seed in range(30):
        fitted = BayesianGaussianMixture(
            2, method=method, random_state=seed, init_params="random", **SIXTEEN
        ).fit(y)
        gaps.append((fitted.log_evidence_ - exact["log_evidence"]) / fitted.log_evidence_se_)
    assert abs(np.mean(gaps)) < 1.0
    assert 0.5 < np.std(gaps) < 1.8
    assert np.mean(np.abs(gaps) <= 3) >= 0.95


# Galaxies ----------------------------------------------------------------------------------------

GALAXIES = COMMON | {
    "mean_prior": [20.0],
    "mean_variance_prior": 100.0,
    "degrees_of_freedom_prior": 6.0,
    "covariance_prior": [40.0],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_components", "bound"), [(2, -234.5049), (3, -229.4107), (4, -232.7545)]
)
@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_mean_field_of_galaxies(n_components, bound, covariance_type):
    X = ref.load("galaxies_corrected")
    prior = GALAXIES | {"covariance_type": covariance_type}
    if covariance_type == "spherical":
        prior["covariance_prior"] = 40.0
    options = {"n_init": 20, "init_params": "random", "tol": 1e-12, "max_iter": 20_000}
    fitted = BayesianGaussianMixture(n_components, random_state=0, **prior, **options).fit(X)
    assert fitted.objective_ == pytest.approx(bound, abs=5e-5)


@pytest.mark.slow
def test_evidence_of_galaxies():
    X = ref.load("galaxies_corrected")
    method = FullInference(n_draws=6000, n_tune=500, n_chains=4)
    fitted = BayesianGaussianMixture(3, method=method, random_state=0, **GALAXIES).fit(X)
    assert fitted.log_evidence_ == pytest.approx(-226.788, abs=0.05)
    assert fitted.log_evidence_se_ < 0.025
    assert abs(fitted.log_evidence_ + 226.788) < 4 * np.hypot(fitted.log_evidence_se_, 0.003)


# Maximum likelihood ------------------------------------------------------------------------------


def maximum_likelihood(X, n_components, covariance_type, labels):
    data = vbfast.ArrayData.of(X, isotropic=covariance_type == "spherical")
    emission = vbfast.Gaussian(X.shape[1], covariance_type, frame=data.frame)
    model = vbfast.Model(vbfast.Mixture(n_components), emission)
    start = starts.from_labels(model, data, labels)
    return vbfast.EM(max_iter=100_000, tol=1e-14).fit(model, data, start)


@pytest.mark.parametrize(
    "row", ref.mclust(), ids=lambda r: f"{r['data']}-{r['covariance_type']}-{r['K']}"
)
def test_mclust(row):
    X, k, kind = ref.load(row["data"]), row["K"], row["covariance_type"]
    assert X.shape == (row["n"], row["d"])
    fitted = maximum_likelihood(X, k, kind, ref.labels(row["data"])[:, k - 1])
    assert fitted.converged
    assert fitted.objective == pytest.approx(row["log_likelihood"], abs=1e-7)
    # BIC by the estimator, started there; mclust's has the other sign.
    theta, frame = fitted.theta.parameters, vbfast.ArrayData.of(
        X, isotropic=kind == "spherical"
    ).frame  # fmt: skip
    factor = theta.factor
    if kind in ("full", "tied"):
        factor = factor * frame.scale
        precisions = np.swapaxes(factor, 1, 2) @ factor
        precisions = precisions[0] if kind == "tied" else precisions
    else:
        precisions = (factor * frame.scale[: factor.shape[1]]) ** 2
        precisions = precisions[:, 0] if kind == "spherical" else precisions
    mixture = GaussianMixture(
        k,
        covariance_type=kind,
        reg_covar=0,
        tol=1e-9,
        weights_init=fitted.theta.weights,
        means_init=frame.origin + theta.means / frame.scale,
        precisions_init=precisions,
    ).fit(X)
    assert mixture.bic(X) == pytest.approx(-row["bic"], abs=1e-6)
    assert mixture.score(X) * len(X) == pytest.approx(row["log_likelihood"], abs=1e-6)


@pytest.mark.parametrize("n_components", [5, 6])
def test_mclust_degenerate(n_components):
    """No figure here: a component shrinks onto equal values, and is reported."""
    labels = ref.labels("acidity")[:, n_components - 1]
    with pytest.raises(vbfast.DegenerateError, match="component"):
        maximum_likelihood(ref.load("acidity"), n_components, "full", labels)


@pytest.mark.parametrize(
    ("n_components", "covariance_type", "expected"),
    [(2, "full", -214.355), (3, "full", -180.1855), (3, "tied", -256.354)],
)
def test_iris(n_components, covariance_type, expected):
    X = load_iris().data
    options = {"covariance_type": covariance_type, "reg_covar": 0, "tol": 1e-12}
    fitted = GaussianMixture(
        n_components, max_iter=10_000, n_init=5, random_state=0, **options
    ).fit(X)
    assert fitted.objective_ == pytest.approx(expected, abs=5e-4)
    assert fitted.lower_bound_ * 150 == pytest.approx(fitted.objective_)


# What accuracy means, by quantity ----------------------------------------------------------------


def pair_score(together, truth):
    """Mean log probability of what is true of each pair."""
    p = np.clip(together, 1e-6, 1 - 1e-6)
    return np.log(np.where(truth, p, 1 - p)).mean()


@pytest.mark.slow
def test_what_accuracy_means():
    """400 sets from the prior NIG(0, .05, 3, 2): means of two scores.

    Standard errors of such a study are given with the figures; both this one and the printed one
    have them.
    """
    n, n_held_out, n_sets = 12, 10, 400
    rng = np.random.default_rng(0)
    prior = COMMON | normal_inverse_gamma(0.0, 0.05, 3.0, 2.0)
    options = {"tol": 1e-6, "max_iter": 2000, "n_init": 6, "init_params": "random"}
    i, j = np.triu_indices(n, 1)
    pairs = {name: [] for name in ("exact", *METHODS)}
    held_out = {name: [] for name in ("exact", *METHODS)}
    for number in range(n_sets):
        weights = rng.dirichlet([1, 1])
        precision = rng.gamma(3, 1 / 2, 2)
        mu = rng.standard_normal(2) / np.sqrt(0.05 * precision)
        t = rng.choice(2, n + n_held_out, p=weights)
        x = mu[t] + rng.standard_normal(len(t)) / np.sqrt(precision[t])
        y, new = x[:n, None], x[n:, None]
        truth = t[i] == t[j]
        exact = ref.enumerate_mixture(y, 2, 1.0, 0.0, 0.05, 3.0, 2.0, new[:, 0])
        pairs["exact"].append(pair_score(exact["co_assignment"][i, j], truth))
        held_out["exact"].append(exact["predictive"].mean())
        for method in METHODS:
            fitted = BayesianGaussianMixture(
                2, method=method, random_state=number, **prior, **options
            ).fit(y)
            together = fitted.co_assignment(y)
            if method == "crisp_em":
                labels = fitted.predict(y)
                together = labels[:, None] == labels
            pairs[method].append(pair_score(together[i, j].astype(float), truth))
            held_out[method].append(fitted.score_samples(new).mean())
    means = {name: np.mean(values) for name, values in pairs.items()}
    figures = {
        "exact": (-0.306, 0.016), "mean_field": (-1.041, 0.092),
        "em": (-0.918, 0.081), "crisp_em": (-1.984, 0.131),
    }  # fmt: skip
    for name, (figure, error) in figures.items():
        assert abs(means[name] - figure) < 4 * error, (name, means)
    assert means["exact"] > means["em"] > means["mean_field"] > means["crisp_em"]
    below = {name: np.subtract(held_out[name], held_out["exact"]).mean() for name in METHODS}
    figures = {
        "mean_field": (-0.0028, 0.0056), "em": (-0.2281, 0.098), "crisp_em": (-0.2171, 0.175),
    }  # fmt: skip
    for name, (figure, error) in figures.items():
        assert abs(below[name] - figure) < 4 * error, (name, below)
    # Mean field's error bars on theta are nearly enough for prediction; a point's are not.
    assert below["mean_field"] > max(below["em"], below["crisp_em"])
    assert max(below["em"], below["crisp_em"]) < 0


def log_marginal(x, mean, kappa, nu, s):
    """log p(x) of one component: a normal with a normal-gamma prior, parameters integrated out."""
    n = len(x)
    if n == 0:
        return 0.0
    spread = ((x - x.mean()) ** 2).sum() + kappa * n / (kappa + n) * (x.mean() - mean) ** 2
    return (
        -0.5 * n * np.log(np.pi)
        + 0.5 * np.log(kappa / (kappa + n))
        + gammaln((nu + n) / 2)
        - gammaln(nu / 2)
        + 0.5 * nu * np.log(s)
        - 0.5 * (nu + n) * np.log(s + spread)
    )


@pytest.mark.slow
@pytest.mark.parametrize("n_chains", [1, 4])
@pytest.mark.parametrize("k", [2, 3])
def test_evidence_under_a_dirichlet_process_by_enumeration(k, n_chains):
    # Orders of the components differ in probability: one that a chain keeps to is not enough.
    rng = np.random.default_rng(k)
    x = np.concatenate([rng.normal(-2, 1, 3), rng.normal(2, 1, 5)])
    gamma, prior = 0.7, (0.0, 0.1, 3.0, 1.0)
    total = []
    for labels in itertools.product(range(k), repeat=len(x)):
        counts = np.bincount(labels, minlength=k)
        beyond = np.cumsum(counts[::-1])[::-1][1:]
        parts = [log_marginal(x[np.array(labels) == j], *prior) for j in range(k)]
        sticks = betaln(1 + counts[:-1], gamma + beyond) - betaln(1, gamma)
        total.append(sticks.sum() + sum(parts))
    mixture = vbfast.BayesianGaussianMixture(
        k,
        method=vbfast.FullInference(n_draws=6000 // n_chains, n_chains=n_chains),
        weight_concentration_prior=gamma,
        mean_prior=[prior[0]],
        mean_precision_prior=prior[1],
        degrees_of_freedom_prior=prior[2],
        covariance_prior=[[prior[3]]],
        reg_covar=0.0,
        random_state=0,
    ).fit(x[:, None])
    assert mixture.log_evidence_se_ < 0.1
    within = 4 * mixture.log_evidence_se_ + 1e-9
    assert mixture.log_evidence_ == pytest.approx(logsumexp(total), abs=within)


# Counts and symbols ------------------------------------------------------------------------------

# By data set: emission, rows, and log-likelihoods for K = 1, 2, ... (None: no figure).
DISCRETE_FIGURES = {
    "earthquakes": ("poisson", [-391.9189, -360.3690, -356.8489, -356.7337]),
    "carcinoma": ("categorical", [None, -317.2568, -293.7050, -289.2858]),
    "values": ("categorical", [-543.6498, -504.4677, -503.3011]),
    "election": ("categorical", [-18647.31, -17344.92, -16714.66]),
}


@pytest.mark.parametrize(
    ("name", "k", "figure"),
    [
        (name, k, figure)
        for name, (_, figures) in DISCRETE_FIGURES.items()
        for k, figure in enumerate(figures, 1)
        if figure is not None
    ],
)
def test_maximum_likelihood_of_counts_and_symbols(name, k, figure):
    X = ref.load(name)
    X = X[~np.isnan(X).any(axis=1)]
    X = X[:, -1:] if name == "earthquakes" else X - X.min(axis=0)
    assert len(X) == {"earthquakes": 107, "carcinoma": 118, "values": 216, "election": 1311}[name]
    mixture = vbfast.MixtureModel(
        k, emission=DISCRETE_FIGURES[name][0], tol=1e-10, max_iter=5000, random_state=0,
        n_init=5 if name == "election" else 20,
    ).fit(X)  # fmt: skip
    digits = 0.006 if name == "election" else 6e-5
    assert mixture.objective_ == pytest.approx(figure, abs=digits)
    assert mixture.score(X) * len(X) == pytest.approx(mixture.objective_, abs=1e-6)
    if X.max() == 1:
        zeros_and_ones = vbfast.MixtureModel(
            k, emission="bernoulli", tol=1e-10, max_iter=5000, random_state=0, n_init=20
        ).fit(X)
        assert zeros_and_ones.objective_ == pytest.approx(figure, abs=digits)


DISCRETE_ROWS = [row for row in DISCRETE if row.proper and row.weights != "dirichlet_process"]


def discrete_priors(row, d):
    """The row's priors, as the estimator's parameters."""
    given = {"emission": row.emission, "weight_concentration_prior": row.alpha}
    if row.of_rates:
        shape, rate = row.hyperparameters(d)
        return given | {"shape_prior": shape, "rate_prior": rate}
    table = row.concentrations(d)
    if row.emission == "bernoulli":
        return given | {"concentration_prior": table[0]}
    return given | {
        "concentration_prior": np.maximum(table, 0.1), "n_categories": row.categories(d)
    }  # fmt: skip


def few_discrete_rows(row, k, seed):
    """Nine rows of a model that the prior draws, their evidence, and the estimator's priors."""
    rng = np.random.default_rng(seed)
    X = row.draw_rows(row.draw_prior(1, k, 3, rng)[1][0][rng.integers(k, size=9)], rng)
    return X, ref.enumerate_discrete(X, k, row.alpha, row), discrete_priors(row, 3)


@pytest.mark.parametrize("row", DISCRETE_ROWS, ids=str)
def test_evidence_of_counts_and_symbols_by_enumeration(row):
    k, (X, exact, priors) = 2, few_discrete_rows(row, 2, seed=1)
    full = vbfast.MixtureModel(
        k, method=FullInference(n_draws=4000, n_tune=200, n_chains=2), random_state=0, **priors
    ).fit(X)
    assert 0 < full.log_evidence_se_ < 0.05
    assert abs(full.log_evidence_ - exact) < 4 * full.log_evidence_se_
    options = {"n_init": 10, "init_params": "random", "tol": 1e-10, "max_iter": 5000}
    bound = vbfast.MixtureModel(k, method="mean_field", random_state=0, **options, **priors).fit(X)
    assert exact - 5 < bound.objective_ < exact
    one = vbfast.MixtureModel(1, method="mean_field", **priors).fit(X)
    assert one.objective_ == pytest.approx(ref.enumerate_discrete(X, 1, row.alpha, row))
    # The predictive probability of a row is the ratio of two evidences.
    for x in X[:3]:
        both = ref.enumerate_discrete(np.vstack([X, x]), 1, row.alpha, row)
        assert one.score_samples(x[None])[0] == pytest.approx(both - one.objective_)
        ratio = ref.enumerate_discrete(np.vstack([X, x]), k, row.alpha, row) - exact
        assert full.score_samples(x[None])[0] == pytest.approx(ratio, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("row", DISCRETE_ROWS, ids=str)
def test_evidence_error_of_counts_and_symbols_is_honest(row):
    k, (X, exact, priors) = 2, few_discrete_rows(row, 2, seed=2)
    method = FullInference(n_draws=1000, n_tune=100, n_chains=4)
    gaps = []
    for seed in range(20):
        fitted = vbfast.MixtureModel(k, method=method, random_state=seed, **priors).fit(X)
        gaps.append((fitted.log_evidence_ - exact) / fitted.log_evidence_se_)
    assert np.mean(np.abs(gaps) <= 3) >= 0.95
    assert 0.5 < np.std(gaps) < 1.8


# Hidden Markov models ----------------------------------------------------------------------------

# Rates of the states that a fit of the earthquakes starts from; each state stays with `stay`.
EARTHQUAKES = {2: [15, 25], 3: [10, 20, 30], 4: [10, 13, 20, 30]}


def earthquakes_chain(k, rates=None, stay=0.9, **options):
    moves = np.full((k, k), (1 - stay) / (k - 1))
    np.fill_diagonal(moves, stay)
    rates = EARTHQUAKES[k] if rates is None else rates
    options = {"transmat_init": moves, "tol": 1e-12, "max_iter": 5000} | options
    chain = vbfast.HiddenMarkovModel(
        k, emission="poisson", means_init=np.reshape(rates, (k, 1)).astype(float), **options
    )
    return chain.fit(ref.load("earthquakes")[:, -1:])


@pytest.mark.parametrize(
    ("initial", "k", "figure"),
    [
        ("free", 2, -341.8787), ("free", 3, -328.5275), ("free", 4, -326.2850),
        ("stationary", 2, -342.3183), ("stationary", 3, -329.4603), ("stationary", 4, -327.8316),
    ],
)  # fmt: skip
def test_maximum_likelihood_of_chains(initial, k, figure):
    chain = earthquakes_chain(k, initial=initial)
    assert chain.converged_
    assert chain.objective_ >= figure - 1e-4
    X = ref.load("earthquakes")[:, -1:]
    scores = ref.count_scores(X, np.zeros(k), chain.rates_)
    log_z = ref.forward_backward(scores, chain.startprob_, chain.transmat_)[0]
    assert chain.objective_ == pytest.approx(log_z.sum(), abs=1e-8)
    # Starts of the estimator's own find the same, but for one of several optima with K = 4.
    if k < 4:
        own = vbfast.HiddenMarkovModel(
            k, emission="poisson", initial=initial, n_init=5, random_state=0, tol=1e-10,
            max_iter=5000,
        ).fit(X)  # fmt: skip
        assert own.objective_ == pytest.approx(figure, abs=6e-5)
        assert chain.objective_ == pytest.approx(figure, abs=6e-5)


# By method and states: where to start, objective, log-likelihood at the theta where it ends.
LADDER = [
    ("em", 2, None, 0.9, -341.8787, -341.8787),
    ("variational_em", 2, None, 0.9, -343.8363, -341.9153),
    ("crisp_em", 2, [15, 26], 0.9, -346.2966, -342.0536),
    ("em", 3, None, 0.9, -328.5275, -328.5275),
    ("variational_em", 3, [13, 20, 29], 0.8, -330.8919, -328.6337),
    ("crisp_em", 3, [10, 20, 25], 0.8, -334.1513, -329.2615),
    ("crisp_em", 3, [8, 20, 29], 0.9, -334.0500, -329.4021),
]


@pytest.mark.parametrize(("method", "k", "rates", "stay", "objective", "log_likelihood"), LADDER)
def test_ladder_of_chains(method, k, rates, stay, objective, log_likelihood):
    X = ref.load("earthquakes")[:, -1:]
    chain = earthquakes_chain(k, rates, stay, method=method)
    assert chain.objective_ == pytest.approx(objective, abs=1e-3)
    assert chain.score(X) == pytest.approx(log_likelihood, abs=1e-3)
    # Where it ends it stays.
    options = {"transmat_init": chain.transmat_, "startprob_init": chain.startprob_}
    again = earthquakes_chain(k, chain.rates_, method=method, **options)
    np.testing.assert_allclose(again.lower_bounds_ * len(X), chain.objective_, atol=1e-7)
    np.testing.assert_allclose(again.transmat_, chain.transmat_, atol=1e-4)
    # From starts of its own it comes as far at least.
    own = vbfast.HiddenMarkovModel(
        k, emission="poisson", method=method, n_init=10, random_state=0, tol=1e-10, max_iter=5000
    ).fit(X)
    assert own.objective_ >= objective - 1e-3
    scores = ref.count_scores(X, np.zeros(k), chain.rates_)
    given = scores, chain.startprob_, chain.transmat_
    assert ref.forward_backward(*given)[0].sum() == pytest.approx(chain.score(X), abs=1e-8)
    if method == "crisp_em":
        # A plain proof that it is a fixed point: the best path says the same theta again.
        path, value = ref.viterbi(*given)
        assert value == pytest.approx(chain.objective_, abs=1e-8)
        counts = ref.count_path(path, k)
        np.testing.assert_allclose(
            counts / counts.sum(axis=1, keepdims=True), chain.transmat_, atol=1e-12
        )
        means = [X[path == state].mean() for state in range(k)]
        np.testing.assert_allclose(means, chain.rates_[:, 0], rtol=1e-12)


# Evidence, or a warning --------------------------------------------------------------------------

# Three patterns, 20 rows each. By summing over how many rows of each pattern a component has.
PATTERNS = np.repeat([[0] * 8, [1, 1] + [0] * 6, [0, 0, 1, 1, 1, 0, 0, 0]], 20, axis=0)
PATTERNS_EVIDENCE = -291.0824893


def evidence_or_warning(mixture, *args):
    """log p(X), its error, and what a warning says against it."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        mixture.fit(*args)
    said = [str(each.message) for each in record if "log_evidence_" in str(each.message)]
    assert np.isnan(mixture.log_evidence_) == np.isnan(mixture.log_evidence_se_) == (len(said) == 1)
    assert all(issubclass(each.category, vbfast.ConvergenceWarning) for each in record)
    return mixture.log_evidence_, mixture.log_evidence_se_, "".join(said)


@pytest.mark.parametrize("seed", range(2))
def test_evidence_of_exact_clusters(seed):
    options = {"emission": "categorical", "n_categories": 6, "method": "full", "random_state": seed}
    value, error, _ = evidence_or_warning(vbfast.MixtureModel(3, **options), PATTERNS)
    assert abs(value - PATTERNS_EVIDENCE) < 4 * error
    assert error < 0.01
    # From k-means alone every chain stays where two of the patterns are one.
    value, _, why = evidence_or_warning(
        vbfast.MixtureModel(3, init_params="kmeans", **options), PATTERNS
    )
    assert np.isnan(value)
    assert "bound of mean field" in why


@pytest.mark.parametrize("seed", range(2))
def test_evidence_of_a_table_with_overlapping_classes(seed):
    cells = np.indices((3, 2, 2, 3)).reshape(4, -1).T
    counts = [419, 35, 2, 71, 25, 5, 270, 25, 4, 42, 16, 5, 23, 4, 1, 6, 2, 0,
              43, 9, 2, 9, 3, 2, 26, 3, 0, 1, 2, 0, 85, 23, 6, 13, 12, 8]  # fmt: skip
    mixture = vbfast.MixtureModel(3, emission="categorical", method="full", random_state=seed)
    value, error, why = evidence_or_warning(mixture, cells, None, counts)
    # Twelve runs of other seeds have -2802.7 +- 0.1 for their mean.
    assert why or abs(value + 2802.7) < 4 * error + 0.1


@pytest.mark.parametrize("n_draws", [5, 2000])
def test_evidence_where_features_have_different_symbols(n_draws):
    """What one feature lacks of another's symbols has no probability, and is no pole."""
    X = np.array([[0, 3], [1, 0], [1, 2], [0, 3], [1, 1], [1, 3]])
    method = FullInference(n_draws=n_draws, n_tune=20, n_chains=2)
    mixture = vbfast.MixtureModel(
        2, emission="categorical", n_categories=[2, 5], method=method, random_state=0,
        weight_concentration_prior_type="dirichlet_distribution", weight_concentration_prior=1.0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)  # of five draws
        mixture.fit(X)

    class Row:
        @staticmethod
        def log_marginal(x, feature, n_features):
            seen = np.bincount(x, minlength=(2, 5)[feature])
            return gammaln(1 + seen).sum() + gammaln(len(seen)) - gammaln(len(seen) + len(x))

    exact = ref.enumerate_discrete(X, 2, 1.0, Row)
    assert abs(mixture.log_evidence_ - exact) < 4 * mixture.log_evidence_se_
    # Another way to say nothing: a draw at a pole.
    assert np.isnan(draws.log_permanents(np.full((1, 2, 2), np.inf)))
    assert draws.log_permanents(np.full((1, 2, 2), -np.inf)) == -np.inf
    for k in (2, 13):
        pole = np.array([-np.inf]), np.full((1, k, k), np.inf)
        assert np.isnan(draws.log_densities(*pole))
    assert np.isnan(evidence.bridge(np.zeros((1, 9)), np.array([0.0, np.inf]))).all()


def test_evidence_at_poles_is_not_known():
    """A prior of next to no rows has poles where a component is empty, and draws lie there."""
    rng = np.random.default_rng(0)
    X, weights = rng.normal(size=(9, 2)), 1e6 * rng.integers(1, 4, 9)
    mixture = vbfast.GaussianMixture(
        7, covariance_type="diag", method=FullInference(n_draws=5, n_tune=2, n_chains=2, thin=1),
        weight_concentration_prior=1e-100, weight_concentration_prior_type="dirichlet_process",
        mean_precision_prior=1.0, reg_covar=1.0, random_state=0,
    )  # fmt: skip
    with pytest.warns(vbfast.ConvergenceWarning):
        mixture.fit(X, sample_weight=weights)
    assert np.isnan(mixture.log_evidence_)


@pytest.mark.parametrize("n", [1, 2, 6, 49])
def test_what_is_impossible_stays_so_in_an_average_of_posteriors(n):
    """An excess of -1, of a symbol that a feature lacks: 6 times 1 / 6 is less than 1."""
    X = np.array([[0.0, 3], [1, 0], [1, 2], [0, 3], [1, 1], [1, 3]])
    model = vbfast.Model(vbfast.Mixture(2, concentration=1.0), vbfast.Categorical(2, [2, 5], 1.0))
    data = model.emission.check(vbfast.ArrayData.of(X, standardise=False))
    start = starts.from_labels(model, data, np.arange(6) % 2)
    drawn = FullInference(5, 5, 1).fit(model, data, [start], np.random.default_rng(0))
    lacks = model.prior["tally"] == -1
    assert lacks.any()
    drawn = dataclasses.replace(drawn, seen=[drawn.seen[i % len(drawn.seen)] for i in range(n)])
    whole = evidence._proposal(model, drawn)[0]["tally"]
    assert (whole[lacks] == -1).all()
    np.testing.assert_allclose(
        whole.sum(), np.mean([each["tally"].sum() for each in drawn.seen]), rtol=1e-12
    )


def test_evidence_that_cannot_be(monkeypatch):
    """Each bound, and the second estimate, speaks up where it is contradicted."""
    X = np.random.default_rng(0).normal(0, 1, (30, 1))
    mixture = BayesianGaussianMixture(1, method=FullInference(300, 50, 2), random_state=0)
    value, _, why = evidence_or_warning(mixture, X)
    assert np.isfinite(value)
    assert not why
    true = draws.evidence
    for shift, other, said in (
        (500.0, 500.0, "above log p"),
        (-5.0, -5.0, "below the bound"),
        (0.0, 1.0, "bridge sampling"),
    ):
        with monkeypatch.context() as patch:
            bridged = evidence._bridged

            def moved(*args, shift=shift):
                found, error = true(*args)
                return found + shift, error

            def moved_too(*args, bridged=bridged, other=other):
                found, error, high = bridged(*args)
                return found + other, error, high

            patch.setattr(evidence, "evidence", moved)
            patch.setattr(evidence, "_bridged", moved_too)
            value, _, why = evidence_or_warning(mixture, X)
        assert np.isnan(value)
        assert said in why


@pytest.mark.parametrize("wide", [0.5, 1.0, 2.0])
def test_bridge_sampling_of_a_known_normaliser(wide):
    """f = e^3 N(0, 1), q = N(0, wide^2): errors have the size that is told."""
    rng = np.random.default_rng(7)
    scores = []
    for _ in range(100):
        one, two = rng.standard_normal((4, 100)), wide * rng.standard_normal(400)
        ratio = [3 - x**2 / 2 + (x / wide) ** 2 / 2 + np.log(wide) for x in (one, two)]
        value, error = evidence.bridge(*ratio)
        assert error < 0.2
        scores.append((value - 3) / (error + 1e-12))
    if wide == 1.0:
        assert np.abs(scores).max() * 1e-12 < 1e-9
        return
    assert abs(np.mean(scores)) < 0.4
    assert 0.7 < np.std(scores) < 1.4


# Whether chains have mixed -----------------------------------------------------------------------


def test_r_hat_of_chains_that_differ():
    rng = np.random.default_rng(3)
    same = rng.standard_normal((4, 500))
    assert draws.r_hat(same) < 1.01
    # In place; in spread alone; where no variance exists; by ranks, whatever the scale.
    assert draws.r_hat(same + np.array([[0.0], [0.0], [0.0], [2.0]])) > 1.2
    assert draws.r_hat(same * np.array([[1.0], [1.0], [1.0], [5.0]])) > 1.1
    cauchy = np.tan(np.pi * (rng.random((4, 500)) - 0.5))
    assert draws.r_hat(cauchy) < 1.02
    assert draws.r_hat(cauchy + np.array([[0.0], [0.0], [0.0], [5.0]])) > 1.1
    assert draws.r_hat(same) == pytest.approx(draws.r_hat(same**3), abs=0.01)
    assert draws.r_hat(np.ones((4, 500))) == 1.0
    assert draws.r_hat(np.repeat(np.arange(4.0)[:, None], 500, axis=1)) > 1e6
    assert np.isnan(draws.r_hat(same[:, :3]))


def test_mixing_names_the_worst_quantity():
    rng = np.random.default_rng(4)
    good, slow = rng.standard_normal((2, 4, 400))
    slow = np.cumsum(slow, axis=1)
    worst, name, size = draws.mixing({"good": good, "slow": slow})
    assert name == "slow"
    assert worst == draws.r_hat(slow) > 1.2
    assert size < 40
    assert draws.mixing({"good": good})[2] > 1000


def test_chains_start_from_several_kinds_but_none_that_is_hopeless():
    model_of = {"emission": "categorical", "n_categories": 6, "method": "mean_field"}
    best = vbfast.MixtureModel(3, random_state=0, **model_of).fit(PATTERNS).objective_
    data = vbfast.ArrayData.of(PATTERNS.astype(float), standardise=False)
    model = vbfast.Model(
        vbfast.Mixture(3, concentration=1 / 3),
        vbfast.Categorical(8, n_categories=6, concentration=1.0),
    )
    found = portfolio.varied(model, data, 4, np.random.default_rng(0), lambda posterior: posterior)
    heights = [vbfast.MeanField().fit(model, data, each).objective for each in found]
    assert min(heights) > best - 12
    assert portfolio.bound(model, data, found) == pytest.approx(best, abs=0.01)
    # Clusters that lie across each other: kinds lead to different places.
    X = np.random.default_rng(1).normal(0, 1, (150, 2))
    data = vbfast.ArrayData.of(X)
    emission = vbfast.Gaussian(
        2, mean_prior=[0, 0], mean_precision=0.1, degrees_of_freedom=4.0, scatter=np.eye(2),
        frame=data.frame,
    )  # fmt: skip
    model = vbfast.Model(vbfast.Mixture(3, concentration=1.0), emission)
    found = portfolio.varied(model, data, 4, np.random.default_rng(0), lambda posterior: posterior)
    held = np.array([np.sort(each["strength"]) for each in found])
    assert len(np.unique(held.round(1), axis=0)) >= 3


def normal_wishart_evidence(x, m, kappa, nu, S):
    """log p(x) of one Gaussian, its parameters integrated out (Murphy 2007, 266)."""
    n, d = x.shape
    if n == 0:
        return 0.0
    away = x.mean(axis=0) - m
    scatter = S + (x - x.mean(axis=0)).T @ (x - x.mean(axis=0))
    scatter = scatter + kappa * n / (kappa + n) * np.outer(away, away)
    value = -n * d / 2 * np.log(np.pi) + d / 2 * np.log(kappa / (kappa + n))
    value += multigammaln((nu + n) / 2, d) - multigammaln(nu / 2, d)
    value += nu / 2 * np.linalg.slogdet(S)[1] - (nu + n) / 2 * np.linalg.slogdet(scatter)[1]
    return value


@pytest.mark.parametrize("seed", range(4))
def test_chains_that_sit_in_one_labelling_know_nothing_of_their_error(seed):
    """Nearly all of the posterior is where all rows are together; no chain gets there."""
    X = np.array([[15.31, 1.27], [15.87, 7.28], [-2.83, 4.5], [12.7, 22.34], [-7.28, 8.4],
                  [14.08, 7.8]])  # fmt: skip
    m, kappa, nu, alpha, S = np.array([8.0, 8.6]), 0.032, 4.75, 5.8, 0.001 * np.eye(2)
    total = []
    for labels in itertools.product(range(2), repeat=6):
        t = np.array(labels)
        counts = np.bincount(t, minlength=2)
        value = gammaln(2 * alpha) - gammaln(2 * alpha + 6)
        value += (gammaln(alpha + counts) - gammaln(alpha)).sum()
        value += sum(normal_wishart_evidence(X[t == k], m, kappa, nu, S) for k in range(2))
        total.append(value)
    exact = logsumexp(total)
    mixture = GaussianMixture(
        2, method="full", reg_covar=0, random_state=seed, weight_concentration_prior=alpha,
        mean_precision_prior=kappa, mean_prior=m, degrees_of_freedom_prior=nu, covariance_prior=S,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        mixture.fit(X)
    if np.isnan(mixture.log_evidence_):
        assert any("log_evidence_ is NaN" in str(each.message) for each in record)
    else:
        assert abs(mixture.log_evidence_ - exact) < 4 * mixture.log_evidence_se_ + 1e-6
