# Random numbers of a stream that is named by (seed, sweep): uniform, normal, gamma. Counter-based
# (philox.h), so that they depend on nothing else.

from libc.math cimport cos, log, sin, sqrt
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
