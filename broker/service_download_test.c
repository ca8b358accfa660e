// The download service, against workers played by the test.
#include "broker/broker_test.h"

#include <inttypes.h>

static void
s_hello(t_broker_t *t, const char *worker, int slots)
{
    t_feed(t, NULL, worker, LADE_W_HELLO,
           json_pack("{s:s, s:s, s:i, s:[s], s:i, s:b, s:[]}", "name", worker, "host", "here",
                     "pid", 1, "kinds", "download", "slots", slots, "terms", 1, "jobs"));
    t_turn(t);
}

static json_t *
s_file(const char *url, const char *path, int size)
{
    json_t *file = json_pack("{s:s, s:s}", "url", url, "path", path);
    if (size)
        json_object_set_new(file, "size", json_integer(size));
    return file;
}

static json_t *
s_two_files(void)
{
    return json_pack("{s:s, s:[o, o], s:i, s:s, s:[s], s:{s:s}}", "destdir", "/to", "files",
                     s_file("https://hub/a", "a", 100), s_file("https://hub/b", "u/b", 0),
                     "priority", 7, "access_token", "s3cret", "gates", "mine", "requires", "host",
                     "here");
}

static json_t *
s_show(t_broker_t *t, int64_t id)
{
    return t_call(t, "download", "id_to_job", json_pack("{s:I}", "id", (json_int_t)id));
}

static const char *
s_status(t_broker_t *t, int64_t id)
{
    return lade_json_text(s_show(t, id), "status", "");
}

// A job of two files whose parts are given to worker w: ids follow the job's.
static int64_t
s_await(t_broker_t *t)
{
    s_hello(t, "w", 5);
    int64_t id =
        lade_json_int(t_call(t, "download", "create_download_job", s_two_files()), "id", 0);
    t_report(t, "w", LADE_W_AWAIT, id, 1,
             json_pack("{s:{}, s:[{s:s, s:s, s:{s:s, s:i}, s:b}, {s:s, s:s, s:{s:s}, s:b}], s:s}",
                       "state", "jobs", "kind", "download", "source", "https://hub/a", "spec",
                       "destination", "/to/a", "size", 100, "vital", 1, "kind", "download",
                       "source", "https://hub/b", "spec", "destination", "/to/u/b", "vital", 1,
                       "local_path", "/to"));
    return id;
}

static void
s_progress(t_broker_t *t, int64_t id, int bytes, int total)
{
    t_report(t, "w", LADE_W_PROGRESS, id, 1,
             json_pack("{s:i, s:i}", "bytes", bytes, "total_bytes", total));
}

static void
test_the_worker_has_what_the_parts_need(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "w", 5);
    int64_t id =
        lade_json_int(t_call(t, "download", "create_download_job", s_two_files()), "id", 0);
    const json_t *job = t_told(t, "w", LADE_W_JOB), *spec = json_object_get(job, "spec");
    assert_int_equal(lade_json_int(job, "id", 0), id);
    assert_int_equal(json_array_size(json_object_get(spec, "files")), 2);
    assert_int_equal(json_array_size(json_object_get(spec, "gates")), 1);
    assert_string_equal(lade_json_text(json_object_get(spec, "requires"), "host", ""), "here");
    assert_string_equal(lade_json_text(spec, "access_token", ""), "s3cret");
    // The job itself is at no gate, as it opens no connection.
    assert_int_equal(json_array_size(json_object_get(t_job(t, id), "gates")), 0);
    assert_string_equal(lade_json_text(t_job(t, id), "source", ""), "https://hub/a");
    assert_string_equal(lade_json_text(json_object_get(t_job(t, id), "spec"), "access_token", ""),
                        "***");
}

static void
test_parts_are_added_up_from_the_beginning(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_await(t);
    json_t *event = NULL, *job = s_show(t, id);
    assert_string_equal(s_status(t, id), "running");
    assert_string_equal(t_status(t, id), "waiting");
    job = s_show(t, id);
    assert_int_equal(lade_json_int(job, "total_bytes", 0), 100);
    assert_string_equal(lade_json_text(job, "download_path", ""), "/to");
    const json_t *parts = json_object_get(json_object_get(job, "progress"), "parts");
    assert_int_equal(json_array_size(parts), 2);
    assert_string_equal(lade_json_text(json_array_get(parts, 1), "local_path", ""), "/to/u/b");
    assert_int_equal(lade_json_int(json_array_get(parts, 0), "total_bytes", 0), 100);
    s_progress(t, id + 1, 60, 100);
    s_progress(t, id + 2, 5, 50);
    job = s_show(t, id);
    assert_int_equal(lade_json_int(job, "bytes", 0), 65);
    assert_int_equal(lade_json_int(job, "total_bytes", 0), 150);
    char topic[64];
    snprintf(topic, sizeof topic, "download_running/%" PRId64 "/", id);
    assert_true(t_events(t, topic, &event) >= 2); // at its dispatch, and of its parts' progress
    assert_true(lade_json_int(event, "job_sequence", 0) > 0);
    t_done(t, "w", id + 1, 1);
    t_done(t, "w", id + 2, 1);
    assert_string_equal(s_status(t, id), "running"); // dispatched again
    t_done(t, "w", id, 2);
    assert_string_equal(s_status(t, id), "completed");
    snprintf(topic, sizeof topic, "download_enqueued/%" PRId64 "/", id);
    assert_int_equal(t_events(t, topic, NULL), 1);
}

static void
test_parts_are_paused_started_and_cancelled_with_it(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_await(t);
    json_t *args = json_pack("{s:I}", "id", (json_int_t)id);
    t_call(t, "download", "pause_job", json_incref(args));
    assert_string_equal(s_status(t, id), "paused");
    assert_string_equal(s_status(t, id + 1), "paused");
    t_call(t, "download", "start_job", json_incref(args));
    assert_string_equal(s_status(t, id), "running");
    assert_string_equal(s_status(t, id + 1), "enqueued"); // its worker still stops
    t_call(t, "download", "cancel_job", args);
    assert_string_equal(s_status(t, id + 2), "cancelled");
    assert_string_equal(s_status(t, id), "cancelled");
}

static void
test_one_that_fails_ends_the_others(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_await(t);
    t_fail(t, "w", id + 2, 1, "not_found");
    assert_string_equal(s_status(t, id + 1), "cancelled");
    t_fail(t, "w", id + 1, 1, "cancelled");
    const json_t *again = t_told(t, "w", LADE_W_JOB);
    assert_int_equal(lade_json_int(again, "id", 0), id);
    assert_int_equal(json_array_size(json_object_get(again, "children")), 2);
    t_fail(t, "w", id, 2, "not_found");
    assert_string_equal(lade_json_text(s_show(t, id), "error_type", ""), "not_found");
    t_call(t, "jobs", "retry", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(t_status(t, id), "waiting");
    t_done(t, "w", id + 1, 2);
    t_done(t, "w", id + 2, 2);
    t_done(t, "w", id, 3);
    assert_string_equal(s_status(t, id), "completed");
    t_call(t, "jobs", "purge", json_pack("{s:[I]}", "ids", (json_int_t)id)); // its parts go too
    assert_int_equal(json_array_size(t_call(t, "download", "list_jobs", NULL)), 0);
}

static void
test_files_that_leave_their_folder_are_refused(void **state)
{
    t_broker_t *t = *state;
    static const char *const paths[] = {"", "/a", "..", "a/../../b", "a//b", "a/", "a\\b"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        assert_string_equal(t_refused(t, "download", "create_download_job",
                                      json_pack("{s:s, s:[o]}", "destdir", "/to", "files",
                                                s_file("https://hub/a", paths[i], 0))),
                            "ValueError");
    assert_string_equal(
        t_refused(t, "download", "submit_download_job",
                  json_pack("{s:{s:s, s:s}}", "job", "destdir", "/to", "files", "text")),
        "ValueError");
    assert_int_equal(json_array_size(t_call(t, "download", "list_jobs", NULL)), 0);
}

static void
test_the_same_files_are_one_job(void **state)
{
    t_broker_t *t = *state;
    json_t *one = json_pack("{s:s, s:[o]}", "destdir", "/to", "files",
                            s_file("https://hub/a", "a", 0)),
           *two = json_pack("{s:s, s:[o]}", "destdir", "/to", "files",
                            s_file("https://hub/a", "b", 0)),
           *plain = json_pack("{s:s, s:s}", "destdir", "/to", "source", "https://hub/a");
    int64_t first =
        lade_json_int(t_call(t, "download", "create_download_job", json_incref(one)), "id", 0);
    json_t *all[] = {one, two, plain};
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            lade_json_int(t_call(t, "download", "create_download_job", all[i]), "id", 0),
            first + i);
}

static int64_t
s_plain(t_broker_t *t, const char *source)
{
    return lade_json_int(t_call(t, "download", "create_download_job",
                                json_pack("{s:s, s:s}", "destdir", "/to", "source", source)),
                         "id", 0);
}

static void
s_update(t_broker_t *t, int64_t id, const char *key, json_t *value)
{
    t_call(t, "download", "update_download_job",
           json_pack("{s:I, s:o}", "id", (json_int_t)id, key, value));
}

static void
test_a_new_priority_counts_in_the_queue_and_at_a_gate(void **state)
{
    t_broker_t *t = *state;
    s_plain(t, "https://x/1");
    int64_t second = s_plain(t, "https://x/2");
    s_update(t, second, "priority", json_integer(1));
    s_hello(t, "w", 1);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "id", 0), second);
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:x", "closed_for_s", 60));
    int64_t third = s_plain(t, "https://x/3");
    t_done(t, "w", second, 1);
    s_update(t, third, "priority", json_integer(-5));
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:x", "closed_for_s", 0));
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "id", 0), third);
}

// What was told last of preserve_partial_downloads in TERMS: -1 if nothing.
static int
s_preserve_told(const t_broker_t *t)
{
    const json_t *terms = t_told(t, "w", LADE_W_TERMS);
    const json_t *told = json_object_get(json_array_get(json_object_get(terms, "jobs"), 0),
                                         "preserve_partial_downloads");
    return told ? json_is_true(told) : -1;
}

static void
test_a_running_worker_hears_whether_partials_stay(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "w", 1);
    int64_t id = s_plain(t, "https://x/1");
    assert_int_equal(s_preserve_told(t), -1);
    s_update(t, id, "preserve_partial_downloads", json_true());
    assert_int_equal(s_preserve_told(t), 1);
    size_t count = t_count_told(t, "w", LADE_W_TERMS);
    s_update(t, id, "preserve_partial_downloads", json_true());
    assert_int_equal(t_count_told(t, "w", LADE_W_TERMS), count); // no news
    s_update(t, id, "preserve_partial_downloads", json_false());
    assert_int_equal(s_preserve_told(t), 0);
    assert_false(lade_json_bool(s_show(t, id), "preserve_partial_downloads", true));
    s_update(t, id, "preserve_partial_downloads", json_true());
    t_restart(t);
    assert_true(lade_json_bool(s_show(t, id), "preserve_partial_downloads", false));
    t_feed(t, NULL, "w", LADE_W_HELLO,
           json_pack("{s:s, s:s, s:i, s:[s], s:i, s:b, s:[{s:I, s:i}]}", "name", "w", "host",
                     "here", "pid", 1, "kinds", "download", "slots", 1, "terms", 1, "jobs", "id",
                     (json_int_t)id, "attempt", 1));
    t_turn(t);
    t_turn(t);
    assert_int_equal(s_preserve_told(t), 1); // it may not have heard of the last change
}

static void
test_parts_change_with_their_job(void **state)
{
    t_broker_t *t = *state;
    int64_t id = s_await(t);
    s_update(t, id, "priority", json_integer(2));
    s_update(t, id, "preserve_partial_downloads", json_true());
    for (int64_t part = id; part <= id + 2; part++) {
        assert_int_equal(lade_json_int(s_show(t, part), "priority", 0), 2);
        assert_true(lade_json_bool(s_show(t, part), "preserve_partial_downloads", false));
    }
    t_call(t, "download", "cancel_job", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(t_refused(t, "download", "update_download_job",
                                  json_pack("{s:I, s:i}", "id", (json_int_t)id, "priority", 1)),
                        "ValueError");
    assert_string_equal(
        t_refused(t, "download", "update_download_job", json_pack("{s:I}", "id", (json_int_t)id)),
        "ValueError");
}

static void
test_the_destination_is_the_file_or_the_folder(void **state)
{
    t_broker_t *t = *state;
    json_t *named =
        json_pack("{s:s, s:s, s:s}", "destdir", "/to", "filename", "x", "source", "https://hub/a");
    assert_string_equal(
        lade_json_text(t_call(t, "download", "create_download_job", named), "destination", ""),
        "/to/x");
    assert_string_equal(lade_json_text(s_show(t, s_plain(t, "https://x/1")), "destination", ""),
                        "/to");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T_TEST(test_the_worker_has_what_the_parts_need),
        T_TEST(test_parts_are_added_up_from_the_beginning),
        T_TEST(test_parts_are_paused_started_and_cancelled_with_it),
        T_TEST(test_one_that_fails_ends_the_others),
        T_TEST(test_files_that_leave_their_folder_are_refused),
        T_TEST(test_the_same_files_are_one_job),
        T_TEST(test_a_new_priority_counts_in_the_queue_and_at_a_gate),
        T_TEST(test_a_running_worker_hears_whether_partials_stay),
        T_TEST(test_parts_change_with_their_job),
        T_TEST(test_the_destination_is_the_file_or_the_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
