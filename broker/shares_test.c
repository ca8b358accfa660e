// What workers are told of limits, against workers played by the test; and a farm of them with
// messages that take their time.
#include "broker/broker_test.h"

// ---------------------------------------------------------------------------------------------------
// Workers that understand TERMS

static void
s_hello_with(t_broker_t *t, const char *worker, int slots, json_t *jobs)
{
    t_feed(t, NULL, worker, LADE_W_HELLO,
           json_pack("{s:s, s:s, s:i, s:[s], s:i, s:b, s:o}", "name", worker, "host", "here", "pid",
                     1, "kinds", "download", "slots", slots, "terms", 1, "jobs",
                     jobs ? jobs : json_array()));
    t_turn(t);
}

static void
s_hello(t_broker_t *t, const char *worker, int slots)
{
    s_hello_with(t, worker, slots, NULL);
}

// A download from host `hub`; more is merged into its spec.
static int64_t
s_download(t_broker_t *t, json_t *more)
{
    char source[64];
    snprintf(source, sizeof source, "https://hub/%d", (int)++t->id);
    return t_submit(t, json_pack("{s:s, s:s, s:o}", "kind", "download", "source", source, "spec",
                                 more ? more : json_object()));
}

static void
s_limit(t_broker_t *t, int limit)
{
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:hub", "limit", limit));
}

// What a worker was told last of a job, in JOB or TERMS; borrowed, NULL if nothing.
static json_t *
s_terms(const t_broker_t *t, const char *worker, int64_t id)
{
    for (size_t i = t->count; i-- > 0;) {
        const t_sent_t *sent = &t->sent[i];
        if (sent->kind != LADE_SENT_WORKER || strcmp(sent->to, worker) != 0)
            continue;
        if (sent->command == LADE_W_JOB && lade_json_int(sent->body, "id", 0) == id)
            return sent->body;
        json_t *jobs = sent->command == LADE_W_TERMS ? json_object_get(sent->body, "jobs") : NULL;
        for (size_t j = 0; j < json_array_size(jobs); j++)
            if (lade_json_int(json_array_get(jobs, j), "id", 0) == id)
                return json_array_get(jobs, j);
    }
    return NULL;
}

// How often a worker was told other terms of a job.
static int
s_count_terms(const t_broker_t *t, const char *worker, int64_t id)
{
    int count = 0;
    for (size_t i = 0; i < t->count; i++) {
        const t_sent_t *sent = &t->sent[i];
        json_t *jobs = sent->kind == LADE_SENT_WORKER && sent->command == LADE_W_TERMS &&
                               strcmp(sent->to, worker) == 0
                           ? json_object_get(sent->body, "jobs")
                           : NULL;
        for (size_t j = 0; j < json_array_size(jobs); j++)
            count += lade_json_int(json_array_get(jobs, j), "id", 0) == id;
    }
    return count;
}

static int64_t
s_connections(const t_broker_t *t, const char *worker, int64_t id)
{
    return lade_json_int(s_terms(t, worker, id), "connections", 0);
}

// The worker's share as it was told last; -1 if it never was.
static int64_t
s_share(const t_broker_t *t, const char *worker)
{
    for (size_t i = t->count; i-- > 0;)
        if (t->sent[i].kind == LADE_SENT_WORKER && t->sent[i].command == LADE_W_TERMS &&
            strcmp(t->sent[i].to, worker) == 0 && json_object_get(t->sent[i].body, "bytes_per_s"))
            return lade_json_int(t->sent[i].body, "bytes_per_s", 0);
    return -1;
}

static void
s_confirm(t_broker_t *t, const char *worker, int64_t id, int64_t connections)
{
    int64_t serial = lade_json_int(s_terms(t, worker, id), "serial", 0);
    t_report(t, worker, LADE_W_PROGRESS, id, 1,
             json_pack("{s:I, s:I}", "connections", (json_int_t)connections, "serial",
                       (json_int_t)serial));
}

static const char *
s_why(t_broker_t *t, int64_t id)
{
    return lade_json_text(t_call(t, "jobs", "why", json_pack("{s:I}", "id", (json_int_t)id)), "why",
                          "");
}

static void
s_expect_why(t_broker_t *t, int64_t id, const char *part)
{
    const char *why = s_why(t, id);
    if (!strstr(why, part))
        fail_msg("'%s' lacks '%s'", why, part);
}

static json_t *
s_gate(t_broker_t *t, const char *name)
{
    json_t *gates = t_call(t, "broker", "gates", NULL);
    for (size_t i = 0; i < json_array_size(gates); i++)
        if (strcmp(lade_json_text(json_array_get(gates, i), "gate", ""), name) == 0)
            return json_array_get(gates, i);
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// Connections

static void
test_one_job_gets_all(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 3);
    s_hello(t, "a", 1);
    int64_t id = s_download(t, NULL);
    assert_int_equal(s_connections(t, "a", id), 3); // in its JOB
    assert_int_equal(s_count_terms(t, "a", id), 0);
    assert_int_equal(lade_json_int(t_job(t, id), "connections", -1), 3);
    s_expect_why(t, id, "may have 3 connections");
    t_done(t, "a", id, 1);
    assert_int_equal(lade_json_int(t_job(t, id), "connections", -1), 0);
}

static void
test_three_of_four_run(void **state)
{
    t_broker_t *t = *state;
    static const char *const workers[] = {"a", "b", "c", "d"};
    s_limit(t, 3);
    for (int i = 0; i < 4; i++)
        s_hello(t, workers[i], 1);
    for (int i = 0; i < 4; i++) { // all in one turn
        char source[64];
        snprintf(source, sizeof source, "https://hub/%d", i);
        t_send(t, "jobs", "submit", json_pack("{s:s, s:s}", "kind", "download", "source", source));
    }
    t_turn(t);
    const char *idle = NULL;
    for (int i = 0; i < 4; i++) {
        json_t *job = t_told(t, workers[i], LADE_W_JOB);
        if (job)
            assert_int_equal(lade_json_int(job, "connections", 0), 1);
        idle = job ? idle : workers[i];
    }
    assert_non_null(idle);
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "connections", 0), 3);
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "waiting", 0), 1);
    s_expect_why(t, 4, "waits at gate host:hub: 3 of 3 connections are in use by 3 jobs");
    const char *ended = t_told(t, "a", LADE_W_JOB) ? "a" : "b";
    t_done(t, ended, lade_json_int(t_told(t, ended, LADE_W_JOB), "id", 0), 1);
    assert_string_equal(t_status(t, 4), "running");
}

static void
test_a_lowered_number_is_counted_until_it_is_confirmed(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 3);
    s_hello(t, "a", 1);
    s_hello(t, "b", 1);
    int64_t first = s_download(t, NULL);
    const char *one = t_told(t, "a", LADE_W_JOB) ? "a" : "b", *two = *one == 'a' ? "b" : "a";
    assert_int_equal(s_connections(t, one, first), 3);
    int64_t older = lade_json_int(s_terms(t, one, first), "serial", 0);
    int64_t second = s_download(t, NULL);
    assert_string_equal(t_status(t, second), "enqueued");
    assert_int_equal(s_connections(t, one, first), 2); // asked
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "connections", 0), 3);
    s_expect_why(t, first, "is to keep to 2 connections and has not said yet");
    s_expect_why(t, second, "3 of 3 connections are in use by 1 job");
    t_report(t, one, LADE_W_PROGRESS, first, 1,
             json_pack("{s:i, s:I}", "connections", 1, "serial", (json_int_t)older));
    assert_string_equal(t_status(t, second), "enqueued"); // that answered other terms
    s_confirm(t, one, first, 3);
    assert_string_equal(t_status(t, second), "enqueued"); // none is closed yet
    s_confirm(t, one, first, 2);
    assert_string_equal(t_status(t, second), "running");
    assert_int_equal(s_connections(t, two, second), 1);
    t_done(t, one, first, 1);
    assert_int_equal(s_connections(t, two, second), 3); // raised at once
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "running", 0), 1);
}

static void
test_waiting_jobs_nobody_can_take_take_nothing(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 4);
    s_hello(t, "a", 1);
    int64_t first = s_download(t, NULL);
    for (int i = 0; i < 3; i++)
        s_download(t, NULL);
    assert_int_equal(s_connections(t, "a", first), 4);
    assert_int_equal(s_count_terms(t, "a", first), 0);
}

static void
test_who_knows_no_terms_counts_one(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 3);
    t_hello(t, "plain", "download", 1);
    int64_t plain = s_download(t, NULL);
    json_t *job = t_told(t, "plain", LADE_W_JOB);
    assert_int_equal(lade_json_int(job, "id", 0), plain);
    assert_null(json_object_get(job, "connections"));
    assert_null(json_object_get(job, "serial"));
    s_hello(t, "a", 1);
    int64_t id = s_download(t, NULL);
    assert_int_equal(s_connections(t, "a", id), 2);
    t_hello_with(t, "other", "k", 1, NULL, NULL);
    t_turn(t);
    int64_t other = t_submit(t, json_pack("{s:s, s:[s]}", "kind", "k", "gates", "host:hub"));
    assert_string_equal(t_status(t, other), "enqueued");
    s_confirm(t, "a", id, 1);
    assert_string_equal(t_status(t, other), "running");
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "connections", 0), 3);
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:hub", "closed_for_s", 9));
    assert_int_equal(t_count_told(t, "plain", LADE_W_TERMS), 0);
}

static void
test_a_new_limit_waits_for_what_is_open(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 4);
    int64_t first = s_download(t, NULL), second = s_download(t, NULL);
    assert_int_equal(s_connections(t, "a", first), 0); // no limit
    s_limit(t, 5);
    int64_t third = s_download(t, NULL);
    assert_string_equal(t_status(t, third), "enqueued");
    assert_null(json_object_get(s_gate(t, "host:hub"), "connections"));
    s_expect_why(t, third, "not all of the 2 jobs there have said");
    assert_int_equal(s_connections(t, "a", first) + s_connections(t, "a", second), 4);
    s_confirm(t, "a", first, 2);
    assert_string_equal(t_status(t, third), "enqueued");
    s_confirm(t, "a", second, 2);
    assert_string_equal(t_status(t, third), "running");
    assert_int_equal(s_connections(t, "a", third), 1);
    s_limit(t, 0);
    assert_int_equal(s_connections(t, "a", first), 0);
    assert_non_null(json_object_get(s_terms(t, "a", first), "serial"));
    s_limit(t, 2); // fewer than jobs that run: one each
    assert_int_equal(s_connections(t, "a", first), 1);
    assert_int_equal(s_connections(t, "a", third), 1);
}

static void
test_a_paused_job_keeps_its_place_until_its_worker_lets_go(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 1);
    s_hello(t, "a", 2);
    int64_t first = s_download(t, NULL), second = s_download(t, NULL);
    t_call(t, "jobs", "pause", json_pack("{s:I}", "id", (json_int_t)first));
    assert_string_equal(t_status(t, second), "enqueued");
    t_fail(t, "a", first, 1, "paused");
    assert_string_equal(t_status(t, second), "running");
    t_call(t, "jobs", "cancel", json_pack("{s:I}", "id", (json_int_t)second));
    int64_t third = s_download(t, NULL);
    assert_string_equal(t_status(t, third), "enqueued");
    t_feed(t, NULL, "a", LADE_W_BYE, json_pack("{s:I}", "n", (json_int_t)++t->n));
    s_hello(t, "b", 1);
    assert_string_equal(t_status(t, third), "running");
}

static void
test_what_is_not_confirmed_is_asked_for_again(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 1);
    s_download(t, NULL);
    s_limit(t, 2);
    assert_int_equal(s_count_terms(t, "a", 1), 1);
    for (int i = 0; i < 3; i++) {
        t_feed(t, NULL, "a", LADE_W_BEAT, json_object());
        lade_router_skip(t->router, t->config.beat_ms);
        t_turn(t);
        t_turn(t);
    }
    assert_int_equal(s_count_terms(t, "a", 1), 4);
    s_confirm(t, "a", 1, 2);
    lade_router_skip(t->router, t->config.beat_ms);
    t_turn(t);
    t_turn(t);
    assert_int_equal(s_count_terms(t, "a", 1), 4);
}

static void
test_restart_counts_what_workers_say_they_keep_to(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 4);
    s_hello(t, "a", 1);
    int64_t first = s_download(t, NULL);
    int64_t serial = lade_json_int(s_terms(t, "a", first), "serial", 0);
    t_restart(t);
    s_hello(t, "b", 1);
    int64_t second = s_download(t, NULL);
    assert_string_equal(t_status(t, second), "enqueued"); // nobody knows what the first has open
    s_hello_with(
        t, "a", 1,
        json_pack("[{s:I, s:i, s:i}]", "id", (json_int_t)first, "attempt", 1, "connections", 4));
    assert_string_equal(t_status(t, second), "enqueued");
    json_t *terms = s_terms(t, "a", first);
    assert_int_equal(lade_json_int(terms, "connections", 0), 2);
    assert_true(lade_json_int(terms, "serial", 0) > serial);
    s_confirm(t, "a", first, 2);
    assert_string_equal(t_status(t, second), "running");
    assert_int_equal(s_connections(t, "b", second), 2);
}

static void
test_two_hosts_have_two_limits(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 5);
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:mirror", "limit", 2));
    s_hello(t, "a", 4);
    int64_t both = t_submit(t, json_pack("{s:s, s:s, s:[s]}", "kind", "download", "source",
                                         "https://hub/both", "gates", "host:mirror"));
    assert_int_equal(s_connections(t, "a", both), 2); // what both allow
    int64_t one = s_download(t, NULL);
    assert_string_equal(t_status(t, one), "running");
    assert_int_equal(s_connections(t, "a", one), 2);
}

// ---------------------------------------------------------------------------------------------------
// A farm: workers that obey, later or sooner, while limits change, jobs are paused and the broker
// is killed; the limit must hold all the time

enum { F_SEEDS = 8, F_WORKERS = 4, F_SLOTS = 3, F_MESSAGES = 256, F_JOBS = 60 };

typedef struct {
    int64_t id, attempt, cap, kept; // cap: as told last; kept: what may be open
    int64_t serial;
} f_job_t;

typedef struct {
    char name[16];
    f_job_t jobs[F_SLOTS + 1];
    size_t count;
    json_t *down[F_MESSAGES]; // on the way to it: {"command", "body"}
    size_t down_count;
} f_worker_t;

typedef struct {
    t_broker_t *t;
    f_worker_t workers[F_WORKERS];
    unsigned random;
    int64_t limit, allowed, most, done, submitted; // allowed: what may still be open
    int64_t ids[F_JOBS];
} f_farm_t;

static unsigned
f_random(f_farm_t *farm, unsigned below)
{
    farm->random = farm->random * 1103515245u + 12345u;
    return (farm->random >> 16) % below;
}

// Puts what the broker said on its way.
static void
f_collect(f_farm_t *farm)
{
    for (size_t i = 0; i < farm->t->count; i++) {
        const t_sent_t *sent = &farm->t->sent[i];
        for (size_t w = 0; w < F_WORKERS; w++)
            if (sent->kind == LADE_SENT_WORKER && strcmp(sent->to, farm->workers[w].name) == 0 &&
                sent->command != LADE_W_BEAT && sent->command != LADE_W_WELCOME) {
                assert_true(farm->workers[w].down_count < F_MESSAGES);
                farm->workers[w].down[farm->workers[w].down_count++] =
                    json_pack("{s:i, s:O}", "command", sent->command, "body", sent->body);
            }
    }
    t_forget(farm->t);
}

// What is open now, at most; when a limit was lowered, no more than before.
static void
f_check(f_farm_t *farm)
{
    int64_t open = 0;
    size_t on_the_way = 0;
    for (size_t w = 0; w < F_WORKERS; w++) {
        on_the_way += farm->workers[w].down_count;
        for (size_t j = 0; j < farm->workers[w].count; j++)
            open += farm->workers[w].jobs[j].kept;
    }
    if (open > farm->allowed)
        fail_msg("%ld connections are open, the limit is %ld", (long)open, (long)farm->allowed);
    if (open <= farm->limit && !on_the_way)
        farm->allowed = farm->limit;
    farm->most = open > farm->most ? open : farm->most;
}

static f_job_t *
f_find(f_worker_t *worker, const json_t *body)
{
    for (size_t i = 0; i < worker->count; i++)
        if (worker->jobs[i].id == lade_json_int(body, "id", 0) &&
            worker->jobs[i].attempt == lade_json_int(body, "attempt", 0))
            return &worker->jobs[i];
    return NULL;
}

static void
f_take_terms(f_job_t *job, const json_t *terms)
{
    job->cap = lade_json_int(terms, "connections", 0);
    job->serial = lade_json_int(terms, "serial", 0);
    if (job->cap > job->kept)
        job->kept = job->cap;
    assert_true(job->cap > 0);
}

static void
f_end(f_farm_t *farm, f_worker_t *worker, f_job_t *job, const char *code)
{
    f_job_t ended = *job;
    *job = worker->jobs[--worker->count];
    if (code)
        t_fail(farm->t, worker->name, ended.id, ended.attempt, code);
    else
        t_done(farm->t, worker->name, ended.id, ended.attempt);
    farm->done += !code;
    f_collect(farm);
}

static void
f_take(f_farm_t *farm, f_worker_t *worker, int command, const json_t *body)
{
    f_job_t *job = f_find(worker, body);
    const json_t *items = json_object_get(body, "jobs");
    switch (command) {
    case LADE_W_JOB:
        assert_true(worker->count < F_SLOTS);
        job = &worker->jobs[worker->count++];
        *job = (f_job_t){.id = lade_json_int(body, "id", 0),
                         .attempt = lade_json_int(body, "attempt", 0)};
        f_take_terms(job, body);
        break;
    case LADE_W_TERMS:
        for (size_t i = 0; i < json_array_size(items); i++)
            if ((job = f_find(worker, json_array_get(items, i))) != NULL)
                f_take_terms(job, json_array_get(items, i));
        break;
    case LADE_W_PAUSE:
        if (job)
            f_end(farm, worker, job, "paused");
        break;
    default:
        fail_msg("%s came", lade_worker_command_name(command));
    }
}

// The oldest message on the way to the worker arrives.
static void
f_arrive(f_farm_t *farm, f_worker_t *worker)
{
    if (!worker->down_count)
        return;
    json_t *message = worker->down[0];
    memmove(worker->down, worker->down + 1, --worker->down_count * sizeof *worker->down);
    f_take(farm, worker, (int)lade_json_int(message, "command", 0),
           json_object_get(message, "body"));
    json_decref(message);
}

// One of the worker's jobs closes what it has too many of and says so, or ends.
static void
f_act(f_farm_t *farm, f_worker_t *worker)
{
    if (!worker->count)
        return;
    f_job_t *job = &worker->jobs[f_random(farm, (unsigned)worker->count)];
    if (f_random(farm, 8) == 0) {
        f_end(farm, worker, job, NULL);
        return;
    }
    job->kept = job->kept > job->cap ? job->kept - 1 : job->kept;
    t_report(farm->t, worker->name, LADE_W_PROGRESS, job->id, job->attempt,
             json_pack("{s:I, s:I}", "connections", (json_int_t)job->kept, "serial",
                       (json_int_t)job->serial));
    f_collect(farm);
}

static void
f_submit(f_farm_t *farm)
{
    if (farm->submitted == F_JOBS)
        return;
    farm->ids[farm->submitted++] = s_download(farm->t, NULL);
    f_collect(farm);
}

static void
f_pause_or_start(f_farm_t *farm, bool pause)
{
    if (!farm->submitted)
        return;
    int64_t id = farm->ids[f_random(farm, (unsigned)farm->submitted)];
    t_send(farm->t, "jobs", pause ? "pause" : "start", json_pack("{s:I}", "id", (json_int_t)id));
    t_turn(farm->t);
    f_collect(farm);
}

static void
f_set_limit(f_farm_t *farm, int64_t limit)
{
    farm->limit = limit;
    farm->allowed = limit > farm->allowed ? limit : farm->allowed;
    s_limit(farm->t, (int)limit);
    f_collect(farm);
}

static void
f_drop_messages(f_worker_t *worker)
{
    for (size_t i = 0; i < worker->down_count; i++)
        json_decref(worker->down[i]);
    worker->down_count = 0;
}

// Every worker says what it has and keeps to. What was on its way is lost.
static void
f_greet(f_farm_t *farm, f_worker_t *worker)
{
    json_t *jobs = json_array();
    f_drop_messages(worker);
    for (size_t i = 0; i < worker->count; i++)
        json_array_append_new(jobs,
                              json_pack("{s:I, s:I, s:I}", "id", (json_int_t)worker->jobs[i].id,
                                        "attempt", (json_int_t)worker->jobs[i].attempt,
                                        "connections", (json_int_t)worker->jobs[i].kept));
    s_hello_with(farm->t, worker->name, F_SLOTS, jobs);
    json_t *drop = json_object_get(t_told(farm->t, worker->name, LADE_W_WELCOME), "drop");
    for (size_t i = worker->count; i-- > 0;) // it was paused meanwhile
        for (size_t j = 0; j < json_array_size(drop); j++)
            if (worker->jobs[i].id == json_integer_value(json_array_get(drop, j))) {
                worker->jobs[i] = worker->jobs[--worker->count];
                break;
            }
    f_collect(farm);
}

static void
f_restart(f_farm_t *farm)
{
    for (size_t w = 0; w < F_WORKERS; w++) // those of an earlier life are not heard any more
        f_drop_messages(&farm->workers[w]);
    t_restart(farm->t);
    for (size_t w = 0; w < F_WORKERS; w++)
        f_greet(farm, &farm->workers[w]);
}

static void
f_step(f_farm_t *farm, bool wild)
{
    f_worker_t *worker = &farm->workers[f_random(farm, F_WORKERS)];
    unsigned what = f_random(farm, wild ? 1000 : 900);
    if (what < 100)
        f_submit(farm);
    else if (what < 500)
        f_arrive(farm, worker);
    else if (what < 900)
        f_act(farm, worker);
    else if (what < 940)
        f_pause_or_start(farm, what < 920);
    else if (what < 980)
        f_set_limit(farm, 1 + f_random(farm, 9));
    else if (what < 990)
        f_greet(farm, worker); // its connection broke
    else if (what == 999)
        f_restart(farm);
    f_check(farm);
}

static void
f_run(t_broker_t *t, unsigned seed, int64_t limit, bool wild)
{
    f_farm_t farm = {.t = t, .random = seed};
    f_set_limit(&farm, limit);
    for (int w = 0; w < F_WORKERS; w++) {
        snprintf(farm.workers[w].name, sizeof farm.workers[w].name, "w%d", w);
        s_hello(t, farm.workers[w].name, F_SLOTS);
    }
    f_collect(&farm);
    for (int step = 0; step < 3000 && wild; step++)
        f_step(&farm, true);
    t_call(t, "jobs", "start", json_pack("{s:b}", "all", 1));
    f_collect(&farm);
    for (int step = 0; step < 20000 && farm.done < F_JOBS; step++)
        f_step(&farm, false);
    assert_int_equal(farm.done, F_JOBS); // nobody starves
    if (!wild)
        assert_int_equal(farm.most, limit);
    for (int w = 0; w < F_WORKERS; w++) {
        f_drop_messages(&farm.workers[w]);
        t_feed(t, NULL, farm.workers[w].name, LADE_W_BYE,
               json_pack("{s:I}", "n", (json_int_t)++t->n));
    }
    t_turn(t);
    t_forget(t);
}

static void
test_the_limit_holds_whatever_the_order_of_messages(void **state)
{
    static const int64_t limits[] = {1, 3, 5, 16};
    for (unsigned i = 0; i < 4; i++)
        f_run(*state, 7 + i, limits[i], false);
}

static void
test_the_limit_holds_through_changes_pauses_and_restarts(void **state)
{
    for (unsigned seed = 1; seed <= F_SEEDS; seed++)
        f_run(*state, seed, 4, true);
}

// ---------------------------------------------------------------------------------------------------
// Holds, and gates named by a FAIL

static void
test_a_closed_gate_holds_those_that_run(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 2);
    s_hello(t, "b", 2);
    int64_t id = s_download(t, NULL);
    const char *one = t_told(t, "a", LADE_W_JOB) ? "a" : "b", *two = *one == 'a' ? "b" : "a";
    t_feed(t, NULL, two, LADE_W_GATE,
           json_pack("{s:I, s:s, s:f, s:s}", "n", (json_int_t)++t->n, "gate", "host:hub",
                     "closed_for_s", 5.0, "reason", "429"));
    t_turn(t);
    double hold = lade_json_real(s_terms(t, one, id), "hold_s", 0);
    assert_true(hold > 4.5 && hold <= 5);
    s_expect_why(t, id, "gate host:hub is closed: 429");
    assert_int_equal(s_count_terms(t, one, id), 1);
    int64_t later = s_download(t, NULL);
    s_expect_why(t, later, "waits at gate host:hub: closed for ");
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:hub", "closed_for_s", 0));
    assert_int_equal(s_count_terms(t, one, id), 2); // it may go on
    assert_null(json_object_get(s_terms(t, one, id), "hold_s"));
    assert_string_equal(t_status(t, later), "running");
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:hub", "closed_for_s", 2));
    int told = s_count_terms(t, one, id);
    lade_router_skip(t->router, 2500);
    t_turn(t);
    t_turn(t);
    assert_int_equal(s_count_terms(t, one, id), told); // that ends by itself
}

static void
test_a_job_without_space_waits_at_its_gate(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 2);
    int64_t id = s_download(t, NULL);
    t_report(t, "a", LADE_W_FAIL, id, 1,
             json_pack("{s:s, s:s, s:{s:s, s:f, s:s}}", "code", "no_space", "message", "3 of 5 MB",
                       "gate", "gate", "space:/data", "closed_for_s", 3.0, "reason", "3 of 5 MB"));
    assert_string_equal(t_status(t, id), "enqueued");
    s_expect_why(t, id, "waits at gate space:/data: closed for ");
    s_expect_why(t, id, "3 of 5 MB");
    assert_int_equal(lade_json_int(t_job(t, id), "failures", -1), 0);
    t_restart(t); // it waits there after a restart, too
    s_hello(t, "a", 2);
    assert_string_equal(t_status(t, id), "enqueued");
    s_expect_why(t, id, "waits at gate space:/data: closed for ");
    t_feed(t, NULL, "a", LADE_W_BEAT, json_object());
    lade_router_skip(t->router, 3100);
    t_turn(t);
    t_turn(t);
    assert_string_equal(t_status(t, id), "running");
    assert_int_equal(lade_json_int(t_told(t, "a", LADE_W_JOB), "attempt", 0), 2);
    assert_null(s_gate(t, "space:/data")); // it is no gate of the job's
    t_done(t, "a", id, 2);
    assert_string_equal(t_status(t, id), "completed");
}

static void
test_a_wait_says_what_for(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 1);
    int64_t id = s_download(t, NULL);
    t_report(t, "a", LADE_W_FAIL, id, 1,
             json_pack("{s:s, s:s, s:f}", "code", "rate_limited", "message", "slow down",
                       "retry_after_s", 7.0));
    s_expect_why(t, id, "rate_limited, goes on in 7.0 seconds: slow down");
    t_call(t, "jobs", "cancel", json_pack("{s:I}", "id", (json_int_t)id));
    id = s_download(t, NULL);
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:hub", "closed_for_s", 600));
    t_report(t, "a", LADE_W_FAIL, id, 1,
             json_pack("{s:s, s:s, s:f}", "code", "rate_limited", "message", "600 s are left",
                       "retry_after_s", 600.2));
    s_expect_why(t, id, "waits at gate host:hub: closed for ");
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:hub", "closed_for_s", 0));
    assert_string_equal(t_status(t, id), "running"); // it is the gate that held it
    assert_int_equal(lade_json_int(t_job(t, id), "failures", -1), 0);
}

// ---------------------------------------------------------------------------------------------------
// Bytes per second

static void
s_beat(t_broker_t *t, const char *worker, int64_t rate)
{
    t_feed(t, NULL, worker, LADE_W_BEAT, json_pack("{s:{s:I}}", "stats", "rate", (json_int_t)rate));
}

// A beat in which the workers are seen to use so much.
static void
s_second(t_broker_t *t, int64_t a, int64_t b)
{
    lade_router_skip(t->router, t->config.beat_ms);
    s_beat(t, "a", a);
    s_beat(t, "b", b);
    t_turn(t);
    t_turn(t);
}

static void
test_the_farms_rate_is_split(void **state)
{
    t_broker_t *t = *state;
    json_t *set = t_call(t, "broker", "set", json_pack("{s:i}", "bytes_per_s", 10000000));
    assert_int_equal(lade_json_int(set, "bytes_per_s", 0), 10000000);
    s_hello(t, "a", 1);
    s_hello(t, "b", 1);
    assert_int_equal(s_share(t, "a"), -1); // who has no transfers has no share
    int64_t first = s_download(t, NULL);
    const char *one = t_told(t, "a", LADE_W_JOB) ? "a" : "b";
    assert_int_equal(s_share(t, one), 10000000);
    int64_t second = s_download(t, NULL);
    assert_int_equal(s_share(t, "a"), 5000000);
    assert_int_equal(s_share(t, "b"), 5000000);
    s_expect_why(t, first, "may read 5000000 of the farm's 10000000 bytes a second");
    s_second(t, 5000000, 5000000);
    assert_int_equal(s_share(t, "a") + s_share(t, "b"), 10000000);
    s_second(t, 2000000, 5000000); // a's network has no more
    assert_int_equal(s_share(t, "a"), 2500000);
    assert_int_equal(s_share(t, "b"), 7500000);
    assert_int_equal(lade_json_int(t_call(t, "broker", "status", NULL), "rate", 0), 7000000);
    s_second(t, 2500000, 7400000); // and has it again
    assert_int_equal(s_share(t, "a"), 5000000);
    assert_int_equal(s_share(t, "b"), 5000000);
    const char *other = *one == 'a' ? "b" : "a";
    t_done(t, one, first, 1);
    assert_int_equal(s_share(t, other), 10000000); // at once
    t_call(t, "broker", "set", json_pack("{s:i}", "bytes_per_s", 0));
    assert_int_equal(s_share(t, other), 0);
    t_done(t, other, second, 1);
    s_download(t, NULL);
    s_download(t, NULL);
    assert_int_equal(s_share(t, one), 0); // before its JOB, which it could not have known
}

static void
test_the_rate_is_split_by_transfers(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "broker", "set", json_pack("{s:i}", "bytes_per_s", 4000));
    s_hello(t, "a", 3);
    for (int i = 0; i < 3; i++)
        s_download(t, NULL);
    s_hello(t, "b", 1);
    s_download(t, NULL);
    assert_int_equal(s_share(t, "a"), 3000);
    assert_int_equal(s_share(t, "b"), 1000);
    json_t *workers = t_call(t, "broker", "workers", NULL);
    assert_int_equal(lade_json_int(json_array_get(workers, 0), "bytes_per_s", 0), 3000);
}

static void
test_a_job_has_a_rate_of_its_own(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 1);
    int64_t id = s_download(t, json_pack("{s:i}", "bytes_per_s", 700));
    assert_int_equal(lade_json_int(t_told(t, "a", LADE_W_JOB), "bytes_per_s", 0), 700);
    s_expect_why(t, id, "may read 700 bytes a second");
    json_t *job = t_call(t, "broker", "set",
                         json_pack("{s:I, s:i}", "job", (json_int_t)id, "bytes_per_s", 300));
    assert_int_equal(lade_json_int(job, "bytes_per_s", 0), 300);
    assert_int_equal(lade_json_int(s_terms(t, "a", id), "bytes_per_s", 0), 300);
    t_call(t, "broker", "set", json_pack("{s:I, s:i}", "job", (json_int_t)id, "bytes_per_s", 0));
    assert_null(json_object_get(s_terms(t, "a", id), "bytes_per_s"));
    t_restart(t);
    s_hello(t, "a", 1); // without the job, which is given again
    assert_null(json_object_get(t_told(t, "a", LADE_W_JOB), "bytes_per_s"));
    t_call(t, "broker", "set", json_pack("{s:I, s:i}", "job", (json_int_t)id, "bytes_per_s", 9));
    assert_int_equal(lade_json_int(s_terms(t, "a", id), "bytes_per_s", 0), 9);
    t_done(t, "a", id, 2);
    assert_string_equal(t_refused(t, "broker", "set",
                                  json_pack("{s:I, s:i}", "job", (json_int_t)id, "bytes_per_s", 1)),
                        "ValueError");
    int64_t through = lade_json_int(t_call(t, "download", "create_download_job",
                                           json_pack("{s:s, s:s, s:i}", "source", "https://hub/f",
                                                     "destination", "/tmp/f", "bytes_per_s", 55)),
                                    "id", 0);
    assert_int_equal(lade_json_int(t_job(t, through), "bytes_per_s", 0), 55);
}

static void
test_children_share_their_parents_rate(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 4);
    int64_t parent = s_download(t, json_pack("{s:i}", "bytes_per_s", 900));
    t_report(t, "a", LADE_W_AWAIT, parent, 1,
             json_pack("{s:{}, s:[{s:s, s:s}, {s:s, s:s, s:{s:i}}, {s:s, s:s}]}", "state", "jobs",
                       "kind", "download", "source", "https://hub/1", "kind", "download", "source",
                       "https://hub/2", "spec", "bytes_per_s", 100, "kind", "download", "source",
                       "https://hub/3"));
    assert_int_equal(lade_json_int(s_terms(t, "a", parent + 1), "bytes_per_s", 0), 300);
    assert_int_equal(lade_json_int(s_terms(t, "a", parent + 2), "bytes_per_s", 0), 100);
    t_call(t, "broker", "set",
           json_pack("{s:I, s:i}", "job", (json_int_t)parent, "bytes_per_s", 90));
    assert_int_equal(lade_json_int(s_terms(t, "a", parent + 2), "bytes_per_s", 0), 30);
    t_done(t, "a", parent + 2, 1);
    assert_int_equal(lade_json_int(s_terms(t, "a", parent + 1), "bytes_per_s", 0), 45);
    assert_int_equal(lade_json_int(s_terms(t, "a", parent + 3), "bytes_per_s", 0), 45);
}

// ---------------------------------------------------------------------------------------------------
// What is kept

static void
test_what_was_set_survives_a_restart(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 7);
    t_call(t, "broker", "set", json_pack("{s:i}", "bytes_per_s", 123456));
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "space:x", "closed_for_s", 100));
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "gone", "closed_for_s", 100));
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "gone", "closed_for_s", 0));
    t_restart(t);
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "limit", 0), 7);
    assert_null(json_object_get(s_gate(t, "host:hub"), "closed_until"));
    double left = lade_json_real(s_gate(t, "space:x"), "closed_until", 0) - lade_now();
    assert_true(left > 95 && left <= 100);
    assert_string_equal(lade_json_text(s_gate(t, "space:x"), "reason", ""), "closed by hand");
    assert_int_equal(json_array_size(t_call(t, "broker", "gates", NULL)), 2);
    assert_int_equal(lade_json_int(t_call(t, "broker", "status", NULL), "bytes_per_s", 0), 123456);
    s_limit(t, 0);
    lade_router_skip(t->router, 101000);
    t_turn(t);
    t_turn(t);
    assert_int_equal(json_array_size(t_call(t, "broker", "gates", NULL)), 0);
    t_restart(t);
    assert_int_equal(json_array_size(t_call(t, "broker", "gates", NULL)), 0);
}

static void
test_a_host_is_named_in_any_case(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:HUB", "limit", 2));
    s_hello(t, "a", 1);
    assert_int_equal(s_connections(t, "a", s_download(t, NULL)), 2);
}

static void
test_workers_only_close_gates(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 1);
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:hub", "closed_for_s", 50));
    static const double seconds[] = {0, -1, 5};
    for (size_t i = 0; i < 3; i++)
        t_feed(t, NULL, "a", LADE_W_GATE,
               json_pack("{s:I, s:s, s:f}", "n", (json_int_t)++t->n, "gate", "host:hub",
                         "closed_for_s", seconds[i]));
    t_turn(t);
    assert_true(lade_json_real(s_gate(t, "host:hub"), "closed_until", 0) > lade_now() + 45);
    assert_string_equal(lade_json_text(s_gate(t, "host:hub"), "reason", ""), "closed by hand");
}

static void
test_what_was_not_committed_is_not_set(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 7);
    s_hello(t, "a", 1);
    s_download(t, NULL);
    lade_router_break_commits(t->router, 1);
    int64_t id =
        t_send(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "host:hub", "limit", 2));
    t_send(t, "broker", "set", json_pack("{s:i}", "bytes_per_s", 5));
    t_turn(t);
    assert_false(lade_json_bool(t_answer(t, id), "ok", true));
    t_forget(t);
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "limit", 0), 7);
    assert_int_equal(lade_json_int(t_call(t, "broker", "status", NULL), "bytes_per_s", -1), 0);
    lade_router_skip(t->router, t->config.beat_ms);
    s_hello_with(t, "a", 1,
                 json_pack("[{s:i, s:i, s:i}]", "id", 1, "attempt", 1, "connections", 7));
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "connections", 0), 7);
}

// ---------------------------------------------------------------------------------------------------
// Stalls

static void
test_stalls_are_told(void **state)
{
    t_broker_t *t = *state;
    s_hello(t, "a", 1);
    int64_t id = s_download(t, NULL);
    t_report(t, "a", LADE_W_PROGRESS, id, 1,
             json_pack("{s:i, s:i, s:s, s:s, s:s}", "bytes", 5, "total_bytes", 9, "phase",
                       "stalled", "reason", "no byte for 30 s", "local_path", "/tmp/x"));
    json_t *event = NULL;
    assert_int_equal(t_events(t, "download_stalled/1/", &event), 1);
    assert_string_equal(lade_json_text(event, "reason", ""), "no byte for 30 s");
    assert_string_equal(lade_json_text(event, "download_path", ""), "/tmp/x");
    assert_int_equal(lade_json_int(event, "bytes", 0), 5);
    assert_int_equal(lade_json_int(event, "total_bytes", 0), 9);
    assert_null(json_object_get(event, "progress")); // journaled
    s_expect_why(t, id, "runs on a and has stalled: no byte for 30 s");
    assert_string_equal(lade_json_text(json_object_get(t_job(t, id), "progress"), "reason", ""),
                        "no byte for 30 s");
    t_report(t, "a", LADE_W_PROGRESS, id, 1, json_pack("{s:s}", "phase", "stalled"));
    assert_int_equal(t_events(t, "download_stalled/1/", NULL), 1);
    t_report(t, "a", LADE_W_PROGRESS, id, 1, json_pack("{s:s}", "phase", "fetching"));
    assert_int_equal(t_events(t, "download_resumed/1/", &event), 1);
    assert_true(json_is_null(json_object_get(event, "reason")));
    t_report(t, "a", LADE_W_PROGRESS, id, 1, json_pack("{s:s}", "phase", "resumed"));
    assert_int_equal(t_events(t, "download_resumed/1/", NULL), 1);
    json_t *since = t_call(t, "events", "since",
                           json_pack("{s:i, s:[s]}", "seq", 0, "prefixes", "download_stalled"));
    assert_int_equal(json_array_size(json_object_get(since, "events")), 1);
}

// ---------------------------------------------------------------------------------------------------
// Hostile

static void
test_wrong_arguments_of_set_are_refused(void **state)
{
    t_broker_t *t = *state;
    static const char *const args[] = {
        "{}",
        "{\"limit\": 3}",
        "{\"gate\": \"\", \"limit\": 3}",
        "{\"gate\": \"x\"}",
        "{\"gate\": \"x\", \"limit\": -1}",
        "{\"gate\": \"x\", \"limit\": 4000000000}",
        "{\"gate\": \"x\", \"limit\": null}",
        "{\"gate\": \"x\", \"bytes_per_s\": 5}",
        "{\"gate\": \"x\", \"job\": 5, \"limit\": 3}",
        "{\"bytes_per_s\": -5}",
        "{\"bytes_per_s\": \"fast\"}",
        "{\"bytes_per_s\": 1.5}",
        "{\"bytes_per_s\": 9000000000000000000}",
        "{\"job\": 1}",
        "{\"job\": {}, \"bytes_per_s\": 5}",
        "{\"job\": -1, \"bytes_per_s\": 5}",
    };
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        assert_string_equal(t_refused(t, "broker", "set", json_loads(args[i], 0, NULL)),
                            "ValueError");
    assert_string_equal(t_refused(t, "jobs", "submit",
                                  json_pack("{s:s, s:s, s:{s:i}}", "kind", "download", "source",
                                            "https://hub/x", "spec", "bytes_per_s", -1)),
                        "ValueError");
    t_submit(t, json_pack("{s:s, s:{s:s}}", "kind", "k", "spec", "bytes_per_s", "is its own"));
    assert_string_equal(
        t_refused(t, "broker", "set", json_pack("{s:i, s:i}", "job", 99, "bytes_per_s", 5)),
        "UnknownJobID");
    assert_string_equal(
        t_refused(t, "download", "submit_download_job", json_pack("{s:i}", "job", 5)),
        "ValueError");
    assert_int_equal(json_array_size(t_call(t, "broker", "gates", NULL)), 0);
}

static void
test_senseless_reports_change_nothing(void **state)
{
    t_broker_t *t = *state;
    s_limit(t, 4);
    t_call(t, "broker", "set", json_pack("{s:i}", "bytes_per_s", 1000));
    s_hello(t, "a", 4);
    int64_t id = s_download(t, NULL);
    static const char *const reports[] = {
        "{\"connections\": -1}",
        "{\"connections\": \"x\", \"serial\": []}",
        "{\"connections\": 9223372036854775807, \"serial\": 9223372036854775807}",
        "{\"connections\": 0, \"serial\": -1}",
        "{\"phase\": 5, \"reason\": {}}",
        "{\"reason\": \"for nothing\"}",
    };
    for (size_t i = 0; i < sizeof reports / sizeof *reports; i++)
        t_report(t, "a", LADE_W_PROGRESS, id, 1, json_loads(reports[i], 0, NULL));
    assert_int_equal(lade_json_int(s_gate(t, "host:hub"), "connections", 0), 4);
    static const char *const beats[] = {
        "{\"stats\": {\"rate\": -5}}",     "{\"stats\": {\"rate\": \"x\"}}",
        "{\"stats\": {\"rate\": 1e300}}",  "{\"stats\": 5}",
        "{\"stats\": {\"rate\": 1e-300}}", "{\"stats\": null}",
    };
    for (size_t i = 0; i < sizeof beats / sizeof *beats; i++) {
        t_feed(t, NULL, "a", LADE_W_BEAT, json_loads(beats[i], 0, NULL));
        lade_router_skip(t->router, t->config.beat_ms);
        t_turn(t);
        assert_int_equal(s_share(t, "a"), 1000);
    }
    static const char no_number[] = "\x81\xa5stats\x81\xa4rate\xcb\x7f\xf8\0\0\0\0\0";
    lade_router_feed_worker(t->router, "a", LADE_W_BEAT, no_number, sizeof no_number);
    t_turn(t);
    static const char *const fails[] = {
        "{\"gate\": 5}",
        "{\"gate\": {\"gate\": \"\", \"closed_for_s\": 5}}",
        "{\"gate\": {\"gate\": \"space:x\", \"closed_for_s\": -5}}",
        "{\"gate\": {\"gate\": \"space:x\", \"closed_for_s\": \"x\"}}",
        "{\"gate\": {\"closed_for_s\": 5}}",
        "{\"gate\": []}",
    };
    for (size_t i = 0; i < sizeof fails / sizeof *fails; i++) {
        json_t *more = json_loads(fails[i], 0, NULL);
        int64_t job = s_download(t, NULL);
        json_object_set_new(more, "code", json_string("no_space"));
        t_report(t, "a", LADE_W_FAIL, job, 1, more);
        assert_string_equal(t_status(t, job), "enqueued");
        assert_null(s_gate(t, "space:x"));
        t_call(t, "jobs", "cancel", json_pack("{s:I}", "id", (json_int_t)job));
    }
    s_hello_with(t, "a", 4,
                 json_loads("[{\"id\": 1, \"attempt\": 1, \"connections\": -7},"
                            " {\"id\": 1, \"attempt\": 1, \"connections\": 9223372036854775807}]",
                            0, NULL));
    assert_null(json_object_get(s_gate(t, "host:hub"), "connections")); // any number may be open
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T_TEST(test_one_job_gets_all),
        T_TEST(test_three_of_four_run),
        T_TEST(test_a_lowered_number_is_counted_until_it_is_confirmed),
        T_TEST(test_waiting_jobs_nobody_can_take_take_nothing),
        T_TEST(test_who_knows_no_terms_counts_one),
        T_TEST(test_a_new_limit_waits_for_what_is_open),
        T_TEST(test_a_paused_job_keeps_its_place_until_its_worker_lets_go),
        T_TEST(test_what_is_not_confirmed_is_asked_for_again),
        T_TEST(test_restart_counts_what_workers_say_they_keep_to),
        T_TEST(test_two_hosts_have_two_limits),
        T_TEST(test_the_limit_holds_whatever_the_order_of_messages),
        T_TEST(test_the_limit_holds_through_changes_pauses_and_restarts),
        T_TEST(test_a_closed_gate_holds_those_that_run),
        T_TEST(test_a_job_without_space_waits_at_its_gate),
        T_TEST(test_a_wait_says_what_for),
        T_TEST(test_the_farms_rate_is_split),
        T_TEST(test_the_rate_is_split_by_transfers),
        T_TEST(test_a_job_has_a_rate_of_its_own),
        T_TEST(test_children_share_their_parents_rate),
        T_TEST(test_what_was_set_survives_a_restart),
        T_TEST(test_a_host_is_named_in_any_case),
        T_TEST(test_workers_only_close_gates),
        T_TEST(test_what_was_not_committed_is_not_set),
        T_TEST(test_stalls_are_told),
        T_TEST(test_wrong_arguments_of_set_are_refused),
        T_TEST(test_senseless_reports_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
