// The layout of a loaded model in shared memory: packing it, attaching to it, reading its index.
//
// The index is read by a small msgpack walk of its own: it is the one body that may hold more
// values than a message may (a model of 90,000 tensors is real), and reading it straight into
// lade_tensor_t costs a fraction of unpacking it into objects first.
#include "common/segment.h"

#include "common/plugin.h"
#include "common/wire.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

_Static_assert(sizeof(lade_segment_head_t) == 48, "the head is a layout on its own");
_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN,
               "segments are shared within one little-endian machine");

struct lade_segment {
    const uint8_t *bytes;
    lade_segment_head_t head; // a copy, so that what was checked is what is used
    lade_tensor_t *tensors;   // NULL until the index is read
    size_t count;
    char *names; // the tensors' names, each ended by a NUL
    uint32_t
        *slots; // hash table of tensor index + 1, 0 is empty; made by the first look-up by name
    size_t slot_count;
    const uint8_t *metadata; // within the index, packed; NULL if it has none
    size_t metadata_len;
    bool indexed; // read, well or not
    lade_error_t index_error;
    void *mapping;                   // ours to unmap, NULL if the bytes are the caller's
    size_t mapped;                   // bytes of it
    int connection;                  // holds the lease, -1 if none
    lade_share_t share;              // of data on a device; its descriptor is ours until imported
    const lade_importer_t *importer; // that imported it
    lade_import_t import;            // where the data is; nowhere until asked for
};

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
// Opening and reading

static lade_code_t
s_check_head(const lade_segment_head_t *head, uint64_t len, lade_error_t *error)
{
    if (memcmp(head->magic, LADE_SEGMENT_MAGIC, sizeof head->magic))
        return lade_error_set(error, LADE_CORRUPT, "the segment does not begin with %s",
                              LADE_SEGMENT_MAGIC);
    if (head->length > len)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment says it is %llu bytes long and is %llu",
                              (unsigned long long)head->length, (unsigned long long)len);
    if (head->index_at < sizeof *head || head->index_at > head->data_at ||
        head->data_at > head->length || head->index_len > head->data_at - head->index_at ||
        head->data_at % LADE_SEGMENT_PAGE)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment's index and data do not lie within it");
    if (head->index_len > LADE_SEGMENT_MAX_INDEX)
        return lade_error_set(error, LADE_CORRUPT, "the segment's index is over %d bytes long",
                              (int)LADE_SEGMENT_MAX_INDEX);
    return LADE_OK;
}

// share: of data that is not in these bytes; NULL if it is.
static lade_code_t
s_open(const void *bytes, size_t len, const lade_share_t *share, lade_segment_t **self_p,
       lade_error_t *error)
{
    *self_p = NULL;
    lade_segment_head_t head;
    if (len < sizeof head)
        return lade_error_set(error, LADE_CORRUPT,
                              "%zu bytes are no segment: its head alone is longer", len);
    memcpy(&head, bytes, sizeof head);
    uint64_t whole = share && share->bytes < UINT64_MAX / 2 ? head.data_at + share->bytes : len;
    lade_code_t code = s_check_head(&head, whole, error);
    if (!code && share && head.data_at > len)
        code = lade_error_set(error, LADE_CORRUPT, "the segment ends within its index");
    if (code)
        return code;
    lade_segment_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to attach a segment");
    self->bytes = bytes;
    self->head = head;
    self->connection = -1;
    self->share = share ? *share : (lade_share_t){.kind = LADE_SHARE_NONE, .fd = -1};
    *self_p = self;
    return LADE_OK;
}

lade_code_t
lade_segment_open(const void *bytes, size_t len, lade_segment_t **self_p, lade_error_t *error)
{
    return s_open(bytes, len, NULL, self_p, error);
}

size_t
lade_segment_bytes(const lade_segment_t *self)
{
    return self->head.length;
}

uint64_t
lade_segment_generation(const lade_segment_t *self)
{
    return self->head.generation;
}

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

const void *
lade_segment_data(const lade_segment_t *self, const lade_tensor_t *tensor)
{
    return self->share.kind ? NULL : self->bytes + tensor->offset;
}

// What is shared by a descriptor of host memory needs no plug-in.
static lade_code_t
s_import_memfd(const lade_share_t *share, lade_import_t *import, lade_error_t *error)
{
    struct stat status;
    if (fstat(share->fd, &status) || status.st_size < 0 || (uint64_t)status.st_size < share->bytes)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment's data is not as long as the load worker says");
    uint64_t page =
        status.st_blksize > LADE_SEGMENT_PAGE ? (uint64_t)status.st_blksize : LADE_SEGMENT_PAGE;
    uint64_t mapped = (share->bytes + page - 1) / page * page; // as in s_map
    void *bytes = mmap(NULL, mapped, PROT_READ, MAP_SHARED, share->fd, 0);
    if (bytes == MAP_FAILED)
        return lade_error_errno(error, errno, "cannot map a segment's data");
    *import = (lade_import_t){
        .own = bytes, .bytes = mapped, .address = (uint64_t)(uintptr_t)bytes, .device = -1};
    return LADE_OK;
}

static lade_code_t
s_import_device(lade_segment_t *self, lade_error_t *error)
{
    const void *table;
    char plugin[sizeof self->share.plugin + 1] = "";
    memcpy(plugin, self->share.plugin, sizeof self->share.plugin);
    if (!*plugin || strchr(plugin, '/'))
        return lade_error_set(error, LADE_CORRUPT, "the segment names no plug-in");
    lade_code_t code = lade_plugin_open(plugin, LADE_IMPORTER_SYMBOL, &table, error);
    if (code)
        return lade_error_wrap(error, "the model is on a device");
    self->importer = table;
    return self->importer->import(&self->share, &self->import, error);
}

lade_code_t
lade_segment_import(lade_segment_t *self, lade_import_t *import, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    if (!self->share.kind)
        self->import =
            (lade_import_t){.bytes = self->head.length - self->head.data_at,
                            .address = (uint64_t)(uintptr_t)self->bytes + self->head.data_at,
                            .device = -1};
    else if (!self->import.own)
        code = self->share.kind == LADE_SHARE_MEMFD
                   ? s_import_memfd(&self->share, &self->import, error)
                   : s_import_device(self, error);
    *import = self->import;
    return code;
}

uint64_t
lade_segment_address(const lade_segment_t *self, const lade_tensor_t *tensor)
{
    return self->import.address ? self->import.address + tensor->offset - self->head.data_at : 0;
}

void
lade_segment_close(lade_segment_t **self_p)
{
    lade_segment_t *self = *self_p;
    if (!self)
        return;
    if (self->import.own && self->importer)
        self->importer->unimport(&self->import);
    else if (self->import.own)
        munmap(self->import.own, self->import.bytes);
    if (self->share.fd >= 0)
        close(self->share.fd);
    if (self->mapping)
        munmap(self->mapping, self->mapped);
    if (self->connection >= 0)
        close(self->connection); // after the mapping: from now on the pages may change
    free(self->tensors);
    free(self->names);
    free(self->slots);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Attaching

static lade_code_t
s_connect(const char *socket_path, int timeout_ms, int *fd_p, lade_error_t *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "'%s' is too long for a socket: at most %zu bytes", socket_path,
                              sizeof address.sun_path - 1);
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return lade_error_errno(error, errno, "cannot make a socket");
    struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
        int errnum = errno;
        close(fd);
        if (errnum == EAGAIN)
            return lade_error_set(error, LADE_TIMEOUT,
                                  "the load worker at %s is too busy to answer", socket_path);
        return lade_error_errno(error, errnum, "cannot reach the load worker at %s (has it ended?)",
                                socket_path);
    }
    *fd_p = fd;
    return LADE_OK;
}

// "!CODE sentence" as the error it is.
static lade_code_t
s_refused(char *answer, lade_error_t *error)
{
    char *sentence = strchr(answer, ' ');
    if (sentence)
        *sentence++ = '\0';
    lade_code_t code = lade_code_find(answer + 1);
    return lade_error_set(error, code, "%s", sentence ? sentence : "the load worker refused");
}

// The packet's text into what it says; the descriptors are in fds, -1 for none.
static bool
s_read_answer(const char *answer, size_t len, const int *fds, uint64_t *length_p,
              lade_share_t *share)
{
    if (fds[0] < 0 || (len != sizeof *length_p && len != sizeof *length_p + sizeof *share))
        return false;
    memcpy(length_p, answer, sizeof *length_p);
    *share = (lade_share_t){.kind = LADE_SHARE_NONE};
    if (len > sizeof *length_p)
        memcpy(share, answer + sizeof *length_p, sizeof *share);
    share->fd = fds[1];
    return (share->kind == LADE_SHARE_MEMFD || share->kind == LADE_SHARE_VMM) == (fds[1] >= 0);
}

// Takes the answer: the length and one descriptor, for data on a device two. More descriptors would
// be closed by the kernel, for there is no room for them.
static lade_code_t
s_receive(int connection, uint64_t *length_p, int *fd_p, lade_share_t *share, lade_error_t *error)
{
    int fds[2] = {-1, -1};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control = {0};
    char answer[LADE_SEGMENT_MAX_ANSWER + 1];
    struct iovec part = {answer, sizeof answer - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t len;
    do
        len = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    while (len < 0 && errno == EINTR);
    if (len < 0)
        return errno == EAGAIN
                   ? lade_error_set(error, LADE_TIMEOUT, "the load worker did not answer in time")
                   : lade_error_errno(error, errno, "the load worker's answer");
    answer[len] = '\0';
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        (head->cmsg_len == CMSG_LEN(sizeof fds[0]) || head->cmsg_len == CMSG_LEN(sizeof fds)))
        memcpy(fds, CMSG_DATA(head), head->cmsg_len - CMSG_LEN(0));
    *fd_p = fds[0];
    if (s_read_answer(answer, (size_t)len, fds, length_p, share))
        return LADE_OK;
    share->fd = fds[1]; // the caller closes both
    if (answer[0] == '!')
        return s_refused(answer, error);
    return lade_error_set(error, len ? LADE_CORRUPT : LADE_STALE_LEASE,
                          len ? "the load worker's answer is no segment"
                              : "the load worker closed the connection");
}

// Maps what was received, which must be as long as was said: beyond its end a mapping would fault.
// The mapping is of whole pages, huge ones where the segment is of those, or it could not be
// undone.
static lade_code_t
s_map(int fd, uint64_t length, void **mapping_p, size_t *mapped_p, lade_error_t *error)
{
    struct stat status;
    if (fstat(fd, &status) || length < sizeof(lade_segment_head_t) || length > SIZE_MAX / 2 ||
        status.st_size < 0 || (uint64_t)status.st_size < length)
        return lade_error_set(error, LADE_CORRUPT,
                              "the segment is not as long as the load worker says");
    uint64_t page =
        status.st_blksize > LADE_SEGMENT_PAGE ? (uint64_t)status.st_blksize : LADE_SEGMENT_PAGE;
    *mapped_p = (length + page - 1) / page * page;
    void *mapping = mmap(NULL, *mapped_p, PROT_READ, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED)
        return lade_error_errno(error, errno, "cannot map a segment of %llu bytes",
                                (unsigned long long)length);
    *mapping_p = mapping;
    return LADE_OK;
}

// Opens a mapping, which is unmapped again if it is no segment of exactly that length.
static lade_code_t
s_adopt(void *mapping, size_t mapped, uint64_t length, const lade_share_t *share,
        lade_segment_t **self_p, lade_error_t *error)
{
    lade_code_t code = s_open(mapping, length, share->kind ? share : NULL, self_p, error);
    if (!code && (share->kind ? (*self_p)->head.data_at : (*self_p)->head.length) != length) {
        (*self_p)->share.fd = -1;
        lade_segment_close(self_p);
        code = lade_error_set(error, LADE_CORRUPT,
                              "the segment's head and the load worker disagree about its length");
    }
    if (code) {
        munmap(mapping, mapped);
        return code;
    }
    (*self_p)->mapping = mapping;
    (*self_p)->mapped = mapped;
    return LADE_OK;
}

lade_code_t
lade_segment_attach(const char *socket_path, const char *lease, int timeout_ms,
                    lade_segment_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    int connection = -1, fd = -1;
    uint64_t length = 0;
    void *mapping = NULL;
    size_t len = strlen(lease), mapped = 0;
    lade_share_t share = {.kind = LADE_SHARE_NONE, .fd = -1};
    if (!len || len > LADE_SEGMENT_MAX_LEASE)
        return lade_error_set(error, LADE_VALUE_ERROR, "a lease is 1 to %d bytes long",
                              (int)LADE_SEGMENT_MAX_LEASE);
    lade_code_t code = s_connect(socket_path, timeout_ms, &connection, error);
    if (code)
        return code;
    if (send(connection, lease, len, MSG_NOSIGNAL) != (ssize_t)len)
        code = lade_error_errno(error, errno, "cannot send the lease to the load worker");
    if (!code)
        code = s_receive(connection, &length, &fd, &share, error);
    if (!code)
        code = s_map(fd, length, &mapping, &mapped, error);
    if (!code)
        code = s_adopt(mapping, mapped, length, &share, self_p, error);
    if (fd >= 0)
        close(fd);
    if (code && share.fd >= 0)
        close(share.fd);
    if (code)
        close(connection);
    else
        (*self_p)->connection = connection;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Writing

static void
s_pack_tensor(lade_pack_t *pack, const lade_tensor_t *tensor, uint64_t data_at)
{
    bool ordered = tensor->layout == LADE_LAYOUT_CHANNELS_LAST;
    lade_pack_map(pack, ordered ? 6 : 5);
    lade_pack_str(pack, "name");
    lade_pack_strn(pack, tensor->name, tensor->name_len);
    lade_pack_str(pack, "dtype");
    lade_pack_str(pack, lade_dtype_name(tensor->dtype));
    lade_pack_str(pack, "shape");
    lade_pack_array(pack, tensor->rank);
    for (size_t i = 0; i < tensor->rank; i++)
        lade_pack_int(pack, (int64_t)tensor->shape[i]);
    lade_pack_str(pack, "offset");
    // Always nine bytes, so that the index is as long whatever data_at is, which follows from its
    // length.
    uint8_t offset[9] = {0xcf};
    uint64_t value = htobe64(tensor->offset + data_at);
    memcpy(offset + 1, &value, sizeof value);
    lade_pack_raw(pack, offset, sizeof offset);
    lade_pack_str(pack, "size");
    lade_pack_int(pack, (int64_t)tensor->size);
    if (ordered) {
        lade_pack_str(pack, "layout");
        lade_pack_str(pack, lade_layout_kind_name(tensor->layout));
    }
}

static lade_code_t
s_pack_index(const char *key, const char *submodel, const lade_tensor_t *tensors, size_t count,
             const json_t *metadata, uint64_t data_at, lade_buf_t *index, lade_error_t *error)
{
    lade_pack_t pack;
    lade_buf_clear(index);
    lade_pack_open(&pack, index);
    lade_pack_map(&pack, 4);
    lade_pack_str(&pack, "key");
    lade_pack_str(&pack, key);
    lade_pack_str(&pack, "submodel");
    lade_pack_str(&pack, submodel);
    lade_pack_str(&pack, "metadata");
    lade_pack_json(&pack, metadata);
    lade_pack_str(&pack, "tensors");
    lade_pack_array(&pack, count);
    for (size_t i = 0; i < count; i++)
        s_pack_tensor(&pack, &tensors[i], data_at);
    return lade_pack_failed(&pack, error);
}

lade_code_t
lade_segment_plan(const char *key, const char *submodel, const lade_tensor_t *tensors, size_t count,
                  const json_t *metadata, uint64_t data_len, lade_segment_head_t *head,
                  lade_buf_t *index, lade_error_t *error)
{
    lade_code_t code = s_pack_index(key, submodel, tensors, count, metadata, 0, index, error);
    if (code)
        return code;
    size_t index_len = index->len;
    uint64_t data_at = sizeof *head + index_len + LADE_SEGMENT_PAGE - 1;
    data_at -= data_at % LADE_SEGMENT_PAGE;
    code = s_pack_index(key, submodel, tensors, count, metadata, data_at, index, error);
    if (code)
        return code;
    assert(index->len == index_len);
    *head = (lade_segment_head_t){.length = data_at + data_len,
                                  .index_at = sizeof *head,
                                  .index_len = index_len,
                                  .data_at = data_at};
    memcpy(head->magic, LADE_SEGMENT_MAGIC, sizeof head->magic);
    return LADE_OK;
}

void
lade_segment_write(void *bytes, const lade_segment_head_t *head, const lade_buf_t *index)
{
    memcpy((uint8_t *)bytes + head->index_at, index->data, index->len);
    memcpy(bytes, head, sizeof *head);
}
