// YAML nodes into values, with the line of each mistake.
#include "common/identify/rulefile.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------------------------------
// Errors and memory

lade_code_t
lade_rulefile_fail(lade_rulefile_t *reader, const yaml_node_t *node, const char *format, ...)
{
    char words[400];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    return lade_error_set(reader->error, LADE_CONFIG_ERROR, "%s:%zu: %s", reader->file,
                          node->start_mark.line + 1, words);
}

static lade_rulefile_block_t *
s_block(lade_rulefile_t *reader, size_t size)
{
    lade_rulefile_block_t *block = calloc(1, sizeof *block + size);
    if (!block)
        abort(); // rules are small, and without them nothing works
    block->next = *reader->blocks;
    *reader->blocks = block;
    return block;
}

void *
lade_rulefile_alloc(lade_rulefile_t *reader, size_t size)
{
    return s_block(reader, size)->data;
}

json_t *
lade_rulefile_keep(lade_rulefile_t *reader, json_t *value)
{
    s_block(reader, 0)->json = value;
    return value;
}

const char *
lade_rulefile_keep_text(lade_rulefile_t *reader, const char *text)
{
    return strcpy(lade_rulefile_alloc(reader, strlen(text) + 1), text);
}

// ---------------------------------------------------------------------------------------------------
// Nodes

yaml_node_t *
lade_rulefile_node(lade_rulefile_t *reader, int index)
{
    return yaml_document_get_node(reader->doc, index);
}

const char *
lade_rulefile_scalar(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

yaml_node_t *
lade_rulefile_find(lade_rulefile_t *reader, const yaml_node_t *map, const char *key)
{
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top;
         pair++) {
        const char *text = lade_rulefile_scalar(lade_rulefile_node(reader, pair->key));
        if (text && strcmp(text, key) == 0)
            return lade_rulefile_node(reader, pair->value);
    }
    return NULL;
}

// Every key of a map has to be one of a NULL-ended list, once.
lade_code_t
lade_rulefile_check_keys(lade_rulefile_t *reader, const yaml_node_t *map, const char *what,
                         const char *const *keys)
{
    if (map->type != YAML_MAPPING_NODE)
        return lade_rulefile_fail(reader, map, "%s has to be a map", what);
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top;
         pair++) {
        const yaml_node_t *key = lade_rulefile_node(reader, pair->key);
        const char *text = lade_rulefile_scalar(key);
        size_t i = 0;
        while (text && keys[i] && strcmp(keys[i], text) != 0)
            i++;
        if (!text || !keys[i])
            return lade_rulefile_fail(reader, key, "%s knows no '%s'", what,
                                      text ? text : "(list or map as a key)");
        if (lade_rulefile_find(reader, map, text) != lade_rulefile_node(reader, pair->value))
            return lade_rulefile_fail(reader, key, "'%s' is there twice", text);
    }
    return LADE_OK;
}

// A plain scalar is what it looks like: number, true, false, null; a quoted one is text.
json_t *
lade_rulefile_literal_scalar(const yaml_node_t *node)
{
    const char *text = lade_rulefile_scalar(node);
    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return json_string(text);
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
        return json_boolean(text[0] == 't');
    if (strcmp(text, "null") == 0 || strcmp(text, "~") == 0 || !*text)
        return json_null();
    char *end;
    errno = 0;
    long long whole = strtoll(text, &end, 10);
    if (!errno && !*end)
        return json_integer(whole);
    bool number = isdigit((unsigned char)text[0]) || text[0] == '-';
    double real = number ? strtod(text, &end) : 0;
    return number && !*end ? json_real(real) : json_string(text);
}

// Any YAML as JSON.
lade_code_t
lade_rulefile_literal(lade_rulefile_t *reader, const yaml_node_t *node, json_t **value_p)
{
    if (++reader->depth > LADE_RULEFILE_MAX_DEPTH)
        return lade_rulefile_fail(reader, node, "nested deeper than %d", LADE_RULEFILE_MAX_DEPTH);
    lade_code_t code = LADE_OK;
    json_t *value = NULL, *part;
    if (node->type == YAML_SCALAR_NODE) {
        value = lade_rulefile_literal_scalar(node);
    } else if (node->type == YAML_SEQUENCE_NODE) {
        value = json_array();
        for (yaml_node_item_t *item = node->data.sequence.items.start;
             !code && item < node->data.sequence.items.top; item++)
            if (!(code = lade_rulefile_literal(reader, lade_rulefile_node(reader, *item), &part)))
                json_array_append_new(value, part);
    } else {
        value = json_object();
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
             !code && pair < node->data.mapping.pairs.top; pair++) {
            const char *key = lade_rulefile_scalar(lade_rulefile_node(reader, pair->key));
            if (!key)
                code = lade_rulefile_fail(reader, node, "a key has to be a word");
            else if (!(code = lade_rulefile_literal(reader, lade_rulefile_node(reader, pair->value),
                                                    &part)))
                json_object_set_new(value, key, part);
        }
    }
    reader->depth--;
    if (code)
        json_decref(value);
    else
        *value_p = value;
    return code;
}

// A list of scalars, or one scalar as a list of one.
lade_code_t
lade_rulefile_list(lade_rulefile_t *reader, const yaml_node_t *node, bool texts, json_t **list_p)
{
    json_t *value, *list;
    lade_code_t code = lade_rulefile_literal(reader, node, &value);
    if (code)
        return code;
    list = lade_rulefile_keep(reader, json_is_array(value) ? value : json_pack("[o]", value));
    if (json_array_size(list) == 0 || json_array_size(list) > LADE_RULEFILE_MAX_LIST)
        return lade_rulefile_fail(reader, node, "a list of 1 to %d values is expected",
                                  LADE_RULEFILE_MAX_LIST);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (texts ? !json_is_string(item) : json_is_array(item) || json_is_object(item))
            return lade_rulefile_fail(reader, node,
                                      texts ? "text is expected" : "a single value is expected");
    }
    *list_p = list;
    return LADE_OK;
}

lade_code_t
lade_rulefile_text(lade_rulefile_t *reader, const yaml_node_t *node, const char **text_p)
{
    if (!lade_rulefile_scalar(node) || !*lade_rulefile_scalar(node))
        return lade_rulefile_fail(reader, node, "text is expected");
    *text_p = lade_rulefile_keep_text(reader, lade_rulefile_scalar(node));
    return LADE_OK;
}

lade_code_t
lade_rulefile_number(lade_rulefile_t *reader, const yaml_node_t *node, double *number_p)
{
    json_t *value = lade_rulefile_scalar(node) ? lade_rulefile_literal_scalar(node) : NULL;
    bool is_number = json_is_number(value);
    *number_p = json_number_value(value);
    json_decref(value);
    return is_number ? LADE_OK : lade_rulefile_fail(reader, node, "a number is expected");
}

lade_code_t
lade_rulefile_integer(lade_rulefile_t *reader, const yaml_node_t *node, int low, int high,
                      int *value_p)
{
    double number;
    lade_code_t code = lade_rulefile_number(reader, node, &number);
    if (!code && (number < low || number > high || number != (int)number))
        return lade_rulefile_fail(reader, node, "a whole number from %d to %d is expected", low,
                                  high);
    if (!code)
        *value_p = (int)number;
    return code;
}

enum { S_MAX_REGEX = 2000, S_MAX_PARENS = 32, S_MAX_STATES = 5000 };

// Past "{2,5}"; *times_p is how often what stands before it is copied.
static const char *
s_read_repeat(const char *at, long *times_p)
{
    *times_p = 1;
    while (*at && *at != '}') {
        long number = *at >= '0' && *at <= '9' ? strtol(at, (char **)&at, 10) : (at++, 0);
        *times_p = number > *times_p ? number : *times_p;
    }
    return *at ? at + 1 : at;
}

static const char *
s_past_bracket(const char *at)
{
    at += at[1] == '^' ? 2 : 1;
    at += *at == ']';
    while (*at && *at != ']')
        at++;
    return *at ? at + 1 : at;
}

// How many states an expression comes to, since one is compiled into a tree in which what is
// repeated is copied, a group in a group again and again. -1 for more than S_MAX_STATES, groups
// nested too deep, or a sign after a sign: "x++++" doubles with each.
static long
s_regex_states(const char *at)
{
    long sums[S_MAX_PARENS + 1] = {0}, last = 0, times;
    int depth = 0;
    bool repeats = false;
    for (bool sign; *at && sums[depth] <= S_MAX_STATES; repeats = sign) {
        sign = strchr("+*?{", *at) != NULL;
        if (*at == '(') {
            if (++depth > S_MAX_PARENS)
                return -1;
            sums[depth] = last = 0;
            at++;
        } else if (*at == ')' && depth) {
            last = sums[depth--] + 1;
            sums[depth] += last;
            at++;
        } else if (sign) {
            if (repeats)
                return -1;
            times = *at == '+' ? 2 : 1;
            at = *at == '{' ? s_read_repeat(at + 1, &times) : at + 1;
            times = times > S_MAX_STATES ? S_MAX_STATES : times;
            sums[depth] += last * (times - 1) + 1;
            last = last * times + 1;
        } else {
            at = *at == '[' ? s_past_bracket(at) : at + (*at == '\\' && at[1] ? 2 : 1);
            last = 1;
            sums[depth]++;
        }
    }
    bool whole = !*at && sums[depth] <= S_MAX_STATES;
    return whole ? sums[0] : -1;
}

// A reference to what was found before takes a time without bound.
static bool
s_refers_back(const char *at)
{
    for (; *at; at++)
        if (*at == '\\' && at[1]) {
            if (at[1] >= '1' && at[1] <= '9')
                return true;
            at++;
        }
    return false;
}

static lade_code_t
s_check_regex(lade_rulefile_t *reader, const yaml_node_t *node, const char *text)
{
    if (strlen(text) > S_MAX_REGEX)
        return lade_rulefile_fail(reader, node,
                                  "a regular expression of %zu bytes, %d are the most",
                                  strlen(text), S_MAX_REGEX);
    if (s_refers_back(text))
        return lade_rulefile_fail(
            reader, node, "regular expression '%.80s' refers to what it found before", text);
    if (s_regex_states(text) < 0)
        return lade_rulefile_fail(
            reader, node,
            "regular expression '%.80s' repeats what repeats: it comes to more "
            "than %d states",
            text, S_MAX_STATES);
    return LADE_OK;
}

lade_code_t
lade_rulefile_regex(lade_rulefile_t *reader, const yaml_node_t *node, int flags, regex_t **regex_p)
{
    const char *text;
    char problem[120];
    lade_code_t code = lade_rulefile_text(reader, node, &text);
    if (!code)
        code = s_check_regex(reader, node, text);
    if (code)
        return code;
    regex_t *regex = lade_rulefile_alloc(reader, sizeof *regex);
    int failed = regcomp(regex, text, REG_EXTENDED | REG_NOSUB | flags);
    if (failed) {
        regerror(failed, regex, problem, sizeof problem);
        return lade_rulefile_fail(reader, node, "regular expression '%s': %s", text, problem);
    }
    s_block(reader, 0)->regex = regex;
    *regex_p = regex;
    return LADE_OK;
}

void
lade_rulefile_free(lade_rulefile_block_t **blocks_p)
{
    for (lade_rulefile_block_t *block = *blocks_p; block; block = block->next) {
        json_decref(block->json);
        if (block->regex)
            regfree(block->regex);
    }
    for (lade_rulefile_block_t *block = *blocks_p, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *blocks_p = NULL;
}
