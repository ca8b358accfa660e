// What is done to a tensor's bytes between its file and memory: cast, dequantised, made contiguous,
// laid out with channels last. The file is never changed.
//
// Cast are floating point tensors (F64, F32, F16, BF16, F8_E4M3, F8_E5M2) and GGML's blocks, to
// F32, F16 or BF16: to the nearest number, of two equally near ones to the even one; what is too
// large becomes infinite, what is no number stays none. Everything else (integers, bools, scales in
// F8_E8M0, packed bits) stays as stored. Laid out with channels last are floating point tensors of
// four dimensions; their shape stays what it was.
#ifndef LADE_GPU_TRANSFORM_H
#define LADE_GPU_TRANSFORM_H

#include "common/error.h"
#include "common/formats/tensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    lade_dtype_t from, to;
    uint64_t in_bytes, out_bytes; // of the whole tensor
    uint64_t elements;
    uint8_t rank;
    uint64_t shape[LADE_TENSOR_MAX_RANK];
    const uint64_t *strides; // in elements, the tensor's; NULL if it is dense
    bool channels_last;
} lade_transform_t;

// What becomes of a tensor for which dtype (LADE_DTYPE_COUNT: as stored) and layout are asked.
// LADE_NOT_IMPLEMENTED for one that has no plain bytes (sparse, compressed, of the other byte
// order, without any) and for blocks that cannot be dequantised.
lade_code_t lade_transform_plan(const lade_tensor_t *tensor, lade_dtype_t dtype, bool channels_last,
                                lade_transform_t *self, lade_error_t *error);

// The bytes of the file are those of the memory.
bool lade_transform_is_plain(const lade_transform_t *self);

// Bytes of the file that can be turned without those around them; whole multiples of it can be
// turned in any order. Never 0.
uint64_t lade_transform_unit(const lade_transform_t *self);

// Bytes that so many bytes of the file become; in is a multiple of the unit.
uint64_t lade_transform_out(const lade_transform_t *self, uint64_t in);

// Turns len bytes, a multiple of the unit. Safe from any thread. LADE_NO_MEMORY.
lade_code_t lade_transform_run(const lade_transform_t *self, const void *in, uint64_t len,
                               void *out, lade_error_t *error);

// True if values of a type can be cast to F32, F16 and BF16.
bool lade_transform_casts(lade_dtype_t from);

// Casts count elements, whole blocks of them. to is F32, F16 or BF16, or from itself.
void lade_transform_cast(lade_dtype_t from, const void *in, lade_dtype_t to, void *out,
                         uint64_t count);

#endif
