// torch's files of 0.1: a tar file with storages, tensors that lie in them, and the object as a
// pickle that names tensors by numbers.
#include "common/formats/tar.h"
#include "common/formats/tensor_list.h"
#include "common/formats/torch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_MAX_ITEMS = LADE_TENSORS_MAX,
    S_MAX_ITEM = 4096, // bytes of the pickle of one storage or tensor
};

typedef struct {
    int64_t key;
    lade_storage_t storage;
} s_stored_t;

typedef struct {
    int64_t key;
    size_t storage; // index
    uint64_t from;  // elements before its first
    uint8_t rank;
    uint64_t shape[LADE_TENSOR_MAX_RANK], strides[LADE_TENSOR_MAX_RANK];
} s_view_t;

enum { S_STORAGES, S_TENSORS, S_PICKLE, S_PARTS };
static const char *const s_parts[] = {"storages", "tensors", "pickle"};

typedef struct {
    int fd;
    lade_tensors_t *list;
    lade_tar_member_t parts[S_PARTS];
    bool there[S_PARTS];
    s_stored_t *stored; // sorted by key
    size_t stored_count;
    s_view_t *views; // sorted by key
    size_t view_count;
} s_tar_t;

bool
lade_torch_tar_is(const uint8_t *head, size_t len, uint64_t size)
{
    (void)size;
    return lade_tar_is(head, len);
}

static bool
s_see(void *arg, const lade_tar_member_t *member)
{
    s_tar_t *self = arg;
    const char *name = strncmp(member->name, "./", 2) == 0 ? member->name + 2 : member->name;
    for (size_t i = 0; i < S_PARTS; i++) {
        if (strcmp(name, s_parts[i]) != 0)
            continue;
        if (self->there[i])
            lade_tensor_list_add_unsafe(self->list, "tar_twice", name, NULL,
                                        "a member is there twice");
        self->there[i] = true;
        self->parts[i] = *member;
    }
    return true;
}

// Both storages and tensors begin with their key.
static int
s_by_key(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

// A number that is an integer, or the text of one.
static bool
s_number(const lade_object_t *object, int64_t *number_p)
{
    char text[32], *end;
    if (object && object->kind == LADE_OBJECT_INT) {
        *number_p = object->integer;
        return true;
    }
    if (!object || object->kind != LADE_OBJECT_TEXT || !object->len || object->len >= sizeof text)
        return false;
    memcpy(text, object->bytes, object->len);
    text[object->len] = '\0';
    *number_p = strtoll(text, &end, 10);
    return !*end;
}

static const lade_object_t *
s_item(const lade_object_t *object, size_t index)
{
    return object->kind == LADE_OBJECT_TUPLE && index < object->len ? object->items[index] : NULL;
}

// ---------------------------------------------------------------------------------------------------
// Parts that are pickles and bytes by turns

typedef struct {
    s_tar_t *self;
    const lade_tar_member_t *part;
    uint64_t at; // in the file
} s_reader_t;

// The next pickle of a part; *pickle_p has to be destroyed after root was looked at.
static lade_code_t
s_next(s_reader_t *reader, lade_pickle_t **pickle_p, lade_object_t **root_p, lade_error_t *error)
{
    uint64_t end = reader->part->at + reader->part->size;
    lade_pickle_destroy(pickle_p);
    end = end - reader->at > S_MAX_ITEM ? reader->at + S_MAX_ITEM : end;
    *pickle_p = lade_pickle_new_file(reader->self->fd, reader->at, end, reader->self->list,
                                     reader->part->name);
    if (!*pickle_p)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %s", reader->part->name);
    lade_code_t code = lade_pickle_next(*pickle_p, root_p, error);
    reader->at += lade_pickle_at(*pickle_p);
    return code;
}

static bool
s_take(s_reader_t *reader, void *bytes, size_t len)
{
    uint64_t end = reader->part->at + reader->part->size;
    if (end - reader->at < len ||
        pread(reader->self->fd, bytes, len, (off_t)reader->at) != (ssize_t)len)
        return false;
    reader->at += len;
    return true;
}

// The number of things in a part, each of which takes a byte at least.
static lade_code_t
s_count(s_reader_t *reader, lade_pickle_t **pickle_p, size_t *count_p, lade_error_t *error)
{
    lade_object_t *root;
    lade_code_t code = s_next(reader, pickle_p, &root, error);
    if (code)
        return code;
    if (root->kind != LADE_OBJECT_INT || root->integer < 0 || root->integer > S_MAX_ITEMS ||
        (uint64_t)root->integer > reader->part->size)
        return lade_error_set(error, LADE_CORRUPT, "%s does not say how many there are",
                              reader->part->name);
    *count_p = (size_t)root->integer;
    return LADE_OK;
}

// (key, location, type), the number of elements, the bytes.
static lade_code_t
s_read_storage(s_reader_t *reader, lade_pickle_t **pickle_p, s_stored_t *stored,
               lade_error_t *error)
{
    lade_object_t *root;
    int64_t elements;
    lade_code_t code = s_next(reader, pickle_p, &root, error);
    if (code)
        return code;
    const lade_object_t *type = s_item(root, 2);
    uint64_t end = reader->part->at + reader->part->size;
    if (!s_number(s_item(root, 0), &stored->key) || !type || type->kind != LADE_OBJECT_GLOBAL ||
        !type->row || type->row->role != LADE_ROLE_STORAGE)
        return lade_error_set(error, LADE_CORRUPT, "byte %" PRIu64 ": a storage is none",
                              reader->at);
    stored->storage.dtype = type->row->dtype;
    if (!s_take(reader, &elements, sizeof elements) || elements < 0 ||
        __builtin_mul_overflow((uint64_t)elements, lade_dtype_size(type->row->dtype),
                               &stored->storage.size) ||
        stored->storage.size > end - reader->at)
        return lade_error_set(error, LADE_CORRUPT, "byte %" PRIu64 ": a storage is cut off",
                              reader->at);
    stored->storage.offset = reader->at;
    reader->at += stored->storage.size;
    return LADE_OK;
}

static lade_code_t
s_read_storages(s_tar_t *self, lade_error_t *error)
{
    s_reader_t reader = {self, &self->parts[S_STORAGES], self->parts[S_STORAGES].at};
    lade_pickle_t *pickle = NULL;
    lade_object_t *root;
    size_t count;
    lade_code_t code = s_count(&reader, &pickle, &count, error);
    if (!code && !(self->stored = calloc(count + 1, sizeof *self->stored)))
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu storages", count);
    while (!code && self->stored_count < count) {
        code = s_read_storage(&reader, &pickle, &self->stored[self->stored_count], error);
        self->stored_count += !code;
    }
    // Views of storages, which nothing ever wrote into a file with tensors.
    if (!code && !(code = s_next(&reader, &pickle, &root, error)) &&
        (root->kind != LADE_OBJECT_LIST || root->len))
        code = lade_error_set(error, LADE_NOT_IMPLEMENTED, "it has views of storages");
    if (!code)
        qsort(self->stored, self->stored_count, sizeof *self->stored, s_by_key);
    lade_pickle_destroy(&pickle);
    return code;
}

static bool
s_find_stored(const s_tar_t *self, int64_t key, size_t *index_p)
{
    s_stored_t wanted = {.key = key};
    const s_stored_t *found =
        self->stored_count
            ? bsearch(&wanted, self->stored, self->stored_count, sizeof wanted, s_by_key)
            : NULL;
    *index_p = found ? (size_t)(found - self->stored) : 0;
    return found != NULL;
}

// (key, storage, type), rank, 4 bytes of nothing, shape, strides, offset.
static lade_code_t
s_read_view(s_reader_t *reader, lade_pickle_t **pickle_p, s_view_t *view, lade_error_t *error)
{
    lade_object_t *root;
    int64_t storage, numbers[2 * LADE_TENSOR_MAX_RANK + 1];
    int32_t rank[2];
    lade_code_t code = s_next(reader, pickle_p, &root, error);
    if (code)
        return code;
    if (!s_number(s_item(root, 0), &view->key) || !s_number(s_item(root, 1), &storage) ||
        !s_find_stored(reader->self, storage, &view->storage) ||
        !s_take(reader, rank, sizeof rank) || rank[0] < 0 || rank[0] > LADE_TENSOR_MAX_RANK ||
        !s_take(reader, numbers, (2 * (size_t)rank[0] + 1) * sizeof *numbers))
        return lade_error_set(error, LADE_CORRUPT, "byte %" PRIu64 ": a tensor is none",
                              reader->at);
    view->rank = (uint8_t)rank[0];
    for (size_t i = 0; i < view->rank; i++) {
        if (numbers[i] < 0 || numbers[view->rank + i] < 0)
            return lade_error_set(error, LADE_CORRUPT, "byte %" PRIu64 ": a tensor has no shape",
                                  reader->at);
        view->shape[i] = (uint64_t)numbers[i];
        view->strides[i] = (uint64_t)numbers[view->rank + i];
    }
    if (numbers[2 * view->rank] < 0)
        return lade_error_set(error, LADE_CORRUPT, "byte %" PRIu64 ": a tensor has no place",
                              reader->at);
    view->from = (uint64_t)numbers[2 * view->rank];
    return LADE_OK;
}

static lade_code_t
s_read_views(s_tar_t *self, lade_error_t *error)
{
    s_reader_t reader = {self, &self->parts[S_TENSORS], self->parts[S_TENSORS].at};
    lade_pickle_t *pickle = NULL;
    size_t count;
    lade_code_t code = s_count(&reader, &pickle, &count, error);
    if (!code && !(self->views = calloc(count + 1, sizeof *self->views)))
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu tensors", count);
    while (!code && self->view_count < count) {
        code = s_read_view(&reader, &pickle, &self->views[self->view_count], error);
        self->view_count += !code;
    }
    if (!code)
        qsort(self->views, self->view_count, sizeof *self->views, s_by_key);
    lade_pickle_destroy(&pickle);
    return code;
}

// ---------------------------------------------------------------------------------------------------

// A persistent id of the pickle is the number of a tensor.
static lade_code_t
s_find(void *arg, const lade_object_t *object, lade_torch_tensor_t *tensor, lade_error_t *error)
{
    s_tar_t *self = arg;
    s_view_t wanted;
    if (!s_number(object->len ? object->items[0] : NULL, &wanted.key))
        return lade_error_set(error, LADE_CORRUPT, "a tensor has no number");
    const s_view_t *view =
        self->view_count ? bsearch(&wanted, self->views, self->view_count, sizeof wanted, s_by_key)
                         : NULL;
    if (!view)
        return lade_error_set(error, LADE_CORRUPT, "tensor %" PRId64 " is not in the file",
                              wanted.key);
    tensor->storage = self->stored[view->storage].storage;
    tensor->from = view->from;
    tensor->rank = view->rank;
    memcpy(tensor->shape, view->shape, sizeof view->shape);
    memcpy(tensor->strides, view->strides, sizeof view->strides);
    return LADE_OK;
}

static lade_code_t
s_read_object(s_tar_t *self, uint32_t file, lade_error_t *error)
{
    const lade_tar_member_t *part = &self->parts[S_PICKLE];
    lade_object_t *root;
    lade_pickle_t *pickle =
        lade_pickle_new_file(self->fd, part->at, part->at + part->size, self->list, part->name);
    if (!pickle)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %s", part->name);
    const lade_torch_finder_t finder = {.arg = self, .tensor = s_find};
    lade_code_t code = lade_pickle_next(pickle, &root, error);
    if (!code)
        code = lade_torch_list(self->list, root, file, &finder, error);
    lade_pickle_destroy(&pickle);
    return code;
}

lade_code_t
lade_torch_tar_read(lade_tensors_t *list, int fd, const char *path, uint64_t size,
                    lade_error_t *error)
{
    s_tar_t self = {.fd = fd, .list = list};
    uint32_t file;
    lade_code_t code = lade_tensor_list_add_file(list, path, size, NULL, &file, error);
    if (!code)
        code = lade_tar_each(fd, size, list, s_see, &self, error);
    if (!code && !(self.there[S_STORAGES] && self.there[S_TENSORS] && self.there[S_PICKLE]))
        code = lade_error_set(error, LADE_NOT_A_MODEL,
                              "it is a tar file without storages, tensors and a pickle: unpack it");
    if (!code)
        code = s_read_storages(&self, error);
    if (!code)
        code = s_read_views(&self, error);
    if (!code)
        code = s_read_object(&self, file, error);
    free(self.stored);
    free(self.views);
    return lade_torch_judge(list, code, error);
}
