// Model records: their fields and enumerations as tables, and the check every record passes.
//
// A record is a map (json_t in workers and clients, msgpack on the wire and on disk). One table
// says for each field its type, whether it is required, and which classes (TYPE.FORMAT, of which
// base) have it; fields the table does not know are kept, so that records of newer versions survive
// an update. Which classes there are is in common/taxonomy.c.
//
// A model of several bases has them in `bases`; `base` is the one it is shown with and always one
// of them.
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
    LADE_ENUM_PRECISION, // of default_settings.vae_precision
    LADE_ENUM_EXPERT,
    LADE_ENUM_LORA_EXPERT,
    LADE_ENUM_SCHEDULER, // of default_settings.scheduler
    LADE_ENUM_COUNT
} lade_enum_t;

// The values of an enumeration, ended by NULL.
const char *const *lade_enum_values(lade_enum_t which);
bool lade_enum_has(lade_enum_t which, const char *value);

// A new random key: 32 lower-case hex digits and a NUL.
void lade_record_new_key(char key[33]);

// Turns the aliases base_model, model_type, model_format, config into base, type, format,
// config_path, an empty source_url into null, and names no base in `bases` twice. Changes the map.
void lade_record_canonical(json_t *record);

// Of a whole record: without a base it becomes the first of its bases; a base that is not among
// them is put there.
void lade_record_settle_bases(json_t *record);

// LADE_OK if the map is a whole record: type and format are a class, required fields there, each of
// its type and range and one that the class has, base among the bases. Else
// LADE_INVALID_MODEL_CONFIG naming the field and what it takes.
lade_code_t lade_record_check(const json_t *record, lade_error_t *error);

// LADE_OK if each given field may be set by an update: known fields are of their type, key cannot
// change. null removes an optional field.
lade_code_t lade_record_check_changes(const json_t *changes, lade_error_t *error);

// The same for the overrides of an install (`config`): the key may be chosen, the path may not.
lade_code_t lade_record_check_overrides(const json_t *overrides, lade_error_t *error);

// Applies changes to a copy of record and checks the result; *result_p is yours. A record that
// becomes of another class loses what that does not have, unless the changes name it; if only a new
// type is given and its format is none of that type, the first format that does is taken. `base`
// and `bases` are kept in step: a new base takes the place of the old one in the set, new bases
// without the old base make the first one the base.
lade_code_t lade_record_apply(const json_t *record, const json_t *changes, json_t **result_p,
                              lade_error_t *error);

#endif
