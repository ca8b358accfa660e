// The job engine: the jobs that are not ended, their ready queues, and all that can happen to them.
//
// Nothing here is on disk before lade_jobs_write and the turn's commit. What a turn changed in
// memory is thrown away when that fails: lade_jobs_reload takes everything up again from the
// keyspace.
#ifndef LADE_JOBS_H
#define LADE_JOBS_H

#include "broker/broker.h"
#include "broker/gates.h"
#include "broker/job.h"
#include "broker/workers.h"
#include "common/error.h"

#include <msgpack.h>
#include <stdbool.h>

lade_jobs_t *lade_jobs_new(lade_broker_t *broker);

// Takes up what is in the keyspace; what was in memory is forgotten. Workers must be none.
lade_code_t lade_jobs_reload(lade_jobs_t *self, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Submitting

typedef struct {
    const char *kind, *source, *token; // source and token may be NULL
    size_t kind_len, source_len, token_len;
    const msgpack_object *spec, *requires, *gates; // each may be NULL
    lade_blob_t packed_spec;                       // instead of spec; taken over
    int64_t priority;
    bool idle;       // do not start it
    bool vital;      // its siblings are cancelled if it fails
    uint64_t parent; // 0: none
} lade_submission_t;

// Makes a job, or finds the one that has the token or is equal and not ended. *job_p is valid until
// the end of the turn. LADE_VALUE_ERROR, LADE_QUEUE_FULL.
lade_code_t lade_jobs_submit(lade_jobs_t *self, lade_submission_t *submission, lade_job_t **job_p,
                             lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Finding

// A job that is not ended, NULL if there is none.
lade_job_t *lade_jobs_live(const lade_jobs_t *self, uint64_t id);

// Any job; valid until the end of the turn. LADE_UNKNOWN_JOB_ID.
lade_code_t lade_jobs_get(lade_jobs_t *self, uint64_t id, lade_job_t **job_p, lade_error_t *error);

typedef struct {
    lade_kind_t *kind;        // NULL: any
    lade_job_status_t status; // LADE_JOB_STATUS_COUNT: any
    uint64_t parent;          // 0: any
    const char *source;       // NULL: any; needs a kind
    bool not_ended;
    size_t limit, offset;
} lade_job_filter_t;

// Jobs in order of their ids, until each returns false. A job is valid until each returns.
lade_code_t lade_jobs_each(lade_jobs_t *self, const lade_job_filter_t *filter,
                           bool (*each)(void *arg, lade_job_t *job), void *arg,
                           lade_error_t *error);

// Number of jobs that are not ended.
size_t lade_jobs_count(const lade_jobs_t *self);

// The jobs that are not ended (and those that ended in this turn), in no order: *at begins at 0;
// NULL past the last.
const lade_job_t *lade_jobs_next_live(const lade_jobs_t *self, size_t *at);

// A kind, NULL if no job ever had it; or made if there is none; and all of them in no order.
lade_kind_t *lade_jobs_kind(const lade_jobs_t *self, const char *name, size_t len);
lade_kind_t *lade_jobs_need_kind(lade_jobs_t *self, const char *name, size_t len);
lade_kind_t *lade_jobs_next_kind(const lade_jobs_t *self, size_t *at);

// Packs why a job is not running.
void lade_jobs_put_why(lade_jobs_t *self, const lade_job_t *job, lade_buf_t *buf);

// ---------------------------------------------------------------------------------------------------
// Control. Each changes the job and what depends on it (children, its worker). LADE_VALUE_ERROR if
// the job's status does not allow it.

lade_code_t lade_jobs_start(lade_jobs_t *self, lade_job_t *job, lade_error_t *error);
lade_code_t lade_jobs_pause(lade_jobs_t *self, lade_job_t *job, lade_error_t *error);
lade_code_t lade_jobs_cancel(lade_jobs_t *self, lade_job_t *job, lade_error_t *error);
// *job_p may be an ended job of lade_jobs_get; it is replaced by the live one.
lade_code_t lade_jobs_retry(lade_jobs_t *self, lade_job_t **job_p, lade_error_t *error);
// Removes an ended job, unless its parent has not ended and needs it.
lade_code_t lade_jobs_purge(lade_jobs_t *self, lade_job_t *job, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Workers

// What a worker's HELLO means for its jobs: those it names and has are kept, those it should have
// go back to the queue. Packs the ids of the others (the WELCOME's `drop`), an array.
void lade_jobs_takeover(lade_jobs_t *self, lade_worker_t *worker, const msgpack_object *held,
                        lade_buf_t *drop);

// What a BEAT's list of held jobs means.
void lade_jobs_beat(lade_jobs_t *self, lade_worker_t *worker, const msgpack_object *held);

// A report of a worker about a job. False: it is of an attempt that is not the running one.
bool lade_jobs_progress(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt,
                        const msgpack_object *body);
bool lade_jobs_done(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt,
                    const msgpack_object *body);
bool lade_jobs_fail(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt,
                    const msgpack_object *body);
bool lade_jobs_await(lade_jobs_t *self, lade_worker_t *worker, uint64_t id, int64_t attempt,
                     const msgpack_object *body);

// The worker is gone: at_fault counts a death for each of its jobs.
void lade_jobs_lost(lade_jobs_t *self, lade_worker_t *worker, bool at_fault, const char *why);

// The job may read so many bytes a second (0: any number) from now on; of a parent, its children
// share them. LADE_VALUE_ERROR if it has ended.
lade_code_t lade_jobs_set_rate(lade_jobs_t *self, lade_job_t *job, int64_t bytes_per_s,
                               lade_error_t *error);

// Its place in the queue from now on, where lower comes first; that of its children too.
// LADE_VALUE_ERROR if it has ended.
lade_code_t lade_jobs_set_priority(lade_jobs_t *self, lade_job_t *job, int64_t priority,
                                   lade_error_t *error);

// Whether a failure leaves what was fetched, of a download and its parts; a worker that has it is
// told. LADE_VALUE_ERROR if it has ended.
lade_code_t lade_jobs_set_preserve(lade_jobs_t *self, lade_job_t *job, bool preserve,
                                   lade_error_t *error);

// Whether the worker serves the job's kind and has what it requires.
bool lade_jobs_fits(const lade_job_t *job, const lade_worker_t *worker);

// A gate was closed, opened or given another limit.
void lade_jobs_gate_changed(lade_jobs_t *self, lade_gate_t *gate);

// ---------------------------------------------------------------------------------------------------
// The turn

// Does what time demands: back-offs that are over, gates that open, takeovers that did not come,
// progress to tell.
void lade_jobs_tick(lade_jobs_t *self);
// When lade_jobs_tick has something to do next, monotonic.
int64_t lade_jobs_due(const lade_jobs_t *self);

// Hands ready jobs to workers with free slots.
void lade_jobs_dispatch(lade_jobs_t *self);

// Writes every changed job into the batch, once. Errors stay with the batch.
void lade_jobs_write(lade_jobs_t *self);

// After the commit: ended jobs leave memory; ended is told the id of each.
void lade_jobs_turn(lade_jobs_t *self, void (*ended)(void *arg, uint64_t id), void *arg);

void lade_jobs_destroy(lade_jobs_t **self_p);

#endif
