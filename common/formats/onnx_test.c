// The ONNX reader: a graph with inline and outside weights, and a table of crafted files it
// refuses.
//
// Files are written in words: "N=V" a varint field, "N:TEXT" a text field, "N{" … "}" a message in
// a field, "N#C" a field of C zero bytes, "N.HEX" a field of these bytes, "!HEX" bytes as they are.
#include "common/formats/tensors.h"
#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    snprintf(self->folder, sizeof self->folder, "%s/lade-onnx-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(self->folder));
    snprintf(self->path, sizeof self->path, "%s/model.onnx", self->folder);
    *state = self;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *self = *state;
    lade_path_remove(self->folder, NULL);
    free(self);
    return 0;
}

// ---------------------------------------------------------------------------------------------------
// Files in words

enum { S_MAX = 1 << 16, S_MAX_DEPTH = 8 };

typedef struct {
    char bytes[S_MAX];
    size_t len;
} s_piece_t;

static void
s_add(s_piece_t *self, const void *bytes, size_t len)
{
    assert_true(self->len + len <= S_MAX);
    if (len)
        memcpy(self->bytes + self->len, bytes, len);
    self->len += len;
}

static void
s_add_varint(s_piece_t *self, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        s_add(self, &(char){(char)(value | 0x80)}, 1);
    s_add(self, &(char){(char)value}, 1);
}

static void
s_add_bytes(s_piece_t *self, uint64_t field, const void *bytes, size_t len)
{
    s_add_varint(self, field << 3 | 2);
    s_add_varint(self, len);
    s_add(self, bytes, len);
}

static size_t
s_from_hex(const char *hex, char *out)
{
    size_t len = 0;
    for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        out[len++] = (char)byte;
    return len;
}

static void
s_write(const char *path, const char *words)
{
    static const char zeros[S_MAX];
    s_piece_t *stack = calloc(S_MAX_DEPTH, sizeof *stack);
    uint64_t fields[S_MAX_DEPTH] = {0};
    size_t depth = 0;
    char *copy = strdup(words), *rest = copy, bytes[256];
    for (char *word; (word = strsep(&rest, " "));) {
        char *end;
        uint64_t field = strtoull(word, &end, 10);
        if (!*word)
            continue;
        if (*word == '!') {
            s_add(&stack[depth], bytes, s_from_hex(word + 1, bytes));
        } else if (*word == '}') {
            assert_true(depth-- > 0);
            s_add_bytes(&stack[depth], fields[depth], stack[depth + 1].bytes, stack[depth + 1].len);
        } else if (*end == '{') {
            fields[depth++] = field;
            assert_true(depth < S_MAX_DEPTH);
            stack[depth].len = 0;
        } else if (*end == '=') {
            s_add_varint(&stack[depth], field << 3);
            s_add_varint(&stack[depth], strtoull(end + 1, NULL, 0));
        } else if (*end == '#') {
            s_add_bytes(&stack[depth], field, zeros, strtoull(end + 1, NULL, 0));
        } else if (*end == '.') {
            s_add_bytes(&stack[depth], field, bytes, s_from_hex(end + 1, bytes));
        } else {
            assert_int_equal(*end, ':');
            s_add_bytes(&stack[depth], field, end + 1, strlen(end + 1));
        }
    }
    assert_int_equal(depth, 0);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fwrite(stack[0].bytes, 1, stack[0].len, out);
    fclose(out);
    free(copy);
    free(stack);
}

static void
s_write_zeros(const s_place_t *self, const char *name, off_t len)
{
    char *path = lade_path_join(self->folder, name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(ftruncate(fileno(out), len), 0);
    fclose(out);
    free(path);
}

// ---------------------------------------------------------------------------------------------------

// A graph named g with two nodes, one input [batch, 4, ?] and one output.
#define HEAD "1=8 2:pytorch 3:2.1.0 8{ 1: 2=17 } 8{ 1:com.microsoft 2=1 } 14{ 1:license 2:mit } "
#define NODES "1{ 1:x 4:Conv } 1{ 1:y 4:Relu } 2:g "
#define PORTS                                                                                      \
    "11{ 1:sample 2{ 1{ 1=10 2{ 1{ 2:batch } 1{ 1=4 } 1{ } } } } } 12{ 1:out 2{ 1{ 1=1 } } } "
#define INLINE "5{ 1=2 1=3 2=1 8:w 9#24 } "

static json_t *
s_at(const lade_tensors_t *tensors, const char *key)
{
    return json_object_get(lade_tensors_metadata(tensors), key);
}

static void
s_assert_json(const json_t *value, const char *wanted)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
    assert_non_null(text);
    assert_string_equal(text, wanted);
    free(text);
}

static void
test_a_graph_tells_its_weights_and_what_it_takes(void **state)
{
    s_place_t *self = *state;
    lade_error_t error = {0};
    lade_tensors_t *tensors;
    s_write(self->path, HEAD
            "7{ " NODES INLINE
            "5{ 1.0205 2=10 8:packed.dims 9#20 } 5{ 1=2 2=7 8:by.varint 7.9601ac02 } "
            "5{ 1=3 2=6 8:one.by.one 5=1 5=300 5=2 } 5{ 2=1 8:scalar 4#4 } 5{ 1=0 2=1 8:none } "
            "5{ 1=1 2=8 8:text 6:words } 5{ 8:int4 1=3 2=22 9#2 } " PORTS "}");
    if (lade_tensors_open(self->path, &tensors, &error))
        fail_msg("%s", error.message);
    assert_string_equal(lade_tensors_format(tensors), "onnx");
    assert_int_equal(lade_tensors_count(tensors), 7);
    const lade_tensor_t *w = lade_tensors_find(tensors, "w");
    assert_int_equal(w->dtype, LADE_DTYPE_F32);
    assert_int_equal(w->rank, 2);
    assert_int_equal(w->shape[1], 3);
    assert_int_equal(w->size, 24);
    assert_int_equal(lade_tensors_find(tensors, "packed.dims")->shape[1], 5);
    assert_int_equal(lade_tensors_find(tensors, "by.varint")->size, 4);
    assert_int_equal(lade_tensors_find(tensors, "one.by.one")->shape[0], 3);
    assert_int_equal(lade_tensors_find(tensors, "scalar")->rank, 0);
    assert_int_equal(lade_tensors_find(tensors, "none")->size, 0);
    assert_int_equal(lade_tensors_find(tensors, "int4")->dtype, LADE_DTYPE_I4);
    assert_null(lade_tensors_find(tensors, "text"));
    s_assert_json(s_at(tensors, "ir_version"), "8");
    s_assert_json(s_at(tensors, "producer_name"), "\"pytorch\"");
    s_assert_json(s_at(tensors, "opset_import"), "{\"ai.onnx\":17,\"com.microsoft\":1}");
    s_assert_json(s_at(tensors, "metadata_props"), "{\"license\":\"mit\"}");
    s_assert_json(s_at(tensors, "nodes"), "2");
    s_assert_json(s_at(tensors, "graph"), "\"g\"");
    s_assert_json(s_at(tensors, "inputs"),
                  "[{\"dtype\":\"F16\",\"name\":\"sample\",\"shape\":[\"batch\",4,null]}]");
    s_assert_json(s_at(tensors, "outputs"), "[{\"dtype\":\"F32\",\"name\":\"out\"}]");
    lade_tensors_destroy(&tensors);
}

#define OUTSIDE(location, more) "5{ 1=6 2=1 8:o 14=1 13{ 1:location 2:" location " } " more "} "

static void
test_weights_in_other_files_are_placed_there(void **state)
{
    s_place_t *self = *state;
    lade_error_t error = {0};
    lade_tensors_t *tensors;
    s_write_zeros(self, "model.onnx_data", 100);
    s_write(self->path,
            HEAD "7{ " INLINE OUTSIDE(
                "model.onnx_data",
                "13{ 1:offset 2:64 } 13{ 1:length 2:24 } ") "5{ 1=2 2=1 8:p 14=1 13{ 1:location "
                                                            "2:./model.onnx_data } } }");
    if (lade_tensors_open(self->path, &tensors, &error))
        fail_msg("%s", error.message);
    assert_int_equal(lade_tensors_file_count(tensors), 2);
    const lade_tensor_t *o = lade_tensors_find(tensors, "o");
    assert_int_equal(o->file, 1);
    assert_int_equal(o->offset, 64);
    assert_int_equal(o->size, 24);
    assert_int_equal(lade_tensors_find(tensors, "p")->offset, 0);
    assert_int_equal(lade_tensors_find(tensors, "p")->file, 1);
    assert_non_null(strstr(lade_tensors_file(tensors, 1), "/model.onnx_data"));
    assert_int_equal(lade_tensors_file_size(tensors, 1), 100);
    lade_tensors_destroy(&tensors);
}

static void
test_a_path_out_of_the_folder_is_a_finding(void **state)
{
    static const char *const paths[] = {"../secret", "/etc/passwd", "a/../../b", "a\\b"};
    s_place_t *self = *state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        lade_tensors_t *tensors;
        lade_error_t error = {0};
        char words[400];
        snprintf(words, sizeof words, HEAD "7{ " INLINE OUTSIDE("%s", "") "}", paths[i]);
        s_write(self->path, words);
        if (lade_tensors_open(self->path, &tensors, &error))
            fail_msg("%s: %s", paths[i], error.message);
        assert_int_equal(lade_tensors_count(tensors), 1); // what is inline is listed all the same
        const json_t *finding = json_array_get(lade_tensors_unsafe(tensors), 0);
        assert_string_equal(json_string_value(json_object_get(finding, "what")), "path");
        assert_string_equal(json_string_value(json_object_get(finding, "name")), paths[i]);
        lade_tensors_destroy(&tensors);
    }
}

static const struct {
    const char *words;
    lade_code_t code;
    const char *says;
} s_crafted[] = {
    // clang-format off
    {"1=8 2:x",                                        LADE_CORRUPT, "no graph"},
    {"1=8 7{ } 7{ }",                                  LADE_CORRUPT, "two graphs"},
    {"1=8 2:x !3a",                                    LADE_CORRUPT, "cut short"},
    {"1=8 2:x !3aff",                                  LADE_CORRUPT, "cut short"},
    {"1=8 2:x !3affffffffffffffffff01",                LADE_CORRUPT, "18446744073709551615 bytes are to follow"},
    {"1=8 2:x !3affffffffffffffffffff01",              LADE_CORRUPT, "more than 64 bits"},
    {"1=8 2:x !00",                                    LADE_CORRUPT, "no field 0"},
    {"1=8 2:x !0b",                                    LADE_CORRUPT, "kind 3"},
    {"1=8 2:x !0f",                                    LADE_CORRUPT, "kind 7"},
    {"1=8 2:x !09",                                    LADE_CORRUPT, "8 bytes are to follow"},
    {"1=8 2:x 7.2a05",                                 LADE_CORRUPT, "5 bytes are to follow"}, // ends outside its message
    {"1=8 2.ff 7{ }",                                  LADE_CORRUPT, "not UTF-8"},
    {"1=8 2:x 7{ 5{ 2=1 9#4 } }",                      LADE_CORRUPT, "no name"},
    {"1=8 2:x 7{ 5{ 8.610062 2=1 9#4 } }",             LADE_CORRUPT, "zero byte"},
    {"1=8 2:x 7{ 5{ 8#2000 2=1 9#4 } }",               LADE_TOO_LARGE, "2000 bytes, 1024"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 9#4 } 5{ 8:a 2=1 9#4 } }", LADE_CORRUPT, "a is there twice"},
    {"1=8 2:x 7{ 5{ 8:a 9#4 } }",                      LADE_CORRUPT, "type 0"},
    {"1=8 2:x 7{ 5{ 8:a 2=99 9#4 } }",                 LADE_NOT_IMPLEMENTED, "type 99"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 } }",                      LADE_CORRUPT, "has no data"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 1=2 9#4 } }",              LADE_CORRUPT, "4 bytes where its shape takes 8"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 9#4 9#4 } }",              LADE_CORRUPT, "its data twice"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 1=1 1=1 1=1 1=1 1=1 1=1 1=1 1=1 1=1 9#4 } }", LADE_TOO_LARGE, "more than 8"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 1=0xffffffffffffffff 9#4 } }", LADE_CORRUPT, "dimension of -1"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 1=0x100000000 1=0x100000000 9#4 } }", LADE_CORRUPT, "overflows"},
    {"1=8 2:x 7{ 5{ 8:a 2=11 1=0x2000000000000000 9#4 } }", LADE_CORRUPT, "overflows"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 14=2 9#4 } }",             LADE_CORRUPT, "data_location is 2"},
    {"1=8 2:x 7{ 5{ 8:a 2=1 14=1 } }",                 LADE_CORRUPT, "which file"},
    {"1=8 2:x 7{ " OUTSIDE("gone", "") "}",            LADE_NOT_FOUND, "in gone, which is not there"},
    {"1=8 2:x 7{ " OUTSIDE("d", "13{ 1:offset 2:80 } ") "}", LADE_CORRUPT, "ends beyond d"},
    {"1=8 2:x 7{ " OUTSIDE("d", "13{ 1:offset 2:18446744073709551615 } ") "}", LADE_CORRUPT, "ends beyond d"},
    {"1=8 2:x 7{ " OUTSIDE("d", "13{ 1:offset 2:99999999999999999999 } ") "}", LADE_CORRUPT, "no number"},
    {"1=8 2:x 7{ " OUTSIDE("d", "13{ 1:offset 2:-1 } ") "}", LADE_CORRUPT, "no number"},
    {"1=8 2:x 7{ " OUTSIDE("d", "13{ 1:length 2:25 } ") "}", LADE_CORRUPT, "25 bytes where its shape takes 24"},
    // clang-format on
};

static void
test_refuses_each_crafted_file_in_its_own_words(void **state)
{
    s_place_t *self = *state;
    s_write_zeros(self, "d", 100);
    for (size_t i = 0; i < sizeof s_crafted / sizeof *s_crafted; i++) {
        lade_tensors_t *tensors;
        lade_error_t error = {0};
        s_write(self->path, s_crafted[i].words);
        lade_code_t code = lade_tensors_open(self->path, &tensors, &error);
        if (code != s_crafted[i].code || !strstr(error.message, s_crafted[i].says))
            fail_msg("%s: %s: %s", s_crafted[i].words, lade_code_name(code), error.message);
        assert_null(tensors);
    }
}

static void
test_every_cut_of_a_good_file_is_refused(void **state)
{
    s_place_t *self = *state;
    s_write(self->path, HEAD "7{ " NODES INLINE PORTS "}");
    for (off_t size = lade_path_size(self->path) - 1; size >= 0; size--) {
        lade_tensors_t *tensors;
        assert_int_equal(truncate(self->path, size), 0);
        assert_int_equal(lade_tensors_open(self->path, &tensors, NULL), LADE_CORRUPT);
    }
}

// Bytes of a field whose content follows.
static void
s_open_field(FILE *out, int field, uint64_t len)
{
    fputc(field << 3 | 2, out);
    for (; len >= 0x80; len >>= 7)
        fputc((int)(len & 0x7f) | 0x80, out);
    fputc((int)len, out);
}

static void
test_weights_of_gigabytes_are_passed_over(void **state)
{
    static const char about[] = "\x08\x80\x80\x80\x80\x08\x10\x01\x42\x01w"; // [2^31], F32, "w"
    enum { ABOUT = sizeof about - 1, OPENING = 6 }; // tag and length of five bytes
    s_place_t *self = *state;
    lade_tensors_t *tensors;
    lade_error_t error = {0};
    uint64_t bytes = 8ull << 30;
    FILE *out = fopen(self->path, "wb");
    assert_non_null(out);
    fwrite("\x08\x08", 1, 2, out);
    s_open_field(out, 7, OPENING + ABOUT + OPENING + bytes);
    s_open_field(out, 5, ABOUT + OPENING + bytes);
    fwrite(about, 1, ABOUT, out);
    s_open_field(out, 9, bytes);
    fflush(out);
    assert_int_equal(ftruncate(fileno(out), ftello(out) + (off_t)bytes), 0);
    fclose(out);
    clock_t before = clock();
    if (lade_tensors_open(self->path, &tensors, &error))
        fail_msg("%s", error.message);
    assert_true(clock() - before < CLOCKS_PER_SEC);
    assert_int_equal(lade_tensors_find(tensors, "w")->size, bytes);
    lade_tensors_destroy(&tensors);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_graph_tells_its_weights_and_what_it_takes),
        TEST(test_weights_in_other_files_are_placed_there),
        TEST(test_a_path_out_of_the_folder_is_a_finding),
        TEST(test_refuses_each_crafted_file_in_its_own_words),
        TEST(test_every_cut_of_a_good_file_is_refused),
        TEST(test_weights_of_gigabytes_are_passed_over),
    };
    return cmocka_run_group_tests_name("onnx", tests, NULL, NULL);
}
