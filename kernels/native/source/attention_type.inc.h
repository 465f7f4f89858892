/* attention.c for one element type: ELEMENT, LANES16(mask, p) to 16 floats, STORE16(mask, p, floats), and for the products of keys
 * WIDTH, VECTOR, LOAD(n, p), DOT(acc, a, b) as in linear_tile.inc.h; SUFFIX names the function. */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

/* Scores of 16 keys with one query; d: head size. */
INLINE __m512 JOIN(scores_, SUFFIX)(const ELEMENT *q, const ELEMENT *const keys[16], int d) {
  __m512 acc[16];
#pragma GCC unroll 16
  for (int j = 0; j < 16; j++) acc[j] = _mm512_setzero_ps();
  for (int at = 0; at < d; at += WIDTH) {
    const int n = d - at < WIDTH ? d - at : WIDTH;
    const VECTOR a = LOAD(n, q + at);
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++) acc[j] = DOT(acc[j], a, LOAD(n, keys[j] + at));
  }
  return sum_lanes_16(acc);
}

/* out[r][at … at+64) += sum over keys of weights[r][key] * values[key][at … at+64), for `rows` queries; masks: of 16 dims each. */
INLINE void JOIN(weigh_, SUFFIX)(const int rows, const step_row *row, const ELEMENT *values, size_t page_stride, int block_size, int first,
                                 int end, const float *weights, size_t weight_stride, const float *inverse, ELEMENT *const *out, int d, int at) {
  __m512 acc[4][4];
  __mmask16 masks[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    masks[j] = d - at > 16 * j ? first_lanes16(d - at - 16 * j) : 0;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) acc[r][j] = _mm512_setzero_ps();
  }
  for (int key = first; key < end;) {
    const int offset = key % block_size, until = key - offset + block_size < end ? key - offset + block_size : end;
    const ELEMENT *value = values + row->table[key / block_size] * page_stride + (size_t)offset * d + at;
    for (; key < until; key++, value += d) {
      __m512 v[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) v[j] = LANES16(masks[j], value + 16 * j);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) {
        const __m512 weight = _mm512_set1_ps(weights[r * weight_stride + key]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) acc[r][j] = _mm512_fmadd_ps(weight, v[j], acc[r][j]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) STORE16(masks[j], out[r] + at + 16 * j, _mm512_mul_ps(acc[r][j], _mm512_set1_ps(inverse[r])));
}

/* One KV head of one row, queries [from, from + n): all query heads that share it. */
static void JOIN(attend_item_, SUFFIX)(const ELEMENT *q, size_t q_stride, const ELEMENT *pages, const step_row *row, int head, int from, int n,
                                       ELEMENT *out, const attention_shape *shape, float *scratch) {
  const int d = shape->head_dim, block_size = shape->block_size, group = shape->n_heads / shape->n_kv_heads;
  const size_t head_stride = (size_t)block_size * d, page_stride = 2 * shape->n_kv_heads * head_stride;
  const ELEMENT *keys = pages + head * head_stride, *values = keys + shape->n_kv_heads * head_stride;
  const int position = row->context - row->n_queries + from; /* of the first query */
  const int end = position + n;                              /* of the keys that the last query sees */
  const int seen = shape->window > 0 && shape->window <= position ? position - shape->window + 1 : 0;
  const int first = seen & ~15; /* tiles begin at multiples of 16, whatever the pages */
  const size_t stride = (size_t)((end - first + 15) & ~15);
  const int vectors = n * group;
  float *most = scratch, *inverse = scratch + vectors;
  float *scores = scratch + 2 * vectors - first; /* scores[v * stride + key] */
  for (int v = 0; v < vectors; v++) most[v] = -INFINITY;
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int tile = first; tile < end; tile += 16) {
    const ELEMENT *of[16];
    for (int j = 0; j < 16; j++) {
      int key = tile + j < end ? tile + j : end - 1;
      if (key < seen) key = seen; /* pages behind the window may be gone */
      of[j] = keys + row->table[key / block_size] * page_stride + (size_t)(key % block_size) * d;
    }
    const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(tile), lane);
    for (int v = 0; v < vectors; v++) {
      const int query = position + v / group;
      const ELEMENT *vector = q + (size_t)(row->first_token + from + v / group) * q_stride + (size_t)(head * group + v % group) * d;
      __m512 s = _mm512_mul_ps(JOIN(scores_, SUFFIX)(vector, of, d), _mm512_set1_ps(shape->scale));
      if (shape->softcap > 0) s = soft_cap(s, shape->softcap);
      __mmask16 visible = _mm512_cmple_epi32_mask(at, _mm512_set1_epi32(query));
      if (shape->window > 0) visible &= _mm512_cmpgt_epi32_mask(at, _mm512_set1_epi32(query - shape->window));
      s = _mm512_mask_blend_ps(visible, _mm512_set1_ps(-INFINITY), s);
      _mm512_storeu_ps(scores + v * stride + tile, s);
      const float high = _mm512_reduce_max_ps(s);
      if (high > most[v]) most[v] = high;
    }
  }
  for (int v = 0; v < vectors; v++) {
    __m512 total = _mm512_setzero_ps();
    for (int tile = first; tile < end; tile += 16) {
      float *p = scores + v * stride + tile;
      const __m512 weight = exp_neg(_mm512_sub_ps(_mm512_loadu_ps(p), _mm512_set1_ps(most[v])));
      _mm512_storeu_ps(p, weight);
      total = _mm512_add_ps(total, weight);
    }
    inverse[v] = 1.0f / _mm512_reduce_add_ps(total);
  }
  for (int v = 0; v < vectors; v += 4) {
    ELEMENT *to[4];
    const int rows = vectors - v < 4 ? vectors - v : 4;
    for (int r = 0; r < rows; r++)
      to[r] = out + ((size_t)(row->first_token + from + (v + r) / group) * shape->n_heads + head * group + (v + r) % group) * d;
    for (int at = 0; at < d; at += 64) {
#define WEIGH(n) JOIN(weigh_, SUFFIX)(n, row, values, page_stride, block_size, seen, end, scores + v * stride, stride, inverse + v, to, d, at)
      if (rows == 4) WEIGH(4);
      if (rows == 3) WEIGH(3);
      if (rows == 2) WEIGH(2);
      if (rows == 1) WEIGH(1);
#undef WEIGH
    }
  }
}

/* q: n_heads * head_dim elements per token, tokens q_stride elements apart; pages as in reference.py; out [token, n_heads,
 * head_dim]. Returns 0, or 1 where memory is out. */
int JOIN(paged_attention_, SUFFIX)(const ELEMENT *q, size_t q_stride, const ELEMENT *pages, const step_row *rows, int n_rows,
                                   const attention_shape *shape, ELEMENT *out, int threads) {
  const int group = shape->n_heads / shape->n_kv_heads;
  const int per_item = group >= QUERY_VECTORS ? 1 : QUERY_VECTORS / group; /* queries of a work item */
  int n_items = 0, longest = 0;
  for (int r = 0; r < n_rows; r++) {
    n_items += (rows[r].n_queries + per_item - 1) / per_item * shape->n_kv_heads;
    if (rows[r].context > longest) longest = rows[r].context;
  }
  work_item *items = malloc((size_t)n_items * sizeof(work_item));
  const size_t scratch_size = (size_t)per_item * group * (longest + 34);
  float *scratch = malloc(scratch_size * threads * sizeof(float));
  const int failed = !items || !scratch;
  if (!failed) {
    int at = 0;
    for (int r = 0; r < n_rows; r++)
      for (int from = 0; from < rows[r].n_queries; from += per_item)
        for (int head = 0; head < shape->n_kv_heads; head++) {
          const int left = rows[r].n_queries - from;
          items[at++] = (work_item){r, head, from, left < per_item ? left : per_item};
        }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = 0; i < n_items; i++)
      JOIN(attend_item_, SUFFIX)(q, q_stride, pages, rows + items[i].row, items[i].head, items[i].from, items[i].n, out, shape,
                                 scratch + scratch_size * omp_get_thread_num());
  }
  free(items);
  free(scratch);
  return failed;
}

#undef JOIN
#undef JOIN_
#undef ELEMENT
#undef LANES16
#undef STORE16
#undef WIDTH
#undef VECTOR
#undef LOAD
#undef DOT
#undef SUFFIX
