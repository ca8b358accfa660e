// Gates: named reasons to hold jobs back. A gate has a limit (0 none) and a time until which it is
// closed; jobs that cannot pass wait in it, in their own order. Limits and closing times are kept
// in the keyspace.
//
// What is limited are the jobs that run, or, at a gate `host:NAME`, the connections they may have
// open there; at a gate `only:NAME` the limit is 1 from the start. Who takes which part of a limit
// is in shares.h.
#ifndef LADE_GATES_H
#define LADE_GATES_H

#include "broker/broker.h"
#include "broker/heap.h"
#include "common/buf.h"
#include "common/error.h"

#include <stdbool.h>

typedef struct lade_claim lade_claim_t; // shares.h

typedef struct lade_gate {
    char *name;
    int64_t limit;           // 0: none
    int64_t closed_until_ms; // monotonic; 0 if it was never closed
    char *reason;            // why it is closed
    bool counts_connections;
    bool alone;            // its limit of 1 comes with its name
    lade_heap_t waiting;   // of lade_job_t
    lade_claim_t **claims; // of jobs that run, or whose worker has not let go of them (shares.c)
    size_t claim_count, claim_cap;
    int64_t used;   // the sum of what they weigh
    uint64_t stamp; // of shares.c
    bool stored;    // the keyspace has a row of it
    bool changed;   // in the list of those to be written
    lade_gates_t *home;
} lade_gate_t;

lade_gates_t *lade_gates_new(void);

// Takes up the limits and closing times in the keyspace; whatever was in memory is forgotten, so no
// job may point here.
lade_code_t lade_gates_load(lade_gates_t *self, const lade_broker_t *broker, lade_error_t *error);

// Writes what changed into the batch. Errors stay with it.
void lade_gates_write(lade_gates_t *self, const lade_broker_t *broker);

// NULL if nobody ever named it.
lade_gate_t *lade_gates_find(lade_gates_t *self, const char *name);

// Found or made. It goes when nothing is said of it any more (lade_gates_tidy).
lade_gate_t *lade_gates_need(lade_gates_t *self, const char *name);

// As lade_gates_need, to limit or close it; a host's name is put in lower case. LADE_VALUE_ERROR
// for a name that is none, LADE_QUEUE_FULL if too many gates are known.
lade_code_t lade_gates_name(lade_gates_t *self, const char *name, lade_gate_t **gate_p,
                            lade_error_t *error);

// Whether one more job may run.
bool lade_gate_is_open(const lade_gate_t *gate, int64_t now_ms);

// How many of the waiting jobs may go on now.
size_t lade_gate_room(const lade_gate_t *gate, int64_t now_ms);

// Sets the limit.
void lade_gate_limit(lade_gate_t *gate, int64_t limit);

// Closes it for so many seconds from now (not shorter than it is closed already); 0 opens it.
void lade_gate_close(lade_gate_t *gate, double closed_for_s, const char *reason, int64_t now_ms);

// Removes the gate if it has neither limit nor closing time nor jobs.
void lade_gates_tidy(lade_gates_t *self, lade_gate_t *gate, int64_t now_ms);

// Monotonic time at which the next closed gate with jobs opens; INT64_MAX if none.
int64_t lade_gates_due(const lade_gates_t *self, int64_t now_ms);

// Goes through the gates in no order; they must not be added or removed meanwhile.
lade_gate_t *lade_gates_next(const lade_gates_t *self, size_t *at);
size_t lade_gates_count(const lade_gates_t *self);

// Packs {"gate", "limit", "running", "waiting", "connections"?, "closed_until"?, "reason"?}.
void lade_gate_put(const lade_gate_t *gate, const lade_broker_t *broker, lade_buf_t *buf);

// What a gate that is full says: "3 of 3 connections are in use by 2 jobs".
void lade_gate_say_full(const lade_gate_t *gate, char *text, size_t size);

enum { LADE_GATE_ANY = 1 << 30 }; // what a job weighs that may open any number of connections

void lade_gates_destroy(lade_gates_t **self_p);

#endif
