"""What is fixed at 0 in a chain stays 0 by every method, and needs no prior."""

import numpy as np
import pytest

import vbfast
from vbfast import HiddenMarkovModel, ImpossibleRowError, MixtureModel

pytestmark = pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")

START = np.array([1.0, 0.0, 0.0])
MOVES = np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]])
ROWS = np.repeat([0.0, 4.0, 8.0], 20)[:, None] + np.random.default_rng(0).normal(size=(60, 1))
METHODS = ["em", "mean_field", "variational_em", "crisp_em",
           vbfast.FullInference(n_draws=20, n_tune=20, n_chains=1)]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("priors", [False, True])
def test_zeros_stay_and_need_no_prior(method, priors):
    given = {"startprob_init": START, "transmat_init": MOVES, "random_state": 0, "method": method}
    plain = HiddenMarkovModel(3, **given)
    if priors:
        ones = HiddenMarkovModel(3, startprob_prior=1.0, transmat_prior=1.5, **given).fit(ROWS)
        plain.set_params(startprob_prior=START, transmat_prior=1.5 * (MOVES > 0))
    plain.fit(ROWS)
    assert not plain.startprob_[START == 0].any()
    assert not plain.transmat_[MOVES == 0].any()
    if hasattr(plain, "draws_"):
        assert not plain.draws_["startprob"][..., START == 0].any()
        assert not plain.draws_["transmat"][..., MOVES == 0].any()
    if priors:
        assert plain.objective_ == ones.objective_
        np.testing.assert_array_equal(plain.transmat_, ones.transmat_)


@pytest.mark.parametrize("method", ["em", "mean_field"])
def test_a_prior_of_zero_is_refused_elsewhere(method):
    model = HiddenMarkovModel(3, startprob_init=START, transmat_init=MOVES, method=method)
    wrong = 1.0 * (MOVES > 0)
    wrong[0, 1] = 0.0
    for name, value in (("transmat_prior", wrong), ("startprob_prior", np.zeros(3)),
                        ("transmat_prior", 0.0)):  # fmt: skip
        before = dict(vars(model.set_params(startprob_prior=None, transmat_prior=None)))
        model.set_params(**{name: value})
        with pytest.raises(ValueError, match=f"{name} has 0"):
            model.fit(ROWS)
        assert vars(model).keys() == before.keys()


@pytest.mark.parametrize("seed", range(3))
def test_an_outlier_among_counts_spoils_no_start(seed):
    near, far = np.random.default_rng(5).poisson(30, 500), np.random.default_rng(6).poisson(60, 500)
    Z = np.r_[near, far, 3_000_000][:, None]
    fitted = MixtureModel(3, emission="poisson", method="mean_field", random_state=seed).fit(Z)
    assert fitted.objective_ == pytest.approx(-4982.7126, abs=1e-3)


@pytest.mark.parametrize("labels", [np.zeros(60), [30, 30], ["a"] * 60, 3])
@pytest.mark.parametrize("model", [HiddenMarkovModel(2), vbfast.FactorialHMM(2, 2)])
def test_labels_are_refused(model, labels):
    before = dict(vars(model))
    with pytest.raises(ValueError, match=r"y must be None.*lengths="):
        model.fit(ROWS, labels)
    assert vars(model) == before
    fitted = type(model)(**model.get_params()).fit(ROWS, None)
    with pytest.raises(ValueError, match="y must be None"):
        fitted.score(ROWS, labels)


@pytest.mark.parametrize("init", ["auto", "kmeans", "whitened", "random", "random_from_data"])
@pytest.mark.parametrize("emission", ["categorical", "bernoulli", "poisson"])
@pytest.mark.parametrize("zeros", ["transitions", "start", "both"])
def test_no_start_makes_rows_impossible_that_are_not(init, emission, zeros):
    """Of rows that any state could have; the best start is no worse than one state alone."""
    given = {"transmat_init": [[0.8, 0.2, 0], [0, 0.8, 0.2], [0, 0, 1]]} if zeros != "start" else {}
    if zeros != "transitions":
        given["startprob_init"] = [1, 0, 0]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.integers(2 if emission == "bernoulli" else 4, size=(45, 1))
        made = {"emission": emission, "random_state": seed, "init_params": init}
        chain = HiddenMarkovModel(3, **given, **made).fit(X, lengths=[9] * 5)
        assert np.isfinite(chain.objective_)
        if init == "auto":
            one = HiddenMarkovModel(1, **made).fit(X, lengths=[9] * 5)
            assert chain.objective_ > one.objective_ - 1e-6


def test_a_start_under_which_a_row_is_impossible_spoils_no_other():
    """Of random starts with a weight of 0 some leave a symbol to the component that has none."""
    X = np.repeat([0, 1], [20, 1])[:, None]
    ended = []
    for seed in range(12):
        mixture = MixtureModel(
            3,
            emission=[("categorical", [0])],
            weights_init=[0.5, 0.5, 0],
            init_params="random",
            random_state=seed,
        )
        try:
            mixture.fit(X)
        except ImpossibleRowError:
            ended.append(seed)
    assert 0 < len(ended) < 12
    mixture.set_params(n_init=12, random_state=ended[0]).fit(X)
    assert np.isfinite(mixture.objective_)
