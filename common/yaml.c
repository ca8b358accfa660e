// YAML through libyaml's events: a walk that builds json_t, and one that emits it.
#include "common/yaml.h"

#include "common/path.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#define S_TAG "tag:yaml.org,2002:"

// ---------------------------------------------------------------------------------------------------
// Scalars

static bool
s_is_word(const char *text, const char *const *words)
{
    while (*words && strcmp(*words, text) != 0)
        words++;
    return *words != NULL;
}

static size_t
s_digits(const char *text, const char *which)
{
    return strspn(text, which);
}

// Whether the text is a decimal number, and of which kind: 'i', 'f', or 0.
static char
s_number_kind(const char *text)
{
    const char *at = text + (*text == '-' || *text == '+');
    size_t whole = s_digits(at, "0123456789"), part = 0;
    if (whole > 1 && *at == '0')
        return 0; // 0123: more likely a name than anything else
    if (whole && !at[whole])
        return 'i';
    at += whole;
    if (*at == '.') {
        part = s_digits(at + 1, "0123456789");
        at += 1 + part;
    }
    if (!whole && !part)
        return 0;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '-' || at[1] == '+');
        size_t power = s_digits(at, "0123456789");
        if (!power)
            return 0;
        at += power;
    }
    return *at ? 0 : 'f';
}

static json_t *
s_whole(const char *text, int base)
{
    errno = 0;
    long long value = strtoll(text, NULL, base);
    return errno ? NULL : json_integer(value);
}

// What a plain scalar is. NULL: a number that is too large for any of ours.
static json_t *
s_resolve(const char *text, size_t len)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", NULL};
    static const char *const no[] = {"false", "False", "FALSE", NULL};
    static const char *const odd[] = {".nan",  ".NaN",  ".NAN",  ".inf",  ".Inf",  ".INF", "+.inf",
                                      "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", NULL};
    if (s_is_word(text, nulls))
        return json_null();
    if (s_is_word(text, yes) || s_is_word(text, no))
        return json_boolean(s_is_word(text, yes));
    if (s_is_word(text, odd))
        return NULL;
    if (text[0] == '0' && text[1] == 'x' && len > 2 &&
        s_digits(text + 2, "0123456789abcdefABCDEF") == len - 2)
        return s_whole(text + 2, 16);
    if (text[0] == '0' && text[1] == 'o' && len > 2 && s_digits(text + 2, "01234567") == len - 2)
        return s_whole(text + 2, 8);
    char kind = s_number_kind(text);
    if (kind == 'i')
        return s_whole(text, 10);
    double value = kind == 'f' ? strtod(text, NULL) : 0;
    if (kind == 'f')
        return isfinite(value) ? json_real(value) : NULL;
    return json_stringn_nocheck(text, len);
}

static json_t *
s_from_base64(const char *text, size_t len)
{
    char *clean = malloc(len + 1);
    unsigned char *bytes = malloc(len + 4);
    size_t size = 0;
    if (!clean || !bytes)
        abort();
    for (size_t i = 0; i < len; i++)
        if (!strchr(" \t\r\n", text[i]))
            clean[size++] = text[i];
    int got = size <= INT32_MAX ? EVP_DecodeBlock(bytes, (unsigned char *)clean, (int)size) : -1;
    for (size_t i = size; got > 0 && i > 0 && i > size - 2 && clean[i - 1] == '='; i--)
        got--;
    json_t *value = got >= 0 ? json_stringn_nocheck((char *)bytes, (size_t)got) : NULL;
    free(clean);
    free(bytes);
    return value;
}

// ---------------------------------------------------------------------------------------------------
// Reading

typedef struct {
    const char *name;
    yaml_parser_t parser;
    json_t *anchors; // NAME: [value, how many values it is]
    json_t *lines;
    size_t values;
    lade_error_t *error;
} s_reader_t;

static size_t
s_line_of(const yaml_event_t *event)
{
    return event->start_mark.line + 1;
}

static lade_code_t
s_wrong(s_reader_t *self, const yaml_event_t *event, const char *what)
{
    return lade_error_set(self->error, LADE_CORRUPT, "%s:%zu: %s", self->name, s_line_of(event),
                          what);
}

static lade_code_t
s_next(s_reader_t *self, yaml_event_t *event)
{
    if (yaml_parser_parse(&self->parser, event))
        return LADE_OK;
    const yaml_parser_t *parser = &self->parser;
    size_t line =
        parser->error == YAML_READER_ERROR ? parser->mark.line : parser->problem_mark.line;
    const char *problem = parser->problem ? parser->problem : "this is no YAML";
    if (parser->error == YAML_READER_ERROR)
        return lade_error_set(self->error, LADE_CORRUPT,
                              "%s:%zu: %s (byte %zu): this is no YAML file", self->name, line + 1,
                              problem, parser->problem_offset);
    return lade_error_set(self->error, LADE_CORRUPT, "%s:%zu: %s%s%s", self->name, line + 1,
                          parser->context ? parser->context : "", parser->context ? ": " : "",
                          problem);
}

static lade_code_t
s_count(s_reader_t *self, const yaml_event_t *event, size_t values)
{
    self->values += values;
    if (self->values <= LADE_YAML_MAX_VALUES)
        return LADE_OK;
    return lade_error_set(self->error, LADE_TOO_LARGE, "%s:%zu: more than %d values", self->name,
                          s_line_of(event), LADE_YAML_MAX_VALUES);
}

static lade_code_t
s_scalar(s_reader_t *self, const yaml_event_t *event, json_t **value_p)
{
    static const struct {
        const char *tag;
        json_type types[2];
    } tags[] = {
        {S_TAG "int", {JSON_INTEGER, JSON_INTEGER}},
        {S_TAG "float", {JSON_REAL, JSON_INTEGER}},
        {S_TAG "bool", {JSON_TRUE, JSON_FALSE}},
        {S_TAG "null", {JSON_NULL, JSON_NULL}},
    };
    const char *text = (const char *)event->data.scalar.value;
    const char *tag = (const char *)event->data.scalar.tag;
    size_t len = event->data.scalar.length, row = 0;
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if ((!tag && !plain) || (tag && (!strcmp(tag, "!") || !strcmp(tag, S_TAG "str")))) {
        *value_p = json_stringn_nocheck(text, len);
        return LADE_OK;
    }
    if (tag && strcmp(tag, S_TAG "binary") == 0) {
        *value_p = s_from_base64(text, len);
        return *value_p ? LADE_OK : s_wrong(self, event, "!!binary: this is no base64");
    }
    *value_p = s_resolve(text, len);
    if (!*value_p)
        return s_wrong(self, event,
                       "a number that cannot be kept; if it is a text, put it in quotes");
    while (tag && row < 4 && strcmp(tags[row].tag, tag) != 0)
        row++;
    if (tag && (row == 4 || (json_typeof(*value_p) != tags[row].types[0] &&
                             json_typeof(*value_p) != tags[row].types[1]))) {
        json_decref(*value_p);
        *value_p = NULL;
        return s_wrong(self, event,
                       row == 4 ? "a tag that is not one of !!str, !!int, !!float, !!bool, "
                                  "!!null, !!binary"
                                : "the value is not what its tag says");
    }
    return LADE_OK;
}

static lade_code_t
s_alias(s_reader_t *self, const yaml_event_t *event, json_t **value_p)
{
    const json_t *anchor = json_object_get(self->anchors, (const char *)event->data.alias.anchor);
    if (!anchor)
        return s_wrong(self, event, "an alias of what is not there, or of itself");
    lade_code_t code = s_count(self, event, (size_t)json_integer_value(json_array_get(anchor, 1)));
    if (!code)
        *value_p = json_incref(json_array_get(anchor, 0));
    return code;
}

static lade_code_t s_value(s_reader_t *self, const yaml_event_t *event, int depth, const char *key,
                           json_t **value_p);

static lade_code_t
s_sequence(s_reader_t *self, int depth, json_t *list)
{
    for (;;) {
        yaml_event_t event;
        json_t *item = NULL;
        lade_code_t code = s_next(self, &event);
        if (code)
            return code;
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        if (!end)
            code = s_value(self, &event, depth + 1, NULL, &item);
        yaml_event_delete(&event);
        if (end || code)
            return code;
        json_array_append_new(list, item);
    }
}

static lade_code_t
s_check_key(s_reader_t *self, const yaml_event_t *event, const json_t *map)
{
    if (event->type != YAML_SCALAR_EVENT)
        return s_wrong(self, event, "a key has to be a word");
    const char *key = (const char *)event->data.scalar.value;
    if (strlen(key) != event->data.scalar.length)
        return s_wrong(self, event, "a key with a NUL in it");
    if (strcmp(key, "<<") == 0 && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        return s_wrong(self, event, "merging maps (<<) is not known here: write the members out");
    if (!json_object_get(map, key))
        return LADE_OK;
    return lade_error_set(self->error, LADE_CORRUPT, "%s:%zu: '%.80s' is there twice", self->name,
                          s_line_of(event), key);
}

// Notes where a member of the top map stands, or a member of that.
static void
s_note(s_reader_t *self, int depth, const char *above, const char *key, size_t line)
{
    if (!self->lines || depth > 1)
        return;
    if (depth == 0)
        json_object_set_new_nocheck(self->lines, key, json_pack("{s:I}", "", (json_int_t)line));
    else
        json_object_set_new_nocheck(json_object_get(self->lines, above), key,
                                    json_integer((json_int_t)line));
}

static lade_code_t
s_mapping(s_reader_t *self, int depth, const char *above, json_t *map)
{
    for (;;) {
        yaml_event_t event, next;
        json_t *value = NULL;
        lade_code_t code = s_next(self, &event);
        if (code)
            return code;
        bool end = event.type == YAML_MAPPING_END_EVENT;
        if (!end)
            code = s_check_key(self, &event, map);
        if (!end && !code)
            code = s_next(self, &next);
        if (!end && !code) {
            const char *key = (const char *)event.data.scalar.value;
            s_note(self, depth, above, key, s_line_of(&event));
            code = s_value(self, &next, depth + 1, key, &value);
            yaml_event_delete(&next);
            if (!code)
                json_object_set_new_nocheck(map, key, value);
        }
        yaml_event_delete(&event);
        if (end || code)
            return code;
    }
}

static lade_code_t
s_value(s_reader_t *self, const yaml_event_t *event, int depth, const char *key, json_t **value_p)
{
    size_t before = self->values;
    bool map = event->type == YAML_MAPPING_START_EVENT;
    const yaml_char_t *anchor = NULL;
    lade_code_t code = s_count(self, event, 1);
    if (!code && depth > LADE_YAML_MAX_DEPTH)
        code =
            lade_error_set(self->error, LADE_TOO_LARGE, "%s:%zu: maps and lists more than %d deep",
                           self->name, s_line_of(event), LADE_YAML_MAX_DEPTH);
    *value_p = NULL;
    if (code)
        return code;
    if (event->type == YAML_ALIAS_EVENT)
        return s_alias(self, event, value_p);
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        code = s_scalar(self, event, value_p);
    } else if (map || event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
        *value_p = map ? json_object() : json_array();
        code = map ? s_mapping(self, depth, key, *value_p) : s_sequence(self, depth, *value_p);
    }
    if (code) {
        json_decref(*value_p);
        *value_p = NULL;
    } else if (anchor) {
        json_object_set_new_nocheck(
            self->anchors, (const char *)anchor,
            json_pack("[O, I]", *value_p, (json_int_t)(self->values - before)));
    }
    return code;
}

static lade_code_t
s_document(s_reader_t *self, json_t **value_p)
{
    yaml_event_t event;
    bool begun = false, over = false;
    lade_code_t code = LADE_OK;
    while (!code && !over) {
        code = s_next(self, &event);
        if (code)
            break;
        over = event.type == YAML_STREAM_END_EVENT;
        if (event.type == YAML_DOCUMENT_START_EVENT && begun)
            code = s_wrong(self, &event, "a second document; one file holds one");
        else if (event.type == YAML_DOCUMENT_START_EVENT)
            begun = true;
        else if (event.type == YAML_SCALAR_EVENT || event.type == YAML_ALIAS_EVENT ||
                 event.type == YAML_SEQUENCE_START_EVENT || event.type == YAML_MAPPING_START_EVENT)
            code = s_value(self, &event, 0, NULL, value_p);
        yaml_event_delete(&event);
    }
    return code;
}

lade_code_t
lade_yaml_parse(const char *name, const void *text, size_t len, json_t **value_p, json_t **lines_p,
                lade_error_t *error)
{
    *value_p = NULL;
    if (lines_p)
        *lines_p = NULL;
    if (len > LADE_YAML_MAX_BYTES)
        return lade_error_set(error, LADE_TOO_LARGE, "%s has %zu bytes, and %d are taken", name,
                              len, LADE_YAML_MAX_BYTES);
    s_reader_t self = {.name = name, .anchors = json_object(), .error = error};
    if (lines_p)
        self.lines = json_object();
    if (!yaml_parser_initialize(&self.parser))
        abort();
    yaml_parser_set_input_string(&self.parser, text, len);
    lade_code_t code = s_document(&self, value_p);
    yaml_parser_delete(&self.parser);
    json_decref(self.anchors);
    if (code) {
        json_decref(*value_p);
        json_decref(self.lines);
        *value_p = NULL;
    } else if (lines_p) {
        *lines_p = self.lines;
    }
    return code;
}

static lade_code_t
s_read_input(char **data_p, size_t *len_p, lade_error_t *error)
{
    lade_buf_t text = LADE_BUF(LADE_YAML_MAX_BYTES);
    char piece[65536];
    lade_code_t code = LADE_OK;
    for (size_t len = 1; !code && len;) {
        len = fread(piece, 1, sizeof piece, stdin);
        code = lade_buf_add(&text, piece, len, error);
    }
    *len_p = text.len;
    *data_p = text.data ? lade_buf_take(&text) : strdup("");
    return code;
}

lade_code_t
lade_yaml_read(const char *path, json_t **value_p, json_t **lines_p, lade_error_t *error)
{
    char *data = NULL;
    size_t len = 0;
    bool input = strcmp(path, "-") == 0;
    *value_p = NULL;
    if (lines_p)
        *lines_p = NULL;
    lade_code_t code = input ? s_read_input(&data, &len, error)
                             : lade_path_read(path, LADE_YAML_MAX_BYTES, &data, &len, error);
    if (!code)
        code = lade_yaml_parse(input ? "standard input" : path, data, len, value_p, lines_p, error);
    free(data);
    return code;
}

int64_t
lade_yaml_line(const json_t *lines, const char *key, const char *field)
{
    const json_t *member = json_object_get(lines, key);
    const json_t *line = field ? json_object_get(member, field) : NULL;
    if (!line)
        line = json_object_get(member, "");
    return line ? json_integer_value(line) : 1;
}

// ---------------------------------------------------------------------------------------------------
// Writing

typedef struct {
    yaml_emitter_t emitter;
    lade_buf_t *buf;
    lade_error_t *error;
    lade_code_t code;
} s_writer_t;

static int
s_on_output(void *arg, unsigned char *bytes, size_t len)
{
    s_writer_t *self = arg;
    self->code = lade_buf_add(self->buf, bytes, len, self->error);
    return self->code == LADE_OK;
}

static bool
s_emit(s_writer_t *self, yaml_event_t *event)
{
    return yaml_emitter_emit(&self->emitter, event) == 1;
}

static bool
s_emit_scalar(s_writer_t *self, const char *tag, const char *text, size_t len,
              yaml_scalar_style_t style)
{
    yaml_event_t event;
    return yaml_scalar_event_initialize(&event, NULL, (const yaml_char_t *)tag,
                                        (const yaml_char_t *)text, (int)len, !tag, !tag,
                                        style) == 1 &&
           s_emit(self, &event);
}

// A text that every reader of YAML, old or new, takes for a text without quotes. What its
// characters forbid besides, libyaml sees to.
static bool
s_plain(const char *text, size_t len)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no",
                                        "on",   "off",  "y",     "n"};
    unsigned char first = (unsigned char)*text;
    bool letter = (first | 0x20) >= 'a' && (first | 0x20) <= 'z';
    if (!len || strlen(text) != len || !(letter || first == '/' || first == '_' || first >= 0x80))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(words[i], text) == 0)
            return false;
    return true;
}

// Lines that can stand as they are under `|`.
static bool
s_literal(const char *text, size_t len)
{
    if (!memchr(text, '\n', len) || strchr(" \t\n", *text))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\n') || c == 0x7f)
            return false;
        if (c == '\n' && (text[i - 1] == ' ' || (i + 1 < len && text[i + 1] == '\n')))
            return false; // what is at the end of a line, and empty lines, are lost on the way too
                          // easily
        if (c == 0xc2 || c == 0xe2 || c == 0xef)
            return false; // further line ends, spaces without width, byte order marks
    }
    return text[len - 1] != ' ';
}

static bool
s_write_text(s_writer_t *self, const char *text, size_t len)
{
    json_t *checked = json_stringn(text, len); // NULL unless it is UTF-8
    if (!checked) {
        char *base64 = malloc(len / 3 * 4 + 8);
        if (!base64)
            abort();
        int size = EVP_EncodeBlock((unsigned char *)base64, (const unsigned char *)text, (int)len);
        bool fine = s_emit_scalar(self, S_TAG "binary", base64, (size_t)size,
                                  YAML_DOUBLE_QUOTED_SCALAR_STYLE);
        free(base64);
        return fine;
    }
    json_decref(checked);
    yaml_scalar_style_t style = s_plain(text, len)     ? YAML_PLAIN_SCALAR_STYLE
                                : s_literal(text, len) ? YAML_LITERAL_SCALAR_STYLE
                                                       : YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    if (style == YAML_PLAIN_SCALAR_STYLE && memchr(text, '\n', len))
        style = s_literal(text, len) ? YAML_LITERAL_SCALAR_STYLE : YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    return s_emit_scalar(self, NULL, text, len, style);
}

// The shortest digits that are this number again, and look like one with a fraction to everybody.
static bool
s_write_real(s_writer_t *self, double value)
{
    char text[64];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    if (!strpbrk(text, ".")) {
        size_t whole = strcspn(text, "e");
        memmove(text + whole + 2, text + whole, strlen(text + whole) + 1);
        memcpy(text + whole, ".0", 2);
    }
    return s_emit_scalar(self, NULL, text, strlen(text), YAML_PLAIN_SCALAR_STYLE);
}

static bool
s_write(s_writer_t *self, const json_t *value)
{
    yaml_event_t event;
    const char *key;
    json_t *member;
    char text[32];
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE);
        if (!s_emit(self, &event))
            return false;
        json_object_foreach((json_t *)value, key, member)
        {
            if (!s_write_text(self, key, strlen(key)) || !s_write(self, member))
                return false;
        }
        yaml_mapping_end_event_initialize(&event);
        return s_emit(self, &event);
    case JSON_ARRAY:
        yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE);
        if (!s_emit(self, &event))
            return false;
        for (size_t i = 0; i < json_array_size(value); i++)
            if (!s_write(self, json_array_get(value, i)))
                return false;
        yaml_sequence_end_event_initialize(&event);
        return s_emit(self, &event);
    case JSON_STRING:
        return s_write_text(self, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return s_emit_scalar(self, NULL, text, strlen(text), YAML_PLAIN_SCALAR_STYLE);
    case JSON_REAL:
        return s_write_real(self, json_real_value(value));
    default:
        snprintf(text, sizeof text, "%s",
                 json_is_null(value)   ? "null"
                 : json_is_true(value) ? "true"
                                       : "false");
        return s_emit_scalar(self, NULL, text, strlen(text), YAML_PLAIN_SCALAR_STYLE);
    }
}

lade_code_t
lade_yaml_write(const json_t *value, lade_buf_t *buf, lade_error_t *error)
{
    s_writer_t self = {.buf = buf, .error = error};
    yaml_event_t event;
    if (!yaml_emitter_initialize(&self.emitter))
        abort();
    yaml_emitter_set_output(&self.emitter, s_on_output, &self);
    yaml_emitter_set_unicode(&self.emitter, 1);
    yaml_emitter_set_width(&self.emitter, -1);
    yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING);
    bool fine = s_emit(&self, &event);
    yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1);
    fine = fine && s_emit(&self, &event) && s_write(&self, value);
    if (fine) {
        yaml_document_end_event_initialize(&event, 1);
        fine = s_emit(&self, &event);
    }
    if (fine) {
        yaml_stream_end_event_initialize(&event);
        fine = s_emit(&self, &event) && yaml_emitter_flush(&self.emitter) == 1;
    }
    if (!fine && !self.code)
        self.code =
            lade_error_set(error, LADE_VALUE_ERROR, "this cannot be written as YAML: %s",
                           self.emitter.problem ? self.emitter.problem : "libyaml refuses it");
    yaml_emitter_delete(&self.emitter);
    return self.code;
}
