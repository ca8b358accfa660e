// How readers fill a lade_tensors_t: for the files of common/formats only.
#ifndef LADE_TENSOR_LIST_H
#define LADE_TENSOR_LIST_H

#include "common/formats/tensors.h"

enum {
    LADE_TENSORS_MAX = 1 << 20,          // tensors in one list
    LADE_TENSORS_MAX_FILES = 4096,       // shards in one list
    LADE_TENSORS_MAX_NAME = 1024,        // bytes of a tensor's name
    LADE_TENSORS_MAX_HEADER = 100000000, // bytes of one file's header, the format's own limit
};

typedef struct {
    char *path;
    uint64_t size;
    char *header; // the tensors' names point into it
} lade_tensors_part_t;

struct lade_tensors {
    const char *format;
    lade_tensor_t *items;
    size_t count, cap;
    uint32_t *slots; // open addressing over names: index + 1, 0 is free; a power of two, at most
                     // half full
    size_t slot_count;
    json_t *metadata;
    lade_tensors_part_t *files;
    size_t file_count;
};

// Notes a file and takes over header (malloc'ed, may be NULL), also when it fails.
lade_code_t lade_tensor_list_add_file(lade_tensors_t *self, const char *path, uint64_t size,
                                      char *header, uint32_t *index_p, lade_error_t *error);

// Copies *tensor to the end of the list. LADE_CORRUPT if its name is there already, LADE_TOO_LARGE.
lade_code_t lade_tensor_list_add(lade_tensors_t *self, const lade_tensor_t *tensor,
                                 lade_error_t *error);

// The product of the dimensions and the element size; false if it overflows.
bool lade_tensor_list_bytes(const lade_tensor_t *tensor, uint64_t *bytes_p);

// name fit to be shown in a sentence: cut to some 60 bytes, control characters as '?'.
const char *lade_tensor_list_show(const char *name, char out[80]);

#endif
