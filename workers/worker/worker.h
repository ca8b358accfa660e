// The loop every worker shares: it speaks LADEW1, keeps the lease alive, and hands jobs to the
// work.
//
// lade_worker_run owns the socket and beats from the calling thread, which the work never blocks.
// Jobs come to ops->start on that thread; the work happens in threads or engines of the worker's
// own and answers through the lade_task_* calls, which are safe from any thread. A worker whose
// work simply blocks uses a pool (lade_pool_*), which runs one function per job in its own threads.
//
// Takeover, acknowledged reports and the orderly end (SIGTERM, RETIRE) are handled here;
// broker/README.md has the protocol.
#ifndef LADE_WORKER_H
#define LADE_WORKER_H

#include "common/config.h"
#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct lade_worker lade_worker_t;
typedef struct lade_task lade_task_t;

typedef enum { LADE_STOP_NONE = 0, LADE_STOP_CANCEL, LADE_STOP_PAUSE, LADE_STOP_STALE } lade_stop_t;

// What the farm allows a job, or a worker as a whole.
typedef struct {
    int64_t connections; // open to hosts at once; 0: no limit of the farm's
    int64_t bytes_per_s; // 0: no limit
    double hold_s;       // above 0: begin no new request before so many seconds have passed
    int preserve;        // preserve_partial_downloads is now: 1 yes, -1 no, 0 as the spec has it
} lade_terms_t;

typedef struct {
    const char *name;         // "download": the worker's name is NAME@HOST:PID-NONCE
    const char *const *kinds; // kinds of jobs served, ended by NULL

    // A job to do. Called on the loop's thread, must not block. The task is the worker's until it
    // is answered with lade_task_done, _fail or _await.
    void (*start)(void *self, lade_task_t *task);

    // The job is to stop (lade_task_stop says why). Called on the loop's thread, must not block;
    // may be NULL if the work polls lade_task_stop. The task still has to be answered, with
    // LADE_CANCELLED or LADE_PAUSED. STALE: the attempt is no longer ours (or we leave); answer as
    // for cancel and leave files to the new owner. May come again with a stronger reason (cancel
    // after pause, stale after both), and may cross the answer of another thread: the task is valid
    // until stop returns, what lade_task_data points at is yours to guard.
    void (*stop)(void *self, lade_task_t *task);

    // What to tell about oneself in each beat, or NULL. Called on the loop's thread; the value is
    // taken. `rate`, bytes read from hosts in the last second, is what a worker's share of the
    // farm's rate is measured by.
    json_t *(*stats)(void *self);

    // The terms of a job are others now: all of them, each as it is from now on. task NULL: the
    // worker's own bytes_per_s, over all its jobs. Called on the loop's thread, must not block, and
    // may cross the answer of another thread as stop may. A number of connections that is lower
    // than before is confirmed with lade_task_confirm once no more are open; one that is higher may
    // be used at once. NULL for work that opens no connections; the broker then counts each of its
    // jobs as one and sends no terms.
    void (*terms)(void *self, lade_task_t *task, const lade_terms_t *terms);

    // For work that leaves things of a job on the disk until the job has ended. leftovers: the ids
    // of the jobs that have some, an array that is taken; asked at each HELLO. ended: one of them
    // has ended: "completed", "error", "cancelled", or "unknown" when it was purged. Both are
    // called on the loop's thread and must not block. NULL: there is nothing of the kind.
    json_t *(*leftovers)(void *self);
    void (*ended)(void *self, int64_t job, const char *status);
} lade_worker_ops_t;

// Makes a worker; nothing is connected yet. config and ops are borrowed and must outlive it; arg is
// the self of ops. Blocks SIGTERM and SIGINT in the calling thread, so make other threads after it.
// Aborts when memory runs out.
lade_worker_t *lade_worker_new(const lade_config_t *config, const lade_worker_ops_t *ops, void *arg,
                               int64_t slots);

// Connects and serves until SIGTERM or SIGINT (finishes what it holds for at most grace_ms, gives
// the rest back with BYE) or RETIRE. Reconnects for ever. Blocks. Call it from main's thread; it
// takes the signals.
lade_code_t lade_worker_run(lade_worker_t *self, int64_t grace_ms, lade_error_t *error);

// Ends lade_worker_run as SIGTERM does. Safe from any thread.
void lade_worker_stop(lade_worker_t *self);

// Whether somebody outside told it to end, by a signal or RETIRE: then it is to stay ended.
bool lade_worker_was_told(const lade_worker_t *self);

const char *lade_worker_name(const lade_worker_t *self);

// Closes a gate for the whole farm. Safe from any thread.
void lade_worker_gate(lade_worker_t *self, const char *gate, double closed_for_s,
                      const char *reason);

// After the pools and engines that hold its tasks.
void lade_worker_destroy(lade_worker_t **self_p);

// ---------------------------------------------------------------------------------------------------
// A job in a worker's hands. What the getters return stays the task's.

int64_t lade_task_id(const lade_task_t *self);
int64_t lade_task_attempt(const lade_task_t *self);
int64_t lade_task_failures(const lade_task_t *self);
const char *lade_task_kind(const lade_task_t *self);
const char *lade_task_source(const lade_task_t *self);
const json_t *lade_task_spec(const lade_task_t *self);     // a map, empty if none
const json_t *lade_task_state(const lade_task_t *self);    // of the last AWAIT; NULL if none
const json_t *lade_task_children(const lade_task_t *self); // an array, empty if none
const json_t *lade_task_answers(const lade_task_t *self);  // to the ask of the last AWAIT; the same

// Whether the job is to stop, and why. Cheap; ask often.
lade_stop_t lade_task_stop(const lade_task_t *self);

// The terms as they are now; at start, those that came with the job. Safe from any thread.
lade_terms_t lade_task_terms(const lade_task_t *self);

// A place for the worker's own data.
void lade_task_set_data(lade_task_t *self, void *data);
void *lade_task_data(const lade_task_t *self);

// Tells how far it is; sent at most about twenty times a second, the last one always. phase and
// local_path may be NULL; total_bytes 0 is unknown. phase "installing" is what turns an install
// job's status into `running`.
void lade_task_progress(lade_task_t *self, int64_t bytes, int64_t total_bytes, const char *phase,
                        const char *local_path);

// Tells what the job is doing ("fetching", "stalled", "resumed", "verifying", "waiting"), and why
// if there is a reason (may be NULL). "stalled" and what comes after it become events.
void lade_task_phase(lade_task_t *self, const char *phase, const char *reason);

// The job keeps to so many connections now, after its terms asked for fewer than it had. Sent at
// once; the broker gives the others away when it hears of it. More than the terms allow says that
// only some were closed yet. Says nothing if nothing was asked for.
void lade_task_confirm(lade_task_t *self, int64_t connections);

// What goes with the answer. Each takes its value over. result: of a failure, what is known in
// spite of it. undo: of DONE, the state with which the next stage begins if the broker refuses the
// effects, with `refused` ({"code", "message"}) in it.
void lade_task_set_result(lade_task_t *self, json_t *result);
void lade_task_set_undo(lade_task_t *self, json_t *undo);

// Answers. Each consumes the task (*task_p is NULL afterwards) and the json values (NULL is allowed
// for each).
void lade_task_done(lade_task_t **task_p, json_t *result, json_t *effects);
// The code decides whether it is tried again (lade_code_retry). retry_after_s: above 0, then and
// not before; below, never, whatever the code says.
void lade_task_fail(lade_task_t **task_p, const lade_error_t *error, double retry_after_s);
// As lade_task_fail, and closes the gate for so many seconds: the job waits there, and so does
// whoever else names it. The gate's reason is the error's message.
void lade_task_fail_at(lade_task_t **task_p, const lade_error_t *error, const char *gate,
                       double closed_for_s);
// state is handed back at the next stage; jobs is an array of {"kind","source","spec",…}, empty for
// a checkpoint. ask is an array of questions about records, {"op", …}, which the broker answers
// when the next stage begins (lade_task_answers; broker/README.md has the ops).
void lade_task_await(lade_task_t **task_p, json_t *state, json_t *jobs, json_t *ask,
                     int64_t total_bytes, const char *local_path);

// ---------------------------------------------------------------------------------------------------
// A pool: a number of threads, each running one job at a time.

typedef struct lade_pool lade_pool_t;

// run is called in a pool thread, may block, polls lade_task_stop, and answers the task.
lade_pool_t *lade_pool_new(size_t threads, void (*run)(void *arg, lade_task_t *task), void *arg);

// Hands a task to the next free thread. Does not block.
void lade_pool_add(lade_pool_t *self, lade_task_t *task);

// Waits for the running tasks and ends the threads.
void lade_pool_destroy(lade_pool_t **self_p);

#endif
