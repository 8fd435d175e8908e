# A product of emissions, each of some of the features: scores add, statistics stand one after
# another.

from cpython.pycapsule cimport PyCapsule_New

from .tile cimport (
    LANES,
    SCORES_PADDING,
    Emission,
    Part,
    Shape,
    lanes,
    lines,
    real,
    stride_of,
)


cdef Py_ssize_t product_coefficients_size(Shape shape) noexcept nogil:
    cdef Py_ssize_t i
    cdef Py_ssize_t size = 0
    for i in range(shape.n_parts):
        size += shape.parts[i].emission.coefficients_size(shape.parts[i].shape)
    return size


cdef inline Py_ssize_t added_size(Shape shape, Py_ssize_t stride) noexcept nogil:
    """Numbers of a part's scores, as the scores' own."""
    return (shape.n_components + SCORES_PADDING) * stride


cdef Py_ssize_t product_workspace_size(Shape shape, Py_ssize_t n_rows) noexcept nogil:
    # No offsets, a part's scores, and the workspace of whichever part wants most.
    cdef Py_ssize_t i
    cdef Py_ssize_t most = 0
    for i in range(shape.n_parts):
        most = max(most, shape.parts[i].emission.workspace_size(shape.parts[i].shape, n_rows))
    return lines(shape.n_components) + added_size(shape, stride_of(n_rows)) + most


cdef Py_ssize_t product_statistics_size(Shape shape) noexcept nogil:
    cdef Py_ssize_t i
    cdef Py_ssize_t size = 0
    for i in range(shape.n_parts):
        size += shape.parts[i].emission.statistics_size(shape.parts[i].shape)
    return size


cdef void product_scores(
    Shape shape, const real* coefficients, const real* offsets,
    const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* workspace, real* scores,
) noexcept nogil:
    """The first part has the offsets, and what the others say is added to its scores."""
    cdef real* nothing = workspace
    cdef real* added = nothing + lines(shape.n_components)
    cdef real* rest = added + added_size(shape, stride)
    cdef const Part* part
    cdef lanes* to
    cdef const lanes* of
    cdef Py_ssize_t i, k, v
    for k in range(shape.n_components):
        nothing[k] = 0.0
    for i in range(shape.n_parts):
        part = shape.parts + i
        part.emission.scores(
            part.shape, coefficients, nothing if i else offsets,
            tile + part.first_feature * stride, n_rows, stride, rest, added if i else scores,
        )
        coefficients += part.emission.coefficients_size(part.shape)
        if i == 0:
            continue
        for k in range(shape.n_components):
            to = <lanes*>(scores + k * stride)
            of = <const lanes*>(added + k * stride)
            for v in range(n_rows // LANES):
                to[v] = to[v] + of[v]


cdef void product_accumulate(
    Shape shape, const real* coefficients, const real* tile, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* q, const double* limits, real* workspace, double* statistics,
) noexcept nogil:
    cdef const Part* part
    cdef Py_ssize_t i
    for i in range(shape.n_parts):
        part = shape.parts + i
        part.emission.accumulate(
            part.shape, coefficients, tile + part.first_feature * stride, n_rows, stride, q,
            limits, workspace, statistics,
        )
        coefficients += part.emission.coefficients_size(part.shape)
        statistics += part.emission.statistics_size(part.shape)


cdef Emission product = [
    product_coefficients_size, product_workspace_size, product_statistics_size, product_scores,
    product_accumulate, NULL,
]

EMISSIONS = {"product": PyCapsule_New(&product, "vbfast.Emission", NULL)}
