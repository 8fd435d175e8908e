# Factors of precision matrices, on the calling thread: a BLAS that wakes threads of its own between
# two sweeps would contend with those of the sweeps.

from .triangle cimport cholesky, invert


def precision_factors(
    const double[:, :, ::1] matrices not None, const double[::1] scale not None, double tiny,
    double[:, ::1] room not None, double[:, :, ::1] out not None,
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
            if not cholesky(n, &matrices[g, 0, 0], scale[g], tiny, &room[0, 0], &room[n, 0]):
                bad = g
                break
            invert(n, &room[0, 0], &out[g, 0, 0])
    return bad
