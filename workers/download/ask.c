// What to ask for next, and over how many connections.
#include "workers/download/engine_private.h"

#include <czmq.h>

enum {
    S_FIRST_BYTES = 4 << 20,   // asked for before it is known how large the file is
    S_LEAST_BYTES = 1 << 20,   // of a range
    S_UNKNOWN_BYTES = 2 << 20, // while it is not known how fast it is
    S_MOST_BYTES = 16 << 20,
    S_PATIENCE_MS = 2000, // that a transfer waits here for its host
    S_STEAL_MS = 2000,    // a range that needs longer than this at the end is shared
};

// The transfers to one host share the connections to it.
static size_t
s_share(const lade_transfer_t *self)
{
    size_t transfers = 1, all = (size_t)self->engine->config->download_connections;
    for (const lade_transfer_t *other = self->engine->transfers; other; other = other->next)
        transfers += other != self && other->state == LADE_TRANSFER_FETCHING &&
                     strcmp(other->host, self->host) == 0;
    return all > transfers ? all / transfers : 1;
}

// How many connections the transfer may have open now.
static size_t
s_allowed(const lade_transfer_t *self)
{
    size_t most = (size_t)self->engine->config->download_connections;
    if (!self->answered || self->whole)
        return 1;
    if (self->farm_connections > 0 && (size_t)self->farm_connections < most)
        most = (size_t)self->farm_connections;
    if (self->most && self->most < most)
        most = self->most;
    most = s_share(self) < most ? s_share(self) : most;
    return self->tune.want < most ? self->tune.want : most;
}

// Connections of all transfers to the host.
static size_t
s_open_to(const lade_engine_t *self, const char *host)
{
    size_t count = 0;
    for (const lade_transfer_t *transfer = self->transfers; transfer; transfer = transfer->next)
        for (const lade_part_t *part = transfer->parts; part; part = part->next)
            count += strcmp(part->host, host) == 0;
    return count;
}

static int64_t
s_align_up(int64_t at)
{
    return (at + LADE_BLOCK_BYTES - 1) / LADE_BLOCK_BYTES * LADE_BLOCK_BYTES;
}

// About as much as a connection brings in a third of a second: more would keep the digest waiting
// where a connection is slow, less would be all requests. No more than there is memory for, and so
// that at the end all connections have something to do.
static int64_t
s_range_bytes(const lade_transfer_t *self, size_t connections)
{
    int64_t left = self->journal.total - self->claimed.bytes;
    int64_t share = left / (int64_t)connections;
    int64_t memory = (self->engine->config->buffer_mb << 20) / (2 * (int64_t)connections);
    int64_t most = memory < S_MOST_BYTES ? memory : S_MOST_BYTES;
    int64_t bytes = self->tune.each > 0 ? (int64_t)(self->tune.each / 3) : S_UNKNOWN_BYTES;
    bytes = bytes < most ? bytes : most;
    bytes = bytes < share ? bytes : share;
    return bytes < S_LEAST_BYTES ? S_LEAST_BYTES : bytes;
}

// The next bytes nobody has asked for; false if there are none.
static bool
s_next_range(const lade_transfer_t *self, lade_range_t *range)
{
    int64_t total = self->journal.total, from = lade_ranges_gap(&self->claimed, 0);
    int64_t until = lade_ranges_next(&self->claimed, from), to;
    if (total >= 0 && from >= total)
        return false;
    if (self->whole || (total < 0 && from > 0)) { // to the end, or to what was kept
        *range = (lade_range_t){from, self->whole || until == INT64_MAX ? -1 : until};
        return from == 0 || (!self->whole && from < INT64_MAX / 2);
    }
    to = s_align_up(from + (self->answered ? s_range_bytes(self, s_allowed(self)) : S_FIRST_BYTES));
    to = to - from > S_MOST_BYTES + LADE_BLOCK_BYTES ? from + S_MOST_BYTES : to;
    to = until < to ? until : to;
    *range = (lade_range_t){from, total >= 0 && total < to ? total : to};
    return true;
}

// Shares the range that will take longest, if that is long enough.
static bool
s_steal(lade_transfer_t *self, lade_range_t *range)
{
    lade_part_t *slowest = NULL;
    int64_t longest_ms = S_STEAL_MS;
    for (lade_part_t *part = self->parts; part; part = part->next) {
        int64_t ms = self->engine->now_ms - part->began_ms, left = part->to - part->at;
        int64_t came = part->at - part->from + 1;
        if (part->answer != LADE_ANSWER_TAKE || left < 2 * LADE_BLOCK_BYTES || ms < S_STEAL_MS ||
            left / came > longest_ms || left * ms / came < longest_ms)
            continue;
        longest_ms = left * ms / came;
        slowest = part;
    }
    if (!slowest)
        return false;
    *range = (lade_range_t){s_align_up(slowest->at + (slowest->to - slowest->at) / 2), slowest->to};
    slowest->to = range->from;
    return true;
}

// When a request may be made again, as far as hosts that asked to wait and the farm are concerned.
static int64_t
s_closed_until(const lade_transfer_t *self, const char *host)
{
    const lade_engine_t *engine = self->engine;
    int64_t until_ms = self->hold_until_ms;
    for (size_t i = 0; i < engine->closed_count; i++)
        if (engine->closed[i].until_ms > until_ms &&
            (strcmp(engine->closed[i].host, host) == 0 ||
             strcmp(engine->closed[i].host, self->host) == 0))
            until_ms = engine->closed[i].until_ms;
    return until_ms;
}

bool
lade_ask_is_open(const lade_transfer_t *self, const char *url)
{
    char host[256];
    lade_transfer_host(url, host, sizeof host);
    return s_closed_until(self, host) <= self->engine->now_ms;
}

// Whether the host is closed. A transfer that would have to wait for long is given back: it waits
// at the gate then, and takes up no place here.
static bool
s_is_closed(lade_transfer_t *self, const char *host)
{
    int64_t until_ms = s_closed_until(self, host), left_ms = until_ms - self->engine->now_ms;
    if (left_ms > S_PATIENCE_MS && !self->parts) {
        double left_s = (double)left_ms / 1000;
        self->held_by_farm = until_ms == self->hold_until_ms;
        self->retry_after_s = self->held_by_farm ? -1 : left_s; // its gate may open earlier
        lade_error_set(&self->error, LADE_RATE_LIMITED, "%s %s; %.0f s are left", host,
                       self->held_by_farm ? "is closed for the farm" : "asked to wait", left_s);
    }
    return left_ms > 0;
}

// Whether a request may be made now, by a new part (own: 0) or by one that has a connection (own:
// 1).
static bool
s_may_ask(lade_transfer_t *self, size_t own)
{
    lade_engine_t *engine = self->engine;
    char host[256];
    lade_transfer_host(self->direct_url ? self->direct_url : lade_transfer_url(self), host,
                       sizeof host);
    if (engine->now_ms < self->not_before_ms || self->reserving || s_is_closed(self, host))
        return false;
    bool room = s_open_to(engine, host) < (size_t)engine->config->download_connections + own;
    engine->starved |= !room; // looked at again when a connection is free
    return room;
}

bool
lade_ask_next(lade_transfer_t *self, lade_range_t *range)
{
    bool more =
        self->part_count <= s_allowed(self) && s_may_ask(self, 1) && s_next_range(self, range);
    if (more)
        lade_ranges_add(&self->claimed, range->from, range->to < 0 ? INT64_MAX / 2 : range->to);
    return more;
}

void
lade_ask_more(lade_transfer_t *self)
{
    lade_range_t range;
    while (self->part_count < s_allowed(self) && s_may_ask(self, 0)) {
        bool more = s_next_range(self, &range) || s_steal(self, &range);
        if (!more || !lade_part_start(self, range.from, range.to))
            return;
    }
}

// ---------------------------------------------------------------------------------------------------
// How many connections are worth it

void
lade_ask_start(lade_transfer_t *self)
{
    lade_tune_start(&self->tune, self->latency_ms, self->engine->now_ms, self->came);
}

void
lade_ask_tune(lade_transfer_t *self)
{
    const lade_engine_t *engine = self->engine;
    const lade_tune_facts_t facts = {
        .now_ms = engine->now_ms,
        .bytes = self->came,
        .open = self->part_count,
        .most = (size_t)engine->config->download_connections,
        .idle_share = engine->idle_share,
        .blocked_share = engine->blocked_share,
        .limited = engine->bucket.bytes_per_s || self->farm_rate,
    };
    if (!self->whole)
        lade_tune_step(&self->tune, &facts);
}
