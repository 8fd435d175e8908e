# A tile: a block of rows, transposed, so that the vector lanes run over rows. What is said here is
# shared by every emission and every latent structure.

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "lanes.h" nogil:
    const Py_ssize_t LANES
    ctypedef double lanes  # really a vector of LANES doubles
    lanes lanes_set(double x)
    lanes lanes_max(lanes a, lanes b)
    double lanes_sum(lanes a)
    void lanes_add_sums(
        lanes a0, lanes a1, lanes a2, lanes a3, lanes b0, lanes b1, lanes b2, lanes b3,
        double* first, double* second,
    )
    lanes lanes_keep_between(lanes value, lanes low, lanes x, lanes high)
    lanes lanes_exp(lanes x)
    lanes lanes_log(lanes x)


cdef extern from "philox.h" nogil:
    double philox_uniform(uint64_t seed, uint32_t sweep, uint64_t row, uint32_t copy)


cdef extern from "threads.h" nogil:
    int thread_index()
    int openmp_threads()
    int openmp_version()
    double seconds()
    void* aligned_memory(size_t size)
    void free_aligned(void* memory)


# Rows of a tile are a multiple of this at every SIMD level, so that the blocks of rows, and with
# them the order of every sum, never depend on what the rest of a machine looks like.
cdef enum:
    ROW_BLOCK = 32
    # Rows whose scores are turned into q(T) while they are in the first-level cache.
    ASSIGN_ROWS = 64
    # Features after a tile's last, and components after the scores' last, that a kernel working in
    # blocks may read without using them.
    TILE_PADDING = 3
    SCORES_PADDING = 1


cdef inline Py_ssize_t stride_of(Py_ssize_t n_rows) noexcept nogil:
    """Doubles from one feature or component of a tile to the next.

    A cache line more than the rows: a power of two would put the same row of all of them into the
    same few places of the cache.
    """
    return n_rows + 8


cdef struct Shape:
    Py_ssize_t n_components
    Py_ssize_t n_features


# What a latent structure's kernel knows of an emission: five functions. `coefficients` is one
# buffer, written by the Python side of the emission and read by nobody else.
cdef struct Emission:
    # Doubles of coefficients, of workspace for a tile of n_rows, and of statistics. Tile, scores
    # and q are (features or components, rows), `stride` doubles apart.
    Py_ssize_t (*coefficients_size)(Shape shape) noexcept nogil
    Py_ssize_t (*workspace_size)(Shape shape, Py_ssize_t n_rows) noexcept nogil
    Py_ssize_t (*statistics_size)(Shape shape) noexcept nogil
    # scores[k, row] = offsets[k] + log p(row | k), up to what offsets hold.
    void (*scores)(
        Shape shape, const double* coefficients, const double* offsets,
        const double* tile, Py_ssize_t n_rows, Py_ssize_t stride,
        double* workspace, double* scores,
    ) noexcept nogil
    # statistics += sum over rows of q[k, row] * (what row brings).
    void (*accumulate)(
        Shape shape, const double* coefficients,
        const double* tile, Py_ssize_t n_rows, Py_ssize_t stride, const double* q,
        double* workspace, double* statistics,
    ) noexcept nogil


# Where data lies: strides in bytes, values float64 or float32; `origin` is subtracted from every
# row and `scale` multiplied to it as the row is read.
cdef struct Source:
    const char* values
    Py_ssize_t row_stride
    Py_ssize_t column_stride
    bint single  # float32
    const double* origin
    const double* scale


cdef inline void read_tile(
    Source source, Py_ssize_t n_features, Py_ssize_t first, Py_ssize_t n_used,
    Py_ssize_t n_rows, Py_ssize_t stride, double* tile,
) noexcept nogil:
    """Read rows first .. first + n_used into tile[feature, row]; the rest of n_rows is zero."""
    cdef Py_ssize_t d, row
    cdef double origin, scale
    cdef double* out
    cdef const char* values
    for d in range(n_features):
        origin = source.origin[d]
        scale = source.scale[d]
        out = tile + d * stride
        values = source.values + first * source.row_stride + d * source.column_stride
        if source.single:
            for row in range(n_used):
                out[row] = (<double>(<const float*>(values + row * source.row_stride))[0]
                            - origin) * scale
        else:
            for row in range(n_used):
                out[row] = ((<const double*>(values + row * source.row_stride))[0]
                            - origin) * scale
        for row in range(n_used, n_rows):
            out[row] = 0.0


cdef inline Py_ssize_t rows_of_tile(Py_ssize_t doubles_per_row) noexcept nogil:
    """Rows of which a tile and what is computed from it stay within the nearer caches."""
    cdef Py_ssize_t n_rows = 6144 // doubles_per_row // ROW_BLOCK * ROW_BLOCK
    return max(4 * ROW_BLOCK, min(8 * ROW_BLOCK, n_rows))


cdef inline Py_ssize_t rows_of_chunk(
    Py_ssize_t n_rows, Py_ssize_t tile_rows, Py_ssize_t statistics_size
) noexcept nogil:
    """Rows of a chunk, the unit that threads take and whose statistics are added up in order.

    A function of the shapes alone: never of the number of threads. At most 64 chunks, fewer (but
    8) where their statistics would take more than 16 MB together.
    """
    cdef Py_ssize_t chunks = max(8, min(64, 2097152 // max(1, statistics_size)))
    cdef Py_ssize_t tiles = (n_rows + tile_rows - 1) // tile_rows
    return (tiles + chunks - 1) // chunks * tile_rows
