// The safetensors header: a scanner of its own (a JSON library takes five times as long) that reads
// ahead no further than it understands, so that a hostile header costs what it has of sense, not
// what it claims.
#include "common/formats/safetensors.h"

#include "common/formats/tensor_list.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_PIECE = 1 << 16,
    S_MAX_METADATA = 1 << 25, // bytes of one metadata text
    S_MAX_METADATA_KEYS = 10000,
};

typedef struct {
    int fd;
    char *text;  // the header; names are unescaped in place and end with a NUL over their quote
    size_t len;  // of the header
    size_t have; // bytes of it read so far
    size_t pos;
    lade_error_t *error;
} s_scan_t;

// Every one of these returns LADE_OK or the code in *error.
static lade_code_t s_fail(s_scan_t *scan, lade_code_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static lade_code_t
s_fail(s_scan_t *scan, lade_code_t code, const char *format, ...)
{
    char words[300];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    if (scan->error->code) // reading failed, which is why the text ends here
        return scan->error->code;
    return lade_error_set(scan->error, code, "%s (at byte %zu)", words, scan->pos + 8);
}

static bool
s_more(s_scan_t *scan)
{
    size_t left = scan->len - scan->have;
    size_t want = scan->have > S_PIECE ? scan->have : S_PIECE;
    if (left == 0 || scan->error->code)
        return false;
    ssize_t n;
    do
        n = pread(scan->fd, scan->text + scan->have, want < left ? want : left,
                  (off_t)(8 + scan->have));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        lade_error_errno(scan->error, errno, "reading the header");
    if (n <= 0)
        return false;
    scan->have += (size_t)n;
    return true;
}

// The next byte, -1 at the end.
static inline int
s_peek(s_scan_t *scan)
{
    if (scan->pos == scan->have && !s_more(scan))
        return -1;
    return (unsigned char)scan->text[scan->pos];
}

static inline int
s_peek_past_space(s_scan_t *scan)
{
    int c;
    while ((c = s_peek(scan)) == ' ' || c == '\n' || c == '\r' || c == '\t')
        scan->pos++;
    return c;
}

static lade_code_t
s_expect(s_scan_t *scan, char wanted)
{
    int c = s_peek_past_space(scan);
    if (c != wanted)
        return c < 0 ? s_fail(scan, LADE_CORRUPT, "the header ends where '%c' is expected", wanted)
                     : s_fail(scan, LADE_CORRUPT, "'%c' is expected in the header", wanted);
    scan->pos++;
    return LADE_OK;
}

// After a member of a list or map: true if another one follows, false after the closing mark.
static lade_code_t
s_next(s_scan_t *scan, char closing, bool *more_p)
{
    *more_p = s_peek_past_space(scan) == ',';
    if (*more_p) {
        scan->pos++;
        return LADE_OK;
    }
    return s_expect(scan, closing);
}

// After an opening mark: true (and past it) if the list or map is empty.
static bool
s_is_empty(s_scan_t *scan, char closing)
{
    if (s_peek_past_space(scan) != closing)
        return false;
    scan->pos++;
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Text

static lade_code_t
s_hex4(s_scan_t *scan, uint32_t *value_p)
{
    *value_p = 0;
    for (int i = 0; i < 4; i++, scan->pos++) {
        int c = s_peek(scan);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return s_fail(scan, LADE_CORRUPT, "\\u takes four hex digits");
        *value_p = *value_p << 4 | (uint32_t)digit;
    }
    return LADE_OK;
}

static char *
s_put_utf8(char *out, uint32_t c)
{
    int tail = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t marks[] = {0, 0xc0, 0xe0, 0xf0};
    *out++ = (char)(marks[tail] | c >> 6 * tail);
    while (tail--)
        *out++ = (char)(0x80 | (c >> 6 * tail & 0x3f));
    return out;
}

static lade_code_t
s_unicode_escape(s_scan_t *scan, char **out_p)
{
    uint32_t c, low;
    lade_code_t code = s_hex4(scan, &c);
    if (code)
        return code;
    if (c >= 0xd800 && c < 0xdc00) {
        bool pair = s_peek(scan) == '\\';
        scan->pos += pair;
        pair = pair && s_peek(scan) == 'u';
        scan->pos += pair;
        if (pair && (code = s_hex4(scan, &low)))
            return code;
        if (!pair || low < 0xdc00 || low > 0xdfff)
            return s_fail(scan, LADE_CORRUPT, "half a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c == 0 || (c >= 0xdc00 && c < 0xe000)) {
        return s_fail(scan, LADE_CORRUPT, "\\u%04x cannot be in a text", c);
    }
    *out_p = s_put_utf8(*out_p, c);
    return LADE_OK;
}

static lade_code_t
s_escape(s_scan_t *scan, char **out_p)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int c = s_peek(scan);
    scan->pos++;
    if (c == 'u')
        return s_unicode_escape(scan, out_p);
    const char *found = c > 0 ? strchr(from, c) : NULL;
    if (!found)
        return s_fail(scan, LADE_CORRUPT, "unknown escape in a text");
    *(*out_p)++ = to[found - from];
    return LADE_OK;
}

// One UTF-8 sequence of more than one byte; shortest form only, no surrogates.
static lade_code_t
s_copy_utf8(s_scan_t *scan, char **out_p)
{
    int c = s_peek(scan);
    int tail = c >= 0xc2 && c <= 0xdf   ? 1
               : c >= 0xe0 && c <= 0xef ? 2
               : c >= 0xf0 && c <= 0xf4 ? 3
                                        : 0;
    int low = c == 0xe0   ? 0xa0
              : c == 0xf0 ? 0x90
                          : 0x80,
        high = c == 0xed   ? 0x9f
               : c == 0xf4 ? 0x8f
                           : 0xbf;
    if (tail == 0)
        return s_fail(scan, LADE_CORRUPT, "the header is not UTF-8");
    *(*out_p)++ = (char)c;
    scan->pos++;
    for (; tail; tail--, low = 0x80, high = 0xbf) {
        c = s_peek(scan);
        if (c < low || c > high)
            return s_fail(scan, LADE_CORRUPT, "the header is not UTF-8");
        *(*out_p)++ = (char)c;
        scan->pos++;
    }
    return LADE_OK;
}

// A text of at most max bytes, unescaped where it stands and ended by a NUL.
static lade_code_t
s_text(s_scan_t *scan, size_t max, char **text_p, size_t *len_p)
{
    lade_code_t code = s_expect(scan, '"');
    if (code)
        return code;
    char *start = scan->text + scan->pos, *out = start;
    for (int c; (c = s_peek(scan)) != '"';) {
        if (c < 0x20)
            return s_fail(scan, LADE_CORRUPT,
                          c < 0 ? "the header ends inside a text" : "control character in a text");
        if (c == '\\') {
            scan->pos++;
            code = s_escape(scan, &out);
        } else if (c < 0x80) {
            *out++ = (char)c;
            scan->pos++;
        } else {
            code = s_copy_utf8(scan, &out);
        }
        if (code)
            return code;
        if ((size_t)(out - start) > max)
            return s_fail(scan, LADE_TOO_LARGE, "a text is longer than %zu bytes", max);
    }
    scan->pos++;
    *out = 0;
    *text_p = start;
    *len_p = (size_t)(out - start);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Entries

static lade_code_t
s_number(s_scan_t *scan, uint64_t *value_p)
{
    int c = s_peek_past_space(scan);
    if (c < '0' || c > '9')
        return s_fail(scan, LADE_CORRUPT, "a whole number is expected");
    bool zero = c == '0';
    *value_p = 0;
    for (size_t digits = 0; (c = s_peek(scan)) >= '0' && c <= '9'; scan->pos++, digits++) {
        if ((zero && digits) || __builtin_mul_overflow(*value_p, 10, value_p) ||
            __builtin_add_overflow(*value_p, (uint64_t)(c - '0'), value_p))
            return s_fail(scan, LADE_CORRUPT,
                          zero ? "a number begins with 0" : "a number over 64 bits");
    }
    if (c == '.' || c == 'e' || c == 'E')
        return s_fail(scan, LADE_CORRUPT, "a whole number is expected");
    return LADE_OK;
}

// [1, 2, …] of at most max numbers.
static lade_code_t
s_numbers(s_scan_t *scan, const char *what, size_t max, uint64_t *values, size_t *count_p)
{
    lade_code_t code = s_expect(scan, '[');
    *count_p = 0;
    bool more = !code && !s_is_empty(scan, ']');
    while (!code && more) {
        if (*count_p == max)
            return s_fail(scan, LADE_CORRUPT, "%s has more than %zu numbers", what, max);
        code = s_number(scan, &values[(*count_p)++]);
        if (!code)
            code = s_next(scan, ']', &more);
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
s_dtype(s_scan_t *scan, s_entry_t *entry)
{
    char *text, shown[80];
    size_t len;
    lade_code_t code = s_text(scan, LADE_TENSORS_MAX_NAME, &text, &len);
    if (!code &&
        (!lade_dtype_find(text, len, &entry->tensor.dtype) || !s_is_own(entry->tensor.dtype)))
        return s_fail(scan, LADE_NOT_IMPLEMENTED, "dtype %s is none that lade reads",
                      lade_tensor_list_show(text, shown));
    return code;
}

static lade_code_t
s_shape(s_scan_t *scan, s_entry_t *entry)
{
    size_t count;
    lade_code_t code = s_numbers(scan, "shape", LADE_TENSOR_MAX_RANK, entry->tensor.shape, &count);
    entry->tensor.rank = (uint8_t)count;
    return code;
}

static lade_code_t
s_offsets(s_scan_t *scan, s_entry_t *entry)
{
    uint64_t values[2];
    size_t count;
    lade_code_t code = s_numbers(scan, "data_offsets", 2, values, &count);
    if (!code && count != 2)
        return s_fail(scan, LADE_CORRUPT, "data_offsets takes two numbers");
    if (code)
        return code;
    entry->begin = values[0];
    entry->end = values[1];
    return LADE_OK;
}

static const struct {
    const char *key;
    size_t seen; // where in s_entry_t
    lade_code_t (*read)(s_scan_t *scan, s_entry_t *entry);
} s_members[] = {
    {"dtype", offsetof(s_entry_t, has_dtype), s_dtype},
    {"shape", offsetof(s_entry_t, has_shape), s_shape},
    {"data_offsets", offsetof(s_entry_t, has_offsets), s_offsets},
};
enum { S_MEMBERS = sizeof s_members / sizeof *s_members };

static lade_code_t
s_member(s_scan_t *scan, s_entry_t *entry)
{
    char *key, shown[80];
    size_t len;
    lade_code_t code = s_text(scan, LADE_TENSORS_MAX_NAME, &key, &len);
    if (!code)
        code = s_expect(scan, ':');
    if (code)
        return code;
    for (size_t i = 0; i < S_MEMBERS; i++) {
        bool *seen = (bool *)((char *)entry + s_members[i].seen);
        if (strcmp(key, s_members[i].key) != 0)
            continue;
        if (*seen)
            return s_fail(scan, LADE_CORRUPT, "%s is there twice", key);
        *seen = true;
        return s_members[i].read(scan, entry);
    }
    return s_fail(scan, LADE_CORRUPT, "a tensor has no '%s', only dtype, shape and data_offsets",
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
s_check_entry(s_scan_t *scan, const s_entry_t *entry, uint64_t data)
{
    uint64_t bytes;
    char shown[80];
    lade_tensor_list_show(entry->tensor.name, shown);
    if (!entry->has_dtype || !entry->has_shape || !entry->has_offsets)
        return s_fail(scan, LADE_CORRUPT, "tensor %s lacks dtype, shape or data_offsets", shown);
    if (entry->begin > entry->end)
        return s_fail(scan, LADE_CORRUPT, "tensor %s ends before it begins", shown);
    if (entry->end > data)
        return s_fail(
            scan, LADE_CORRUPT,
            "tensor %s ends at %llu of %llu bytes: the file is cut short or its header is wrong",
            shown, (unsigned long long)entry->end, (unsigned long long)data);
    if (!lade_tensor_list_bytes(&entry->tensor, &bytes))
        return s_fail(scan, LADE_CORRUPT, "the shape of tensor %s overflows", shown);
    if (lade_dtype_block(entry->tensor.dtype) > 1 && !s_is_whole(&entry->tensor))
        return s_fail(scan, LADE_CORRUPT, "tensor %s ends within a byte", shown);
    if (bytes != entry->end - entry->begin)
        return s_fail(scan, LADE_CORRUPT, "tensor %s has %llu bytes where its shape takes %llu",
                      shown, (unsigned long long)(entry->end - entry->begin),
                      (unsigned long long)bytes);
    return LADE_OK;
}

static lade_code_t
s_tensor(s_scan_t *scan, lade_tensors_t *list, uint32_t file, uint64_t data, char *name,
         size_t name_len)
{
    s_entry_t entry = {.tensor = {.name = name, .name_len = name_len, .file = file}};
    lade_code_t code = s_expect(scan, '{');
    bool more = !code && !s_is_empty(scan, '}');
    while (!code && more) {
        code = s_member(scan, &entry);
        if (!code)
            code = s_next(scan, '}', &more);
    }
    if (!code)
        code = s_check_entry(scan, &entry, data);
    if (code)
        return code;
    entry.tensor.offset = 8 + scan->len + entry.begin;
    entry.tensor.size = entry.end - entry.begin;
    return lade_tensor_list_add(list, &entry.tensor, scan->error);
}

static lade_code_t
s_metadata_pair(s_scan_t *scan, json_t *metadata)
{
    char *key, *value;
    size_t key_len, value_len;
    lade_code_t code = s_text(scan, LADE_TENSORS_MAX_NAME, &key, &key_len);
    if (!code)
        code = s_expect(scan, ':');
    if (!code)
        code = s_text(scan, S_MAX_METADATA, &value, &value_len);
    if (code)
        return code;
    if (json_object_get(metadata, key))
        return s_fail(scan, LADE_CORRUPT, "a key of __metadata__ is there twice");
    if (json_object_size(metadata) == S_MAX_METADATA_KEYS)
        return s_fail(scan, LADE_TOO_LARGE, "__metadata__ has more than %d keys",
                      S_MAX_METADATA_KEYS);
    if (json_object_set_new_nocheck(metadata, key, json_stringn_nocheck(value, value_len)) != 0)
        return s_fail(scan, LADE_NO_MEMORY, "no memory for __metadata__");
    return LADE_OK;
}

// Keys that an earlier shard has are kept as they are there.
static lade_code_t
s_metadata(s_scan_t *scan, lade_tensors_t *list)
{
    json_t *metadata = json_object();
    lade_code_t code = s_expect(scan, '{');
    bool more = !code && !s_is_empty(scan, '}');
    while (!code && more) {
        code = s_metadata_pair(scan, metadata);
        if (!code)
            code = s_next(scan, '}', &more);
    }
    if (!code)
        json_object_update_missing(list->metadata, metadata);
    json_decref(metadata);
    return code;
}

static lade_code_t
s_header(s_scan_t *scan, lade_tensors_t *list, uint32_t file, uint64_t data)
{
    bool has_metadata = false;
    if (s_peek(scan) != '{')
        return s_fail(scan, LADE_CORRUPT, "the header does not begin with '{'");
    scan->pos++;
    lade_code_t code = LADE_OK;
    for (bool more = !s_is_empty(scan, '}'); !code && more;) {
        char *name;
        size_t len;
        code = s_text(scan, LADE_TENSORS_MAX_NAME, &name, &len);
        if (!code)
            code = s_expect(scan, ':');
        if (code)
            return code;
        if (strcmp(name, "__metadata__") != 0)
            code = s_tensor(scan, list, file, data, name, len);
        else if (has_metadata)
            code = s_fail(scan, LADE_CORRUPT, "__metadata__ is there twice");
        else
            code = s_metadata(scan, list);
        has_metadata |= strcmp(name, "__metadata__") == 0;
        if (!code)
            code = s_next(scan, '}', &more);
    }
    if (!code && s_peek_past_space(scan) >= 0)
        return s_fail(scan, LADE_CORRUPT, "something follows the header's last '}'");
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
s_check_len(const uint8_t *head, size_t got, uint64_t size, lade_error_t *error)
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
    if (len > LADE_TENSORS_MAX_HEADER)
        return lade_error_set(error, LADE_TOO_LARGE, "its header has %llu bytes, %d are the most",
                              (unsigned long long)len, LADE_TENSORS_MAX_HEADER);
    return LADE_OK;
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
    lade_code_t code = s_check_len(head, (size_t)got, size, error);
    if (code)
        return code;
    s_scan_t scan = {.fd = fd, .len = (size_t)s_header_len(head), .error = error};
    scan.text = malloc(scan.len + 1); // touched only as far as it is read
    if (!scan.text)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a header of %zu bytes",
                              scan.len);
    code = lade_tensor_list_add_file(self, path, size, scan.text, &file, error);
    size_t first = self->count;
    if (!code)
        code = s_header(&scan, self, file, size - 8 - scan.len);
    if (!code)
        code = lade_tensor_list_check_layout(self, first, 8 + scan.len, size, 0, error);
    return code;
}
