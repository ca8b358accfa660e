// libsqlite3 through dlopen: a handful of its functions, and read-only ways to open a file.
#include "client/sqlite.h"

#include "common/path.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// As sqlite3.h has them; its interface has not changed in twenty years and will not.
enum { S_OK = 0, S_ROW = 100, S_DONE = 101, S_OPEN_READONLY = 1, S_OPEN_URI = 0x40, S_MOST = 8 };
typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;

struct lade_sqlite {
    char *file;
    char *copy; // the folder of a copy, or NULL
    void *library;
    sqlite3 *db;
    int (*open_v2)(const char *, sqlite3 **, int, const char *);
    int (*close)(sqlite3 *);
    int (*prepare_v2)(sqlite3 *, const char *, int, sqlite3_stmt **, const char **);
    int (*step)(sqlite3_stmt *);
    int (*column_count)(sqlite3_stmt *);
    const unsigned char *(*column_text)(sqlite3_stmt *, int);
    int (*finalize)(sqlite3_stmt *);
    const char *(*errmsg)(sqlite3 *);
};

static const struct {
    const char *name;
    size_t where;
} s_symbols[] = {
    // clang-format off
    {"sqlite3_open_v2",      offsetof(lade_sqlite_t, open_v2)},
    {"sqlite3_close",        offsetof(lade_sqlite_t, close)},
    {"sqlite3_prepare_v2",   offsetof(lade_sqlite_t, prepare_v2)},
    {"sqlite3_step",         offsetof(lade_sqlite_t, step)},
    {"sqlite3_column_count", offsetof(lade_sqlite_t, column_count)},
    {"sqlite3_column_text",  offsetof(lade_sqlite_t, column_text)},
    {"sqlite3_finalize",     offsetof(lade_sqlite_t, finalize)},
    {"sqlite3_errmsg",       offsetof(lade_sqlite_t, errmsg)},
    // clang-format on
};

static lade_code_t
s_load(lade_sqlite_t *self, lade_error_t *error)
{
    const char *name = getenv("LADE_LIBSQLITE3");
    self->library = dlopen(name && *name ? name : "libsqlite3.so.0", RTLD_NOW | RTLD_LOCAL);
    bool whole = self->library != NULL;
    for (size_t i = 0; whole && i < sizeof s_symbols / sizeof *s_symbols; i++) {
        void *symbol = dlsym(self->library, s_symbols[i].name);
        memcpy((char *)self + s_symbols[i].where, &symbol, sizeof symbol);
        whole = symbol != NULL;
    }
    return whole ? LADE_OK
                 : lade_error_set(error, LADE_NOT_FOUND,
                                  "this machine has no libsqlite3, which reads %s: install it "
                                  "(libsqlite3-0 on Debian) and ask again",
                                  self->file);
}

// Whether something is in the log beside the database that is not in it yet.
static bool
s_unfinished(const char *file)
{
    char path[4096];
    struct stat stat_of;
    snprintf(path, sizeof path, "%s-wal", file);
    return stat(path, &stat_of) == 0 && stat_of.st_size > 0;
}

static lade_code_t
s_copy(lade_sqlite_t *self, char **opened_p, lade_error_t *error)
{
    const char *tmp = getenv("TMPDIR");
    char *folder = lade_path_join(tmp && *tmp ? tmp : "/tmp", "lade-invokeai-XXXXXX");
    if (!mkdtemp(folder)) {
        free(folder);
        return lade_error_set(error, LADE_IO_ERROR, "no folder for a copy of %s", self->file);
    }
    self->copy = folder;
    char *to = lade_path_join(folder, "db"), *log = lade_path_join(folder, "db-wal"), *from;
    if (asprintf(&from, "%s-wal", self->file) < 0)
        abort();
    lade_code_t code = lade_path_copy(self->file, to, NULL, NULL, error);
    if (!code)
        code = lade_path_copy(from, log, NULL, NULL, error);
    free(from);
    free(log);
    *opened_p = to;
    return code;
}

// The path as a URI that promises nobody changes the file, so that SQLite writes nothing beside it.
static char *
s_uri(const char *file)
{
    char *uri = malloc(3 * strlen(file) + 64), *at = uri;
    if (!uri)
        abort();
    at += sprintf(at, "file:");
    for (; *file; file++)
        at += sprintf(at, strchr("?#%", *file) ? "%%%02x" : "%c", (unsigned char)*file);
    sprintf(at, "?mode=ro&immutable=1");
    return uri;
}

lade_code_t
lade_sqlite_open(const char *file, lade_sqlite_t **self_p, lade_error_t *error)
{
    lade_sqlite_t *self = calloc(1, sizeof *self);
    char *opened = NULL, *name = strdup(file);
    *self_p = NULL;
    if (!self || !name)
        abort();
    self->file = name;
    lade_code_t code = s_load(self, error);
    if (!code && s_unfinished(file))
        code = s_copy(self, &opened, error);
    else if (!code)
        opened = s_uri(file);
    int flags = S_OPEN_READONLY | (self->copy ? 0 : S_OPEN_URI);
    if (!code && self->copy)
        flags = 2; // SQLITE_OPEN_READWRITE: the copy is ours, and its log is taken up there
    if (!code && self->open_v2(opened, &self->db, flags, NULL) != S_OK)
        code = lade_error_set(error, LADE_CORRUPT, "%s: %s", file,
                              self->db ? self->errmsg(self->db) : "cannot be opened");
    free(opened);
    if (code)
        lade_sqlite_close(&self);
    *self_p = self;
    return code;
}

lade_code_t
lade_sqlite_each(lade_sqlite_t *self, const char *query,
                 bool (*row)(void *arg, const char *const *columns), void *arg, lade_error_t *error)
{
    sqlite3_stmt *statement = NULL;
    int rc = self->prepare_v2(self->db, query, -1, &statement, NULL);
    bool more = rc == S_OK;
    while (more && (rc = self->step(statement)) == S_ROW) {
        const char *columns[S_MOST] = {NULL};
        for (int i = 0; i < S_MOST && i < self->column_count(statement); i++)
            columns[i] = (const char *)self->column_text(statement, i);
        more = row(arg, columns);
    }
    lade_code_t code = LADE_OK;
    if (rc != S_OK && rc != S_ROW && rc != S_DONE)
        code = lade_error_set(error, LADE_CORRUPT, "%s: %s", self->file, self->errmsg(self->db));
    if (statement)
        self->finalize(statement);
    return code;
}

void
lade_sqlite_close(lade_sqlite_t **self_p)
{
    lade_sqlite_t *self = *self_p;
    *self_p = NULL;
    if (!self)
        return;
    if (self->db)
        self->close(self->db);
    if (self->copy)
        lade_path_remove(self->copy, NULL);
    // The library stays: it has a thread's own data, and a program asks once or twice.
    free(self->copy);
    free(self->file);
    free(self);
}
