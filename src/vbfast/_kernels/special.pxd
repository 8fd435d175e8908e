# Functions of one number or two that formulas of conjugate distributions need, and their constants.

from libc.math cimport INFINITY, exp, expm1, fabs, lgamma, log, log1p


# As in conjugate.py.
cdef extern from *:
    """
    #define EMPTY 1e-100
    #define VANISHING 1e-10
    #define TINY 1e-300
    #define SMALLEST_VARIANCE 1e-26
    /* Scatter of so few rows that nothing of them is left in degrees of freedom. */
    #define LOST 1e-14
    """
    const double EMPTY
    const double VANISHING
    const double TINY
    const double SMALLEST_VARIANCE
    const double LOST


cdef inline double digamma(double x) noexcept nogil:
    """For x > 0: recurrence up to 10, then the asymptotic series."""
    cdef double value = 0.0
    cdef double square
    while x < 10.0:
        value -= 1.0 / x
        x += 1.0
    square = 1.0 / (x * x)
    return value + log(x) - 0.5 / x - square * (
        1.0 / 12 - square * (1.0 / 120 - square * (1.0 / 252 - square * (
            1.0 / 240 - square * (1.0 / 132 - square * (691.0 / 32760 - square / 12))
        )))
    )


cdef inline double digamma_less_log(double x) noexcept nogil:
    """digamma(x) - log x, for x > 0 (Abramowitz & Stegun 6.3.18)."""
    cdef double y = 1.0 / x
    if not x > 32.0:
        return digamma(x) - log(x)
    return -y * (0.5 + y * (1.0 / 12 - y * y * (1.0 / 120 - y * y / 252)))


cdef inline double beyond_stirling(double x) noexcept nogil:
    """log Gamma(x + 1) less (x + 1/2) log x - x + log(2 pi) / 2, for x > 0 (Loader 2000)."""
    cdef double y = 1.0 / x
    if not x > 32.0:
        return lgamma(x + 1.0) - (x + 0.5) * log(x) + x - 0.9189385332046727
    return y * (1.0 / 12 - y * y * (1.0 / 360 - y * y * (1.0 / 1260 - y * y / 1680)))


cdef inline double times_log(double factor, double log_x) noexcept nogil:
    """factor * log x, 0 for a factor 0."""
    return factor * log_x if factor != 0.0 else 0.0


cdef inline double log_gamma_ratio(
    double a, double b, double difference, double log_gamma_b
) noexcept nogil:
    """Log of Gamma(a) / Gamma(b), of which large and close ones would leave rounding alone.

    By Stirling's series, its large terms subtracted by hand (Abramowitz & Stegun 6.1.41).
    `difference` is a - b, by who knows more of its digits.
    """
    cdef double x, y
    if not (a > 100.0 and b > 100.0):
        return lgamma(a) - log_gamma_b
    x = 1.0 / a
    y = 1.0 / b
    return (
        (b - 0.5) * log1p(difference * y) + difference * (log(a) - 1.0)
        + (x - y) / 12 - (x * x * x - y * y * y) / 360
        + (x * x * x * x * x - y * y * y * y * y) / 1260
    )


cdef inline double beyond_linear(double x) noexcept nogil:
    """exp(x) - 1 - x, of which a difference would leave rounding alone near 0."""
    if fabs(x) > 0.05:
        return expm1(x) - x
    return 0.5 * x * x * (1.0 + x / 3 * (1.0 + x / 4 * (1.0 + x / 5 * (1.0 + x / 6 * (
        1.0 + x / 7 * (1.0 + x / 8)
    )))))


cdef inline double log_gamma_density(double excess, double rate, double log_x) noexcept nogil:
    """log Gamma(x | excess + 1, rate) (Bishop B.26).

    Of a large shape a by how far x is from a / rate, since constants of a log a would round that
    off: -a (u' - 1 - log u') with u' = x rate / a, and what Stirling's series leaves of Gamma(a).
    """
    cdef double shape = excess + 1.0
    cdef double share
    if not shape > 100.0:
        return (
            times_log(excess, log_x) - rate * exp(log_x) + shape * log(rate) - lgamma(shape)
        )
    if log_x == -INFINITY:
        return -INFINITY
    share = 1.0 / shape
    return (
        0.5 * log(shape / 6.283185307179586) - log_x
        - shape * beyond_linear(log_x - log(shape / rate))
        - share * (1.0 / 12 - share * share * (1.0 / 360 - share * share / 1260))
    )
