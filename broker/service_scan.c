// install's ops over many models at once: jobs of the kinds `scan` and `verify`.
#include "broker/call.h"
#include "common/wire.h"

#include <czmq.h>

static lade_code_t
s_submit(lade_call_t *call, const char *kind, const char *source, json_t *spec,
         lade_wait_answer_fn *answer, lade_error_t *error)
{
    lade_buf_t packed = LADE_BUF(LADE_WIRE_MAX_BODY);
    lade_code_t code = lade_wire_from_json(spec, &packed, error);
    json_decref(spec);
    if (code) {
        lade_buf_free(&packed);
        return code;
    }
    lade_submission_t submission = {
        .kind = kind, .source = source, .packed_spec = {packed.data, packed.len}};
    return lade_call_submit_wait(call, &submission, answer, error);
}

static json_t *
s_flag(const lade_call_t *call, const char *name)
{
    return json_boolean(lade_wire_bool(call->args, name, false));
}

lade_code_t
lade_call_scan_directory(lade_call_t *call, lade_error_t *error)
{
    char *dir;
    lade_code_t code = lade_call_need_text(call, "scan_dir", &dir, error);
    if (!code && *dir != '/')
        code = lade_error_set(error, LADE_VALUE_ERROR,
                              "scan_dir: '%.200s' is not absolute, and means nothing to a worker "
                              "in another folder",
                              dir);
    if (!code)
        code = s_submit(call, "scan", dir,
                        json_pack("{s:o, s:o, s:o}", "dir", json_stringn_nocheck(dir, strlen(dir)),
                                  "install", s_flag(call, "install"), "dry_run",
                                  s_flag(call, "dry_run")),
                        lade_call_ended_keys, error);
    free(dir);
    return code;
}

lade_code_t
lade_call_sync_to_config(lade_call_t *call, lade_error_t *error)
{
    return s_submit(call, "scan", "sync",
                    json_pack("{s:b, s:o, s:o}", "sync", 1, "unregister",
                              s_flag(call, "unregister"), "dry_run", s_flag(call, "dry_run")),
                    lade_call_ended_result, error);
}

// Keys that no model has are told at once, not after all the others were read.
static lade_code_t
s_check_keys(const lade_call_t *call, const msgpack_object *keys, lade_error_t *error)
{
    for (uint32_t i = 0; i < keys->via.array.size; i++) {
        const msgpack_object *item = &keys->via.array.ptr[i];
        if (item->type != MSGPACK_OBJECT_STR || !item->via.str.size)
            return lade_error_set(error, LADE_VALUE_ERROR, "keys: takes a list of texts");
        char *key = strndup(item->via.str.ptr, item->via.str.size);
        bool there = key && lade_records_exists(call->broker->records, key);
        if (!there)
            lade_error_set(error, LADE_UNKNOWN_MODEL,
                           "no model has the key '%.80s' (`lade ls` shows all)", key ? key : "");
        free(key);
        if (!there)
            return LADE_UNKNOWN_MODEL;
    }
    return LADE_OK;
}

lade_code_t
lade_call_verify(lade_call_t *call, lade_error_t *error)
{
    enum { S_MOST = 10000 };
    const msgpack_object *keys = lade_wire_find(call->args, "keys");
    bool some = keys && keys->type == MSGPACK_OBJECT_ARRAY;
    if (some && keys->via.array.size > S_MOST)
        return lade_error_set(error, LADE_TOO_LARGE, "keys: at most %d at once", S_MOST);
    lade_code_t code = some ? s_check_keys(call, keys, error) : LADE_OK;
    if (code)
        return code;
    json_t *spec = json_pack("{s:o}", "record", s_flag(call, "record"));
    if (some)
        json_object_set_new(spec, "keys", lade_wire_object_to_json(keys));
    return s_submit(call, "verify", some ? "some models" : "all models", spec,
                    lade_call_ended_result, error);
}
