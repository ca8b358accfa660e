// Who holds a converted copy, who may take it away, and when it was asked for.
#include "common/converted.h"

#include "common/path.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char *s_note; // MODELS/.convert_cache/k/.entry

static int
s_setup(void **state)
{
    char folder[] = "/tmp/lade-converted-XXXXXX";
    *state = strdup(mkdtemp(folder));
    char *entry = lade_converted_path(*state, "k");
    s_note = lade_path_join(entry, ".entry");
    assert_int_equal(lade_path_mkdirs(entry, 0755, NULL), LADE_OK);
    assert_int_equal(lade_path_write(s_note, "{}", 2, 0644, NULL), LADE_OK);
    free(entry);
    return 0;
}

static int
s_teardown(void **state)
{
    lade_path_remove(*state, NULL);
    free(s_note);
    free(*state);
    return 0;
}

// Writes a file, or removes it (contents NULL), and sets its time of change.
static void
s_put(const char *folder, const char *name, const char *contents, time_t time)
{
    char *path = lade_path_join(folder, name);
    struct timespec times[2] = {{.tv_sec = time}, {.tv_sec = time}};
    unlink(path);
    if (contents) {
        assert_int_equal(lade_path_write(path, contents, strlen(contents), 0644, NULL), LADE_OK);
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    free(path);
}

static void
test_held_by_some_or_claimed_by_one(void **state)
{
    lade_error_t error = {0};
    int claim, second;
    int first = lade_converted_hold(*state, "k"), other = lade_converted_hold(*state, "k");
    assert_true(first >= 0 && other >= 0);
    assert_int_equal(lade_converted_claim(*state, "k", &claim, &error), LADE_BUSY);
    assert_int_equal(claim, -1);
    close(first);
    assert_int_equal(lade_converted_claim(*state, "k", &claim, &error), LADE_BUSY);
    close(other);
    assert_int_equal(lade_converted_claim(*state, "k", &claim, &error), LADE_OK);
    assert_true(claim >= 0);
    assert_int_equal(lade_converted_hold(*state, "k"), -1);
    assert_int_equal(lade_converted_claim(*state, "k", &second, &error), LADE_BUSY);
    close(claim);
}

static void
test_what_is_not_there(void **state)
{
    int claim = 7;
    lade_error_t error = {0};
    assert_int_equal(lade_converted_hold(*state, "nobody"), -1);
    assert_int_equal(lade_converted_claim(*state, "nobody", &claim, &error), LADE_OK);
    assert_int_equal(claim, -1);
}

// A copy in the place of the one that is held is another one.
static void
test_a_new_copy_is_nobodys(void **state)
{
    int claim, old = lade_converted_hold(*state, "k");
    lade_error_t error = {0};
    assert_int_equal(unlink(s_note), 0);
    assert_int_equal(lade_path_write(s_note, "{}", 2, 0644, NULL), LADE_OK);
    assert_int_equal(lade_converted_claim(*state, "k", &claim, &error), LADE_OK);
    assert_true(claim >= 0);
    close(claim);
    close(old);
}

static void
test_asked_for_now_or_ahead(void **state)
{
    struct stat st;
    time_t now = time(NULL);
    lade_converted_touch(*state, "k", 500);
    assert_int_equal(stat(s_note, &st), 0);
    assert_true(st.st_mtim.tv_sec >= now + 500);
    lade_converted_touch(*state, "k", 0);
    assert_int_equal(stat(s_note, &st), 0);
    assert_true(st.st_mtim.tv_sec >= now && st.st_mtim.tv_sec < now + 500);
}

// A copy is what it was made from, and whole, or no copy: whatever of it changed, and whichever
// way.
static void
test_any_change_makes_it_stale(void **state)
{
    static const struct {
        const char *what, *file, *contents, *field;
        time_t time;
    } rows[] = {
        {"the file's size", "m.ckpt", "abcd", NULL, 1000},
        {"a newer file", "m.ckpt", "abc", NULL, 1001},
        {"an older file", "m.ckpt", "abc", NULL, 999},
        {"an edited record", NULL, NULL, "updated_at", 0},
        {"a record of another file", NULL, NULL, "path", 0},
        {"no whole copy", ".convert_cache/k/config.json", NULL, NULL, 0},
        {"no note", ".convert_cache/k/.entry", NULL, NULL, 0},
        {"no file", "m.ckpt", NULL, NULL, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *record = json_pack("{s:s, s:s, s:s, s:f}", "key", "k", "type", "vae", "path",
                                   "m.ckpt", "updated_at", 5.5);
        s_put(*state, "m.ckpt", "abc", 1000);
        s_put(*state, "same.ckpt", "abc", 1000);
        s_put(*state, ".convert_cache/k/config.json", "{}", 1000);
        json_t *note = lade_converted_note(*state, record);
        char *text = json_dumps(note, 0);
        s_put(*state, ".convert_cache/k/.entry", text, 1);
        assert_true(lade_converted_is_fresh(*state, record, NULL));
        if (rows[i].file)
            s_put(*state, rows[i].file, rows[i].contents, rows[i].time);
        if (rows[i].field)
            json_object_set_new(record, rows[i].field,
                                strcmp(rows[i].field, "path") ? json_real(5.6)
                                                              : json_string("same.ckpt"));
        if (lade_converted_is_fresh(*state, record, NULL))
            fail_msg("fresh, with %s", rows[i].what);
        free(text);
        json_decref(note);
        json_decref(record);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_held_by_some_or_claimed_by_one, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_there, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_a_new_copy_is_nobodys, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_asked_for_now_or_ahead, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_any_change_makes_it_stale, s_setup, s_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
