// A job as the stages see it, and their answer: what a task is, without the loop and its sockets,
// so that each stage can be run alone.
#ifndef LADE_STAGE_H
#define LADE_STAGE_H

#include "common/config.h"
#include "common/error.h"
#include "workers/install/convert_rules.h"
#include "workers/install/refused.h"
#include "workers/worker/worker.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const lade_config_t *config;
    // lade_identify_path with its rules.
    lade_code_t (*identify)(const void *rules, const char *path, const json_t *overrides,
                            json_t **found_p, lade_error_t *error);
    const void *rules;
    const lade_convert_rules_t *conversions;
    lade_refused_t *refused; // files known to be no models; NULL: none are remembered
    int64_t id, attempt, failures;
    const char *source;
    const json_t *spec;     // a map
    const json_t *state;    // of the last AWAIT, or NULL
    const json_t *children; // an array
    const json_t *answers;  // to the ask of the last AWAIT, an array
    lade_stop_t (*stop)(void *arg);
    void (*progress)(void *arg, int64_t bytes, int64_t total_bytes, const char *phase,
                     const char *local_path);
    void *arg;
} lade_stage_t;

// How a stage answered; a stage that returns an error has not.
typedef struct {
    bool waits;               // AWAIT, else DONE
    json_t *result, *effects; // of DONE; a failure may have a result too
    json_t *undo;             // of DONE: the state to go on with should the effects be refused
    json_t *state, *jobs;     // of AWAIT
    json_t *ask;              // of AWAIT: questions about records, or NULL
    int64_t total_bytes;
    char *local_path;
    double retry_after_s; // of a failure: when the hub said so
    bool final;           // of a failure: not to be tried again, whatever the code says
} lade_answer_t;

void lade_stage_free(lade_answer_t *self);

// LADE_OK, or LADE_CANCELLED or LADE_PAUSED if the job is to stop.
lade_code_t lade_stage_check(const lade_stage_t *self, lade_error_t *error);

// The same as a callback; arg is the job.
bool lade_stage_stopped(void *arg);

// Tells the phase "installing", which makes the job show as running.
void lade_stage_progress(const lade_stage_t *self, int64_t bytes, int64_t total_bytes,
                         const char *local_path);

// A step of a job of several stages: the name its saved state has, "" before there is any.
typedef struct {
    const char *step;
    lade_code_t (*run)(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);
} lade_step_t;

// Runs the step that the saved state names, one of a table that ends with a row of NULLs. Cancelled
// is told as paused if the job is to pause.
lade_code_t lade_stage_run(const lade_stage_t *self, const lade_step_t *steps,
                           lade_answer_t *answer, lade_error_t *error);

// A copy of the saved state, empty before there is any; yours.
json_t *lade_stage_state(const lade_stage_t *self);

// The overrides of the spec (`config`) with canonical names, a map that is yours; empty if there
// are none. LADE_INVALID_MODEL_CONFIG if one cannot be set.
lade_code_t lade_stage_overrides(const lade_stage_t *self, json_t **overrides_p,
                                 lade_error_t *error);

// MODELS/tmpinstall_ID, and copy_ATTEMPT in it, where this attempt alone writes. You free them.
char *lade_stage_temp(const lade_stage_t *self);
char *lade_stage_copy(const lade_stage_t *self);

// Removes the copies of this attempt and those before it, never those of a later one: this worker
// may have been stopped for so long that another does the job.
void lade_stage_remove_copies(const lade_stage_t *self);

// Sets a member to text that need not be UTF-8; NULL is left out.
void lade_stage_set_text(json_t *object, const char *key, const char *text);

#endif
