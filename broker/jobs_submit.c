// Submitting: what is refused, what makes two jobs the same one, and the job that is made.
#include "broker/jobs_private.h"
#include "broker/packer.h"
#include "broker/secrets.h"
#include "broker/surface.h"
#include "common/wire.h"

#include <czmq.h>
#include <openssl/evp.h>

// ---------------------------------------------------------------------------------------------------
// Checks

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

// ---------------------------------------------------------------------------------------------------
// Making a job

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

// A list of files may be long, and so may a record: its digest stands for it.
static void
s_put_digest(const msgpack_object *value, msgpack_object_type type, lade_buf_t *key)
{
    if (!value || value->type != type)
        return;
    lade_buf_t packed = LADE_BUF(SIZE_MAX / 2);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    lade_put_object(&packed, value);
    if (!EVP_Digest(packed.data, packed.len, digest, &len, EVP_sha256(), NULL))
        abort();
    lade_put_raw(key, (const char *)digest, len);
    lade_buf_free(&packed);
}

void
lade_jobs_set_equal(lade_job_t *job, const msgpack_object *spec)
{
    bool download = strcmp(job->kind->name, "download") == 0;
    bool convert = strcmp(job->kind->name, "convert") == 0;
    if (!job->source || job->parent ||
        (!download && !convert && strcmp(job->kind->name, "install") != 0 &&
         strcmp(job->kind->name, "cache") != 0) ||
        lade_wire_bool(spec, "dry_run", false) || (convert && lade_wire_find(spec, "dest")))
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
        s_put_digest(lade_wire_find(spec, "files"), MSGPACK_OBJECT_ARRAY, &key);
    if (convert) // of the record as it is now
        s_put_digest(lade_wire_find(spec, "record"), MSGPACK_OBJECT_MAP, &key);
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
    lade_jobs_set_equal(job, spec);
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

// ---------------------------------------------------------------------------------------------------
// Submitting

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
    lade_jobs_tally(self, job, LADE_JOB_IDLE, 1);
    lade_jobs_enter(self, job);
    lade_jobs_index(self, job);
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
