# k-means++: of several rows, which to take for the next centroid. Features lie one after another,
# so that the compiler's vectors run over rows; sums are kept apart by a row's place in its block
# and added up at its end, which leaves the compiler nothing to reorder.

from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef enum:
    BLOCK_ROWS = 256


cdef inline void squared_distances(
    const double* columns, Py_ssize_t stride, Py_ssize_t n_rows, Py_ssize_t n_features,
    const double* center, double* out,
) noexcept nogil:
    """out[row] = |x - center|^2 for rows of a block, whose features are `stride` apart."""
    cdef Py_ssize_t d, row
    cdef double difference
    cdef const double* column
    memset(out, 0, n_rows * sizeof(double))
    for d in range(n_features):
        column = columns + d * stride
        for row in range(n_rows):
            difference = column[row] - center[d]
            out[row] += difference * difference


def choose(
    const double[:, ::1] columns not None, const double[::1] weights not None,
    const double[:, ::1] candidates not None, double[::1] nearest not None,
):
    """Return the candidate that leaves the least sum of w * (squared distance to the nearest).

    Parameters
    ----------
    columns : IN, (D, N); weights : IN, (N,); candidates : IN, (L, D)
    nearest : IN, OUT, (N,): squared distances to the centroids so far; with the one chosen
    """
    cdef Py_ssize_t n_features = columns.shape[0]
    cdef Py_ssize_t n_rows = columns.shape[1]
    cdef Py_ssize_t n_candidates = candidates.shape[0]
    cdef Py_ssize_t block, first, candidate, row, n_used
    cdef Py_ssize_t best = 0
    cdef double distances[BLOCK_ROWS]
    cdef double* sums
    cdef double* sum_
    cdef double total, least
    cdef const double* weight
    cdef double* near
    if candidates.shape[1] != n_features or nearest.shape[0] != n_rows:
        raise ValueError("candidates and nearest must fit columns")
    if weights.shape[0] != n_rows or n_candidates == 0 or n_rows == 0:
        raise ValueError("one weight a row, one row and one candidate at least")
    sums = <double*>malloc(n_candidates * BLOCK_ROWS * sizeof(double))
    if sums == NULL:
        raise MemoryError(f"no memory for {n_candidates} candidates")
    with nogil:
        memset(sums, 0, n_candidates * BLOCK_ROWS * sizeof(double))
        for block in range((n_rows + BLOCK_ROWS - 1) // BLOCK_ROWS):
            first = block * BLOCK_ROWS
            n_used = min(BLOCK_ROWS, n_rows - first)
            weight = &weights[first]
            near = &nearest[first]
            for candidate in range(n_candidates):
                squared_distances(
                    &columns[0, first], n_rows, n_used, n_features, &candidates[candidate, 0],
                    distances,
                )
                sum_ = sums + candidate * BLOCK_ROWS
                for row in range(n_used):
                    sum_[row] += weight[row] * (
                        distances[row] if distances[row] < near[row] else near[row]
                    )
        least = 0.0
        for candidate in range(n_candidates):
            total = 0.0
            for row in range(BLOCK_ROWS):
                total += sums[candidate * BLOCK_ROWS + row]
            if candidate == 0 or total < least:
                best = candidate
                least = total
        for block in range((n_rows + BLOCK_ROWS - 1) // BLOCK_ROWS):
            first = block * BLOCK_ROWS
            n_used = min(BLOCK_ROWS, n_rows - first)
            near = &nearest[first]
            squared_distances(
                &columns[0, first], n_rows, n_used, n_features, &candidates[best, 0], distances
            )
            for row in range(n_used):
                near[row] = distances[row] if distances[row] < near[row] else near[row]
    free(sums)
    return best
