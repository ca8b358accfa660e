// What the files of a segment share: segment.c (opening, where the data is), segment_index.c (the
// index), segment_attach.c (the socket) and segment_write.c.
#ifndef LADE_SEGMENT_PRIVATE_H
#define LADE_SEGMENT_PRIVATE_H

#include "common/segment.h"

struct lade_segment {
    const uint8_t *bytes;
    lade_segment_head_t head; // a copy, so that what was checked is what is used
    lade_tensor_t *tensors;   // NULL until the index is read
    size_t count;
    char *names; // the tensors' names, each ended by a NUL
    uint32_t
        *slots; // hash table of tensor index + 1, 0 is empty; made by the first look-up by name
    size_t slot_count;
    const uint8_t *metadata; // within the index, packed; NULL if it has none
    size_t metadata_len;
    bool indexed; // read, well or not
    lade_error_t index_error;
    void *mapping;                   // ours to unmap, NULL if the bytes are the caller's
    size_t mapped;                   // bytes of it
    int connection;                  // holds the lease, -1 if none
    lade_share_t share;              // of data on a device; its descriptor is ours until imported
    const lade_importer_t *importer; // that imported it
    lade_import_t import;            // where the data is; nowhere until asked for
};

// As lade_segment_open. share: of data that is not in these bytes; NULL if it is.
lade_code_t lade_segment_open_shared(const void *bytes, size_t len, const lade_share_t *share,
                                     lade_segment_t **self_p, lade_error_t *error);

#endif
