// Model records in the keyspace: the record itself and one row of s_indexes for each way to find
// it.
#include "broker/records.h"

#include "common/path.h"
#include "common/record.h"
#include "common/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct lade_records {
    lade_store_t *store;
    char *models_dir; // absolute, without slash at its end
};

// An index entry is VALUE NUL KEY; a field that is a list has one for each of its items.
static const struct {
    lade_db_t db;
    const char *field;
} s_indexes[] = {
    // clang-format off
    {LADE_DB_MODELS_BY_NAME,   "name"},
    {LADE_DB_MODELS_BY_PATH,   "path"},
    {LADE_DB_MODELS_BY_TAG,    "tags"},
    {LADE_DB_MODELS_BY_SOURCE, "source"},
    {LADE_DB_MODELS_BY_HASH,   "hash"},
    // clang-format on
};
enum { S_INDEXES = sizeof s_indexes / sizeof *s_indexes };

enum {
    S_MAX_VALUE =
        400,        // bytes of a value in an index key; a longer one is cut and ended by its hash
    S_MAX_KEY = 64, // bytes of a record's key (common/record.c checks it)
    S_MAX_PATH = 4096,
};
_Static_assert(S_MAX_VALUE + 1 + S_MAX_KEY <= LADE_STORE_MAX_KEY,
               "an index key is too long for the store");

lade_records_t *
lade_records_new(lade_store_t *store, const char *models_dir)
{
    lade_records_t *self = calloc(1, sizeof *self);
    if (self) {
        self->store = store;
        self->models_dir = strdup(models_dir);
        if (!self->models_dir)
            lade_records_destroy(&self);
    }
    for (size_t len = self ? strlen(self->models_dir) : 0;
         len > 1 && self->models_dir[len - 1] == '/';)
        self->models_dir[--len] = '\0';
    return self;
}

void
lade_records_destroy(lade_records_t **self_p)
{
    if (!*self_p)
        return;
    free((*self_p)->models_dir);
    free(*self_p);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Paths: one text for one place, so that the index by path is unique

// Writes the path without doubled slashes, "." parts and a slash at the end; false for "..", which
// could lead anywhere, and for what is too long.
static bool
s_tidy_path(const char *path, char out[S_MAX_PATH + 1])
{
    size_t len = 0;
    if (strlen(path) > S_MAX_PATH)
        return false;
    if (*path == '/')
        out[len++] = '/';
    for (const char *at = path + strspn(path, "/"); *at; at += strspn(at, "/")) {
        size_t part = strcspn(at, "/");
        if (part == 2 && memcmp(at, "..", 2) == 0)
            return false;
        if (part != 1 || *at != '.') {
            if (len && out[len - 1] != '/')
                out[len++] = '/';
            memcpy(out + len, at, part);
            len += part;
        }
        at += part;
    }
    out[len] = '\0';
    return len > 0;
}

// The path as it is stored: relative to the models folder if it is inside.
static bool
s_stored_path(const lade_records_t *self, const char *path, char out[S_MAX_PATH + 1])
{
    if (!s_tidy_path(path, out))
        return false;
    size_t root = strlen(self->models_dir);
    if (strncmp(out, self->models_dir, root) == 0 && out[root] == '/' && out[root + 1])
        memmove(out, out + root + 1, strlen(out + root + 1) + 1);
    return true;
}

static lade_code_t
s_store_path(const lade_records_t *self, json_t *record, lade_error_t *error)
{
    char path[S_MAX_PATH + 1];
    if (!s_stored_path(self, lade_json_text(record, "path", ""), path))
        return lade_error_set(
            error, LADE_INVALID_MODEL_CONFIG,
            "path: takes a path without '..', absolute or below the models folder");
    json_object_set_new_nocheck(record, "path", json_string_nocheck(path));
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Indexes

static size_t
s_index_prefix(const char *value, size_t len, char *out)
{
    size_t at = lade_store_key(value, len, S_MAX_VALUE, out);
    out[at] = '\0';
    return at + 1;
}

static lade_code_t
s_index_value(lade_records_t *self, lade_db_t db, const json_t *value, const char *key, bool add,
              lade_error_t *error)
{
    size_t len = json_string_length(value);
    if (!len)
        return LADE_OK;
    char entry[LADE_STORE_MAX_KEY];
    size_t at = s_index_prefix(json_string_value(value), len, entry);
    memcpy(entry + at, key, strlen(key));
    at += strlen(key);
    return add ? lade_store_put(self->store, db, entry, at, "", 0, false, error)
               : lade_store_del(self->store, db, entry, at, error);
}

// Adds or removes all index entries of a record.
static lade_code_t
s_index(lade_records_t *self, const json_t *record, bool add, lade_error_t *error)
{
    const char *key = lade_json_text(record, "key", "");
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < S_INDEXES && !code; i++) {
        const json_t *value = json_object_get(record, s_indexes[i].field);
        if (!json_is_array(value))
            code = s_index_value(self, s_indexes[i].db, value, key, add, error);
        for (size_t j = 0; j < json_array_size(value) && !code; j++)
            code = s_index_value(self, s_indexes[i].db, json_array_get(value, j), key, add, error);
    }
    return code;
}

// ---------------------------------------------------------------------------------------------------
// One record

static lade_code_t
s_write(lade_records_t *self, const json_t *record, lade_error_t *error)
{
    const char *key = lade_json_text(record, "key", "");
    lade_buf_t bytes = LADE_BUF(LADE_WIRE_MAX_BODY);
    lade_code_t code = lade_wire_from_json(record, &bytes, error);
    if (!code)
        code = lade_store_put(self->store, LADE_DB_MODELS, key, strlen(key), bytes.data, bytes.len,
                              false, error);
    lade_buf_free(&bytes);
    return code ? code : s_index(self, record, true, error);
}

static lade_code_t
s_decode(lade_bytes_t bytes, json_t **record_p, lade_error_t *error)
{
    lade_code_t code = lade_wire_to_json(bytes.data, bytes.len, record_p, error);
    if (!code && json_is_object(*record_p))
        return LADE_OK;
    json_decref(*record_p);
    *record_p = NULL;
    return lade_error_set(
        error, LADE_CORRUPT,
        "a model record in the keyspace cannot be read; restore the keyspace from a copy");
}

lade_code_t
lade_records_get(lade_records_t *self, const char *key, json_t **record_p, lade_error_t *error)
{
    lade_bytes_t bytes;
    *record_p = NULL;
    lade_code_t code = lade_store_get(self->store, LADE_DB_MODELS, key, strlen(key), &bytes, error);
    if (code == LADE_NOT_FOUND)
        return lade_error_set(error, LADE_UNKNOWN_MODEL,
                              "no model has the key '%.80s' (`lade ls` shows all)", key);
    return code ? code : s_decode(bytes, record_p, error);
}

bool
lade_records_exists(lade_records_t *self, const char *key)
{
    lade_bytes_t bytes;
    return lade_store_get(self->store, LADE_DB_MODELS, key, strlen(key), &bytes, NULL) == LADE_OK;
}

static lade_code_t
s_check_path_free(lade_records_t *self, const json_t *record, lade_error_t *error)
{
    json_t *other;
    const char *path = lade_json_text(record, "path", "");
    lade_code_t code = lade_records_by_path(self, path, &other, error);
    if (other && strcmp(lade_json_text(other, "key", ""), lade_json_text(record, "key", "")) != 0)
        code = lade_error_set(
            error, LADE_DUPLICATE_MODEL,
            "a model with path '%.300s' is already installed (key %s); remove that one "
            "first, or choose another path",
            path, lade_json_text(other, "key", ""));
    json_decref(other);
    return code;
}

static void
s_drop_nulls(json_t *record)
{
    const char *name;
    json_t *value;
    void *next;
    json_object_foreach_safe(record, next, name, value)
    {
        if (json_is_null(value))
            json_object_del(record, name);
    }
}

static lade_code_t
s_add(lade_records_t *self, json_t *record, lade_error_t *error)
{
    lade_code_t code = lade_record_check(record, error);
    if (!code)
        code = s_store_path(self, record, error);
    if (!code && lade_records_exists(self, lade_json_text(record, "key", "")))
        code = lade_error_set(error, LADE_DUPLICATE_MODEL,
                              "a model with key '%s' is already installed; update or remove it",
                              lade_json_text(record, "key", ""));
    if (!code)
        code = s_check_path_free(self, record, error);
    return code ? code : s_write(self, record, error);
}

lade_code_t
lade_records_add(lade_records_t *self, const json_t *record, json_t **stored_p, lade_error_t *error)
{
    *stored_p = NULL;
    if (!json_is_object(record))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "a model record has to be a map");
    json_t *copy = json_deep_copy(record);
    lade_record_canonical(copy);
    s_drop_nulls(copy);
    lade_record_settle_bases(copy);
    if (!json_object_get(copy, "key")) {
        char key[33];
        lade_record_new_key(key);
        json_object_set_new(copy, "key", json_string(key));
    }
    double now = lade_now();
    json_object_set_new(copy, "created_at", json_real(now));
    json_object_set_new(copy, "updated_at", json_real(now));
    json_object_set_new(copy, "version", json_integer(1));
    lade_code_t code = s_add(self, copy, error);
    if (code)
        json_decref(copy);
    else
        *stored_p = copy;
    return code;
}

// What the broker keeps by itself may be in the changes, as clients send whole records back, but
// sets nothing.
static json_t *
s_own_changes(const json_t *changes)
{
    json_t *own = json_copy((json_t *)changes);
    json_object_del(own, "created_at");
    json_object_del(own, "updated_at");
    json_object_del(own, "version");
    return own;
}

static lade_code_t
s_check_version(const json_t *record, const json_t *changes, lade_error_t *error)
{
    const json_t *wanted = json_object_get(changes, "version");
    if (!wanted || json_is_null(wanted) ||
        json_equal((json_t *)wanted, json_object_get(record, "version")))
        return LADE_OK;
    return lade_error_set(error, LADE_STALE_RECORD,
                          "the record was changed meanwhile: its version is %" PRId64
                          ", the change is meant for another; read it again",
                          lade_json_int(record, "version", 0));
}

static lade_code_t
s_replace(lade_records_t *self, const json_t *old, json_t *record, lade_error_t *error)
{
    json_object_set_new(record, "updated_at", json_real(lade_now()));
    json_object_set_new(record, "version", json_integer(lade_json_int(old, "version", 0) + 1));
    lade_code_t code = s_store_path(self, record, error);
    if (!code)
        code = s_check_path_free(self, record, error);
    if (!code)
        code = s_index(self, old, false, error);
    return code ? code : s_write(self, record, error);
}

lade_code_t
lade_records_update(lade_records_t *self, const char *key, const json_t *changes, json_t **stored_p,
                    lade_error_t *error)
{
    json_t *old, *record = NULL, *own = s_own_changes(changes);
    *stored_p = NULL;
    lade_code_t code = lade_records_get(self, key, &old, error);
    if (!code)
        code = s_check_version(old, changes, error);
    if (!code)
        code = lade_record_apply(old, own, &record, error);
    if (!code)
        code = s_replace(self, old, record, error);
    json_decref(old);
    json_decref(own);
    if (code)
        json_decref(record);
    else
        *stored_p = record;
    return code;
}

lade_code_t
lade_records_del(lade_records_t *self, const char *key, json_t **removed_p, lade_error_t *error)
{
    json_t *record;
    if (removed_p)
        *removed_p = NULL;
    lade_code_t code = lade_records_get(self, key, &record, error);
    if (!code)
        code = s_index(self, record, false, error);
    if (!code)
        code = lade_store_del(self->store, LADE_DB_MODELS, key, strlen(key), error);
    if (code || !removed_p)
        json_decref(record);
    else
        *removed_p = record;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Searching: candidates from an index or from all records, then each is asked

typedef struct {
    lade_records_t *records;
    json_t *list; // what was found
    const char *name, *base, *type, *format, *path;
    const json_t *tags;
    lade_code_t code;
    lade_error_t *error;
} s_search_t;

static bool
s_is(const json_t *record, const char *field, const char *wanted)
{
    const json_t *value = json_object_get(record, field);
    return !wanted || (json_is_string(value) && strcmp(json_string_value(value), wanted) == 0);
}

static bool
s_has_tag(const json_t *record, const json_t *tag)
{
    const json_t *tags = json_object_get(record, "tags");
    for (size_t i = 0; i < json_array_size(tags); i++)
        if (json_equal(json_array_get(tags, i), (json_t *)tag))
            return true;
    return false;
}

static bool
s_matches(const s_search_t *search, const json_t *record)
{
    for (size_t i = 0; i < json_array_size(search->tags); i++)
        if (!s_has_tag(record, json_array_get(search->tags, i)))
            return false;
    return s_is(record, "name", search->name) && s_is(record, "base", search->base) &&
           s_is(record, "type", search->type) && s_is(record, "format", search->format) &&
           s_is(record, "path", search->path);
}

static bool
s_on_record(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)key;
    s_search_t *search = arg;
    json_t *record;
    search->code = s_decode(value, &record, search->error);
    if (search->code)
        return false;
    if (s_matches(search, record))
        json_array_append(search->list, record);
    json_decref(record);
    return true;
}

static bool
s_on_entry(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)value;
    s_search_t *search = arg;
    const char *nul = memrchr(key.data, 0, key.len);
    size_t len = nul ? key.len - (size_t)(nul + 1 - (const char *)key.data) : 0;
    lade_bytes_t bytes;
    search->code = lade_store_get(search->records->store, LADE_DB_MODELS, nul ? nul + 1 : NULL, len,
                                  &bytes, search->error);
    if (search->code == LADE_NOT_FOUND)
        search->code =
            lade_error_set(search->error, LADE_CORRUPT,
                           "an index of the keyspace names a model that is not there; restore the "
                           "keyspace from a copy");
    return !search->code && s_on_record(search, key, bytes);
}

// Fills search->list; value NULL asks every record, else those the index db has for it.
static lade_code_t
s_run(s_search_t *search, lade_db_t db, const char *value)
{
    lade_store_t *store = search->records->store;
    char prefix[LADE_STORE_MAX_KEY];
    search->list = json_array();
    size_t len = value ? s_index_prefix(value, strlen(value), prefix) : 0;
    lade_code_t code = value ? lade_store_scan(store, db, prefix, len, len, false, s_on_entry,
                                               search, search->error)
                             : lade_store_scan(store, LADE_DB_MODELS, NULL, 0, 0, false,
                                               s_on_record, search, search->error);
    if (!code)
        code = search->code;
    if (code) {
        json_decref(search->list);
        search->list = NULL;
    }
    return code;
}

static int
s_order(const void *a, const void *b)
{
    static const char *const fields[] = {"type", "base", "name", "format", "key"};
    int order = 0;
    for (size_t i = 0; i < sizeof fields / sizeof *fields && !order; i++)
        order = strcmp(lade_json_text(*(json_t *const *)a, fields[i], ""),
                       lade_json_text(*(json_t *const *)b, fields[i], ""));
    return order;
}

static lade_code_t
s_sorted(json_t *list, json_t **list_p, lade_error_t *error)
{
    size_t count = json_array_size(list);
    json_t **records = malloc((count + 1) * sizeof *records);
    if (!records) {
        json_decref(list);
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to sort %zu records", count);
    }
    for (size_t i = 0; i < count; i++)
        records[i] = json_incref(json_array_get(list, i));
    qsort(records, count, sizeof *records, s_order);
    json_array_clear(list);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, records[i]);
    free(records);
    *list_p = list;
    return LADE_OK;
}

lade_code_t
lade_records_by_path(lade_records_t *self, const char *path, json_t **record_p, lade_error_t *error)
{
    char stored[S_MAX_PATH + 1];
    *record_p = NULL;
    if (!s_stored_path(self, path, stored))
        return LADE_OK;
    s_search_t search = {.records = self, .path = stored, .error = error};
    lade_code_t code = s_run(&search, LADE_DB_MODELS_BY_PATH, stored);
    *record_p = json_incref(json_array_get(search.list, 0));
    json_decref(search.list);
    return code;
}

// The keys at the end of index entries.
static bool
s_on_key(void *arg, lade_bytes_t entry, lade_bytes_t value)
{
    (void)value;
    const char *nul = memrchr(entry.data, 0, entry.len),
               *end = (const char *)entry.data + entry.len;
    if (nul)
        json_array_append_new(arg, json_stringn_nocheck(nul + 1, (size_t)(end - nul) - 1));
    return true;
}

static lade_code_t
s_keys_in(lade_records_t *self, lade_db_t db, const char *value, json_t **keys_p,
          lade_error_t *error)
{
    char prefix[LADE_STORE_MAX_KEY];
    size_t len = s_index_prefix(value, strlen(value), prefix);
    *keys_p = json_array();
    lade_code_t code =
        lade_store_scan(self->store, db, prefix, len, len, false, s_on_key, *keys_p, error);
    if (code) {
        json_decref(*keys_p);
        *keys_p = NULL;
    }
    return code;
}

lade_code_t
lade_records_key_of_path(lade_records_t *self, const char *path, char *key, lade_error_t *error)
{
    char stored[S_MAX_PATH + 1];
    json_t *keys = NULL;
    *key = '\0';
    if (!s_stored_path(self, path, stored))
        return LADE_OK;
    lade_code_t code = s_keys_in(self, LADE_DB_MODELS_BY_PATH, stored, &keys, error);
    if (!code && json_array_size(keys))
        snprintf(key, LADE_STORE_MAX_KEY + 1, "%s", json_string_value(json_array_get(keys, 0)));
    json_decref(keys);
    return code;
}

lade_code_t
lade_records_keys_by_hash(lade_records_t *self, const char *hash, json_t **keys_p,
                          lade_error_t *error)
{
    return s_keys_in(self, LADE_DB_MODELS_BY_HASH, hash, keys_p, error);
}

lade_code_t
lade_records_keys_by_source(lade_records_t *self, const char *source, json_t **keys_p,
                            lade_error_t *error)
{
    return s_keys_in(self, LADE_DB_MODELS_BY_SOURCE, source, keys_p, error);
}

lade_code_t
lade_records_search(lade_records_t *self, const char *name, const char *base, const char *type,
                    const char *format, json_t **list_p, lade_error_t *error)
{
    *list_p = NULL;
    s_search_t search = {.records = self,
                         .name = name,
                         .base = base,
                         .type = type,
                         .format = format,
                         .error = error};
    lade_code_t code = s_run(&search, LADE_DB_MODELS_BY_NAME, name);
    return code ? code : s_sorted(search.list, list_p, error);
}

lade_code_t
lade_records_by_tags(lade_records_t *self, const json_t *tags, json_t **list_p, lade_error_t *error)
{
    *list_p = NULL;
    bool fine = json_is_array(tags) && json_array_size(tags) > 0;
    for (size_t i = 0; i < json_array_size(tags) && fine; i++)
        fine = json_string_length(json_array_get(tags, i)) > 0;
    if (!fine)
        return lade_error_set(error, LADE_VALUE_ERROR, "tags: takes a list of one or more texts");
    s_search_t search = {.records = self, .tags = tags, .error = error};
    lade_code_t code =
        s_run(&search, LADE_DB_MODELS_BY_TAG, json_string_value(json_array_get(tags, 0)));
    return code ? code : s_sorted(search.list, list_p, error);
}

lade_code_t
lade_records_one(lade_records_t *self, const char *name, const char *base, const char *type,
                 json_t **record_p, lade_error_t *error)
{
    json_t *list;
    *record_p = NULL;
    lade_code_t code = lade_records_search(self, name, base, type, NULL, &list, error);
    if (code)
        return code;
    size_t count = json_array_size(list);
    if (count == 1) {
        *record_p = json_incref(json_array_get(list, 0));
    } else if (count == 0) {
        code = lade_error_set(error, LADE_UNKNOWN_MODEL,
                              "no model has name '%.200s', base '%.40s', type '%.40s'",
                              name ? name : "any", base ? base : "any", type ? type : "any");
    } else {
        lade_buf_t keys = LADE_BUF(400);
        for (size_t i = 0; i < count; i++)
            lade_buf_addf(&keys, NULL, "%s%s", i ? ", " : "",
                          lade_json_text(json_array_get(list, i), "key", ""));
        code = lade_error_set(error, LADE_DUPLICATE_MODEL,
                              "%zu models have that name, base and type; name one by its key: %s",
                              count, lade_buf_text(&keys));
        lade_buf_free(&keys);
    }
    json_decref(list);
    return code;
}
