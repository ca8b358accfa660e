// The rules of identification, as read from family files (their language:
// configs/families/README.md).
//
// A rule holds conditions and what to set when all of them hold. Both are made of sources: "the
// width of this tensor", "what this JSON file says there", "the file's name". A source gives one
// value or none; a condition checks it, a value maps it.
#ifndef LADE_FAMILIES_H
#define LADE_FAMILIES_H

#include "common/error.h"
#include "common/identify/pattern.h"

#include <jansson.h>
#include <regex.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum {
    LADE_SOURCE_NONE,
    LADE_SOURCE_KEY,       // tensors that fit a pattern: true, or what `take` or `axis` say of them
    LADE_SOURCE_SCALAR,    // the value of a one-element integer tensor
    LADE_SOURCE_METADATA,  // an entry of the file's metadata
    LADE_SOURCE_NAME,      // file: the stem, folder: its name; parent: of the folder it lies in
    LADE_SOURCE_EXISTS,    // the first of these paths that is there
    LADE_SOURCE_JSON,      // the value at a path in the first of these JSON files that is there
    LADE_SOURCE_CLASS,     // the class the first of these JSON files names
    LADE_SOURCE_INSIDE,    // a field of what the first of these files inside is by itself
    LADE_SOURCE_FIELD,     // a field given by the caller or set before
    LADE_SOURCE_PREDICATE, // what a C function says (predicates.h)
} lade_source_kind_t;

typedef enum {
    LADE_TAKE_PRESENCE,
    LADE_TAKE_AXIS,
    LADE_TAKE_RANK,
    LADE_TAKE_DTYPE,
    LADE_TAKE_COUNT,
    LADE_TAKE_INPUT, // of an adapter's tensors: the width of the layer they change
    LADE_TAKE_OUTPUT
} lade_take_t;

typedef struct {
    lade_source_kind_t kind;
    lade_pattern_t *pattern; // KEY
    json_t *names;           // array of text: files, paths, or the one key, field or predicate
    lade_take_t take;        // KEY
    int axis;                // KEY; negative counts from the end
    json_t *in;              // KEY of a folder: the weights of the first of these folders inside
    const char *at;          // JSON: dotted path; INSIDE: the field
    const char *as;          // INSIDE: the type it has to be
    size_t predicate;        // PREDICATE: row of lade_predicates
} lade_source_t;

typedef struct {
    json_t *is;            // array of accepted values, or NULL
    regex_t *matches;      // of a text, in any case
    lade_pattern_t *every; // KEY: all tensors that fit have to fit this one too
    bool has_min, has_max;
    double min, max;
} lade_check_t;

typedef enum { LADE_WHEN_SOURCE, LADE_WHEN_ANY, LADE_WHEN_ALL, LADE_WHEN_NOT } lade_when_t;

typedef struct lade_condition lade_condition_t;
struct lade_condition {
    lade_when_t kind;
    lade_source_t source;
    lade_check_t check;
    lade_condition_t *children; // of ANY, ALL, NOT
    size_t count;
};

typedef struct lade_value lade_value_t;
typedef struct {
    lade_condition_t *when;
    size_t count;
    lade_value_t *then;
} lade_choice_t;

struct lade_value {
    json_t *constant;     // the value itself, or NULL
    lade_source_t source; // else where it comes from
    json_t *from, *to; // arrays of one length: what the source's value stands for; NULL: as it is
    lade_choice_t *first; // or: the first of these whose conditions hold and whose value is there
    size_t first_count;
    json_t *may_be;         // array: what the caller may say when nothing above gave a value
    lade_value_t *fallback; // when nothing above did and the caller does not say
    bool optional;          // no value leaves the field out
};

typedef struct {
    const char *name;
    lade_value_t value;
} lade_field_t;

typedef struct {
    const char *family; // file name without ".yaml"
    const char *name;
    const char *why;
    bool folder; // about folders, else about files
    bool site;   // from the site's folder: asked before all shipped ones
    int rank;    // of the rules that fit, those of the highest rank count
    lade_condition_t *when;
    size_t when_count;
    lade_field_t *fields; // in the order of the file
    size_t field_count;
} lade_rule_t;

typedef struct lade_families lade_families_t;

lade_families_t *lade_families_new(void);

// Reads one family file's text. name is what errors call it. LADE_CONFIG_ERROR "NAME:LINE: …".
lade_code_t lade_families_read(lade_families_t *self, const char *name, const char *text,
                               size_t len, bool site, lade_error_t *error);

size_t lade_families_count(const lade_families_t *self);
const lade_rule_t *lade_families_get(const lade_families_t *self, size_t index);

// The patterns of all rules; lade_families_close makes them fit to be searched for.
const lade_patterns_t *lade_families_patterns(const lade_families_t *self);

// To be called when all families have been read, before the first question.
void lade_families_close(lade_families_t *self);

// True if a family of that name (without ".yaml") has been read.
bool lade_families_has(const lade_families_t *self, const char *family);

void lade_families_destroy(lade_families_t **self_p);

#endif
