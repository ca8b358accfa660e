// What a weight file holds, whatever its format: a list of tensors and metadata. No weight is read.
#ifndef LADE_TENSORS_H
#define LADE_TENSORS_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LADE_TENSOR_MAX_RANK = 8 };

typedef enum {
    LADE_DTYPE_BOOL,
    LADE_DTYPE_U8,
    LADE_DTYPE_I8,
    LADE_DTYPE_F8_E5M2,
    LADE_DTYPE_F8_E4M3,
    LADE_DTYPE_I16,
    LADE_DTYPE_U16,
    LADE_DTYPE_F16,
    LADE_DTYPE_BF16,
    LADE_DTYPE_I32,
    LADE_DTYPE_U32,
    LADE_DTYPE_F32,
    LADE_DTYPE_I64,
    LADE_DTYPE_U64,
    LADE_DTYPE_F64,
    LADE_DTYPE_COUNT
} lade_dtype_t;

const char *lade_dtype_name(lade_dtype_t dtype); // as safetensors writes it: "F16"
size_t lade_dtype_size(lade_dtype_t dtype);      // bytes of one element
bool lade_dtype_find(const char *name, size_t len, lade_dtype_t *dtype_p);

typedef struct {
    const char *name; // ended by a NUL
    size_t name_len;
    lade_dtype_t dtype;
    uint8_t rank;
    uint64_t shape[LADE_TENSOR_MAX_RANK];
    uint32_t file;   // index into lade_tensors_file
    uint64_t offset; // bytes from the start of that file
    uint64_t size;   // bytes
} lade_tensor_t;

typedef struct lade_tensors lade_tensors_t;

// Opens a weight file by its content, or every weight file directly in a folder (or those its
// *.index.json names) as one list. Time and memory follow the headers, never the files.
// LADE_CORRUPT with what is wrong and where, LADE_NOT_IMPLEMENTED for a format without reader,
// LADE_TOO_LARGE over a ceiling.
lade_code_t lade_tensors_open(const char *path, lade_tensors_t **self_p, lade_error_t *error);

// The same for a list of files (sharded weights).
lade_code_t lade_tensors_open_files(const char *const *paths, size_t count, lade_tensors_t **self_p,
                                    lade_error_t *error);

const char *lade_tensors_format(const lade_tensors_t *self); // "safetensors"
size_t lade_tensors_count(const lade_tensors_t *self);
const lade_tensor_t *lade_tensors_get(const lade_tensors_t *self, size_t index); // in file order
const lade_tensor_t *lade_tensors_find(const lade_tensors_t *self, const char *name);
const json_t *lade_tensors_metadata(const lade_tensors_t *self); // a map of text, empty if none
size_t lade_tensors_file_count(const lade_tensors_t *self);
const char *lade_tensors_file(const lade_tensors_t *self, size_t index);
uint64_t lade_tensors_file_size(const lade_tensors_t *self, size_t index);
void lade_tensors_destroy(lade_tensors_t **self_p);

#endif
