// store: model records.
#include "broker/call.h"
#include "broker/effects.h"
#include "common/record.h"
#include "common/wire.h"

#include <czmq.h>

// A list, cut to limit and offset. Takes list over.
static lade_code_t
s_answer_list(const lade_call_t *call, json_t *list, lade_error_t *error)
{
    int64_t limit = lade_wire_int(call->args, "limit", 1000),
            offset = lade_wire_int(call->args, "offset", 0);
    int64_t size = (int64_t)json_array_size(list);
    if (limit < 0 || offset < 0) {
        json_decref(list);
        return lade_error_set(error, LADE_VALUE_ERROR, "limit and offset are not below 0");
    }
    json_t *cut = json_array();
    for (int64_t i = offset; i < size && i - offset < limit; i++)
        json_array_append(cut, json_array_get(list, (size_t)i));
    json_decref(list);
    return lade_call_answer_json(call, cut, error);
}

static lade_code_t
s_need_config(const lade_call_t *call, json_t **args_p, json_t **config_p, lade_error_t *error)
{
    *args_p = lade_call_json(call);
    *config_p = json_object_get(*args_p, "config");
    if (json_is_object(*config_p)) {
        lade_record_canonical(*config_p);
        return LADE_OK;
    }
    json_decref(*args_p);
    return lade_error_set(error, LADE_VALUE_ERROR, "config: a map is needed");
}

static lade_code_t
s_add_model(lade_call_t *call, lade_error_t *error)
{
    json_t *args, *config, *stored = NULL;
    lade_code_t code = s_need_config(call, &args, &config, error);
    if (code)
        return code;
    const char *key = lade_json_text(args, "key", NULL);
    if (key)
        json_object_set_new(config, "key", json_string(key));
    code = lade_records_add(call->broker->records, config, &stored, error);
    json_decref(args);
    if (code)
        return code;
    lade_effects_tell(call->broker, "model_record_added", stored);
    return lade_call_answer_json(call, stored, error);
}

static lade_code_t
s_update_model(lade_call_t *call, lade_error_t *error)
{
    json_t *args, *config, *stored = NULL;
    char *key;
    lade_code_t code = lade_call_need_text(call, "key", &key, error);
    if (code)
        return code;
    code = s_need_config(call, &args, &config, error);
    if (!code) {
        code = lade_records_update(call->broker->records, key, config, &stored, error);
        json_decref(args);
    }
    free(key);
    if (code)
        return code;
    lade_effects_tell(call->broker, "model_record_updated", stored);
    return lade_call_answer_json(call, stored, error);
}

static lade_code_t
s_get_model(lade_call_t *call, lade_error_t *error)
{
    json_t *record = NULL;
    char *key;
    lade_code_t code = lade_call_need_text(call, "key", &key, error);
    if (!code)
        code = lade_records_get(call->broker->records, key, &record, error);
    free(key);
    return code ? code : lade_call_answer_json(call, record, error);
}

static lade_code_t
s_exists(lade_call_t *call, lade_error_t *error)
{
    char *key;
    lade_code_t code = lade_call_need_text(call, "key", &key, error);
    if (code)
        return code;
    bool exists = lade_records_exists(call->broker->records, key);
    free(key);
    return lade_call_answer_json(call, json_boolean(exists), error);
}

static lade_code_t
s_search_by_path(lade_call_t *call, lade_error_t *error)
{
    json_t *record = NULL;
    char *path;
    lade_code_t code = lade_call_need_text(call, "path", &path, error);
    if (!code)
        code = lade_records_by_path(call->broker->records, path, &record, error);
    free(path);
    return code ? code : lade_call_answer_json(call, record ? record : json_null(), error);
}

static lade_code_t
s_search(lade_call_t *call, bool filtered, lade_error_t *error)
{
    json_t *args = filtered ? lade_call_json(call) : json_object(), *list = NULL;
    lade_record_canonical(args);
    lade_code_t code =
        lade_records_search(call->broker->records, lade_json_text(args, "name", NULL),
                            lade_json_text(args, "base", NULL), lade_json_text(args, "type", NULL),
                            lade_json_text(args, "format", NULL), &list, error);
    json_decref(args);
    return code ? code : s_answer_list(call, list, error);
}

static lade_code_t
s_search_by_name(lade_call_t *call, lade_error_t *error)
{
    return s_search(call, true, error);
}

static lade_code_t
s_all_models(lade_call_t *call, lade_error_t *error)
{
    return s_search(call, false, error);
}

static lade_code_t
s_search_by_tag(lade_call_t *call, lade_error_t *error)
{
    json_t *args = lade_call_json(call), *list = NULL;
    const json_t *tags = json_object_get(args, "tags");
    lade_code_t code =
        json_is_array(tags)
            ? lade_records_by_tags(call->broker->records, tags, &list, error)
            : lade_error_set(error, LADE_VALUE_ERROR, "tags: an array of text is needed");
    json_decref(args);
    return code ? code : s_answer_list(call, list, error);
}

static lade_code_t
s_model_info_by_name(lade_call_t *call, lade_error_t *error)
{
    json_t *args = lade_call_json(call), *record = NULL;
    lade_record_canonical(args);
    const char *name = lade_json_text(args, "name", NULL);
    lade_code_t code =
        name ? lade_records_one(call->broker->records, name, lade_json_text(args, "base", NULL),
                                lade_json_text(args, "type", NULL), &record, error)
             : lade_error_set(error, LADE_VALUE_ERROR, "name: a text is needed");
    json_decref(args);
    return code ? code : lade_call_answer_json(call, record, error);
}

static lade_code_t
s_version(lade_call_t *call, lade_error_t *error)
{
    return lade_call_answer_json(call, json_string("3.2"), error);
}

static const lade_op_t s_ops[] = {
    // clang-format off
    {"add_model",          s_add_model},
    {"update_model",       s_update_model},
    {"del_model",          lade_call_del_model},
    {"get_model",          s_get_model},
    {"exists",             s_exists},
    {"search_by_path",     s_search_by_path},
    {"search_by_name",     s_search_by_name},
    {"search_by_tag",      s_search_by_tag},
    {"all_models",         s_all_models},
    {"model_info_by_name", s_model_info_by_name},
    {"version",            s_version},
    {NULL,                 NULL},
    // clang-format on
};

const lade_service_t lade_service_store = {"store", s_ops};
