// For tests: devices that are host memory with a small capacity, which counts what is on them. In
// unit tests as a table, for the whole system as a plug-in (tests/plugins/fake_cuda.c).
//
//   LADE_FAKE_DEVICES   how many (2)
//   LADE_FAKE_VRAM_MB   of each (16)
//   LADE_FAKE_LOST      while this file is there, devices are lost; one that saw it stays lost
#ifndef LADE_GPU_FAKE_BACKEND_H
#define LADE_GPU_FAKE_BACKEND_H

#include "workers/gpu/backend.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    size_t index;
    void *host;
    uint64_t capacity;
    atomic_bool lost; // for good, as in a process that has seen it fail
} fake_device_t;

// What tests look at and turn.
static atomic_int fake_opened;
static atomic_uint_fast64_t fake_others; // bytes taken by other programs
static atomic_bool fake_is_lost;

static inline uint64_t
fake_number(const char *name, uint64_t preset)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : preset;
}

static inline bool
fake_lost(fake_device_t *self)
{
    const char *file = getenv("LADE_FAKE_LOST");
    if (atomic_load(&fake_is_lost) || (file && *file && !access(file, F_OK)))
        atomic_store(&self->lost, true);
    return atomic_load(&self->lost);
}

static inline lade_code_t
fake_check(fake_device_t *self, lade_error_t *error)
{
    return fake_lost(self) ? lade_error_set(error, LADE_IO_ERROR, "the device fell off the bus")
                           : LADE_OK;
}

static inline size_t
fake_count(lade_error_t *error)
{
    size_t count = fake_number("LADE_FAKE_DEVICES", 2);
    if (!count)
        lade_error_set(error, LADE_NOT_FOUND, "the fake driver sees no device");
    return count;
}

static inline lade_code_t
fake_describe(size_t index, lade_device_info_t *info, lade_error_t *error)
{
    if (index >= fake_count(error))
        return lade_error_set(error, LADE_NOT_FOUND, "there is no cuda:%zu", index);
    *info = (lade_device_info_t){.total = fake_number("LADE_FAKE_VRAM_MB", 16) << 20};
    snprintf(info->name, sizeof info->name, "Fake %zu", index);
    info->uuid[0] = (uint8_t)(index + 1);
    return LADE_OK;
}

static inline lade_code_t
fake_open(size_t index, const lade_backend_options_t *options, void **self_p, lade_error_t *error)
{
    lade_device_info_t info;
    lade_code_t code = fake_describe(index, &info, error);
    if (code)
        return code;
    fake_device_t *self = calloc(1, sizeof *self);
    lade_backend_options_t whole = {.ring = options->ring};
    if (!self || lade_backend_host.open(0, &whole, &self->host, error))
        abort();
    self->index = index;
    self->capacity = options->limit && options->limit < info.total ? options->limit : info.total;
    *self_p = self;
    atomic_fetch_add(&fake_opened, 1);
    return LADE_OK;
}

static inline void
fake_close(void **self_p)
{
    fake_device_t *self = *self_p;
    if (!self)
        return;
    lade_backend_host.close(&self->host);
    free(self);
    *self_p = NULL;
    atomic_fetch_sub(&fake_opened, 1);
}

static inline void
fake_stats(void *arg, lade_backend_stats_t *stats)
{
    fake_device_t *self = arg;
    lade_backend_host.stats(self->host, stats);
    uint64_t taken = stats->used + atomic_load(&fake_others);
    stats->total = self->capacity;
    stats->free = taken < self->capacity ? self->capacity - taken : 0;
    stats->lost = fake_lost(self);
}

static inline lade_code_t
fake_allocate(void *arg, size_t bytes, lade_block_t *block, lade_error_t *error)
{
    fake_device_t *self = arg;
    lade_backend_stats_t stats;
    fake_stats(self, &stats);
    *block = (lade_block_t){0};
    lade_code_t code = fake_check(arg, error);
    if (code)
        return code;
    if (bytes > stats.free)
        return lade_error_set(error, LADE_NO_VRAM, "%zu bytes are asked for and %llu are free",
                              bytes, (unsigned long long)stats.free);
    code = lade_backend_host.allocate(self->host, bytes, block, error);
    block->host = NULL; // as a device's is not
    return code;
}

static inline lade_block_t
fake_block(const lade_block_t *block)
{
    lade_block_t host = *block;
    host.host = (uint8_t *)(uintptr_t)host.address;
    return host;
}

static inline void
fake_free(void *arg, lade_block_t *block)
{
    lade_backend_host.free(((fake_device_t *)arg)->host, block);
}

static inline lade_code_t
fake_stage(void *arg, void **stage_p, uint8_t **bytes_p, lade_error_t *error)
{
    lade_code_t code = fake_check(arg, error);
    return code ? code
                : lade_backend_host.stage(((fake_device_t *)arg)->host, stage_p, bytes_p, error);
}

static inline void
fake_drop(void *arg, void *stage)
{
    lade_backend_host.drop(((fake_device_t *)arg)->host, stage);
}

static inline lade_code_t
fake_submit(void *arg, void *stage, const lade_block_t *block, const lade_move_t *moves,
            size_t count, lade_error_t *error)
{
    lade_block_t host = fake_block(block);
    return lade_backend_host.submit(((fake_device_t *)arg)->host, stage, &host, moves, count,
                                    error);
}

static inline lade_code_t
fake_finish(void *arg, const lade_block_t *block, lade_error_t *error)
{
    (void)block;
    return fake_check(arg, error);
}

static inline lade_code_t
fake_read(void *arg, const lade_block_t *block, uint64_t from, void *to, size_t size,
          lade_error_t *error)
{
    lade_block_t host = fake_block(block);
    lade_code_t code = fake_check(arg, error);
    return code
               ? code
               : lade_backend_host.read(((fake_device_t *)arg)->host, &host, from, to, size, error);
}

static inline lade_code_t
fake_check_move(void *arg, const lade_block_t *block, const lade_move_t *move, const void *source,
                lade_error_t *error)
{
    lade_block_t host = fake_block(block);
    return lade_backend_host.check(((fake_device_t *)arg)->host, &host, move, source, error);
}

static inline lade_code_t
fake_share(void *arg, const lade_block_t *block, lade_share_t *share, lade_error_t *error)
{
    return lade_backend_host.share(((fake_device_t *)arg)->host, block, share, error);
}

static const lade_backend_t fake_backend = {
    .version = LADE_PLUGIN_VERSION,
    .name = "cuda",
    .count = fake_count,
    .describe = fake_describe,
    .open = fake_open,
    .close = fake_close,
    .allocate = fake_allocate,
    .free = fake_free,
    .stage = fake_stage,
    .drop = fake_drop,
    .submit = fake_submit,
    .finish = fake_finish,
    .read = fake_read,
    .check = fake_check_move,
    .share = fake_share,
    .importer = NULL, // the host's, by its kind of sharing
    .stats = fake_stats,
};

#endif
