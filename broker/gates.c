// The table of gates. Few of them are closed or limited at any time, so they are looked through,
// not sorted.
#include "broker/gates.h"

#include "broker/job.h"
#include "broker/map.h"
#include "broker/packer.h"
#include "broker/store.h"
#include "common/wire.h"

#include <czmq.h>

enum {
    S_LONGEST_S = 7 * 24 * 3600, // a gate is closed at most
    S_MAX_REASON = 1024,         // bytes
};

struct lade_gates {
    lade_map_t *by_name;
    lade_gate_t **changed; // to be written
    size_t changed_count, changed_cap;
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

static bool
s_is_host(const char *name)
{
    return strncmp(name, "host:", strlen("host:")) == 0;
}

lade_gate_t *
lade_gates_need(lade_gates_t *self, const char *name)
{
    lade_gate_t *gate = lade_gates_find(self, name);
    if (gate)
        return gate;
    gate = zmalloc(sizeof *gate);
    gate->name = strdup(name);
    gate->counts_connections = s_is_host(name);
    gate->alone = strncmp(name, "only:", strlen("only:")) == 0;
    gate->limit = gate->alone;
    gate->waiting = LADE_HEAP(lade_job_t, place, s_before);
    gate->home = self;
    lade_map_put(self->by_name, gate->name, strlen(gate->name), gate);
    return gate;
}

lade_code_t
lade_gates_name(lade_gates_t *self, const char *given, lade_gate_t **gate_p, lade_error_t *error)
{
    char name[LADE_BROKER_MAX_NAME + 1];
    size_t len = strlen(given);
    snprintf(name, sizeof name, "%s", given);
    for (char *at = name; s_is_host(name) && *at; at++)
        *at = (char)tolower((unsigned char)*at); // as jobs name it
    if (len == 0 || len > LADE_BROKER_MAX_NAME)
        return lade_error_set(error, LADE_VALUE_ERROR, "gate: a name of 1 to %d bytes",
                              LADE_BROKER_MAX_NAME);
    if (!lade_gates_find(self, name) && lade_map_size(self->by_name) >= LADE_BROKER_MAX_KNOWN)
        return lade_error_set(error, LADE_QUEUE_FULL, "%d gates are known already",
                              LADE_BROKER_MAX_KNOWN);
    *gate_p = lade_gates_need(self, name);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Limits and closing

bool
lade_gate_is_open(const lade_gate_t *gate, int64_t now_ms)
{
    return gate->closed_until_ms <= now_ms && (gate->limit == 0 || gate->used < gate->limit);
}

size_t
lade_gate_room(const lade_gate_t *gate, int64_t now_ms)
{
    if (!lade_gate_is_open(gate, now_ms))
        return 0;
    size_t room = gate->limit ? (size_t)(gate->limit - gate->used) : gate->waiting.len;
    return room < gate->waiting.len ? room : gate->waiting.len;
}

// The gate is to be written in this turn.
static void
s_touch(lade_gate_t *gate)
{
    lade_gates_t *self = gate->home;
    if (gate->changed)
        return;
    gate->changed = true;
    if (self->changed_count == self->changed_cap) {
        self->changed_cap = self->changed_cap ? self->changed_cap * 2 : 16;
        self->changed = realloc(self->changed, self->changed_cap * sizeof *self->changed);
        if (!self->changed)
            abort();
    }
    self->changed[self->changed_count++] = gate;
}

void
lade_gate_limit(lade_gate_t *gate, int64_t limit)
{
    gate->limit = limit;
    gate->alone = false;
    s_touch(gate);
}

void
lade_gate_close(lade_gate_t *gate, double closed_for_s, const char *reason, int64_t now_ms)
{
    if (!(closed_for_s > 0)) { // not a number counts as nothing
        gate->closed_until_ms = 0;
        s_touch(gate);
        return;
    }
    if (closed_for_s > S_LONGEST_S)
        closed_for_s = S_LONGEST_S;
    int64_t until_ms = now_ms + (int64_t)(closed_for_s * 1000);
    if (until_ms <= gate->closed_until_ms)
        return;
    gate->closed_until_ms = until_ms;
    free(gate->reason);
    gate->reason = strndup(reason ? reason : "", S_MAX_REASON);
    s_touch(gate);
}

static void
s_destroy(lade_gate_t *gate)
{
    free(gate->name);
    free(gate->reason);
    free(gate->claims);
    lade_heap_free(&gate->waiting);
    free(gate);
}

// What is to be written, or has a row, stays until that is done.
void
lade_gates_tidy(lade_gates_t *self, lade_gate_t *gate, int64_t now_ms)
{
    if ((gate->limit && !gate->alone) || gate->claim_count || gate->waiting.len ||
        gate->closed_until_ms > now_ms || gate->changed || gate->stored)
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

// ---------------------------------------------------------------------------------------------------
// The keyspace

static void
s_write(lade_gates_t *self, lade_gate_t *gate, const lade_broker_t *broker)
{
    bool closed = gate->closed_until_ms > broker->mono_ms;
    lade_buf_t row = LADE_BUF(SIZE_MAX / 2);
    if (gate->limit || closed) {
        lade_put_map(&row, 1 + 2 * closed);
        LADE_PUT_KEY(&row, "limit");
        lade_put_int(&row, gate->limit);
    }
    if (closed) {
        LADE_PUT_KEY(&row, "closed_until");
        lade_put_real(&row, broker->now + (double)(gate->closed_until_ms - broker->mono_ms) / 1e3);
        LADE_PUT_KEY(&row, "reason");
        lade_put_str(&row, gate->reason);
    }
    if (row.len)
        lade_store_put(broker->store, LADE_DB_GATES, gate->name, strlen(gate->name), row.data,
                       row.len, false, NULL);
    else if (gate->stored)
        lade_store_del(broker->store, LADE_DB_GATES, gate->name, strlen(gate->name), NULL);
    gate->stored = row.len > 0;
    gate->changed = false;
    lade_buf_free(&row);
    lade_gates_tidy(self, gate, broker->mono_ms);
}

void
lade_gates_write(lade_gates_t *self, const lade_broker_t *broker)
{
    size_t count = self->changed_count;
    self->changed_count = 0;
    for (size_t i = 0; i < count; i++)
        s_write(self, self->changed[i], broker);
}

typedef struct {
    lade_gates_t *gates;
    const lade_broker_t *broker;
} s_loading_t;

// A closing time that is over by now is written off in the next turn.
static bool
s_see_stored(void *arg, lade_bytes_t key, lade_bytes_t value)
{
    s_loading_t *loading = arg;
    char name[LADE_BROKER_MAX_NAME + 1];
    msgpack_unpacked row;
    msgpack_unpacked_init(&row);
    if (key.len < sizeof name &&
        msgpack_unpack_next(&row, value.data, value.len, NULL) == MSGPACK_UNPACK_SUCCESS) {
        snprintf(name, sizeof name, "%.*s", (int)key.len, (const char *)key.data);
        lade_gate_t *gate = lade_gates_need(loading->gates, name);
        int64_t limit = lade_wire_int(&row.data, "limit", 0);
        gate->limit = limit > 0 && limit <= INT32_MAX ? limit : 0;
        double closed_s = lade_wire_real(&row.data, "closed_until", 0) - loading->broker->now;
        char *reason = lade_wire_strdup(&row.data, "reason");
        if (lade_wire_find(&row.data, "closed_until"))
            lade_gate_close(gate, closed_s, reason, loading->broker->mono_ms);
        gate->stored = true;
        free(reason);
    }
    msgpack_unpacked_destroy(&row);
    return true;
}

static void
s_forget(lade_gates_t *self)
{
    size_t at = 0;
    for (lade_gate_t *gate; (gate = lade_map_next(self->by_name, &at));)
        s_destroy(gate);
    lade_map_destroy(&self->by_name);
    self->changed_count = 0;
}

lade_code_t
lade_gates_load(lade_gates_t *self, const lade_broker_t *broker, lade_error_t *error)
{
    s_forget(self);
    self->by_name = lade_map_new();
    s_loading_t loading = {self, broker};
    return lade_store_scan(broker->store, LADE_DB_GATES, NULL, 0, 0, false, s_see_stored, &loading,
                           error);
}

// ---------------------------------------------------------------------------------------------------
// Showing

void
lade_gate_say_full(const lade_gate_t *gate, char *text, size_t size)
{
    const char *jobs = gate->claim_count == 1 ? "job" : "jobs";
    if (!gate->counts_connections)
        snprintf(text, size, "%zu of %" PRId64 " %s run there", gate->claim_count, gate->limit,
                 jobs);
    else if (gate->used < LADE_GATE_ANY)
        snprintf(text, size, "%" PRId64 " of %" PRId64 " connections are in use by %zu %s",
                 gate->used, gate->limit, gate->claim_count, jobs);
    else
        snprintf(text, size,
                 "not all of the %zu %s there have said that they keep to its limit of %" PRId64
                 " connections",
                 gate->claim_count, jobs, gate->limit);
}

void
lade_gate_put(const lade_gate_t *gate, const lade_broker_t *broker, lade_buf_t *buf)
{
    bool closed = gate->closed_until_ms > broker->mono_ms;
    bool connections = gate->counts_connections && gate->limit && gate->used < LADE_GATE_ANY;
    lade_put_map(buf, 4 + connections + 2 * closed);
    LADE_PUT_KEY(buf, "gate");
    lade_put_str(buf, gate->name);
    LADE_PUT_KEY(buf, "limit");
    lade_put_int(buf, gate->limit);
    LADE_PUT_KEY(buf, "running");
    lade_put_uint(buf, gate->claim_count);
    LADE_PUT_KEY(buf, "waiting");
    lade_put_uint(buf, gate->waiting.len);
    if (connections) {
        LADE_PUT_KEY(buf, "connections");
        lade_put_int(buf, gate->used);
    }
    if (!closed)
        return;
    LADE_PUT_KEY(buf, "closed_until");
    lade_put_real(buf, broker->now + (double)(gate->closed_until_ms - broker->mono_ms) / 1e3);
    LADE_PUT_KEY(buf, "reason");
    lade_put_str(buf, gate->reason);
}

void
lade_gates_destroy(lade_gates_t **self_p)
{
    lade_gates_t *self = *self_p;
    if (!self)
        return;
    s_forget(self);
    free(self->changed);
    free(self);
    *self_p = NULL;
}
