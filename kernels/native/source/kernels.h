/* The functions that Python calls, and their arguments: `library.py` says the same in ctypes. */
#pragma once

#include "common.h"

typedef struct {
  int32_t first_token, n_queries, context; /* the row's last n_queries positions out of context are computed */
  int32_t branch_from;                     /* keys at this position and later ones lie in places of a branch */
  const int32_t *table;                    /* pages, in the order of the places: a place is a position, but in a branch */
  const int32_t *branch;                   /* the places of positions branch_from … context - 1, or NULL */
} step_row;

typedef struct {
  int32_t n_heads, n_kv_heads, head_dim, block_size, window; /* window 0: none */
  float scale, softcap;                                      /* softcap 0: none */
} attention_shape;

enum { ELEMENTS, W8A8, INT4 }; /* what a projection's weights are */

typedef struct {
  const void *weight;
  const float *scale;   /* W8A8: [n_out] */
  const int32_t *sum;   /* W8A8: [n_out] */
  const float *bias;    /* [n_out] or NULL */
  int32_t n_in, n_out, form;
} projection;

typedef struct {
  const void *input_norm, *q_norm, *k_norm, *mlp_norm; /* q_norm, k_norm may be NULL */
  projection qkv, output, gate_up, down;
  void *pages;
  attention_shape shape;
  int32_t group, rope; /* which of a step's KV groups, and of its rotations */
} decoder_layer;

typedef struct {
  const step_row *rows;
  const int64_t *slots;
  int32_t n_rows;
} step_group;

#define DECLARE(SUFFIX, ELEMENT)                                                                                              \
  void linear_##SUFFIX(const ELEMENT *x, const ELEMENT *w, const float *bias, ELEMENT *out, int m, int n, int k, int threads); \
  int linear_w8a8_##SUFFIX(const ELEMENT *x, const int8_t *w, const float *w_scale, const int32_t *w_sum, const float *bias,   \
                           ELEMENT *out, int m, int n, int k, int threads);                                                   \
  int linear_int4_##SUFFIX(const ELEMENT *x, const uint8_t *w, const float *bias, ELEMENT *out, int m, int n, int k, int threads); \
  int paged_attention_##SUFFIX(const ELEMENT *q, size_t q_stride, const ELEMENT *pages, const step_row *rows, int n_rows,      \
                               const attention_shape *shape, ELEMENT *out, int threads);                                      \
  void rms_norm_##SUFFIX(const ELEMENT *x, const ELEMENT *weight, ELEMENT *out, int n, int d, float eps, int threads);         \
  void add_rms_norm_##SUFFIX(const ELEMENT *x, const ELEMENT *residual, const ELEMENT *weight, ELEMENT *out, ELEMENT *total,   \
                             int n, int d, float eps, int threads);                                                           \
  void add_##SUFFIX(const ELEMENT *x, ELEMENT *total, size_t n);                                                              \
  void silu_and_mul_##SUFFIX(const ELEMENT *gate_up, ELEMENT *out, int n, int d, int threads);                                 \
  void rope_and_cache_##SUFFIX(const ELEMENT *qkv, const float *cos, const float *sin, ELEMENT *pages, const int64_t *slots,   \
                               const ELEMENT *q_norm, const ELEMENT *k_norm, ELEMENT *q, int n, int n_heads, int n_kv_heads,  \
                               int d, int block_size, float eps, int threads);

DECLARE(f32, float)
DECLARE(bf16, bf16)
