// A job as the wire shows it: how it ended, and how far it is.
#ifndef LADE_OUTCOME_H
#define LADE_OUTCOME_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// LADE_OK if the job completed; else why it did not, as the error a call would have given.
lade_code_t lade_outcome_error(const json_t *job, lade_error_t *error);

// True for completed, error, cancelled and dead.
bool lade_outcome_ended(const json_t *job);

// Bytes so far and in all (0: unknown), wherever this kind of job has them.
void lade_outcome_bytes(const json_t *job, int64_t *bytes_p, int64_t *total_p);

#endif
