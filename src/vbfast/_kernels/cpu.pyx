# What this processor and this build can do. The only kernel module compiled for the baseline.

from .tile cimport openmp_threads, openmp_version


cdef extern from "Python.h":
    # Clips, where it is told no exception to raise.
    Py_ssize_t PyNumber_AsSsize_t(object number, void* exception) except? -1


cdef extern from "team.h":
    const int team_most
    const int team_forked
    void team_start()
    int team_granted(int n_threads)


cdef extern from *:
    """
    #if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    /* The level names need newer compilers; features are what every compiler can ask for. */
    static int cpu_level(void)
    {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512cd"))
            return 4;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
            && __builtin_cpu_supports("bmi2"))
            return 3;
        return 2;
    }
    #else
    static int cpu_level(void) { return 0; }
    #endif
    """
    int cpu_level() nogil


def level():
    """The highest x86-64 level (4, 3 or 2) of this processor; 0 on another architecture."""
    return cpu_level()


def openmp():
    """Version date of OpenMP that the build uses (for example 201511), or 0 without it."""
    return openmp_version()


def default_threads():
    """Threads that OpenMP would take by itself (it reads OMP_NUM_THREADS); 1 without it."""
    return openmp_threads()


team_start()


def most_threads():
    """Threads that a call is given at most: some for each processor."""
    return team_most


def forked():
    """Whether this process is a fork: OpenMP's threads did not come along."""
    return team_forked != 0


cdef int threads_for(object wanted, Py_ssize_t n_pieces) except -1:
    """Threads for pieces of work: one each at most, and no more than the machine is good for."""
    cdef Py_ssize_t n = PyNumber_AsSsize_t(wanted, NULL)  # the largest there is, where it is larger
    if n < 1:
        raise ValueError(f"n_threads is {wanted!r}; it must be >= 1")
    return <int>max(1, min(n, team_most, n_pieces))


cdef int granted(int n_threads) except -1:
    """Threads that a region may have: these, or where they can't be had, with a warning, 1.

    To be asked right before the region, after all memory is taken.
    """
    cdef int n = team_granted(n_threads)
    if n > 0:
        return n
    import warnings

    from vbfast.exceptions import ThreadsWarning

    warnings.warn(
        f"{n_threads} threads can't be had (limits on processes or memory): going on with one",
        ThreadsWarning,
        stacklevel=1,
    )
    return 1
