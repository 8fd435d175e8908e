# Functions of one number or two that formulas of conjugate distributions need, and their constants.

from libc.math cimport lgamma, log, log1p


# As in conjugate.py.
cdef extern from *:
    """
    #define EMPTY 1e-100
    #define VANISHING 1e-10
    #define TINY 1e-300
    #define SMALLEST_VARIANCE 1e-26
    """
    const double EMPTY
    const double VANISHING
    const double TINY
    const double SMALLEST_VARIANCE


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
