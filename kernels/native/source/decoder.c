/* All layers of a decoder without a way back to Python between the kernels: for the few rows of a decode step, forty
 * microseconds a layer would go there. The order of the kernels is that of engine/models/decoder.py. */
#include "kernels.h"

#include <stdlib.h>

#define SUFFIX f32
#define ELEMENT float
#include "decoder_type.inc.h"

#define SUFFIX bf16
#define ELEMENT bf16
#include "decoder_type.inc.h"
