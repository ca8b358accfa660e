// What the rooms of the broker share: one struct, made by the router, borrowed by everybody else.
#ifndef LADE_BROKER_H
#define LADE_BROKER_H

#include "broker/records.h"
#include "broker/store.h"
#include "common/config.h"

#include <stdint.h>

typedef struct lade_jobs lade_jobs_t;
typedef struct lade_job lade_job_t;
typedef struct lade_gates lade_gates_t;
typedef struct lade_shares lade_shares_t;
typedef struct lade_workers lade_workers_t;
typedef struct lade_events lade_events_t;
typedef struct lade_waits lade_waits_t;
typedef struct lade_outbox lade_outbox_t;
typedef struct lade_secrets lade_secrets_t;
typedef struct lade_chores lade_chores_t;

// Counters of broker.metrics, in the order of the table in service_broker.c.
typedef struct {
    uint64_t turns, commits, commits_failed, requests, requests_refused, reports, stale_reports,
        bad_messages, jobs_submitted, jobs_dispatched, jobs_completed, jobs_failed, jobs_requeued,
        jobs_dead, progress_events;
} lade_metrics_t;

typedef struct {
    const lade_config_t *config;
    lade_store_t *store;
    lade_records_t *records;
    lade_events_t *events;
    lade_gates_t *gates;
    lade_shares_t *shares;
    lade_workers_t *workers;
    lade_jobs_t *jobs;
    lade_waits_t *waits;
    lade_outbox_t *outbox;
    lade_secrets_t *secrets;
    lade_chores_t *chores;
    double now;      // seconds since the epoch, taken once a turn
    int64_t mono_ms; // monotonic milliseconds, taken with it
    double started;
    int64_t lease_ms;
    lade_metrics_t metrics;
} lade_broker_t;

enum {
    LADE_BROKER_MAX_KIND = 63,        // bytes of the name of a kind
    LADE_BROKER_MAX_NAME = 255,       // bytes of the name of a worker, gate or label
    LADE_BROKER_MAX_SOURCE = 8192,    // bytes of a source
    LADE_BROKER_MAX_TOKEN = 400,      // bytes of a submission's token
    LADE_BROKER_MAX_ERROR = 4096,     // bytes of an error sentence from a worker; more is cut
    LADE_BROKER_MAX_GATES = 16,       // gates of one job
    LADE_BROKER_MAX_CHILDREN = 20000, // jobs one AWAIT makes
    LADE_BROKER_MAX_ASKS = 16,        // questions one AWAIT asks
    LADE_BROKER_MAX_SLOTS = 1024,     // slots of one worker
    LADE_BROKER_MAX_WORKERS = 10000,  // workers known at once
    LADE_BROKER_MAX_KINDS = 1000,     // kinds known at once
    LADE_BROKER_MAX_QUEUES = 2000,    // different (kind, requires) of jobs not ended
    LADE_BROKER_MAX_WAITS = 100000,   // calls waiting for jobs at once
    LADE_BROKER_MAX_IDS = 100000,     // ids in one request
    LADE_BROKER_MAX_LIST = 100000,    // items of one answer
    LADE_BROKER_MAX_KNOWN = 100000,   // gates known, beyond which none more is limited or closed
};

#endif
