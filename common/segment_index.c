// A segment's index, read by a small msgpack walk of its own: it is the one body that may hold more
// values than a message may (a model of 90,000 tensors is real), and reading it straight into
// lade_tensor_t costs a fraction of unpacking it into objects first.
#include "common/segment_private.h"

#include "common/wire.h"

#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------------------------------
// A walk over msgpack

typedef struct {
    const uint8_t *at, *end;
} s_walk_t;

typedef enum { S_NIL, S_BOOL, S_UINT, S_OTHER, S_STR, S_ARRAY, S_MAP } s_kind_t;

typedef struct {
    s_kind_t kind;
    uint64_t value;     // of S_UINT; values within an S_ARRAY or S_MAP (both halves of its pairs)
    const uint8_t *str; // of S_STR
    size_t len;         // bytes of an S_STR or S_OTHER after its first bytes
} s_value_t;

// What the first bytes of a value say: how many bytes of a big-endian number follow the type byte,
// what the number is, and how many more bytes lie after it.
typedef struct {
    s_kind_t kind;
    uint8_t number; // bytes of the number
    bool counts;    // the number counts bytes that follow
    uint8_t extra;  // bytes that follow besides
} s_type_t;

static const s_type_t s_types[32] = {
    // clang-format off
    // c0 nil           never used            false               true
    {S_NIL, 0, 0, 0},   {S_OTHER, 0, 0, 0},   {S_BOOL, 0, 0, 0},  {S_BOOL, 0, 0, 0},
    // c4 bin 8, 16, 32                                           ext 8
    {S_OTHER, 1, 1, 0}, {S_OTHER, 2, 1, 0},   {S_OTHER, 4, 1, 0}, {S_OTHER, 1, 1, 1},
    // c8 ext 16, 32                          float 32, 64
    {S_OTHER, 2, 1, 1}, {S_OTHER, 4, 1, 1},   {S_OTHER, 0, 0, 4}, {S_OTHER, 0, 0, 8},
    // cc uint 8, 16, 32, 64
    {S_UINT, 1, 0, 0},  {S_UINT, 2, 0, 0},    {S_UINT, 4, 0, 0},  {S_UINT, 8, 0, 0},
    // d0 int 8, 16, 32, 64: nothing here is negative, so they are no numbers to us
    {S_OTHER, 0, 0, 1}, {S_OTHER, 0, 0, 2},   {S_OTHER, 0, 0, 4}, {S_OTHER, 0, 0, 8},
    // d4 fixext 1, 2, 4, 8
    {S_OTHER, 0, 0, 2}, {S_OTHER, 0, 0, 3},   {S_OTHER, 0, 0, 5}, {S_OTHER, 0, 0, 9},
    // d8 fixext 16     str 8, 16, 32
    {S_OTHER, 0, 0, 17},{S_STR, 1, 1, 0},     {S_STR, 2, 1, 0},   {S_STR, 4, 1, 0},
    // dc array 16, 32                        map 16, 32
    {S_ARRAY, 2, 0, 0}, {S_ARRAY, 4, 0, 0},   {S_MAP, 2, 0, 0},   {S_MAP, 4, 0, 0},
    // clang-format on
};

// Reads one value's beginning: all of a scalar, the count of a container. False if it is cut off.
static bool
s_next(s_walk_t *walk, s_value_t *value)
{
    if (walk->at == walk->end)
        return false;
    uint8_t byte = *walk->at++;
    s_type_t type = {.kind = S_OTHER};
    uint64_t number = 0;
    if (byte <= 0x7f || byte >= 0xe0) // one-byte integers; the negative ones are no numbers to us
        type.kind = byte <= 0x7f ? S_UINT : S_OTHER, number = byte;
    else if (byte <= 0x9f)
        type.kind = byte <= 0x8f ? S_MAP : S_ARRAY, number = byte & 0x0f;
    else if (byte <= 0xbf)
        type = (s_type_t){.kind = S_STR, .counts = true}, number = byte & 0x1f;
    else
        type = s_types[byte - 0xc0];
    if ((size_t)(walk->end - walk->at) < type.number)
        return false;
    for (size_t i = 0; i < type.number; i++)
        number = number << 8 | *walk->at++;
    uint64_t len = (type.counts ? number : 0) + type.extra;
    uint64_t items = type.kind == S_MAP ? number * 2 : type.kind == S_ARRAY ? number : 0;
    if ((uint64_t)(walk->end - walk->at) < len || (uint64_t)(walk->end - walk->at) < items)
        return false; // each value within takes a byte at least
    bool container = type.kind == S_MAP || type.kind == S_ARRAY;
    *value = (s_value_t){type.kind, container ? items : number, walk->at, len};
    walk->at += len;
    return true;
}

// Steps over the values within a value that was just read. No recursion: what is left to read is a
// count.
static bool
s_skip_rest(s_walk_t *walk, const s_value_t *value)
{
    uint64_t todo = value->kind == S_MAP || value->kind == S_ARRAY ? value->value : 0;
    s_value_t inner;
    while (todo) {
        if (!s_next(walk, &inner))
            return false;
        todo--;
        if (inner.kind == S_MAP || inner.kind == S_ARRAY)
            todo += inner.value;
        if (todo > (uint64_t)(walk->end - walk->at))
            return false;
    }
    return true;
}

static bool
s_is(const s_value_t *value, const char *text)
{
    return value->kind == S_STR && value->len == strlen(text) &&
           !memcmp(value->str, text, value->len);
}

// ---------------------------------------------------------------------------------------------------
// The index

// Members a tensor of the index has; all have to be there.
enum { S_NAME = 1, S_DTYPE = 2, S_SHAPE = 4, S_OFFSET = 8, S_SIZE = 16, S_ALL = 31 };

static bool
s_read_shape(s_walk_t *walk, const s_value_t *value, lade_tensor_t *tensor)
{
    if (value->kind != S_ARRAY || value->value > LADE_TENSOR_MAX_RANK)
        return false;
    tensor->rank = (uint8_t)value->value;
    for (size_t i = 0; i < tensor->rank; i++) {
        s_value_t dim;
        if (!s_next(walk, &dim) || dim.kind != S_UINT)
            return false;
        tensor->shape[i] = dim.value;
    }
    return true;
}

// Reads one member of a tensor; returns which it was, 0 for one that is not known, -1 for a wrong
// one.
static int
s_read_member(s_walk_t *walk, lade_tensor_t *tensor)
{
    s_value_t key, value;
    if (!s_next(walk, &key) || key.kind != S_STR || !s_next(walk, &value))
        return -1;
    if (s_is(&key, "name")) {
        tensor->name = (const char *)value.str; // copied, with a NUL, when all are read
        tensor->name_len = value.len;
        return value.kind == S_STR && !memchr(value.str, '\0', value.len) ? S_NAME : -1;
    }
    if (s_is(&key, "dtype"))
        return value.kind == S_STR &&
                       lade_dtype_find((const char *)value.str, value.len, &tensor->dtype)
                   ? S_DTYPE
                   : -1;
    if (s_is(&key, "shape"))
        return s_read_shape(walk, &value, tensor) ? S_SHAPE : -1;
    if (s_is(&key, "offset")) {
        tensor->offset = value.value;
        return value.kind == S_UINT ? S_OFFSET : -1;
    }
    if (s_is(&key, "size")) {
        tensor->size = value.value;
        return value.kind == S_UINT ? S_SIZE : -1;
    }
    if (s_is(&key, "layout"))
        tensor->layout = s_is(&value, lade_layout_kind_name(LADE_LAYOUT_CHANNELS_LAST))
                             ? LADE_LAYOUT_CHANNELS_LAST
                             : LADE_LAYOUT_DENSE;
    return s_skip_rest(walk, &value) ? 0 : -1;
}

// True if the bytes lie within the data and are as many as shape and type say.
static bool
s_tensor_fits(const lade_segment_head_t *head, const lade_tensor_t *tensor)
{
    uint64_t size;
    return lade_dtype_bytes(tensor->dtype, tensor->shape, tensor->rank, &size) &&
           size == tensor->size &&
           (tensor->layout != LADE_LAYOUT_CHANNELS_LAST || tensor->rank == 4) &&
           tensor->offset >= head->data_at && tensor->offset <= head->length &&
           tensor->size <= head->length - tensor->offset;
}

static lade_code_t
s_read_tensors(lade_segment_t *self, s_walk_t *walk, const s_value_t *list, lade_error_t *error)
{
    enum { S_LEAST = 30 }; // bytes a tensor takes: the keys alone are that long
    if (list->kind != S_ARRAY || self->tensors)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment's index has no single list of tensors");
    if (list->value > (uint64_t)(walk->end - walk->at) / S_LEAST)
        return lade_error_set(error, LADE_CORRUPT, "the segment's index is cut off");
    self->tensors = calloc(list->value + 1, sizeof *self->tensors);
    if (!self->tensors)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu tensors",
                              (size_t)list->value);
    for (size_t i = 0; i < list->value; i++) {
        lade_tensor_t *tensor = &self->tensors[i];
        s_value_t map;
        int seen = 0;
        if (!s_next(walk, &map) || map.kind != S_MAP)
            return lade_error_set(error, LADE_CORRUPT,
                                  "tensor %zu of the segment's index is no map", i);
        for (size_t pair = 0; pair < map.value / 2 && seen >= 0; pair++) {
            int member = s_read_member(walk, tensor);
            seen = member < 0 ? -1 : seen | member;
        }
        if (seen != S_ALL || !s_tensor_fits(&self->head, tensor))
            return lade_error_set(error, LADE_CORRUPT,
                                  "tensor %zu of the segment's index is wrong or lies outside", i);
        self->count = i + 1;
    }
    return LADE_OK;
}

// Gives every name a NUL; the index has none.
static lade_code_t
s_copy_names(lade_segment_t *self, lade_error_t *error)
{
    size_t bytes = 1;
    for (size_t i = 0; i < self->count; i++)
        bytes += self->tensors[i].name_len + 1;
    char *at = self->names = malloc(bytes);
    if (!at)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the names of %zu tensors",
                              self->count);
    for (size_t i = 0; i < self->count; i++) {
        lade_tensor_t *tensor = &self->tensors[i];
        memcpy(at, tensor->name, tensor->name_len);
        at[tensor->name_len] = '\0';
        tensor->name = at;
        at += tensor->name_len + 1;
    }
    return LADE_OK;
}

static lade_code_t
s_read_index(lade_segment_t *self, lade_error_t *error)
{
    s_walk_t walk = {.at = self->bytes + self->head.index_at};
    walk.end = walk.at + self->head.index_len;
    s_value_t map, key, value;
    if (!s_next(&walk, &map) || map.kind != S_MAP)
        return lade_error_set(error, LADE_CORRUPT, "the segment's index is no map");
    for (size_t pair = 0; pair < map.value / 2; pair++) {
        const uint8_t *at = s_next(&walk, &key) && key.kind == S_STR ? walk.at : NULL;
        if (!at || !s_next(&walk, &value))
            return lade_error_set(error, LADE_CORRUPT, "the segment's index is cut off");
        if (s_is(&key, "tensors")) {
            lade_code_t code = s_read_tensors(self, &walk, &value, error);
            if (code)
                return code;
        } else if (!s_skip_rest(&walk, &value))
            return lade_error_set(error, LADE_CORRUPT, "the segment's index is cut off");
        if (s_is(&key, "metadata")) {
            self->metadata = at;
            self->metadata_len = (size_t)(walk.at - at);
        }
    }
    if (!self->tensors)
        return lade_error_set(error, LADE_CORRUPT, "the segment's index has no list of tensors");
    return s_copy_names(self, error);
}

lade_code_t
lade_segment_read_index(lade_segment_t *self, lade_error_t *error)
{
    if (!self->indexed) {
        self->indexed = true;
        if (s_read_index(self, &self->index_error))
            self->count = 0;
    }
    if (self->index_error.code && error)
        *error = self->index_error;
    return self->index_error.code;
}

// ---------------------------------------------------------------------------------------------------
// Asking it

size_t
lade_segment_count(lade_segment_t *self)
{
    return lade_segment_read_index(self, NULL) ? 0 : self->count;
}

json_t *
lade_segment_metadata(lade_segment_t *self)
{
    json_t *metadata = NULL;
    if (lade_segment_read_index(self, NULL) || !self->metadata)
        return NULL;
    return lade_wire_to_json(self->metadata, self->metadata_len, &metadata, NULL) ? NULL : metadata;
}

const lade_tensor_t *
lade_segment_get(lade_segment_t *self, size_t index)
{
    return index < lade_segment_count(self) ? &self->tensors[index] : NULL;
}

static uint64_t
s_hash(const char *name, size_t len)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)name[i]) * 1099511628211u;
    return hash ^ hash >> 32;
}

// The slot a name is in, or the empty one it would be in.
static uint32_t *
s_slot(const lade_segment_t *self, const char *name, size_t len)
{
    size_t at = s_hash(name, len) & (self->slot_count - 1);
    while (self->slots[at]) {
        const lade_tensor_t *tensor = &self->tensors[self->slots[at] - 1];
        if (tensor->name_len == len && !memcmp(tensor->name, name, len))
            break;
        at = (at + 1) & (self->slot_count - 1);
    }
    return &self->slots[at];
}

static bool
s_make_slots(lade_segment_t *self)
{
    if (self->slots)
        return true;
    self->slot_count = 16;
    while (self->slot_count < self->count * 2)
        self->slot_count *= 2;
    self->slots = calloc(self->slot_count, sizeof *self->slots);
    if (!self->slots)
        return false;
    for (size_t i = 0; i < self->count; i++) {
        uint32_t *slot = s_slot(self, self->tensors[i].name, self->tensors[i].name_len);
        if (!*slot) // of two with one name the first counts
            *slot = (uint32_t)(i + 1);
    }
    return true;
}

const lade_tensor_t *
lade_segment_find(lade_segment_t *self, const char *name)
{
    if (!lade_segment_count(self) || !s_make_slots(self))
        return NULL;
    uint32_t slot = *s_slot(self, name, strlen(name));
    return slot ? &self->tensors[slot - 1] : NULL;
}
