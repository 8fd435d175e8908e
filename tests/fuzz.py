"""Random data and parameters for every estimator: an answer that holds, or a documented error.

``make fuzz CASES=20000 SEED=1``, or for one case ``python tests/fuzz.py --seed 1 --case 123``. A
case is named by (seed, number). It fits, predicts by every verb, and fails where

* an error is none of ours, a ValueError, a TypeError or a MemoryError,
* a warning is another one than ConvergenceWarning, SpuriousWarning or TruncationWarning,
* what is fitted or predicted isn't finite, or probabilities don't sum to 1 within 1e-9,
* an objective falls by more than rounding,
* the process dies, or takes longer than a case may.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
import traceback
import warnings

import numpy as np

import vbfast

METHODS = ("em", "mean_field", "variational_em", "crisp_em", "full")
ALLOWED = (ValueError, TypeError, MemoryError, vbfast.DegenerateError)
#: Seconds that a case may take.
LIMIT = 60
SPECIALS = (
    0.0, -0.0, 5e-324, 1e-310, 1e-300, 1e-160, 1e-30, 1.0, -1.0, 1e8, 1e16, -1e30, 1e100, 1e150,
    -1e154, 1e160, 1e300, 1.7e308, -1.7e308, np.inf, -np.inf, np.nan,
)  # fmt: skip
ODD = (
    -1, 0, 1, 2, 0.5, -0.5, 1e-300, 1e-12, 1e10, 1e300, np.inf, np.nan, True, None, "a", "", b"1",
    [], [1.0], [1.0, np.nan], [[1.0]], {}, 10**30, 1j, np.float32(2.0), np.int8(3),
    np.zeros((0, 2)),
)  # fmt: skip


EMISSIONS = ("gaussian", "poisson", "exponential", "bernoulli", "categorical")
#: Parameters that some emissions read.
OF_EMISSION = {
    **dict.fromkeys(("covariance_type", "reg_covar", "precisions_init", "mean_prior"), "gaussian"),
    **dict.fromkeys(("mean_precision_prior", "mean_variance_prior"), "gaussian"),
    **dict.fromkeys(("degrees_of_freedom_prior", "covariance_prior"), "gaussian"),
    "means_init": "gaussian poisson exponential",
    "shape_prior": "poisson exponential",
    "rate_prior": "poisson exponential",
    "concentration_prior": "bernoulli categorical",
    "n_categories": "categorical",
}
REFUSED_BY_PRODUCTS = ("warm_start", "startprob_init", "transmat_init")


def refused(parameter, emission, parts):
    """Whether a parameter is read by other emissions alone."""
    if parts is None:
        return emission not in OF_EMISSION.get(parameter, emission)
    return parameter in OF_EMISSION or parameter in REFUSED_BY_PRODUCTS


class Broken(Exception):
    """What must hold doesn't."""


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


# Data --------------------------------------------------------------------------------------------


def numbers(rng):
    """Rows of numbers, mostly clusters, with what breaks arithmetic in some."""
    n = pick(rng, [1, 2, 3, 5, 8, 13, 20, 40, 64, 65, 130, 300, 700])
    d = pick(rng, [1, 1, 2, 2, 3, 4, 5, 9, 17])
    X = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-2, 2, d)
    X += rng.integers(0, 4, (n, 1)) * rng.normal(0, 4, d)
    kind = rng.random()
    if kind < 0.15:  # all of it far away, tiny or huge
        X = X * 10.0 ** pick(rng, [-300, -160, -100, -20, 8, 20, 100, 150, 160, 290])
    elif kind < 0.25:
        X = X + pick(rng, [1e4, 1e8, 1e12, 1e16, -1e100])
    elif kind < 0.35:
        X = np.round(X)
    elif kind < 0.4:
        X = np.zeros_like(X) + pick(rng, SPECIALS)
    if rng.random() < 0.2:
        X[:, rng.integers(d)] = pick(rng, [0.0, 1.0, -3.5, 1e10, 1e-200])
    if rng.random() < 0.2:
        X = X[rng.integers(0, max(1, n // 4), n)]
    if rng.random() < 0.1 and d > 1:
        X[:, 0] = X[:, 1] * pick(rng, [1.0, -2.0, 1 + 1e-9])
    if rng.random() < 0.25:
        for _ in range(int(rng.integers(1, 4))):
            X[rng.integers(n), rng.integers(d)] = pick(rng, SPECIALS)
    return X


def symbols(rng, emission):
    n = pick(rng, [1, 2, 5, 13, 40, 65, 130, 300, 700])
    d = pick(rng, [1, 1, 2, 3, 5, 9])
    if emission == "poisson":
        power = pick(rng, [-2, -1, 0, 1, 2, 3, 3, 8, 12, 15])
        X = rng.poisson(rng.gamma(2.0, 10.0**power, (pick(rng, [1, n]), d)), (n, d))
        X = np.minimum(X, 2**53)
    elif emission == "exponential":
        X = rng.exponential(10.0 ** rng.integers(-4, 5, (pick(rng, [1, n]), d)), (n, d))
        X *= 10.0 ** pick(rng, [0, 0, 0, 0, -300, -100, -20, 20, 90])
    elif emission == "bernoulli":
        X = rng.random((n, d)) < rng.random(d)
    else:
        X = rng.integers(0, pick(rng, [1, 2, 3, 9, 50]), (n, d))
    X = X.astype(np.float64)
    if rng.random() < 0.1:
        X[:, rng.integers(d)] = X[0, 0]
    if rng.random() < 0.2:
        X[rng.integers(n), rng.integers(d)] = pick(
            rng, [0, 1, 2, 100, 3e4, 1e6, 1e9, 1e12, 1e15, 2.0**53, 1e16, 1e300, 0.5, -1, *SPECIALS]
        )
    return X


def several(rng):
    """Columns of one to three parts, what `emission` says of them, and which parts are discrete."""
    columns, parts, width = [], [], 0
    n = 0
    for _ in range(pick(rng, [1, 2, 2, 3])):
        emission = pick(rng, EMISSIONS)
        rows = numbers(rng) if emission == "gaussian" else symbols(rng, emission)
        n = n or len(rows)
        places = np.arange(width, width + rows.shape[1])
        told = places.tolist() if rng.random() < 0.8 else slice(width, width + rows.shape[1])
        part = (emission, told)
        if emission == "gaussian" and rng.random() < 0.8:
            covariance = pick(rng, ["full", "tied", "diag", "spherical"])
            part += ({"covariance_type": covariance, "reg_covar": pick(rng, [0.0, 1e-6, 1.0])},)
        columns.append(np.resize(rows, (n, rows.shape[1])))
        parts.append(part)
        width += rows.shape[1]
    return np.hstack(columns), parts


def with_gaps(rng, X):
    """Some values not seen: here and there, whole rows, a column, all."""
    X = X.copy()
    X[rng.random(X.shape) < pick(rng, [0.0, 0.02, 0.2, 0.9])] = np.nan
    if rng.random() < 0.5:
        X[rng.random(len(X)) < pick(rng, [0.05, 0.5])] = np.nan
    if rng.random() < 0.05:
        X[:, rng.integers(X.shape[1])] = np.nan
    return X


def laid_out(rng, X):
    """The same in another type and order."""
    with np.errstate(all="ignore"):
        kind = rng.random()
        if kind < 0.2:
            X = X.astype(np.float32)
        elif kind < 0.25:
            X = X.astype(pick(rng, ["f2", "f8", ">f8", "<f4", ">f4"]))
        elif kind < 0.3 and np.isfinite(X).all() and np.abs(X).max() < 100:
            X = X.astype(pick(rng, ["i1", "i4", "i8", "u1", "?", ">i2"]))
        elif kind < 0.32:
            return X.tolist()
        elif kind < 0.33:
            return X.astype(object)
    kind = rng.random()
    if kind < 0.1:
        X = np.asfortranarray(X)
    elif kind < 0.2:
        X = X[::-1, ::-1].copy()[::-1, ::-1]
    elif kind < 0.3:
        wide = np.zeros((2 * X.shape[0], 3 * X.shape[1]), X.dtype)
        wide[::2, 1::3] = X
        X = wide[::2, 1::3]
    elif kind < 0.35:
        X = np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(X.dtype).reshape(X.shape)
    elif kind < 0.4:
        X.flags.writeable = False
    elif kind < 0.42:
        X = pick(rng, [X[0], X[None], X[:0], X[:, :0], X.T])
    return X


def weights_of(rng, n):
    kind = rng.random()
    if kind < 0.6:
        return None
    if kind < 0.75:
        return rng.uniform(0, 3, n) * (rng.random(n) > 0.3)
    weights = rng.integers(0, 4, n).astype(float)
    if kind < 0.9:
        return weights * 10.0 ** pick(rng, [0, 0, 0, 3, 6, 12])
    weights[rng.integers(n)] = pick(rng, SPECIALS)
    return weights


def lengths_of(rng, n):
    kind = rng.random()
    if kind < 0.4:
        return None
    if kind < 0.9:
        cuts = np.unique(rng.integers(1, n, pick(rng, [1, 2, 9, 40]))) if n > 1 else []
        return np.diff([0, *cuts, n]).astype(pick(rng, ["i8", "i4", "u8", "f8"]))
    return pick(
        rng, [[], [0, n], [n, 0], [n + 1], [-1, n + 1], [n - 1], [0.5], "a", [2**62, 2**62]]
    )


# Parameters --------------------------------------------------------------------------------------


def method_of(rng, odd):
    if odd():
        return pick(rng, ["gibbs", None, 3, vbfast.EM, vbfast.EM(max_iter=1, tol=0)])
    name = pick(rng, METHODS)
    if name == "full":
        return vbfast.FullInference(
            n_draws=int(rng.integers(1, 6)), n_tune=int(rng.integers(0, 5)),
            n_chains=int(rng.integers(1, 3)), thin=int(rng.integers(1, 3)),
        )  # fmt: skip
    if name == "variational_em" and rng.random() < 0.5:
        return vbfast.VariationalEM(truncation=int(pick(rng, [1, 2, 3, 10])))
    return name


def parameters(rng, signature, d):
    """Some of an estimator's parameters: mostly of values that are allowed."""
    out = {}

    def odd(chance=0.02):
        return rng.random() < chance

    def positive():
        return float(10.0 ** pick(rng, [0, 0, 0, -1, 1, -3, 3, -8, 8, -100, 100, -300, 300]))

    def around():
        return rng.standard_normal(d) * positive()

    chains = "n_chains" in signature
    covariance = pick(rng, ["full", "diag"] if chains else ["full", "tied", "diag", "spherical"])
    k = int(pick(rng, [1, 1, 2, 2, 3, 4, 7]))
    p = positive()
    root = rng.standard_normal((d, d))
    likely = {
        "n_components": (0.95, lambda: k),
        "n_chains": (0.9, lambda: int(pick(rng, [1, 2, 2, 3]))),
        "method": (0.9, lambda: method_of(rng, odd)),
        "covariance_type": (0.8, lambda: covariance),
        "factorisation": (0.5, lambda: pick(rng, ["blocks", "structured", "complete"])),
        "tol": (0.3, lambda: float(pick(rng, [0.0, 1e-12, 1e-5, 1.0, 1e300]))),
        "max_iter": (1.0, lambda: int(pick(rng, [1, 2, 3, 7, 20, 60]))),
        "reg_covar": (0.3, lambda: float(pick(rng, [0.0, 0.0, 1e-300, 1e-10, 1e-3, 1.0, 1e10]))),
        "n_init": (0.2, lambda: int(rng.integers(1, 4))),
        "init_params": (
            0.5,
            lambda: pick(
                rng,
                ["random"]
                if chains
                else ["kmeans", "k-means++", "random", "random_from_data"],
            ),
        ),
        "initial": (0.3, lambda: pick(rng, ["free", "stationary"])),
        "weights_init": (0.1, lambda: rng.dirichlet(np.ones(k))),
        "startprob_init": (0.1, lambda: rng.dirichlet(np.ones(k))),
        "transmat_init": (0.1, lambda: rng.dirichlet(np.ones(k), k)),
        "means_init": (0.1, lambda: rng.standard_normal((k, d)) * p),
        "precisions_init": (0.1, lambda: {
            "full": np.stack([root @ root.T * p] * k), "tied": root @ root.T * p,
            "diag": np.full((k, d), p), "spherical": np.full(k, p),
        }[covariance]),
        "weight_concentration_prior_type": (
            0.3, lambda: pick(rng, ["dirichlet_distribution", "dirichlet_process"])
        ),
        "weight_concentration_prior": (0.3, positive),
        "start_concentration_prior": (0.3, positive),
        "transition_concentration_prior": (0.3, positive),
        "startprob_prior": (0.2, positive),
        "transmat_prior": (0.2, positive),
        "shape_prior": (0.2, positive),
        "rate_prior": (0.2, positive),
        "concentration_prior": (0.2, positive),
        "n_categories": (0.2, lambda: int(pick(rng, [1, 2, 9, 60, 1000]))),
        "mean_precision_prior": (0.25, positive),
        "mean_variance_prior": (0.15, positive),
        "mean_prior": (0.25, around),
        "degrees_of_freedom_prior": (0.25, lambda: d + positive()),
        "covariance_prior": (0.25, lambda: {
            "full": (root @ root.T + np.eye(d)) * p, "tied": (root @ root.T + np.eye(d)) * p,
            "diag": np.full(d, p), "spherical": p,
        }[covariance]),
        "n_threads": (0.5, lambda: pick(rng, [None, 1, 2, 5])),
        "random_state": (1.0, lambda: int(rng.integers(2**31))),
        "warm_start": (0.05, lambda: True),
    }  # fmt: skip
    for name in signature:
        if name in likely and rng.random() < likely[name][0]:
            out[name] = likely[name][1]()
            if odd(0.01):
                out[name] = pick(rng, ODD)
            if name in ("n_init", "max_iter") and str(out[name]) == str(10**30):
                out[name] = 3  # who asks for so many gets them
    return out


def parameters_of(kind):
    return list(
        kind._get_param_names() if hasattr(kind, "_get_param_names") else kind().get_params()
    )


# What must hold ----------------------------------------------------------------------------------


def finite(name, value, infinite=False):
    value = np.asarray(value)
    if value.dtype.kind != "f":
        return
    bad = np.isnan(value) | (value == np.inf) | (~np.isfinite(value) & (not infinite))
    if bad.any():
        raise Broken(f"{name} holds {value[bad].flat[0]}")


def sums_to_one(name, q, axis=-1):
    finite(name, q)
    q = np.asarray(q)
    off = np.abs(q.sum(axis=axis, dtype=float) - 1).max(initial=0.0)
    if off > (1e-9 if q.dtype == np.float64 else 1e-6) or np.min(q, initial=0.0) < 0:
        raise Broken(f"{name} sums to 1 but for {off}, least {np.min(q)}")


def last_digits(counts):
    """Of log x!, nats a row: of a count of 2^53 it is 3e17, and its last digit 64."""
    x = np.asarray(counts, dtype=float)
    x = np.where(np.isfinite(x) & (x > 0), x, 0.0)
    with np.errstate(all="ignore"):
        return 4 * np.finfo(float).eps * np.max((x * (1 + np.log1p(x))).sum(axis=-1), initial=0.0)


def digits_of_gaussians(fitted):
    """Nats a row that rounding may take: of distances, and of variances all but lost beside others.

    Squared distances between means, and from a prior's, in standard deviations; of a feature
    whose variance given all others is a share s of its own, what is found to 2 D eps / s of it.
    """
    if not hasattr(fitted, "precisions_cholesky_"):
        return 0.0
    means = np.asarray(fitted.means_, dtype=float)
    ends = means
    if getattr(fitted, "mean_prior_", None) is not None:
        ends = np.vstack([means, np.atleast_2d(fitted.mean_prior_)])
    factors = np.asarray(fitted.precisions_cholesky_, dtype=float)
    far = 0.0
    with np.errstate(all="ignore"):
        for k, mean in enumerate(means):
            gaps = ends - mean
            if fitted.covariance_type in ("full", "tied"):
                gaps = gaps @ (factors if factors.ndim == 2 else factors[k])
            else:
                gaps = gaps * factors[k]
            far = np.fmax(far, (gaps**2).sum(axis=1).max())
        eps, lost = np.finfo(float).eps, 0.0
        if fitted.covariance_type in ("full", "tied"):
            covariances = np.atleast_3d(np.asarray(fitted.covariances_, dtype=float).T).T
            for factor, covariance in zip(np.atleast_3d(factors.T).T, covariances, strict=True):
                share = np.diagonal(covariance) * (factor**2).sum(axis=1)
                lost = np.fmax(lost, 2 * len(share) * eps * share.max())
        expected = getattr(fitted, "method", None) == "mean_field"
        return 4 * eps * far + (lost if expected else lost**2)


def rises(name, trace, method, heaviest=0.0, rounding=0.0):
    """A prior of so many rows has constants of n log n, which leave their last digits.

    -inf is what the bound of a start may be, of priors 1e300 times as wide as it.
    """
    trace = np.asarray(trace, dtype=float)
    trace = trace[np.argmax(trace > -np.inf) :]
    finite(name, trace)
    if isinstance(method, vbfast.FullInference) or len(trace) < 2:
        return
    fall = trace[:-1] - trace[1:] - 1e-14 * heaviest - rounding
    fall = fall / np.maximum(1.0, np.abs(trace[:-1]))
    if fall.max() > 1e-8:
        raise Broken(f"{name} falls by a share of {fall.max()}: {trace[:20]}")


#: NaN by their documentation: of few draws, of one chain, of many components.
UNKNOWN = ("log_evidence_", "log_evidence_se_", "r_hat_", "effective_sample_size_")
#: Looked at by `rises`.
TRACES = ("lower_bounds_",)


def check_fitted(fitted, discrete, rounding=0.0):
    for name, value in vars(fitted).items():
        told = name.endswith("_") and not name.startswith("_") and name not in (*UNKNOWN, *TRACES)
        if told and isinstance(value, np.ndarray | float):
            finite(name, value, infinite=name in ("objective_", "lower_bound_") and discrete)
    for name in ("weights_", "startprob_", "transmat_"):
        if hasattr(fitted, name):
            sums_to_one(name, getattr(fitted, name))
    rounding += digits_of_gaussians(fitted)
    priors = [np.max(value) for name, value in vars(fitted).items() if name.endswith("_prior_")
              and isinstance(value, (float, np.ndarray))]  # fmt: skip
    rises(
        "lower_bounds_",
        fitted.lower_bounds_,
        getattr(fitted, "method", None),
        max(priors, default=0.0),
        rounding,
    )


def verbs(fitted, X, more, discrete):
    """Call everything that predicts; each may refuse."""
    n = len(X)
    chain = hasattr(fitted, "transmat_")
    for name in ("predict_proba", "filter", "predict", "decode", "score_samples", "score",
                 "co_assignment", "bic", "aic", "icl", "sample"):  # fmt: skip
        if not hasattr(fitted, name):
            continue
        try:
            said = fitted.sample(5) if name == "sample" else getattr(fitted, name)(X, **more)
        except ALLOWED:
            continue
        if name in ("predict_proba", "filter"):
            if said.shape[0] != n:
                raise Broken(f"{name} has shape {said.shape} for {n} rows")
            sums_to_one(name, said)
        elif name == "score_samples" and chain:
            for part in said if isinstance(said, tuple) else (said,):
                finite(name, part, infinite=True)
        elif name in ("score_samples", "score", "bic", "aic", "icl"):
            # Of an impossible row the logarithm is -inf.
            finite(name, -said if name in ("bic", "aic", "icl") else said, infinite=True)
        elif name == "predict" and not (said.min() >= 0 and said.max() < 1000):
            raise Broken(f"predict from {said.min()} to {said.max()}")
        elif name == "co_assignment":
            finite(name, said)
        elif name == "sample":
            rows = said[0]
            if hasattr(fitted, "parts_"):  # of columns in none there is nothing to say
                rows = rows[:, sorted(column for part in fitted.parts_ for column in part.columns)]
            finite(name, rows)


# What fit_many takes.
MANY = (
    vbfast.GaussianMixture,
    vbfast.BayesianGaussianMixture,
    vbfast.MixtureModel,
    vbfast.HiddenMarkovModel,
)


def run_case(seed, number, report=None):
    """Raise where something doesn't hold; return what came of it."""
    rng = np.random.default_rng([seed, number])
    kinds = {
        "GaussianMixture": vbfast.GaussianMixture,
        "BayesianGaussianMixture": vbfast.BayesianGaussianMixture,
        "MixtureModel": vbfast.MixtureModel,
        "HiddenMarkovModel": vbfast.HiddenMarkovModel,
        "FactorialHMM": vbfast.FactorialHMM,
        "fit_many": None,
    }
    name = pick(rng, list(kinds))
    kind = kinds[name] or pick(rng, [kind for kind in kinds.values() if kind in MANY])
    emission, parts = "gaussian", None
    of_any = kind in (vbfast.MixtureModel, vbfast.HiddenMarkovModel)
    if of_any:
        emission = pick(rng, EMISSIONS)
    if of_any and rng.random() < 0.3:
        rows, parts = several(rng)
    else:
        rows = numbers(rng) if emission == "gaussian" else symbols(rng, emission)
    told = {emission} if parts is None else {part[0] for part in parts}
    discrete = told != {"gaussian"}
    params = parameters(rng, parameters_of(kind), rows.shape[1])
    if of_any:
        params["emission"] = emission if parts is None else parts
    for param in [p for p in params if refused(p, emission, parts)]:
        if rng.random() < 0.98:
            params.pop(param)
    gaps = of_any and name != "fit_many" and rng.random() < 0.4
    if gaps:
        rows = with_gaps(rng, rows)
        params["missing"] = "at_random"
    X = laid_out(rng, rows)
    rounding = last_digits(rows) if "poisson" in told else 0.0
    more, fit_more = {}, {}
    n = len(X)
    if name in ("HiddenMarkovModel", "FactorialHMM"):
        lengths = lengths_of(rng, max(n, 1))
        if lengths is not None:
            more["lengths"] = fit_more["lengths"] = lengths
    elif kind is not vbfast.HiddenMarkovModel:
        weights = weights_of(rng, max(n, 1))
        if weights is not None:
            fit_more["sample_weight"] = weights
    other = X
    if rng.random() < 0.3:  # rows that were not fitted
        some = rows[rng.permutation(len(rows))]
        if parts is None:
            some = numbers(rng) if emission == "gaussian" else symbols(rng, emission)
            some = np.resize(some, (max(len(some), 1), rows.shape[1]))
        if gaps:
            some = with_gaps(rng, some)
        other = laid_out(rng, some)
        more = {}
    if report is not None:
        report(f"{name} {params}\n{fit_more}\n{X!r}\n{other!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        warnings.simplefilter("ignore", vbfast.SpuriousWarning)
        warnings.simplefilter("ignore", vbfast.TruncationWarning)
        try:
            estimator = kind(**params)
            if name == "fit_many":
                cut = n // 2
                sets = [X, X[:cut], X[cut:]] if isinstance(X, np.ndarray) and n > 3 else [X, X]
                if "sample_weight" in fit_more:
                    w = fit_more.pop("sample_weight")
                    fit_more["sample_weight"] = [w, w[:cut], w[cut:]] if len(sets) == 3 else [w, w]
                many = vbfast.fit_many(estimator, sets, **fit_more)
                for s in range(len(sets)):
                    if many.degenerate_[s]:
                        continue
                    for part in (*many.stacked, "objective_"):
                        finite(part, getattr(many, part)[s], infinite=discrete)
                    check_fitted(many[s], discrete, rounding)
                    verbs(many[s], sets[s], {}, discrete)
                return "fitted"
            estimator.fit(X, **fit_more)
        except ALLOWED as error:
            if type(error) is np.linalg.LinAlgError:  # a ValueError, but NumPy's
                raise
            return type(error).__name__
        check_fitted(estimator, discrete, rounding)
        verbs(estimator, other, more, discrete)
    return "fitted"


# Many cases --------------------------------------------------------------------------------------


def tell(seed, number):
    """Run a case and say in a line what came of it."""
    try:
        return "ok " + run_case(seed, number)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        return f"BROKEN {text} ({os.path.basename(place.filename)}:{place.lineno})"


def work(seed):
    """Take numbers of cases from standard input, one a line."""
    for line in sys.stdin:
        print(int(line), tell(seed, int(line)), flush=True)


class Worker:
    """A process that runs cases, replaced when it dies or hangs."""

    def __init__(self, seed):
        self.command = [sys.executable, os.path.abspath(__file__), "--work", "--seed", str(seed)]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, number, limit):
        if self.process is None or self.process.poll() is not None:
            self.start()
        late = threading.Timer(limit, self.process.kill)
        began = time.monotonic()
        late.start()
        try:
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        late.cancel()
        if line:
            return line.split(maxsplit=1)[1].strip()
        self.process.communicate()  # which closes the pipes
        code = self.process.returncode
        return f"BROKEN {'hangs' if time.monotonic() - began >= limit else f'dies with {code}'}"

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


def run_many(seed, numbers, jobs, limit=LIMIT, say=lambda text: print(text, flush=True)):
    """Run cases in processes of their own; return what broke, by number, and counts of the rest."""
    numbers, lock = iter(numbers), threading.Lock()
    broken, counts = {}, {}

    def loop():
        worker = Worker(seed)
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                told = worker.run(number, limit)
                with lock:
                    if told.startswith("BROKEN"):
                        broken[number] = told
                        say(f"--seed {seed} --case {number}: {told}")
                    counts[told.split()[1]] = counts.get(told.split()[1], 0) + 1
        finally:
            worker.stop()

    threads = [threading.Thread(target=loop) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return broken, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--case", type=int, help="run this one here, and say what it is")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.seed)
    elif args.case is not None:
        with np.printoptions(threshold=40, precision=17):
            print(run_case(args.seed, args.case, print))
    else:
        numbers = range(args.first, args.first + args.cases)
        broken, counts = run_many(args.seed, numbers, args.jobs)
        print(f"{args.cases} cases of seed {args.seed}: {len(broken)} broken; {counts}")
        sys.exit(bool(broken))


if __name__ == "__main__":
    main()
