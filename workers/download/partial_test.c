// Partial files and their journals, without a server.
#include "workers/download/partial.h"

#include "common/path.h"
#include "workers/download/block.h"

#include <czmq.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { S_MIB = 1 << 20 };

static const char s_hello_sha256[] =
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
// Of the source of the fixture, as a journal has it.
static const char s_source_sha256[] =
    "e55d06665f724ecec8763f6e8f5cc35c852ce2e0ba8f3832413c6f0a5b82bb5b";

typedef struct {
    char folder[64];
    lade_partial_where_t where;
    lade_journal_t journal;
    lade_partial_t *partial;
} s_fixture_t;

static int
s_setup(void **state)
{
    s_fixture_t *f = calloc(1, sizeof *f);
    const char *tmp = getenv("TMPDIR");
    snprintf(f->folder, sizeof f->folder, "%s/lade-partial-XXXXXX",
             tmp && strlen(tmp) < 32 ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->folder));
    f->where = (lade_partial_where_t){
        .folder = f->folder, .base = "m.bin", .source = "http://a/m.bin", .id = 7, .attempt = 1};
    f->journal.total = -1;
    *state = f;
    return 0;
}

static int
s_teardown(void **state)
{
    s_fixture_t *f = *state;
    lade_partial_close(&f->partial);
    lade_journal_free(&f->journal);
    lade_path_remove(f->folder, NULL);
    free(f);
    return 0;
}

static void
s_open(s_fixture_t *f, int64_t attempt)
{
    lade_error_t error = {0};
    lade_journal_free(&f->journal);
    f->where.attempt = attempt;
    if (lade_partial_open(&f->partial, &f->where, &f->journal, &error))
        fail_msg("%s", error.message);
}

// Writes a text at its place and notes it for the next checkpoint.
static void
s_put(s_fixture_t *f, int64_t at, const char *text)
{
    assert_int_equal(lade_partial_write(f->partial, at, text, strlen(text), NULL), LADE_OK);
    lade_ranges_add(&f->journal.ranges, at, at + (int64_t)strlen(text));
}

static lade_code_t
s_checkpoint(s_fixture_t *f)
{
    return lade_partial_checkpoint(f->partial, &f->journal, NULL);
}

// Opens, writes, checkpoints and closes: what an attempt leaves.
static void
s_leave(s_fixture_t *f, int64_t attempt, int64_t at, const char *text)
{
    s_open(f, attempt);
    s_put(f, at, text);
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_close(&f->partial);
}

static lade_code_t
s_publish(s_fixture_t *f, const char *name, int64_t total)
{
    free(f->journal.name);
    free(f->journal.sha256);
    f->journal.name = strdup(name);
    f->journal.sha256 = strdup(s_hello_sha256);
    f->journal.total = total;
    return lade_partial_publish(f->partial, &f->journal, NULL);
}

static bool
s_stat(s_fixture_t *f, const char *name, struct stat *st)
{
    char *path = lade_path_join(f->folder, name);
    bool there = lstat(path, st) == 0;
    free(path);
    return there;
}

static bool
s_there(s_fixture_t *f, const char *name)
{
    struct stat st;
    return s_stat(f, name, &st);
}

static void
s_write(s_fixture_t *f, const char *name, const char *text)
{
    char *path = lade_path_join(f->folder, name);
    assert_int_equal(lade_path_write(path, text, strlen(text), 0600, NULL), LADE_OK);
    free(path);
}

static void
s_check_content(s_fixture_t *f, const char *name, const char *text)
{
    char *path = lade_path_join(f->folder, name), *content;
    size_t len;
    assert_int_equal(lade_path_read(path, 4096, &content, &len, NULL), LADE_OK);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(content, text, len);
    free(content);
    free(path);
}

// What the partial has at a place.
static void
s_check_bytes(s_fixture_t *f, int64_t at, const char *text)
{
    char bytes[64] = "";
    assert_int_equal(lade_partial_read(f->partial, at, bytes, strlen(text), NULL), LADE_OK);
    assert_string_equal(bytes, text);
}

static void
test_bytes_are_published_whole(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_put(f, 3, "lo");
    assert_false(s_there(f, "m.bin"));
    s_put(f, 0, "hel");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    assert_true(s_there(f, ".m.bin.7.journal"));
    assert_int_equal(s_publish(f, "m.bin", 5), LADE_OK);
    s_check_content(f, "m.bin", "hello");
    assert_false(s_there(f, ".m.bin.7-1.part") || s_there(f, ".m.bin.7.journal"));
}

static void
test_small_file_needs_no_journal(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_put(f, 0, "hello");
    // Nobody can write a journal here; nobody has to.
    char *path = lade_path_join(f->folder, ".m.bin.7.journal");
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(s_publish(f, "m.bin", 5), LADE_OK);
    assert_int_equal(rmdir(path), 0);
    free(path);
    s_check_content(f, "m.bin", "hello");
    assert_false(s_there(f, ".m.bin.7-1.part"));
}

static void
test_nothing_is_replaced(void **state)
{
    s_fixture_t *f = *state;
    for (int journaled = 0; journaled < 2; journaled++) {
        s_write(f, "m.bin", "theirs");
        s_open(f, 1);
        s_put(f, 0, "hello");
        if (journaled)
            assert_int_equal(s_checkpoint(f), LADE_OK);
        assert_int_equal(s_publish(f, "m.bin", 5), LADE_EXISTS);
        s_check_content(f, "m.bin", "theirs");
        s_check_content(f, ".m.bin.7-1.part", "hello");
        lade_partial_remove(f->partial);
        lade_partial_close(&f->partial);
        assert_false(s_there(f, ".m.bin.7-1.part") || s_there(f, ".m.bin.7.journal"));
    }
}

static void
s_check_two_ranges(const s_fixture_t *f)
{
    assert_int_equal(f->journal.ranges.count, 2);
    assert_int_equal(f->journal.ranges.items[0].from, 0);
    assert_int_equal(f->journal.ranges.items[0].to, 2);
    assert_int_equal(f->journal.ranges.items[1].from, 4);
    assert_int_equal(f->journal.ranges.items[1].to, 5);
    assert_int_equal(f->journal.ranges.bytes, 3);
}

static void
test_next_attempt_takes_what_is_durable(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_put(f, 4, "o");
    s_put(f, 0, "he");
    f->journal.etag = strdup("\"e\"");
    f->journal.last_modified = strdup("a day");
    f->journal.content_type = strdup("a/b");
    f->journal.total = 5;
    assert_int_equal(s_checkpoint(f), LADE_OK);
    // After the checkpoint: not vouched for.
    assert_int_equal(lade_partial_write(f->partial, 2, "xx", 2, NULL), LADE_OK);
    lade_partial_close(&f->partial);
    s_write(f, ".m.bin.7.journal.tmp-123", "{"); // killed in writing the next one
    s_write(f, ".m.bin.71-1.part", "of another job");
    s_write(f, ".m.bin.7-9.part", "of a later attempt");
    s_open(f, 2);
    s_check_two_ranges(f);
    assert_string_equal(f->journal.etag, "\"e\"");
    assert_string_equal(f->journal.last_modified, "a day");
    assert_string_equal(f->journal.content_type, "a/b");
    assert_int_equal(f->journal.total, 5);
    assert_false(s_there(f, ".m.bin.7-1.part") || s_there(f, ".m.bin.7.journal.tmp-123"));
    assert_true(s_there(f, ".m.bin.71-1.part") && s_there(f, ".m.bin.7-9.part"));
    s_check_bytes(f, 0, "he");
    s_put(f, 2, "ll");
    assert_int_equal(f->journal.ranges.count, 1);
    assert_int_equal(s_publish(f, "m.bin", 5), LADE_OK);
    s_check_content(f, "m.bin", "hello");
}

static void
test_file_somebody_has_open_is_copied(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_put(f, 0, "he");
    s_put(f, 4, "o");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_t *stopped = f->partial; // a worker that is stopped and will go on
    f->partial = NULL;
    s_open(f, 2);
    s_check_two_ranges(f);
    s_put(f, 2, "ll");
    assert_int_equal(lade_partial_write(stopped, 0, "LATE", 4, NULL), LADE_OK);
    lade_journal_t late = {.total = 5, .name = strdup("m.bin"), .sha256 = strdup("")};
    lade_ranges_add(&late.ranges, 0, 5);
    assert_int_equal(lade_partial_checkpoint(stopped, &late, NULL), LADE_STALE_LEASE);
    assert_int_equal(lade_partial_publish(stopped, &late, NULL), LADE_STALE_LEASE);
    assert_int_equal(lade_partial_restart(stopped, NULL), LADE_OK); // of its own file only
    assert_true(s_there(f, ".m.bin.7.journal"));
    s_check_bytes(f, 0, "hello");
    assert_int_equal(s_publish(f, "m.bin", 5), LADE_OK);
    // All is over, and it still does not know.
    assert_int_equal(lade_partial_checkpoint(stopped, &late, NULL), LADE_STALE_LEASE);
    assert_int_equal(lade_partial_publish(stopped, &late, NULL), LADE_STALE_LEASE);
    lade_journal_free(&late);
    lade_partial_remove(stopped);
    lade_partial_close(&stopped);
    s_check_content(f, "m.bin", "hello");
    assert_false(s_there(f, ".m.bin.7.journal"));
}

static void
test_earlier_attempt_comes_late(void **state)
{
    s_fixture_t *f = *state;
    s_leave(f, 3, 0, "hel");
    lade_journal_free(&f->journal);
    f->where.attempt = 2;
    assert_int_equal(lade_partial_open(&f->partial, &f->where, &f->journal, NULL),
                     LADE_STALE_LEASE);
    assert_null(f->partial);
    s_check_content(f, ".m.bin.7-3.part", "hel");
    s_open(f, 3); // the same attempt again: a worker that was started anew
    assert_int_equal(f->journal.ranges.bytes, 3);
}

static void
test_another_source_begins_anew(void **state)
{
    s_fixture_t *f = *state;
    s_leave(f, 1, 0, "hel");
    f->where.source = "http://b/m.bin";
    s_open(f, 2);
    assert_int_equal(f->journal.ranges.bytes, 0);
    assert_int_equal(f->journal.total, -1);
    assert_false(s_there(f, ".m.bin.7-1.part") || s_there(f, ".m.bin.7.journal"));
}

// A journal of the fixture's source and the first attempt's partial, with these ranges.
static void
s_write_journal(s_fixture_t *f, const char *ranges, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"version\":2,\"source\":\"%s\",\"part\":\".m.bin.7-1.part\",\"attempt\":1,"
             "\"ranges\":%s%s}",
             s_source_sha256, ranges, more);
    s_write(f, ".m.bin.7.journal", text);
}

static void
test_wrong_journals_begin_anew(void **state)
{
    s_fixture_t *f = *state;
    static const char *const journals[] = {
        "",
        "{",
        "[]",
        "5",
        "{\"version\":2}",
        "{\"version\":1,\"source\":\"x\",\"part\":\".m.bin.7-1.part\",\"bytes\":3}",
        "{\"version\":2,\"source\":\"x\",\"part\":\"../../etc/passwd\",\"ranges\":[[0,3]]}",
        "{\"version\":2,\"source\":5,\"part\":{},\"ranges\":\"3\"}",
        "{\"version\":2,\"source\":\"x\",\"part\":\"\",\"name\":\"a/b\",\"ranges\":[]}",
    };
    for (size_t i = 0; i < sizeof journals / sizeof *journals; i++) {
        s_write(f, ".m.bin.7.journal", journals[i]);
        s_open(f, (int64_t)i + 1);
        assert_int_equal(f->journal.ranges.bytes, 0);
        assert_null(f->journal.part);
        assert_false(s_there(f, ".m.bin.7.journal"));
        lade_partial_close(&f->partial);
    }
}

static void
test_hostile_ranges_vouch_for_nothing(void **state)
{
    s_fixture_t *f = *state;
    static const struct {
        const char *ranges, *more;
        int64_t bytes;
    } rows[] = {
        // clang-format off
        {"[[0,3],[4,5]]",                     "",               4},
        {"[[4,5],[0,3]]",                     "",               4}, // any order
        {"[[0,3],[1,5],[2,4]]",               "",               5}, // overlapping
        {"[[0,5],[0,5]]",                     ",\"total\":5",   5},
        {"[[0,3]]",                           ",\"total\":-1",  3},
        {"[[-1,3]]",                          "",               0},
        {"[[3,0]]",                           "",               0},
        {"[[3,3]]",                           "",               0},
        {"[[0,3,4]]",                         "",               0},
        {"[[0]]",                             "",               0},
        {"[0,3]",                             "",               0},
        {"[[0,3.5]]",                         "",               0},
        {"[[\"0\",\"3\"]]",                   "",               0},
        {"[[0,3],null]",                      "",               0},
        {"{\"0\":3}",                         "",               0},
        {"null",                              "",               0},
        {"\"all\"",                           "",               0},
        {"[]",                                "",               0},
        {"[[0,9223372036854775807]]",         "",               0}, // sums of it would not fit
        {"[[0,4611686018427387903]]",         "",               0}, // longer than the file
        {"[[0,6]]",                           "",               0},
        {"[[0,5]]",                           ",\"total\":4",   0}, // longer than it is to be
        {"[[0,5]]",                           ",\"total\":9223372036854775807", 0},
        {"[[0,5]]",                           ",\"part\":\"theirs.bin\"",       0}, // the last one counts
        {"[[0,5]]",                           ",\"part\":\".m.bin.71-1.part\"", 0},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_write(f, ".m.bin.7-1.part", "hello");
        s_write(f, "theirs.bin", "hello");
        s_write(f, ".m.bin.71-1.part", "hello");
        s_write_journal(f, rows[i].ranges, rows[i].more);
        s_open(f, 2);
        if (f->journal.ranges.bytes != rows[i].bytes)
            fail_msg("%s%s: %lld bytes", rows[i].ranges, rows[i].more,
                     (long long)f->journal.ranges.bytes);
        s_put(f, 0, "HELLO");
        lade_partial_remove(f->partial);
        lade_partial_close(&f->partial);
        s_check_content(f, "theirs.bin", "hello");
        s_check_content(f, ".m.bin.71-1.part", "hello");
        assert_false(s_there(f, ".m.bin.7-2.part") || s_there(f, ".m.bin.7.journal"));
    }
}

static void
test_links_are_not_followed(void **state)
{
    s_fixture_t *f = *state;
    s_write(f, "theirs.bin", "hello");
    char *part = lade_path_join(f->folder, ".m.bin.7-1.part");
    assert_int_equal(symlink("theirs.bin", part), 0);
    s_write_journal(f, "[[0,5]]", "");
    s_open(f, 2);
    assert_int_equal(f->journal.ranges.bytes, 0);
    s_put(f, 0, "HELLO");
    lade_partial_close(&f->partial);
    unlink(part);
    assert_int_equal(symlink("theirs.bin", part), 0); // where a first attempt wants to write
    s_open(f, 1);
    s_put(f, 0, "HELLO");
    s_check_content(f, "theirs.bin", "hello");
    free(part);
}

static void
test_partial_shorter_than_its_journal_begins_anew(void **state)
{
    s_fixture_t *f = *state;
    s_leave(f, 1, 0, "hello");
    char *path = lade_path_join(f->folder, ".m.bin.7-1.part");
    assert_int_equal(truncate(path, 2), 0);
    free(path);
    s_open(f, 2);
    assert_int_equal(f->journal.ranges.bytes, 0);
}

static void
test_crash_after_the_rename_is_recognised(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_put(f, 0, "hello");
    char *journal = lade_path_join(f->folder, ".m.bin.7.journal"), *kept;
    char *part = lade_path_join(f->folder, ".m.bin.7-1.part"),
         *final = lade_path_join(f->folder, "m.bin");
    size_t len;
    struct stat st;
    // The journal as publish writes it, then the rename, and no more.
    assert_int_equal(stat(part, &st), 0);
    f->journal.name = strdup("m.bin");
    f->journal.sha256 = strdup(s_hello_sha256);
    f->journal.total = 5;
    f->journal.publishing = true;
    f->journal.inode = (uint64_t)st.st_ino;
    f->journal.device = (uint64_t)st.st_dev;
    f->journal.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    assert_int_equal(s_checkpoint(f), LADE_OK);
    assert_int_equal(lade_path_read(journal, 4096, &kept, &len, NULL), LADE_OK);
    lade_partial_close(&f->partial);
    assert_int_equal(rename(part, final), 0);
    s_open(f, 2);
    assert_null(f->partial);
    assert_true(f->journal.publishing);
    assert_string_equal(f->journal.sha256, s_hello_sha256);
    assert_int_equal(f->journal.total, 5);
    assert_false(s_there(f, ".m.bin.7.journal"));

    // The same journal, but nobody can say what was published.
    char *digest = strstr(kept, "\"sha256\"");
    memcpy(digest, "\"sha-56\"", 8);
    assert_int_equal(lade_path_write(journal, kept, len, 0600, NULL), LADE_OK);
    s_open(f, 3);
    assert_non_null(f->partial);
    lade_partial_close(&f->partial);
    memcpy(digest, "\"sha256\"", 8);

    // The same journal, but the name is another's: not ours.
    assert_int_equal(lade_path_write(journal, kept, len, 0600, NULL), LADE_OK);
    assert_int_equal(unlink(final), 0);
    s_write(f, "m.bin", "other");
    s_open(f, 4);
    assert_non_null(f->partial);
    assert_int_equal(f->journal.ranges.bytes, 0);
    free(kept);
    free(journal);
    free(part);
    free(final);
}

static void
test_crash_before_the_rename_goes_on(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_put(f, 0, "hello");
    f->journal.name = strdup("m.bin");
    f->journal.total = 5;
    f->journal.publishing = true;
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_close(&f->partial);
    s_open(f, 2);
    assert_int_equal(f->journal.ranges.bytes, 5);
    assert_false(f->journal.publishing);
    assert_int_equal(s_publish(f, "m.bin", 5), LADE_OK);
    s_check_content(f, "m.bin", "hello");
}

static bool
s_always(void *arg)
{
    return arg == NULL;
}

static void
test_stop_while_kept_bytes_are_copied(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_put(f, 0, "hel");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_t *stopped = f->partial; // so they have to be copied
    f->partial = NULL;
    lade_journal_free(&f->journal);
    f->where.attempt = 2;
    f->where.stop = s_always;
    lade_error_t error;
    assert_int_equal(lade_partial_open(&f->partial, &f->where, &f->journal, &error),
                     LADE_CANCELLED);
    assert_non_null(f->partial);
    lade_partial_close(&f->partial);
    lade_partial_close(&stopped);
    f->where.stop = NULL;
    s_open(f, 3); // nothing was lost
    assert_int_equal(f->journal.ranges.bytes, 3);
    s_check_bytes(f, 0, "hel");
}

static void
test_restart_forgets_and_gives_space_back(void **state)
{
    s_fixture_t *f = *state;
    struct stat st;
    s_open(f, 1);
    assert_int_equal(lade_partial_reserve(f->partial, 8 * S_MIB, NULL), LADE_OK);
    s_put(f, 5 * S_MIB, "other bytes");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    assert_true(s_stat(f, ".m.bin.7-1.part", &st));
    assert_true(st.st_blocks * 512 >= 8 * S_MIB);
    assert_int_equal(lade_partial_restart(f->partial, NULL), LADE_OK);
    assert_true(s_stat(f, ".m.bin.7-1.part", &st));
    assert_int_equal(st.st_blocks, 0);
    assert_int_equal(st.st_size, 0);
    assert_false(s_there(f, ".m.bin.7.journal"));
    lade_ranges_free(&f->journal.ranges);
    s_put(f, 0, "hello");
    assert_int_equal(s_publish(f, "m.bin", 5), LADE_OK);
    s_check_content(f, "m.bin", "hello");
}

static void
test_space_is_reserved_or_refused(void **state)
{
    s_fixture_t *f = *state;
    struct stat st;
    lade_error_t error;
    s_open(f, 1);
    s_put(f, 0, "hello");
    assert_int_equal(lade_partial_reserve(f->partial, (int64_t)1 << 60, &error), LADE_NO_SPACE);
    assert_non_null(strstr(error.message, f->folder));
    assert_true(s_stat(f, ".m.bin.7-1.part", &st));
    assert_int_equal(st.st_size, 5); // as before
    assert_true(st.st_blocks * 512 < S_MIB);
    assert_int_equal(lade_partial_reserve(f->partial, S_MIB, NULL), LADE_OK);
    assert_int_equal(lade_partial_reserve(f->partial, S_MIB, NULL), LADE_OK); // has it
    assert_true(s_stat(f, ".m.bin.7-1.part", &st));
    assert_true(st.st_blocks * 512 >= S_MIB);
    // What was reserved and not needed does not show in the file.
    assert_int_equal(s_publish(f, "m.bin", 5), LADE_OK);
    assert_true(s_stat(f, "m.bin", &st));
    assert_true(st.st_blocks * 512 < S_MIB);
    s_check_content(f, "m.bin", "hello");
}

static void
test_file_of_unknown_length_takes_space_in_steps(void **state)
{
    s_fixture_t *f = *state;
    struct stat st;
    char *bytes = aligned_alloc(LADE_BLOCK_ALIGN, S_MIB), *found = malloc(S_MIB);
    s_open(f, 1);
    for (int i = 0; i < 3; i++) {
        memset(bytes, 'a' + i, S_MIB);
        assert_int_equal(lade_partial_write(f->partial, (int64_t)i * S_MIB, bytes, S_MIB, NULL),
                         LADE_OK);
    }
    s_put(f, 3 * S_MIB, "end");
    assert_true(s_stat(f, ".m.bin.7-1.part", &st));
    assert_int_equal(st.st_size, 3 * S_MIB + 3); // the step does not show in the length
    assert_int_equal(s_publish(f, "m.bin", 3 * S_MIB + 3), LADE_OK);
    assert_true(s_stat(f, "m.bin", &st));
    assert_int_equal(st.st_size, 3 * S_MIB + 3);
    assert_true(st.st_blocks * 512 < 4 * S_MIB);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lade_partial_read(f->partial, (int64_t)i * S_MIB, found, S_MIB, NULL),
                         LADE_OK);
        memset(bytes, 'a' + i, S_MIB);
        assert_memory_equal(found, bytes, S_MIB);
    }
    s_check_bytes(f, 3 * S_MIB, "end");
    lade_error_t error;
    assert_int_equal(lade_partial_read(f->partial, 3 * S_MIB, found, 4, &error), LADE_CORRUPT);
    free(found);
    free(bytes);
}

typedef struct {
    s_fixture_t *f;
    int which;
} s_writer_t;

// Every fourth block is this one's; another thread makes checkpoints meanwhile.
static void *
s_write_blocks(void *arg)
{
    s_writer_t *writer = arg;
    char *bytes = aligned_alloc(LADE_BLOCK_ALIGN, LADE_BLOCK_ALIGN);
    memset(bytes, 'a' + writer->which, LADE_BLOCK_ALIGN);
    size_t odd = writer->which % 2; // past the page cache or through it
    for (int i = writer->which; i < 64; i += 4)
        lade_partial_write(writer->f->partial, (int64_t)i * LADE_BLOCK_ALIGN, bytes,
                           LADE_BLOCK_ALIGN - odd, NULL);
    free(bytes);
    return NULL;
}

static void
test_several_threads_write(void **state)
{
    s_fixture_t *f = *state;
    pthread_t threads[4];
    s_writer_t writers[4];
    s_open(f, 1);
    s_put(f, 0, "hel");
    for (int i = 0; i < 4; i++) {
        writers[i] = (s_writer_t){f, i};
        assert_int_equal(pthread_create(&threads[i], NULL, s_write_blocks, &writers[i]), 0);
    }
    for (int i = 0; i < 8; i++)
        assert_int_equal(s_checkpoint(f), LADE_OK);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 64; i++)
        s_check_bytes(f, (int64_t)i * LADE_BLOCK_ALIGN + LADE_BLOCK_ALIGN - 2,
                      (const char[2]){(char)('a' + i % 4), '\0'});
}

static void
test_volume_is_the_mount_point(void **state)
{
    s_fixture_t *f = *state;
    static const struct {
        const char *folder, *volume;
    } rows[] = {
        {"/", "/"}, {"/proc", "/proc"}, {"/proc/self/fd", "/proc"}, {"/nowhere/at/all", "/"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *volume = lade_partial_volume(rows[i].folder);
        assert_string_equal(volume, rows[i].volume);
        free(volume);
    }
    char *volume = lade_partial_volume(f->folder), *again = lade_partial_volume(volume);
    assert_string_equal(volume, again);
    struct stat here, there;
    assert_true(stat(f->folder, &here) == 0 && stat(volume, &there) == 0);
    assert_true(here.st_dev == there.st_dev);
    free(volume);
    free(again);
}

static void
test_full_disk_costs_no_kept_bytes(void **state)
{
    s_fixture_t *f = *state;
    s_leave(f, 1, 0, "hello");
    // The journal cannot be written: its temporary name leads to a full device.
    char name[64];
    snprintf(name, sizeof name, ".m.bin.7.journal.tmp-%d", (int)getpid());
    char *path = lade_path_join(f->folder, name);
    assert_int_equal(symlink("/dev/full", path), 0);
    free(path);
    lade_journal_free(&f->journal);
    f->where.attempt = 2;
    assert_int_equal(lade_partial_open(&f->partial, &f->where, &f->journal, NULL), LADE_NO_SPACE);
    assert_null(f->partial);
    assert_false(s_there(f, ".m.bin.7-2.part"));
    s_open(f, 3);
    assert_int_equal(f->journal.ranges.bytes, 5);
}

static void
test_what_nobody_works_on_is_discarded(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 2);
    s_put(f, 0, "hello");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_where_t where = f->where;
    lade_partial_discard(&where); // somebody has it open
    assert_true(s_there(f, ".m.bin.7-2.part"));
    lade_partial_close(&f->partial);
    where.source = "http://b/m.bin"; // the job of another broker
    lade_partial_discard(&where);
    where.source = f->where.source;
    where.id = 71;
    lade_partial_discard(&where);
    assert_true(s_there(f, ".m.bin.7-2.part"));
    assert_true(s_there(f, ".m.bin.7.journal"));
    where.id = 7;
    lade_partial_discard(&where);
    lade_partial_discard(&where); // nothing is left
    assert_false(s_there(f, ".m.bin.7-2.part"));
    assert_false(s_there(f, ".m.bin.7.journal"));
}

static void
test_long_names_are_cut(void **state)
{
    s_fixture_t *f = *state;
    char base[256];
    for (size_t i = 0; i < 252; i += 2)
        memcpy(base + i, "\xc3\xa4", 2);
    base[252] = '\0';
    f->where.base = base;
    f->where.id = INT64_MAX;
    s_open(f, INT64_MAX);
    s_put(f, 0, "hello");
    assert_int_equal(s_publish(f, base, 5), LADE_OK);
    s_check_content(f, base, "hello");
}

#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        S_TEST(test_bytes_are_published_whole),
        S_TEST(test_small_file_needs_no_journal),
        S_TEST(test_nothing_is_replaced),
        S_TEST(test_next_attempt_takes_what_is_durable),
        S_TEST(test_file_somebody_has_open_is_copied),
        S_TEST(test_earlier_attempt_comes_late),
        S_TEST(test_another_source_begins_anew),
        S_TEST(test_wrong_journals_begin_anew),
        S_TEST(test_hostile_ranges_vouch_for_nothing),
        S_TEST(test_links_are_not_followed),
        S_TEST(test_partial_shorter_than_its_journal_begins_anew),
        S_TEST(test_crash_after_the_rename_is_recognised),
        S_TEST(test_crash_before_the_rename_goes_on),
        S_TEST(test_stop_while_kept_bytes_are_copied),
        S_TEST(test_restart_forgets_and_gives_space_back),
        S_TEST(test_space_is_reserved_or_refused),
        S_TEST(test_file_of_unknown_length_takes_space_in_steps),
        S_TEST(test_several_threads_write),
        S_TEST(test_volume_is_the_mount_point),
        S_TEST(test_full_disk_costs_no_kept_bytes),
        S_TEST(test_what_nobody_works_on_is_discarded),
        S_TEST(test_long_names_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
