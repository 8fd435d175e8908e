# Triangular factors of symmetric matrices. Inner loops run along rows, so that compilers make
# vectors of them.

from libc.math cimport log, sqrt


cdef extern from *:
    """
    #define EPS 2.220446049250313e-16
    #define RESOLVED 1e-13
    """
    const double EPS
    const double RESOLVED


cdef inline bint cholesky(
    Py_ssize_t n, const double* matrix, double scale, double tiny, double* lower, double* column
) noexcept nogil:
    """Cholesky factor of matrix / scale; False where it is not positive definite.

    A squared pivot must exceed `tiny`, and be known but for rounding, which takes some 2 n eps of
    the diagonal: at a share of RESOLVED it has lost all but three digits. Only the lower triangles
    are read and written. `column` (n) is scratch.
    """
    cdef Py_ssize_t i, j, k
    cdef double pivot, value
    for i in range(n):
        for k in range(i + 1):
            lower[i * n + k] = matrix[i * n + k] / scale
    for j in range(n):
        # What rows above have left of the pivot is subtracted already.
        pivot = lower[j * n + j]
        value = max(2.0 * n * EPS, RESOLVED) * matrix[j * n + j] / scale
        if not (pivot > value and pivot > tiny):
            return False
        pivot = sqrt(pivot)
        lower[j * n + j] = pivot
        for i in range(j + 1, n):
            lower[i * n + j] = lower[i * n + j] / pivot
            column[i] = lower[i * n + j]
        for i in range(j + 1, n):
            value = column[i]
            for k in range(j + 1, i + 1):
                lower[i * n + k] = lower[i * n + k] - value * column[k]
    return True


cdef inline void invert(Py_ssize_t n, const double* lower, double* out) noexcept nogil:
    """out = the inverse of a lower triangular matrix, with zeros above the diagonal."""
    cdef Py_ssize_t i, j, k
    cdef double pivot, value
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


cdef inline bint inverse_factor(
    Py_ssize_t n, const double* matrix, double scale, double tiny, double* lower, double* column,
    double* out,
) noexcept nogil:
    """out = A, lower triangular, with A'A = scale * matrix^-1; False where there is none.

    Nor where a variance given all others is a share of its own that rounding leaves nothing of:
    pivots may be larger, if those above them were close to 0 already. `lower` (n, n), the
    factor of matrix / scale, and `column` (n) are written as well.
    """
    cdef Py_ssize_t i, k
    cdef double precision
    if not cholesky(n, matrix, scale, tiny, lower, column):
        return False
    invert(n, lower, out)
    for i in range(n):
        precision = 0.0
        for k in range(i, n):
            precision += out[k * n + i] * out[k * n + i]
        if not max(2.0 * n * EPS, RESOLVED) * precision * (matrix[i * n + i] / scale) < 1.0:
            return False
    return True


cdef inline double log_diagonal(Py_ssize_t n, const double* lower) noexcept nogil:
    """Logarithm of a triangular matrix's determinant."""
    cdef Py_ssize_t i
    cdef double value = 0.0
    for i in range(n):
        value += log(lower[i * n + i])
    return value
