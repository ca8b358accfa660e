// Backups of the keyspace: one file, written while the broker goes on, and taken up again with none
// running.
//
// The file is a compact LMDB file (which LMDB's own tools read) with a trailer of 256 bytes behind
// it: lines of text that say what it is, its schema, its length and its sha256. So a file that is
// no backup, was cut short or has rotted is told from one that is whole, before anything is
// touched. Secrets are not in the keyspace and so not in it.
#ifndef LADE_BACKUP_H
#define LADE_BACKUP_H

#include "broker/chores.h"

// broker.backup {path, overwrite?}: answers {"path", "bytes", "models", "schema", "seconds"}.
lade_call_fn lade_backup_call;

// What the trailer says.
typedef struct {
    uint64_t schema, models, bytes;
    double created;
    char sha256[65];
} lade_backup_info_t;

// Reads the trailer and then all of the file. LADE_NOT_FOUND, LADE_CORRUPT (no backup, cut short,
// changed), LADE_SCHEMA_TOO_NEW.
lade_code_t lade_backup_check(const char *file, lade_backup_info_t *info, lade_error_t *error);

// Puts a backup in the place of DATA/keyspace. One that is there is refused (LADE_EXISTS) or, with
// force, kept aside; *aside_p (NULL: none was there) is then its folder, yours to free. LADE_BUSY
// while a broker has it. Nothing is touched before the file was found whole, and until its content
// stands ready beside the keyspace; then it is one exchange of names.
lade_code_t lade_backup_restore(const char *data, const char *file, bool force,
                                lade_backup_info_t *info, char **aside_p, lade_error_t *error);

// `lade-broker restore FILE [--force] …`: restores, prints one JSON document, returns the exit
// status.
int lade_backup_main(int argc, char **argv);

#endif
