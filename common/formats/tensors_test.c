// The door to weight files: what is no safetensors, and folders of shards.
#include "common/formats/tensors.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int
s_set_up(void **state)
{
    char *folder = calloc(1, 128);
    snprintf(folder, 128, "%s/lade-tensors-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(folder));
    *state = folder;
    return 0;
}

static int
s_tear_down(void **state)
{
    lade_path_remove(*state, NULL);
    free(*state);
    return 0;
}

static void
s_write(const char *folder, const char *name, const void *data, size_t len)
{
    char *path = lade_path_join(folder, name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fwrite(data, 1, len, out);
    fclose(out);
    free(path);
}

// A safetensors file with one tensor of one byte.
static void
s_write_tensor(const char *folder, const char *name, const char *tensor)
{
    char data[300];
    memset(data, 0, sizeof data);
    int len = snprintf(data + 8, sizeof data - 8,
                       "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", tensor);
    data[0] = (char)len;
    s_write(folder, name, data, 8 + (size_t)len + 1);
}

static void
s_assert_opens(const char *path, lade_code_t code, const char *words)
{
    lade_error_t error = {0};
    lade_tensors_t *tensors;
    lade_code_t got = lade_tensors_open(path, &tensors, &error);
    if (got != code || !strstr(error.message, words))
        fail_msg("%s: %s: %s", path, lade_code_name(got), error.message);
    lade_tensors_destroy(&tensors);
}

static void
test_what_is_no_safetensors_is_called_by_its_name(void **state)
{
    static const struct {
        const char *name, *data;
        lade_code_t code;
        const char *words;
    } rows[] = {
        {"a.gguf", "GGUF\3............", LADE_NOT_IMPLEMENTED, "of GGUF; lade reads 1 to 3"},
        {"a.ckpt", "PK\3\4.............", LADE_CORRUPT, "too short for a zip archive"},
        {"a.pt", "\x80\2.................", LADE_CORRUPT, "byte 2 of the pickle"},
        {"a.safetensors", "version https://git-lfs.github.com/spec/v1\n", LADE_NOT_A_MODEL, "LFS"},
        {"a.safetensors", "<!DOCTYPE html><html>", LADE_NOT_A_MODEL, "web page"},
        {"a.gguf", "some words of no meaning", LADE_CORRUPT, "does not begin with GGUF"},
        {"a.txt", "some words of no meaning", LADE_NOT_IMPLEMENTED, "no format"},
        {"a.safetensors", "some words of no meaning", LADE_CORRUPT, "cut short"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *path = lade_path_join(*state, rows[i].name);
        s_write(*state, rows[i].name, rows[i].data, strlen(rows[i].data));
        s_assert_opens(path, rows[i].code, rows[i].words);
        free(path);
    }
    s_assert_opens("/no/such/file.safetensors", LADE_NOT_FOUND, "/no/such");
    s_assert_opens("/dev/null", LADE_IO_ERROR, "regular");
}

static void
test_a_folder_of_shards_is_one_list(void **state)
{
    lade_tensors_t *tensors;
    lade_error_t error = {0};
    s_write_tensor(*state, "model-00001-of-00002.safetensors", "a");
    s_write_tensor(*state, "model-00002-of-00002.safetensors", "b");
    assert_int_equal(lade_tensors_open(*state, &tensors, &error), LADE_OK);
    assert_int_equal(lade_tensors_count(tensors), 2);
    assert_int_equal(lade_tensors_file_count(tensors), 2);
    assert_int_equal(lade_tensors_find(tensors, "b")->file, 1);
    assert_non_null(strstr(lade_tensors_file(tensors, 1), "model-00002"));
    lade_tensors_destroy(&tensors);
}

static void
test_an_index_says_which_files_count_and_has_to_be_true(void **state)
{
    static const struct {
        const char *index;
        lade_code_t code;
        const char *words;
    } rows[] = {
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}", LADE_OK, ""},
        {"{\"weight_map\":{\"a\":\"2.safetensors\"}}", LADE_CORRUPT, "does not hold"},
        {"{\"weight_map\":{\"z\":\"1.safetensors\"}}", LADE_CORRUPT, "does not hold"},
        {"{\"weight_map\":{\"a\":\"9.safetensors\"}}", LADE_NOT_FOUND, "9.safetensors"},
        {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", LADE_CORRUPT, "beside it"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", LADE_CORRUPT, "beside it"},
        {"{\"weight_map\":{\"a\":7}}", LADE_CORRUPT, "beside it"},
        {"{\"weight_map\":{}}", LADE_CORRUPT, "empty"},
        {"{\"weight_map\":[]}", LADE_CORRUPT, "no weight_map"},
        {"{", LADE_CORRUPT, "index.json:1"},
    };
    s_write_tensor(*state, "1.safetensors", "a");
    s_write_tensor(*state, "2.safetensors", "b");
    s_write_tensor(*state, "other.safetensors", "a"); // would be a double without the index
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_write(*state, "model.safetensors.index.json", rows[i].index, strlen(rows[i].index));
        s_assert_opens(*state, rows[i].code, rows[i].words);
    }
}

static void
test_a_precision_beside_the_plain_file_is_left_out(void **state)
{
    lade_tensors_t *tensors;
    s_write_tensor(*state, "model.safetensors", "a");
    s_write_tensor(*state, "model.fp16.safetensors", "a");
    assert_int_equal(lade_tensors_open(*state, &tensors, NULL), LADE_OK);
    assert_int_equal(lade_tensors_file_count(tensors), 1);
    assert_null(strstr(lade_tensors_file(tensors, 0), "fp16"));
    lade_tensors_destroy(&tensors);
    char *plain = lade_path_join(*state, "model.safetensors");
    unlink(plain);
    free(plain);
    assert_int_equal(lade_tensors_open(*state, &tensors, NULL), LADE_OK);
    assert_non_null(strstr(lade_tensors_file(tensors, 0), "fp16"));
    lade_tensors_destroy(&tensors);
}

static void
test_folders_that_hold_no_list(void **state)
{
    s_assert_opens(*state, LADE_NOT_FOUND, "no weight files");
    s_write(*state, "pytorch_model.bin", "PK\3\4", 4);
    s_assert_opens(*state, LADE_CORRUPT, "pytorch_model.bin");
    s_write_tensor(*state, "x.safetensors", "a");
    s_write_tensor(*state, "y.safetensors", "a");
    s_assert_opens(*state, LADE_CORRUPT, "twice");
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_no_safetensors_is_called_by_its_name),
        TEST(test_a_folder_of_shards_is_one_list),
        TEST(test_an_index_says_which_files_count_and_has_to_be_true),
        TEST(test_a_precision_beside_the_plain_file_is_left_out),
        TEST(test_folders_that_hold_no_list),
    };
    return cmocka_run_group_tests_name("tensors", tests, NULL, NULL);
}
