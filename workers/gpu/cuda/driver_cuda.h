// The driver, bound at run time: the plug-in opens on machines that have none, and says so.
#ifndef LADE_GPU_DRIVER_CUDA_H
#define LADE_GPU_DRIVER_CUDA_H

#include "common/error.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

// Every call of the driver that is used, under its name in libcuda.
#define LADE_CUDA_CALLS(X)                                                                         \
    X(cuInit, "cuInit")                                                                            \
    X(cuDeviceGet, "cuDeviceGet")                                                                  \
    X(cuDeviceGetCount, "cuDeviceGetCount")                                                        \
    X(cuDeviceGetName, "cuDeviceGetName")                                                          \
    X(cuDeviceGetUuid, "cuDeviceGetUuid_v2")                                                       \
    X(cuDeviceTotalMem, "cuDeviceTotalMem_v2")                                                     \
    X(cuDeviceGetAttribute, "cuDeviceGetAttribute")                                                \
    X(cuGetErrorString, "cuGetErrorString")                                                        \
    X(cuMemAlloc, "cuMemAlloc_v2")                                                                 \
    X(cuMemFree, "cuMemFree_v2")                                                                   \
    X(cuMemGetAllocationGranularity, "cuMemGetAllocationGranularity")                              \
    X(cuMemCreate, "cuMemCreate")                                                                  \
    X(cuMemRelease, "cuMemRelease")                                                                \
    X(cuMemAddressReserve, "cuMemAddressReserve")                                                  \
    X(cuMemAddressFree, "cuMemAddressFree")                                                        \
    X(cuMemMap, "cuMemMap")                                                                        \
    X(cuMemUnmap, "cuMemUnmap")                                                                    \
    X(cuMemSetAccess, "cuMemSetAccess")                                                            \
    X(cuMemExportToShareableHandle, "cuMemExportToShareableHandle")                                \
    X(cuMemImportFromShareableHandle, "cuMemImportFromShareableHandle")                            \
    X(cuIpcGetMemHandle, "cuIpcGetMemHandle")                                                      \
    X(cuIpcOpenMemHandle, "cuIpcOpenMemHandle_v2")                                                 \
    X(cuIpcCloseMemHandle, "cuIpcCloseMemHandle")

#define LADE_CUDA_MEMBER(call, symbol) __typeof__(call) *call##_p;
typedef struct {
    LADE_CUDA_CALLS(LADE_CUDA_MEMBER)
    int devices;
} lade_cuda_driver_t;
#undef LADE_CUDA_MEMBER

// The driver, initialised, with at least one device; NULL with *error (LADE_NOT_FOUND) that says
// what is missing. Found out once.
const lade_cuda_driver_t *lade_cuda_driver(lade_error_t *error);

// A call that failed, as an error: LADE_NO_VRAM for memory, else LADE_IO_ERROR.
lade_code_t lade_cuda_fail_driver(CUresult result, const char *what, lade_error_t *error);
lade_code_t lade_cuda_fail(cudaError_t result, const char *what, lade_error_t *error);

// True for failures after which the device is of no use to this process.
int lade_cuda_is_fatal(cudaError_t result);
int lade_cuda_is_fatal_driver(CUresult result);

// Device memory that others can see. Needs the device to be the thread's current one.
typedef struct {
    CUdeviceptr address;
    size_t bytes; // mapped
    CUmemGenericAllocationHandle handle;
    int fd;  // of the handle; -1 for IPC
    int vmm; // else from cuMemAlloc
} lade_cuda_memory_t;

// plain: cuMemAlloc, also taken where the device has no virtual memory management.
lade_code_t lade_cuda_memory_new(int device, size_t bytes, int plain, lade_cuda_memory_t *memory,
                                 lade_error_t *error);
void lade_cuda_memory_free(lade_cuda_memory_t *memory);

// How many bytes a mapping of so many has.
lade_code_t lade_cuda_round(int device, size_t bytes, size_t *rounded_p, lade_error_t *error);

// Maps a descriptor's memory: for reading only where the device can.
lade_code_t lade_cuda_memory_import(int device, int fd, size_t bytes, lade_cuda_memory_t *memory,
                                    lade_error_t *error);

#endif
