// Identification: the shipped families on made models, and the engine on rules of the test's own.
#include "common/identify/identify.h"

#include "common/path.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char folder[128];
    lade_identify_t *engine; // with the shipped families only
} s_place_t;

static int
s_set_up(void **state)
{
    s_place_t *self = calloc(1, sizeof *self);
    lade_error_t error = {0};
    snprintf(self->folder, sizeof self->folder, "%s/lade-identify-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(self->folder));
    if (lade_identify_new(NULL, &self->engine, &error))
        fail_msg("%s", error.message);
    *state = self;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *self = *state;
    lade_identify_destroy(&self->engine);
    lade_path_remove(self->folder, NULL);
    free(self);
    return 0;
}

static char *
s_path(const s_place_t *self, const char *name)
{
    char *path = lade_path_join(self->folder, name), *folder = lade_path_folder(path);
    assert_int_equal(lade_path_mkdirs(folder, 0755, NULL), LADE_OK);
    free(folder);
    return path;
}

static void
s_write_text(const s_place_t *self, const char *name, const char *text)
{
    char *path = s_path(self, name);
    assert_int_equal(lade_path_write(path, text, strlen(text), 0644, NULL), LADE_OK);
    free(path);
}

// Writes a safetensors file without data from "name 4,768; name 8;", in that order or backwards.
static char *
s_write_tensors(const s_place_t *self, const char *name, const char *spec, bool backwards)
{
    char *path = s_path(self, name), *copy = strdup(spec), *parts[64], *rest = copy, *part;
    char *header = calloc(1, 1 << 16);
    size_t count = 0, len = 9;
    uint64_t at = 0;
    header[8] = '{';
    while ((part = strtok_r(rest, ";", &rest)))
        parts[count++] = part + strspn(part, " ");
    for (size_t i = 0; i < count; i++) {
        char key[300], shape[100] = "", *dim, *dims = shape;
        uint64_t size = 4;
        sscanf(parts[backwards ? count - 1 - i : i], "%299s %99s", key, shape);
        char *shown = strdup(shape);
        while ((dim = strtok_r(dims, ",", &dims)))
            size *= strtoull(dim, NULL, 10);
        len += (size_t)sprintf(
            header + len,
            "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
            i ? "," : "", key, shown, (unsigned long long)at, (unsigned long long)(at + size));
        at += size;
        free(shown);
    }
    header[len++] = '}';
    for (int i = 0; i < 8; i++)
        header[i] = (char)((len - 8) >> 8 * i);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fwrite(header, 1, len, out);
    fflush(out);
    assert_int_equal(ftruncate(fileno(out), (off_t)(len + at)), 0);
    fclose(out);
    free(header);
    free(copy);
    return path;
}

// Every field of expected has to be in found.
static bool
s_fits(const json_t *expected, const json_t *found)
{
    const char *field;
    json_t *value;
    json_object_foreach((json_t *)expected, field, value)
    {
        if (!json_equal(value, json_object_get(found, field)))
            return false;
    }
    return true;
}

// expected: {"type": …} or {"error": CODE}; given may be NULL.
static void
s_assert_found(const lade_identify_t *engine, const char *path, const char *given,
               const json_t *expected)
{
    lade_error_t error = {0};
    json_t *found, *overrides = given ? json_loads(given, 0, NULL) : NULL;
    const char *refusal = json_string_value(json_object_get(expected, "error"));
    lade_code_t code = lade_identify_path(engine, path, overrides, &found, &error);
    json_decref(overrides);
    if (code != error.code || (code == LADE_OK) == (found == NULL))
        fail_msg("%s: the answer is not whole", path);
    if (refusal ? strcmp(refusal, lade_code_name(code)) != 0 : code || !s_fits(expected, found)) {
        char *seen = json_dumps(found, JSON_COMPACT), *wanted = json_dumps(expected, JSON_COMPACT);
        fail_msg("%s %s: expected %s, not %s %s", path, given ? given : "", wanted,
                 seen ? seen : "", error.message);
    }
    json_decref(found);
}

static void
s_assert_text(const lade_identify_t *engine, const char *path, const char *given,
              const char *expected)
{
    json_t *value = json_loads(expected, 0, NULL);
    assert_non_null(value);
    s_assert_found(engine, path, given, value);
    json_decref(value);
}

static void
s_assert_refused(const lade_identify_t *engine, const char *path, const char *given,
                 const char *words)
{
    lade_error_t error = {0};
    json_t *found, *overrides = given ? json_loads(given, 0, NULL) : NULL;
    lade_code_t code = lade_identify_path(engine, path, overrides, &found, &error);
    json_decref(overrides);
    if (code != LADE_INVALID_MODEL_CONFIG || !strstr(error.message, words))
        fail_msg("%s: %s: '%s', not '%s'", path, lade_code_name(code), error.message, words);
    assert_null(found);
}

// ---------------------------------------------------------------------------------------------------
// The shipped families

#define MDM "model.diffusion_model."
#define TO_K "1.transformer_blocks.0.attn2.to_k.weight"
#define IN_0 MDM "input_blocks.0.0.weight"
#define K_1 MDM "input_blocks.2." TO_K
#define K_XL MDM "input_blocks.4." TO_K
#define LU "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
#define LT "_text_model_encoder_layers_0_self_attn_q_proj."
#define REFUSED "{\"error\":\"InvalidModelConfig\"}"
#define MAIN(base, variant, prediction)                                                            \
    "{\"type\":\"main\",\"format\":\"checkpoint\",\"base\":\"" base "\",\"variant\":\"" variant    \
    "\",\"prediction_type\":\"" prediction "\"}"
#define KIND(type, base, format)                                                                   \
    "{\"type\":\"" type "\",\"base\":\"" base "\",\"format\":\"" format "\"}"
#define LORA(base) KIND("lora", base, "lycoris")
#define TI(base) KIND("embedding", base, "embedding_file")

static void
test_key_sets_give_the_same_answer_in_any_order(void **state)
{
    static const struct {
        const char *name, *tensors, *expected;
    } rows[] = {
        // clang-format off
        {"a", IN_0 " 320,4,3,3;" K_1 " 320,768",                      MAIN("sd-1", "normal", "epsilon")},
        {"a", IN_0 " 320,9,3,3;" K_1 " 320,768",                      MAIN("sd-1", "inpaint", "epsilon")},
        {"a", IN_0 " 320,5,3,3;" K_1 " 320,768",                      REFUSED},
        {"a", IN_0 " 320,4,3,3;" K_1 " 320,1024",                     MAIN("sd-2", "normal", "v_prediction")},
        {"a", IN_0 " 320,5,3,3;" K_1 " 320,1024",                     MAIN("sd-2", "depth", "v_prediction")},
        {"a", IN_0 " 320,4,3,3;" K_XL " 640,2048",                    MAIN("sdxl", "normal", "epsilon")},
        {"a", IN_0 " 320,4,3,3;" K_XL " 640,1280",                    MAIN("sdxl-refiner", "normal", "epsilon")},
        {"a", IN_0 " 320,9,3,3;" K_XL " 640,2048",                    MAIN("sdxl", "inpaint", "epsilon")},
        {"a", IN_0 " 320,4,3,3;" K_XL " 640,2048; v_pred 0",          MAIN("sdxl", "normal", "v_prediction")},
        {"a", IN_0 " 320,4,3,3;" K_XL " 640,768",                     REFUSED},
        {"a", IN_0 " 320,8,3,3;" K_1 " 320,768",                      REFUSED},
        {"a", IN_0 " 320,4,3,3;" K_1 " 320,768;" LU "attn2_to_k.lora_down.weight 4,768", MAIN("sd-1", "normal", "epsilon")},
        {"a", "cond_stage_model.x 4,4",                               REFUSED},
        // LoRA
        {"a", LU "attn2_to_k.lora_down.weight 4,768",                 LORA("sd-1")},
        {"a", LU "attn2_to_k.lora_down.weight 4,1024",                LORA("sd-2")},
        {"a", LU "attn2_to_k.lora_down.weight 4,2048",                LORA("sdxl")},
        {"a", LU "attn2_to_k.lora_down.weight 4,768;" LU "attn2_to_v.lora_down.weight 4,2048", REFUSED},
        {"a", "lora_te1" LT "alpha 1; lora_te1" LT "lora_down.weight 4,768; lora_te1" LT "lora_up.weight 768,4;"
              "lora_te2" LT "alpha 1; lora_te2" LT "lora_down.weight 4,1280; lora_te2" LT "lora_up.weight 1280,4", LORA("sdxl")},
        {"a", "lora_te2" LT "lora_down.weight 4,1280",                LORA("sdxl")},
        {"a", "lora_te1" LT "lora_down.weight 4,768",                 REFUSED},
        {"a", "lora_te" LT "lora_down.weight 4,768",                  LORA("sd-1")},
        {"a", "lora_te" LT "lora_down.weight 4,1024",                 LORA("sd-2")},
        {"a", "lora_unet_down_blocks_0_resnets_0_time_emb_proj.lora_down.weight 4,1280;" LU "attn2_to_k.lora_down.weight 4,768", LORA("sd-1")},
        {"a", "lora_unet_down_blocks_0_resnets_0_time_emb_proj.lora_down.weight 4,1280;lora_te" LT "lora_down.weight 4,768", LORA("sd-1")},
        {"a", "lora_unet_input_blocks_7_1_transformer_blocks_2_attn1_to_q.lora_down.weight 4,1280", LORA("sdxl")},
        {"a", "lora_unet_input_blocks_7_1_transformer_blocks_1_attn1_to_q.lora_down.weight 4,1280", REFUSED},
        {"a", LU "attn2_to_k.hada_w1_a 320,4;" LU "attn2_to_k.hada_w1_b 4,768;" LU "attn2_to_k.hada_w2_a 320,4;" LU "attn2_to_k.hada_w2_b 4,768", LORA("sd-1")},
        {"a", LU "attn2_to_k.lokr_w1 16,24;" LU "attn2_to_k.lokr_w2 20,32", LORA("sd-1")},
        {"a", LU "attn2_to_k.lokr_w1 16,24;" LU "attn2_to_k.lokr_w2_a 20,4;" LU "attn2_to_k.lokr_w2_b 4,32", LORA("sd-1")},
        {"a", LU "attn2_to_k.diff 320,768",                           LORA("sd-1")},
        {"a", "lora_te" LT "weight 768,1",                            LORA("sd-1")},
        {"a", "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight 4,3072; lora_te1" LT "lora_down.weight 4,768",
            LORA("flux")},
        {"a", "lora_unet_joint_blocks_0_x.lora_down.weight 4,1536; lora_te1" LT "lora_down.weight 4,768; lora_te2" LT "lora_down.weight 4,1280", REFUSED},
        {"a", "lora_unet__layers_0_attention_to_k.lora_down.weight 4,2304", REFUSED},
        {"a", "lora_unet__layers_0_attention_to_k.lora_down.weight 4,3840", LORA("z-image")},
        {"a", "controlnet_blocks.0.bias 4; controlnet_blocks.0.weight 4,4; controlnet_x_embedder.bias 4; controlnet_x_embedder.weight 4,64", KIND("controlnet", "flux", "checkpoint")},
        {"a", "redux_down.bias 4; redux_down.weight 4,8; redux_up.bias 8; redux_up.weight 8,4", KIND("flux_redux", "flux", "checkpoint")},
        {"a", "redux_down.bias 4; redux_down.weight 4,8; redux_up.bias 8; redux_up.weight 8,4; x 4", REFUSED},
        {"a", "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight 4,2048", LORA("sdxl")},
        {"a", "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.default.weight 4,768", LORA("sd-1")},
        {"a", "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_v_lora.down.weight 4,1024", LORA("sd-2")},
        {"a", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora.down.weight 4,768", LORA("sd-1")},
        {"a", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight 4,768;"
              "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight 4,1280", LORA("sdxl")},
        {"a", "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight 4,3072;"
              "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight 4,768", LORA("flux")},
        {"a", "transformer_blocks.0.attn.to_k.lora_A.weight 4,768",   REFUSED},
        {"a", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight 4,768", REFUSED},
        // VAE
        {"ft-mse", "encoder.conv_in.weight 128,3,3,3; decoder.conv_in.weight 512,4,3,3", KIND("vae", "sd-1", "checkpoint")},
        {"sdxl_vae", "encoder.conv_in.weight 128,3,3,3; decoder.conv_in.weight 512,4,3,3", KIND("vae", "sdxl", "checkpoint")},
        {"SD2.vae", "decoder.conv_in.weight 512,4,3,3",               KIND("vae", "sd-2", "checkpoint")},
        {"flux_vae", "decoder.conv_in.weight 512,16,3,3",             KIND("vae", "flux", "checkpoint")},
        {"vae", "decoder.conv_in.weight 512,16,3,3,3",                REFUSED},
        {"sd3_vae", "decoder.conv_in.weight 512,16,3,3",          KIND("vae", "sd-3", "checkpoint")},
        {"vae", "decoder.conv_in.weight 512,32,3,3",              KIND("vae", "flux2", "checkpoint")},
        {"x", "encoder.conv_in.weight 128,3,3,3",                     REFUSED},
        {"some-vae", "encoder.conv_in.weight 128,3,3,3",              KIND("vae", "sd-1", "checkpoint")},
        // ControlNet
        {"a", "control_model.input_blocks.2." TO_K " 320,768",        KIND("controlnet", "sd-1", "checkpoint")},
        {"a", "input_blocks.2." TO_K " 320,1024",                     KIND("controlnet", "sd-2", "checkpoint")},
        {"a", "controlnet_mid_block.bias 1280; controlnet_down_blocks.0.bias 320", KIND("controlnet", "sdxl", "checkpoint")},
        {"a", "controlnet_mid_block.bias 1280; down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight 640,768", KIND("controlnet", "sd-1", "checkpoint")},
        {"a", "controlnet_blocks.0.bias 4; controlnet_x_embedder.bias 4", REFUSED},
        {"a", "control_model.input_blocks.2." TO_K " 320,777",        REFUSED},
        // textual inversion
        {"a", "emb_params 1,768",                                     TI("sd-1")},
        {"a", "emb_params 4,1280",                                    TI("sdxl")},
        {"a", "clip_g 2,1280; clip_l 2,768",                          TI("sdxl")},
        {"a", "<cat> 1024",                                           TI("sd-2")},
        {"a", "<cat> 3,768",                                          TI("sd-1")},
        {"a", "<cat> 768; <dog> 1024",                                REFUSED},
        {"a", "layer.weight 768",                                     REFUSED},
        {"a", "x 768,768,3,3",                                        REFUSED},
        {"a", "emb_params 1,512",                                     REFUSED},
        // clang-format on
    };
    s_place_t *self = *state;
    for (size_t i = 0; i < 2 * (sizeof rows / sizeof *rows); i++) {
        char file[64];
        snprintf(file, sizeof file, "%s.safetensors", rows[i / 2].name);
        char *path = s_write_tensors(self, file, rows[i / 2].tensors, i % 2);
        s_assert_text(self->engine, path, NULL, rows[i / 2].expected);
        free(path);
    }
}

static void
test_a_pipeline_that_is_not_quite_one_is_refused(void **state)
{
    static const struct {
        const char *index, *unet, *scheduler, *expected;
    } rows[] = {
        // clang-format off
        {"{\"_class_name\":\"StableDiffusionPipeline\"}", "{\"cross_attention_dim\":768}", NULL,
         "{\"base\":\"sd-1\",\"variant\":\"normal\",\"prediction_type\":\"epsilon\"}"},
        {"{\"_class_name\":\"StableDiffusionPipeline\"}", "{\"cross_attention_dim\":1024,\"in_channels\":4}", "{\"prediction_type\":\"v_prediction\"}",
         "{\"base\":\"sd-2\",\"prediction_type\":\"v_prediction\",\"upcast_attention\":true}"},
        {"{\"_class_name\":\"StableDiffusionPipeline\"}", "{\"cross_attention_dim\":768,\"in_channels\":5}", NULL, REFUSED},
        {"{\"_class_name\":\"StableDiffusionPipeline\"}", "{\"cross_attention_dim\":768,\"in_channels\":8}", NULL, REFUSED},
        {"{\"_class_name\":\"StableDiffusionPipeline\"}", "{\"cross_attention_dim\":999}", NULL, REFUSED},
        {"{\"_class_name\":\"StableDiffusionPipeline\"}", "{\"cross_attention_dim\":768}", "{\"prediction_type\":\"sample\"}", REFUSED},
        {"{\"_class_name\":\"StableDiffusionPipeline\"}", "not json", NULL, REFUSED},
        {"{\"_class_name\":\"FluxPipeline\"}", "{\"cross_attention_dim\":768}", NULL, REFUSED},
        {"{\"_class_name\":7}", "{\"cross_attention_dim\":768}", NULL, REFUSED},
        {"[]", "{\"cross_attention_dim\":768}", NULL, REFUSED},
        // clang-format on
    };
    s_place_t *self = *state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[32], file[100];
        snprintf(name, sizeof name, "pipe-%zu", i);
        char *path = s_path(self, name);
        snprintf(file, sizeof file, "%s/model_index.json", name);
        s_write_text(self, file, rows[i].index);
        snprintf(file, sizeof file, "%s/unet/config.json", name);
        s_write_text(self, file, rows[i].unet);
        snprintf(file, sizeof file, "%s/scheduler/scheduler_config.json", name);
        if (rows[i].scheduler)
            s_write_text(self, file, rows[i].scheduler);
        s_assert_text(self->engine, path, NULL, rows[i].expected);
        free(path);
    }
}

static void
test_pipes_for_files_hold_nobody(void **state)
{
    s_place_t *self = *state;
    char *folder = s_path(self, "pipes"), *config = s_path(self, "pipes/config.json");
    char *file = s_path(self, "pipe.safetensors");
    assert_int_equal(mkfifo(config, 0600), 0);
    assert_int_equal(mkfifo(file, 0600), 0);
    s_assert_text(self->engine, folder, NULL, REFUSED);
    s_assert_text(self->engine, file, NULL, "{\"error\":\"io_error\"}");
    free(folder);
    free(config);
    free(file);
}

static void
test_a_vae_folder_is_told_by_config_or_name(void **state)
{
    s_place_t *self = *state;
    static const struct {
        const char *name, *config, *given, *expected;
    } rows[] = {
        {"a/vae", "", NULL, KIND("vae", "sd-1", "diffusers")},
        {"some-xl/vae", "", NULL, KIND("vae", "sdxl", "diffusers")},
        {"sdxl-vae", "", NULL, KIND("vae", "sdxl", "diffusers")},
        {"pixl8", "", NULL, KIND("vae", "sd-1", "diffusers")},
        {"b/vae", ",\"scaling_factor\":0.13025,\"sample_size\":1024", NULL,
         KIND("vae", "sdxl", "diffusers")},
        {"c/vae", ",\"scaling_factor\":0.13025,\"sample_size\":256", NULL,
         KIND("vae", "sd-1", "diffusers")},
        {"d/vae", "", "{\"name\":\"my xl\"}",
         "{\"base\":\"sdxl\",\"name\":\"my xl\",\"description\":\"sdxl vae model my xl\"}"},
        {"e/vae", "", "{\"base\":\"sd-2\"}", KIND("vae", "sd-2", "diffusers")},
        {"f/vae", "", "{\"base\":\"flux\"}", REFUSED},
        {"g/vae", ",\"latent_channels\":16", NULL, REFUSED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char file[100], config[200];
        char *path = s_path(self, rows[i].name);
        snprintf(file, sizeof file, "%s/config.json", rows[i].name);
        snprintf(config, sizeof config, "{\"_class_name\":\"AutoencoderKL\"%s}", rows[i].config);
        s_write_text(self, file, config);
        s_assert_text(self->engine, path, rows[i].given, rows[i].expected);
        free(path);
    }
}

// ---------------------------------------------------------------------------------------------------
// What the caller says

static void
test_what_the_caller_says_wins_and_restricts(void **state)
{
    s_place_t *self = *state;
    char *vae = s_write_tensors(self, "vae.safetensors", "decoder.conv_in.weight 512,4,3,3", false);
    char *ti = s_write_tensors(self, "ti.safetensors", "emb_params 1,768", false);
    char *te1 =
        s_write_tensors(self, "te1.safetensors", "lora_te1" LT "lora_down.weight 4,768", false);
    char *lora =
        s_write_tensors(self, "lora.safetensors", LU "attn2_to_k.lora_down.weight 4,768", false);
    s_assert_text(self->engine, vae, "{\"base\":\"sdxl\"}", KIND("vae", "sdxl", "checkpoint"));
    s_assert_text(self->engine, vae, "{\"base_model\":\"sdxl\"}",
                  KIND("vae", "sdxl", "checkpoint"));
    s_assert_refused(self->engine, ti, "{\"type\":\"lora\"}", "no model lade knows");
    s_assert_refused(self->engine, ti, "{\"format\":\"diffusers\"}", "no model lade knows");
    s_assert_refused(self->engine, te1, NULL, "--config base=");
    s_assert_text(self->engine, te1, "{\"base\":\"sdxl\"}", LORA("sdxl"));
    s_assert_refused(self->engine, lora, "{\"base\":\"sdxl\"}", "its base is sd-1, not sdxl");
    s_assert_text(self->engine, ti,
                  "{\"name\":\"n\",\"description\":\"d\",\"variant\":null,\"base\":null}",
                  "{\"name\":\"n\",\"description\":\"d\",\"type\":\"embedding\"}");
    free(vae);
    free(ti);
    free(te1);
    free(lora);
}

static void
test_fields_every_model_has(void **state)
{
    s_place_t *self = *state;
    json_t *found;
    char *path = s_write_tensors(self, "my.model.safetensors", "emb_params 1,768", false);
    assert_int_equal(lade_identify_path(self->engine, path, NULL, &found, NULL), LADE_OK);
    assert_string_equal(json_string_value(json_object_get(found, "name")), "my.model");
    assert_string_equal(json_string_value(json_object_get(found, "description")),
                        "sd-1 embedding model my.model");
    assert_int_equal(json_integer_value(json_object_get(found, "file_size")), lade_path_size(path));
    assert_non_null(
        strstr(json_string_value(json_object_get(found, "identified_by")), "embedding/file"));
    json_decref(found);
    assert_int_equal(lade_identify_path(self->engine, "/no/such", NULL, &found, NULL),
                     LADE_NOT_FOUND);
    assert_null(found);
    free(path);
}

static void
test_a_refusal_says_what_was_seen_and_what_came_near(void **state)
{
    s_place_t *self = *state;
    char *odd = s_write_tensors(self, "odd.safetensors", "emb_params 1,512", false);
    char *other = s_write_tensors(self, "other.safetensors", "a 1; b 2; c 3; d 4", false);
    s_write_text(self, "llm/config.json", "{\"architectures\":[\"LlamaForCausalLM\"]}");
    s_write_text(self, "broken/config.json", "{\n\n oops");
    s_write_text(self, "old/pytorch_lora_weights.bin", "PK");
    char *llm = s_path(self, "llm"), *broken = s_path(self, "broken"), *old = s_path(self, "old");
    s_assert_refused(self->engine, old, NULL, "pytorch_lora_weights.bin");
    char *part = s_write_tensors(self, "a-00001-of-00003.safetensors", "emb_params 1,768", false);
    s_assert_refused(self->engine, part, NULL, "is one of the 3 files of a model");
    free(part);
    s_assert_refused(self->engine, odd, NULL,
                     "nearest is embedding/file, but axis -1 of emb_params is 512");
    s_assert_refused(self->engine, other, NULL, "a safetensors file of 4 tensors (a, b, c, ...)");
    s_assert_refused(self->engine, llm, NULL, "LlamaForCausalLM");
    s_assert_refused(self->engine, broken, NULL, "config.json:3");
    free(odd);
    free(other);
    free(llm);
    free(broken);
    free(old);
}

// ---------------------------------------------------------------------------------------------------
// Rules of one's own

#define RULE(name, rank, base)                                                                     \
    "  - name: " name "\n    why: w\n    on: file\n    rank: " rank                                \
    "\n    when: [{key: emb_params}]\n"                                                            \
    "    set: {type: embedding, base: " base ", format: embedding_file}\n"

static void
s_new(const s_place_t *self, const char *site, lade_identify_t **engine_p)
{
    char *folder = s_path(self, site);
    lade_error_t error = {0};
    if (lade_identify_new(folder, engine_p, &error))
        fail_msg("%s", error.message);
    free(folder);
}

static void
test_a_sites_rules_come_first(void **state)
{
    s_place_t *self = *state;
    lade_identify_t *engine;
    char *path = s_write_tensors(self, "a.safetensors", "emb_params 1,768", false);
    s_write_text(self, "site/mine.yaml", "rules:\n" RULE("r", "-5", "sdxl"));
    s_write_text(self, "site/notes.txt", "no family");
    s_new(self, "site", &engine);
    s_assert_text(engine, path, NULL, TI("sdxl"));
    lade_identify_destroy(&engine);
    // a file of a shipped family's name takes its place
    s_write_text(self, "other/embedding.yaml", "rules: []\n");
    s_new(self, "other", &engine);
    s_assert_text(engine, path, NULL, REFUSED);
    lade_identify_destroy(&engine);
    free(path);
}

static void
test_rules_of_equal_standing_that_differ_are_ambiguous_in_any_order(void **state)
{
    s_place_t *self = *state;
    lade_identify_t *engine;
    lade_error_t one = {0}, two = {0};
    json_t *found;
    char *path = s_write_tensors(self, "a.safetensors", "emb_params 1,768", false);
    s_write_text(self, "x/f.yaml", "rules:\n" RULE("p", "0", "sd-1") RULE("q", "0", "sdxl"));
    s_write_text(self, "y/f.yaml", "rules:\n" RULE("q", "0", "sdxl") RULE("p", "0", "sd-1"));
    s_write_text(self, "z/f.yaml", "rules:\n" RULE("q", "1", "sdxl") RULE("p", "0", "sd-1"));
    s_new(self, "x", &engine);
    assert_int_equal(lade_identify_path(engine, path, NULL, &found, &one),
                     LADE_INVALID_MODEL_CONFIG);
    s_assert_text(engine, path, "{\"base\":\"sdxl\"}", TI("sdxl"));
    lade_identify_destroy(&engine);
    s_new(self, "y", &engine);
    assert_int_equal(lade_identify_path(engine, path, NULL, &found, &two),
                     LADE_INVALID_MODEL_CONFIG);
    lade_identify_destroy(&engine);
    assert_string_equal(one.message, two.message);
    assert_non_null(strstr(one.message, "sd-1 (rule f/p) or sdxl (rule f/q)"));
    assert_non_null(strstr(one.message, "--config base="));
    s_new(self, "z", &engine);
    s_assert_text(engine, path, NULL, TI("sdxl"));
    lade_identify_destroy(&engine);
    free(path);
}

static void
test_a_wrong_family_file_is_named_with_its_line(void **state)
{
    s_place_t *self = *state;
    lade_identify_t *engine;
    lade_error_t error = {0};
    s_write_text(self, "bad/mine.yaml", "rules:\n  - name: a\n    wy: b\n");
    char *folder = s_path(self, "bad");
    assert_int_equal(lade_identify_new(folder, &engine, &error), LADE_CONFIG_ERROR);
    assert_null(engine);
    assert_non_null(strstr(error.message, "bad/mine.yaml:3:"));
    assert_int_equal(lade_identify_new("/no/such/folder", &engine, &error), LADE_CONFIG_ERROR);
    free(folder);
}

static void
test_every_kind_of_source_and_check_can_be_asked(void **state)
{
    static const struct {
        const char *on, *condition;
        bool holds;
    } rows[] = {
        // clang-format off
        {"file", "{key: [no, emb_params]}", true},
        {"file", "{key: {prefix: emb, suffix: [x, params], contains: b_p}}", true},
        {"file", "{key: {regex: '^emb_[a-z]+$'}}", true},
        {"file", "{key: {prefix: emb, except: {suffix: params}}}", false},
        {"file", "{key: emb_params, take: rank, is: 2}", true},
        {"file", "{key: emb_params, take: dtype, is: [F16, F32]}", true},
        {"file", "{key: {}, take: count, max: 0}", false},
        {"file", "{key: {}, take: count, min: 1, max: 1}", true},
        {"file", "{key: emb_params, axis: 5}", false},
        {"file", "{key: emb_params, axis: 1, min: 700, max: 800}", true},
        {"file", "{key: {}, every: {prefix: emb}}", true},
        {"file", "{key: {}, every: {prefix: x}}", false},
        {"file", "{key: {prefix: x}, every: {prefix: y}}", true},
        {"file", "{key: {suffix: params, sibling: params}}", true},
        {"file", "{key: {suffix: params, sibling: scale}}", false},
        {"file", "{metadata: format}", false},
        {"file", "{scalar: emb_params}", false},
        {"file", "{name: own, matches: '^A$'}", true},
        {"file", "{name: parent, matches: lade-identify}", true},
        {"file", "{any: [{key: x}, {key: emb_params}]}", true},
        {"file", "{all: [{key: x}, {key: emb_params}]}", false},
        {"file", "{not: {key: x}}", true},
        {"file", "{not: [{key: x}, {key: emb_params}]}", true},
        {"file", "{field: name, is: a}", false},
        {"folder", "{exists: [no, config.json]}", true},
        {"folder", "{exists: sub/none}", false},
        {"folder", "{json: config.json, at: a.b.1, is: 2}", true},
        {"folder", "{json: config.json, at: a.b.1, is: 2.0}", true},
        {"folder", "{json: config.json, at: a.b.1, is: '2'}", false},
        {"folder", "{json: config.json, at: nothing}", false},
        {"folder", "{json: config.json, at: t, is: true}", true},
        {"folder", "{class: [none.json, config.json], is: Made}", true},
        {"folder", "{inside: [x, a.safetensors], as: embedding, at: base, is: sd-1}", true},
        {"folder", "{inside: a.safetensors, as: lora}", false},
        {"folder", "{key: emb_params, in: [none, .], axis: -1, is: 768}", true},
        {"folder", "{key: emb_params, in: none}", false},
        {"folder", "{key: {}, in: ., every: {prefix: x}}", false},
        {"file", "{predicate: container, is: safetensors}", true},
        // clang-format on
    };
    s_place_t *self = *state;
    char *file = s_write_tensors(self, "a.safetensors", "emb_params 1,768", false);
    s_write_text(self, "config.json",
                 "{\"_class_name\":\"Made\",\"a\":{\"b\":[1,2]},\"t\":true,\"nothing\":null}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[600];
        lade_identify_t *engine;
        snprintf(text, sizeof text,
                 "rules:\n  - name: r\n    why: w\n    on: %s\n    when: [%s]\n"
                 "    set: {type: t5_encoder, base: any, format: t5_encoder}\n",
                 rows[i].on, rows[i].condition);
        s_write_text(self, "site/f.yaml", text);
        s_new(self, "site", &engine);
        const char *path = strcmp(rows[i].on, "file") == 0 ? file : self->folder;
        json_t *found, *given = json_pack("{ss}", "type", "t5_encoder");
        bool holds = lade_identify_path(engine, path, given, &found, NULL) == LADE_OK;
        if (holds != rows[i].holds)
            fail_msg("%s does %shold", rows[i].condition, holds ? "" : "not ");
        json_decref(found);
        json_decref(given);
        lade_identify_destroy(&engine);
    }
    free(file);
}

typedef struct {
    const lade_identify_t *engine;
    const char *path;
    size_t right;
} s_task_t;

static void *
s_identify_often(void *arg)
{
    s_task_t *task = arg;
    for (int i = 0; i < 50; i++) {
        json_t *found;
        if (lade_identify_path(task->engine, task->path, NULL, &found, NULL) == LADE_OK)
            task->right += strcmp(json_string_value(json_object_get(found, "base")), "sdxl") == 0;
        json_decref(found);
    }
    return NULL;
}

static void
test_one_engine_serves_many_threads(void **state)
{
    s_place_t *self = *state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    s_task_t tasks[THREADS];
    char *path = s_write_tensors(
        self, "a.safetensors",
        "lora_unet_input_blocks_7_1_transformer_blocks_2_attn1_to_q.lora_down.weight 4,1280",
        false);
    for (int i = 0; i < THREADS; i++) {
        tasks[i] = (s_task_t){self->engine, path, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, s_identify_often, &tasks[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(tasks[i].right, 50);
    }
    free(path);
}

static void
test_thousands_of_tensors_take_milliseconds(void **state)
{
    s_place_t *self = *state;
    char command[500], path[200];
    struct timespec start, end;
    json_t *found;
    if (access("tests/models/make_models.py", X_OK) != 0)
        skip();
    snprintf(command, sizeof command, "/usr/bin/python3 tests/models/make_models.py %s sdxl",
             self->folder);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/sdxl.safetensors", self->folder);
    clock_gettime(CLOCK_MONOTONIC, &start);
    assert_int_equal(lade_identify_path(self->engine, path, NULL, &found, NULL), LADE_OK);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double ms =
        (double)(end.tv_sec - start.tv_sec) * 1e3 + (double)(end.tv_nsec - start.tv_nsec) / 1e6;
    print_message("2,515 tensors in %.1f ms\n", ms);
    assert_true(ms < 500); // 3 ms alone; valgrind, sanitizers and a busy machine take their part
    json_decref(found);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_key_sets_give_the_same_answer_in_any_order),
        TEST(test_a_pipeline_that_is_not_quite_one_is_refused),
        TEST(test_pipes_for_files_hold_nobody),
        TEST(test_a_vae_folder_is_told_by_config_or_name),
        TEST(test_what_the_caller_says_wins_and_restricts),
        TEST(test_fields_every_model_has),
        TEST(test_a_refusal_says_what_was_seen_and_what_came_near),
        TEST(test_a_sites_rules_come_first),
        TEST(test_rules_of_equal_standing_that_differ_are_ambiguous_in_any_order),
        TEST(test_a_wrong_family_file_is_named_with_its_line),
        TEST(test_every_kind_of_source_and_check_can_be_asked),
        TEST(test_one_engine_serves_many_threads),
        TEST(test_thousands_of_tensors_take_milliseconds),
    };
    return cmocka_run_group_tests_name("identify", tests, NULL, NULL);
}
