// Leases: who keeps which model where it is, and until when.
//
// A lease that nobody has attached with lives until it is ended, its process dies, or its time is
// up. From the first attachment on it lives as long as a connection does, and only so long: what a
// process can see is not taken away from under it, even if the lease is ended meanwhile.
//
// The table shares its owner's lock, so that a lease and what it holds change together. A thread of
// its own watches processes and times.
#ifndef LADE_GPU_LEASES_H
#define LADE_GPU_LEASES_H

#include "common/error.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct lade_leases lade_leases_t;

enum { LADE_LEASES_MAX = 1 << 16 };

// Starts the thread. lock is the owner's: held by the caller of every other function here but
// destroy, and held when ended is called, once for each lease, with what it held. Aborts when
// memory runs out.
lade_leases_t *lade_leases_new(pthread_mutex_t *lock, void (*ended)(void *arg, void *holds),
                               void *arg);

// Ends the thread and, without calling ended, all leases. The lock must not be held.
void lade_leases_destroy(lade_leases_t **self_p);

// Adds a lease on holds. pid 0: of no process; ttl_s 0: no time limit. LADE_VALUE_ERROR if no such
// process runs here, LADE_QUEUE_FULL at the ceiling.
lade_code_t lade_leases_add(lade_leases_t *self, void *holds, pid_t pid, double ttl_s,
                            uint64_t *id_p, lade_error_t *error);

// What the lease holds, NULL if it is over.
void *lade_leases_find(lade_leases_t *self, uint64_t id);

// The same, of one that is attached too, be it over or not.
void *lade_leases_holds(lade_leases_t *self, uint64_t id);

// Gives the lease ttl_s seconds from now (0: no limit). False if it is over.
bool lade_leases_renew(lade_leases_t *self, uint64_t id, double ttl_s);

// Ends the lease; if connections are attached with it, what it holds is let go with the last of
// them. False if it was over already.
bool lade_leases_end(lade_leases_t *self, uint64_t id);

// A connection came and went. attach is false if the lease is over.
bool lade_leases_attach(lade_leases_t *self, uint64_t id);
void lade_leases_detach(lade_leases_t *self, uint64_t id);

// The processes of the leases on what is held, 0 for a lease of none: writes at most room and
// returns how many it wrote.
size_t lade_leases_processes(const lade_leases_t *self, const void *holds, pid_t *pids,
                             size_t room);

// Leases on whatever, those that are only connections any more included.
size_t lade_leases_count(const lade_leases_t *self);

#endif
