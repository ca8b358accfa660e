// The safetensors reader: what it reads, and a table of crafted files it refuses.
#include "common/formats/tensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char folder[128];
    char path[256];
} s_place_t;

static int
s_set_up(void **state)
{
    s_place_t *self = calloc(1, sizeof *self);
    snprintf(self->folder, sizeof self->folder, "%s/lade-safetensors-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(self->folder));
    snprintf(self->path, sizeof self->path, "%s/x.safetensors", self->folder);
    *state = self;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *self = *state;
    unlink(self->path);
    rmdir(self->folder);
    free(self);
    return 0;
}

// A file with this header and so many bytes after it.
static void
s_write(const char *path, uint64_t claimed, const char *header, size_t len, off_t data)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    for (int i = 0; i < 8; i++)
        fputc((int)(claimed >> 8 * i & 0xff), out);
    fwrite(header, 1, len, out);
    fflush(out);
    assert_int_equal(ftruncate(fileno(out), 8 + (off_t)len + data), 0);
    fclose(out);
}

static lade_code_t
s_open(const s_place_t *self, const char *header, off_t data, lade_tensors_t **tensors_p,
       lade_error_t *error)
{
    s_write(self->path, strlen(header), header, strlen(header), data);
    return lade_tensors_open(self->path, tensors_p, error);
}

static void
test_reads_names_types_shapes_places_and_metadata(void **state)
{
    lade_error_t error = {0};
    lade_tensors_t *tensors;
    const char *header =
        "{\"__metadata__\":{\"format\":\"pt\",\"caf\\u00e9\":\"\\ud83d\\ude00 \\\"q\\\"\"},"
        "\"b\":{\"shape\":[2,3],\"data_offsets\":[4,28],\"dtype\":\"F32\"},"
        "\"a\\/x\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[0,2]},"
        "\"zero\":{\"dtype\":\"F16\",\"shape\":[0,5],\"data_offsets\":[2,2]},"
        "\"w\xc3\xa4\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}   ";
    assert_int_equal(s_open(*state, header, 28, &tensors, &error), LADE_OK);
    assert_string_equal(lade_tensors_format(tensors), "safetensors");
    assert_int_equal(lade_tensors_count(tensors), 4);
    assert_string_equal(lade_tensors_get(tensors, 0)->name, "b");
    const lade_tensor_t *b = lade_tensors_find(tensors, "b");
    assert_int_equal(b->dtype, LADE_DTYPE_F32);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->offset, 8 + strlen(header) + 4);
    assert_int_equal(b->size, 24);
    assert_int_equal(lade_tensors_find(tensors, "a/x")->rank, 0);
    assert_non_null(lade_tensors_find(tensors, "w\xc3\xa4"));
    assert_null(lade_tensors_find(tensors, "c"));
    const json_t *metadata = lade_tensors_metadata(tensors);
    assert_string_equal(json_string_value(json_object_get(metadata, "format")), "pt");
    assert_string_equal(json_string_value(json_object_get(metadata, "caf\xc3\xa9")),
                        "\xf0\x9f\x98\x80 \"q\"");
    assert_int_equal(lade_tensors_file_size(tensors, 0), 8 + strlen(header) + 28);
    lade_tensors_destroy(&tensors);
    assert_null(tensors);
    assert_int_equal(s_open(*state, "{}", 0, &tensors, &error), LADE_OK);
    assert_int_equal(lade_tensors_count(tensors), 0);
    assert_null(lade_tensors_find(tensors, "b"));
    lade_tensors_destroy(&tensors);
}

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

#define ENTRY(dtype, shape, begin, end)                                                            \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void
test_refuses_each_crafted_header_with_its_own_words(void **state)
{
    static const struct {
        const char *header;
        off_t data;
        lade_code_t code;
        const char *words;
    } rows[] = {
        // clang-format off
        // JSON
        {"[]",                                                       0, LADE_CORRUPT, "begin with '{'"},
        {" {}",                                                      0, LADE_CORRUPT, "begin with '{'"},
        {"{",                                                        0, LADE_CORRUPT, "ends"},
        {"{\"a",                                                     0, LADE_CORRUPT, "ends inside a text"},
        {"{\"a\":",                                                  0, LADE_CORRUPT, "'{' is expected"},
        {"{\"a\" 1}",                                                0, LADE_CORRUPT, "':' is expected"},
        {"{\"a\":1}",                                                0, LADE_CORRUPT, "'{' is expected"},
        {"{\"a\":" ENTRY("U8", "[1]", "0", "1") ",}",                1, LADE_CORRUPT, "'\"' is expected"},
        {"{\"a\":" ENTRY("U8", "[1]", "0", "1"),                     1, LADE_CORRUPT, "ends where '}'"},
        {"{}x",                                                      0, LADE_CORRUPT, "follows"},
        {"{}{}",                                                     0, LADE_CORRUPT, "follows"},
        {"{\"a\n\":1}",                                              0, LADE_CORRUPT, "control character"},
        {"{\"\\q\":1}",                                              0, LADE_CORRUPT, "escape"},
        {"{\"\\u12g4\":1}",                                          0, LADE_CORRUPT, "hex"},
        {"{\"\\u0000\":1}",                                          0, LADE_CORRUPT, "\\u0000"},
        {"{\"\\ud800\":1}",                                          0, LADE_CORRUPT, "surrogate"},
        {"{\"\\ud800\\u0041\":1}",                                   0, LADE_CORRUPT, "surrogate"},
        {"{\"\\udc00\":1}",                                          0, LADE_CORRUPT, "\\udc00"},
        {"{\"\xff\":1}",                                             0, LADE_CORRUPT, "UTF-8"},
        {"{\"\xc0\x80\":1}",                                         0, LADE_CORRUPT, "UTF-8"},
        {"{\"\xed\xa0\x80\":1}",                                     0, LADE_CORRUPT, "UTF-8"},
        {"{\"\xf4\x90\x80\x80\":1}",                                 0, LADE_CORRUPT, "UTF-8"},
        {"{\"\xe2\x82\":1}",                                         0, LADE_CORRUPT, "UTF-8"},
        // entries
        {"{\"a\":{}}",                                               0, LADE_CORRUPT, "lacks"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}",                 1, LADE_CORRUPT, "lacks"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, LADE_CORRUPT, "dtype is there twice"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1}}", 1, LADE_CORRUPT, "no 'x'"},
        {"{\"a\":" ENTRY("U8", "[1]", "0", "1") ",\"a\":" ENTRY("U8", "[1]", "1", "2") "}", 2, LADE_CORRUPT, "tensor a is there twice"},
        {"{\"a\":" ENTRY("U8", "[1]", "0", "1") ",\"\\u0061\":" ENTRY("U8", "[1]", "1", "2") "}", 2, LADE_CORRUPT, "tensor a is there twice"},
        {"{\"a\":" ENTRY("F5", "[1]", "0", "1") "}",                 1, LADE_NOT_IMPLEMENTED, "dtype F5"},
        {"{\"a\":" ENTRY("Q4_K", "[256]", "0", "144") "}",           144, LADE_NOT_IMPLEMENTED, "dtype Q4_K"},
        {"{\"a\":" ENTRY("QI8", "[1]", "0", "1") "}",                1, LADE_NOT_IMPLEMENTED, "dtype QI8"},
        {"{\"a\":" ENTRY("F4", "[3]", "0", "2") "}",                 2, LADE_CORRUPT, "within a byte"},
        {"{\"a\":" ENTRY("F6_E2M3", "[4]", "0", "4") "}",            4, LADE_CORRUPT, "4 bytes where its shape takes 3"},
        {"{\"a\":" ENTRY("U8", "[1,1,1,1,1,1,1,1,1]", "0", "1") "}", 1, LADE_CORRUPT, "more than 8"},
        {"{\"a\":" ENTRY("U8", "1", "0", "1") "}",                   1, LADE_CORRUPT, "'['"},
        {"{\"a\":" ENTRY("U8", "[-1]", "0", "1") "}",                1, LADE_CORRUPT, "whole number"},
        {"{\"a\":" ENTRY("U8", "[1.0]", "0", "1") "}",               1, LADE_CORRUPT, "whole number"},
        {"{\"a\":" ENTRY("U8", "[1e0]", "0", "1") "}",               1, LADE_CORRUPT, "whole number"},
        {"{\"a\":" ENTRY("U8", "[01]", "0", "1") "}",                1, LADE_CORRUPT, "begins with 0"},
        {"{\"a\":" ENTRY("U8", "[18446744073709551616]", "0", "1") "}", 1, LADE_CORRUPT, "64 bits"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, LADE_CORRUPT, "more than 2"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, LADE_CORRUPT, "two numbers"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[]}}", 1, LADE_CORRUPT, "two numbers"},
        // sizes and places
        {"{\"a\":" ENTRY("U8", "[1]", "1", "0") "}",                 1, LADE_CORRUPT, "before it begins"},
        {"{\"a\":" ENTRY("U8", "[2]", "0", "2") "}",                 1, LADE_CORRUPT, "cut short"},
        {"{\"a\":" ENTRY("F32", "[2]", "0", "4") "}",                4, LADE_CORRUPT, "4 bytes where its shape takes 8"},
        {"{\"a\":" ENTRY("U8", "[4294967296,4294967296]", "0", "0") "}", 0, LADE_CORRUPT, "overflows"},
        {"{\"a\":" ENTRY("F64", "[2305843009213693952]", "0", "0") "}", 0, LADE_CORRUPT, "overflows"},
        {"{\"a\":" ENTRY("U8", "[1]", "0", "1") ",\"b\":" ENTRY("U8", "[1]", "2", "3") "}", 3, LADE_CORRUPT, "b follows a hole"},
        {"{\"a\":" ENTRY("U8", "[1]", "1", "2") "}",                 2, LADE_CORRUPT, "a follows a hole"},
        {"{\"a\":" ENTRY("U8", "[2]", "0", "2") ",\"b\":" ENTRY("U8", "[2]", "1", "3") "}", 3, LADE_CORRUPT, "b overlaps"},
        {"{\"a\":" ENTRY("U8", "[2]", "0", "2") ",\"b\":" ENTRY("U8", "[2]", "0", "2") "}", 2, LADE_CORRUPT, "overlaps"},
        {"{\"a\":" ENTRY("U8", "[1]", "0", "1") "}",                 2, LADE_CORRUPT, "1 bytes follow"},
        {"{}",                                                       1, LADE_CORRUPT, "1 bytes follow"},
        // metadata
        {"{\"__metadata__\":[]}",                                    0, LADE_CORRUPT, "'{' is expected"},
        {"{\"__metadata__\":{\"a\":1}}",                             0, LADE_CORRUPT, "'\"' is expected"},
        {"{\"__metadata__\":{\"a\":{}}}",                            0, LADE_CORRUPT, "'\"' is expected"},
        {"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}",               0, LADE_CORRUPT, "twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}",                0, LADE_CORRUPT, "__metadata__ is there twice"},
        // clang-format on
    };
    // Once more with blanks after it: where enough follows, entries of the usual form are read in
    // another way.
    for (size_t i = 0; i < 2 * (sizeof rows / sizeof *rows); i++) {
        lade_tensors_t *tensors;
        lade_error_t error = {0};
        char header[1000];
        bool blanks = i % 2;
        const char *text = rows[i / 2].header;
        if (blanks && text[strlen(text) - 1] != '}')
            continue;
        snprintf(header, sizeof header, "%s%*s", text, blanks ? 400 : 0, "");
        struct rusage before, after;
        getrusage(RUSAGE_SELF, &before);
        double start = s_now();
        lade_code_t code = s_open(*state, header, rows[i / 2].data, &tensors, &error);
        double took = s_now() - start; // 50 ms, and then some for sanitizers
        getrusage(RUSAGE_SELF, &after);
        if (took > 0.5 || after.ru_maxrss - before.ru_maxrss >= 16 * 1024)
            fail_msg("%s: %g s, %ld KiB", header, took, after.ru_maxrss - before.ru_maxrss);
        if (code != rows[i / 2].code || !strstr(error.message, rows[i / 2].words))
            fail_msg("%s: %s: %s", header, lade_code_name(code), error.message);
        assert_null(tensors);
    }
}

static void
test_refuses_lengths_that_cannot_be(void **state)
{
    s_place_t *self = *state;
    static const struct {
        uint64_t claimed;
        size_t len;
        off_t data;
        lade_code_t code;
        const char *words;
    } rows[] = {
        {UINT64_MAX, 2, 0, LADE_CORRUPT, "cut short"},
        {3, 2, 0, LADE_CORRUPT, "cut short"},
        {0, 2, 0, LADE_CORRUPT, "begin with '{'"},
        {104857601, 2, 200000000, LADE_TOO_LARGE, "104857600 are the most"},
        {100000000, 2, 200000000, LADE_CORRUPT, "follows"}, // "{}" and then zeros
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_tensors_t *tensors;
        lade_error_t error = {0};
        s_write(self->path, rows[i].claimed, "{}", rows[i].len, rows[i].data);
        lade_code_t code = lade_tensors_open(self->path, &tensors, &error);
        if (code != rows[i].code || !strstr(error.message, rows[i].words))
            fail_msg("row %zu: %s: %s", i, lade_code_name(code), error.message);
    }
    for (off_t size = 0; size < 8; size++) {
        lade_tensors_t *tensors;
        s_write(self->path, 0, "", 0, 0);
        assert_int_equal(truncate(self->path, size), 0);
        assert_int_equal(lade_tensors_open(self->path, &tensors, NULL), LADE_CORRUPT);
    }
}

static void
test_a_header_of_nothing_costs_neither_time_nor_memory(void **state)
{
    s_place_t *self = *state;
    struct rusage before, after;
    lade_tensors_t *tensors;
    s_write(self->path, 99999990, "{\"a\"", 4, 100000000);
    getrusage(RUSAGE_SELF, &before);
    double start = s_now();
    assert_int_equal(lade_tensors_open(self->path, &tensors, NULL), LADE_CORRUPT);
    assert_true(s_now() - start < 1); // 50 ms unloaded, and then some for a machine with other work
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 16 * 1024);
}

static void
test_a_sparse_file_of_gigabytes_opens_by_its_header(void **state)
{
    s_place_t *self = *state;
    lade_tensors_t *tensors;
    lade_error_t error = {0};
    off_t size = 7LL << 30;
    assert_int_equal(s_open(self, "{\"w\":" ENTRY("F16", "[1024,3670016]", "0", "7516192768") "}",
                            size, &tensors, &error),
                     LADE_OK);
    assert_int_equal(lade_tensors_get(tensors, 0)->size, size);
    lade_tensors_destroy(&tensors);
}

static void
test_entries_of_any_form_read_the_same(void **state)
{
    static const char *const forms[] = {
        "{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]}",
        "{ \"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]}",
        "{\"dtype\": \"F16\", \"shape\": [2, 3], \"data_offsets\": [0, 12]}",
        "{\"shape\":[2,3],\"dtype\":\"F16\",\"data_offsets\":[0,12]}",
        "{\"dtype\":\"F16\",\"data_offsets\":[0,12],\"shape\":[2,3]\n}",
        "{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12 ]}",
        "{\"\\u0064type\":\"F\\u00316\",\"shape\":[2,3],\"data_offsets\":[0,12]}",
    };
    for (size_t i = 0; i < 2 * (sizeof forms / sizeof *forms); i++) {
        lade_tensors_t *tensors;
        lade_error_t error = {0};
        char header[1000];
        snprintf(header, sizeof header, "{\"a\":%s,\"s\":" ENTRY("F32", "[]", "12", "16") "}%*s",
                 forms[i / 2], i % 2 ? 400 : 0, "");
        if (s_open(*state, header, 16, &tensors, &error))
            fail_msg("%s: %s", header, error.message);
        const lade_tensor_t *a = lade_tensors_find(tensors, "a");
        assert_int_equal(a->dtype, LADE_DTYPE_F16);
        assert_int_equal(a->rank, 2);
        assert_int_equal(a->shape[0], 2);
        assert_int_equal(a->shape[1], 3);
        assert_int_equal(a->offset, 8 + strlen(header));
        assert_int_equal(a->size, 12);
        assert_int_equal(lade_tensors_find(tensors, "s")->rank, 0);
        lade_tensors_destroy(&tensors);
    }
}

static void
test_the_ceiling_of_a_header_can_be_set(void **state)
{
    s_place_t *self = *state;
    lade_tensors_t *tensors;
    char *header = malloc(3 << 20);
    memset(header, ' ', 3 << 20);
    memcpy(header, "{}", 2);
    s_write(self->path, 3 << 20, header, 3 << 20, 0);
    free(header);
    assert_int_equal(lade_tensors_open_within(self->path, 2 << 20, &tensors, NULL), LADE_TOO_LARGE);
    assert_int_equal(lade_tensors_open_within(self->path, 3 << 20, &tensors, NULL), LADE_OK);
    lade_tensors_destroy(&tensors);
}

static void
test_too_long_a_name_is_too_large(void **state)
{
    lade_tensors_t *tensors;
    char *header = calloc(1, 3000);
    memset(header, 'a', 2000);
    memcpy(header, "{\"", 2);
    strcpy(header + 2000, "\":" ENTRY("U8", "[1]", "0", "1") "}");
    assert_int_equal(s_open(*state, header, 1, &tensors, NULL), LADE_TOO_LARGE);
    free(header);
}

static void
test_names_by_the_thousand_are_found_and_their_ceiling_kept(void **state)
{
    enum { COUNT = 20000 };
    lade_tensors_t *tensors;
    lade_error_t error = {0};
    char *header = malloc(COUNT * 100 + 10), name[40];
    size_t len = (size_t)sprintf(header, "{");
    for (int i = 0; i < COUNT; i++) // backwards in the data, so that the layout has to be sorted
        len += (size_t)sprintf(header + len, "%s\"n.%d.weight\":" ENTRY("U8", "[1]", "%d", "%d"),
                               i ? "," : "", i, COUNT - 1 - i, COUNT - i);
    sprintf(header + len, "}");
    assert_int_equal(s_open(*state, header, COUNT, &tensors, &error), LADE_OK);
    assert_int_equal(lade_tensors_count(tensors), COUNT);
    for (int i = 0; i < COUNT; i++) {
        sprintf(name, "n.%d.weight", i);
        assert_string_equal(lade_tensors_find(tensors, name)->name, name);
    }
    lade_tensors_destroy(&tensors);
    free(header);
}

static void
test_every_cut_of_a_good_header_is_refused(void **state)
{
    s_place_t *self = *state;
    const char *header =
        "{\"__metadata__\":{\"a\":\"\\u00e9\"},\"b\":" ENTRY("F32", "[2,3]", "0", "24") "}";
    for (size_t len = 0; len < strlen(header); len++) {
        lade_tensors_t *tensors;
        s_write(self->path, len, header, len, 24);
        assert_int_equal(lade_tensors_open(self->path, &tensors, NULL), LADE_CORRUPT);
    }
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_reads_names_types_shapes_places_and_metadata),
        TEST(test_refuses_each_crafted_header_with_its_own_words),
        TEST(test_refuses_lengths_that_cannot_be),
        TEST(test_a_header_of_nothing_costs_neither_time_nor_memory),
        TEST(test_a_sparse_file_of_gigabytes_opens_by_its_header),
        TEST(test_entries_of_any_form_read_the_same),
        TEST(test_the_ceiling_of_a_header_can_be_set),
        TEST(test_too_long_a_name_is_too_large),
        TEST(test_names_by_the_thousand_are_found_and_their_ceiling_kept),
        TEST(test_every_cut_of_a_good_header_is_refused),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
