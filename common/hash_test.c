// murmur3 and imohash against the vectors their author published; sha256; folders.
#include "common/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
    snprintf(self->folder, sizeof self->folder, "%s/lade-hash-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(self->folder));
    snprintf(self->path, sizeof self->path, "%s/file", self->folder);
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

static void
s_write(const char *path, const void *data, size_t len)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, len, out), len);
    fclose(out);
}

static void
s_assert_hex(const uint8_t *bytes, const char *hex)
{
    char text[33];
    for (int i = 0; i < 16; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
    assert_string_equal(text, hex);
}

// The test data of the algorithm's page: block k is murmur3 of k times the letter A.
static uint8_t *
s_message(size_t n)
{
    size_t blocks = (n + 15) / 16;
    uint8_t *out = malloc(16 * blocks + 16);
    char *letters = malloc(blocks + 1);
    memset(letters, 'A', blocks + 1);
    for (size_t k = 0; k < blocks; k++)
        lade_hash_murmur3(letters, k + 1, out + 16 * k);
    free(letters);
    return out;
}

static void
test_murmur3_vectors(void **state)
{
    (void)state;
    uint8_t out[16];
    lade_hash_murmur3("", 0, out);
    s_assert_hex(out, "00000000000000000000000000000000");
    lade_hash_murmur3("hello", 5, out);
    s_assert_hex(out, "cbd8a7b341bd9b025b1e906a48ae1d19");
    lade_hash_murmur3("hello, world", 12, out);
    s_assert_hex(out, "342fac623a5ebc8e4cdcbc079642414d");
    uint8_t *message = s_message(500000);
    s_assert_hex(message, "035fc2b79a29b17a387df29c46dd9937");
    free(message);
}

static void
test_imohash_vectors(void **state)
{
    static const struct {
        uint32_t sample;
        uint64_t threshold;
        size_t len;
        const char *hash;
    } rows[] = {
        {16384, 131072, 0, "00000000000000000000000000000000"},
        {16384, 131072, 1, "016ac6dd306a3e594e711127c5b5a8e4"},
        {16384, 131072, 127, "7f0e0eaa0a415e2878303214a087fbab"},
        {16384, 131072, 128, "80017902d85ab752459758292a217ed8"},
        {16384, 131072, 4095, "ff1fc7e3b9890469ee676df99f6ac7b7"},
        {16384, 131072, 4096, "80203d4ea589349dcdf63511a8d49d4a"},
        {16384, 131072, 131072, "808008ed886018d5cd37a9b35bbae286"},
        {16384, 131073, 131072, "808008ac6ab33ddcaadea68ba5ad4f05"},
        {16384, 131072, 500000, "a0c21ea46738cf366d496962000a45f7"},
    };
    s_place_t *self = *state;
    uint8_t *message = s_message(500000);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t out[16];
        s_write(self->path, message, rows[i].len);
        assert_int_equal(
            lade_hash_imohash(self->path, rows[i].sample, rows[i].threshold, out, NULL), LADE_OK);
        s_assert_hex(out, rows[i].hash);
    }
    free(message);
}

static void
test_a_sparse_file_of_many_gigabytes_costs_three_samples(void **state)
{
    s_place_t *self = *state;
    s_write(self->path, "", 0);
    assert_int_equal(truncate(self->path, 7LL << 30), 0);
    char *text;
    assert_int_equal(lade_hash_path(self->path, "imohash", NULL, NULL, &text, NULL), LADE_OK);
    assert_int_equal(strlen(text), strlen("imohash:") + 32);
    free(text);
}

static void
test_hash_field_of_a_file(void **state)
{
    s_place_t *self = *state;
    char *text;
    s_write(self->path, "model data", 10);
    assert_int_equal(lade_hash_path(self->path, "sha256", NULL, NULL, &text, NULL), LADE_OK);
    assert_string_equal(text,
                        "sha256:6dbdb6a147ad4d808455652bf5a10120161678395f6bfbd21eb6fe4e731aceeb");
    free(text);
    s_write(self->path, "hello", 5);
    assert_int_equal(lade_hash_path(self->path, "imohash", NULL, NULL, &text, NULL), LADE_OK);
    assert_string_equal(text, "imohash:05d8a7b341bd9b025b1e906a48ae1d19");
    free(text);
    assert_int_equal(lade_hash_path(self->path, "none", NULL, NULL, &text, NULL), LADE_OK);
    assert_string_equal(text, "");
    free(text);
}

static void
test_a_folder_hash_follows_its_weights_and_not_their_names_or_other_files(void **state)
{
    s_place_t *self = *state;
    char first[256], second[256], other[256], *before, *after;
    snprintf(first, sizeof first, "%s/a.safetensors", self->folder);
    snprintf(second, sizeof second, "%s/b.bin", self->folder);
    snprintf(other, sizeof other, "%s/readme.md", self->folder);
    s_write(first, "one", 3);
    s_write(second, "two", 3);
    assert_int_equal(lade_hash_path(self->folder, "sha256", NULL, NULL, &before, NULL), LADE_OK);
    s_write(other, "words", 5);
    assert_int_equal(lade_hash_path(self->folder, "sha256", NULL, NULL, &after, NULL), LADE_OK);
    assert_string_equal(before, after);
    free(after);
    s_write(second, "three", 5);
    assert_int_equal(lade_hash_path(self->folder, "sha256", NULL, NULL, &after, NULL), LADE_OK);
    assert_string_not_equal(before, after);
    free(before);
    free(after);
    unlink(first);
    unlink(second);
    unlink(other);
}

static bool
s_stop(void *arg)
{
    return *(bool *)arg;
}

static void
test_what_cannot_be_hashed_says_why(void **state)
{
    s_place_t *self = *state;
    lade_error_t error = {0};
    char *text;
    bool stop = true;
    assert_int_equal(lade_hash_path("/no/such/file", "sha256", NULL, NULL, &text, &error),
                     LADE_NOT_FOUND);
    s_write(self->path, "x", 1);
    assert_int_equal(lade_hash_path(self->path, "crc32", NULL, NULL, &text, &error),
                     LADE_VALUE_ERROR);
    assert_non_null(strstr(error.message, "crc32"));
    assert_int_equal(lade_hash_path(self->path, "sha256", s_stop, &stop, &text, &error),
                     LADE_CANCELLED);
    assert_null(text);
    stop = false;
    assert_int_equal(lade_hash_path(self->path, "sha256", s_stop, &stop, &text, &error), LADE_OK);
    free(text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_murmur3_vectors),
        cmocka_unit_test_setup_teardown(test_imohash_vectors, s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(test_a_sparse_file_of_many_gigabytes_costs_three_samples,
                                        s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(test_hash_field_of_a_file, s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_folder_hash_follows_its_weights_and_not_their_names_or_other_files, s_set_up,
            s_tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_hashed_says_why, s_set_up, s_tear_down),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
