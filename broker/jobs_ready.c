// Ready jobs and who gets them.
//
// Jobs of one kind and one `requires` wait in one queue, so that a job nobody can take holds up
// nobody else and a free worker finds its next job by looking at the heads of a few queues. A job
// at a closed or full gate waits in the gate.
#include "broker/asks.h"
#include "broker/events.h"
#include "broker/jobs_private.h"
#include "broker/outbox.h"
#include "broker/packer.h"
#include "broker/secrets.h"
#include "broker/shares.h"
#include "broker/surface.h"
#include "common/wire.h"

#include <czmq.h>

enum { S_REASON = 1536 }; // bytes of a reason

static bool
s_before(const void *a, const void *b)
{
    const lade_job_t *left = a, *right = b;
    return left->priority != right->priority ? left->priority < right->priority
                                             : left->id < right->id;
}

// ---------------------------------------------------------------------------------------------------
// Queues

static lade_queue_t *
s_new_queue(lade_jobs_t *self, lade_kind_t *kind, const lade_buf_t *key)
{
    lade_queue_t *queue = zmalloc(sizeof *queue);
    queue->kind = kind;
    queue->ready = LADE_HEAP(lade_job_t, place, s_before);
    lade_blob_set(&queue->key, key->data, key->len);
    if (self->queue_count == self->queue_cap) {
        self->queue_cap = self->queue_cap ? self->queue_cap * 2 : 16;
        self->all_queues = realloc(self->all_queues, self->queue_cap * sizeof *self->all_queues);
        if (!self->all_queues)
            abort();
    }
    queue->at = self->queue_count;
    self->all_queues[self->queue_count++] = queue;
    lade_map_put(self->queues, queue->key.data, queue->key.len, queue);
    return queue;
}

lade_code_t
lade_jobs_need_queue(lade_jobs_t *self, lade_kind_t *kind, const msgpack_object *requires,
                     lade_queue_t **queue_p, lade_error_t *error)
{
    lade_buf_t key = LADE_BUF(SIZE_MAX / 2);
    lade_put_raw(&key, kind->name, strlen(kind->name) + 1);
    if (requires && requires->type == MSGPACK_OBJECT_MAP && requires->via.map.size)
        lade_put_object(&key, requires);
    *queue_p = lade_map_get(self->queues, key.data, key.len);
    lade_code_t code = LADE_OK;
    if (!*queue_p) {
        lade_labels_t labels;
        code = lade_labels_read(&labels, requires, error);
        if (!code && self->queue_count >= LADE_BROKER_MAX_QUEUES) {
            lade_labels_free(&labels);
            code =
                lade_error_set(error, LADE_QUEUE_FULL,
                               "the jobs that are not ended have %d different `requires` already",
                               LADE_BROKER_MAX_QUEUES);
        }
        if (!code) {
            *queue_p = s_new_queue(self, kind, &key);
            (*queue_p)->requires = labels;
        }
    }
    lade_buf_free(&key);
    return code;
}

// A queue that was made for a job that was not is dropped with it; the plain one of a kind stays.
void
lade_jobs_leave_queue(lade_jobs_t *self, lade_job_t *job)
{
    lade_queue_t *queue = job->queue;
    job->queue = NULL;
    if (!queue || --queue->jobs || queue->requires.count == 0)
        return;
    lade_map_del(self->queues, queue->key.data, queue->key.len);
    lade_queue_t *last = self->all_queues[--self->queue_count];
    last->at = queue->at;
    self->all_queues[last->at] = last;
    lade_blob_free(&queue->key);
    lade_labels_free(&queue->requires);
    lade_heap_free(&queue->ready);
    free(queue);
}

static void
s_put(lade_heap_t *heap, lade_job_t *job)
{
    lade_heap_add(heap, job);
    job->heap = heap;
}

void
lade_jobs_make_ready(lade_jobs_t *self, lade_job_t *job)
{
    if (job->holder)
        return; // its last attempt is still being stopped: two workers must not be at one file
    if (job->not_before > self->broker->now)
        s_put(&self->delayed, job);
    else
        s_put(&job->queue->ready, job);
}

// Lets as many of the gate's waiting jobs go on as there is room for.
static void
s_wake(lade_jobs_t *self, lade_gate_t *gate)
{
    for (size_t room = lade_gate_room(gate, self->broker->mono_ms); room; room--) {
        lade_job_t *job = lade_heap_pop(&gate->waiting);
        job->gate = NULL;
        job->heap = NULL;
        lade_jobs_make_ready(self, job);
    }
}

static void
s_wake_all(lade_jobs_t *self, const lade_job_t *job, const lade_gate_t *but)
{
    for (size_t i = 0; i < job->gate_count; i++) {
        lade_gate_t *gate = lade_gates_find(self->broker->gates, job->gate_names[i]);
        if (gate && gate != but)
            s_wake(self, gate);
    }
}

void
lade_jobs_unready(lade_jobs_t *self, lade_job_t *job)
{
    if (!job->heap)
        return;
    lade_heap_del(job->heap, job);
    job->heap = NULL;
    lade_gate_t *gate = job->gate;
    job->gate = NULL;
    if (gate)
        lade_gates_tidy(self->broker->gates, gate, self->broker->mono_ms);
    else if (job->gate_count)
        s_wake_all(self, job, NULL); // it may have left a place another one waits for
}

// ---------------------------------------------------------------------------------------------------
// Gates

void
lade_jobs_gate_changed(lade_jobs_t *self, lade_gate_t *gate)
{
    s_wake(self, gate);
    lade_gates_tidy(self->broker->gates, gate, self->broker->mono_ms);
}

// The gate of that name if it lets nobody pass.
static lade_gate_t *
s_shut(const lade_jobs_t *self, const char *name)
{
    lade_gate_t *gate = lade_gates_find(self->broker->gates, name);
    return gate && !lade_gate_is_open(gate, self->broker->mono_ms) ? gate : NULL;
}

// The first gate that does not let the job pass; NULL if all do.
static lade_gate_t *
s_blocked_by(const lade_jobs_t *self, const lade_job_t *job)
{
    lade_gate_t *gate = job->at_gate ? s_shut(self, job->at_gate) : NULL;
    for (size_t i = 0; !gate && i < job->gate_count; i++)
        gate = s_shut(self, job->gate_names[i]);
    return gate;
}

// The queue's next job that passes its gates, still in the queue; those that do not go and wait in
// theirs.
static lade_job_t *
s_head(lade_jobs_t *self, lade_queue_t *queue)
{
    lade_job_t *job;
    while ((job = lade_heap_top(&queue->ready)) && (job->gate_count || job->at_gate)) {
        lade_gate_t *gate = s_blocked_by(self, job);
        if (!gate)
            break;
        lade_heap_pop(&queue->ready);
        job->gate = gate;
        s_put(&gate->waiting, job);
        lade_shares_touch(self->broker->shares);
        s_wake_all(self, job, gate);
    }
    return job;
}

// ---------------------------------------------------------------------------------------------------
// Dispatch

bool
lade_jobs_fits(const lade_job_t *job, const lade_worker_t *worker)
{
    return job->queue && lade_worker_serves(worker, job->kind->name) &&
           lade_labels_have(&worker->labels, &job->queue->requires);
}

static lade_job_t *
s_best_for(lade_jobs_t *self, const lade_worker_t *worker)
{
    lade_job_t *best = NULL;
    for (size_t i = 0; i < self->queue_count; i++) {
        lade_queue_t *queue = self->all_queues[i];
        if (queue->ready.len == 0 || !lade_worker_serves(worker, queue->kind->name) ||
            !lade_labels_have(&worker->labels, &queue->requires))
            continue;
        lade_job_t *job = s_head(self, queue);
        if (job && (!best || s_before(job, best)))
            best = job;
    }
    return best;
}

static void
s_put_child(lade_jobs_t *self, uint64_t id, lade_buf_t *buf)
{
    lade_job_t *child;
    if (lade_jobs_get(self, id, &child, NULL)) {
        lade_put_map(buf, 2);
        LADE_PUT_KEY(buf, "id");
        lade_put_uint(buf, id);
        LADE_PUT_KEY(buf, "status");
        lade_put_str(buf, "purged");
        return;
    }
    lade_put_map(buf, 7);
    LADE_PUT_KEY(buf, "id");
    lade_put_uint(buf, id);
    LADE_PUT_KEY(buf, "kind");
    lade_put_str(buf, child->kind->name);
    LADE_PUT_KEY(buf, "source");
    lade_put_str(buf, child->source);
    LADE_PUT_KEY(buf, "status");
    lade_put_str(buf, lade_job_status_name(child->status));
    LADE_PUT_KEY(buf, "result");
    lade_put_packed(buf, child->result.data, child->result.len);
    LADE_PUT_KEY(buf, "error_type");
    lade_put_str(buf, child->error_type);
    LADE_PUT_KEY(buf, "error");
    lade_put_str(buf, child->error);
}

// A spec or state with its secrets, which only a JOB has.
static void
s_put_filled(const lade_jobs_t *self, const lade_blob_t *packed, lade_buf_t *buf)
{
    if (lade_secrets_fill(self->broker->secrets, packed, buf))
        lade_outbox_keep_secret(self->broker->outbox);
}

static void
s_send_job(lade_jobs_t *self, const lade_worker_t *worker, const lade_job_t *job)
{
    lade_buf_t *buf =
        lade_outbox_to_worker(self->broker->outbox, worker->peer, worker->peer_len, LADE_W_JOB);
    lade_put_map(buf, 10 + (job->ask.len != 0) + lade_shares_pairs(job));
    LADE_PUT_KEY(buf, "acked");
    lade_put_int(buf, worker->acked);
    LADE_PUT_KEY(buf, "id");
    lade_put_uint(buf, job->id);
    LADE_PUT_KEY(buf, "attempt");
    lade_put_int(buf, job->attempt);
    LADE_PUT_KEY(buf, "kind");
    lade_put_str(buf, job->kind->name);
    LADE_PUT_KEY(buf, "source");
    lade_put_str(buf, job->source);
    LADE_PUT_KEY(buf, "spec");
    s_put_filled(self, &job->spec, buf);
    LADE_PUT_KEY(buf, "stage");
    lade_put_int(buf, job->stage);
    LADE_PUT_KEY(buf, "failures");
    lade_put_int(buf, job->failures);
    LADE_PUT_KEY(buf, "state");
    s_put_filled(self, &job->state, buf);
    LADE_PUT_KEY(buf, "children");
    lade_put_array(buf, job->child_count);
    for (size_t i = 0; i < job->child_count; i++)
        s_put_child(self, job->children[i], buf);
    if (job->ask.len) {
        LADE_PUT_KEY(buf, "answers");
        lade_asks_put_answers(self->broker, &job->ask, buf);
    }
    lade_shares_put(self->broker->shares, job, buf);
    lade_outbox_end(self->broker->outbox);
}

static void
s_give(lade_jobs_t *self, lade_worker_t *worker, lade_job_t *job)
{
    job->attempt++;
    job->sequence = ++self->sequence;
    job->not_before = 0;
    if (!(job->started > 0))
        job->started = self->broker->now;
    if (!job->worker_name || strcmp(job->worker_name, worker->name) != 0)
        lade_job_set_text(&job->worker_name, worker->name, strlen(worker->name));
    lade_job_set_text(&job->at_gate, NULL, 0);
    lade_worker_take(worker, job, self->broker->mono_ms);
    lade_jobs_move(self, job, LADE_JOB_DISPATCH, NULL);
    self->broker->metrics.jobs_dispatched++;
    lade_job_list_add(&self->given, job);
}

// A token that was given with the job and is gone: without it the job would fail at its source,
// with a sentence that leads astray.
static bool
s_lacks_secret(lade_jobs_t *self, lade_job_t *job)
{
    const lade_secrets_t *secrets = self->broker->secrets;
    if (lade_secrets_has_all(secrets, &job->spec) && lade_secrets_has_all(secrets, &job->state))
        return false;
    static const char words[] =
        "the access token given with this job is kept no longer: submit it again with its token";
    const char *name = lade_code_name(LADE_AUTH_REQUIRED);
    lade_job_set_text(&job->error_type, name, strlen(name));
    lade_job_set_text(&job->error, words, strlen(words));
    self->broker->metrics.jobs_failed++;
    lade_jobs_move(self, job, LADE_JOB_FAIL, NULL);
    return true;
}

static bool
s_any_ready(const lade_jobs_t *self)
{
    size_t at = 0;
    while (at < self->queue_count && self->all_queues[at]->ready.len == 0)
        at++;
    return at < self->queue_count;
}

// One job to each worker in turn, until none can take more. They are sent when it is known what
// each of them may use.
void
lade_jobs_dispatch(lade_jobs_t *self)
{
    size_t count = s_any_ready(self) ? lade_workers_count(self->broker->workers) : 0, idle = 0;
    while (count && idle < count) {
        lade_worker_t *worker = lade_workers_at(self->broker->workers, self->next_worker++ % count);
        lade_job_t *job =
            (int64_t)worker->hold_count < worker->slots ? s_best_for(self, worker) : NULL;
        if (job && !s_lacks_secret(self, job))
            s_give(self, worker, job);
        idle = job ? 0 : idle + 1;
    }
    lade_shares_settle(self->broker->shares);
    for (size_t i = 0; i < self->given.len; i++)
        s_send_job(self, self->given.items[i]->holder, self->given.items[i]);
    self->given.len = 0;
}

void
lade_jobs_let_go(lade_jobs_t *self, lade_worker_t *worker, lade_hold_t *hold)
{
    lade_shares_release(self->broker->shares, hold);
    lade_worker_drop(worker, hold);
}

void
lade_jobs_release(lade_jobs_t *self, lade_worker_t *worker, lade_hold_t *hold)
{
    lade_job_t *job = hold->job;
    lade_jobs_let_go(self, worker, hold);
    if (job && job->status == LADE_JOB_ENQUEUED && !job->heap)
        lade_jobs_make_ready(self, job);
}

// ---------------------------------------------------------------------------------------------------
// Why

static void s_put_reason(lade_buf_t *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void
s_put_reason(lade_buf_t *buf, const char *format, ...)
{
    char text[S_REASON];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lade_put_str(buf, text);
}

// Why a gate that is shut lets nobody pass.
static void
s_say_shut(const lade_jobs_t *self, const lade_gate_t *gate, char *text, size_t size)
{
    int64_t closed_ms = gate->closed_until_ms - self->broker->mono_ms;
    if (closed_ms > 0)
        snprintf(text, size, "closed for %.1f seconds more: %s", (double)closed_ms / 1e3,
                 gate->reason);
    else
        lade_gate_say_full(gate, text, size);
}

static void
s_put_gate_reason(const lade_jobs_t *self, const lade_gate_t *gate, lade_buf_t *buf)
{
    const lade_broker_t *broker = self->broker;
    bool closed = gate->closed_until_ms > broker->mono_ms;
    char text[S_REASON];
    lade_put_map(buf, 2 + closed);
    LADE_PUT_KEY(buf, "gate");
    lade_put_str(buf, gate->name);
    LADE_PUT_KEY(buf, "why");
    s_say_shut(self, gate, text, sizeof text);
    lade_put_str(buf, text);
    if (!closed)
        return;
    LADE_PUT_KEY(buf, "until");
    lade_put_real(buf, broker->now + (double)(gate->closed_until_ms - broker->mono_ms) / 1e3);
}

// Whether some worker could ever take the job.
static bool
s_has_worker(const lade_jobs_t *self, const lade_job_t *job)
{
    for (size_t i = 0; i < lade_workers_count(self->broker->workers); i++)
        if (lade_jobs_fits(job, lade_workers_at(self->broker->workers, i)))
            return true;
    return false;
}

// A job that was told to wait failed at nothing.
static void
s_put_why_delayed(const lade_jobs_t *self, const lade_job_t *job, lade_buf_t *buf)
{
    double wait_s = job->not_before - self->broker->now;
    const char *type = job->error_type ? job->error_type : "",
               *error = job->error ? job->error : "";
    if (lade_code_waits(lade_code_find(type)))
        s_put_reason(buf, "%s, goes on in %.1f seconds: %s", type, wait_s, error);
    else
        s_put_reason(buf, "failed %" PRId64 " times (%s), tried again in %.1f seconds",
                     job->failures, error, wait_s);
}

static void
s_put_why_running(const lade_jobs_t *self, const lade_job_t *job, lade_buf_t *buf)
{
    char terms[S_REASON];
    const char *worker = job->worker_name ? job->worker_name : "a worker";
    lade_shares_say(self->broker->shares, job, terms, sizeof terms);
    if (!job->holder)
        s_put_reason(buf, "runs on %s, which has not come back yet", worker);
    else if (job->stalled)
        s_put_reason(buf, "runs on %s and has stalled: %s%s%s", worker,
                     job->progress.reason ? job->progress.reason : "no reason is known",
                     *terms ? "; " : "", terms);
    else
        s_put_reason(buf, "runs on %s%s%s", worker, *terms ? "; " : "", terms);
}

static void
s_put_why_enqueued(const lade_jobs_t *self, const lade_job_t *job, bool worker, lade_buf_t *buf)
{
    const lade_gate_t *gate = s_blocked_by(self, job);
    char shut[S_REASON] = "";
    if (gate)
        s_say_shut(self, gate, shut, sizeof shut);
    if (job->holder)
        s_put_reason(buf, "worker %s is still stopping its last attempt", job->holder->name);
    else if (job->not_before > self->broker->now)
        s_put_why_delayed(self, job, buf);
    else if (gate)
        s_put_reason(buf, "waits at gate %s: %s", gate->name, shut);
    else if (!worker)
        s_put_reason(buf, "no worker that serves %s%s is there", job->kind->name,
                     job->requires.len ? " and has what it requires" : "");
    else
        s_put_reason(buf, "its turn comes after %zu others; all slots are taken",
                     job->queue ? job->queue->ready.len - (job->queue->ready.len > 0) : 0);
}

static void
s_put_why_text(const lade_jobs_t *self, const lade_job_t *job, bool worker, lade_buf_t *buf)
{
    switch (job->status) {
    case LADE_JOB_IDLE:
        s_put_reason(buf, "it was not started");
        return;
    case LADE_JOB_ENQUEUED:
        s_put_why_enqueued(self, job, worker, buf);
        return;
    case LADE_JOB_RUNNING:
        s_put_why_running(self, job, buf);
        return;
    case LADE_JOB_WAITING:
        s_put_reason(buf, "waits for %zu of its %zu children", job->children_left,
                     job->child_count);
        return;
    case LADE_JOB_PAUSED:
        s_put_reason(buf, "somebody paused it");
        return;
    default:
        s_put_reason(buf, "ended: %s%s%s", lade_job_status_name(job->status),
                     job->error ? ": " : "", job->error ? job->error : "");
    }
}

// All gates that do not let the job pass.
static size_t
s_all_shut(const lade_jobs_t *self, const lade_job_t *job, const lade_gate_t **gates)
{
    size_t count = 0;
    if (job->at_gate && (gates[count] = s_shut(self, job->at_gate)))
        count++;
    for (size_t i = 0; i < job->gate_count && count <= LADE_BROKER_MAX_GATES; i++)
        if ((gates[count] = s_shut(self, job->gate_names[i])))
            count++;
    return count;
}

void
lade_jobs_put_why(lade_jobs_t *self, const lade_job_t *job, lade_buf_t *buf)
{
    bool queued = job->status == LADE_JOB_ENQUEUED, worker = !queued || s_has_worker(self, job);
    const lade_gate_t *gates[LADE_BROKER_MAX_GATES + 1];
    size_t shut = queued ? s_all_shut(self, job, gates) : 0;
    lade_put_map(buf, 4);
    LADE_PUT_KEY(buf, "id");
    lade_put_uint(buf, job->id);
    LADE_PUT_KEY(buf, "status");
    lade_put_str(buf, lade_job_status_name(job->status));
    LADE_PUT_KEY(buf, "why");
    s_put_why_text(self, job, worker, buf);
    LADE_PUT_KEY(buf, "gates");
    lade_put_array(buf, shut + !worker);
    for (size_t i = 0; i < shut; i++)
        s_put_gate_reason(self, gates[i], buf);
    if (worker)
        return;
    lade_put_map(buf, 2);
    LADE_PUT_KEY(buf, "gate");
    s_put_reason(buf, "worker:%s", job->kind->name);
    LADE_PUT_KEY(buf, "why");
    s_put_reason(buf, "no worker that serves %s%s is there", job->kind->name,
                 job->requires.len ? " and has what it requires" : "");
}
