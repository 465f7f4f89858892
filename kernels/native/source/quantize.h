/* Activations to int8 with one scale per token. */
#pragma once

#include "common.h"

#include <stdlib.h>

INLINE __m512 load_f32_lanes(__mmask16 mask, const void *p) { return _mm512_maskz_loadu_ps(mask, p); }

INLINE __m512 load_bf16_lanes(__mmask16 mask, const void *p) { return maskload_bf16(mask, p); }

/* q = round(x * (127 / max|x|)) + offset and scale = max|x| / 127, for k elements of `size` bytes that `load` reads. */
INLINE void quantize_row(__m512 (*load)(__mmask16, const void *), const void *x, int size, uint8_t *q, int offset, float *scale, int k) {
  const char *bytes = x;
  __m512 most = _mm512_setzero_ps();
  for (int at = 0; at < k; at += 16)
    most = _mm512_max_ps(most, _mm512_abs_ps(load(first_lanes16(k - at), bytes + (size_t)at * size)));
  const float max = _mm512_reduce_max_ps(most);
  const __m512 factor = _mm512_set1_ps(max > 0 ? 127.0f / max : 0.0f);
  *scale = max / 127.0f;
  for (int at = 0; at < k; at += 16) {
    const __mmask16 mask = first_lanes16(k - at);
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(load(mask, bytes + (size_t)at * size), factor));
    _mm512_mask_cvtepi32_storeu_epi8(q + at, mask, _mm512_add_epi32(whole, _mm512_set1_epi32(offset)));
  }
}
