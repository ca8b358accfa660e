// Model records: their one form, their keys, and what changes make of them.
#include "common/record.h"

#include "common/record_fields.h"
#include "common/taxonomy.h"
#include "common/wire.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

// clang-format off
static const struct {
    const char *alias, *field;
} s_aliases[] = {
    {"base_model",   "base"},
    {"model_type",   "type"},
    {"model_format", "format"},
    {"config",       "config_path"},
};
// clang-format on
enum { S_ALIASES = sizeof s_aliases / sizeof *s_aliases };

void
lade_record_new_key(char key[33])
{
    uint8_t bytes[16];
    ssize_t len = getrandom(bytes, sizeof bytes, 0);
    assert(len == sizeof bytes); // up to 256 bytes never come short
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(key + 2 * i, 3, "%02x", bytes[i]);
}

// Puts base first into bases if it is not in there.
static void
s_include(json_t *bases, json_t *base)
{
    for (size_t i = 0; i < json_array_size(bases); i++)
        if (json_equal(json_array_get(bases, i), base))
            return;
    json_array_insert(bases, 0, base);
}

// Each base once.
static void
s_make_set(json_t *map)
{
    const json_t *bases = json_object_get(map, "bases");
    json_t *set = json_array();
    for (size_t i = json_array_size(bases); i-- > 0;) {
        json_t *base = json_array_get(bases, i);
        for (size_t j = 0; j < i && base; j++)
            if (json_equal(base, json_array_get(bases, j)))
                base = NULL;
        if (base)
            json_array_insert(set, 0, base);
    }
    json_object_set_new(map, "bases", set);
}

void
lade_record_canonical(json_t *record)
{
    for (size_t i = 0; i < S_ALIASES; i++) {
        json_t *value = json_object_get(record, s_aliases[i].alias);
        if (!value || (!json_is_string(value) && !json_is_null(value)))
            continue;
        if (!json_object_get(record, s_aliases[i].field))
            json_object_set(record, s_aliases[i].field, value);
        json_object_del(record, s_aliases[i].alias);
    }
    const json_t *url = json_object_get(record, "source_url");
    if (json_is_string(url) && !json_string_length(url))
        json_object_set_new(record, "source_url", json_null());
    size_t bases = json_array_size(json_object_get(record, "bases"));
    if (bases > 1 && bases <= LADE_RECORD_MAX_TEXTS)
        s_make_set(record);
}

void
lade_record_settle_bases(json_t *record)
{
    json_t *bases = json_object_get(record, "bases"), *base = json_object_get(record, "base");
    if (!json_array_size(bases) || json_array_size(bases) > LADE_RECORD_MAX_TEXTS)
        return;
    if (json_is_string(base))
        s_include(bases, base);
    else if (!base || json_is_null(base))
        json_object_set(record, "base", json_array_get(bases, 0));
}

lade_code_t
lade_record_check(const json_t *record, lade_error_t *error)
{
    lade_record_class_t class = lade_record_class(record);
    return lade_record_check_all(&class, record, error);
}

static lade_code_t
s_check_given(const json_t *given, lade_error_t *error)
{
    json_t *copy = json_copy((json_t *)given); // shallow
    lade_record_canonical(copy);
    lade_record_class_t class = {.open = true};
    lade_code_t code = lade_record_check_all(&class, copy, error);
    json_decref(copy);
    return code;
}

lade_code_t
lade_record_check_changes(const json_t *changes, lade_error_t *error)
{
    if (json_object_get(changes, "key"))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "key: a record keeps its key for life; leave it out");
    return s_check_given(changes, error);
}

lade_code_t
lade_record_check_overrides(const json_t *overrides, lade_error_t *error)
{
    if (json_object_get(overrides, "path"))
        return lade_error_set(
            error, LADE_INVALID_MODEL_CONFIG,
            "path: the install decides where the files go; leave it out, or give `inplace`");
    return s_check_given(overrides, error);
}

// A record that becomes another class loses what the new class does not have, unless it was asked
// for by name.
static void
s_drop_foreign(json_t *record, const json_t *changes)
{
    lade_record_class_t class = lade_record_class(record);
    for (size_t i = 0; i < lade_record_fields.count; i++) {
        const char *name = lade_record_fields.rows[i].name;
        const lade_field_t *field = lade_record_row(&class, &lade_record_fields, name);
        const json_t *value = json_object_get(record, name);
        if (!value || json_object_get(changes, name))
            continue;
        bool keeps = lade_record_class_has(&class, field);
        if (keeps && (field->type == LADE_FIELD_VARIANT || field->type == LADE_FIELD_SETTINGS ||
                      field->classes))
            keeps = lade_record_check_value(&class, field, value, NULL) == LADE_OK;
        if (!keeps)
            json_object_del(record, name);
    }
}

static bool
s_changes_class(const json_t *changes)
{
    return json_object_get(changes, "type") || json_object_get(changes, "base") ||
           json_object_get(changes, "format");
}

// Only a new type was given, and the format is none of it.
static bool
s_needs_format(const json_t *record, const json_t *changes)
{
    const char *type = lade_json_text(record, "type", "");
    return json_object_get(changes, "type") && !json_object_get(changes, "format") &&
           *lade_taxonomy_formats(type) &&
           !lade_taxonomy_is_class(type, lade_json_text(record, "format", ""));
}

static lade_code_t
s_settle(json_t *record, const json_t *changes, lade_error_t *error)
{
    if (s_changes_class(changes))
        s_drop_foreign(record, changes);
    return lade_record_check(record, error);
}

// The first format of the new type with which the record is whole.
static lade_code_t
s_settle_format(json_t **record_p, const json_t *changes, lade_error_t *error)
{
    const char *const *formats = lade_taxonomy_formats(lade_json_text(*record_p, "type", ""));
    lade_code_t code = LADE_INVALID_MODEL_CONFIG;
    for (size_t i = 0; formats[i] && code; i++) {
        json_t *tried = json_deep_copy(*record_p);
        json_object_set_new(tried, "format", json_string(formats[i]));
        code = s_settle(tried, changes, error);
        if (code) {
            json_decref(tried);
        } else {
            json_decref(*record_p);
            *record_p = tried;
        }
    }
    return code;
}

// base and bases agree again after one of them was changed.
static void
s_step_bases(json_t *record, const json_t *before, const json_t *changes)
{
    json_t *bases = json_object_get(record, "bases"), *base = json_object_get(record, "base");
    json_t *old = json_object_get(before, "base");
    bool new_bases = json_object_get(changes, "bases"), new_base = json_object_get(changes, "base");
    if (!json_array_size(bases) || json_array_size(bases) > LADE_RECORD_MAX_TEXTS)
        return;
    for (size_t i = 0; i < json_array_size(bases); i++)
        if (json_equal(json_array_get(bases, i), base))
            return;
    if (new_base && !new_bases)
        for (size_t i = 0; i < json_array_size(bases); i++)
            if (json_equal(json_array_get(bases, i), old))
                json_array_remove(bases, i);
    if (new_bases && !new_base)
        json_object_set(record, "base", json_array_get(bases, 0));
    else
        lade_record_settle_bases(record);
}

lade_code_t
lade_record_apply(const json_t *record, const json_t *changes, json_t **result_p,
                  lade_error_t *error)
{
    *result_p = NULL;
    if (!json_is_object(changes))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "the changes to a record have to be a map");
    json_t *key = json_object_get(record, "key"), *new_key = json_object_get(changes, "key");
    if (key && new_key && !json_equal(key, new_key))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "key: a record keeps its key for life; leave it out");
    json_t *result = json_deep_copy(record);
    json_t *given = json_deep_copy(changes);
    lade_record_canonical(given);
    const char *name;
    json_t *value;
    json_object_foreach(given, name, value)
    {
        if (json_is_null(value))
            json_object_del(result, name);
        else
            json_object_set_nocheck(result, name, value);
    }
    s_step_bases(result, record, given);
    lade_code_t code = s_needs_format(result, given) ? s_settle_format(&result, given, error)
                                                     : s_settle(result, given, error);
    json_decref(given);
    if (code)
        json_decref(result);
    else
        *result_p = result;
    return code;
}
