// Model records in the keyspace: adding, changing and removing them. The indexes are in
// records_index.c, finding is in records_find.c.
#include "broker/records_private.h"

#include "broker/packer.h"
#include "broker/peek.h"
#include "common/path.h"
#include "common/record.h"
#include "common/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const lade_bytes_t s_nothing = {NULL, 0};

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
s_tidy_path(const char *path, char out[LADE_RECORDS_MAX_PATH + 1])
{
    size_t len = 0;
    if (strlen(path) > LADE_RECORDS_MAX_PATH)
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

bool
lade_records_stored_path(const lade_records_t *self, const char *path,
                         char out[LADE_RECORDS_MAX_PATH + 1])
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
    char path[LADE_RECORDS_MAX_PATH + 1];
    if (!lade_records_stored_path(self, lade_json_text(record, "path", ""), path))
        return lade_error_set(
            error, LADE_INVALID_MODEL_CONFIG,
            "path: takes a path without '..', absolute or below the models folder");
    json_object_set_new_nocheck(record, "path", json_string_nocheck(path));
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// One record

// Writes a record and what it changes in the indexes; before is what is stored (nothing: it is new)
// and does not point into the keyspace.
static lade_code_t
s_write(lade_records_t *self, lade_bytes_t before, const json_t *record, lade_error_t *error)
{
    const char *key = lade_json_text(record, "key", "");
    lade_buf_t bytes = LADE_BUF(LADE_WIRE_MAX_BODY);
    lade_code_t code = lade_wire_from_json(record, &bytes, error);
    if (!code)
        code = lade_store_put(self->store, LADE_DB_MODELS, key, strlen(key), bytes.data, bytes.len,
                              false, error);
    if (!code)
        code =
            lade_records_reindex(self->store, before, (lade_bytes_t){bytes.data, bytes.len}, error);
    lade_buf_free(&bytes);
    return code;
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
lade_records_get_stored(lade_records_t *self, const char *key, lade_bytes_t *bytes,
                        lade_error_t *error)
{
    lade_code_t code = lade_store_get(self->store, LADE_DB_MODELS, key, strlen(key), bytes, error);
    if (code == LADE_NOT_FOUND)
        return lade_error_set(error, LADE_UNKNOWN_MODEL,
                              "no model has the key '%.80s' (`lade ls` shows all)", key);
    return code;
}

lade_code_t
lade_records_get(lade_records_t *self, const char *key, json_t **record_p, lade_error_t *error)
{
    lade_bytes_t bytes;
    *record_p = NULL;
    lade_code_t code = lade_records_get_stored(self, key, &bytes, error);
    return code ? code : s_decode(bytes, record_p, error);
}

lade_code_t
lade_records_get_packed(lade_records_t *self, const char *key, lade_bytes_t *record,
                        lade_error_t *error)
{
    lade_code_t code = lade_records_get_stored(self, key, record, error);
    if (code || lade_wire_check(record->data, record->len, NULL) == LADE_OK)
        return code;
    json_t *none;
    return s_decode(*record, &none, error);
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
    return code ? code : s_write(self, s_nothing, record, error);
}

// What a record from elsewhere says about itself is kept where it says it.
static void
s_set_history(json_t *record, bool kept)
{
    double now = lade_now();
    if (!kept || !json_object_get(record, "created_at"))
        json_object_set_new(record, "created_at", json_real(now));
    if (!kept || !json_object_get(record, "updated_at"))
        json_object_set_new(record, "updated_at", json_real(now));
    if (!kept || !json_object_get(record, "version"))
        json_object_set_new(record, "version", json_integer(1));
}

static lade_code_t
s_add_new(lade_records_t *self, const json_t *record, bool kept, json_t **stored_p,
          lade_error_t *error)
{
    *stored_p = NULL;
    if (!json_is_object(record))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "a model record has to be a map");
    json_t *copy = json_copy((json_t *)record), *bases = json_object_get(copy, "bases");
    if (bases) // the one thing within that may be changed here
        json_object_set_new(copy, "bases", json_deep_copy(bases));
    lade_record_canonical(copy);
    s_drop_nulls(copy);
    lade_record_settle_bases(copy);
    if (!json_object_get(copy, "key")) {
        char key[33];
        lade_record_new_key(key);
        json_object_set_new(copy, "key", json_string(key));
    }
    s_set_history(copy, kept);
    lade_code_t code = s_add(self, copy, error);
    if (code)
        json_decref(copy);
    else
        *stored_p = copy;
    return code;
}

lade_code_t
lade_records_add(lade_records_t *self, const json_t *record, json_t **stored_p, lade_error_t *error)
{
    return s_add_new(self, record, false, stored_p, error);
}

lade_code_t
lade_records_import(lade_records_t *self, const json_t *record, json_t **stored_p,
                    lade_error_t *error)
{
    return s_add_new(self, record, true, stored_p, error);
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
s_replace(lade_records_t *self, lade_bytes_t before, const json_t *old, json_t *record,
          lade_error_t *error)
{
    json_object_set_new(record, "updated_at", json_real(lade_now()));
    json_object_set_new(record, "version", json_integer(lade_json_int(old, "version", 0) + 1));
    lade_code_t code = s_store_path(self, record, error);
    if (!code)
        code = s_check_path_free(self, record, error);
    return code ? code : s_write(self, before, record, error);
}

// A copy of what is stored: what points into the keyspace is gone with the first write.
static lade_code_t
s_copy(lade_records_t *self, const char *key, lade_buf_t *copy, lade_error_t *error)
{
    lade_bytes_t bytes;
    lade_code_t code = lade_records_get_stored(self, key, &bytes, error);
    *copy = LADE_BUF(SIZE_MAX / 2);
    return code ? code : lade_buf_add(copy, bytes.data, bytes.len, error);
}

lade_code_t
lade_records_update(lade_records_t *self, const char *key, const json_t *changes, json_t **stored_p,
                    lade_error_t *error)
{
    json_t *old = NULL, *record = NULL, *own = s_own_changes(changes);
    lade_buf_t before;
    *stored_p = NULL;
    lade_code_t code = s_copy(self, key, &before, error);
    if (!code)
        code = s_decode((lade_bytes_t){before.data, before.len}, &old, error);
    if (!code)
        code = s_check_version(old, changes, error);
    if (!code)
        code = lade_record_apply(old, own, &record, error);
    if (!code)
        code = s_replace(self, (lade_bytes_t){before.data, before.len}, old, record, error);
    json_decref(old);
    json_decref(own);
    lade_buf_free(&before);
    if (code)
        json_decref(record);
    else
        *stored_p = record;
    return code;
}

lade_code_t
lade_records_del(lade_records_t *self, const char *key, json_t **removed_p, lade_error_t *error)
{
    json_t *record = NULL;
    lade_buf_t before;
    if (removed_p)
        *removed_p = NULL;
    lade_code_t code = s_copy(self, key, &before, error);
    if (!code)
        code = s_decode((lade_bytes_t){before.data, before.len}, &record, error);
    if (!code)
        code = lade_records_reindex(self->store, (lade_bytes_t){before.data, before.len}, s_nothing,
                                    error);
    if (!code)
        code = lade_store_del(self->store, LADE_DB_MODELS, key, strlen(key), error);
    lade_buf_free(&before);
    if (code || !removed_p)
        json_decref(record);
    else
        *removed_p = record;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// By path, by hash, by key

// The keys at the end of index entries.
static bool
s_on_key(void *arg, lade_bytes_t entry, lade_bytes_t value)
{
    (void)value;
    lade_bytes_t key;
    if (lade_records_key_in(entry, &key))
        json_array_append_new(arg, json_stringn_nocheck(key.data, key.len));
    return true;
}

static lade_code_t
s_keys_in(lade_records_t *self, lade_index_t index, const char *value, json_t **keys_p,
          lade_error_t *error)
{
    const char *values[] = {value, NULL};
    char prefix[LADE_STORE_MAX_KEY];
    size_t len = lade_records_prefix(index, values, prefix);
    *keys_p = json_array();
    lade_code_t code = lade_store_scan(self->store, lade_records_index_row(index)->db, prefix, len,
                                       len, false, s_on_key, *keys_p, error);
    if (code) {
        json_decref(*keys_p);
        *keys_p = NULL;
    }
    return code;
}

lade_code_t
lade_records_key_of_path(lade_records_t *self, const char *path, char *key, lade_error_t *error)
{
    char stored[LADE_RECORDS_MAX_PATH + 1];
    json_t *keys = NULL;
    *key = '\0';
    if (!lade_records_stored_path(self, path, stored))
        return LADE_OK;
    lade_code_t code = s_keys_in(self, LADE_INDEX_PATH, stored, &keys, error);
    if (!code && json_array_size(keys))
        snprintf(key, LADE_STORE_MAX_KEY + 1, "%s", json_string_value(json_array_get(keys, 0)));
    json_decref(keys);
    return code;
}

lade_code_t
lade_records_keys_by_hash(lade_records_t *self, const char *hash, json_t **keys_p,
                          lade_error_t *error)
{
    return s_keys_in(self, LADE_INDEX_HASH, hash, keys_p, error);
}

lade_code_t
lade_records_keys_by_source(lade_records_t *self, const char *source, json_t **keys_p,
                            lade_error_t *error)
{
    return s_keys_in(self, LADE_INDEX_SOURCE, source, keys_p, error);
}

lade_code_t
lade_records_by_path(lade_records_t *self, const char *path, json_t **record_p, lade_error_t *error)
{
    char key[LADE_STORE_MAX_KEY + 1];
    *record_p = NULL;
    lade_code_t code = lade_records_key_of_path(self, path, key, error);
    if (code || !*key)
        return code;
    code = lade_records_get(self, key, record_p, error);
    return code == LADE_UNKNOWN_MODEL
               ? lade_error_set(error, LADE_CORRUPT,
                                "an index of the keyspace names a model that is not there; "
                                "`lade doctor` says more")
               : code;
}

typedef struct {
    size_t limit, count;
    lade_buf_t *buf;
} s_range_t;

static bool
s_on_record(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    (void)key;
    s_range_t *range = arg;
    if (lade_wire_check(value.data, value.len, NULL) == LADE_OK) {
        lade_put_raw(range->buf, value.data, value.len);
        range->count++;
    }
    return range->count < range->limit;
}

lade_code_t
lade_records_by_key(lade_records_t *self, const char *beginning, size_t limit, lade_buf_t *buf,
                    size_t *count_p, lade_error_t *error)
{
    s_range_t range = {.limit = limit, .buf = buf};
    size_t len = strlen(beginning);
    lade_code_t code = LADE_OK;
    if (limit && len <= LADE_RECORDS_MAX_KEY)
        code = lade_store_scan(self->store, LADE_DB_MODELS, beginning, len, len, false, s_on_record,
                               &range, error);
    *count_p = range.count;
    return code;
}

lade_code_t
lade_records_one(lade_records_t *self, const char *name, const char *base, const char *type,
                 json_t **record_p, lade_error_t *error)
{
    enum { S_NAMED = 10 }; // keys that an error lists
    lade_records_query_t query = {.name = name, .base = base, .type = type, .limit = S_NAMED};
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2), keys = LADE_BUF(600);
    size_t count;
    uint64_t total = 0;
    *record_p = NULL;
    lade_code_t code = lade_records_find(self, &query, &buf, &count, &total, error);
    if (!code && total == 0) {
        code = lade_error_set(error, LADE_UNKNOWN_MODEL,
                              "no model has the name '%.200s'%s%.40s%s%.40s", name ? name : "",
                              base ? " and the base " : "", base ? base : "",
                              type ? " and the type " : "", type ? type : "");
    } else if (!code && total == 1) {
        code = s_decode((lade_bytes_t){buf.data, buf.len}, record_p, error);
    } else if (!code) {
        size_t at = 0;
        lade_bytes_t record, key;
        while (lade_peek_next((lade_bytes_t){buf.data, buf.len}, &at, &record))
            if (lade_peek_text(record, "key", &key))
                lade_buf_addf(&keys, NULL, "%s%.*s", keys.len ? ", " : "", (int)key.len,
                              (const char *)key.data);
        code = lade_error_set(error, LADE_DUPLICATE_MODEL,
                              "%" PRIu64 " models have that name, base and type; name one by its "
                              "key: %s%s",
                              total, lade_buf_text(&keys), total > count ? ", …" : "");
    }
    lade_buf_free(&keys);
    lade_buf_free(&buf);
    return code;
}
