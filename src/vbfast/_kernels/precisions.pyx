# Precisions lambda whose means have a prior of their own (IndependentNormalGamma in conjugate.py):
# exact draws, and integrals.
#
# Of u = log lambda, the means integrated out, the log density is, up to a constant,
#
#     l(u) = a u - b e^u - sum over features of [log(1 + w) / 2 + g w / (1 + w)],  w = s e^u / pull,
#
# with a = dof / 2, b = scatter / 2, g = pull (mean - center)^2 / 2 and the weight s of the rows. It
# has two modes and more where the rows are far from the centre, each as narrow as 1 / sqrt(a). On a
# cell that is h wide l lies below its chord by nothing and above it by M h^2 / 8 at most, M a bound
# of -l'': of b e^u + sum of [v (1 - v) / 2 + g v (1 - v) (1 - 2 v)], v = w / (1 + w), which grows
# with u. So the chords, raised by that, are an envelope, which is refined where it has mass, and
# what is drawn from it is accepted nearly always.

from libc.math cimport INFINITY, NAN, exp, expm1, fabs, isfinite, log, log1p, sqrt
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from .random cimport Stream, stream_of, uniform


cdef enum:
    MOST_CELLS = 4096
    MOST_TRIES = 1000
    POINTS = 8


# Where there is mass: how far an envelope may lie above its chord, and how much that may rise.
cdef double FINE = 0.1
cdef double STEEP = 4.0
# A cell of exp(-DEEP) of the mass may be as coarse as it likes.
cdef double DEEP = 40.0
# No precision is larger where variances of the whole data are 1: see SMALLEST_VARIANCE.
cdef double LARGEST = 1e26

# None that is drawn is so small that its logarithm would be lost.
cdef double SMALLEST = 1e-300

# Gauss-Legendre rule on [-1, 1] (Abramowitz & Stegun 1964, table 25.4).
cdef double[4] NODES = [
    0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363,
]
cdef double[4] WEIGHTS = [
    0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763,
]


cdef struct Feature:
    double log_ratio  # log(s / pull)
    double distance  # g
    double x  # log w at the reference
    double v  # w / (1 + w) there


cdef struct Density:
    double a
    double log_b
    double reference  # u; places are given as differences from it, for all their digits
    double scale  # b e^u there
    Py_ssize_t n
    Feature* features


cdef struct Cell:
    double left
    double right
    double low  # l at its ends
    double high
    double excess  # of the envelope over the chord
    double log_mass  # of the envelope


cdef inline double share(double x) noexcept nogil:
    """v = w / (1 + w) for log w."""
    return 1.0 / (1.0 + exp(-x))


cdef inline double power(const Density* density, double t) noexcept nogil:
    """b e^u at a place; the factors may be too large or too small for numbers."""
    return exp(density.log_b + density.reference + t)


cdef void refer(Density* density, double u) noexcept nogil:
    cdef Py_ssize_t j
    density.reference = u
    density.scale = power(density, 0.0)
    for j in range(density.n):
        density.features[j].x = density.features[j].log_ratio + u
        density.features[j].v = share(density.features[j].x)


cdef double at_reference(const Density* density) noexcept nogil:
    """The density of u at the reference."""
    cdef const Feature* f
    cdef double value = density.a * density.reference - density.scale
    cdef Py_ssize_t j
    for j in range(density.n):
        f = density.features + j
        value -= f.distance * f.v + 0.5 * (max(f.x, 0.0) + log1p(exp(-fabs(f.x))))
    return value


cdef double height(const Density* density, double t) noexcept nogil:
    """l at a place less l at the reference."""
    cdef bint near = fabs(t) <= 1.0
    cdef double e = expm1(t) if near else 0.0
    cdef double value = density.a * t - (
        density.scale * e if near else power(density, t) - density.scale
    )
    cdef const Feature* f
    cdef double x
    cdef Py_ssize_t j
    for j in range(density.n):
        f = density.features + j
        if near:
            x = 1.0 + f.v * e
            value -= 0.5 * log1p(f.v * e) + f.distance * f.v * (1.0 - f.v) * e / x
        else:
            x = f.x + t
            value -= f.distance * (share(x) - f.v) + 0.5 * (
                max(x, 0.0) + log1p(exp(-fabs(x))) - max(f.x, 0.0) - log1p(exp(-fabs(f.x)))
            )
    return value


cdef inline double spread_of(double d) noexcept nogil:
    """(1 - e^-d) / d for d >= 0."""
    return -expm1(-d) / d if d > 1e-12 else 1.0


cdef void close(const Density* density, Cell* cell) noexcept nogil:
    """Fill in what follows from a cell's ends and the heights there."""
    cdef double width = cell.right - cell.left
    cdef double bend = power(density, cell.right)
    cdef double v
    cdef Py_ssize_t j
    for j in range(density.n):
        v = share(density.features[j].x + cell.right)
        bend += 0.5 * min(0.25, v) + density.features[j].distance * v * max(
            0.0, 1.0 - 2.0 * share(density.features[j].x + cell.left)
        )
    cell.excess = 0.125 * bend * width * width
    cell.log_mass = (
        max(cell.low, cell.high) + cell.excess + log(width)
        + log(spread_of(fabs(cell.high - cell.low)))
    )


cdef inline bint is_fine(const Cell* cell) noexcept nogil:
    return cell.excess <= FINE and fabs(cell.high - cell.low) <= STEEP


cdef Py_ssize_t refine(
    const Density* density, double left, double right, Cell* cells
) noexcept nogil:
    """Cells from left to right, fine where there is mass; returns how many, 0 for no density."""
    cdef Py_ssize_t n = 1
    cdef Py_ssize_t i, n_before
    cdef double coarse, fine, middle, value
    cells[0].left, cells[0].right = left, right
    cells[0].low, cells[0].high = height(density, left), height(density, right)
    close(density, cells)
    while True:
        coarse, fine = -INFINITY, -INFINITY
        for i in range(n):
            if is_fine(cells + i):
                fine = max(fine, cells[i].log_mass)
            elif not cells[i].log_mass <= coarse:
                coarse = cells[i].log_mass
        if coarse < fine - DEEP or (coarse == -INFINITY and fine > -INFINITY):
            return n
        # The heaviest coarse ones first: what they turn out to be may do for the others.
        n_before = n
        for i in range(n_before):
            if is_fine(cells + i) or cells[i].log_mass < coarse - DEEP:
                continue
            middle = 0.5 * (cells[i].left + cells[i].right)
            value = height(density, middle)
            if n == MOST_CELLS or not (cells[i].left < middle < cells[i].right) or value != value:
                return 0
            cells[n] = cells[i]
            cells[n].left = middle
            cells[n].low = value
            cells[i].right = middle
            cells[i].high = value
            close(density, cells + i)
            close(density, cells + n)
            n += 1
        if n == n_before:
            return 0


cdef double highest(const Cell* cells, Py_ssize_t n, double* place) noexcept nogil:
    cdef double top = -INFINITY
    cdef Py_ssize_t i
    for i in range(n):
        if cells[i].low > top:
            top = cells[i].low
            place[0] = cells[i].left
    return top


cdef Py_ssize_t envelope(Density* density, double least, Cell* cells) noexcept nogil:
    """Cells that hold all of the density but exp(-40); the reference is put at its highest place.

    `least`: what lambda is at the density's modes at least.
    """
    cdef double a = density.a
    cdef double end = log(min(2 * LARGEST, a / exp(density.log_b)))
    cdef double start = min(log(least), end)
    cdef double place = 0.0
    cdef Py_ssize_t n
    cdef int turn
    # l falls off on either side no slower than that of Gamma(a, a / least), Gamma(a, b).
    start -= 40.0 / a + 9.0 / sqrt(a)
    end += log1p(40.0 / a) + 9.0 / sqrt(a)
    if not (isfinite(start) and isfinite(end)):
        return 0
    refer(density, start)
    for turn in range(2):
        n = refine(density, start - density.reference, end - density.reference, cells)
        if n == 0:
            return 0
        if turn == 0:
            highest(cells, n, &place)
            refer(density, density.reference + place)
    return n


cdef double integrate(const Density* density, const Cell* cells, Py_ssize_t n) noexcept nogil:
    """Log of the integral over lambda."""
    cdef double place
    cdef double top = highest(cells, n, &place)
    cdef double total = 0.0
    cdef double half, middle, x
    cdef Py_ssize_t i, j
    for i in range(n):
        half = 0.5 * (cells[i].right - cells[i].left)
        middle = 0.5 * (cells[i].right + cells[i].left)
        for j in range(POINTS):
            x = middle + (half if j % 2 else -half) * NODES[j // 2]
            total += half * WEIGHTS[j // 2] * exp(height(density, x) - top)
    return at_reference(density) + top + log(total)


cdef double draw(
    const Density* density, const Cell* cells, Py_ssize_t n, Stream* stream
) noexcept nogil:
    """By rejection; NAN if nothing comes of it."""
    cdef double top = -INFINITY
    cdef double total = 0.0
    cdef double chord, d, left, x
    cdef Py_ssize_t i
    cdef int _
    for i in range(n):
        top = max(top, cells[i].log_mass)
    for i in range(n):
        total += exp(cells[i].log_mass - top)
    for _ in range(MOST_TRIES):
        left = uniform(stream) * total
        i = 0
        while i < n - 1:
            left -= exp(cells[i].log_mass - top)
            if left < 0.0:
                break
            i += 1
        # How far from the higher end, of 1: an exponential distribution, cut off.
        d = fabs(cells[i].high - cells[i].low)
        x = uniform(stream)
        if d > 1e-12:
            x = -log1p(x * expm1(-d)) / d
        chord = max(cells[i].low, cells[i].high) - x * d + cells[i].excess
        x *= cells[i].right - cells[i].left
        x = cells[i].right - x if cells[i].high > cells[i].low else cells[i].left + x
        if log(1.0 - uniform(stream)) <= height(density, x) - chord:
            return max(exp(density.reference) * exp(x), SMALLEST)
    return NAN


def of_independent_means(
    const double[::1] dof, const double[::1] strength, const double[:, ::1] scatter,
    const double[:, ::1] gap, const double[::1] pull, object seed, double[:, ::1] out,
):
    """Draw precisions, or integrate over them.

    Parameters
    ----------
    dof, strength : IN, (K,); scatter : IN, (K, G), G = D or 1
    gap : IN, (K, D), mean of rows less centre; pull : IN, (D,)
    seed : IN, of draws; None for logarithms of integrals
    out : OUT, (K, G)

    Returns
    -------
    Number of the first component that has no density, or -1.
    """
    cdef Py_ssize_t n_components = gap.shape[0]
    cdef Py_ssize_t n_features = gap.shape[1]
    cdef Py_ssize_t n_groups = scatter.shape[1]
    cdef bint drawing = seed is not None
    cdef uint64_t key = seed if drawing else 0
    cdef Py_ssize_t bad = -1
    cdef Py_ssize_t first, g, j, k, n
    cdef Cell* cells
    cdef Density density
    cdef double least
    cdef Stream stream
    if (
        dof.shape[0] != n_components or strength.shape[0] != n_components
        or scatter.shape[0] != n_components or n_groups != 1 and n_groups != n_features
        or pull.shape[0] != n_features or out.shape[0] != n_components or out.shape[1] != n_groups
    ):
        raise ValueError("dof, strength, scatter, gap, pull and out do not go together")
    cells = <Cell*>malloc(MOST_CELLS * sizeof(Cell))
    density.features = <Feature*>malloc(max(n_features, 1) * sizeof(Feature))
    try:
        if cells == NULL or density.features == NULL:
            raise MemoryError(f"no memory for {MOST_CELLS} cells and {n_features} features")
        with nogil:
            density.n = n_features // n_groups if n_groups > 0 else 0
            for k in range(n_components):
                for g in range(n_groups):
                    density.a = 0.5 * dof[k]
                    density.log_b = log(0.5 * scatter[k, g])
                    least = scatter[k, g]
                    first = g * density.n
                    for j in range(density.n):
                        density.features[j].log_ratio = log(strength[k] / pull[first + j])
                        density.features[j].distance = 0.5 * pull[first + j] * (
                            gap[k, first + j] * gap[k, first + j]
                        )
                        least += strength[k] * (
                            gap[k, first + j] * gap[k, first + j] + 1.0 / pull[first + j]
                        )
                    n = envelope(&density, dof[k] / least, cells)
                    out[k, g] = NAN
                    if n > 0 and drawing:
                        stream = stream_of(key, <unsigned int>(k * n_groups + g))
                        out[k, g] = draw(&density, cells, n, &stream)
                    elif n > 0:
                        out[k, g] = integrate(&density, cells, n)
                    if bad < 0 and not isfinite(out[k, g]):
                        bad = k
    finally:
        free(cells)
        free(density.features)
    return bad
