// What single-file models need beside them.
#include "common/identify/about.h"

#include <stdio.h>
#include <string.h>

// Of a model of this type, base and variant: a part, and the beginnings of the names that tell that
// it is in the file. The names of parts are types of models, with the variant it has to be of.
static const struct {
    const char *type, *base, *variant; // NULL: any
    const char *part;
    const char *held[4];
} s_parts[] = {
    // clang-format off
    {"main", "sd-1",         NULL,            "clip_embed (large)",    {"cond_stage_model."}},
    {"main", "sd-1",         NULL,            "vae (sd-1)",            {"first_stage_model."}},
    {"main", "sd-2",         NULL,            "clip_embed (OpenCLIP ViT-H)", {"cond_stage_model."}},
    {"main", "sd-2",         NULL,            "vae (sd-2)",            {"first_stage_model."}},
    {"main", "sdxl",         NULL,            "clip_embed (large)",    {"conditioner.embedders.0."}},
    {"main", "sdxl",         NULL,            "clip_embed (gigantic)", {"conditioner.embedders.1."}},
    {"main", "sdxl",         NULL,            "vae (sdxl)",            {"first_stage_model."}},
    {"main", "sdxl-refiner", NULL,            "clip_embed (gigantic)", {"conditioner.embedders.0."}},
    {"main", "sdxl-refiner", NULL,            "vae (sdxl)",            {"first_stage_model."}},
    {"main", "sd-3",         NULL,            "clip_embed (large)",    {"text_encoders.clip_l."}},
    {"main", "sd-3",         NULL,            "clip_embed (gigantic)", {"text_encoders.clip_g."}},
    {"main", "sd-3",         NULL,            "t5_encoder",            {"text_encoders.t5xxl."}},
    {"main", "sd-3",         NULL,            "vae (sd-3)",            {"first_stage_model.", "vae."}},
    {"main", "flux",         NULL,            "clip_embed (large)",    {"text_encoders.clip_l."}},
    {"main", "flux",         NULL,            "t5_encoder",            {"text_encoders.t5xxl."}},
    {"main", "flux",         NULL,            "vae (flux)",            {"vae.", "first_stage_model."}},
    {"main", "flux2",        "klein_4b",      "qwen3_encoder (qwen3_4b)", {"text_encoders."}},
    {"main", "flux2",        "klein_4b_base", "qwen3_encoder (qwen3_4b)", {"text_encoders."}},
    {"main", "flux2",        "klein_9b",      "qwen3_encoder (qwen3_8b)", {"text_encoders."}},
    {"main", "flux2",        "klein_9b_base", "qwen3_encoder (qwen3_8b)", {"text_encoders."}},
    {"main", "flux2",        "dev",           "mistral_encoder (mistral3_24b)", {"text_encoders."}},
    {"main", "flux2",        NULL,            "vae (flux2)",           {"vae.", "first_stage_model."}},
    {"main", "z-image",      NULL,            "qwen3_encoder (qwen3_4b)", {"text_encoders."}},
    {"main", "z-image",      NULL,            "vae (flux)",            {"vae.", "first_stage_model."}},
    {"main", "qwen-image",   NULL,            "qwen_vl_encoder",       {"text_encoders."}},
    {"main", "qwen-image",   NULL,            "vae (qwen-image)",      {"vae.", "first_stage_model."}},
    {"main", "krea-2",       NULL,            "qwen3_vl_encoder",      {"text_encoders."}},
    {"main", "krea-2",       NULL,            "vae (qwen-image)",      {"vae.", "first_stage_model."}},
    {"main", "anima",        NULL,            "qwen3_encoder (qwen3_06b)", {"text_encoders."}},
    {"main", "anima",        NULL,            "vae (qwen-image)",      {"vae.", "first_stage_model."}},
    {"main", "wan",          NULL,            "wan_t5_encoder",        {"text_encoders."}},
    {"main", "wan",          NULL,            "vae (wan)",             {"vae.", "first_stage_model."}},
    {"ip_adapter", NULL,     NULL,            "clip_vision",           {NULL}},
    {"flux_redux", NULL,     NULL,            "siglip",                {NULL}},
    // clang-format on
};
enum { S_PARTS = sizeof s_parts / sizeof *s_parts };

static bool
s_is(const json_t *found, const char *field, const char *wanted)
{
    const char *text = json_string_value(json_object_get(found, field));
    return !wanted || (text && strcmp(text, wanted) == 0);
}

static bool
s_holds(const lade_tensors_t *tensors, const char *const *prefixes)
{
    for (size_t i = 0; i < lade_tensors_count(tensors) && prefixes[0]; i++)
        for (size_t j = 0; j < 4 && prefixes[j]; j++)
            if (strncmp(lade_tensors_get(tensors, i)->name, prefixes[j], strlen(prefixes[j])) == 0)
                return true;
    return false;
}

json_t *
lade_about_requires(const lade_tensors_t *tensors, const json_t *found)
{
    json_t *list = json_array();
    for (size_t i = 0; i < S_PARTS; i++)
        if (s_is(found, "type", s_parts[i].type) && s_is(found, "base", s_parts[i].base) &&
            s_is(found, "variant", s_parts[i].variant) && !s_holds(tensors, s_parts[i].held))
            json_array_append_new(list, json_string(s_parts[i].part));
    if (json_array_size(list))
        return list;
    json_decref(list);
    return NULL;
}
