# Where arrays of Python lie. A typed memoryview would tell, at several times the price.

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBuffer_Release,
    PyObject_GetBuffer,
)


cdef struct Doubles:
    double* data
    int ndim
    Py_ssize_t size
    Py_ssize_t[3] shape


cdef inline int look(str name, array, Doubles* out) except -1:
    """Where an array lies, for as long as the caller holds it."""
    cdef Py_buffer view
    cdef int i
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    try:
        if view.format[0] != c"d" or view.format[1] != 0 or view.ndim > 3:
            raise TypeError(f"{name} must be contiguous float64, of three dimensions at most")
        out.data = <double*>view.buf
        out.ndim = view.ndim
        out.size = view.len // <Py_ssize_t>sizeof(double)
        for i in range(view.ndim):
            out.shape[i] = view.shape[i]
    finally:
        PyBuffer_Release(&view)
    return 0


cdef inline double* doubles(str name, array, Py_ssize_t length) except? NULL:
    """Where an array of that many numbers lies."""
    cdef Doubles found
    look(name, array, &found)
    if found.size != length:
        raise ValueError(f"{name} has length {found.size}, not {length}")
    return found.data
