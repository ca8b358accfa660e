// The models held: finding, reading once, making room, and who locks what.
//
// One lock guards the table. Nothing that takes time is done under it: headers and weights are
// read, and pages given back, outside. An entry being read stands in the table already, with the
// room it needs taken, so that others wait for it and nobody takes its room.
#include "workers/gpu/cache_private.h"

#include "common/log.h"
#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------
// Leases

// A lease is over: what it held may go.
static void
s_on_ended(void *arg, void *holds)
{
    lade_cache_t *self = arg;
    lade_cache_entry_t *entry = holds;
    assert(entry->locks);
    entry->locks--;
    pthread_cond_broadcast(&self->changed);
}

uint64_t
lade_cache_lease_id(const lade_cache_t *self, const char *lease)
{
    size_t len = strlen(self->name);
    if (strncmp(lease, self->name, len) || lease[len] != '/' || lease[len + 1] < '1' ||
        lease[len + 1] > '9')
        return 0;
    char *end;
    errno = 0;
    uint64_t id = strtoumax(lease + len + 1, &end, 10);
    return *end || errno ? 0 : id;
}

// Renews the lease the request names, or makes one.
static lade_code_t
s_lock(lade_cache_t *self, lade_cache_entry_t *entry, const lade_cache_request_t *request,
       lade_cache_answer_t *answer, lade_error_t *error)
{
    uint64_t id = request->lease ? lade_cache_lease_id(self, request->lease) : 0;
    bool renewed = id && lade_leases_find(self->leases, id) == entry &&
                   lade_leases_renew(self->leases, id, request->ttl_s);
    if (!renewed) {
        lade_code_t code =
            lade_leases_add(self->leases, entry, request->pid, request->ttl_s, &id, error);
        if (code)
            return code;
        entry->locks++;
    }
    snprintf(answer->lease, sizeof answer->lease, "%s/%" PRIu64, self->name, id);
    return LADE_OK;
}

// Answers with an entry that is ready.
static lade_code_t
s_grant(lade_cache_t *self, lade_cache_entry_t *entry, const lade_cache_request_t *request,
        lade_cache_answer_t *answer, lade_error_t *error)
{
    if (entry->unsafe && !request->allow_unsafe)
        return lade_error_set(error, LADE_UNSAFE_FILE,
                              "%s would run code when loaded by others: allow_unsafe with the "
                              "model's key loads its tensors",
                              entry->key);
    entry->used = ++self->uses;
    entry->last_used = lade_now();
    *answer = (lade_cache_answer_t){
        .id = entry->region->generation, .bytes = entry->length, .unsafe = entry->unsafe};
    if (!entry->place->device)
        snprintf(answer->path, sizeof answer->path, "/proc/%d/fd/%d", (int)getpid(),
                 entry->region->fd);
    snprintf(answer->precision, sizeof answer->precision, "%s", entry->precision);
    return request->lock ? s_lock(self, entry, request, answer, error) : LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Reading

bool
lade_cache_on_step(void *arg, uint64_t bytes)
{
    lade_cache_reading_t *reading = arg;
    pthread_mutex_lock(&reading->cache->lock); // those who wait for the entry tell its progress too
    reading->entry->done = bytes;
    uint64_t total = reading->entry->total;
    pthread_mutex_unlock(&reading->cache->lock);
    return !reading->request->step || reading->request->step(reading->request->arg, bytes, total);
}

// Makes room and reads into host memory. The entry is in the table, being read.
static lade_code_t
s_read_host(lade_cache_t *self, lade_cache_entry_t *entry, const lade_cache_request_t *request,
            lade_layout_t *layout, lade_region_t **region_p, lade_error_t *error)
{
    lade_cache_entry_t *evicted = NULL;
    pthread_mutex_lock(&self->lock);
    lade_code_t code =
        lade_cache_reserve(self, entry, layout->head.length, request, &evicted, error);
    entry->total = layout->read_bytes;
    pthread_mutex_unlock(&self->lock);
    lade_cache_release(self, evicted); // first: its pages are what the next line gives out
    if (!code)
        code = lade_memory_get(self->memory, layout->head.length, region_p, error);
    lade_cache_reading_t reading = {self, entry, request};
    if (!code)
        code =
            lade_layout_read(layout, *region_p, self->threads, lade_cache_on_step, &reading, error);
    if (code)
        lade_memory_put(self->memory, region_p);
    return code;
}

static lade_code_t
s_read(lade_cache_t *self, lade_cache_entry_t *entry, const lade_cache_request_t *request,
       lade_layout_t *layout, lade_region_t **region_p, lade_error_t *error)
{
    return (entry->place->device ? lade_cache_read_device : s_read_host)(self, entry, request,
                                                                         layout, region_p, error);
}

// The place a request names, opened if it is a device.
static lade_code_t
s_find_place(lade_cache_t *self, const lade_cache_request_t *request, lade_cache_place_t **place_p,
             lade_error_t *error)
{
    lade_vram_device_t *device = NULL;
    lade_code_t code = LADE_OK;
    if (strncmp(request->want.device, "cuda", 4) == 0)
        code = self->vram ? lade_vram_find(self->vram, request->want.device, &device, error)
                          : lade_error_set(error, LADE_NO_VRAM, "this load worker has no devices");
    for (size_t i = 0; i < self->place_count; i++)
        if (self->places[i].device == device)
            *place_p = &self->places[i];
    return code;
}

// What was read is the model only if the files are still those that were looked at.
static lade_code_t
s_check_unchanged(const lade_cache_entry_t *entry, const lade_files_t *files, lade_error_t *error)
{
    lade_stamps_t stamps = {0};
    lade_code_t code = lade_stamps_take(&stamps, files, error);
    if (!code && !lade_stamps_still(&entry->stamps, &stamps))
        code = lade_error_set(error, LADE_CORRUPT,
                              "a file of the model changed while it was read: load it again");
    lade_stamps_free(&stamps);
    return code;
}

// The files that those asked for name are the entry's as well: as they are opened, not as they are
// by now. Nobody else looks at the stamps of what is being read.
static lade_code_t
s_add_beside(lade_cache_entry_t *entry, const lade_files_t *files, const lade_layout_t *layout,
             lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < layout->count && layout->count > files->count && !code; i++) {
        const char *path = lade_tensors_file(layout->tensors, i);
        size_t at = 0;
        while (at < files->count && strcmp(files->paths[at], path) != 0)
            at++;
        if (at == files->count)
            code = lade_stamps_add(&entry->stamps, layout->parts[i].fd, path, error);
    }
    return code;
}

// Reads what an entry stands for, and answers with it; or takes the entry out again.
static lade_code_t
s_fill(lade_cache_t *self, lade_cache_entry_t *entry, const lade_cache_request_t *request,
       const lade_files_t *files, lade_cache_answer_t *answer, lade_error_t *error)
{
    lade_layout_t layout;
    lade_region_t *region = NULL;
    int64_t began = lade_mono_ms();
    lade_code_t code = lade_layout_open(&layout, request->key, request->submodel, files,
                                        &request->want, request->allow_unsafe, error);
    if (!code)
        code = s_add_beside(entry, files, &layout, error);
    if (!code)
        code = s_read(self, entry, request, &layout, &region, error);
    if (!code && (code = s_check_unchanged(entry, files, error))) {
        if (entry->place->device)
            lade_vram_free(entry->place->device, &entry->block);
        lade_memory_put(self->memory, &region);
    }

    pthread_mutex_lock(&self->lock);
    bool read = !code;
    if (read) {
        entry->region = region;
        entry->length = layout.head.length;
        entry->precision = layout.precision;
        entry->unsafe = layout.unsafe;
        entry->state = LADE_ENTRY_READY;
        self->misses++;
        lade_cache_keep_entry(self, entry);
        lade_cache_note_size(self, entry);
        code = s_grant(self, entry, request, answer, error);
    } else
        lade_cache_entry_unlink(self, entry);
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);

    if (read)
        lade_log(LADE_LOG_INFO, "cache", "%s%s%s: %llu bytes read in %lld ms", request->key,
                 request->submodel ? ":" : "", request->submodel ? request->submodel : "",
                 (unsigned long long)layout.head.length, (long long)(lade_mono_ms() - began));
    else
        lade_cache_entry_destroy(&entry);
    lade_layout_close(&layout);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Loading

// Finds the model ready (then it is answered), waits while another reads it, or leaves a new entry
// in *entry_p for the caller to fill. Takes over stamps in the last case.
static lade_code_t
s_find_or_add(lade_cache_t *self, const lade_cache_request_t *request, lade_cache_place_t *place,
              lade_stamps_t *stamps, lade_cache_entry_t **entry_p, lade_cache_answer_t *answer,
              lade_error_t *error)
{
    *entry_p = NULL;
    for (;;) {
        lade_cache_entry_t *entry = lade_cache_entry_find(self, request);
        if (!entry)
            break;
        if (entry->state == LADE_ENTRY_LOADING) {
            lade_code_t code = lade_cache_wait(self, request, entry->done, entry->total, error);
            if (code)
                return code;
        } else if (!lade_stamps_still(&entry->stamps, stamps))
            entry->stale = true;
        else {
            self->hits++;
            return s_grant(self, entry, request, answer, error);
        }
    }
    *entry_p = lade_cache_entry_new(request, place, stamps);
    lade_cache_entry_add(self, *entry_p);
    return LADE_OK;
}

lade_code_t
lade_cache_load(lade_cache_t *self, const lade_cache_request_t *request,
                lade_cache_answer_t *answer, lade_error_t *error)
{
    lade_error_t spare = {0};
    error = error ? error : &spare;
    lade_files_t files = {0};
    lade_stamps_t stamps = {0};
    lade_cache_entry_t *entry = NULL;
    lade_cache_place_t *place = NULL;
    *answer = (lade_cache_answer_t){0};
    lade_code_t code = s_find_place(self, request, &place, error);
    if (!code)
        code = lade_loaders_files(self->loaders, request->record, request->submodel,
                                  self->models_dir, &files, error);
    if (!code)
        code = lade_stamps_take(&stamps, &files, error);
    if (!code) {
        pthread_mutex_lock(&self->lock);
        code = s_find_or_add(self, request, place, &stamps, &entry, answer, error);
        pthread_mutex_unlock(&self->lock);
    }
    if (entry)
        code = s_fill(self, entry, request, &files, answer, error);
    lade_stamps_free(&stamps);
    lade_files_free(&files);
    return code;
}

bool
lade_cache_unlock(lade_cache_t *self, const char *lease)
{
    uint64_t id = lade_cache_lease_id(self, lease);
    pthread_mutex_lock(&self->lock);
    bool ended = id && lade_leases_end(self->leases, id);
    pthread_mutex_unlock(&self->lock);
    return ended;
}

size_t
lade_cache_unload(lade_cache_t *self, const char *key, const char *submodel)
{
    lade_cache_entry_t *evicted = NULL, *next;
    size_t count = 0;
    pthread_mutex_lock(&self->lock);
    for (lade_cache_entry_t *entry = self->entries; entry; entry = next) {
        next = entry->next;
        bool meant = (!key || !strcmp(entry->key, key)) &&
                     (!submodel || (entry->submodel && !strcmp(entry->submodel, submodel)));
        if (!meant || !lade_cache_entry_can_go(entry))
            continue;
        lade_cache_evict(self, entry, &evicted);
        count++;
    }
    self->cleared = count ? count : self->cleared;
    pthread_mutex_unlock(&self->lock);
    lade_cache_release(self, evicted);
    return count;
}

// ---------------------------------------------------------------------------------------------------
// The cache itself

static void
s_init_lock(lade_cache_t *self)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

// The host and the devices.
static void
s_make_places(lade_cache_t *self, const lade_cache_options_t *options)
{
    size_t devices = options->vram ? lade_vram_count(options->vram) : 0;
    self->vram = options->vram;
    self->places = calloc(devices + 1, sizeof *self->places);
    if (!self->places)
        abort();
    self->places[0] = (lade_cache_place_t){
        .name = "cpu",
        .setting = "load.cache_mb",
        .refusal = LADE_NO_MEMORY,
        .limit = options->limit ? options->limit : lade_memory_machine_bytes() / 2};
    for (size_t i = 0; i < devices; i++) {
        lade_vram_device_t *device = lade_vram_get(self->vram, i);
        self->places[i + 1] =
            (lade_cache_place_t){.device = device,
                                 .name = lade_vram_name(device),
                                 .setting = "load.vram_mb or lower load.working_mb",
                                 .refusal = LADE_NO_VRAM,
                                 .limit = lade_vram_limit(device)};
    }
    self->place_count = devices + 1;
}

lade_code_t
lade_cache_new(const lade_cache_options_t *options, lade_cache_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    lade_loaders_t *loaders = NULL;
    lade_code_t code = lade_loaders_new(options->rows, &loaders, error);
    if (code)
        return code;
    lade_cache_t *self = calloc(1, sizeof *self);
    if (!self || !(self->name = strdup(options->name)) ||
        !(self->models_dir = strdup(options->models_dir)))
        abort();
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    self->loaders = loaders;
    self->check = options->check;
    s_make_places(self, options);
    self->sizes = json_object();
    self->threads = options->threads ? options->threads : cores > 0 ? (size_t)cores : 1;
    size_t limit = self->places[0].limit;
    self->memory = lade_memory_new(limit, options->pool ? options->pool : limit);
    s_init_lock(self);
    self->leases = lade_leases_new(&self->lock, s_on_ended, self);
    *self_p = self;
    return LADE_OK;
}

void
lade_cache_destroy(lade_cache_t **self_p)
{
    lade_cache_t *self = *self_p;
    if (!self)
        return;
    lade_leases_destroy(&self->leases);
    lade_keep_destroy(&self->keep);
    lade_cache_release(self, self->entries);
    lade_vram_destroy(&self->vram);
    lade_memory_destroy(&self->memory);
    free(self->places);
    json_decref(self->sizes);
    lade_loaders_destroy(&self->loaders);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
    free(self->models_dir);
    free(self->name);
    free(self);
    *self_p = NULL;
}
