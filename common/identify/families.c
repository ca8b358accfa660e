// The reader of family files: YAML into rules, each mistake an error with file and line.
#include "common/identify/families.h"

#include "common/identify/predicates.h"
#include "common/identify/rulefile.h"
#include "common/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S_MAX_FILE = 1 << 20, S_MAX_RULES = 10000 };

struct lade_families {
    lade_rule_t *rules;
    size_t count;
    json_t *names; // of the families read, with rules or without
    lade_rulefile_block_t *blocks;
    lade_patterns_t *patterns;
};

// ---------------------------------------------------------------------------------------------------
// Patterns

static lade_code_t
s_pattern(lade_rulefile_t *reader, const yaml_node_t *node, lade_pattern_t **pattern_p)
{
    static const char *const keys[] = {"exact", "prefix",  "suffix", "contains",
                                       "regex", "sibling", "except", NULL};
    lade_pattern_t *self = *pattern_p = lade_rulefile_alloc(reader, sizeof *self);
    if (node->type != YAML_MAPPING_NODE) { // a name or a list of names
        lade_code_t code = lade_rulefile_list(reader, node, true, &self->exact);
        if (!code)
            lade_patterns_add(reader->patterns, self);
        return code;
    }
    if (++reader->depth > LADE_RULEFILE_MAX_DEPTH)
        return lade_rulefile_fail(reader, node, "nested deeper than %d", LADE_RULEFILE_MAX_DEPTH);
    json_t **lists[] = {&self->exact, &self->prefix, &self->suffix, &self->contains};
    lade_code_t code = lade_rulefile_check_keys(reader, node, "a pattern", keys);
    const yaml_node_t *part;
    for (size_t i = 0; !code && i < sizeof lists / sizeof *lists; i++)
        if ((part = lade_rulefile_find(reader, node, keys[i])))
            code = lade_rulefile_list(reader, part, true, lists[i]);
    if (!code && (part = lade_rulefile_find(reader, node, "regex")))
        code = lade_rulefile_regex(reader, part, 0, &self->regex);
    if (!code && part)
        code = lade_rulefile_text(reader, part, &self->regex_text);
    if (!code && (part = lade_rulefile_find(reader, node, "sibling"))) {
        if (json_array_size(self->suffix) != 1)
            return lade_rulefile_fail(reader, part, "sibling takes the place of one suffix");
        code = lade_rulefile_text(reader, part, &self->sibling);
    }
    if (!code && (part = lade_rulefile_find(reader, node, "except")))
        code = s_pattern(reader, part, &self->except);
    if (!code)
        lade_patterns_add(reader->patterns, self);
    reader->depth--;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Sources

static lade_code_t
s_source_pattern(lade_rulefile_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    return s_pattern(reader, node, &self->pattern);
}

static lade_code_t
s_source_names(lade_rulefile_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    return lade_rulefile_list(reader, node, true, &self->names);
}

static lade_code_t
s_source_name(lade_rulefile_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    lade_code_t code = lade_rulefile_list(reader, node, true, &self->names);
    const char *which = json_string_value(json_array_get(self->names, 0));
    if (!code && strcmp(which, "own") != 0 && strcmp(which, "parent") != 0)
        return lade_rulefile_fail(reader, node, "name is 'own' or 'parent', not '%s'", which);
    return code;
}

static lade_code_t
s_source_predicate(lade_rulefile_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    lade_code_t code = lade_rulefile_list(reader, node, true, &self->names);
    const char *name = json_string_value(json_array_get(self->names, 0));
    for (self->predicate = 0; !code && lade_predicates[self->predicate].name; self->predicate++)
        if (strcmp(lade_predicates[self->predicate].name, name) == 0)
            return LADE_OK;
    return code ? code : lade_rulefile_fail(reader, node, "there is no predicate '%s'", name);
}

enum { S_FILE = 1, S_FOLDER = 2 };

static const struct {
    const char *key;
    lade_source_kind_t kind;
    int about; // files, folders, both
    lade_code_t (*read)(lade_rulefile_t *reader, const yaml_node_t *node, lade_source_t *self);
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
s_take(lade_rulefile_t *reader, const yaml_node_t *node, lade_source_t *self)
{
    static const struct {
        const char *name;
        lade_take_t take;
    } rows[] = {{"rank", LADE_TAKE_RANK},
                {"dtype", LADE_TAKE_DTYPE},
                {"count", LADE_TAKE_COUNT},
                {"input", LADE_TAKE_INPUT},
                {"output", LADE_TAKE_OUTPUT}};
    const char *text = lade_rulefile_scalar(node) ? lade_rulefile_scalar(node) : "";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, text) == 0) {
            self->take = rows[i].take;
            return LADE_OK;
        }
    return lade_rulefile_fail(reader, node, "take is rank, dtype, count, input or output, not '%s'",
                              text);
}

// axis, take, in, at, as: each belongs to some kinds of source.
static lade_code_t
s_source_options(lade_rulefile_t *reader, const yaml_node_t *map, lade_source_t *self)
{
    const yaml_node_t *axis = lade_rulefile_find(reader, map, "axis"),
                      *take = lade_rulefile_find(reader, map, "take");
    const yaml_node_t *at = lade_rulefile_find(reader, map, "at"),
                      *as = lade_rulefile_find(reader, map, "as"),
                      *in = lade_rulefile_find(reader, map, "in");
    bool has_path = self->kind == LADE_SOURCE_JSON || self->kind == LADE_SOURCE_INSIDE;
    lade_code_t code = LADE_OK;
    if ((axis || take) && self->kind != LADE_SOURCE_KEY)
        return lade_rulefile_fail(reader, axis ? axis : take, "axis and take go with key");
    if (axis && take)
        return lade_rulefile_fail(reader, take, "axis and take exclude each other");
    if (in && self->kind != LADE_SOURCE_KEY)
        return lade_rulefile_fail(reader, in, "in goes with key");
    if (at && !has_path)
        return lade_rulefile_fail(reader, at, "at goes with json and inside");
    if ((as != NULL) != (self->kind == LADE_SOURCE_INSIDE))
        return lade_rulefile_fail(reader, as ? as : map,
                                  "inside takes as: the type the file inside has to be");
    if (axis) {
        self->take = LADE_TAKE_AXIS;
        code = lade_rulefile_integer(reader, axis, -LADE_TENSOR_MAX_RANK, LADE_TENSOR_MAX_RANK - 1,
                                     &self->axis);
    }
    if (!code && take)
        code = s_take(reader, take, self);
    if (!code && in)
        code = lade_rulefile_list(reader, in, true, &self->in);
    if (!code && at)
        code = lade_rulefile_text(reader, at, &self->at);
    if (!code && as)
        code = lade_rulefile_text(reader, as, &self->as);
    if (!code && as && !lade_enum_has(LADE_ENUM_TYPE, self->as))
        return lade_rulefile_fail(reader, as, "'%s' is no model type", self->as);
    return code;
}

// The source a map names, LADE_SOURCE_NONE if it names none.
static lade_code_t
s_source(lade_rulefile_t *reader, const yaml_node_t *map, bool folder, lade_source_t *self)
{
    for (size_t i = 0; i < S_SOURCES; i++) {
        const yaml_node_t *node = lade_rulefile_find(reader, map, s_sources[i].key);
        if (!node)
            continue;
        if (self->kind)
            return lade_rulefile_fail(
                reader, node, "only one of key, metadata, json, … at a time; take two entries");
        // the tensors of a folder are those of a folder in it
        bool within = s_sources[i].kind == LADE_SOURCE_KEY && lade_rulefile_find(reader, map, "in");
        int about = within ? S_FOLDER : s_sources[i].about;
        if (!(about & (folder ? S_FOLDER : S_FILE)))
            return lade_rulefile_fail(reader, node, "'%s%s' cannot be asked of a %s",
                                      s_sources[i].key, within ? " in" : "",
                                      folder ? "folder" : "file");
        self->kind = s_sources[i].kind;
        lade_code_t code = s_sources[i].read(reader, node, self);
        if (code)
            return code;
        if (self->kind == LADE_SOURCE_PREDICATE &&
            lade_predicates[self->predicate].folder != folder)
            return lade_rulefile_fail(reader, node, "this predicate cannot be asked of a %s",
                                      folder ? "folder" : "file");
    }
    return s_source_options(reader, map, self);
}

// ---------------------------------------------------------------------------------------------------
// Conditions

#define S_SOURCE_KEYS                                                                              \
    "key", "scalar", "metadata", "name", "exists", "json", "class", "inside", "field",             \
        "predicate", "axis", "take", "in", "at", "as"

static lade_code_t s_conditions(lade_rulefile_t *reader, const yaml_node_t *node, bool folder,
                                lade_condition_t **list_p, size_t *count_p);

static lade_code_t
s_check(lade_rulefile_t *reader, const yaml_node_t *map, lade_condition_t *self)
{
    const yaml_node_t *node;
    lade_code_t code = LADE_OK;
    if ((node = lade_rulefile_find(reader, map, "is")))
        code = lade_rulefile_list(reader, node, false, &self->check.is);
    if (!code && (node = lade_rulefile_find(reader, map, "matches")))
        code = lade_rulefile_regex(reader, node, REG_ICASE, &self->check.matches);
    if (!code && (node = lade_rulefile_find(reader, map, "every"))) {
        if (self->source.kind != LADE_SOURCE_KEY)
            return lade_rulefile_fail(reader, node, "every goes with key");
        code = s_pattern(reader, node, &self->check.every);
    }
    if (!code && (node = lade_rulefile_find(reader, map, "min"))) {
        self->check.has_min = true;
        code = lade_rulefile_number(reader, node, &self->check.min);
    }
    if (!code && (node = lade_rulefile_find(reader, map, "max"))) {
        self->check.has_max = true;
        code = lade_rulefile_number(reader, node, &self->check.max);
    }
    return code;
}

// any: [...], all: [...], not: {...} or [...].
static lade_code_t
s_group(lade_rulefile_t *reader, const yaml_node_t *map, bool folder, lade_condition_t *self)
{
    static const struct {
        const char *key;
        lade_when_t kind;
    } rows[] = {{"any", LADE_WHEN_ANY}, {"all", LADE_WHEN_ALL}, {"not", LADE_WHEN_NOT}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const yaml_node_t *node = lade_rulefile_find(reader, map, rows[i].key);
        if (!node)
            continue;
        if (self->kind || map->data.mapping.pairs.top - map->data.mapping.pairs.start > 1)
            return lade_rulefile_fail(reader, node, "any, all and not stand alone in their entry");
        self->kind = rows[i].kind;
        lade_code_t code = s_conditions(reader, node, folder, &self->children, &self->count);
        if (code)
            return code;
    }
    return LADE_OK;
}

static lade_code_t
s_condition(lade_rulefile_t *reader, const yaml_node_t *map, bool folder, lade_condition_t *self)
{
    static const char *const keys[] = {S_SOURCE_KEYS, "is",  "matches", "every", "min",
                                       "max",         "any", "all",     "not",   NULL};
    lade_code_t code = lade_rulefile_check_keys(reader, map, "a condition", keys);
    if (!code)
        code = s_group(reader, map, folder, self);
    if (code || self->kind)
        return code;
    code = s_source(reader, map, folder, &self->source);
    if (!code && !self->source.kind)
        return lade_rulefile_fail(reader, map,
                                  "a condition needs key, metadata, name, exists, json, class, …");
    return code ? code : s_check(reader, map, self);
}

static lade_code_t
s_conditions(lade_rulefile_t *reader, const yaml_node_t *node, bool folder,
             lade_condition_t **list_p, size_t *count_p)
{
    bool one = node->type == YAML_MAPPING_NODE;
    size_t count = one ? 1 : 0;
    if (node->type == YAML_SEQUENCE_NODE)
        count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (count == 0 || count > LADE_RULEFILE_MAX_LIST)
        return lade_rulefile_fail(reader, node, "a list of conditions is expected");
    if (++reader->depth > LADE_RULEFILE_MAX_DEPTH)
        return lade_rulefile_fail(reader, node, "nested deeper than %d", LADE_RULEFILE_MAX_DEPTH);
    lade_condition_t *list = lade_rulefile_alloc(reader, count * sizeof *list);
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < count; i++)
        code = s_condition(
            reader, one ? node : lade_rulefile_node(reader, node->data.sequence.items.start[i]),
            folder, &list[i]);
    reader->depth--;
    *list_p = list;
    *count_p = count;
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Values

static lade_code_t s_value(lade_rulefile_t *reader, const yaml_node_t *node, bool folder,
                           lade_value_t *self);

static lade_code_t
s_map(lade_rulefile_t *reader, const yaml_node_t *node, lade_value_t *self)
{
    if (node->type != YAML_MAPPING_NODE)
        return lade_rulefile_fail(reader, node, "map takes a map of found to meant");
    self->from = lade_rulefile_keep(reader, json_array());
    self->to = lade_rulefile_keep(reader, json_array());
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = lade_rulefile_node(reader, pair->key),
                          *value = lade_rulefile_node(reader, pair->value);
        if (!lade_rulefile_scalar(key) || !lade_rulefile_scalar(value))
            return lade_rulefile_fail(reader, key, "map takes single values");
        json_array_append_new(self->from, lade_rulefile_literal_scalar(key));
        json_array_append_new(self->to, lade_rulefile_literal_scalar(value));
    }
    return LADE_OK;
}

static lade_code_t
s_choice(lade_rulefile_t *reader, const yaml_node_t *map, bool folder, lade_choice_t *self)
{
    static const char *const keys[] = {"when", "then", NULL};
    lade_code_t code = lade_rulefile_check_keys(reader, map, "an entry of first", keys);
    const yaml_node_t *when = code ? NULL : lade_rulefile_find(reader, map, "when");
    const yaml_node_t *then = code ? NULL : lade_rulefile_find(reader, map, "then");
    if (!code && !then)
        return lade_rulefile_fail(reader, map, "an entry of first needs then");
    if (!code && when)
        code = s_conditions(reader, when, folder, &self->when, &self->count);
    if (code)
        return code;
    self->then = lade_rulefile_alloc(reader, sizeof *self->then);
    return s_value(reader, then, folder, self->then);
}

static lade_code_t
s_first(lade_rulefile_t *reader, const yaml_node_t *node, bool folder, lade_value_t *self)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return lade_rulefile_fail(reader, node, "first takes a list");
    self->first_count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (self->first_count > LADE_RULEFILE_MAX_LIST)
        return lade_rulefile_fail(reader, node, "first takes %d entries at most",
                                  LADE_RULEFILE_MAX_LIST);
    self->first = lade_rulefile_alloc(reader, self->first_count * sizeof *self->first);
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < self->first_count; i++)
        code = s_choice(reader, lade_rulefile_node(reader, node->data.sequence.items.start[i]),
                        folder, &self->first[i]);
    return code;
}

static lade_code_t
s_constant(lade_rulefile_t *reader, const yaml_node_t *node, json_t **value_p)
{
    json_t *value;
    lade_code_t code = lade_rulefile_literal(reader, node, &value);
    if (!code)
        *value_p = lade_rulefile_keep(reader, value);
    return code;
}

static lade_code_t
s_value_parts(lade_rulefile_t *reader, const yaml_node_t *node, bool folder, lade_value_t *self)
{
    const yaml_node_t *part;
    lade_code_t code = s_source(reader, node, folder, &self->source);
    if (!code && (part = lade_rulefile_find(reader, node, "map")))
        code = s_map(reader, part, self);
    if (!code && (part = lade_rulefile_find(reader, node, "first")))
        code = s_first(reader, part, folder, self);
    if (!code && (part = lade_rulefile_find(reader, node, "default"))) {
        self->fallback = lade_rulefile_alloc(reader, sizeof *self->fallback);
        code = s_value(reader, part, folder, self->fallback);
    }
    if (!code && (part = lade_rulefile_find(reader, node, "value")))
        code = s_constant(reader, part, &self->constant);
    if (!code && (part = lade_rulefile_find(reader, node, "may_be")))
        code = lade_rulefile_list(reader, part, false, &self->may_be);
    if (!code && (part = lade_rulefile_find(reader, node, "optional")))
        self->optional =
            lade_rulefile_scalar(part) && strcmp(lade_rulefile_scalar(part), "true") == 0;
    if (!code && (self->source.kind != 0) + (self->first != NULL) + (self->constant != NULL) > 1)
        return lade_rulefile_fail(reader, node, "a source, first and value exclude each other");
    if (!code && self->from && !self->source.kind)
        return lade_rulefile_fail(reader, node, "map needs a source to map");
    return code;
}

static lade_code_t
s_value(lade_rulefile_t *reader, const yaml_node_t *node, bool folder, lade_value_t *self)
{
    static const char *const keys[] = {S_SOURCE_KEYS, "map",    "first",    "default",
                                       "value",       "may_be", "optional", NULL};
    if (node->type == YAML_SCALAR_NODE)
        return s_constant(reader, node, &self->constant);
    if (++reader->depth > LADE_RULEFILE_MAX_DEPTH)
        return lade_rulefile_fail(reader, node, "nested deeper than %d", LADE_RULEFILE_MAX_DEPTH);
    lade_code_t code = lade_rulefile_check_keys(reader, node, "a value", keys);
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
s_check_word(lade_rulefile_t *reader, const yaml_node_t *node, const char *field,
             const json_t *value)
{
    int values = s_fields[s_field_row(field)].values;
    const char *word = json_string_value(value);
    if (!value || values < 0 || (word && lade_enum_has((lade_enum_t)values, word)))
        return LADE_OK;
    return lade_rulefile_fail(reader, node, "'%s' is no %s", word ? word : "(not a text)", field);
}

// Every word a value can become has to be one its field knows.
static lade_code_t
s_check_words(lade_rulefile_t *reader, const yaml_node_t *node, const char *field,
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
s_add_field(lade_rulefile_t *reader, const yaml_node_t *key, const yaml_node_t *node, bool own,
            lade_rule_t *rule)
{
    const char *name = lade_rulefile_scalar(key);
    bool known = name && s_field_row(name) < S_FIELDS;
    if (!s_is_word(name))
        return lade_rulefile_fail(reader, key, "a field is a word of a-z, 0-9 and _");
    if (own == known)
        return lade_rulefile_fail(reader, key,
                                  known ? "'%s' belongs under set"
                                        : "there is no field '%s'; fields of a "
                                          "family's own go under also",
                                  name);
    lade_field_t *field = &rule->fields[rule->field_count++];
    field->name = lade_rulefile_keep_text(reader, name);
    lade_code_t code = s_value(reader, node, rule->folder, &field->value);
    return code || own ? code : s_check_words(reader, node, name, &field->value);
}

static lade_code_t
s_add_fields(lade_rulefile_t *reader, const yaml_node_t *map, bool own, lade_rule_t *rule)
{
    if (map->type != YAML_MAPPING_NODE)
        return lade_rulefile_fail(reader, map, "a map of fields is expected");
    lade_code_t code = LADE_OK;
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start;
         !code && pair < map->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = lade_rulefile_node(reader, pair->key);
        const char *name = lade_rulefile_scalar(key);
        if (name &&
            lade_rulefile_find(reader, map, name) != lade_rulefile_node(reader, pair->value))
            return lade_rulefile_fail(reader, key, "'%s' is there twice", name);
        code = s_add_field(reader, key, lade_rulefile_node(reader, pair->value), own, rule);
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
s_set(lade_rulefile_t *reader, const yaml_node_t *map, lade_rule_t *rule)
{
    static const char *const needed[] = {"type", "base", "format"};
    const yaml_node_t *set = lade_rulefile_find(reader, map, "set"),
                      *also = lade_rulefile_find(reader, map, "also");
    if (!set)
        return lade_rulefile_fail(reader, map, "rule '%s' has no set", rule->name);
    rule->fields =
        lade_rulefile_alloc(reader, (s_pairs(set) + s_pairs(also) + 1) * sizeof *rule->fields);
    lade_code_t code = s_add_fields(reader, set, false, rule);
    if (!code && also)
        code = s_add_fields(reader, also, true, rule);
    for (size_t i = 0; !code && i < sizeof needed / sizeof *needed; i++)
        if (!lade_rulefile_find(reader, set, needed[i]))
            return lade_rulefile_fail(reader, set, "rule '%s' does not set %s", rule->name,
                                      needed[i]);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Rules

static lade_code_t
s_rule_head(lade_rulefile_t *reader, const yaml_node_t *map, lade_rule_t *rule)
{
    static const char *const keys[] = {"name", "why", "on", "rank", "when", "set", "also", NULL};
    lade_code_t code = lade_rulefile_check_keys(reader, map, "a rule", keys);
    if (code)
        return code;
    const yaml_node_t *name = lade_rulefile_find(reader, map, "name"),
                      *why = lade_rulefile_find(reader, map, "why");
    const yaml_node_t *on = lade_rulefile_find(reader, map, "on"),
                      *rank = lade_rulefile_find(reader, map, "rank");
    if (!name || !why || !on)
        return lade_rulefile_fail(reader, map, "a rule needs name, why, on, when and set");
    code = lade_rulefile_text(reader, name, &rule->name);
    if (!code)
        code = lade_rulefile_text(reader, why, &rule->why);
    const char *subject = lade_rulefile_scalar(on) ? lade_rulefile_scalar(on) : "";
    rule->folder = strcmp(subject, "folder") == 0;
    if (!code && !rule->folder && strcmp(subject, "file") != 0)
        return lade_rulefile_fail(reader, on, "on is file or folder");
    return code || !rank ? code : lade_rulefile_integer(reader, rank, -1000, 1000, &rule->rank);
}

static lade_code_t
s_rule(lade_rulefile_t *reader, const yaml_node_t *map, lade_rule_t *rule)
{
    lade_code_t code = s_rule_head(reader, map, rule);
    const yaml_node_t *when = code ? NULL : lade_rulefile_find(reader, map, "when");
    if (!code && !when)
        return lade_rulefile_fail(reader, map, "rule '%s' has no when", rule->name);
    if (!code)
        code = s_conditions(reader, when, rule->folder, &rule->when, &rule->when_count);
    return code ? code : s_set(reader, map, rule);
}

static lade_code_t
s_check_name(const lade_families_t *self, lade_rulefile_t *reader, const yaml_node_t *node,
             const lade_rule_t *rule)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp(self->rules[i].name, rule->name) == 0 &&
            strcmp(self->rules[i].family, rule->family) == 0)
            return lade_rulefile_fail(reader, node, "there are two rules '%s'", rule->name);
    return LADE_OK;
}

static lade_code_t
s_rules(lade_families_t *self, lade_rulefile_t *reader, const yaml_node_t *root, const char *family,
        bool site)
{
    static const char *const keys[] = {"about", "parts", "rules", NULL};
    lade_code_t code = lade_rulefile_check_keys(reader, root, "a family file", keys);
    const yaml_node_t *list = code ? NULL : lade_rulefile_find(reader, root, "rules");
    if (!code && (!list || list->type != YAML_SEQUENCE_NODE))
        return lade_rulefile_fail(reader, root, "a family file needs rules, a list");
    if (code)
        return code;
    json_object_set_new(self->names, family, json_true());
    size_t count = (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
    if (self->count + count > S_MAX_RULES)
        return lade_rulefile_fail(reader, list, "more than %d rules", S_MAX_RULES);
    lade_rule_t *rules = realloc(self->rules, (self->count + count + 1) * sizeof *rules);
    if (!rules)
        abort();
    self->rules = rules;
    for (size_t i = 0; !code && i < count; i++) {
        lade_rule_t *rule = &self->rules[self->count];
        *rule = (lade_rule_t){.family = family, .site = site};
        const yaml_node_t *node = lade_rulefile_node(reader, list->data.sequence.items.start[i]);
        code = s_rule(reader, node, rule);
        if (!code)
            code = s_check_name(self, reader, node, rule);
        self->count++;
    }
    return code;
}

static const char *
s_family_name(lade_rulefile_t *reader, const char *file)
{
    const char *slash = strrchr(file, '/');
    char *name = lade_rulefile_alloc(reader, strlen(file) + 1);
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
        lade_rulefile_t reader = {.blocks = &self->blocks,
                                  .patterns = self->patterns,
                                  .doc = &doc,
                                  .file = name,
                                  .error = error};
        const yaml_node_t *root = yaml_document_get_root_node(&doc);
        code = root ? s_rules(self, &reader, root, s_family_name(&reader, name), site)
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
    self->patterns = lade_patterns_new();
    return self;
}

const lade_patterns_t *
lade_families_patterns(const lade_families_t *self)
{
    return self->patterns;
}

void
lade_families_close(lade_families_t *self)
{
    lade_patterns_build(self->patterns);
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
    lade_patterns_destroy(&self->patterns);
    lade_rulefile_free(&self->blocks);
    json_decref(self->names);
    free(self->rules);
    free(self);
    *self_p = NULL;
}
