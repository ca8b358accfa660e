// The keyspace: a few ordered tables of bytes with atomic, durable batches of writes.
//
// A thin interface, so that another engine can stand behind it; LMDB is the one here and only
// store.c knows it. One thread, one batch at a time. A batch is opened by the first write after a
// commit; reads see what it wrote. The map grows by itself, between batches.
#ifndef LADE_STORE_H
#define LADE_STORE_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    LADE_DB_META,
    LADE_DB_MODELS,
    LADE_DB_MODELS_BY_NAME,
    LADE_DB_MODELS_BY_PATH,
    LADE_DB_MODELS_BY_TAG,
    LADE_DB_MODELS_BY_SOURCE,
    LADE_DB_MODELS_BY_HASH,
    LADE_DB_JOBS,
    LADE_DB_JOBS_BY_TOKEN,
    LADE_DB_JOBS_BY_SOURCE,
    LADE_DB_JOBS_BY_PARENT,
    LADE_DB_EVENTS,
    LADE_DB_GATES,
    LADE_DB_MODELS_SORTED,
    LADE_DB_MODELS_COUNTS,
    LADE_DB_COUNT
} lade_db_t;

enum {
    LADE_STORE_SCHEMA = 2,   // written to meta; newer is refused, older is migrated
    LADE_STORE_MAX_KEY = 500 // bytes; lade_store_key shortens longer ones
};

typedef struct lade_store lade_store_t;

// A run of bytes in the keyspace. Valid until the next write, commit or end of the snapshot: decode
// it at once.
typedef struct {
    const void *data;
    size_t len;
} lade_bytes_t;

// Opens (and creates) the keyspace in folder. LADE_BUSY if another process has it,
// LADE_SCHEMA_TOO_NEW, LADE_CORRUPT, LADE_NO_SPACE. An older schema is migrated here, in one
// transaction (s_migrations in store.c).
lade_code_t lade_store_open(const char *folder, lade_store_t **self_p, lade_error_t *error);

// The knobs of lade_store_open, for tests: the map's size when new (0: 1 GiB), the schema this
// program writes, and the steps from one schema to the next (ended by a row without migrate; each
// works inside the one transaction).
typedef struct {
    size_t map_bytes;
    uint64_t schema;
    const struct lade_store_migration {
        uint64_t from;
        lade_code_t (*migrate)(lade_store_t *self, lade_error_t *error);
    } * migrations;
} lade_store_options_t;

lade_code_t lade_store_open_with(const char *folder, const lade_store_options_t *options,
                                 lade_store_t **self_p, lade_error_t *error);

// Reads one value; LADE_NOT_FOUND (error untouched) if there is none.
lade_code_t lade_store_get(lade_store_t *self, lade_db_t db, const void *key, size_t len,
                           lade_bytes_t *value, lade_error_t *error);

// Writes one value. append: the key is known to be the highest of its table, which is faster.
lade_code_t lade_store_put(lade_store_t *self, lade_db_t db, const void *key, size_t key_len,
                           const void *value, size_t value_len, bool append, lade_error_t *error);

// Removes one value; none there is no error.
lade_code_t lade_store_del(lade_store_t *self, lade_db_t db, const void *key, size_t len,
                           lade_error_t *error);

// Goes through the keys not below from (len 0: the first) in order, until each returns false. Only
// keys that begin with the first prefix_len bytes of from are given. each must not write; reverse
// starts at the end of the range.
lade_code_t lade_store_scan(lade_store_t *self, lade_db_t db, const void *from, size_t len,
                            size_t prefix_len, bool reverse,
                            bool (*each)(void *arg, lade_bytes_t key, lade_bytes_t value),
                            void *arg, lade_error_t *error);

// True if something was written since the last commit.
bool lade_store_dirty(const lade_store_t *self);

// Makes the batch durable (blocks for the disk), or forgets it. After a failed commit the batch is
// forgotten and the keyspace is as before it. A write that failed (LADE_NO_SPACE, LADE_IO_ERROR)
// spoils its batch: what follows in it and the commit answer with the same error.
lade_code_t lade_store_commit(lade_store_t *self, lade_error_t *error);
void lade_store_abort(lade_store_t *self);

// Counters in meta.
lade_code_t lade_store_get_number(lade_store_t *self, const char *name, uint64_t *value_p,
                                  lade_error_t *error);
lade_code_t lade_store_put_number(lade_store_t *self, const char *name, uint64_t value,
                                  lade_error_t *error);

// Entries of a table; bytes of the keyspace on disk at its last checkpoint.
uint64_t lade_store_count(lade_store_t *self, lade_db_t db);
uint64_t lade_store_bytes(lade_store_t *self);

// A key of at most max bytes (17 to LADE_STORE_MAX_KEY; fewer where more is put behind it) for text
// of any length: the text itself, or its beginning and 16 hex digits of a hash of all of it. key
// has room for max bytes; returns its length.
size_t lade_store_key(const void *text, size_t len, size_t max, char *key);

// Brings LMDB's file up to everything that is committed, as a view and a copy want it. Blocks for
// the disk, as a commit does; between batches only (LADE_BUSY in one). After a failure the keyspace
// is as it was.
lade_code_t lade_store_checkpoint(lade_store_t *self, lade_error_t *error);

// A view: the keyspace as its last checkpoint left it, for one other thread to read with
// lade_store_get, _scan, _count and _get_number. It holds old pages back while it is there, so it
// is closed soon; before the store.
lade_code_t lade_store_view(lade_store_t *self, lade_store_t **view_p, lade_error_t *error);

// True once the store waits for the view to be closed, as its map has to grow: a reader stops then,
// at the latest after some hundred entries. What reads a view answers LADE_BUSY from then on.
bool lade_store_wanted(const lade_store_t *view);

// Gives a compact copy of the whole keyspace to take, piece by piece, as a file that LMDB opens;
// take may end it by returning false (LADE_CANCELLED). In the view's thread. total_bytes of
// lade_store_copy_bytes is what it will come to, but for a few pages.
lade_code_t lade_store_copy(lade_store_t *view,
                            bool (*take)(void *arg, const void *bytes, size_t len), void *arg,
                            lade_error_t *error);
uint64_t lade_store_copy_bytes(lade_store_t *view);

// The name of a table.
const char *lade_store_name(lade_db_t db);

// How the map is used, for those who look after it.
typedef struct {
    uint64_t used_bytes, map_bytes;
    uint32_t readers;
} lade_store_use_t;
void lade_store_use(lade_store_t *self, lade_store_use_t *use);

void lade_store_close(lade_store_t **self_p);

#endif
