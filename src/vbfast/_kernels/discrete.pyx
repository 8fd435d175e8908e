# Emissions of counts and symbols, features independent given the component: log probabilities of a
# tile's rows, and their weighted counts.
#
# Poisson, exponential and Bernoulli scores are linear in the features, in x or in x and 1 - x;
# statistics are sums of these. Symbols are looked up, in a table and in a histogram of which one
# symbol's entries for all components lie side by side, so that the vector lanes run over components
# there.
#
# LOWEST stands for log 0: times 0 it is 0, and a sum with it in it is LOWEST or -inf, never NaN.
# Kernels for float64 numbers alone.

from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memset

from .tile cimport (
    LANES,
    PANEL,
    ROW_BLOCK,
    Emission,
    Shape,
    Source,
    even,
    fours,
    lanes,
    lanes_load,
    lanes_set,
    lines,
    loose_lanes,
    products,
    read_tile,
    real,
    stride_of,
)


cdef inline void linear_scores(
    Shape shape, bint both, const real* slopes, const real* others, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* scores,
) noexcept nogil:
    """scores[k] = offsets[k] + sum over features of slopes[k] x, and of others[k] (1 - x) if both.

    slopes and others are (K, D). Four vectors of rows and two components at a time; where K is odd
    the last component is paired with itself.
    """
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t step = stride // LANES
    cdef Py_ssize_t block, first, i, k, other
    cdef const lanes* x
    cdef lanes* out
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, c, d, e, f, y, z
    cdef lanes one = lanes_set(1.0)
    for block in range(n_rows // (4 * LANES)):
        first = 4 * LANES * block
        for k in range(0, shape.n_components, 2):
            other = min(k + 1, shape.n_components - 1)
            x = <const lanes*>(tile + first)
            a0 = lanes_set(offsets[k])
            a1 = a0
            a2 = a0
            a3 = a0
            b0 = lanes_set(offsets[other])
            b1 = b0
            b2 = b0
            b3 = b0
            for i in range(n_features):
                c = lanes_set(slopes[k * n_features + i])
                d = lanes_set(slopes[other * n_features + i])
                if both:
                    e = lanes_set(others[k * n_features + i])
                    f = lanes_set(others[other * n_features + i])
                y = lanes_load(x)
                a0 = a0 + c * y
                b0 = b0 + d * y
                if both:
                    z = one - y
                    a0 = a0 + e * z
                    b0 = b0 + f * z
                y = lanes_load(x + 1)
                a1 = a1 + c * y
                b1 = b1 + d * y
                if both:
                    z = one - y
                    a1 = a1 + e * z
                    b1 = b1 + f * z
                y = lanes_load(x + 2)
                a2 = a2 + c * y
                b2 = b2 + d * y
                if both:
                    z = one - y
                    a2 = a2 + e * z
                    b2 = b2 + f * z
                y = lanes_load(x + 3)
                a3 = a3 + c * y
                b3 = b3 + d * y
                if both:
                    z = one - y
                    a3 = a3 + e * z
                    b3 = b3 + f * z
                x = x + step
            out = <lanes*>(scores + k * stride + first)
            out[0] = a0
            out[1] = a1
            out[2] = a2
            out[3] = a3
            out = <lanes*>(scores + other * stride + first)
            out[0] = b0
            out[1] = b1
            out[2] = b2
            out[3] = b3


cdef inline Py_ssize_t sums_size(Shape shape) noexcept nogil:
    """Numbers of the sums over rows, (even(K), fours(D)), of which K and D count."""
    return even(shape.n_components) * fours(shape.n_features)


cdef inline void accumulate_sums(
    Shape shape, bint others, const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, const real* q,
    real* workspace, double* sums,
) noexcept nogil:
    """sums += sum over rows of q x, or of q (1 - x); by panels that stay in the cache."""
    cdef Py_ssize_t n_features = shape.n_features
    cdef Py_ssize_t i, p, v, width
    cdef const real* rows
    cdef lanes one = lanes_set(1.0)
    for i in range((n_features + PANEL - 1) // PANEL):
        p = i * PANEL
        width = min(PANEL, n_features - p)
        rows = tile + p * stride
        if others:
            for v in range(width * stride // LANES):
                (<lanes*>workspace)[v] = one - (<const lanes*>rows)[v]
            rows = workspace
        products(
            shape.n_components, width, False, n_rows // LANES, stride // LANES,
            <const lanes*>q, <const lanes*>rows, sums + p, fours(n_features),
        )


# Counts and waiting times. Statistics: sums of x. Coefficients of counts: log rates (K, D); the
# rest of the log probability, minus the sum of rates, is in offsets, log x! in no score. Of waiting
# times: minus the rates; the sum of their logarithms is in offsets.

cdef Py_ssize_t rates_coefficients_size(Shape shape) noexcept nogil:
    return shape.n_components * shape.n_features


cdef Py_ssize_t rates_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    return 0


cdef void rates_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    linear_scores(shape, False, coefficients, NULL, offsets, tile, n_rows, stride, scores)


cdef void rates_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    accumulate_sums(shape, False, tile, n_rows, stride, q, workspace, statistics)


# Zeros and ones. Coefficients: log p (K, D), log (1 - p) (K, D). Statistics: sums of x, of 1 - x.
# Of both, since their difference from the number of rows would not be exactly 0 where it must be.

cdef Py_ssize_t bernoulli_coefficients_size(Shape shape) noexcept nogil:
    return 2 * shape.n_components * shape.n_features


cdef Py_ssize_t bernoulli_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # A panel of 1 - x, with padding.
    return (PANEL + 3) * stride_of(n_rows)


cdef Py_ssize_t bernoulli_statistics_size(Shape shape) noexcept nogil:
    return 2 * sums_size(shape)


cdef void bernoulli_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    linear_scores(
        shape, True, coefficients, coefficients + shape.n_components * shape.n_features, offsets,
        tile, n_rows, stride, scores,
    )


cdef void bernoulli_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    accumulate_sums(shape, False, tile, n_rows, stride, q, workspace, statistics)
    accumulate_sums(
        shape, True, tile, n_rows, stride, q, workspace, statistics + sums_size(shape)
    )


# Symbols 0 ... C - 1. Coefficients: log probabilities (D, C, lines(K)), the last of which are
# padding. Statistics: counts likewise.

cdef Py_ssize_t categorical_coefficients_size(Shape shape) noexcept nogil:
    return shape.n_features * shape.n_categories * lines(shape.n_components)


cdef Py_ssize_t categorical_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # Scores or q of some rows, row by row; origin and scale of their transpose; a histogram.
    return (
        ROW_BLOCK * lines(shape.n_components) + 2 * lines(max(shape.n_components, ROW_BLOCK))
        + (categorical_coefficients_size(shape) if shape.n_categories <= n_rows else 0)
    )


cdef inline Source transposed(
    const real* values, Py_ssize_t row_stride, Py_ssize_t n, const real* more, real* room
) noexcept nogil:
    """Numbers that read_tile transposes, adding more[column] to columns 0 ... n - 1, or nothing.

    Works in 2 * n numbers of room.
    """
    cdef Source source
    cdef Py_ssize_t i
    for i in range(n):
        room[i] = 0.0 if more == NULL else -more[i]
        room[n + i] = 1.0
    source.values = <const char*>values
    source.row_stride = row_stride * <Py_ssize_t>sizeof(real)
    source.column_stride = sizeof(real)
    source.single = sizeof(real) < 8
    source.origin = <const double*>room
    source.scale = <const double*>(room + n)
    source.columns = NULL
    return source


cdef inline Py_ssize_t entry(
    Shape shape, Py_ssize_t d, const real* tile, Py_ssize_t stride, Py_ssize_t row
) noexcept nogil:
    """Where a table or a histogram has what is about a row's feature d."""
    cdef real x = tile[d * stride + row]
    cdef real last = <real>(shape.n_categories - 1)
    # What is no symbol, in data that nobody has checked, must still be within the table.
    x = x if x > 0.0 else 0.0
    x = x if x < last else last
    return (d * shape.n_categories + <Py_ssize_t>x) * lines(shape.n_components)


cdef void categorical_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    cdef Py_ssize_t width = lines(shape.n_components)
    cdef Py_ssize_t n_vectors = (shape.n_components + LANES - 1) // LANES
    cdef lanes total
    cdef Py_ssize_t block, d, first, row, v
    cdef Source source = transposed(
        workspace, width, shape.n_components, offsets, workspace + ROW_BLOCK * width
    )
    for block in range(n_rows // ROW_BLOCK):
        first = block * ROW_BLOCK
        for row in range(ROW_BLOCK):
            for v in range(n_vectors):
                total = lanes_set(0.0)
                for d in range(shape.n_features):
                    total = total + (<const loose_lanes*>(
                        coefficients + entry(shape, d, tile, stride, first + row)
                    ))[v]
                (<loose_lanes*>(workspace + row * width))[v] = total
        read_tile(
            source, shape.n_components, 0, ROW_BLOCK, ROW_BLOCK, stride, scores + first
        )


cdef void categorical_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    cdef Py_ssize_t width = lines(shape.n_components)
    cdef Py_ssize_t n_vectors = (shape.n_components + LANES - 1) // LANES
    cdef Py_ssize_t size = categorical_coefficients_size(shape)
    cdef const loose_lanes* weight
    cdef loose_lanes* counts
    cdef double* histogram = statistics
    cdef Py_ssize_t block, d, first, i, row, v
    cdef Source source = transposed(q, stride, ROW_BLOCK, NULL, workspace + ROW_BLOCK * width)
    if shape.n_categories <= n_rows:
        # Of the tile alone, on cache lines: the statistics' own entries lie across them, and what
        # is read there soon after it was written has to wait.
        histogram = <double*>(
            workspace + ROW_BLOCK * width + 2 * lines(max(shape.n_components, ROW_BLOCK))
        )
        memset(histogram, 0, size * sizeof(double))
    for block in range(n_rows // ROW_BLOCK):
        first = block * ROW_BLOCK
        source.values = <const char*>(q + first)
        read_tile(
            source, ROW_BLOCK, 0, shape.n_components, n_vectors * LANES, width, workspace
        )
        for row in range(ROW_BLOCK):
            weight = <const loose_lanes*>(workspace + row * width)
            for d in range(shape.n_features):
                counts = <loose_lanes*>(
                    histogram + entry(shape, d, tile, stride, first + row)
                )
                for v in range(n_vectors):
                    counts[v] = counts[v] + weight[v]
    if histogram != statistics:
        for i in range(size):
            statistics[i] += histogram[i]


cdef Emission sums_of_rows = [
    rates_coefficients_size, rates_workspace_size, sums_size, rates_scores, rates_accumulate, NULL,
]
cdef Emission bernoulli = [
    bernoulli_coefficients_size, bernoulli_workspace_size, bernoulli_statistics_size,
    bernoulli_scores, bernoulli_accumulate, NULL,
]
cdef Emission categorical = [
    categorical_coefficients_size, categorical_workspace_size, categorical_coefficients_size,
    categorical_scores, categorical_accumulate, NULL,
]

EMISSIONS = {
    "poisson": PyCapsule_New(&sums_of_rows, "vbfast.Emission", NULL),
    "exponential": PyCapsule_New(&sums_of_rows, "vbfast.Emission", NULL),
    "bernoulli": PyCapsule_New(&bernoulli, "vbfast.Emission", NULL),
    "categorical": PyCapsule_New(&categorical, "vbfast.Emission", NULL),
}
