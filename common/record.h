// Model records: their fields and enumerations as tables, and the check every record passes.
//
// A record is a map (json_t in workers and clients, msgpack on the wire and on disk). One table
// says for each field its type, whether it is required, and which (type, format) pairs have it;
// fields the table does not know are kept, so that records of newer versions survive an update.
#ifndef LADE_RECORD_H
#define LADE_RECORD_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

// The enumerations of the taxonomy, as text values ("sd-1", "main", "diffusers", …).
typedef enum {
    LADE_ENUM_TYPE,
    LADE_ENUM_BASE,
    LADE_ENUM_FORMAT,
    LADE_ENUM_VARIANT,
    LADE_ENUM_PREDICTION,
    LADE_ENUM_REPO_VARIANT, // "" is the default one
    LADE_ENUM_SUBMODEL,
    LADE_ENUM_SOURCE_TYPE,
    LADE_ENUM_COUNT
} lade_enum_t;

// The values of an enumeration, ended by NULL.
const char *const *lade_enum_values(lade_enum_t which);
bool lade_enum_has(lade_enum_t which, const char *value);

// A new random key: 32 lower-case hex digits and a NUL.
void lade_record_new_key(char key[33]);

// Turns the aliases base_model, model_type, model_format into base, type, format. Changes the map.
void lade_record_canonical(json_t *record);

// LADE_OK if the map is a whole record: required fields there, each of its type and range, variant
// and prediction type allowed for its class. Else LADE_INVALID_MODEL_CONFIG naming the field and
// what it takes.
lade_code_t lade_record_check(const json_t *record, lade_error_t *error);

// LADE_OK if each given field may be set by an update: known fields are of their type, key cannot
// change. null removes an optional field.
lade_code_t lade_record_check_changes(const json_t *changes, lade_error_t *error);

// The same for the overrides of an install (`config`): the key may be chosen, the path may not.
lade_code_t lade_record_check_overrides(const json_t *overrides, lade_error_t *error);

// Applies changes to a copy of record and checks the result; *result_p is yours.
lade_code_t lade_record_apply(const json_t *record, const json_t *changes, json_t **result_p,
                              lade_error_t *error);

#endif
