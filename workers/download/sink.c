// Blocks on their way: to the disk and, in the order of the file, to the digest; and the
// checkpoints.
#include "workers/download/engine_private.h"

#include <czmq.h>

enum {
    S_EARN_BYTES = 8 << 20, // for one more request repeated
    S_GAP_MS = 250, // that the digest waits for the bytes before those in memory, until memory is
                    // given back
    S_HASH_BYTES = 16 << 20, // read from the disk by one chore
    S_SMALL_SHARE = 4, // of checkpoint_mb: a checkpoint is begun at a quarter of what may be lost
};

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

void
lade_sink_checkpoint(lade_transfer_t *self)
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
    self->hashed_ms = self->engine->now_ms;
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

void
lade_sink_hash(lade_transfer_t *self)
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
        lade_flow_tell(self, false);
    }
    s_release(self, block);
    lade_sink_checkpoint(self);
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
    lade_sink_hash(self);
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
lade_sink_block(lade_transfer_t *self, lade_block_t *block)
{
    block->owner = self;
    if (s_is_last(self, block))
        self->last = block;
    else
        s_write(self, block);
}

void
lade_sink_written(lade_transfer_t *self, int64_t from, int64_t to)
{
    lade_ranges_add(&self->written, from, to);
    lade_flow_tell(self, false);
    lade_sink_checkpoint(self);
}

void
lade_sink_came(lade_transfer_t *self, size_t bytes)
{
    lade_engine_count(self->engine, (int64_t)bytes, 0, 0);
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
        lade_flow_phase(self, "resumed", NULL);
    }
}

bool
lade_sink_may_take(const lade_transfer_t *self)
{
    const lade_bucket_t *bucket = &self->engine->bucket;
    return !self->reserving && (!bucket->bytes_per_s || bucket->tokens > 0) &&
           (!self->farm_rate || self->tokens > 0) &&
           self->written.bytes - self->durable_bytes < s_interval(self);
}

// Gives the memory of blocks back that are on the disk and wait for bytes before them.
void
lade_sink_spill(lade_transfer_t *self)
{
    // While it is hashed the digest is the crew's.
    bool gap = !self->hashing && self->held && self->engine->now_ms - self->hashed_ms > S_GAP_MS &&
               self->held->at > lade_digest_bytes(self->digest);
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
void
lade_sink_drop(lade_transfer_t *self)
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
