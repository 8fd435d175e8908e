# Conjugate distributions over the parameters of Gaussians, Normal-Wishart and Normal-gamma, what
# kernels read of parameters, and what is made of the sums that kernels leave. No memory is taken
# here.
#
# Formulas: Bishop, Pattern Recognition and Machine Learning (2006), appendix B and section 10.2;
# conjugate.py has their names and says what they are.

from libc.math cimport INFINITY, exp, fabs, lgamma, log, sqrt
from libc.string cimport memcmp, memcpy, memset

from .random cimport Stream, log_gamma, normal
from .special cimport EMPTY, LOST, SMALLEST_VARIANCE, VANISHING, digamma
from .tile cimport even, fours
from .triangle cimport EPS, cholesky, inverse_factor, invert, log_diagonal


cdef extern from *:
    """
    #define LOG_TWO 0.6931471805599453
    #define LOG_PI 1.1447298858494002
    #define LOG_TWO_PI 1.8378770664093453
    #define LEAST_LOG_GAMMA -460.5170185988091
    """
    const double LOG_TWO
    const double LOG_PI
    const double LOG_TWO_PI
    const double LEAST_LOG_GAMMA  # as in conjugate.py: of 1e-200


cdef enum CovarianceType:
    FULL = 0
    TIED = 1
    DIAG = 2
    SPHERICAL = 3


cdef struct Family:
    CovarianceType covariance_type
    Py_ssize_t n_components
    Py_ssize_t n_features
    Py_ssize_t n_groups   # precisions: K, or 1 if tied
    Py_ssize_t per_group  # doubles of one's factor, or scatter: D * D, D or 1


cdef inline Family family_of(
    CovarianceType covariance_type, Py_ssize_t n_components, Py_ssize_t n_features
) noexcept nogil:
    cdef Family family
    family.covariance_type = covariance_type
    family.n_components = n_components
    family.n_features = n_features
    family.n_groups = 1 if covariance_type == TIED else n_components
    family.per_group = n_features
    if covariance_type == FULL or covariance_type == TIED:
        family.per_group = n_features * n_features
    elif covariance_type == SPHERICAL:
        family.per_group = 1
    return family


cdef inline bint has_matrices(Family family) noexcept nogil:
    return family.covariance_type == FULL or family.covariance_type == TIED


# A distribution over the parameters, or statistics: the fields of an emission, in their order.
cdef struct Fields:
    double* strength  # (K)
    double* mean      # (K, D)
    double* dof       # (G)
    double* scatter   # (G, ...)


cdef inline Py_ssize_t fields_size(Family family) noexcept nogil:
    return family.n_components * (1 + family.n_features) + family.n_groups * (1 + family.per_group)


cdef inline Fields fields_at(Family family, const double* buffer) noexcept nogil:
    cdef Fields fields
    fields.strength = <double*>buffer
    fields.mean = fields.strength + family.n_components
    fields.dof = fields.mean + family.n_components * family.n_features
    fields.scatter = fields.dof + family.n_groups
    return fields


# What is read off a distribution: a point theta, or expectations (see conjugate.py's Gaussians).
cdef struct Theta:
    double* means    # (K, D)
    double* factor   # (G, ...)
    double* log_det  # (G)
    double* slack    # (K)


cdef inline Py_ssize_t theta_size(Family family) noexcept nogil:
    return family.n_components * (1 + family.n_features) + family.n_groups * (1 + family.per_group)


cdef inline Theta theta_at(Family family, const double* buffer) noexcept nogil:
    cdef Theta theta
    theta.means = <double*>buffer
    theta.factor = theta.means + family.n_components * family.n_features
    theta.log_det = theta.factor + family.n_groups * family.per_group
    theta.slack = theta.log_det + family.n_groups
    return theta


# Parameters --------------------------------------------------------------------------------------


cdef inline double exponent(Family family, Fields p, Py_ssize_t g) noexcept nogil:
    """Power of |Lambda|^(1/2), or of each lambda^(1/2), in the joint density."""
    if family.covariance_type == FULL:
        return p.dof[g] - family.n_features
    if family.covariance_type == TIED:
        return p.dof[g] - family.n_features - 1 + family.n_components
    if family.covariance_type == DIAG:
        return p.dof[g] - 1
    return p.dof[g] - 2 + family.n_features


cdef inline double sharing(Family family) noexcept nogil:
    """Features that share a lambda."""
    return family.n_features if family.covariance_type == SPHERICAL else 1


cdef inline void find_log_det(Family family, Theta theta) noexcept nogil:
    cdef Py_ssize_t g, j
    for g in range(family.n_groups):
        if has_matrices(family):
            theta.log_det[g] = 2 * log_diagonal(
                family.n_features, theta.factor + g * family.per_group
            )
        else:
            theta.log_det[g] = 0.0
            for j in range(family.per_group):
                theta.log_det[g] += 2 * log(theta.factor[g * family.per_group + j])
            theta.log_det[g] *= sharing(family)


cdef inline const double* factor_of(Family family, Theta theta, Py_ssize_t k) noexcept nogil:
    return theta.factor + (0 if family.n_groups == 1 else k * family.per_group)


cdef inline double dot(Py_ssize_t n, const double* a, const double* b) noexcept nogil:
    """In four sums, so that one need not wait for the other."""
    cdef double[4] sums
    cdef double rest = 0.0
    cdef Py_ssize_t i, part
    for part in range(4):
        sums[part] = 0.0
    for i in range(n // 4):
        for part in range(4):
            sums[part] += a[4 * i + part] * b[4 * i + part]
    for i in range(n // 4 * 4, n):
        rest += a[i] * b[i]
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest


cdef inline double squared_length(
    Family family, const double* factor, const double* x, bint absolute
) noexcept nogil:
    """|A x|^2, or ||A| |x||^2 of the absolute values."""
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t i, j
    cdef double value
    cdef double total = 0.0
    for i in range(n):
        if has_matrices(family) and absolute:
            value = 0.0
            for j in range(i + 1):
                value += fabs(factor[i * n + j] * x[j])
        elif has_matrices(family):
            value = dot(i + 1, factor + i * n, x)
        else:
            value = factor[i if family.covariance_type == DIAG else 0] * x[i]
        total += value * value
    return total


cdef inline double log_normalizer_given(
    Family family, Fields p, Py_ssize_t g, double log_det
) noexcept nogil:
    """Log of the integral of group g's density (of its precision and all means on it).

    `log_det`: log|W|, or the sum of the logarithms of 1 / scatter (Bishop B.79; B.39).
    """
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t first = g
    cdef Py_ssize_t last = g + 1
    cdef Py_ssize_t i
    cdef double value = 0.0
    cdef double half = 0.5 * p.dof[g]
    if family.covariance_type == TIED:
        first = 0
        last = family.n_components
    for i in range(first, last):
        value += 0.5 * n * (LOG_TWO_PI - log(p.strength[i]))
    if not has_matrices(family):
        return value + family.per_group * (lgamma(half) + half * LOG_TWO) + half * log_det
    value += half * (log_det + n * LOG_TWO) + 0.25 * n * (n - 1) * LOG_PI
    for i in range(n):
        value += lgamma(half - 0.5 * i)
    return value


cdef inline double log_normalizer(
    Family family, Fields p, Py_ssize_t g, double* scratch
) noexcept nogil:
    """The same; infinite where scatter is not positive definite. `scratch` (D + 1, D)."""
    cdef Py_ssize_t n = family.n_features
    cdef const double* scatter = p.scatter + g * family.per_group
    cdef double log_det = 0.0
    cdef Py_ssize_t i
    if not has_matrices(family):
        for i in range(family.per_group):
            log_det -= log(scatter[i])
        return log_normalizer_given(family, p, g, log_det)
    if not cholesky(n, scatter, 1.0, 0.0, scratch, scratch + n * n):
        return INFINITY
    return log_normalizer_given(family, p, g, -2 * log_diagonal(n, scratch))


cdef inline double expected_log_det(Family family, Fields q, Py_ssize_t g) noexcept nogil:
    """E[log|Lambda|] - log|W| (B.81), or of the logarithms of gamma numbers, each once (B.30)."""
    cdef double half = 0.5 * q.dof[g]
    cdef double value = 0.0
    cdef Py_ssize_t i
    if not has_matrices(family):
        return family.per_group * (digamma(half) + LOG_TWO)
    for i in range(family.n_features):
        value += digamma(half - 0.5 * i) + LOG_TWO
    return value


cdef inline double trace(
    Family family, const double* scatter, const double* factor, double* scratch
) noexcept nogil:
    """tr(scatter A'A)."""
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t i, j, m
    cdef double total = 0.0
    cdef bint flat = True
    cdef const double* four
    cdef const double* row
    if not has_matrices(family):
        for i in range(family.per_group):
            total += scatter[i] * factor[i] * factor[i]
        return total
    for i in range(n):
        flat = flat and scatter[i * n + i] == 0.0
    if flat:
        return 0.0
    for i in range(n):
        row = factor + i * n
        memset(scratch, 0, (i + 1) * sizeof(double))
        # Four rows of the scatter at a time, for fewer loads and stores; above its diagonal the
        # factor is 0.
        for j in range(0, i // 4 * 4 + 1, 4):
            if j + 4 > n:
                break
            four = scatter + j * n
            for m in range(i + 1):
                scratch[m] = scratch[m] + (
                    (row[j] * four[m] + row[j + 1] * four[n + m])
                    + (row[j + 2] * four[2 * n + m] + row[j + 3] * four[3 * n + m])
                )
        for j in range(min(i // 4 * 4 + 4, n // 4 * 4), i + 1):
            for m in range(i + 1):
                scratch[m] = scratch[m] + row[j] * scatter[j * n + m]
        total += dot(i + 1, row, scratch)
    return total


cdef inline double squared_product(
    Py_ssize_t n, const double* factor, const double* root, double* row
) noexcept nogil:
    """|A L|^2, tr(L L' A'A), of two lower triangular matrices. `row` (D) is scratch."""
    cdef Py_ssize_t i, j, m
    cdef double value
    cdef double total = 0.0
    for i in range(n):
        memset(row, 0, (i + 1) * sizeof(double))
        for j in range(i + 1):
            value = factor[i * n + j]
            for m in range(j + 1):
                row[m] = row[m] + value * root[j * n + m]
        total += dot(i + 1, row, row)
    return total


cdef inline double density_of_precision(
    Family family, Fields p, Py_ssize_t g, Theta theta, Py_ssize_t h, double* scratch
) noexcept nogil:
    """log p(Lambda_h) under group g, without its constant, and of the means what has no mean."""
    return density_given(family, p, g, theta, h, trace(
        family, p.scatter + g * family.per_group, theta.factor + h * family.per_group, scratch
    ))


cdef inline double density_given(
    Family family, Fields p, Py_ssize_t g, Theta theta, Py_ssize_t h, double trace_of_product
) noexcept nogil:
    """The same, given tr(scatter_g Lambda_h)."""
    cdef double log_det = theta.log_det[h] / sharing(family)
    return 0.5 * exponent(family, p, g) * log_det - 0.5 * trace_of_product


cdef inline double density_of_mean(
    Family family, Fields p, Py_ssize_t k, Theta theta, Py_ssize_t j, double* scratch
) noexcept nogil:
    """log p(mu_j | Lambda_j) under component k, what is left of it."""
    cdef const double* factor = factor_of(family, theta, j)
    cdef Py_ssize_t i
    if p.strength[k] == 0.0:
        return 0.0
    for i in range(family.n_features):
        scratch[i] = theta.means[j * family.n_features + i] - p.mean[k * family.n_features + i]
    return -0.5 * p.strength[k] * squared_length(family, factor, scratch, False)


cdef inline bint is_proper(Family family, Fields p) noexcept nogil:
    """Whether the density of the parameters can be normalised."""
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t lowest = n - 1 if has_matrices(family) else 0
    cdef Py_ssize_t step = n + 1 if has_matrices(family) else 1
    cdef Py_ssize_t g, i, k
    cdef bint proper = True
    for k in range(family.n_components):
        proper = proper and p.strength[k] > 0.0
    for g in range(family.n_groups):
        proper = proper and p.dof[g] > lowest
        for i in range((family.per_group - 1) // step + 1):
            proper = proper and p.scatter[g * family.per_group + i * step] > 0.0
    return proper


# What of a prior doesn't depend on theta.
cdef struct Constants:
    bint proper
    double log_normalizer  # where proper
    double log_volume  # turns a density in the frame's units into one in the data's


cdef inline Constants constants_of(
    Family family, Fields prior, double log_scale, double* scratch
) noexcept nogil:
    """log_scale: sum over features of the logarithms of the frame's scales."""
    cdef Constants constants
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t g
    cdef double power
    constants.proper = is_proper(family, prior)
    constants.log_normalizer = 0.0
    if constants.proper:
        for g in range(family.n_groups):
            constants.log_normalizer += log_normalizer(family, prior, g, scratch)
        power = n + 1 if has_matrices(family) else 2.0 / sharing(family)
        constants.log_volume = (family.n_components - family.n_groups * power) * log_scale
    else:
        power = 0.0
        for g in range(family.n_groups):
            power += exponent(family, prior, g)
        constants.log_volume = power / sharing(family) * log_scale
    return constants


cdef inline double log_density(
    Family family, Fields p, Theta theta, double* scratch
) noexcept nogil:
    """log p(mu, Lambda), without its constant.

    Of two matrices of which one is all but singular and the other all but unbounded, terms of
    their product's trace cancel: a difference of 1e-7 nats. As a sum of squares they don't, and
    what the scatter's root is off by is the same each time. `scratch` (D + 1, D).
    """
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t size = family.per_group
    cdef double value = 0.0
    cdef double* row = scratch + (n * n if has_matrices(family) else 0)
    cdef const double* scatter
    cdef Py_ssize_t g, k
    cdef bint rooted = False
    for g in range(family.n_groups):
        scatter = p.scatter + g * size
        # A prior's are all the same.
        if has_matrices(family) and (
            g == 0 or memcmp(scatter, scatter - size, size * sizeof(double)) != 0
        ):
            rooted = scatter[0] > 0.0 and cholesky(n, scatter, 1.0, 0.0, scratch, row)
        if rooted:
            value += density_given(
                family, p, g, theta, g,
                squared_product(n, theta.factor + g * size, scratch, row),
            )
        else:
            value += density_of_precision(family, p, g, theta, g, row)
    for k in range(family.n_components):
        value += density_of_mean(family, p, k, theta, k, scratch)
    return value


cdef inline double log_prior(
    Family family, Constants constants, Fields prior, Theta theta, double* scratch
) noexcept nogil:
    """log p(theta) in the units of the data."""
    cdef double value = constants.log_volume - constants.log_normalizer
    return value + log_density(family, prior, theta, scratch)


cdef inline double expected_log_density(
    Family family, Fields p, Fields q, Theta theta, double* scratch
) noexcept nogil:
    """E under q, whose expectations are theta, of log p(mu, Lambda), without its constant."""
    cdef double value = log_density(family, p, theta, scratch)
    cdef Py_ssize_t k
    for k in range(family.n_components):
        value -= 0.5 * family.n_features * p.strength[k] / q.strength[k]
    return value


cdef inline double divergence(
    Family family, Fields prior, Fields q, Theta theta, double* scratch
) noexcept nogil:
    """KL(q || prior) of (mu, Lambda), less the prior's log normaliser.

    theta has the expectations under q.
    """
    cdef double value = -expected_log_density(family, prior, q, theta, scratch)
    cdef Py_ssize_t width = family.n_features if has_matrices(family) else family.per_group
    cdef Py_ssize_t g
    cdef double log_det
    # E under q of log q: tr(scatter E[Lambda]) is dof times what there is of precisions.
    value -= 0.5 * family.n_features * family.n_components
    for g in range(family.n_groups):
        log_det = theta.log_det[g] / sharing(family)
        value += 0.5 * exponent(family, q, g) * log_det - 0.5 * q.dof[g] * width
        value -= log_normalizer_given(family, q, g, log_det - expected_log_det(family, q, g))
    return value


cdef inline double density_terms(
    Family family, Fields q, Theta theta, double* terms, double* scratch
) noexcept nogil:
    """Density of (mu, Lambda) under q with components in any order.

    Returns c and writes M (K, K): the log density is c + sum_j M[sigma(j), j] where component
    sigma(j) plays theta's j.
    """
    cdef Py_ssize_t n = family.n_components
    cdef double common = 0.0
    cdef double normalizer
    cdef Py_ssize_t j, k
    if family.covariance_type == TIED:
        common = density_of_precision(family, q, 0, theta, 0, scratch)
        common -= log_normalizer(family, q, 0, scratch)
    for k in range(n):
        normalizer = 0.0
        if family.covariance_type != TIED:
            normalizer = log_normalizer(family, q, k, scratch)
        for j in range(n):
            terms[k * n + j] = density_of_mean(family, q, k, theta, j, scratch) - normalizer
            if family.covariance_type != TIED:
                terms[k * n + j] += density_of_precision(family, q, k, theta, j, scratch)
    return common


# Reading theta: 0 ... G - 1 is returned where that group has no covariance, else -1 ---------------


cdef inline Py_ssize_t read_mode(
    Family family, Fields q, Theta theta, double* scratch
) noexcept nogil:
    """The joint mode in (mu, Lambda). `scratch` (D + 1, D).

    An empty component under a flat prior takes the mean 0 and precision 1, those of the whole of
    standardised data; the precision as well where it holds so little of a row that degrees of
    freedom have lost it. Under a prior of exponent 0 the mode is at Lambda = 0, and a precision
    close to that is returned.
    """
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t g, i, k
    cdef double power, scale, variance
    cdef double* scatter
    cdef bint flat
    for k in range(family.n_components):
        theta.slack[k] = 0.0
        for i in range(n):
            theta.means[k * n + i] = 0.0 if q.strength[k] < EMPTY else q.mean[k * n + i]
    for g in range(family.n_groups):
        power = exponent(family, q, g)
        scatter = q.scatter + g * family.per_group
        scale = VANISHING if power < EMPTY else power
        if has_matrices(family):
            flat = power < EMPTY
            if flat:
                for i in range(n * n):
                    flat = flat and fabs(scatter[i]) < LOST
            if flat:
                for i in range(n * n):
                    theta.factor[g * n * n + i] = 1.0 if i % (n + 1) == 0 else 0.0
                continue
            if not inverse_factor(
                n, scatter, scale, SMALLEST_VARIANCE, scratch, scratch + n * n,
                theta.factor + g * n * n,
            ):
                return g
            continue
        for i in range(family.per_group):
            variance = scatter[i] / scale
            if power < EMPTY and scatter[i] < LOST:
                variance = 1.0
            if not variance > SMALLEST_VARIANCE:
                return g
            theta.factor[g * family.per_group + i] = 1.0 / sqrt(variance)
    find_log_det(family, theta)
    return -1


cdef inline Py_ssize_t read_mean(
    Family family, Fields q, Theta theta, double* scratch
) noexcept nogil:
    """Expected natural parameters: E[Lambda], E[log|Lambda|] (Bishop B.81, 10.46, 10.64).

    `scratch` (D + 1, D).
    """
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t g, i, k
    cdef double log_det
    cdef double* factor
    cdef double* scatter
    for k in range(family.n_components):
        theta.slack[k] = 0.5 * n / q.strength[k]
        for i in range(n):
            theta.means[k * n + i] = q.mean[k * n + i]
    for g in range(family.n_groups):
        factor = theta.factor + g * family.per_group
        scatter = q.scatter + g * family.per_group
        log_det = 0.0
        if has_matrices(family):
            if not inverse_factor(n, scatter, 1.0, 0.0, scratch, scratch + n * n, factor):
                return g
            log_det = 2 * log_diagonal(n, factor)
            for i in range(n * n):
                factor[i] *= sqrt(q.dof[g])
        else:
            for i in range(family.per_group):
                log_det -= log(scatter[i])
                factor[i] = sqrt(q.dof[g] / scatter[i])
        theta.log_det[g] = sharing(family) * (log_det + expected_log_det(family, q, g))
    return -1


cdef inline Py_ssize_t draw(
    Family family, Fields q, Stream* stream, Theta theta, double* scratch
) noexcept nogil:
    """Precisions (Wishart by Bartlett's decomposition) and means given them.

    No gamma is so small that its inverse, or a product of two of them, would be lost.
    """
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t g, i, j, k, m
    cdef double value
    cdef double* factor
    cdef double* root = scratch + n * n  # of scatter^-1
    cdef double* row = root + n * n
    cdef double* mean
    for g in range(family.n_groups):
        factor = theta.factor + g * family.per_group
        if not has_matrices(family):
            for i in range(family.per_group):
                value = exp(0.5 * max(log_gamma(stream, 0.5 * q.dof[g]), LEAST_LOG_GAMMA))
                factor[i] = value / sqrt(0.5 * q.scatter[g * family.per_group + i])
            continue
        if not inverse_factor(n, q.scatter + g * n * n, 1.0, 0.0, scratch, row, root):
            return g
        for i in range(n):
            for j in range(i):
                row[j] = normal(stream)
            # chi^2 is twice a gamma of half its degrees of freedom.
            value = log_gamma(stream, 0.5 * (q.dof[g] - n + 1 + i))
            row[i] = sqrt(2.0) * exp(0.5 * max(value, LEAST_LOG_GAMMA))
            for j in range(n):
                value = 0.0
                for m in range(j, i + 1):
                    value += row[m] * root[m * n + j]
                factor[i * n + j] = value
    find_log_det(family, theta)
    for k in range(family.n_components):
        factor = <double*>factor_of(family, theta, k)
        mean = theta.means + k * n
        theta.slack[k] = 0.0
        # A (mu - m) sqrt(strength) = z.
        for i in range(n):
            value = normal(stream)
            if has_matrices(family):
                for j in range(i):
                    value -= factor[i * n + j] * mean[j]
                mean[i] = value / factor[i * n + i]
            else:
                mean[i] = value / factor[i if family.covariance_type == DIAG else 0]
        for i in range(n):
            mean[i] = q.mean[k * n + i] + mean[i] / sqrt(q.strength[k])
    return -1


# Statistics --------------------------------------------------------------------------------------


cdef inline void spread(
    Family family, Py_ssize_t k, double weight, const double* difference, double* scatter
) noexcept nogil:
    """Add weight * dd' to component k's scatter, in its shape."""
    cdef Py_ssize_t n = family.n_features
    cdef double* out = scatter
    cdef double value
    cdef Py_ssize_t i, j
    if family.n_groups > 1:
        out = scatter + k * family.per_group
    for i in range(n):
        value = weight * difference[i]
        if has_matrices(family):
            for j in range(n):
                out[i * n + j] += value * difference[j]
        else:
            out[i if family.covariance_type == DIAG else 0] += value * difference[i]


cdef inline void add_moments(
    Family family, Fields a, Fields b, Fields out, double* scratch
) noexcept nogil:
    """Strength, mean and scatter of both together, pairwise (see stats.py). out is neither."""
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t i, k
    cdef double total, share
    for i in range(family.n_groups * family.per_group):
        out.scatter[i] = a.scatter[i] + b.scatter[i]
    for k in range(family.n_components):
        total = a.strength[k] + b.strength[k]
        out.strength[k] = total
        share = b.strength[k] / total if total > 0.0 else 0.0
        for i in range(n):
            scratch[i] = b.mean[k * n + i] - a.mean[k * n + i]
            out.mean[k * n + i] = a.mean[k * n + i] + share * scratch[i]
        spread(family, k, a.strength[k] * share, scratch, out.scatter)


cdef inline void add(
    Family family, Fields prior, Fields stats, Fields out, double* scratch
) noexcept nogil:
    """out = prior + statistics. out is neither."""
    cdef Py_ssize_t i
    for i in range(family.n_groups):
        out.dof[i] = prior.dof[i] + stats.dof[i]
    add_moments(family, prior, stats, out, scratch)


cdef inline void collect(
    Family family, const double* counts, const double* raw, const double* reference,
    double reg_covar, const double* variance, Fields stats, double* scratch
) noexcept nogil:
    """Mean, dof and scatter of sums about the reference that a kernel leaves (see gaussian.pyx).

    Each row is a cloud of variance reg_covar * variance (D). `scratch` (D).
    """
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t n_components = family.n_components
    # The kernel works in blocks: of its rows and columns the last are padding.
    cdef Py_ssize_t columns = fours(n)
    cdef const double* second = raw + even(n_components) * columns + 4
    cdef double* scatter
    cdef double total = 0.0
    cdef double value
    cdef Py_ssize_t g, i, j, k
    for g in range(family.n_groups):
        scatter = stats.scatter + g * family.per_group
        for i in range(n):
            if has_matrices(family):
                for j in range(i + 1):
                    value = second[(g * even(n) + i) * columns + j]
                    scatter[i * n + j] = value
                    scatter[j * n + i] = value
            elif family.covariance_type == DIAG:
                scatter[i] = second[g * columns + i]
        if family.covariance_type == SPHERICAL:
            scatter[0] = second[4 * g]
    for k in range(n_components):
        total += counts[k]
        if family.covariance_type != TIED:
            stats.dof[k] = counts[k] * sharing(family)
        for i in range(n):
            value = raw[k * columns + i]
            scratch[i] = value / counts[k] if value != 0.0 else 0.0
            stats.mean[k * n + i] = reference[k * n + i] + scratch[i]
        spread(family, k, -counts[k], scratch, stats.scatter)
        scatter = stats.scatter + (0 if family.n_groups == 1 else k * family.per_group)
        if not has_matrices(family):
            # Rows far from the reference leave nothing but rounding, of either sign.
            for i in range(family.per_group):
                scatter[i] = max(scatter[i], 0.0)
        if reg_covar > 0.0:
            for i in range(n):
                value = counts[k] * (reg_covar * variance[i])
                if has_matrices(family):
                    scatter[i * n + i] += value
                else:
                    scatter[i if family.covariance_type == DIAG else 0] += value
    if family.covariance_type == TIED:
        stats.dof[0] = total


# What kernels read of theta ----------------------------------------------------------------------


cdef extern from *:
    """
    #define FAR 1024.0
    #define FLAT 1073741824.0
    """
    const double FAR
    const double FLAT


cdef inline void choose_reference(Family family, Theta theta, double* reference) noexcept nogil:
    """Points (K, D) that a kernel takes moments about: the origin or a component's mean.

    About the origin sums cost least. Of a component further than 32 of its own standard
    deviations from it, |A m|^2 > 1024, such sums would cancel by more than three digits, so its
    own mean is taken. So it is where the component is all but flat: rounding of m m', which does
    not lie in its plane as m may, is up to eps ||A| |m||^2 of a variance across it. An update that
    errs by a share e of a variance brings e^2 / 4 nats too little for each row, of which a limit
    of 2^30 leaves 1e-14. Where the kernel adds components up together, all are near or all far.
    """
    cdef Py_ssize_t n = family.n_features
    cdef const double* factor
    cdef Py_ssize_t k
    cdef bint far
    cdef bint any_far = False
    memset(reference, 0, family.n_components * n * sizeof(double))
    for k in range(family.n_components):
        factor = factor_of(family, theta, k)
        far = (
            squared_length(family, factor, theta.means + k * n, False) > FAR
            or squared_length(family, factor, theta.means + k * n, True) > FLAT
        )
        any_far = any_far or far
        if far and family.covariance_type == FULL:
            memcpy(reference + k * n, theta.means + k * n, n * sizeof(double))
    if any_far and family.covariance_type != FULL:
        memcpy(reference, theta.means, family.n_components * n * sizeof(double))


cdef inline double rounding_of(Family family, Theta theta, double* scratch) noexcept nogil:
    """Nats a row that rounding may take from an objective.

    A distance |A x - A m|^2 loses some eps |A m|. Of a feature whose variance given all others is
    a share s of its own, this variance is found to some 2 D eps / s of itself, and an update that
    errs by a share e of a variance brings e^2 / 4 nats a row too little. Of expectations, which
    have a slack, a divergence compares two such matrices, to e. `scratch` (D, D).
    """
    cdef Py_ssize_t n = family.n_features
    cdef double far = 0.0
    cdef double flat = 0.0
    cdef const double* factor
    cdef double e, precision
    cdef Py_ssize_t g, i, k
    for k in range(family.n_components):
        far = max(far, squared_length(
            family, factor_of(family, theta, k), theta.means + k * n, False
        ))
    if has_matrices(family):
        for g in range(family.n_groups):
            factor = theta.factor + g * family.per_group
            invert(n, factor, scratch)
            for i in range(n):
                e = 0.0
                for k in range(i + 1):
                    e += scratch[i * n + k] * scratch[i * n + k]
                precision = 0.0
                for k in range(i, n):
                    precision += factor[k * n + i] * factor[k * n + i]
                flat = max(flat, e * precision)
    e = 2.0 * n * EPS * flat
    return 4.0 * EPS * sqrt(far) + (e if theta.slack[0] > 0.0 else e * e)


cdef inline void write_coefficients(
    Family family, Theta theta, const double* reference, double* out
) noexcept nogil:
    """As gaussian.pyx reads them."""
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t n_components = family.n_components
    cdef double* far = out
    cdef double* means = far + n_components
    cdef double* third = means + n_components * n
    cdef double* fourth = third + n_components * n
    cdef double* slopes = third  # (K), of tied and spherical
    cdef double* linear = slopes + n_components  # (K, D)
    cdef double* halves = linear + n_components * n  # (K)
    cdef double* rests = halves + n_components  # (K)
    cdef const double* factor
    cdef Py_ssize_t i, j, k
    cdef bint any_far = False
    cdef double value
    memcpy(means, theta.means, n_components * n * sizeof(double))
    for k in range(n_components):
        far[k] = 0.0
        for i in range(n):
            if reference[k * n + i] != 0.0:
                far[k] = 1.0
                any_far = True
    # All near or all far: where one is far, an origin among the references is a mean.
    if any_far and family.covariance_type != FULL:
        for k in range(n_components):
            far[k] = 1.0
    for k in range(n_components):
        factor = factor_of(family, theta, k)
        if family.covariance_type == FULL:
            for i in range(n):
                value = 0.0
                for j in range(i + 1):
                    value += factor[i * n + j] * (means[k * n + j] - reference[k * n + j])
                third[k * n + i] = value
        elif family.covariance_type == DIAG:
            for i in range(n):
                third[k * n + i] = factor[i]
                fourth[k * n + i] = factor[i] * means[k * n + i]
        else:
            slopes[k] = 1.0 if family.covariance_type == TIED else factor[0] * factor[0]
            halves[k] = 0.0
            for i in range(n):
                if family.covariance_type == TIED:
                    value = dot(i + 1, factor + i * n, means + k * n)
                else:
                    value = slopes[k] * means[k * n + i]
                linear[k * n + i] = value
                halves[k] += value * value
            halves[k] *= 0.5 / slopes[k]
            rests[k] = 0.0
    if family.covariance_type == FULL:
        memcpy(fourth, theta.factor, family.n_groups * n * n * sizeof(double))
    elif family.covariance_type == TIED:
        memcpy(rests + n_components, theta.factor, n * n * sizeof(double))


cdef inline void write_offsets(
    Family family, Theta theta, double log_scale, double reg_covar, const double* variance,
    double* out
) noexcept nogil:
    """Scores at squared distance zero, in the units of the data, but for the weights' part.

    `log_scale`: sum over features of the logarithms of the frame's scales.
    """
    cdef Py_ssize_t n = family.n_features
    cdef const double* factor
    cdef double cloud
    cdef Py_ssize_t i, j, k
    for k in range(family.n_components):
        cloud = 0.0
        factor = factor_of(family, theta, k)
        if reg_covar > 0.0:
            for i in range(n):
                if has_matrices(family):
                    for j in range(i + 1):
                        cloud += factor[i * n + j] * factor[i * n + j] * variance[j]
                else:
                    j = i if family.covariance_type == DIAG else 0
                    cloud += factor[j] * factor[j] * variance[i]
        out[k] = (
            log_scale - 0.5 * n * LOG_TWO_PI - theta.slack[k]
            + 0.5 * theta.log_det[0 if family.n_groups == 1 else k] - 0.5 * reg_covar * cloud
        )
