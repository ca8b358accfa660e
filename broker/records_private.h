// What the files of records share: the indexes.
#ifndef LADE_RECORDS_PRIVATE_H
#define LADE_RECORDS_PRIVATE_H

#include "broker/records.h"

struct lade_records {
    lade_store_t *store;
    char *models_dir; // absolute, without slash at its end
};

enum {
    LADE_RECORDS_MAX_VALUE = 400, // bytes of a value in an index; a longer one is cut and ended by
                                  // its hash
    LADE_RECORDS_MAX_KEY = 64,    // bytes of a record's key (common/record.c checks it)
    LADE_RECORDS_MAX_PATH = 4096,
};

// An index: one row of the table in records_index.c.
typedef struct {
    lade_db_t db;
    char letter; // of the index within `models_sorted`; 0: it has a table of its own
    bool number; // its one field is a number
    // What an entry is made of, in order, and then the record's key. A field that is a list has an
    // entry for each item; so has `base` for each of `bases`, those but the first are marked by a
    // value that is not empty.
    const char *fields[5];
} lade_records_index_t;

typedef enum {
    LADE_INDEX_NAME,
    LADE_INDEX_PATH,
    LADE_INDEX_TAG,
    LADE_INDEX_SOURCE,
    LADE_INDEX_HASH,
    LADE_INDEX_TYPE,    // type, base, name, format: the preset order
    LADE_INDEX_FORMAT,  // format, type, base, name
    LADE_INDEX_BASE,    // base, type, name, format
    LADE_INDEX_CREATED, // the time it was added
    LADE_INDEX_UPDATED,
    LADE_INDEX_SIZE,
    LADE_INDEX_COUNT
} lade_index_t;

const lade_records_index_t *lade_records_index_row(lade_index_t which);

// What an entry of a record would be in an index that is no list; base stands for the record's own
// (NULL: that). entry has room for LADE_STORE_MAX_KEY bytes; returns its length, 0 if the record
// has none there.
size_t lade_records_entry(lade_index_t which, lade_bytes_t record, const char *base, char *entry);

// The beginning of the entries that have the given values (ended by NULL) in their first fields.
size_t lade_records_prefix(lade_index_t which, const char *const *values, char *prefix);

// The record's key in an entry; false if there is none.
bool lade_records_key_in(lade_bytes_t entry, lade_bytes_t *key);

// Changes all indexes and counts from one record to another (either may be empty: {NULL, 0}), as
// they are packed. Only what differs is written. Neither may point into the keyspace.
lade_code_t lade_records_reindex(lade_store_t *store, lade_bytes_t before, lade_bytes_t after,
                                 lade_error_t *error);

// Gives every entry that a record (as it is packed) has to have in the indexes, until each returns
// false; more is what makes its value "+" instead of empty. count is the name of the class count
// that has the entry in it, {NULL, 0} if none has. False if it was ended, or memory ran out.
bool lade_records_each_entry(lade_bytes_t record,
                             bool (*each)(void *arg, lade_db_t db, lade_bytes_t entry, bool more,
                                          lade_bytes_t count),
                             void *arg);

// How many entries a class has; each of the filters may be NULL. Without a base every record counts
// once.
lade_code_t lade_records_class_count(lade_store_t *store, const char *type, const char *base,
                                     const char *format, uint64_t *count_p, lade_error_t *error);

// The path as it is stored: without doubled slashes, "." and a slash at its end, relative to the
// models folder if it is inside. False for "..", which could lead anywhere, and for what is too
// long.
bool lade_records_stored_path(const lade_records_t *self, const char *path,
                              char out[LADE_RECORDS_MAX_PATH + 1]);

#endif
