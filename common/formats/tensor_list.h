// How readers fill a lade_tensors_t: for the files of common/formats only.
#ifndef LADE_TENSOR_LIST_H
#define LADE_TENSOR_LIST_H

#include "common/formats/tensors.h"

enum {
    LADE_TENSORS_MAX = 1 << 20,      // tensors in one list
    LADE_TENSORS_MAX_FILES = 4096,   // shards in one list
    LADE_TENSORS_MAX_NAME = 1024,    // bytes of a tensor's name
    LADE_TENSORS_MAX_VALUES = 10000, // keys of metadata, and values beside the tensors
    LADE_TENSORS_MAX_UNSAFE = 1000,  // findings told; one more says that there are more
};

typedef struct {
    char *path;
    uint64_t size;
    char *header; // the tensors' names point into it
} lade_tensors_part_t;

struct lade_tensors {
    const char *format;
    uint64_t max_header;
    lade_tensor_t *items;
    size_t count, cap;
    uint64_t *slots; // open addressing over names: half of the hash, index + 1; 0 is free; a power
                     // of two, at most half full
    size_t slot_count;
    json_t *metadata, *values, *unsafe;
    struct lade_tensor_names *names; // what lade_tensor_list_keep copied
    lade_tensors_part_t *files;
    size_t file_count;
};

// Notes a file and takes over header (malloc'ed, may be NULL), also when it fails.
lade_code_t lade_tensor_list_add_file(lade_tensors_t *self, const char *path, uint64_t size,
                                      char *header, uint32_t *index_p, lade_error_t *error);

// Makes room for so many tensors in one step, as far as LADE_TENSORS_MAX; a guess will do.
void lade_tensor_list_reserve(lade_tensors_t *self, size_t count);

// Copies *tensor to the end of the list. LADE_CORRUPT if its name is there already, LADE_TOO_LARGE.
lade_code_t lade_tensor_list_add(lade_tensors_t *self, const lade_tensor_t *tensor,
                                 lade_error_t *error);

// A copy of len bytes (a name that no header holds) ended by a NUL, that lives as long as the list.
// NULL without memory.
const char *lade_tensor_list_keep(lade_tensors_t *self, const void *bytes, size_t len);

// The same for at most LADE_TENSOR_MAX_RANK numbers.
const uint64_t *lade_tensor_list_keep_numbers(lade_tensors_t *self, const uint64_t *numbers,
                                              size_t count);

// Notes a value for lade_tensors_value, or an entry of the metadata; the first of a name stays.
// Takes over value, also when it fails (LADE_TOO_LARGE over their number, LADE_NO_MEMORY).
lade_code_t lade_tensor_list_set_value(lade_tensors_t *self, const char *name, json_t *value,
                                       lade_error_t *error);
lade_code_t lade_tensor_list_set_metadata(lade_tensors_t *self, const char *name, json_t *value,
                                          lade_error_t *error);

// Notes a finding for lade_tensors_unsafe. Texts are made fit to be shown; where and name may be
// NULL. The same one again, or over the ceiling, is not noted.
void lade_tensor_list_add_unsafe(lade_tensors_t *self, const char *what, const char *where,
                                 const char *name, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

// The bytes of its shape; false if they overflow.
bool lade_tensor_list_bytes(const lade_tensor_t *tensor, uint64_t *bytes_p);

// LADE_CORRUPT unless the tensors from index first on, whose ends are known to lie within the file,
// fill it from start to size, with at most padding bytes between two of them and after the last.
lade_code_t lade_tensor_list_check_layout(const lade_tensors_t *self, size_t first, uint64_t start,
                                          uint64_t size, uint64_t padding, lade_error_t *error);

// name fit to be shown in a sentence: cut to some 60 bytes, control characters as '?'.
const char *lade_tensor_list_show(const char *name, char out[80]);

#endif
