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
    // taken.
    json_t *(*stats)(void *self);
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

// Whether the job is to stop, and why. Cheap; ask often.
lade_stop_t lade_task_stop(const lade_task_t *self);

// A place for the worker's own data.
void lade_task_set_data(lade_task_t *self, void *data);
void *lade_task_data(const lade_task_t *self);

// Tells how far it is; sent at most about twenty times a second, the last one always. phase and
// local_path may be NULL; total_bytes 0 is unknown. phase "installing" is what turns an install
// job's status into `running`.
void lade_task_progress(lade_task_t *self, int64_t bytes, int64_t total_bytes, const char *phase,
                        const char *local_path);

// Answers. Each consumes the task (*task_p is NULL afterwards) and the json values (NULL is allowed
// for each).
void lade_task_done(lade_task_t **task_p, json_t *result, json_t *effects);
// The code decides whether it is tried again (lade_code_retry). retry_after_s: above 0, then and
// not before; below, never, whatever the code says.
void lade_task_fail(lade_task_t **task_p, const lade_error_t *error, double retry_after_s);
// state is handed back at the next stage; jobs is an array of {"kind","source","spec",…}, empty for
// a checkpoint.
void lade_task_await(lade_task_t **task_p, json_t *state, json_t *jobs, int64_t total_bytes,
                     const char *local_path);

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
