// The selection of a repository's files: the rules of README.md on repositories as they are.
#include "workers/install/select.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { S_MAX = 200 };

// Splits text at blanks into list (ended by NULL); `copy` holds the strings.
static size_t
s_split(const char *text, char **copy, const char **list)
{
    size_t count = 0;
    char *save = NULL;
    *copy = strdup(text);
    for (char *part = strtok_r(*copy, " \n", &save); part; part = strtok_r(NULL, " \n", &save)) {
        assert_true(count < S_MAX);
        list[count++] = part;
    }
    return count;
}

// Runs a selection; wanted is the local paths in order, separated by blanks, "" for nothing found.
static void
s_expect(const char *repo_files, const char *repo, const char *variant, const char *subfolder,
         const char *wanted)
{
    const char *paths[S_MAX], *locals[S_MAX];
    char *copy, *wanted_copy;
    size_t count = s_split(repo_files, &copy, paths),
           wanted_count = s_split(wanted, &wanted_copy, locals);
    lade_selection_t selection;
    lade_error_t error = {0};
    lade_code_t code =
        lade_select_files(paths, count, repo, variant, subfolder, &selection, &error);
    for (size_t i = 0; i < selection.count; i++)
        print_message("  %s\n", selection.items[i].local);
    if (wanted_count == 0) {
        print_message("  %s\n", error.message);
        bool missing = strstr(error.message, "no such file or folder") != NULL;
        assert_int_equal(code, missing ? LADE_NOT_FOUND : LADE_INVALID_MODEL_CONFIG);
        assert_true(!missing || subfolder);
        assert_non_null(strstr(error.message, "No downloadable files found"));
    } else {
        assert_int_equal(code, LADE_OK);
        assert_int_equal(selection.count, wanted_count);
        for (size_t i = 0; i < wanted_count; i++)
            assert_string_equal(selection.items[i].local, locals[i]);
    }
    lade_select_free(&selection);
    free(copy);
    free(wanted_copy);
}

// "d" is diffusion_pytorch_model.
static const char s_repo_a[] =
    "README.md model_index.json M-pruned.safetensors unet/config.json "
    "unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.fp16.bin "
    "unet/diffusion_pytorch_model.fp16.safetensors "
    "unet/diffusion_pytorch_model.safetensors vae/config.json "
    "vae/diffusion_pytorch_model.safetensors";

static void
test_example_1_default_takes_the_plain_weights(void **state)
{
    (void)state;
    s_expect(s_repo_a, "o/M", "", NULL,
             "M/model_index.json M/unet/config.json M/unet/diffusion_pytorch_model.safetensors "
             "M/vae/config.json M/vae/diffusion_pytorch_model.safetensors");
}

static void
test_example_2_fp16_takes_what_has_no_fp16_as_it_is(void **state)
{
    (void)state;
    s_expect(
        s_repo_a, "o/M", "fp16", NULL,
        "M/model_index.json M/unet/config.json M/unet/diffusion_pytorch_model.fp16.safetensors "
        "M/vae/config.json M/vae/diffusion_pytorch_model.safetensors");
}

static void
test_example_3_a_variant_that_is_not_there_is_nothing(void **state)
{
    (void)state;
    s_expect(s_repo_a, "o/M", "onnx", NULL, "");
}

static void
test_example_4_a_subfolder_gets_its_own_name(void **state)
{
    (void)state;
    s_expect(s_repo_a, "o/M", "fp16", "vae",
             "M_vae/config.json M_vae/diffusion_pytorch_model.safetensors");
}

static void
test_example_5_one_file_is_taken_as_asked(void **state)
{
    (void)state;
    s_expect(s_repo_a, "o/M", "", "M-pruned.safetensors", "M_M-pruned.safetensors");
    s_expect(s_repo_a, "o/M", "", "vae/diffusion_pytorch_model.safetensors",
             "M_diffusion_pytorch_model.safetensors");
    s_expect(s_repo_a, "o/M", "", "M-missing.safetensors", "");
}

static const char s_shards[] = "config.json model-00001-of-00002.safetensors "
                               "model-00002-of-00002.safetensors model.safetensors.index.json";

static void
test_example_6_all_shards_are_taken(void **state)
{
    (void)state;
    const char *wanted = "R/config.json R/model-00001-of-00002.safetensors "
                         "R/model-00002-of-00002.safetensors R/model.safetensors.index.json";
    s_expect(s_shards, "o/R", "", NULL, wanted);
    s_expect(s_shards, "o/R", "fp16", NULL, wanted);
}

static void
test_example_7_a_label_behind_the_counter_counts(void **state)
{
    (void)state;
    const char *files =
        "config.json model-00001-of-00002.fp16.safetensors model-00001-of-00002.safetensors "
        "model-00002-of-00002.fp16.safetensors model-00002-of-00002.safetensors";
    s_expect(files, "o/R", "fp16", NULL,
             "R/config.json R/model-00001-of-00002.fp16.safetensors "
             "R/model-00002-of-00002.fp16.safetensors");
    s_expect(files, "o/R", "", NULL,
             "R/config.json R/model-00001-of-00002.safetensors R/model-00002-of-00002.safetensors");
}

static void
test_example_8_a_label_before_the_counter_counts(void **state)
{
    (void)state;
    const char *files =
        "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors "
        "model.fp16-00001-of-00002.safetensors model.fp16-00002-of-00002.safetensors";
    s_expect(files, "o/R", "fp16", NULL,
             "R/config.json R/model.fp16-00001-of-00002.safetensors "
             "R/model.fp16-00002-of-00002.safetensors");
    s_expect(files, "o/R", "", NULL,
             "R/config.json R/model-00001-of-00002.safetensors R/model-00002-of-00002.safetensors");
}

static void
test_example_9_bin_weights_give_way_only_to_safetensors_beside_them(void **state)
{
    (void)state;
    s_expect("a/config.json a/pytorch_model.bin b/config.json b/model.safetensors c/config.json "
             "c/pytorch_model.bin",
             "o/R", "fp16", NULL,
             "R/a/config.json R/a/pytorch_model.bin R/b/config.json R/b/model.safetensors "
             "R/c/config.json R/c/pytorch_model.bin");
}

static void
test_example_10_safetensors_win(void **state)
{
    (void)state;
    const char *files = "pytorch_lora_weights.bin pytorch_lora_weights.safetensors";
    static const char *const variants[] = {"", "fp16", "fp32"};
    for (size_t i = 0; i < 3; i++)
        s_expect(files, "o/R", variants[i], NULL, "R/pytorch_lora_weights.safetensors");
}

static void
test_example_11_a_loose_file_has_to_be_named(void **state)
{
    (void)state;
    const char *files = "learned_embeds-steps-1000.safetensors";
    s_expect(files, "o/R", "", NULL, "");
    s_expect(files, "o/R", "", files, "R_learned_embeds-steps-1000.safetensors");
}

static void
test_example_12_gguf_can_be_had(void **state)
{
    (void)state;
    s_expect("config.json model-Q4.gguf", "o/R", "", NULL, "R/config.json R/model-Q4.gguf");
    s_expect("config.json model-Q4.gguf", "o/R", "", "model-Q4.gguf", "R_model-Q4.gguf");
    // Which of several is wanted, nobody can know.
    s_expect("config.json model-Q4.gguf model-Q8.gguf", "o/R", "", NULL, "");
    s_expect("config.json model-Q4.gguf model.safetensors", "o/R", "", NULL,
             "R/config.json R/model.safetensors");
}

static void
test_example_13_several_subfolders_are_one_model(void **state)
{
    (void)state;
    s_expect("model_index.json text_encoder/config.json text_encoder/model.safetensors "
             "tokenizer/vocab.json tokenizer/merges.txt unet/config.json "
             "unet/diffusion_pytorch_model.safetensors",
             "o/Z", "fp16", " text_encoder + tokenizer/",
             "Z_text_encoder_tokenizer/text_encoder/config.json "
             "Z_text_encoder_tokenizer/text_encoder/model.safetensors "
             "Z_text_encoder_tokenizer/tokenizer/merges.txt "
             "Z_text_encoder_tokenizer/tokenizer/vocab.json");
}

// ---------------------------------------------------------------------------------------------------
// Whole repositories

static const char s_sdxl[] =
    "01.png LICENSE.md README.md comparison.png model_index.json sd_xl_base_1.0.safetensors "
    "sd_xl_base_1.0_0.9vae.safetensors sd_xl_offset_example-lora_1.0.safetensors "
    "scheduler/scheduler_config.json "
    "text_encoder/config.json text_encoder/flax_model.msgpack text_encoder/model.fp16.safetensors "
    "text_encoder/model.onnx text_encoder/model.safetensors text_encoder/openvino_model.bin "
    "text_encoder/openvino_model.xml "
    "text_encoder_2/config.json text_encoder_2/flax_model.msgpack "
    "text_encoder_2/model.fp16.safetensors "
    "text_encoder_2/model.onnx text_encoder_2/model.onnx_data text_encoder_2/model.safetensors "
    "text_encoder_2/openvino_model.bin text_encoder_2/openvino_model.xml "
    "tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json "
    "tokenizer/vocab.json tokenizer_2/merges.txt tokenizer_2/special_tokens_map.json "
    "tokenizer_2/tokenizer_config.json tokenizer_2/vocab.json "
    "unet/config.json unet/diffusion_flax_model.msgpack "
    "unet/diffusion_pytorch_model.fp16.safetensors "
    "unet/diffusion_pytorch_model.safetensors unet/model.onnx unet/model.onnx_data "
    "unet/openvino_model.bin unet/openvino_model.xml "
    "vae/config.json vae/diffusion_flax_model.msgpack vae/diffusion_pytorch_model.fp16.safetensors "
    "vae/diffusion_pytorch_model.safetensors "
    "vae_1_0/config.json vae_1_0/diffusion_pytorch_model.fp16.safetensors "
    "vae_1_0/diffusion_pytorch_model.safetensors "
    "vae_decoder/config.json vae_decoder/model.onnx vae_decoder/openvino_model.bin "
    "vae_decoder/openvino_model.xml "
    "vae_encoder/config.json vae_encoder/model.onnx vae_encoder/openvino_model.bin "
    "vae_encoder/openvino_model.xml";
#define TOKENIZERS                                                                                 \
    "X/tokenizer/merges.txt X/tokenizer/special_tokens_map.json "                                  \
    "X/tokenizer/tokenizer_config.json X/tokenizer/vocab.json X/tokenizer_2/merges.txt "           \
    "X/tokenizer_2/special_tokens_map.json X/tokenizer_2/tokenizer_config.json "                   \
    "X/tokenizer_2/vocab.json "
#define TOP "X/model_index.json X/scheduler/scheduler_config.json "

static void
test_sdxl_default(void **state)
{
    (void)state;
    s_expect(s_sdxl, "stabilityai/X", "", NULL,
             TOP "X/text_encoder/config.json X/text_encoder/model.safetensors "
                 "X/text_encoder_2/config.json X/text_encoder_2/model.safetensors " TOKENIZERS
                 "X/unet/config.json X/unet/diffusion_pytorch_model.safetensors X/vae/config.json "
                 "X/vae/diffusion_pytorch_model.safetensors X/vae_1_0/config.json "
                 "X/vae_1_0/diffusion_pytorch_model.safetensors");
}

static void
test_sdxl_fp16(void **state)
{
    (void)state;
    s_expect(s_sdxl, "stabilityai/X", "fp16", NULL,
             TOP "X/text_encoder/config.json X/text_encoder/model.fp16.safetensors "
                 "X/text_encoder_2/config.json X/text_encoder_2/model.fp16.safetensors " TOKENIZERS
                 "X/unet/config.json X/unet/diffusion_pytorch_model.fp16.safetensors "
                 "X/vae/config.json X/vae/diffusion_pytorch_model.fp16.safetensors "
                 "X/vae_1_0/config.json X/vae_1_0/diffusion_pytorch_model.fp16.safetensors");
}

static void
test_sdxl_onnx(void **state)
{
    (void)state;
    s_expect(s_sdxl, "stabilityai/X", "onnx", NULL,
             TOP "X/text_encoder/config.json X/text_encoder/model.onnx "
                 "X/text_encoder_2/config.json X/text_encoder_2/model.onnx "
                 "X/text_encoder_2/model.onnx_data " TOKENIZERS
                 "X/unet/config.json X/unet/model.onnx X/unet/model.onnx_data "
                 "X/vae_decoder/config.json X/vae_decoder/model.onnx "
                 "X/vae_encoder/config.json X/vae_encoder/model.onnx");
}

static void
test_sdxl_openvino(void **state)
{
    (void)state;
    s_expect(s_sdxl, "stabilityai/X", "openvino", NULL,
             TOP
             "X/text_encoder/config.json X/text_encoder/openvino_model.bin "
             "X/text_encoder/openvino_model.xml X/text_encoder_2/config.json "
             "X/text_encoder_2/openvino_model.bin X/text_encoder_2/openvino_model.xml " TOKENIZERS
             "X/unet/config.json X/unet/openvino_model.bin X/unet/openvino_model.xml "
             "X/vae_decoder/config.json X/vae_decoder/openvino_model.bin "
             "X/vae_decoder/openvino_model.xml X/vae_encoder/config.json "
             "X/vae_encoder/openvino_model.bin X/vae_encoder/openvino_model.xml");
}

static void
test_sdxl_flax(void **state)
{
    (void)state;
    s_expect(s_sdxl, "stabilityai/X", "flax", NULL,
             TOP "X/text_encoder/config.json X/text_encoder/flax_model.msgpack "
                 "X/text_encoder_2/config.json X/text_encoder_2/flax_model.msgpack " TOKENIZERS
                 "X/unet/config.json X/unet/diffusion_flax_model.msgpack X/vae/config.json "
                 "X/vae/diffusion_flax_model.msgpack");
}

static const char s_sd1[] =
    "README.md feature_extractor/preprocessor_config.json model_index.json "
    "safety_checker/config.json safety_checker/model.fp16.safetensors "
    "safety_checker/model.safetensors "
    "safety_checker/pytorch_model.bin safety_checker/pytorch_model.fp16.bin "
    "scheduler/scheduler_config.json "
    "text_encoder/config.json text_encoder/model.fp16.safetensors text_encoder/model.safetensors "
    "text_encoder/pytorch_model.bin text_encoder/pytorch_model.fp16.bin "
    "tokenizer/merges.txt tokenizer/vocab.json "
    "unet/config.json unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.fp16.bin "
    "unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.bin "
    "unet/diffusion_pytorch_model.non_ema.safetensors unet/diffusion_pytorch_model.safetensors "
    "v1-5-pruned-emaonly.ckpt v1-5-pruned-emaonly.safetensors v1-5-pruned.ckpt v1-inference.yaml "
    "vae/config.json vae/diffusion_pytorch_model.bin vae/diffusion_pytorch_model.fp16.bin "
    "vae/diffusion_pytorch_model.fp16.safetensors vae/diffusion_pytorch_model.safetensors";

static void
test_sd1_takes_one_file_a_folder(void **state)
{
    (void)state;
    s_expect(s_sd1, "o/R", "fp16", NULL,
             "R/feature_extractor/preprocessor_config.json R/model_index.json "
             "R/safety_checker/config.json R/safety_checker/model.fp16.safetensors "
             "R/scheduler/scheduler_config.json R/text_encoder/config.json "
             "R/text_encoder/model.fp16.safetensors R/tokenizer/merges.txt R/tokenizer/vocab.json "
             "R/unet/config.json R/unet/diffusion_pytorch_model.fp16.safetensors R/vae/config.json "
             "R/vae/diffusion_pytorch_model.fp16.safetensors");
    s_expect(s_sd1, "o/R", "fp32", NULL,
             "R/feature_extractor/preprocessor_config.json R/model_index.json "
             "R/safety_checker/config.json R/safety_checker/model.safetensors "
             "R/scheduler/scheduler_config.json R/text_encoder/config.json "
             "R/text_encoder/model.safetensors R/tokenizer/merges.txt R/tokenizer/vocab.json "
             "R/unet/config.json R/unet/diffusion_pytorch_model.safetensors R/vae/config.json "
             "R/vae/diffusion_pytorch_model.safetensors");
}

static void
test_flux_takes_every_shard(void **state)
{
    (void)state;
    s_expect("ae.safetensors flux1-schnell.safetensors model_index.json schnell_grid.jpeg "
             "scheduler/scheduler_config.json text_encoder_2/config.json "
             "text_encoder_2/model-00001-of-00002.safetensors "
             "text_encoder_2/model-00002-of-00002.safetensors "
             "text_encoder_2/model.safetensors.index.json tokenizer_2/spiece.model "
             "tokenizer_2/tokenizer.json transformer/config.json "
             "transformer/diffusion_pytorch_model-00001-of-00003.safetensors "
             "transformer/diffusion_pytorch_model-00002-of-00003.safetensors "
             "transformer/diffusion_pytorch_model-00003-of-00003.safetensors "
             "transformer/diffusion_pytorch_model.safetensors.index.json",
             "o/F", "", NULL,
             "F/model_index.json F/scheduler/scheduler_config.json F/text_encoder_2/config.json "
             "F/text_encoder_2/model-00001-of-00002.safetensors "
             "F/text_encoder_2/model-00002-of-00002.safetensors "
             "F/text_encoder_2/model.safetensors.index.json F/tokenizer_2/spiece.model "
             "F/tokenizer_2/tokenizer.json F/transformer/config.json "
             "F/transformer/diffusion_pytorch_model-00001-of-00003.safetensors "
             "F/transformer/diffusion_pytorch_model-00002-of-00003.safetensors "
             "F/transformer/diffusion_pytorch_model-00003-of-00003.safetensors "
             "F/transformer/diffusion_pytorch_model.safetensors.index.json");
}

// ---------------------------------------------------------------------------------------------------
// Hubs that mean no good

static void
test_a_path_that_leaves_the_folder_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"../model.safetensors",      "/etc/model.safetensors",
                                      "a/../../model.safetensors", "a//model.safetensors",
                                      "a\\..\\model.safetensors",  "./model.safetensors"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        lade_selection_t selection;
        lade_error_t error = {0};
        assert_int_equal(lade_select_files(&bad[i], 1, "o/R", "", NULL, &selection, &error),
                         LADE_CORRUPT);
        assert_non_null(strstr(error.message, "o/R"));
        lade_select_free(&selection);
        lade_select_files(&bad[i], 1, "o/R", "", bad[i], &selection, &error);
        assert_int_equal(selection.count, 0);
        lade_select_free(&selection);
    }
}

static void
test_odd_lists_do_no_harm(void **state)
{
    (void)state;
    s_expect("", "o/R", "", NULL, "");
    s_expect("/ // model/ config.json", "o/R", "", NULL, "");
    s_expect("model.safetensors model.safetensors", "o/R", "", NULL, "R/model.safetensors");
    s_expect("model-of-.safetensors model-1-of-.safetensors -1-of-2.model.bin", "o/R", "", NULL,
             "R/model-1-of-.safetensors R/model-of-.safetensors");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example_1_default_takes_the_plain_weights),
        cmocka_unit_test(test_example_2_fp16_takes_what_has_no_fp16_as_it_is),
        cmocka_unit_test(test_example_3_a_variant_that_is_not_there_is_nothing),
        cmocka_unit_test(test_example_4_a_subfolder_gets_its_own_name),
        cmocka_unit_test(test_example_5_one_file_is_taken_as_asked),
        cmocka_unit_test(test_example_6_all_shards_are_taken),
        cmocka_unit_test(test_example_7_a_label_behind_the_counter_counts),
        cmocka_unit_test(test_example_8_a_label_before_the_counter_counts),
        cmocka_unit_test(test_example_9_bin_weights_give_way_only_to_safetensors_beside_them),
        cmocka_unit_test(test_example_10_safetensors_win),
        cmocka_unit_test(test_example_11_a_loose_file_has_to_be_named),
        cmocka_unit_test(test_example_12_gguf_can_be_had),
        cmocka_unit_test(test_example_13_several_subfolders_are_one_model),
        cmocka_unit_test(test_sdxl_default),
        cmocka_unit_test(test_sdxl_fp16),
        cmocka_unit_test(test_sdxl_onnx),
        cmocka_unit_test(test_sdxl_openvino),
        cmocka_unit_test(test_sdxl_flax),
        cmocka_unit_test(test_sd1_takes_one_file_a_folder),
        cmocka_unit_test(test_flux_takes_every_shard),
        cmocka_unit_test(test_a_path_that_leaves_the_folder_is_refused),
        cmocka_unit_test(test_odd_lists_do_no_harm),
    };
    return cmocka_run_group_tests_name("select", tests, NULL, NULL);
}
