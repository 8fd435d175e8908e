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
from libc.string cimport memcmp, memset, strcmp

from .arrays cimport doubles
from .cpu cimport granted, threads_for
from .tile cimport Source, add_one, thread_index
from .visit cimport (
    LITTLE_WORK,
    Watch,
    check_least,
    check_signals,
    open_rows,
    raise_pending,
    wait_for,
    watch_from_now,
)

import numpy as np

cdef enum:
    MOST_CHUNKS = 64
    # Values from one look for Ctrl-C to the next.
    MANY_VALUES = 65536


cdef struct Job:
    # IN
    Source source
    Py_ssize_t n_rows
    Py_ssize_t n_features
    const double* weights  # NULL: all 1
    Py_ssize_t n_chunks
    Py_ssize_t chunk_rows
    Py_ssize_t span  # rows from one look for Ctrl-C to the next
    # OUT, per chunk; of what threads write, `apart` doubles from one to the next
    Py_ssize_t[2 * MOST_CHUNKS] bad  # the first (row, column) that isn't finite, or -1
    double* low
    double* high
    double* sums
    Py_ssize_t apart
    # Shared
    Py_ssize_t taken
    Py_ssize_t done
    Watch watch


ctypedef void (*Step)(Job*, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil


cdef inline double value_at(const Job* job, Py_ssize_t row, Py_ssize_t d) noexcept nogil:
    cdef const char* place = (
        job.source.values + row * job.source.row_stride + d * job.source.column_stride
    )
    return (<const float*>place)[0] if job.source.single else (<const double*>place)[0]


cdef inline double weight_at(const Job* job, Py_ssize_t row) noexcept nogil:
    return 1.0 if job.weights == NULL else job.weights[row]


cdef void find_ranges(
    Job* job, Py_ssize_t chunk, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """low and high (D,) over rows of weight > 0; bad."""
    cdef double* low = job.low + chunk * job.apart
    cdef double* high = job.high + chunk * job.apart
    cdef Py_ssize_t row, d
    cdef double x
    cdef bint present
    for row in range(first, end):
        present = weight_at(job, row) > 0.0
        for d in range(job.n_features):
            x = value_at(job, row, d)
            if not isfinite(x):
                job.bad[2 * chunk] = row
                job.bad[2 * chunk + 1] = d
                return
            if present:
                low[d] = min(low[d], x)
                high[d] = max(high[d], x)


cdef void find_bad(Job* job, Py_ssize_t chunk, Py_ssize_t first, Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t row, d
    for row in range(first, end):
        for d in range(job.n_features):
            if not isfinite(value_at(job, row, d)):
                job.bad[2 * chunk] = row
                job.bad[2 * chunk + 1] = d
                return


cdef void find_moments(Job* job, Py_ssize_t chunk, Py_ssize_t first, Py_ssize_t end) noexcept nogil:
    """sums: total weight, then first and second moments (D,) of (x - origin) * scale."""
    cdef double* sums = job.sums + chunk * job.apart
    cdef double* firsts = sums + 1
    cdef double* seconds = firsts + job.n_features
    cdef Py_ssize_t row, d
    cdef double x, w
    for row in range(first, end):
        w = weight_at(job, row)
        if w == 0.0:
            continue
        sums[0] += w
        for d in range(job.n_features):
            x = (value_at(job, row, d) - job.source.origin[d]) * job.source.scale[d]
            firsts[d] += w * x
            seconds[d] += w * x * x


cdef void work(Job* job, Step step) noexcept nogil:
    """Take chunks while there are any."""
    cdef Py_ssize_t first, end
    cdef bint calling = thread_index() == 0
    cdef Py_ssize_t chunk = add_one(&job.taken)
    while chunk < job.n_chunks:
        first = chunk * job.chunk_rows
        end = min(first + job.chunk_rows, job.n_rows)
        while first < end and not job.watch.stop and job.bad[2 * chunk] < 0:
            step(job, chunk, first, min(first + job.span, end))
            first += job.span
            if calling:
                check_signals(&job.watch)
        add_one(&job.done)
        chunk = add_one(&job.taken)
    if calling:
        wait_for(&job.done, job.n_chunks, &job.watch)


cdef int start(Job* job, view_weights, Py_buffer* view) except -1:
    """Of the rows of a view."""
    check_least("the number of rows", view.shape[0], 1)
    job.n_rows = view.shape[0]
    job.n_features = view.shape[1]
    job.weights = NULL
    if view_weights is not None:
        job.weights = doubles("weights", view_weights, job.n_rows)
    job.chunk_rows = (job.n_rows + MOST_CHUNKS - 1) // MOST_CHUNKS
    job.n_chunks = (job.n_rows + job.chunk_rows - 1) // job.chunk_rows
    job.span = max(1, MANY_VALUES // job.n_features)
    memset(job.bad, 0xff, sizeof(job.bad))
    job.taken = 0
    job.done = 0
    job.watch = watch_from_now()
    return 0


cdef int drive(Job* job, Step step, int n_threads) except -1:
    """Visit all chunks."""
    cdef int _thread
    n_threads = threads_for(n_threads, job.n_chunks)
    n_threads = granted(1 if job.n_rows <= LITTLE_WORK // job.n_features else n_threads)
    with nogil:
        if n_threads == 1:
            work(job, step)
        else:
            for _thread in prange(
                n_threads, schedule="static", chunksize=1, num_threads=n_threads
            ):
                work(job, step)
    return raise_pending() if job.watch.stop else 0


cdef tuple first_bad(const Job* job):
    cdef Py_ssize_t chunk
    for chunk in range(job.n_chunks):
        if job.bad[2 * chunk] >= 0:
            return job.bad[2 * chunk], job.bad[2 * chunk + 1]
    return None


cdef Py_ssize_t apart(Py_ssize_t size) noexcept:
    """Doubles from one chunk's results to the next's: two threads never write one cache line."""
    return (size + 7) // 8 * 8 + 8


def ranges(values, weights, int n_threads):
    """Return low (D,), high (D,) over rows of weight > 0, and the first value that isn't finite.

    The last as (row, column), by rows and whatever the row's weight, or None.
    """
    cdef Py_buffer view
    cdef Job job
    cdef double[:, ::1] low, high
    open_rows(values, &view, &job.source)
    try:
        start(&job, weights, &view)
        job.apart = apart(job.n_features)
        low = np.full((job.n_chunks, job.apart), np.finfo(float).max)
        high = np.full((job.n_chunks, job.apart), np.finfo(float).min)
        job.low = &low[0, 0]
        job.high = &high[0, 0]
        drive(&job, find_ranges, n_threads)
    finally:
        PyBuffer_Release(&view)
    bad = first_bad(&job)
    if bad is not None:
        return None, None, bad
    return (
        np.asarray(low)[:, :job.n_features].min(axis=0),
        np.asarray(high)[:, :job.n_features].max(axis=0),
        None,
    )


def first_not_finite(values, int n_threads):
    """Return the first value that isn't finite as (row, column), by rows, or None."""
    cdef Py_buffer view
    cdef Job job
    open_rows(values, &view, &job.source)
    try:
        start(&job, None, &view)
        drive(&job, find_bad, n_threads)
    finally:
        PyBuffer_Release(&view)
    return first_bad(&job)


cdef bint alike(first, second) except -1:
    cdef Py_buffer one, other
    cdef bint equal
    cdef int i
    if not (PyObject_CheckBuffer(first) and PyObject_CheckBuffer(second)):
        return False
    PyObject_GetBuffer(first, &one, PyBUF_STRIDES | PyBUF_FORMAT)
    try:
        PyObject_GetBuffer(second, &other, PyBUF_STRIDES | PyBUF_FORMAT)
        equal = (
            one.ndim == other.ndim
            and one.len == other.len
            and one.format != NULL and other.format != NULL
            and strcmp(one.format, other.format) == 0
            and PyBuffer_IsContiguous(&one, c"C")
            and PyBuffer_IsContiguous(&other, c"C")
        )
        for i in range(one.ndim if equal else 0):
            equal = equal and one.shape[i] == other.shape[i]
        if equal and one.len > 0:
            equal = memcmp(one.buf, other.buf, one.len) == 0
        PyBuffer_Release(&other)
    finally:
        PyBuffer_Release(&one)
    return equal


def held(dict state not None, tuple names not None, tuple arrays not None):
    """Return whether a dict has by these names what holds the same bytes as arrays.

    Of one type, in one shape and C order. For any other objects, or where it can't tell without a
    copy, False.
    """
    cdef Py_ssize_t i
    if len(names) != len(arrays):
        return False
    for i in range(len(names)):
        if not alike(state.get(names[i]), arrays[i]):
            return False
    return True


def moments(values, weights, origin, scale, int n_threads):
    """Return mean (D,) and variance (D,) of (x - origin) * scale."""
    cdef Py_buffer view
    cdef Job job
    cdef double[:, ::1] sums
    open_rows(values, &view, &job.source)
    try:
        start(&job, weights, &view)
        job.source.origin = doubles("origin", origin, job.n_features)
        job.source.scale = doubles("scale", scale, job.n_features)
        job.apart = apart(1 + 2 * job.n_features)
        sums = np.zeros((job.n_chunks, job.apart))
        job.sums = &sums[0, 0]
        drive(&job, find_moments, n_threads)
    finally:
        PyBuffer_Release(&view)
    total, first, second = np.split(
        np.asarray(sums)[:, :1 + 2 * job.n_features].sum(axis=0), [1, 1 + job.n_features]
    )
    mean = first / total
    return mean, np.maximum(second / total - mean**2, 0.0)
