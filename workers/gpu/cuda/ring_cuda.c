// The ring of pinned stages: made once, kept between loads, handed round between the threads that
// read and the device that copies.
#include "workers/gpu/cuda/device_cuda.h"
#include "workers/gpu/cuda/kernels_cuda.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { S_RING = 256 << 20 };

// ---------------------------------------------------------------------------------------------------
// Making it

// Memory of its own that is pinned afterwards: several times as fast as having the driver find it.
static void *
s_ring_memory(size_t bytes, int *registered_p)
{
    void *ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *registered_p = 0;
    if (ring != MAP_FAILED) {
        madvise(ring, bytes, MADV_HUGEPAGE);
        if (!madvise(ring, bytes, MADV_POPULATE_WRITE))
            *registered_p = !cudaHostRegister(ring, bytes, cudaHostRegisterPortable);
        if (*registered_p)
            return ring;
        munmap(ring, bytes);
        (void)cudaGetLastError();
    }
    return cudaHostAlloc(&ring, bytes, cudaHostAllocPortable) ? NULL : ring;
}

// As large as wanted, or half as large, … : a machine may let little be pinned.
static lade_code_t
s_make_ring(lade_cuda_device_t *self, lade_error_t *error)
{
    size_t count = (self->ring_bytes ? self->ring_bytes : S_RING) / LADE_STAGE_BYTES;
    count = count < 2 ? 2 : count < LADE_CUDA_SLOTS ? count : LADE_CUDA_SLOTS;
    while (!self->ring && count >= 2) {
        self->ring = s_ring_memory(count * LADE_STAGE_BYTES, &self->registered);
        count = self->ring ? count : count / 2;
    }
    if (!self->ring)
        return lade_cuda_failed(self, cudaGetLastError(), "pinning memory of the host", error);
    for (; self->slot_count < count; self->slot_count++) {
        lade_cuda_slot_t *slot = &self->slots[self->slot_count];
        slot->bytes = (uint8_t *)self->ring + self->slot_count * LADE_STAGE_BYTES;
        slot->stream = self->slot_count % LADE_CUDA_STREAMS;
        cudaError_t result =
            cudaEventCreateWithFlags(&slot->copied, cudaEventDisableTiming | cudaEventBlockingSync);
        if (result)
            return lade_cuda_failed(self, result, "making an event", error);
        self->idle[self->idle_count++] = self->slot_count;
    }
    return LADE_OK;
}

void
lade_cuda_ring_free(lade_cuda_device_t *self)
{
    for (size_t i = 0; i < self->slot_count; i++)
        cudaEventDestroy(self->slots[i].copied);
    size_t bytes = self->slot_count * LADE_STAGE_BYTES;
    if (self->ring && self->registered) {
        cudaHostUnregister(self->ring);
        munmap(self->ring, bytes);
    } else if (self->ring)
        cudaFreeHost(self->ring);
    for (size_t i = 0; i < LADE_CUDA_STREAMS; i++)
        if (self->lanes[i].scratch)
            cudaFree(self->lanes[i].scratch);
    self->ring = NULL;
    self->slot_count = 0;
}

// ---------------------------------------------------------------------------------------------------
// Handing out

static void
s_give_back(lade_cuda_device_t *self, size_t number)
{
    pthread_mutex_lock(&self->lock);
    self->idle[self->idle_count++] = number;
    pthread_cond_signal(&self->back);
    pthread_mutex_unlock(&self->lock);
}

// A slot nobody has, else the one whose copy was started first: *wait_p then.
static size_t
s_take(lade_cuda_device_t *self, bool *wait_p)
{
    while (!self->idle_count && !self->pending_count)
        pthread_cond_wait(&self->back, &self->lock);
    *wait_p = !self->idle_count;
    if (self->idle_count)
        return self->idle[--self->idle_count];
    size_t number = self->pending[self->pending_first];
    self->pending_first = (self->pending_first + 1) % LADE_CUDA_SLOTS;
    self->pending_count--;
    return number;
}

lade_code_t
lade_cuda_stage(void *arg, void **stage_p, uint8_t **bytes_p, lade_error_t *error)
{
    lade_cuda_device_t *self = arg;
    lade_code_t code = lade_cuda_enter(self, error);
    if (code)
        return code;
    bool wait = false;
    size_t number = 0;
    pthread_mutex_lock(&self->lock);
    if (self->slot_count == 0)
        code = s_make_ring(self, error);
    if (!code)
        number = s_take(self, &wait);
    pthread_mutex_unlock(&self->lock);
    if (code)
        return code;
    cudaError_t result = wait ? cudaEventSynchronize(self->slots[number].copied) : cudaSuccess;
    if (result) {
        s_give_back(self, number);
        return lade_cuda_failed(self, result, "copying to the device", error);
    }
    *stage_p = &self->slots[number];
    *bytes_p = self->slots[number].bytes;
    return LADE_OK;
}

void
lade_cuda_drop(void *arg, void *stage)
{
    lade_cuda_device_t *self = arg;
    s_give_back(self, (size_t)((lade_cuda_slot_t *)stage - self->slots));
}

// ---------------------------------------------------------------------------------------------------
// Copying

static bool
s_is_plain(const lade_move_t *move)
{
    return move->in == move->out && !move->channels_last;
}

// Straight to where they belong; neighbours in one copy.
static cudaError_t
s_copy_plain(const lade_cuda_slot_t *slot, cudaStream_t stream, const lade_block_t *block,
             const lade_move_t *moves, size_t count)
{
    cudaError_t result = cudaSuccess;
    for (size_t i = 0, next; !result && i < count; i = next) {
        uint64_t size = moves[i].size;
        for (next = i + 1; next < count && moves[next].from == moves[i].from + size &&
                           moves[next].to == moves[i].to + size;
             next++)
            size += moves[next].size;
        result = cudaMemcpyAsync((void *)(uintptr_t)(block->address + moves[i].to),
                                 slot->bytes + moves[i].from, size, cudaMemcpyHostToDevice, stream);
    }
    return result;
}

static cudaError_t
s_start_move(const lade_cuda_lane_t *lane, const lade_block_t *block, const lade_move_t *move)
{
    void *to = (void *)(uintptr_t)(block->address + move->to);
    const void *from = (const uint8_t *)lane->scratch + move->from;
    if (move->channels_last)
        return lade_cuda_channels_last(to, move->out, from, move->in, move->shape, lane->stream);
    if (move->in != move->out)
        return lade_cuda_cast(to, move->out, from, move->in, move->size / lade_dtype_size(move->in),
                              lane->stream);
    return cudaMemcpyAsync(to, from, move->size, cudaMemcpyDeviceToDevice, lane->stream);
}

// By way of the lane's scratch. Under the lane's lock: the next stage of this lane overwrites it,
// after these kernels, which are before it in the stream.
static cudaError_t
s_copy_changed(const lade_cuda_slot_t *slot, lade_cuda_lane_t *lane, const lade_block_t *block,
               const lade_move_t *moves, size_t count)
{
    uint64_t first = UINT64_MAX, end = 0;
    for (size_t i = 0; i < count; i++) {
        first = moves[i].from < first ? moves[i].from : first;
        end = moves[i].from + moves[i].size > end ? moves[i].from + moves[i].size : end;
    }
    cudaError_t result = lane->scratch ? cudaSuccess : cudaMalloc(&lane->scratch, LADE_STAGE_BYTES);
    if (!result && end > first)
        result = cudaMemcpyAsync((uint8_t *)lane->scratch + first, slot->bytes + first, end - first,
                                 cudaMemcpyHostToDevice, lane->stream);
    for (size_t i = 0; !result && i < count; i++)
        if (moves[i].size)
            result = s_start_move(lane, block, &moves[i]);
    return result;
}

static cudaError_t
s_start(lade_cuda_device_t *self, lade_cuda_slot_t *slot, const lade_block_t *block,
        const lade_move_t *moves, size_t count)
{
    lade_cuda_lane_t *lane = &self->lanes[slot->stream];
    bool plain = true;
    for (size_t i = 0; i < count; i++)
        plain = plain && s_is_plain(&moves[i]);
    pthread_mutex_lock(&lane->lock);
    cudaError_t result = plain ? s_copy_plain(slot, lane->stream, block, moves, count)
                               : s_copy_changed(slot, lane, block, moves, count);
    // Also after a failure: what was started still reads the slot.
    cudaError_t recorded = cudaEventRecord(slot->copied, lane->stream);
    pthread_mutex_unlock(&lane->lock);
    return result ? result : recorded;
}

lade_code_t
lade_cuda_submit(void *arg, void *stage, const lade_block_t *block, const lade_move_t *moves,
                 size_t count, lade_error_t *error)
{
    lade_cuda_device_t *self = arg;
    lade_cuda_slot_t *slot = stage;
    uint64_t bytes = 0;
    lade_code_t code = lade_cuda_enter(self, error);
    for (size_t i = 0; !code && i < count; i++) {
        code = lade_move_check(&moves[i], block->bytes, error);
        bytes += moves[i].size;
    }
    if (code) {
        lade_cuda_drop(self, stage);
        return code;
    }
    cudaError_t result = s_start(self, slot, block, moves, count);
    pthread_mutex_lock(&self->lock);
    size_t last = (self->pending_first + self->pending_count++) % LADE_CUDA_SLOTS;
    self->pending[last] = (size_t)(slot - self->slots);
    self->copied += bytes;
    pthread_cond_signal(&self->back);
    pthread_mutex_unlock(&self->lock);
    return result ? lade_cuda_failed(self, result, "copying to the device", error) : LADE_OK;
}

// Waits for the streams: what others submitted meanwhile is on its way at full speed too.
lade_code_t
lade_cuda_finish(void *arg, const lade_block_t *block, lade_error_t *error)
{
    (void)block;
    lade_cuda_device_t *self = arg;
    lade_code_t code = lade_cuda_enter(self, error);
    for (size_t i = 0; !code && i < LADE_CUDA_STREAMS; i++) {
        cudaError_t result = cudaStreamSynchronize(self->lanes[i].stream);
        if (result)
            code = lade_cuda_failed(self, result, "copying to the device", error);
    }
    return code;
}
