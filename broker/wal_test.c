// Tests of the write-ahead log: what is taken up, and what is not.
#include "broker/wal.h"

#include "common/path.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { S_BYTES = 8192 };

typedef struct {
    char folder[64];
    lade_wal_t *wal;
    char seen[256]; // the batches taken up, each with a space after it
    lade_error_t error;
} s_place_t;

#define PASS(call) assert_int_equal(call, LADE_OK)

static int
s_set_up(void **state)
{
    s_place_t *place = calloc(1, sizeof *place);
    strcpy(place->folder, "/tmp/lade-wal-XXXXXX");
    assert_non_null(mkdtemp(place->folder));
    PASS(lade_wal_open(place->folder, S_BYTES, &place->wal, &place->error));
    lade_wal_restart(place->wal, 1);
    *state = place;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *place = *state;
    lade_wal_close(&place->wal);
    lade_path_remove(place->folder, NULL);
    free(place);
    return 0;
}

static lade_code_t
s_apply(void *arg, const void *batch, size_t len, lade_error_t *error)
{
    (void)error;
    s_place_t *place = arg;
    size_t at = strlen(place->seen);
    snprintf(place->seen + at, sizeof place->seen - at, "%.*s ", (int)len, (const char *)batch);
    return LADE_OK;
}

static void
s_append(s_place_t *place, const char *text)
{
    PASS(lade_wal_append(place->wal, text, strlen(text), &place->error));
}

// Opens the log anew, as after a crash, and takes a generation up.
static const char *
s_after_crash(s_place_t *place, uint64_t generation)
{
    lade_wal_close(&place->wal);
    PASS(lade_wal_open(place->folder, S_BYTES, &place->wal, &place->error));
    place->seen[0] = '\0';
    PASS(lade_wal_replay(place->wal, generation, UINT64_MAX, s_apply, place, &place->error));
    return place->seen;
}

// Writes a byte into the file.
static void
s_damage(const s_place_t *place, off_t at, char byte)
{
    char *path = lade_path_join(place->folder, "wal");
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    free(path);
}

static void
test_batches_come_back_in_order(void **state)
{
    s_place_t *place = *state;
    s_append(place, "one");
    s_append(place, "two");
    s_append(place, "");
    s_append(place, "four");
    assert_string_equal(s_after_crash(place, 1), "one two  four ");
    s_append(place, "five"); // goes on after the last
    assert_string_equal(s_after_crash(place, 1), "one two  four five ");
}

static void
test_older_generations_are_not_taken_up(void **state)
{
    s_place_t *place = *state;
    s_append(place, "old");
    s_append(place, "older");
    lade_wal_restart(place->wal, 2);
    s_append(place, "new"); // over the first; the second is still behind it
    assert_string_equal(s_after_crash(place, 2), "new ");
    assert_string_equal(s_after_crash(place, 3), "");
}

static void
test_torn_batch_ends_the_log(void **state)
{
    s_place_t *place = *state;
    s_append(place, "one");
    s_append(place, "two");
    s_append(place, "three");
    s_damage(place, 512 + 40 + 1, 'x'); // in the middle of "two"
    assert_string_equal(s_after_crash(place, 1), "one ");
    lade_wal_restart(place->wal, 2); // as the store does when it has opened
    s_append(place, "2");
    assert_string_equal(s_after_crash(place, 2), "2 ");
    s_damage(place, 4, 'x'); // another length
    assert_string_equal(s_after_crash(place, 2), "");
}

static void
test_full_log_takes_no_more(void **state)
{
    s_place_t *place = *state;
    char text[S_BYTES] = {0};
    for (int i = 0; i < S_BYTES / 512; i++) {
        assert_true(lade_wal_fits(place->wal, 400));
        PASS(lade_wal_append(place->wal, text, 400, &place->error));
    }
    assert_false(lade_wal_fits(place->wal, 0));
    lade_wal_restart(place->wal, 2);
    assert_false(lade_wal_fits(place->wal, S_BYTES - 39));
    assert_true(lade_wal_fits(place->wal, S_BYTES - 40));
}

static void
test_failed_append_is_never_taken_up_and_closes_the_log(void **state)
{
    s_place_t *place = *state;
    s_append(place, "one");
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = 512;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    lade_code_t code = lade_wal_append(place->wal, "two", 3, &place->error);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_not_equal(code, LADE_OK);
    assert_false(lade_wal_fits(place->wal, 3));
    PASS(lade_wal_replay(place->wal, 1, lade_wal_count(place->wal), s_apply, place, &place->error));
    assert_string_equal(place->seen, "one ");
    assert_false(lade_wal_fits(place->wal, 3)); // until a checkpoint
    lade_wal_restart(place->wal, 2);
    assert_true(lade_wal_fits(place->wal, 3));
}

static void
test_file_cut_short_is_a_short_log(void **state)
{
    s_place_t *place = *state;
    s_append(place, "one");
    s_append(place, "two");
    char *path = lade_path_join(place->folder, "wal");
    assert_int_equal(truncate(path, 512 + 20), 0);
    free(path);
    assert_string_equal(s_after_crash(place, 1), "one ");
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_batches_come_back_in_order),
        TEST(test_older_generations_are_not_taken_up),
        TEST(test_torn_batch_ends_the_log),
        TEST(test_full_log_takes_no_more),
        TEST(test_failed_append_is_never_taken_up_and_closes_the_log),
        TEST(test_file_cut_short_is_a_short_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
