# A tile: a block of rows, transposed, so that the vector lanes run over rows. What is said here is
# shared by every emission and every latent structure.

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "lanes.h" nogil:
    const Py_ssize_t LANES
    ctypedef double real  # double, or float in kernels compiled for single precision
    ctypedef double lanes  # really a vector of LANES reals
    ctypedef double loose_lanes  # the same, wherever it lies in memory
    lanes lanes_set(double x)
    lanes lanes_load(const lanes* start)
    lanes lanes_max(lanes a, lanes b)
    lanes lanes_min(lanes a, lanes b)
    double lanes_sum(lanes a)
    Py_ssize_t count_above(const real* values, Py_ssize_t n, double limit)
    void lanes_add_sums(
        lanes a0, lanes a1, lanes a2, lanes a3, lanes b0, lanes b1, lanes b2, lanes b3,
        double* first, double* second,
    )
    lanes lanes_add_from(lanes total, lanes value, lanes x, lanes limit)
    lanes lanes_keep_from(lanes value, lanes x, lanes limit)
    lanes lanes_keep_between(lanes value, lanes low, lanes x, lanes high)
    lanes lanes_replace_above(lanes old, lanes new, lanes x, lanes y)
    lanes lanes_replace_from(lanes old, lanes new, lanes x, lanes y)
    lanes lanes_replace_equal(lanes old, lanes new, lanes x, lanes y)
    lanes lanes_exp(lanes x)
    lanes lanes_log(lanes x)


cdef extern from "transpose.h" nogil:
    const Py_ssize_t SQUARE
    void read_square(
        const char* values, Py_ssize_t row_stride, bint single, Py_ssize_t n,
        const double* origin, const double* scale, Py_ssize_t ahead, real* out, Py_ssize_t stride,
    )
    void gather_square(
        const char* const* rows, bint single, Py_ssize_t n, const double* origin,
        const double* scale, Py_ssize_t ahead, real* out, Py_ssize_t stride,
    )


cdef extern from "philox.h" nogil:
    double philox_uniform(uint64_t seed, uint32_t sweep, uint64_t row, uint32_t copy)
    void philox_uniforms(
        uint64_t seed, uint32_t sweep, uint64_t first_row, Py_ssize_t n_rows, double* out
    )


cdef extern from "threads.h" nogil:
    int thread_index()
    int openmp_threads()
    int openmp_version()
    double seconds()
    Py_ssize_t add_one(Py_ssize_t* number)
    Py_ssize_t look_at(const Py_ssize_t* number)
    void rest()
    void* aligned_memory(size_t size)
    void free_aligned(void* memory)


# Rows of a tile are a multiple of this at every SIMD level, so that the blocks of rows, and with
# them the order of every sum, never depend on what the rest of a machine looks like. Four vectors
# of the widest level.
cdef extern from *:
    """
    #define ROW_BLOCK (256 / (Py_ssize_t)sizeof(real))
    """
    const Py_ssize_t ROW_BLOCK

cdef enum:
    # Features after a tile's last, and components after the scores' last, that a kernel working in
    # blocks may read without using them.
    TILE_PADDING = 3
    SCORES_PADDING = 1
    # Features of which a tile's rows stay in the first-level cache, weighted ones beside them.
    PANEL = 16
    # Runs of rows that are read side by side: at every SIMD level, of 1 vector or more.
    BUNDLE = 8


cdef inline Py_ssize_t even(Py_ssize_t n) noexcept nogil:
    return (n + 1) // 2 * 2


cdef inline Py_ssize_t fours(Py_ssize_t n) noexcept nogil:
    return (n + 3) // 4 * 4


cdef inline Py_ssize_t lines(Py_ssize_t n) noexcept nogil:
    """n numbers of 8 bytes, rounded up to whole cache lines."""
    return (n + 7) // 8 * 8


cdef inline Py_ssize_t stride_of(Py_ssize_t n_rows) noexcept nogil:
    """Numbers from one feature or component of a tile to the next.

    A cache line more than the rows: a power of two would put the same row of all of them into the
    same few places of the cache.
    """
    return n_rows + 64 // <Py_ssize_t>sizeof(real)


cdef struct Part  # of a product of emissions: see below


cdef struct Shape:
    Py_ssize_t n_components
    Py_ssize_t n_features
    Py_ssize_t n_categories  # of symbols; 0 where features are numbers
    # Of a product the emissions that it is made of; NULL, 0 of all others.
    const Part* parts
    Py_ssize_t n_parts


# What a latent structure's kernel knows of an emission: six functions. `coefficients` is one
# buffer, written by the Python side of the emission and read by nobody else.
cdef struct Emission:
    # Numbers of coefficients, of workspace for a tile of n_rows, and of statistics. Tile, scores
    # and q are (features or components, rows), `stride` numbers apart.
    Py_ssize_t (*coefficients_size)(Shape shape) noexcept nogil
    Py_ssize_t (*workspace_size)(Shape shape, Py_ssize_t n_rows) noexcept nogil
    Py_ssize_t (*statistics_size)(Shape shape) noexcept nogil
    # scores[k, row] = offsets[k] + log p(row | k), up to what offsets hold.
    void (*scores)(
        Shape shape, const real* coefficients, const real* offsets,
        const real* tile, Py_ssize_t n_rows, Py_ssize_t stride,
        real* workspace, real* scores,
    ) noexcept nogil
    # statistics += sum over rows of q[k, row] * (what row brings). What rows of q[k, row] <=
    # limits[k] bring is below rounding, and may be left out: all of them where that is infinite.
    void (*accumulate)(
        Shape shape, const real* coefficients,
        const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, const real* q,
        const double* limits, real* workspace, double* statistics,
    ) noexcept nogil
    # Coefficients in single precision.
    void (*convert)(Shape shape, const double* coefficients, real* converted) noexcept nogil


# An emission of a product: it sees `shape.n_features` of a tile's features, from `first_feature`
# on.
cdef struct Part:
    const Emission* emission
    Shape shape
    Py_ssize_t first_feature
    # What of a row may be missing for it, told as NaN. Where that is not nothing its coefficients
    # begin with offsets of its own, (K), its statistics with the rows that were seen, (K).
    int may_miss


cdef enum:
    # Nothing; all of its features; any of them.
    NOTHING_MISSES = 0
    ROWS_MISS = 1
    VALUES_MISS = 2


# Where data lies: strides in bytes, values float64 or float32; `origin` is subtracted from every
# row and `scale` multiplied to it as the row is read. A tile's feature d is column columns[d].
cdef struct Source:
    const char* values
    Py_ssize_t row_stride
    Py_ssize_t column_stride
    bint single  # float32
    const double* origin
    const double* scale
    const Py_ssize_t* columns  # NULL: all of them, in their order


cdef inline Py_ssize_t column_of(const Source* source, Py_ssize_t d) noexcept nogil:
    return d if source.columns == NULL else source.columns[d]


cdef inline Py_ssize_t side_by_side(
    const Source* source, Py_ssize_t d, Py_ssize_t most
) noexcept nogil:
    """How many columns, `most` at most, follow one another from that of feature d on."""
    cdef Py_ssize_t n = 1
    if source.columns == NULL:
        return most
    while n < most and source.columns[d + n] == source.columns[d] + n:
        n += 1
    return n


cdef inline void read_column(
    Source source, Py_ssize_t d, Py_ssize_t first, Py_ssize_t begin, Py_ssize_t end, real* out
) noexcept nogil:
    """out[row] = feature d of row first + row, centred and scaled, for begin <= row < end."""
    cdef Py_ssize_t column = column_of(&source, d)
    cdef const char* values = (
        source.values + first * source.row_stride + column * source.column_stride
    )
    cdef double origin = source.origin[column]
    cdef double scale = source.scale[column]
    cdef Py_ssize_t row
    if source.single:
        for row in range(begin, end):
            out[row] = <real>((<double>(<const float*>(values + row * source.row_stride))[0]
                               - origin) * scale)
    else:
        for row in range(begin, end):
            out[row] = <real>(((<const double*>(values + row * source.row_stride))[0]
                               - origin) * scale)


cdef inline void read_tile(
    Source source, Py_ssize_t n_features, Py_ssize_t first, Py_ssize_t n_used,
    Py_ssize_t n_rows, Py_ssize_t stride, real* tile,
) noexcept nogil:
    """Read rows first .. first + n_used into tile[feature, row]; the rest of n_rows is zero."""
    cdef Py_ssize_t column, d, row, width
    cdef Py_ssize_t in_squares = 0
    if SQUARE > 0 and source.column_stride == (4 if source.single else 8) and n_features > 2:
        in_squares = n_used - n_used % max(SQUARE, 1)
        row = 0
        while row < in_squares:
            d = 0
            while d < n_features:
                column = column_of(&source, d)
                width = side_by_side(&source, d, min(n_features - d, SQUARE))
                read_square(
                    source.values + (first + row) * source.row_stride
                    + column * source.column_stride,
                    source.row_stride, source.single, width,
                    source.origin + column, source.scale + column, n_rows * source.row_stride,
                    tile + d * stride + row, stride,
                )
                d += width
            row += SQUARE
    for d in range(n_features):
        read_column(source, d, first, in_squares, n_used, tile + d * stride)
        for row in range(n_used, n_rows):
            tile[d * stride + row] = 0


cdef inline void read_spans(
    Source source, Py_ssize_t n_features, const Py_ssize_t* first, const Py_ssize_t* length,
    Py_ssize_t begin, Py_ssize_t n_rows, Py_ssize_t stride, real* tile,
) noexcept nogil:
    """Read BUNDLE runs of rows side by side, n_rows in all from step `begin` of each on.

    tile[feature, step * BUNDLE + i] = row first[i] + begin + step; a run of length[i] rows that has
    come to its end stays at its last row.
    """
    cdef const char* rows[BUNDLE]
    cdef const char* places[BUNDLE]
    cdef Py_ssize_t column, d, i, n, step
    cdef Py_ssize_t width = max(SQUARE, 1)
    cdef double x
    cdef bint in_squares = (
        SQUARE > 0 and source.column_stride == (4 if source.single else 8) and n_features > 2
    )
    for step in range(n_rows // BUNDLE):
        for i in range(BUNDLE):
            rows[i] = source.values + source.row_stride * (
                first[i] + min(begin + step, length[i] - 1)
            )
        d = 0
        while d < n_features:
            column = column_of(&source, d)
            for i in range(BUNDLE):
                places[i] = rows[i] + column * source.column_stride
            if in_squares:
                n = side_by_side(&source, d, min(n_features - d, width))
                i = 0
                while i < BUNDLE:
                    gather_square(
                        places + i, source.single, n, source.origin + column,
                        source.scale + column, BUNDLE * source.row_stride,
                        tile + d * stride + step * BUNDLE + i, stride,
                    )
                    i += width
                d += n
                continue
            for i in range(BUNDLE):
                if source.single:
                    x = (<const float*>places[i])[0]
                else:
                    x = (<const double*>places[i])[0]
                tile[d * stride + step * BUNDLE + i] = <real>(
                    (x - source.origin[column]) * source.scale[column]
                )
            d += 1


cdef inline void products(
    Py_ssize_t n_left, Py_ssize_t n_right, bint lower, Py_ssize_t n_vectors, Py_ssize_t stride,
    const lanes* left, const lanes* right, double* out, Py_ssize_t columns,
) noexcept nogil:
    """out[i, j] += sum over rows of left[i] * right[j], in blocks of 2 x 4; only j <= i if lower.

    out has even(n_left) rows, `columns` apart, of fours(n_right), the last of which are padding, as
    are the rows of left and right that they come from: those may hold anything.
    """
    cdef Py_ssize_t i, j, v, end
    cdef const lanes* l0
    cdef const lanes* l1
    cdef const lanes* r0
    cdef const lanes* r1
    cdef const lanes* r2
    cdef const lanes* r3
    cdef lanes a0, a1, a2, a3, b0, b1, b2, b3, x, y, r
    for i in range(0, n_left, 2):
        l0 = left + i * stride
        l1 = l0 + stride
        end = min(i + 2, n_right) if lower else n_right
        for j in range(0, end, 4):
            r0 = right + j * stride
            r1 = r0 + stride
            r2 = r1 + stride
            r3 = r2 + stride
            a0 = lanes_set(0.0)
            a1 = a0
            a2 = a0
            a3 = a0
            b0 = a0
            b1 = a0
            b2 = a0
            b3 = a0
            if end - j > 2:
                for v in range(n_vectors):
                    x = lanes_load(l0 + v)
                    y = lanes_load(l1 + v)
                    r = lanes_load(r0 + v)
                    a0 = a0 + x * r
                    b0 = b0 + y * r
                    r = lanes_load(r1 + v)
                    a1 = a1 + x * r
                    b1 = b1 + y * r
                    r = lanes_load(r2 + v)
                    a2 = a2 + x * r
                    b2 = b2 + y * r
                    r = lanes_load(r3 + v)
                    a3 = a3 + x * r
                    b3 = b3 + y * r
            else:
                # Two columns only: two vectors at a time, for as many sums that need not wait.
                for v in range(0, n_vectors, 2):
                    x = l0[v]
                    y = l1[v]
                    a0 = a0 + x * r0[v]
                    a1 = a1 + x * r1[v]
                    b0 = b0 + y * r0[v]
                    b1 = b1 + y * r1[v]
                    x = l0[v + 1]
                    y = l1[v + 1]
                    a2 = a2 + x * r0[v + 1]
                    a3 = a3 + x * r1[v + 1]
                    b2 = b2 + y * r0[v + 1]
                    b3 = b3 + y * r1[v + 1]
                a0 = a0 + a2
                a1 = a1 + a3
                b0 = b0 + b2
                b1 = b1 + b3
                a2 = lanes_set(0.0)
                a3 = a2
                b2 = a2
                b3 = a2
            lanes_add_sums(
                a0, a1, a2, a3, b0, b1, b2, b3, out + i * columns + j, out + (i + 1) * columns + j
            )


cdef inline double sum_rows(const real* values, Py_ssize_t n_rows) noexcept nogil:
    """The sum of n_rows numbers, in four parts of which none need wait for another."""
    cdef const lanes* rows = <const lanes*>values
    cdef lanes s0 = lanes_set(0.0)
    cdef lanes s1 = s0, s2 = s0, s3 = s0
    cdef Py_ssize_t v
    for v in range(0, n_rows // LANES, 4):
        s0 = s0 + rows[v]
        s1 = s1 + rows[v + 1]
        s2 = s2 + rows[v + 2]
        s3 = s3 + rows[v + 3]
    return lanes_sum((s0 + s1) + (s2 + s3))


cdef inline Py_ssize_t rows_of_tile(Py_ssize_t n_features) noexcept nogil:
    """Rows of which a panel, and the same weighted, stay in the first-level cache."""
    return 64 // max(8, min(n_features, PANEL)) * ROW_BLOCK


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
