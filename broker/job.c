// One job. The order of the pairs in its packed form begins with kind and status, which
// lade_job_peek relies on.
#include "broker/job.h"

#include "broker/packer.h"
#include "broker/secrets.h"
#include "common/wire.h"

#include <czmq.h>

static const char *const s_statuses[LADE_JOB_STATUS_COUNT] = {
    // clang-format off
    [LADE_JOB_IDLE]      = "idle",
    [LADE_JOB_ENQUEUED]  = "enqueued",
    [LADE_JOB_RUNNING]   = "running",
    [LADE_JOB_WAITING]   = "waiting",
    [LADE_JOB_PAUSED]    = "paused",
    [LADE_JOB_COMPLETED] = "completed",
    [LADE_JOB_ERROR]     = "error",
    [LADE_JOB_CANCELLED] = "cancelled",
    [LADE_JOB_DEAD]      = "dead",
    // clang-format on
};

static const char *const s_triggers[LADE_JOB_TRIGGER_COUNT] = {
    // clang-format off
    [LADE_JOB_START]    = "be started",
    [LADE_JOB_DISPATCH] = "be dispatched",
    [LADE_JOB_FINISH]   = "be completed",
    [LADE_JOB_FAIL]     = "fail",
    [LADE_JOB_AGAIN]    = "be tried again",
    [LADE_JOB_AWAIT]    = "wait for children",
    [LADE_JOB_SAVE]     = "save its state",
    [LADE_JOB_GO_ON]    = "go on",
    [LADE_JOB_PAUSE]    = "be paused",
    [LADE_JOB_CANCEL]   = "be cancelled",
    [LADE_JOB_LOSE]     = "lose its worker",
    [LADE_JOB_DIE]      = "be set aside as dead",
    [LADE_JOB_BACK]     = "be given back",
    [LADE_JOB_RETRY]    = "be retried",
    [LADE_JOB_REAWAIT]  = "be retried",
    // clang-format on
};

#define IN(status) (1u << LADE_JOB_##status)

// A job that was paused while it ran (and perhaps started again since) may still be finished by the
// worker that has not let go of it: what is done is done. The engine sees to it that nobody else
// finishes it.
static const struct {
    unsigned in; // set of statuses
    lade_job_trigger_t on;
    lade_job_status_t then;
} s_steps[] = {
    // clang-format off
    // in                                                       on                 then
    {IN(IDLE) | IN(PAUSED),                                     LADE_JOB_START,    LADE_JOB_ENQUEUED},
    {IN(ENQUEUED),                                              LADE_JOB_DISPATCH, LADE_JOB_RUNNING},
    {IN(RUNNING) | IN(PAUSED) | IN(ENQUEUED),                   LADE_JOB_FINISH,   LADE_JOB_COMPLETED},
    {IN(RUNNING) | IN(PAUSED) | IN(ENQUEUED),                   LADE_JOB_FAIL,     LADE_JOB_ERROR},
    {IN(RUNNING),                                               LADE_JOB_AGAIN,    LADE_JOB_ENQUEUED},
    {IN(RUNNING) | IN(ENQUEUED),                                LADE_JOB_AWAIT,    LADE_JOB_WAITING},
    {IN(RUNNING),                                               LADE_JOB_SAVE,     LADE_JOB_ENQUEUED},
    {IN(WAITING),                                               LADE_JOB_GO_ON,    LADE_JOB_ENQUEUED},
    {IN(IDLE) | IN(ENQUEUED) | IN(RUNNING) | IN(WAITING),       LADE_JOB_PAUSE,    LADE_JOB_PAUSED},
    {IN(IDLE) | IN(ENQUEUED) | IN(RUNNING) | IN(WAITING) | IN(PAUSED),
                                                                LADE_JOB_CANCEL,   LADE_JOB_CANCELLED},
    {IN(RUNNING),                                               LADE_JOB_LOSE,     LADE_JOB_ENQUEUED},
    {IN(RUNNING),                                               LADE_JOB_DIE,      LADE_JOB_DEAD},
    {IN(RUNNING),                                               LADE_JOB_BACK,     LADE_JOB_ENQUEUED},
    {IN(ERROR) | IN(CANCELLED) | IN(DEAD),                      LADE_JOB_RETRY,    LADE_JOB_ENQUEUED},
    {IN(ERROR) | IN(CANCELLED) | IN(DEAD),                      LADE_JOB_REAWAIT,  LADE_JOB_WAITING},
    {IN(PAUSED),                                                LADE_JOB_REAWAIT,  LADE_JOB_WAITING},
    // clang-format on
};

lade_job_t *
lade_job_new(void)
{
    return zmalloc(sizeof(lade_job_t));
}

void
lade_job_destroy(lade_job_t **self_p)
{
    lade_job_t *self = *self_p;
    if (!self)
        return;
    free(self->source);
    lade_blob_free(&self->spec);
    lade_blob_free(&self->state);
    lade_blob_free(&self->ask);
    lade_blob_free(&self->result);
    lade_blob_free(&self->requires);
    lade_blob_free(&self->equal);
    free(self->token);
    free(self->error_type);
    free(self->error);
    free(self->worker_name);
    free(self->children);
    for (size_t i = 0; self->parts && i < self->child_count; i++) {
        free(self->parts[i].source);
        free(self->parts[i].local_path);
    }
    free(self->parts);
    for (size_t i = 0; i < self->gate_count; i++)
        free(self->gate_names[i]);
    free(self->gate_names);
    free(self->at_gate);
    free(self->progress.phase);
    free(self->progress.reason);
    free(self->progress.local_path);
    free(self);
    *self_p = NULL;
}

bool
lade_job_ended(const lade_job_t *self)
{
    return self->status >= LADE_JOB_COMPLETED;
}

const char *
lade_job_status_name(lade_job_status_t status)
{
    return s_statuses[status];
}

lade_job_status_t
lade_job_status_find(const char *name, size_t len)
{
    int status = 0;
    while (status < LADE_JOB_STATUS_COUNT &&
           (strlen(s_statuses[status]) != len || memcmp(s_statuses[status], name, len) != 0))
        status++;
    return (lade_job_status_t)status;
}

lade_code_t
lade_job_next(const lade_job_t *self, lade_job_trigger_t trigger, lade_job_status_t *then_p,
              lade_error_t *error)
{
    for (size_t i = 0; i < sizeof s_steps / sizeof *s_steps; i++)
        if (s_steps[i].on == trigger && s_steps[i].in & 1u << self->status) {
            *then_p = s_steps[i].then;
            return LADE_OK;
        }
    return lade_error_set(error, LADE_VALUE_ERROR, "job %" PRIu64 " is in status %s and cannot %s",
                          self->id, s_statuses[self->status], s_triggers[trigger]);
}

int64_t
lade_job_rate_in(const msgpack_object *map)
{
    int64_t rate = lade_wire_int(map, "bytes_per_s", 0);
    return rate > 0 && rate <= LADE_JOB_MAX_RATE ? rate : 0;
}

// ---------------------------------------------------------------------------------------------------
// Members

void
lade_job_set_text(char **text_p, const char *text, size_t len)
{
    free(*text_p);
    *text_p = NULL;
    if (!text)
        return;
    *text_p = malloc(len + 1);
    if (!*text_p)
        abort();
    memcpy(*text_p, text, len);
    (*text_p)[len] = '\0';
}

void
lade_job_set_phase(lade_job_t *self, const char *phase)
{
    lade_job_set_text(&self->progress.phase, phase, phase ? strlen(phase) : 0);
    lade_job_set_text(&self->progress.reason, NULL, 0);
}

void
lade_blob_set(lade_blob_t *self, const void *data, size_t len)
{
    char *copy = len ? malloc(len) : NULL;
    if (len && !copy)
        abort();
    if (len)
        memcpy(copy, data, len);
    free(self->data);
    *self = (lade_blob_t){copy, len};
}

void
lade_blob_set_object(lade_blob_t *self, const msgpack_object *object)
{
    lade_blob_free(self);
    if (!object || object->type == MSGPACK_OBJECT_NIL)
        return;
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    lade_put_object(&buf, object);
    *self = (lade_blob_t){buf.data, buf.len};
}

void
lade_blob_free(lade_blob_t *self)
{
    free(self->data);
    *self = (lade_blob_t){0};
}

// ---------------------------------------------------------------------------------------------------
// Packing

void
lade_job_put_spec(const lade_job_t *self, lade_buf_t *buf)
{
    if (!self->secret) {
        lade_put_packed(buf, self->spec.data, self->spec.len);
        return;
    }
    msgpack_unpacked spec;
    msgpack_unpacked_init(&spec);
    if (msgpack_unpack_next(&spec, self->spec.data, self->spec.len, NULL) == MSGPACK_UNPACK_SUCCESS)
        lade_secrets_put_hidden(buf, &spec.data);
    else
        lade_put_nil(buf);
    msgpack_unpacked_destroy(&spec);
}

static void
s_put_parts(const lade_job_t *self, lade_buf_t *buf)
{
    lade_put_array(buf, self->child_count);
    for (size_t i = 0; i < self->child_count; i++) {
        const lade_part_t *part = &self->parts[i];
        lade_put_map(buf, 4);
        LADE_PUT_KEY(buf, "source");
        lade_put_str(buf, part->source);
        LADE_PUT_KEY(buf, "local_path");
        lade_put_str(buf, part->local_path);
        LADE_PUT_KEY(buf, "bytes");
        lade_put_int(buf, part->bytes);
        LADE_PUT_KEY(buf, "total_bytes");
        lade_put_int(buf, part->total_bytes);
    }
}

static void
s_put_progress(const lade_job_t *self, lade_buf_t *buf)
{
    bool parts = self->parts && self->child_count;
    lade_put_map(buf, 2 + parts + (self->progress.phase != NULL) + (self->progress.reason != NULL) +
                          (self->progress.local_path != NULL));
    LADE_PUT_KEY(buf, "bytes");
    lade_put_int(buf, self->progress.bytes);
    LADE_PUT_KEY(buf, "total_bytes");
    lade_put_int(buf, self->progress.total_bytes);
    if (self->progress.phase) {
        LADE_PUT_KEY(buf, "phase");
        lade_put_str(buf, self->progress.phase);
    }
    if (self->progress.reason) {
        LADE_PUT_KEY(buf, "reason");
        lade_put_str(buf, self->progress.reason);
    }
    if (self->progress.local_path) {
        LADE_PUT_KEY(buf, "local_path");
        lade_put_str(buf, self->progress.local_path);
    }
    if (parts) {
        LADE_PUT_KEY(buf, "parts");
        s_put_parts(self, buf);
    }
}

static void
s_put_lists(const lade_job_t *self, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "children");
    lade_put_array(buf, self->child_count);
    for (size_t i = 0; i < self->child_count; i++)
        lade_put_uint(buf, self->children[i]);
    LADE_PUT_KEY(buf, "gates");
    lade_put_array(buf, self->gate_count);
    for (size_t i = 0; i < self->gate_count; i++)
        lade_put_str(buf, self->gate_names[i]);
    LADE_PUT_KEY(buf, "requires");
    lade_put_packed(buf, self->requires.data, self->requires.len);
}

static void
s_put_times(const lade_job_t *self, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "not_before");
    lade_put_time(buf, self->not_before);
    LADE_PUT_KEY(buf, "job_submitted");
    lade_put_time(buf, self->submitted);
    LADE_PUT_KEY(buf, "job_started");
    lade_put_time(buf, self->started);
    LADE_PUT_KEY(buf, "job_ended");
    lade_put_time(buf, self->ended);
    LADE_PUT_KEY(buf, "job_sequence");
    lade_put_uint(buf, self->sequence);
}

void
lade_job_put_pairs(const lade_job_t *self, const char *status, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "kind");
    lade_put_str(buf, self->kind->name);
    LADE_PUT_KEY(buf, "status");
    lade_put_str(buf, status);
    LADE_PUT_KEY(buf, "id");
    lade_put_uint(buf, self->id);
    LADE_PUT_KEY(buf, "priority");
    lade_put_int(buf, self->priority);
    LADE_PUT_KEY(buf, "source");
    lade_put_str(buf, self->source);
    LADE_PUT_KEY(buf, "spec");
    lade_job_put_spec(self, buf);
    LADE_PUT_KEY(buf, "attempt");
    lade_put_int(buf, self->attempt);
    LADE_PUT_KEY(buf, "stage");
    lade_put_int(buf, self->stage);
    LADE_PUT_KEY(buf, "failures");
    lade_put_int(buf, self->failures);
    LADE_PUT_KEY(buf, "deaths");
    lade_put_int(buf, self->deaths);
    LADE_PUT_KEY(buf, "progress");
    s_put_progress(self, buf);
    LADE_PUT_KEY(buf, "result");
    lade_put_packed(buf, self->result.data, self->result.len);
    LADE_PUT_KEY(buf, "error_type");
    lade_put_str(buf, self->error_type);
    LADE_PUT_KEY(buf, "error");
    lade_put_str(buf, self->error);
    LADE_PUT_KEY(buf, "parent");
    if (self->parent)
        lade_put_uint(buf, self->parent);
    else
        lade_put_nil(buf);
    s_put_lists(self, buf);
    LADE_PUT_KEY(buf, "token");
    lade_put_str(buf, self->token);
    LADE_PUT_KEY(buf, "worker");
    lade_put_str(buf, self->worker_name);
    LADE_PUT_KEY(buf, "connections");
    lade_put_int(buf, self->connections);
    LADE_PUT_KEY(buf, "bytes_per_s");
    lade_put_int(buf, self->bytes_per_s);
    s_put_times(self, buf);
}

// What is not there is not stored: a job is written twice at least, and most of its fields are
// empty.
typedef struct {
    lade_buf_t *buf;
    size_t pairs;
} s_sparse_t;

static void
s_put_key(s_sparse_t *self, const char *key)
{
    lade_put_str(self->buf, key);
    self->pairs++;
}

static void
s_put_some_text(s_sparse_t *self, const char *key, const char *text)
{
    if (!text)
        return;
    s_put_key(self, key);
    lade_put_str(self->buf, text);
}

static void
s_put_some_int(s_sparse_t *self, const char *key, int64_t value)
{
    if (!value)
        return;
    s_put_key(self, key);
    lade_put_int(self->buf, value);
}

static void
s_put_some_time(s_sparse_t *self, const char *key, double when)
{
    if (!(when > 0))
        return;
    s_put_key(self, key);
    lade_put_real(self->buf, when);
}

static void
s_put_some_blob(s_sparse_t *self, const char *key, const lade_blob_t *blob)
{
    if (!blob->len)
        return;
    s_put_key(self, key);
    lade_put_raw(self->buf, blob->data, blob->len);
}

static void
s_put_some_lists(s_sparse_t *self, const lade_job_t *job)
{
    if (job->child_count) {
        s_put_key(self, "children");
        lade_put_array(self->buf, job->child_count);
        for (size_t i = 0; i < job->child_count; i++)
            lade_put_uint(self->buf, job->children[i]);
    }
    if (job->gate_count) {
        s_put_key(self, "gates");
        lade_put_array(self->buf, job->gate_count);
        for (size_t i = 0; i < job->gate_count; i++)
            lade_put_str(self->buf, job->gate_names[i]);
    }
    if (job->child_count || job->progress.bytes || job->progress.total_bytes ||
        job->progress.phase || job->progress.local_path) {
        s_put_key(self, "progress");
        s_put_progress(job, self->buf);
    }
}

void
lade_job_put_stored(const lade_job_t *self, lade_buf_t *buf)
{
    s_sparse_t sparse = {.buf = buf};
    size_t head = buf->len;
    lade_put_typed(buf, 0xde, 0, 2); // a map of a number of pairs that is known at the end
    s_put_some_text(&sparse, "kind", self->kind->name);
    s_put_some_text(&sparse, "status", s_statuses[self->status]);
    s_put_some_int(&sparse, "id", (int64_t)self->id);
    s_put_key(&sparse, "priority");
    lade_put_int(buf, self->priority);
    s_put_some_text(&sparse, "source", self->source);
    s_put_some_blob(&sparse, "spec", &self->spec);
    s_put_some_int(&sparse, "attempt", self->attempt);
    s_put_some_int(&sparse, "stage", self->stage);
    s_put_some_int(&sparse, "failures", self->failures);
    s_put_some_int(&sparse, "deaths", self->deaths);
    s_put_some_blob(&sparse, "result", &self->result);
    s_put_some_text(&sparse, "error_type", self->error_type);
    s_put_some_text(&sparse, "error", self->error);
    s_put_some_int(&sparse, "parent", (int64_t)self->parent);
    s_put_some_int(&sparse, "vital", self->vital);
    s_put_some_lists(&sparse, self);
    s_put_some_blob(&sparse, "requires", &self->requires);
    s_put_some_text(&sparse, "token", self->token);
    s_put_some_text(&sparse, "worker", self->worker_name);
    s_put_some_text(&sparse, "at_gate", self->at_gate);
    if (self->rate_set) {
        s_put_key(&sparse, "bytes_per_s");
        lade_put_int(buf, self->bytes_per_s);
    }
    s_put_some_int(&sparse, "preserve", self->preserve);
    s_put_some_time(&sparse, "not_before", self->not_before);
    s_put_some_time(&sparse, "job_submitted", self->submitted);
    s_put_some_time(&sparse, "job_started", self->started);
    s_put_some_time(&sparse, "job_ended", self->ended);
    s_put_some_int(&sparse, "job_sequence", (int64_t)self->sequence);
    s_put_some_blob(&sparse, "state", &self->state);
    s_put_some_blob(&sparse, "ask", &self->ask);
    buf->data[head + 1] = (char)(sparse.pairs >> 8);
    buf->data[head + 2] = (char)sparse.pairs;
}

// ---------------------------------------------------------------------------------------------------
// Unpacking

static void
s_read_text(char **text_p, const msgpack_object *map, const char *key)
{
    const char *text;
    size_t len;
    if (lade_wire_text(map, key, &text, &len))
        lade_job_set_text(text_p, text, len);
}

static void
s_read_children(lade_job_t *self, const msgpack_object *map)
{
    const msgpack_object *ids = lade_wire_find(map, "children");
    const msgpack_object *parts = lade_wire_find(lade_wire_find(map, "progress"), "parts");
    if (!ids || ids->type != MSGPACK_OBJECT_ARRAY || ids->via.array.size == 0)
        return;
    self->child_count = ids->via.array.size;
    self->children = zmalloc(self->child_count * sizeof *self->children);
    self->parts = zmalloc(self->child_count * sizeof *self->parts);
    for (size_t i = 0; i < self->child_count; i++) {
        const msgpack_object *id = &ids->via.array.ptr[i];
        self->children[i] = id->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? id->via.u64 : 0;
        if (!parts || parts->type != MSGPACK_OBJECT_ARRAY || i >= parts->via.array.size)
            continue;
        const msgpack_object *part = &parts->via.array.ptr[i];
        s_read_text(&self->parts[i].source, part, "source");
        s_read_text(&self->parts[i].local_path, part, "local_path");
        self->parts[i].bytes = lade_wire_int(part, "bytes", 0);
        self->parts[i].total_bytes = lade_wire_int(part, "total_bytes", 0);
    }
}

static void
s_read_gates(lade_job_t *self, const msgpack_object *map)
{
    const msgpack_object *gates = lade_wire_find(map, "gates");
    if (!gates || gates->type != MSGPACK_OBJECT_ARRAY || gates->via.array.size == 0)
        return;
    self->gate_names = zmalloc(gates->via.array.size * sizeof *self->gate_names);
    for (uint32_t i = 0; i < gates->via.array.size && i < LADE_BROKER_MAX_GATES; i++) {
        const msgpack_object *gate = &gates->via.array.ptr[i];
        if (gate->type == MSGPACK_OBJECT_STR)
            lade_job_set_text(&self->gate_names[self->gate_count++], gate->via.str.ptr,
                              gate->via.str.size);
    }
}

static void
s_read_fields(lade_job_t *self, const msgpack_object *map)
{
    const msgpack_object *spec = lade_wire_find(map, "spec");
    const msgpack_object *progress = lade_wire_find(map, "progress");
    self->priority = lade_wire_int(map, "priority", 10);
    s_read_text(&self->source, map, "source");
    lade_blob_set_object(&self->spec, spec);
    self->rate_set = lade_wire_find(map, "bytes_per_s") != NULL;
    self->bytes_per_s = lade_job_rate_in(self->rate_set ? map : spec);
    int64_t preserve = lade_wire_int(map, "preserve", 0);
    self->preserve = (int8_t)(preserve > 0 ? 1 : preserve < 0 ? -1 : 0);
    self->secret = spec && lade_secrets_named(spec);
    lade_blob_set_object(&self->state, lade_wire_find(map, "state"));
    lade_blob_set_object(&self->ask, lade_wire_find(map, "ask"));
    lade_blob_set_object(&self->result, lade_wire_find(map, "result"));
    lade_blob_set_object(&self->requires, lade_wire_find(map, "requires"));
    s_read_text(&self->token, map, "token");
    self->attempt = lade_wire_int(map, "attempt", 0);
    self->stage = lade_wire_int(map, "stage", 0);
    self->failures = lade_wire_int(map, "failures", 0);
    self->deaths = lade_wire_int(map, "deaths", 0);
    self->sequence = (uint64_t)lade_wire_int(map, "job_sequence", 0);
    self->submitted = lade_wire_real(map, "job_submitted", 0);
    self->started = lade_wire_real(map, "job_started", 0);
    self->ended = lade_wire_real(map, "job_ended", 0);
    self->not_before = lade_wire_real(map, "not_before", 0);
    s_read_text(&self->error_type, map, "error_type");
    s_read_text(&self->error, map, "error");
    s_read_text(&self->worker_name, map, "worker");
    s_read_text(&self->at_gate, map, "at_gate");
    self->parent = (uint64_t)lade_wire_int(map, "parent", 0);
    self->vital = lade_wire_int(map, "vital", 0);
    self->progress.bytes = lade_wire_int(progress, "bytes", 0);
    self->progress.total_bytes = lade_wire_int(progress, "total_bytes", 0);
    s_read_text(&self->progress.phase, progress, "phase");
    s_read_text(&self->progress.reason, progress, "reason");
    s_read_text(&self->progress.local_path, progress, "local_path");
    s_read_children(self, map);
    s_read_gates(self, map);
}

lade_code_t
lade_job_read(const void *bytes, size_t len, lade_kind_t *(*kind_of)(void *arg, const char *name),
              void *arg, lade_job_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    msgpack_zone zone;
    msgpack_object map;
    size_t at = 0;
    if (!msgpack_zone_init(&zone, 4096))
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to read a job");
    char *kind = NULL;
    lade_job_status_t status = LADE_JOB_STATUS_COUNT;
    if (msgpack_unpack(bytes, len, &at, &zone, &map) >= 0) {
        const char *text;
        size_t text_len;
        kind = lade_wire_strdup(&map, "kind");
        if (lade_wire_text(&map, "status", &text, &text_len))
            status = lade_job_status_find(text, text_len);
    }
    if (kind && status < LADE_JOB_STATUS_COUNT) {
        *self_p = lade_job_new();
        (*self_p)->id = (uint64_t)lade_wire_int(&map, "id", 0);
        (*self_p)->status = status;
        (*self_p)->kind = kind_of(arg, kind);
        s_read_fields(*self_p, &map);
    }
    free(kind);
    msgpack_zone_destroy(&zone);
    if (!*self_p)
        return lade_error_set(error, LADE_CORRUPT, "a stored job of %zu bytes cannot be read", len);
    return LADE_OK;
}

// A short text at *at; false if there is none.
static bool
s_peek_text(const uint8_t *bytes, size_t len, size_t *at, const char **text, size_t *text_len)
{
    size_t head = 1;
    if (*at + 2 > len)
        return false;
    if ((bytes[*at] & 0xe0) == 0xa0) {
        *text_len = bytes[*at] & 0x1f;
    } else if (bytes[*at] == 0xd9) {
        *text_len = bytes[*at + 1];
        head = 2;
    } else {
        return false;
    }
    if (*text_len > len - *at - head)
        return false;
    *text = (const char *)bytes + *at + head;
    *at += head + *text_len;
    return true;
}

bool
lade_job_peek(const void *bytes, size_t len, const char **kind, size_t *kind_len,
              lade_job_status_t *status)
{
    size_t at = 3, text_len; // the map's head
    const char *text;
    if (!s_peek_text(bytes, len, &at, &text, &text_len) ||
        !s_peek_text(bytes, len, &at, kind, kind_len) ||
        !s_peek_text(bytes, len, &at, &text, &text_len) ||
        !s_peek_text(bytes, len, &at, &text, &text_len))
        return false;
    *status = lade_job_status_find(text, text_len);
    return *status < LADE_JOB_STATUS_COUNT;
}
