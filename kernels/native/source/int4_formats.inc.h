/* linear_blocks.inc.h for packed weights of 4 bits. */
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define INPUT int8_t
#define WEIGHT uint8_t
#define ARGUMENTS int4_arguments
#define W_STRIDE(k) COLUMN_BYTES(k)
#define MAX_COLS 8
