// The engine, many connections at a time: kills, pauses, leaving.
#include "workers/download/flow_fixture.h"

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

int
main(void)
{
    setenv("no_proxy", "127.0.0.1", 1); // the hub is here, whatever the machine's proxy
    const struct CMUnitTest tests[] = {
        S_TEST(test_killed_at_several_moments),
        S_TEST(test_paused_with_a_hole_goes_on),
        S_TEST(test_later_attempt_in_the_same_worker_begins_where_the_earlier_ends),
        S_TEST(test_cancelled_with_several_connections_leaves_nothing),
        S_TEST(test_engine_ends_in_the_middle),
        S_TEST(test_any_order_of_faults_and_stops),
    };
    return cmocka_run_group_tests(tests, s_start, s_stop_hub);
}
