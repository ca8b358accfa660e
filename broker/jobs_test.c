// The job engine, through the real dispatcher: what clients ask for, what workers say, what is
// told.
#include "broker/broker_test.h"
#include "broker/job.h"

// ---------------------------------------------------------------------------------------------------
// The state table

static void
test_table_has_these_steps_and_no_others(void **state)
{
    (void)state;
    // A row per trigger: the status after it, by the status before it ('.': refused).
    static const struct {
        lade_job_trigger_t on;
        const char *then; // i e r w p c x X d, in the order of the statuses
    } rows[] = {
        // clang-format off
        //                   idle enq run wai pau com err can dead
        {LADE_JOB_START,    "e...e...."},
        {LADE_JOB_DISPATCH, ".r......."},
        {LADE_JOB_FINISH,   ".cc.c...."},
        {LADE_JOB_FAIL,     ".xx.x...."},
        {LADE_JOB_AGAIN,    "..e......"},
        {LADE_JOB_AWAIT,    ".ww......"},
        {LADE_JOB_SAVE,     "..e......"},
        {LADE_JOB_GO_ON,    "...e....."},
        {LADE_JOB_PAUSE,    "pppp....."},
        {LADE_JOB_CANCEL,   "XXXXX...."},
        {LADE_JOB_LOSE,     "..e......"},
        {LADE_JOB_DIE,      "..d......"},
        {LADE_JOB_BACK,     "..e......"},
        {LADE_JOB_RETRY,    "......eee"},
        {LADE_JOB_REAWAIT,  "....w.www"},
        // clang-format on
    };
    _Static_assert(sizeof rows / sizeof *rows == LADE_JOB_TRIGGER_COUNT, "a trigger has no row");
    static const char letters[] = "ierwpcxXd";
    for (size_t i = 0; i < LADE_JOB_TRIGGER_COUNT; i++)
        for (int status = 0; status < LADE_JOB_STATUS_COUNT; status++) {
            lade_job_t job = {.id = 7, .status = (lade_job_status_t)status};
            lade_job_status_t then = LADE_JOB_STATUS_COUNT;
            lade_error_t error = {0};
            lade_code_t code = lade_job_next(&job, rows[i].on, &then, &error);
            if (rows[i].then[status] == '.') {
                assert_int_equal(code, LADE_VALUE_ERROR);
                assert_non_null(strstr(error.message, "job 7 is "));
            } else {
                assert_int_equal(code, LADE_OK);
                assert_int_equal(letters[then], rows[i].then[status]);
            }
        }
}

// ---------------------------------------------------------------------------------------------------
// Submitting

static void
test_job_runs_and_completes(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id =
        t_submit(t, json_pack("{s:s, s:s, s:{s:i}}", "kind", "k", "source", "src", "spec", "a", 1));
    json_t *job = t_told(t, "w", LADE_W_JOB), *event = NULL;
    assert_int_equal(lade_json_int(job, "id", 0), id);
    assert_int_equal(lade_json_int(job, "attempt", 0), 1);
    assert_string_equal(lade_json_text(job, "source", ""), "src");
    assert_int_equal(lade_json_int(json_object_get(job, "spec"), "a", 0), 1);
    t_done(t, "w", id, 1);
    assert_string_equal(t_status(t, id), "completed");
    assert_int_equal(lade_json_int(json_object_get(t_job(t, id), "result"), "answer", 0), 42);
    assert_int_equal(t_events(t, "job_completed/1/", &event), 1);
    assert_string_equal(lade_json_text(event, "kind", ""), "k");
}

static void
test_nothing_is_sent_before_the_commit(void **state)
{
    t_broker_t *t = *state;
    int64_t request = t_send(t, "jobs", "submit", json_pack("{s:s}", "kind", "k"));
    assert_int_equal(t->count, 0);
    t_turn(t);
    assert_non_null(t_answer(t, request));
}

static void
test_lower_priority_number_goes_first(void **state)
{
    t_broker_t *t = *state;
    t_submit(t, json_pack("{s:s, s:i}", "kind", "k", "priority", 20));
    int64_t second = t_submit(t, json_pack("{s:s, s:i}", "kind", "k", "priority", 5));
    int64_t third = t_submit(t, json_pack("{s:s, s:i}", "kind", "k", "priority", 5));
    t_hello(t, "w", "k", 1);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "id", 0), second);
    t_done(t, "w", second, 1);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "id", 0), third);
}

static void
test_worker_gets_no_more_than_its_slots(void **state)
{
    t_broker_t *t = *state;
    for (int i = 0; i < 5; i++)
        t_submit_kind(t, "k");
    t_hello(t, "w", "k", 2);
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 2);
    t_done(t, "w", 1, 1);
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 3);
}

static void
test_token_answers_the_same_job(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit(t, json_pack("{s:s, s:s}", "kind", "k", "token", "once"));
    assert_int_equal(t_submit(t, json_pack("{s:s, s:s}", "kind", "k", "token", "once")), id);
    t_hello(t, "w", "k", 1);
    t_done(t, "w", id, 1);
    t_restart(t);
    assert_int_equal(t_submit(t, json_pack("{s:s, s:s}", "kind", "k", "token", "once")), id);
    assert_int_not_equal(t_submit(t, json_pack("{s:s, s:s}", "kind", "k", "token", "twice")), id);
}

static void
test_equal_installs_and_downloads_are_one_job(void **state)
{
    t_broker_t *t = *state;
    int64_t install = lade_json_int(
        t_call(t, "install", "heuristic_import", json_pack("{s:s}", "source", "a/b")), "id", 0);
    assert_int_equal(
        lade_json_int(t_call(t, "install", "heuristic_import", json_pack("{s:s}", "source", "a/b")),
                      "id", 0),
        install);
    json_t *args = json_pack("{s:s, s:s}", "source", "http://h/f", "destination", "/tmp/f");
    int64_t first =
        lade_json_int(t_call(t, "download", "create_download_job", json_incref(args)), "id", 0);
    t_restart(t);
    assert_int_equal(
        lade_json_int(t_call(t, "download", "create_download_job", json_incref(args)), "id", 0),
        first);
    json_object_set_new(args, "destination", json_string("/tmp/g"));
    assert_int_not_equal(lade_json_int(t_call(t, "download", "create_download_job", args), "id", 0),
                         first);
}

static void
test_full_queue_refuses(void **state)
{
    t_broker_t *t = *state;
    t->config.max_queue = 2;
    t_submit_kind(t, "k");
    int64_t id = t_submit_kind(t, "k");
    assert_string_equal(t_refused(t, "jobs", "submit", json_pack("{s:s}", "kind", "k")),
                        "queue_full");
    t_call(t, "jobs", "cancel", json_pack("{s:I}", "id", (json_int_t)id));
    t_submit_kind(t, "k");
}

static void
test_secrets_reach_the_worker_only(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit(t, json_pack("{s:s, s:{s:s, s:[{s:s}]}}", "kind", "k", "spec",
                                       "access_token", "hush", "files", "hfTokenFile", "hush"));
    char *shown = json_dumps(t_job(t, id), 0);
    assert_null(strstr(shown, "hush"));
    assert_non_null(strstr(shown, "***"));
    free(shown);
    t_restart(t);
    t_hello(t, "w", "k", 1);
    char *told = json_dumps(t_told(t, "w", LADE_W_JOB), 0);
    assert_non_null(strstr(told, "\"access_token\": \"hush\""));
    free(told);
}

static void
test_wrong_arguments_are_named(void **state)
{
    t_broker_t *t = *state;
    assert_string_equal(t_refused(t, "jobs", "submit", json_object()), "ValueError");
    assert_string_equal(
        t_refused(t, "jobs", "submit", json_pack("{s:s, s:i}", "kind", "k", "spec", 1)),
        "ValueError");
    assert_string_equal(
        t_refused(t, "jobs", "submit", json_pack("{s:s, s:[i]}", "kind", "k", "gates", 1)),
        "ValueError");
    assert_string_equal(t_refused(t, "jobs", "submit",
                                  json_pack("{s:s, s:{s:i}}", "kind", "k", "requires", "a", 1)),
                        "ValueError");
    assert_string_equal(t_refused(t, "jobs", "get", json_pack("{s:i}", "id", 99)), "UnknownJobID");
    assert_string_equal(t_refused(t, "jobs", "no_such", NULL), "unknown_op");
    assert_string_equal(t_refused(t, "nobody", "get", NULL), "unknown_service");
    assert_int_equal(json_array_size(t_call(t, "jobs", "list", NULL)), 0);
}

// ---------------------------------------------------------------------------------------------------
// Leases and fencing

static void
test_lost_worker_gives_its_jobs_back(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "a", "k", 1);
    lade_router_skip(t->router, 1500);
    t_hello(t, "b", "other", 1);
    lade_router_skip(t->router, 1600);
    t_turn(t);
    // The first skip moved a's lease along with the clock: a late broker does not blame its
    // workers.
    lade_router_skip(t->router, 900);
    for (int i = 0; i < 6 && t_events(t, "worker_lost/a/", NULL) == 0; i++) {
        t_feed(t, NULL, "b", LADE_W_BEAT, json_object());
        lade_router_skip(t->router, 1000);
        t_turn(t);
    }
    assert_int_equal(t_events(t, "worker_lost/a/", NULL), 1);
    assert_int_equal(t_events(t, "worker_lost/b/", NULL), 0);
    assert_int_equal(t_events(t, "job_requeued/", &event), 1);
    assert_int_equal(lade_json_int(event, "deaths", 0), 1);
    assert_string_equal(t_status(t, id), "enqueued");
}

// Silence of a for as long as its lease, while others beat.
static void
s_lose(t_broker_t *t, const char *worker)
{
    char topic[64];
    snprintf(topic, sizeof topic, "worker_lost/%s/", worker);
    size_t before = t_events(t, topic, NULL);
    for (int i = 0; i < 10 && t_events(t, topic, NULL) == before; i++) {
        lade_router_skip(t->router, 1000);
        t_turn(t);
    }
    assert_int_equal(t_events(t, topic, NULL), before + 1);
}

static void
test_job_whose_workers_die_is_dead(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    int64_t id = t_submit_kind(t, "k");
    for (int i = 0; i < 3; i++) {
        t_hello(t, "w", "k", 1);
        assert_string_equal(t_status(t, id), "running");
        s_lose(t, "w");
    }
    assert_string_equal(t_status(t, id), "dead");
    assert_int_equal(t_events(t, "job_dead/", &event), 1);
    assert_int_equal(lade_json_int(event, "deaths", 0), 3);
    t_hello(t, "w", "k", 1);
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 3);
    t_call(t, "jobs", "retry", json_pack("{s:I}", "id", (json_int_t)id));
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 4);
    t_done(t, "w", id, 4);
    assert_string_equal(t_status(t, id), "completed");
}

// A worker that lives and beats but never has the job: no worker can read it.
static void
test_job_no_worker_knows_of_is_dead(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    for (int i = 0; i < 100 && strcmp(t_status(t, id), "dead") != 0; i++) {
        lade_router_skip(t->router, 500);
        t_feed(t, NULL, "w", LADE_W_BEAT, json_pack("{s:[]}", "jobs"));
        t_turn(t);
    }
    assert_string_equal(t_status(t, id), "dead");
    assert_int_equal(t_events(t, "worker_lost/w/", NULL), 0);
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 3);
}

static void
test_late_report_changes_nothing(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "a", "k", 1);
    s_lose(t, "a");
    t_hello(t, "b", "k", 1);
    t_done(t, "a", id, 1); // not known: it is told so
    assert_false(lade_json_bool(t_told(t, "a", LADE_W_BEAT), "known", true));
    t_hello_with(t, "a", "k", 1, NULL,
                 json_pack("[{s:I, s:i}]", "id", (json_int_t)id, "attempt", 1));
    t_turn(t);
    assert_int_equal(json_array_size(json_object_get(t_told(t, "a", LADE_W_WELCOME), "drop")), 1);
    t_done(t, "a", id, 1);
    assert_string_equal(t_status(t, id), "running");
    assert_int_equal(t_metric(t, "stale_reports"), 1);
    assert_int_equal(lade_json_int(t_told(t, "a", LADE_W_CANCEL), "attempt", 0), 1);
    t_done(t, "b", id, 2);
    assert_string_equal(t_status(t, id), "completed");
}

static void
test_report_sent_twice_counts_once(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_done(t, "w", id, 1);
    t->n--;
    t_done(t, "w", id, 1);
    assert_int_equal(t_metric(t, "stale_reports"), 0);
    lade_router_skip(t->router, 1000);
    t_turn(t);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_BEAT), "acked", 0), 1);
}

static void
test_bye_blames_nobody(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_feed(t, NULL, "w", LADE_W_BYE, json_pack("{s:i}", "n", 1));
    t_turn(t);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_BEAT), "acked", 0), 1);
    json_t *job = t_job(t, id);
    assert_string_equal(lade_json_text(job, "status", ""), "enqueued");
    assert_int_equal(lade_json_int(job, "deaths", -1), 0);
    assert_int_equal(lade_json_int(job, "failures", -1), 0);
}

// ---------------------------------------------------------------------------------------------------
// Restart

static void
test_restart_takes_everything_up(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t running = t_submit_kind(t, "k");
    int64_t waiting = t_submit(t, json_pack("{s:s, s:i}", "kind", "k", "priority", 3));
    int64_t idle = t_submit(t, json_pack("{s:s, s:b}", "kind", "k", "start", 0));
    t_restart(t);
    assert_string_equal(t_status(t, running), "running");
    assert_string_equal(t_status(t, waiting), "enqueued");
    assert_string_equal(t_status(t, idle), "idle");
    // The worker comes back with the job it holds, and keeps it.
    t_hello_with(t, "w", "k", 1, NULL,
                 json_pack("[{s:I, s:i}]", "id", (json_int_t)running, "attempt", 1));
    t_turn(t);
    assert_int_equal(json_array_size(json_object_get(t_told(t, "w", LADE_W_WELCOME), "drop")), 0);
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 0);
    t_done(t, "w", running, 1);
    assert_string_equal(t_status(t, running), "completed");
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "id", 0), waiting);
    assert_true(t_submit_kind(t, "k") > idle);
}

static void
test_restart_without_the_worker_gives_back_after_a_lease(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    t_restart(t);
    lade_router_skip(t->router, 2000);
    t_turn(t);
    assert_string_equal(t_status(t, id), "running");
    lade_router_skip(t->router, 1500);
    t_turn(t);
    json_t *job = t_job(t, id);
    assert_string_equal(lade_json_text(job, "status", ""), "enqueued");
    assert_int_equal(lade_json_int(job, "deaths", -1), 0);
}

static void
test_hello_without_a_job_gives_it_back(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    t_restart(t);
    t_hello(t, "w", "k", 1);
    assert_int_equal(t_events(t, "job_requeued/", NULL), 1);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "attempt", 0), 2);
    t_done(t, "w", id, 2);
    assert_string_equal(t_status(t, id), "completed");
}

static void
test_failed_commit_leaves_nothing(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t before = t_submit_kind(t, "k");
    lade_router_break_commits(t->router, 1);
    assert_string_equal(t_refused(t, "jobs", "submit", json_pack("{s:s}", "kind", "k")),
                        "no_space");
    assert_false(lade_json_bool(t_told(t, "w", LADE_W_BEAT), "known", true));
    assert_string_equal(t_status(t, before), "running");
    assert_int_equal(json_array_size(t_call(t, "jobs", "list", NULL)), 1);
    // A wait that began in a turn that is lost is refused, an older one goes on.
    int64_t wait = t_send(t, "jobs", "wait", json_pack("{s:I}", "id", (json_int_t)before));
    t_turn(t);
    t_hello_with(t, "w", "k", 1, NULL,
                 json_pack("[{s:I, s:i}]", "id", (json_int_t)before, "attempt", 1));
    t_turn(t);
    lade_router_break_commits(t->router, 1);
    t_done(t, "w", before, 1);
    assert_null(t_answer(t, wait));
    assert_string_equal(t_status(t, before), "running");
    t_hello_with(t, "w", "k", 1, NULL,
                 json_pack("[{s:I, s:i}]", "id", (json_int_t)before, "attempt", 1));
    t->n--;
    t_done(t, "w", before, 1);
    assert_non_null(t_answer(t, wait));
    assert_string_equal(t_status(t, before), "completed");
}

// ---------------------------------------------------------------------------------------------------
// Failing

static void
test_retryable_failure_backs_off(void **state)
{
    t_broker_t *t = *state;
    json_t *event = NULL;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    for (int failures = 1; failures < 5; failures++) {
        t_fail(t, "w", id, failures, "network");
        json_t *job = t_job(t, id);
        assert_string_equal(lade_json_text(job, "status", ""), "enqueued");
        assert_string_equal(lade_json_text(job, "error_type", ""), "network");
        double wait_s = lade_json_real(job, "not_before", 0) - lade_now(),
               most_s = 1 << (failures - 1);
        for (int i = 1; i < failures; i++)
            wait_s -= 1 << (i - 1); // the clock was moved on
        assert_true(wait_s > most_s / 2 - 0.5 && wait_s < most_s + 0.5);
        lade_router_skip(t->router, 1000 << (failures - 1));
        t_turn(t);
        t_feed(t, NULL, "w", LADE_W_BEAT, json_object());
        t_turn(t);
        assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "attempt", 0), failures + 1);
        assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "failures", 0), failures);
    }
    assert_int_equal(t_events(t, "job_requeued/", NULL), 4);
    t_fail(t, "w", id, 5, "network");
    assert_string_equal(t_status(t, id), "error");
    assert_int_equal(t_events(t, "job_error/", &event), 1);
    assert_string_equal(lade_json_text(event, "error", ""), "words");
}

static void
test_retry_after_is_kept_exactly(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_report(t, "w", LADE_W_FAIL, id, 1,
             json_pack("{s:s, s:s, s:f}", "code", "rate_limited", "message", "m", "retry_after_s",
                       30.0));
    double wait_s = lade_json_real(t_job(t, id), "not_before", 0) - lade_now();
    assert_true(wait_s > 29 && wait_s <= 30);
}

static void
test_permanent_failure_ends_at_once(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_fail(t, "w", id, 1, "auth_required");
    json_t *job = t_job(t, id);
    assert_string_equal(lade_json_text(job, "status", ""), "error");
    assert_int_equal(lade_json_int(job, "failures", 0), 1);
    t_call(t, "jobs", "retry", json_pack("{s:I}", "id", (json_int_t)id));
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "failures", -1), 0);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "attempt", -1), 2);
}

// ---------------------------------------------------------------------------------------------------
// Children

static json_t *
s_two_children(void)
{
    return json_pack("{s:{s:i}, s:[{s:s, s:s}, {s:s, s:s}], s:i}", "state", "step", 1, "jobs",
                     "kind", "child", "source", "a", "kind", "child", "source", "b", "total_bytes",
                     200);
}

static void
test_parent_goes_on_when_its_children_ended(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_hello(t, "c", "child", 2);
    t_report(t, "w", LADE_W_AWAIT, id, 1, s_two_children());
    json_t *job = t_job(t, id);
    assert_string_equal(lade_json_text(job, "status", ""), "waiting");
    assert_int_equal(json_array_size(json_object_get(job, "children")), 2);
    assert_int_equal(t_count_told(t, "c", LADE_W_JOB), 2);
    t_done(t, "c", id + 1, 1);
    assert_string_equal(t_status(t, id), "waiting");
    t_restart(t);
    t_hello(t, "w", "k", 1);
    t_hello_with(t, "c", "child", 2, NULL,
                 json_pack("[{s:I, s:i}]", "id", (json_int_t)id + 2, "attempt", 1));
    t_fail(t, "c", id + 2, 1, "not_found");
    json_t *told = t_told(t, "w", LADE_W_JOB), *children = json_object_get(told, "children");
    assert_int_equal(lade_json_int(told, "attempt", 0), 2);
    assert_int_equal(lade_json_int(told, "stage", 0), 1);
    assert_int_equal(lade_json_int(json_object_get(told, "state"), "step", 0), 1);
    assert_int_equal(json_array_size(children), 2);
    assert_string_equal(lade_json_text(json_array_get(children, 0), "status", ""), "completed");
    assert_int_equal(
        lade_json_int(json_object_get(json_array_get(children, 0), "result"), "answer", 0), 42);
    assert_string_equal(lade_json_text(json_array_get(children, 1), "status", ""), "error");
    assert_string_equal(lade_json_text(json_array_get(children, 1), "error_type", ""), "not_found");
    json_t *listed = t_call(t, "jobs", "list", json_pack("{s:I}", "parent", (json_int_t)id));
    assert_int_equal(json_array_size(listed), 2);
}

static void
test_vital_child_that_fails_takes_its_siblings_with_it(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_hello(t, "c", "child", 2);
    t_report(t, "w", LADE_W_AWAIT, id, 1,
             json_pack("{s:[{s:s, s:s, s:b}, {s:s, s:s}, {s:s, s:s}]}", "jobs", "kind", "child",
                       "source", "a", "vital", 1, "kind", "child", "source", "b", "kind", "child",
                       "source", "c"));
    t_restart(t); // it is still known which child is vital
    t_hello(t, "w", "k", 1);
    t_hello_with(t, "c", "child", 2, NULL,
                 json_pack("[{s:I, s:i}, {s:I, s:i}]", "id", (json_int_t)id + 1, "attempt", 1, "id",
                           (json_int_t)id + 2, "attempt", 1));
    t_fail(t, "c", id + 1, 1, "not_found");
    assert_string_equal(t_status(t, id + 1), "error");
    assert_string_equal(t_status(t, id + 2), "cancelled"); // was running: its worker is told
    assert_string_equal(t_status(t, id + 3), "cancelled");
    assert_int_equal(lade_json_int(t_told(t, "c", LADE_W_CANCEL), "id", 0), id + 2);
    json_t *children = json_object_get(t_told(t, "w", LADE_W_JOB), "children");
    assert_int_equal(json_array_size(children), 3);
}

static void
test_waiting_for_a_rate_limit_uses_up_no_attempt(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    for (int64_t attempt = 1; attempt <= 12; attempt++) {
        t_fail(t, "w", id, attempt, "rate_limited");
        assert_string_equal(t_status(t, id), "enqueued");
        assert_int_equal(lade_json_int(t_job(t, id), "failures", -1), 0);
        lade_router_skip(t->router, 120000);
        t_hello(t, "w", "k", 1);
    }
    t_done(t, "w", id, 13);
    assert_string_equal(t_status(t, id), "completed");
}

static void
test_await_without_children_is_a_checkpoint(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    size_t running = t_events(t, "job_running/", NULL);
    t_report(t, "w", LADE_W_AWAIT, id, 1, json_pack("{s:{s:i}, s:[]}", "state", "step", 2, "jobs"));
    json_t *told = t_told(t, "w", LADE_W_JOB);
    assert_int_equal(lade_json_int(told, "attempt", 0), 2);
    assert_int_equal(lade_json_int(told, "stage", 0), 1);
    assert_int_equal(lade_json_int(json_object_get(told, "state"), "step", 0), 2);
    assert_int_equal(t_events(t, "job_running/", NULL), running);
    assert_int_equal(t_events(t, "job_enqueued/", NULL), 1);
}

// What an AWAIT asks is answered with the JOB of the next stage, afresh each time it is dispatched.
static void
test_await_asks_and_the_next_stage_is_answered(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_report(t, "w", LADE_W_AWAIT, id, 1,
             json_pack("{s:[{s:s, s:[s, s]}, {s:s, s:s}, {s:s}, {s:s}]}", "ask", "op",
                       "known_paths", "paths", "sd-1/lora/a.safetensors", "/elsewhere/b.ckpt", "op",
                       "by_hash", "hash", "none", "op", "weather", "op", "known_paths"));
    json_t *answers = json_object_get(t_told(t, "w", LADE_W_JOB), "answers");
    assert_int_equal(json_array_size(answers), 4);
    assert_true(json_is_null(json_array_get(json_array_get(answers, 0), 0)));
    assert_true(json_is_null(json_array_get(json_array_get(answers, 0), 1)));
    assert_int_equal(json_array_size(json_array_get(answers, 1)), 0);
    for (size_t i = 2; i < 4; i++)
        assert_string_equal(
            lade_json_text(json_object_get(json_array_get(answers, i), "error"), "code", ""),
            "bad_request");
    // It fails and is tried again after a restart, when there is a record.
    t_call(t, "store", "add_model",
           json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}}", "key",
                     "0123456789abcdef0123456789abcdef", "config", "name", "a", "type", "lora",
                     "base", "sd-1", "format", "lycoris", "path", "sd-1/lora/a.safetensors", "hash",
                     "none", "source", "x", "source_type", "path"));
    t_fail(t, "w", id, 2, "network");
    t_restart(t);
    lade_router_skip(t->router, 120000);
    t_hello(t, "w", "k", 1);
    answers = json_object_get(t_told(t, "w", LADE_W_JOB), "answers");
    assert_string_equal(json_string_value(json_array_get(json_array_get(answers, 0), 0)),
                        "0123456789abcdef0123456789abcdef");
    assert_true(json_is_null(json_array_get(json_array_get(answers, 0), 1)));
    json_t *same = json_array_get(json_array_get(answers, 1), 0);
    assert_string_equal(lade_json_text(same, "name", ""), "a");
    assert_string_equal(lade_json_text(same, "path", ""), "sd-1/lora/a.safetensors");
    assert_null(json_object_get(same, "version"));
    // The next AWAIT asks nothing.
    t_report(t, "w", LADE_W_AWAIT, id, 3, json_pack("{s:[]}", "jobs"));
    assert_null(json_object_get(t_told(t, "w", LADE_W_JOB), "answers"));
}

static void
test_sources_and_live_jobs_can_be_asked_for(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "store", "add_model",
           json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}}", "key",
                     "0123456789abcdef0123456789abcdef", "config", "name", "a", "type", "lora",
                     "base", "sd-1", "format", "lycoris", "path", "sd-1/lora/a.safetensors", "hash",
                     "none", "source", "/from/a", "source_type", "path"));
    int64_t id = t_submit_kind(t, "k");
    t_submit_kind(t, "other"); // has not begun
    t_hello(t, "w", "k", 1);
    json_t *ask = json_pack("[{s:s, s:[s, s]}, {s:s, s:s}, {s:s, s:s}]", "op", "known_sources",
                            "sources", "/from/b", "/from/a", "op", "live_jobs", "kind", "other",
                            "op", "live_jobs", "kind", "k");
    t_report(t, "w", LADE_W_AWAIT, id, 1, json_pack("{s:O}", "ask", ask));
    json_t *answers = json_object_get(t_told(t, "w", LADE_W_JOB), "answers");
    assert_true(json_is_null(json_array_get(json_array_get(answers, 0), 0)));
    assert_true(json_is_string(json_array_get(json_array_get(answers, 0), 1)));
    assert_int_equal(lade_json_int(json_array_get(answers, 1), "count", -1), 0);
    assert_true(json_is_null(json_object_get(json_array_get(answers, 1), "since")));
    assert_int_equal(lade_json_int(json_array_get(answers, 2), "count", -1), 1);
    assert_true(lade_json_real(json_array_get(answers, 2), "since", 0) > 0);
    t_hello(t, "x", "other", 1);
    t_report(t, "w", LADE_W_AWAIT, id, 2, json_pack("{s:o}", "ask", ask));
    answers = json_object_get(t_told(t, "w", LADE_W_JOB), "answers");
    assert_int_equal(lade_json_int(json_array_get(answers, 1), "count", -1), 1);
}

// One that is refused for what it says leaves the others; one that is not tolerant takes all along.
static void
test_tolerant_effects_are_refused_one_by_one(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    static const char good[] = "{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}, s:b}";
    for (int tolerant = 1; tolerant >= 0; tolerant--) {
        char path[32];
        json_t *effects = json_array();
        for (int i = 0; i < 3; i++) { // the second has the path of the first
            snprintf(path, sizeof path, "x%d/%d.bin", tolerant, i == 2);
            json_array_append_new(
                effects, json_pack(good, "op", "put_model", "model", "name", "a", "type", "lora",
                                   "base", "sd-1", "format", "lycoris", "path", path, "hash", "h",
                                   "source", "x", "source_type", "path", "tolerant", tolerant));
        }
        json_array_append_new(effects, json_pack("{s:s, s:{s:s}, s:b}", "op", "put_model", "model",
                                                 "name", "nothing else", "tolerant", tolerant));
        json_array_append_new(effects,
                              json_pack("{s:s, s:s, s:{s:s}, s:b}", "op", "update_model", "key",
                                        "none", "changes", "name", "b", "tolerant", tolerant));
        size_t events = t_events(t, "model_record_added/", NULL);
        int64_t id = t_submit_kind(t, "k");
        t_report(t, "w", LADE_W_DONE, id, 1,
                 json_pack("{s:{}, s:o}", "result", "effects", effects));
        assert_string_equal(t_status(t, id), tolerant ? "completed" : "error");
        assert_int_equal(t_events(t, "model_record_added/", NULL) - events, tolerant ? 2 : 0);
        if (!tolerant) {
            assert_string_equal(lade_json_text(t_job(t, id), "error_type", ""), "DuplicateModel");
            continue;
        }
        static const char *const types[] = {"DuplicateModel", "InvalidModelConfig", "UnknownModel"};
        static const int64_t at[] = {1, 3, 4};
        const json_t *result = json_object_get(t_job(t, id), "result");
        const json_t *refused = json_object_get(result, "refused");
        assert_null(json_object_get(result, "key")); // of which one?
        assert_int_equal(json_array_size(refused), 3);
        for (size_t i = 0; i < 3; i++) {
            const json_t *one = json_array_get(refused, i);
            assert_int_equal(lade_json_int(one, "at", -1), at[i]);
            assert_string_equal(lade_json_text(one, "error_type", ""), types[i]);
            assert_true(*lade_json_text(one, "error", ""));
        }
    }
    assert_int_equal(json_array_size(t_call(t, "store", "all_models", NULL)), 2);
}

static void
test_asked_records_come_in_pages(void **state)
{
    t_broker_t *t = *state;
    enum { S_RECORDS = 25 };
    for (int i = 0; i < S_RECORDS; i++) {
        char key[33], path[40];
        snprintf(key, sizeof key, "%032x", i);
        snprintf(path, sizeof path, "sd-1/lora/%d.safetensors", i);
        t_call(t, "store", "add_model",
               json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}}", "key", key, "config",
                         "name", path, "type", "lora", "base", "sd-1", "format", "lycoris", "path",
                         path, "hash", "h", "source", path, "source_type", "path"));
    }
    t_forget(t);
    int64_t id = t_submit_kind(t, "k"), attempt = 0, seen = 0;
    t_hello(t, "w", "k", 1);
    json_t *after = json_null();
    for (int page = 0; page < 3; page++) {
        t_report(t, "w", LADE_W_AWAIT, id, ++attempt,
                 json_pack("{s:[{s:s, s:i, s:O, s:[s, s]}]}", "ask", "op", "records", "limit", 10,
                           "after", after, "fields", "key", "path"));
        json_t *answer = json_array_get(json_object_get(t_told(t, "w", LADE_W_JOB), "answers"), 0);
        json_t *records = json_object_get(answer, "records");
        assert_int_equal(json_array_size(records), page < 2 ? 10 : 5);
        for (size_t i = 0; i < json_array_size(records); i++) {
            char key[33];
            snprintf(key, sizeof key, "%032x", (unsigned)seen++);
            assert_int_equal(json_object_size(json_array_get(records, i)), 2);
            assert_string_equal(lade_json_text(json_array_get(records, i), "key", ""), key);
        }
        after = json_object_get(answer, "next");
        assert_int_equal(json_is_null(after), page == 2);
    }
    // Some of them by key: unknown ones are left out, and `after` goes on behind one.
    t_report(t, "w", LADE_W_AWAIT, id, ++attempt,
             json_pack("{s:[{s:s, s:s, s:[s, s, s, s]}]}", "ask", "op", "records", "after",
                       "00000000000000000000000000000003", "keys",
                       "00000000000000000000000000000003", "none",
                       "00000000000000000000000000000001", "00000000000000000000000000000002"));
    json_t *answer = json_array_get(json_object_get(t_told(t, "w", LADE_W_JOB), "answers"), 0);
    json_t *records = json_object_get(answer, "records");
    assert_int_equal(json_array_size(records), 2);
    assert_int_equal(lade_json_int(json_array_get(records, 0), "version", 0), 1);
    assert_string_equal(lade_json_text(json_array_get(records, 1), "key", ""),
                        "00000000000000000000000000000002");
    assert_true(json_is_null(json_object_get(answer, "next")));
}

static void
test_malformed_asks_end_in_error(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    json_t *asks[] = {json_string("no array"), json_pack("[i]", 5),
                      json_pack("[{s:s, s:s}]", "op", "records", "access_token", "hf_secret"),
                      json_array()};
    for (int i = 0; i <= LADE_BROKER_MAX_ASKS; i++)
        json_array_append_new(asks[3], json_object());
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        int64_t id = t_submit_kind(t, "k");
        t_report(t, "w", LADE_W_AWAIT, id, 1, json_pack("{s:o}", "ask", asks[i]));
        assert_string_equal(t_status(t, id), "error");
        assert_string_equal(lade_json_text(t_job(t, id), "error_type", ""), "bad_request");
    }
}

static void
test_cancelling_a_parent_cancels_the_tree(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_hello(t, "c", "child", 1);
    t_report(t, "w", LADE_W_AWAIT, id, 1, s_two_children());
    t_report(t, "c", LADE_W_AWAIT, id + 1, 1,
             json_pack("{s:{}, s:[{s:s}]}", "state", "jobs", "kind", "grandchild"));
    t_call(t, "jobs", "cancel", json_pack("{s:I}", "id", (json_int_t)id));
    for (int64_t i = id; i <= id + 3; i++)
        assert_string_equal(t_status(t, i), "cancelled");
    assert_int_equal(lade_json_int(t_told(t, "c", LADE_W_CANCEL), "id", 0), id + 2);
    assert_int_equal(t_events(t, "job_cancelled/", NULL), 4);
    // The slot is free when the worker has let go.
    int64_t next = t_submit_kind(t, "child");
    assert_int_not_equal(lade_json_int(t_told(t, "c", LADE_W_JOB), "id", 0), next);
    t_fail(t, "c", id + 2, 1, "cancelled");
    assert_int_equal(lade_json_int(t_told(t, "c", LADE_W_JOB), "id", 0), next);
    assert_int_equal(t_metric(t, "stale_reports"), 0);
}

static void
test_retrying_a_parent_retries_failed_children(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_hello(t, "c", "child", 2);
    t_report(t, "w", LADE_W_AWAIT, id, 1, s_two_children());
    t_done(t, "c", id + 1, 1);
    t_fail(t, "c", id + 2, 1, "not_found");
    t_fail(t, "w", id, 2, "child_failed");
    assert_string_equal(t_status(t, id), "error");
    t_call(t, "jobs", "retry", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(t_status(t, id), "waiting");
    assert_string_equal(t_status(t, id + 1), "completed");
    t_done(t, "c", id + 2, 2);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "attempt", 0), 3);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "stage", 0), 1);
    t_done(t, "w", id, 3);
    assert_string_equal(t_status(t, id), "completed");
}

static void
test_malformed_await_ends_in_error(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    t_report(t, "w", LADE_W_AWAIT, id, 1,
             json_pack("{s:{}, s:[{s:s}, {s:i}]}", "state", "jobs", "kind", "child", "kind", 5));
    assert_string_equal(t_status(t, id), "error");
    assert_string_equal(t_status(t, id + 1), "cancelled");
    id = t_submit_kind(t, "k");
    t_report(t, "w", LADE_W_AWAIT, id, 1, json_pack("{s:s}", "jobs", "no array"));
    assert_string_equal(t_status(t, id), "error");
}

// ---------------------------------------------------------------------------------------------------
// Pausing

static void
test_paused_job_goes_on_where_it_stopped(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    t_hello(t, "x", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    const char *holder = t_told(t, "w", LADE_W_JOB) ? "w" : "x";
    t_call(t, "jobs", "pause", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(t_status(t, id), "paused");
    assert_int_equal(lade_json_int(t_told(t, holder, LADE_W_PAUSE), "attempt", 0), 1);
    // Started again before its worker let go: nobody else gets it meanwhile.
    t_call(t, "jobs", "start", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(t_status(t, id), "enqueued");
    json_t *why = t_call(t, "jobs", "why", json_pack("{s:I}", "id", (json_int_t)id));
    assert_non_null(strstr(lade_json_text(why, "why", ""), "still stopping"));
    t_fail(t, holder, id, 1, "paused");
    assert_string_equal(t_status(t, id), "running");
    assert_int_equal(lade_json_int(t_job(t, id), "failures", -1), 0);
    assert_int_equal(lade_json_int(t_job(t, id), "attempt", -1), 2);
}

static void
test_pausing_a_parent_pauses_its_children(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_report(t, "w", LADE_W_AWAIT, id, 1, s_two_children());
    t_call(t, "jobs", "pause", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(t_status(t, id), "paused");
    assert_string_equal(t_status(t, id + 1), "paused");
    t_call(t, "jobs", "start", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(t_status(t, id), "waiting");
    assert_string_equal(t_status(t, id + 2), "enqueued");
    t_hello(t, "c", "child", 2);
    t_done(t, "c", id + 1, 1);
    t_done(t, "c", id + 2, 1);
    assert_string_equal(t_status(t, id), "running");
}

static void
test_work_that_was_done_before_the_pause_counts(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 1);
    int64_t id = t_submit_kind(t, "k");
    t_call(t, "jobs", "pause", json_pack("{s:I}", "id", (json_int_t)id));
    t_done(t, "w", id, 1);
    assert_string_equal(t_status(t, id), "completed");
}

// ---------------------------------------------------------------------------------------------------
// Requires and gates

static void
test_job_waits_for_a_worker_with_its_labels(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit(t, json_pack("{s:s, s:{s:s}}", "kind", "k", "requires", "gpu", "h100"));
    int64_t plain = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 4);
    assert_string_equal(t_status(t, plain), "running");
    json_t *why = t_call(t, "jobs", "why", json_pack("{s:I}", "id", (json_int_t)id));
    assert_string_equal(
        lade_json_text(json_array_get(json_object_get(why, "gates"), 0), "gate", ""), "worker:k");
    t_hello_with(t, "g", "k", 1, json_pack("{s:s, s:s}", "gpu", "h100", "site", "a"), NULL);
    t_turn(t);
    assert_int_equal(lade_json_int(t_told(t, "g", LADE_W_JOB), "id", 0), id);
    int64_t named = t_submit(t, json_pack("{s:s, s:{s:s}}", "kind", "k", "requires", "name", "w"));
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "id", 0), named);
}

static void
test_gate_limits_how_many_run(void **state)
{
    t_broker_t *t = *state;
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "space:x", "limit", 2));
    t_hello(t, "w", "k", 10);
    for (int i = 0; i < 5; i++)
        t_submit(t, json_pack("{s:s, s:[s]}", "kind", "k", "gates", "space:x"));
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 2);
    json_t *gate = json_array_get(t_call(t, "broker", "gates", NULL), 0);
    assert_int_equal(lade_json_int(gate, "running", 0), 2);
    assert_int_equal(lade_json_int(gate, "waiting", 0), 3);
    json_t *why = t_call(t, "jobs", "why", json_pack("{s:i}", "id", 5));
    assert_string_equal(
        lade_json_text(json_array_get(json_object_get(why, "gates"), 0), "gate", ""), "space:x");
    t_done(t, "w", 1, 1);
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 3);
    t_call(t, "jobs", "cancel", json_pack("{s:i}", "id", 4)); // one that waits
    t_done(t, "w", 2, 1);
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "id", 0), 5);
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "space:x", "limit", 0));
    t_done(t, "w", 3, 1);
    t_done(t, "w", 5, 1);
    assert_int_equal(json_array_size(t_call(t, "broker", "gates", NULL)), 0);
}

static void
test_some_gates_let_one_pass(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "k", 10);
    for (int i = 0; i < 3; i++)
        t_submit(t, json_pack("{s:s, s:[s]}", "kind", "k", "gates", "only:x"));
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 1);
    t_done(t, "w", 1, 1);
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 2);
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "only:x", "limit", 2));
    assert_int_equal(t_count_told(t, "w", LADE_W_JOB), 3);
    t_call(t, "broker", "set", json_pack("{s:s, s:i}", "gate", "only:x", "limit", 0));
    t_done(t, "w", 2, 1);
    t_done(t, "w", 3, 1);
    assert_int_equal(json_array_size(t_call(t, "broker", "gates", NULL)), 0);
}

static void
test_closed_gate_opens_by_itself(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "download", 10);
    t_feed(t, NULL, "w", LADE_W_GATE,
           json_pack("{s:I, s:s, s:f, s:s}", "n", (json_int_t)++t->n, "gate", "host:hub",
                     "closed_for_s", 20.0, "reason", "too many requests"));
    t_turn(t);
    json_t *args =
        json_pack("{s:s, s:s}", "source", "https://user@HUB:8080/x", "destination", "/tmp/x");
    int64_t id = lade_json_int(t_call(t, "download", "create_download_job", args), "id", 0);
    assert_string_equal(t_status(t, id), "enqueued");
    json_t *why = t_call(t, "jobs", "why", json_pack("{s:I}", "id", (json_int_t)id));
    json_t *gate = json_array_get(json_object_get(why, "gates"), 0);
    assert_string_equal(lade_json_text(gate, "gate", ""), "host:hub");
    assert_true(lade_json_real(gate, "until", 0) > lade_now() + 10);
    for (int i = 0; i < 21; i++) {
        t_feed(t, NULL, "w", LADE_W_BEAT, json_object());
        lade_router_skip(t->router, 1000);
        t_turn(t);
    }
    assert_int_equal(lade_json_int(t_told(t, "w", LADE_W_JOB), "id", 0), id);
    assert_int_equal(lade_json_int(t_job(t, id), "failures", -1), 0);
    assert_int_equal(lade_json_int(t_job(t, id), "attempt", -1), 1);
}

// ---------------------------------------------------------------------------------------------------
// Waiting calls

static void
test_waiting_call_is_answered_at_the_end(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "download", 1);
    json_t *args = json_pack("{s:s, s:s}", "source", "http://h/x", "destination", "/tmp/x");
    int64_t id = lade_json_int(t_call(t, "download", "create_download_job", args), "id", 0);
    int64_t wait =
        t_send(t, "jobs", "wait", json_pack("{s:I, s:b}", "id", (json_int_t)id, "partial", 1));
    t_turn(t);
    t_report(t, "w", LADE_W_PROGRESS, id, 1,
             json_pack("{s:i, s:i}", "bytes", 10, "total_bytes", 100));
    assert_null(t_answer(t, wait));
    size_t partial = 0;
    for (size_t i = 0; i < t->count; i++)
        partial += t->sent[i].kind == LADE_SENT_CLIENT && t->sent[i].command == LADE_MDP_PARTIAL;
    assert_int_equal(partial, 1);
    t_done(t, "w", id, 1);
    assert_non_null(t_answer(t, wait));
    assert_string_equal(lade_json_text(json_object_get(t_answer(t, wait), "result"), "status", ""),
                        "completed");
    // An ended job is answered at once, several as an array.
    assert_int_equal(
        json_array_size(t_call(t, "jobs", "wait",
                               json_pack("{s:[I, I]}", "ids", (json_int_t)id, (json_int_t)id))),
        2);
    assert_int_equal(json_array_size(t_call(t, "download", "join", NULL)), 1);
}

static void
test_waiting_call_times_out(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    int64_t wait =
        t_send(t, "jobs", "wait", json_pack("{s:I, s:f}", "id", (json_int_t)id, "timeout_s", 0.5));
    t_turn(t);
    assert_null(t_answer(t, wait));
    lade_router_skip(t->router, 600);
    t_turn(t);
    assert_string_equal(lade_json_text(json_object_get(t_answer(t, wait), "error"), "code", ""),
                        "Timeout");
    assert_string_equal(t_status(t, id), "enqueued");
}

// ---------------------------------------------------------------------------------------------------
// Old jobs

static void
test_old_jobs_are_pruned_and_purged(void **state)
{
    t_broker_t *t = *state;
    t->config.keep_ended = 3;
    t_hello(t, "w", "k", 1);
    int64_t live = t_submit(t, json_pack("{s:s, s:b}", "kind", "k", "start", 0));
    for (int i = 0; i < 6; i++) {
        int64_t id =
            t_submit(t, json_pack("{s:s, s:s}", "kind", "k", "token", i % 2 ? "odd" : "even"));
        json_t *job = t_job(t, id);
        if (strcmp(lade_json_text(job, "status", ""), "running") == 0)
            t_done(t, "w", id, 1);
        t_call(t, "jobs", "submit",
               json_pack("{s:s, s:s, s:b}", "kind", "other", "token", "x", "start", 0));
        t_call(t, "jobs", "purge",
               json_pack("{s:[I]}", "ids", (json_int_t)live)); // not ended: stays
    }
    for (int i = 0; i < 5; i++)
        t_done(t, "w", t_submit_kind(t, "k"), 1);
    t_turn(t);
    t_submit(t, json_pack("{s:s, s:b}", "kind", "k", "start", 0));
    json_t *ended = t_call(t, "jobs", "list", json_pack("{s:s}", "status", "completed"));
    assert_in_range(json_array_size(ended), 3, 4);
    assert_string_equal(t_status(t, live), "idle");
    json_t *purged = t_call(t, "jobs", "purge", NULL);
    assert_in_range(lade_json_int(purged, "purged", 0), 3, 4);
    assert_int_equal(
        json_array_size(t_call(t, "jobs", "list", json_pack("{s:s}", "status", "completed"))), 0);
}

static void
test_children_are_kept_while_their_parent_needs_them(void **state)
{
    t_broker_t *t = *state;
    int64_t id = t_submit_kind(t, "k");
    t_hello(t, "w", "k", 1);
    t_hello(t, "c", "child", 1);
    t_report(t, "w", LADE_W_AWAIT, id, 1, s_two_children());
    t_done(t, "c", id + 1, 1);
    assert_int_equal(lade_json_int(t_call(t, "jobs", "purge", NULL), "purged", -1), 0);
    t_done(t, "c", id + 2, 1);
    t_done(t, "w", id, 2);
    assert_int_equal(lade_json_int(t_call(t, "jobs", "purge", NULL), "purged", -1), 3);
    assert_string_equal(t_refused(t, "jobs", "get", json_pack("{s:I}", "id", (json_int_t)id)),
                        "UnknownJobID");
}

static void
test_list_pages_and_filters(void **state)
{
    t_broker_t *t = *state;
    t_hello(t, "w", "a", 1);
    for (int i = 0; i < 4; i++)
        t_submit_kind(t, "a");
    t_submit_kind(t, "b");
    t_done(t, "w", 1, 1);
    assert_int_equal(json_array_size(t_call(t, "jobs", "list", NULL)), 5);
    json_t *page = t_call(t, "jobs", "list",
                          json_pack("{s:s, s:i, s:i}", "kind", "a", "limit", 2, "offset", 1));
    assert_int_equal(json_array_size(page), 2);
    assert_int_equal(lade_json_int(json_array_get(page, 0), "id", 0), 2);
    page = t_call(t, "jobs", "list", json_pack("{s:s, s:i}", "status", "enqueued", "limit", 10));
    assert_int_equal(json_array_size(page), 3);
    assert_int_equal(lade_json_int(json_array_get(page, 2), "id", 0), 5);
    assert_int_equal(
        json_array_size(t_call(t, "jobs", "list", json_pack("{s:s}", "kind", "never"))), 0);
    json_t *jobs = json_object_get(t_call(t, "broker", "status", NULL), "jobs");
    assert_int_equal(lade_json_int(json_object_get(jobs, "a"), "enqueued", 0), 2);
    assert_int_equal(lade_json_int(json_object_get(jobs, "a"), "completed", 0), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_has_these_steps_and_no_others),
        T_TEST(test_job_runs_and_completes),
        T_TEST(test_nothing_is_sent_before_the_commit),
        T_TEST(test_lower_priority_number_goes_first),
        T_TEST(test_worker_gets_no_more_than_its_slots),
        T_TEST(test_token_answers_the_same_job),
        T_TEST(test_equal_installs_and_downloads_are_one_job),
        T_TEST(test_full_queue_refuses),
        T_TEST(test_secrets_reach_the_worker_only),
        T_TEST(test_wrong_arguments_are_named),
        T_TEST(test_lost_worker_gives_its_jobs_back),
        T_TEST(test_job_whose_workers_die_is_dead),
        T_TEST(test_job_no_worker_knows_of_is_dead),
        T_TEST(test_late_report_changes_nothing),
        T_TEST(test_report_sent_twice_counts_once),
        T_TEST(test_bye_blames_nobody),
        T_TEST(test_restart_takes_everything_up),
        T_TEST(test_restart_without_the_worker_gives_back_after_a_lease),
        T_TEST(test_hello_without_a_job_gives_it_back),
        T_TEST(test_failed_commit_leaves_nothing),
        T_TEST(test_retryable_failure_backs_off),
        T_TEST(test_retry_after_is_kept_exactly),
        T_TEST(test_permanent_failure_ends_at_once),
        T_TEST(test_parent_goes_on_when_its_children_ended),
        T_TEST(test_vital_child_that_fails_takes_its_siblings_with_it),
        T_TEST(test_waiting_for_a_rate_limit_uses_up_no_attempt),
        T_TEST(test_await_without_children_is_a_checkpoint),
        T_TEST(test_await_asks_and_the_next_stage_is_answered),
        T_TEST(test_sources_and_live_jobs_can_be_asked_for),
        T_TEST(test_tolerant_effects_are_refused_one_by_one),
        T_TEST(test_asked_records_come_in_pages),
        T_TEST(test_malformed_asks_end_in_error),
        T_TEST(test_cancelling_a_parent_cancels_the_tree),
        T_TEST(test_retrying_a_parent_retries_failed_children),
        T_TEST(test_malformed_await_ends_in_error),
        T_TEST(test_paused_job_goes_on_where_it_stopped),
        T_TEST(test_pausing_a_parent_pauses_its_children),
        T_TEST(test_work_that_was_done_before_the_pause_counts),
        T_TEST(test_job_waits_for_a_worker_with_its_labels),
        T_TEST(test_gate_limits_how_many_run),
        T_TEST(test_some_gates_let_one_pass),
        T_TEST(test_closed_gate_opens_by_itself),
        T_TEST(test_waiting_call_is_answered_at_the_end),
        T_TEST(test_waiting_call_times_out),
        T_TEST(test_old_jobs_are_pruned_and_purged),
        T_TEST(test_children_are_kept_while_their_parent_needs_them),
        T_TEST(test_list_pages_and_filters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
