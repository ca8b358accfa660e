// Opening the keyspace: one process at a time, a file that is whole, the log taken up, the schema
// brought up to date.
#include "broker/store_private.h"

#include "broker/store_upgrade.h"
#include "common/path.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

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

// A map costs address space only. Half of it is free when a batch begins, and a batch is a few
// messages of a few MiB, so that it does not fill in the middle of one.
enum { S_MAP_BYTES = 1 << 30 };

// From which schema, and the function that makes the next one of it. Schema 1 is the first.
static const struct lade_store_migration s_migrations[] = {
    {1, lade_records_upgrade_indexes},
    {0, NULL},
};

static const lade_store_options_t s_options = {
    .schema = LADE_STORE_SCHEMA,
    .migrations = s_migrations,
};

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
    *use = (lade_store_use_t){.used_bytes = lade_store_used_bytes(self, &map),
                              .readers = info.me_numreaders};
    use->map_bytes = map;
}

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
    off_t used = (off_t)lade_store_used_bytes(self, NULL);
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
        return lade_store_error(self, rc, "opening", error);
    mdb_env_set_maxdbs(self->env, LADE_DB_COUNT);
    mdb_env_set_mapsize(self->env, options->map_bytes ? options->map_bytes : S_MAP_BYTES);
    rc = mdb_env_open(self->env, self->folder, MDB_NOTLS, 0600);
    if (rc)
        return lade_store_error(self, rc, "opening", error);
    int dead;
    mdb_reader_check(self->env, &dead); // slots of programs that looked at it and died
    return s_complete_file(self, error);
}

static lade_code_t
s_open_tables(lade_store_t *self, lade_error_t *error)
{
    lade_code_t code = lade_store_begin(self, error);
    for (size_t i = 0; i < LADE_DB_COUNT && !code; i++) {
        int rc = mdb_dbi_open(self->write, s_tables[i], MDB_CREATE, &self->tables[i]);
        if (rc)
            code = lade_store_error(self, rc, s_tables[i], error);
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
    return code && code != LADE_NOT_FOUND ? code
                                          : lade_store_take_up(self, generation, UINT64_MAX, error);
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
        code = lade_wal_open(folder, LADE_STORE_WAL_BYTES, &self->wal, error);
    if (!code)
        code = s_take_up_last(self, error);
    if (!code)
        code = s_check_schema(self, options, error);
    if (!code)
        code = lade_store_commit_now(self, error);
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
        lade_store_close_view(self);
        return;
    }
    if (self->logging) {
        lade_store_abort(self);
        if (lade_wal_count(self->wal))
            lade_store_commit_now(self, NULL); // if it fails, opening takes the log up
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
