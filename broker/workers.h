// The workers that are known: who they are, what they hold, when they were last heard.
//
// Here is what the broker believes; what follows from it for jobs is in jobs.h.
#ifndef LADE_WORKERS_H
#define LADE_WORKERS_H

#include "broker/broker.h"
#include "broker/job.h"
#include "common/buf.h"
#include "common/error.h"

#include <msgpack.h>
#include <stdbool.h>

// A map of text to text.
typedef struct {
    struct {
        char *key, *value;
    } * pairs;
    size_t count;
} lade_labels_t;

// LADE_VALUE_ERROR unless the object is a map of text to text (nil and NULL: an empty one).
lade_code_t lade_labels_read(lade_labels_t *self, const msgpack_object *object,
                             lade_error_t *error);
void lade_labels_free(lade_labels_t *self);
// The value of a label, NULL if there is none.
const char *lade_labels_get(const lade_labels_t *self, const char *key);
// True if `all` has every pair of `some`.
bool lade_labels_have(const lade_labels_t *all, const lade_labels_t *some);

// A slot in use: the job runs, or was paused or cancelled and the worker has not let go of it.
typedef struct {
    uint64_t id;
    int64_t attempt;
    int64_t since_ms;         // when the JOB was sent
    lade_job_t *job;          // NULL once the job has ended
    bool named;               // by the BEAT that is being looked at
    struct lade_claim *claim; // of a job that does not run any more (shares.c)
} lade_hold_t;

// A worker's part of the farm's rate (shares.c).
typedef struct {
    int64_t rate;        // bytes a second it says it reads; below 0: it does not say
    int64_t peak;        // the highest of this beat; below 0: none was told
    int64_t demand;      // what it would use; below 0: more than it gets
    int64_t bytes_per_s; // its share; 0: no limit
    int64_t told;        // the share it knows of; below 0: none
    int64_t rose_ms;     // when the share rose last
    int64_t transfers;   // that it runs
    uint64_t stamp;
    struct lade_claim *untold;
} lade_worker_share_t;

struct lade_worker {
    char *name, *host, *version;
    char *peer; // routing id of its connection
    size_t peer_len;
    int64_t pid, slots;
    char **kinds;
    size_t kind_count;
    lade_labels_t labels;
    lade_blob_t stats; // of its last beat
    bool terms;        // understands TERMS
    lade_worker_share_t share;
    double since, last_beat;
    int64_t heard_ms; // sign of life, monotonic
    int64_t acked;    // highest n applied or refused
    lade_hold_t *holds;
    size_t hold_count, hold_cap;
    size_t at; // its place among all, for lade_workers_each
};

lade_workers_t *lade_workers_new(void);

// By routing id, by name; NULL if not known.
lade_worker_t *lade_workers_by_peer(lade_workers_t *self, const char *peer, size_t len);
lade_worker_t *lade_workers_by_name(lade_workers_t *self, const char *name);

// Takes what a HELLO says, for a new worker or (by name) one that is known, which then has this
// routing id. LADE_BAD_REQUEST, LADE_QUEUE_FULL; nothing is changed then. *new_p: it was not known.
lade_code_t lade_workers_hello(lade_workers_t *self, const char *peer, size_t peer_len,
                               const msgpack_object *body, lade_worker_t **worker_p, bool *new_p,
                               lade_error_t *error);

// Number of workers, and the one at a place.
size_t lade_workers_count(const lade_workers_t *self);
lade_worker_t *lade_workers_at(const lade_workers_t *self, size_t at);

bool lade_worker_serves(const lade_worker_t *worker, const char *kind);
bool lade_workers_serve(const lade_workers_t *self, const char *kind);

// The hold on (id, attempt), NULL if the worker has none.
lade_hold_t *lade_worker_hold(lade_worker_t *worker, uint64_t id, int64_t attempt);
// Takes a slot for the job at its present attempt, and gives one back.
void lade_worker_take(lade_worker_t *worker, lade_job_t *job, int64_t now_ms);
void lade_worker_drop(lade_worker_t *worker, lade_hold_t *hold);

// Packs a worker as broker.workers shows it.
void lade_worker_put(const lade_worker_t *worker, lade_buf_t *buf);

// Forgets the worker, which holds nothing any more.
void lade_workers_del(lade_workers_t *self, lade_worker_t *worker);

void lade_workers_destroy(lade_workers_t **self_p);

#endif
