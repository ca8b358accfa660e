// JSON as text: the public face of liblade's calls.
#include "client/request.h"
#include "common/wire.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Length of the UTF-8 character at text (left bytes of it), 0 if there is none.
static size_t
s_character(const uint8_t *text, size_t left)
{
    static const struct {
        uint8_t mask, head;
        uint32_t least;
    } kinds[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t i = 0; i < 4 && i < left; i++) {
        if ((text[0] & kinds[i].mask) != kinds[i].head)
            continue;
        uint32_t point = text[0] & (uint8_t)~kinds[i].mask;
        for (size_t j = 1; j <= i; j++) {
            if ((text[j] & 0xc0) != 0x80)
                return 0;
            point = point << 6 | (text[j] & 0x3f);
        }
        bool surrogate = point >= 0xd800 && point < 0xe000;
        return point < kinds[i].least || surrogate || point > 0x10ffff ? 0 : i + 1;
    }
    return 0;
}

// The bytes with what is no UTF-8 replaced; yours to free.
static char *
s_clean(const char *text, size_t len, size_t *clean_len)
{
    char *clean = malloc(len * 3 + 1);
    size_t out = 0;
    for (size_t at = 0; clean && at < len;) {
        size_t width = s_character((const uint8_t *)text + at, len - at);
        memcpy(clean + out, width ? text + at : "\xef\xbf\xbd", width ? width : 3);
        out += width ? width : 3;
        at += width ? width : 1;
    }
    *clean_len = out;
    return clean;
}

static json_t *
s_clean_string(const char *text, size_t len)
{
    size_t clean_len = 0;
    char *clean = s_clean(text, len, &clean_len);
    json_t *value = clean ? json_stringn(clean, clean_len) : json_null();
    free(clean);
    return value;
}

static json_t *
s_clean_copy(const json_t *value)
{
    if (json_is_string(value))
        return s_clean_string(json_string_value(value), json_string_length(value));
    if (json_is_array(value)) {
        json_t *array = json_array();
        for (size_t i = 0; i < json_array_size(value); i++)
            json_array_append_new(array, s_clean_copy(json_array_get(value, i)));
        return array;
    }
    if (!json_is_object(value))
        return json_incref((json_t *)value);
    json_t *map = json_object();
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)value, key, member)
    {
        size_t len;
        char *clean = s_clean(key, strlen(key), &len);
        if (clean) {
            clean[len] = '\0';
            json_object_set_new(map, clean, s_clean_copy(member));
        }
        free(clean);
    }
    return map;
}

char *
lade_request_text(const json_t *value)
{
    const size_t flags = JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(16);
    char *text = value ? json_dumps(value, flags) : strdup("null");
    if (text)
        return text;
    json_t *clean = s_clean_copy(value);
    text = json_dumps(clean, flags);
    json_decref(clean);
    return text ? text : strdup("null");
}

typedef struct {
    bool (*progress)(void *arg, const char *partial);
    void *arg;
} s_told_t;

static bool
s_tell(void *arg, const json_t *partial)
{
    s_told_t *told = arg;
    char *text = lade_request_text(partial);
    bool go_on = told->progress(told->arg, text);
    free(text);
    return go_on;
}

static lade_code_t
s_read_args(const char *args, json_t **args_p, lade_error_t *error)
{
    json_error_t where;
    *args_p = args && *args ? json_loads(args, 0, &where) : json_object();
    if (!*args_p)
        return lade_error_set(error, LADE_VALUE_ERROR, "the arguments are no JSON: %s", where.text);
    if (json_is_object(*args_p))
        return LADE_OK;
    json_decref(*args_p);
    *args_p = NULL;
    return lade_error_set(error, LADE_VALUE_ERROR, "the arguments have to be a JSON object");
}

lade_code_t
lade_call_progress(lade_t *self, const char *service, const char *op, const char *args,
                   bool (*progress)(void *arg, const char *partial), void *arg, char **result_p,
                   lade_error_t *error)
{
    if (result_p)
        *result_p = NULL;
    json_t *map, *result = NULL;
    lade_code_t code = s_read_args(args, &map, error);
    if (code)
        return code;
    s_told_t told = {progress, arg};
    code =
        lade_request_json(self, service, op, map, progress ? s_tell : NULL, &told, &result, error);
    if (!code && result_p)
        *result_p = lade_request_text(result);
    json_decref(result);
    return code;
}

lade_code_t
lade_call(lade_t *self, const char *service, const char *op, const char *args, char **result_p,
          lade_error_t *error)
{
    return lade_call_progress(self, service, op, args, NULL, NULL, result_p, error);
}
