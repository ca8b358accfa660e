// Jobs in the keyspace: writing what a turn changed, the old ones that go, taking everything up.
#include "broker/jobs_private.h"
#include "broker/secrets.h"
#include "broker/shares.h"
#include "broker/surface.h"
#include "common/log.h"

#include <czmq.h>

enum {
    S_SOURCE_KEY = 400, // bytes of a source in jobs_by_source
    S_PRUNE_MOST = 256, // ended jobs pruned in one turn
};

// ---------------------------------------------------------------------------------------------------
// Writing

size_t
lade_jobs_source_key(const char *kind, const char *source, char *key)
{
    size_t len = strlen(kind) + 1;
    memcpy(key, kind, len);
    len += lade_store_key(source, strlen(source), S_SOURCE_KEY, key + len);
    key[len++] = '\0';
    return len;
}

void
lade_jobs_index(lade_jobs_t *self, const lade_job_t *job)
{
    lade_store_t *store = self->broker->store;
    uint64_t id = htobe64(job->id), parent = htobe64(job->parent);
    char key[LADE_STORE_MAX_KEY];
    if (job->token)
        lade_store_put(store, LADE_DB_JOBS_BY_TOKEN, job->token, strlen(job->token), &id, sizeof id,
                       false, NULL);
    if (job->source) {
        size_t len = lade_jobs_source_key(job->kind->name, job->source, key);
        memcpy(key + len, &id, sizeof id);
        lade_store_put(store, LADE_DB_JOBS_BY_SOURCE, key, len + sizeof id, "", 0, false, NULL);
    }
    if (job->parent) {
        memcpy(key, &parent, sizeof parent);
        memcpy(key + sizeof parent, &id, sizeof id);
        lade_store_put(store, LADE_DB_JOBS_BY_PARENT, key, 2 * sizeof id, "", 0, false, NULL);
    }
}

static void
s_write(lade_jobs_t *self, lade_job_t *job)
{
    job->dirty = false;
    if (job->purged)
        return;
    uint64_t key = htobe64(job->id);
    self->pack.len = 0;
    lade_job_put_stored(job, &self->pack);
    lade_store_put(self->broker->store, LADE_DB_JOBS, &key, sizeof key, self->pack.data,
                   self->pack.len, job->fresh, NULL);
    job->fresh = false;
}

// ---------------------------------------------------------------------------------------------------
// Old jobs go

lade_code_t
lade_jobs_purge(lade_jobs_t *self, lade_job_t *job, lade_error_t *error)
{
    if (!lade_job_ended(job))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "job %" PRIu64 " is %s; only ended jobs are purged", job->id,
                              lade_job_status_name(job->status));
    if (job->parent && lade_jobs_live(self, job->parent))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "job %" PRIu64 " is kept for job %" PRIu64
                              ", which is told how it ended",
                              job->id, job->parent);
    if (job->purged)
        return LADE_OK;
    lade_store_t *store = self->broker->store;
    uint64_t ids[2] = {htobe64(job->parent), htobe64(job->id)};
    char key[LADE_STORE_MAX_KEY];
    lade_store_del(store, LADE_DB_JOBS, &ids[1], sizeof ids[1], NULL);
    if (job->token)
        lade_store_del(store, LADE_DB_JOBS_BY_TOKEN, job->token, strlen(job->token), NULL);
    if (job->parent)
        lade_store_del(store, LADE_DB_JOBS_BY_PARENT, ids, sizeof ids, NULL);
    if (job->source) {
        size_t len = lade_jobs_source_key(job->kind->name, job->source, key);
        memcpy(key + len, &ids[1], sizeof ids[1]);
        lade_store_del(store, LADE_DB_JOBS_BY_SOURCE, key, len + sizeof ids[1], NULL);
    }
    if (job->secret)
        lade_secrets_count(self->broker->secrets, job->spec.data, job->spec.len, -1);
    lade_secrets_count(self->broker->secrets, job->state.data, job->state.len, -1);
    lade_jobs_tally(self, job, job->status, -1);
    job->purged = true;
    return LADE_OK;
}

typedef struct {
    lade_jobs_t *jobs;
    uint64_t ids[S_PRUNE_MOST], last;
    size_t wanted, count, seen;
    bool stopped; // before the end of the table
} s_pruning_t;

static bool
s_see_old(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)value;
    s_pruning_t *self = arg;
    uint64_t id;
    if (key.len != sizeof id)
        return true;
    memcpy(&id, key.data, sizeof id);
    self->last = be64toh(id);
    if (!lade_map_get(self->jobs->live, &self->last, sizeof self->last))
        self->ids[self->count++] = self->last;
    self->stopped = self->count == self->wanted || ++self->seen == 4 * S_PRUNE_MOST;
    return !self->stopped;
}

// The oldest ended jobs over broker.keep_ended go, a few in each turn; children only after their
// parent.
static void
s_prune(lade_jobs_t *self)
{
    uint64_t keep = (uint64_t)self->broker->config->keep_ended;
    if (self->ended_count <= keep)
        return;
    // No more is looked at than has to go: in a full table each turn prunes as many as it ended.
    size_t over = (size_t)(self->ended_count - keep);
    s_pruning_t pruning = {.jobs = self, .wanted = over < S_PRUNE_MOST ? over : S_PRUNE_MOST};
    uint64_t from = htobe64(self->prune_from);
    if (lade_store_scan(self->broker->store, LADE_DB_JOBS, &from, sizeof from, 0, false, s_see_old,
                        &pruning, NULL))
        return;
    self->prune_from = pruning.stopped ? pruning.last + 1 : 0; // at the end: begin anew
    for (size_t i = 0; i < pruning.count && self->ended_count > keep; i++) {
        lade_job_t *job;
        if (lade_jobs_get(self, pruning.ids[i], &job, NULL) == LADE_OK && lade_job_ended(job) &&
            !lade_jobs_live(self, job->parent))
            lade_jobs_purge(self, job, NULL);
    }
}

void
lade_jobs_write(lade_jobs_t *self)
{
    for (size_t i = 0; i < self->dirty.len; i++)
        s_write(self, self->dirty.items[i]);
    self->dirty.len = 0;
    if (self->next_id != self->written_id)
        lade_store_put_number(self->broker->store, "next_job", self->next_id, NULL);
    if (self->sequence != self->written_sequence)
        lade_store_put_number(self->broker->store, "job_sequence", self->sequence, NULL);
    self->written_id = self->next_id;
    self->written_sequence = self->sequence;
    if (lade_store_dirty(self->broker->store))
        s_prune(self);
}

// ---------------------------------------------------------------------------------------------------
// Taking everything up

static bool
s_see_stored(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    lade_jobs_t *self = arg;
    uint64_t id;
    const char *name;
    size_t len;
    lade_job_status_t status;
    lade_error_t error;
    if (key.len != sizeof id)
        return true;
    memcpy(&id, key.data, sizeof id);
    id = be64toh(id);
    if (id >= self->next_id)
        self->next_id = id + 1;
    if (!lade_job_peek(value.data, value.len, &name, &len, &status) || len > LADE_BROKER_MAX_KIND) {
        lade_log(LADE_LOG_ERROR, "keyspace", "job %" PRIu64 " cannot be read and is passed over",
                 id);
        return true;
    }
    lade_kind_t *kind = lade_jobs_need_kind(self, name, len);
    kind->counts[status]++;
    self->ended_count += status >= LADE_JOB_COMPLETED;
    lade_secrets_count(self->broker->secrets, value.data, value.len, 1);
    lade_job_t *job;
    if (status < LADE_JOB_COMPLETED &&
        lade_job_read(value.data, value.len, lade_jobs_kind_named, self, &job, &error) == LADE_OK)
        lade_map_put(self->live, &job->id, sizeof job->id, job);
    return true;
}

// Keyspaces of earlier versions have tokens in their jobs: they are taken out, once.

typedef struct {
    lade_jobs_t *jobs;
    lade_job_list_t list;
} s_old_t;

static bool
s_see_old_token(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)key;
    s_old_t *self = arg;
    lade_job_t *job;
    if (lade_job_read(value.data, value.len, lade_jobs_kind_named, self->jobs, &job, NULL))
        return true; // told when it is taken up
    if (job->secret || job->state.len)
        lade_job_list_add(&self->list, job);
    else
        lade_job_destroy(&job);
    return true;
}

static lade_code_t
s_take_out(lade_jobs_t *self, lade_blob_t *packed, lade_error_t *error)
{
    msgpack_unpacked object;
    msgpack_unpacked_init(&object);
    lade_code_t code = LADE_OK;
    if (packed->len &&
        msgpack_unpack_next(&object, packed->data, packed->len, NULL) == MSGPACK_UNPACK_SUCCESS)
        code = lade_secrets_take_out(self->broker->secrets, &object.data, packed, error);
    msgpack_unpacked_destroy(&object);
    return code;
}

static lade_code_t
s_take_out_tokens(lade_jobs_t *self, lade_error_t *error)
{
    uint64_t done = 0;
    s_old_t old = {.jobs = self};
    lade_store_t *store = self->broker->store;
    if (lade_store_get_number(store, "tokens_out", &done, NULL) == LADE_OK)
        return LADE_OK;
    lade_code_t code =
        lade_store_scan(store, LADE_DB_JOBS, NULL, 0, 0, false, s_see_old_token, &old, error);
    for (size_t i = 0; i < old.list.len; i++) {
        lade_job_t *job = old.list.items[i];
        if (!code)
            code = s_take_out(self, &job->spec, error);
        if (!code)
            code = s_take_out(self, &job->state, error);
        if (!code)
            s_write(self, job);
        lade_job_destroy(&job);
    }
    free(old.list.items);
    return code ? code : lade_store_put_number(store, "tokens_out", 1, error);
}

// A job that was read: its queue, what makes it equal, its children.
static lade_code_t
s_take_up(lade_jobs_t *self, lade_job_t *job, lade_error_t *error)
{
    msgpack_unpacked spec, requires;
    msgpack_unpacked_init(&spec);
    msgpack_unpacked_init(&requires);
    bool has_spec = job->spec.len && msgpack_unpack_next(&spec, job->spec.data, job->spec.len,
                                                         NULL) == MSGPACK_UNPACK_SUCCESS;
    bool has_requires =
        job->requires.len && msgpack_unpack_next(&requires, job->requires.data, job->requires.len,
                                                 NULL) == MSGPACK_UNPACK_SUCCESS;
    lade_code_t code = lade_jobs_need_queue(self, job->kind, has_requires ? &requires.data : NULL,
                                            &job->queue, error);
    if (!code) {
        job->queue->jobs++;
        lade_jobs_set_equal(job, has_spec ? &spec.data : NULL);
        lade_jobs_enter(self, job);
        job->shown = lade_surface_shown(job);
    }
    msgpack_unpacked_destroy(&requires);
    msgpack_unpacked_destroy(&spec);
    for (size_t i = 0; i < job->child_count; i++) {
        lade_job_t *child = lade_map_get(self->live, &job->children[i], sizeof job->children[i]);
        job->parts_total += job->parts[i].total_bytes;
        if (child) {
            child->child_at = i;
            job->children_left++;
        }
    }
    return code;
}

static void
s_resume(lade_jobs_t *self, lade_job_t *job)
{
    if (job->status == LADE_JOB_ENQUEUED)
        lade_jobs_make_ready(self, job);
    if (job->status == LADE_JOB_WAITING && job->children_left == 0)
        lade_jobs_move(self, job, LADE_JOB_GO_ON, NULL);
    if (job->status == LADE_JOB_RUNNING)
        lade_shares_begin(self->broker->shares, job);
    if (job->status == LADE_JOB_RUNNING || lade_jobs_bound_to(job))
        self->takeover_ms = self->broker->mono_ms + self->broker->lease_ms;
}

lade_code_t
lade_jobs_reload(lade_jobs_t *self, lade_error_t *error)
{
    lade_jobs_forget(self);
    self->live = lade_map_new();
    self->equals = lade_map_new();
    self->queues = lade_map_new();
    self->ended_count = self->prune_from = self->sequence = 0;
    self->next_id = 1;
    self->takeover_ms = INT64_MAX;
    lade_store_t *store = self->broker->store;
    lade_code_t code = lade_store_get_number(store, "next_job", &self->next_id, error);
    if (!code || code == LADE_NOT_FOUND)
        code = lade_store_get_number(store, "job_sequence", &self->sequence, error);
    if (!code || code == LADE_NOT_FOUND)
        code = s_take_out_tokens(self, error);
    lade_secrets_recount(self->broker->secrets);
    if (!code)
        code = lade_store_scan(store, LADE_DB_JOBS, NULL, 0, 0, false, s_see_stored, self, error);
    if (!code)
        lade_secrets_recounted(self->broker->secrets);
    self->written_id = self->next_id;
    self->written_sequence = self->sequence;
    lade_job_list_t list = {0};
    size_t at = 0;
    for (lade_job_t *job; (job = lade_map_next(self->live, &at));)
        lade_job_list_add(&list, job);
    for (size_t i = 0; i < list.len && !code; i++)
        code = s_take_up(self, list.items[i], error);
    for (size_t i = 0; i < list.len && !code; i++)
        s_resume(self, list.items[i]);
    free(list.items);
    return code;
}
