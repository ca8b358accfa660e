// The engine, one connection at a time: small files, and what servers do wrong.
#include "workers/download/engine_fixture.h"

// ---------------------------------------------------------------------------------------------------

static void
test_file_arrives_whole(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    request.size = S_BIG;
    request.sha256 = f->hub->big_sha256;
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
    assert_string_equal(f->sha256, f->hub->big_sha256);
    assert_int_equal(f->bytes, S_BIG);
    assert_int_equal(f->told, S_BIG);
    assert_int_equal(f->total, S_BIG);
    assert_int_equal(f->resumed_from, 0);
    assert_int_equal(f->etag[0], '"');
    assert_string_equal(f->content_type, "application/octet-stream");
    assert_string_equal(strrchr(f->path, '/'), "/big.safetensors");
    assert_null(strchr(f->final_url, '?'));
    assert_true(f->tells >= 2);
}

static void
test_empty_file_arrives(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "empty.txt", urls);
    S_OK(f, s_fetch(f, &request));
    assert_true(s_there(f, "empty.txt"));
    assert_int_equal(f->bytes, 0);
    assert_int_equal(s_names(f), 1);
}

static void
test_destination_names_the_file(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    char path[256];
    lade_request_t request = s_wanted(f, "small.json", urls);
    request.destdir = NULL;
    snprintf(path, sizeof path, "%s/deep/er/name.json", f->folder);
    request.destination = path;
    S_OK(f, s_fetch(f, &request));
    assert_true(s_there(f, "deep/er/name.json"));
    request.destination = f->folder; // a folder that is there
    S_OK(f, s_fetch(f, &request));
    assert_true(s_there(f, "small.json"));
    request.destination = NULL;
    request.destdir = f->folder;
    request.filename = "forced.json";
    S_OK(f, s_fetch(f, &request));
    assert_true(s_there(f, "forced.json"));
}

static void
test_wrong_requests_are_refused(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2], *strange[2] = {"ftp://127.0.0.1/x", NULL}, *none[1] = {NULL};
    const lade_request_t good = s_wanted(f, "small.json", urls);
    lade_request_t requests[] = {good, good, good, good, good, good};
    requests[0].urls = strange;
    requests[1].urls = none;
    requests[2].destdir = "relative";
    requests[3].filename = "../escape";
    requests[4].sha256 = "abc";
    requests[5].destdir = NULL;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        assert_int_equal(s_fetch(f, &requests[i]), LADE_VALUE_ERROR);
    assert_int_equal(s_request_count(f), 0);
    assert_int_equal(s_names(f), 0);
}

static void
test_paused_transfer_goes_on(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fetch_part(f, &request, LADE_ENGINE_PAUSE, LADE_PAUSED);
    assert_true(s_there(f, ".big.safetensors.7-1.part"));
    assert_true(s_there(f, ".big.safetensors.7.journal"));
    assert_false(s_there(f, "big.safetensors"));
    S_OK(f, s_fetch(f, &request));
    assert_true(f->resumed_from >= 3 << 19);
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
    json_t *asked = s_request(f, -1, NULL);
    char range[64];
    snprintf(range, sizeof range, "bytes=%" PRId64 "-%d", f->resumed_from, S_BIG - 1);
    assert_string_equal(lade_json_text(asked, "range", ""), range);
    assert_string_equal(lade_json_text(asked, "if_range", ""), f->etag);
    assert_int_equal(lade_json_int(asked, "status", 0), 206);
    json_decref(asked);
}

static void
test_cancelled_transfer_leaves_nothing(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fetch_part(f, &request, LADE_ENGINE_CANCEL, LADE_CANCELLED);
    assert_int_equal(s_names(f), 0);
    lade_engine_stop(f->engine, f->ticket, LADE_ENGINE_PAUSE); // has ended
    lade_engine_stop(f->engine, 4711, LADE_ENGINE_PAUSE);
}

static void
test_leaving_keeps_what_is_there(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_throttle(f, 1 << 20);
    s_begin(f, &request);
    pthread_mutex_lock(&f->lock);
    while (f->told < 1)
        pthread_cond_wait(&f->news, &f->lock);
    pthread_mutex_unlock(&f->lock);
    lade_engine_destroy(&f->engine);
    assert_int_equal(f->error.code, LADE_STALE_LEASE);
    s_throttle(f, 0);
    s_new_engine(f);
    request.attempt = 2;
    S_OK(f, s_fetch(f, &request));
    assert_true(f->resumed_from > 0);
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_killed_worker_goes_on_from_its_last_checkpoint(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    request.sha256 = f->hub->big_sha256;
    s_throttle(f, 6 << 20);
    s_kill_at(f, &request, 2 << 20);
    s_throttle(f, 0);
    json_decref(s_control(f, "DELETE", "log", NULL));
    request.attempt = 2;
    S_OK(f, s_fetch(f, &request));
    assert_true(f->resumed_from >=
                1 << 20); // what was told, less an interval and what came at once
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
    json_t *asked = s_request(f, -1, NULL);
    assert_int_equal(lade_json_int(asked, "bytes", 0), S_BIG - f->resumed_from);
    json_decref(asked);
}

static void
test_killed_again_and_again(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_throttle(f, 6 << 20);
    for (request.attempt = 1; request.attempt <= 5; request.attempt++)
        s_kill_at(f, &request, 1 + (request.attempt << 18));
    s_throttle(f, 0);
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_stopped_worker_never_writes_into_what_its_successor_publishes(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fetch_part(f, &request, LADE_ENGINE_PAUSE, LADE_PAUSED);
    char path[256];
    snprintf(path, sizeof path, "%s/.big.safetensors.7-1.part", f->folder);
    int old = open(path, O_WRONLY); // the stopped worker still has it open
    assert_true(old >= 0);
    S_OK(f, s_fetch(f, &request));
    assert_true(f->resumed_from > 0);
    assert_int_equal(pwrite(old, "late", 4, 100), 4);
    close(old);
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_earlier_attempt_had_published(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    S_OK(f, s_fetch(f, &request));
    // As a crash between the rename and the removal of the journal leaves it.
    char path[256], journal[256], source[65], text[1024];
    struct stat st;
    snprintf(path, sizeof path, "%s/big.safetensors", f->folder);
    snprintf(journal, sizeof journal, "%s/.big.safetensors.7.journal", f->folder);
    assert_int_equal(stat(path, &st), 0);
    char url_path[256];
    snprintf(url_path, sizeof url_path, "%s/url", f->folder);
    assert_int_equal(lade_path_write(url_path, f->url, strlen(f->url), 0600, NULL), LADE_OK);
    lade_digest_file(url_path, NULL, NULL, source, NULL);
    lade_path_remove(url_path, NULL);
    int len = snprintf(
        text, sizeof text,
        "{\"version\":2,\"source\":\"%s\",\"part\":\".big.safetensors.7-1.part\","
        "\"name\":\"big.safetensors\",\"ranges\":[[0,%d]],\"total\":%d,\"attempt\":1,"
        "\"publishing\":true,\"sha256\":\"%s\",\"inode\":%lld,\"device\":%lld,"
        "\"mtime_ns\":%lld}",
        source, S_BIG, S_BIG, f->hub->big_sha256, (long long)st.st_ino, (long long)st.st_dev,
        (long long)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
    assert_int_equal(lade_path_write(journal, text, (size_t)len, 0600, NULL), LADE_OK);
    json_decref(s_control(f, "DELETE", "log", NULL));
    request.attempt = 2;
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(s_request_count(f), 0);
    assert_string_equal(f->sha256, f->hub->big_sha256);
    assert_int_equal(f->bytes, S_BIG);
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_name_that_is_taken(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    S_OK(f, s_fetch(f, &request));
    json_decref(s_control(f, "DELETE", "log", NULL));
    request.filename = "big.safetensors";
    assert_int_equal(s_fetch(f, &request), LADE_EXISTS); // whose it is nobody knows
    request.sha256 = f->hub->big_sha256;
    S_OK(f, s_fetch(f, &request)); // by the same file
    assert_int_equal(s_request_count(f), 0);
    request.sha256 = f->hub->small_sha256;
    assert_int_equal(s_fetch(f, &request), LADE_EXISTS);
    request.sha256 = f->hub->big_sha256;
    request.filename = NULL; // the name is known when the server answers
    S_OK(f, s_fetch(f, &request));
    // A later attempt without digest: an earlier one may have published before it could say so.
    request.sha256 = NULL;
    request.attempt = 2;
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_changed_file_is_fetched_anew(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fetch_part(f, &request, LADE_ENGINE_PAUSE, LADE_PAUSED);
    s_fault(f, "{\"path\": \"*big*\", \"action\": \"change_etag\"}");
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(f->resumed_from, 0);
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_server_that_ignores_ranges(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fetch_part(f, &request, LADE_ENGINE_PAUSE, LADE_PAUSED);
    s_fault(f, "{\"path\": \"*big*\", \"action\": \"ignore_range\"}");
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(f->resumed_from, 0);
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_range_refused_is_fetched_anew(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fetch_part(f, &request, LADE_ENGINE_PAUSE, LADE_PAUSED);
    s_fault(f, "{\"path\": \"*big*\", \"range\": true, \"action\": \"status\", \"status\": 416}");
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(f->resumed_from, 0);
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_corrupt_kept_bytes_are_found_and_fetched_anew(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    request.sha256 = f->hub->big_sha256;
    s_fetch_part(f, &request, LADE_ENGINE_PAUSE, LADE_PAUSED);
    char path[256];
    snprintf(path, sizeof path, "%s/.big.safetensors.7-1.part", f->folder);
    int part = open(path, O_WRONLY);
    assert_int_equal(pwrite(part, "rot", 3, 1000), 3);
    close(part);
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_short_body_is_continued(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fault(f, "{\"path\": \"*big*\", \"action\": \"close\", \"bytes\": 2000000, \"count\": 1}");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
    assert_int_equal(s_request_count(f), 2);
    json_t *asked = s_request(f, -1, NULL);
    assert_int_equal(lade_json_int(asked, "bytes", 0), S_BIG - 2000000);
    json_decref(asked);
    assert_string_equal(f->phases, "stalled resumed ");
}

static void
test_server_that_sends_nothing_any_more_is_given_up(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fault(f, "{\"path\": \"*big*\", \"action\": \"close\", \"bytes\": 2000000, \"count\": 1}");
    s_fault(f, "{\"path\": \"*big*\", \"action\": \"close\", \"bytes\": 0, \"count\": 9}");
    assert_int_equal(s_fetch(f, &request), LADE_NETWORK);
    assert_false(s_there(f, "big.safetensors"));
    json_decref(s_control(f, "DELETE", "faults", NULL));
    request.attempt = 2;
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(f->resumed_from, 2000000);
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_wrong_digest_publishes_nothing(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    request.sha256 = f->hub->big_sha256;
    s_fault(f, "{\"path\": \"*big*\", \"action\": \"corrupt\", \"offset\": 12345}");
    assert_int_equal(s_fetch(f, &request), LADE_DIGEST_MISMATCH);
    assert_int_equal(s_names(f), 0);
}

static void
test_preserve_partial_keeps_it(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    request.sha256 = f->hub->small_sha256;
    request.preserve_partial = true;
    assert_int_equal(s_fetch(f, &request), LADE_DIGEST_MISMATCH);
    assert_true(s_there(f, ".big.safetensors.7-1.part"));
    assert_false(s_there(f, "big.safetensors"));
}

static void
test_wrong_size_publishes_nothing(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    request.size = S_BIG - 1;
    assert_int_equal(s_fetch(f, &request), LADE_SIZE_MISMATCH);
    s_fault(f, "{\"path\": \"*big*\", \"action\": \"no_length\"}");
    assert_int_equal(s_fetch(f, &request), LADE_SIZE_MISMATCH);
    request.size = S_BIG + 1;
    assert_int_equal(s_fetch(f, &request), LADE_SIZE_MISMATCH);
    assert_int_equal(s_names(f), 0);
    request.size = S_BIG;
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_token_does_not_cross_the_origin(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    char rule[256];
    lade_request_t request = s_wanted(f, "small.json", urls);
    request.access_token = "hf_good";
    // First on the same origin, then to the other one.
    snprintf(rule, sizeof rule,
             "[{\"path\": \"/files/small.json\", \"origin\": \"hub\", \"action\": \"redirect\", "
             "\"count\": 1, "
             "\"location\": \"http://127.0.0.1:%d/files/again.json\"}, "
             "{\"path\": \"/files/again.json\", \"action\": \"redirect\", "
             "\"location\": \"http://127.0.0.1:%d/nowhere\"}]",
             f->hub->port, f->hub->cdn_port);
    s_fault(f, rule);
    assert_int_not_equal(s_fetch(f, &request), LADE_OK);
    size_t count;
    json_t *first = s_request(f, 0, &count), *second = s_request(f, 1, NULL),
           *last = s_request(f, -1, NULL);
    assert_int_equal(count, 3);
    assert_true(lade_json_bool(first, "authorization", false));
    assert_true(lade_json_bool(second, "authorization", false));
    assert_string_equal(lade_json_text(last, "origin", ""), "cdn");
    assert_false(lade_json_bool(last, "authorization", true));
    json_decref(first);
    json_decref(second);
    json_decref(last);
}

static void
test_redirects_have_an_end_and_stay_with_http(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "small.json", urls);
    s_fault(f, "{\"path\": \"/files/small.json\", \"action\": \"redirect\", \"location\": "
               "\"/files/small.json\"}");
    assert_int_equal(s_fetch(f, &request), LADE_HTTP_ERROR);
    assert_int_equal(s_request_count(f), 11);
    json_decref(s_control(f, "DELETE", "faults", NULL));
    s_fault(f, "{\"path\": \"/files/small.json\", \"action\": \"redirect\", \"location\": "
               "\"file:///etc/passwd\"}");
    assert_int_equal(s_fetch(f, &request), LADE_UNSAFE_URL);
    assert_int_equal(s_names(f), 0);
}

static void
test_rate_limit_names_its_time_and_host(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "small.json", urls);
    s_fault(
        f,
        "{\"path\": \"*small*\", \"action\": \"rate_limit\", \"retry_after\": 17, \"count\": 1}");
    assert_int_equal(s_fetch(f, &request), LADE_RATE_LIMITED);
    assert_true(f->retry_after_s == 17);
    assert_string_equal(f->gate, "127.0.0.1");
    assert_int_equal(s_fetch(f, &request), LADE_RATE_LIMITED); // without a request
    assert_true(f->retry_after_s > 15 && f->retry_after_s <= 17);
    assert_int_equal(s_request_count(f), 1);
    lade_engine_destroy(&f->engine);
    s_new_engine(f);
    s_fault(
        f,
        "{\"path\": \"*small*\", \"action\": \"rate_limit\", \"retry_after\": 30, \"date\": true}");
    assert_int_equal(s_fetch(f, &request), LADE_RATE_LIMITED);
    assert_true(f->retry_after_s > 25 && f->retry_after_s <= 31);
}

static void
test_statuses_have_their_codes(void **state)
{
    s_fixture_t *f = *state;
    static const struct {
        int status;
        const char *more;
        lade_code_t code;
    } rows[] = {
        // clang-format off
        {401, "",                            LADE_AUTH_REQUIRED},
        {403, "",                            LADE_AUTH_DENIED},
        {403, ", \"code\": \"GatedRepo\"",   LADE_LICENSE_GATE},
        {404, "",                            LADE_NOT_FOUND},
        {410, "",                            LADE_NOT_FOUND},
        {418, "",                            LADE_HTTP_ERROR},
        {500, "",                            LADE_NETWORK},
        {503, "",                            LADE_NETWORK},
        {204, "",                            LADE_HTTP_ERROR},
        {503, ", \"retry_after\": 3",        LADE_RATE_LIMITED},
        // clang-format on
    };
    const char *urls[2];
    lade_request_t request = s_wanted(f, "small.json", urls);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char rule[256];
        snprintf(rule, sizeof rule, "{\"path\": \"*\", \"action\": \"status\", \"status\": %d%s}",
                 rows[i].status, rows[i].more);
        s_fault(f, rule);
        lade_code_t code = s_fetch(f, &request);
        if (code != rows[i].code)
            fail_msg("%d: %s (%s)", rows[i].status, lade_code_name(code), f->error.message);
        assert_int_equal(s_names(f), 0); // the body of an error is no file
        json_decref(s_control(f, "DELETE", "faults", NULL));
        lade_engine_destroy(&f->engine); // it remembers a host that asked to wait
        s_new_engine(f);
    }
}

static void
test_web_page_is_no_model(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fault(f, "{\"path\": \"*\", \"action\": \"html\"}");
    assert_int_equal(s_fetch(f, &request), LADE_NOT_A_MODEL);
    assert_int_equal(s_names(f), 0);
}

static void
test_encoded_body_is_refused(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fault(f, "{\"path\": \"*\", \"action\": \"gzip\"}");
    assert_int_equal(s_fetch(f, &request), LADE_HTTP_ERROR);
    assert_int_equal(s_names(f), 0);
}

static void
test_stalled_transfer_is_noticed_and_continued(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    s_fault(f, "{\"path\": \"*big*\", \"action\": \"stall\", \"bytes\": 1000000, \"count\": 1}");
    S_OK(f, s_fetch(f, &request));
    assert_true(s_request_count(f) >= 2);
    assert_string_equal(f->phases, "stalled resumed ");
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
}

static void
test_nobody_there(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2] = {"http://127.0.0.1:1/x.bin", NULL};
    lade_request_t request = s_wanted(f, "x", urls);
    urls[0] = "http://127.0.0.1:1/x.bin";
    assert_int_equal(s_fetch(f, &request), LADE_NETWORK);
    urls[0] = "http://name.invalid/x.bin";
    assert_int_equal(s_fetch(f, &request), LADE_NETWORK);
    assert_int_equal(s_names(f), 0);
}

static void
test_next_mirror_is_tried(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2], *mirrors[4];
    char missing[256];
    lade_request_t request = s_wanted(f, "small.json", urls);
    snprintf(missing, sizeof missing, "http://127.0.0.1:%d/files/missing.json", f->hub->port);
    mirrors[0] = "http://127.0.0.1:1/small.json";
    mirrors[1] = missing;
    mirrors[2] = f->url;
    mirrors[3] = NULL;
    request.urls = mirrors;
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "small.json", f->hub->small_sha256);
}

static void
test_next_mirror_goes_on_if_a_digest_can_tell(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2], *mirrors[3] = {NULL, NULL, NULL};
    char mirror[300];
    lade_request_t request = s_wanted(f, "big.safetensors", urls);
    snprintf(mirror, sizeof mirror, "%s?mirror", f->url);
    mirrors[0] = f->url;
    mirrors[1] = mirror;
    request.urls = mirrors;
    request.sha256 = f->hub->big_sha256;
    s_fault(f, "{\"path\": \"/files/*\", \"action\": \"close\", \"bytes\": 2000000, \"count\": 1}");
    s_fault(f, "{\"path\": \"/files/*\", \"action\": \"status\", \"status\": 404, \"count\": 1}");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "big.safetensors", f->hub->big_sha256);
    assert_true(f->resumed_from > 0);
    json_t *asked = s_request(f, -1, NULL);
    assert_int_equal(lade_json_int(asked, "status", 0), 206);
    json_decref(asked);
    lade_path_remove(f->path, NULL);
    request.sha256 = NULL; // nothing tells that both have the same file
    s_fault(f, "{\"path\": \"/files/*\", \"action\": \"close\", \"bytes\": 2000000, \"count\": 1}");
    s_fault(f, "{\"path\": \"/files/*\", \"action\": \"status\", \"status\": 404, \"count\": 1}");
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(f->resumed_from, 0);
}

static void
test_mirror_elsewhere_gets_no_token(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2], *mirrors[3] = {"http://127.0.0.1:1/small.json", NULL, NULL};
    lade_request_t request = s_wanted(f, "small.json", urls);
    mirrors[1] = f->url;
    request.urls = mirrors;
    request.access_token = "hf_good";
    S_OK(f, s_fetch(f, &request));
    json_t *asked = s_request(f, -1, NULL);
    assert_false(lade_json_bool(asked, "authorization", true));
    json_decref(asked);
}

// A server with a certificate of its own making; it prints its port.
static const char s_https[] =
    "import http.server, ssl, sys, os\n"
    "os.chdir(sys.argv[1] + '/files')\n"
    "server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n"
    "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
    "context.load_cert_chain(sys.argv[1] + '/cert.pem', sys.argv[1] + '/key.pem')\n"
    "server.socket = context.wrap_socket(server.socket, server_side=True)\n"
    "print(server.server_address[1], flush=True)\n"
    "server.serve_forever()\n";

static pid_t
s_start_https(s_hub_t *hub, int *port_p)
{
    char command[512];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
             "/CN=test "
             "-addext subjectAltName=IP:127.0.0.1 -keyout %s/key.pem -out %s/cert.pem 2>/dev/null",
             hub->root, hub->root);
    assert_int_equal(system(command), 0);
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        execl("/usr/bin/python3", "python3", "-c", s_https, hub->root, NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *line = fdopen(out[0], "r");
    assert_int_equal(fscanf(line, "%d", port_p), 1);
    fclose(line);
    return pid;
}

static void
test_certificates_are_checked(void **state)
{
    s_fixture_t *f = *state;
    int port;
    lade_engine_destroy(&f->engine); // no threads while we fork
    pid_t server = s_start_https(f->hub, &port);
    s_new_engine(f);
    char url[64], ca_file[128];
    const char *urls[2] = {url, NULL};
    lade_request_t request = s_wanted(f, "small.json", urls);
    snprintf(url, sizeof url, "https://127.0.0.1:%d/small.json", port);
    urls[0] = url;
    assert_int_equal(s_fetch(f, &request), LADE_HTTP_ERROR);
    assert_non_null(strstr(f->error.message, "ca_file"));
    assert_int_equal(s_names(f), 0);
    lade_engine_destroy(&f->engine);
    snprintf(ca_file, sizeof ca_file, "%s/cert.pem", f->hub->root);
    assert_int_equal(lade_config_set(&f->config, "download.ca_file", ca_file, NULL), LADE_OK);
    s_new_engine(f);
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "small.json", f->hub->small_sha256);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

int
main(void)
{
    setenv("no_proxy", "127.0.0.1", 1); // the hub is here, whatever the machine's proxy
    const struct CMUnitTest tests[] = {
        S_TEST(test_file_arrives_whole),
        S_TEST(test_empty_file_arrives),
        S_TEST(test_destination_names_the_file),
        S_TEST(test_wrong_requests_are_refused),
        S_TEST(test_paused_transfer_goes_on),
        S_TEST(test_cancelled_transfer_leaves_nothing),
        S_TEST(test_leaving_keeps_what_is_there),
        S_TEST(test_killed_worker_goes_on_from_its_last_checkpoint),
        S_TEST(test_killed_again_and_again),
        S_TEST(test_stopped_worker_never_writes_into_what_its_successor_publishes),
        S_TEST(test_earlier_attempt_had_published),
        S_TEST(test_name_that_is_taken),
        S_TEST(test_changed_file_is_fetched_anew),
        S_TEST(test_server_that_ignores_ranges),
        S_TEST(test_range_refused_is_fetched_anew),
        S_TEST(test_corrupt_kept_bytes_are_found_and_fetched_anew),
        S_TEST(test_short_body_is_continued),
        S_TEST(test_server_that_sends_nothing_any_more_is_given_up),
        S_TEST(test_wrong_digest_publishes_nothing),
        S_TEST(test_preserve_partial_keeps_it),
        S_TEST(test_wrong_size_publishes_nothing),
        S_TEST(test_token_does_not_cross_the_origin),
        S_TEST(test_redirects_have_an_end_and_stay_with_http),
        S_TEST(test_rate_limit_names_its_time_and_host),
        S_TEST(test_statuses_have_their_codes),
        S_TEST(test_web_page_is_no_model),
        S_TEST(test_encoded_body_is_refused),
        S_TEST(test_stalled_transfer_is_noticed_and_continued),
        S_TEST(test_nobody_there),
        S_TEST(test_next_mirror_is_tried),
        S_TEST(test_next_mirror_goes_on_if_a_digest_can_tell),
        S_TEST(test_mirror_elsewhere_gets_no_token),
        S_TEST(test_certificates_are_checked),
    };
    return cmocka_run_group_tests(tests, s_start_hub, s_stop_hub);
}
