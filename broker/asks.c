// Asks: a table of questions about records and jobs.
//
// A scan of thousands of models asks for all their paths at once, so paths are looked up in the
// index alone and records are copied as they are stored.
#include "broker/asks.h"

#include "broker/jobs.h"
#include "broker/packer.h"
#include "broker/secrets.h"
#include "common/wire.h"

#include <czmq.h>

enum {
    S_PATHS = LADE_BROKER_MAX_CHILDREN, // of one known_paths
    S_KEYS = 10000,                     // of one records
    S_PAGE = 1000,                      // records of one page, and those with one hash
    S_FIELDS = 64,
};

typedef struct {
    lade_broker_t *broker;
    const msgpack_object *ask;
    lade_buf_t *buf; // where the answer goes
    size_t most;     // bytes buf may have
} s_ask_t;

static lade_code_t
s_too_much(const s_ask_t *self, lade_error_t *error)
{
    return lade_error_set(error, LADE_TOO_LARGE,
                          "the answers do not fit into broker.max_message_bytes (%" PRId64
                          "); ask for less at once",
                          self->broker->config->max_message_bytes);
}

// An array of text in the ask; *array_p NULL if there is none and that is allowed.
static lade_code_t
s_texts(const s_ask_t *self, const char *name, size_t most, bool needed,
        const msgpack_object_array **array_p, lade_error_t *error)
{
    const msgpack_object *value = lade_wire_find(self->ask, name);
    *array_p = NULL;
    if (!needed && (!value || value->type == MSGPACK_OBJECT_NIL))
        return LADE_OK;
    bool fine = value && value->type == MSGPACK_OBJECT_ARRAY && value->via.array.size <= most;
    for (uint32_t i = 0; fine && i < value->via.array.size; i++)
        fine = value->via.array.ptr[i].type == MSGPACK_OBJECT_STR;
    if (!fine)
        return lade_error_set(error, LADE_BAD_REQUEST, "%s: takes an array of at most %zu texts",
                              name, most);
    *array_p = &value->via.array;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Records, as they are stored or with some fields only

static bool
s_is_field(const msgpack_object_array *fields, const msgpack_object *key)
{
    for (uint32_t i = 0; i < fields->size; i++)
        if (key->type == MSGPACK_OBJECT_STR && key->via.str.size == fields->ptr[i].via.str.size &&
            memcmp(key->via.str.ptr, fields->ptr[i].via.str.ptr, key->via.str.size) == 0)
            return true;
    return false;
}

static void
s_put_record(lade_buf_t *buf, lade_bytes_t record, const msgpack_object_array *fields)
{
    msgpack_unpacked map;
    if (!fields) {
        lade_put_raw(buf, record.data, record.len);
        return;
    }
    msgpack_unpacked_init(&map);
    msgpack_object_map pairs = {0};
    if (msgpack_unpack_next(&map, record.data, record.len, NULL) == MSGPACK_UNPACK_SUCCESS &&
        map.data.type == MSGPACK_OBJECT_MAP)
        pairs = map.data.via.map;
    uint32_t count = 0;
    for (uint32_t i = 0; i < pairs.size; i++)
        count += s_is_field(fields, &pairs.ptr[i].key);
    lade_put_map(buf, count);
    for (uint32_t i = 0; i < pairs.size; i++) {
        if (!s_is_field(fields, &pairs.ptr[i].key))
            continue;
        lade_put_object(buf, &pairs.ptr[i].key);
        lade_put_object(buf, &pairs.ptr[i].val);
    }
    msgpack_unpacked_destroy(&map);
}

// A page under way: {"records": [...], "next": key or nil}. How many records it has is known at its
// end.
typedef struct {
    const s_ask_t *ask;
    const msgpack_object_array *fields;
    size_t count, limit, head, most; // head: where the array's begins; most: bytes buf may have
    char last[LADE_STORE_MAX_KEY];   // the key that was put last
    size_t last_len, after_len;      // after_len: of the key the page begins behind
    const char *after;
    bool more;
} s_page_t;

static bool
s_add(void *arg, lade_bytes_t key, lade_bytes_t record)
{
    s_page_t *self = arg;
    if (self->after && key.len == self->after_len && memcmp(key.data, self->after, key.len) == 0)
        return true;
    self->more = self->count == self->limit ||
                 (self->count && self->ask->buf->len + record.len > self->most);
    if (self->more || key.len > sizeof self->last)
        return false;
    self->count++;
    self->last_len = key.len;
    memcpy(self->last, key.data, key.len);
    s_put_record(self->ask->buf, record, self->fields);
    return true;
}

static lade_code_t
s_add_key(s_page_t *self, const char *key, size_t len, lade_error_t *error)
{
    lade_bytes_t record;
    lade_code_t code =
        lade_store_get(self->ask->broker->store, LADE_DB_MODELS, key, len, &record, error);
    if (code)
        return code == LADE_NOT_FOUND ? LADE_OK : code;
    s_add(self, (lade_bytes_t){key, len}, record);
    return LADE_OK;
}

static lade_code_t
s_add_keys(s_page_t *self, const msgpack_object_array *keys, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    uint32_t at = 0;
    for (uint32_t i = 0; self->after && i < keys->size && at == 0; i++)
        if (keys->ptr[i].via.str.size == self->after_len &&
            memcmp(keys->ptr[i].via.str.ptr, self->after, self->after_len) == 0)
            at = i + 1;
    for (; at < keys->size && !code && !self->more; at++)
        code = s_add_key(self, keys->ptr[at].via.str.ptr, keys->ptr[at].via.str.size, error);
    return code;
}

static void
s_open_page(s_page_t *self, const s_ask_t *ask)
{
    self->ask = ask;
    size_t left = ask->most > ask->buf->len ? ask->most - ask->buf->len : 0;
    self->most = ask->buf->len + left / 4; // so that several asks have room
    self->head = ask->buf->len;
    lade_put_typed(ask->buf, 0xdd, 0, 4); // an array of a number of items that is known at the end
}

static void
s_close_page(const s_page_t *self)
{
    uint32_t count = htobe32((uint32_t)self->count);
    memcpy(self->ask->buf->data + self->head + 1, &count, sizeof count);
}

static lade_code_t
s_records(const s_ask_t *self, lade_error_t *error)
{
    const msgpack_object_array *keys;
    int64_t limit = lade_wire_int(self->ask, "limit", S_PAGE);
    s_page_t page = {.limit = (size_t)(limit < 1 ? 1 : limit > S_PAGE ? S_PAGE : limit)};
    lade_code_t code = s_texts(self, "keys", S_KEYS, false, &keys, error);
    if (!code)
        code = s_texts(self, "fields", S_FIELDS, false, &page.fields, error);
    if (code)
        return code;
    if (!lade_wire_text(self->ask, "after", &page.after, &page.after_len) || !page.after_len ||
        page.after_len > LADE_STORE_MAX_KEY)
        page.after = NULL;
    lade_put_map(self->buf, 2);
    LADE_PUT_KEY(self->buf, "records");
    s_open_page(&page, self);
    code = keys ? s_add_keys(&page, keys, error)
                : lade_store_scan(self->broker->store, LADE_DB_MODELS, page.after,
                                  page.after ? page.after_len : 0, 0, false, s_add, &page, error);
    s_close_page(&page);
    LADE_PUT_KEY(self->buf, "next");
    if (page.more)
        lade_put_strn(self->buf, page.last, page.last_len);
    else
        lade_put_nil(self->buf);
    return code;
}

// ---------------------------------------------------------------------------------------------------

typedef lade_code_t(s_key_of_t)(lade_records_t *records, const char *text, char *key,
                                lade_error_t *error);

static lade_code_t
s_key_of_source(lade_records_t *records, const char *source, char *key, lade_error_t *error)
{
    json_t *keys;
    lade_code_t code = lade_records_keys_by_source(records, source, &keys, error);
    const char *first = json_string_value(json_array_get(keys, 0));
    snprintf(key, LADE_STORE_MAX_KEY + 1, "%s", first ? first : "");
    json_decref(keys);
    return code;
}

static lade_code_t
s_known(const s_ask_t *self, const char *name, s_key_of_t *key_of, lade_error_t *error)
{
    const msgpack_object_array *texts;
    lade_code_t code = s_texts(self, name, S_PATHS, true, &texts, error);
    if (code)
        return code;
    lade_put_array(self->buf, texts->size);
    for (uint32_t i = 0; i < texts->size && !code; i++) {
        char key[LADE_STORE_MAX_KEY + 1] = "";
        char *text = strndup(texts->ptr[i].via.str.ptr, texts->ptr[i].via.str.size);
        code = key_of(self->broker->records, text ? text : "", key, error);
        lade_put_str(self->buf, *key ? key : NULL);
        free(text);
    }
    return code;
}

static lade_code_t
s_known_paths(const s_ask_t *self, lade_error_t *error)
{
    return s_known(self, "paths", lade_records_key_of_path, error);
}

static lade_code_t
s_known_sources(const s_ask_t *self, lade_error_t *error)
{
    return s_known(self, "sources", s_key_of_source, error);
}

// How many jobs of a kind have begun and not ended, and when the first of them began: files that
// came to be since then may be theirs.
static lade_code_t
s_live_jobs(const s_ask_t *self, lade_error_t *error)
{
    const char *name;
    size_t len = 0, count = 0, at = 0;
    double since = 0;
    if (!lade_wire_text(self->ask, "kind", &name, &len))
        return lade_error_set(error, LADE_BAD_REQUEST, "live_jobs: needs a text `kind`");
    for (const lade_job_t *job; (job = lade_jobs_next_live(self->broker->jobs, &at));) {
        if (lade_job_ended(job) || !(job->started > 0) || strlen(job->kind->name) != len ||
            memcmp(job->kind->name, name, len) != 0)
            continue;
        since = count++ && since < job->started ? since : job->started;
    }
    lade_put_map(self->buf, 2);
    LADE_PUT_KEY(self->buf, "count");
    lade_put_uint(self->buf, count);
    LADE_PUT_KEY(self->buf, "since");
    lade_put_time(self->buf, since);
    return LADE_OK;
}

static lade_code_t
s_by(const s_ask_t *self, const char *what,
     lade_code_t (*find)(lade_records_t *self, const char *value, json_t **keys_p,
                         lade_error_t *error),
     lade_error_t *error)
{
    static const char *const names[] = {"key",  "name", "type",      "base",
                                        "path", "hash", "file_size", "source"};
    msgpack_object list[sizeof names / sizeof *names];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        list[i] = (msgpack_object){.type = MSGPACK_OBJECT_STR,
                                   .via.str = {(uint32_t)strlen(names[i]), names[i]}};
    msgpack_object_array fields = {sizeof names / sizeof *names, list};
    json_t *keys = NULL;
    char *value = lade_wire_strdup(self->ask, what);
    lade_code_t code =
        value ? find(self->broker->records, value, &keys, error)
              : lade_error_set(error, LADE_BAD_REQUEST, "by_%s: needs a text `%s`", what, what);
    free(value);
    if (code)
        return code;
    s_page_t page = {.limit = S_PAGE, .fields = &fields};
    s_open_page(&page, self);
    for (size_t i = 0; i < json_array_size(keys) && !code; i++) {
        const json_t *key = json_array_get(keys, i);
        code = s_add_key(&page, json_string_value(key), json_string_length(key), error);
    }
    s_close_page(&page);
    json_decref(keys);
    return code;
}

static lade_code_t
s_by_hash(const s_ask_t *self, lade_error_t *error)
{
    return s_by(self, "hash", lade_records_keys_by_hash, error);
}

static lade_code_t
s_by_source(const s_ask_t *self, lade_error_t *error)
{
    return s_by(self, "source", lade_records_keys_by_source, error);
}

static const struct {
    const char *op;
    lade_code_t (*answer)(const s_ask_t *self, lade_error_t *error);
} s_asks[] = {
    {"known_paths", s_known_paths}, {"known_sources", s_known_sources}, {"records", s_records},
    {"by_hash", s_by_hash},         {"by_source", s_by_source},         {"live_jobs", s_live_jobs},
};
enum { S_ASKS = sizeof s_asks / sizeof *s_asks };

static lade_code_t
s_answer(const s_ask_t *self, lade_error_t *error)
{
    const char *op = "";
    size_t len = 0, at = 0;
    lade_wire_text(self->ask, "op", &op, &len);
    while (at < S_ASKS && (strlen(s_asks[at].op) != len || memcmp(s_asks[at].op, op, len) != 0))
        at++;
    if (at == S_ASKS)
        return lade_error_set(error, LADE_BAD_REQUEST, "there is no ask '%.*s'",
                              (int)(len < 40 ? len : 40), op);
    lade_code_t code = s_asks[at].answer(self, error);
    return code ? code : self->buf->len > self->most ? s_too_much(self, error) : LADE_OK;
}

static void
s_put_error(lade_buf_t *buf, const lade_error_t *error)
{
    lade_put_map(buf, 1);
    LADE_PUT_KEY(buf, "error");
    lade_put_map(buf, 2);
    LADE_PUT_KEY(buf, "code");
    lade_put_str(buf, lade_code_name(error->code));
    LADE_PUT_KEY(buf, "message");
    lade_put_str(buf, error->message);
}

void
lade_asks_put_answers(lade_broker_t *broker, const lade_blob_t *ask, lade_buf_t *buf)
{
    msgpack_unpacked asks;
    msgpack_unpacked_init(&asks);
    msgpack_object_array list = {0};
    if (msgpack_unpack_next(&asks, ask->data, ask->len, NULL) == MSGPACK_UNPACK_SUCCESS &&
        asks.data.type == MSGPACK_OBJECT_ARRAY)
        list = asks.data.via.array;
    size_t most = buf->len + (size_t)broker->config->max_message_bytes / 2;
    lade_put_array(buf, list.size);
    for (uint32_t i = 0; i < list.size; i++) {
        s_ask_t one = {.broker = broker, .ask = &list.ptr[i], .buf = buf, .most = most};
        size_t before = buf->len;
        lade_error_t error = {0};
        if (!s_answer(&one, &error))
            continue;
        buf->len = before;
        s_put_error(buf, &error);
    }
    msgpack_unpacked_destroy(&asks);
}

lade_code_t
lade_asks_take(lade_blob_t *ask, const msgpack_object *object, lade_error_t *error)
{
    lade_blob_free(ask);
    if (!object || object->type == MSGPACK_OBJECT_NIL)
        return LADE_OK;
    bool fine =
        object->type == MSGPACK_OBJECT_ARRAY && object->via.array.size <= LADE_BROKER_MAX_ASKS;
    for (uint32_t i = 0; fine && i < object->via.array.size; i++)
        fine = object->via.array.ptr[i].type == MSGPACK_OBJECT_MAP;
    if (!fine)
        return lade_error_set(error, LADE_BAD_REQUEST,
                              "AWAIT: `ask` is an array of at most %d maps", LADE_BROKER_MAX_ASKS);
    if (lade_secrets_named(object))
        return lade_error_set(error, LADE_BAD_REQUEST,
                              "AWAIT: nothing in `ask` may be named token; it is kept as it is");
    if (object->via.array.size)
        lade_blob_set_object(ask, object);
    return LADE_OK;
}
