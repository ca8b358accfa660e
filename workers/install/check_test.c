// Files side by side: each is looked at once, and a stop reaches all threads.
#include "workers/install/check.h"

#include "workers/install/test_folder.h"

enum { S_FILES = 40 };

typedef struct {
    int64_t bytes, most; // most: after which it says stop
} s_told_t;

static bool
s_on_bytes(void *arg, int64_t bytes)
{
    s_told_t *told = arg; // one call at a time
    told->bytes += bytes;
    return told->bytes < told->most;
}

static lade_check_t *
s_files(const char *root, int64_t *total_p)
{
    lade_check_t *files = calloc(S_FILES, sizeof *files);
    *total_p = 0;
    for (int i = 0; i < S_FILES; i++) {
        char name[32], *text = calloc(1, (size_t)i * 1000 + 1);
        memset(text, 'a' + i % 26, (size_t)i * 1000);
        snprintf(name, sizeof name, "f%02d", i);
        files[i] = (lade_check_t){.path = test_folder_write(root, name, text),
                                  .relative = strdup(name),
                                  .size = (int64_t)i * 1000,
                                  .read = true};
        *total_p += files[i].size;
        free(text);
    }
    return files;
}

static void
test_all_are_read_in_threads(void **state)
{
    (void)state;
    char *root = test_folder_new();
    int64_t total;
    lade_check_t *files = s_files(root, &total);
    for (size_t threads = 1; threads <= 9; threads += 4) {
        s_told_t told = {.most = INT64_MAX};
        lade_error_t error = {0};
        assert_int_equal(lade_check_files(files, S_FILES, threads, s_on_bytes, &told, &error),
                         LADE_OK);
        assert_int_equal(told.bytes, total);
        for (int i = 0; i < S_FILES; i++) {
            assert_int_equal(files[i].problem.code, LADE_OK);
            assert_int_equal(files[i].found_size, i * 1000);
            assert_true(files[i].written > 1e9);
            assert_int_equal(strlen(files[i].found), 64);
        }
        // Of nothing at all, as everybody knows it.
        assert_string_equal(files[0].found,
                            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
    lade_check_free(files, S_FILES);
    test_folder_end(root);
}

static void
test_what_need_not_be_read_is_not(void **state)
{
    (void)state;
    char *root = test_folder_new(), *there = test_folder_write(root, "a", "abc"),
         *folder = lade_path_join(root, "d");
    assert_int_equal(mkdir(folder, 0755), 0);
    lade_check_t files[4] = {
        {.path = there, .size = -1},                                // no digest is known
        {.path = there, .size = 4, .read = true},                   // its size says enough
        {.path = (char *)"/no/such/file", .size = 7, .read = true}, // gone
        {.path = folder, .size = -1, .read = true},                 // no file any more
    };
    s_told_t told = {.most = INT64_MAX};
    lade_error_t error = {0};
    assert_int_equal(lade_check_files(files, 4, 2, s_on_bytes, &told, &error), LADE_OK);
    assert_string_equal(files[0].found, "");
    assert_int_equal(files[0].found_size, 3);
    assert_string_equal(files[1].found, "");
    assert_int_equal(files[2].found_size, -1);
    assert_int_equal(files[2].problem.code, LADE_OK); // missing, not unreadable
    assert_int_not_equal(files[3].problem.code, LADE_OK);
    free(there);
    free(folder);
    test_folder_end(root);
}

static void
test_stop_reaches_all(void **state)
{
    (void)state;
    char *root = test_folder_new();
    int64_t total;
    lade_check_t *files = s_files(root, &total);
    s_told_t told = {.most = total / 4};
    lade_error_t error = {0};
    assert_int_equal(lade_check_files(files, S_FILES, 4, s_on_bytes, &told, &error),
                     LADE_CANCELLED);
    assert_true(told.bytes < total);
    lade_check_free(files, S_FILES);
    test_folder_end(root);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_are_read_in_threads),
        cmocka_unit_test(test_what_need_not_be_read_is_not),
        cmocka_unit_test(test_stop_reaches_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
