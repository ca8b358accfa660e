// The named predicates that look at names and folders.
#include "common/identify/predicates_read.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char s_folder[128];

static int
s_set_up(void **state)
{
    (void)state;
    snprintf(s_folder, sizeof s_folder, "%s/lade-predicates-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(s_folder) ? 0 : -1;
}

static int
s_tear_down(void **state)
{
    (void)state;
    lade_path_remove(s_folder, NULL);
    return 0;
}

static void
s_write(const char *name, const void *bytes, size_t len)
{
    char *path = lade_path_join(s_folder, name), *folder = lade_path_folder(path);
    assert_int_equal(lade_path_mkdirs(folder, 0755, NULL), LADE_OK);
    assert_int_equal(lade_path_write(path, bytes, len, 0644, NULL), LADE_OK);
    free(folder);
    free(path);
}

static lade_subject_t *
s_open(const char *name)
{
    lade_subject_t *subject;
    lade_error_t error = {0};
    char *path = lade_path_join(s_folder, name);
    if (lade_subject_new(path, NULL, &subject, &error))
        fail_msg("%s: %s", name, error.message);
    free(path);
    return subject;
}

// A safetensors file with metadata and no tensor.
static lade_subject_t *
s_file(const char *name, const char *metadata)
{
    char bytes[400] = {0};
    int len = snprintf(bytes + 8, sizeof bytes - 8, "{\"__metadata__\":{%s}}", metadata);
    bytes[0] = (char)len;
    s_write(name, bytes, 8 + (size_t)len);
    return s_open(name);
}

static void
s_assert_text(json_t *value, const char *expected, const char *what)
{
    const char *text = json_string_value(value);
    if (expected ? !text || strcmp(text, expected) != 0 : value != NULL)
        fail_msg("%s: %s, not %s", what, text ? text : "nothing", expected ? expected : "nothing");
    json_decref(value);
}

static void
test_a_wan_expert_is_told_by_name(void **state)
{
    static const struct {
        const char *name, *metadata, *expert;
    } rows[] = {
        // clang-format off
        {"wan2.2-t2v-a14b-high_noise-Q4_K_M", "", "high"},
        {"Wan2.2-A14B-LowNoise-Q4", "", "low"},
        {"wan22_noise_high_expert", "", "high"},
        {"low_noise14B", "", "low"},
        {"Wan2_2-T2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ", "", "high"},
        {"smoothMixWan22I2VT2V_t2vHigh-Q6_K", "", "high"},
        {"WAN2.2t2vLOWNOISEFP8", "", "low"},
        {"Wan2.2-A14B-T2V-lowCFG-merge", "", NULL},
        {"Wan22_A14B_T2V_low_step_v2", "", NULL},
        {"Wan2.2-A14B-HighQuality", "", NULL},
        {"Extream Low Angle HIGH - Wan2.2 - v1 low-angle shot", "", "high"},
        {"wan2.2-i2v-low-to-high-lora", "", NULL},
        {"wan22-highway-lora-merge", "", NULL},
        {"wan22-slow-noise-test", "", NULL},
        {"wan22_flownoise_v1", "", NULL},
        {"wan2.2_t2v_4step_LOW_lightning_high_noise", "", "high"},
        {"wan2.2_t2v_low_high_noise_14B_fp16", "", NULL},
        {"Wan2.2-A14B-add-noise-LOW-VRAM", "", NULL},
        {"Wan2_2-T2V-A14B-HIGH_lowVRAM_fp8_scaled_KJ", "", "high"},
        {"Wan2.2-T2V-A14B-LOW-high-res", "", "low"},
        {"wan2.2_low_high_noise_merged_LOW", "", NULL},
        {"untagged", "\"model_type\":\"Wan22-I2V-A14B-low\"", "low"},
        {"untagged", "\"general.name\":\"Wan2.2 High Noise\"", "high"},
        {"wan22_high_noise", "\"model_type\":\"Wan22-I2V-A14B-low\"", "high"},
        {"", "", NULL},
        // clang-format on
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[100];
        snprintf(name, sizeof name, "%s.safetensors", rows[i].name);
        lade_subject_t *subject = s_file(name, rows[i].metadata);
        s_assert_text(lade_predicate_wan_expert(subject), rows[i].expert, name);
        lade_subject_destroy(&subject);
    }
}

static void
test_a_config_beside_a_file_is_its_own(void **state)
{
    (void)state;
    char expected[200];
    lade_subject_t *subject = s_file("a.b.safetensors", "");
    s_assert_text(lade_predicate_config_beside(subject), NULL, "none");
    s_write("a.yaml", "", 0);
    s_assert_text(lade_predicate_config_beside(subject), NULL, "another's");
    s_write("a.b.yaml", "", 0);
    snprintf(expected, sizeof expected, "%s/a.b.yaml", s_folder);
    s_assert_text(lade_predicate_config_beside(subject), expected, "its own");
    lade_subject_destroy(&subject);
}

static void
test_weights_are_there_when_every_shard_is(void **state)
{
    static const struct {
        const char *file, *text;
        bool there; // once this file is there too
    } rows[] = {
        {"w/config.json", "{}", false},
        {"w/model.safetensors.index.json",
         "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}", false},
        {"w/1.safetensors", "", false},
        {"w/2.safetensors", "", true},
        {"w/text_encoder/config.json", "{}", false},
        {"w/text_encoder/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../x\"}}", false},
        {"w/text_encoder/pytorch_model.bin", "", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_write(rows[i].file, rows[i].text, strlen(rows[i].text));
        lade_subject_t *subject = s_open("w");
        json_t *value = lade_predicate_weights(subject);
        if ((value != NULL) != rows[i].there)
            fail_msg("with %s", rows[i].file);
        json_decref(value);
        lade_subject_destroy(&subject);
    }
}

static void
test_submodels_are_those_that_are_there_and_what_they_are_said_to_be(void **state)
{
    static const struct {
        const char *file, *text;
    } rows[] = {
        {"p/model_index.json",
         "{\"_class_name\":\"P\",\"transformer\":[\"diffusers\",\"FluxTransformer2DModel\"],"
         "\"text_encoder\":[\"transformers\",\"CLIPTextModel\"],"
         "\"text_encoder_2\":[\"transformers\",\"T5EncoderModel\"],"
         "\"tokenizer\":[\"transformers\",\"CLIPTokenizer\"],\"vae\":[\"diffusers\","
         "\"AutoencoderKL\"],\"scheduler\":[\"diffusers\",\"X\"],\"safety_checker\":[null,null],"
         "\"../up\":[\"a\",\"b\"],\"number\":7}"},
        {"p/transformer/config.json", "{\"_class_name\":\"FluxTransformer2DModel\"}"},
        {"p/transformer/a.safetensors", ""},
        {"p/text_encoder/config.json",
         "{\"architectures\":[\"CLIPTextModel\"],\"hidden_size\":768}"},
        {"p/text_encoder/model.safetensors", ""},
        {"p/text_encoder_2/config.json", "{\"architectures\":[\"T5EncoderModel\"]}"}, // no weights
        {"p/vae/config.json", "{\"_class_name\":\"AutoencoderTiny\"}"}, // another class
        {"p/vae/a.safetensors", ""},
        {"p/tokenizer/vocab.json", "{}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        s_write(rows[i].file, rows[i].text, strlen(rows[i].text));
    lade_subject_t *subject = s_open("p");
    json_t *found = lade_predicate_submodels(subject);
    json_t *expected = json_pack(
        "{s{ssssssss} s{ssssssssss} s{ssssss}}", "transformer", "library", "diffusers", "class",
        "FluxTransformer2DModel", "path_or_prefix", "transformer", "model_type", "main",
        "text_encoder", "library", "transformers", "class", "CLIPTextModel", "path_or_prefix",
        "text_encoder", "model_type", "clip_embed", "variant", "large", "tokenizer", "library",
        "transformers", "class", "CLIPTokenizer", "path_or_prefix", "tokenizer");
    if (!json_equal(found, expected))
        fail_msg("%s", json_dumps(found, 0));
    json_decref(expected);
    json_decref(found);
    lade_subject_destroy(&subject);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_wan_expert_is_told_by_name),
        cmocka_unit_test(test_a_config_beside_a_file_is_its_own),
        cmocka_unit_test(test_weights_are_there_when_every_shard_is),
        cmocka_unit_test(test_submodels_are_those_that_are_there_and_what_they_are_said_to_be),
    };
    return cmocka_run_group_tests_name("predicates", tests, s_set_up, s_tear_down);
}
