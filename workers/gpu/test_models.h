// For the tests of this room: a folder to work in, and small models in it.
#ifndef LADE_GPU_TEST_MODELS_H
#define LADE_GPU_TEST_MODELS_H

#include "common/path.h"

#include <endian.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static inline int
test_folder_new(void **state)
{
    const char *above = getenv("TMPDIR");
    char folder[300];
    snprintf(folder, sizeof folder, "%s/lade-gpu-XXXXXX", above && *above ? above : "/tmp");
    *state = strdup(mkdtemp(folder));
    return *state ? 0 : -1;
}

static inline int
test_folder_remove(void **state)
{
    lade_path_remove(*state, NULL);
    free(*state);
    return 0;
}

// What byte at of a test file's weights is.
static inline uint8_t
test_byte(uint64_t at, unsigned seed)
{
    return (uint8_t)((at * 2654435761u >> 13) + seed);
}

// Writes FOLDER/NAME as safetensors of two tensors, "PREFIX.a" (F16) and "PREFIX.b" (F32), of bytes
// in all (a multiple of 8). Returns its path, yours.
static inline char *
test_model(const char *folder, const char *name, const char *prefix, size_t bytes, unsigned seed)
{
    char *path = lade_path_join(folder, name), *above = lade_path_folder(path);
    assert_int_equal(lade_path_mkdirs(above, 0755, NULL), LADE_OK);
    size_t first = bytes / 2 / 8 * 8;
    char header[600];
    int len = snprintf(header, sizeof header,
                       "{\"%s.a\":{\"dtype\":\"F16\",\"shape\":[%zu],\"data_offsets\":[0,%zu]},"
                       "\"%s.b\":{\"dtype\":\"F32\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}}",
                       prefix, first / 2, first, prefix, (bytes - first) / 4, first, bytes);
    while (len % 8)
        header[len++] = ' ';
    uint64_t prefix_len = htole64((uint64_t)len);
    FILE *out = fopen(path, "we");
    assert_non_null(out);
    fwrite(&prefix_len, 8, 1, out);
    fwrite(header, 1, (size_t)len, out);
    uint8_t *data = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++)
        data[i] = test_byte(i, seed);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    assert_int_equal(fclose(out), 0);
    free(data);
    free(above);
    return path;
}

static inline void
test_text_file(const char *folder, const char *name, const char *text)
{
    char *path = lade_path_join(folder, name), *above = lade_path_folder(path);
    assert_int_equal(lade_path_mkdirs(above, 0755, NULL), LADE_OK);
    assert_int_equal(lade_path_write(path, text, strlen(text), 0644, NULL), LADE_OK);
    free(above);
    free(path);
}

static inline json_t *
test_record(const char *key, const char *type, const char *format, const char *path)
{
    json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "key", key, "name", key, "base",
                               "sd-1", "type", type, "format", format, "path", path);
    assert_non_null(record);
    return record;
}

#endif
