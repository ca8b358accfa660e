// Reading a SQLite database of somebody else's: with the system's libsqlite3, opened when it is
// needed, and without writing anything beside the database.
#ifndef LADE_SQLITE_H
#define LADE_SQLITE_H

#include "common/error.h"

#include <stdbool.h>

typedef struct lade_sqlite lade_sqlite_t;

// LADE_NOT_FOUND if the machine has no libsqlite3 (or none of the name LADE_LIBSQLITE3 in the
// environment); LADE_CORRUPT if the file is no database. A database that was not closed in order
// (it has a -wal file) is read from a copy in TMPDIR, as SQLite would write beside it.
lade_code_t lade_sqlite_open(const char *file, lade_sqlite_t **self_p, lade_error_t *error);

// Gives the columns of each row as text (NULL: null) until row returns false.
lade_code_t lade_sqlite_each(lade_sqlite_t *self, const char *query,
                             bool (*row)(void *arg, const char *const *columns), void *arg,
                             lade_error_t *error);

void lade_sqlite_close(lade_sqlite_t **self_p);

#endif
