// Partial files and their journals, without a server.
#include "workers/download/partial.h"

#include "common/path.h"

#include <czmq.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

static const char s_hello_sha256[] =
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

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

static void
s_append(s_fixture_t *f, const char *text)
{
    assert_int_equal(lade_partial_append(f->partial, text, strlen(text), NULL), LADE_OK);
}

static lade_code_t
s_checkpoint(s_fixture_t *f)
{
    f->journal.bytes = lade_partial_bytes(f->partial);
    return lade_partial_checkpoint(f->partial, &f->journal, NULL);
}

static bool
s_there(s_fixture_t *f, const char *name)
{
    char *path = lade_path_join(f->folder, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
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
    assert_string_equal(content, text);
    free(content);
    free(path);
}

static void
test_bytes_are_published_whole(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "hel");
    assert_false(s_there(f, "m.bin"));
    s_append(f, "lo");
    char hex[65];
    lade_partial_digest(f->partial, hex);
    assert_string_equal(hex, s_hello_sha256);
    f->journal.name = strdup("m.bin");
    assert_int_equal(lade_partial_publish(f->partial, &f->journal, NULL), LADE_OK);
    s_check_content(f, "m.bin", "hello");
    assert_false(s_there(f, ".m.bin.7-1.part") || s_there(f, ".m.bin.7.journal"));
}

static void
test_nothing_is_replaced(void **state)
{
    s_fixture_t *f = *state;
    s_write(f, "m.bin", "theirs");
    s_open(f, 1);
    s_append(f, "hello");
    f->journal.name = strdup("m.bin");
    assert_int_equal(lade_partial_publish(f->partial, &f->journal, NULL), LADE_EXISTS);
    s_check_content(f, "m.bin", "theirs");
    lade_partial_remove(f->partial);
    assert_false(s_there(f, ".m.bin.7-1.part") || s_there(f, ".m.bin.7.journal"));
}

static void
test_next_attempt_takes_what_is_durable(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "hel");
    f->journal.etag = strdup("\"e\"");
    f->journal.total = 5;
    assert_int_equal(s_checkpoint(f), LADE_OK);
    s_append(f, "xx"); // after the checkpoint: not vouched for
    lade_partial_close(&f->partial);
    s_write(f, ".m.bin.7.journal.tmp-123", "{"); // killed in writing the next one
    s_write(f, ".m.bin.71-1.part", "of another job");
    s_write(f, ".m.bin.7-9.part", "of a later attempt");
    s_open(f, 2);
    assert_int_equal(lade_partial_bytes(f->partial), 3);
    assert_string_equal(f->journal.etag, "\"e\"");
    assert_int_equal(f->journal.total, 5);
    assert_false(s_there(f, ".m.bin.7-1.part") || s_there(f, ".m.bin.7.journal.tmp-123"));
    assert_true(s_there(f, ".m.bin.71-1.part") && s_there(f, ".m.bin.7-9.part"));
    s_append(f, "lo");
    char hex[65];
    lade_partial_digest(f->partial, hex); // over kept and new bytes
    assert_string_equal(hex, s_hello_sha256);
    f->journal.name = strdup("m.bin");
    assert_int_equal(lade_partial_publish(f->partial, &f->journal, NULL), LADE_OK);
    s_check_content(f, "m.bin", "hello");
}

static void
test_file_somebody_has_open_is_copied(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "hel");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_t *stopped = f->partial; // a worker that is stopped and will go on
    f->partial = NULL;
    s_open(f, 2);
    assert_int_equal(lade_partial_bytes(f->partial), 3);
    s_append(f, "lo");
    assert_int_equal(lade_partial_append(stopped, "LATE", 4, NULL), LADE_OK);
    lade_journal_t late = {.total = -1, .bytes = 7};
    assert_int_equal(lade_partial_checkpoint(stopped, &late, NULL), LADE_STALE_LEASE);
    late.name = strdup("m.bin");
    assert_int_equal(lade_partial_publish(stopped, &late, NULL), LADE_STALE_LEASE);
    f->journal.name = strdup("m.bin");
    assert_int_equal(lade_partial_publish(f->partial, &f->journal, NULL), LADE_OK);
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
test_another_source_begins_anew(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "hel");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_close(&f->partial);
    f->where.source = "http://b/m.bin";
    s_open(f, 2);
    assert_int_equal(lade_partial_bytes(f->partial), 0);
    assert_false(s_there(f, ".m.bin.7-1.part") || s_there(f, ".m.bin.7.journal"));
}

static void
test_wrong_journals_begin_anew(void **state)
{
    s_fixture_t *f = *state;
    static const char *const journals[] = {
        "",
        "{",
        "[]",
        "{\"version\":1}",
        "{\"version\":2,\"source\":\"x\",\"part\":\".m.bin.7-1.part\",\"bytes\":3}",
        "{\"version\":1,\"source\":\"x\",\"part\":\"../../etc/passwd\",\"bytes\":3}",
        "{\"version\":1,\"source\":5,\"part\":{},\"bytes\":\"3\"}",
    };
    for (size_t i = 0; i < sizeof journals / sizeof *journals; i++) {
        s_write(f, ".m.bin.7.journal", journals[i]);
        s_open(f, (int64_t)i + 1);
        assert_int_equal(lade_partial_bytes(f->partial), 0);
        lade_partial_close(&f->partial);
    }
}

static void
test_partial_shorter_than_its_journal_begins_anew(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "hello");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_close(&f->partial);
    char *path = lade_path_join(f->folder, ".m.bin.7-1.part");
    assert_int_equal(truncate(path, 2), 0);
    free(path);
    s_open(f, 2);
    assert_int_equal(lade_partial_bytes(f->partial), 0);
}

static void
test_crash_after_the_rename_is_recognised(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "hello");
    char *journal = lade_path_join(f->folder, ".m.bin.7.journal"), *kept;
    char *part = lade_path_join(f->folder, ".m.bin.7-1.part"),
         *final = lade_path_join(f->folder, "m.bin");
    size_t len;
    struct stat st;
    // The journal as publish writes it, then the rename, and no more.
    assert_int_equal(stat(part, &st), 0);
    f->journal.name = strdup("m.bin");
    f->journal.sha256 = strdup(s_hello_sha256);
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
    assert_false(s_there(f, ".m.bin.7.journal"));

    // The same journal, but the name is another's: not ours.
    assert_int_equal(lade_path_write(journal, kept, len, 0600, NULL), LADE_OK);
    assert_int_equal(unlink(final), 0);
    s_write(f, "m.bin", "other");
    s_open(f, 3);
    assert_non_null(f->partial);
    assert_int_equal(lade_partial_bytes(f->partial), 0);
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
    s_append(f, "hello");
    f->journal.name = strdup("m.bin");
    f->journal.total = 5;
    f->journal.publishing = true;
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_close(&f->partial);
    s_open(f, 2);
    assert_int_equal(lade_partial_bytes(f->partial), 5);
    assert_false(f->journal.publishing);
    assert_int_equal(lade_partial_publish(f->partial, &f->journal, NULL), LADE_OK);
    s_check_content(f, "m.bin", "hello");
}

static bool
s_always(void *arg)
{
    return arg == NULL;
}

static void
test_stop_while_kept_bytes_are_read(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "hel");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_close(&f->partial);
    lade_journal_free(&f->journal);
    f->where.attempt = 2;
    f->where.stop = s_always;
    lade_error_t error;
    assert_int_equal(lade_partial_open(&f->partial, &f->where, &f->journal, &error),
                     LADE_CANCELLED);
    lade_partial_close(&f->partial);
    f->where.stop = NULL;
    s_open(f, 3); // nothing was lost
    assert_int_equal(lade_partial_bytes(f->partial), 3);
}

static void
test_restart_forgets(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "other bytes");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    assert_int_equal(lade_partial_restart(f->partial, NULL), LADE_OK);
    assert_int_equal(lade_partial_bytes(f->partial), 0);
    assert_false(s_there(f, ".m.bin.7.journal"));
    s_append(f, "hello");
    char hex[65];
    lade_partial_digest(f->partial, hex);
    assert_string_equal(hex, s_hello_sha256);
}

static void
test_full_disk_costs_no_kept_bytes(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 1);
    s_append(f, "hello");
    assert_int_equal(s_checkpoint(f), LADE_OK);
    lade_partial_close(&f->partial);
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
    assert_int_equal(lade_partial_bytes(f->partial), 5);
}

static void
test_what_nobody_works_on_is_discarded(void **state)
{
    s_fixture_t *f = *state;
    s_open(f, 2);
    s_append(f, "hello");
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
    s_append(f, "hello");
    f->journal.name = strdup(base);
    assert_int_equal(lade_partial_publish(f->partial, &f->journal, NULL), LADE_OK);
    s_check_content(f, base, "hello");
}

#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        S_TEST(test_bytes_are_published_whole),
        S_TEST(test_nothing_is_replaced),
        S_TEST(test_next_attempt_takes_what_is_durable),
        S_TEST(test_file_somebody_has_open_is_copied),
        S_TEST(test_another_source_begins_anew),
        S_TEST(test_wrong_journals_begin_anew),
        S_TEST(test_partial_shorter_than_its_journal_begins_anew),
        S_TEST(test_crash_after_the_rename_is_recognised),
        S_TEST(test_crash_before_the_rename_goes_on),
        S_TEST(test_stop_while_kept_bytes_are_read),
        S_TEST(test_restart_forgets),
        S_TEST(test_full_disk_costs_no_kept_bytes),
        S_TEST(test_what_nobody_works_on_is_discarded),
        S_TEST(test_long_names_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
