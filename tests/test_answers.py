"""What a fit says of rows: criteria, samples, paths, and what predictions are made from."""

import numpy as np
import pytest

import vbfast
from vbfast import FactorialHMM, GaussianMixture, HiddenMarkovModel, MixtureModel

pytestmark = pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")


def rows(n=60, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 4 * (np.arange(n) % 2)[:, None]


def gss82():
    """1202 answers to four questions, as counts of cells."""
    cells = np.indices((3, 2, 2, 3)).reshape(4, -1).T
    counts = [419, 35, 2, 71, 25, 5, 270, 25, 4, 42, 16, 5, 23, 4, 1, 6, 2, 0,
              43, 9, 2, 9, 3, 2, 26, 3, 0, 1, 2, 0, 85, 23, 6, 13, 12, 8]  # fmt: skip
    return cells, np.array(counts)


@pytest.mark.parametrize("method", ["em", "mean_field", "full"])
def test_criteria_of_weighted_rows_are_those_of_repeated_ones(method):
    if method == "full":
        method = vbfast.FullInference(n_draws=20, n_tune=20, n_chains=2)
    cells, counts = gss82()
    fitted = MixtureModel(2, emission="categorical", method=method, random_state=0)
    fitted.fit(cells, sample_weight=counts)
    repeated = cells.repeat(counts, axis=0)
    for name in ("score", "aic", "bic", "icl"):
        criterion = getattr(fitted, name)
        weighted = criterion(cells, sample_weight=counts)
        assert weighted == pytest.approx(criterion(repeated), rel=1e-12)
        assert abs(weighted - criterion(cells)) > 0.1


def test_rows_of_weight_zero_are_absent():
    X = rows()
    fitted = GaussianMixture(2, random_state=0).fit(X)
    far = np.vstack([X, [1e200, 0]])
    weights = np.append(np.ones(60), 0.0)
    for name in ("score", "aic", "bic", "icl"):
        criterion = getattr(fitted, name)
        assert criterion(far, sample_weight=weights) == pytest.approx(criterion(X), rel=1e-12)
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        fitted.bic(X, sample_weight=weights)


# By the book: K - 1 weights, and so on.
COUNTS = [
    (GaussianMixture(3), 3 - 1 + 6 + 9),
    (GaussianMixture(3, covariance_type="tied"), 2 + 6 + 3),
    (GaussianMixture(3, covariance_type="diag"), 2 + 6 + 6),
    (GaussianMixture(3, covariance_type="spherical"), 2 + 6 + 3),
    (MixtureModel(3), 2 + 6 + 9),
    (MixtureModel(3, emission="poisson"), 2 + 6),
    (MixtureModel(3, emission="exponential"), 2 + 6),
    (MixtureModel(3, emission="bernoulli"), 2 + 6),
    (MixtureModel(3, emission="categorical", n_categories=[2, 4]), 2 + 3 * (1 + 3)),
    (HiddenMarkovModel(3), 2 + 6 + 6 + 6),
    (HiddenMarkovModel(3, initial="stationary"), 6 + 6 + 6),
    (HiddenMarkovModel(3, emission="poisson"), 2 + 6 + 6),
    (
        HiddenMarkovModel(
            3, startprob_init=[1, 0, 0], transmat_init=[[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]]
        ),
        0 + 2 + 6 + 6,
    ),
    (FactorialHMM(2, 3), 2 * 2 + 2 * 6 + (2 * 2 + 1) * 2 + 3),
    (FactorialHMM(2, 3, covariance_type="diag"), 2 * 2 + 2 * 6 + (2 * 2 + 1) * 2 + 2),
]


@pytest.mark.filterwarnings("ignore::vbfast.SpuriousWarning")
@pytest.mark.parametrize(("estimator", "expected"), COUNTS)
def test_free_parameters(estimator, expected):
    X = rows()
    if getattr(estimator, "emission", "gaussian") != "gaussian":
        X = (X > 2).astype(float)
    fitted = estimator.set_params(random_state=0).fit(X)
    assert fitted.n_parameters == expected
    log_likelihood = fitted.score(X)
    if "Mixture" in type(fitted).__name__:
        log_likelihood *= len(X)
    assert fitted.aic(X) == pytest.approx(2 * expected - 2 * log_likelihood)
    assert fitted.bic(X) == pytest.approx(expected * np.log(60) - 2 * log_likelihood)


@pytest.mark.parametrize(
    "estimator", [GaussianMixture(2), MixtureModel(2), HiddenMarkovModel(2), FactorialHMM(2, 2)]
)
def test_samples_by_a_seed_of_their_own(estimator):
    fitted = estimator.set_params(random_state=0).fit(rows())
    first, second = fitted.sample(5, random_state=1), fitted.sample(5, random_state=1)
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.array_equal(first[0], fitted.sample(5, random_state=2)[0])
    np.testing.assert_array_equal(fitted.sample(5)[0], fitted.sample(5)[0])


@pytest.mark.parametrize("estimator", [HiddenMarkovModel(2), FactorialHMM(1, 2)])
def test_samples_of_several_sequences(estimator):
    fitted = estimator.set_params(random_state=0).fit(rows())
    # A chain that starts in one state and moves to the other for good.
    chain = np.array([[0.0, 1.0], [0.0, 1.0]])
    start = np.array([1.0, 0.0])
    if isinstance(fitted, FactorialHMM):
        chain, start = chain[None], start[None]
    fitted.transmat_, fitted.startprob_ = chain, start
    X, states = fitted.sample(lengths=[3, 1, 2])
    assert X.shape == (6, 2)
    assert np.ravel(states).tolist() == [0, 1, 1, 0, 0, 1]
    with pytest.raises(ValueError, match="not both"):
        fitted.sample(3, lengths=[3])
    with pytest.raises(ValueError, match=r"lengths\[1\] is 0"):
        fitted.sample(lengths=[3, 0])


def test_most_probable_states_and_paths():
    X = rows()
    fitted = HiddenMarkovModel(2, random_state=0).fit(X)
    value, states = fitted.decode(X, algorithm="map")
    q = fitted.predict_proba(X)
    np.testing.assert_array_equal(states, fitted.predict(X))
    assert value == pytest.approx(q.max(axis=1).sum())
    with pytest.raises(ValueError, match="algorithm must be one of 'viterbi', 'map'"):
        fitted.decode(X, algorithm="best")


def test_a_warm_start_begins_with_what_predictions_are_made_from():
    X = rows()
    fitted = GaussianMixture(2, random_state=0, warm_start=True, max_iter=1).fit(X)
    fitted.precisions_cholesky_ = 0.01 * fitted.precisions_cholesky_
    expected = fitted.score(X) * len(X)
    again = fitted.fit(X)
    # The objective at the start; reg_covar takes next to nothing from such covariances.
    assert again.lower_bounds_[0] * len(X) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["mean_field", "em"])
def test_a_dirichlet_process_that_is_cut_off(method):
    X = rows()

    def fit(k, concentration):
        return vbfast.BayesianGaussianMixture(
            k, method=method, weight_concentration_prior=concentration, random_state=0
        ).fit(X)

    with pytest.warns(vbfast.TruncationWarning, match="the last of n_components=10 sticks holds"):
        fit(10, 1e5)
    fit(10, 1.0)  # an error if it warned
    fit(2, 1.0)


def test_data_sets_come_with_the_package():
    assert vbfast.datasets.load_faithful().shape == (272, 2)


def test_one_chain_of_a_factorial_model_is_a_hidden_markov_model():
    """The same parameters by either model, of equal covariances: the same answers."""
    rng = np.random.default_rng(0)
    start, transition = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
    means, covariance = 2 * rng.standard_normal((3, 2)), np.array([[1.0, 0.3], [0.3, 0.5]])
    chain = HiddenMarkovModel(3, covariance_type="tied")
    chain.startprob_, chain.transmat_ = start, transition
    chain.means_, chain.covariances_ = means, covariance
    coupled = FactorialHMM(1, 3)
    coupled.startprob_, coupled.transmat_ = start[None], transition[None]
    coupled.means_, coupled.covariance_ = means[None], covariance
    for lengths in (None, [30, 1, 19]):
        options = {"n_samples": 50} if lengths is None else {"lengths": lengths}
        (X, states), (rows, each) = (
            one.sample(random_state=1, **options) for one in (chain, coupled)
        )
        np.testing.assert_allclose(rows, X)
        np.testing.assert_array_equal(each[:, 0], states)
        assert coupled.score(X, lengths=lengths) == pytest.approx(chain.score(X, lengths=lengths))
        np.testing.assert_allclose(
            coupled.predict_proba(X, lengths)[:, 0], chain.predict_proba(X, lengths), atol=1e-9
        )
        (value, path), (expected, best) = (one.decode(X, lengths) for one in (coupled, chain))
        assert value == pytest.approx(expected)
        np.testing.assert_array_equal(path[:, 0], best)
        assert coupled.bic(X, lengths) == pytest.approx(chain.bic(X, lengths))
        assert coupled.aic(X, lengths) == pytest.approx(chain.aic(X, lengths))
