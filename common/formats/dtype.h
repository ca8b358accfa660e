// The types a tensor's elements have: those of safetensors and torch, packed ones, GGML's blocks.
//
// Some are stored in blocks of several elements (Q4_K: 256 elements in 144 bytes; F4: two in one
// byte). A block of more than one element never spans rows: the last dimension is a whole number of
// blocks, unless the type packs plain bits (lade_dtype_bytes rounds those up).
#ifndef LADE_DTYPE_H
#define LADE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    LADE_DTYPE_BOOL,
    LADE_DTYPE_U8,
    LADE_DTYPE_I8,
    LADE_DTYPE_F8_E5M2,
    LADE_DTYPE_F8_E4M3,
    LADE_DTYPE_F8_E8M0,
    LADE_DTYPE_F8_E4M3FNUZ,
    LADE_DTYPE_F8_E5M2FNUZ,
    LADE_DTYPE_I16,
    LADE_DTYPE_U16,
    LADE_DTYPE_F16,
    LADE_DTYPE_BF16,
    LADE_DTYPE_I32,
    LADE_DTYPE_U32,
    LADE_DTYPE_F32,
    LADE_DTYPE_I64,
    LADE_DTYPE_U64,
    LADE_DTYPE_F64,
    LADE_DTYPE_C32, // complex: two F16
    LADE_DTYPE_C64,
    LADE_DTYPE_C128,
    // torch's quantised types: integers with a scale beside them
    LADE_DTYPE_QI8,
    LADE_DTYPE_QU8,
    LADE_DTYPE_QI32,
    // several elements a byte
    LADE_DTYPE_U1,
    LADE_DTYPE_U2,
    LADE_DTYPE_I2,
    LADE_DTYPE_U4,
    LADE_DTYPE_I4,
    LADE_DTYPE_F4,
    LADE_DTYPE_F6_E2M3,
    LADE_DTYPE_F6_E3M2,
    // GGML's blocks: lade_dtype_is_ggml, from Q4_0 on
    LADE_DTYPE_Q4_0,
    LADE_DTYPE_Q4_1,
    LADE_DTYPE_Q5_0,
    LADE_DTYPE_Q5_1,
    LADE_DTYPE_Q8_0,
    LADE_DTYPE_Q8_1,
    LADE_DTYPE_Q2_K,
    LADE_DTYPE_Q3_K,
    LADE_DTYPE_Q4_K,
    LADE_DTYPE_Q5_K,
    LADE_DTYPE_Q6_K,
    LADE_DTYPE_Q8_K,
    LADE_DTYPE_IQ1_S,
    LADE_DTYPE_IQ1_M,
    LADE_DTYPE_IQ2_XXS,
    LADE_DTYPE_IQ2_XS,
    LADE_DTYPE_IQ2_S,
    LADE_DTYPE_IQ3_XXS,
    LADE_DTYPE_IQ3_S,
    LADE_DTYPE_IQ4_NL,
    LADE_DTYPE_IQ4_XS,
    LADE_DTYPE_TQ1_0,
    LADE_DTYPE_TQ2_0,
    LADE_DTYPE_MXFP4,
    LADE_DTYPE_NVFP4,
    LADE_DTYPE_Q1_0,
    LADE_DTYPE_Q2_0,
    LADE_DTYPE_COUNT
} lade_dtype_t;

const char *lade_dtype_name(lade_dtype_t dtype); // as safetensors or GGML writes it: "F16", "Q4_K"
size_t lade_dtype_size(lade_dtype_t dtype);      // bytes of one element, of a block type of a block
size_t lade_dtype_block(lade_dtype_t dtype);     // elements in a block; 1 for a plain type
bool lade_dtype_is_ggml(lade_dtype_t dtype);     // one of GGML's block types
bool lade_dtype_find(const char *name, size_t len, lade_dtype_t *dtype_p);

// The bytes of a whole tensor. False if a product is over 64 bits, or GGML's blocks do not divide
// the last dimension.
bool lade_dtype_bytes(lade_dtype_t dtype, const uint64_t *shape, size_t rank, uint64_t *bytes_p);

#endif
