// Casting through tiles of floats that stay in the first cache: every type has a row that widens it
// and one that narrows to it, so there are as many rows as types and not as pairs of them.
//
// Where the machine has F16C and AVX2 the same loops are taken in a version for it, eight numbers
// at a time.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") // before what is to be inlined
#endif
#include "workers/gpu/transform.h"

#include "common/formats/view.h"
#include "workers/gpu/ggml.h"
#include "workers/gpu/half.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

enum {
    S_TILE = 1024, // floats; a whole number of every type's blocks
};

// ---------------------------------------------------------------------------------------------------
// Widening: count elements of a type to floats. odd: of F64, to be narrowed further.

static void
s_widen_f64(const uint8_t *in, float *out, size_t count, bool odd)
{
    for (size_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, in + i * sizeof value, sizeof value);
        out[i] = odd ? lade_double_to_odd(value) : (float)value;
    }
}

static void
s_widen_f32(const uint8_t *in, float *out, size_t count, bool odd)
{
    (void)odd;
    memcpy(out, in, count * sizeof *out);
}

static void
s_widen_f16(const uint8_t *in, float *out, size_t count, bool odd)
{
    (void)odd;
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, in + i * sizeof half, sizeof half);
        out[i] = lade_half_to_float(half);
    }
}

static void
s_widen_bf16(const uint8_t *in, float *out, size_t count, bool odd)
{
    (void)odd;
    for (size_t i = 0; i < count; i++) {
        uint16_t bfloat;
        memcpy(&bfloat, in + i * sizeof bfloat, sizeof bfloat);
        out[i] = lade_bfloat_to_float(bfloat);
    }
}

// The first byte of a half.
static void
s_widen_e5m2(const uint8_t *in, float *out, size_t count, bool odd)
{
    (void)odd;
    for (size_t i = 0; i < count; i++)
        out[i] = lade_half_to_float((uint16_t)(in[i] << 8));
}

// No infinities; no number is only 7f and ff.
static void
s_widen_e4m3(const uint8_t *in, float *out, size_t count, bool odd)
{
    (void)odd;
    for (size_t i = 0; i < count; i++) {
        uint32_t sign = (uint32_t)(in[i] & 0x80) << 24, rest = in[i] & 0x7f;
        float size = lade_float_of_bits(rest << 20) * 0x1p120f;
        out[i] = lade_float_of_bits((rest == 0x7f ? 0x7fc00000 : lade_bits_of_float(size)) | sign);
    }
}

// ---------------------------------------------------------------------------------------------------
// Narrowing: floats to count elements of a type

static void
s_narrow_f32(const float *in, uint8_t *out, size_t count)
{
    memcpy(out, in, count * sizeof *in);
}

static void
s_narrow_f16(const float *in, uint8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half = lade_float_to_half(in[i]);
        memcpy(out + i * sizeof half, &half, sizeof half);
    }
}

static void
s_narrow_bf16(const float *in, uint8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t bfloat = lade_float_to_bfloat(in[i]);
        memcpy(out + i * sizeof bfloat, &bfloat, sizeof bfloat);
    }
}

// ---------------------------------------------------------------------------------------------------
// The same with the instructions there are for it

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) static void
s_widen_f16_wide(const uint8_t *in, float *out, size_t count, bool odd)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(in + i * 2))));
    s_widen_f16(in + i * 2, out + i, count - i, odd);
}

__attribute__((target("avx,f16c"))) static void
s_narrow_f16_wide(const float *in, uint8_t *out, size_t count)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128((void *)(out + i * 2),
                         _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    s_narrow_f16(in + i, out + i * 2, count - i);
}

__attribute__((target("avx,f16c"))) static void
s_widen_e5m2_wide(const uint8_t *in, float *out, size_t count, bool odd)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i bytes = _mm_loadl_epi64((const void *)(in + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), bytes)));
    }
    s_widen_e5m2(in + i, out + i, count - i, odd);
}

// By way of halves, whose exponents begin eight lower.
__attribute__((target("avx,f16c"))) static void
s_widen_e4m3_wide(const uint8_t *in, float *out, size_t count, bool odd)
{
    const __m128i size = _mm_set1_epi16(0x7f);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i bytes = _mm_cvtepu8_epi16(_mm_loadl_epi64((const void *)(in + i)));
        __m128i rest = _mm_and_si128(bytes, size);
        __m128i none = _mm_and_si128(_mm_cmpeq_epi16(rest, size), _mm_set1_epi16(0x7fff));
        __m128i sign = _mm_slli_epi16(_mm_andnot_si128(size, bytes), 8);
        __m128i half = _mm_or_si128(_mm_or_si128(sign, _mm_slli_epi16(rest, 7)), none);
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256)));
    }
    s_widen_e4m3(in + i, out + i, count - i, odd);
}

static bool
s_is_wide(void)
{
    unsigned a, b, c = 0, d; // clang 14 knows no name for f16c
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#else
#define s_widen_f16_wide s_widen_f16
#define s_widen_e5m2_wide s_widen_e5m2
#define s_widen_e4m3_wide s_widen_e4m3
#define s_narrow_f16_wide s_narrow_f16
static bool
s_is_wide(void)
{
    return false;
}
#endif

typedef void s_widen_t(const uint8_t *in, float *out, size_t count, bool odd);
typedef void s_narrow_t(const float *in, uint8_t *out, size_t count);

static const struct {
    s_widen_t *widen, *widen_wide; // NULL: not cast
    s_narrow_t *narrow, *narrow_wide;
} s_rows[LADE_DTYPE_COUNT] = {
    // clang-format off
    [LADE_DTYPE_F64]     = {s_widen_f64,  s_widen_f64,      NULL,          NULL},
    [LADE_DTYPE_F32]     = {s_widen_f32,  s_widen_f32,      s_narrow_f32,  s_narrow_f32},
    [LADE_DTYPE_F16]     = {s_widen_f16,  s_widen_f16_wide, s_narrow_f16,  s_narrow_f16_wide},
    [LADE_DTYPE_BF16]    = {s_widen_bf16, s_widen_bf16,     s_narrow_bf16, s_narrow_bf16},
    [LADE_DTYPE_F8_E5M2] = {s_widen_e5m2, s_widen_e5m2_wide, NULL,         NULL},
    [LADE_DTYPE_F8_E4M3] = {s_widen_e4m3, s_widen_e4m3_wide, NULL,         NULL},
    // clang-format on
};

bool
lade_transform_casts(lade_dtype_t from)
{
    return s_rows[from].widen || lade_ggml_block(from);
}

static void
s_widen_blocks(lade_dtype_t from, const uint8_t *in, float *out, size_t count)
{
    lade_ggml_block_t *turn = lade_ggml_block(from);
    size_t block = lade_dtype_block(from), size = lade_dtype_size(from);
    for (size_t i = 0; i < count; i += block, in += size, out += block)
        turn(in, out);
}

void
lade_transform_cast(lade_dtype_t from, const void *in, lade_dtype_t to, void *out, uint64_t count)
{
    float tile[S_TILE];
    const uint8_t *at = in;
    uint8_t *put = out;
    size_t block = lade_dtype_block(from), in_size = lade_dtype_size(from),
           out_size = lade_dtype_size(to);
    bool wide = s_is_wide();
    if (from == to) {
        memcpy(out, in, count / block * in_size);
        return;
    }
    s_widen_t *widen = wide ? s_rows[from].widen_wide : s_rows[from].widen;
    s_narrow_t *narrow = wide ? s_rows[to].narrow_wide : s_rows[to].narrow;
    assert(narrow && (widen || lade_ggml_block(from)) && count % block == 0);
    for (uint64_t done = 0; done < count; done += S_TILE) {
        size_t some = count - done < S_TILE ? (size_t)(count - done) : S_TILE;
        if (widen)
            widen(at, tile, some, to != LADE_DTYPE_F32);
        else
            s_widen_blocks(from, at, tile, some);
        narrow(tile, put, some);
        at += some / block * in_size;
        put += some * out_size;
    }
}

// ---------------------------------------------------------------------------------------------------
// Moving elements of size bytes

#define S_MOVE_EACH(type)                                                                          \
    for (uint64_t pixel = 0; pixel < pixels; pixel++)                                              \
        for (uint64_t channel = 0; channel < channels; channel++)                                  \
    memcpy(to + (pixel * channels + channel) * sizeof(type),                                       \
           from + (channel * pixels + pixel) * sizeof(type), sizeof(type))

// One image: channels rows of pixels become pixels rows of channels.
static void
s_channels_last(const uint8_t *from, uint8_t *to, uint64_t channels, uint64_t pixels, size_t size)
{
    if (size == 1)
        S_MOVE_EACH(uint8_t);
    else if (size == 2)
        S_MOVE_EACH(uint16_t);
    else if (size == 4)
        S_MOVE_EACH(uint32_t);
    else
        S_MOVE_EACH(uint64_t);
}

static void
s_gather(const lade_transform_t *self, const uint8_t *from, uint8_t *to, size_t size)
{
    lade_view_t view = {.size = size, .rank = self->rank};
    memcpy(view.shape, self->shape, sizeof view.shape);
    memcpy(view.strides, self->strides, self->rank * sizeof *view.strides);
    lade_view_gather(&view, from, to);
}

// ---------------------------------------------------------------------------------------------------

static lade_code_t
s_refuse(const lade_tensor_t *tensor, const char *why, lade_error_t *error)
{
    return lade_error_set(error, LADE_NOT_IMPLEMENTED, "tensor %.200s (%s) %s", tensor->name,
                          lade_dtype_name(tensor->dtype), why);
}

static lade_code_t
s_check(const lade_tensor_t *tensor, lade_dtype_t dtype, lade_error_t *error)
{
    static const char *const whys[LADE_LAYOUT_COUNT] = {
        [LADE_LAYOUT_SPARSE] = "is sparse: save it dense",
        [LADE_LAYOUT_PACKED] = "is compressed in its file or of the other byte order: save it anew",
        [LADE_LAYOUT_NONE] = "has no bytes: it was saved before it had any",
    };
    if (whys[tensor->layout])
        return s_refuse(tensor, whys[tensor->layout], error);
    if (tensor->layout == LADE_LAYOUT_STRIDED &&
        (lade_dtype_block(tensor->dtype) > 1 || !tensor->strides))
        return s_refuse(tensor, "is a view that cannot be made contiguous: save it anew", error);
    if (dtype != LADE_DTYPE_COUNT && lade_dtype_is_ggml(tensor->dtype) &&
        !lade_ggml_block(tensor->dtype))
        return s_refuse(tensor, "cannot be dequantised: load it as stored", error);
    return LADE_OK;
}

lade_code_t
lade_transform_plan(const lade_tensor_t *tensor, lade_dtype_t dtype, bool channels_last,
                    lade_transform_t *self, lade_error_t *error)
{
    lade_code_t code = s_check(tensor, dtype, error);
    if (code)
        return code;
    bool casts = lade_transform_casts(tensor->dtype);
    *self = (lade_transform_t){
        .from = tensor->dtype,
        .to = dtype != LADE_DTYPE_COUNT && casts ? dtype : tensor->dtype,
        .in_bytes = tensor->size,
        .elements = 1,
        .rank = tensor->rank,
        .strides = tensor->layout == LADE_LAYOUT_STRIDED ? tensor->strides : NULL,
    };
    memcpy(self->shape, tensor->shape, sizeof self->shape);
    for (size_t i = 0; i < tensor->rank; i++)
        self->elements *= tensor->shape[i]; // cannot overflow: the reader computed it
    if (!lade_dtype_bytes(self->to, self->shape, self->rank, &self->out_bytes))
        return lade_error_set(error, LADE_TOO_LARGE, "tensor %.200s is larger than can be",
                              tensor->name);
    // Where there is one channel, or one pixel, both orders are the same.
    self->channels_last = channels_last && casts && self->rank == 4 && self->shape[1] > 1 &&
                          self->shape[2] * self->shape[3] > 1 && lade_dtype_block(self->to) == 1 &&
                          self->elements;
    return LADE_OK;
}

bool
lade_transform_is_plain(const lade_transform_t *self)
{
    return self->from == self->to && !self->strides && !self->channels_last;
}

static uint64_t
s_image_bytes(const lade_transform_t *self)
{
    return self->in_bytes / self->shape[0];
}

uint64_t
lade_transform_unit(const lade_transform_t *self)
{
    if (!self->in_bytes)
        return 1;
    if (self->strides)
        return self->in_bytes;
    return self->channels_last ? s_image_bytes(self) : lade_dtype_size(self->from);
}

uint64_t
lade_transform_out(const lade_transform_t *self, uint64_t in)
{
    if (self->strides || in == self->in_bytes)
        return in ? self->out_bytes : 0;
    return in / lade_dtype_size(self->from) * lade_dtype_block(self->from) *
           lade_dtype_size(self->to) / lade_dtype_block(self->to);
}

// Casts and turns whole images, one at a time by way of a spare one.
static lade_code_t
s_run_images(const lade_transform_t *self, const uint8_t *in, uint64_t len, uint8_t *out,
             lade_error_t *error)
{
    uint64_t image = s_image_bytes(self), channels = self->shape[1],
             pixels = self->shape[2] * self->shape[3];
    size_t size = lade_dtype_size(self->to);
    uint8_t *spare = self->from == self->to ? NULL : malloc(channels * pixels * size);
    if (!spare && self->from != self->to)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to lay out a tensor");
    for (uint64_t done = 0; done < len; done += image, out += channels * pixels * size) {
        if (spare)
            lade_transform_cast(self->from, in + done, self->to, spare, channels * pixels);
        s_channels_last(spare ? spare : in + done, out, channels, pixels, size);
    }
    free(spare);
    return LADE_OK;
}

static lade_code_t
s_run_dense(const lade_transform_t *self, const uint8_t *in, uint64_t len, uint8_t *out,
            lade_error_t *error)
{
    if (self->channels_last)
        return s_run_images(self, in, len, out, error);
    lade_transform_cast(self->from, in, self->to, out,
                        len / lade_dtype_size(self->from) * lade_dtype_block(self->from));
    return LADE_OK;
}

lade_code_t
lade_transform_run(const lade_transform_t *self, const void *in, uint64_t len, void *out,
                   lade_error_t *error)
{
    if (!self->elements || !len)
        return LADE_OK;
    if (!self->strides)
        return s_run_dense(self, in, len, out, error);
    size_t size = lade_dtype_size(self->from);
    lade_transform_t dense = *self;
    dense.strides = NULL;
    dense.in_bytes = self->elements * size;
    if (lade_transform_is_plain(&dense)) {
        s_gather(self, in, out, size);
        return LADE_OK;
    }
    uint8_t *gathered = malloc(dense.in_bytes);
    if (!gathered)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to make a view contiguous");
    s_gather(self, in, gathered, size);
    lade_code_t code = s_run_dense(&dense, gathered, dense.in_bytes, out, error);
    free(gathered);
    return code;
}
