/* Causal attention of a step over keys and values that stay in their pages.
 *
 * A work item is one KV head of one row with some of its queries: all scores first, then the softmax with the true maximum,
 * then the values. Keys go through in chunks, packed into words of 32 bits (two bfloat16 or one float32) so that
 * 16 keys, or 16 dimensions, lie in a vector and a word of the other factor is broadcast:
 *
 *   scores   words of the head dimension:   K [word][16 keys],        q [word]
 *   values   words of the keys:             V [word][head_dim],  weights [word]
 *
 * A draft tree is its first branch, whose nodes are queries of its row like any others, and rows of their own for the others,
 * with a list of the places of their last keys: a node attends to the bits that it would in a chain.
 *
 * Packing is paid once for all queries of an item. Words and tiles begin at multiples of 16 positions, sums run in the order of
 * the positions, and what a query does not see counts as exactly zero: an output is the same bits whatever the pages, the chunk
 * of the prompt, the batch and the number of threads. */
#include "kernels.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#define CHUNK 128                  /* keys that are packed at a time */
#define SCORE_BYTES (256 * 1024)   /* of an item: they should stay in the second-level cache */
#define MAX_VECTORS 64             /* queries times query heads of an item */

typedef struct {
  int32_t row, head, from, n;
} work_item;

typedef struct {
  uint32_t *packed;              /* a chunk of keys or values */
  float *sums;                   /* [vectors, dims] */
  float *scores;                 /* [vectors, stride] */
  size_t stride;
  float *most, *inverse;         /* [vectors]: the largest score, and one over the sum of the weights */
} scratch_parts;

static int queries_per_item(const step_row *row, int group) {
  const int fitting = SCORE_BYTES / (int)sizeof(float) / (row->context + 16);
  const int vectors = fitting < group ? group : fitting > MAX_VECTORS ? MAX_VECTORS : fitting;
  return vectors < group ? 1 : vectors / group;
}

static size_t scratch_bytes(int vectors, int context, int dims) {
  const size_t floats = (size_t)CHUNK * dims + (size_t)vectors * (dims + context + 48) + 2 * (vectors + 16);
  return (floats * sizeof(float) + 63) & ~(size_t)63;
}

static scratch_parts divide_scratch(char *scratch, int vectors, int n_keys, int dims) {
  scratch_parts part;
  part.packed = (uint32_t *)scratch;
  part.sums = (float *)part.packed + (size_t)CHUNK * dims;
  part.scores = part.sums + (size_t)vectors * dims;
  part.stride = (size_t)((n_keys + 15) & ~15);
  part.most = part.scores + vectors * part.stride;
  part.inverse = part.most + vectors;
  return part;
}

/* Rows and columns of a 16 x 16 matrix of words change places. */
INLINE void transpose_16(__m512i v[16]) {
  __m512i a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) { /* b[4 j + i]: rows 4 j … 4 j + 3 of columns i, 4 + i, 8 + i, 12 + i */
    const __m512i p = _mm512_shuffle_i32x4(b[i], b[4 + i], 0x88), q = _mm512_shuffle_i32x4(b[i], b[4 + i], 0xdd);
    const __m512i r = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0x88), s = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0xdd);
    v[i] = _mm512_shuffle_i32x4(p, r, 0x88);
    v[8 + i] = _mm512_shuffle_i32x4(p, r, 0xdd);
    v[4 + i] = _mm512_shuffle_i32x4(q, s, 0x88);
    v[12 + i] = _mm512_shuffle_i32x4(q, s, 0xdd);
  }
}

/* cap * tanh(s / cap), by tanh |x| = (1 - e) / (1 + e) with e = exp(-2 |x|). */
INLINE __m512 soft_cap(__m512 s, float cap) {
  const __m512 x = _mm512_div_ps(s, _mm512_set1_ps(cap)), one = _mm512_set1_ps(1.0f);
  const __m512 e = exp_neg(_mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(-2.0f)));
  const __m512 size = _mm512_mul_ps(_mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e)), _mm512_set1_ps(cap));
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32(0x7fffffff), _mm512_castps_si512(size), _mm512_castps_si512(s), 0xca));
}

/* Scale and cap a chunk's scores, hide what the query at `position` does not see, keep the largest. */
INLINE void finish_scores(float *scores, float *most, int n_tiles, int chunk, int position, const attention_shape *shape) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512 high = _mm512_set1_ps(-INFINITY);
  for (int tile = 0; tile < n_tiles; tile++) {
    const __m512i key = _mm512_add_epi32(_mm512_set1_epi32(chunk + 16 * tile), lane);
    __m512 s = _mm512_mul_ps(_mm512_loadu_ps(scores + 16 * tile), _mm512_set1_ps(shape->scale));
    if (shape->softcap > 0) s = soft_cap(s, shape->softcap);
    __mmask16 visible = _mm512_cmple_epi32_mask(key, _mm512_set1_epi32(position));
    if (shape->window > 0) visible &= _mm512_cmpgt_epi32_mask(key, _mm512_set1_epi32(position - shape->window));
    s = _mm512_mask_blend_ps(visible, _mm512_set1_ps(-INFINITY), s);
    _mm512_storeu_ps(scores + 16 * tile, s);
    high = _mm512_max_ps(high, s);
  }
  const float largest = _mm512_reduce_max_ps(high);
  if (largest > *most) *most = largest;
}

/* Values to words of one key: out[key][dims]. */
INLINE void pack_values_f32(const float *const of[16], uint32_t *out, int d, int dims) {
  for (int key = 0; key < 16; key++)
    for (int at = 0; at < dims; at += 16) {
      const __m512 v = of[key] ? _mm512_maskz_loadu_ps(d > at ? first_lanes16(d - at) : 0, of[key] + at) : _mm512_setzero_ps();
      _mm512_store_ps(out + (size_t)key * dims + at, v);
    }
}

/* Values to words of two keys, the earlier one in the low half: out[key / 2][dims]. */
INLINE void pack_values_bf16(const bf16 *const of[16], uint32_t *out, int d, int dims) {
  for (int key = 0; key < 16; key += 2)
    for (int at = 0; at < dims; at += 16) {
      const __mmask16 mask = d > at ? first_lanes16(d - at) : 0;
      const __m256i zero = _mm256_setzero_si256();
      const __m256i early = of[key] ? _mm256_maskz_loadu_epi16(mask, of[key] + at) : zero;
      const __m256i late = of[key + 1] ? _mm256_maskz_loadu_epi16(mask, of[key + 1] + at) : zero;
      const __m512i word = _mm512_or_si512(_mm512_cvtepu16_epi32(early), _mm512_slli_epi32(_mm512_cvtepu16_epi32(late), 16));
      _mm512_store_si512(out + (size_t)(key / 2) * dims + at, word);
    }
}

#define SUFFIX f32
#define ELEMENT float
#define PER_WORD 1
#define DOT(acc, a, b) _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), acc)
#define STORE16(mask, p, x) _mm512_mask_storeu_ps(p, mask, x)
#define PACK pack_values_f32
#include "attention_type.inc.h"

#define SUFFIX bf16
#define ELEMENT bf16
#define PER_WORD 2
#define DOT(acc, a, b) _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
#define STORE16(mask, p, x) _mm256_mask_storeu_epi16(p, mask, to_bf16(x))
#define PACK pack_values_bf16
#include "attention_type.inc.h"
