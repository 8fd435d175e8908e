/* The vector type that one SIMD level works on, with exp and log on it.
 *
 * `real` is double, or float where VBFAST_SINGLE is defined: kernels are compiled for both. `lanes`
 * is a vector of LANES of them, 64, 32 or 16 bytes wide, where the compiler has vector extensions,
 * and one number where it has none: kernels are the same code for every width. Cython is told that
 * `lanes` is a number, so plain arithmetic in a .pyx becomes one vector instruction.
 */
#ifndef VBFAST_LANES_H
#define VBFAST_LANES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef VBFAST_SINGLE
typedef float real;
typedef int32_t real_bits;
typedef uint32_t real_words;
#else
typedef double real;
typedef int64_t real_bits;
typedef uint64_t real_words;
#endif

#if (defined(__GNUC__) || defined(__clang__)) && !defined(VBFAST_SCALAR)
#if defined(__AVX512F__)
#define LANE_BYTES 64
#elif defined(__AVX__)
#define LANE_BYTES 32
#else
#define LANE_BYTES 16
#endif
#if defined(__x86_64__)
#define X86_BYTES LANE_BYTES
#endif
#ifdef VBFAST_SINGLE
#define LANES (LANE_BYTES / 4)
#else
#define LANES (LANE_BYTES / 8)
#endif
#else
#define LANES 1
#endif

#ifndef X86_BYTES
#define X86_BYTES 0
#else
#include <immintrin.h>
/* Vectors and instructions on `real`. */
#ifdef VBFAST_SINGLE
#define MM256(name) _mm256_##name##_ps
#define MM512(name) _mm512_##name##_ps
#define M256(x) ((__m256)(x))
#define M512(x) ((__m512)(x))
#define EQUAL512(x, y) _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ)
#define ABOVE512(x, y) _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ)
#define FROM512(x, y) _mm512_cmp_ps_mask(x, y, _CMP_GE_OQ)
#else
#define MM256(name) _mm256_##name##_pd
#define MM512(name) _mm512_##name##_pd
#define M256(x) ((__m256d)(x))
#define M512(x) ((__m512d)(x))
#define EQUAL512(x, y) _mm512_cmp_pd_mask(x, y, _CMP_EQ_OQ)
#define ABOVE512(x, y) _mm512_cmp_pd_mask(x, y, _CMP_GT_OQ)
#define FROM512(x, y) _mm512_cmp_pd_mask(x, y, _CMP_GE_OQ)
#endif
#endif

#if LANES > 1

/* may_alias: tiles are plain arrays that are read and written as vectors. */
typedef real lanes __attribute__((vector_size(LANE_BYTES), may_alias));
typedef real_bits lanes_bits __attribute__((vector_size(LANE_BYTES), may_alias));
/* Bits that are added and shifted as they come: of signed ones overflow would have no meaning. */
typedef real_words lanes_words __attribute__((vector_size(LANE_BYTES), may_alias));

/* The same where it need not lie on a boundary of its own size. */
typedef real loose_lanes __attribute__((vector_size(LANE_BYTES), may_alias, aligned(sizeof(real))));

/* One broadcast: x - 0 is x, and compilers know it. */
#define lanes_set(x) ((real)(x) - (lanes){0})
#define lanes_bits_set(x) ((real_bits)(x) - (lanes_bits){0})

#if X86_BYTES == 64
static inline lanes lanes_max(lanes a, lanes b) { return (lanes)MM512(max)(M512(a), M512(b)); }
static inline lanes lanes_min(lanes a, lanes b) { return (lanes)MM512(min)(M512(a), M512(b)); }
#elif X86_BYTES == 32
static inline lanes lanes_max(lanes a, lanes b) { return (lanes)MM256(max)(M256(a), M256(b)); }
static inline lanes lanes_min(lanes a, lanes b) { return (lanes)MM256(min)(M256(a), M256(b)); }
#else
static inline lanes lanes_max(lanes a, lanes b)
{
    lanes_bits greater = a > b;
    return (lanes)(((lanes_bits)a & greater) | ((lanes_bits)b & ~greater));
}
static inline lanes lanes_min(lanes a, lanes b)
{
    lanes_bits less = a < b;
    return (lanes)(((lanes_bits)a & less) | ((lanes_bits)b & ~less));
}
#endif

/* value where x >= limit, else 0 */
static inline lanes lanes_keep_from(lanes value, lanes x, lanes limit)
{
    return (lanes)((lanes_bits)value & (x >= limit));
}

/* value where x > limit, else 0 */
static inline lanes lanes_keep_above(lanes value, lanes x, lanes limit)
{
    return (lanes)((lanes_bits)value & (x > limit));
}

/* value where low <= x < high, else 0 */
static inline lanes lanes_keep_between(lanes value, lanes low, lanes x, lanes high)
{
    return (lanes)((lanes_bits)value & (low <= x) & (x < high));
}

/* total + value where x >= limit, else total */
static inline lanes lanes_add_from(lanes total, lanes value, lanes x, lanes limit)
{
#if X86_BYTES == 64
    return (lanes)MM512(mask_add)(M512(total), FROM512(M512(x), M512(limit)), M512(total),
                                  M512(value));
#else
    return total + lanes_keep_from(value, x, limit);
#endif
}

/* new where x == y, else old */
static inline lanes lanes_replace_equal(lanes old, lanes new, lanes x, lanes y)
{
#if X86_BYTES == 64
    return (lanes)MM512(mask_mov)(M512(old), EQUAL512(M512(x), M512(y)), M512(new));
#else
    lanes_bits equal = x == y;
    return (lanes)(((lanes_bits)new & equal) | ((lanes_bits)old & ~equal));
#endif
}

/* new where x >= y, else old */
static inline lanes lanes_replace_from(lanes old, lanes new, lanes x, lanes y)
{
#if X86_BYTES == 64
    return (lanes)MM512(mask_mov)(M512(old), FROM512(M512(x), M512(y)), M512(new));
#else
    lanes_bits from = x >= y;
    return (lanes)(((lanes_bits)new & from) | ((lanes_bits)old & ~from));
#endif
}

/* new where x > y, else old */
static inline lanes lanes_replace_above(lanes old, lanes new, lanes x, lanes y)
{
#if X86_BYTES == 64
    return (lanes)MM512(mask_mov)(M512(old), ABOVE512(M512(x), M512(y)), M512(new));
#else
    lanes_bits above = x > y;
    return (lanes)(((lanes_bits)new & above) | ((lanes_bits)old & ~above));
#endif
}

static inline lanes_bits lanes_to_bits(lanes x) { return (lanes_bits)x; }
static inline lanes lanes_from_bits(lanes_bits x) { return (lanes)x; }

#else

typedef real lanes;
typedef real loose_lanes;
typedef real_bits lanes_bits;
typedef real_words lanes_words;
#define lanes_set(x) ((real)(x))
#define lanes_bits_set(x) ((real_bits)(x))
static inline lanes lanes_max(lanes a, lanes b) { return a > b ? a : b; }
static inline lanes lanes_min(lanes a, lanes b) { return a < b ? a : b; }
static inline lanes lanes_keep_from(lanes value, lanes x, lanes limit)
{
    return x >= limit ? value : 0;
}
static inline lanes lanes_add_from(lanes total, lanes value, lanes x, lanes limit)
{
    return x >= limit ? total + value : total;
}
static inline lanes lanes_keep_above(lanes value, lanes x, lanes limit)
{
    return x > limit ? value : 0;
}
static inline lanes lanes_keep_between(lanes value, lanes low, lanes x, lanes high)
{
    return low <= x && x < high ? value : 0;
}
static inline lanes lanes_replace_above(lanes old, lanes new, lanes x, lanes y)
{
    return x > y ? new : old;
}
static inline lanes lanes_replace_from(lanes old, lanes new, lanes x, lanes y)
{
    return x >= y ? new : old;
}
static inline lanes lanes_replace_equal(lanes old, lanes new, lanes x, lanes y)
{
    return x == y ? new : old;
}
static inline lanes_bits lanes_to_bits(lanes x)
{
    lanes_bits bits;
    memcpy(&bits, &x, sizeof x);
    return bits;
}
static inline lanes lanes_from_bits(lanes_bits bits)
{
    lanes x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#endif

/* Load a vector into a register.
 *
 * gcc folds a load into each multiply-add that uses it, and then the loads, of which a processor
 * has two a cycle, take longer than the multiply-adds.
 */
static inline lanes lanes_load(const lanes *from)
{
    lanes x = *from;
#if X86_BYTES == 64
    __asm__("" : "+v"(x));
#elif X86_BYTES > 0
    __asm__("" : "+x"(x));
#endif
    return x;
}

/* The sum of a vector's lanes. */
static inline double lanes_sum(lanes a)
{
#if X86_BYTES == 64
    return MM512(reduce_add)(M512(a));
#else
    real parts[LANES];
    memcpy(parts, &a, sizeof a);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            parts[i] += parts[i + half];
    return parts[0];
#endif
}

/* How many of n numbers are above a limit; n is a multiple of LANES. */
static inline ptrdiff_t count_above(const real *values, ptrdiff_t n, double limit)
{
    const lanes one = lanes_set(1.0), most = lanes_set(limit);
    lanes total = lanes_set(0.0);
    for (ptrdiff_t v = 0; v < n / LANES; v++)
        total += lanes_keep_above(one, ((const lanes *)values)[v], most);
    return (ptrdiff_t)lanes_sum(total);
}

/* first[j] += sum of a_j's lanes, second[j] += sum of b_j's, j = 0..3: eight sums by one tree.
 *
 * Shuffles have one port only: where a blend does as well, it is taken.
 */
static inline void lanes_add_sums(lanes a0, lanes a1, lanes a2, lanes a3, lanes b0, lanes b1,
                                  lanes b2, lanes b3, double *first, double *second)
{
#if X86_BYTES == 64
#ifdef VBFAST_SINGLE
    /* [x0 + x2, y0 + y2, x1 + x3, y1 + y3] in each quarter; then the sums of four in each. */
#define PAIR(x, y) \
    ((__m512d)(_mm512_unpacklo_ps((__m512)(x), (__m512)(y)) + \
               _mm512_unpackhi_ps((__m512)(x), (__m512)(y))))
#define QUAD(x, y) ((__m512)_mm512_unpacklo_pd(x, y) + (__m512)_mm512_unpackhi_pd(x, y))
    __m512 a = QUAD(PAIR(a0, a1), PAIR(a2, a3));
    __m512 b = QUAD(PAIR(b0, b1), PAIR(b2, b3));
    __m512d all = (__m512d)(_mm512_mask_blend_ps(0xFF00, a, b) + _mm512_shuffle_f32x4(a, b, 0x4E));
    __m256 low = (__m256)_mm512_castpd512_pd256(all);
    __m256 high = (__m256)_mm512_extractf64x4_pd(all, 1);
    __m256d sums_a = _mm256_cvtps_pd(_mm256_castps256_ps128(low) + _mm256_extractf128_ps(low, 1));
    __m256d sums_b = _mm256_cvtps_pd(_mm256_castps256_ps128(high) + _mm256_extractf128_ps(high, 1));
#undef QUAD
#else
    /* [x0 + x1, y0 + y1] in each quarter; then both pairs' quarters, added by twos. */
#define PAIR(x, y) \
    (_mm512_mask_blend_pd(0xAA, (__m512d)(x), (__m512d)(y)) + \
     _mm512_shuffle_pd((__m512d)(x), (__m512d)(y), 0x55))
#define FOUR(x, y) (_mm512_mask_blend_pd(0xF0, x, y) + _mm512_shuffle_f64x2(x, y, 0x4E))
    __m512d pair_a = PAIR(a0, a1), pair_b = PAIR(a2, a3);
    __m512d pair_c = PAIR(b0, b1), pair_d = PAIR(b2, b3);
    __m512d a = FOUR(pair_a, pair_b), b = FOUR(pair_c, pair_d);
    __m512d all = _mm512_shuffle_f64x2(a, b, 0x88) + _mm512_shuffle_f64x2(a, b, 0xDD);
    __m256d sums_a = _mm512_castpd512_pd256(all);
    __m256d sums_b = _mm512_extractf64x4_pd(all, 1);
#undef FOUR
#endif
#undef PAIR
    _mm256_storeu_pd(first, _mm256_loadu_pd(first) + sums_a);
    _mm256_storeu_pd(second, _mm256_loadu_pd(second) + sums_b);
#elif X86_BYTES == 32
#ifdef VBFAST_SINGLE
#define FOUR(x0, x1, x2, x3) \
    _mm256_hadd_ps(_mm256_hadd_ps((__m256)(x0), (__m256)(x1)), \
                   _mm256_hadd_ps((__m256)(x2), (__m256)(x3)))
    __m256 a = FOUR(a0, a1, a2, a3), b = FOUR(b0, b1, b2, b3);
    __m256d sums_a = _mm256_cvtps_pd(_mm256_castps256_ps128(a) + _mm256_extractf128_ps(a, 1));
    __m256d sums_b = _mm256_cvtps_pd(_mm256_castps256_ps128(b) + _mm256_extractf128_ps(b, 1));
#undef FOUR
#else
#define TWO(x, y) _mm256_hadd_pd((__m256d)(x), (__m256d)(y))
#define FOUR(x, y) (_mm256_permute2f128_pd(x, y, 0x20) + _mm256_permute2f128_pd(x, y, 0x31))
    __m256d sums_a = FOUR(TWO(a0, a1), TWO(a2, a3)), sums_b = FOUR(TWO(b0, b1), TWO(b2, b3));
#undef FOUR
#undef TWO
#endif
    _mm256_storeu_pd(first, _mm256_loadu_pd(first) + sums_a);
    _mm256_storeu_pd(second, _mm256_loadu_pd(second) + sums_b);
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

/* A Horner step with a constant. */
#define STEP(p, x, c) ((p) * (x) + lanes_set(c))

/* exp(x), within 2 ulp, for x <= 709 (float: 88); 0 below -708 (float: -87), where the result would
 * leave the normal range.
 *
 * x = n log 2 + r with |r| <= log(2)/2, n taken from the low bits of x/log 2 + 1.5 2^52 (2^23);
 * exp(r) = 1 + r + r^2 g(r), g interpolated at Chebyshev's points, degree 11 (6) in all, relative
 * error 1.7e-17 (1e-8); 2^n added to the exponent's bits.
 */
static inline lanes lanes_exp(lanes x)
{
#ifdef VBFAST_SINGLE
    const lanes magic = lanes_set(12582912.0f), lowest = lanes_set(-87.0f);
    const lanes log2_high = lanes_set(0.693359375f), log2_low = lanes_set(-2.12194440e-4f);
    const int mantissa = 23;
#else
    const lanes magic = lanes_set(6755399441055744.0), lowest = lanes_set(-708.0);
    const lanes log2_high = lanes_set(6.93147180369123816490e-01);
    const lanes log2_low = lanes_set(1.90821492927058770002e-10);
    const int mantissa = 52;
#endif
    lanes shifted = x * lanes_set(1.4426950408889634) + magic;
    lanes n = shifted - magic;
    lanes r = x - n * log2_high;
    r = r - n * log2_low;
#ifdef VBFAST_SINGLE
    lanes p = lanes_set(0.0013926183587713494);
    p = STEP(p, r, 0.008363179052722578);
    p = STEP(p, r, 0.041666554617204574);
    p = STEP(p, r, 0.16666576989698775);
    p = STEP(p, r, 0.5);
#else
    lanes p = lanes_set(2.510038549551032e-08);
    p = STEP(p, r, 2.7620088445409746e-07);
    p = STEP(p, r, 2.7557268459997064e-06);
    p = STEP(p, r, 2.4801521295954376e-05);
    p = STEP(p, r, 0.00019841269863053618);
    p = STEP(p, r, 0.0013888888917213717);
    p = STEP(p, r, 0.008333333333330062);
    p = STEP(p, r, 0.04166666666662413);
    p = STEP(p, r, 0.16666666666666669);
    p = STEP(p, r, 0.5000000000000001);
#endif
    p = STEP(p, r, 1.0);
    p = STEP(p, r, 1.0);
    p = lanes_from_bits((lanes_bits)((lanes_words)lanes_to_bits(p)
                                     + ((lanes_words)lanes_to_bits(shifted) << mantissa)));
    return lanes_keep_from(p, x, lowest);
}

/* log(x) for finite normal x > 0, within 2 ulp; log(0) comes out below -708 (float: -87).
 *
 * x = 2^e m with sqrt(1/2) <= m < sqrt(2); log m = 2 artanh(f), f = (m-1)/(m+1), |f| < 0.1716,
 * by the series 2f (1 + f^2/3 + ... + f^20/21) (float: f^8/9).
 */
static inline lanes lanes_log(lanes x)
{
#ifdef VBFAST_SINGLE
    const lanes_bits root_half = lanes_bits_set(0x3F3504F3);
    const lanes_bits magic_bits = lanes_bits_set(0x4B400000);
    const lanes magic = lanes_set(12582912.0f);
    const lanes log2_high = lanes_set(0.693359375f), log2_low = lanes_set(-2.12194440e-4f);
    const int mantissa = 23;
#else
    const lanes_bits root_half = lanes_bits_set(0x3FE6A09E667F3BCDLL);
    const lanes_bits magic_bits = lanes_bits_set(0x4338000000000000LL);
    const lanes magic = lanes_set(6755399441055744.0);
    const lanes log2_high = lanes_set(6.93147180369123816490e-01);
    const lanes log2_low = lanes_set(1.90821492927058770002e-10);
    const int mantissa = 52;
#endif
    /* Subtracting the bits of sqrt(1/2) makes the exponent field count from that point. */
    lanes_bits bits = lanes_to_bits(x);
    lanes_bits exponent = (lanes_bits)((lanes_words)bits - (lanes_words)root_half) >> mantissa;
    lanes m = lanes_from_bits(
        (lanes_bits)((lanes_words)bits - ((lanes_words)exponent << mantissa)));
    /* e as a number: its integer is put into the low bits of the magic one. */
    lanes e = lanes_from_bits(exponent + magic_bits) - magic;
    lanes f = (m - lanes_set(1.0)) / (m + lanes_set(1.0));
    lanes s = f * f, twice = f + f;
#ifdef VBFAST_SINGLE
    lanes p = lanes_set(1.0 / 9.0);
#else
    lanes p = lanes_set(1.0 / 21.0);
    p = STEP(p, s, 1.0 / 19.0);
    p = STEP(p, s, 1.0 / 17.0);
    p = STEP(p, s, 1.0 / 15.0);
    p = STEP(p, s, 1.0 / 13.0);
    p = STEP(p, s, 1.0 / 11.0);
    p = STEP(p, s, 1.0 / 9.0);
#endif
    p = STEP(p, s, 1.0 / 7.0);
    p = STEP(p, s, 1.0 / 5.0);
    p = STEP(p, s, 1.0 / 3.0);
    /* log m = 2f + 2f s p, the small part added last. */
    lanes small = e * log2_low + twice * s * p;
    return e * log2_high + (twice + small);
}

#endif
