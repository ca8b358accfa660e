// Boxes of a view, cut until what they take of the source fits into the memory there is.
#include "common/formats/view.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { S_TILE = 32 }; // elements; a square of them stays in the first cache

// A part of a view: how its elements lie in the source, and where they go. Of two dimensions at
// least.
typedef struct {
    size_t size, rank;
    uint64_t shape[LADE_TENSOR_MAX_RANK + 2], from[LADE_TENSOR_MAX_RANK + 2],
        to[LADE_TENSOR_MAX_RANK + 2];
} s_box_t;

void
lade_view_of(const lade_tensor_t *tensor, lade_view_t *self)
{
    uint64_t step = 1;
    *self = (lade_view_t){.size = lade_dtype_size(tensor->dtype), .rank = tensor->rank};
    memcpy(self->shape, tensor->shape, sizeof self->shape);
    for (size_t i = self->rank; i-- > 0; step *= self->shape[i])
        self->strides[i] = tensor->layout == LADE_LAYOUT_STRIDED ? tensor->strides[i] : step;
}

bool
lade_view_is_dense(const lade_view_t *self)
{
    uint64_t step = 1;
    if (!lade_view_bytes(self))
        return true;
    for (size_t i = self->rank; i-- > 0; step *= self->shape[i])
        if (self->shape[i] != 1 && self->strides[i] != step)
            return false;
    return true;
}

uint64_t
lade_view_bytes(const lade_view_t *self)
{
    uint64_t bytes = self->size;
    for (size_t i = 0; i < self->rank; i++)
        bytes *= self->shape[i];
    return bytes;
}

uint64_t
lade_view_extent(const lade_view_t *self)
{
    uint64_t last = 0;
    if (!lade_view_bytes(self))
        return 0;
    for (size_t i = 0; i < self->rank; i++)
        last += (self->shape[i] - 1) * self->strides[i];
    return (last + 1) * self->size;
}

// ---------------------------------------------------------------------------------------------------
// In memory

// Rows and columns in squares: neither side is walked across for long.
#define S_COPY_TILES(type)                                                                         \
    for (uint64_t y = 0; y < height; y += S_TILE)                                                  \
        for (uint64_t x = 0; x < width; x += S_TILE)                                               \
            for (uint64_t j = y; j < height && j < y + S_TILE; j++)                                \
                for (uint64_t i = x; i < width && i < x + S_TILE; i++)                             \
    memcpy(to + (j * box->to[axis] + i * box->to[axis + 1]) * sizeof(type),                        \
           from + (j * box->from[axis] + i * box->from[axis + 1]) * sizeof(type), sizeof(type))

typedef struct {
    uint8_t bytes[16];
} s_16_bytes_t;

// The last two dimensions, of which axis is the first.
static void
s_copy_plane(const s_box_t *box, size_t axis, const uint8_t *from, uint8_t *to)
{
    uint64_t height = box->shape[axis], width = box->shape[axis + 1];
    size_t size = box->size;
    if (box->from[axis + 1] == 1 && box->to[axis + 1] == 1)
        for (uint64_t y = 0; y < height; y++)
            memcpy(to + y * box->to[axis] * size, from + y * box->from[axis] * size, width * size);
    else if (size == 1)
        S_COPY_TILES(uint8_t);
    else if (size == 2)
        S_COPY_TILES(uint16_t);
    else if (size == 4)
        S_COPY_TILES(uint32_t);
    else if (size == 8)
        S_COPY_TILES(uint64_t);
    else
        S_COPY_TILES(s_16_bytes_t);
}

static void
s_copy(const s_box_t *box, size_t axis, const uint8_t *from, uint8_t *to)
{
    if (axis + 2 == box->rank) {
        s_copy_plane(box, axis, from, to);
        return;
    }
    for (uint64_t i = 0; i < box->shape[axis]; i++)
        s_copy(box, axis + 1, from + i * box->from[axis] * box->size,
               to + i * box->to[axis] * box->size);
}

// The whole of a view; what it becomes is dense.
static s_box_t
s_box(const lade_view_t *self)
{
    s_box_t box = {.size = self->size, .rank = self->rank < 2 ? 2 : self->rank};
    size_t spare = box.rank - self->rank;
    uint64_t step = 1;
    assert(self->size == 1 || self->size == 2 || self->size == 4 || self->size == 8 ||
           self->size == 16);
    for (size_t i = box.rank; i-- > 0; step *= box.shape[i]) {
        box.shape[i] = i < spare ? 1 : self->shape[i - spare];
        box.from[i] = i < spare ? 0 : self->strides[i - spare];
        box.to[i] = step;
    }
    return box;
}

void
lade_view_gather(const lade_view_t *self, const void *from, void *to)
{
    s_box_t box = s_box(self);
    if (lade_view_bytes(self))
        s_copy(&box, 0, from, to);
}

// ---------------------------------------------------------------------------------------------------
// Piece by piece

typedef struct {
    const lade_view_stream_t *stream;
    uint8_t *piece, *strip;
} s_run_t;

static uint64_t
s_extent(const s_box_t *box)
{
    uint64_t last = 0;
    for (size_t i = 0; i < box->rank; i++)
        last += (box->shape[i] - 1) * box->from[i];
    return (last + 1) * box->size;
}

// Brings a box to `to`: at once if what it spans fits into a piece, else in halves along what spans
// most.
static lade_code_t
s_fill(const s_run_t *self, const s_box_t *box, uint64_t offset, uint8_t *to, lade_error_t *error)
{
    uint64_t extent = s_extent(box), most = 0;
    size_t axis = 0;
    if (extent <= self->stream->piece) {
        lade_code_t code =
            self->stream->get(self->stream->arg, offset, self->piece, (size_t)extent, error);
        if (!code)
            s_copy(box, 0, self->piece, to);
        return code;
    }
    for (size_t i = 0; i < box->rank; i++)
        if ((box->shape[i] - 1) * box->from[i] > most) {
            most = (box->shape[i] - 1) * box->from[i];
            axis = i;
        }
    s_box_t half = *box;
    uint64_t first = box->shape[axis] / 2;
    half.shape[axis] = first;
    lade_code_t code = s_fill(self, &half, offset, to, error);
    half.shape[axis] = box->shape[axis] - first;
    if (!code)
        code = s_fill(self, &half, offset + first * box->from[axis] * box->size,
                      to + first * box->to[axis] * box->size, error);
    return code;
}

// A box whose elements follow one another in what is made: as many rows at once as fit into a
// strip, or each cut further.
static lade_code_t
s_strips(const s_run_t *self, const s_box_t *box, uint64_t offset, lade_error_t *error)
{
    size_t axis = 0;
    while (axis + 1 < box->rank && box->shape[axis] == 1)
        axis++;
    uint64_t row = box->to[axis] * box->size, rows = box->shape[axis];
    uint64_t most = row < self->stream->strip ? self->stream->strip / row : 1;
    lade_code_t code = LADE_OK;
    for (uint64_t y = 0; y < rows && !code; y += most) {
        s_box_t part = *box;
        part.shape[axis] = rows - y < most ? rows - y : most;
        uint64_t at = offset + y * box->from[axis] * box->size;
        uint64_t bytes = part.shape[axis] * row;
        if (bytes > self->stream->strip) {
            code = s_strips(self, &part, at, error);
            continue;
        }
        code = s_fill(self, &part, at, self->strip, error);
        if (!code)
            code = self->stream->put(self->stream->arg, self->strip, (size_t)bytes, error);
    }
    return code;
}

static size_t
s_least(uint64_t bytes, size_t most)
{
    return bytes < most ? (size_t)bytes : most;
}

lade_code_t
lade_view_stream(const lade_view_t *self, const lade_view_stream_t *stream, lade_error_t *error)
{
    s_box_t box = s_box(self);
    assert(stream->piece >= self->size && stream->strip >= self->size);
    if (!lade_view_bytes(self))
        return LADE_OK;
    s_run_t run = {stream, malloc(s_least(lade_view_extent(self), stream->piece)),
                   malloc(s_least(lade_view_bytes(self), stream->strip))};
    lade_code_t code = run.piece && run.strip
                           ? s_strips(&run, &box, 0, error)
                           : lade_error_set(error, LADE_NO_MEMORY,
                                            "no memory to make a view of %llu bytes contiguous",
                                            (unsigned long long)lade_view_bytes(self));
    free(run.piece);
    free(run.strip);
    return code;
}
