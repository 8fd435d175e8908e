# Gaussian emissions: log densities of a tile's rows and their weighted moments.
#
# Squared distances are |A (x - r) - A (m - r)|^2 and moments are taken about r, with A lower
# triangular and A'A the precision. The reference r is the origin for a component near it, and
# then costs nothing; for a far one, where x x' - m m' would cancel, it is the mean m itself.
#
# Scores: every inner loop works on four vectors of rows, held in registers with what is summed up
# over features. Moments: on a block of 2 x 4 sums over rows; features are taken by panels that
# stay in the first-level cache.

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport INFINITY

from .gaps cimport (
    ABREAST,
    Completion,
    Gaps,
    completion_in,
    completion_size,
    fill,
    find_gaps,
    gaps_size,
    orthogonalise,
    see_distances,
    spread_out,
    take_off,
)
from .tile cimport (
    LANES,
    PANEL,
    Emission,
    Shape,
    count_above,
    even,
    fours,
    lanes,
    lanes_add_sums,
    lanes_load,
    lanes_max,
    lanes_replace_equal,
    lanes_set,
    lanes_sum,
    products,
    real,
    stride_of,
)


cdef extern from *:
    """
    /* |slope center|^2 / 2 up to which scores are linear in z: in single precision rounding shows
     * sooner, at 16 standard deviations from the origin. */
    #ifdef VBFAST_SINGLE
    #define MOST_HALF 128.0f
    #else
    #define MOST_HALF INFINITY
    #endif
    """
    const real MOST_HALF


cdef enum:
    # Where a component takes less than one row in SPARSE of a tile, and a row is long, they are
    # gathered.
    SPARSE = 4
    LONG = 12
    MOST_GATHERED = 512


cdef void subtract(
    Py_ssize_t n_features, const real* mean, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, real* out,
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


cdef void squares(
    Py_ssize_t n_features, const lanes* rows, Py_ssize_t n_vectors, Py_ssize_t stride,
    double factor, lanes* out,
) noexcept nogil:
    """out = factor * (sum of squares over features)."""
    cdef lanes total
    cdef Py_ssize_t d, v
    for v in range(n_vectors):
        total = lanes_set(0.0)
        for d in range(n_features):
            total = total + rows[d * stride + v] * rows[d * stride + v]
        out[v] = lanes_set(factor) * total


cdef void weigh(
    Py_ssize_t n_features, const real* rows, Py_ssize_t n_rows, Py_ssize_t stride,
    const real* q, real* weighted, double* first_moments,
) noexcept nogil:
    """weighted = q * rows for the features of a panel; first_moments += their sums, if wanted.

    To those that come after the panel's last, up to a multiple of 8, nothing is added.
    """
    cdef const lanes* weight = <const lanes*>q
    cdef const lanes* value
    cdef lanes* out
    cdef lanes[PANEL] sums
    cdef lanes s0, s1, s2, s3, y0, y1, y2, y3
    cdef Py_ssize_t d, v
    cdef Py_ssize_t n_vectors = n_rows // LANES
    for d in range(n_features):
        value = <const lanes*>(rows + d * stride)
        out = <lanes*>(weighted + d * stride)
        s0 = lanes_set(0.0)
        s1 = s0
        s2 = s0
        s3 = s0
        for v in range(0, n_vectors, 4):
            y0 = value[v] * weight[v]
            y1 = value[v + 1] * weight[v + 1]
            y2 = value[v + 2] * weight[v + 2]
            y3 = value[v + 3] * weight[v + 3]
            out[v] = y0
            out[v + 1] = y1
            out[v + 2] = y2
            out[v + 3] = y3
            s0 = s0 + y0
            s1 = s1 + y1
            s2 = s2 + y2
            s3 = s3 + y3
        sums[d] = (s0 + s1) + (s2 + s3)
    if first_moments == NULL:
        return
    for d in range(n_features, PANEL):
        sums[d] = lanes_set(0.0)
    for d in range(0, n_features, 8):
        lanes_add_sums(
            sums[d], sums[d + 1], sums[d + 2], sums[d + 3],
            sums[d + 4], sums[d + 5], sums[d + 6], sums[d + 7],
            first_moments + d, first_moments + d + 4,
        )


cdef void convert(Py_ssize_t size, const double* coefficients, real* converted) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        converted[i] = <real>coefficients[i]


# Every emission's first moments come first in its statistics.

cdef inline Py_ssize_t first_size(Shape shape) noexcept nogil:
    """Numbers of the first moments, (even(K), fours(D)), and room for 4 more."""
    return even(shape.n_components) * fours(shape.n_features) + 4


cdef inline Py_ssize_t second_size(Shape shape) noexcept nogil:
    """Numbers of a matrix of second moments, (even(D), fours(D)), of which j <= i counts."""
    return even(shape.n_features) * fours(shape.n_features)


cdef inline Py_ssize_t panel_size(Py_ssize_t stride) noexcept nogil:
    """Numbers of a panel's features, with padding, `stride` apart as in the tile."""
    return (PANEL + 3) * stride


cdef inline Py_ssize_t rows_size(Shape shape, Py_ssize_t stride) noexcept nogil:
    """Numbers of all features, with padding, `stride` apart as in the tile."""
    return (shape.n_features + 3) * stride


# Coefficients: far (K), means m (K, D), shifts A (m - r) (K, D), factors A (K, D, D).
# Statistics: first moments, second moments for each component.

cdef Py_ssize_t full_coefficients_size(Shape shape) noexcept nogil:
    cdef Py_ssize_t d = shape.n_features
    return shape.n_components * (1 + 2 * d + d * d)


cdef Py_ssize_t full_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # Differences, the same of some rows only, and a panel of them weighted.
    cdef Py_ssize_t stride = stride_of(n_rows)
    return 2 * rows_size(shape, stride) + panel_size(stride)


cdef Py_ssize_t full_statistics_size(Shape shape) noexcept nogil:
    return first_size(shape) + shape.n_components * second_size(shape)


cdef void squared_distances(
    Py_ssize_t n_features, const real* factor, const real* shift, const lanes* rows,
    Py_ssize_t stride, lanes offset, lanes* out,
) noexcept nogil:
    """out[0:4] = offset - |A x - shift|^2 / 2 for four vectors of rows; features stride apart."""
    cdef Py_ssize_t i, j
    cdef const real* row
    cdef const real* next_row
    cdef const lanes* x
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, first, second, y
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
            y = lanes_load(x)
            a0 = a0 + first * y
            b0 = b0 + second * y
            y = lanes_load(x + 1)
            a1 = a1 + first * y
            b1 = b1 + second * y
            y = lanes_load(x + 2)
            a2 = a2 + first * y
            b2 = b2 + second * y
            y = lanes_load(x + 3)
            a3 = a3 + first * y
            b3 = b3 + second * y
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
    first = lanes_set(-0.5)
    out[0] = offset + first * s0
    out[1] = offset + first * s1
    out[2] = offset + first * s2
    out[3] = offset + first * s3


cdef void full_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef const real* far = coefficients
    cdef const real* means = far + shape.n_components
    cdef const real* shifts = means + shape.n_components * n_features
    cdef const real* factors = shifts + shape.n_components * n_features
    cdef const real* rows
    cdef Py_ssize_t block, first, k
    for block in range(n_rows // (4 * LANES)):
        first = 4 * LANES * block
        for k in range(shape.n_components):
            rows = tile + first
            if far[k]:
                subtract(n_features, means + k * n_features, rows, 4 * LANES, stride, workspace)
                rows = workspace
            squared_distances(
                n_features, factors + k * n_features * n_features, shifts + k * n_features,
                <const lanes*>rows, stride // LANES, lanes_set(offsets[k]),
                <lanes*>(scores + k * stride + first),
            )


cdef void accumulate_triangle(
    Py_ssize_t n_features, const real* rows, Py_ssize_t n_rows, Py_ssize_t stride, const real* q,
    real* weighted, double* first, double* second,
) noexcept nogil:
    """first += sum of q * x, second += sum of q * x x', of which j <= i counts."""
    cdef Py_ssize_t columns = fours(n_features)
    cdef Py_ssize_t i, p
    cdef const real* panel
    for i in range((n_features + PANEL - 1) // PANEL):
        p = i * PANEL
        panel = rows + p * stride
        weigh(
            min(PANEL, n_features - p), panel, n_rows, stride, q, weighted,
            NULL if first == NULL else first + p,
        )
        products(
            n_features - p, min(PANEL, n_features - p), True, n_rows // LANES, stride // LANES,
            <const lanes*>panel, <const lanes*>weighted, second + p * columns + p, columns,
        )


cdef Py_ssize_t gather(
    Py_ssize_t n_features, const real* rows, Py_ssize_t n_rows, Py_ssize_t stride, const real* q,
    double limit, real* out,
) noexcept nogil:
    """Copy the rows of q > limit, after the last feature their q, and zeros up to whole blocks.

    Returns the number of rows that makes.
    """
    cdef Py_ssize_t[MOST_GATHERED + 1] places
    cdef Py_ssize_t d, i, row
    cdef Py_ssize_t n = 0
    cdef const real* values
    for row in range(n_rows):
        # Without a branch, which no processor could foresee.
        places[n] = row
        n += q[row] > limit
    cdef Py_ssize_t n_taken = (n + 4 * LANES - 1) // (4 * LANES) * (4 * LANES)
    for d in range(n_features + 1):
        values = rows + d * stride if d < n_features else q
        for i in range(n):
            out[d * stride + i] = values[places[i]]
        for i in range(n, n_taken):
            out[d * stride + i] = 0.0
    return n_taken


cdef void accumulate_each(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
    Py_ssize_t between,
) noexcept nogil:
    """Component k's second moments are added at k * between: between 0 pools them."""
    cdef Py_ssize_t n_features = shape.n_features
    cdef const real* far = coefficients
    cdef const real* means = far + shape.n_components
    cdef real* gathered = workspace + rows_size(shape, stride)
    cdef real* weighted = gathered + rows_size(shape, stride)
    cdef const real* rows
    cdef const real* weight
    cdef Py_ssize_t k, n_taken
    for k in range(shape.n_components):
        if limits[k] == INFINITY:
            continue
        rows = tile
        if far[k]:
            subtract(n_features, means + k * n_features, tile, n_rows, stride, workspace)
            rows = workspace
        weight = q + k * stride
        n_taken = n_rows
        if (
            n_features >= LONG
            and SPARSE * count_above(q + k * stride, n_rows, limits[k]) <= n_rows
        ):
            weight = gathered + n_features * stride
            n_taken = gather(
                n_features, rows, n_rows, stride, q + k * stride, limits[k], gathered
            )
            rows = gathered
        accumulate_triangle(
            n_features, rows, n_taken, stride, weight, weighted,
            statistics + k * fours(n_features), statistics + first_size(shape) + k * between,
        )


cdef void full_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    accumulate_each(
        shape, coefficients, tile, n_rows, stride, q, limits, workspace, statistics,
        second_size(shape),
    )


cdef void accumulate_rows(
    Shape shape, Py_ssize_t n_features, const real* rows, Py_ssize_t n_rows, Py_ssize_t stride,
    const real* q, double* out, Py_ssize_t columns,
) noexcept nogil:
    """out[k] += sum over rows of q[k] * row, for every component."""
    products(
        shape.n_components, n_features, False, n_rows // LANES, stride // LANES,
        <const lanes*>q, <const lanes*>rows, out, columns,
    )


# What tied and spherical covariances share: scores that are linear in z, where near, but for a term
# of the row alone. Precision slope * I in the space of z.

cdef void isotropic_scores(
    Shape shape, const real* far, const real* centers, const real* slopes, const real* linear,
    const real* halves, const real* rests, const real* offsets, const lanes* z,
    const lanes* minus_half_squares,
    Py_ssize_t stride, lanes* out,
) noexcept nogil:
    """Scores of four vectors of rows, of which -|z|^2 / 2 is given; everything stride apart.

    Near: (-half + z'(slope * center) - slope |z|^2 / 2) + offset - rest, where half + rest is
    slope |center|^2 / 2, so that what is small is added last. Far, or too far for single
    precision: offset - slope |z - center|^2 / 2.
    """
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t i, k, other
    cdef const lanes* x
    cdef const real* p
    cdef const real* r
    cdef const lanes* last = minus_half_squares
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, c, d, y
    for k in range(0, shape.n_components, 2):
        # Two components at a time; where K is odd the last is paired with itself.
        other = min(k + 1, shape.n_components - 1)
        x = z
        if far[k] or halves[k] > MOST_HALF or halves[other] > MOST_HALF:
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            b0 = a0
            b1 = a0
            b2 = a0
            b3 = a0
            p = centers + k * n_features
            r = centers + other * n_features
            for i in range(n_features):
                c = lanes_set(p[i])
                d = lanes_set(r[i])
                a0 = a0 + (x[0] - c) * (x[0] - c)
                a1 = a1 + (x[1] - c) * (x[1] - c)
                a2 = a2 + (x[2] - c) * (x[2] - c)
                a3 = a3 + (x[3] - c) * (x[3] - c)
                b0 = b0 + (x[0] - d) * (x[0] - d)
                b1 = b1 + (x[1] - d) * (x[1] - d)
                b2 = b2 + (x[2] - d) * (x[2] - d)
                b3 = b3 + (x[3] - d) * (x[3] - d)
                x = x + stride
            c = lanes_set(-0.5 * slopes[k])
            d = lanes_set(-0.5 * slopes[other])
            a0 = lanes_set(offsets[k]) + c * a0
            a1 = lanes_set(offsets[k]) + c * a1
            a2 = lanes_set(offsets[k]) + c * a2
            a3 = lanes_set(offsets[k]) + c * a3
            b0 = lanes_set(offsets[other]) + d * b0
            b1 = lanes_set(offsets[other]) + d * b1
            b2 = lanes_set(offsets[other]) + d * b2
            b3 = lanes_set(offsets[other]) + d * b3
        else:
            a0 = lanes_set(-halves[k])
            a1 = a0
            a2 = a0
            a3 = a0
            b0 = lanes_set(-halves[other])
            b1 = b0
            b2 = b0
            b3 = b0
            p = linear + k * n_features
            r = linear + other * n_features
            for i in range(n_features):
                c = lanes_set(p[i])
                d = lanes_set(r[i])
                y = lanes_load(x)
                a0 = a0 + c * y
                b0 = b0 + d * y
                y = lanes_load(x + 1)
                a1 = a1 + c * y
                b1 = b1 + d * y
                y = lanes_load(x + 2)
                a2 = a2 + c * y
                b2 = b2 + d * y
                y = lanes_load(x + 3)
                a3 = a3 + c * y
                b3 = b3 + d * y
                x = x + stride
            c = lanes_set(slopes[k])
            d = lanes_set(slopes[other])
            a0 = a0 + c * last[0]
            a1 = a1 + c * last[1]
            a2 = a2 + c * last[2]
            a3 = a3 + c * last[3]
            b0 = b0 + d * last[0]
            b1 = b1 + d * last[1]
            b2 = b2 + d * last[2]
            b3 = b3 + d * last[3]
            c = lanes_set(offsets[k] - rests[k])
            d = lanes_set(offsets[other] - rests[other])
            a0 = a0 + c
            a1 = a1 + c
            a2 = a2 + c
            a3 = a3 + c
            b0 = b0 + d
            b1 = b1 + d
            b2 = b2 + d
            b3 = b3 + d
        out[k * stride] = a0
        out[k * stride + 1] = a1
        out[k * stride + 2] = a2
        out[k * stride + 3] = a3
        out[other * stride] = b0
        out[other * stride + 1] = b1
        out[other * stride + 2] = b2
        out[other * stride + 3] = b3


cdef void isotropic_convert(
    Shape shape, Py_ssize_t size, const double* coefficients, real* converted
) noexcept nogil:
    """Coefficients of which the first are far, centers, slopes, slope * center, halves and rests.

    Distances are to the centers that slopes and products have after rounding, from which halves
    and rests must follow: where z is far larger than z - center, errors of either would show.
    """
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t n_components = shape.n_components
    cdef real* slopes = converted + n_components * (1 + n_features)
    cdef real* linear = slopes + n_components
    cdef real* halves = linear + n_components * n_features
    cdef Py_ssize_t d, k
    cdef double half, product
    convert(size, coefficients, converted)
    for k in range(n_components):
        half = 0.0
        for d in range(n_features):
            product = linear[k * n_features + d]
            half += 0.5 * product * product / slopes[k]
        halves[k] = <real>half
        halves[n_components + k] = <real>(half - halves[k])


# One factor for all components, all near or all far. Coefficients: far (K), means m (K, D), slopes
# 1 (K), transformed means A m (K, D), their halved squares (K), what rounding takes from these (K),
# factor A (D, D). Statistics: first moments, pooled second moments.

cdef Py_ssize_t tied_coefficients_size(Shape shape) noexcept nogil:
    cdef Py_ssize_t d = shape.n_features
    return shape.n_components * (4 + 2 * d) + d * d


cdef Py_ssize_t tied_statistics_size(Shape shape) noexcept nogil:
    return first_size(shape) + second_size(shape)


cdef void transform(
    Py_ssize_t n_features, const real* factor, const lanes* x, Py_ssize_t stride, lanes* z,
) noexcept nogil:
    """z = A x for four vectors of rows, and z[D] = -|z|^2 / 2."""
    cdef const lanes* rows
    cdef lanes a0, a1, a2, a3, c
    cdef lanes s0 = lanes_set(0.0)
    cdef lanes s1 = s0, s2 = s0, s3 = s0
    cdef Py_ssize_t i, j
    for i in range(n_features):
        a0 = lanes_set(0.0)
        a1 = a0
        a2 = a0
        a3 = a0
        rows = x
        for j in range(i + 1):
            c = lanes_set(factor[i * n_features + j])
            a0 = a0 + c * rows[0]
            a1 = a1 + c * rows[1]
            a2 = a2 + c * rows[2]
            a3 = a3 + c * rows[3]
            rows = rows + stride
        s0 = s0 + a0 * a0
        s1 = s1 + a1 * a1
        s2 = s2 + a2 * a2
        s3 = s3 + a3 * a3
        z[0] = a0
        z[1] = a1
        z[2] = a2
        z[3] = a3
        z = z + stride
    c = lanes_set(-0.5)
    z[0] = c * s0
    z[1] = c * s1
    z[2] = c * s2
    z[3] = c * s3


cdef void tied_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t step = stride // LANES
    cdef const real* far = coefficients
    cdef const real* slopes = far + shape.n_components * (1 + n_features)
    cdef const real* means = slopes + shape.n_components
    cdef const real* halves = means + shape.n_components * n_features
    cdef const real* rests = halves + shape.n_components
    cdef const real* factor = rests + shape.n_components
    cdef Py_ssize_t block, first
    for block in range(n_rows // (4 * LANES)):
        first = 4 * LANES * block
        transform(n_features, factor, <const lanes*>(tile + first), step, <lanes*>workspace)
        isotropic_scores(
            shape, far, means, slopes, means, halves, rests, offsets,
            <const lanes*>workspace,
            <const lanes*>workspace + n_features * step, step, <lanes*>(scores + first),
        )


cdef void tied_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    """Near: the second moments of all rows, whatever their component, about the origin."""
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t step = stride // LANES
    cdef lanes* weight = <lanes*>workspace
    cdef lanes total
    cdef Py_ssize_t k, v
    if coefficients[0]:
        accumulate_each(
            shape, coefficients, tile, n_rows, stride, q, limits, workspace, statistics, 0
        )
        return
    accumulate_rows(
        shape, n_features, tile, n_rows, stride, q, statistics, fours(n_features)
    )
    for v in range(n_rows // LANES):
        total = lanes_set(0.0)
        for k in range(shape.n_components):
            total = total + (<const lanes*>q)[k * step + v]
        weight[v] = total
    accumulate_triangle(
        n_features, tile, n_rows, stride, workspace, workspace + 2 * rows_size(shape, stride),
        NULL, statistics + first_size(shape),
    )


# A diagonal factor a; all components near or all far. Coefficients: far (K), means m (K, D),
# a (K, D), a m (K, D). Statistics: first moments, second moments likewise.

cdef Py_ssize_t diag_coefficients_size(Shape shape) noexcept nogil:
    return shape.n_components * (1 + 3 * shape.n_features)


cdef Py_ssize_t diag_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # A panel of squares.
    return panel_size(stride_of(n_rows))


cdef Py_ssize_t diag_statistics_size(Shape shape) noexcept nogil:
    return 2 * first_size(shape)


cdef void scaled_distances(
    Py_ssize_t n_features, const real* factor, const real* shift, const real* other_factor,
    const real* other_shift, const lanes* rows, Py_ssize_t stride, lanes offset,
    lanes other_offset, lanes* out, lanes* other_out,
) noexcept nogil:
    """out[0:4] = offset - |a x - shift|^2 / 2 for four vectors of rows and two components."""
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, a, b, s, t, x, y
    cdef Py_ssize_t d
    a0 = lanes_set(0.0)
    a1 = a0
    a2 = a0
    a3 = a0
    b0 = a0
    b1 = a0
    b2 = a0
    b3 = a0
    for d in range(n_features):
        a = lanes_set(factor[d])
        s = lanes_set(shift[d])
        b = lanes_set(other_factor[d])
        t = lanes_set(other_shift[d])
        x = lanes_load(rows)
        y = a * x - s
        a0 = a0 + y * y
        y = b * x - t
        b0 = b0 + y * y
        x = lanes_load(rows + 1)
        y = a * x - s
        a1 = a1 + y * y
        y = b * x - t
        b1 = b1 + y * y
        x = lanes_load(rows + 2)
        y = a * x - s
        a2 = a2 + y * y
        y = b * x - t
        b2 = b2 + y * y
        x = lanes_load(rows + 3)
        y = a * x - s
        a3 = a3 + y * y
        y = b * x - t
        b3 = b3 + y * y
        rows = rows + stride
    a = lanes_set(-0.5)
    out[0] = offset + a * a0
    out[1] = offset + a * a1
    out[2] = offset + a * a2
    out[3] = offset + a * a3
    other_out[0] = other_offset + a * b0
    other_out[1] = other_offset + a * b1
    other_out[2] = other_offset + a * b2
    other_out[3] = other_offset + a * b3


cdef void diag_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef const real* factors = coefficients + shape.n_components * (1 + n_features)
    cdef const real* shifts = factors + shape.n_components * n_features
    cdef Py_ssize_t block, first, k, other
    for block in range(n_rows // (4 * LANES)):
        first = 4 * LANES * block
        for k in range(0, shape.n_components, 2):
            # Where K is odd the last component is paired with itself.
            other = min(k + 1, shape.n_components - 1)
            scaled_distances(
                n_features, factors + k * n_features, shifts + k * n_features,
                factors + other * n_features, shifts + other * n_features,
                <const lanes*>(tile + first), stride // LANES, lanes_set(offsets[k]),
                lanes_set(offsets[other]), <lanes*>(scores + k * stride + first),
                <lanes*>(scores + other * stride + first),
            )


cdef void diag_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t columns = fours(n_features)
    cdef const lanes* rows
    cdef lanes* squared = <lanes*>workspace
    cdef Py_ssize_t i, p, v, width
    if coefficients[0]:
        accumulate_diag_far(
            shape, coefficients, tile, n_rows, stride, q, limits, statistics,
            statistics + first_size(shape), columns, 1,
        )
        return
    for i in range((n_features + PANEL - 1) // PANEL):
        p = i * PANEL
        width = min(PANEL, n_features - p)
        rows = <const lanes*>(tile + p * stride)
        for v in range(width * stride // LANES):
            squared[v] = rows[v] * rows[v]
        accumulate_rows(
            shape, width, tile + p * stride, n_rows, stride, q, statistics + p, columns
        )
        accumulate_rows(
            shape, width, workspace, n_rows, stride, q, statistics + first_size(shape) + p, columns
        )


cdef void accumulate_diag_far(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, double* first, double* second,
    Py_ssize_t second_columns, Py_ssize_t between,
) noexcept nogil:
    """Second moments of feature d are added at d * between: between 0 pools them."""
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t columns = fours(n_features)
    cdef const real* mean
    cdef const lanes* weight
    cdef const lanes* x
    cdef lanes m, f0, f1, s0, s1, d0, d1, w0, w1
    cdef Py_ssize_t d, k, v
    for k in range(shape.n_components):
        if limits[k] == INFINITY:
            continue
        mean = coefficients + shape.n_components + k * n_features
        weight = <const lanes*>(q + k * stride)
        for d in range(n_features):
            x = <const lanes*>(tile + d * stride)
            m = lanes_set(mean[d])
            f0 = lanes_set(0.0)
            f1 = f0
            s0 = f0
            s1 = f0
            for v in range(0, n_rows // LANES, 2):
                d0 = x[v] - m
                d1 = x[v + 1] - m
                w0 = d0 * weight[v]
                w1 = d1 * weight[v + 1]
                f0 = f0 + w0
                f1 = f1 + w1
                s0 = s0 + w0 * d0
                s1 = s1 + w1 * d1
            first[k * columns + d] += lanes_sum(f0 + f1)
            second[k * second_columns + d * between] += lanes_sum(s0 + s1)


# One precision lambda for all features of a component; all components near or all far.
# Coefficients: far (K), means m (K, D), lambda (K), lambda m (K, D), lambda |m|^2 / 2 (K), what
# rounding takes from these (K).
# Statistics: first moments; second moments (even(K), 4), of which the first column counts.

cdef Py_ssize_t spherical_coefficients_size(Shape shape) noexcept nogil:
    return shape.n_components * (4 + 2 * shape.n_features)


cdef Py_ssize_t spherical_statistics_size(Shape shape) noexcept nogil:
    return first_size(shape) + 4 * even(shape.n_components)


cdef void spherical_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t step = stride // LANES
    cdef const real* far = coefficients
    cdef const real* means = far + shape.n_components
    cdef const real* slopes = means + shape.n_components * n_features
    cdef const real* slopes_means = slopes + shape.n_components
    cdef const real* halves = slopes_means + shape.n_components * n_features
    cdef const real* rests = halves + shape.n_components
    cdef const lanes* x
    cdef Py_ssize_t block, first
    for block in range(n_rows // (4 * LANES)):
        first = 4 * LANES * block
        x = <const lanes*>(tile + first)
        squares(n_features, x, 4, step, -0.5, <lanes*>workspace)
        isotropic_scores(
            shape, far, means, slopes, slopes_means, halves, rests, offsets, x,
            <const lanes*>workspace,
            step, <lanes*>(scores + first),
        )


cdef void spherical_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    cdef Py_ssize_t n_features = shape.n_features
    cdef double* second = statistics + first_size(shape)
    if coefficients[0]:
        accumulate_diag_far(
            shape, coefficients, tile, n_rows, stride, q, limits, statistics, second, 4, 0
        )
        return
    accumulate_rows(shape, n_features, tile, n_rows, stride, q, statistics, fours(n_features))
    squares(
        n_features, <const lanes*>tile, n_rows // LANES, stride // LANES, 1.0, <lanes*>workspace
    )
    accumulate_rows(shape, 1, workspace, n_rows, stride, q, second, 4)


cdef void full_convert(
    Shape shape, const double* coefficients, real* converted
) noexcept nogil:
    convert(full_coefficients_size(shape), coefficients, converted)


cdef Emission full_emission = [
    full_coefficients_size, full_workspace_size, full_statistics_size, full_scores,
    full_accumulate, full_convert,
]
cdef void tied_convert(
    Shape shape, const double* coefficients, real* converted
) noexcept nogil:
    isotropic_convert(shape, tied_coefficients_size(shape), coefficients, converted)


cdef Emission tied_emission = [
    tied_coefficients_size, full_workspace_size, tied_statistics_size, tied_scores,
    tied_accumulate, tied_convert,
]
cdef void diag_convert(
    Shape shape, const double* coefficients, real* converted
) noexcept nogil:
    convert(diag_coefficients_size(shape), coefficients, converted)


cdef Emission diag_emission = [
    diag_coefficients_size, diag_workspace_size, diag_statistics_size, diag_scores,
    diag_accumulate, diag_convert,
]
cdef void spherical_convert(
    Shape shape, const double* coefficients, real* converted
) noexcept nogil:
    isotropic_convert(shape, spherical_coefficients_size(shape), coefficients, converted)


cdef Emission spherical_emission = [
    spherical_coefficients_size, diag_workspace_size, spherical_statistics_size,
    spherical_scores, spherical_accumulate, spherical_convert,
]


# Full and tied covariances of rows with gaps: see gaps.pxd. Coefficients and statistics are as of
# rows without; of tied covariances the coefficients are those of full ones. What a missing feature
# takes from the constants of a score is the same for all components, and in none.

cdef Py_ssize_t gapped_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # Gaps; a completion; completed rows, a panel of them weighted, and sums of covariances, or what
    # rows without gaps need.
    cdef Py_ssize_t d = shape.n_features
    cdef Py_ssize_t stride = stride_of(n_rows)
    return (
        gaps_size(d, n_rows) + completion_size(d)
        + rows_size(shape, stride) + panel_size(stride) + LANES * d * d
    )


cdef inline bint without_gaps(const Gaps* gaps) noexcept nogil:
    """Whether ABREAST vectors of rows have none."""
    return gaps[0].n + gaps[1].n + gaps[2].n + gaps[3].n == 0


cdef void gapped_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    cdef Py_ssize_t d = shape.n_features
    cdef const real* means = coefficients + shape.n_components
    cdef const real* factors = means + 2 * shape.n_components * d
    cdef const Gaps* gaps = find_gaps(d, tile, n_rows, stride, workspace)
    cdef Completion found = completion_in(d, workspace + gaps_size(d, n_rows))
    cdef real* room = workspace + gaps_size(d, n_rows) + completion_size(d)
    cdef const Gaps* known
    cdef lanes squared
    cdef Py_ssize_t block, i, k, v
    for block in range(n_rows // LANES // ABREAST):
        v = block * ABREAST
        if without_gaps(gaps + v):
            full_scores(
                shape, coefficients, offsets, tile + v * LANES, ABREAST * LANES, stride, room,
                scores + v * LANES,
            )
    for k in range(shape.n_components):
        known = NULL
        for block in range(n_rows // LANES // ABREAST):
            v = block * ABREAST
            if without_gaps(gaps + v):
                continue
            see_distances(
                d, means + k * d, factors + k * d * d, <const lanes*>tile + v, stride // LANES,
                &found,
            )
            for i in range(ABREAST):
                if known == NULL or not (gaps[v + i].again and known == gaps + v + i - 1):
                    orthogonalise(d, factors + k * d * d, gaps + v + i, &found)
                known = gaps + v + i
                squared = take_off(d, known, i, &found)
                # Of numbers that overflow nothing is left to subtract: a row is impossible then.
                (<lanes*>(scores + k * stride))[v + i] = lanes_max(
                    lanes_set(offsets[k]) - lanes_set(0.5) * (squared + found.log_det[0]),
                    lanes_set(-INFINITY),
                )


cdef void complete(
    Py_ssize_t n_features, bint far, const real* mean, const real* factor, const real* tile,
    Py_ssize_t n_rows, Py_ssize_t stride, const real* q, double limit, const Gaps* gaps,
    Completion* found, real* completed, lanes* spread, double* second,
) noexcept nogil:
    """completed = the rows, about the mean where far, each gap at its expectation where q > limit.

    second += sum of q times the covariances of what is missing. `spread` (D, D) is scratch.
    """
    cdef Py_ssize_t step = stride // LANES
    cdef Py_ssize_t a, i, j, v
    cdef Py_ssize_t seen = -1
    cdef const Gaps* known = NULL
    cdef lanes about, absent, x
    cdef lanes weight = lanes_set(0.0)
    cdef lanes* rows
    for i in range(n_features):
        rows = <lanes*>(completed + i * stride)
        about = lanes_set(mean[i] if far else 0.0)
        absent = lanes_set(0.0 if far else mean[i])
        for v in range(n_rows // LANES):
            x = (<const lanes*>(tile + i * stride))[v]
            rows[v] = lanes_replace_equal(absent, x - about, x, x)
        for j in range(i + 1):
            spread[i * n_features + j] = lanes_set(0.0)
    for v in range(n_rows // LANES):
        if gaps[v].n == 0 or count_above(q + v * LANES, LANES, limit) == 0:
            continue
        if seen != v - v % ABREAST:
            seen = v - v % ABREAST
            see_distances(
                n_features, mean, factor, <const lanes*>tile + seen, step, found
            )
        if known == NULL or not (gaps[v].again and known == gaps + v - 1):
            if known != NULL:
                spread_out(n_features, known, weight, found, spread)
                weight = lanes_set(0.0)
            orthogonalise(n_features, factor, gaps + v, found)
        known = gaps + v
        weight = weight + (<const lanes*>q)[v]
        take_off(n_features, known, v % ABREAST, found)
        fill(known, found)
        for a in range(known.n):
            rows = <lanes*>(completed + known.features[a] * stride)
            rows[v] = rows[v] + known.missing[a] * found.gap[a]
    if known == NULL:
        return
    spread_out(n_features, known, weight, found, spread)
    for i in range(n_features):
        for j in range(i + 1):
            second[i * fours(n_features) + j] += lanes_sum(spread[i * n_features + j])


cdef void accumulate_with_gaps(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
    Py_ssize_t between,
) noexcept nogil:
    """Moments of completed rows, and the covariances of what was missing.

    Component k's second moments are added at k * between: between 0 pools them.
    """
    cdef Py_ssize_t d = shape.n_features
    cdef const real* far = coefficients
    cdef const real* means = far + shape.n_components
    cdef const real* factors = means + 2 * shape.n_components * d
    cdef const Gaps* gaps = find_gaps(d, tile, n_rows, stride, workspace)
    cdef Completion found = completion_in(d, workspace + gaps_size(d, n_rows))
    cdef real* completed = workspace + gaps_size(d, n_rows) + completion_size(d)
    cdef real* weighted = completed + rows_size(shape, stride)
    cdef lanes* spread = <lanes*>(weighted + panel_size(stride))
    cdef double* second
    cdef Py_ssize_t k
    for k in range(shape.n_components):
        if limits[k] == INFINITY:
            continue
        second = statistics + first_size(shape) + k * between
        complete(
            d, far[k] != 0, means + k * d, factors + k * d * d, tile, n_rows, stride,
            q + k * stride, limits[k], gaps, &found, completed, spread, second,
        )
        accumulate_triangle(
            d, completed, n_rows, stride, q + k * stride, weighted, statistics + k * fours(d),
            second,
        )


cdef void full_gaps_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    accumulate_with_gaps(
        shape, coefficients, tile, n_rows, stride, q, limits, workspace, statistics,
        second_size(shape),
    )


cdef void tied_gaps_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    accumulate_with_gaps(
        shape, coefficients, tile, n_rows, stride, q, limits, workspace, statistics, 0
    )


cdef Emission full_gaps_emission = [
    full_coefficients_size, gapped_workspace_size, full_statistics_size, gapped_scores,
    full_gaps_accumulate, NULL,
]
cdef Emission tied_gaps_emission = [
    full_coefficients_size, gapped_workspace_size, tied_statistics_size, gapped_scores,
    tied_gaps_accumulate, NULL,
]

EMISSIONS = {
    "full": PyCapsule_New(&full_emission, "vbfast.Emission", NULL),
    "tied": PyCapsule_New(&tied_emission, "vbfast.Emission", NULL),
    "diag": PyCapsule_New(&diag_emission, "vbfast.Emission", NULL),
    "spherical": PyCapsule_New(&spherical_emission, "vbfast.Emission", NULL),
    "full_gaps": PyCapsule_New(&full_gaps_emission, "vbfast.Emission", NULL),
    "tied_gaps": PyCapsule_New(&tied_gaps_emission, "vbfast.Emission", NULL),
}
