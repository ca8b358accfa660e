// The doctor: do indexes, records and files agree?
//
// A chore (chores.h): the keyspace is looked at in a view, then, with the view closed, the files.
// What is wrong is a finding: {"check", "severity" ("error", "warning", "note"), "where", "what",
// "todo", "key"?, "bytes"?, "fixable"}. With fix, what loses nothing is made good: entries of
// indexes are written as the records of that moment want them, and leftovers of jobs that are gone
// are removed.
#ifndef LADE_DOCTOR_H
#define LADE_DOCTOR_H

#include "broker/chores.h"

enum {
    LADE_DOCTOR_MAX_FINDINGS = 1000, // told of one check; more are counted
    LADE_DOCTOR_MAX_FIXES = 20000,   // entries put right in one turn
    LADE_DOCTOR_STALE_S = 3600,      // age of leftovers before they count as such
};

// broker.check {fix?}
lade_call_fn lade_doctor_call;

// ---------------------------------------------------------------------------------------------------
// The parts

typedef struct {
    json_t *findings;
    json_t *counts; // of findings by check
    json_t *fixed;  // sentences
} lade_doctor_t;

// Adds a finding; where, key and what are copied. Returns it, or NULL if there are enough of the
// check.
json_t *lade_doctor_find(lade_doctor_t *self, const char *check, const char *severity,
                         const char *where, const char *key, const char *todo, const char *format,
                         ...) __attribute__((format(printf, 7, 8)));

// An entry of an index that is not as the records want it.
typedef struct {
    lade_db_t db;
    char *entry;
    size_t len;
} lade_doctor_entry_t;

// A record's files, as far as the doctor wants to know.
typedef struct {
    char *key, *path; // path as it is stored
    int64_t size;     // -1: the record does not say
} lade_doctor_record_t;

typedef struct {
    lade_doctor_entry_t *entries;
    size_t entry_count;
    json_t *counts; // class counts that are wrong: name (NUL as \1) to what has to be added
    lade_doctor_record_t *records;
    size_t record_count, record_cap;
} lade_doctor_index_t;

// doctor_index.c: looks at all records and entries of the chore's view.
lade_code_t lade_doctor_index(lade_doctor_t *self, lade_chore_t *chore, lade_doctor_index_t *index,
                              lade_error_t *error);
// Puts the entries and counts right, by the records that are there now. Returns how many.
size_t lade_doctor_index_fix(lade_store_t *store, const lade_doctor_index_t *index);
void lade_doctor_index_free(lade_doctor_index_t *index);

// doctor_files.c: looks at the files of the records, at what lies below the models folder, and at
// the disks. leftovers_p (yours) are [{"path", "job"}…]: temporary files that may be a job's.
void lade_doctor_files(lade_doctor_t *self, lade_chore_t *chore, const lade_doctor_index_t *index,
                       json_t **leftovers_p);
json_t *lade_doctor_disks(lade_doctor_t *self, const lade_config_t *config);

#endif
