/* What lies between the products of a decoder layer: norms, gated activation, rotary embedding with the write into the pages. All
 * arithmetic is float32, rounded once on the way out. */
#include "kernels.h"

#include <math.h>

#define SERIAL_BELOW 32768 /* elements: waking a second thread costs more than they do */
#define MAX_HEAD_DIM 1024

/* x / (1 + exp(-slope)), by the exponential of -|slope|. */
INLINE __m512 times_logistic(__m512 x, __m512 slope) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 e = exp_neg(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(slope)));
  const __mmask16 negative = _mm512_cmp_ps_mask(slope, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_div_ps(_mm512_mul_ps(x, _mm512_mask_blend_ps(negative, one, e)), _mm512_add_ps(one, e));
}

INLINE __m512 silu(__m512 x) { return times_logistic(x, x); }

/* The tanh form: (1 + tanh(u)) / 2 is the logistic function of 2 u; 2 sqrt(2 / pi) = 1.595769. */
INLINE __m512 gelu_tanh(__m512 x) {
  const __m512 cubic = _mm512_mul_ps(_mm512_set1_ps(0.044715f), _mm512_mul_ps(x, _mm512_mul_ps(x, x)));
  return times_logistic(x, _mm512_mul_ps(_mm512_set1_ps(1.59576912f), _mm512_add_ps(x, cubic)));
}

#define SUFFIX f32
#define ELEMENT float
#define LOAD16(mask, p) _mm512_maskz_loadu_ps(mask, p)
#define STORE16(mask, p, x) _mm512_mask_storeu_ps(p, mask, x)
#include "layer_type.inc.h"

#define SUFFIX bf16
#define ELEMENT bf16
#define LOAD16(mask, p) maskload_bf16(mask, p)
#define STORE16(mask, p, x) _mm256_mask_storeu_epi16(p, mask, to_bf16(x))
#include "layer_type.inc.h"
