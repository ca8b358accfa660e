// The worker's loop against a broker played by the test, over ipc.
#include "workers/worker/worker.h"

#include "common/endpoint.h"
#include "common/path.h"
#include "common/wire.h"

#include <czmq.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { S_DEADLINE_MS = 10000, S_BEAT_MS = 100, S_TASKS = 16 };

typedef struct {
    char folder[64];
    lade_config_t config;
    zsock_t *router;
    zframe_t *peer; // who spoke last
    lade_worker_t *worker;
    pthread_t thread;
    lade_code_t code; // what lade_worker_run returned
    int64_t grace_ms;
    bool running;

    pthread_mutex_t lock; // guards what follows: the work, as the loop calls it
    pthread_cond_t news;
    lade_task_t *started[S_TASKS];
    size_t started_count;
    size_t stops;
    bool answer_on_stop; // answers a stopped task at once
    int told;            // a figure in the stats
    lade_terms_t terms;  // the last that came, for terms_of
    lade_task_t *terms_of;
    size_t terms_count;
} s_fixture_t;

static void
s_start(void *self, lade_task_t *task)
{
    s_fixture_t *f = self;
    pthread_mutex_lock(&f->lock);
    assert(f->started_count < S_TASKS);
    f->started[f->started_count++] = task;
    pthread_cond_broadcast(&f->news);
    pthread_mutex_unlock(&f->lock);
}

static void
s_stop(void *self, lade_task_t *task)
{
    s_fixture_t *f = self;
    pthread_mutex_lock(&f->lock);
    f->stops++;
    pthread_cond_broadcast(&f->news);
    if (f->answer_on_stop) {
        lade_error_t error;
        lade_error_set(&error, LADE_CANCELLED, "stopped");
        lade_task_fail(&task, &error, 0);
    }
    pthread_mutex_unlock(&f->lock);
}

static json_t *
s_stats(void *self)
{
    s_fixture_t *f = self;
    pthread_mutex_lock(&f->lock);
    json_t *stats = json_pack("{s:i, s:i}", "answer", 42, "told", f->told);
    pthread_mutex_unlock(&f->lock);
    return stats;
}

static void
s_terms(void *self, lade_task_t *task, const lade_terms_t *terms)
{
    s_fixture_t *f = self;
    pthread_mutex_lock(&f->lock);
    f->terms = *terms;
    f->terms_of = task;
    f->terms_count++;
    pthread_cond_broadcast(&f->news);
    pthread_mutex_unlock(&f->lock);
}

static const char *const s_kinds[] = {"test", "other", NULL};
static const lade_worker_ops_t s_ops = {.name = "tester",
                                        .kinds = s_kinds,
                                        .start = s_start,
                                        .stop = s_stop,
                                        .stats = s_stats,
                                        .terms = s_terms};

static void *
s_thread(void *arg)
{
    s_fixture_t *f = arg;
    lade_error_t error = {0};
    f->code = lade_worker_run(f->worker, f->grace_ms, &error);
    if (f->code)
        print_message("lade_worker_run: %s\n", error.message);
    return NULL;
}

static void
s_bind(s_fixture_t *f)
{
    lade_error_t error;
    f->router = zsock_new(ZMQ_ROUTER);
    assert_int_equal(lade_endpoint_bind(f->router, f->config.workers, &f->config, &error), LADE_OK);
}

static void
s_wait_until(struct timespec *until)
{
    clock_gettime(CLOCK_REALTIME, until);
    until->tv_sec += S_DEADLINE_MS / 1000;
}

// Waits until count tasks were started; the last of them.
static lade_task_t *
s_started(s_fixture_t *f, size_t count)
{
    struct timespec until;
    s_wait_until(&until);
    pthread_mutex_lock(&f->lock);
    while (f->started_count < count)
        assert_int_equal(pthread_cond_timedwait(&f->news, &f->lock, &until), 0);
    lade_task_t *task = f->started[count - 1];
    pthread_mutex_unlock(&f->lock);
    return task;
}

static void
s_stopped(s_fixture_t *f, size_t count)
{
    struct timespec until;
    s_wait_until(&until);
    pthread_mutex_lock(&f->lock);
    while (f->stops < count)
        assert_int_equal(pthread_cond_timedwait(&f->news, &f->lock, &until), 0);
    pthread_mutex_unlock(&f->lock);
}

// Waits for the count-th terms; the last that came.
static lade_terms_t
s_told_terms(s_fixture_t *f, size_t count)
{
    struct timespec until;
    s_wait_until(&until);
    pthread_mutex_lock(&f->lock);
    while (f->terms_count < count)
        assert_int_equal(pthread_cond_timedwait(&f->news, &f->lock, &until), 0);
    lade_terms_t terms = f->terms;
    pthread_mutex_unlock(&f->lock);
    return terms;
}

// The task the last terms were of; NULL: the worker's own.
static lade_task_t *
s_terms_of(s_fixture_t *f)
{
    pthread_mutex_lock(&f->lock);
    lade_task_t *task = f->terms_of;
    pthread_mutex_unlock(&f->lock);
    return task;
}

static size_t
s_count(s_fixture_t *f, const size_t *counter)
{
    pthread_mutex_lock(&f->lock);
    size_t count = *counter;
    pthread_mutex_unlock(&f->lock);
    return count;
}

// The next message of any kind; its command.
static int
s_next(s_fixture_t *f, json_t **body_p)
{
    zmq_pollitem_t item = {zsock_resolve(f->router), 0, ZMQ_POLLIN, 0};
    assert_int_equal(zmq_poll(&item, 1, S_DEADLINE_MS), 1);
    zmsg_t *msg = zmsg_recv(f->router);
    assert_int_equal(zmsg_size(msg), 5);
    zframe_destroy(&f->peer);
    f->peer = zmsg_pop(msg);
    zframe_t *empty = zmsg_pop(msg), *protocol = zmsg_pop(msg), *command = zmsg_pop(msg);
    zframe_t *body = zmsg_pop(msg);
    assert_int_equal(zframe_size(empty), 0);
    assert_true(zframe_streq(protocol, "LADEW1"));
    int number = zframe_data(command)[0];
    lade_error_t error;
    assert_int_equal(lade_wire_to_json(zframe_data(body), zframe_size(body), body_p, &error),
                     LADE_OK);
    zframe_t *frames[] = {empty, protocol, command, body};
    for (size_t i = 0; i < 4; i++)
        zframe_destroy(&frames[i]);
    zmsg_destroy(&msg);
    return number;
}

// The next message with that command; beats and progress before it are passed over, anything else
// is a mistake.
static json_t *
s_expect(s_fixture_t *f, int command)
{
    int64_t until_ms = lade_mono_ms() + S_DEADLINE_MS;
    while (lade_mono_ms() < until_ms) {
        json_t *body;
        int got = s_next(f, &body);
        if (got == command)
            return body;
        if (got != LADE_W_BEAT && got != LADE_W_PROGRESS)
            fail_msg("%s came instead of %s", lade_worker_command_name(got),
                     lade_worker_command_name(command));
        json_decref(body);
    }
    fail_msg("no %s came", lade_worker_command_name(command));
    return NULL;
}

static void
s_say_bytes(s_fixture_t *f, int command, const void *bytes, size_t len)
{
    zmsg_t *msg = zmsg_new();
    char byte = (char)command;
    zframe_t *peer = zframe_dup(f->peer);
    zmsg_append(msg, &peer);
    zmsg_addmem(msg, "", 0);
    zmsg_addstr(msg, "LADEW1");
    zmsg_addmem(msg, &byte, 1);
    zmsg_addmem(msg, bytes, len);
    assert_int_equal(zmsg_send(&msg, f->router), 0);
}

// Takes body.
static void
s_say(s_fixture_t *f, int command, json_t *body)
{
    lade_buf_t buf = LADE_BUF(1 << 20);
    lade_error_t error;
    assert_non_null(body);
    assert_int_equal(lade_wire_from_json(body, &buf, &error), LADE_OK);
    s_say_bytes(f, command, buf.data, buf.len);
    lade_buf_free(&buf);
    json_decref(body);
}

static void
s_welcome(s_fixture_t *f, json_t *drop)
{
    s_say(f, LADE_W_WELCOME,
          json_pack("{s:f, s:i, s:i, s:o}", "epoch", 1.5, "beat_ms", S_BEAT_MS, "lease_beats", 3,
                    "drop", drop ? drop : json_array()));
}

static void
s_greet(s_fixture_t *f)
{
    json_decref(s_expect(f, LADE_W_HELLO));
    s_welcome(f, NULL);
}

static json_t *
s_job(int id, int attempt)
{
    return json_pack("{s:i, s:i, s:s, s:s, s:{s:s}, s:i, s:i, s:n, s:[]}", "id", id, "attempt",
                     attempt, "kind", "test", "source", "from", "spec", "size", "large", "stage", 2,
                     "failures", 1, "state", "children");
}

static lade_task_t *
s_give(s_fixture_t *f, int id, int attempt)
{
    size_t count = s_count(f, &f->started_count) + 1;
    s_say(f, LADE_W_JOB, s_job(id, attempt));
    return s_started(f, count);
}

static bool
s_lists(json_t *body, int id, int attempt)
{
    size_t i;
    json_t *job;
    json_array_foreach(json_object_get(body, "jobs"), i, job)
    {
        if (lade_json_int(job, "id", 0) == id && lade_json_int(job, "attempt", 0) == attempt)
            return true;
    }
    return false;
}

static int
s_setup(void **state)
{
    s_fixture_t *f = calloc(1, sizeof *f);
    const char *tmp = getenv("TMPDIR");
    snprintf(f->folder, sizeof f->folder, "%s/lade-worker-XXXXXX",
             tmp && strlen(tmp) < 32 ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->folder));
    lade_error_t error;
    assert_int_equal(lade_config_load(&f->config, "", f->folder, &error), LADE_OK);
    assert_int_equal(lade_config_set(&f->config, "broker.beat_ms", "100", &error), LADE_OK);
    assert_int_equal(lade_config_set(&f->config, "worker.labels", "gpu=h100,site=a", &error),
                     LADE_OK);
    assert_int_equal(lade_config_set(&f->config, "broker.max_message_bytes", "65536", &error),
                     LADE_OK);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->news, NULL);
    f->answer_on_stop = false;
    s_bind(f);
    f->worker = lade_worker_new(&f->config, &s_ops, f, 3);
    assert_int_equal(pthread_create(&f->thread, NULL, s_thread, f), 0);
    f->running = true;
    *state = f;
    return 0;
}

static void
s_join(s_fixture_t *f)
{
    pthread_join(f->thread, NULL);
    f->running = false;
}

static int
s_teardown(void **state)
{
    s_fixture_t *f = *state;
    if (f->running) {
        zsock_destroy(&f->router); // so that nobody is waited for
        lade_worker_stop(f->worker);
        lade_worker_stop(f->worker);
        s_join(f);
    }
    lade_worker_destroy(&f->worker);
    zsock_destroy(&f->router);
    zframe_destroy(&f->peer);
    pthread_cond_destroy(&f->news);
    pthread_mutex_destroy(&f->lock);
    lade_path_remove(f->folder, NULL);
    lade_config_free(&f->config);
    free(f);
    return 0;
}

// ---------------------------------------------------------------------------------------------------

static void
test_hello_says_who_we_are(void **state)
{
    s_fixture_t *f = *state;
    json_t *hello = s_expect(f, LADE_W_HELLO);
    assert_string_equal(lade_json_text(hello, "name", ""), lade_worker_name(f->worker));
    assert_int_equal(strncmp(lade_json_text(hello, "name", ""), "tester@", 7), 0);
    assert_int_equal(lade_json_int(hello, "pid", 0), getpid());
    assert_int_equal(lade_json_int(hello, "slots", 0), 3);
    assert_int_equal(json_array_size(json_object_get(hello, "kinds")), 2);
    json_t *labels = json_object_get(hello, "labels");
    assert_string_equal(lade_json_text(labels, "gpu", ""), "h100");
    assert_string_equal(lade_json_text(labels, "site", ""), "a");
    assert_string_equal(lade_json_text(hello, "version", ""), LADE_VERSION);
    assert_int_equal(json_array_size(json_object_get(hello, "jobs")), 0);
    assert_true(lade_json_bool(hello, "terms", false));
    json_decref(hello);
    s_welcome(f, NULL);
    json_t *beat = s_expect(f, LADE_W_BEAT);
    assert_int_equal(lade_json_int(json_object_get(beat, "stats"), "answer", 0), 42);
    json_decref(beat);
}

static void
test_job_is_done_and_reported_until_acknowledged(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 7, 2);
    assert_int_equal(lade_task_id(task), 7);
    assert_int_equal(lade_task_attempt(task), 2);
    assert_int_equal(lade_task_failures(task), 1);
    assert_string_equal(lade_task_kind(task), "test");
    assert_string_equal(lade_task_source(task), "from");
    assert_string_equal(lade_json_text(lade_task_spec(task), "size", ""), "large");
    assert_null(lade_task_state(task));
    assert_int_equal(json_array_size(lade_task_children(task)), 0);
    assert_int_equal(lade_task_stop(task), LADE_STOP_NONE);
    lade_task_done(&task, json_pack("{s:s}", "path", "/a"),
                   json_pack("[{s:s}]", "op", "put_model"));
    assert_null(task);
    json_t *done = s_expect(f, LADE_W_DONE);
    assert_int_equal(lade_json_int(done, "n", 0), 1);
    assert_int_equal(lade_json_int(done, "id", 0), 7);
    assert_int_equal(lade_json_int(done, "attempt", 0), 2);
    assert_string_equal(lade_json_text(json_object_get(done, "result"), "path", ""), "/a");
    assert_int_equal(json_array_size(json_object_get(done, "effects")), 1);
    json_decref(done);
    // An answer that is not on disk yet: the job is still ours.
    s_say(f, LADE_W_BEAT, json_pack("{s:i, s:b}", "acked", 0, "known", 1));
    json_t *beat = s_expect(f, LADE_W_BEAT);
    assert_true(s_lists(beat, 7, 2));
    json_decref(beat);
    s_say(f, LADE_W_BEAT, json_pack("{s:i, s:b}", "acked", 1, "known", 1));
    bool listed = true;
    for (int i = 0; i < 10 && listed; i++) {
        beat = s_expect(f, LADE_W_BEAT);
        listed = s_lists(beat, 7, 2);
        json_decref(beat);
    }
    assert_false(listed);
}

static void
test_stats_are_told_before_the_answer_that_changed_them(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 7, 1);
    pthread_mutex_lock(&f->lock);
    f->told = 7;
    pthread_mutex_unlock(&f->lock);
    lade_task_done(&task, NULL, NULL);
    int64_t told = 0;
    for (int command = 0; command != LADE_W_DONE;) {
        json_t *body;
        command = s_next(f, &body);
        if (command == LADE_W_BEAT)
            told = lade_json_int(json_object_get(body, "stats"), "told", 0);
        json_decref(body);
    }
    assert_int_equal(told, 7);
}

static void
test_failure_carries_code_and_words(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    lade_error_t error;
    lade_error_set(&error, LADE_RATE_LIMITED, "the server asks to wait");
    lade_task_fail(&task, &error, 4.5);
    json_t *fail = s_expect(f, LADE_W_FAIL);
    assert_string_equal(lade_json_text(fail, "code", ""), "rate_limited");
    assert_string_equal(lade_json_text(fail, "message", ""), "the server asks to wait");
    assert_true(lade_json_real(fail, "retry_after_s", 0) == 4.5);
    assert_null(json_object_get(fail, "retry"));
    json_decref(fail);
    task = s_give(f, 2, 1);
    lade_task_fail(&task, &error, -1);
    fail = s_expect(f, LADE_W_FAIL);
    assert_false(lade_json_bool(fail, "retry", true));
    assert_null(json_object_get(fail, "retry_after_s"));
    json_decref(fail);
}

static void
test_await_carries_state_and_jobs(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    lade_task_await(&task, json_pack("{s:i}", "step", 3), json_pack("[{s:s}]", "kind", "download"),
                    json_pack("[{s:s, s:s}]", "op", "by_hash", "hash", "x"), 99, "/x");
    json_t *await = s_expect(f, LADE_W_AWAIT);
    assert_int_equal(lade_json_int(json_object_get(await, "state"), "step", 0), 3);
    assert_int_equal(json_array_size(json_object_get(await, "jobs")), 1);
    assert_int_equal(lade_json_int(await, "total_bytes", 0), 99);
    assert_string_equal(lade_json_text(await, "local_path", ""), "/x");
    const json_t *ask = json_array_get(json_object_get(await, "ask"), 0);
    assert_string_equal(lade_json_text(ask, "op", ""), "by_hash");
    json_decref(await);
}

static void
test_broker_restart_resends_in_order_and_keeps_the_running_job(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *first = s_give(f, 1, 1), *second = s_give(f, 2, 1), *third = s_give(f, 3, 1);
    lade_task_done(&first, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE)); // lost: the broker dies before its commit
    zsock_destroy(&f->router);
    lade_task_done(&second, NULL, NULL); // while there is no broker
    s_bind(f);
    int64_t back_ms = lade_mono_ms();
    json_t *hello;
    while (s_next(f, &hello) != LADE_W_HELLO) // what is said before it notices is not understood
        json_decref(hello);
    assert_true(lade_mono_ms() - back_ms < 2000);
    assert_true(s_lists(hello, 1, 1) && s_lists(hello, 3, 1));
    json_decref(hello);
    s_welcome(f, NULL);
    for (int n = 1; n <= 2; n++) {
        json_t *done = s_expect(f, LADE_W_DONE);
        assert_int_equal(lade_json_int(done, "n", 0), n);
        assert_int_equal(lade_json_int(done, "id", 0), n);
        json_decref(done);
    }
    assert_int_equal(lade_task_stop(third), LADE_STOP_NONE);
    lade_task_done(&third, NULL, NULL);
    json_t *done = s_expect(f, LADE_W_DONE);
    assert_int_equal(lade_json_int(done, "n", 0), 3);
    json_decref(done);
}

static void
test_unknown_to_the_broker_says_hello_again(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 5, 1);
    s_say(f, LADE_W_BEAT, json_pack("{s:i, s:b}", "acked", 0, "known", 0));
    json_t *hello = s_expect(f, LADE_W_HELLO);
    assert_true(s_lists(hello, 5, 1));
    json_decref(hello);
    s_welcome(f, NULL);
    lade_task_done(&task, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE));
}

static void
test_silent_broker_is_asked_on_a_new_connection(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    zframe_t *before = zframe_dup(f->peer);
    json_decref(s_expect(f, LADE_W_HELLO)); // nothing is said for a lease
    assert_false(zframe_eq(before, f->peer));
    zframe_destroy(&before);
}

static void
test_pause_and_cancel_reach_the_job(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 5, 4);
    s_say(f, LADE_W_CANCEL, json_pack("{s:i, s:i}", "id", 5, "attempt", 3)); // an older attempt
    s_say(f, LADE_W_CANCEL, json_pack("{s:i, s:i}", "id", 6, "attempt", 4)); // not ours
    s_say(f, LADE_W_PAUSE, json_pack("{s:i, s:i}", "id", 5, "attempt", 4));
    s_stopped(f, 1);
    assert_int_equal(lade_task_stop(task), LADE_STOP_PAUSE);
    s_say(f, LADE_W_CANCEL, json_pack("{s:i, s:i}", "id", 5, "attempt", 4));
    s_stopped(f, 2);
    assert_int_equal(lade_task_stop(task), LADE_STOP_CANCEL);
    s_say(f, LADE_W_PAUSE, json_pack("{s:i, s:i}", "id", 5, "attempt", 4)); // too late
    lade_error_t error;
    lade_error_set(&error, LADE_CANCELLED, "cancelled");
    lade_task_fail(&task, &error, 0);
    json_t *fail = s_expect(f, LADE_W_FAIL);
    assert_string_equal(lade_json_text(fail, "code", ""), "cancelled");
    json_decref(fail);
    assert_int_equal(s_count(f, &f->stops), 2);
}

static void
test_dropped_job_is_stale_and_its_late_answer_is_not_sent(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *lost = s_give(f, 5, 1), *kept = s_give(f, 6, 1);
    s_say(f, LADE_W_BEAT, json_pack("{s:i, s:b}", "acked", 0, "known", 0));
    json_decref(s_expect(f, LADE_W_HELLO));
    s_welcome(f, json_pack("[{s:i, s:i}]", "id", 5, "attempt", 1));
    s_stopped(f, 1);
    assert_int_equal(lade_task_stop(lost), LADE_STOP_STALE);
    assert_int_equal(lade_task_stop(kept), LADE_STOP_NONE);
    lade_task_done(&lost, NULL, NULL);
    lade_task_done(&kept, NULL, NULL);
    json_t *done = s_expect(f, LADE_W_DONE);
    assert_int_equal(lade_json_int(done, "id", 0), 6);
    assert_int_equal(lade_json_int(done, "n", 0), 1);
    json_decref(done);
}

static void
test_newer_attempt_of_a_held_job_makes_the_older_stale(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *old = s_give(f, 5, 1), *new = s_give(f, 5, 2);
    assert_ptr_not_equal(old, new);
    assert_int_equal(lade_task_stop(old), LADE_STOP_STALE);
    lade_task_done(&old, NULL, NULL);
    lade_task_done(&new, NULL, NULL);
    json_t *done = s_expect(f, LADE_W_DONE);
    assert_int_equal(lade_json_int(done, "attempt", 0), 2);
    json_decref(done);
}

static void
test_job_before_welcome_is_older_than_hello(void **state)
{
    s_fixture_t *f = *state;
    json_decref(s_expect(f, LADE_W_HELLO));
    s_say(f, LADE_W_JOB, s_job(1, 1));
    s_welcome(f, NULL);
    lade_task_t *task = s_give(f, 2, 1);
    assert_int_equal(lade_task_id(task), 2);
    assert_int_equal(s_count(f, &f->started_count), 1);
    s_say(f, LADE_W_JOB, s_job(2, 1)); // twice
    lade_task_done(&task, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE));
    s_say(f, LADE_W_JOB, s_job(2, 1)); // again, while its answer is not acknowledged
    task = s_give(f, 3, 1);
    assert_int_equal(lade_task_id(task), 3);
    assert_int_equal(s_count(f, &f->started_count), 2);
}

static void
test_kind_not_served_is_refused(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    json_t *job = s_job(1, 1);
    json_object_set_new(job, "kind", json_string("strange"));
    s_say(f, LADE_W_JOB, job);
    json_t *fail = s_expect(f, LADE_W_FAIL);
    assert_string_equal(lade_json_text(fail, "code", ""), "bad_request");
    json_decref(fail);
}

static void
test_malformed_messages_are_passed_over(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    s_say_bytes(f, LADE_W_JOB, "", 0);
    s_say_bytes(f, LADE_W_JOB, "\xc1", 1);
    s_say_bytes(f, LADE_W_JOB, "\x93\x01", 2);
    s_say_bytes(f, LADE_W_JOB, "\x01", 1);
    s_say_bytes(f, LADE_W_JOB, "\x81\x01\x01", 3);
    s_say(f, 0, json_object());
    s_say(f, 200, json_object());
    s_say(f, LADE_W_HELLO, json_object());
    s_say(f, LADE_W_JOB, json_object());
    s_say(f, LADE_W_JOB, json_pack("{s:i, s:i}", "id", 1, "attempt", 1));
    s_say(f, LADE_W_JOB, json_pack("{s:s, s:i, s:s}", "id", "1", "attempt", 1, "kind", "test"));
    s_say(f, LADE_W_JOB,
          json_pack("{s:i, s:i, s:s, s:[]}", "id", 1, "attempt", 1, "kind", "test", "spec"));
    s_say(f, LADE_W_JOB,
          json_pack("{s:i, s:i, s:s, s:{}}", "id", 1, "attempt", 1, "kind", "test", "children"));
    s_say(f, LADE_W_CANCEL, json_pack("{s:s}", "id", "x"));
    s_say(f, LADE_W_WELCOME, json_pack("{s:s, s:[i, s, n]}", "beat_ms", "x", "drop", 1, "a"));
    zmsg_t *msg = zmsg_new(); // too few frames, then another protocol
    zframe_t *peer = zframe_dup(f->peer);
    zmsg_append(msg, &peer);
    zmsg_addstr(msg, "LADEW1");
    zmsg_send(&msg, f->router);
    msg = zmsg_new();
    peer = zframe_dup(f->peer);
    zmsg_append(msg, &peer);
    for (int i = 0; i < 4; i++)
        zmsg_addstr(msg, "MDPW02");
    zmsg_send(&msg, f->router);
    lade_task_t *task = s_give(f, 9, 1);
    assert_int_equal(s_count(f, &f->started_count), 1);
    lade_task_done(&task, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE));
}

static void
test_progress_is_coalesced_and_the_last_is_told(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    enum { STEPS = 2000 };
    for (int i = 1; i <= STEPS; i++)
        lade_task_progress(task, i, STEPS, i == 1 ? "first" : NULL, "/f");
    lade_task_done(&task, NULL, NULL);
    int64_t bytes = 0;
    int count = 0, command;
    json_t *body;
    while ((command = s_next(f, &body)) != LADE_W_DONE) {
        if (command == LADE_W_PROGRESS) {
            assert_true(lade_json_int(body, "bytes", 0) > bytes);
            bytes = lade_json_int(body, "bytes", 0);
            assert_string_equal(lade_json_text(body, "phase", ""), "first");
            count++;
        }
        json_decref(body);
    }
    json_decref(body);
    assert_int_equal(bytes, STEPS);
    assert_in_range(count, 1, 100);
}

static void
test_answer_too_large_becomes_a_failure(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    char *text = calloc(1, 70000);
    memset(text, 'x', 69999);
    lade_task_done(&task, json_pack("{s:s}", "long", text), NULL);
    free(text);
    json_t *fail = s_expect(f, LADE_W_FAIL);
    assert_string_equal(lade_json_text(fail, "code", ""), "too_large");
    json_decref(fail);
}

static void
test_gate_is_reported(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_worker_gate(f->worker, "host:example.org", 5, "429");
    json_t *gate = s_expect(f, LADE_W_GATE);
    assert_int_equal(lade_json_int(gate, "n", 0), 1);
    assert_string_equal(lade_json_text(gate, "gate", ""), "host:example.org");
    assert_true(lade_json_real(gate, "closed_for_s", 0) == 5);
    json_decref(gate);
}

static void
test_failure_at_a_gate_names_it(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    lade_error_t error;
    lade_error_set(&error, LADE_NO_SPACE, "3 MB are free, 5 are needed");
    lade_task_fail_at(&task, &error, "space:/data", 3);
    assert_null(task);
    json_t *fail = s_expect(f, LADE_W_FAIL), *gate = json_object_get(fail, "gate");
    assert_string_equal(lade_json_text(fail, "code", ""), "no_space");
    assert_string_equal(lade_json_text(gate, "gate", ""), "space:/data");
    assert_string_equal(lade_json_text(gate, "reason", ""), "3 MB are free, 5 are needed");
    assert_true(lade_json_real(gate, "closed_for_s", 0) == 3);
    json_decref(fail);
}

// ---------------------------------------------------------------------------------------------------
// Terms

// A job that came with 4 connections, terms 1.
static lade_task_t *
s_give_with_terms(s_fixture_t *f)
{
    json_t *job = s_job(7, 2);
    json_object_update_new(
        job, json_pack("{s:i, s:i, s:i}", "connections", 4, "bytes_per_s", 1000, "serial", 1));
    s_say(f, LADE_W_JOB, job);
    return s_started(f, 1);
}

static void
s_say_terms(s_fixture_t *f, int serial, int connections)
{
    s_say(f, LADE_W_TERMS,
          json_pack("{s:[{s:i, s:i, s:i, s:i}]}", "jobs", "id", 7, "attempt", 2, "serial", serial,
                    "connections", connections));
}

// The next confirmation of those terms; one of older terms may come before.
static int64_t
s_confirmed(s_fixture_t *f, int serial)
{
    int64_t connections = 0;
    while (!connections) {
        json_t *body;
        int command = s_next(f, &body);
        assert_true(command == LADE_W_PROGRESS || command == LADE_W_BEAT);
        if (command == LADE_W_PROGRESS && lade_json_int(body, "serial", 0) == serial)
            connections = lade_json_int(body, "connections", 0);
        json_decref(body);
    }
    return connections;
}

static void
test_terms_come_with_the_job_and_change(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give_with_terms(f);
    lade_terms_t terms = lade_task_terms(task);
    assert_int_equal(terms.connections, 4);
    assert_int_equal(terms.bytes_per_s, 1000);
    assert_true(terms.hold_s == 0);
    s_say(f, LADE_W_TERMS,
          json_pack("{s:[{s:i, s:i, s:f}, {s:i, s:i}, {s:i, s:i, s:i}]}", "jobs", "id", 7,
                    "attempt", 2, "hold_s", 2.5, "id", 8, "attempt", 2, "id", 7, "attempt", 1,
                    "connections", 9)); // the others are not ours
    terms = s_told_terms(f, 1);
    assert_ptr_equal(s_terms_of(f), task);
    assert_true(terms.hold_s == 2.5);
    assert_int_equal(terms.connections + terms.bytes_per_s, 0); // an item says all of them
    assert_int_equal(lade_task_terms(task).connections, 0);
    s_say(f, LADE_W_TERMS, json_pack("{s:i, s:[]}", "bytes_per_s", 5000, "jobs"));
    terms = s_told_terms(f, 2);
    assert_null(s_terms_of(f));
    assert_int_equal(terms.bytes_per_s, 5000);
    lade_task_done(&task, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE));
    assert_int_equal(s_count(f, &f->terms_count), 2);
}

static void
test_fewer_connections_are_confirmed_when_they_are_kept_to(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give_with_terms(f);
    lade_task_confirm(task, 4); // nobody asked
    s_say_terms(f, 2, 2);
    s_told_terms(f, 1);
    lade_task_confirm(task, 3); // one of them is closed
    assert_int_equal(s_confirmed(f, 2), 3);
    lade_task_confirm(task, 3);
    lade_task_confirm(task, 2);
    assert_int_equal(s_confirmed(f, 2), 2);
    s_say_terms(f, 3, 5); // more are kept to at once
    assert_int_equal(s_confirmed(f, 3), 5);
    s_say_terms(f, 4, 5); // and so is what is kept to already
    assert_int_equal(s_confirmed(f, 4), 5);
    lade_task_done(&task, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE));
}

static void
test_hello_says_what_is_kept_to(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give_with_terms(f);
    s_say_terms(f, 2, 1);
    s_told_terms(f, 1);
    s_say(f, LADE_W_BEAT, json_pack("{s:i, s:b}", "acked", 0, "known", 0));
    json_t *hello = s_expect(f, LADE_W_HELLO);
    json_t *job = json_array_get(json_object_get(hello, "jobs"), 0);
    assert_int_equal(lade_json_int(job, "connections", 0), 4); // 1 is not confirmed
    json_decref(hello);
    s_say_terms(f, 3, 1); // on the way when we said HELLO
    lade_task_confirm(task, 1);
    s_welcome(f, NULL);
    s_say_terms(f, 9, 1); // a new life, new numbers
    assert_int_equal(s_confirmed(f, 9), 1);
    assert_int_equal(s_count(f, &f->terms_count), 2);
    lade_task_done(&task, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE));
}

static void
test_senseless_terms_are_no_limit(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give_with_terms(f);
    s_say(f, LADE_W_TERMS, json_pack("{s:s, s:i}", "bytes_per_s", "x", "jobs", 1));
    s_say(f, LADE_W_TERMS, json_pack("{s:i, s:[n, i, s, []]}", "bytes_per_s", -5, "jobs", 1, "x"));
    assert_int_equal(s_told_terms(f, 2).bytes_per_s, 0);
    s_say(f, LADE_W_TERMS,
          json_pack("{s:[{s:i, s:i, s:i, s:s, s:f}]}", "jobs", "id", 7, "attempt", 2, "connections",
                    -1, "bytes_per_s", "fast", "hold_s", -1.0));
    lade_terms_t terms = s_told_terms(f, 3);
    assert_true(terms.connections == 0 && terms.bytes_per_s == 0 && terms.hold_s == 0);
    lade_task_done(&task, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE));
}

static void
test_phase_and_reason_are_told(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    lade_task_phase(task, "stalled", "no byte for 30 s");
    json_t *body;
    while (s_next(f, &body) != LADE_W_PROGRESS)
        json_decref(body);
    assert_string_equal(lade_json_text(body, "phase", ""), "stalled");
    assert_string_equal(lade_json_text(body, "reason", ""), "no byte for 30 s");
    assert_null(json_object_get(body, "bytes")); // how far it is was not said
    json_decref(body);
    lade_task_phase(task, "resumed", NULL);
    lade_task_progress(task, 5, 9, NULL, NULL);
    lade_task_done(&task, NULL, NULL);
    while (s_next(f, &body) != LADE_W_PROGRESS)
        json_decref(body);
    while (!json_object_get(body, "bytes")) {
        json_decref(body);
        while (s_next(f, &body) != LADE_W_PROGRESS)
            json_decref(body);
    }
    assert_string_equal(lade_json_text(body, "phase", ""), "resumed");
    assert_null(json_object_get(body, "reason"));
    assert_int_equal(lade_json_int(body, "bytes", 0), 5);
    json_decref(body);
    json_decref(s_expect(f, LADE_W_DONE));
}

// ---------------------------------------------------------------------------------------------------

static void
test_retired_worker_finishes_and_says_bye(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    s_say(f, LADE_W_RETIRE, json_object());
    lade_task_done(&task, NULL, NULL);
    json_decref(s_expect(f, LADE_W_DONE));
    json_t *bye = s_expect(f, LADE_W_BYE);
    assert_int_equal(lade_json_int(bye, "n", 0), 2);
    json_decref(bye);
    s_say(f, LADE_W_BEAT, json_pack("{s:i}", "acked", 2));
    s_join(f);
    assert_int_equal(f->code, LADE_OK);
}

static void
test_told_to_end_gives_back_what_it_cannot_finish(void **state)
{
    s_fixture_t *f = *state;
    pthread_mutex_lock(&f->lock);
    f->answer_on_stop = true;
    pthread_mutex_unlock(&f->lock);
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    kill(getpid(), SIGTERM); // grace 0
    json_t *hello = s_expect(f, LADE_W_HELLO);
    assert_int_equal(lade_json_int(hello, "slots", -1), 0);
    assert_true(s_lists(hello, 1, 1) || s_count(f, &f->stops) == 1);
    json_decref(hello);
    s_welcome(f, NULL);
    s_stopped(f, 1);
    (void)task;
    json_t *bye = s_expect(f, LADE_W_BYE); // and no FAIL before it
    assert_int_equal(lade_json_int(bye, "n", 0), 1);
    json_decref(bye);
    s_say(f, LADE_W_BEAT, json_pack("{s:i}", "acked", 1));
    s_join(f);
    assert_int_equal(f->code, LADE_OK);
}

// ---------------------------------------------------------------------------------------------------

static void
s_run_in_pool(void *arg, lade_task_t *task)
{
    (void)arg;
    lade_task_progress(task, 1, 2, NULL, NULL);
    if (lade_task_id(task) % 2) {
        lade_task_done(&task, json_pack("{s:I}", "id", (json_int_t)lade_task_id(task)), NULL);
    } else {
        lade_error_t error;
        lade_error_set(&error, LADE_NETWORK, "even");
        lade_task_fail(&task, &error, 0);
    }
}

static void
test_pool_answers_every_task(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_pool_t *pool = lade_pool_new(3, s_run_in_pool, f);
    for (int i = 1; i <= S_TASKS; i++)
        lade_pool_add(pool, s_give(f, i, 1));
    bool seen[S_TASKS + 1] = {false};
    for (int n = 1; n <= S_TASKS;) {
        json_t *body;
        int command = s_next(f, &body);
        if (command == LADE_W_DONE || command == LADE_W_FAIL) {
            int64_t id = lade_json_int(body, "id", 0);
            assert_int_equal(lade_json_int(body, "n", 0), n++);
            assert_int_equal(command, id % 2 ? LADE_W_DONE : LADE_W_FAIL);
            assert_false(seen[id]);
            seen[id] = true;
        }
        json_decref(body);
    }
    lade_pool_destroy(&pool);
    assert_null(pool);
}

static void
test_pool_does_not_begin_a_stopped_task(void **state)
{
    s_fixture_t *f = *state;
    s_greet(f);
    lade_task_t *task = s_give(f, 1, 1);
    s_say(f, LADE_W_PAUSE, json_pack("{s:i, s:i}", "id", 1, "attempt", 1));
    s_stopped(f, 1);
    lade_pool_t *pool = lade_pool_new(1, s_run_in_pool, f);
    lade_pool_add(pool, task);
    json_t *fail = s_expect(f, LADE_W_FAIL);
    assert_string_equal(lade_json_text(fail, "code", ""), "paused");
    json_decref(fail);
    lade_pool_destroy(&pool);
}

#define S_TEST(name) cmocka_unit_test_setup_teardown(name, s_setup, s_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        S_TEST(test_hello_says_who_we_are),
        S_TEST(test_job_is_done_and_reported_until_acknowledged),
        S_TEST(test_stats_are_told_before_the_answer_that_changed_them),
        S_TEST(test_failure_carries_code_and_words),
        S_TEST(test_await_carries_state_and_jobs),
        S_TEST(test_broker_restart_resends_in_order_and_keeps_the_running_job),
        S_TEST(test_unknown_to_the_broker_says_hello_again),
        S_TEST(test_silent_broker_is_asked_on_a_new_connection),
        S_TEST(test_pause_and_cancel_reach_the_job),
        S_TEST(test_dropped_job_is_stale_and_its_late_answer_is_not_sent),
        S_TEST(test_newer_attempt_of_a_held_job_makes_the_older_stale),
        S_TEST(test_job_before_welcome_is_older_than_hello),
        S_TEST(test_kind_not_served_is_refused),
        S_TEST(test_malformed_messages_are_passed_over),
        S_TEST(test_progress_is_coalesced_and_the_last_is_told),
        S_TEST(test_answer_too_large_becomes_a_failure),
        S_TEST(test_gate_is_reported),
        S_TEST(test_failure_at_a_gate_names_it),
        S_TEST(test_terms_come_with_the_job_and_change),
        S_TEST(test_fewer_connections_are_confirmed_when_they_are_kept_to),
        S_TEST(test_hello_says_what_is_kept_to),
        S_TEST(test_senseless_terms_are_no_limit),
        S_TEST(test_phase_and_reason_are_told),
        S_TEST(test_retired_worker_finishes_and_says_bye),
        S_TEST(test_told_to_end_gives_back_what_it_cannot_finish),
        S_TEST(test_pool_answers_every_task),
        S_TEST(test_pool_does_not_begin_a_stopped_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
