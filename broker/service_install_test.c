// The install service, against workers played by the test.
#include "broker/broker_test.h"

#define S_KEY "0123456789abcdef0123456789abcdef"

static json_t *
s_record(const char *key, const char *path)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "key", key, "name", "m", "type", "vae",
                     "base", "sd-1", "format", "checkpoint", "path", path, "hash", "h");
}

static int64_t
s_ask(t_broker_t *t, const char *op, json_t *args)
{
    int64_t request = t_send(t, "install", op, args);
    t_turn(t);
    return request;
}

static void
test_register_path_answers_the_key(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "install", 2);
    int64_t request = s_ask(
        t, "register_path",
        json_pack("{s:s, s:{s:s}, s:b}", "path", "/m/x", "config", "name", "mine", "partial", 1));
    json_t *job = t_told(t, "w", LADE_W_JOB), *spec = json_object_get(job, "spec");
    const json_t *source = json_object_get(spec, "source");
    assert_string_equal(lade_json_text(source, "type", ""), "local");
    assert_string_equal(lade_json_text(source, "path", ""), "/m/x");
    assert_true(lade_json_bool(spec, "inplace", false));
    assert_string_equal(lade_json_text(json_object_get(spec, "config"), "name", ""), "mine");
    assert_null(t_answer(t, request));
    t_report(t, "w", LADE_W_DONE, lade_json_int(job, "id", 0), 1,
             json_pack("{s:{s:s}, s:[{s:s, s:o}]}", "result", "key", S_KEY, "effects", "op",
                       "put_model", "model", s_record(S_KEY, "/m/x")));
    const json_t *answer = t_answer(t, request);
    assert_string_equal(json_string_value(json_object_get(answer, "result")), S_KEY);
}

static void
test_install_path_copies_and_may_not_wait(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "install", 2);
    json_t *job =
        t_call(t, "install", "install_path", json_pack("{s:s, s:b}", "path", "/m/x", "wait", 0));
    assert_string_equal(lade_json_text(job, "source", ""), "/m/x");
    const json_t *spec = json_object_get(t_told(t, "w", LADE_W_JOB), "spec");
    assert_false(lade_json_bool(spec, "inplace", true));
}

static void
test_how_a_job_fails_is_the_answer(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "install", 2);
    int64_t request = s_ask(t, "install_path", json_pack("{s:s}", "path", "/m/x"));
    t_fail(t, "w", 1, 1, "InvalidModelConfig");
    const json_t *error = json_object_get(t_answer(t, request), "error");
    assert_string_equal(lade_json_text(error, "code", ""), "InvalidModelConfig");
    assert_string_equal(lade_json_text(error, "message", ""), "words");
    request = s_ask(t, "install_path", json_pack("{s:s}", "path", "/m/y"));
    t_call(t, "install", "cancel_job", json_pack("{s:i}", "id", 2));
    error = json_object_get(t_answer(t, request), "error");
    assert_string_equal(lade_json_text(error, "code", ""), "cancelled");
    assert_string_equal(
        t_refused(t, "install", "register_path", json_pack("{s:s}", "path", "here/x")),
        "ValueError");
    assert_string_equal(t_refused(t, "install", "register_path", NULL), "ValueError");
}

// A field that cannot be set is refused before there is a job.
static void
test_overrides_are_checked_first(void **state)
{
    t_broker_t *t = *state;
    static const char *const ops[] = {"heuristic_import", "import_model", "install_path"};
    static const struct {
        const char *field, *value, *error;
    } cases[] = {{"type", "modle", "InvalidModelConfig"},
                 {"path", "/x", "InvalidModelConfig"},
                 {"key", "a/b", "InvalidModelConfig"},
                 {"key", S_KEY, "DuplicateModel"},
                 {"model_type", "nothing", "InvalidModelConfig"}};
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "a")));
    for (size_t op = 0; op < sizeof ops / sizeof *ops; op++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            assert_string_equal(
                t_refused(t, "install", ops[op],
                          json_pack("{s:s, s:s, s:{s:s}}", "source", "a/b", "path", "/a", "config",
                                    cases[i].field, cases[i].value)),
                cases[i].error);
    assert_int_equal(json_array_size(t_call(t, "jobs", "list", NULL)), 0);
    t_call(t, "install", "heuristic_import",
           json_pack("{s:s, s:{s:s, s:s}}", "source", "a/b", "config", "key", "mine", "newer",
                     "field of a newer version"));
}

static void
test_unconditionally_delete_waits_for_the_files(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "store", "add_model", json_pack("{s:o}", "config", s_record(S_KEY, "/far/a")));
    t_hello(t, "w", "delete", 1);
    int64_t request = s_ask(t, "unconditionally_delete", json_pack("{s:s}", "key", S_KEY));
    const json_t *spec = json_object_get(t_told(t, "w", LADE_W_JOB), "spec");
    assert_true(lade_json_bool(spec, "force", false));
    assert_string_equal(lade_json_text(json_object_get(spec, "record"), "path", ""), "/far/a");
    assert_null(t_answer(t, request));
    t_report(t, "w", LADE_W_DONE, 1, 1,
             json_pack("{s:{s:s}, s:[{s:s, s:s}]}", "result", "key", S_KEY, "effects", "op",
                       "del_model", "key", S_KEY));
    const json_t *answer = t_answer(t, request);
    assert_true(lade_json_bool(answer, "ok", false));
    assert_true(json_is_null(json_object_get(answer, "result")));
    assert_string_equal(
        t_refused(t, "install", "unconditionally_delete", json_pack("{s:s}", "key", S_KEY)),
        "UnknownModel");
}

static void
test_wait_for_installs_by_source(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "install", 4);
    for (int i = 0; i < 2; i++) {
        t_call(t, "install", "heuristic_import", json_pack("{s:s}", "source", "a/b"));
        t_fail(t, "w", 2 * i + 1, 1, "InvalidModelConfig");
        t_call(t, "install", "heuristic_import", json_pack("{s:s}", "source", "c/d"));
        if (i == 0)
            t_fail(t, "w", 2, 1, "InvalidModelConfig");
    }
    int64_t request = s_ask(t, "wait_for_installs", json_pack("{s:b}", "by_source", 1));
    assert_null(t_answer(t, request));
    t_call(t, "install", "cancel_job", json_pack("{s:i}", "id", 4));
    const json_t *jobs = json_object_get(t_answer(t, request), "result");
    assert_int_equal(json_object_size(jobs), 2);
    assert_int_equal(lade_json_int(json_object_get(jobs, "a/b"), "id", 0), 3);
    const json_t *other = json_object_get(jobs, "c/d");
    assert_int_equal(lade_json_int(other, "id", 0), 4);
    assert_string_equal(lade_json_text(other, "status", ""), "cancelled");
}

static void
test_ways_are_checked(void **state)
{
    t_broker_t *t = *state;
    assert_string_equal(t_refused(t, "install", "heuristic_import",
                                  json_pack("{s:s, s:s}", "source", "a", "on_equal", "maybe")),
                        "ValueError");
    assert_string_equal(
        t_refused(t, "install", "import_model",
                  json_pack("{s:s, s:b, s:b}", "source", "a", "move", 1, "inplace", 1)),
        "ValueError");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T_TEST(test_register_path_answers_the_key),
        T_TEST(test_install_path_copies_and_may_not_wait),
        T_TEST(test_how_a_job_fails_is_the_answer),
        T_TEST(test_overrides_are_checked_first),
        T_TEST(test_unconditionally_delete_waits_for_the_files),
        T_TEST(test_wait_for_installs_by_source),
        T_TEST(test_ways_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
