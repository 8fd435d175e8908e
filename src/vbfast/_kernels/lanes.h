/* The vector of doubles that one SIMD level works on, with exp and log on it.
 *
 * `lanes` is 8, 4 or 2 doubles wide where the compiler has vector extensions and one double where
 * it has none: the kernels are the same code for every width. Cython is told that `lanes` is a
 * double, so plain arithmetic in a .pyx becomes one vector instruction.
 */
#ifndef VBFAST_LANES_H
#define VBFAST_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(VBFAST_SCALAR)
#if defined(__AVX512F__)
#define LANES 8
#elif defined(__AVX__)
#define LANES 4
#else
#define LANES 2
#endif
#else
#define LANES 1
#endif

#if defined(__x86_64__) && LANES > 1
#include <immintrin.h>
#endif

#if LANES > 1

/* may_alias: tiles are plain double arrays that are read and written as vectors. */
typedef double lanes __attribute__((vector_size(8 * LANES), may_alias));
typedef int64_t lanes_bits __attribute__((vector_size(8 * LANES), may_alias));

/* One broadcast: x - 0 is x, and compilers know it. */
#define lanes_set(x) ((double)(x) - (lanes){0})
#define lanes_bits_set(x) ((int64_t)(x) - (lanes_bits){0})

#if LANES == 8
static inline lanes lanes_max(lanes a, lanes b) { return (lanes)_mm512_max_pd((__m512d)a, (__m512d)b); }
static inline double lanes_sum(lanes a) { return _mm512_reduce_add_pd((__m512d)a); }
#elif LANES == 4
static inline lanes lanes_max(lanes a, lanes b) { return (lanes)_mm256_max_pd((__m256d)a, (__m256d)b); }
static inline double lanes_sum(lanes a) { return (a[0] + a[2]) + (a[1] + a[3]); }
#else
static inline lanes lanes_max(lanes a, lanes b)
{
    lanes_bits greater = a > b;
    return (lanes)(((lanes_bits)a & greater) | ((lanes_bits)b & ~greater));
}
static inline double lanes_sum(lanes a) { return a[0] + a[1]; }
#endif

/* value where x >= limit, else 0 */
static inline lanes lanes_keep_from(lanes value, lanes x, double limit)
{
    return (lanes)((lanes_bits)value & (x >= lanes_set(limit)));
}

/* value where low <= x < high, else 0 */
static inline lanes lanes_keep_between(lanes value, lanes low, lanes x, lanes high)
{
    return (lanes)((lanes_bits)value & (low <= x) & (x < high));
}

static inline lanes_bits lanes_to_bits(lanes x) { return (lanes_bits)x; }
static inline lanes lanes_from_bits(lanes_bits x) { return (lanes)x; }

#else

typedef double lanes;
typedef int64_t lanes_bits;
#define lanes_set(x) ((double)(x))
#define lanes_bits_set(x) ((int64_t)(x))
static inline lanes lanes_max(lanes a, lanes b) { return a > b ? a : b; }
static inline double lanes_sum(lanes a) { return a; }
static inline lanes lanes_keep_from(lanes value, lanes x, double limit) { return x >= limit ? value : 0.0; }
static inline lanes lanes_keep_between(lanes value, lanes low, lanes x, lanes high)
{
    return low <= x && x < high ? value : 0.0;
}
static inline lanes_bits lanes_to_bits(lanes x) { lanes_bits b; memcpy(&b, &x, 8); return b; }
static inline lanes lanes_from_bits(lanes_bits b) { lanes x; memcpy(&x, &b, 8); return x; }

#endif

/* first[j] += sum of a_j's lanes, second[j] += sum of b_j's, j = 0..3: eight sums by one tree. */
static inline void lanes_add_sums(lanes a0, lanes a1, lanes a2, lanes a3, lanes b0, lanes b1,
                                  lanes b2, lanes b3, double *first, double *second)
{
#if LANES == 8
#define PAIR(x, y) \
    _mm512_add_pd(_mm512_unpacklo_pd((__m512d)(x), (__m512d)(y)), \
                  _mm512_unpackhi_pd((__m512d)(x), (__m512d)(y)))
#define FOUR(x, y) \
    _mm512_add_pd(_mm512_shuffle_f64x2(x, y, 0x44), _mm512_shuffle_f64x2(x, y, 0xEE))
    __m512d a = FOUR(PAIR(a0, a1), PAIR(a2, a3));
    __m512d b = FOUR(PAIR(b0, b1), PAIR(b2, b3));
    __m512d all = _mm512_add_pd(_mm512_shuffle_f64x2(a, b, 0x88), _mm512_shuffle_f64x2(a, b, 0xDD));
    _mm256_storeu_pd(first, _mm256_add_pd(_mm256_loadu_pd(first), _mm512_castpd512_pd256(all)));
    _mm256_storeu_pd(second,
                     _mm256_add_pd(_mm256_loadu_pd(second), _mm512_extractf64x4_pd(all, 1)));
#undef PAIR
#undef FOUR
#elif LANES == 4
#define FOUR(x0, x1, x2, x3) \
    __m256d x0##low = _mm256_hadd_pd((__m256d)(x0), (__m256d)(x1)); \
    __m256d x0##high = _mm256_hadd_pd((__m256d)(x2), (__m256d)(x3)); \
    __m256d x0##sums = _mm256_add_pd(_mm256_permute2f128_pd(x0##low, x0##high, 0x20), \
                                     _mm256_permute2f128_pd(x0##low, x0##high, 0x31))
    FOUR(a0, a1, a2, a3);
    FOUR(b0, b1, b2, b3);
    _mm256_storeu_pd(first, _mm256_add_pd(_mm256_loadu_pd(first), a0sums));
    _mm256_storeu_pd(second, _mm256_add_pd(_mm256_loadu_pd(second), b0sums));
#undef FOUR
#else
    first[0] += lanes_sum(a0);
    first[1] += lanes_sum(a1);
    first[2] += lanes_sum(a2);
    first[3] += lanes_sum(a3);
    second[0] += lanes_sum(b0);
    second[1] += lanes_sum(b1);
    second[2] += lanes_sum(b2);
    second[3] += lanes_sum(b3);
#endif
}

/* exp(x) for x <= 709, within 2 ulp; 0 below -708, where the result would leave the normal range.
 *
 * x = n log 2 + r with |r| <= log(2)/2, n taken from the low bits of x/log 2 + 1.5 2^52; exp(r) by
 * its Taylor polynomial of degree 13 (remainder < 5e-18), 2^n added to the exponent's bits.
 */
static inline lanes lanes_exp(lanes x)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    lanes shifted = x * 1.4426950408889634 + magic;
    lanes n = shifted - magic;
    lanes r = x - n * 6.93147180369123816490e-01;
    r = r - n * 1.90821492927058770002e-10;
    lanes p = lanes_set(1.6059043836821613e-10);
    p = p * r + 2.08767569878681e-09;
    p = p * r + 2.505210838544172e-08;
    p = p * r + 2.7557319223985893e-07;
    p = p * r + 2.7557319223985893e-06;
    p = p * r + 2.48015873015873e-05;
    p = p * r + 1.984126984126984e-04;
    p = p * r + 1.388888888888889e-03;
    p = p * r + 8.333333333333333e-03;
    p = p * r + 4.1666666666666664e-02;
    p = p * r + 1.6666666666666666e-01;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    p = lanes_from_bits(lanes_to_bits(p) + (lanes_to_bits(shifted) << 52));
    return lanes_keep_from(p, x, -708.0);
}

/* log(x) for finite normal x > 0, within 2 ulp; log(0) comes out below -708, callers test for it.
 *
 * x = 2^e m with sqrt(1/2) <= m < sqrt(2); log m = 2 artanh(f), f = (m-1)/(m+1), |f| < 0.1716,
 * by the series 2f (1 + f^2/3 + ... + f^20/21).
 */
static inline lanes lanes_log(lanes x)
{
    /* Subtracting the bits of sqrt(1/2) makes the exponent field count from that point. */
    const int64_t root_half = 0x3FE6A09E667F3BCDLL;
    lanes_bits bits = lanes_to_bits(x);
    lanes_bits exponent = (bits - lanes_bits_set(root_half)) >> 52;
    lanes m = lanes_from_bits(bits - (exponent << 52));
    /* e as a double: its integer is put into the low bits of 1.5 2^52. */
    lanes e = lanes_from_bits(exponent + lanes_bits_set(0x4338000000000000LL)) - 6755399441055744.0;
    lanes f = (m - 1.0) / (m + 1.0);
    lanes s = f * f;
    lanes p = lanes_set(1.0 / 21.0);
    p = p * s + 1.0 / 19.0;
    p = p * s + 1.0 / 17.0;
    p = p * s + 1.0 / 15.0;
    p = p * s + 1.0 / 13.0;
    p = p * s + 1.0 / 11.0;
    p = p * s + 1.0 / 9.0;
    p = p * s + 1.0 / 7.0;
    p = p * s + 1.0 / 5.0;
    p = p * s + 1.0 / 3.0;
    /* log m = 2f + 2f s p, the small part added last. */
    lanes small = e * 1.90821492927058770002e-10 + 2.0 * f * s * p;
    return e * 6.93147180369123816490e-01 + (2.0 * f + small);
}

#endif
