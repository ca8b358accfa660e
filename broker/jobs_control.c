// What clients do to jobs. What is done to a parent is done to its children.
#include "broker/jobs_private.h"
#include "broker/outbox.h"
#include "broker/packer.h"
#include "broker/shares.h"
#include "broker/surface.h"
#include "common/wire.h"

#include <czmq.h>

// Tells the worker that has the job to stop it.
static void
s_stop_worker(lade_jobs_t *self, const lade_job_t *job, int command)
{
    if (!job->holder)
        return;
    lade_buf_t *buf = lade_outbox_to_worker(self->broker->outbox, job->holder->peer,
                                            job->holder->peer_len, command);
    lade_put_map(buf, 2);
    LADE_PUT_KEY(buf, "id");
    lade_put_uint(buf, job->id);
    LADE_PUT_KEY(buf, "attempt");
    lade_put_int(buf, job->attempt);
    lade_outbox_end(self->broker->outbox);
}

// Does the same to the children that are not ended, as far as their status allows it.
static void
s_each_child(lade_jobs_t *self, const lade_job_t *job,
             lade_code_t (*act)(lade_jobs_t *self, lade_job_t *job, lade_error_t *error))
{
    for (size_t i = 0; i < job->child_count; i++) {
        lade_job_t *child = lade_jobs_live(self, job->children[i]);
        if (child)
            act(self, child, NULL);
    }
}

lade_code_t
lade_jobs_start(lade_jobs_t *self, lade_job_t *job, lade_error_t *error)
{
    // A parent that was paused while its children ran waits for them again.
    bool waits = job->status == LADE_JOB_PAUSED && job->children_left > 0;
    lade_code_t code = lade_jobs_move(self, job, waits ? LADE_JOB_REAWAIT : LADE_JOB_START, error);
    if (!code)
        s_each_child(self, job, lade_jobs_start);
    return code;
}

lade_code_t
lade_jobs_pause(lade_jobs_t *self, lade_job_t *job, lade_error_t *error)
{
    bool running = job->status == LADE_JOB_RUNNING;
    lade_code_t code = lade_jobs_move(self, job, LADE_JOB_PAUSE, error);
    if (code)
        return code;
    if (running)
        s_stop_worker(self, job, LADE_W_PAUSE);
    s_each_child(self, job, lade_jobs_pause);
    return LADE_OK;
}

lade_code_t
lade_jobs_cancel(lade_jobs_t *self, lade_job_t *job, lade_error_t *error)
{
    lade_code_t code = lade_jobs_move(self, job, LADE_JOB_CANCEL, error);
    if (code)
        return code;
    s_stop_worker(self, job, LADE_W_CANCEL);
    s_each_child(self, job, lade_jobs_cancel);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Changing what was asked for

static lade_code_t
s_check_open(const lade_job_t *job, const char *what, lade_error_t *error)
{
    if (lade_job_ended(job))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "job %" PRIu64 " has ended; only one that has not can be given %s",
                              job->id, what);
    return LADE_OK;
}

lade_code_t
lade_jobs_set_priority(lade_jobs_t *self, lade_job_t *job, int64_t priority, lade_error_t *error)
{
    if (s_check_open(job, "a priority", error))
        return error->code;
    lade_heap_t *heap = job->heap;
    if (heap)
        lade_heap_del(heap, job);
    job->priority = priority;
    if (heap)
        lade_heap_add(heap, job);
    lade_jobs_touch(self, job);
    lade_shares_touch(self->broker->shares);
    for (size_t i = 0; i < job->child_count; i++) {
        lade_job_t *child = lade_jobs_live(self, job->children[i]);
        if (child)
            lade_jobs_set_priority(self, child, priority, NULL);
    }
    return LADE_OK;
}

// The packed map with key set to value.
static void
s_set_flag(lade_blob_t *map, const char *key, bool value)
{
    msgpack_unpacked unpacked;
    msgpack_unpacked_init(&unpacked);
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    const msgpack_object *old = NULL;
    if (map->len &&
        msgpack_unpack_next(&unpacked, map->data, map->len, NULL) == MSGPACK_UNPACK_SUCCESS &&
        unpacked.data.type == MSGPACK_OBJECT_MAP)
        old = &unpacked.data;
    const msgpack_object *was = lade_wire_find(old, key);
    lade_put_map(&buf, (old ? old->via.map.size : 0) + !was);
    for (uint32_t i = 0; old && i < old->via.map.size; i++) {
        lade_put_object(&buf, &old->via.map.ptr[i].key);
        if (&old->via.map.ptr[i].val == was)
            lade_put_bool(&buf, value);
        else
            lade_put_object(&buf, &old->via.map.ptr[i].val);
    }
    if (!was) {
        lade_put_str(&buf, key);
        lade_put_bool(&buf, value);
    }
    msgpack_unpacked_destroy(&unpacked);
    lade_blob_free(map);
    *map = (lade_blob_t){buf.data, buf.len};
}

lade_code_t
lade_jobs_set_preserve(lade_jobs_t *self, lade_job_t *job, bool preserve, lade_error_t *error)
{
    if (s_check_open(job, "another way to treat what it has", error))
        return error->code;
    s_set_flag(&job->spec, "preserve_partial_downloads", preserve);
    job->preserve = preserve ? 1 : -1;
    lade_jobs_touch(self, job);
    lade_shares_touch(self->broker->shares);
    for (size_t i = 0; i < job->child_count; i++) {
        lade_job_t *child = lade_jobs_live(self, job->children[i]);
        if (child)
            lade_jobs_set_preserve(self, child, preserve, NULL);
    }
    return LADE_OK;
}

lade_code_t
lade_jobs_set_rate(lade_jobs_t *self, lade_job_t *job, int64_t bytes_per_s, lade_error_t *error)
{
    if (s_check_open(job, "a rate", error))
        return error->code;
    job->bytes_per_s = bytes_per_s;
    job->rate_set = true;
    lade_jobs_touch(self, job);
    lade_shares_touch(self->broker->shares);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Retry

// An ended job in memory again. One that was only read for this turn becomes the one in the table.
static lade_code_t
s_revive(lade_jobs_t *self, lade_job_t *job, lade_error_t *error)
{
    if (job->live)
        return LADE_OK; // it ended in this turn
    msgpack_unpacked requires;
    msgpack_unpacked_init(&requires);
    bool has = job->requires.len &&
               msgpack_unpack_next(&requires, job->requires.data, job->requires.len, NULL) ==
                   MSGPACK_UNPACK_SUCCESS;
    lade_code_t code =
        lade_jobs_need_queue(self, job->kind, has ? &requires.data : NULL, &job->queue, error);
    msgpack_unpacked_destroy(&requires);
    if (code)
        return code;
    job->queue->jobs++;
    size_t at = 0;
    while (at < self->borrowed.len && self->borrowed.items[at] != job)
        at++;
    assert(at < self->borrowed.len);
    self->borrowed.items[at] = self->borrowed.items[--self->borrowed.len];
    lade_jobs_enter(self, job);
    job->shown = lade_surface_shown(job);
    return LADE_OK;
}

static void
s_reset(lade_job_t *job)
{
    job->failures = job->deaths = 0;
    job->not_before = job->ended = job->started = 0;
    lade_job_set_text(&job->error_type, NULL, 0);
    lade_job_set_text(&job->error, NULL, 0);
    lade_job_set_phase(job, NULL);
    lade_job_set_text(&job->at_gate, NULL, 0);
    lade_blob_free(&job->result);
    job->told_ms = 0;
}

// A parent that still waits for others waits for this one again.
static void
s_rejoin(lade_jobs_t *self, lade_job_t *child)
{
    lade_job_t *parent = lade_jobs_live(self, child->parent);
    for (size_t i = 0; parent && i < parent->child_count; i++)
        if (parent->children[i] == child->id) {
            child->child_at = i;
            parent->children_left +=
                parent->status == LADE_JOB_WAITING || parent->status == LADE_JOB_PAUSED;
        }
}

// Retries the children that did not complete; returns how many.
static size_t
s_retry_children(lade_jobs_t *self, lade_job_t *job)
{
    size_t retried = 0;
    for (size_t i = 0; i < job->child_count; i++) {
        lade_job_t *child;
        if (lade_jobs_get(self, job->children[i], &child, NULL) == LADE_OK &&
            lade_job_ended(child) && lade_jobs_retry(self, &child, NULL) == LADE_OK) {
            child->child_at = i;
            retried++;
        }
    }
    return retried;
}

lade_code_t
lade_jobs_retry(lade_jobs_t *self, lade_job_t **job_p, lade_error_t *error)
{
    lade_job_t *job = *job_p;
    lade_job_status_t then;
    if (job->purged)
        return lade_error_set(error, LADE_UNKNOWN_JOB_ID, "there is no job %" PRIu64, job->id);
    lade_code_t code = lade_job_next(job, LADE_JOB_RETRY, &then, error);
    if (!code && (job = lade_map_get(self->live, &(*job_p)->id, sizeof(*job_p)->id)) == NULL)
        job = *job_p;
    if (!code && job != *job_p) // it was read twice in this turn, and retried before
        code = lade_job_next(job, LADE_JOB_RETRY, &then, error);
    if (!code)
        code = s_revive(self, job, error);
    if (code)
        return code;
    *job_p = job;
    s_reset(job);
    s_rejoin(self, job);
    // Children that failed are why many a parent failed: they go first.
    job->children_left = s_retry_children(self, job);
    lade_jobs_move(self, job, job->children_left ? LADE_JOB_REAWAIT : LADE_JOB_RETRY, NULL);
    return LADE_OK;
}
