// msgpack written straight into a buffer: the same bytes as lade_pack_*, inlined for the paths
// every job takes.
//
// What is written here is our own and small, or was checked against its ceiling when it came in; so
// these calls cannot fail: they abort when memory runs out, as zmalloc does, and look at no
// ceiling.
#ifndef LADE_PACKER_H
#define LADE_PACKER_H

#include "common/buf.h"

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void lade_put_grow(lade_buf_t *buf, size_t more);

static inline char *
lade_put_room(lade_buf_t *buf, size_t more)
{
    if (buf->cap - buf->len <= more)
        lade_put_grow(buf, more);
    return buf->data + buf->len;
}

static inline void
lade_put_raw(lade_buf_t *buf, const void *bytes, size_t len)
{
    memcpy(lade_put_room(buf, len), bytes, len);
    buf->len += len;
}

static inline void
lade_put_byte(lade_buf_t *buf, uint8_t byte)
{
    *lade_put_room(buf, 1) = (char)byte;
    buf->len++;
}

// A type byte and a number of 1, 2, 4 or 8 bytes, big-endian.
static inline void
lade_put_typed(lade_buf_t *buf, uint8_t type, uint64_t value, size_t width)
{
    char *at = lade_put_room(buf, 9);
    uint64_t wire = htobe64(value << (64 - 8 * width));
    at[0] = (char)type;
    memcpy(at + 1, &wire, 8);
    buf->len += 1 + width;
}

static inline void
lade_put_uint(lade_buf_t *buf, uint64_t value)
{
    if (value < 0x80)
        lade_put_byte(buf, (uint8_t)value);
    else if (value <= UINT8_MAX)
        lade_put_typed(buf, 0xcc, value, 1);
    else if (value <= UINT16_MAX)
        lade_put_typed(buf, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        lade_put_typed(buf, 0xce, value, 4);
    else
        lade_put_typed(buf, 0xcf, value, 8);
}

static inline void
lade_put_int(lade_buf_t *buf, int64_t value)
{
    if (value >= 0)
        lade_put_uint(buf, (uint64_t)value);
    else if (value >= -32)
        lade_put_byte(buf, (uint8_t)value);
    else
        lade_put_typed(buf, 0xd3, (uint64_t)value, 8);
}

static inline void
lade_put_real(lade_buf_t *buf, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    lade_put_typed(buf, 0xcb, bits, 8);
}

static inline void
lade_put_bool(lade_buf_t *buf, bool value)
{
    lade_put_byte(buf, value ? 0xc3 : 0xc2);
}

static inline void
lade_put_nil(lade_buf_t *buf)
{
    lade_put_byte(buf, 0xc0);
}

static inline void
lade_put_map(lade_buf_t *buf, size_t pairs)
{
    if (pairs < 16)
        lade_put_byte(buf, (uint8_t)(0x80 | pairs));
    else if (pairs <= UINT16_MAX)
        lade_put_typed(buf, 0xde, pairs, 2);
    else
        lade_put_typed(buf, 0xdf, pairs, 4);
}

static inline void
lade_put_array(lade_buf_t *buf, size_t items)
{
    if (items < 16)
        lade_put_byte(buf, (uint8_t)(0x90 | items));
    else if (items <= UINT16_MAX)
        lade_put_typed(buf, 0xdc, items, 2);
    else
        lade_put_typed(buf, 0xdd, items, 4);
}

static inline void
lade_put_strn(lade_buf_t *buf, const char *text, size_t len)
{
    if (len < 32)
        lade_put_byte(buf, (uint8_t)(0xa0 | len));
    else if (len <= UINT8_MAX)
        lade_put_typed(buf, 0xd9, len, 1);
    else if (len <= UINT16_MAX)
        lade_put_typed(buf, 0xda, len, 2);
    else
        lade_put_typed(buf, 0xdb, len, 4);
    lade_put_raw(buf, text, len);
}

// Text, or nil for NULL.
static inline void
lade_put_str(lade_buf_t *buf, const char *text)
{
    if (text)
        lade_put_strn(buf, text, strlen(text));
    else
        lade_put_nil(buf);
}

// A time in seconds, or nil for 0.
static inline void
lade_put_time(lade_buf_t *buf, double when)
{
    if (when > 0)
        lade_put_real(buf, when);
    else
        lade_put_nil(buf);
}

// What is packed already, or nil for nothing.
static inline void
lade_put_packed(lade_buf_t *buf, const void *msgpack, size_t len)
{
    if (len)
        lade_put_raw(buf, msgpack, len);
    else
        lade_put_nil(buf);
}

// A key written in the source, shorter than 32 bytes.
#define LADE_PUT_KEY(buf, literal)                                                                 \
    do {                                                                                           \
        _Static_assert(sizeof(literal) <= 32, "a key of at most 31 bytes");                        \
        char *room_ = lade_put_room((buf), sizeof(literal));                                       \
        room_[0] = (char)(0xa0 | (sizeof(literal) - 1));                                           \
        memcpy(room_ + 1, literal, sizeof(literal) - 1);                                           \
        (buf)->len += sizeof(literal);                                                             \
    } while (0)

// An unpacked object, again as bytes.
#include <msgpack.h>
void lade_put_object(lade_buf_t *buf, const msgpack_object *object);

#endif
