// What a weight file holds, whatever its format: a list of tensors and metadata. No weight is read.
#ifndef LADE_TENSORS_H
#define LADE_TENSORS_H

#include "common/error.h"
#include "common/formats/dtype.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LADE_TENSOR_MAX_RANK = 8,
    LADE_TENSORS_HEADER = 100 << 20,      // bytes of a file's header, unless told otherwise
    LADE_TENSORS_MOST_HEADER = 1024 << 20 // the most that can be told
};

// How a tensor's bytes lie. Only those of a dense one can be used as they are.
typedef enum {
    LADE_LAYOUT_DENSE,   // row after row, without holes: size is the shape's
    LADE_LAYOUT_STRIDED, // a view: from its first element, at offset, to its last are size bytes
    LADE_LAYOUT_SPARSE,  // indices and values: offset and size are those of the values
    LADE_LAYOUT_PACKED,  // compressed in its file, or of the other byte order: offset and size are
                         // those of what is packed, 0 if it has no place of its own
    LADE_LAYOUT_NONE,    // no bytes at all: one of torch's "meta" tensors
    LADE_LAYOUT_CHANNELS_LAST, // of four dimensions, the second innermost: only in memory
    LADE_LAYOUT_COUNT
} lade_layout_kind_t;

const char *lade_layout_kind_name(lade_layout_kind_t kind); // "dense", "strided", …

typedef struct {
    const char *name; // ended by a NUL
    size_t name_len;
    lade_dtype_t dtype;
    lade_layout_kind_t layout;
    uint8_t rank;
    uint64_t shape[LADE_TENSOR_MAX_RANK];
    uint32_t file;           // index into lade_tensors_file
    uint64_t offset;         // bytes from the start of that file
    uint64_t size;           // bytes
    const uint64_t *strides; // of a strided one, in elements, a number a dimension; else NULL
} lade_tensor_t;

typedef struct lade_tensors lade_tensors_t;

// Opens a weight file by its content, or every weight file directly in a folder (or those its
// *.index.json names) as one list; of a GGUF file in parts (NAME-00001-of-00003.gguf) all parts.
// Time and memory follow the headers, never the files. LADE_CORRUPT with what is wrong and where,
// LADE_NOT_IMPLEMENTED for a format without reader, LADE_TOO_LARGE over a ceiling.
lade_code_t lade_tensors_open(const char *path, lade_tensors_t **self_p, lade_error_t *error);

// The same with another ceiling for the header of each file (of what is read of it, in formats
// without one) than LADE_TENSORS_HEADER.
lade_code_t lade_tensors_open_within(const char *path, uint64_t max_header, lade_tensors_t **self_p,
                                     lade_error_t *error);

// The same for a list of files (sharded weights).
lade_code_t lade_tensors_open_files(const char *const *paths, size_t count, lade_tensors_t **self_p,
                                    lade_error_t *error);
lade_code_t lade_tensors_open_files_within(const char *const *paths, size_t count,
                                           uint64_t max_header, lade_tensors_t **self_p,
                                           lade_error_t *error);

// "safetensors", "torch" (zip), "pickle" (legacy), "gguf" or "onnx".
const char *lade_tensors_format(const lade_tensors_t *self);
size_t lade_tensors_count(const lade_tensors_t *self);
const lade_tensor_t *lade_tensors_get(const lade_tensors_t *self, size_t index); // in file order
const lade_tensor_t *lade_tensors_find(const lade_tensors_t *self, const char *name);

// What the files say of themselves, a map, empty if none: texts in safetensors; in GGUF and ONNX
// any value, a long list as {"count": N, "first": […]}. Stays the list's, as all below.
const json_t *lade_tensors_metadata(const lade_tensors_t *self);

// What is beside the tensors and tells something: "global_step", "string_to_param", "ip_adapter";
// the whole name, or parts joined by "."; NULL if there is none. Tensors are left out: a map of
// nothing but tensors is an empty one. A dict that is only put around the model's own is no part of
// the tensors' names; "__wrapper__" then is its key.
const json_t *lade_tensors_value(const lade_tensors_t *self, const char *path);

// What would run, hide or mislead if the files were trusted: an array, empty if nothing, of
// {"what": code, "where": member or offset, "name": "module.attr" or text, "message": sentence}.
const json_t *lade_tensors_unsafe(const lade_tensors_t *self);

size_t lade_tensors_file_count(const lade_tensors_t *self);
const char *lade_tensors_file(const lade_tensors_t *self, size_t index);
uint64_t lade_tensors_file_size(const lade_tensors_t *self, size_t index);
void lade_tensors_destroy(lade_tensors_t **self_p);

#endif
