# From scores to q(T), in place, for a tile of independent rows: scores[k, row] becomes
# weight[row] * q[k, row], and log_z[row] what one such row brings to the objective.

from libc.math cimport INFINITY, log
from libc.stdint cimport int64_t, uint32_t, uint64_t

from .tile cimport (
    LANES,
    lanes,
    lanes_exp,
    lanes_keep_between,
    lanes_log,
    lanes_max,
    lanes_set,
    philox_uniform,
)


cdef enum Kind:
    SCORES = 0  # leave the scores as they are
    EXACT = 1   # q(T) = p(T | X, theta)
    BEST = 2    # exact among the best `truncation` components of each row
    HARD = 3    # all on the best component
    DRAW = 4    # one component, drawn
    GIVEN = 5   # one component, as told


cdef struct Assignment:
    Kind kind
    Py_ssize_t truncation
    uint64_t seed
    uint32_t sweep


cdef extern from *:
    """
    #define LOWEST (-1.7e308)
    """
    const double LOWEST


cdef inline void exponentials(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    double* scores, double* top, double* total,
) noexcept nogil:
    """scores = exp(scores - top), top the maximum over components, total their sum."""
    cdef Py_ssize_t step = stride // LANES
    cdef lanes* score
    cdef lanes h0, h1, h2, h3, s0, s1, s2, s3
    cdef Py_ssize_t k, v, row
    # Four vectors of rows at a time, so that one exponential need not wait for another.
    for v in range(0, n_rows // LANES, 4):
        # Never -inf, so that -inf - high is -inf and not NaN.
        h0 = lanes_set(LOWEST)
        h1 = h0
        h2 = h0
        h3 = h0
        for k in range(n_components):
            score = <lanes*>scores + k * step + v
            h0 = lanes_max(score[0], h0)
            h1 = lanes_max(score[1], h1)
            h2 = lanes_max(score[2], h2)
            h3 = lanes_max(score[3], h3)
        s0 = lanes_set(0.0)
        s1 = s0
        s2 = s0
        s3 = s0
        for k in range(n_components):
            score = <lanes*>scores + k * step + v
            score[0] = lanes_exp(score[0] - h0)
            score[1] = lanes_exp(score[1] - h1)
            score[2] = lanes_exp(score[2] - h2)
            score[3] = lanes_exp(score[3] - h3)
            s0 = s0 + score[0]
            s1 = s1 + score[1]
            s2 = s2 + score[2]
            s3 = s3 + score[3]
        (<lanes*>top)[v] = h0
        (<lanes*>top)[v + 1] = h1
        (<lanes*>top)[v + 2] = h2
        (<lanes*>top)[v + 3] = h3
        (<lanes*>total)[v] = s0
        (<lanes*>total)[v + 1] = s1
        (<lanes*>total)[v + 2] = s2
        (<lanes*>total)[v + 3] = s3
    for row in range(n_rows):
        # A row so far away that every score overflows (or, by inf - inf, is NaN) is impossible
        # under all components alike: nothing tells them apart.
        if not total[row] > 0.0:
            total[row] = 1.0
            for k in range(n_components):
                scores[k * stride + row] = 1.0 / n_components


cdef inline void mark_impossible(Py_ssize_t n_rows, double* log_z) noexcept nogil:
    cdef Py_ssize_t row
    for row in range(n_rows):
        if not log_z[row] > LOWEST:
            log_z[row] = -INFINITY


cdef inline void assign_exact(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    const double* weight, double* scores,
    double* log_z, double* total,
) noexcept nogil:
    cdef Py_ssize_t n_vectors = n_rows // LANES
    cdef lanes* score
    cdef Py_ssize_t k, v
    exponentials(n_components, n_rows, stride, scores, log_z, total)
    for v in range(n_vectors):
        (<lanes*>log_z)[v] = (<lanes*>log_z)[v] + lanes_log((<lanes*>total)[v])
        (<lanes*>total)[v] = (<const lanes*>weight)[v] / (<lanes*>total)[v]
    for k in range(n_components):
        score = <lanes*>(scores + k * stride)
        for v in range(n_vectors):
            score[v] = score[v] * (<const lanes*>total)[v]
    mark_impossible(n_rows, log_z)


cdef inline void keep_best(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride, Py_ssize_t truncation,
    double* scores,
    double* kept, int64_t* component,
) noexcept nogil:
    """Set all but each row's `truncation` largest scores to -inf; among equals the first stay."""
    cdef Py_ssize_t row, k, place
    cdef double score
    for row in range(n_rows):
        for place in range(truncation):
            kept[place] = -INFINITY
            component[place] = 0
        for k in range(n_components):
            score = scores[k * stride + row]
            scores[k * stride + row] = -INFINITY
            if not score > kept[truncation - 1]:
                continue
            place = truncation - 1
            while place > 0 and score > kept[place - 1]:
                kept[place] = kept[place - 1]
                component[place] = component[place - 1]
                place -= 1
            kept[place] = score
            component[place] = k
        for place in range(truncation):
            if kept[place] > -INFINITY:
                scores[component[place] * stride + row] = kept[place]


cdef inline void assign_given(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    const double* weight, const int64_t* labels,
    double* scores, double* log_z,
) noexcept nogil:
    cdef Py_ssize_t k, row
    for k in range(n_components):
        for row in range(n_rows):
            scores[k * stride + row] = weight[row] if labels[row] == k else 0.0
    for row in range(n_rows):
        log_z[row] = 0.0


cdef inline void assign_hard(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    const double* weight, int64_t* labels,
    double* scores, double* top,
) noexcept nogil:
    """Among equals the first component; top is the row's largest score."""
    cdef Py_ssize_t k, row
    cdef double* score
    for row in range(n_rows):
        # NaN, by inf - inf, is as impossible as -inf.
        top[row] = scores[row] if scores[row] > -INFINITY else -INFINITY
        labels[row] = 0
    for k in range(1, n_components):
        score = scores + k * stride
        for row in range(n_rows):
            labels[row] = k if score[row] > top[row] else labels[row]
            top[row] = score[row] if score[row] > top[row] else top[row]
    for k in range(n_components):
        score = scores + k * stride
        for row in range(n_rows):
            score[row] = weight[row] if labels[row] == k else 0.0


cdef inline void assign_draw(
    Assignment assignment, Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    Py_ssize_t first_row, const double* weight, double* scores, double* log_z, double* total,
    double* uniform,
    int64_t* counts,
) noexcept nogil:
    """Weights are whole numbers: a row of weight w is w rows, each with a draw of its own.

    log_z becomes the sum of the drawn components' scores.
    """
    cdef Py_ssize_t n_vectors = n_rows // LANES
    cdef Py_ssize_t step = stride // LANES
    cdef lanes* score = <lanes*>scores
    cdef lanes low, high, mark, e, chosen, drawn
    cdef lanes one = lanes_set(1.0)
    cdef bint single = True
    cdef Py_ssize_t copy, copies, k, v, row
    cdef double cumulative, target
    exponentials(n_components, n_rows, stride, scores, log_z, total)
    for row in range(n_rows):
        single = single and (weight[row] == 1.0 or weight[row] == 0.0)
        uniform[row] = total[row] * philox_uniform(
            assignment.seed, assignment.sweep, first_row + row, 0
        )
    if single:
        for v in range(n_vectors):
            mark = (<lanes*>uniform)[v]
            low = lanes_set(0.0)
            chosen = low
            for k in range(n_components):
                e = score[k * step + v]
                high = low + e
                drawn = lanes_keep_between(one, low, mark, high)
                chosen = chosen + drawn * e
                score[k * step + v] = drawn * (<const lanes*>weight)[v]
                low = high
            (<lanes*>log_z)[v] = (<lanes*>log_z)[v] + lanes_log(chosen)
        mark_impossible(n_rows, log_z)
        return
    for row in range(n_rows):
        copies = <Py_ssize_t>weight[row]
        for k in range(n_components):
            counts[k] = 0
        for copy in range(copies):
            target = total[row] * philox_uniform(
                assignment.seed, assignment.sweep, first_row + row, <uint32_t>copy
            )
            k = 0
            cumulative = scores[row]
            while target >= cumulative and k + 1 < n_components:
                k += 1
                cumulative += scores[k * stride + row]
            counts[k] += 1
        log_z[row] = copies * log_z[row]
        for k in range(n_components):
            if counts[k] > 0:
                log_z[row] += counts[k] * log(scores[k * stride + row])
            scores[k * stride + row] = counts[k]
    mark_impossible(n_rows, log_z)
