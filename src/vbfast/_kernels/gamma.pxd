# Gamma distributions of rates, and what kernels read of rates and leave. No memory is taken here.
#
# Formulas: Bishop, Pattern Recognition and Machine Learning (2006), B.26-B.30.

from libc.math cimport exp, fabs, log

from .assign cimport LOWEST
from .random cimport Stream, log_gamma
from .special cimport (
    EMPTY,
    TINY,
    beyond_linear,
    beyond_stirling,
    digamma,
    digamma_less_log,
    log_gamma_density,
)
from .tile cimport fours
from .triangle cimport EPS


# Independent ones, of K components and D features.
cdef struct Gammas:
    Py_ssize_t n_components
    Py_ssize_t n_features
    const double* excess  # (K, D): shape - 1, so that next to none of it is lost beside a 1
    const double* rate    # (K, D)


cdef inline Gammas gammas(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* excess, const double* rate
) noexcept nogil:
    cdef Gammas q
    q.n_components = n_components
    q.n_features = n_features
    q.excess = excess
    q.rate = rate
    return q


cdef inline void set_rates(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* values, double* rates,
    double* log_rates,
) noexcept nogil:
    """Rates that are known, and their logarithms."""
    cdef Py_ssize_t i
    for i in range(n_components * n_features):
        rates[i] = values[i]
        log_rates[i] = log(values[i])


cdef inline void read_rate_modes(
    Gammas q, double least, double* rates, double* log_rates
) noexcept nogil:
    """Rates of highest density, (shape - 1) / rate (B.29); `least` stands in for a shape of 1.

    An empty component under a flat prior takes the mean rates of all rows, 0 if there are none.
    """
    cdef Py_ssize_t d, i, k
    cdef double excess, pooled, sum_, total
    for d in range(q.n_features):
        sum_ = 0.0
        total = 0.0
        for k in range(q.n_components):
            sum_ += q.excess[k * q.n_features + d]
            total += q.rate[k * q.n_features + d]
        pooled = sum_ / total if total > 0.0 else 0.0
        for k in range(q.n_components):
            i = k * q.n_features + d
            rates[i] = pooled
            if q.rate[i] > EMPTY or q.rate[i] > 0.0 and q.excess[i] > EMPTY:
                excess = q.excess[i] if q.excess[i] > EMPTY else max(q.excess[i], least)
                rates[i] = excess / q.rate[i]
            log_rates[i] = log(rates[i])


cdef inline Py_ssize_t without_rate(Gammas q) noexcept nogil:
    """The first component of waiting times that has no rate of highest density, or -1.

    That of which all rows are 0.
    """
    cdef Py_ssize_t i
    for i in range(q.n_components * q.n_features):
        if q.excess[i] > EMPTY and q.rate[i] < q.excess[i] * TINY:
            return i // q.n_features
    return -1


cdef inline void read_expected_rates(Gammas q, double* rates, double* log_rates) noexcept nogil:
    """E[lambda] (B.27) and E[log lambda] (B.30)."""
    cdef Py_ssize_t i
    for i in range(q.n_components * q.n_features):
        rates[i] = (q.excess[i] + 1.0) / q.rate[i]
        log_rates[i] = digamma(q.excess[i] + 1.0) - log(q.rate[i])


cdef inline void draw_rates(
    Gammas q, Stream* stream, double* rates, double* log_rates
) noexcept nogil:
    """None so small that it would be lost."""
    cdef Py_ssize_t i
    for i in range(q.n_components * q.n_features):
        log_rates[i] = max(
            log_gamma(stream, q.excess[i] + 1.0) - log(q.rate[i]), log(TINY)
        )
        rates[i] = exp(log_rates[i])


cdef inline double log_density_given(
    Gammas q, Py_ssize_t k, const double* log_rates
) noexcept nogil:
    """log p(lambda) of one component's rates (D) under component k."""
    cdef double value = 0.0
    cdef Py_ssize_t d, i
    for d in range(q.n_features):
        i = k * q.n_features + d
        value += log_gamma_density(q.excess[i], q.rate[i], log_rates[d])
    return value


cdef inline double log_density_of_rates(Gammas q, const double* log_rates) noexcept nogil:
    """log p(lambda), all components and features."""
    cdef double value = 0.0
    cdef Py_ssize_t k
    for k in range(q.n_components):
        value += log_density_given(q, k, log_rates + k * q.n_features)
    return value


cdef inline double kl_of_rates(Gammas q, Gammas prior, const double* rates) noexcept nogil:
    """KL(q || prior) = E[log q] - E[log p], rates being expected under q.

    Of shapes a, b and means that are t times the prior's: b (t - 1 - log t) + (a - b) (digamma(a)
    - log a) + log(a / b) / 2, and what Stirling's formula leaves of both Gammas. None of it is
    larger than the sum by far.
    """
    cdef double value = 0.0
    cdef double shape, other
    # Most shapes of a prior are the same.
    cdef double last = 0.0
    cdef double beyond_last = 0.0
    cdef Py_ssize_t i
    for i in range(q.n_components * q.n_features):
        shape = q.excess[i] + 1.0
        other = prior.excess[i] + 1.0
        value += other * beyond_linear(log(rates[i] * prior.rate[i] / other))
        value += (q.excess[i] - prior.excess[i]) * digamma_less_log(shape)
        value += 0.5 * log(shape / other)
        if other != last:
            last = other
            beyond_last = beyond_stirling(other)
        value += beyond_last - beyond_stirling(shape)
    return value


cdef inline double rounding_of_rates(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* rates, const double* log_rates
) noexcept nogil:
    """Nats a row that rounding may take from an objective: of x log lambda - lambda, for x lambda.
    """
    cdef double most = 0.0
    cdef double sum_
    cdef Py_ssize_t d, k
    for k in range(n_components):
        sum_ = 0.0
        for d in range(k * n_features, (k + 1) * n_features):
            sum_ += rates[d] * (fabs(max(log_rates[d], LOWEST)) + 1.0)
        most = max(most, sum_)
    return 4.0 * EPS * most


cdef inline double rounding_of_waits(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* log_rates
) noexcept nogil:
    """The same of waiting times: of log lambda - lambda x, for x 1 / lambda."""
    cdef double most = 0.0
    cdef double sum_
    cdef Py_ssize_t d, k
    for k in range(n_components):
        sum_ = 0.0
        for d in range(k * n_features, (k + 1) * n_features):
            sum_ += fabs(log_rates[d]) + 1.0
        most = max(most, sum_)
    return 4.0 * EPS * most


cdef inline void add_rate_terms(
    Gammas q, const double* log_rates, double* terms
) noexcept nogil:
    """terms[k, j] += log density of component j's rates under component k."""
    cdef Py_ssize_t j, k
    for k in range(q.n_components):
        for j in range(q.n_components):
            terms[k * q.n_components + j] += log_density_given(
                q, k, log_rates + j * q.n_features
            )


cdef inline void write_log_rates(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* log_rates, double* coefficients
) noexcept nogil:
    """As discrete.pyx reads them."""
    cdef Py_ssize_t i
    for i in range(n_components * n_features):
        coefficients[i] = max(log_rates[i], LOWEST)


cdef inline void write_slopes(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* rates, double* coefficients
) noexcept nogil:
    """As discrete.pyx reads those of waiting times."""
    cdef Py_ssize_t i
    for i in range(n_components * n_features):
        coefficients[i] = -rates[i]


cdef inline void write_wait_offsets(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* log_rates, double* offsets
) noexcept nogil:
    """Scores of waiting times that are all 0, (K,)."""
    cdef Py_ssize_t d, k
    for k in range(n_components):
        offsets[k] = 0.0
        for d in range(n_features):
            offsets[k] += log_rates[k * n_features + d]


cdef inline void write_rate_offsets(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* rates, double* offsets
) noexcept nogil:
    """Scores of rows of zeros, (K,)."""
    cdef Py_ssize_t d, k
    for k in range(n_components):
        offsets[k] = 0.0
        for d in range(n_features):
            offsets[k] -= rates[k * n_features + d]


cdef inline void collect_counts(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* raw, double* sums
) noexcept nogil:
    """Sums (K, D) of what the kernel leaves in blocks, of which the last rows are padding."""
    cdef Py_ssize_t d, k
    for k in range(n_components):
        for d in range(n_features):
            sums[k * n_features + d] = raw[k * fours(n_features) + d]
