/* Causal attention of a step over keys and values that stay in their pages.
 *
 * A work item is one KV head of one row with a few queries: all scores first, in tiles of 16 keys at multiples of 16, then the
 * softmax with the true maximum, then the values key by key. Nothing of that depends on page size, batch or threads, so an
 * output is the same bits however the step came about. */
#include "common.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#define QUERY_VECTORS 16 /* queries times query heads of a work item: its scores should stay in the second-level cache */

typedef struct {
  int32_t first_token, n_queries, context; /* the row's last n_queries positions out of context are computed */
  const int32_t *table;                    /* pages, in the order of the positions */
} step_row;

typedef struct {
  int32_t n_heads, n_kv_heads, head_dim, block_size, window; /* window 0: none */
  float scale, softcap;                                      /* softcap 0: none */
} attention_shape;

typedef struct {
  int32_t row, head, from, n;
} work_item;

/* cap * tanh(s / cap), by tanh |x| = (1 - e) / (1 + e) with e = exp(-2 |x|). */
INLINE __m512 soft_cap(__m512 s, float cap) {
  const __m512 x = _mm512_div_ps(s, _mm512_set1_ps(cap)), one = _mm512_set1_ps(1.0f);
  const __m512 e = exp_neg(_mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(-2.0f)));
  const __m512 size = _mm512_mul_ps(_mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e)), _mm512_set1_ps(cap));
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32(0x7fffffff), _mm512_castps_si512(size), _mm512_castps_si512(s), 0xca));
}

#define SUFFIX f32
#define ELEMENT float
#define LANES16(mask, p) _mm512_maskz_loadu_ps(mask, p)
#define STORE16(mask, p, x) _mm512_mask_storeu_ps(p, mask, x)
#define WIDTH 16
#define VECTOR __m512
#define LOAD(n, p) _mm512_maskz_loadu_ps(first_lanes16(n), p)
#define DOT(acc, a, b) _mm512_fmadd_ps(a, b, acc)
#include "attention_type.inc.h"

#define SUFFIX bf16
#define ELEMENT bf16
#define LANES16(mask, p) maskload_bf16(mask, p)
#define STORE16(mask, p, x) _mm256_mask_storeu_epi16(p, mask, to_bf16(x))
#define WIDTH 32
#define VECTOR __m512i
#define LOAD(n, p) _mm512_maskz_loadu_epi16(first_lanes32(n), p)
#define DOT(acc, a, b) _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
#include "attention_type.inc.h"
