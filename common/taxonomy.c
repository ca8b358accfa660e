// The taxonomy of models: its words, which formats a type has (the classes), and the variants of
// each class.
#include "common/taxonomy.h"

#include "common/record.h"

#include <assert.h>
#include <fnmatch.h>
#include <string.h>

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

static s_values_t s_precisions = {"fp16", "fp32", NULL};
static s_values_t s_experts = {"high", "low", "none", NULL};
static s_values_t s_lora_experts = {"high", "low", NULL};
static s_values_t s_schedulers = {
    "ddim", "ddpm", "deis", "deis_k", "dpmpp_2s", "dpmpp_2s_k", "dpmpp_2m", "dpmpp_2m_k", "dpmpp_2m_sde",
    "dpmpp_2m_sde_k", "dpmpp_3m", "dpmpp_3m_k", "dpmpp_sde", "dpmpp_sde_k", "er_sde", "euler", "euler_a", "euler_k",
    "heun", "heun_k", "kdpm_2", "kdpm_2_a", "kdpm_2_a_k", "kdpm_2_k", "lcm", "lms", "lms_k", "pndm", "tcd", "unipc",
    "unipc_k", NULL};

static const char *const *const s_enums[] = {
    [LADE_ENUM_TYPE]         = s_types,
    [LADE_ENUM_BASE]         = s_bases,
    [LADE_ENUM_FORMAT]       = s_formats,
    [LADE_ENUM_VARIANT]      = s_variants,
    [LADE_ENUM_PREDICTION]   = s_predictions,
    [LADE_ENUM_REPO_VARIANT] = s_repo_variants,
    [LADE_ENUM_SUBMODEL]     = s_submodels,
    [LADE_ENUM_SOURCE_TYPE]  = s_source_types,
    [LADE_ENUM_PRECISION]    = s_precisions,
    [LADE_ENUM_EXPERT]       = s_experts,
    [LADE_ENUM_LORA_EXPERT]  = s_lora_experts,
    [LADE_ENUM_SCHEDULER]    = s_schedulers,
};

// The formats each type comes in: TYPE.FORMAT is a class. `unknown` is a format of every type and a
// type of every format, so that what lade does not know can be kept too.
enum { S_MOST_FORMATS = 6 };
static const struct {
    const char *type;
    const char *formats[S_MOST_FORMATS]; // the last one NULL
} s_classes[] = {
    {"onnx",                    {"onnx", "olive"}},
    {"main",                    {"diffusers", "checkpoint", "bnb_quantized_nf4b", "gguf_quantized", "sdnq_quantized"}},
    {"vae",                     {"diffusers", "checkpoint"}},
    {"lora",                    {"lycoris", "diffusers", "omi"}},
    {"control_lora",            {"lycoris", "diffusers"}},
    {"controlnet",              {"diffusers", "checkpoint"}},
    {"embedding",               {"embedding_file", "embedding_folder"}},
    {"ip_adapter",              {"invokeai", "checkpoint"}},
    {"clip_vision",             {"diffusers"}},
    {"clip_embed",              {"diffusers"}},
    {"t2i_adapter",             {"diffusers"}},
    {"t5_encoder",              {"t5_encoder", "bnb_quantized_int8b", "gguf_quantized", "sdnq_quantized"}},
    {"qwen3_encoder",           {"qwen3_encoder", "checkpoint", "gguf_quantized", "sdnq_quantized"}},
    {"qwen_vl_encoder",         {"qwen_vl_encoder", "checkpoint"}},
    {"qwen3_vl_encoder",        {"qwen3_vl_encoder", "checkpoint"}},
    {"mistral_encoder",         {"mistral_encoder", "checkpoint", "gguf_quantized"}},
    {"wan_t5_encoder",          {"wan_t5_encoder"}},
    {"gemma2_encoder",          {"gemma2_encoder", "gguf_quantized"}},
    {"spandrel_image_to_image", {"checkpoint"}},
    {"siglip",                  {"diffusers"}},
    {"flux_redux",              {"checkpoint"}},
    {"llava_onevision",         {"diffusers"}},
    {"prompt_enhancer",         {"diffusers"}},
    {"text_llm",                {"diffusers"}},
    {"pid_decoder",             {"checkpoint"}},
    {"external_image_generator",{"external_api"}},
};
static s_values_t s_no_formats = {NULL};

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

bool
lade_taxonomy_has(const char *const *values, const char *value)
{
    for (size_t i = 0; values && value && values[i]; i++)
        if (strcmp(values[i], value) == 0)
            return true;
    return false;
}

bool
lade_enum_has(lade_enum_t which, const char *value)
{
    return lade_taxonomy_has(lade_enum_values(which), value);
}

const char *const *
lade_taxonomy_formats(const char *type)
{
    if (type && strcmp(type, "unknown") == 0)
        return s_formats;
    for (size_t i = 0; type && i < sizeof s_classes / sizeof *s_classes; i++)
        if (strcmp(s_classes[i].type, type) == 0)
            return s_classes[i].formats;
    return s_no_formats;
}

bool
lade_taxonomy_is_class(const char *type, const char *format)
{
    return (format && strcmp(format, "unknown") == 0) ||
           lade_taxonomy_has(lade_taxonomy_formats(type), format);
}

const char *const *
lade_taxonomy_variants(const char *class, const char *base)
{
    for (size_t i = 0; i < sizeof s_variants_of / sizeof *s_variants_of; i++)
        if ((!s_variants_of[i].base || (base && strcmp(s_variants_of[i].base, base) == 0)) &&
            fnmatch(s_variants_of[i].class, class, 0) == 0)
            return s_variants_of[i].values;
    return NULL;
}
