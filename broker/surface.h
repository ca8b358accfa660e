// What a kind of jobs looks like from outside: the status it shows, its extra fields, and the names
// and payloads of its events. One row per kind; kinds without a row show their jobs as they are and
// tell job_* events.
#ifndef LADE_SURFACE_H
#define LADE_SURFACE_H

#include "broker/broker.h"
#include "broker/job.h"

#include <msgpack.h>

typedef struct lade_surface lade_surface_t;

// The row of a kind; never NULL.
const lade_surface_t *lade_surface_of(const char *kind);

// The status shown, as a number to compare and as a name.
uint8_t lade_surface_shown(const lade_job_t *job);
const char *lade_surface_status(const lade_job_t *job);

// Tells the event of the status now shown if it is another than the one told last.
void lade_surface_announce(lade_broker_t *broker, lade_job_t *job);

// Tells the progress of a running job (not journaled), if its kind does that.
void lade_surface_progress(lade_broker_t *broker, const lade_job_t *job);

// Tells that a running job has stalled or, if it is not stalled, goes on, if its kind does that.
void lade_surface_tell_stalled(lade_broker_t *broker, const lade_job_t *job);

// job_requeued or job_dead.
void lade_surface_tell_requeued(lade_broker_t *broker, const lade_job_t *job, const char *reason);
void lade_surface_tell_dead(lade_broker_t *broker, const lade_job_t *job, const char *reason);

// Packs the job for clients; own: with the status its own service shows.
void lade_surface_put_job(const lade_job_t *job, bool own, lade_buf_t *buf);

#endif
