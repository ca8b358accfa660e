// The safetensors header: by a scanner of its own (a JSON library takes five times as long and
// keeps what is not needed), so that a hostile header costs what it has of sense, not what it
// claims.
#include "common/formats/safetensors.h"

#include "common/formats/header.h"
#include "common/formats/tensor_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_MAX_METADATA = 1 << 25, // bytes of one metadata text
    S_MAX_METADATA_KEYS = 10000,
};

// ---------------------------------------------------------------------------------------------------
// Entries

// [1, 2, …] of at most max numbers.
static lade_code_t
s_numbers(lade_header_t *scan, const char *what, size_t max, uint64_t *values, size_t *count_p)
{
    lade_code_t code = lade_header_expect(scan, '[');
    *count_p = 0;
    bool more = !code && !lade_header_is_empty(scan, ']');
    while (!code && more) {
        if (*count_p == max)
            return lade_header_fail(scan, LADE_CORRUPT, "%s has more than %zu numbers", what, max);
        code = lade_header_number(scan, &values[(*count_p)++]);
        if (!code)
            code = lade_header_next(scan, ']', &more);
    }
    return code;
}

typedef struct {
    lade_tensor_t tensor;
    uint64_t begin, end;
    bool has_dtype, has_shape, has_offsets;
} s_entry_t;

// The types the format has; the list has more, of other formats.
static bool
s_is_own(lade_dtype_t dtype)
{
    return dtype <= LADE_DTYPE_F64 || dtype == LADE_DTYPE_C64 || dtype == LADE_DTYPE_F4 ||
           dtype == LADE_DTYPE_F6_E2M3 || dtype == LADE_DTYPE_F6_E3M2;
}

static lade_code_t
s_dtype(lade_header_t *scan, s_entry_t *entry)
{
    char *text, shown[80];
    size_t len;
    lade_code_t code = lade_header_text(scan, LADE_TENSORS_MAX_NAME, &text, &len);
    if (!code &&
        (!lade_dtype_find(text, len, &entry->tensor.dtype) || !s_is_own(entry->tensor.dtype)))
        return lade_header_fail(scan, LADE_NOT_IMPLEMENTED, "dtype %s is none that lade reads",
                                lade_tensor_list_show(text, shown));
    return code;
}

static lade_code_t
s_shape(lade_header_t *scan, s_entry_t *entry)
{
    size_t count;
    lade_code_t code = s_numbers(scan, "shape", LADE_TENSOR_MAX_RANK, entry->tensor.shape, &count);
    entry->tensor.rank = (uint8_t)count;
    return code;
}

static lade_code_t
s_offsets(lade_header_t *scan, s_entry_t *entry)
{
    uint64_t values[2];
    size_t count;
    lade_code_t code = s_numbers(scan, "data_offsets", 2, values, &count);
    if (!code && count != 2)
        return lade_header_fail(scan, LADE_CORRUPT, "data_offsets takes two numbers");
    if (code)
        return code;
    entry->begin = values[0];
    entry->end = values[1];
    return LADE_OK;
}

static const struct {
    const char *key;
    size_t len;
    size_t seen; // where in s_entry_t
    lade_code_t (*read)(lade_header_t *scan, s_entry_t *entry);
} s_members[] = {
    {"dtype", 5, offsetof(s_entry_t, has_dtype), s_dtype},
    {"shape", 5, offsetof(s_entry_t, has_shape), s_shape},
    {"data_offsets", 12, offsetof(s_entry_t, has_offsets), s_offsets},
};
enum { S_MEMBERS = sizeof s_members / sizeof *s_members };

static lade_code_t
s_member(lade_header_t *scan, s_entry_t *entry)
{
    char *key, shown[80];
    size_t len;
    lade_code_t code = lade_header_text(scan, LADE_TENSORS_MAX_NAME, &key, &len);
    if (!code)
        code = lade_header_expect(scan, ':');
    if (code)
        return code;
    for (size_t i = 0; i < S_MEMBERS; i++) {
        bool *seen = (bool *)((char *)entry + s_members[i].seen);
        if (len != s_members[i].len || memcmp(key, s_members[i].key, len) != 0)
            continue;
        if (*seen)
            return lade_header_fail(scan, LADE_CORRUPT, "%s is there twice", key);
        *seen = true;
        return s_members[i].read(scan, entry);
    }
    return lade_header_fail(scan, LADE_CORRUPT,
                            "a tensor has no '%s', only dtype, shape and data_offsets",
                            lade_tensor_list_show(key, shown));
}

// True if a packed type's elements fill whole bytes. Called when their number is known to fit.
static bool
s_is_whole(const lade_tensor_t *tensor)
{
    uint64_t elements = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        elements *= tensor->shape[i];
    return elements % lade_dtype_block(tensor->dtype) == 0;
}

// Checks an entry by itself; data is how many bytes the file has for tensors.
static lade_code_t
s_check_entry(lade_header_t *scan, const s_entry_t *entry, uint64_t data)
{
    uint64_t bytes;
    char shown[80];
    if (entry->has_dtype && entry->has_shape && entry->has_offsets && entry->begin <= entry->end &&
        entry->end <= data && lade_tensor_list_bytes(&entry->tensor, &bytes) &&
        bytes == entry->end - entry->begin &&
        (lade_dtype_block(entry->tensor.dtype) == 1 || s_is_whole(&entry->tensor)))
        return LADE_OK;
    lade_tensor_list_show(entry->tensor.name, shown);
    if (!entry->has_dtype || !entry->has_shape || !entry->has_offsets)
        return lade_header_fail(scan, LADE_CORRUPT, "tensor %s lacks dtype, shape or data_offsets",
                                shown);
    if (entry->begin > entry->end)
        return lade_header_fail(scan, LADE_CORRUPT, "tensor %s ends before it begins", shown);
    if (entry->end > data)
        return lade_header_fail(
            scan, LADE_CORRUPT,
            "tensor %s ends at %llu of %llu bytes: the file is cut short or its header is wrong",
            shown, (unsigned long long)entry->end, (unsigned long long)data);
    if (!lade_tensor_list_bytes(&entry->tensor, &bytes))
        return lade_header_fail(scan, LADE_CORRUPT, "the shape of tensor %s overflows", shown);
    if (bytes != entry->end - entry->begin)
        return lade_header_fail(
            scan, LADE_CORRUPT, "tensor %s has %llu bytes where its shape takes %llu", shown,
            (unsigned long long)(entry->end - entry->begin), (unsigned long long)bytes);
    return lade_header_fail(scan, LADE_CORRUPT, "tensor %s ends within a byte", shown);
}

// [1,2] without spaces, each short; the end of it, or NULL.
static const char *
s_plain_numbers(const char *at, size_t max, uint64_t *values, size_t *count_p)
{
    *count_p = 0;
    if (*at++ != '[')
        return NULL;
    for (const char *start = at; *count_p < max; start = ++at) {
        uint64_t value = 0;
        for (; *at >= '0' && *at <= '9' && at - start < 18; at++)
            value = value * 10 + (uint64_t)(*at - '0');
        if (at == start || (*start == '0' && at - start > 1))
            return NULL;
        values[(*count_p)++] = value;
        if (*at == ']')
            return at + 1;
        if (*at != ',')
            return NULL;
    }
    return NULL;
}

// An entry exactly as the format's own library writes it, in a third of the time; false, and
// nothing passed, for any other.
static bool
s_usual_entry(lade_header_t *scan, s_entry_t *entry)
{
    enum { S_LONGEST = 320 };
    static const char head[] = "{\"dtype\":\"",
                      shape[] = "\",\"shape\":", offsets[] = ",\"data_offsets\":";
    const char *at = scan->text + scan->pos;
    uint64_t values[2];
    size_t count;
    if (scan->have - scan->pos < S_LONGEST || memcmp(at, head, sizeof head - 1) != 0)
        return false;
    const char *name = at + sizeof head - 1, *quote = memchr(name, '"', 16);
    if (!quote || memcmp(quote, shape, sizeof shape - 1) != 0 ||
        !lade_dtype_find(name, (size_t)(quote - name), &entry->tensor.dtype) ||
        !s_is_own(entry->tensor.dtype))
        return false;
    at = quote + sizeof shape - 1;
    at = memcmp(at, "[]", 2) == 0
             ? (count = 0, at + 2)
             : s_plain_numbers(at, LADE_TENSOR_MAX_RANK, entry->tensor.shape, &count);
    entry->tensor.rank = (uint8_t)count;
    if (!at || memcmp(at, offsets, sizeof offsets - 1) != 0)
        return false;
    at = s_plain_numbers(at + sizeof offsets - 1, 2, values, &count);
    if (!at || count != 2 || *at != '}')
        return false;
    entry->begin = values[0];
    entry->end = values[1];
    entry->has_dtype = entry->has_shape = entry->has_offsets = true;
    scan->pos = (size_t)(at + 1 - scan->text);
    return true;
}

static lade_code_t
s_any_entry(lade_header_t *scan, s_entry_t *entry)
{
    lade_code_t code = lade_header_expect(scan, '{');
    bool more = !code && !lade_header_is_empty(scan, '}');
    while (!code && more) {
        code = s_member(scan, entry);
        if (!code)
            code = lade_header_next(scan, '}', &more);
    }
    return code;
}

static lade_code_t
s_tensor(lade_header_t *scan, lade_tensors_t *list, uint32_t file, uint64_t data, char *name,
         size_t name_len)
{
    s_entry_t entry = {.tensor = {.name = name, .name_len = name_len, .file = file}};
    lade_code_t code = s_usual_entry(scan, &entry) ? LADE_OK : s_any_entry(scan, &entry);
    if (!code)
        code = s_check_entry(scan, &entry, data);
    if (code)
        return code;
    entry.tensor.offset = 8 + scan->len + entry.begin;
    entry.tensor.size = entry.end - entry.begin;
    return lade_tensor_list_add(list, &entry.tensor, scan->error);
}

static lade_code_t
s_metadata_pair(lade_header_t *scan, json_t *metadata)
{
    char *key, *value;
    size_t key_len, value_len;
    lade_code_t code = lade_header_text(scan, LADE_TENSORS_MAX_NAME, &key, &key_len);
    if (!code)
        code = lade_header_expect(scan, ':');
    if (!code)
        code = lade_header_text(scan, S_MAX_METADATA, &value, &value_len);
    if (code)
        return code;
    if (json_object_get(metadata, key))
        return lade_header_fail(scan, LADE_CORRUPT, "a key of __metadata__ is there twice");
    if (json_object_size(metadata) == S_MAX_METADATA_KEYS)
        return lade_header_fail(scan, LADE_TOO_LARGE, "__metadata__ has more than %d keys",
                                S_MAX_METADATA_KEYS);
    if (json_object_set_new_nocheck(metadata, key, json_stringn_nocheck(value, value_len)) != 0)
        return lade_header_fail(scan, LADE_NO_MEMORY, "no memory for __metadata__");
    return LADE_OK;
}

// Keys that an earlier shard has are kept as they are there.
static lade_code_t
s_metadata(lade_header_t *scan, lade_tensors_t *list)
{
    json_t *metadata = json_object();
    lade_code_t code = lade_header_expect(scan, '{');
    bool more = !code && !lade_header_is_empty(scan, '}');
    while (!code && more) {
        code = s_metadata_pair(scan, metadata);
        if (!code)
            code = lade_header_next(scan, '}', &more);
    }
    if (!code)
        json_object_update_missing(list->metadata, metadata);
    json_decref(metadata);
    return code;
}

static lade_code_t
s_header(lade_header_t *scan, lade_tensors_t *list, uint32_t file, uint64_t data)
{
    bool has_metadata = false;
    if (lade_header_peek(scan) != '{')
        return lade_header_fail(scan, LADE_CORRUPT, "the header does not begin with '{'");
    scan->pos++;
    lade_code_t code = LADE_OK;
    for (bool more = !lade_header_is_empty(scan, '}'); !code && more;) {
        char *name;
        size_t len;
        code = lade_header_text(scan, LADE_TENSORS_MAX_NAME, &name, &len);
        if (!code)
            code = lade_header_expect(scan, ':');
        if (code)
            return code;
        bool metadata = name[0] == '_' && strcmp(name, "__metadata__") == 0;
        if (!metadata)
            code = s_tensor(scan, list, file, data, name, len);
        else if (has_metadata)
            code = lade_header_fail(scan, LADE_CORRUPT, "__metadata__ is there twice");
        else
            code = s_metadata(scan, list);
        has_metadata |= metadata;
        if (!code)
            code = lade_header_next(scan, '}', &more);
    }
    if (!code && lade_header_peek_past_space(scan) >= 0)
        return lade_header_fail(scan, LADE_CORRUPT, "something follows the header's last '}'");
    return scan->error->code;
}

// ---------------------------------------------------------------------------------------------------

static uint64_t
s_header_len(const uint8_t head[8])
{
    uint64_t len = 0;
    for (int i = 0; i < 8; i++)
        len |= (uint64_t)head[i] << 8 * i;
    return len;
}

bool
lade_safetensors_is(const uint8_t *head, size_t len, uint64_t size)
{
    return len >= 9 && head[8] == '{' && s_header_len(head) <= size - 8;
}

static lade_code_t
s_check_len(const uint8_t *head, size_t got, uint64_t size, uint64_t max, lade_error_t *error)
{
    if (size == 0)
        return lade_error_set(error, LADE_CORRUPT, "the file is empty");
    if (got < 8)
        return lade_error_set(error, LADE_CORRUPT, "%llu bytes are too few for a safetensors file",
                              (unsigned long long)size);
    uint64_t len = s_header_len(head);
    if (len > size - 8)
        return lade_error_set(
            error, LADE_CORRUPT,
            "its header would have %llu bytes, the file has %llu: no safetensors, or cut short",
            (unsigned long long)len, (unsigned long long)size);
    if (len > max)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "its header has %llu bytes, %llu are the most: a real one needs a "
                              "higher probe.max_header_mb",
                              (unsigned long long)len, (unsigned long long)max);
    return LADE_OK;
}

// How many tensors a header of that length may have: room is made once, not page by page. What is
// claimed by a header of nothing is never touched.
static size_t
s_guess(size_t len)
{
    enum { S_ENTRY = 160, S_MOST = 1 << 15 };
    return len / S_ENTRY < S_MOST ? len / S_ENTRY : S_MOST;
}

lade_code_t
lade_safetensors_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                      lade_error_t *error)
{
    lade_error_t spare = {0};
    uint8_t head[8];
    uint32_t file;
    error = error ? error : &spare;
    *error = (lade_error_t){0};
    ssize_t got = pread(fd, head, sizeof head, 0);
    if (got < 0)
        return lade_error_errno(error, errno, "reading %s", path);
    lade_code_t code = s_check_len(head, (size_t)got, size, self->max_header, error);
    if (code)
        return code;
    lade_header_t scan = {.fd = fd, .len = (size_t)s_header_len(head), .error = error};
    scan.text = malloc(scan.len + 1); // touched only as far as it is read
    if (!scan.text)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a header of %zu bytes",
                              scan.len);
    code = lade_tensor_list_add_file(self, path, size, scan.text, &file, error);
    size_t first = self->count;
    if (!code)
        lade_tensor_list_reserve(self, s_guess(scan.len));
    if (!code)
        code = s_header(&scan, self, file, size - 8 - scan.len);
    if (!code)
        code = lade_tensor_list_check_layout(self, first, 8 + scan.len, size, 0, error);
    return code;
}
