# Gaussians of rows of which some features are missing, told as NaN.
#
# Of a component's precision A'A the columns of A that belong to what is missing, A_m, take part in
#
#   min over u of |A z + A_m u|^2,  z = x - m where x is seen, else 0,
#
# which is the squared distance of what is seen; m + u is the expectation of what is not, and
# (A_m'A_m)^-1 its covariance. Each lane is a row, with gaps of its own: columns are made orthogonal
# (by the modified method of Gram and Schmidt, which is stable: Bjorck 1996, section 2.4) for all
# features that are missing in some of the lanes, and are 0 in lanes where they are seen. Rows with
# the same gaps, one after the other, take the same columns: mixtures have them side by side.

from libc.stdint cimport int32_t

from .tile cimport (
    LANES,
    lanes,
    lanes_log,
    lanes_replace_equal,
    lanes_set,
    lanes_sum,
    lines,
    real,
)


cdef enum:
    # Vectors of rows that are multiplied by A side by side.
    ABREAST = 4


cdef struct Gaps:  # of LANES rows
    Py_ssize_t n
    bint again               # whether they are those of the LANES rows before
    const int32_t* features  # (n,), in descending order
    const lanes* missing     # (n,): 1 in the rows where that feature is missing, else 0


# What is found for some gaps and one component, and for the rows that have them.
cdef struct Completion:
    lanes* columns   # (n, D): V, orthogonal; of column a what is from row features[a] on
    lanes* weight    # (n,): 1 / |v|^2 of its columns, 1 where a feature is seen
    lanes* upper     # (n, n): R, unit upper triangular, with A_m = V R
    lanes* inverse   # (n, n): R^-1
    lanes* log_det   # (1,): log|A_m'A_m|
    lanes* distance  # (D, ABREAST): z
    lanes* rest      # (D, ABREAST): A z + A_m u
    lanes* gap       # (n,): u


cdef inline Py_ssize_t bytes_of(Py_ssize_t n_bytes) noexcept nogil:
    """Numbers that so many bytes take, in whole cache lines."""
    return 2 * lines((n_bytes + <Py_ssize_t>sizeof(real) - 1) // <Py_ssize_t>sizeof(real))


cdef inline Py_ssize_t gaps_size(Py_ssize_t n_features, Py_ssize_t n_rows) noexcept nogil:
    """Numbers that gaps of so many rows take."""
    cdef Py_ssize_t n_vectors = n_rows // LANES
    return (
        bytes_of(n_vectors * sizeof(Gaps)) + n_rows * n_features
        + bytes_of(n_vectors * n_features * sizeof(int32_t))
    )


cdef inline Py_ssize_t completion_size(Py_ssize_t n_features) noexcept nogil:
    return LANES * (n_features * (3 * n_features + 2 + 2 * ABREAST) + 1)


cdef inline Completion completion_in(Py_ssize_t n_features, real* room) noexcept nogil:
    cdef Completion out
    cdef Py_ssize_t square = n_features * n_features
    out.columns = <lanes*>room
    out.upper = out.columns + square
    out.inverse = out.upper + square
    out.weight = out.inverse + square
    out.gap = out.weight + n_features
    out.distance = out.gap + n_features
    out.rest = out.distance + ABREAST * n_features
    out.log_det = out.rest + ABREAST * n_features
    return out


cdef inline Gaps* find_gaps(
    Py_ssize_t n_features, const real* tile, Py_ssize_t n_rows, Py_ssize_t stride, real* room
) noexcept nogil:
    """Gaps of each LANES rows of a tile, in gaps_size numbers of room."""
    cdef Py_ssize_t n_vectors = n_rows // LANES
    cdef Gaps* gaps = <Gaps*>room
    cdef lanes* missing = <lanes*>(room + bytes_of(n_vectors * sizeof(Gaps)))
    cdef int32_t* features = <int32_t*>(missing + n_vectors * n_features)
    cdef Py_ssize_t d, i, v
    cdef lanes absent, differ, x
    for v in range(n_vectors):
        i = 0
        differ = lanes_set(0.0)
        for d in range(n_features):
            x = (<const lanes*>(tile + d * stride))[v]
            differ = lanes_replace_equal(lanes_set(1.0), differ, x, x)
        gaps[v].n = 0
        gaps[v].again = False
        if lanes_sum(differ) == 0.0:
            continue
        differ = lanes_set(0.0)
        for d in range(n_features - 1, -1, -1):
            x = (<const lanes*>(tile + d * stride))[v]
            absent = lanes_replace_equal(lanes_set(1.0), lanes_set(0.0), x, x)
            if lanes_sum(absent) > 0.0:
                missing[i] = absent
                features[i] = <int32_t>d
                if v > 0 and i < gaps[v - 1].n and gaps[v - 1].features[i] == d:
                    differ = differ + (absent - gaps[v - 1].missing[i]) * (
                        absent - gaps[v - 1].missing[i]
                    )
                else:
                    differ = lanes_set(1.0)
                i += 1
        gaps[v].n = i
        gaps[v].again = v > 0 and i == gaps[v - 1].n and lanes_sum(differ) == 0.0
        gaps[v].features = features
        gaps[v].missing = missing
        missing = missing + i
        features = features + i
    return gaps


cdef inline void see_distances(
    Py_ssize_t n_features, const real* mean, const real* factor, const lanes* x, Py_ssize_t step,
    Completion* out,
) noexcept nogil:
    """z and A z of ABREAST vectors of rows."""
    cdef Py_ssize_t i, j
    cdef lanes a0, a1, a2, a3, c, y
    cdef lanes zero = lanes_set(0.0)
    cdef lanes* z = out.distance
    cdef lanes* to = out.rest
    for i in range(n_features):
        c = lanes_set(mean[i])
        for j in range(ABREAST):
            y = x[i * step + j]
            z[j] = lanes_replace_equal(zero, y - c, y, y)
        z = z + ABREAST
    for i in range(n_features):
        a0 = zero
        a1 = zero
        a2 = zero
        a3 = zero
        z = out.distance
        for j in range(i + 1):
            c = lanes_set(factor[i * n_features + j])
            a0 = a0 + c * z[0]
            a1 = a1 + c * z[1]
            a2 = a2 + c * z[2]
            a3 = a3 + c * z[3]
            z = z + ABREAST
        to[0] = a0
        to[1] = a1
        to[2] = a2
        to[3] = a3
        to = to + ABREAST


cdef inline void orthogonalise(
    Py_ssize_t n_features, const real* factor, const Gaps* gaps, Completion* out
) noexcept nogil:
    """Columns, weights, R and the determinant for these gaps."""
    cdef Py_ssize_t n = gaps.n
    cdef Py_ssize_t a, b, first, i
    cdef lanes one = lanes_set(1.0)
    cdef lanes absent, product, total
    cdef lanes determinant = one
    cdef lanes logs = lanes_set(0.0)
    cdef lanes* column
    cdef const lanes* other
    for a in range(n):
        first = gaps.features[a]
        absent = gaps.missing[a]
        column = out.columns + a * n_features
        for i in range(first, n_features):
            column[i] = absent * lanes_set(factor[i * n_features + first])
        for b in range(a):
            other = out.columns + b * n_features
            product = lanes_set(0.0)
            for i in range(gaps.features[b], n_features):
                product = product + other[i] * column[i]
            product = product * out.weight[b]
            out.upper[b * n + a] = product
            for i in range(gaps.features[b], n_features):
                column[i] = column[i] - product * other[i]
        total = one - absent
        for i in range(first, n_features):
            total = total + column[i] * column[i]
        out.weight[a] = one / total
        # Of four squared lengths the product is a number still.
        determinant = determinant * total
        if a % 4 == 3 or a == n - 1:
            logs = logs + lanes_log(determinant)
            determinant = one
    out.log_det[0] = logs


cdef inline lanes take_off(
    Py_ssize_t n_features, const Gaps* gaps, Py_ssize_t vector, Completion* out
) noexcept nogil:
    """rest and -R u of one of the ABREAST vectors of rows; return the squared distance."""
    cdef Py_ssize_t a, i
    cdef lanes product
    cdef lanes total = lanes_set(0.0)
    cdef lanes* rest = out.rest + vector
    cdef const lanes* column
    for a in range(gaps.n):
        column = out.columns + a * n_features
        product = lanes_set(0.0)
        for i in range(gaps.features[a], n_features):
            product = product + column[i] * rest[i * ABREAST]
        product = product * out.weight[a]
        out.gap[a] = product
        for i in range(gaps.features[a], n_features):
            rest[i * ABREAST] = rest[i * ABREAST] - product * column[i]
    for i in range(n_features):
        total = total + rest[i * ABREAST] * rest[i * ABREAST]
    return total


cdef inline void fill(const Gaps* gaps, Completion* out) noexcept nogil:
    """u of what `take_off` has left."""
    cdef Py_ssize_t n = gaps.n
    cdef Py_ssize_t a, b
    cdef lanes value
    for a in range(n - 1, -1, -1):
        value = lanes_set(0.0) - out.gap[a]
        for b in range(a + 1, n):
            value = value - out.upper[a * n + b] * out.gap[b]
        out.gap[a] = value


cdef inline void invert_upper(Py_ssize_t n, Completion* out) noexcept nogil:
    """R^-1, of which the upper triangle counts."""
    cdef Py_ssize_t a, b, c
    cdef lanes total
    for b in range(n):
        out.inverse[b * n + b] = lanes_set(1.0)
        for a in range(b - 1, -1, -1):
            total = out.upper[a * n + b]
            for c in range(a + 1, b):
                total = total + out.upper[a * n + c] * out.inverse[c * n + b]
            out.inverse[a * n + b] = lanes_set(0.0) - total


cdef inline void spread_out(
    Py_ssize_t n_features, const Gaps* gaps, lanes weight, Completion* out, lanes* spread
) noexcept nogil:
    """spread (D, D), of which j <= i counts, += weight times the covariances of these gaps."""
    cdef Py_ssize_t n = gaps.n
    cdef Py_ssize_t a, b, c
    cdef lanes total
    cdef lanes* to
    invert_upper(n, out)
    for a in range(n):
        for b in range(a + 1):
            total = lanes_set(0.0)
            for c in range(a, n):
                total = total + (
                    out.inverse[a * n + c] * out.inverse[b * n + c] * out.weight[c]
                )
            to = spread + gaps.features[b] * n_features + gaps.features[a]
            to[0] = to[0] + weight * total * gaps.missing[a] * gaps.missing[b]
