// The engine, many connections at a time: a large file in ranges, and what servers do to it.
#include "workers/download/flow_fixture.h"

// ---------------------------------------------------------------------------------------------------
// How it comes

static void
test_large_file_comes_over_several_connections(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    request.sha256 = f->hub->large_sha256;
    s_throttle(f, 8 * S_MIB);
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    assert_string_equal(f->sha256, f->hub->large_sha256);
    assert_int_equal(f->bytes, S_LARGE);
    assert_int_equal(f->told, S_LARGE);
    s_seen_t seen = s_look(f);
    assert_true(seen.connections >= 4 && seen.connections <= f->config.download_connections);
    assert_int_equal(seen.requests, seen.parts);
    assert_int_equal(seen.asked, S_LARGE); // the last one's end is known when it is asked for
    assert_true(seen.ordered && seen.apart);
    json_t *second = s_request(f, 1, NULL);
    assert_string_equal(lade_json_text(second, "if_range", ""), f->etag);
    json_decref(second);
}

static void
test_wrong_digest_of_a_large_file(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    request.sha256 = f->hub->other_sha256;
    assert_int_equal(s_fetch(f, &request), LADE_DIGEST_MISMATCH);
    assert_int_equal(s_names(f), 0);
    s_seen_t seen = s_look(f);
    assert_true(seen.apart); // nothing was kept, so nothing is fetched again to be sure
}

static void
test_large_file_of_unknown_length(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_fault(f, "{\"path\": \"*large*\", \"action\": \"ignore_range\", \"headers\": "
               "{\"Content-Length\": null, \"Connection\": \"close\"}}");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    assert_int_equal(f->total, S_LARGE);
    assert_int_equal(s_request_count(f), 1);
    lade_path_remove(f->path, NULL);
    request.size = S_LARGE + 1; // it could have been cut
    assert_int_equal(s_fetch(f, &request), LADE_SIZE_MISMATCH);
    assert_int_equal(s_names(f), 0);
}

static void
test_ranges_that_are_answered_in_part(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_fault(f, "{\"path\": \"*large*\", \"action\": \"range_most\", \"bytes\": 1500000}");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

static void
test_connections_that_break(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_fault(f, "{\"path\": \"*large*\", \"action\": \"close\", \"bytes\": 700000, \"count\": 3}");
    s_fault(f, "{\"path\": \"*large*\", \"action\": \"close\", \"bytes\": 1300000, \"count\": 3, "
               "\"reset\": true}");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    assert_string_equal(strstr(f->phases, "stalled ") ? "told" : f->phases, "told");
}

// Whatever a server says of its ranges: the right file, or none.
static void
test_ranges_that_lie(void **state)
{
    s_fixture_t *f = *state;
    static const struct {
        const char *action;
        lade_code_t code;
    } rows[] = {
        // clang-format off
        {"\"long_body\", \"extra\": 1000",          LADE_OK},
        {"\"wrong_length\", \"delta\": 1000",       LADE_OK},
        {"\"wrong_length\", \"delta\": -1000",      LADE_NETWORK},
        {"\"no_length\"",                           LADE_OK},
        {"\"chunked\"",                             LADE_OK},
        {"\"multipart\"",                           LADE_OK},
        {"\"content_range\", \"value\": null",      LADE_OK},
        {"\"content_range\", \"value\": \"bytes 0-3/{size}\"", LADE_OK},
        {"\"content_range\", \"value\": \"bytes {first}-{size}/{size}\"", LADE_OK},
        {"\"range_shift\", \"by\": 1",              LADE_OK},
        {"\"range_shift\", \"by\": -1",             LADE_OK},
        {"\"range_total\", \"by\": 1000",           LADE_OK},
        {"\"unsatisfiable\"",                       LADE_HTTP_ERROR},
        {"\"corrupt\", \"offset\": 23000000",       LADE_DIGEST_MISMATCH},
        // clang-format on
    };
    const char *urls[2];
    lade_request_t request = s_wanted(f, "large.safetensors", urls);
    request.sha256 = f->hub->large_sha256;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char rule[256];
        snprintf(rule, sizeof rule, "{\"path\": \"*large*\", \"action\": %s}", rows[i].action);
        s_fault(f, rule);
        if (s_fetch(f, &request) != rows[i].code)
            fail_msg("%s: %s, %s", rows[i].action, lade_code_name(f->error.code), f->error.message);
        if (rows[i].code == LADE_OK)
            s_check_file(f, "large.safetensors", f->hub->large_sha256);
        else
            assert_false(s_there(f, "large.safetensors"));
        lade_path_remove(f->folder, NULL);
        json_decref(s_control(f, "DELETE", "faults", NULL));
    }
}

// All connections come to nothing at once, more of them than a transfer may fail in a row.
static void
test_server_that_starts_anew(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    s_configure(f, "download.stall_s", "1");
    lade_request_t request = s_wanted_large(f, urls);
    request.sha256 = f->hub->large_sha256;
    s_fault(f, "{\"path\": \"*large*\", \"from\": 4194304, \"action\": \"stall\", "
               "\"bytes\": 400000, \"count\": 4}");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    assert_int_equal(strncmp(f->phases, "stalled resumed ", 16), 0);
}

// ---------------------------------------------------------------------------------------------------
// Memory, rates, space

// The range after the first one comes so slowly that the rest does not fit into memory: it is let
// go when it is on the disk, and read from there for the digest.
static void
test_slow_range_does_not_hold_up_the_others(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    s_configure(f, "download.buffer_mb", "8");
    lade_request_t request = s_wanted_large(f, urls);
    request.sha256 = f->hub->large_sha256;
    s_fault(f, "{\"path\": \"*large*\", \"from\": 4194304, \"action\": \"drip\", "
               "\"bytes_per_s\": 100000, \"count\": 1}");
    s_begin(f, &request);
    s_wait_told(f, S_LARGE - 5 * S_MIB); // of 20 MiB after the first byte that is missing
    json_decref(s_control(f, "DELETE", "faults", NULL));
    S_OK(f, s_wait(f));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

static void
test_transfers_share_the_memory(void **state)
{
    enum { S_TRANSFERS = 4 };
    s_fixture_t *f = *state;
    static const char *const names[S_TRANSFERS] = {"a", "b", "c", "d"};
    const char *urls[2];
    s_configure(f, "download.buffer_mb", "8");
    s_fixture_t each[S_TRANSFERS] = {{0}};
    for (size_t i = 0; i < S_TRANSFERS; i++) {
        each[i].hub = f->hub;
        each[i].engine = f->engine;
        pthread_mutex_init(&each[i].lock, NULL);
        pthread_cond_init(&each[i].news, NULL);
        lade_request_t request = s_wanted_large(f, urls);
        request.filename = names[i];
        request.id = (int64_t)i + 1;
        request.sha256 = f->hub->large_sha256;
        s_begin(&each[i], &request);
    }
    for (size_t i = 0; i < S_TRANSFERS; i++) {
        S_OK(&each[i], s_wait(&each[i]));
        assert_string_equal(each[i].sha256, f->hub->large_sha256);
        pthread_cond_destroy(&each[i].news);
        pthread_mutex_destroy(&each[i].lock);
    }
    assert_int_equal(s_names(f), S_TRANSFERS);
    assert_true(s_look(f).connections <= f->config.download_connections);
}

// Bytes may come later than a rate allows, never much earlier.
static void
s_check_rate(s_fixture_t *f, const lade_request_t *request, int64_t bytes_per_s)
{
    int64_t before_ms = zclock_mono();
    S_OK(f, s_fetch(f, request));
    int64_t ms = zclock_mono() - before_ms, least_ms = S_LARGE * (int64_t)1000 / bytes_per_s;
    if (ms < least_ms * 8 / 10)
        fail_msg("%d bytes took %" PRId64 " ms, at least %" PRId64 " were to be expected", S_LARGE,
                 ms, least_ms);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    lade_path_remove(f->path, NULL);
}

static void
test_rate_of_a_transfer_and_of_the_engine(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    request.bytes_per_s = 24 * S_MIB;
    s_check_rate(f, &request, request.bytes_per_s);
    lade_engine_set_rate(f->engine, 20 * S_MIB);
    s_check_rate(f, &request, 20 * S_MIB);
    request.bytes_per_s = S_MIB; // and without a limit from then on it does not take 24 s
    lade_engine_set_rate(f->engine, 0);
    s_begin(f, &request);
    s_wait_told(f, 1);
    lade_engine_set_terms(f->engine, f->ticket, 0, 0, 0);
    S_OK(f, s_wait(f));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

// Bytes that come slowly because we take them slowly are no stall.
static void
test_low_rate_is_no_stall(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    s_configure(f, "download.stall_s", "1");
    s_configure(f, "download.low_speed_bytes", "1000000");
    lade_request_t request = s_wanted_large(f, urls);
    request.bytes_per_s = 100000;
    s_begin(f, &request);
    s_wait_told(f, 250000);
    assert_string_equal(f->phases, "");
    lade_engine_set_terms(f->engine, f->ticket, 0, 0, 0);
    S_OK(f, s_wait(f));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

// ---------------------------------------------------------------------------------------------------
// Versions

static void
test_version_changes_between_ranges(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_fault(f, "{\"path\": \"*large*\", \"action\": \"serve\", \"file\": \"other.safetensors\", "
               "\"skip\": 3}");
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(f->resumed_from, 0);
    s_check_file(f, "large.safetensors", f->hub->other_sha256);
}

static void
test_version_changes_and_the_digest_is_of_the_old_one(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    request.sha256 = f->hub->large_sha256;
    s_fault(f, "{\"path\": \"*large*\", \"action\": \"serve\", \"file\": \"other.safetensors\", "
               "\"skip\": 3}");
    assert_int_equal(s_fetch(f, &request), LADE_DIGEST_MISMATCH);
    assert_int_equal(s_names(f), 0);
}

static void
test_version_that_changes_with_each_answer(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_fault(f, "{\"path\": \"*large*\", \"action\": \"change_etag\"}");
    lade_code_t code = s_fetch(f, &request);
    if (code == LADE_OK) // it had to come in one answer
        s_check_file(f, "large.safetensors", f->hub->large_sha256);
    else
        assert_int_equal(code, LADE_RANGE_REFUSED);
}

// A server that sends everything when If-Range has an ETag: it is asked with the date.
static void
test_if_range_that_is_not_liked(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_fault(f, "{\"path\": \"*large*\", \"if_range\": \"etag\", \"action\": \"ignore_range\"}");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    s_seen_t seen = s_look(f);
    assert_int_equal(seen.asked, S_LARGE); // nothing was fetched twice
    assert_true(seen.apart);
    lade_path_remove(f->path, NULL);
    s_forget_log(f);
    // Nor the date: a digest can tell.
    s_fault(f, "{\"path\": \"*large*\", \"if_range\": \"date\", \"action\": \"ignore_range\"}");
    request.sha256 = f->hub->large_sha256;
    S_OK(f, s_fetch(f, &request));
    seen = s_look(f);
    assert_int_equal(seen.asked, S_LARGE);
    assert_true(seen.apart);
    lade_path_remove(f->path, NULL);
    // Nor a digest: everything at once.
    request.sha256 = NULL;
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

static void
test_weak_versions_come_in_one_answer(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_fault(f, "{\"path\": \"*large*\", \"action\": \"weak_etag\", "
               "\"headers\": {\"Last-Modified\": null}}");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    json_t *last = s_request(f, -1, NULL);
    assert_int_equal(lade_json_int(last, "status", 0), 200);
    assert_null(lade_json_text(last, "if_range", NULL));
    json_decref(last);
}

int
main(void)
{
    setenv("no_proxy", "127.0.0.1", 1); // the hub is here, whatever the machine's proxy
    const struct CMUnitTest tests[] = {
        S_TEST(test_large_file_comes_over_several_connections),
        S_TEST(test_wrong_digest_of_a_large_file),
        S_TEST(test_large_file_of_unknown_length),
        S_TEST(test_ranges_that_are_answered_in_part),
        S_TEST(test_connections_that_break),
        S_TEST(test_ranges_that_lie),
        S_TEST(test_server_that_starts_anew),
        S_TEST(test_slow_range_does_not_hold_up_the_others),
        S_TEST(test_transfers_share_the_memory),
        S_TEST(test_rate_of_a_transfer_and_of_the_engine),
        S_TEST(test_low_rate_is_no_stall),
        S_TEST(test_version_changes_between_ranges),
        S_TEST(test_version_changes_and_the_digest_is_of_the_old_one),
        S_TEST(test_version_that_changes_with_each_answer),
        S_TEST(test_if_range_that_is_not_liked),
        S_TEST(test_weak_versions_come_in_one_answer),
    };
    return cmocka_run_group_tests(tests, s_start, s_stop_hub);
}
