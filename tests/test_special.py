"""Functions that large arguments would make differences of large numbers of."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
import reference as ref
from hypothesis import given
from hypothesis import strategies as st

from vbfast import _kernels, special
from vbfast.conjugate import Gamma

positive = st.floats(-8, 16).map(lambda power: 10.0**power)


def precise(function, *arguments):
    """The value of a function of Decimals."""
    with localcontext() as context:
        context.prec = 60
        return float(function(*(Decimal(float(each)) for each in arguments)))


def stirling(x):
    """What Stirling's formula has of log Gamma(x + 1)."""
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875021")
    return (x + Decimal("0.5")) * x.ln() - x + two_pi.ln() / 2


@given(positive)
def test_beyond_stirling(x):
    expected = precise(lambda x: ref.precise_log_gamma(x + 1) - stirling(x), x)
    assert special.beyond_stirling(np.array([x])) == pytest.approx(expected, rel=1e-9, abs=1e-13)


@given(positive, positive)
def test_count_deviance(x, mean):
    expected = precise(lambda x, mean: x * (x / mean).ln() - x + mean, x, mean)
    found = special.count_deviance(np.array([x]), np.array([mean]))
    assert found == pytest.approx(expected, rel=1e-13)


@given(positive, st.floats(-7, 7))
def test_count_deviance_of_a_count_near_its_mean(x, deviations):
    mean = x + deviations * np.sqrt(x)
    if mean > 0:
        expected = precise(lambda x, mean: x * (x / mean).ln() - x + mean, x, mean)
        found = special.count_deviance(np.array([x]), np.array([mean]))
        assert found == pytest.approx(expected, rel=1e-13)


@given(st.floats(-30, 30) | st.floats(-1e-3, 1e-3))
def test_beyond_linear(x):
    expected = precise(lambda x: x.exp() - 1 - x, x)
    assert special.beyond_linear(np.array([x])) == pytest.approx(expected, rel=1e-13)


@given(positive)
def test_digamma_less_log(x):
    def between(x):
        h = Decimal("1e-20") * x
        slope = (ref.precise_log_gamma(x + h) - ref.precise_log_gamma(x - h)) / (2 * h)
        return slope - x.ln()

    found = special.digamma_less_log(np.array([x]))
    assert found == pytest.approx(precise(between, x), rel=1e-11)


@given(positive, st.sampled_from([0.5, 1.0, 3.5, 60.0]))
def test_log_gamma_step(x, step):
    expected = precise(
        lambda x, step: ref.precise_log_gamma(x + step) - ref.precise_log_gamma(x), x, step
    )
    found = special.log_gamma_step(np.array([x]), step)
    assert found == pytest.approx(expected, rel=1e-13, abs=1e-12)


@given(positive, positive, positive, st.floats(-5, 5))
def test_kl_of_gammas(shape, other_shape, other_rate, spread):
    """Of means that are about as far apart as the narrower of both allows, and much further."""
    ratio = np.exp(spread / np.sqrt(1 + max(shape, other_shape)))
    rate = shape / (other_shape / other_rate * ratio)

    def kl(excess, rate, other_excess, other_rate):
        a, a0 = excess + 1, other_excess + 1
        h = Decimal("1e-18") * a
        digamma = (ref.precise_log_gamma(a + h) - ref.precise_log_gamma(a - h)) / (2 * h)
        return (
            (a - a0) * digamma - ref.precise_log_gamma(a) + ref.precise_log_gamma(a0)
            + a0 * (rate / other_rate).ln() + a * (other_rate - rate) / rate
        )  # fmt: skip

    told = (shape - 1, rate, other_shape - 1, other_rate)
    found = _kernels.parameters.rate_kl(*(np.array([[each]]) for each in told))
    # A digit that the mean of rates doesn't have is worth its place in the means' distance.
    unseen = 1e-15 * (1 + abs(spread)) * np.sqrt(max(shape, other_shape))
    assert found == pytest.approx(precise(kl, *told), rel=1e-10, abs=1e-12 + unseen)


@given(
    st.lists(st.integers(0, 2**53) | st.integers(0, 20), min_size=2, max_size=2),
    positive, positive, st.floats(1e-8, 1e8), st.floats(1e-8, 1e8),
)  # fmt: skip
def test_predictive_density_of_counts(x, a, b, rate, other_rate):
    shape, rates = np.array([[a, b]]), np.array([[rate, other_rate]])
    gamma = Gamma(shape - 1, rates)
    expected = ref.precise_log_negative_binomial(np.array([x]), gamma.shape[0], rates[0])
    found = gamma.log_predictive(np.array([x], dtype=np.float64))[:, 0]
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-10)
