// Tests of what becomes of tensors: every cast against arithmetic that has nothing of ours, layouts
// and views against the definition of a stride.
#include "workers/gpu/transform.h"

#include "workers/gpu/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { S_RANDOM = 200000 };

static uint64_t
s_next(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

// A type as the standard has it: bits of exponent and fraction.
typedef struct {
    lade_dtype_t dtype;
    int exponent, fraction;
} s_type_t;

static const s_type_t s_types[] = {
    {LADE_DTYPE_F16, 5, 10}, {LADE_DTYPE_BF16, 8, 7}, {LADE_DTYPE_F32, 8, 23}};

// The value of a number's bits.
static double
s_value(const s_type_t *type, uint32_t bits)
{
    int bias = (1 << (type->exponent - 1)) - 1, most = (1 << type->exponent) - 1;
    int exponent = (int)(bits >> type->fraction) & most;
    double fraction = bits & ((1u << type->fraction) - 1);
    double sign = bits >> (type->exponent + type->fraction) & 1 ? -1 : 1;
    if (exponent == most)
        return fraction > 0 ? NAN : sign * INFINITY;
    if (!exponent)
        return sign * ldexp(fraction, 1 - bias - type->fraction);
    return sign * ldexp(fraction + (1 << type->fraction), exponent - bias - type->fraction);
}

// value rounded to the nearest the type has, ties to even.
static double
s_nearest(const s_type_t *type, double value)
{
    int bias = (1 << (type->exponent - 1)) - 1, exponent;
    if (value == 0 || isnan(value) || isinf(value))
        return value;
    frexp(value, &exponent);
    exponent = exponent - 1 < 1 - bias ? 1 - bias : exponent - 1;
    double unit = ldexp(1, exponent - type->fraction), rounded = nearbyint(value / unit) * unit;
    double most = ldexp(2 - ldexp(1, -type->fraction), bias);
    return fabs(rounded) > most ? copysign(INFINITY, value) : rounded;
}

static bool
s_same(double a, double b)
{
    return isnan(a) ? isnan(b) : a == b && signbit(a) == signbit(b);
}

static double
s_read(const s_type_t *type, const void *at)
{
    uint32_t bits = 0;
    memcpy(&bits, at, lade_dtype_size(type->dtype));
    return s_value(type, bits);
}

static const s_type_t *
s_type(lade_dtype_t dtype)
{
    size_t i = 0;
    while (s_types[i].dtype != dtype)
        i++;
    return &s_types[i];
}

// Casts values of a type to all others and compares each.
static void
s_assert_casts(lade_dtype_t from, const void *in, const double *values, size_t count)
{
    for (size_t t = 0; t < 3; t++) {
        if (s_types[t].dtype == from)
            continue;
        size_t size = lade_dtype_size(s_types[t].dtype);
        uint8_t *out = malloc(count * size);
        lade_transform_cast(from, in, s_types[t].dtype, out, count);
        for (size_t i = 0; i < count; i++) {
            double got = s_read(&s_types[t], out + i * size);
            double wanted = s_nearest(&s_types[t], values[i]);
            if (!s_same(got, wanted))
                fail_msg("%s to %s: %a became %a, not %a", lade_dtype_name(from),
                         lade_dtype_name(s_types[t].dtype), values[i], got, wanted);
        }
        free(out);
    }
}

static void
test_every_number_of_sixteen_bits_is_cast(void **state)
{
    (void)state;
    uint16_t *in = malloc(65536 * sizeof *in);
    double *values = malloc(65536 * sizeof *values);
    for (uint32_t i = 0; i < 65536; i++)
        in[i] = (uint16_t)i;
    for (size_t t = 0; t < 2; t++) {
        for (uint32_t i = 0; i < 65536; i++)
            values[i] = s_value(&s_types[t], i);
        s_assert_casts(s_types[t].dtype, in, values, 65536);
    }
    free(in);
    free(values);
}

static void
test_every_number_of_eight_bits_is_cast(void **state)
{
    (void)state;
    uint8_t in[256];
    double values[256];
    for (uint32_t i = 0; i < 256; i++) {
        int exponent = (int)i >> 3 & 15, fraction = i & 7;
        in[i] = (uint8_t)i;
        values[i] = copysign((i & 0x7f) == 0x7f ? NAN
                             : exponent         ? ldexp(8 + fraction, exponent - 10)
                                                : ldexp(fraction, -9),
                             i & 0x80 ? -1 : 1);
    }
    s_assert_casts(LADE_DTYPE_F8_E4M3, in, values, 256);
    const s_type_t e5m2 = {LADE_DTYPE_F8_E5M2, 5, 2};
    for (uint32_t i = 0; i < 256; i++)
        values[i] = s_value(&e5m2, i);
    s_assert_casts(LADE_DTYPE_F8_E5M2, in, values, 256);
}

// Random bits, and numbers at and beside the middle between two of the narrower type.
static void
test_floats_are_rounded_to_the_nearest_and_ties_to_even(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u;
    uint32_t *in = malloc(S_RANDOM * sizeof *in);
    double *values = malloc(S_RANDOM * sizeof *values);
    for (size_t i = 0; i < S_RANDOM; i++) {
        in[i] = (uint32_t)s_next(&seed);
        if (i % 3 == 1) // exponents that halves have
            in[i] = (in[i] & 0x807fffff) | (uint32_t)(98 + s_next(&seed) % 48) << 23;
        if (i % 4 == 2) // a tie, or one beside it
            in[i] = ((in[i] & 0xffffe000) | 0x1000) + (uint32_t)(s_next(&seed) % 3) - 1;
        if (i % 4 == 3)
            in[i] = ((in[i] & 0xffff0000) | 0x8000) + (uint32_t)(s_next(&seed) % 3) - 1;
        values[i] = s_value(&s_types[2], in[i]);
    }
    s_assert_casts(LADE_DTYPE_F32, in, values, S_RANDOM);
    free(in);
    free(values);
}

// Of a double that is rounded to a float first, ties would be taken where there is none.
static void
test_doubles_are_rounded_once(void **state)
{
    (void)state;
    uint64_t seed = 362436069u;
    double *in = malloc(S_RANDOM * sizeof *in);
    for (size_t i = 0; i < S_RANDOM; i++) {
        uint64_t bits = s_next(&seed);
        int exponent = (int)(s_next(&seed) % 320) - 160;
        in[i] = ldexp(1 + (double)(bits >> 12) * 0x1p-52, i % 2 ? exponent : exponent / 8);
        if (i % 4 == 1) // a hair beside a tie of halves
            in[i] = copysign(1 + (double)(bits % 1024 * 2 + 1) * 0x1p-11 + 0x1p-40, i % 8 ? 1 : -1);
        if (i % 4 == 3)
            in[i] = copysign(1 + (double)(bits % 128 * 2 + 1) * 0x1p-8 - 0x1p-50, i % 8 ? 1 : -1);
    }
    in[0] = INFINITY, in[2] = -INFINITY, in[4] = NAN, in[6] = 1e308, in[8] = -1e-320, in[10] = -0.0;
    s_assert_casts(LADE_DTYPE_F64, in, in, S_RANDOM);
    free(in);
}

// The vectors' loop ends before the last few: those are another path.
static void
test_few_numbers_are_cast_as_many_are(void **state)
{
    (void)state;
    float in[40];
    for (size_t i = 0; i < 40; i++)
        in[i] = (float)i * 1.0009765f;
    for (size_t count = 0; count <= 40; count++) {
        uint16_t out[41] = {0};
        out[count] = 0xabcd;
        lade_transform_cast(LADE_DTYPE_F32, in, LADE_DTYPE_F16, out, count);
        for (size_t i = 0; i < count; i++)
            assert_true(s_read(s_type(LADE_DTYPE_F16), &out[i]) == s_nearest(&s_types[0], in[i]));
        assert_int_equal(out[count], 0xabcd);
    }
}

// ---------------------------------------------------------------------------------------------------
// Plans

static lade_tensor_t
s_tensor(lade_dtype_t dtype, size_t rank, const uint64_t *shape)
{
    lade_tensor_t tensor = {.name = "t", .name_len = 1, .dtype = dtype, .rank = (uint8_t)rank};
    memcpy(tensor.shape, shape, rank * sizeof *shape);
    assert_true(lade_dtype_bytes(dtype, shape, rank, &tensor.size));
    return tensor;
}

static void
s_turn(const lade_transform_t *how, const void *in, void *out)
{
    uint64_t unit = lade_transform_unit(how);
    for (uint64_t at = 0; at < how->in_bytes; at += unit) // one unit at a time
        assert_int_equal(lade_transform_run(how, (const uint8_t *)in + at, unit,
                                            (uint8_t *)out + lade_transform_out(how, at), NULL),
                         LADE_OK);
}

static void
test_channels_come_last(void **state)
{
    (void)state;
    enum { N = 3, C = 5, H = 2, W = 4 };
    float in[N * C * H * W], out[N * C * H * W];
    for (size_t i = 0; i < N * C * H * W; i++)
        in[i] = (float)i;
    lade_tensor_t tensor = s_tensor(LADE_DTYPE_F32, 4, (uint64_t[]){N, C, H, W});
    lade_transform_t how;
    uint16_t small[N * C * H * W];
    assert_int_equal(lade_transform_plan(&tensor, LADE_DTYPE_COUNT, true, &how, NULL), LADE_OK);
    assert_true(how.channels_last && !lade_transform_is_plain(&how));
    s_turn(&how, in, out);
    lade_transform_t cast;
    assert_int_equal(lade_transform_plan(&tensor, LADE_DTYPE_F16, true, &cast, NULL), LADE_OK);
    assert_int_equal(cast.out_bytes, sizeof small);
    s_turn(&cast, in, small);
    for (size_t n = 0; n < N; n++)
        for (size_t c = 0; c < C; c++)
            for (size_t h = 0; h < H; h++)
                for (size_t w = 0; w < W; w++) {
                    size_t was = ((n * C + c) * H + h) * W + w, is = ((n * H + h) * W + w) * C + c;
                    assert_true(out[is] == in[was]);
                    assert_true(s_read(&s_types[0], &small[is]) == in[was]);
                }
}

static void
test_what_is_not_laid_out_and_not_cast(void **state)
{
    (void)state;
    lade_transform_t how;
    lade_tensor_t numbers = s_tensor(LADE_DTYPE_I64, 4, (uint64_t[]){2, 3, 4, 5});
    assert_int_equal(lade_transform_plan(&numbers, LADE_DTYPE_F16, true, &how, NULL), LADE_OK);
    assert_true(lade_transform_is_plain(&how));
    lade_tensor_t matrix = s_tensor(LADE_DTYPE_F16, 2, (uint64_t[]){2, 3});
    assert_int_equal(lade_transform_plan(&matrix, LADE_DTYPE_F16, true, &how, NULL), LADE_OK);
    assert_true(lade_transform_is_plain(&how));
    lade_tensor_t pixel = s_tensor(LADE_DTYPE_F16, 4, (uint64_t[]){8, 4, 1, 1});
    assert_int_equal(lade_transform_plan(&pixel, LADE_DTYPE_COUNT, true, &how, NULL), LADE_OK);
    assert_true(lade_transform_is_plain(&how));
    lade_tensor_t none = s_tensor(LADE_DTYPE_F32, 4, (uint64_t[]){0, 4, 3, 3});
    assert_int_equal(lade_transform_plan(&none, LADE_DTYPE_F16, true, &how, NULL), LADE_OK);
    assert_int_equal(how.out_bytes, 0);
    assert_int_equal(lade_transform_run(&how, "", 0, NULL, NULL), LADE_OK);
}

static void
test_views_are_made_contiguous(void **state)
{
    (void)state;
    float in[40], out[12];
    uint16_t small[12];
    for (size_t i = 0; i < 40; i++)
        in[i] = (float)i;
    const uint64_t strides[] = {1, 7, 2}; // [2, 3, 2] somewhere in 40 numbers
    lade_tensor_t view = s_tensor(LADE_DTYPE_F32, 3, (uint64_t[]){2, 3, 2});
    view.layout = LADE_LAYOUT_STRIDED;
    view.strides = strides;
    view.size = (1 + 1 * 1 + 2 * 7 + 1 * 2) * sizeof *in;
    lade_transform_t how;
    assert_int_equal(lade_transform_plan(&view, LADE_DTYPE_COUNT, false, &how, NULL), LADE_OK);
    assert_int_equal(how.out_bytes, sizeof out);
    s_turn(&how, in, out);
    assert_int_equal(lade_transform_plan(&view, LADE_DTYPE_BF16, false, &how, NULL), LADE_OK);
    s_turn(&how, in, small);
    for (size_t a = 0; a < 2; a++)
        for (size_t b = 0; b < 3; b++)
            for (size_t c = 0; c < 2; c++) {
                size_t at = (a * 3 + b) * 2 + c;
                assert_true(out[at] == in[a + b * 7 + c * 2]);
                assert_true(s_read(&s_types[1], &small[at]) == in[a + b * 7 + c * 2]);
            }
}

static void
test_what_cannot_be_turned_is_refused(void **state)
{
    (void)state;
    static const lade_layout_kind_t kinds[] = {LADE_LAYOUT_SPARSE, LADE_LAYOUT_PACKED,
                                               LADE_LAYOUT_NONE, LADE_LAYOUT_STRIDED};
    lade_transform_t how;
    lade_error_t error = {0};
    for (size_t i = 0; i < 4; i++) {
        lade_tensor_t tensor = s_tensor(LADE_DTYPE_F16, 2, (uint64_t[]){2, 3});
        tensor.layout = kinds[i];
        assert_int_equal(lade_transform_plan(&tensor, LADE_DTYPE_COUNT, false, &how, &error),
                         LADE_NOT_IMPLEMENTED);
        assert_non_null(strstr(error.message, "tensor t (F16)"));
    }
    lade_tensor_t blocks = s_tensor(LADE_DTYPE_IQ2_XXS, 2, (uint64_t[]){2, 256});
    assert_int_equal(lade_transform_plan(&blocks, LADE_DTYPE_COUNT, false, &how, NULL), LADE_OK);
    assert_true(lade_transform_is_plain(&how));
    assert_int_equal(lade_transform_plan(&blocks, LADE_DTYPE_F16, false, &how, &error),
                     LADE_NOT_IMPLEMENTED);
    assert_non_null(strstr(error.message, "IQ2_XXS"));
}

// A block of Q8_0 by hand; tests/e2e/test_formats.py has all types against numpy.
static void
test_blocks_become_numbers(void **state)
{
    (void)state;
    uint8_t blocks[2][34] = {{0x00, 0x38}, {0x00, 0xc0}}; // scales 0.5 and -2
    float out[64];
    for (size_t i = 0; i < 32; i++)
        blocks[0][2 + i] = (uint8_t)(i - 16), blocks[1][2 + i] = (uint8_t)i;
    lade_tensor_t tensor = s_tensor(LADE_DTYPE_Q8_0, 1, (uint64_t[]){64});
    lade_transform_t how;
    assert_int_equal(lade_transform_plan(&tensor, LADE_DTYPE_F32, false, &how, NULL), LADE_OK);
    assert_int_equal(lade_transform_unit(&how), 34);
    assert_int_equal(how.out_bytes, sizeof out);
    s_turn(&how, blocks, out);
    for (int i = 0; i < 32; i++) {
        assert_true(out[i] == 0.5f * (float)(i - 16));
        assert_true(out[32 + i] == -2.0f * (float)i);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_number_of_sixteen_bits_is_cast),
        cmocka_unit_test(test_every_number_of_eight_bits_is_cast),
        cmocka_unit_test(test_floats_are_rounded_to_the_nearest_and_ties_to_even),
        cmocka_unit_test(test_doubles_are_rounded_once),
        cmocka_unit_test(test_few_numbers_are_cast_as_many_are),
        cmocka_unit_test(test_channels_come_last),
        cmocka_unit_test(test_what_is_not_laid_out_and_not_cast),
        cmocka_unit_test(test_views_are_made_contiguous),
        cmocka_unit_test(test_what_cannot_be_turned_is_refused),
        cmocka_unit_test(test_blocks_become_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
