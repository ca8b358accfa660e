// Jobs of several files: what is answered to the broker.
#include "workers/download/multi.h"

#include "common/wire.h"
#include "workers/worker/task.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

static json_t *
s_spec(void)
{
    return json_pack("{s:s, s:[{s:s, s:s, s:i}, {s:s, s:s, s:s}], s:s, s:b, s:[s], s:{s:s}}",
                     "destdir", "/to", "files", "url", "https://h/a", "path", "a", "size", 5, "url",
                     "https://h/b", "path", "u/b", "sha256", "00", "access_token", "t0k",
                     "preserve_partial_downloads", 1, "gates", "mine", "requires", "host", "here");
}

static json_t *
s_child(const char *source, const char *status, const char *type)
{
    json_t *child = json_pack("{s:s, s:s, s:{s:s, s:i}}", "source", source, "status", status,
                              "result", "path", source, "bytes", 4);
    if (type)
        json_object_update_new(child,
                               json_pack("{s:s, s:s}", "error_type", type, "error", "its words"));
    return child;
}

// Runs a job of that spec and those children; what it answers as {"command", …}, NULL if it is left
// alone.
static json_t *
s_answer(json_t *spec, json_t *children)
{
    lade_inbox_t *inbox = lade_inbox_new(1 << 20);
    lade_task_t *task;
    lade_error_t error;
    json_t *body = json_pack("{s:i, s:i, s:s, s:o, s:o}", "id", 7, "attempt", 1, "kind", "download",
                             "spec", spec, "children", children ? children : json_array());
    json_t *answer = NULL;
    assert_int_equal(lade_task_new(&task, body, inbox, &error), LADE_OK);
    bool taken = lade_multi_start(task);
    lade_report_t *report = lade_inbox_take(inbox);
    assert_int_equal(taken, report != NULL);
    if (report) {
        lade_report_number(report, 1);
        assert_int_equal(lade_wire_to_json(report->body.data, report->body.len, &answer, &error),
                         LADE_OK);
        json_object_set_new(answer, "command", json_integer(report->command));
        lade_report_destroy(&report);
    }
    lade_task_destroy(&task);
    lade_inbox_destroy(&inbox);
    return answer;
}

static void
test_one_file_is_not_for_us(void **state)
{
    (void)state;
    assert_null(s_answer(json_pack("{s:s}", "destdir", "/to"), NULL));
    assert_null(s_answer(json_pack("{s:[]}", "files"), NULL));
    assert_null(s_answer(json_pack("{s:s}", "files", "text"), NULL));
}

static void
test_each_file_is_awaited(void **state)
{
    (void)state;
    json_t *answer = s_answer(s_spec(), NULL);
    assert_int_equal(lade_json_int(answer, "command", 0), LADE_W_AWAIT);
    assert_string_equal(lade_json_text(answer, "local_path", ""), "/to");
    const json_t *jobs = json_object_get(answer, "jobs"), *job = json_array_get(jobs, 1),
                 *spec = json_object_get(job, "spec");
    assert_int_equal(json_array_size(jobs), 2);
    assert_string_equal(lade_json_text(job, "kind", ""), "download");
    assert_string_equal(lade_json_text(job, "source", ""), "https://h/b");
    assert_true(lade_json_bool(job, "vital", false));
    assert_int_equal(json_array_size(json_object_get(job, "gates")), 1);
    assert_string_equal(lade_json_text(json_object_get(job, "requires"), "host", ""), "here");
    assert_string_equal(lade_json_text(spec, "destination", ""), "/to/u/b");
    assert_string_equal(lade_json_text(spec, "sha256", ""), "00");
    assert_string_equal(lade_json_text(spec, "access_token", ""), "t0k");
    assert_true(lade_json_bool(spec, "preserve_partial_downloads", false));
    spec = json_object_get(json_array_get(jobs, 0), "spec");
    assert_int_equal(lade_json_int(spec, "size", 0), 5);
    json_decref(answer);
}

static void
s_expect_failure(json_t *answer, const char *code, const char *words)
{
    assert_int_equal(lade_json_int(answer, "command", 0), LADE_W_FAIL);
    assert_string_equal(lade_json_text(answer, "code", ""), code);
    assert_non_null(strstr(lade_json_text(answer, "message", ""), words));
    assert_false(lade_json_bool(answer, "retry", false));
    json_decref(answer);
}

// Whoever submits with jobs.submit is not looked at by the download service.
static void
test_no_file_leaves_the_folder(void **state)
{
    (void)state;
    static const char *const paths[] = {"/etc/passwd", "../a", "a/../../b", ""};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        s_expect_failure(s_answer(json_pack("{s:s, s:[{s:s, s:s}]}", "destdir", "/to", "files",
                                            "url", "https://h/a", "path", paths[i]),
                                  NULL),
                         "ValueError", "only relative download paths accepted");
    s_expect_failure(s_answer(json_pack("{s:s, s:[{s:s, s:s}]}", "destdir", "to", "files", "url",
                                        "https://h/a", "path", "a"),
                              NULL),
                     "ValueError", "absolute");
    s_expect_failure(s_answer(json_pack("{s:s, s:[i]}", "destdir", "/to", "files", 5), NULL),
                     "ValueError", "only relative");
}

static void
test_it_is_done_when_all_are(void **state)
{
    (void)state;
    json_t *answer = s_answer(s_spec(), json_pack("[o, o]", s_child("a", "completed", NULL),
                                                  s_child("b", "completed", NULL)));
    const json_t *result = json_object_get(answer, "result");
    assert_int_equal(lade_json_int(answer, "command", 0), LADE_W_DONE);
    assert_string_equal(lade_json_text(result, "path", ""), "/to");
    assert_int_equal(lade_json_int(result, "bytes", 0), 8);
    const json_t *part = json_array_get(json_object_get(result, "parts"), 1);
    assert_string_equal(lade_json_text(part, "url", ""), "b");
    assert_string_equal(lade_json_text(part, "path", ""), "b");
    json_decref(answer);
}

static void
test_it_fails_as_the_first_that_failed(void **state)
{
    (void)state;
    s_expect_failure(s_answer(s_spec(), json_pack("[o, o]", s_child("a", "cancelled", NULL),
                                                  s_child("b", "error", "digest_mismatch"))),
                     "digest_mismatch", "its words");
    s_expect_failure(s_answer(s_spec(), json_pack("[o, o]", s_child("a", "completed", NULL),
                                                  s_child("b", "dead", "worker_lost"))),
                     "worker_lost", "its words");
    s_expect_failure(s_answer(s_spec(), json_pack("[o, o]", s_child("a", "cancelled", NULL),
                                                  s_child("b", "completed", NULL))),
                     "cancelled", "one of its files");
    s_expect_failure(s_answer(s_spec(), json_pack("[{s:s}]", "status", "purged")), "child_failed",
                     "did not arrive");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_file_is_not_for_us),
        cmocka_unit_test(test_each_file_is_awaited),
        cmocka_unit_test(test_no_file_leaves_the_folder),
        cmocka_unit_test(test_it_is_done_when_all_are),
        cmocka_unit_test(test_it_fails_as_the_first_that_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
