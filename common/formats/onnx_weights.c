// The weights of an ONNX graph: initializers, inline or in other files.
#include "common/formats/onnx_walk.h"
#include "common/path.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    lade_tensor_t tensor;
    uint64_t type;
    uint64_t at, len; // of its data
    bool raw;         // as it is in memory; else as varints
    bool has_data, external;
    json_t *where; // location, offset, length of external data
} s_initializer_t;

static lade_code_t
s_dim(lade_onnx_walk_t *walk, void *into, uint64_t value)
{
    lade_tensor_t *tensor = &((s_initializer_t *)into)->tensor;
    if (tensor->rank == LADE_TENSOR_MAX_RANK)
        return lade_onnx_walk_fail(walk, LADE_TOO_LARGE, "a tensor has more than %d dimensions",
                                   LADE_TENSOR_MAX_RANK);
    if (value > INT64_MAX)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "a tensor has a dimension of %lld",
                                   (long long)value);
    tensor->shape[tensor->rank++] = value;
    return LADE_OK;
}

static lade_code_t
s_dims(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)len;
    lade_code_t code = LADE_OK;
    while (!code && walk->window->at < walk->window->end) {
        uint64_t value;
        code = lade_onnx_walk_varint(walk, &value);
        if (!code)
            code = s_dim(walk, into, value);
    }
    return code;
}

static lade_code_t
s_data_type(lade_onnx_walk_t *walk, void *into, uint64_t value)
{
    (void)walk;
    ((s_initializer_t *)into)->type = value;
    return LADE_OK;
}

static lade_code_t
s_name(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    lade_tensor_t *tensor = &((s_initializer_t *)into)->tensor;
    if (len > LADE_TENSORS_MAX_NAME)
        return lade_onnx_walk_fail(walk, LADE_TOO_LARGE,
                                   "a tensor's name of %llu bytes, %d are the most",
                                   (unsigned long long)len, LADE_TENSORS_MAX_NAME);
    const uint8_t *name = lade_window_take(walk->window, (size_t)len, walk->error);
    if (!name)
        return walk->error->code;
    if (memchr(name, '\0', (size_t)len))
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "a tensor's name has a zero byte");
    tensor->name = lade_tensor_list_keep(walk->list, name, (size_t)len);
    tensor->name_len = (size_t)len;
    return tensor->name ? LADE_OK
                        : lade_onnx_walk_fail(walk, LADE_NO_MEMORY, "no memory for names");
}

static lade_code_t
s_note_data(lade_onnx_walk_t *walk, s_initializer_t *self, uint64_t len, bool raw)
{
    if (self->has_data && len)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "a tensor has its data twice");
    self->at = walk->window->at;
    self->len = len;
    self->raw = raw;
    self->has_data = len > 0;
    return LADE_OK;
}

static lade_code_t
s_raw_data(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    return s_note_data(walk, into, len, true);
}

static lade_code_t
s_varint_data(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    return s_note_data(walk, into, len, false);
}

// Numbers one field each, as writers older than packed lists left them.
static lade_code_t
s_single_data(lade_onnx_walk_t *walk, void *into, uint64_t value)
{
    (void)value;
    s_initializer_t *self = into;
    self->at = self->has_data ? self->at : walk->window->at;
    self->len = walk->window->at - self->at;
    self->has_data = true;
    self->raw = false;
    return LADE_OK;
}

static lade_code_t
s_external(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)len;
    s_initializer_t *self = into;
    self->where = self->where ? self->where : json_object();
    return lade_onnx_walk_pair(walk, self->where);
}

static lade_code_t
s_location(lade_onnx_walk_t *walk, void *into, uint64_t value)
{
    ((s_initializer_t *)into)->external = value == 1;
    return value > 1 ? lade_onnx_walk_fail(walk, LADE_CORRUPT, "a tensor's data_location is %llu",
                                           (unsigned long long)value)
                     : LADE_OK;
}

static const lade_onnx_row_t s_initializer_rows[] = {
    // clang-format off
    {1,  LADE_ONNX_VARINT, s_dim},       {1,  LADE_ONNX_BYTES, s_dims},      {2,  LADE_ONNX_VARINT, s_data_type},
    {4,  LADE_ONNX_BYTES,  s_raw_data},  {5,  LADE_ONNX_BYTES, s_varint_data}, {5, LADE_ONNX_VARINT, s_single_data},
    {7,  LADE_ONNX_BYTES,  s_varint_data}, {7, LADE_ONNX_VARINT, s_single_data}, {8, LADE_ONNX_BYTES, s_name},
    {9,  LADE_ONNX_BYTES,  s_raw_data},  {10, LADE_ONNX_BYTES, s_raw_data},  {11, LADE_ONNX_BYTES, s_varint_data},
    {11, LADE_ONNX_VARINT, s_single_data}, {13, LADE_ONNX_BYTES, s_external}, {14, LADE_ONNX_VARINT, s_location},
    {0},
    // clang-format on
};

// A number written as text; 0 if there is none.
static bool
s_number_at(const json_t *map, const char *key, uint64_t *value_p)
{
    const char *text = json_string_value(json_object_get(map, key));
    *value_p = 0;
    if (!text)
        return true;
    for (; *text >= '0' && *text <= '9'; text++)
        if (__builtin_mul_overflow(*value_p, 10, value_p) ||
            __builtin_add_overflow(*value_p, (uint64_t)(*text - '0'), value_p))
            return false;
    return *text == '\0';
}

// The list's number of a file beside the graph, which is looked for when it is first named.
static lade_code_t
s_other_file(lade_onnx_walk_t *walk, const char *location, uint32_t *file_p)
{
    struct stat st;
    char shown[80];
    const json_t *known = json_object_get(walk->locations, location);
    *file_p = (uint32_t)json_integer_value(known);
    if (known)
        return LADE_OK;
    char *folder = lade_path_folder(walk->path), *path = lade_path_join(folder, location);
    lade_code_t code = LADE_OK;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        code =
            lade_error_set(walk->error, LADE_NOT_FOUND, "its weights are in %s, which is not there",
                           lade_tensor_list_show(location, shown));
    if (!code)
        code = lade_tensor_list_add_file(walk->list, path, (uint64_t)st.st_size, NULL, file_p,
                                         walk->error);
    if (!code)
        json_object_set_new(walk->locations, location, json_integer((json_int_t)*file_p));
    free(path);
    free(folder);
    return code;
}

// Sets place and size of weights in another file; *left_out_p if they must not be there.
static lade_code_t
s_place_external(lade_onnx_walk_t *walk, s_initializer_t *self, uint64_t bytes, bool *left_out_p)
{
    char shown[80], path[80];
    lade_tensor_t *tensor = &self->tensor;
    const char *location = json_string_value(json_object_get(self->where, "location"));
    uint64_t length, end;
    lade_tensor_list_show(tensor->name, shown);
    if (!location)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "tensor %s does not say which file it is in",
                                   shown);
    while (strncmp(location, "./", 2) == 0)
        location += 2;
    if (lade_path_check_relative(location, NULL)) {
        *left_out_p = true;
        lade_tensor_list_add_unsafe(walk->list, "path", shown, location,
                                    "tensor %s would be read from %s, outside the model's folder",
                                    shown, lade_tensor_list_show(location, path));
        return LADE_OK;
    }
    if (!s_number_at(self->where, "offset", &tensor->offset) ||
        !s_number_at(self->where, "length", &length))
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "offset or length of tensor %s is no number",
                                   shown);
    if (json_object_get(self->where, "length") && length != bytes)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT,
                                   "tensor %s has %llu bytes where its shape takes %llu", shown,
                                   (unsigned long long)length, (unsigned long long)bytes);
    lade_code_t code = s_other_file(walk, location, &tensor->file);
    if (!code && (__builtin_add_overflow(tensor->offset, bytes, &end) ||
                  end > walk->list->files[tensor->file].size))
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "tensor %s ends beyond %s", shown,
                                   lade_tensor_list_show(location, path));
    tensor->size = bytes;
    return code;
}

static lade_code_t
s_place_inline(lade_onnx_walk_t *walk, s_initializer_t *self, uint64_t bytes)
{
    char shown[80];
    lade_tensor_t *tensor = &self->tensor;
    lade_tensor_list_show(tensor->name, shown);
    if (!self->has_data && bytes)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "tensor %s has no data", shown);
    if (self->raw && self->len != bytes)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT,
                                   "tensor %s has %llu bytes where its shape takes %llu", shown,
                                   (unsigned long long)self->len, (unsigned long long)bytes);
    tensor->file = walk->file;
    tensor->offset = self->at;
    tensor->size = self->len;
    return LADE_OK;
}

static lade_code_t
s_add(lade_onnx_walk_t *walk, s_initializer_t *self)
{
    char shown[80];
    uint64_t bytes;
    bool left_out = false;
    if (!self->tensor.name)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "a tensor has no name");
    lade_tensor_list_show(self->tensor.name, shown);
    if (self->type == LADE_ONNX_TEXT)
        return LADE_OK;
    if (!lade_onnx_walk_type(self->type, &self->tensor.dtype))
        return lade_onnx_walk_fail(walk, self->type ? LADE_NOT_IMPLEMENTED : LADE_CORRUPT,
                                   "tensor %s has the type %llu, which lade does not know", shown,
                                   (unsigned long long)self->type);
    if (!lade_tensor_list_bytes(&self->tensor, &bytes))
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "the shape of tensor %s overflows", shown);
    lade_code_t code = self->external ? s_place_external(walk, self, bytes, &left_out)
                                      : s_place_inline(walk, self, bytes);
    return code || left_out ? code : lade_tensor_list_add(walk->list, &self->tensor, walk->error);
}

lade_code_t
lade_onnx_weights_add(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    (void)into;
    (void)len;
    s_initializer_t self = {0};
    lade_code_t code = lade_onnx_walk_message(walk, s_initializer_rows, &self);
    if (!code)
        code = s_add(walk, &self);
    json_decref(self.where);
    return code;
}
