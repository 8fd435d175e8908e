# When a climb is at its end, for both loops: that of methods.py, through loop.pyx's class, and
# that of loop.pyx.
#
# Near its end a map that climbs gains g rho^n. The last two gains tell rho, and what is left is
# g rho / (1 - rho) (Aitken's extrapolation, as of Boehning et al. 1994). While gains grow, however
# small they are, a climb is leaving a plateau, and nothing is known of its end.

from libc.math cimport INFINITY, NAN, fabs, isnan, log1p

cdef extern from *:
    """
    #define LEFT 1e-3
    #define SETTLED 6
    #define ROUNDING 1e-10
    #define ROUNDING_OF_CONSTANTS 9e-16
    """
    # What may be left of a climb that is over, in nats: half a nat of the log-likelihood is a
    # standard error, whatever the number of rows.
    const double LEFT
    # Updates in turn after which their gains tell of what is left, whatever was before them.
    const Py_ssize_t SETTLED
    # An objective may fall by this share of itself.
    const double ROUNDING
    # And by this share of n log n, for the n rows that a prior stands for: of its normalisers.
    const double ROUNDING_OF_CONSTANTS


cdef inline double weight_of_prior(
    const double* prior, Py_ssize_t size, Py_ssize_t n_normalisers
) noexcept nogil:
    """Rows that a prior stands for, in each of its normalisers: Gaussians have one a feature."""
    cdef double sum_ = 0.0
    cdef Py_ssize_t i
    for i in range(size):
        sum_ += fabs(prior[i])
    return sum_ * n_normalisers


cdef inline double rounding_of(
    double objective, double total_weight, double heaviest
) noexcept nogil:
    """Nats that rounding may take from an objective, wherever theta is; see weight_of_prior."""
    return ROUNDING * max(fabs(objective), total_weight) + (
        ROUNDING_OF_CONSTANTS * heaviest * (1.0 + log1p(heaviest))
    )


cdef struct Stopping:
    bint by_left
    double target        # what may be left; or an update's gain, where a tolerance was given
    double last          # what the update before gained; NaN: there was none, or another step
    double ahead         # what the last step ahead gained
    Py_ssize_t in_turn   # updates since then
    double left          # what seems to be left; inf: not known


cdef inline Stopping stopping_of(
    double tol, double total_weight, Py_ssize_t n_rows
) noexcept nogil:
    """Of a tolerance in nats a row (unit of weight); NaN: of what is left.

    Rows of a mean weight below 1 are taken for rows all the same: weights may be shares.
    """
    cdef Stopping self
    self.by_left = isnan(tol)
    self.target = tol * total_weight
    if self.by_left:
        self.target = LEFT * min(1.0, total_weight / n_rows)
    self.last = NAN
    self.ahead = 0.0
    self.in_turn = 0
    self.left = INFINITY
    return self


cdef inline bint settled(Stopping* self, double gain, double rounding) noexcept nogil:
    """Take note of what an update gained; whether it was the last that is needed.

    A gain of no more than `rounding` tells nothing, and leaves nothing to be told.
    """
    cdef double last = self.last
    self.last = gain
    self.in_turn += 1
    self.left = INFINITY
    if fabs(gain) <= rounding:
        self.left = rounding
        return self.by_left or fabs(gain) <= self.target
    if gain < 0.0 and -gain <= self.target:
        # No update falls, but by rounding: nothing else is left.
        self.left = -gain
        return True
    if not fabs(gain) < fabs(last):
        return False
    self.left = gain * gain / (last - gain) if last > gain else fabs(gain)
    # Of what is slow little shows right after a step ahead; but for one that found little to gain.
    if self.in_turn < SETTLED and self.ahead > self.target:
        return False
    return (self.left if self.by_left else fabs(gain)) <= self.target


cdef inline void went_ahead(Stopping* self, double gain) noexcept nogil:
    """Take note of what a step other than an update gained."""
    self.ahead = gain
    self.last = NAN
    self.in_turn = 0
