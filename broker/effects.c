// Effects: a table of operations on records.
#include "broker/effects.h"

#include "broker/events.h"
#include "broker/jobs.h"
#include "broker/packer.h"
#include "common/wire.h"

#include <czmq.h>

// Each takes the effect as a map; *record_p is what its event tells, yours (NULL: no event).
static lade_code_t
s_put_model(lade_broker_t *broker, const json_t *effect, json_t **record_p, lade_error_t *error)
{
    const json_t *model = json_object_get(effect, "model");
    if (!json_is_object(model))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "put_model needs a map `model`");
    return lade_records_add(broker->records, model, record_p, error);
}

static lade_code_t
s_update_model(lade_broker_t *broker, const json_t *effect, json_t **record_p, lade_error_t *error)
{
    const char *key = lade_json_text(effect, "key", NULL);
    const json_t *changes = json_object_get(effect, "changes");
    if (!key || !json_is_object(changes))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "update_model needs `key` and a map `changes`");
    return lade_records_update(broker->records, key, changes, record_p, error);
}

static lade_code_t
s_del_model(lade_broker_t *broker, const json_t *effect, json_t **record_p, lade_error_t *error)
{
    const char *key = lade_json_text(effect, "key", NULL);
    if (!key)
        return lade_error_set(error, LADE_VALUE_ERROR, "del_model needs `key`");
    lade_code_t code = lade_records_del(broker->records, key, record_p, error);
    return code == LADE_UNKNOWN_MODEL ? LADE_OK : code;
}

// Nothing is done: what the job did is of no use if the record is gone.
static lade_code_t
s_need_model(lade_broker_t *broker, const json_t *effect, json_t **record_p, lade_error_t *error)
{
    const char *key = lade_json_text(effect, "key", NULL);
    json_t *record = NULL;
    *record_p = NULL;
    if (!key)
        return lade_error_set(error, LADE_VALUE_ERROR, "need_model needs `key`");
    lade_code_t code = lade_records_get(broker->records, key, &record, error);
    json_decref(record);
    return code;
}

// What is to be done once the records are as they are to be: a job of its own, made in the same
// transaction. Applied after all others, since a job cannot be taken back.
static lade_code_t
s_submit(lade_broker_t *broker, const json_t *effect, json_t **record_p, lade_error_t *error)
{
    const json_t *wanted = json_object_get(effect, "job");
    const json_t *spec = json_object_get(wanted, "spec");
    const char *kind = lade_json_text(wanted, "kind", ""),
               *source = lade_json_text(wanted, "source", NULL);
    *record_p = NULL;
    if (!*kind)
        return lade_error_set(error, LADE_VALUE_ERROR, "submit needs a map `job` with its `kind`");
    lade_submission_t submission = {.kind = kind,
                                    .kind_len = strlen(kind),
                                    .source = source,
                                    .source_len = source ? strlen(source) : 0,
                                    .priority = lade_json_int(wanted, "priority", 10)};
    if (json_is_object(spec)) {
        lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
        if (lade_wire_from_json(spec, &buf, error)) {
            lade_buf_free(&buf);
            return error->code;
        }
        submission.packed_spec = (lade_blob_t){buf.data, buf.len};
    }
    lade_job_t *job;
    return lade_jobs_submit(broker->jobs, &submission, &job, error);
}

static const struct {
    const char *op, *event;
    lade_code_t (*apply)(lade_broker_t *broker, const json_t *effect, json_t **record_p,
                         lade_error_t *error);
} s_effects[] = {
    // clang-format off
    {"put_model",    "model_record_added",   s_put_model},
    {"update_model", "model_record_updated", s_update_model},
    {"del_model",    "model_record_deleted", s_del_model},
    {"need_model",   NULL,                   s_need_model},
    {"submit",       NULL,                   s_submit},
    // clang-format on
};
enum { S_EFFECTS = sizeof s_effects / sizeof *s_effects, S_MOST = 10000 };

typedef struct {
    const char *event;
    json_t *record;
    lade_error_t refused; // code 0: it was applied
} s_applied_t;

// What is refused before anything is written, so that the batch is as it was.
static bool
s_may_be_passed_over(lade_code_t code)
{
    return code == LADE_DUPLICATE_MODEL || code == LADE_INVALID_MODEL_CONFIG ||
           code == LADE_UNKNOWN_MODEL || code == LADE_VALUE_ERROR || code == LADE_STALE_RECORD;
}

static lade_code_t
s_apply(lade_broker_t *broker, const msgpack_object *object, s_applied_t *applied,
        lade_error_t *error)
{
    json_t *effect = object->type == MSGPACK_OBJECT_MAP ? lade_wire_object_to_json(object) : NULL;
    const char *op = lade_json_text(effect, "op", "");
    size_t at = 0;
    while (at < S_EFFECTS && strcmp(s_effects[at].op, op) != 0)
        at++;
    lade_code_t code = at < S_EFFECTS
                           ? s_effects[at].apply(broker, effect, &applied->record, error)
                           : lade_error_set(error, LADE_BAD_REQUEST, "there is no effect '%s'", op);
    applied->event = at < S_EFFECTS ? s_effects[at].event : NULL;
    if (s_may_be_passed_over(code) && lade_json_bool(effect, "tolerant", false)) {
        applied->refused = *error;
        code = LADE_OK;
    }
    json_decref(effect);
    return code;
}

static bool
s_is_submit(const msgpack_object *effect)
{
    const char *op;
    size_t len;
    return effect->type == MSGPACK_OBJECT_MAP && lade_wire_text(effect, "op", &op, &len) &&
           len == strlen("submit") && memcmp(op, "submit", len) == 0;
}

bool
lade_effects_need_batch(const msgpack_object *effects)
{
    return effects && effects->type == MSGPACK_OBJECT_ARRAY && effects->via.array.size > 1;
}

void
lade_effects_tell(lade_broker_t *broker, const char *event, const json_t *record)
{
    static const char *const fields[] = {"name", "type", "base", "format", "path"};
    const char *key = lade_json_text(record, "key", "");
    lade_buf_t *buf = lade_events_begin_named(broker->events, event, key, 6, true, broker->now);
    LADE_PUT_KEY(buf, "key");
    lade_put_str(buf, key);
    for (size_t i = 0; i < 5; i++) {
        lade_put_str(buf, fields[i]);
        lade_put_str(buf, lade_json_text(record, fields[i], NULL));
    }
    lade_events_end(broker->events);
}

// Tells what was applied; notes what was refused.
static void
s_finish(lade_broker_t *broker, const s_applied_t *applied, uint32_t at, lade_effects_done_t *done,
         size_t *added)
{
    if (applied->refused.code) {
        if (!done->refused)
            done->refused = json_array();
        json_array_append_new(done->refused,
                              json_pack("{s:I, s:s, s:o}", "at", (json_int_t)at, "error_type",
                                        lade_code_name(applied->refused.code), "error",
                                        json_stringn_nocheck(applied->refused.message,
                                                             strlen(applied->refused.message))));
        return;
    }
    if (applied->record)
        lade_effects_tell(broker, applied->event, applied->record);
    if (!applied->event || strcmp(applied->event, "model_record_added") != 0)
        return;
    json_decref(done->added);
    done->added = ++*added == 1 ? json_incref(applied->record) : NULL;
}

lade_code_t
lade_effects_apply(lade_broker_t *broker, const msgpack_object *effects, lade_effects_done_t *done,
                   lade_error_t *error)
{
    *done = (lade_effects_done_t){0};
    if (!effects || effects->type == MSGPACK_OBJECT_NIL)
        return LADE_OK;
    if (effects->type != MSGPACK_OBJECT_ARRAY || effects->via.array.size > S_MOST)
        return lade_error_set(error, LADE_BAD_REQUEST, "effects: an array of at most %d maps",
                              S_MOST);
    uint32_t count = effects->via.array.size;
    s_applied_t *applied = zmalloc((count + 1) * sizeof *applied);
    lade_code_t code = LADE_OK;
    size_t added = 0;
    assert(count < 2 || !lade_store_dirty(broker->store));
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < count && !code; i++)
            if (s_is_submit(&effects->via.array.ptr[i]) == (pass == 1))
                code = s_apply(broker, &effects->via.array.ptr[i], &applied[i], error);
    if (code && count > 1)
        lade_store_abort(broker->store);
    for (uint32_t i = 0; i < count; i++) {
        if (!code)
            s_finish(broker, &applied[i], i, done, &added);
        json_decref(applied[i].record);
    }
    free(applied);
    return code;
}
