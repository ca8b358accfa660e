// GGML's blocks as numbers: each of a few elements that share a scale, some with scales of scales.
#ifndef LADE_GPU_GGML_H
#define LADE_GPU_GGML_H

#include "common/formats/dtype.h"

#include <stddef.h>
#include <stdint.h>

// Turns one block, of lade_dtype_block(its type) elements.
typedef void lade_ggml_block_t(const uint8_t *block, float *out);

// The function of a type, NULL for one that lade does not dequantise.
lade_ggml_block_t *lade_ggml_block(lade_dtype_t type);

#endif
