// One value's head is read by s_head; the rest is built of it.
#include "broker/peek.h"

#include <stdint.h>
#include <string.h>

typedef enum { S_OTHER, S_TEXT, S_ARRAY, S_MAP, S_UINT, S_INT, S_REAL } s_type_t;

typedef struct {
    s_type_t type;
    size_t head;    // bytes before what the value holds
    size_t body;    // bytes of text, binary or a number
    uint64_t count; // values within: items, and keys with values; of a number: the number
} s_head_t;

static uint64_t
s_big(const uint8_t *at, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value = value << 8 | at[i];
    return value;
}

// What the first bytes from 0xc0 on say: the width of the number behind them, and what it is.
static const struct {
    uint8_t width; // of the length or the number
    uint8_t type;
    uint8_t sized; // the number is the length of a body
    uint8_t extra; // bytes of the body that are not counted, or all of it if there is no number
} s_kinds[32] = {
    // clang-format off
    [0xc4 - 0xc0] = {1, S_OTHER, 1, 0}, [0xc5 - 0xc0] = {2, S_OTHER, 1, 0}, [0xc6 - 0xc0] = {4, S_OTHER, 1, 0},
    [0xc7 - 0xc0] = {1, S_OTHER, 1, 1}, [0xc8 - 0xc0] = {2, S_OTHER, 1, 1}, [0xc9 - 0xc0] = {4, S_OTHER, 1, 1},
    [0xca - 0xc0] = {4, S_REAL,  0, 0}, [0xcb - 0xc0] = {8, S_REAL,  0, 0},
    [0xcc - 0xc0] = {1, S_UINT,  0, 0}, [0xcd - 0xc0] = {2, S_UINT,  0, 0}, [0xce - 0xc0] = {4, S_UINT,  0, 0},
    [0xcf - 0xc0] = {8, S_UINT,  0, 0}, [0xd0 - 0xc0] = {1, S_INT,   0, 0}, [0xd1 - 0xc0] = {2, S_INT,   0, 0},
    [0xd2 - 0xc0] = {4, S_INT,   0, 0}, [0xd3 - 0xc0] = {8, S_INT,   0, 0},
    [0xd4 - 0xc0] = {0, S_OTHER, 0, 2}, [0xd5 - 0xc0] = {0, S_OTHER, 0, 3}, [0xd6 - 0xc0] = {0, S_OTHER, 0, 5},
    [0xd7 - 0xc0] = {0, S_OTHER, 0, 9}, [0xd8 - 0xc0] = {0, S_OTHER, 0, 17},
    [0xd9 - 0xc0] = {1, S_TEXT,  1, 0}, [0xda - 0xc0] = {2, S_TEXT,  1, 0}, [0xdb - 0xc0] = {4, S_TEXT,  1, 0},
    [0xdc - 0xc0] = {2, S_ARRAY, 0, 0}, [0xdd - 0xc0] = {4, S_ARRAY, 0, 0},
    [0xde - 0xc0] = {2, S_MAP,   0, 0}, [0xdf - 0xc0] = {4, S_MAP,   0, 0},
    // clang-format on
};

static bool
s_head(lade_bytes_t bytes, s_head_t *head)
{
    const uint8_t *at = bytes.data;
    if (!bytes.len)
        return false;
    uint8_t first = at[0];
    if (first < 0x80 || first >= 0xe0) {
        *head = (s_head_t){first < 0x80 ? S_UINT : S_INT, 1, 0, (uint64_t)(int64_t)(int8_t)first};
    } else if (first < 0x90) {
        *head = (s_head_t){S_MAP, 1, 0, 2u * (first & 15u)};
    } else if (first < 0xa0) {
        *head = (s_head_t){S_ARRAY, 1, 0, first & 15u};
    } else if (first < 0xc0) {
        *head = (s_head_t){S_TEXT, 1, first & 31u, 0};
    } else {
        size_t width = s_kinds[first - 0xc0].width;
        if (bytes.len < 1 + width)
            return false;
        uint64_t number = s_big(at + 1, width);
        *head = (s_head_t){(s_type_t)s_kinds[first - 0xc0].type, 1 + width,
                           s_kinds[first - 0xc0].extra, number};
        if (s_kinds[first - 0xc0].sized)
            head->body += number;
        if (head->type == S_MAP)
            head->count *= 2;
    }
    return head->body <= bytes.len - head->head;
}

// The bytes of the first value, with all that is within.
static size_t
s_skip(lade_bytes_t bytes)
{
    const uint8_t *at = bytes.data;
    size_t len = 0;
    for (uint64_t left = 1; left; left--) {
        s_head_t head;
        if (!s_head((lade_bytes_t){at + len, bytes.len - len}, &head))
            return 0;
        len += head.head + head.body;
        if (head.type == S_ARRAY || head.type == S_MAP)
            left += head.count;
    }
    return len;
}

// Goes to the next pair of a map; *at begins behind its head.
static bool
s_pair(lade_bytes_t map, size_t *at, lade_bytes_t *name, lade_bytes_t *value)
{
    const uint8_t *bytes = map.data;
    lade_bytes_t rest = {bytes + *at, map.len - *at};
    size_t len = s_skip(rest);
    if (!len || !lade_peek_is_text(rest, name))
        *name = (lade_bytes_t){NULL, 0};
    *at += len;
    rest = (lade_bytes_t){bytes + *at, map.len - *at};
    size_t size = len ? s_skip(rest) : 0;
    *value = (lade_bytes_t){rest.data, size};
    *at += size;
    return size > 0;
}

static bool
s_is(lade_bytes_t name, const char *key)
{
    return name.data && strlen(key) == name.len && memcmp(key, name.data, name.len) == 0;
}

bool
lade_peek(lade_bytes_t map, const char *key, lade_bytes_t *value)
{
    s_head_t head;
    lade_bytes_t name, found;
    if (!s_head(map, &head) || head.type != S_MAP)
        return false;
    size_t at = head.head;
    for (uint64_t pairs = head.count / 2; pairs && s_pair(map, &at, &name, &found); pairs--)
        if (s_is(name, key)) {
            *value = found;
            return true;
        }
    return false;
}

void
lade_peek_members(lade_bytes_t map, const char *const *keys, size_t count, lade_bytes_t *values)
{
    s_head_t head;
    lade_bytes_t name, found;
    if (!s_head(map, &head) || head.type != S_MAP)
        return;
    size_t at = head.head;
    for (uint64_t pairs = head.count / 2; pairs && s_pair(map, &at, &name, &found); pairs--)
        for (size_t i = 0; i < count; i++)
            if (s_is(name, keys[i])) {
                if (!values[i].data)
                    values[i] = found;
                break;
            }
}

bool
lade_peek_is_text(lade_bytes_t value, lade_bytes_t *text)
{
    s_head_t head;
    if (!s_head(value, &head) || head.type != S_TEXT)
        return false;
    *text = (lade_bytes_t){(const char *)value.data + head.head, head.body};
    return true;
}

bool
lade_peek_text(lade_bytes_t map, const char *key, lade_bytes_t *text)
{
    lade_bytes_t value;
    return lade_peek(map, key, &value) && lade_peek_is_text(value, text);
}

static double
s_real(uint64_t bits, size_t width)
{
    if (width == 4) {
        uint32_t half = (uint32_t)bits;
        float single;
        memcpy(&single, &half, 4);
        return single;
    }
    double number;
    memcpy(&number, &bits, 8);
    return number;
}

bool
lade_peek_number(lade_bytes_t map, const char *key, double *number)
{
    lade_bytes_t value;
    return lade_peek(map, key, &value) && lade_peek_is_number(value, number);
}

bool
lade_peek_is_number(lade_bytes_t value, double *number)
{
    s_head_t head;
    if (!s_head(value, &head))
        return false;
    size_t width = head.head - 1;
    if (head.type == S_UINT)
        *number = (double)head.count;
    else if (head.type == S_INT && width)
        *number = (double)((int64_t)(head.count << (64 - 8 * width)) >> (64 - 8 * width));
    else if (head.type == S_INT)
        *number = (double)(int64_t)head.count;
    else if (head.type == S_REAL)
        *number = s_real(head.count, width);
    else
        return false;
    return true;
}

bool
lade_peek_item(lade_bytes_t array, size_t *at, lade_bytes_t *text)
{
    s_head_t head;
    if (!s_head(array, &head) || head.type != S_ARRAY)
        return false;
    if (!*at)
        *at = head.head;
    while (*at < array.len) {
        lade_bytes_t rest = {(const char *)array.data + *at, array.len - *at};
        size_t len = s_skip(rest);
        *at += len ? len : rest.len;
        if (len && lade_peek_is_text(rest, text))
            return true;
    }
    return false;
}

bool
lade_peek_next(lade_bytes_t values, size_t *at, lade_bytes_t *value)
{
    lade_bytes_t rest = {(const char *)values.data + *at, values.len - *at};
    size_t len = rest.len ? s_skip(rest) : 0;
    *value = (lade_bytes_t){rest.data, len};
    *at += len;
    return len > 0;
}
