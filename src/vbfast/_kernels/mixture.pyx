# Rows that are independent given theta: the loop over chunks, tiles and threads.
#
# Per tile: an emission's scores, then q(T) in place, then the statistics, before the tile leaves
# the cache. Chunks are fixed by the shapes and their statistics added up in chunk order, so the
# result has the same bits for every number of threads.

from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_STRIDES,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.pycapsule cimport PyCapsule_GetPointer
from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.string cimport memset

from .assign cimport (
    BEST,
    DRAW,
    EXACT,
    GIVEN,
    HARD,
    SCORES,
    Assignment,
    assign_draw,
    assign_exact,
    assign_given,
    assign_hard,
    keep_best,
)
from .tile cimport (
    ASSIGN_ROWS,
    LANES,
    ROW_BLOCK,
    SCORES_PADDING,
    TILE_PADDING,
    Emission,
    Shape,
    Source,
    aligned_memory,
    free_aligned,
    lanes,
    lanes_set,
    lanes_sum,
    read_tile,
    rows_of_chunk,
    rows_of_tile,
    seconds,
    stride_of,
    thread_index,
)


cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    void* PyErr_Occurred() noexcept


# How often the calling thread looks for Ctrl-C, in seconds.
cdef double SIGNAL_INTERVAL = 0.03
# Rows times coefficients below which waking other threads costs more than they save.
cdef Py_ssize_t LITTLE_WORK = 100_000

KINDS = {
    "scores": SCORES,
    "exact": EXACT,
    "best": BEST,
    "hard": HARD,
    "draw": DRAW,
    "given": GIVEN,
}


cdef struct Job:
    # IN
    Source source
    Shape shape
    Assignment assignment
    const Emission* emission
    const double* coefficients
    const double* offsets
    const double* weights  # NULL: all 1
    const int64_t* labels_given
    Py_ssize_t n_rows
    Py_ssize_t first_row  # number of row 0 in the whole of the data, for draws
    Py_ssize_t tile_rows
    Py_ssize_t chunk_rows
    # OUT, NULL where not wanted
    double* statistics  # per chunk: log_z, counts (K), the emission's
    Py_ssize_t statistics_size
    double* log_z
    int64_t* labels
    double* q  # (N, K)
    # Scratch, per thread
    double* workspace
    Py_ssize_t workspace_size
    # Shared
    double checked
    int stop


cdef void check_signals(Job* job) noexcept nogil:
    """Only the thread that called may look; an error it finds stays set until the loop is left."""
    cdef double now = seconds()
    if now - job.checked < SIGNAL_INTERVAL:
        return
    job.checked = now
    with gil:
        if PyErr_CheckSignals() != 0:
            job.stop = 1


cdef void assign_rows(
    const Job* job, Py_ssize_t first, Py_ssize_t n_used, Py_ssize_t n_rows, Py_ssize_t stride,
    const double* tile, double* scores, const double* weight, double* log_z, int64_t* labels,
    double* emission_workspace, double* kept, int64_t* component,
) noexcept nogil:
    """Rows from `first` of the block: scores, then q(T) in their place."""
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef Assignment assignment = job.assignment
    # Vectors, for their alignment.
    cdef lanes total_vectors[ASSIGN_ROWS]
    cdef lanes uniform_vectors[ASSIGN_ROWS]
    cdef double* total = <double*>total_vectors
    cdef double* uniform = <double*>uniform_vectors
    cdef Py_ssize_t row
    if assignment.kind == GIVEN:
        for row in range(n_rows):
            labels[row] = job.labels_given[first + row] if row < n_used else -1
        assign_given(n_components, n_rows, stride, weight, labels, scores, log_z)
        return
    job.emission.scores(
        job.shape, job.coefficients, job.offsets, tile, n_rows, stride, emission_workspace, scores
    )
    if assignment.kind == BEST and assignment.truncation < n_components:
        keep_best(
            n_components, n_rows, stride, assignment.truncation, scores, kept, component
        )
    if assignment.kind == EXACT or assignment.kind == BEST:
        assign_exact(n_components, n_rows, stride, weight, scores, log_z, total)
    elif assignment.kind == HARD:
        assign_hard(n_components, n_rows, stride, weight, labels, scores, log_z)
    elif assignment.kind == DRAW:
        assign_draw(
            assignment, n_components, n_rows, stride, job.first_row + first, weight, scores,
            log_z, total, uniform, component,
        )


cdef void visit_tile(
    const Job* job, Py_ssize_t first, Py_ssize_t n_used, double* statistics, double* workspace
) noexcept nogil:
    cdef Py_ssize_t n_rows = (n_used + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef Py_ssize_t k, row, v
    cdef double* tile = workspace
    cdef Py_ssize_t stride = stride_of(n_rows)
    cdef double* scores = tile + (job.shape.n_features + TILE_PADDING) * stride
    cdef double* weight = scores + (n_components + SCORES_PADDING) * stride
    cdef double* log_z = weight + n_rows
    cdef int64_t* labels = <int64_t*>(log_z + n_rows)
    cdef int64_t* component = labels + n_rows
    cdef double* kept = <double*>(component + n_components)
    cdef double* emission_workspace = kept + n_components
    cdef Assignment assignment = job.assignment
    cdef double sum_
    cdef lanes count

    # The workspace of an emission starts on a cache line too.
    emission_workspace = workspace + (
        (emission_workspace - workspace + 7) // 8 * 8
    )
    for row in range(n_used):
        weight[row] = 1.0 if job.weights == NULL else job.weights[first + row]
    for row in range(n_used, n_rows):
        weight[row] = 0.0
    read_tile(job.source, job.shape.n_features, first, n_used, n_rows, stride, tile)
    if job.weights != NULL:
        # A row of weight zero is absent, even one so far away that 0 * x would be NaN.
        for row in range(n_used):
            if weight[row] == 0.0:
                for k in range(job.shape.n_features):
                    tile[k * stride + row] = 0.0

    for v in range((n_rows + ASSIGN_ROWS - 1) // ASSIGN_ROWS):
        row = v * ASSIGN_ROWS
        assign_rows(
            job, first + row, min(n_used - row, ASSIGN_ROWS), min(n_rows - row, ASSIGN_ROWS),
            stride, tile + row, scores + row, weight + row, log_z + row, labels + row,
            emission_workspace, kept, component,
        )

    if job.q != NULL:
        for row in range(n_used):
            for k in range(n_components):
                job.q[(first + row) * n_components + k] = scores[k * stride + row]
    if job.labels != NULL:
        for row in range(n_used):
            job.labels[first + row] = labels[row]
    if job.log_z != NULL:
        for row in range(n_used):
            job.log_z[first + row] = log_z[row]
    if statistics == NULL:
        return

    sum_ = 0.0
    if assignment.kind == DRAW:  # summed over a row's copies already
        for row in range(n_used):
            if weight[row] > 0.0:
                sum_ += log_z[row]
    else:
        for row in range(n_used):
            if weight[row] > 0.0:
                sum_ += weight[row] * log_z[row]
    statistics[0] += sum_
    for k in range(n_components):
        count = lanes_set(0.0)
        for v in range(n_rows // LANES):
            count = count + (<const lanes*>(scores + k * stride))[v]
        statistics[1 + k] += lanes_sum(count)
    job.emission.accumulate(
        job.shape, job.coefficients, tile, n_rows, stride, scores, emission_workspace,
        statistics + 1 + n_components,
    )


cdef void visit_chunk(Job* job, Py_ssize_t chunk) noexcept nogil:
    cdef int thread = thread_index()
    cdef Py_ssize_t first = chunk * job.chunk_rows
    cdef Py_ssize_t end = min(first + job.chunk_rows, job.n_rows)
    cdef double* statistics = NULL
    if job.statistics != NULL:
        statistics = job.statistics + chunk * job.statistics_size
        memset(statistics, 0, job.statistics_size * sizeof(double))
    while first < end and not job.stop:
        visit_tile(
            job, first, min(job.tile_rows, end - first), statistics,
            job.workspace + thread * job.workspace_size,
        )
        first += job.tile_rows
        if thread == 0:
            check_signals(job)


cdef int raise_pending() except -1:
    return -1 if PyErr_Occurred() != NULL else 0


# Emissions by name: filled in when the level is loaded.
EMISSIONS = {}


cdef const Emission* emission_of(str name) except NULL:
    return <const Emission*>PyCapsule_GetPointer(EMISSIONS[name], "vbfast.Emission")


cdef Shape shape_of(Py_ssize_t n_components, Py_ssize_t n_features) noexcept:
    cdef Shape shape
    shape.n_components = n_components
    shape.n_features = n_features
    return shape


def statistics_size(str emission, Py_ssize_t n_components, Py_ssize_t n_features):
    """Length of the statistics that `visit` fills: log_z, counts (K), the emission's own."""
    return 1 + n_components + emission_of(emission).statistics_size(
        shape_of(n_components, n_features)
    )


cdef int check_length(str name, Py_ssize_t length, Py_ssize_t expected) except -1:
    if length != expected:
        raise ValueError(f"{name} has length {length}, not {expected}")
    return 0


def visit(
    block, theta, assignment, *, double[::1] statistics=None, double[::1] log_z=None,
    int64_t[::1] labels=None, double[:, ::1] q=None,
):
    """Assign a block of rows to components and add up what they bring.

    Parameters
    ----------
    block, theta, assignment : IN, as in inputs.py
    statistics : OUT, (statistics_size,): log_z, counts (K), then the emission's
    log_z : OUT, (N,); labels : OUT, (N,), with kind "hard"; q : OUT, (N, K), the scores with kind
        "scores"
    """
    cdef Job job
    cdef Py_buffer view
    cdef const double[::1] origin = block.origin
    cdef const double[::1] scale = block.scale
    cdef const double[::1] coefficients = theta.coefficients
    cdef const double[::1] offsets = theta.offsets
    cdef const double[::1] weights
    cdef const int64_t[::1] given
    cdef Py_ssize_t n_chunks, chunk, i, size, per_row, statistics_bytes
    cdef int n_threads = block.n_threads
    cdef double* partial
    cdef double* memory

    job.emission = emission_of(theta.emission)
    job.coefficients = &coefficients[0]
    job.offsets = &offsets[0]
    job.assignment.kind = KINDS[assignment.kind]
    job.assignment.truncation = assignment.truncation
    job.assignment.seed = assignment.seed
    job.assignment.sweep = assignment.sweep
    job.shape = shape_of(offsets.shape[0], origin.shape[0])
    check_length(
        "coefficients", coefficients.shape[0], job.emission.coefficients_size(job.shape)
    )
    check_length("scale", scale.shape[0], job.shape.n_features)
    job.source.origin = &origin[0]
    job.source.scale = &scale[0]
    job.first_row = block.first_row
    job.weights = NULL
    if block.weights is not None:
        weights = block.weights
        job.weights = &weights[0]
    job.labels_given = NULL
    if job.assignment.kind == GIVEN:
        given = block.labels
        job.labels_given = &given[0]
    job.log_z = NULL if log_z is None else &log_z[0]
    job.labels = NULL if labels is None else &labels[0]
    job.q = NULL if q is None else &q[0, 0]
    job.checked = seconds()
    job.stop = 0

    PyObject_GetBuffer(block.values, &view, PyBUF_STRIDES | PyBUF_FORMAT)
    try:
        job.source.values = <const char*>view.buf
        job.source.row_stride = view.strides[0]
        job.source.column_stride = view.strides[1]
        job.source.single = view.itemsize == 4
        job.n_rows = view.shape[0]
        job.statistics_size = 1 + job.shape.n_components + job.emission.statistics_size(job.shape)
        if view.format[0] != c"d" and view.format[0] != c"f":
            raise TypeError(f"values must be float64 or float32, not {view.format.decode()!r}")
        # Everything that is read or written row by row, or feature by feature.
        check_length("a row of values", view.shape[1], job.shape.n_features)
        if job.weights != NULL:
            check_length("weights", weights.shape[0], job.n_rows)
        if job.labels_given != NULL:
            check_length("labels", given.shape[0], job.n_rows)
        if statistics is not None:
            check_length("statistics", statistics.shape[0], job.statistics_size)
        if log_z is not None:
            check_length("log_z", log_z.shape[0], job.n_rows)
        if labels is not None:
            check_length("labels", labels.shape[0], job.n_rows)
        if q is not None:
            check_length("q", q.shape[0], job.n_rows)
            check_length("a row of q", q.shape[1], job.shape.n_components)
        per_row = (
            job.shape.n_features + job.shape.n_components
            + job.emission.workspace_size(job.shape, ROW_BLOCK) // ROW_BLOCK
        )
        job.tile_rows = min(
            rows_of_tile(per_row), (job.n_rows + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
        )
        job.chunk_rows = rows_of_chunk(job.n_rows, job.tile_rows, job.statistics_size)
        n_chunks = (job.n_rows + job.chunk_rows - 1) // job.chunk_rows
        n_threads = min(n_threads, n_chunks)
        if job.n_rows * coefficients.shape[0] < LITTLE_WORK:
            n_threads = 1
        # Tile, scores, the emission's workspace, three more values a row, two more a component.
        job.workspace_size = (
            stride_of(job.tile_rows) * (
                job.shape.n_features + TILE_PADDING + job.shape.n_components + SCORES_PADDING
            )
            + job.emission.workspace_size(job.shape, job.tile_rows)
            + 3 * job.tile_rows + 2 * job.shape.n_components + 16
        ) // 8 * 8
        statistics_bytes = 0 if statistics is None else n_chunks * job.statistics_size
        size = (n_threads * job.workspace_size + statistics_bytes) * sizeof(double)
        memory = <double*>aligned_memory(size)
        if memory == NULL:
            raise MemoryError(f"no {size} bytes for the workspace of {n_threads} threads")
        # What is padding is never written, and must not be slow to compute with.
        memset(memory, 0, n_threads * job.workspace_size * sizeof(double))
        job.workspace = memory
        partial = memory + n_threads * job.workspace_size
        job.statistics = NULL if statistics is None else partial
        try:
            with nogil:
                if n_threads == 1:
                    for chunk in range(n_chunks):
                        visit_chunk(&job, chunk)
                else:
                    for chunk in prange(
                        n_chunks, schedule="dynamic", chunksize=1, num_threads=n_threads
                    ):
                        visit_chunk(&job, chunk)
            if job.stop:
                raise_pending()
            if statistics is not None:
                for i in range(job.statistics_size):
                    statistics[i] = 0.0
                for chunk in range(n_chunks):
                    for i in range(job.statistics_size):
                        statistics[i] += partial[chunk * job.statistics_size + i]
        finally:
            free_aligned(memory)
    finally:
        PyBuffer_Release(&view)
