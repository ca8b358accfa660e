// Views made contiguous, beside what their indices say: in memory, and piece by piece.
#include "common/formats/view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    const uint8_t *source;
    uint64_t extent;
    uint8_t *made;
    uint64_t put, most_got, most_put;
    size_t gets, fails_at; // 0: never
} s_world_t;

static lade_code_t
s_get(void *arg, uint64_t offset, void *bytes, size_t len, lade_error_t *error)
{
    s_world_t *self = arg;
    assert_true(offset + len <= self->extent);
    if (++self->gets == self->fails_at)
        return lade_error_set(error, LADE_IO_ERROR, "it fails here");
    memcpy(bytes, self->source + offset, len);
    self->most_got = len > self->most_got ? len : self->most_got;
    return LADE_OK;
}

static lade_code_t
s_put(void *arg, const void *bytes, size_t len, lade_error_t *error)
{
    s_world_t *self = arg;
    (void)error;
    memcpy(self->made + self->put, bytes, len);
    self->put += len;
    self->most_put = len > self->most_put ? len : self->most_put;
    return LADE_OK;
}

// Element by element, from its number to its indices to where it lies.
static void
s_by_index(const lade_view_t *view, const uint8_t *source, uint8_t *made)
{
    uint64_t count = lade_view_bytes(view) / view->size;
    for (uint64_t number = 0; number < count; number++) {
        uint64_t rest = number, at = 0;
        for (size_t i = view->rank; i-- > 0; rest /= view->shape[i])
            at += rest % view->shape[i] * view->strides[i];
        memcpy(made + number * view->size, source + at * view->size, view->size);
    }
}

static void
s_check(const lade_view_t *view, size_t piece, size_t strip)
{
    uint64_t bytes = lade_view_bytes(view), extent = lade_view_extent(view);
    uint8_t *source = malloc(extent + 1), *wanted = malloc(bytes + 1), *made = malloc(bytes + 1);
    assert_true(source && wanted && made);
    for (uint64_t i = 0; i < extent; i++)
        source[i] = (uint8_t)(i * 7 + i / 251);
    s_by_index(view, source, wanted);
    lade_view_gather(view, source, made);
    assert_memory_equal(made, wanted, bytes);
    memset(made, 0x5a, bytes);
    s_world_t world = {.source = source, .extent = extent, .made = made};
    lade_view_stream_t stream = {piece, strip, s_get, s_put, &world};
    lade_error_t error = {0};
    assert_int_equal(lade_view_stream(view, &stream, &error), LADE_OK);
    assert_int_equal(world.put, bytes);
    assert_true(world.most_got <= piece && world.most_put <= strip);
    assert_memory_equal(made, wanted, bytes);
    free(source);
    free(wanted);
    free(made);
}

static void
test_views_that_there_are(void **state)
{
    (void)state;
    static const struct {
        lade_view_t view;
        bool dense;
    } rows[] = {
        {{2, 0, {0}, {0}}, true},                      // one number
        {{4, 1, {7}, {1}}, true},                      // a row
        {{4, 1, {7}, {3}}, false},                     // every third
        {{2, 1, {7}, {0}}, false},                     // one number seven times
        {{2, 2, {40, 70}, {1, 40}}, false},            // transposed
        {{8, 2, {5, 6}, {6, 1}}, true},                //
        {{2, 2, {5, 6}, {9, 1}}, false},               // columns of a wider one
        {{1, 2, {33, 65}, {0, 1}}, false},             // one row for all
        {{2, 4, {6, 5, 3, 3}, {45, 1, 15, 5}}, false}, // channels last
        {{16, 3, {3, 4, 5}, {1, 3, 12}}, false},       // backwards
        {{2, 4, {4, 1, 3, 1}, {3, 99, 1, 77}}, true},  // a dimension of one lies anywhere
        {{4, 3, {4, 0, 3}, {5, 7, 9}}, true},          // nothing
        {{4, 8, {2, 1, 2, 1, 2, 3, 1, 2}, {100, 1, 9, 1, 40, 2, 1, 1}}, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(lade_view_is_dense(&rows[i].view), rows[i].dense);
        s_check(&rows[i].view, 1 << 20, 1 << 20);
        s_check(&rows[i].view, 64, 48);
        s_check(&rows[i].view, rows[i].view.size, rows[i].view.size);
    }
}

static void
test_views_by_chance(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 4, 8, 16};
    srandom(42);
    for (size_t round = 0; round < 500; round++) {
        lade_view_t view = {.size = sizes[random() % 5], .rank = (uint8_t)(random() % 6)};
        for (size_t i = 0; i < view.rank; i++) {
            view.shape[i] = 1 + (uint64_t)random() % 6;
            view.strides[i] = (uint64_t)random() % 40;
        }
        s_check(&view, view.size * (1 + (size_t)random() % 90),
                view.size * (1 + (size_t)random() % 90));
    }
}

static void
test_of_a_tensor(void **state)
{
    (void)state;
    uint64_t strides[] = {1, 3};
    lade_tensor_t tensor = {.dtype = LADE_DTYPE_F16, .rank = 2, .shape = {3, 4}};
    lade_view_t view;
    lade_view_of(&tensor, &view);
    assert_true(lade_view_is_dense(&view));
    assert_int_equal(lade_view_bytes(&view), 24);
    tensor.layout = LADE_LAYOUT_STRIDED;
    tensor.strides = strides;
    lade_view_of(&tensor, &view);
    assert_false(lade_view_is_dense(&view));
    assert_int_equal(lade_view_extent(&view), 24);
}

static void
test_what_the_source_says_is_told(void **state)
{
    (void)state;
    uint8_t source[64] = {0}, made[64];
    lade_view_t view = {2, 2, {4, 8}, {1, 4}};
    s_world_t world = {.source = source, .extent = 64, .made = made, .fails_at = 2};
    lade_view_stream_t stream = {16, 16, s_get, s_put, &world};
    lade_error_t error = {0};
    assert_int_equal(lade_view_stream(&view, &stream, &error), LADE_IO_ERROR);
    assert_string_equal(error.message, "it fails here");
    assert_int_equal(world.gets, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views_that_there_are),
        cmocka_unit_test(test_views_by_chance),
        cmocka_unit_test(test_of_a_tensor),
        cmocka_unit_test(test_what_the_source_says_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
