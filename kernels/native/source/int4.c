/* Weights of 4 bits in groups of 32 with one scale each, activations int8 with one scale per token.
 *
 *   out = x_scale * sum over groups (scale * sum over the group (w - 8) q) + b
 *
 * A column of weights is `pack_columns` in engine/quantization/int4.py: for every 64 inputs 32 bytes, input i in the low
 * half of byte i, input 32 + i in the high half; then the scales, float16, filled up to a multiple of 16.
 *
 *   | 0|32 1|33 … 31|63 | 64|96 … | … | scale of group 0, 1, 2, … |
 *
 * Sums of a group are exact; a vector holds those of two groups, 8 lanes each. The 8 that is taken off every weight is taken
 * off at the end, as 8 * scale * (sum of the group's q): 16 groups at a time. */
#include "kernels.h"
#include "quantize.h"

typedef struct {
  const float *x_scale, *bias; /* bias may be NULL */
  const float *x_sum;          /* [m, groups]: -8 times the sum of each group's q */
  int groups;                  /* filled up to a multiple of 16 */
} int4_arguments;

#define COLUMN_BYTES(k) ((size_t)((k) / 2) + 2 * (((k) / 32 + 15) & ~15)) /* k is a multiple of 64 */

INLINE __m512 int4_sums(const int rows, const int cols, const int8_t *q, const uint8_t *w, int k, const int4_arguments *args, int row) {
  const __m512i shift = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4), low = _mm512_set1_epi8(15);
  const __m512i pair = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  __m512 acc[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) acc[i] = _mm512_setzero_ps();
  for (int at = 0; at < k; at += 512) { /* 16 groups */
    __m512 scales[8];
#pragma GCC unroll 8
    for (int c = 0; c < cols; c++) {
      scales[c] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(w + c * COLUMN_BYTES(k) + k / 2 + at / 16)));
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++)
        acc[r * cols + c] = _mm512_fmadd_ps(scales[c], _mm512_loadu_ps(args->x_sum + (size_t)(row + r) * args->groups + at / 32), acc[r * cols + c]);
    }
    const int last = at + 512 < k ? at + 512 : k;
    for (int chunk = at; chunk < last; chunk += 64) {
      const __m512i groups = _mm512_add_epi32(pair, _mm512_set1_epi32((chunk - at) / 32));
      __m512i a[4];
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) a[r] = _mm512_loadu_si512(q + (size_t)r * k + chunk);
#pragma GCC unroll 8
      for (int c = 0; c < cols; c++) {
        const uint8_t *packed = w + c * COLUMN_BYTES(k) + chunk / 2;
        const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)packed));
        const __m512i weights = _mm512_and_si512(_mm512_srlv_epi64(both, shift), low);
        const __m512 scale = _mm512_permutexvar_ps(groups, scales[c]);
        _mm_prefetch((const char *)(packed + cols * COLUMN_BYTES(k)), _MM_HINT_T1);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
          const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, a[r]);
          acc[r * cols + c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, acc[r * cols + c]);
        }
      }
    }
  }
  return sum_lanes_16(acc);
}

INLINE __m512 int4_finish(const int rows, const int cols, __m512 sums, const int4_arguments *args, int row, int column) {
  const __m512 product = _mm512_mul_ps(sums, row_lanes(rows, cols, args->x_scale + row));
  return args->bias ? _mm512_add_ps(product, column_lanes(cols, args->bias + column)) : product;
}

#define INT4_TILE(NAME, OUTPUT, STORE)                                                                                     \
  INLINE void NAME(const int rows, const int cols, const int8_t *q, const uint8_t *w, OUTPUT *out, int k,                  \
                   const int4_arguments *args, int row, int column) {                                                      \
    STORE(rows, cols, out, GROUP, int4_finish(rows, cols, int4_sums(rows, cols, q, w, k, args, row), args, row, column));  \
  }

INT4_TILE(int4_f32__tile, float, store_tile_f32)
INT4_TILE(int4_bf16__tile, bf16, store_tile_bf16)

#define NAME int4_f32_
#define OUTPUT float
#include "int4_formats.inc.h"
#include "linear_blocks.inc.h"

#define NAME int4_bf16_
#define OUTPUT bf16
#include "int4_formats.inc.h"
#include "linear_blocks.inc.h"

#define LINEAR_INT4(NAME, ELEMENT, LOAD, PRODUCT)                                                                            \
  /* x, out: [m, k] and [m, n]; w: n columns, for k filled up to a multiple of 64 with weights of 8; bias [n] or NULL. Returns 0, \
   * or 1 where memory is out. */                                                                                          \
  int linear_int4_##NAME(const ELEMENT *x, const uint8_t *w, const float *bias, ELEMENT *out, int m, int n, int k, int threads) { \
    const int padded = (k + 63) & ~63, groups = (padded / 32 + 15) & ~15;                                                  \
    int8_t *q = calloc((size_t)m, padded);                                                                                 \
    float *x_scale = malloc((size_t)(m + 16) * sizeof(float)), *x_sum = calloc((size_t)m * groups, sizeof(float));         \
    const int failed = !q || !x_scale || !x_sum;                                                                           \
    if (!failed) {                                                                                                         \
      _Pragma("omp parallel for schedule(static) num_threads(m < 8 ? 1 : threads)") for (int r = 0; r < m; r++) {          \
        int8_t *row = q + (size_t)r * padded;                                                                              \
        quantize_row(LOAD, x + (size_t)r * k, sizeof(ELEMENT), (uint8_t *)row, 0, x_scale + r, k);                         \
        for (int g = 0; g < padded / 32; g++) {                                                                            \
          int sum = 0;                                                                                                     \
          for (int i = 0; i < 32; i++) sum += row[g * 32 + i];                                                             \
          x_sum[(size_t)r * groups + g] = (float)(-8 * sum);                                                               \
        }                                                                                                                  \
      }                                                                                                                    \
      const int4_arguments args = {x_scale, bias, x_sum, groups};                                                          \
      PRODUCT(q, w, out, m, n, padded, &args, threads);                                                                    \
    }                                                                                                                      \
    free(q);                                                                                                               \
    free(x_scale);                                                                                                         \
    free(x_sum);                                                                                                           \
    return failed;                                                                                                         \
  }

LINEAR_INT4(f32, float, load_f32_lanes, int4_f32_)
LINEAR_INT4(bf16, bf16, load_bf16_lanes, int4_bf16_)

/* One group of 32 weights to levels 0 … 15 in bytes; its scale goes to *scale (float16). */
INLINE __m256i pack_group(__m512 low, __m512 high, uint16_t *scale) {
  const float most = _mm512_reduce_max_ps(_mm512_max_ps(low, high)), least = _mm512_reduce_min_ps(_mm512_min_ps(low, high));
  const float largest = most >= -least ? most : least;
  const __m128i half = _mm_cvtps_ph(_mm_set_ss(largest / -8.0f), _MM_FROUND_TO_NEAREST_INT);
  *scale = (uint16_t)_mm_extract_epi16(half, 0);
  const float step = _mm_cvtss_f32(_mm_cvtph_ps(half));
  const __m512 divisor = _mm512_set1_ps(step == 0.0f ? 1.0f : step);
  const __m512i zero = _mm512_setzero_si512(), top = _mm512_set1_epi32(15), middle = _mm512_set1_epi32(8);
  const __m512i a = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_div_ps(low, divisor)), middle);
  const __m512i b = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_div_ps(high, divisor)), middle);
  const __m128i first = _mm512_cvtepi32_epi8(_mm512_min_epi32(_mm512_max_epi32(a, zero), top));
  const __m128i second = _mm512_cvtepi32_epi8(_mm512_min_epi32(_mm512_max_epi32(b, zero), top));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
}

#define PACK_INT4(NAME, ELEMENT, LOAD)                                                                                       \
  /* w [n, k] to packed [n, column bytes], which begins as zeros. */                                                       \
  void pack_int4_##NAME(const ELEMENT *w, uint8_t *packed, int n, int k, int threads) {                                    \
    const int padded = (k + 63) & ~63;                                                                                     \
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (int c = 0; c < n; c++) {                        \
      uint8_t *to = packed + c * COLUMN_BYTES(padded);                                                                     \
      uint16_t *scales = (uint16_t *)(to + padded / 2);                                                                    \
      for (int at = 0; at < padded; at += 64) {                                                                            \
        __m512 v[4];                                                                                                       \
        for (int i = 0; i < 4; i++) {                                                                                      \
          const int from = at + 16 * i;                                                                                    \
          v[i] = from < k ? LOAD(first_lanes16(k - from), w + (size_t)c * k + from) : _mm512_setzero_ps();                 \
        }                                                                                                                  \
        const __m256i one = pack_group(v[0], v[1], scales + at / 32), two = pack_group(v[2], v[3], scales + at / 32 + 1);  \
        _mm256_storeu_si256((__m256i *)(to + at / 2), _mm256_or_si256(one, _mm256_slli_epi16(two, 4)));                    \
      }                                                                                                                    \
    }                                                                                                                      \
  }

PACK_INT4(f32, float, load_f32_lanes)
PACK_INT4(bf16, bf16, load_bf16_lanes)
