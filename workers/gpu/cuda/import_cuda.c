// Memory of a device that another process shares: what a program that looks at a model in VRAM
// needs of this plug-in.
#include "workers/gpu/cuda/device_cuda.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int device;
    lade_cuda_memory_t memory; // VMM
    CUdeviceptr opened;        // IPC
} s_import_t;

// The device's number here: another process may count them differently, or see fewer.
static lade_code_t
s_find(const lade_cuda_driver_t *driver, const uint8_t *uuid, int *device_p, lade_error_t *error)
{
    for (int i = 0; i < driver->devices; i++) {
        CUdevice device;
        CUuuid is;
        if (!driver->cuDeviceGet_p(&device, i) && !driver->cuDeviceGetUuid_p(&is, device) &&
            !memcmp(is.bytes, uuid, sizeof is.bytes)) {
            *device_p = i;
            return LADE_OK;
        }
    }
    return lade_error_set(error, LADE_NOT_FOUND,
                          "the model is on a device that this process does not see (is "
                          "CUDA_VISIBLE_DEVICES set?)");
}

static lade_code_t
s_open(const lade_cuda_driver_t *driver, const lade_share_t *share, s_import_t *self,
       lade_error_t *error)
{
    cudaError_t entered = cudaSetDevice(self->device);
    if (!entered)
        entered = cudaFree(NULL); // makes the context if this process has none
    if (entered)
        return lade_cuda_fail(entered, "using the device", error);
    if (share->kind == LADE_SHARE_VMM)
        return lade_cuda_memory_import(self->device, share->fd, share->bytes, &self->memory, error);
    CUipcMemHandle handle;
    memcpy(&handle, share->handle, sizeof handle);
    CUresult result =
        driver->cuIpcOpenMemHandle_p(&self->opened, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    return result ? lade_cuda_fail_driver(result, "opening what is shared", error) : LADE_OK;
}

static lade_code_t
s_import(const lade_share_t *share, lade_import_t *import, lade_error_t *error)
{
    *import = (lade_import_t){0};
    const lade_cuda_driver_t *driver = lade_cuda_driver(error);
    if (!driver)
        return LADE_NOT_FOUND;
    if (share->kind != LADE_SHARE_VMM && share->kind != LADE_SHARE_IPC)
        return lade_error_set(error, LADE_VALUE_ERROR, "what is shared is no memory of a device");
    s_import_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for what is shared");
    self->memory.fd = -1;
    int before = 0;
    bool had_device = !cudaGetDevice(&before);
    lade_code_t code = s_find(driver, share->uuid, &self->device, error);
    if (!code)
        code = s_open(driver, share, self, error);
    if (had_device)
        (void)cudaSetDevice(before);
    if (code) {
        free(self);
        return code;
    }
    *import = (lade_import_t){.own = self,
                              .bytes = share->bytes,
                              .address = self->opened ? self->opened : self->memory.address,
                              .device = self->device};
    return LADE_OK;
}

static lade_code_t
s_peek(const lade_import_t *import, uint64_t from, void *to, size_t size, lade_error_t *error)
{
    if (size > import->bytes || from > import->bytes - size)
        return lade_error_set(error, LADE_VALUE_ERROR, "a read beyond the end of what is shared");
    int before = 0;
    bool had_device = !cudaGetDevice(&before);
    cudaError_t result = cudaSetDevice(import->device);
    if (!result)
        result = cudaMemcpy(to, (const void *)(uintptr_t)(import->address + from), size,
                            cudaMemcpyDeviceToHost);
    if (had_device)
        (void)cudaSetDevice(before);
    return result ? lade_cuda_fail(result, "reading from the device", error) : LADE_OK;
}

static void
s_unimport(lade_import_t *import)
{
    s_import_t *self = import->own;
    if (self) {
        int before = 0;
        bool had_device = !cudaGetDevice(&before);
        if (!cudaSetDevice(self->device))
            (void)cudaDeviceSynchronize(); // kernels may still read it
        if (self->opened)
            lade_cuda_driver(NULL)->cuIpcCloseMemHandle_p(self->opened);
        else
            lade_cuda_memory_free(&self->memory);
        if (had_device)
            (void)cudaSetDevice(before);
        free(self);
    }
    *import = (lade_import_t){0};
}

const lade_importer_t lade_cuda_importer = {
    .version = LADE_PLUGIN_VERSION, .import = s_import, .peek = s_peek, .unimport = s_unimport};
