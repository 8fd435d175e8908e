"""Slow, plain references for the tests: every formula once more, straight from the book.

Nothing here imports the package.  "Bishop" is Bishop, *Pattern Recognition and Machine Learning*
(2006).  N rows, D features, K components; q is the (N, K) array of responsibilities.

A precision is called Lambda, its Wishart scale W, and S = inv(W) throughout.  Where the covariance
is no full matrix the Wishart turns into gammas, lambda ~ Gamma(nu/2, rate S/2):

==========  ==============  =====================================  ==================
type        precisions      means that share one                   posterior nu
==========  ==============  =====================================  ==================
full        K, (D, D)       1 vector                               nu0 + n_k
tied        1, (D, D)       K vectors                              nu0 + N
diag        K x D scalars   1 scalar                               nu0 + n_k
spherical   K scalars       D scalars                              nu0 + D n_k
==========  ==============  =====================================  ==================
"""

import csv
import itertools
import operator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.linalg import solve_triangular
from scipy.special import betaln, digamma, gammaln, logsumexp, multigammaln, xlogy

DATA = Path(__file__).parent / "data"
LOG_2PI = np.log(2 * np.pi)

SIXTEEN = np.array(
    [-2.1, -1.6, -1.1, -0.9, -0.4, -0.2, 0.1, 0.3, 0.8, 1.0, 1.3, 1.9, 2.4, 3.0, 4.2, 4.9]
)


# Data -------------------------------------------------------------------------------------------


def load(name):
    """Return a data set of tests/data as a float array; a missing answer is NaN."""
    return np.genfromtxt(DATA / f"{name}.csv", delimiter=",", skip_header=1, ndmin=2)


def labels(name):
    """Return a data set's starting labels, integers (N, 6): column K - 1 is for K components."""
    return np.loadtxt(DATA / f"{name}_initial_labels.csv", delimiter=",", skiprows=1, dtype=int)


def mclust():
    """Return the rows of mclust_reference.csv as dicts, numbers as numbers."""
    with open(DATA / "mclust_reference.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {"n": int, "d": int, "K": int, "log_likelihood": float, "bic": float}
    return [{key: kinds.get(key, str)(value) for key, value in row.items()} for row in rows]


def one_hot(components, n_components):
    """Return labels (N,) as responsibilities (N, K)."""
    return np.eye(n_components)[components]


# What visits the data: scores, assignment, statistics -------------------------------------------


def full_covariances(covariances, covariance_type, n_components, n_features):
    """Return covariances of any of scikit-learn's shapes as (K, D, D)."""
    shape = (n_components, n_features, n_features)
    if covariance_type in ("full", "tied"):
        return np.broadcast_to(covariances, shape)
    variances = np.reshape(covariances, (n_components, -1))  # diag (K, D), spherical (K, 1)
    return np.eye(n_features) * variances[:, :, None]


def gaussian_scores(X, weights, means, covariances, covariance_type):
    """Return log pi_k + log N(x_n | mu_k, Sigma_k), shape (N, K).  Bishop 2.43, 9.7."""
    n_components, n_features = means.shape
    scores = np.empty((len(X), n_components))
    with np.errstate(divide="ignore"):  # an empty component's log weight is -inf
        log_weights = np.log(weights)
    full = full_covariances(covariances, covariance_type, n_components, n_features)
    for k in range(n_components):
        chol = np.linalg.cholesky(full[k])
        z = solve_triangular(chol, (X - means[k]).T, lower=True)
        log_det = 2 * np.log(np.diag(chol)).sum()
        scores[:, k] = log_weights[k] - (n_features * LOG_2PI + log_det + (z**2).sum(0)) / 2
    return scores


def assign(scores, kind, truncation=None):
    """Return log_z (N,) and q (N, K) from scores.

    "exact": q = softmax, log_z = log-sum-exp (Bishop 9.13, 10.49).  "hard": all on the first
    maximum, log_z = the maximum.  "best": softmax over the `truncation` largest (ties: the first).
    A row whose scores are all -inf has log_z = -inf, and its q treats them as equal.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    n_kept = {"exact": scores.shape[1], "hard": 1, "best": truncation}[kind]
    log_z, q = np.empty(len(scores)), np.zeros(scores.shape)
    for n, row in enumerate(scores):
        kept = order[n, :n_kept]
        largest = row[kept[0]]
        gap = np.zeros(len(kept)) if largest == -np.inf else row[kept] - largest
        log_z[n] = largest + np.log(np.exp(gap).sum()) if largest > -np.inf else -np.inf
        q[n, kept] = np.exp(gap) / np.exp(gap).sum()
    return log_z, q


def moments(X, q, covariance_type, sample_weight=None):
    """Return n (K,), means (K, D) and the scatter about them.

    Bishop 10.51-10.53 (his S_k is scatter / n).  Scatter: full (K, D, D); tied (D, D), summed over
    components; diag (K, D); spherical (K,), summed over features.  A component without data has
    mean 0.
    """
    q = q if sample_weight is None else q * np.asarray(sample_weight)[:, None]
    n = q.sum(0)
    means = (q.T @ X) / np.where(n > 0, n, 1)[:, None]
    centred = [X - mean for mean in means]
    full = np.array([(c * q[:, [k]]).T @ c for k, c in enumerate(centred)])
    return n, means, narrow(full, covariance_type)


def narrow(full, covariance_type):
    """Return matrices (K, D, D) as what a covariance type keeps of them."""
    if covariance_type == "full":
        return full
    if covariance_type == "tied":
        return full.sum(0)
    diagonal = np.diagonal(full, axis1=1, axis2=2)
    return diagonal if covariance_type == "diag" else diagonal.sum(1)


# Conjugate pieces --------------------------------------------------------------------------------


def dirichlet_log_density(weights, alpha):
    """Return log Dir(pi | alpha).  Bishop B.16, B.23."""
    return gammaln(alpha.sum()) - gammaln(alpha).sum() + xlogy(alpha - 1, weights).sum()


def dirichlet_mean(alpha):
    """Return E[pi].  Bishop B.17."""
    return alpha / alpha.sum()


def dirichlet_mean_log(alpha):
    """Return E[log pi].  Bishop B.21."""
    return digamma(alpha) - digamma(alpha.sum())


def dirichlet_mode(alpha):
    """Return the mode, Bishop B.20; where alpha < 1 draws a weight to the boundary it is 0."""
    raised = np.maximum(alpha - 1, 0)
    return raised / raised.sum()


def dirichlet_kl(alpha, alpha0):
    """Return KL(Dir(alpha) || Dir(alpha0)) = E[log q - log p], by B.16 and B.21."""
    log_norm = gammaln(alpha.sum()) - gammaln(alpha).sum()
    log_norm0 = gammaln(alpha0.sum()) - gammaln(alpha0).sum()
    return log_norm - log_norm0 + ((alpha - alpha0) * dirichlet_mean_log(alpha)).sum()


def beta_log_density(v, a, b):
    """Return log Beta(v | a, b).  Bishop B.6."""
    return xlogy(a - 1, v) + xlogy(b - 1, 1 - v) - betaln(a, b)


def beta_mean(a, b):
    """Return E[v].  Bishop B.7."""
    return a / (a + b)


def beta_mode(a, b):
    """Return the mode, Bishop B.9: at a boundary where a < 1 or b < 1, 1/2 where flat."""
    up, down = np.maximum(a - 1, 0), np.maximum(b - 1, 0)
    return np.where(up + down > 0, up / np.where(up + down > 0, up + down, 1), 0.5)


def beta_kl(a, b, a0, b0):
    """Return KL(Beta(a, b) || Beta(a0, b0)), elementwise; a Beta is a Dirichlet of two."""
    mean_log = (a - a0) * digamma(a) + (b - b0) * digamma(b) - (a + b - a0 - b0) * digamma(a + b)
    return betaln(a0, b0) - betaln(a, b) + mean_log


def log_det(matrix):
    """Return the log determinant of a positive definite matrix."""
    return 2 * np.log(np.diag(np.linalg.cholesky(matrix))).sum()


def wishart_log_norm(nu, S):
    """Return log B(W, nu), Bishop B.79, with W = inv(S)."""
    d = len(S)
    return nu / 2 * log_det(S) - nu * d / 2 * np.log(2) - multigammaln(nu / 2, d)


def wishart_mean_log_det(nu, S):
    """Return E[log |Lambda|].  Bishop B.81."""
    d = len(S)
    return digamma((nu - np.arange(d)) / 2).sum() + d * np.log(2) - log_det(S)


def normal_wishart_log_density(mu, precision, m, kappa, nu, S):
    """Return log of prod_j N(mu_j | m_j, inv(kappa_j Lambda)) W(Lambda | inv(S), nu).

    Bishop 2.157, B.78; mu, m (J, D) and kappa (J,): J means share the precision, J = 1 in the book.
    """
    d = len(S)
    value = wishart_log_norm(nu, S)
    value += (nu - d - 1) / 2 * log_det(precision) - np.trace(S @ precision) / 2
    for mu_j, m_j, kappa_j in zip(mu, m, kappa, strict=True):
        square = kappa_j * (mu_j - m_j) @ precision @ (mu_j - m_j)
        value += (d * np.log(kappa_j) - d * LOG_2PI + log_det(precision) - square) / 2
    return value


def normal_wishart_mean(m, kappa, nu, S):
    """Return E[mu] and E[Lambda] = nu W.  Bishop B.80."""
    return m, nu * np.linalg.inv(S)


def normal_wishart_mode(m, kappa, nu, S):
    """Return mu and the covariance inv(Lambda) at the joint mode in (mu_1..mu_J, Lambda).

    Lambda = (nu - D - 1 + J) W: the exponent of |Lambda| is (nu - D - 1)/2 (B.78) and 1/2 more for
    each mean (2.157).
    """
    return m, S / (nu - len(S) - 1 + len(m))


def normal_wishart_kl(m, kappa, nu, S, m0, kappa0, nu0, S0):
    """Return KL(q || p) of two Normal-Wisharts with J means: E[log q - log p].

    Bishop 10.77 minus 10.74, by B.78-B.81.
    """
    d = len(S)
    mean_precision = nu * np.linalg.inv(S)
    value = wishart_log_norm(nu, S) - wishart_log_norm(nu0, S0)
    value += (nu - nu0) / 2 * wishart_mean_log_det(nu, S)
    value -= (nu * d - np.trace(S0 @ mean_precision)) / 2
    for m_j, kappa_j, m0_j, kappa0_j in zip(m, kappa, m0, kappa0, strict=True):
        ratio = kappa0_j / kappa_j
        square = kappa0_j * (m_j - m0_j) @ mean_precision @ (m_j - m0_j)
        value += (d * (ratio - 1 - np.log(ratio)) + square) / 2
    return value


def normal_gamma_log_density(mu, precision, m, kappa, nu, s):
    """Return log of prod_j N(mu_j | m_j, 1/(kappa lambda)) Gamma(lambda | nu/2, rate s/2).

    Bishop 2.154, B.26; mu, m (J,): J means share one scalar precision, J = 1 in the book.
    """
    value = stats.gamma.logpdf(precision, nu / 2, scale=2 / s)
    return value + stats.norm.logpdf(mu, m, (kappa * precision) ** -0.5).sum()


def normal_gamma_mean(m, kappa, nu, s):
    """Return E[mu] and E[lambda] = nu/s.  Bishop B.27."""
    return m, nu / s


def normal_gamma_mode(m, kappa, nu, s):
    """Return mu and the variance 1/lambda at the joint mode in (mu_1..mu_J, lambda).

    lambda = (nu - 2 + J) / s: its exponent is nu/2 - 1 (B.26) and 1/2 more for each mean (2.154).
    """
    return m, s / (nu - 2 + len(m))


def normal_gamma_kl(m, kappa, nu, s, m0, kappa0, nu0, s0):
    """Return KL(q || p) of two Normal-Gammas with J means, E[log q - log p]: B.26, B.27, B.30."""
    ratio = kappa0 / kappa
    square = kappa0 * nu / s * ((m - m0) ** 2).sum()
    kl_means = (len(m) * (ratio - 1 - np.log(ratio)) + square) / 2
    return kl_means + gamma_kl(nu / 2, s / 2, nu0 / 2, s0 / 2)


def gamma_kl(a, b, a0, b0):
    """Return KL(Gamma(a, rate b) || Gamma(a0, rate b0)), elementwise.  By B.26, B.27, B.30."""
    value = (a - a0) * digamma(a) - gammaln(a) + gammaln(a0)
    return value + a0 * np.log(b / b0) + a * (b0 / b - 1)


# Prior and posterior of a Gaussian mixture -------------------------------------------------------


@dataclass
class Prior:
    """Prior of the weights and the Gaussians; None instead of one means flat.

    Weights ~ Dirichlet(alpha0, .., alpha0), or stick-breaking: v_k ~ Beta(1, alpha0) for k < K and
    v_K = 1 (Blei & Jordan 2006, section 3).
    S0: (D, D) for full and tied, (D,) for diag, a number for spherical.
    """

    alpha0: float
    m0: np.ndarray
    kappa0: float
    nu0: float
    S0: np.ndarray
    stick_breaking: bool = False


@dataclass
class Posterior:
    """q(theta), or p(theta | X, T): of the prior's form.

    alpha: (K,), or (2, K - 1), rows a and b of the Betas of the sticks.  m (K, D), kappa (K,),
    nu (K,) or one number where tied, S of the covariance's shape.
    """

    alpha: np.ndarray
    m: np.ndarray
    kappa: np.ndarray
    nu: np.ndarray
    S: np.ndarray
    stick_breaking: bool


def flat_prior(covariance_type, n_components, n_features):
    """Return the improper prior constant in (pi, mu, Lambda): its mode is maximum likelihood."""
    nu0 = {
        "full": n_features,
        "tied": n_features + 1 - n_components,
        "diag": 1,
        "spherical": 2 - n_features,
    }
    return Prior(1.0, np.zeros(n_features), 0.0, nu0[covariance_type], 0.0)


def prior_as_posterior(prior, covariance_type, n_components, n_features):
    """Return the prior in the posterior's shapes: the posterior of no data."""
    none = np.zeros((1, n_features)), np.zeros((1, n_components))
    return update(prior, covariance_type, *moments(*none, covariance_type))


def update(prior, covariance_type, n, means, scatter):
    """Return prior + statistics.  Dirichlet and Normal-Wishart: Bishop 10.58-10.63 (W = inv(S)).

    Sticks: Beta(1 + n_k, alpha0 + sum of n_j over j > k), Blei & Jordan 2006, section 3.
    """
    n_features = means.shape[1]
    if prior.stick_breaking:
        after = n[::-1].cumsum()[::-1] - n
        alpha = np.array([1 + n[:-1], prior.alpha0 + after[:-1]])
    else:
        alpha = prior.alpha0 + n
    kappa = prior.kappa0 + n
    if np.any(kappa == 0):
        raise ZeroDivisionError("a component without data has no maximum-likelihood mean")
    m = (prior.kappa0 * np.asarray(prior.m0) + n[:, None] * means) / kappa[:, None]
    away = means - prior.m0
    between = (prior.kappa0 * n / kappa)[:, None, None] * away[:, :, None] * away[:, None, :]
    S = prior.S0 + scatter + narrow(between, covariance_type)
    counted = {"full": n, "tied": n.sum(), "diag": n, "spherical": n_features * n}
    return Posterior(alpha, m, kappa, prior.nu0 + counted[covariance_type], S, prior.stick_breaking)


def blocks(posterior, covariance_type):
    """Yield (m, kappa, nu, S) of the independent Normal-Wisharts (full, tied) or Normal-Gammas."""
    m, kappa, nu, S = posterior.m, posterior.kappa, posterior.nu, posterior.S
    if covariance_type == "tied":
        yield m, kappa, nu, S
        return
    for k in range(len(m)):
        if covariance_type == "full":
            yield m[k : k + 1], kappa[k : k + 1], nu[k], S[k]
        elif covariance_type == "spherical":
            yield m[k], kappa[k], nu[k], S[k]
        else:
            for d in range(m.shape[1]):
                yield m[k, d : d + 1], kappa[k], nu[k], S[k, d]


def sticks_to_weights(v):
    """Return pi_k = v_k prod_{j<k} (1 - v_j), v_K = 1.  Blei & Jordan 2006, section 2."""
    return np.append(v, 1.0) * np.append(1.0, np.cumprod(1 - v))


def weights_to_sticks(weights):
    """Return v (K - 1,), the inverse of sticks_to_weights."""
    left = weights[::-1].cumsum()[::-1][:-1]
    return np.divide(weights[:-1], left, out=np.zeros(len(left)), where=left > 0)


def mean_weights(posterior):
    """Return E[pi]; sticks are independent, so their means multiply."""
    if posterior.stick_breaking:
        return sticks_to_weights(beta_mean(*posterior.alpha))
    return dirichlet_mean(posterior.alpha)


def mode(posterior, covariance_type):
    """Return weights, means, covariances at the joint mode in (pi or sticks v, mu, Lambda)."""
    if posterior.stick_breaking:
        weights = sticks_to_weights(beta_mode(*posterior.alpha))
    else:
        weights = dirichlet_mode(posterior.alpha)
    block_mode = normal_wishart_mode if covariance_type in ("full", "tied") else normal_gamma_mode
    covariances = [block_mode(*block)[1] for block in blocks(posterior, covariance_type)]
    return weights, posterior.m, np.reshape(covariances, posterior.S.shape)


def log_prior(weights, means, covariances, covariance_type, prior):
    """Return log p(theta), a density in (pi or v, mu, Lambda); 0 for prior None."""
    if prior is None:
        return 0.0
    n_components, n_features = means.shape
    p = prior_as_posterior(prior, covariance_type, n_components, n_features)
    if p.stick_breaking:
        value = beta_log_density(weights_to_sticks(weights), *p.alpha).sum()
    else:
        value = dirichlet_log_density(weights, p.alpha)
    theta = Posterior(p.alpha, means, p.kappa, p.nu, covariances, p.stick_breaking)
    pairs = zip(blocks(theta, covariance_type), blocks(p, covariance_type), strict=True)
    for (mu, _, _, covariance), block in pairs:
        if covariance_type in ("full", "tied"):
            value += normal_wishart_log_density(mu, np.linalg.inv(covariance), *block)
        else:
            value += normal_gamma_log_density(mu, 1 / covariance, *block)
    return value


def kl(posterior, covariance_type, prior):
    """Return KL(q(theta) || p(theta)), all blocks."""
    p = prior_as_posterior(prior, covariance_type, *posterior.m.shape)
    if p.stick_breaking:
        value = beta_kl(*posterior.alpha, *p.alpha).sum()
    else:
        value = dirichlet_kl(posterior.alpha, p.alpha)
    block_kl = normal_wishart_kl if covariance_type in ("full", "tied") else normal_gamma_kl
    for q_block, p_block in zip(
        blocks(posterior, covariance_type), blocks(p, covariance_type), strict=True
    ):
        value += block_kl(*q_block, *p_block)
    return value


def expected_scores(X, posterior, covariance_type):
    """Return E[log pi_k + log N(x_n | mu_k, inv(Lambda_k))] under q(theta), (N, K).

    Bishop 10.46, 10.64-10.66.  Sticks: E[log v_k] + sum_{j<k} E[log(1 - v_j)], Blei & Jordan 2006,
    section 3.
    """
    n_components, n_features = posterior.m.shape
    if posterior.stick_breaking:
        a, b = posterior.alpha
        log_v, log_rest = digamma(a) - digamma(a + b), digamma(b) - digamma(a + b)
        log_weights = np.append(log_v, 0.0) + np.append(0.0, log_rest.cumsum())
    else:
        log_weights = dirichlet_mean_log(posterior.alpha)
    scores = np.empty((len(X), n_components))
    nu = np.broadcast_to(posterior.nu, n_components)
    for k, (m, kappa) in enumerate(zip(posterior.m, posterior.kappa, strict=True)):
        S = posterior.S if covariance_type == "tied" else posterior.S[k]
        away = X - m
        if covariance_type in ("full", "tied"):
            mean_log_det = wishart_mean_log_det(nu[k], S)  # 10.65
            square = nu[k] * (away * np.linalg.solve(S, away.T).T).sum(1)
        else:  # E[log lambda] = psi(nu/2) - log(S/2), B.30, once for each feature
            mean_log_det = (digamma(nu[k] / 2) - np.log(S / 2) + np.zeros(n_features)).sum()
            square = (nu[k] / S * away**2).sum(1)
        square = n_features / kappa + square  # 10.64
        scores[:, k] = log_weights[k] + (mean_log_det - n_features * LOG_2PI - square) / 2
    return scores


def elbo(X, q, posterior, covariance_type, prior, sample_weight=None):
    """Return the evidence lower bound for any q(T) q(theta), constants included.

    Bishop 10.70 with its terms gathered: E[log p(X|T,theta)] + E[log p(T|pi)] (10.71, 10.72)
    - E[log q(T)] (10.75) - KL(q(theta) || p(theta)) (10.73, 10.74, 10.76, 10.77).
    """
    rows = (q * expected_scores(X, posterior, covariance_type) - xlogy(q, q)).sum(1)
    rows = rows if sample_weight is None else rows * sample_weight
    return rows.sum() - kl(posterior, covariance_type, prior)


# Complete methods --------------------------------------------------------------------------------
#
# Each starts from q0 (responsibilities (N, K), or labels (N,)) with an M-step, so that trace[i] is
# the objective at the parameters of M-step i + 1.  They stop after n_sweeps, or once the objective
# has changed by no more than tol per unit of weight.


def em(
    X,
    q0,
    covariance_type,
    prior=None,
    *,
    n_sweeps=10_000,
    tol=0.0,
    sample_weight=None,
    kind="exact",
    truncation=None,
):
    """EM, maximum likelihood or (with a prior) MAP.  Bishop 9.23-9.28 and section 9.4.

    Objective: log p(X | theta) + log p(theta).  Returns a dict: weights, means, covariances, q,
    log_z, objective, trace, converged.
    """
    w = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, float)
    q = one_hot(q0, np.max(q0) + 1) if np.ndim(q0) == 1 else np.asarray(q0)
    form = prior or flat_prior(covariance_type, q.shape[1], X.shape[1])
    trace, converged = [], False
    for _ in range(n_sweeps):
        theta = mode(
            update(form, covariance_type, *moments(X, q, covariance_type, w)), covariance_type
        )
        log_z, q = assign(gaussian_scores(X, *theta, covariance_type), kind, truncation)
        trace.append(w @ log_z + log_prior(*theta, covariance_type, prior))
        converged = len(trace) > 1 and abs(trace[-1] - trace[-2]) <= tol * w.sum()
        if converged:
            break
    return {
        "weights": theta[0],
        "means": theta[1],
        "covariances": theta[2],
        "q": q,
        "log_z": log_z,
        "objective": trace[-1],
        "trace": np.array(trace),
        "converged": converged,
    }


def crisp_em(X, q0, covariance_type, prior=None, **options):
    """EM with T at its maximum: classification EM, Celeux & Govaert 1992.

    Objective: log p(X, T | theta) + log p(theta).
    """
    return em(X, q0, covariance_type, prior, kind="hard", **options)


def truncated_em(X, q0, covariance_type, truncation, prior=None, **options):
    """EM with q(t_n) on the `truncation` best components.  Neal & Hinton 1998.

    Objective: free energy + log p(theta).  The best q on a set of components is the softmax over
    it, and its free energy their log-sum-exp.
    """
    return em(X, q0, covariance_type, prior, kind="best", truncation=truncation, **options)


def mean_field(X, q0, covariance_type, prior, *, n_sweeps=10_000, tol=0.0, sample_weight=None):
    """Variational Bayes, q(T) q(pi) q(mu, Lambda).  Bishop 10.2; sticks: Blei & Jordan 2006.

    Returns a dict: posterior, q, log_z, objective (the ELBO), trace, converged.
    """
    w = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, float)
    q = one_hot(q0, np.max(q0) + 1) if np.ndim(q0) == 1 else np.asarray(q0)
    trace, converged = [], False
    for _ in range(n_sweeps):
        posterior = update(prior, covariance_type, *moments(X, q, covariance_type, w))
        log_z, q = assign(expected_scores(X, posterior, covariance_type), "exact")
        trace.append(elbo(X, q, posterior, covariance_type, prior, w))
        converged = len(trace) > 1 and abs(trace[-1] - trace[-2]) <= tol * w.sum()
        if converged:
            break
    return {
        "posterior": posterior,
        "q": q,
        "log_z": log_z,
        "objective": trace[-1],
        "trace": np.array(trace),
        "converged": converged,
    }


def predictive_log_density(X, posterior, covariance_type):
    """Return log p(x | q(theta)) of each row, a mixture of Student's t.  Bishop 10.81-10.82.

    Full and tied: nu + 1 - D degrees of freedom, scale S (1 + kappa) / (kappa (nu + 1 - D)).  Of nu
    degrees and scale S (1 + kappa) / (kappa nu): diag, a product over features; spherical, one t.
    """
    n_components, n_features = posterior.m.shape
    log_weights = np.log(mean_weights(posterior))
    nu = np.broadcast_to(posterior.nu, n_components)
    scores = np.empty((len(X), n_components))
    for k, (m, kappa) in enumerate(zip(posterior.m, posterior.kappa, strict=True)):
        S = (posterior.S if covariance_type == "tied" else posterior.S[k]) * (1 + kappa) / kappa
        if covariance_type == "diag":
            log_t = stats.t.logpdf(X, nu[k], m, np.sqrt(S / nu[k])).sum(1)
        elif covariance_type == "spherical":
            log_t = stats.multivariate_t.logpdf(X, m, S / nu[k] * np.eye(n_features), nu[k])
        else:
            degrees = nu[k] + 1 - n_features
            log_t = stats.multivariate_t.logpdf(X, m, S / degrees, degrees)
        scores[:, k] = log_weights[k] + log_t
    return logsumexp(scores, axis=1)


def mean_field_semiconjugate(y, q0, m0, v0, a0, b0, alpha0, *, n_sweeps=10_000, tol=0.0):
    """One feature, q(T) q(pi) q(mu) q(sigma2): mu ~ N(m0, v0) independent of sigma2 ~ IG(a0, b0).

    Coordinate ascent as in Bishop 10.1.3 (there for one Gaussian): q(mu_k) = N(m_k, v_k) and
    1/sigma2_k ~ Gamma(a_k, rate b_k).  Returns a dict: alpha, m, v, a, b, q, objective, trace.
    """
    y = np.ravel(y)[:, None]
    q = one_hot(q0, np.max(q0) + 1) if np.ndim(q0) == 1 else np.asarray(q0)
    mean_precision = np.full(q.shape[1], 1 / np.var(y))
    trace = []
    for _ in range(n_sweeps):
        n, sums = q.sum(0), (q * y).sum(0)
        alpha = alpha0 + n
        v = 1 / (1 / v0 + mean_precision * n)
        m = v * (m0 / v0 + mean_precision * sums)
        square = (y - m) ** 2 + v  # E[(y_n - mu_k)^2]
        a, b = a0 + n / 2, b0 + (q * square).sum(0) / 2
        mean_precision, mean_log = a / b, digamma(a) - np.log(b)
        scores = dirichlet_mean_log(alpha) + (mean_log - LOG_2PI - mean_precision * square) / 2
        log_z, q = assign(scores, "exact")
        kl_mu = (v / v0 - 1 - np.log(v / v0) + (m - m0) ** 2 / v0) / 2
        kl_lambda = gamma_kl(a, b, a0, b0)
        kl_weights = dirichlet_kl(alpha, np.full(len(alpha), float(alpha0)))
        trace.append(log_z.sum() - kl_weights - kl_mu.sum() - kl_lambda.sum())
        if len(trace) > 1 and abs(trace[-1] - trace[-2]) <= tol * len(y):
            break
    fitted = {"alpha": alpha, "m": m, "v": v, "a": a, "b": b, "q": q}
    return {**fitted, "objective": trace[-1], "trace": np.array(trace)}


# Hidden Markov chains ----------------------------------------------------------------------------
#
# `scores` (T, K) are log p(x_t | t, theta) of one sequence's rows, `start` (K,) and `transitions`
# (K, K) the probabilities of its first state and of going from row to column; sums need not be 1.


def _log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


def enumerate_chain(scores, start, transitions):
    """Return all K^T paths, (K^T, T), and log p(X, path | theta) of each.  Bishop 13.10."""
    n_rows, n_states = scores.shape
    paths = np.array(list(itertools.product(range(n_states), repeat=n_rows)))
    log_joint = _log(start)[paths[:, 0]] + scores[np.arange(n_rows), paths].sum(axis=1)
    if n_rows > 1:
        log_joint = log_joint + _log(transitions)[paths[:, :-1], paths[:, 1:]].sum(axis=1)
    return paths, log_joint


def take_level(row, prior):
    """Return a row's best score among states that its prior's logarithm leaves possible, and the
    scores less that: where they are 1e20 nothing else would keep a digit.
    """
    level = np.max(row, where=prior > -np.inf, initial=-np.inf)
    return level, row - (level if level > -np.inf else 0.0)


def forward_backward(scores, start, transitions, log=_log):
    """Forward-backward in logarithms.  Bishop 13.36, 13.38, 13.33, 13.43, all normalised.

    log : of start and transitions; as they are where these are logarithms.
    Returns log_z (T,), log p(x_t | rows before) and -inf from an impossible row on; filtered and
    smoothed probabilities (T, K); expected transitions (K, K).
    """
    n_rows = len(scores)
    with np.errstate(invalid="ignore"):
        log_transitions = log(transitions)
        scores = scores.copy()
        log_z = np.full(n_rows, -np.inf)
        alpha, beta = np.zeros_like(scores), np.zeros_like(scores)
        for t in range(n_rows):
            predicted = log(start)
            if t > 0:
                predicted = np.logaddexp.reduce(alpha[t - 1][:, None] + log_transitions)
            level, scores[t] = take_level(scores[t], predicted)
            # What is not possible may have a score as large as any.
            scores[t, predicted == -np.inf] = -np.inf
            alpha[t] = predicted + scores[t]
            norm = np.logaddexp.reduce(alpha[t])
            if norm == -np.inf:
                return log_z, None, None, None
            log_z[t] = level + norm
            alpha[t] -= norm
        pairs = np.zeros_like(transitions)
        for t in range(n_rows - 1, 0, -1):
            step = log_transitions + scores[t] + beta[t]
            beta[t - 1] = np.logaddexp.reduce(step, axis=1)
            norm = np.logaddexp.reduce(alpha[t - 1] + beta[t - 1])
            beta[t - 1] -= norm
            pairs += np.exp(alpha[t - 1][:, None] + step - norm)
        smoothed = alpha + beta
        smoothed -= logsumexp(smoothed, axis=1, keepdims=True)
    return log_z, np.exp(alpha), np.exp(smoothed), pairs


def precise_log_gamma(x):
    """log Gamma(x) of a Decimal: recurrence up to 60, then Stirling's series (DLMF 5.11.1)."""
    value = Decimal(0)
    while x < 60:
        value -= x.ln()
        x += 1
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875021")
    value += (x - Decimal("0.5")) * x.ln() - x + two_pi.ln() / 2
    numbers = "1/6 -1/30 1/42 -1/30 5/66 -691/2730 7/6 -3617/510 43867/798 -174611/330"
    for n, number in enumerate(numbers.split(), 1):
        top, bottom = number.split("/")
        value += Decimal(top) / Decimal(bottom) / (2 * n * (2 * n - 1)) / x ** (2 * n - 1)
    return value


def precise_log_dirichlet(excess, p):
    """log Dirichlet(p | excess + 1) of numbers (C,) made to sum to 1 (Bishop B.16)."""
    with localcontext() as context:
        context.prec = 60
        excess = [Decimal(float(each)) for each in excess]
        p = [Decimal(float(each)) for each in p]
        value = precise_log_gamma(sum(excess) + len(excess))
        for each, share in zip(excess, p, strict=True):
            value += each * (share / sum(p)).ln() - precise_log_gamma(each + 1)
        return float(value)


def precise_log_gamma_density(excess, rate, x):
    """log Gamma(x | excess + 1, rate) (Bishop B.26)."""
    with localcontext() as context:
        context.prec = 60
        excess, rate, x = (Decimal(float(each)) for each in (excess, rate, x))
        value = (excess + 1) * rate.ln() + excess * x.ln() - rate * x
        return float(value - precise_log_gamma(excess + 1))


def _exp_sum(terms):
    """log of the sum of exp of Decimals."""
    most = max(terms)
    return most + sum((term - most).exp() for term in terms).ln()


def precise_log_counts(X, weights, rates):
    """log p(x) of each row (N,) of counts, by 60 digits."""
    with localcontext() as context:
        context.prec = 60
        out = []
        for row in X:
            base = sum(precise_log_gamma(Decimal(int(x)) + 1) for x in row)
            terms = []
            for weight, own in zip(weights, rates, strict=True):
                each = (Decimal(float(rate)) for rate in own)
                score = sum(int(x) * rate.ln() - rate for x, rate in zip(row, each, strict=True))
                terms.append(Decimal(float(weight)).ln() + score - base)
            out.append(float(_exp_sum(terms)))
        return np.array(out)


def precise_log_negative_binomial(X, shape, rate):
    """log p(x) of each row (N,) of counts, rates ~ Gamma(shape, rate) (D,), by 60 digits."""
    with localcontext() as context:
        context.prec = 60
        out = []
        for row in X:
            total = Decimal(0)
            for x, a, b in zip(row, shape, rate, strict=True):
                x, a, b = Decimal(int(x)), Decimal(float(a)), Decimal(float(b))
                total += precise_log_gamma(a + x) - precise_log_gamma(a) - precise_log_gamma(x + 1)
                total += a * (b / (b + 1)).ln() - x * (b + 1).ln()
            out.append(float(total))
        return np.array(out)


def precise_evidence_of_counts(X, shape, rate):
    """log p(X) of counts of one component with rates ~ Gamma(shape, rate) (D,), by 60 digits."""
    with localcontext() as context:
        context.prec = 60
        total = Decimal(0)
        for column, a, b in zip(X.T, shape, rate, strict=True):
            a, b = Decimal(float(a)), Decimal(float(b))
            more = a + sum(int(x) for x in column)
            total += precise_log_gamma(more) - precise_log_gamma(a) + a * b.ln()
            total -= more * (b + len(column)).ln()
            total -= sum(precise_log_gamma(Decimal(int(x)) + 1) for x in column)
        return float(total)


def precise_log_likelihood(scores, start, transitions, digits=30):
    """log p(X | theta) by the forward recursion in decimal numbers."""
    with localcontext() as context:
        context.prec, context.Emin = digits, -(10**12)
        matrix = [[Decimal(float(x)) for x in column] for column in transitions.T]
        alpha = [Decimal(float(x)) for x in start]
        total = Decimal(0)
        for t, row in enumerate(scores):
            if t > 0:
                alpha = [sum(map(operator.mul, alpha, column)) for column in matrix]
            likelihoods = [Decimal(float(score)).exp() for score in row]
            alpha = list(map(operator.mul, alpha, likelihoods))
            norm = sum(alpha)
            total += norm.ln()
            alpha = [a / norm for a in alpha]
        return float(total)


def viterbi(scores, start, transitions, log=_log):
    """Return the most likely path, the first one among equal states, and log p(X, path | theta)."""
    best, total, origins = log(start), 0.0, []
    for t, row in enumerate(scores):
        if t > 0:
            through = best[:, None] + log(transitions)
            origins.append(through.argmax(axis=0))
            best = through.max(axis=0)
        level, row = take_level(row, best)
        best = best + row
        total += level + best.max()
        best -= best.max()
    path = [best.argmax()]
    for origin in reversed(origins):
        path.append(origin[path[-1]])
    return np.array(path[::-1]), total


def path_value(path, scores, start, transitions):
    """log p(X, path | theta), but for each row's best score, which may be as large as any."""
    each = (scores - scores.max(axis=1, keepdims=True))[np.arange(len(path)), path]
    return each.sum() + _log(start)[path[0]] + _log(transitions)[path[:-1], path[1:]].sum()


def count_path(path, n_states):
    """Return the transitions (K, K) along a path."""
    counts = np.zeros((n_states, n_states))
    np.add.at(counts, (path[:-1], path[1:]), 1)
    return counts


def chain_free_energy(q, scores, start, transitions):
    """E[log p(X, T | theta)] - E[log q(T)] under q(T) = prod_t q_t, with 0 log 0 = 0."""
    with np.errstate(invalid="ignore"):
        weight = q[:-1, :, None] * q[1:, None, :]
        pairs = np.where(weight > 0, weight * _log(transitions), 0).sum()
        first = np.where(q[0] > 0, q[0] * _log(start), 0).sum()
        return np.where(q > 0, q * scores, 0).sum() - xlogy(q, q).sum() + first + pairs


def factorise_chain(q, scores, start, transitions):
    """Coordinate ascent from q (T, K), even rows, then odd ones.  Bishop 10.9.

    Returns q and its free energy.
    """
    q, n_rows = q.copy(), len(q)
    log_transitions = _log(transitions)
    energy = chain_free_energy(q, scores, start, transitions)
    for _ in range(1000):
        for t in [*range(0, n_rows, 2), *range(1, n_rows, 2)]:
            field = scores[t].copy()
            with np.errstate(invalid="ignore"):
                field += (
                    np.where(q[t - 1] > 0, q[t - 1] * log_transitions.T, 0).sum(axis=1)
                    if t > 0
                    else _log(start)
                )
                if t + 1 < n_rows:
                    after = q[t + 1] * log_transitions
                    field += np.where(q[t + 1] > 0, after, 0).sum(axis=1)
            q[t] = np.exp(field - logsumexp(field))
        before, energy = energy, chain_free_energy(q, scores, start, transitions)
        if abs(energy - before) < 1e-12 * abs(energy) + 1e-14 * n_rows:
            break
    return q, energy


def sum_over_paths(scores, start, transitions, kind):
    """Return log_z, q (T, K) and expected transitions (K, K), by all K^T paths.

    "exact": q(T) = p(T | X, theta), and log_z = log p(X | theta).  "hard": all on the first of the
    best paths, and log_z = log p(X, path | theta); no q where another path is as good.
    """
    paths, log_joint = enumerate_chain(scores, start, transitions)
    weight = np.exp(log_joint - log_joint.max())
    if kind == "hard":
        if np.sum(weight > 1 - 1e-9) > 1:
            return log_joint.max(), None, None
        weight = one_hot(log_joint.argmax(), len(paths))
    each = one_hot(paths, scores.shape[1])  # (paths, T, K)
    q = np.einsum("p,ptk->tk", weight, each) / weight.sum()
    pairs = np.einsum("p,ptk,ptl->kl", weight, each[:, :-1], each[:, 1:]) / weight.sum()
    return log_joint.max() + np.log(weight.sum()), q, pairs


def completed(x, mean, covariance):
    """Log density of what a row x (D,) has, its expectation, and the covariance of what it lacks.

    By the conditional of a Gaussian (Bishop 2.81-2.82, 2.96-2.98); NaN is missing.
    """
    o, m = ~np.isnan(x), np.isnan(x)
    row, spread = np.where(o, x, mean), np.zeros(covariance.shape)
    if not o.any():
        return 0.0, row, covariance
    inverse = np.linalg.inv(covariance[np.ix_(o, o)])
    gap = x[o] - mean[o]
    log_det = np.linalg.slogdet(covariance[np.ix_(o, o)])[1]
    log_density = -0.5 * (gap @ inverse @ gap + log_det + o.sum() * LOG_2PI)
    across = covariance[np.ix_(m, o)] @ inverse
    row[m] += across @ gap
    spread[np.ix_(m, m)] = covariance[np.ix_(m, m)] - across @ covariance[np.ix_(o, m)]
    return log_density, row, spread


def climb_with_gaps(X, start, covariance_type, prior, kind, read, *, n_sweeps):
    """Sweeps of a mixture of Gaussians with full or tied covariances, of rows with NaN.

    From weights, means and covariances; EM and mean field with what is missing integrated out
    (Little & Rubin 2020, section 11.3). Under q(theta) a row's density is that of E[Lambda], but
    for E[log|Lambda|] and what the means' uncertainty takes. Returns objectives and posteriors.
    """
    weights, means, covariances = start
    k, d = means.shape
    less, out = np.zeros(k), []
    log_weights, more = _log(weights), 0.0
    own = prior or flat_prior(covariance_type, k, d)
    for _ in range(n_sweeps + 1):
        each = np.broadcast_to(covariances, (k, d, d))
        found = [[completed(x, *theta) for theta in zip(means, each, strict=True)] for x in X]
        scores = np.array([[one[0] for one in row] for row in found]) + log_weights - less
        log_z, q = assign(scores, kind)
        n = q.sum(axis=0)
        rows = np.array([[one[1] for one in row] for row in found])
        spread = np.array([[one[2] for one in row] for row in found])
        centres = np.einsum("nk,nkd->kd", q, rows) / n[:, None]
        gaps = rows - centres
        scatter = np.einsum("nk,nki,nkj->kij", q, gaps, gaps) + np.einsum("nk,nkij->kij", q, spread)
        posterior = update(own, covariance_type, n, centres, narrow(scatter, covariance_type))
        out.append((log_z.sum() + more, posterior))
        if read == "mode":
            weights, means, covariances = mode(posterior, covariance_type)
            log_weights = _log(weights)
            more = log_prior(weights, means, covariances, covariance_type, prior)
            continue
        nu = np.broadcast_to(posterior.nu, k)
        S = np.broadcast_to(posterior.S, (k, d, d))
        means, covariances = posterior.m, S / nu[:, None, None]
        less = 0.5 * d / posterior.kappa
        for component in range(k):
            less[component] -= 0.5 * wishart_mean_log_det(nu[component], S[component])
            less[component] -= 0.5 * np.linalg.slogdet(covariances[component])[1]
        log_weights = dirichlet_mean_log(posterior.alpha)
        more = -kl(posterior, covariance_type, own)
    return out


def emission_part(X, q, row, read):
    """Parameters read off responsibilities q, under a row of conftest.CHAINS.

    Returns scores (N, K), log p(x | theta) or its expectation, and log p(theta) or minus the KL.
    Rows of X that hold a NaN are missing: they say nothing.
    """
    k = q.shape[1]
    seen = ~np.isnan(X).any(axis=1)
    if not seen.all():
        scores, more = emission_part(X[seen], q[seen], row, read)
        out = np.zeros(q.shape)
        out[seen] = scores
        return out, more
    if hasattr(row.part, "emission"):
        scores_of, rest = discrete_emission(X, q, row.part, read, np.ones(len(X)))
        scores, values = scores_of(np.zeros(k)), (rest,)
    else:
        own = row.part.reference(X.shape[1]) or flat_prior(row.emission, k, X.shape[1])
        posterior = update(own, row.emission, *moments(X, q, row.emission))
        if read == "mode":
            _, *values = mode(posterior, row.emission)
            scores = row.scores(X, *values)
        else:
            # Of the means and precisions alone: weights as in their prior.
            posterior.alpha = np.full(k, own.alpha0)
            scores = expected_scores(X, posterior, row.emission)
            scores -= dirichlet_mean_log(posterior.alpha)
            rest = kl(posterior, row.emission, own)
    if read == "mean":
        return scores, -rest
    if not row.proper:
        return scores, 0.0
    equal = np.full(k, 1 / k), np.full(k, row.part.alpha)
    return scores, row.part.log_prior(equal[0], *values) - dirichlet_log_density(*equal)


def product_climb(parts, states, lengths, k, kind, read, *, n_sweeps):
    """Sweeps from states (N,), of parts (X, row of conftest.CHAINS), by plain formulas.

    EM ("mode", "exact"), crisp EM ("mode", "hard") and mean field ("mean", "exact"; Beal 2003,
    3.4), q(T) of chains by enumeration of all paths; of a mixture where `lengths` is None. Returns
    a list of objective, q (N, K) and the transitions expected (K, K), which ends with None in their
    place where it depends on which of equally good paths is taken. Raises ZeroDivisionError where a
    state without rows or transitions has no maximum of the likelihood.
    """
    q, row = one_hot(states, k), parts[0][1]
    prior, slices, pairs = row.concentrations(k), [], np.zeros((k, k))
    if lengths is None:
        prior = prior[:1]
    else:
        ends = np.cumsum(lengths)
        slices = [slice(end - n, end) for end, n in zip(ends, lengths, strict=True)]
        pairs = sum(q[rows][:-1].T @ q[rows][1:] for rows in slices)
    out = []
    for _ in range(n_sweeps):
        if lengths is None:
            alpha = prior + q.sum(axis=0)
        else:
            alpha = prior + np.concatenate([[sum(q[rows][0] for rows in slices)], pairs])
        if not row.proper and np.any((alpha - 1).sum(axis=1) < 1e-9):
            raise ZeroDivisionError
        if read == "mode":
            weights = np.array([dirichlet_mode(each) for each in alpha])
            more = sum(map(dirichlet_log_density, weights, prior)) if row.proper else 0.0
        else:
            weights = np.exp([dirichlet_mean_log(each) for each in alpha])
            more = -sum(map(dirichlet_kl, alpha, prior))
        each = [emission_part(X, q, of_part, read) for X, of_part in parts]
        scores, more = sum(one for one, _ in each), more + sum(rest for _, rest in each)
        if lengths is None:
            log_z, q = assign(scores + _log(weights[0]), kind)
            out.append((log_z.sum() + more, q, pairs))
            continue
        found = [sum_over_paths(scores[rows], weights[0], weights[1:], kind) for rows in slices]
        log_z, each, pairs = zip(*found, strict=True)
        if any(q is None for q in each):
            return [*out, (sum(log_z) + more, None, None)]
        q, pairs = np.concatenate(each), sum(pairs)
        out.append((sum(log_z) + more, q, pairs))
    return out


def chain_climb(X, states, lengths, row, k, kind, read, *, n_sweeps):
    """`product_climb` of a single part."""
    return product_climb([(X, row)], states, lengths, k, kind, read, n_sweeps=n_sweeps)


# Exact truth by enumeration ----------------------------------------------------------------------


def enumerate_mixture(y, n_components, alpha, m, kappa, a, b, grid=()):
    """Sum over all K^N assignments of a one-dimensional mixture with a conjugate prior.

    pi ~ Dirichlet(alpha), lambda ~ Gamma(a, rate b), mu ~ N(m, 1/(kappa lambda)).  With theta
    integrated out, p(X, T) = DirichletMultinomial(T) prod_k p(X_k), where p(X_k) and the predictive
    are Murphy, "Conjugate Bayesian analysis of the Gaussian distribution" (2007), section 3.

    Returns a dict: log_evidence (log p(X)), co_assignment (N, N) (p(t_i = t_j | X)),
    predictive (log p(x | X) for each x of grid), assignments (K^N, N) and log_joint (log p(X, T)).
    """
    y = np.ravel(y)
    n_rows = len(y)
    alpha = np.broadcast_to(np.asarray(alpha, float), n_components)
    count = n_components**n_rows
    if count > 5_000_000:
        raise ValueError(f"{count} assignments are too many to enumerate")
    powers = n_components ** np.arange(n_rows)
    assignments = ((np.arange(count)[:, None] // powers) % n_components).astype(np.int8)
    log_joint = np.full(count, gammaln(alpha.sum()) - gammaln(alpha.sum() + n_rows))
    predictive = np.zeros((len(grid), count))
    for k in range(n_components):
        member = (assignments == k).astype(float)
        n, total = member.sum(1), member @ y
        mean = total / np.maximum(n, 1)
        scatter = np.maximum(member @ y**2 - n * mean**2, 0)
        kappa_n, a_n = kappa + n, a + n / 2
        m_n = (kappa * m + total) / kappa_n
        b_n = b + (scatter + kappa * n / kappa_n * (mean - m) ** 2) / 2
        log_joint += gammaln(alpha[k] + n) - gammaln(alpha[k])
        log_joint += gammaln(a_n) - gammaln(a) + a * np.log(b) - a_n * np.log(b_n)
        log_joint += (np.log(kappa / kappa_n) - n * LOG_2PI) / 2
        share = (alpha[k] + n) / (alpha.sum() + n_rows)
        scale = np.sqrt(b_n * (kappa_n + 1) / (a_n * kappa_n))
        for i, x in enumerate(grid):
            predictive[i] += share * stats.t.pdf(x, 2 * a_n, m_n, scale)
    log_evidence = logsumexp(log_joint)
    posterior = np.exp(log_joint - log_evidence)
    co_assignment = np.eye(n_rows)
    for i, j in itertools.combinations(range(n_rows), 2):
        together = posterior[assignments[:, i] == assignments[:, j]].sum()
        co_assignment[i, j] = co_assignment[j, i] = together
    return {
        "log_evidence": log_evidence,
        "co_assignment": co_assignment,
        "predictive": np.log(predictive @ posterior),
        "assignments": assignments,
        "log_joint": log_joint,
    }


# Mixtures of counts and symbols ------------------------------------------------------------------


def count_scores(X, log_weights, rates, log_rates=None):
    """log pi_k + sum_d log Poisson(x_d | rate_kd), (N, K); 0 log 0 = 0, so that rate 0 is one."""
    scores = np.empty((len(X), len(rates)))
    for n, row in enumerate(X):
        for k, rate in enumerate(rates):
            each = xlogy(row, rate) if log_rates is None else row * log_rates[k]
            scores[n, k] = log_weights[k] + (each - rate - gammaln(row + 1)).sum()
    return scores


def wait_scores(X, log_weights, rates, log_rates=None):
    """log pi_k + sum_d log Exponential(x_d | rate_kd), (N, K)."""
    logs = np.log(rates) if log_rates is None else log_rates
    scores = np.empty((len(X), len(rates)))
    for n, row in enumerate(X):
        for k, rate in enumerate(rates):
            scores[n, k] = log_weights[k] + (logs[k] - rate * row).sum()
    return scores


def symbol_scores(X, log_weights, logs):
    """log pi_k + sum_d log p_kd(x_d), (N, K), of logarithms of tables (K, D, C)."""
    scores = np.empty((len(X), len(logs)))
    for n, row in enumerate(X):
        for k, table in enumerate(logs):
            scores[n, k] = log_weights[k] + sum(table[d, int(x)] for d, x in enumerate(row))
    return scores


def dirichlet_tables_kl(alpha, alpha0):
    """KL of tables whose rows are Dirichlet, entries of concentration 0 left out."""
    total = 0.0
    n = alpha.shape[-1]
    for a, b in zip(alpha.reshape(-1, n), alpha0.reshape(-1, n), strict=True):
        total += dirichlet_kl(a[a > 0], b[a > 0])
    return total


def discrete_emission(X, q, row, read, sample_weight):
    """Parameters read off responsibilities q, under a row of conftest.DISCRETE.

    Gamma or Dirichlet posteriors (Gelman et al. 2013, 2.6; Bishop 2.2). Returns a function from log
    weights (K,) to scores (N, K), log p(x | theta) or its expectation, and the rates or tables, or
    their KL.
    """
    w, n_components, d = sample_weight, q.shape[1], X.shape[1]
    n = w @ q
    if row.of_rates:
        scores = {"poisson": count_scores, "exponential": wait_scores}[row.emission]
        a0, b0 = row.hyperparameters(d)
        a0, b0 = np.broadcast_to(a0, (n_components, d)), np.broadcast_to(b0, (n_components, d))
        a, b = (w[:, None] * q).T @ X, n[:, None]
        if row.emission == "exponential":
            a, b = b, a
        a, b = a0 + a, b0 + b
        # A component without rows has, under a flat prior, the rates of all.
        values = np.where(b > 0, (a - 1) / np.where(b > 0, b, 1), (a - 1).sum(0) / b.sum(0))
        if read == "mean":
            each = (p.ravel() for p in (a, b, a0, b0))
            kl = sum(gamma_kl(*one) for one in zip(*each, strict=True))
            expected = a / b, digamma(a) - np.log(b)
            return lambda log_weights: scores(X, log_weights, *expected), kl
    else:
        a0 = np.broadcast_to(row.concentrations(d), (n_components, *row.concentrations(d).shape))
        a = a0.copy()
        for x, share, weight in zip(X, q, w, strict=True):
            for j, symbol in enumerate(x):
                a[:, j, int(symbol)] += weight * share
        excess = np.where(a > 0, a - 1, 0)
        total, pooled = excess.sum(axis=2, keepdims=True), excess.sum(axis=0)
        values = np.where(total > 0, excess / np.where(total > 0, total, 1), pooled)
        values = values / values.sum(axis=2, keepdims=True)
        if read == "mean":
            with np.errstate(invalid="ignore"):
                expected = digamma(a) - digamma(a.sum(axis=2, keepdims=True))
            return lambda log_weights: symbol_scores(X, log_weights, expected), (
                dirichlet_tables_kl(a, a0)
            )
    return lambda log_weights: row.scores(X, np.exp(log_weights), values), values


def discrete_climb(X, q0, row, kind, read, *, n_sweeps, truncation=None, sample_weight=None):
    """Objectives of sweeps from responsibilities q0, under a row of conftest.DISCRETE.

    EM and its kin (read "mode") and mean field ("mean"): Bishop 9.3.3 and 10.2.
    """
    n_components, w = q0.shape[1], np.ones(len(X)) if sample_weight is None else sample_weight
    alpha0 = np.full(n_components, 1.0 if row.prior == "flat" else row.alpha)
    trace, q = [], q0
    for _ in range(n_sweeps):
        alpha = alpha0 + w @ q
        scores_of, rest = discrete_emission(X, q, row, read, w)
        if read == "mode":
            weights = (alpha - 1) / (alpha - 1).sum()
            scores = scores_of(_log(weights))
            more = 0.0 if row.prior == "flat" else row.log_prior(weights, rest)
        else:
            scores = scores_of(dirichlet_mean_log(alpha))
            more = -rest - dirichlet_kl(alpha, alpha0)
        log_z, q = assign(scores, kind, truncation)
        trace.append(w[w > 0] @ log_z[w > 0] + more)
    return np.array(trace)


def enumerate_discrete(X, n_components, alpha, row):
    """log p(X), all assignments summed, parameters integrated out."""
    d, total = X.shape[1], []
    for labels in itertools.product(range(n_components), repeat=len(X)):
        t = np.array(labels)
        n = np.bincount(t, minlength=n_components)
        value = gammaln(n_components * alpha) - gammaln(n_components * alpha + len(X))
        value += (gammaln(alpha + n) - gammaln(alpha)).sum()
        for k in range(n_components):
            rows = X[t == k]
            for j in range(d):
                value += row.log_marginal(rows[:, j], j, d)
        total.append(value)
    return logsumexp(total)


# Factorial hidden Markov models -----------------------------------------------------------------
#
# M chains of K states: start (M, K), transition (M, K, K), means (M, K, D), covariance (D, D). The
# product chain's state s has chain m in states[s, m].


def joint_states(n_chains, n_components):
    """Return the states of each chain in each state of the product chain, (K^M, M)."""
    return np.array(list(itertools.product(range(n_components), repeat=n_chains)))


def product_chain(start, transition):
    """Return start (S,) and transition (S, S) probabilities of all chains together."""
    joint_start, joint_transition = np.ones(1), np.ones((1, 1))
    for one_start, one_transition in zip(start, transition, strict=True):
        joint_start = np.kron(joint_start, one_start)
        joint_transition = np.kron(joint_transition, one_transition)
    return joint_start, joint_transition


def log_product_chain(start, transition):
    """Return the logarithms of what `product_chain` returns: a product of them may be no number."""
    joint_start, joint_transition = np.zeros(1), np.zeros((1, 1))
    for one_start, one_transition in zip(_log(start), _log(transition), strict=True):
        n = len(joint_start) * len(one_start)
        joint_start = np.add.outer(joint_start, one_start).ravel()
        together = np.add.outer(joint_transition, one_transition)
        joint_transition = together.swapaxes(1, 2).reshape(n, n)
    return joint_start, joint_transition


def factorial_scores(X, means, covariance):
    """Return log N(x_t | sum_m W_m[s^m], C), (T, S).  Ghahramani & Jordan (1997), 4a."""
    m, k, d = means.shape
    states = joint_states(m, k)
    centers = means[np.arange(m), states].sum(axis=1)
    inverse, log_det_c = np.linalg.inv(covariance), log_det(covariance)
    away = X[:, None] - centers
    square = np.einsum("tsd,de,tse->ts", away, inverse, away)
    return -0.5 * (d * LOG_2PI + log_det_c + square)


def factorial_statistics(q, X, pairs, n_chains, n_components):
    """Return start (M, K), transition (M, K, K), and sums of E[zz'], E[z]x', xx'.

    Of q (T, S) and pairs (S, S) of the product chain; z (M K,) are the chains' indicators.
    """
    states = joint_states(n_chains, n_components)
    z = np.zeros((len(states), n_chains * n_components))
    for m in range(n_chains):
        z[np.arange(len(states)), m * n_components + states[:, m]] = 1
    steps = np.zeros((n_chains, n_components, n_components))
    for m in range(n_chains):
        np.add.at(steps[m], (states[:, None, m], states[None, :, m]), pairs)
    start = (q[0] @ z).reshape(n_chains, n_components)
    return start, steps, (z.T * q.sum(axis=0)) @ z, (q @ z).T @ X, X.T @ X


def _expect(q, logs):
    """Return q @ logs with 0 log 0 = 0."""
    with np.errstate(invalid="ignore"):
        return np.where(np.expand_dims(q, -1) > 0, np.expand_dims(q, -1) * logs, 0).sum(axis=-2)


def factorised_rounds(y, v, constant, start, transition, q, family, n_rounds=50, settled=1e-7):
    """Update chains' q one after another; return after each round value, q, starts and steps.

    Of one sequence of white rows y (T, R) and states' means v (M, K, R); q (T, M, K).  "complete"
    is rows' q one after another as well, "best" each chain's best path, until none is new.
    Ghahramani & Jordan (1997), 12 and 15.  In "complete", q of less than 1e-290 of the largest is
    taken to be 0: whether it underflows says whether the neighbours' states are possible.
    """
    n_rows, m, k = q.shape
    q, rounds, last = q.copy(), [], -np.inf
    log_start, log_transition = _log(start), _log(transition)
    for _ in range(n_rounds):
        previous = q.copy()
        starts, steps, divergence = np.zeros((m, k)), np.zeros((m, k, k)), 0.0
        for chain in range(m):
            others = np.einsum("tmk,mkr->tr", np.delete(q, chain, 1), np.delete(v, chain, 0))
            scores = -0.5 * ((y - others)[:, None] - v[chain]) ** 2
            scores = scores.sum(axis=2)
            if family == "best":
                path, _ = viterbi(scores, start[chain], transition[chain])
                q[:, chain] = one_hot(path, k)
            elif family == "complete":
                for t in range(n_rows):
                    each = scores[t] + (log_start[chain] if t == 0 else 0)
                    if t > 0:
                        each = each + _expect(q[t - 1, chain], log_transition[chain])
                    if t < n_rows - 1:
                        each = each + _expect(q[t + 1, chain], log_transition[chain].T)
                    each = np.exp(each - each.max())
                    q[t, chain] = np.where(each < 1e-290, 0, each) / each.sum()
                steps[chain] = q[:-1, chain].T @ q[1:, chain]
                divergence += xlogy(q[:, chain], q[:, chain]).sum()
                divergence -= _expect(q[0, chain], log_start[chain][:, None]).sum()
                divergence -= _expect(steps[chain].ravel(), log_transition[chain].reshape(-1, 1))[0]
            else:
                log_z, _, q[:, chain], steps[chain] = forward_backward(
                    scores, start[chain], transition[chain]
                )
                divergence += (q[:, chain] * scores).sum() - log_z.sum()
            starts[chain] = q[0, chain]
        mean = np.einsum("tmk,mkr->tr", q, v)
        spread = np.einsum("tmk,mkr->t", q, v**2)
        spread -= (np.einsum("tmk,mkr->tmr", q, v) ** 2).sum(axis=(1, 2))
        value = n_rows * constant - 0.5 * (((y - mean) ** 2).sum() + spread.sum()) - divergence
        rounds.append((value, q.copy(), starts, steps))
        if family == "best":
            if np.array_equal(previous, q):
                break
        elif not value - last > settled * n_rows or (m == 1 and family == "structured"):
            break
        last = value
    return rounds


def block_rounds(y, v, constant, start, transition, q, blocks, n_rounds=50, settled=1e-5):
    """Update blocks of chains one after another, each exactly given the others.

    Of one sequence of white rows y (T, R) and states' means v (M, K, R); q (T, M, K) are chains'
    marginals; blocks (M,) says which one a chain is in.  Return after each round value, q, starts,
    steps and E[z z'] summed over rows (M K, M K).  Saul & Jordan (1996): any part of a structured
    mean field may be a model of its own.
    """
    n_rows, m, k = q.shape
    q, rounds, last = q.copy(), [], -np.inf
    for _ in range(n_rounds):
        starts, steps, divergence, spread = np.zeros((m, k)), np.zeros((m, k, k)), 0.0, 0.0
        within = np.zeros((m * k, m * k))
        for block in np.unique(blocks):
            of = np.flatnonzero(blocks == block)
            others = np.einsum("tmk,mkr->tr", np.delete(q, of, 1), np.delete(v, of, 0))
            states = joint_states(len(of), k)
            centers = v[of, states].sum(axis=1)
            scores = -0.5 * (((y - others)[:, None] - centers) ** 2).sum(axis=2)
            chain = log_product_chain(start[of], transition[of])
            log_z, _, joint, pairs = forward_backward(scores, *chain, log=np.array)
            marks = np.zeros((len(states), m * k))
            for i, one in enumerate(of):
                marks[np.arange(len(states)), one * k + states[:, i]] = 1.0
                own = np.eye(k)[states[:, i]]
                q[:, one] = joint @ own
                starts[one], steps[one] = joint[0] @ own, own.T @ pairs @ own
            within += (marks.T * joint.sum(axis=0)) @ marks
            divergence += (joint * scores).sum() - log_z.sum()
            spread += (joint * (centers**2).sum(axis=1)).sum() - ((joint @ centers) ** 2).sum()
        mean = np.einsum("tmk,mkr->tr", q, v)
        value = n_rows * constant - 0.5 * (((y - mean) ** 2).sum() + spread) - divergence
        z = q.reshape(n_rows, -1)
        same = np.repeat(np.equal.outer(blocks, blocks), k, axis=0).repeat(k, axis=1)
        gram = np.where(same, within, z.T @ z)
        rounds.append((value, q.copy(), starts, steps, gram))
        if not value - last > settled * n_rows or len(np.unique(blocks)) == 1:
            break
        last = value
    return rounds


def factorised_free_energy(chains, start, transition, means, covariance, X):
    """Return E log p(X, T) - E log q(T) of independent chains, by all joint paths.

    chains: for each chain q of its paths, (K^T,), in the order of `enumerate_chain`.
    Neal & Hinton (1998), 1.
    """
    m, k, _ = means.shape
    paths = np.array(list(itertools.product(range(k), repeat=len(X))))
    scores = factorial_scores(X, means, covariance)
    value = 0.0
    for each in itertools.product(range(len(paths)), repeat=m):
        q = np.prod([chains[i][path] for i, path in enumerate(each)])
        if q == 0:
            continue
        joint = np.zeros(len(X), dtype=int)
        log_p = 0.0
        for i, path in enumerate(each):
            s = paths[path]
            joint = joint * k + s
            log_p += np.log(start[i, s[0]]) + np.log(transition[i, s[:-1], s[1:]]).sum()
        log_p += scores[np.arange(len(X)), joint].sum()
        value += q * (log_p - np.log(q))
    return value
