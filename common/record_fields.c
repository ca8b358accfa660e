// The table of fields, and which classes have them.
#include "common/record_fields.h"

#include "common/taxonomy.h"

#include <stdio.h>
#include <string.h>

enum {
    S_MAX_KEY = 64,
    S_MAX_PATH = 4096,
    S_MAX_TEXT = 64 << 10,
    S_MAX_BLOB = 4 << 20,
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
static const lade_field_t s_fields[] = {
    // field                   type                  required classes        base    values                   min  max
    {"key",                    LADE_FIELD_KEY,       false,   NULL,          NULL,   0,                       1,   S_MAX_KEY},
    {"name",                   LADE_FIELD_TEXT,      true,    NULL,          NULL,   0,                       1,   LADE_RECORD_MAX_NAME},
    {"type",                   LADE_FIELD_ENUM,      true,    NULL,          NULL,   LADE_ENUM_TYPE,          0,   0},
    {"base",                   LADE_FIELD_ENUM,      true,    NULL,          NULL,   LADE_ENUM_BASE,          0,   0},
    {"format",                 LADE_FIELD_ENUM,      true,    NULL,          NULL,   LADE_ENUM_FORMAT,        0,   0},
    {"bases",                  LADE_FIELD_ENUMS,     false,   NULL,          NULL,   LADE_ENUM_BASE,          1,   LADE_RECORD_MAX_TEXTS},
    {"path",                   LADE_FIELD_TEXT,      true,    NULL,          NULL,   0,                       1,   S_MAX_PATH},
    {"hash",                   LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   LADE_RECORD_MAX_NAME},
    {"description",            LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"source",                 LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"source_type",            LADE_FIELD_ENUM,      false,   NULL,          NULL,   LADE_ENUM_SOURCE_TYPE,   0,   0},
    {"source_url",             LADE_FIELD_URL,       false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"source_revision",        LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   LADE_RECORD_MAX_NAME},
    {"license",                LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"author",                 LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   LADE_RECORD_MAX_NAME},
    {"source_api_response",    LADE_FIELD_BLOB,      false,   NULL,          NULL,   0,                       0,   S_MAX_BLOB},
    {"cover_image",            LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"tags",                   LADE_FIELD_TEXTS,     false,   NULL,          NULL,   0,                       0,   LADE_RECORD_MAX_TEXTS},
    {"file_size",              LADE_FIELD_INTEGER,   false,   NULL,          NULL,   0,                       0,   S_MAX_INTEGER},
    {"title",                  LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   LADE_RECORD_MAX_NAME},
    {"usage_hint",             LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_TEXT},
    {"resolution",             LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   LADE_RECORD_MAX_NAME},
    {"training",               LADE_FIELD_MAP,       false,   NULL,          NULL,   0,                       0,   0},
    {"preview",                LADE_FIELD_MAP,       false,   NULL,          NULL,   0,                       0,   0},
    {"precision",              LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   LADE_RECORD_MAX_NAME},
    {"parameters",             LADE_FIELD_INTEGER,   false,   NULL,          NULL,   0,                       0,   S_MAX_INTEGER},
    {"ema",                    LADE_FIELD_SWITCH,    false,   NULL,          NULL,   0,                       0,   0},
    {"requires",               LADE_FIELD_TEXTS,     false,   NULL,          NULL,   0,                       0,   LADE_RECORD_MAX_TEXTS},
    {"dialect",                LADE_FIELD_TEXT,      false,   "lora.* control_lora.*", NULL, 0,               0,   LADE_RECORD_MAX_NAME},
    {"architecture",           LADE_FIELD_TEXT,      false,   "spandrel_image_to_image.*", NULL, 0,           0,   LADE_RECORD_MAX_NAME},
    {"repo_variant",           LADE_FIELD_ENUM,      false,   FOLDERS,       NULL,   LADE_ENUM_REPO_VARIANT,  0,   0},
    {"submodels",              LADE_FIELD_SUBMODELS, false,   "main.* onnx.*", NULL, 0,                       0,   0},
    {"variant",                LADE_FIELD_VARIANT,   false,   NULL,          NULL,   0,                       0,   0},
    {"prediction_type",        LADE_FIELD_ENUM,      false,   "main.* onnx.*", NULL, LADE_ENUM_PREDICTION,    0,   0},
    {"upcast_attention",       LADE_FIELD_SWITCH,    false,   "main.* onnx.*", NULL, 0,                       0,   0},
    {"vae",                    LADE_FIELD_TEXT,      false,   "main.* onnx.*", NULL, 0,                       0,   S_MAX_PATH},
    {"config_path",            LADE_FIELD_TEXT,      false,   FILES,         NULL,   0,                       0,   S_MAX_PATH},
    {"converted_at",           LADE_FIELD_NUMBER,    false,   FILES,         NULL,   0,                       0,   S_MAX_INTEGER},
    {"trigger_phrases",        LADE_FIELD_TEXTS,     false,   "main.* lora.* control_lora.* embedding.*", NULL, 0, 0, LADE_RECORD_MAX_TEXTS},
    {"image_encoder_model_id", LADE_FIELD_TEXT,      true,    "ip_adapter.invokeai", NULL, 0,                 1,   LADE_RECORD_MAX_NAME},
    {"expert",                 LADE_FIELD_ENUM,      false,   "main.*",      "wan",  LADE_ENUM_EXPERT,        0,   0},
    {"expert",                 LADE_FIELD_ENUM,      false,   "lora.*",      "wan",  LADE_ENUM_LORA_EXPERT,   0,   0},
    {"has_dual_expert",        LADE_FIELD_SWITCH,    false,   "main.diffusers", "wan", 0,                     0,   0},
    {"boundary_ratio",         LADE_FIELD_NUMBER,    false,   "main.diffusers", "wan", 0,                     0,   1},
    {"latent_channels",        LADE_FIELD_EITHER,    false,   "vae.*",       "wan",  0,                       16,  48},
    {"cond_in_channels",       LADE_FIELD_EITHER,    false,   "controlnet.*", "anima", 0,                     3,   4},
    {"cpu_only",               LADE_FIELD_SWITCH,    false,   ENCODERS,      NULL,   0,                       0,   0},
    {"provider_id",            LADE_FIELD_TEXT,      false,   "external_image_generator.*", NULL, 0,          1,   LADE_RECORD_MAX_NAME},
    {"provider_model_id",      LADE_FIELD_TEXT,      false,   "external_image_generator.*", NULL, 0,          1,   LADE_RECORD_MAX_NAME},
    {"capabilities",           LADE_FIELD_MAP,       false,   "external_image_generator.*", NULL, 0,          0,   0},
    {"default_settings",       LADE_FIELD_SETTINGS,  false,   MAIN " lora.* " CONTROL, NULL, 0,               0,   0},
    {"quarantined",            LADE_FIELD_SWITCH,    false,   NULL,          NULL,   0,                       0,   0},
    {"created_at",             LADE_FIELD_NUMBER,    false,   NULL,          NULL,   0,                       0,   S_MAX_INTEGER},
    {"updated_at",             LADE_FIELD_NUMBER,    false,   NULL,          NULL,   0,                       0,   S_MAX_INTEGER},
    {"version",                LADE_FIELD_INTEGER,   false,   NULL,          NULL,   0,                       1,   S_MAX_INTEGER},
};

static const lade_field_t s_settings[] = {
    {"vae",                    LADE_FIELD_TEXT,      false,   MAIN,          NULL,   0,                       1,   S_MAX_PATH},
    {"vae_precision",          LADE_FIELD_ENUM,      false,   MAIN,          NULL,   LADE_ENUM_PRECISION,     0,   0},
    {"scheduler",              LADE_FIELD_ENUM,      false,   MAIN,          NULL,   LADE_ENUM_SCHEDULER,     0,   0},
    {"steps",                  LADE_FIELD_INTEGER,   false,   MAIN,          NULL,   0,                       1,   100000},
    {"cfg_scale",              LADE_FIELD_NUMBER,    false,   MAIN,          NULL,   0,                       1,   100000},
    {"cfg_rescale_multiplier", LADE_FIELD_NUMBER,    false,   MAIN,          NULL,   0,                       0,   S_BELOW_ONE},
    {"guidance",               LADE_FIELD_NUMBER,    false,   MAIN,          NULL,   0,                       1,   100000},
    {"width",                  LADE_FIELD_EIGHTS,    false,   MAIN,          NULL,   0,                       64,  1 << 20},
    {"height",                 LADE_FIELD_EIGHTS,    false,   MAIN,          NULL,   0,                       64,  1 << 20},
    {"cpu_only",               LADE_FIELD_SWITCH,    false,   MAIN,          NULL,   0,                       0,   0},
    {"fp8_storage",            LADE_FIELD_SWITCH,    false,   MAIN " " CONTROL, NULL, 0,                      0,   0},
    {"preprocessor",           LADE_FIELD_TEXT,      true,    CONTROL,       NULL,   0,                       0,   LADE_RECORD_MAX_NAME},
    {"weight",                 LADE_FIELD_NUMBER,    false,   "lora.*",      NULL,   0,                       -1000, 1000},
    {"weight_min",             LADE_FIELD_NUMBER,    false,   "lora.*",      NULL,   0,                       -1000, 1000},
    {"weight_max",             LADE_FIELD_NUMBER,    false,   "lora.*",      NULL,   0,                       -1000, 1000},
};

static const lade_field_t s_submodel[] = {
    {"path_or_prefix",         LADE_FIELD_TEXT,      false,   NULL,          NULL,   0,                       0,   S_MAX_PATH},
    {"model_type",             LADE_FIELD_ENUM,      false,   NULL,          NULL,   LADE_ENUM_TYPE,          0,   0},
    {"variant",                LADE_FIELD_ENUM,      false,   NULL,          NULL,   LADE_ENUM_VARIANT,       0,   0},
};

// clang-format on

#define TABLE(rows)                                                                                \
    {                                                                                              \
        rows, sizeof rows / sizeof *rows                                                           \
    }
const lade_fields_t lade_record_fields = TABLE(s_fields);
const lade_fields_t lade_record_settings = TABLE(s_settings);
const lade_fields_t lade_record_submodel = TABLE(s_submodel);

lade_record_class_t
lade_record_class(const json_t *record)
{
    lade_record_class_t class = {.base = json_string_value(json_object_get(record, "base")),
                                 .known = true};
    const char *type = json_string_value(json_object_get(record, "type"));
    const char *format = json_string_value(json_object_get(record, "format"));
    snprintf(class.text, sizeof class.text, "%s.%s", type ? type : "", format ? format : "");
    class.open =
        (type && strcmp(type, "unknown") == 0) || (format && strcmp(format, "unknown") == 0);
    return class;
}

bool
lade_record_pattern_fits(const char *patterns, const char *class)
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

const char *const *
lade_record_class_variants(const lade_record_class_t *class)
{
    return class->open ? lade_enum_values(LADE_ENUM_VARIANT)
                       : lade_taxonomy_variants(class->text, class->base);
}

bool
lade_record_class_has(const lade_record_class_t *class, const lade_field_t *field)
{
    if (field->type == LADE_FIELD_VARIANT)
        return lade_record_class_variants(class) != NULL;
    if (class->open)
        return true;
    return (!field->classes || lade_record_pattern_fits(field->classes, class->text)) &&
           (!field->base || (class->base && strcmp(field->base, class->base) == 0));
}

const lade_field_t *
lade_record_row(const lade_record_class_t *class, const lade_fields_t *table, const char *name)
{
    const lade_field_t *found = NULL;
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->rows[i].name, name) != 0)
            continue;
        if (!table->rows[i].classes || class->open ||
            lade_record_pattern_fits(table->rows[i].classes, class->text))
            return &table->rows[i];
        found = found ? found : &table->rows[i];
    }
    return found;
}
