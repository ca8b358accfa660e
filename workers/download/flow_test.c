// The engine, many connections at a time: a large file in ranges, and what servers, farms and kills
// do to it.
#include "workers/download/engine_fixture.h"

enum { S_LARGE = 24 << 20, S_FIRST = 4 << 20, S_MIB = 1 << 20 };

static int
s_start(void **state)
{
    s_start_hub(state);
    s_hub_t *hub = *state;
    char folder[128];
    s_make_file(hub->root, "large.safetensors", S_LARGE, 11, hub->large_sha256);
    s_make_file(hub->root, "other.safetensors", S_LARGE, 12, hub->other_sha256);
    static const char *const folders[] = {"repos", "repos/org", "repos/org/name"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(folder, sizeof folder, "%s/%s", hub->root, folders[i]);
        assert_int_equal(mkdir(folder, 0755), 0);
    }
    char file[160], name[160];
    snprintf(file, sizeof file, "%s/files/large.safetensors", hub->root);
    snprintf(name, sizeof name, "%s/large.safetensors", folder);
    assert_int_equal(link(file, name), 0);
    return 0;
}

// Another setting, for a new engine.
static void
s_configure(s_fixture_t *f, const char *name, const char *value)
{
    lade_engine_destroy(&f->engine);
    assert_int_equal(lade_config_set(&f->config, name, value, NULL), LADE_OK);
    s_new_engine(f);
}

static lade_request_t
s_wanted_large(s_fixture_t *f, const char **urls)
{
    lade_request_t request = s_wanted(f, "large.safetensors", urls);
    request.size = S_LARGE;
    return request;
}

static void
s_forget_log(s_fixture_t *f)
{
    json_decref(s_control(f, "DELETE", "log", NULL));
}

// Waits until so many bytes were told, which may be less than it has.
static void
s_wait_told(s_fixture_t *f, int64_t bytes)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += S_DEADLINE_S;
    pthread_mutex_lock(&f->lock);
    while (f->told < bytes && !f->ended)
        if (pthread_cond_timedwait(&f->news, &f->lock, &until) != 0)
            fail_msg("%" PRId64 " of %" PRId64 " bytes came, and no more", f->told, bytes);
    pthread_mutex_unlock(&f->lock);
}

// ---------------------------------------------------------------------------------------------------
// What the hub saw

typedef struct {
    size_t requests, parts; // in all; those answered 206
    int64_t asked;          // bytes of the ranges of these
    bool ordered;           // from the front, but for what is asked for at the same time
    bool apart;             // no byte was asked for twice
    int64_t connections;    // to the hub, at most at once
} s_seen_t;

// Whether a range comes after all that were not asked for at the same time.
static bool
s_is_in_order(const json_t *requests, size_t self, long long from, size_t together)
{
    for (size_t i = 0; i + together <= self; i++) {
        long long first;
        json_t *other = json_array_get(requests, i);
        if (sscanf(lade_json_text(other, "range", ""), "bytes=%lld-", &first) == 1 && first > from)
            return false;
    }
    return true;
}

static bool
s_is_apart(const json_t *requests, size_t self, long long from, long long to)
{
    for (size_t i = 0; i < self; i++) {
        long long first, last;
        json_t *other = json_array_get(requests, i);
        if (lade_json_int(other, "status", 0) == 206 &&
            sscanf(lade_json_text(other, "range", ""), "bytes=%lld-%lld", &first, &last) == 2 &&
            first <= to && from <= last)
            return false;
    }
    return true;
}

static s_seen_t
s_look(s_fixture_t *f)
{
    json_t *log = s_control(f, "GET", "log", NULL), *requests = json_object_get(log, "requests");
    json_t *hub = json_object_get(json_object_get(log, "connections"), "hub");
    s_seen_t seen = {.requests = json_array_size(requests),
                     .ordered = true,
                     .apart = true,
                     .connections = lade_json_int(hub, "max", 0)};
    long long from, to;
    for (size_t i = 0; i < seen.requests; i++) {
        json_t *request = json_array_get(requests, i);
        if (lade_json_int(request, "status", 0) != 206 ||
            sscanf(lade_json_text(request, "range", ""), "bytes=%lld-%lld", &from, &to) != 2)
            continue;
        seen.parts++;
        seen.asked += to + 1 - from;
        seen.ordered &= s_is_in_order(requests, i, from, (size_t)seen.connections);
        seen.apart &= s_is_apart(requests, i, from, to);
    }
    json_decref(log);
    return seen;
}

static int64_t
s_open_connections(s_fixture_t *f)
{
    json_t *totals = s_control(f, "GET", "totals", NULL);
    json_t *hub = json_object_get(json_object_get(totals, "connections"), "hub");
    int64_t open = lade_json_int(hub, "open", 0);
    json_decref(totals);
    return open;
}

// Asks the hub until so many connections are open to it.
static void
s_wait_connections(s_fixture_t *f, int64_t connections)
{
    int64_t until_ms = zclock_mono() + S_DEADLINE_S * 1000;
    while (s_open_connections(f) < connections)
        if (zclock_mono() > until_ms)
            fail_msg("there are not %" PRId64 " connections", connections);
}

// Ranges that the journal names; 0 if there is none.
static size_t
s_journal_ranges(s_fixture_t *f)
{
    char path[256], *text;
    size_t len, count = 0;
    snprintf(path, sizeof path, "%s/.large.safetensors.7.journal", f->folder);
    if (lade_path_read(path, 1 << 20, &text, &len, NULL))
        return 0;
    json_t *map = json_loadb(text, len, 0, NULL);
    count = json_array_size(json_object_get(map, "ranges"));
    json_decref(map);
    free(text);
    return count;
}

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
// Kills, pauses, leaving

static void
test_killed_at_several_moments(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    request.sha256 = f->hub->large_sha256;
    static const int mib[] = {1, 5, 9, 14, 19, 22};
    // What is written and not durable, and what is on its way to the disk over each connection.
    const int64_t lost = (f->config.checkpoint_mb + 2 * 4) * S_MIB;
    s_throttle(f, 6 * S_MIB);
    for (size_t i = 0; i < sizeof mib / sizeof *mib; i++) {
        int64_t told = s_kill_at(f, &request, (int64_t)mib[i] * S_MIB);
        request.attempt++;
        s_throttle(f, 6 * S_MIB);
        s_forget_log(f);
        s_begin(f, &request);
        s_wait_told(f, 1);
        lade_engine_stop(f->engine, f->ticket, LADE_ENGINE_PAUSE);
        assert_int_equal(s_wait(f), LADE_PAUSED);
        if (f->resumed_from < told - lost)
            fail_msg("%" PRId64 " of %" PRId64 " bytes were kept", f->resumed_from, told);
        request.attempt++;
    }
    s_throttle(f, 0);
    s_forget_log(f);
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    s_seen_t seen = s_look(f);
    assert_int_equal(seen.asked, S_LARGE - f->resumed_from); // only what was missing
    assert_true(seen.ordered && seen.apart);
}

// Stops it when a range in the middle is missing, and leaves more than one range behind.
static void
s_stop_with_a_hole(s_fixture_t *f, const lade_request_t *request, lade_engine_stop_t how,
                   lade_code_t code)
{
    s_fault(f, "{\"path\": \"*large*\", \"from\": 4194304, \"action\": \"stall\", "
               "\"bytes\": 300000, \"count\": 1}");
    s_begin(f, request);
    s_wait_told(f, 12 * S_MIB);
    lade_engine_stop(f->engine, f->ticket, how);
    assert_int_equal(s_wait(f), code);
    json_decref(s_control(f, "DELETE", "faults", NULL));
    s_forget_log(f);
}

static void
test_paused_with_a_hole_goes_on(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_throttle(f, 12 * S_MIB);
    s_stop_with_a_hole(f, &request, LADE_ENGINE_PAUSE, LADE_PAUSED);
    assert_true(s_journal_ranges(f) >= 2);
    assert_false(s_there(f, "large.safetensors"));
    request.attempt = 2;
    S_OK(f, s_fetch(f, &request));
    assert_true(f->resumed_from >= 12 * S_MIB);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    s_seen_t seen = s_look(f);
    assert_int_equal(seen.asked, S_LARGE - f->resumed_from);
    assert_true(seen.apart);
}

// The broker gave the job out anew, to the worker that has it still: nothing that came is lost.
static void
test_later_attempt_in_the_same_worker_begins_where_the_earlier_ends(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_throttle(f, 8 * S_MIB);
    s_begin(f, &request);
    s_wait_told(f, 6 * S_MIB);
    request.attempt = 2;
    s_begin(f, &request);
    assert_int_equal(s_wait(f), LADE_STALE_LEASE); // the earlier one's end
    int64_t kept = f->bytes;
    f->ended = false;
    s_throttle(f, 0);
    S_OK(f, s_wait(f));
    assert_true(kept >= 6 * S_MIB);
    assert_int_equal(f->resumed_from, kept);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

static void
test_cancelled_with_several_connections_leaves_nothing(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_throttle(f, 12 * S_MIB);
    s_stop_with_a_hole(f, &request, LADE_ENGINE_CANCEL, LADE_CANCELLED);
    assert_int_equal(s_names(f), 0);
}

static void
test_engine_ends_in_the_middle(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    static const int mib[] = {0, 6, 13};
    s_throttle(f, 12 * S_MIB);
    for (size_t i = 0; i < sizeof mib / sizeof *mib; i++, request.attempt++) {
        f->told = 0;
        s_begin(f, &request);
        s_wait_told(f, (int64_t)mib[i] * S_MIB);
        lade_engine_destroy(&f->engine);
        assert_true(f->ended);
        assert_int_equal(f->error.code, LADE_STALE_LEASE);
        assert_false(s_there(f, "large.safetensors"));
        s_new_engine(f);
    }
    s_throttle(f, 0);
    s_forget_log(f);
    S_OK(f, s_fetch(f, &request));
    assert_true(f->resumed_from >= 12 * S_MIB);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    assert_int_equal(s_look(f).asked, S_LARGE - f->resumed_from);
}

static size_t
s_descriptors(void)
{
    size_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

// One way to end an attempt, at a moment of chance.
static void
s_stop_somehow(s_fixture_t *f, unsigned *seed)
{
    s_wait_told(f, rand_r(seed) % S_LARGE);
    switch (rand_r(seed) % 4) {
    case 0:
        lade_engine_destroy(&f->engine);
        s_new_engine(f);
        return;
    case 1:
        lade_engine_set_terms(f->engine, f->ticket, 1 + rand_r(seed) % 3, 0, 0);
        break;
    case 2:
        lade_engine_stop(f->engine, f->ticket, LADE_ENGINE_CANCEL);
        return;
    }
    lade_engine_stop(f->engine, f->ticket, LADE_ENGINE_PAUSE);
}

static void
test_any_order_of_faults_and_stops(void **state)
{
    s_fixture_t *f = *state;
    static const char *const actions[] = {
        "\"close\", \"bytes\": 900000",      "\"close\", \"bytes\": 0",
        "\"hangup\", \"reset\": true",       "\"stall\", \"bytes\": 0",
        "\"range_most\", \"bytes\": 300000", "\"status\", \"status\": 500",
        "\"drip\", \"bytes_per_s\": 500000", "\"ignore_range\"",
        "\"slow_start\", \"seconds\": 0.3",  "\"unsatisfiable\"",
    };
    const char *urls[2];
    unsigned seed = 12;
    lade_engine_destroy(&f->engine);
    size_t descriptors = s_descriptors();
    s_configure(f, "download.buffer_mb", "8");
    s_configure(f, "download.stall_s", "1");
    lade_request_t request = s_wanted_large(f, urls);
    request.sha256 = f->hub->large_sha256;
    for (int round = 0; round < 16; round++, request.attempt++) {
        char rule[256];
        snprintf(rule, sizeof rule,
                 "{\"path\": \"*large*\", \"skip\": %d, \"count\": %d, \"action\": %s}",
                 rand_r(&seed) % 4, 1 + rand_r(&seed) % 3,
                 actions[(size_t)rand_r(&seed) % (sizeof actions / sizeof *actions)]);
        s_fault(f, rule);
        f->told = 0;
        s_begin(f, &request);
        s_stop_somehow(f, &seed);
        lade_code_t code = s_wait(f);
        if (code == LADE_OK)
            s_check_file(f, "large.safetensors", f->hub->large_sha256);
        if (code == LADE_OK || code == LADE_CANCELLED)
            lade_path_remove(f->path, NULL);
        assert_true(s_names(f) <= (code == LADE_CANCELLED || code == LADE_OK ? 0 : 2));
        json_decref(s_control(f, "DELETE", "faults", NULL));
    }
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    lade_engine_destroy(&f->engine);
    assert_int_equal(s_descriptors(), descriptors);
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

// ---------------------------------------------------------------------------------------------------
// Servers that want less

static void
test_server_that_refuses_more_connections(void **state)
{
    s_fixture_t *f = *state;
    static const char *const actions[] = {
        "\"status\", \"status\": 503", "\"status\", \"status\": 429", "\"hangup\"",
        "\"hangup\", \"reset\": true", "\"close\", \"bytes\": 0",
    };
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        char rule[256];
        snprintf(rule, sizeof rule,
                 "{\"path\": \"*large*\", \"from\": 1, \"action\": %s, \"count\": 3}", actions[i]);
        s_fault(f, rule);
        s_throttle(f, 8 * S_MIB); // the first request is still out when the others are refused
        s_begin(f, &request);
        s_wait_told(f, S_FIRST);
        s_throttle(f, 0);
        if (s_wait(f))
            fail_msg("%s: %s", actions[i], f->error.message);
        s_check_file(f, "large.safetensors", f->hub->large_sha256);
        lade_path_remove(f->path, NULL);
        json_decref(s_control(f, "DELETE", "faults", NULL));
        f->told = 0;
    }
}

// One that says for how long: no request is made meanwhile, the others of the farm have to know at
// once, and what it is sending is taken to its end.
static void
test_server_that_refuses_more_connections_for_a_time(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_throttle(f, 8 * S_MIB);
    s_fault(f, "{\"path\": \"*large*\", \"from\": 1, \"action\": \"rate_limit\", "
               "\"retry_after\": 1, \"count\": 1}");
    S_OK(f, s_fetch(f, &request));
    assert_string_equal(f->gate, "127.0.0.1");
    assert_true(f->gate_s == 1);
    assert_int_equal(s_look(f).asked, S_LARGE); // no byte of it twice
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

static void
test_server_that_refuses_more_connections_for_long(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_throttle(f, 8 * S_MIB);
    s_fault(f, "{\"path\": \"*large*\", \"from\": 1, \"action\": \"rate_limit\", "
               "\"retry_after\": 60}");
    assert_int_equal(s_fetch(f, &request), LADE_RATE_LIMITED);
    assert_true(f->gate_s == 60 && f->retry_after_s > 50 && f->retry_after_s < 60);
    int64_t kept = f->bytes;
    assert_true(kept >= S_FIRST); // what was out came to its end
    s_throttle(f, 0);
    json_decref(s_control(f, "DELETE", "faults", NULL));
    lade_engine_destroy(&f->engine); // another worker, later
    s_new_engine(f);
    s_forget_log(f);
    request.attempt = 2;
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(f->resumed_from, kept);
    assert_int_equal(s_look(f).asked, S_LARGE - kept);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

// What a repository's file is redirected to is asked for the next ranges, until it has run out.
static void
test_redirect_target_is_used_until_it_runs_out(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%d/org/name/resolve/main/large.safetensors",
             f->hub->port);
    for (int uses = 0; uses <= 5; uses += 5) {
        char body[128];
        snprintf(body, sizeof body, "{\"repo\": \"org/name\", \"url_uses\": %d}", uses);
        if (uses)
            json_decref(s_control(f, "POST", "repos", body));
        s_forget_log(f);
        S_OK(f, s_fetch(f, &request));
        s_check_file(f, "large.safetensors", f->hub->large_sha256);
        lade_path_remove(f->path, NULL);
        json_t *log = s_control(f, "GET", "log", NULL);
        json_t *list = json_object_get(log, "requests"), *one;
        size_t at, asked = 0, redirected = 0, refused = 0;
        json_array_foreach(list, at, one)
        {
            asked += lade_json_int(one, "status", 0) == 206;
            redirected += lade_json_int(one, "status", 0) == 302;
            refused += lade_json_int(one, "status", 0) == 403;
        }
        assert_true(redirected < asked);
        assert_int_equal(refused > 0, uses > 0);
        json_decref(log);
        s_seen_t seen = s_look(f);
        assert_int_equal(seen.asked, S_LARGE);
        assert_true(seen.apart);
    }
}

static void
s_add_origin(s_fixture_t *f, const char *name)
{
    char body[96];
    snprintf(body, sizeof body, "{\"kind\": \"plain\", \"name\": \"%s\"}", name);
    json_decref(s_control(f, "POST", "origins", body));
}

// The server that the URL leads to goes away: the URL is asked again, and leads to another one.
static void
test_redirect_target_that_goes_away(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_add_origin(f, "one");
    s_add_origin(f, "two");
    s_fault(f, "[{\"path\": \"/files/large*\", \"origin\": \"hub\", \"action\": \"redirect\", "
               "\"count\": 4, \"location\": \"{one}/files/large.safetensors\"}, "
               "{\"path\": \"/files/large*\", \"origin\": \"hub\", \"action\": \"redirect\", "
               "\"location\": \"{two}/files/large.safetensors\"}, "
               "{\"path\": \"/files/large*\", \"origin\": \"one\", \"action\": \"hangup\", "
               "\"skip\": 4}]");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    assert_int_equal(s_look(f).asked, S_LARGE);
}

// What one mirror has sent, with holes, is gone on from by the next.
static void
test_next_mirror_fills_the_holes(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2], *mirrors[3] = {NULL, NULL, NULL};
    lade_request_t request = s_wanted_large(f, urls);
    request.sha256 = f->hub->large_sha256;
    char mirror[256];
    json_t *origin = s_control(f, "POST", "origins", "{\"kind\": \"plain\", \"name\": \"mirror\"}");
    snprintf(mirror, sizeof mirror, "%s/files/large.safetensors",
             lade_json_text(origin, "url", ""));
    json_decref(origin);
    mirrors[0] = f->url;
    mirrors[1] = mirror;
    request.urls = mirrors;
    s_fault(f, "[{\"path\": \"*large*\", \"origin\": \"hub\", \"from\": 4194304, \"action\": "
               "\"close\", \"bytes\": 300000, \"count\": 2}, {\"path\": \"*large*\", \"origin\": "
               "\"hub\", \"action\": \"status\", \"status\": 404, \"skip\": 3}]");
    S_OK(f, s_fetch(f, &request));
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
    assert_true(f->resumed_from > S_FIRST);
    assert_string_equal(f->final_url, mirror);
}

// ---------------------------------------------------------------------------------------------------
// Terms of the farm

static void
s_wait_confirmed(s_fixture_t *f, int64_t connections)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += S_DEADLINE_S;
    pthread_mutex_lock(&f->lock);
    while (f->confirmed != connections && !f->ended)
        if (pthread_cond_timedwait(&f->news, &f->lock, &until) != 0)
            fail_msg("%" PRId64 " connections are not confirmed", connections);
    assert_int_equal(f->confirmed, connections);
    pthread_mutex_unlock(&f->lock);
}

static void
test_fewer_connections_are_confirmed_and_kept_to(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_throttle(f, 3 * S_MIB);
    s_begin(f, &request);
    s_wait_connections(f, 4);
    lade_engine_set_terms(f->engine, f->ticket, 2, 0, 0);
    s_wait_confirmed(f, 2);
    s_forget_log(f); // counts from here what is open
    lade_engine_set_terms(f->engine, f->ticket, 1, 0, 0);
    s_wait_confirmed(f, 1);
    assert_true(s_look(f).connections <= 2);
    s_forget_log(f);
    s_wait_told(f, 8 * S_MIB);
    assert_int_equal(s_look(f).connections, 1);
    lade_engine_set_terms(f->engine, f->ticket, 0, 0, 0); // more need no word
    s_wait_connections(f, 4);
    s_throttle(f, 0);
    S_OK(f, s_wait(f));
    assert_int_equal(f->confirmed, 1);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

static void
test_connections_of_the_request(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    request.connections = 2;
    s_throttle(f, 12 * S_MIB);
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(s_look(f).connections, 2);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

// One connection; its first range takes more than a second, then it waits for the farm.
static void
test_short_hold_is_waited_for(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    request.connections = 1;
    s_throttle(f, 3 * S_MIB);
    s_begin(f, &request);
    s_wait_told(f, 1);
    double begun = lade_now();
    lade_engine_set_terms(f->engine, f->ticket, 1, 0, 1.9);
    s_wait_told(f, S_FIRST);
    s_throttle(f, 0);
    S_OK(f, s_wait(f));
    json_t *second = s_request(f, 1, NULL);
    assert_true(json_number_value(json_object_get(second, "started")) >= begun + 1.85);
    json_decref(second);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
}

// What is out comes to its end, nothing new is begun, and what came is kept.
static void
test_long_hold_is_given_back(void **state)
{
    s_fixture_t *f = *state;
    const char *urls[2];
    lade_request_t request = s_wanted_large(f, urls);
    s_throttle(f, 8 * S_MIB);
    s_begin(f, &request);
    s_wait_told(f, 5 * S_MIB);
    lade_engine_set_terms(f->engine, f->ticket, 0, 0, 60);
    assert_int_equal(s_wait(f), LADE_RATE_LIMITED);
    assert_true(f->retry_after_s < 0); // the gate is the farm's, and may open earlier
    s_seen_t seen = s_look(f);
    assert_int_equal(f->bytes, seen.asked);
    assert_true(seen.asked < S_LARGE);
    int64_t kept = f->bytes;
    s_throttle(f, 0);
    s_forget_log(f);
    request.attempt = 2;
    S_OK(f, s_fetch(f, &request));
    assert_int_equal(f->resumed_from, kept);
    assert_int_equal(s_look(f).asked, S_LARGE - kept);
    s_check_file(f, "large.safetensors", f->hub->large_sha256);
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
        S_TEST(test_killed_at_several_moments),
        S_TEST(test_paused_with_a_hole_goes_on),
        S_TEST(test_later_attempt_in_the_same_worker_begins_where_the_earlier_ends),
        S_TEST(test_cancelled_with_several_connections_leaves_nothing),
        S_TEST(test_engine_ends_in_the_middle),
        S_TEST(test_any_order_of_faults_and_stops),
        S_TEST(test_version_changes_between_ranges),
        S_TEST(test_version_changes_and_the_digest_is_of_the_old_one),
        S_TEST(test_version_that_changes_with_each_answer),
        S_TEST(test_if_range_that_is_not_liked),
        S_TEST(test_weak_versions_come_in_one_answer),
        S_TEST(test_server_that_refuses_more_connections),
        S_TEST(test_server_that_refuses_more_connections_for_a_time),
        S_TEST(test_server_that_refuses_more_connections_for_long),
        S_TEST(test_redirect_target_is_used_until_it_runs_out),
        S_TEST(test_redirect_target_that_goes_away),
        S_TEST(test_next_mirror_fills_the_holes),
        S_TEST(test_fewer_connections_are_confirmed_and_kept_to),
        S_TEST(test_connections_of_the_request),
        S_TEST(test_short_hold_is_waited_for),
        S_TEST(test_long_hold_is_given_back),
    };
    return cmocka_run_group_tests(tests, s_start, s_stop_hub);
}
