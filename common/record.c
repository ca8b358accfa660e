// Model records: the taxonomy, the table of fields, and the one check that walks it.
#include "common/record.h"

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
// The taxonomy

typedef const char *const s_values_t[];

// clang-format off
static s_values_t s_types = {
    "onnx", "main", "vae", "lora", "control_lora", "controlnet", "embedding", "ip_adapter", "clip_vision",
    "clip_embed", "t2i_adapter", "t5_encoder", "qwen3_encoder", "qwen_vl_encoder", "qwen3_vl_encoder",
    "mistral_encoder", "wan_t5_encoder", "gemma2_encoder", "spandrel_image_to_image", "siglip", "flux_redux",
    "llava_onevision", "prompt_enhancer", "text_llm", "pid_decoder", "external_image_generator", "unknown", NULL};
static s_values_t s_bases = {
    "any", "sd-1", "sd-2", "sd-3", "sdxl", "sdxl-refiner", "flux", "flux2", "cogview4", "z-image", "ernie-image",
    "ideogram-4", "qwen-image", "anima", "krea-2", "wan", "external", "unknown", NULL};
static s_values_t s_formats = {
    "diffusers", "checkpoint", "lycoris", "onnx", "olive", "embedding_file", "embedding_folder", "invokeai",
    "omi", "t5_encoder", "qwen3_encoder", "qwen_vl_encoder", "qwen3_vl_encoder", "mistral_encoder",
    "wan_t5_encoder", "gemma2_encoder", "bnb_quantized_int8b", "bnb_quantized_nf4b", "gguf_quantized",
    "sdnq_quantized", "external_api", "unknown", NULL};
static s_values_t s_predictions = {"epsilon", "v_prediction", "sample", NULL};
static s_values_t s_repo_variants = {"", "fp16", "fp32", "onnx", "openvino", "flax", NULL};
static s_values_t s_source_types = {"path", "url", "hf_repo_id", "external", NULL};
static s_values_t s_submodels = {
    "unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer",
    "tokenizer_2", "tokenizer_3", "vae", "vae_decoder", "vae_encoder", "scheduler", "safety_checker", "pe",
    "pe_tokenizer", NULL};

// Every class has variants of its own; s_variants is all of them.
static s_values_t s_model_variants = {"normal", "inpaint", "depth", NULL};
static s_values_t s_clip_variants = {"large", "gigantic", NULL};
static s_values_t s_flux_variants = {"schnell", "dev", "dev_fill", NULL};
static s_values_t s_flux2_variants = {
    "klein_4b", "klein_4b_base", "klein_9b", "klein_9b_base", "dev", NULL};
static s_values_t s_z_image_variants = {"turbo", "zbase", NULL};
static s_values_t s_krea_variants = {"krea2_turbo", "krea2_base", NULL};
static s_values_t s_qwen_variants = {"generate", "edit", NULL};
static s_values_t s_wan_variants = {"t2v_a14b", "i2v_a14b", "ti2v_5b", NULL};
static s_values_t s_wan_lora_variants = {"a14b", "5b", NULL};
static s_values_t s_qwen3_variants = {"qwen3_4b", "qwen3_8b", "qwen3_06b", NULL};
static s_values_t s_mistral_variants = {"cow_mistral3_small", "mistral3_24b", NULL};
static s_values_t s_pid_variants = {"res2k_sr4x", "res2kto4k_sr4x", NULL};
static s_values_t s_variants = {
    "normal", "inpaint", "depth", "large", "gigantic", "schnell", "dev", "dev_fill", "klein_4b", "klein_4b_base",
    "klein_9b", "klein_9b_base", "turbo", "zbase", "krea2_turbo", "krea2_base", "generate", "edit", "t2v_a14b",
    "i2v_a14b", "ti2v_5b", "a14b", "5b", "qwen3_4b", "qwen3_8b", "qwen3_06b", "cow_mistral3_small",
    "mistral3_24b", "res2k_sr4x", "res2kto4k_sr4x", NULL};

static const char *const *const s_enums[] = {
    [LADE_ENUM_TYPE]         = s_types,
    [LADE_ENUM_BASE]         = s_bases,
    [LADE_ENUM_FORMAT]       = s_formats,
    [LADE_ENUM_VARIANT]      = s_variants,
    [LADE_ENUM_PREDICTION]   = s_predictions,
    [LADE_ENUM_REPO_VARIANT] = s_repo_variants,
    [LADE_ENUM_SUBMODEL]     = s_submodels,
    [LADE_ENUM_SOURCE_TYPE]  = s_source_types,
};

// Which class (TYPE.FORMAT) of which base has which variants; the first row that fits counts.
static const struct {
    const char *class;
    const char *base; // NULL: any
    const char *const *values;
} s_variants_of[] = {
    {"main.*",            "flux",       s_flux_variants},
    {"main.*",            "flux2",      s_flux2_variants},
    {"lora.*",            "flux2",      s_flux2_variants},
    {"main.*",            "z-image",    s_z_image_variants},
    {"main.*",            "krea-2",     s_krea_variants},
    {"main.*",            "qwen-image", s_qwen_variants},
    {"main.*",            "wan",        s_wan_variants},
    {"lora.*",            "wan",        s_wan_lora_variants},
    {"clip_embed.*",      NULL,         s_clip_variants},
    {"qwen3_encoder.*",   NULL,         s_qwen3_variants},
    {"mistral_encoder.*", NULL,         s_mistral_variants},
    {"pid_decoder.*",     NULL,         s_pid_variants},
    {"main.*",            NULL,         s_model_variants},
    {"onnx.*",            NULL,         s_model_variants},
};
// clang-format on
_Static_assert(sizeof s_enums / sizeof *s_enums == LADE_ENUM_COUNT, "an enumeration has no values");

const char *const *
lade_enum_values(lade_enum_t which)
{
    assert(which < LADE_ENUM_COUNT);
    return s_enums[which];
}

static bool
s_has(const char *const *values, const char *value)
{
    for (size_t i = 0; values && value && values[i]; i++)
        if (strcmp(values[i], value) == 0)
            return true;
    return false;
}

bool
lade_enum_has(lade_enum_t which, const char *value)
{
    return s_has(lade_enum_values(which), value);
}

// ---------------------------------------------------------------------------------------------------
// The fields

typedef enum {
    S_KEY,      // text that can be part of a file name and of an index
    S_TEXT,     // max: bytes
    S_ENUM,     // one of values
    S_ENUMS,    // an array of them
    S_VARIANT,  // one of those its class has (s_variants_of)
    S_TEXTS,    // an array of text, max: items
    S_INTEGER,  // from min to max
    S_NUMBER,   // the same, with fraction
    S_EIGHTS,   // an integer that 8 divides
    S_SWITCH,   // true or false
    S_MAP,      // a map of anything
    S_BLOB,     // text or a map
    S_SETTINGS, // a map with fields of its own (s_settings)
} s_type_t;

typedef struct {
    const char *name;
    s_type_t type;
    bool required;
    const char *classes; // space-separated patterns of TYPE.FORMAT that have it; NULL: all
    const char *const *values;
    double min, max;
} s_field_t;

static s_values_t s_precisions = {"fp16", "fp32", NULL};

enum {
    S_MAX_KEY = 64,
    S_MAX_NAME = 512,
    S_MAX_PATH = 4096,
    S_MAX_TEXT = 64 << 10,
    S_MAX_BLOB = 4 << 20,
    S_MAX_TEXTS = 1000,
};
#define S_MAX_INTEGER 9007199254740992.0 // above, a double no longer holds every integer
#define S_BELOW_ONE 0x1.fffffffffffffp-1

#define MAIN "main.* external_image_generator.*"
#define CONTROL "controlnet.* t2i_adapter.* control_lora.*"
// clang-format off
static const s_field_t s_fields[] = {
    // field                   type        required classes        values           min  max
    {"key",                    S_KEY,      false,   NULL,          NULL,            1,   S_MAX_KEY},
    {"name",                   S_TEXT,     true,    NULL,          NULL,            1,   S_MAX_NAME},
    {"type",                   S_ENUM,     true,    NULL,          s_types,         0,   0},
    {"base",                   S_ENUM,     true,    NULL,          s_bases,         0,   0},
    {"format",                 S_ENUM,     true,    NULL,          s_formats,       0,   0},
    {"path",                   S_TEXT,     true,    NULL,          NULL,            1,   S_MAX_PATH},
    {"hash",                   S_TEXT,     false,   NULL,          NULL,            0,   S_MAX_NAME},
    {"description",            S_TEXT,     false,   NULL,          NULL,            0,   S_MAX_TEXT},
    {"source",                 S_TEXT,     false,   NULL,          NULL,            0,   S_MAX_TEXT},
    {"source_type",            S_ENUM,     false,   NULL,          s_source_types,  0,   0},
    {"source_url",             S_TEXT,     false,   NULL,          NULL,            0,   S_MAX_TEXT},
    {"source_api_response",    S_BLOB,     false,   NULL,          NULL,            0,   S_MAX_BLOB},
    {"cover_image",            S_TEXT,     false,   NULL,          NULL,            0,   S_MAX_TEXT},
    {"tags",                   S_TEXTS,    false,   NULL,          NULL,            0,   S_MAX_TEXTS},
    {"bases",                  S_ENUMS,    false,   NULL,          s_bases,         0,   S_MAX_TEXTS},
    {"file_size",              S_INTEGER,  false,   NULL,          NULL,            0,   S_MAX_INTEGER},
    {"repo_variant",           S_ENUM,     false,   NULL,          s_repo_variants, 0,   0},
    {"submodels",              S_MAP,      false,   NULL,          NULL,            0,   0},
    {"variant",                S_VARIANT,  false,   NULL,          NULL,            0,   0},
    {"prediction_type",        S_ENUM,     false,   "main.* onnx.*", s_predictions, 0,   0},
    {"upcast_attention",       S_SWITCH,   false,   "main.* onnx.*", NULL,          0,   0},
    {"vae",                    S_TEXT,     false,   "main.* onnx.*", NULL,          0,   S_MAX_PATH},
    {"config_path",            S_TEXT,     false,   "*.checkpoint *_quantized *_nf4b *_int8b", NULL, 0, S_MAX_PATH},
    {"trigger_phrases",        S_TEXTS,    false,   "main.* lora.* control_lora.* embedding.*", NULL, 0, S_MAX_TEXTS},
    {"image_encoder_model_id", S_TEXT,     false,   "ip_adapter.*", NULL,           0,   S_MAX_NAME},
    {"default_settings",       S_SETTINGS, false,   MAIN " lora.* " CONTROL, NULL,  0,   0},
    {"created_at",             S_NUMBER,   false,   NULL,          NULL,            0,   S_MAX_INTEGER},
    {"updated_at",             S_NUMBER,   false,   NULL,          NULL,            0,   S_MAX_INTEGER},
    {"version",                S_INTEGER,  false,   NULL,          NULL,            1,   S_MAX_INTEGER},
};

// What default_settings may hold; nothing else may be in it.
static const s_field_t s_settings[] = {
    {"vae",                    S_TEXT,     false,   MAIN,          NULL,            1,   S_MAX_PATH},
    {"vae_precision",          S_ENUM,     false,   MAIN,          s_precisions,    0,   0},
    {"scheduler",              S_TEXT,     false,   MAIN,          NULL,            1,   S_MAX_NAME},
    {"steps",                  S_INTEGER,  false,   MAIN,          NULL,            1,   100000},
    {"cfg_scale",              S_NUMBER,   false,   MAIN,          NULL,            1,   100000},
    {"cfg_rescale_multiplier", S_NUMBER,   false,   MAIN,          NULL,            0,   S_BELOW_ONE},
    {"guidance",               S_NUMBER,   false,   MAIN,          NULL,            1,   100000},
    {"width",                  S_EIGHTS,   false,   MAIN,          NULL,            64,  1 << 20},
    {"height",                 S_EIGHTS,   false,   MAIN,          NULL,            64,  1 << 20},
    {"cpu_only",               S_SWITCH,   false,   MAIN,          NULL,            0,   0},
    {"fp8_storage",            S_SWITCH,   false,   MAIN " " CONTROL, NULL,         0,   0},
    {"preprocessor",           S_TEXT,     false,   CONTROL,       NULL,            0,   S_MAX_NAME},
    {"weight",                 S_NUMBER,   false,   "lora.*",      NULL,            -1000, 1000},
    {"weight_min",             S_NUMBER,   false,   "lora.*",      NULL,            -1000, 1000},
    {"weight_max",             S_NUMBER,   false,   "lora.*",      NULL,            -1000, 1000},
};

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
    S_ALIASES = sizeof s_aliases / sizeof *s_aliases,
};

static const s_field_t *
s_find(const s_field_t *table, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// Classes: what a record is, as far as the tables ask. text is NULL while that is not known (a
// change set).

typedef struct {
    char text[64]; // "TYPE.FORMAT"
    const char *base;
    bool known;
} s_class_t;

static s_class_t
s_class(const json_t *record)
{
    s_class_t class = {.base = json_string_value(json_object_get(record, "base")), .known = true};
    const char *type = json_string_value(json_object_get(record, "type"));
    const char *format = json_string_value(json_object_get(record, "format"));
    snprintf(class.text, sizeof class.text, "%s.%s", type ? type : "", format ? format : "");
    return class;
}

static bool
s_fits(const char *patterns, const char *class)
{
    char pattern[64];
    for (const char *at = patterns; *at;) {
        size_t len = strcspn(at, " ");
        snprintf(pattern, sizeof pattern, "%.*s", (int)len, at);
        if (fnmatch(pattern, class, 0) == 0)
            return true;
        at += len + strspn(at + len, " ");
    }
    return false;
}

// The variants a class has; all there are while the class is not known, NULL if it has none.
static const char *const *
s_class_variants(const s_class_t *class)
{
    if (!class->known)
        return s_variants;
    for (size_t i = 0; i < sizeof s_variants_of / sizeof *s_variants_of; i++)
        if ((!s_variants_of[i].base ||
             (class->base && strcmp(s_variants_of[i].base, class->base) == 0)) &&
            fnmatch(s_variants_of[i].class, class->text, 0) == 0)
            return s_variants_of[i].values;
    return NULL;
}

static bool
s_class_has(const s_class_t *class, const s_field_t *field)
{
    if (field->type == S_VARIANT)
        return s_class_variants(class) != NULL;
    return !field->classes || !class->known || s_fits(field->classes, class->text);
}

// ---------------------------------------------------------------------------------------------------
// Checks. Each says what the field takes; s_check_value puts field and value in front.

static bool
s_is_text(const json_t *value)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) != json_string_length(value))
        return false;
    json_t *copy = json_stringn(text, json_string_length(value)); // NULL unless it is UTF-8
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
s_say_values(char *takes, size_t size, const char *const *values)
{
    size_t len = (size_t)snprintf(takes, size, "takes one of");
    for (size_t i = 0; values[i] && len < size; i++)
        len += (size_t)snprintf(takes + len, size - len, "%s %s", i ? "," : "",
                                *values[i] ? values[i] : "\"\"");
}

static bool
s_check_text(const s_field_t *field, const json_t *value, char *takes, size_t size)
{
    snprintf(takes, size, "takes text (UTF-8) of %.0f to %.0f bytes", field->min, field->max);
    double len = (double)json_string_length(value);
    if (!s_is_text(value) || len < field->min || len > field->max)
        return false;
    if (field->type != S_KEY)
        return true;
    snprintf(takes, size, "takes letters, digits and . _ - (at most %d, no dot first)", S_MAX_KEY);
    return s_is_key(json_string_value(value));
}

static bool
s_check_texts(const s_field_t *field, const json_t *value, char *takes, size_t size)
{
    if (field->type == S_ENUMS)
        s_say_values(takes, size, field->values);
    else
        snprintf(takes, size, "takes a list of at most %.0f texts of 1 to %d bytes", field->max,
                 S_MAX_NAME);
    if (!json_is_array(value) || (double)json_array_size(value) > field->max)
        return false;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        if (!s_is_text(item) || !json_string_length(item) || json_string_length(item) > S_MAX_NAME)
            return false;
        if (field->type == S_ENUMS && !s_has(field->values, json_string_value(item)))
            return false;
    }
    return true;
}

static bool
s_check_number(const s_field_t *field, const json_t *value, char *takes, size_t size)
{
    const char *what = field->type == S_NUMBER   ? "a number"
                       : field->type == S_EIGHTS ? "a multiple of 8"
                                                 : "an integer";
    snprintf(takes, size, "takes %s from %.15g to %.15g", what, field->min, field->max);
    if (field->type == S_NUMBER ? !json_is_number(value) : !json_is_integer(value))
        return false;
    double number = json_number_value(value);
    if (!(number >= field->min && number <= field->max))
        return false;
    return field->type != S_EIGHTS || json_integer_value(value) % 8 == 0;
}

static bool
s_check_blob(const s_field_t *field, const json_t *value, char *takes, size_t size)
{
    snprintf(takes, size, "takes text of at most %.0f bytes, or a map", field->max);
    return json_is_object(value) ||
           (s_is_text(value) && (double)json_string_length(value) <= field->max);
}

static lade_code_t s_check_settings(const s_class_t *class, const json_t *settings,
                                    lade_error_t *error);

static lade_code_t
s_check_value(const s_class_t *class, const s_field_t *field, const json_t *value,
              lade_error_t *error)
{
    char takes[400] = "";
    bool fine = false;
    switch (field->type) {
    case S_KEY:
    case S_TEXT:
        fine = s_check_text(field, value, takes, sizeof takes);
        break;
    case S_ENUM:
    case S_VARIANT: {
        const char *const *values = field->type == S_ENUM ? field->values : s_class_variants(class);
        s_say_values(takes, sizeof takes, values);
        fine = s_is_text(value) && s_has(values, json_string_value(value));
        break;
    }
    case S_ENUMS:
    case S_TEXTS:
        fine = s_check_texts(field, value, takes, sizeof takes);
        break;
    case S_INTEGER:
    case S_NUMBER:
    case S_EIGHTS:
        fine = s_check_number(field, value, takes, sizeof takes);
        break;
    case S_SWITCH:
        snprintf(takes, sizeof takes, "takes true or false");
        fine = json_is_boolean(value);
        break;
    case S_BLOB:
        fine = s_check_blob(field, value, takes, sizeof takes);
        break;
    case S_MAP:
    case S_SETTINGS:
        snprintf(takes, sizeof takes, "takes a map");
        fine = json_is_object(value);
        break;
    }
    if (!fine) {
        char shown[61];
        s_show(value, shown);
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "%s: %s does not do; it %s",
                              field->name, shown, takes);
    }
    return field->type == S_SETTINGS ? s_check_settings(class, value, error) : LADE_OK;
}

static lade_code_t
s_check_field(const s_class_t *class, const s_field_t *field, const json_t *value,
              lade_error_t *error)
{
    if (!value || json_is_null(value)) {
        if (!field->required || (!value && !class->known))
            return LADE_OK;
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "%s: missing, and every record has it", field->name);
    }
    if (!s_class_has(class, field))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                              "%s: models of class %s (type.format) have no such field",
                              field->name, class->text);
    return s_check_value(class, field, value, error);
}

static lade_code_t
s_check_settings(const s_class_t *class, const json_t *settings, lade_error_t *error)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)settings, name, value)
    {
        const s_field_t *field = s_find(s_settings, S_SETTINGS_FIELDS, name);
        if (!field) {
            char shown[61];
            json_t *text = json_string_nocheck(name);
            s_show(text, shown);
            json_decref(text);
            return lade_error_set(error, LADE_INVALID_MODEL_CONFIG,
                                  "default_settings: there is no setting %s", shown);
        }
        if (s_check_field(class, field, value, error))
            return lade_error_wrap(error, "default_settings");
    }
    return LADE_OK;
}

static lade_code_t
s_check_all(const s_class_t *class, const json_t *record, lade_error_t *error)
{
    if (!json_is_object(record))
        return lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "a model record has to be a map");
    // Type, base and format decide about the others, so an error in them is the one to tell: they
    // come first.
    for (size_t i = 0; i < S_FIELDS; i++) {
        lade_code_t code =
            s_check_field(class, &s_fields[i], json_object_get(record, s_fields[i].name), error);
        if (code)
            return code;
    }
    return LADE_OK;
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
    s_class_t class = {0};
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
    for (size_t i = 0; i < S_FIELDS; i++)
        if (!s_class_has(&class, &s_fields[i]) && !json_object_get(changes, s_fields[i].name))
            json_object_del(record, s_fields[i].name);
}

static bool
s_changes_class(const json_t *changes)
{
    return json_object_get(changes, "type") || json_object_get(changes, "base") ||
           json_object_get(changes, "format");
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
    if (s_changes_class(given))
        s_drop_foreign(result, given);
    json_decref(given);
    lade_code_t code = lade_record_check(result, error);
    if (code)
        json_decref(result);
    else
        *result_p = result;
    return code;
}
