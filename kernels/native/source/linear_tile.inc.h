/* out = finish(x W^T) for one pair of formats. The including file defines
 *
 *   NAME               the function
 *   INPUT, WEIGHT, OUTPUT  element types of x, W and out
 *   WIDTH              elements in a vector of 512 bits
 *   VECTOR             that vector; LOAD_X(n, p) and LOAD_W(n, p) fill it from p, the n elements there are, WIDTH or fewer
 *   SUM                16 partial sums; DOT(acc, a, b) adds the products of a and b to them
 *   SUM_LANES          what adds 16 of them up (common.h)
 *   ARGUMENTS          a struct of what else the function takes
 *   FINISH(rows, cols, args, row, column, sums)  the 16 outputs of a tile as floats; row, column: where it begins
 *   STORE(rows, cols, out, stride, tile)  writes them
 *
 * Every output is one SUM over all of k, then one tree of additions, whatever tile it lies in: that makes a row independent
 * of the batch. Tiles of 4 x 4 outputs need 8 loads for 16 products, so even many rows run at the speed of the multiplier.
 * Weights are read once per block of rows, in the order they lie in memory, and fetched into the second-level cache a tile ahead: the
 * hardware's own prefetching stops at the end of each of the rows that a tile reads side by side. */

#define GROUP 32                 /* columns of weights that one thread takes at a time */
#define MAX_BLOCK 128            /* most rows of a block */
#define BLOCK_BYTES (512 * 1024) /* of x in a block: half of a second-level cache */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

INLINE void JOIN(NAME, _tile)(const int rows, const int cols, const INPUT *x, const WEIGHT *w, OUTPUT *out, int k,
                              const ARGUMENTS *args, int row, int column) {
  SUM acc[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) memset(&acc[i], 0, sizeof(SUM));
  int at = 0;
  for (; at + WIDTH <= k; at += WIDTH) {
    VECTOR a[4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) a[r] = LOAD_X(WIDTH, x + (size_t)r * k + at);
#pragma GCC unroll 16
    for (int c = 0; c < cols; c++) {
      VECTOR b = LOAD_W(WIDTH, w + (size_t)c * k + at);
      _mm_prefetch((const char *)(w + (size_t)(c + cols) * k + at), _MM_HINT_T1);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) acc[r * cols + c] = DOT(acc[r * cols + c], a[r], b);
    }
  }
  if (at < k) {
    VECTOR a[4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) a[r] = LOAD_X(k - at, x + (size_t)r * k + at);
#pragma GCC unroll 16
    for (int c = 0; c < cols; c++) {
      VECTOR b = LOAD_W(k - at, w + (size_t)c * k + at);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) acc[r * cols + c] = DOT(acc[r * cols + c], a[r], b);
    }
  }
  STORE(rows, cols, out, GROUP, FINISH(rows, cols, args, row, column, SUM_LANES(acc)));
}

/* A block of rows times a group of columns, into out [rows, GROUP]; row, column: where they lie in the whole. */
INLINE void JOIN(NAME, _group)(const INPUT *x, const WEIGHT *w, OUTPUT *out, int rows, int cols, int k,
                               const ARGUMENTS *args, int row, int column) {
#define TILE(n_rows, n_cols, r) \
  JOIN(NAME, _tile)(n_rows, n_cols, x + (size_t)(r) * k, w + (size_t)c * k, out + (r) * GROUP + c, k, args, row + (r), column + c)
  int c = 0;
  if (rows == 1)
    for (; c + 16 <= cols; c += 16) TILE(1, 16, 0);
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
      JOIN(NAME, _group)(x + (size_t)row * k, w + (size_t)first * k, part, rows, cols, k, args, row, first);
      for (int r = 0; r < rows; r++) memcpy(out + (size_t)(row + r) * n + first, part + r * GROUP, cols * sizeof(OUTPUT));
    }
  }
}

#undef GROUP
#undef MAX_BLOCK
#undef BLOCK_BYTES
#undef JOIN
#undef JOIN_
#undef NAME
#undef INPUT
#undef WEIGHT
#undef OUTPUT
#undef WIDTH
#undef VECTOR
#undef LOAD_X
#undef LOAD_W
#undef SUM
#undef DOT
#undef SUM_LANES
#undef ARGUMENTS
#undef FINISH
#undef STORE
