// The first stage: from what the user typed to what has to be fetched or copied.
#ifndef LADE_RESOLVE_H
#define LADE_RESOLVE_H

#include "workers/install/civitai.h"
#include "workers/install/source.h"
#include "workers/install/stage.h"

// Reads the job's source (its `source` text, or the map `spec.source`), hub pages turned into what
// they show. Free it with lade_source_free whatever is returned.
lade_code_t lade_resolve_source(const lade_stage_t *job, lade_source_t *source,
                                lade_error_t *error);

// Asks the hub about a repository, or takes the URL as it is, and answers AWAIT with one download
// job a file and a state of the step "fetch"; with `dry_run`, DONE with the list.
lade_code_t lade_resolve_remote(const lade_stage_t *job, const lade_source_t *source,
                                lade_answer_t *answer, lade_error_t *error);

// The download job of one entry of state.files.
json_t *lade_resolve_download(const lade_stage_t *job, const json_t *file);

// A page of Civitai, or one of its download addresses: AWAIT for the one file that is meant.
lade_code_t lade_resolve_civitai(const lade_stage_t *job, const lade_source_t *source,
                                 const lade_civitai_ref_t *ref, lade_answer_t *answer,
                                 lade_error_t *error);

// A new state of the step "fetch" without files yet; and the answer once they are in it: AWAIT for
// them, or, in a dry run, DONE with their list.
json_t *lade_resolve_state(const lade_source_t *source);
void lade_resolve_answer(const lade_stage_t *job, json_t *state, const char *local_path,
                         lade_answer_t *answer);

// The missing entries of state.files that were to come from the hub library's cache get the hub's
// URL instead, in both; how many. None if the hub is not to be asked.
size_t lade_resolve_leave_cache(const lade_stage_t *job, json_t *state, json_t *missing);

#endif
