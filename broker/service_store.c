// store: model records.
#include "broker/call.h"
#include "broker/effects.h"
#include "broker/import.h"
#include "broker/packer.h"
#include "broker/peek.h"
#include "common/record.h"
#include "common/wire.h"

#include <czmq.h>

// ---------------------------------------------------------------------------------------------------
// Queries: filters, order and page out of the arguments

enum { S_LIMIT = 1000, S_PER_PAGE = 10, S_MAX_TAG = 512 };

typedef struct {
    json_t *args; // what the texts of the query belong to
    lade_records_query_t query;
} s_query_t;

static lade_code_t
s_check_tags(const json_t *tags, lade_error_t *error)
{
    bool fine = !tags || json_is_null(tags) || json_is_array(tags);
    for (size_t i = 0; i < json_array_size(tags) && fine; i++) {
        size_t len = json_string_length(json_array_get(tags, i));
        fine = len > 0 && len <= S_MAX_TAG;
    }
    return fine ? LADE_OK
                : lade_error_set(error, LADE_VALUE_ERROR,
                                 "tags: takes a list of texts of 1 to %d bytes", S_MAX_TAG);
}

static lade_code_t
s_direction(const char *text, bool *descending_p, lade_error_t *error)
{
    *descending_p = text && strcmp(text, "desc") == 0;
    if (!text || !*text || *descending_p || strcmp(text, "asc") == 0)
        return LADE_OK;
    return lade_error_set(error, LADE_VALUE_ERROR,
                          "direction: '%.40s' does not do; it takes asc or desc", text);
}

// A base, type or format that is none would find nothing, for ever: most likely it is misspelt.
static lade_code_t
s_check_words(const lade_records_query_t *query, lade_error_t *error)
{
    const struct {
        const char *name, *text;
        lade_enum_t values;
    } words[] = {{"base", query->base, LADE_ENUM_BASE},
                 {"type", query->type, LADE_ENUM_TYPE},
                 {"format", query->format, LADE_ENUM_FORMAT}};
    for (size_t i = 0; i < 3; i++) {
        if (!words[i].text || lade_enum_has(words[i].values, words[i].text))
            continue;
        char takes[600];
        size_t len = 0;
        const char *const *values = lade_enum_values(words[i].values);
        for (size_t v = 0; values[v] && len < sizeof takes; v++)
            len +=
                (size_t)snprintf(takes + len, sizeof takes - len, "%s%s", v ? ", " : "", values[v]);
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "%s: there is no '%.40s'; it takes one of %s", words[i].name,
                              words[i].text, takes);
    }
    return LADE_OK;
}

static lade_code_t
s_open_query(const lade_call_t *call, s_query_t *self, lade_error_t *error)
{
    *self = (s_query_t){.args = lade_call_json(call)};
    lade_record_canonical(self->args);
    const json_t *tags = json_object_get(self->args, "tags");
    int64_t limit = lade_json_int(self->args, "limit", S_LIMIT),
            offset = lade_json_int(self->args, "offset", 0);
    self->query = (lade_records_query_t){.name = lade_json_text(self->args, "name", NULL),
                                         .base = lade_json_text(self->args, "base", NULL),
                                         .type = lade_json_text(self->args, "type", NULL),
                                         .format = lade_json_text(self->args, "format", NULL),
                                         .hash = lade_json_text(self->args, "hash", NULL),
                                         .tags = json_is_array(tags) ? tags : NULL,
                                         .limit = (size_t)limit,
                                         .offset = (size_t)offset};
    lade_code_t code = LADE_OK;
    if (limit < 0 || limit > LADE_BROKER_MAX_LIST || offset < 0)
        code = lade_error_set(error, LADE_VALUE_ERROR, "limit: 0 to %d; offset: not below 0",
                              LADE_BROKER_MAX_LIST);
    if (!code)
        code = s_check_tags(tags, error);
    if (!code)
        code = s_check_words(&self->query, error);
    if (!code)
        code = s_direction(lade_json_text(self->args, "direction", NULL), &self->query.descending,
                           error);
    if (!code)
        code = lade_records_order(lade_json_text(self->args, "order_by", NULL), &self->query.order,
                                  error);
    if (code)
        json_decref(self->args);
    return code;
}

// Answers the records found, as they are stored. Ends the query.
static lade_code_t
s_answer_found(const lade_call_t *call, s_query_t *self, lade_error_t *error)
{
    lade_buf_t records = LADE_BUF(SIZE_MAX / 2);
    size_t count;
    lade_code_t code =
        lade_records_find(call->broker->records, &self->query, &records, &count, NULL, error);
    json_decref(self->args);
    if (!code) {
        lade_buf_t *answer = lade_call_begin(call);
        lade_put_array(answer, count);
        if (count)
            lade_put_raw(answer, records.data, records.len);
        lade_call_end(call);
    }
    lade_buf_free(&records);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Adding and changing

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
s_answer_key(const lade_call_t *call, const char *key, lade_error_t *error)
{
    lade_bytes_t record;
    lade_code_t code = lade_records_get_packed(call->broker->records, key, &record, error);
    if (code)
        return code;
    lade_put_raw(lade_call_begin(call), record.data, record.len);
    lade_call_end(call);
    return LADE_OK;
}

// Tells what happened to a record and answers it as it is stored now. Takes stored over.
static lade_code_t
s_answer_stored(const lade_call_t *call, const char *event, json_t *stored, lade_error_t *error)
{
    lade_effects_tell(call->broker, event, stored);
    lade_code_t code = s_answer_key(call, lade_json_text(stored, "key", ""), error);
    json_decref(stored);
    return code;
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
    return s_answer_stored(call, "model_record_added", stored, error);
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
        json_t *version = json_object_get(args, "version");
        if (version && !json_is_null(version))
            json_object_set(config, "version", version);
        code = lade_records_update(call->broker->records, key, config, &stored, error);
        json_decref(args);
    }
    free(key);
    if (code)
        return code;
    return s_answer_stored(call, "model_record_updated", stored, error);
}

// ---------------------------------------------------------------------------------------------------
// One record

static lade_code_t
s_get_model(lade_call_t *call, lade_error_t *error)
{
    char *key;
    lade_code_t code = lade_call_need_text(call, "key", &key, error);
    if (!code)
        code = s_answer_key(call, key, error);
    free(key);
    return code;
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
    char *path, key[LADE_STORE_MAX_KEY + 1];
    lade_code_t code = lade_call_need_text(call, "path", &path, error);
    if (!code)
        code = lade_records_key_of_path(call->broker->records, path, key, error);
    free(path);
    if (code)
        return code;
    if (*key)
        return s_answer_key(call, key, error);
    lade_call_answer_nil(call);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Lists

static lade_code_t
s_search_by_name(lade_call_t *call, lade_error_t *error)
{
    s_query_t self;
    lade_code_t code = s_open_query(call, &self, error);
    return code ? code : s_answer_found(call, &self, error);
}

static lade_code_t
s_all_models(lade_call_t *call, lade_error_t *error)
{
    s_query_t self;
    lade_code_t code = s_open_query(call, &self, error);
    if (code)
        return code;
    lade_records_query_t all = {.order = self.query.order,
                                .descending = self.query.descending,
                                .limit = self.query.limit,
                                .offset = self.query.offset};
    self.query = all;
    return s_answer_found(call, &self, error);
}

static lade_code_t
s_search_by_tag(lade_call_t *call, lade_error_t *error)
{
    s_query_t self;
    lade_code_t code = s_open_query(call, &self, error);
    if (code)
        return code;
    if (json_array_size(self.query.tags))
        return s_answer_found(call, &self, error);
    json_decref(self.args);
    return lade_error_set(error, LADE_VALUE_ERROR, "tags: takes a list of one or more texts");
}

static lade_code_t
s_search_by_hash(lade_call_t *call, lade_error_t *error)
{
    s_query_t self;
    lade_code_t code = s_open_query(call, &self, error);
    if (code)
        return code;
    if (self.query.hash && *self.query.hash)
        return s_answer_found(call, &self, error);
    json_decref(self.args);
    return lade_error_set(error, LADE_VALUE_ERROR, "hash: a text is needed");
}

static lade_code_t
s_search_by_key(lade_call_t *call, lade_error_t *error)
{
    char *key;
    size_t count;
    int64_t limit = lade_wire_int(call->args, "limit", S_LIMIT);
    if (limit < 0 || limit > S_LIMIT)
        return lade_error_set(error, LADE_VALUE_ERROR, "limit: 0 to %d", S_LIMIT);
    lade_buf_t records = LADE_BUF(SIZE_MAX / 2);
    lade_code_t code = lade_call_need_text(call, "key", &key, error);
    if (!code)
        code =
            lade_records_by_key(call->broker->records, key, (size_t)limit, &records, &count, error);
    free(key);
    if (!code) {
        lade_buf_t *answer = lade_call_begin(call);
        lade_put_array(answer, count);
        if (count)
            lade_put_raw(answer, records.data, records.len);
        lade_call_end(call);
    }
    lade_buf_free(&records);
    return code;
}

// What a list shows of a record. The first few are there in any case, the others if the record has
// them.
static const struct {
    const char *field;
    enum { S_ALWAYS, S_TEXT, S_ARRAY, S_IF_THERE } what;
} s_summary[] = {
    // clang-format off
    {"key",         S_ALWAYS},   {"type",       S_ALWAYS},   {"base",       S_ALWAYS},   {"format",     S_ALWAYS},
    {"name",        S_ALWAYS},   {"description", S_TEXT},    {"tags",       S_ARRAY},    {"bases",      S_IF_THERE},
    {"variant",     S_IF_THERE}, {"path",       S_IF_THERE}, {"file_size",  S_IF_THERE}, {"created_at", S_IF_THERE},
    {"updated_at",  S_IF_THERE}, {"version",    S_IF_THERE},
    // clang-format on
};
enum { S_SUMMARY = sizeof s_summary / sizeof *s_summary };

static void
s_put_summary(lade_buf_t *answer, lade_bytes_t record)
{
    lade_bytes_t values[S_SUMMARY] = {0};
    size_t count = 0;
    for (size_t i = 0; i < S_SUMMARY; i++)
        count +=
            lade_peek(record, s_summary[i].field, &values[i]) || s_summary[i].what != S_IF_THERE;
    lade_put_map(answer, count);
    for (size_t i = 0; i < S_SUMMARY; i++) {
        if (!values[i].len && s_summary[i].what == S_IF_THERE)
            continue;
        lade_put_str(answer, s_summary[i].field);
        if (values[i].len)
            lade_put_raw(answer, values[i].data, values[i].len);
        else if (s_summary[i].what == S_ARRAY)
            lade_put_array(answer, 0);
        else
            lade_put_str(answer, s_summary[i].what == S_TEXT ? "" : NULL);
    }
}

static void
s_answer_page(const lade_call_t *call, int64_t page, int64_t per_page, uint64_t total,
              const lade_buf_t *records, size_t count)
{
    lade_buf_t *answer = lade_call_begin(call);
    uint64_t size = (uint64_t)per_page;
    lade_put_map(answer, 5);
    LADE_PUT_KEY(answer, "page");
    lade_put_int(answer, page);
    LADE_PUT_KEY(answer, "per_page");
    lade_put_int(answer, per_page);
    LADE_PUT_KEY(answer, "total");
    lade_put_uint(answer, total);
    LADE_PUT_KEY(answer, "pages");
    lade_put_uint(answer, total / size + (total % size ? 1 : 0));
    LADE_PUT_KEY(answer, "items");
    lade_put_array(answer, count);
    size_t at = 0;
    lade_bytes_t record;
    while (count && lade_peek_next((lade_bytes_t){records->data, records->len}, &at, &record))
        s_put_summary(answer, record);
    lade_call_end(call);
}

static lade_code_t
s_list_models(lade_call_t *call, lade_error_t *error)
{
    int64_t page = lade_wire_int(call->args, "page", 0),
            per_page = lade_wire_int(call->args, "per_page", S_PER_PAGE);
    if (page < 0 || page > INT64_MAX / S_LIMIT || per_page < 1 || per_page > S_LIMIT)
        return lade_error_set(error, LADE_VALUE_ERROR, "page: not below 0; per_page: 1 to %d",
                              S_LIMIT);
    s_query_t self;
    lade_code_t code = s_open_query(call, &self, error);
    if (code)
        return code;
    self.query.limit = (size_t)per_page;
    self.query.offset = (size_t)(page * per_page);
    lade_buf_t records = LADE_BUF(SIZE_MAX / 2);
    size_t count;
    uint64_t total;
    code = lade_records_find(call->broker->records, &self.query, &records, &count, &total, error);
    json_decref(self.args);
    if (!code)
        s_answer_page(call, page, per_page, total, &records, count);
    lade_buf_free(&records);
    return code;
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
    {"search_by_hash",     s_search_by_hash},
    {"search_by_key",      s_search_by_key},
    {"list_models",        s_list_models},
    {"all_models",         s_all_models},
    {"model_info_by_name", s_model_info_by_name},
    {"version",            s_version},
    {"import_models",      lade_import_call},
    {NULL,                 NULL},
    // clang-format on
};

const lade_service_t lade_service_store = {"store", s_ops};
