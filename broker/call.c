// Requests: taken apart once, here; handlers begin with their own work.
#include "broker/call.h"

#include "broker/effects.h"
#include "broker/outbox.h"
#include "broker/packer.h"
#include "broker/surface.h"
#include "common/wire.h"

#include <czmq.h>

enum {
    S_MAX_ID = 1024,         // bytes of a request's id
    S_MAX_ANSWER = 12 << 20, // bytes of a list; more has to be asked for with offset
    S_DEFAULT_LIMIT = 1000,
};

// ---------------------------------------------------------------------------------------------------
// Dispatching

static const lade_service_t *
s_service(const char *name, size_t len)
{
    for (size_t i = 0; lade_services[i]; i++)
        if (strlen(lade_services[i]->name) == len && memcmp(lade_services[i]->name, name, len) == 0)
            return lade_services[i];
    return NULL;
}

// What an argument is, in every op that takes it. A wrong one that counted as missing could do more
// than was meant: purge every kind instead of one.
enum { S_TEXT = 1, S_INT = 2, S_REAL = 4, S_BOOL = 8, S_MAP = 16, S_ARRAY = 32 };
static const struct {
    const char *name;
    unsigned types;
} s_args[] = {
    // clang-format off
    {"access_token", S_TEXT},   {"all", S_BOOL},      {"base", S_TEXT},      {"base_model", S_TEXT},
    {"bytes_per_s", S_INT},     {"closed_for_s", S_REAL}, {"config", S_MAP},    {"context", S_MAP},    {"destdir", S_TEXT},
    {"destination", S_TEXT},    {"dry_run", S_BOOL},  {"each", S_BOOL},      {"fix", S_BOOL},  {"filename", S_TEXT},  {"files", S_ARRAY},
    {"force", S_BOOL},          {"preserve_partial_downloads", S_BOOL},
    {"format", S_TEXT},         {"gate", S_TEXT},     {"gates", S_ARRAY},    {"id", S_INT | S_TEXT},
    {"ids", S_ARRAY},           {"inplace", S_BOOL},  {"job", S_MAP | S_INT},        {"key", S_TEXT},
    {"kind", S_TEXT},           {"lease", S_TEXT},    {"limit", S_INT},      {"lock", S_BOOL},
    {"model_format", S_TEXT},   {"model_type", S_TEXT}, {"name", S_TEXT},    {"offset", S_INT},
    {"overwrite", S_BOOL},      {"models", S_ARRAY},   {"on_conflict", S_TEXT},
    {"parent", S_INT},          {"partial", S_BOOL},  {"path", S_TEXT},      {"pid", S_INT},
    {"prefixes", S_ARRAY},      {"priority", S_INT},  {"requires", S_MAP},   {"seq", S_INT},
    {"scan_dir", S_TEXT},       {"install", S_BOOL},  {"unregister", S_BOOL}, {"keys", S_ARRAY},   {"record", S_BOOL},
    {"sha256", S_TEXT},         {"size", S_INT},      {"source", S_TEXT | S_MAP | S_ARRAY},
    {"spec", S_MAP},            {"start", S_BOOL},    {"status", S_TEXT},    {"submodel", S_TEXT},
    {"tags", S_ARRAY},          {"timeout_s", S_REAL}, {"token", S_TEXT},    {"ttl_s", S_REAL},
    {"type", S_TEXT},           {"url", S_TEXT},      {"wait", S_BOOL},
    {"by_source", S_BOOL},      {"move", S_BOOL},     {"on_equal", S_TEXT},
    {"allow_unsafe", S_TEXT},   {"device", S_TEXT},   {"dtype", S_TEXT},     {"layout", S_TEXT},
    // clang-format on
};
enum { S_ARGS = sizeof s_args / sizeof *s_args };
#define S_BY_NAME "metadata" // the one op whose id is no job's

static unsigned
s_types(const msgpack_object *value)
{
    switch (value->type) {
    case MSGPACK_OBJECT_NIL:
        return ~0u; // the same as not given
    case MSGPACK_OBJECT_BOOLEAN:
        return S_BOOL;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return value->via.u64 <= INT64_MAX ? S_INT | S_REAL : S_REAL;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return S_INT | S_REAL;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return S_REAL;
    case MSGPACK_OBJECT_STR:
        return S_TEXT;
    case MSGPACK_OBJECT_ARRAY:
        return S_ARRAY;
    case MSGPACK_OBJECT_MAP:
        return S_MAP;
    default:
        return 0;
    }
}

static lade_code_t
s_refuse_type(const char *name, unsigned types, lade_error_t *error)
{
    static const char *const words[] = {"text",          "a whole number", "a number",
                                        "true or false", "a map",          "an array"};
    char wanted[64] = "";
    for (size_t i = 0, len = 0; i < sizeof words / sizeof *words; i++)
        if (types & 1u << i)
            len += (size_t)snprintf(wanted + len, sizeof wanted - len, "%s%s", len ? " or " : "",
                                    words[i]);
    return lade_error_set(error, LADE_VALUE_ERROR, "%s: has to be %s", name, wanted);
}

lade_code_t
lade_call_check_args(const msgpack_object *args, lade_error_t *error)
{
    for (uint32_t i = 0; args && i < args->via.map.size; i++) {
        const msgpack_object_kv *pair = &args->via.map.ptr[i];
        if (pair->key.type != MSGPACK_OBJECT_STR)
            continue;
        for (size_t a = 0; a < S_ARGS; a++)
            if (strlen(s_args[a].name) == pair->key.via.str.size &&
                memcmp(s_args[a].name, pair->key.via.str.ptr, pair->key.via.str.size) == 0 &&
                !(s_args[a].types & s_types(&pair->val)))
                return s_refuse_type(s_args[a].name, s_args[a].types, error);
    }
    return LADE_OK;
}

static lade_code_t
s_run(lade_call_t *call, const lade_service_t *service, const msgpack_object *body,
      lade_error_t *error)
{
    const char *op;
    size_t len;
    const msgpack_object *args = lade_wire_find(body, "args");
    if (args && args->type != MSGPACK_OBJECT_MAP && args->type != MSGPACK_OBJECT_NIL)
        return lade_error_set(error, LADE_BAD_REQUEST, "args: a map");
    call->args = args && args->type == MSGPACK_OBJECT_MAP ? args : NULL;
    if (lade_call_check_args(call->args, error))
        return error->code;
    if (!lade_wire_text(body, "op", &op, &len))
        return lade_error_set(error, LADE_BAD_REQUEST, "the request names no op");
    const msgpack_object *id = call->args ? lade_wire_find(call->args, "id") : NULL;
    bool named = len == strlen(S_BY_NAME) && memcmp(op, S_BY_NAME, len) == 0;
    if (id && id->type == MSGPACK_OBJECT_STR && !named)
        return s_refuse_type("id", S_INT, error);
    for (const lade_op_t *at = service->ops; at->op; at++)
        if (strlen(at->op) == len && memcmp(at->op, op, len) == 0)
            return at->handle(call, error);
    return lade_error_set(error, LADE_UNKNOWN_OP, "the service %s has no op '%.*s'", service->name,
                          (int)(len < 64 ? len : 64), op);
}

// Packs the request's id; one that is too large or not to be had is nil.
static lade_code_t
s_take_id(lade_call_t *call, const msgpack_object *body, lade_buf_t *scratch, lade_error_t *error)
{
    const msgpack_object *id = lade_wire_find(body, "id");
    scratch->len = 0;
    if (id)
        lade_put_object(scratch, id);
    if (scratch->len > S_MAX_ID)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "the request's id has %zu bytes, at most %d are repeated",
                              scratch->len, S_MAX_ID);
    call->id = scratch->data;
    call->id_len = scratch->len;
    return LADE_OK;
}

static void
s_ask_mmi(lade_broker_t *broker, const char *peer, size_t peer_len, const char *name, size_t len)
{
    lade_outbox_bare(broker->outbox, peer, peer_len, "mmi.service", strlen("mmi.service"),
                     s_service(name, len) ? "200" : "404");
}

static lade_code_t
s_dispatch(lade_call_t *call, const char *name, size_t name_len, const void *body, size_t len,
           msgpack_zone *zone, lade_buf_t *scratch, lade_error_t *error)
{
    msgpack_object object;
    msgpack_zone_clear(zone);
    lade_code_t code = lade_wire_unpack(body, len, zone, &object, error);
    if (!code)
        code = s_take_id(call, &object, scratch, error); // first, so that every refusal names it
    if (code)
        return code;
    if (len > (size_t)call->broker->config->max_message_bytes)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "the body has %zu bytes, broker.max_message_bytes allows %" PRId64,
                              len, call->broker->config->max_message_bytes);
    const lade_service_t *service = s_service(name, name_len);
    if (!service)
        return lade_error_set(error, LADE_UNKNOWN_SERVICE, "there is no service '%.*s'",
                              (int)(name_len < 64 ? name_len : 64), name);
    call->service = service->name;
    return s_run(call, service, &object, error);
}

void
lade_call_dispatch(lade_broker_t *broker, const char *peer, size_t peer_len, const char *service,
                   size_t service_len, const void *body, size_t len, msgpack_zone *zone,
                   lade_buf_t *scratch)
{
    enum { S_MAX_SERVICE = 255 };
    lade_error_t error;
    lade_call_t call = {.broker = broker, .peer = peer, .peer_len = peer_len};
    broker->metrics.requests++;
    if (service_len > S_MAX_SERVICE)
        service_len = S_MAX_SERVICE;
    if (service_len == strlen("mmi.service") && memcmp(service, "mmi.service", service_len) == 0) {
        s_ask_mmi(broker, peer, peer_len, body, len);
        return;
    }
    if (s_dispatch(&call, service, service_len, body, len, zone, scratch, &error) == LADE_OK)
        return;
    broker->metrics.requests_refused++;
    lade_outbox_refuse(broker->outbox, peer, peer_len, service, service_len, call.id, call.id_len,
                       &error);
}

// ---------------------------------------------------------------------------------------------------
// Answers

lade_buf_t *
lade_call_begin(const lade_call_t *call)
{
    return lade_outbox_answer(call->broker->outbox, call->peer, call->peer_len, call->service,
                              strlen(call->service), LADE_MDP_FINAL, call->id, call->id_len);
}

void
lade_call_end(const lade_call_t *call)
{
    lade_outbox_end(call->broker->outbox);
}

void
lade_call_answer_nil(const lade_call_t *call)
{
    lade_put_nil(lade_call_begin(call));
    lade_call_end(call);
}

void
lade_call_answer_job(const lade_call_t *call, const lade_job_t *job, bool own)
{
    lade_surface_put_job(job, own, lade_call_begin(call));
    lade_call_end(call);
}

lade_code_t
lade_call_answer_json(const lade_call_t *call, json_t *value, lade_error_t *error)
{
    lade_code_t code = lade_wire_from_json(value, lade_call_begin(call), error);
    json_decref(value);
    if (code)
        lade_outbox_cancel(call->broker->outbox);
    else
        lade_call_end(call);
    return code;
}

typedef struct {
    lade_buf_t jobs;
    size_t count;
    bool own;
} s_list_t;

static bool
s_add_job(void *arg, lade_job_t *job)
{
    s_list_t *self = arg;
    lade_surface_put_job(job, self->own, &self->jobs);
    self->count++;
    return self->jobs.len < S_MAX_ANSWER;
}

static lade_code_t
s_put_jobs(lade_jobs_t *jobs, const lade_job_filter_t *filter, bool own, lade_buf_t *buf,
           lade_error_t *error)
{
    s_list_t list = {.jobs = LADE_BUF(SIZE_MAX / 2), .own = own};
    lade_code_t code = lade_jobs_each(jobs, filter, s_add_job, &list, error);
    if (!code) {
        lade_put_array(buf, list.count);
        if (list.count)
            lade_put_raw(buf, list.jobs.data, list.jobs.len);
    }
    lade_buf_free(&list.jobs);
    return code;
}

lade_code_t
lade_call_answer_jobs(const lade_call_t *call, lade_job_filter_t *filter, bool own,
                      lade_error_t *error)
{
    int64_t limit = lade_wire_int(call->args, "limit", S_DEFAULT_LIMIT);
    int64_t offset = lade_wire_int(call->args, "offset", 0);
    if (limit < 0 || limit > LADE_BROKER_MAX_LIST || offset < 0)
        return lade_error_set(error, LADE_VALUE_ERROR, "limit: 0 to %d; offset: not below 0",
                              LADE_BROKER_MAX_LIST);
    filter->limit = (size_t)limit;
    filter->offset = (size_t)offset;
    lade_code_t code = s_put_jobs(call->broker->jobs, filter, own, lade_call_begin(call), error);
    if (code)
        lade_outbox_cancel(call->broker->outbox);
    else
        lade_call_end(call);
    return code;
}

lade_code_t
lade_call_wait(const lade_call_t *call, uint64_t *ids, size_t count, lade_kind_t *kind,
               lade_wait_answer_fn *answer, lade_error_t *error)
{
    lade_wait_t wait = {.service = strdup(call->service),
                        .peer_len = call->peer_len,
                        .ids = ids,
                        .count = count,
                        .kind = kind,
                        .answer = answer,
                        .partial = lade_wire_bool(call->args, "partial", false),
                        .timeout_s = lade_wire_real(call->args, "timeout_s", 0)};
    lade_job_set_text(&wait.peer, call->peer, call->peer_len);
    lade_blob_set(&wait.id, call->id, call->id_len);
    return lade_waits_add(call->broker->waits, &wait, error);
}

lade_code_t
lade_call_answer_named(const lade_call_t *call, const char *kind, lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_call_need_job(call, kind, &job, error);
    if (!code)
        lade_call_answer_job(call, job, kind != NULL);
    return code;
}

lade_code_t
lade_call_wait_named(const lade_call_t *call, const char *kind, lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_call_need_job(call, kind, &job, error);
    if (code)
        return code;
    uint64_t *ids = zmalloc(sizeof *ids);
    ids[0] = job->id;
    return lade_call_wait(call, ids, 1, NULL, lade_call_ended_job, error);
}

// The ids of the jobs to purge: those named, else those of the kind, else all.
static lade_code_t
s_to_purge(const lade_call_t *call, const char *kind, lade_call_ids_t *ids, lade_error_t *error)
{
    const char *name = kind;
    size_t len = kind ? strlen(kind) : 0;
    lade_code_t code = kind ? LADE_OK : lade_call_ids(call, &ids->ids, &ids->count, error);
    if (code || ids->ids)
        return code;
    if (!kind)
        lade_wire_text(call->args, "kind", &name, &len);
    lade_job_filter_t filter = {.kind = name ? lade_jobs_kind(call->broker->jobs, name, len) : NULL,
                                .status = LADE_JOB_STATUS_COUNT,
                                .limit = SIZE_MAX};
    if (name && !filter.kind)
        return LADE_OK; // no job ever was of it
    return lade_jobs_each(call->broker->jobs, &filter, lade_call_add_id, ids, error);
}

static bool
s_purge(lade_jobs_t *jobs, uint64_t id, lade_job_t **job_p)
{
    return lade_jobs_get(jobs, id, job_p, NULL) == LADE_OK && lade_job_ended(*job_p) &&
           lade_jobs_purge(jobs, *job_p, NULL) == LADE_OK;
}

lade_code_t
lade_call_purge(const lade_call_t *call, const char *kind, lade_error_t *error)
{
    lade_call_ids_t ids = {0};
    uint64_t purged = 0;
    lade_jobs_t *jobs = call->broker->jobs;
    bool named = !kind && (lade_wire_find(call->args, "ids") || lade_wire_find(call->args, "id"));
    lade_code_t code = s_to_purge(call, kind, &ids, error);
    for (size_t i = 0; i < ids.count && !code; i++) {
        lade_job_t *job, *part;
        if (!s_purge(jobs, ids.ids[i], &job))
            continue;
        purged++;
        // Who names a job means its parts too; else they are among the others.
        for (size_t c = 0; named && c < job->child_count; c++)
            s_purge(jobs, job->children[c], &part);
    }
    free(ids.ids);
    if (code)
        return code;
    lade_buf_t *buf = lade_call_begin(call);
    lade_put_map(buf, 1);
    LADE_PUT_KEY(buf, "purged");
    lade_put_uint(buf, purged);
    lade_call_end(call);
    return LADE_OK;
}

static bool
s_own(const lade_wait_t *wait)
{
    return strcmp(wait->service, "jobs") != 0;
}

lade_code_t
lade_call_ended_job(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                    lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_jobs_get(broker->jobs, wait->ids[0], &job, error);
    if (!code)
        lade_surface_put_job(job, s_own(wait), buf);
    return code;
}

lade_code_t
lade_call_ended_jobs(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                     lade_error_t *error)
{
    lade_put_array(buf, wait->count);
    for (size_t i = 0; i < wait->count; i++) {
        lade_job_t *job;
        lade_code_t code = lade_jobs_get(broker->jobs, wait->ids[i], &job, error);
        if (code)
            return code;
        lade_surface_put_job(job, s_own(wait), buf);
    }
    return LADE_OK;
}

lade_code_t
lade_call_ended_kind(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                     lade_error_t *error)
{
    lade_job_filter_t filter = {
        .kind = wait->kind, .status = LADE_JOB_STATUS_COUNT, .limit = S_DEFAULT_LIMIT};
    return s_put_jobs(broker->jobs, &filter, s_own(wait), buf, error);
}

lade_code_t
lade_call_del_model(lade_call_t *call, lade_error_t *error)
{
    json_t *removed = NULL;
    char *key;
    lade_code_t code = lade_call_need_text(call, "key", &key, error);
    if (!code)
        code = lade_records_del(call->broker->records, key, &removed, error);
    free(key);
    if (code)
        return code;
    lade_effects_tell(call->broker, "model_record_deleted", removed);
    json_decref(removed);
    lade_call_answer_nil(call);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Arguments

lade_code_t
lade_call_need_text(const lade_call_t *call, const char *key, char **text_p, lade_error_t *error)
{
    *text_p = lade_wire_strdup(call->args, key);
    if (*text_p && **text_p)
        return LADE_OK;
    free(*text_p);
    *text_p = NULL;
    return lade_error_set(error, LADE_VALUE_ERROR, "%s: a text is needed", key);
}

json_t *
lade_call_json(const lade_call_t *call)
{
    json_t *args = call->args ? lade_wire_object_to_json(call->args) : NULL;
    return args ? args : json_object();
}

lade_code_t
lade_call_need_job(const lade_call_t *call, const char *kind, lade_job_t **job_p,
                   lade_error_t *error)
{
    int64_t id = lade_wire_int(call->args, "id", 0);
    if (id <= 0)
        return lade_error_set(error, LADE_VALUE_ERROR, "id: the number of a job is needed");
    lade_code_t code = lade_jobs_get(call->broker->jobs, (uint64_t)id, job_p, error);
    if (!code && kind && strcmp((*job_p)->kind->name, kind) != 0)
        code = lade_error_set(error, LADE_UNKNOWN_JOB_ID, "job %" PRId64 " is no %s but a %s", id,
                              kind, (*job_p)->kind->name);
    return code;
}

lade_code_t
lade_call_ids(const lade_call_t *call, uint64_t **ids_p, size_t *count_p, lade_error_t *error)
{
    const msgpack_object *one = lade_wire_find(call->args, "id"),
                         *many = lade_wire_find(call->args, "ids");
    *ids_p = NULL;
    *count_p = 0;
    if (!one && !many)
        return LADE_OK;
    if (!one && (many->type != MSGPACK_OBJECT_ARRAY || many->via.array.size > LADE_BROKER_MAX_IDS))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "ids: an array of at most %d numbers of jobs", LADE_BROKER_MAX_IDS);
    size_t count = one ? 1 : many->via.array.size;
    const msgpack_object *items = one ? one : many->via.array.ptr;
    *ids_p = zmalloc((count + 1) * sizeof **ids_p);
    for (size_t i = 0; i < count; i++) {
        if (items[i].type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
            free(*ids_p);
            *ids_p = NULL;
            return lade_error_set(error, LADE_VALUE_ERROR, "id, ids: numbers of jobs are needed");
        }
        (*ids_p)[i] = items[i].via.u64;
    }
    *count_p = count;
    return LADE_OK;
}

void
lade_call_copy_members(const msgpack_object *map, const char *const *keys, lade_blob_t *spec)
{
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    size_t pairs = 0;
    for (size_t i = 0; keys[i]; i++)
        pairs += lade_wire_find(map, keys[i]) != NULL;
    lade_put_map(&buf, pairs);
    for (size_t i = 0; keys[i]; i++) {
        const msgpack_object *value = lade_wire_find(map, keys[i]);
        if (!value)
            continue;
        lade_put_str(&buf, keys[i]);
        lade_put_object(&buf, value);
    }
    lade_blob_free(spec);
    *spec = (lade_blob_t){buf.data, buf.len};
}

bool
lade_call_add_id(void *arg, lade_job_t *job)
{
    lade_call_ids_t *self = arg;
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 256;
        self->ids = realloc(self->ids, self->cap * sizeof *self->ids);
        if (!self->ids)
            abort();
    }
    self->ids[self->count++] = job->id;
    return true;
}
