// Asking a subject what a rule wants to know.
#ifndef LADE_MATCH_H
#define LADE_MATCH_H

#include "common/identify/families.h"
#include "common/identify/subject.h"

enum { LADE_MATCH_REASON = 240 };

// What a rule is tried on, and what came of it so far.
typedef struct lade_match lade_match_t;
struct lade_match {
    lade_subject_t *subject;
    const lade_patterns_t *patterns; // of all rules
    const json_t *given;             // fields the caller sets, none of them null; or NULL
    json_t *found;                   // fields set so far
    char reason[LADE_MATCH_REASON];  // why it does not fit
    json_t *trace; // NULL, or an array: what was asked, and what was found, is added to it
    json_t *seen;  // while tracing: the evidence of the last source asked, or NULL

    // Identifies a file inside a folder as a given type; a new map, or NULL.
    json_t *(*identify)(const void *engine, lade_subject_t *inside, const char *type);
    const void *engine;
};

// True if the condition holds; else reason says what is missing. Traced as {"asks", "holds", and
// "found" (evidence), "reason" if it does not hold, "of": those of a group}.
bool lade_match_condition(lade_match_t *self, const lade_condition_t *condition);

// The value, new, or NULL for none (reason says why); with the fallback, or only what the model
// itself tells.
json_t *lade_match_value(lade_match_t *self, const lade_value_t *value);
json_t *lade_match_told(lade_match_t *self, const lade_value_t *value);

// Two single values are the same (1 and 1.0 are).
bool lade_match_same(const json_t *a, const json_t *b);

// "768" or "sd-1": a value in a sentence.
const char *lade_match_show(const json_t *value, char *out, size_t size);

#endif
