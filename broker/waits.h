// Calls that wait: for jobs to end, for all jobs of a kind to end, or for their deadline.
//
// Answers come from what is committed: they are made after a turn's commit, together with it.
#ifndef LADE_WAITS_H
#define LADE_WAITS_H

#include "broker/broker.h"
#include "broker/heap.h"
#include "broker/job.h"
#include "common/buf.h"
#include "common/error.h"

#include <stdbool.h>

typedef struct lade_wait lade_wait_t;

// Packs the answer's result once all jobs waited for have ended; or fails, which answers the error.
typedef lade_code_t(lade_wait_answer_fn)(lade_broker_t *broker, const lade_wait_t *wait,
                                         lade_buf_t *buf, lade_error_t *error);

struct lade_wait {
    char *peer, *service;
    size_t peer_len;
    lade_blob_t id; // of the request, packed
    uint64_t *ids;  // the jobs
    size_t count;
    size_t left;       // jobs that have not ended
    lade_kind_t *kind; // wait until none of this kind is active
    bool partial;      // wants to be told of progress
    double timeout_s;
    int64_t deadline_ms; // INT64_MAX: none
    lade_wait_answer_fn *answer;
    // waits.c's own
    uint32_t place;
    bool fresh; // added in this turn
    size_t at;
};

lade_waits_t *lade_waits_new(lade_broker_t *broker);

// Adds a call. wait's texts, id and ids are taken over (and emptied); left is set here.
// LADE_QUEUE_FULL.
lade_code_t lade_waits_add(lade_waits_t *self, lade_wait_t *wait, lade_error_t *error);

// Tells the callers who wait for the job and want to know how far it is.
void lade_waits_progress(lade_waits_t *self, const lade_job_t *job);

// A job has ended and this is committed.
void lade_waits_ended(lade_waits_t *self, uint64_t id);

// Answers calls that have nothing left to wait for, and those whose time is over. After the commit.
void lade_waits_turn(lade_waits_t *self);

// The turn was not committed: its calls are refused.
void lade_waits_fail(lade_waits_t *self, const lade_error_t *error);

// The next deadline; INT64_MAX if none.
int64_t lade_waits_due(const lade_waits_t *self);

size_t lade_waits_count(const lade_waits_t *self);

void lade_waits_destroy(lade_waits_t **self_p);

#endif
