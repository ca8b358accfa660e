// The life of a transfer.
//
// One function decides what is next: lade_flow_advance. Whatever happens (a request ended, a chore
// came back, somebody asked to stop, time has passed) notes what it brings and calls it. Within a
// callback of libcurl it is not called: handles cannot be taken back there.
#include "common/log.h"
#include "common/wire.h"
#include "workers/download/engine_private.h"
#include "workers/download/verdict.h"

#include <czmq.h>
#include <inttypes.h>

enum {
    S_FIRST_BYTES = 4 << 20, // asked for before it is known how large the file is
    S_LEAST_BYTES = 1 << 20, // of a range
    S_MOST_BYTES = 16 << 20,
    S_START_CONNECTIONS = 4,
    S_MAX_REDIRECTS = 10,
    S_MAX_ANEW = 3,
    S_MAX_STRIKES = 3,         // requests in a row that bring nothing
    S_EARN_BYTES = 8 << 20,    // for one more request repeated
    S_BACKOFF_MS = 100,        // before a request is repeated; doubles, half of it random
    S_TELL_MS = 50,            // between two tellings of progress, if it is less than 1 %
    S_FLUSH_MS = 200,          // what came slowly is written after so long
    S_HASH_BYTES = 16 << 20,   // read from the disk by one chore
    S_VERIFY_BYTES = 64 << 20, // still to be hashed when all has come: worth telling
    S_TUNE_MS = 500,           // a number of connections is tried for so long
    S_TUNE_AGAIN_MS = 10000,   // and again after so long
    S_DRAIN_MS = 100,         // that bytes on their way are waited for when it is stopped
    S_PATIENCE_MS = 2000,      // that a transfer waits here for its host
    S_STEAL_MS = 2000,         // a range that needs longer than this at the end is shared
    S_SMALL_SHARE = 4, // of checkpoint_mb: a checkpoint is begun at a quarter of what may be lost
};

static const double S_TUNE_GAIN = 1.15; // a growth that brings less was one too many
static const double S_TUNE_IDLE = 0.2;  // of our time; with less we are the limit, not the network

static void s_restarted(void *arg);

// ---------------------------------------------------------------------------------------------------
// Chores and ends

static void
s_chore(lade_transfer_t *self, void (*work)(void *arg), void (*then)(void *arg))
{
    assert(!self->busy);
    self->busy = true;
    self->error_of_chore = (lade_error_t){0};
    self->chore = (lade_chore_t){.work = work, .then = then, .arg = self};
    lade_crew_add(self->engine->crew, &self->chore);
}

static void
s_count(lade_engine_t *self, int64_t bytes, int64_t open, int64_t ended)
{
    pthread_mutex_lock(&self->lock);
    self->bytes += bytes;
    self->open += open;
    self->ended += ended;
    pthread_mutex_unlock(&self->lock);
}

static lade_outcome_t
s_outcome(const lade_transfer_t *self)
{
    bool good = self->error.code == LADE_OK;
    return (lade_outcome_t){
        .error = self->error,
        .retry_after_s = self->retry_after_s,
        .volume = self->error.code == LADE_NO_SPACE && *self->volume ? self->volume : NULL,
        .path = self->path,
        .bytes = good ? self->journal.total : self->written.bytes,
        .total = self->journal.total,
        .resumed_from = self->found ? 0 : self->resumed_from,
        .sha256 = good ? self->digest_hex : NULL,
        .etag = self->journal.etag,
        .url = self->urls[0] ? lade_transfer_url(self) : NULL,
        .final_url = self->final_url,
        .content_type = self->journal.content_type,
    };
}

// Tells the outcome and forgets the transfer.
static void
s_end(lade_transfer_t *self)
{
    lade_engine_t *engine = self->engine;
    lade_outcome_t outcome = s_outcome(self);
    if (self->error.code == LADE_RATE_LIMITED && !self->held_by_farm) {
        outcome.gates[0] = self->host;
        if (*self->answer_host && strcmp(self->host, self->answer_host) != 0)
            outcome.gates[1] = self->answer_host;
    }
    for (lade_transfer_t **at = &engine->transfers; *at; at = &(*at)->next)
        if (*at == self) {
            *at = self->next;
            break;
        }
    s_count(engine, 0, -1, 1);
    if (self->farm_connections)
        lade_part_close_idle(engine, *self->answer_host ? self->answer_host : self->host);
    engine->ops.end(self->arg, &outcome);
    lade_transfer_destroy(&self);
}

static void
s_settled(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    s_end(self);
}

// Keeps or removes the partial as the error has it, then ends.
static void
s_settle(lade_transfer_t *self)
{
    static void (*const work[])(void *arg) = {
        [false] = lade_transfer_remove, [true] = lade_transfer_keep};
    self->state = LADE_TRANSFER_SETTLING;
    lade_code_t code = self->error.code;
    bool left = atomic_load(&self->stop) == LADE_ENGINE_LEAVE;
    if (!self->partial || (code == LADE_STALE_LEASE && !left)) {
        s_end(self);
        return;
    }
    bool keep = left || code == LADE_PAUSED ||
                (code != LADE_CANCELLED && (self->preserve_partial || lade_verdict_keeps(code)));
    if (self->written.bytes == 0 && self->journal.ranges.bytes == 0)
        keep = false; // nothing came, and nothing was there before
    lade_transfer_snapshot(self);
    s_chore(self, work[keep], s_settled);
}

static bool
s_is_stopped(const lade_transfer_t *self)
{
    return atomic_load(&self->stop) != LADE_ENGINE_GO;
}

static void
s_end_stopped(lade_transfer_t *self)
{
    static const struct {
        lade_code_t code;
        const char *words;
    } ends[] = {
        [LADE_ENGINE_CANCEL] = {LADE_CANCELLED, "the download was cancelled"},
        [LADE_ENGINE_PAUSE] = {LADE_PAUSED, "the download is paused; what was fetched is kept"},
        [LADE_ENGINE_LEAVE] = {LADE_STALE_LEASE, "the download was given to somebody else"},
    };
    int stop = atomic_load(&self->stop);
    lade_error_set(&self->error, ends[stop].code, "%s", ends[stop].words);
    s_settle(self);
}

// ---------------------------------------------------------------------------------------------------
// Progress and checkpoints

static void
s_tell(lade_transfer_t *self, bool always)
{
    int64_t bytes =
        self->state == LADE_TRANSFER_FETCHING ? self->written.bytes : self->journal.total;
    int64_t total = self->journal.total, step = total > 0 ? total / 100 : INT64_MAX;
    int64_t now_ms = self->engine->now_ms;
    if (!always && bytes - self->told_bytes < step && now_ms - self->told_ms < S_TELL_MS)
        return;
    self->told_bytes = bytes;
    self->told_ms = now_ms;
    if (self->engine->ops.progress)
        self->engine->ops.progress(self->arg, bytes, total, self->path);
}

static void
s_phase(lade_transfer_t *self, const char *phase, const char *reason)
{
    if (self->engine->ops.phase)
        self->engine->ops.phase(self->arg, phase, reason);
}

static int64_t
s_interval(const lade_transfer_t *self)
{
    return self->engine->config->checkpoint_mb << 20;
}

static void
s_checkpointed(void *arg)
{
    lade_transfer_t *self = arg;
    self->checkpointing = false;
    self->durable_bytes = self->snapshot.ranges.bytes;
    if (self->error_of_checkpoint.code && !self->error.code)
        self->error = self->error_of_checkpoint;
    lade_flow_advance(self);
}

static void
s_maybe_checkpoint(lade_transfer_t *self)
{
    if (self->checkpointing || self->busy ||
        self->written.bytes - self->snapshot_bytes < s_interval(self) / S_SMALL_SHARE)
        return;
    lade_transfer_snapshot(self);
    self->checkpointing = true;
    self->error_of_checkpoint = (lade_error_t){0};
    self->checkpoint =
        (lade_chore_t){.work = lade_transfer_checkpoint, .then = s_checkpointed, .arg = self};
    lade_crew_add(self->engine->crew, &self->checkpoint);
}

// ---------------------------------------------------------------------------------------------------
// Blocks: to the disk and, in order, to the hash

static void
s_release(lade_transfer_t *self, lade_block_t *block)
{
    if (!block->writing && !block->hashing && block->hashed)
        lade_blocks_put(self->engine->blocks, block);
}

static void
s_hashed(void *arg)
{
    lade_transfer_t *self = arg;
    self->hashing = false;
    for (lade_block_t *block = self->hash_blocks, *next; block; block = next) {
        next = block->next;
        block->hashing = false;
        block->hashed = true;
        s_release(self, block);
    }
    self->hash_blocks = NULL;
    if (self->error_of_hash.code && !self->error.code)
        self->error = self->error_of_hash;
    lade_flow_advance(self);
}

static void
s_hash_start(lade_transfer_t *self)
{
    self->hashing = true;
    self->error_of_hash = (lade_error_t){0};
    self->hash = (lade_chore_t){.work = lade_transfer_hash, .then = s_hashed, .arg = self};
    lade_crew_add(self->engine->crew, &self->hash);
}

// Takes the blocks that follow on what is hashed out of those held.
static lade_block_t *
s_take_held(lade_transfer_t *self, int64_t at)
{
    lade_block_t *first = self->held, **end = &self->held;
    while (*end && (*end)->at <= at) {
        int64_t to = (*end)->at + (int64_t)(*end)->len;
        at = to > at ? to : at;
        (*end)->hashing = true;
        end = &(*end)->next;
    }
    if (end == &self->held)
        return NULL;
    self->held = *end;
    *end = NULL;
    return first;
}

// How far the file can be hashed from the disk: bytes that an earlier attempt wrote, or whose
// blocks were needed for others. Not what a block in memory has the rest of.
static int64_t
s_hash_from_disk(const lade_transfer_t *self, int64_t at)
{
    int64_t to = lade_ranges_gap(&self->written, at);
    to = to - at > S_HASH_BYTES ? at + S_HASH_BYTES : to;
    if (self->held && self->held->at < to)
        to = self->held->at;
    for (const lade_part_t *part = self->parts; part; part = part->next)
        if (part->block && part->block->len && part->block->at < to)
            to = part->block->at;
    return to;
}

static void
s_hash_more(lade_transfer_t *self)
{
    if (self->hashing || self->busy)
        return;
    int64_t at = lade_digest_bytes(self->digest);
    self->hash_blocks = s_take_held(self, at);
    self->hash_from = at;
    self->hash_to = self->hash_blocks ? at : s_hash_from_disk(self, at);
    if (!self->hash_blocks && self->hash_to <= at)
        return;
    self->reread += self->hash_to - at;
    s_hash_start(self);
}

static void
s_block_written(void *arg)
{
    lade_block_t *block = arg;
    lade_transfer_t *self = block->owner;
    block->writing = false;
    self->writes--;
    if (block->error.code) {
        if (!self->error.code)
            self->error = block->error;
        if (block->error.code == LADE_NO_SPACE && !*self->volume)
            lade_transfer_note_volume(self);
    } else {
        lade_ranges_add(&self->written, block->at, block->at + (int64_t)block->len);
        s_tell(self, false);
    }
    s_release(self, block);
    s_maybe_checkpoint(self);
    lade_flow_advance(self);
}

static void
s_write(lade_transfer_t *self, lade_block_t *block)
{
    lade_block_t **at = &self->held;
    while (*at && (*at)->at < block->at)
        at = &(*at)->next;
    block->next = *at;
    *at = block;
    block->writing = true;
    self->writes++;
    block->chore =
        (lade_chore_t){.work = lade_transfer_write, .then = s_block_written, .arg = block};
    lade_crew_add(self->engine->crew, &block->chore);
    s_hash_more(self);
}

// Whether the block ends a file of which nothing else is on its way: the finish writes and hashes
// it.
static bool
s_is_last(const lade_transfer_t *self, const lade_block_t *block)
{
    return self->journal.total == block->at + (int64_t)block->len && !self->writes &&
           !self->hashing && !self->held && !block->flushed && self->written.bytes == block->at &&
           lade_digest_bytes(self->digest) == block->at;
}

void
lade_flow_block(lade_transfer_t *self, lade_block_t *block)
{
    block->owner = self;
    if (s_is_last(self, block))
        self->last = block;
    else
        s_write(self, block);
}

void
lade_flow_written(lade_transfer_t *self, int64_t from, int64_t to)
{
    lade_ranges_add(&self->written, from, to);
    s_tell(self, false);
    s_maybe_checkpoint(self);
}

void
lade_flow_came(lade_transfer_t *self, size_t bytes)
{
    s_count(self->engine, (int64_t)bytes, 0, 0);
    self->engine->bucket.tokens -= (double)bytes;
    self->tokens -= (double)bytes;
    self->strikes = 0;
    self->came += (int64_t)bytes;
    if (self->came - self->earned >= S_EARN_BYTES) {
        self->earned = self->came;
        if (self->retries < LADE_TRANSFER_RETRIES)
            self->retries++;
    }
    if (self->stalled) {
        self->stalled = false;
        s_phase(self, "resumed", NULL);
    }
}

bool
lade_flow_may_take(const lade_transfer_t *self)
{
    const lade_bucket_t *bucket = &self->engine->bucket;
    return !self->reserving && (!bucket->bytes_per_s || bucket->tokens > 0) &&
           (!self->farm_rate || self->tokens > 0) &&
           self->written.bytes - self->durable_bytes < s_interval(self);
}

// Gives the memory of blocks back that are on the disk and wait for bytes before them.
static void
s_spill(lade_transfer_t *self)
{
    bool gap = self->held && self->held->at > lade_digest_bytes(self->digest) && !self->hashing;
    while (gap && lade_blocks_full(self->engine->blocks)) {
        lade_block_t **last = NULL;
        for (lade_block_t **at = &self->held; *at; at = &(*at)->next)
            if (!(*at)->writing)
                last = at;
        if (!last)
            return;
        lade_block_t *block = *last;
        *last = block->next;
        block->hashed = true;
        s_release(self, block);
    }
}

// Forgets what is in memory.
static void
s_drop_held(lade_transfer_t *self)
{
    for (lade_block_t *block; (block = self->held);) {
        self->held = block->next;
        block->hashed = true;
        s_release(self, block);
    }
    if (self->last)
        lade_blocks_put(self->engine->blocks, self->last);
    self->last = NULL;
}

// ---------------------------------------------------------------------------------------------------
// What to ask for next

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

// As long as the memory for ranges that are waited for allows, and so that at the end all
// connections have something to do.
static int64_t
s_range_bytes(const lade_transfer_t *self, size_t connections)
{
    int64_t left = self->journal.total - self->claimed.bytes;
    int64_t share = left / (int64_t)connections;
    int64_t memory = (self->engine->config->buffer_mb << 20) / (2 * (int64_t)connections) /
                     LADE_BLOCK_BYTES * LADE_BLOCK_BYTES;
    int64_t most = memory < 4 * S_LEAST_BYTES ? 4 * S_LEAST_BYTES : memory;
    most = most > S_MOST_BYTES ? S_MOST_BYTES : most;
    return share < S_LEAST_BYTES ? S_LEAST_BYTES : share > most ? most : share;
}

// The next bytes nobody has asked for; false if there are none.
static bool
s_next_range(const lade_transfer_t *self, lade_range_t *range)
{
    int64_t total = self->journal.total, from = lade_ranges_gap(&self->claimed, 0);
    int64_t until = lade_ranges_next(&self->claimed, from), to;
    if (total >= 0 && from >= total)
        return false;
    if (self->whole || (total < 0 && from > 0)) {
        *range = (lade_range_t){from, -1};
        return from == 0 || (!self->whole && until == INT64_MAX && from < INT64_MAX / 2);
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

// Whether a request may be made now, by a new part or by one that has a connection already (own:
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
    bool room = s_open_to(engine, host) - own < (size_t)engine->config->download_connections;
    engine->starved |= !room; // looked at again when a connection is free
    return room;
}

static void
s_ask(lade_transfer_t *self)
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

static void
s_tune_start(lade_transfer_t *self)
{
    self->tune = (lade_tune_t){
        .want = S_START_CONNECTIONS, .since_ms = self->engine->now_ms, .bytes = self->came};
}

// Doubles the connections as long as that makes it faster, and as long as it is not our own machine
// that is busy.
static void
s_tune(lade_transfer_t *self)
{
    lade_tune_t *tune = &self->tune;
    int64_t now_ms = self->engine->now_ms, ms = now_ms - tune->since_ms;
    size_t most = (size_t)self->engine->config->download_connections;
    if (ms < S_TUNE_MS || self->whole || !tune->want || now_ms < tune->again_ms)
        return;
    double rate = (double)(self->came - tune->bytes) * 1000 / (double)ms;
    bool limited = self->engine->bucket.bytes_per_s || self->farm_rate;
    bool gained = rate > tune->rate * S_TUNE_GAIN;
    bool idle = self->engine->idle_share > S_TUNE_IDLE && !lade_blocks_full(self->engine->blocks);
    if (!gained && tune->before) {
        tune->want = tune->before;
        tune->before = 0;
        tune->again_ms = now_ms + S_TUNE_AGAIN_MS;
    } else if (idle && !limited && self->part_count >= tune->want && tune->want < most) {
        tune->before = tune->want;
        tune->want = tune->want * 2 < most ? tune->want * 2 : most;
        tune->rate = rate;
    } else {
        tune->before = 0;
    }
    tune->since_ms = now_ms;
    tune->bytes = self->came;
}

// ---------------------------------------------------------------------------------------------------
// Answers and ends of requests

static void
s_reserved(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = self->reserving = false;
    if (self->error_of_chore.code && !self->error.code)
        self->error = self->error_of_chore;
    lade_flow_advance(self);
}

// Runs within a callback of libcurl.
void
lade_flow_answered(lade_transfer_t *self)
{
    if (!self->answered) {
        self->answered = true;
        s_tune_start(self);
        s_tell(self, true);
    }
    if (self->journal.total > LADE_BLOCK_BYTES && !self->reserved) {
        self->reserved = self->reserving = true;
        s_chore(self, lade_transfer_reserve, s_reserved);
    }
}

static bool
s_is_networks(lade_code_t code)
{
    return code == LADE_NETWORK || code == LADE_STALLED;
}

static void
s_back_off(lade_transfer_t *self)
{
    int64_t ms = S_BACKOFF_MS << (self->strikes < 8 ? self->strikes : 8);
    self->not_before_ms = self->engine->now_ms + ms / 2 + randof(ms / 2 + 1);
    self->strikes++;
    self->retries--;
}

static void
s_say_stalled(lade_transfer_t *self, const lade_error_t *error)
{
    lade_log(LADE_LOG_INFO, "download", "%s; asking again", error->message);
    if (!self->stalled)
        s_phase(self, "stalled", error->message);
    self->stalled = true;
}

// A request failed. Alone it is the transfer's failure, unless asking again can help; one of
// several is only one connection too many.
static void
s_failed(lade_part_t *part, const lade_error_t *why)
{
    lade_transfer_t *self = part->transfer;
    lade_error_t error = *why;
    bool others = self->part_count > 1, nothing = part->at == part->from;
    if (error.code == LADE_RATE_LIMITED)
        lade_engine_close_host(self->engine, part->host, self->retry_after_s);
    lade_part_drop(part, true);
    bool again = s_is_networks(error.code) && self->came > 0 && !self->whole &&
                 self->strikes < S_MAX_STRIKES && self->retries > 0;
    if (again) {
        s_say_stalled(self, &error);
        s_back_off(self);
    }
    if (others && nothing && error.code != LADE_RATE_LIMITED && error.code != LADE_NO_SPACE) {
        self->most = self->part_count;
        again = true;
    }
    if (!again && !self->error.code)
        self->error = error;
}

static void
s_judge_curl(lade_part_t *part, CURLcode code, lade_error_t *error)
{
    const lade_config_t *config = part->transfer->engine->config;
    const lade_verdict_facts_t facts = {
        .host = part->host,
        .detail = part->curl_words,
        .connected = part->connected,
        .token = part->token,
        .stall_s = config->stall_s,
        .connect_timeout_s = config->connect_timeout_s,
    };
    if (part->error.code) // said so itself
        *error = part->error;
    else
        lade_verdict_curl(code, &facts, error);
}

// Goes to where the answer pointed. url is taken.
static void
s_follow(lade_part_t *part, char *url)
{
    lade_transfer_t *self = part->transfer;
    lade_error_t *error = &part->error;
    if (!url)
        lade_error_set(error, LADE_HTTP_ERROR, "%s redirects without saying where to", part->host);
    else if (++part->hops > S_MAX_REDIRECTS)
        lade_error_set(error, LADE_HTTP_ERROR, "%s redirects in a circle (more than %d times)",
                       self->host, S_MAX_REDIRECTS);
    if (error->code) {
        free(url);
        s_failed(part, error);
        return;
    }
    bool direct = part->direct;
    if (!lade_part_ask(part, part->from, part->to, url)) {
        lade_error_t why = part->error;
        s_failed(part, &why);
        return;
    }
    part->direct = direct;
}

// Remembers where the URL led to, so that the next ranges are asked for there.
static void
s_note_url(lade_part_t *part)
{
    lade_transfer_t *self = part->transfer;
    free(self->final_url);
    self->final_url = lade_answer_public_url(part->url);
    if (part->hops == 0 || self->direct_url)
        return;
    self->direct_url = strdup(part->url);
}

// The body was taken as far as it came: was it all?
static void
s_taken(lade_part_t *part, CURLcode code)
{
    lade_transfer_t *self = part->transfer;
    lade_error_t error = {0};
    s_note_url(part);
    if (part->to < 0 && code == CURLE_OK && !part->error.code) { // of unknown length, until now
        self->journal.total = part->at;
        lade_ranges_remove(&self->claimed, part->at, INT64_MAX / 2);
        part->to = part->at;
    }
    if (part->to == part->at && !part->error.code) {
        lade_range_t next;
        bool more = self->part_count <= s_allowed(self) && !self->error.code && !self->redo &&
                    !s_is_stopped(self) && s_may_ask(self, 1) && s_next_range(self, &next);
        if (more)
            lade_ranges_add(&self->claimed, next.from, next.to);
        if (!more || !lade_part_ask(part, next.from, next.to, NULL))
            lade_part_drop(part, true);
        return;
    }
    if (part->error.code || code != CURLE_OK)
        s_judge_curl(part, code, &error);
    else
        lade_error_set(&error, LADE_NETWORK, "%s closed after %" PRId64 " of %" PRId64 " bytes",
                       part->host, part->at, part->to);
    s_failed(part, &error);
}

void
lade_flow_ended(lade_part_t *part, CURLcode code)
{
    lade_transfer_t *self = part->transfer;
    lade_error_t error = {0};
    char *url = lade_part_withdraw(part);
    bool going = !s_is_stopped(self) && !self->error.code;
    if (code == CURLE_OK && part->answer == LADE_ANSWER_NONE && going)
        part->answer = lade_answer_judge(part); // an answer without a body was not judged yet
    if (going && part->answer == LADE_ANSWER_REDIRECT) {
        s_follow(part, url);
        url = NULL;
    } else if (going && part->answer == LADE_ANSWER_TAKE && !self->redo) {
        lade_flow_answered(self);
        s_taken(part, code);
    } else if (going && part->answer == LADE_ANSWER_REFUSED) {
        error = part->error;
        s_failed(part, &error);
    } else if (going && part->answer == LADE_ANSWER_NONE) {
        s_judge_curl(part, code, &error);
        s_failed(part, &error);
    } else {
        if (part->answer == LADE_ANSWER_AGAIN && self->strikes > S_MAX_STRIKES)
            lade_error_set(&self->error, LADE_RANGE_REFUSED, "%s does not continue the file",
                           part->host);
        lade_part_drop(part, part->answer == LADE_ANSWER_TAKE && !self->redo);
    }
    free(url);
    lade_flow_advance(self);
}

// ---------------------------------------------------------------------------------------------------
// What comes next

static bool
s_is_idle(const lade_transfer_t *self)
{
    return !self->parts && !self->writes && !self->hashing && !self->checkpointing;
}

static void
s_drop_parts(lade_transfer_t *self, bool keep)
{
    for (lade_part_t *part = self->parts, *next; part; part = next) {
        next = part->next;
        lade_part_drop(part, keep && part->answer == LADE_ANSWER_TAKE);
    }
}

// Another mirror is tried for what may be this one's fault.
static bool
s_has_mirror(const lade_transfer_t *self)
{
    static const lade_code_t codes[] = {LADE_NETWORK,       LADE_STALLED,      LADE_HTTP_ERROR,
                                        LADE_NOT_FOUND,     LADE_RATE_LIMITED, LADE_AUTH_REQUIRED,
                                        LADE_AUTH_DENIED,   LADE_LICENSE_GATE, LADE_NOT_A_MODEL,
                                        LADE_SIZE_MISMATCH, LADE_UNSAFE_URL};
    bool theirs = false;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        theirs |= self->error.code == codes[i];
    return theirs && self->urls[self->url_at + 1];
}

static void
s_next_mirror(lade_transfer_t *self)
{
    lade_log(LADE_LOG_INFO, "download", "%s; trying the next mirror", self->error.message);
    self->error = (lade_error_t){0};
    self->retry_after_s = -1;
    self->strikes = 0;
    if (!lade_transfer_next(self))
        s_chore(self, lade_transfer_restart, s_restarted);
    else
        lade_flow_advance(self);
}

static void
s_restarted(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = self->reserved = false;
    if (self->error_of_chore.code)
        self->error = self->error_of_chore;
    lade_flow_advance(self);
}

static void
s_begin_anew(lade_transfer_t *self)
{
    if (++self->anew > S_MAX_ANEW) {
        lade_error_set(&self->error, LADE_RANGE_REFUSED,
                       "%s does not continue the file and does not send it whole either",
                       self->host);
        lade_flow_advance(self);
        return;
    }
    lade_log(LADE_LOG_INFO, "download", "%s: %s; fetching it from the start", self->host,
             self->redo == LADE_REDO_WHOLE ? "range_refused" : "the file has changed");
    // Who changes it again and again is asked for one whole answer.
    self->whole = self->redo == LADE_REDO_WHOLE || self->anew > 1;
    self->if_range = LADE_IF_ETAG;
    self->redo = LADE_REDO_NONE;
    s_chore(self, lade_transfer_restart, s_restarted);
}

static void
s_compared(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    if (!s_is_stopped(self) && !self->error_of_chore.code) {
        s_end(self);
        return;
    }
    if (self->error_of_chore.code)
        self->error = self->error_of_chore;
    self->redo = LADE_REDO_NONE;
    lade_flow_advance(self);
}

static void
s_finished(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    s_drop_held(self);
    lade_code_t code = self->error_of_chore.code;
    if (atomic_load(&self->stop) == LADE_ENGINE_CANCEL && self->published) {
        unlink(self->path); // ours, and nobody was told of it
        s_end_stopped(self);
    } else if (!code) {
        lade_log(LADE_LOG_DEBUG, "download",
                 "%s: %zu connections at last, %" PRId64 " bytes read again for the digest",
                 self->path, self->tune.want, self->reread);
        s_tell(self, true);
        s_end(self);
    } else if (code == LADE_CANCELLED && s_is_stopped(self)) {
        s_end_stopped(self);
    } else if (code == LADE_DIGEST_MISMATCH && self->resumed_from > 0 && self->anew++ == 0) {
        // Perhaps it was the kept bytes. Only a whole file from one answer proves that it is the
        // source.
        lade_log(LADE_LOG_WARNING, "download", "%s; fetching it again from the start",
                 self->error_of_chore.message);
        self->state = LADE_TRANSFER_FETCHING;
        s_chore(self, lade_transfer_restart, s_restarted);
    } else {
        self->error = self->error_of_chore;
        s_settle(self);
    }
}

// What an interruption needs once nothing is out any more.
static void
s_interrupted(lade_transfer_t *self)
{
    s_drop_held(self);
    if (s_is_stopped(self))
        s_end_stopped(self);
    else if (self->error.code && s_has_mirror(self))
        s_next_mirror(self);
    else if (self->error.code)
        s_settle(self);
    else if (self->redo == LADE_REDO_COMPARE)
        s_chore(self, lade_transfer_compare, s_compared);
    else
        s_begin_anew(self);
}

static bool
s_has_all(const lade_transfer_t *self)
{
    int64_t total = self->journal.total, last = self->last ? (int64_t)self->last->len : 0;
    return total >= 0 && !self->parts && self->journal.name && self->written.bytes + last >= total;
}

// Kept bytes of a large file take a while to be read again.
static void
s_maybe_say_verifying(lade_transfer_t *self)
{
    if (self->verifying || !s_has_all(self) ||
        self->journal.total - lade_digest_bytes(self->digest) < S_VERIFY_BYTES)
        return;
    self->verifying = true;
    s_phase(self, "verifying", NULL);
}

static void
s_go_on(lade_transfer_t *self)
{
    if (!s_has_all(self)) {
        s_ask(self);
        if (lade_blocks_full(self->engine->blocks))
            s_spill(self);
    }
    s_hash_more(self);
    s_maybe_checkpoint(self);
    s_maybe_say_verifying(self);
    int64_t last = self->last ? (int64_t)self->last->len : 0;
    if (!s_has_all(self) || !s_is_idle(self) ||
        lade_digest_bytes(self->digest) + last < self->journal.total)
        return;
    s_tell(self, true);
    self->state = LADE_TRANSFER_FINISHING;
    s_chore(self, lade_transfer_finish, s_finished);
}

// What is kept when somebody stops is all that the servers have sent already: it is waited for a moment.
static bool
s_is_draining(const lade_transfer_t *self)
{
    return self->parts && !self->error.code && !self->redo &&
           atomic_load(&self->stop) != LADE_ENGINE_CANCEL &&
           self->engine->now_ms - self->stop_ms < S_DRAIN_MS;
}

void
lade_flow_advance(lade_transfer_t *self)
{
    if (self->busy || self->state != LADE_TRANSFER_FETCHING)
        return;
    bool cancelled = atomic_load(&self->stop) == LADE_ENGINE_CANCEL;
    if (s_is_stopped(self) || self->error.code || self->redo) {
        if (s_is_draining(self))
            return;
        s_drop_parts(self, !cancelled && !self->redo);
        if (s_is_idle(self))
            s_interrupted(self);
        return;
    }
    s_go_on(self);
    if (self->error.code) // a request could not be made
        lade_flow_advance(self);
}

// ---------------------------------------------------------------------------------------------------
// The beginning, stops, terms, time

static void
s_opened(void *arg)
{
    lade_transfer_t *self = arg;
    self->busy = false;
    if (self->error_of_chore.code)
        self->error = self->error_of_chore;
    if (self->found && !s_is_stopped(self) && !self->error.code) {
        s_end(self);
        return;
    }
    self->state = LADE_TRANSFER_FETCHING;
    lade_flow_advance(self);
}

void
lade_flow_begin(lade_engine_t *self, lade_transfer_t *transfer)
{
    transfer->engine = self;
    transfer->next = self->transfers;
    self->transfers = transfer;
    s_count(self, 0, 1, 0);
    if (lade_transfer_check(transfer, &transfer->error)) {
        s_end(transfer);
        return;
    }
    transfer->state = LADE_TRANSFER_OPENING;
    s_chore(transfer, lade_transfer_open, s_opened);
}

void
lade_flow_stop(lade_transfer_t *self, lade_engine_stop_t why)
{
    static const int weight[] = {[LADE_ENGINE_GO] = 0,
                                 [LADE_ENGINE_PAUSE] = 1,
                                 [LADE_ENGINE_CANCEL] = 2,
                                 [LADE_ENGINE_LEAVE] = 3};
    if (!s_is_stopped(self))
        self->stop_ms = self->engine->now_ms;
    if (weight[why] > weight[atomic_load(&self->stop)])
        atomic_store(&self->stop, (int)why);
    lade_flow_advance(self);
}

// Takes back the requests that have most left to do, until no more than so many are out.
static void
s_shrink(lade_transfer_t *self, size_t connections)
{
    while (self->part_count > connections) {
        lade_part_t *most = self->parts;
        for (lade_part_t *part = self->parts; part; part = part->next)
            if (part->to - part->at > most->to - most->at)
                most = part;
        lade_part_drop(most, true);
    }
}

void
lade_flow_set_terms(lade_transfer_t *self, int64_t connections, int64_t bytes_per_s, double hold_s)
{
    bool fewer =
        connections > 0 && (self->farm_connections == 0 || connections < self->farm_connections);
    self->farm_connections = connections;
    self->farm_rate = bytes_per_s;
    // Terms without a hold end one: an operator opened the gate.
    self->hold_until_ms = hold_s > 0 ? self->engine->now_ms + (int64_t)(hold_s * 1000) : 0;
    if (fewer) {
        s_shrink(self, (size_t)connections);
        lade_part_close_idle(self->engine, *self->answer_host ? self->answer_host : self->host);
        if (self->engine->ops.confirm)
            self->engine->ops.confirm(self->arg, connections);
    }
    lade_flow_advance(self);
}

void
lade_flow_tick(lade_transfer_t *self)
{
    if (self->state != LADE_TRANSFER_FETCHING)
        return;
    if (self->engine->now_ms - self->told_ms >= S_FLUSH_MS)
        for (lade_part_t *part = self->parts; part; part = part->next)
            lade_part_flush(part);
    s_tune(self);
    lade_flow_advance(self);
}
