# What this processor and this build can do. The only kernel module compiled for the baseline.

from .tile cimport openmp_threads, openmp_version


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
