// The reader of family files: YAML into rules, each mistake an error with file and line.
#include "common/identify/families.h"

#include "common/identify/predicates.h"
#include "common/record.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { S_MAX_FILE = 1 << 20, S_MAX_RULES = 10000, S_MAX_DEPTH = 16, S_MAX_LIST = 1000 };

// What is allocated while reading, in blocks that live as long as the rules.
typedef struct s_block s_block_t;
struct s_block {
    s_block_t *next;
    json_t *json; // a value to let go
    regex_t *regex;
    max_align_t data[];
};

struct lade_families {
    lade_rule_t *rules;
    size_t count;
    json_t *names; // of the families read, with rules or without
    s_block_t *blocks;
};

// Where the reader is.
typedef struct {
    lade_families_t *families;
    yaml_document_t *doc;
    const char *file;
    int depth;
    lade_error_t *error;
} s_reader_t;

// ---------------------------------------------------------------------------------------------------
// Errors and memory

static lade_code_t s_fail(s_reader_t *reader, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static lade_code_t
s_fail(s_reader_t *reader, const yaml_node_t *node, const char *format, ...)
{
    char words[400];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    return lade_error_set(reader->error, LADE_CONFIG_ERROR, "%s:%zu: %s", reader->file,
                          node->start_mark.line + 1, words);
}

static s_block_t *
s_block(lade_families_t *self, size_t size)
{
    s_block_t *block = calloc(1, sizeof *block + size);
    if (!block)
        abort(); // rules are small, and without them nothing works
    block->next = self->blocks;
    self->blocks = block;
    return block;
}

static void *
s_alloc(s_reader_t *reader, size_t size)
{
    return s_block(reader->families, size)->data;
}

static json_t *
s_keep(s_reader_t *reader, json_t *value)
{
    s_block(reader->families, 0)->json = value;
    return value;
}

static const char *
s_keep_text(s_reader_t *reader, const char *text)
{
    return strcpy(s_alloc(reader, strlen(text) + 1), text);
}

// ---------------------------------------------------------------------------------------------------
// Nodes

static yaml_node_t *
s_node(s_reader_t *reader, int index)
{
    return yaml_document_get_node(reader->doc, index);
}

static const char *
s_scalar(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static yaml_node_t *
s_find(s_reader_t *reader, const yaml_node_t *map, const char *key)
{
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top;
         pair++) {
        const char *text = s_scalar(s_node(reader, pair->key));
        if (text && strcmp(text, key) == 0)
            return s_node(reader, pair->value);
    }
    return NULL;
}

// Every key of a map has to be one of a NULL-ended list, once.
static lade_code_t
s_check_keys(s_reader_t *reader, const yaml_node_t *map, const char *what, const char *const *keys)
{
    if (map->type != YAML_MAPPING_NODE)
        return s_fail(reader, map, "%s has to be a map", what);
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top;
         pair++) {
        const yaml_node_t *key = s_node(reader, pair->key);
        const char *text = s_scalar(key);
        size_t i = 0;
        while (text && keys[i] && strcmp(keys[i], text) != 0)
            i++;
        if (!text || !keys[i])
            return s_fail(reader, key, "%s knows no '%s'", what,
                          text ? text : "(list or map as a key)");
        if (s_find(reader, map, text) != s_node(reader, pair->value))
            return s_fail(reader, key, "'%s' is there twice", text);
    }
    return LADE_OK;
}

// A plain scalar is what it looks like: number, true, false, null; a quoted one is text.
static json_t *
s_literal_scalar(const yaml_node_t *node)
{
    const char *text = s_scalar(node);
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
static lade_code_t
s_literal(s_reader_t *reader, const yaml_node_t *node, json_t **value_p)
{
    if (++reader->depth > S_MAX_DEPTH)
        return s_fail(reader, node, "nested deeper than %d", S_MAX_DEPTH);
    lade_code_t code = LADE_OK;
    json_t *value = NULL, *part;
    if (node->type == YAML_SCALAR_NODE) {
        value = s_literal_scalar(node);
    } else if (node->type == YAML_SEQUENCE_NODE) {
        value = json_array();
        for (yaml_node_item_t *item = node->data.sequence.items.start;
             !code && item < node->data.sequence.items.top; item++)
            if (!(code = s_literal(reader, s_node(reader, *item), &part)))
                json_array_append_new(value, part);
    } else {
        value = json_object();
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
             !code && pair < node->data.mapping.pairs.top; pair++) {
            const char *key = s_scalar(s_node(reader, pair->key));
            if (!key)
                code = s_fail(reader, node, "a key has to be a word");
            else if (!(code = s_literal(reader, s_node(reader, pair->value), &part)))
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
static lade_code_t
s_list(s_reader_t *reader, const yaml_node_t *node, bool texts, json_t **list_p)
{
    json_t *value, *list;
    lade_code_t code = s_literal(reader, node, &value);
    if (code)
        return code;
    list = s_keep(reader, json_is_array(value) ? value : json_pack("[o]", value));
    if (json_array_size(list) == 0 || json_array_size(list) > S_MAX_LIST)
        return s_fail(reader, node, "a list of 1 to %d values is expected", S_MAX_LIST);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (texts ? !json_is_string(item) : json_is_array(item) || json_is_object(item))
            return s_fail(reader, node, texts ? "text is expected" : "a single value is expected");
    }
    *list_p = list;
    return LADE_OK;
}

static lade_code_t
s_text(s_reader_t *reader, const yaml_node_t *node, const char **text_p)
{
    if (!s_scalar(node) || !*s_scalar(node))
        return s_fail(reader, node, "text is expected");
    *text_p = s_keep_text(reader, s_scalar(node));
    return LADE_OK;
}

static lade_code_t
s_number(s_reader_t *reader, const yaml_node_t *node, double *number_p)
{
    json_t *value = s_scalar(node) ? s_literal_scalar(node) : NULL;
    bool is_number = json_is_number(value);
    *number_p = json_number_value(value);
    json_decref(value);
    return is_number ? LADE_OK : s_fail(reader, node, "a number is expected");
}

static lade_code_t
s_integer(s_reader_t *reader, const yaml_node_t *node, int low, int high, int *value_p)
{
    double number;
    lade_code_t code = s_number(reader, node, &number);
    if (!code && (number < low || number > high || number != (int)number))
        return s_fail(reader, node, "a whole number from %d to %d is expected", low, high);
    if (!code)
        *value_p = (int)number;
    return code;
}

static lade_code_t
s_regex(s_reader_t *reader, const yaml_node_t *node, int flags, regex_t **regex_p)
{
    const char *text;
    char problem[120];
    lade_code_t code = s_text(reader, node, &text);
    if (code)
        return code;
    regex_t *regex = s_alloc(reader, sizeof *regex);
    int failed = regcomp(regex, text, REG_EXTENDED | REG_NOSUB | flags);
    if (failed) {
        regerror(failed, regex, problem, sizeof problem);
        return s_fail(reader, node, "regular expression '%s': %s", text, problem);
    }
    s_block(reader->families, 0)->regex = regex;
    *regex_p = regex;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Patterns

static lade_code_t
s_pattern(s_reader_t *reader, const yaml_node_t *node, lade_pattern_t **pattern_p)
{
    static const char *const keys[] = {"exact", "prefix", "suffix", "contains",
                                       "regex", "except", NULL};
    lade_pattern_t *self = *pattern_p = s_alloc(reader, sizeof *self);
    if (node->type != YAML_MAPPING_NODE) // a name or a list of names
        return s_list(reader, node, true, &self->exact);
    if (++reader->depth > S_MAX_DEPTH)
        return s_fail(reader, node, "nested deeper than %d", S_MAX_DEPTH);
    json_t **lists[] = {&self->exact, &self->prefix, &self->suffix, &self->contains};
    lade_code_t code = s_check_keys(reader, node, "a pattern", keys);
    const yaml_node_t *part;
    for (size_t i = 0; !code && i < sizeof lists / sizeof *lists; i++)
        if ((part = s_find(reader, node, keys[i])))
            code = s_list(reader, part, true, lists[i]);
    if (!code && (part = s_find(reader, node, "regex")))
        code = s_regex(reader, part, 0, &self->regex);
    if (!code && (part = s_find(reader, node, "except")))
        code = s_pattern(reader, part, &self->except);
    reader->depth--;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Sources

static lade_code_t
s_source_pattern(s_reader_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    return s_pattern(reader, node, &self->pattern);
}

static lade_code_t
s_source_names(s_reader_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    return s_list(reader, node, true, &self->names);
}

static lade_code_t
s_source_name(s_reader_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    lade_code_t code = s_list(reader, node, true, &self->names);
    const char *which = json_string_value(json_array_get(self->names, 0));
    if (!code && strcmp(which, "own") != 0 && strcmp(which, "parent") != 0)
        return s_fail(reader, node, "name is 'own' or 'parent', not '%s'", which);
    return code;
}

static lade_code_t
s_source_predicate(s_reader_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    lade_code_t code = s_list(reader, node, true, &self->names);
    const char *name = json_string_value(json_array_get(self->names, 0));
    for (self->predicate = 0; !code && lade_predicates[self->predicate].name; self->predicate++)
        if (strcmp(lade_predicates[self->predicate].name, name) == 0)
            return LADE_OK;
    return code ? code : s_fail(reader, node, "there is no predicate '%s'", name);
}

enum { S_FILE = 1, S_FOLDER = 2 };

static const struct {
    const char *key;
    lade_source_kind_t kind;
    int about; // files, folders, both
    lade_code_t (*read)(s_reader_t *reader, const yaml_node_t *node, lade_source_t *self);
} s_sources[] = {
    // clang-format off
    {"key",       LADE_SOURCE_KEY,       S_FILE,            s_source_pattern},
    {"scalar",    LADE_SOURCE_SCALAR,    S_FILE,            s_source_names},
    {"metadata",  LADE_SOURCE_METADATA,  S_FILE,            s_source_names},
    {"name",      LADE_SOURCE_NAME,      S_FILE | S_FOLDER, s_source_name},
    {"exists",    LADE_SOURCE_EXISTS,    S_FOLDER,          s_source_names},
    {"json",      LADE_SOURCE_JSON,      S_FOLDER,          s_source_names},
    {"class",     LADE_SOURCE_CLASS,     S_FOLDER,          s_source_names},
    {"inside",    LADE_SOURCE_INSIDE,    S_FOLDER,          s_source_names},
    {"field",     LADE_SOURCE_FIELD,     S_FILE | S_FOLDER, s_source_names},
    {"predicate", LADE_SOURCE_PREDICATE, S_FILE | S_FOLDER, s_source_predicate},
    // clang-format on
};
enum { S_SOURCES = sizeof s_sources / sizeof *s_sources };

static lade_code_t
s_take(s_reader_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    static const struct {
        const char *name;
        lade_take_t take;
    } rows[] = {{"rank", LADE_TAKE_RANK}, {"dtype", LADE_TAKE_DTYPE}, {"count", LADE_TAKE_COUNT}};
    const char *text = s_scalar(node) ? s_scalar(node) : "";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, text) == 0) {
            self->take = rows[i].take;
            return LADE_OK;
        }
    return s_fail(reader, node, "take is rank, dtype or count, not '%s'", text);
}

// axis, take, at, as: each belongs to some kinds of source.
static lade_code_t
s_source_options(s_reader_t *reader, const yaml_node_t *map, lade_source_t *self)
{
    const yaml_node_t *axis = s_find(reader, map, "axis"), *take = s_find(reader, map, "take");
    const yaml_node_t *at = s_find(reader, map, "at"), *as = s_find(reader, map, "as");
    bool has_path = self->kind == LADE_SOURCE_JSON || self->kind == LADE_SOURCE_INSIDE;
    lade_code_t code = LADE_OK;
    if ((axis || take) && self->kind != LADE_SOURCE_KEY)
        return s_fail(reader, axis ? axis : take, "axis and take go with key");
    if (axis && take)
        return s_fail(reader, take, "axis and take exclude each other");
    if (at && !has_path)
        return s_fail(reader, at, "at goes with json and inside");
    if ((as != NULL) != (self->kind == LADE_SOURCE_INSIDE))
        return s_fail(reader, as ? as : map, "inside takes as: the type the file inside has to be");
    if (axis) {
        self->take = LADE_TAKE_AXIS;
        code =
            s_integer(reader, axis, -LADE_TENSOR_MAX_RANK, LADE_TENSOR_MAX_RANK - 1, &self->axis);
    }
    if (!code && take)
        code = s_take(reader, take, self);
    if (!code && at)
        code = s_text(reader, at, &self->at);
    if (!code && as)
        code = s_text(reader, as, &self->as);
    if (!code && as && !lade_enum_has(LADE_ENUM_TYPE, self->as))
        return s_fail(reader, as, "'%s' is no model type", self->as);
    return code;
}

// The source a map names, LADE_SOURCE_NONE if it names none.
static lade_code_t
s_source(s_reader_t *reader, const yaml_node_t *map, bool folder, lade_source_t *self)
{
    for (size_t i = 0; i < S_SOURCES; i++) {
        const yaml_node_t *node = s_find(reader, map, s_sources[i].key);
        if (!node)
            continue;
        if (self->kind)
            return s_fail(reader, node,
                          "only one of key, metadata, json, … at a time; take two entries");
        if (!(s_sources[i].about & (folder ? S_FOLDER : S_FILE)))
            return s_fail(reader, node, "'%s' cannot be asked of a %s", s_sources[i].key,
                          folder ? "folder" : "file");
        self->kind = s_sources[i].kind;
        lade_code_t code = s_sources[i].read(reader, node, self);
        if (code)
            return code;
        if (self->kind == LADE_SOURCE_PREDICATE &&
            lade_predicates[self->predicate].folder != folder)
            return s_fail(reader, node, "this predicate cannot be asked of a %s",
                          folder ? "folder" : "file");
    }
    return s_source_options(reader, map, self);
}

// ---------------------------------------------------------------------------------------------------
// Conditions

#define S_SOURCE_KEYS                                                                              \
    "key", "scalar", "metadata", "name", "exists", "json", "class", "inside", "field",             \
        "predicate", "axis", "take", "at", "as"

static lade_code_t s_conditions(s_reader_t *reader, const yaml_node_t *node, bool folder,
                                lade_condition_t **list_p, size_t *count_p);

static lade_code_t
s_check(s_reader_t *reader, const yaml_node_t *map, lade_condition_t *self)
{
    const yaml_node_t *node;
    lade_code_t code = LADE_OK;
    if ((node = s_find(reader, map, "is")))
        code = s_list(reader, node, false, &self->check.is);
    if (!code && (node = s_find(reader, map, "matches")))
        code = s_regex(reader, node, REG_ICASE, &self->check.matches);
    if (!code && (node = s_find(reader, map, "every"))) {
        if (self->source.kind != LADE_SOURCE_KEY)
            return s_fail(reader, node, "every goes with key");
        code = s_pattern(reader, node, &self->check.every);
    }
    if (!code && (node = s_find(reader, map, "min"))) {
        self->check.has_min = true;
        code = s_number(reader, node, &self->check.min);
    }
    if (!code && (node = s_find(reader, map, "max"))) {
        self->check.has_max = true;
        code = s_number(reader, node, &self->check.max);
    }
    return code;
}

// any: [...], all: [...], not: {...} or [...].
static lade_code_t
s_group(s_reader_t *reader, const yaml_node_t *map, bool folder, lade_condition_t *self)
{
    static const struct {
        const char *key;
        lade_when_t kind;
    } rows[] = {{"any", LADE_WHEN_ANY}, {"all", LADE_WHEN_ALL}, {"not", LADE_WHEN_NOT}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const yaml_node_t *node = s_find(reader, map, rows[i].key);
        if (!node)
            continue;
        if (self->kind || map->data.mapping.pairs.top - map->data.mapping.pairs.start > 1)
            return s_fail(reader, node, "any, all and not stand alone in their entry");
        self->kind = rows[i].kind;
        lade_code_t code = s_conditions(reader, node, folder, &self->children, &self->count);
        if (code)
            return code;
    }
    return LADE_OK;
}

static lade_code_t
s_condition(s_reader_t *reader, const yaml_node_t *map, bool folder, lade_condition_t *self)
{
    static const char *const keys[] = {S_SOURCE_KEYS, "is",  "matches", "every", "min",
                                       "max",         "any", "all",     "not",   NULL};
    lade_code_t code = s_check_keys(reader, map, "a condition", keys);
    if (!code)
        code = s_group(reader, map, folder, self);
    if (code || self->kind)
        return code;
    code = s_source(reader, map, folder, &self->source);
    if (!code && !self->source.kind)
        return s_fail(reader, map, "a condition needs key, metadata, name, exists, json, class, …");
    return code ? code : s_check(reader, map, self);
}

static lade_code_t
s_conditions(s_reader_t *reader, const yaml_node_t *node, bool folder, lade_condition_t **list_p,
             size_t *count_p)
{
    bool one = node->type == YAML_MAPPING_NODE;
    size_t count = one ? 1 : 0;
    if (node->type == YAML_SEQUENCE_NODE)
        count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (count == 0 || count > S_MAX_LIST)
        return s_fail(reader, node, "a list of conditions is expected");
    if (++reader->depth > S_MAX_DEPTH)
        return s_fail(reader, node, "nested deeper than %d", S_MAX_DEPTH);
    lade_condition_t *list = s_alloc(reader, count * sizeof *list);
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < count; i++)
        code = s_condition(reader, one ? node : s_node(reader, node->data.sequence.items.start[i]),
                           folder, &list[i]);
    reader->depth--;
    *list_p = list;
    *count_p = count;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Values

static lade_code_t s_value(s_reader_t *reader, const yaml_node_t *node, bool folder,
                           lade_value_t *self);

static lade_code_t
s_map(s_reader_t *reader, const yaml_node_t *node, lade_value_t *self)
{
    if (node->type != YAML_MAPPING_NODE)
        return s_fail(reader, node, "map takes a map of found to meant");
    self->from = s_keep(reader, json_array());
    self->to = s_keep(reader, json_array());
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = s_node(reader, pair->key), *value = s_node(reader, pair->value);
        if (!s_scalar(key) || !s_scalar(value))
            return s_fail(reader, key, "map takes single values");
        json_array_append_new(self->from, s_literal_scalar(key));
        json_array_append_new(self->to, s_literal_scalar(value));
    }
    return LADE_OK;
}

static lade_code_t
s_choice(s_reader_t *reader, const yaml_node_t *map, bool folder, lade_choice_t *self)
{
    static const char *const keys[] = {"when", "then", NULL};
    lade_code_t code = s_check_keys(reader, map, "an entry of first", keys);
    const yaml_node_t *when = code ? NULL : s_find(reader, map, "when");
    const yaml_node_t *then = code ? NULL : s_find(reader, map, "then");
    if (!code && !then)
        return s_fail(reader, map, "an entry of first needs then");
    if (!code && when)
        code = s_conditions(reader, when, folder, &self->when, &self->count);
    if (code)
        return code;
    self->then = s_alloc(reader, sizeof *self->then);
    return s_value(reader, then, folder, self->then);
}

static lade_code_t
s_first(s_reader_t *reader, const yaml_node_t *node, bool folder, lade_value_t *self)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return s_fail(reader, node, "first takes a list");
    self->first_count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (self->first_count > S_MAX_LIST)
        return s_fail(reader, node, "first takes %d entries at most", S_MAX_LIST);
    self->first = s_alloc(reader, self->first_count * sizeof *self->first);
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < self->first_count; i++)
        code = s_choice(reader, s_node(reader, node->data.sequence.items.start[i]), folder,
                        &self->first[i]);
    return code;
}

static lade_code_t
s_constant(s_reader_t *reader, const yaml_node_t *node, json_t **value_p)
{
    json_t *value;
    lade_code_t code = s_literal(reader, node, &value);
    if (!code)
        *value_p = s_keep(reader, value);
    return code;
}

static lade_code_t
s_value_parts(s_reader_t *reader, const yaml_node_t *node, bool folder, lade_value_t *self)
{
    const yaml_node_t *part;
    lade_code_t code = s_source(reader, node, folder, &self->source);
    if (!code && (part = s_find(reader, node, "map")))
        code = s_map(reader, part, self);
    if (!code && (part = s_find(reader, node, "first")))
        code = s_first(reader, part, folder, self);
    if (!code && (part = s_find(reader, node, "default"))) {
        self->fallback = s_alloc(reader, sizeof *self->fallback);
        code = s_value(reader, part, folder, self->fallback);
    }
    if (!code && (part = s_find(reader, node, "value")))
        code = s_constant(reader, part, &self->constant);
    if (!code && (part = s_find(reader, node, "may_be")))
        code = s_list(reader, part, false, &self->may_be);
    if (!code && (part = s_find(reader, node, "optional")))
        self->optional = s_scalar(part) && strcmp(s_scalar(part), "true") == 0;
    if (!code && (self->source.kind != 0) + (self->first != NULL) + (self->constant != NULL) > 1)
        return s_fail(reader, node, "a source, first and value exclude each other");
    if (!code && self->from && !self->source.kind)
        return s_fail(reader, node, "map needs a source to map");
    return code;
}

static lade_code_t
s_value(s_reader_t *reader, const yaml_node_t *node, bool folder, lade_value_t *self)
{
    static const char *const keys[] = {S_SOURCE_KEYS, "map",    "first",    "default",
                                       "value",       "may_be", "optional", NULL};
    if (node->type == YAML_SCALAR_NODE)
        return s_constant(reader, node, &self->constant);
    if (++reader->depth > S_MAX_DEPTH)
        return s_fail(reader, node, "nested deeper than %d", S_MAX_DEPTH);
    lade_code_t code = s_check_keys(reader, node, "a value", keys);
    if (!code)
        code = s_value_parts(reader, node, folder, self);
    reader->depth--;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Fields

static const struct {
    const char *name;
    int values; // the enumeration its values are of, -1 for any
} s_fields[] = {
    {"type", LADE_ENUM_TYPE},
    {"base", LADE_ENUM_BASE},
    {"format", LADE_ENUM_FORMAT},
    {"variant", -1}, // each family has its own
    {"prediction_type", LADE_ENUM_PREDICTION},
    {"repo_variant", LADE_ENUM_REPO_VARIANT},
    {"upcast_attention", -1},
    {"submodels", -1},
    {"default_settings", -1},
    {"image_encoder_model_id", -1},
};
enum { S_FIELDS = sizeof s_fields / sizeof *s_fields };

static size_t
s_field_row(const char *name)
{
    size_t row = 0;
    while (row < S_FIELDS && strcmp(s_fields[row].name, name) != 0)
        row++;
    return row;
}

static lade_code_t
s_check_word(s_reader_t *reader, const yaml_node_t *node, const char *field, const json_t *value)
{
    int values = s_fields[s_field_row(field)].values;
    const char *word = json_string_value(value);
    if (!value || values < 0 || (word && lade_enum_has((lade_enum_t)values, word)))
        return LADE_OK;
    return s_fail(reader, node, "'%s' is no %s", word ? word : "(not a text)", field);
}

// Every word a value can become has to be one its field knows.
static lade_code_t
s_check_words(s_reader_t *reader, const yaml_node_t *node, const char *field,
              const lade_value_t *value)
{
    lade_code_t code = s_check_word(reader, node, field, value->constant);
    if (!code && value->fallback)
        code = s_check_words(reader, node, field, value->fallback);
    for (size_t i = 0; !code && i < json_array_size(value->to); i++)
        code = s_check_word(reader, node, field, json_array_get(value->to, i));
    for (size_t i = 0; !code && i < json_array_size(value->may_be); i++)
        code = s_check_word(reader, node, field, json_array_get(value->may_be, i));
    for (size_t i = 0; !code && i < value->first_count; i++)
        code = s_check_words(reader, node, field, value->first[i].then);
    return code;
}

static bool
s_is_word(const char *text)
{
    return text && *text && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(text);
}

// set: known fields; also: fields of a family's own.
static lade_code_t
s_add_field(s_reader_t *reader, const yaml_node_t *key, const yaml_node_t *node, bool own,
            lade_rule_t *rule)
{
    const char *name = s_scalar(key);
    bool known = name && s_field_row(name) < S_FIELDS;
    if (!s_is_word(name))
        return s_fail(reader, key, "a field is a word of a-z, 0-9 and _");
    if (own == known)
        return s_fail(reader, key,
                      known ? "'%s' belongs under set"
                            : "there is no field '%s'; fields of a "
                              "family's own go under also",
                      name);
    lade_field_t *field = &rule->fields[rule->field_count++];
    field->name = s_keep_text(reader, name);
    lade_code_t code = s_value(reader, node, rule->folder, &field->value);
    return code || own ? code : s_check_words(reader, node, name, &field->value);
}

static lade_code_t
s_add_fields(s_reader_t *reader, const yaml_node_t *map, bool own, lade_rule_t *rule)
{
    if (map->type != YAML_MAPPING_NODE)
        return s_fail(reader, map, "a map of fields is expected");
    lade_code_t code = LADE_OK;
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start;
         !code && pair < map->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = s_node(reader, pair->key);
        const char *name = s_scalar(key);
        if (name && s_find(reader, map, name) != s_node(reader, pair->value))
            return s_fail(reader, key, "'%s' is there twice", name);
        code = s_add_field(reader, key, s_node(reader, pair->value), own, rule);
    }
    return code;
}

static size_t
s_pairs(const yaml_node_t *map)
{
    return map && map->type == YAML_MAPPING_NODE
               ? (size_t)(map->data.mapping.pairs.top - map->data.mapping.pairs.start)
               : 0;
}

static lade_code_t
s_set(s_reader_t *reader, const yaml_node_t *map, lade_rule_t *rule)
{
    static const char *const needed[] = {"type", "base", "format"};
    const yaml_node_t *set = s_find(reader, map, "set"), *also = s_find(reader, map, "also");
    if (!set)
        return s_fail(reader, map, "rule '%s' has no set", rule->name);
    rule->fields = s_alloc(reader, (s_pairs(set) + s_pairs(also) + 1) * sizeof *rule->fields);
    lade_code_t code = s_add_fields(reader, set, false, rule);
    if (!code && also)
        code = s_add_fields(reader, also, true, rule);
    for (size_t i = 0; !code && i < sizeof needed / sizeof *needed; i++)
        if (!s_find(reader, set, needed[i]))
            return s_fail(reader, set, "rule '%s' does not set %s", rule->name, needed[i]);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Rules

static lade_code_t
s_rule_head(s_reader_t *reader, const yaml_node_t *map, lade_rule_t *rule)
{
    static const char *const keys[] = {"name", "why", "on", "rank", "when", "set", "also", NULL};
    lade_code_t code = s_check_keys(reader, map, "a rule", keys);
    if (code)
        return code;
    const yaml_node_t *name = s_find(reader, map, "name"), *why = s_find(reader, map, "why");
    const yaml_node_t *on = s_find(reader, map, "on"), *rank = s_find(reader, map, "rank");
    if (!name || !why || !on)
        return s_fail(reader, map, "a rule needs name, why, on, when and set");
    code = s_text(reader, name, &rule->name);
    if (!code)
        code = s_text(reader, why, &rule->why);
    const char *subject = s_scalar(on) ? s_scalar(on) : "";
    rule->folder = strcmp(subject, "folder") == 0;
    if (!code && !rule->folder && strcmp(subject, "file") != 0)
        return s_fail(reader, on, "on is file or folder");
    return code || !rank ? code : s_integer(reader, rank, -1000, 1000, &rule->rank);
}

static lade_code_t
s_rule(s_reader_t *reader, const yaml_node_t *map, lade_rule_t *rule)
{
    lade_code_t code = s_rule_head(reader, map, rule);
    const yaml_node_t *when = code ? NULL : s_find(reader, map, "when");
    if (!code && !when)
        return s_fail(reader, map, "rule '%s' has no when", rule->name);
    for (size_t i = 0; !code && &reader->families->rules[i] < rule; i++)
        if (strcmp(reader->families->rules[i].name, rule->name) == 0 &&
            strcmp(reader->families->rules[i].family, rule->family) == 0)
            return s_fail(reader, map, "there are two rules '%s'", rule->name);
    if (!code)
        code = s_conditions(reader, when, rule->folder, &rule->when, &rule->when_count);
    return code ? code : s_set(reader, map, rule);
}

static lade_code_t
s_rules(s_reader_t *reader, const yaml_node_t *root, const char *family, bool site)
{
    static const char *const keys[] = {"about", "rules", NULL};
    lade_families_t *self = reader->families;
    lade_code_t code = s_check_keys(reader, root, "a family file", keys);
    const yaml_node_t *list = code ? NULL : s_find(reader, root, "rules");
    if (!code && (!list || list->type != YAML_SEQUENCE_NODE))
        return s_fail(reader, root, "a family file needs rules, a list");
    if (code)
        return code;
    json_object_set_new(self->names, family, json_true());
    size_t count = (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
    if (self->count + count > S_MAX_RULES)
        return s_fail(reader, list, "more than %d rules", S_MAX_RULES);
    lade_rule_t *rules = realloc(self->rules, (self->count + count + 1) * sizeof *rules);
    if (!rules)
        abort();
    self->rules = rules;
    for (size_t i = 0; !code && i < count; i++) {
        lade_rule_t *rule = &self->rules[self->count];
        *rule = (lade_rule_t){.family = family, .site = site};
        code = s_rule(reader, s_node(reader, list->data.sequence.items.start[i]), rule);
        self->count++;
    }
    return code;
}

static const char *
s_family_name(s_reader_t *reader, const char *file)
{
    const char *slash = strrchr(file, '/');
    char *name = s_alloc(reader, strlen(file) + 1);
    strcpy(name, slash ? slash + 1 : file);
    char *dot = strrchr(name, '.');
    if (dot && dot > name)
        *dot = '\0';
    return name;
}

lade_code_t
lade_families_read(lade_families_t *self, const char *name, const char *text, size_t len, bool site,
                   lade_error_t *error)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    if (len > S_MAX_FILE)
        return lade_error_set(error, LADE_CONFIG_ERROR, "%s has %zu bytes, %d are the most", name,
                              len, S_MAX_FILE);
    if (!yaml_parser_initialize(&parser))
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to read %s", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    lade_code_t code;
    if (!yaml_parser_load(&parser, &doc)) {
        code = lade_error_set(error, LADE_CONFIG_ERROR, "%s:%zu: %s", name,
                              parser.problem_mark.line + 1,
                              parser.problem ? parser.problem : "not YAML");
    } else {
        s_reader_t reader = {.families = self, .doc = &doc, .file = name, .error = error};
        const yaml_node_t *root = yaml_document_get_root_node(&doc);
        code = root ? s_rules(&reader, root, s_family_name(&reader, name), site)
                    : lade_error_set(error, LADE_CONFIG_ERROR, "%s:1: the file is empty", name);
        yaml_document_delete(&doc);
    }
    yaml_parser_delete(&parser);
    return code;
}

lade_families_t *
lade_families_new(void)
{
    lade_families_t *self = calloc(1, sizeof *self);
    if (!self || !(self->names = json_object()))
        abort();
    return self;
}

size_t
lade_families_count(const lade_families_t *self)
{
    return self->count;
}

const lade_rule_t *
lade_families_get(const lade_families_t *self, size_t index)
{
    return &self->rules[index];
}

bool
lade_families_has(const lade_families_t *self, const char *family)
{
    return json_object_get(self->names, family) != NULL;
}

void
lade_families_destroy(lade_families_t **self_p)
{
    lade_families_t *self = *self_p;
    if (!self)
        return;
    for (s_block_t *block = self->blocks, *next; block; block = next) {
        next = block->next;
        json_decref(block->json);
        if (block->regex)
            regfree(block->regex);
    }
    for (s_block_t *block = self->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    json_decref(self->names);
    free(self->rules);
    free(self);
    *self_p = NULL;
}
