// Dequantising: a row a type. q are the small integers of a block, d and m its scale and minimum.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif
#include "workers/gpu/ggml.h"

#include "workers/gpu/half.h"

#include <string.h>

static inline float
s_half(const uint8_t *at)
{
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return lade_half_to_float(bits);
}

// ---------------------------------------------------------------------------------------------------
// 32 elements: the low halves of the bytes are the first 16, the high halves the others

static void
s_q4_0(const uint8_t *block, float *out)
{
    float d = s_half(block);
    for (size_t i = 0; i < 16; i++) {
        out[i] = (float)((block[2 + i] & 15) - 8) * d;
        out[i + 16] = (float)((block[2 + i] >> 4) - 8) * d;
    }
}

static void
s_q4_1(const uint8_t *block, float *out)
{
    float d = s_half(block), m = s_half(block + 2);
    for (size_t i = 0; i < 16; i++) {
        out[i] = (float)(block[4 + i] & 15) * d + m;
        out[i + 16] = (float)(block[4 + i] >> 4) * d + m;
    }
}

// The fifth bits of all 32 stand in a word.
static inline void
s_five(const uint8_t *high, const uint8_t *low, int q[32])
{
    uint32_t bits;
    memcpy(&bits, high, sizeof bits);
    for (size_t i = 0; i < 16; i++) {
        q[i] = (low[i] & 15) | (int)(bits >> i & 1) << 4;
        q[i + 16] = low[i] >> 4 | (int)(bits >> (i + 16) & 1) << 4;
    }
}

static void
s_q5_0(const uint8_t *block, float *out)
{
    int q[32];
    float d = s_half(block);
    s_five(block + 2, block + 6, q);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)(q[i] - 16) * d;
}

static void
s_q5_1(const uint8_t *block, float *out)
{
    int q[32];
    float d = s_half(block), m = s_half(block + 2);
    s_five(block + 4, block + 8, q);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)q[i] * d + m;
}

static void
s_q8_0(const uint8_t *block, float *out)
{
    float d = s_half(block);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)(int8_t)block[2 + i] * d;
}

static void
s_q8_1(const uint8_t *block, float *out)
{
    float d = s_half(block);
    for (size_t i = 0; i < 32; i++)
        out[i] = (float)(int8_t)block[4 + i] * d;
}

static const int8_t s_uneven[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

static void
s_iq4_nl(const uint8_t *block, float *out)
{
    float d = s_half(block);
    for (size_t i = 0; i < 16; i++) {
        out[i] = d * (float)s_uneven[block[2 + i] & 15];
        out[i + 16] = d * (float)s_uneven[block[2 + i] >> 4];
    }
}

// Twice the numbers of F4, so the scale is half of the power of two that the first byte names.
static const float s_f4_twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, -0.0f, -1, -2, -3, -4, -6, -8, -12};

static void
s_mxfp4(const uint8_t *block, float *out)
{
    uint32_t bits = block[0] < 2 ? 0x00200000u << block[0] : (uint32_t)(block[0] - 1) << 23;
    float d;
    memcpy(&d, &bits, sizeof d);
    for (size_t i = 0; i < 16; i++) {
        out[i] = d * s_f4_twice[block[1 + i] & 15];
        out[i + 16] = d * s_f4_twice[block[1 + i] >> 4];
    }
}

// ---------------------------------------------------------------------------------------------------
// 256 elements in groups of 16 or 32, each with a small scale of its own

static void
s_q2_k(const uint8_t *block, float *out)
{
    const uint8_t *scales = block, *q = block + 16;
    float d = s_half(block + 80), m = s_half(block + 82);
    for (size_t group = 0; group < 16; group++) {
        // 32 bytes hold 128 elements: the lowest pair of bits the first 32, and so on
        const uint8_t *from = q + group / 8 * 32 + group % 2 * 16;
        unsigned shift = group % 8 / 2 * 2;
        float scale = d * (float)(scales[group] & 15), least = m * (float)(scales[group] >> 4);
        for (size_t i = 0; i < 16; i++)
            *out++ = scale * (float)(from[i] >> shift & 3) - least;
    }
}

static void
s_q3_k(const uint8_t *block, float *out)
{
    const uint8_t *high = block, *q = block + 32, *scales = block + 96;
    float d = s_half(block + 108);
    for (size_t group = 0; group < 16; group++) {
        const uint8_t *from = q + group / 8 * 32 + group % 2 * 16, *bits = high + group % 2 * 16;
        unsigned shift = group % 8 / 2 * 2, bit = (unsigned)group / 2;
        int low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
        int scale = low | (scales[8 + group % 4] >> group / 4 * 2 & 3) << 4;
        float by = d * (float)(scale - 32);
        for (size_t i = 0; i < 16; i++)
            *out++ = by * (float)((from[i] >> shift & 3) - (bits[i] >> bit & 1 ? 0 : 4));
    }
}

// Eight scales and eight minima of six bits each, in twelve bytes.
static inline void
s_scale_and_least(const uint8_t *packed, size_t group, uint8_t *scale, uint8_t *least)
{
    if (group < 4) {
        *scale = packed[group] & 63;
        *least = packed[group + 4] & 63;
        return;
    }
    *scale = (uint8_t)((packed[group + 4] & 15) | packed[group - 4] >> 6 << 4);
    *least = (uint8_t)(packed[group + 4] >> 4 | packed[group] >> 6 << 4);
}

static void
s_q4_k(const uint8_t *block, float *out)
{
    float d = s_half(block), m = s_half(block + 2);
    for (size_t group = 0; group < 8; group++) {
        const uint8_t *q = block + 16 + group / 2 * 32;
        unsigned shift = group % 2 * 4;
        uint8_t scale, least;
        s_scale_and_least(block + 4, group, &scale, &least);
        float by = d * (float)scale, off = m * (float)least;
        for (size_t i = 0; i < 32; i++)
            *out++ = by * (float)(q[i] >> shift & 15) - off;
    }
}

static void
s_q5_k(const uint8_t *block, float *out)
{
    const uint8_t *high = block + 16;
    float d = s_half(block), m = s_half(block + 2);
    for (size_t group = 0; group < 8; group++) {
        const uint8_t *q = block + 48 + group / 2 * 32;
        unsigned shift = group % 2 * 4;
        uint8_t scale, least;
        s_scale_and_least(block + 4, group, &scale, &least);
        float by = d * (float)scale, off = m * (float)least;
        for (size_t i = 0; i < 32; i++)
            *out++ = by * (float)((q[i] >> shift & 15) + (high[i] >> group & 1) * 16) - off;
    }
}

static void
s_q6_k(const uint8_t *block, float *out)
{
    float d = s_half(block + 208);
    for (size_t group = 0; group < 16; group++) {
        size_t part = group / 2, half = group % 2 * 16; // parts of 32 elements
        const uint8_t *low = block + part / 4 * 64 + part % 2 * 32 + half;
        const uint8_t *high = block + 128 + part / 4 * 32 + half;
        unsigned shift = part % 4 / 2 * 4, pair = part % 4 * 2;
        float by = d * (float)(int8_t)block[192 + group];
        for (size_t i = 0; i < 16; i++)
            *out++ = by * (float)(((low[i] >> shift & 15) | (high[i] >> pair & 3) << 4) - 32);
    }
}

static void
s_q8_k(const uint8_t *block, float *out)
{
    float d;
    memcpy(&d, block, sizeof d);
    for (size_t i = 0; i < 256; i++)
        out[i] = d * (float)(int8_t)block[4 + i];
}

static void
s_iq4_xs(const uint8_t *block, float *out)
{
    float d = s_half(block);
    uint16_t high;
    memcpy(&high, block + 2, sizeof high);
    for (size_t group = 0; group < 8; group++, out += 32) {
        const uint8_t *q = block + 8 + group * 16;
        int scale = (block[4 + group / 2] >> group % 2 * 4 & 15) | (high >> group * 2 & 3) << 4;
        float by = d * (float)(scale - 32);
        for (size_t i = 0; i < 16; i++) {
            out[i] = by * (float)s_uneven[q[i] & 15];
            out[i + 16] = by * (float)s_uneven[q[i] >> 4];
        }
    }
}

lade_ggml_block_t *
lade_ggml_block(lade_dtype_t type)
{
    static lade_ggml_block_t *const rows[LADE_DTYPE_COUNT] = {
        // clang-format off
        [LADE_DTYPE_Q4_0]   = s_q4_0,   [LADE_DTYPE_Q4_1]   = s_q4_1,   [LADE_DTYPE_Q5_0]  = s_q5_0,
        [LADE_DTYPE_Q5_1]   = s_q5_1,   [LADE_DTYPE_Q8_0]   = s_q8_0,   [LADE_DTYPE_Q8_1]  = s_q8_1,
        [LADE_DTYPE_Q2_K]   = s_q2_k,   [LADE_DTYPE_Q3_K]   = s_q3_k,   [LADE_DTYPE_Q4_K]  = s_q4_k,
        [LADE_DTYPE_Q5_K]   = s_q5_k,   [LADE_DTYPE_Q6_K]   = s_q6_k,   [LADE_DTYPE_Q8_K]  = s_q8_k,
        [LADE_DTYPE_IQ4_NL] = s_iq4_nl, [LADE_DTYPE_IQ4_XS] = s_iq4_xs, [LADE_DTYPE_MXFP4] = s_mxfp4,
        // clang-format on
    };
    return type < LADE_DTYPE_COUNT ? rows[type] : NULL;
}
