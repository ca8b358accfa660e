// Removing files. Jobs of kind "delete": a model's files go, and its record with them.
//
// spec {"key", "record", "force"}. Files inside the models folder are removed; what lies elsewhere
// (registered in place) is left alone unless force says otherwise. The files get a name that is
// nobody's first, so that a crash leaves either all of the model under its name or nothing.
#ifndef LADE_REMOVE_H
#define LADE_REMOVE_H

#include "workers/install/stage.h"

// Answers DONE with del_model. LADE_VALUE_ERROR for a record whose path is no place to delete from.
lade_code_t lade_remove_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);

// Jobs of kind "discard": what a move leaves at its old place goes. spec {"path", "copy"}: path is
// removed if copy, where it was installed, has the same bytes. A source that is not there any more
// is no error; LADE_VALUE_ERROR if the two differ.
lade_code_t lade_discard_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);

#endif
