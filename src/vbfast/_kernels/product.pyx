# A product of emissions, each of some of the features: scores add, statistics stand one after
# another.

from cpython.pycapsule cimport PyCapsule_New

from .tile cimport (
    LANES,
    SCORES_PADDING,
    TILE_PADDING,
    VALUES_MISS,
    Emission,
    Part,
    Shape,
    lanes,
    lanes_replace_equal,
    lanes_set,
    lines,
    real,
    stride_of,
    sum_rows,
)


cdef inline Py_ssize_t before(const Part* part) noexcept nogil:
    """Numbers that a part's coefficients, and its statistics, begin with."""
    return part.shape.n_components if part.may_miss else 0


cdef Py_ssize_t product_coefficients_size(Shape shape) noexcept nogil:
    cdef Py_ssize_t i
    cdef Py_ssize_t size = 0
    for i in range(shape.n_parts):
        size += before(shape.parts + i)
        size += shape.parts[i].emission.coefficients_size(shape.parts[i].shape)
    return size


cdef Py_ssize_t product_statistics_size(Shape shape) noexcept nogil:
    cdef Py_ssize_t i
    cdef Py_ssize_t size = 0
    for i in range(shape.n_parts):
        size += before(shape.parts + i)
        size += shape.parts[i].emission.statistics_size(shape.parts[i].shape)
    return size


# A workspace: no offsets (K); which rows are seen (rows); a part's scores, or q of its rows
# (K, stride); a part's features (D, stride); the workspace of whichever part wants most.

cdef inline Py_ssize_t rows_size(Shape shape, Py_ssize_t stride) noexcept nogil:
    """Numbers of scores or q, with padding."""
    return (shape.n_components + SCORES_PADDING) * stride


cdef inline Py_ssize_t features_size(Shape shape, Py_ssize_t stride) noexcept nogil:
    """Numbers of the features of the widest part that may be missing, with padding."""
    cdef Py_ssize_t i
    cdef Py_ssize_t widest = 0
    for i in range(shape.n_parts):
        if shape.parts[i].may_miss:
            widest = max(widest, shape.parts[i].shape.n_features)
    return (widest + TILE_PADDING) * stride if widest else 0


cdef Py_ssize_t product_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    cdef Py_ssize_t stride = stride_of(n_rows)
    cdef Py_ssize_t i
    cdef Py_ssize_t most = 0
    for i in range(shape.n_parts):
        most = max(most, shape.parts[i].emission.workspace_size(shape.parts[i].shape, n_rows))
    return (
        lines(shape.n_components) + stride + rows_size(shape, stride)
        + features_size(shape, stride) + most
    )


cdef inline void find_seen(
    const Part* part, const real* rows, Py_ssize_t n_rows, Py_ssize_t stride, lanes* seen
) noexcept nogil:
    """seen = 1 for rows of which features (D, stride) are not NaN, else 0: all of them, or some."""
    cdef const lanes* x
    cdef Py_ssize_t d, v
    cdef lanes at_first = lanes_set(0.0 if part.may_miss == VALUES_MISS else 1.0)
    cdef lanes none = lanes_set(0.0)
    cdef lanes one = lanes_set(1.0)
    for v in range(n_rows // LANES):
        seen[v] = at_first
    for d in range(part.shape.n_features):
        x = <const lanes*>(rows + d * stride)
        for v in range(n_rows // LANES):
            if part.may_miss == VALUES_MISS:
                seen[v] = lanes_replace_equal(seen[v], one, x[v], x[v])
            else:
                seen[v] = lanes_replace_equal(none, seen[v], x[v], x[v])


cdef void product_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    """The first part has the offsets, and what the others say is added to its scores.

    Where it may be missing offsets are written first.
    """
    cdef real* nothing = workspace
    cdef lanes* seen = <lanes*>(nothing + lines(shape.n_components))
    cdef real* added = <real*>seen + stride
    cdef real* rest = added + rows_size(shape, stride) + features_size(shape, stride)
    cdef const real* rows
    cdef const Part* part
    cdef lanes* to
    cdef const lanes* of
    cdef lanes one = lanes_set(1.0)
    cdef Py_ssize_t i, k, v
    for k in range(shape.n_components):
        nothing[k] = 0.0
    for i in range(shape.n_parts):
        part = shape.parts + i
        rows = tile + part.first_feature * stride
        if part.may_miss:
            if i == 0:
                for k in range(shape.n_components):
                    to = <lanes*>(scores + k * stride)
                    for v in range(n_rows // LANES):
                        to[v] = lanes_set(offsets[k])
            find_seen(part, rows, n_rows, stride, seen)
            part.emission.scores(
                part.shape, coefficients + shape.n_components, coefficients, rows, n_rows, stride,
                rest, added,
            )
        else:
            part.emission.scores(
                part.shape, coefficients, nothing if i else offsets, rows, n_rows, stride, rest,
                added if i else scores,
            )
        coefficients += before(part) + part.emission.coefficients_size(part.shape)
        if i == 0 and not part.may_miss:
            continue
        for k in range(shape.n_components):
            to = <lanes*>(scores + k * stride)
            of = <const lanes*>(added + k * stride)
            if part.may_miss:
                for v in range(n_rows // LANES):
                    to[v] = lanes_replace_equal(to[v], to[v] + of[v], seen[v], one)
            else:
                for v in range(n_rows // LANES):
                    to[v] = to[v] + of[v]


cdef void product_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    """What is missing is 0, and of no component."""
    cdef lanes* seen = <lanes*>(workspace + lines(shape.n_components))
    cdef real* own = <real*>seen + stride
    cdef real* features = own + rows_size(shape, stride)
    cdef real* rest = features + features_size(shape, stride)
    cdef const real* rows
    cdef const Part* part
    cdef lanes* to
    cdef const lanes* of
    cdef lanes one = lanes_set(1.0)
    cdef Py_ssize_t d, i, k, v
    cdef bint any_missing
    for i in range(shape.n_parts):
        part = shape.parts + i
        rows = tile + part.first_feature * stride
        any_missing = False
        if part.may_miss:
            find_seen(part, rows, n_rows, stride, seen)
            any_missing = sum_rows(<const real*>seen, n_rows) < n_rows
        if part.may_miss and not any_missing:
            for k in range(shape.n_components):
                statistics[k] += sum_rows(q + k * stride, n_rows)
        if any_missing:
            for d in range(part.shape.n_features):
                to = <lanes*>(features + d * stride)
                of = <const lanes*>(rows + d * stride)
                for v in range(n_rows // LANES):
                    to[v] = lanes_replace_equal(lanes_set(0.0), of[v], seen[v], one)
            for k in range(shape.n_components):
                to = <lanes*>(own + k * stride)
                of = <const lanes*>(q + k * stride)
                for v in range(n_rows // LANES):
                    to[v] = of[v] * seen[v]
                statistics[k] += sum_rows(own + k * stride, n_rows)
        part.emission.accumulate(
            part.shape, coefficients + before(part), features if any_missing else rows, n_rows,
            stride, own if any_missing else q, limits, rest, statistics + before(part),
        )
        coefficients += before(part) + part.emission.coefficients_size(part.shape)
        statistics += before(part) + part.emission.statistics_size(part.shape)


cdef Emission product = [
    product_coefficients_size, product_workspace_size, product_statistics_size, product_scores,
    product_accumulate, NULL,
]

EMISSIONS = {"product": PyCapsule_New(&product, "vbfast.Emission", NULL)}
