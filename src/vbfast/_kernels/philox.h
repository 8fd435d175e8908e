/* Counter-based uniform numbers: Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011).
 *
 * The number is a function of (seed, sweep, row, copy) alone, so draws do not depend on how rows
 * are shared out among threads.
 */
#ifndef VBFAST_PHILOX_H
#define VBFAST_PHILOX_H

#include <stdint.h>

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

#endif
