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

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define W_STRIDE(k) (size_t)(k)
#define MAX_COLS 16

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
      VECTOR b = LOAD_W(WIDTH, w + c * W_STRIDE(k) + at);
      _mm_prefetch((const char *)(w + (c + cols) * W_STRIDE(k) + at), _MM_HINT_T1);
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
      VECTOR b = LOAD_W(k - at, w + c * W_STRIDE(k) + at);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) acc[r * cols + c] = DOT(acc[r * cols + c], a[r], b);
    }
  }
  STORE(rows, cols, out, GROUP, FINISH(rows, cols, args, row, column, SUM_LANES(acc)));
}

#include "linear_blocks.inc.h"

#undef WIDTH
#undef VECTOR
#undef LOAD_X
#undef LOAD_W
#undef SUM
#undef DOT
#undef SUM_LANES
#undef FINISH
#undef STORE
