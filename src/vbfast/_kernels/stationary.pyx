# Stationary distributions of Markov chains, and the highest posterior of a chain that starts from
# its own: see latents/chain.py.

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY, exp, fabs, log
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from .arrays cimport doubles, doubles_of


# Of an ascent: steps at most, and as many of the last as tell of curvatures; the share of the
# objective that is no gain; the shortest share of a step that is tried, and the longest step in a
# logarithm where no curvature is known; a probability at least, where it isn't 0.
cdef Py_ssize_t STEPS = 1000
cdef Py_ssize_t MEMORY = 50
cdef Py_ssize_t MOST_NUMBERS = 2**23
cdef double GAIN = 1e-13
cdef double SHORTEST = 1e-9
cdef double LONGEST = 0.3
cdef double LEAST = 1e-100
cdef double LOG_LEAST = log(LEAST)


cdef void eliminate(Py_ssize_t n, double* a, double* leaving) noexcept nogil:
    """Write triangular factors of I - A, for an irreducible A (K, K), over it.

    By Grassmann, Taksar & Heyman (1985): states leave one after the other, from the last to the
    second, and those that are left step as they do when seen at no other time. Nothing is
    subtracted, so that every number is right to its last digits, however rare a step is.
    `leaving` (K) is the diagonal.
    """
    cdef Py_ssize_t i, j, last
    cdef double share
    leaving[0] = 1.0
    for last in range(n - 1, 0, -1):
        leaving[last] = 0.0
        for j in range(last):
            leaving[last] += a[last * n + j]
        for i in range(last):
            share = a[i * n + last] / leaving[last]
            a[i * n + last] = share
            for j in range(last):
                a[i * n + j] += share * a[last * n + j]


cdef void read_stationary(Py_ssize_t n, const double* factors, double* delta) noexcept nogil:
    """Stationary distribution (K) by factors of `eliminate`."""
    cdef Py_ssize_t i, j
    cdef double total = 1.0
    delta[0] = 1.0
    for j in range(1, n):
        delta[j] = 0.0
        for i in range(j):
            delta[j] += delta[i] * factors[i * n + j]
        total += delta[j]
    for j in range(n):
        delta[j] /= total


cdef Py_ssize_t states_of(str name, matrix) except -1:
    """K of a matrix (K, K): whether it is one is for `doubles_of` to see."""
    cdef Py_ssize_t n = len(matrix)
    if n == 0:
        raise ValueError(f"{name} has no state: n_components is 0")
    return n


def stationary(transitions):
    """Return the stationary distribution (K,) of an irreducible transition matrix (K, K)."""
    cdef Py_ssize_t n = states_of("transitions", transitions)
    factors = transitions.copy()
    delta = transitions.sum(axis=0)
    cdef double* a = doubles_of("transitions", factors, n, n, writable=True)
    cdef double* out = doubles("delta", delta, n, writable=True)
    cdef double* leaving = <double*>malloc(n * sizeof(double))
    if leaving == NULL:
        raise MemoryError()
    with nogil:
        eliminate(n, a, leaving)
        read_stationary(n, a, out)
        free(leaving)
    return delta


# What an ascent sees at log A (K, K), of which rows may have any sum: the objective, A, its slope
# for log A, a guess of the inverse of its curvature, and delta (K). `root` is a state where a chain
# often is.
cdef struct Look:
    double value
    Py_ssize_t root
    double* logs
    double* a
    double* slope
    double* inverse
    double* delta


cdef Look look_at(Py_ssize_t n, double* memory) noexcept nogil:
    cdef Look at
    at.value = -INFINITY
    at.root = 0
    at.logs = memory
    at.a = at.logs + n * n
    at.slope = at.a + n * n
    at.inverse = at.slope + n * n
    at.delta = at.inverse + n * n
    return at


cdef inline Py_ssize_t swapped(Py_ssize_t i, Py_ssize_t root) noexcept nogil:
    """State i where state `root` and state 0 change places."""
    return root if i == 0 else (0 if i == root else i)


cdef void eliminate_from(
    Py_ssize_t n, Look* at, double* factors, double* leaving, double* delta
) noexcept nogil:
    """Factors of A with the root first, and delta, of which `delta` (K) is in their order.

    Of a root that a chain hardly ever sees all that is said of the others is lost beside it.
    """
    cdef Py_ssize_t i, j, most
    while True:
        for i in range(n):
            for j in range(n):
                factors[i * n + j] = at.a[swapped(i, at.root) * n + swapped(j, at.root)]
        eliminate(n, factors, leaving)
        read_stationary(n, factors, delta)
        most = 0
        for i in range(n):
            at.delta[swapped(i, at.root)] = delta[i]
            most = i if delta[i] > delta[most] else most
        if not delta[most] > 1e3 * delta[0]:
            return
        at.root = swapped(most, at.root)


cdef double product(Py_ssize_t n, const double* a, const double* b) noexcept nogil:
    """Four sums at a time: each would wait for its last addition."""
    cdef double first = 0.0
    cdef double second = 0.0
    cdef double third = 0.0
    cdef double fourth = 0.0
    cdef Py_ssize_t i
    for i in range(0, n - 3, 4):
        first += a[i] * b[i]
        second += a[i + 1] * b[i + 1]
        third += a[i + 2] * b[i + 2]
        fourth += a[i + 3] * b[i + 3]
    for i in range(n & ~3, n):
        first += a[i] * b[i]
    return (first + second) + (third + fourth)


cdef void slope_of(
    Py_ssize_t n, const double* first, const double* factors, const double* leaving,
    const double* delta, double* slope, double* of_delta
) noexcept nogil:
    """Write derivatives (K, K) of sum s log delta for A. `of_delta` (K) is room.

    `eliminate` and `read_stationary` backwards. They add, multiply and divide positive numbers, so
    that derivatives for logarithms are handed on in shares: none is a difference of large ones, as
    they are that are had from hitting times, though a chain leave some states once in 1e20 steps.
    That of a sum is that of each of its terms; so each element is written once.
    """
    cdef Py_ssize_t i, j, last
    cdef double all_first = 0.0
    cdef double all_shares, of_share
    cdef const double* out
    cdef double* of_out
    for i in range(n):
        all_first += first[i]
    for j in range(n):
        of_delta[j] = (first[j] - all_first * delta[j]) / delta[j]
    for j in range(n - 1, 0, -1):
        for i in range(j):
            of_delta[i] += of_delta[j] * factors[i * n + j]
    slope[0] = 0.0
    for last in range(1, n):
        out = factors + last * n
        of_out = slope + last * n
        for j in range(last + 1):
            of_out[j] = 0.0
        all_shares = 0.0
        for i in range(last):
            of_share = of_delta[last] * delta[i] + product(last, slope + i * n, out)
            for j in range(last):
                of_out[j] += slope[i * n + j] * factors[i * n + last]
            all_shares += of_share * factors[i * n + last]
            slope[i * n + last] = of_share / leaving[last]
        for j in range(last):
            of_out[j] -= all_shares / leaving[last]


cdef void look(
    Py_ssize_t n, const double* first, const double* moves, Look* at, double* room
) noexcept nogil:
    """Find all at `at.logs`. `room` (2 K (K + 2))."""
    cdef double* factors = room
    cdef double* slope = factors + n * n
    cdef double* leaving = slope + n * n
    cdef double* delta = leaving + n
    cdef double* s = delta + n
    cdef double* of_delta = s + n
    cdef double* row
    cdef double top, total, there, here, size
    cdef Py_ssize_t i, j
    for i in range(n):
        row = at.a + i * n
        top = -INFINITY
        total = 0.0
        for j in range(n):
            top = max(top, at.logs[i * n + j])
        for j in range(n):
            row[j] = 0.0
            if at.logs[i * n + j] > -INFINITY:
                # What is below counts for nothing: a slope there would foretell what isn't.
                at.logs[i * n + j] = max(at.logs[i * n + j] - top, LOG_LEAST)
                row[j] = exp(at.logs[i * n + j])
            total += row[j]
        for j in range(n):
            row[j] /= total
    eliminate_from(n, at, factors, leaving, delta)
    at.value = 0.0
    for i in range(n):
        s[i] = first[swapped(i, at.root)]
        if first[i] > 0.0:
            at.value += first[i] * log(at.delta[i])
    slope_of(n, s, factors, leaving, delta, slope, of_delta)
    for i in range(n):
        row = at.slope + i * n
        total = 0.0
        for j in range(n):
            row[j] = at.a[i * n + j] * slope[swapped(i, at.root) * n + swapped(j, at.root)]
            if moves[i * n + j] > 0.0:
                row[j] += moves[i * n + j]
                at.value += moves[i * n + j] * log(at.a[i * n + j])
            total += row[j]
        for j in range(n):
            there = row[j]
            here = at.a[i * n + j] * total
            row[j] = there - here
            if at.logs[i * n + j] == -INFINITY:
                row[j] = 0.0
            elif at.logs[i * n + j] <= LOG_LEAST:
                row[j] = max(row[j], 0.0)
            # Sums of exponentials bend as much as they rise.
            size = max(max(fabs(there), fabs(here)), LEAST)
            at.inverse[i * n + j] = min(1.0 / size, LONGEST / max(fabs(row[j]), LEAST))


# The last steps, and what slopes changed by, (MEMORY, K^2) each, the oldest at `oldest`.
cdef struct Steps:
    Py_ssize_t most
    Py_ssize_t known
    Py_ssize_t oldest
    double* steps
    double* changes
    double* products
    double* shares


cdef void go_ahead(Py_ssize_t n, const Look* at, Steps* last, double* ahead) noexcept nogil:
    """A quasi-Newton step (Nocedal 1980) of n numbers."""
    cdef Py_ssize_t i, place, turn
    cdef double share
    memcpy(ahead, at.slope, n * sizeof(double))
    for turn in range(last.known - 1, -1, -1):
        place = (last.oldest + turn) % last.most
        share = product(n, last.steps + place * n, ahead) / last.products[place]
        last.shares[place] = share
        for i in range(n):
            ahead[i] -= share * last.changes[place * n + i]
    for i in range(n):
        ahead[i] *= at.inverse[i]
    for turn in range(last.known):
        place = (last.oldest + turn) % last.most
        share = last.shares[place]
        share -= product(n, last.changes + place * n, ahead) / last.products[place]
        for i in range(n):
            ahead[i] += share * last.steps[place * n + i]


cdef void remember(
    Py_ssize_t n, const Look* before, const Look* after, const double* ahead, double share,
    Steps* last,
) noexcept nogil:
    """Keep a step that showed a curvature."""
    cdef Py_ssize_t place = (last.oldest + last.known) % last.most
    cdef double* step = last.steps + place * n
    cdef double* change = last.changes + place * n
    cdef Py_ssize_t i
    cdef double found
    if last.known == last.most:  # in the place of the oldest, which is lost in any case
        last.oldest = (last.oldest + 1) % last.most
        last.known -= 1
    for i in range(n):
        step[i] = share * ahead[i]
        change[i] = before.slope[i] - after.slope[i]
    found = product(n, step, change)
    if found > 0.0:
        last.products[place] = found
        last.known += 1


def highest(first, moves, begin, other):
    """Return A (K, K) that makes sum c log A + sum s log delta(A) largest, and delta(A) (K,).

    By quasi-Newton steps in log A: by the Markov chain tree theorem log delta is a difference of
    logarithms of sums of products of A's elements, and never steep there.

    Parameters
    ----------
    first, moves : s (K,) and c (K, K), counts
    begin, other : A, (K, K), to begin with the better of, 0 where it is to stay so; irreducible
    """
    cdef Py_ssize_t n = states_of("begin", begin)
    cdef Py_ssize_t size = n * n
    cdef Py_ssize_t i, _turn
    cdef double gain, share
    cdef bint found
    cdef Look here, there
    cdef Steps last
    out, delta = begin.copy(), begin.sum(axis=0)
    cdef const double* s = doubles("first", first, n)
    cdef const double* c = doubles_of("moves", moves, n, n)
    cdef double* a = doubles_of("begin", out, n, n, writable=True)
    cdef const double* b = doubles_of("other", other, n, n)
    cdef double* of_a = doubles("delta", delta, n, writable=True)
    last.most = min(MEMORY, max(MOST_NUMBERS // max(size, 1), 4))
    last.known = 0
    last.oldest = 0
    # Two looks, room, a step ahead, and the last ones.
    cdef Py_ssize_t look_size = 4 * size + n
    cdef Py_ssize_t total = 2 * look_size + 3 * size + 4 * n + 2 * last.most * (size + 1)
    cdef double* memory = <double*>malloc(total * sizeof(double))
    if memory == NULL:
        raise MemoryError()
    cdef double* room = memory + 2 * look_size
    cdef double* ahead = room + 2 * size + 4 * n
    here = look_at(n, memory)
    there = look_at(n, memory + look_size)
    last.steps = ahead + size
    last.changes = last.steps + last.most * size
    last.products = last.changes + last.most * size
    last.shares = last.products + last.most
    try:
        for i in range(size):
            here.logs[i] = log(a[i]) if a[i] > 0.0 else -INFINITY
            there.logs[i] = log(b[i]) if a[i] > 0.0 else -INFINITY
        with nogil:
            look(n, s, c, &here, room)
            look(n, s, c, &there, room)
        if there.value > here.value:
            here, there = there, here
        for _turn in range(STEPS):
            with nogil:
                go_ahead(size, &here, &last, ahead)
                gain = product(size, ahead, here.slope)
            share = 1.0
            found = False
            while gain > GAIN * max(1.0, fabs(here.value)) and share > SHORTEST and not found:
                PyErr_CheckSignals()
                with nogil:
                    there.root = here.root
                    for i in range(size):
                        there.logs[i] = here.logs[i] + share * ahead[i]
                    look(n, s, c, &there, room)
                found = there.value >= here.value + 1e-4 * share * gain
                if not found:
                    share /= 2
            if found:
                with nogil:
                    remember(size, &here, &there, ahead, share, &last)
                here, there = there, here
            elif last.known:
                last.known = 0  # nothing is gained by what they said
            else:
                break
        memcpy(a, here.a, size * sizeof(double))
        memcpy(of_a, here.delta, n * sizeof(double))
    finally:
        free(memory)
    return out, delta
