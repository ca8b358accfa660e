// The table of jobs: entering, moving, leaving, and what time does to them.
//
// A job that ends stays in memory until the turn is committed, so that whoever holds a pointer in
// this turn may use it.
#include "broker/jobs.h"

#include "broker/jobs_private.h"
#include "broker/shares.h"
#include "broker/surface.h"
#include "broker/waits.h"
#include "common/log.h"

#include <czmq.h>

enum {
    S_TELL_MS = 100, // between two events of one job's progress
};

void
lade_job_list_add(lade_job_list_t *self, lade_job_t *job)
{
    if (self->len == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 64;
        self->items = realloc(self->items, self->cap * sizeof *self->items);
        if (!self->items)
            abort();
    }
    self->items[self->len++] = job;
}

static bool
s_earlier(const void *a, const void *b)
{
    return ((const lade_job_t *)a)->not_before < ((const lade_job_t *)b)->not_before;
}

lade_jobs_t *
lade_jobs_new(lade_broker_t *broker)
{
    lade_jobs_t *self = zmalloc(sizeof *self);
    self->broker = broker;
    self->live = lade_map_new();
    self->kinds = lade_map_new();
    self->equals = lade_map_new();
    self->queues = lade_map_new();
    self->delayed = LADE_HEAP(lade_job_t, place, s_earlier);
    self->next_id = self->written_id = 1;
    self->takeover_ms = INT64_MAX;
    self->pack = LADE_BUF(SIZE_MAX / 2);
    return self;
}

// ---------------------------------------------------------------------------------------------------
// Kinds

lade_kind_t *
lade_jobs_kind(const lade_jobs_t *self, const char *name, size_t len)
{
    return lade_map_get(self->kinds, name, len);
}

lade_kind_t *
lade_jobs_next_kind(const lade_jobs_t *self, size_t *at)
{
    return lade_map_next(self->kinds, at);
}

lade_kind_t *
lade_jobs_need_kind(lade_jobs_t *self, const char *name, size_t len)
{
    lade_kind_t *kind = lade_jobs_kind(self, name, len);
    if (kind)
        return kind;
    kind = zmalloc(sizeof *kind);
    snprintf(kind->name, sizeof kind->name, "%.*s", (int)len, name);
    kind->surface = lade_surface_of(kind->name);
    lade_map_put(self->kinds, kind->name, strlen(kind->name), kind);
    return kind;
}

lade_kind_t *
lade_jobs_kind_named(void *arg, const char *name)
{
    return lade_jobs_need_kind(arg, name, strnlen(name, LADE_BROKER_MAX_KIND));
}

// ---------------------------------------------------------------------------------------------------
// Moving

void
lade_jobs_touch(lade_jobs_t *self, lade_job_t *job)
{
    if (job->dirty)
        return;
    job->dirty = true;
    lade_job_list_add(&self->dirty, job);
}

void
lade_jobs_tally(lade_jobs_t *self, const lade_job_t *job, lade_job_status_t status, int by)
{
    job->kind->counts[status] += (uint64_t)by;
    if (status >= LADE_JOB_COMPLETED)
        self->ended_count += (uint64_t)by;
}

// What the parent could do with the others, it cannot do without this one.
static void
s_give_up(lade_jobs_t *self, lade_job_t *parent)
{
    if (parent->giving_up)
        return;
    parent->giving_up = true;
    for (size_t i = 0; i < parent->child_count; i++) {
        lade_job_t *sibling = lade_jobs_live(self, parent->children[i]);
        if (sibling && !lade_job_ended(sibling))
            lade_jobs_cancel(self, sibling, NULL);
    }
    parent->giving_up = false;
}

static void
s_child_ended(lade_jobs_t *self, lade_job_t *child)
{
    lade_job_t *parent = lade_jobs_live(self, child->parent);
    if (!parent || child->child_at >= parent->child_count ||
        parent->children[child->child_at] != child->id)
        return;
    lade_jobs_roll_up(self, child);
    if (parent->children_left > 0)
        parent->children_left--;
    lade_jobs_touch(self, parent);
    if (child->vital && child->status != LADE_JOB_COMPLETED)
        s_give_up(self, parent);
    if (parent->children_left == 0 && parent->status == LADE_JOB_WAITING)
        lade_jobs_move(self, parent, LADE_JOB_GO_ON, NULL);
}

static void
s_end(lade_jobs_t *self, lade_job_t *job)
{
    job->ended = self->broker->now;
    if (job->equal.len && lade_map_get(self->equals, job->equal.data, job->equal.len) == job)
        lade_map_del(self->equals, job->equal.data, job->equal.len);
    if (!job->ending)
        lade_job_list_add(&self->ending, job);
    job->ending = true;
    if (job->parent)
        s_child_ended(self, job);
}

// What is told of a step besides or instead of the event of the status shown.
static const struct {
    bool quiet;  // no event of its own
    bool unseen; // and outside it looks as if nothing had happened
} s_told[LADE_JOB_TRIGGER_COUNT] = {
    [LADE_JOB_AGAIN] = {.quiet = true}, // job_requeued tells it
    [LADE_JOB_LOSE] = {.quiet = true},  [LADE_JOB_BACK] = {.quiet = true},
    [LADE_JOB_GO_ON] = {.quiet = true}, [LADE_JOB_SAVE] = {.unseen = true},
};

lade_code_t
lade_jobs_move(lade_jobs_t *self, lade_job_t *job, lade_job_trigger_t trigger, lade_error_t *error)
{
    lade_job_status_t was = job->status, then;
    lade_code_t code = lade_job_next(job, trigger, &then, error);
    if (code)
        return code;
    if (was == LADE_JOB_ENQUEUED)
        lade_jobs_unready(self, job);
    lade_jobs_tally(self, job, was, -1);
    lade_jobs_tally(self, job, then, 1);
    job->status = then;
    job->stalled = false;
    if (was == LADE_JOB_RUNNING)
        lade_shares_end(self->broker->shares, job);
    if (then == LADE_JOB_RUNNING)
        lade_shares_begin(self->broker->shares, job);
    if (s_told[trigger].quiet)
        job->shown = lade_surface_shown(job);
    else if (!s_told[trigger].unseen)
        lade_surface_announce(self->broker, job);
    if (then == LADE_JOB_ENQUEUED)
        lade_jobs_make_ready(self, job);
    if (then >= LADE_JOB_COMPLETED)
        s_end(self, job);
    lade_jobs_touch(self, job);
    if (lade_log_shows(LADE_LOG_DEBUG)) {
        char about[32];
        snprintf(about, sizeof about, "job %" PRIu64, job->id);
        lade_log(LADE_LOG_DEBUG, about, "%s -> %s (attempt %" PRId64 ")%s%s",
                 lade_job_status_name(was), lade_job_status_name(then), job->attempt,
                 job->error ? ": " : "", job->error ? job->error : "");
    }
    return LADE_OK;
}

void
lade_jobs_enter(lade_jobs_t *self, lade_job_t *job)
{
    job->live = true;
    lade_map_put(self->live, &job->id, sizeof job->id, job);
    if (job->equal.len && !lade_map_get(self->equals, job->equal.data, job->equal.len))
        lade_map_put(self->equals, job->equal.data, job->equal.len, job);
}

// ---------------------------------------------------------------------------------------------------
// Finding

lade_job_t *
lade_jobs_live(const lade_jobs_t *self, uint64_t id)
{
    lade_job_t *job = id ? lade_map_get(self->live, &id, sizeof id) : NULL;
    return job && !lade_job_ended(job) ? job : NULL;
}

lade_code_t
lade_jobs_get(lade_jobs_t *self, uint64_t id, lade_job_t **job_p, lade_error_t *error)
{
    *job_p = lade_map_get(self->live, &id, sizeof id);
    if (*job_p && !(*job_p)->purged)
        return LADE_OK;
    lade_bytes_t stored;
    uint64_t key = htobe64(id);
    lade_code_t code = *job_p ? LADE_NOT_FOUND
                              : lade_store_get(self->broker->store, LADE_DB_JOBS, &key, sizeof key,
                                               &stored, error);
    if (code == LADE_NOT_FOUND)
        return lade_error_set(error, LADE_UNKNOWN_JOB_ID, "there is no job %" PRIu64, id);
    if (!code)
        code = lade_job_read(stored.data, stored.len, lade_jobs_kind_named, self, job_p, error);
    if (!code)
        lade_job_list_add(&self->borrowed, *job_p);
    return code;
}

const lade_job_t *
lade_jobs_next_live(const lade_jobs_t *self, size_t *at)
{
    return lade_map_next(self->live, at);
}

size_t
lade_jobs_count(const lade_jobs_t *self)
{
    return lade_map_size(self->live);
}

static void
s_free_list(lade_job_list_t *list)
{
    for (size_t i = 0; i < list->len; i++)
        lade_job_destroy(&list->items[i]);
    list->len = 0;
}

// ---------------------------------------------------------------------------------------------------
// Progress

static int64_t
s_distance(const lade_job_t *job)
{
    int64_t moved = job->progress.bytes - job->told_bytes;
    return moved < 0 ? -moved : moved;
}

static void
s_tell_now(lade_jobs_t *self, lade_job_t *job)
{
    job->told_ms = self->broker->mono_ms;
    job->told_bytes = job->progress.bytes;
    lade_surface_progress(self->broker, job);
    lade_waits_progress(self->broker->waits, job);
}

void
lade_jobs_tell_progress(lade_jobs_t *self, lade_job_t *job)
{
    int64_t step = job->progress.total_bytes / 100;
    if (job->told_ms && s_distance(job) < (step > 0 ? step : 1))
        return;
    if (!job->told_ms || self->broker->mono_ms - job->told_ms >= S_TELL_MS) {
        s_tell_now(self, job);
        return;
    }
    if (!job->telling)
        lade_job_list_add(&self->telling, job);
    job->telling = true;
}

static void
s_tell_late(lade_jobs_t *self)
{
    size_t kept = 0;
    for (size_t i = 0; i < self->telling.len; i++) {
        lade_job_t *job = self->telling.items[i];
        if (!lade_job_ended(job) && self->broker->mono_ms - job->told_ms < S_TELL_MS) {
            self->telling.items[kept++] = job;
            continue;
        }
        job->telling = false;
        if (!lade_job_ended(job))
            s_tell_now(self, job);
    }
    self->telling.len = kept;
}

void
lade_jobs_roll_up(lade_jobs_t *self, const lade_job_t *child)
{
    lade_job_t *parent = lade_jobs_live(self, child->parent);
    if (!parent || child->child_at >= parent->child_count ||
        parent->children[child->child_at] != child->id)
        return;
    lade_part_t *part = &parent->parts[child->child_at];
    parent->progress.bytes += child->progress.bytes - part->bytes;
    parent->parts_total += child->progress.total_bytes - part->total_bytes;
    part->bytes = child->progress.bytes;
    part->total_bytes = child->progress.total_bytes;
    if (parent->parts_total > parent->progress.total_bytes)
        parent->progress.total_bytes = parent->parts_total;
    const char *path = child->progress.local_path;
    if (path && (!part->local_path || strcmp(path, part->local_path) != 0))
        lade_job_set_text(&part->local_path, path, strlen(path));
    lade_jobs_tell_progress(self, parent);
}

// ---------------------------------------------------------------------------------------------------
// Time

// Running jobs of the broker's earlier life whose worker did not come back, and those bound to it.
static void
s_end_takeover(lade_jobs_t *self)
{
    static const char why[] = "its worker did not come back after the broker's restart";
    self->takeover_ms = INT64_MAX;
    lade_job_list_t lost = {0};
    size_t at = 0;
    for (lade_job_t *job; (job = lade_map_next(self->live, &at));)
        if (job->status == LADE_JOB_RUNNING && !job->holder && !lade_jobs_bound_to(job))
            lade_job_list_add(&lost, job);
    for (size_t i = 0; i < lost.len; i++) {
        lade_jobs_move(self, lost.items[i], LADE_JOB_BACK, NULL);
        lade_surface_tell_requeued(self->broker, lost.items[i], why);
    }
    free(lost.items);
    lade_jobs_end_bound(self, NULL, why);
}

void
lade_jobs_tick(lade_jobs_t *self)
{
    lade_broker_t *broker = self->broker;
    if (broker->mono_ms >= self->takeover_ms)
        s_end_takeover(self);
    for (lade_job_t *job;
         (job = lade_heap_top(&self->delayed)) && job->not_before <= broker->now;) {
        lade_heap_pop(&self->delayed);
        job->heap = NULL;
        lade_jobs_make_ready(self, job);
    }
    size_t at = 0;
    for (lade_gate_t *gate; (gate = lade_gates_next(broker->gates, &at));)
        if (gate->closed_until_ms && gate->closed_until_ms <= broker->mono_ms) {
            lade_gate_close(gate, 0, NULL, broker->mono_ms);
            lade_jobs_gate_changed(self, gate);
            at = 0; // the gate may be gone
        }
    s_tell_late(self);
}

int64_t
lade_jobs_due(const lade_jobs_t *self)
{
    const lade_broker_t *broker = self->broker;
    int64_t due = self->takeover_ms, gates = lade_gates_due(broker->gates, broker->mono_ms);
    const lade_job_t *delayed = lade_heap_top(&self->delayed);
    if (delayed) {
        int64_t wait_ms = (int64_t)((delayed->not_before - broker->now) * 1e3) + 1;
        due = broker->mono_ms + wait_ms < due ? broker->mono_ms + wait_ms : due;
    }
    if (self->telling.len && broker->mono_ms + S_TELL_MS < due)
        due = broker->mono_ms + S_TELL_MS;
    return gates < due ? gates : due;
}

// ---------------------------------------------------------------------------------------------------
// Leaving

// The job leaves memory.
static void
s_leave(lade_jobs_t *self, lade_job_t *job)
{
    lade_map_del(self->live, &job->id, sizeof job->id);
    if (job->holder) {
        job->holder->holds[job->hold].job = NULL; // the worker still has to let go of the slot
        job->holder = NULL;
    }
    for (size_t i = 0; job->telling && i < self->telling.len; i++)
        if (self->telling.items[i] == job) {
            self->telling.items[i] = self->telling.items[--self->telling.len];
            break;
        }
    lade_jobs_leave_queue(self, job);
    lade_job_destroy(&job);
}

void
lade_jobs_turn(lade_jobs_t *self, void (*ended)(void *arg, uint64_t id), void *arg)
{
    for (size_t i = 0; i < self->ending.len; i++)
        if (lade_job_ended(self->ending.items[i]))
            ended(arg, self->ending.items[i]->id);
    for (size_t i = 0; i < self->ending.len; i++) {
        lade_job_t *job = self->ending.items[i];
        job->ending = false;
        if (lade_job_ended(job))
            s_leave(self, job);
    }
    self->ending.len = 0;
    s_free_list(&self->borrowed);
}

void
lade_jobs_forget(lade_jobs_t *self)
{
    size_t at = 0;
    for (lade_job_t *job; (job = lade_map_next(self->live, &at));)
        lade_job_destroy(&job);
    at = 0;
    for (lade_kind_t *kind; (kind = lade_map_next(self->kinds, &at));)
        memset(kind->counts, 0, sizeof kind->counts); // others point to it
    for (size_t i = 0; i < self->queue_count; i++) {
        lade_blob_free(&self->all_queues[i]->key);
        lade_labels_free(&self->all_queues[i]->requires);
        lade_heap_free(&self->all_queues[i]->ready);
        free(self->all_queues[i]);
    }
    self->queue_count = 0;
    lade_map_destroy(&self->live);
    lade_map_destroy(&self->equals);
    lade_map_destroy(&self->queues);
    self->delayed.len = 0;
    self->dirty.len = self->ending.len = self->telling.len = self->given.len = 0;
    s_free_list(&self->borrowed);
}

void
lade_jobs_destroy(lade_jobs_t **self_p)
{
    lade_jobs_t *self = *self_p;
    if (!self)
        return;
    lade_jobs_forget(self);
    size_t at = 0;
    for (lade_kind_t *kind; (kind = lade_map_next(self->kinds, &at));)
        free(kind);
    lade_map_destroy(&self->kinds);
    free(self->all_queues);
    lade_heap_free(&self->delayed);
    free(self->dirty.items);
    free(self->ending.items);
    free(self->borrowed.items);
    free(self->telling.items);
    free(self->given.items);
    lade_buf_free(&self->pack);
    free(self);
    *self_p = NULL;
}
