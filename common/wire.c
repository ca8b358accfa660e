// Message bodies: checked msgpack, and its ways to and from json_t.
#include "common/wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const s_commands[LADE_W_END] = {
    [LADE_W_HELLO] = "HELLO",   [LADE_W_BEAT] = "BEAT",     [LADE_W_PROGRESS] = "PROGRESS",
    [LADE_W_DONE] = "DONE",     [LADE_W_FAIL] = "FAIL",     [LADE_W_AWAIT] = "AWAIT",
    [LADE_W_GATE] = "GATE",     [LADE_W_BYE] = "BYE",       [LADE_W_WELCOME] = "WELCOME",
    [LADE_W_JOB] = "JOB",       [LADE_W_CANCEL] = "CANCEL", [LADE_W_PAUSE] = "PAUSE",
    [LADE_W_RETIRE] = "RETIRE", [LADE_W_TERMS] = "TERMS",
};

const char *
lade_worker_command_name(int command)
{
    return command > 0 && command < LADE_W_END ? s_commands[command] : "?";
}

// ---------------------------------------------------------------------------------------------------
// Checking. Format bytes: https://github.com/msgpack/msgpack/blob/master/spec.md

// What a first byte announces: bytes that follow it directly, and values that follow those.
typedef struct {
    size_t fixed; // bytes of the value itself after its head
    size_t items; // values it contains
    bool container, text;
} s_head_t;

// Reads an unsigned big-endian number of width bytes; false if they are not all there.
static bool
s_number(const uint8_t *bytes, size_t len, size_t *at, size_t width, size_t *value_p)
{
    if (len - *at < width)
        return false;
    size_t value = 0;
    for (size_t i = 0; i < width; i++)
        value = value << 8 | bytes[*at + i];
    *at += width;
    *value_p = value;
    return true;
}

// How the bytes from 0xc0 to 0xdf are laid out: width of the length field, extra bytes, what is
// counted.
static const struct {
    uint8_t width; // bytes of length field
    uint8_t fixed; // bytes besides
    char counts;   // 0 nothing, 'b' bytes, 'a' array items, 'm' map pairs, 'x' never used
} s_formats[32] = {
    // clang-format off
    {0, 0, 0},   {0, 0, 'x'}, {0, 0, 0},   {0, 0, 0},   {1, 0, 'b'}, {2, 0, 'b'}, {4, 0, 'b'}, {1, 1, 'b'},
    {2, 1, 'b'}, {4, 1, 'b'}, {0, 4, 0},   {0, 8, 0},   {0, 1, 0},   {0, 2, 0},   {0, 4, 0},   {0, 8, 0},
    {0, 1, 0},   {0, 2, 0},   {0, 4, 0},   {0, 8, 0},   {0, 2, 0},   {0, 3, 0},   {0, 5, 0},   {0, 9, 0},
    {0, 17, 0},  {1, 0, 'b'}, {2, 0, 'b'}, {4, 0, 'b'}, {2, 0, 'a'}, {4, 0, 'a'}, {2, 0, 'm'}, {4, 0, 'm'},
    // clang-format on
};

static bool
s_head(const uint8_t *bytes, size_t len, size_t *at, s_head_t *head)
{
    uint8_t first = bytes[(*at)++];
    *head = (s_head_t){0};
    if (first < 0x80 || first >= 0xe0)
        return true;
    head->text = (first >= 0xa0 && first < 0xc0) || (first >= 0xd9 && first <= 0xdb);
    if (first < 0xa0) {
        head->container = true;
        head->items = (size_t)(first & 0x0f) << (first < 0x90); // a map pair is two values
        return true;
    }
    if (first < 0xc0) {
        head->fixed = first & 0x1f;
        return true;
    }
    size_t count = 0;
    if (s_formats[first - 0xc0].counts == 'x' ||
        !s_number(bytes, len, at, s_formats[first - 0xc0].width, &count))
        return false;
    head->fixed = s_formats[first - 0xc0].fixed;
    switch (s_formats[first - 0xc0].counts) {
    case 'b':
        head->fixed += count;
        break;
    case 'a':
    case 'm':
        head->container = true;
        head->items = s_formats[first - 0xc0].counts == 'm' ? count * 2 : count;
        break;
    }
    return true;
}

static lade_code_t
s_check(const void *data, size_t len, size_t max_depth, lade_error_t *error)
{
    const uint8_t *bytes = data;
    size_t left[LADE_WIRE_MAX_DEPTH + 1] = {1};  // values still to come at each depth
    bool map[LADE_WIRE_MAX_DEPTH + 1] = {false}; // of those, every second is a key
    size_t depth = 0, at = 0, items = 0;
    while (true) {
        while (left[depth] == 0) {
            if (depth == 0) {
                if (at != len)
                    return lade_error_set(error, LADE_BAD_REQUEST,
                                          "%zu bytes after the msgpack body", len - at);
                return LADE_OK;
            }
            depth--;
        }
        bool key = map[depth] && left[depth] % 2 == 0;
        left[depth]--;
        uint8_t first = at < len ? bytes[at] : 0;
        s_head_t head;
        if (at >= len || !s_head(bytes, len, &at, &head) || head.fixed > len - at ||
            head.items > len - at)
            return lade_error_set(error, LADE_BAD_REQUEST,
                                  "the body is no whole msgpack value (byte %zu of %zu)", at, len);
        if (key && (!head.text || memchr(bytes + at, 0, head.fixed)))
            return lade_error_set(error, LADE_BAD_REQUEST,
                                  "the body has a map key that is no text (byte %zu)", at);
        at += head.fixed;
        if (++items > LADE_WIRE_MAX_ITEMS)
            return lade_error_set(error, LADE_TOO_LARGE, "more than %d values in one body",
                                  LADE_WIRE_MAX_ITEMS);
        if (head.container) {
            if (depth == max_depth)
                return lade_error_set(error, LADE_TOO_LARGE, "the body is nested deeper than %zu",
                                      max_depth);
            left[++depth] = head.items;
            map[depth] = (first & 0xf0) == 0x80 || first == 0xde || first == 0xdf;
        }
    }
}

lade_code_t
lade_wire_check(const void *bytes, size_t len, lade_error_t *error)
{
    return s_check(bytes, len, LADE_WIRE_MAX_DEPTH, error);
}

// Bytes of the UTF-8 character at text, of which left are there; 0 if there is none.
static size_t
s_character(const uint8_t *text, size_t left)
{
    static const struct {
        uint8_t mask, lead;
        uint32_t lowest; // what takes fewer bytes is not written with more
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t more = 0; more < 4; more++) {
        if ((*text & forms[more].mask) != forms[more].lead)
            continue;
        uint32_t point = *text & (uint8_t)~forms[more].mask;
        for (size_t i = 1; i <= more; i++) {
            if (i >= left || (text[i] & 0xc0) != 0x80)
                return 0;
            point = point << 6 | (text[i] & 0x3f);
        }
        bool surrogate = (point & ~0x7ffu) == 0xd800;
        return point >= forms[more].lowest && point <= 0x10ffff && !surrogate ? more + 1 : 0;
    }
    return 0;
}

void
lade_wire_mend_text(char *text, size_t len)
{
    uint8_t *bytes = (uint8_t *)text;
    for (size_t at = 0, step; at < len; at += step) {
        uint64_t eight = UINT64_C(1) << 63;
        if (len - at >= sizeof eight)
            memcpy(&eight, bytes + at, sizeof eight);
        step =
            eight & UINT64_C(0x8080808080808080) ? s_character(bytes + at, len - at) : sizeof eight;
        if (step == 0) {
            bytes[at] = '?';
            step = 1;
        }
    }
}

void
lade_wire_mend(void *msgpack, size_t len)
{
    uint8_t *bytes = msgpack;
    s_head_t head;
    for (size_t at = 0; at < len; at += head.fixed) {
        if (!s_head(bytes, len, &at, &head) || head.fixed > len - at)
            return;
        if (head.text)
            lade_wire_mend_text((char *)bytes + at, head.fixed);
    }
}

lade_code_t
lade_wire_unpack(const void *bytes, size_t len, msgpack_zone *zone, msgpack_object *object_p,
                 lade_error_t *error)
{
    lade_code_t code = s_check(bytes, len, LADE_WIRE_MAX_REQUEST, error);
    if (code)
        return code;
    size_t at = 0;
    if (msgpack_unpack(bytes, len, &at, zone, object_p) < 0)
        return lade_error_set(error, LADE_BAD_REQUEST, "the body is no msgpack value");
    if (object_p->type != MSGPACK_OBJECT_MAP)
        return lade_error_set(error, LADE_BAD_REQUEST, "the body is no map");
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Reading

const msgpack_object *
lade_wire_find(const msgpack_object *map, const char *key)
{
    if (!map || map->type != MSGPACK_OBJECT_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *pair = &map->via.map.ptr[i];
        size_t len = pair->key.via.str.size;
        if (pair->key.type == MSGPACK_OBJECT_STR && len && pair->key.via.str.ptr[0] == key[0] &&
            strncmp(key, pair->key.via.str.ptr, len) == 0 && key[len] == '\0')
            return &pair->val;
    }
    return NULL;
}

int64_t
lade_wire_int(const msgpack_object *map, const char *key, int64_t preset)
{
    const msgpack_object *value = lade_wire_find(map, key);
    if (!value)
        return preset;
    if (value->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return value->via.i64;
    if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER && value->via.u64 <= INT64_MAX)
        return (int64_t)value->via.u64;
    return preset;
}

double
lade_wire_real(const msgpack_object *map, const char *key, double preset)
{
    const msgpack_object *value = lade_wire_find(map, key);
    if (value && (value->type == MSGPACK_OBJECT_FLOAT64 || value->type == MSGPACK_OBJECT_FLOAT32))
        return value->via.f64;
    if (value && value->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        return (double)value->via.u64;
    if (value && value->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return (double)value->via.i64;
    return preset;
}

bool
lade_wire_bool(const msgpack_object *map, const char *key, bool preset)
{
    const msgpack_object *value = lade_wire_find(map, key);
    return value && value->type == MSGPACK_OBJECT_BOOLEAN ? value->via.boolean : preset;
}

bool
lade_wire_text(const msgpack_object *map, const char *key, const char **text, size_t *len)
{
    const msgpack_object *value = lade_wire_find(map, key);
    if (!value || value->type != MSGPACK_OBJECT_STR)
        return false;
    // msgpack-c leaves the pointer of empty text unset.
    *text = value->via.str.size ? value->via.str.ptr : "";
    *len = value->via.str.size;
    return true;
}

char *
lade_wire_strdup(const msgpack_object *map, const char *key)
{
    const char *text;
    size_t len;
    if (!lade_wire_text(map, key, &text, &len) || memchr(text, 0, len))
        return NULL;
    return strndup(text, len);
}

// ---------------------------------------------------------------------------------------------------
// Packing

static int
s_write(void *arg, const char *bytes, size_t len)
{
    lade_pack_t *self = arg;
    if (!self->error.code)
        lade_buf_add(self->buf, bytes, len, &self->error);
    return self->error.code ? -1 : 0;
}

void
lade_pack_open(lade_pack_t *self, lade_buf_t *buf)
{
    self->buf = buf;
    self->error = (lade_error_t){0};
    msgpack_packer_init(&self->pk, self, s_write);
}

void
lade_pack_map(lade_pack_t *self, size_t pairs)
{
    msgpack_pack_map(&self->pk, pairs);
}

void
lade_pack_array(lade_pack_t *self, size_t items)
{
    msgpack_pack_array(&self->pk, items);
}

void
lade_pack_strn(lade_pack_t *self, const char *text, size_t len)
{
    msgpack_pack_str(&self->pk, len);
    msgpack_pack_str_body(&self->pk, text, len);
}

void
lade_pack_str(lade_pack_t *self, const char *text)
{
    if (text)
        lade_pack_strn(self, text, strlen(text));
    else
        lade_pack_nil(self);
}

void
lade_pack_int(lade_pack_t *self, int64_t value)
{
    msgpack_pack_int64(&self->pk, value);
}

void
lade_pack_real(lade_pack_t *self, double value)
{
    msgpack_pack_double(&self->pk, value);
}

void
lade_pack_bool(lade_pack_t *self, bool value)
{
    if (value)
        msgpack_pack_true(&self->pk);
    else
        msgpack_pack_false(&self->pk);
}

void
lade_pack_nil(lade_pack_t *self)
{
    msgpack_pack_nil(&self->pk);
}

void
lade_pack_object(lade_pack_t *self, const msgpack_object *object)
{
    msgpack_pack_object(&self->pk, *object);
}

void
lade_pack_raw(lade_pack_t *self, const void *msgpack, size_t len)
{
    if (len)
        s_write(self, msgpack, len);
    else
        lade_pack_nil(self);
}

void
lade_pack_json(lade_pack_t *self, const json_t *value)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT: {
        lade_pack_map(self, json_object_size(value));
        const char *key;
        json_t *member;
        json_object_foreach((json_t *)value, key, member)
        {
            lade_pack_str(self, key);
            lade_pack_json(self, member);
        }
        return;
    }
    case JSON_ARRAY:
        lade_pack_array(self, json_array_size(value));
        for (size_t i = 0; i < json_array_size(value); i++)
            lade_pack_json(self, json_array_get(value, i));
        return;
    case JSON_STRING:
        lade_pack_strn(self, json_string_value(value), json_string_length(value));
        return;
    case JSON_INTEGER:
        lade_pack_int(self, json_integer_value(value));
        return;
    case JSON_REAL:
        lade_pack_real(self, json_real_value(value));
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        lade_pack_bool(self, json_is_true(value));
        return;
    case JSON_NULL:
        lade_pack_nil(self);
    }
}

lade_code_t
lade_pack_failed(const lade_pack_t *self, lade_error_t *error)
{
    if (self->error.code && error)
        *error = self->error;
    return self->error.code;
}

// ---------------------------------------------------------------------------------------------------
// To and from json_t

// Text of a map key that you free; NULL for what is no text or has a NUL inside.
static char *
s_key_text(const msgpack_object *key)
{
    if (key->type != MSGPACK_OBJECT_STR)
        return NULL;
    if (key->via.str.size == 0)
        return strdup("");
    return memchr(key->via.str.ptr, 0, key->via.str.size)
               ? NULL
               : strndup(key->via.str.ptr, key->via.str.size);
}

static json_t *
s_map_to_json(const msgpack_object *object)
{
    json_t *map = json_object();
    for (uint32_t i = 0; i < object->via.map.size; i++) {
        const msgpack_object_kv *pair = &object->via.map.ptr[i];
        char *key = s_key_text(&pair->key);
        json_t *value = key ? lade_wire_object_to_json(&pair->val) : NULL;
        if (!value || json_object_set_new_nocheck(map, key, value)) {
            free(key);
            json_decref(map);
            return NULL;
        }
        free(key);
    }
    return map;
}

static json_t *
s_array_to_json(const msgpack_object *object)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < object->via.array.size; i++) {
        json_t *value = lade_wire_object_to_json(&object->via.array.ptr[i]);
        if (!value || json_array_append_new(array, value)) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

json_t *
lade_wire_object_to_json(const msgpack_object *object)
{
    switch (object->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        return json_boolean(object->via.boolean);
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return object->via.u64 <= INT64_MAX ? json_integer((json_int_t)object->via.u64)
                                            : json_real((double)object->via.u64);
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return json_integer(object->via.i64);
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return isfinite(object->via.f64) ? json_real(object->via.f64) : json_null();
    case MSGPACK_OBJECT_STR:
        return json_stringn_nocheck(object->via.str.size ? object->via.str.ptr : "",
                                    object->via.str.size);
    case MSGPACK_OBJECT_BIN:
        return json_stringn_nocheck(object->via.bin.size ? object->via.bin.ptr : "",
                                    object->via.bin.size);
    case MSGPACK_OBJECT_ARRAY:
        return s_array_to_json(object);
    case MSGPACK_OBJECT_MAP:
        return s_map_to_json(object);
    default:
        return json_null();
    }
}

lade_code_t
lade_wire_to_json(const void *bytes, size_t len, json_t **value_p, lade_error_t *error)
{
    *value_p = NULL;
    lade_code_t code = lade_wire_check(bytes, len, error);
    if (code)
        return code;
    msgpack_zone zone;
    if (!msgpack_zone_init(&zone, 2048))
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to unpack a message");
    msgpack_object object;
    size_t at = 0;
    if (msgpack_unpack(bytes, len, &at, &zone, &object) >= 0)
        *value_p = lade_wire_object_to_json(&object);
    msgpack_zone_destroy(&zone);
    if (!*value_p)
        return lade_error_set(error, LADE_BAD_REQUEST, "the body has a map key that is no text");
    return LADE_OK;
}

lade_code_t
lade_wire_from_json(const json_t *value, lade_buf_t *buf, lade_error_t *error)
{
    lade_pack_t pack;
    lade_pack_open(&pack, buf);
    lade_pack_json(&pack, value);
    return lade_pack_failed(&pack, error);
}

const char *
lade_json_text(const json_t *object, const char *key, const char *preset)
{
    const json_t *value = json_object_get(object, key);
    return json_is_string(value) ? json_string_value(value) : preset;
}

int64_t
lade_json_int(const json_t *object, const char *key, int64_t preset)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : preset;
}

double
lade_json_real(const json_t *object, const char *key, double preset)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : preset;
}

bool
lade_json_bool(const json_t *object, const char *key, bool preset)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : preset;
}

double
lade_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int64_t
lade_mono_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
