// libcuda by dlopen, and memory of the device that can be shared.
#include "workers/gpu/cuda/driver_cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static pthread_once_t s_once = PTHREAD_ONCE_INIT;
static lade_cuda_driver_t s_driver;
static lade_error_t s_error; // why there is none

static void
s_find(void)
{
    void *object = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        lade_error_set(&s_error, LADE_NOT_FOUND, "no NVIDIA driver is installed: %s", dlerror());
        return;
    }
#define LADE_CUDA_BIND(call, symbol)                                                               \
    *(void **)&s_driver.call##_p = dlsym(object, symbol);                                          \
    if (!s_driver.call##_p) {                                                                      \
        lade_error_set(&s_error, LADE_NOT_FOUND, "the NVIDIA driver is too old: it has no %s",     \
                       symbol);                                                                    \
        return;                                                                                    \
    }
    LADE_CUDA_CALLS(LADE_CUDA_BIND)
    CUresult result = s_driver.cuInit_p(0);
    if (!result)
        result = s_driver.cuDeviceGetCount_p(&s_driver.devices);
    if (result) {
        const char *words = NULL;
        s_driver.cuGetErrorString_p(result, &words);
        lade_error_set(&s_error, LADE_NOT_FOUND, "the NVIDIA driver does not start: %s",
                       words ? words : "unknown error");
    } else if (!s_driver.devices)
        lade_error_set(&s_error, LADE_NOT_FOUND,
                       "the NVIDIA driver sees no device (is CUDA_VISIBLE_DEVICES set?)");
}

const lade_cuda_driver_t *
lade_cuda_driver(lade_error_t *error)
{
    pthread_once(&s_once, s_find);
    if (s_error.code && error)
        *error = s_error;
    return s_error.code ? NULL : &s_driver;
}

lade_code_t
lade_cuda_fail_driver(CUresult result, const char *what, lade_error_t *error)
{
    const char *words = NULL;
    s_driver.cuGetErrorString_p(result, &words);
    return lade_error_set(error, result == CUDA_ERROR_OUT_OF_MEMORY ? LADE_NO_VRAM : LADE_IO_ERROR,
                          "%s: %s", what, words ? words : "unknown error");
}

lade_code_t
lade_cuda_fail(cudaError_t result, const char *what, lade_error_t *error)
{
    return lade_error_set(error, result == cudaErrorMemoryAllocation ? LADE_NO_VRAM : LADE_IO_ERROR,
                          "%s: %s", what, cudaGetErrorString(result));
}

int
lade_cuda_is_fatal(cudaError_t result)
{
    static const cudaError_t fatal[] = {
        cudaErrorECCUncorrectable,
        cudaErrorIllegalAddress,
        cudaErrorLaunchTimeout,
        cudaErrorLaunchFailure,
        cudaErrorHardwareStackError,
        cudaErrorIllegalInstruction,
        cudaErrorMisalignedAddress,
        cudaErrorInvalidAddressSpace,
        cudaErrorInvalidPc,
        cudaErrorAssert,
        cudaErrorDevicesUnavailable,
        cudaErrorNoDevice,
        cudaErrorSystemNotReady,
        cudaErrorInitializationError,
        cudaErrorUnknown,
    };
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        if (fatal[i] == result)
            return 1;
    return 0;
}

// The runtime's numbers are the driver's.
int
lade_cuda_is_fatal_driver(CUresult result)
{
    return lade_cuda_is_fatal((cudaError_t)result);
}

// ---------------------------------------------------------------------------------------------------

static CUmemAllocationProp
s_properties(int device)
{
    CUmemAllocationProp properties;
    memset(&properties, 0, sizeof properties);
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = device;
    return properties;
}

static int
s_has_vmm(int device)
{
    static const CUdevice_attribute needed[] = {
        CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
        CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        int has = 0;
        if (s_driver.cuDeviceGetAttribute_p(&has, needed[i], device) || !has)
            return 0;
    }
    return 1;
}

lade_code_t
lade_cuda_round(int device, size_t bytes, size_t *rounded_p, lade_error_t *error)
{
    CUmemAllocationProp properties = s_properties(device);
    size_t each = 0;
    CUresult result = s_driver.cuMemGetAllocationGranularity_p(&each, &properties,
                                                               CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    if (result || !each)
        return lade_cuda_fail_driver(result, "asking for the size of pages", error);
    *rounded_p = (bytes + each - 1) / each * each;
    return LADE_OK;
}

// Gives memory that there is a handle of an address.
static CUresult
s_map(int device, lade_cuda_memory_t *memory, CUmemAccess_flags flags)
{
    CUmemAccessDesc access;
    memset(&access, 0, sizeof access);
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = device;
    access.flags = flags;
    CUresult result = s_driver.cuMemAddressReserve_p(&memory->address, memory->bytes, 0, 0, 0);
    if (result) {
        memory->address = 0;
        return result;
    }
    result = s_driver.cuMemMap_p(memory->address, memory->bytes, 0, memory->handle, 0);
    if (!result) {
        result = s_driver.cuMemSetAccess_p(memory->address, memory->bytes, &access, 1);
        if (result)
            s_driver.cuMemUnmap_p(memory->address, memory->bytes);
    }
    if (result) {
        s_driver.cuMemAddressFree_p(memory->address, memory->bytes);
        memory->address = 0;
    }
    return result;
}

static lade_code_t
s_new_vmm(int device, lade_cuda_memory_t *memory, lade_error_t *error)
{
    CUmemAllocationProp properties = s_properties(device);
    CUresult result = s_driver.cuMemCreate_p(&memory->handle, memory->bytes, &properties, 0);
    if (result)
        return lade_cuda_fail_driver(result, "allocating", error);
    memory->vmm = 1;
    result = s_driver.cuMemExportToShareableHandle_p(&memory->fd, memory->handle,
                                                     CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    if (result)
        memory->fd = -1;
    else
        result = s_map(device, memory, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    if (!result)
        return LADE_OK;
    lade_cuda_memory_free(memory);
    return lade_cuda_fail_driver(result, "mapping what was allocated", error);
}

// Virtual memory management that is there by its attributes but not allowed (some containers have
// no descriptors to give) is done without.
lade_code_t
lade_cuda_memory_new(int device, size_t bytes, int plain, lade_cuda_memory_t *memory,
                     lade_error_t *error)
{
    *memory = (lade_cuda_memory_t){.fd = -1};
    lade_code_t code = LADE_OK;
    if (!plain && s_has_vmm(device)) {
        code = lade_cuda_round(device, bytes, &memory->bytes, error);
        if (!code)
            code = s_new_vmm(device, memory, error);
        if (!code || code == LADE_NO_VRAM)
            return code;
        *memory = (lade_cuda_memory_t){.fd = -1};
    }
    memory->bytes = bytes;
    CUresult result = s_driver.cuMemAlloc_p(&memory->address, bytes);
    return result ? lade_cuda_fail_driver(result, "allocating", error) : LADE_OK;
}

void
lade_cuda_memory_free(lade_cuda_memory_t *memory)
{
    if (!memory->vmm && memory->address)
        s_driver.cuMemFree_p(memory->address);
    if (memory->vmm && memory->address) {
        s_driver.cuMemUnmap_p(memory->address, memory->bytes);
        s_driver.cuMemAddressFree_p(memory->address, memory->bytes);
    }
    if (memory->vmm && memory->handle)
        s_driver.cuMemRelease_p(memory->handle);
    if (memory->fd >= 0)
        close(memory->fd);
    *memory = (lade_cuda_memory_t){.fd = -1};
}

lade_code_t
lade_cuda_memory_import(int device, int fd, size_t bytes, lade_cuda_memory_t *memory,
                        lade_error_t *error)
{
    *memory = (lade_cuda_memory_t){.fd = -1, .vmm = 1};
    lade_code_t code = lade_cuda_round(device, bytes, &memory->bytes, error);
    if (code)
        return code;
    CUresult result = s_driver.cuMemImportFromShareableHandle_p(
        &memory->handle, (void *)(uintptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if (result)
        return lade_cuda_fail_driver(result, "importing what is shared", error);
    result = s_map(device, memory, CU_MEM_ACCESS_FLAGS_PROT_READ);
    if (result)
        result = s_map(device, memory, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    if (!result)
        return LADE_OK;
    lade_cuda_memory_free(memory);
    return lade_cuda_fail_driver(result, "mapping what is shared", error);
}
