// Devices: opening, limits, filling; and the words about those that are missing or lost.
#include "workers/gpu/vram.h"

#include "common/log.h"
#include "common/wire.h"
#include "workers/gpu/stream.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    S_PROBES = 16,
    S_ASK_MS = 5000, // between two questions after a device that is lost
};

struct lade_vram_device {
    const lade_backend_t *backend;
    size_t index;
    char name[LADE_WANT_MAX_DEVICE];
    lade_device_info_t info;
    size_t limit, working;
    pthread_mutex_t lock; // of opening
    void *opened;
    atomic_bool lost_said, back;
    pthread_mutex_t asking; // whoever has it asks whether the device is back
    int64_t asked_ms;       // under it; 0: never
};

struct lade_vram {
    const lade_backend_t *backend;
    lade_vram_device_t *devices;
    size_t count;
    lade_vram_probe_t *probe;
    char why[sizeof((lade_error_t *)0)->message];
};

// ---------------------------------------------------------------------------------------------------
// Devices

// A limit that leaves the working memory free.
static size_t
s_limit(size_t limit, size_t working, uint64_t total)
{
    size_t whole = limit && limit < total ? limit : (size_t)total;
    return whole > working ? whole - working : 0;
}

static void
s_add_devices(lade_vram_t *self, size_t limit, size_t working)
{
    lade_error_t error = {0};
    size_t count = self->backend->count(&error);
    self->devices = calloc(count + 1, sizeof *self->devices);
    if (!self->devices)
        abort();
    for (size_t i = 0; i < count; i++) {
        lade_vram_device_t *device = &self->devices[self->count];
        if (self->backend->describe(i, &device->info, &error)) {
            lade_log(LADE_LOG_WARNING, "vram", "%s:%zu is not used: %s", self->backend->name, i,
                     error.message);
            continue;
        }
        device->backend = self->backend;
        device->index = i;
        device->working = working;
        device->limit = s_limit(limit, working, device->info.total);
        snprintf(device->name, sizeof device->name, "%s:%zu", self->backend->name, i);
        pthread_mutex_init(&device->lock, NULL);
        pthread_mutex_init(&device->asking, NULL);
        self->count++;
        lade_log(LADE_LOG_INFO, "vram", "%s: %s, %llu bytes, %zu for models", device->name,
                 device->info.name, (unsigned long long)device->info.total, device->limit);
    }
    if (!self->count)
        snprintf(self->why, sizeof self->why, "%s",
                 error.code ? error.message : "there is no device");
}

lade_vram_t *
lade_vram_new_of(const lade_backend_t *backend, size_t limit, size_t working)
{
    lade_vram_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->backend = backend;
    s_add_devices(self, limit, working);
    return self;
}

lade_vram_t *
lade_vram_new(size_t limit, size_t working)
{
    lade_error_t error = {0};
    const lade_backend_t *backend;
    lade_vram_t *self = NULL;
    if (!lade_backend_find("cuda", &backend, &error))
        self = lade_vram_new_of(backend, limit, working);
    else {
        self = calloc(1, sizeof *self);
        if (!self)
            abort();
        snprintf(self->why, sizeof self->why, "%s", error.message);
    }
    if (!self->count)
        lade_log(error.code == LADE_CONFIG_ERROR ? LADE_LOG_WARNING : LADE_LOG_INFO, "vram",
                 "no CUDA device, models are loaded into host memory only: %s", self->why);
    return self;
}

void
lade_vram_destroy(lade_vram_t **self_p)
{
    lade_vram_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++) {
        self->devices[i].backend->close(&self->devices[i].opened);
        pthread_mutex_destroy(&self->devices[i].lock);
        pthread_mutex_destroy(&self->devices[i].asking);
    }
    free(self->devices);
    free(self);
    *self_p = NULL;
}

size_t
lade_vram_count(const lade_vram_t *self)
{
    return self->count;
}

lade_vram_device_t *
lade_vram_get(lade_vram_t *self, size_t index)
{
    return &self->devices[index];
}

static lade_code_t
s_open(lade_vram_device_t *device, lade_error_t *error)
{
    lade_backend_options_t options = {0};
    pthread_mutex_lock(&device->lock);
    lade_code_t code = device->opened
                           ? LADE_OK
                           : device->backend->open(device->index, &options, &device->opened, error);
    pthread_mutex_unlock(&device->lock);
    return code;
}

void
lade_vram_set_probe(lade_vram_t *self, lade_vram_probe_t *probe)
{
    self->probe = probe;
}

bool
lade_vram_is_back(const lade_vram_t *self)
{
    size_t at = 0;
    while (at < self->count && !atomic_load(&self->devices[at].back))
        at++;
    return at < self->count;
}

// Asks whether a lost device is back, if nobody is asking and nobody has for a while.
static void
s_ask(const lade_vram_t *self, lade_vram_device_t *device)
{
    char why[200] = "";
    if (!self->probe || atomic_load(&device->back) || pthread_mutex_trylock(&device->asking))
        return;
    if (!device->asked_ms || lade_mono_ms() - device->asked_ms >= S_ASK_MS) {
        bool back = self->probe(device->name, why, sizeof why);
        device->asked_ms = lade_mono_ms();
        atomic_store(&device->back, back);
        if (back)
            lade_log(LADE_LOG_INFO, "vram", "%s is back", device->name);
        else
            lade_log(LADE_LOG_INFO, "vram", "%s is not back: %s", device->name, why);
    }
    pthread_mutex_unlock(&device->asking);
}

static lade_code_t
s_refuse_lost(const lade_vram_t *self, lade_vram_device_t *device, lade_error_t *error)
{
    s_ask(self, device);
    if (atomic_load(&device->back))
        return lade_error_set(error, LADE_IO_ERROR,
                              "%s was lost and is back: the load worker starts anew with it once "
                              "nobody holds what would go with that; ask again in a moment",
                              device->name);
    return lade_error_set(error, LADE_IO_ERROR,
                          "%s is lost; load into host memory, or ask again when it is back: %s",
                          device->name,
                          self->probe ? "the load worker then sees to it"
                                      : "the load worker is to be restarted then");
}

lade_code_t
lade_vram_find(lade_vram_t *self, const char *name, lade_vram_device_t **device_p,
               lade_error_t *error)
{
    for (size_t i = 0; i < self->count; i++) {
        lade_vram_device_t *device = &self->devices[i];
        if (strcmp(device->name, name) != 0)
            continue;
        lade_code_t code = s_open(device, error);
        if (!code && lade_vram_lost(device))
            code = s_refuse_lost(self, device, error);
        *device_p = device;
        return code;
    }
    if (self->count)
        return lade_error_set(error, LADE_NO_VRAM,
                              "this load worker has no %s: its devices are %s to %s", name,
                              self->devices[0].name, self->devices[self->count - 1].name);
    return lade_error_set(error, LADE_NO_VRAM, "this load worker has no %s: %.300s", name,
                          self->why);
}

const char *
lade_vram_name(const lade_vram_device_t *device)
{
    return device->name;
}

size_t
lade_vram_limit(const lade_vram_device_t *device)
{
    return device->limit;
}

const char *
lade_vram_why(const lade_vram_t *self)
{
    return self->count ? "" : self->why;
}

bool
lade_vram_lost(const lade_vram_device_t *device)
{
    lade_backend_stats_t stats = {0};
    if (device->opened)
        device->backend->stats(device->opened, &stats);
    if (stats.lost && !atomic_exchange(&((lade_vram_device_t *)device)->lost_said, true))
        lade_log(LADE_LOG_ERROR, "vram",
                 "%s is lost: what it held is loaded again elsewhere, host loads go on",
                 device->name);
    return stats.lost;
}

void
lade_vram_stats(lade_vram_device_t *device, json_t *stats)
{
    lade_backend_stats_t now = {.total = device->info.total};
    if (device->opened)
        device->backend->stats(device->opened, &now);
    json_object_set_new(stats, "name", json_string(device->name));
    json_object_set_new(stats, "model", json_string(device->info.name));
    json_object_set_new(stats, "total_bytes", json_integer((json_int_t)now.total));
    json_object_set_new(stats, "free_bytes",
                        device->opened ? json_integer((json_int_t)now.free) : json_null());
    json_object_set_new(stats, "ring_bytes", json_integer((json_int_t)now.ring));
    json_object_set_new(stats, "copied_bytes", json_integer((json_int_t)now.copied));
    json_object_set_new(stats, "lost", json_boolean(now.lost));
}

// ---------------------------------------------------------------------------------------------------
// Blocks

lade_code_t
lade_vram_allocate(lade_vram_device_t *device, size_t bytes, lade_block_t *block,
                   lade_error_t *error)
{
    lade_backend_stats_t stats;
    *block = (lade_block_t){0};
    device->backend->stats(device->opened, &stats);
    if (!stats.lost && stats.free < bytes + device->working)
        return lade_error_set(error, LADE_NO_VRAM,
                              "the model takes %zu bytes of VRAM; %s has %llu of its %llu free, of "
                              "which load.working_mb keeps %zu",
                              bytes, device->name, (unsigned long long)stats.free,
                              (unsigned long long)stats.total, device->working);
    return device->backend->allocate(device->opened, bytes, block, error);
}

void
lade_vram_free(lade_vram_device_t *device, lade_block_t *block)
{
    device->backend->free(device->opened, block);
}

lade_code_t
lade_vram_share(lade_vram_device_t *device, const lade_block_t *block, lade_share_t *share,
                lade_error_t *error)
{
    return device->backend->share(device->opened, block, share, error);
}

// ---------------------------------------------------------------------------------------------------
// Filling

static bool
s_is_float(lade_dtype_t dtype)
{
    return dtype == LADE_DTYPE_F32 || dtype == LADE_DTYPE_F16 || dtype == LADE_DTYPE_BF16;
}

bool
lade_vram_can_read(const lade_layout_t *layout)
{
    for (size_t i = 0; i < layout->turn_count; i++) {
        const lade_transform_t *how = &layout->turns[i].how;
        bool simple = lade_transform_is_plain(how) ||
                      (!how->strides && s_is_float(how->from) && s_is_float(how->to) &&
                       lade_transform_unit(how) <= LADE_STAGE_BYTES / 2);
        if (!simple)
            return false;
    }
    return true;
}

static lade_run_t
s_run_of_turn(const lade_turn_t *turn)
{
    const lade_transform_t *how = &turn->how;
    lade_run_t run = {.fd = turn->fd,
                      .name = turn->name,
                      .from = turn->from,
                      .size = how->in_bytes,
                      .to = turn->to};
    if (lade_transform_is_plain(how))
        return run;
    run.in = how->from;
    run.out = how->to;
    run.channels_last = how->channels_last;
    for (size_t d = 0; run.channels_last && d < 4; d++)
        run.shape[d] = how->shape[d];
    return run;
}

static lade_run_t *
s_runs(const lade_layout_t *layout, size_t *count_p)
{
    size_t count = 0;
    lade_run_t *runs = calloc(layout->count + layout->turn_count + 1, sizeof *runs);
    for (size_t i = 0; runs && i < layout->count; i++)
        if (layout->parts[i].len)
            runs[count++] = (lade_run_t){.fd = layout->parts[i].fd,
                                         .name = layout->parts[i].name,
                                         .from = layout->parts[i].from,
                                         .size = layout->parts[i].len,
                                         .to = layout->places[i]};
    for (size_t i = 0; runs && i < layout->turn_count; i++)
        runs[count++] = s_run_of_turn(&layout->turns[i]);
    *count_p = count;
    return runs;
}

// True if little of it is in the page cache, so that reading past it loses nothing. A page that
// would have to be read is not waited for.
static bool
s_is_cold(const lade_run_t *run)
{
    size_t there = 0;
    for (uint64_t i = 0; i < S_PROBES; i++) {
        char byte;
        struct iovec part = {&byte, 1};
        there += preadv2(run->fd, &part, 1, (off_t)(run->from + run->size / S_PROBES * i),
                         RWF_NOWAIT) == 1;
    }
    return there < S_PROBES / 2;
}

// Convolves a weight both ways, filter by filter as many as a stage holds.
static lade_code_t
s_check_run(lade_vram_device_t *device, const lade_block_t *block, const lade_run_t *run,
            lade_error_t *error)
{
    uint8_t *source = malloc(run->size ? run->size : 1);
    if (!source)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to check a weight");
    lade_code_t code = LADE_OK;
    for (uint64_t done = 0; !code && done < run->size;) {
        ssize_t got = pread(run->fd, source + done, run->size - done, (off_t)(run->from + done));
        if (got <= 0)
            code = lade_error_set(error, LADE_CORRUPT, "%s changed while it was read", run->name);
        else
            done += (uint64_t)got;
    }
    uint64_t filter = run->shape[0] ? run->size / run->shape[0] : 0;
    uint64_t each = filter ? LADE_STAGE_BYTES / filter : 1;
    for (uint64_t n = 0; !code && n < run->shape[0]; n += each) {
        uint64_t count = run->shape[0] - n < each ? run->shape[0] - n : each;
        lade_run_t before = *run;
        before.size = n * filter;
        lade_move_t move = {.to = run->to + lade_run_out(&before),
                            .size = count * filter,
                            .in = run->in,
                            .out = run->out,
                            .channels_last = true,
                            .shape = {(uint32_t)count, (uint32_t)run->shape[1],
                                      (uint32_t)run->shape[2], (uint32_t)run->shape[3]}};
        code = device->backend->check(device->opened, block, &move, source + n * filter, error);
    }
    free(source);
    return code;
}

// A check that cannot be made is said, and no reason not to load.
static lade_code_t
s_check(lade_vram_device_t *device, const lade_block_t *block, const lade_run_t *runs, size_t count,
        lade_error_t *error)
{
    for (size_t i = 0; i < count; i++) {
        if (!runs[i].channels_last)
            continue;
        lade_code_t code = s_check_run(device, block, &runs[i], error);
        if (code == LADE_NOT_IMPLEMENTED) {
            lade_log(LADE_LOG_WARNING, "vram", "weights are not checked: %s", error->message);
            *error = (lade_error_t){0};
            return LADE_OK;
        }
        if (code)
            return lade_error_wrap(error, "a weight with channels last in %s", runs[i].name);
    }
    return LADE_OK;
}

lade_code_t
lade_vram_read(lade_vram_device_t *device, const lade_block_t *block, const lade_layout_t *layout,
               size_t threads, bool check, bool (*step)(void *arg, uint64_t bytes), void *arg,
               lade_error_t *error)
{
    size_t count = 0;
    lade_run_t *runs = s_runs(layout, &count);
    if (!runs)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a plan");
    bool direct = count && s_is_cold(&runs[0]);
    lade_code_t code = lade_stream_fill(device->backend, device->opened, block, runs, count,
                                        threads, direct, step, arg, error);
    if (!code && check)
        code = s_check(device, block, runs, count, error);
    free(runs);
    return code;
}

lade_code_t
lade_vram_copy(lade_vram_device_t *device, const lade_block_t *block, const void *bytes,
               size_t size, size_t threads, bool (*step)(void *arg, uint64_t bytes), void *arg,
               lade_error_t *error)
{
    lade_run_t run = {.fd = -1, .bytes = bytes, .name = "host memory", .size = size};
    return lade_stream_fill(device->backend, device->opened, block, &run, 1, threads, false, step,
                            arg, error);
}

lade_code_t
lade_vram_save(lade_vram_device_t *device, const lade_block_t *block, void *bytes, size_t size,
               lade_error_t *error)
{
    return device->backend->read(device->opened, block, 0, bytes, size, error);
}
