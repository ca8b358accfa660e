// A backend is where models may live: the host's memory, or that of devices. It is a const table of
// functions; the comments here are the contract, and conformance.h holds every table to it.
//
// The host's is always there. Others are shared objects that are opened at run time
// (common/plugin.h), so that this program needs neither their headers
// nor their libraries, and a machine without them loses nothing but them.
//
// Filling goes through stages: a stage is memory of the host that the device reads at full speed
// (pinned), one of a ring that is kept. Whoever reads takes a stage, fills it and submits it with
// the moves that say where its bytes go and what becomes of them; the copy runs on while the next
// stage is read. finish waits for what was submitted. stream.h does all of this for files.
#ifndef LADE_GPU_BACKEND_H
#define LADE_GPU_BACKEND_H

#include "common/error.h"
#include "common/formats/dtype.h"
#include "common/share.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LADE_STAGE_BYTES = 8 << 20, // of every stage
    LADE_BLOCK_ALIGN = 256,     // of what a tensor's place in a block is a multiple
};

typedef struct {
    char name[64];        // "NVIDIA H100 80GB HBM3"
    uint8_t uuid[16];     // tells devices apart, whatever their order
    uint64_t total, free; // free: 0 if that is not known before it is open
} lade_device_info_t;

typedef struct {
    size_t limit;   // bytes that blocks may take; 0: whatever there is
    size_t ring;    // bytes of stages; 0: the backend's choice
    bool plain_ipc; // share by handles only: how a driver without shareable descriptors does
} lade_backend_options_t;

// Memory on a device.
typedef struct {
    void *own;        // the backend's
    uint64_t bytes;   // at least what was asked for
    uint64_t address; // on the device
    uint8_t *host;    // where the host writes it directly; NULL if it cannot
} lade_block_t;

// What becomes of a part of a stage. Without cast and transposition the bytes are copied as they
// are (elements and shape are then not looked at); a cast is between F32, F16 and BF16, to the
// nearest, ties to even. channels_last: shape is N, C, H, W of whole n's, that come as N, H, W, C.
typedef struct {
    uint64_t from; // bytes from the start of the stage
    uint64_t to;   // bytes from the start of the block
    uint64_t size; // bytes in the stage
    lade_dtype_t in, out;
    bool channels_last;
    uint32_t shape[4];
} lade_move_t;

typedef struct {
    uint64_t total, free; // of the device, as it says itself; 0 when it is lost
    uint64_t used;        // bytes of blocks
    uint64_t blocks;
    uint64_t ring;   // bytes of stages
    uint64_t copied; // bytes submitted
    bool lost;       // nothing works any more but free and close
} lade_backend_stats_t;

// Errors: LADE_NO_VRAM (LADE_NO_MEMORY for the host's) when there is no room, saying how much was
// asked for and how much there is; LADE_IO_ERROR when the device is gone or failed, after which
// stats says lost and every call fails at once. No call ends the process.
typedef struct {
    unsigned version; // LADE_PLUGIN_VERSION; the first member for ever
    const char *name; // devices are called NAME:N

    // How many devices there are; with 0, error says why. Takes no memory on them.
    size_t (*count)(lade_error_t *error);
    lade_code_t (*describe)(size_t index, lade_device_info_t *info, lade_error_t *error);

    // Opens a device; once per process and device. Blocks. *self_p is set only on success.
    lade_code_t (*open)(size_t index, const lade_backend_options_t *options, void **self_p,
                        lade_error_t *error);
    // Frees all but blocks, which must have been freed. NULL-safe; sets *self_p to NULL.
    void (*close)(void **self_p);

    // All that follow are safe from any thread.

    // Makes a block. Blocks while the device works on it. LADE_NO_VRAM, LADE_NO_MEMORY.
    lade_code_t (*allocate)(void *self, size_t bytes, lade_block_t *block, lade_error_t *error);
    // Nothing may be on its way there any more. Who imported it keeps seeing it where the device
    // counts references (MEMFD, VMM); the memory is free when the last lets go. Sets *block to 0s.
    void (*free)(void *self, lade_block_t *block);

    // Takes a stage: LADE_STAGE_BYTES at *bytes_p, page aligned. Blocks until one is back from the
    // device. Hand it to submit or drop.
    lade_code_t (*stage)(void *self, void **stage_p, uint8_t **bytes_p, lade_error_t *error);
    void (*drop)(void *self, void *stage);
    // Starts the moves and returns; takes the stage over, even when it fails. The moves of one
    // stage may overlap in the stage, never in the block.
    lade_code_t (*submit)(void *self, void *stage, const lade_block_t *block,
                          const lade_move_t *moves, size_t count, lade_error_t *error);
    // Waits for all that was submitted for the block, and says whether all of it got there.
    lade_code_t (*finish)(void *self, const lade_block_t *block, lade_error_t *error);

    // Copies out of a block, after finish. Blocks.
    lade_code_t (*read)(void *self, const lade_block_t *block, uint64_t from, void *to, size_t size,
                        lade_error_t *error);

    // Convolves a small input with a weight as it stands in its file (source, move->size bytes) and
    // with what the move made of it in the block, and compares. LADE_CORRUPT if they differ;
    // LADE_NOT_IMPLEMENTED if the library for it is not there. Blocks.
    lade_code_t (*check)(void *self, const lade_block_t *block, const lade_move_t *move,
                         const void *source, lade_error_t *error);

    // Makes a block visible to other processes, read-only where the device can.
    lade_code_t (*share)(void *self, const lade_block_t *block, lade_share_t *share,
                         lade_error_t *error);

    // The other process's side; needs no open.
    const lade_importer_t *importer;

    void (*stats)(void *self, lade_backend_stats_t *stats);
} lade_backend_t;

extern const lade_backend_t lade_backend_host;

// The backend of that name, from its plug-in unless it is the host's. Errors as lade_plugin_open.
lade_code_t lade_backend_find(const char *name, const lade_backend_t **backend_p,
                              lade_error_t *error);

// For backends: LADE_VALUE_ERROR for a move that is not within its stage and a block of so many
// bytes or not of whole elements, LADE_NOT_IMPLEMENTED for a cast there is not.
lade_code_t lade_move_check(const lade_move_t *move, uint64_t block_bytes, lade_error_t *error);

// The function of a plug-in that returns its table.
#define LADE_BACKEND_SYMBOL "lade_backend_plugin"

#endif
