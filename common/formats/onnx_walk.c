// The protobuf walk, texts and types of the ONNX reader.
#include "common/formats/onnx_walk.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    S_MAX_TEXT = LADE_WINDOW, // bytes of a text that is kept
    S_MAX_KEPT = 1 << 23,     // bytes of text kept, over all
};

lade_code_t
lade_onnx_walk_fail(lade_onnx_walk_t *walk, lade_code_t code, const char *format, ...)
{
    char words[300];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    return lade_error_set(walk->error, code, "%s (at byte %llu)", words,
                          (unsigned long long)walk->window->at);
}

// ---------------------------------------------------------------------------------------------------
// Protobuf

lade_code_t
lade_onnx_walk_varint(lade_onnx_walk_t *walk, uint64_t *value_p)
{
    *value_p = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        const uint8_t *byte = lade_window_take(walk->window, 1, walk->error);
        if (!byte)
            return walk->error->code;
        *value_p |= (uint64_t)(*byte & 0x7f) << shift;
        if (!(*byte & 0x80))
            return LADE_OK;
    }
    return lade_onnx_walk_fail(walk, LADE_CORRUPT, "a number of more than 64 bits");
}

static lade_code_t
s_tag(lade_onnx_walk_t *walk, uint32_t *field_p, lade_onnx_wire_t *wire_p)
{
    uint64_t tag;
    lade_code_t code = lade_onnx_walk_varint(walk, &tag);
    *wire_p = (lade_onnx_wire_t)(tag & 7);
    *field_p = (uint32_t)(tag >> 3);
    if (!code && (tag >> 3 == 0 || tag >> 3 > 0x1fffffff))
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "there is no field %llu: it is no ONNX file",
                                   (unsigned long long)(tag >> 3));
    return code;
}

// The bytes of a field, whose reader may leave some unread.
static lade_code_t
s_bytes(lade_onnx_walk_t *walk, const lade_onnx_row_t *row, void *into)
{
    uint64_t len, end = walk->window->end;
    lade_code_t code = lade_onnx_walk_varint(walk, &len);
    if (code || !row)
        return code ? code : lade_window_skip(walk->window, len, walk->error);
    uint64_t inner = walk->window->at + len;
    if (len > end - walk->window->at)
        return lade_window_skip(walk->window, len, walk->error); // says what is wrong
    walk->window->end = inner;
    code = row->read(walk, into, len);
    walk->window->end = end;
    return code ? code : lade_window_skip(walk->window, inner - walk->window->at, walk->error);
}

static lade_code_t
s_field(lade_onnx_walk_t *walk, uint32_t field, lade_onnx_wire_t wire, const lade_onnx_row_t *row,
        void *into)
{
    uint64_t value;
    lade_code_t code;
    switch (wire) {
    case LADE_ONNX_VARINT:
        code = lade_onnx_walk_varint(walk, &value);
        return code || !row ? code : row->read(walk, into, value);
    case LADE_ONNX_BYTES:
        return s_bytes(walk, row, into);
    case LADE_ONNX_FIXED64:
        return lade_window_skip(walk->window, 8, walk->error);
    case LADE_ONNX_FIXED32:
        return lade_window_skip(walk->window, 4, walk->error);
    default:
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "field %u is of kind %d, which there is not",
                                   field, (int)wire);
    }
}

// Reads fields up to the end of the message. rows end with a row without field.
lade_code_t
lade_onnx_walk_message(lade_onnx_walk_t *walk, const lade_onnx_row_t *rows, void *into)
{
    lade_code_t code = LADE_OK;
    while (!code && walk->window->at < walk->window->end) {
        uint32_t field;
        lade_onnx_wire_t wire;
        const lade_onnx_row_t *row = rows;
        code = s_tag(walk, &field, &wire);
        while (row->field && (row->field != field || row->wire != wire))
            row++;
        if (!code)
            code = s_field(walk, field, wire, row->field ? row : NULL, into);
    }
    return code;
}

// The text of a field, as JSON (yours) and, if it is asked for, as bytes that stand until the next
// read. Over the ceilings it is told by its length.
lade_code_t
lade_onnx_walk_text(lade_onnx_walk_t *walk, uint64_t len, json_t **text_p)
{
    char shown[48];
    if (len > S_MAX_TEXT || walk->kept + len > S_MAX_KEPT) {
        snprintf(shown, sizeof shown, "(%llu bytes)", (unsigned long long)len);
        *text_p = json_string(shown);
        return LADE_OK;
    }
    const char *text = (const char *)lade_window_take(walk->window, (size_t)len, walk->error);
    *text_p = text ? json_stringn(text, (size_t)len) : NULL;
    walk->kept += len;
    if (text && !*text_p)
        return lade_onnx_walk_fail(walk, LADE_CORRUPT, "a text is not UTF-8");
    return text ? LADE_OK : walk->error->code;
}

// ---------------------------------------------------------------------------------------------------
// Pairs of text: metadata_props, where external data is

typedef struct {
    json_t *key, *value;
} s_pair_t;

static lade_code_t
s_pair_part(lade_onnx_walk_t *walk, json_t **part_p, uint64_t len)
{
    json_decref(*part_p);
    return lade_onnx_walk_text(walk, len, part_p);
}

static lade_code_t
s_pair_key(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    return s_pair_part(walk, &((s_pair_t *)into)->key, len);
}

static lade_code_t
s_pair_value(lade_onnx_walk_t *walk, void *into, uint64_t len)
{
    return s_pair_part(walk, &((s_pair_t *)into)->value, len);
}

static const lade_onnx_row_t s_pair_rows[] = {
    {1, LADE_ONNX_BYTES, s_pair_key}, {2, LADE_ONNX_BYTES, s_pair_value}, {0}};

// Adds a pair to a map; what is there stays.
lade_code_t
lade_onnx_walk_pair(lade_onnx_walk_t *walk, json_t *map)
{
    s_pair_t pair = {0};
    lade_code_t code = lade_onnx_walk_message(walk, s_pair_rows, &pair);
    const char *key = json_string_value(pair.key);
    if (!code && json_object_size(map) == LADE_TENSORS_MAX_VALUES)
        code = lade_onnx_walk_fail(walk, LADE_TOO_LARGE, "it has more than %d pairs of text",
                                   LADE_TENSORS_MAX_VALUES);
    if (!code && key && pair.value && !json_object_get(map, key))
        json_object_set(map, key, pair.value);
    json_decref(pair.key);
    json_decref(pair.value);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Types of elements

static const int s_types[] = {
    // clang-format off
    [0]  = -1,               [1]  = LADE_DTYPE_F32,         [2]  = LADE_DTYPE_U8,
    [3]  = LADE_DTYPE_I8,    [4]  = LADE_DTYPE_U16,         [5]  = LADE_DTYPE_I16,
    [6]  = LADE_DTYPE_I32,   [7]  = LADE_DTYPE_I64,         [8]  = -1, // text
    [9]  = LADE_DTYPE_BOOL,  [10] = LADE_DTYPE_F16,         [11] = LADE_DTYPE_F64,
    [12] = LADE_DTYPE_U32,   [13] = LADE_DTYPE_U64,         [14] = LADE_DTYPE_C64,
    [15] = LADE_DTYPE_C128,  [16] = LADE_DTYPE_BF16,        [17] = LADE_DTYPE_F8_E4M3,
    [18] = LADE_DTYPE_F8_E4M3FNUZ, [19] = LADE_DTYPE_F8_E5M2, [20] = LADE_DTYPE_F8_E5M2FNUZ,
    [21] = LADE_DTYPE_U4,    [22] = LADE_DTYPE_I4,          [23] = LADE_DTYPE_F4,
    [24] = LADE_DTYPE_F8_E8M0, [25] = LADE_DTYPE_U2,        [26] = LADE_DTYPE_I2,
    // clang-format on
};
enum { S_TYPES = sizeof s_types / sizeof *s_types };

bool
lade_onnx_walk_type(uint64_t number, lade_dtype_t *dtype_p)
{
    if (number >= S_TYPES || s_types[number] < 0)
        return false;
    *dtype_p = (lade_dtype_t)s_types[number];
    return true;
}
