// Which tensors a rule means, and finding them: `key` of the rule language.
//
// Patterns of all rules are known before the first question, so that equal ones are answered once,
// and the texts in them are looked for together (parts.h). A pattern is then tried only on the
// tensors that have its rarest text; a regular expression adds the texts that must be in whatever
// it fits.
#ifndef LADE_PATTERN_H
#define LADE_PATTERN_H

#include "common/formats/tensors.h"

#include <jansson.h>
#include <regex.h>

// Each list that is not empty has to have a member that fits.
typedef struct lade_pattern lade_pattern_t;
struct lade_pattern {
    json_t *exact, *prefix, *suffix, *contains; // arrays of text, or NULL
    regex_t *regex;
    const char *regex_text; // what it was made of
    const char *sibling; // the name with this in place of its suffix has to be there too, or NULL
    lade_pattern_t *except;
    size_t number; // among the different patterns, from 1; set by lade_patterns_add
};

// All patterns there are.
typedef struct lade_patterns lade_patterns_t;
lade_patterns_t *lade_patterns_new(void);

// Notes a pattern, which has to stay as it is as long as the patterns live.
void lade_patterns_add(lade_patterns_t *self, lade_pattern_t *pattern);

// To be called after the last add; several threads may search then.
void lade_patterns_build(lade_patterns_t *self);

void lade_patterns_destroy(lade_patterns_t **self_p);

// What was found in one list of tensors, so far.
typedef struct lade_search lade_search_t;
lade_search_t *lade_search_new(const lade_patterns_t *patterns, const lade_tensors_t *tensors);
const lade_tensors_t *lade_search_tensors(const lade_search_t *self);

// Each tensor that fits, one a call, in the order of the list; *at starts at 0. Of exact names
// alone only the first in the pattern that is there. NULL after the last.
const lade_tensor_t *lade_search_next(lade_search_t *self, const lade_pattern_t *pattern,
                                      size_t *at);

// True if this tensor fits.
bool lade_search_fits(lade_search_t *self, const lade_pattern_t *pattern,
                      const lade_tensor_t *tensor);

void lade_search_destroy(lade_search_t **self_p);

#endif
