// torch's zip checkpoints, and its pickles in a row of before 1.6.
#include "common/formats/torch.h"

#include "common/formats/pickle.h"
#include "common/formats/tensor_list.h"
#include "common/formats/zip.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_MAX_KEY = 256,     // bytes of a storage's key
    S_MAX_PICKLES = 100, // in one archive, or in a row
    S_MAGIC_LEN = 10,
};

static const char s_magic[S_MAGIC_LEN] = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

static bool
s_ends(const char *text, const char *tail)
{
    size_t len = strlen(text), n = strlen(tail);
    return len >= n && strcmp(text + len - n, tail) == 0;
}

// ("storage", type, key, location, elements, view) as torch writes it.
typedef struct {
    char key[S_MAX_KEY];
    lade_dtype_t dtype;
    uint64_t bytes;
    const lade_object_t *view; // (key, offset, elements) of a part of a storage, or NULL
} s_id_t;

static lade_code_t
s_read_id(const lade_object_t *object, s_id_t *id, lade_error_t *error)
{
    const lade_object_t *tuple =
        object->kind == LADE_OBJECT_PERSISTENT && object->len ? object->items[0] : NULL;
    if (!tuple || tuple->kind != LADE_OBJECT_TUPLE || tuple->len < 5 ||
        !lade_object_says(tuple->items[0], "storage"))
        return lade_error_set(error, LADE_CORRUPT, "a tensor's storage is none");
    const lade_object_t *type = tuple->items[1], *key = tuple->items[2], *count = tuple->items[4];
    if (type->kind != LADE_OBJECT_GLOBAL || !type->row || type->row->role != LADE_ROLE_STORAGE)
        return lade_error_set(error, LADE_CORRUPT, "a storage has a type that is none");
    if (key->kind != LADE_OBJECT_TEXT || key->len >= S_MAX_KEY ||
        memchr(key->bytes, '\0', key->len) || count->kind != LADE_OBJECT_INT || count->integer < 0)
        return lade_error_set(error, LADE_CORRUPT, "a storage has no key or no size");
    memcpy(id->key, key->bytes, key->len);
    id->key[key->len] = '\0';
    id->dtype = type->row->dtype;
    id->view =
        tuple->len > 5 && tuple->items[5]->kind == LADE_OBJECT_TUPLE ? tuple->items[5] : NULL;
    if (__builtin_mul_overflow((uint64_t)count->integer, lade_dtype_size(id->dtype), &id->bytes))
        return lade_error_set(error, LADE_CORRUPT, "storage %s is larger than can be", id->key);
    return LADE_OK;
}

lade_code_t
lade_torch_judge(lade_tensors_t *self, lade_code_t code, const lade_error_t *error)
{
    if (code != LADE_CORRUPT || !json_array_size(lade_tensors_unsafe(self)))
        return code;
    lade_tensor_list_add_unsafe(self, "broken", NULL, NULL, "%s", error->message);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Tensors of plain pickles: torch.storage._load_from_bytes(a torch file)

static lade_code_t
s_find_within(const lade_pickle_t *outer, const lade_object_t *object, lade_storage_t *storage,
              lade_error_t *error)
{
    const lade_object_t *args = object->items[LADE_CALL_ARGS];
    const lade_object_t *found = object->items[LADE_CALL_ITEMS]; // (type, elements, place)
    const lade_object_t *bytes = args->items[0];                 // the walk has looked at them
    const lade_global_t *type = found ? found->items[0]->row : NULL;
    uint64_t size, at = found ? (uint64_t)found->items[2]->integer + 8 : 0;
    if (!type || type->role != LADE_ROLE_STORAGE || found->items[1]->integer < 0)
        return lade_error_set(error, LADE_CORRUPT, "a tensor's storage is none");
    if (__builtin_mul_overflow((uint64_t)found->items[1]->integer, lade_dtype_size(type->dtype),
                               &size) ||
        at > bytes->len || size > bytes->len - at)
        return lade_error_set(error, LADE_CORRUPT, "a storage within the pickle is cut off");
    *storage = (lade_storage_t){.dtype = type->dtype, .size = size};
    if (lade_pickle_place(outer, bytes->bytes, &storage->offset))
        storage->offset += at;
    else
        storage->layout = LADE_LAYOUT_PACKED;
    return LADE_OK;
}

static bool
s_is_within(const lade_object_t *object)
{
    return object->kind == LADE_OBJECT_CALL && object->row &&
           object->row->role == LADE_ROLE_FROM_BYTES; // its arguments were checked
}

// ---------------------------------------------------------------------------------------------------
// Zip

bool
lade_torch_zip_is(const uint8_t *head, size_t len, uint64_t size)
{
    (void)size;
    return len >= 4 && memcmp(head, "PK\3\4", 4) == 0;
}

typedef struct {
    lade_zip_t *zip;
    lade_pickle_t *pickle;
    char root[LADE_ZIP_MAX_NAME + 1]; // "archive"
    bool swapped;                     // big end first
    const lade_zip_member_t *main;    // data.pkl
} s_archive_t;

static lade_code_t
s_find_member(void *arg, const lade_object_t *object, lade_storage_t *storage, lade_error_t *error)
{
    s_archive_t *self = arg;
    s_id_t id;
    char name[LADE_ZIP_MAX_NAME + S_MAX_KEY + 8];
    if (s_is_within(object)) {
        lade_code_t code = s_find_within(self->pickle, object, storage, error);
        if (!code && storage->layout == LADE_LAYOUT_DENSE && lade_zip_is_plain(self->main))
            storage->offset += self->main->data;
        else if (!code)
            *storage = (lade_storage_t){storage->dtype, LADE_LAYOUT_PACKED, 0, storage->size, 0};
        return code;
    }
    lade_code_t code = s_read_id(object, &id, error);
    if (code)
        return code;
    snprintf(name, sizeof name, "%s/data/%s", self->root, id.key);
    size_t index = lade_zip_find(self->zip, name);
    if (index == lade_zip_count(self->zip))
        return lade_error_set(error, LADE_CORRUPT, "storage %s is not in the archive", id.key);
    const lade_zip_member_t *member = lade_zip_get(self->zip, index);
    if (member->size != id.bytes)
        return lade_error_set(error, LADE_CORRUPT,
                              "storage %s has %" PRIu64 " bytes, its member %" PRIu64, id.key,
                              id.bytes, member->size);
    *storage = (lade_storage_t){
        .dtype = id.dtype,
        .layout =
            lade_zip_is_plain(member) && !self->swapped ? LADE_LAYOUT_DENSE : LADE_LAYOUT_PACKED,
        .offset = member->data,
        .size = id.bytes,
        .packed = member->data ? member->packed : 0,
    };
    return LADE_OK;
}

// Walks the pickle of a member. The root of the last in it, if it is to be kept, stays with
// self->pickle.
static lade_code_t
s_walk_member(s_archive_t *self, lade_tensors_t *list, size_t index, uint8_t **bytes_p,
              lade_object_t **root_p, lade_error_t *error)
{
    const char *name = lade_zip_get(self->zip, index)->name;
    size_t len;
    lade_code_t code = lade_zip_read(self->zip, index, LADE_PICKLE_MAX_BYTES, bytes_p, &len, error);
    if (code)
        return code;
    lade_pickle_destroy(&self->pickle);
    self->pickle = lade_pickle_new(*bytes_p, len, list, name);
    if (!self->pickle)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %s", name);
    code = lade_pickle_next(self->pickle, root_p, error);
    if (!code && lade_pickle_more(self->pickle))
        lade_tensor_list_add_unsafe(list, "trailing", name, NULL,
                                    "%" PRIu64 " bytes follow the end of the pickle",
                                    len - lade_pickle_at(self->pickle));
    for (size_t i = 0; !code && lade_pickle_more(self->pickle) && i < S_MAX_PICKLES; i++) {
        lade_object_t *more;
        lade_error_t ignored = {0};
        if (lade_pickle_next(self->pickle, &more, &ignored)) // looked at for what it would run
            break;
    }
    return code;
}

// What in an archive is no weights: each is looked at for what it would run.
static lade_code_t
s_judge_member(s_archive_t *self, lade_tensors_t *list, size_t index, size_t main,
               lade_error_t *error)
{
    const lade_zip_member_t *member = lade_zip_get(self->zip, index);
    size_t root_len = strlen(self->root);
    uint8_t head[2], *bytes = NULL;
    lade_object_t *root;
    if (strncmp(member->name, self->root, root_len) == 0 &&
        strncmp(member->name + root_len, "/data/", 6) == 0 && !s_ends(member->name, ".pkl"))
        return LADE_OK;
    if (s_ends(member->name, ".py"))
        lade_tensor_list_add_unsafe(list, "code", member->name, member->name,
                                    "the archive has program text in it");
    bool pickle =
        s_ends(member->name, ".pkl") || (lade_zip_head(self->zip, index, head, sizeof head) == 2 &&
                                         head[0] == 0x80 && head[1] <= 5);
    if (!pickle || index == main)
        return LADE_OK;
    lade_tensor_list_add_unsafe(list, "pickle", member->name, NULL,
                                "the archive has another pickle than the one torch reads");
    lade_code_t code = s_walk_member(self, list, index, &bytes, &root, error);
    free(bytes);
    return lade_torch_judge(list, code, error);
}

static void
s_read_byteorder(s_archive_t *self, lade_tensors_t *list)
{
    char name[LADE_ZIP_MAX_NAME + 16];
    uint8_t text[8];
    snprintf(name, sizeof name, "%s/byteorder", self->root);
    size_t index = lade_zip_find(self->zip, name), len = 0;
    if (index < lade_zip_count(self->zip))
        len = lade_zip_head(self->zip, index, text, sizeof text);
    self->swapped = len == 3 && memcmp(text, "big", 3) == 0;
    if (self->swapped)
        lade_tensor_list_set_metadata(list, "byteorder", json_string("big"), NULL);
}

// torch takes the folder of the first member for the archive's.
static lade_code_t
s_find_main(s_archive_t *self, lade_tensors_t *list, size_t *main_p, lade_error_t *error)
{
    char name[LADE_ZIP_MAX_NAME + 16];
    size_t count = lade_zip_count(self->zip), others = 0;
    const char *first = count ? lade_zip_get(self->zip, 0)->name : "";
    snprintf(self->root, sizeof self->root, "%.*s", (int)strcspn(first, "/"), first);
    snprintf(name, sizeof name, "%s/data.pkl", self->root);
    *main_p = lade_zip_find(self->zip, name);
    for (size_t i = 0; i < count; i++) {
        const char *other = lade_zip_get(self->zip, i)->name;
        if (i != *main_p && (s_ends(other, "/data.pkl") || strcmp(other, "data.pkl") == 0) &&
            ++others)
            lade_tensor_list_add_unsafe(list, "pickle", other, NULL,
                                        "the archive has a data.pkl where torch does not look");
    }
    if (*main_p == count && !others)
        return lade_error_set(error, LADE_NOT_A_MODEL,
                              "it is a zip archive without %s: no checkpoint of torch", name);
    return LADE_OK;
}

static lade_code_t
s_read_archive(s_archive_t *self, lade_tensors_t *list, uint32_t file, lade_error_t *error)
{
    const lade_torch_finder_t finder = {.arg = self, .storage = s_find_member};
    size_t main, count = lade_zip_count(self->zip), pickles = 0;
    uint8_t *bytes = NULL;
    lade_object_t *root = NULL;
    lade_code_t code = s_find_main(self, list, &main, error);
    for (size_t i = 0; !code && i < count && pickles < S_MAX_PICKLES; i++) {
        size_t before = json_array_size(list->unsafe);
        code = s_judge_member(self, list, i, main, error);
        pickles += json_array_size(list->unsafe) > before;
    }
    if (code || main == count)
        return code;
    s_read_byteorder(self, list);
    self->main = lade_zip_get(self->zip, main);
    code = s_walk_member(self, list, main, &bytes, &root, error);
    if (!code && root)
        code = lade_torch_list(list, root, file, &finder, error);
    lade_pickle_destroy(&self->pickle);
    free(bytes);
    return lade_torch_judge(list, code, error);
}

lade_code_t
lade_torch_zip_read(lade_tensors_t *list, int fd, const char *path, uint64_t size,
                    lade_error_t *error)
{
    s_archive_t *self = calloc(1, sizeof *self);
    uint32_t file;
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a zip archive");
    lade_code_t code = lade_tensor_list_add_file(list, path, size, NULL, &file, error);
    if (!code)
        code = lade_zip_open(fd, size, list, &self->zip, error);
    if (!code)
        code = s_read_archive(self, list, file, error);
    lade_pickle_destroy(&self->pickle);
    lade_zip_destroy(&self->zip);
    free(self);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Pickles in a row: magic number, version, system, the object, keys of storages; then for each key
// its number of elements and its bytes

bool
lade_torch_pickle_is(const uint8_t *head, size_t len, uint64_t size)
{
    static const char *const texts[] = {"L119547037146038801333356L\n", "(dp", "(lp", "}q", "]q"};
    (void)size;
    if (len >= 2 && head[0] == 0x80 && head[1] <= 5)
        return true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (len >= strlen(texts[i]) && memcmp(head, texts[i], strlen(texts[i])) == 0)
            return true;
    return false;
}

typedef struct {
    s_id_t id;
    uint64_t hash;
    uint64_t offset; // of its bytes, 0 as long as it is not known
} s_piece_t;

typedef struct {
    int fd;
    uint64_t size;
    lade_pickle_t *pickle;
    s_piece_t *pieces; // a hash table over keys, at most half full; an empty key is free
    size_t cap, count;
} s_row_t;

static s_piece_t *
s_piece(s_row_t *self, const char *key)
{
    uint64_t h = 0xcbf29ce484222325;
    for (const char *c = key; *c; c++)
        h = (h ^ (uint8_t)*c) * 0x100000001b3;
    h ^= h >> 32;
    for (size_t i = 0; i < 1000 && i < self->cap; i++) {
        s_piece_t *piece = &self->pieces[(h + i) & (self->cap - 1)];
        if (!piece->id.key[0] || strcmp(piece->id.key, key) == 0)
            return piece;
    }
    return NULL;
}

// Every storage that the object names, with its size.
static lade_code_t
s_collect(s_row_t *self, lade_error_t *error)
{
    size_t count;
    lade_object_t *const *ids = lade_pickle_persistents(self->pickle, &count);
    for (self->cap = 16; self->cap < 2 * count; self->cap *= 2)
        ;
    self->pieces = calloc(self->cap, sizeof *self->pieces);
    if (!self->pieces)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu storages", count);
    for (size_t i = 0; i < count; i++) {
        s_id_t id;
        lade_code_t code = s_read_id(ids[i], &id, error);
        if (code)
            return code;
        s_piece_t *piece = s_piece(self, id.key);
        if (!id.key[0] || !piece)
            return lade_error_set(error, LADE_CORRUPT, "storages have keys made to collide");
        if (piece->id.key[0] && piece->id.bytes != id.bytes)
            return lade_error_set(error, LADE_CORRUPT, "storage %s has two sizes", id.key);
        piece->id = id;
    }
    return LADE_OK;
}

// Where each storage's bytes are, by the list of keys behind the object.
static lade_code_t
s_place_all(s_row_t *self, const lade_object_t *keys, lade_tensors_t *list, lade_error_t *error)
{
    uint64_t at = lade_pickle_at(self->pickle), elements;
    char key[S_MAX_KEY];
    if (keys->kind != LADE_OBJECT_LIST)
        return lade_error_set(error, LADE_CORRUPT, "it has no list of storages");
    for (uint32_t i = 0; i < keys->len; i++) {
        const lade_object_t *text = keys->items[i];
        if (text->kind != LADE_OBJECT_TEXT || text->len >= S_MAX_KEY || !text->len)
            return lade_error_set(error, LADE_CORRUPT, "the key of a storage is none");
        memcpy(key, text->bytes, text->len);
        key[text->len] = '\0';
        s_piece_t *piece = s_piece(self, key);
        if (!piece || !piece->id.key[0] || piece->offset)
            return lade_error_set(error, LADE_CORRUPT,
                                  "storage %s belongs to no tensor, or is "
                                  "there twice",
                                  key);
        if (at > self->size || self->size - at < 8 || self->size - at - 8 < piece->id.bytes)
            return lade_error_set(error, LADE_CORRUPT, "it ends before the bytes of storage %s",
                                  key);
        if (pread(self->fd, &elements, 8, (off_t)at) != 8 ||
            elements * lade_dtype_size(piece->id.dtype) != piece->id.bytes)
            return lade_error_set(
                error, LADE_CORRUPT,
                "byte %" PRIu64 ": storage %s has another size than its tensors say", at, key);
        piece->offset = at + 8;
        at += 8 + piece->id.bytes;
    }
    if (at < self->size)
        lade_tensor_list_add_unsafe(list, "trailing", NULL, NULL,
                                    "%" PRIu64 " bytes follow the end of the file's last storage",
                                    self->size - at);
    return LADE_OK;
}

static lade_code_t
s_find_piece(void *arg, const lade_object_t *object, lade_storage_t *storage, lade_error_t *error)
{
    s_row_t *self = arg;
    s_id_t id;
    if (s_is_within(object))
        return s_find_within(self->pickle, object, storage, error);
    lade_code_t code = s_read_id(object, &id, error);
    if (code)
        return code;
    s_piece_t *piece = self->cap ? s_piece(self, id.key) : NULL;
    if (!piece || !piece->offset)
        return lade_error_set(error, LADE_CORRUPT, "storage %s is not in the file", id.key);
    *storage = (lade_storage_t){id.dtype, LADE_LAYOUT_DENSE, piece->offset, id.bytes, 0};
    if (!id.view)
        return LADE_OK;
    const lade_object_t *from = id.view->len == 3 ? id.view->items[1] : NULL;
    const lade_object_t *count = from ? id.view->items[2] : NULL;
    uint64_t skip, bytes, size = lade_dtype_size(id.dtype);
    if (!from || from->kind != LADE_OBJECT_INT || count->kind != LADE_OBJECT_INT ||
        __builtin_mul_overflow((uint64_t)from->integer, size, &skip) ||
        __builtin_mul_overflow((uint64_t)count->integer, size, &bytes) || skip > id.bytes ||
        bytes > id.bytes - skip)
        return lade_error_set(error, LADE_CORRUPT, "a view of storage %s is none", id.key);
    storage->offset += skip;
    storage->size = bytes;
    return LADE_OK;
}

static bool
s_is_magic(const lade_object_t *object)
{
    static const char digits[] = "119547037146038801333356L";
    return object->kind == LADE_OBJECT_LONG &&
           ((object->len == S_MAGIC_LEN && memcmp(object->bytes, s_magic, S_MAGIC_LEN) == 0) ||
            (object->len == sizeof digits - 1 && memcmp(object->bytes, digits, object->len) == 0));
}

static lade_code_t
s_next(s_row_t *self, lade_object_t **root_p, lade_error_t *error)
{
    return lade_pickle_next(self->pickle, root_p, error);
}

// torch's: of five pickles the fourth is the object, the fifth the list of storages.
static lade_code_t
s_read_row(s_row_t *self, lade_tensors_t *list, uint32_t file, lade_error_t *error)
{
    const lade_torch_finder_t finder = {.arg = self, .storage = s_find_piece};
    lade_object_t *root, *version, *keys;
    lade_code_t code = s_next(self, &version, error);
    if (!code && (version->kind != LADE_OBJECT_INT || version->integer != 1001))
        code = lade_error_set(error, LADE_CORRUPT, "it is of a version that torch never had");
    if (!code)
        code = s_next(self, &root, error); // about the system that wrote it
    if (!code)
        code = s_next(self, &root, error);
    if (!code)
        code = s_collect(self, error);
    if (!code)
        code = s_next(self, &keys, error);
    if (!code)
        code = s_place_all(self, keys, list, error);
    return code ? code : lade_torch_list(list, root, file, &finder, error);
}

// Any other: the first pickle is the object; those behind it are looked at for what they would run.
static lade_code_t
s_read_plain(s_row_t *self, lade_tensors_t *list, lade_object_t *root, uint32_t file,
             lade_error_t *error)
{
    const lade_torch_finder_t finder = {.arg = self, .storage = s_find_piece};
    lade_object_t *more;
    lade_error_t ignored = {0};
    lade_code_t code = lade_torch_list(list, root, file, &finder, error);
    if (!code && lade_pickle_more(self->pickle))
        lade_tensor_list_add_unsafe(list, "trailing", NULL, NULL,
                                    "bytes follow the end of the pickle at byte %" PRIu64,
                                    lade_pickle_at(self->pickle));
    for (size_t i = 0; !code && i < S_MAX_PICKLES && lade_pickle_more(self->pickle); i++)
        if (s_next(self, &more, &ignored))
            break;
    return code;
}

lade_code_t
lade_torch_pickle_read(lade_tensors_t *list, int fd, const char *path, uint64_t size,
                       lade_error_t *error)
{
    s_row_t self = {.fd = fd, .size = size};
    lade_object_t *root = NULL;
    uint32_t file;
    lade_code_t code = lade_tensor_list_add_file(list, path, size, NULL, &file, error);
    if (!code && !(self.pickle = lade_pickle_new_file(fd, 0, size, list, "the file")))
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory for a pickle");
    if (!code)
        code = s_next(&self, &root, error);
    if (!code)
        code = s_is_magic(root) ? s_read_row(&self, list, file, error)
                                : s_read_plain(&self, list, root, file, error);
    lade_pickle_destroy(&self.pickle);
    free(self.pieces);
    return lade_torch_judge(list, code, error);
}
