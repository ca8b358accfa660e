// CUDA devices as a backend: the table, devices and blocks. One primary context a device, shared
// with whatever else of this process uses the device.
#include "workers/gpu/cuda/device_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

lade_code_t
lade_cuda_failed(lade_cuda_device_t *self, cudaError_t result, const char *what,
                 lade_error_t *error)
{
    if (lade_cuda_is_fatal(result))
        atomic_store(&self->lost, true);
    char words[100];
    snprintf(words, sizeof words, "cuda:%d%s: %s", self->index,
             atomic_load(&self->lost) ? " is lost" : "", what);
    return lade_cuda_fail(result, words, error);
}

lade_code_t
lade_cuda_enter(lade_cuda_device_t *self, lade_error_t *error)
{
    if (atomic_load(&self->lost))
        return lade_error_set(error, LADE_IO_ERROR, "cuda:%d is lost", self->index);
    cudaError_t result = cudaSetDevice(self->index);
    return result ? lade_cuda_failed(self, result, "using the device", error) : LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Devices

static size_t
s_count(lade_error_t *error)
{
    const lade_cuda_driver_t *driver = lade_cuda_driver(error);
    return driver ? (size_t)driver->devices : 0;
}

static lade_code_t
s_check_index(size_t index, const lade_cuda_driver_t **driver_p, lade_error_t *error)
{
    *driver_p = lade_cuda_driver(error);
    if (!*driver_p)
        return LADE_NOT_FOUND;
    if (index >= (size_t)(*driver_p)->devices)
        return lade_error_set(error, LADE_NOT_FOUND, "there is no cuda:%zu: there are %d devices",
                              index, (*driver_p)->devices);
    return LADE_OK;
}

static lade_code_t
s_describe(size_t index, lade_device_info_t *info, lade_error_t *error)
{
    const lade_cuda_driver_t *driver;
    *info = (lade_device_info_t){0};
    lade_code_t code = s_check_index(index, &driver, error);
    if (code)
        return code;
    CUdevice device;
    CUuuid uuid;
    size_t total = 0;
    CUresult result = driver->cuDeviceGet_p(&device, (int)index);
    if (!result)
        result = driver->cuDeviceGetName_p(info->name, sizeof info->name, device);
    if (!result)
        result = driver->cuDeviceGetUuid_p(&uuid, device);
    if (!result)
        result = driver->cuDeviceTotalMem_p(&total, device);
    if (result)
        return lade_cuda_fail_driver(result, "asking a device what it is", error);
    memcpy(info->uuid, uuid.bytes, sizeof info->uuid);
    info->total = total;
    return LADE_OK;
}

static lade_code_t
s_start(lade_cuda_device_t *self, lade_error_t *error)
{
    // Who waits for the device sleeps. Refused if the context is in use already, which is no harm.
    if (cudaSetDevice(self->index) || cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync))
        (void)cudaGetLastError();
    cudaError_t result = cudaSetDevice(self->index);
    if (!result)
        result = cudaFree(NULL); // makes the context
    for (size_t i = 0; !result && i < LADE_CUDA_STREAMS; i++)
        result = cudaStreamCreateWithFlags(&self->lanes[i].stream, cudaStreamNonBlocking);
    return result ? lade_cuda_failed(self, result, "opening the device", error) : LADE_OK;
}

static void
s_close(void **self_p)
{
    lade_cuda_device_t *self = *self_p;
    if (!self)
        return;
    (void)cudaSetDevice(self->index);
    for (size_t i = 0; i < LADE_CUDA_STREAMS; i++)
        if (self->lanes[i].stream)
            cudaStreamSynchronize(self->lanes[i].stream);
    lade_cuda_ring_free(self);
    for (size_t i = 0; i < LADE_CUDA_STREAMS; i++) {
        if (self->lanes[i].stream)
            cudaStreamDestroy(self->lanes[i].stream);
        pthread_mutex_destroy(&self->lanes[i].lock);
    }
    pthread_cond_destroy(&self->back);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *self_p = NULL;
}

static lade_code_t
s_open(size_t index, const lade_backend_options_t *options, void **self_p, lade_error_t *error)
{
    const lade_cuda_driver_t *driver;
    lade_device_info_t info;
    lade_code_t code = s_check_index(index, &driver, error);
    if (!code)
        code = s_describe(index, &info, error);
    if (code)
        return code;
    lade_cuda_device_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a device");
    self->index = (int)index;
    self->plain_ipc = options->plain_ipc;
    self->limit = options->limit ? options->limit : UINT64_MAX;
    self->ring_bytes = options->ring;
    memcpy(self->uuid, info.uuid, sizeof self->uuid);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->back, NULL);
    for (size_t i = 0; i < LADE_CUDA_STREAMS; i++)
        pthread_mutex_init(&self->lanes[i].lock, NULL);
    void *opened = self;
    code = s_start(self, error);
    if (code)
        s_close(&opened);
    else
        *self_p = self;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Blocks

static lade_code_t
s_say_no_room(const lade_cuda_device_t *self, size_t bytes, uint64_t left, lade_error_t *error)
{
    size_t free_bytes = 0, total = 0;
    if (cudaMemGetInfo(&free_bytes, &total))
        (void)cudaGetLastError();
    uint64_t least = free_bytes < left ? free_bytes : left;
    return lade_error_set(error, LADE_NO_VRAM,
                          "%zu bytes of VRAM are asked for and cuda:%d has %llu of its %llu left",
                          bytes, self->index, (unsigned long long)least, (unsigned long long)total);
}

static lade_code_t
s_allocate(void *arg, size_t bytes, lade_block_t *block, lade_error_t *error)
{
    lade_cuda_device_t *self = arg;
    *block = (lade_block_t){0};
    lade_code_t code = lade_cuda_enter(self, error);
    if (code)
        return code;
    pthread_mutex_lock(&self->lock);
    uint64_t left = self->limit > self->used ? self->limit - self->used : 0;
    bool fits = bytes <= left;
    self->used += fits ? bytes : 0;
    pthread_mutex_unlock(&self->lock);
    if (!fits)
        return s_say_no_room(self, bytes, left, error);
    lade_cuda_memory_t *memory = calloc(1, sizeof *memory);
    code = memory ? lade_cuda_memory_new(self->index, bytes ? bytes : 1, self->plain_ipc, memory,
                                         error)
                  : lade_error_set(error, LADE_NO_MEMORY, "no memory for a block");
    if (code == LADE_NO_VRAM)
        s_say_no_room(self, bytes, left, error);
    pthread_mutex_lock(&self->lock);
    self->used -= code ? bytes : 0;
    self->blocks += !code;
    pthread_mutex_unlock(&self->lock);
    if (code)
        free(memory);
    else
        *block = (lade_block_t){.own = memory, .bytes = bytes, .address = memory->address};
    return code;
}

static void
s_free(void *arg, lade_block_t *block)
{
    lade_cuda_device_t *self = arg;
    if (!block->own)
        return;
    (void)cudaSetDevice(self->index);
    lade_cuda_memory_free(block->own);
    free(block->own);
    pthread_mutex_lock(&self->lock);
    self->used -= block->bytes;
    self->blocks--;
    pthread_mutex_unlock(&self->lock);
    *block = (lade_block_t){0};
}

// Through a stage, whose pages are pinned.
static lade_code_t
s_read(void *arg, const lade_block_t *block, uint64_t from, void *to, size_t size,
       lade_error_t *error)
{
    lade_cuda_device_t *self = arg;
    if (size > block->bytes || from > block->bytes - size)
        return lade_error_set(error, LADE_VALUE_ERROR, "a read beyond the end of a block");
    for (size_t done = 0; done < size;) {
        size_t part = size - done < LADE_STAGE_BYTES ? size - done : LADE_STAGE_BYTES;
        void *stage;
        uint8_t *bytes;
        lade_code_t code = lade_cuda_stage(self, &stage, &bytes, error);
        if (code)
            return code;
        cudaStream_t stream = self->lanes[((lade_cuda_slot_t *)stage)->stream].stream;
        cudaError_t result =
            cudaMemcpyAsync(bytes, (const void *)(uintptr_t)(block->address + from + done), part,
                            cudaMemcpyDeviceToHost, stream);
        if (!result)
            result = cudaStreamSynchronize(stream);
        if (!result)
            memcpy((uint8_t *)to + done, bytes, part);
        lade_cuda_drop(self, stage);
        if (result)
            return lade_cuda_failed(self, result, "reading from the device", error);
        done += part;
    }
    return LADE_OK;
}

static lade_code_t
s_share(void *arg, const lade_block_t *block, lade_share_t *share, lade_error_t *error)
{
    lade_cuda_device_t *self = arg;
    const lade_cuda_memory_t *memory = block->own;
    *share = (lade_share_t){.kind = LADE_SHARE_VMM, .fd = memory->fd, .bytes = memory->bytes};
    strcpy(share->plugin, "cuda");
    memcpy(share->uuid, self->uuid, sizeof share->uuid);
    if (memory->vmm)
        return LADE_OK;
    lade_code_t code = lade_cuda_enter(self, error);
    if (code)
        return code;
    CUipcMemHandle handle;
    CUresult result = lade_cuda_driver(NULL)->cuIpcGetMemHandle_p(&handle, memory->address);
    if (result)
        return lade_cuda_fail_driver(result, "sharing memory of the device", error);
    share->kind = LADE_SHARE_IPC;
    memcpy(share->handle, &handle, sizeof share->handle);
    return LADE_OK;
}

static void
s_stats(void *arg, lade_backend_stats_t *stats)
{
    lade_cuda_device_t *self = arg;
    size_t free_bytes = 0, total = 0;
    if (!lade_cuda_enter(self, NULL) && cudaMemGetInfo(&free_bytes, &total))
        free_bytes = total = 0;
    pthread_mutex_lock(&self->lock);
    *stats = (lade_backend_stats_t){.total = total,
                                    .free = free_bytes,
                                    .used = self->used,
                                    .blocks = self->blocks,
                                    .ring = self->slot_count * LADE_STAGE_BYTES,
                                    .copied = self->copied,
                                    .lost = atomic_load(&self->lost)};
    pthread_mutex_unlock(&self->lock);
}

// ---------------------------------------------------------------------------------------------------

static const lade_backend_t s_backend = {
    .version = LADE_PLUGIN_VERSION,
    .name = "cuda",
    .count = s_count,
    .describe = s_describe,
    .open = s_open,
    .close = s_close,
    .allocate = s_allocate,
    .free = s_free,
    .stage = lade_cuda_stage,
    .drop = lade_cuda_drop,
    .submit = lade_cuda_submit,
    .finish = lade_cuda_finish,
    .read = s_read,
    .check = lade_cuda_check,
    .share = s_share,
    .importer = &lade_cuda_importer,
    .stats = s_stats,
};

__attribute__((visibility("default"))) const void *lade_backend_plugin(void);
const void *
lade_backend_plugin(void)
{
    return &s_backend;
}

__attribute__((visibility("default"))) const void *lade_importer_plugin(void);
const void *
lade_importer_plugin(void)
{
    return &lade_cuda_importer;
}
