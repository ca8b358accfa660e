// From files that lie in the temporary folder to a move that is decided: record, key and final name
// are fixed in a checkpoint, so that whoever makes the move makes the same.
#ifndef LADE_PREPARE_H
#define LADE_PREPARE_H

#include "workers/install/stage.h"

// Everything about the model but its move: describes it, makes its files durable, answers with the
// checkpoint of the step "place". path: where it lies; state: what is known of its source; fetch:
// the state to go back to should it vanish (NULL: from the beginning).
lade_code_t lade_prepare(const lade_stage_t *job, const char *path, const json_t *state,
                         const json_t *fetch, lade_answer_t *answer, lade_error_t *error);

// The checkpoint alone, for the round-th name that is tried. record gets its final path. hash: what
// to look for among the records before the move; NULL: nothing.
lade_code_t lade_prepare_place(const lade_stage_t *job, json_t *record, const char *from,
                               const json_t *fetch, const char *hash, int64_t round,
                               lade_answer_t *answer, lade_error_t *error);

// LADE_DUPLICATE_MODEL if what is at path has the name it would get already, with or without a
// record: the user installs it twice. found has type and base. Not if `on_equal` asks for it.
lade_code_t lade_prepare_refuse_twice(const lade_stage_t *job, const json_t *found,
                                      const char *path, lade_error_t *error);

#endif
