/* What all kernels share: vector helpers, and the number formats.
 *
 * Every function computes a row of its output from that row of its input alone, in an order of operations that depends on
 * nothing else: results are the same bits whatever else is in the batch, and however many threads there are. */
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16; /* the upper half of a float32 */

#define GROUP 32                 /* columns of weights that one thread takes at a time */
#define MAX_BLOCK 128            /* most rows of a block */
#define BLOCK_BYTES (512 * 1024) /* of x in a block: half of a second-level cache */

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 load_bf16(const bf16 *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

INLINE __m512 maskload_bf16(__mmask16 mask, const bf16 *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}

/* Round to nearest even in integers, as torch does: VCVTNEPS2BF16 would flush subnormal numbers. */
INLINE __m256i to_bf16(__m512 x) {
  __m512i bits = _mm512_castps_si512(x);
  __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff))), 16);
  __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_set1_epi32(rounded, is_nan, 0x7fc0));
}

INLINE __mmask16 first_lanes16(int n) { return n >= 16 ? (__mmask16)-1 : (__mmask16)((1u << n) - 1); }

INLINE __mmask32 first_lanes32(int n) { return n >= 32 ? (__mmask32)-1 : (__mmask32)((1ull << n) - 1); }

INLINE __mmask64 first_lanes64(int n) { return n >= 64 ? (__mmask64)-1 : (__mmask64)((1ull << n) - 1); }

/* Sums of 16 vectors: lane i of the result is the sum over the lanes of v[i], each by the same tree of additions. */
INLINE __m512 sum_lanes_16(__m512 v[16]) {
  __m512 a[8], b[4], c[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) /* pairs: lanes of v[2i] and v[2i+1] alternate */
    a[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    __m512d lo = _mm512_unpacklo_pd(_mm512_castps_pd(a[2 * i]), _mm512_castps_pd(a[2 * i + 1]));
    __m512d hi = _mm512_unpackhi_pd(_mm512_castps_pd(a[2 * i]), _mm512_castps_pd(a[2 * i + 1]));
    b[i] = _mm512_add_ps(_mm512_castpd_ps(lo), _mm512_castpd_ps(hi)); /* per 128 bits: one sum of each of four v */
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
    c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88), _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
}

INLINE __m512i sum_lanes_16_int(__m512i v[16]) {
  __m512i a[8], b[4], c[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++)
    a[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    b[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]), _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
    c[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0x88), _mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(c[0], c[1], 0x88), _mm512_shuffle_i32x4(c[0], c[1], 0xdd));
}

/* exp(x) for x <= 0, relative error below 2e-7: 2^n * p(r), r = x - n ln 2 in two parts (Cody and Waite, 1980); the polynomial is
 * the Taylor series of degree 7 on |r| <= ln 2 / 2. Below -87 the result is 0. */
INLINE __m512 exp_neg(__m512 x) {
  const __m512 log2e = _mm512_set1_ps(1.44269504f);
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  __mmask16 in_range = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_GE_OQ);
  return _mm512_maskz_scalef_ps(in_range, p, n);
}

/* A tile of rows x cols outputs (cols 16, 8, 4 or 1) in one vector: lane i is row i / cols, column i % cols. */

/* One value per column, p[0 … cols). */
INLINE __m512 column_lanes(const int cols, const float *p) {
  if (cols == 16) return _mm512_loadu_ps(p);
  if (cols == 8) return _mm512_broadcast_f32x8(_mm256_loadu_ps(p));
  if (cols == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
  return _mm512_set1_ps(*p);
}

/* One value per row, p[0 … rows). */
INLINE __m512 row_lanes(const int rows, const int cols, const float *p) {
  if (rows == 1) return _mm512_set1_ps(*p);
  const __m512i row = _mm512_srli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), cols == 8 ? 3 : 2);
  return _mm512_permutexvar_ps(row, _mm512_maskz_loadu_ps(first_lanes16(rows), p));
}

/* The tile into out, `stride` elements from row to row. */
INLINE void store_tile_f32(const int rows, const int cols, float *out, int stride, __m512 tile) {
  float lanes[16];
  _mm512_storeu_ps(lanes, tile);
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++) memcpy(out + r * stride, lanes + r * cols, cols * sizeof(float));
}

INLINE void store_tile_bf16(const int rows, const int cols, bf16 *out, int stride, __m512 tile) {
  bf16 lanes[16];
  _mm256_storeu_si256((__m256i *)lanes, to_bf16(tile));
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++) memcpy(out + r * stride, lanes + r * cols, cols * sizeof(bf16));
}
