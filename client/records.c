// Model records: the seed's methods of the record store, each one call.
#include "client/request.h"
#include "common/wire.h"

#include <string.h>

static void
s_set(json_t *args, const char *name, const char *text)
{
    if (text)
        json_object_set_new_nocheck(args, name, json_stringn_nocheck(text, strlen(text)));
}

static json_t *
s_args(const char *name, const char *text)
{
    json_t *args = json_object();
    s_set(args, name, text);
    return args;
}

static json_t *
s_texts(const char *const *texts)
{
    json_t *array = json_array();
    for (size_t i = 0; texts && texts[i]; i++)
        json_array_append_new(array, json_stringn_nocheck(texts[i], strlen(texts[i])));
    return array;
}

// Calls store.OP; args is taken over. *text_p (may be NULL) is the result as JSON text, NULL for
// nil.
static lade_code_t
s_call(lade_t *self, const char *op, json_t *args, char **text_p, lade_error_t *error)
{
    json_t *result = NULL;
    if (text_p)
        *text_p = NULL;
    lade_code_t code = lade_request_json(self, "store", op, args, NULL, NULL, &result, error);
    if (!code && text_p && !json_is_null(result))
        *text_p = lade_request_text(result);
    json_decref(result);
    return code;
}

// A record or changes given as JSON text, as `config`; args is freed if it is none.
static lade_code_t
s_set_config(json_t *args, const char *text, lade_error_t *error)
{
    json_error_t where;
    json_t *config = json_loads(text ? text : "", 0, &where);
    if (json_is_object(config)) {
        json_object_set_new(args, "config", config);
        return LADE_OK;
    }
    json_decref(config);
    json_decref(args);
    return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "a record has to be a JSON object%s%s",
                          *where.text ? ": " : "", where.text);
}

// ---------------------------------------------------------------------------------------------------
// Writing

lade_code_t
lade_models_add(lade_t *self, const char *key, const char *record, char **stored_p,
                lade_error_t *error)
{
    json_t *args = s_args("key", key);
    lade_code_t code = s_set_config(args, record, error);
    return code ? code : s_call(self, "add_model", args, stored_p, error);
}

lade_code_t
lade_models_update(lade_t *self, const char *key, const char *changes, int64_t version,
                   char **stored_p, lade_error_t *error)
{
    json_t *args = s_args("key", key);
    lade_code_t code = s_set_config(args, changes, error);
    if (!code && version > 0)
        json_object_set_new(args, "version", json_integer(version));
    return code ? code : s_call(self, "update_model", args, stored_p, error);
}

lade_code_t
lade_models_del(lade_t *self, const char *key, lade_error_t *error)
{
    return s_call(self, "del_model", s_args("key", key), NULL, error);
}

// ---------------------------------------------------------------------------------------------------
// One record

lade_code_t
lade_models_get(lade_t *self, const char *key, char **record_p, lade_error_t *error)
{
    return s_call(self, "get_model", s_args("key", key), record_p, error);
}

lade_code_t
lade_models_exists(lade_t *self, const char *key, bool *exists_p, lade_error_t *error)
{
    json_t *result = NULL;
    lade_code_t code =
        lade_request_json(self, "store", "exists", s_args("key", key), NULL, NULL, &result, error);
    *exists_p = !code && json_is_true(result);
    json_decref(result);
    return code;
}

lade_code_t
lade_models_by_path(lade_t *self, const char *path, char **record_p, lade_error_t *error)
{
    return s_call(self, "search_by_path", s_args("path", path), record_p, error);
}

lade_code_t
lade_models_info_by_name(lade_t *self, const char *name, const char *base, const char *type,
                         char **record_p, lade_error_t *error)
{
    json_t *args = s_args("name", name);
    s_set(args, "base", base);
    s_set(args, "type", type);
    return s_call(self, "model_info_by_name", args, record_p, error);
}

// ---------------------------------------------------------------------------------------------------
// Lists

static json_t *
s_query(const lade_models_query_t *query)
{
    json_t *args = json_object();
    if (!query)
        return args;
    s_set(args, "name", query->name);
    s_set(args, "base", query->base);
    s_set(args, "type", query->type);
    s_set(args, "format", query->format);
    s_set(args, "hash", query->hash);
    s_set(args, "order_by", query->order_by);
    if (query->tags && *query->tags)
        json_object_set_new(args, "tags", s_texts(query->tags));
    if (query->descending)
        s_set(args, "direction", "desc");
    if (query->limit > 0)
        json_object_set_new(args, "limit", json_integer(query->limit));
    if (query->offset > 0)
        json_object_set_new(args, "offset", json_integer(query->offset));
    return args;
}

lade_code_t
lade_models_search(lade_t *self, const lade_models_query_t *query, char **records_p,
                   lade_error_t *error)
{
    return s_call(self, "search_by_name", s_query(query), records_p, error);
}

lade_code_t
lade_models_by_tag(lade_t *self, const char *const *tags, char **records_p, lade_error_t *error)
{
    json_t *args = json_object();
    json_object_set_new(args, "tags", s_texts(tags));
    return s_call(self, "search_by_tag", args, records_p, error);
}

lade_code_t
lade_models_by_hash(lade_t *self, const char *hash, char **records_p, lade_error_t *error)
{
    return s_call(self, "search_by_hash", s_args("hash", hash), records_p, error);
}

lade_code_t
lade_models_all(lade_t *self, int64_t limit, int64_t offset, char **records_p, lade_error_t *error)
{
    const lade_models_query_t query = {.limit = limit, .offset = offset};
    return s_call(self, "all_models", s_query(&query), records_p, error);
}

lade_code_t
lade_models_list(lade_t *self, const lade_models_query_t *query, int64_t page, int64_t per_page,
                 char **page_p, lade_error_t *error)
{
    json_t *args = s_query(query);
    json_object_set_new(args, "page", json_integer(page));
    if (per_page > 0)
        json_object_set_new(args, "per_page", json_integer(per_page));
    return s_call(self, "list_models", args, page_p, error);
}

lade_code_t
lade_models_version(lade_t *self, char **version_p, lade_error_t *error)
{
    json_t *result = NULL;
    *version_p = NULL;
    lade_code_t code =
        lade_request_json(self, "store", "version", NULL, NULL, NULL, &result, error);
    if (!code && json_is_string(result))
        *version_p = strdup(json_string_value(result));
    json_decref(result);
    return code;
}
