// The models held: finding, reading once, making room, and who locks what.
//
// One lock guards the table. Nothing that takes time is done under it: headers and weights are
// read, and pages given back, outside. An entry being read stands in the table already, with the
// room it needs taken, so that others wait for it and nobody takes its room.
#include "workers/gpu/cache.h"

#include "common/log.h"
#include "common/wire.h"
#include "workers/gpu/layout.h"
#include "workers/gpu/leases.h"
#include "workers/gpu/memory.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    S_WAIT_MS = 100, // between two questions whether a waiting load is to stop
    S_MAX_LISTED = 1000,
};

// A file as it was when it was read.
typedef struct {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
} s_stamp_t;

typedef enum { S_LOADING, S_READY } s_state_t;

typedef struct s_entry {
    struct s_entry *next;
    char *key, *submodel; // submodel NULL for none
    lade_want_t want;
    s_stamp_t *stamps;
    size_t stamp_count;
    s_state_t state;
    bool stale;    // its files changed: not found any more, first to go
    size_t bytes;  // taken from the limit
    size_t locks;  // leases
    uint64_t used; // a count, rising with each use
    double last_used;
    uint64_t done, total; // while being read
    uint64_t length;
    const char *precision;
    bool unsafe; // it was allowed, which who else asks for it has to do too
    lade_region_t *region;
} s_entry_t;

struct lade_cache {
    char *name, *models_dir;
    size_t limit, threads;
    lade_loaders_t *loaders;
    lade_memory_t *memory;
    lade_leases_t *leases;

    pthread_mutex_t lock; // of all below and of leases
    pthread_cond_t changed;
    s_entry_t *entries;
    size_t held; // bytes of all entries
    uint64_t uses, hits, misses, evictions;
    size_t high_watermark;
};

// ---------------------------------------------------------------------------------------------------
// Entries

static void
s_entry_destroy(s_entry_t **entry_p)
{
    s_entry_t *entry = *entry_p;
    if (!entry)
        return;
    free(entry->key);
    free(entry->submodel);
    free(entry->stamps);
    free(entry);
    *entry_p = NULL;
}

static s_entry_t *
s_entry_new(const lade_cache_request_t *request, s_stamp_t *stamps, size_t count)
{
    s_entry_t *entry = calloc(1, sizeof *entry);
    if (!entry)
        abort();
    entry->key = strdup(request->key);
    entry->submodel = request->submodel ? strdup(request->submodel) : NULL;
    entry->want = request->want;
    entry->stamps = stamps;
    entry->stamp_count = count;
    entry->precision = "none";
    if (!entry->key || (request->submodel && !entry->submodel))
        abort();
    return entry;
}

static bool
s_same_text(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

static bool
s_same_want(const lade_want_t *a, const lade_want_t *b)
{
    return a->cast == b->cast && (!a->cast || a->dtype == b->dtype) &&
           a->channels_last == b->channels_last && !strcmp(a->device, b->device);
}

static s_entry_t *
s_find(const lade_cache_t *self, const lade_cache_request_t *request)
{
    s_entry_t *entry = self->entries;
    while (entry && (entry->stale || strcmp(entry->key, request->key) ||
                     !s_same_text(entry->submodel, request->submodel) ||
                     !s_same_want(&entry->want, &request->want)))
        entry = entry->next;
    return entry;
}

static void
s_add(lade_cache_t *self, s_entry_t *entry)
{
    entry->next = self->entries;
    self->entries = entry;
}

// Takes an entry out of the table and its bytes off the account.
static void
s_unlink(lade_cache_t *self, s_entry_t *entry)
{
    s_entry_t **at = &self->entries;
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    entry->next = NULL;
    self->held -= entry->bytes;
}

// Gives back what entries that are out of the table held. Not under the lock.
static void
s_release(lade_cache_t *self, s_entry_t *list)
{
    while (list) {
        s_entry_t *next = list->next;
        lade_memory_put(self->memory, &list->region);
        s_entry_destroy(&list);
        list = next;
    }
}

static bool
s_can_go(const s_entry_t *entry)
{
    return entry->state == S_READY && !entry->locks;
}

// Moves an entry from the table to a list for s_release.
static void
s_evict(lade_cache_t *self, s_entry_t *entry, s_entry_t **list)
{
    assert(s_can_go(entry));
    s_unlink(self, entry);
    self->evictions++;
    lade_log(LADE_LOG_DEBUG, "cache", "%s%s%s: evicted, %zu bytes", entry->key,
             entry->submodel ? ":" : "", entry->submodel ? entry->submodel : "", entry->bytes);
    entry->next = *list;
    *list = entry;
}

// ---------------------------------------------------------------------------------------------------
// The files as they are

static lade_code_t
s_stamp(const lade_files_t *files, s_stamp_t **stamps_p, lade_error_t *error)
{
    s_stamp_t *stamps = calloc(files->count + 1, sizeof *stamps);
    if (!stamps)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu files", files->count);
    for (size_t i = 0; i < files->count; i++) {
        struct stat status;
        if (stat(files->paths[i], &status)) {
            lade_code_t code = lade_error_errno(error, errno, "%s", files->paths[i]);
            free(stamps);
            return code == LADE_NOT_FOUND
                       ? lade_error_set(error, LADE_MODEL_NOT_FOUND,
                                        "a file of the model is gone: %s", files->paths[i])
                       : code;
        }
        stamps[i] = (s_stamp_t){status.st_dev, status.st_ino, status.st_size, status.st_mtim};
    }
    *stamps_p = stamps;
    return LADE_OK;
}

static bool
s_unchanged(const s_entry_t *entry, const s_stamp_t *stamps, size_t count)
{
    bool same = entry->stamp_count == count;
    for (size_t i = 0; same && i < count; i++) {
        const s_stamp_t *was = &entry->stamps[i], *is = &stamps[i];
        same = was->device == is->device && was->inode == is->inode && was->size == is->size &&
               was->changed.tv_sec == is->changed.tv_sec &&
               was->changed.tv_nsec == is->changed.tv_nsec;
    }
    return same;
}

// ---------------------------------------------------------------------------------------------------
// Leases

// A lease is over: what it held may go.
static void
s_on_ended(void *arg, void *holds)
{
    lade_cache_t *self = arg;
    s_entry_t *entry = holds;
    assert(entry->locks);
    entry->locks--;
    pthread_cond_broadcast(&self->changed);
}

// The number in a lease's text; 0 if it is no lease of this cache.
static uint64_t
s_lease_id(const lade_cache_t *self, const char *lease)
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
s_lock(lade_cache_t *self, s_entry_t *entry, const lade_cache_request_t *request,
       lade_cache_answer_t *answer, lade_error_t *error)
{
    uint64_t id = request->lease ? s_lease_id(self, request->lease) : 0;
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
s_grant(lade_cache_t *self, s_entry_t *entry, const lade_cache_request_t *request,
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
    snprintf(answer->path, sizeof answer->path, "/proc/%d/fd/%d", (int)getpid(), entry->region->fd);
    snprintf(answer->precision, sizeof answer->precision, "%s", entry->precision);
    return request->lock ? s_lock(self, entry, request, answer, error) : LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Waiting and making room

// Waits for a change of the table, not for ever: the request may be stopped meanwhile.
static lade_code_t
s_wait(lade_cache_t *self, const lade_cache_request_t *request, uint64_t done, uint64_t total,
       lade_error_t *error)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += S_WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&self->changed, &self->lock, &until);
    if (!request->step)
        return LADE_OK;
    pthread_mutex_unlock(&self->lock);
    bool go_on = request->step(request->arg, done, total);
    pthread_mutex_lock(&self->lock);
    return go_on ? LADE_OK : lade_error_set(error, LADE_CANCELLED, "stopped while waiting");
}

// The entry that goes next: a stale one, else the least recently used; NULL if all are locked or
// being read.
static s_entry_t *
s_victim(const lade_cache_t *self)
{
    s_entry_t *victim = NULL;
    for (s_entry_t *entry = self->entries; entry; entry = entry->next) {
        if (!s_can_go(entry))
            continue;
        bool before =
            !victim || (entry->stale != victim->stale ? entry->stale : entry->used < victim->used);
        victim = before ? entry : victim;
    }
    return victim;
}

static lade_code_t
s_refuse_room(const lade_cache_t *self, size_t bytes, size_t locked, lade_error_t *error)
{
    if (bytes > self->limit)
        return lade_error_set(
            error, LADE_NO_MEMORY,
            "the model takes %zu bytes and the cache holds %zu: raise load.cache_mb", bytes,
            self->limit);
    return lade_error_set(error, LADE_NO_MEMORY,
                          "the model takes %zu bytes; of the cache's %zu, %zu are locked by %zu "
                          "leases: unlock some or raise "
                          "load.cache_mb",
                          bytes, self->limit, locked, lade_leases_count(self->leases));
}

static size_t
s_locked_bytes(const lade_cache_t *self)
{
    size_t locked = 0;
    for (const s_entry_t *entry = self->entries; entry; entry = entry->next)
        locked += entry->locks ? entry->bytes : 0;
    return locked;
}

// Takes bytes off the limit for an entry, evicting into *list. What is being read cannot go, but
// may soon; so it waits.
static lade_code_t
s_reserve(lade_cache_t *self, s_entry_t *entry, size_t bytes, const lade_cache_request_t *request,
          s_entry_t **list, lade_error_t *error)
{
    for (;;) {
        size_t locked = s_locked_bytes(self);
        if (bytes > self->limit ||
            locked > self->limit - bytes) // before anything is evicted in vain
            return s_refuse_room(self, bytes, locked, error);
        s_entry_t *victim;
        while (self->held + bytes > self->limit && (victim = s_victim(self)))
            s_evict(self, victim, list);
        if (self->held + bytes <= self->limit)
            break;
        lade_code_t code = s_wait(self, request, 0, bytes, error);
        if (code)
            return code;
    }
    entry->bytes = bytes;
    self->held += bytes;
    self->high_watermark = self->held > self->high_watermark ? self->held : self->high_watermark;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Reading

typedef struct {
    lade_cache_t *cache;
    s_entry_t *entry;
    const lade_cache_request_t *request;
} s_reading_t;

static bool
s_on_step(void *arg, uint64_t bytes)
{
    s_reading_t *reading = arg;
    pthread_mutex_lock(&reading->cache->lock); // those who wait for the entry tell its progress too
    reading->entry->done = bytes;
    uint64_t total = reading->entry->total;
    pthread_mutex_unlock(&reading->cache->lock);
    return !reading->request->step || reading->request->step(reading->request->arg, bytes, total);
}

// Makes room and reads. The entry is in the table, being read.
static lade_code_t
s_read(lade_cache_t *self, s_entry_t *entry, const lade_cache_request_t *request,
       lade_layout_t *layout, lade_region_t **region_p, lade_error_t *error)
{
    s_entry_t *evicted = NULL;
    pthread_mutex_lock(&self->lock);
    lade_code_t code = s_reserve(self, entry, layout->head.length, request, &evicted, error);
    entry->total = layout->read_bytes;
    pthread_mutex_unlock(&self->lock);
    s_release(self, evicted); // first: its pages are what the next line gives out
    if (!code)
        code = lade_memory_get(self->memory, layout->head.length, region_p, error);
    s_reading_t reading = {self, entry, request};
    if (!code)
        code = lade_layout_read(layout, *region_p, self->threads, s_on_step, &reading, error);
    if (code)
        lade_memory_put(self->memory, region_p);
    return code;
}

// What was read is the model only if the files are still those that were looked at.
static lade_code_t
s_check_unchanged(const s_entry_t *entry, const lade_files_t *files, lade_error_t *error)
{
    s_stamp_t *stamps = NULL;
    lade_code_t code = s_stamp(files, &stamps, error);
    if (!code && !s_unchanged(entry, stamps, files->count))
        code = lade_error_set(error, LADE_CORRUPT,
                              "a file of the model changed while it was read: load it again");
    free(stamps);
    return code;
}

// Reads what an entry stands for, and answers with it; or takes the entry out again.
static lade_code_t
s_fill(lade_cache_t *self, s_entry_t *entry, const lade_cache_request_t *request,
       const lade_files_t *files, lade_cache_answer_t *answer, lade_error_t *error)
{
    lade_layout_t layout;
    lade_region_t *region = NULL;
    int64_t began = lade_mono_ms();
    lade_code_t code = lade_layout_open(&layout, request->key, request->submodel, files,
                                        &request->want, request->allow_unsafe, error);
    if (!code)
        code = s_read(self, entry, request, &layout, &region, error);
    if (!code && (code = s_check_unchanged(entry, files, error)))
        lade_memory_put(self->memory, &region);

    pthread_mutex_lock(&self->lock);
    bool read = !code;
    if (read) {
        entry->region = region;
        entry->length = layout.head.length;
        entry->precision = layout.precision;
        entry->unsafe = layout.unsafe;
        entry->state = S_READY;
        self->misses++;
        code = s_grant(self, entry, request, answer, error);
    } else
        s_unlink(self, entry);
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);

    if (read)
        lade_log(LADE_LOG_INFO, "cache", "%s%s%s: %llu bytes read in %lld ms", request->key,
                 request->submodel ? ":" : "", request->submodel ? request->submodel : "",
                 (unsigned long long)layout.head.length, (long long)(lade_mono_ms() - began));
    else
        s_entry_destroy(&entry);
    lade_layout_close(&layout);
    return code;
}

// Finds the model ready (then it is answered), waits while another reads it, or leaves a new entry
// in *entry_p for the caller to fill. Takes over *stamps_p in the last case.
static lade_code_t
s_find_or_add(lade_cache_t *self, const lade_cache_request_t *request, s_stamp_t **stamps_p,
              size_t count, s_entry_t **entry_p, lade_cache_answer_t *answer, lade_error_t *error)
{
    *entry_p = NULL;
    for (;;) {
        s_entry_t *entry = s_find(self, request);
        if (!entry)
            break;
        if (entry->state == S_LOADING) {
            lade_code_t code = s_wait(self, request, entry->done, entry->total, error);
            if (code)
                return code;
        } else if (!s_unchanged(entry, *stamps_p, count))
            entry->stale = true;
        else {
            self->hits++;
            return s_grant(self, entry, request, answer, error);
        }
    }
    *entry_p = s_entry_new(request, *stamps_p, count);
    *stamps_p = NULL;
    s_add(self, *entry_p);
    return LADE_OK;
}

lade_code_t
lade_cache_load(lade_cache_t *self, const lade_cache_request_t *request,
                lade_cache_answer_t *answer, lade_error_t *error)
{
    lade_error_t spare = {0};
    error = error ? error : &spare;
    lade_files_t files = {0};
    s_stamp_t *stamps = NULL;
    s_entry_t *entry = NULL;
    *answer = (lade_cache_answer_t){0};
    lade_code_t code = lade_loaders_files(self->loaders, request->record, request->submodel,
                                          self->models_dir, &files, error);
    if (!code)
        code = s_stamp(&files, &stamps, error);
    if (!code) {
        pthread_mutex_lock(&self->lock);
        code = s_find_or_add(self, request, &stamps, files.count, &entry, answer, error);
        pthread_mutex_unlock(&self->lock);
    }
    if (entry)
        code = s_fill(self, entry, request, &files, answer, error);
    free(stamps);
    lade_files_free(&files);
    return code;
}

// ---------------------------------------------------------------------------------------------------

bool
lade_cache_unlock(lade_cache_t *self, const char *lease)
{
    uint64_t id = s_lease_id(self, lease);
    pthread_mutex_lock(&self->lock);
    bool ended = id && lade_leases_end(self->leases, id);
    pthread_mutex_unlock(&self->lock);
    return ended;
}

size_t
lade_cache_unload(lade_cache_t *self, const char *key, const char *submodel)
{
    s_entry_t *evicted = NULL, *next;
    size_t count = 0;
    pthread_mutex_lock(&self->lock);
    for (s_entry_t *entry = self->entries; entry; entry = next) {
        next = entry->next;
        bool meant = (!key || !strcmp(entry->key, key)) &&
                     (!submodel || s_same_text(entry->submodel, submodel));
        if (!meant || !s_can_go(entry))
            continue;
        s_evict(self, entry, &evicted);
        count++;
    }
    pthread_mutex_unlock(&self->lock);
    s_release(self, evicted);
    return count;
}

static json_t *
s_model_stats(const s_entry_t *entry)
{
    return json_pack("{s:s, s:s?, s:I, s:I, s:f, s:b}", "key", entry->key, "submodel",
                     entry->submodel, "bytes", (json_int_t)entry->bytes, "locks",
                     (json_int_t)entry->locks, "last_used", entry->last_used, "loading",
                     entry->state == S_LOADING);
}

json_t *
lade_cache_stats(lade_cache_t *self)
{
    json_t *models = json_array();
    pthread_mutex_lock(&self->lock);
    for (const s_entry_t *entry = self->entries; entry && json_array_size(models) < S_MAX_LISTED;
         entry = entry->next)
        json_array_append_new(models, s_model_stats(entry));
    json_t *stats =
        json_pack("{s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I}", "bytes", (json_int_t)self->held,
                  "limit_bytes", (json_int_t)self->limit, "pool_bytes",
                  (json_int_t)lade_memory_idle(self->memory), "models", models, "hits",
                  (json_int_t)self->hits, "misses", (json_int_t)self->misses, "evictions",
                  (json_int_t)self->evictions, "high_watermark", (json_int_t)self->high_watermark,
                  "leases", (json_int_t)lade_leases_count(self->leases));
    pthread_mutex_unlock(&self->lock);
    json_object_set_new(stats, "io", lade_reader_stats());
    json_object_set_new(stats, "huge", lade_memory_stats());
    return stats;
}

static lade_code_t
s_attach(void *arg, const char *lease, int *fd_p, uint64_t *length_p, uint64_t *id_p,
         lade_error_t *error)
{
    lade_cache_t *self = arg;
    uint64_t id = s_lease_id(self, lease);
    pthread_mutex_lock(&self->lock);
    s_entry_t *entry = id ? lade_leases_find(self->leases, id) : NULL;
    if (entry && lade_leases_attach(self->leases, id)) {
        *fd_p = entry->region->fd; // stays while the entry is locked
        *length_p = entry->length;
        *id_p = id;
    }
    pthread_mutex_unlock(&self->lock);
    return entry ? LADE_OK
                 : lade_error_set(error, LADE_STALE_LEASE,
                                  "the lease %.100s is over: load the model again", lease);
}

static void
s_detach(void *arg, uint64_t id)
{
    lade_cache_t *self = arg;
    pthread_mutex_lock(&self->lock);
    lade_leases_detach(self->leases, id);
    pthread_mutex_unlock(&self->lock);
}

const lade_attach_ops_t lade_cache_attach_ops = {.attach = s_attach, .detach = s_detach};

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
    self->limit = options->limit ? options->limit : lade_memory_machine_bytes() / 2;
    self->threads = options->threads ? options->threads : cores > 0 ? (size_t)cores : 1;
    self->memory = lade_memory_new(self->limit, options->pool ? options->pool : self->limit);
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
    s_release(self, self->entries);
    lade_memory_destroy(&self->memory);
    lade_loaders_destroy(&self->loaders);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
    free(self->models_dir);
    free(self->name);
    free(self);
    *self_p = NULL;
}
