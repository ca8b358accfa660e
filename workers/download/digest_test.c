// Digests: known ones, in pieces, and of files.
#include "workers/download/digest.h"

#include "common/path.h"

#include <czmq.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char s_of_nothing[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char s_of_abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char s_of_million_a[] =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void
test_known_digests(void **state)
{
    (void)state;
    lade_digest_t *digest = lade_digest_new();
    char hex[65];
    lade_digest_hex(digest, hex);
    assert_string_equal(hex, s_of_nothing);
    assert_int_equal(lade_digest_bytes(digest), 0);
    lade_digest_add(digest, "a", 1);
    lade_digest_hex(digest, hex); // a look in between changes nothing
    lade_digest_add(digest, "", 0);
    lade_digest_add(digest, "bc", 2);
    lade_digest_hex(digest, hex);
    assert_string_equal(hex, s_of_abc);
    lade_digest_hex(digest, hex);
    assert_string_equal(hex, s_of_abc);
    assert_int_equal(lade_digest_bytes(digest), 3);
    lade_digest_restart(digest);
    assert_int_equal(lade_digest_bytes(digest), 0);
    lade_digest_hex(digest, hex);
    assert_string_equal(hex, s_of_nothing);
    lade_digest_destroy(&digest);
    assert_null(digest);
    lade_digest_destroy(&digest);
}

static void
test_pieces_of_any_length(void **state)
{
    (void)state;
    char as[1000], hex[65];
    memset(as, 'a', sizeof as);
    lade_digest_t *digest = lade_digest_new();
    for (size_t len = 1; lade_digest_bytes(digest) < 1000000; len = len % 997 + 1) {
        int64_t left = 1000000 - lade_digest_bytes(digest);
        lade_digest_add(digest, as, (int64_t)len < left ? len : (size_t)left);
    }
    lade_digest_hex(digest, hex);
    assert_string_equal(hex, s_of_million_a);
    lade_digest_destroy(&digest);
}

static bool
s_stop_after(void *arg)
{
    int *left = arg;
    return (*left)-- <= 0;
}

static void
test_files(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    char folder[64], path[96], hex[65] = "";
    snprintf(folder, sizeof folder, "%s/lade-digest-XXXXXX",
             tmp && strlen(tmp) < 32 ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/abc", folder);
    lade_error_t error = {0};
    assert_int_equal(lade_digest_file(path, NULL, NULL, hex, &error), LADE_NOT_FOUND);
    assert_non_null(strstr(error.message, path));
    assert_int_equal(lade_path_write(path, "abc", 3, 0600, NULL), LADE_OK);
    assert_int_equal(lade_digest_file(path, NULL, NULL, hex, NULL), LADE_OK);
    assert_string_equal(hex, s_of_abc);
    int polls = 0;
    hex[0] = '\0';
    assert_int_equal(lade_digest_file(path, s_stop_after, &polls, hex, &error), LADE_CANCELLED);
    assert_string_equal(hex, "");
    polls = 100;
    assert_int_equal(lade_digest_file(path, s_stop_after, &polls, hex, &error), LADE_OK);
    assert_string_equal(hex, s_of_abc);
    assert_int_not_equal(lade_digest_file(folder, NULL, NULL, hex, &error), LADE_OK);
    assert_int_equal(lade_path_remove(folder, NULL), LADE_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_digests),
        cmocka_unit_test(test_pieces_of_any_length),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
