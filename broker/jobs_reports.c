// What workers say of jobs. A report counts only if the worker holds the job's present attempt;
// everything else is stale.
#include "broker/asks.h"
#include "broker/effects.h"
#include "broker/events.h"
#include "broker/jobs_private.h"
#include "broker/packer.h"
#include "broker/secrets.h"
#include "broker/shares.h"
#include "broker/surface.h"
#include "common/log.h"
#include "common/wire.h"

#include <czmq.h>
#include <math.h>
#include <sys/random.h>

enum {
    S_MAX_BYTES_LOG2 = 53, // bytes a worker may claim: what a double holds exactly
    S_MAX_DEPTH = 16,      // parents above a job
};

// The hold of this worker on the job's present attempt, NULL if the report is stale. A hold on a
// job that has ended (or goes on elsewhere) is let go of by the report itself.
static lade_hold_t *
s_hold(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt, bool ends,
       lade_job_t **job_p)
{
    lade_job_t *job = lade_jobs_live(self, id);
    *job_p = job;
    if (job && job->holder == worker && job->attempt == attempt)
        return &worker->holds[job->hold];
    lade_hold_t *hold = lade_worker_hold(worker, id, attempt);
    if (hold && ends)
        lade_jobs_release(self, worker, hold);
    *job_p = NULL;
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// PROGRESS

static int64_t
s_bytes(const msgpack_object *body, const char *key, int64_t preset)
{
    int64_t value = lade_wire_int(body, key, preset);
    return value < 0                                ? 0
           : value > INT64_C(1) << S_MAX_BYTES_LOG2 ? INT64_C(1) << S_MAX_BYTES_LOG2
                                                    : value;
}

// Takes a text the worker reports; true if it is another than before.
static bool
s_take_text(char **text_p, const msgpack_object *body, const char *key, size_t max)
{
    const char *text;
    size_t len;
    if (!lade_wire_text(body, key, &text, &len) || len > max ||
        (*text_p && strlen(*text_p) == len && memcmp(*text_p, text, len) == 0))
        return false;
    lade_job_set_text(text_p, text, len);
    return true;
}

// Takes phase and reason; true if one of them is another than before. A new phase has no reason but
// its own.
static bool
s_take_phase(lade_job_t *job, const msgpack_object *body)
{
    bool phase = s_take_text(&job->progress.phase, body, "phase", LADE_BROKER_MAX_NAME);
    if (phase)
        lade_job_set_text(&job->progress.reason, NULL, 0);
    return s_take_text(&job->progress.reason, body, "reason", LADE_BROKER_MAX_ERROR) || phase;
}

// Whatever phase comes after `stalled`, the job goes on.
static void
s_tell_stall(lade_jobs_t *self, lade_job_t *job)
{
    bool stalled = job->progress.phase && strcmp(job->progress.phase, "stalled") == 0;
    if (stalled == job->stalled)
        return;
    job->stalled = stalled;
    lade_surface_tell_stalled(self->broker, job);
}

bool
lade_jobs_progress(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt,
                   const msgpack_object *body)
{
    lade_job_t *job;
    if (!s_hold(self, worker, id, attempt, false, &job))
        return false;
    if (job->status != LADE_JOB_RUNNING)
        return true; // paused: it will stop soon
    lade_shares_confirm(self->broker->shares, job, lade_wire_int(body, "connections", 0),
                        lade_wire_int(body, "serial", 0));
    int64_t bytes = s_bytes(body, "bytes", 0), total = s_bytes(body, "total_bytes", 0);
    if (bytes || total)
        job->progress.bytes = bytes;
    if (total) // 0 is unknown, which says nothing against what is known
        job->progress.total_bytes = total;
    bool path = s_take_text(&job->progress.local_path, body, "local_path", LADE_BROKER_MAX_SOURCE);
    bool phase = s_take_phase(job, body);
    if (path || phase)
        lade_jobs_touch(self, job);
    if (phase) {
        lade_surface_announce(self->broker, job);
        s_tell_stall(self, job);
    }
    lade_jobs_tell_progress(self, job);
    if (job->parent)
        lade_jobs_roll_up(self, job);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// The next stage

// The state goes to the keyspace: what is secret in it does not.
static lade_code_t
s_take_state(lade_jobs_t *self, lade_job_t *job, const msgpack_object *state, lade_error_t *error)
{
    lade_secrets_t *secrets = self->broker->secrets;
    lade_blob_t before = job->state;
    lade_code_t code = LADE_OK;
    job->state = (lade_blob_t){0};
    if (state && lade_secrets_named(state))
        code = lade_secrets_take_out(secrets, state, &job->state, error);
    else
        lade_blob_set_object(&job->state, state);
    lade_secrets_count(secrets, before.data, before.len, -1); // after the new one has counted
    lade_blob_free(&before);
    return code;
}

static void
s_checkpoint(lade_jobs_t *self, lade_job_t *job)
{
    if (job->status == LADE_JOB_RUNNING)
        lade_jobs_move(self, job, LADE_JOB_SAVE, NULL);
    else if (job->status == LADE_JOB_ENQUEUED && !job->heap)
        lade_jobs_make_ready(self, job); // started again while its worker was stopping
    lade_jobs_touch(self, job);
}

// ---------------------------------------------------------------------------------------------------
// DONE

static void
s_set_error(lade_job_t *job, const char *type, size_t type_len, const char *message, size_t len)
{
    lade_job_set_text(&job->error_type, type, type_len);
    lade_job_set_text(&job->error, message,
                      len < LADE_BROKER_MAX_ERROR ? len : LADE_BROKER_MAX_ERROR);
}

// A server that repeats a token in its answer does not bring it into the keyspace.
static void
s_hide_secrets(lade_jobs_t *self, lade_job_t *job)
{
    const lade_secrets_t *secrets = self->broker->secrets;
    if (job->secret && job->error)
        lade_secrets_hide(secrets, &job->spec, job->error, strlen(job->error));
    if (job->secret)
        lade_secrets_hide(secrets, &job->spec, job->result.data, job->result.len);
}

static void
s_end_in_error(lade_jobs_t *self, lade_job_t *job, const lade_error_t *error)
{
    const char *name = lade_code_name(error->code);
    s_set_error(job, name, strlen(name), error->message, strlen(error->message));
    self->broker->metrics.jobs_failed++;
    lade_jobs_move(self, job, LADE_JOB_FAIL, NULL);
}

// The result, and what the effects tell besides: which were refused, the key of the added record,
// and for an install that record as it is stored, which has fields more than the one the worker
// made.
static void
s_set_result(lade_job_t *job, const msgpack_object *result, const lade_effects_done_t *done)
{
    const json_t *added = done->added, *refused = done->refused;
    bool map = result && result->type == MSGPACK_OBJECT_MAP;
    bool key = added && !lade_wire_find(result, "key");
    bool config = added && strcmp(job->kind->name, "install") == 0;
    const msgpack_object *replaced = config ? lade_wire_find(result, "config_out") : NULL;
    if (!map && !added && !refused) {
        lade_blob_free(&job->result);
        return;
    }
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    lade_put_map(&buf, (map ? result->via.map.size : 0) + key + (config && !replaced) +
                           (refused != NULL));
    for (uint32_t i = 0; map && i < result->via.map.size; i++) {
        lade_put_object(&buf, &result->via.map.ptr[i].key);
        if (replaced && &result->via.map.ptr[i].val == replaced)
            lade_wire_from_json(added, &buf, NULL);
        else
            lade_put_object(&buf, &result->via.map.ptr[i].val);
    }
    if (key) {
        LADE_PUT_KEY(&buf, "key");
        lade_put_str(&buf, lade_json_text(added, "key", ""));
    }
    if (config && !replaced) {
        LADE_PUT_KEY(&buf, "config_out");
        lade_wire_from_json(added, &buf, NULL);
    }
    if (refused) {
        LADE_PUT_KEY(&buf, "refused");
        lade_wire_from_json(refused, &buf, NULL);
    }
    lade_blob_free(&job->result);
    job->result = (lade_blob_t){buf.data, buf.len};
}

// A finished transfer is a whole one, whatever its last PROGRESS said.
static void
s_finish_progress(lade_job_t *job, const msgpack_object *result)
{
    int64_t bytes = s_bytes(result, "bytes", job->progress.bytes);
    int64_t total = s_bytes(result, "total_bytes", job->progress.total_bytes);
    total = total ? total : bytes;
    job->progress.total_bytes = total;
    job->progress.bytes = bytes < total ? total : bytes;
}

// Effects that are refused need not be the end: with `undo` the job goes on with that as its state,
// and with what was wrong, so that its worker can take back what it did outside.
static bool
s_undo(lade_jobs_t *self, lade_job_t *job, const msgpack_object *undo, const lade_error_t *error)
{
    if (!undo || undo->type != MSGPACK_OBJECT_MAP)
        return false;
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    lade_put_map(&buf, undo->via.map.size + 1);
    for (uint32_t i = 0; i < undo->via.map.size; i++) {
        lade_put_object(&buf, &undo->via.map.ptr[i].key);
        lade_put_object(&buf, &undo->via.map.ptr[i].val);
    }
    LADE_PUT_KEY(&buf, "refused");
    lade_put_map(&buf, 2);
    LADE_PUT_KEY(&buf, "code");
    lade_put_str(&buf, lade_code_name(error->code));
    LADE_PUT_KEY(&buf, "message");
    lade_put_str(&buf, error->message);
    msgpack_unpacked state;
    msgpack_unpacked_init(&state);
    bool taken = msgpack_unpack_next(&state, buf.data, buf.len, NULL) == MSGPACK_UNPACK_SUCCESS &&
                 !s_take_state(self, job, &state.data, NULL);
    msgpack_unpacked_destroy(&state);
    lade_buf_free(&buf);
    if (!taken)
        return false;
    lade_blob_free(&job->ask);
    job->stage++;
    s_checkpoint(self, job);
    return true;
}

bool
lade_jobs_done(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt,
               const msgpack_object *body)
{
    lade_job_t *job;
    lade_hold_t *hold = s_hold(self, worker, id, attempt, true, &job);
    if (!hold)
        return false;
    const msgpack_object *result = lade_wire_find(body, "result");
    lade_effects_done_t applied;
    lade_error_t error;
    lade_code_t code =
        lade_effects_apply(self->broker, lade_wire_find(body, "effects"), &applied, &error);
    lade_jobs_let_go(self, worker, hold);
    if (code) {
        if (!s_undo(self, job, lade_wire_find(body, "undo"), &error))
            s_end_in_error(self, job, &error);
        return true;
    }
    s_set_result(job, result, &applied);
    json_decref(applied.added);
    json_decref(applied.refused);
    s_hide_secrets(self, job);
    s_finish_progress(job, result);
    lade_job_set_text(&job->error_type, NULL, 0); // of an earlier attempt
    lade_job_set_text(&job->error, NULL, 0);
    self->broker->metrics.jobs_completed++;
    // An install whose worker never said that it installs has still done it.
    if (strcmp(job->kind->name, "install") == 0 && job->status == LADE_JOB_RUNNING) {
        lade_job_set_phase(job, "installing");
        lade_surface_announce(self->broker, job);
    }
    lade_jobs_move(self, job, LADE_JOB_FINISH, NULL);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// FAIL

static double
s_random(void)
{
    uint32_t bits = 0;
    if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) != sizeof bits)
        bits = (uint32_t)zclock_usecs();
    return (double)bits / (double)UINT32_MAX;
}

// Seconds before the next try: doubling with each failure, half of it random, so that jobs that
// failed together do not come back together.
static double
s_back_off(const lade_config_t *config, int64_t failures, double retry_after_s)
{
    enum { S_LONGEST_S = 7 * 24 * 3600, S_DOUBLINGS = 30 };
    if (retry_after_s > 0)
        return retry_after_s < S_LONGEST_S ? retry_after_s : S_LONGEST_S;
    int64_t doublings = failures - 1 < S_DOUBLINGS ? failures - 1 : S_DOUBLINGS;
    double wait_ms = (double)config->retry_base_ms * ldexp(1, (int)doublings);
    if (wait_ms > (double)config->retry_max_ms)
        wait_ms = (double)config->retry_max_ms;
    return wait_ms * (0.5 + 0.5 * s_random()) / 1e3;
}

// Whether a gate holds the job back as long as it is to wait: its own gate that is closed, or the
// one it failed at.
static bool
s_is_held(lade_jobs_t *self, const lade_job_t *job, double retry_after_s)
{
    enum { S_SLACK_MS = 1000 }; // for what the worker said of both, one after the other
    const lade_broker_t *broker = self->broker;
    for (size_t i = 0; i < job->gate_count; i++) {
        const lade_gate_t *gate = lade_gates_find(broker->gates, job->gate_names[i]);
        double left_ms = gate ? (double)(gate->closed_until_ms - broker->mono_ms) : 0;
        if (left_ms > 0 && left_ms + S_SLACK_MS >= retry_after_s * 1000)
            return true;
    }
    return job->at_gate != NULL;
}

static void
s_try_again(lade_jobs_t *self, lade_job_t *job, double retry_after_s, bool waits)
{
    const lade_config_t *config = self->broker->config;
    if (!waits && job->failures >= config->max_attempts) {
        self->broker->metrics.jobs_failed++;
        lade_jobs_move(self, job, LADE_JOB_FAIL, NULL);
        return;
    }
    // Who waits has failed at nothing; each dispatch without success makes the wait longer. At a
    // gate it goes on when that opens, however early.
    int64_t tries = waits ? job->attempt : job->failures;
    job->not_before = waits && s_is_held(self, job, retry_after_s)
                          ? 0
                          : self->broker->now + s_back_off(config, tries, retry_after_s);
    lade_job_set_phase(job, NULL);
    lade_jobs_move(self, job, LADE_JOB_AGAIN, NULL);
    lade_surface_tell_requeued(self->broker, job, job->error);
}

// The gate a FAIL names is closed, and the job waits there besides its own.
static void
s_wait_at(lade_jobs_t *self, lade_job_t *job, const msgpack_object *at)
{
    lade_broker_t *broker = self->broker;
    lade_gate_t *gate;
    char *name = lade_wire_strdup(at, "gate"), *reason = lade_wire_strdup(at, "reason");
    double closed_for_s = lade_wire_real(at, "closed_for_s", 0);
    if (name && closed_for_s > 0 && !lade_gates_name(broker->gates, name, &gate, NULL)) {
        lade_gate_close(gate, closed_for_s, reason, broker->mono_ms);
        lade_job_set_text(&job->at_gate, gate->name, strlen(gate->name));
        lade_shares_touch(broker->shares);
    }
    free(name);
    free(reason);
}

static void
s_fail_running(lade_jobs_t *self, lade_job_t *job, const msgpack_object *body)
{
    char *name = lade_wire_strdup(body, "code");
    lade_code_t code = lade_code_find(name);
    const char *message = "";
    size_t len = 0;
    lade_wire_text(body, "message", &message, &len);
    if (memchr(message, 0, len))
        len = strnlen(message, len);
    if (code == LADE_CANCELLED) {
        lade_jobs_cancel(self, job, NULL);
    } else if (code == LADE_PAUSED) {
        lade_jobs_pause(self, job, NULL);
    } else {
        bool known = name && *name && strlen(name) <= LADE_BROKER_MAX_NAME;
        s_set_error(job, known ? name : "internal", strlen(known ? name : "internal"), message,
                    len);
        s_hide_secrets(self, job);
        job->failures += !lade_code_waits(code);
        if (lade_wire_bool(body, "retry", lade_code_retry(code))) {
            s_wait_at(self, job, lade_wire_find(body, "gate"));
            s_try_again(self, job, lade_wire_real(body, "retry_after_s", 0), lade_code_waits(code));
        } else {
            self->broker->metrics.jobs_failed++;
            lade_jobs_move(self, job, LADE_JOB_FAIL, NULL);
        }
    }
    free(name);
}

bool
lade_jobs_fail(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt,
               const msgpack_object *body)
{
    lade_job_t *job;
    lade_hold_t *hold = s_hold(self, worker, id, attempt, true, &job);
    if (!hold) {
        // The answer to CANCEL: the job is gone already, and that is as it should be.
        const char *code;
        size_t len;
        return lade_wire_text(body, "code", &code, &len) && len == strlen("cancelled") &&
               memcmp(code, "cancelled", len) == 0;
    }
    const msgpack_object *result = lade_wire_find(body, "result");
    if (result && result->type == MSGPACK_OBJECT_MAP)
        lade_blob_set_object(&job->result, result);
    s_hide_secrets(self, job);
    lade_jobs_release(self, worker, hold);
    if (job->status == LADE_JOB_RUNNING)
        s_fail_running(self, job, body);
    else
        lade_jobs_touch(self, job); // it was paused; why it stopped does not matter
    return true;
}

// ---------------------------------------------------------------------------------------------------
// AWAIT

static size_t
s_depth(const lade_jobs_t *self, const lade_job_t *job)
{
    size_t depth = 0;
    while ((job = lade_jobs_live(self, job->parent)) && depth < S_MAX_DEPTH)
        depth++;
    return depth;
}

static lade_code_t
s_check_children(const lade_jobs_t *self, const lade_job_t *job, const msgpack_object *jobs,
                 lade_error_t *error)
{
    if (!jobs || jobs->type == MSGPACK_OBJECT_NIL)
        return LADE_OK;
    if (jobs->type != MSGPACK_OBJECT_ARRAY || jobs->via.array.size > LADE_BROKER_MAX_CHILDREN)
        return lade_error_set(error, LADE_BAD_REQUEST,
                              "AWAIT: `jobs` is an array of at most %d maps",
                              LADE_BROKER_MAX_CHILDREN);
    if (jobs->via.array.size && s_depth(self, job) == S_MAX_DEPTH)
        return lade_error_set(error, LADE_TOO_LARGE, "jobs may wait for jobs at most %d deep",
                              S_MAX_DEPTH);
    return LADE_OK;
}

static lade_code_t
s_make_child(lade_jobs_t *self, const lade_job_t *parent, const msgpack_object *wanted,
             lade_job_t **child_p, lade_error_t *error)
{
    lade_submission_t submission = {.priority = lade_wire_int(wanted, "priority", parent->priority),
                                    .spec = lade_wire_find(wanted, "spec"),
                                    .requires = lade_wire_find(wanted, "requires"),
                                    .gates = lade_wire_find(wanted, "gates"),
                                    .idle = true,
                                    .vital = lade_wire_bool(wanted, "vital", false),
                                    .parent = parent->id};
    lade_wire_text(wanted, "kind", &submission.kind, &submission.kind_len);
    lade_wire_text(wanted, "source", &submission.source, &submission.source_len);
    return lade_jobs_submit(self, &submission, child_p, error);
}

// Removes the parts and ids of an earlier AWAIT.
static void
s_drop_children(lade_job_t *job)
{
    for (size_t i = 0; i < job->child_count; i++) {
        free(job->parts[i].source);
        free(job->parts[i].local_path);
    }
    free(job->parts);
    free(job->children);
    job->parts = NULL;
    job->children = NULL;
    job->child_count = job->children_left = 0;
    job->parts_total = 0;
}

// What is told of a child's place and size counts until its worker knows better.
static void
s_expect(lade_job_t *parent, lade_job_t *child, const msgpack_object *spec)
{
    lade_part_t *part = &parent->parts[child->child_at];
    const char *place;
    size_t len;
    if (lade_wire_text(spec, "destination", &place, &len) && len <= LADE_BROKER_MAX_SOURCE)
        lade_job_set_text(&part->local_path, place, len);
    part->total_bytes = child->progress.total_bytes = s_bytes(spec, "size", 0);
    parent->parts_total += part->total_bytes;
}

// The children are made idle and started when their parent knows them all.
static lade_code_t
s_make_children(lade_jobs_t *self, lade_job_t *job, const msgpack_object *jobs, lade_error_t *error)
{
    size_t count = jobs->via.array.size;
    s_drop_children(job);
    job->children = zmalloc(count * sizeof *job->children);
    job->parts = zmalloc(count * sizeof *job->parts);
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < count && !code; i++) {
        lade_job_t *child;
        code = s_make_child(self, job, &jobs->via.array.ptr[i], &child, error);
        if (code)
            break;
        child->child_at = i;
        job->children[i] = child->id;
        job->child_count = job->children_left = i + 1;
        if (child->source)
            lade_job_set_text(&job->parts[i].source, child->source, strlen(child->source));
        s_expect(job, child, lade_wire_find(&jobs->via.array.ptr[i], "spec"));
    }
    if (job->parts_total > job->progress.total_bytes)
        job->progress.total_bytes = job->parts_total;
    return code;
}

static void
s_start_children(lade_jobs_t *self, const lade_job_t *job)
{
    for (size_t i = 0; i < job->child_count; i++) {
        lade_job_t *child = lade_jobs_live(self, job->children[i]);
        if (child)
            lade_jobs_move(self, child, LADE_JOB_START, NULL);
    }
}

// A parent that cannot have all its children has none.
static void
s_give_up_children(lade_jobs_t *self, lade_job_t *job, const lade_error_t *error)
{
    for (size_t i = 0; i < job->child_count; i++) {
        lade_job_t *child = lade_jobs_live(self, job->children[i]);
        if (child)
            lade_jobs_move(self, child, LADE_JOB_CANCEL, NULL);
    }
    s_end_in_error(self, job, error);
}

static void
s_wait_for_children(lade_jobs_t *self, lade_job_t *job, const msgpack_object *jobs)
{
    lade_error_t error;
    lade_job_set_phase(job, NULL);
    job->progress.bytes = job->told_bytes = job->told_ms = 0;
    if (s_make_children(self, job, jobs, &error)) {
        s_give_up_children(self, job, &error);
    } else if (job->status == LADE_JOB_PAUSED) {
        lade_jobs_touch(self, job); // both go on together
    } else {
        lade_jobs_move(self, job, LADE_JOB_AWAIT, NULL);
        s_start_children(self, job);
    }
}

bool
lade_jobs_await(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt,
                const msgpack_object *body)
{
    lade_job_t *job;
    lade_error_t error;
    lade_hold_t *hold = s_hold(self, worker, id, attempt, true, &job);
    if (!hold)
        return false;
    const msgpack_object *jobs = lade_wire_find(body, "jobs");
    lade_jobs_let_go(self, worker, hold);
    if (s_check_children(self, job, jobs, &error)) {
        s_end_in_error(self, job, &error);
        return true;
    }
    if (lade_asks_take(&job->ask, lade_wire_find(body, "ask"), &error) ||
        s_take_state(self, job, lade_wire_find(body, "state"), &error)) {
        s_end_in_error(self, job, &error);
        return true;
    }
    job->stage++;
    job->progress.total_bytes = s_bytes(body, "total_bytes", job->progress.total_bytes);
    s_take_text(&job->progress.local_path, body, "local_path", LADE_BROKER_MAX_SOURCE);
    if (jobs && jobs->type == MSGPACK_OBJECT_ARRAY && jobs->via.array.size)
        s_wait_for_children(self, job, jobs);
    else
        s_checkpoint(self, job);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Workers that come, beat and go

static bool
s_lists(const msgpack_object *held, uint64_t id, int64_t attempt)
{
    enum { S_MOST = LADE_BROKER_MAX_SLOTS * 2 };
    for (uint32_t i = 0;
         held && held->type == MSGPACK_OBJECT_ARRAY && i < held->via.array.size && i < S_MOST; i++)
        if (lade_wire_int(&held->via.array.ptr[i], "id", 0) == (int64_t)id &&
            lade_wire_int(&held->via.array.ptr[i], "attempt", 0) == attempt)
            return true;
    return false;
}

static void
s_put_back(lade_jobs_t *self, lade_job_t *job, const char *why)
{
    lade_job_set_phase(job, NULL);
    lade_jobs_move(self, job, LADE_JOB_BACK, NULL);
    lade_surface_tell_requeued(self->broker, job, why);
}

// Puts back what runs with this worker's name and is not in its list.
static void
s_put_back_missing(lade_jobs_t *self, lade_worker_t *worker, const msgpack_object *held)
{
    lade_job_list_t missing = {0};
    for (size_t i = worker->hold_count; i-- > 0;) {
        lade_hold_t *hold = &worker->holds[i];
        if (s_lists(held, hold->id, hold->attempt) && hold->job &&
            hold->job->status == LADE_JOB_RUNNING)
            continue;
        if (hold->job && hold->job->status == LADE_JOB_RUNNING)
            lade_job_list_add(&missing, hold->job);
        lade_jobs_release(self, worker, hold);
    }
    size_t at = 0;
    if (self->takeover_ms != INT64_MAX)
        for (lade_job_t *job; (job = lade_map_next(self->live, &at));)
            if (job->status == LADE_JOB_RUNNING && !job->holder && job->worker_name &&
                strcmp(job->worker_name, worker->name) == 0 &&
                !s_lists(held, job->id, job->attempt))
                lade_job_list_add(&missing, job);
    for (size_t i = 0; i < missing.len; i++)
        if (missing.items[i]->status == LADE_JOB_RUNNING)
            s_put_back(self, missing.items[i], "its worker came back without it");
    free(missing.items);
}

void
lade_jobs_takeover(lade_jobs_t *self, lade_worker_t *worker, const msgpack_object *held,
                   lade_buf_t *drop)
{
    enum { S_MOST = LADE_BROKER_MAX_SLOTS * 2 };
    s_put_back_missing(self, worker, held);
    uint32_t count = held && held->type == MSGPACK_OBJECT_ARRAY ? held->via.array.size : 0,
             dropped = 0;
    lade_buf_t ids = LADE_BUF(SIZE_MAX / 2);
    for (uint32_t i = 0; i < count && i < S_MOST; i++) {
        uint64_t id = (uint64_t)lade_wire_int(&held->via.array.ptr[i], "id", 0);
        int64_t attempt = lade_wire_int(&held->via.array.ptr[i], "attempt", 0);
        lade_job_t *job = lade_jobs_live(self, id);
        bool own = job && job->status == LADE_JOB_RUNNING && job->attempt == attempt &&
                   job->worker_name && strcmp(job->worker_name, worker->name) == 0;
        if (own && !job->holder)
            lade_worker_take(worker, job, self->broker->mono_ms);
        if (own)
            lade_shares_resume(self->broker->shares, job,
                               lade_wire_int(&held->via.array.ptr[i], "connections", 0));
        if (own)
            continue;
        lade_put_uint(&ids, id);
        dropped++;
    }
    lade_put_array(drop, dropped);
    if (dropped)
        lade_put_raw(drop, ids.data, ids.len);
    lade_buf_free(&ids);
}

// Gives up a running job that its worker lost; one that was lost too often is dead.
static void
s_lose(lade_jobs_t *self, lade_job_t *job, const char *why)
{
    if (++job->deaths >= self->broker->config->max_deaths) {
        s_set_error(job, "worker_lost", strlen("worker_lost"), why, strlen(why));
        lade_jobs_move(self, job, LADE_JOB_DIE, NULL);
        lade_surface_tell_dead(self->broker, job, why);
    } else {
        lade_job_set_phase(job, NULL);
        lade_jobs_move(self, job, LADE_JOB_LOSE, NULL);
        lade_surface_tell_requeued(self->broker, job, why);
    }
}

// A hold the worker does not name although its JOB was sent a lease ago is not there: the JOB was
// lost on the way, or is one that no worker can read. So it counts as a death.
void
lade_jobs_beat(lade_jobs_t *self, lade_worker_t *worker, const msgpack_object *held)
{
    if (!held || held->type != MSGPACK_OBJECT_ARRAY)
        return;
    for (size_t i = worker->hold_count; i-- > 0;) {
        lade_hold_t *hold = &worker->holds[i];
        if (self->broker->mono_ms - hold->since_ms <= self->broker->lease_ms ||
            s_lists(held, hold->id, hold->attempt))
            continue;
        lade_job_t *job = hold->job;
        lade_jobs_release(self, worker, hold);
        if (job && job->status == LADE_JOB_RUNNING)
            s_lose(self, job, "its worker does not know of it");
    }
}

void
lade_jobs_lost(lade_jobs_t *self, lade_worker_t *worker, bool at_fault, const char *why)
{
    while (worker->hold_count) {
        lade_hold_t *hold = &worker->holds[worker->hold_count - 1];
        lade_job_t *job = hold->job;
        lade_jobs_release(self, worker, hold);
        if (!job || job->status != LADE_JOB_RUNNING || lade_jobs_bound_to(job))
            continue;
        if (at_fault)
            s_lose(self, job, why);
        else
            s_put_back(self, job, why);
    }
    lade_jobs_end_bound(self, worker->name, why);
}
