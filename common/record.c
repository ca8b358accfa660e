// Model records: the taxonomy, the table of fields, and the one check that walks it.
#include "common/record.h"

#include "common/taxonomy.h"
#include "common/wire.h"

#include <assert.h>
#include <ctype.h>
#include <fnmatch.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

// ---------------------------------------------------------------------------------------------------
// The fields

typedef enum {
    S_KEY,       // text that can be part of a file name and of an index
    S_TEXT,      // max: bytes
    S_URL,       // the same, http or https
    S_ENUM,      // one of values
    S_ENUMS,     // an array of them, not empty
    S_VARIANT,   // one of those its class has (lade_taxonomy_variants)
    S_TEXTS,     // an array of text, max: items
    S_INTEGER,   // from min to max
    S_EITHER,    // an integer: min or max
    S_NUMBER,    // from min to max, with fraction
    S_EIGHTS,    // an integer that 8 divides
    S_SWITCH,    // true or false
    S_MAP,       // a map of anything
    S_BLOB,      // text or a map
    S_SUBMODELS, // a map of maps (s_submodel)
    S_SETTINGS,  // a map with fields of its own (s_settings)
} s_type_t;

typedef struct {
    const char *name;
    s_type_t type;
    bool required;
    const char *classes; // space-separated patterns of TYPE.FORMAT that have it; NULL: all
    const char *base;    // the only base that has it; NULL: all
    lade_enum_t values;
    double min, max;
} s_field_t;

enum {
    S_MAX_KEY = 64,
    S_MAX_NAME = 512,
    S_MAX_PATH = 4096,
    S_MAX_TEXT = 64 << 10,
    S_MAX_BLOB = 4 << 20,
    S_MAX_TEXTS = 1000,
    S_MAX_CHANNELS = 1 << 20,
};
#define S_MAX_INTEGER 9007199254740992.0 // above, a double no longer holds every integer
#define S_BELOW_ONE 0x1.fffffffffffffp-1

#define MAIN "main.* external_image_generator.*"
#define CONTROL "controlnet.* t2i_adapter.* control_lora.*"
#define FILES "*.checkpoint *_quantized *_nf4b *_int8b"
#define FOLDERS "*.diffusers *.onnx *.olive *_encoder.*"
#define ENCODERS                                                                                   \
    "*_encoder.* clip_embed.* clip_vision.* siglip.* text_llm.* llava_onevision.* vae.*"
// clang-format off
// A field may have several rows for several classes; the first that fits counts.
static const s_field_t s_fields[] = {
    // field                   type         required classes        base    values                   min  max
    {"key",                    S_KEY,       false,   NULL,          NULL,   0,                       1,   S_MAX_KEY},
    {"name",                   S_TEXT,      true,    NULL,          NULL,   0,                       1,   S_MAX_NAME},
    {"type",                   S_ENUM,      true,    NULL,          NULL,   LADE_ENUM_TYPE,          0,   0},
    {"base",                   S_ENUM,      true,    NULL,          NULL,   LADE_ENUM_BASE,          0,   0},
    {"format",                 S_ENUM,      true,    NULL,          NULL,   LADE_ENUM_FORMAT,        0,   0},
    {"bases",                  S_ENUMS,     false,   NULL,          NULL,   LADE_ENUM_BASE,          1,   S_MAX_TEXTS},
    {"path",                   S_TEXT,      true,    NULL,          NULL,   0,                       1,   S_MAX_PATH},
    {"hash",                   S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_NAME},
    {"description",            S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"source",                 S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"source_type",            S_ENUM,      false,   NULL,          NULL,   LADE_ENUM_SOURCE_TYPE,   0,   0},
    {"source_url",             S_URL,       false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"source_revision",        S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_NAME},
    {"license",                S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"author",                 S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_NAME},
    {"source_api_response",    S_BLOB,      false,   NULL,          NULL,   0,                       0,   S_MAX_BLOB},
    {"cover_image",            S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"tags",                   S_TEXTS,     false,   NULL,          NULL,   0,                       0,   S_MAX_TEXTS},
    {"file_size",              S_INTEGER,   false,   NULL,          NULL,   0,                       0,   S_MAX_INTEGER},
    {"title",                  S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_NAME},
    {"usage_hint",             S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"resolution",             S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_NAME},
    {"training",               S_MAP,       false,   NULL,          NULL,   0,                       0,   0},
    {"preview",                S_MAP,       false,   NULL,          NULL,   0,                       0,   0},
    {"precision",              S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_NAME},
    {"parameters",             S_INTEGER,   false,   NULL,          NULL,   0,                       0,   S_MAX_INTEGER},
    {"ema",                    S_SWITCH,    false,   NULL,          NULL,   0,                       0,   0},
    {"requires",               S_TEXTS,     false,   NULL,          NULL,   0,                       0,   S_MAX_TEXTS},
    {"dialect",                S_TEXT,      false,   "lora.* control_lora.*", NULL, 0,               0,   S_MAX_NAME},
    {"architecture",           S_TEXT,      false,   "spandrel_image_to_image.*", NULL, 0,           0,   S_MAX_NAME},
    {"repo_variant",           S_ENUM,      false,   FOLDERS,       NULL,   LADE_ENUM_REPO_VARIANT,  0,   0},
    {"submodels",              S_SUBMODELS, false,   "main.* onnx.*", NULL, 0,                       0,   0},
    {"variant",                S_VARIANT,   false,   NULL,          NULL,   0,                       0,   0},
    {"prediction_type",        S_ENUM,      false,   "main.* onnx.*", NULL, LADE_ENUM_PREDICTION,    0,   0},
    {"upcast_attention",       S_SWITCH,    false,   "main.* onnx.*", NULL, 0,                       0,   0},
    {"vae",                    S_TEXT,      false,   "main.* onnx.*", NULL, 0,                       0,   S_MAX_PATH},
    {"config_path",            S_TEXT,      false,   FILES,         NULL,   0,                       0,   S_MAX_PATH},
    {"converted_at",           S_NUMBER,    false,   FILES,         NULL,   0,                       0,   S_MAX_INTEGER},
    {"trigger_phrases",        S_TEXTS,     false,   "main.* lora.* control_lora.* embedding.*", NULL, 0, 0, S_MAX_TEXTS},
    {"image_encoder_model_id", S_TEXT,      true,    "ip_adapter.invokeai", NULL, 0,                 1,   S_MAX_NAME},
    {"expert",                 S_ENUM,      false,   "main.*",      "wan",  LADE_ENUM_EXPERT,        0,   0},
    {"expert",                 S_ENUM,      false,   "lora.*",      "wan",  LADE_ENUM_LORA_EXPERT,   0,   0},
    {"has_dual_expert",        S_SWITCH,    false,   "main.diffusers", "wan", 0,                     0,   0},
    {"boundary_ratio",         S_NUMBER,    false,   "main.diffusers", "wan", 0,                     0,   1},
    {"latent_channels",        S_EITHER,    false,   "vae.*",       "wan",  0,                       16,  48},
    {"cond_in_channels",       S_EITHER,    false,   "controlnet.*", "anima", 0,                     3,   4},
    {"cpu_only",               S_SWITCH,    false,   ENCODERS,      NULL,   0,                       0,   0},
    {"provider_id",            S_TEXT,      false,   "external_image_generator.*", NULL, 0,          1,   S_MAX_NAME},
    {"provider_model_id",      S_TEXT,      false,   "external_image_generator.*", NULL, 0,          1,   S_MAX_NAME},
    {"capabilities",           S_MAP,       false,   "external_image_generator.*", NULL, 0,          0,   0},
    {"default_settings",       S_SETTINGS,  false,   MAIN " lora.* " CONTROL, NULL, 0,               0,   0},
    {"quarantined",            S_SWITCH,    false,   NULL,          NULL,   0,                       0,   0},
    {"created_at",             S_NUMBER,    false,   NULL,          NULL,   0,                       0,   S_MAX_INTEGER},
    {"updated_at",             S_NUMBER,    false,   NULL,          NULL,   0,                       0,   S_MAX_INTEGER},
    {"version",                S_INTEGER,   false,   NULL,          NULL,   0,                       1,   S_MAX_INTEGER},
};

// What default_settings may hold, by kind (s_kinds); nothing else may be in it.
static const s_field_t s_settings[] = {
    {"vae",                    S_TEXT,      false,   MAIN,          NULL,   0,                       1,   S_MAX_PATH},
    {"vae_precision",          S_ENUM,      false,   MAIN,          NULL,   LADE_ENUM_PRECISION,     0,   0},
    {"scheduler",              S_ENUM,      false,   MAIN,          NULL,   LADE_ENUM_SCHEDULER,     0,   0},
    {"steps",                  S_INTEGER,   false,   MAIN,          NULL,   0,                       1,   100000},
    {"cfg_scale",              S_NUMBER,    false,   MAIN,          NULL,   0,                       1,   100000},
    {"cfg_rescale_multiplier", S_NUMBER,    false,   MAIN,          NULL,   0,                       0,   S_BELOW_ONE},
    {"guidance",               S_NUMBER,    false,   MAIN,          NULL,   0,                       1,   100000},
    {"width",                  S_EIGHTS,    false,   MAIN,          NULL,   0,                       64,  1 << 20},
    {"height",                 S_EIGHTS,    false,   MAIN,          NULL,   0,                       64,  1 << 20},
    {"cpu_only",               S_SWITCH,    false,   MAIN,          NULL,   0,                       0,   0},
    {"fp8_storage",            S_SWITCH,    false,   MAIN " " CONTROL, NULL, 0,                      0,   0},
    {"preprocessor",           S_TEXT,      true,    CONTROL,       NULL,   0,                       0,   S_MAX_NAME},
    {"weight",                 S_NUMBER,    false,   "lora.*",      NULL,   0,                       -1000, 1000},
    {"weight_min",             S_NUMBER,    false,   "lora.*",      NULL,   0,                       -1000, 1000},
    {"weight_max",             S_NUMBER,    false,   "lora.*",      NULL,   0,                       -1000, 1000},
};

// What a submodel says of itself, besides what else was found out about it.
static const s_field_t s_submodel[] = {
    {"path_or_prefix",         S_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_PATH},
    {"model_type",             S_ENUM,      false,   NULL,          NULL,   LADE_ENUM_TYPE,          0,   0},
    {"variant",                S_ENUM,      false,   NULL,          NULL,   LADE_ENUM_VARIANT,       0,   0},
};

// A class of each kind of default settings (main, LoRA, control adapter), tried in this order while
// the model's is not known.
static const char *const s_kinds[] = {"main.diffusers", "lora.lycoris", "controlnet.diffusers"};

static const struct {
    const char *alias, *field;
} s_aliases[] = {
    {"base_model",   "base"},
    {"model_type",   "type"},
    {"model_format", "format"},
    {"config",       "config_path"},
};
// clang-format on
enum {
    S_FIELDS = sizeof s_fields / sizeof *s_fields,
    S_SETTINGS_FIELDS = sizeof s_settings / sizeof *s_settings,
    S_SUBMODEL_FIELDS = sizeof s_submodel / sizeof *s_submodel,
    S_KINDS = sizeof s_kinds / sizeof *s_kinds,
    S_ALIASES = sizeof s_aliases / sizeof *s_aliases,
};

// ---------------------------------------------------------------------------------------------------
// Classes: what a record is, as far as the tables ask

typedef struct {
    char text[64]; // "TYPE.FORMAT"
    const char *base;
    bool known; // it is a whole record, no change set
    bool open;  // has every field: a change set, or a model of unknown type or format
} s_class_t;

static s_class_t
s_class(const json_t *record)
{
    s_class_t class = {.base = json_string_value(json_object_get(record, "base")), .known = true};
    const char *type = json_string_value(json_object_get(record, "type"));
    const char *format = json_string_value(json_object_get(record, "format"));
    snprintf(class.text, sizeof class.text, "%s.%s", type ? type : "", format ? format : "");
    class.open =
        (type && strcmp(type, "unknown") == 0) || (format && strcmp(format, "unknown") == 0);
    return class;
}

// A pattern is text with a star at its beginning, at its end, at both or nowhere.
static bool
s_fits(const char *patterns, const char *class)
{
    size_t size = strlen(class);
    for (const char *at = patterns; *at;) {
        size_t len = strcspn(at, " ");
        bool head = at[0] == '*', tail = at[len - 1] == '*';
        const char *text = at + head;
        size_t part = len - head - tail;
        if (head && tail ? memmem(class, size, text, part) != NULL
                         : part <= size && (part == size || head || tail) &&
                               memcmp(head ? class + size - part : class, text, part) == 0)
            return true;
        at += len + strspn(at + len, " ");
    }
    return false;
}

// The variants a class has; all there are if it is open, NULL if it has none.
static const char *const *
s_class_variants(const s_class_t *class)
{
    return class->open ? lade_enum_values(LADE_ENUM_VARIANT)
                       : lade_taxonomy_variants(class->text, class->base);
}

static bool
s_class_has(const s_class_t *class, const s_field_t *field)
{
    if (field->type == S_VARIANT)
        return s_class_variants(class) != NULL;
    if (class->open)
        return true;
    return (!field->classes || s_fits(field->classes, class->text)) &&
           (!field->base || (class->base && strcmp(field->base, class->base) == 0));
}

// The row that says what a field is in a class: the first that fits, but for the base at least;
// else the first of that name.
static const s_field_t *
s_row(const s_class_t *class, const s_field_t *table, size_t count, const char *name)
{
    const s_field_t *found = NULL;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].name, name) != 0)
            continue;
        if (!table[i].classes || class->open || s_fits(table[i].classes, class->text))
            return &table[i];
        found = found ? found : &table[i];
    }
    return found;
}

// ---------------------------------------------------------------------------------------------------
// Checks. Each says what the field takes; s_check_value puts field and value in front.

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
s_fits_text(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    (void)class;
    double len = (double)json_string_length(value);
    return s_is_text(value) && len >= field->min && len <= field->max;
}

static void
s_say_text(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes text (UTF-8) of %.0f to %.0f bytes", field->min, field->max);
}

static bool
s_fits_key(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    return s_fits_text(class, field, value) && s_is_key(json_string_value(value));
}

static void
s_say_key(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes letters, digits and . _ - (at most %.0f, no dot first)",
             field->max);
}

static bool
s_fits_url(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    return s_fits_text(class, field, value) &&
           (fnmatch("http://?*", json_string_value(value), 0) == 0 ||
            fnmatch("https://?*", json_string_value(value), 0) == 0);
}

static void
s_say_url(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes a URL of at most %.0f bytes that begins with http:// or https://",
             field->max);
}

static const char *const *
s_words(const s_class_t *class, const s_field_t *field)
{
    return field->type == S_VARIANT ? s_class_variants(class) : lade_enum_values(field->values);
}

static bool
s_fits_word(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    return s_is_text(value) && lade_taxonomy_has(s_words(class, field), json_string_value(value));
}

static void
s_say_word(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    s_say_values(takes, size, s_words(class, field));
}

static bool
s_fits_texts(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    double count = (double)json_array_size(value);
    bool fine = json_is_array(value) && count >= field->min && count <= field->max;
    for (size_t i = 0; i < json_array_size(value) && fine; i++) {
        const json_t *item = json_array_get(value, i);
        size_t len = json_string_length(item);
        fine = field->type == S_ENUMS ? s_fits_word(class, field, item)
                                      : s_is_text(item) && len > 0 && len <= S_MAX_NAME;
    }
    return fine;
}

static void
s_say_texts(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes a list of at most %.0f texts of 1 to %d bytes", field->max,
             S_MAX_NAME);
}

static void
s_say_words(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    size_t len = (size_t)snprintf(takes, size, "takes a list of one or more; each ");
    s_say_word(class, field, takes + len, size - len);
}

static bool
s_fits_number(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    (void)class;
    if (field->type == S_NUMBER ? !json_is_number(value) : !json_is_integer(value))
        return false;
    double number = json_number_value(value);
    if (!(number >= field->min && number <= field->max))
        return false;
    if (field->type == S_EITHER)
        return number <= field->min || number >= field->max;
    return field->type != S_EIGHTS || json_integer_value(value) % 8 == 0;
}

static void
s_say_number(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes %s from %.15g to %.15g",
             field->type == S_NUMBER   ? "a number"
             : field->type == S_EIGHTS ? "a multiple of 8"
                                       : "an integer",
             field->min, field->max);
}

static void
s_say_either(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes %.15g or %.15g", field->min, field->max);
}

static bool
s_fits_switch(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    (void)class;
    (void)field;
    return json_is_boolean(value);
}

static void
s_say_switch(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    (void)field;
    snprintf(takes, size, "takes true or false");
}

static bool
s_fits_map(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    (void)class;
    (void)field;
    return json_is_object(value);
}

static void
s_say_map(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    (void)field;
    snprintf(takes, size, "takes a map");
}

static bool
s_fits_blob(const s_class_t *class, const s_field_t *field, const json_t *value)
{
    return json_is_object(value) || s_fits_text(class, field, value);
}

static void
s_say_blob(const s_class_t *class, const s_field_t *field, char *takes, size_t size)
{
    (void)class;
    snprintf(takes, size, "takes text of at most %.0f bytes, or a map", field->max);
}

static lade_code_t s_check_settings(const s_class_t *class, const json_t *settings,
                                    lade_error_t *error);
static lade_code_t s_check_submodels(const s_class_t *class, const json_t *submodels,
                                     lade_error_t *error);

static const struct {
    bool (*fits)(const s_class_t *class, const s_field_t *field, const json_t *value);
    void (*say)(const s_class_t *class, const s_field_t *field, char *takes, size_t size);
    lade_code_t (*within)(const s_class_t *class, const json_t *value, lade_error_t *error);
} s_types[] = {
    // clang-format off
    [S_KEY]       = {s_fits_key,    s_say_key,    NULL},
    [S_TEXT]      = {s_fits_text,   s_say_text,   NULL},
    [S_URL]       = {s_fits_url,    s_say_url,    NULL},
    [S_ENUM]      = {s_fits_word,   s_say_word,   NULL},
    [S_VARIANT]   = {s_fits_word,   s_say_word,   NULL},
    [S_ENUMS]     = {s_fits_texts,  s_say_words,  NULL},
    [S_TEXTS]     = {s_fits_texts,  s_say_texts,  NULL},
    [S_INTEGER]   = {s_fits_number, s_say_number, NULL},
    [S_EITHER]    = {s_fits_number, s_say_either, NULL},
    [S_NUMBER]    = {s_fits_number, s_say_number, NULL},
    [S_EIGHTS]    = {s_fits_number, s_say_number, NULL},
    [S_SWITCH]    = {s_fits_switch, s_say_switch, NULL},
    [S_MAP]       = {s_fits_map,    s_say_map,    NULL},
    [S_BLOB]      = {s_fits_blob,   s_say_blob,   NULL},
    [S_SUBMODELS] = {s_fits_map,    s_say_map,    s_check_submodels},
    [S_SETTINGS]  = {s_fits_map,    s_say_map,    s_check_settings},
    // clang-format on
};

static lade_code_t
s_check_value(const s_class_t *class, const s_field_t *field, const json_t *value,
              lade_error_t *error)
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
s_refuse_foreign(const s_class_t *class, const s_field_t *field, lade_error_t *error)
{
    if (field->base && s_fits(field->classes, class->text))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "%s: only models of base %s have it, and this one is of base %s",
                              field->name, field->base, class->base);
    return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                          "%s: models of class %s (type.format) have no such field", field->name,
                          class->text);
}

static lade_code_t
s_check_field(const s_class_t *class, const s_field_t *field, const json_t *value,
              lade_error_t *error)
{
    bool has = s_class_has(class, field);
    if (value && !json_is_null(value))
        return has ? s_check_value(class, field, value, error)
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
s_check_submodels(const s_class_t *class, const json_t *submodels, lade_error_t *error)
{
    s_class_t open = {.base = class->base, .known = true, .open = true};
    const char *name;
    json_t *submodel;
    json_object_foreach((json_t *)submodels, name, submodel)
    {
        char shown[61];
        s_show_name(name, shown);
        if (!json_is_object(submodel))
            return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "submodels: %s takes a map",
                                  shown);
        for (size_t i = 0; i < S_SUBMODEL_FIELDS; i++)
            if (s_check_field(&open, &s_submodel[i], json_object_get(submodel, s_submodel[i].name),
                              error))
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
s_check_setting(const s_class_t *class, const char *name, const json_t *value, lade_error_t *error)
{
    const s_field_t *field = s_row(class, s_settings, S_SETTINGS_FIELDS, name);
    char shown[61];
    if (!field) {
        s_show_name(name, shown);
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "there is no setting %s", shown);
    }
    if (!s_class_has(class, field))
        return s_refuse_foreign(class, field, error);
    return json_is_null(value) ? LADE_OK : s_check_value(class, field, value, error);
}

static lade_code_t
s_check_kind(const s_class_t *class, const json_t *settings, lade_error_t *error)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)settings, name, value)
    {
        if (s_check_setting(class, name, value, error))
            return LADE_INVALID_MODEL_CONFIG;
    }
    for (size_t i = 0; i < S_SETTINGS_FIELDS; i++)
        if (s_settings[i].required && s_class_has(class, &s_settings[i]) &&
            !json_object_get(settings, s_settings[i].name))
            return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                                  "%s: missing; it is named, or said to be null",
                                  s_settings[i].name);
    return s_check_weights(settings, error);
}

// Which kind the settings of a change set are of: the first that takes them, else the first that
// has all their names, else the first of all.
static s_class_t
s_kind_of(const json_t *settings)
{
    s_class_t kinds[S_KINDS] = {0};
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
s_check_settings(const s_class_t *class, const json_t *settings, lade_error_t *error)
{
    s_class_t kind = class->open ? s_kind_of(settings) : *class;
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

static lade_code_t
s_check_all(const s_class_t *class, const json_t *record, lade_error_t *error)
{
    if (!json_is_object(record))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "a model record has to be a map");
    // Type, base and format decide about the others, so an error in them is the one to tell: they
    // come first.
    if (s_check_class(record, error))
        return LADE_INVALID_MODEL_CONFIG;
    for (size_t i = 0; i < S_FIELDS; i++) {
        const json_t *value = json_object_get(record, s_fields[i].name);
        if (!value && !s_fields[i].required)
            continue;
        const s_field_t *field = s_row(class, s_fields, S_FIELDS, s_fields[i].name);
        lade_code_t code = s_check_field(class, field, value, error);
        if (code)
            return code;
    }
    return class->known ? s_check_bases(record, error) : LADE_OK;
}

// ---------------------------------------------------------------------------------------------------

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
    if (bases > 1 && bases <= S_MAX_TEXTS)
        s_make_set(record);
}

void
lade_record_settle_bases(json_t *record)
{
    json_t *bases = json_object_get(record, "bases"), *base = json_object_get(record, "base");
    if (!json_array_size(bases) || json_array_size(bases) > S_MAX_TEXTS)
        return;
    if (json_is_string(base))
        s_include(bases, base);
    else if (!base || json_is_null(base))
        json_object_set(record, "base", json_array_get(bases, 0));
}

lade_code_t
lade_record_check(const json_t *record, lade_error_t *error)
{
    s_class_t class = s_class(record);
    return s_check_all(&class, record, error);
}

static lade_code_t
s_check_given(const json_t *given, lade_error_t *error)
{
    json_t *copy = json_copy((json_t *)given); // shallow
    lade_record_canonical(copy);
    s_class_t class = {.open = true};
    lade_code_t code = s_check_all(&class, copy, error);
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
    s_class_t class = s_class(record);
    for (size_t i = 0; i < S_FIELDS; i++) {
        const char *name = s_fields[i].name;
        const s_field_t *field = s_row(&class, s_fields, S_FIELDS, name);
        const json_t *value = json_object_get(record, name);
        if (!value || json_object_get(changes, name))
            continue;
        bool keeps = s_class_has(&class, field);
        if (keeps && (field->type == S_VARIANT || field->type == S_SETTINGS || field->classes))
            keeps = s_check_value(&class, field, value, NULL) == LADE_OK;
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
    if (!json_array_size(bases) || json_array_size(bases) > S_MAX_TEXTS)
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
