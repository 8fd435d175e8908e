# Random numbers of a stream that is named by (seed, sweep): uniform, normal, gamma; and those of a
# row, which (seed, sweep, row) name: binomial, multinomial. Counter-based (philox.h), so that they
# depend on nothing else.

from libc.math cimport cos, exp, fabs, floor, log, log1p, sin, sqrt
from libc.stdint cimport uint32_t, uint64_t

from .tile cimport philox_uniform


cdef extern from *:
    """
    #define TWO_PI 6.283185307179586
    /* Rows of data are numbered below this. */
    #define BEYOND_ROWS 0x8000000000000000ULL
    """
    const double TWO_PI
    const uint64_t BEYOND_ROWS


cdef struct Stream:
    uint64_t seed
    uint32_t sweep
    uint64_t place  # of the next number
    double spare  # a normal number left over
    bint has_spare


cdef inline Stream stream_of(uint64_t seed, uint32_t sweep) noexcept nogil:
    """The stream of a sweep, of other numbers than those that its rows are assigned by."""
    cdef Stream stream
    stream.seed = seed
    stream.sweep = sweep
    stream.place = BEYOND_ROWS
    stream.spare = 0.0
    stream.has_spare = False
    return stream


cdef inline double uniform(Stream* stream) noexcept nogil:
    """On [0, 1)."""
    stream.place += 1
    return philox_uniform(stream.seed, stream.sweep, stream.place, 0)


cdef inline double normal(Stream* stream) noexcept nogil:
    """N(0, 1), two at a time (Box & Muller 1958)."""
    cdef double radius, angle
    if stream.has_spare:
        stream.has_spare = False
        return stream.spare
    radius = sqrt(-2.0 * log(1.0 - uniform(stream)))
    angle = TWO_PI * uniform(stream)
    stream.spare = radius * sin(angle)
    stream.has_spare = True
    return radius * cos(angle)


cdef inline double large_gamma(Stream* stream, double shape) noexcept nogil:
    """Gamma(shape, rate 1) for shape >= 1 (Marsaglia & Tsang 2000)."""
    cdef double d = shape - 1.0 / 3.0
    cdef double c = 1.0 / sqrt(9.0 * d)
    cdef double x, v
    while True:
        x = normal(stream)
        v = 1.0 + c * x
        if v <= 0.0:
            continue
        v = v * v * v
        if log(1.0 - uniform(stream)) < 0.5 * x * x + d - d * v + d * log(v):
            return d * v


cdef inline double log_gamma(Stream* stream, double shape) noexcept nogil:
    """Logarithm of a Gamma(shape, rate 1) number, however small it is."""
    cdef double value
    if shape >= 1.0:
        return log(large_gamma(stream, shape))
    value = log(large_gamma(stream, shape + 1.0))
    return value + log(1.0 - uniform(stream)) / shape


# Of a row -----------------------------------------------------------------------------------------


cdef struct Row:
    uint64_t seed
    uint32_t sweep
    uint64_t row
    uint32_t copy  # the next


cdef inline double row_uniform(Row* row) noexcept nogil:
    """On [0, 1)."""
    row.copy += 1
    return philox_uniform(row.seed, row.sweep, row.row, row.copy - 1)


cdef inline double stirling_rest(double k) noexcept nogil:
    """log k! - ((k + 1/2) log(k + 1) - (k + 1) + log(2 pi)/2), to 1e-12 (Hoermann 1993)."""
    cdef double product = 1.0
    cdef double x = k + 1.0
    cdef double rest = 0.0
    # The series is good from 10 on: below, log k! = log (k + n)! - log((k + 1) ... (k + n)).
    if x < 10.0:
        rest = -(k + 0.5) * log(x) + x
        while x < 10.0:
            product *= x
            x += 1.0
        rest += (x - 0.5) * log(x) - x - log(product)
    k = 1.0 / (x * x)
    return rest + (1 / 12.0 - (1 / 360.0 - (1 / 1260.0 - k / 1680.0) * k) * k) / x


cdef inline double binomial(Row* row, double n, double p) noexcept nogil:
    """How many of n tries succeed, each with probability p <= 1/2; n whole, at most 2^53.

    By inversion where few do, else by transformed rejection (BTRS of Hoermann 1993, "The generation
    of binomial random variates"), in some two uniform numbers whatever n. Of the ratio of two
    densities, which n (log ...) would leave no digits of, what is large is taken out by hand.
    """
    cdef double odds = p / (1.0 - p)
    cdef double chance, first, u, us, v, k, d, m, spread, a, b, alpha, centre, limit
    if not n * p > 0.0:
        return 0.0
    if n * p < 10.0:
        first = exp(n * log1p(-p))
        while True:
            u = row_uniform(row)
            chance = first
            # Beyond this nothing is left of a uniform number's digits.
            limit = min(n, 110.0)
            k = 0.0
            while u >= chance and k <= limit:
                u -= chance
                k += 1.0
                chance *= (n - k + 1.0) / k * odds
            if k <= limit:
                return k
    spread = sqrt(n * p * (1.0 - p))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    centre = n * p + 0.5
    limit = 0.92 - 4.2 / b
    alpha = (2.83 + 5.1 / b) * spread
    m = floor((n + 1.0) * p)
    while True:
        u = row_uniform(row) - 0.5
        v = row_uniform(row)
        us = 0.5 - fabs(u)
        k = floor((2.0 * a / us + b) * u + centre)
        if not (0.0 <= k <= n):
            continue
        if us >= 0.07 and v <= limit:
            return k
        d = k - m
        if log(v * alpha / (a / (us * us) + b)) <= (
            d * log(odds * ((n - m + 1.0) / (m + 1.0)))
            - (k + 0.5) * log1p(d / (m + 1.0))
            - (n - k + 0.5) * log1p(-d / (n - m + 1.0))
            + stirling_rest(m) + stirling_rest(n - m) - stirling_rest(k) - stirling_rest(n - k)
        ):
            return k


cdef inline Py_ssize_t multinomial_size(Py_ssize_t n) noexcept nogil:
    """Doubles that `multinomial` works in."""
    return 4 * n


cdef inline double* multinomial(
    Row* row, double n_copies, Py_ssize_t n, double* room
) noexcept nogil:
    """Draw how many of n_copies each of n classes gets: by halves, halves of these ...

    room: IN, [n, 2 n): what the classes' probabilities are proportional to, not all 0.

    Returns
    -------
    Where the counts of the classes are.
    """
    # Of node i, whose halves are 2 i and 2 i + 1; the classes are n to 2 n - 1.
    cdef double* mass = room
    cdef double* count = room + 2 * n
    cdef double least, fewer
    cdef Py_ssize_t i, small
    for i in range(n - 1, 0, -1):
        mass[i] = mass[2 * i] + mass[2 * i + 1]
    count[1] = n_copies
    for i in range(1, n):
        # The lighter half, of whose share no digit is lost.
        small = 2 * i + (mass[2 * i + 1] < mass[2 * i])
        least = mass[small]
        fewer = 0.0
        if count[i] > 0.0 and least > 0.0:
            fewer = binomial(row, count[i], least / mass[i])
        count[small] = fewer
        count[small ^ 1] = count[i] - fewer
    return count + n
