// The work of tests/bench/records: the same records in lade's store, behind its broker, and in
// SQLite as the original keeps them.
//
//   records_bench load store|sqlite --dir DIR --records N
//   records_bench run store|sqlite|broker --dir DIR --records N [--seconds S] [--row NAME]
//       [--window N]
//
// load fills DIR (DIR/keyspace, or DIR/models.db) in large transactions. run does each row for S
// seconds and prints one JSON object of operations per second; broker talks to the one whose
// sockets are in DIR. Record i is the same everywhere; what is looked up is drawn by the same
// generator.
#include "broker/records.h"
#include "common/path.h"
#include "common/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#if __has_include(<sqlite3.h>)
#include <sqlite3.h>
#define S_SQLITE 1
#endif

enum {
    S_BATCH = 20000, // records of one transaction while loading
    S_NAMED = 10,    // records with one tag
    S_PAGE = 50,     // records of a page
    S_FRESH = 40000, // records that are made before the clock of a row that adds
    S_KEYS = 1 << 16,
    S_ANSWER_MS = 60000,
};

static void __attribute__((noreturn, format(printf, 1, 2))) s_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("records_bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(1);
}

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// ---------------------------------------------------------------------------------------------------
// Records

static uint64_t s_seed = 88172645463325252u;

static uint64_t
s_random(void)
{
    s_seed ^= s_seed << 13;
    s_seed ^= s_seed >> 7;
    s_seed ^= s_seed << 17;
    return s_seed;
}

// Keys rise with i, so that a million are loaded in a minute; those of fresh records are anywhere.
static void
s_key(uint64_t i, char key[33])
{
    snprintf(key, 33, "%08x%08x%08x%08x", (unsigned)i, 0x9e3779b9u * (unsigned)(i + 1),
             0x85ebca6bu * (unsigned)(i + 1), 0xc2b2ae35u * (unsigned)(i + 1));
}

static json_t *
s_record(uint64_t i, const char *key)
{
    static const char *const classes[][3] = {{"main", "sd-1", "checkpoint"},
                                             {"lora", "sdxl", "lycoris"},
                                             {"lora", "sd-1", "lycoris"},
                                             {"controlnet", "sdxl", "diffusers"},
                                             {"embedding", "sd-1", "embedding_file"}};
    const char *const *class = classes[i % 5];
    char name[64], path[128], hash[96], source[128], group[32];
    snprintf(name, sizeof name, "Model number %08llu", (unsigned long long)i);
    snprintf(path, sizeof path, "%s/%s/model-%08llu.safetensors", class[1], class[0],
             (unsigned long long)i);
    snprintf(hash, sizeof hash, "blake3:%.32s%.32s", key, key);
    snprintf(source, sizeof source, "https://models.example.org/api/download/models/%llu",
             (unsigned long long)i);
    snprintf(group, sizeof group, "group-%llu", (unsigned long long)i / S_NAMED);
    return json_pack(
        "{ss,ss,ss,ss,ss,ss,ss,ss,ss,ss,sI,s[ss],s{ss,sI,ss}}", "key", key, "name", name, "type",
        class[0], "base", class[1], "format", class[2], "path", path, "hash", hash, "description",
        "A model of the benchmark, described in a sentence of the usual length, more or less.",
        "source", source, "source_type", "url", "file_size", (json_int_t)(1000000 + i), "tags",
        group, strcmp(class[0], "main") == 0 ? "checkpoint" : "adapter", "source_api_response",
        "author", "somebody", "downloads", (json_int_t)(i * 37 % 100000), "license", "openrail");
}

static json_t *
s_fresh(uint64_t i)
{
    char key[33];
    snprintf(key, sizeof key, "%016llx%016llx", (unsigned long long)s_random(),
             (unsigned long long)s_random());
    json_t *record = s_record(i, key);
    char path[64];
    snprintf(path, sizeof path, "fresh/%s.safetensors", key);
    json_object_set_new(record, "path", json_string(path));
    return record;
}

// ---------------------------------------------------------------------------------------------------
// Engines

typedef struct s_bench s_bench_t;

// A row does count operations (as many as are outstanding at once where that is more than one).
typedef struct {
    const char *name;
    size_t at_once;
    bool adds;
    void (*run)(s_bench_t *self, size_t count);
} s_row_t;

struct s_bench {
    const char *dir, *engine, *row; // row: the only one; NULL: all
    uint64_t records, added;
    double seconds;
    size_t window;
    json_t **fresh; // S_FRESH records, made before the clock
    size_t fresh_at;
    char (*keys)[33]; // S_KEYS of records that are there
    size_t key_at;
    lade_buf_t *packed; // the same, as requests
    size_t bytes;       // of what was answered, so that nobody can leave the work out
    lade_store_t *store;
    lade_records_t *model;
    void *context, *socket;
    uint64_t id;
#ifdef S_SQLITE
    sqlite3 *db;
    sqlite3_stmt *add, *add_tag, *tag_model, *get, *by_name, *by_tag, *page, *begin, *commit;
#endif
};

// Keys are drawn and written before the clock: they cost as much as a look-up.
static const char *
s_next_key(s_bench_t *self)
{
    return self->keys[self->key_at++ % S_KEYS];
}

static uint64_t
s_any(const s_bench_t *self)
{
    return s_random() % self->records;
}

static const json_t *
s_next_fresh(s_bench_t *self)
{
    if (self->fresh_at == S_FRESH)
        s_die("more than %d records added in one row", S_FRESH);
    return self->fresh[self->fresh_at++];
}

// ---------------------------------------------------------------------------------------------------
// lade's store

static void
s_store_open(s_bench_t *self)
{
    lade_error_t error;
    char *folder = lade_path_join(self->dir, "keyspace");
    if (lade_store_open(folder, &self->store, &error))
        s_die("%s", error.message);
    self->model = lade_records_new(self->store, "/var/lib/lade/models");
    free(folder);
}

static void
s_store_add_one(s_bench_t *self, const json_t *record)
{
    lade_error_t error;
    json_t *stored;
    if (lade_records_add(self->model, record, &stored, &error))
        s_die("%s", error.message);
    json_decref(stored);
}

static void
s_store_commit(s_bench_t *self)
{
    lade_error_t error;
    if (lade_store_commit(self->store, &error))
        s_die("%s", error.message);
}

static void
s_store_load(s_bench_t *self)
{
    for (uint64_t i = 0; i < self->records; i++) {
        char key[33];
        s_key(i, key);
        json_t *record = s_record(i, key);
        s_store_add_one(self, record);
        json_decref(record);
        if ((i + 1) % S_BATCH == 0)
            s_store_commit(self);
    }
    s_store_commit(self);
}

static void
s_store_add(s_bench_t *self, size_t count)
{
    for (size_t i = 0; i < count; i++)
        s_store_add_one(self, s_next_fresh(self));
    s_store_commit(self);
}

static void
s_store_get(s_bench_t *self, size_t count)
{
    lade_error_t error;
    lade_bytes_t record;
    char copy[4096];
    for (size_t i = 0; i < count; i++) {
        if (lade_records_get_stored(self->model, s_next_key(self), &record, &error))
            s_die("%s", error.message);
        memcpy(copy, record.data, record.len < sizeof copy ? record.len : sizeof copy);
        self->bytes += record.len;
    }
}

static void
s_store_find(s_bench_t *self, const lade_records_query_t *query, size_t wanted)
{
    lade_error_t error;
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    size_t found;
    if (lade_records_find(self->model, query, &buf, &found, NULL, &error))
        s_die("%s", error.message);
    if (found != wanted)
        s_die("%zu records found, %zu are there", found, wanted);
    self->bytes += buf.len;
    lade_buf_free(&buf);
}

static void
s_store_name(s_bench_t *self, size_t count)
{
    char name[64];
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "Model number %08llu", (unsigned long long)s_any(self));
        s_store_find(self, &(lade_records_query_t){.name = name, .limit = 1000}, 1);
    }
}

static void
s_store_tag(s_bench_t *self, size_t count)
{
    char tag[32];
    for (size_t i = 0; i < count; i++) {
        snprintf(tag, sizeof tag, "group-%llu", (unsigned long long)s_any(self) / S_NAMED);
        json_t *tags = json_pack("[s]", tag);
        s_store_find(self, &(lade_records_query_t){.tags = tags, .limit = 1000}, S_NAMED);
        json_decref(tags);
    }
}

static void
s_store_page(s_bench_t *self, size_t count)
{
    for (size_t i = 0; i < count; i++)
        s_store_find(self, &(lade_records_query_t){.limit = S_PAGE}, S_PAGE);
}

static const s_row_t s_store_rows[] = {
    {"get", 64, false, s_store_get}, {"name", 1, false, s_store_name},
    {"tag", 1, false, s_store_tag},  {"page", 1, false, s_store_page},
    {"add", 1, true, s_store_add},   {"add_many", 64, true, s_store_add},
    {NULL, 0, false, NULL},
};

// ---------------------------------------------------------------------------------------------------
// The broker

static void
s_broker_open(s_bench_t *self)
{
    char endpoint[512];
    int linger = 0, unlimited = 0, patience = S_ANSWER_MS;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/clients", self->dir);
    self->context = zmq_ctx_new();
    self->socket = zmq_socket(self->context, ZMQ_DEALER);
    zmq_setsockopt(self->socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(self->socket, ZMQ_SNDHWM, &unlimited, sizeof unlimited);
    zmq_setsockopt(self->socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited);
    zmq_setsockopt(self->socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    if (zmq_connect(self->socket, endpoint) != 0)
        s_die("%s: %s", endpoint, zmq_strerror(zmq_errno()));
}

static void
s_pack(lade_buf_t *buf, uint64_t id, const char *op, json_t *args)
{
    json_t *body = json_pack("{sI,ss,so}", "id", (json_int_t)id, "op", op, "args", args);
    lade_buf_clear(buf);
    if (lade_wire_from_json(body, buf, NULL))
        s_die("a request cannot be packed");
    json_decref(body);
}

static void
s_send(s_bench_t *self, const lade_buf_t *body)
{
    zmq_send(self->socket, "", 0, ZMQ_SNDMORE);
    zmq_send(self->socket, LADE_MDP_CLIENT, 6, ZMQ_SNDMORE);
    zmq_send(self->socket, "\x01", 1, ZMQ_SNDMORE);
    zmq_send(self->socket, "store", 5, ZMQ_SNDMORE);
    zmq_send(self->socket, body->data, body->len, 0);
}

// The next answer has to be one that says ok.
static void
s_receive(s_bench_t *self)
{
    int more = 1;
    size_t size = sizeof more;
    while (more) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, self->socket, 0) < 0)
            s_die("no answer: %s", zmq_strerror(zmq_errno()));
        zmq_getsockopt(self->socket, ZMQ_RCVMORE, &more, &size);
        size_t len = zmq_msg_size(&frame);
        if (!more && !memmem(zmq_msg_data(&frame), len, "\xa2ok\xc3", 4))
            s_die("refused: %.*s", (int)len, (const char *)zmq_msg_data(&frame));
        self->bytes += len;
        zmq_msg_close(&frame);
    }
}

// count requests, window of them outstanding at a time.
static void
s_ask(s_bench_t *self, size_t count, size_t window, json_t *(*args)(s_bench_t *self),
      const char *op)
{
    lade_buf_t body = LADE_BUF(1 << 20);
    size_t sent = 0;
    for (size_t got = 0; got < count; got++) {
        for (; sent < count && sent - got < window; sent++) {
            s_pack(&body, ++self->id, op, args(self));
            s_send(self, &body);
        }
        s_receive(self);
    }
    lade_buf_free(&body);
}

static json_t *
s_key_args(s_bench_t *self)
{
    return json_pack("{ss}", "key", s_next_key(self));
}

static json_t *
s_name_args(s_bench_t *self)
{
    char name[64];
    snprintf(name, sizeof name, "Model number %08llu", (unsigned long long)s_any(self));
    return json_pack("{ss}", "name", name);
}

static json_t *
s_tag_args(s_bench_t *self)
{
    char tag[32];
    snprintf(tag, sizeof tag, "group-%llu", (unsigned long long)s_any(self) / S_NAMED);
    return json_pack("{s[s]}", "tags", tag);
}

static json_t *
s_page_args(s_bench_t *self)
{
    (void)self;
    return json_pack("{si}", "limit", S_PAGE);
}

static void
s_broker_get(s_bench_t *self, size_t count)
{
    s_ask(self, count, count, s_key_args, "get_model");
}

static void
s_broker_name(s_bench_t *self, size_t count)
{
    s_ask(self, count, count, s_name_args, "search_by_name");
}

static void
s_broker_tag(s_bench_t *self, size_t count)
{
    s_ask(self, count, count, s_tag_args, "search_by_tag");
}

static void
s_broker_page(s_bench_t *self, size_t count)
{
    s_ask(self, count, count, s_page_args, "all_models");
}

// Requests are packed before the clock, as the others' records are made.
static void
s_broker_add(s_bench_t *self, size_t count)
{
    size_t first = self->fresh_at, sent = 0;
    for (size_t got = 0; got < count; got++) {
        for (; sent < count; sent++) {
            s_next_fresh(self);
            s_send(self, &self->packed[first + sent]);
        }
        s_receive(self);
    }
}

// Keeps window adds outstanding throughout: count is how many are sent while as many are answered.
static void
s_broker_add_many(s_bench_t *self, size_t count)
{
    size_t sent = 0;
    for (size_t got = 0; got < count; got++) {
        for (; sent < count && sent - got < self->window; sent++) {
            s_next_fresh(self);
            s_send(self, &self->packed[self->fresh_at - 1]);
        }
        s_receive(self);
    }
}

static const s_row_t s_broker_rows[] = {
    {"get", 1, false, s_broker_get},
    {"get_many", 64, false, s_broker_get},
    {"name", 1, false, s_broker_name},
    {"tag", 1, false, s_broker_tag},
    {"page", 1, false, s_broker_page},
    {"add", 1, true, s_broker_add},
    {"add_many", 2000, true, s_broker_add_many},
    {NULL, 0, false, NULL},
};

// ---------------------------------------------------------------------------------------------------
// SQLite, as the original has it: one JSON column, columns that are computed of it, and indexes

#ifdef S_SQLITE
// clang-format off
static const char s_schema[] =
    "CREATE TABLE models ("
    " id TEXT NOT NULL PRIMARY KEY,"
    " hash TEXT GENERATED ALWAYS AS (json_extract(config, '$.hash')) VIRTUAL NOT NULL,"
    " base TEXT GENERATED ALWAYS AS (json_extract(config, '$.base')) VIRTUAL NOT NULL,"
    " type TEXT GENERATED ALWAYS AS (json_extract(config, '$.type')) VIRTUAL NOT NULL,"
    " path TEXT GENERATED ALWAYS AS (json_extract(config, '$.path')) VIRTUAL NOT NULL,"
    " format TEXT GENERATED ALWAYS AS (json_extract(config, '$.format')) VIRTUAL NOT NULL,"
    " name TEXT GENERATED ALWAYS AS (json_extract(config, '$.name')) VIRTUAL NOT NULL,"
    " description TEXT GENERATED ALWAYS AS (json_extract(config, '$.description')) VIRTUAL,"
    " source TEXT GENERATED ALWAYS AS (json_extract(config, '$.source')) VIRTUAL NOT NULL,"
    " source_type TEXT GENERATED ALWAYS AS (json_extract(config, '$.source_type')) VIRTUAL NOT NULL,"
    " source_api_response TEXT GENERATED ALWAYS AS (json_extract(config, '$.source_api_response')) VIRTUAL,"
    " trigger_phrases TEXT GENERATED ALWAYS AS (json_extract(config, '$.trigger_phrases')) VIRTUAL,"
    " file_size INTEGER GENERATED ALWAYS AS (json_extract(config, '$.file_size')) VIRTUAL NOT NULL,"
    " config TEXT NOT NULL,"
    " created_at DATETIME NOT NULL DEFAULT(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')),"
    " updated_at DATETIME NOT NULL DEFAULT(STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW')));"
    "CREATE TRIGGER models_updated_at AFTER UPDATE ON models FOR EACH ROW BEGIN"
    " UPDATE models SET updated_at = STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW') WHERE id = old.id; END;"
    "CREATE INDEX base_index ON models(base); CREATE INDEX type_index ON models(type);"
    "CREATE INDEX name_index ON models(name); CREATE UNIQUE INDEX path_index ON models(path);"
    "CREATE TABLE tags (tag_id INTEGER NOT NULL PRIMARY KEY, tag_text TEXT NOT NULL UNIQUE);"
    "CREATE TABLE model_tags (model_id TEXT NOT NULL, tag_id INTEGER NOT NULL, UNIQUE(model_id, tag_id));"
    "CREATE INDEX tag_index ON model_tags(tag_id);";
// clang-format on

static void
s_sql(s_bench_t *self, const char *text)
{
    char *words = NULL;
    if (sqlite3_exec(self->db, text, NULL, NULL, &words) != SQLITE_OK)
        s_die("%s: %s", text, words);
}

static sqlite3_stmt *
s_prepare(s_bench_t *self, const char *text)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(self->db, text, -1, &statement, NULL) != SQLITE_OK)
        s_die("%s: %s", text, sqlite3_errmsg(self->db));
    return statement;
}

static void
s_sqlite_open(s_bench_t *self)
{
    char path[512];
    snprintf(path, sizeof path, "%s/models.db", self->dir);
    bool is_new = access(path, F_OK) != 0;
    if (sqlite3_open(path, &self->db) != SQLITE_OK)
        s_die("%s: %s", path, sqlite3_errmsg(self->db));
    s_sql(self, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-262144;");
    if (is_new)
        s_sql(self, s_schema);
    self->add = s_prepare(self, "INSERT INTO models (id, config) VALUES (?, ?)");
    self->add_tag = s_prepare(self, "INSERT OR IGNORE INTO tags (tag_text) VALUES (?)");
    self->tag_model = s_prepare(self, "INSERT OR IGNORE INTO model_tags (model_id, tag_id) "
                                      "SELECT ?, tag_id FROM tags WHERE tag_text = ?");
    self->get = s_prepare(
        self, "SELECT config, STRFTIME('%s', updated_at) AS updated_at FROM models WHERE id = ?");
    self->by_name =
        s_prepare(self, "SELECT config, STRFTIME('%s', updated_at) AS updated_at FROM models "
                        "WHERE name = ? ORDER BY type, base, name, format");
    self->by_tag = s_prepare(
        self,
        "SELECT config FROM models WHERE id IN (SELECT model_id FROM model_tags JOIN tags USING "
        "(tag_id) WHERE tag_text = ? GROUP BY model_id HAVING COUNT(*) = 1) "
        "ORDER BY type, base, name, format");
    self->page = s_prepare(
        self, "SELECT config FROM models ORDER BY type, base, name, format LIMIT ? OFFSET 0");
    self->begin = s_prepare(self, "BEGIN");
    self->commit = s_prepare(self, "COMMIT");
}

static void
s_step(s_bench_t *self, sqlite3_stmt *statement)
{
    if (sqlite3_step(statement) != SQLITE_DONE)
        s_die("%s: %s", sqlite3_sql(statement), sqlite3_errmsg(self->db));
    sqlite3_reset(statement);
}

static void
s_sqlite_add_one(s_bench_t *self, const json_t *record)
{
    const char *key = lade_json_text(record, "key", "");
    char *config = json_dumps(record, JSON_COMPACT);
    sqlite3_bind_text(self->add, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(self->add, 2, config, -1, SQLITE_STATIC);
    s_step(self, self->add);
    const json_t *tags = json_object_get(record, "tags");
    for (size_t i = 0; i < json_array_size(tags); i++) {
        const char *tag = json_string_value(json_array_get(tags, i));
        sqlite3_bind_text(self->add_tag, 1, tag, -1, SQLITE_STATIC);
        s_step(self, self->add_tag);
        sqlite3_bind_text(self->tag_model, 1, key, -1, SQLITE_STATIC);
        sqlite3_bind_text(self->tag_model, 2, tag, -1, SQLITE_STATIC);
        s_step(self, self->tag_model);
    }
    free(config);
}

static void
s_sqlite_load(s_bench_t *self)
{
    s_step(self, self->begin);
    for (uint64_t i = 0; i < self->records; i++) {
        char key[33];
        s_key(i, key);
        json_t *record = s_record(i, key);
        s_sqlite_add_one(self, record);
        json_decref(record);
        if ((i + 1) % S_BATCH)
            continue;
        s_step(self, self->commit);
        s_step(self, self->begin);
    }
    s_step(self, self->commit);
    s_sql(self, "ANALYZE; PRAGMA wal_checkpoint(TRUNCATE);");
}

static void
s_sqlite_add(s_bench_t *self, size_t count)
{
    s_step(self, self->begin);
    for (size_t i = 0; i < count; i++)
        s_sqlite_add_one(self, s_next_fresh(self));
    s_step(self, self->commit);
}

static void
s_rows(s_bench_t *self, sqlite3_stmt *statement, size_t wanted)
{
    size_t found = 0;
    static char copy[4096];
    for (int rc; (rc = sqlite3_step(statement)) != SQLITE_DONE; found++) {
        if (rc != SQLITE_ROW)
            s_die("%s: %s", sqlite3_sql(statement), sqlite3_errmsg(self->db));
        size_t len = (size_t)sqlite3_column_bytes(statement, 0);
        memcpy(copy, sqlite3_column_text(statement, 0), len < sizeof copy ? len : sizeof copy);
        self->bytes += len;
    }
    sqlite3_reset(statement);
    if (found != wanted)
        s_die("%zu rows found, %zu are there: %s", found, wanted, sqlite3_sql(statement));
}

static void
s_sqlite_get(s_bench_t *self, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sqlite3_bind_text(self->get, 1, s_next_key(self), -1, SQLITE_STATIC);
        s_rows(self, self->get, 1);
    }
}

static void
s_sqlite_name(s_bench_t *self, size_t count)
{
    char name[64];
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "Model number %08llu", (unsigned long long)s_any(self));
        sqlite3_bind_text(self->by_name, 1, name, -1, SQLITE_STATIC);
        s_rows(self, self->by_name, 1);
    }
}

static void
s_sqlite_tag(s_bench_t *self, size_t count)
{
    char tag[32];
    for (size_t i = 0; i < count; i++) {
        snprintf(tag, sizeof tag, "group-%llu", (unsigned long long)s_any(self) / S_NAMED);
        sqlite3_bind_text(self->by_tag, 1, tag, -1, SQLITE_STATIC);
        s_rows(self, self->by_tag, S_NAMED);
    }
}

static void
s_sqlite_page(s_bench_t *self, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sqlite3_bind_int(self->page, 1, S_PAGE);
        s_rows(self, self->page, S_PAGE);
    }
}

static const s_row_t s_sqlite_rows[] = {
    {"get", 64, false, s_sqlite_get}, {"name", 1, false, s_sqlite_name},
    {"tag", 1, false, s_sqlite_tag},  {"page", 1, false, s_sqlite_page},
    {"add", 1, true, s_sqlite_add},   {"add_many", 64, true, s_sqlite_add},
    {NULL, 0, false, NULL},
};
#endif

static const struct {
    const char *name;
    void (*open)(s_bench_t *self);
    void (*load)(s_bench_t *self);
    const s_row_t *rows;
} s_engines[] = {
    {"store", s_store_open, s_store_load, s_store_rows},
    {"broker", s_broker_open, NULL, s_broker_rows},
#ifdef S_SQLITE
    {"sqlite", s_sqlite_open, s_sqlite_load, s_sqlite_rows},
#endif
};

// ---------------------------------------------------------------------------------------------------

static void
s_make_fresh(s_bench_t *self)
{
    for (size_t i = 0; i < S_FRESH; i++) {
        json_decref(self->fresh[i]);
        self->fresh[i] = s_fresh(self->records + self->added++);
        if (strcmp(self->engine, "broker") == 0)
            s_pack(&self->packed[i], ++self->id, "add_model",
                   json_pack("{sO}", "config", self->fresh[i]));
    }
    self->fresh_at = 0;
}

// Does a row until the time is over; adds end early when the records made before the clock are used
// up. Returns operations per second.
static double
s_clock(s_bench_t *self, const s_row_t *row, double seconds)
{
    double began = s_now(), end = began + seconds;
    size_t done = 0;
    while (s_now() < end && (!row->adds || self->fresh_at + row->at_once <= S_FRESH)) {
        row->run(self, row->at_once);
        done += row->at_once;
    }
    return (double)done / (s_now() - began);
}

// Look-ups are done as long without the clock first: what is measured is neither a cold cache nor
// the first touch of a mapping.
static double
s_rate(s_bench_t *self, const s_row_t *row)
{
    if (row->adds)
        s_make_fresh(self);
    else
        s_clock(self, row, self->seconds);
    return s_clock(self, row, self->seconds);
}

int
main(int argc, char **argv)
{
    s_bench_t self = {.seconds = 1, .window = 256, .records = 10000};
    bool load = argc > 1 && strcmp(argv[1], "load") == 0;
    for (int i = 3; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0)
            self.dir = argv[i + 1];
        else if (strcmp(argv[i], "--records") == 0)
            self.records = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            self.seconds = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--row") == 0)
            self.row = argv[i + 1];
        else if (strcmp(argv[i], "--window") == 0)
            self.window = strtoull(argv[i + 1], NULL, 10);
    }
    size_t at = 0, engines = sizeof s_engines / sizeof *s_engines;
    while (argc > 2 && at < engines && strcmp(s_engines[at].name, argv[2]) != 0)
        at++;
    if (argc < 3 || at == engines || !self.dir || (load && !s_engines[at].load))
        s_die(
            "usage: records_bench load|run store|sqlite|broker --dir DIR --records N [--seconds S] "
            "[--row NAME] [--window N]");
    self.engine = s_engines[at].name;
    s_seed ^= (uint64_t)getpid() << 20 ^ (uint64_t)time(NULL);
    self.fresh = calloc(S_FRESH, sizeof *self.fresh);
    self.packed = calloc(S_FRESH, sizeof *self.packed);
    self.keys = calloc(S_KEYS, sizeof *self.keys);
    for (size_t i = 0; i < S_KEYS; i++)
        s_key(s_any(&self), self.keys[i]);
    for (size_t i = 0; i < S_FRESH; i++)
        self.packed[i] = LADE_BUF(1 << 20);
    s_engines[at].open(&self);
    json_t *result = json_object();
    if (load) {
        double began = s_now();
        s_engines[at].load(&self);
        json_object_set_new(result, "load", json_real((double)self.records / (s_now() - began)));
    } else {
        for (const s_row_t *row = s_engines[at].rows; row->name; row++)
            if (!self.row || strcmp(self.row, row->name) == 0)
                json_object_set_new(result, row->name, json_real(s_rate(&self, row)));
    }
    lade_records_destroy(&self.model);
    lade_store_close(&self.store);
    json_dumpf(result, stdout, JSON_REAL_PRECISION(9));
    putchar('\n');
    return 0;
}
