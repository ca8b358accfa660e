// What is done on the device: casts, and weights laid out with channels last.
#ifndef LADE_GPU_KERNELS_CUDA_H
#define LADE_GPU_KERNELS_CUDA_H

#include "common/formats/dtype.h"

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Starts the cast of count elements between F32, F16 and BF16. Nothing needs to be aligned; what is
// aligned for vectors goes faster.
cudaError_t lade_cuda_cast(void *to, lade_dtype_t out, const void *from, lade_dtype_t in,
                           uint64_t count, cudaStream_t stream);

// Starts a transposition of [N, C, H, W] to [N, H, W, C], cast on the way.
cudaError_t lade_cuda_channels_last(void *to, lade_dtype_t out, const void *from, lade_dtype_t in,
                                    const uint32_t *shape, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
