# Rows that are independent given theta: the loop over chunks, tiles and threads.
#
# Per tile: an emission's scores, then q(T) in place, then the statistics, before the tile leaves
# the cache. Chunks are fixed by the shapes and their statistics added up in chunk order, so the
# result has the same bits for every number of threads.

from cpython.buffer cimport PyBuffer_Release
from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memset

from .arrays cimport Doubles, doubles, doubles_of, integers, look_into, shape_told
from .assign cimport (
    DRAW,
    EXACT,
    FACTORISED,
    GIVEN,
    SCORES,
    Assignment,
    add_counts,
    assign_block,
    assignment_size,
    keep_known,
)
from .cpu cimport granted, threads_for
from .tile cimport (
    ROW_BLOCK,
    SCORES_PADDING,
    TILE_PADDING,
    Emission,
    Shape,
    Source,
    add_one,
    aligned_memory,
    free_aligned,
    lanes,
    lines,
    read_tile,
    real,
    rows_of_chunk,
    rows_of_tile,
    stride_of,
    thread_index,
)
from .visit cimport (
    LITTLE_WORK,
    Watch,
    check_least,
    check_length,
    check_signals,
    check_whole,
    clear,
    halted,
    open_rows,
    raise_pending,
    read_assignment,
    read_emission,
    read_labels,
    times,
    wait_for,
    watch_from_now,
)


# From which on asking for the time takes less than some rows do.
cdef Py_ssize_t MANY_COEFFICIENTS = 4096

KINDS = ("scores", "exact", "factorised", "best", "hard", "draw", "given")


cdef struct Job:
    # IN
    Source source
    Shape shape
    Assignment assignment
    const Emission* emission
    const real* coefficients  # (n_thetas, size)
    const real* offsets  # (n_thetas, K), less what is common to a theta's
    const double* common  # (n_thetas), NULL: nothing
    Py_ssize_t n_thetas
    const double* weights  # NULL: all 1
    const int64_t* labels_known  # -1: not known; NULL: none is
    Py_ssize_t n_rows
    Py_ssize_t first_row  # number of row 0 in the whole of the data, for draws
    Py_ssize_t tile_rows
    Py_ssize_t chunk_rows
    # OUT, NULL where not wanted
    double* statistics  # per chunk and theta: log_z, counts (K), the emission's
    Py_ssize_t statistics_size
    double* log_z
    int64_t* labels
    double* q  # (N, K)
    # Scratch, per thread
    real* workspace
    Py_ssize_t workspace_size
    # Shared
    bint wide  # a tile takes so long that Ctrl-C is looked for within
    Py_ssize_t n_chunks
    Py_ssize_t taken
    Py_ssize_t done
    Watch watch


cdef double sum_log_z(
    Py_ssize_t n_rows, const real* weight, const real* log_z, double common, bint weighted
) noexcept nogil:
    """Sum over rows of weight > 0, in four parts of which none need wait for another.

    `common` is missing from the log_z of each row that a weight stands for.
    """
    cdef double[4] sums
    cdef Py_ssize_t row, part
    for part in range(4):
        sums[part] = 0.0
    for row in range(0, n_rows, 4):
        for part in range(4):
            if weight[row + part] > 0.0:
                sums[part] += <double>weight[row + part] * (
                    common if weighted else common + <double>log_z[row + part]
                )
                if weighted:
                    sums[part] += log_z[row + part]
    return (sums[0] + sums[1]) + (sums[2] + sums[3])


cdef void assign_rows(
    const Job* job, Py_ssize_t first, Py_ssize_t n_used, Py_ssize_t stride, real* scores,
    const real* weight, real* log_z, int64_t* labels, int64_t* counts, lanes* room,
) noexcept nogil:
    """Rows from `first`, ROW_BLOCK of them: q(T) in the place of their scores."""
    cdef Py_ssize_t row
    if job.assignment.kind == GIVEN:
        for row in range(ROW_BLOCK):
            labels[row] = job.labels_known[first + row] if row < n_used else -1
    assign_block(
        job.assignment, job.shape.n_components, stride, job.first_row + first, weight, scores,
        log_z, labels, counts, room,
    )


cdef void visit_tile(
    Job* job, Py_ssize_t first, Py_ssize_t n_used, double* statistics, real* workspace
) noexcept nogil:
    """Read a tile, and visit its rows under each theta."""
    cdef Py_ssize_t n_rows = (n_used + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
    cdef Py_ssize_t d, row, theta
    cdef Py_ssize_t stride = stride_of(n_rows)
    # Everything starts on a cache line: sizes in between are multiples of one.
    cdef real* tile = workspace
    cdef real* weight = tile + (job.shape.n_features + TILE_PADDING) * stride
    for row in range(n_used):
        weight[row] = 1.0 if job.weights == NULL else <real>job.weights[first + row]
    for row in range(n_used, n_rows):
        weight[row] = 0.0
    read_tile(job.source, job.shape.n_features, first, n_used, n_rows, stride, tile)
    if job.weights != NULL:
        # A row of weight zero is absent, even one so far away that 0 * x would be NaN.
        for row in range(n_used):
            if weight[row] == 0.0:
                for d in range(job.shape.n_features):
                    tile[d * stride + row] = 0.0
    for theta in range(job.n_thetas):
        visit_rows(
            job, theta, first, n_used, n_rows, stride, tile, weight,
            NULL if statistics == NULL else statistics + theta * job.statistics_size,
            weight + n_rows,
        )


cdef void visit_rows(
    Job* job, Py_ssize_t theta, Py_ssize_t first, Py_ssize_t n_used, Py_ssize_t n_rows,
    Py_ssize_t stride, const real* tile, const real* weight, double* statistics, real* workspace,
) noexcept nogil:
    """Scores, q(T) and statistics of a tile under one theta."""
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef double common = 0.0
    cdef Py_ssize_t i, k, row
    # Scores stay in the cache until they are used; a product looks for rows that are alike.
    cdef Py_ssize_t at_once = n_rows if job.shape.n_parts else ROW_BLOCK
    cdef real* scores = workspace
    cdef real* log_z = scores + (n_components + SCORES_PADDING) * stride
    cdef int64_t* labels = <int64_t*>(log_z + n_rows)
    cdef int64_t* draws = labels + n_rows
    cdef double* limits = <double*>(draws + lines(n_components))
    cdef lanes* room = <lanes*>(limits + lines(n_components))
    cdef real* emission_workspace = <real*>(
        room + assignment_size(job.assignment, n_components)
    )

    for k in range(n_rows // ROW_BLOCK):
        row = k * ROW_BLOCK
        if job.assignment.kind != GIVEN and row % at_once == 0:
            job.emission.scores(
                job.shape, job.coefficients + theta * job.emission.coefficients_size(job.shape),
                job.offsets + theta * n_components, tile + row, at_once, stride,
                emission_workspace, scores + row,
            )
            if job.labels_known != NULL and job.assignment.kind != SCORES:
                for i in range(row, min(row + at_once, n_used)):
                    keep_known(n_components, stride, job.labels_known[first + i], scores + i)
        assign_rows(
            job, first + row, n_used - row, stride, scores + row, weight + row, log_z + row,
            labels + row, draws, room,
        )
        if job.wide and halted(&job.watch):
            return

    if job.common != NULL and job.assignment.kind != GIVEN:
        common = job.common[theta]
    if job.q != NULL:
        for row in range(n_used):
            for k in range(n_components):
                job.q[(first + row) * n_components + k] = scores[k * stride + row]
                if job.assignment.kind == SCORES:
                    job.q[(first + row) * n_components + k] += common
    if job.labels != NULL:
        for row in range(n_used):
            job.labels[first + row] = labels[row]
    if job.log_z != NULL:
        for row in range(n_used):
            job.log_z[first + row] = log_z[row] + (
                common * weight[row] if job.assignment.kind == DRAW else common
            )
    if statistics == NULL:
        return

    statistics[0] += sum_log_z(n_rows, weight, log_z, common, job.assignment.kind == DRAW)
    add_counts(n_components, n_rows, stride, scores, statistics + 1, limits)
    job.emission.accumulate(
        job.shape, job.coefficients + theta * job.emission.coefficients_size(job.shape), tile,
        n_rows, stride, scores, limits, emission_workspace, statistics + 1 + n_components,
    )


cdef void visit_chunk(Job* job, Py_ssize_t chunk) noexcept nogil:
    cdef int thread = thread_index()
    cdef Py_ssize_t first = chunk * job.chunk_rows
    cdef Py_ssize_t end = min(first + job.chunk_rows, job.n_rows)
    cdef double* statistics = NULL
    if job.statistics != NULL:
        statistics = job.statistics + chunk * job.n_thetas * job.statistics_size
        clear(statistics, job.n_thetas * job.statistics_size * sizeof(double), &job.watch)
    while first < end and not job.watch.stop:
        visit_tile(
            job, first, min(job.tile_rows, end - first), statistics,
            job.workspace + thread * job.workspace_size,
        )
        first += job.tile_rows
        # Not of one tile in all, which takes no longer than asking for the time.
        if thread == 0 and (first < end or job.n_chunks > 1):
            check_signals(&job.watch)


cdef void work(Job* job) noexcept nogil:
    """Take chunks while there are any."""
    cdef Py_ssize_t chunk = add_one(&job.taken)
    while chunk < job.n_chunks:
        visit_chunk(job, chunk)
        add_one(&job.done)
        chunk = add_one(&job.taken)
    if thread_index() == 0:
        wait_for(&job.done, job.n_chunks, &job.watch)


cdef double subtract_largest(
    Py_ssize_t n_components, const double* offsets, real* differences
) noexcept nogil:
    """Return the largest offset, which rounding to single precision would take digits from."""
    cdef double largest = -INFINITY
    cdef Py_ssize_t k
    for k in range(n_components):
        largest = max(largest, offsets[k])
    if largest == -INFINITY:
        largest = 0.0
    for k in range(n_components):
        differences[k] = <real>(offsets[k] - largest)
    return largest


# Emissions by name: filled in when the level is loaded.
EMISSIONS = {}


def statistics_size(
    emission, Py_ssize_t n_components, Py_ssize_t n_features, Py_ssize_t n_categories=0
):
    """Length of the statistics that `visit` fills: log_z, counts (K), the emission's own."""
    cdef const Emission* of
    cdef Shape shape
    cdef const Py_ssize_t* columns
    cdef bytes _held = read_emission(
        EMISSIONS, emission, n_components, n_features, n_categories, &of, &shape, &columns
    )
    return 1 + n_components + of.statistics_size(shape)


def visit(
    block, theta, assignment, *, statistics=None, log_z=None, labels=None, q=None,
):
    """Assign a block of rows to components and add up what they bring.

    Parameters
    ----------
    block, theta, assignment : IN, as in inputs.py
    statistics : OUT, (n_thetas * statistics_size,): log_z, counts (K), then the emission's
    log_z : OUT, (N,); labels : OUT, (N,), with kind "hard"; q : OUT, (N, K), the scores with kind
        "scores": of the last theta
    """
    cdef Job job
    cdef Py_buffer view
    cdef Doubles coefficients, offsets, origin
    cdef const Py_ssize_t* columns
    cdef bytes _parts  # what the shape's parts and columns are in
    # So that they stay where they are.
    cdef tuple held = (
        theta.coefficients, theta.offsets, block.origin, block.scale, block.weights, block.labels
    )
    cdef Py_ssize_t chunk, i, size, coefficients_start, statistics_start
    cdef Py_ssize_t n_sums = 0
    cdef double* sums = NULL
    cdef int n_threads
    cdef int _thread
    cdef char* memory
    cdef real* converted
    cdef double* common
    cdef double* partial

    read_assignment(assignment, KINDS, &job.assignment)
    if job.assignment.kind == FACTORISED:
        job.assignment.kind = EXACT  # over rows: as they are
    look_into("coefficients", held[0], &coefficients)
    look_into("offsets", held[1], &offsets)
    look_into("origin", held[2], &origin)
    job.n_thetas = offsets.shape[0] if offsets.ndim == 2 else 1
    if not 1 <= offsets.ndim <= 2 or job.n_thetas == 0:
        raise ValueError(f"offsets must be (K,) or (n_thetas, K), not {shape_told(&offsets)}")
    _parts = read_emission(
        EMISSIONS, theta.emission, offsets.size // job.n_thetas, origin.size, theta.n_categories,
        &job.emission, &job.shape, &columns,
    )
    check_length(
        "coefficients", coefficients.size,
        times(job.n_thetas, job.emission.coefficients_size(job.shape)),
    )
    job.source.origin = origin.data
    job.source.scale = doubles("scale", held[3], origin.size)
    job.first_row = block.first_row
    check_least("first_row", job.first_row, 0)
    job.log_z = NULL
    job.labels = NULL
    job.q = NULL
    job.watch = watch_from_now()

    open_rows(block.values, &view, &job.source)
    try:
        job.source.columns = columns
        job.n_rows = view.shape[0]
        job.statistics_size = 1 + job.shape.n_components + job.emission.statistics_size(job.shape)
        # Everything that is read or written row by row, or feature by feature.
        check_length("a row of values", view.shape[1], origin.size)
        job.weights = NULL
        if held[4] is not None:
            job.weights = doubles("weights", held[4], job.n_rows)
            if job.assignment.kind == DRAW:
                check_whole(job.weights, job.n_rows)
        _labels = read_labels(
            held[5], job.n_rows, job.shape.n_components, job.assignment.kind == GIVEN,
            &job.labels_known,
        )
        if statistics is not None:
            n_sums = times(job.n_thetas, job.statistics_size)
            sums = doubles("statistics", statistics, n_sums, True)
        if log_z is not None:
            job.log_z = doubles("log_z", log_z, job.n_rows, True)
        if labels is not None:
            job.labels = integers("labels", labels, job.n_rows, True)
        if q is not None:
            job.q = doubles_of("q", q, job.n_rows, job.shape.n_components, True)
        job.tile_rows = min(
            rows_of_tile(job.shape.n_features),
            (max(job.n_rows, 1) + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK,
        )
        job.chunk_rows = rows_of_chunk(max(job.n_rows, 1), job.tile_rows, job.statistics_size)
        job.n_chunks = (job.n_rows + job.chunk_rows - 1) // job.chunk_rows
        job.taken = 0
        job.done = 0
        n_threads = threads_for(block.n_threads, job.n_chunks)
        if job.n_rows <= LITTLE_WORK // coefficients.size:
            n_threads = 1
        job.wide = coefficients.size > MANY_COEFFICIENTS
        # Tile, scores, the emission's workspace, weights and log_z; labels; draws and limits.
        job.workspace_size = (
            stride_of(job.tile_rows) * (
                job.shape.n_features + TILE_PADDING + job.shape.n_components + SCORES_PADDING
            )
            + job.emission.workspace_size(job.shape, job.tile_rows)
            + 2 * job.tile_rows
            + (
                8 * (job.tile_rows + 2 * lines(job.shape.n_components))
                + <Py_ssize_t>sizeof(lanes) * assignment_size(
                    job.assignment, job.shape.n_components
                )
            ) // <Py_ssize_t>sizeof(real)
            + 15
        ) // 16 * 16
        size = times(n_threads, job.workspace_size * <Py_ssize_t>sizeof(real))
        coefficients_start = size
        if sizeof(real) < 8:
            size += 8 * lines(coefficients.size + offsets.size)
            size += 8 * lines(job.n_thetas)
        statistics_start = size
        size += 8 * times(job.n_chunks, n_sums)
        memory = <char*>aligned_memory(size)
        if memory == NULL:
            raise MemoryError(f"no {size} bytes for the workspace of {n_threads} threads")
        # What is padding is never written, and must not be slow to compute with.
        memset(memory, 0, coefficients_start)
        job.workspace = <real*>memory
        job.coefficients = <const real*>coefficients.data
        job.offsets = <const real*>offsets.data
        job.common = NULL
        if sizeof(real) < 8:
            converted = <real*>(memory + coefficients_start)
            i = job.emission.coefficients_size(job.shape)
            for chunk in range(job.n_thetas):
                job.emission.convert(
                    job.shape, coefficients.data + chunk * i, converted + chunk * i
                )
            job.coefficients = converted
            job.offsets = converted + coefficients.size
            common = <double*>(memory + statistics_start) - lines(job.n_thetas)
            job.common = common
            for chunk in range(job.n_thetas):
                common[chunk] = subtract_largest(
                    job.shape.n_components, offsets.data + chunk * job.shape.n_components,
                    converted + coefficients.size + chunk * job.shape.n_components,
                )
        partial = <double*>(memory + statistics_start)
        job.statistics = NULL if sums == NULL else partial
        try:
            n_threads = granted(n_threads)
            with nogil:
                if n_threads == 1:
                    work(&job)
                else:
                    for _thread in prange(
                        n_threads, schedule="static", chunksize=1, num_threads=n_threads
                    ):
                        work(&job)
            if job.watch.stop:
                raise_pending()
            for i in range(n_sums):
                sums[i] = 0.0
            for chunk in range(job.n_chunks):
                for i in range(n_sums):
                    sums[i] += partial[chunk * n_sums + i]
        finally:
            free_aligned(memory)
    finally:
        PyBuffer_Release(&view)
