// What the files of the cache share: cache.c (loading, unlocking, unloading), cache_entries.c (the
// table), cache_room.c (waiting, eviction), cache_devices.c (models on devices), cache_keep.c (who
// is attached, and what outlives the worker) and cache_stats.c.
#ifndef LADE_GPU_CACHE_PRIVATE_H
#define LADE_GPU_CACHE_PRIVATE_H

#include "workers/gpu/cache.h"
#include "workers/gpu/leases.h"
#include "workers/gpu/memory.h"
#include "workers/gpu/stamps.h"

#include <pthread.h>

typedef struct lade_cache_entry lade_cache_entry_t;
typedef struct lade_cache_place lade_cache_place_t;
typedef struct lade_cache_peer lade_cache_peer_t;

typedef enum { LADE_ENTRY_LOADING, LADE_ENTRY_READY } lade_cache_entry_state_t;

struct lade_cache_entry {
    lade_cache_entry_t *next;
    char *key, *submodel; // submodel NULL for none
    lade_want_t want;
    json_t *called; // {"base", "type", "name"} of the record
    lade_stamps_t stamps;
    lade_cache_entry_state_t state;
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
    lade_cache_place_t *place;
    lade_block_t block; // its data, on a device
};

// Where models are: the host, or a device. Each has its own limit.
struct lade_cache_place {
    lade_vram_device_t *device; // NULL: the host
    const char *name;
    const char *setting; // that raises the limit
    lade_code_t refusal; // when there is no room
    size_t limit;
    size_t held; // bytes of all entries there
    size_t high_watermark;
    uint64_t evictions, demotions, promotions;
};

// A process that is attached: its connection, and the lease that lives as long.
struct lade_cache_peer {
    lade_cache_peer_t *next;
    int connection;
    uint64_t lease, generation;
};

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
    lade_cache_entry_t *entries;
    lade_cache_place_t *places; // the host is the first
    size_t place_count;
    lade_keep_t *keep;
    lade_cache_peer_t *peers;
    uint64_t uses, hits, misses;
    size_t cleared; // models that the last making of room or unloading dropped
    json_t *sizes;  // label to the most bytes it took
};

// One that fills an entry, as the arg of lade_cache_on_step.
typedef struct {
    lade_cache_t *cache;
    lade_cache_entry_t *entry;
    const lade_cache_request_t *request;
} lade_cache_reading_t;

// All that follow are called with the lock held but where it says not.

// ---------------------------------------------------------------------------------------------------
// cache_entries.c

// Takes the stamps over and leaves none; aborts without memory.
lade_cache_entry_t *lade_cache_entry_new(const lade_cache_request_t *request,
                                         lade_cache_place_t *place, lade_stamps_t *stamps);
void lade_cache_entry_destroy(lade_cache_entry_t **entry_p);

lade_cache_entry_t *lade_cache_entry_find(const lade_cache_t *self,
                                          const lade_cache_request_t *request);

// The same model as an entry's in host memory, to be had without reading; NULL if there is none.
lade_cache_entry_t *lade_cache_entry_on_host(const lade_cache_t *self,
                                             const lade_cache_entry_t *entry);

bool lade_cache_entry_can_go(const lade_cache_entry_t *entry);

void lade_cache_entry_add(lade_cache_t *self, lade_cache_entry_t *entry);

// Takes an entry out of the table and its bytes off the account.
void lade_cache_entry_unlink(lade_cache_t *self, lade_cache_entry_t *entry);

// Gives back what entries that are out of the table held. Not under the lock.
void lade_cache_release(lade_cache_t *self, lade_cache_entry_t *list);

// ---------------------------------------------------------------------------------------------------
// cache_room.c

// Waits for a change of the table, not for ever: the request may be stopped meanwhile
// (LADE_CANCELLED). done and total are what it is told.
lade_code_t lade_cache_wait(lade_cache_t *self, const lade_cache_request_t *request, uint64_t done,
                            uint64_t total, lade_error_t *error);

// The entry of a place that goes next: a stale one, else the least recently used, after *last
// (NULL: from the first on); NULL if all others are locked or being read.
lade_cache_entry_t *lade_cache_victim(const lade_cache_t *self, const lade_cache_place_t *place,
                                      const lade_cache_entry_t *last);

// Moves an entry from the table to a list for lade_cache_release.
void lade_cache_evict(lade_cache_t *self, lade_cache_entry_t *entry, lade_cache_entry_t **list);

// Counts bytes in a place as held.
void lade_cache_hold(lade_cache_place_t *place, size_t bytes);

// Takes bytes off the limit for an entry, evicting into *list, whatever is returned. What is being
// read cannot go, but may soon; so it waits.
lade_code_t lade_cache_reserve(lade_cache_t *self, lade_cache_entry_t *entry, size_t bytes,
                               const lade_cache_request_t *request, lade_cache_entry_t **list,
                               lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// cache.c

// Tells the table and the request how far a reading is; false stops. Not under the lock.
bool lade_cache_on_step(void *reading, uint64_t bytes);

// The number in a lease's text; 0 if it is no lease of this cache.
uint64_t lade_cache_lease_id(const lade_cache_t *self, const char *lease);

// ---------------------------------------------------------------------------------------------------
// cache_devices.c: not under the lock

// Makes room and reads into a device; *region_p gets head and index.
lade_code_t lade_cache_read_device(lade_cache_t *self, lade_cache_entry_t *entry,
                                   const lade_cache_request_t *request, lade_layout_t *layout,
                                   lade_region_t **region_p, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// cache_keep.c

// The keeper holds an entry from now on, or not any more. Without a keeper nothing.
void lade_cache_keep_entry(lade_cache_t *self, const lade_cache_entry_t *entry);
void lade_cache_keep_not(lade_cache_t *self, const lade_cache_entry_t *entry);

// Looks for a keeper, if there is none, now or now and then, and tells one that has just come of
// all there is.
void lade_cache_keep_tend(lade_cache_t *self, bool now);

// ---------------------------------------------------------------------------------------------------
// cache_stats.c

// Notes the most bytes a model took, whatever becomes of it.
void lade_cache_note_size(lade_cache_t *self, const lade_cache_entry_t *entry);

#endif
