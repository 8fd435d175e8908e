# Hidden Markov chains: rows of a sequence depend on one another through their states.
#
# Forward-backward in the linear domain, scaled at every row (Rabiner 1989, section V.A), the vector
# lanes running over BUNDLE spans of rows side by side: short sequences, or parts of a long one. A
# part's recursions start from what its neighbours end with. Those are first found by recursions
# over the neighbours' last rows alone, for a chain forgets where it started, and are then compared
# with what comes out: where they differ the recursion is repeated, and what does not settle, or
# could lose digits to underflow, is left to a recursion in logarithms, one row after the other.
#
# Work is in tasks fixed by the shapes, and their statistics are added up in the tasks' order, so
# the result has the same bits for every number of threads.

from cpython.buffer cimport PyBuffer_Release
from cython.parallel cimport prange
from libc.math cimport INFINITY, exp, fabs, isnan, log
from libc.stdint cimport int64_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from .arrays cimport Doubles, doubles, doubles_of, integers, look_into, shape_told
from .assign cimport (
    DRAW,
    EXACT,
    FACTORISED,
    FILTER,
    GIVEN,
    HARD,
    LOWEST,
    Assignment,
    Kind,
    add_counts,
    exponentials,
    keep_known,
)
from .cpu cimport granted, threads_for
from .tile cimport (
    BUNDLE,
    LANES,
    ROW_BLOCK,
    SCORES_PADDING,
    TILE_PADDING,
    Emission,
    Shape,
    Source,
    add_one,
    aligned_memory,
    even,
    fours,
    free_aligned,
    lanes,
    lanes_exp,
    lanes_keep_between,
    lanes_keep_from,
    lanes_load,
    lanes_log,
    lanes_max,
    lanes_min,
    lanes_replace_above,
    lanes_set,
    lanes_sum,
    lines,
    philox_uniform,
    products,
    read_spans,
    read_tile,
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
    clear,
    halted,
    open_rows,
    raise_pending,
    read_assignment,
    read_emission,
    read_labels,
    read_sequences,
    times,
    wait_for,
    watch_from_now,
)


cdef extern from *:
    """
    #define VECTORS (8 / LANES)
    """
    # BUNDLE / LANES: vectors that hold a number of each span of a bundle.
    const Py_ssize_t VECTORS


# Steps of a part of a long sequence, or STATES / K if that is more: some hundred kB to keep.
cdef Py_ssize_t STEPS = 1024
cdef Py_ssize_t STATES = 8192
# Rows over which a chain is first expected to forget where it started.
cdef Py_ssize_t MEMORY = 256
# Sequences that are as long as this are cut rather than left alone in a bundle.
cdef Py_ssize_t LONG = 256
# Relative difference, of rounding, between probabilities that are the same.
cdef double SAME = 1e-12
# Probabilities below which a state of a row is beneath notice whatever comes after, as long as
# transitions are more likely than LEAST_TRANSITION; where some are impossible, what falls below
# might still be the one way there is.
cdef double LEAST = 1e-200
cdef double LEAST_TRANSITION = 1e-100
cdef double TINY = 1e-290
cdef double HUGE = 1e300
# Nats of a path from which on they are kept apart, so that they take no digits.
cdef double MOST_NATS = 1000.0
# Coordinate ascent ends when the free energy changes by less than these, relative and a row.
cdef double SETTLED = 1e-12
cdef double SETTLED_ROW = 1e-14
cdef Py_ssize_t MOST_ROUNDS = 1000

KINDS = ("exact", "filter", "hard", "draw", "factorised", "given")
# Emissions by name: filled in when the level is loaded.
EMISSIONS = {}


cdef enum:
    # Tasks whose statistics are held at a time.
    MOST_TASKS = 64
    # Rows of a recursion between looks for Ctrl-C.
    MOST_BETWEEN = 256
    # That find_best can note.
    MOST_STATES = 65536


# Spans side by side: sequences, or (if cut) consecutive parts of one, in order of their length.
cdef struct Bundle:
    Py_ssize_t[BUNDLE] first     # row
    Py_ssize_t[BUNDLE] length    # 0: not in use
    Py_ssize_t[BUNDLE] sequence
    bint cut
    bint opens   # has the first and the last row of its sequence
    bint closes
    double* edges  # of one that is cut, see Edge


# Distributions over states at a bundle's edges, K numbers each: what rows before and after were
# taken to say, and what this bundle says to them.
cdef enum Edge:
    FROM_BEFORE = 0
    TO_AFTER = 1
    FROM_AFTER = 2
    TO_BEFORE = 3
    LAST = 4  # filtered, at the last row
    N_EDGES = 5


# Items first, first + step, ... < end, whose statistics are added up together.
cdef struct Task:
    Py_ssize_t first
    Py_ssize_t end
    Py_ssize_t step
    Py_ssize_t sequence  # that its bundles are parts of, or -1


cdef struct Job:
    # IN
    Source source
    Shape shape
    Assignment assignment
    const Emission* emission
    const double* coefficients
    const double* offsets
    double* start  # (K)
    # Transitions, their transpose, logarithms, as `place_of` says; padded with 0, -inf.
    Py_ssize_t columns
    double* forward
    double* backward
    double* log_start
    double* log_forward
    double* log_backward
    double least
    bint dense  # no probability is below LEAST_TRANSITION
    bint mild   # or those that are are 0
    bint alike  # each state is followed by the same ones
    bint by_labels  # rows are counted by labels rather than by q
    bint remembered  # q is there from the last visit, for coordinate ascent to go on from
    bint may_be_impossible  # a row; if not, one of no probability is too far away for float64
    Py_ssize_t between  # rows of a recursion without a look for Ctrl-C, a power of 2
    bint wide  # one row is too many
    Py_ssize_t n_rows
    Py_ssize_t first_row
    Py_ssize_t n_sequences
    const int64_t* bounds
    const int64_t* order
    Py_ssize_t tile_rows
    Py_ssize_t stride
    # What the recursions work on
    Bundle* bundles
    Py_ssize_t most_steps  # of a bundle
    const Py_ssize_t* sequences  # of the safe engine
    const Py_ssize_t* ranges     # of rows to be counted: begin, end
    char* failed  # by sequence
    int64_t* impossible
    const int64_t* known  # states of rows, -1: not known; NULL: none is
    # OUT, NULL where not wanted; labels and q also between two passes
    bint counting
    Py_ssize_t statistics_size
    double* log_z
    int64_t* labels
    double* q  # (N, K)
    # Scratch
    double* partials  # per task
    double* workspace  # per thread
    Py_ssize_t room_size
    # Shared
    Watch watch
    int no_memory


# A thread's workspace. (K, BUNDLE) is a number for each state and span, padded to `columns`.
cdef struct Room:
    double* tile      # (D, stride)
    double* q         # (K, stride), scores of rows one after the other at other times
    double* emission
    double* limits    # (K)
    double* states    # (columns), twice
    double* predicted  # (K, BUNDLE)
    double* beta
    double* arriving
    double* entry
    double* end
    double* beta_entry
    double* arriving_entry
    double* inverse_now  # (BUNDLE)
    double* lost
    double* counted
    double* pairs     # (even(K), fours(K))
    double* top       # (step, BUNDLE)
    double* inverse
    double* total     # (2, ROW_BLOCK)
    double* span      # for each tile b (K, stride), alpha (K, stride)


cdef Room room_at(const Job* job, double* memory, Py_ssize_t* size) noexcept nogil:
    """Lay out a workspace at memory; size becomes its length."""
    cdef Room room
    cdef Py_ssize_t k = job.shape.n_components
    cdef Py_ssize_t n_states = job.columns * BUNDLE
    cdef Py_ssize_t tile_steps = job.tile_rows // BUNDLE
    cdef Py_ssize_t n_tiles = (job.most_steps + tile_steps - 1) // tile_steps
    cdef Py_ssize_t n_rows = n_tiles * job.tile_rows
    cdef double* place = memory
    room.tile = place
    place += (job.shape.n_features + TILE_PADDING) * job.stride
    room.q = place
    place += (k + SCORES_PADDING) * job.stride
    room.emission = place
    place += lines(job.emission.workspace_size(job.shape, job.tile_rows))
    room.limits = place
    place += lines(k)
    room.states = place
    place += 2 * job.columns
    room.predicted = place
    place += n_states
    room.beta = place
    place += n_states
    room.arriving = place
    place += n_states
    room.entry = place
    place += n_states
    room.end = place
    place += n_states
    room.beta_entry = place
    place += n_states
    room.arriving_entry = place
    place += n_states
    room.inverse_now = place
    place += BUNDLE
    room.lost = place
    place += BUNDLE
    room.counted = place
    place += BUNDLE
    room.pairs = place
    place += lines(even(k) * fours(k) + 4)
    room.top = place
    place += n_rows
    room.total = place
    place += 2 * ROW_BLOCK
    room.inverse = place
    place += n_rows
    room.span = place
    place += max((2 * k * n_tiles + 3) * job.stride, job.tile_rows * job.columns)
    size[0] = lines(place - memory)
    return room


cdef inline double* emissions_at(const Job* job, const Room* room, Py_ssize_t tile) noexcept nogil:
    """b (K, stride) of a bundle's tile: likelihoods, relative to the largest of a row."""
    return room.span + tile * 2 * job.shape.n_components * job.stride


cdef inline double* alpha_at(const Job* job, const Room* room, Py_ssize_t tile) noexcept nogil:
    """alpha (K, stride): filtered probabilities, but for a factor."""
    return emissions_at(job, room, tile) + job.shape.n_components * job.stride


# Scores -------------------------------------------------------------------------------------------


cdef inline void score_block(
    const Job* job, const Room* room, Py_ssize_t row, double* scores
) noexcept nogil:
    """Scores of ROW_BLOCK rows of the tile."""
    job.emission.scores(
        job.shape, job.coefficients, job.offsets, room.tile + row, ROW_BLOCK, job.stride,
        room.emission, scores + row,
    )


cdef inline void keep_known_rows(
    const Job* job, Py_ssize_t first, Py_ssize_t n_rows, double* scores
) noexcept nogil:
    """Leave rows one after the other, from `first` on, the states that are known."""
    cdef Py_ssize_t row
    if job.known != NULL:
        for row in range(n_rows):
            keep_known(job.shape.n_components, job.stride, job.known[first + row], scores + row)


cdef inline void keep_known_of_bundle(
    const Job* job, const Bundle* bundle, Py_ssize_t begin, double* scores
) noexcept nogil:
    """The same of ROW_BLOCK rows of a bundle, from number `begin` on."""
    cdef Py_ssize_t i, row, step
    if job.known == NULL:
        return
    for row in range(ROW_BLOCK):
        i = (begin + row) % BUNDLE
        step = (begin + row) // BUNDLE
        if step < bundle.length[i]:
            keep_known(
                job.shape.n_components, job.stride, job.known[bundle.first[i] + step], scores + row
            )


cdef void weigh_rows(Job* job, const Bundle* bundle, const Room* room) noexcept nogil:
    """Find b and its factors of all rows of a bundle."""
    cdef Py_ssize_t n_rows = (
        (bundle.length[0] * BUNDLE + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
    )
    cdef Py_ssize_t begin, block, row, tile
    cdef double* b
    for tile in range((n_rows + job.tile_rows - 1) // job.tile_rows):
        begin = tile * job.tile_rows
        b = emissions_at(job, room, tile)
        read_bundle(job, bundle, room, begin, min(job.tile_rows, n_rows - begin))
        for block in range(min(job.tile_rows, n_rows - begin) // ROW_BLOCK):
            row = block * ROW_BLOCK
            score_block(job, room, row, b)
            keep_known_of_bundle(job, bundle, begin + row, b + row)
            exponentials(
                job.shape.n_components, ROW_BLOCK, job.stride, b + row, room.top + begin + row,
                room.total,
            )
        if halted(&job.watch):
            return


cdef inline void read_bundle(
    const Job* job, const Bundle* bundle, const Room* room, Py_ssize_t begin, Py_ssize_t n_rows
) noexcept nogil:
    cdef Py_ssize_t[BUNDLE] first
    cdef Py_ssize_t[BUNDLE] length
    cdef Py_ssize_t i
    for i in range(BUNDLE):
        # Where there is no span its neighbour is read, and counts for nothing.
        first[i] = bundle.first[i if bundle.length[i] else 0]
        length[i] = bundle.length[i if bundle.length[i] else 0]
    read_spans(
        job.source, job.shape.n_features, first, length, begin // BUNDLE, n_rows, job.stride,
        room.tile,
    )


cdef inline Py_ssize_t place_of(const Job* job, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
    """Where a matrix (K, columns) has entry i, j.

    By strips of 8 columns, so that what is read for some columns of all rows lies together.
    """
    return (j // 8 * job.shape.n_components + i) * 8 + j % 8


cdef inline const lanes* strip(
    const Job* job, const double* matrix, Py_ssize_t vector
) noexcept nogil:
    """A vector of columns of a matrix's first row; those of the others are VECTORS apart."""
    return <const lanes*>(matrix + place_of(job, 0, vector * LANES))


cdef inline bint look_at_row(Job* job, Py_ssize_t row) noexcept nogil:
    """Look for Ctrl-C at one row in `between`; whether to stop."""
    if row & (job.between - 1) == 0:
        return halted(&job.watch)
    return job.watch.stop


cdef inline bint look_within(Job* job, Py_ssize_t column) noexcept nogil:
    """Look for Ctrl-C at some of a row's columns, where they are many; whether to stop."""
    if job.wide and column % 64 == 0:
        return halted(&job.watch)
    return False


# Recursions of a bundle ---------------------------------------------------------------------------


cdef inline void multiply(
    Job* job, const double* matrix, const lanes* x, Py_ssize_t step, lanes* out
) noexcept nogil:
    """out[j] = sum_i x[i] matrix[i, j] for each lane; states of x are step vectors apart."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t j
    cdef const double* row
    cdef const lanes* from_
    cdef lanes a0, a1, a2, a3, y
    for j in range(0, n, 4):
        if j and look_within(job, j):
            return
        a0 = lanes_set(0.0)
        a1 = a0
        a2 = a0
        a3 = a0
        row = matrix + place_of(job, 0, j)
        from_ = x
        for _ in range(n):
            y = lanes_load(from_)
            a0 = a0 + lanes_set(row[0]) * y
            a1 = a1 + lanes_set(row[1]) * y
            a2 = a2 + lanes_set(row[2]) * y
            a3 = a3 + lanes_set(row[3]) * y
            row = row + 8
            from_ = from_ + step
        out[j * VECTORS] = a0
        out[(j + 1) * VECTORS] = a1
        out[(j + 2) * VECTORS] = a2
        out[(j + 3) * VECTORS] = a3


cdef void forward_steps(
    Job* job, const lanes* b, lanes* alpha, const lanes* top, lanes* inverse,
    Py_ssize_t n_steps, lanes* predicted, lanes* inverse_now, lanes* lost,
) noexcept nogil:
    """alpha[t, j] = b[t, j] sum_i alpha[t - 1, i] A[i, j] / (sum of alpha[t - 1]), in one vector.

    Bishop 13.59. lost becomes positive where a row is impossible or a state underflows.
    """
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t step = job.stride // LANES
    cdef Py_ssize_t k
    cdef lanes least = lanes_set(job.least)
    cdef lanes lowest = lanes_set(LOWEST if job.may_be_impossible else -INFINITY)
    cdef lanes none = lanes_set(0.0)
    cdef lanes one = lanes_set(1.0)
    cdef lanes tiny = lanes_set(TINY)
    cdef lanes flags = lost[0]
    cdef lanes scale = inverse_now[0]
    cdef lanes a, p, s
    for _ in range(n_steps):
        s = none
        for k in range(n):
            p = predicted[k * VECTORS] * scale
            a = p * b[k * step]
            flags = flags + lanes_keep_between(p, none, a, least)
            alpha[k * step] = a
            s = s + a
        flags = flags + lanes_keep_from(one, lowest, top[0]) + lanes_keep_from(one, tiny, s)
        scale = one / lanes_max(s, tiny)
        inverse[0] = scale
        multiply(job, job.forward, alpha, step, predicted)
        b = b + VECTORS
        alpha = alpha + VECTORS
        top = top + VECTORS
        inverse = inverse + VECTORS
    inverse_now[0] = scale
    lost[0] = flags


cdef void forward(
    Job* job, const Bundle* bundle, const Room* room, const double* entry, Py_ssize_t begin,
    double* end,
) noexcept nogil:
    """From what is predicted for each span's row `begin` to what is for the row after its last.

    Both are (K, BUNDLE). lost tells whether that was done safely.
    """
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t tile_steps = job.tile_rows // BUNDLE
    cdef Py_ssize_t t = begin
    cdef Py_ssize_t i, k, place, stop, tile, v
    cdef double[BUNDLE] lost
    memcpy(room.predicted, entry, n * BUNDLE * sizeof(double))
    for i in range(BUNDLE):
        room.inverse_now[i] = 1.0
        room.lost[i] = 0.0
        lost[i] = 0.0
    while t < bundle.length[0]:
        tile = t // tile_steps
        stop = min((tile + 1) * tile_steps, t + job.between)
        for i in range(BUNDLE):
            if bundle.length[i] > t:
                stop = min(stop, bundle.length[i])
        place = (t - tile * tile_steps) * VECTORS
        for v in range(VECTORS):
            forward_steps(
                job, <lanes*>emissions_at(job, room, tile) + place + v,
                <lanes*>alpha_at(job, room, tile) + place + v,
                <lanes*>room.top + t * VECTORS + v, <lanes*>room.inverse + t * VECTORS + v,
                stop - t, <lanes*>room.predicted + v, <lanes*>room.inverse_now + v,
                <lanes*>room.lost + v,
            )
        t = stop
        if job.between < MOST_BETWEEN and look_at_row(job, 0):
            return
        for i in range(BUNDLE):
            if bundle.length[i] == t:
                lost[i] = room.lost[i]
                for k in range(n):
                    end[k * BUNDLE + i] = room.predicted[k * BUNDLE + i] * room.inverse_now[i]
    memcpy(room.lost, lost, BUNDLE * sizeof(double))


cdef void backward_steps(
    Job* job, lanes* b, lanes* alpha, const lanes* inverse, lanes* q, Py_ssize_t n_steps,
    lanes* beta, lanes* arriving, lanes counted,
) noexcept nogil:
    """beta[t - 1, i] = sum_j A[i, j] b[t, j] beta[t, j] / (sum of alpha[t]), in one vector.

    Bishop 13.62. If there is room for q, q[t] = alpha[t] beta[t], scaled to sum to `counted`, and
    then alpha[t] is scaled likewise and b[t, j] replaced by what arrives at state j of the next
    row, so that transitions from i to j are alpha[t, i] A[i, j] b[t, j].
    """
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t step = job.stride // LANES
    cdef Py_ssize_t k, t
    cdef lanes huge = lanes_set(HUGE)
    cdef lanes tiny = lanes_set(TINY)
    cdef lanes s, scale, x, y
    for t in range(n_steps - 1, -1, -1):
        scale = inverse[t * VECTORS]
        if q != NULL:
            s = lanes_set(0.0)
            for k in range(n):
                y = alpha[k * step + t * VECTORS] * beta[k * VECTORS]
                q[k * step + t * VECTORS] = y
                s = s + y
            s = counted / lanes_max(s, tiny)
            for k in range(n):
                q[k * step + t * VECTORS] = q[k * step + t * VECTORS] * s
                alpha[k * step + t * VECTORS] = alpha[k * step + t * VECTORS] * s
                x = b[k * step + t * VECTORS]
                b[k * step + t * VECTORS] = arriving[k * VECTORS]
                arriving[k * VECTORS] = lanes_min(x * beta[k * VECTORS] * scale, huge)
        else:
            for k in range(n):
                x = b[k * step + t * VECTORS] * beta[k * VECTORS]
                arriving[k * VECTORS] = lanes_min(x * scale, huge)
        multiply(job, job.backward, arriving, VECTORS, beta)


cdef void backward(
    Job* job, const Bundle* bundle, const Room* room, Py_ssize_t end, bint keep,
    double* statistics,
) noexcept nogil:
    """From what is known of each span's last row to beta and what arrives at its first one.

    Over steps before `end`. If keep, q is found and counted.
    """
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t tile_steps = job.tile_rows // BUNDLE
    cdef Py_ssize_t t = end
    cdef Py_ssize_t begin, i, place, tile, v
    cdef double* b
    cdef double* alpha
    for i in range(n * BUNDLE):
        room.beta[i] = 1.0
        room.arriving[i] = 0.0
    memset(room.counted, 0, BUNDLE * sizeof(double))
    while t > 0:
        tile = (t - 1) // tile_steps
        b = emissions_at(job, room, tile)
        alpha = alpha_at(job, room, tile)
        begin = max(tile * tile_steps, t - job.between)
        for i in range(BUNDLE):
            if bundle.length[i] == t:
                enter(job, room, alpha + (t - 1 - tile * tile_steps) * BUNDLE + i, t, i)
            elif bundle.length[i] < t:
                begin = max(begin, bundle.length[i])
        place = (begin - tile * tile_steps) * VECTORS
        for v in range(VECTORS):
            backward_steps(
                job, <lanes*>b + place + v, <lanes*>alpha + place + v,
                <lanes*>room.inverse + begin * VECTORS + v,
                <lanes*>room.q + place + v if keep else NULL, t - begin, <lanes*>room.beta + v,
                <lanes*>room.arriving + v, (<lanes*>room.counted)[v],
            )
        t = begin
        if job.between < MOST_BETWEEN:
            halted(&job.watch)
        if keep and t == tile * tile_steps:
            count_tile(job, bundle, room, tile, statistics)
        if job.watch.stop:
            return


cdef inline void enter(
    const Job* job, const Room* room, const double* alpha, Py_ssize_t length, Py_ssize_t i
) noexcept nogil:
    """Take what is known of span i's last row from there on."""
    cdef Py_ssize_t k
    cdef double s = 0.0
    for k in range(job.shape.n_components):
        s += alpha[k * job.stride] * room.beta_entry[k * BUNDLE + i]
    s = 1.0 / max(s * room.inverse[(length - 1) * BUNDLE + i], TINY)
    for k in range(job.shape.n_components):
        room.beta[k * BUNDLE + i] = room.beta_entry[k * BUNDLE + i] * s
        room.arriving[k * BUNDLE + i] = room.arriving_entry[k * BUNDLE + i] * s
    room.counted[i] = 1.0 if room.lost[i] == 0.0 else 0.0


cdef inline Py_ssize_t rows_in(
    const Job* job, const Bundle* bundle, Py_ssize_t tile
) noexcept nogil:
    """Rows of a bundle's tile, those included of spans that have ended."""
    return min(job.tile_rows, bundle.length[0] * BUNDLE - tile * job.tile_rows)


cdef void count_tile(
    Job* job, const Bundle* bundle, const Room* room, Py_ssize_t tile, double* statistics
) noexcept nogil:
    """Give out q of a tile, and add up what its rows bring."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t n_rows = rows_in(job, bundle, tile)
    cdef Py_ssize_t n_used = (n_rows + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
    cdef double* b = emissions_at(job, room, tile)
    cdef double* alpha = alpha_at(job, room, tile)
    # States at a time: a few milliseconds.
    cdef Py_ssize_t many = even(max(2, 262144 // n))
    cdef Py_ssize_t k
    halted(&job.watch)
    give_rows(job, bundle, room, tile, room.q, NULL)
    if not job.counting:
        return
    for k in range(n):
        memset(b + k * job.stride + n_rows, 0, (n_used - n_rows) * sizeof(double))
        memset(room.q + k * job.stride + n_rows, 0, (n_used - n_rows) * sizeof(double))
    k = 0
    while k < n:
        products(
            min(many, n - k), n, False, n_used // LANES, job.stride // LANES,
            <const lanes*>(alpha + k * job.stride), <const lanes*>b, room.pairs + k * fours(n),
            fours(n),
        )
        k += many
        if job.wide and halted(&job.watch):
            return
    read_bundle(job, bundle, room, tile * job.tile_rows, n_used)
    count_rows(job, room, n_used, statistics)


cdef inline void count_rows(
    const Job* job, const Room* room, Py_ssize_t n_rows, double* statistics
) noexcept nogil:
    """Add up what the rows of a tile bring to counts and to the emission's statistics."""
    cdef Py_ssize_t n = job.shape.n_components
    add_counts(n, n_rows, job.stride, room.q, statistics + 1, room.limits)
    job.emission.accumulate(
        job.shape, job.coefficients, room.tile, n_rows, job.stride, room.q, room.limits,
        room.emission, statistics + head_size(n),
    )


cdef void give_rows(
    Job* job, const Bundle* bundle, const Room* room, Py_ssize_t tile, const double* q,
    const double* scale,
) noexcept nogil:
    """Write q and the best state of a tile's rows to where they are wanted; scale NULL: all 1."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t tile_steps = job.tile_rows // BUNDLE
    cdef Py_ssize_t begin = tile * tile_steps
    cdef Py_ssize_t best, i, k, row, t
    cdef bint labels = job.labels != NULL and job.assignment.kind != DRAW
    cdef const double* from_
    cdef double factor
    if job.q == NULL and not labels:
        return
    for i in range(BUNDLE):
        for t in range(begin, min(begin + tile_steps, bundle.length[i])):
            from_ = q + (t - begin) * BUNDLE + i
            row = bundle.first[i] + t
            factor = 1.0 if scale == NULL else scale[t * BUNDLE + i]
            if job.q != NULL:
                for k in range(n):
                    job.q[row * n + k] = from_[k * job.stride] * factor
            if labels:
                best = 0
                for k in range(1, n):
                    if from_[k * job.stride] > from_[best * job.stride]:
                        best = k
                job.labels[row] = best


cdef inline Py_ssize_t head_size(Py_ssize_t n_components) noexcept nogil:
    """Statistics before the emission's: log_z, counts, start, transitions."""
    return 1 + n_components * (2 + n_components)


cdef bint same(
    Py_ssize_t n, const double* found, const double* taken, Py_ssize_t step
) noexcept nogil:
    """Whether two vectors are the same but for rounding of each number."""
    cdef Py_ssize_t k
    cdef double f
    for k in range(n):
        f = found[k * step]
        if fabs(f - taken[k * step]) > SAME * f + LEAST * LEAST_TRANSITION:
            return False
    return True


cdef bint same_posterior(
    Py_ssize_t n, const double* alpha, Py_ssize_t alpha_step, const double* found,
    Py_ssize_t found_step, const double* taken, Py_ssize_t taken_step,
) noexcept nogil:
    """Whether q(state) is the same by two versions of beta."""
    cdef double by_found = 0.0, by_taken = 0.0, difference = 0.0
    cdef Py_ssize_t k
    for k in range(n):
        by_found += alpha[k * alpha_step] * found[k * found_step]
        by_taken += alpha[k * alpha_step] * taken[k * taken_step]
    if not (by_found > 0.0 and by_taken > 0.0):
        return False
    for k in range(n):
        difference += fabs(alpha[k * alpha_step] * (
            found[k * found_step] / by_found - taken[k * taken_step] / by_taken
        ))
    return difference < SAME


cdef void visit_bundle(
    Job* job, Py_ssize_t item, double* statistics, double* memory
) noexcept nogil:
    """Recursions over a bundle, and what its rows bring; sets `failed` of sequences left out."""
    cdef Bundle* bundle = job.bundles + item
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t size
    cdef Room room = room_at(job, memory, &size)
    cdef bint filtering = job.assignment.kind == FILTER or job.assignment.kind == DRAW
    cdef Py_ssize_t i, j, k, tile
    cdef Py_ssize_t passes = 1
    weigh_rows(job, bundle, &room)
    if job.watch.stop:
        return
    for k in range(n):
        for i in range(BUNDLE):
            room.entry[k * BUNDLE + i] = job.start[k]
    if bundle.cut:
        passes = forward_parts(job, bundle, &room)
    else:
        forward(job, bundle, &room, room.entry, 0, room.end)
    if job.watch.stop:
        return
    for i in range(BUNDLE):
        if bundle.length[i] > 0 and room.lost[i] > 0.0:
            job.failed[bundle.sequence[i]] = 1
    if bundle.cut and job.failed[bundle.sequence[0]]:
        return
    find_log_z(job, bundle, &room, statistics)
    if filtering:
        for tile in range((bundle.length[0] * BUNDLE + job.tile_rows - 1) // job.tile_rows):
            give_rows(job, bundle, &room, tile, alpha_at(job, &room, tile), room.inverse)
        return
    for i in range(n * BUNDLE):
        room.beta_entry[i] = 1.0
        room.arriving_entry[i] = 0.0
    clear(room.pairs, even(n) * fours(n) * sizeof(double), &job.watch)
    if bundle.cut:
        backward_parts(job, bundle, &room, passes, statistics)
    else:
        backward(job, bundle, &room, bundle.length[0], True, statistics)
    if job.watch.stop:
        return
    for k in range(n):
        for j in range(n):
            statistics[1 + 2 * n + k * n + j] += (
                room.pairs[k * fours(n) + j] * job.forward[place_of(job, k, j)]
            )
        if job.wide and halted(&job.watch):
            return
    for i in range(BUNDLE):
        if bundle.length[i] > 0 and room.lost[i] == 0.0 and (
            not bundle.cut or bundle.opens and i == 0
        ):
            for k in range(n):
                statistics[1 + n + k] += room.q[k * job.stride + i]


cdef void find_log_z(
    Job* job, const Bundle* bundle, const Room* room, double* statistics
) noexcept nogil:
    """log p(row | rows before it), in place of top; -inf of a row too far away."""
    cdef lanes* top = <lanes*>room.top
    cdef lanes lowest = lanes_set(LOWEST)
    cdef lanes never = lanes_set(-INFINITY)
    cdef Py_ssize_t i, t, v
    cdef double total
    for v in range(bundle.length[0] * VECTORS):
        top[v] = lanes_replace_above(
            never, top[v] - lanes_log((<lanes*>room.inverse)[v]), top[v], lowest
        )
    for i in range(BUNDLE):
        if room.lost[i] > 0.0:
            continue
        total = 0.0
        for t in range(bundle.length[i]):
            total += room.top[t * BUNDLE + i]
        statistics[0] += total
        if job.log_z != NULL:
            for t in range(bundle.length[i]):
                job.log_z[bundle.first[i] + t] = room.top[t * BUNDLE + i]


# Parts of one sequence ----------------------------------------------------------------------------


cdef Py_ssize_t forward_parts(Job* job, Bundle* bundle, const Room* room) noexcept nogil:
    """Let each part begin with what the one before it ends with; returns how often it took."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t last = BUNDLE - 1
    cdef Py_ssize_t i, k
    cdef Py_ssize_t passes = 0
    cdef bint settled
    for i in range(n * BUNDLE):
        room.beta_entry[i] = 1.0 / n
    forward(
        job, bundle, room, room.beta_entry, max(bundle.length[last] - MEMORY, 0), room.end
    )
    if not bundle.opens:
        look_before(job, bundle, room)
    settled = False
    while not settled and passes < BUNDLE and not job.watch.stop:
        for k in range(n):
            for i in range(1, BUNDLE):
                room.entry[k * BUNDLE + i] = room.end[k * BUNDLE + i - 1]
        forward(job, bundle, room, room.entry, 0, room.end)
        settled = True
        for i in range(1, BUNDLE):
            settled = settled and same(n, room.end + i - 1, room.entry + i, BUNDLE)
        passes += 1
    for k in range(n):
        bundle.edges[FROM_BEFORE * n + k] = room.entry[k * BUNDLE]
        bundle.edges[TO_AFTER * n + k] = room.end[k * BUNDLE + last]
    return passes


cdef void backward_parts(
    Job* job, Bundle* bundle, const Room* room, Py_ssize_t passes, double* statistics
) noexcept nogil:
    """Let each part end with what the one after it begins with."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t last = BUNDLE - 1
    cdef Py_ssize_t tile_steps = job.tile_rows // BUNDLE
    cdef Py_ssize_t i, k, t
    cdef const double* alpha
    if not bundle.closes:
        look_after(job, bundle, room)
    # A product of positive matrices forgets as fast forwards as backwards.
    for _ in range(passes):
        backward(
            job, bundle, room,
            bundle.length[0] if passes > 1 else min(MEMORY, bundle.length[last]), False, NULL,
        )
        for k in range(n):
            for i in range(last):
                room.beta_entry[k * BUNDLE + i] = room.beta[k * BUNDLE + i + 1]
                room.arriving_entry[k * BUNDLE + i] = room.arriving[k * BUNDLE + i + 1]
    backward(job, bundle, room, bundle.length[0], True, statistics)
    for i in range(BUNDLE):
        t = bundle.length[i] - 1
        alpha = alpha_at(job, room, t // tile_steps) + t % tile_steps * BUNDLE + i
        if i < last and not same_posterior(
            n, alpha, job.stride, room.beta + i + 1, BUNDLE, room.beta_entry + i, BUNDLE
        ):
            job.failed[bundle.sequence[0]] = 1
    for k in range(n):
        bundle.edges[LAST * n + k] = alpha[k * job.stride]
        bundle.edges[FROM_AFTER * n + k] = room.beta_entry[k * BUNDLE + last]
        bundle.edges[TO_BEFORE * n + k] = room.beta[k * BUNDLE]


cdef inline void multiply_states(
    Job* job, const double* matrix, const double* x, double* out
) noexcept nogil:
    """out[j] = sum_i x[i] matrix[i, j]."""
    cdef const lanes* entries
    cdef Py_ssize_t i, j
    cdef lanes s
    for j in range(job.columns // LANES):
        if look_within(job, j):
            return
        entries = strip(job, matrix, j)
        s = lanes_set(0.0)
        for i in range(job.shape.n_components):
            s = s + lanes_set(x[i]) * entries[i * VECTORS]
        (<lanes*>out)[j] = s


cdef void weigh_tile(
    Job* job, const Room* room, Py_ssize_t first, Py_ssize_t n_rows
) noexcept nogil:
    """b of rows one after the other, in q."""
    cdef Py_ssize_t n_used = (n_rows + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
    cdef Py_ssize_t block, row
    read_tile(
        job.source, job.shape.n_features, first, n_rows, n_used, job.stride, room.tile
    )
    for block in range(n_used // ROW_BLOCK):
        row = block * ROW_BLOCK
        score_block(job, room, row, room.q)
        keep_known_rows(job, first + row, min(ROW_BLOCK, n_rows - row), room.q + row)
        exponentials(
            job.shape.n_components, ROW_BLOCK, job.stride, room.q + row, room.total,
            room.total + ROW_BLOCK,
        )


cdef void look_before(Job* job, const Bundle* bundle, const Room* room) noexcept nogil:
    """What the rows before a bundle predict for its first one."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t first = bundle.first[0] - MEMORY
    cdef Py_ssize_t k, n_rows, row
    cdef double s
    cdef double* x = room.states
    cdef double* predicted = room.states + job.columns
    for k in range(n):
        predicted[k] = 1.0 / n
    while first < bundle.first[0]:
        n_rows = min(job.tile_rows, bundle.first[0] - first)
        weigh_tile(job, room, first, n_rows)
        for row in range(n_rows):
            s = 0.0
            for k in range(n):
                x[k] = predicted[k] * room.q[k * job.stride + row]
                s += x[k]
            s = 1.0 / max(s, TINY)
            for k in range(n):
                x[k] *= s
            multiply_states(job, job.forward, x, predicted)
            if look_at_row(job, row):
                return
        first += n_rows
    for k in range(n):
        room.entry[k * BUNDLE] = predicted[k]


cdef void look_after(Job* job, const Bundle* bundle, const Room* room) noexcept nogil:
    """What the rows after a bundle say about its last one."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t last = BUNDLE - 1
    cdef Py_ssize_t begin = bundle.first[last] + bundle.length[last]
    cdef Py_ssize_t end = begin + MEMORY
    cdef Py_ssize_t k, n_rows, row
    cdef double s
    cdef double* arriving = room.states
    cdef double* beta = room.states + job.columns
    for k in range(n):
        beta[k] = 1.0
    while end > begin:
        n_rows = min(job.tile_rows, end - begin)
        weigh_tile(job, room, end - n_rows, n_rows)
        for row in range(n_rows - 1, -1, -1):
            s = 0.0
            for k in range(n):
                arriving[k] = beta[k] * room.q[k * job.stride + row]
                s += arriving[k]
            s = 1.0 / max(s, TINY)
            for k in range(n):
                arriving[k] *= s
            multiply_states(job, job.backward, arriving, beta)
            if look_at_row(job, row):
                return
        end -= n_rows
    for k in range(n):
        room.beta_entry[k * BUNDLE + last] = beta[k]
        room.arriving_entry[k * BUNDLE + last] = arriving[k]


cdef void check_edges(const Job* job, const Task* task) noexcept nogil:
    """Let a sequence fail whose bundles don't begin and end as their neighbours tell them."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef const double* before
    cdef const double* after
    cdef Py_ssize_t i
    for i in range(task.first, task.end):
        if job.bundles[i].closes or job.failed[task.sequence]:
            continue
        before = job.bundles[i].edges
        after = job.bundles[i + 1].edges
        if not same(n, before + TO_AFTER * n, after + FROM_BEFORE * n, 1) or (
            job.assignment.kind != FILTER and job.assignment.kind != DRAW
            and not same_posterior(
                n, before + LAST * n, 1, after + TO_BEFORE * n, 1, before + FROM_AFTER * n, 1
            )
        ):
            job.failed[task.sequence] = 1


# One sequence at a time, in logarithms ------------------------------------------------------------


cdef inline double normalise(Py_ssize_t n, double* x) noexcept nogil:
    """x = x - log sum exp x; returns log sum exp x, which is -inf if all are."""
    cdef double high = -INFINITY
    cdef double s = 0.0
    cdef Py_ssize_t k
    for k in range(n):
        high = max(high, x[k])
    if high == -INFINITY:
        return high
    for k in range(n):
        # First what may be so large that it takes all digits, then what is between 0 and log n.
        x[k] -= high
        s += exp(x[k])
    s = log(s)
    for k in range(n):
        x[k] -= s
    return high + s


cdef inline bint weigh_row(
    const Job* job, const double* prior, double* x, double* level
) noexcept nogil:
    """x = log prior + scores x - level, the best score of states that are possible by the prior.

    Scores of 1e20 would take all digits of what the prior says. Returns whether the row is possible
    at all: one that is too far away for float64 numbers is, its level is -inf and its scores tell
    nothing.
    """
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t k
    cdef bint possible = False
    level[0] = -INFINITY
    for k in range(n):
        if prior[k] > -INFINITY:
            possible = True
            level[0] = max(level[0], x[k])
    if level[0] == -INFINITY:
        memcpy(x, prior, n * sizeof(double))
        return possible and not job.may_be_impossible
    for k in range(n):
        # What is not possible may have any score, and must not come in again by inf - inf.
        x[k] = prior[k] + (x[k] - level[0]) if prior[k] > -INFINITY else -INFINITY
    return True


cdef inline Py_ssize_t first_largest(Py_ssize_t n, const double* x) noexcept nogil:
    cdef Py_ssize_t best = 0
    cdef Py_ssize_t k
    for k in range(1, n):
        if x[k] > x[best]:
            best = k
    return best


cdef inline void log_multiply(
    Job* job, const double* matrix, const double* x, double* out
) noexcept nogil:
    """out[j] = log sum_i exp(x[i] + matrix[i, j])."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef const lanes* entries
    cdef lanes lowest = lanes_set(LOWEST)
    cdef lanes high, m, s
    cdef Py_ssize_t i, j
    for j in range(job.columns // LANES):
        if look_within(job, j):
            return
        entries = strip(job, matrix, j)
        # Never -inf, so that -inf - high is -inf and not NaN.
        high = lowest
        for i in range(n):
            high = lanes_max(lanes_set(x[i]) + entries[i * VECTORS], high)
        s = lanes_set(0.0)
        for i in range(n):
            m = lanes_set(x[i]) + entries[i * VECTORS]
            s = s + lanes_exp(m - high)
        (<lanes*>out)[j] = lanes_replace_above(
            lanes_set(-INFINITY), high + lanes_log(s), high, lowest
        )


cdef void log_scores(
    Job* job, const Room* room, Py_ssize_t first, Py_ssize_t n_rows, double* out
) noexcept nogil:
    """Scores of rows, (n_rows, columns), -inf where impossible and in the padding."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t begin, k, n_tile, n_used, row
    cdef double score
    for begin in range((n_rows + job.tile_rows - 1) // job.tile_rows):
        begin = begin * job.tile_rows
        n_tile = min(job.tile_rows, n_rows - begin)
        n_used = (n_tile + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
        read_tile(
            job.source, job.shape.n_features, first + begin, n_tile, n_used, job.stride, room.tile
        )
        for row in range(n_used // ROW_BLOCK):
            score_block(job, room, row * ROW_BLOCK, room.q)
        keep_known_rows(job, first + begin, n_tile, room.q)
        for row in range(n_tile):
            for k in range(n):
                score = room.q[k * job.stride + row]
                # NaN, by inf - inf, is as impossible.
                out[k] = score if score > LOWEST else -INFINITY
            for k in range(n, job.columns):
                out[k] = -INFINITY
            out += job.columns
        if halted(&job.watch):
            return


cdef double* rows_of_states(Job* job, Py_ssize_t n_rows) noexcept nogil:
    """An array (n_rows, columns), to be freed; NULL where there is no memory, which is noted."""
    cdef double* memory = <double*>aligned_memory(
        <size_t>(n_rows * job.columns) * sizeof(double)
    )
    if memory == NULL:
        job.no_memory = 1
    return memory


cdef void give_up(Job* job, Py_ssize_t s, Py_ssize_t row, double* statistics) noexcept nogil:
    """A row is impossible given the rows of its sequence before it."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t i
    job.impossible[s] = row
    statistics[0] = -INFINITY
    if job.log_z != NULL:
        for i in range(row, job.bounds[s + 1]):
            job.log_z[i] = -INFINITY
    if job.labels != NULL:
        for i in range(job.bounds[s], job.bounds[s + 1]):
            job.labels[i] = -1
    if job.q != NULL:
        memset(
            job.q + job.bounds[s] * n, 0,
            (job.bounds[s + 1] - job.bounds[s]) * n * sizeof(double),
        )


cdef void visit_failed(
    Job* job, Py_ssize_t item, double* statistics, double* memory
) noexcept nogil:
    """Filter a sequence in logarithms, then smooth it: q, start and transitions.

    With "draw" states are drawn in place of the second recursion.
    """
    cdef Py_ssize_t s = job.sequences[item]
    cdef Py_ssize_t first = job.bounds[s]
    cdef Py_ssize_t n_rows = job.bounds[s + 1] - first
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t size, row
    cdef Room room = room_at(job, memory, &size)
    # Scores, in whose place come the logarithms of filtered probabilities.
    cdef double* alpha = rows_of_states(job, n_rows)
    cdef double* here = alpha
    cdef double* predicted = room.states
    cdef double log_z
    cdef double total = 0.0
    if alpha == NULL:
        return
    log_scores(job, &room, first, n_rows, alpha)
    memcpy(predicted, job.log_start, n * sizeof(double))
    for row in range(n_rows):
        if look_at_row(job, row):
            break
        if row > 0:
            log_multiply(job, job.log_forward, here, predicted)
            here += job.columns
        if not weigh_row(job, predicted, here, &log_z):
            give_up(job, s, first + row, statistics)
            break
        log_z += normalise(n, here)
        total += log_z
        if job.log_z != NULL:
            job.log_z[first + row] = log_z
    if job.impossible[s] < 0 and not job.watch.stop:
        if job.assignment.kind == DRAW:
            total += log_draw(job, first, n_rows, alpha, room.states, statistics)
        else:
            smooth(job, &room, first, n_rows, alpha, statistics)
        statistics[0] += total
    free_aligned(alpha)


cdef void smooth(
    Job* job, const Room* room, Py_ssize_t first, Py_ssize_t n_rows, const double* alpha,
    double* statistics,
) noexcept nogil:
    """From filtered probabilities, in logarithms, to q of a sequence's rows (Kitagawa 1987).

    q[t, i] = sum_j q[t + 1, j] p(state i at t | state j at t + 1, rows up to t). Whatever rounding
    does to scores, pairs of states sum over i to q[t + 1, j] and over j to q[t, i].
    """
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t k, row
    cdef double total
    cdef double* q = room.states
    memset(q, 0, job.columns * sizeof(double))
    for row in range(n_rows - 1, -1, -1):
        if look_at_row(job, row):
            return
        if row + 1 < n_rows and job.assignment.kind != FILTER:
            step_back(job, room, alpha + row * job.columns, q, statistics + 1 + 2 * n)
        else:
            for k in range(n):
                q[k] = exp(alpha[row * job.columns + k])
        total = 0.0
        for k in range(n):
            total += q[k]
        for k in range(n):
            q[k] /= total
            if row == 0:
                statistics[1 + n + k] += q[k]
        if job.q != NULL:
            memcpy(job.q + (first + row) * n, q, n * sizeof(double))
        if job.labels != NULL:
            job.labels[first + row] = first_largest(n, q)


cdef void step_back(
    Job* job, const Room* room, const double* alpha, double* q, double* transitions
) noexcept nogil:
    """q of the row after becomes q of this one, whose pairs are counted."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef lanes* share = <lanes*>room.predicted
    cdef lanes* sums = <lanes*>room.beta
    cdef double* pairs
    cdef const lanes* entries
    cdef lanes lowest = lanes_set(LOWEST)
    cdef lanes one = lanes_set(1.0)
    cdef lanes after, high, s
    cdef Py_ssize_t i, j, k
    for i in range(n):
        sums[i] = lanes_set(0.0)
    for j in range(job.columns // LANES):
        if look_within(job, j):
            return
        after = (<lanes*>q)[j]
        if lanes_sum(after) == 0.0:
            continue
        entries = strip(job, job.log_forward, j)
        high = lowest
        for i in range(n):
            share[i] = lanes_set(alpha[i]) + entries[i * VECTORS]
            high = lanes_max(share[i], high)
        s = lanes_set(0.0)
        for i in range(n):
            share[i] = lanes_exp(share[i] - high)
            s = s + share[i]
        # 1 or more, but 0 for a state that nothing leads to.
        after = after / lanes_max(s, one)
        for i in range(n):
            share[i] = share[i] * after
            sums[i] = sums[i] + share[i]
            if job.counting:
                pairs = <double*>(share + i)
                for k in range(min(LANES, n - j * LANES)):
                    transitions[i * n + j * LANES + k] += pairs[k]
    for i in range(n):
        q[i] = lanes_sum(sums[i])


cdef double log_draw(
    Job* job, Py_ssize_t first, Py_ssize_t n_rows, const double* alpha, double* chance,
    double* statistics,
) noexcept nogil:
    """Draw the states of a sequence from its last on, and return log p(states | rows)."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t columns = job.columns
    cdef Py_ssize_t k, row
    cdef Py_ssize_t after = 0
    cdef double high
    cdef double total = 0.0
    for row in range(n_rows - 1, -1, -1):
        if look_at_row(job, row):
            return total
        for k in range(n):
            chance[k] = alpha[row * columns + k]
            if row + 1 < n_rows:
                chance[k] += job.log_forward[place_of(job, k, after)]
        high = chance[first_largest(n, chance)]
        for k in range(n):
            chance[k] = exp(chance[k] - high)
        after = draw_state(job, first + row, chance, &total)
        job.labels[first + row] = after
    count_path(job, first, n_rows, statistics)
    return total


cdef inline Py_ssize_t draw_state(
    const Job* job, Py_ssize_t row, const double* chance, double* log_chance
) noexcept nogil:
    """Draw a state; log_chance += the logarithm of its share."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t k
    cdef Py_ssize_t last = 0
    cdef double total = 0.0
    cdef double below = 0.0
    cdef double mark
    for k in range(n):
        total += chance[k]
    mark = total * philox_uniform(
        job.assignment.seed, job.assignment.sweep, job.first_row + row, 0
    )
    for k in range(n):
        # Never one without a chance, even where rounding takes the mark to the total.
        if chance[k] > 0.0:
            last = k
            below += chance[k]
            if mark < below:
                break
    log_chance[0] += log(chance[last] / total)
    return last


cdef void count_path(
    Job* job, Py_ssize_t first, Py_ssize_t n_rows, double* statistics
) noexcept nogil:
    """Start and transitions of a sequence of labels."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t row
    statistics[1 + n + job.labels[first]] += 1.0
    for row in range(first + 1, first + n_rows):
        statistics[1 + 2 * n + job.labels[row - 1] * n + job.labels[row]] += 1.0
        if row % 65536 == 0:
            if halted(&job.watch):
                return


# Other assignments, one sequence at a time --------------------------------------------------------


cdef void visit_given(
    Job* job, Py_ssize_t item, double* statistics, double* memory
) noexcept nogil:
    cdef Py_ssize_t s = job.sequences[item]
    count_path(job, job.bounds[s], job.bounds[s + 1] - job.bounds[s], statistics)


cdef void visit_drawn(
    Job* job, Py_ssize_t item, double* statistics, double* memory
) noexcept nogil:
    """Draw the states of a sequence from its filtered probabilities (Chib 1996)."""
    cdef Py_ssize_t s = job.sequences[item]
    cdef Py_ssize_t first = job.bounds[s]
    cdef Py_ssize_t n_rows = job.bounds[s + 1] - first
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t size, j, k, row
    cdef Py_ssize_t after = 0
    cdef Room room = room_at(job, memory, &size)
    cdef const double* entries
    cdef double* chance = room.states
    for row in range(n_rows - 1, -1, -1):
        if look_at_row(job, row):
            return
        memcpy(chance, job.q + (first + row) * n, n * sizeof(double))
        if row + 1 < n_rows:
            for j in range(0, n, 8):
                entries = job.backward + place_of(job, after, j)
                for k in range(min(8, n - j)):
                    chance[j + k] *= entries[k]
        after = draw_state(job, first + row, chance, statistics)
        job.labels[first + row] = after
    count_path(job, first, n_rows, statistics)


cdef inline void best_ways(
    Job* job, const double* best, double* arrived, double* origins
) noexcept nogil:
    """arrived[j] = max_i best[i] + log A[i, j], and the first i that reaches it."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef const lanes* entries
    cdef lanes high, origin, x
    cdef Py_ssize_t i, j
    for j in range(job.columns // LANES):
        if look_within(job, j):
            return
        entries = strip(job, job.log_forward, j)
        high = lanes_set(best[0]) + entries[0]
        origin = lanes_set(0.0)
        for i in range(1, n):
            x = lanes_set(best[i]) + entries[i * VECTORS]
            origin = lanes_replace_above(origin, lanes_set(i), x, high)
            high = lanes_max(x, high)
        (<lanes*>arrived)[j] = high
        (<lanes*>origins)[j] = origin


cdef bint find_best(
    Job* job, Py_ssize_t s, double* statistics, double* memory
) noexcept nogil:
    """The most likely states of a sequence (Viterbi); among equals the first ones.

    Returns whether it was found; statistics[0] += log p(rows, states).
    """
    cdef Py_ssize_t first = job.bounds[s]
    cdef Py_ssize_t n_rows = job.bounds[s + 1] - first
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t columns = job.columns
    cdef Py_ssize_t size, i, j, k, row
    cdef Room room = room_at(job, memory, &size)
    cdef uint16_t* origins = <uint16_t*>malloc(<size_t>(n_rows * n) * sizeof(uint16_t))
    # Logarithms of the best ways' probabilities, less `total`.
    cdef double* best = room.states
    cdef double* arrived = room.beta
    cdef double* from_ = room.arriving
    cdef double* scores = room.span
    cdef double high
    cdef double total = 0.0
    cdef int64_t state
    cdef bint found
    if origins == NULL:
        job.no_memory = 1
        return False
    for row in range(n_rows):
        if row % job.tile_rows == 0:
            log_scores(
                job, &room, first + row, min(job.tile_rows, n_rows - row), room.span
            )
            scores = room.span
        if look_at_row(job, row):
            break
        if row == 0:
            memcpy(arrived, job.log_start, columns * sizeof(double))
        elif job.alike:
            # As where a fit starts.
            i = first_largest(n, best)
            for j in range(n):
                arrived[j] = best[i] + job.log_forward[place_of(job, 0, j)]
                from_[j] = i
        else:
            best_ways(job, best, arrived, from_)
        for j in range(columns // LANES):
            (<lanes*>best)[j] = (<lanes*>arrived)[j] + (<lanes*>scores)[j]
        if not fabs(best[first_largest(n, best)]) < MOST_NATS:
            if not weigh_row(job, arrived, scores, &high):
                give_up(job, s, first + row, statistics)
                break
            total += high
            high = scores[first_largest(n, scores)]
            total += high
            for k in range(n):
                best[k] = scores[k] - high
        if row > 0:
            for k in range(n):
                origins[row * n + k] = <uint16_t>from_[k]
        scores += columns
    found = job.impossible[s] < 0 and not job.watch.stop
    if found:
        state = first_largest(n, best)
        statistics[0] += total + best[state]
        for row in range(n_rows - 1, -1, -1):
            job.labels[first + row] = state
            if row > 0:
                state = origins[row * n + state]
            if row % 65536 == 0:
                halted(&job.watch)
    free(origins)
    return found


cdef void visit_hard(
    Job* job, Py_ssize_t item, double* statistics, double* memory
) noexcept nogil:
    cdef Py_ssize_t s = job.sequences[item]
    if find_best(job, s, statistics, memory):
        count_path(job, job.bounds[s], job.bounds[s + 1] - job.bounds[s], statistics)


# Coordinate ascent --------------------------------------------------------------------------------


cdef inline void expect(
    Job* job, const double* matrix, const double* q, double* out
) noexcept nogil:
    """out[j] = sum_i q[i] matrix[i, j] with 0 * -inf = 0."""
    cdef const lanes* entries
    cdef lanes s
    cdef Py_ssize_t i, j
    for j in range(job.columns // LANES):
        if look_within(job, j):
            return
        entries = strip(job, matrix, j)
        s = lanes_set(0.0)
        for i in range(job.shape.n_components):
            if q[i] > 0.0:
                s = s + lanes_set(q[i]) * entries[i * VECTORS]
        (<lanes*>out)[j] = s


cdef void ascend(
    Job* job, const double* score, Py_ssize_t n_rows, Py_ssize_t row, double* q,
    double* field, double* before, double* after,
) noexcept nogil:
    """q of one row given its neighbours': Bishop 10.9."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t k
    cdef double level
    cdef double high = -INFINITY
    cdef lanes total = lanes_set(0.0)
    cdef lanes* vectors = <lanes*>field
    if row > 0:
        expect(job, job.log_forward, q + (row - 1) * n, before)
    else:
        memcpy(before, job.log_start, n * sizeof(double))
    if row + 1 < n_rows:
        expect(job, job.log_backward, q + (row + 1) * n, after)
    else:
        memset(after, 0, n * sizeof(double))
    for k in range(n):
        field[k] = score[row * job.columns + k]
        before[k] += after[k]
    if not weigh_row(job, before, field, &level):
        return
    for k in range(n):
        high = max(high, field[k])
    for k in range(n, job.columns):
        field[k] = -INFINITY
    for k in range(job.columns // LANES):
        vectors[k] = lanes_exp(vectors[k] - lanes_set(high))
        total = total + vectors[k]
    level = 1.0 / lanes_sum(total)
    for k in range(n):
        q[row * n + k] = field[k] * level


cdef double take_levels(
    Job* job, const double* q, Py_ssize_t n_rows, double* score
) noexcept nogil:
    """Take each row's best score of those that count from all, so that nothing is rounded away.

    Returns their sum. A row that is too far away is left with scores of 0.
    """
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t k, row
    cdef double level
    cdef double total = 0.0
    for row in range(n_rows):
        if look_at_row(job, row):
            break
        level = -INFINITY
        for k in range(n):
            if q[k] > 0.0:
                level = max(level, score[k])
        if level > -INFINITY:
            for k in range(n):
                score[k] -= level
            total += level
        elif not job.may_be_impossible:
            memset(score, 0, n * sizeof(double))
            total = -INFINITY
        q += n
        score += job.columns
    return total


cdef double free_energy(
    Job* job, const double* score, Py_ssize_t n_rows, const double* q, double* before
) noexcept nogil:
    """<log p(X, T)> - <log q(T)>, with 0 * -inf = 0."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t k, row
    cdef double x
    cdef double total = 0.0
    memcpy(before, job.log_start, n * sizeof(double))
    for row in range(n_rows):
        if row > 0:
            expect(job, job.log_forward, q + (row - 1) * n, before)
        if look_at_row(job, row):
            break
        for k in range(n):
            x = q[row * n + k]
            if x > 0.0:
                total += x * (score[row * job.columns + k] + before[k] - log(x))
    return total


cdef void visit_factorised(
    Job* job, Py_ssize_t item, double* statistics, double* memory
) noexcept nogil:
    """Maximise the free energy over q(T) = prod_t q_t of a sequence, even rows, then odd ones.

    From the last q(T) where it is remembered; else from the exact marginals, or, where they might
    contradict one another, from the most likely states.
    """
    cdef Py_ssize_t s = job.sequences[item]
    cdef Py_ssize_t first = job.bounds[s]
    cdef Py_ssize_t n_rows = job.bounds[s + 1] - first
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t size, i, j, parity, row
    cdef Room room = room_at(job, memory, &size)
    cdef double* q = job.q + first * n
    cdef double* score
    cdef double* transitions = statistics + 1 + 2 * n
    cdef double energy = -INFINITY
    cdef double levels, previous
    if not job.dense and not job.remembered:
        if not find_best(job, s, &energy, memory):
            statistics[0] += energy
            return
        for row in range(n_rows):
            for j in range(n):
                q[row * n + j] = 1.0 if j == job.labels[first + row] else 0.0
    if job.impossible[s] >= 0:
        return
    score = rows_of_states(job, n_rows)
    if score == NULL:
        return
    log_scores(job, &room, first, n_rows, score)
    levels = take_levels(job, q, n_rows, score)
    energy = free_energy(job, score, n_rows, q, room.limits)
    for _ in range(MOST_ROUNDS):
        for parity in range(2):
            for row in range(parity, n_rows, 2):
                ascend(
                    job, score, n_rows, row, q, room.limits, room.states,
                    room.states + job.columns,
                )
                if look_at_row(job, row - parity):
                    break
        previous = energy
        energy = free_energy(job, score, n_rows, q, room.limits)
        if job.watch.stop or (
            fabs(energy - previous) < SETTLED * fabs(energy) + SETTLED_ROW * n_rows
        ):
            break
    free_aligned(score)
    statistics[0] += levels + energy
    for i in range(n):
        statistics[1 + n + i] += q[i]
    for row in range(1, n_rows):
        if look_at_row(job, row):
            return
        for i in range(n):
            for j in range(n):
                transitions[i * n + j] += q[(row - 1) * n + i] * q[row * n + j]


# Counting rows whose q is known -------------------------------------------------------------------


cdef void visit_range(
    Job* job, Py_ssize_t item, double* statistics, double* memory
) noexcept nogil:
    """What a range of rows brings to counts and to the emission's statistics."""
    cdef Py_ssize_t first = job.ranges[2 * item]
    cdef Py_ssize_t end = job.ranges[2 * item + 1]
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t size, k, n_tile, n_used, row
    cdef Room room = room_at(job, memory, &size)
    cdef double* q
    while first < end and not job.watch.stop:
        n_tile = min(job.tile_rows, end - first)
        n_used = (n_tile + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
        read_tile(
            job.source, job.shape.n_features, first, n_tile, n_used, job.stride, room.tile
        )
        for k in range(n):
            q = room.q + k * job.stride
            if job.by_labels:
                for row in range(n_tile):
                    q[row] = 1.0 if job.labels[first + row] == k else 0.0
            else:
                for row in range(n_tile):
                    q[row] = job.q[(first + row) * n + k]
            for row in range(n_tile, n_used):
                q[row] = 0.0
        count_rows(job, &room, n_used, statistics)
        first += n_tile
        halted(&job.watch)


# All sequences ------------------------------------------------------------------------------------


ctypedef void (*Step)(Job*, Py_ssize_t, double*, double*) noexcept nogil


cdef void take(Job* job, Step step, const Task* task, Py_ssize_t place) noexcept nogil:
    cdef double* statistics = job.partials + place * job.statistics_size
    cdef Py_ssize_t item = task.first
    clear(statistics, job.statistics_size * sizeof(double), &job.watch)
    while item < task.end and not job.watch.stop:
        step(job, item, statistics, job.workspace + thread_index() * job.room_size)
        item += task.step


cdef struct Queue:
    const Task* tasks
    Py_ssize_t n_tasks
    Py_ssize_t taken
    Py_ssize_t done


cdef void work(Job* job, Step step, Queue* queue) noexcept nogil:
    """Take tasks while there are any.

    The thread that called then waits here for the others, for it alone can look for Ctrl-C.
    """
    cdef Py_ssize_t place = add_one(&queue.taken)
    while place < queue.n_tasks:
        take(job, step, queue.tasks + place, place)
        add_one(&queue.done)
        place = add_one(&queue.taken)
    if thread_index() == 0:
        wait_for(&queue.done, queue.n_tasks, &job.watch)


cdef int drive(
    Job* job, Step step, const Task* tasks, Py_ssize_t n_tasks, Py_ssize_t most, int n_threads,
    double* totals,
) except -1:
    """Take all tasks, `most` at a time, and add up what they bring in their order, if wanted."""
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t i, end, task
    cdef int _thread
    cdef int most_threads = n_threads
    cdef Queue queue
    cdef double* partial
    while first < n_tasks:
        end = min(first + most, n_tasks)
        # The bundles of a sequence, which fails or doesn't, are taken together.
        while end < n_tasks and tasks[end].sequence >= 0 and end - 1 > first and (
            tasks[end].sequence == tasks[end - 1].sequence
        ):
            end -= 1
        queue.tasks = tasks + first
        queue.n_tasks = end - first
        queue.taken = 0
        queue.done = 0
        n_threads = granted(<int>min(<Py_ssize_t>most_threads, queue.n_tasks))
        with nogil:
            if n_threads == 1:
                work(job, step, &queue)
            else:
                for _thread in prange(
                    n_threads, schedule="static", chunksize=1, num_threads=n_threads
                ):
                    work(job, step, &queue)
        if job.watch.stop:
            raise_pending()
        if job.no_memory:
            raise MemoryError("no memory for the recursions over a sequence")
        for task in range(first, end):
            if tasks[task].sequence >= 0:
                check_edges(job, tasks + task)
        for task in range(first, end):
            halted(&job.watch)
            raise_pending()
            if totals == NULL or tasks[task].sequence >= 0 and job.failed[tasks[task].sequence]:
                continue
            partial = job.partials + (task - first) * job.statistics_size
            for i in range(job.statistics_size):
                totals[i] += partial[i]
        first = end
    return 0


cdef int drive_each(
    Job* job, Step step, Py_ssize_t n_items, Py_ssize_t most, int n_threads, double* totals
) except -1:
    """Deal out items, longest first, to as many tasks as are taken at a time."""
    cdef Task[MOST_TASKS] tasks
    cdef Py_ssize_t n_tasks = min(n_items, most)
    cdef Py_ssize_t task
    for task in range(n_tasks):
        tasks[task].first = task
        tasks[task].end = n_items
        tasks[task].step = n_tasks
        tasks[task].sequence = -1
    return drive(job, step, tasks, n_tasks, most, n_threads, totals)


cdef Py_ssize_t plan(const Job* job, Bundle* bundles) noexcept nogil:
    """Put sequences side by side, by their length, and cut long ones; returns how many bundles."""
    cdef Py_ssize_t steps = max(STEPS, STATES // job.shape.n_components)
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t place = 0
    cdef Py_ssize_t i, n, s, length, together
    while place < job.n_sequences:
        s = job.order[place]
        length = job.bounds[s + 1] - job.bounds[s]
        together = 0
        for i in range(place, min(place + BUNDLE, job.n_sequences)):
            together += job.bounds[job.order[i] + 1] - job.bounds[job.order[i]]
        if length > 2 * steps or length >= LONG and together < BUNDLE // 2 * length:
            n = (length + BUNDLE * steps - 1) // (BUNDLE * steps)
            if bundles != NULL:
                for i in range(n):
                    cut(job, s, i, n, bundles + count + i)
            count += n
            place += 1
            continue
        if bundles != NULL:
            memset(bundles + count, 0, sizeof(Bundle))
            for i in range(min(BUNDLE, job.n_sequences - place)):
                s = job.order[place + i]
                bundles[count].sequence[i] = s
                bundles[count].first[i] = job.bounds[s]
                bundles[count].length[i] = job.bounds[s + 1] - job.bounds[s]
        count += 1
        place += BUNDLE
    return count


cdef void cut(
    const Job* job, Py_ssize_t s, Py_ssize_t part, Py_ssize_t n, Bundle* bundle
) noexcept nogil:
    """Make a bundle of one of a sequence's n parts, which it cuts into BUNDLE parts again."""
    cdef Py_ssize_t length = job.bounds[s + 1] - job.bounds[s]
    # The first ones are a row longer.
    cdef Py_ssize_t spans = n * BUNDLE
    cdef Py_ssize_t i, j
    for i in range(BUNDLE):
        j = part * BUNDLE + i
        bundle.sequence[i] = s
        bundle.first[i] = job.bounds[s] + j * (length // spans) + min(j, length % spans)
        bundle.length[i] = length // spans + (j < length % spans)
    bundle.cut = True
    bundle.opens = part == 0
    bundle.closes = part == n - 1
    bundle.edges = NULL


cdef Py_ssize_t share_out(
    const Job* job, Py_ssize_t n_bundles, Py_ssize_t most, Task* tasks
) noexcept nogil:
    """Tasks of the bundles of a sequence, or of as many that hold whole sequences."""
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t end, i, n
    while first < n_bundles:
        end = first + 1
        while end < n_bundles and job.bundles[end].cut == job.bundles[first].cut and (
            not job.bundles[first].cut
            or job.bundles[end].sequence[0] == job.bundles[first].sequence[0]
        ):
            end += 1
        n = (end - first + most - 1) // most
        for i in range(first, end, 1):
            if (i - first) % n == 0:
                if tasks != NULL:
                    tasks[count].first = i
                    tasks[count].end = min(i + n, end)
                    tasks[count].step = 1
                    tasks[count].sequence = (
                        job.bundles[i].sequence[0] if job.bundles[i].cut else -1
                    )
                count += 1
        first = end
    return count


def statistics_size(
    emission, Py_ssize_t n_components, Py_ssize_t n_features, Py_ssize_t n_categories=0
):
    """Length of the statistics that `visit` fills.

    log_z, counts (K), start (K), transitions (K, K), the emission's own.
    """
    cdef const Emission* of
    cdef Shape shape
    cdef const Py_ssize_t* columns
    cdef bytes _held = read_emission(
        EMISSIONS, emission, n_components, n_features, n_categories, &of, &shape, &columns
    )
    return head_size(n_components) + of.statistics_size(shape)


cdef int read_theta(Job* job, const double* latent, double* memory) except -1:
    """Lay out start and transitions, and their logarithms, at memory."""
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t columns = job.columns
    cdef Py_ssize_t i, j, other, place
    cdef double x, logarithm
    job.forward = memory
    job.backward = job.forward + n * columns
    job.log_forward = job.backward + n * columns
    job.log_backward = job.log_forward + n * columns
    job.log_start = job.log_backward + n * columns
    job.start = job.log_start + columns
    clear(job.forward, 2 * n * columns * sizeof(double), &job.watch)
    for i in range(2 * n + 1):
        for j in range(columns):
            job.log_forward[i * columns + j] = -INFINITY
        if job.wide:
            check_signals(&job.watch)
    raise_pending()
    job.dense = True
    job.mild = True
    job.alike = True
    for i in range(n + 1):
        for j in range(n):
            x = latent[i * n + j]
            if not 0.0 <= x <= 1.0 + 1e-9:
                raise ValueError(f"latent[{i * n + j}] is {x}; it must be >= 0 and <= 1")
            job.dense = job.dense and x >= LEAST_TRANSITION
            job.mild = job.mild and (x >= LEAST_TRANSITION or x == 0.0)
            logarithm = log(x) if x > 0.0 else -INFINITY
            if i == 0:
                job.start[j] = x
                job.log_start[j] = logarithm
                continue
            place, other = place_of(job, i - 1, j), place_of(job, j, i - 1)
            job.forward[place] = x
            job.backward[other] = x
            job.log_forward[place] = logarithm
            job.log_backward[other] = logarithm
            job.alike = job.alike and x == job.forward[place_of(job, 0, j)]
        if i % job.between == 0:
            check_signals(&job.watch)
            raise_pending()
    # Where all states follow one another nothing that underflows is missed.
    job.least = 0.0 if job.dense else LEAST
    return 0


def visit(
    block, theta, assignment, *, statistics=None, log_z=None, labels=None, q=None,
):
    """Assign the rows of a block's sequences to states and add up what they bring.

    Parameters
    ----------
    block, theta, assignment : IN, as in inputs.py
        theta.latent is start (K,) and transitions (K, K), from row to column, one after the other:
        0 <= x <= 1, sums needn't be 1. Kinds are "exact", "filter", "hard", "draw", "factorised"
        and "given"; rows have no weights.
    statistics : OUT, (statistics_size,), not with "filter"
        log_z, counts (K), start (K), transitions (K, K), then the emission's. log_z is
        log p(X | theta) with "exact", log p(X, T | theta) with "hard" and "draw", the free energy
        with "factorised", 0 with "given".
    log_z : OUT, (N,), with "exact" and "filter"
        log p(row | rows of its sequence before it, theta).
    labels : OUT, (N,), with "exact", "filter", "hard" and "draw"
        The state of largest q (the first one among equals), or on the path.
    q : OUT, (N, K), with "exact", "filter" and "factorised"

    With "factorised" and no q, block.memory, (N, K), is IN/OUT where it is not None: the last q(T),
    or NaN where there is none yet.

    Returns
    -------
    impossible : int
        -1, or the first row of the block that has probability 0 given the rows before it: log_z is
        then -inf from there to the end of its sequence, and in all. Rows of other sequences are
        visited all the same. Unless theta.may_be_impossible such a row is too far away for
        float64 numbers: log_z is -inf there and in all, and it tells nothing of its state.

    Raises
    ------
    ValueError, TypeError
        If an argument has another length or type, is out of range or doesn't go with the kind.
    MemoryError
    """
    cdef Job job
    cdef Py_buffer view
    cdef Doubles coefficients, offsets, origin
    # So that they stay where they are.
    cdef tuple held = (
        theta.coefficients, theta.offsets, theta.latent, block.origin, block.scale, block.labels,
        block.memory,
    )
    cdef const double* latent
    cdef const Py_ssize_t* columns
    cdef double* sums = NULL
    cdef bytes _held  # what bounds and order are in
    cdef bytes _parts  # what the shape's parts and columns are in
    cdef int n_threads = threads_for(block.n_threads, MOST_TASKS)
    cdef Py_ssize_t n, i
    cdef Memory memory = Memory()
    cdef double* totals

    memset(&job, 0, sizeof(Job))
    kind = assignment.kind
    read_assignment(assignment, KINDS, &job.assignment)
    for name, out, kinds in (
        ("statistics", statistics, ("exact", "hard", "draw", "factorised", "given")),
        ("log_z", log_z, ("exact", "filter")),
        ("labels", labels, ("exact", "filter", "hard", "draw")),
        ("q", q, ("exact", "filter", "factorised")),
    ):
        if out is not None and kind not in kinds:
            raise ValueError(f"{name} goes with {', '.join(kinds)}, not with {kind!r}")
    if block.weights is not None:
        raise ValueError("rows of a sequence have no weights: block.weights must be None")
    if held[2] is None:
        raise ValueError("theta.latent must hold start and transition probabilities, not None")
    look_into("coefficients", held[0], &coefficients)
    look_into("offsets", held[1], &offsets)
    look_into("origin", held[3], &origin)
    if offsets.ndim != 1:
        raise ValueError(f"offsets must be (K,), not {shape_told(&offsets)}")
    n = offsets.size
    if n > MOST_STATES:
        raise ValueError(f"offsets has length {n}; at most {MOST_STATES} states are allowed")
    _parts = read_emission(
        EMISSIONS, theta.emission, n, origin.size, theta.n_categories, &job.emission, &job.shape,
        &columns,
    )
    latent = doubles("latent", held[2], n + n * n)
    job.may_be_impossible = theta.may_be_impossible
    check_length("coefficients", coefficients.size, job.emission.coefficients_size(job.shape))
    job.source.origin = origin.data
    job.source.scale = doubles("scale", held[4], origin.size)
    job.coefficients = coefficients.data
    job.offsets = offsets.data
    job.columns = lines(n)
    job.first_row = block.first_row
    check_least("first_row", job.first_row, 0)
    job.between = MOST_BETWEEN
    while job.between > 1 and job.between * n * n > 2097152:
        job.between //= 2
    job.wide = n > 2048
    job.watch = watch_from_now()
    job.counting = statistics is not None
    job.statistics_size = (
        head_size(n) + job.emission.statistics_size(job.shape) if job.counting else head_size(n)
    )
    open_rows(block.values, &view, &job.source)
    try:
        job.source.columns = columns
        job.n_rows = view.shape[0]
        check_length("a row of values", view.shape[1], origin.size)
        _held = read_sequences(
            block.sequences, job.n_rows, &job.bounds, &job.order, &job.n_sequences
        )
        # So that no product of rows and states overflows, wherever it stands.
        times(times(job.n_rows, job.columns), sizeof(Bundle))
        job.failed = <char*>memory.zeros(job.n_sequences, &job.watch)
        if statistics is not None:
            sums = doubles("statistics", statistics, job.statistics_size, True)
        if log_z is not None:
            job.log_z = doubles("log_z", log_z, job.n_rows, True)
        if labels is not None:
            job.labels = integers("labels", labels, job.n_rows, True)
        if q is not None:
            job.q = doubles_of("q", q, job.n_rows, n, True)
        _labels = read_labels(held[5], job.n_rows, n, job.assignment.kind == GIVEN, &job.known)
        if job.known != NULL:
            job.may_be_impossible = True
        if job.assignment.kind == GIVEN:
            job.labels = <int64_t*>memory.take(job.n_rows * sizeof(int64_t))
            memcpy(job.labels, job.known, job.n_rows * sizeof(int64_t))
            job.known = NULL
        read_theta(
            &job, latent, <double*>memory.take((4 * n + 2) * times(job.columns, sizeof(double)))
        )
        if job.n_rows == 0:
            if sums != NULL:
                memset(sums, 0, job.statistics_size * sizeof(double))
            return -1
        if job.assignment.kind == FACTORISED and q is None and held[6] is not None:
            job.q = doubles_of("memory", held[6], job.n_rows, n, True)
            job.remembered = not isnan(job.q[0])
        totals = <double*>memory.zeros(
            job.statistics_size * sizeof(double), &job.watch
        )
        if job.n_rows * (n * n + coefficients.size) < LITTLE_WORK:
            n_threads = 1
        visit_all(&job, memory, n_threads, totals)
        i = find_impossible(&job)
        if sums != NULL:
            memcpy(sums, totals, job.statistics_size * sizeof(double))
            if i >= 0:
                sums[0] = -INFINITY
        return i
    finally:
        PyBuffer_Release(&view)


cdef Py_ssize_t find_impossible(const Job* job) noexcept nogil:
    cdef Py_ssize_t s
    for s in range(job.n_sequences):
        if job.impossible[s] >= 0:
            return job.impossible[s]
    return -1


cdef class Memory:
    """What is allocated during a visit, and freed with it."""

    cdef list blocks

    def __cinit__(self):
        self.blocks = []

    def __dealloc__(self):
        cdef size_t block
        for held in self.blocks:
            block = held
            free_aligned(<void*>block)

    cdef void* take(self, Py_ssize_t size) except NULL:
        cdef void* block = aligned_memory(max(size, 64))
        if block == NULL:
            raise MemoryError(f"no {size} bytes for the recursions over sequences")
        self.blocks.append(<size_t>block)
        return block

    cdef void* zeros(self, Py_ssize_t size, Watch* watch) except NULL:
        cdef void* block = self.take(size)
        clear(block, size, watch)
        raise_pending()
        return block


cdef int visit_all(Job* job, Memory memory, int n_threads, double* totals) except -1:
    """The passes over the rows that an assignment takes."""
    cdef Kind kind = job.assignment.kind
    cdef Py_ssize_t n = job.shape.n_components
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t n_bundles = 0
    cdef Py_ssize_t i, n_ranges, n_tasks, s, most
    cdef bint in_bundles = kind == EXACT or kind == FILTER or kind == DRAW or (
        kind == FACTORISED and job.dense and not job.remembered
    )
    cdef Task* tasks
    cdef Py_ssize_t* sequences
    cdef Py_ssize_t* ranges
    cdef double* edges
    cdef bint counting = job.counting
    # Each task adds up for itself: as many as chunks of a mixture's rows.
    most = max(8, min(MOST_TASKS, 2097152 // job.statistics_size))
    job.tile_rows = rows_of_tile(job.shape.n_features)
    job.most_steps = 1
    job.impossible = <int64_t*>memory.take(job.n_sequences * sizeof(int64_t))
    sequences = <Py_ssize_t*>memory.take(job.n_sequences * sizeof(Py_ssize_t))
    for s in range(job.n_sequences):
        job.impossible[s] = -1
        sequences[s] = job.order[s]
    job.sequences = sequences
    if in_bundles and job.mild:
        n_bundles = plan(job, NULL)
        job.bundles = <Bundle*>memory.take(times(n_bundles, sizeof(Bundle)))
        plan(job, job.bundles)
        count = 0
        for i in range(n_bundles):
            job.most_steps = max(job.most_steps, job.bundles[i].length[0])
            count += job.bundles[i].cut
        edges = <double*>memory.take(times(count, N_EDGES * n * sizeof(double)))
        for i in range(n_bundles):
            if job.bundles[i].cut:
                job.bundles[i].edges = edges
                edges += N_EDGES * n
    elif in_bundles:
        memset(job.failed, 1, job.n_sequences)
    job.tile_rows = min(
        job.tile_rows,
        (max(
            job.most_steps * BUNDLE, job.bounds[job.order[0] + 1] - job.bounds[job.order[0]]
        ) + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK,
    )
    job.stride = stride_of(job.tile_rows)
    room_at(job, NULL, &job.room_size)
    # What is padding is never written, and must not be slow to compute with.
    job.workspace = <double*>memory.zeros(
        times(n_threads, job.room_size * sizeof(double)), &job.watch
    )
    job.partials = <double*>memory.take(times(most, job.statistics_size * sizeof(double)))
    if (kind == DRAW or kind == FACTORISED) and job.q == NULL:
        job.q = <double*>memory.take(times(job.n_rows, n * sizeof(double)))
    if (kind == HARD or kind == DRAW or kind == FACTORISED and not job.dense) and (
        job.labels == NULL
    ):
        job.labels = <int64_t*>memory.take(times(job.n_rows, sizeof(int64_t)))
    job.by_labels = kind == HARD or kind == DRAW or kind == GIVEN

    if kind == FACTORISED:
        job.counting = False
    if n_bundles:
        n_tasks = share_out(job, n_bundles, most, NULL)
        tasks = <Task*>memory.take(times(n_tasks, sizeof(Task)))
        share_out(job, n_bundles, most, tasks)
        drive(
            job, visit_bundle, tasks, n_tasks, most, n_threads,
            NULL if kind == FACTORISED else totals,
        )
    if in_bundles:
        count = pick(job, sequences, 1)
        if count and counting and job.q == NULL and kind == EXACT:
            job.q = <double*>memory.take(times(job.n_rows, n * sizeof(double)))
        drive_each(
            job, visit_failed, count, most, n_threads, NULL if kind == FACTORISED else totals
        )
    job.counting = counting
    if kind == DRAW:
        drive_each(job, visit_drawn, pick(job, sequences, 0), most, n_threads, totals)
    elif kind == HARD:
        drive_each(job, visit_hard, job.n_sequences, most, n_threads, totals)
    elif kind == GIVEN:
        drive_each(job, visit_given, job.n_sequences, most, n_threads, totals)
    elif kind == FACTORISED:
        for s in range(job.n_sequences):
            sequences[s] = job.order[s]
        drive_each(job, visit_factorised, job.n_sequences, most, n_threads, totals)
    if not counting:
        return 0

    # What bundles have not counted.
    if kind == EXACT:
        ranges = <Py_ssize_t*>memory.take(times(count, 2 * sizeof(Py_ssize_t)))
        n_ranges = count
        for i in range(count):
            ranges[2 * i] = job.bounds[sequences[i]]
            ranges[2 * i + 1] = job.bounds[sequences[i] + 1]
    else:
        s = rows_of_chunk(job.n_rows, job.tile_rows, job.statistics_size)
        n_ranges = (job.n_rows + s - 1) // s
        ranges = <Py_ssize_t*>memory.take(times(n_ranges, 2 * sizeof(Py_ssize_t)))
        for i in range(n_ranges):
            ranges[2 * i] = i * s
            ranges[2 * i + 1] = min((i + 1) * s, job.n_rows)
    job.ranges = ranges
    drive_each(job, visit_range, n_ranges, most, n_threads, totals)
    return 0


cdef Py_ssize_t pick(
    const Job* job, Py_ssize_t* sequences, char failed
) noexcept nogil:
    """Find the sequences that failed or didn't, longest first."""
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    for i in range(job.n_sequences):
        if job.failed[job.order[i]] == failed:
            sequences[count] = job.order[i]
            count += 1
    return count
