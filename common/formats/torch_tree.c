// From the objects of a pickle to the list of tensors, and the values beside them.
#include "common/formats/pickle.h"
#include "common/formats/tensor_list.h"
#include "common/formats/torch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    S_MAX_DEPTH = 64,       // dicts within dicts
    S_MAX_VISITS = 1 << 23, // objects looked at: a tree may hold one many times over
    S_MAX_VALUE_DEPTH = 6,
    S_MAX_VALUE_TEXT = 4096,
    S_MAX_VALUE_NODES = 20000,
    S_MAX_VALUE_ITEMS = 1000, // of one list or dict
};

typedef struct {
    lade_tensors_t *list;
    uint32_t file;
    const lade_torch_finder_t *finder;
    lade_error_t *error;
    size_t visits, depth;
    size_t tensors; // found so far
    bool looking;   // only for whether there is one
    char path[LADE_TENSORS_MAX_NAME + 1];
    size_t path_len;
} s_tree_t;

static const lade_object_t *
s_arg(const lade_object_t *args, size_t index)
{
    return args && args->kind == LADE_OBJECT_TUPLE && index < args->len ? args->items[index] : NULL;
}

static bool
s_is_map(const lade_object_t *object)
{
    return object && object->kind == LADE_OBJECT_DICT;
}

// ---------------------------------------------------------------------------------------------------
// One tensor

static bool
s_integer(const lade_object_t *object, int64_t *value_p)
{
    if (!object || object->kind != LADE_OBJECT_INT)
        return false;
    *value_p = object->integer;
    return true;
}

// A tuple of dimensions or strides, also as torch.Size.
static bool
s_numbers(const lade_object_t *object, uint64_t numbers[LADE_TENSOR_MAX_RANK], uint8_t *count_p)
{
    if (object && object->kind == LADE_OBJECT_CALL && object->row &&
        strcmp(object->row->name, "Size") == 0)
        object = s_arg(object->items[LADE_CALL_ARGS], 0);
    if (!object || (object->kind != LADE_OBJECT_TUPLE && object->kind != LADE_OBJECT_LIST) ||
        object->len > LADE_TENSOR_MAX_RANK)
        return false;
    for (uint32_t i = 0; i < object->len; i++) {
        int64_t value;
        if (!s_integer(object->items[i], &value) || value < 0)
            return false;
        numbers[i] = (uint64_t)value;
    }
    *count_p = (uint8_t)object->len;
    return true;
}

// Elements from the first to behind the last, 0 if there are none. False if they overflow.
static bool
s_extent(const lade_tensor_t *tensor, const uint64_t *strides, uint64_t *extent_p)
{
    uint64_t extent = 1, way;
    for (size_t i = 0; i < tensor->rank; i++)
        if (tensor->shape[i] == 0) {
            *extent_p = 0;
            return true;
        }
    for (size_t i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(tensor->shape[i] - 1, strides[i], &way) ||
            __builtin_add_overflow(extent, way, &extent))
            return false;
    *extent_p = extent;
    return true;
}

static bool
s_is_contiguous(const lade_tensor_t *tensor, const uint64_t *strides)
{
    uint64_t expected = 1;
    for (size_t i = tensor->rank; i-- > 0;) {
        if (tensor->shape[i] == 0)
            return true;
        if (tensor->shape[i] != 1 && strides[i] != expected)
            return false;
        expected *= tensor->shape[i]; // cannot overflow: the size was computed
    }
    return true;
}

static lade_code_t
s_wrong(s_tree_t *self, const char *words)
{
    char shown[80];
    return lade_error_set(self->error, LADE_CORRUPT, "tensor %s %s",
                          lade_tensor_list_show(self->path, shown), words);
}

// Places the tensor in its storage.
static lade_code_t
s_place(s_tree_t *self, lade_tensor_t *tensor, const lade_storage_t *storage, uint64_t from,
        const uint64_t *strides)
{
    uint64_t extent, block = lade_dtype_block(tensor->dtype), size = lade_dtype_size(tensor->dtype);
    uint64_t begin, end, bytes;
    if (!s_extent(tensor, strides, &extent) || !lade_tensor_list_bytes(tensor, &bytes))
        return s_wrong(self, "is larger than can be");
    if (__builtin_mul_overflow(from / block, size, &begin) ||
        __builtin_add_overflow(extent, block - 1, &end) ||
        __builtin_mul_overflow(end / block, size, &end) || begin > storage->size ||
        end > storage->size - begin)
        return s_wrong(self, "reaches beyond its storage");
    bool dense = s_is_contiguous(tensor, strides);
    tensor->layout = storage->layout == LADE_LAYOUT_PACKED ? LADE_LAYOUT_PACKED
                     : dense                               ? LADE_LAYOUT_DENSE
                                                           : LADE_LAYOUT_STRIDED;
    bool packed = tensor->layout == LADE_LAYOUT_PACKED;
    tensor->offset = storage->offset + (packed ? 0 : begin);
    tensor->size = packed ? storage->packed : dense ? bytes : end;
    if (tensor->layout != LADE_LAYOUT_STRIDED)
        return LADE_OK;
    tensor->strides = lade_tensor_list_keep_numbers(self->list, strides, tensor->rank);
    return tensor->strides
               ? LADE_OK
               : lade_error_set(self->error, LADE_NO_MEMORY, "no memory for strides of tensors");
}

static lade_code_t
s_add(s_tree_t *self, lade_tensor_t *tensor)
{
    tensor->file = self->file;
    tensor->name_len = self->path_len;
    tensor->name = lade_tensor_list_keep(self->list, self->path, self->path_len);
    if (!tensor->name)
        return lade_error_set(self->error, LADE_NO_MEMORY, "no memory for names of tensors");
    return lade_tensor_list_add(self->list, tensor, self->error);
}

// (storage, offset, shape, strides, …): what most calls begin with. dtype_at: the argument with the
// type, 0 if the storage has it.
static lade_code_t
s_read_strided(s_tree_t *self, const lade_object_t *args, size_t dtype_at, lade_tensor_t *tensor)
{
    lade_storage_t storage;
    uint64_t strides[LADE_TENSOR_MAX_RANK];
    uint8_t ranks = 0;
    int64_t from;
    const lade_object_t *of = s_arg(args, 0), *dtype = s_arg(args, dtype_at);
    if (!of || !self->finder->storage || !s_integer(s_arg(args, 1), &from) || from < 0 ||
        !s_numbers(s_arg(args, 2), tensor->shape, &tensor->rank) ||
        !s_numbers(s_arg(args, 3), strides, &ranks) || ranks != tensor->rank)
        return s_wrong(self, "is made of what no tensor is made of");
    lade_code_t code = self->finder->storage(self->finder->arg, of, &storage, self->error);
    if (code)
        return code;
    tensor->dtype = storage.dtype;
    if (dtype_at) {
        if (!dtype || dtype->kind != LADE_OBJECT_GLOBAL || !dtype->row ||
            dtype->row->role != LADE_ROLE_DTYPE)
            return s_wrong(self, "has no type");
        tensor->dtype = dtype->row->dtype;
    }
    return s_place(self, tensor, &storage, (uint64_t)from, strides);
}

static lade_code_t s_read_tensor(s_tree_t *self, const lade_global_t *row,
                                 const lade_object_t *args, lade_tensor_t *tensor);

static lade_code_t
s_read_call(s_tree_t *self, const lade_object_t *call, lade_tensor_t *tensor)
{
    if (!call || call->kind != LADE_OBJECT_CALL || !call->row)
        return s_wrong(self, "is made of what no tensor is made of");
    return s_read_tensor(self, call->row, call->items[LADE_CALL_ARGS], tensor);
}

// (layout, (indices, values, shape)), or (layout, (rows, columns, values, shape)).
static lade_code_t
s_read_sparse(s_tree_t *self, const lade_object_t *args, lade_tensor_t *tensor)
{
    const lade_object_t *data = s_arg(args, 1);
    size_t at = data && data->len > 3 && data->items[2]->kind == LADE_OBJECT_CALL &&
                        data->items[2]->row && data->items[2]->row->role == LADE_ROLE_TENSOR
                    ? 2
                    : 1;
    lade_code_t code = s_read_call(self, s_arg(data, at), tensor);
    if (!code && !s_numbers(s_arg(data, at + 1), tensor->shape, &tensor->rank))
        code = s_wrong(self, "is sparse and has no shape");
    tensor->layout = LADE_LAYOUT_SPARSE;
    return code;
}

// (dtype, shape, strides, …): no bytes. Or (array, dtype, …): bytes somewhere in the pickle.
static lade_code_t
s_read_elsewhere(s_tree_t *self, const lade_object_t *dtype, const lade_object_t *shape,
                 lade_layout_kind_t layout, lade_tensor_t *tensor)
{
    if (!dtype || dtype->kind != LADE_OBJECT_GLOBAL || !dtype->row ||
        dtype->row->role != LADE_ROLE_DTYPE || !s_numbers(shape, tensor->shape, &tensor->rank))
        return s_wrong(self, "has no type or shape");
    tensor->dtype = dtype->row->dtype;
    tensor->layout = layout;
    return LADE_OK;
}

static lade_code_t
s_read_tensor(s_tree_t *self, const lade_global_t *row, const lade_object_t *args,
              lade_tensor_t *tensor)
{
    const lade_object_t *first = s_arg(args, 0);
    lade_code_t code = LADE_OK;
    if (++self->depth > S_MAX_DEPTH)
        return s_wrong(self, "is made of itself");
    switch (row->role) {
    case LADE_ROLE_TENSOR:
    case LADE_ROLE_QTENSOR:
        code = s_read_strided(self, args, 0, tensor);
        break;
    case LADE_ROLE_TENSOR_V3:
        code = s_read_strided(self, args, 6, tensor);
        break;
    case LADE_ROLE_PARAMETER:
        code = s_read_call(self, first, tensor);
        break;
    case LADE_ROLE_SPARSE:
        code = s_read_sparse(self, args, tensor);
        break;
    case LADE_ROLE_META:
        code = s_read_elsewhere(self, first, s_arg(args, 1), LADE_LAYOUT_NONE, tensor);
        break;
    case LADE_ROLE_FROM_NUMPY:
        code = s_read_elsewhere(self, s_arg(args, 1),
                                first && first->kind == LADE_OBJECT_CALL
                                    ? s_arg(first->items[LADE_CALL_STATE], 1)
                                    : NULL,
                                LADE_LAYOUT_PACKED, tensor);
        break;
    case LADE_ROLE_FROM_TYPE:
        code = first && first->row ? s_read_tensor(self, first->row, s_arg(args, 2), tensor)
                                   : s_wrong(self, "is of a type that is none");
        break;
    default:
        code = s_wrong(self, "is made of what no tensor is made of");
    }
    self->depth--;
    return code;
}

static bool
s_is_tensor(const s_tree_t *self, const lade_object_t *object)
{
    if (object->kind == LADE_OBJECT_PERSISTENT)
        return self->finder->tensor != NULL;
    return object->kind == LADE_OBJECT_CALL && object->row &&
           object->row->role >= LADE_ROLE_TENSOR && object->row->role <= LADE_ROLE_FROM_NUMPY &&
           object->row->role != LADE_ROLE_FROM_BYTES;
}

// ---------------------------------------------------------------------------------------------------
// The tree

static lade_code_t s_visit(s_tree_t *self, lade_object_t *object);

static lade_code_t
s_visit_named(s_tree_t *self, const char *name, size_t len, lade_object_t *object)
{
    size_t before = self->path_len;
    bool dot = before > 0;
    if (before + dot + len > LADE_TENSORS_MAX_NAME)
        return lade_error_set(self->error, LADE_TOO_LARGE, "a tensor's name is over %d bytes",
                              LADE_TENSORS_MAX_NAME);
    if (dot)
        self->path[before] = '.';
    memcpy(self->path + before + dot, name, len);
    self->path_len = before + dot + len;
    self->path[self->path_len] = '\0';
    lade_code_t code = s_visit(self, object);
    self->path_len = before;
    self->path[before] = '\0';
    return code;
}

// The text of a dict's key or of a place in a list. False for a key that can be no name.
static bool
s_key_text(const lade_object_t *key, uint32_t place, char number[32], const char **text_p,
           size_t *len_p)
{
    *text_p = number;
    if (key && (key->kind == LADE_OBJECT_TEXT || key->kind == LADE_OBJECT_GLOBAL)) {
        *text_p = key->bytes;
        *len_p = key->len;
        return memchr(key->bytes, '\0', key->len) == NULL;
    }
    if (key && key->kind == LADE_OBJECT_INT)
        *len_p = (size_t)snprintf(number, 32, "%" PRId64, key->integer);
    else
        *len_p = (size_t)snprintf(number, 32, "%" PRIu32, place);
    return true;
}

static lade_code_t
s_visit_items(s_tree_t *self, lade_object_t *object)
{
    char number[32];
    const char *text;
    size_t len;
    uint32_t step = s_is_map(object) ? 2 : 1;
    lade_code_t code = LADE_OK;
    for (uint32_t i = 0; !code && i + step <= object->len && !(self->looking && self->tensors);
         i += step) {
        lade_object_t *key = step == 2 ? object->items[i] : NULL,
                      *item = object->items[i + step - 1];
        if (item->kind < LADE_OBJECT_TUPLE)
            continue;
        if (!s_key_text(key, i / step, number, &text, &len))
            return s_wrong(self, "has a key with a NUL in it");
        code = s_visit_named(self, text, len, item);
    }
    return code;
}

static lade_object_t *
s_get(const lade_object_t *map, const char *key)
{
    for (uint32_t i = 0; s_is_map(map) && i + 1 < map->len; i += 2)
        if (lade_object_says(map->items[i], key))
            return map->items[i + 1];
    return NULL;
}

// What a call made of a class, by its state: a module's parameters have the names torch gives them.
static lade_code_t
s_visit_state(s_tree_t *self, lade_object_t *state)
{
    static const char *const transparent[] = {"_parameters", "_buffers", "_modules"};
    lade_code_t code = LADE_OK;
    if (!s_get(state, "_parameters") && !s_get(state, "_modules"))
        return s_visit(self, state);
    for (size_t i = 0; !code && i < sizeof transparent / sizeof *transparent; i++) {
        lade_object_t *part = s_get(state, transparent[i]);
        if (part)
            code = s_visit(self, part);
    }
    return code;
}

static lade_code_t
s_visit_call(s_tree_t *self, lade_object_t *object)
{
    static const size_t members[] = {LADE_CALL_ARGS, LADE_CALL_STATE, LADE_CALL_ITEMS};
    lade_code_t code = LADE_OK;
    if (object->row && object->row->role == LADE_ROLE_GETATTR) // a method: its object is elsewhere
        return LADE_OK;
    for (size_t i = 0; !code && i < sizeof members / sizeof *members; i++) {
        lade_object_t *member = object->items[members[i]];
        if (member)
            code =
                members[i] == LADE_CALL_STATE ? s_visit_state(self, member) : s_visit(self, member);
    }
    return code;
}

// A tensor that the pickle names and another part of the file describes.
static lade_code_t
s_read_named(s_tree_t *self, const lade_object_t *object, lade_tensor_t *tensor)
{
    lade_torch_tensor_t named = {.rank = 0};
    lade_code_t code = self->finder->tensor(self->finder->arg, object, &named, self->error);
    if (code)
        return code;
    tensor->dtype = named.storage.dtype;
    tensor->rank = named.rank;
    memcpy(tensor->shape, named.shape, sizeof named.shape);
    return s_place(self, tensor, &named.storage, named.from, named.strides);
}

static lade_code_t
s_visit_tensor(s_tree_t *self, const lade_object_t *object)
{
    lade_tensor_t tensor = {.rank = 0};
    size_t depth = self->depth;
    self->tensors++;
    if (self->looking)
        return LADE_OK;
    lade_code_t code = object->kind == LADE_OBJECT_PERSISTENT ? s_read_named(self, object, &tensor)
                                                              : s_read_call(self, object, &tensor);
    self->depth = depth;
    return code ? code : s_add(self, &tensor);
}

static lade_code_t
s_visit(s_tree_t *self, lade_object_t *object)
{
    if (++self->visits > S_MAX_VISITS)
        return lade_error_set(self->error, LADE_TOO_LARGE,
                              "its values hold each other more than %d times", S_MAX_VISITS);
    bool tensor = s_is_tensor(self, object);
    if (object->kind < LADE_OBJECT_TUPLE || object->kind == LADE_OBJECT_GLOBAL ||
        (object->kind == LADE_OBJECT_PERSISTENT && !tensor) || object->open)
        return LADE_OK;
    if (self->depth == S_MAX_DEPTH)
        return lade_error_set(self->error, LADE_TOO_LARGE, "its values are over %d deep",
                              S_MAX_DEPTH);
    if (tensor)
        return s_visit_tensor(self, object);
    object->open = true;
    self->depth++;
    lade_code_t code =
        object->kind == LADE_OBJECT_CALL ? s_visit_call(self, object) : s_visit_items(self, object);
    self->depth--;
    object->open = false;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Values

static json_t *
s_text(const char *bytes, size_t len)
{
    return len <= S_MAX_VALUE_TEXT && !memchr(bytes, '\0', len) ? json_stringn(bytes, len) : NULL;
}

static json_t *s_value(s_tree_t *self, const lade_object_t *object, size_t depth);

static json_t *
s_value_of_map(s_tree_t *self, const lade_object_t *object, size_t depth)
{
    json_t *map = json_object();
    char number[32], *key;
    const char *text;
    size_t len;
    for (uint32_t i = 0; i + 1 < object->len && json_object_size(map) < S_MAX_VALUE_ITEMS; i += 2) {
        json_t *value = s_is_tensor(self, object->items[i + 1])
                            ? NULL
                            : s_value(self, object->items[i + 1], depth + 1);
        if (!value || !s_key_text(object->items[i], i / 2, number, &text, &len) ||
            len > LADE_TENSORS_MAX_NAME || !(key = strndup(text, len))) {
            json_decref(value);
            continue;
        }
        json_object_set_new(map, key, value); // fails, and is left out, if the key is no UTF-8
        free(key);
    }
    return map;
}

static json_t *
s_value_of_list(s_tree_t *self, const lade_object_t *object, size_t depth)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < object->len && i < S_MAX_VALUE_ITEMS; i++) {
        json_t *value = s_value(self, object->items[i], depth + 1);
        json_array_append_new(list, value ? value : json_null());
    }
    return list;
}

// A number of numpy's: what scalar(dtype, bytes) was made of, if that is one of the usual types.
static json_t *
s_value_of_scalar(const lade_object_t *args)
{
    const lade_object_t *dtype = s_arg(args, 0), *bytes = s_arg(args, 1);
    const lade_object_t *name =
        dtype && dtype->kind == LADE_OBJECT_CALL ? s_arg(dtype->items[LADE_CALL_ARGS], 0) : NULL;
    double real;
    float small;
    int64_t integer;
    if (!name || !bytes || bytes->kind != LADE_OBJECT_BYTES)
        return NULL;
    if (lade_object_says(name, "f8") && bytes->len == 8) {
        memcpy(&real, bytes->bytes, 8);
        return json_real(real);
    }
    if (lade_object_says(name, "f4") && bytes->len == 4) {
        memcpy(&small, bytes->bytes, 4);
        return json_real(small);
    }
    if (lade_object_says(name, "i8") && bytes->len == 8) {
        memcpy(&integer, bytes->bytes, 8);
        return json_integer(integer);
    }
    return NULL;
}

static json_t *
s_value_of_call(s_tree_t *self, const lade_object_t *object, size_t depth)
{
    const lade_object_t *state = object->items[LADE_CALL_STATE];
    const lade_object_t *items = object->items[LADE_CALL_ITEMS];
    if (object->row && object->row->role == LADE_ROLE_NUMPY_SCALAR)
        return s_value_of_scalar(object->items[LADE_CALL_ARGS]);
    if (s_is_tensor(self, object))
        return NULL;
    if (s_get(state, "_parameters"))
        state = s_get(state, "_parameters");
    return items             ? s_value(self, items, depth)
           : s_is_map(state) ? s_value(self, state, depth)
                             : NULL;
}

static json_t *
s_value(s_tree_t *self, const lade_object_t *object, size_t depth)
{
    if (depth > S_MAX_VALUE_DEPTH || ++self->visits > S_MAX_VALUE_NODES)
        return NULL;
    switch (object->kind) {
    case LADE_OBJECT_NONE:
        return json_null();
    case LADE_OBJECT_BOOL:
        return json_boolean(object->integer);
    case LADE_OBJECT_INT:
        return json_integer(object->integer);
    case LADE_OBJECT_FLOAT:
        return json_real(object->real); // NULL for what is no number
    case LADE_OBJECT_TEXT:
        return s_text(object->bytes, object->len);
    case LADE_OBJECT_DICT:
        return s_value_of_map(self, object, depth);
    case LADE_OBJECT_TUPLE:
    case LADE_OBJECT_LIST:
        return s_value_of_list(self, object, depth);
    case LADE_OBJECT_CALL:
        return s_value_of_call(self, object, depth);
    default:
        return NULL;
    }
}

static lade_code_t
s_list_values(s_tree_t *self, const lade_object_t *root)
{
    lade_code_t code = LADE_OK;
    self->visits = 0;
    json_t *values = s_is_map(root) ? s_value_of_map(self, root, 0) : NULL, *value;
    const char *name;
    json_object_foreach(values, name, value)
    {
        if (!code)
            code = lade_tensor_list_set_value(self->list, name, json_incref(value), self->error);
    }
    json_decref(values);
    return code;
}

// ---------------------------------------------------------------------------------------------------

// What trainers put around a model's own tensors. The last of them are also parts of a model: they
// count only if there are no tensors beside them.
static const struct {
    const char *key;
    bool alone;
} s_wrappers[] = {{"state_dict", false}, {"params_ema", false}, {"params-ema", false},
                  {"params", true},      {"model", true},       {"module", true}};

static bool
s_holds_tensors(const s_tree_t *self, lade_object_t *object)
{
    lade_error_t ignored = {0};
    s_tree_t look = {.looking = true, .error = &ignored, .finder = self->finder};
    return object->kind >= LADE_OBJECT_TUPLE && !s_is_tensor(self, object) &&
           s_visit(&look, object) == LADE_OK && look.tensors;
}

static bool
s_has_own(const s_tree_t *self, const lade_object_t *root)
{
    for (uint32_t i = 1; i < root->len; i += 2)
        if (s_is_tensor(self, root->items[i]))
            return true;
    return false;
}

static const char *
s_wrapper(const s_tree_t *self, const lade_object_t *root, lade_object_t **inner_p)
{
    bool own = s_is_map(root) && s_has_own(self, root);
    for (size_t i = 0; i < sizeof s_wrappers / sizeof *s_wrappers; i++) {
        *inner_p = s_get(root, s_wrappers[i].key);
        if (*inner_p && !(own && s_wrappers[i].alone) && s_holds_tensors(self, *inner_p))
            return s_wrappers[i].key;
    }
    *inner_p = NULL;
    return NULL;
}

lade_code_t
lade_torch_list(lade_tensors_t *list, lade_object_t *root, uint32_t file,
                const lade_torch_finder_t *finder, lade_error_t *error)
{
    s_tree_t *self = calloc(1, sizeof *self);
    lade_object_t *inner;
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a list of tensors");
    *self = (s_tree_t){.list = list, .file = file, .finder = finder, .error = error};
    const char *wrapper = s_wrapper(self, root, &inner);
    lade_code_t code = LADE_OK;
    if (wrapper) {
        code = s_visit(self, inner);
        inner->open = true; // it is listed
    }
    if (!code)
        code = s_visit(self, root);
    if (inner)
        inner->open = false;
    if (!code && wrapper)
        code = lade_tensor_list_set_value(list, "__wrapper__", json_string(wrapper), error);
    if (!code)
        code = s_list_values(self, root);
    free(self);
    return code;
}
