// Content that is installed already: noticed by its hash, named, and copied only if that is asked
// for.
//
// The spec's `on_equal` says what then: "refuse" (the preset) ends the job in DuplicateModel, whose
// message and result name the record; "link" makes a second record of the same bytes, by hard
// links; "copy" asks nobody.
#ifndef LADE_EQUAL_H
#define LADE_EQUAL_H

#include "workers/install/stage.h"

// What to ask the broker about content with that hash (NULL: nothing is known), for an AWAIT. NULL
// if nothing is to be asked.
json_t *lade_equal_ask(const lade_stage_t *job, const char *hash);

// The same about what came from that source.
json_t *lade_equal_ask_source(const lade_stage_t *job, const char *source);

// The record, of those answered, that has that value in that field and whose files are here; NULL
// if there is none. Stays the job's.
const json_t *lade_equal_find(const lade_stage_t *job, const char *field, const char *value);

// Whether the record may be taken for the install's, as `on_equal` says, and not in place.
bool lade_equal_links(const lade_stage_t *job);

// LADE_DUPLICATE_MODEL with the record's name and key, which go into the answer's result too.
lade_code_t lade_equal_refuse(const lade_stage_t *job, const json_t *record, lade_answer_t *answer,
                              lade_error_t *error);

// Links the record's files as `to`, if they are byte for byte what is at `like`; LADE_NOT_FOUND if
// they are not.
lade_code_t lade_equal_link(const lade_stage_t *job, const json_t *record, const char *like,
                            const char *to, lade_error_t *error);

// Compares two files or trees byte for byte: *same_p. Two names of one file are the same at once.
lade_code_t lade_equal_compare(const lade_stage_t *job, const char *a, const char *b, bool *same_p,
                               lade_error_t *error);

#endif
