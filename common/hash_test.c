// murmur3 and imohash against the vectors their author published; sha256; folders.
#include "common/blake3.h"
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

// What the original makes of the same content.
static void
test_each_digest_of_a_known_file(void **state)
{
    static const struct {
        const char *algorithm, *hash;
    } rows[] = {
        // clang-format off
        {"md5",    "md5:a0cd925fc063f98dbf029eee315060c3"},
        {"sha1",   "sha1:9e362940e5603fdc60566ea100a288ba2fe48b8c"},
        {"sha224", "sha224:6319f686cb932d8fa7931959f3dd5d92e24174f1e7969e2ead1ee52b"},
        {"sha256", "sha256:6dbdb6a147ad4d808455652bf5a10120161678395f6bfbd21eb6fe4e731aceeb"},
        {"sha384", "sha384:79b60fd26ce13db419161cc48599e702519032800203a6abf3c473a93e330837751a38a137cc302bae8ef439ce6687ff"},
        {"sha512", "sha512:c4a10476b21e00042f638ad5755c561d91f2bb599d3504d25409495e1c7eda94543332a1a90fbb4efdaf9ee462c33e0336b5eae4acfb1fa0b186af452dd67dc6"},
        {"blake2b", "blake2b:abe43fe7eaed43e5c1a6d3aa2973e38ece32da14a86dd23bca785c30ad5d426ede08cf94cb1e89a5d446d9eba2be430c5fbac35aef98e3039195cdbefd5af7c6"},
        {"blake2s", "blake2s:7e303d3d21877289834ab47942f063cebb0b9bfa20c7809097b2c59d1eb967b1"},
        {"sha3_224", "sha3_224:7fe9b138cede95a186e49ed00a3e88dbb427286a2496d17aafab0313"},
        {"sha3_256", "sha3_256:7586093942bf8e76c1a157fa114332041a20de9339f300dfeace80340874a411"},
        {"sha3_384", "sha3_384:79a664493ed7935bb769cda4e799e32d126575de4e479ea845f0d97f6a458fbe1a6665724411befac58f4d985361a9b4"},
        {"sha3_512", "sha3_512:c5db6f8eda22671a4b2edbf10a8e1dbdb8012f0c9f597f8c3cbf16a8d41614c9cb232f657e7833e686d501a8bd9be5a72d39d71ed0ad476ea4375d6a5a4ec4f3"},
        // clang-format on
    };
    s_place_t *self = *state;
    s_write(self->path, "model data", 10);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_error_t error = {0};
        char *text;
        if (lade_hash_path(self->path, rows[i].algorithm, NULL, NULL, &text, &error))
            fail_msg("%s: %s", rows[i].algorithm, error.message);
        assert_string_equal(text, rows[i].hash);
        free(text);
    }
}

static void
test_blake3_vectors(void **state)
{
    static const struct {
        size_t len;
        const char *hash;
    } rows[] = {
        // clang-format off
        {0,    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
        {1,    "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
        {1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"},
        {1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"},
        {1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"},
        {2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a"},
        {2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"},
        {3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3"},
        {5121, "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff"},
        {7169, "a003fc7a51754a9b3c7fae0367ab3d782dccf28855a03d435f8cfe74605e7817"},
        // clang-format on
    };
    (void)state;
    uint8_t data[8192], out[32];
    char hex[65];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i % 251);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_blake3(data, rows[i].len, out);
        for (int j = 0; j < 32; j++)
            sprintf(hex + 2 * j, "%02x", out[j]);
        assert_string_equal(hex, rows[i].hash);
    }
}

// With libblake3 the hash of the original, without it a word.
static void
test_blake3_of_a_file_needs_its_library(void **state)
{
    static const char *const names[] = {"blake3", "blake3_single", "blake3_multi"};
    s_place_t *self = *state;
    s_write(self->path, "model data", 10);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lade_error_t error = {0};
        char *text;
        lade_code_t code = lade_hash_path(self->path, names[i], NULL, NULL, &text, &error);
        if (code == LADE_OK) {
            assert_string_equal(
                text, "blake3:ce3f0c5f3c05d119f4a5dcaf209b50d3149046a0d3a9adee9fed4c83cad6b4d0");
        } else {
            assert_int_equal(code, LADE_NOT_IMPLEMENTED);
            assert_non_null(strstr(error.message, "libblake3"));
        }
        free(text);
    }
}

static void
test_the_algorithm_of_a_hash_field_is_known(void **state)
{
    (void)state;
    char name[16];
    assert_true(lade_hash_algorithm("imohash:00", name, sizeof name));
    assert_string_equal(name, "imohash");
    assert_true(lade_hash_algorithm("sha3_256:00", name, sizeof name));
    assert_string_equal(name, "sha3_256");
    static const char *const none[] = {"random:00", "shake_128:00",         "", "sha256", ":",
                                       "a:b",       "sha256sha256sha256:00"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_false(lade_hash_algorithm(none[i], name, sizeof name));
}

static void
test_random_is_another_each_time(void **state)
{
    s_place_t *self = *state;
    char *one, *two;
    s_write(self->path, "model data", 10);
    assert_int_equal(lade_hash_path(self->path, "random", NULL, NULL, &one, NULL), LADE_OK);
    assert_int_equal(lade_hash_path(self->path, "random", NULL, NULL, &two, NULL), LADE_OK);
    assert_memory_equal(one, "random:", 7);
    assert_int_equal(strlen(one), 7 + 64);
    assert_string_not_equal(one, two);
    free(one);
    free(two);
}

// hexes are the hashes of its files, one after the other.
static void
s_assert_folder(const s_place_t *self, const char *algorithm, const char *hexes)
{
    lade_error_t error = {0};
    char *text, hash[100];
    uint8_t out[32];
    lade_blake3(hexes, strlen(hexes), out);
    size_t len = (size_t)sprintf(hash, "%s:", algorithm);
    for (int i = 0; i < 32; i++)
        len += (size_t)sprintf(hash + len, "%02x", out[i]);
    if (lade_hash_path(self->folder, algorithm, NULL, NULL, &text, &error))
        fail_msg("%s: %s", algorithm, error.message);
    assert_string_equal(text, hash);
    free(text);
}

// BLAKE3 over the hex texts of the files' hashes in order of their path.
static void
test_a_folder_is_hashed_as_the_original_does(void **state)
{
    s_place_t *self = *state;
    char first[300], second[300], below[300], third[300];
    s_assert_folder(self, "md5", "");
    snprintf(first, sizeof first, "%s/b.safetensors", self->folder);
    snprintf(below, sizeof below, "%s/a", self->folder);
    snprintf(second, sizeof second, "%s/a/z.bin", self->folder);
    snprintf(third, sizeof third, "%s/a.onnx", self->folder);
    mkdir(below, 0700);
    s_write(third, "other", 5); // counts only as long as there is nothing else
    s_assert_folder(self, "sha256",
                    "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa");
    s_write(first, "one", 3);
    s_write(second, "two", 3);
    s_assert_folder(self, "sha256",
                    "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
                    "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
    s_assert_folder(self, "md5",
                    "b8a9f715dbb64fd5c56e7783c6820a61"
                    "f97c5d29941bfb1b2fdab0874906ab82");
    unlink(first);
    unlink(second);
    unlink(third);
    rmdir(below);
}

// More files than threads, one of which cannot be read.
static void
test_files_are_hashed_at_once_and_a_failure_is_told(void **state)
{
    enum { FILES = 40 };
    s_place_t *self = *state;
    char path[300], hexes[FILES * 64 + 1] = "", joined[72], *text;
    lade_error_t error = {0};
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/%02d.bin", self->folder, i);
        s_write(path, path, strlen(path));
        assert_int_equal(lade_hash_sha256(path, NULL, NULL, hexes + 64 * i, &error), LADE_OK);
    }
    lade_hash_join(hexes, joined);
    assert_int_equal(lade_hash_path(self->folder, "sha256", NULL, NULL, &text, &error), LADE_OK);
    assert_string_equal(text, joined);
    free(text);
    snprintf(path, sizeof path, "%s/07.bin", self->folder);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); // not of the files any more
    snprintf(path, sizeof path, "%s/07x.bin", self->folder);
    assert_int_equal(symlink("07x.bin", path), 0); // nor one that leads nowhere
    assert_int_equal(lade_hash_path(self->folder, "sha256", NULL, NULL, &text, &error), LADE_OK);
    assert_string_not_equal(text, joined);
    free(text);
    unlink(path);
    bool stop = true;
    assert_int_equal(lade_hash_path(self->folder, "sha256", s_stop, &stop, &text, &error),
                     LADE_CANCELLED);
    lade_code_t code = lade_hash_path(self->folder, "blake3", NULL, NULL, &text, &error);
    assert_true(code == LADE_OK ||
                (code == LADE_NOT_IMPLEMENTED && strstr(error.message, "libblake3")));
    free(text);
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/%02d.bin", self->folder, i);
        unlink(path);
    }
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
        cmocka_unit_test(test_blake3_vectors),
        cmocka_unit_test(test_the_algorithm_of_a_hash_field_is_known),
        cmocka_unit_test_setup_teardown(test_imohash_vectors, s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(test_a_sparse_file_of_many_gigabytes_costs_three_samples,
                                        s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(test_hash_field_of_a_file, s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_folder_hash_follows_its_weights_and_not_their_names_or_other_files, s_set_up,
            s_tear_down),
        cmocka_unit_test_setup_teardown(test_each_digest_of_a_known_file, s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(test_blake3_of_a_file_needs_its_library, s_set_up,
                                        s_tear_down),
        cmocka_unit_test_setup_teardown(test_random_is_another_each_time, s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(test_a_folder_is_hashed_as_the_original_does, s_set_up,
                                        s_tear_down),
        cmocka_unit_test_setup_teardown(test_files_are_hashed_at_once_and_a_failure_is_told,
                                        s_set_up, s_tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_hashed_says_why, s_set_up, s_tear_down),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
