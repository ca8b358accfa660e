// Jobs of kind "scan": the models below a folder become records (scan_directory), or records and
// files are brought into agreement (sync_to_config).
//
//   no state ──a folder──▶ look ──AWAIT, asks which are known──▶ "known" ──AWAIT batches──▶ "batch"
//      │                    ▲  ▲                                   │                          │
//      │                    │  └──────────── the next page ────────┴──────────────────────────┤
//      └──sync──▶ AWAIT, asks for records ──▶ "records" (page by page)                        ▼
//                                                                                           DONE
//
// look walks (walk.h) and takes a page of what it finds. A batch is a scan job of its own that
// identifies some dozens of models and makes their records in one transaction: a child for each
// model would cost more than the model. A batch that fails is tried again model by model, so that
// one bad model costs itself. Copies (install) are install jobs, one for each model.
#ifndef LADE_SCAN_H
#define LADE_SCAN_H

#include "workers/install/stage.h"

lade_code_t lade_scan_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Between scan.c, batch.c and sync.c. A state is the job's saved state, and yours: what takes it
// hands it on or frees it.

// Walks the state's `roots` and asks for the next page of what is found.
lade_code_t lade_scan_look(const lade_stage_t *job, json_t *state, lade_answer_t *answer,
                           lade_error_t *error);

// Adds to the state's list of that name, and to its count NAME_count; a list has an end, a count
// has none. item is taken.
void lade_scan_note(const lade_stage_t *job, json_t *state, const char *name, json_t *item);

// {"path", "error_type", "error"}.
json_t *lade_scan_failure(const char *path, const char *type, const char *words);

// The answer to an ask, NULL with an error if the broker could not give it.
const json_t *lade_scan_answer(const lade_stage_t *job, size_t index, lade_error_t *error);

// A batch: spec `batch` has the paths; with `lost` records that some of them may be.
lade_code_t lade_batch_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);

// The stages of sync around the search. paths are those of the page nobody knows; lost ones that
// may be among them are put into *lost_p, and the paths to look at for that into *alike_p (both
// yours, NULL: none).
lade_code_t lade_sync_begin(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);
lade_code_t lade_sync_records(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);
void lade_sync_alike(const json_t *state, json_t *paths, json_t **alike_p, json_t **lost_p);
void lade_sync_relinked(const lade_stage_t *job, json_t *state, const json_t *relinked);
void lade_sync_finish(const lade_stage_t *job, const json_t *state, lade_answer_t *answer);

#endif
