// What the rule language cannot say, as functions with a name: `predicate: NAME` in a family file.
#ifndef LADE_PREDICATES_H
#define LADE_PREDICATES_H

#include "common/identify/subject.h"

typedef struct {
    const char *name;
    bool folder; // asks a folder, else a file
    // A new value, or NULL for none.
    json_t *(*read)(lade_subject_t *subject);
    const char *help; // one line for who writes a family
} lade_predicate_t;

// Ended by a row without name.
extern const lade_predicate_t lade_predicates[];

#endif
