// Tests of paths and files.
#include "common/path.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int
s_setup(void **state)
{
    char folder[] = "/tmp/lade-path-XXXXXX";
    *state = strdup(mkdtemp(folder));
    return 0;
}

static int
s_teardown(void **state)
{
    lade_path_remove(*state, NULL);
    free(*state);
    return 0;
}

static char *
s_file(void *folder, const char *name, const char *text)
{
    char *path = lade_path_join(folder, name);
    char *above = lade_path_folder(path);
    assert_int_equal(lade_path_mkdirs(above, 0755, NULL), LADE_OK);
    assert_int_equal(lade_path_write(path, text, strlen(text), 0644, NULL), LADE_OK);
    free(above);
    return path;
}

static void
s_assert_content(const char *path, const char *text)
{
    char *data;
    size_t len;
    assert_int_equal(lade_path_read(path, 1000, &data, &len, NULL), LADE_OK);
    assert_string_equal(data, text);
    free(data);
}

static void
test_names_and_folders_of_paths(void **state)
{
    (void)state;
    const struct {
        const char *path, *name, *folder;
    } cases[] = {
        {"/a/b", "b", "/a"}, {"/a/b/", "b", "/a"}, {"b", "b", "."},
        {"/b", "b", "/"},    {"a//b", "b", "a"},   {"a/b//", "b", "a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *name = lade_path_name(cases[i].path), *folder = lade_path_folder(cases[i].path);
        assert_string_equal(name, cases[i].name);
        assert_string_equal(folder, cases[i].folder);
        free(name);
        free(folder);
    }
}

static void
test_unsafe_names_are_refused(void **state)
{
    (void)state;
    const char *bad[] = {"",          ".",         "..",       "../evil",     "..\\evil", "..foo",
                         "sub/evil",  "sub\\evil", "C:\\",     "C:evil",      "/evil",    "a\nb",
                         "a\x1b[31m", "\xff",      "\xc0\xaf", "\xed\xa0\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        lade_error_t error = {0};
        assert_int_equal(lade_path_check_name(bad[i], &error), LADE_VALUE_ERROR);
        assert_true(strlen(error.message) > 0);
    }
    char name[300];
    memset(name, 'x', sizeof name);
    name[256] = '\0';
    assert_int_equal(lade_path_check_name(name, NULL), LADE_VALUE_ERROR);
    name[255] = '\0';
    assert_int_equal(lade_path_check_name(name, NULL), LADE_OK);
    assert_int_equal(lade_path_check_name("mödel v1.5 (final).safetensors", NULL), LADE_OK);
}

static void
test_relative_paths_stay_below(void **state)
{
    (void)state;
    const char *bad[] = {"/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "", "a/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(lade_path_check_relative(bad[i], NULL), LADE_VALUE_ERROR);
    assert_int_equal(lade_path_check_relative("unet/config.json", NULL), LADE_OK);
}

static void
test_inside_is_about_whole_parts(void **state)
{
    (void)state;
    assert_true(lade_path_inside("/models", "/models/a"));
    assert_true(lade_path_inside("/models/", "/models"));
    assert_false(lade_path_inside("/models", "/models2/a"));
    assert_true(lade_path_inside("/", "/a"));
}

static void
test_publishing_never_replaces(void **state)
{
    char *from = s_file(*state, "from", "new"), *to = s_file(*state, "to", "old");
    lade_error_t error = {0};
    assert_int_equal(lade_path_publish(from, to, &error), LADE_EXISTS);
    s_assert_content(to, "old");
    s_assert_content(from, "new");
    assert_int_equal(lade_path_remove(to, NULL), LADE_OK);
    assert_int_equal(lade_path_publish(from, to, &error), LADE_OK);
    s_assert_content(to, "new");
    assert_int_equal(access(from, F_OK), -1);
    free(from);
    free(to);
}

static void
test_publishing_a_folder_never_merges(void **state)
{
    char *one = s_file(*state, "from/x", "new"), *two = s_file(*state, "to/y", "old");
    char *from = lade_path_folder(one), *to = lade_path_folder(two);
    assert_int_equal(lade_path_publish(from, to, NULL), LADE_EXISTS);
    s_assert_content(two, "old");
    free(one);
    free(two);
    free(from);
    free(to);
}

static void
test_copying_a_tree_copies_files_behind_links(void **state)
{
    char *file = s_file(*state, "tree/unet/model.bin", "weights"),
         *blob = s_file(*state, "blob", "shared");
    char *from = lade_path_join(*state, "tree"), *to = lade_path_join(*state, "copy");
    char *link = lade_path_join(from, "link"), *loop = lade_path_join(from, "loop");
    assert_int_equal(symlink(blob, link), 0);
    assert_int_equal(symlink(from, loop), 0); // a link to a folder is left out, so it cannot loop
    lade_error_t error = {0};
    assert_int_equal(lade_path_copy(from, to, NULL, NULL, &error), LADE_OK);
    char *a = lade_path_join(to, "unet/model.bin"), *b = lade_path_join(to, "link"),
         *c = lade_path_join(to, "loop");
    s_assert_content(a, "weights");
    s_assert_content(b, "shared");
    assert_int_equal(access(c, F_OK), -1);
    assert_int_equal(lade_path_size(to), 13);
    assert_int_equal(lade_path_copy(from, to, NULL, NULL, &error), LADE_EXISTS);
    char *all[] = {file, blob, from, to, link, loop, a, b, c};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static bool
s_refuse(void *arg, int64_t bytes)
{
    (void)arg;
    (void)bytes;
    return false;
}

static void
test_a_copy_can_be_stopped(void **state)
{
    char *from = s_file(*state, "a", "text"), *to = lade_path_join(*state, "b");
    assert_int_equal(lade_path_copy(from, to, s_refuse, NULL, NULL), LADE_CANCELLED);
    free(from);
    free(to);
}

static void
test_removing_does_not_follow_links(void **state)
{
    char *keep = s_file(*state, "keep/file", "text"), *gone = s_file(*state, "gone/file", "text");
    char *kept = lade_path_folder(keep), *folder = lade_path_folder(gone),
         *link = lade_path_join(folder, "link");
    assert_int_equal(symlink(kept, link), 0);
    assert_int_equal(lade_path_remove(folder, NULL), LADE_OK);
    assert_int_equal(lade_path_size(folder), -1);
    s_assert_content(keep, "text");
    assert_int_equal(lade_path_remove(folder, NULL), LADE_OK); // not there: no error
    char *all[] = {keep, gone, kept, folder, link};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void
test_reading_has_a_ceiling(void **state)
{
    char *path = s_file(*state, "file", "12345");
    char *data;
    lade_error_t error = {0};
    assert_int_equal(lade_path_read(path, 4, &data, NULL, &error), LADE_TOO_LARGE);
    assert_null(data);
    assert_int_equal(lade_path_read(*state, 4, &data, NULL, &error), LADE_IO_ERROR);
    free(path);
}

static void
test_a_file_in_the_way_of_a_folder_is_said(void **state)
{
    char *file = s_file(*state, "file", "x"), *below = lade_path_join(file, "below");
    lade_error_t error = {0};
    assert_int_not_equal(lade_path_mkdirs(below, 0755, &error), LADE_OK);
    assert_non_null(strstr(error.message, file));
    free(file);
    free(below);
}

int
main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_names_and_folders_of_paths),
        CASE(test_unsafe_names_are_refused),
        CASE(test_relative_paths_stay_below),
        CASE(test_inside_is_about_whole_parts),
        CASE(test_publishing_never_replaces),
        CASE(test_publishing_a_folder_never_merges),
        CASE(test_copying_a_tree_copies_files_behind_links),
        CASE(test_a_copy_can_be_stopped),
        CASE(test_removing_does_not_follow_links),
        CASE(test_reading_has_a_ceiling),
        CASE(test_a_file_in_the_way_of_a_folder_is_said),
    };
    return cmocka_run_group_tests_name("path", tests, NULL, NULL);
}
