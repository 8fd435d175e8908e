/* Counter-based uniform numbers: Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011).
 *
 * The number is a function of (seed, sweep, row, copy) alone, so draws do not depend on how rows
 * are shared out among threads.
 */
#ifndef VBFAST_PHILOX_H
#define VBFAST_PHILOX_H

#include "lanes.h"

/* uniform on [0, 1), a multiple of 2^-52 */
static inline double philox_uniform(uint64_t seed, uint32_t sweep, uint64_t row, uint32_t copy)
{
    uint32_t c0 = (uint32_t)row, c1 = (uint32_t)(row >> 32), c2 = sweep, c3 = copy;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0;
        uint64_t b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (double)((((uint64_t)c0 << 32) | c1) >> 12) * 0x1p-52;
}

/* A vector of 32-bit words, each with 64 bits to itself, as their products need them. */
#if X86_BYTES == 64
#define PHILOX_WORDS 8
#define PHILOX_PRODUCT(a, b) ((words)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
#elif X86_BYTES == 32 && defined(__AVX2__)
#define PHILOX_WORDS 4
#define PHILOX_PRODUCT(a, b) ((words)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#elif X86_BYTES > 0
#define PHILOX_WORDS 2
#define PHILOX_PRODUCT(a, b) ((words)_mm_mul_epu32((__m128i)(a), (__m128i)(b)))
#elif LANES > 1
#define PHILOX_WORDS 2
#define PHILOX_PRODUCT(a, b) ((a) * (b))
#endif
#ifdef PHILOX_WORDS
typedef uint64_t words __attribute__((vector_size(8 * PHILOX_WORDS)));
typedef double uniforms __attribute__((vector_size(8 * PHILOX_WORDS)));
#endif

/* out[i] = philox_uniform(seed, sweep, first_row + i, 0) for n_rows, a multiple of 8. */
static inline void philox_uniforms(uint64_t seed, uint32_t sweep, uint64_t first_row,
                                   ptrdiff_t n_rows, double *out)
{
#ifdef PHILOX_WORDS
    const words low = (words){0} + 0xFFFFFFFFu;
    const words multiplier_a = (words){0} + 0xD2511F53u, multiplier_b = (words){0} + 0xCD9E8D57u;
    static const uint64_t upward[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    words places;
    memcpy(&places, upward, sizeof places);
    for (ptrdiff_t first = 0; first < n_rows; first += PHILOX_WORDS) {
        words row = places + (first_row + (uint64_t)first);
        words c0 = row & low, c1 = row >> 32, c2 = (words){0} + sweep, c3 = {0};
        uint64_t k0 = (uint32_t)seed, k1 = seed >> 32;
        for (int round = 0; round < 10; round++) {
            words a = PHILOX_PRODUCT(multiplier_a, c0), b = PHILOX_PRODUCT(multiplier_b, c2);
            c0 = (b >> 32) ^ c1 ^ k0;
            c1 = b & low;
            c2 = (a >> 32) ^ c3 ^ k1;
            c3 = a & low;
            k0 = (uint32_t)(k0 + 0x9E3779B9u);
            k1 = (uint32_t)(k1 + 0xBB67AE85u);
        }
        /* The bits of numbers in [1, 2). */
        c0 = ((c0 << 32 | c1) >> 12) | 0x3FF0000000000000u;
        uniforms u = (uniforms)c0 - 1.0;
        memcpy(out + first, &u, sizeof u);
    }
#else
    for (ptrdiff_t i = 0; i < n_rows; i++)
        out[i] = philox_uniform(seed, sweep, first_row + (uint64_t)i, 0);
#endif
}

#endif
