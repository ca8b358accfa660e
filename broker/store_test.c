// The keyspace: order, batches, durability across processes that die, growth, lock, schema.
#include "broker/store.h"

#include "common/path.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char *root;   // a folder of this test alone
    char *folder; // the keyspace in it
    lade_store_t *store;
    lade_error_t error;
} s_place_t;

#define PASS(call)                                                                                 \
    do {                                                                                           \
        if (call)                                                                                  \
            fail_msg("%s: %s", #call, place->error.message);                                       \
    } while (0)

static int
s_set_up(void **state)
{
    s_place_t *place = calloc(1, sizeof *place);
    const char *tmp = getenv("TMPDIR");
    place->root = lade_path_join(tmp ? tmp : "/tmp", "lade-store-XXXXXX");
    if (!mkdtemp(place->root))
        return -1;
    place->folder = lade_path_join(place->root, "keyspace");
    *state = place;
    return lade_store_open(place->folder, &place->store, &place->error);
}

static int
s_tear_down(void **state)
{
    s_place_t *place = *state;
    lade_store_close(&place->store);
    lade_path_remove(place->root, NULL);
    free(place->folder);
    free(place->root);
    free(place);
    return 0;
}

static lade_code_t
s_put(s_place_t *place, lade_db_t db, const char *key, const char *value)
{
    return lade_store_put(place->store, db, key, strlen(key), value, strlen(value), false,
                          &place->error);
}

static void
s_expect(s_place_t *place, lade_db_t db, const char *key, const char *value)
{
    lade_bytes_t found;
    lade_code_t code = lade_store_get(place->store, db, key, strlen(key), &found, &place->error);
    assert_int_equal(code, value ? LADE_OK : LADE_NOT_FOUND);
    if (value) {
        assert_int_equal(found.len, strlen(value));
        assert_memory_equal(found.data, value, found.len);
    }
}

static void
s_reopen(s_place_t *place)
{
    lade_store_close(&place->store);
    PASS(lade_store_open(place->folder, &place->store, &place->error));
}

// ---------------------------------------------------------------------------------------------------

static void
test_batch_is_seen_by_its_reads_and_gone_after_abort(void **state)
{
    s_place_t *place = *state;
    assert_false(lade_store_dirty(place->store));
    s_expect(place, LADE_DB_JOBS, "a", NULL);
    PASS(s_put(place, LADE_DB_JOBS, "a", "1"));
    assert_true(lade_store_dirty(place->store));
    s_expect(place, LADE_DB_JOBS, "a", "1");
    lade_store_abort(place->store);
    assert_false(lade_store_dirty(place->store));
    s_expect(place, LADE_DB_JOBS, "a", NULL);
}

static void
test_committed_batch_is_there_after_reopening(void **state)
{
    s_place_t *place = *state;
    PASS(s_put(place, LADE_DB_JOBS, "a", "1"));
    PASS(s_put(place, LADE_DB_MODELS, "a", "other table"));
    PASS(lade_store_commit(place->store, &place->error));
    PASS(s_put(place, LADE_DB_JOBS, "a", "2"));
    s_reopen(place);
    s_expect(place, LADE_DB_JOBS, "a", "1");
    s_expect(place, LADE_DB_MODELS, "a", "other table");
    PASS(lade_store_del(place->store, LADE_DB_JOBS, "a", 1, &place->error));
    PASS(lade_store_del(place->store, LADE_DB_JOBS, "never there", 11, &place->error));
    PASS(lade_store_commit(place->store, &place->error));
    s_reopen(place);
    s_expect(place, LADE_DB_JOBS, "a", NULL);
    assert_int_equal(lade_store_count(place->store, LADE_DB_JOBS), 0);
    assert_int_equal(lade_store_count(place->store, LADE_DB_MODELS), 1);
}

static void
test_commit_without_a_batch_does_nothing(void **state)
{
    s_place_t *place = *state;
    PASS(lade_store_commit(place->store, &place->error));
    lade_store_abort(place->store);
}

static void
test_keys_have_a_ceiling(void **state)
{
    s_place_t *place = *state;
    char key[LADE_STORE_MAX_KEY + 1] = {1};
    lade_bytes_t value;
    assert_int_equal(
        lade_store_put(place->store, LADE_DB_JOBS, key, sizeof key, "", 0, false, &place->error),
        LADE_VALUE_ERROR);
    assert_int_equal(
        lade_store_put(place->store, LADE_DB_JOBS, key, 0, "", 0, false, &place->error),
        LADE_VALUE_ERROR);
    assert_false(
        lade_store_dirty(place->store)); // refused before the batch, which it does not spoil
    PASS(lade_store_put(place->store, LADE_DB_JOBS, key, sizeof key - 1, "", 0, false,
                        &place->error));
    assert_int_equal(
        lade_store_get(place->store, LADE_DB_JOBS, key, sizeof key, &value, &place->error),
        LADE_NOT_FOUND);
    PASS(lade_store_del(place->store, LADE_DB_JOBS, key, sizeof key, &place->error));
}

static void
test_append_copes_with_a_key_that_is_not_the_highest(void **state)
{
    s_place_t *place = *state;
    PASS(lade_store_put(place->store, LADE_DB_EVENTS, "b", 1, "1", 1, true, &place->error));
    PASS(lade_store_put(place->store, LADE_DB_EVENTS, "c", 1, "1", 1, true, &place->error));
    PASS(lade_store_put(place->store, LADE_DB_EVENTS, "a", 1, "2", 1, true, &place->error));
    PASS(lade_store_put(place->store, LADE_DB_EVENTS, "c", 1, "3", 1, true, &place->error));
    PASS(lade_store_commit(place->store, &place->error));
    s_expect(place, LADE_DB_EVENTS, "a", "2");
    s_expect(place, LADE_DB_EVENTS, "c", "3");
    assert_int_equal(lade_store_count(place->store, LADE_DB_EVENTS), 3);
}

// ---------------------------------------------------------------------------------------------------
// Scans

typedef struct {
    char seen[256]; // the keys, each followed by a space
    size_t most;    // stop after that many; 0: never
    size_t count;
} s_seen_t;

static bool
s_note(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    s_seen_t *seen = arg;
    size_t len = strlen(seen->seen);
    snprintf(seen->seen + len, sizeof seen->seen - len, "%.*s=%.*s ", (int)key.len,
             (const char *)key.data, (int)value.len, (const char *)value.data);
    return ++seen->count != seen->most;
}

static void
test_scan_goes_through_range_and_prefix_both_ways(void **state)
{
    static const struct {
        const char *from;
        size_t prefix_len;
        bool reverse;
        size_t most;
        const char *seen;
    } cases[] = {
        // clang-format off
        {"",    0, false, 0, "a=1 b=2 b1=3 b2=4 c=5 \xff=6 \xff\xff=7 "},
        {"",    0, true,  0, "\xff\xff=7 \xff=6 c=5 b2=4 b1=3 b=2 a=1 "},
        {"",    0, false, 2, "a=1 b=2 "},
        {"b1",  0, false, 0, "b1=3 b2=4 c=5 \xff=6 \xff\xff=7 "},
        {"b1",  0, true,  0, "\xff\xff=7 \xff=6 c=5 b2=4 b1=3 "},
        {"b",   1, false, 0, "b=2 b1=3 b2=4 "},
        {"b",   1, true,  0, "b2=4 b1=3 b=2 "},
        {"b1",  1, true,  0, "b2=4 b1=3 "},
        {"b11", 1, false, 0, "b2=4 "},
        {"b3",  1, false, 0, ""},
        {"b3",  2, true,  0, ""},
        {"\xff", 1, true, 0, "\xff\xff=7 \xff=6 "},
        {"\xff", 1, false, 0, "\xff=6 \xff\xff=7 "},
        {"A",   1, true,  0, ""},
        {"z",   1, true,  0, ""},
        // clang-format on
    };
    s_place_t *place = *state;
    static const char *const keys[] = {"a", "b", "b1", "b2", "c", "\xff", "\xff\xff"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        PASS(s_put(place, LADE_DB_MODELS_BY_TAG, keys[i], (const char[]){(char)('1' + i), 0}));
    for (int committed = 0; committed < 2; committed++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            s_seen_t seen = {.most = cases[i].most};
            PASS(lade_store_scan(place->store, LADE_DB_MODELS_BY_TAG, cases[i].from,
                                 strlen(cases[i].from), cases[i].prefix_len, cases[i].reverse,
                                 s_note, &seen, &place->error));
            assert_string_equal(seen.seen, cases[i].seen);
        }
        PASS(lade_store_commit(place->store, &place->error));
    }
    s_seen_t none = {0};
    PASS(lade_store_scan(place->store, LADE_DB_JOBS, "", 0, 0, true, s_note, &none, &place->error));
    assert_int_equal(none.count, 0);
}

// ---------------------------------------------------------------------------------------------------
// Numbers, keys

static void
test_numbers_are_msgpack_and_a_broken_one_is_corrupt(void **state)
{
    s_place_t *place = *state;
    uint64_t number = 7;
    assert_int_equal(lade_store_get_number(place->store, "next_job", &number, &place->error),
                     LADE_NOT_FOUND);
    PASS(lade_store_put_number(place->store, "next_job", UINT64_C(0x0123456789abcdef),
                               &place->error));
    PASS(lade_store_get_number(place->store, "next_job", &number, &place->error));
    assert_true(number == UINT64_C(0x0123456789abcdef));
    s_expect(place, LADE_DB_META, "next_job", "\xcf\x01\x23\x45\x67\x89\xab\xcd\xef");
    PASS(s_put(place, LADE_DB_META, "next_job", "12"));
    assert_int_equal(lade_store_get_number(place->store, "next_job", &number, &place->error),
                     LADE_CORRUPT);
    assert_non_null(strstr(place->error.message, "next_job"));
}

static void
test_long_text_becomes_a_key_of_its_own(void **state)
{
    (void)state;
    char text[3000], first[100], second[100];
    memset(text, 'x', sizeof text);
    assert_int_equal(lade_store_key(text, 100, 100, first), 100);
    assert_memory_equal(first, text, 100);
    assert_int_equal(lade_store_key(text, sizeof text, 100, first), 100);
    assert_memory_equal(first, text, 84);
    text[sizeof text - 1] = 'y';
    assert_int_equal(lade_store_key(text, sizeof text, 100, second), 100);
    assert_memory_equal(first, second, 84);
    assert_memory_not_equal(first + 84, second + 84, 16);
}

// ---------------------------------------------------------------------------------------------------
// One process, schemas

static void
test_second_broker_is_told_who_has_the_keyspace(void **state)
{
    s_place_t *place = *state;
    lade_store_t *second;
    char pid[32];
    assert_int_equal(lade_store_open(place->folder, &second, &place->error), LADE_BUSY);
    assert_null(second);
    assert_non_null(strstr(place->error.message, place->folder));
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(place->error.message, pid));
    s_reopen(place); // and the first one is none the worse
}

static lade_code_t
s_make_two_of_one(lade_store_t *store, lade_error_t *error)
{
    return lade_store_put(store, LADE_DB_JOBS, "migrated", 8, "from 1", 6, false, error);
}

static lade_code_t
s_make_three_of_two(lade_store_t *store, lade_error_t *error)
{
    return lade_store_put(store, LADE_DB_JOBS, "migrated", 8, "from 2", 6, false, error);
}

static lade_code_t
s_break_off(lade_store_t *store, lade_error_t *error)
{
    lade_store_put(store, LADE_DB_JOBS, "half done", 9, "", 0, false, NULL);
    return lade_error_set(error, LADE_VALUE_ERROR, "a job is not as expected");
}

static void
test_older_schema_is_migrated_step_by_step_in_one_batch(void **state)
{
    static const struct lade_store_migration steps[] = {
        {2, s_make_three_of_two}, {1, s_make_two_of_one}, {0, NULL}};
    static const struct lade_store_migration breaking[] = {
        {1, s_make_two_of_one}, {2, s_break_off}, {0, NULL}};
    s_place_t *place = *state;
    uint64_t schema = 0;
    lade_store_options_t options = {.schema = 3, .migrations = breaking};
    lade_store_close(&place->store);
    assert_int_equal(lade_store_open_with(place->folder, &options, &place->store, &place->error),
                     LADE_VALUE_ERROR);
    assert_non_null(strstr(place->error.message, "migrating schema 2: a job is not"));

    PASS(lade_store_open(place->folder, &place->store,
                         &place->error)); // still the old one, untouched
    s_expect(place, LADE_DB_JOBS, "half done", NULL);
    s_expect(place, LADE_DB_JOBS, "migrated", NULL);
    lade_store_close(&place->store);

    options.migrations = steps;
    PASS(lade_store_open_with(place->folder, &options, &place->store, &place->error));
    s_expect(place, LADE_DB_JOBS, "migrated", "from 2");
    PASS(lade_store_get_number(place->store, "schema", &schema, &place->error));
    assert_int_equal(schema, 3);
    lade_store_close(&place->store);

    options.schema = 4; // no step from 3
    assert_int_equal(lade_store_open_with(place->folder, &options, &place->store, &place->error),
                     LADE_CORRUPT);
    assert_int_equal(lade_store_open(place->folder, &place->store, &place->error),
                     LADE_SCHEMA_TOO_NEW);
    assert_non_null(strstr(place->error.message, "schema 3"));
}

static void
test_tables_without_a_schema_are_corrupt(void **state)
{
    s_place_t *place = *state;
    PASS(s_put(place, LADE_DB_JOBS, "a", "1"));
    PASS(lade_store_del(place->store, LADE_DB_META, "schema", 6, &place->error));
    PASS(lade_store_commit(place->store, &place->error));
    lade_store_close(&place->store);
    assert_int_equal(lade_store_open(place->folder, &place->store, &place->error), LADE_CORRUPT);
}

// ---------------------------------------------------------------------------------------------------
// The disk

static void
s_open_small(s_place_t *place, size_t map_bytes)
{
    static const struct lade_store_migration none[] = {{0, NULL}};
    lade_store_options_t options = {
        .map_bytes = map_bytes, .schema = LADE_STORE_SCHEMA, .migrations = none};
    lade_store_close(&place->store);
    PASS(lade_store_open_with(place->folder, &options, &place->store, &place->error));
}

static void
test_map_grows_between_batches(void **state)
{
    s_place_t *place = *state;
    char value[4000] = {1};
    s_open_small(place, 8 << 20); // half of it is more than the log holds
    uint64_t before = lade_store_bytes(place->store);
    for (uint32_t i = 0; i < 2000; i++) {
        char key[16];
        int len = snprintf(key, sizeof key, "%08u", i);
        PASS(lade_store_put(place->store, LADE_DB_EVENTS, key, (size_t)len, value, sizeof value,
                            true, &place->error));
        if (i % 20 == 19)
            PASS(lade_store_commit(place->store, &place->error));
        s_expect(place, LADE_DB_EVENTS, "no such", NULL); // a snapshot is open when the map moves
    }
    PASS(lade_store_commit(place->store, &place->error));
    s_reopen(place); // with a checkpoint: the bytes are those of the last one
    assert_true(lade_store_bytes(place->store) > before + 2000 * sizeof value);
    assert_int_equal(lade_store_count(place->store, LADE_DB_EVENTS), 2000);
}

static void
test_batch_too_large_for_the_map_fails_whole_and_fits_later(void **state)
{
    s_place_t *place = *state;
    char *value = calloc(1, 900 << 10);
    s_open_small(place, 256 << 10);
    PASS(s_put(place, LADE_DB_JOBS, "before", "1"));
    PASS(lade_store_commit(place->store, &place->error));

    lade_code_t code = LADE_OK;
    int tries = 0;
    do {
        PASS(s_put(place, LADE_DB_JOBS, "within", "1"));
        lade_code_t first = lade_store_put(place->store, LADE_DB_MODELS, "big", 3, value, 900 << 10,
                                           false, &place->error);
        if (first) {
            assert_int_equal(first, LADE_NO_SPACE);
            assert_int_equal(s_put(place, LADE_DB_JOBS, "after", "1"), LADE_NO_SPACE);
            assert_non_null(strstr(place->error.message, place->folder));
        }
        code = lade_store_commit(place->store, &place->error);
        assert_int_equal(code, first);
        if (code) {
            s_expect(place, LADE_DB_JOBS, "before", "1");
            s_expect(place, LADE_DB_JOBS, "within", NULL);
        }
    } while (code && ++tries < 5);
    assert_int_equal(code, LADE_OK);
    assert_true(tries > 0);
    s_expect(place, LADE_DB_JOBS, "within", "1");
    free(value);
}

// A disk that is full, as a file size limit: the write fails with EFBIG where ENOSPC would come.
static void
test_full_disk_fails_the_batch_and_keeps_the_rest(void **state)
{
    s_place_t *place = *state;
    // More than the log takes, so that it is LMDB's commit.
    char *value = calloc(1, 3 << 20);
    PASS(s_put(place, LADE_DB_JOBS, "before", "1"));
    PASS(lade_store_commit(place->store, &place->error));

    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = lade_store_bytes(place->store);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    PASS(
        lade_store_put(place->store, LADE_DB_JOBS, "big", 3, value, 3 << 20, false, &place->error));
    lade_code_t code = lade_store_commit(place->store, &place->error);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(code, LADE_NO_SPACE);
    assert_non_null(strstr(place->error.message, "committing"));

    assert_false(lade_store_dirty(place->store));
    s_expect(place, LADE_DB_JOBS, "big", NULL);
    s_expect(place, LADE_DB_JOBS, "before", "1");
    PASS(s_put(place, LADE_DB_JOBS, "after", "1"));
    PASS(lade_store_commit(place->store, &place->error));
    s_reopen(place);
    s_expect(place, LADE_DB_JOBS, "before", "1");
    s_expect(place, LADE_DB_JOBS, "after", "1");
    free(value);
}

// ---------------------------------------------------------------------------------------------------
// The log

// What a process leaves that is killed after that many small batches ("0", "1", …), each
// acknowledged.
static void
s_leave_log(s_place_t *place, int batches)
{
    lade_store_close(&place->store);
    pid_t child = fork();
    if (child == 0) {
        char name[16];
        lade_code_t code = lade_store_open(place->folder, &place->store, NULL);
        for (int i = 0; i < batches && !code; i++) {
            snprintf(name, sizeof name, "%d", i);
            code = s_put(place, LADE_DB_JOBS, name, "there");
            if (!code && i % 10 == 9) { // and some that are gone again
                snprintf(name, sizeof name, "%d", i - 5);
                code = lade_store_del(place->store, LADE_DB_JOBS, name, strlen(name), NULL);
            }
            if (!code)
                code = lade_store_commit(place->store, NULL);
        }
        _exit(code ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void
s_remove_file(const s_place_t *place, const char *name)
{
    char *path = lade_path_join(place->folder, name);
    PASS(lade_path_remove(path, (lade_error_t *)&place->error));
    free(path);
}

static void
test_batches_of_a_killed_process_are_taken_up(void **state)
{
    s_place_t *place = *state;
    const int counts[] = {7, 9000}; // the second fills the log and outlives several checkpoints
    for (size_t i = 0; i < 2; i++) {
        int count = counts[i];
        char last[16];
        snprintf(last, sizeof last, "%d", count - 1);
        s_leave_log(place, count);
        PASS(lade_store_open(place->folder, &place->store, &place->error));
        assert_int_equal(lade_store_count(place->store, LADE_DB_JOBS), count - count / 10);
        s_expect(place, LADE_DB_JOBS, last, "there");
        s_expect(place, LADE_DB_JOBS, "4", count > 9 ? NULL : "there");
    }
}

static void
test_taking_up_twice_changes_nothing(void **state)
{
    s_place_t *place = *state;
    s_leave_log(place, 25);
    for (int i = 0; i < 2; i++) { // the second time the log is of an older generation
        PASS(lade_store_open(place->folder, &place->store, &place->error));
        assert_int_equal(lade_store_count(place->store, LADE_DB_JOBS), 23);
        PASS(lade_store_del(place->store, LADE_DB_JOBS, "20", 2, &place->error));
        PASS(lade_store_put(place->store, LADE_DB_JOBS, "20", 2, "again", 5, false, &place->error));
        PASS(lade_store_commit(place->store, &place->error));
        lade_store_close(&place->store);
    }
    PASS(lade_store_open(place->folder, &place->store, &place->error));
    s_expect(place, LADE_DB_JOBS, "20", "again");
}

static void
test_clean_end_leaves_nothing_in_the_log(void **state)
{
    s_place_t *place = *state;
    PASS(s_put(place, LADE_DB_JOBS, "a", "1"));
    PASS(lade_store_commit(place->store, &place->error));
    lade_store_close(&place->store);
    s_remove_file(place, "wal");
    PASS(lade_store_open(place->folder, &place->store, &place->error));
    s_expect(place, LADE_DB_JOBS, "a", "1");
}

static void
test_log_of_another_keyspace_is_not_taken_up(void **state)
{
    s_place_t *place = *state;
    s_leave_log(place, 5);
    s_remove_file(place, "data.mdb");
    PASS(lade_store_open(place->folder, &place->store, &place->error));
    assert_int_equal(lade_store_count(place->store, LADE_DB_JOBS), 0);
}

static void
test_abort_keeps_what_was_logged(void **state)
{
    s_place_t *place = *state;
    for (int i = 0; i < 3; i++) {
        PASS(s_put(place, LADE_DB_JOBS, "a", i ? "2" : "1"));
        PASS(lade_store_commit(place->store, &place->error));
        PASS(s_put(place, LADE_DB_JOBS, "a", "never"));
        PASS(lade_store_del(place->store, LADE_DB_META, "schema", 6, &place->error));
        lade_store_abort(place->store);
        s_expect(place, LADE_DB_JOBS, "a", i ? "2" : "1");
    }
    s_reopen(place);
    s_expect(place, LADE_DB_JOBS, "a", "2");
}

static void
s_damage(const s_place_t *place, const char *bytes, off_t length)
{
    char *file = lade_path_join(place->folder, "data.mdb");
    if (bytes) {
        int fd = open(file, O_WRONLY);
        for (off_t at = 0; at < 2; at++) // both pages that name a root
            assert_int_equal(pwrite(fd, bytes, strlen(bytes), at * 4096), (ssize_t)strlen(bytes));
        close(fd);
    }
    if (length)
        assert_int_equal(truncate(file, length), 0);
    free(file);
}

static bool
s_go_on(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    *(size_t *)arg += key.len + value.len;
    return true;
}

static void
test_file_that_was_cut_is_corrupt_and_no_crash(void **state)
{
    s_place_t *place = *state;
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t key = __builtin_bswap32(i);
        PASS(lade_store_put(place->store, LADE_DB_JOBS, &key, sizeof key, "some value", 10, false,
                            &place->error));
    }
    PASS(lade_store_commit(place->store, &place->error));
    lade_store_close(&place->store);
    s_damage(place, NULL, 3 * 4096);
    lade_code_t code = lade_store_open(place->folder, &place->store, &place->error);
    size_t bytes = 0;
    for (size_t i = 0; i < LADE_DB_COUNT && !code; i++)
        code = lade_store_scan(place->store, (lade_db_t)i, "", 0, 0, false, s_go_on, &bytes,
                               &place->error);
    assert_int_equal(code, LADE_CORRUPT);
}

static void
test_file_of_something_else_is_corrupt(void **state)
{
    s_place_t *place = *state;
    lade_store_close(&place->store);
    s_damage(place, "PK\003\004 this is no keyspace, it is a zip", 0);
    assert_int_equal(lade_store_open(place->folder, &place->store, &place->error), LADE_CORRUPT);
    assert_non_null(strstr(place->error.message, place->folder));
}

// A child writes batches and is killed in the middle; what it acknowledged is there, and no half of
// a batch.
static void
test_killed_process_loses_nothing_it_committed(void **state)
{
    s_place_t *place = *state;
    lade_store_close(&place->store);
    for (int round = 0; round < 5; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) {
            if (lade_store_open(place->folder, &place->store, NULL))
                _exit(1);
            uint64_t number = 0;
            lade_store_get_number(place->store, "one", &number, NULL);
            while (!lade_store_put_number(place->store, "one", ++number, NULL) &&
                   !lade_store_put_number(place->store, "other", number, NULL) &&
                   !lade_store_commit(place->store, NULL) &&
                   write(pipes[1], &number, sizeof number) > 0)
                continue;
            _exit(2);
        }
        close(pipes[1]);
        uint64_t last = 0, number, one = 0, other = 0;
        for (int i = 0; i < 20 + round * 7; i++)
            assert_int_equal(read(pipes[0], &last, sizeof last), sizeof last);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(pipes[0], &number, sizeof number) == sizeof number)
            last = number;
        close(pipes[0]);
        PASS(lade_store_open(place->folder, &place->store, &place->error));
        PASS(lade_store_get_number(place->store, "one", &one, &place->error));
        PASS(lade_store_get_number(place->store, "other", &other, &place->error));
        assert_true(one >= last && one <= last + 1);
        assert_true(one == other);
        lade_store_close(&place->store);
    }
}

// ---------------------------------------------------------------------------------------------------
// Views and copies

static bool
s_count_entry(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)key;
    (void)value;
    return ++*(int *)arg, true;
}

static void
test_view_stays_as_it_was(void **state)
{
    s_place_t *place = *state;
    lade_store_t *view;
    int count = 0;
    PASS(s_put(place, LADE_DB_JOBS, "a", "1"));
    assert_int_equal(lade_store_checkpoint(place->store, &place->error),
                     LADE_BUSY); // a batch is open
    PASS(lade_store_commit(place->store, &place->error));
    PASS(lade_store_checkpoint(place->store, &place->error));
    PASS(lade_store_view(place->store, &view, &place->error));
    PASS(s_put(place, LADE_DB_JOBS, "a", "2"));
    PASS(s_put(place, LADE_DB_JOBS, "b", "1"));
    PASS(lade_store_commit(place->store, &place->error));
    PASS(lade_store_checkpoint(place->store, &place->error));
    lade_bytes_t found;
    PASS(lade_store_get(view, LADE_DB_JOBS, "a", 1, &found, &place->error));
    assert_memory_equal(found.data, "1", 1);
    assert_int_equal(lade_store_get(view, LADE_DB_JOBS, "b", 1, &found, NULL), LADE_NOT_FOUND);
    PASS(lade_store_scan(view, LADE_DB_JOBS, NULL, 0, 0, false, s_count_entry, &count,
                         &place->error));
    assert_int_equal(count, 1);
    assert_int_equal(lade_store_count(view, LADE_DB_JOBS), 1);
    assert_false(lade_store_wanted(view));
    lade_store_close(&view);
    s_expect(place, LADE_DB_JOBS, "a", "2");
}

// Reads over and over until it is told that the store wants its view back.
static void *
s_look(void *arg)
{
    lade_store_t *view = arg;
    lade_code_t code = LADE_OK;
    int count = 0;
    while (!code)
        code =
            lade_store_scan(view, LADE_DB_EVENTS, NULL, 0, 0, false, s_count_entry, &count, NULL);
    lade_store_close(&view);
    return (void *)(intptr_t)code;
}

static void
test_map_that_has_to_grow_sends_readers_away(void **state)
{
    s_place_t *place = *state;
    static char value[64000] = {1};
    lade_store_t *view;
    pthread_t thread;
    void *ended;
    s_open_small(place, 128 << 20); // a quarter of it is more than a log holds
    PASS(s_put(place, LADE_DB_EVENTS, "0", "first"));
    PASS(lade_store_commit(place->store, &place->error));
    PASS(lade_store_checkpoint(place->store, &place->error));
    PASS(lade_store_view(place->store, &view, &place->error));
    assert_int_equal(pthread_create(&thread, NULL, s_look, view), 0);
    for (uint32_t i = 0; i < 2300; i++) { // more than the map
        char key[16];
        int len = snprintf(key, sizeof key, "%08u", i);
        PASS(lade_store_put(place->store, LADE_DB_EVENTS, key, (size_t)len, value, sizeof value,
                            false, &place->error));
        if (i % 10 == 9)
            PASS(lade_store_commit(place->store, &place->error));
    }
    assert_int_equal(pthread_join(thread, &ended), 0);
    assert_int_equal((intptr_t)ended, LADE_BUSY);
    assert_int_equal(lade_store_count(place->store, LADE_DB_EVENTS), 2301);
}

static bool
s_take_copy(void *arg, const void *bytes, size_t len)
{
    return fwrite(bytes, 1, len, arg) == len;
}

static bool
s_take_nothing(void *arg, const void *bytes, size_t len)
{
    (void)bytes;
    *(size_t *)arg += len;
    return false;
}

static void
test_copy_is_a_keyspace_of_its_own(void **state)
{
    s_place_t *place = *state;
    char value[4000] = {1}, *other = lade_path_join(place->root, "other");
    lade_store_t *view;
    size_t taken = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        char key[16];
        int len = snprintf(key, sizeof key, "%08u", i);
        PASS(lade_store_put(place->store, LADE_DB_EVENTS, key, (size_t)len, value, sizeof value,
                            true, &place->error));
        if (i % 100 == 99)
            PASS(lade_store_commit(place->store, &place->error));
    }
    for (uint32_t i = 0; i < 2000; i++) {
        char key[16];
        int len = snprintf(key, sizeof key, "%08u", i);
        PASS(lade_store_del(place->store, LADE_DB_EVENTS, key, (size_t)len, &place->error));
    }
    PASS(lade_store_commit(place->store, &place->error));
    PASS(lade_store_checkpoint(place->store, &place->error));
    PASS(lade_store_view(place->store, &view, &place->error));
    uint64_t expected = lade_store_copy_bytes(view);
    assert_int_equal(lade_store_copy(view, s_take_nothing, &taken, &place->error), LADE_CANCELLED);
    assert_true(taken > 0 && taken < expected);
    PASS(lade_path_mkdirs(other, 0700, &place->error));
    char *file = lade_path_join(other, "data.mdb");
    FILE *out = fopen(file, "wb");
    PASS(lade_store_copy(view, s_take_copy, out, &place->error));
    fclose(out);
    lade_store_close(&view);
    int64_t size = lade_path_size(file);
    assert_true(size <= (int64_t)expected && size > 1000 * (int64_t)sizeof value);
    assert_true(size < (int64_t)lade_store_bytes(place->store) / 2); // no free pages in it
    lade_store_close(&place->store);
    PASS(lade_store_open(other, &place->store, &place->error));
    assert_int_equal(lade_store_count(place->store, LADE_DB_EVENTS), 1000);
    free(file);
    free(other);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_batch_is_seen_by_its_reads_and_gone_after_abort),
        TEST(test_committed_batch_is_there_after_reopening),
        TEST(test_commit_without_a_batch_does_nothing),
        TEST(test_keys_have_a_ceiling),
        TEST(test_append_copes_with_a_key_that_is_not_the_highest),
        TEST(test_scan_goes_through_range_and_prefix_both_ways),
        TEST(test_numbers_are_msgpack_and_a_broken_one_is_corrupt),
        TEST(test_long_text_becomes_a_key_of_its_own),
        TEST(test_second_broker_is_told_who_has_the_keyspace),
        TEST(test_older_schema_is_migrated_step_by_step_in_one_batch),
        TEST(test_tables_without_a_schema_are_corrupt),
        TEST(test_map_grows_between_batches),
        TEST(test_batch_too_large_for_the_map_fails_whole_and_fits_later),
        TEST(test_full_disk_fails_the_batch_and_keeps_the_rest),
        TEST(test_batches_of_a_killed_process_are_taken_up),
        TEST(test_taking_up_twice_changes_nothing),
        TEST(test_clean_end_leaves_nothing_in_the_log),
        TEST(test_log_of_another_keyspace_is_not_taken_up),
        TEST(test_abort_keeps_what_was_logged),
        TEST(test_file_that_was_cut_is_corrupt_and_no_crash),
        TEST(test_file_of_something_else_is_corrupt),
        TEST(test_killed_process_loses_nothing_it_committed),
        TEST(test_view_stays_as_it_was),
        TEST(test_map_that_has_to_grow_sends_readers_away),
        TEST(test_copy_is_a_keyspace_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
