# Passes over raw data before a fit or a prediction: each column's range, the first value that is
# not finite, and each column's mean and variance. Chunks are fixed by the shape, so that no result
# depends on the number of threads.

from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_STRIDES,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cython.parallel cimport prange
from libc.math cimport isfinite
from libc.string cimport memcmp, strcmp

from .cpu cimport granted, threads_for

import numpy as np

# Values below which waking other threads costs more than they save.
cdef Py_ssize_t LITTLE_WORK = 100_000

cdef enum:
    MOST_CHUNKS = 64


cdef struct Columns:
    const char* values
    Py_ssize_t row_stride
    Py_ssize_t column_stride
    bint single
    Py_ssize_t n_rows
    Py_ssize_t n_features
    const double* weights
    Py_ssize_t chunk_rows


cdef Columns columns_of(Py_buffer* view, const double[::1] weights) noexcept:
    cdef Columns columns
    columns.values = <const char*>view.buf
    columns.row_stride = view.strides[0]
    columns.column_stride = view.strides[1]
    columns.single = view.itemsize == 4
    columns.n_rows = view.shape[0]
    columns.n_features = view.shape[1]
    columns.weights = NULL if weights is None else &weights[0]
    columns.chunk_rows = (columns.n_rows + MOST_CHUNKS - 1) // MOST_CHUNKS
    return columns


cdef int threads_of(Columns columns, object wanted, Py_ssize_t n_chunks) except -1:
    cdef int n_threads = threads_for(wanted, n_chunks)
    return 1 if columns.n_rows * columns.n_features < LITTLE_WORK else granted(n_threads)


cdef inline double value_at(Columns columns, Py_ssize_t row, Py_ssize_t d) noexcept nogil:
    cdef const char* place = (
        columns.values + row * columns.row_stride + d * columns.column_stride
    )
    return (<const float*>place)[0] if columns.single else (<const double*>place)[0]


cdef inline double weight_at(Columns columns, Py_ssize_t row) noexcept nogil:
    return 1.0 if columns.weights == NULL else columns.weights[row]


cdef void chunk_ranges(
    Columns columns, Py_ssize_t chunk, double* low, double* high, Py_ssize_t* bad
) noexcept nogil:
    """low and high (D,) over rows of weight > 0; bad, the first (row, column) not finite, or -1."""
    cdef Py_ssize_t row, d
    cdef double x
    cdef bint present
    bad[0] = -1
    for d in range(columns.n_features):
        low[d] = 1.7976931348623157e308
        high[d] = -1.7976931348623157e308
    for row in range(
        chunk * columns.chunk_rows, min((chunk + 1) * columns.chunk_rows, columns.n_rows)
    ):
        present = weight_at(columns, row) > 0.0
        for d in range(columns.n_features):
            x = value_at(columns, row, d)
            if not isfinite(x):
                bad[0] = row
                bad[1] = d
                return
            if present:
                low[d] = min(low[d], x)
                high[d] = max(high[d], x)


cdef void chunk_finite(Columns columns, Py_ssize_t chunk, Py_ssize_t* bad) noexcept nogil:
    """bad: the first (row, column) that isn't finite, or -1."""
    cdef Py_ssize_t row, d
    bad[0] = -1
    for row in range(
        chunk * columns.chunk_rows, min((chunk + 1) * columns.chunk_rows, columns.n_rows)
    ):
        for d in range(columns.n_features):
            if not isfinite(value_at(columns, row, d)):
                bad[0] = row
                bad[1] = d
                return


cdef void chunk_moments(
    Columns columns, Py_ssize_t chunk, const double* origin, const double* scale, double* sums
) noexcept nogil:
    """sums: total weight, then first and second moments (D,) of (x - origin) * scale."""
    cdef Py_ssize_t row, d
    cdef double x, w
    cdef double* first = sums + 1
    cdef double* second = first + columns.n_features
    for d in range(1 + 2 * columns.n_features):
        sums[d] = 0.0
    for row in range(
        chunk * columns.chunk_rows, min((chunk + 1) * columns.chunk_rows, columns.n_rows)
    ):
        w = weight_at(columns, row)
        if w == 0.0:
            continue
        sums[0] += w
        for d in range(columns.n_features):
            x = (value_at(columns, row, d) - origin[d]) * scale[d]
            first[d] += w * x
            second[d] += w * x * x


cdef Py_ssize_t apart(Py_ssize_t size) noexcept:
    """Doubles from one chunk's results to the next's: two threads never write one cache line."""
    return (size + 7) // 8 * 8 + 8


def ranges(values, const double[::1] weights, int n_threads):
    """Return low (D,), high (D,) over rows of weight > 0, and the first value that isn't finite.

    The last as (row, column), by rows and whatever the row's weight, or None.
    """
    cdef Py_buffer view
    cdef Columns columns
    cdef Py_ssize_t chunk, n_chunks
    cdef double[:, ::1] low
    cdef double[:, ::1] high
    cdef Py_ssize_t[:, ::1] bad
    PyObject_GetBuffer(values, &view, PyBUF_STRIDES)
    try:
        columns = columns_of(&view, weights)
        n_chunks = (columns.n_rows + columns.chunk_rows - 1) // columns.chunk_rows
        low = np.empty((n_chunks, apart(columns.n_features)))
        high = np.empty_like(low)
        bad = np.empty((n_chunks, 2), dtype=np.intp)
        n_threads = threads_of(columns, n_threads, n_chunks)
        with nogil:
            if n_threads == 1:
                for chunk in range(n_chunks):
                    chunk_ranges(columns, chunk, &low[chunk, 0], &high[chunk, 0], &bad[chunk, 0])
            else:
                for chunk in prange(n_chunks, schedule="dynamic", num_threads=n_threads):
                    chunk_ranges(columns, chunk, &low[chunk, 0], &high[chunk, 0], &bad[chunk, 0])
    finally:
        PyBuffer_Release(&view)
    for chunk in range(n_chunks):
        if bad[chunk, 0] >= 0:
            return None, None, (bad[chunk, 0], bad[chunk, 1])
    return (
        np.asarray(low)[:, :columns.n_features].min(axis=0),
        np.asarray(high)[:, :columns.n_features].max(axis=0),
        None,
    )


def first_not_finite(values, int n_threads):
    """Return the first value that isn't finite as (row, column), by rows, or None."""
    cdef Py_buffer view
    cdef Columns columns
    cdef Py_ssize_t chunk, n_chunks
    cdef Py_ssize_t bad[2 * MOST_CHUNKS]
    PyObject_GetBuffer(values, &view, PyBUF_STRIDES)
    try:
        columns = columns_of(&view, None)
        n_chunks = (columns.n_rows + columns.chunk_rows - 1) // columns.chunk_rows
        n_threads = threads_of(columns, n_threads, n_chunks)
        with nogil:
            if n_threads == 1:
                for chunk in range(n_chunks):
                    chunk_finite(columns, chunk, bad + 2 * chunk)
            else:
                for chunk in prange(n_chunks, schedule="dynamic", num_threads=n_threads):
                    chunk_finite(columns, chunk, bad + 2 * chunk)
    finally:
        PyBuffer_Release(&view)
    for chunk in range(n_chunks):
        if bad[2 * chunk] >= 0:
            return bad[2 * chunk], bad[2 * chunk + 1]
    return None


def same(first, second):
    """Return whether two arrays hold the same bytes, of one type, in one shape and in C order.

    For any other objects, or where it can't tell without a copy, False.
    """
    cdef Py_buffer one, other
    cdef bint equal
    if not (PyObject_CheckBuffer(first) and PyObject_CheckBuffer(second)):
        return False
    PyObject_GetBuffer(first, &one, PyBUF_STRIDES | PyBUF_FORMAT)
    try:
        PyObject_GetBuffer(second, &other, PyBUF_STRIDES | PyBUF_FORMAT)
        equal = (
            one.ndim == other.ndim
            and one.len == other.len
            and memcmp(one.shape, other.shape, one.ndim * sizeof(Py_ssize_t)) == 0
            and strcmp(one.format, other.format) == 0
            and PyBuffer_IsContiguous(&one, c"C")
            and PyBuffer_IsContiguous(&other, c"C")
            and memcmp(one.buf, other.buf, one.len) == 0
        )
        PyBuffer_Release(&other)
    finally:
        PyBuffer_Release(&one)
    return equal


def moments(
    values, const double[::1] weights, const double[::1] origin, const double[::1] scale,
    int n_threads,
):
    """Return mean (D,) and variance (D,) of (x - origin) * scale."""
    cdef Py_buffer view
    cdef Columns columns
    cdef Py_ssize_t chunk, n_chunks
    cdef double[:, ::1] sums
    PyObject_GetBuffer(values, &view, PyBUF_STRIDES)
    try:
        columns = columns_of(&view, weights)
        n_chunks = (columns.n_rows + columns.chunk_rows - 1) // columns.chunk_rows
        sums = np.empty((n_chunks, apart(1 + 2 * columns.n_features)))
        n_threads = threads_of(columns, n_threads, n_chunks)
        with nogil:
            if n_threads == 1:
                for chunk in range(n_chunks):
                    chunk_moments(columns, chunk, &origin[0], &scale[0], &sums[chunk, 0])
            else:
                for chunk in prange(n_chunks, schedule="dynamic", num_threads=n_threads):
                    chunk_moments(columns, chunk, &origin[0], &scale[0], &sums[chunk, 0])
    finally:
        PyBuffer_Release(&view)
    total, first, second = np.split(
        np.asarray(sums)[:, :1 + 2 * columns.n_features].sum(axis=0), [1, 1 + columns.n_features]
    )
    mean = first / total
    return mean, np.maximum(second / total - mean**2, 0.0)
