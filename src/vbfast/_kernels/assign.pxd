# From scores to q(T), in place, for a tile of independent rows: scores[k, row] becomes
# weight[row] * q[k, row], and log_z[row] what one such row brings to the objective.

from libc.math cimport INFINITY, log
from libc.stdint cimport int64_t, uint32_t, uint64_t

from .random cimport Row, multinomial, multinomial_size
from .tile cimport (
    LANES,
    ROW_BLOCK,
    fours,
    lanes,
    lanes_add_from,
    lanes_exp,
    lanes_keep_between,
    lanes_keep_from,
    lanes_log,
    lanes_max,
    lanes_min,
    lanes_replace_above,
    lanes_replace_equal,
    lanes_replace_from,
    lanes_set,
    lanes_sum,
    philox_uniform,
    philox_uniforms,
    real,
    sum_rows,
)


cdef enum Kind:
    SCORES = 0  # leave the scores as they are
    EXACT = 1   # q(T) = p(T | X, theta)
    BEST = 2    # exact among the best `truncation` components of each row
    HARD = 3    # all on the best component
    DRAW = 4    # one component, drawn
    GIVEN = 5   # one component, as told
    FILTER = 6  # chains: given the rows up to each one only
    FACTORISED = 7  # chains: rows independent under q


cdef enum:
    # The largest ROW_BLOCK, and vectors that hold as many numbers at any level.
    MOST_ROWS = 64
    # Copies of a row up to which each is drawn by itself, beyond which their counts are.
    FEW_COPIES = 16


# A row that is less of a component than this share of its rows so far brings it nothing.
cdef extern from *:
    """
    #define NEGLIGIBLE 1e-30
    """
    const double NEGLIGIBLE


cdef struct Assignment:
    Kind kind
    Py_ssize_t truncation
    uint64_t seed
    uint32_t sweep


cdef extern from *:
    """
    #include <float.h>
    #ifdef VBFAST_SINGLE
    #define LOWEST (-3.3e38f)
    #define BELOW_ONE (1 - FLT_EPSILON / 2)
    #else
    #define LOWEST (-1.7e308)
    #define BELOW_ONE (1 - DBL_EPSILON / 2)
    #endif
    """
    const real LOWEST
    const real BELOW_ONE  # the largest number below 1


cdef inline void keep_known(
    Py_ssize_t n_components, Py_ssize_t stride, int64_t label, real* scores
) noexcept nogil:
    """Leave a row, scores (K, stride), the component that is known, if it is not -1."""
    cdef Py_ssize_t k
    if label >= 0:
        for k in range(n_components):
            if k != label:
                scores[k * stride] = LOWEST


cdef inline void exponentials(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    real* scores, real* top, real* total,
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


cdef inline void mark_impossible(Py_ssize_t n_rows, real* log_z) noexcept nogil:
    cdef Py_ssize_t row
    for row in range(n_rows):
        if not log_z[row] > LOWEST:
            log_z[row] = -INFINITY


cdef inline void assign_exact(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    const real* weight, real* scores,
    real* log_z, real* total,
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


# Of four vectors side by side, what is kept of each lane lies in order: the four vectors' largest
# numbers, their next ones ... Kept are multiples of four, of which those beyond count for nothing.

cdef inline Py_ssize_t kept_size(Py_ssize_t truncation) noexcept nogil:
    """Vectors for what is kept of four."""
    return 4 * fours(truncation)


cdef inline void largest(
    Py_ssize_t n_components, Py_ssize_t step, Py_ssize_t wanted, const lanes* score, lanes* left,
    lanes* kept,
) noexcept nogil:
    """kept = the `wanted` largest scores of two of the four vectors.

    They are found four at a time, among what those before have left.
    """
    cdef const lanes* source = score
    cdef Py_ssize_t between = step
    cdef lanes s, a0, a1, a2, a3, t, b0, b1, b2, b3
    cdef Py_ssize_t c, k
    for c in range(0, wanted, 4):
        a0 = lanes_set(LOWEST)
        a1 = a0
        a2 = a0
        a3 = a0
        b0 = a0
        b1 = a0
        b2 = a0
        b3 = a0
        for k in range(n_components):
            s = source[k * between]
            t = source[k * between + 1]
            # The smallest first: it stays, or becomes the new score, or the next larger one. NaN
            # gets through the minimum and then, the first operand, gives way to the second.
            if wanted > c + 3:
                if wanted > c + 4:
                    left[2 * k] = lanes_min(a3, s)
                    left[2 * k + 1] = lanes_min(b3, t)
                a3 = lanes_max(lanes_min(a2, s), a3)
                b3 = lanes_max(lanes_min(b2, t), b3)
            a2 = lanes_max(lanes_min(a1, s), a2)
            b2 = lanes_max(lanes_min(b1, t), b2)
            a1 = lanes_max(lanes_min(a0, s), a1)
            b1 = lanes_max(lanes_min(b0, t), b1)
            a0 = lanes_max(s, a0)
            b0 = lanes_max(t, b0)
        source = left
        between = 2
        kept[4 * c] = a0
        kept[4 * c + 1] = b0
        kept[4 * c + 4] = a1
        kept[4 * c + 5] = b1
        kept[4 * c + 8] = a2
        kept[4 * c + 9] = b2
        kept[4 * c + 12] = a3
        kept[4 * c + 13] = b3


cdef inline void shares(
    Py_ssize_t truncation, const lanes* weight, const lanes* kept, lanes* share, lanes* log_z
) noexcept nogil:
    """share = weight * softmax(kept)."""
    cdef lanes s0 = lanes_set(1.0)
    cdef lanes s1 = s0, s2 = s0, s3 = s0
    cdef Py_ssize_t c, v
    for c in range(4, 4 * truncation, 4):
        share[c] = lanes_exp(kept[c] - kept[0])
        share[c + 1] = lanes_exp(kept[c + 1] - kept[1])
        share[c + 2] = lanes_exp(kept[c + 2] - kept[2])
        share[c + 3] = lanes_exp(kept[c + 3] - kept[3])
        s0 = s0 + share[c]
        s1 = s1 + share[c + 1]
        s2 = s2 + share[c + 2]
        s3 = s3 + share[c + 3]
    share[0] = weight[0] / s0
    share[1] = weight[1] / s1
    share[2] = weight[2] / s2
    share[3] = weight[3] / s3
    for c in range(4, 4 * truncation, 4):
        for v in range(4):
            share[c + v] = share[c + v] * share[v]
    log_z[0] = kept[0] + lanes_log(s0)
    log_z[1] = kept[1] + lanes_log(s1)
    log_z[2] = kept[2] + lanes_log(s2)
    log_z[3] = kept[3] + lanes_log(s3)


cdef inline bint give(
    Py_ssize_t n_components, Py_ssize_t step, Py_ssize_t truncation, const lanes* kept,
    const lanes* share, lanes* score,
) noexcept nogil:
    """Put their shares in the place of the kept scores, and 0 in that of all others.

    Returns whether in some row no score is possible, or more than were kept have got a share:
    equals of the least one.
    """
    cdef lanes none = lanes_set(0.0)
    cdef lanes one = lanes_set(1.0)
    cdef lanes more = lanes_set(truncation + 0.5)
    cdef lanes n0 = none, n1 = none, n2 = none, n3 = none
    cdef lanes* at
    cdef lanes s0, s1, s2, s3, q0, q1, q2, q3, most, best
    cdef Py_ssize_t least = 4 * (truncation - 1)
    cdef Py_ssize_t c, k
    for k in range(n_components):
        at = score + k * step
        s0 = at[0]
        s1 = at[1]
        s2 = at[2]
        s3 = at[3]
        n0 = lanes_add_from(n0, one, s0, kept[least])
        n1 = lanes_add_from(n1, one, s1, kept[least + 1])
        n2 = lanes_add_from(n2, one, s2, kept[least + 2])
        n3 = lanes_add_from(n3, one, s3, kept[least + 3])
        q0 = lanes_replace_from(none, share[least], s0, kept[least])
        q1 = lanes_replace_from(none, share[least + 1], s1, kept[least + 1])
        q2 = lanes_replace_from(none, share[least + 2], s2, kept[least + 2])
        q3 = lanes_replace_from(none, share[least + 3], s3, kept[least + 3])
        # Of all that a score reaches, the largest one is the last.
        for c in range(least - 4, -4, -4):
            q0 = lanes_replace_from(q0, share[c], s0, kept[c])
            q1 = lanes_replace_from(q1, share[c + 1], s1, kept[c + 1])
            q2 = lanes_replace_from(q2, share[c + 2], s2, kept[c + 2])
            q3 = lanes_replace_from(q3, share[c + 3], s3, kept[c + 3])
        at[0] = q0
        at[1] = q1
        at[2] = q2
        at[3] = q3
    most = lanes_max(lanes_max(n0, n1), lanes_max(n2, n3))
    # Not by how many: of scores that are all impossible some may be LOWEST and others -inf.
    best = lanes_min(lanes_min(kept[0], kept[1]), lanes_min(kept[2], kept[3]))
    return lanes_sum(
        lanes_keep_from(one, most, more) + lanes_keep_from(one, lanes_set(LOWEST), best)
    ) > 0.0


cdef inline Py_ssize_t best_size(Py_ssize_t n_components, Py_ssize_t truncation) noexcept nogil:
    """Vectors that assign_best works in."""
    # A multiple of four, so that what follows starts on a cache line.
    return fours(2 * n_components) + 2 * kept_size(truncation)


cdef inline void assign_best(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride, Py_ssize_t truncation,
    const real* weight, real* scores, real* log_z, lanes* workspace,
) noexcept nogil:
    """Exact among each row's `truncation` largest scores; among equals the first ones count.

    Only those take an exponential, and are then found by their value.
    """
    cdef Py_ssize_t step = stride // LANES
    cdef lanes* kept = workspace
    cdef lanes* share = kept + kept_size(truncation)
    cdef lanes* left = share + kept_size(truncation)
    cdef lanes* score
    cdef Py_ssize_t block, row
    # Four vectors of rows at a time, as in `exponentials`.
    for block in range(n_rows // (4 * LANES)):
        row = 4 * LANES * block
        score = <lanes*>(scores + row)
        largest(n_components, step, truncation, score, left, kept)
        largest(n_components, step, truncation, score + 2, left, kept + 2)
        shares(truncation, <const lanes*>(weight + row), kept, share, <lanes*>(log_z + row))
        if give(n_components, step, truncation, kept, share, score):
            settle(
                n_components, stride, truncation, <const real*>share, weight + row, scores + row,
                log_z + row,
            )


cdef inline void settle(
    Py_ssize_t n_components, Py_ssize_t stride, Py_ssize_t truncation, const real* share,
    const real* weight, real* q, real* log_z,
) noexcept nogil:
    """Leave the first of equals, as many as were kept; where all is impossible, all have a share.
    """
    cdef Py_ssize_t c, k, last, room, row
    for row in range(4 * LANES):
        if not log_z[row] > LOWEST:
            log_z[row] = -INFINITY
            for k in range(n_components):
                q[k * stride + row] = weight[row] / n_components
            continue
        last = 4 * LANES * (truncation - 1) + row
        room = 0
        for c in range(truncation):
            room += share[4 * LANES * c + row] == share[last]
        for k in range(n_components):
            if q[k * stride + row] == share[last]:
                room -= 1
                if room < 0:
                    q[k * stride + row] = 0.0


cdef inline void give_to(
    Py_ssize_t n_components, Py_ssize_t step, lanes label, lanes weight, lanes* score
) noexcept nogil:
    """q(T) of a vector of rows that are of one component each; those of the next are `step` on."""
    cdef Py_ssize_t k
    for k in range(n_components):
        score[k * step] = lanes_replace_equal(lanes_set(0.0), weight, label, lanes_set(k))


cdef inline void assign_given(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    const real* weight, const int64_t* labels,
    real* scores, real* log_z, real* given,
) noexcept nogil:
    """given: scratch, the labels as lanes have them."""
    cdef Py_ssize_t row, v
    for row in range(n_rows):
        given[row] = <real>labels[row]
        log_z[row] = 0.0
    for v in range(n_rows // LANES):
        give_to(
            n_components, stride // LANES, (<lanes*>given)[v], (<const lanes*>weight)[v],
            <lanes*>scores + v,
        )


cdef inline void assign_hard(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    const real* weight, int64_t* labels, real* scores, real* top, real* best,
) noexcept nogil:
    """Among equals the first component; top is the row's largest score, best its component."""
    cdef Py_ssize_t step = stride // LANES
    cdef lanes* score = <lanes*>scores
    cdef lanes s, high, label
    cdef Py_ssize_t k, v, row
    for v in range(n_rows // LANES):
        # NaN, by inf - inf, is as impossible as -inf.
        high = lanes_set(-INFINITY)
        label = lanes_set(0.0)
        for k in range(n_components):
            s = score[k * step + v]
            label = lanes_replace_above(label, lanes_set(k), s, high)
            high = lanes_max(s, high)
        give_to(n_components, step, label, (<const lanes*>weight)[v], score + v)
        (<lanes*>top)[v] = high
        (<lanes*>best)[v] = label
    mark_impossible(n_rows, top)
    for row in range(n_rows):
        labels[row] = <int64_t>best[row]


cdef inline real mark_of(real total, double uniform) noexcept nogil:
    """uniform * total, below total even where rounding would reach it."""
    return <real>min(total * uniform, <double>(total * BELOW_ONE))


cdef inline void assign_draw(
    Assignment assignment, Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride,
    Py_ssize_t first_row, const real* weight, real* scores, real* log_z, real* total,
    double* uniform, int64_t* counts, lanes* room,
) noexcept nogil:
    """Weights are whole numbers: a row of weight w is w rows, each with a draw of its own.

    Of many of them the counts are drawn. log_z becomes the sum of the drawn components' scores.
    """
    cdef Py_ssize_t n_vectors = n_rows // LANES
    cdef Py_ssize_t step = stride // LANES
    cdef lanes* score = <lanes*>scores
    cdef lanes low, high, mark, e, chosen, drawn
    cdef lanes one = lanes_set(1.0)
    cdef bint single = True
    cdef Py_ssize_t copy, copies, k, v, row
    cdef real cumulative, target
    cdef double* mass = <double*>room
    cdef double* drawn_counts
    cdef Row place
    exponentials(n_components, n_rows, stride, scores, log_z, total)
    for row in range(n_rows):
        single = single and (weight[row] == 1.0 or weight[row] == 0.0)
    if single:
        philox_uniforms(assignment.seed, assignment.sweep, first_row, n_rows, uniform)
        for row in range(n_rows):
            # In place of the total, which is needed no more.
            total[row] = mark_of(total[row], uniform[row])
        for v in range(n_vectors):
            mark = (<lanes*>total)[v]
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
        if weight[row] > FEW_COPIES:
            place.seed = assignment.seed
            place.sweep = assignment.sweep
            place.row = first_row + row
            place.copy = 0
            for k in range(n_components):
                mass[n_components + k] = scores[k * stride + row]
            drawn_counts = multinomial(&place, weight[row], n_components, mass)
            log_z[row] = weight[row] * log_z[row]
            for k in range(n_components):
                if drawn_counts[k] > 0.0:
                    log_z[row] += <real>(drawn_counts[k] * log(scores[k * stride + row]))
                scores[k * stride + row] = <real>drawn_counts[k]
            continue
        copies = <Py_ssize_t>weight[row]
        for k in range(n_components):
            counts[k] = 0
        for copy in range(copies):
            target = mark_of(total[row], philox_uniform(
                assignment.seed, assignment.sweep, first_row + row, <uint32_t>copy
            ))
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


cdef inline Py_ssize_t assignment_size(
    Assignment assignment, Py_ssize_t n_components
) noexcept nogil:
    """Vectors that an assignment works in."""
    if assignment.kind == DRAW:
        return (
            multinomial_size(n_components) * <Py_ssize_t>sizeof(double) + <Py_ssize_t>sizeof(lanes)
            - 1
        ) // <Py_ssize_t>sizeof(lanes)
    # One that keeps them all is exact: see assign_block.
    if assignment.kind != BEST or assignment.truncation >= n_components:
        return 0
    return best_size(n_components, assignment.truncation)


cdef inline void assign_block(
    Assignment assignment, Py_ssize_t n_components, Py_ssize_t stride, Py_ssize_t first_row,
    const real* weight, real* scores, real* log_z, int64_t* labels, int64_t* counts, lanes* room,
) noexcept nogil:
    """The scores of ROW_BLOCK rows become q(T), by any kind of assignment.

    HARD writes labels, GIVEN reads them in place of scores. DRAW works in counts (K), both it and
    BEST in assignment_size vectors of room.
    """
    # Vectors, for their alignment; ROW_BLOCK numbers of them.
    cdef lanes[MOST_ROWS] total_vectors
    cdef real* total = <real*>total_vectors
    cdef double[MOST_ROWS] uniform
    if assignment.kind == GIVEN:
        assign_given(n_components, ROW_BLOCK, stride, weight, labels, scores, log_z, total)
    elif assignment.kind == BEST and assignment.truncation < n_components:
        assign_best(
            n_components, ROW_BLOCK, stride, assignment.truncation, weight, scores, log_z, room
        )
    elif assignment.kind == EXACT or assignment.kind == BEST:
        assign_exact(n_components, ROW_BLOCK, stride, weight, scores, log_z, total)
    elif assignment.kind == HARD:
        assign_hard(n_components, ROW_BLOCK, stride, weight, labels, scores, log_z, total)
    elif assignment.kind == DRAW:
        assign_draw(
            assignment, n_components, ROW_BLOCK, stride, first_row, weight, scores, log_z, total,
            uniform, counts, room,
        )


cdef inline void add_counts(
    Py_ssize_t n_components, Py_ssize_t n_rows, Py_ssize_t stride, const real* q,
    double* counts, double* limits,
) noexcept nogil:
    """counts += the rows of a tile in each component; limits: see Emission.accumulate."""
    cdef Py_ssize_t k
    cdef double count
    for k in range(n_components):
        count = sum_rows(q + k * stride, n_rows)
        counts[k] += count
        limits[k] = NEGLIGIBLE * counts[k]
        if count <= limits[k]:
            limits[k] = INFINITY
