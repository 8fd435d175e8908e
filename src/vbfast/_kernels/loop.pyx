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

from .arrays cimport Doubles, look_into, open_array
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
from .conjugate cimport DIAG, FULL, SPHERICAL, TIED, CovarianceType, Family, family_of, theta_size
from .cpu cimport granted, threads_for
from .dirichlet cimport (
    Dirichlets,
    add_weight_terms,
    dirichlets,
    draw_logs,
    kl_of,
    log_beta,
    log_dirichlet,
    read_expected_logs,
    read_modes,
)
from .parts cimport (
    MEAN,
    MODE,
    SAMPLE,
    Part,
    Read,
    Verbs,
    gaussian_verbs,
    look_from,
    rates_verbs,
    waits_verbs,
    symbols_verbs,
    zeros_and_ones_verbs,
)
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
from .stopping cimport rounding_of, settled, stopping_of, weight_of_prior, went_ahead
from .visit cimport (
    check_least,
    check_whole,
    emission_of,
    open_rows,
    read_assignment,
    shape_of,
    shape_within,
    times,
)

import numpy as np


# Emissions that have a rate of each feature.
cdef tuple RATES = ("poisson", "exponential")
# Seconds after which threads meet.
cdef double SLICE = 0.05
# Weights from which on a row counts in the objective.
cdef double PRESENT = 1e-300
# Gains of a smaller share of the objective are rounding.
cdef double LEAST_SHARE = 1e-12
# See data.py.
cdef double NARROWEST = 1e-151
cdef double WIDEST = 1e152
# Squared distance before there is a centroid: weights times it are numbers.
cdef double FARTHEST = 1e200

# Emissions by name: filled in when the level is loaded.
EMISSIONS = {}
FAMILIES = {"full": FULL, "tied": TIED, "diag": DIAG, "spherical": SPHERICAL}
KINDS = ("exact", "factorised", "best", "hard", "draw")


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
    IMPOSSIBLE = 5


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
        start_job(&job, self, "spherical", 1, 0)
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
    const double* constant  # (problem): what objectives have of the rows whatever theta is
    Part part
    Verbs verbs
    const double* rate  # (problem, D), or one for all
    Py_ssize_t rate_step
    Shape shape
    const Emission* emission
    Shape points               # of k-means
    const Emission* centroids
    bint flat_weights
    bint has_moments        # statistics are taken about references
    bint may_be_impossible  # of a row
    bint isotropic
    double* prior  # (problem, size), or one for all
    Py_ssize_t prior_step
    double* posterior  # (problem, size)
    Py_ssize_t size
    const uint64_t* seeds
    int64_t* labels  # (problem, longest) of the starts; NULL: not asked for
    bint starts
    Init init
    Py_ssize_t kmeans_sweeps
    double kmeans_tol
    double spread
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
    double* theta       # (problem, draw, kept): logarithms of weights, and the emission's
    Py_ssize_t kept
    double* common
    double* terms
    # Scratch, per thread
    char* memory
    Py_ssize_t longest
    double deadline
    char* done


# Rows as a kernel sees them, tile by tile: the data's own, or points that stand for them.
cdef struct Tiles:
    double* first
    Py_ssize_t n_features
    Py_ssize_t size  # doubles from one to the next


# A thread's: see room_at.
cdef struct Room:
    Tiles rows
    Tiles points
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
    double* means    # centroids
    double* theta    # logarithms of weights (K), and the emission's
    double* best
    double* statistics
    double* scratch
    # Of the problem at hand
    Py_ssize_t n_rows
    Py_ssize_t tile_rows
    Py_ssize_t n_tiles
    Py_ssize_t impossible  # the first such row, or -1
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
    cdef Py_ssize_t width = job.points.n_features
    cdef Py_ssize_t coefficients = max(
        job.emission.coefficients_size(job.shape), job.centroids.coefficients_size(job.points)
    )
    cdef Py_ssize_t statistics = max(
        job.emission.statistics_size(job.shape), job.centroids.statistics_size(job.points)
    )
    cdef Py_ssize_t workspace = max(
        job.emission.workspace_size(job.shape, tile_rows),
        job.centroids.workspace_size(job.points, tile_rows),
    )
    cdef Py_ssize_t theta = k + max(
        job.verbs.theta_size(&job.part), theta_size(family_of(SPHERICAL, k, width))
    )
    cdef double* start = memory
    room.rows.first = memory
    room.rows.n_features = d
    memory += lines((d + TILE_PADDING) * n_rows // tile_rows * stride)
    room.points = room.rows
    if job.starts and job.verbs.write_points != NULL:
        room.points.first = memory
        room.points.n_features = width
        memory += lines((width + TILE_PADDING) * n_rows // tile_rows * stride)
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
    memory += lines(k * width)
    room.means = memory
    memory += lines(k * width)
    room.theta = memory
    memory += lines(theta)
    room.best = memory
    memory += lines(theta)
    room.statistics = memory
    memory += lines(job.size)
    room.scratch = memory
    memory += lines(max(job.verbs.scratch_size(&job.part), width))
    size[0] = memory - start
    return room


cdef void load(const Job* job, Py_ssize_t p, Room* room) noexcept nogil:
    """Read a problem's rows into tiles, once for all its sweeps."""
    cdef Py_ssize_t d = job.shape.n_features
    cdef Py_ssize_t n = job.n_rows[p]
    cdef const double* weights = job.weights[p]
    cdef Py_ssize_t first, j, n_used, n_rows, row, t
    cdef double* tile = room.rows.first
    room.n_rows = n
    room.tile_rows = tile_rows_of(job, n)
    room.n_tiles = (n + room.tile_rows - 1) // room.tile_rows
    room.rows.size = (d + TILE_PADDING) * stride_of(room.tile_rows)
    room.points.size = (room.points.n_features + TILE_PADDING) * stride_of(room.tile_rows)
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
        tile += room.rows.size


cdef inline double* tile_of(const Room* room, Tiles tiles, Py_ssize_t first) noexcept nogil:
    return tiles.first + first // room.tile_rows * tiles.size


cdef inline Py_ssize_t rows_of(const Room* room, Py_ssize_t first) noexcept nogil:
    """Rows of the tile that begins at row `first`, with padding."""
    cdef Py_ssize_t n_used = min(room.tile_rows, room.n_rows - first)
    return (n_used + ROW_BLOCK - 1) // ROW_BLOCK * ROW_BLOCK


cdef void visit(
    const Emission* emission, Shape shape, Tiles tiles, Assignment assignment, Room* room
) noexcept nogil:
    """Assign all rows given coefficients and offsets; raw: log_z, counts, the emission's own.

    HARD writes labels, GIVEN reads them.
    """
    cdef Py_ssize_t n_components = shape.n_components
    cdef bint weighted = assignment.kind == DRAW  # log_z is summed over a row's copies already
    cdef Py_ssize_t block, first, n_rows, row, stride, t, v
    cdef double* tile
    cdef lanes objective, value, w
    room.impossible = -1
    memset(room.raw, 0, (1 + n_components + emission.statistics_size(shape)) * sizeof(double))
    for t in range(room.n_tiles):
        first = t * room.tile_rows
        tile = tile_of(room, tiles, first)
        n_rows = rows_of(room, first)
        stride = stride_of(n_rows)
        for block in range(n_rows // ROW_BLOCK):
            row = block * ROW_BLOCK
            if assignment.kind != GIVEN:
                emission.scores(
                    shape, room.coefficients, room.offsets, tile + row, ROW_BLOCK, stride,
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
        if room.raw[0] == -INFINITY and room.impossible < 0:
            for row in range(n_rows):
                if room.log_z[row] == -INFINITY and room.weight[first + row] >= PRESENT:
                    room.impossible = first + row
                    break
        add_counts(n_components, n_rows, stride, room.scores, room.raw + 1, room.limits)
        emission.accumulate(
            shape, room.coefficients, tile, n_rows, stride, room.scores, room.limits,
            room.emission, room.raw + 1 + n_components,
        )


cdef void finish(const Job* job, const Part* part, const Room* room) noexcept nogil:
    """Statistics of the sums that a visit left."""
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef const double* counts = room.raw + 1
    room.statistics[0] = room.raw[0]
    memcpy(room.statistics + 1, counts, n_components * sizeof(double))
    job.verbs.collect(
        part, counts, counts + n_components, room.reference, room.statistics + 1 + n_components,
        room.scratch,
    )


cdef void update(
    const Job* job, const Part* part, const Room* room, const double* prior, double* posterior
) noexcept nogil:
    """posterior = prior + statistics."""
    cdef Py_ssize_t n = 1 + job.shape.n_components
    cdef Py_ssize_t i
    for i in range(n):
        posterior[i] = prior[i] + room.statistics[i]
    job.verbs.add(part, prior + n, room.statistics + n, posterior + n, room.scratch)


cdef class Stopping:
    """Says when a climb is at its end, from what its updates gain: see stopping.pxd.

    Parameters
    ----------
    tol : float
        Nats a row that the last update gains at most, and less than the one before; NaN: stop when
        little is left to gain.
    total_weight : float
        What the rows that the objective is a sum over weigh.
    n_rows : int
        How many there are.

    Attributes
    ----------
    target : float
        What the last update may gain, in nats; or what may be left after it.
    left : float
        What seems to be left; inf where that isn't known.
    """

    cdef Rule rule

    def __cinit__(self, double tol, double total_weight, Py_ssize_t n_rows):
        check_least("n_rows", n_rows, 1)
        self.rule = stopping_of(tol, total_weight, n_rows)

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


def rounding(double objective, double total_weight, prior, Py_ssize_t n_normalisers):
    """Nats that rounding may take from an objective under a prior (size,): see stopping.pxd."""
    cdef Doubles found
    look_into("prior", prior, &found)
    return rounding_of(
        objective, total_weight, weight_of_prior(found.data, found.size, n_normalisers)
    )


# One problem --------------------------------------------------------------------------------------


cdef Part part_of(const Job* job, Py_ssize_t p) noexcept nogil:
    """What verbs are told of problem p, but for what they `prepare`."""
    cdef Part part = job.part
    cdef Py_ssize_t d
    cdef Py_ssize_t n = job.shape.n_features
    part.rate = job.rate + p * job.rate_step
    part.variance = job.variance + p * n
    part.log_scale = 0.0
    for d in range(n):
        part.log_scale += log(job.scale[p * n + d])
    return part


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
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef Py_ssize_t size
    cdef Room room = room_at(job, memory, &size)
    cdef Part part = part_of(job, p)
    cdef const double* prior = job.prior + p * job.prior_step
    cdef double* posterior = job.posterior + p * job.size
    # Of a buffer: log_z, concentrations (K), the emission's; of a theta: weights, the emission's.
    cdef Py_ssize_t own = 1 + n_components
    cdef double* theta = room.theta + n_components
    cdef Dirichlets weights = dirichlets(1, n_components, posterior + 1, 0.0)
    cdef Dirichlets prior_weights = dirichlets(1, n_components, prior + 1, 0.0)
    cdef int64_t* state = job.state + 4 * p
    cdef Assignment assignment = job.assignment
    cdef Rule rule
    cdef Stream stream
    cdef double change, least, value
    cdef double highest = -INFINITY
    cdef double heaviest
    cdef double log_base = 0.0  # of the weights' prior
    cdef double* terms
    cdef Py_ssize_t i, n, bad, place
    load(job, p, &room)
    heaviest = weight_of_prior(
        prior, job.size, job.shape.n_features if job.has_moments else 1
    )
    job.verbs.prepare(&part, prior + own, room.scratch)
    if not job.flat_weights:
        log_base = log_beta(prior_weights)
    rule = stopping_of(job.tol, room.total_weight, job.n_rows[p])
    if state[0] > 1:
        # A slice is over: the last gain is in the objectives.
        rule.last = job.objectives[p][state[0] - 1] - job.objectives[p][state[0] - 2]
    if job.read == SAMPLE:
        assignment.seed = job.seeds[p]
        if job.thin:
            memcpy(room.best, job.best, job.kept * sizeof(double))
            job.verbs.complete(&part, room.best + n_components)
    while True:
        n = state[0]
        if job.read == MODE:
            read_modes(weights, room.theta)
            for i in range(n_components):
                room.theta[i] = log(room.theta[i])
        elif job.read == MEAN:
            read_expected_logs(weights, room.theta)
        else:
            assignment.sweep = <unsigned int>(job.first_sweep + n)
            stream = stream_of(assignment.seed, assignment.sweep)
            draw_logs(weights, &stream, room.theta)
        bad = job.verbs.read(&part, job.read, posterior + own, &stream, theta, room.scratch)
        if bad >= 0:
            state[1] = DEGENERATE
            state[2] = bad
            job.done[p] = 1
            return
        if job.read == MEAN:
            value = -kl_of(weights, prior_weights, room.theta) - job.verbs.divergence(
                &part, prior + own, posterior + own, theta, room.scratch
            )
        else:
            value = job.verbs.log_prior(&part, prior + own, theta, room.scratch)
            if not job.flat_weights:
                value += log_dirichlet(prior_weights, room.theta, log_base)
        job.verbs.pack(&part, theta, room.reference, room.coefficients, room.offsets)
        for i in range(n_components):
            room.offsets[i] += room.theta[i]
        visit(job.emission, job.shape, room.rows, assignment, &room)
        if job.may_be_impossible and room.impossible >= 0:
            state[1] = IMPOSSIBLE
            state[2] = room.impossible
            job.done[p] = 1
            return
        if job.constant != NULL:
            room.raw[0] += job.constant[p]
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
                least = rounding_of(value, room.total_weight, heaviest)
                if change < -least and change < -least - room.total_weight * job.verbs.rounding(
                    &part, theta, room.scratch
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
                state[2] = n_components
                job.done[p] = 1
                return
            if state[1] != RUNNING:
                memcpy(job.theta + p * job.kept, room.theta, job.kept * sizeof(double))
                job.done[p] = 1
                return
        finish(job, &part, &room)
        update(job, &part, &room, prior, posterior)
        if job.read == SAMPLE:
            if job.thin == 0:
                # The best so far: its height is looked up again after a slice.
                if n > 0 and highest == -INFINITY:
                    for i in range(n):
                        highest = max(highest, job.objectives[p][i])
                if n == 0 or value > highest:
                    highest = value
                    memcpy(job.theta + p * job.kept, room.theta, job.kept * sizeof(double))
            elif (n + 1) % job.thin == 0:
                place = p * (job.n_sweeps // job.thin) + n // job.thin
                memcpy(job.theta + place * job.kept, room.theta, job.kept * sizeof(double))
                terms = job.terms + place * n_components * n_components
                value = job.verbs.write_terms(
                    &part, posterior + own, room.best + n_components, terms, room.scratch
                )
                job.common[place] = value + add_weight_terms(weights, room.best, terms)
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
            values = tile_of(&room, room.rows, first) + j * stride_of(n_rows)
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
            column = <lanes*>(tile_of(&room, room.rows, first) + j * stride_of(n_rows))
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
            column = <lanes*>(tile_of(&room, room.rows, first) + j * stride_of(n_rows))
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
        column = <lanes*>tile_of(&room, room.rows, first)
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


cdef void copy_point(const Room* room, Py_ssize_t row, double* out) noexcept nogil:
    cdef Py_ssize_t first = row // room.tile_rows * room.tile_rows
    cdef Py_ssize_t stride = stride_of(rows_of(room, first))
    cdef const double* tile = tile_of(room, room.points, first) + (row - first)
    cdef Py_ssize_t j
    for j in range(room.points.n_features):
        out[j] = tile[j * stride]


cdef double potential(const Room* room, const double* mean, double* distance) noexcept nogil:
    """distance = the smaller of `nearest` and that from `mean`, squared; their weighted sum."""
    cdef lanes total = lanes_set(0.0)
    cdef lanes least, square, x
    cdef const lanes* values
    cdef const lanes* nearest
    cdef const lanes* weight
    cdef lanes* out
    cdef Py_ssize_t d = room.points.n_features
    cdef Py_ssize_t first, j, n_rows, step, t, v
    for t in range(room.n_tiles):
        first = t * room.tile_rows
        n_rows = rows_of(room, first)
        step = stride_of(n_rows) // LANES
        values = <const lanes*>tile_of(room, room.points, first)
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


cdef void plus_plus(const Job* job, Room* room, Stream* stream) noexcept nogil:
    """Centroids by k-means++, the best of several trials each."""
    cdef Py_ssize_t d = room.points.n_features
    cdef Py_ssize_t n_trials = most_trials(job.shape.n_components)
    cdef Py_ssize_t k, row, trial
    cdef double lowest, value
    cdef double* mean = room.scratch
    cdef double* means = room.means
    for row in range(room.n_tiles * room.tile_rows):
        room.nearest[row] = FARTHEST
    copy_point(room, pick(room.weight, room.n_rows, stream), means)
    potential(room, means, room.nearest)
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
            copy_point(room, pick(room.chance, room.n_rows, stream), mean)
            value = potential(room, mean, room.distance)
            if trial == 0 or value < lowest:
                lowest = value
                memcpy(means + k * d, mean, d * sizeof(double))
        potential(room, means + k * d, room.nearest)


cdef void kmeans(const Job* job, Room* room, Py_ssize_t n_sweeps) noexcept nogil:
    """Lloyd's algorithm from `means`; labels are those by the last centroids."""
    cdef Py_ssize_t n = room.points.n_features
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
        look_from(family, room.means, room.theta, room.reference, room.coefficients)
        visit(job.centroids, job.points, room.points, hard, room)
        if room.raw[0] - last <= job.kmeans_tol * room.total_weight or sweep + 1 == n_sweeps:
            return
        last = room.raw[0]
        for k in range(n_components):
            if room.raw[1 + k] == 0.0:
                room.offsets[k] = -INFINITY  # nobody's nearest from now on
                continue
            first = room.raw + 1 + n_components + k * fours(n)
            for i in range(n):
                room.means[k * n + i] += first[i] / room.raw[1 + k]


cdef void write_points(const Job* job, Room* room) noexcept nogil:
    """Points that stand for rows, where those are not their own."""
    cdef Py_ssize_t first, n_rows, t
    if job.verbs.write_points == NULL:
        return
    for t in range(room.n_tiles):
        first = t * room.tile_rows
        n_rows = rows_of(room, first)
        job.verbs.write_points(
            &job.part, tile_of(room, room.rows, first), n_rows, stride_of(n_rows),
            tile_of(room, room.points, first),
        )


cdef void begin(Job* job, Py_ssize_t p, double* memory) noexcept nogil:
    """Labels, and the posterior given them."""
    cdef Py_ssize_t size
    cdef Room room = room_at(job, memory, &size)
    cdef Part part = part_of(job, p)
    cdef Py_ssize_t n_components = job.shape.n_components
    cdef Py_ssize_t d = job.shape.n_features
    cdef Stream stream = stream_of(job.seeds[p], 0)
    cdef const double* prior = job.prior + p * job.prior_step
    cdef double* stats = room.statistics + 1 + n_components
    cdef Assignment given
    cdef Py_ssize_t k, row
    given.kind = GIVEN
    load(job, p, &room)
    if job.init == LABELLED:
        memcpy(room.labels, job.labels + p * job.longest, job.n_rows[p] * sizeof(int64_t))
    elif job.init == RANDOM:
        for row in range(room.n_rows):
            room.labels[row] = min(
                <int64_t>(n_components * uniform(&stream)), <int64_t>(n_components - 1)
            )
    else:
        write_points(job, &room)
        if job.init == FROM_DATA:
            memcpy(room.chance, room.weight, room.n_rows * sizeof(double))
            for k in range(n_components):
                row = pick(room.chance, room.n_rows, &stream)
                room.chance[row] = 0.0
                copy_point(&room, row, room.means + k * room.points.n_features)
        else:
            plus_plus(job, &room, &stream)
        kmeans(job, &room, job.kmeans_sweeps + 1 if job.init == KMEANS else 1)
    if job.labels != NULL:
        memcpy(job.labels + p * job.longest, room.labels, job.n_rows[p] * sizeof(int64_t))
    if job.has_moments:
        # Of Gaussians: strength (K), then means. Moments about these are taken in a second visit.
        memset(room.means, 0, n_components * d * sizeof(double))
        for _ in range(2):
            look_from(part.family, room.means, room.theta, room.reference, room.coefficients)
            visit(job.emission, job.shape, room.rows, given, &room)
            finish(job, &part, &room)
            memcpy(room.means, stats + n_components, n_components * d * sizeof(double))
    else:
        visit(job.emission, job.shape, room.rows, given, &room)
        finish(job, &part, &room)
        if job.init != RANDOM:
            job.verbs.spread(
                &part, prior + 1 + n_components, job.spread, stats, room.scratch
            )
    update(job, &part, &room, prior, job.posterior + p * job.size)
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


cdef int start_job(
    Job* job, Rows rows, str emission, Py_ssize_t n_components, Py_ssize_t n_categories
) except -1:
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
    job.emission = emission_of(EMISSIONS, emission)
    job.centroids = emission_of(EMISSIONS, "spherical")
    job.shape = shape_of(job.emission, n_components, max(rows.n_features, 1), n_categories)
    job.part.shape = job.shape
    job.part.waits = emission == "exponential"
    if emission in FAMILIES:
        job.part.family = family_of(
            <CovarianceType>FAMILIES[emission], n_components, job.shape.n_features
        )
        job.verbs = gaussian_verbs()
        job.has_moments = True
    elif emission in RATES:
        job.verbs = waits_verbs() if job.part.waits else rates_verbs()
    elif emission == "bernoulli":
        job.verbs = zeros_and_ones_verbs()
        job.part.n_symbols = 2
    else:
        job.verbs = symbols_verbs()
        job.part.n_symbols = n_categories
    job.may_be_impossible = not job.has_moments
    job.points = job.shape
    job.points.n_categories = 0
    job.size = 1 + n_components + job.verbs.fields_size(&job.part)
    job.kept = n_components + job.verbs.kept_size(&job.part)
    return 0


cdef int set_models(Job* job, Rows rows, models) except -1:
    """Start a job with these models, and what differs between them."""
    start_job(job, rows, models.emission, models.n_components, models.n_categories)
    if models.prior is None:
        raise TypeError("prior must be (problem, size) or (1, size), not None")
    cdef double[:, ::1] prior = models.prior
    cdef double[:, ::1] rate
    job.part.reg_covar = models.reg_covar
    job.part.flat = models.flat
    job.flat_weights = models.flat_weights
    check_shape(
        "prior", (prior.shape[0], prior.shape[1]),
        (1 if prior.shape[0] == 1 else job.n_problems, job.size),
    )
    job.prior_step = 0 if prior.shape[0] == 1 else job.size
    job.prior = &prior[0, 0]
    if models.emission in RATES:
        if models.rate is None:
            raise TypeError("rate must be (problem, D) or (1, D), not None")
        rate = models.rate
        check_shape(
            "rate", (rate.shape[0], rate.shape[1]),
            (1 if rate.shape[0] == 1 else job.n_problems, rows.n_features),
        )
        job.rate_step = 0 if rate.shape[0] == 1 else rows.n_features
        job.rate = &rate[0, 0]
    return 0


def begin_all(
    Rows rows not None, models, str init, const uint64_t[::1] seeds not None,
    double[:, ::1] posterior not None, int n_threads, *, Py_ssize_t kmeans_sweeps,
    double kmeans_tol, double spread, int64_t[:, ::1] labels=None,
):
    """Write the posterior that each problem starts from: see starts.py.

    Parameters
    ----------
    rows, models : IN, Rows with frames; as in inputs.py
    init : {"kmeans", "k-means++", "random", "random_from_data", "labels"}
    seeds : IN, (problem,)
    posterior : OUT, (problem, size)
    kmeans_sweeps, kmeans_tol : IN
        Sweeps of k-means at most, and the gain a row at which it ends.
    spread : IN
        Share of the rows that components of counts or symbols have in common.
    labels : (problem, most rows of any), the component that each row starts in
        IN with "labels", else OUT.
    """
    cdef Job job
    cdef Py_ssize_t p, row
    set_models(&job, rows, models)
    check_least("kmeans_sweeps", kmeans_sweeps, 0)
    job.kmeans_sweeps = kmeans_sweeps
    job.kmeans_tol = kmeans_tol
    job.spread = spread
    check_shape("seeds", (seeds.shape[0],), (job.n_problems,))
    check_shape("posterior", (posterior.shape[0], posterior.shape[1]), (job.n_problems, job.size))
    job.starts = True
    job.points = shape_within(
        job.shape.n_components, job.verbs.points_size(&job.part), 0
    )
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
    double[:, :, ::1] theta not None, const double[::1] constant=None, double tol=0.0,
    const uint64_t[::1] seeds=None, uint64_t first_sweep=0, Py_ssize_t thin=0,
    const double[::1] best=None, double[:, ::1] common=None, double[:, :, ::1] terms=None,
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
        Sweeps taken; status (1: settled, 2: not, 3: a component shrank onto too few rows, 5: a row
        has probability 0); that component, or K where the objective is no finite number, or that
        row; the last sweep in which the objective fell by more than rounding, or 0.
    theta : OUT, (problem, draw, kept)
        Logarithms of weights (K) and what draws are kept as of the emission's parameters: of the
        last theta; of a chain every `thin`-th, or the one of highest objective if thin is 0.
    constant : IN, (problem,)
        What objectives have of the rows whatever theta is.
    tol : IN
        Settled is an objective that changes by no more a row, and less than before; NaN: of which
        little is left to gain (stopping.pxd).
    seeds, first_sweep : IN, (problem,)
        A chain's draws are named by its seed and the number of the sweep.
    best, common, terms : IN, (kept,); OUT, (problem, draw), (problem, draw, K * K)
        For chains with thin > 0: density of `best` under each kept draw's posterior, as of
        Model.log_density_terms.

    Returns
    -------
    objectives : ndarray
        Of each sweep (with thin > 0: of each kept draw), one problem after the other.
    """
    cdef Job job
    cdef double[::1] objectives
    cdef Py_ssize_t i, length, n, n_kept, p
    cdef Py_ssize_t place = 0
    set_models(&job, rows, models)
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
    check_shape(
        "theta", (theta.shape[0], theta.shape[1], theta.shape[2]), (n, n_kept, job.kept)
    )
    if constant is not None:
        check_shape("constant", (constant.shape[0],), (n,))
        job.constant = &constant[0]
    job.posterior = &posterior[0, 0]
    job.state = &state[0, 0]
    job.theta = &theta[0, 0, 0]
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
            (n, n_kept, job.shape.n_components * job.shape.n_components),
        )
        check_shape("best", (best.shape[0],), (job.kept,))
        job.best = &best[0]
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
