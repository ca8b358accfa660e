// The one check that every record passes: it walks the table of fields.
//
// What is wrong is said as what the field takes; lade_record_check_value puts field and value in
// front.
#include "common/record_fields.h"
#include "common/taxonomy.h"
#include "common/wire.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
s_is_text(const json_t *value)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value), ascii = 0;
    while (ascii < len && (signed char)text[ascii] > 0)
        ascii++;
    if (ascii == len)
        return text != NULL;
    if (strlen(text) != len)
        return false;
    json_t *copy = json_stringn(text, len); // NULL unless it is UTF-8
    json_decref(copy);
    return copy != NULL;
}

static bool
s_is_key(const char *text)
{
    if (*text == '.')
        return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("._-", *text))
            return false;
    return true;
}

// The value in a sentence: ASCII, so that cutting it leaves it whole text.
static void
s_show(const json_t *value, char shown[61])
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    snprintf(shown, 61, "%s", text ? text : "text that is no UTF-8");
    free(text);
}

static void
s_show_name(const char *name, char shown[61])
{
    json_t *text = json_string_nocheck(name);
    s_show(text, shown);
    json_decref(text);
}

static void
s_say_values(char *takes, size_t size, const char *const *values)
{
    size_t len = (size_t)snprintf(takes, size, "takes one of");
    for (size_t i = 0; values[i] && len < size; i++)
        len += (size_t)snprintf(takes + len, size - len, "%s %s", i ? "," : "",
                                *values[i] ? values[i] : "\"\"");
}

// What values each type of field takes, and the words for it. Words are made for an error only: a
// record that is fine costs no formatting.
static bool
s_fits_text(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    (void)class;
    double len = (double)json_string_length(value);
    return s_is_text(value) && len >= field->min && len <= field->max;
}

static void
s_say_text(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes text (UTF-8) of %.0f to %.0f bytes", field->min, field->max);
}

static bool
s_fits_key(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    return s_fits_text(class, field, value) && s_is_key(json_string_value(value));
}

static void
s_say_key(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes letters, digits and . _ - (at most %.0f, no dot first)",
             field->max);
}

static bool
s_fits_url(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    return s_fits_text(class, field, value) &&
           (fnmatch("http://?*", json_string_value(value), 0) == 0 ||
            fnmatch("https://?*", json_string_value(value), 0) == 0);
}

static void
s_say_url(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes a URL of at most %.0f bytes that begins with http:// or https://",
             field->max);
}

static const char *const *
s_words(const lade_record_class_t *class, const lade_field_t *field)
{
    return field->type == LADE_FIELD_VARIANT ? lade_record_class_variants(class)
                                             : lade_enum_values(field->values);
}

static bool
s_fits_word(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    return s_is_text(value) && lade_taxonomy_has(s_words(class, field), json_string_value(value));
}

static void
s_say_word(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    s_say_values(takes, size, s_words(class, field));
}

static bool
s_fits_texts(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    double count = (double)json_array_size(value);
    bool fine = json_is_array(value) && count >= field->min && count <= field->max;
    for (size_t i = 0; i < json_array_size(value) && fine; i++) {
        const json_t *item = json_array_get(value, i);
        size_t len = json_string_length(item);
        fine = field->type == LADE_FIELD_ENUMS
                   ? s_fits_word(class, field, item)
                   : s_is_text(item) && len > 0 && len <= LADE_RECORD_MAX_NAME;
    }
    return fine;
}

static void
s_say_texts(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes a list of at most %.0f texts of 1 to %d bytes", field->max,
             LADE_RECORD_MAX_NAME);
}

static void
s_say_words(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    size_t len = (size_t)snprintf(takes, size, "takes a list of one or more; each ");
    s_say_word(class, field, takes + len, size - len);
}

static bool
s_fits_number(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    (void)class;
    if (field->type == LADE_FIELD_NUMBER ? !json_is_number(value) : !json_is_integer(value))
        return false;
    double number = json_number_value(value);
    if (!(number >= field->min && number <= field->max))
        return false;
    if (field->type == LADE_FIELD_EITHER)
        return number <= field->min || number >= field->max;
    return field->type != LADE_FIELD_EIGHTS || json_integer_value(value) % 8 == 0;
}

static void
s_say_number(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes %s from %.15g to %.15g",
             field->type == LADE_FIELD_NUMBER   ? "a number"
             : field->type == LADE_FIELD_EIGHTS ? "a multiple of 8"
                                                : "an integer",
             field->min, field->max);
}

static void
s_say_either(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes %.15g or %.15g", field->min, field->max);
}

static bool
s_fits_switch(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    (void)class;
    (void)field;
    return json_is_boolean(value);
}

static void
s_say_switch(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    (void)field;
    snprintf(takes, size, "takes true or false");
}

static bool
s_fits_map(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    (void)class;
    (void)field;
    return json_is_object(value);
}

static void
s_say_map(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    (void)field;
    snprintf(takes, size, "takes a map");
}

static bool
s_fits_blob(const lade_record_class_t *class, const lade_field_t *field, const json_t *value)
{
    return json_is_object(value) || s_fits_text(class, field, value);
}

static void
s_say_blob(const lade_record_class_t *class, const lade_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes text of at most %.0f bytes, or a map", field->max);
}

static lade_code_t s_check_settings(const lade_record_class_t *class, const json_t *settings,
                                    lade_error_t *error);
static lade_code_t s_check_submodels(const lade_record_class_t *class, const json_t *submodels,
                                     lade_error_t *error);

static const struct {
    bool (*fits)(const lade_record_class_t *class, const lade_field_t *field, const json_t *value);
    void (*say)(const lade_record_class_t *class, const lade_field_t *field, char *takes,
                size_t size);
    lade_code_t (*within)(const lade_record_class_t *class, const json_t *value,
                          lade_error_t *error);
} s_types[] = {
    // clang-format off
    [LADE_FIELD_KEY]       = {s_fits_key,    s_say_key,    NULL},
    [LADE_FIELD_TEXT]      = {s_fits_text,   s_say_text,   NULL},
    [LADE_FIELD_URL]       = {s_fits_url,    s_say_url,    NULL},
    [LADE_FIELD_ENUM]      = {s_fits_word,   s_say_word,   NULL},
    [LADE_FIELD_VARIANT]   = {s_fits_word,   s_say_word,   NULL},
    [LADE_FIELD_ENUMS]     = {s_fits_texts,  s_say_words,  NULL},
    [LADE_FIELD_TEXTS]     = {s_fits_texts,  s_say_texts,  NULL},
    [LADE_FIELD_INTEGER]   = {s_fits_number, s_say_number, NULL},
    [LADE_FIELD_EITHER]    = {s_fits_number, s_say_either, NULL},
    [LADE_FIELD_NUMBER]    = {s_fits_number, s_say_number, NULL},
    [LADE_FIELD_EIGHTS]    = {s_fits_number, s_say_number, NULL},
    [LADE_FIELD_SWITCH]    = {s_fits_switch, s_say_switch, NULL},
    [LADE_FIELD_MAP]       = {s_fits_map,    s_say_map,    NULL},
    [LADE_FIELD_BLOB]      = {s_fits_blob,   s_say_blob,   NULL},
    [LADE_FIELD_SUBMODELS] = {s_fits_map,    s_say_map,    s_check_submodels},
    [LADE_FIELD_SETTINGS]  = {s_fits_map,    s_say_map,    s_check_settings},
    // clang-format on
};

lade_code_t
lade_record_check_value(const lade_record_class_t *class, const lade_field_t *field,
                        const json_t *value, lade_error_t *error)
{
    if (s_types[field->type].fits(class, field, value))
        return s_types[field->type].within ? s_types[field->type].within(class, value, error)
                                           : LADE_OK;
    char takes[600], shown[61];
    s_types[field->type].say(class, field, takes, sizeof takes);
    s_show(value, shown);
    return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "%s: %s does not do; it %s",
                          field->name, shown, takes);
}

static lade_code_t
s_refuse_foreign(const lade_record_class_t *class, const lade_field_t *field, lade_error_t *error)
{
    if (field->base && lade_record_pattern_fits(field->classes, class->text))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "%s: only models of base %s have it, and this one is of base %s",
                              field->name, field->base, class->base);
    return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                          "%s: models of class %s (type.format) have no such field", field->name,
                          class->text);
}

static lade_code_t
s_check_field(const lade_record_class_t *class, const lade_field_t *field, const json_t *value,
              lade_error_t *error)
{
    bool has = lade_record_class_has(class, field);
    if (value && !json_is_null(value))
        return has ? lade_record_check_value(class, field, value, error)
                   : s_refuse_foreign(class, field, error);
    // A change set may leave out anything, but take away nothing that every record has.
    bool needed = field->required && has && (!class->open || !field->classes);
    if (!needed || (!class->known && !value))
        return LADE_OK;
    return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                          "%s: missing, and every record%s%s has it", field->name,
                          field->classes ? " of class " : "", field->classes ? class->text : "");
}

// What is not in the table is somebody else's: kept, and not looked at.
static lade_code_t
s_check_submodels(const lade_record_class_t *class, const json_t *submodels, lade_error_t *error)
{
    lade_record_class_t open = {.base = class->base, .known = true, .open = true};
    const char *name;
    json_t *submodel;
    json_object_foreach((json_t *)submodels, name, submodel)
    {
        char shown[61];
        s_show_name(name, shown);
        if (!json_is_object(submodel))
            return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "submodels: %s takes a map",
                                  shown);
        for (size_t i = 0; i < lade_record_submodel.count; i++)
            if (s_check_field(&open, &lade_record_submodel.rows[i],
                              json_object_get(submodel, lade_record_submodel.rows[i].name), error))
                return lade_error_wrap(error, "submodels: %s", shown);
    }
    return LADE_OK;
}

// A LoRA's weight lies between its ends, which are -1 and 2 where they are not set.
static lade_code_t
s_check_weights(const json_t *settings, lade_error_t *error)
{
    double min = lade_json_real(settings, "weight_min", -1),
           max = lade_json_real(settings, "weight_max", 2);
    if (min >= max)
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "weight_min: %.15g does not do; it takes a number below weight_max, "
                              "which is %.15g",
                              min, max);
    double weight = lade_json_real(settings, "weight", min);
    if (weight >= min && weight <= max)
        return LADE_OK;
    return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                          "weight: %.15g does not do; it takes a number from weight_min to "
                          "weight_max, which are %.15g and %.15g",
                          weight, min, max);
}

// A setting that is null is one that is not set.
static lade_code_t
s_check_setting(const lade_record_class_t *class, const char *name, const json_t *value,
                lade_error_t *error)
{
    const lade_field_t *field = lade_record_row(class, &lade_record_settings, name);
    char shown[61];
    if (!field) {
        s_show_name(name, shown);
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "there is no setting %s", shown);
    }
    if (!lade_record_class_has(class, field))
        return s_refuse_foreign(class, field, error);
    return json_is_null(value) ? LADE_OK : lade_record_check_value(class, field, value, error);
}

static lade_code_t
s_check_kind(const lade_record_class_t *class, const json_t *settings, lade_error_t *error)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)settings, name, value)
    {
        if (s_check_setting(class, name, value, error))
            return LADE_INVALID_MODEL_CONFIG;
    }
    for (size_t i = 0; i < lade_record_settings.count; i++)
        if (lade_record_settings.rows[i].required &&
            lade_record_class_has(class, &lade_record_settings.rows[i]) &&
            !json_object_get(settings, lade_record_settings.rows[i].name))
            return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                                  "%s: missing; it is named, or said to be null",
                                  lade_record_settings.rows[i].name);
    return s_check_weights(settings, error);
}

// A class of each kind of default settings (main, LoRA, control adapter), tried in this order while
// the model's is not known.
static const char *const s_kinds[] = {"main.diffusers", "lora.lycoris", "controlnet.diffusers"};

enum { S_KINDS = sizeof s_kinds / sizeof *s_kinds };

// Which kind the settings of a change set are of: the first that takes them, else the first that
// has all their names, else the first of all.
static lade_record_class_t
s_kind_of(const json_t *settings)
{
    lade_record_class_t kinds[S_KINDS] = {0};
    size_t named = S_KINDS;
    for (size_t i = 0; i < S_KINDS; i++) {
        snprintf(kinds[i].text, sizeof kinds[i].text, "%s", s_kinds[i]);
        if (s_check_kind(&kinds[i], settings, NULL) == LADE_OK)
            return kinds[i];
        const char *name;
        json_t *value;
        bool has = true;
        json_object_foreach((json_t *)settings, name, value)
        {
            has = has && s_check_setting(&kinds[i], name, json_null(), NULL) == LADE_OK;
        }
        if (has && named == S_KINDS)
            named = i;
    }
    return kinds[named < S_KINDS ? named : 0];
}

static lade_code_t
s_check_settings(const lade_record_class_t *class, const json_t *settings, lade_error_t *error)
{
    lade_record_class_t kind = class->open ? s_kind_of(settings) : *class;
    return s_check_kind(&kind, settings, error) ? lade_error_wrap(error, "default_settings")
                                                : LADE_OK;
}

static lade_code_t
s_check_class(const json_t *record, lade_error_t *error)
{
    const char *type = json_string_value(json_object_get(record, "type"));
    const char *format = json_string_value(json_object_get(record, "format"));
    if (!lade_enum_has(LADE_ENUM_TYPE, type) || !lade_enum_has(LADE_ENUM_FORMAT, format) ||
        lade_taxonomy_is_class(type, format))
        return LADE_OK;
    char takes[300];
    s_say_values(takes, sizeof takes, lade_taxonomy_formats(type));
    return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                          "format: %s does not do for a model of type %s; it %s, or unknown",
                          format, type, takes);
}

static lade_code_t
s_check_bases(const json_t *record, lade_error_t *error)
{
    const json_t *bases = json_object_get(record, "bases"), *base = json_object_get(record, "base");
    bool has = !json_array_size(bases);
    for (size_t i = 0; i < json_array_size(bases) && !has; i++)
        has = json_equal(json_array_get(bases, i), (json_t *)base);
    return has ? LADE_OK
               : lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                                "bases: %s, the base, has to be among them",
                                json_string_value(base));
}

lade_code_t
lade_record_check_all(const lade_record_class_t *class, const json_t *record, lade_error_t *error)
{
    if (!json_is_object(record))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "a model record has to be a map");
    // Type, base and format decide about the others, so an error in them is the one to tell: they
    // come first.
    if (s_check_class(record, error))
        return LADE_INVALID_MODEL_CONFIG;
    for (size_t i = 0; i < lade_record_fields.count; i++) {
        const json_t *value = json_object_get(record, lade_record_fields.rows[i].name);
        if (!value && !lade_record_fields.rows[i].required)
            continue;
        const lade_field_t *field =
            lade_record_row(class, &lade_record_fields, lade_record_fields.rows[i].name);
        lade_code_t code = s_check_field(class, field, value, error);
        if (code)
            return code;
    }
    return class->known ? s_check_bases(record, error) : LADE_OK;
}
