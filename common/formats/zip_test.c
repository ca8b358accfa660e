// Zip archives: which member is read, how much of it, and what is said of an archive that lies.
#include "common/formats/zip.h"

#include "common/formats/tensor_list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

typedef struct {
    lade_tensors_t list;
    lade_zip_t *zip;
    int fd;
} s_archive_t;

static int
s_set_up(void **state)
{
    s_archive_t *self = calloc(1, sizeof *self);
    self->list.unsafe = json_array();
    self->fd = memfd_create("zip", MFD_CLOEXEC);
    *state = self;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_archive_t *self = *state;
    lade_zip_destroy(&self->zip);
    json_decref(self->list.unsafe);
    close(self->fd);
    free(self);
    return 0;
}

// A member, with whatever is not true of it.
typedef struct {
    const char *name, *bytes;
    bool deflate;
    uint16_t central_flags, local_flags;
    uint32_t crc_off, size_off; // added to what is true
} s_row_t;

static void
s_put(FILE *out, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        fputc(i < 8 ? (int)(value >> 8 * i & 0xff) : 0, out);
}

static size_t
s_deflate(const char *bytes, size_t len, uint8_t *out, size_t max)
{
    z_stream stream = {.next_in = (uint8_t *)bytes, .avail_in = (uInt)len};
    stream.next_out = out;
    stream.avail_out = (uInt)max;
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return max - stream.avail_out;
}

static void
s_put_sizes(FILE *out, const s_row_t *row, uint32_t crc, size_t packed, size_t size)
{
    s_put(out, row->deflate ? 8 : 0, 2);
    s_put(out, 0, 4);
    s_put(out, crc + row->crc_off, 4);
    s_put(out, packed, 4);
    s_put(out, size + row->size_off, 4);
    s_put(out, strlen(row->name), 2);
}

// Writes the archive of the rows and opens it.
static lade_code_t
s_open(s_archive_t *self, const s_row_t *rows, size_t count, lade_error_t *error)
{
    char *directory, *body;
    size_t directory_len, body_len;
    FILE *entries = open_memstream(&directory, &directory_len);
    FILE *out = open_memstream(&body, &body_len);
    for (size_t i = 0; i < count; i++) {
        uint8_t packed[4096];
        size_t size = strlen(rows[i].bytes), len = size, at = (size_t)ftell(out);
        uint32_t crc = (uint32_t)crc32(0, (const uint8_t *)rows[i].bytes, (uInt)size);
        memcpy(packed, rows[i].bytes, size);
        if (rows[i].deflate)
            len = s_deflate(rows[i].bytes, size, packed, sizeof packed);
        fputs("PK\3\4\24", out);
        s_put(out, 0, 1);
        s_put(out, rows[i].local_flags, 2);
        s_put_sizes(out, &rows[i], crc, len, size);
        s_put(out, 0, 2);
        fputs(rows[i].name, out);
        fwrite(packed, 1, len, out);
        fputs("PK\1\2\24", entries);
        s_put(entries, 20 << 8, 3);
        s_put(entries, rows[i].central_flags, 2);
        s_put_sizes(entries, &rows[i], crc, len, size);
        s_put(entries, 0, 2 + 2 + 2 + 2 + 4);
        s_put(entries, at, 4);
        fputs(rows[i].name, entries);
    }
    fclose(entries);
    uint64_t at = (uint64_t)ftell(out);
    fwrite(directory, 1, directory_len, out);
    fputs("PK\5\6", out);
    s_put(out, 0, 4);
    s_put(out, count | count << 16, 4);
    s_put(out, directory_len, 4);
    s_put(out, at, 4);
    s_put(out, 0, 2);
    fclose(out);
    assert_int_equal(ftruncate(self->fd, 0), 0);
    assert_int_equal(pwrite(self->fd, body, body_len, 0), body_len);
    free(directory);
    free(body);
    lade_zip_destroy(&self->zip);
    json_array_clear(self->list.unsafe);
    return lade_zip_open(self->fd, body_len, &self->list, &self->zip, error);
}

static const char *
s_said(const s_archive_t *self)
{
    const json_t *first = json_array_get(self->list.unsafe, 0);
    return first ? json_string_value(json_object_get(first, "what")) : "";
}

static void
test_members_are_found_and_read(void **state)
{
    s_archive_t *self = *state;
    static const s_row_t rows[] = {
        {.name = "a/data.pkl", .bytes = "hello"},
        {.name = "a/data/0", .bytes = "0123456789"},
        {.name = "a/long", .bytes = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", .deflate = true}};
    lade_error_t error = {0};
    uint8_t *data, head[4];
    size_t len;
    assert_int_equal(s_open(self, rows, 3, &error), LADE_OK);
    assert_true(lade_zip_is(self->fd, (uint64_t)lseek(self->fd, 0, SEEK_END)));
    assert_string_equal(s_said(self), "");
    assert_int_equal(lade_zip_count(self->zip), 3);
    assert_int_equal(lade_zip_find(self->zip, "a/data/0"), 1);
    assert_int_equal(lade_zip_find(self->zip, "A/DATA/0"), 3);
    assert_int_equal(lade_zip_find(self->zip, "none"), 3);
    const lade_zip_member_t *member = lade_zip_get(self->zip, 1);
    assert_true(lade_zip_is_plain(member) && !lade_zip_is_plain(lade_zip_get(self->zip, 2)));
    assert_int_equal(pread(self->fd, head, 4, (off_t)member->data), 4);
    assert_memory_equal(head, "0123", 4);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(lade_zip_read(self->zip, i, 100, &data, &len, &error), LADE_OK);
        assert_int_equal(len, strlen(rows[i].bytes));
        assert_memory_equal(data, rows[i].bytes, len);
        free(data);
        assert_int_equal(lade_zip_head(self->zip, i, head, sizeof head), 4);
        assert_memory_equal(head, rows[i].bytes, 4);
        assert_int_equal(lade_zip_read(self->zip, i, 4, &data, &len, &error), LADE_TOO_LARGE);
        assert_null(data);
    }
    assert_string_equal(s_said(self), "");
}

static void
test_each_lie_has_its_name(void **state)
{
    s_archive_t *self = *state;
    static const struct {
        s_row_t row;
        const char *opened, *read; // what is said
    } rows[] = {
        // clang-format off
        {{.name = "a", .bytes = "x"},                                              "",              ""},
        {{.name = "a", .bytes = "x", .central_flags = 1, .local_flags = 1},        "zip_encrypted", "zip_encrypted"},
        {{.name = "a", .bytes = "x", .local_flags = 1},                            "zip_headers",   "zip_headers"},
        {{.name = "a", .bytes = "x", .crc_off = 1},                                "",              "zip_checksum"},
        {{.name = "a", .bytes = "x", .size_off = 1},                               "zip_sizes",     "zip_sizes"},
        {{.name = "a", .bytes = "xxxxxxxxxx", .deflate = true, .size_off = 1},     "",              "zip_sizes"},
        {{.name = "a", .bytes = "xxxxxxxxxx", .deflate = true, .size_off = -1},    "",              "zip_sizes"},
        {{.name = "a", .bytes = "x", .deflate = true, .size_off = 1 << 20},        "zip_sizes",     "zip_sizes"},
        {{.name = "../a", .bytes = "x"},                                           "zip_name",      "zip_name"},
        {{.name = "a/..", .bytes = "x"},                                           "zip_name",      "zip_name"},
        {{.name = "..a/b..", .bytes = "x"},                                        "",              ""},
        {{.name = "/a", .bytes = "x"},                                             "zip_name",      "zip_name"},
        {{.name = "C:a", .bytes = "x"},                                            "zip_name",      "zip_name"},
        {{.name = "", .bytes = "x"},                                               "zip_name",      "zip_name"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_error_t error = {0};
        uint8_t *data;
        size_t len;
        if (s_open(self, &rows[i].row, 1, &error) || strcmp(s_said(self), rows[i].opened) != 0)
            fail_msg("row %zu: %s: said '%s'", i, error.message, s_said(self));
        lade_zip_read(self->zip, 0, 1 << 24, &data, &len, &error);
        free(data);
        if (strcmp(s_said(self), rows[i].read) != 0)
            fail_msg("row %zu: then said '%s'", i, s_said(self));
    }
}

static void
test_names_twice_in_any_case(void **state)
{
    s_archive_t *self = *state;
    static const s_row_t rows[] = {{.name = "a/b", .bytes = "1"}, {.name = "A/B", .bytes = "2"}};
    assert_int_equal(s_open(self, rows, 2, NULL), LADE_OK);
    assert_string_equal(s_said(self), "zip_twice");
}

static void
test_what_is_no_archive_is_refused(void **state)
{
    s_archive_t *self = *state;
    static const s_row_t row = {.name = "a", .bytes = "x"};
    lade_error_t error = {0};
    assert_int_equal(s_open(self, &row, 1, &error), LADE_OK);
    off_t size = lseek(self->fd, 0, SEEK_END);
    for (off_t len = size - 1; len >= 0; len--) {
        lade_zip_destroy(&self->zip);
        assert_int_equal(ftruncate(self->fd, len), 0);
        assert_int_equal(lade_zip_open(self->fd, (uint64_t)len, &self->list, &self->zip, &error),
                         LADE_CORRUPT);
        assert_null(self->zip);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, s_set_up, s_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_members_are_found_and_read),
        TEST(test_each_lie_has_its_name),
        TEST(test_names_twice_in_any_case),
        TEST(test_what_is_no_archive_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
