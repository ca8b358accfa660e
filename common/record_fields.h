// The fields of a record as a table, and which classes have them: what the files of common/record.h
// share. record_fields.c has the table, record_check.c walks it.
#ifndef LADE_RECORD_FIELDS_H
#define LADE_RECORD_FIELDS_H

#include "common/record.h"

typedef enum {
    LADE_FIELD_KEY,       // text that can be part of a file name and of an index
    LADE_FIELD_TEXT,      // max: bytes
    LADE_FIELD_URL,       // the same, http or https
    LADE_FIELD_ENUM,      // one of values
    LADE_FIELD_ENUMS,     // an array of them, not empty
    LADE_FIELD_VARIANT,   // one of those its class has (lade_taxonomy_variants)
    LADE_FIELD_TEXTS,     // an array of text, max: items
    LADE_FIELD_INTEGER,   // from min to max
    LADE_FIELD_EITHER,    // an integer: min or max
    LADE_FIELD_NUMBER,    // from min to max, with fraction
    LADE_FIELD_EIGHTS,    // an integer that 8 divides
    LADE_FIELD_SWITCH,    // true or false
    LADE_FIELD_MAP,       // a map of anything
    LADE_FIELD_BLOB,      // text or a map
    LADE_FIELD_SUBMODELS, // a map of maps (lade_record_submodel)
    LADE_FIELD_SETTINGS,  // a map with fields of its own (lade_record_settings)
} lade_field_type_t;

typedef struct {
    const char *name;
    lade_field_type_t type;
    bool required;
    const char *classes; // space-separated patterns of TYPE.FORMAT that have it; NULL: all
    const char *base;    // the only base that has it; NULL: all
    lade_enum_t values;
    double min, max;
} lade_field_t;

enum {
    LADE_RECORD_MAX_NAME = 512,
    LADE_RECORD_MAX_TEXTS = 1000,
};

// A table of fields. A field may have several rows for several classes; the first that fits counts.
typedef struct {
    const lade_field_t *rows;
    size_t count;
} lade_fields_t;

extern const lade_fields_t lade_record_fields;   // of a record
extern const lade_fields_t lade_record_settings; // of its default_settings; nothing else is in them
extern const lade_fields_t lade_record_submodel; // of a submodel, besides what else is known of it

// What a record is, as far as the table asks.
typedef struct {
    char text[64]; // "TYPE.FORMAT"
    const char *base;
    bool known; // it is a whole record, no change set
    bool open;  // has every field: a change set, or a model of unknown type or format
} lade_record_class_t;

lade_record_class_t lade_record_class(const json_t *record);

// Whether one of the space-separated patterns fits TYPE.FORMAT. A pattern is text with a star at
// its beginning, at its end, at both or nowhere.
bool lade_record_pattern_fits(const char *patterns, const char *class);

// The variants a class has; all there are if it is open, NULL if it has none.
const char *const *lade_record_class_variants(const lade_record_class_t *class);

bool lade_record_class_has(const lade_record_class_t *class, const lade_field_t *field);

// The row that says what a field is in a class: the first that fits, but for the base at least;
// else the first of that name. NULL: there is none.
const lade_field_t *lade_record_row(const lade_record_class_t *class, const lade_fields_t *table,
                                    const char *name);

// record_check.c

// Each says in its error which field it is and what that takes.
lade_code_t lade_record_check_value(const lade_record_class_t *class, const lade_field_t *field,
                                    const json_t *value, lade_error_t *error);
lade_code_t lade_record_check_all(const lade_record_class_t *class, const json_t *record,
                                  lade_error_t *error);

#endif
