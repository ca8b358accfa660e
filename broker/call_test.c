// Requests and their effects on records: the services of models and loads, effects of DONE, and
// bytes that are no request.
#include "broker/broker_test.h"

#define S_KEY "0123456789abcdef0123456789abcdef"
#define S_KEY2 "fedcba9876543210fedcba9876543210"

static json_t *
s_record(const char *key, const char *path)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "key", key, "name", "m", "type", "vae",
                     "base", "sd-1", "format", "checkpoint", "path", path, "hash", "h");
}

static json_t *
s_put(const char *key, const char *path)
{
    return json_pack("{s:s, s:o}", "op", "put_model", "model", s_record(key, path));
}

static size_t
s_models(t_broker_t *t)
{
    return json_array_size(t_call(t, "store", "all_models", NULL));
}

static void
test_effects_are_all_or_none(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    // The second has the path of the first.
    t_report(t, "w", LADE_W_DONE, id, 1,
             json_pack("{s:[o, o]}", "effects", s_put(S_KEY, "a"), s_put(S_KEY2, "a")));
    json_t *job = t_job(t, id);
    assert_string_equal(lade_json_text(job, "status", ""), "error");
    assert_string_equal(lade_json_text(job, "error_type", ""), "DuplicateModel");
    assert_int_equal(s_models(t), 0);
    assert_int_equal(t_events(t, "model_record_", NULL), 0);
    id = t_submit_kind(t, "k");
    t_report(t, "w", LADE_W_DONE, id, 1,
             json_pack("{s:[o, o]}", "effects", s_put(S_KEY, "a"), s_put(S_KEY2, "b")));
    assert_string_equal(t_status(t, id), "completed");
    assert_int_equal(s_models(t), 2);
    id = t_submit_kind(t, "k");
    t_report(t, "w", LADE_W_DONE, id, 1,
             json_pack("{s:[{s:s, s:s}, {s:s, s:s, s:{s:s}}, {s:s, s:s}]}", "effects", "op",
                       "del_model", "key", S_KEY, "op", "update_model", "key", S_KEY2, "changes",
                       "name", "n", "op", "del_model", "key", "not there"));
    assert_string_equal(t_status(t, id), "completed");
    assert_int_equal(s_models(t), 1);
    assert_int_equal(t_events(t, "model_record_deleted/" S_KEY "/", NULL), 1);
    assert_int_equal(t_events(t, "model_record_updated/" S_KEY2 "/", NULL), 1);
}

// What was done for a record that is gone is taken back by whoever did it.
static void
test_a_record_that_has_to_be_there(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    t_report(t, "w", LADE_W_DONE, id, 1, json_pack("{s:[o]}", "effects", s_put(S_KEY, "a")));
    id = t_submit_kind(t, "k");
    t_report(t, "w", LADE_W_DONE, id, 1,
             json_pack("{s:[{s:s, s:s}]}", "effects", "op", "need_model", "key", S_KEY));
    assert_string_equal(t_status(t, id), "completed");
    id = t_submit_kind(t, "k");
    t_report(t, "w", LADE_W_DONE, id, 1,
             json_pack("{s:[{s:s, s:s}]}", "effects", "op", "need_model", "key", "nobody"));
    assert_string_equal(t_status(t, id), "error");
    assert_string_equal(lade_json_text(t_job(t, id), "error_type", ""), "UnknownModel");
    assert_int_equal(t_events(t, "model_record_", NULL), 1);
}

// What came before in the same turn is not lost with effects that fail.
static void
test_failed_effects_spare_the_rest_of_the_turn(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    int64_t request =
        t_send(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "a")));
    t_report(t, "w", LADE_W_DONE, id, 1,
             json_pack("{s:[o, o]}", "effects", s_put(S_KEY2, "b"), s_put(S_KEY, "c")));
    assert_true(lade_json_bool(t_answer(t, request), "ok", false));
    assert_string_equal(t_status(t, id), "error");
    assert_int_equal(s_models(t), 1);
    t_restart(t);
    assert_int_equal(s_models(t), 1);
}

static void
test_effects_of_a_lost_turn_are_done_again(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    lade_router_break_commits(t->router, 1);
    t_report(t, "w", LADE_W_DONE, id, 1, json_pack("{s:[o]}", "effects", s_put(S_KEY, "a")));
    assert_int_equal(s_models(t), 0);
    assert_string_equal(t_status(t, id), "running");
    t_hello_with(t, "w", "k", 1, NULL,
                 json_pack("[{s:I, s:i}]", "id", (json_int_t)id, "attempt", 1));
    t->n--;
    t_report(t, "w", LADE_W_DONE, id, 1, json_pack("{s:[o]}", "effects", s_put(S_KEY, "a")));
    assert_int_equal(s_models(t), 1);
    assert_string_equal(t_status(t, id), "completed");
}

static void
test_bad_effects_end_in_error(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    static const char *const wrong[] = {
        "[5]", "[{}]", "[{\"op\": \"format_disk\"}]",  "[{\"op\": \"put_model\"}]",
        "{}",  "7",    "[{\"op\": \"update_model\"}]", "[{\"op\": \"del_model\"}]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int64_t id = t_submit_kind(t, "k");
        t_report(t, "w", LADE_W_DONE, id, 1,
                 json_pack("{s:o}", "effects", json_loads(wrong[i], JSON_DECODE_ANY, NULL)));
        assert_string_equal(t_status(t, id), "error");
    }
}

static void
test_store_tells_of_records(void **state)
{
    t_broker_t *t = *state;
    json_t *record =
        t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "a")));
    assert_string_equal(lade_json_text(record, "key", ""), S_KEY);
    assert_int_equal(t_events(t, "model_record_added/", NULL), 1);
    assert_string_equal(
        t_refused(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "b"))),
        "DuplicateModel");
    t_call(t, "store", "update_model",
           json_pack("{s:s, s:{s:s}}", "key", S_KEY, "config", "description", "words"));
    assert_int_equal(t_events(t, "model_record_updated/", NULL), 1);
    assert_true(json_is_true(t_call(t, "store", "exists", json_pack("{s:s}", "key", S_KEY))));
    json_t *found = t_call(t, "store", "search_by_name", json_pack("{s:s}", "base_model", "sd-1"));
    assert_int_equal(json_array_size(found), 1);
    t_call(t, "install", "unregister", json_pack("{s:s}", "key", S_KEY));
    assert_int_equal(t_events(t, "model_record_deleted/", NULL), 1);
    assert_string_equal(t_refused(t, "store", "get_model", json_pack("{s:s}", "key", S_KEY)),
                        "UnknownModel");
    assert_string_equal(json_string_value(t_call(t, "store", "version", NULL)), "3.2");
}

// ---------------------------------------------------------------------------------------------------
// Loads

static int64_t
s_load(t_broker_t *t, const char *op, json_t *args)
{
    int64_t request = t_send(t, "load", op, args);
    t_turn(t);
    return request;
}

static void
test_load_answers_what_the_worker_did(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "a")));
    t_hello(t, "gpu@host", "load", 2);
    int64_t request = s_load(t, "load_model_by_attr",
                             json_pack("{s:s, s:s, s:b, s:{s:s}}", "name", "m", "type", "vae",
                                       "lock", 1, "context", "queue_id", "q"));
    json_t *job = t_told(t, "gpu@host", LADE_W_JOB), *spec = json_object_get(job, "spec");
    assert_string_equal(lade_json_text(spec, "key", ""), S_KEY);
    assert_true(lade_json_bool(spec, "lock", false));
    assert_string_equal(lade_json_text(json_object_get(spec, "config"), "path", ""), "a");
    assert_int_equal(t_events(t, "model_load_started/", &event), 1);
    assert_string_equal(lade_json_text(event, "model_key", ""), S_KEY);
    assert_string_equal(lade_json_text(event, "name", ""), "m");
    assert_string_equal(lade_json_text(event, "location", ""), "host");
    assert_string_equal(lade_json_text(event, "queue_id", ""), "q");
    t_report(t, "gpu@host", LADE_W_DONE, lade_json_int(job, "id", 0), 1,
             json_pack("{s:{s:s, s:s, s:s}}", "result", "location", "host", "precision", "F16",
                       "lease", "gpu@host/1"));
    json_t *result = json_object_get(t_answer(t, request), "result");
    assert_string_equal(lade_json_text(result, "lease", ""), "gpu@host/1");
    assert_int_equal(t_events(t, "model_load_completed/", &event), 1);
    assert_string_equal(lade_json_text(event, "location", ""), "host");
    request = s_load(t, "load_model_by_key",
                     json_pack("{s:s, s:s, s:s, s:{s:i}}", "key", S_KEY, "dtype", "fp16", "device",
                               "cuda:1", "context", "queue_item_id", 7));
    assert_int_equal(t_events(t, "model_load_started/", &event), 2);
    assert_string_equal(lade_json_text(event, "precision", ""), "float16");
    assert_string_equal(lade_json_text(event, "location", ""), "cuda:1");
    t_fail(t, "gpu@host", lade_json_int(t_told(t, "gpu@host", LADE_W_JOB), "id", 0), 1,
           "NotImplemented");
    json_t *error = json_object_get(t_answer(t, request), "error");
    assert_string_equal(lade_json_text(error, "code", ""), "NotImplemented");
    assert_string_equal(lade_json_text(error, "message", ""), "words");
    assert_int_equal(t_events(t, "model_load_error/", &event), 1);
    assert_int_equal(lade_json_int(event, "queue_item_id", 0), 7);
    static const char *const wrong[] = {"{\"context\": {\"seq\": 1}}", "{\"context\": 1}",
                                        "{\"dtype\": 16}", "{\"device\": 0}",
                                        "{\"allow_unsafe\": true}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *args = json_loads(wrong[i], 0, NULL);
        json_object_set_new(args, "key", json_string(S_KEY));
        assert_string_equal(t_refused(t, "load", "load_model_by_key", args), "ValueError");
    }
}

// However often it waits for what it is made of, a load starts once.
static void
test_load_that_waits_for_a_conversion_starts_once(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "a")));
    t_hello(t, "gpu@host", "load", 1);
    t_hello(t, "install@host", "convert", 1);
    int64_t request = s_load(t, "load_model_by_key", json_pack("{s:s}", "key", S_KEY));
    int64_t id = lade_json_int(t_told(t, "gpu@host", LADE_W_JOB), "id", 0);
    t_report(t, "gpu@host", LADE_W_AWAIT, id, 1,
             json_pack("{s:{}, s:[{s:s, s:{}}]}", "state", "jobs", "kind", "convert", "spec"));
    json_t *convert = t_told(t, "install@host", LADE_W_JOB);
    t_report(t, "install@host", LADE_W_DONE, lade_json_int(convert, "id", 0), 1,
             json_pack("{s:{}}", "result"));
    assert_non_null(t_told(t, "gpu@host", LADE_W_JOB));
    t_report(t, "gpu@host", LADE_W_DONE, id, 2,
             json_pack("{s:{s:s, s:s}}", "result", "location", "host", "precision", "float16"));
    assert_non_null(json_object_get(t_answer(t, request), "result"));
    assert_int_equal(t_events(t, "model_load_started/", NULL), 1);
    assert_int_equal(t_events(t, "model_load_completed/", NULL), 1);
}

// A record that a caller hands in cannot end a quarantine.
static void
test_load_by_config_keeps_the_quarantine(void **state)
{
    t_broker_t *t = *state;
    json_t *record = s_record(S_KEY, "a"), *copy = json_copy(record);
    json_object_set_new(record, "quarantined", json_true());
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", record));
    t_hello(t, "gpu@host", "load", 1);
    s_load(t, "load_model_by_config", json_pack("{s:o}", "config", copy));
    json_t *spec = json_object_get(t_told(t, "gpu@host", LADE_W_JOB), "spec");
    assert_true(lade_json_bool(json_object_get(spec, "config"), "quarantined", false));
}

// A client that asks again after a restart must not lock twice: nobody would give the first lock
// back.
static void
test_load_that_is_asked_again_is_the_same_load(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "a")));
    t_hello(t, "gpu", "load", 2);
    int64_t first = s_load(t, "lock", json_pack("{s:s, s:s}", "key", S_KEY, "token", "once"));
    int64_t id = lade_json_int(t_told(t, "gpu", LADE_W_JOB), "id", 0);
    int64_t second = s_load(t, "lock", json_pack("{s:s, s:s}", "key", S_KEY, "token", "once"));
    assert_int_equal(json_array_size(t_call(t, "jobs", "list", NULL)), 1);
    t_report(t, "gpu", LADE_W_DONE, id, 1, json_pack("{s:{s:s}}", "result", "lease", "gpu/1"));
    int64_t third = s_load(t, "lock", json_pack("{s:s, s:s}", "key", S_KEY, "token", "once"));
    const int64_t all[] = {first, second, third};
    for (size_t i = 0; i < 3; i++) {
        const json_t *result = json_object_get(t_answer(t, all[i]), "result");
        assert_string_equal(lade_json_text(result, "lease", ""), "gpu/1");
    }
}

static void
test_load_refuses_what_is_not_there(void **state)
{
    t_broker_t *t = *state;
    assert_string_equal(t_refused(t, "load", "load_model_by_key", json_pack("{s:s}", "key", "x")),
                        "UnknownModel");
    assert_string_equal(t_refused(t, "load", "load_model_by_attr", json_pack("{s:s}", "name", "x")),
                        "UnknownModel");
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "a")));
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY2, "b")));
    assert_string_equal(t_refused(t, "load", "load_model_by_attr", json_pack("{s:s}", "name", "m")),
                        "ValueError");
    assert_string_equal(
        t_refused(t, "load", "load_model_by_config", json_pack("{s:{s:s}}", "config", "key", "zz")),
        "UnknownModel");
    assert_string_equal(t_refused(t, "load", "unlock", json_pack("{s:s}", "lease", "none")),
                        "ValueError");
}

static void
test_unlock_goes_to_the_worker_of_the_lease(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "gpu1", "unlock", 1);
    t_hello(t, "gpu2", "unlock", 1);
    int64_t request = s_load(t, "unlock", json_pack("{s:s}", "lease", "gpu2/7"));
    assert_null(t_told(t, "gpu1", LADE_W_JOB));
    json_t *job = t_told(t, "gpu2", LADE_W_JOB);
    assert_string_equal(lade_json_text(json_object_get(job, "spec"), "lease", ""), "gpu2/7");
    t_done(t, "gpu2", lade_json_int(job, "id", 0), 1);
    assert_true(lade_json_bool(t_answer(t, request), "ok", false));
    // A lease went with its worker.
    assert_true(json_is_null(t_call(t, "load", "unlock", json_pack("{s:s}", "lease", "gpu3/1"))));
    t_hello(t, "gpu4", "unload", 1);
    t_hello(t, "gpu5", "unload", 1);
    request = s_load(t, "unload", json_object());
    t_report(t, "gpu4", LADE_W_DONE, 2, 1, json_pack("{s:{s:i}}", "result", "unloaded", 2));
    assert_null(t_answer(t, request));
    t_report(t, "gpu5", LADE_W_DONE, 3, 1, json_pack("{s:{s:i}}", "result", "unloaded", 3));
    assert_int_equal(lade_json_int(json_object_get(t_answer(t, request), "result"), "unloaded", 0),
                     5);
}

static json_t *
s_result(t_broker_t *t, int64_t request)
{
    json_t *answer = t_answer(t, request);
    assert_non_null(answer);
    assert_true(lade_json_bool(answer, "ok", false));
    return json_object_get(answer, "result");
}

// Silence of all but one, for as long as a lease.
static void
s_silence(t_broker_t *t, const char *but)
{
    for (int i = 0; i < 6; i++) {
        t_feed(t, NULL, but, LADE_W_BEAT, json_object());
        lade_router_skip(t->router, 1000);
        t_turn(t);
    }
}

// What a worker was to let go of is gone with it: nobody waits for its name.
static void
test_unloads_and_unlocks_end_with_their_worker(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "gpu1", "unload", 1);
    t_hello(t, "gpu2", "unload", 1);
    t_hello(t, "gpu3", "unlock", 1);
    int64_t first = s_load(t, "unload", json_object()), second = s_load(t, "unload", NULL);
    int64_t unlock = s_load(t, "unlock", json_pack("{s:s}", "lease", "gpu3/7"));
    int64_t other = t_submit_kind(t, "k");
    t_report(t, "gpu1", LADE_W_DONE, 1, 1, json_pack("{s:{s:i}}", "result", "unloaded", 2));
    t_report(t, "gpu1", LADE_W_DONE, 3, 1, json_pack("{s:{s:i}}", "result", "unloaded", 1));
    assert_string_equal(t_status(t, 2), "running");
    assert_string_equal(t_status(t, 4), "enqueued");
    assert_null(t_answer(t, first));
    s_silence(t, "gpu1");
    assert_int_equal(lade_json_int(s_result(t, first), "unloaded", -1), 2);
    assert_int_equal(lade_json_int(s_result(t, second), "unloaded", -1), 1);
    assert_true(json_is_null(s_result(t, unlock)));
    assert_int_equal(t_events(t, "job_requeued/", NULL), 0);
    for (int64_t id = 1; id <= 5; id++)
        assert_string_equal(t_status(t, id), "completed");
    json_t *result = json_object_get(t_job(t, 2), "result");
    assert_int_equal(lade_json_int(result, "unloaded", -1), 0);
    assert_non_null(strstr(lade_json_text(result, "reason", ""), "silent"));
    assert_false(lade_json_bool(json_object_get(t_job(t, 5), "result"), "unlocked", true));
    assert_string_equal(t_status(t, other), "enqueued");
    // One that is late changes nothing.
    t_hello(t, "gpu2", "unload", 1);
    t_report(t, "gpu2", LADE_W_DONE, 2, 1, json_pack("{s:{s:i}}", "result", "unloaded", 9));
    assert_int_equal(lade_json_int(json_object_get(t_job(t, 2), "result"), "unloaded", -1), 0);
}

static void
test_unloads_end_with_a_goodbye(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "gpu1", "unload", 1);
    int64_t first = s_load(t, "unload", NULL), second = s_load(t, "unload", NULL);
    t_feed(t, NULL, "gpu1", LADE_W_BYE, json_pack("{s:i}", "n", 1));
    t_turn(t);
    assert_int_equal(lade_json_int(s_result(t, first), "unloaded", -1), 0);
    assert_int_equal(lade_json_int(s_result(t, second), "unloaded", -1), 0);
}

// Another process with the name, which holds what it may have taken over, is asked.
static void
test_unloads_are_for_the_next_of_that_name(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "gpu1", "unload", 1);
    int64_t request = s_load(t, "unload", NULL);
    t_hello(t, "gpu1", "unload", 1);
    t_report(t, "gpu1", LADE_W_DONE, 1, 2, json_pack("{s:{s:i}}", "result", "unloaded", 4));
    assert_int_equal(lade_json_int(s_result(t, request), "unloaded", -1), 4);
}

// Those of before a restart wait a lease for their worker, and no longer.
static void
test_unloads_of_before_a_restart_end(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "gpu1", "unload", 1);
    t_hello(t, "gpu2", "unload", 1);
    s_load(t, "unload", NULL);
    s_load(t, "unload", NULL);
    t_restart(t);
    for (int64_t id = 1; id <= 2; id++)
        assert_string_equal(t_status(t, id), "running");
    t_hello_with(t, "gpu1", "unload", 1, NULL, json_pack("[{s:i, s:i}]", "id", 1, "attempt", 1));
    s_silence(t, "gpu1");
    assert_string_equal(t_status(t, 1), "running");
    assert_string_equal(t_status(t, 2), "completed");
    assert_string_equal(t_status(t, 3), "enqueued");
    assert_string_equal(t_status(t, 4), "completed");
    t_report(t, "gpu1", LADE_W_DONE, 1, 1, json_pack("{s:{s:i}}", "result", "unloaded", 1));
    assert_string_equal(t_status(t, 3), "running");
}

static void
test_delete_is_a_job_with_the_record(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "a")));
    t_hello(t, "w", "delete", 1);
    t_call(t, "install", "delete", json_pack("{s:s, s:b}", "key", S_KEY, "force", 1));
    json_t *spec = json_object_get(t_told(t, "w", LADE_W_JOB), "spec");
    assert_true(lade_json_bool(spec, "force", false));
    assert_string_equal(lade_json_text(json_object_get(spec, "record"), "path", ""), "a");
    t_report(t, "w", LADE_W_DONE, 1, 1,
             json_pack("{s:[{s:s, s:s}]}", "effects", "op", "del_model", "key", S_KEY));
    assert_int_equal(s_models(t), 0);
}

// ---------------------------------------------------------------------------------------------------
// Bytes

static void
test_any_bytes_are_answered(void **state)
{
    t_broker_t *t = *state;
    static const struct {
        const char *bytes;
        size_t len;
    } bodies[] = {
        {"", 0},
        {"\xc1", 1},
        {"\x90", 1},
        {"\x81\xa2id", 4},
        {"\xdf\xff\xff\xff\xff", 5},
        {"\x81\xa2op\x05", 5},
        {"\x82\xa2op\xa3get\xa4"
         "args\x05",
         13},
        {"\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0", 19},
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        size_t before = t->count;
        lade_router_feed_client(t->router, "client", "jobs", 4, bodies[i].bytes, bodies[i].len);
        for (int command = 0; command < 256; command++)
            lade_router_feed_worker(t->router, "peer", command, bodies[i].bytes, bodies[i].len);
        t_turn(t);
        while (before < t->count && t->sent[before].kind != LADE_SENT_CLIENT)
            before++;
        assert_true(before < t->count);
        assert_false(lade_json_bool(t->sent[before].body, "ok", true));
    }
    t_submit_kind(t, "k");
}

static void
test_mmi_answers_in_bare_bytes(void **state)
{
    t_broker_t *t = *state;
    lade_router_feed_client(t->router, "client", "mmi.service", 11, "store", 5);
    lade_router_feed_client(t->router, "client", "mmi.service", 11, "nothing", 7);
    t_turn(t);
    // "2" and "4" are msgpack integers of one byte: the rest of the text is not, so both come as
    // text.
    assert_string_equal(json_string_value(t->sent[0].body), "200");
    assert_string_equal(json_string_value(t->sent[1].body), "404");
}

static void
test_too_large_a_body_is_refused(void **state)
{
    t_broker_t *t = *state;
    t->config.max_message_bytes = 1024;
    char text[2048];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_string_equal(
        t_refused(t, "jobs", "submit", json_pack("{s:s, s:s}", "kind", "k", "source", text)),
        "too_large");
}

static void
test_worker_must_say_hello_properly(void **state)
{
    t_broker_t *t = *state;
    t_feed(t, NULL, "w", LADE_W_HELLO, json_object());
    t_feed(t, NULL, "w", LADE_W_HELLO, json_pack("{s:s, s:[]}", "name", "w", "kinds"));
    t_feed(t, NULL, "w", LADE_W_HELLO,
           json_pack("{s:s, s:[s], s:i}", "name", "w", "kinds", "k", "slots", -1));
    t_turn(t);
    assert_null(t_told(t, "w", LADE_W_WELCOME));
    t_feed(t, NULL, "w", LADE_W_BEAT, json_object());
    t_turn(t);
    assert_false(lade_json_bool(t_told(t, "w", LADE_W_BEAT), "known", true));
    t_hello(t, "w", "k", 1);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_WELCOME), "beat_ms", 0),
                     t->config.beat_ms);
    // One connection is one worker.
    t_feed(t, NULL, "w", LADE_W_HELLO, json_pack("{s:s, s:[s]}", "name", "other", "kinds", "k"));
    t_turn(t);
    assert_int_equal(json_array_size(t_call(t, "broker", "workers", NULL)), 1);
}

static json_t *
s_download_answer(t_broker_t *t, json_t *source)
{
    json_t *args = json_pack("{s:o, s:s}", "source", source, "destdir", "/tmp/x");
    int64_t request = t_send(t, "download", "create_download_job", args);
    t_turn(t);
    return t_answer(t, request);
}

static void
test_a_download_comes_from_a_url_or_an_absolute_path(void **state)
{
    static const struct {
        const char *source;
        size_t gates; // of the host that is asked
    } right[] = {{"http://h/x", 1},       {"HTTPS://user@h:1/x", 1}, {"/models/a://b", 0},
                 {"file:///models/x", 0}, {"FILE://localhost/m", 0}, {"/m", 0}};
    static const char *const wrong[] = {"",        "x",         "./x",          "../x",
                                        "~/x",     "ftp://h/x", "http:/",       "http://",
                                        "file://", "file",      "file://host/x"};
    t_broker_t *t = *state;
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        json_t *answer = s_download_answer(t, json_string(right[i].source));
        const json_t *job = json_object_get(answer, "result");
        assert_string_equal(lade_json_text(job, "source", ""), right[i].source);
        assert_int_equal(json_array_size(json_object_get(job, "gates")), right[i].gates);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *answer = s_download_answer(t, json_string(wrong[i]));
        const json_t *error = json_object_get(answer, "error");
        assert_string_equal(lade_json_text(error, "code", ""), "ValueError");
    }
    // Mirrors are of one thing on the network.
    json_t *answer = s_download_answer(t, json_pack("[s, s]", "http://h/y", "https://i/y"));
    assert_true(lade_json_bool(answer, "ok", false));
    answer = s_download_answer(t, json_pack("[s, s]", "http://h/z", "/z"));
    assert_false(lade_json_bool(answer, "ok", true));
    answer = s_download_answer(t, json_array());
    assert_false(lade_json_bool(answer, "ok", true));
}

// A wrong argument is named, and not taken for a missing one: that would mean everything.
static void
test_arguments_of_a_wrong_type_are_refused(void **state)
{
    static const struct {
        const char *service, *op, *args, *names;
    } rows[] = {
        // clang-format off
        {"jobs",     "cancel",              "{'all': true, 'kind': 5}",               "kind: has to be text"},
        {"jobs",     "purge",               "{'kind': ['k']}",                        "kind: has to be text"},
        {"jobs",     "list",                "{'parent': '1'}",                        "parent: has to be a whole number"},
        {"jobs",     "wait",                "{'id': 1, 'timeout_s': '5'}",            "timeout_s: has to be a number"},
        {"store",    "search_by_name",      "{'name': 5}",                            "name: has to be text"},
        {"broker",   "set",                 "{'gate': 'g', 'closed_for_s': 'x'}",     "closed_for_s: has to be a number"},
        {"jobs",     "submit",              "{'kind': 'k', 'start': 0}",              "start: has to be true or false"},
        {"install",  "heuristic_import",    "{'source': 5}",                          "source: has to be text or a map or an array"},
        {"download", "submit_download_job", "{'job': {'source': 'u', 'start': 1}}",   "start: has to be true or false"},
        // clang-format on
    };
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s", rows[i].args);
        for (char *at = text; (at = strchr(at, '\''));)
            *at = '"';
        int64_t request = t_send(t, rows[i].service, rows[i].op, json_loads(text, 0, NULL));
        t_turn(t);
        const json_t *error = json_object_get(t_answer(t, request), "error");
        assert_string_equal(lade_json_text(error, "code", ""), "ValueError");
        assert_string_equal(lade_json_text(error, "message", ""), rows[i].names);
    }
    assert_string_equal(t_status(t, id), "enqueued");
    assert_non_null(t_call(t, "jobs", "list", json_pack("{s:n, s:n}", "kind", "limit")));
}

static void
test_dry_run_is_no_install(void **state)
{
    t_broker_t *t = *state;
    const char *op = "heuristic_import";
    int64_t dry = lade_json_int(
        t_call(t, "install", op, json_pack("{s:s, s:b}", "source", "a/b", "dry_run", 1)), "id", 0);
    int64_t real =
        lade_json_int(t_call(t, "install", op, json_pack("{s:s}", "source", "a/b")), "id", 0);
    assert_int_not_equal(dry, real);
    assert_int_equal(
        lade_json_int(t_call(t, "install", op, json_pack("{s:s}", "source", "a/b")), "id", 0),
        real);
}

static void
test_gate_can_be_closed_for_a_shorter_time_by_hand(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "g", "closed_for_s", 3600));
    double until = lade_json_real(
        t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "g", "closed_for_s", 60)),
        "closed_until", 0);
    double longer = lade_json_real(
        t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "g", "closed_for_s", 600)),
        "closed_until", 0);
    assert_true(until > 0 && longer - until > 500 && longer - until < 600);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T_TEST(test_effects_are_all_or_none),
        T_TEST(test_a_record_that_has_to_be_there),
        T_TEST(test_failed_effects_spare_the_rest_of_the_turn),
        T_TEST(test_effects_of_a_lost_turn_are_done_again),
        T_TEST(test_bad_effects_end_in_error),
        T_TEST(test_store_tells_of_records),
        T_TEST(test_load_answers_what_the_worker_did),
        T_TEST(test_load_that_waits_for_a_conversion_starts_once),
        T_TEST(test_load_by_config_keeps_the_quarantine),
        T_TEST(test_load_that_is_asked_again_is_the_same_load),
        T_TEST(test_load_refuses_what_is_not_there),
        T_TEST(test_unlock_goes_to_the_worker_of_the_lease),
        T_TEST(test_unloads_and_unlocks_end_with_their_worker),
        T_TEST(test_unloads_end_with_a_goodbye),
        T_TEST(test_unloads_are_for_the_next_of_that_name),
        T_TEST(test_unloads_of_before_a_restart_end),
        T_TEST(test_delete_is_a_job_with_the_record),
        T_TEST(test_any_bytes_are_answered),
        T_TEST(test_mmi_answers_in_bare_bytes),
        T_TEST(test_too_large_a_body_is_refused),
        T_TEST(test_worker_must_say_hello_properly),
        T_TEST(test_a_download_comes_from_a_url_or_an_absolute_path),
        T_TEST(test_arguments_of_a_wrong_type_are_refused),
        T_TEST(test_dry_run_is_no_install),
        T_TEST(test_gate_can_be_closed_for_a_shorter_time_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
