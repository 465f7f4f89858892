/* decoder.c for one element type: ELEMENT, and SUFFIX of the kernels' names. */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

static int JOIN(project_, SUFFIX)(const projection *p, const ELEMENT *x, ELEMENT *out, int n, int threads) {
  if (p->form == W8A8) return JOIN(linear_w8a8_, SUFFIX)(x, p->weight, p->scale, p->sum, p->bias, out, n, p->n_out, p->n_in, threads);
  if (p->form == INT4) return JOIN(linear_int4_, SUFFIX)(x, p->weight, p->bias, out, n, p->n_out, p->n_in, threads);
  JOIN(linear_, SUFFIX)(x, p->weight, p->bias, out, n, p->n_out, p->n_in, threads);
  return 0;
}

/* residual [n, hidden]: embeddings, and in their place the result. cos, sin: of each rotation, [n, head_dim]. states: for each layer
 * where its output [n, hidden] goes as well, or NULL. Returns 0, or 1 where memory is out. */
int JOIN(decoder_layers_, SUFFIX)(const decoder_layer *layers, int n_layers, const step_group *groups, const float *const *cos,
                                  const float *const *sin, ELEMENT *residual, ELEMENT *const *states, int n, int hidden, float eps,
                                  int threads) {
  size_t widest = hidden;
  for (int i = 0; i < n_layers; i++) {
    if ((size_t)layers[i].qkv.n_out > widest) widest = layers[i].qkv.n_out;
    if ((size_t)layers[i].gate_up.n_out > widest) widest = layers[i].gate_up.n_out;
  }
  ELEMENT *buffers = malloc(4 * n * widest * sizeof(ELEMENT));
  if (!buffers) return 1;
  ELEMENT *normed = buffers, *wide = normed + n * widest, *half = wide + n * widest, *output = half + n * widest;
  int failed = 0;
  JOIN(rms_norm_, SUFFIX)(residual, layers[0].input_norm, normed, n, hidden, eps, threads);
  for (int i = 0; i < n_layers; i++) {
    const decoder_layer *layer = layers + i;
    const attention_shape *shape = &layer->shape;
    const step_group *group = groups + layer->group;
    failed |= JOIN(project_, SUFFIX)(&layer->qkv, normed, wide, n, threads);
    JOIN(rope_and_cache_, SUFFIX)(wide, cos[layer->rope], sin[layer->rope], layer->pages, group->slots, layer->q_norm, layer->k_norm, half, n,
                                  shape->n_heads, shape->n_kv_heads, shape->head_dim, shape->block_size, eps, threads);
    failed |= JOIN(paged_attention_, SUFFIX)(half, (size_t)shape->n_heads * shape->head_dim, layer->pages, group->rows, group->n_rows, shape,
                                             wide, threads);
    failed |= JOIN(project_, SUFFIX)(&layer->output, wide, output, n, threads);
    JOIN(add_rms_norm_, SUFFIX)(output, residual, layer->mlp_norm, normed, residual, n, hidden, eps, threads);
    failed |= JOIN(project_, SUFFIX)(&layer->gate_up, normed, wide, n, threads);
    JOIN(silu_and_mul_, SUFFIX)(wide, half, n, layer->gate_up.n_out / 2, threads);
    failed |= JOIN(project_, SUFFIX)(&layer->down, half, output, n, threads);
    if (i + 1 < n_layers)
      JOIN(add_rms_norm_, SUFFIX)(output, residual, layers[i + 1].input_norm, normed, residual, n, hidden, eps, threads);
    else
      JOIN(add_, SUFFIX)(output, residual, (size_t)n * hidden);
    if (states[i]) memcpy(states[i], residual, (size_t)n * hidden * sizeof(ELEMENT));
  }
  free(buffers);
  return failed;
}

#undef JOIN
#undef JOIN_
#undef SUFFIX
#undef ELEMENT
