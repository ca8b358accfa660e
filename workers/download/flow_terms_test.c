// The engine, many connections at a time: servers that want less, and the terms of the farm.
#include "workers/download/flow_fixture.h"

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
