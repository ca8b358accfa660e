// Jobs of kind "convert": a record's checkpoint as a folder of diffusers, in the cache of converted
// copies (common/converted.h) or where it is asked for.
//
//   spec {"key", "record", "dest"?, "awaited"?}   DONE {"path", "bytes", "converted"}
//
// `converted` is false if the copy was there already. Over install.convert_cache_mb those copies go
// that were not asked for longest, never one asked for within the last minute, one that is being
// read, or one that a load waits for (`awaited`) and has not come to within ten minutes. If the
// record is gone when the copy is there, the copy goes too and the job ends in UnknownModel.
#ifndef LADE_CONVERT_JOB_H
#define LADE_CONVERT_JOB_H

#include "workers/install/stage.h"

lade_code_t lade_convert_job_step(const lade_stage_t *job, lade_answer_t *answer,
                                  lade_error_t *error);

// Brings the cache below its limit, and removes what others than these rules (NULL: any) made.
void lade_convert_job_trim(const lade_config_t *config, const lade_convert_rules_t *rules);

// The model is gone: so is its copy.
void lade_convert_job_forget(const lade_config_t *config, const char *key);

#endif
