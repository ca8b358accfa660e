// Events: their numbers, the journal and its replay, progress, and what each kind of jobs tells.
#include "broker/broker_test.h"

static json_t *
s_since(t_broker_t *t, int64_t seq, int limit)
{
    return t_call(t, "events", "since",
                  json_pack("{s:I, s:i}", "seq", (json_int_t)seq, "limit", limit));
}

static int64_t
s_seq(const json_t *page, size_t at)
{
    return lade_json_int(json_array_get(json_object_get(page, "events"), at), "seq", -1);
}

static void
test_replay_gives_what_was_told(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    for (int i = 0; i < 4; i++)
        t_done(t, "w", t_submit_kind(t, "k"), 1);
    json_t *page = s_since(t, 0, 1000);
    size_t count = json_array_size(json_object_get(page, "events"));
    assert_int_equal(count, 1 + 4 * 3);
    assert_int_equal(lade_json_int(page, "seq", 0), count);
    assert_false(lade_json_bool(page, "more", true));
    for (size_t i = 0, told = 0; i < t->count; i++) {
        if (t->sent[i].kind != LADE_SENT_EVENT ||
            lade_json_bool(t->sent[i].body, "progress", false))
            continue;
        assert_true(
            json_equal(t->sent[i].body, json_array_get(json_object_get(page, "events"), told)));
        assert_int_equal(lade_json_int(t->sent[i].body, "seq", 0), ++told);
    }
}

static void
test_replay_pages_and_filters(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    for (int i = 0; i < 4; i++)
        t_done(t, "w", t_submit_kind(t, "k"), 1);
    int64_t seq = 0, seen = 0;
    for (bool more = true; more;) {
        json_t *page = s_since(t, seq, 5);
        for (size_t i = 0; i < json_array_size(json_object_get(page, "events")); i++)
            assert_int_equal(s_seq(page, i), ++seen);
        seq = lade_json_int(page, "next", 0);
        more = lade_json_bool(page, "more", false);
    }
    assert_int_equal(seen, 13);
    json_t *page =
        t_call(t, "events", "since",
               json_pack("{s:i, s:[s, s]}", "seq", 3, "prefixes", "job_comp", "worker_"));
    assert_int_equal(json_array_size(json_object_get(page, "events")), 4);
    assert_int_equal(lade_json_int(page, "next", 0), 13);
    assert_int_equal(json_array_size(json_object_get(s_since(t, 13, 10), "events")), 0);
    assert_int_equal(json_array_size(json_object_get(s_since(t, 500, 10), "events")), 0);
    assert_string_equal(t_refused(t, "events", "since", json_object()), "ValueError");
    assert_string_equal(
        t_refused(t, "events", "since", json_pack("{s:i, s:[i]}", "seq", 1, "prefixes", 1)),
        "ValueError");
}

static void
test_numbers_go_on_after_a_restart(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    t_submit_kind(t, "k");
    assert_int_equal(t_events(t, "job_enqueued/1/", &event), 1);
    int64_t epoch = lade_json_int(event, "epoch", 0);
    t_restart(t);
    t_submit_kind(t, "k");
    assert_int_equal(t_events(t, "job_enqueued/2/", &event), 1);
    assert_int_equal(lade_json_int(event, "seq", 0), 2);
    assert_int_equal(lade_json_int(event, "epoch", 0), epoch + 1);
    assert_int_equal(s_seq(s_since(t, 0, 10), 0), 1);
}

static void
test_old_events_go_and_are_said_to_be_gone(void **state)
{
    t_broker_t *t = *state;
    t->config.journal_events = 100; // as the journal was opened with
    t_restart(t);
    t_hello(t, "w", "k", 1);
    for (int i = 0; i < 60; i++)
        t_done(t, "w", t_submit_kind(t, "k"), 1);
    assert_string_equal(t_refused(t, "events", "since", json_pack("{s:i}", "seq", 0)), "too_old");
    int64_t from = lade_json_int(t_call(t, "broker", "status", NULL), "journal_from", 0);
    assert_true(from > 1);
    json_t *all = t_call(t, "events", "since", json_pack("{s:I}", "seq", (json_int_t)from - 1));
    assert_int_equal(lade_json_int(json_array_get(json_object_get(all, "events"), 0), "seq", 0),
                     from);
    assert_string_equal(
        t_refused(t, "events", "since", json_pack("{s:I}", "seq", (json_int_t)from - 2)),
        "too_old");
    int64_t newest = lade_json_int(t_call(t, "events", "snapshot", NULL), "seq", 0);
    assert_int_equal(newest, 181);
    json_t *page = s_since(t, newest - 90, 1000);
    assert_int_equal(json_array_size(json_object_get(page, "events")), 90);
    t_restart(t);
    assert_string_equal(t_refused(t, "events", "since", json_pack("{s:i}", "seq", 20)), "too_old");
    assert_int_equal(json_array_size(json_object_get(s_since(t, newest - 90, 1000), "events")), 90);
}

static void
test_numbers_of_a_lost_turn_are_used_again(void **state)
{
    t_broker_t *t = *state;
    t_submit_kind(t, "k");
    lade_router_break_commits(t->router, 1);
    t_refused(t, "jobs", "submit", json_pack("{s:s}", "kind", "k"));
    t_submit_kind(t, "k");
    json_t *page = s_since(t, 0, 10);
    assert_int_equal(json_array_size(json_object_get(page, "events")), 2);
    assert_int_equal(s_seq(page, 1), 2);
    assert_int_equal(t_events(t, "job_enqueued/", NULL), 2);
}

static void
test_beat_is_not_journaled(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    t_submit_kind(t, "k");
    lade_router_skip(t->router, 1000);
    t_turn(t);
    assert_int_equal(t_events(t, "broker_beat/broker/", &event), 1);
    assert_true(lade_json_bool(event, "progress", false));
    assert_int_equal(lade_json_int(event, "seq", 0), 1);
    assert_int_equal(lade_json_int(event, "jobs", 0), 1);
    assert_int_equal(lade_json_int(s_since(t, 0, 10), "seq", 0), 1);
}

static void
test_snapshot_is_what_is_not_ended(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    t_submit_kind(t, "other");
    t_done(t, "w", id, 1);
    json_t *snapshot = t_call(t, "events", "snapshot", NULL);
    assert_int_equal(json_array_size(json_object_get(snapshot, "jobs")), 1);
    assert_int_equal(json_array_size(json_object_get(snapshot, "workers")), 1);
    assert_int_equal(lade_json_int(snapshot, "models", -1), 0);
}

// ---------------------------------------------------------------------------------------------------
// Progress

static int64_t
s_download(t_broker_t *t, const char *source, const char *destination)
{
    json_t *args = json_pack("{s:s, s:s}", "source", source, "destination", destination);
    return lade_json_int(t_call(t, "download", "create_download_job", args), "id", 0);
}

static void
s_progress(t_broker_t *t, int64_t id, int64_t bytes)
{
    t_feed(t, NULL, "w", LADE_W_PROGRESS,
           json_pack("{s:I, s:i, s:I, s:i}", "id", (json_int_t)id, "attempt", 1, "bytes",
                     (json_int_t)bytes, "total_bytes", 100000));
    t_turn(t);
}

static void
test_progress_is_coalesced(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    t_hello(t, "w", "download", 1);
    int64_t id = s_download(t, "http://h/a", "/tmp/a");
    size_t begun = t_events(t, "download_running/", NULL);
    assert_int_equal(begun, 1); // the change of state
    for (int i = 1; i <= 50; i++)
        s_progress(t, id, i * 1000);
    assert_int_equal(t_events(t, "download_running/", &event), 2);
    assert_int_equal(lade_json_int(event, "bytes", 0), 1000);
    assert_true(lade_json_bool(event, "progress", false));
    lade_router_skip(t->router, 150); // what was held back is told by itself
    t_turn(t);
    assert_int_equal(t_events(t, "download_running/", &event), 3);
    assert_int_equal(lade_json_int(event, "bytes", 0), 50000);
    lade_router_skip(t->router, 150);
    s_progress(t, id, 50500); // less than one in a hundred
    assert_int_equal(t_events(t, "download_running/", NULL), 3);
    s_progress(t, id, 51001);
    assert_int_equal(t_events(t, "download_running/", NULL), 4);
    assert_int_equal(lade_json_int(t_job(t, id), "bytes", 0), 51001);
}

// ---------------------------------------------------------------------------------------------------
// Surfaces

static void
test_download_tells_the_seeds_events(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    int64_t id = s_download(t, "http://h/a", "/tmp/a");
    assert_int_equal(t_events(t, "download_enqueued/1/", NULL), 1);
    t_hello(t, "w", "download", 1);
    t_call(t, "download", "pause_job", json_pack("{s:I}", "id", (json_int_t)id));
    assert_int_equal(t_events(t, "download_paused/1/", NULL), 1);
    t_fail(t, "w", id, 1, "paused");
    t_call(t, "download", "start_job", json_pack("{s:I}", "id", (json_int_t)id));
    t_report(t, "w", LADE_W_DONE, id, 2,
             json_pack("{s:{s:s, s:i}}", "result", "path", "/tmp/a", "bytes", 77));
    assert_int_equal(t_events(t, "download_completed/1/", &event), 1);
    assert_string_equal(lade_json_text(event, "download_path", ""), "/tmp/a");
    assert_int_equal(lade_json_int(event, "bytes", 0), 77);
    assert_int_equal(lade_json_int(event, "total_bytes", 0), 77);
    json_t *job = t_call(t, "download", "id_to_job", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(lade_json_text(job, "destination", ""), "/tmp/a");
    assert_string_equal(lade_json_text(job, "download_path", ""), "/tmp/a");
    assert_string_equal(
        t_refused(t, "install", "get_job_by_id", json_pack("{s:I}", "id", (json_int_t)id)),
        "UnknownJobID");
    assert_int_equal(t_events(t, "job_", NULL), 0);
}

static const char *
s_install_status(t_broker_t *t, int64_t id)
{
    json_t *job = t_call(t, "install", "get_job_by_id", json_pack("{s:I}", "id", (json_int_t)id));
    return lade_json_text(job, "status", "");
}

static json_t *
s_record(const char *key, const char *path)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "key", key, "name", "m", "type", "vae",
                     "base", "sd-1", "format", "checkpoint", "path", path, "hash", "h");
}

#define S_KEY "0123456789abcdef0123456789abcdef"

static void
test_install_shows_the_seeds_statuses(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    t_hello(t, "w", "install", 1);
    json_t *args =
        json_pack("{s:s, s:{s:s}, s:b}", "source", "a/b", "config", "name", "m", "inplace", 0);
    int64_t id = lade_json_int(t_call(t, "install", "heuristic_import", args), "id", 0);
    assert_string_equal(s_install_status(t, id), "waiting");
    assert_string_equal(t_status(t, id), "running");
    t_report(t, "w", LADE_W_AWAIT, id, 1,
             json_pack("{s:{}, s:[{s:s, s:s, s:{s:s}}, {s:s, s:s}], s:i, s:s}", "state", "jobs",
                       "kind", "download", "source", "http://h/a", "spec", "destination", "/tmp/a",
                       "kind", "download", "source", "http://h/b", "total_bytes", 300, "local_path",
                       "/tmp/x"));
    assert_string_equal(s_install_status(t, id), "downloading");
    assert_int_equal(t_events(t, "model_install_downloading/1/", &event), 1);
    assert_int_equal(lade_json_int(event, "total_bytes", 0), 300);
    assert_int_equal(json_array_size(json_object_get(event, "parts")), 2);
    t_hello(t, "d", "download", 2);
    t_report(t, "d", LADE_W_PROGRESS, id + 1, 1,
             json_pack("{s:i, s:i, s:s}", "bytes", 50, "total_bytes", 100, "local_path", "/tmp/a"));
    assert_int_equal(t_events(t, "model_install_downloading/1/", &event), 2);
    assert_true(lade_json_bool(event, "progress", false));
    assert_int_equal(lade_json_int(event, "bytes", 0), 50);
    json_t *part = json_array_get(json_object_get(event, "parts"), 0);
    assert_string_equal(lade_json_text(part, "source", ""), "http://h/a");
    assert_string_equal(lade_json_text(part, "local_path", ""), "/tmp/a");
    t_report(t, "d", LADE_W_DONE, id + 1, 1, json_pack("{s:{s:i}}", "result", "bytes", 100));
    t_report(t, "d", LADE_W_DONE, id + 2, 1, json_pack("{s:{s:i}}", "result", "bytes", 200));
    assert_string_equal(s_install_status(t, id), "downloading");
    t_report(t, "w", LADE_W_PROGRESS, id, 2, json_pack("{s:s}", "phase", "installing"));
    assert_string_equal(s_install_status(t, id), "running");
    assert_int_equal(t_events(t, "model_install_running/1/", NULL), 1);
    // The step of putting it in place is a checkpoint that nobody sees.
    t_report(t, "w", LADE_W_AWAIT, id, 2, json_pack("{s:{s:i}, s:[]}", "state", "step", 1, "jobs"));
    t_restart(t);
    t_hello(t, "w", "install", 1);
    t_report(t, "w", LADE_W_PROGRESS, id, 4, json_pack("{s:s}", "phase", "installing"));
    t_report(t, "w", LADE_W_DONE, id, 4,
             json_pack("{s:{}, s:[{s:s, s:o}]}", "result", "effects", "op", "put_model", "model",
                       s_record(S_KEY, "sd-1/vae/m.safetensors")));
    assert_int_equal(t_events(t, "model_install_completed/1/", &event), 1);
    assert_string_equal(lade_json_text(event, "key", ""), S_KEY);
    assert_int_equal(lade_json_int(event, "total_bytes", 0), 300);
    assert_int_equal(t_events(t, "model_record_added/" S_KEY "/", &event), 1);
    assert_string_equal(lade_json_text(event, "type", ""), "vae");
    json_t *job = t_call(t, "install", "get_job_by_id", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(lade_json_text(json_object_get(job, "config_out"), "key", ""), S_KEY);
    assert_string_equal(lade_json_text(json_object_get(job, "config_in"), "name", ""), "m");
    assert_int_equal(json_array_size(t_call(t, "install", "get_job_by_source",
                                            json_pack("{s:s}", "source", "a/b"))),
                     1);
}

static void
test_local_install_tells_running_and_completed(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "install", 1);
    json_t *args =
        json_pack("{s:{s:s, s:s}, s:b}", "source", "type", "local", "path", "/m/x", "inplace", 1);
    json_t *job = t_call(t, "install", "import_model", args);
    assert_string_equal(lade_json_text(job, "source", ""), "/m/x");
    assert_true(lade_json_bool(job, "inplace", false));
    t_done(t, "w", 1, 1);
    assert_int_equal(t_events(t, "model_install_running/1/", NULL), 1);
    assert_int_equal(t_events(t, "model_install_completed/1/", NULL), 1);
    assert_int_equal(t_events(t, "model_install_", NULL), 2);
}

static void
test_failed_and_cancelled_installs_tell_so(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    t_hello(t, "w", "install", 1);
    t_call(t, "install", "heuristic_import", json_pack("{s:s}", "source", "a"));
    t_fail(t, "w", 1, 1, "InvalidModelConfig");
    assert_int_equal(t_events(t, "model_install_error/1/", &event), 1);
    assert_string_equal(lade_json_text(event, "error_type", ""), "InvalidModelConfig");
    t_call(t, "install", "heuristic_import", json_pack("{s:s}", "source", "b"));
    t_call(t, "install", "cancel_job", json_pack("{s:i}", "id", 2));
    assert_int_equal(t_events(t, "model_install_cancelled/2/", NULL), 1);
    assert_int_equal(json_array_size(t_call(t, "install", "wait_for_installs", NULL)), 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T_TEST(test_replay_gives_what_was_told),
        T_TEST(test_replay_pages_and_filters),
        T_TEST(test_numbers_go_on_after_a_restart),
        T_TEST(test_old_events_go_and_are_said_to_be_gone),
        T_TEST(test_numbers_of_a_lost_turn_are_used_again),
        T_TEST(test_beat_is_not_journaled),
        T_TEST(test_snapshot_is_what_is_not_ended),
        T_TEST(test_progress_is_coalesced),
        T_TEST(test_download_tells_the_seeds_events),
        T_TEST(test_install_shows_the_seeds_statuses),
        T_TEST(test_local_install_tells_running_and_completed),
        T_TEST(test_failed_and_cancelled_installs_tell_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
