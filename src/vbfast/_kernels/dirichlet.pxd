# Dirichlet distributions, of weights and of rows of tables of symbols' probabilities; and what
# kernels read of such tables and leave. No memory is taken here.
#
# Formulas: Bishop, Pattern Recognition and Machine Learning (2006), B.16-B.24.

from libc.math cimport INFINITY, exp, fabs, isfinite, lgamma, log
from libc.string cimport memcpy, memset

from .assign cimport LOWEST
from .random cimport Stream
from .random cimport log_gamma as draw_log_gamma
from .special cimport EMPTY, TINY, digamma, log_gamma_density, log_gamma_ratio, times_log
from .tile cimport even, fours, lines


# Rows that a prior stands for, beyond which constants of n log n cost its density digits.
cdef extern from *:
    """
    #define HEAVY 1e4
    """
    const double HEAVY


# Independent ones, a row each. Where a concentration is 0, so is the probability, always.
cdef struct Dirichlets:
    Py_ssize_t n_rows
    Py_ssize_t n_columns
    # (n_rows, n_columns): concentrations less `shift`, which is 0 or 1. Of an excess over 1 next
    # to none is lost beside a 1.
    const double* values
    double shift


cdef inline Dirichlets dirichlets(
    Py_ssize_t n_rows, Py_ssize_t n_columns, const double* values, double shift
) noexcept nogil:
    cdef Dirichlets q
    q.n_rows = n_rows
    q.n_columns = n_columns
    q.values = values
    q.shift = shift
    return q


cdef inline Dirichlets row_of(Dirichlets q, Py_ssize_t row) noexcept nogil:
    return dirichlets(1, q.n_columns, q.values + row * q.n_columns, q.shift)


cdef inline double total(Dirichlets q) noexcept nogil:
    """Of one row's concentrations."""
    cdef double value = 0.0
    cdef Py_ssize_t i
    for i in range(q.n_columns):
        value += q.values[i] + q.shift
    return value


cdef inline bint read_row_mode(Dirichlets q, double least, double* weights) noexcept nogil:
    """Weights of highest density of one row, where concentrations exceed 1 by more than `least`.

    False, and nothing is written, where they don't: all have the same density, or next to that.
    """
    cdef double excess = 0.0
    cdef Py_ssize_t i
    for i in range(q.n_columns):
        excess += max(q.values[i] + (q.shift - 1.0), 0.0)
    if not excess > least:
        return False
    for i in range(q.n_columns):
        weights[i] = max(q.values[i] + (q.shift - 1.0), 0.0) / excess
    return True


cdef inline void read_expected(Dirichlets q, double* weights) noexcept nogil:
    """E[p] (B.17)."""
    cdef Py_ssize_t i, row
    cdef double all_of_row
    cdef Dirichlets one
    for row in range(q.n_rows):
        one = row_of(q, row)
        all_of_row = total(one)
        for i in range(q.n_columns):
            weights[row * q.n_columns + i] = (one.values[i] + q.shift) / all_of_row


cdef inline void read_modes(Dirichlets q, double* weights) noexcept nogil:
    """Weights of highest density; of the mean, where all have the same."""
    cdef Py_ssize_t row
    for row in range(q.n_rows):
        if not read_row_mode(row_of(q, row), 0.0, weights + row * q.n_columns):
            read_expected(row_of(q, row), weights + row * q.n_columns)


cdef inline void read_expected_logs(Dirichlets q, double* logs) noexcept nogil:
    """E[log p] (B.21)."""
    cdef Py_ssize_t i, row
    cdef double all_of_row, each
    cdef Dirichlets one
    for row in range(q.n_rows):
        one = row_of(q, row)
        all_of_row = digamma(total(one))
        for i in range(q.n_columns):
            each = one.values[i] + q.shift
            logs[row * q.n_columns + i] = digamma(each) - all_of_row if each > 0.0 else -INFINITY


cdef inline void draw_logs(Dirichlets q, Stream* stream, double* logs) noexcept nogil:
    """Logarithms of numbers drawn, by gammas; none so small that it would be lost."""
    cdef Py_ssize_t i, row
    cdef double sum_, top
    cdef double* out
    cdef Dirichlets one
    for row in range(q.n_rows):
        one = row_of(q, row)
        out = logs + row * q.n_columns
        top = -INFINITY
        sum_ = 0.0
        for i in range(q.n_columns):
            out[i] = -INFINITY
            if one.values[i] + q.shift > 0.0:
                out[i] = draw_log_gamma(stream, one.values[i] + q.shift)
                top = max(top, out[i])
        for i in range(q.n_columns):
            sum_ += exp(out[i] - top)
        for i in range(q.n_columns):
            if out[i] > -INFINITY:
                out[i] = max(out[i] - top - log(sum_), log(TINY))


cdef inline double log_beta(Dirichlets q) noexcept nogil:
    """Log of the integral of prod p^(concentration - 1), all rows."""
    cdef double value = 0.0
    cdef Py_ssize_t i, row
    for row in range(q.n_rows):
        for i in range(row * q.n_columns, (row + 1) * q.n_columns):
            if q.values[i] + q.shift > 0.0:
                value += lgamma(q.values[i] + q.shift)
        value -= lgamma(total(row_of(q, row)))
    return value


cdef inline double log_power(Dirichlets q, const double* logs) noexcept nogil:
    """Log of prod p^(concentration - 1), all rows; less `log_beta` it is their density.

    By Neumaier's sum: thousands of terms that are all but the same err to the same side.
    """
    cdef double value = 0.0
    cdef double lost = 0.0
    cdef double each, more
    cdef Py_ssize_t i
    for i in range(q.n_rows * q.n_columns):
        if q.values[i] + q.shift > 0.0:
            each = times_log(q.values[i] + (q.shift - 1.0), logs[i])
            more = value + each
            if isfinite(more):
                if fabs(value) >= fabs(each):
                    lost += (value - more) + each
                else:
                    lost += (each - more) + value
            value = more
    return value + lost


cdef inline double log_density_by_gammas(Dirichlets q, const double* logs) noexcept nogil:
    """Log density of numbers that sum to 1, all rows.

    As of independent Gamma(concentration, A), given their sum, which is Gamma(A, A); A is the
    total.
    """
    cdef double value = 0.0
    cdef double rate
    cdef Py_ssize_t i, row
    for row in range(q.n_rows):
        rate = total(row_of(q, row))
        value -= log_gamma_density(rate - 1.0, rate, 0.0)
        for i in range(row * q.n_columns, (row + 1) * q.n_columns):
            if q.values[i] + q.shift > 0.0:
                value += log_gamma_density(q.values[i] + (q.shift - 1.0), rate, logs[i])
    return value


cdef inline double log_dirichlet(Dirichlets q, const double* logs, double base) noexcept nogil:
    """Log density, all rows; `base` is `log_beta`."""
    cdef Py_ssize_t row
    for row in range(q.n_rows):
        if total(row_of(q, row)) > HEAVY:
            return log_density_by_gammas(q, logs)
    return log_power(q, logs) - base


cdef inline double kl_of(Dirichlets q, Dirichlets prior, const double* logs) noexcept nogil:
    """KL(q || prior), all rows, logs being E[log p] under q; the two are 0 in the same places.

    What a total exceeds the other by is a sum of what its parts do: totals have rounded that off.
    """
    cdef double value = 0.0
    cdef double each, other, more, more_of_row
    # Most concentrations of a prior are the same.
    cdef double last = 0.0
    cdef double last_total = 0.0
    cdef double log_gamma = 0.0
    cdef double log_gamma_total = 0.0
    cdef Py_ssize_t i, row
    for row in range(q.n_rows):
        more_of_row = 0.0
        for i in range(row * q.n_columns, (row + 1) * q.n_columns):
            each = q.values[i] + q.shift
            if each > 0.0:
                other = prior.values[i] + prior.shift
                more = (q.values[i] - prior.values[i]) + (q.shift - prior.shift)
                more_of_row += more
                if other != last:
                    last = other
                    log_gamma = lgamma(other)
                value += more * logs[i] - log_gamma_ratio(each, other, more, log_gamma)
        other = total(row_of(prior, row))
        if other != last_total:
            last_total = other
            log_gamma_total = lgamma(other)
        value += log_gamma_ratio(total(row_of(q, row)), other, more_of_row, log_gamma_total)
    return value


cdef inline void add_power_terms(
    Dirichlets q, Py_ssize_t n_components, const double* logs, double* terms
) noexcept nogil:
    """terms[k, j] += log density of component j's logs under k's rows, n_rows / K each."""
    cdef Py_ssize_t n_rows = q.n_rows // n_components
    cdef Py_ssize_t size = n_rows * q.n_columns
    cdef Py_ssize_t j, k
    cdef double constant
    cdef Dirichlets own
    for k in range(n_components):
        own = dirichlets(n_rows, q.n_columns, q.values + k * size, q.shift)
        constant = log_beta(own)
        for j in range(n_components):
            terms[k * n_components + j] += log_dirichlet(own, logs + j * size, constant)


cdef inline double add_weight_terms(
    Dirichlets q, const double* logs, double* terms
) noexcept nogil:
    """The same of one row of weights, averaged over orders of its columns: c; terms (K, K) grow."""
    cdef Py_ssize_t n = q.n_columns
    cdef Py_ssize_t j, k
    for k in range(n):
        for j in range(n):
            terms[k * n + j] += times_log(q.values[k] + (q.shift - 1.0), logs[j])
    return -log_beta(q) - lgamma(n + 1)


# Tables of K components, D features and C symbols ------------------------------------------------


cdef inline void pooled_table(
    Py_ssize_t n_components, Py_ssize_t n_features, Py_ssize_t n_symbols, const double* excess,
    double* table,
) noexcept nogil:
    """Probabilities (D, C) that all rows together have; equal ones if there are no rows."""
    cdef Py_ssize_t size = n_features * n_symbols
    cdef Py_ssize_t d, i, k
    cdef double sum_
    memset(table, 0, size * sizeof(double))
    for k in range(n_components):
        for i in range(size):
            table[i] += max(excess[k * size + i], 0.0)
    for d in range(n_features):
        sum_ = 0.0
        for i in range(d * n_symbols, (d + 1) * n_symbols):
            sum_ += table[i]
        if sum_ == 0.0:
            for i in range(d * n_symbols, (d + 1) * n_symbols):
                table[i] = 1.0 if excess[i] > -1.0 else 0.0
                sum_ += table[i]
        for i in range(d * n_symbols, (d + 1) * n_symbols):
            table[i] /= sum_


cdef inline void read_table_modes(
    Py_ssize_t n_components, Py_ssize_t n_features, Py_ssize_t n_symbols, const double* excess,
    double* values,
) noexcept nogil:
    """Probabilities (K, D, C) of highest density.

    Where all have the same, as of an empty component under a flat prior, those that all rows
    together have.
    """
    cdef Dirichlets q = dirichlets(n_components * n_features, n_symbols, excess, 1.0)
    cdef Py_ssize_t row
    # The first component's place has them until its own are known, last of all.
    pooled_table(n_components, n_features, n_symbols, excess, values)
    for row in range(q.n_rows - 1, -1, -1):
        if not read_row_mode(row_of(q, row), EMPTY, values + row * n_symbols) and row >= n_features:
            memcpy(
                values + row * n_symbols, values + row % n_features * n_symbols,
                n_symbols * sizeof(double),
            )


cdef inline void write_zeros_and_ones(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* logs, double* coefficients
) noexcept nogil:
    """As discrete.pyx reads them: log p (K, D), log (1 - p) (K, D)."""
    cdef Py_ssize_t size = n_components * n_features
    cdef Py_ssize_t i
    for i in range(size):
        coefficients[i] = max(logs[2 * i + 1], LOWEST)
        coefficients[size + i] = max(logs[2 * i], LOWEST)


cdef inline void collect_zeros_and_ones(
    Py_ssize_t n_components, Py_ssize_t n_features, const double* raw, double* tally
) noexcept nogil:
    """Tallies (K, D, 2) of sums of x, and of 1 - x, that the kernel leaves."""
    cdef const double* zeros = raw + even(n_components) * fours(n_features)
    cdef Py_ssize_t d, k
    for k in range(n_components):
        for d in range(n_features):
            tally[2 * (k * n_features + d)] = zeros[k * fours(n_features) + d]
            tally[2 * (k * n_features + d) + 1] = raw[k * fours(n_features) + d]


cdef inline void write_symbols(
    Py_ssize_t n_components, Py_ssize_t n_features, Py_ssize_t n_symbols, const double* logs,
    double* coefficients,
) noexcept nogil:
    """As discrete.pyx reads them: log p (D, C, lines(K))."""
    cdef Py_ssize_t i, k
    cdef Py_ssize_t size = n_features * n_symbols
    cdef Py_ssize_t width = lines(n_components)
    for i in range(size):
        for k in range(n_components):
            coefficients[i * width + k] = max(logs[k * size + i], LOWEST)
        for k in range(n_components, width):
            coefficients[i * width + k] = 0.0


cdef inline void collect_symbols(
    Py_ssize_t n_components, Py_ssize_t n_features, Py_ssize_t n_symbols, const double* raw,
    double* tally,
) noexcept nogil:
    """Tallies (K, D, C) of histograms that the kernel leaves, laid out as its coefficients are."""
    cdef Py_ssize_t i, k
    cdef Py_ssize_t size = n_features * n_symbols
    for k in range(n_components):
        for i in range(size):
            tally[k * size + i] = raw[i * lines(n_components) + k]
