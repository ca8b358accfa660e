// The table of gates. Few of them are closed or limited at any time, so they are looked through,
// not sorted.
#include "broker/gates.h"

#include "broker/job.h"
#include "broker/map.h"
#include "broker/packer.h"

#include <czmq.h>

struct lade_gates {
    lade_map_t *by_name;
};

lade_gates_t *
lade_gates_new(void)
{
    lade_gates_t *self = zmalloc(sizeof *self);
    self->by_name = lade_map_new();
    return self;
}

lade_gate_t *
lade_gates_find(lade_gates_t *self, const char *name)
{
    return lade_map_get(self->by_name, name, strlen(name));
}

// Order of jobs that compete: priority, then who came first.
static bool
s_before(const void *a, const void *b)
{
    const lade_job_t *left = a, *right = b;
    return left->priority != right->priority ? left->priority < right->priority
                                             : left->id < right->id;
}

lade_gate_t *
lade_gates_need(lade_gates_t *self, const char *name)
{
    lade_gate_t *gate = lade_gates_find(self, name);
    if (gate)
        return gate;
    gate = zmalloc(sizeof *gate);
    gate->name = strdup(name);
    gate->waiting = LADE_HEAP(lade_job_t, place, s_before);
    lade_map_put(self->by_name, gate->name, strlen(gate->name), gate);
    return gate;
}

bool
lade_gate_is_open(const lade_gate_t *gate, int64_t now_ms)
{
    return gate->closed_until_ms <= now_ms && (gate->limit == 0 || gate->running < gate->limit);
}

size_t
lade_gate_room(const lade_gate_t *gate, int64_t now_ms)
{
    if (!lade_gate_is_open(gate, now_ms))
        return 0;
    size_t room = gate->limit ? (size_t)(gate->limit - gate->running) : gate->waiting.len;
    return room < gate->waiting.len ? room : gate->waiting.len;
}

void
lade_gate_close(lade_gate_t *gate, double closed_for_s, const char *reason, int64_t now_ms)
{
    enum { S_LONGEST_S = 7 * 24 * 3600 };
    if (!(closed_for_s > 0)) { // not a number counts as nothing
        gate->closed_until_ms = 0;
        return;
    }
    if (closed_for_s > S_LONGEST_S)
        closed_for_s = S_LONGEST_S;
    int64_t until_ms = now_ms + (int64_t)(closed_for_s * 1000);
    if (until_ms <= gate->closed_until_ms)
        return;
    gate->closed_until_ms = until_ms;
    free(gate->reason);
    gate->reason = strdup(reason ? reason : "");
}

static void
s_destroy(lade_gate_t *gate)
{
    free(gate->name);
    free(gate->reason);
    lade_heap_free(&gate->waiting);
    free(gate);
}

void
lade_gates_tidy(lade_gates_t *self, lade_gate_t *gate, int64_t now_ms)
{
    if (gate->limit || gate->running || gate->waiting.len || gate->closed_until_ms > now_ms)
        return;
    lade_map_del(self->by_name, gate->name, strlen(gate->name));
    s_destroy(gate);
}

int64_t
lade_gates_due(const lade_gates_t *self, int64_t now_ms)
{
    int64_t due = INT64_MAX;
    size_t at = 0;
    for (lade_gate_t *gate; (gate = lade_map_next(self->by_name, &at));)
        if (gate->closed_until_ms > now_ms && gate->closed_until_ms < due)
            due = gate->closed_until_ms;
    return due;
}

lade_gate_t *
lade_gates_next(const lade_gates_t *self, size_t *at)
{
    return lade_map_next(self->by_name, at);
}

size_t
lade_gates_count(const lade_gates_t *self)
{
    return lade_map_size(self->by_name);
}

void
lade_gate_put(const lade_gate_t *gate, const lade_broker_t *broker, lade_buf_t *buf)
{
    bool closed = gate->closed_until_ms > broker->mono_ms;
    lade_put_map(buf, 4 + 2 * closed);
    LADE_PUT_KEY(buf, "gate");
    lade_put_str(buf, gate->name);
    LADE_PUT_KEY(buf, "limit");
    lade_put_int(buf, gate->limit);
    LADE_PUT_KEY(buf, "running");
    lade_put_int(buf, gate->running);
    LADE_PUT_KEY(buf, "waiting");
    lade_put_uint(buf, gate->waiting.len);
    if (!closed)
        return;
    LADE_PUT_KEY(buf, "closed_until");
    lade_put_real(buf, broker->now + (double)(gate->closed_until_ms - broker->mono_ms) / 1e3);
    LADE_PUT_KEY(buf, "reason");
    lade_put_str(buf, gate->reason);
}

void
lade_gates_reset(lade_gates_t *self)
{
    size_t at = 0;
    for (lade_gate_t *gate; (gate = lade_map_next(self->by_name, &at));)
        gate->running = 0, gate->waiting.len = 0;
}

void
lade_gates_destroy(lade_gates_t **self_p)
{
    lade_gates_t *self = *self_p;
    if (!self)
        return;
    size_t at = 0;
    for (lade_gate_t *gate; (gate = lade_map_next(self->by_name, &at));)
        s_destroy(gate);
    lade_map_destroy(&self->by_name);
    free(self);
    *self_p = NULL;
}
