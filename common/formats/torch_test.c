// torch's files: what a large checkpoint costs, and a table of archives and rows that are refused.
// What torch itself writes is compared with what it reads in tests/safety.
#include "common/formats/tensors.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { S_TENSORS = 2500, S_ROWS = 1024, S_COLUMNS = 700 };
#define S_BYTES ((uint64_t)S_ROWS * S_COLUMNS * 4) // of each; 7.2 GB together

typedef struct {
    char folder[128], path[256];
} s_place_t;

static int
s_set_up(void **state)
{
    s_place_t *self = calloc(1, sizeof *self);
    snprintf(self->folder, sizeof self->folder, "%s/lade-torch-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(self->folder));
    snprintf(self->path, sizeof self->path, "%s/model.ckpt", self->folder);
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

// ---------------------------------------------------------------------------------------------------
// Writing

static void
s_number(FILE *out, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        fputc(i < 8 ? (int)(value >> 8 * i & 0xff) : 0, out);
}

static void
s_text(FILE *out, const char *text)
{
    fputc('X', out);
    s_number(out, strlen(text), 4);
    fputs(text, out);
}

// What a tensor is in the pickle, with one of a hundred lies.
typedef struct {
    uint64_t elements, from, rows, columns, row_stride;
} s_shape_t;

static const s_shape_t s_true = {(uint64_t)S_ROWS * S_COLUMNS, 0, S_ROWS, S_COLUMNS, S_COLUMNS};

static void
s_tensor(FILE *out, size_t i, const s_shape_t *shape)
{
    char text[64];
    snprintf(text, sizeof text, "model.diffusion_model.input_blocks.%zu.weight", i);
    s_text(out, text);
    fputs("ctorch._utils\n_rebuild_tensor_v2\n((", out);
    s_text(out, "storage");
    fputs("ctorch\nFloatStorage\n", out);
    snprintf(text, sizeof text, "%zu", i);
    s_text(out, text);
    s_text(out, "cpu");
    fputs("\x8a\x08", out);
    s_number(out, shape->elements, 8);
    fputs("tQ\x8a\x08", out);
    s_number(out, shape->from, 8);
    fputs("\x8a\x08", out);
    s_number(out, shape->rows, 8);
    fputs("\x8a\x08", out);
    s_number(out, shape->columns, 8);
    fputs("\x86\x8a\x08", out);
    s_number(out, shape->row_stride, 8);
    fputs("K\x01\x86\x89", out);
    fputs("ccollections\nOrderedDict\n)RtR", out);
}

// {"state_dict": {…}, "global_step": 840000}
static void
s_object(FILE *out, size_t count, const s_shape_t *shape)
{
    fputs("\x80\x02}(", out);
    s_text(out, "state_dict");
    fputs("}(", out);
    for (size_t i = 0; i < count; i++)
        s_tensor(out, i, shape);
    fputc('u', out);
    s_text(out, "global_step");
    fputs("J", out);
    s_number(out, 840000, 4);
    fputs("u.", out);
}

static uint32_t
s_crc(const char *bytes, size_t len)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= (uint8_t)bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

// A member as torch writes it: sizes behind it, its bytes on a multiple of 64. Those of weights are
// a hole.
static void
s_member(FILE *out, FILE *directory, const char *name, const char *bytes, uint64_t len)
{
    uint64_t at = (uint64_t)ftello(out), begin = (at + 30 + strlen(name) + 4 + 63) & ~(uint64_t)63;
    uint32_t crc = bytes ? s_crc(bytes, len) : 0;
    fputs("PK\3\4", out);
    s_number(out, 0x0808 << 16, 4); // version, flags
    s_number(out, 0, 2 + 4 + 4 + 8);
    s_number(out, strlen(name), 2);
    s_number(out, begin - at - 30 - strlen(name), 2);
    fputs(name, out);
    fputs("FB", out);
    s_number(out, begin - at - 30 - strlen(name) - 4, 2);
    fseeko(out, (off_t)begin, SEEK_SET);
    if (bytes)
        fwrite(bytes, 1, len, out);
    else
        fseeko(out, (off_t)len, SEEK_CUR);
    fputs("PK\7\10", out);
    s_number(out, crc, 4);
    s_number(out, len, 4);
    s_number(out, len, 4);
    fputs("PK\1\2", directory);
    s_number(directory, 0, 4);
    s_number(directory, 0x0808, 2);
    s_number(directory, 0, 2 + 4);
    s_number(directory, crc, 4);
    s_number(directory, len, 4);
    s_number(directory, len, 4);
    s_number(directory, strlen(name), 2);
    s_number(directory, 12, 2);
    s_number(directory, 0, 2 + 2 + 2 + 4);
    s_number(directory, 0xffffffff, 4);
    fputs(name, directory);
    s_number(directory, 1 | 8 << 16, 4);
    s_number(directory, at, 8);
}

static void
s_write_zip(const char *path, size_t count, const s_shape_t *shape)
{
    char *pickle, *entries, name[64];
    size_t len, entries_len;
    FILE *out = fopen(path, "wb"), *object = open_memstream(&pickle, &len);
    FILE *directory = open_memstream(&entries, &entries_len);
    s_object(object, count, shape);
    fclose(object);
    s_member(out, directory, "archive/data.pkl", pickle, len);
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "archive/data/%zu", i);
        s_member(out, directory, name, NULL, S_BYTES);
    }
    s_member(out, directory, "archive/version", "3\n", 2);
    fclose(directory);
    uint64_t at = (uint64_t)ftello(out), end = at + entries_len;
    fwrite(entries, 1, entries_len, out);
    fputs("PK\6\6", out);
    s_number(out, 44, 8);
    s_number(out, 0, 4 + 4 + 4);
    s_number(out, count + 2, 8);
    s_number(out, count + 2, 8);
    s_number(out, entries_len, 8);
    s_number(out, at, 8);
    fputs("PK\6\7", out);
    s_number(out, 0, 4);
    s_number(out, end, 8);
    s_number(out, 1, 4);
    fputs("PK\5\6", out);
    s_number(out, 0, 4);
    s_number(out, count + 2, 2);
    s_number(out, count + 2, 2);
    s_number(out, entries_len, 4);
    s_number(out, 0xffffffff, 4);
    s_number(out, 0, 2);
    fclose(out);
    free(pickle);
    free(entries);
}

static void
s_write_row(const char *path, size_t count, const s_shape_t *shape)
{
    static const char head[] = "\x80\x02\x8a\nl\xfc\x9c"
                               "F\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    char text[32];
    FILE *out = fopen(path, "wb");
    fwrite(head, 1, sizeof head - 1, out);
    s_object(out, count, shape);
    fputs("\x80\x02](", out);
    for (size_t i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%zu", i);
        s_text(out, text);
    }
    fputs("e.", out);
    for (size_t i = 0; i < count; i++) {
        s_number(out, S_BYTES / 4, 8);
        fseeko(out, (off_t)S_BYTES, SEEK_CUR);
    }
    fflush(out);
    assert_int_equal(ftruncate(fileno(out), ftello(out)), 0);
    fclose(out);
}

// ---------------------------------------------------------------------------------------------------

// Bytes this process has read so far.
static uint64_t
s_read_bytes(void)
{
    char line[64];
    uint64_t bytes = 0;
    FILE *io = fopen("/proc/self/io", "r");
    if (io && fgets(line, sizeof line, io))
        sscanf(line, "rchar: %" SCNu64, &bytes);
    if (io)
        fclose(io);
    return bytes;
}

// Of this process, as others may be busy beside it.
static double
s_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

// Sanitizers and valgrind make everything slower by factors of their own.
static bool
s_is_plain(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return false;
#else
    const char *preload = getenv("LD_PRELOAD");
    return !preload || !strstr(preload, "vgpreload");
#endif
}

static void
s_assert_cheap(const char *path, const char *format)
{
    double best_ms = 1e9;
    uint64_t read_bytes = 0;
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size > INT64_C(7000000000));
    for (int round = 0; round < 5; round++) {
        lade_tensors_t *tensors;
        lade_error_t error = {0};
        uint64_t before = s_read_bytes();
        double began = s_now_ms();
        if (lade_tensors_open(path, &tensors, &error))
            fail_msg("%s", error.message);
        double ms = s_now_ms() - began;
        best_ms = ms < best_ms ? ms : best_ms;
        read_bytes = s_read_bytes() - before;
        assert_string_equal(lade_tensors_format(tensors), format);
        assert_int_equal(lade_tensors_count(tensors), S_TENSORS);
        const lade_tensor_t *last =
            lade_tensors_find(tensors, "model.diffusion_model.input_blocks.2499.weight");
        assert_non_null(last);
        assert_int_equal(last->size, S_BYTES);
        assert_true(last->offset > UINT64_C(7000000000) &&
                    last->offset + last->size < (uint64_t)st.st_size + 1);
        assert_int_equal(json_array_size(lade_tensors_unsafe(tensors)), 0);
        assert_int_equal(json_integer_value(lade_tensors_value(tensors, "global_step")), 840000);
        lade_tensors_destroy(&tensors);
    }
    print_message("%s: %.1f ms, %" PRIu64 " bytes read\n", format, best_ms, read_bytes);
    assert_true(read_bytes < 2000000);
    if (s_is_plain())
        assert_true(best_ms < 20);
}

static void
test_a_checkpoint_of_7_gb_costs_its_pickle(void **state)
{
    s_place_t *self = *state;
    s_write_zip(self->path, S_TENSORS, &s_true);
    s_assert_cheap(self->path, "torch");
    s_write_row(self->path, S_TENSORS, &s_true);
    s_assert_cheap(self->path, "pickle");
}

static void
test_tensors_have_to_lie_in_their_storages(void **state)
{
    s_place_t *self = *state;
    static const struct {
        s_shape_t shape;
        const char *words; // NULL: it is fine
    } rows[] = {
        // clang-format off
        {{S_ROWS * S_COLUMNS, 0, S_ROWS, S_COLUMNS, S_COLUMNS},          NULL},
        {{S_ROWS * S_COLUMNS, 0, S_ROWS, 0, 0},                          NULL},
        {{S_ROWS * S_COLUMNS, 0, S_ROWS, S_COLUMNS, 0},                  NULL}, // one row many times
        {{S_ROWS * S_COLUMNS, 1, S_ROWS, S_COLUMNS, S_COLUMNS},          "reaches beyond its storage"},
        {{S_ROWS * S_COLUMNS, 0, S_ROWS + 1, S_COLUMNS, S_COLUMNS},      "reaches beyond its storage"},
        {{S_ROWS * S_COLUMNS, 0, S_ROWS, S_COLUMNS, S_COLUMNS + 1},      "reaches beyond its storage"},
        {{S_ROWS * S_COLUMNS, UINT64_C(1) << 62, 1, 1, 1},               "reaches beyond its storage"},
        {{S_ROWS * S_COLUMNS, 0, UINT64_C(1) << 62, 4, 0},               "larger than can be"},
        {{S_ROWS * S_COLUMNS, 0, UINT64_MAX, 1, 1},                      "no tensor is made of"}, // -1
        {{S_ROWS * S_COLUMNS, UINT64_MAX, 1, 1, 1},                      "no tensor is made of"},
        {{S_ROWS * S_COLUMNS + 1, 0, 1, 1, 1},                           ""}, // not what its bytes say
        {{UINT64_C(1) << 62, 0, 1, 1, 1},                                ""},
        {{UINT64_MAX, 0, 1, 1, 1},                                       "no size"},
        // clang-format on
    };
    for (size_t i = 0; i < 2 * (sizeof rows / sizeof *rows); i++) {
        lade_tensors_t *tensors;
        lade_error_t error = {0};
        const char *words = rows[i / 2].words;
        (i % 2 ? s_write_zip : s_write_row)(self->path, 1, &rows[i / 2].shape);
        lade_code_t code = lade_tensors_open(self->path, &tensors, &error);
        if (code != (words ? LADE_CORRUPT : LADE_OK) || (words && !strstr(error.message, words)))
            fail_msg("row %zu: %s", i / 2, error.message);
        lade_tensors_destroy(&tensors);
    }
}

// Cut anywhere a file is refused, or a list of what is whole; never more.
static void
test_a_file_that_is_cut_off_is_refused(void **state)
{
    s_place_t *self = *state;
    for (int kind = 0; kind < 2; kind++) {
        struct stat st;
        (kind ? s_write_zip : s_write_row)(self->path, 2, &s_true);
        assert_int_equal(stat(self->path, &st), 0);
        for (off_t len = st.st_size - 1; len > 0; len = len > 3000 ? len - len / 7 - 1 : len - 13) {
            lade_tensors_t *tensors;
            lade_error_t error = {0};
            assert_int_equal(truncate(self->path, len), 0);
            lade_code_t code = lade_tensors_open(self->path, &tensors, &error);
            if (code == LADE_OK || tensors)
                fail_msg("%d: %lld bytes are a list", kind, (long long)len);
            assert_true(*error.message);
        }
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, s_set_up, s_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_checkpoint_of_7_gb_costs_its_pickle),
        TEST(test_tensors_have_to_lie_in_their_storages),
        TEST(test_a_file_that_is_cut_off_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
