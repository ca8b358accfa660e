// Tensors whose elements do not lie one after the other, and how they are made contiguous: in
// memory, or out of a file piece by piece.
#ifndef LADE_VIEW_H
#define LADE_VIEW_H

#include "common/error.h"
#include "common/formats/tensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t size; // bytes of an element
    uint8_t rank;
    uint64_t shape[LADE_TENSOR_MAX_RANK];
    uint64_t strides[LADE_TENSOR_MAX_RANK]; // in elements
} lade_view_t;

// Of a tensor that is dense or strided, of a type without blocks: its own strides, or those that a
// dense one has.
void lade_view_of(const lade_tensor_t *tensor, lade_view_t *self);

// Its elements lie row after row, without holes.
bool lade_view_is_dense(const lade_view_t *self);

// Bytes of its elements; and from the first to the end of the last, as they lie. 0 without
// elements.
uint64_t lade_view_bytes(const lade_view_t *self);
uint64_t lade_view_extent(const lade_view_t *self);

// Puts the elements row after row; from is where the first one is. Neither side need be aligned.
void lade_view_gather(const lade_view_t *self, const void *from, void *to);

typedef struct {
    size_t piece; // the most bytes that are got at once, an element at least
    size_t strip; // the most bytes that are put at once, an element at least
    // Reads len bytes from offset on, counted from the first element.
    lade_code_t (*get)(void *arg, uint64_t offset, void *bytes, size_t len, lade_error_t *error);
    // Takes the next bytes of what is made contiguous.
    lade_code_t (*put)(void *arg, const void *bytes, size_t len, lade_error_t *error);
    void *arg;
} lade_view_stream_t;

// The same with no more memory than a piece and a strip, however large the view is; what is between
// its elements is read again for each strip. What get or put answer, else LADE_NO_MEMORY.
lade_code_t lade_view_stream(const lade_view_t *self, const lade_view_stream_t *stream,
                             lade_error_t *error);

#endif
