// The list all readers fill: tensors, a hash over their names, files, metadata.
#include "common/formats/tensor_list.h"

#include "common/formats/json_file.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *
lade_layout_kind_name(lade_layout_kind_t kind)
{
    static const char *const names[] = {
        [LADE_LAYOUT_DENSE] = "dense",   [LADE_LAYOUT_STRIDED] = "strided",
        [LADE_LAYOUT_SPARSE] = "sparse", [LADE_LAYOUT_PACKED] = "packed",
        [LADE_LAYOUT_NONE] = "none",     [LADE_LAYOUT_CHANNELS_LAST] = "channels_last",
    };
    _Static_assert(sizeof names / sizeof *names == LADE_LAYOUT_COUNT, "a layout has no name");
    return names[kind];
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
    return lade_dtype_bytes(tensor->dtype, tensor->shape, tensor->rank, bytes_p);
}

// ---------------------------------------------------------------------------------------------------
// The hash over names

// A run of taken slots this long means names chosen to collide (by chance runs stay below a
// hundred).
enum { S_MAX_RUN = 1000 };

static inline uint64_t
s_fold(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide_t;
    wide_t product = (wide_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

// Sixteen bytes a multiplication, as names are long and there are many of them. Names made to
// collide cost a run.
static uint64_t
s_hash(const char *name, size_t len)
{
    static const uint64_t k1 = 0x9e3779b97f4a7c15, k2 = 0xd6e8feb86659fd93;
    uint64_t h = k1 ^ len, words[2];
    for (; len > 16; name += 16, len -= 16) {
        memcpy(words, name, 16);
        h = s_fold(h ^ words[0], k2 ^ words[1]);
    }
    memset(words, 0, sizeof words);
    memcpy(words, name, len);
    h = s_fold(h ^ words[0], k2 ^ words[1]);
    return s_fold(h ^ k2, k1);
}

// The slot that holds the name, or the free one where it belongs; NULL for a run that is too long.
static uint64_t *
s_slot(const lade_tensors_t *self, uint64_t hash, const char *name, size_t len)
{
    size_t at = hash & (self->slot_count - 1);
    for (size_t run = 0; run < S_MAX_RUN; run++, at = (at + 1) & (self->slot_count - 1)) {
        if (self->slots[at] == 0)
            return &self->slots[at];
        if (self->slots[at] >> 32 != hash >> 32)
            continue;
        const lade_tensor_t *other = &self->items[(uint32_t)self->slots[at] - 1];
        if (other->name_len == len && memcmp(other->name, name, len) == 0)
            return &self->slots[at];
    }
    return NULL;
}

static lade_code_t
s_grow(lade_tensors_t *self, size_t cap, lade_error_t *error)
{
    lade_tensor_t *items = realloc(self->items, cap * sizeof *items);
    if (items)
        self->items = items;
    uint64_t *slots = items ? calloc(2 * cap, sizeof *slots) : NULL;
    if (!slots)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a list of %zu tensors", cap);
    free(self->slots);
    self->slots = slots;
    self->slot_count = 2 * cap;
    self->cap = cap;
    for (uint32_t i = 0; i < self->count; i++) {
        uint64_t hash = s_hash(items[i].name, items[i].name_len);
        uint64_t *slot = s_slot(self, hash, items[i].name, items[i].name_len);
        if (!slot)
            return lade_error_set(error, LADE_CORRUPT, "its tensors have names made to collide");
        *slot = (hash & ~(uint64_t)UINT32_MAX) | (i + 1);
    }
    return LADE_OK;
}

enum { S_FIRST = 256 };

void
lade_tensor_list_reserve(lade_tensors_t *self, size_t count)
{
    size_t cap = self->cap ? self->cap : S_FIRST;
    while (cap < self->count + count && cap < LADE_TENSORS_MAX)
        cap *= 2;
    if (cap > self->cap)
        s_grow(self, cap, NULL); // what fails here fails again where it is told
}

lade_code_t
lade_tensor_list_add(lade_tensors_t *self, const lade_tensor_t *tensor, lade_error_t *error)
{
    lade_error_t spare = {0};
    char shown[80];
    error = error ? error : &spare;
    if (self->count == LADE_TENSORS_MAX)
        return lade_error_set(error, LADE_TOO_LARGE, "it has more than %d tensors",
                              LADE_TENSORS_MAX);
    if (self->count == self->cap && s_grow(self, self->cap ? 2 * self->cap : S_FIRST, error))
        return error->code;
    uint64_t hash = s_hash(tensor->name, tensor->name_len);
    uint64_t *slot = s_slot(self, hash, tensor->name, tensor->name_len);
    if (!slot || *slot)
        return lade_error_set(error, LADE_CORRUPT, "tensor %s is there twice",
                              lade_tensor_list_show(tensor->name, shown));
    self->items[self->count++] = *tensor;
    *slot = (hash & ~(uint64_t)UINT32_MAX) | (uint32_t)self->count;
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
// The layout of the data

static int
s_by_offset(const void *a, const void *b)
{
    const lade_tensor_t *x = *(const lade_tensor_t *const *)a,
                        *y = *(const lade_tensor_t *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

static lade_code_t
s_check_order(const lade_tensor_t **order, size_t count, uint64_t start, uint64_t size,
              uint64_t padding, lade_error_t *error)
{
    uint64_t at = start;
    char shown[80];
    for (size_t i = 0; i < count; at = order[i]->offset + order[i]->size, i++)
        if (order[i]->offset < at || order[i]->offset - at > padding)
            return lade_error_set(
                error, LADE_CORRUPT, "tensor %s %s", lade_tensor_list_show(order[i]->name, shown),
                order[i]->offset < at ? "overlaps another" : "follows a hole in the data");
    if (size - at > padding)
        return lade_error_set(error, LADE_CORRUPT, "%llu bytes follow the last tensor",
                              (unsigned long long)(size - at));
    return LADE_OK;
}

lade_code_t
lade_tensor_list_check_layout(const lade_tensors_t *self, size_t first, uint64_t start,
                              uint64_t size, uint64_t padding, lade_error_t *error)
{
    size_t count = self->count - first;
    const lade_tensor_t **order = malloc((count ? count : 1) * sizeof *order);
    if (!order)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to check %zu tensors", count);
    bool sorted = true;
    for (size_t i = 0; i < count; i++) {
        order[i] = &self->items[first + i];
        sorted = sorted && (i == 0 || s_by_offset(&order[i - 1], &order[i]) <= 0);
    }
    if (!sorted)
        qsort(order, count, sizeof *order, s_by_offset);
    lade_code_t code = s_check_order(order, count, start, size, padding, error);
    free(order);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Names, values, findings

enum { S_NAMES = 1 << 16 };

struct lade_tensor_names {
    struct lade_tensor_names *next;
    size_t used, cap;
    char bytes[];
};

const char *
lade_tensor_list_keep(lade_tensors_t *self, const void *bytes, size_t len)
{
    struct lade_tensor_names *names = self->names;
    if (!names || names->cap - names->used <= len) {
        size_t cap = len < S_NAMES / 4 ? S_NAMES : len + 1;
        names = malloc(sizeof *names + cap);
        if (!names)
            return NULL;
        *names = (struct lade_tensor_names){.next = self->names, .cap = cap};
        self->names = names;
    }
    char *copy = names->bytes + names->used;
    memcpy(copy, bytes, len);
    copy[len] = '\0';
    names->used += len + 1;
    return copy;
}

const uint64_t *
lade_tensor_list_keep_numbers(lade_tensors_t *self, const uint64_t *numbers, size_t count)
{
    static const uint64_t none[LADE_TENSOR_MAX_RANK + 1] = {0}; // and room to align
    assert(count <= LADE_TENSOR_MAX_RANK);
    char *kept = (char *)lade_tensor_list_keep(self, none, (count + 1) * sizeof *numbers);
    if (!kept)
        return NULL;
    kept += -(uintptr_t)kept % sizeof *numbers;
    memcpy(kept, numbers, count * sizeof *numbers);
    return (const uint64_t *)(void *)kept;
}

static lade_code_t
s_set(json_t *map, const char *what, const char *name, json_t *value, lade_error_t *error)
{
    char shown[80];
    if (json_object_get(map, name)) {
        json_decref(value);
        return LADE_OK;
    }
    if (json_object_size(map) == LADE_TENSORS_MAX_VALUES) {
        json_decref(value);
        return lade_error_set(error, LADE_TOO_LARGE, "its %s has more than %d entries", what,
                              LADE_TENSORS_MAX_VALUES);
    }
    if (!value || json_object_set_new_nocheck(map, name, value) != 0)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %s of its %s",
                              lade_tensor_list_show(name, shown), what);
    return LADE_OK;
}

lade_code_t
lade_tensor_list_set_value(lade_tensors_t *self, const char *name, json_t *value,
                           lade_error_t *error)
{
    return s_set(self->values, "values", name, value, error);
}

lade_code_t
lade_tensor_list_set_metadata(lade_tensors_t *self, const char *name, json_t *value,
                              lade_error_t *error)
{
    return s_set(self->metadata, "metadata", name, value, error);
}

// Printable and short; what is no UTF-8 byte by byte as '?'.
static json_t *
s_shown(const char *text)
{
    char out[200];
    snprintf(out, sizeof out, "%.180s%s", text ? text : "",
             text && strlen(text) > 180 ? "..." : "");
    for (char *at = out; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    json_t *shown = json_string(out);
    for (char *at = out; !shown && *at; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    return shown ? shown : json_string(out);
}

void
lade_tensor_list_add_unsafe(lade_tensors_t *self, const char *what, const char *where,
                            const char *name, const char *format, ...)
{
    char message[400];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    size_t count = json_array_size(self->unsafe);
    if (count > LADE_TENSORS_MAX_UNSAFE)
        return;
    if (count == LADE_TENSORS_MAX_UNSAFE) {
        what = "more";
        where = name = NULL;
        snprintf(message, sizeof message, "there are more than %d findings",
                 LADE_TENSORS_MAX_UNSAFE);
    }
    json_t *finding = json_pack("{ss so so so}", "what", what, "where", s_shown(where), "name",
                                s_shown(name), "message", s_shown(message));
    for (size_t i = 0; i < count; i++)
        if (json_equal(json_array_get(self->unsafe, i), finding)) {
            json_decref(finding);
            return;
        }
    json_array_append_new(self->unsafe, finding);
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
    size_t len = strlen(name);
    uint64_t *slot = self->count ? s_slot(self, s_hash(name, len), name, len) : NULL;
    return slot && *slot ? &self->items[(uint32_t)*slot - 1] : NULL;
}

const json_t *
lade_tensors_metadata(const lade_tensors_t *self)
{
    return self->metadata;
}

const json_t *
lade_tensors_value(const lade_tensors_t *self, const char *path)
{
    const json_t *value = json_object_get(self->values, path);
    return value ? value : lade_json_file_at(self->values, path);
}

const json_t *
lade_tensors_unsafe(const lade_tensors_t *self)
{
    return self->unsafe;
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
    for (struct lade_tensor_names *next; self->names; self->names = next) {
        next = self->names->next;
        free(self->names);
    }
    json_decref(self->metadata);
    json_decref(self->values);
    json_decref(self->unsafe);
    free(self);
    *self_p = NULL;
}
