/* x W^T + b with weights in float32 and bfloat16; sums are float32, and so is the bias. */
#include "kernels.h"

INLINE __m512 add_bias(const int rows, const int cols, const float *bias, int row, int column, __m512 sums) {
  (void)rows, (void)row;
  return bias ? _mm512_add_ps(sums, column_lanes(cols, bias + column)) : sums;
}

#define NAME linear_f32_
#define INPUT float
#define WEIGHT float
#define OUTPUT float
#define WIDTH 16
#define VECTOR __m512
#define LOAD_X(n, p) ((n) == WIDTH ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(first_lanes16(n), p))
#define LOAD_W(n, p) LOAD_X(n, p)
#define SUM __m512
#define DOT(acc, a, b) _mm512_fmadd_ps(a, b, acc)
#define SUM_LANES sum_lanes_16
#define ARGUMENTS float
#define FINISH add_bias
#define STORE store_tile_f32
#include "linear_tile.inc.h"

/* x [m, k], w [n, k], bias [n] or NULL, out [m, n]. */
void linear_f32(const float *x, const float *w, const float *bias, float *out, int m, int n, int k, int threads) {
  linear_f32_(x, w, out, m, n, k, bias, threads);
}

#define NAME linear_bf16_
#define INPUT bf16
#define WEIGHT bf16
#define OUTPUT bf16
#define WIDTH 32
#define VECTOR __m512i
#define LOAD_X(n, p) ((n) == WIDTH ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(first_lanes32(n), p))
#define LOAD_W(n, p) LOAD_X(n, p)
#define SUM __m512
#define DOT(acc, a, b) _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
#define SUM_LANES sum_lanes_16
#define ARGUMENTS float
#define FINISH add_bias
#define STORE store_tile_bf16
#include "linear_tile.inc.h"

/* x [m, k], w [n, k], bias [n] or NULL, out [m, n]. */
void linear_bf16(const bf16 *x, const bf16 *w, const float *bias, bf16 *out, int m, int n, int k, int threads) {
  linear_bf16_(x, w, out, m, n, k, bias, threads);
}
