// Listing jobs, those in memory and those in the keyspace.
#include "broker/jobs_private.h"

#include <czmq.h>

typedef struct {
    lade_jobs_t *jobs;
    const lade_job_filter_t *filter;
    uint64_t *ids;
    size_t count, cap, skipped;
} s_listing_t;

static bool
s_matches(const s_listing_t *self, const lade_kind_t *kind, lade_job_status_t status)
{
    const lade_job_filter_t *filter = self->filter;
    return (!filter->kind || filter->kind == kind) &&
           (filter->status == LADE_JOB_STATUS_COUNT || filter->status == status) &&
           (!filter->not_ended || status < LADE_JOB_COMPLETED);
}

// Takes one that matches; false when there are enough.
static bool
s_take(s_listing_t *self, uint64_t id)
{
    if (self->skipped < self->filter->offset) {
        self->skipped++;
        return true;
    }
    if (self->count == self->filter->limit)
        return false;
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 64;
        self->ids = realloc(self->ids, self->cap * sizeof *self->ids);
        if (!self->ids)
            abort();
    }
    self->ids[self->count++] = id;
    return self->count < self->filter->limit;
}

// A row of jobs: what is in memory is newer than what is stored.
static bool
s_see_job(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    s_listing_t *self = arg;
    uint64_t id;
    const char *kind;
    size_t len;
    lade_job_status_t status;
    if (key.len != sizeof id)
        return true;
    memcpy(&id, key.data, sizeof id);
    id = be64toh(id);
    const lade_job_t *job = lade_map_get(self->jobs->live, &id, sizeof id);
    if (job)
        return !s_matches(self, job->kind, job->status) || s_take(self, id);
    if (!lade_job_peek(value.data, value.len, &kind, &len, &status) ||
        !s_matches(self, lade_jobs_kind(self->jobs, kind, len), status))
        return true;
    return s_take(self, id);
}

// A row of an index whose keys end with the job's id.
static bool
s_see_index(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)value;
    s_listing_t *self = arg;
    uint64_t id;
    lade_job_t *job;
    if (key.len < sizeof id)
        return true;
    memcpy(&id, (const char *)key.data + key.len - sizeof id, sizeof id);
    if (lade_jobs_get(self->jobs, be64toh(id), &job, NULL) ||
        !s_matches(self, job->kind, job->status) ||
        (self->filter->source && (!job->source || strcmp(job->source, self->filter->source) != 0)))
        return true;
    return s_take(self, job->id);
}

static int
s_compare_ids(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void
s_list_live(s_listing_t *self)
{
    lade_job_filter_t all = *self->filter;
    all.limit = SIZE_MAX;
    all.offset = 0;
    s_listing_t every = {.jobs = self->jobs, .filter = &all};
    size_t at = 0;
    for (lade_job_t *job; (job = lade_map_next(self->jobs->live, &at));)
        if (!lade_job_ended(job) && s_matches(self, job->kind, job->status))
            s_take(&every, job->id);
    if (every.count)
        qsort(every.ids, every.count, sizeof *every.ids, s_compare_ids);
    for (size_t i = 0; i < every.count && s_take(self, every.ids[i]); i++)
        ;
    free(every.ids);
}

static lade_code_t
s_list(s_listing_t *self, lade_error_t *error)
{
    const lade_job_filter_t *filter = self->filter;
    lade_store_t *store = self->jobs->broker->store;
    char key[LADE_STORE_MAX_KEY];
    if (filter->limit == 0)
        return LADE_OK;
    if (filter->source && filter->kind) {
        size_t len = lade_jobs_source_key(filter->kind->name, filter->source, key);
        return lade_store_scan(store, LADE_DB_JOBS_BY_SOURCE, key, len, len, false, s_see_index,
                               self, error);
    }
    if (filter->parent) {
        uint64_t parent = htobe64(filter->parent);
        return lade_store_scan(store, LADE_DB_JOBS_BY_PARENT, &parent, sizeof parent, sizeof parent,
                               false, s_see_index, self, error);
    }
    if (filter->not_ended || filter->status < LADE_JOB_COMPLETED) {
        s_list_live(self);
        return LADE_OK;
    }
    return lade_store_scan(store, LADE_DB_JOBS, NULL, 0, 0, false, s_see_job, self, error);
}

lade_code_t
lade_jobs_each(lade_jobs_t *self, const lade_job_filter_t *filter,
               bool (*each)(void *arg, lade_job_t *job), void *arg, lade_error_t *error)
{
    lade_jobs_write(self); // so that the keyspace has the jobs of this turn
    s_listing_t listing = {.jobs = self, .filter = filter};
    lade_code_t code = s_list(&listing, error);
    for (size_t i = 0; i < listing.count && !code; i++) {
        lade_job_t *job;
        size_t borrowed = self->borrowed.len;
        if (lade_jobs_get(self, listing.ids[i], &job, NULL))
            continue;
        bool more = each(arg, job);
        if (self->borrowed.len == borrowed + 1) // what was read for this one look is not kept
            lade_job_destroy(&self->borrowed.items[--self->borrowed.len]);
        if (!more)
            break;
    }
    free(listing.ids);
    return code;
}
