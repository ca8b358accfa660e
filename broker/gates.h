// Gates: named reasons to hold jobs back. A gate has a limit (jobs running at once, 0 none) and a
// time until which it is closed; jobs that cannot pass wait in it, in their own order.
#ifndef LADE_GATES_H
#define LADE_GATES_H

#include "broker/broker.h"
#include "broker/heap.h"
#include "common/buf.h"

#include <stdbool.h>

typedef struct lade_gate {
    char *name;
    int64_t limit;           // 0: none
    int64_t running;         // jobs that name it and run
    int64_t closed_until_ms; // monotonic; 0 if it was never closed
    char *reason;            // why it is closed
    lade_heap_t waiting;     // of lade_job_t
} lade_gate_t;

lade_gates_t *lade_gates_new(void);

// NULL if nobody ever named it.
lade_gate_t *lade_gates_find(lade_gates_t *self, const char *name);

// Found or made. It goes when nothing is said of it any more (lade_gates_tidy).
lade_gate_t *lade_gates_need(lade_gates_t *self, const char *name);

// Whether one more job may run.
bool lade_gate_is_open(const lade_gate_t *gate, int64_t now_ms);

// How many of the waiting jobs may go on now.
size_t lade_gate_room(const lade_gate_t *gate, int64_t now_ms);

// Closes it for so many seconds from now (not shorter than it is closed already); 0 opens it.
void lade_gate_close(lade_gate_t *gate, double closed_for_s, const char *reason, int64_t now_ms);

// Removes the gate if it has neither limit nor closing time nor jobs.
void lade_gates_tidy(lade_gates_t *self, lade_gate_t *gate, int64_t now_ms);

// Monotonic time at which the next closed gate with jobs opens; INT64_MAX if none.
int64_t lade_gates_due(const lade_gates_t *self, int64_t now_ms);

// Goes through the gates in no order; they must not be added or removed meanwhile.
lade_gate_t *lade_gates_next(const lade_gates_t *self, size_t *at);
size_t lade_gates_count(const lade_gates_t *self);

// Packs {"gate", "limit", "running", "waiting", "closed_until"?, "reason"?}.
void lade_gate_put(const lade_gate_t *gate, const lade_broker_t *broker, lade_buf_t *buf);

// Forgets all jobs, for a reload; limits and closing times stay.
void lade_gates_reset(lade_gates_t *self);

void lade_gates_destroy(lade_gates_t **self_p);

#endif
