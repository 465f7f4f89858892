/* linear_tile.inc.h for int8 times int8. */
#define INPUT uint8_t
#define WEIGHT int8_t
#define WIDTH 64
#define VECTOR __m512i
#define LOAD_X(n, p) ((n) == WIDTH ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(first_lanes64(n), p))
#define LOAD_W(n, p) LOAD_X(n, p)
#define SUM __m512i
#define DOT(acc, a, b) _mm512_dpbusd_epi32(acc, a, b)
#define SUM_LANES sum_lanes_16_int
#define ARGUMENTS w8a8_arguments
#define FINISH w8a8_finish
