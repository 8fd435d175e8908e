# What every kernel that visits rows does with its arguments, and how it looks for Ctrl-C.

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport floor
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset, strcmp

from .arrays cimport any_integers, integers, open_array
from .assign cimport BEST, DRAW, EXACT, FACTORISED, FILTER, GIVEN, HARD, SCORES, Assignment
from .tile cimport Emission, Part, Shape, Source, look_at, rest, seconds, thread_index


cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    void* PyErr_Occurred() noexcept
    const Py_ssize_t PY_SSIZE_T_MAX


cdef extern from *:
    """
    #define SIGNAL_INTERVAL 0.03
    #define LITTLE_WORK 100000
    #define MOST_COPIES (sizeof(real) < 8 ? 16777216.0 : 9007199254740992.0)
    """
    # How often the calling thread looks for Ctrl-C, in seconds.
    const double SIGNAL_INTERVAL
    # Rows times numbers to be looked at for each, below which waking other threads costs more than
    # they save.
    const Py_ssize_t LITTLE_WORK
    # Rows that one stands for at most where they are drawn: `real` counts no further.
    const double MOST_COPIES


cdef struct Watch:
    double checked
    int stop


cdef inline Watch watch_from_now() noexcept nogil:
    cdef Watch watch
    watch.checked = seconds()
    watch.stop = 0
    return watch


cdef inline void check_signals(Watch* watch) noexcept nogil:
    """Only the thread that called may look; an error it finds stays set until the loop is left.

    Until then none looks again: another signal's handler would run with the error set.
    """
    cdef double now = seconds()
    if now - watch.checked < SIGNAL_INTERVAL:
        return
    watch.checked = now
    with gil:
        if PyErr_Occurred() != NULL or PyErr_CheckSignals() != 0:
            watch.stop = 1


cdef inline bint halted(Watch* watch) noexcept nogil:
    """Whether to leave; of all threads, the calling one looks for signals."""
    if thread_index() == 0:
        check_signals(watch)
    return watch.stop


cdef inline void clear(void* block, Py_ssize_t size, Watch* watch) noexcept nogil:
    """Set bytes to 0, those of large blocks as far as they have been when signals stop it."""
    cdef Py_ssize_t part = 4194304  # bytes that take a few milliseconds
    cdef Py_ssize_t first = 0
    while first < size and (first == 0 or not halted(watch)):
        memset(<char*>block + first, 0, min(part, size - first))
        first += part


cdef inline void wait_for(
    const Py_ssize_t* done, Py_ssize_t n, Watch* watch
) noexcept nogil:
    """Let the calling thread wait until others are done, for it alone can look for Ctrl-C."""
    cdef double began
    if look_at(done) >= n:
        return
    began = seconds()
    while look_at(done) < n:
        if seconds() - began > 0.001:
            rest()
            check_signals(watch)


cdef inline int raise_pending() except -1:
    return -1 if PyErr_Occurred() != NULL else 0


cdef inline const Emission* emission_of(dict emissions, str name) except NULL:
    if name not in emissions:
        raise ValueError(f"emission must be one of {', '.join(emissions)}, not {name!r}")
    return <const Emission*>PyCapsule_GetPointer(emissions[name], "vbfast.Emission")


cdef inline int check_least(str name, Py_ssize_t value, Py_ssize_t least) except -1:
    if value < least:
        raise ValueError(f"{name} is {value}; it must be >= {least}")
    return 0


cdef inline Py_ssize_t times(Py_ssize_t a, Py_ssize_t b) except -1:
    """a * b >= 0, or MemoryError where that is no size."""
    if b > 0 and a > PY_SSIZE_T_MAX // 16 // b:
        raise MemoryError(f"no memory for {a} times {b} numbers")
    return a * b


cdef inline Shape shape_within(
    Py_ssize_t n_components, Py_ssize_t n_features, Py_ssize_t n_categories
) except *:
    """The shape, of which no size that an emission or a kernel works out overflows."""
    cdef Shape shape
    cdef double largest = max(n_components, n_features, n_categories) + 8.0
    check_least("n_components", n_components, 1)
    check_least("n_features", n_features, 1)
    check_least("n_categories", n_categories, 0)
    if n_components * (n_features + 8.0) * largest > 2.0**55:
        raise MemoryError(
            f"no memory for n_components={n_components}, n_features={n_features}, "
            f"n_categories={n_categories}"
        )
    shape.n_components = n_components
    shape.n_features = n_features
    shape.n_categories = n_categories
    shape.parts = NULL
    shape.n_parts = 0
    return shape


cdef inline Shape shape_of(
    const Emission* emission, Py_ssize_t n_components, Py_ssize_t n_features,
    Py_ssize_t n_categories,
) except *:
    """The shape that an emission has."""
    cdef Shape shape = shape_within(n_components, n_features, n_categories)
    if emission.coefficients_size(shape) == 0:
        raise ValueError(f"n_categories is {n_categories}; for symbols it must be >= 1")
    return shape


cdef inline bytes read_emission(
    dict emissions, told, Py_ssize_t n_components, Py_ssize_t n_columns, Py_ssize_t n_categories,
    const Emission** emission, Shape* shape, const Py_ssize_t** columns,
):
    """Find an emission by its name, or a product of several, the shape it has, the columns it sees.

    A product is told as a tuple of (name, columns, n_categories, may_miss) for each part; features
    are the parts' columns, one part's after the other's. What is returned keeps them where they
    are.
    """
    cdef Py_ssize_t n_features = 0
    cdef Py_ssize_t widest = 0
    cdef Py_ssize_t column
    cdef Part* part
    cdef Py_ssize_t* place
    cdef bytes held
    if type(told) is not tuple:
        emission[0] = emission_of(emissions, told)
        shape[0] = shape_of(emission[0], n_components, n_columns, n_categories)
        columns[0] = NULL
        return None
    check_least("the number of parts", len(told), 1)
    for _, of_part, symbols, _may_miss in told:
        n_features += len(of_part)
        widest = max(widest, symbols)
    held = PyBytes_FromStringAndSize(
        NULL, times(len(told), sizeof(Part)) + times(n_features, sizeof(Py_ssize_t))
    )
    emission[0] = emission_of(emissions, "product")
    shape[0] = shape_within(n_components, n_features, widest)
    part = <Part*>PyBytes_AS_STRING(held)
    shape.parts = part
    shape.n_parts = len(told)
    place = <Py_ssize_t*>(part + shape.n_parts)
    columns[0] = place
    n_features = 0
    for name, of_part, symbols, may_miss in told:
        part.emission = emission_of(emissions, name)
        if part.emission == emission[0]:
            raise ValueError("a part of a product can't be a product")
        part.shape = shape_of(part.emission, n_components, len(of_part), symbols)
        part.first_feature = n_features
        part.may_miss = may_miss
        for column in of_part:
            if not 0 <= column < n_columns:
                raise ValueError(
                    f"a part of a product is of column {column}; 0 to {n_columns - 1} are allowed"
                )
            place[n_features] = column
            n_features += 1
        part += 1
    return held


cdef inline int check_length(str name, Py_ssize_t length, Py_ssize_t expected) except -1:
    if length != expected:
        raise ValueError(f"{name} has length {length}, not {expected}")
    return 0


cdef inline int read_assignment(object told, tuple allowed, Assignment* assignment) except -1:
    """Read an Assignment of inputs.py whose kind is one of those allowed."""
    kind = told.kind
    if kind not in allowed:
        raise ValueError(f"assignment must be one of {', '.join(allowed)}, not {kind!r}")
    # A dict of them would take as long as visiting some rows.
    if kind == "exact":
        assignment.kind = EXACT
    elif kind == "hard":
        assignment.kind = HARD
    elif kind == "draw":
        assignment.kind = DRAW
    elif kind == "best":
        assignment.kind = BEST
    elif kind == "factorised":
        assignment.kind = FACTORISED
    elif kind == "filter":
        assignment.kind = FILTER
    elif kind == "given":
        assignment.kind = GIVEN
    else:
        assignment.kind = SCORES
    assignment.truncation = 0
    if assignment.kind == BEST:
        # As many as there are is all that can be meant by more.
        assignment.truncation = min(told.truncation, PY_SSIZE_T_MAX)
        check_least("truncation", assignment.truncation, 1)
    assignment.seed = told.seed
    assignment.sweep = told.sweep
    return 0


cdef inline bytes read_labels(
    object labels, Py_ssize_t n_rows, Py_ssize_t n_components, bint all_known,
    const int64_t** each,
):
    """Components of rows, checked: 0 ... K - 1, or -1 where not known, unless all must be.

    They last as long as what is returned. That is a copy: another thread may write to the array
    while rows are visited. NULL where there are none.
    """
    cdef Py_ssize_t row
    cdef Py_ssize_t least = 0 if all_known else -1
    cdef bytes held
    each[0] = NULL
    if labels is None:
        if all_known:
            raise ValueError("block.labels must hold each row's component with 'given', not None")
        return None
    cdef const int64_t* given = integers("labels", labels, n_rows)
    held = PyBytes_FromStringAndSize(NULL, times(n_rows, sizeof(int64_t)))
    memcpy(PyBytes_AS_STRING(held), given, n_rows * sizeof(int64_t))
    each[0] = <const int64_t*>PyBytes_AS_STRING(held)
    for row in range(n_rows):
        if not least <= each[0][row] < n_components:
            raise ValueError(
                f"labels[{row}] is {each[0][row]}; it must be >= {least} and < {n_components}"
            )
    return held


cdef inline int check_whole(const double* weights, Py_ssize_t n_rows) except -1:
    """Weights that rows are drawn by: a row of weight w is w rows."""
    cdef Py_ssize_t row
    for row in range(n_rows):
        if not (0.0 <= weights[row] <= MOST_COPIES and weights[row] == floor(weights[row])):
            raise ValueError(
                f"weights[{row}] is {weights[row]}; draws take whole weights from 0 to "
                f"{<int64_t>MOST_COPIES} only: a row of weight w is w rows, each drawn"
            )
    return 0


cdef inline int open_rows(object values, Py_buffer* view, Source* source) except -1:
    """Let source have these rows for as long as the view isn't released: (N, D) float64, float32.

    Where it raises, there is no view.
    """
    cdef str allowed = "two-dimensional float64 or float32"
    open_array("values", values, PyBUF_STRIDES, allowed, view)
    if view.ndim != 2 or view.format == NULL or (
        strcmp(view.format, "d") != 0 and strcmp(view.format, "f") != 0
    ):
        told = f"{view.ndim}-dimensional {(view.format or b'').decode()!r}"
        PyBuffer_Release(view)
        raise TypeError(f"values must be {allowed}, not {told}")
    if view.shape[1] == 0:
        PyBuffer_Release(view)
        raise ValueError("values must have one feature at least, not 0 columns")
    source.values = <const char*>view.buf
    source.row_stride = view.strides[0]
    source.column_stride = view.strides[1]
    source.single = view.itemsize == 4
    source.columns = NULL
    return 0


cdef inline bytes read_sequences(
    told, Py_ssize_t n_rows, const int64_t** offsets, const int64_t** order, Py_ssize_t* n
):
    """Check what says where sequences are; offsets and order last as long as what is returned.

    That is a copy: another thread may write to the arrays while rows are visited. One sequence of
    all rows where nothing is told.
    """
    cdef const int64_t* given_offsets
    cdef const int64_t* given_order
    cdef Py_ssize_t i, length, n_offsets
    cdef Py_ssize_t previous = n_rows
    cdef int64_t[2] whole
    cdef int64_t[1] first
    cdef int64_t* bounds
    cdef int64_t* longest
    cdef char* seen
    if told is None:
        whole[0], whole[1], first[0] = 0, n_rows, 0
        given_offsets, given_order = whole, first
        n[0] = 1 if n_rows else 0
    else:
        # So that they stay where they are.
        arrays = told.offsets, told.order
        given_offsets = any_integers("offsets", arrays[0], &n_offsets)
        given_order = any_integers("order", arrays[1], n)
        check_length("offsets", n_offsets, n[0] + 1)
    cdef bytes held = PyBytes_FromStringAndSize(NULL, 16 * n[0] + 8 + n[0])
    bounds = <int64_t*>PyBytes_AS_STRING(held)
    longest = bounds + n[0] + 1
    seen = <char*>(longest + n[0])
    memcpy(bounds, given_offsets, (n[0] + 1) * sizeof(int64_t))
    memcpy(longest, given_order, n[0] * sizeof(int64_t))
    memset(seen, 0, n[0])
    if bounds[0] != 0 or bounds[n[0]] != n_rows:
        raise ValueError(f"offsets go from {bounds[0]} to {bounds[n[0]]}, not from 0 to {n_rows}")
    for i in range(n[0]):
        if bounds[i + 1] <= bounds[i]:
            raise ValueError(f"offsets[{i + 1}] is {bounds[i + 1]}; it must be > {bounds[i]}")
    for i in range(n[0]):
        if not 0 <= longest[i] < n[0]:
            raise ValueError(f"order[{i}] is {longest[i]}; it must be >= 0 and < {n[0]}")
        if seen[longest[i]]:
            raise ValueError(f"order[{i}] is {longest[i]}, which is there twice")
        seen[longest[i]] = 1
        length = bounds[longest[i] + 1] - bounds[longest[i]]
        if length > previous:
            raise ValueError(f"order[{i}] is of a longer sequence than order[{i - 1}]")
        previous = length
    offsets[0] = bounds
    order[0] = longest
    return held
