// Files that are as they were, and those that they name beside them.
#include "workers/gpu/stamps.h"

#include "workers/gpu/test_models.h"

static lade_files_t
s_files(const char *folder, const char *const *names)
{
    lade_files_t files = {0};
    for (; *names; names++)
        assert_int_equal(lade_files_add(&files, folder, *names, NULL), LADE_OK);
    return files;
}

static void
s_add(lade_stamps_t *stamps, const char *folder, const char *name)
{
    char *path = lade_path_join(folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(lade_stamps_add(stamps, fd, path, NULL), LADE_OK);
    close(fd);
    free(path);
}

// Whether what was is still so.
static bool
s_still(const lade_stamps_t *was, const lade_files_t *files)
{
    lade_stamps_t now = {0};
    lade_error_t error = {0};
    if (lade_stamps_take(&now, files, &error))
        fail_msg("%s", error.message);
    bool still = lade_stamps_still(was, &now);
    lade_stamps_free(&now);
    return still;
}

static void
test_what_is_beside_belongs_to_it(void **state)
{
    const char *names[] = {"graph", "second", NULL};
    const char *all[] = {"graph", "second", "beside", NULL};
    for (size_t i = 0; all[i]; i++)
        test_text_file(*state, all[i], "before");
    lade_files_t files = s_files(*state, names), more = s_files(*state, all);
    lade_stamps_t was = {0}, back;
    assert_int_equal(lade_stamps_take(&was, &files, NULL), LADE_OK);
    assert_true(s_still(&was, &files));
    s_add(&was, *state, "beside");
    assert_true(s_still(&was, &files));
    assert_false(s_still(&was, &more)); // another list of files

    json_t *packed = lade_stamps_pack(&was);
    assert_true(lade_stamps_unpack(&back, packed));
    assert_true(lade_stamps_same(&was, &back));
    assert_true(s_still(&back, &files));

    test_text_file(*state, "beside", "after it");
    assert_false(s_still(&was, &files));
    assert_false(s_still(&back, &files));
    char *path = lade_path_join(*state, "beside");
    unlink(path);
    assert_false(s_still(&was, &files));
    free(path);
    json_decref(packed);
    lade_stamps_free(&was);
    lade_stamps_free(&back);
    lade_files_free(&files);
    lade_files_free(&more);
}

static void
test_a_file_that_is_gone_is_named(void **state)
{
    const char *names[] = {"nobody", NULL};
    lade_files_t files = s_files(*state, names);
    lade_stamps_t stamps;
    lade_error_t error = {0};
    assert_int_equal(lade_stamps_take(&stamps, &files, &error), LADE_MODEL_NOT_FOUND);
    assert_non_null(strstr(error.message, "nobody"));
    lade_stamps_free(&stamps);
    lade_files_free(&files);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_beside_belongs_to_it, test_folder_new,
                                        test_folder_remove),
        cmocka_unit_test_setup_teardown(test_a_file_that_is_gone_is_named, test_folder_new,
                                        test_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
