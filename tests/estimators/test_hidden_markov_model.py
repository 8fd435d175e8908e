"""HiddenMarkovModel: what every method says against plain recursions, what users may give."""

import warnings

import numpy as np
import pytest
import reference as ref
from scipy.special import xlogy
from scipy.stats import norm

import vbfast
from vbfast import HiddenMarkovModel
from vbfast.exceptions import ImpossibleRowError
from vbfast.latents.chain import Chain, stationary_distribution

POINTS = ("em", "variational_em", "crisp_em")
START = np.array([0.7, 0.2, 0.1])
TRANSITIONS = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]])


def sequences(rng, lengths, k=3, d=2, apart=2.0):
    """Rows of a chain of Gaussians, and their states."""
    states = []
    for n in lengths:
        states.append(rng.choice(k, p=START[:k] / START[:k].sum()))
        for _ in range(n - 1):
            row = TRANSITIONS[states[-1], :k]
            states.append(rng.choice(k, p=row / row.sum()))
    states = np.array(states)
    centres = apart * np.arange(k)[:, None] * np.ones(d)
    return centres[states] + rng.standard_normal((len(states), d)), states


def scores_of(model, X):
    """log N(x | k), (N, K), of a diagonal model."""
    deviations = np.sqrt(model.covariances_)
    each = norm.logpdf(X[:, None], model.means_, deviations)
    return each.sum(axis=2)


def parts(lengths):
    ends = np.cumsum(lengths)
    return [slice(end - n, end) for n, end in zip(lengths, ends, strict=True)]


LENGTHS = [40, 1, 25, 2, 1, 60]


@pytest.fixture(scope="module")
def data():
    return sequences(np.random.default_rng(0), LENGTHS)


@pytest.fixture(scope="module")
def fitted(data):
    return {
        method: HiddenMarkovModel(3, method=method, tol=1e-9, max_iter=500, random_state=0).fit(
            data[0], lengths=LENGTHS
        )
        for method in (*POINTS, "mean_field")
    }


@pytest.mark.parametrize("method", [*POINTS, "mean_field"])
def test_score_is_the_forward_recursion(method, data, fitted):
    model, X = fitted[method], data[0]
    scores = scores_of(model, X)
    expected = [
        ref.forward_backward(scores[part], model.startprob_, model.transmat_)[0]
        for part in parts(LENGTHS)
    ]
    found = model.score_samples(X, LENGTHS)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-9, atol=1e-9)
    assert model.score(X, lengths=LENGTHS) == pytest.approx(found.sum())


@pytest.mark.parametrize("method", POINTS)
def test_states_are_those_of_plain_recursions(method, data, fitted):
    model, X = fitted[method], data[0]
    scores = scores_of(model, X)
    smoothed, filtered = model.predict_proba(X, LENGTHS), model.filter(X, LENGTHS)
    log_prob, path = model.decode(X, LENGTHS)
    total = 0.0
    for part in parts(LENGTHS):
        given = scores[part], model.startprob_, model.transmat_
        _, alpha, gamma, _ = ref.forward_backward(*given)
        np.testing.assert_allclose(filtered[part], alpha, atol=1e-9)
        np.testing.assert_allclose(smoothed[part], gamma, atol=1e-9)
        best, value = ref.viterbi(*given)
        np.testing.assert_array_equal(path[part], best)
        total += value
    assert log_prob == pytest.approx(total)
    np.testing.assert_array_equal(model.predict(X, LENGTHS), smoothed.argmax(axis=1))


def test_objectives_are_what_they_say(data, fitted):
    X = data[0]
    em = fitted["em"]
    # reg_covar takes a little from each row's log density.
    assert em.objective_ == pytest.approx(em.score(X, lengths=LENGTHS), abs=1e-3)
    crisp = fitted["crisp_em"]
    assert crisp.objective_ == pytest.approx(crisp.decode(X, LENGTHS)[0], abs=1e-3)
    variational = fitted["variational_em"]
    energy = 0.0
    scores = scores_of(variational, X)
    for part in parts(LENGTHS):
        given = scores[part], variational.startprob_, variational.transmat_
        start = ref.forward_backward(*given)[2]
        if np.min(variational.transmat_) < 1e-100 or np.min(variational.startprob_) < 1e-100:
            start = ref.one_hot(ref.viterbi(*given)[0], 3)
        energy += ref.factorise_chain(start, *given)[1]
    assert variational.objective_ == pytest.approx(energy, abs=1e-3)
    assert variational.objective_ <= variational.score(X, lengths=LENGTHS)
    assert fitted["mean_field"].objective_ < em.objective_
    for model in fitted.values():
        np.testing.assert_allclose(model.transmat_.sum(axis=1), 1)
        assert model.startprob_.sum() == pytest.approx(1)
        assert model.lower_bound_ == pytest.approx(model.objective_ / len(X))


def test_maximum_of_the_likelihood(data, fitted):
    """No neighbour of EM's parameters is better."""
    X = data[0]
    model = fitted["em"]
    rng = np.random.default_rng(1)
    best = model.score(X, lengths=LENGTHS)
    kept = vars(model).copy()
    try:
        for _ in range(60):
            size = 10 ** rng.uniform(-4, -1)
            moved = model.transmat_ * np.exp(size * rng.standard_normal((3, 3)))
            vars(model).update(kept)
            model.transmat_ = moved / moved.sum(axis=1, keepdims=True)
            model.means_ = kept["means_"] + size * rng.standard_normal((3, 2))
            assert model.score(X, lengths=LENGTHS) < best + 1e-4
    finally:
        vars(model).update(kept)


def test_one_state_is_one_gaussian(data):
    X = data[0]
    for covariance_type in ("diag", "full", "tied", "spherical"):
        chain = HiddenMarkovModel(1, covariance_type=covariance_type, reg_covar=0).fit(X)
        one = vbfast.GaussianMixture(1, covariance_type=covariance_type, reg_covar=0).fit(X)
        np.testing.assert_allclose(chain.covariances_, one.covariances_)
        np.testing.assert_allclose(chain.score_samples(X), one.score_samples(X))
        assert chain.transmat_ == 1


def test_sequences_of_one_row_are_a_mixture(data):
    X = data[0]
    means, precisions = X[[0, 50, 100]], np.ones((3, 2))
    given = {"means_init": means, "precisions_init": precisions, "max_iter": 30, "tol": 0.0}
    method = vbfast.EM(30, 0.0, acceleration=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        chain = HiddenMarkovModel(3, method=method, **given).fit(X, lengths=np.ones(len(X), int))
        mixture = vbfast.GaussianMixture(
            3, method=method, covariance_type="diag", weights_init=np.full(3, 1 / 3), **given
        ).fit(X)
    np.testing.assert_allclose(chain.startprob_, mixture.weights_, rtol=1e-8)
    np.testing.assert_allclose(chain.means_, mixture.means_, rtol=1e-8)
    assert chain.objective_ == pytest.approx(mixture.objective_, rel=1e-10)
    # No transition was seen: rows are the prior's, and sum to 1.
    np.testing.assert_allclose(chain.transmat_, 1 / 3)


@pytest.mark.parametrize("method", [*POINTS, "mean_field", "full"])
def test_zeros_stay(method):
    """Left to right: states follow each other in one order."""
    rng = np.random.default_rng(2)
    X = np.repeat([0.0, 6.0, 0.5], 30)[:, None] + rng.standard_normal((90, 1))
    start = np.array([1.0, 0.0, 0.0])
    transitions = np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]])
    if method == "full":
        method = vbfast.FullInference(n_draws=50, n_tune=50, n_chains=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        model = HiddenMarkovModel(
            3,
            method=method,
            startprob_init=start,
            transmat_init=transitions,
            means_init=[[0.0], [6.0], [0.5]],
            precisions_init=np.ones((3, 1)),
            random_state=0,
        ).fit(X)
    assert np.all(model.transmat_[transitions == 0] == 0)
    assert np.all(model.startprob_[start == 0] == 0)
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1)
    path = model.decode(X)[1]
    assert np.all(np.diff(path) >= 0)
    assert path[0] == 0


def test_zeros_stay_where_chains_see_other_states_first():
    """Emissions alone would say that one chain's state 0 is another's state 1."""
    rng = np.random.default_rng(4)
    X = rng.poisson(np.repeat([2.0, 9.0, 2.0, 9.0], 15))[:, None]
    method = vbfast.FullInference(n_draws=30, n_tune=30, n_chains=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        for given, zero in (
            ({"startprob_init": [1.0, 0.0]}, lambda m: m.startprob_[1]),
            ({"transmat_init": [[0.5, 0.5], [0.0, 1.0]]}, lambda m: m.transmat_[1, 0]),
        ):
            for seed in range(3):
                model = HiddenMarkovModel(
                    2, emission="poisson", method=method, random_state=seed, **given
                ).fit(X)
                assert zero(model) == 0
                path = model.decode(X)[1]
                assert path[0] == 0 or "startprob_init" not in given
    exchangeable = HiddenMarkovModel(2, emission="poisson", method=method, random_state=0)
    exchangeable.set_params(transmat_prior=[[2.0, 1.0], [1.0, 2.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        rates = exchangeable.fit(X).draws_["rates"].mean(axis=1)[..., 0]
    # Sticky chains know their states by their rates alone: these are relabelled.
    assert len(np.unique(rates.argmax(axis=1))) == 1


@pytest.mark.parametrize("method", POINTS)
def test_stationary_start_that_the_first_labels_do_not_have(method):
    """Rows begin in a state that no stationary distribution has: nothing warns."""
    X = np.repeat([0.0, 1.0], 10)[:, None]
    transitions = [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]
    model = HiddenMarkovModel(
        3,
        emission="bernoulli",
        method=method,
        initial="stationary",
        transmat_init=transitions,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vbfast.ConvergenceWarning)
        model.fit(X)
    assert np.isfinite(model.objective_)
    assert np.all(model.transmat_[np.array(transitions) == 0] == 0)
    np.testing.assert_allclose(model.startprob_ @ model.transmat_, model.startprob_, atol=1e-12)


@pytest.mark.parametrize("method", POINTS)
def test_stationary_start(method):
    rng = np.random.default_rng(3)
    X, _ = sequences(rng, [30] * 8)
    lengths = [30] * 8
    free = HiddenMarkovModel(3, method=method, tol=1e-8, max_iter=500, random_state=0)
    bound = HiddenMarkovModel(
        3, method=method, tol=1e-8, max_iter=500, random_state=0, initial="stationary"
    )
    free.fit(X, lengths=lengths)
    bound.fit(X, lengths=lengths)
    np.testing.assert_allclose(bound.startprob_ @ bound.transmat_, bound.startprob_, atol=1e-9)
    np.testing.assert_allclose(
        bound.startprob_, stationary_distribution(bound.transmat_), atol=1e-12
    )
    assert bound.objective_ <= free.objective_ + 1e-6


def test_stationary_distribution_of_rare_steps():
    """To its last digits, however rare steps are; of several the shortest."""
    rare = np.array([[1 - 1e-13, 1e-13, 0], [3e-13, 0.5, 0.5], [0, 1, 0]])
    np.testing.assert_allclose(
        stationary_distribution(rare), np.array([6, 2, 1]) / 9, rtol=1e-14, atol=0
    )
    apart = np.array([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0.5, 0.5, 0], [0.3, 0, 0.2, 0.5]])
    np.testing.assert_allclose(stationary_distribution(apart), [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-15)


@pytest.mark.parametrize("seed", range(8))
def test_stationary_mode_is_the_highest(seed):
    """Of two states, beside all matrices on a fine grid of logarithms."""
    rng = np.random.default_rng(seed)
    first = rng.integers(1, 9, 2).astype(float)
    moves = rng.gamma(0.3, [1.0, 100.0, 1e4, 1.0][seed % 4], (2, 2))
    if seed >= 4:  # few steps from one state to the other, and less than few
        moves = np.diag(moves.diagonal()) + 10.0 ** rng.uniform(-40, -5, (2, 2))
    leave = np.logspace(-45, 0, 2001)[:-1]
    there, back = leave[:, None], leave
    height = moves[0, 0] * np.log1p(-there) + moves[0, 1] * np.log(there)
    height = height + moves[1, 1] * np.log1p(-back) + moves[1, 0] * np.log(back)
    height += first[0] * np.log(back / (there + back)) + first[1] * np.log(there / (there + back))
    chain = Chain(2, initial="stationary")
    mode = chain.distribution({"excess": np.vstack([first, moves])}).mode()
    np.testing.assert_allclose(mode[0] @ mode[1:], mode[0], rtol=1e-13)
    found = xlogy(moves, mode[1:]).sum() + xlogy(first, mode[0]).sum()
    assert found >= height.max() - 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_stationary_mode_of_groups_that_no_step_joins(seed):
    """The best lets go of all steps between them: it is as high as the groups are alone."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, rng.integers(2, 4))
    n = sizes.sum()
    first, moves = 5 * rng.gamma(0.5, size=n), np.zeros((n, n))

    def highest(first, moves):
        chain = Chain(len(first), initial="stationary")
        mode = chain.distribution({"excess": np.vstack([first, moves])}).mode()
        return xlogy(moves, mode[1:]).sum() + xlogy(first, mode[0]).sum()

    expected = 0.0
    for states in np.split(np.arange(n), np.cumsum(sizes)[:-1]):
        within = np.ix_(states, states)
        moves[within] = 20 * rng.gamma(0.5, size=(len(states),) * 2)
        expected += highest(first[states], moves[within])
        expected += xlogy(first[states].sum(), first[states].sum() / first.sum())
    assert abs(highest(first, moves) - expected) < 1e-8


@pytest.mark.parametrize(
    ("seed", "method", "n_components"), [(115, "em", 7), (136, "em", 5), (140, "crisp_em", 7)]
)
def test_stationary_updates_never_fall(seed, method, n_components):
    """There are several highest points, and some without an end: begin where the last one was."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, 8)
    X = rng.integers(0, 2, (lengths.sum(), 3))
    model = HiddenMarkovModel(
        n_components, emission="bernoulli", initial="stationary", method=method, max_iter=60,
        random_state=seed,
    )  # fmt: skip
    model.fit(X, lengths=lengths)  # a fall is a warning, and so an error
    assert np.diff(model.lower_bounds_).min() >= -1e-9


def test_stationary_mode_where_chains_stay_apart():
    """They start in each part as often as was counted, in no state that is left for good."""
    possible = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [1, 1, 1, 1]])
    excess = np.where(possible, np.arange(20.0).reshape(5, 4) + 1, -1.0)
    mode = Chain(4, possible=possible, initial="stationary").distribution({"excess": excess}).mode()
    np.testing.assert_allclose(mode[0] @ mode[1:], mode[0], atol=1e-14)
    np.testing.assert_allclose(mode[0, [0, 3]], [1 / 6, 0], atol=1e-14)


@pytest.mark.parametrize("method", ["mean_field", "full"])
def test_stationary_start_is_refused_where_it_is_not_conjugate(method):
    with pytest.raises(ValueError, match="initial='stationary' has no conjugate prior"):
        HiddenMarkovModel(2, method=method, initial="stationary").fit(np.zeros((5, 1)))
    with pytest.raises(ValueError, match="startprob_init can't be given"):
        HiddenMarkovModel(2, startprob_init=[0.5, 0.5], initial="stationary").fit(np.zeros((5, 1)))


def test_full_inference_finds_the_parameters():
    rng = np.random.default_rng(4)
    X, states = sequences(rng, [400], apart=5.0)
    model = HiddenMarkovModel(
        3, method=vbfast.FullInference(n_draws=200, n_tune=100, n_chains=2), random_state=0
    ).fit(X)
    order = np.argsort(model.means_[:, 0])
    assert model.converged_
    np.testing.assert_allclose(model.means_[order, 0], [0, 5, 10], atol=0.5)
    np.testing.assert_allclose(model.transmat_[np.ix_(order, order)], TRANSITIONS, atol=0.15)
    draws = model.draws_
    assert draws["transmat"].shape == (2, 200, 3, 3)
    assert draws["startprob"].shape == (2, 200, 3)
    np.testing.assert_allclose(draws["transmat"].sum(axis=-1), 1)
    np.testing.assert_allclose(draws["transmat"].mean(axis=(0, 1)), model.transmat_)
    labels = np.argsort(order)[model.predict(X)]
    assert np.mean(labels == states) > 0.97
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_allclose(model.filter(X)[-1], model.predict_proba(X)[-1], atol=1e-9)
    point = HiddenMarkovModel(3, random_state=0).fit(X)
    assert model.score(X) == pytest.approx(point.score(X), abs=15)
    Y, z = model.sample(20)
    assert Y.shape == (20, 2)
    assert z.shape == (20,)


def test_threads_and_layout_give_the_same_bits(data):
    X = data[0]
    strided = np.asfortranarray(np.repeat(X, 2, axis=1))[:, ::2]
    for method in (*POINTS, "mean_field"):
        first, second = (
            HiddenMarkovModel(3, method=method, random_state=0, n_threads=n).fit(x, lengths=LENGTHS)
            for n, x in ((1, X), (3, strided))
        )
        np.testing.assert_array_equal(first.transmat_, second.transmat_)
        np.testing.assert_array_equal(first.means_, second.means_)
        assert first.objective_ == second.objective_


def test_parameters_may_be_set_by_hand():
    model = HiddenMarkovModel(2)
    model.startprob_ = np.array([1.0, 0.0])
    model.transmat_ = np.array([[0.5, 0.5], [0.0, 1.0]])
    model.means_ = np.array([[0.0], [100.0]])
    model.precisions_cholesky_ = np.ones((2, 1))
    X, states = model.sample(50)
    assert states[0] == 0
    assert np.all(np.diff(states) >= 0)
    np.testing.assert_array_equal(model.predict(X), states)
    np.testing.assert_array_equal(model.decode(X)[1], states)
    expected = norm.logpdf(X[:, 0], 100.0 * states).sum()
    jump = int((states == 0).sum())
    assert model.score(X) == pytest.approx(expected + jump * np.log(0.5))
    model.transmat_ = np.array([[0.5, 0.6], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"transmat_\[0\] must sum to 1"):
        model.score(X)


@pytest.mark.parametrize(
    ("emission", "name", "values", "message"),
    [
        ("poisson", "rates_", [[1.0], [-2.0]], r"rates_\[1, 0\] is -2.0; rates must be >= 0"),
        ("poisson", "rates_", [1.0, 2.0], r"rates_ must have shape \(2, D\), got \(2,\)"),
        ("poisson", "rates_", [[1.0], [2.0], [3.0]], r"rates_ must have shape \(2, 1\), got"),
        ("bernoulli", "probabilities_", [[0.5], [1.5]], r"probabilities_\[1, 0\] is 1.5; prob"),
        ("categorical", "probabilities_", [[[0.5, 0.5]], [[0.5, 0.4]]], r"\[1, 0\] must sum to 1"),
        ("categorical", "probabilities_", [[0.5, 0.5]] * 2, r"must have shape \(2, D, C\)"),
        ("gaussian", "means_", [0.0, 1.0], r"means_ must have shape \(K, D\), got \(2,\)"),
        (
            "gaussian",
            "precisions_cholesky_",
            [[1.0], [-1.0]],
            r"component 1 has -1 on its diagonal",
        ),
        ("gaussian", "startprob_", 1.0, r"startprob_ must have shape \(1,\), got \(\)"),
    ],
)
def test_parameters_set_by_hand_are_checked(emission, name, values, message):
    """Kernels would say something of them, or NaN."""
    X = np.array([[0.0], [1.0], [0.0], [1.0], [1.0]])
    options = {"reg_covar": 0.1, "random_state": 0, "init_params": "kmeans"}
    model = HiddenMarkovModel(2, emission=emission, **options).fit(X)
    setattr(model, name, np.asarray(values))
    for ask in (model.score, model.predict_proba, model.decode):
        with pytest.raises(ValueError, match=message):
            ask(X)
    with pytest.raises(ValueError, match=message):
        model.sample()


def test_impossible_rows_are_named():
    """State 1 follows state 0 alone, and neither can make the other's rows."""
    model = HiddenMarkovModel(2, emission="bernoulli")
    model.startprob_ = np.array([1.0, 0.0])
    model.transmat_ = np.array([[0.0, 1.0], [1.0, 0.0]])
    model.probabilities_ = np.array([[0.0], [1.0]])
    X = np.array([[0.0], [1.0], [0.0], [0.0], [0.0]])
    assert model.score(X) == -np.inf
    np.testing.assert_array_equal(np.isneginf(model.score_samples(X)), [0, 0, 0, 1, 1])
    assert np.isfinite(model.score(X[:3]))
    for ask in (model.predict_proba, model.predict, model.filter, model.decode):
        with pytest.raises(ImpossibleRowError, match="row 3 of X has probability zero"):
            ask(X)
        with pytest.raises(ImpossibleRowError, match="row 3 of X"):
            ask(X, [2, 3])


def test_rows_out_of_reach_are_answered_as_by_mixtures():
    model = HiddenMarkovModel(2)
    model.startprob_, model.transmat_ = np.array([0.5, 0.5]), np.full((2, 2), 0.5)
    model.means_, model.precisions_cholesky_ = np.array([[0.0], [5.0]]), np.ones((2, 1))
    mixture = vbfast.GaussianMixture(2, covariance_type="diag").fit(np.arange(10.0)[:, None])
    mixture.weights_, mixture.means_ = np.array([0.5, 0.5]), model.means_
    mixture.precisions_cholesky_ = model.precisions_cholesky_
    X = np.array([[0.0], [1e160], [5.0], [-1e300], [1e160], [4.0]])
    for ask in ("predict_proba", "score_samples"):
        np.testing.assert_allclose(getattr(model, ask)(X), getattr(mixture, ask)(X), rtol=1e-12)


NAN = float("nan")
BAD_PARAMETERS = [
    ("n_components", 0, ValueError, "n_components must be"),
    ("n_components", 2.5, TypeError, "n_components must be"),
    ("emission", "gauss", ValueError, "emission must be one of"),
    ("initial", "bound", ValueError, "initial must be one of"),
    ("covariance_type", "any", ValueError, "covariance_type must be one of"),
    ("method", "me", ValueError, "method must be one of"),
    ("method", vbfast.VariationalEM(truncation=1), ValueError, "truncation is for mixtures, not 1"),
    ("init_params", "any", ValueError, "init_params must be one of"),
    ("startprob_init", [0.5, 0.6], ValueError, "startprob_init must sum to 1"),
    ("startprob_init", [1.5, -0.5], ValueError, r"startprob_init\[0\] is 1.5"),
    ("startprob_init", [1.0], ValueError, r"must have shape \(2,\), got \(1,\)"),
    ("transmat_init", [[0.5, 0.5], [0.5, 0.4]], ValueError, r"transmat_init\[1\] must sum to 1"),
    ("transmat_init", [[0.5, 0.5]], ValueError, r"must have shape \(2, 2\)"),
    ("transmat_init", [[NAN, 0.5], [1, 0]], ValueError, "values must be finite"),
    ("transmat_prior", -1.0, ValueError, "transmat_prior has -1.0"),
    ("transmat_prior", 0.5, ValueError, "transmat_prior has 0.5, below 1"),
    ("startprob_prior", [[1.0]], ValueError, "startprob_prior must be a number or of shape"),
    ("startprob_prior", NAN, ValueError, "startprob_prior has nan"),
    ("transmat_prior", "1", TypeError, "transmat_prior must hold real numbers, not '1'"),
    ("tol", -1, ValueError, "tol must be"),
    ("means_init", [[1.0, 2.0]], ValueError, "means_init must have shape"),
    ("n_threads", 0, ValueError, "n_threads"),
]


@pytest.mark.parametrize(("name", "value", "error", "words"), BAD_PARAMETERS)
def test_bad_parameters(name, value, error, words, data):
    model = HiddenMarkovModel(**({"n_components": 2} | {name: value}))
    before = vars(model).copy()
    with pytest.raises(error, match=words):
        model.fit(data[0])
    assert vars(model) == before


BAD_LENGTHS = [
    ([100, 28], ValueError, "lengths add up to 128, but X has 129 rows"),
    ([129, 1], ValueError, "lengths add up to 130"),
    ([129, 0], ValueError, r"lengths\[1\] is 0"),
    ([130, -1], ValueError, r"lengths\[0\] is 130"),
    ([-1, 129, 1], ValueError, r"lengths\[0\] is -1"),
    ([128.5, 0.5], ValueError, r"lengths\[0\] is 128.5"),
    ([NAN], ValueError, r"lengths\[0\] is nan"),
    ([[129]], ValueError, "one-dimensional"),
    (["129"], TypeError, "whole numbers"),
    ([], ValueError, "lengths add up to 0"),
]


@pytest.mark.parametrize(("lengths", "error", "words"), BAD_LENGTHS)
def test_bad_lengths(lengths, error, words, data, fitted):
    X = data[0]
    assert len(X) == 129
    with pytest.raises(error, match=words):
        HiddenMarkovModel(2).fit(X, lengths=lengths)
    for ask in (fitted["em"].predict, fitted["em"].score_samples):
        with pytest.raises(error, match=words):
            ask(X, lengths)


@pytest.mark.parametrize("kind", [HiddenMarkovModel, vbfast.FactorialHMM])
def test_lengths_in_the_place_of_y_are_not_ignored(kind):
    """Other packages have them there: hmmlearn's fit(X, lengths) and score(X, lengths)."""
    X = np.random.default_rng(5).standard_normal((30, 1))
    model = kind(2, random_state=0, tol=1.0)
    with pytest.raises(ValueError, match=r"y has 2 entries, but .* lengths="):
        model.fit(X, [10, 20])
    assert not hasattr(model, "means_")
    with pytest.raises(ValueError, match="y must be None"):
        model.fit(X, np.zeros(30), lengths=[10, 20])
    model.fit(X, None, lengths=[10, 20])
    with pytest.raises(ValueError, match="y has 2 entries"):
        model.score(X, [10, 20])
    assert model.score(X, None, [10, 20]) == model.score(X, lengths=[10, 20])


def test_bad_rows(data, fitted):
    X = data[0]
    bad = X.copy()
    bad[7, 1] = NAN
    with pytest.raises(ValueError, match="NaN at row 7, column 1"):
        HiddenMarkovModel(2).fit(bad)
    with pytest.raises(ValueError, match="NaN at row 7, column 1"):
        fitted["em"].predict(bad)
    with pytest.raises(ValueError, match="X has 1 features"):
        fitted["em"].predict(X[:, :1])
    with pytest.raises(ValueError, match="more than the 2 rows"):
        HiddenMarkovModel(3).fit(X[:2])
    with pytest.raises(vbfast.NotFittedError):
        HiddenMarkovModel(3).predict(X)


def test_a_state_that_empties():
    """It keeps rows of its transition matrix that sum to 1, and no NaN appears."""
    X = np.random.default_rng(5).standard_normal((60, 1))
    model = HiddenMarkovModel(
        3,
        method=vbfast.CrispEM(50, 0.0),
        means_init=[[-1.0], [1.0], [40.0]],
        precisions_init=np.ones((3, 1)),
    ).fit(X)
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1)
    assert not np.any(model.predict(X) == 2)
    np.testing.assert_allclose(model.transmat_[2], 1 / 3)
    for value in (model.means_, model.covariances_, model.objective_):
        assert np.all(np.isfinite(value))


def test_long_sequences_fit():
    """Two spans and more of one sequence: the same likelihood as by the plain recursion."""
    rng = np.random.default_rng(6)
    X, _ = sequences(rng, [6000], k=2)
    model = HiddenMarkovModel(2, random_state=0).fit(X)
    log_z = ref.forward_backward(scores_of(model, X), model.startprob_, model.transmat_)[0]
    assert model.score(X) == pytest.approx(log_z.sum(), rel=1e-12)


def test_next_to_impossible_transitions():
    """Taken for impossible in a fit, but where a sequence can't do without."""
    X = np.repeat([[0.0], [1.0]], 20, axis=0)
    given = {"startprob_init": [1.0, 0.0], "probabilities_init": [[0.0], [1.0]]}
    tiny = np.array([[1.0, 1e-150], [0.5, 0.5]])
    model = HiddenMarkovModel(2, emission="bernoulli", transmat_init=tiny, **given).fit(X)
    np.testing.assert_allclose(model.transmat_, [[0.95, 0.05], [0.0, 1.0]], atol=1e-12)
    log_likelihood = 19 * np.log(0.95) + np.log(0.05)
    assert model.objective_ == pytest.approx(log_likelihood)
    # Without it there is no way.
    with pytest.raises(ImpossibleRowError, match="row 20 of X"):
        HiddenMarkovModel(2, emission="bernoulli", transmat_init=np.eye(2), **given).fit(X)
    # Not taken for impossible by what is said of rows afterwards.
    model.transmat_ = tiny
    assert model.score(X) == pytest.approx(np.log(1e-150) + 19 * np.log(0.5))


BAD_VALUES = [
    ("poisson", -1.0, r"X\[5, 1\] is -1"),
    ("poisson", 0.5, r"X\[5, 1\] is 0.5"),
    ("bernoulli", 2.0, r"X\[5, 1\] is 2"),
    ("categorical", 1.5, r"X\[5, 1\] is 1.5"),
]


@pytest.mark.parametrize(("emission", "value", "words"), BAD_VALUES)
def test_values_that_are_no_counts_or_symbols(emission, value, words):
    good = np.random.default_rng(7).integers(2, size=(40, 2)).astype(float)
    bad = good.copy()
    bad[5, 1] = value
    with pytest.raises(ValueError, match=words):
        HiddenMarkovModel(2, emission=emission).fit(bad)
    model = HiddenMarkovModel(2, emission=emission, tol=1.0, random_state=0).fit(good)
    for ask in (model.predict, model.predict_proba, model.score, model.decode, model.filter):
        with pytest.raises(ValueError, match=words):
            ask(bad)


def test_unseen_symbols_are_named():
    good = np.random.default_rng(8).integers(3, size=(40, 2))
    model = HiddenMarkovModel(2, emission="categorical", tol=1.0, random_state=0).fit(good)
    unseen = good.copy()
    unseen[9, 0] = 3
    with pytest.raises(ValueError, match=r"X\[9, 0\] is 3 .* from 0 to 2 are allowed"):
        model.score(unseen)


def test_statistics_of_a_long_chain_have_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(9)
    X = np.cumsum(rng.standard_normal((100_000, 4)), axis=0) % 7 + rng.standard_normal((100_000, 4))
    found = set()
    for n_threads in (1, 2, 3, 5):
        data = vbfast.ArrayData.of(X, n_threads=n_threads)
        model = vbfast.Model(vbfast.Chain(8), vbfast.Gaussian(4, "diag", frame=data.frame))
        theta = model.about((X[:8] - data.frame.origin) * data.frame.scale)
        stats = data.sum(model.visit, theta, vbfast.EM().assign(0))
        found.add(stats.buffer.tobytes())
    assert len(found) == 1


# Wrong once --------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("method", ["em", "crisp_em"])
@pytest.mark.parametrize("d", [4, 6, 12, 16, 33])
def test_covariances_are_those_of_the_states_rows(covariance_type, method, d):
    """States are plain to see; tiles are never full."""
    rng = np.random.default_rng(0)
    k, n = 5, 430
    states = np.repeat(rng.integers(0, k, n // 5), 5)
    X = 10 * rng.normal(size=(k, d))[states] + rng.normal(size=(n, d))
    model = HiddenMarkovModel(
        k, method=method, covariance_type=covariance_type, reg_covar=0, random_state=0
    ).fit(X)
    found = model.predict(X)
    scatter = np.zeros((k, d, d))
    for state in range(k):
        rows = X[found == state]
        np.testing.assert_allclose(model.means_[state], rows.mean(axis=0), atol=1e-11)
        scatter[state] = len(rows) * np.cov(rows.T, bias=True)
    if covariance_type == "tied":
        np.testing.assert_allclose(model.covariances_, scatter.sum(axis=0) / n, atol=1e-11)
    else:
        counts = np.bincount(found)[:, None, None]
        np.testing.assert_allclose(model.covariances_, scatter / counts, atol=1e-11)


@pytest.mark.parametrize("method", [*POINTS, "mean_field", "full"])
@pytest.mark.parametrize("far", [1e6, 1e8, 1e10, 1e100, 1e160, 1e300])
def test_probabilities_sum_to_one_however_far_a_row_lies(method, far):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 2))
    X[50:100] += 5
    if method == "full":
        method = vbfast.FullInference(n_draws=10, n_tune=5, n_chains=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few draws have not mixed
        model = HiddenMarkovModel(3, method=method, random_state=0).fit(X)
    away = X.copy()
    away[40], away[75], away[76] = far, -far, far
    for q in (model.predict_proba(away), model.filter(away)):
        np.testing.assert_allclose(q.sum(axis=1), 1, rtol=0, atol=1e-14)
    assert np.all(model.predict(away) == model.predict_proba(away).argmax(axis=1))
    each = model.score_samples(away)
    # Too far for float64 numbers: no more is said of it, as by mixtures; others are as they were.
    gone = [40, 75, 76] if far > 1e153 else []
    np.testing.assert_array_equal(np.flatnonzero(np.isneginf(each)), gone)
    assert model.score(away) == each.sum()
    value, path = model.decode(away)
    assert path.shape == (150,)
    assert (value == -np.inf) == (far > 1e153)


@pytest.mark.parametrize("count", [1e6, 1e12, 9e15])
def test_probabilities_of_huge_counts(count):
    rng = np.random.default_rng(0)
    X = rng.poisson(5.0, (200, 2)).astype(float)
    X[100:] += 10
    model = HiddenMarkovModel(3, emission="poisson", random_state=0).fit(X)
    X[50], X[120] = count, [0, count]
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=0, atol=1e-14)


def test_scores_of_rows_far_away_do_not_overflow_in_sums():
    """Several of -1e308 and less, averaged over draws; what comes after them is as it is."""
    rng = np.random.default_rng(0)
    X, _ = sequences(rng, [60], apart=4.0)
    method = vbfast.FullInference(n_draws=200, n_tune=50, n_chains=2)
    model = HiddenMarkovModel(2, method=method, random_state=0).fit(X)
    far = X.copy()
    far[4:24] = 1e154
    scores = model.score_samples(far)
    assert np.all(np.isfinite(scores))
    assert np.all(scores[4:24] < -1e300)
    assert np.all(scores[24:] < -2)
    np.testing.assert_array_equal(scores[:4], model.score_samples(X)[:4])


@pytest.mark.parametrize("emission", ["poisson", "exponential", "categorical"])
def test_covariances_of_rows_that_have_none_tell_nothing(emission):
    X = np.random.default_rng(3).poisson(3, (60, 2)) + 1.0
    chain = HiddenMarkovModel(2, emission=emission, method="mean_field", random_state=0).fit(X)
    expected = chain.predict_proba(X)
    chain.set_params(covariance_type="full")
    np.testing.assert_array_equal(chain.predict_proba(X), expected)


@pytest.mark.parametrize("p", [1e-290, 1e-305, 1e-315, 5e-324])
def test_probabilities_next_to_0_are_taken_as_they_are(p):
    """One path alone is possible, and takes a step of this probability."""
    chain = vbfast.HiddenMarkovModel(2, emission="bernoulli")
    chain.startprob_, chain.transmat_ = np.array([1.0, 0.0]), np.array([[1.0, p], [0.0, 1.0]])
    chain.probabilities_ = np.array([[1.0], [0.0]])
    for value in (chain.score([[1], [0]]), chain.decode([[1], [0]])[0]):
        assert value == pytest.approx(np.log(p), rel=1e-13)
    chain.startprob_, chain.transmat_ = np.array([1.0, p]), np.eye(2)
    assert chain.score([[0]]) == pytest.approx(np.log(p), rel=1e-13)
