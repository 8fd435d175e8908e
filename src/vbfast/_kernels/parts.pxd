# What an emission can do with distributions over its parameters, as a table of verbs, for a loop
# that runs without Python: one call a verb a sweep. The formulas are those that Python's loop calls
# (parameters.pyx). No memory is taken here.

from libc.math cimport exp, log, sqrt
from libc.string cimport memcpy, memset

from . cimport conjugate
from .conjugate cimport Constants, CovarianceType, Family, Fields, Theta, has_matrices
from .dirichlet cimport (
    Dirichlets,
    add_power_terms,
    collect_symbols,
    collect_zeros_and_ones,
    dirichlets,
    draw_logs,
    kl_of,
    log_beta,
    log_dirichlet,
    read_expected,
    read_expected_logs,
    read_table_modes,
    write_symbols,
    write_zeros_and_ones,
)
from .gamma cimport (
    Gammas,
    add_rate_terms,
    collect_counts,
    draw_rates,
    gammas,
    kl_of_rates,
    log_density_of_rates,
    read_expected_rates,
    read_rate_modes,
    rounding_of_rates,
    rounding_of_waits,
    set_rates,
    without_rate,
    write_log_rates,
    write_rate_offsets,
    write_slopes,
    write_wait_offsets,
)
from .random cimport Stream
from .special cimport VANISHING
from .tile cimport Shape


# How theta is read off a posterior.
cdef enum Read:
    MODE = 0
    MEAN = 1
    SAMPLE = 2


# What verbs are told of a model beside what they read and write.
cdef struct Part:
    Shape shape           # as the emission's kernel has it
    Family family         # of Gaussians
    Py_ssize_t n_symbols  # of a feature, in tables
    double reg_covar
    bint flat             # whether a prior adds nothing to the objective of a point
    bint waits            # whether rates are of waiting times, not of counts
    # Of the problem at hand
    const double* rate      # (D): what of the gamma prior statistics don't have, see `gammas_at`
    const double* variance  # (D): of features, in the units of the frame
    double log_scale        # sum over features of the logarithms of the frame's scales
    Constants constants     # of the prior
    double log_base         # the same of tables and rates: `log_beta` of the prior, or 0


# Buffers: fields of a posterior, a prior or statistics, (fields_size); theta, (theta_size), which
# begins with what is kept of draws, (kept_size); scratch, (scratch_size).
cdef struct Verbs:
    Py_ssize_t (*fields_size)(const Part*) noexcept nogil
    Py_ssize_t (*kept_size)(const Part*) noexcept nogil
    Py_ssize_t (*theta_size)(const Part*) noexcept nogil
    Py_ssize_t (*scratch_size)(const Part*) noexcept nogil
    # Work out what of the prior (IN) does not depend on theta.
    void (*prepare)(Part*, const double* prior, double* scratch) noexcept nogil
    # Read theta (OUT) off a posterior (IN): -1, or the first component that has none.
    Py_ssize_t (*read)(
        const Part*, Read how, const double* posterior, Stream*, double* theta, double* scratch
    ) noexcept nogil
    # What is not kept of theta (IN, OUT), of a point.
    void (*complete)(const Part*, double* theta) noexcept nogil
    # log p(theta) of a point, KL(q || prior) where theta is the mean of q, in the data's units.
    double (*log_prior)(
        const Part*, const double* prior, const double* theta, double* scratch
    ) noexcept nogil
    double (*divergence)(
        const Part*, const double* prior, const double* q, const double* theta, double* scratch
    ) noexcept nogil
    # Log density of theta under q with components in any order, in the data's units: returns c, and
    # writes M (K, K): it is c + sum_j M[sigma(j), j] where component sigma(j) plays theta's j.
    double (*write_terms)(
        const Part*, const double* q, const double* theta, double* terms, double* scratch
    ) noexcept nogil
    # Nats a row that rounding may take from an objective at theta.
    double (*rounding)(const Part*, const double* theta, double* scratch) noexcept nogil
    # What the kernel reads of theta, all OUT: points that statistics are taken about, (K, D);
    # coefficients; scores where the emission's own part is 0, (K).
    void (*pack)(
        const Part*, const double* theta, double* reference, double* coefficients, double* offsets
    ) noexcept nogil
    # Statistics (OUT) of counts (IN, K) rows, of the sums about the reference that a kernel leaves.
    void (*collect)(
        const Part*, const double* counts, const double* raw, const double* reference,
        double* fields, double* scratch,
    ) noexcept nogil
    # total (OUT, neither of the two) of two groups of rows.
    void (*add)(
        const Part*, const double* a, const double* b, double* total, double* scratch
    ) noexcept nogil
    # Starts. Numbers of a point that stands for a row among others, and those of a tile's rows,
    # (points_size, stride), of the tile (D, stride): NULL where these are the row's own.
    Py_ssize_t (*points_size)(const Part*) noexcept nogil
    void (*write_points)(
        const Part*, const double* tile, Py_ssize_t n_rows, Py_ssize_t stride, double* points
    ) noexcept nogil
    # Let a share of each component's rows be as all rows are, in statistics (IN, OUT). NULL where
    # components that have seen nothing of a kind may come to it all the same.
    void (*spread)(
        const Part*, const double* prior, double share, double* fields, double* scratch
    ) noexcept nogil


cdef inline Py_ssize_t row_size(const Part* part) noexcept nogil:
    return part.shape.n_features


# Gaussians ----------------------------------------------------------------------------------------


cdef inline Py_ssize_t gaussian_fields_size(const Part* part) noexcept nogil:
    return conjugate.fields_size(part.family)


cdef inline Py_ssize_t gaussian_kept_size(const Part* part) noexcept nogil:
    return (
        part.family.n_components * part.family.n_features
        + part.family.n_groups * part.family.per_group
    )


cdef inline Py_ssize_t gaussian_theta_size(const Part* part) noexcept nogil:
    return conjugate.theta_size(part.family)


cdef inline Py_ssize_t gaussian_scratch_size(const Part* part) noexcept nogil:
    return 2 * part.family.n_features * (part.family.n_features + 1)


cdef inline void gaussian_prepare(
    Part* part, const double* prior, double* scratch
) noexcept nogil:
    part.constants = conjugate.constants_of(
        part.family, conjugate.fields_at(part.family, prior), part.log_scale, scratch
    )


cdef inline Py_ssize_t gaussian_read(
    const Part* part, Read how, const double* posterior, Stream* stream, double* theta,
    double* scratch,
) noexcept nogil:
    cdef Fields q = conjugate.fields_at(part.family, posterior)
    cdef Theta out = conjugate.theta_at(part.family, theta)
    if how == MODE:
        return conjugate.read_mode(part.family, q, out, scratch)
    if how == MEAN:
        return conjugate.read_mean(part.family, q, out, scratch)
    return conjugate.draw(part.family, q, stream, out, scratch)


cdef inline void gaussian_complete(const Part* part, double* theta) noexcept nogil:
    cdef Theta out = conjugate.theta_at(part.family, theta)
    conjugate.find_log_det(part.family, out)
    memset(out.slack, 0, part.family.n_components * sizeof(double))


cdef inline double gaussian_log_prior(
    const Part* part, const double* prior, const double* theta, double* scratch
) noexcept nogil:
    return conjugate.log_prior(
        part.family, part.constants, conjugate.fields_at(part.family, prior),
        conjugate.theta_at(part.family, theta), scratch,
    )


cdef inline double gaussian_divergence(
    const Part* part, const double* prior, const double* q, const double* theta, double* scratch
) noexcept nogil:
    return part.constants.log_normalizer + conjugate.divergence(
        part.family, conjugate.fields_at(part.family, prior), conjugate.fields_at(part.family, q),
        conjugate.theta_at(part.family, theta), scratch,
    )


cdef inline double gaussian_terms(
    const Part* part, const double* q, const double* theta, double* terms, double* scratch
) noexcept nogil:
    return part.constants.log_volume + conjugate.density_terms(
        part.family, conjugate.fields_at(part.family, q), conjugate.theta_at(part.family, theta),
        terms, scratch,
    )


cdef inline double gaussian_rounding(
    const Part* part, const double* theta, double* scratch
) noexcept nogil:
    return conjugate.rounding_of(part.family, conjugate.theta_at(part.family, theta), scratch)


cdef inline void gaussian_pack(
    const Part* part, const double* theta, double* reference, double* coefficients, double* offsets
) noexcept nogil:
    cdef Theta at = conjugate.theta_at(part.family, theta)
    conjugate.choose_reference(part.family, at, reference)
    conjugate.write_coefficients(part.family, at, reference, coefficients)
    conjugate.write_offsets(
        part.family, at, part.log_scale, part.reg_covar, part.variance, offsets
    )


cdef inline void gaussian_collect(
    const Part* part, const double* counts, const double* raw, const double* reference,
    double* fields, double* scratch,
) noexcept nogil:
    cdef Fields out = conjugate.fields_at(part.family, fields)
    memcpy(out.strength, counts, part.family.n_components * sizeof(double))
    conjugate.collect(
        part.family, counts, raw, reference, part.reg_covar, part.variance, out, scratch
    )


cdef inline void gaussian_add(
    const Part* part, const double* a, const double* b, double* total, double* scratch
) noexcept nogil:
    conjugate.add(
        part.family, conjugate.fields_at(part.family, a), conjugate.fields_at(part.family, b),
        conjugate.fields_at(part.family, total), scratch,
    )


cdef inline void look_from(
    Family family, const double* means, double* theta, double* reference, double* coefficients
) noexcept nogil:
    """Let a kernel see precision 1, and take moments, about `means` (K, D)."""
    cdef Theta at = conjugate.theta_at(family, theta)
    cdef Py_ssize_t n = family.n_features
    cdef Py_ssize_t i
    memcpy(at.means, means, family.n_components * n * sizeof(double))
    for i in range(family.n_groups * family.per_group):
        at.factor[i] = 1.0 if not has_matrices(family) or i % (n * n) % (n + 1) == 0 else 0.0
    memcpy(reference, means, family.n_components * n * sizeof(double))
    conjugate.write_coefficients(family, at, reference, coefficients)


# Counts and symbols: fields are strengths (K) and (K, D) sums or (K, D, C) tallies, theta two
# arrays like these, of rates or probabilities and of logarithms. ----------------------------------


cdef inline Py_ssize_t table_size(const Part* part) noexcept nogil:
    """Numbers of one component."""
    return part.shape.n_features * (part.n_symbols if part.n_symbols else 1)


cdef inline Py_ssize_t discrete_kept_size(const Part* part) noexcept nogil:
    return part.shape.n_components * table_size(part)


cdef inline Py_ssize_t discrete_fields_size(const Part* part) noexcept nogil:
    return part.shape.n_components + discrete_kept_size(part)


cdef inline Py_ssize_t discrete_theta_size(const Part* part) noexcept nogil:
    return 2 * discrete_kept_size(part)


cdef inline void discrete_add(
    const Part* part, const double* a, const double* b, double* total, double* scratch
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(discrete_fields_size(part)):
        total[i] = a[i] + b[i]


# Counts and waiting times -------------------------------------------------------------------------


cdef inline Py_ssize_t rates_scratch_size(const Part* part) noexcept nogil:
    """Rates of two gamma distributions."""
    return 2 * discrete_kept_size(part)


cdef inline Gammas gammas_at(
    const Part* part, const double* fields, double* counted
) noexcept nogil:
    """Fields as distributions, of which `counted` (K, D) is written.

    Of counts the shape adds up rows, and the rate counts them; of waiting times it is the other way
    about, the shape being told less 1.
    """
    cdef Py_ssize_t d, k
    cdef Py_ssize_t n = part.shape.n_features
    cdef const double* sums = fields + part.shape.n_components
    for k in range(part.shape.n_components):
        for d in range(n):
            counted[k * n + d] = part.rate[d] + fields[k]
    if part.waits:
        return gammas(part.shape.n_components, n, counted, sums)
    return gammas(part.shape.n_components, n, sums, counted)


cdef inline void rates_prepare(Part* part, const double* prior, double* scratch) noexcept nogil:
    pass


cdef inline Py_ssize_t rates_read(
    const Part* part, Read how, const double* posterior, Stream* stream, double* theta,
    double* scratch,
) noexcept nogil:
    cdef Gammas q = gammas_at(part, posterior, scratch)
    cdef double* logs = theta + discrete_kept_size(part)
    cdef Py_ssize_t bad
    if how == MODE:
        bad = without_rate(q) if part.waits else -1
        if bad >= 0:
            return bad
        # Rows of a rate of 0 may be counted, but none is waited for.
        read_rate_modes(q, VANISHING if part.waits else 0.0, theta, logs)
    elif how == MEAN:
        read_expected_rates(q, theta, logs)
    else:
        draw_rates(q, stream, theta, logs)
    return -1


cdef inline void discrete_complete(const Part* part, double* theta) noexcept nogil:
    cdef Py_ssize_t size = discrete_kept_size(part)
    cdef Py_ssize_t i
    for i in range(size):
        theta[size + i] = log(theta[i])


cdef inline double rates_log_prior(
    const Part* part, const double* prior, const double* theta, double* scratch
) noexcept nogil:
    if part.flat:
        return 0.0
    return log_density_of_rates(
        gammas_at(part, prior, scratch), theta + discrete_kept_size(part)
    )


cdef inline double rates_divergence(
    const Part* part, const double* prior, const double* q, const double* theta, double* scratch
) noexcept nogil:
    cdef Py_ssize_t size = discrete_kept_size(part)
    return kl_of_rates(
        gammas_at(part, q, scratch), gammas_at(part, prior, scratch + size), theta
    )


cdef inline double rates_terms(
    const Part* part, const double* q, const double* theta, double* terms, double* scratch
) noexcept nogil:
    memset(terms, 0, part.shape.n_components * part.shape.n_components * sizeof(double))
    add_rate_terms(gammas_at(part, q, scratch), theta + discrete_kept_size(part), terms)
    return 0.0


cdef inline double rates_rounding(
    const Part* part, const double* theta, double* scratch
) noexcept nogil:
    cdef Py_ssize_t k = part.shape.n_components
    cdef Py_ssize_t d = part.shape.n_features
    return rounding_of_rates(k, d, theta, theta + k * d)


cdef inline void rates_pack(
    const Part* part, const double* theta, double* reference, double* coefficients, double* offsets
) noexcept nogil:
    cdef Py_ssize_t k = part.shape.n_components
    cdef Py_ssize_t d = part.shape.n_features
    write_log_rates(k, d, theta + k * d, coefficients)
    write_rate_offsets(k, d, theta, offsets)


cdef inline void rates_collect(
    const Part* part, const double* counts, const double* raw, const double* reference,
    double* fields, double* scratch,
) noexcept nogil:
    cdef Py_ssize_t k = part.shape.n_components
    memcpy(fields, counts, k * sizeof(double))
    collect_counts(k, part.shape.n_features, raw, fields + k)


cdef inline void write_roots(
    const Part* part, const double* tile, Py_ssize_t n_rows, Py_ssize_t stride, double* points
) noexcept nogil:
    """2 sqrt(x): of variance close to 1, whatever the rate (Anscombe 1948)."""
    cdef Py_ssize_t d, row
    for d in range(part.shape.n_features):
        for row in range(n_rows):
            points[d * stride + row] = 2.0 * sqrt(tile[d * stride + row])


cdef extern from *:
    """
    #define COMMON_WITHIN 5.0
    """
    const double COMMON_WITHIN  # as in emissions/poisson.py


cdef inline void rates_spread(
    const Part* part, const double* prior, double share, double* fields, double* scratch
) noexcept nogil:
    cdef Py_ssize_t n = part.shape.n_features
    cdef double* sums = fields + part.shape.n_components
    cdef double total, mean, near, own
    cdef Py_ssize_t d, k
    for d in range(n):
        # Of counts none is 0 for good.
        mean = 0.0 if part.waits else 1.0
        total = mean
        for k in range(part.shape.n_components):
            mean += sums[k * n + d]
            total += fields[k]
        mean /= total
        for k in range(part.shape.n_components):
            near = mean
            if not part.waits and fields[k] > 0.0:
                own = sums[k * n + d] / fields[k]
                near = COMMON_WITHIN * sqrt(own + 1.0)
                near = min(max(mean, own - near), own + near)
            sums[k * n + d] = (1.0 - share) * sums[k * n + d] + share * fields[k] * near


cdef inline double waits_rounding(
    const Part* part, const double* theta, double* scratch
) noexcept nogil:
    cdef Py_ssize_t k = part.shape.n_components
    cdef Py_ssize_t d = part.shape.n_features
    return rounding_of_waits(k, d, theta + k * d)


cdef inline void waits_pack(
    const Part* part, const double* theta, double* reference, double* coefficients, double* offsets
) noexcept nogil:
    cdef Py_ssize_t k = part.shape.n_components
    cdef Py_ssize_t d = part.shape.n_features
    write_slopes(k, d, theta, coefficients)
    write_wait_offsets(k, d, theta + k * d, offsets)


cdef inline void write_fourth_roots(
    const Part* part, const double* tile, Py_ssize_t n_rows, Py_ssize_t stride, double* points
) noexcept nogil:
    """x^(1/4): close to symmetric, whatever the rate (Kittlitz 1999)."""
    cdef Py_ssize_t d, row
    for d in range(part.shape.n_features):
        for row in range(n_rows):
            points[d * stride + row] = sqrt(sqrt(tile[d * stride + row]))


# Symbols ------------------------------------------------------------------------------------------


cdef inline Py_ssize_t tables_scratch_size(const Part* part) noexcept nogil:
    """A table of all rows."""
    return table_size(part)


cdef inline Dirichlets tables_at(const Part* part, const double* fields) noexcept nogil:
    return dirichlets(
        part.shape.n_components * part.shape.n_features, part.n_symbols,
        fields + part.shape.n_components, 1.0,
    )


cdef inline void tables_prepare(Part* part, const double* prior, double* scratch) noexcept nogil:
    part.log_base = 0.0 if part.flat else log_beta(tables_at(part, prior))


cdef inline Py_ssize_t tables_read(
    const Part* part, Read how, const double* posterior, Stream* stream, double* theta,
    double* scratch,
) noexcept nogil:
    cdef Dirichlets q = tables_at(part, posterior)
    cdef Py_ssize_t size = discrete_kept_size(part)
    cdef Py_ssize_t i
    if how == MODE:
        read_table_modes(
            part.shape.n_components, part.shape.n_features, part.n_symbols, q.values, theta
        )
        discrete_complete(part, theta)
    elif how == MEAN:
        read_expected(q, theta)
        read_expected_logs(q, theta + size)
    else:
        draw_logs(q, stream, theta + size)
        for i in range(size):
            theta[i] = exp(theta[size + i])
    return -1


cdef inline double tables_log_prior(
    const Part* part, const double* prior, const double* theta, double* scratch
) noexcept nogil:
    if part.flat:
        return 0.0
    return log_dirichlet(
        tables_at(part, prior), theta + discrete_kept_size(part), part.log_base
    )


cdef inline double tables_divergence(
    const Part* part, const double* prior, const double* q, const double* theta, double* scratch
) noexcept nogil:
    return kl_of(
        tables_at(part, q), tables_at(part, prior), theta + discrete_kept_size(part)
    )


cdef inline double tables_terms(
    const Part* part, const double* q, const double* theta, double* terms, double* scratch
) noexcept nogil:
    memset(terms, 0, part.shape.n_components * part.shape.n_components * sizeof(double))
    add_power_terms(
        tables_at(part, q), part.shape.n_components, theta + discrete_kept_size(part), terms
    )
    return 0.0


cdef inline double tables_rounding(
    const Part* part, const double* theta, double* scratch
) noexcept nogil:
    return 0.0


cdef inline void zeros_and_ones_pack(
    const Part* part, const double* theta, double* reference, double* coefficients, double* offsets
) noexcept nogil:
    memset(offsets, 0, part.shape.n_components * sizeof(double))
    write_zeros_and_ones(
        part.shape.n_components, part.shape.n_features, theta + discrete_kept_size(part),
        coefficients,
    )


cdef inline void zeros_and_ones_collect(
    const Part* part, const double* counts, const double* raw, const double* reference,
    double* fields, double* scratch,
) noexcept nogil:
    cdef Py_ssize_t k = part.shape.n_components
    memcpy(fields, counts, k * sizeof(double))
    collect_zeros_and_ones(k, part.shape.n_features, raw, fields + k)


cdef inline void symbols_pack(
    const Part* part, const double* theta, double* reference, double* coefficients, double* offsets
) noexcept nogil:
    memset(offsets, 0, part.shape.n_components * sizeof(double))
    write_symbols(
        part.shape.n_components, part.shape.n_features, part.n_symbols,
        theta + discrete_kept_size(part), coefficients,
    )


cdef inline void symbols_collect(
    const Part* part, const double* counts, const double* raw, const double* reference,
    double* fields, double* scratch,
) noexcept nogil:
    cdef Py_ssize_t k = part.shape.n_components
    memcpy(fields, counts, k * sizeof(double))
    collect_symbols(k, part.shape.n_features, part.n_symbols, raw, fields + k)


cdef inline void write_indicators(
    const Part* part, const double* tile, Py_ssize_t n_rows, Py_ssize_t stride, double* points
) noexcept nogil:
    """One number for each symbol of each feature: 1 where a row has it, else 0."""
    cdef Py_ssize_t c, d, row
    cdef double* out = points
    for d in range(part.shape.n_features):
        for c in range(part.n_symbols):
            for row in range(n_rows):
                out[row] = 1.0 if tile[d * stride + row] == c else 0.0
            out += stride


cdef inline void tables_spread(
    const Part* part, const double* prior, double share, double* fields, double* scratch
) noexcept nogil:
    cdef Py_ssize_t size = table_size(part)
    cdef const double* excess = prior + part.shape.n_components
    cdef double* tally = fields + part.shape.n_components
    cdef double total
    cdef Py_ssize_t d, i, k
    for d in range(part.shape.n_features):
        total = 0.0
        for i in range(d * part.n_symbols, (d + 1) * part.n_symbols):
            scratch[i] = 1.0 if excess[i] > -1.0 else 0.0
            for k in range(part.shape.n_components):
                scratch[i] += tally[k * size + i]
            total += scratch[i]
        for i in range(d * part.n_symbols, (d + 1) * part.n_symbols):
            for k in range(part.shape.n_components):
                tally[k * size + i] = (
                    (1.0 - share) * tally[k * size + i] + share * fields[k] * scratch[i] / total
                )


# By name ------------------------------------------------------------------------------------------


cdef inline Verbs gaussian_verbs() noexcept nogil:
    cdef Verbs verbs
    verbs.fields_size = gaussian_fields_size
    verbs.kept_size = gaussian_kept_size
    verbs.theta_size = gaussian_theta_size
    verbs.scratch_size = gaussian_scratch_size
    verbs.prepare = gaussian_prepare
    verbs.read = gaussian_read
    verbs.complete = gaussian_complete
    verbs.log_prior = gaussian_log_prior
    verbs.divergence = gaussian_divergence
    verbs.write_terms = gaussian_terms
    verbs.rounding = gaussian_rounding
    verbs.pack = gaussian_pack
    verbs.collect = gaussian_collect
    verbs.add = gaussian_add
    verbs.points_size = row_size
    verbs.write_points = NULL
    verbs.spread = NULL
    return verbs


cdef inline Verbs rates_verbs() noexcept nogil:
    cdef Verbs verbs
    verbs.fields_size = discrete_fields_size
    verbs.kept_size = discrete_kept_size
    verbs.theta_size = discrete_theta_size
    verbs.scratch_size = rates_scratch_size
    verbs.prepare = rates_prepare
    verbs.read = rates_read
    verbs.complete = discrete_complete
    verbs.log_prior = rates_log_prior
    verbs.divergence = rates_divergence
    verbs.write_terms = rates_terms
    verbs.rounding = rates_rounding
    verbs.pack = rates_pack
    verbs.collect = rates_collect
    verbs.add = discrete_add
    verbs.points_size = row_size
    verbs.write_points = write_roots
    verbs.spread = rates_spread
    return verbs


cdef inline Verbs waits_verbs() noexcept nogil:
    """For a part that `waits`."""
    cdef Verbs verbs = rates_verbs()
    verbs.rounding = waits_rounding
    verbs.pack = waits_pack
    verbs.write_points = write_fourth_roots
    return verbs


cdef inline Verbs zeros_and_ones_verbs() noexcept nogil:
    cdef Verbs verbs = rates_verbs()
    verbs.scratch_size = tables_scratch_size
    verbs.prepare = tables_prepare
    verbs.read = tables_read
    verbs.log_prior = tables_log_prior
    verbs.divergence = tables_divergence
    verbs.write_terms = tables_terms
    verbs.rounding = tables_rounding
    verbs.pack = zeros_and_ones_pack
    verbs.collect = zeros_and_ones_collect
    verbs.write_points = NULL
    verbs.spread = tables_spread
    return verbs


cdef inline Verbs symbols_verbs() noexcept nogil:
    cdef Verbs verbs = zeros_and_ones_verbs()
    verbs.pack = symbols_pack
    verbs.collect = symbols_collect
    verbs.points_size = table_size
    verbs.write_points = write_indicators
    return verbs
