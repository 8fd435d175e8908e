# Factors of precision matrices, on the calling thread: a BLAS that wakes threads of its own between
# two sweeps would contend with those of the sweeps.

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer

from .triangle cimport inverse_factor

ctypedef void (*Pstrf)(
    char*, int*, double*, int*, int*, int*, double*, double*, int*
) noexcept nogil


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
            if not inverse_factor(
                n, &matrices[g, 0, 0], scale[g], tiny, &room[0, 0], &room[n, 0], &out[g, 0, 0]
            ):
                bad = g
                break
    return bad


def pivoted_cholesky(
    double[::1, :] matrix not None, int[::1] pivots not None, double[::1] room not None
):
    """Write a factor L with pivots, P'AP = LL' but for rounding, over the lower triangle of A.

    By LAPACK's pstrf of SciPy, whose own wrapper keeps the interpreter's lock.

    Parameters
    ----------
    matrix : IN/OUT, (D, D), semidefinite, by columns, of which the lower triangle is read
    pivots : OUT, (D,), row of A that each row of L is of, from 1
    room : scratch, (2 D,)

    Returns
    -------
    Rank: columns of L after so many mean nothing.
    """
    from scipy.linalg import cython_lapack

    cdef int n = <int>matrix.shape[0]
    cdef int rank = 0
    cdef int info = 0
    cdef double tolerance = -1.0  # LAPACK's own
    cdef char lower = b"L"
    cdef object capsule = cython_lapack.__pyx_capi__["dpstrf"]
    # The signature, in which a LAPACK of 64-bit integers would have others.
    cdef bytes signature = PyCapsule_GetName(capsule)
    cdef Pstrf pstrf = <Pstrf>PyCapsule_GetPointer(capsule, signature)
    if signature.count(b", int *") != 5:
        raise ImportError(f"SciPy's dpstrf is not of 32-bit integers: {signature.decode()}")
    if (
        n != matrix.shape[0] or matrix.shape[1] != n or pivots.shape[0] != n
        or room.shape[0] != 2 * <Py_ssize_t>n
    ):
        raise ValueError("matrix, pivots and room do not go together")
    if n > 0:
        with nogil:
            pstrf(
                &lower, &n, &matrix[0, 0], &n, &pivots[0], &rank, &tolerance, &room[0], &info
            )
    return rank
