// The list all readers fill: tensors, a hash over their names, files, metadata.
#include "common/formats/tensor_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
static const struct {
    const char *name;
    size_t size;
} s_dtypes[] = {
    [LADE_DTYPE_BOOL]    = {"BOOL",    1},
    [LADE_DTYPE_U8]      = {"U8",      1},
    [LADE_DTYPE_I8]      = {"I8",      1},
    [LADE_DTYPE_F8_E5M2] = {"F8_E5M2", 1},
    [LADE_DTYPE_F8_E4M3] = {"F8_E4M3", 1},
    [LADE_DTYPE_I16]     = {"I16",     2},
    [LADE_DTYPE_U16]     = {"U16",     2},
    [LADE_DTYPE_F16]     = {"F16",     2},
    [LADE_DTYPE_BF16]    = {"BF16",    2},
    [LADE_DTYPE_I32]     = {"I32",     4},
    [LADE_DTYPE_U32]     = {"U32",     4},
    [LADE_DTYPE_F32]     = {"F32",     4},
    [LADE_DTYPE_I64]     = {"I64",     8},
    [LADE_DTYPE_U64]     = {"U64",     8},
    [LADE_DTYPE_F64]     = {"F64",     8},
};
// clang-format on
_Static_assert(sizeof s_dtypes / sizeof *s_dtypes == LADE_DTYPE_COUNT, "a dtype has no row");

const char *
lade_dtype_name(lade_dtype_t dtype)
{
    return s_dtypes[dtype].name;
}

size_t
lade_dtype_size(lade_dtype_t dtype)
{
    return s_dtypes[dtype].size;
}

bool
lade_dtype_find(const char *name, size_t len, lade_dtype_t *dtype_p)
{
    for (lade_dtype_t i = 0; i < LADE_DTYPE_COUNT; i++)
        if (strlen(s_dtypes[i].name) == len && memcmp(s_dtypes[i].name, name, len) == 0) {
            *dtype_p = i;
            return true;
        }
    return false;
}

const char *
lade_tensor_list_show(const char *name, char out[80])
{
    size_t len = strlen(name);
    snprintf(out, 80, len > 60 ? "%.57s..." : "%s", name);
    for (char *at = out; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    return out;
}

bool
lade_tensor_list_bytes(const lade_tensor_t *tensor, uint64_t *bytes_p)
{
    uint64_t bytes = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return false;
    return !__builtin_mul_overflow(bytes, lade_dtype_size(tensor->dtype), bytes_p);
}

// ---------------------------------------------------------------------------------------------------
// The hash over names

// A run of taken slots this long means names chosen to collide (by chance runs stay below a
// hundred).
enum { S_MAX_RUN = 1000 };

static uint64_t
s_hash(const char *name, size_t len)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)name[i]) * 0x100000001b3;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93;
    return h ^ h >> 32;
}

// The slot that holds the name, or the free one where it belongs; NULL for a run that is too long.
static uint32_t *
s_slot(const lade_tensors_t *self, const char *name, size_t len)
{
    size_t at = s_hash(name, len) & (self->slot_count - 1);
    for (size_t run = 0; run < S_MAX_RUN; run++, at = (at + 1) & (self->slot_count - 1)) {
        if (self->slots[at] == 0)
            return &self->slots[at];
        const lade_tensor_t *other = &self->items[self->slots[at] - 1];
        if (other->name_len == len && memcmp(other->name, name, len) == 0)
            return &self->slots[at];
    }
    return NULL;
}

static lade_code_t
s_grow(lade_tensors_t *self, lade_error_t *error)
{
    size_t cap = self->cap ? 2 * self->cap : 256;
    lade_tensor_t *items = realloc(self->items, cap * sizeof *items);
    if (items)
        self->items = items;
    uint32_t *slots = items ? calloc(2 * cap, sizeof *slots) : NULL;
    if (!slots)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a list of %zu tensors", cap);
    free(self->slots);
    self->slots = slots;
    self->slot_count = 2 * cap;
    self->cap = cap;
    for (uint32_t i = 0; i < self->count; i++) {
        uint32_t *slot = s_slot(self, items[i].name, items[i].name_len);
        if (!slot)
            return lade_error_set(error, LADE_CORRUPT, "its tensors have names made to collide");
        *slot = i + 1;
    }
    return LADE_OK;
}

lade_code_t
lade_tensor_list_add(lade_tensors_t *self, const lade_tensor_t *tensor, lade_error_t *error)
{
    if (self->count == LADE_TENSORS_MAX)
        return lade_error_set(error, LADE_TOO_LARGE, "it has more than %d tensors",
                              LADE_TENSORS_MAX);
    if (self->count == self->cap && s_grow(self, error))
        return error ? error->code : LADE_NO_MEMORY;
    char shown[80];
    uint32_t *slot = s_slot(self, tensor->name, tensor->name_len);
    if (!slot || *slot)
        return lade_error_set(error, LADE_CORRUPT, "tensor %s is there twice",
                              lade_tensor_list_show(tensor->name, shown));
    self->items[self->count++] = *tensor;
    *slot = (uint32_t)self->count;
    return LADE_OK;
}

lade_code_t
lade_tensor_list_add_file(lade_tensors_t *self, const char *path, uint64_t size, char *header,
                          uint32_t *index_p, lade_error_t *error)
{
    lade_tensors_part_t *files = NULL;
    char *copy = strdup(path);
    if (copy && self->file_count < LADE_TENSORS_MAX_FILES)
        files = realloc(self->files, (self->file_count + 1) * sizeof *files);
    if (!files) {
        free(copy);
        free(header);
        if (self->file_count == LADE_TENSORS_MAX_FILES)
            return lade_error_set(error, LADE_TOO_LARGE, "more than %d weight files",
                                  LADE_TENSORS_MAX_FILES);
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to list weight files");
    }
    self->files = files;
    files[self->file_count] = (lade_tensors_part_t){copy, size, header};
    *index_p = (uint32_t)self->file_count++;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// What everybody may ask

const char *
lade_tensors_format(const lade_tensors_t *self)
{
    return self->format;
}

size_t
lade_tensors_count(const lade_tensors_t *self)
{
    return self->count;
}

const lade_tensor_t *
lade_tensors_get(const lade_tensors_t *self, size_t index)
{
    return &self->items[index];
}

const lade_tensor_t *
lade_tensors_find(const lade_tensors_t *self, const char *name)
{
    uint32_t *slot = self->count ? s_slot(self, name, strlen(name)) : NULL;
    return slot && *slot ? &self->items[*slot - 1] : NULL;
}

const json_t *
lade_tensors_metadata(const lade_tensors_t *self)
{
    return self->metadata;
}

size_t
lade_tensors_file_count(const lade_tensors_t *self)
{
    return self->file_count;
}

const char *
lade_tensors_file(const lade_tensors_t *self, size_t index)
{
    return self->files[index].path;
}

uint64_t
lade_tensors_file_size(const lade_tensors_t *self, size_t index)
{
    return self->files[index].size;
}

void
lade_tensors_destroy(lade_tensors_t **self_p)
{
    lade_tensors_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->file_count; i++) {
        free(self->files[i].path);
        free(self->files[i].header);
    }
    free(self->files);
    free(self->items);
    free(self->slots);
    json_decref(self->metadata);
    free(self);
    *self_p = NULL;
}
