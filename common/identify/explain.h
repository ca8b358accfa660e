// Why a model was identified as what it was, or not at all: what was asked and what was found.
#ifndef LADE_EXPLAIN_H
#define LADE_EXPLAIN_H

#include "common/identify/match.h"

// Adds a rule that was tried to the list of all of them; match->trace, which it takes, is what was
// asked. depth is how many of its conditions and fields held.
void lade_explain_note(json_t *list, const lade_rule_t *rule, lade_match_t *match, bool fits,
                       size_t depth);

// What of that list tells something, in the form of lade_identify_explained. New.
json_t *lade_explain_sum(const json_t *list);

#endif
