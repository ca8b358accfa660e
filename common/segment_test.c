// Tests of the layout of segments: what is packed is read again, and what is wrong is refused.
#include "common/segment.h"

#include "common/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    uint8_t *bytes;
    size_t len;
} s_image_t;

static const lade_tensor_t s_tensors[] = {
    {.name = "a.weight",
     .name_len = 8,
     .dtype = LADE_DTYPE_F32,
     .rank = 2,
     .shape = {2, 3},
     .offset = 0,
     .size = 24},
    {.name = "b",
     .name_len = 1,
     .dtype = LADE_DTYPE_F16,
     .rank = 1,
     .shape = {5},
     .offset = 24,
     .size = 10},
    {.name = "scalar", .name_len = 6, .dtype = LADE_DTYPE_I64, .rank = 0, .offset = 40, .size = 8},
    {.name = "empty",
     .name_len = 5,
     .dtype = LADE_DTYPE_U8,
     .rank = 1,
     .shape = {0},
     .offset = 48,
     .size = 0},
};
enum { S_COUNT = sizeof s_tensors / sizeof *s_tensors, S_DATA = 8192 };

static s_image_t
s_image(const lade_tensor_t *tensors, size_t count)
{
    lade_segment_head_t head;
    lade_buf_t index = LADE_BUF(LADE_SEGMENT_MAX_INDEX);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    assert_int_equal(
        lade_segment_plan("k", "unet", tensors, count, metadata, S_DATA, &head, &index, NULL),
        LADE_OK);
    head.generation = 7;
    s_image_t image = {calloc(1, head.length), head.length};
    lade_segment_write(image.bytes, &head, &index);
    for (size_t i = head.data_at; i < image.len; i++)
        image.bytes[i] = (uint8_t)(i - head.data_at);
    lade_buf_free(&index);
    json_decref(metadata);
    return image;
}

static lade_segment_head_t *
s_head(s_image_t *image)
{
    return (lade_segment_head_t *)image->bytes;
}

static void
test_what_is_packed_is_read_again(void **state)
{
    (void)state;
    s_image_t image = s_image(s_tensors, S_COUNT);
    lade_segment_t *segment;
    assert_int_equal(s_head(&image)->data_at % LADE_SEGMENT_PAGE, 0);
    assert_int_equal(lade_segment_open(image.bytes, image.len, &segment, NULL), LADE_OK);
    assert_int_equal(lade_segment_bytes(segment), image.len);
    assert_int_equal(lade_segment_generation(segment), 7);
    assert_int_equal(lade_segment_count(segment), S_COUNT);
    for (size_t i = 0; i < S_COUNT; i++) {
        const lade_tensor_t *tensor = lade_segment_get(segment, i);
        assert_string_equal(tensor->name, s_tensors[i].name);
        assert_int_equal(tensor->dtype, s_tensors[i].dtype);
        assert_int_equal(tensor->rank, s_tensors[i].rank);
        assert_memory_equal(tensor->shape, s_tensors[i].shape, sizeof tensor->shape);
        assert_int_equal(tensor->size, s_tensors[i].size);
        assert_int_equal(tensor->offset, s_head(&image)->data_at + s_tensors[i].offset);
        assert_ptr_equal(lade_segment_find(segment, s_tensors[i].name), tensor);
        if (tensor->size)
            assert_int_equal(*(const uint8_t *)lade_segment_data(segment, tensor),
                             s_tensors[i].offset);
    }
    assert_null(lade_segment_get(segment, S_COUNT));
    assert_null(lade_segment_find(segment, "c"));
    lade_segment_close(&segment);
    assert_null(segment);
    lade_segment_close(&segment);
    free(image.bytes);
}

static void
test_the_index_is_a_plain_msgpack_map(void **state)
{
    (void)state;
    s_image_t image = s_image(s_tensors, S_COUNT);
    lade_segment_head_t *head = s_head(&image);
    json_t *index;
    assert_int_equal(lade_wire_to_json(image.bytes + head->index_at, head->index_len, &index, NULL),
                     LADE_OK);
    assert_string_equal(lade_json_text(index, "key", ""), "k");
    assert_string_equal(lade_json_text(index, "submodel", ""), "unet");
    assert_string_equal(lade_json_text(json_object_get(index, "metadata"), "format", ""), "pt");
    json_t *tensor = json_array_get(json_object_get(index, "tensors"), 1);
    assert_string_equal(lade_json_text(tensor, "dtype", ""), "F16");
    assert_int_equal(lade_json_int(tensor, "offset", 0), head->data_at + 24);
    json_decref(index);
    free(image.bytes);
}

static void
test_a_segment_may_have_no_tensor(void **state)
{
    (void)state;
    lade_segment_head_t head;
    lade_buf_t index = LADE_BUF(1000);
    lade_segment_t *segment;
    assert_int_equal(lade_segment_plan("k", NULL, NULL, 0, NULL, 0, &head, &index, NULL), LADE_OK);
    uint8_t *bytes = calloc(1, head.length);
    lade_segment_write(bytes, &head, &index);
    assert_int_equal(lade_segment_open(bytes, head.length, &segment, NULL), LADE_OK);
    assert_int_equal(lade_segment_read_index(segment, NULL), LADE_OK);
    assert_int_equal(lade_segment_count(segment), 0);
    assert_null(lade_segment_find(segment, "a"));
    lade_segment_close(&segment);
    lade_buf_free(&index);
    free(bytes);
}

static void
test_many_tensors_are_all_found(void **state)
{
    (void)state;
    enum { S_MANY = 100000 };
    lade_tensor_t *tensors = calloc(S_MANY, sizeof *tensors);
    char(*names)[24] = calloc(S_MANY, sizeof *names);
    for (size_t i = 0; i < S_MANY; i++) {
        int len = snprintf(names[i], sizeof names[i], "blocks.%zu.weight", i);
        tensors[i] = (lade_tensor_t){.name = names[i],
                                     .name_len = (size_t)len,
                                     .dtype = LADE_DTYPE_U8,
                                     .rank = 1,
                                     .shape = {i % 100},
                                     .offset = i % 4000,
                                     .size = i % 100};
    }
    s_image_t image = s_image(tensors, S_MANY);
    lade_segment_t *segment;
    assert_int_equal(lade_segment_open(image.bytes, image.len, &segment, NULL), LADE_OK);
    assert_int_equal(lade_segment_read_index(segment, NULL), LADE_OK);
    for (size_t i = 0; i < S_MANY; i += 997)
        assert_ptr_equal(lade_segment_find(segment, names[i]), lade_segment_get(segment, i));
    lade_segment_close(&segment);
    free(image.bytes);
    free(names);
    free(tensors);
}

static void
test_an_index_over_its_ceiling_is_not_packed(void **state)
{
    (void)state;
    lade_segment_head_t head;
    lade_buf_t index = LADE_BUF(100);
    lade_error_t error;
    assert_int_equal(
        lade_segment_plan("k", NULL, s_tensors, S_COUNT, NULL, S_DATA, &head, &index, &error),
        LADE_TOO_LARGE);
    lade_buf_free(&index);
}

// ---------------------------------------------------------------------------------------------------
// Hostile segments

static void
s_assert_head_refused(s_image_t *image, size_t len)
{
    lade_segment_t *segment = (lade_segment_t *)1;
    lade_error_t error = {0};
    assert_int_equal(lade_segment_open(image->bytes, len, &segment, &error), LADE_CORRUPT);
    assert_null(segment);
    assert_true(strlen(error.message) > 10);
}

static void
test_hostile_heads_are_refused(void **state)
{
    (void)state;
    s_image_t image = s_image(s_tensors, S_COUNT);
    lade_segment_head_t good = *s_head(&image), *head = s_head(&image);
    s_assert_head_refused(&image, 0);
    s_assert_head_refused(&image, sizeof good - 1);
    s_assert_head_refused(&image, image.len - 1); // shorter than it says
    const uint64_t wrong[] = {
        0, 1, sizeof good - 1, image.len + 1, UINT64_MAX, UINT64_MAX - 4095, 1ull << 63};
    uint64_t *const members[] = {&head->length, &head->index_at, &head->index_len, &head->data_at};
    for (size_t m = 0; m < sizeof members / sizeof *members; m++)
        for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
            if (members[m] == &head->index_len && wrong[w] < good.index_len)
                continue; // an index cut off: found when it is read, below
            *members[m] = wrong[w];
            s_assert_head_refused(&image, image.len);
            *head = good;
        }
    head->magic[7] = '2';
    s_assert_head_refused(&image, image.len);
    *head = good;
    head->data_at += 8; // no page
    s_assert_head_refused(&image, image.len);
    free(image.bytes);
}

// An index of these bytes in an otherwise good segment is refused when it is read, and holds no
// tensor.
static void
s_assert_index_refused(const void *index, size_t len)
{
    size_t total = 2 * LADE_SEGMENT_PAGE;
    uint8_t *bytes = calloc(1, total);
    lade_segment_head_t head = {
        .length = total, .index_at = sizeof head, .index_len = len, .data_at = LADE_SEGMENT_PAGE};
    memcpy(head.magic, LADE_SEGMENT_MAGIC, sizeof head.magic);
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + head.index_at, index, len);
    lade_segment_t *segment;
    lade_error_t error = {0};
    assert_int_equal(lade_segment_open(bytes, total, &segment, &error), LADE_OK);
    assert_int_equal(lade_segment_read_index(segment, &error), LADE_CORRUPT);
    assert_int_equal(lade_segment_read_index(segment, &error), LADE_CORRUPT);
    assert_int_equal(lade_segment_count(segment), 0);
    assert_null(lade_segment_get(segment, 0));
    assert_null(lade_segment_find(segment, "a"));
    lade_segment_close(&segment);
    free(bytes);
}

// An index with one tensor, each member given as JSON.
static void
s_assert_tensor_refused(const char *json)
{
    json_t *tensor = json_loads(json, 0, NULL);
    assert_non_null(tensor);
    json_t *index = json_pack("{s:[o]}", "tensors", tensor);
    lade_buf_t packed = LADE_BUF(4000);
    assert_int_equal(lade_wire_from_json(index, &packed, NULL), LADE_OK);
    s_assert_index_refused(packed.data, packed.len);
    lade_buf_free(&packed);
    json_decref(index);
}

static void
test_hostile_indexes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"", 0},                                     // nothing
        {"\xc0", 1},                                 // nil
        {"\x81", 1},                                 // a map cut off
        {"\x80", 1},                                 // no tensors
        {"\x81\xa7tensors", 9},                      // no value
        {"\x81\xa7tensors\xc0", 10},                 // no list
        {"\x81\xa7tensors\xdd\xff\xff\xff\xff", 14}, // 4 billion tensors
        {"\x81\xa7tensors\x91\x80", 11},             // a tensor of nothing
        {"\x81\xa7tensors\x91\xc0", 11},             // a tensor that is nil
        {"\x82\xa7tensors\x90\xa7tensors\x90", 19},  // twice
        {"\x81\xa1x\xdf\xff\xff\xff\xff", 8},        // a map of 4 billion
        {"\x81\xa1x\xdb\xff\xff\xff\xff", 8},        // a text of 4 GiB
        {"\x81\xa1x\xc6\xff\xff\xff\xff", 8},        // bytes of 4 GiB
        {"\x81\x01\x90", 3},                         // a key that is no text
        {"\xc1", 1},                                 // never used
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        s_assert_index_refused(cases[i].bytes, cases[i].len);
    uint8_t deep[3000]; // arrays within arrays: no recursion, so no stack to overflow
    memset(deep, 0x91, sizeof deep);
    memcpy(deep, "\x81\xa1x", 3);
    s_assert_index_refused(deep, sizeof deep);
}

static void
test_tensors_that_lie_outside_are_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":[8],\"offset\":4095,\"size\":8}", // in the
                                                                                      // index
        "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":[8],\"offset\":8185,\"size\":8}", // beyond the
                                                                                      // end
        "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":[8],\"offset\":9223372036854775807,\"size\":8}",
        "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":[8],\"offset\":-1,\"size\":8}",
        "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":[8],\"offset\":4096,\"size\":7}", // not what
                                                                                      // the shape
                                                                                      // says
        "{\"name\":\"a\",\"dtype\":\"F32\",\"shape\":[9223372036854775807,4],\"offset\":4096,"
        "\"size\":0}",
        "{\"name\":\"a\",\"dtype\":\"F7\",\"shape\":[8],\"offset\":4096,\"size\":8}",
        "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"offset\":4096,\"size\":"
        "1}",
        "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":[\"8\"],\"offset\":4096,\"size\":8}",
        "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":8,\"offset\":4096,\"size\":8}",
        "{\"name\":7,\"dtype\":\"U8\",\"shape\":[8],\"offset\":4096,\"size\":8}",
        "{\"dtype\":\"U8\",\"shape\":[8],\"offset\":4096,\"size\":8}",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        s_assert_tensor_refused(cases[i]);
    // A name with a NUL inside.
    const char nul[] = "\x81\xa7tensors\x91\x85\xa4name\xa3"
                       "a\0b"
                       "\xa5"
                       "dtype\xa2U8\xa5shape\x91\x08\xa6offset\xcd\x10\x00\xa4size\x08";
    s_assert_index_refused(nul, sizeof nul - 1);
}

static void
test_every_cut_and_every_changed_byte_is_survived(void **state)
{
    (void)state;
    s_image_t image = s_image(s_tensors, S_COUNT);
    lade_segment_head_t good = *s_head(&image);
    lade_segment_t *segment;
    for (size_t len = 0; len < good.index_len; len++) {
        s_head(&image)->index_len = len;
        assert_int_equal(lade_segment_open(image.bytes, image.len, &segment, NULL), LADE_OK);
        assert_int_equal(lade_segment_read_index(segment, NULL), LADE_CORRUPT);
        lade_segment_close(&segment);
    }
    *s_head(&image) = good;
    for (size_t at = 0; at < good.index_at + good.index_len; at++)
        for (unsigned change = 1; change < 256; change += 7) {
            image.bytes[at] ^= (uint8_t)change;
            if (!lade_segment_open(image.bytes, image.len, &segment, NULL)) {
                size_t count = lade_segment_count(segment);
                for (size_t i = 0; i < count; i++) {
                    const lade_tensor_t *tensor = lade_segment_get(segment, i);
                    assert_true(tensor->offset + tensor->size <= image.len);
                    (void)lade_segment_find(segment, tensor->name);
                }
                lade_segment_close(&segment);
            }
            image.bytes[at] ^= (uint8_t)change;
        }
    free(image.bytes);
}

static void
test_attaching_where_nobody_listens_says_so(void **state)
{
    (void)state;
    lade_segment_t *segment;
    lade_error_t error = {0};
    assert_int_equal(lade_segment_attach("/tmp/lade-no-such-socket", "a/1", 100, &segment, &error),
                     LADE_NOT_FOUND);
    assert_null(segment);
    assert_non_null(strstr(error.message, "/tmp/lade-no-such-socket"));
    assert_int_equal(lade_segment_attach("/tmp/x", "", 100, &segment, &error), LADE_VALUE_ERROR);
    char path[200];
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = '\0';
    assert_int_equal(lade_segment_attach(path, "a/1", 100, &segment, &error), LADE_VALUE_ERROR);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_packed_is_read_again),
        cmocka_unit_test(test_the_index_is_a_plain_msgpack_map),
        cmocka_unit_test(test_a_segment_may_have_no_tensor),
        cmocka_unit_test(test_many_tensors_are_all_found),
        cmocka_unit_test(test_an_index_over_its_ceiling_is_not_packed),
        cmocka_unit_test(test_hostile_heads_are_refused),
        cmocka_unit_test(test_hostile_indexes_are_refused),
        cmocka_unit_test(test_tensors_that_lie_outside_are_refused),
        cmocka_unit_test(test_every_cut_and_every_changed_byte_is_survived),
        cmocka_unit_test(test_attaching_where_nobody_listens_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
