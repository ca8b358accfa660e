// The load worker's jobs: load, unlock and unload, as calls on a cache.
#ifndef LADE_GPU_LOADWORK_H
#define LADE_GPU_LOADWORK_H

#include "common/config.h"
#include "common/error.h"
#include "workers/gpu/attach.h"
#include "workers/gpu/cache.h"
#include "workers/worker/worker.h"

typedef struct lade_loadwork lade_loadwork_t;

// What lade_worker_new takes, with a lade_loadwork_t as its arg, and how many jobs at once.
extern const lade_worker_ops_t lade_loadwork_ops;
int64_t lade_loadwork_slots(const lade_config_t *config);

// Makes the jobs' threads, without a cache yet: a worker is made with it before it has a name.
lade_loadwork_t *lade_loadwork_new(const lade_config_t *config);

// Whom to tell that the worker should end and be started anew: a device that was lost is back, and
// nobody would lose what is locked. Called from the loop's thread. Before lade_loadwork_open.
void lade_loadwork_on_anew(lade_loadwork_t *self, void (*on_anew)(void *arg), void *arg);

// Leaves what the keeper holds to the next worker. True if the worker should start anew.
bool lade_loadwork_leave(lade_loadwork_t *self);

// Opens the cache and the attach server of a worker with that name. Before the worker runs.
lade_code_t lade_loadwork_open(lade_loadwork_t *self, const char *name, lade_error_t *error);

// Waits for the jobs that run, ends the leases and frees the models. NULL-safe.
void lade_loadwork_destroy(lade_loadwork_t **self_p);

#endif
