# What every kernel that visits rows does with its arguments, and how it looks for Ctrl-C.

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetPointer

from .assign cimport BEST, DRAW, EXACT, FACTORISED, FILTER, GIVEN, HARD, SCORES, Assignment
from .tile cimport Emission, Shape, Source, seconds


cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    void* PyErr_Occurred() noexcept


cdef extern from *:
    """
    #define SIGNAL_INTERVAL 0.03
    #define LITTLE_WORK 100000
    """
    # How often the calling thread looks for Ctrl-C, in seconds.
    const double SIGNAL_INTERVAL
    # Rows times numbers to be looked at for each, below which waking other threads costs more than
    # they save.
    const Py_ssize_t LITTLE_WORK


cdef struct Watch:
    double checked
    int stop


cdef inline Watch watch_from_now() noexcept nogil:
    cdef Watch watch
    watch.checked = seconds()
    watch.stop = 0
    return watch


cdef inline void check_signals(Watch* watch) noexcept nogil:
    """Only the thread that called may look; an error it finds stays set until the loop is left."""
    cdef double now = seconds()
    if now - watch.checked < SIGNAL_INTERVAL:
        return
    watch.checked = now
    with gil:
        if PyErr_CheckSignals() != 0:
            watch.stop = 1


cdef inline int raise_pending() except -1:
    return -1 if PyErr_Occurred() != NULL else 0


cdef inline const Emission* emission_of(dict emissions, str name) except NULL:
    return <const Emission*>PyCapsule_GetPointer(emissions[name], "vbfast.Emission")


cdef inline Shape shape_of(
    Py_ssize_t n_components, Py_ssize_t n_features, Py_ssize_t n_categories
) noexcept:
    cdef Shape shape
    shape.n_components = n_components
    shape.n_features = n_features
    shape.n_categories = n_categories
    return shape


cdef inline Shape checked_shape(
    const Emission* emission, Py_ssize_t n_components, Py_ssize_t n_features,
    Py_ssize_t n_categories,
) except *:
    """A shape of which every size that follows from it is a number, and not 0."""
    for name, size in (
        ("the number of components", n_components), ("the number of features", n_features)
    ):
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be >= 1")
    if n_categories < 0:
        raise ValueError(f"n_categories is {n_categories}; it must be >= 0")
    # Sizes are a few times components, padded, times features times features or categories.
    if (
        16.0 * (<double>n_components + 8) * (<double>n_features + 8)
        * max(<double>n_features + 8, <double>n_categories) > 2.0**56
    ):
        raise MemoryError(
            f"no memory for {n_components} components, {n_features} features and "
            f"{n_categories} categories"
        )
    cdef Shape shape = shape_of(n_components, n_features, n_categories)
    if emission.coefficients_size(shape) == 0:
        raise ValueError("n_categories is 0; an emission of symbols must have 1 or more")
    return shape


cdef inline int check_length(str name, Py_ssize_t length, Py_ssize_t expected) except -1:
    if length != expected:
        raise ValueError(f"{name} has length {length}, not {expected}")
    return 0


cdef inline int read_assignment(object told, tuple allowed, Assignment* assignment) except -1:
    """Read an Assignment of inputs.py whose kind is one of those allowed."""
    kind = told.kind
    if kind not in allowed:
        raise ValueError(f"assignment must be one of {', '.join(allowed)}, not {kind!r}")
    assignment.kind = {
        "scores": SCORES,
        "exact": EXACT,
        "best": BEST,
        "hard": HARD,
        "draw": DRAW,
        "given": GIVEN,
        "filter": FILTER,
        "factorised": FACTORISED,
    }[kind]
    assignment.truncation = told.truncation
    assignment.seed = told.seed
    assignment.sweep = told.sweep
    return 0


cdef inline int open_rows(object values, Py_buffer* view, Source* source) except -1:
    """Let source have these rows for as long as the view isn't released: (N, D) float64, float32.

    Where it raises, there is no view.
    """
    PyObject_GetBuffer(values, view, PyBUF_STRIDES | PyBUF_FORMAT)
    if view.ndim != 2 or view.format[0] != c"d" and view.format[0] != c"f":
        told = f"{view.ndim}-dimensional {view.format.decode()!r}"
        PyBuffer_Release(view)
        raise TypeError(f"values must be two-dimensional float64 or float32, not {told}")
    source.values = <const char*>view.buf
    source.row_stride = view.strides[0]
    source.column_stride = view.strides[1]
    source.single = view.itemsize == 4
    return 0
