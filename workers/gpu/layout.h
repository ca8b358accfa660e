// How weight files become a segment: what of each file is read where, and the index of it.
//
// Of each file the bytes from its first tensor to its last are taken as they are, in one run that
// begins at a page of the segment as it begins at a page of the file. So a file is one contiguous
// read, aligned alike on both sides.
#ifndef LADE_GPU_LAYOUT_H
#define LADE_GPU_LAYOUT_H

#include "common/buf.h"
#include "common/segment.h"
#include "workers/gpu/folder.h"
#include "workers/gpu/memory.h"
#include "workers/gpu/reader.h"

typedef struct {
    lade_segment_head_t head;  // but for the generation
    lade_buf_t index;          // packed
    lade_reader_part_t *parts; // a file each; to is set by lade_layout_read
    uint64_t *places;          // where each begins, from the start of the data
    size_t count;
    const char *precision; // of most bytes: "float16", …; "none" without tensors
} lade_layout_t;

// Reads the files' headers and plans; the files stay open. No file at all gives a segment without
// tensors. Free with lade_layout_close whatever is returned. LADE_CORRUPT, LADE_NOT_IMPLEMENTED for
// a format without reader, LADE_MODEL_NOT_FOUND.
lade_code_t lade_layout_open(lade_layout_t *self, const char *key, const char *submodel,
                             const lade_files_t *files, lade_error_t *error);

// Fills a region of at least head.length bytes. threads and step as for lade_reader_read.
lade_code_t lade_layout_read(lade_layout_t *self, lade_region_t *region, size_t threads,
                             bool (*step)(void *arg, uint64_t bytes), void *arg,
                             lade_error_t *error);

void lade_layout_close(lade_layout_t *self);

#endif
