// Who may use how much of what is limited for the whole farm: connections to a host, bytes per
// second.
//
// Every job that runs and is named by a gate, and every download, has a claim. Where its worker
// understands TERMS the claim is elastic: it is granted a number of connections that follows the
// limit and the number of jobs, a part of the farm's bytes per second, and is told when a gate
// closes; else it weighs one connection and is told nothing.
//
// What is granted is raised at once and lowered by asking: until the worker confirms (or lets go of
// the job) the old number is counted. So the sum at a gate is never more than its limit, but for
// what was open when the limit was set.
#ifndef LADE_SHARES_H
#define LADE_SHARES_H

#include "broker/broker.h"
#include "broker/gates.h"
#include "broker/job.h"
#include "broker/workers.h"
#include "common/buf.h"
#include "common/error.h"

#include <stdbool.h>

lade_shares_t *lade_shares_new(lade_broker_t *broker);

// Takes up the farm's rate in the keyspace; claims are forgotten, so no job and no hold may point
// here.
lade_code_t lade_shares_load(lade_shares_t *self, lade_error_t *error);

// Writes what changed into the batch. Errors stay with it.
void lade_shares_write(lade_shares_t *self);

// The job begins to run on its holder (none yet: a running job of the broker's earlier life).
void lade_shares_begin(lade_shares_t *self, lade_job_t *job);

// It does not run any more. As long as its holder has not let go of it, its place stays taken.
void lade_shares_end(lade_shares_t *self, lade_job_t *job);

// The worker lets go of what it held.
void lade_shares_release(lade_shares_t *self, lade_hold_t *hold);

// The holder of the running job said HELLO and named it: it keeps to so many connections (0: any
// number).
void lade_shares_resume(lade_shares_t *self, lade_job_t *job, int64_t connections);

// The holder keeps to so many connections, as the terms with that serial asked.
void lade_shares_confirm(lade_shares_t *self, lade_job_t *job, int64_t connections, int64_t serial);

// The worker was seen to read so many bytes a second; below 0: it does not say.
void lade_shares_measure(lade_shares_t *self, lade_worker_t *worker, int64_t rate);

// Bytes a second of the whole farm; 0: no limit. All that workers say they read now.
void lade_shares_set_rate(lade_shares_t *self, int64_t bytes_per_s);
int64_t lade_shares_rate(const lade_shares_t *self);
int64_t lade_shares_seen(const lade_shares_t *self);

// A gate was limited, closed or opened, a job waits at one, a worker has other slots, or a job's
// own rate is another.
void lade_shares_touch(lade_shares_t *self);

// A beat has passed: what is not confirmed is asked for again, and what workers used in it counts.
void lade_shares_beat(lade_shares_t *self);

// Grants what there is to whom it is due now, and tells the workers. Jobs whose JOB is not sent yet
// are told with it.
void lade_shares_settle(lade_shares_t *self);

// Packs the terms into a JOB: so many pairs. The job counts as told.
size_t lade_shares_pairs(const lade_job_t *job);
void lade_shares_put(lade_shares_t *self, const lade_job_t *job, lade_buf_t *buf);

// What is to be said of a running job's terms besides that it runs; empty if nothing.
void lade_shares_say(const lade_shares_t *self, const lade_job_t *job, char *text, size_t size);

void lade_shares_destroy(lade_shares_t **self_p);

#endif
