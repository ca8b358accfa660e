// The keyspace on LMDB: one environment, one write transaction at a time, reads through it while it
// is open.
//
// A commit of LMDB is two waits for the disk (pages, then the page that names the new root) and
// writes whole pages for a few bytes. A batch is therefore made durable by the write-ahead log,
// with one wait, and LMDB's transaction stays open and gathers what comes next. Soon after, or when
// the log is full, comes a checkpoint: LMDB commits, with all its waits, and the log begins anew. A
// crash at any moment leaves the last checkpoint and the whole batches logged since, which opening
// takes up. The generation of the log is a number in meta and changes in the transaction of the
// checkpoint, so that a batch is never taken up twice.
#include "broker/store.h"

#include "broker/store_upgrade.h"
#include "broker/wal.h"
#include "common/buf.h"
#include "common/path.h"
#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct lade_store {
    char *folder;
    int lock_fd; // holds the process lock as long as it is open
    MDB_env *env;
    MDB_dbi tables[LADE_DB_COUNT];
    MDB_txn *write; // holds what was written since the last checkpoint; NULL if nothing was
    lade_wal_t *wal;
    lade_buf_t batch;      // the open batch as the log takes it
    bool logging;          // writes go to the batch; not while the log is taken up
    int64_t logged_ms;     // when the first batch of this generation was logged
    int64_t checkpoint_ms; // how long the last checkpoint took
    MDB_txn *read;         // kept and renewed, as making one costs more than a look-up
    bool reading;          // read holds a snapshot
    bool grow;             // the last batch found the map full
    lade_error_t spoiled;  // why the open batch cannot be committed
    lade_error_t broken;   // why nothing can be done any more
    lade_store_t *of;      // of a view: the store it looks at, whose env and tables it borrows
    // Views that are open. The map must not move under them.
    pthread_mutex_t views_lock;
    pthread_cond_t views_gone;
    unsigned views;
    atomic_bool wanted; // the map has to grow: views are to be closed
};

// An operation of a batch in the log; key and value follow. Numbers as the machine has them: a log
// stays on the machine that wrote it, and a clean end leaves none.
typedef struct {
    uint8_t put; // else: delete
    uint8_t db;
    uint16_t key_len;
    uint32_t value_len;
} s_operation_t;

// The order is part of the log's format: a new table goes to the end.
static const char *const s_tables[] = {
    // clang-format off
    [LADE_DB_META]             = "meta",
    [LADE_DB_MODELS]           = "models",
    [LADE_DB_MODELS_BY_NAME]   = "models_by_name",
    [LADE_DB_MODELS_BY_PATH]   = "models_by_path",
    [LADE_DB_MODELS_BY_TAG]    = "models_by_tag",
    [LADE_DB_MODELS_BY_SOURCE] = "models_by_source",
    [LADE_DB_MODELS_BY_HASH]   = "models_by_hash",
    [LADE_DB_JOBS]             = "jobs",
    [LADE_DB_JOBS_BY_TOKEN]    = "jobs_by_token",
    [LADE_DB_JOBS_BY_SOURCE]   = "jobs_by_source",
    [LADE_DB_JOBS_BY_PARENT]   = "jobs_by_parent",
    [LADE_DB_EVENTS]           = "events",
    [LADE_DB_GATES]            = "gates",
    [LADE_DB_MODELS_SORTED]    = "models_sorted",
    [LADE_DB_MODELS_COUNTS]    = "models_counts",
    // clang-format on
};
_Static_assert(sizeof s_tables / sizeof *s_tables == LADE_DB_COUNT, "a table has no name");

// From which schema, and the function that makes the next one of it. Schema 1 is the first.
static const struct lade_store_migration s_migrations[] = {
    {1, lade_records_upgrade_indexes},
    {0, NULL},
};

static const lade_store_options_t s_options = {
    .schema = LADE_STORE_SCHEMA,
    .migrations = s_migrations,
};

// A map costs address space only. Half of it is free when a batch begins, and a batch is a few
// messages of a few MiB, so that it does not fill in the middle of one.
enum {
    S_MAP_BYTES = 1 << 30,
    // A checkpoint is a wait of its own, the longer the more pages changed since the last: so one
    // comes soon after the first batch was logged. Where pages all over are changed it takes long
    // even so, and then comes the less often: it has no more than an eighth of the time. A log that
    // is full before that grows.
    S_WAL_BYTES = 2 << 20,
    S_WAL_MOST = 16 << 20,
    S_LOGGED_BYTES = 2 << 20, // largest batch that is logged
    S_CHECKPOINT_MS = 25,     // least age of the oldest logged batch at a checkpoint
    S_CHECKPOINT_SHARE = 8,   // the same, in times that the last checkpoint took
    S_LITTLE_ROOM = 64 << 10, // bytes free on a disk that counts as full
};

// ---------------------------------------------------------------------------------------------------
// Errors

static const struct {
    int rc;
    lade_code_t code;
    const char *help;
} s_errors[] = {
    // clang-format off
    {MDB_MAP_FULL,         LADE_NO_SPACE, "it grows before the next batch: try again"},
    {MDB_TXN_FULL,         LADE_TOO_LARGE, "too much was written in one batch"},
    {MDB_CORRUPTED,        LADE_CORRUPT,  "restore it from a copy, or move the folder away to begin anew"},
    {MDB_PAGE_NOTFOUND,    LADE_CORRUPT,  "restore it from a copy, or move the folder away to begin anew"},
    {MDB_INVALID,          LADE_CORRUPT,  "restore it from a copy, or move the folder away to begin anew"},
    {MDB_VERSION_MISMATCH, LADE_CORRUPT,  "it was written by another version of LMDB"},
    {MDB_PANIC,            LADE_IO_ERROR, "the disk failed in the middle of a commit; restart the broker"},
    {MDB_READERS_FULL,     LADE_BUSY,     "too many programs read it; close them"},
    {ENOSPC,               LADE_NO_SPACE, "make room on its disk"},
    {EDQUOT,               LADE_NO_SPACE, "make room in its quota"},
    {EFBIG,                LADE_NO_SPACE, "the file size limit of the broker is reached"},
    {ENOMEM,               LADE_NO_MEMORY, "the machine has no memory or address space left"},
    {EACCES,               LADE_IO_ERROR, "the broker's user has to own the folder"},
    {EROFS,                LADE_IO_ERROR, "the broker has to be able to write there"},
    // clang-format on
};

// LMDB says EIO for a write that came short, which is how a disk that fills up shows first.
static bool
s_disk_is_full(const lade_store_t *self)
{
    struct statvfs disk;
    return statvfs(self->folder, &disk) == 0 && disk.f_bavail * disk.f_frsize < S_LITTLE_ROOM;
}

static lade_code_t
s_error(const lade_store_t *self, int rc, const char *doing, lade_error_t *error)
{
    if (rc == EIO && s_disk_is_full(self))
        rc = ENOSPC;
    for (size_t i = 0; i < sizeof s_errors / sizeof *s_errors; i++)
        if (s_errors[i].rc == rc)
            return lade_error_set(error, s_errors[i].code, "keyspace %s: %s: %s (%s)", self->folder,
                                  doing, mdb_strerror(rc), s_errors[i].help);
    return lade_error_set(error, rc > 0 ? LADE_IO_ERROR : LADE_INTERNAL, "keyspace %s: %s: %s",
                          self->folder, doing, mdb_strerror(rc));
}

// An error inside a batch is remembered: LMDB refuses everything after it with less to say.
static lade_code_t
s_spoil(lade_store_t *self, int rc, const char *doing, lade_error_t *error)
{
    lade_code_t code = s_error(self, rc, doing, &self->spoiled);
    self->grow = self->grow || rc == MDB_MAP_FULL;
    if (error)
        *error = self->spoiled;
    return code;
}

static lade_code_t
s_check_spoiled(const lade_store_t *self, lade_error_t *error)
{
    const lade_error_t *why = self->broken.code ? &self->broken : &self->spoiled;
    if (why->code && error)
        *error = *why;
    return why->code;
}

// ---------------------------------------------------------------------------------------------------
// Transactions

static void
s_end_reading(lade_store_t *self)
{
    if (self->reading)
        mdb_txn_reset(self->read);
    self->reading = false;
}

static size_t
s_used_bytes(const lade_store_t *self, size_t *map_p)
{
    MDB_envinfo info;
    MDB_stat stat;
    mdb_env_info(self->env, &info);
    mdb_env_stat(self->env, &stat);
    if (map_p)
        *map_p = info.me_mapsize;
    return (info.me_last_pgno + 1) * stat.ms_psize;
}

// Whether no view is open. Those that are keep the map where it is as long as there is room; then
// they have to go, which takes them no longer than a few hundred entries.
static bool
s_nobody_looks(lade_store_t *self, bool urgent)
{
    pthread_mutex_lock(&self->views_lock);
    if (self->views && urgent) {
        atomic_store(&self->wanted, true);
        while (self->views)
            pthread_cond_wait(&self->views_gone, &self->views_lock);
        atomic_store(&self->wanted, false);
    }
    bool nobody = self->views == 0;
    pthread_mutex_unlock(&self->views_lock);
    return nobody;
}

// Doubles the map when half of it is used. No transaction may be open. LMDB gives the old map up
// before it asks for the new one, so the address space is tried out first; without it the map stays
// as it is.
static void
s_grow(lade_store_t *self)
{
    size_t map;
    size_t used = s_used_bytes(self, &map);
    size_t wanted = map;
    while (used > wanted / 2 || (self->grow && wanted == map))
        wanted *= 2;
    if (wanted == map || !s_nobody_looks(self, self->grow || used > map - map / 4))
        return;
    void *room = mmap(NULL, wanted, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return;
    munmap(room, wanted);
    if (mdb_env_set_mapsize(self->env, wanted) == 0)
        self->grow = false;
}

// The transaction, opened if there is none.
static lade_code_t
s_begin(lade_store_t *self, lade_error_t *error)
{
    assert(!self->of); // a view is for reading
    lade_code_t code = s_check_spoiled(self, error);
    if (self->write || code)
        return code;
    s_end_reading(self); // a snapshot held while others write keeps old pages from being used again
    s_grow(self);
    int rc = mdb_txn_begin(self->env, NULL, 0, &self->write);
    if (rc)
        self->write = NULL;
    return rc ? s_error(self, rc, "beginning to write", error) : LADE_OK;
}

// What a read goes through: the transaction if one is open, else the snapshot.
static lade_code_t
s_view(lade_store_t *self, MDB_txn **txn_p, lade_error_t *error)
{
    *txn_p = self->write;
    lade_code_t code = s_check_spoiled(self, error);
    if (!code && lade_store_wanted(self))
        code = lade_error_set(error, LADE_BUSY,
                              "keyspace %s: its map has to grow, who reads it has to begin again",
                              self->folder);
    if (self->write || code)
        return code;
    int rc = 0;
    if (!self->read)
        rc = mdb_txn_begin(self->env, NULL, MDB_RDONLY, &self->read);
    else if (!self->reading)
        rc = mdb_txn_renew(self->read);
    if (rc)
        return s_error(self, rc, "beginning to read", error);
    self->reading = true;
    *txn_p = self->read;
    return LADE_OK;
}

bool
lade_store_dirty(const lade_store_t *self)
{
    return self->batch.len > 0 || self->spoiled.code;
}

// LMDB commits everything since the last checkpoint; the log begins anew.
static lade_code_t
s_checkpoint(lade_store_t *self, lade_error_t *error)
{
    uint64_t generation = lade_wal_generation(self->wal) + 1;
    bool logging = self->logging;
    self->logging = false;
    lade_code_t code = lade_store_put_number(self, "wal", generation, error);
    self->logging = logging;
    if (code)
        return code;
    int rc = mdb_txn_commit(self->write); // frees it, whatever it returns
    self->write = NULL;
    self->grow = self->grow || rc == MDB_MAP_FULL;
    if (rc)
        return s_error(self, rc, "committing", error);
    lade_wal_restart(self->wal, generation);
    return LADE_OK;
}

// Takes up one batch of the log.
static lade_code_t
s_apply(void *arg, const void *batch, size_t len, lade_error_t *error)
{
    lade_store_t *self = arg;
    const char *at = batch, *end = at + len;
    s_operation_t op;
    lade_code_t code = LADE_OK;
    for (; !code && at < end; at += sizeof op + op.key_len + op.value_len) {
        bool whole = (size_t)(end - at) >= sizeof op;
        if (whole)
            memcpy(&op, at, sizeof op);
        if (!whole || (size_t)(end - at) - sizeof op < (size_t)op.key_len + op.value_len ||
            op.db >= LADE_DB_COUNT)
            return lade_error_set(error, LADE_CORRUPT,
                                  "keyspace %s: its log has an operation that is none",
                                  self->folder);
        const char *key = at + sizeof op;
        code = op.put ? lade_store_put(self, (lade_db_t)op.db, key, op.key_len, key + op.key_len,
                                       op.value_len, true, error)
                      : lade_store_del(self, (lade_db_t)op.db, key, op.key_len, error);
    }
    return code;
}

// Brings the transaction from the last checkpoint to the last of that many batches of the log.
static lade_code_t
s_take_up(lade_store_t *self, uint64_t generation, uint64_t most, lade_error_t *error)
{
    bool logging = self->logging;
    self->logging = false;
    lade_code_t code = lade_wal_replay(self->wal, generation, most, s_apply, self, error);
    self->logging = logging;
    return code;
}

void
lade_store_abort(lade_store_t *self)
{
    if (!lade_store_dirty(self) && self->write)
        return; // nothing since the last commit
    if (self->write)
        mdb_txn_abort(self->write);
    self->write = NULL;
    self->spoiled = (lade_error_t){0};
    lade_buf_clear(&self->batch);
    lade_error_t error;
    uint64_t count = self->wal ? lade_wal_count(self->wal) : 0;
    if (count && s_take_up(self, lade_wal_generation(self->wal), count, &error))
        self->broken = error;
}

// Whether the log is so young that no checkpoint is due.
static bool
s_is_young(const lade_store_t *self, int64_t now_ms)
{
    int64_t least = S_CHECKPOINT_SHARE * self->checkpoint_ms;
    return lade_wal_count(self->wal) == 0 ||
           now_ms - self->logged_ms < (least > S_CHECKPOINT_MS ? least : S_CHECKPOINT_MS);
}

// A checkpoint in the midst of work; a log that was too short for it is longer afterwards.
static lade_code_t
s_checkpoint_now(lade_store_t *self, int64_t now_ms, lade_error_t *error)
{
    bool was_young = s_is_young(self, now_ms) && lade_wal_count(self->wal);
    lade_code_t code = s_checkpoint(self, error);
    self->checkpoint_ms = lade_mono_ms() - now_ms;
    if (!code && was_young && lade_wal_bytes(self->wal) < S_WAL_MOST)
        lade_wal_grow(self->wal, 2 * lade_wal_bytes(self->wal));
    return code;
}

lade_code_t
lade_store_commit(lade_store_t *self, lade_error_t *error)
{
    if (!lade_store_dirty(self))
        return LADE_OK;
    lade_code_t code = s_check_spoiled(self, error);
    int64_t now_ms = lade_mono_ms();
    bool logged = s_is_young(self, now_ms) && self->batch.len <= S_LOGGED_BYTES &&
                  lade_wal_fits(self->wal, self->batch.len);
    if (!code && logged) {
        if (lade_wal_count(self->wal) == 0)
            self->logged_ms = now_ms;
        code = lade_wal_append(self->wal, self->batch.data, self->batch.len, error);
    } else if (!code) {
        code = s_checkpoint_now(self, now_ms, error);
    }
    if (code)
        lade_store_abort(self);
    lade_buf_clear(&self->batch);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Values

lade_code_t
lade_store_get(lade_store_t *self, lade_db_t db, const void *key, size_t len, lade_bytes_t *value,
               lade_error_t *error)
{
    MDB_txn *txn;
    lade_code_t code = s_view(self, &txn, error);
    if (code)
        return code;
    if (len == 0 || len > LADE_STORE_MAX_KEY)
        return LADE_NOT_FOUND;
    MDB_val wanted = {len, (void *)key}, found;
    int rc = mdb_get(txn, self->tables[db], &wanted, &found);
    if (rc == MDB_NOTFOUND)
        return LADE_NOT_FOUND;
    if (rc)
        return s_error(self, rc, s_tables[db], error);
    *value = (lade_bytes_t){found.mv_data, found.mv_size};
    return LADE_OK;
}

// Adds an operation to the batch that the log will take.
static lade_code_t
s_log(lade_store_t *self, bool put, lade_db_t db, const void *key, size_t key_len,
      const void *value, size_t value_len, lade_error_t *error)
{
    if (!self->logging)
        return LADE_OK;
    s_operation_t op = {put, (uint8_t)db, (uint16_t)key_len, (uint32_t)value_len};
    lade_code_t code = value_len > UINT32_MAX
                           ? lade_error_set(&self->spoiled, LADE_TOO_LARGE,
                                            "a value of %zu bytes in %s", value_len, s_tables[db])
                           : lade_buf_add(&self->batch, &op, sizeof op, &self->spoiled);
    if (!code)
        code = lade_buf_add(&self->batch, key, key_len, &self->spoiled);
    if (!code)
        code = lade_buf_add(&self->batch, value, value_len, &self->spoiled);
    if (code && error)
        *error = self->spoiled;
    return code;
}

lade_code_t
lade_store_put(lade_store_t *self, lade_db_t db, const void *key, size_t key_len, const void *value,
               size_t value_len, bool append, lade_error_t *error)
{
    if (key_len == 0 || key_len > LADE_STORE_MAX_KEY)
        return lade_error_set(error, LADE_VALUE_ERROR, "a key of %zu bytes in %s; it takes 1 to %d",
                              key_len, s_tables[db], LADE_STORE_MAX_KEY);
    lade_code_t code = s_begin(self, error);
    if (code)
        return code;
    MDB_val name = {key_len, (void *)key}, data = {value_len, (void *)value};
    int rc = mdb_put(self->write, self->tables[db], &name, &data, append ? MDB_APPEND : 0);
    if (rc == MDB_KEYEXIST) // it was not the highest after all
        rc = mdb_put(self->write, self->tables[db], &name, &data, 0);
    return rc ? s_spoil(self, rc, s_tables[db], error)
              : s_log(self, true, db, key, key_len, value, value_len, error);
}

lade_code_t
lade_store_del(lade_store_t *self, lade_db_t db, const void *key, size_t len, lade_error_t *error)
{
    if (len == 0 || len > LADE_STORE_MAX_KEY)
        return LADE_OK;
    lade_code_t code = s_begin(self, error);
    if (code)
        return code;
    MDB_val name = {len, (void *)key};
    int rc = mdb_del(self->write, self->tables[db], &name, NULL);
    if (rc == MDB_NOTFOUND)
        return LADE_OK;
    return rc ? s_spoil(self, rc, s_tables[db], error)
              : s_log(self, false, db, key, len, NULL, 0, error);
}

// ---------------------------------------------------------------------------------------------------
// Scans

static bool
s_not_below(const MDB_val *key, const void *from, size_t len)
{
    size_t common = key->mv_size < len ? key->mv_size : len;
    int order = common ? memcmp(key->mv_data, from, common) : 0;
    return order > 0 || (order == 0 && key->mv_size >= len);
}

// The last key that begins with the prefix, or the last one before where it would be.
static int
s_last_of_prefix(MDB_cursor *cursor, const void *prefix, size_t len, MDB_val *key, MDB_val *value)
{
    uint8_t next[LADE_STORE_MAX_KEY]; // the lowest key above all that begin with the prefix
    memcpy(next, prefix, len);
    while (len && next[len - 1] == 0xff)
        len--;
    if (!len)
        return mdb_cursor_get(cursor, key, value, MDB_LAST);
    next[len - 1]++;
    *key = (MDB_val){len, next};
    int rc = mdb_cursor_get(cursor, key, value, MDB_SET_RANGE);
    return mdb_cursor_get(cursor, key, value, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
}

lade_code_t
lade_store_scan(lade_store_t *self, lade_db_t db, const void *from, size_t len, size_t prefix_len,
                bool reverse, bool (*each)(void *arg, lade_bytes_t key, lade_bytes_t value),
                void *arg, lade_error_t *error)
{
    assert(prefix_len <= len && len <= LADE_STORE_MAX_KEY);
    MDB_txn *txn;
    MDB_cursor *cursor;
    lade_code_t code = s_view(self, &txn, error);
    if (code)
        return code;
    int rc = mdb_cursor_open(txn, self->tables[db], &cursor);
    if (rc)
        return s_error(self, rc, s_tables[db], error);
    MDB_val key = {len, (void *)from}, value;
    if (reverse)
        rc = s_last_of_prefix(cursor, from, prefix_len, &key, &value);
    else
        rc = mdb_cursor_get(cursor, &key, &value, len ? MDB_SET_RANGE : MDB_FIRST);
    while (rc == 0 && s_not_below(&key, from, len)) {
        bool inside = key.mv_size >= prefix_len &&
                      (!prefix_len || memcmp(key.mv_data, from, prefix_len) == 0);
        if (lade_store_wanted(self)) {
            mdb_cursor_close(cursor);
            return s_view(self, &txn, error);
        }
        if (!inside || !each(arg, (lade_bytes_t){key.mv_data, key.mv_size},
                             (lade_bytes_t){value.mv_data, value.mv_size}))
            break;
        rc = mdb_cursor_get(cursor, &key, &value, reverse ? MDB_PREV : MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc && rc != MDB_NOTFOUND ? s_error(self, rc, s_tables[db], error) : LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Counters: msgpack's widest integer, so that one is 9 bytes whatever its value

enum { S_UINT64 = 0xcf, S_NUMBER_BYTES = 9 };

lade_code_t
lade_store_get_number(lade_store_t *self, const char *name, uint64_t *value_p, lade_error_t *error)
{
    lade_bytes_t bytes;
    lade_code_t code = lade_store_get(self, LADE_DB_META, name, strlen(name), &bytes, error);
    if (code)
        return code;
    const uint8_t *at = bytes.data;
    if (bytes.len != S_NUMBER_BYTES || at[0] != S_UINT64)
        return lade_error_set(error, LADE_CORRUPT, "keyspace %s: %s in meta is no number",
                              self->folder, name);
    *value_p = 0;
    for (size_t i = 1; i < S_NUMBER_BYTES; i++)
        *value_p = *value_p << 8 | at[i];
    return LADE_OK;
}

lade_code_t
lade_store_put_number(lade_store_t *self, const char *name, uint64_t value, lade_error_t *error)
{
    uint8_t bytes[S_NUMBER_BYTES] = {S_UINT64};
    for (size_t i = 0; i < 8; i++)
        bytes[1 + i] = (uint8_t)(value >> (56 - 8 * i));
    return lade_store_put(self, LADE_DB_META, name, strlen(name), bytes, sizeof bytes, false,
                          error);
}

uint64_t
lade_store_count(lade_store_t *self, lade_db_t db)
{
    MDB_txn *txn;
    MDB_stat stat;
    if (s_view(self, &txn, NULL) || mdb_stat(txn, self->tables[db], &stat))
        return 0;
    return stat.ms_entries;
}

uint64_t
lade_store_bytes(lade_store_t *self)
{
    return s_used_bytes(self, NULL);
}

size_t
lade_store_key(const void *text, size_t len, size_t max, char *key)
{
    enum { S_DIGEST = 8 }; // bytes of the hash that are kept
    assert(max > 2 * S_DIGEST && max <= LADE_STORE_MAX_KEY);
    if (len <= max) {
        memcpy(key, text, len);
        return len;
    }
    uint8_t digest[EVP_MAX_MD_SIZE];
    int done = EVP_Digest(text, len, digest, NULL, EVP_sha256(), NULL);
    assert(done == 1);
    memcpy(key, text, max - 2 * S_DIGEST);
    for (size_t i = 0; i < 2 * S_DIGEST; i++)
        key[max - 2 * S_DIGEST + i] = "0123456789abcdef"[digest[i / 2] >> (i % 2 ? 0 : 4) & 15];
    return max;
}

// ---------------------------------------------------------------------------------------------------
// Views and copies: for other threads, without the loop

lade_code_t
lade_store_checkpoint(lade_store_t *self, lade_error_t *error)
{
    if (lade_store_dirty(self))
        return lade_error_set(error, LADE_BUSY, "keyspace %s: a batch is open", self->folder);
    if (!lade_wal_count(self->wal))
        return LADE_OK;
    lade_code_t code = s_checkpoint(self, error);
    if (code)
        lade_store_abort(self);
    return code;
}

lade_code_t
lade_store_view(lade_store_t *self, lade_store_t **view_p, lade_error_t *error)
{
    *view_p = NULL;
    lade_store_t *view = calloc(1, sizeof *view);
    if (!view)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a view of the keyspace");
    *view = (lade_store_t){.of = self, .env = self->env, .folder = self->folder, .lock_fd = -1};
    memcpy(view->tables, self->tables, sizeof view->tables);
    int rc = mdb_txn_begin(self->env, NULL, MDB_RDONLY, &view->read);
    if (rc) {
        free(view);
        return s_error(self, rc, "beginning to read", error);
    }
    view->reading = true;
    pthread_mutex_lock(&self->views_lock);
    self->views++;
    pthread_mutex_unlock(&self->views_lock);
    *view_p = view;
    return LADE_OK;
}

bool
lade_store_wanted(const lade_store_t *view)
{
    return view->of && atomic_load(&view->of->wanted);
}

static void
s_close_view(lade_store_t *view)
{
    lade_store_t *self = view->of;
    mdb_txn_abort(view->read);
    free(view);
    pthread_mutex_lock(&self->views_lock);
    if (--self->views == 0)
        pthread_cond_broadcast(&self->views_gone);
    pthread_mutex_unlock(&self->views_lock);
}

uint64_t
lade_store_copy_bytes(lade_store_t *view)
{
    enum { S_FREE_PAGES = 0 }; // LMDB's own table: lists of pages, each begun by its length
    MDB_cursor *cursor;
    MDB_val key, value;
    size_t pages = 0, count;
    MDB_stat stat;
    mdb_env_stat(view->env, &stat);
    if (mdb_cursor_open(view->read, S_FREE_PAGES, &cursor) == 0) {
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
            memcpy(&count, value.mv_data, sizeof count);
            pages += count;
        }
        mdb_cursor_close(cursor);
    }
    uint64_t used = s_used_bytes(view, NULL), unused = (uint64_t)pages * stat.ms_psize;
    return used > unused ? used - unused : used;
}

// LMDB writes its copy to a descriptor and cannot be stopped there; so it writes to a pipe from a
// thread of its own, and the pipe can be closed.
typedef struct {
    MDB_env *env;
    int fd;
    int rc;
} s_copy_t;

static void *
s_write_copy(void *arg)
{
    s_copy_t *copy = arg;
    copy->rc = mdb_env_copyfd2(copy->env, copy->fd, MDB_CP_COMPACT);
    close(copy->fd);
    return NULL;
}

static lade_code_t
s_pump(lade_store_t *view, int fd, bool (*take)(void *arg, const void *bytes, size_t len),
       void *arg, lade_error_t *error)
{
    enum { S_PIECE = 256 << 10 };
    char *piece = malloc(S_PIECE);
    lade_code_t code =
        piece ? LADE_OK : lade_error_set(error, LADE_NO_MEMORY, "no memory to copy the keyspace");
    for (ssize_t len = 1; !code && len > 0;) {
        len = read(fd, piece, S_PIECE);
        if (len < 0 && errno == EINTR)
            len = 1;
        else if (len < 0)
            code = lade_error_errno(error, errno, "keyspace %s: copying it", view->folder);
        else if (lade_store_wanted(view))
            code = lade_error_set(error, LADE_BUSY,
                                  "keyspace %s: its map had to grow while it was copied: try again",
                                  view->folder);
        else if (len > 0 && !take(arg, piece, (size_t)len))
            code = lade_error_set(error, LADE_CANCELLED, "copying the keyspace was stopped");
    }
    free(piece);
    return code;
}

lade_code_t
lade_store_copy(lade_store_t *view, bool (*take)(void *arg, const void *bytes, size_t len),
                void *arg, lade_error_t *error)
{
    int ends[2];
    pthread_t thread;
    sigset_t all, before;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return lade_error_errno(error, errno, "no pipe to copy the keyspace through");
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    s_copy_t copy = {.env = view->env, .fd = ends[1]};
    sigfillset(&all); // also SIGPIPE, which is what a closed pipe says
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, s_write_copy, &copy);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        close(ends[0]);
        close(ends[1]);
        return lade_error_errno(error, failed, "no thread to copy the keyspace");
    }
    lade_code_t code = s_pump(view, ends[0], take, arg, error);
    close(ends[0]);
    pthread_join(thread, NULL);
    return code || !copy.rc ? code : s_error(view, copy.rc, "copying", error);
}

const char *
lade_store_name(lade_db_t db)
{
    return s_tables[db];
}

void
lade_store_use(lade_store_t *self, lade_store_use_t *use)
{
    size_t map;
    MDB_envinfo info;
    mdb_env_info(self->env, &info);
    *use =
        (lade_store_use_t){.used_bytes = s_used_bytes(self, &map), .readers = info.me_numreaders};
    use->map_bytes = map;
}

// ---------------------------------------------------------------------------------------------------
// Opening

// One process at a time: LMDB alone would let a second broker in, and both would hand out the same
// jobs.
static lade_code_t
s_lock(lade_store_t *self, lade_error_t *error)
{
    char *path = lade_path_join(self->folder, "owner");
    self->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int failed = self->lock_fd < 0 ? errno : 0;
    free(path);
    if (failed)
        return lade_error_errno(error, failed, "cannot open the lock of the keyspace %s",
                                self->folder);
    char owner[32] = "";
    if (flock(self->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t len = pread(self->lock_fd, owner, sizeof owner - 1, 0);
        owner[len > 0 ? len : 0] = '\0';
        owner[strcspn(owner, "\n")] = '\0';
        return lade_error_set(
            error, LADE_BUSY,
            "the keyspace %s belongs to another broker that is running (process %s); stop "
            "it or choose another data folder",
            self->folder, *owner ? owner : "unknown");
    }
    int len = snprintf(owner, sizeof owner, "%ld\n", (long)getpid());
    if (ftruncate(self->lock_fd, 0) != 0 || pwrite(self->lock_fd, owner, (size_t)len, 0) != len)
        return lade_error_errno(error, errno, "cannot write the lock of the keyspace %s",
                                self->folder);
    return LADE_OK;
}

// A data file that ends before its last page would kill the process (SIGBUS) when that page is
// touched. LMDB itself leaves the end off now and then, when the last pages are free; lengthened by
// zeros, a file that was cut short is found to be corrupt instead.
static lade_code_t
s_complete_file(lade_store_t *self, lade_error_t *error)
{
    mdb_filehandle_t fd;
    struct stat stat;
    off_t used = (off_t)s_used_bytes(self, NULL);
    if (mdb_env_get_fd(self->env, &fd) || fstat(fd, &stat))
        return lade_error_errno(error, errno, "keyspace %s: cannot look at its file", self->folder);
    if (stat.st_size < used && ftruncate(fd, used) != 0)
        return lade_error_errno(error, errno, "keyspace %s: cannot lengthen its file",
                                self->folder);
    return LADE_OK;
}

static lade_code_t
s_open_env(lade_store_t *self, const lade_store_options_t *options, lade_error_t *error)
{
    int rc = mdb_env_create(&self->env);
    if (rc)
        return s_error(self, rc, "opening", error);
    mdb_env_set_maxdbs(self->env, LADE_DB_COUNT);
    mdb_env_set_mapsize(self->env, options->map_bytes ? options->map_bytes : S_MAP_BYTES);
    rc = mdb_env_open(self->env, self->folder, MDB_NOTLS, 0600);
    if (rc)
        return s_error(self, rc, "opening", error);
    int dead;
    mdb_reader_check(self->env, &dead); // slots of programs that looked at it and died
    return s_complete_file(self, error);
}

static lade_code_t
s_open_tables(lade_store_t *self, lade_error_t *error)
{
    lade_code_t code = s_begin(self, error);
    for (size_t i = 0; i < LADE_DB_COUNT && !code; i++) {
        int rc = mdb_dbi_open(self->write, s_tables[i], MDB_CREATE, &self->tables[i]);
        if (rc)
            code = s_error(self, rc, s_tables[i], error);
    }
    return code;
}

static lade_code_t
s_migrate(lade_store_t *self, const lade_store_options_t *options, uint64_t schema,
          lade_error_t *error)
{
    for (; schema < options->schema; schema++) {
        const struct lade_store_migration *row = options->migrations;
        while (row->migrate && row->from != schema)
            row++;
        if (!row->migrate)
            return lade_error_set(error, LADE_CORRUPT,
                                  "the keyspace %s has schema %" PRIu64
                                  ", and nothing leads from there to %" PRIu64,
                                  self->folder, schema, options->schema);
        if (row->migrate(self, error))
            return lade_error_wrap(error, "keyspace %s: migrating schema %" PRIu64, self->folder,
                                   schema);
    }
    return lade_store_put_number(self, "schema", schema, error);
}

static lade_code_t
s_check_schema(lade_store_t *self, const lade_store_options_t *options, lade_error_t *error)
{
    uint64_t schema = 0;
    lade_code_t code = lade_store_get_number(self, "schema", &schema, error);
    if (code == LADE_NOT_FOUND) {
        for (size_t i = 0; i < LADE_DB_COUNT; i++)
            if (lade_store_count(self, (lade_db_t)i))
                return lade_error_set(
                    error, LADE_CORRUPT,
                    "the keyspace %s has %s but says no schema; restore it from a copy",
                    self->folder, s_tables[i]);
        return lade_store_put_number(self, "schema", options->schema, error);
    }
    if (code)
        return code;
    if (schema > options->schema)
        return lade_error_set(error, LADE_SCHEMA_TOO_NEW,
                              "the keyspace %s has schema %" PRIu64
                              ", this broker knows up to %" PRIu64
                              "; use the newer lade that wrote it",
                              self->folder, schema, options->schema);
    return schema < options->schema ? s_migrate(self, options, schema, error) : LADE_OK;
}

// What a broker that did not end cleanly left in the log.
static lade_code_t
s_take_up_last(lade_store_t *self, lade_error_t *error)
{
    uint64_t generation = 0; // of a keyspace that never had a log
    lade_code_t code = lade_store_get_number(self, "wal", &generation, error);
    return code && code != LADE_NOT_FOUND ? code : s_take_up(self, generation, UINT64_MAX, error);
}

lade_code_t
lade_store_open_with(const char *folder, const lade_store_options_t *options, lade_store_t **self_p,
                     lade_error_t *error)
{
    *self_p = NULL;
    lade_code_t code = lade_path_mkdirs(folder, 0700, error);
    if (code)
        return code;
    lade_store_t *self = calloc(1, sizeof *self);
    char *name = strdup(folder);
    if (!self || !name) {
        free(self);
        free(name);
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the keyspace");
    }
    self->folder = name;
    self->lock_fd = -1;
    self->batch = LADE_BUF(SIZE_MAX / 2);
    pthread_mutex_init(&self->views_lock, NULL);
    pthread_cond_init(&self->views_gone, NULL);
    code = s_lock(self, error);
    if (!code)
        code = s_open_env(self, options, error);
    if (!code)
        code = s_open_tables(self, error);
    if (!code)
        code = lade_wal_open(folder, S_WAL_BYTES, &self->wal, error);
    if (!code)
        code = s_take_up_last(self, error);
    if (!code)
        code = s_check_schema(self, options, error);
    if (!code)
        code = s_checkpoint(self, error);
    self->logging = !code;
    if (code)
        lade_store_close(&self);
    *self_p = self;
    return code;
}

lade_code_t
lade_store_open(const char *folder, lade_store_t **self_p, lade_error_t *error)
{
    return lade_store_open_with(folder, &s_options, self_p, error);
}

void
lade_store_close(lade_store_t **self_p)
{
    lade_store_t *self = *self_p;
    *self_p = NULL;
    if (!self)
        return;
    if (self->of) {
        s_close_view(self);
        return;
    }
    if (self->logging) {
        lade_store_abort(self);
        if (lade_wal_count(self->wal))
            s_checkpoint(self, NULL); // if it fails, opening takes the log up
    }
    if (self->write)
        mdb_txn_abort(self->write);
    if (self->read)
        mdb_txn_abort(self->read);
    lade_wal_close(&self->wal);
    lade_buf_free(&self->batch);
    if (self->env)
        mdb_env_close(self->env);
    if (self->lock_fd >= 0)
        close(self->lock_fd);
    pthread_mutex_destroy(&self->views_lock);
    pthread_cond_destroy(&self->views_gone);
    free(self->folder);
    free(self);
}
