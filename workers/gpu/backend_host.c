// The host's memory as a backend: blocks are regions of a pool, the ring is plain memory, and what
// is submitted is there when submit returns.
#include "workers/gpu/backend.h"
#include "workers/gpu/memory.h"
#include "workers/gpu/transform.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { S_SLOTS = 64 };

typedef struct {
    lade_memory_t *memory;
    uint64_t limit;
    pthread_mutex_t lock; // of what follows
    pthread_cond_t back;  // a stage is
    uint8_t *free_stages[S_SLOTS];
    size_t free_count, made, slots;
    uint64_t used, blocks, copied;
} s_host_t;

// What a move makes of its bytes, as what is done to a tensor.
static lade_code_t
s_move(uint8_t *to, const uint8_t *from, const lade_move_t *move, lade_error_t *error)
{
    if (move->in == move->out && !move->channels_last) { // of any bytes, not of whole elements
        memcpy(to, from, move->size);
        return LADE_OK;
    }
    uint64_t elements = move->size / lade_dtype_size(move->in);
    lade_transform_t how = {.from = move->in,
                            .to = move->out,
                            .in_bytes = move->size,
                            .out_bytes = elements * lade_dtype_size(move->out),
                            .elements = elements,
                            .rank = 4,
                            .channels_last = move->channels_last};
    for (size_t d = 0; d < 4; d++)
        how.shape[d] = move->shape[d];
    return lade_transform_run(&how, from, move->size, to, error);
}

// ---------------------------------------------------------------------------------------------------
// Devices

static size_t
s_count(lade_error_t *error)
{
    (void)error;
    return 1;
}

static lade_code_t
s_describe(size_t index, lade_device_info_t *info, lade_error_t *error)
{
    if (index)
        return lade_error_set(error, LADE_NOT_FOUND, "there is one host");
    *info = (lade_device_info_t){.name = "host", .total = lade_memory_machine_bytes()};
    info->free = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return LADE_OK;
}

static lade_code_t
s_open(size_t index, const lade_backend_options_t *options, void **self_p, lade_error_t *error)
{
    if (index)
        return lade_error_set(error, LADE_NOT_FOUND, "there is one host");
    s_host_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a backend");
    self->limit = options->limit ? options->limit : lade_memory_machine_bytes() / 2;
    self->memory = lade_memory_new(self->limit, 0);
    size_t slots = options->ring ? options->ring / LADE_STAGE_BYTES : 8;
    self->slots = slots < 1 ? 1 : slots < S_SLOTS ? slots : S_SLOTS;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->back, NULL);
    *self_p = self;
    return LADE_OK;
}

static void
s_close(void **self_p)
{
    s_host_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->free_count; i++)
        free(self->free_stages[i]);
    lade_memory_destroy(&self->memory);
    pthread_cond_destroy(&self->back);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Blocks

static lade_code_t
s_allocate(void *arg, size_t bytes, lade_block_t *block, lade_error_t *error)
{
    s_host_t *self = arg;
    lade_region_t *region = NULL;
    *block = (lade_block_t){0};
    pthread_mutex_lock(&self->lock);
    uint64_t left = self->limit - self->used;
    bool fits = bytes <= left;
    self->used += fits ? bytes : 0;
    pthread_mutex_unlock(&self->lock);
    if (!fits)
        return lade_error_set(error, LADE_NO_MEMORY, "%zu bytes are asked for and %llu are left",
                              bytes, (unsigned long long)left);
    lade_code_t code = lade_memory_get(self->memory, bytes, &region, error);
    if (!code && (code = lade_memory_touch(region, bytes, error)))
        lade_memory_put(self->memory, &region);
    pthread_mutex_lock(&self->lock);
    if (code)
        self->used -= bytes;
    else
        self->blocks++;
    pthread_mutex_unlock(&self->lock);
    if (!code)
        *block = (lade_block_t){.own = region,
                                .bytes = bytes,
                                .address = (uint64_t)(uintptr_t)region->bytes,
                                .host = region->bytes};
    return code;
}

static void
s_free(void *arg, lade_block_t *block)
{
    s_host_t *self = arg;
    lade_region_t *region = block->own;
    if (!region)
        return;
    pthread_mutex_lock(&self->lock);
    self->used -= block->bytes;
    self->blocks--;
    pthread_mutex_unlock(&self->lock);
    lade_memory_put(self->memory, &region);
    *block = (lade_block_t){0};
}

static lade_code_t
s_read(void *self, const lade_block_t *block, uint64_t from, void *to, size_t size,
       lade_error_t *error)
{
    (void)self;
    if (size > block->bytes || from > block->bytes - size)
        return lade_error_set(error, LADE_VALUE_ERROR, "a read beyond the end of a block");
    memcpy(to, block->host + from, size);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Stages

static lade_code_t
s_stage(void *arg, void **stage_p, uint8_t **bytes_p, lade_error_t *error)
{
    s_host_t *self = arg;
    uint8_t *stage = NULL;
    pthread_mutex_lock(&self->lock);
    while (!self->free_count && self->made == self->slots)
        pthread_cond_wait(&self->back, &self->lock);
    if (self->free_count)
        stage = self->free_stages[--self->free_count];
    else if ((stage = aligned_alloc(4096, LADE_STAGE_BYTES)))
        self->made++;
    pthread_mutex_unlock(&self->lock);
    *stage_p = *bytes_p = stage;
    return stage ? LADE_OK : lade_error_set(error, LADE_NO_MEMORY, "no memory for a stage");
}

static void
s_drop(void *arg, void *stage)
{
    s_host_t *self = arg;
    pthread_mutex_lock(&self->lock);
    self->free_stages[self->free_count++] = stage;
    pthread_cond_signal(&self->back);
    pthread_mutex_unlock(&self->lock);
}

static lade_code_t
s_submit(void *arg, void *stage, const lade_block_t *block, const lade_move_t *moves, size_t count,
         lade_error_t *error)
{
    s_host_t *self = arg;
    lade_code_t code = LADE_OK;
    uint64_t copied = 0;
    for (size_t i = 0; !code && i < count; i++) {
        const lade_move_t *move = &moves[i];
        code = lade_move_check(move, block->bytes, error);
        if (!code)
            code = s_move(block->host + move->to, (const uint8_t *)stage + move->from, move, error);
        copied += move->size;
    }
    s_drop(self, stage);
    pthread_mutex_lock(&self->lock);
    self->copied += copied;
    pthread_mutex_unlock(&self->lock);
    return code;
}

static lade_code_t
s_finish(void *self, const lade_block_t *block, lade_error_t *error)
{
    (void)self, (void)block, (void)error;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// The check: a convolution of one input whose values follow from their places

static float
s_input(uint64_t channel, uint64_t at)
{
    return (float)((channel * 7 + at * 3) % 11) * 0.25f - 1.25f;
}

// With no padding and an input of the filter's size each n gives one number. values: room for those
// of a filter.
static double
s_convolve(const uint8_t *weight, lade_dtype_t dtype, const lade_move_t *move, uint64_t n,
           bool channels_last, float *values)
{
    uint64_t area = (uint64_t)move->shape[2] * move->shape[3], channels = move->shape[1];
    double sum = 0;
    lade_transform_cast(dtype, weight + n * area * channels * lade_dtype_size(dtype),
                        LADE_DTYPE_F32, values, area * channels);
    for (uint64_t c = 0; c < channels; c++)
        for (uint64_t at = 0; at < area; at++) {
            uint64_t place = channels_last ? at * channels + c : c * area + at;
            sum += (double)values[place] * (double)s_input(c, at);
        }
    return sum;
}

static lade_code_t
s_check(void *self, const lade_block_t *block, const lade_move_t *move, const void *source,
        lade_error_t *error)
{
    (void)self;
    lade_code_t code = lade_move_check(move, block->bytes, error);
    if (code)
        return code;
    uint64_t terms = (uint64_t)move->shape[1] * move->shape[2] * move->shape[3];
    double step = move->out == LADE_DTYPE_F32 || move->out == move->in ? 1e-6
                  : move->out == LADE_DTYPE_F16                        ? 1e-3
                                                                       : 8e-3;
    float *values = malloc(terms * sizeof *values + 1);
    if (!values)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to check a weight");
    for (uint64_t n = 0; !code && n < move->shape[0]; n++) {
        double is = s_convolve(block->host + move->to, move->out, move, n, true, values);
        double was = s_convolve(source, move->in, move, n, false, values);
        if (!(fabs(is - was) <= step * (fabs(was) + sqrt((double)terms))))
            code =
                lade_error_set(error, LADE_CORRUPT, "filter %llu convolves to %g, as stored to %g",
                               (unsigned long long)n, is, was);
    }
    free(values);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Sharing

static lade_code_t
s_share(void *self, const lade_block_t *block, lade_share_t *share, lade_error_t *error)
{
    (void)self, (void)error;
    const lade_region_t *region = block->own;
    *share = (lade_share_t){.kind = LADE_SHARE_MEMFD, .fd = region->fd, .bytes = block->bytes};
    strcpy(share->plugin, "host");
    return LADE_OK;
}

static lade_code_t
s_import(const lade_share_t *share, lade_import_t *import, lade_error_t *error)
{
    *import = (lade_import_t){0};
    if (share->kind != LADE_SHARE_MEMFD)
        return lade_error_set(error, LADE_VALUE_ERROR, "what is shared is no memory of the host");
    void *bytes = mmap(NULL, share->bytes, PROT_READ, MAP_SHARED, share->fd, 0);
    if (bytes == MAP_FAILED)
        return lade_error_errno(error, errno, "cannot map %llu bytes",
                                (unsigned long long)share->bytes);
    *import = (lade_import_t){
        .own = bytes, .bytes = share->bytes, .address = (uint64_t)(uintptr_t)bytes, .device = -1};
    return LADE_OK;
}

static lade_code_t
s_peek(const lade_import_t *import, uint64_t from, void *to, size_t size, lade_error_t *error)
{
    if (size > import->bytes || from > import->bytes - size)
        return lade_error_set(error, LADE_VALUE_ERROR, "a read beyond the end of what is shared");
    memcpy(to, (const uint8_t *)import->own + from, size);
    return LADE_OK;
}

static void
s_unimport(lade_import_t *import)
{
    if (import->own)
        munmap(import->own, import->bytes);
    *import = (lade_import_t){0};
}

static void
s_stats(void *arg, lade_backend_stats_t *stats)
{
    s_host_t *self = arg;
    lade_device_info_t info;
    s_describe(0, &info, NULL);
    pthread_mutex_lock(&self->lock);
    *stats = (lade_backend_stats_t){.total = info.total,
                                    .free = info.free,
                                    .used = self->used,
                                    .blocks = self->blocks,
                                    .ring = self->made * LADE_STAGE_BYTES,
                                    .copied = self->copied};
    pthread_mutex_unlock(&self->lock);
}

static const lade_importer_t s_importer = {
    .version = LADE_PLUGIN_VERSION, .import = s_import, .peek = s_peek, .unimport = s_unimport};

const lade_backend_t lade_backend_host = {
    .version = LADE_PLUGIN_VERSION,
    .name = "host",
    .count = s_count,
    .describe = s_describe,
    .open = s_open,
    .close = s_close,
    .allocate = s_allocate,
    .free = s_free,
    .stage = s_stage,
    .drop = s_drop,
    .submit = s_submit,
    .finish = s_finish,
    .read = s_read,
    .check = s_check,
    .share = s_share,
    .importer = &s_importer,
    .stats = s_stats,
};
