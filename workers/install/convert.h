// A single-file checkpoint into a folder as diffusers has it. Knows nothing of jobs.
//
// What is converted, and how, is data (convert_rules.h). No weight is computed with: bytes are
// copied, cut into rows or transposed. Blocks; several threads may convert with one set of rules.
#ifndef LADE_CONVERT_H
#define LADE_CONVERT_H

#include "workers/install/convert_rules.h"

#include <stdint.h>

// Told how far it is; false stops (LADE_CANCELLED).
typedef bool lade_convert_progress_t(void *arg, uint64_t bytes, uint64_t total_bytes);

typedef struct {
    uint64_t bytes;   // of weights written
    uint64_t tensors; // written
    uint64_t ignored; // tensors of the checkpoint that belong to no part
} lade_convert_report_t;

// Converts the file at from, which the record describes, into the folder `to`, which must not be
// there; its parent is. Everything in it is on the disk when it returns; on an error what was
// written is the caller's to remove. LADE_NOT_IMPLEMENTED if nothing is known of the record's type,
// base and variant; LADE_INVALID_MODEL_CONFIG if the file is not what the record says;
// LADE_UNSAFE_FILE for a pickle with findings; LADE_TOO_LARGE for
// one that would become far more than it is; LADE_CORRUPT if it changes meanwhile.
lade_code_t lade_convert_run(const lade_convert_rules_t *rules, const json_t *record,
                             const char *from, const char *to, lade_convert_progress_t *progress,
                             void *arg, lade_convert_report_t *report, lade_error_t *error);

#endif
