/* layer.c for one element type: ELEMENT, LOAD16(mask, p), STORE16(mask, p, floats), SUFFIX. */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

INLINE float JOIN(inverse_rms_, SUFFIX)(const ELEMENT *x, int d, float eps) {
  __m512 sum = _mm512_setzero_ps();
  for (int at = 0; at < d; at += 16) {
    const __m512 v = LOAD16(first_lanes16(d - at), x + at);
    sum = _mm512_fmadd_ps(v, v, sum);
  }
  return 1.0f / sqrtf(_mm512_reduce_add_ps(sum) / d + eps);
}

INLINE void JOIN(scale_row_, SUFFIX)(const ELEMENT *x, const ELEMENT *weight, ELEMENT *out, int d, float factor) {
  for (int at = 0; at < d; at += 16) {
    const __mmask16 mask = first_lanes16(d - at);
    STORE16(mask, out + at, _mm512_mul_ps(_mm512_mul_ps(LOAD16(mask, x + at), _mm512_set1_ps(factor)), LOAD16(mask, weight + at)));
  }
}

/* x, out [n, d], weight [d]. */
void JOIN(rms_norm_, SUFFIX)(const ELEMENT *x, const ELEMENT *weight, ELEMENT *out, int n, int d, float eps, int threads) {
#pragma omp parallel for schedule(static) num_threads((size_t)n * d < SERIAL_BELOW ? 1 : threads)
  for (int r = 0; r < n; r++)
    JOIN(scale_row_, SUFFIX)(x + (size_t)r * d, weight, out + (size_t)r * d, d, JOIN(inverse_rms_, SUFFIX)(x + (size_t)r * d, d, eps));
}

/* total = x + residual, out = norm(total); all [n, d]. */
void JOIN(add_rms_norm_, SUFFIX)(const ELEMENT *x, const ELEMENT *residual, const ELEMENT *weight, ELEMENT *out, ELEMENT *total,
                                 int n, int d, float eps, int threads) {
#pragma omp parallel for schedule(static) num_threads((size_t)n * d < SERIAL_BELOW ? 1 : threads)
  for (int r = 0; r < n; r++) {
    const size_t first = (size_t)r * d;
    for (int at = 0; at < d; at += 16) {
      const __mmask16 mask = first_lanes16(d - at);
      STORE16(mask, total + first + at, _mm512_add_ps(LOAD16(mask, x + first + at), LOAD16(mask, residual + first + at)));
    }
    JOIN(scale_row_, SUFFIX)(total + first, weight, out + first, d, JOIN(inverse_rms_, SUFFIX)(total + first, d, eps));
  }
}

/* total += x, both of n elements. */
void JOIN(add_, SUFFIX)(const ELEMENT *x, ELEMENT *total, size_t n) {
  for (size_t at = 0; at < n; at += 16) {
    const __mmask16 mask = first_lanes16(n - at < 16 ? (int)(n - at) : 16);
    STORE16(mask, total + at, _mm512_add_ps(LOAD16(mask, x + at), LOAD16(mask, total + at)));
  }
}

INLINE void JOIN(gate_rows_, SUFFIX)(const ELEMENT *gate_up, ELEMENT *out, int n, int d, int threads, int is_gelu) {
#pragma omp parallel for schedule(static) num_threads((size_t)n * d < SERIAL_BELOW ? 1 : threads)
  for (int r = 0; r < n; r++) {
    const ELEMENT *gate = gate_up + (size_t)r * 2 * d, *up = gate + d;
    for (int at = 0; at < d; at += 16) {
      const __mmask16 mask = first_lanes16(d - at);
      const __m512 x = LOAD16(mask, gate + at);
      STORE16(mask, out + (size_t)r * d + at, _mm512_mul_ps(is_gelu ? gelu_tanh(x) : silu(x), LOAD16(mask, up + at)));
    }
  }
}

/* gate_up [n, 2 d] to out [n, d]: silu(gate) * up. */
void JOIN(silu_and_mul_, SUFFIX)(const ELEMENT *gate_up, ELEMENT *out, int n, int d, int threads) {
  JOIN(gate_rows_, SUFFIX)(gate_up, out, n, d, threads, 0);
}

/* The same with gelu_tanh(gate). */
void JOIN(gelu_tanh_and_mul_, SUFFIX)(const ELEMENT *gate_up, ELEMENT *out, int n, int d, int threads) {
  JOIN(gate_rows_, SUFFIX)(gate_up, out, n, d, threads, 1);
}

/* One head [d] rotated by cos and signed sin [d], after a norm where weight is not NULL. */
INLINE void JOIN(rotate_head_, SUFFIX)(const ELEMENT *x, const ELEMENT *weight, const float *cos, const float *sin, ELEMENT *out, int d, float eps) {
  ELEMENT normed[MAX_HEAD_DIM];
  if (weight) {
    JOIN(scale_row_, SUFFIX)(x, weight, normed, d, JOIN(inverse_rms_, SUFFIX)(x, d, eps));
    x = normed;
  }
  const int half = d / 2;
  for (int at = 0; at < half; at += 16) {
    const __mmask16 mask = first_lanes16(half - at);
    const __m512 low = LOAD16(mask, x + at), high = LOAD16(mask, x + half + at);
    const __m512 first = _mm512_fmadd_ps(high, _mm512_maskz_loadu_ps(mask, sin + at), _mm512_mul_ps(low, _mm512_maskz_loadu_ps(mask, cos + at)));
    const __m512 second = _mm512_fmadd_ps(low, _mm512_maskz_loadu_ps(mask, sin + half + at), _mm512_mul_ps(high, _mm512_maskz_loadu_ps(mask, cos + half + at)));
    STORE16(mask, out + at, first);
    STORE16(mask, out + half + at, second);
  }
}

/* qkv [n, n_heads + 2 n_kv_heads, d]; q out [n, n_heads, d]; K and V go to the pages at slots (page * block_size + offset, -1 nowhere). */
void JOIN(rope_and_cache_, SUFFIX)(const ELEMENT *qkv, const float *cos, const float *sin, ELEMENT *pages, const int64_t *slots,
                                   const ELEMENT *q_norm, const ELEMENT *k_norm, ELEMENT *q, int n, int n_heads, int n_kv_heads,
                                   int d, int block_size, float eps, int threads) {
#pragma omp parallel for schedule(static) num_threads((size_t)n * n_heads * d < SERIAL_BELOW ? 1 : threads)
  for (int t = 0; t < n; t++) {
    const ELEMENT *from = qkv + (size_t)t * (n_heads + 2 * n_kv_heads) * d;
    const float *cosines = cos + (size_t)t * d, *sines = sin + (size_t)t * d;
    for (int h = 0; h < n_heads; h++)
      JOIN(rotate_head_, SUFFIX)(from + h * d, q_norm, cosines, sines, q + ((size_t)t * n_heads + h) * d, d, eps);
    if (slots[t] < 0) continue;
    const size_t head_stride = (size_t)block_size * d;
    ELEMENT *key = pages + (slots[t] / block_size) * 2 * n_kv_heads * head_stride + (slots[t] % block_size) * d;
    for (int h = 0; h < n_kv_heads; h++) {
      JOIN(rotate_head_, SUFFIX)(from + (n_heads + h) * d, k_norm, cosines, sines, key + h * head_stride, d, eps);
      memcpy(key + (n_kv_heads + h) * head_stride, from + (n_heads + n_kv_heads + h) * d, d * sizeof(ELEMENT));
    }
  }
}

#undef JOIN
#undef JOIN_
#undef ELEMENT
#undef LOAD16
#undef STORE16
#undef SUFFIX
