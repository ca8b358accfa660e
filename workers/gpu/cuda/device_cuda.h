// An opened device: its streams and its ring of stages.
#ifndef LADE_GPU_DEVICE_CUDA_H
#define LADE_GPU_DEVICE_CUDA_H

#include "workers/gpu/backend.h"
#include "workers/gpu/cuda/driver_cuda.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    LADE_CUDA_STREAMS = 4,
    LADE_CUDA_SLOTS = 64, // of the ring, at most
};

// A stage. The one stream of a slot keeps what is done with it in order.
typedef struct {
    uint8_t *bytes; // pinned
    size_t stream;
    cudaEvent_t copied; // the device has read it
} lade_cuda_slot_t;

typedef struct {
    cudaStream_t stream;
    pthread_mutex_t lock; // of scratch's use: a copy into it and the kernels on it go in one go
    void *scratch;        // a stage's bytes on the device, to be cast from; made when first needed
} lade_cuda_lane_t;

typedef struct {
    int index;
    int plain_ipc;
    uint64_t limit, ring_bytes;
    uint8_t uuid[16];
    lade_cuda_lane_t lanes[LADE_CUDA_STREAMS];
    atomic_bool lost;

    pthread_mutex_t lock; // of all below
    pthread_cond_t back;  // a slot is, or is on its way
    void *ring;
    int registered; // else from cudaHostAlloc
    lade_cuda_slot_t slots[LADE_CUDA_SLOTS];
    size_t slot_count;
    size_t idle[LADE_CUDA_SLOTS], idle_count; // numbers of slots
    // Being copied, oldest first.
    size_t pending[LADE_CUDA_SLOTS], pending_first, pending_count;
    uint64_t used, blocks, copied;
} lade_cuda_device_t;

// Makes the device the thread's current one. Fails at once when it is lost.
lade_code_t lade_cuda_enter(lade_cuda_device_t *self, lade_error_t *error);

// A call on the device failed: the error, and whether the device is lost with it.
lade_code_t lade_cuda_failed(lade_cuda_device_t *self, cudaError_t result, const char *what,
                             lade_error_t *error);

// The ring (ring_cuda.c).
lade_code_t lade_cuda_stage(void *self, void **stage_p, uint8_t **bytes_p, lade_error_t *error);
void lade_cuda_drop(void *self, void *stage);
lade_code_t lade_cuda_submit(void *self, void *stage, const lade_block_t *block,
                             const lade_move_t *moves, size_t count, lade_error_t *error);
lade_code_t lade_cuda_finish(void *self, const lade_block_t *block, lade_error_t *error);
void lade_cuda_ring_free(lade_cuda_device_t *self);

// The check by convolution (check_cuda.c).
lade_code_t lade_cuda_check(void *self, const lade_block_t *block, const lade_move_t *move,
                            const void *source, lade_error_t *error);

// Other processes' memory (import_cuda.c).
extern const lade_importer_t lade_cuda_importer;

#endif
