# Factors of precision matrices, on the calling thread: a BLAS that wakes threads of its own between
# two sweeps would contend with those of the sweeps.
#
# Inner loops run along rows, so that compilers make vectors of them.

from libc.math cimport sqrt


cdef Py_ssize_t factor(
    Py_ssize_t n, const double* matrix, double scale, double tiny, double* lower, double* column,
    double* out,
) noexcept nogil:
    """out = the inverse of matrix / scale's lower Cholesky factor; 0 if there is none, else 1.

    A squared pivot must exceed `tiny`, and what rounding leaves. `lower` (n, n), `column` (n).
    """
    cdef Py_ssize_t i, j, k
    cdef double pivot, value
    for i in range(n):
        for k in range(i + 1):
            lower[i * n + k] = matrix[i * n + k] / scale
    for j in range(n):
        # What rows above have left of the pivot is subtracted already.
        pivot = lower[j * n + j]
        value = 2.0 * n * 2.220446049250313e-16 * matrix[j * n + j] / scale
        if not (pivot > value and pivot > tiny):
            return 0
        pivot = sqrt(pivot)
        lower[j * n + j] = pivot
        for i in range(j + 1, n):
            lower[i * n + j] = lower[i * n + j] / pivot
            column[i] = lower[i * n + j]
        for i in range(j + 1, n):
            value = column[i]
            for k in range(j + 1, i + 1):
                lower[i * n + k] = lower[i * n + k] - value * column[k]
    for i in range(n):
        for k in range(n):
            out[i * n + k] = 0.0
        for j in range(i):
            value = lower[i * n + j]
            for k in range(j + 1):
                out[i * n + k] = out[i * n + k] - value * out[j * n + k]
        pivot = 1.0 / lower[i * n + i]
        for k in range(i):
            out[i * n + k] = out[i * n + k] * pivot
        out[i * n + i] = pivot
    return 1


def precision_factors(
    const double[:, :, ::1] matrices, const double[::1] scale, double tiny, double[:, ::1] room,
    double[:, :, ::1] out,
):
    """Write A with A'A = scale * matrix^-1, lower triangular, for each symmetric matrix.

    Parameters
    ----------
    matrices : IN, (G, D, D), of which the lower triangles are read; scale : IN, (G,)
    tiny : smallest squared pivot of matrix / scale that is taken for more than rounding
    room : scratch, (D + 1, D)
    out : OUT, (G, D, D)

    Returns
    -------
    Number of the first matrix that is not positive definite, or -1.
    """
    cdef Py_ssize_t g
    cdef Py_ssize_t n = matrices.shape[1]
    cdef Py_ssize_t bad = -1
    if (
        matrices.shape[2] != n or scale.shape[0] != matrices.shape[0]
        or out.shape[0] != matrices.shape[0] or out.shape[1] != n or out.shape[2] != n
        or room.shape[0] != n + 1 or room.shape[1] != n
    ):
        raise ValueError("matrices, scale, room and out do not go together")
    with nogil:
        for g in range(matrices.shape[0]):
            if not factor(
                n, &matrices[g, 0, 0], scale[g], tiny, &room[0, 0], &room[n, 0], &out[g, 0, 0]
            ):
                bad = g
                break
    return bad
