// The cache of fetched files: MODELS/.cache/DIGEST/NAME, whole or not there.
//
// DIGEST is of the source, so that the same source is found again. Beside NAME lies `.entry`, JSON
// about it, whose time of change is when it was asked for last. An entry appears by one rename and
// goes by one. Over install.cache_mb, those go that were not asked for longest, never one asked for
// within the last minute.
#ifndef LADE_CACHE_H
#define LADE_CACHE_H

#include "workers/install/stage.h"

// Jobs of kind "cache": with a source, DONE with {"path", "bytes", "cached"}; spec.op "list" and
// "clear" (spec.source: only that) about what is there.
lade_code_t lade_cache_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);

// Keeps what an install fetched and could not identify, with the job's state; from is what was
// fetched, in the job's temporary folder.
lade_code_t lade_cache_keep(const lade_stage_t *job, const char *from, lade_error_t *error);

// Takes what was kept of that source into the job's temporary folder. True, with the checkpoint of
// the step "fetch" as the answer, if there was something.
bool lade_cache_take(const lade_stage_t *job, const char *source, lade_answer_t *answer);

#endif
