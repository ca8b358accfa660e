// The download queue against a broker that does what the test says.
#include "client/fake_test.h"
#include "client/request.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

typedef struct s_world s_world_t;

typedef struct {
    s_world_t *world;
    const char *who;
} s_ear_t;

struct s_world {
    fake_t fake;
    lade_t *client;
    lade_queue_t *queue;
    char told[1024]; // "WHO:ID:STATUS:BYTES " of each call of a handler
    lade_download_t *kept;
    s_ear_t ears[8];
    size_t ear_count;
};

static s_ear_t *
s_new_ear(s_world_t *self, const char *who)
{
    s_ear_t *ear = &self->ears[self->ear_count++];
    *ear = (s_ear_t){self, who};
    return ear;
}

static void
s_hear(void *arg, lade_download_t *job)
{
    s_ear_t *ear = arg;
    char *told = ear->world->told;
    size_t len = strlen(told);
    snprintf(told + len, sizeof ear->world->told - len, "%s:%" PRId64 ":%s:%" PRId64 " ", ear->who,
             lade_download_id(job), lade_download_status_name(lade_download_status(job)),
             lade_download_bytes(job));
}

static int
s_open(void **state)
{
    s_world_t *self = calloc(1, sizeof *self);
    fake_open(&self->fake);
    *state = self;
    lade_download_handler_t handler = {s_hear, s_new_ear(self, "q")};
    lade_error_t error = {0};
    if (lade_open(NULL, self->fake.folder, NULL, &self->client, &error) ||
        lade_queue_open(self->client, &handler, 1, true, &self->queue, &error)) {
        print_error("%s\n", error.message);
        return -1;
    }
    return 0;
}

static int
s_close(void **state)
{
    s_world_t *self = *state;
    lade_queue_close(&self->queue);
    lade_queue_close(&self->queue);
    lade_close(&self->client);
    fake_close(&self->fake);
    free(self);
    return 0;
}

#define OK(call) s_ok(call, &error, __LINE__)

static void
s_ok(lade_code_t code, const lade_error_t *error, int line)
{
    if (code)
        print_error("line %d: %s\n", line, error->message);
    assert_int_equal(code, LADE_OK);
}

static lade_download_t *
s_submit(s_world_t *self, bool start)
{
    lade_error_t error;
    lade_download_t *job;
    lade_download_spec_t spec = LADE_DOWNLOAD_SPEC;
    spec.source = "http://x/a";
    spec.destdir = "/to";
    spec.access_token = "s3cret";
    OK(lade_queue_create_download_job(self->queue, &spec, start, &job, &error));
    return job;
}

// Runs the queue until all was told that is expected.
static void
s_expect(s_world_t *self, const char *told)
{
    lade_error_t error;
    for (int i = 0; i < 200 && strlen(self->told) < strlen(told); i++)
        OK(lade_queue_run(self->queue, 0.02, &error));
    assert_string_equal(self->told, told);
    self->told[0] = '\0';
}

// ---------------------------------------------------------------------------------------------------

static void
test_a_job_has_the_fields_of_its_life(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_download_t *job = s_submit(self, true), *found;
    assert_int_equal(lade_download_id(job), 101);
    assert_int_equal(lade_download_status(job), LADE_DOWNLOAD_ENQUEUED);
    assert_int_equal(lade_download_priority(job), 10);
    assert_string_equal(lade_download_source(job), "http://x/a");
    assert_string_equal(lade_download_destination(job), "/to");
    assert_null(lade_download_path(job));
    assert_int_equal(lade_download_outcome(job, &error), LADE_TIMEOUT);
    s_expect(self, "q:101:enqueued:0 ");
    fake_do(&self->fake, "journal download_running 101 5");
    s_expect(self, "q:101:running:5 ");
    assert_true(lade_download_job_started(job) > 1 && lade_download_job_ended(job) < 1);
    assert_int_equal(lade_download_total_bytes(job), 100);
    assert_int_equal(lade_download_job_sequence(job), 9);
    fake_do(&self->fake, "progress download_running 101 50");
    fake_do(&self->fake, "journal download_completed 101 100");
    s_expect(self, "q:101:running:50 q:101:completed:100 ");
    assert_true(lade_download_job_ended(job) > 1);
    assert_string_equal(lade_download_path(job), "/to/x");
    assert_int_equal(lade_download_outcome(job, &error), LADE_OK);
    OK(lade_queue_id_to_job(self->queue, 101, &found, &error));
    assert_ptr_equal(found, job);
    OK(lade_queue_wait_for_job(self->queue, job, 0, &error));
}

static void
test_an_error_says_why_and_a_retry_forgets_it(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_download_t *job = s_submit(self, true);
    fake_do(&self->fake, "journal job_requeued 101 network");
    fake_do(&self->fake, "journal download_error 101 digest_mismatch");
    s_expect(self, "q:101:enqueued:0 q:101:enqueued:0 q:101:error:0 ");
    assert_int_equal(lade_download_outcome(job, &error), LADE_DIGEST_MISMATCH);
    assert_string_equal(error.message, "it went wrong");
    assert_string_equal(lade_download_error_type(job), "digest_mismatch");
    fake_do(&self->fake, "journal download_enqueued 101");
    s_expect(self, "q:101:enqueued:0 ");
    assert_null(lade_download_error(job));
    assert_true(lade_download_job_ended(job) < 1);
}

static void
test_own_handlers_come_first_and_can_be_cleared(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_download_handler_t own[] = {{s_hear, s_new_ear(self, "a")},
                                     {s_hear, s_new_ear(self, "b")}};
    lade_download_spec_t spec = LADE_DOWNLOAD_SPEC;
    lade_download_t *job;
    spec.source = "http://x/a";
    spec.handlers = own;
    spec.handler_count = 1;
    OK(lade_download_new(&spec, &job, &error));
    assert_int_equal(lade_download_id(job), -1);
    assert_int_equal(lade_download_status(job), LADE_DOWNLOAD_IDLE);
    assert_int_equal(lade_queue_start_job(self->queue, job, &error), LADE_UNKNOWN_JOB_ID);
    lade_download_add_event_handler(job, own[1]);
    OK(lade_queue_submit_download_job(self->queue, job, false, &error));
    assert_int_equal(lade_download_status(job), LADE_DOWNLOAD_IDLE);
    OK(lade_queue_start_job(self->queue, job, &error));
    assert_string_equal(self->told, "a:101:enqueued:0 b:101:enqueued:0 q:101:enqueued:0 ");
    self->told[0] = '\0';
    lade_download_clear_event_handlers(job);
    OK(lade_queue_cancel_job(self->queue, job, &error));
    assert_string_equal(self->told, "q:101:cancelled:0 ");
    assert_int_equal(lade_download_outcome(job, &error), LADE_CANCELLED);
    assert_int_equal(lade_queue_submit_download_job(self->queue, job, true, &error), LADE_USAGE);
}

// Cancels, submits, prunes and tries to wait, all from inside.
static void
s_meddle(void *arg, lade_download_t *job)
{
    s_world_t *self = arg;
    lade_error_t error;
    size_t count = 0;
    if (lade_download_status(job) == LADE_DOWNLOAD_RUNNING) {
        assert_int_equal(lade_queue_join(self->queue, 1, &error), LADE_USAGE);
        assert_int_equal(lade_queue_run(self->queue, 0, &error), LADE_USAGE);
        lade_queue_t *queue = self->queue;
        lade_queue_close(&queue);
        assert_non_null(queue);
        self->kept = s_submit(self, false);
        OK(lade_queue_cancel_job(self->queue, job, &error));
        assert_int_equal(lade_download_status(job), LADE_DOWNLOAD_RUNNING); // not told yet
    } else if (lade_download_status(job) == LADE_DOWNLOAD_CANCELLED) {
        lade_download_clear_event_handlers(job);
        OK(lade_queue_prune_jobs(self->queue, &count, &error));
        assert_int_equal(count, 1);
    }
}

static void
test_a_handler_may_cancel_submit_and_prune(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_download_t *job = s_submit(self, true);
    lade_download_add_event_handler(job, (lade_download_handler_t){s_meddle, self});
    fake_do(&self->fake, "journal download_running 101 1");
    s_expect(self, "q:101:enqueued:0 q:101:running:1 q:101:cancelled:1 ");
    assert_int_equal(lade_queue_id_to_job(self->queue, 101, &job, &error), LADE_UNKNOWN_JOB_ID);
    assert_int_equal(lade_queue_list_jobs(self->queue, &job, 1), 1);
    assert_ptr_equal(job, self->kept);
}

static void
test_progress_that_comes_late_changes_nothing(void **state)
{
    s_world_t *self = *state;
    s_submit(self, true);
    fake_do(&self->fake, "journal download_completed 101 100");
    fake_do(&self->fake, "progress download_running 101 99");
    fake_do(&self->fake, "journal download_error 102 internal"); // nobody's
    s_expect(self, "q:101:enqueued:0 q:101:completed:100 ");
}

static void
test_lost_events_are_told_all_the_same(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_download_t *job = s_submit(self, true);
    fake_do(&self->fake, "lose download_running 101 1");
    fake_do(&self->fake, "lose download_completed 101 100");
    OK(lade_queue_join(self->queue, 10, &error));
    s_expect(self, "q:101:enqueued:0 q:101:running:1 q:101:completed:100 ");
    assert_int_equal(lade_download_status(job), LADE_DOWNLOAD_COMPLETED);
}

static void
test_a_journal_that_begins_later_is_made_up_for(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    s_submit(self, false);
    for (int i = 0; i < 5; i++)
        fake_do(&self->fake, "lose download_running 999 1");
    fake_do(&self->fake, "oldest 3");
    OK(lade_queue_run(self->queue, 0.1, &error));
    fake_do(&self->fake, "journal download_running 101 1");
    s_expect(self, "q:101:running:1 ");
}

static void
test_waiting_ends_in_time(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_download_t *job = s_submit(self, true);
    int64_t before = lade_mono_ms();
    assert_int_equal(lade_queue_wait_for_job(self->queue, job, 0.1, &error), LADE_TIMEOUT);
    assert_int_equal(lade_queue_join(self->queue, 0.1, &error), LADE_TIMEOUT);
    assert_in_range(lade_mono_ms() - before, 200, 3000);
    OK(lade_queue_pause_job(self->queue, job, &error));
    OK(lade_queue_join(self->queue, 10, &error)); // paused ones are not waited for
}

static void
test_all_are_those_of_the_queue(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_queue_t *other;
    lade_download_handler_t handler = {s_hear, s_new_ear(self, "r")};
    OK(lade_queue_open(self->client, &handler, 1, true, &other, &error));
    lade_download_t *first = s_submit(self, true), *adopted, *jobs[4];
    s_submit(self, true);
    assert_int_equal(lade_queue_pause_job(other, first, &error), LADE_UNKNOWN_JOB_ID);
    assert_int_equal(lade_queue_wait_for_job(other, first, 1, &error), LADE_UNKNOWN_JOB_ID);
    assert_int_equal(lade_queue_id_to_job(other, 101, &adopted, &error), LADE_UNKNOWN_JOB_ID);
    OK(lade_queue_cancel_all_jobs(other, &error));
    assert_int_equal(lade_queue_list_jobs(other, jobs, 4), 0);
    OK(lade_queue_adopt(other, 101, &adopted, &error));
    assert_int_equal(lade_queue_adopt(other, 999, &adopted, &error), LADE_UNKNOWN_JOB_ID);
    OK(lade_queue_cancel_all_jobs(other, &error));
    assert_string_equal(self->told, "r:101:cancelled:0 ");
    self->told[0] = '\0';
    s_expect(self, "q:101:enqueued:0 q:102:enqueued:0 q:101:cancelled:0 ");
    OK(lade_queue_pause_all_jobs(self->queue, &error));
    OK(lade_queue_start_all_jobs(self->queue, &error));
    s_expect(self, "q:102:paused:0 q:102:enqueued:0 ");
    assert_int_equal(lade_queue_list_jobs(self->queue, jobs, 1), 2);
    size_t count;
    OK(lade_queue_prune_jobs(self->queue, &count, &error));
    assert_int_equal(count, 1);
    assert_int_equal(lade_queue_list_jobs(self->queue, jobs, 4), 1);
    assert_int_equal(lade_download_id(jobs[0]), 102);
    lade_queue_close(&other);
}

static void
test_flags_change_while_it_runs(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_download_t *job = s_submit(self, true);
    OK(lade_queue_set_preserve(self->queue, job, true, &error));
    OK(lade_queue_set_priority(self->queue, job, -3, &error));
    assert_true(lade_download_preserves(job));
    assert_int_equal(lade_download_priority(job), -3);
}

static void
test_every_class_of_job_is_packed(void **state)
{
    s_world_t *self = *state;
    lade_error_t error;
    lade_download_t *job;
    const char *mirrors[] = {"http://y/a", "http://z/a", NULL};
    const lade_download_file_t files[] = {{.url = "http://x/1", .path = "u/1", .size = 5},
                                          {.url = "http://x/2", .path = "2", .sha256 = "00"}};
    lade_download_spec_t spec = LADE_DOWNLOAD_SPEC;
    assert_int_equal(lade_download_new(&spec, &job, &error), LADE_VALUE_ERROR);
    assert_null(job);
    spec.source = "http://x/a";
    spec.mirrors = mirrors;
    OK(lade_queue_create_download_job(self->queue, &spec, false, &job, &error));
    spec = (lade_download_spec_t)LADE_DOWNLOAD_SPEC;
    spec.files = files;
    spec.file_count = 2;
    spec.destdir = "/to";
    OK(lade_queue_create_download_job(self->queue, &spec, false, &job, &error));
    assert_string_equal(lade_download_source(job), "http://x/1");
    char *seen;
    OK(lade_call(self->client, "test", "seen", NULL, &seen, &error));
    assert_non_null(strstr(seen, "\"source\":[\"http://x/a\",\"http://y/a\",\"http://z/a\"]"));
    assert_non_null(strstr(seen, "\"files\":[{"));
    assert_non_null(strstr(seen, "\"size\":5"));
    assert_non_null(strstr(seen, "\"token\":\"")); // asking again is the same job
    free(seen);
}

static void
test_a_broker_that_restarts_is_followed_on(void **state)
{
    s_world_t *self = *state;
    s_submit(self, true);
    s_expect(self, "q:101:enqueued:0 ");
    fake_do(&self->fake, "stop");
    fake_do(&self->fake, "start");
    fake_do(&self->fake, "lose download_completed 101 100");
    s_expect(self, "q:101:completed:100 ");
}

int
main(void)
{
#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_open, s_close)
    const struct CMUnitTest tests[] = {
        S_TEST(test_a_job_has_the_fields_of_its_life),
        S_TEST(test_an_error_says_why_and_a_retry_forgets_it),
        S_TEST(test_own_handlers_come_first_and_can_be_cleared),
        S_TEST(test_a_handler_may_cancel_submit_and_prune),
        S_TEST(test_progress_that_comes_late_changes_nothing),
        S_TEST(test_lost_events_are_told_all_the_same),
        S_TEST(test_a_journal_that_begins_later_is_made_up_for),
        S_TEST(test_waiting_ends_in_time),
        S_TEST(test_all_are_those_of_the_queue),
        S_TEST(test_flags_change_while_it_runs),
        S_TEST(test_every_class_of_job_is_packed),
        S_TEST(test_a_broker_that_restarts_is_followed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
