// Jobs of kind "install": a source becomes files below the models folder and a record.
//
//   no state ──local──▶ probe, copy ──────────────▶ prepare ──AWAIT──▶ "place" ──▶ DONE with
//   put_model
//            ──local, in place──▶ probe ──▶ DONE        ▲
//            ──hub, URL──▶ list ──AWAIT downloads──▶ "fetch"
//
// prepare = identify, hash, make the record, choose the final name; its AWAIT has no jobs and is a
// checkpoint: from there on key, record and final name are fixed, so that an attempt that is killed
// anywhere is repeated with the same outcome.
#ifndef LADE_INSTALL_H
#define LADE_INSTALL_H

#include "workers/install/stage.h"

// Runs one stage. On an error nothing was answered; what the job left in its temporary folder is
// cleaned as the error asks for (kept for a retry or a resume, removed for good else).
lade_code_t lade_install_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);

// What registering the model at path in place makes of it: its record, yours; nothing is moved or
// stored. The job is only asked for its overrides and whether to stop.
lade_code_t lade_install_describe(const lade_stage_t *job, const char *path, json_t **record_p,
                                  lade_error_t *error);

#endif
