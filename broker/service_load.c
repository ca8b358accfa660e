// load: models into memory. A load is a job whose result is its answer, so every call here but
// cache_stats waits.
#include "broker/call.h"
#include "broker/packer.h"
#include "broker/workers.h"
#include "common/record.h"
#include "common/want.h"
#include "common/wire.h"

#include <czmq.h>

// ---------------------------------------------------------------------------------------------------
// Answers

static int64_t
s_unloaded(const lade_job_t *job)
{
    msgpack_unpacked result;
    msgpack_unpacked_init(&result);
    int64_t count = 0;
    if (job->result.len && msgpack_unpack_next(&result, job->result.data, job->result.len, NULL) ==
                               MSGPACK_UNPACK_SUCCESS)
        count = lade_wire_int(&result.data, "unloaded", 0);
    msgpack_unpacked_destroy(&result);
    return count;
}

static lade_code_t
s_ended_unload(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf, lade_error_t *error)
{
    int64_t count = 0;
    for (size_t i = 0; i < wait->count; i++) {
        lade_job_t *job;
        lade_code_t code = lade_call_completed(broker, wait->ids[i], &job, error);
        if (code)
            return code;
        count += s_unloaded(job);
    }
    lade_put_map(buf, 1);
    LADE_PUT_KEY(buf, "unloaded");
    lade_put_int(buf, count);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Loading

// What of the arguments the worker is told.
static const char *const s_members[] = {"submodel", "dtype", "layout",  "device", "allow_unsafe",
                                        "pid",      "ttl_s", "context", "lease"};
enum { S_MEMBERS = sizeof s_members / sizeof *s_members };

// What the settings have for a member that the caller left out; NULL: nothing.
static const char *
s_preset(const lade_call_t *call, const char *member)
{
    const lade_config_t *config = call->broker->config;
    const char *text, *preset = NULL;
    size_t len;
    if (strcmp(member, "dtype") == 0)
        preset = config->load_precision;
    else if (strcmp(member, "device") == 0)
        preset = config->load_device;
    return preset && *preset && !(lade_wire_text(call->args, member, &text, &len) && len) ? preset
                                                                                          : NULL;
}

// A load's events repeat what the caller calls its own, beside what they say themselves.
static lade_code_t
s_check_context(const json_t *context, lade_error_t *error)
{
    static const char *const taken[] = {"event",      "id",       "seq",       "epoch",
                                        "timestamp",  "progress", "model_key", "submodel_type",
                                        "name",       "location", "precision", "allow_unsafe",
                                        "error_type", "error",    "hash"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (json_object_get(context, taken[i]))
            return lade_error_set(error, LADE_VALUE_ERROR,
                                  "context: '%s' is a field of the event itself; give it another "
                                  "name",
                                  taken[i]);
    return LADE_OK;
}

// Words that cannot be are told before there is a job.
static lade_code_t
s_check(const lade_call_t *call, lade_error_t *error)
{
    lade_want_t want;
    json_t *args = lade_call_json(call);
    lade_code_t code =
        lade_want_read(lade_json_text(args, "dtype", NULL), lade_json_text(args, "layout", NULL),
                       lade_json_text(args, "device", NULL), &want, error);
    if (!code)
        code = s_check_context(json_object_get(args, "context"), error);
    json_decref(args);
    return code;
}

// Loads what the record says; record is taken over.
static lade_code_t
s_load(lade_call_t *call, json_t *record, bool lock, lade_error_t *error)
{
    lade_code_t code = s_check(call, error);
    if (code) {
        json_decref(record);
        return code;
    }
    char *key = strdup(lade_json_text(record, "key", ""));
    size_t pairs = 3;
    for (size_t i = 0; i < S_MEMBERS; i++)
        pairs += lade_wire_find(call->args, s_members[i]) || s_preset(call, s_members[i]);
    lade_buf_t spec = LADE_BUF(SIZE_MAX / 2);
    lade_put_map(&spec, pairs);
    LADE_PUT_KEY(&spec, "key");
    lade_put_str(&spec, key);
    LADE_PUT_KEY(&spec, "config");
    lade_wire_from_json(record, &spec, NULL);
    LADE_PUT_KEY(&spec, "lock");
    lade_put_bool(&spec, lock);
    for (size_t i = 0; i < S_MEMBERS; i++) {
        const msgpack_object *value = lade_wire_find(call->args, s_members[i]);
        const char *preset = s_preset(call, s_members[i]);
        if (value || preset)
            lade_put_str(&spec, s_members[i]);
        if (preset)
            lade_put_str(&spec, preset);
        else if (value) {
            lade_put_object(&spec, value);
        }
    }
    json_decref(record);
    lade_submission_t submission = {.kind = "load",
                                    .source = key,
                                    .packed_spec = {spec.data, spec.len},
                                    .requires = lade_wire_find(call->args, "requires")};
    code = lade_call_submit_wait(call, &submission, lade_call_ended_result, error);
    free(key);
    return code;
}

static lade_code_t
s_load_key(lade_call_t *call, bool lock, lade_error_t *error)
{
    json_t *record = NULL;
    char *key;
    lade_code_t code = lade_call_need_text(call, "key", &key, error);
    if (!code)
        code = lade_records_get(call->broker->records, key, &record, error);
    free(key);
    return code ? code : s_load(call, record, lock, error);
}

static lade_code_t
s_load_model_by_key(lade_call_t *call, lade_error_t *error)
{
    return s_load_key(call, lade_wire_bool(call->args, "lock", false), error);
}

static lade_code_t
s_lock(lade_call_t *call, lade_error_t *error)
{
    return s_load_key(call, true, error);
}

static lade_code_t
s_load_model_by_attr(lade_call_t *call, lade_error_t *error)
{
    json_t *args = lade_call_json(call), *record = NULL;
    lade_record_canonical(args);
    const char *name = lade_json_text(args, "name", NULL);
    lade_code_t code =
        name ? lade_records_one(call->broker->records, name, lade_json_text(args, "base", NULL),
                                lade_json_text(args, "type", NULL), &record, error)
             : lade_error_set(error, LADE_VALUE_ERROR, "name: a text is needed");
    json_decref(args);
    if (code == LADE_DUPLICATE_MODEL)
        code = error->code = LADE_VALUE_ERROR; // the seed's word for it here
    return code ? code : s_load(call, record, lade_wire_bool(call->args, "lock", false), error);
}

static lade_code_t
s_load_model_by_config(lade_call_t *call, lade_error_t *error)
{
    const msgpack_object *config = lade_wire_find(call->args, "config");
    json_t *record =
        config && config->type == MSGPACK_OBJECT_MAP ? lade_wire_object_to_json(config) : NULL;
    const char *key = lade_json_text(record, "key", "");
    json_t *stored = NULL;
    lade_code_t code =
        *key ? lade_records_get(call->broker->records, key, &stored, error)
             : lade_error_set(error, LADE_VALUE_ERROR, "config: a record with its key is needed");
    if (code) {
        json_decref(record);
        return code;
    }
    // A copy that says nothing of it does not end a quarantine.
    if (lade_json_bool(stored, "quarantined", false))
        json_object_set_new(record, "quarantined", json_true());
    json_decref(stored);
    lade_record_canonical(record);
    return s_load(call, record, lade_wire_bool(call->args, "lock", false), error);
}

// A file or folder that no record tells of: it is called by its path.
static lade_code_t
s_load_model_from_path(lade_call_t *call, lade_error_t *error)
{
    char *path;
    lade_code_t code = lade_call_need_text(call, "path", &path, error);
    if (!code && *path != '/')
        code = lade_error_set(error, LADE_VALUE_ERROR,
                              "path: an absolute path is needed, as the load workers see it");
    if (!code) {
        json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "key", path, "name", path,
                                   "path", path, "base", "any", "type", "path", "format", "path");
        code = record ? s_load(call, record, lade_wire_bool(call->args, "lock", false), error)
                      : lade_error_set(error, LADE_VALUE_ERROR, "path: it has to be UTF-8");
    }
    free(path);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Letting go

// A map {"name": worker} on the caller's stack.
typedef struct {
    msgpack_object map;
    msgpack_object_kv pair;
} s_requires_t;

static const msgpack_object *
s_require_worker(s_requires_t *self, const char *name)
{
    self->pair.key =
        (msgpack_object){.type = MSGPACK_OBJECT_STR, .via.str = {strlen("name"), "name"}};
    self->pair.val =
        (msgpack_object){.type = MSGPACK_OBJECT_STR, .via.str = {(uint32_t)strlen(name), name}};
    self->map = (msgpack_object){.type = MSGPACK_OBJECT_MAP, .via.map = {1, &self->pair}};
    return &self->map;
}

// A lease is WORKER/N; one of a worker that is gone went with it.
static lade_code_t
s_unlock(lade_call_t *call, lade_error_t *error)
{
    static const char *const members[] = {"lease", NULL};
    char *lease;
    lade_code_t code = lade_call_need_text(call, "lease", &lease, error);
    if (code)
        return code;
    char *slash = strrchr(lease, '/');
    if (!slash || slash == lease || slash - lease > LADE_BROKER_MAX_NAME) {
        code = lade_error_set(error, LADE_VALUE_ERROR, "lease: '%.200s' is none that a lock gave",
                              lease);
        free(lease);
        return code;
    }
    *slash = '\0';
    const lade_worker_t *worker = lade_workers_by_name(call->broker->workers, lease);
    if (worker && lade_worker_serves(worker, "unlock")) {
        s_requires_t requires;
        lade_submission_t submission = {.kind = "unlock",
                                        .requires = s_require_worker(&requires, lease)};
        lade_call_copy_members(call->args, members, &submission.packed_spec);
        code = lade_call_submit_wait(call, &submission, lade_call_ended_nil, error);
    } else {
        lade_call_answer_nil(call);
    }
    free(lease);
    return code;
}

// Every worker that has a cache is asked.
static lade_code_t
s_unload(lade_call_t *call, lade_error_t *error)
{
    static const char *const members[] = {"key", "submodel", NULL};
    lade_broker_t *broker = call->broker;
    size_t workers = lade_workers_count(broker->workers), count = 0;
    uint64_t *ids = zmalloc((workers + 1) * sizeof *ids);
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < workers && !code; i++) {
        const lade_worker_t *worker = lade_workers_at(broker->workers, i);
        if (!lade_worker_serves(worker, "unload"))
            continue;
        s_requires_t requires;
        lade_job_t *job;
        lade_submission_t submission = {.kind = "unload",
                                        .kind_len = strlen("unload"),
                                        .priority = lade_wire_int(call->args, "priority", 10),
                                        .requires = s_require_worker(&requires, worker->name)};
        lade_call_copy_members(call->args, members, &submission.packed_spec);
        code = lade_jobs_submit(broker->jobs, &submission, &job, error);
        if (!code)
            ids[count++] = job->id;
    }
    if (!code)
        return lade_call_wait(call, ids, count, NULL, s_ended_unload, error);
    free(ids);
    return code;
}

static lade_code_t
s_cache_stats(lade_call_t *call, lade_error_t *error)
{
    (void)error;
    const lade_workers_t *workers = call->broker->workers;
    size_t count = 0;
    for (size_t i = 0; i < lade_workers_count(workers); i++)
        count += lade_worker_serves(lade_workers_at(workers, i), "load");
    lade_buf_t *buf = lade_call_begin(call);
    lade_put_map(buf, count);
    for (size_t i = 0; i < lade_workers_count(workers); i++) {
        const lade_worker_t *worker = lade_workers_at(workers, i);
        if (!lade_worker_serves(worker, "load"))
            continue;
        lade_put_str(buf, worker->name);
        lade_put_packed(buf, worker->stats.data, worker->stats.len);
    }
    lade_call_end(call);
    return LADE_OK;
}

static const lade_op_t s_ops[] = {
    // clang-format off
    {"load_model_by_key",    s_load_model_by_key},
    {"load_model_by_attr",   s_load_model_by_attr},
    {"load_model_by_config", s_load_model_by_config},
    {"load_model_from_path", s_load_model_from_path},
    {"lock",                 s_lock},
    {"unlock",               s_unlock},
    {"unload",               s_unload},
    {"cache_stats",          s_cache_stats},
    {NULL,                   NULL},
    // clang-format on
};

const lade_service_t lade_service_load = {"load", s_ops};
