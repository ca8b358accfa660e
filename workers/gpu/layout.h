// How weight files become a segment: what of each file is read where, and the index of it.
//
// Of a file whose tensors are taken as they are, the bytes from the first tensor to the last are
// one run that begins at a page of the segment as it begins at a page of the file: one contiguous
// read, aligned alike on both sides. Of other files (a cast or a layout is asked for; views,
// tensors at odd places, large gaps) each tensor is a turn of its own, aligned in the segment; what
// is the same bytes under several names is there once. Of an ONNX file, which is a graph and its
// weights in one, the whole file is a tensor of bytes.
#ifndef LADE_GPU_LAYOUT_H
#define LADE_GPU_LAYOUT_H

#include "common/buf.h"
#include "common/segment.h"
#include "common/want.h"
#include "workers/gpu/folder.h"
#include "workers/gpu/memory.h"
#include "workers/gpu/reader.h"
#include "workers/gpu/turns.h"

typedef struct {
    lade_segment_head_t head;  // but for the generation
    lade_buf_t index;          // packed
    lade_reader_part_t *parts; // a file each, of length 0 if it is turned; without to
    uint64_t *places;          // where each begins, from the start of the data
    size_t count;
    lade_turn_t *turns; // in the order of the files
    size_t turn_count;
    uint64_t read_bytes;     // of all parts and turns
    lade_tensors_t *tensors; // as in the files; NULL without files
    lade_tensor_t *placed;   // the same with type, size and place as in the segment, from the start
                             // of its data
    size_t placed_count;
    bool unsafe;           // there are findings, and they were allowed
    const char *precision; // of most bytes: "float16", …; "none" without tensors
} lade_layout_t;

// Reads the files' headers and plans; the files stay open. No file at all gives a segment without
// tensors. allow_unsafe takes files with findings too: nothing in them is run in any case. Free
// with lade_layout_close whatever is returned. LADE_CORRUPT, LADE_NOT_IMPLEMENTED for a tensor that
// cannot be turned into what is asked for, LADE_UNSAFE_FILE, LADE_MODEL_NOT_FOUND.
lade_code_t lade_layout_open(lade_layout_t *self, const char *key, const char *submodel,
                             const lade_files_t *files, const lade_want_t *want, bool allow_unsafe,
                             lade_error_t *error);

// Fills a region of at least head.length bytes. threads and step as for lade_reader_read.
lade_code_t lade_layout_read(const lade_layout_t *self, lade_region_t *region, size_t threads,
                             bool (*step)(void *arg, uint64_t bytes), void *arg,
                             lade_error_t *error);

void lade_layout_close(lade_layout_t *self);

#endif
