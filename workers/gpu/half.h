// Numbers of 16 and 8 bits to and from float, one at a time; written so that a compiler can do
// several at once.
#ifndef LADE_GPU_HALF_H
#define LADE_GPU_HALF_H

#include <stdint.h>
#include <string.h>

static inline float
lade_float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t
lade_bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float
lade_half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = (uint32_t)(half & 0x7fff) << 13;
    if (rest >= 0x0f800000) // infinite, or no number
        return lade_float_of_bits(sign | rest | 0x70000000);
    // Moved to where float has its exponent, the number is 2^-112 of what it means: also a small
    // one.
    return lade_float_of_bits(lade_bits_of_float(lade_float_of_bits(rest) * 0x1p112f) | sign);
}

static inline uint16_t
lade_float_to_half(float value)
{
    uint32_t bits = lade_bits_of_float(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x1ff)); // no number, quietly
    if (rest >= 0x477ff000)                                      // 65520 and more
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) // less than 2^-14: an addition rounds where the smallest halves end
        return (uint16_t)(sign | (lade_bits_of_float(lade_float_of_bits(rest) + 0.5f) & 0xffff));
    return (uint16_t)(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13);
}

static inline float
lade_bfloat_to_float(uint16_t bfloat)
{
    return lade_float_of_bits((uint32_t)bfloat << 16);
}

static inline uint16_t
lade_float_to_bfloat(float value)
{
    uint32_t bits = lade_bits_of_float(value);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
}

// The nearest float that is not even if it is not the number itself. Rounded once more to a type of
// fewer bits it is what the number itself would be rounded to.
static inline float
lade_double_to_odd(double value)
{
    float near = (float)value;
    if ((double)near == value || value != value)
        return near;
    uint32_t bits = lade_bits_of_float(near);
    double size = value < 0 ? -value : value, got = (double)(near < 0 ? -near : near);
    if (got > size)
        bits--; // away from zero: one back
    return lade_float_of_bits(bits | 1);
}

#endif
