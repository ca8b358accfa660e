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
#include "broker/store_private.h"

#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

// An operation of a batch in the log; key and value follow. Numbers as the machine has them: a log
// stays on the machine that wrote it, and a clean end leaves none.
typedef struct {
    uint8_t put; // else: delete
    uint8_t db;
    uint16_t key_len;
    uint32_t value_len;
} s_operation_t;

enum {
    // A checkpoint is a wait of its own, the longer the more pages changed since the last: so one
    // comes soon after the first batch was logged. Where pages all over a large keyspace are
    // changed it is slow even so, and then comes the less often: it has no more than an eighth of
    // the time, and a log that is full before that grows. Not else, as waiting longer makes it
    // longer.
    S_WAL_MOST = 16 << 20,
    S_LOGGED_BYTES = 2 << 20, // largest batch that is logged
    S_CHECKPOINT_MS = 25,     // least age of the oldest logged batch at a checkpoint
    S_SLOW_MS = 20,           // a checkpoint that took so long was slow
    S_CHECKPOINT_SHARE = 8,   // least age after a slow one, in times that it took
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

lade_code_t
lade_store_error(const lade_store_t *self, int rc, const char *doing, lade_error_t *error)
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
    lade_code_t code = lade_store_error(self, rc, doing, &self->spoiled);
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

size_t
lade_store_used_bytes(const lade_store_t *self, size_t *map_p)
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
    size_t used = lade_store_used_bytes(self, &map);
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
lade_code_t
lade_store_begin(lade_store_t *self, lade_error_t *error)
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
    return rc ? lade_store_error(self, rc, "beginning to write", error) : LADE_OK;
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
        return lade_store_error(self, rc, "beginning to read", error);
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
lade_code_t
lade_store_commit_now(lade_store_t *self, lade_error_t *error)
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
        return lade_store_error(self, rc, "committing", error);
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
lade_code_t
lade_store_take_up(lade_store_t *self, uint64_t generation, uint64_t most, lade_error_t *error)
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
    if (count && lade_store_take_up(self, lade_wal_generation(self->wal), count, &error))
        self->broken = error;
}

// Whether the log is so young that no checkpoint is due.
static bool
s_is_young(const lade_store_t *self, int64_t now_ms)
{
    bool slow = self->checkpoint_ms >= S_SLOW_MS;
    int64_t least = slow ? S_CHECKPOINT_SHARE * self->checkpoint_ms : S_CHECKPOINT_MS;
    return lade_wal_count(self->wal) == 0 || now_ms - self->logged_ms < least;
}

// A checkpoint in the midst of work. Where those are slow, a log that was full before its time is
// longer afterwards.
static lade_code_t
s_checkpoint_now(lade_store_t *self, int64_t now_ms, lade_error_t *error)
{
    bool was_young = s_is_young(self, now_ms) && lade_wal_count(self->wal);
    lade_code_t code = lade_store_commit_now(self, error);
    self->checkpoint_ms = lade_mono_ms() - now_ms;
    if (!code && was_young && self->checkpoint_ms >= S_SLOW_MS &&
        lade_wal_bytes(self->wal) < S_WAL_MOST)
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
        return lade_store_error(self, rc, lade_store_name(db), error);
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
    lade_code_t code =
        value_len > UINT32_MAX
            ? lade_error_set(&self->spoiled, LADE_TOO_LARGE, "a value of %zu bytes in %s",
                             value_len, lade_store_name(db))
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
                              key_len, lade_store_name(db), LADE_STORE_MAX_KEY);
    lade_code_t code = lade_store_begin(self, error);
    if (code)
        return code;
    MDB_val name = {key_len, (void *)key}, data = {value_len, (void *)value};
    int rc = mdb_put(self->write, self->tables[db], &name, &data, append ? MDB_APPEND : 0);
    if (rc == MDB_KEYEXIST) // it was not the highest after all
        rc = mdb_put(self->write, self->tables[db], &name, &data, 0);
    return rc ? s_spoil(self, rc, lade_store_name(db), error)
              : s_log(self, true, db, key, key_len, value, value_len, error);
}

lade_code_t
lade_store_del(lade_store_t *self, lade_db_t db, const void *key, size_t len, lade_error_t *error)
{
    if (len == 0 || len > LADE_STORE_MAX_KEY)
        return LADE_OK;
    lade_code_t code = lade_store_begin(self, error);
    if (code)
        return code;
    MDB_val name = {len, (void *)key};
    int rc = mdb_del(self->write, self->tables[db], &name, NULL);
    if (rc == MDB_NOTFOUND)
        return LADE_OK;
    return rc ? s_spoil(self, rc, lade_store_name(db), error)
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
        return lade_store_error(self, rc, lade_store_name(db), error);
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
    return rc && rc != MDB_NOTFOUND ? lade_store_error(self, rc, lade_store_name(db), error)
                                    : LADE_OK;
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
    return lade_store_used_bytes(self, NULL);
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
