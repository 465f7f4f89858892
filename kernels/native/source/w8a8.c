/* Weights int8 with one scale per output, activations int8 with one scale per token; sums are int32 and therefore exact.
 *
 *   q = round(x * (127 / max|x|)),  out = (q . w) * (x_scale * w_scale) + b,  x_scale = max|x| / 127
 *
 * VPDPBUSD multiplies unsigned by signed, so q is stored with 128 added, and 128 * (sum of the weights) taken off again. */
#include "kernels.h"
#include "quantize.h"

typedef struct {
  const float *x_scale, *w_scale, *bias; /* bias may be NULL */
  const int32_t *w_sum;
} w8a8_arguments;

INLINE __m512 w8a8_scale(const int rows, const int cols, __m512i sums, const float *x_scale, const float *w_scale, const float *bias) {
  const __m512 scale = _mm512_mul_ps(row_lanes(rows, cols, x_scale), column_lanes(cols, w_scale));
  const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale);
  return bias ? _mm512_add_ps(product, column_lanes(cols, bias)) : product;
}

INLINE __m512 w8a8_finish(const int rows, const int cols, const w8a8_arguments *args, int row, int column, __m512i sums) {
  const __m512i shift = _mm512_castps_si512(column_lanes(cols, (const float *)(args->w_sum + column)));
  return w8a8_scale(rows, cols, _mm512_sub_epi32(sums, _mm512_slli_epi32(shift, 7)), args->x_scale + row, args->w_scale + column,
                    args->bias ? args->bias + column : NULL);
}

#define NAME w8a8_f32_
#define OUTPUT float
#define STORE store_tile_f32
#include "w8a8_formats.inc.h"
#include "linear_tile.inc.h"

#define NAME w8a8_bf16_
#define OUTPUT bf16
#define STORE store_tile_bf16
#include "w8a8_formats.inc.h"
#include "linear_tile.inc.h"

#define LINEAR_W8A8(NAME, ELEMENT, LOAD, STORE, PRODUCT)                                                                     \
  /* x, out: [m, k] and [m, n]; w int8 [n, k]; w_scale, bias (or NULL) [n]; w_sum [n]: sums of the rows of w. Returns 0, or 1    \
   * where memory is out. */                                                                                               \
  int linear_w8a8_##NAME(const ELEMENT *x, const int8_t *w, const float *w_scale, const int32_t *w_sum, const float *bias, \
                         ELEMENT *out, int m, int n, int k, int threads) {                                                 \
    uint8_t *q = malloc((size_t)m * k + 64);                                                                               \
    float *x_scale = malloc((size_t)(m + 16) * sizeof(float));                                                             \
    const int failed = !q || !x_scale;                                                                                     \
    if (!failed) {                                                                                                         \
      for (int r = 0; r < m; r++) quantize_row(LOAD, x + (size_t)r * k, sizeof(ELEMENT), q + (size_t)r * k, 128, x_scale + r, k); \
      const w8a8_arguments args = {x_scale, w_scale, bias, w_sum};                                                         \
      PRODUCT(q, w, out, m, n, k, &args, threads);                                                                         \
    }                                                                                                                      \
    free(q);                                                                                                               \
    free(x_scale);                                                                                                         \
    return failed;                                                                                                         \
  }                                                                                                                        \
                                                                                                                           \
  /* The two ends of the same product, for another library's sums between them: q int8 [m, k], x_scale [m]. */             \
  void quantize_rows_##NAME(const ELEMENT *x, int8_t *q, float *x_scale, int m, int k, int threads) {                      \
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (int r = 0; r < m; r++)                          \
        quantize_row(LOAD, x + (size_t)r * k, sizeof(ELEMENT), (uint8_t *)q + (size_t)r * k, 0, x_scale + r, k);           \
  }                                                                                                                        \
                                                                                                                           \
  /* sums int32 [m, n] to out [m, n]. */                                                                                   \
  void scale_sums_##NAME(const int32_t *sums, const float *x_scale, const float *w_scale, const float *bias, ELEMENT *out, \
                         int m, int n, int threads) {                                                                      \
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (int r = 0; r < m; r++) {                        \
      const int32_t *from = sums + (size_t)r * n;                                                                          \
      ELEMENT *to = out + (size_t)r * n;                                                                                   \
      int c = 0;                                                                                                           \
      for (; c + 16 <= n; c += 16)                                                                                         \
        STORE(1, 16, to + c, 0, w8a8_scale(1, 16, _mm512_loadu_si512(from + c), x_scale + r, w_scale + c, bias ? bias + c : NULL)); \
      for (; c < n; c++)                                                                                                   \
        STORE(1, 1, to + c, 0, w8a8_scale(1, 1, _mm512_set1_epi32(from[c]), x_scale + r, w_scale + c, bias ? bias + c : NULL)); \
    }                                                                                                                      \
  }

LINEAR_W8A8(f32, float, load_f32_lanes, store_tile_f32, w8a8_f32_)
LINEAR_W8A8(bf16, bf16, load_bf16_lanes, store_tile_bf16, w8a8_bf16_)
