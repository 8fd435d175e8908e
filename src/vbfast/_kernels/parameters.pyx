# Conjugate distributions over parameters, for Python: a few calls a sweep, each of which takes no
# longer than a NumPy function would. The formulas are those of conjugate.pxd, dirichlet.pxd and
# gamma.pxd.
#
# Of Gaussians a distribution q is an object with means (K, D), strength (K), dof (G) and scatter
# (G, ...), and theta one with means, factor (G, ...), log_det (G) and slack (K), as in
# conjugate.py: contiguous float64 arrays. What kind of scatter or factor it is, their shapes say.

from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_STRIDES,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport log
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from .arrays cimport Doubles, doubles, look_into, shape_told
from .conjugate cimport (
    DIAG,
    FULL,
    SPHERICAL,
    TIED,
    CovarianceType,
    Family,
    Fields,
    Theta,
    add_moments,
    choose_reference,
    draw,
    family_of,
    has_matrices,
    is_proper,
    read_mean,
    read_mode,
    rounding_of,
    write_coefficients,
    write_offsets,
)
from .conjugate cimport collect as collect_sums
from .conjugate cimport density_terms as terms_of
from .conjugate cimport divergence as divergence_of
from .conjugate cimport exponent as exponent_of
from .conjugate cimport log_density as log_density_of
from .conjugate cimport log_normalizer as log_normalizer_of
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
    read_modes,
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
    without_rate,
    write_log_rates,
    write_rate_offsets,
    write_slopes,
    write_wait_offsets,
)
from .parts cimport MEAN, MODE, SAMPLE, Read
from .random cimport Stream, stream_of
from .tile cimport Shape
from .visit cimport emission_of, shape_within

import numpy as np

# Emissions by name: filled in when the level is loaded.
EMISSIONS = {}

cdef object empty = np.empty
cdef object zeros = np.zeros
cdef dict FAMILIES = {"full": FULL, "tied": TIED, "diag": DIAG, "spherical": SPHERICAL}


# Doubles of scratch that are on the stack.
cdef enum:
    LITTLE = 128


cdef Family family_with(CovarianceType covariance_type, str name, Doubles* means) except *:
    """Of means (K, D), and what an error calls them."""
    cdef Shape shape
    if means.ndim != 2:
        raise ValueError(f"{name} must be (K, D), not {shape_told(means)}")
    shape = shape_within(means.shape[0], means.shape[1], 0)
    return family_of(covariance_type, shape.n_components, shape.n_features)


cdef Family family_named(str kernel, str name, Doubles* means) except *:
    if kernel not in FAMILIES:
        raise ValueError(f"kernel must be one of {', '.join(FAMILIES)}, not {kernel!r}")
    return family_with(FAMILIES[kernel], name, means)


cdef Family family_like(Doubles* means, Doubles* scatter) except *:
    """Of means (K, D) and a scatter, or factor."""
    cdef Family family
    cdef Py_ssize_t n_columns
    if scatter.ndim == 3:
        family = family_with(
            FULL if scatter.shape[0] == means.shape[0] else TIED, "means", means
        )
    else:
        family = family_with(
            DIAG if scatter.shape[1] == means.shape[1] else SPHERICAL, "means", means
        )
    n_columns = family.n_features if has_matrices(family) else family.per_group
    if (
        scatter.ndim < 2 or scatter.shape[0] != family.n_groups
        or scatter.shape[1] != n_columns
        or scatter.ndim == 3 and scatter.shape[2] != n_columns
    ):
        raise ValueError(
            f"scatter has shape {shape_told(scatter)}, which doesn't go with means "
            f"{shape_told(means)}"
        )
    return family


cdef Py_ssize_t statistics_size(str kernel, Family family) except -1:
    """Of what a kernel leaves."""
    return emission_of(EMISSIONS, kernel).statistics_size(
        shape_within(family.n_components, family.n_features, 0)
    )


cdef int read_distribution(q, Family* family, Fields* fields) except -1:
    cdef Doubles mean, scatter
    look_into("means", q.means, &mean)
    look_into("scatter", q.scatter, &scatter)
    family[0] = family_like(&mean, &scatter)
    fields.mean = mean.data
    fields.scatter = scatter.data
    fields.strength = doubles("strength", q.strength, family.n_components)
    fields.dof = doubles("dof", q.dof, family.n_groups)
    return 0


cdef int read_theta(given, Family family, Theta* theta) except -1:
    theta.means = doubles("means", given.means, family.n_components * family.n_features)
    theta.factor = doubles("factor", given.factor, family.n_groups * family.per_group)
    theta.log_det = doubles("log_det", given.log_det, family.n_groups)
    theta.slack = doubles("slack", given.slack, family.n_components)
    return 0


# Room for one or more matrices (D, D) and a row of D doubles; for the row where there are none.
cdef struct Scratch:
    double[LITTLE] little
    double* memory


cdef double* take(Scratch* scratch, Family family, Py_ssize_t matrices=1) except NULL:
    cdef Py_ssize_t size = family.n_features
    if has_matrices(family):
        size *= matrices * family.n_features + 1
    scratch.memory = NULL
    if size <= LITTLE:
        return scratch.little
    scratch.memory = <double*>malloc(size * sizeof(double))
    if scratch.memory == NULL:
        raise MemoryError(f"no {size * sizeof(double)} bytes")
    return scratch.memory


cdef tuple scatter_shape(Family family):
    if family.covariance_type == FULL or family.covariance_type == TIED:
        return (family.n_groups, family.n_features, family.n_features)
    return (family.n_groups, family.per_group)


# Distributions ------------------------------------------------------------------------------------


cdef tuple read(q, Read how, uint64_t seed):
    cdef Family family
    cdef Fields fields
    cdef Theta theta
    cdef Scratch scratch
    cdef Stream stream = stream_of(seed, 0)
    cdef double* room
    cdef Py_ssize_t bad
    read_distribution(q, &family, &fields)
    means = empty((family.n_components, family.n_features))
    factor = empty(scatter_shape(family))
    log_det = empty(family.n_groups)
    slack = empty(family.n_components)
    theta.means = doubles("means", means, family.n_components * family.n_features)
    theta.factor = doubles("factor", factor, family.n_groups * family.per_group)
    theta.log_det = doubles("log_det", log_det, family.n_groups)
    theta.slack = doubles("slack", slack, family.n_components)
    room = take(&scratch, family, 2)
    with nogil:
        if how == MODE:
            bad = read_mode(family, fields, theta, room)
        elif how == MEAN:
            bad = read_mean(family, fields, theta, room)
        else:
            bad = draw(family, fields, &stream, theta, room)
        free(scratch.memory)
    return (means, factor, log_det, slack), bad


def mode(q):
    """The joint mode in (mu, Lambda).

    Returns
    -------
    parts : tuple of ndarray
        means, factor, log_det and slack.
    bad : int
        The first group that has no covariance, or -1.
    """
    return read(q, MODE, 0)


def mean(q):
    """Expected natural parameters; returned as by `mode`."""
    return read(q, MEAN, 0)


def sample(q, uint64_t seed):
    """Parameters drawn; returned as by `mode`."""
    return read(q, SAMPLE, seed)


def rounding(theta):
    """Nats a row that rounding may take from an objective at theta: see conjugate.pxd."""
    cdef Family family
    cdef Theta parts
    cdef Doubles means, factor
    cdef Scratch scratch
    cdef double* room
    cdef double value
    look_into("means", theta.means, &means)
    look_into("factor", theta.factor, &factor)
    family = family_like(&means, &factor)
    read_theta(theta, family, &parts)
    room = take(&scratch, family)
    with nogil:
        value = rounding_of(family, parts, room)
        free(scratch.memory)
    return value


def logarithms(weights):
    """log of each, in the same shape: -inf of 0."""
    cdef Doubles found
    cdef Py_ssize_t k
    look_into("weights", weights, &found)
    out = empty(weights.shape)
    cdef double* values = doubles("logarithms", out, found.size)
    for k in range(found.size):
        values[k] = log(found.data[k])
    return out


def exponent(q):
    """Power of |Lambda|^(1/2), or of each lambda^(1/2), in the joint density, (G,)."""
    cdef Family family
    cdef Fields fields
    cdef Py_ssize_t g
    read_distribution(q, &family, &fields)
    out = empty(family.n_groups)
    cdef double* values = doubles("exponent", out, family.n_groups)
    for g in range(family.n_groups):
        values[g] = exponent_of(family, fields, g)
    return out


def proper(q):
    """Whether the density can be normalised."""
    cdef Family family
    cdef Fields fields
    read_distribution(q, &family, &fields)
    return bool(is_proper(family, fields))


def log_normalizer(q):
    """Log of the integral of the density, (G,); infinite where scatter is not positive definite."""
    cdef Family family
    cdef Fields fields
    cdef Scratch scratch
    cdef double* room
    cdef Py_ssize_t g
    read_distribution(q, &family, &fields)
    out = empty(family.n_groups)
    cdef double* values = doubles("log_normalizer", out, family.n_groups)
    room = take(&scratch, family)
    with nogil:
        for g in range(family.n_groups):
            values[g] = log_normalizer_of(family, fields, g, room)
        free(scratch.memory)
    return out


def log_density(q, theta):
    """log q(theta), without its constant."""
    cdef Family family
    cdef Fields fields
    cdef Theta at
    cdef Scratch scratch
    cdef double* room
    cdef double value
    read_distribution(q, &family, &fields)
    read_theta(theta, family, &at)
    room = take(&scratch, family)
    with nogil:
        value = log_density_of(family, fields, at, room)
        free(scratch.memory)
    return value


def divergence(q, prior, theta):
    """KL(q || prior) less the prior's log normaliser, theta being the mean of q."""
    cdef Family family, other
    cdef Fields fields, prior_fields
    cdef Theta at
    cdef Scratch scratch
    cdef double* room
    cdef double value
    read_distribution(q, &family, &fields)
    read_distribution(prior, &other, &prior_fields)
    if (
        other.covariance_type != family.covariance_type
        or other.n_components != family.n_components or other.n_features != family.n_features
    ):
        raise ValueError("q and its prior are not of one shape")
    read_theta(theta, family, &at)
    room = take(&scratch, family)
    with nogil:
        value = divergence_of(family, prior_fields, fields, at, room)
        free(scratch.memory)
    return value


def density_terms(q, theta):
    """Density of theta under q with components in any order.

    Returns
    -------
    c : float
    M : ndarray of shape (K, K)
        log q = c + sum_k M[sigma(k), k] where component sigma(k) plays theta's k.
    """
    cdef Family family
    cdef Fields fields
    cdef Theta at
    cdef Scratch scratch
    cdef double* room
    cdef double common
    read_distribution(q, &family, &fields)
    read_theta(theta, family, &at)
    terms = empty((family.n_components, family.n_components))
    cdef double* values = doubles("terms", terms, family.n_components**2)
    room = take(&scratch, family)
    with nogil:
        common = terms_of(family, fields, at, values, room)
        free(scratch.memory)
    return common, terms


# Dirichlet distributions, (..., K): concentrations are values + shift, see dirichlet.pxd ----------


cdef Dirichlets read_dirichlets(str name, values, double shift) except *:
    cdef Doubles found
    look_into(name, values, &found)
    if found.ndim == 0 or found.size == 0:
        raise ValueError(f"{name} must be (..., K), of one number at least")
    cdef Py_ssize_t n_columns = found.shape[found.ndim - 1]
    return dirichlets(found.size // n_columns, n_columns, found.data, shift)


def dirichlet_mode(values, double shift):
    """Weights of highest density; of the mean where all have the same."""
    cdef Dirichlets q = read_dirichlets("concentration", values, shift)
    out = empty(values.shape)
    read_modes(q, doubles("weights", out, q.n_rows * q.n_columns))
    return out


def dirichlet_mean(values, double shift):
    """E[p]."""
    cdef Dirichlets q = read_dirichlets("concentration", values, shift)
    out = empty(values.shape)
    read_expected(q, doubles("weights", out, q.n_rows * q.n_columns))
    return out


def dirichlet_mean_log(values, double shift):
    """E[log p]; -inf where the concentration is 0."""
    cdef Dirichlets q = read_dirichlets("concentration", values, shift)
    out = empty(values.shape)
    read_expected_logs(q, doubles("logarithms", out, q.n_rows * q.n_columns))
    return out


def dirichlet_sample(values, double shift, uint64_t seed):
    """Logarithms of numbers drawn; -inf where the concentration is 0."""
    cdef Dirichlets q = read_dirichlets("concentration", values, shift)
    cdef Stream stream = stream_of(seed, 0)
    out = empty(values.shape)
    draw_logs(q, &stream, doubles("logarithms", out, q.n_rows * q.n_columns))
    return out


def dirichlet_log_normalizer(values, double shift):
    """Log of the integral of prod p^(concentration - 1), of all rows together."""
    return log_beta(read_dirichlets("concentration", values, shift))


def dirichlet_log_density(values, double shift, logs):
    """Log density at numbers of which these are the logarithms."""
    cdef Dirichlets q = read_dirichlets("concentration", values, shift)
    return log_dirichlet(q, doubles("logarithms", logs, q.n_rows * q.n_columns), log_beta(q))


def dirichlet_kl(values, prior, double shift):
    """KL(q || prior), whose concentrations are 0 in the same places."""
    cdef Dirichlets q = read_dirichlets("concentration", values, shift)
    cdef Dirichlets p = dirichlets(
        q.n_rows, q.n_columns, doubles("prior", prior, q.n_rows * q.n_columns), shift
    )
    logs = dirichlet_mean_log(values, shift)
    return kl_of(q, p, doubles("logarithms", logs, q.n_rows * q.n_columns))


# Tables of K components, D features and C symbols: excess (K, D, C) of concentrations over 1 ------


cdef int read_table(str name, table, Doubles* found) except -1:
    look_into(name, table, found)
    if found.ndim != 3 or found.size == 0:
        raise ValueError(f"{name} must be (K, D, C), not {shape_told(found)}")
    return 0


def table_mode(excess):
    """Probabilities of highest density; those of all rows where all have the same."""
    cdef Doubles found
    read_table("excess", excess, &found)
    out = empty(excess.shape)
    read_table_modes(
        found.shape[0], found.shape[1], found.shape[2], found.data,
        doubles("probabilities", out, found.size),
    )
    return out


def table_terms(excess, logs):
    """Density of probabilities under these with components in any order: M (K, K)."""
    cdef Doubles found
    read_table("excess", excess, &found)
    out = zeros((found.shape[0], found.shape[0]))
    add_power_terms(
        dirichlets(found.shape[0] * found.shape[1], found.shape[2], found.data, 1.0),
        found.shape[0], doubles("logarithms", logs, found.size), doubles("terms", out, len(out)**2),
    )
    return out


# Gamma distributions of rates, excess of the shape over 1 and rate (K, D) -------------------------


cdef Gammas read_gammas(excess, rate) except *:
    cdef Doubles found
    look_into("excess", excess, &found)
    if found.ndim != 2:
        raise ValueError(f"excess must be (K, D), not {shape_told(&found)}")
    return gammas(found.shape[0], found.shape[1], found.data, doubles("rate", rate, found.size))


def rate_mode(excess, rate, double least):
    """Rates of highest density, and their logarithms; see gamma.pxd for empty components."""
    cdef Gammas q = read_gammas(excess, rate)
    cdef Py_ssize_t size = q.n_components * q.n_features
    rates, logs = empty(excess.shape), empty(excess.shape)
    read_rate_modes(q, least, doubles("rates", rates, size), doubles("logarithms", logs, size))
    return rates, logs


def waits_without_rate(excess, rate):
    """The first component of waiting times that has no mode, or -1: see gamma.pxd."""
    return without_rate(read_gammas(excess, rate))


def rate_mean(excess, rate):
    """E[lambda] and E[log lambda]."""
    cdef Gammas q = read_gammas(excess, rate)
    cdef Py_ssize_t size = q.n_components * q.n_features
    rates, logs = empty(excess.shape), empty(excess.shape)
    read_expected_rates(q, doubles("rates", rates, size), doubles("logarithms", logs, size))
    return rates, logs


def rate_sample(excess, rate, uint64_t seed):
    """Rates drawn, and their logarithms."""
    cdef Gammas q = read_gammas(excess, rate)
    cdef Py_ssize_t size = q.n_components * q.n_features
    cdef Stream stream = stream_of(seed, 0)
    rates, logs = empty(excess.shape), empty(excess.shape)
    draw_rates(q, &stream, doubles("rates", rates, size), doubles("logarithms", logs, size))
    return rates, logs


def rate_log_density(excess, rate, logs):
    """log p(lambda)."""
    cdef Gammas q = read_gammas(excess, rate)
    cdef Py_ssize_t size = q.n_components * q.n_features
    return log_density_of_rates(q, doubles("logarithms", logs, size))


def rate_terms(excess, rate, logs):
    """Density of rates under these with components in any order: M (K, K)."""
    cdef Gammas q = read_gammas(excess, rate)
    cdef Py_ssize_t size = q.n_components * q.n_features
    out = zeros((q.n_components, q.n_components))
    add_rate_terms(q, doubles("logarithms", logs, size), doubles("terms", out, q.n_components**2))
    return out


def rate_kl(excess, rate, prior_excess, prior_rate):
    """KL(q || prior)."""
    cdef Gammas q = read_gammas(excess, rate)
    cdef Py_ssize_t size = q.n_components * q.n_features
    cdef Gammas p = gammas(
        q.n_components, q.n_features, doubles("prior", prior_excess, size),
        doubles("prior", prior_rate, size),
    )
    rates, _ = rate_mean(excess, rate)
    return kl_of_rates(q, p, doubles("rates", rates, size))


def rate_rounding(rates, log_rates):
    """Nats a row that rounding may take from an objective at rates (K, D): see gamma.pxd."""
    cdef Doubles found
    look_into("rates", rates, &found)
    if found.ndim != 2:
        raise ValueError(f"rates must be (K, D), not {shape_told(&found)}")
    return rounding_of_rates(
        found.shape[0], found.shape[1], found.data, doubles("log_rates", log_rates, found.size)
    )


def wait_rounding(log_rates):
    """The same of waiting times."""
    cdef Doubles found
    look_into("log_rates", log_rates, &found)
    if found.ndim != 2:
        raise ValueError(f"log_rates must be (K, D), not {shape_told(&found)}")
    return rounding_of_waits(found.shape[0], found.shape[1], found.data)


# Statistics ---------------------------------------------------------------------------------------


cdef bint is_like(const Py_buffer* view, tuple shape) except -1:
    """Whether a buffer holds doubles of this shape, one after another."""
    cdef int i
    if view.ndim != len(shape) or view.format[0] != c"d" or view.format[1] != 0:
        return False
    for i in range(view.ndim):
        if view.shape[i] != <Py_ssize_t>shape[i]:
            return False
    return PyBuffer_IsContiguous(view, c"C")


# Numbers that are copied in some 10 ms.
cdef Py_ssize_t PART = 2**20


cdef int copy(double* to, const double* values, Py_ssize_t n) except -1:
    """By parts, between which is looked for Ctrl-C: new memory is slow to come."""
    cdef Py_ssize_t part
    while n > 0:
        part = min(n, PART)
        memcpy(to, values, part * sizeof(double))
        to += part
        values += part
        n -= part
        PyErr_CheckSignals()
    return 0


def joined(dict places, Py_ssize_t size, values):
    """Fields one after another, (size,): what `values` has of them, or 0.

    Parameters
    ----------
    places : where each field begins and ends, and its shape
    values : dict of anything that can be broadcast to these shapes
    """
    cdef Py_buffer view
    cdef Py_ssize_t start, end
    cdef tuple shape
    cdef double count
    cdef bint done
    out = zeros(size)
    cdef double* buffer = doubles("fields", out, size)
    for name, value in values.items():
        start, end, shape = places[name]
        count = 1.0
        for extent in shape:
            count *= <double>extent
        if not 0 <= start <= end <= size or end - start != count:
            raise ValueError(f"places[{name!r}] is {places[name]}, of {size} numbers")
        done = False
        if PyObject_CheckBuffer(value):
            PyObject_GetBuffer(value, &view, PyBUF_STRIDES | PyBUF_FORMAT)
            try:
                done = is_like(&view, shape)
                if done:
                    copy(buffer + start, <const double*>view.buf, end - start)
            finally:
                PyBuffer_Release(&view)
        if not done:
            out[start:end].reshape(shape)[...] = value
    return out


cdef int take_shape(str name, tuple shape, Doubles* out) except -1:
    cdef int i
    if not 1 <= len(shape) <= 3:
        raise ValueError(f"{name} must be of one dimension to three, not {shape}")
    out.ndim = len(shape)
    for i in range(3):
        out.shape[i] = shape[i] if i < out.ndim else 0
    return 0


def add(a, b, out, tuple places, tuple mean_shape, tuple scatter_shape):
    """Let strength, mean and scatter in `out` be those of `a` and `b` together.

    Parameters
    ----------
    a, b : IN; out : OUT, (size,)
        Statistics of two groups of rows, and of both.
    places : where in these strength, mean and scatter begin
    mean_shape, scatter_shape : (K, D), (G, ...)
    """
    cdef Doubles mine, theirs, both
    cdef Fields first, second, total
    cdef Doubles mean, scatter
    cdef Scratch scratch
    cdef double* room
    cdef Py_ssize_t strength_at, mean_at, scatter_at
    cdef Family family
    take_shape("mean", mean_shape, &mean)
    take_shape("scatter", scatter_shape, &scatter)
    family = family_like(&mean, &scatter)
    strength_at, mean_at, scatter_at = places
    look_into("a", a, &mine)
    look_into("b", b, &theirs)
    look_into("out", out, &both, True)
    if (
        mine.size != theirs.size or mine.size != both.size
        or not 0 <= strength_at <= mine.size - family.n_components
        or not 0 <= mean_at <= mine.size - family.n_components * family.n_features
        or not 0 <= scatter_at <= mine.size - family.n_groups * family.per_group
    ):
        raise ValueError("a, b, out and the places in them do not go together")
    first.strength = mine.data + strength_at
    first.mean = mine.data + mean_at
    first.scatter = mine.data + scatter_at
    second.strength = theirs.data + strength_at
    second.mean = theirs.data + mean_at
    second.scatter = theirs.data + scatter_at
    total.strength = both.data + strength_at
    total.mean = both.data + mean_at
    total.scatter = both.data + scatter_at
    room = take(&scratch, family)
    with nogil:
        add_moments(family, first, second, total, room)
        free(scratch.memory)


# What kernels read and leave ----------------------------------------------------------------------


cdef int read_points(str kernel, given, Family* family, Theta* theta) except -1:
    """Means and factor."""
    cdef Doubles means
    look_into("means", given.means, &means)
    family[0] = family_named(kernel, "means", &means)
    theta.means = means.data
    theta.factor = doubles("factor", given.factor, family.n_groups * family.per_group)
    return 0


def collect(str kernel, raw, counts, reference, double reg_covar, variance):
    """Sums about `reference` (K, D) that a kernel left, in centred form.

    Each of the `counts` rows (K,) is a cloud of variance reg_covar * variance (D,).

    Returns
    -------
    mean : ndarray of shape (K, D)
    dof : ndarray of shape (G,)
    scatter : ndarray of shape (G, ...)
    """
    cdef Doubles about
    cdef Family family
    cdef Fields fields
    cdef Scratch scratch
    cdef double* room
    look_into("reference", reference, &about)
    family = family_named(kernel, "reference", &about)
    cdef double* sums = doubles("raw", raw, statistics_size(kernel, family))
    cdef double* rows = doubles("counts", counts, family.n_components)
    cdef double* each = doubles("variance", variance, family.n_features)
    means = empty((family.n_components, family.n_features))
    dof = empty(family.n_groups)
    scatter = empty(scatter_shape(family))
    fields.mean = doubles("mean", means, about.size)
    fields.dof = doubles("dof", dof, family.n_groups)
    fields.scatter = doubles("scatter", scatter, family.n_groups * family.per_group)
    room = take(&scratch, family)
    with nogil:
        collect_sums(family, rows, sums, about.data, reg_covar, each, fields, room)
        free(scratch.memory)
    return means, dof, scatter


def reference(str kernel, theta):
    """Points (K, D) that a kernel takes moments about: the origin or a component's mean."""
    cdef Family family
    cdef Theta at
    read_points(kernel, theta, &family, &at)
    out = empty((family.n_components, family.n_features))
    choose_reference(
        family, at, doubles("reference", out, family.n_components * family.n_features)
    )
    return out


def coefficients(str kernel, theta, reference):
    """What a kernel reads of theta: see gaussian.pyx."""
    cdef Family family
    cdef Theta at
    cdef Py_ssize_t size
    read_points(kernel, theta, &family, &at)
    size = emission_of(EMISSIONS, kernel).coefficients_size(
        shape_within(family.n_components, family.n_features, 0)
    )
    out = empty(size)
    write_coefficients(
        family, at,
        doubles("reference", reference, family.n_components * family.n_features),
        doubles("coefficients", out, size),
    )
    return out


def offsets(str kernel, theta, double log_scale, double reg_covar, variance):
    """Scores at squared distance zero but for the weights' part, (K,).

    log_scale : sum over features of the logarithms of the frame's scales
    """
    cdef Family family
    cdef Theta at
    read_points(kernel, theta, &family, &at)
    at.log_det = doubles("log_det", theta.log_det, family.n_groups)
    at.slack = doubles("slack", theta.slack, family.n_components)
    out = empty(family.n_components)
    write_offsets(
        family, at, log_scale, reg_covar, doubles("variance", variance, family.n_features),
        doubles("offsets", out, family.n_components),
    )
    return out


# The same of counts and symbols -------------------------------------------------------------------


cdef Shape shape_like(Doubles* found) except *:
    """Of logarithms of rates (K, D), or of probabilities (K, D, C)."""
    if not 2 <= found.ndim <= 3:
        raise ValueError(f"parameters must be (K, D) or (K, D, C), not {shape_told(found)}")
    return shape_within(found.shape[0], found.shape[1], found.shape[2])


cdef Py_ssize_t check_discrete(str kernel, Shape shape) except -1:
    """Numbers of a symbol's table that a kernel takes, or none, in these."""
    if kernel not in EMISSIONS or kernel in FAMILIES:
        raise ValueError(f"kernel must be of counts, waiting times or symbols, not {kernel!r}")
    if kernel in ("poisson", "exponential") and shape.n_categories or kernel == "bernoulli" and (
        shape.n_categories != 2
    ) or kernel == "categorical" and shape.n_categories == 0:
        raise ValueError(f"{kernel!r} has no parameters with {shape.n_categories} symbols")
    return 0


def discrete_coefficients(str kernel, logs):
    """What a kernel reads of logarithms of rates (K, D) or probabilities (K, D, C).

    Of waiting times, of the rates themselves.
    """
    cdef Doubles found
    look_into("logarithms", logs, &found)
    cdef Shape shape = shape_like(&found)
    check_discrete(kernel, shape)
    cdef Py_ssize_t size = emission_of(EMISSIONS, kernel).coefficients_size(shape)
    out = empty(size)
    cdef double* values = doubles("coefficients", out, size)
    if kernel == "poisson":
        write_log_rates(shape.n_components, shape.n_features, found.data, values)
    elif kernel == "exponential":
        write_slopes(shape.n_components, shape.n_features, found.data, values)
    elif kernel == "bernoulli":
        write_zeros_and_ones(shape.n_components, shape.n_features, found.data, values)
    else:
        write_symbols(
            shape.n_components, shape.n_features, shape.n_categories, found.data, values
        )
    return out


def rate_offsets(str kernel, theta):
    """Scores of rows of zeros, (K,): of rates of counts, of logarithms of those of waits (K, D)."""
    cdef Doubles found
    look_into("theta", theta, &found)
    cdef Shape shape = shape_like(&found)
    check_discrete(kernel, shape)
    out = empty(shape.n_components)
    cdef double* values = doubles("offsets", out, shape.n_components)
    if kernel == "poisson":
        write_rate_offsets(shape.n_components, shape.n_features, found.data, values)
    elif kernel == "exponential":
        write_wait_offsets(shape.n_components, shape.n_features, found.data, values)
    else:
        raise ValueError(f"kernel must be of rates, not {kernel!r}")
    return out


def discrete_statistics(str kernel, raw, tuple shape):
    """Sums (K, D) or tallies (K, D, C) of what a kernel leaves."""
    out = empty(shape)
    cdef Doubles found
    look_into("statistics", out, &found)
    cdef Shape of = shape_like(&found)
    check_discrete(kernel, of)
    cdef const double* sums = doubles(
        "raw", raw, emission_of(EMISSIONS, kernel).statistics_size(of)
    )
    if kernel in ("poisson", "exponential"):
        collect_counts(of.n_components, of.n_features, sums, found.data)
    elif kernel == "bernoulli":
        collect_zeros_and_ones(of.n_components, of.n_features, sums, found.data)
    else:
        collect_symbols(of.n_components, of.n_features, of.n_categories, sums, found.data)
    return out
