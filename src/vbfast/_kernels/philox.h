/* Counter-based uniform numbers: Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011).
 *
 * The number is a function of (seed, sweep, row, copy) alone, so draws do not depend on how rows
 * are shared out among threads.
 */
#ifndef VBFAST_PHILOX_H
#define VBFAST_PHILOX_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

/* out[i] = philox_uniform(seed, sweep, first_row + i, 0) for n_rows, a multiple of 8: in vectors. */
static inline void philox_uniforms(uint64_t seed, uint32_t sweep, uint64_t first_row,
                                   ptrdiff_t n_rows, double *out)
{
    for (ptrdiff_t first = 0; first < n_rows; first += 8) {
        /* Each 32-bit word has 64 bits to itself, as the products need them. */
        uint64_t c0[8], c1[8], c2[8], c3[8];
        uint64_t k0 = (uint32_t)seed, k1 = seed >> 32;
        for (int i = 0; i < 8; i++) {
            uint64_t row = first_row + (uint64_t)(first + i);
            c0[i] = (uint32_t)row;
            c1[i] = row >> 32;
            c2[i] = sweep;
            c3[i] = 0;
        }
        for (int round = 0; round < 10; round++) {
            for (int i = 0; i < 8; i++) {
                uint64_t a = 0xD2511F53u * c0[i];
                uint64_t b = 0xCD9E8D57u * c2[i];
                c0[i] = (b >> 32) ^ c1[i] ^ k0;
                c1[i] = (uint32_t)b;
                c2[i] = (a >> 32) ^ c3[i] ^ k1;
                c3[i] = (uint32_t)a;
            }
            k0 = (uint32_t)(k0 + 0x9E3779B9u);
            k1 = (uint32_t)(k1 + 0xBB67AE85u);
        }
        for (int i = 0; i < 8; i++) {
            /* The bits of a number in [1, 2). */
            uint64_t bits = ((c0[i] << 32 | c1[i]) >> 12) | 0x3FF0000000000000u;
            double x;
            memcpy(&x, &bits, 8);
            out[first + i] = x - 1.0;
        }
    }
}

#endif
