// Model records in the keyspace: the record, and its indexes by name, path, tag, source, hash and
// in order, always together.
//
// Every call works inside the store's current batch; nothing is durable before lade_store_commit.
// Records that are changed are json_t; those that are only answered stay the bytes they are stored
// as. Paths inside the models folder are stored relative to it.
#ifndef LADE_RECORDS_H
#define LADE_RECORDS_H

#include "broker/store.h"
#include "common/buf.h"
#include "common/error.h"

#include <jansson.h>

typedef struct lade_records lade_records_t;

lade_records_t *lade_records_new(lade_store_t *store, const char *models_dir);

// Adds a record (checked; a key is made if it has none; created_at, updated_at, version 1 are set).
// *stored_p is yours. LADE_DUPLICATE_MODEL for a key or path that is there,
// LADE_INVALID_MODEL_CONFIG.
lade_code_t lade_records_add(lade_records_t *self, const json_t *record, json_t **stored_p,
                             lade_error_t *error);

// The same for one that was a record before: its created_at, updated_at and version are kept.
lade_code_t lade_records_import(lade_records_t *self, const json_t *record, json_t **stored_p,
                                lade_error_t *error);

// Sets the given fields. `version` in changes, if there, must be the stored one. *stored_p is
// yours.
lade_code_t lade_records_update(lade_records_t *self, const char *key, const json_t *changes,
                                json_t **stored_p, lade_error_t *error);

// Removes a record; *removed_p (may be NULL) is yours. LADE_UNKNOWN_MODEL.
lade_code_t lade_records_del(lade_records_t *self, const char *key, json_t **removed_p,
                             lade_error_t *error);

lade_code_t lade_records_get(lade_records_t *self, const char *key, json_t **record_p,
                             lade_error_t *error);
// The same as it is packed, valid until the next write; checked, so that it can be answered as it
// is.
lade_code_t lade_records_get_packed(lade_records_t *self, const char *key, lade_bytes_t *record,
                                    lade_error_t *error);
// The same unchecked: whatever the keyspace has under that key.
lade_code_t lade_records_get_stored(lade_records_t *self, const char *key, lade_bytes_t *bytes,
                                    lade_error_t *error);
bool lade_records_exists(lade_records_t *self, const char *key);

// The record stored under that path (absolute, or relative to the models folder); NULL and LADE_OK
// if none.
lade_code_t lade_records_by_path(lade_records_t *self, const char *path, json_t **record_p,
                                 lade_error_t *error);

// Only its key, from the index alone; "" if there is none. key has room for LADE_STORE_MAX_KEY + 1.
lade_code_t lade_records_key_of_path(lade_records_t *self, const char *path, char *key,
                                     lade_error_t *error);

// Keys of the records with that hash, or from that source; an array that is yours.
lade_code_t lade_records_keys_by_hash(lade_records_t *self, const char *hash, json_t **keys_p,
                                      lade_error_t *error);
lade_code_t lade_records_keys_by_source(lade_records_t *self, const char *source, json_t **keys_p,
                                        lade_error_t *error);

// What order records are found in; the record's key decides last. Text goes by its bytes.
typedef enum {
    LADE_ORDER_TYPE, // type, base, name, format: the preset
    LADE_ORDER_BASE, // base, type, name, format
    LADE_ORDER_NAME,
    LADE_ORDER_FORMAT,  // format, type, base, name
    LADE_ORDER_SIZE,    // file_size; 0 if there is none
    LADE_ORDER_CREATED, // created_at
    LADE_ORDER_UPDATED, // updated_at
    LADE_ORDER_PATH,    // as it is stored
    LADE_ORDER_COUNT
} lade_records_order_t;

// "type", "base", …, NULL or "default"; LADE_VALUE_ERROR that lists them.
lade_code_t lade_records_order(const char *text, lade_records_order_t *order_p,
                               lade_error_t *error);

// Which records: those that have all that is given. base is that of a record or one of its bases;
// `any` is a base like the others here.
typedef struct {
    const char *name, *base, *type, *format, *hash;
    const json_t *tags; // an array of texts that are not empty
    lade_records_order_t order;
    bool descending;
    size_t offset, limit;
} lade_records_query_t;

// Adds the records to buf as they are packed, one after the other: at most limit, and at most some
// 12 MiB (but one at least), so that fewer than there are is no sign of the end. *total_p (may be
// NULL, which is cheaper) is how many match. How long it takes does not depend on how many records
// there are: see records_find.c.
lade_code_t lade_records_find(lade_records_t *self, const lade_records_query_t *query,
                              lade_buf_t *buf, size_t *count_p, uint64_t *total_p,
                              lade_error_t *error);

// The records whose key begins so, as lade_records_find adds them, ordered by key.
lade_code_t lade_records_by_key(lade_records_t *self, const char *beginning, size_t limit,
                                lade_buf_t *buf, size_t *count_p, lade_error_t *error);

// Exactly one record, at that base or one of its bases; LADE_UNKNOWN_MODEL, or LADE_DUPLICATE_MODEL
// that lists the keys.
lade_code_t lade_records_one(lade_records_t *self, const char *name, const char *base,
                             const char *type, json_t **record_p, lade_error_t *error);

void lade_records_destroy(lade_records_t **self_p);

#endif
