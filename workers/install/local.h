// Sources on this host: copied, moved when that is asked for, or left in place.
#ifndef LADE_LOCAL_H
#define LADE_LOCAL_H

#include "workers/install/source.h"
#include "workers/install/stage.h"

// The first stage: identifies before anything is copied, so that what is no model costs nothing,
// and asks for equal content (a checkpoint of the step "local"), or goes on at once.
lade_code_t lade_local_begin(const lade_stage_t *job, const lade_source_t *source,
                             const json_t *overrides, lade_answer_t *answer, lade_error_t *error);

// The stage after that: registers in place, or copies and prepares.
lade_code_t lade_local_go(const lade_stage_t *job, const lade_source_t *source,
                          const json_t *overrides, lade_answer_t *answer, lade_error_t *error);

#endif
