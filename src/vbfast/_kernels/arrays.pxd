# Where arrays of Python lie. A typed memoryview would tell, at several times the price.

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int64_t
from libc.string cimport strcmp


cdef struct Doubles:
    double* data
    int ndim
    Py_ssize_t size
    Py_ssize_t[3] shape


cdef inline int open_array(
    str name, array, int flags, str allowed, Py_buffer* view
) except -1:
    """Let view be of an array; where it can't, the error names it and says what is allowed."""
    try:
        PyObject_GetBuffer(array, view, flags | PyBUF_FORMAT)
    except (BufferError, TypeError, ValueError) as error:
        raise TypeError(f"{name} must be {allowed}: {error}") from None
    return 0


cdef inline tuple shape_told(Doubles* found):
    cdef int i
    return tuple([found.shape[i] for i in range(found.ndim)])


cdef inline int look_into(str name, array, Doubles* out, bint writable=False) except -1:
    """Where an array lies, for as long as the caller holds it."""
    cdef Py_buffer view
    cdef int i
    cdef int flags = PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0)
    # Put together of two, it would cost as much as all the rest.
    cdef str allowed = (
        "contiguous float64, of three dimensions at most, that can be written to" if writable
        else "contiguous float64, of three dimensions at most"
    )
    open_array(name, array, flags, allowed, &view)
    try:
        if view.format == NULL or strcmp(view.format, "d") != 0 or view.ndim > 3:
            raise TypeError(f"{name} must be {allowed}")
        out.data = <double*>view.buf
        out.ndim = view.ndim
        out.size = view.len // <Py_ssize_t>sizeof(double)
        for i in range(3):
            out.shape[i] = view.shape[i] if i < view.ndim else 0
    finally:
        PyBuffer_Release(&view)
    return 0


cdef inline double* doubles(str name, array, Py_ssize_t length, bint writable=False) except? NULL:
    """Where an array of that many numbers lies."""
    cdef Doubles found
    look_into(name, array, &found, writable)
    if found.size != length:
        raise ValueError(f"{name} has length {found.size}, not {length}")
    return found.data


cdef inline double* shaped(str name, array, tuple shape, bint writable=False) except? NULL:
    """Where an array of that shape lies."""
    cdef Doubles found
    look_into(name, array, &found, writable)
    if shape_told(&found) != shape:
        raise ValueError(f"{name} has shape {shape_told(&found)}, not {shape}")
    return found.data


cdef inline double* doubles_of(
    str name, array, Py_ssize_t n_rows, Py_ssize_t n_columns, bint writable=False
) except? NULL:
    """Where an array (n_rows, n_columns) lies."""
    cdef Doubles found
    look_into(name, array, &found, writable)
    if found.ndim != 2 or found.shape[0] != n_rows or found.shape[1] != n_columns:
        raise ValueError(
            f"{name} has shape {shape_told(&found)}, not {(n_rows, n_columns)}"
        )
    return found.data


cdef inline int64_t* any_integers(
    str name, array, Py_ssize_t* length, bint writable=False
) except? NULL:
    """Where a one-dimensional int64 array lies, for as long as the caller holds it; its length."""
    cdef Py_buffer view
    cdef str allowed = "contiguous one-dimensional int64"
    cdef int flags = PyBUF_C_CONTIGUOUS
    if writable:
        allowed += ", that can be written to"
        flags |= PyBUF_WRITABLE
    open_array(name, array, flags, allowed, &view)
    try:
        if (
            view.ndim != 1 or view.itemsize != 8 or view.format == NULL
            or strcmp(view.format, "l") != 0 and strcmp(view.format, "q") != 0
        ):
            raise TypeError(f"{name} must be {allowed}")
        length[0] = view.shape[0]
        return <int64_t*>view.buf
    finally:
        PyBuffer_Release(&view)


cdef inline int64_t* integers(
    str name, array, Py_ssize_t length, bint writable=False
) except? NULL:
    """Where a one-dimensional int64 array of that length lies."""
    cdef Py_ssize_t found
    cdef int64_t* data = any_integers(name, array, &found, writable)
    if found != length:
        raise ValueError(f"{name} has length {found}, not {length}")
    return data
