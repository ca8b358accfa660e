// The models held: finding, reading once, making room, and who locks what.
//
// One lock guards the table. Nothing that takes time is done under it: headers and weights are
// read, and pages given back, outside. An entry being read stands in the table already, with the
// room it needs taken, so that others wait for it and nobody takes its room.
#include "workers/gpu/cache.h"

#include "common/keep.h"
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
    S_MAX_SIZES = 500,
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
    json_t *called; // {"base", "type", "name"} of the record
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
    char kept_precision[16]; // of one that another process read
    bool unsafe;             // it was allowed, which who else asks for it has to do too
    lade_region_t *region;   // all of it; on a device, its head and index
    struct s_place *place;
    lade_block_t block; // its data, on a device
} s_entry_t;

// Where models are: the host, or a device. Each has its own limit.
typedef struct s_place {
    lade_vram_device_t *device; // NULL: the host
    const char *name;
    const char *setting; // that raises the limit
    lade_code_t refusal; // when there is no room
    size_t limit;
    size_t held; // bytes of all entries there
    size_t high_watermark;
    uint64_t evictions, demotions, promotions;
} s_place_t;

// A process that is attached: its connection, and the lease that lives as long.
typedef struct s_peer {
    struct s_peer *next;
    int connection;
    uint64_t lease, generation;
} s_peer_t;

struct lade_cache {
    char *name, *models_dir;
    size_t threads;
    bool check;
    lade_vram_t *vram;
    lade_loaders_t *loaders;
    lade_memory_t *memory;
    lade_leases_t *leases;

    pthread_mutex_t lock; // of all below and of leases
    pthread_cond_t changed;
    s_entry_t *entries;
    s_place_t *places; // the host is the first
    size_t place_count;
    lade_keep_t *keep;
    s_peer_t *peers;
    uint64_t uses, hits, misses;
    size_t cleared; // models that the last making of room or unloading dropped
    json_t *sizes;  // label to the most bytes it took; at most S_MAX_SIZES
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
    json_decref(entry->called);
    free(entry->stamps);
    free(entry);
    *entry_p = NULL;
}

static s_entry_t *
s_entry_new(const lade_cache_request_t *request, s_place_t *place, s_stamp_t *stamps, size_t count)
{
    s_entry_t *entry = calloc(1, sizeof *entry);
    if (!entry)
        abort();
    entry->key = strdup(request->key);
    entry->submodel = request->submodel ? strdup(request->submodel) : NULL;
    entry->want = request->want;
    entry->called =
        json_pack("{s:s, s:s, s:s}", "base", lade_json_text(request->record, "base", "?"), "type",
                  lade_json_text(request->record, "type", "?"), "name",
                  lade_json_text(request->record, "name", ""));
    entry->place = place;
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
    entry->place->held -= entry->bytes;
}

// Gives back what entries that are out of the table held. Not under the lock.
static void
s_release(lade_cache_t *self, s_entry_t *list)
{
    while (list) {
        s_entry_t *next = list->next;
        if (list->place->device)
            lade_vram_free(list->place->device, &list->block);
        lade_memory_put(self->memory, &list->region);
        s_entry_destroy(&list);
        list = next;
    }
}

// ---------------------------------------------------------------------------------------------------
// What the keeper holds for us: segments that are whole, and the connections of who looks at them

static void
s_entry_id(const lade_cache_t *self, const s_entry_t *entry, char *id, size_t size)
{
    snprintf(id, size, "segment/%s/%" PRIu64, self->name, entry->region->generation);
}

static void
s_peer_id(const lade_cache_t *self, const s_peer_t *peer, char *id, size_t size)
{
    snprintf(id, size, "connection/%s/%d", self->name, peer->connection);
}

static json_t *
s_stamp_facts(const s_entry_t *entry)
{
    json_t *files = json_array();
    for (size_t i = 0; i < entry->stamp_count; i++) {
        const s_stamp_t *stamp = &entry->stamps[i];
        json_array_append_new(files, json_pack("[I, I, I, I, I]", (json_int_t)stamp->device,
                                               (json_int_t)stamp->inode, (json_int_t)stamp->size,
                                               (json_int_t)stamp->changed.tv_sec,
                                               (json_int_t)stamp->changed.tv_nsec));
    }
    return files;
}

static void
s_keep_entry(lade_cache_t *self, const s_entry_t *entry)
{
    char id[LADE_KEEP_MAX_ID];
    const lade_want_t *want = &entry->want;
    if (!self->keep || entry->stale || entry->place->device) // a device's memory goes with us
        return;
    json_t *facts = json_pack(
        "{s:s, s:s, s:s?, s:o, s:I, s:I, s:I, s:s, s:b, s:b, s:i, s:b, s:s}", "is", "segment",
        "key", entry->key, "submodel", entry->submodel, "files", s_stamp_facts(entry), "length",
        (json_int_t)entry->length, "size", (json_int_t)entry->region->size, "generation",
        (json_int_t)entry->region->generation, "precision", entry->precision, "unsafe",
        entry->unsafe, "cast", want->cast, "dtype", (int)want->dtype, "channels_last",
        want->channels_last, "device", want->device);
    json_object_update(facts, entry->called);
    s_entry_id(self, entry, id, sizeof id);
    lade_keep_put(self->keep, id, facts, entry->region->fd);
    json_decref(facts);
}

static void
s_keep_not(lade_cache_t *self, const s_entry_t *entry)
{
    char id[LADE_KEEP_MAX_ID];
    if (!self->keep || entry->place->device)
        return;
    s_entry_id(self, entry, id, sizeof id);
    lade_keep_drop(self->keep, id);
}

static void
s_keep_peer(lade_cache_t *self, const s_peer_t *peer)
{
    char id[LADE_KEEP_MAX_ID];
    if (!self->keep)
        return;
    json_t *facts =
        json_pack("{s:s, s:I}", "is", "connection", "generation", (json_int_t)peer->generation);
    s_peer_id(self, peer, id, sizeof id);
    lade_keep_put(self->keep, id, facts, peer->connection);
    json_decref(facts);
}

// Tells a keeper that has just come of all there is.
static void
s_tend_keep(lade_cache_t *self)
{
    if (!self->keep || !lade_keep_again(self->keep))
        return;
    for (const s_entry_t *entry = self->entries; entry; entry = entry->next)
        if (entry->state == S_READY)
            s_keep_entry(self, entry);
    for (const s_peer_t *peer = self->peers; peer; peer = peer->next)
        s_keep_peer(self, peer);
}

// ---------------------------------------------------------------------------------------------------

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
    entry->place->evictions++;
    s_keep_not(self, entry);
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
    if (!entry->place->device)
        snprintf(answer->path, sizeof answer->path, "/proc/%d/fd/%d", (int)getpid(),
                 entry->region->fd);
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

static bool
s_goes_before(const s_entry_t *a, const s_entry_t *b)
{
    return a->stale != b->stale ? a->stale : a->used < b->used;
}

// The entry of a place that goes next: a stale one, else the least recently used, after *last
// (NULL: from the first on); NULL if all others are locked or being read.
static s_entry_t *
s_victim(const lade_cache_t *self, const s_place_t *place, const s_entry_t *last)
{
    s_entry_t *victim = NULL;
    for (s_entry_t *entry = self->entries; entry; entry = entry->next)
        if (entry->place == place && s_can_go(entry) && entry != last &&
            (!last || s_goes_before(last, entry)) && (!victim || s_goes_before(entry, victim)))
            victim = entry;
    return victim;
}

static lade_code_t
s_refuse_room(const lade_cache_t *self, const s_place_t *place, size_t bytes, size_t locked,
              lade_error_t *error)
{
    if (bytes > place->limit)
        return lade_error_set(error, place->refusal,
                              "the model takes %zu bytes and the cache of %s holds %zu: raise %s",
                              bytes, place->name, place->limit, place->setting);
    return lade_error_set(error, place->refusal,
                          "the model takes %zu bytes; of the %zu of the cache of %s, %zu are "
                          "locked by %zu leases: unlock some or raise %s",
                          bytes, place->limit, place->name, locked, lade_leases_count(self->leases),
                          place->setting);
}

static size_t
s_locked_bytes(const lade_cache_t *self, const s_place_t *place)
{
    size_t locked = 0;
    for (const s_entry_t *entry = self->entries; entry; entry = entry->next)
        locked += entry->place == place && entry->locks ? entry->bytes : 0;
    return locked;
}

// Evicts the least recently used that together are enough, and of those none that is not needed:
// where a large one has to go, the small ones before it stay.
static void
s_make_room(lade_cache_t *self, s_place_t *place, size_t bytes, s_entry_t **list)
{
    size_t needed = place->held + bytes > place->limit ? place->held + bytes - place->limit : 0;
    size_t sum = 0, cleared = 0;
    s_entry_t *last = NULL, *next;
    while (sum < needed && (next = s_victim(self, place, last))) {
        sum += next->bytes;
        last = next;
    }
    for (s_entry_t *victim = s_victim(self, place, NULL); last && victim; victim = next) {
        bool is_last = victim == last;
        next = is_last ? NULL : s_victim(self, place, victim);
        if (!victim->stale && sum >= needed + victim->bytes) {
            sum -= victim->bytes;
            continue;
        }
        s_evict(self, victim, list);
        cleared++;
    }
    self->cleared = cleared ? cleared : self->cleared;
}

// Takes bytes off the limit for an entry, evicting into *list. What is being read cannot go, but
// may soon; so it waits.
static lade_code_t
s_reserve(lade_cache_t *self, s_entry_t *entry, size_t bytes, const lade_cache_request_t *request,
          s_entry_t **list, lade_error_t *error)
{
    s_place_t *place = entry->place;
    for (;;) {
        size_t locked = s_locked_bytes(self, place);
        if (bytes > place->limit ||
            locked > place->limit - bytes) // before anything is evicted in vain
            return s_refuse_room(self, place, bytes, locked, error);
        s_make_room(self, place, bytes, list);
        if (place->held + bytes <= place->limit)
            break;
        lade_code_t code = s_wait(self, request, 0, bytes, error);
        if (code)
            return code;
    }
    entry->bytes = bytes;
    place->held += bytes;
    place->high_watermark =
        place->held > place->high_watermark ? place->held : place->high_watermark;
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

// Makes room and reads into host memory. The entry is in the table, being read.
static lade_code_t
s_read_host(lade_cache_t *self, s_entry_t *entry, const lade_cache_request_t *request,
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

// ---------------------------------------------------------------------------------------------------
// Devices

// Bytes of the data, which is all that a device holds.
static size_t
s_data_bytes(const lade_segment_head_t *head)
{
    return head->length > head->data_at ? (size_t)(head->length - head->data_at) : 1;
}

// The same model as the request's in host memory, to be had without reading; NULL if there is none.
static s_entry_t *
s_find_on_host(const lade_cache_t *self, const s_entry_t *entry)
{
    lade_want_t want = entry->want;
    strcpy(want.device, "cpu");
    for (s_entry_t *other = self->entries; other; other = other->next)
        if (other->state == S_READY && !other->stale && !strcmp(other->key, entry->key) &&
            s_same_text(other->submodel, entry->submodel) && s_same_want(&other->want, &want) &&
            s_unchanged(other, entry->stamps, entry->stamp_count))
            return other;
    return NULL;
}

// Takes room in host memory for what leaves a device, if nothing has to go for it and it is not
// there yet.
static bool
s_reserve_demotion(lade_cache_t *self, const s_entry_t *entry)
{
    s_place_t *host = &self->places[0];
    pthread_mutex_lock(&self->lock);
    bool room = !s_find_on_host(self, entry) && entry->length <= host->limit &&
                host->held <= host->limit - entry->length;
    if (room) {
        host->held += entry->length;
        host->high_watermark =
            host->held > host->high_watermark ? host->held : host->high_watermark;
    }
    pthread_mutex_unlock(&self->lock);
    return room;
}

// Copies an entry's segment from its device. LADE_NO_MEMORY, or what the device says.
static lade_code_t
s_save(lade_cache_t *self, const s_entry_t *entry, lade_region_t **region_p, lade_error_t *error)
{
    const lade_segment_head_t *head = (const void *)entry->region->bytes;
    lade_code_t code = lade_memory_get(self->memory, entry->length, region_p, error);
    if (!code)
        code = lade_memory_touch(*region_p, entry->length, error);
    if (!code && head->length > head->data_at)
        code = lade_vram_save(entry->place->device, &entry->block,
                              (*region_p)->bytes + head->data_at, s_data_bytes(head), error);
    if (code) {
        lade_memory_put(self->memory, region_p);
        return code;
    }
    memcpy((*region_p)->bytes, entry->region->bytes, head->data_at);
    ((lade_segment_head_t *)(void *)(*region_p)->bytes)->generation = (*region_p)->generation;
    (*region_p)->warm = entry->length > (*region_p)->warm ? entry->length : (*region_p)->warm;
    return LADE_OK;
}

// Makes an evicted entry of a device one of host memory, back in the table; false if it is to be
// released. Not under the lock.
static bool
s_demote(lade_cache_t *self, s_entry_t *entry)
{
    lade_error_t error = {0};
    lade_region_t *region = NULL;
    if (entry->stale || !entry->place->device || lade_vram_lost(entry->place->device) ||
        !s_reserve_demotion(self, entry))
        return false;
    lade_code_t code = s_save(self, entry, &region, &error);
    if (!code) {
        lade_vram_free(entry->place->device, &entry->block);
        lade_memory_put(self->memory, &entry->region);
    }
    pthread_mutex_lock(&self->lock);
    if (!code) {
        entry->place->demotions++;
        entry->place = &self->places[0];
        entry->region = region;
        entry->bytes = entry->length;
        strcpy(entry->want.device, "cpu");
        entry->stale = s_find_on_host(self, entry) != NULL; // read again meanwhile
        s_add(self, entry);
        s_keep_entry(self, entry);
        pthread_cond_broadcast(&self->changed);
    } else
        self->places[0].held -= entry->length;
    pthread_mutex_unlock(&self->lock);
    if (code)
        lade_log(LADE_LOG_WARNING, "cache", "%s: not kept in host memory: %s", entry->key,
                 error.message);
    return !code;
}

// As s_release; what leaves a device goes into host memory if it can.
static void
s_release_evicted(lade_cache_t *self, s_entry_t *list)
{
    while (list) {
        s_entry_t *next = list->next;
        list->next = NULL;
        if (!s_demote(self, list))
            s_release(self, list);
        list = next;
    }
}

// A block for the entry, whose room is taken. What others of the machine take of the device is not
// on our account, so there may be less than the limit says: then more goes, one after the other.
static lade_code_t
s_allocate(lade_cache_t *self, s_entry_t *entry, lade_error_t *error)
{
    for (;;) {
        s_entry_t *evicted = NULL;
        lade_code_t code =
            lade_vram_allocate(entry->place->device, entry->bytes, &entry->block, error);
        if (code != LADE_NO_VRAM)
            return code;
        pthread_mutex_lock(&self->lock);
        s_entry_t *victim = s_victim(self, entry->place, NULL);
        if (victim)
            s_evict(self, victim, &evicted);
        pthread_mutex_unlock(&self->lock);
        if (!victim)
            return code;
        s_release_evicted(self, evicted);
    }
}

// Fills the block from a copy in host memory. LADE_NOT_FOUND if there is none.
static lade_code_t
s_promote(lade_cache_t *self, s_entry_t *entry, s_reading_t *reading, lade_error_t *error)
{
    pthread_mutex_lock(&self->lock);
    s_entry_t *host = s_find_on_host(self, entry);
    if (host) {
        host->locks++;
        host->used = ++self->uses;
    }
    pthread_mutex_unlock(&self->lock);
    if (!host)
        return LADE_NOT_FOUND;
    const lade_segment_head_t *head = (const void *)host->region->bytes;
    lade_code_t code = LADE_OK;
    if (head->length > head->data_at)
        code =
            lade_vram_copy(entry->place->device, &entry->block, host->region->bytes + head->data_at,
                           s_data_bytes(head), self->threads, s_on_step, reading, error);
    pthread_mutex_lock(&self->lock);
    host->locks--;
    entry->place->promotions += !code;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
    return code;
}

// What the device cannot read by itself (views, blocks of GGML) is loaded into host memory first.
static lade_code_t
s_promote_loaded(lade_cache_t *self, s_entry_t *entry, s_reading_t *reading, lade_error_t *error)
{
    lade_cache_answer_t answer;
    lade_cache_request_t request = *reading->request;
    strcpy(request.want.device, "cpu");
    request.lock = true;
    request.lease = NULL;
    request.pid = getpid();
    request.ttl_s = 0;
    lade_code_t code = lade_cache_load(self, &request, &answer, error);
    if (code)
        return code;
    code = s_promote(self, entry, reading, error);
    lade_cache_unlock(self, answer.lease);
    return code == LADE_NOT_FOUND
               ? lade_error_set(error, LADE_CORRUPT,
                                "a file of the model changed while it was read: load it again")
               : code;
}

static lade_code_t
s_fill_block(lade_cache_t *self, s_entry_t *entry, const lade_cache_request_t *request,
             const lade_layout_t *layout, lade_error_t *error)
{
    s_reading_t reading = {self, entry, request};
    lade_code_t code = s_promote(self, entry, &reading, error);
    if (code != LADE_NOT_FOUND)
        return code;
    if (!lade_vram_can_read(layout))
        return s_promote_loaded(self, entry, &reading, error);
    return lade_vram_read(entry->place->device, &entry->block, layout, self->threads, self->check,
                          s_on_step, &reading, error);
}

// Makes room and reads into a device; *region_p gets head and index.
static lade_code_t
s_read_device(lade_cache_t *self, s_entry_t *entry, const lade_cache_request_t *request,
              lade_layout_t *layout, lade_region_t **region_p, lade_error_t *error)
{
    s_entry_t *evicted = NULL;
    pthread_mutex_lock(&self->lock);
    lade_code_t code =
        s_reserve(self, entry, s_data_bytes(&layout->head), request, &evicted, error);
    entry->total = layout->read_bytes;
    pthread_mutex_unlock(&self->lock);
    s_release_evicted(self, evicted);
    if (!code)
        code = s_allocate(self, entry, error);
    if (!code)
        code = lade_memory_get(self->memory, layout->head.data_at, region_p, error);
    if (!code)
        code = lade_memory_touch(*region_p, layout->head.data_at, error);
    if (!code)
        code = s_fill_block(self, entry, request, layout, error);
    if (code == LADE_IO_ERROR)
        (void)lade_vram_lost(entry->place->device); // says so, once
    if (code) {
        lade_vram_free(entry->place->device, &entry->block);
        lade_memory_put(self->memory, region_p);
        return code;
    }
    layout->head.generation = (*region_p)->generation;
    lade_segment_write((*region_p)->bytes, &layout->head, &layout->index);
    return LADE_OK;
}

static lade_code_t
s_read(lade_cache_t *self, s_entry_t *entry, const lade_cache_request_t *request,
       lade_layout_t *layout, lade_region_t **region_p, lade_error_t *error)
{
    return (entry->place->device ? s_read_device : s_read_host)(self, entry, request, layout,
                                                                region_p, error);
}

// The place a request names, opened if it is a device.
static lade_code_t
s_find_place(lade_cache_t *self, const lade_cache_request_t *request, s_place_t **place_p,
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

// ---------------------------------------------------------------------------------------------------

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

// The most bytes a model took, whatever became of it since.
static void
s_note_size(lade_cache_t *self, const s_entry_t *entry)
{
    char label[512];
    snprintf(label, sizeof label, "%s:%s:%.300s%s%s", lade_json_text(entry->called, "base", "?"),
             lade_json_text(entry->called, "type", "?"), lade_json_text(entry->called, "name", ""),
             entry->submodel ? ":" : "", entry->submodel ? entry->submodel : "");
    json_int_t before = lade_json_int(self->sizes, label, 0);
    json_int_t now = (json_int_t)entry->length;
    if (now > before && (before || json_object_size(self->sizes) < S_MAX_SIZES))
        json_object_set_new(self->sizes, label,
                            json_integer(now)); // but for one cut within a letter
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
        entry->state = S_READY;
        self->misses++;
        s_keep_entry(self, entry);
        s_note_size(self, entry);
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
s_find_or_add(lade_cache_t *self, const lade_cache_request_t *request, s_place_t *place,
              s_stamp_t **stamps_p, size_t count, s_entry_t **entry_p, lade_cache_answer_t *answer,
              lade_error_t *error)
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
    *entry_p = s_entry_new(request, place, *stamps_p, count);
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
    s_place_t *place = NULL;
    *answer = (lade_cache_answer_t){0};
    lade_code_t code = s_find_place(self, request, &place, error);
    if (!code)
        code = lade_loaders_files(self->loaders, request->record, request->submodel,
                                  self->models_dir, &files, error);
    if (!code)
        code = s_stamp(&files, &stamps, error);
    if (!code) {
        pthread_mutex_lock(&self->lock);
        code = s_find_or_add(self, request, place, &stamps, files.count, &entry, answer, error);
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
    self->cleared = count ? count : self->cleared;
    pthread_mutex_unlock(&self->lock);
    s_release(self, evicted);
    return count;
}

static json_t *
s_model_stats(const s_entry_t *entry)
{
    return json_pack("{s:s, s:s?, s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:b}", "key", entry->key,
                     "submodel", entry->submodel, "name", lade_json_text(entry->called, "name", ""),
                     "precision", entry->precision, "layout",
                     entry->want.channels_last ? "channels_last" : "stored", "device",
                     entry->place->name, "bytes", (json_int_t)entry->bytes, "locks",
                     (json_int_t)entry->locks, "last_used", entry->last_used, "loading",
                     entry->state == S_LOADING);
}

static json_t *
s_device_stats(const s_place_t *place)
{
    json_t *stats =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "bytes", (json_int_t)place->held, "limit_bytes",
                  (json_int_t)place->limit, "evictions", (json_int_t)place->evictions, "demotions",
                  (json_int_t)place->demotions, "promotions", (json_int_t)place->promotions,
                  "high_watermark", (json_int_t)place->high_watermark);
    return stats;
}

json_t *
lade_cache_stats(lade_cache_t *self)
{
    const s_place_t *host = &self->places[0];
    json_t *models = json_array(), *devices = json_array();
    pthread_mutex_lock(&self->lock);
    s_tend_keep(self); // every beat asks
    for (const s_entry_t *entry = self->entries; entry && json_array_size(models) < S_MAX_LISTED;
         entry = entry->next)
        json_array_append_new(models, s_model_stats(entry));
    for (size_t i = 1; i < self->place_count; i++)
        json_array_append_new(devices, s_device_stats(&self->places[i]));
    json_t *stats =
        json_pack("{s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "bytes",
                  (json_int_t)host->held, "limit_bytes", (json_int_t)host->limit, "pool_bytes",
                  (json_int_t)lade_memory_idle(self->memory), "models", models, "hits",
                  (json_int_t)self->hits, "misses", (json_int_t)self->misses, "evictions",
                  (json_int_t)host->evictions, "high_watermark", (json_int_t)host->high_watermark,
                  "leases", (json_int_t)lade_leases_count(self->leases), "devices", devices);
    json_object_set_new(stats, "keeper", self->keep ? lade_keep_stats(self->keep) : json_null());
    size_t count = 0;
    for (const s_entry_t *entry = self->entries; entry; entry = entry->next)
        count += entry->state == S_READY;
    json_object_set_new(stats, "in_cache", json_integer((json_int_t)count));
    json_object_set_new(stats, "cleared", json_integer((json_int_t)self->cleared));
    json_object_set_new(stats, "loaded_model_sizes", json_deep_copy(self->sizes));
    pthread_mutex_unlock(&self->lock);
    json_object_set_new(stats, "io", lade_reader_stats());
    json_object_set_new(stats, "huge", lade_memory_stats());
    for (size_t i = 1; i < self->place_count; i++) // asks the devices: not under the lock
        lade_vram_stats(self->places[i].device, json_array_get(devices, i - 1));
    const char *why = self->vram ? lade_vram_why(self->vram) : "";
    json_object_set_new(stats, "no_device", *why ? json_string(why) : json_null());
    return stats;
}

static lade_code_t
s_attach(void *arg, const char *lease, int *fd_p, uint64_t *length_p, lade_share_t *share,
         uint64_t *id_p, lade_error_t *error)
{
    lade_cache_t *self = arg;
    uint64_t id = s_lease_id(self, lease);
    lade_code_t code = LADE_OK;
    pthread_mutex_lock(&self->lock);
    s_entry_t *entry = id ? lade_leases_find(self->leases, id) : NULL;
    if (!entry)
        code = lade_error_set(error, LADE_STALE_LEASE,
                              "the lease %.100s is over: load the model again", lease);
    else if (entry->place->device)
        code = lade_vram_share(entry->place->device, &entry->block, share, error);
    if (!code && lade_leases_attach(self->leases, id)) {
        const lade_segment_head_t *head = (const void *)entry->region->bytes;
        *fd_p = entry->region->fd; // stays while the entry is locked
        *length_p = entry->place->device ? head->data_at : entry->length;
        *id_p = id;
    }
    pthread_mutex_unlock(&self->lock);
    return code;
}

static void
s_detach(void *arg, uint64_t id)
{
    lade_cache_t *self = arg;
    pthread_mutex_lock(&self->lock);
    lade_leases_detach(self->leases, id);
    pthread_mutex_unlock(&self->lock);
}

// The segment is on its way to who is at the other end of the connection.
static void
s_attached(void *arg, uint64_t id, int connection)
{
    lade_cache_t *self = arg;
    s_peer_t *peer = calloc(1, sizeof *peer);
    if (!peer)
        abort();
    pthread_mutex_lock(&self->lock);
    const s_entry_t *entry = lade_leases_holds(self->leases, id);
    if (!entry->place->device) {
        *peer = (s_peer_t){self->peers, connection, id, entry->region->generation};
        self->peers = peer;
        s_keep_peer(self, peer);
        peer = NULL;
    }
    pthread_mutex_unlock(&self->lock);
    free(peer);
}

// The connection is about to be closed.
static void
s_parted(void *arg, int connection)
{
    lade_cache_t *self = arg;
    char id[LADE_KEEP_MAX_ID];
    pthread_mutex_lock(&self->lock);
    s_peer_t **at = &self->peers;
    while (*at && (*at)->connection != connection)
        at = &(*at)->next;
    s_peer_t *peer = *at;
    if (peer) {
        *at = peer->next;
        s_peer_id(self, peer, id, sizeof id);
        if (self->keep)
            lade_keep_drop(self->keep, id);
    }
    pthread_mutex_unlock(&self->lock);
    free(peer);
}

// Connections that outlived the worker that had them.
static size_t
s_inherited(void *arg, lade_attach_peer_t *peers, size_t most)
{
    lade_cache_t *self = arg;
    size_t count = 0;
    pthread_mutex_lock(&self->lock);
    for (const s_peer_t *peer = self->peers; peer && count < most; peer = peer->next)
        peers[count++] = (lade_attach_peer_t){peer->connection, peer->lease};
    pthread_mutex_unlock(&self->lock);
    return count;
}

const lade_attach_ops_t lade_cache_attach_ops = {.attach = s_attach,
                                                 .detach = s_detach,
                                                 .attached = s_attached,
                                                 .parted = s_parted,
                                                 .inherited = s_inherited};

// ---------------------------------------------------------------------------------------------------
// Taking over what a worker that crashed left

// Connections wait here until all segments are there.
typedef struct {
    lade_cache_t *cache;
    s_peer_t *waiting;
    size_t segments, bytes;
} s_heir_t;

static s_stamp_t *
s_read_stamps(const json_t *files)
{
    size_t count = json_array_size(files);
    s_stamp_t *stamps = calloc(count + 1, sizeof *stamps);
    for (size_t i = 0; stamps && i < count; i++) {
        const json_t *file = json_array_get(files, i);
        json_int_t numbers[5];
        for (size_t n = 0; n < 5; n++)
            numbers[n] = json_integer_value(json_array_get(file, n));
        stamps[i] = (s_stamp_t){(dev_t)numbers[0],
                                (ino_t)numbers[1],
                                (off_t)numbers[2],
                                {(time_t)numbers[3], (long)numbers[4]}};
    }
    return stamps;
}

// Only what was finished was handed over; and what it says of itself has to be what is said of it.
static bool
s_is_whole(const lade_region_t *region, uint64_t length)
{
    lade_segment_t *segment = NULL;
    bool whole = !lade_segment_open(region->bytes, region->size, &segment, NULL) &&
                 lade_segment_bytes(segment) == length &&
                 lade_segment_generation(segment) == region->generation;
    lade_segment_close(&segment);
    return whole;
}

// Makes an entry of a record; false if it is none that can be used.
static bool
s_inherit_segment(s_heir_t *heir, const json_t *facts, int fd)
{
    lade_cache_t *self = heir->cache;
    s_place_t *host = &self->places[0];
    lade_region_t *region = NULL;
    const char *submodel = lade_json_text(facts, "submodel", NULL);
    const json_t *files = json_object_get(facts, "files");
    uint64_t length = (uint64_t)lade_json_int(facts, "length", 0);
    lade_cache_request_t request = {.key = lade_json_text(facts, "key", ""), .submodel = submodel};
    request.want.cast = lade_json_bool(facts, "cast", false);
    request.want.dtype = (lade_dtype_t)lade_json_int(facts, "dtype", 0);
    request.want.channels_last = lade_json_bool(facts, "channels_last", false);
    snprintf(request.want.device, sizeof request.want.device, "%s",
             lade_json_text(facts, "device", ""));
    request.record = facts;
    if (!*request.key || length > host->limit || host->held > host->limit - length ||
        s_find(self, &request) ||
        lade_memory_adopt(self->memory, fd, (size_t)lade_json_int(facts, "size", 0),
                          (uint64_t)lade_json_int(facts, "generation", 0), &region, NULL))
        return false;
    s_stamp_t *stamps = s_read_stamps(files);
    if (!stamps || !s_is_whole(region, length)) {
        free(stamps);
        lade_memory_put(self->memory, &region); // closes fd
        return true;
    }
    s_entry_t *entry = s_entry_new(&request, host, stamps, json_array_size(files));
    snprintf(entry->kept_precision, sizeof entry->kept_precision, "%s",
             lade_json_text(facts, "precision", "none"));
    entry->precision = entry->kept_precision;
    entry->unsafe = lade_json_bool(facts, "unsafe", true);
    entry->state = S_READY;
    entry->bytes = entry->length = length;
    entry->region = region;
    entry->used = ++self->uses;
    entry->last_used = lade_now();
    host->held += length;
    host->high_watermark = host->held > host->high_watermark ? host->held : host->high_watermark;
    s_add(self, entry);
    heir->segments++;
    heir->bytes += length;
    return true;
}

static void
s_on_record(void *arg, const json_t *facts, int fd)
{
    s_heir_t *heir = arg;
    const char *is = lade_json_text(facts, "is", "");
    if (!strcmp(is, "connection")) {
        s_peer_t *peer = calloc(1, sizeof *peer);
        if (!peer)
            abort();
        uint64_t generation = (uint64_t)lade_json_int(facts, "generation", 0);
        *peer = (s_peer_t){heir->waiting, fd, 0, generation};
        heir->waiting = peer;
    } else if (strcmp(is, "segment") != 0 || !s_inherit_segment(heir, facts, fd))
        close(fd);
}

static s_entry_t *
s_find_generation(const lade_cache_t *self, uint64_t generation)
{
    s_entry_t *entry = self->entries;
    while (entry && entry->region->generation != generation)
        entry = entry->next;
    return entry;
}

// A connection holds its segment again, with a lease of its own; one of a segment that is not there
// any more is closed: what its process sees stays what it was, but nobody counts it.
static void
s_inherit_peer(lade_cache_t *self, s_peer_t *peer)
{
    s_entry_t *entry = s_find_generation(self, peer->generation);
    if (!entry || lade_leases_add(self->leases, entry, 0, 0, &peer->lease, NULL)) {
        close(peer->connection);
        free(peer);
        return;
    }
    entry->locks++;
    lade_leases_attach(self->leases, peer->lease);
    peer->next = self->peers;
    self->peers = peer;
}

void
lade_cache_keep(lade_cache_t *self, lade_keep_t *keep)
{
    s_heir_t heir = {.cache = self};
    pthread_mutex_lock(&self->lock);
    self->keep = keep;
    lade_keep_take(keep, s_on_record, &heir);
    size_t connections = 0;
    for (s_peer_t *peer = heir.waiting, *next; peer; peer = next, connections++) {
        next = peer->next;
        s_inherit_peer(self, peer);
    }
    for (const s_entry_t *entry = self->entries; entry; entry = entry->next)
        s_keep_entry(self, entry);
    for (const s_peer_t *peer = self->peers; peer; peer = peer->next)
        s_keep_peer(self, peer);
    pthread_mutex_unlock(&self->lock);
    if (heir.segments || connections)
        lade_log(LADE_LOG_INFO, "cache",
                 "%zu models of %zu bytes and %zu connections of a worker that is gone are taken "
                 "over",
                 heir.segments, heir.bytes, connections);
}

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
    self->places[0] =
        (s_place_t){.name = "cpu",
                    .setting = "load.cache_mb",
                    .refusal = LADE_NO_MEMORY,
                    .limit = options->limit ? options->limit : lade_memory_machine_bytes() / 2};
    for (size_t i = 0; i < devices; i++) {
        lade_vram_device_t *device = lade_vram_get(self->vram, i);
        self->places[i + 1] = (s_place_t){.device = device,
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
    s_release(self, self->entries);
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
