// The models held, in host memory and on devices: each is one segment, read once and shared.
//
// A model on a device has its head and index in host memory, and its data in a block whose first
// byte is that at data_at. What makes room on a device goes into host memory if there is room
// without anything else going, and comes back from there.
//
// Who asks for a model that is here gets it; who asks for one that is being read waits for that;
// else it is read, and the least recently used ones that nobody has locked make room. Knows nothing
// of jobs and messages.
#ifndef LADE_GPU_CACHE_H
#define LADE_GPU_CACHE_H

#include "common/error.h"
#include "workers/gpu/attach.h"
#include "workers/gpu/keep.h"
#include "workers/gpu/layout.h"
#include "workers/gpu/loaders.h"
#include "workers/gpu/vram.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct lade_cache lade_cache_t;

typedef struct {
    const char *name;          // of the worker: leases are NAME/N
    const char *models_dir;    // where relative paths of records begin
    size_t limit;              // bytes of models, kept pages included; 0: half of the machine's
    size_t pool;               // bytes of pages kept after eviction, within limit; 0: as many
    size_t threads;            // that read one model; 0: one a core
    const lade_loader_t *rows; // ended by one of NULLs
    lade_vram_t *vram;         // the devices; NULL: none. The cache's from then on
    bool check;                // weights with channels last are checked on the device
} lade_cache_options_t;

typedef struct {
    const json_t *record;
    const char *key;
    const char *submodel; // NULL: none
    lade_want_t want;
    bool allow_unsafe; // a model whose files have findings too
    bool lock;         // with a lease, bound to pid (0: to none) and ttl_s (0: no limit)
    pid_t pid;
    double ttl_s;
    const char
        *lease; // one of this model that is to be renewed rather than a new one made; NULL: none

    // Told how far it is; false stops (LADE_CANCELLED). May be NULL. Called on the thread of
    // lade_cache_load.
    bool (*step)(void *arg, uint64_t bytes, uint64_t total_bytes);
    void *arg;
} lade_cache_request_t;

typedef struct {
    uint64_t id;   // of the segment, its generation
    size_t bytes;  // of the segment
    char path[64]; // opens it, for processes of the same user, as long as the lease lives; "" for
                   // one on a device
    char precision[16];
    bool unsafe;     // it was allowed
    char lease[256]; // "" without lock
} lade_cache_answer_t;

// The options are copied. LADE_CONFIG_ERROR for two loaders of one triple.
lade_code_t lade_cache_new(const lade_cache_options_t *options, lade_cache_t **self_p,
                           lade_error_t *error);

// Hands what is held to the keeper from now on, and takes over what workers left that are gone: the
// segments that are whole, and the connections of who looks at them, each with a new lease. Takes
// keep over. Call once, before anything is loaded and before the attach server is made.
void lade_cache_keep(lade_cache_t *self, lade_keep_t *keep);

// True if this worker may end and start anew without anybody losing what is locked: nothing is, or
// only what processes are attached to in host memory, which the keeper holds.
bool lade_cache_can_leave(lade_cache_t *self);

// Leaves what the keeper holds to the next worker, as a crash does, and changes nothing there any
// more. Before the attach server is destroyed, whose connections stay open in the keeper.
void lade_cache_leave(lade_cache_t *self);

// A keeper may have come just now: if so, it is told of all there is.
void lade_cache_keeper_came(lade_cache_t *self);

// Ends all leases; nobody may be attached or loading any more.
void lade_cache_destroy(lade_cache_t **self_p);

// Has the model held, and locked if asked for. Blocks while it is read; safe from any thread.
// LADE_MODEL_NOT_FOUND, LADE_NOT_IMPLEMENTED, LADE_VALUE_ERROR, LADE_UNSAFE_FILE, LADE_NO_MEMORY,
// LADE_CORRUPT, LADE_IO_ERROR, LADE_CANCELLED.
lade_code_t lade_cache_load(lade_cache_t *self, const lade_cache_request_t *request,
                            lade_cache_answer_t *answer, lade_error_t *error);

// Ends a lease. False if it is over already, or none of ours.
bool lade_cache_unlock(lade_cache_t *self, const char *lease);

// Drops what nobody has locked: of a key and submodel, of a key with all its submodels, or (both
// NULL) everything. Returns how many models.
size_t lade_cache_unload(lade_cache_t *self, const char *key, const char *submodel);

// {"bytes", "limit_bytes", "pool_bytes", "models": [{"key", "submodel", "name", "precision",
// "layout", "device", "bytes", "locks", "locked_by": [pid or null], "last_used", "loading"}],
// "in_cache", "hits", "misses", "evictions", "cleared" (by the last making of room or unloading),
// "high_watermark", "loaded_model_sizes": {"base:type:name[:submodel]": the most bytes}, "leases",
// "io": lade_reader_stats, "huge": lade_memory_stats, "keeper": lade_keep_stats, "devices":
// [{"name", "model", "bytes", "limit_bytes", "total_bytes", "free_bytes", "evictions", "demotions",
// "promotions", "high_watermark", "lost", …}], "no_device": why or null}; yours.
json_t *lade_cache_stats(lade_cache_t *self);

// What an attach server serves with a cache as its arg.
extern const lade_attach_ops_t lade_cache_attach_ops;

#endif
