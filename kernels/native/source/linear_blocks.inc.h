/* A whole product out of tiles. The including file defines NAME, INPUT, WEIGHT, OUTPUT and ARGUMENTS as in linear_tile.inc.h, the
 * function NAME_tile, W_STRIDE(k): how many WEIGHT one column takes, and MAX_COLS: of a tile of one row (16 or 8). */

/* A block of rows times a group of columns, into out [rows, GROUP]; row, column: where they lie in the whole. */
INLINE void JOIN(NAME, _group)(const INPUT *x, const WEIGHT *w, OUTPUT *out, int rows, int cols, int k,
                               const ARGUMENTS *args, int row, int column) {
#define TILE(n_rows, n_cols, r) \
  JOIN(NAME, _tile)(n_rows, n_cols, x + (size_t)(r) * k, w + c * W_STRIDE(k), out + (r) * GROUP + c, k, args, row + (r), column + c)
  int c = 0;
  if (rows == 1)
    for (; c + MAX_COLS <= cols; c += MAX_COLS) TILE(1, MAX_COLS, 0);
  if (rows == 2)
    for (; c + 8 <= cols; c += 8) TILE(2, 8, 0);
  for (; c + 4 <= cols; c += 4) {
    int r = 0;
    for (; r + 4 <= rows; r += 4) TILE(4, 4, r);
    if (rows - r == 3) TILE(3, 4, r);
    if (rows - r == 2) TILE(2, 4, r);
    if (rows - r == 1) TILE(1, 4, r);
  }
  for (; c < cols; c++)
    for (int r = 0; r < rows; r++) TILE(1, 1, r);
#undef TILE
}

/* x [m, k], w [n, k], out [m, n]. Rows go through in blocks that stay in the second-level cache while the weights stream past;
 * a group's outputs are gathered first, so that whole cache lines of `out` are written. */
static void NAME(const INPUT *x, const WEIGHT *w, OUTPUT *out, int m, int n, int k, const ARGUMENTS *args, int threads) {
  const int fitting = BLOCK_BYTES / (k * (int)sizeof(INPUT)) & ~3;
  const int block = fitting < 4 ? 4 : fitting > MAX_BLOCK ? MAX_BLOCK : fitting;
  const int groups = (n + GROUP - 1) / GROUP;
  for (int row = 0; row < m; row += block) {
    const int rows = m - row < block ? m - row : block;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int g = 0; g < groups; g++) {
      OUTPUT part[MAX_BLOCK * GROUP];
      const int first = g * GROUP, cols = n - first < GROUP ? n - first : GROUP;
      JOIN(NAME, _group)(x + (size_t)row * k, w + first * W_STRIDE(k), part, rows, cols, k, args, row, first);
      for (int r = 0; r < rows; r++) memcpy(out + (size_t)(row + r) * n + first, part + r * GROUP, cols * sizeof(OUTPUT));
    }
  }
}

#undef JOIN
#undef JOIN_
#undef NAME
#undef INPUT
#undef WEIGHT
#undef OUTPUT
#undef ARGUMENTS
#undef W_STRIDE
#undef MAX_COLS
