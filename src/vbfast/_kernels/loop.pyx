# Whole fits of small data sets without Python: each on one thread, as many at a time as there are
# threads. The loop is that of methods.py: read theta, assign T, add up.
#
# A fit is a list of problems. What a problem's result depends on is its own data, prior, start and
# seed alone, so that it has the same bits for every number of threads. The threads meet every
# SLICE seconds, for the calling one to look for Ctrl-C; a problem that isn't done then goes on
# from its posterior.

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBuffer_Release
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.math cimport INFINITY, fabs, isfinite, log, sqrt
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset, strcmp

from .arrays cimport open_array
from .assign cimport (
    DRAW,
    EXACT,
    FACTORISED,
    GIVEN,
    HARD,
    Assignment,
    add_counts,
    assign_block,
    assignment_size,
)
from .conjugate cimport (
    DIAG,
    FULL,
    SPHERICAL,
    TIED,
    Constants,
    CovarianceType,
    Family,
    Fields,
    Theta,
    add,
    add_terms_of_weights,
    choose_reference,
    collect,
    constants_of,
    density_terms,
    divergence,
    divergence_of_weights,
    draw,
    family_of,
    fields_at,
    fields_size,
    find_log_det,
    has_matrices,
    log_prior,
    mean_of_weights,
    mode_of_weights,
    read_mean,
    read_mode,
    rounding_of,
    theta_at,
    theta_size,
    write_coefficients,
    write_offsets,
)
from .cpu cimport granted, threads_for
from .random cimport Stream, stream_of, uniform
from .tile cimport (
    LANES,
    ROW_BLOCK,
    SCORES_PADDING,
    TILE_PADDING,
    Emission,
    Shape,
    Source,
    aligned_memory,
    fours,
    free_aligned,
    lanes,
    lanes_keep_from,
    lanes_max,
    lanes_min,
    lanes_set,
    lanes_sum,
    lines,
    read_tile,
    rows_of_tile,
    seconds,
    stride_of,
    thread_index,
)
from .stopping cimport Stopping as Rule
from .stopping cimport settled, stopping_of, went_ahead
from .visit cimport (
    check_least,
    check_whole,
    emission_of,
    open_rows,
    read_assignment,
    shape_of,
    times,
)

import numpy as np


# Seconds after which threads meet.
cdef double SLICE = 0.05
# Weights from which on a row counts in the objective.
cdef double PRESENT = 1e-300
# An objective may fall by this share of itself.
cdef double ROUNDING = 1e-10
cdef double ROUNDING_OF_CONSTANTS = 1e-14
# Gains of a smaller share of the objective are rounding.
cdef double LEAST_SHARE = 1e-12
# See data.py.
cdef double NARROWEST = 1e-151
cdef double WIDEST = 1e152
# See starts.py.
cdef Py_ssize_t KMEANS_SWEEPS = 10
cdef double KMEANS_TOL = 1e-4
# Squared distance before there is a centroid: weights times it are numbers.
cdef double FARTHEST = 1e200

# Emissions by name: filled in when the level is loaded.
EMISSIONS = {}
FAMILIES = {"full": FULL, "tied": TIED, "diag": DIAG, "spherical": SPHERICAL}
KINDS = ("exact", "factorised", "best", "hard", "draw")


cdef enum Read:
    MODE = 0
    MEAN = 1
    SAMPLE = 2


READS = {"mode": MODE, "mean": MEAN, "sample": SAMPLE}


cdef enum Init:
    RANDOM = 0
    FROM_DATA = 1
    PLUS_PLUS = 2
    KMEANS = 3
    LABELLED = 4


INITS = {
    "random": RANDOM, "random_from_data": FROM_DATA, "k-means++": PLUS_PLUS, "kmeans": KMEANS,
    "labels": LABELLED,
}


# How a problem ended.
cdef enum Status:
    RUNNING = 0
    CONVERGED = 1
    STOPPED = 2
    DEGENERATE = 3
    NO_MEMORY = 4


cdef int choose(str name, dict choices, object chosen) except -1:
    if chosen not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {chosen!r}")
    return choices[chosen]


cdef int check_shape(str name, tuple shape, tuple expected) except -1:
    if shape != expected:
        raise ValueError(f"{name} has shape {shape}, not {expected}")
    return 0


# Data ---------------------------------------------------------------------------------------------


cdef class Rows:
    """The rows of every problem, held while this lives, and the frames that they are read in.

    Parameters
    ----------
    values : list of ndarray of shape (N, D)
        float64 or float32, of any strides; N of any size, the same D.
        One row and one feature at least.
    weights : list of ndarray of shape (N,), optional

    Attributes
    ----------
    origin, scale, variance : ndarray of shape (problem, D)
        As in data.py's Frame; to be set or found before the rows are used.
    """

    cdef readonly Py_ssize_t n_problems
    cdef readonly Py_ssize_t n_features
    cdef Py_ssize_t longest
    cdef Py_ssize_t n_views
    cdef Py_buffer* views
    cdef Source* sources
    cdef Py_ssize_t* n_rows
    cdef const double** weights
    cdef readonly object origin
    cdef readonly object scale
    cdef readonly object variance
    cdef double[:, ::1] origins
    cdef double[:, ::1] scales
    cdef double[:, ::1] variances

    def __cinit__(self, list values, list weights=None):
        cdef Py_ssize_t n = len(values)
        cdef Py_ssize_t p
        cdef Py_buffer* view
        if weights is not None:
            check_shape("weights", (len(weights),), (n,))
        self.n_problems = n
        self.views = <Py_buffer*>calloc(2 * n, sizeof(Py_buffer))
        self.sources = <Source*>calloc(n, sizeof(Source))
        self.n_rows = <Py_ssize_t*>calloc(n, sizeof(Py_ssize_t))
        self.weights = <const double**>calloc(n, sizeof(double*))
        if not (self.views and self.sources and self.n_rows and self.weights):
            raise MemoryError(f"no memory for {n} data sets")
        for p in range(n):
            view = self.views + self.n_views
            open_rows(values[p], view, self.sources + p)
            self.n_views += 1
            if p == 0:
                self.n_features = view.shape[1]
            check_shape("a row of values", (view.shape[1],), (self.n_features,))
            check_least("the number of rows", view.shape[0], 1)
            self.n_rows[p] = view.shape[0]
            self.longest = max(self.longest, view.shape[0])
            if weights is None:
                continue
            view = self.views + self.n_views
            allowed = "contiguous one-dimensional float64"
            open_array("weights", weights[p], PyBUF_C_CONTIGUOUS, allowed, view)
            self.n_views += 1
            if view.ndim != 1 or view.format == NULL or strcmp(view.format, "d") != 0:
                raise TypeError(f"weights must be {allowed}")
            check_shape("weights", (view.shape[0],), (self.n_rows[p],))
            self.weights[p] = <const double*>view.buf

    def __dealloc__(self):
        cdef Py_ssize_t view
        for view in range(self.n_views):
            PyBuffer_Release(self.views + view)
        free(self.views)
        free(self.sources)
        free(self.n_rows)
        free(self.weights)

    def set_frames(self, origin, scale, variance):
        """Let rows be read as (x - origin) * scale, each (problem, D)."""
        cdef Py_ssize_t p
        cdef double[:, ::1] origins, scales, variances
        for name, value in (("origin", origin), ("scale", scale), ("variance", variance)):
            if value is None:
                raise TypeError(f"{name} must be (problem, D), not None")
            check_shape(name, value.shape, (self.n_problems, self.n_features))
        origins, scales, variances = origin, scale, variance
        self.origin, self.scale, self.variance = origin, scale, variance
        self.origins, self.scales, self.variances = origins, scales, variances
        for p in range(self.n_problems):
            self.sources[p].origin = &self.origins[p, 0]
            self.sources[p].scale = &self.scales[p, 0]

    def find_frames(self, bint isotropic, int n_threads):
        """Set the frames in which each problem's rows have mean 0 and variance 1.

        Returns
        -------
        bad : ndarray of shape (problem,), bool
            Rows that no frame was found for: a value isn't finite, or a range is too wide.
        present : ndarray of shape (problem,), int64
            Rows of positive weight.
        total : ndarray of shape (problem,)
            Sum of weights.
        scatter : ndarray of shape (problem, D, D)
            Of each problem's rows, in its frame.
        """
        cdef Py_ssize_t n = self.n_problems
        cdef Py_ssize_t d = self.n_features
        cdef Job job
        cdef double[:, ::1] sums = np.empty((n, 3 + times(d, d)))
        self.set_frames(np.zeros((n, d)), np.ones((n, d)), np.ones((n, d)))
        start_job(&job, self, "spherical", 1)
        job.out = &sums[0, 0]
        job.isotropic = isotropic
        drive(&job, find_frame, n_threads)
        out = np.asarray(sums)
        return (
            out[:, 0] != 0,
            out[:, 1].astype(np.int64),
            np.ascontiguousarray(out[:, 2]),
            out[:, 3:].reshape(n, d, d),
        )


# What every problem is worked on with -------------------------------------------------------------


cdef struct Job:
    Py_ssize_t n_problems
    Source* sources
    const Py_ssize_t* n_rows
    const double** weights
    double* origin    # (problem, D)
    double* scale
    double* variance
    Family family
    Shape shape
    const Emission* emission
    const Emission* centroids  # of k-means
    double reg_covar
    bint flat_weights
    bint isotropic
    double* prior  # (problem, size), or one for all
    Py_ssize_t prior_step
    double* posterior  # (problem, size)
    Py_ssize_t size
    const uint64_t* seeds
    int64_t* labels  # (problem, longest) of the starts; NULL: not asked for
    Init init
    Assignment assignment
    Read read
    double tol
    Py_ssize_t n_sweeps
    Py_ssize_t thin
    uint64_t first_sweep
    const double* best
    # Out
    double* out
    double** objectives  # (problem), each as long as it takes
    Py_ssize_t* lengths  # of those, with what they have in reserve
    int64_t* state      # (problem, 4): sweeps, status, degenerate component, sweep that fell
    double* log_weights
    double* means
    double* factors
    double* common
    double* terms
    # Scratch, per thread
    char* memory
    Py_ssize_t longest
    double deadline
    char* done


# A thread's: see room_at.
cdef struct Room:
    double* tiles
    double* weight   # (N)
    int64_t* labels  # (N)
    double* nearest  # (N)
    double* chance   # (N)
    double* distance  # (N)
    double* scores
    double* log_z
    double* limits
    int64_t* counts
    lanes* best_rows
    double* emission
    double* coefficients
    double* offsets
    double* raw
    double* reference
    double* theta
    double* best
    double* statistics
    double* scratch
    # Of the problem at hand
    Py_ssize_t n_rows
    Py_ssize_t tile_rows
    Py_ssize_t n_tiles
    Py_ssize_t tile_size
    double total_weight


cdef Py_ssize_t tile_rows_of(const Job* job, Py_ssize_t n_rows) noexcept nogil:
    return min(
        rows_of_tile(job.shape.n_features), (n_rows + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
    )


cdef Py_ssize_t most_trials(Py_ssize_t n_components) noexcept nogil:
    """Candidates that k-means++ tries for each centroid."""
    return 2 + <Py_ssize_t>log(<double>n_components)


cdef Room room_at(const Job* job, double* memory, Py_ssize_t* size) noexcept nogil:
    """A thread's room for problems of `longest` rows at `memory`; its size in doubles."""
    cdef Room room
    cdef Py_ssize_t k = job.shape.n_components
    cdef Py_ssize_t d = job.shape.n_features
    cdef Py_ssize_t tile_rows = tile_rows_of(job, job.longest)
    # Of any problem, whatever its tiles: the last one padded.
    cdef Py_ssize_t n_rows = (job.longest + tile_rows - 1) // tile_rows * tile_rows
    cdef Py_ssize_t stride = stride_of(tile_rows)
    cdef Py_ssize_t coefficients = max(
        job.emission.coefficients_size(job.shape), job.centroids.coefficients_size(job.shape)
    )
    cdef Py_ssize_t statistics = max(
        job.emission.statistics_size(job.shape), job.centroids.statistics_size(job.shape)
    )
    cdef Py_ssize_t workspace = max(
        job.emission.workspace_size(job.shape, tile_rows),
        job.centroids.workspace_size(job.shape, tile_rows),
    )
    cdef double* start = memory
    room.tiles = memory
    memory += lines((d + TILE_PADDING) * n_rows // tile_rows * stride)
    room.weight = memory
    memory += lines(n_rows)
    room.labels = <int64_t*>memory
    memory += lines(n_rows)
    room.nearest = memory
    memory += lines(n_rows)
    room.chance = memory
    memory += lines(n_rows)
    room.distance = memory
    memory += lines(n_rows)
    room.scores = memory
    memory += lines((k + SCORES_PADDING) * stride)
    room.log_z = memory
    memory += lines(tile_rows)
    room.limits = memory
    memory += lines(k)
    room.counts = <int64_t*>memory
    memory += lines(k)
    room.best_rows = <lanes*>memory
    memory += lines(assignment_size(job.assignment, k) * LANES)
    room.emission = memory
    memory += lines(workspace)
    room.coefficients = memory
    memory += lines(coefficients)
    room.offsets = memory
    memory += lines(k)
    room.raw = memory
    memory += lines(1 + k + statistics)
    room.reference = memory
    memory += lines(k * d)
    room.theta = memory
    memory += lines(theta_size(job.family))
    room.best = memory
    memory += lines(theta_size(job.family))
    room.statistics = memory
    memory += lines(job.size)
    room.scratch = memory
    memory += lines(2 * d * d + 2 * d)
    size[0] = memory - start
    return room


cdef void load(const Job* job, Py_ssize_t p, Room* room) noexcept nogil:
    """Read a problem's rows into tiles, once for all its sweeps."""
    cdef Py_ssize_t d = job.shape.n_features
    cdef Py_ssize_t n = job.n_rows[p]
    cdef const double* weights = job.weights[p]
    cdef Py_ssize_t first, j, n_used, n_rows, row, t
    cdef double* tile = room.tiles
    room.n_rows = n
    room.tile_rows = tile_rows_of(job, n)
    room.n_tiles = (n + room.tile_rows - 1) // room.tile_rows
    room.tile_size = (d + TILE_PADDING) * stride_of(room.tile_rows)
    room.total_weight = n
    if weights != NULL:
        room.total_weight = 0.0
        for row in range(n):
            room.total_weight += weights[row]
    for t in range(room.n_tiles):
        first = t * room.tile_rows
        n_used = min(room.tile_rows, n - first)
        n_rows = (n_used + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK
        read_tile(job.sources[p], d, first, n_used, n_rows, stride_of(n_rows), tile)
        for row in range(n_rows):
            room.weight[first + row] = 1.0 if row < n_used else 0.0
        if weights != NULL:
            for row in range(n_used):
                room.weight[first + row] = weights[first + row]
                if weights[first + row] == 0.0:
                    # Absent, even where 0 * x would be NaN.
                    for j in range(d):
                        tile[j * stride_of(n_rows) + row] = 0.0
        tile += room.tile_size


cdef inline double* tile_of(const Room* room, Py_ssize_t first) noexcept nogil:
    return room.tiles + first // room.tile_rows * room.tile_size


cdef inline Py_ssize_t rows_of(const Room* room, Py_ssize_t first) noexcept nogil:
    """Rows of the tile that begins at row `first`, with padding."""
    cdef Py_ssize_t n_used = min(room.tile_rows, room.n_rows - first)
    return (n_used + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK


cdef void visit(
    const Job* job, const Emission* emission, Assignment assignment, Room* room
) noexcept nogil:
    """Assign all rows given coefficients and offsets; raw: log_z, counts, the emission's own.

    HARD writes labels, GIVEN reads them.
    """
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef bint weighted = assignment.kind == DRAW  # log_z is summed over a row's copies already
    cdef Py_ssize_t block, first, n_rows, row, stride, t, v
    cdef double* tile
    cdef lanes objective, value, w
    memset(
        room.raw, 0, (1 + n_components + emission.statistics_size(job.shape)) * sizeof(double)
    )
    for t in range(room.n_tiles):
        first = t * room.tile_rows
        tile = tile_of(room, first)
        n_rows = rows_of(room, first)
        stride = stride_of(n_rows)
        for block in range(n_rows // ROW_BLOCK):
            row = block * ROW_BLOCK
            if assignment.kind != GIVEN:
                emission.scores(
                    job.shape, room.coefficients, room.offsets, tile + row, ROW_BLOCK, stride,
                    room.emission, room.scores + row,
                )
            assign_block(
                assignment, n_components, stride, first + row, room.weight + first + row,
                room.scores + row, room.log_z + row, room.labels + first + row, room.counts,
                room.best_rows,
            )
        objective = lanes_set(0.0)
        for v in range(n_rows // LANES):
            w = (<lanes*>(room.weight + first))[v]
            value = (<lanes*>room.log_z)[v]
            if not weighted:
                value = w * value
            # Where a weight is 0, log_z may be anything.
            objective = objective + lanes_keep_from(value, w, lanes_set(PRESENT))
        room.raw[0] += lanes_sum(objective)
        add_counts(n_components, n_rows, stride, room.scores, room.raw + 1, room.limits)
        emission.accumulate(
            job.shape, room.coefficients, tile, n_rows, stride, room.scores, room.limits,
            room.emission, room.raw + 1 + n_components,
        )


cdef void finish(const Job* job, Py_ssize_t p, const Room* room, Fields stats) noexcept nogil:
    """Statistics of the sums that a visit left."""
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef const double* counts = room.raw + 1
    stats.log_z[0] = room.raw[0]
    memcpy(stats.concentration, counts, n_components * sizeof(double))
    memcpy(stats.strength, counts, n_components * sizeof(double))
    collect(
        job.family, counts, counts + n_components, room.reference, job.reg_covar,
        job.variance + p * job.shape.n_features, stats, room.scratch,
    )


cdef class Stopping:
    """Says when a climb is at its end, from what its updates gain: see stopping.pxd.

    Parameters
    ----------
    tol : float
        Nats a row that the last update gains at most, and less than the one before; NaN: stop when
        little is left to gain.
    total_weight : float
        Rows that the objective is a sum over.

    Attributes
    ----------
    target : float
        What the last update may gain, in nats; or what may be left after it.
    left : float
        What seems to be left; inf where that isn't known.
    """

    cdef Rule rule

    def __cinit__(self, double tol, double total_weight):
        self.rule = stopping_of(tol, total_weight)

    @property
    def target(self):
        return self.rule.target

    @property
    def left(self):
        return self.rule.left

    def settled(self, double gain, double rounding):
        """Take note of what an update gained; whether it was the last that is needed."""
        return bool(settled(&self.rule, gain, rounding))

    def went_ahead(self, double gain):
        """Take note of what a step other than an update gained."""
        went_ahead(&self.rule, gain)


# One problem --------------------------------------------------------------------------------------


cdef void store(const Job* job, Py_ssize_t place, Theta theta) noexcept nogil:
    """Write theta out as number `place`."""
    cdef Family family = job.family
    cdef Py_ssize_t n = family.n_components
    memcpy(job.log_weights + place * n, theta.log_weights, n * sizeof(double))
    n *= family.n_features
    memcpy(job.means + place * n, theta.means, n * sizeof(double))
    n = family.n_groups * family.per_group
    memcpy(job.factors + place * n, theta.factor, n * sizeof(double))


cdef bint record(Job* job, Py_ssize_t p, Py_ssize_t place, double objective) noexcept nogil:
    """Set an objective of problem p; False where there is no memory for it."""
    cdef double* longer
    cdef Py_ssize_t length = job.lengths[p]
    if place >= length:
        length = max(2 * length, <Py_ssize_t>32)
        longer = <double*>realloc(job.objectives[p], length * sizeof(double))
        if longer == NULL:
            return False
        job.objectives[p] = longer
        job.lengths[p] = length
    job.objectives[p][place] = objective
    return True


cdef void advance(Job* job, Py_ssize_t p, double* memory) noexcept nogil:
    """Sweeps of one problem, until it is done or the slice is over."""
    cdef Family family = job.family
    cdef Py_ssize_t size
    cdef Room room = room_at(job, memory, &size)
    cdef Theta theta = theta_at(family, room.theta)
    cdef Theta best = theta_at(family, room.best)
    cdef Fields prior = fields_at(family, job.prior + p * job.prior_step)
    cdef Fields posterior = fields_at(family, job.posterior + p * job.size)
    cdef Fields stats = fields_at(family, room.statistics)
    cdef int64_t* state = job.state + 4 * p
    cdef Assignment assignment = job.assignment
    cdef Constants constants
    cdef Rule rule
    cdef Stream stream
    cdef double change, least, log_scale, value
    cdef double highest = -INFINITY
    cdef double heaviest = 0.0
    cdef double* terms
    cdef Py_ssize_t i, n, bad, place
    load(job, p, &room)
    for i in range(job.size):
        heaviest = max(heaviest, fabs(prior.log_z[i]))
    rule = stopping_of(job.tol, room.total_weight)
    if state[0] > 1:
        # A slice is over: the last gain is in the objectives.
        rule.last = job.objectives[p][state[0] - 1] - job.objectives[p][state[0] - 2]
    log_scale = 0.0
    for i in range(family.n_features):
        log_scale += log(job.scale[p * family.n_features + i])
    constants = constants_of(family, prior, job.flat_weights, log_scale, room.scratch)
    if job.read == SAMPLE:
        assignment.seed = job.seeds[p]
        if job.thin:
            n = theta_size(family)
            memcpy(room.best, job.best, n * sizeof(double))
    while True:
        n = state[0]
        if job.read == MODE:
            mode_of_weights(family, posterior, theta.log_weights)
            for i in range(family.n_components):
                theta.log_weights[i] = log(theta.log_weights[i])
            bad = read_mode(family, posterior, theta, room.scratch)
        elif job.read == MEAN:
            mean_of_weights(family, posterior, theta.log_weights)
            bad = read_mean(family, posterior, theta, room.scratch)
        else:
            assignment.sweep = <unsigned int>(job.first_sweep + n)
            stream = stream_of(assignment.seed, assignment.sweep)
            bad = draw(family, posterior, &stream, theta, room.scratch)
        if bad >= 0:
            state[1] = DEGENERATE
            state[2] = bad
            job.done[p] = 1
            return
        if job.read == MEAN:
            value = -constants.log_normalizer - divergence_of_weights(
                family, constants, prior, posterior, theta.log_weights
            )
            value -= divergence(family, prior, posterior, theta, room.scratch)
        else:
            value = log_prior(family, constants, prior, theta, room.scratch)
        choose_reference(family, theta, room.reference)
        write_coefficients(family, theta, room.reference, room.coefficients)
        write_offsets(
            family, theta, log_scale, job.reg_covar, job.variance + p * family.n_features,
            room.offsets,
        )
        for i in range(family.n_components):
            room.offsets[i] += theta.log_weights[i]
        visit(job, job.emission, assignment, &room)
        value += room.raw[0]
        state[0] = n + 1
        # Of the sweeps from one kept draw to the next the last one stays.
        if not record(job, p, n // job.thin if job.thin else n, value):
            state[1] = NO_MEMORY
            job.done[p] = 1
            return
        if job.read != SAMPLE:
            if n > 0:
                change = value - job.objectives[p][n - 1]
                least = ROUNDING * max(fabs(value), room.total_weight)
                least += ROUNDING_OF_CONSTANTS * heaviest
                if change < -least and change < -least - room.total_weight * rounding_of(
                    family, theta, room.scratch
                ):
                    state[3] = n
                if settled(&rule, change, LEAST_SHARE * max(fabs(value), room.total_weight)):
                    state[1] = CONVERGED
            if state[1] == RUNNING and n + 1 == job.n_sweeps:
                state[1] = STOPPED
            if not isfinite(value) and (
                state[1] != RUNNING or n > 0 and not isfinite(job.objectives[p][n - 1])
            ):
                state[1] = DEGENERATE
                state[2] = family.n_components
                job.done[p] = 1
                return
            if state[1] != RUNNING:
                store(job, p, theta)
                job.done[p] = 1
                return
        finish(job, p, &room, stats)
        add(family, prior, stats, posterior, room.scratch)
        if job.read == SAMPLE:
            if job.thin == 0:
                # The best so far: its height is looked up again after a slice.
                if n > 0 and highest == -INFINITY:
                    for i in range(n):
                        highest = max(highest, job.objectives[p][i])
                if n == 0 or value > highest:
                    highest = value
                    store(job, p, theta)
            elif (n + 1) % job.thin == 0:
                place = p * (job.n_sweeps // job.thin) + n // job.thin
                store(job, place, theta)
                terms = job.terms + place * family.n_components * family.n_components
                value = density_terms(family, posterior, best, terms, room.scratch)
                value += add_terms_of_weights(family, posterior, best.log_weights, terms)
                job.common[place] = constants.log_volume + value
            if n + 1 == job.n_sweeps:
                state[1] = STOPPED
                job.done[p] = 1
                return
        if seconds() > job.deadline:
            return


# Frames: see data.py's _frame ---------------------------------------------------------------------


cdef void find_frame(Job* job, Py_ssize_t p, double* memory) noexcept nogil:
    """Read as they are, rows are ranged, then measured in units of their range, then scattered."""
    cdef Py_ssize_t d = job.shape.n_features
    cdef Py_ssize_t size
    cdef Room room = room_at(job, memory, &size)
    cdef double* out = job.out + p * (3 + d * d)
    cdef double* scatter = out + 3
    cdef double* origin = job.origin + p * d
    cdef double* scale = job.scale + p * d
    cdef double* variance = job.variance + p * d
    cdef double common, deviation, extent, low, mean, middle, total, unit
    cdef double largest = 0.0
    cdef double widest = 0.0
    cdef Py_ssize_t begin, first, i, j, last, n, n_rows, present, row, step, t, v
    cdef double* values
    cdef lanes* column
    cdef lanes* weight
    cdef lanes finite, highest, lowest, squares, sum_, x
    job.done[p] = 1
    n = job.n_rows[p]
    load(job, p, &room)
    total = room.total_weight
    out[0] = 0.0
    out[2] = total
    present = 0
    last = 0
    for row in range(n):
        if room.weight[row] > 0.0:
            present += 1
            last = row
    out[1] = present
    if job.weights[p] != NULL:
        # A value that isn't finite is refused even of a row that is absent.
        for row in range(n):
            for j in range(d):
                if not isfinite(value_at(job.sources[p], row, j)):
                    out[0] = 1.0
                    return
    for j in range(d):
        # Absent rows and padding become one that is present, so that they don't count in a range.
        low = value_at(job.sources[p], last, j)
        for t in range(room.n_tiles):
            first = t * room.tile_rows
            n_rows = rows_of(&room, first)
            values = tile_of(&room, first) + j * stride_of(n_rows)
            begin = 0 if job.weights[p] != NULL else min(n - first, n_rows)
            for row in range(begin, n_rows):
                if room.weight[first + row] == 0.0:
                    values[row] = low
        lowest = lanes_set(low)
        highest = lowest
        finite = lanes_set(0.0)
        for t in range(room.n_tiles):
            first = t * room.tile_rows
            n_rows = rows_of(&room, first)
            column = <lanes*>(tile_of(&room, first) + j * stride_of(n_rows))
            for v in range(n_rows // LANES):
                finite = finite + lanes_set(0.0) * column[v]
                highest = lanes_max(column[v], highest)
                lowest = lanes_min(column[v], lowest)
        low = -greatest(lanes_set(0.0) - lowest)
        extent = greatest(highest) - low
        widest = max(widest, extent)
        if not (
            lanes_sum(finite) == 0.0 and extent <= WIDEST
            and (job.isotropic or extent == 0.0 or extent >= NARROWEST)
        ):
            out[0] = 1.0
            return
        origin[j] = low
        scale[j] = 1.0
        variance[j] = 0.0
        if extent < NARROWEST:
            continue
        unit = 1.0 / extent
        middle = low + 0.5 * extent
        sum_ = lanes_set(0.0)
        squares = lanes_set(0.0)
        for t in range(room.n_tiles):
            first = t * room.tile_rows
            n_rows = rows_of(&room, first)
            column = <lanes*>(tile_of(&room, first) + j * stride_of(n_rows))
            weight = <lanes*>(room.weight + first)
            for v in range(n_rows // LANES):
                x = (column[v] - lanes_set(middle)) * lanes_set(unit)
                sum_ = sum_ + weight[v] * x
                squares = squares + weight[v] * x * x
        mean = lanes_sum(sum_) / total
        deviation = sqrt(max(lanes_sum(squares) / total - mean * mean, 0.0))
        origin[j] = middle + mean / unit
        scale[j] = 1.0 / ((deviation if deviation > 0.0 else 1.0) / unit)
        variance[j] = 1.0
    if job.isotropic and 0.0 < widest < NARROWEST:
        out[0] = 1.0
        return
    for j in range(d):
        if variance[j] > 0.0:
            largest = max(largest, 1.0 / scale[j])
    if job.isotropic and largest > 0.0:
        common = 0.0
        for j in range(d):
            if variance[j] > 0.0:
                common += (1.0 / scale[j] / largest) ** 2
        common = largest * sqrt(common / d)
        for j in range(d):
            variance[j] = (1.0 / scale[j] / common) ** 2 if variance[j] > 0.0 else 0.0
            scale[j] = 1.0 / common
    else:
        for j in range(d):
            variance[j] = 1.0
    # The origin is the mean but for rounding.
    for t in range(room.n_tiles):
        first = t * room.tile_rows
        n_rows = rows_of(&room, first)
        column = <lanes*>tile_of(&room, first)
        weight = <lanes*>(room.weight + first)
        step = stride_of(n_rows) // LANES
        for j in range(d):
            for v in range(n_rows // LANES):
                x = column[j * step + v] - lanes_set(origin[j])
                column[j * step + v] = x * lanes_set(scale[j])
        for i in range(d):
            for j in range(i + 1):
                sum_ = lanes_set(0.0)
                for v in range(n_rows // LANES):
                    sum_ = sum_ + weight[v] * column[i * step + v] * column[j * step + v]
                scatter[i * d + j] = lanes_sum(sum_) + (scatter[i * d + j] if t else 0.0)
                scatter[j * d + i] = scatter[i * d + j]


cdef inline double greatest(lanes x) noexcept nogil:
    cdef Py_ssize_t i
    cdef double value = (<double*>&x)[0]
    for i in range(1, LANES):
        value = max(value, (<double*>&x)[i])
    return value


cdef inline double value_at(Source source, Py_ssize_t row, Py_ssize_t d) noexcept nogil:
    cdef const char* place = source.values + row * source.row_stride + d * source.column_stride
    return (<const float*>place)[0] if source.single else (<const double*>place)[0]


# Starts: see starts.py ----------------------------------------------------------------------------


cdef Py_ssize_t pick(const double* weight, Py_ssize_t n, Stream* stream) noexcept nogil:
    """The number of a row, drawn with probability proportional to its weight."""
    cdef double total = 0.0
    cdef double mark
    cdef Py_ssize_t row
    cdef Py_ssize_t last = 0
    for row in range(n):
        total += weight[row]
    mark = total * uniform(stream)
    total = 0.0
    for row in range(n):
        total += weight[row]
        if weight[row] > 0.0:
            last = row
            if mark < total:
                break
    return last


cdef void copy_row(const Room* room, Py_ssize_t d, Py_ssize_t row, double* out) noexcept nogil:
    cdef Py_ssize_t first = row // room.tile_rows * room.tile_rows
    cdef Py_ssize_t stride = stride_of(rows_of(room, first))
    cdef const double* tile = tile_of(room, first) + (row - first)
    cdef Py_ssize_t j
    for j in range(d):
        out[j] = tile[j * stride]


cdef double potential(
    const Room* room, Py_ssize_t d, const double* mean, double* distance
) noexcept nogil:
    """distance = the smaller of `nearest` and that from `mean`, squared; their weighted sum."""
    cdef lanes total = lanes_set(0.0)
    cdef lanes least, square, x
    cdef const lanes* values
    cdef const lanes* nearest
    cdef const lanes* weight
    cdef lanes* out
    cdef Py_ssize_t first, j, n_rows, step, t, v
    for t in range(room.n_tiles):
        first = t * room.tile_rows
        n_rows = rows_of(room, first)
        step = stride_of(n_rows) // LANES
        values = <const lanes*>tile_of(room, first)
        nearest = <const lanes*>(room.nearest + first)
        weight = <const lanes*>(room.weight + first)
        out = <lanes*>(distance + first)
        for v in range(n_rows // LANES):
            square = lanes_set(0.0)
            for j in range(d):
                x = values[j * step + v] - lanes_set(mean[j])
                square = square + x * x
            least = lanes_min(square, nearest[v])
            out[v] = least
            total = total + weight[v] * least
    return lanes_sum(total)


cdef void plus_plus(
    const Job* job, Room* room, Stream* stream, double* means
) noexcept nogil:
    """Centroids by k-means++, the best of several trials each."""
    cdef Py_ssize_t d = job.shape.n_features
    cdef Py_ssize_t n_trials = most_trials(job.shape.n_components)
    cdef Py_ssize_t k, row, trial
    cdef double lowest, value
    cdef double* mean = room.scratch
    for row in range(room.n_tiles * room.tile_rows):
        room.nearest[row] = FARTHEST
    copy_row(room, d, pick(room.weight, room.n_rows, stream), means)
    potential(room, d, means, room.nearest)
    for k in range(1, job.shape.n_components):
        # What rows are drawn by: weight times squared distance.
        lowest = 0.0
        for row in range(room.n_rows):
            room.chance[row] = room.weight[row] * room.nearest[row]
            lowest += room.chance[row]
        if lowest == 0.0:  # fewer distinct rows than components: any will do
            memcpy(room.chance, room.weight, room.n_rows * sizeof(double))
        lowest = INFINITY
        for trial in range(n_trials):
            copy_row(room, d, pick(room.chance, room.n_rows, stream), mean)
            value = potential(room, d, mean, room.distance)
            if trial == 0 or value < lowest:
                lowest = value
                memcpy(means + k * d, mean, d * sizeof(double))
        potential(room, d, means + k * d, room.nearest)


cdef void set_unit(Family family, const double* means, Theta theta) noexcept nogil:
    """Precision 1 about `means`."""
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t i
    memcpy(theta.means, means, family.n_components * n * sizeof(double))
    for i in range(family.n_groups * family.per_group):
        theta.factor[i] = 1.0 if not has_matrices(family) or i % (n * n) % (n + 1) == 0 else 0.0


cdef void look_from(Family family, const double* means, Room* room) noexcept nogil:
    """Coefficients of precision 1, and moments, about `means`."""
    cdef Theta theta = theta_at(family, room.theta)
    set_unit(family, means, theta)
    memcpy(room.reference, means, family.n_components * family.n_features * sizeof(double))
    write_coefficients(family, theta, room.reference, room.coefficients)


cdef void kmeans(const Job* job, Room* room, Py_ssize_t n_sweeps, double* means) noexcept nogil:
    """Lloyd's algorithm from `means`; labels are those by the last centroids."""
    cdef Py_ssize_t n = job.shape.n_features
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef Family family = family_of(SPHERICAL, n_components, n)
    cdef Assignment hard
    cdef Py_ssize_t i, k, sweep
    cdef double last = -INFINITY
    cdef double* first
    hard.kind = HARD
    for k in range(n_components):
        room.offsets[k] = 0.0
    for sweep in range(n_sweeps):
        look_from(family, means, room)
        visit(job, job.centroids, hard, room)
        if room.raw[0] - last <= KMEANS_TOL * room.total_weight or sweep + 1 == n_sweeps:
            return
        last = room.raw[0]
        for k in range(n_components):
            if room.raw[1 + k] == 0.0:
                room.offsets[k] = -INFINITY  # nobody's nearest from now on
                continue
            first = room.raw + 1 + n_components + k * fours(n)
            for i in range(n):
                means[k * n + i] += first[i] / room.raw[1 + k]


cdef void begin(Job* job, Py_ssize_t p, double* memory) noexcept nogil:
    """Labels, and the posterior given them: moments about each component's mean."""
    cdef Family family = job.family
    cdef Py_ssize_t size
    cdef Room room = room_at(job, memory, &size)
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef Py_ssize_t d = job.shape.n_features
    cdef Stream stream = stream_of(job.seeds[p], 0)
    # Where a posterior's theta would be; as large as its means.
    cdef double* means = room.best
    cdef Fields stats = fields_at(family, room.statistics)
    cdef Assignment given
    cdef Py_ssize_t k, row
    given.kind = GIVEN
    load(job, p, &room)
    if job.init == LABELLED:
        memcpy(room.labels, job.labels + p * job.longest, room.n_rows * sizeof(int64_t))
    elif job.init == RANDOM:
        for row in range(room.n_rows):
            room.labels[row] = min(
                <int64_t>(n_components * uniform(&stream)), <int64_t>(n_components - 1)
            )
    else:
        if job.init == FROM_DATA:
            memcpy(room.chance, room.weight, room.n_rows * sizeof(double))
            for k in range(n_components):
                row = pick(room.chance, room.n_rows, &stream)
                room.chance[row] = 0.0
                copy_row(&room, d, row, means + k * d)
        else:
            plus_plus(job, &room, &stream, means)
        kmeans(job, &room, KMEANS_SWEEPS + 1 if job.init == KMEANS else 1, means)
    if job.labels != NULL:
        memcpy(job.labels + p * job.longest, room.labels, room.n_rows * sizeof(int64_t))
    memset(means, 0, n_components * d * sizeof(double))
    for _ in range(2):
        look_from(family, means, &room)
        visit(job, job.emission, given, &room)
        finish(job, p, &room, stats)
        memcpy(means, stats.mean, n_components * d * sizeof(double))
    add(
        family, fields_at(family, job.prior + p * job.prior_step), stats,
        fields_at(family, job.posterior + p * job.size), room.scratch,
    )
    job.done[p] = 1


# All problems -------------------------------------------------------------------------------------


ctypedef void (*Step)(Job*, Py_ssize_t, double*) noexcept nogil


cdef void take(Job* job, Py_ssize_t p, Step step, Py_ssize_t room) noexcept nogil:
    if job.done[p] or seconds() > job.deadline:
        return
    step(job, p, <double*>job.memory + thread_index() * room)


cdef int drive(Job* job, Step step, int n_threads) except -1:
    """Take every problem step by step until all are done."""
    cdef Py_ssize_t n = job.n_problems
    cdef Py_ssize_t left = n
    cdef Py_ssize_t bytes_, p, room
    n_threads = threads_for(n_threads, n)
    if n == 0:
        return 0
    room_at(job, NULL, &room)
    bytes_ = times(n_threads, times(room, sizeof(double)))
    job.memory = <char*>aligned_memory(bytes_)
    job.done = <char*>calloc(n, 1)
    try:
        if job.memory == NULL or job.done == NULL:
            raise MemoryError(f"no {bytes_} bytes for the workspace of {n_threads} threads")
        # What is padding is never written, and must not be slow to compute with.
        memset(job.memory, 0, bytes_)
        while left > 0:
            n_threads = granted(n_threads)
            with nogil:
                job.deadline = seconds() + SLICE
                if n_threads == 1:
                    for p in range(n):
                        take(job, p, step, room)
                else:
                    for p in prange(n, schedule="dynamic", chunksize=1, num_threads=n_threads):
                        take(job, p, step, room)
            PyErr_CheckSignals()
            left = 0
            for p in range(n):
                left += not job.done[p]
    finally:
        free_aligned(job.memory)
        free(job.done)
    return 0


cdef int start_job(Job* job, Rows rows, str covariance_type, Py_ssize_t n_components) except -1:
    memset(job, 0, sizeof(Job))
    job.n_problems = rows.n_problems
    job.sources = rows.sources
    job.n_rows = rows.n_rows
    job.weights = rows.weights
    job.longest = rows.longest
    if rows.n_problems:
        if rows.origin is None:
            raise ValueError("rows have no frames yet: set_frames or find_frames")
        job.origin = &rows.origins[0, 0]
        job.scale = &rows.scales[0, 0]
        job.variance = &rows.variances[0, 0]
    job.family = family_of(
        <CovarianceType>choose("covariance_type", FAMILIES, covariance_type), n_components,
        rows.n_features,
    )
    job.emission = emission_of(EMISSIONS, covariance_type)
    job.shape = shape_of(job.emission, n_components, max(rows.n_features, 1), 0)
    job.centroids = emission_of(EMISSIONS, "spherical")
    job.size = fields_size(job.family)
    return 0


cdef int set_prior(Job* job, models) except -1:
    if models.prior is None:
        raise TypeError("prior must be (problem, size) or (1, size), not None")
    cdef double[:, ::1] prior = models.prior
    job.reg_covar = models.reg_covar
    job.flat_weights = models.flat_weights
    check_shape(
        "prior", (prior.shape[0], prior.shape[1]),
        (1 if prior.shape[0] == 1 else job.n_problems, job.size),
    )
    job.prior_step = 0 if prior.shape[0] == 1 else job.size
    job.prior = &prior[0, 0]
    return 0


def begin_all(
    Rows rows not None, models, str init, const uint64_t[::1] seeds not None,
    double[:, ::1] posterior not None, int n_threads, *, int64_t[:, ::1] labels=None,
):
    """Write the posterior that each problem starts from.

    Parameters
    ----------
    rows, models : IN, Rows with frames; as in inputs.py
    init : {"kmeans", "k-means++", "random", "random_from_data", "labels"}
    seeds : IN, (problem,)
    posterior : OUT, (problem, size)
    labels : (problem, most rows of any), the component that each row starts in
        IN with "labels", else OUT.
    """
    cdef Job job
    cdef Py_ssize_t p, row
    start_job(&job, rows, models.covariance_type, models.n_components)
    set_prior(&job, models)
    check_shape("seeds", (seeds.shape[0],), (job.n_problems,))
    check_shape("posterior", (posterior.shape[0], posterior.shape[1]), (job.n_problems, job.size))
    job.init = <Init>choose("init", INITS, init)
    job.seeds = &seeds[0]
    job.posterior = &posterior[0, 0]
    if labels is not None:
        check_shape("labels", (labels.shape[0], labels.shape[1]), (job.n_problems, job.longest))
        job.labels = &labels[0, 0]
    if job.init == LABELLED:
        if labels is None:
            raise TypeError("labels must be given with init='labels', not None")
        for p in range(job.n_problems):
            for row in range(job.n_rows[p]):
                if not 0 <= labels[p, row] < job.shape.n_components:
                    raise ValueError(
                        f"labels[{p}, {row}] is {labels[p, row]}; 0 to "
                        f"{job.shape.n_components - 1} are allowed"
                    )
    drive(&job, begin, n_threads)


def run(
    Rows rows not None, models, str read, assignment, double[:, ::1] posterior not None,
    Py_ssize_t n_sweeps, int n_threads, *, int64_t[:, ::1] state not None,
    double[:, :, ::1] log_weights not None, double[:, :, ::1] means not None,
    double[:, :, ::1] factors not None, double tol=0.0,
    const uint64_t[::1] seeds=None, uint64_t first_sweep=0, Py_ssize_t thin=0, tuple best=None,
    double[:, ::1] common=None, double[:, :, ::1] terms=None,
):
    """Sweep every problem: climb until its objective settles, or run a chain.

    Parameters
    ----------
    rows, models : IN, Rows with frames; as in inputs.py
    read : {"mode", "mean", "sample"}
    assignment : IN, as in inputs.py, of kind "exact", "best", "hard" or, for "sample", "draw"
    posterior : IN and OUT, (problem, size)
        Where to start, and what the last theta was read from ("sample": what the last T leads to).
    n_sweeps : IN
        At most, or of a chain.
    state : OUT, (problem, 4)
        Sweeps taken; status (1: settled, 2: not, 3: a component shrank onto too few rows); that
        component, or K where the objective is no finite number; the last sweep in which the
        objective fell by more than rounding, or 0.
    log_weights, means, factors : OUT, (problem, draw, K), (problem, draw, K * D),
        (problem, draw, doubles of the factors)
        The last theta; of a chain every `thin`-th, or the one of highest objective if thin is 0.
    tol : IN
        Settled is an objective that changes by no more a row, and less than before; NaN: of which
        little is left to gain (stopping.pxd).
    seeds, first_sweep : IN, (problem,)
        A chain's draws are named by its seed and the number of the sweep.
    best, common, terms : IN, theta in three 1-d parts; OUT, (problem, draw), (problem, draw, K * K)
        For chains with thin > 0: density of `best` under each kept draw's posterior, as of
        Model.log_density_terms.

    Returns
    -------
    objectives : ndarray
        Of each sweep (with thin > 0: of each kept draw), one problem after the other.
    """
    cdef Job job
    cdef Family family
    cdef Theta theta
    cdef double[::1] packed
    cdef double[::1] objectives
    cdef Py_ssize_t i, length, n, n_kept, p
    cdef Py_ssize_t place = 0
    start_job(&job, rows, models.covariance_type, models.n_components)
    set_prior(&job, models)
    family = job.family
    n = job.n_problems
    job.read = <Read>choose("read", READS, read)
    read_assignment(assignment, KINDS, &job.assignment)
    if job.assignment.kind == FACTORISED:
        job.assignment.kind = EXACT  # over rows: as they are
    if (job.read == SAMPLE) != (job.assignment.kind == DRAW):
        raise ValueError("'sample' goes with 'draw'")
    check_least("n_sweeps", n_sweeps, 1)
    check_least("thin", thin, 0)
    job.tol = tol
    job.thin = thin
    job.first_sweep = first_sweep
    job.n_sweeps = n_sweeps
    n_kept = job.n_sweeps // thin if thin else 1
    check_shape("posterior", (posterior.shape[0], posterior.shape[1]), (n, job.size))
    check_shape("state", (state.shape[0], state.shape[1]), (n, 4))
    for name, array, length in (
        ("log_weights", log_weights, family.n_components),
        ("means", means, family.n_components * family.n_features),
        ("factors", factors, family.n_groups * family.per_group),
    ):
        check_shape(name, (array.shape[0], array.shape[1], array.shape[2]), (n, n_kept, length))
    job.posterior = &posterior[0, 0]
    job.state = &state[0, 0]
    job.log_weights = &log_weights[0, 0, 0]
    job.means = &means[0, 0, 0]
    job.factors = &factors[0, 0, 0]
    if job.read == SAMPLE:
        if seeds is None:
            raise TypeError("seeds must be (problem,) to sample, not None")
        check_shape("seeds", (seeds.shape[0],), (n,))
        job.seeds = &seeds[0]
        for p in range(n):
            if job.weights[p] != NULL:
                check_whole(job.weights[p], job.n_rows[p])
    if thin:
        for name, value in (("best", best), ("common", common), ("terms", terms)):
            if value is None:
                raise TypeError(f"{name} must be given with thin={thin}, not None")
        check_shape("common", (common.shape[0], common.shape[1]), (n, n_kept))
        check_shape(
            "terms", (terms.shape[0], terms.shape[1], terms.shape[2]),
            (n, n_kept, family.n_components * family.n_components),
        )
        packed = np.concatenate([*best, np.zeros(family.n_groups + family.n_components)])
        check_shape("best", (packed.shape[0],), (theta_size(family),))
        theta = theta_at(family, &packed[0])
        find_log_det(family, theta)
        job.best = &packed[0]
        job.common = &common[0, 0]
        job.terms = &terms[0, 0, 0]
    state[:] = 0
    job.objectives = <double**>calloc(n, sizeof(double*))
    job.lengths = <Py_ssize_t*>calloc(n, sizeof(Py_ssize_t))
    try:
        if job.objectives == NULL or job.lengths == NULL:
            raise MemoryError(f"no memory for {n} problems")
        drive(&job, advance, n_threads)
        for p in range(n):
            place += state[p, 0] // thin if thin else state[p, 0]
            if state[p, 1] == NO_MEMORY:
                raise MemoryError(f"no memory for the objectives of {state[p, 0]} sweeps")
        out = np.empty(place)
        objectives = out
        place = 0
        for p in range(n):
            length = state[p, 0] // thin if thin else state[p, 0]
            for i in range(length):
                objectives[place + i] = job.objectives[p][i]
            place += length
        return out
    finally:
        for p in range(n):
            if job.objectives != NULL:
                free(job.objectives[p])
        free(job.objectives)
        free(job.lengths)
