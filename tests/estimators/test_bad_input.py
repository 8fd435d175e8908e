"""Bad input: what is refused, by which error, with which words; and that nothing has changed then.

An error names the argument, the index, the value and what is allowed.
"""

import copy
import pickle
import re
import sys

import numpy as np
import pytest

import vbfast
import vbfast.starts
from vbfast import BayesianGaussianMixture, GaussianMixture, MixtureModel
from vbfast.estimators import checks

NAN, INF = np.nan, np.inf
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2))
X[10:] += 5.0

PREDICTIONS = (
    "predict",
    "predict_proba",
    "score_samples",
    "score",
    "bic",
    "aic",
    "icl",
    "co_assignment",
)


def with_value(value, row=7, column=1, dtype=np.float64):
    rows = X.astype(dtype)
    rows[row, column] = value
    return rows


def frozen(estimator):
    """All that a fit has set, arrays by value, everything else by identity."""
    parameters = estimator.get_params()
    return {
        name: (id(value), value.tobytes() if isinstance(value, np.ndarray) else None)
        for name, value in vars(estimator).items()
        if name not in parameters
    }


def refuses(estimator, error, *words, rows=X, sample_weight=None):
    """The fit raises this very error, with these words, and leaves a fitted estimator alone."""
    options = estimator.get_params()
    fitted = type(estimator)(2, random_state=0).fit(X).set_params(**options)
    before = frozen(fitted)
    for candidate in (estimator, fitted):
        with pytest.raises(error, match=".*".join(map(re.escape, words))) as raised:
            candidate.fit(rows, sample_weight=sample_weight)
        assert type(raised.value) is error
    assert frozen(fitted) == before
    assert frozen(estimator) == {}
    # It still predicts, with the type of covariances that it was fitted with.
    fitted.set_params(covariance_type="full", n_threads=None).predict(X)


# -- parameters whatever reads them -------------------------------------------------------------

METHODS = {
    "em": "em",
    "mean_field": "mean_field",
    "full": vbfast.FullInference(n_tune=2, n_draws=2, n_chains=1),
}
EMISSIONS = ("gaussian", "poisson", "exponential", "bernoulli", "categorical")
ESTIMATORS = {
    "mixture": (MixtureModel, EMISSIONS),
    "chain": (vbfast.HiddenMarkovModel, EMISSIONS),
    "coupled": (vbfast.FactorialHMM, (None,)),
    "gaussian": (GaussianMixture, (None,)),
    "bayesian": (BayesianGaussianMixture, (None,)),
}
FITS = [
    (name, emission, method)
    for name, (_, emissions) in ESTIMATORS.items()
    for emission in emissions
    for method in METHODS
]


@pytest.mark.filterwarnings("ignore::vbfast.ConvergenceWarning")
@pytest.mark.parametrize(("name", "emission", "method"), FITS)
def test_every_parameter_is_checked_whether_or_not_it_is_read(name, emission, method):
    kind, _ = ESTIMATORS[name]
    rows = (X > 1).astype(float)
    options = {"method": METHODS[method], "random_state": 0, "max_iter": 3}
    if emission is not None:
        options["emission"] = emission
    if emission == "exponential":  # rows of 0 alone have no rate
        rows += 1.0
    kind(**options).fit(rows)
    for parameter in kind().get_params():
        for value in (object(), "a", [[["x"]]], -1.5):
            with pytest.raises((TypeError, ValueError)):
                kind(**(options | {parameter: value})).fit(rows)


# -- X ------------------------------------------------------------------------------------------

BAD_ROWS = {
    "NaN": (with_value(NAN), ValueError, "X contains NaN at row 7, column 1"),
    "infinity": (with_value(INF), ValueError, "X contains infinity at row 7, column 1"),
    "minus infinity": (with_value(-INF, 19, 0), ValueError, "X contains infinity at row 19, col"),
    "NaN in float32": (with_value(NAN, 3, 0, np.float32), ValueError, "NaN at row 3, column 0"),
    "NaN in columns": (np.asfortranarray(with_value(NAN)), ValueError, "NaN at row 7, column 1"),
    "None": ([[1.0, None], [2.0, 3.0]], ValueError, "NaN at row 0, column 1"),
    "beyond float64": (
        X.astype(np.longdouble) * np.longdouble("1e400"), ValueError, "infinity at row 0, column 0"
    ),
    "0-D": (3.0, ValueError, "X must be two-dimensional", "got shape ()"),
    "1-D": (X[:, 0], ValueError, "X must be two-dimensional", "got shape (20,)", "reshape"),
    "3-D": (X[None], ValueError, "X must be two-dimensional", "got shape (1, 20, 2)"),
    "nothing": (None, ValueError, "X must"),
    "ragged": ([[1.0, 2.0], [3.0]], ValueError, "X must be two-dimensional"),
    "no rows": (X[:0], ValueError, "X: 0 sample(s)", "(0, 2)", "minimum of 1"),
    "no columns": (X[:, :0], ValueError, "X: 0 feature(s)", "(20, 0)", "minimum of 1"),
    "strings": ([["a", "b"], ["c", "d"]], ValueError, "X must hold real numbers", "<U1"),
    "numbers as strings": ([["1", "2"], ["3", "4"]], ValueError, "X must hold real", "<U1"),
    "bytes": (np.array([[b"1"]]), ValueError, "X must hold real numbers", "|S1"),
    "string among objects": (
        np.array([[1, "a"], [2, 3]], dtype=object), ValueError, "X must hold real numbers", "'a'"
    ),
    "dates": (np.zeros((3, 2), "M8[s]"), ValueError, "X must hold real numbers", "datetime64"),
    "records": (np.zeros(3, [("a", float)]), ValueError, "X must hold real numbers"),
    "complex": (X + 1j, ValueError, "X", "Complex data not supported", "complex128"),
    "complex objects": (
        np.array([[1, 1j], [2, 3]], dtype=object), TypeError, "X must hold real numbers", "complex"
    ),
    "beyond float64 among objects": (
        np.array([[10**400, 1], [2, 3]], dtype=object), ValueError, "X must hold real", "too large"
    ),
    "dictionary": ({"a": 1}, TypeError, "X must hold real numbers", "dict"),
    "masked": (np.ma.masked_greater(X, 1.0), ValueError, "X has masked entries"),
    "wider than float64": (
        [[-1e308, 0.0], [1e308, 1.0]], ValueError, "column 0", "-1e+308 to 1e+308", "other units"
    ),
    "narrower than variances": (
        X * [1.0, 1e-200], ValueError, "column 1", "1e-151", "allowed", "other units"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_fit_refuses_rows(name):
    rows, error, *words = BAD_ROWS[name]
    refuses(GaussianMixture(), error, *words, rows=rows)


def test_a_mask_that_hides_nothing_is_taken():
    GaussianMixture().fit(np.ma.masked_array(X, mask=False))


def test_sparse_rows():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    rows = scipy_sparse.csr_array(X)
    refuses(GaussianMixture(), TypeError, "X is a sparse matrix", "toarray", rows=rows)


@pytest.mark.parametrize("function", PREDICTIONS)
def test_predictions_refuse_rows(function):
    mixture = GaussianMixture(2, random_state=0).fit(X)
    predict = getattr(mixture, function)
    for name in ("NaN", "infinity", "1-D", "3-D", "no rows", "strings", "complex", "masked"):
        rows, error, *words = BAD_ROWS[name]
        with pytest.raises(error, match=".*".join(map(re.escape, words))):
            predict(rows)
    for columns in (1, 3):
        with pytest.raises(ValueError, match=f"X has {columns} features.*expecting 2 features"):
            predict(np.zeros((4, columns)))


@pytest.mark.parametrize("function", PREDICTIONS)
@pytest.mark.parametrize("value", ["ful", [], None])
def test_predictions_refuse_another_covariance_type(function, value):
    mixture = GaussianMixture(2, random_state=0).fit(X).set_params(covariance_type=value)
    allowed = f"covariance_type must be one of 'full', .*not {re.escape(repr(value))}"
    with pytest.raises(ValueError, match=allowed):
        getattr(mixture, function)(X)


@pytest.mark.parametrize("function", PREDICTIONS)
def test_lists_in_place_of_attributes(function):
    mixture = GaussianMixture(2, random_state=0).fit(X)
    expected = getattr(mixture, function)(X)
    for name in ("weights_", "means_", "precisions_cholesky_"):
        setattr(mixture, name, getattr(mixture, name).tolist())
    assert np.array_equal(getattr(mixture, function)(X), expected)


@pytest.mark.parametrize("function", [*PREDICTIONS, "sample"])
def test_not_fitted(function):
    # As both libraries' error, so that either is caught.
    from sklearn.exceptions import NotFittedError

    for error in (vbfast.NotFittedError, NotFittedError, ValueError, AttributeError):
        with pytest.raises(error, match=r"This GaussianMixture instance is not fitted yet.*'fit'"):
            getattr(GaussianMixture(), function)(*([] if function == "sample" else [X]))


@pytest.mark.parametrize("with_sklearn", [True, False])
def test_not_fitted_crosses_processes(with_sklearn, monkeypatch):
    from sklearn.exceptions import NotFittedError

    if not with_sklearn:
        monkeypatch.delitem(sys.modules, "sklearn.exceptions")
    error = vbfast.exceptions.not_fitted_error("not fitted yet")
    error.add_note("in a worker")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert isinstance(again, vbfast.NotFittedError)
        assert isinstance(again, NotFittedError) == with_sklearn
        assert str(again) == "not fitted yet"
        assert again.__notes__ == ["in a worker"]


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (None, TypeError)]
)
def test_sample_refuses(value, error):
    mixture = GaussianMixture().fit(X)
    with pytest.raises(error, match=f"n_samples must be an integer >= 1, not {value!r}"):
        mixture.sample(value)


# -- weights ------------------------------------------------------------------------------------


def weight_but(value, index=4):
    weight = np.ones(20)
    weight[index] = value
    return weight


@pytest.mark.parametrize(
    ("sample_weight", "words"),
    [
        (weight_but(-1.0), ["sample_weight[4] is -1.0", "must be finite and >= 0"]),
        (weight_but(NAN), ["sample_weight[4] is nan", "must be finite and >= 0"]),
        (weight_but(INF, 19), ["sample_weight[19] is inf", "must be finite and >= 0"]),
        (np.ones(3), ["sample_weight must have shape (20,)", "got (3,)"]),
        (np.ones((20, 1)), ["sample_weight must have shape (20,)", "got (20, 1)"]),
        (np.zeros(20), ["sample_weight is zero for every row"]),
        (["a"] * 20, ["sample_weight must hold real numbers", "<U1"]),
        (np.ones(20) * 1j, ["sample_weight must hold real numbers", "complex"]),
        ([None] * 20, ["sample_weight must hold real numbers", "object"]),
        (np.full(20, 1e-8), ["sample_weight sums to 2.0", "1e-06 to 1e+50"]),
        (np.full(20, 1e-320), ["sample_weight sums to 2e-319", "1e-06 to 1e+50"]),
        (np.full(20, 1e308), ["sample_weight sums to inf", "1e-06 to 1e+50"]),
    ],
)
def test_fit_refuses_weights(sample_weight, words):
    refuses(GaussianMixture(), ValueError, *words, sample_weight=sample_weight)


def test_full_inference_takes_whole_weights():
    words = ["sample_weight[4] is 0.5", "full inference", "whole weights"]
    refuses(GaussianMixture(method="full"), ValueError, *words, sample_weight=weight_but(0.5))


@pytest.mark.parametrize("Estimator", [GaussianMixture, BayesianGaussianMixture])
def test_fewer_rows_than_components(Estimator):
    refuses(Estimator(4), ValueError, "n_components=4 is more than the 3 rows", rows=X[:3])
    weight = (np.arange(20) < 3).astype(float)
    words = ["n_components=4 is more than the 3 rows", "positive weight"]
    refuses(Estimator(4), ValueError, *words, sample_weight=weight)


# -- parameters ---------------------------------------------------------------------------------

WHOLE = [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)]
WHOLE_OR_ZERO = [(-1, ValueError), (1.5, TypeError), ("a", TypeError), (None, TypeError)]
NON_NEGATIVE = [
    (-1e-9, ValueError), (NAN, ValueError), (INF, ValueError), ("a", TypeError), (None, TypeError),
    (1j, TypeError), (True, TypeError),
]  # fmt: skip
POSITIVE = [(0.0, ValueError), (-1.0, ValueError), (NAN, ValueError), (INF, ValueError),
            ("a", TypeError), (1j, TypeError), ([1.0], TypeError)]  # fmt: skip
NUMBER_OR_NONE = [case for case in NON_NEGATIVE if case[0] is not None]
CHOICE = [("other", ValueError), (None, ValueError), (3, ValueError), (["full"], ValueError)]
BAD_NUMBERS = {
    "n_components": ([*WHOLE, (None, TypeError), (NAN, TypeError)], "an integer >= 1"),
    "max_iter": ([*WHOLE_OR_ZERO, (None, TypeError)], "an integer >= 0"),
    "n_init": ([*WHOLE, (None, TypeError)], "an integer >= 1"),
    "verbose": (WHOLE_OR_ZERO, "an integer >= 0"),
    "verbose_interval": ([*WHOLE, (None, TypeError)], "an integer >= 1"),
    "n_threads": (WHOLE, "None or an integer >= 1"),
    "tol": (NUMBER_OR_NONE, "None or a finite number >= 0"),
    "reg_covar": (NON_NEGATIVE, "a finite number >= 0"),
    "weight_concentration_prior": (POSITIVE, "None or a finite number > 0"),
    "mean_precision_prior": (POSITIVE, "None or a finite number > 0"),
    "degrees_of_freedom_prior": (POSITIVE, "None or a finite number > 0"),
    "covariance_type": (CHOICE, "one of 'full', 'tied', 'diag', 'spherical'"),
    "init_params": (
        CHOICE, "one of 'auto', 'kmeans', 'whitened', 'k-means++', 'random', 'random_from_data'"
    ),
    "weight_concentration_prior_type": (
        CHOICE, "one of 'dirichlet_distribution', 'dirichlet_process'"
    ),
    "method": ([*CHOICE[:3], (vbfast.EM, ValueError)], "one of 'full', 'mean_field', 'em', "),
    "warm_start": ([("yes", TypeError), (1, TypeError), (None, TypeError)], "True or False"),
    "random_state": (
        [("a", TypeError), (1.5, TypeError), (True, TypeError)], "None, an integer >= 0, a numpy"
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "error", "allowed"),
    [
        (name, value, error, allowed)
        for name, (cases, allowed) in BAD_NUMBERS.items()
        for value, error in cases
    ],
)
def test_parameters_out_of_range_or_of_a_wrong_type(name, value, error, allowed):
    options = {"n_components": 2} | {name: value}
    refuses(GaussianMixture(**options), error, f"{name} must be {allowed}", f"not {value!r}")


def test_a_negative_seed():
    refuses(GaussianMixture(random_state=-1), ValueError, "random_state must be >= 0, not -1")


def test_parameters_that_numpy_made_are_taken():
    mixture = GaussianMixture(
        np.int64(2), tol=np.float32(1e-3), max_iter=np.int32(200), reg_covar=0,
        warm_start=np.bool_(False), n_threads=np.int64(1), random_state=np.int64(3),
    )  # fmt: skip
    assert mixture.fit(X).converged_
    # No machine has so many; idle threads are no error.
    GaussianMixture(2, n_threads=10**12, random_state=0).fit(X)


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
def test_a_narrow_number_of_components(init):
    # 100 rows for each component, as k-means takes, are more than an int8 can count.
    found, expected = (
        GaussianMixture(k, init_params=init, random_state=0).fit(X) for k in (np.int8(2), 2)
    )
    np.testing.assert_array_equal(found.means_, expected.means_)


@pytest.mark.parametrize("name", ["tol", "reg_covar", "mean_precision_prior", "weights_init"])
def test_integers_that_no_float64_is(name):
    huge = [10**400, 1] if name == "weights_init" else 10**400
    refuses(GaussianMixture(2, **{name: huge}), ValueError, name)


def test_symbols_that_no_float64_is():
    with pytest.raises(ValueError, match=r"X\[0, 1\] is .*whole numbers below 2\^53"):
        MixtureModel(1, emission="categorical").fit([["a", 10**400], ["b", 0]])


def test_narrow_concentrations_of_chains():
    rows = np.random.default_rng(0).normal(size=(30, 2))
    fitted = vbfast.FactorialHMM(
        2, 2, start_concentration_prior=np.float16(2), transition_concentration_prior=np.float16(2),
        max_iter=2, tol=1.0, random_state=0,
    )  # fmt: skip
    assert np.isfinite(fitted.fit(rows).objective_)


def test_masks_of_weights_and_lengths():
    masked = np.ma.array(np.ones(4), mask=[True, False, False, False])
    with pytest.raises(ValueError, match="sample_weight has masked entries"):
        GaussianMixture(1).fit(X, sample_weight=masked)
    with pytest.raises(ValueError, match="lengths has masked entries"):
        vbfast.HiddenMarkovModel(1).fit(X, lengths=masked)


@pytest.mark.parametrize("kind", [vbfast.MixtureModel, vbfast.HiddenMarkovModel])
def test_a_narrow_number_of_components_of_many_symbols(kind):
    rows = np.random.default_rng(0).integers(0, 3, (40, 5))
    found, expected = (
        kind(k, emission="categorical", n_categories=1000, random_state=0).fit(rows)
        for k in (np.int8(3), 3)
    )
    np.testing.assert_array_equal(found.probabilities_, expected.probabilities_)


def test_narrow_numbers_of_chains_and_states():
    rows = np.random.default_rng(0).normal(size=(60, 70))
    found, expected = (
        vbfast.FactorialHMM(m, k, max_iter=3, tol=1.0, random_state=0).fit(rows)
        for m, k in ((np.int8(2), np.int8(2)), (2, 2))
    )
    np.testing.assert_array_equal(found.means_, expected.means_)


BAD_ARRAYS = [
    ("full", "weights_init", [0.5, 0.2, 0.3], ValueError, "must have shape (2,), got (3,)"),
    ("full", "weights_init", [[0.5, 0.5]], ValueError, "must have shape (2,), got (1, 2)"),
    ("full", "weights_init", [NAN, 1.0], ValueError, "[0] is nan; values must be finite"),
    ("full", "weights_init", [1.5, -0.5], ValueError, "[0] is 1.5; probabilities must lie in"),
    ("full", "weights_init", [0.5, 0.4], ValueError, "must sum to 1, not to 0.9"),
    ("full", "weights_init", "ab", TypeError, "must hold real numbers, not 'ab'"),
    ("full", "means_init", [1.0, 2.0], ValueError, "must have shape (2, 2), got (2,)"),
    ("full", "means_init", np.zeros((2, 3)), ValueError, "must have shape (2, 2), got (2, 3)"),
    ("full", "means_init", [[0, 0], [INF, 0]], ValueError, "[1, 0] is inf; values must be finite"),
    ("full", "means_init", [["a", 1], [2, 3]], TypeError, "must hold real numbers"),
    ("full", "means_init", [[1j, 1], [2, 3]], TypeError, "must hold real numbers"),
    ("full", "means_init", [[0, 0], [0, 1e9]], ValueError, "[1, 1] is 1e+09, ", "1e+08 at most"),
    ("full", "precisions_init", np.eye(2), ValueError, "must have shape (2, 2, 2), got (2, 2)"),
    ("full", "precisions_init", [np.eye(2), np.ones((2, 2))], ValueError,
     "[1] must be positive definite; its smallest eigenvalue is 0"),
    ("full", "precisions_init", [np.eye(2), [[1, 2], [0, 1]]], ValueError, "[1] must be symmetric"),
    ("full", "precisions_init", np.full((2, 2, 2), NAN), ValueError, "[0, 0, 0] is nan"),
    ("full", "precisions_init", [np.eye(2), 1e99 * np.eye(2)], ValueError,
     "[1, 0, 0] is 1e+99", "allowed"),
    ("tied", "precisions_init", np.eye(3), ValueError, "must have shape (2, 2), got (3, 3)"),
    ("tied", "precisions_init", -np.eye(2), ValueError, "must be positive definite; ", "is -1"),
    ("tied", "precisions_init", 1e-310 * np.eye(2), ValueError, "[0, 0] is 1e-310", "allowed"),
    ("diag", "precisions_init", [1, 1], ValueError, "must have shape (2, 2), got (2,)"),
    ("diag", "precisions_init", [[1, 1], [1, 0]], ValueError, "[1, 1] is 0.0; values must be > 0"),
    ("diag", "precisions_init", [[1, 1], [1e99, 1]], ValueError, "[1, 0] is 1e+99", "allowed"),
    ("spherical", "precisions_init", [1, -1], ValueError, "[1] is -1.0; values must be > 0"),
    ("spherical", "precisions_init", [[1, 1]], ValueError, "must have shape (2,), got (1, 2)"),
    ("spherical", "precisions_init", [1, 1e99], ValueError, "[1] is 1e+99", "allowed"),
    ("full", "mean_prior", [1.0], ValueError, "must have shape (2,), got (1,)"),
    ("full", "mean_prior", 3.0, ValueError, "must have shape (2,), got ()"),
    ("full", "mean_prior", [0.0, NAN], ValueError, "[1] is nan; values must be finite"),
    ("full", "mean_prior", ["a", 1], TypeError, "must hold real numbers"),
    ("full", "mean_prior", [0, 1e200], ValueError, "[1] is 1e+200", "1e+100 at most"),
    ("full", "covariance_prior", np.eye(3), ValueError, "must have shape (2, 2), got (3, 3)"),
    ("full", "covariance_prior", 1.0, ValueError, "must have shape (2, 2), got ()"),
    ("full", "covariance_prior", np.ones((2, 2)), ValueError, "must be positive definite"),
    ("tied", "covariance_prior", -np.eye(2), ValueError, "must be positive definite", "is -1"),
    ("tied", "covariance_prior", [[1, 2], [0, 1]], ValueError, "must be symmetric"),
    ("full", "covariance_prior", [[1, NAN], [NAN, 1]], ValueError, "[0, 1] is nan"),
    ("full", "covariance_prior", "ab", TypeError, "must hold real numbers, not 'ab'"),
    ("diag", "covariance_prior", np.eye(2), ValueError, "must have shape (2,), got (2, 2)"),
    ("diag", "covariance_prior", [1, 0], ValueError, "[1] is 0.0; values must be > 0"),
    ("spherical", "covariance_prior", [1.0], ValueError, "must have shape (), got (1,)"),
    ("spherical", "covariance_prior", 0, ValueError, " is 0.0; values must be > 0"),
    ("diag", "mean_variance_prior", [1, -1], ValueError, "[1] is -1.0; values must be > 0"),
    ("diag", "mean_variance_prior", [1.0], ValueError, "must have shape (2,), got (1,)"),
    ("spherical", "mean_variance_prior", 0.0, ValueError, " is 0.0; values must be > 0"),
    ("spherical", "mean_variance_prior", "a", TypeError, "must hold real numbers, not 'a'"),
    ("full", "mean_variance_prior", 1.0, ValueError, " is for covariance_type 'diag' and 'spher"),
]  # fmt: skip


@pytest.mark.parametrize(("covariance_type", "name", "value", "error", "start", "more"), [
    (*case[:5], case[5:]) for case in BAD_ARRAYS
])  # fmt: skip
def test_arrays_of_priors_and_starts(covariance_type, name, value, error, start, more):
    mixture = GaussianMixture(2, covariance_type=covariance_type, **{name: value})
    space = "" if start[0] in "[ " else " "
    refuses(mixture, error, name + space + start, *more)


def test_rounding_around_zero_is_symmetric():
    # The inverse of an AR(1) covariance has three diagonals; elsewhere it is rounding.
    lag = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    precision = np.linalg.inv(0.7**lag)
    assert not np.allclose(precision, precision.T, rtol=1e-6, atol=0.0)
    rows = RNG.normal(size=(30, 6))
    GaussianMixture(1, precisions_init=precision[None]).fit(rows)
    # In whatever units the features are.
    units = np.array([1e-8, 1.0, 1e8, 1.0, 1e-8, 1e8])
    GaussianMixture(1, covariance_prior=precision * np.outer(units, units)).fit(rows * units)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ([[1e-20, 2e-15], [1e-15, 1.0]], "must be symmetric"),
        ([[1e20, 2.0], [1.0, 1e-20]], "must be symmetric"),
        ([[1.0, 2.0], [1.0, -1.0]], "must be positive definite"),
        ([[0.0, 1e-20], [0.0, 1.0]], "must be positive definite"),
        ([[1.0, 1e308], [-1e308, 1.0]], "must be symmetric"),
    ],
)
def test_matrices_against_their_diagonal(matrix, words):
    refuses(GaussianMixture(2, covariance_prior=matrix), ValueError, "covariance_prior", words)


@pytest.mark.parametrize("method", ["em", "variational_em", "crisp_em"])
def test_priors_without_a_mode(method):
    mixture = GaussianMixture(2, method=method, weight_concentration_prior=0.5)
    refuses(mixture, ValueError, "weight_concentration_prior=0.5 is below 1", "mode", repr(method))
    mixture = GaussianMixture(2, method=method, degrees_of_freedom_prior=1.5)
    refuses(mixture, ValueError, "degrees_of_freedom_prior=1.5 is below 2", "mode", repr(method))


def test_degrees_of_freedom_and_features():
    mixture = BayesianGaussianMixture(degrees_of_freedom_prior=1)
    refuses(mixture, ValueError, "degrees_of_freedom_prior must be greater than 1 (features - 1)")


def test_two_priors_on_the_means():
    mixture = GaussianMixture(
        2, covariance_type="diag", mean_variance_prior=1.0, mean_precision_prior=1.0
    )
    refuses(mixture, ValueError, "mean_precision_prior or mean_variance_prior, not both")


@pytest.mark.parametrize(
    ("Method", "name", "value", "error", "allowed"),
    [
        (Method, "max_iter", value, error, "an integer >= 0")
        for Method in (vbfast.EM, vbfast.MeanField, vbfast.CrispEM)
        for value, error in [*WHOLE_OR_ZERO, (None, TypeError)]
    ]
    + [(vbfast.VariationalEM, "tol", *case, "None or a .*number >= 0") for case in NUMBER_OR_NONE]
    + [(vbfast.VariationalEM, "truncation", *case, "an integer >= 1") for case in WHOLE]
    + [
        (vbfast.FullInference, name, *case, "an integer >= 1")
        for name in ("n_draws", "n_chains", "thin")
        for case in WHOLE
    ]
    + [(vbfast.FullInference, "n_tune", *case, "an integer >= 0") for case in WHOLE_OR_ZERO],
)
def test_methods_check_their_own(Method, name, value, error, allowed):
    with pytest.raises(error, match=f"{name} must be .*{allowed}, not {re.escape(repr(value))}"):
        Method(**{name: value})


BAD_MIXTURES = [
    *(("n_components", *case, "an integer >= 1") for case in WHOLE),
    *(("weight_prior", *case, "one of 'dirichlet_distribution', 'dirich") for case in CHOICE),
    *(("concentration", *case, "None or a finite number > 0") for case in POSITIVE),
    ("concentration", True, TypeError, "None or a finite number > 0"),
]


def test_full_inference_starts_each_of_its_chains():
    data = vbfast.ArrayData.of(X)
    model = vbfast.Model(vbfast.Mixture(2), vbfast.Gaussian(2, frame=data.frame))
    start = vbfast.starts.from_labels(model, data, X[:, 0] > 2)
    method = vbfast.FullInference(n_draws=2, n_tune=1, n_chains=10**12)  # takes no memory for them
    with pytest.raises(ValueError, match=r"posteriors must be 10+, one for each chain, not 2"):
        method.fit(model, data, [start, start], np.random.default_rng(0))


@pytest.mark.parametrize(("name", "value", "error", "allowed"), BAD_MIXTURES)
def test_mixture_checks_its_own(name, value, error, allowed):
    words = f"{name} must be {allowed}.*, not {re.escape(repr(value))}"
    with pytest.raises(error, match=words):
        vbfast.Mixture(**({"n_components": 2} | {name: value}))


def test_mixture_takes_numbers_of_numpy():
    mixture = vbfast.Mixture(np.int8(3), "dirichlet_process", np.float32(0.5))
    assert mixture == vbfast.Mixture(3, "dirichlet_process", 0.5)
    assert type(mixture.n_components) is int


# -- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_more_components_than_memory_for_them(covariance_type, monkeypatch):
    # All the same number in memory: rows of zero strides.
    rows = np.broadcast_to(np.linspace(0, 1, 300)[:, None], (300, 1000))
    monkeypatch.setattr(checks, "available_memory", lambda: 2.0**20)
    words = ["n_components=300 with 1000 features", covariance_type, "would need about", "GiB"]
    refuses(GaussianMixture(300, covariance_type=covariance_type), MemoryError, *words, rows=rows)


def test_page_cache_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "_CGROUP", tmp_path)
    free = checks.available_memory()
    assert free > 2.0**20
    (tmp_path / "memory.max").write_text(f"{2**20}\n")
    (tmp_path / "memory.current").write_text(f"{2**20 - 1000}\n")
    assert checks.available_memory() == 1000
    (tmp_path / "memory.stat").write_text("anon 5000\nfile 9000\ninactive_file 8000\n")
    assert checks.available_memory() == 9000
    (tmp_path / "memory.max").write_text("max\n")
    assert checks.available_memory() > 2.0**20


def test_what_this_machine_does_not_have():
    rows = np.broadcast_to(np.linspace(0, 1, 40_000)[:, None], (40_000, 1000))
    words = ["n_components=40000 with 1000 features", "would need about", "GiB", "available"]
    refuses(GaussianMixture(40_000), MemoryError, *words, rows=rows)
    draws = vbfast.FullInference(n_draws=10**12)
    refuses(GaussianMixture(2, method=draws), MemoryError, "n_components=2", "would need about")


# -- failures that show only during a fit -------------------------------------------------------


def test_a_likelihood_without_bound_leaves_the_estimator_alone():
    rows = np.repeat(X[:2], 10, axis=0)
    mixture = GaussianMixture(2, reg_covar=0.0)
    refuses(mixture, vbfast.DegenerateError, "component", "too few distinct rows", rows=rows)


def test_a_fit_that_is_interrupted_leaves_the_estimator_alone(monkeypatch):
    mixture = GaussianMixture(2, random_state=0).fit(X)
    before = frozen(mixture)
    sweeps = 0

    def interrupted(*args, **kwargs):
        nonlocal sweeps
        sweeps += 1
        if sweeps > 2:
            raise KeyboardInterrupt
        return visit(*args, **kwargs)

    visit = vbfast.Model.visit
    monkeypatch.setattr(vbfast.Model, "visit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mixture.set_params(method="full").fit(X + 1.0)
    assert frozen(mixture) == before


def test_more_copies_of_a_row_than_full_inference_draws():
    rows, weights = np.arange(6.0)[:, None], np.ones(6)
    for wrong in (2.0**53 + 2, 1e18, 0.5):
        weights[2] = wrong
        with pytest.raises(ValueError, match=r"sample_weight\[2\] is .*from 0 to 9007199254740992"):
            GaussianMixture(2, method="full").fit(rows, sample_weight=weights)
        # The parts are told so too.
        data = vbfast.ArrayData.of(rows, weights)
        prior = {"mean_precision": 1.0, "degrees_of_freedom": 2.0, "scatter": np.eye(1)}
        emission = vbfast.Gaussian(1, mean_prior=[0.0], **prior, frame=data.frame)
        model = vbfast.Model(vbfast.Mixture(2), emission)
        start = vbfast.starts.from_labels(model, data, np.arange(6) % 2)
        method = vbfast.FullInference(n_draws=1, n_tune=1, n_chains=1)
        with pytest.raises(ValueError, match=r"weights\[2\] is .*from 0 to 9007199254740992"):
            method.fit(model, data, [start], np.random.default_rng(0))
        with pytest.raises(ValueError, match=r"weights\[2\] is .*from 0 to 9007199254740992"):
            next(method.chain(model, data, start, np.random.default_rng(0)))


@pytest.mark.parametrize("weight", [10**6, 10**12, 10**15])
def test_full_inference_of_rows_that_are_many(weight):
    """What a row stands for costs nothing: each draw is of the whole data."""
    X = np.random.default_rng(0).standard_normal((60, 2)) + 4 * (np.arange(60) % 2)[:, None]
    fitted = GaussianMixture(
        2, method=vbfast.FullInference(n_draws=200, n_tune=20, n_chains=2), random_state=0
    ).fit(X, sample_weight=np.full(60, float(weight)))
    em = GaussianMixture(2, random_state=0, tol=1e-10).fit(X)
    order = np.argsort(fitted.means_[:, 0])
    # As precise as so many rows are, and EM.
    np.testing.assert_allclose(
        fitted.means_[order],
        em.means_[np.argsort(em.means_[:, 0])],
        atol=20 / np.sqrt(weight) + 1e-5,
    )


# -- counts and symbols -------------------------------------------------------------------------

COUNTS = np.array([[0.0, 3.0], [2.0, 0.0], [5.0, 1.0], [1.0, 1.0]])
BITS = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
ROWS_OF = {"poisson": COUNTS, "exponential": COUNTS + 1, "bernoulli": BITS, "categorical": BITS}
BAD_VALUES = [
    ("poisson", -1.0, "whole numbers from 0"),
    ("poisson", 0.5, "whole numbers from 0"),
    ("poisson", 1e17, "whole numbers from 0"),
    ("exponential", -1e-300, "0 and numbers from 1e-100 to 1e100"),
    ("exponential", 1e101, "0 and numbers from 1e-100 to 1e100"),
    ("exponential", 5e-324, "0 and numbers from 1e-100 to 1e100"),
    ("bernoulli", 2.0, "0 and 1 are allowed"),
    ("bernoulli", -1.0, "0 and 1 are allowed"),
    ("categorical", 0.5, "whole numbers"),
    ("categorical", 1e17, "whole numbers"),
    *((emission, NAN, "contains NaN") for emission in ROWS_OF),
    *((emission, INF, "contains infinity") for emission in ROWS_OF),
]


@pytest.mark.parametrize(("emission", "value", "words"), BAD_VALUES)
def test_values_that_are_no_counts_or_symbols(emission, value, words):
    rows = ROWS_OF[emission].copy()
    mixture = MixtureModel(2, emission=emission, random_state=0).fit(rows)
    before = dict(vars(mixture))
    rows[2, 1] = value
    where = "row 2, column 1"
    for refused in (mixture.fit, mixture.predict, mixture.predict_proba, mixture.score_samples):
        with pytest.raises(ValueError, match=words) as raised:
            refused(rows)
        assert where in str(raised.value)
    assert vars(mixture) == before


def test_rates_whose_sum_is_beyond_float64():
    mixture = MixtureModel(2, emission="poisson", random_state=0).fit(COUNTS)
    mixture.rates_[0] = 1e308
    np.testing.assert_array_equal(mixture.predict(COUNTS), 1)
    mixture.rates_[1] = 1e308
    assert (mixture.score_samples(COUNTS) == -INF).all()


def test_unseen_symbols():
    mixture = MixtureModel(2, emission="categorical", random_state=0).fit(BITS)
    with pytest.raises(ValueError, match=r"X\[1, 0\] is 2 .*from 0 to 1 are allowed"):
        mixture.predict([[0, 1], [2, 1]])
    wider = MixtureModel(2, emission="categorical", n_categories=[3, 2], random_state=0).fit(BITS)
    assert wider.score_samples([[2, 1]])[0] == -INF
    with pytest.raises(ValueError, match="from 0 to 1 are allowed"):
        MixtureModel(2, emission="categorical", n_categories=2).fit(COUNTS)


@pytest.mark.parametrize(
    ("emission", "parameters", "error", "words"),
    [
        ("other", {}, ValueError, "emission must be one of 'gaussian', 'poisson'"),
        (None, {}, ValueError, "emission must be one of"),
        ("poisson", {"n_components": 0}, ValueError, "n_components must be an integer >= 1"),
        ("poisson", {"n_components": 5}, ValueError, "more than the 4 rows"),
        ("poisson", {"shape_prior": 1.0}, ValueError, "shape_prior and rate_prior, or neither"),
        ("poisson", {"shape_prior": 0.0, "rate_prior": 1.0}, ValueError, "shape_prior is 0.0"),
        ("poisson", {"shape_prior": 1.0, "rate_prior": [1, -2]}, ValueError, r"rate_prior\[1\]"),
        ("poisson", {"shape_prior": "a", "rate_prior": 1.0}, TypeError, "shape_prior must hold"),
        ("poisson", {"shape_prior": [1] * 3, "rate_prior": 1}, ValueError, r"shape \(2,\)"),
        ("poisson", {"shape_prior": 0.5, "rate_prior": 1.0}, ValueError, "has no mode for 'em'"),
        ("poisson", {"means_init": [[1, 2]]}, ValueError, r"means_init must have shape \(2, 2\)"),
        ("poisson", {"means_init": [[1, 2], [3, -4]]}, ValueError, r"means_init\[1, 1\] is -4"),
        ("exponential", {"means_init": [[1, 2], [3, 0]]}, ValueError, r"means_init\[1, 1\] is 0"),
        ("exponential", {"shape_prior": 0.5, "rate_prior": 1}, ValueError, "has no mode for 'em'"),
        ("poisson", {"weights_init": [0.5, 0.6]}, ValueError, "weights_init must sum to 1"),
        ("poisson", {"probabilities_init": BITS[:2]}, ValueError, "probabilities_init is for"),
        ("poisson", {"covariance_prior": 1.0}, ValueError, "covariance_prior is for emission"),
        ("gaussian", {"n_categories": 2}, ValueError, "n_categories is for emission 'categorical'"),
        ("bernoulli", {"concentration_prior": 0.5}, ValueError, "has no mode for 'em'"),
        ("bernoulli", {"concentration_prior": [1, 2, 3]}, ValueError, "a number or two"),
        ("bernoulli", {"concentration_prior": -1}, ValueError, "concentration_prior"),
        ("bernoulli", {"concentration_prior": "x"}, TypeError, "concentration_prior must hold"),
        ("bernoulli", {"probabilities_init": 2 * BITS[:2]}, ValueError, r"init\[0, 1\] is 2"),
        ("categorical", {"concentration_prior": [1, 2, 3]}, ValueError, "concentration_prior"),
        ("categorical", {"n_categories": 0}, ValueError, "n_categories must be an integer >= 1"),
        ("categorical", {"n_categories": 2.5}, TypeError, "n_categories must be an integer >= 1"),
        ("categorical", {"n_categories": [2]}, ValueError, "or 2 of them"),
        (
            "categorical", {"probabilities_init": np.full((2, 2, 2), 0.4)}, ValueError,
            r"probabilities_init\[0, 0\] must sum to 1",
        ),
        (
            "categorical",
            {"probabilities_init": np.full((2, 2, 4), 0.25), "n_categories": [4, 2]}, ValueError,
            "feature 1 has 2 categories",
        ),
    ],
)  # fmt: skip
def test_parameters_of_mixture_models(emission, parameters, error, words):
    mixture = MixtureModel(**({"n_components": 2, "emission": emission} | parameters))
    before = dict(vars(mixture))
    with pytest.raises(error, match=words):
        mixture.fit(ROWS_OF.get(emission, BITS))
    assert vars(mixture) == before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vbfast.Poisson(2, shape=1.0), "shape and rate"),
        (lambda: vbfast.Exponential(2, rate=1.0), "shape and rate"),
        (lambda: vbfast.Bernoulli(2, 1.0), "a and b"),
        (lambda: vbfast.Bernoulli(2, 1.0, [1.0, 0.0]), r"b\[1\] is 0.0"),
        (lambda: vbfast.Categorical(2, 3, [1.0, NAN, 1.0]), r"concentration\[1\] is nan"),
    ],
)
def test_emissions_check_their_own(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("estimator", [MixtureModel, vbfast.HiddenMarkovModel])
def test_more_categories_than_memory_for_them(monkeypatch, estimator):
    monkeypatch.setattr(checks, "available_memory", lambda: 1e8)
    with pytest.raises(MemoryError, match="GiB are available"):
        estimator(2, emission="categorical", n_categories=1_000_000_001).fit(BITS)
    with pytest.raises(MemoryError, match="GiB are available"):
        estimator(2000, emission="categorical", n_categories=200).fit(np.tile(BITS, (2000, 1)))


@pytest.mark.parametrize("estimator", [MixtureModel, vbfast.HiddenMarkovModel])
@pytest.mark.parametrize("largest", [10_000, 1e8, 1e9])
def test_symbols_of_which_few_are_there(estimator, largest):
    rows = np.tile(BITS.astype(float), (4, 1))
    rows[5, 1] = largest
    model = estimator(2, emission="categorical", random_state=0)
    np.testing.assert_array_equal(model.fit(rows).categories_[1], [0, 1, largest])
    model.set_params(n_categories=[2, 10_001])
    if largest == 10_000:
        assert model.fit(rows).n_categories_[1] == 10_001
    # Of many that are there none is too large.
    many = np.arange(0, 6000, 3.0)[:, None]
    assert estimator(1, emission="categorical", random_state=0).fit(many).n_categories_[0] == 2000


@pytest.mark.parametrize("n_threads", [np.array([2]), 1.5, "2", True, 0])
def test_threads_that_are_no_number(n_threads):
    mixture = GaussianMixture(2, n_threads=n_threads)
    with pytest.raises((TypeError, ValueError), match="n_threads must be None or an integer >= 1"):
        mixture.fit(np.random.default_rng(0).normal(size=(20, 2)))


@pytest.mark.parametrize(
    "make",
    [
        lambda method: MixtureModel(2, emission="exponential", method=method),
        lambda method: vbfast.HiddenMarkovModel(2, emission="exponential", method=method),
        lambda method: vbfast.FactorialHMM(2, 2, method=method),
    ],
)
def test_more_draws_than_there_is_memory_for(make):
    X = 1.0 + np.random.default_rng(0).random((20, 2))
    with pytest.raises(MemoryError, match=f"n_draws={2**62}"):
        make(vbfast.FullInference(2**62, 1, 1)).fit(X)


def test_weights_may_be_objects_that_are_numbers():
    X = np.random.default_rng(0).normal(size=(20, 2))
    plain, other = (
        GaussianMixture(2, random_state=0).fit(X, sample_weight=np.ones(20, dtype=dtype))
        for dtype in (float, object)
    )
    np.testing.assert_array_equal(plain.means_, other.means_)
    with pytest.raises(ValueError, match="sample_weight must hold real numbers"):
        plain.fit(X, sample_weight=["a"] * 20)
