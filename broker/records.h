// Model records in the keyspace: the record, and its indexes by name, path, tag, source and hash,
// always together.
//
// Every call works inside the store's current batch; nothing is durable before lade_store_commit.
// Records are json_t here (they are no hot path); paths inside the models folder are stored
// relative to it.
#ifndef LADE_RECORDS_H
#define LADE_RECORDS_H

#include "broker/store.h"
#include "common/error.h"

#include <jansson.h>

typedef struct lade_records lade_records_t;

lade_records_t *lade_records_new(lade_store_t *store, const char *models_dir);

// Adds a record (checked; a key is made if it has none; created_at, updated_at, version 1 are set).
// *stored_p is yours. LADE_DUPLICATE_MODEL for a key or path that is there,
// LADE_INVALID_MODEL_CONFIG.
lade_code_t lade_records_add(lade_records_t *self, const json_t *record, json_t **stored_p,
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

// Records that have all given values (each may be NULL), ordered by type, base, name, format, key.
// *list_p is yours.
lade_code_t lade_records_search(lade_records_t *self, const char *name, const char *base,
                                const char *type, const char *format, json_t **list_p,
                                lade_error_t *error);

// Records with all the tags (an array of text).
lade_code_t lade_records_by_tags(lade_records_t *self, const json_t *tags, json_t **list_p,
                                 lade_error_t *error);

// Exactly one record; LADE_UNKNOWN_MODEL, or LADE_DUPLICATE_MODEL that lists the keys.
lade_code_t lade_records_one(lade_records_t *self, const char *name, const char *base,
                             const char *type, json_t **record_p, lade_error_t *error);

void lade_records_destroy(lade_records_t **self_p);

#endif
