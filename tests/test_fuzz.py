"""Some of the cases of `make fuzz`, and that it finds what it should."""

import fuzz
import numpy as np
import pytest

import vbfast


@pytest.mark.slow
def test_random_cases():
    broken, counts = fuzz.run_many(3, range(200), jobs=2)
    assert not broken
    assert sum(counts.values()) == 200
    assert counts["fitted"] > 50


# What broke once: bounds that fell by rounding under priors of 1e8 rows, by that of counts of 1e12,
# where a far prior leaves a tied covariance all but singular, or by an M-step that stopped early;
# symbols that one feature lacks; rows of no weight; a prior that is lost beside the rows; bounds of
# steps ahead that were given up; features that each have a normaliser; rows of weight 0 far away.
BROKE = [
    (0, 11178), (21, 401), (21, 5988), (21, 6819), (21, 7363), (21, 8090), (21, 8460), (21, 11708),
    (21, 12772), (21, 12862), (21, 14045), (21, 14335), (21, 17106), (21, 17966), (21, 18379),
    (21, 19126), (22, 462), (22, 621), (22, 844), (22, 1003), (22, 1593), (22, 1764), (22, 5749),
    (22, 6379), (22, 7395), (22, 9159), (22, 10901), (22, 12970), (22, 13825), (22, 14306),
    (22, 18473), (22, 18748), (23, 1868), (23, 1874), (23, 2766), (23, 8710), (23, 9265),
    (23, 9573), (23, 13497), (25, 12686), (61, 6278), (63, 8182),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "number"), BROKE)
def test_cases_that_broke(seed, number):
    fuzz.run_case(seed, number)


def test_probabilities_that_do_not_sum_to_one_are_found(monkeypatch):
    fitted = vbfast.GaussianMixture(2, random_state=0).fit(np.arange(12.0)[:, None])
    fuzz.verbs(fitted, np.arange(12.0)[:, None], {}, False)
    monkeypatch.setattr(
        vbfast.GaussianMixture, "predict_proba", lambda self, X: np.full((len(X), 2), 0.5 + 1e-8)
    )
    with pytest.raises(fuzz.Broken, match="sums to 1 but"):
        fuzz.verbs(fitted, np.arange(12.0)[:, None], {}, False)


def test_objectives_that_fall_and_fits_that_are_not_finite_are_found():
    fitted = vbfast.GaussianMixture(2, random_state=0).fit(np.arange(12.0)[:, None])
    fuzz.check_fitted(fitted, False)
    fitted.lower_bounds_ = fitted.lower_bounds_ - [0.0, *np.ones(len(fitted.lower_bounds_) - 1)]
    with pytest.raises(fuzz.Broken, match="lower_bounds_ falls"):
        fuzz.check_fitted(fitted, False)
    fitted.means_ = fitted.means_ * np.nan
    with pytest.raises(fuzz.Broken, match="means_ holds nan"):
        fuzz.check_fitted(fitted, False)


def test_deaths_and_hangs_are_found(monkeypatch):
    worker = fuzz.Worker(0)
    worker.command = [fuzz.sys.executable, "-c", "import os; input(); os.abort()"]
    assert worker.run(0, 60) == "BROKEN dies with -6"
    worker.command = [fuzz.sys.executable, "-c", "import time; input(); time.sleep(600)"]
    assert worker.run(0, 1) == "BROKEN hangs"
