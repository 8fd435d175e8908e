/* What the kernels need of OpenMP, and the same without it. */
#ifndef VBFAST_THREADS_H
#define VBFAST_THREADS_H

#include <stddef.h>
#include <stdlib.h>
#if defined(_WIN32)
#include <malloc.h>
#include <windows.h>
#else
#include <time.h>
#endif

#ifdef _OPENMP
#include <omp.h>
static inline int thread_index(void) { return omp_get_thread_num(); }
static inline int openmp_threads(void) { return omp_get_max_threads(); }
static inline int openmp_version(void) { return _OPENMP; }
#else
static inline int thread_index(void) { return 0; }
static inline int openmp_threads(void) { return 1; }
static inline int openmp_version(void) { return 0; }
#endif

/* The number before this one is added; threads may do so at the same time. */
static inline ptrdiff_t add_one(ptrdiff_t *number)
{
#if defined(_WIN32)
    return (ptrdiff_t)InterlockedIncrement64((volatile LONG64 *)number) - 1;
#else
    return __atomic_fetch_add(number, 1, __ATOMIC_ACQ_REL);
#endif
}

/* What another thread has made of a number. */
static inline ptrdiff_t look_at(const ptrdiff_t *number)
{
#if defined(_WIN32)
    return *(const volatile ptrdiff_t *)number;
#else
    return __atomic_load_n(number, __ATOMIC_ACQUIRE);
#endif
}

/* Let others have the processor for a moment. */
static inline void rest(void)
{
#if defined(_WIN32)
    Sleep(1);
#else
    struct timespec moment = {0, 200000};
    nanosleep(&moment, NULL);
#endif
}

static inline double seconds(void)
{
#if defined(_WIN32)
    return (double)GetTickCount64() * 1e-3;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#endif
}

/* Memory on a cache line's boundary; size is rounded up to whole lines. NULL when there is none. */
static inline void *aligned_memory(size_t size)
{
    size = (size + 63) & ~(size_t)63;
#if defined(_WIN32)
    return _aligned_malloc(size, 64);
#else
    return aligned_alloc(64, size);
#endif
}

static inline void free_aligned(void *memory)
{
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

#endif
