# Gaussian emissions: log densities of a tile's rows and their weighted moments.
#
# Squared distances are |A (x - m)|^2 with A lower triangular, A'A the precision. Moments are taken
# about the component's own mean m, so that nothing cancels however far m is from the origin.
#
# Every inner loop works on four vectors of rows, or on a block of 2 x 4 sums, held in registers.

from cpython.pycapsule cimport PyCapsule_New

from .tile cimport (
    LANES,
    Emission,
    Shape,
    lanes,
    lanes_add_sums,
    lanes_set,
    lanes_sum,
    stride_of,
)


cdef inline Py_ssize_t square(Py_ssize_t n) noexcept nogil:
    """Doubles of a matrix of second moments: D rows and columns, rounded up to blocks of 2 x 4."""
    return (n + 1) // 2 * 2 * ((n + 3) // 4 * 4)


# Coefficients: means (K, D), factors A (K, D, D). Statistics: first moments (K, D), second
# moments as `square` has them, of which the lower triangle counts.

cdef Py_ssize_t full_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # Differences and weighted differences, with up to three features of padding each.
    return 2 * (shape.n_features + 3) * stride_of(n_rows)


cdef Py_ssize_t full_statistics_size(Shape shape) noexcept nogil:
    return shape.n_components * (shape.n_features + square(shape.n_features))


cdef void squared_distances(
    Py_ssize_t n_features, const double* factor, const lanes* difference, lanes* squared
) noexcept nogil:
    """squared[0:4] = |A d|^2 of four vectors of rows; difference is (D, 4)."""
    cdef Py_ssize_t i, j
    cdef const double* row
    cdef const double* next_row
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, first, second
    cdef lanes s0 = lanes_set(0.0)
    cdef lanes s1 = s0, s2 = s0, s3 = s0
    i = 0
    while i + 1 < n_features:
        row = factor + i * n_features
        next_row = row + n_features
        a0 = lanes_set(0.0)
        a1 = a0
        a2 = a0
        a3 = a0
        b0 = a0
        b1 = a0
        b2 = a0
        b3 = a0
        for j in range(i + 1):
            first = lanes_set(row[j])
            second = lanes_set(next_row[j])
            a0 = a0 + first * difference[4 * j]
            a1 = a1 + first * difference[4 * j + 1]
            a2 = a2 + first * difference[4 * j + 2]
            a3 = a3 + first * difference[4 * j + 3]
            b0 = b0 + second * difference[4 * j]
            b1 = b1 + second * difference[4 * j + 1]
            b2 = b2 + second * difference[4 * j + 2]
            b3 = b3 + second * difference[4 * j + 3]
        j = i + 1
        second = lanes_set(next_row[j])
        b0 = b0 + second * difference[4 * j]
        b1 = b1 + second * difference[4 * j + 1]
        b2 = b2 + second * difference[4 * j + 2]
        b3 = b3 + second * difference[4 * j + 3]
        s0 = s0 + a0 * a0
        s1 = s1 + a1 * a1
        s2 = s2 + a2 * a2
        s3 = s3 + a3 * a3
        s0 = s0 + b0 * b0
        s1 = s1 + b1 * b1
        s2 = s2 + b2 * b2
        s3 = s3 + b3 * b3
        i += 2
    if i < n_features:
        row = factor + i * n_features
        a0 = lanes_set(0.0)
        a1 = a0
        a2 = a0
        a3 = a0
        for j in range(i + 1):
            first = lanes_set(row[j])
            a0 = a0 + first * difference[4 * j]
            a1 = a1 + first * difference[4 * j + 1]
            a2 = a2 + first * difference[4 * j + 2]
            a3 = a3 + first * difference[4 * j + 3]
        s0 = s0 + a0 * a0
        s1 = s1 + a1 * a1
        s2 = s2 + a2 * a2
        s3 = s3 + a3 * a3
    squared[0] = s0
    squared[1] = s1
    squared[2] = s2
    squared[3] = s3


cdef void full_scores(
    Shape shape, const double* coefficients, const double* offsets,
    const double* tile, Py_ssize_t n_rows, double* workspace, double* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef const double* means = coefficients
    cdef const double* factors = coefficients + shape.n_components * n_features
    cdef const lanes* rows
    cdef lanes* difference = <lanes*>workspace
    cdef lanes* out
    cdef lanes mean, offset, minus_half = lanes_set(-0.5)
    cdef lanes squared[4]
    cdef Py_ssize_t block, d, k, v
    for block in range(n_rows // (4 * LANES)):
        for k in range(shape.n_components):
            for d in range(n_features):
                mean = lanes_set(means[k * n_features + d])
                rows = <const lanes*>(tile + d * stride_of(n_rows) + 4 * LANES * block)
                for v in range(4):
                    difference[4 * d + v] = rows[v] - mean
            squared_distances(n_features, factors + k * n_features * n_features, difference, squared)
            offset = lanes_set(offsets[k])
            out = <lanes*>(scores + k * stride_of(n_rows) + 4 * LANES * block)
            for v in range(4):
                out[v] = offset + minus_half * squared[v]


cdef void second_moments(
    Py_ssize_t n_features, Py_ssize_t n_vectors, Py_ssize_t stride,
    const lanes* difference, const lanes* weighted, double* moments,
) noexcept nogil:
    """moments[i, j] += sum over rows of weighted[i] * difference[j], j <= i, in blocks of 2 x 4.

    Features beyond the last are padding: they may hold any finite number.
    """
    cdef Py_ssize_t columns = (n_features + 3) // 4 * 4
    cdef Py_ssize_t i, j, v
    cdef const lanes* left
    cdef const lanes* next_left
    cdef const lanes* right
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, first, second
    for i in range(0, n_features, 2):
        left = weighted + i * stride
        next_left = left + stride
        for j in range(0, i + 2, 4):
            right = difference + j * stride
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            b0 = a0
            b1 = a0
            b2 = a0
            b3 = a0
            if j + 4 <= i + 2:
                for v in range(n_vectors):
                    first = left[v]
                    second = next_left[v]
                    a0 = a0 + first * right[v]
                    a1 = a1 + first * right[stride + v]
                    a2 = a2 + first * right[2 * stride + v]
                    a3 = a3 + first * right[3 * stride + v]
                    b0 = b0 + second * right[v]
                    b1 = b1 + second * right[stride + v]
                    b2 = b2 + second * right[2 * stride + v]
                    b3 = b3 + second * right[3 * stride + v]
            else:
                for v in range(n_vectors):
                    first = left[v]
                    second = next_left[v]
                    a0 = a0 + first * right[v]
                    a1 = a1 + first * right[stride + v]
                    b0 = b0 + second * right[v]
                    b1 = b1 + second * right[stride + v]
            lanes_add_sums(
                a0, a1, a2, a3, b0, b1, b2, b3,
                moments + i * columns + j, moments + (i + 1) * columns + j,
            )


cdef bint weighted_differences(
    Py_ssize_t n_features, const double* mean, const double* tile, Py_ssize_t n_rows,
    const double* q, double* workspace, double* first_moments,
) noexcept nogil:
    """Write x - m and q (x - m) to the workspace and add the latter up; False where q is all 0."""
    cdef Py_ssize_t n_vectors = n_rows // LANES
    cdef Py_ssize_t stride = stride_of(n_rows)
    cdef const lanes* weight = <const lanes*>q
    cdef const lanes* rows
    cdef lanes* difference
    cdef lanes* weighted
    cdef lanes total = lanes_set(0.0), center, d0, w0
    cdef Py_ssize_t d, v
    for v in range(n_vectors):
        total = total + weight[v]
    if lanes_sum(total) == 0.0:
        return False
    for d in range(n_features):
        center = lanes_set(mean[d])
        rows = <const lanes*>(tile + d * stride)
        difference = <lanes*>(workspace + d * stride)
        weighted = <lanes*>(workspace + (n_features + 3 + d) * stride)
        total = lanes_set(0.0)
        for v in range(n_vectors):
            d0 = rows[v] - center
            w0 = d0 * weight[v]
            difference[v] = d0
            weighted[v] = w0
            total = total + w0
        first_moments[d] += lanes_sum(total)
    return True


cdef void accumulate_moments(
    Shape shape, const double* means, const double* tile, Py_ssize_t n_rows, const double* q,
    double* workspace, double* statistics, Py_ssize_t between,
) noexcept nogil:
    """Component k's second moments are added at k * between: between 0 pools them."""
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t stride = stride_of(n_rows)
    cdef double* weighted = workspace + (n_features + 3) * stride
    cdef double* second = statistics + shape.n_components * n_features
    cdef Py_ssize_t k, row
    for row in range(3 * stride):
        workspace[n_features * stride + row] = 0.0
        weighted[n_features * stride + row] = 0.0
    for k in range(shape.n_components):
        if weighted_differences(
            n_features, means + k * n_features, tile, n_rows, q + k * stride, workspace,
            statistics + k * n_features,
        ):
            second_moments(
                n_features, n_rows // LANES, stride // LANES, <const lanes*>workspace,
                <const lanes*>weighted, second + k * between,
            )


cdef void full_accumulate(
    Shape shape, const double* coefficients, const double* tile, Py_ssize_t n_rows,
    const double* q, double* workspace, double* statistics,
) noexcept nogil:
    accumulate_moments(
        shape, coefficients, tile, n_rows, q, workspace, statistics, square(shape.n_features)
    )


# One factor for all components. Coefficients: means m (K, D), transformed means A m (K, D), factor
# A (D, D). Statistics: first moments (K, D), pooled second moments.

cdef Py_ssize_t tied_statistics_size(Shape shape) noexcept nogil:
    return shape.n_components * shape.n_features + square(shape.n_features)


cdef void tied_scores(
    Shape shape, const double* coefficients, const double* offsets,
    const double* tile, Py_ssize_t n_rows, double* workspace, double* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef const double* means = coefficients + shape.n_components * n_features
    cdef const double* factor = means + shape.n_components * n_features
    cdef lanes* transformed = <lanes*>workspace
    cdef const lanes* rows
    cdef lanes* out
    cdef lanes a0, a1, a2, a3, c, d0, d1, d2, d3
    cdef Py_ssize_t block, i, j, k
    for block in range(n_rows // (4 * LANES)):
        for i in range(n_features):
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            for j in range(i + 1):
                c = lanes_set(factor[i * n_features + j])
                rows = <const lanes*>(tile + j * stride_of(n_rows) + 4 * LANES * block)
                a0 = a0 + c * rows[0]
                a1 = a1 + c * rows[1]
                a2 = a2 + c * rows[2]
                a3 = a3 + c * rows[3]
            transformed[4 * i] = a0
            transformed[4 * i + 1] = a1
            transformed[4 * i + 2] = a2
            transformed[4 * i + 3] = a3
        for k in range(shape.n_components):
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            for i in range(n_features):
                c = lanes_set(means[k * n_features + i])
                d0 = transformed[4 * i] - c
                d1 = transformed[4 * i + 1] - c
                d2 = transformed[4 * i + 2] - c
                d3 = transformed[4 * i + 3] - c
                a0 = a0 + d0 * d0
                a1 = a1 + d1 * d1
                a2 = a2 + d2 * d2
                a3 = a3 + d3 * d3
            c = lanes_set(offsets[k])
            out = <lanes*>(scores + k * stride_of(n_rows) + 4 * LANES * block)
            out[0] = c - 0.5 * a0
            out[1] = c - 0.5 * a1
            out[2] = c - 0.5 * a2
            out[3] = c - 0.5 * a3


cdef void tied_accumulate(
    Shape shape, const double* coefficients, const double* tile, Py_ssize_t n_rows,
    const double* q, double* workspace, double* statistics,
) noexcept nogil:
    accumulate_moments(shape, coefficients, tile, n_rows, q, workspace, statistics, 0)


# A diagonal factor a. Coefficients: means m (K, D), a (K, D), a m (K, D). Statistics: first and
# second moments, (K, D) each.

cdef Py_ssize_t diag_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    return 0


cdef Py_ssize_t diag_statistics_size(Shape shape) noexcept nogil:
    return 2 * shape.n_components * shape.n_features


cdef void diag_scores(
    Shape shape, const double* coefficients, const double* offsets,
    const double* tile, Py_ssize_t n_rows, double* workspace, double* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef const double* factors = coefficients + shape.n_components * n_features
    cdef const double* shifts = factors + shape.n_components * n_features
    cdef const lanes* rows
    cdef lanes* out
    cdef lanes a0, a1, a2, a3, factor, shift, y0, y1, y2, y3
    cdef Py_ssize_t block, d, k
    for block in range(n_rows // (4 * LANES)):
        for k in range(shape.n_components):
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            for d in range(n_features):
                factor = lanes_set(factors[k * n_features + d])
                shift = lanes_set(shifts[k * n_features + d])
                rows = <const lanes*>(tile + d * stride_of(n_rows) + 4 * LANES * block)
                y0 = factor * rows[0] - shift
                y1 = factor * rows[1] - shift
                y2 = factor * rows[2] - shift
                y3 = factor * rows[3] - shift
                a0 = a0 + y0 * y0
                a1 = a1 + y1 * y1
                a2 = a2 + y2 * y2
                a3 = a3 + y3 * y3
            factor = lanes_set(offsets[k])
            out = <lanes*>(scores + k * stride_of(n_rows) + 4 * LANES * block)
            out[0] = factor - 0.5 * a0
            out[1] = factor - 0.5 * a1
            out[2] = factor - 0.5 * a2
            out[3] = factor - 0.5 * a3


cdef void diag_accumulate(
    Shape shape, const double* coefficients, const double* tile, Py_ssize_t n_rows,
    const double* q, double* workspace, double* statistics,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t n_vectors = n_rows // LANES
    cdef double* first
    cdef double* second
    cdef const double* mean
    cdef const lanes* weight
    cdef const lanes* x0
    cdef const lanes* x1
    cdef lanes m0, m1, f0, f1, s0, s1, d0, d1, w0, w1
    cdef Py_ssize_t d, k, v
    for k in range(shape.n_components):
        first = statistics + k * n_features
        second = first + shape.n_components * n_features
        mean = coefficients + k * n_features
        weight = <const lanes*>(q + k * stride_of(n_rows))
        for d in range(0, n_features, 2):
            # Two features at a time; where D is odd the last is paired with itself, not stored.
            x0 = <const lanes*>(tile + d * stride_of(n_rows))
            m0 = lanes_set(mean[d])
            x1 = x0
            m1 = m0
            if d + 1 < n_features:
                x1 = <const lanes*>(tile + (d + 1) * stride_of(n_rows))
                m1 = lanes_set(mean[d + 1])
            f0 = lanes_set(0.0)
            f1 = f0
            s0 = f0
            s1 = f0
            for v in range(n_vectors):
                d0 = x0[v] - m0
                d1 = x1[v] - m1
                w0 = d0 * weight[v]
                w1 = d1 * weight[v]
                f0 = f0 + w0
                f1 = f1 + w1
                s0 = s0 + w0 * d0
                s1 = s1 + w1 * d1
            first[d] += lanes_sum(f0)
            second[d] += lanes_sum(s0)
            if d + 1 < n_features:
                first[d + 1] += lanes_sum(f1)
                second[d + 1] += lanes_sum(s1)


cdef Emission full_emission = [
    full_workspace_size, full_statistics_size, full_scores, full_accumulate
]
cdef Emission tied_emission = [
    full_workspace_size, tied_statistics_size, tied_scores, tied_accumulate
]
cdef Emission diag_emission = [
    diag_workspace_size, diag_statistics_size, diag_scores, diag_accumulate
]

full = PyCapsule_New(&full_emission, "vbfast.Emission", NULL)
tied = PyCapsule_New(&tied_emission, "vbfast.Emission", NULL)
diag = PyCapsule_New(&diag_emission, "vbfast.Emission", NULL)
