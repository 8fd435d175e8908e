# One pass over raw data before any arithmetic: each column's range, and the first value that is
# not finite.

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport isfinite


cdef inline double value_at(const char* values, bint single) noexcept nogil:
    return (<const float*>values)[0] if single else (<const double*>values)[0]


def ranges(values, const double[::1] weights, double[::1] low, double[::1] high):
    """Fill low and high (D,) with each column's extremes over rows of weight > 0.

    Returns (row, column) of the first value, by rows, that is NaN or infinite (whatever its
    weight), or None.
    """
    cdef Py_buffer view
    cdef Py_ssize_t row, d, n_rows, n_features
    cdef bint single, counts
    cdef double x
    cdef const char* place
    cdef Py_ssize_t bad_row = -1, bad_column = -1
    PyObject_GetBuffer(values, &view, PyBUF_STRIDES)
    try:
        n_rows = view.shape[0]
        n_features = view.shape[1]
        single = view.itemsize == 4
        with nogil:
            for d in range(n_features):
                low[d] = 1.7976931348623157e308
                high[d] = -1.7976931348623157e308
            for row in range(n_rows):
                place = <const char*>view.buf + row * view.strides[0]
                counts = weights is None or weights[row] > 0.0
                for d in range(n_features):
                    x = value_at(place + d * view.strides[1], single)
                    if not isfinite(x):
                        bad_row = row
                        bad_column = d
                        break
                    if counts:
                        low[d] = min(low[d], x)
                        high[d] = max(high[d], x)
                if bad_row >= 0:
                    break
    finally:
        PyBuffer_Release(&view)
    return None if bad_row < 0 else (bad_row, bad_column)
