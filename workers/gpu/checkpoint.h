// Parts of single-file checkpoints: they are loaded from a converted copy (common/converted.h),
// which an install worker makes.
#ifndef LADE_GPU_CHECKPOINT_H
#define LADE_GPU_CHECKPOINT_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

// Whether a load of that submodel (NULL: none) is one of a converted copy.
bool lade_checkpoint_is(const json_t *record, const char *submodel);

// What such a load is about: *record_p, yours, is the record as that of the copy, a diffusers
// folder, if there is one that is up to date, and *hold_p keeps it there until you close it; else
// *jobs_p, yours, are the jobs to wait for. children are those of the jobs before, rounds how often
// they were waited for: the error of one that failed, or LADE_IO_ERROR if there is no copy after
// some rounds.
lade_code_t lade_checkpoint_find(const char *models_dir, const json_t *record,
                                 const json_t *children, int64_t rounds, json_t **record_p,
                                 int *hold_p, json_t **jobs_p, lade_error_t *error);

#endif
