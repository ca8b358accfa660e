// One job: its fields, the table of its states, and its form on the wire and in the keyspace.
//
// The engine that moves jobs about is jobs.h; here is nothing that needs another job.
#ifndef LADE_JOB_H
#define LADE_JOB_H

#include "broker/broker.h"
#include "broker/heap.h"
#include "common/buf.h"
#include "common/error.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum {
    LADE_JOB_IDLE,
    LADE_JOB_ENQUEUED,
    LADE_JOB_RUNNING,
    LADE_JOB_WAITING,
    LADE_JOB_PAUSED,
    LADE_JOB_COMPLETED, // the first of the ended ones
    LADE_JOB_ERROR,
    LADE_JOB_CANCELLED,
    LADE_JOB_DEAD,
    LADE_JOB_STATUS_COUNT
} lade_job_status_t;

// What can happen to a job.
typedef enum {
    LADE_JOB_START,    // a client starts or resumes it
    LADE_JOB_DISPATCH, // a worker gets it
    LADE_JOB_FINISH,   // DONE
    LADE_JOB_FAIL,     // FAIL, for good
    LADE_JOB_AGAIN,    // FAIL, to be tried again
    LADE_JOB_AWAIT,    // AWAIT with children
    LADE_JOB_SAVE,     // AWAIT without children
    LADE_JOB_GO_ON,    // all children ended
    LADE_JOB_PAUSE,
    LADE_JOB_CANCEL,
    LADE_JOB_LOSE,    // its worker was lost
    LADE_JOB_DIE,     // its worker was lost once too often
    LADE_JOB_BACK,    // its worker gave it back; nobody's fault
    LADE_JOB_RETRY,   // a client puts an ended job back
    LADE_JOB_REAWAIT, // a client puts it back together with its failed children
    LADE_JOB_TRIGGER_COUNT
} lade_job_trigger_t;

#define LADE_JOB_MAX_RATE (INT64_C(1) << 50) // bytes a second; more is no limit

typedef struct {
    char *data;
    size_t len;
} lade_blob_t; // packed msgpack; len 0 is none

// A kind of jobs, with how many there are in each state (ended ones in the keyspace included).
typedef struct {
    char name[LADE_BROKER_MAX_KIND + 1];
    uint64_t counts[LADE_JOB_STATUS_COUNT];
    const struct lade_surface *surface;
} lade_kind_t;

typedef struct lade_queue lade_queue_t; // jobs of one kind and `requires` that are ready (jobs.c)
typedef struct lade_worker lade_worker_t;
typedef struct lade_gate lade_gate_t;

// What a parent shows of a child's progress.
typedef struct {
    char *source, *local_path;
    int64_t bytes, total_bytes;
} lade_part_t;

struct lade_job {
    uint64_t id;
    lade_kind_t *kind;
    lade_job_status_t status;
    int64_t priority;
    char *source;
    lade_blob_t spec, state, result, requires;
    lade_blob_t ask; // of its last AWAIT, answered when it is dispatched (asks.h)
    bool secret;     // spec has a key with "token" in it: a reference stands there (secrets.h)
    bool vital;      // a child without which its parent cannot do: if it fails, its siblings are
                     // cancelled
    bool giving_up;  // a parent that cancels its children because of such a one
    char *token;     // the submission's
    int64_t bytes_per_s; // most it may read; 0: no limit
    bool rate_set;       // not as the spec has it
    int8_t preserve;     // whether partials are kept was changed while it ran: 1 yes, -1 no
    char *at_gate;       // besides its own, the gate it waits at until it runs again; NULL: none
    int64_t attempt, stage, failures, deaths;
    uint64_t sequence;
    double submitted, started, ended, not_before;
    char *error_type, *error;
    char *worker_name; // who has it, or had it last
    uint64_t parent;
    uint64_t *children;
    lade_part_t *parts; // one for each child
    size_t child_count;
    char **gate_names;
    size_t gate_count;
    struct {
        int64_t bytes, total_bytes;
        char *phase, *reason, *local_path; // reason: of the phase
    } progress;

    // Only of jobs that are in memory (jobs.c):
    bool live;     // in the table of jobs that are not ended
    bool fresh;    // not in the keyspace yet
    bool dirty;    // in the list of those to be written
    bool telling;  // in the list of those with progress to tell
    bool ending;   // in the list of those that ended in this turn
    bool purged;   // and is not to be written any more
    bool stalled;  // its worker said so, and that was told
    uint8_t shown; // the surface status told last (surface.h)
    size_t children_left;
    size_t child_at;     // which child of its parent it is
    int64_t parts_total; // sum of the parts' total_bytes
    lade_blob_t equal;   // what makes an equal one the same job (installs, downloads)
    lade_queue_t *queue;
    lade_heap_t *heap; // the heap it is in: ready, delayed or at a gate
    uint32_t place;
    lade_gate_t *gate;        // the gate it waits at
    lade_worker_t *holder;    // the worker that has it or still has to let go of it
    uint32_t hold;            // where in the holder's holds
    struct lade_claim *claim; // while it runs (shares.c)
    int64_t connections;      // granted to it; 0: no limit, or it does not run
    int64_t lanes;            // of a parent: descendants that run
    uint64_t lanes_stamp;
    int64_t told_ms, told_bytes;
};

lade_job_t *lade_job_new(void);
void lade_job_destroy(lade_job_t **self_p);

bool lade_job_ended(const lade_job_t *self);

// "enqueued"; never NULL.
const char *lade_job_status_name(lade_job_status_t status);

// The status with that name; LADE_JOB_STATUS_COUNT if there is none.
lade_job_status_t lade_job_status_find(const char *name, size_t len);

// The row of the state table: *then_p is the status after the trigger. LADE_VALUE_ERROR with a
// sentence if that cannot happen in this status.
lade_code_t lade_job_next(const lade_job_t *self, lade_job_trigger_t trigger,
                          lade_job_status_t *then_p, lade_error_t *error);

// `bytes_per_s` of a spec or of a stored job; what makes no sense is no limit.
int64_t lade_job_rate_in(const msgpack_object *map);

// Replaces a text or packed member; NULL or len 0 is none.
void lade_job_set_text(char **text_p, const char *text, size_t len);
// Another phase, which has no reason yet.
void lade_job_set_phase(lade_job_t *self, const char *phase);
void lade_blob_set(lade_blob_t *self, const void *data, size_t len);
void lade_blob_set_object(lade_blob_t *self, const msgpack_object *object);
void lade_blob_free(lade_blob_t *self);

// Packs the spec for readers: what is named *token* is "***".
void lade_job_put_spec(const lade_job_t *self, lade_buf_t *buf);

enum { LADE_JOB_PAIRS = 27 }; // pairs that lade_job_put_pairs writes

// Packs the job's fields as key and value pairs; the caller wrote the map's head. status is the
// name shown.
void lade_job_put_pairs(const lade_job_t *self, const char *status, lade_buf_t *buf);

// The job as it is in the keyspace, and back. kind_of turns a kind's name into the struct.
// LADE_CORRUPT.
void lade_job_put_stored(const lade_job_t *self, lade_buf_t *buf);
lade_code_t lade_job_read(const void *bytes, size_t len,
                          lade_kind_t *(*kind_of)(void *arg, const char *name), void *arg,
                          lade_job_t **self_p, lade_error_t *error);

// Kind, status and parent of a stored job without unpacking it all. False if the bytes are no job.
bool lade_job_peek(const void *bytes, size_t len, const char **kind, size_t *kind_len,
                   lade_job_status_t *status);

#endif
