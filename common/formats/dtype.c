// The table of element types.
#include "common/formats/dtype.h"

#include <string.h>

// clang-format off
static const struct {
    const char *name;
    uint16_t size;  // bytes of a block
    uint16_t block; // elements in it
} s_dtypes[] = {
    [LADE_DTYPE_BOOL]        = {"BOOL",          1,   1},
    [LADE_DTYPE_U8]          = {"U8",            1,   1},
    [LADE_DTYPE_I8]          = {"I8",            1,   1},
    [LADE_DTYPE_F8_E5M2]     = {"F8_E5M2",       1,   1},
    [LADE_DTYPE_F8_E4M3]     = {"F8_E4M3",       1,   1},
    [LADE_DTYPE_F8_E8M0]     = {"F8_E8M0",       1,   1},
    [LADE_DTYPE_F8_E4M3FNUZ] = {"F8_E4M3FNUZ",   1,   1},
    [LADE_DTYPE_F8_E5M2FNUZ] = {"F8_E5M2FNUZ",   1,   1},
    [LADE_DTYPE_I16]         = {"I16",           2,   1},
    [LADE_DTYPE_U16]         = {"U16",           2,   1},
    [LADE_DTYPE_F16]         = {"F16",           2,   1},
    [LADE_DTYPE_BF16]        = {"BF16",          2,   1},
    [LADE_DTYPE_I32]         = {"I32",           4,   1},
    [LADE_DTYPE_U32]         = {"U32",           4,   1},
    [LADE_DTYPE_F32]         = {"F32",           4,   1},
    [LADE_DTYPE_I64]         = {"I64",           8,   1},
    [LADE_DTYPE_U64]         = {"U64",           8,   1},
    [LADE_DTYPE_F64]         = {"F64",           8,   1},
    [LADE_DTYPE_C32]         = {"C32",           4,   1},
    [LADE_DTYPE_C64]         = {"C64",           8,   1},
    [LADE_DTYPE_C128]        = {"C128",         16,   1},
    [LADE_DTYPE_QI8]         = {"QI8",           1,   1},
    [LADE_DTYPE_QU8]         = {"QU8",           1,   1},
    [LADE_DTYPE_QI32]        = {"QI32",          4,   1},
    [LADE_DTYPE_U1]          = {"U1",            1,   8},
    [LADE_DTYPE_U2]          = {"U2",            1,   4},
    [LADE_DTYPE_I2]          = {"I2",            1,   4},
    [LADE_DTYPE_U4]          = {"U4",            1,   2},
    [LADE_DTYPE_I4]          = {"I4",            1,   2},
    [LADE_DTYPE_F4]          = {"F4",            1,   2},
    [LADE_DTYPE_F6_E2M3]     = {"F6_E2M3",       3,   4},
    [LADE_DTYPE_F6_E3M2]     = {"F6_E3M2",       3,   4},
    [LADE_DTYPE_Q4_0]        = {"Q4_0",         18,  32},
    [LADE_DTYPE_Q4_1]        = {"Q4_1",         20,  32},
    [LADE_DTYPE_Q5_0]        = {"Q5_0",         22,  32},
    [LADE_DTYPE_Q5_1]        = {"Q5_1",         24,  32},
    [LADE_DTYPE_Q8_0]        = {"Q8_0",         34,  32},
    [LADE_DTYPE_Q8_1]        = {"Q8_1",         36,  32},
    [LADE_DTYPE_Q2_K]        = {"Q2_K",         84, 256},
    [LADE_DTYPE_Q3_K]        = {"Q3_K",        110, 256},
    [LADE_DTYPE_Q4_K]        = {"Q4_K",        144, 256},
    [LADE_DTYPE_Q5_K]        = {"Q5_K",        176, 256},
    [LADE_DTYPE_Q6_K]        = {"Q6_K",        210, 256},
    [LADE_DTYPE_Q8_K]        = {"Q8_K",        292, 256},
    [LADE_DTYPE_IQ1_S]       = {"IQ1_S",        50, 256},
    [LADE_DTYPE_IQ1_M]       = {"IQ1_M",        56, 256},
    [LADE_DTYPE_IQ2_XXS]     = {"IQ2_XXS",      66, 256},
    [LADE_DTYPE_IQ2_XS]      = {"IQ2_XS",       74, 256},
    [LADE_DTYPE_IQ2_S]       = {"IQ2_S",        82, 256},
    [LADE_DTYPE_IQ3_XXS]     = {"IQ3_XXS",      98, 256},
    [LADE_DTYPE_IQ3_S]       = {"IQ3_S",       110, 256},
    [LADE_DTYPE_IQ4_NL]      = {"IQ4_NL",       18,  32},
    [LADE_DTYPE_IQ4_XS]      = {"IQ4_XS",      136, 256},
    [LADE_DTYPE_TQ1_0]       = {"TQ1_0",        54, 256},
    [LADE_DTYPE_TQ2_0]       = {"TQ2_0",        66, 256},
    [LADE_DTYPE_MXFP4]       = {"MXFP4",        17,  32},
    [LADE_DTYPE_NVFP4]       = {"NVFP4",        36,  64},
    [LADE_DTYPE_Q1_0]        = {"Q1_0",         18, 128},
    [LADE_DTYPE_Q2_0]        = {"Q2_0",         18,  64},
};
// clang-format on
_Static_assert(sizeof s_dtypes / sizeof *s_dtypes == LADE_DTYPE_COUNT, "a dtype has no row");

const char *
lade_dtype_name(lade_dtype_t dtype)
{
    return s_dtypes[dtype].name;
}

size_t
lade_dtype_size(lade_dtype_t dtype)
{
    return s_dtypes[dtype].size;
}

size_t
lade_dtype_block(lade_dtype_t dtype)
{
    return s_dtypes[dtype].block;
}

bool
lade_dtype_is_ggml(lade_dtype_t dtype)
{
    return dtype >= LADE_DTYPE_Q4_0 && dtype < LADE_DTYPE_COUNT;
}

bool
lade_dtype_find(const char *name, size_t len, lade_dtype_t *dtype_p)
{
    for (lade_dtype_t i = 0; i < LADE_DTYPE_COUNT; i++)
        if (strlen(s_dtypes[i].name) == len && memcmp(s_dtypes[i].name, name, len) == 0) {
            *dtype_p = i;
            return true;
        }
    return false;
}

bool
lade_dtype_bytes(lade_dtype_t dtype, const uint64_t *shape, size_t rank, uint64_t *bytes_p)
{
    uint64_t elements = 1, block = s_dtypes[dtype].block;
    for (size_t i = 0; i < rank; i++)
        if (__builtin_mul_overflow(elements, shape[i], &elements))
            return false;
    if (lade_dtype_is_ggml(dtype) && (rank == 0 || shape[rank - 1] % block != 0))
        return false;
    uint64_t blocks = elements / block + (elements % block != 0);
    return !__builtin_mul_overflow(blocks, s_dtypes[dtype].size, bytes_p);
}
