/* Squares of a row-major array, centred, scaled and transposed. */
#ifndef VBFAST_TRANSPOSE_H
#define VBFAST_TRANSPOSE_H

#include "lanes.h"

/* Rows and most columns of a square; 0 where there is no instruction for it. */
#if X86_BYTES == 64
#define SQUARE 8
#elif X86_BYTES == 32 && defined(__AVX2__)
#define SQUARE 4
#else
#define SQUARE 0
#endif

/* out[column * stride + row] = (rows[row][column] - origin[column]) * scale[column] for SQUARE
 * rows of n <= SQUARE adjacent columns, float if single, else double. What lies `ahead` bytes
 * further is fetched towards the processor, for the next tile.
 */
static inline void gather_square(const char *const *rows, int single, ptrdiff_t n,
                                 const double *origin, const double *scale, ptrdiff_t ahead,
                                 real *out, ptrdiff_t stride)
{
#if SQUARE == 8
    __mmask8 some = (__mmask8)((1u << n) - 1);
    __m512d row[8], pair[8], column[8];
    for (int i = 0; i < 8; i++) {
        const char *from = rows[i];
        __builtin_prefetch(from + ahead, 0, 2);
        row[i] = single ? _mm512_cvtps_pd(_mm256_maskz_loadu_ps(some, from))
                        : _mm512_maskz_loadu_pd(some, from);
    }
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm512_unpacklo_pd(row[i], row[i + 1]);
        pair[i + 1] = _mm512_unpackhi_pd(row[i], row[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        __m512d low_a = _mm512_shuffle_f64x2(pair[i], pair[i + 2], 0x44);
        __m512d low_b = _mm512_shuffle_f64x2(pair[i + 4], pair[i + 6], 0x44);
        column[i] = _mm512_shuffle_f64x2(low_a, low_b, 0x88);
        column[i + 2] = _mm512_shuffle_f64x2(low_a, low_b, 0xDD);
        if (n > 4) {
            __m512d high_a = _mm512_shuffle_f64x2(pair[i], pair[i + 2], 0xEE);
            __m512d high_b = _mm512_shuffle_f64x2(pair[i + 4], pair[i + 6], 0xEE);
            column[i + 4] = _mm512_shuffle_f64x2(high_a, high_b, 0x88);
            column[i + 6] = _mm512_shuffle_f64x2(high_a, high_b, 0xDD);
        }
    }
    for (int i = 0; i < 8; i++) {
        if (i >= n)
            break;
        __m512d x = (column[i] - _mm512_set1_pd(origin[i])) * _mm512_set1_pd(scale[i]);
#ifdef VBFAST_SINGLE
        _mm256_storeu_ps(out + i * stride, _mm512_cvtpd_ps(x));
#else
        _mm512_storeu_pd(out + i * stride, x);
#endif
    }
#elif SQUARE == 4
    static const int32_t mask[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
    __m128i some = _mm_loadu_si128((const __m128i *)(mask + 4 - n));
    __m256d row[4], pair[4], column[4];
    for (int i = 0; i < 4; i++) {
        const char *from = rows[i];
        __builtin_prefetch(from + ahead, 0, 2);
        row[i] = single ? _mm256_cvtps_pd(_mm_maskload_ps((const float *)from, some))
                        : _mm256_maskload_pd((const double *)from, _mm256_cvtepi32_epi64(some));
    }
    for (int i = 0; i < 4; i += 2) {
        pair[i] = _mm256_unpacklo_pd(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_pd(row[i], row[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        column[i] = _mm256_permute2f128_pd(pair[i], pair[i + 2], 0x20);
        column[i + 2] = _mm256_permute2f128_pd(pair[i], pair[i + 2], 0x31);
    }
    for (int i = 0; i < 4; i++) {
        if (i >= n)
            break;
        __m256d x = (column[i] - _mm256_set1_pd(origin[i])) * _mm256_set1_pd(scale[i]);
#ifdef VBFAST_SINGLE
        _mm_storeu_ps(out + i * stride, _mm256_cvtpd_ps(x));
#else
        _mm256_storeu_pd(out + i * stride, x);
#endif
    }
#endif
}

/* The same of rows that are row_stride bytes apart. */
static inline void read_square(const char *values, ptrdiff_t row_stride, int single, ptrdiff_t n,
                               const double *origin, const double *scale, ptrdiff_t ahead,
                               real *out, ptrdiff_t stride)
{
    const char *rows[SQUARE + 1];
    for (int i = 0; i < SQUARE; i++)
        rows[i] = values + i * row_stride;
    gather_square(rows, single, n, origin, scale, ahead, out, stride);
}

#endif
