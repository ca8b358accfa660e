// The table of jobs: entering, leaving, finding, writing.
//
// A job that ends stays in memory until the turn is committed, so that whoever holds a pointer in
// this turn may use it.
#include "broker/jobs.h"

#include "broker/events.h"
#include "broker/jobs_private.h"
#include "broker/packer.h"
#include "broker/secrets.h"
#include "broker/shares.h"
#include "broker/surface.h"
#include "broker/waits.h"
#include "common/log.h"
#include "common/wire.h"

#include <czmq.h>
#include <openssl/evp.h>

enum {
    S_SOURCE_KEY = 400, // bytes of a source in jobs_by_source
    S_PRUNE_MOST = 256, // ended jobs pruned in one turn
    S_TELL_MS = 100,    // between two events of one job's progress
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

static lade_kind_t *
s_kind_of(void *arg, const char *name)
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

static void
s_count(lade_jobs_t *self, const lade_job_t *job, lade_job_status_t status, int by)
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
    s_count(self, job, was, -1);
    s_count(self, job, then, 1);
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

// ---------------------------------------------------------------------------------------------------
// Submitting

static lade_code_t
s_check_text(const char *what, const char *text, size_t len, size_t max, lade_error_t *error)
{
    if (text && (len > max || memchr(text, 0, len)))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "%s: at most %zu bytes of text without a NUL, these are %zu", what,
                              max, len);
    return LADE_OK;
}

static lade_code_t
s_check_gates(const msgpack_object *gates, lade_error_t *error)
{
    if (!gates || gates->type == MSGPACK_OBJECT_NIL)
        return LADE_OK;
    bool fine =
        gates->type == MSGPACK_OBJECT_ARRAY && gates->via.array.size < LADE_BROKER_MAX_GATES;
    for (uint32_t i = 0; fine && i < gates->via.array.size; i++) {
        const msgpack_object *gate = &gates->via.array.ptr[i];
        fine = gate->type == MSGPACK_OBJECT_STR && gate->via.str.size > 0 &&
               gate->via.str.size <= LADE_BROKER_MAX_NAME &&
               !memchr(gate->via.str.ptr, 0, gate->via.str.size);
    }
    return fine ? LADE_OK
                : lade_error_set(error, LADE_VALUE_ERROR,
                                 "gates: an array of fewer than %d names of 1 to %d bytes",
                                 LADE_BROKER_MAX_GATES, LADE_BROKER_MAX_NAME);
}

static lade_code_t
s_check(lade_jobs_t *self, const lade_submission_t *submission, lade_error_t *error)
{
    if (submission->kind_len == 0)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "kind: the name of a kind of jobs is needed");
    lade_code_t code =
        s_check_text("kind", submission->kind, submission->kind_len, LADE_BROKER_MAX_KIND, error);
    if (!code)
        code = s_check_text("source", submission->source, submission->source_len,
                            LADE_BROKER_MAX_SOURCE, error);
    if (!code)
        code = lade_secrets_check_url(submission->source, submission->source_len, error);
    if (!code)
        code = s_check_text("token", submission->token, submission->token_len,
                            LADE_BROKER_MAX_TOKEN, error);
    if (!code)
        code = s_check_gates(submission->gates, error);
    if (!code && submission->spec && submission->spec->type != MSGPACK_OBJECT_MAP &&
        submission->spec->type != MSGPACK_OBJECT_NIL)
        code = lade_error_set(error, LADE_VALUE_ERROR, "spec: a map");
    if (!code && !lade_jobs_kind(self, submission->kind, submission->kind_len) &&
        lade_map_size(self->kinds) >= LADE_BROKER_MAX_KINDS)
        code = lade_error_set(error, LADE_QUEUE_FULL, "there are %d kinds of jobs already",
                              LADE_BROKER_MAX_KINDS);
    return code;
}

// What a download's spec says of its rate is for us; another kind's may mean anything.
static lade_code_t
s_check_rate(const lade_submission_t *submission, const msgpack_object *spec, lade_error_t *error)
{
    const msgpack_object *rate = lade_wire_find(spec, "bytes_per_s");
    bool download = submission->kind_len == strlen("download") &&
                    memcmp(submission->kind, "download", strlen("download")) == 0;
    if (!download || !rate || rate->type == MSGPACK_OBJECT_NIL ||
        (rate->type == MSGPACK_OBJECT_POSITIVE_INTEGER && rate->via.u64 <= LADE_JOB_MAX_RATE))
        return LADE_OK;
    return lade_error_set(error, LADE_VALUE_ERROR,
                          "bytes_per_s: how many bytes a second may be read; 0: any number");
}

// A child has the ceiling of its parent's AWAIT, so that a full queue can empty itself.
static lade_code_t
s_check_room(const lade_jobs_t *self, const lade_submission_t *submission, lade_error_t *error)
{
    size_t count = lade_jobs_count(self);
    if (!submission->parent && count >= (size_t)self->broker->config->max_queue)
        return lade_error_set(error, LADE_QUEUE_FULL,
                              "%zu jobs are not ended yet, broker.max_queue allows %" PRId64, count,
                              self->broker->config->max_queue);
    return LADE_OK;
}

static void
s_add_gate(lade_job_t *job, const char *name, size_t len)
{
    for (size_t i = 0; i < job->gate_count; i++)
        if (strlen(job->gate_names[i]) == len && memcmp(job->gate_names[i], name, len) == 0)
            return;
    job->gate_names = realloc(job->gate_names, (job->gate_count + 1) * sizeof *job->gate_names);
    if (!job->gate_names)
        abort();
    job->gate_names[job->gate_count] = NULL;
    lade_job_set_text(&job->gate_names[job->gate_count++], name, len);
}

// The gate of a URL's host, in lower case, without user and port.
static void
s_add_host_gate(lade_job_t *job)
{
    static const char *const schemes[] = {"http://", "https://"}; // other sources have no host
    const char *host = NULL;
    for (size_t i = 0; job->source && i < 2; i++)
        if (strncasecmp(job->source, schemes[i], strlen(schemes[i])) == 0)
            host = job->source + strlen(schemes[i]);
    if (!host)
        return;
    size_t len = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', len);
    if (at) {
        len -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    const char *colon = len && *host == '[' ? memchr(host, ']', len) : host;
    colon = colon ? memchr(colon, ':', len - (size_t)(colon - host)) : NULL;
    if (colon)
        len = (size_t)(colon - host);
    char name[LADE_BROKER_MAX_NAME + 1];
    int name_len = snprintf(name, sizeof name, "host:%.*s", (int)len, host);
    if (len == 0 || name_len >= (int)sizeof name)
        return;
    for (char *letter = name; *letter; letter++)
        *letter = (char)tolower((unsigned char)*letter);
    s_add_gate(job, name, strlen(name));
}

// A list of files may be long: its digest stands for it.
static void
s_put_digest(const msgpack_object *files, lade_buf_t *key)
{
    if (!files || files->type != MSGPACK_OBJECT_ARRAY)
        return;
    lade_buf_t packed = LADE_BUF(SIZE_MAX / 2);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    lade_put_object(&packed, files);
    if (!EVP_Digest(packed.data, packed.len, digest, &len, EVP_sha256(), NULL))
        abort();
    lade_put_raw(key, (const char *)digest, len);
    lade_buf_free(&packed);
}

// What makes two jobs that are not ended the same one: the source of an install or of what is
// fetched for the cache, a download's source, destination and files. A dry run is no install.
static void
s_set_equal(lade_job_t *job, const msgpack_object *spec)
{
    bool download = strcmp(job->kind->name, "download") == 0;
    if (!job->source || job->parent ||
        (!download && strcmp(job->kind->name, "install") != 0 &&
         strcmp(job->kind->name, "cache") != 0) ||
        lade_wire_bool(spec, "dry_run", false))
        return;
    lade_buf_t key = LADE_BUF(SIZE_MAX / 2);
    lade_put_raw(&key, job->kind->name, strlen(job->kind->name) + 1);
    lade_put_raw(&key, job->source, strlen(job->source) + 1);
    static const char *const parts[] = {"destination", "destdir", "filename"};
    for (size_t i = 0; download && i < 3; i++) {
        const char *text;
        size_t len;
        if (lade_wire_text(spec, parts[i], &text, &len)) {
            lade_put_raw(&key, text, len);
            lade_put_byte(&key, i == 1 ? '/' : 0); // destdir and filename are one destination
        }
    }
    if (download)
        s_put_digest(lade_wire_find(spec, "files"), &key);
    job->equal = (lade_blob_t){key.data, key.len};
}

static lade_job_t *
s_make(lade_jobs_t *self, lade_submission_t *submission, const msgpack_object *spec,
       lade_queue_t *queue)
{
    lade_job_t *job = lade_job_new();
    job->kind = queue->kind;
    job->queue = queue;
    queue->jobs++;
    job->priority = submission->priority;
    job->parent = submission->parent;
    job->vital = submission->vital;
    job->submitted = self->broker->now;
    if (submission->source)
        lade_job_set_text(&job->source, submission->source, submission->source_len);
    if (submission->token)
        lade_job_set_text(&job->token, submission->token, submission->token_len);
    if (submission->requires)
        lade_blob_set_object(&job->requires, submission->requires);
    job->bytes_per_s = lade_job_rate_in(spec);
    const msgpack_object *gates = submission->gates;
    for (uint32_t i = 0; gates && gates->type == MSGPACK_OBJECT_ARRAY && i < gates->via.array.size;
         i++)
        s_add_gate(job, gates->via.array.ptr[i].via.str.ptr, gates->via.array.ptr[i].via.str.size);
    // The parts of a job of several files are at the gates of their hosts, not the job.
    if (strcmp(job->kind->name, "download") == 0 && !lade_wire_find(spec, "files"))
        s_add_host_gate(job);
    s_set_equal(job, spec);
    return job;
}

// The spec of a job that is really made: secrets stay outside of it.
static lade_code_t
s_take_spec(lade_jobs_t *self, lade_job_t *job, lade_submission_t *submission,
            const msgpack_object *spec, lade_error_t *error)
{
    job->secret = spec && lade_secrets_named(spec);
    if (job->secret)
        return lade_secrets_take_out(self->broker->secrets, spec, &job->spec, error);
    if (submission->packed_spec.len) {
        job->spec = submission->packed_spec;
        submission->packed_spec = (lade_blob_t){0};
    } else {
        lade_blob_set_object(&job->spec, submission->spec);
    }
    return LADE_OK;
}

// The key of jobs_by_source without the id: kind, NUL, source, NUL.
static size_t
s_source_key(const char *kind, const char *source, char *key)
{
    size_t len = strlen(kind) + 1;
    memcpy(key, kind, len);
    len += lade_store_key(source, strlen(source), S_SOURCE_KEY, key + len);
    key[len++] = '\0';
    return len;
}

// Errors of these writes stay with the batch, as those of lade_jobs_write.
static void
s_index(lade_jobs_t *self, const lade_job_t *job)
{
    lade_store_t *store = self->broker->store;
    uint64_t id = htobe64(job->id), parent = htobe64(job->parent);
    char key[LADE_STORE_MAX_KEY];
    if (job->token)
        lade_store_put(store, LADE_DB_JOBS_BY_TOKEN, job->token, strlen(job->token), &id, sizeof id,
                       false, NULL);
    if (job->source) {
        size_t len = s_source_key(job->kind->name, job->source, key);
        memcpy(key + len, &id, sizeof id);
        lade_store_put(store, LADE_DB_JOBS_BY_SOURCE, key, len + sizeof id, "", 0, false, NULL);
    }
    if (job->parent) {
        memcpy(key, &parent, sizeof parent);
        memcpy(key + sizeof parent, &id, sizeof id);
        lade_store_put(store, LADE_DB_JOBS_BY_PARENT, key, 2 * sizeof id, "", 0, false, NULL);
    }
}

void
lade_jobs_enter(lade_jobs_t *self, lade_job_t *job)
{
    job->live = true;
    lade_map_put(self->live, &job->id, sizeof job->id, job);
    if (job->equal.len && !lade_map_get(self->equals, job->equal.data, job->equal.len))
        lade_map_put(self->equals, job->equal.data, job->equal.len, job);
}

static lade_code_t
s_find_token(lade_jobs_t *self, const lade_submission_t *submission, lade_job_t **job_p)
{
    lade_bytes_t found;
    uint64_t id;
    if (!submission->token || submission->token_len == 0 ||
        lade_store_get(self->broker->store, LADE_DB_JOBS_BY_TOKEN, submission->token,
                       submission->token_len, &found, NULL) ||
        found.len != sizeof id)
        return LADE_NOT_FOUND;
    memcpy(&id, found.data, sizeof id);
    return lade_jobs_get(self, be64toh(id), job_p, NULL);
}

static lade_code_t
s_submit(lade_jobs_t *self, lade_submission_t *submission, const msgpack_object *spec,
         lade_job_t **job_p, lade_error_t *error)
{
    lade_code_t code = s_check(self, submission, error);
    if (!code)
        code = s_check_rate(submission, spec, error);
    if (code)
        return code;
    if (submission->token && s_find_token(self, submission, job_p) == LADE_OK)
        return LADE_OK;
    lade_kind_t *kind = lade_jobs_need_kind(self, submission->kind, submission->kind_len);
    lade_queue_t *queue;
    code = lade_jobs_need_queue(self, kind, submission->requires, &queue, error);
    if (code)
        return code;
    lade_job_t *job = s_make(self, submission, spec, queue);
    *job_p = job->equal.len ? lade_map_get(self->equals, job->equal.data, job->equal.len) : NULL;
    code = *job_p ? LADE_OK : s_check_room(self, submission, error);
    if (!code && !*job_p)
        code = s_take_spec(self, job, submission, spec, error);
    if (code || *job_p) {
        lade_jobs_leave_queue(self, job);
        lade_job_destroy(&job);
        return code;
    }
    job->id = self->next_id++;
    job->fresh = true;
    s_count(self, job, LADE_JOB_IDLE, 1);
    lade_jobs_enter(self, job);
    s_index(self, job);
    self->broker->metrics.jobs_submitted++;
    if (submission->idle) {
        job->shown = lade_surface_shown(job);
        lade_jobs_touch(self, job);
    } else {
        lade_jobs_move(self, job, LADE_JOB_START, NULL);
    }
    *job_p = job;
    return LADE_OK;
}

lade_code_t
lade_jobs_submit(lade_jobs_t *self, lade_submission_t *submission, lade_job_t **job_p,
                 lade_error_t *error)
{
    msgpack_unpacked packed;
    msgpack_unpacked_init(&packed);
    const msgpack_object *spec = submission->spec;
    if (submission->packed_spec.len &&
        msgpack_unpack_next(&packed, submission->packed_spec.data, submission->packed_spec.len,
                            NULL) == MSGPACK_UNPACK_SUCCESS)
        spec = &packed.data;
    lade_code_t code = s_submit(self, submission, spec, job_p, error);
    msgpack_unpacked_destroy(&packed);
    if (submission->packed_spec.len) // not taken over: it may hold a secret
        explicit_bzero(submission->packed_spec.data, submission->packed_spec.len);
    lade_blob_free(&submission->packed_spec);
    return code;
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
        code = lade_job_read(stored.data, stored.len, s_kind_of, self, job_p, error);
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
        size_t len = s_source_key(filter->kind->name, filter->source, key);
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

static void
s_free_list(lade_job_list_t *list, bool destroy)
{
    for (size_t i = 0; destroy && i < list->len; i++)
        lade_job_destroy(&list->items[i]);
    list->len = 0;
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

// Running jobs of the broker's earlier life whose worker did not come back.
static void
s_end_takeover(lade_jobs_t *self)
{
    self->takeover_ms = INT64_MAX;
    lade_job_list_t lost = {0};
    size_t at = 0;
    for (lade_job_t *job; (job = lade_map_next(self->live, &at));)
        if (job->status == LADE_JOB_RUNNING && !job->holder)
            lade_job_list_add(&lost, job);
    for (size_t i = 0; i < lost.len; i++) {
        lade_jobs_move(self, lost.items[i], LADE_JOB_BACK, NULL);
        lade_surface_tell_requeued(self->broker, lost.items[i],
                                   "its worker did not come back after the broker's restart");
    }
    free(lost.items);
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
// The keyspace

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
        size_t len = s_source_key(job->kind->name, job->source, key);
        memcpy(key + len, &ids[1], sizeof ids[1]);
        lade_store_del(store, LADE_DB_JOBS_BY_SOURCE, key, len + sizeof ids[1], NULL);
    }
    if (job->secret)
        lade_secrets_count(self->broker->secrets, job->spec.data, job->spec.len, -1);
    lade_secrets_count(self->broker->secrets, job->state.data, job->state.len, -1);
    s_count(self, job, job->status, -1);
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
    s_free_list(&self->borrowed, true);
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
        lade_job_read(value.data, value.len, s_kind_of, self, &job, &error) == LADE_OK)
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
    if (lade_job_read(value.data, value.len, s_kind_of, self->jobs, &job, NULL))
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

static void
s_forget(lade_jobs_t *self)
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
    s_free_list(&self->borrowed, true);
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
        s_set_equal(job, has_spec ? &spec.data : NULL);
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
    if (job->status == LADE_JOB_RUNNING) {
        lade_shares_begin(self->broker->shares, job);
        self->takeover_ms = self->broker->mono_ms + self->broker->lease_ms;
    }
}

lade_code_t
lade_jobs_reload(lade_jobs_t *self, lade_error_t *error)
{
    s_forget(self);
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

void
lade_jobs_destroy(lade_jobs_t **self_p)
{
    lade_jobs_t *self = *self_p;
    if (!self)
        return;
    s_forget(self);
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
