// The devices of this machine as places for models: opened when first asked for, with a limit each,
// and what is said once when there are none or one is lost.
#ifndef LADE_GPU_VRAM_H
#define LADE_GPU_VRAM_H

#include "workers/gpu/backend.h"
#include "workers/gpu/layout.h"

#include <jansson.h>

typedef struct lade_vram lade_vram_t;
typedef struct lade_vram_device lade_vram_device_t;

// Looks for the plug-in "cuda" and its devices, and logs once what it found or why there is
// nothing; never an error. limit: bytes of models on each device (0: all of it), of which working
// are left free for those who compute with them.
lade_vram_t *lade_vram_new(size_t limit, size_t working);

// The same with a backend that is there already.
lade_vram_t *lade_vram_new_of(const lade_backend_t *backend, size_t limit, size_t working);

// How it is found out whether a device that is lost is back, which this process will not see:
// called when somebody asks for the device, not more often than every few seconds, from any thread.
// It may block, and fills why with what is wrong. Without one, a device that is lost stays lost.
typedef bool(lade_vram_probe_t)(const char *device, char *why, size_t size);
void lade_vram_set_probe(lade_vram_t *self, lade_vram_probe_t *probe);

// True if a device that was lost is back: another process would have it.
bool lade_vram_is_back(const lade_vram_t *self);

// Closes the devices; their blocks must have been freed. NULL-safe.
void lade_vram_destroy(lade_vram_t **self_p);

size_t lade_vram_count(const lade_vram_t *self);
lade_vram_device_t *lade_vram_get(lade_vram_t *self, size_t index);

// The device called NAME:N, opened. LADE_NO_VRAM if this worker has none of that name, saying why;
// LADE_IO_ERROR if it is lost.
lade_code_t lade_vram_find(lade_vram_t *self, const char *name, lade_vram_device_t **device_p,
                           lade_error_t *error);

const char *lade_vram_name(const lade_vram_device_t *device);
size_t lade_vram_limit(const lade_vram_device_t *device); // what is left of it beside working
bool lade_vram_lost(const lade_vram_device_t *device);    // logged when first noticed

// LADE_NO_VRAM also if less than the working memory would be left free.
lade_code_t lade_vram_allocate(lade_vram_device_t *device, size_t bytes, lade_block_t *block,
                               lade_error_t *error);
void lade_vram_free(lade_vram_device_t *device, lade_block_t *block);

// True if the device itself can turn the files into what is planned; else they go by way of the
// host's memory.
bool lade_vram_can_read(const lade_layout_t *layout);

// Fills a block with what the layout plans, from its files; check: weights with channels last are
// then convolved both ways, LADE_CORRUPT if that differs. Blocks; as lade_layout_read.
lade_code_t lade_vram_read(lade_vram_device_t *device, const lade_block_t *block,
                           const lade_layout_t *layout, size_t threads, bool check,
                           bool (*step)(void *arg, uint64_t bytes), void *arg, lade_error_t *error);

// The same from bytes of the host's memory, and back into them.
lade_code_t lade_vram_copy(lade_vram_device_t *device, const lade_block_t *block, const void *bytes,
                           size_t size, size_t threads, bool (*step)(void *arg, uint64_t bytes),
                           void *arg, lade_error_t *error);
lade_code_t lade_vram_save(lade_vram_device_t *device, const lade_block_t *block, void *bytes,
                           size_t size, lade_error_t *error);

lade_code_t lade_vram_share(lade_vram_device_t *device, const lade_block_t *block,
                            lade_share_t *share, lade_error_t *error);

// Adds what is known of the device to a map: "name", "model", "total_bytes", "free_bytes",
// "ring_bytes", "copied_bytes", "lost".
void lade_vram_stats(lade_vram_device_t *device, json_t *stats);

// Why there is no device; "" if there is one.
const char *lade_vram_why(const lade_vram_t *self);

#endif
