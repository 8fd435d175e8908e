# Several independent Markov chains whose states together make a row's mean: y = sum_m v_m[s_m] + e,
# e ~ N(0, I), in coordinates in which the noise is white (Ghahramani & Jordan 1997).
#
# q(T) and T are found for a sequence at a time. "exact" and "joint_best" run on the product chain
# of S = K^M states, transitions applied to one chain (axis) at a time; they hold O(sqrt(T) S)
# numbers of a sequence of T rows: the forward pass keeps every B-th row, B = max(sqrt T, 2^18/S),
# and is done again for B rows at a time as the backward pass comes by. The other kinds go chain by
# chain, given the last q of all other chains, which lies in `memory`; or a group of chains at a
# time ("blocks", "blocks_best"), each of which is a product chain of its own.
#
# Forward and backward pass are linear, scaled at every row. Where all states follow one another,
# what underflows is missed by nothing; where some don't, it may have been the one way to a state
# that later rows are near to. Such a sequence is done again in logarithms.
#
# Sequences are dealt out to chunks whose number depends on the shapes only, and statistics added up
# in chunk order, so the result has the same bits for every number of threads.

from cpython.buffer cimport PyBuffer_Release
from cython.parallel cimport prange
from libc.math cimport INFINITY, NAN, exp, isnan, log, sqrt
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .arrays cimport Doubles, doubles, doubles_of, look_into, shape_told, shaped
from .cpu cimport granted, threads_for
from .tile cimport (
    LANES,
    Source,
    add_one,
    aligned_memory,
    free_aligned,
    lanes,
    lanes_exp,
    lanes_max,
    lanes_set,
    lines,
    philox_uniform,
    thread_index,
)
from .visit cimport (
    Watch,
    check_least,
    check_length,
    clear,
    halted,
    open_rows,
    raise_pending,
    read_sequences,
    times,
    wait_for,
    watch_from_now,
)


# Rows times coefficients below which waking other threads costs more than they save.
cdef Py_ssize_t LITTLE_WORK = 2_000_000
cdef Py_ssize_t MOST_CHUNKS = 64
# Steps of a recursion, some ns each, from one look for Ctrl-C to the next; and states of the
# product chain that there may be at most.
cdef Py_ssize_t MANY_STEPS = 2**20
cdef Py_ssize_t MOST_STATES = 2**40
# States of the last chains of the product chain, which step together, at most: a loop over fewer
# numbers that lie side by side takes longer to begin than to do.
DEF MOST_LAST = 16
# Numbers of a block of the product chain that are kept whatever the length of the sequence.
cdef Py_ssize_t BLOCK_NUMBERS = 2**18
# Rounds over the chains end when the free energy gains less, in nats a row, or after so many; over
# groups sooner, which cost more and couple less.
cdef double SETTLED = 1e-7
cdef double SETTLED_GROUPS = 1e-5
cdef Py_ssize_t MOST_ROUNDS = 50
# Where nothing is known of rows yet, groups of fewer states find out: rounds in which what is not
# known of other groups counts as noise, and then groups that are tried until so many in a row are
# in vain. So are larger groups after them. A visit that finds q of the one before takes few rounds.
cdef Py_ssize_t QUICK_STATES = 256
cdef Py_ssize_t SOFT_ROUNDS = 20
cdef Py_ssize_t FEW_SOFT_ROUNDS = 4
cdef Py_ssize_t FEW_ROUNDS = 2
cdef Py_ssize_t VAIN_TRIALS = 30
cdef Py_ssize_t VAIN_LARGE_TRIALS = 4
# Spread of a row below which a chain's states are known.
cdef double LEAST_SPREAD = 1e-6
# What draws groups.
cdef uint64_t SEED_OF_GROUPS = 20250117
# Rows in the units of the frame, and rows and means in those of the noise, are held to this: of
# larger ones sums of squares, over chains, features and rows, would overflow.
cdef double FAR = 1e146
# Stands for log 0, so that 0 log 0 is 0; what is less than half of it is impossible.
cdef double LOG_ZERO = -1e300
# Of what is possible probabilities are no smaller than its exp, which is less than TINY and
# UNDERFLOW below: where anything is cut, `least_of` says that logarithms are to be taken.
cdef double LEAST_LOG = -690.0
# Where no start or step is less likely than the first, nothing that underflows counts. Where some
# are impossible, but others no less likely than the second, all ways are there as long as no state
# falls below the third.
cdef double LEAST_CHANCE = 1e-130
cdef double LEAST_STEP = 1e-90
cdef double LEAST = 1e-200
# That what underflows is to a predicted probability below which it might count; and below which
# products of probabilities lose digits.
cdef double UNDERFLOW = 1e-270
cdef double TINY = 1e-290
# Nats of a path from which on they are kept apart, so that they take no digits.
cdef double MOST_NATS = 1000.0
# Nats, less than the most likely, that take no part in a sum.
cdef double BENEATH = -40.0

cdef enum Kind:
    EXACT
    STRUCTURED
    COMPLETE
    JOINT_BEST
    BEST
    DRAW
    GROUPS
    GROUPS_BEST

KINDS = {
    "exact": EXACT,
    "structured": STRUCTURED,
    "complete": COMPLETE,
    "joint_best": JOINT_BEST,
    "best": BEST,
    "draw": DRAW,
    "blocks": GROUPS,
    "blocks_best": GROUPS_BEST,
}


cdef struct Job:
    # IN
    Source source
    Kind kind
    Py_ssize_t n_chains  # M
    Py_ssize_t n_components  # K
    Py_ssize_t n_indicators  # P = M K
    Py_ssize_t n_features  # D
    Py_ssize_t n_whitened  # R >= D: y is 0 in what is more
    Py_ssize_t n_states  # S = K^M, 1 where chains are visited one by one
    Py_ssize_t padded  # S in whole cache lines
    bint grouped  # whether chains are visited by groups
    Py_ssize_t group_chains  # of the largest group
    Py_ssize_t quick_chains  # of the largest one of a search
    Py_ssize_t n_trials  # groups that a search tries at most
    Py_ssize_t stride  # of a row of memory
    const double* whitening  # (D, D), lower triangular: y = whitening x
    const double* given_means  # (P, R)
    double constant  # of each row's log density
    const double* given_start  # (M, K): logarithms, or expected ones
    const double* given_transition  # (M, K, K)
    const int64_t* offsets  # (n_sequences + 1)
    const int64_t* order  # sequences by decreasing length
    Py_ssize_t n_sequences
    Py_ssize_t n_chunks
    Py_ssize_t first_row
    uint64_t seed
    uint32_t sweep
    # Tables made of these
    double* means  # (P, R)
    double* start
    double* transition
    double* log_start  # LOG_ZERO and above
    double* log_transition
    double* reverse  # (M, K, K): transition, transposed
    double* least  # (M): see `least_of`
    double joint_least
    bint sparse  # some start or step is impossible
    Py_ssize_t n_first  # of the product chain: chains that step one by one, before the last ones
    Py_ssize_t n_last  # joint states of the last ones
    double* last  # (n_last, n_last): their transitions
    double* log_last
    double* last_reverse
    double* joint_means  # (D, padded)
    double* joint_base  # (2, padded): -1/2 square of what the means have beyond D; scratch
    Py_ssize_t* rank  # (M): chains by how far apart their means are, farthest first
    # IN/OUT
    double* memory  # (N, stride), NULL: not kept; row by row q (P), and, of a sequence's first row
    # where chains have groups, each chain's (M), and how many have been tried
    # OUT
    double* statistics  # per chunk, statistics_size apart
    Py_ssize_t statistics_size
    # Scratch, per thread
    double* workspace
    Py_ssize_t workspace_size
    Py_ssize_t block_rows  # of the product chain
    Py_ssize_t check_rows  # from one look for signals to the next
    Py_ssize_t check_tables  # the same, of a table's rows
    # Shared
    Py_ssize_t taken
    Py_ssize_t done
    Watch* watch


cdef void read_row(const Job* job, Py_ssize_t row, double* x) noexcept nogil:
    """x (D) = the row in the units of the frame."""
    cdef const char* values = job.source.values + row * job.source.row_stride
    cdef Py_ssize_t d
    cdef double value
    for d in range(job.n_features):
        if job.source.single:
            value = (<const float*>(values + d * job.source.column_stride))[0]
        else:
            value = (<const double*>(values + d * job.source.column_stride))[0]
        value = (value - job.source.origin[d]) * job.source.scale[d]
        x[d] = min(max(value, -FAR), FAR)


cdef void whiten(const Job* job, const double* x, double* y) noexcept nogil:
    """y (R) = whitening x."""
    cdef Py_ssize_t i, j
    for i in range(job.n_features):
        y[i] = 0.0
        for j in range(i + 1):
            y[i] += job.whitening[i * job.n_features + j] * x[j]
        y[i] = min(max(y[i], -FAR), FAR)
    for i in range(job.n_features, job.n_whitened):
        y[i] = 0.0


cdef void add_row(const Job* job, const double* x, const double* q, double* out) noexcept nogil:
    """Add q x' (P, D) and the lower triangle of x x' (D, D)."""
    cdef Py_ssize_t d = job.n_features
    cdef Py_ssize_t p, i, j
    for p in range(job.n_indicators):
        if q[p] > 0.0:
            for i in range(d):
                out[p * d + i] += q[p] * x[i]
    out += job.n_indicators * d
    for i in range(d):
        for j in range(i + 1):
            out[i * d + j] += x[i] * x[j]


cdef void add_pairs_of_chains(const Job* job, const double* q, double* gram) noexcept nogil:
    """Add E[z z'] (P, P) of chains that are independent."""
    cdef Py_ssize_t n = job.n_indicators
    cdef Py_ssize_t k = job.n_components
    cdef Py_ssize_t p, r
    for p in range(n):
        if q[p] > 0.0:
            for r in range(p // k * k):
                gram[p * n + r] += q[p] * q[r]
            gram[p * n + p] += q[p]
            for r in range(p // k * k + k, n):
                gram[p * n + r] += q[p] * q[r]


# Where parts of the statistics begin: log_z, start (M, K), transition (M, K, K), gram (P, P),
# cross (P, D), square (D, D).

cdef Py_ssize_t gram_start(const Job* job) noexcept nogil:
    return 1 + job.n_indicators * (1 + job.n_components)


cdef Py_ssize_t cross_start(const Job* job) noexcept nogil:
    return gram_start(job) + job.n_indicators * job.n_indicators


# A row of a recursion ----------------------------------------------------------------------------
#
# Of one chain, or of one axis of the product chain: `outer` times `inner` rows of other axes'
# states have K states each, `inner` apart.


cdef double least_of(double start, double step, double possible) noexcept nogil:
    """Below which a reachable state may take digits of what is predicted next; 0: never.

    Parameters
    ----------
    start : the least probability, that is not 0, of a start
    step : of a step
    possible : of a step, that is not 0
    """
    if start >= LEAST_CHANCE and step >= LEAST_CHANCE:
        return 0.0
    if start >= TINY and (possible >= LEAST_STEP or step >= UNDERFLOW):
        return LEAST
    return INFINITY


cdef bint below(Py_ssize_t n, const double* x, double least) noexcept nogil:
    """Whether any of x is."""
    cdef Py_ssize_t k
    for k in range(n):
        if x[k] < least:
            return True
    return False


cdef double least_after(
    Py_ssize_t n, const double* predicted, const double* filtered, double total, double least
) noexcept nogil:
    """The least probability that may be predicted for the next row; 0 where nothing is lost.

    `filtered` sums to `total`. If a state that is reachable fell below `least`, a state predicted
    with less might owe it to what was lost.
    """
    cdef Py_ssize_t k
    for k in range(n):
        if filtered[k] < least and predicted[k] > 0.0:
            return UNDERFLOW / total
    return 0.0


cdef double weigh(Py_ssize_t n, const double* score, double* x) noexcept nogil:
    """x += scores, less what makes its best 0, which is returned.

    The best score of a state that x leaves possible goes first: 1e20 would take all digits of what
    x says. Where nothing is possible x says nothing, and log 0 is returned.
    """
    cdef Py_ssize_t k
    cdef double level = -INFINITY
    cdef double best = -INFINITY
    cdef double lost = 0.0
    for k in range(n):
        if x[k] > LOG_ZERO / 2:
            level = max(level, score[k])
    if level == -INFINITY:
        lost = INFINITY
        for k in range(n):
            x[k] = 0.0
            level = max(level, score[k])
    for k in range(n):
        if x[k] > LOG_ZERO / 2:
            x[k] += score[k] - level
            best = max(best, x[k])
        else:
            x[k] = LOG_ZERO
    for k in range(n):
        x[k] = max(x[k] - best, LOG_ZERO)
    return level + best - lost


cdef double add_scores(
    Py_ssize_t n, const double* score, double* x, Py_ssize_t* hint
) noexcept nogil:
    """x += scores, which are not above 0; taking out, and returning, what would take digits.

    hint : IN/OUT, a state that may be likely
    """
    cdef Py_ssize_t k
    cdef double level
    if x[hint[0]] + score[hint[0]] > -MOST_NATS:
        for k in range(n):
            x[k] += score[k]
        return 0.0
    level = weigh(n, score, x)
    for k in range(n):
        if x[k] == 0.0:
            hint[0] = k
            break
    return level


cdef double log_filter(Py_ssize_t n, const double* score, double* x) noexcept nogil:
    """From log p(s | rows before) to log p(s | rows up to this one); log p(row | rows before)."""
    cdef double level = weigh(n, score, x)
    cdef double total = 0.0
    cdef Py_ssize_t k
    for k in range(n):
        if x[k] > BENEATH:
            total += exp(x[k])
    total = log(total)
    for k in range(n):
        x[k] -= total
    return level + total


cdef void log_along_axis(
    Py_ssize_t n, Py_ssize_t outer, Py_ssize_t inner, const double* steps, const double* x,
    double* out,
) noexcept nogil:
    """out[.., j, ..] = log sum_k exp(steps[k, j] + x[.., k, ..])."""
    cdef Py_ssize_t _o, i, j, k
    cdef double high, total, value
    for _o in range(outer):
        for j in range(n):
            for i in range(inner):
                high = LOG_ZERO
                for k in range(n):
                    high = max(high, steps[k * n + j] + x[k * inner + i])
                if high > LOG_ZERO / 2:
                    total = 0.0
                    for k in range(n):
                        value = steps[k * n + j] + x[k * inner + i] - high
                        if value > BENEATH:
                            total += exp(value)
                    high += log(total)
                out[j * inner + i] = high
        x += n * inner
        out += n * inner


cdef void back_along_axis(
    Py_ssize_t n, Py_ssize_t outer, Py_ssize_t inner, const double* steps, const double* before,
    const double* q, double* share, double* pairs, double* out,
) noexcept nogil:
    """out = q before a step, from q after it and the logarithms `before` of what was filtered.

    q[j] = sum_k q[k] p(j before | k after) (Kitagawa 1987): whatever rounding does to scores, pairs
    sum to q over either of the two. share : scratch (K)
    """
    cdef Py_ssize_t _o, i, j, k
    cdef double high, total, after
    for _o in range(outer):
        memset(out, 0, n * inner * sizeof(double))
        for k in range(n):
            for i in range(inner):
                after = q[k * inner + i]
                if after > 0.0:
                    high = -INFINITY
                    for j in range(n):
                        share[j] = steps[j * n + k] + before[j * inner + i]
                        high = max(high, share[j])
                    total = 0.0
                    for j in range(n):
                        share[j] = exp(share[j] - high)
                        total += share[j]
                    after = after / total
                    for j in range(n):
                        pairs[j * n + k] += share[j] * after
                        out[j * inner + i] += share[j] * after
        before += n * inner
        q += n * inner
        out += n * inner


# Chain by chain ----------------------------------------------------------------------------------


# Of one sequence of T rows, in a thread's workspace.
cdef struct Chains:
    Py_ssize_t n_rows
    Py_ssize_t first_row  # in the whole of the data
    double* q  # (T, stride): memory
    double* group  # (M): which one each chain is in, behind q of the first row
    Py_ssize_t n_groups
    double* residual  # (T, R): y less the means of all chains, but for one that is being updated
    double* spread  # (T, M): E|v - E v|^2
    double* score  # (T, K), of the chain that is being updated
    double* filtered  # (T, K), or its logarithm
    double* predicted  # (T, K)
    bint logarithms  # whether that is what `filtered` holds
    double* mean  # (R)
    double* row  # (max(D, K))
    double* start  # (M, K)
    double* pairs  # (M, K, K)
    double* gram  # (P, P): E[z z'] of all rows, of chains in one group
    double* room  # of groups: see `room_in`
    bint soft  # take what is not known of other groups' states for noise


cdef Py_ssize_t chains_numbers(const Job* job, Py_ssize_t n_rows) noexcept nogil:
    """Numbers before `room`."""
    return lines(
        n_rows * (job.n_whitened + job.n_chains + 3 * job.n_components) + job.n_whitened
        + max(job.n_features, job.n_components) + start_to_gram(job)
    )


cdef Py_ssize_t chains_size(const Job* job, Py_ssize_t n_rows) except -1:
    times(n_rows, job.n_whitened + job.n_chains + 3 * job.n_components)
    cdef Py_ssize_t size = chains_numbers(job, n_rows)
    return size + room_size(job, n_rows) if job.grouped else size


cdef Py_ssize_t start_to_gram(const Job* job) noexcept nogil:
    return job.n_indicators * (1 + job.n_components + (job.n_indicators if job.grouped else 0))


cdef Chains chains_in(
    const Job* job, Py_ssize_t begin, Py_ssize_t n_rows, double* workspace
) noexcept nogil:
    cdef Chains c
    c.n_rows = n_rows
    c.first_row = job.first_row + begin
    c.q = job.memory + begin * job.stride
    c.group = c.q + job.n_indicators
    c.residual = workspace
    c.spread = c.residual + n_rows * job.n_whitened
    c.score = c.spread + n_rows * job.n_chains
    c.filtered = c.score + n_rows * job.n_components
    c.predicted = c.filtered + n_rows * job.n_components
    c.mean = c.predicted + n_rows * job.n_components
    c.row = c.mean + job.n_whitened
    c.start = c.row + max(job.n_features, job.n_components)
    c.pairs = c.start + job.n_indicators
    c.gram = c.pairs + job.n_indicators * job.n_components
    c.room = workspace + chains_numbers(job, n_rows)
    c.soft = False
    c.n_groups = 0
    return c


cdef void subtract_mean(
    const Job* job, Chains* c, Py_ssize_t chain, Py_ssize_t t, double sign
) noexcept nogil:
    """residual -= sign * E v of a chain; and its spread."""
    cdef Py_ssize_t k_chain = job.n_components
    cdef Py_ssize_t n = job.n_whitened
    cdef const double* q = c.q + t * job.stride + chain * k_chain
    cdef const double* v = job.means + chain * k_chain * n
    cdef double* residual = c.residual + t * n
    cdef double* mean = c.mean
    cdef Py_ssize_t i, k
    cdef double square, spread = 0.0
    for i in range(n):
        mean[i] = 0.0
    for k in range(k_chain):
        if q[k] > 0.0:
            for i in range(n):
                mean[i] += q[k] * v[k * n + i]
    for i in range(n):
        residual[i] -= sign * mean[i]
    if sign < 0.0:
        return
    for k in range(k_chain):
        if q[k] > 0.0:
            square = 0.0
            for i in range(n):
                square += (v[k * n + i] - mean[i]) * (v[k * n + i] - mean[i])
            spread += q[k] * square
    c.spread[t * job.n_chains + chain] = spread


cdef void score_chain(Job* job, Chains* c, Py_ssize_t chain) noexcept nogil:
    """Take a chain's means out of the residuals, and score its states against what is left.

    Ghahramani & Jordan (1997), 12b-c, up to what is common to a row's states.
    """
    cdef Py_ssize_t n_states = job.n_components
    cdef Py_ssize_t n = job.n_whitened
    cdef const double* v = job.means + chain * n_states * n
    cdef const double* residual
    cdef Py_ssize_t t, k, i
    cdef double square
    for t in range(c.n_rows):
        if t % job.check_rows == 0 and halted(job.watch):
            return
        subtract_mean(job, c, chain, t, -1.0)
        residual = c.residual + t * n
        for k in range(n_states):
            square = 0.0
            for i in range(n):
                square += (residual[i] - v[k * n + i]) * (residual[i] - v[k * n + i])
            c.score[t * n_states + k] = -0.5 * square


cdef void clear_pairs(const Job* job, Chains* c, Py_ssize_t chain) noexcept nogil:
    cdef Py_ssize_t n = job.n_components
    memset(c.start + chain * n, 0, n * sizeof(double))
    memset(c.pairs + chain * n * n, 0, n * n * sizeof(double))


cdef double filter_chain(Job* job, Chains* c, Py_ssize_t chain) noexcept nogil:
    """The forward pass of one chain, in logarithms where it has to be; log Z."""
    cdef double log_z
    c.logarithms = job.least[chain] == INFINITY
    if not c.logarithms:
        log_z = filter_linear(job, c, chain)
        if not c.logarithms:
            return log_z
    return filter_logarithms(job, c, chain)


cdef double filter_logarithms(Job* job, Chains* c, Py_ssize_t chain) noexcept nogil:
    """log p(s_t | rows up to t); log Z."""
    cdef Py_ssize_t n = job.n_components
    cdef double* filtered = c.filtered
    cdef double log_z = 0.0
    cdef Py_ssize_t t
    for t in range(c.n_rows):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        if t == 0:
            memcpy(filtered, job.log_start + chain * n, n * sizeof(double))
        else:
            log_along_axis(n, 1, 1, job.log_transition + chain * n * n, filtered - n, filtered)
        log_z += log_filter(n, c.score + t * n, filtered)
        filtered += n
    return log_z


cdef double filter_linear(Job* job, Chains* c, Py_ssize_t chain) noexcept nogil:
    """p(s_t | rows before t), p(s_t | rows up to t); log Z. Ends where that takes logarithms."""
    cdef Py_ssize_t n = job.n_components
    cdef const double* transition = job.transition + chain * n * n
    cdef double least = job.least[chain]
    cdef double enough = 0.0
    cdef double* predicted
    cdef double* filtered
    cdef const double* score
    cdef const double* last
    cdef double log_z = 0.0
    cdef double top, total
    cdef Py_ssize_t t, j, k
    for t in range(c.n_rows):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        predicted = c.predicted + t * n
        filtered = c.filtered + t * n
        score = c.score + t * n
        if t == 0:
            for k in range(n):
                predicted[k] = job.start[chain * n + k]
        else:
            last = filtered - n
            for k in range(n):
                predicted[k] = 0.0
            for j in range(n):
                if last[j] > 0.0:
                    for k in range(n):
                        predicted[k] += last[j] * transition[j * n + k]
        if enough > 0.0 and below(n, predicted, enough):
            c.logarithms = True
            return 0.0
        # Of states that can be reached, so that one of them keeps its weight.
        top = -INFINITY
        for k in range(n):
            if predicted[k] > 0.0:
                top = max(top, score[k])
        if top == -INFINITY:
            log_z = -INFINITY
            for k in range(n):
                predicted[k] = 1.0 / n
                top = max(top, score[k])
        total = 0.0
        for k in range(n):
            filtered[k] = predicted[k] * exp(min(score[k] - top, 0.0))
            total += filtered[k]
        if least > 0.0:
            enough = least_after(n, predicted, filtered, total, least)
        for k in range(n):
            filtered[k] = filtered[k] / total
        log_z += log(total) + top
    return log_z


cdef double smooth_chain(Job* job, Chains* c, Py_ssize_t chain) noexcept nogil:
    """Forward and backward pass of one chain; KL(q || p) of its states.

    q_t-1(j) = filtered(j) sum_k A[j, k] q_t(k) / predicted_t(k): every sum of them is 1.
    """
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t stride = job.stride
    cdef const double* transition = job.transition + chain * n * n
    cdef double* pairs = c.pairs + chain * n * n
    cdef double* ratio = c.row
    cdef double* q
    cdef const double* filtered
    cdef double log_z = filter_chain(job, c, chain)
    cdef double divergence = 0.0
    cdef double total, pair
    cdef Py_ssize_t t, j, k
    clear_pairs(job, c, chain)
    for t in range(c.n_rows - 1, -1, -1):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        q = c.q + t * stride + chain * n
        filtered = c.filtered + t * n
        if t == c.n_rows - 1:
            for k in range(n):
                q[k] = exp(filtered[k]) if c.logarithms else filtered[k]
        elif c.logarithms:
            back_along_axis(
                n, 1, 1, job.log_transition + chain * n * n, filtered, q + stride, c.row, pairs, q
            )
        else:
            for k in range(n):
                ratio[k] = 0.0
                if q[stride + k] > 0.0:
                    ratio[k] = q[stride + k] / c.predicted[(t + 1) * n + k]
            total = 0.0
            for j in range(n):
                q[j] = 0.0
                for k in range(n):
                    pair = filtered[j] * transition[j * n + k] * ratio[k]
                    pairs[j * n + k] += pair
                    q[j] += pair
                total += q[j]
            for j in range(n):
                q[j] = q[j] / total
        for k in range(n):
            divergence += q[k] * c.score[t * n + k]
    for k in range(n):
        c.start[chain * n + k] = c.q[chain * n + k]
    return divergence - log_z


cdef Py_ssize_t last_state(const Chains* c, Py_ssize_t n, Py_ssize_t t) noexcept nogil:
    """The first largest of filtered[t]."""
    cdef Py_ssize_t k, best = 0
    for k in range(1, n):
        if c.filtered[t * n + k] > c.filtered[t * n + best]:
            best = k
    return best


cdef bint put_state(
    const Job* job, Chains* c, Py_ssize_t chain, Py_ssize_t t, Py_ssize_t state
) noexcept nogil:
    """q = all on one state; whether that is new."""
    cdef double* q = c.q + t * job.stride + chain * job.n_components
    cdef bint new = q[state] != 1.0
    memset(q, 0, job.n_components * sizeof(double))
    q[state] = 1.0
    return new


cdef double count_path(
    const Job* job, Chains* c, Py_ssize_t chain, Py_ssize_t state, Py_ssize_t following
) noexcept nogil:
    """Count a step, or (following < 0) a start; its -log p."""
    cdef Py_ssize_t n = job.n_components
    if following < 0:
        c.start[chain * n + state] += 1.0
        return -job.log_start[chain * n + state]
    c.pairs[(chain * n + state) * n + following] += 1.0
    return -job.log_transition[(chain * n + state) * n + following]


cdef double draw_chain(Job* job, Chains* c, Py_ssize_t chain) noexcept nogil:
    """Forward filtering, backward sampling (Chib 1996); -log p of the chain's states."""
    cdef Py_ssize_t n = job.n_components
    cdef const double* transition = job.transition + chain * n * n
    cdef const double* steps = job.log_transition + chain * n * n
    cdef double* share = c.row
    cdef double divergence = 0.0
    cdef double high, total, mark
    cdef Py_ssize_t t, k, state
    cdef Py_ssize_t following = -1
    filter_chain(job, c, chain)
    clear_pairs(job, c, chain)
    for t in range(c.n_rows - 1, -1, -1):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        high = -INFINITY
        for k in range(n):
            share[k] = c.filtered[t * n + k]
            if following >= 0:
                if c.logarithms:
                    share[k] += steps[k * n + following]
                else:
                    share[k] *= transition[k * n + following]
            high = max(high, share[k])
        total = 0.0
        for k in range(n):
            if c.logarithms:
                share[k] = exp(share[k] - high)
            total += share[k]
        mark = total * philox_uniform(job.seed, job.sweep, c.first_row + t, <uint32_t>chain)
        state = -1
        for k in range(n):
            if share[k] > 0.0:
                state = k
                mark -= share[k]
                if mark < 0.0:
                    break
        if state < 0:  # nothing is possible: a chain of probability 0
            state = last_state(c, n, t)
        put_state(job, c, chain, t, state)
        if following >= 0:
            divergence += count_path(job, c, chain, state, following)
        following = state
    return divergence + count_path(job, c, chain, following, -1)


cdef double best_chain(Job* job, Chains* c, Py_ssize_t chain, bint* changed) noexcept nogil:
    """The best path of one chain (Viterbi; Rabiner 1989, 32-35); its -log p."""
    cdef Py_ssize_t n = job.n_components
    cdef const double* steps = job.log_transition + chain * n * n
    cdef double* best
    cdef const double* last
    cdef double divergence = 0.0
    cdef Py_ssize_t t, j, k, state = 0
    cdef Py_ssize_t hint = 0
    for t in range(c.n_rows):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        best = c.filtered + t * n
        last = best - n
        for k in range(n):
            if t == 0:
                best[k] = job.log_start[chain * n + k]
            else:
                best[k] = last[0] + steps[k]
                for j in range(1, n):
                    best[k] = max(best[k], last[j] + steps[j * n + k])
        add_scores(n, c.score + t * n, best, &hint)
    clear_pairs(job, c, chain)
    for t in range(c.n_rows - 1, -1, -1):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        best = c.filtered + t * n
        if t < c.n_rows - 1:
            for k in range(n):
                best[k] += steps[k * n + state]
        j = last_state(c, n, t)
        if put_state(job, c, chain, t, j):
            changed[0] = True
        if t < c.n_rows - 1:
            divergence += count_path(job, c, chain, j, state)
        state = j
    return divergence + count_path(job, c, chain, state, -1)


cdef double settle_chain(Job* job, Chains* c, Py_ssize_t chain) noexcept nogil:
    """Update each row's q given those of the rows before and after; KL(q || p) of the chain."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t stride = job.stride
    cdef const double* steps = job.log_transition + chain * n * n
    cdef double* pairs = c.pairs + chain * n * n
    cdef double* score
    cdef double* q
    cdef double divergence = 0.0
    cdef double top, total
    cdef Py_ssize_t t, j, k
    clear_pairs(job, c, chain)
    for t in range(c.n_rows):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        q = c.q + t * stride + chain * n
        score = c.score + t * n
        if t == 0:
            for k in range(n):
                score[k] += job.log_start[chain * n + k]
        else:
            for j in range(n):
                for k in range(n):
                    score[k] += q[j - stride] * steps[j * n + k]
        if t < c.n_rows - 1:
            for k in range(n):
                for j in range(n):
                    score[k] += steps[k * n + j] * q[stride + j]
        top = score[0]
        for k in range(1, n):
            top = max(top, score[k])
        total = 0.0
        for k in range(n):
            q[k] = exp(score[k] - top)
            total += q[k]
        for k in range(n):
            # What is less is none. Where a step is impossible it would rule out the neighbours'
            # states or, as log 0 is a number here, all but rule them out.
            q[k] = q[k] / total if q[k] >= TINY else 0.0
            if q[k] > 0.0:
                divergence += q[k] * log(q[k])
            if t == 0:
                c.start[chain * n + k] = q[k]
                divergence -= q[k] * job.log_start[chain * n + k]
            else:
                for j in range(n):
                    pairs[j * n + k] += q[j - stride] * q[k]
                    divergence -= q[j - stride] * q[k] * steps[j * n + k]
    return divergence


cdef double free_energy(Job* job, const Chains* c, double divergence) noexcept nogil:
    """E log p(X | T) - KL(q(T) || p(T)), residuals and spreads being of all chains' last q."""
    cdef double value = 0.0
    cdef double square
    cdef Py_ssize_t t, i
    for t in range(c.n_rows):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        square = 0.0
        for i in range(job.n_whitened):
            square += c.residual[t * job.n_whitened + i] * c.residual[t * job.n_whitened + i]
        for i in range(job.n_chains):
            square += c.spread[t * job.n_chains + i]
        value += job.constant - 0.5 * square
    return value - divergence


# The product chain -------------------------------------------------------------------------------


# State s of the product chain has chain m in state s / K^(M-1-m) mod K.
cdef struct Product:
    Py_ssize_t block_rows
    bint logarithms  # whether that is what `filtered` holds
    double enough  # see `least_after`
    Py_ssize_t hint  # see `add_scores`
    double* filtered  # (block_rows, padded): or the best paths' log probabilities
    double* predicted  # (block_rows, padded)
    double* kept  # (blocks, padded): filtered before each block's first row
    double* prefix  # (M, padded)
    double* room  # (2, padded)
    double* score  # (padded)
    double* total  # (padded): sum of q over rows
    double* last_pairs  # (n_last, n_last): see `add_last_pairs`
    double* row  # (D)
    double* whitened  # (R)
    double* q  # (P)
    # Where it is of a group of chains, rows being what is left of them
    const Job* whole
    Chains* chains  # NULL: it is of all chains
    const Py_ssize_t* members
    double fit  # E log p(row | s) of all rows, less constants
    bint changed  # whether a path is new


cdef Py_ssize_t product_size(const Job* job, Py_ssize_t n_rows) except -1:
    cdef Py_ssize_t blocks = (n_rows + job.block_rows - 1) // job.block_rows
    return (
        times(job.padded, 2 * job.block_rows + blocks + job.n_chains + 4)
        + lines(job.n_features + job.n_whitened + job.n_indicators)
        + lines(job.n_last * job.n_last)
    )


cdef Product product_in(const Job* job, double* workspace) noexcept nogil:
    cdef Product p
    p.block_rows = job.block_rows
    p.logarithms = False
    p.enough = 0.0
    p.hint = 0
    p.row = workspace
    p.whitened = p.row + job.n_features
    p.q = p.whitened + job.n_whitened
    p.filtered = workspace + lines(job.n_features + job.n_whitened + job.n_indicators)
    p.predicted = p.filtered + p.block_rows * job.padded
    p.prefix = p.predicted + p.block_rows * job.padded
    p.room = p.prefix + job.n_chains * job.padded
    p.score = p.room + 2 * job.padded
    p.total = p.score + job.padded
    p.last_pairs = p.total + job.padded
    p.kept = p.last_pairs + lines(job.n_last * job.n_last)
    p.chains = NULL
    return p


cdef Py_ssize_t power(Py_ssize_t base, Py_ssize_t exponent) noexcept nogil:
    cdef Py_ssize_t out = 1
    cdef Py_ssize_t _i
    for _i in range(exponent):
        out *= base
    return out


cdef double sum_of(Py_ssize_t n, const double* x) noexcept nogil:
    """The sum of x, in eight parts of which none need wait for another."""
    cdef double parts[8]
    cdef double rest = 0.0
    cdef Py_ssize_t i, j
    for j in range(8):
        parts[j] = 0.0
    for i in range(0, n - 7, 8):
        for j in range(8):
            parts[j] += x[i + j]
    for i in range(n // 8 * 8, n):
        rest += x[i]
    for j in range(4):
        parts[j] += parts[j + 4]
    return ((parts[0] + parts[1]) + (parts[2] + parts[3])) + rest


cdef double product_sum(Py_ssize_t n, const double* a, const double* b) noexcept nogil:
    """The sum of a b, as `sum_of` adds up."""
    cdef double parts[8]
    cdef double rest = 0.0
    cdef Py_ssize_t i, j
    for j in range(8):
        parts[j] = 0.0
    for i in range(0, n - 7, 8):
        for j in range(8):
            parts[j] += a[i + j] * b[i + j]
    for i in range(n // 8 * 8, n):
        rest += a[i] * b[i]
    for j in range(4):
        parts[j] += parts[j + 4]
    return ((parts[0] + parts[1]) + (parts[2] + parts[3])) + rest


cdef double best_possible(
    Py_ssize_t n, const double* predicted, const double* score
) noexcept nogil:
    """The best score of a state that is possible."""
    cdef double parts[8]
    cdef double best = -INFINITY
    cdef Py_ssize_t i, j
    for j in range(8):
        parts[j] = -INFINITY
    for i in range(0, n - 7, 8):
        for j in range(8):
            parts[j] = max(parts[j], score[i + j] if predicted[i + j] > 0.0 else -INFINITY)
    for i in range(n // 8 * 8, n):
        best = max(best, score[i] if predicted[i] > 0.0 else -INFINITY)
    for j in range(8):
        best = max(best, parts[j])
    return best


cdef Py_ssize_t inner_of(const Job* job, Py_ssize_t chain) noexcept nogil:
    """Joint states of the chains behind one."""
    return power(job.n_components, job.n_chains - 1 - chain)


cdef void along_axis(
    Py_ssize_t n, Py_ssize_t outer, Py_ssize_t inner, const double* matrix, const double* x,
    double* out,
) noexcept nogil:
    """out[.., j, ..] = sum_k matrix[k, j] x[.., k, ..]."""
    cdef Py_ssize_t _o, j, k, i
    cdef double value
    cdef lanes sums[MOST_LAST]
    cdef lanes each
    cdef const lanes* row
    if inner == 1 and n == MOST_LAST:
        for _o in range(outer):
            row = <const lanes*>matrix
            for j in range(MOST_LAST // LANES):
                sums[j] = row[j] * lanes_set(x[0])
            for k in range(1, MOST_LAST):
                row += MOST_LAST // LANES
                each = lanes_set(x[k])
                for j in range(MOST_LAST // LANES):
                    sums[j] = sums[j] + row[j] * each
            for j in range(MOST_LAST // LANES):
                (<lanes*>out)[j] = sums[j]
            x += MOST_LAST
            out += MOST_LAST
        return
    for _o in range(outer):
        if inner == 1:
            for j in range(n):
                out[j] = matrix[j] * x[0]
            for k in range(1, n):
                value = x[k]
                for j in range(n):
                    out[j] += matrix[k * n + j] * value
        elif n == 2:
            for i in range(inner):
                out[i] = matrix[0] * x[i] + matrix[2] * x[inner + i]
            for i in range(inner):
                out[inner + i] = matrix[1] * x[i] + matrix[3] * x[inner + i]
        else:
            for j in range(n):
                value = matrix[j]
                for i in range(inner):
                    out[j * inner + i] = value * x[i]
                for k in range(1, n):
                    value = matrix[k * n + j]
                    for i in range(inner):
                        out[j * inner + i] += value * x[k * inner + i]
        x += n * inner
        out += n * inner


cdef void best_along_axis(
    Py_ssize_t n, Py_ssize_t outer, Py_ssize_t inner, const double* matrix, const double* x,
    double* out,
) noexcept nogil:
    """out[.., j, ..] = max_k matrix[k, j] + x[.., k, ..]."""
    cdef Py_ssize_t _o, j, k, i
    cdef double value
    cdef lanes best[MOST_LAST]
    cdef lanes each
    cdef const lanes* row
    if inner == 1 and n == MOST_LAST:
        for _o in range(outer):
            row = <const lanes*>matrix
            for j in range(MOST_LAST // LANES):
                best[j] = row[j] + lanes_set(x[0])
            for k in range(1, MOST_LAST):
                row += MOST_LAST // LANES
                each = lanes_set(x[k])
                for j in range(MOST_LAST // LANES):
                    best[j] = lanes_max(best[j], row[j] + each)
            for j in range(MOST_LAST // LANES):
                (<lanes*>out)[j] = best[j]
            x += MOST_LAST
            out += MOST_LAST
        return
    for _o in range(outer):
        if inner == 1:
            for j in range(n):
                out[j] = matrix[j] + x[0]
            for k in range(1, n):
                value = x[k]
                for j in range(n):
                    out[j] = max(out[j], matrix[k * n + j] + value)
        elif n == 2:
            for i in range(inner):
                out[i] = max(matrix[0] + x[i], matrix[2] + x[inner + i])
            for i in range(inner):
                out[inner + i] = max(matrix[1] + x[i], matrix[3] + x[inner + i])
        else:
            for j in range(n):
                value = matrix[j]
                for i in range(inner):
                    out[j * inner + i] = value + x[i]
                for k in range(1, n):
                    value = matrix[k * n + j]
                    for i in range(inner):
                        out[j * inner + i] = max(out[j * inner + i], value + x[k * inner + i])
        x += n * inner
        out += n * inner


cdef void joint_start(const Job* job, const double* start, bint sums, double* out) noexcept nogil:
    """Products (or sums) of one entry of each row of start (M, K), (S)."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t size = 1
    cdef Py_ssize_t m, s, k
    cdef double value
    out[0] = 0.0 if sums else 1.0
    for m in range(job.n_chains):
        for s in range(size - 1, -1, -1):
            value = out[s]
            for k in range(n):
                if sums:
                    out[s * n + k] = value + start[m * n + k]
                else:
                    out[s * n + k] = value * start[m * n + k]
        size *= n


cdef double others_spread(const Product* p, Py_ssize_t t) noexcept nogil:
    """E|v - E v|^2 of the chains that are not of the group."""
    cdef const double* spread = p.chains.spread + t * p.whole.n_chains
    cdef const double* group = p.chains.group
    cdef double value = 0.0
    cdef Py_ssize_t m
    for m in range(p.whole.n_chains):
        if group[m] != group[p.members[0]]:
            value += spread[m]
    return value


cdef void joint_scores(const Job* job, Py_ssize_t row, Product* p) noexcept nogil:
    """score = log p(row | s), less the constant."""
    cdef const double* mean
    cdef double y
    cdef Py_ssize_t d, s
    if p.chains != NULL:
        p.whitened = p.chains.residual + row * job.n_whitened
    else:
        read_row(job, row, p.row)
        whiten(job, p.row, p.whitened)
    for s in range(job.padded):
        p.score[s] = job.joint_base[s]
    for d in range(job.n_features):
        y = p.whitened[d]
        mean = job.joint_means + d * job.padded
        for s in range(job.padded):
            p.score[s] -= 0.5 * (y - mean[s]) * (y - mean[s])
    if p.chains != NULL and p.chains.soft:
        y = 1.0 / (1.0 + others_spread(p, row) / job.n_whitened)
        for s in range(job.padded):
            p.score[s] *= y


cdef double filter_row(
    Job* job, Product* p, Py_ssize_t row, double* predicted, double* filtered
) noexcept nogil:
    """p(s | rows up to this one) from p(s | rows before); log p(row | rows before)."""
    cdef Py_ssize_t s
    cdef double top, total
    cdef double lost = 0.0
    cdef lanes* score = <lanes*>p.score
    joint_scores(job, row, p)
    top = best_possible(job.n_states, predicted, p.score)
    if top == -INFINITY:
        lost = INFINITY
        for s in range(job.n_states):
            predicted[s] = 1.0 / job.n_states
            top = max(top, p.score[s])
    for s in range(job.padded):
        p.score[s] = min(p.score[s] - top, 0.0)
    for s in range(job.padded // LANES):
        score[s] = lanes_exp(score[s])
    for s in range(job.n_states):
        filtered[s] = predicted[s] * p.score[s]
    total = sum_of(job.n_states, filtered)
    if job.joint_least > 0.0:
        p.enough = least_after(job.n_states, predicted, filtered, total, job.joint_least)
    for s in range(job.n_states):
        filtered[s] = filtered[s] / total
    return log(total) + top + job.constant - lost


cdef void predict_row(Job* job, Product* p, const double* filtered, double* out) noexcept nogil:
    """One transition, chain by chain, of the last ones together."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t m
    cdef const double* x = filtered
    cdef double* to
    for m in range(job.n_first):
        to = p.room + (m % 2) * job.padded
        along_axis(n, power(n, m), inner_of(job, m), job.transition + m * n * n, x, to)
        x = to
    along_axis(job.n_last, power(n, job.n_first), 1, job.last, x, out)


cdef double forward_row(
    Job* job, Product* p, Py_ssize_t begin, Py_ssize_t t, const double* last, Py_ssize_t place
) noexcept nogil:
    """Filter row t of a sequence into place `place` of a block."""
    cdef double* predicted = p.predicted + place * job.padded
    cdef double* filtered = p.filtered + place * job.padded
    cdef Py_ssize_t m
    cdef Py_ssize_t n = job.n_components
    cdef const double* x = last
    cdef double* to
    if job.kind == EXACT and not p.logarithms:
        if t == 0:
            joint_start(job, job.start, False, predicted)
        else:
            predict_row(job, p, last, predicted)
        if p.enough > 0.0 and below(job.n_states, predicted, p.enough):
            p.logarithms = True
            return 0.0
        return filter_row(job, p, begin + t, predicted, filtered)
    if t == 0:
        joint_start(job, job.log_start, True, filtered)
    elif job.kind == EXACT:
        for m in range(job.n_chains):
            to = filtered if m == job.n_chains - 1 else p.room + (m % 2) * job.padded
            log_along_axis(
                n, power(n, m), inner_of(job, m), job.log_transition + m * n * n, x, to
            )
            x = to
    else:
        for m in range(job.n_first):
            to = p.room + (m % 2) * job.padded
            best_along_axis(
                n, power(n, m), inner_of(job, m), job.log_transition + m * n * n, x, to
            )
            x = to
        best_along_axis(job.n_last, power(n, job.n_first), 1, job.log_last, x, filtered)
    joint_scores(job, begin + t, p)
    if job.kind == EXACT:
        return job.constant + log_filter(job.n_states, p.score, filtered)
    return job.constant + add_scores(job.n_states, p.score, filtered, &p.hint)


cdef double forward_block(
    Job* job, Product* p, Py_ssize_t begin, Py_ssize_t n_rows, Py_ssize_t block, bint keep
) noexcept nogil:
    """Filter the rows of a block, given what is kept of the one before.

    Ends where that takes logarithms.
    """
    cdef Py_ssize_t first = block * p.block_rows
    cdef Py_ssize_t end = min(first + p.block_rows, n_rows)
    cdef const double* last = p.kept + block * job.padded
    cdef double log_z = 0.0
    cdef Py_ssize_t t
    cdef bint logarithms = p.logarithms
    p.hint = 0
    if not keep:
        p.enough = 0.0  # all of it has been checked
    for t in range(first, end):
        if t % job.check_rows == 0 and halted(job.watch):
            return 0.0
        log_z += forward_row(job, p, begin, t, last, t - first)
        if p.logarithms != logarithms:
            return 0.0
        last = p.filtered + (t - first) * job.padded
    if keep and end < n_rows:
        memcpy(p.kept + (block + 1) * job.padded, last, job.n_states * sizeof(double))
    return log_z


cdef double forward_product(
    Job* job, Product* p, Py_ssize_t begin, Py_ssize_t n_rows
) noexcept nogil:
    """Filter all rows of a sequence, in logarithms where it has to be; keep what blocks need."""
    cdef double log_z = 0.0
    cdef Py_ssize_t block = 0
    p.logarithms = job.joint_least == INFINITY
    cdef bint logarithms = p.logarithms
    p.enough = 0.0
    while block * p.block_rows < n_rows:
        log_z += forward_block(job, p, begin, n_rows, block, True)
        block += 1
        if job.watch.stop:
            return 0.0
        if p.logarithms != logarithms:
            logarithms = True
            log_z = 0.0
            block = 0
    return log_z


cdef void add_axis_pairs(
    const Job* job, Py_ssize_t chain, const double* before, const double* after, double* pairs
) noexcept nogil:
    """pairs[j, k] += A[j, k] sum of before[.., j, ..] after[.., k, ..] over all other axes."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t inner = inner_of(job, chain)
    cdef const double* transition = job.transition + chain * n * n
    cdef Py_ssize_t _o, j, k
    cdef double value
    for _o in range(power(n, chain)):
        for j in range(n):
            for k in range(n):
                value = product_sum(inner, before + j * inner, after + k * inner)
                pairs[j * n + k] += transition[j * n + k] * value
        before += n * inner
        after += n * inner


cdef void add_last_pairs(
    const Job* job, const double* before, const double* after, double* pairs
) noexcept nogil:
    """pairs[j, k] += sum of before[.., j] after[.., k], of the last chains."""
    cdef Py_ssize_t n = job.n_last
    cdef Py_ssize_t outer = power(job.n_components, job.n_first)
    cdef Py_ssize_t o, j, k
    cdef double value
    cdef lanes sums[MOST_LAST]
    cdef lanes each
    if n == MOST_LAST:
        for j in range(n):
            for k in range(MOST_LAST // LANES):
                sums[k] = (<lanes*>(pairs + j * n))[k]
            for o in range(outer):
                each = lanes_set(before[o * n + j])
                for k in range(MOST_LAST // LANES):
                    sums[k] = sums[k] + each * (<const lanes*>(after + o * n))[k]
            for k in range(MOST_LAST // LANES):
                (<lanes*>(pairs + j * n))[k] = sums[k]
        return
    for o in range(outer):
        for j in range(n):
            value = before[o * n + j]
            for k in range(n):
                pairs[j * n + k] += value * after[o * n + k]


cdef void share_last_pairs(const Job* job, const double* last_pairs, double* pairs) noexcept nogil:
    """Add to each of the last chains' pairs (M, K, K) what `add_last_pairs` has added up."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t j, k, m, of_j, of_k
    cdef double value
    for j in range(job.n_last):
        for k in range(job.n_last):
            value = job.last[j * job.n_last + k]
            if value > 0.0:
                value *= last_pairs[j * job.n_last + k]
                of_j, of_k = j, k
                for m in range(job.n_chains - 1, job.n_first - 1, -1):
                    pairs[(m * n + of_j % n) * n + of_k % n] += value
                    of_j //= n
                    of_k //= n


cdef void marginals(const Job* job, const double* joint, double* folded, double* q) noexcept nogil:
    """q (P) = each chain's distribution. folded : scratch (padded)"""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t inner = job.n_states
    cdef Py_ssize_t m, k, i
    for m in range(job.n_chains):
        inner //= n
        for k in range(n):
            q[m * n + k] = sum_of(inner, joint + k * inner)
        # Summed over the chains up to this one.
        for i in range(inner):
            folded[i] = joint[i]
        for k in range(1, n):
            for i in range(inner):
                folded[i] += joint[k * inner + i]
        joint = folded


cdef void back_in_logarithms(
    Job* job, Product* p, const double* last, const double* joint, double* pairs, double* q
) noexcept nogil:
    """q(s_t-1) from q(s_t), undoing one chain's step after another, and expected steps."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t m
    cdef const double* steps
    cdef double* to
    memcpy(p.prefix, last, job.n_states * sizeof(double))
    for m in range(job.n_chains - 1):
        log_along_axis(
            n, power(n, m), power(n, job.n_chains - 1 - m), job.log_transition + m * n * n,
            p.prefix + m * job.padded, p.prefix + (m + 1) * job.padded,
        )
    for m in range(job.n_chains - 1, -1, -1):
        steps = job.log_transition + m * n * n
        to = q if m == 0 else p.score if m % 2 else p.room + job.padded
        back_along_axis(
            n, power(n, m), power(n, job.n_chains - 1 - m), steps, p.prefix + m * job.padded,
            joint, p.q, pairs + m * n * n, to,
        )
        joint = to


cdef void backward_row(
    Job* job, Product* p, const double* last, const double* predicted, const double* joint,
    double* pairs, double* beta,
) noexcept nogil:
    """beta = p(rows from t on | s_t-1) / p(rows from t on | rows before), and expected steps.

    By way of joint / predicted, joint being q(s_t). With transitions of chains before m applied to
    `last` (prefix) and those of chains after m to that ratio, what is left is a step of chain m.
    Where `last` is in logarithms, beta is q(s_t-1).
    """
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t m, s
    cdef double* after = p.score
    cdef double* to
    if p.logarithms:
        back_in_logarithms(job, p, last, joint, pairs, beta)
        return
    memcpy(p.prefix, last, job.n_states * sizeof(double))
    for m in range(job.n_first):
        along_axis(
            n, power(n, m), inner_of(job, m), job.transition + m * n * n,
            p.prefix + m * job.padded, p.prefix + (m + 1) * job.padded,
        )
    for s in range(job.n_states):
        after[s] = joint[s] / predicted[s] if joint[s] > 0.0 else 0.0
    add_last_pairs(job, p.prefix + job.n_first * job.padded, after, p.last_pairs)
    to = beta if job.n_first == 0 else p.prefix + job.n_first * job.padded
    along_axis(job.n_last, power(n, job.n_first), 1, job.last_reverse, after, to)
    after = to
    for m in range(job.n_first - 1, -1, -1):
        add_axis_pairs(job, m, p.prefix + m * job.padded, after, pairs + m * n * n)
        to = beta if m == 0 else p.prefix + m * job.padded
        along_axis(n, power(n, m), inner_of(job, m), job.reverse + m * n * n, after, to)
        after = to


cdef void put_row(
    const Job* job, Product* p, Py_ssize_t row, double* statistics
) noexcept nogil:
    """Remember q of a row, and add what it brings."""
    if job.memory != NULL:
        memcpy(job.memory + row * job.stride, p.q, job.n_indicators * sizeof(double))
    read_row(job, row, p.row)
    add_row(job, p.row, p.q, statistics + cross_start(job))


cdef void put_group(
    const Job* job, Product* p, Py_ssize_t t, const double* joint
) noexcept nogil:
    """Remember q of a group's chains, and take their means out of the residual; what fits."""
    cdef Py_ssize_t n = job.n_components
    cdef Chains* c = p.chains
    cdef double* residual = c.residual + t * job.n_whitened
    cdef const double* means
    cdef Py_ssize_t i, s
    cdef double mean, square = 0.0, spread = 0.0
    for i in range(job.n_chains):
        memcpy(c.q + t * job.stride + p.members[i] * n, p.q + i * n, n * sizeof(double))
        subtract_mean(p.whole, c, p.members[i], t, 1.0)
        if not c.soft:
            c.spread[t * p.whole.n_chains + p.members[i]] = 0.0
    if c.soft:
        return
    for i in range(job.n_whitened):
        means = job.joint_means + i * job.padded
        mean = product_sum(job.n_states, joint, means)
        for s in range(job.n_states):
            p.score[s] = (means[s] - mean) * (means[s] - mean)
        spread += product_sum(job.n_states, joint, p.score)
        square += residual[i] * residual[i]
    c.spread[t * p.whole.n_chains + p.members[0]] = spread
    p.fit -= 0.5 * (square + spread)


cdef void put_group_states(const Job* job, Product* p, Py_ssize_t t) noexcept nogil:
    """Remember the states of a group's chains, and take their means out of the residual."""
    cdef Py_ssize_t i, k
    for i in range(job.n_chains):
        k = 0
        while p.q[i * job.n_components + k] != 1.0:
            k += 1
        if put_state(p.whole, p.chains, p.members[i], t, k):
            p.changed = True
        subtract_mean(p.whole, p.chains, p.members[i], t, 1.0)


cdef void smooth_product(
    Job* job, Product* p, Py_ssize_t begin, Py_ssize_t n_rows, double* statistics
) noexcept nogil:
    """Exact q(T) of one sequence: forward-backward on the product chain."""
    cdef Py_ssize_t blocks = (n_rows + p.block_rows - 1) // p.block_rows
    cdef Py_ssize_t n = job.n_indicators
    cdef double* pairs = statistics + 1 + n
    cdef double* beta = p.room
    cdef double* joint
    cdef const double* last
    cdef double total
    cdef Py_ssize_t block, t, first, s
    statistics[0] += forward_product(job, p, begin, n_rows)
    if job.watch.stop:
        return
    memset(p.last_pairs, 0, job.n_last * job.n_last * sizeof(double))
    for block in range(blocks - 1, -1, -1):
        if block < blocks - 1:
            # beta lies where this would work.
            memcpy(p.prefix, beta, job.n_states * sizeof(double))
            forward_block(job, p, begin, n_rows, block, False)
            memcpy(beta, p.prefix, job.n_states * sizeof(double))
        first = block * p.block_rows
        for t in range(min(first + p.block_rows, n_rows) - 1, first - 1, -1):
            if t % job.check_rows == 0 and halted(job.watch):
                return
            joint = p.filtered + (t - first) * job.padded
            if p.logarithms:
                for s in range(job.n_states):
                    joint[s] = beta[s] if t < n_rows - 1 else exp(joint[s])
            elif t < n_rows - 1:
                for s in range(job.n_states):
                    joint[s] *= beta[s]
            if t < n_rows - 1:
                total = sum_of(job.n_states, joint)
                for s in range(job.n_states):
                    joint[s] = joint[s] / total
            for s in range(job.n_states):
                p.total[s] += joint[s]
            marginals(job, joint, p.score, p.q)
            if p.chains != NULL:
                put_group(job, p, t, joint)
            else:
                put_row(job, p, begin + t, statistics)
            if t == 0:
                for s in range(n):
                    statistics[1 + s] += p.q[s]
            else:
                last = p.filtered + (t - 1 - first) * job.padded
                if t == first:
                    last = p.kept + block * job.padded
                backward_row(
                    job, p, last, p.predicted + (t - first) * job.padded, joint, pairs, beta
                )
    share_last_pairs(job, p.last_pairs, pairs)


cdef void best_product(
    Job* job, Product* p, Py_ssize_t begin, Py_ssize_t n_rows, double* statistics
) noexcept nogil:
    """The best paths of all chains together: Viterbi's on the product chain."""
    cdef Py_ssize_t blocks = (n_rows + p.block_rows - 1) // p.block_rows
    cdef Py_ssize_t n = job.n_components
    cdef double* pairs = statistics + 1 + job.n_indicators
    cdef double* values
    cdef Py_ssize_t block, t, first, s, m, rest, state
    cdef Py_ssize_t following = -1
    statistics[0] += forward_product(job, p, begin, n_rows)
    if job.watch.stop:
        return
    for block in range(blocks - 1, -1, -1):
        if block < blocks - 1:
            forward_block(job, p, begin, n_rows, block, False)
        first = block * p.block_rows
        for t in range(min(first + p.block_rows, n_rows) - 1, first - 1, -1):
            if t % job.check_rows == 0 and halted(job.watch):
                return
            values = p.filtered + (t - first) * job.padded
            if following >= 0:
                # Log probabilities of the step to `following` from each state.
                rest = following
                for m in range(job.n_chains - 1, -1, -1):
                    for s in range(n):
                        p.q[m * n + s] = job.log_transition[(m * n + s) * n + rest % n]
                    rest //= n
                joint_start(job, p.q, True, p.score)
                for s in range(job.n_states):
                    values[s] += p.score[s]
            state = 0
            for s in range(1, job.n_states):
                if values[s] > values[state]:
                    state = s
            if following < 0:
                statistics[0] += values[state]
            memset(p.q, 0, job.n_indicators * sizeof(double))
            rest = state
            for m in range(job.n_chains - 1, -1, -1):
                p.q[m * n + rest % n] = 1.0
                if following >= 0:
                    pairs[(m * n + rest % n) * n + following % n] += 1.0
                    following //= n
                if t == 0:
                    statistics[1 + m * n + rest % n] += 1.0
                rest //= n
            if p.chains != NULL:
                put_group_states(job, p, t)
            else:
                put_row(job, p, begin + t, statistics)
            p.total[state] += 1.0
            following = state


cdef void add_joint_pairs(const Job* job, const double* total, double* gram) noexcept nogil:
    """Add E[z z'] (P, P) of what the product chain's states hold."""
    cdef Py_ssize_t n = job.n_indicators
    cdef Py_ssize_t k = job.n_components
    cdef Py_ssize_t s, a, b, rest_a, rest_b, p
    for s in range(job.n_states):
        if total[s] > 0.0:
            rest_a = s
            for a in range(job.n_chains - 1, -1, -1):
                p = a * k + rest_a % k
                rest_a //= k
                rest_b = s
                for b in range(job.n_chains - 1, -1, -1):
                    gram[p * n + b * k + rest_b % k] += total[s]
                    rest_b //= k


# Groups of chains --------------------------------------------------------------------------------
#
# q(T) = prod_g q(chains of g), each group's exact given the others'. A group's rows are what the
# means of all others leave of them. Which chains go together is drawn again and again, and the new
# groups are kept if the free energy is higher for them: it never falls.


# A thread's for one group after another.
cdef struct Room:
    Py_ssize_t* members  # (M)
    Job part  # the group as a model of its own
    double* start  # (group's M, K): logarithms
    double* transition
    double* means
    double* statistics
    double* gram
    double* workspace


cdef Job part_of(
    const Job* job, Kind kind, Py_ssize_t n_chains, Py_ssize_t n_rows
) noexcept nogil:
    """The shape of a group as a model of its own."""
    cdef Job part = job[0]
    part.kind = EXACT if kind == GROUPS else JOINT_BEST
    part.n_chains = n_chains
    part.n_indicators = n_chains * job.n_components
    part.n_states = power(job.n_components, n_chains)
    part.padded = lines(part.n_states)
    part.grouped = False
    # Residuals have all coordinates.
    part.n_features = job.n_whitened
    part.constant = 0.0
    part.memory = NULL
    plan_product(&part, n_rows)
    return part


cdef Py_ssize_t room_size(const Job* job, Py_ssize_t n_rows) except -1:
    cdef Job part
    cdef Py_ssize_t most = 0
    cdef Py_ssize_t n_chains
    for n_chains in range(1, job.group_chains + 1):
        part = part_of(job, GROUPS, n_chains, n_rows)
        most = max(most, product_size(&part, n_rows))
    return (
        2 * lines(job.n_chains) + 2 * lines(kept_size(job, n_rows))
        + lines(part.n_indicators) + lines(part.n_indicators * part.n_components)
        + lines(times(part.n_indicators, part.n_whitened))
        + lines(1 + part.n_indicators * (1 + part.n_components))
        + lines(times(part.n_indicators, part.n_indicators)) + table_size(&part) + most
    )


cdef Room room_in(
    const Job* job, Kind kind, Py_ssize_t n_chains, Py_ssize_t n_rows, double* workspace
) noexcept nogil:
    """A thread's room, for a group of so many chains."""
    cdef Room room
    room.part = part_of(job, kind, n_chains, n_rows)
    cdef Job* part = &room.part
    room.members = <Py_ssize_t*>workspace
    # Behind what `draw_groups` and `keep` have.
    room.start = workspace + 2 * (lines(job.n_chains) + lines(kept_size(job, n_rows)))
    room.transition = room.start + lines(part.n_indicators)
    room.means = room.transition + lines(part.n_indicators * part.n_components)
    room.statistics = room.means + lines(part.n_indicators * part.n_whitened)
    room.gram = room.statistics + lines(1 + part.n_indicators * (1 + part.n_components))
    part.given_start = room.start
    part.given_transition = room.transition
    part.given_means = room.means
    room.workspace = lay_tables(part, room.gram + lines(part.n_indicators * part.n_indicators))
    return room


cdef double update_group(
    Job* job, Chains* c, Kind kind, Py_ssize_t number, bint* changed
) noexcept nogil:
    """Exact q, or best paths, of a group's chains given the others'; KL(q || p), or 0 of paths."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t n_chains = 0
    cdef Py_ssize_t m, t, a, b, i
    cdef Py_ssize_t* members = <Py_ssize_t*>c.room
    cdef Room room
    cdef Product p
    for m in range(job.n_chains):
        if c.group[m] == number:
            members[n_chains] = m
            n_chains += 1
    if n_chains == 0:
        return 0.0
    room = room_in(job, kind, n_chains, c.n_rows, c.room)
    for a in range(n_chains):
        m = members[a]
        memcpy(room.start + a * n, job.log_start + m * n, n * sizeof(double))
        memcpy(
            room.transition + a * n * n, job.log_transition + m * n * n, n * n * sizeof(double)
        )
        memcpy(
            room.means + a * n * job.n_whitened, job.means + m * n * job.n_whitened,
            n * job.n_whitened * sizeof(double),
        )
        for t in range(c.n_rows):
            if t % job.check_rows == 0 and halted(job.watch):
                return 0.0
            subtract_mean(job, c, m, t, -1.0)
    make_tables(&room.part)
    p = product_in(&room.part, room.workspace)
    p.whole = job
    p.chains = c
    p.members = members
    p.fit = 0.0
    p.changed = False
    memset(p.total, 0, room.part.padded * sizeof(double))
    memset(room.statistics, 0, (1 + room.part.n_indicators * (1 + n)) * sizeof(double))
    memset(room.gram, 0, room.part.n_indicators * room.part.n_indicators * sizeof(double))
    if kind == GROUPS:
        smooth_product(&room.part, &p, 0, c.n_rows, room.statistics)
    else:
        best_product(&room.part, &p, 0, c.n_rows, room.statistics)
    if job.watch.stop:
        return 0.0
    add_joint_pairs(&room.part, p.total, room.gram)
    for a in range(n_chains):
        m = members[a]
        memcpy(c.start + m * n, room.statistics + 1 + a * n, n * sizeof(double))
        memcpy(
            c.pairs + m * n * n, room.statistics + 1 + (n_chains + a * n) * n,
            n * n * sizeof(double),
        )
        for b in range(n_chains):
            for i in range(n):
                memcpy(
                    c.gram + (m * n + i) * job.n_indicators + members[b] * n,
                    room.gram + (a * n + i) * n_chains * n + b * n, n * sizeof(double),
                )
    changed[0] = changed[0] or p.changed
    return p.fit - room.statistics[0] if kind == GROUPS else 0.0


cdef double log_path(const Job* job, const Chains* c) noexcept nogil:
    """log p of all chains' paths, by their starts and steps."""
    cdef double value = 0.0
    cdef Py_ssize_t i
    for i in range(job.n_indicators):
        value += c.start[i] * job.log_start[i]
    for i in range(job.n_indicators * job.n_components):
        value += c.pairs[i] * job.log_transition[i]
    return value


cdef void add_pairs_of_groups(
    const Job* job, const double* group, const double* q, double* gram
) noexcept nogil:
    """Add E[z z'] of chains in different groups, which are independent."""
    cdef Py_ssize_t k = job.n_components
    cdef Py_ssize_t p, m, j
    for p in range(job.n_indicators):
        if q[p] > 0.0:
            for m in range(job.n_chains):
                if group[m] != group[p // k]:
                    for j in range(m * k, (m + 1) * k):
                        gram[p * job.n_indicators + j] += q[p] * q[j]


cdef void sort_chains(Py_ssize_t n, const double* value, Py_ssize_t* order) noexcept nogil:
    """Chains by value, largest first; in the order they are in, where it is the same."""
    cdef Py_ssize_t i, j, m
    for i in range(1, n):
        m = order[i]
        j = i
        while j > 0 and value[order[j - 1]] < value[m]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = m


cdef bint draw_groups(
    const Job* job, Chains* c, Py_ssize_t size, Py_ssize_t number
) noexcept nogil:
    """Groups number 0, 1, ... of `size` chains; whether they are others than those that there are.

    First those of chains whose states' means lie alike far apart. Every second time of chains that
    are alike uncertain, which are those that have something to tell each other; else random ones.
    Nothing depends on the chains' order.
    """
    cdef Py_ssize_t* order = <Py_ssize_t*>c.room
    cdef double* value = c.room + lines(job.n_chains)
    cdef bint new = False
    cdef Py_ssize_t i, j, t
    for i in range(job.n_chains):
        order[i] = job.rank[i]
    if number % 2 == 1:
        memset(value, 0, job.n_chains * sizeof(double))
        for t in range(c.n_rows):
            for i in range(job.n_chains):
                value[i] += chain_spread(job, c, i, t)
        for i in range(job.n_chains):
            if value[i] < LEAST_SPREAD * c.n_rows:
                value[i] = 0.0
        sort_chains(job.n_chains, value, order)
    else:
        for i in range(job.n_chains - 1, 0 if number > 0 else job.n_chains, -1):
            j = <Py_ssize_t>(philox_uniform(SEED_OF_GROUPS, <uint32_t>number, i, 0) * (i + 1))
            order[i], order[j] = order[j], order[i]
    c.n_groups = (job.n_chains + size - 1) // size
    for i in range(job.n_chains):
        j = i // size
        new = new or c.group[order[i]] != c.group[order[j * size]]
        value[order[i]] = j
    for i in range(job.n_chains):
        for j in range(i):
            new = new or (value[i] != value[j] and c.group[i] == c.group[j])
    if new:  # else in another order, perhaps
        memcpy(c.group, value, job.n_chains * sizeof(double))
    return new


cdef double chain_spread(
    const Job* job, Chains* c, Py_ssize_t chain, Py_ssize_t t
) noexcept nogil:
    """E|v - E v|^2 of one chain."""
    # As `subtract_mean` has it, nothing being subtracted.
    subtract_mean(job, c, chain, t, 0.0)
    return c.spread[t * job.n_chains + chain]


cdef bint has_groups(const Job* job, Chains* c) noexcept nogil:
    """Whether what is remembered are groups."""
    cdef Py_ssize_t number, m, size
    cdef Py_ssize_t total = 0
    c.n_groups = (job.n_chains + job.group_chains - 1) // job.group_chains
    for number in range(c.n_groups):
        size = 0
        for m in range(job.n_chains):
            size += c.group[m] == number
        if size > job.group_chains:
            return False
        total += size
    return total == job.n_chains and c.group[job.n_chains] >= 0.0


cdef Py_ssize_t kept_size(const Job* job, Py_ssize_t n_rows) noexcept nogil:
    return n_rows * (job.n_whitened + job.n_chains + job.stride) + start_to_gram(job)


cdef void keep(const Job* job, Chains* c, bint place, bint back) noexcept nogil:
    """Keep q and what goes with it in one of two places, or get it back."""
    cdef double* kept = c.room + 2 * lines(job.n_chains) + place * lines(kept_size(job, c.n_rows))
    cdef double* parts[3]
    cdef Py_ssize_t sizes[3]
    cdef Py_ssize_t i
    parts[0], sizes[0] = c.residual, c.n_rows * (job.n_whitened + job.n_chains)
    parts[1], sizes[1] = c.q, c.n_rows * job.stride
    parts[2], sizes[2] = c.start, start_to_gram(job)
    for i in range(3):
        if back:
            memcpy(parts[i], kept, sizes[i] * sizeof(double))
        else:
            memcpy(kept, parts[i], sizes[i] * sizeof(double))
        kept += sizes[i]


cdef void soften(Job* job, Chains* c) noexcept nogil:
    """Find a q to begin with; what is not known yet counts as noise, lest a group be too sure."""
    cdef Py_ssize_t _number, group
    cdef bint changed = False
    c.soft = True
    for _number in range(SOFT_ROUNDS if job.n_trials > 1 else FEW_SOFT_ROUNDS):
        draw_groups(job, c, job.quick_chains, 2 * _number)
        for group in range(c.n_groups):
            update_group(job, c, GROUPS, group, &changed)
            if job.watch.stop:
                return
    c.soft = False


cdef double redraw(
    Job* job, Chains* c, Kind kind, Py_ssize_t size, double value, Py_ssize_t n_trials,
    Py_ssize_t enough, Py_ssize_t n_rounds,
) noexcept nogil:
    """Keep q of other groups where they are better than those of `value`, which is there."""
    cdef double other
    cdef Py_ssize_t vain = 0
    cdef Py_ssize_t _trial
    if c.n_groups == 1:
        return value
    for _trial in range(n_trials):
        if job.watch.stop or vain == enough:
            break
        # Of paths all is certain: all groups are random.
        c.group[job.n_chains] = (1.0 if kind == GROUPS else 2.0) + min(c.group[job.n_chains], 4e9)
        keep(job, c, 0, False)
        if not draw_groups(job, c, size, <Py_ssize_t>c.group[job.n_chains]):
            continue
        other = rounds(job, c, kind, n_rounds)
        vain = 0 if other - value > SETTLED_GROUPS * c.n_rows else vain + 1
        # Rounding is no gain, so that it decides nothing.
        if other - value > SETTLED * c.n_rows and not job.watch.stop:
            value = other
        else:
            keep(job, c, 0, True)
    return value


cdef void search(Job* job, Chains* c, Kind kind) noexcept nogil:
    """Find q, or paths, of rows of which nothing is known yet; draw the groups that are next."""
    cdef double value = -INFINITY
    cdef double paths
    c.group[job.n_chains] = 0.0
    soften(job, c)
    if kind == GROUPS and job.n_trials > 1 and not job.watch.stop:
        value = rounds(job, c, GROUPS, MOST_ROUNDS)
        keep(job, c, 1, False)
    if job.n_trials > 1 and not job.watch.stop:
        paths = rounds(job, c, GROUPS_BEST, MOST_ROUNDS)
        redraw(
            job, c, GROUPS_BEST, job.quick_chains, paths, job.n_trials, VAIN_TRIALS, MOST_ROUNDS
        )
        if kind == GROUPS and not rounds(job, c, GROUPS, MOST_ROUNDS) > value:
            keep(job, c, 1, True)
    c.group[job.n_chains] = 0.0
    draw_groups(job, c, job.group_chains, 0)


# Rounds ------------------------------------------------------------------------------------------


cdef double rounds(Job* job, Chains* c, Kind kind, Py_ssize_t most) noexcept nogil:
    """Update one chain after another, or group, until their free energy, or paths, settle.

    most : rounds
    """
    cdef double value = -INFINITY
    cdef double settled = (SETTLED_GROUPS if kind == GROUPS else SETTLED) * c.n_rows
    cdef double last, divergence
    cdef Py_ssize_t _number, chain, t
    cdef bint changed
    cdef bint grouped = kind == GROUPS or kind == GROUPS_BEST
    for _number in range(most):
        last = value
        divergence = 0.0
        changed = False
        for chain in range(c.n_groups if grouped else 0):
            divergence += update_group(job, c, kind, chain, &changed)
            if job.watch.stop:
                return 0.0
        if kind == GROUPS_BEST:
            divergence = -log_path(job, c)
        for chain in range(0 if grouped else job.n_chains):
            score_chain(job, c, chain)
            if kind == COMPLETE:
                divergence += settle_chain(job, c, chain)
            elif kind == STRUCTURED:
                divergence += smooth_chain(job, c, chain)
            elif kind == DRAW:
                divergence += draw_chain(job, c, chain)
            else:
                divergence += best_chain(job, c, chain, &changed)
            for t in range(c.n_rows):
                if t % job.check_rows == 0 and halted(job.watch):
                    return 0.0
                subtract_mean(job, c, chain, t, 1.0)
        value = free_energy(job, c, divergence)
        if job.watch.stop:
            return 0.0
        if kind == BEST or kind == GROUPS_BEST:
            if not changed:
                break
        elif kind == DRAW or not value - last > settled:
            break
        if (c.n_groups if grouped else job.n_chains) == 1 and kind != COMPLETE:
            break
    return value


cdef void visit_chains(
    Job* job, Py_ssize_t begin, Py_ssize_t n_rows, double* statistics, double* workspace
) noexcept nogil:
    """One sequence, chain by chain, or a group of chains at a time."""
    cdef Py_ssize_t n = job.n_indicators
    cdef Chains c = chains_in(job, begin, n_rows, workspace)
    cdef bint fresh = isnan(c.q[0])
    cdef bint grouped = job.grouped
    cdef double value
    cdef Py_ssize_t t, m, i, n_rounds
    for t in range(n_rows):
        if t % job.check_rows == 0 and halted(job.watch):
            if fresh:
                c.q[0] = NAN  # of no value yet
            return
        for i in range(n if fresh else 0):
            c.q[t * job.stride + i] = 1.0 / job.n_components
        read_row(job, begin + t, c.row)
        whiten(job, c.row, c.residual + t * job.n_whitened)
        for m in range(job.n_chains):
            subtract_mean(job, &c, m, t, 1.0)
    if grouped and fresh:
        search(job, &c, job.kind)
    elif grouped and not has_groups(job, &c):
        c.group[job.n_chains] = 0.0
        draw_groups(job, &c, job.group_chains, 0)
    elif fresh:
        if job.sparse:
            # Of rows one by one, all states of one might rule out all of the next.
            rounds(job, &c, BEST, MOST_ROUNDS)
        if job.kind != COMPLETE and not job.watch.stop:
            rounds(job, &c, COMPLETE, MOST_ROUNDS)
    if job.watch.stop:
        return
    n_rounds = FEW_ROUNDS if job.kind == GROUPS and not fresh else MOST_ROUNDS
    value = rounds(job, &c, job.kind, n_rounds)
    if grouped:
        value = redraw(
            job, &c, job.kind, job.group_chains, value, job.n_trials if fresh else 1,
            VAIN_LARGE_TRIALS, n_rounds,
        )
    if job.watch.stop:
        return
    statistics[0] += value
    for i in range(n * (1 + job.n_components)):  # start, and pairs behind it
        statistics[1 + i] += c.start[i]
    for i in range(n * n if grouped else 0):
        if c.group[i // n // job.n_components] == c.group[i % n // job.n_components]:
            statistics[gram_start(job) + i] += c.gram[i]
    for t in range(n_rows):
        if t % job.check_rows == 0 and halted(job.watch):
            return
        read_row(job, begin + t, c.row)
        add_row(job, c.row, c.q + t * job.stride, statistics + cross_start(job))
        if grouped:
            add_pairs_of_groups(
                job, c.group, c.q + t * job.stride, statistics + gram_start(job)
            )
        else:
            add_pairs_of_chains(job, c.q + t * job.stride, statistics + gram_start(job))


# All sequences -----------------------------------------------------------------------------------


cdef void visit_chunk(Job* job, Py_ssize_t chunk) noexcept nogil:
    """The sequences that were dealt out to a chunk."""
    cdef double* statistics = job.statistics + chunk * job.statistics_size
    cdef double* workspace = job.workspace + thread_index() * job.workspace_size
    cdef bint joint = job.kind == EXACT or job.kind == JOINT_BEST
    cdef Product p
    cdef Py_ssize_t number, begin, n_rows
    clear(statistics, job.statistics_size * sizeof(double), job.watch)
    if joint:
        p = product_in(job, workspace)
        memset(p.total, 0, job.padded * sizeof(double))
    number = chunk
    while number < job.n_sequences:
        begin = job.offsets[job.order[number]]
        n_rows = job.offsets[job.order[number] + 1] - begin
        if job.kind == EXACT:
            smooth_product(job, &p, begin, n_rows, statistics)
        elif job.kind == JOINT_BEST:
            best_product(job, &p, begin, n_rows, statistics)
        else:
            visit_chains(job, begin, n_rows, statistics, workspace)
        if job.watch.stop:
            return
        number += job.n_chunks
    if joint:
        add_joint_pairs(job, p.total, statistics + gram_start(job))


cdef void join_last(Job* job) noexcept nogil:
    """Transitions of the last chains of the product chain together."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t j, k, m, of_j, of_k, at
    cdef double value, logarithm
    for j in range(job.n_last):
        if j % job.check_tables == 0 and halted(job.watch):
            return
        for k in range(job.n_last):
            value = 1.0
            logarithm = 0.0
            of_j, of_k = j, k
            for m in range(job.n_chains - 1, job.n_first - 1, -1):
                at = (m * n + of_j % n) * n + of_k % n
                value *= job.transition[at]
                logarithm += job.log_transition[at]
                of_j //= n
                of_k //= n
            job.last[j * job.n_last + k] = value
            job.last_reverse[k * job.n_last + j] = value
            job.log_last[j * job.n_last + k] = logarithm


cdef inline double probability(double logarithm) noexcept nogil:
    """Of what is possible none is so small that it would be lost."""
    return exp(min(max(logarithm, LEAST_LOG), 0.0)) if logarithm > LOG_ZERO / 2 else 0.0


cdef void make_tables(Job* job) noexcept nogil:
    """Probabilities, transposed transitions, and the means of the product chain's states."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t m, j, k, s, i, size
    cdef double* means
    cdef double value, start, step, possible
    cdef double all_starts = 1.0
    cdef double all_steps = 1.0
    cdef double all_possible = 1.0
    for j in range(job.n_indicators * job.n_whitened):
        job.means[j] = min(max(job.given_means[j], -FAR), FAR)
    if job.grouped:
        rank_chains(job)
    job.sparse = False
    for m in range(job.n_chains):
        start, step, possible = 1.0, 1.0, 1.0
        for j in range(m * n, (m + 1) * n):
            if j % job.check_tables == 0 and halted(job.watch):
                return
            value = job.given_start[j]
            job.log_start[j] = value if value > LOG_ZERO else LOG_ZERO
            value = probability(job.log_start[j])
            job.start[j] = value
            job.sparse = job.sparse or value == 0.0
            if value > 0.0:
                start = min(start, value)
            for k in range(n):
                value = job.given_transition[j * n + k]
                job.log_transition[j * n + k] = value if value > LOG_ZERO else LOG_ZERO
                value = probability(job.log_transition[j * n + k])
                job.transition[j * n + k] = value
                job.reverse[(m * n + k) * n + j - m * n] = value
                step = min(step, value)
                if value > 0.0:
                    possible = min(possible, value)
        job.sparse = job.sparse or step == 0.0
        job.least[m] = least_of(start, step, possible)
        all_starts *= start
        all_steps *= step
        all_possible *= possible
    job.joint_least = least_of(all_starts, all_steps, all_possible)
    if job.padded == 0:
        return
    join_last(job)
    memset(job.joint_base, 0, job.padded * sizeof(double))
    for i in range(job.n_whitened):
        means = job.joint_base + job.padded
        if i < job.n_features:
            means = job.joint_means + i * job.padded
        for s in range(job.padded):
            means[s] = 0.0
        if halted(job.watch):
            return
        size = 1
        for m in range(job.n_chains):
            for s in range(size - 1, -1, -1):
                value = means[s]
                for k in range(n):
                    means[s * n + k] = value + job.means[(m * n + k) * job.n_whitened + i]
            size *= n
        for s in range(job.n_states if i >= job.n_features else 0):
            job.joint_base[s] -= 0.5 * means[s] * means[s]


cdef Py_ssize_t table_size(const Job* job) except -1:
    """Numbers of the tables that `lay_tables` lays out."""
    return (
        2 * lines(job.n_chains) + 2 * lines(job.n_indicators)
        + 3 * lines(job.n_indicators * job.n_components)
        + lines(times(job.n_indicators, job.n_whitened))
        + times(job.padded, job.n_features + 2) + 3 * lines(times(job.n_last, job.n_last))
    )


cdef double* lay_tables(Job* job, double* at) noexcept nogil:
    """Where each of the tables lies; what is behind them."""
    job.least = at
    job.rank = <Py_ssize_t*>(job.least + lines(job.n_chains))
    job.start = job.least + 2 * lines(job.n_chains)
    job.transition = job.start + lines(job.n_indicators)
    job.log_start = job.transition + lines(job.n_indicators * job.n_components)
    job.log_transition = job.log_start + lines(job.n_indicators)
    job.reverse = job.log_transition + lines(job.n_indicators * job.n_components)
    job.means = job.reverse + lines(job.n_indicators * job.n_components)
    job.joint_means = job.means + lines(job.n_indicators * job.n_whitened)
    job.joint_base = job.joint_means + job.padded * job.n_features
    job.last = job.joint_base + 2 * job.padded
    job.log_last = job.last + lines(job.n_last * job.n_last)
    job.last_reverse = job.log_last + lines(job.n_last * job.n_last)
    return job.last_reverse + lines(job.n_last * job.n_last)


cdef void plan_product(Job* job, Py_ssize_t longest) noexcept nogil:
    """Chains of a product chain that step together, rows of a block, and between signals."""
    job.n_last = job.n_components
    job.n_first = job.n_chains - 1
    while job.n_first > 0 and job.n_last <= MOST_LAST // job.n_components:
        job.n_last *= job.n_components
        job.n_first -= 1
    job.block_rows = max(BLOCK_NUMBERS // job.padded, <Py_ssize_t>sqrt(<double>longest) + 1)
    job.block_rows = min(job.block_rows, longest)
    # Asking for the time may take as long as a row does.
    job.check_rows = max(
        1, min(256, MANY_STEPS // (job.padded * (job.n_indicators + job.n_features)))
    )


cdef void rank_chains(Job* job) noexcept nogil:
    """Chains by how far apart their states' means are, farthest first."""
    cdef Py_ssize_t n = job.n_components
    cdef Py_ssize_t r = job.n_whitened
    cdef Py_ssize_t m, i, k
    cdef double mean
    cdef double* far = job.least  # lent
    for m in range(job.n_chains):
        far[m] = 0.0
        job.rank[m] = m
        for i in range(r):
            mean = 0.0
            for k in range(n):
                mean += job.means[(m * n + k) * r + i] / n
            for k in range(n):
                far[m] += (job.means[(m * n + k) * r + i] - mean) ** 2
    sort_chains(job.n_chains, far, job.rank)


cdef void work(Job* job) noexcept nogil:
    """Take chunks while there are any."""
    cdef Py_ssize_t chunk = add_one(&job.taken)
    while chunk < job.n_chunks:
        visit_chunk(job, chunk)
        add_one(&job.done)
        chunk = add_one(&job.taken)
    if thread_index() == 0:
        wait_for(&job.done, job.n_chunks, job.watch)


cdef Py_ssize_t size_of_statistics(
    Py_ssize_t n_chains, Py_ssize_t n_components, Py_ssize_t n_features
) except -1:
    check_least("n_chains", n_chains, 1)
    check_least("n_components", n_components, 1)
    check_least("n_features", n_features, 1)
    cdef Py_ssize_t p = times(n_chains, n_components)
    return (
        1 + times(p, 1 + n_components) + times(p, p + n_features) + times(n_features, n_features)
    )


def statistics_size(Py_ssize_t n_chains, Py_ssize_t n_components, Py_ssize_t n_features):
    """Length of the statistics that `visit` fills."""
    return size_of_statistics(n_chains, n_components, n_features)


cdef int read_theta(Job* job, tuple held) except -1:
    """Everything but where rows lie: see `visit`."""
    cdef Doubles origin, means, start
    cdef Py_ssize_t d, k, m, p, _i
    look_into("log_start", held[4], &start)
    if start.ndim != 2:
        raise ValueError(f"log_start must be (M, K), not {shape_told(&start)}")
    look_into("origin", held[0], &origin)
    m, k, d = start.shape[0], start.shape[1], origin.size
    job.statistics_size = size_of_statistics(m, k, d)
    p = m * k
    look_into("means", held[3], &means)
    if means.ndim != 2 or means.shape[0] != p or means.shape[1] < d:
        raise ValueError(
            f"means must have a row for each of {p} states and {d} columns at least, not shape "
            f"{shape_told(&means)}"
        )
    job.n_chains = m
    job.n_components = k
    job.n_indicators = p
    job.n_features = d
    job.n_whitened = means.shape[1]
    job.source.origin = origin.data
    job.source.scale = doubles("scale", held[1], d)
    job.whitening = shaped("whitening", held[2], (d, d))
    job.given_means = means.data
    job.given_start = start.data
    job.given_transition = shaped("log_transition", held[5], (m, k, k))
    job.n_states = 1
    job.padded = 0
    if job.kind == EXACT or job.kind == JOINT_BEST:
        for _i in range(m):
            if job.n_states > MOST_STATES // k:
                raise MemoryError(f"no memory for {k}**{m} states of the product chain")
            job.n_states *= k
        job.padded = lines(job.n_states)
    return 0


cdef Py_ssize_t chains_within(const Job* job, Py_ssize_t most) except -1:
    """Chains of a group of so many joint states at most, if it has more than one."""
    cdef Py_ssize_t n = 1
    cdef Py_ssize_t size = job.n_components
    while n < job.n_chains and size <= most // job.n_components:
        size *= job.n_components
        n += 1
    if size > MOST_STATES:
        raise MemoryError(f"no memory for {size} states of a block")
    return n


def visit(
    block, theta, str kind, *, statistics, uint64_t seed=0, uint32_t sweep=0,
    Py_ssize_t block_states=4096, Py_ssize_t n_trials=200,
):
    """Assign states to the rows of all sequences and add up what they bring.

    Parameters
    ----------
    block, theta : IN, as in inputs.py (theta: CoupledCoefficients); block.memory : IN/OUT, (N, P),
        of no value where NaN; may be None for "exact" and "joint_best", which only write it;
        (N, P + M + 1) for "blocks" and "blocks_best", and if so for others too
    kind : IN, one of KINDS
    block_states : IN, joint states of a block of chains, at most, if it has more than one
    n_trials : IN, blocks that are tried at most where nothing is known of the rows
    statistics : OUT, (statistics_size,): log_z, start (M, K), transition (M, K, K), gram (P, P),
        cross (P, D), the lower triangle of square (D, D)
    """
    cdef Job job
    cdef Watch watch = watch_from_now()
    cdef Doubles memory
    cdef Py_buffer view
    # So that they stay where they are.
    cdef tuple held = (
        block.origin, block.scale, theta.whitening, theta.means, theta.log_start,
        theta.log_transition, block.memory,
    )
    cdef bytes _sequences  # what offsets and order are in
    cdef Py_ssize_t chunk, i, longest, tables, size
    cdef int n_threads
    cdef int _thread
    cdef double* room

    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    job.kind = KINDS[kind]
    read_theta(&job, held)
    job.constant = theta.constant
    job.first_row = block.first_row
    check_least("first_row", job.first_row, 0)
    cdef double* sums = doubles("statistics", statistics, job.statistics_size, True)
    job.seed = seed
    job.sweep = sweep
    job.taken = 0
    job.done = 0
    job.watch = &watch
    job.stride = job.n_indicators
    job.n_last = 0
    job.grouped = job.kind == GROUPS or job.kind == GROUPS_BEST
    if job.grouped:
        check_least("block_states", block_states, 1)
        check_least("n_trials", n_trials, 0)
        job.n_trials = n_trials
        job.stride += job.n_chains + 1
        job.group_chains = chains_within(&job, block_states)
        job.quick_chains = chains_within(&job, min(block_states, QUICK_STATES))

    open_rows(block.values, &view, &job.source)
    try:
        check_length("a row of values", view.shape[1], job.n_features)
        _sequences = read_sequences(
            block.sequences, view.shape[0], &job.offsets, &job.order, &job.n_sequences
        )
        job.memory = NULL
        if held[6] is not None:
            look_into("memory", held[6], &memory)
            if memory.ndim == 2 and memory.shape[1] == job.n_indicators + job.n_chains + 1:
                job.stride = memory.shape[1]
            job.memory = doubles_of("memory", held[6], view.shape[0], job.stride, True)
        elif job.padded == 0:
            raise ValueError(f"{kind!r} needs a memory")
        if job.n_sequences == 0:
            memset(sums, 0, job.statistics_size * sizeof(double))
            return
        longest = job.offsets[job.order[0] + 1] - job.offsets[job.order[0]]
        job.n_chunks = min(
            job.n_sequences, max(8, min(MOST_CHUNKS, 2097152 // job.statistics_size))
        )
        n_threads = threads_for(block.n_threads, job.n_chunks)
        if <double>view.shape[0] * job.n_indicators * max(job.n_whitened, job.padded) < LITTLE_WORK:
            n_threads = 1
        # Asking for the time may take as long as a row does.
        job.check_rows = max(
            1, min(256, MANY_STEPS // (job.n_components * (job.n_components + job.n_whitened)))
        )
        if job.padded > 0:
            plan_product(&job, longest)
            job.workspace_size = product_size(&job, longest)
        else:
            job.workspace_size = lines(chains_size(&job, longest))
        job.check_tables = max(1, MANY_STEPS // 8 // job.n_components)
        tables = table_size(&job)
        size = times(
            8,
            tables + times(n_threads, job.workspace_size)
            + times(job.n_chunks, job.statistics_size),
        )
        room = <double*>aligned_memory(size)
        if room == NULL:
            raise MemoryError(f"no {size} bytes for the workspace of {n_threads} threads")
        lay_tables(&job, room)
        job.workspace = room + tables
        job.statistics = job.workspace + n_threads * job.workspace_size
        try:
            clear(room, 8 * (tables + n_threads * job.workspace_size), job.watch)
            raise_pending()
            n_threads = granted(n_threads)
            with nogil:
                make_tables(&job)
                if n_threads == 1:
                    work(&job)
                else:
                    for _thread in prange(
                        n_threads, schedule="static", chunksize=1, num_threads=n_threads
                    ):
                        work(&job)
            if job.watch.stop:
                raise_pending()
            for i in range(job.statistics_size):
                sums[i] = 0.0
            for chunk in range(job.n_chunks):
                halted(job.watch)
                raise_pending()
                for i in range(job.statistics_size):
                    sums[i] += job.statistics[chunk * job.statistics_size + i]
        finally:
            free_aligned(room)
    finally:
        PyBuffer_Release(&view)
