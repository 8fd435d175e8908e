# Gaussian emissions: log densities of a tile's rows and their weighted moments.
#
# Squared distances are |A (x - r) - A (m - r)|^2 and moments are taken about r, with A lower
# triangular and A'A the precision. The reference r is the origin for a component near it, and
# then costs nothing; for a far one, where x x' - m m' would cancel, it is the mean m itself.
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


cdef inline Py_ssize_t even(Py_ssize_t n) noexcept nogil:
    return (n + 1) // 2 * 2


cdef inline Py_ssize_t fours(Py_ssize_t n) noexcept nogil:
    return (n + 3) // 4 * 4


cdef void products(
    Py_ssize_t n_left, Py_ssize_t n_right, bint lower, Py_ssize_t n_vectors, Py_ssize_t stride,
    const lanes* left, const lanes* right, double* out,
) noexcept nogil:
    """out[i, j] += sum over rows of left[i] * right[j], in blocks of 2 x 4; only j <= i if lower.

    out has even(n_left) rows and fours(n_right) columns, the last of which are padding, as are the
    rows of left and right that they come from: those may hold anything.
    """
    cdef Py_ssize_t columns = fours(n_right)
    cdef Py_ssize_t i, j, v, end
    cdef const lanes* l0
    cdef const lanes* l1
    cdef const lanes* r0
    cdef const lanes* r1
    cdef const lanes* r2
    cdef const lanes* r3
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, x, y
    for i in range(0, n_left, 2):
        l0 = left + i * stride
        l1 = l0 + stride
        end = i + 2 if lower else n_right
        for j in range(0, end, 4):
            r0 = right + j * stride
            r1 = r0 + stride
            r2 = r1 + stride
            r3 = r2 + stride
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            b0 = a0
            b1 = a0
            b2 = a0
            b3 = a0
            if end - j > 2:
                for v in range(n_vectors):
                    x = l0[v]
                    y = l1[v]
                    a0 = a0 + x * r0[v]
                    a1 = a1 + x * r1[v]
                    a2 = a2 + x * r2[v]
                    a3 = a3 + x * r3[v]
                    b0 = b0 + y * r0[v]
                    b1 = b1 + y * r1[v]
                    b2 = b2 + y * r2[v]
                    b3 = b3 + y * r3[v]
            else:
                for v in range(n_vectors):
                    x = l0[v]
                    y = l1[v]
                    a0 = a0 + x * r0[v]
                    a1 = a1 + x * r1[v]
                    b0 = b0 + y * r0[v]
                    b1 = b1 + y * r1[v]
            lanes_add_sums(
                a0, a1, a2, a3, b0, b1, b2, b3, out + i * columns + j, out + (i + 1) * columns + j
            )


cdef void subtract(
    Py_ssize_t n_features, const double* mean, const double* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, double* out,
) noexcept nogil:
    """out = tile - mean, feature by feature."""
    cdef const lanes* rows
    cdef lanes* difference
    cdef lanes center
    cdef Py_ssize_t d, v
    for d in range(n_features):
        center = lanes_set(mean[d])
        rows = <const lanes*>(tile + d * stride)
        difference = <lanes*>(out + d * stride)
        for v in range(n_rows // LANES):
            difference[v] = rows[v] - center


cdef void weigh(
    Py_ssize_t n_features, const double* rows, Py_ssize_t n_rows, Py_ssize_t stride,
    const double* q, double* weighted, double* first_moments,
) noexcept nogil:
    """weighted = q * rows, feature by feature, whose sums are added to first_moments if wanted."""
    cdef const lanes* weight = <const lanes*>q
    cdef const lanes* value
    cdef lanes* out
    cdef lanes total, w
    cdef Py_ssize_t d, v
    for d in range(n_features):
        value = <const lanes*>(rows + d * stride)
        out = <lanes*>(weighted + d * stride)
        total = lanes_set(0.0)
        for v in range(n_rows // LANES):
            w = value[v] * weight[v]
            out[v] = w
            total = total + w
        if first_moments != NULL:
            first_moments[d] += lanes_sum(total)


cdef bint is_zero(Py_ssize_t n_rows, const double* q) noexcept nogil:
    cdef lanes total = lanes_set(0.0)
    cdef Py_ssize_t v
    for v in range(n_rows // LANES):
        total = total + (<const lanes*>q)[v]
    return lanes_sum(total) == 0.0


# Every emission's first moments come first in its statistics.

cdef inline Py_ssize_t first_size(Shape shape) noexcept nogil:
    """Doubles of the first moments, (even(K), fours(D))."""
    return even(shape.n_components) * fours(shape.n_features)


cdef inline Py_ssize_t second_size(Shape shape) noexcept nogil:
    """Doubles of a matrix of second moments, (even(D), fours(D)), of which j <= i counts."""
    return even(shape.n_features) * fours(shape.n_features)


# Coefficients: far (K), means m (K, D), shifts A (m - r) (K, D), factors A (K, D, D).
# Statistics: first moments, second moments for each component.

cdef Py_ssize_t full_coefficients_size(Shape shape) noexcept nogil:
    cdef Py_ssize_t d = shape.n_features
    return shape.n_components * (1 + 2 * d + d * d)


cdef Py_ssize_t full_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # Differences and weighted differences, with up to three features of padding each.
    return 2 * (shape.n_features + 3) * stride_of(n_rows)


cdef Py_ssize_t full_statistics_size(Shape shape) noexcept nogil:
    return first_size(shape) + shape.n_components * second_size(shape)


cdef void squared_distances(
    Py_ssize_t n_features, const double* factor, const double* shift, const lanes* rows,
    Py_ssize_t stride, lanes offset, lanes* out,
) noexcept nogil:
    """out[0:4] = offset - |A x - shift|^2 / 2 for four vectors of rows; features stride apart."""
    cdef Py_ssize_t i, j
    cdef const double* row
    cdef const double* next_row
    cdef const lanes* x
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, first, second
    cdef lanes s0 = lanes_set(0.0)
    cdef lanes s1 = s0, s2 = s0, s3 = s0
    for i in range(0, n_features - 1, 2):
        row = factor + i * n_features
        next_row = row + n_features
        a0 = lanes_set(-shift[i])
        a1 = a0
        a2 = a0
        a3 = a0
        b0 = lanes_set(-shift[i + 1])
        b1 = b0
        b2 = b0
        b3 = b0
        x = rows
        for j in range(i + 1):
            first = lanes_set(row[j])
            second = lanes_set(next_row[j])
            a0 = a0 + first * x[0]
            a1 = a1 + first * x[1]
            a2 = a2 + first * x[2]
            a3 = a3 + first * x[3]
            b0 = b0 + second * x[0]
            b1 = b1 + second * x[1]
            b2 = b2 + second * x[2]
            b3 = b3 + second * x[3]
            x = x + stride
        second = lanes_set(next_row[i + 1])
        b0 = b0 + second * x[0]
        b1 = b1 + second * x[1]
        b2 = b2 + second * x[2]
        b3 = b3 + second * x[3]
        s0 = s0 + a0 * a0
        s1 = s1 + a1 * a1
        s2 = s2 + a2 * a2
        s3 = s3 + a3 * a3
        s0 = s0 + b0 * b0
        s1 = s1 + b1 * b1
        s2 = s2 + b2 * b2
        s3 = s3 + b3 * b3
    if n_features % 2:
        i = n_features - 1
        row = factor + i * n_features
        a0 = lanes_set(-shift[i])
        a1 = a0
        a2 = a0
        a3 = a0
        x = rows
        for j in range(n_features):
            first = lanes_set(row[j])
            a0 = a0 + first * x[0]
            a1 = a1 + first * x[1]
            a2 = a2 + first * x[2]
            a3 = a3 + first * x[3]
            x = x + stride
        s0 = s0 + a0 * a0
        s1 = s1 + a1 * a1
        s2 = s2 + a2 * a2
        s3 = s3 + a3 * a3
    out[0] = offset - 0.5 * s0
    out[1] = offset - 0.5 * s1
    out[2] = offset - 0.5 * s2
    out[3] = offset - 0.5 * s3


cdef void full_scores(
    Shape shape, const double* coefficients, const double* offsets,
    const double* tile, Py_ssize_t n_rows, Py_ssize_t stride, double* workspace, double* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef const double* far = coefficients
    cdef const double* means = far + shape.n_components
    cdef const double* shifts = means + shape.n_components * n_features
    cdef const double* factors = shifts + shape.n_components * n_features
    cdef const double* rows
    cdef Py_ssize_t block, k
    for k in range(shape.n_components):
        rows = tile
        if far[k]:
            subtract(n_features, means + k * n_features, tile, n_rows, stride, workspace)
            rows = workspace
        for block in range(0, n_rows // LANES, 4):
            squared_distances(
                n_features, factors + k * n_features * n_features, shifts + k * n_features,
                <const lanes*>rows + block, stride // LANES, lanes_set(offsets[k]),
                <lanes*>(scores + k * stride) + block,
            )


cdef void accumulate_each(
    Shape shape, const double* coefficients, const double* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const double* q, double* workspace, double* statistics, Py_ssize_t between,
) noexcept nogil:
    """Component k's second moments are added at k * between: between 0 pools them."""
    cdef Py_ssize_t n_features = shape.n_features
    cdef const double* far = coefficients
    cdef const double* means = far + shape.n_components
    cdef double* weighted = workspace + (n_features + 3) * stride
    cdef double* second = statistics + first_size(shape)
    cdef const double* rows
    cdef Py_ssize_t k
    for k in range(shape.n_components):
        if is_zero(n_rows, q + k * stride):
            continue
        rows = tile
        if far[k]:
            subtract(n_features, means + k * n_features, tile, n_rows, stride, workspace)
            rows = workspace
        weigh(
            n_features, rows, n_rows, stride, q + k * stride, weighted,
            statistics + k * fours(n_features),
        )
        products(
            n_features, n_features, True, n_rows // LANES, stride // LANES,
            <const lanes*>weighted, <const lanes*>rows, second + k * between,
        )


cdef void full_accumulate(
    Shape shape, const double* coefficients, const double* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const double* q, double* workspace, double* statistics,
) noexcept nogil:
    accumulate_each(
        shape, coefficients, tile, n_rows, stride, q, workspace, statistics,
        second_size(shape),
    )


# One factor for all components, all near or all far. Coefficients: far (K), means m (K, D),
# transformed means A m (K, D), factor A (D, D). Statistics: first moments, pooled second moments.

cdef Py_ssize_t tied_coefficients_size(Shape shape) noexcept nogil:
    cdef Py_ssize_t d = shape.n_features
    return shape.n_components * (1 + 2 * d) + d * d


cdef Py_ssize_t tied_statistics_size(Shape shape) noexcept nogil:
    return first_size(shape) + second_size(shape)


cdef void transform(
    Py_ssize_t n_features, const double* factor, const double* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, double* out,
) noexcept nogil:
    """out = A x, and out[D] = -|A x|^2 / 2."""
    cdef Py_ssize_t step = stride // LANES
    cdef const lanes* rows
    cdef lanes* z
    cdef lanes a0, a1, a2, a3, s0, s1, s2, s3, c
    cdef Py_ssize_t block, i, j
    for block in range(0, n_rows // LANES, 4):
        s0 = lanes_set(0.0)
        s1 = s0
        s2 = s0
        s3 = s0
        for i in range(n_features):
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            rows = <const lanes*>tile + block
            for j in range(i + 1):
                c = lanes_set(factor[i * n_features + j])
                a0 = a0 + c * rows[0]
                a1 = a1 + c * rows[1]
                a2 = a2 + c * rows[2]
                a3 = a3 + c * rows[3]
                rows = rows + step
            s0 = s0 + a0 * a0
            s1 = s1 + a1 * a1
            s2 = s2 + a2 * a2
            s3 = s3 + a3 * a3
            z = <lanes*>out + i * step + block
            z[0] = a0
            z[1] = a1
            z[2] = a2
            z[3] = a3
        z = <lanes*>out + n_features * step + block
        z[0] = -0.5 * s0
        z[1] = -0.5 * s1
        z[2] = -0.5 * s2
        z[3] = -0.5 * s3


cdef void tied_scores(
    Shape shape, const double* coefficients, const double* offsets,
    const double* tile, Py_ssize_t n_rows, Py_ssize_t stride, double* workspace, double* scores,
) noexcept nogil:
    """Near: offset - |z|^2/2 + z'z_k - |z_k|^2/2; far: offset - |z - z_k|^2/2; z = A x."""
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t step = stride // LANES
    cdef const double* far = coefficients
    cdef const double* means = far + shape.n_components * (1 + n_features)
    cdef const double* factor = means + shape.n_components * n_features
    cdef const double* mean
    cdef const lanes* z
    cdef lanes* out
    cdef lanes a0, a1, a2, a3, c, d0, d1, d2, d3
    cdef double square
    cdef Py_ssize_t block, i, k
    transform(n_features, factor, tile, n_rows, stride, workspace)
    for k in range(shape.n_components):
        mean = means + k * n_features
        square = 0.0
        for i in range(n_features):
            square += mean[i] * mean[i]
        for block in range(0, n_rows // LANES, 4):
            z = <const lanes*>workspace + block
            out = <lanes*>(scores + k * stride) + block
            if far[k]:
                a0 = lanes_set(0.0)
                a1 = a0
                a2 = a0
                a3 = a0
                for i in range(n_features):
                    c = lanes_set(mean[i])
                    d0 = z[0] - c
                    d1 = z[1] - c
                    d2 = z[2] - c
                    d3 = z[3] - c
                    a0 = a0 + d0 * d0
                    a1 = a1 + d1 * d1
                    a2 = a2 + d2 * d2
                    a3 = a3 + d3 * d3
                    z = z + step
                c = lanes_set(offsets[k])
                out[0] = c - 0.5 * a0
                out[1] = c - 0.5 * a1
                out[2] = c - 0.5 * a2
                out[3] = c - 0.5 * a3
            else:
                a0 = lanes_set(offsets[k] - 0.5 * square)
                a1 = a0
                a2 = a0
                a3 = a0
                for i in range(n_features):
                    c = lanes_set(mean[i])
                    a0 = a0 + c * z[0]
                    a1 = a1 + c * z[1]
                    a2 = a2 + c * z[2]
                    a3 = a3 + c * z[3]
                    z = z + step
                out[0] = a0 + z[0]
                out[1] = a1 + z[1]
                out[2] = a2 + z[2]
                out[3] = a3 + z[3]


cdef void tied_accumulate(
    Shape shape, const double* coefficients, const double* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const double* q, double* workspace, double* statistics,
) noexcept nogil:
    """Near: the second moments of all rows, whatever their component, about the origin."""
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t step = stride // LANES
    cdef lanes* weight = <lanes*>workspace
    cdef double* weighted = workspace + (n_features + 3) * stride
    cdef lanes total
    cdef Py_ssize_t k, v
    if coefficients[0]:
        accumulate_each(shape, coefficients, tile, n_rows, stride, q, workspace, statistics, 0)
        return
    products(
        shape.n_components, n_features, False, n_rows // LANES, step,
        <const lanes*>q, <const lanes*>tile, statistics,
    )
    for v in range(n_rows // LANES):
        total = lanes_set(0.0)
        for k in range(shape.n_components):
            total = total + (<const lanes*>q)[k * step + v]
        weight[v] = total
    weigh(n_features, tile, n_rows, stride, workspace, weighted, NULL)
    products(
        n_features, n_features, True, n_rows // LANES, step,
        <const lanes*>weighted, <const lanes*>tile, statistics + first_size(shape),
    )


# A diagonal factor a; all components near or all far. Coefficients: far (K), means m (K, D),
# a (K, D), a m (K, D). Statistics: first moments, second moments likewise.

cdef Py_ssize_t diag_coefficients_size(Shape shape) noexcept nogil:
    return shape.n_components * (1 + 3 * shape.n_features)


cdef Py_ssize_t diag_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # Squares, with up to three features of padding.
    return (shape.n_features + 3) * stride_of(n_rows)


cdef Py_ssize_t diag_statistics_size(Shape shape) noexcept nogil:
    return 2 * first_size(shape)


cdef void diag_scores(
    Shape shape, const double* coefficients, const double* offsets,
    const double* tile, Py_ssize_t n_rows, Py_ssize_t stride, double* workspace, double* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef const double* factors = coefficients + shape.n_components * (1 + n_features)
    cdef const double* shifts = factors + shape.n_components * n_features
    cdef const lanes* rows
    cdef lanes* out
    cdef lanes a0, a1, a2, a3, factor, shift, y0, y1, y2, y3
    cdef Py_ssize_t block, d, k
    for k in range(shape.n_components):
        for block in range(0, n_rows // LANES, 4):
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            rows = <const lanes*>tile + block
            for d in range(n_features):
                factor = lanes_set(factors[k * n_features + d])
                shift = lanes_set(shifts[k * n_features + d])
                y0 = factor * rows[0] - shift
                y1 = factor * rows[1] - shift
                y2 = factor * rows[2] - shift
                y3 = factor * rows[3] - shift
                a0 = a0 + y0 * y0
                a1 = a1 + y1 * y1
                a2 = a2 + y2 * y2
                a3 = a3 + y3 * y3
                rows = rows + stride // LANES
            factor = lanes_set(offsets[k])
            out = <lanes*>(scores + k * stride) + block
            out[0] = factor - 0.5 * a0
            out[1] = factor - 0.5 * a1
            out[2] = factor - 0.5 * a2
            out[3] = factor - 0.5 * a3


cdef void diag_accumulate(
    Shape shape, const double* coefficients, const double* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const double* q, double* workspace, double* statistics,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t step = stride // LANES
    cdef const lanes* rows = <const lanes*>tile
    cdef lanes* squares = <lanes*>workspace
    cdef Py_ssize_t v
    if coefficients[0]:
        accumulate_diag_far(shape, coefficients, tile, n_rows, stride, q, statistics)
        return
    for v in range(n_features * step):
        squares[v] = rows[v] * rows[v]
    products(
        shape.n_components, n_features, False, n_rows // LANES, step,
        <const lanes*>q, rows, statistics,
    )
    products(
        shape.n_components, n_features, False, n_rows // LANES, step,
        <const lanes*>q, squares, statistics + first_size(shape),
    )


cdef void accumulate_diag_far(
    Shape shape, const double* coefficients, const double* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const double* q, double* statistics,
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
        first = statistics + k * fours(n_features)
        second = first + first_size(shape)
        mean = coefficients + shape.n_components + k * n_features
        weight = <const lanes*>(q + k * stride)
        for d in range(0, n_features, 2):
            # Two features at a time; where D is odd the last is paired with itself, not stored.
            x0 = <const lanes*>(tile + d * stride)
            m0 = lanes_set(mean[d])
            x1 = x0
            m1 = m0
            if d + 1 < n_features:
                x1 = <const lanes*>(tile + (d + 1) * stride)
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
    full_coefficients_size, full_workspace_size, full_statistics_size, full_scores,
    full_accumulate,
]
cdef Emission tied_emission = [
    tied_coefficients_size, full_workspace_size, tied_statistics_size, tied_scores,
    tied_accumulate,
]
cdef Emission diag_emission = [
    diag_coefficients_size, diag_workspace_size, diag_statistics_size, diag_scores,
    diag_accumulate,
]

EMISSIONS = {
    "full": PyCapsule_New(&full_emission, "vbfast.Emission", NULL),
    "tied": PyCapsule_New(&tied_emission, "vbfast.Emission", NULL),
    "diag": PyCapsule_New(&diag_emission, "vbfast.Emission", NULL),
}
