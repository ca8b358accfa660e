// The GGUF reader: all versions and byte orders of one file, parts, and a table of crafted files it
// refuses.
//
// Files are written in words: "v3" magic and version, "1:", "2:", "4:", "8:" numbers of so many
// bytes, "n:" one of the version's width of counts, "s:" a text with its length, "z:" so many
// zeros, "pad:" zeros up to a multiple, "kv:" a key with the type of its value, "t:" a tensor's
// name with its number of dimensions.
#include "common/formats/tensors.h"
#include "common/path.h"

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
    snprintf(self->folder, sizeof self->folder, "%s/lade-gguf-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(self->folder));
    snprintf(self->path, sizeof self->path, "%s/x.gguf", self->folder);
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

typedef struct {
    FILE *out;
    bool big;
    int version;
} s_writer_t;

static void
s_put(const s_writer_t *self, uint64_t value, int size)
{
    for (int i = 0; i < size; i++)
        fputc((int)(value >> 8 * (self->big ? size - 1 - i : i) & 0xff), self->out);
}

static void
s_put_text(const s_writer_t *self, const char *text)
{
    s_put(self, strlen(text), self->version == 1 ? 4 : 8);
    fputs(text, self->out);
}

static void
s_put_word(s_writer_t *self, char *word)
{
    char *colon = strchr(word, ':');
    uint64_t value = colon ? strtoull(colon + 1, NULL, 0) : 0;
    if (word[0] == 'v' && !colon) {
        self->version = atoi(word + 1);
        fputs("GGUF", self->out);
        s_put(self, (uint64_t)self->version, 4);
        return;
    }
    assert_non_null(colon);
    *colon = '\0';
    if (strchr("1248", word[0])) {
        s_put(self, value, atoi(word));
    } else if (strcmp(word, "n") == 0) {
        s_put(self, value, self->version == 1 ? 4 : 8);
    } else if (strcmp(word, "s") == 0) {
        s_put_text(self, colon + 1);
    } else if (strcmp(word, "z") == 0) {
        assert_int_equal(fseeko(self->out, (off_t)value, SEEK_CUR), 0);
    } else if (strcmp(word, "pad") == 0) {
        while (ftello(self->out) % (off_t)value)
            fputc(0, self->out);
    } else { // "kv:KEY=TYPE", "t:NAME=DIMENSIONS"
        char *equals = strrchr(colon + 1, '=');
        assert_true((strcmp(word, "kv") == 0 || strcmp(word, "t") == 0) && equals);
        *equals = '\0';
        s_put_text(self, colon + 1);
        s_put(self, strtoull(equals + 1, NULL, 0), 4);
    }
}

// Writes a file; big: with the highest byte first.
static void
s_write(const char *path, const char *words, bool big)
{
    char *copy = strdup(words), *rest = copy;
    s_writer_t writer = {.out = fopen(path, "wb"), .big = big, .version = 3};
    assert_non_null(writer.out);
    for (char *word; (word = strsep(&rest, " "));)
        if (*word)
            s_put_word(&writer, word);
    fflush(writer.out);
    off_t end = ftello(writer.out);
    assert_int_equal(ftruncate(fileno(writer.out), end), 0); // zeros at the end are a hole
    fclose(writer.out);
    free(copy);
}

// ---------------------------------------------------------------------------------------------------

#define PAIRS                                                                                      \
    "kv:general.architecture=8 s:flux kv:a.u8=0 1:200 kv:a.i8=1 1:-5 kv:a.u16=2 2:60000 "          \
    "kv:a.i16=3 2:-300 kv:a.u32=4 4:4000000000 kv:a.i32=5 4:-7 kv:a.f32=6 4:0x3fc00000 "           \
    "kv:a.bool=7 1:1 kv:a.u64=10 8:18446744073709551615 kv:a.i64=11 8:-9 "                         \
    "kv:a.f64=12 8:0x3fe0000000000000 kv:a.nan=6 4:0x7fc00000 "                                    \
    "kv:a.list=9 4:5 n:3 4:1 4:2 4:3 "                                                             \
    "kv:a.lists=9 4:9 n:2 4:8 n:1 s:x 4:0 n:2 1:7 1:8 "
#define TENSORS                                                                                    \
    "t:blk.0.attn_q.weight=2 n:512 n:3 4:12 8:0 "                                                  \
    "t:norm.weight=1 n:4 4:0 8:864 t:half=3 n:2 n:3 n:5 4:1 8:896 "
#define DATA "pad:32 z:864 pad:32 z:16 pad:32 z:60"

static int64_t
s_integer(const lade_tensors_t *tensors, const char *key)
{
    return json_integer_value(json_object_get(lade_tensors_metadata(tensors), key));
}

static void
s_check_pairs(const lade_tensors_t *tensors)
{
    const json_t *pairs = lade_tensors_metadata(tensors);
    assert_string_equal(json_string_value(json_object_get(pairs, "general.architecture")), "flux");
    assert_int_equal(s_integer(tensors, "a.u8"), 200);
    assert_int_equal(s_integer(tensors, "a.i8"), -5);
    assert_int_equal(s_integer(tensors, "a.u16"), 60000);
    assert_int_equal(s_integer(tensors, "a.i16"), -300);
    assert_int_equal(s_integer(tensors, "a.u32"), 4000000000);
    assert_int_equal(s_integer(tensors, "a.i32"), -7);
    assert_true(json_real_value(json_object_get(pairs, "a.f32")) == 1.5);
    assert_true(json_is_true(json_object_get(pairs, "a.bool")));
    assert_true(json_real_value(json_object_get(pairs, "a.u64")) == 18446744073709551616.0);
    assert_int_equal(s_integer(tensors, "a.i64"), -9);
    assert_true(json_real_value(json_object_get(pairs, "a.f64")) == 0.5);
    assert_string_equal(json_string_value(json_object_get(pairs, "a.nan")), "nan");
    char *list = json_dumps(json_object_get(pairs, "a.list"), JSON_COMPACT);
    char *lists = json_dumps(json_object_get(pairs, "a.lists"), JSON_COMPACT);
    assert_string_equal(list, "[1,2,3]");
    assert_string_equal(lists, "[[\"x\"],[7,8]]");
    free(list);
    free(lists);
}

static void
s_check_tensors(const lade_tensors_t *tensors)
{
    assert_int_equal(lade_tensors_count(tensors), 3);
    const lade_tensor_t *q = lade_tensors_get(tensors, 0);
    assert_string_equal(q->name, "blk.0.attn_q.weight");
    assert_int_equal(q->dtype, LADE_DTYPE_Q4_K);
    assert_int_equal(q->rank, 2); // the other way round than they are written
    assert_int_equal(q->shape[0], 3);
    assert_int_equal(q->shape[1], 512);
    assert_int_equal(q->size, 864);
    assert_int_equal(q->offset % 32, 0);
    const lade_tensor_t *half = lade_tensors_find(tensors, "half");
    assert_int_equal(half->dtype, LADE_DTYPE_F16);
    assert_int_equal(half->shape[0], 5);
    assert_int_equal(half->size, 60);
    assert_int_equal(half->offset, q->offset + 896);
    assert_int_equal(half->offset + 60, lade_tensors_file_size(tensors, 0));
}

static void
test_every_version_and_byte_order_reads_the_same(void **state)
{
    static const struct {
        const char *version;
        bool big;
    } rows[] = {{"v1 ", false}, {"v2 ", false}, {"v3 ", false}, {"v3 ", true}};
    s_place_t *self = *state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char words[2000];
        lade_error_t error = {0};
        lade_tensors_t *tensors;
        snprintf(words, sizeof words, "%sn:3 n:15 %s%s%s", rows[i].version, PAIRS, TENSORS, DATA);
        s_write(self->path, words, rows[i].big);
        if (lade_tensors_open(self->path, &tensors, &error))
            fail_msg("%s%d: %s", rows[i].version, rows[i].big, error.message);
        assert_string_equal(lade_tensors_format(tensors), "gguf");
        assert_int_equal(s_integer(tensors, "gguf.version"), rows[i].version[1] - '0');
        s_check_pairs(tensors);
        s_check_tensors(tensors);
        lade_tensors_destroy(&tensors);
    }
}

static void
test_long_arrays_and_texts_are_told_by_their_number(void **state)
{
    s_place_t *self = *state;
    lade_error_t error = {0};
    lade_tensors_t *tensors;
    char *words = malloc(400000), *at = words;
    at += sprintf(at, "v3 n:0 n:3 kv:tokens=9 4:8 n:30000 ");
    for (int i = 0; i < 30000; i++)
        at += sprintf(at, "s:t%d ", i);
    at += sprintf(at, "kv:scores=9 4:6 n:100000 z:400000 kv:text=8 n:70000 z:70000");
    s_write(self->path, words, false);
    free(words);
    assert_int_equal(lade_tensors_open(self->path, &tensors, &error), LADE_OK);
    const json_t *pairs = lade_tensors_metadata(tensors);
    const json_t *tokens = json_object_get(pairs, "tokens");
    assert_int_equal(json_integer_value(json_object_get(tokens, "count")), 30000);
    assert_string_equal(json_string_value(json_object_get(tokens, "type")), "text");
    assert_int_equal(json_array_size(json_object_get(tokens, "first")), 3);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(pairs, "scores"), "count")),
                     100000);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(pairs, "text"), "bytes")),
                     70000);
    lade_tensors_destroy(&tensors);
}

// One pair of a long list of one kind of value.
#define T1 "t:a=1 n:1 4:0 8:0 "

static const struct {
    const char *words;
    lade_code_t code;
    const char *says;
} s_crafted[] = {
    // clang-format off
    // the head
    {"v3",                                                    LADE_CORRUPT, "cut short"},
    {"v3 n:0",                                                LADE_CORRUPT, "cut short"},
    {"v0 n:0 n:0",                                            LADE_CORRUPT, "no version 0"},
    {"v4 n:0 n:0",                                            LADE_NOT_IMPLEMENTED, "version 4"},
    {"v33554432 n:0 n:0",                                     LADE_CORRUPT, "no version 2 of GGUF with the highest byte first"},
    {"v3 n:0xffffffffffffffff n:0",                           LADE_CORRUPT, "18446744073709551615 tensors"},
    {"v3 n:0 n:0xffffffffffffffff",                           LADE_CORRUPT, "18446744073709551615 pairs"},
    {"v3 n:2000000 n:0 z:100000000",                          LADE_TOO_LARGE, "1048576 are the most"},
    {"v3 n:0 n:20000 z:1000000",                              LADE_TOO_LARGE, "10000 are the most"},
    {"v1 n:4294967295 n:0",                                   LADE_CORRUPT, "4294967295 tensors"},
    {"v3 n:1000 n:0 z:25000",                                 LADE_CORRUPT, "a name is empty"},
    // pairs
    {"v3 n:0 n:1 n:0xffffffffffffffff 4:0 1:0",               LADE_CORRUPT, "too few"},
    {"v3 n:0 n:1 n:2000 z:3000",                              LADE_TOO_LARGE, "a name of 2000 bytes"},
    {"v3 n:0 n:1 n:0 4:0 1:0",                                LADE_CORRUPT, "a name is empty"},
    {"v3 n:0 n:1 n:2 2:0x80ff 4:0 1:0",                       LADE_CORRUPT, "no UTF-8"},
    {"v3 n:0 n:1 n:2 2:0x0061 4:0 1:0",                       LADE_CORRUPT, "no UTF-8"},
    {"v3 n:0 n:1 kv:a=13 8:0",                                LADE_CORRUPT, "the type 13"},
    {"v3 n:0 n:1 kv:a=0xffffffff 8:0",                        LADE_CORRUPT, "the type 4294967295"},
    {"v3 n:0 n:2 kv:a=0 1:1 kv:a=0 1:1",                      LADE_CORRUPT, "a is there twice"},
    {"v3 n:0 n:1 kv:a=7 1:2",                                 LADE_CORRUPT, "a bool is 2"},
    {"v3 n:0 n:1 kv:a=10 4:1",                                LADE_CORRUPT, "cut short"},
    {"v3 n:0 n:1 kv:a=8 8:0xffffffffffffffff",                LADE_CORRUPT, "key a: it has 18446744073709551615 bytes in a text"},
    {"v3 n:0 n:1 kv:a=8 8:9 4:0",                             LADE_CORRUPT, "9 bytes in a text"},
    // arrays
    {"v3 n:0 n:1 kv:a=9 4:0 n:0xffffffffffffffff",            LADE_CORRUPT, "elements in an array"},
    {"v3 n:0 n:1 kv:a=9 4:12 n:0x2000000000000000 z:64",      LADE_CORRUPT, "elements in an array"}, // * 8 is 0
    {"v3 n:0 n:1 kv:a=9 4:13 n:1 z:64",                       LADE_CORRUPT, "the type 13"},
    {"v3 n:0 n:1 kv:a=9 4:8 n:2 s:x 8:99",                    LADE_CORRUPT, "99 bytes in a text"},
    {"v3 n:0 n:1 kv:a=9 4:9 n:1 4:9 n:1 4:9 n:1 4:9 n:1 4:9 n:1 4:0 n:0", LADE_TOO_LARGE, "4 deep are the most"},
    {"v3 n:0 n:1 kv:a=9 4:8 n:2100000 z:50000000",            LADE_TOO_LARGE, "2097152 texts"},
    {"v3 n:0 n:1 kv:a=9 4:9 n:530000 z:70000000",            LADE_TOO_LARGE, "2097152 texts"},
    // 43 bytes: an array of arrays with more elements than a loop should count
    {"v3 n:0 n:1 kv:a=9 4:9 n:0x7fffffff z:1",                LADE_CORRUPT, "2147483647 elements"},
    // alignment
    {"v3 n:0 n:1 kv:general.alignment=4 4:0",                 LADE_CORRUPT, "alignment is 0"},
    {"v3 n:0 n:1 kv:general.alignment=4 4:24",                LADE_CORRUPT, "alignment is 24"},
    {"v3 n:0 n:1 kv:general.alignment=10 8:32",               LADE_CORRUPT, "alignment is uint64"},
    {"v3 n:0 n:1 kv:general.alignment=8 s:32",                LADE_CORRUPT, "alignment is text"},
    {"v3 n:1 n:1 kv:general.alignment=4 4:2147483648 " T1 "pad:32 z:4", LADE_CORRUPT, "ends at"},
    // tensors
    {"v3 n:1 n:0 t:a=6 n:1 n:1 n:1 n:1 n:1 n:1 4:0 8:0 pad:32 z:4", LADE_CORRUPT, "6 dimensions, 5 are the most"},
    {"v3 n:1 n:0 t:a=0xffffffff n:1 4:0 8:0 pad:32 z:4",      LADE_CORRUPT, "4294967295 dimensions"},
    {"v3 n:1 n:0 t:a=2 n:0 n:1 4:0 8:0 pad:32 z:4",           LADE_CORRUPT, "a dimension of 0"},
    {"v3 n:1 n:0 t:a=2 n:1 n:0 4:12 8:0 pad:32 z:4",          LADE_CORRUPT, "a dimension of 0"},
    {"v3 n:1 n:0 t:a=2 n:0x100000000 n:0x100000000 4:0 8:0 pad:32 z:4", LADE_CORRUPT, "overflows"},
    {"v3 n:1 n:0 t:a=1 n:0x4000000000000001 4:0 8:0 pad:32 z:4", LADE_CORRUPT, "overflows"}, // * 4 is 4
    {"v3 n:1 n:0 t:a=1 n:0xffffffffffffff00 4:12 8:0 pad:32 z:4", LADE_CORRUPT, "beyond the file"},
    {"v3 n:1 n:0 t:a=1 n:255 4:12 8:0 pad:32 z:144",          LADE_CORRUPT, "no whole number of Q4_K blocks"},
    {"v3 n:1 n:0 t:a=0 4:2 8:0 pad:32 z:18",                  LADE_CORRUPT, "no whole number of Q4_0 blocks"},
    {"v3 n:1 n:0 t:a=1 n:1 4:4 8:0 pad:32 z:4",               LADE_NOT_IMPLEMENTED, "type 4, which was taken out"},
    {"v3 n:1 n:0 t:a=1 n:1 4:999 8:0 pad:32 z:4",             LADE_NOT_IMPLEMENTED, "type 999, which lade does not know"},
    {"v3 n:1 n:0 t:a=1 n:1 4:0 8:1 pad:32 z:64",              LADE_CORRUPT, "no multiple of 32"},
    {"v3 n:1 n:0 t:a=1 n:1 4:0 8:0xffffffffffffffe0 pad:32 z:64", LADE_CORRUPT, "beyond the file"},
    {"v3 n:1 n:0 t:a=1 n:100 4:0 8:0 pad:32 z:4",             LADE_CORRUPT, "beyond the file"},
    {"v3 n:1 n:0 t:a=1 n:20 4:0 8:0 pad:32 z:76",             LADE_CORRUPT, "ends at 144 of 140 bytes"},
    {"v3 n:1 n:0 " T1,                                        LADE_CORRUPT, "ends at"},
    {"v3 n:2 n:0 " T1 T1 "pad:32 z:64",                       LADE_CORRUPT, "a is there twice"},
    {"v3 n:2 n:0 " T1 "t:b=1 n:1 4:0 8:0 pad:32 z:4",         LADE_CORRUPT, "overlaps"},
    {"v3 n:2 n:0 t:a=1 n:16 4:0 8:0 t:b=1 n:1 4:0 8:32 pad:32 z:64", LADE_CORRUPT, "b overlaps"},
    {"v3 n:2 n:0 " T1 "t:b=1 n:1 4:0 8:96 pad:32 z:100",      LADE_CORRUPT, "b follows a hole"},
    {"v3 n:1 n:0 t:a=1 n:1 4:0 8:64 pad:32 z:68",             LADE_CORRUPT, "a follows a hole"},
    {"v3 n:1 n:0 " T1 "pad:32 z:64",                          LADE_CORRUPT, "60 bytes follow"},
    {"v3 n:1 n:0 n:2 2:0x0061 4:1 n:1 4:0 8:0 pad:32 z:4",    LADE_CORRUPT, "no UTF-8"},
    // clang-format on
};

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void
test_refuses_each_crafted_file_quickly_in_its_own_words(void **state)
{
    s_place_t *self = *state;
    struct rusage before, after;
    for (size_t i = 0; i < sizeof s_crafted / sizeof *s_crafted; i++) {
        lade_tensors_t *tensors;
        lade_error_t error = {0};
        s_write(self->path, s_crafted[i].words, false);
        getrusage(RUSAGE_SELF, &before);
        double start = s_now();
        lade_code_t code = lade_tensors_open(self->path, &tensors, &error);
        double took = s_now() - start;
        getrusage(RUSAGE_SELF, &after);
        if (code != s_crafted[i].code || !strstr(error.message, s_crafted[i].says))
            fail_msg("%s: %s: %s", s_crafted[i].words, lade_code_name(code), error.message);
        assert_null(tensors);
        // 50 ms, and then some for sanitizers
        if (took > 0.5 || after.ru_maxrss - before.ru_maxrss >= 16 * 1024)
            fail_msg("%s: %g s, %ld KiB", s_crafted[i].words, took,
                     after.ru_maxrss - before.ru_maxrss);
    }
}

static void
test_every_cut_of_a_good_file_is_refused(void **state)
{
    s_place_t *self = *state;
    s_write(self->path, "v3 n:3 n:15 " PAIRS TENSORS DATA, false);
    for (off_t size = lade_path_size(self->path) - 1; size >= 0; size--) {
        lade_tensors_t *tensors;
        assert_int_equal(truncate(self->path, size), 0);
        lade_code_t code = lade_tensors_open(self->path, &tensors, NULL);
        if (size >= 4)
            assert_int_equal(code, LADE_CORRUPT);
        assert_int_not_equal(code, LADE_OK);
    }
}

// ---------------------------------------------------------------------------------------------------
// Parts

static char *
s_write_part(const s_place_t *self, const char *name, const char *words)
{
    char *path = lade_path_join(self->folder, name);
    s_write(path, words, false);
    return path;
}

static void
s_assert_opens(const char *path, size_t count, lade_code_t code, const char *says)
{
    lade_error_t error = {0};
    lade_tensors_t *tensors;
    lade_code_t got = lade_tensors_open(path, &tensors, &error);
    if (got != code || !strstr(error.message, says))
        fail_msg("%s: %s: %s", path, lade_code_name(got), error.message);
    if (!code)
        assert_int_equal(lade_tensors_count(tensors), count);
    lade_tensors_destroy(&tensors);
}

#define SPLIT(no, tensors)                                                                         \
    "v3 n:1 n:3 kv:split.no=2 2:" no " kv:split.count=2 2:2 kv:split.tensors.count=5 4:" tensors " "

static void
test_parts_are_one_list_whichever_is_named(void **state)
{
    s_place_t *self = *state;
    char *one = s_write_part(self, "m-00001-of-00002.gguf", SPLIT("0", "2") T1 "pad:32 z:4");
    char *two =
        s_write_part(self, "m-00002-of-00002.gguf", SPLIT("1", "2") "t:b=1 n:1 4:0 8:0 pad:32 z:4");
    s_assert_opens(one, 2, LADE_OK, "");
    s_assert_opens(two, 2, LADE_OK, "");
    s_assert_opens(self->folder, 2, LADE_OK, "");
    free(s_write_part(self, "m-00002-of-00002.gguf", SPLIT("1", "2") T1 "pad:32 z:4"));
    s_assert_opens(one, 0, LADE_CORRUPT, "a is there twice");
    unlink(two);
    s_assert_opens(one, 0, LADE_NOT_FOUND, "m-00002-of-00002.gguf");
    free(s_write_part(self, "m-00001-of-00002.gguf", SPLIT("0", "3") T1 "pad:32 z:4"));
    free(s_write_part(self, "m-00002-of-00002.gguf",
                      SPLIT("1", "3") "t:b=1 n:1 4:0 8:0 pad:32 z:4"));
    s_assert_opens(one, 0, LADE_CORRUPT, "hold 2 tensors, not the 3");
    free(s_write_part(self, "m-00001-of-00002.gguf", "v3 n:1 n:0 " T1 "pad:32 z:4"));
    free(s_write_part(self, "m-00002-of-00002.gguf", "v3 n:1 n:0 t:b=1 n:1 4:0 8:0 pad:32 z:4"));
    s_assert_opens(one, 0, LADE_CORRUPT, "of 2 parts by its name, of 0");
    free(one);
    free(two);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_every_version_and_byte_order_reads_the_same),
        TEST(test_long_arrays_and_texts_are_told_by_their_number),
        TEST(test_refuses_each_crafted_file_quickly_in_its_own_words),
        TEST(test_every_cut_of_a_good_file_is_refused),
        TEST(test_parts_are_one_list_whichever_is_named),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
