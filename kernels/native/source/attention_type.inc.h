/* attention.c for one element type:
 *
 *   SUFFIX            names the functions
 *   ELEMENT           type of q, K, V and out
 *   PER_WORD          elements in a word of 32 bits
 *   DOT(acc, a, b)    16 floats plus the products of the elements of 16 words
 *   STORE16(mask, p, floats)  16 floats as elements
 *   PACK              pack_values of this type */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

/* Scores of the chunk's keys with up to 4 query vectors, two tiles of 16 keys at a time: into scores[r * stride + key - first]. */
INLINE void JOIN(score_, SUFFIX)(const int rows, const uint32_t *const *q, const uint32_t *keys, float *scores, size_t stride, int n_tiles,
                                 int words) {
  for (int tile = 0; tile < n_tiles; tile += 2) {
    const uint32_t *one = keys + (size_t)tile * words * 16, *two = tile + 1 < n_tiles ? one + words * 16 : one;
    __m512 acc[4][2];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    for (int w = 0; w < words; w++) {
      const __m512i a = _mm512_load_si512(one + w * 16), b = _mm512_load_si512(two + w * 16);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) {
        const __m512i word = _mm512_set1_epi32((int)q[r][w]);
        acc[r][0] = DOT(acc[r][0], word, a);
        acc[r][1] = DOT(acc[r][1], word, b);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      _mm512_storeu_ps(scores + r * stride + tile * 16, acc[r][0]);
      if (tile + 1 < n_tiles) _mm512_storeu_ps(scores + r * stride + tile * 16 + 16, acc[r][1]);
    }
  }
}

/* sums[r][16 * width dims] += weights times values, over the words of a chunk, for up to 4 query vectors. */
INLINE void JOIN(weigh_, SUFFIX)(const int rows, const int width, const uint32_t *weights, size_t stride, const uint32_t *values, size_t value_stride, int words,
                                 float *sums, size_t sum_stride) {
  __m512 acc[4][4];
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int j = 0; j < width; j++) acc[r][j] = _mm512_load_ps(sums + r * sum_stride + 16 * j);
  for (int w = 0; w < words; w++) {
    __m512i v[4];
#pragma GCC unroll 4
    for (int j = 0; j < width; j++) v[j] = _mm512_load_si512(values + w * value_stride + 16 * j);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      const __m512i weight = _mm512_set1_epi32((int)weights[r * stride + w]);
#pragma GCC unroll 4
      for (int j = 0; j < width; j++) acc[r][j] = DOT(acc[r][j], weight, v[j]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int j = 0; j < width; j++) _mm512_store_ps(sums + r * sum_stride + 16 * j, acc[r][j]);
}

/* Where the keys or values of tile … tile+15 lie; NULL for positions that nothing sees (behind the window, or to come). */
INLINE void JOIN(locate_, SUFFIX)(const ELEMENT *of[16], const ELEMENT *base, size_t page_stride, const step_row *row, int tile, int seen,
                                  int end, const attention_shape *shape) {
  int page = tile / shape->block_size, offset = tile % shape->block_size;
  for (int j = 0; j < 16; j++) {
    const int key = tile + j;
    if (key >= row->branch_from && key < end) { /* nodes of a draft tree: few, and mostly not side by side */
      const int place = row->branch[key - row->branch_from];
      page = place / shape->block_size, offset = place % shape->block_size;
    }
    of[j] = key < seen || key >= end ? NULL : base + row->table[page] * page_stride + (size_t)offset * shape->head_dim;
    if (++offset == shape->block_size) offset = 0, page++;
  }
}

/* Ask for the keys or values of a tile, so that they are in the second-level cache when a chunk later they are packed. */
INLINE void JOIN(prefetch_, SUFFIX)(const ELEMENT *base, size_t page_stride, const step_row *row, int tile, int seen, int end,
                                    const attention_shape *shape) {
  const ELEMENT *of[16];
  JOIN(locate_, SUFFIX)(of, base, page_stride, row, tile, seen, end, shape);
  for (int j = 0; j < 16; j++)
    for (size_t at = 0; of[j] && at < shape->head_dim * sizeof(ELEMENT); at += 64) _mm_prefetch((const char *)of[j] + at, _MM_HINT_T1);
}

/* Keys to words: out[word][16 keys]. */
INLINE void JOIN(pack_keys_, SUFFIX)(const ELEMENT *const of[16], uint32_t *out, int words) {
  for (int at = 0; at < words; at += 16) {
    const __mmask16 mask = first_lanes16(words - at);
    __m512i v[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++) v[j] = of[j] ? _mm512_maskz_loadu_epi32(mask, (const uint32_t *)of[j] + at) : _mm512_setzero_si512();
    transpose_16(v);
    const int n = words - at < 16 ? words - at : 16;
    for (int w = 0; w < n; w++) _mm512_store_si512(out + (size_t)(at + w) * 16, v[w]);
  }
}

/* One KV head of one row, queries [from, from + n): all query heads that share it. */
static void JOIN(attend_item_, SUFFIX)(const ELEMENT *q, size_t q_stride, const ELEMENT *pages, const step_row *row, int head, int from, int n,
                                       ELEMENT *out, const attention_shape *shape, char *scratch) {
  const int d = shape->head_dim, group = shape->n_heads / shape->n_kv_heads, key_words = d / PER_WORD;
  const size_t head_stride = (size_t)shape->block_size * d, page_stride = 2 * shape->n_kv_heads * head_stride;
  const ELEMENT *keys = pages + head * head_stride, *values = keys + shape->n_kv_heads * head_stride;
  const int position = row->context - row->n_queries + from; /* of the first query */
  const int end = position + n;                              /* of the keys that the last query sees */
  const int seen = shape->window > 0 && shape->window <= position ? position - shape->window + 1 : 0;
  const int first = seen & ~15; /* tiles begin at multiples of 16, whatever the pages */
  const int vectors = n * group, dims = (d + 15) & ~15;
  const scratch_parts part = divide_scratch(scratch, vectors, end - first, dims);
  const uint32_t *query[4];

  for (int tile = first; tile < first + CHUNK; tile += 16) JOIN(prefetch_, SUFFIX)(keys, page_stride, row, tile, seen, end, shape);
  for (int v = 0; v < vectors; v++) part.most[v] = -INFINITY;
  for (int chunk = first; chunk < end; chunk += CHUNK) {
    const int n_tiles = ((end - chunk < CHUNK ? end - chunk : CHUNK) + 15) / 16;
    for (int tile = 0; tile < n_tiles; tile++) {
      const ELEMENT *of[16];
      JOIN(locate_, SUFFIX)(of, keys, page_stride, row, chunk + 16 * tile, seen, end, shape);
      JOIN(pack_keys_, SUFFIX)(of, part.packed + (size_t)tile * key_words * 16, key_words);
      if (chunk + CHUNK < end)
        JOIN(prefetch_, SUFFIX)(keys, page_stride, row, chunk + CHUNK + 16 * tile, seen, end, shape);
      else /* the last chunk of keys: the first one of values is next */
        JOIN(prefetch_, SUFFIX)(values, page_stride, row, first + 16 * tile, seen, end, shape);
    }
    for (int v = 0; v < vectors; v += 4) {
      const int rows = vectors - v < 4 ? vectors - v : 4;
      float *scores = part.scores + v * part.stride + chunk - first;
      for (int r = 0; r < rows; r++)
        query[r] = (const uint32_t *)(q + (size_t)(row->first_token + from + (v + r) / group) * q_stride + (size_t)(head * group + (v + r) % group) * d);
      if (rows == 4) JOIN(score_, SUFFIX)(4, query, part.packed, scores, part.stride, n_tiles, key_words);
      if (rows == 3) JOIN(score_, SUFFIX)(3, query, part.packed, scores, part.stride, n_tiles, key_words);
      if (rows == 2) JOIN(score_, SUFFIX)(2, query, part.packed, scores, part.stride, n_tiles, key_words);
      if (rows == 1) JOIN(score_, SUFFIX)(1, query, part.packed, scores, part.stride, n_tiles, key_words);
      for (int r = 0; r < rows; r++)
        finish_scores(scores + r * part.stride, part.most + v + r, n_tiles, chunk, position + (v + r) / group, shape);
    }
  }
  for (int v = 0; v < vectors; v++) {
    float *scores = part.scores + v * part.stride;
    ELEMENT *weights = (ELEMENT *)scores; /* in place: never wider than the scores they come from */
    __m512 total = _mm512_setzero_ps();
    for (int key = 0; key < end - first; key += 16) {
      const __m512 weight = exp_neg(_mm512_sub_ps(_mm512_loadu_ps(scores + key), _mm512_set1_ps(part.most[v])));
      STORE16((__mmask16)-1, weights + key, weight);
      total = _mm512_add_ps(total, weight);
    }
    part.inverse[v] = 1.0f / _mm512_reduce_add_ps(total);
  }
  memset(part.sums, 0, (size_t)vectors * dims * sizeof(float));
  for (int chunk = first; chunk < end; chunk += CHUNK) {
    const int n_tiles = ((end - chunk < CHUNK ? end - chunk : CHUNK) + 15) / 16;
    for (int tile = 0; tile < n_tiles; tile++) {
      const ELEMENT *of[16];
      JOIN(locate_, SUFFIX)(of, values, page_stride, row, chunk + 16 * tile, seen, end, shape);
      PACK(of, part.packed + (size_t)tile * 16 / PER_WORD * dims, d, dims);
      JOIN(prefetch_, SUFFIX)(values, page_stride, row, chunk + CHUNK + 16 * tile, seen, end, shape);
    }
    const int words = n_tiles * 16 / PER_WORD;
    for (int v = 0; v < vectors; v += 4) {
      const int rows = vectors - v < 4 ? vectors - v : 4;
      const uint32_t *weights = (const uint32_t *)(part.scores + v * part.stride) + (chunk - first) / PER_WORD;
      int at = 0;
#define WEIGH(rows, width) \
  JOIN(weigh_, SUFFIX)(rows, width, weights, part.stride, part.packed + at, dims, words, part.sums + (size_t)v * dims + at, dims)
#define WEIGH_ROWS(width)                   \
  for (; at + 16 * width <= dims; at += 16 * width) { \
    if (rows == 4) WEIGH(4, width);         \
    if (rows == 3) WEIGH(3, width);         \
    if (rows == 2) WEIGH(2, width);         \
    if (rows == 1) WEIGH(1, width);         \
  }
      WEIGH_ROWS(4)
      WEIGH_ROWS(2)
      WEIGH_ROWS(1)
#undef WEIGH_ROWS
#undef WEIGH
    }
  }
  for (int v = 0; v < vectors; v++) {
    ELEMENT *to = out + ((size_t)(row->first_token + from + v / group) * shape->n_heads + head * group + v % group) * d;
    for (int at = 0; at < d; at += 16)
      STORE16(first_lanes16(d - at), to + at, _mm512_mul_ps(_mm512_load_ps(part.sums + (size_t)v * dims + at), _mm512_set1_ps(part.inverse[v])));
  }
}

/* q: n_heads * head_dim elements per token, tokens q_stride elements apart; pages as in reference.py; out [token, n_heads,
 * head_dim]. Returns 0, or 1 where memory is out. */
int JOIN(paged_attention_, SUFFIX)(const ELEMENT *q, size_t q_stride, const ELEMENT *pages, const step_row *rows, int n_rows,
                                   const attention_shape *shape, ELEMENT *out, int threads) {
  const int group = shape->n_heads / shape->n_kv_heads, dims = (shape->head_dim + 15) & ~15;
  int n_items = 0;
  size_t scratch_size = 0;
  for (int r = 0; r < n_rows; r++) {
    const int per_item = queries_per_item(rows + r, group);
    n_items += (rows[r].n_queries + per_item - 1) / per_item * shape->n_kv_heads;
    const size_t size = scratch_bytes(per_item * group, rows[r].context, dims);
    if (size > scratch_size) scratch_size = size;
  }
  work_item *items = malloc((size_t)n_items * sizeof(work_item));
  char *scratch = aligned_alloc(64, scratch_size * threads);
  const int failed = !items || !scratch;
  if (!failed) {
    int at = 0;
    for (int r = 0; r < n_rows; r++) {
      const int per_item = queries_per_item(rows + r, group);
      for (int from = 0; from < rows[r].n_queries; from += per_item)
        for (int head = 0; head < shape->n_kv_heads; head++) {
          const int left = rows[r].n_queries - from;
          items[at++] = (work_item){r, head, from, left < per_item ? left : per_item};
        }
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = n_items - 1; i >= 0; i--) /* the longest last rows first, so that no thread is left with one at the end */
      JOIN(attend_item_, SUFFIX)(q, q_stride, pages, rows + items[i].row, items[i].head, items[i].from, items[i].n, out, shape,
                                 scratch + scratch_size * omp_get_thread_num());
  }
  free(items);
  free(scratch);
  return failed;
}

#undef JOIN
#undef JOIN_
#undef SUFFIX
#undef ELEMENT
#undef PER_WORD
#undef DOT
#undef STORE16
#undef PACK
