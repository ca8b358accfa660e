// Runs of bytes, from files or from memory, through a backend's stages into a block: threads read
// the next piece while the device takes the one before.
#ifndef LADE_GPU_STREAM_H
#define LADE_GPU_STREAM_H

#include "workers/gpu/backend.h"

// A run is a tensor, or many that are taken as they are. A cast run is of whole elements.
typedef struct {
    int fd;               // of the file; -1: memory
    const uint8_t *bytes; // the memory
    const char *name;     // for errors
    uint64_t from;        // bytes from the start of the file; 0 for memory
    uint64_t size;        // bytes there
    uint64_t to;          // bytes from the start of the block
    lade_dtype_t in, out;
    bool channels_last;
    uint64_t shape[4]; // N, C, H, W for channels_last
} lade_run_t;

// How many bytes a run has in the block.
uint64_t lade_run_out(const lade_run_t *run);

// Fills the block and waits for it. The runs are best in the order of their files: neighbours share
// a stage. direct: past the page cache where the file system can. step as for lade_reader_read.
// Blocks. LADE_CANCELLED, LADE_CORRUPT for a file that ends early, LADE_TOO_LARGE for a channels-
// last tensor of which one n is larger than a stage, LADE_IO_ERROR, and what the backend says.
lade_code_t lade_stream_fill(const lade_backend_t *backend, void *device, const lade_block_t *block,
                             const lade_run_t *runs, size_t count, size_t threads, bool direct,
                             bool (*step)(void *arg, uint64_t bytes), void *arg,
                             lade_error_t *error);

#endif
