// Waiting calls, found by the job they wait for.
#include "broker/waits.h"

#include "broker/jobs.h"
#include "broker/map.h"
#include "broker/outbox.h"
#include "broker/surface.h"
#include "common/wire.h"

#include <czmq.h>

// The calls that wait for one job.
typedef struct {
    uint64_t id;
    lade_wait_t **items;
    size_t len, cap;
} s_queue_t;

struct lade_waits {
    lade_broker_t *broker;
    lade_map_t *by_job;    // of s_queue_t
    lade_heap_t deadlines; // those that have one
    lade_wait_t **all;
    size_t count, cap;
    size_t fresh, kinds; // how many were added in this turn, and wait for a kind
};

static bool
s_earlier(const void *a, const void *b)
{
    return ((const lade_wait_t *)a)->deadline_ms < ((const lade_wait_t *)b)->deadline_ms;
}

lade_waits_t *
lade_waits_new(lade_broker_t *broker)
{
    lade_waits_t *self = zmalloc(sizeof *self);
    self->broker = broker;
    self->by_job = lade_map_new();
    self->deadlines = LADE_HEAP(lade_wait_t, place, s_earlier);
    return self;
}

static void
s_free_wait(lade_wait_t *wait)
{
    free(wait->peer);
    free(wait->service);
    free(wait->ids);
    lade_blob_free(&wait->id);
}

// ---------------------------------------------------------------------------------------------------
// Adding and removing

static void
s_watch(lade_waits_t *self, lade_wait_t *wait, uint64_t id)
{
    s_queue_t *queue = lade_map_get(self->by_job, &id, sizeof id);
    if (!queue) {
        queue = zmalloc(sizeof *queue);
        queue->id = id;
        lade_map_put(self->by_job, &queue->id, sizeof queue->id, queue);
    }
    if (queue->len == queue->cap) {
        queue->cap = queue->cap ? queue->cap * 2 : 2;
        queue->items = realloc(queue->items, queue->cap * sizeof *queue->items);
        if (!queue->items)
            abort();
    }
    queue->items[queue->len++] = wait;
    wait->left++;
}

static void
s_drop_queue(lade_waits_t *self, s_queue_t *queue)
{
    lade_map_del(self->by_job, &queue->id, sizeof queue->id);
    free(queue->items);
    free(queue);
}

static void
s_unwatch(lade_waits_t *self, const lade_wait_t *wait, uint64_t id)
{
    s_queue_t *queue = lade_map_get(self->by_job, &id, sizeof id);
    if (!queue)
        return;
    size_t kept = 0;
    for (size_t i = 0; i < queue->len; i++)
        if (queue->items[i] != wait)
            queue->items[kept++] = queue->items[i];
    queue->len = kept;
    if (kept == 0)
        s_drop_queue(self, queue);
}

lade_code_t
lade_waits_add(lade_waits_t *self, lade_wait_t *wait, lade_error_t *error)
{
    if (self->count >= LADE_BROKER_MAX_WAITS) {
        s_free_wait(wait);
        return lade_error_set(error, LADE_QUEUE_FULL, "%d calls wait already",
                              LADE_BROKER_MAX_WAITS);
    }
    lade_wait_t *added = zmalloc(sizeof *added);
    *added = *wait;
    added->left = 0;
    added->place = 0;
    added->fresh = true;
    self->fresh++;
    self->kinds += added->kind != NULL;
    for (size_t i = 0; i < added->count; i++)
        if (lade_jobs_live(self->broker->jobs, added->ids[i]))
            s_watch(self, added, added->ids[i]);
    double wait_ms = added->timeout_s * 1e3;
    added->deadline_ms =
        wait_ms > 0 && wait_ms < 1e15 ? self->broker->mono_ms + (int64_t)wait_ms + 1 : INT64_MAX;
    if (added->deadline_ms != INT64_MAX)
        lade_heap_add(&self->deadlines, added);
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 64;
        self->all = realloc(self->all, self->cap * sizeof *self->all);
        if (!self->all)
            abort();
    }
    added->at = self->count;
    self->all[self->count++] = added;
    return LADE_OK;
}

static void
s_remove(lade_waits_t *self, lade_wait_t *wait)
{
    for (size_t i = 0; i < wait->count && wait->left; i++)
        s_unwatch(self, wait, wait->ids[i]);
    lade_heap_del(&self->deadlines, wait);
    self->fresh -= wait->fresh;
    self->kinds -= wait->kind != NULL;
    lade_wait_t *last = self->all[--self->count];
    last->at = wait->at;
    self->all[last->at] = last;
    s_free_wait(wait);
    free(wait);
}

// ---------------------------------------------------------------------------------------------------
// Answering

static void
s_refuse(lade_waits_t *self, lade_wait_t *wait, const lade_error_t *error)
{
    lade_outbox_refuse(self->broker->outbox, wait->peer, wait->peer_len, wait->service,
                       strlen(wait->service), wait->id.data, wait->id.len, error);
    s_remove(self, wait);
}

static void
s_answer(lade_waits_t *self, lade_wait_t *wait)
{
    lade_outbox_t *outbox = self->broker->outbox;
    lade_error_t error;
    lade_buf_t *buf =
        lade_outbox_answer(outbox, wait->peer, wait->peer_len, wait->service, strlen(wait->service),
                           LADE_MDP_FINAL, wait->id.data, wait->id.len);
    if (wait->answer(self->broker, wait, buf, &error)) {
        lade_outbox_cancel(outbox);
        s_refuse(self, wait, &error);
        return;
    }
    lade_outbox_end(outbox);
    s_remove(self, wait);
}

void
lade_waits_progress(lade_waits_t *self, const lade_job_t *job)
{
    const s_queue_t *queue = lade_map_get(self->by_job, &job->id, sizeof job->id);
    for (size_t i = 0; queue && i < queue->len; i++) {
        const lade_wait_t *wait = queue->items[i];
        if (!wait->partial)
            continue;
        lade_surface_put_job(job, strcmp(wait->service, "jobs") != 0,
                             lade_outbox_answer(self->broker->outbox, wait->peer, wait->peer_len,
                                                wait->service, strlen(wait->service),
                                                LADE_MDP_PARTIAL, wait->id.data, wait->id.len));
        lade_outbox_end(self->broker->outbox);
    }
}

void
lade_waits_ended(lade_waits_t *self, uint64_t id)
{
    s_queue_t *queue = lade_map_get(self->by_job, &id, sizeof id);
    if (!queue)
        return;
    s_queue_t over = *queue; // answering changes the table
    lade_map_del(self->by_job, &queue->id, sizeof queue->id);
    free(queue);
    for (size_t i = 0; i < over.len; i++)
        if (--over.items[i]->left == 0)
            s_answer(self, over.items[i]);
    free(over.items);
}

static bool
s_over(const lade_wait_t *wait)
{
    const lade_kind_t *kind = wait->kind;
    if (!kind)
        return wait->left == 0;
    return kind->counts[LADE_JOB_ENQUEUED] + kind->counts[LADE_JOB_RUNNING] +
               kind->counts[LADE_JOB_WAITING] ==
           0;
}

void
lade_waits_turn(lade_waits_t *self)
{
    if (self->fresh || self->kinds)
        for (size_t i = self->count; i-- > 0;) {
            lade_wait_t *wait = self->all[i];
            self->fresh -= wait->fresh;
            wait->fresh = false;
            if (s_over(wait))
                s_answer(self, wait);
        }
    lade_error_t error;
    for (lade_wait_t *wait;
         (wait = lade_heap_top(&self->deadlines)) && wait->deadline_ms <= self->broker->mono_ms;) {
        lade_error_set(&error, LADE_TIMEOUT, "it did not end within %g seconds", wait->timeout_s);
        s_refuse(self, wait, &error);
    }
}

void
lade_waits_fail(lade_waits_t *self, const lade_error_t *error)
{
    for (size_t i = self->count; i-- > 0 && self->fresh;)
        if (self->all[i]->fresh)
            s_refuse(self, self->all[i], error);
}

int64_t
lade_waits_due(const lade_waits_t *self)
{
    const lade_wait_t *next = lade_heap_top(&self->deadlines);
    return next ? next->deadline_ms : INT64_MAX;
}

size_t
lade_waits_count(const lade_waits_t *self)
{
    return self->count;
}

void
lade_waits_destroy(lade_waits_t **self_p)
{
    lade_waits_t *self = *self_p;
    if (!self)
        return;
    while (self->count)
        s_remove(self, self->all[self->count - 1]);
    lade_map_destroy(&self->by_job);
    lade_heap_free(&self->deadlines);
    free(self->all);
    free(self);
    *self_p = NULL;
}
