// Who holds a converted copy, who may take it away, and when it was asked for.
#include "common/converted.h"

#include "common/path.h"

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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_held_by_some_or_claimed_by_one, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_there, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_a_new_copy_is_nobodys, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown(test_asked_for_now_or_ahead, s_setup, s_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
