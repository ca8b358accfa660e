// liblade's calls against a broker of our own.
#include "client/request.h"

#include "client/fake_test.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    fake_t fake;
    lade_t *client;
} s_world_t;

static int
s_open(void **state)
{
    s_world_t *self = calloc(1, sizeof *self);
    fake_open(&self->fake);
    *state = self;
    return lade_open(NULL, self->fake.folder, NULL, &self->client, NULL);
}

static int
s_close(void **state)
{
    s_world_t *self = *state;
    lade_close(&self->client);
    assert_null(self->client);
    fake_close(&self->fake);
    free(self);
    return 0;
}

// How often the broker has read a request of that name; *last_p is the newest one's args (yours).
static size_t
s_seen(s_world_t *self, const char *name, json_t **last_p)
{
    json_t *seen = NULL;
    assert_int_equal(lade_request_json(self->client, "test", "seen", NULL, NULL, NULL, &seen, NULL),
                     LADE_OK);
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(seen); i++)
        if (strcmp(lade_json_text(json_array_get(seen, i), "name", ""), name) == 0) {
            count++;
            if (last_p) {
                json_decref(*last_p);
                *last_p = json_incref(json_object_get(json_array_get(seen, i), "args"));
            }
        }
    json_decref(seen);
    return count;
}

// Turns until the request has ended or the broker has seen it often enough.
static void
s_turn_until_seen(s_world_t *self, const char *name, size_t count)
{
    int64_t deadline = lade_mono_ms() + 10000;
    while (s_seen(self, name, NULL) < count)
        assert_true(lade_mono_ms() < deadline);
}

static void
test_call_answers_json(void **state)
{
    s_world_t *self = *state;
    char *result = NULL;
    lade_error_t error = {0};
    assert_int_equal(
        lade_call(self->client, "test", "echo", "{\"a\": [1, null, \"ü\"]}", &result, &error),
        LADE_OK);
    assert_string_equal(result, "{\"a\":[1,null,\"ü\"]}");
    free(result);
    assert_int_equal(lade_call(self->client, "test", "echo", NULL, NULL, &error), LADE_OK);
}

static void
test_call_tells_the_brokers_error(void **state)
{
    s_world_t *self = *state;
    lade_error_t error = {0};
    char *result;
    assert_int_equal(lade_call(self->client, "store", "nothing", "", &result, &error),
                     LADE_UNKNOWN_MODEL);
    assert_null(result);
    assert_string_equal(error.message, "no such thing here");
}

static void
test_call_refuses_arguments_that_are_no_object(void **state)
{
    s_world_t *self = *state;
    lade_error_t error = {0};
    assert_int_equal(lade_call(self->client, "test", "echo", "{", NULL, &error), LADE_VALUE_ERROR);
    assert_int_equal(lade_call(self->client, "test", "echo", "[1]", NULL, &error),
                     LADE_VALUE_ERROR);
}

static void
test_many_requests_are_in_flight(void **state)
{
    s_world_t *self = *state;
    lade_request_t *waits[8];
    for (int i = 0; i < 8; i++)
        lade_request_start(self->client, "jobs", "wait", json_pack("{s:i}", "id", i), NULL, NULL,
                           &waits[i], NULL);
    s_turn_until_seen(self, "jobs.wait", 8);
    for (int i = 7; i >= 0; i--) { // in another order than asked
        char command[32];
        snprintf(command, sizeof command, "end %d", i);
        fake_do(&self->fake, command);
    }
    for (int i = 0; i < 8; i++) {
        json_t *job;
        while (!lade_request_ended(waits[i]))
            lade_request_turn(self->client, 100, NULL);
        assert_int_equal(lade_request_finish(&waits[i], &job, NULL), LADE_OK);
        assert_int_equal(lade_json_int(job, "id", -1), i);
        assert_null(waits[i]);
        json_decref(job);
    }
}

static bool
s_count(void *arg, const char *partial)
{
    int *count = arg;
    assert_non_null(strstr(partial, "running"));
    return ++*count < 2 || *count > 100;
}

static bool
s_count_all(void *arg, const char *partial)
{
    int *count = arg;
    (void)partial;
    ++*count;
    return true;
}

static void
test_partial_answers_are_told_and_may_end_the_waiting(void **state)
{
    s_world_t *self = *state;
    lade_error_t error = {0};
    int count = 0;
    assert_int_equal(
        lade_call_progress(self->client, "test", "partial", "", s_count_all, &count, NULL, &error),
        LADE_OK);
    assert_int_equal(count, 3);
    count = 0;
    assert_int_equal(
        lade_call_progress(self->client, "test", "partial", "", s_count, &count, NULL, &error),
        LADE_CANCELLED);
    assert_int_equal(count, 2);
}

static void
test_nobody_there_is_noticed_at_once(void **state)
{
    s_world_t *self = *state;
    lade_error_t error = {0};
    fake_do(&self->fake, "stop");
    int64_t from = lade_mono_ms();
    assert_int_equal(lade_call(self->client, "test", "echo", "", NULL, &error),
                     LADE_BROKER_UNREACHABLE);
    assert_true(lade_mono_ms() - from < 2000);
    assert_non_null(strstr(error.message, self->fake.clients));
    assert_non_null(strstr(error.message, "lade up"));
}

static void
test_a_broker_that_answers_nothing_is_unreachable(void **state)
{
    s_world_t *self = *state;
    lade_error_t error = {0};
    fake_do(&self->fake, "swallow 1000");
    lade_set_timeout(self->client, 300);
    assert_int_equal(lade_call(self->client, "test", "echo", "", NULL, &error),
                     LADE_BROKER_UNREACHABLE);
    assert_non_null(strstr(error.message, "does not answer"));
}

static void
test_a_wait_is_longer_than_the_timeout_if_the_broker_is_alive(void **state)
{
    s_world_t *self = *state;
    lade_request_t *wait;
    lade_set_timeout(self->client, 100);
    lade_request_set_patience(self->client, 100);
    lade_request_start(self->client, "jobs", "wait", json_pack("{s:i}", "id", 1), NULL, NULL, &wait,
                       NULL);
    for (int64_t until = lade_mono_ms() + 500;
         lade_mono_ms() < until;) // only its pings are answered
        lade_request_turn(self->client, 20, NULL);
    assert_false(lade_request_ended(wait));
    fake_do(&self->fake, "end 1");
    while (!lade_request_ended(wait))
        lade_request_turn(self->client, 100, NULL);
    assert_int_equal(lade_request_finish(&wait, NULL, NULL), LADE_OK);
}

static void
test_a_wait_survives_a_restart(void **state)
{
    s_world_t *self = *state;
    lade_request_t *wait;
    lade_request_start(self->client, "jobs", "wait", json_pack("{s:i}", "id", 3), NULL, NULL, &wait,
                       NULL);
    s_turn_until_seen(self, "jobs.wait", 1);
    fake_do(&self->fake, "stop");
    for (int64_t until = lade_mono_ms() + 400;
         lade_mono_ms() < until;) // longer than it takes when nobody ever was
        lade_request_turn(self->client, 20, NULL);
    assert_false(lade_request_ended(wait));
    fake_do(&self->fake, "start");
    s_turn_until_seen(self, "jobs.wait", 2);
    fake_do(&self->fake, "end 3");
    json_t *job = NULL;
    while (!lade_request_ended(wait))
        lade_request_turn(self->client, 100, NULL);
    assert_int_equal(lade_request_finish(&wait, &job, NULL), LADE_OK);
    assert_string_equal(lade_json_text(job, "status", ""), "completed");
    json_decref(job);
}

static void
test_a_submission_is_repeated_with_its_token(void **state)
{
    s_world_t *self = *state;
    lade_request_t *submit;
    s_turn_until_seen(self, "test.seen", 1);
    fake_do(&self->fake, "swallow 1");
    lade_request_start(self->client, "install", "heuristic_import",
                       json_pack("{s:s}", "source", "x"), NULL, NULL, &submit, NULL);
    json_t *first = NULL, *second = NULL;
    s_turn_until_seen(self, "install.heuristic_import", 1);
    s_seen(self, "install.heuristic_import", &first);
    fake_do(&self->fake, "stop");
    fake_do(&self->fake, "start");
    while (!lade_request_ended(submit))
        lade_request_turn(self->client, 100, NULL);
    assert_int_equal(lade_request_finish(&submit, NULL, NULL), LADE_OK);
    assert_int_equal(s_seen(self, "install.heuristic_import", &second), 2);
    assert_int_equal(strlen(lade_json_text(first, "token", "")), 32);
    assert_true(json_equal(first, second));
    json_decref(first);
    json_decref(second);
}

// Whoever gives up waiting for a model must not have it locked for as long as it lives.
static void
test_a_load_is_one_job_whose_lease_ends_by_itself(void **state)
{
    s_world_t *self = *state;
    lade_model_t *model = NULL;
    lade_load_options_t options = {.submodel = "vae"};
    static const char *const ops[] = {"load.load_model_by_key", "load.load_model_by_attr",
                                      "load.load_model_by_config", "load.load_model_from_path"};
    lade_load_model_by_key(self->client, "k", &options, &model, NULL);
    lade_load_model_by_attr(self->client, "n", "sd-1", "main", &options, &model, NULL);
    lade_load_model_by_config(self->client, "{\"key\": \"k\"}", &options, &model, NULL);
    lade_load_model_from_path(self->client, "/x", &options, &model, NULL);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        json_t *args = NULL;
        assert_int_equal(s_seen(self, ops[i], &args), 1);
        assert_int_equal(strlen(lade_json_text(args, "token", "")), 32);
        assert_int_equal(lade_json_int(args, "pid", 0), getpid());
        assert_true(lade_json_real(args, "ttl_s", 0) >= 10);
        assert_string_equal(lade_json_text(args, "submodel", ""), "vae");
        json_decref(args);
    }
}

static void
test_what_must_not_happen_twice_is_not_repeated(void **state)
{
    s_world_t *self = *state;
    lade_request_t *request;
    lade_error_t error = {0};
    lade_request_start(self->client, "store", "del_model", json_pack("{s:s}", "key", "x"), NULL,
                       NULL, &request, NULL);
    // Another one after it, so that the first is known to be delivered over a connection that is
    // up.
    s_turn_until_seen(self, "store.del_model", 1);
    fake_do(&self->fake, "stop");
    while (!lade_request_ended(request))
        lade_request_turn(self->client, 100, NULL);
    assert_int_equal(lade_request_finish(&request, NULL, &error), LADE_BROKER_UNREACHABLE);
    assert_non_null(strstr(error.message, "before you repeat it"));
    fake_do(&self->fake, "start");
    assert_int_equal(s_seen(self, "store.del_model", NULL), 1);
}

static void
test_patience_ends_when_the_broker_stays_away(void **state)
{
    s_world_t *self = *state;
    lade_request_t *wait;
    lade_error_t error = {0};
    lade_request_set_patience(self->client, 300);
    lade_request_start(self->client, "jobs", "wait", json_pack("{s:i}", "id", 3), NULL, NULL, &wait,
                       NULL);
    s_turn_until_seen(self, "jobs.wait", 1);
    fake_do(&self->fake, "stop");
    while (!lade_request_ended(wait))
        lade_request_turn(self->client, 100, NULL);
    assert_int_equal(lade_request_finish(&wait, NULL, &error), LADE_BROKER_UNREACHABLE);
}

static void
test_bytes_that_are_no_text_become_json_text(void **state)
{
    s_world_t *self = *state;
    char *result = NULL;
    assert_int_equal(lade_call(self->client, "test", "bytes", "", &result, NULL), LADE_OK);
    assert_string_equal(result, "\"a\xef\xbf\xbd\\u0001z\"");
    free(result);
}

static void
test_answers_that_mean_nothing_are_passed_over(void **state)
{
    s_world_t *self = *state;
    assert_int_equal(lade_call(self->client, "test", "echo", "", NULL, NULL), LADE_OK);
    fake_do(&self->fake, "garbage");
    char *result = NULL;
    assert_int_equal(lade_call(self->client, "jobs2", "x", "", &result, NULL), LADE_UNKNOWN_MODEL);
    assert_int_equal(lade_call(self->client, "test", "echo", "{\"b\":1}", &result, NULL), LADE_OK);
    assert_string_equal(result, "{\"b\":1}");
    free(result);
}

static void
test_install_gives_the_record(void **state)
{
    s_world_t *self = *state;
    char *record = NULL;
    lade_error_t error = {0};
    assert_int_equal(lade_install(self->client, "/x", "{\"name\":\"n\"}", 0, &record, &error),
                     LADE_OK);
    assert_non_null(strstr(record, "0000000000000001"));
    free(record);
    assert_int_equal(lade_install(self->client, "/x", "[]", 0, &record, &error), LADE_VALUE_ERROR);
    assert_null(record);
}

static void
test_a_fork_is_told_to_open_its_own(void **state)
{
    s_world_t *self = *state;
    assert_int_equal(lade_call(self->client, "test", "echo", "", NULL, NULL), LADE_OK);
    pid_t pid = fork();
    if (pid == 0) {
        lade_error_t error = {0};
        // A signal says yes: a child that exits would be searched for leaks of what is its
        // parent's.
        if (lade_call(self->client, "test", "echo", "", NULL, &error) == LADE_USAGE)
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
}

static void
test_closing_ends_what_is_in_flight(void **state)
{
    s_world_t *self = *state;
    lade_request_t *wait;
    lade_request_start(self->client, "jobs", "wait", json_pack("{s:i}", "id", 3), NULL, NULL, &wait,
                       NULL);
    lade_close(&self->client);
    assert_true(lade_request_ended(wait));
    assert_int_equal(lade_request_finish(&wait, NULL, NULL), LADE_CANCELLED);
}

static void
test_a_stop_descriptor_ends_the_waiting(void **state)
{
    s_world_t *self = *state;
    int pipe_fds[2];
    lade_error_t error = {0};
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    lade_request_set_stop(self->client, pipe_fds[0]);
    assert_int_equal(lade_call(self->client, "jobs", "wait", "{\"id\":1}", NULL, &error),
                     LADE_CANCELLED);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_open, s_close)
    const struct CMUnitTest tests[] = {
        TEST(test_call_answers_json),
        TEST(test_call_tells_the_brokers_error),
        TEST(test_call_refuses_arguments_that_are_no_object),
        TEST(test_many_requests_are_in_flight),
        TEST(test_partial_answers_are_told_and_may_end_the_waiting),
        TEST(test_nobody_there_is_noticed_at_once),
        TEST(test_a_broker_that_answers_nothing_is_unreachable),
        TEST(test_a_wait_is_longer_than_the_timeout_if_the_broker_is_alive),
        TEST(test_a_wait_survives_a_restart),
        TEST(test_a_submission_is_repeated_with_its_token),
        TEST(test_a_load_is_one_job_whose_lease_ends_by_itself),
        TEST(test_what_must_not_happen_twice_is_not_repeated),
        TEST(test_patience_ends_when_the_broker_stays_away),
        TEST(test_bytes_that_are_no_text_become_json_text),
        TEST(test_answers_that_mean_nothing_are_passed_over),
        TEST(test_install_gives_the_record),
        TEST(test_a_fork_is_told_to_open_its_own),
        TEST(test_closing_ends_what_is_in_flight),
        TEST(test_a_stop_descriptor_ends_the_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
