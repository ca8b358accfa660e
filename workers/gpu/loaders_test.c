// Tests of the registry and of choosing a folder's files.
#include "workers/gpu/loaders.h"

#include "common/record.h"
#include "common/taxonomy.h"

#include "workers/gpu/test_models.h"

static lade_code_t
s_none(const lade_loader_request_t *request, lade_files_t *files, lade_error_t *error)
{
    (void)request;
    (void)files;
    (void)error;
    return LADE_OK;
}

static void
test_two_loaders_for_one_triple_are_an_error_at_the_start(void **state)
{
    (void)state;
    const lade_loader_t rows[] = {
        {"any", "main", "diffusers", s_none, NULL},
        {"sd-1", "main", "diffusers", s_none, NULL},
        {"any", "main", "diffusers", s_none, NULL},
        {0},
    };
    lade_loaders_t *loaders;
    lade_error_t error = {0};
    assert_int_equal(lade_loaders_new(rows, &loaders, &error), LADE_CONFIG_ERROR);
    assert_null(loaders);
    assert_non_null(strstr(error.message, "base=any, type=main, format=diffusers"));
}

static void
test_the_exact_base_comes_before_any(void **state)
{
    (void)state;
    const lade_loader_t rows[] = {{"any", "vae", "checkpoint", s_none, NULL},
                                  {"sd-1", "vae", "checkpoint", s_none, NULL},
                                  {0}};
    lade_loaders_t *loaders;
    const lade_loader_t *row;
    lade_error_t error = {0};
    assert_int_equal(lade_loaders_new(rows, &loaders, NULL), LADE_OK);
    assert_int_equal(lade_loaders_find(loaders, "sd-1", "vae", "checkpoint", &row, NULL), LADE_OK);
    assert_ptr_equal(row, &rows[1]);
    assert_int_equal(lade_loaders_find(loaders, "sdxl", "vae", "checkpoint", &row, NULL), LADE_OK);
    assert_ptr_equal(row, &rows[0]);
    assert_int_equal(lade_loaders_find(loaders, "sdxl", "vae", "olive", &row, &error),
                     LADE_NOT_IMPLEMENTED);
    assert_non_null(strstr(error.message, "base=sdxl, type=vae, format=olive"));
    lade_loaders_destroy(&loaders);
}

// ---------------------------------------------------------------------------------------------------
// Folders

static void
test_one_set_of_a_folders_weights_is_chosen(void **state)
{
    static const struct {
        const char *files;    // there, by spaces
        const char *variant;  // asked for
        const char *expected; // by spaces
    } cases[] = {
        {"model.safetensors config.json", "", "model.safetensors"},
        {"model.bin model.safetensors", "", "model.safetensors"},
        {"pytorch_model.bin", "", "pytorch_model.bin"},
        {"model.safetensors model.fp16.safetensors", "", "model.safetensors"},
        {"model.safetensors model.fp16.safetensors", "fp16", "model.fp16.safetensors"},
        {"model.safetensors", "fp16", "model.safetensors"},
        {"model.fp16.safetensors", "", "model.fp16.safetensors"},
        {"model.fp16.bin model.safetensors", "fp16", "model.safetensors"},
        {"diffusion_pytorch_model.non_ema.safetensors diffusion_pytorch_model.safetensors", "",
         "diffusion_pytorch_model.safetensors"},
        {"model-00001-of-00002.safetensors model-00002-of-00002.safetensors "
         "model.safetensors.index.json",
         "", "model-00001-of-00002.safetensors model-00002-of-00002.safetensors"},
        {"model.fp16-00001-of-00002.safetensors model.fp16-00002-of-00002.safetensors "
         "model.safetensors",
         "fp16", "model.fp16-00001-of-00002.safetensors model.fp16-00002-of-00002.safetensors"},
        {"model-00001-of-00002.fp16.safetensors model-00002-of-00002.fp16.safetensors "
         "model.safetensors",
         "fp16", "model-00001-of-00002.fp16.safetensors model-00002-of-00002.fp16.safetensors"},
        {"model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors", "",
         "model.safetensors"},
        {"other.safetensors pytorch_lora_weights.safetensors", "",
         "pytorch_lora_weights.safetensors"},
        {"sd_xl_1.0.safetensors", "", "sd_xl_1.0.safetensors"},
        {"-of-1.safetensors", "", "-of-1.safetensors"},
        {"a-0-of-99999999999999.safetensors", "", "a-0-of-99999999999999.safetensors"},
        {".fp16.safetensors config.json", "", ""},
        {"", "", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[20], names[500], got[500] = "";
        snprintf(name, sizeof name, "case-%zu", i);
        char *folder = lade_path_join(*state, name);
        assert_int_equal(lade_path_mkdirs(folder, 0755, NULL), LADE_OK);
        snprintf(names, sizeof names, "%s", cases[i].files);
        char *rest = NULL;
        for (char *file = strtok_r(names, " ", &rest); file; file = strtok_r(NULL, " ", &rest))
            test_text_file(folder, file, "{}");
        lade_files_t files = {0};
        lade_error_t error = {0};
        if (lade_folder_weights(folder, cases[i].variant, &files, &error))
            fail_msg("%s: %s", cases[i].files, error.message);
        for (size_t f = 0; f < files.count; f++)
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", f ? " " : "",
                     files.paths[f] + strlen(folder) + 1);
        assert_string_equal(got, cases[i].expected);
        lade_files_free(&files);
        free(folder);
    }
}

static void
test_shards_that_are_missing_are_counted(void **state)
{
    test_text_file(*state, "half/model-00001-of-00003.safetensors", "");
    test_text_file(*state, "half/model-00003-of-00003.safetensors", "");
    char *folder = lade_path_join(*state, "half");
    lade_files_t files = {0};
    lade_error_t error = {0};
    assert_int_equal(lade_folder_weights(folder, "", &files, &error), LADE_MODEL_NOT_FOUND);
    assert_non_null(strstr(error.message, "2 of 3 shards of model"));
    lade_files_free(&files);
    free(folder);
}

static void
test_an_index_says_what_names_do_not(void **state)
{
    test_text_file(*state, "indexed/part_one.safetensors", "");
    test_text_file(*state, "indexed/part_two.safetensors", "");
    test_text_file(*state, "indexed/another.safetensors", "");
    test_text_file(
        *state, "indexed/model.safetensors.index.json",
        "{\"weight_map\": {\"a\": \"part_two.safetensors\", \"b\": \"part_one.safetensors\", "
        "\"c\": \"part_two.safetensors\"}}");
    char *folder = lade_path_join(*state, "indexed");
    lade_files_t files = {0};
    lade_error_t error = {0};
    assert_int_equal(lade_folder_weights(folder, "", &files, &error), LADE_OK);
    assert_int_equal(files.count, 2);
    assert_non_null(strstr(files.paths[0], "/part_one.safetensors"));
    assert_non_null(strstr(files.paths[1], "/part_two.safetensors"));
    lade_files_free(&files);
    test_text_file(*state, "indexed/model.safetensors.index.json",
                   "{\"weight_map\": {\"a\": \"../../etc/passwd\"}}");
    assert_int_equal(lade_folder_weights(folder, "", &files, &error), LADE_CORRUPT);
    lade_files_free(&files);
    test_text_file(*state, "indexed/model.safetensors.index.json", "{\"weight_map\": {\"a\": 7}}");
    assert_int_equal(lade_folder_weights(folder, "", &files, &error), LADE_CORRUPT);
    lade_files_free(&files);
    free(folder);
}

// ---------------------------------------------------------------------------------------------------
// Records

static lade_code_t
s_files(const char *folder, json_t *record, const char *submodel, lade_files_t *files,
        lade_error_t *error)
{
    lade_loaders_t *loaders;
    assert_int_equal(lade_loaders_new(lade_loaders_host, &loaders, NULL), LADE_OK);
    lade_code_t code = lade_loaders_files(loaders, record, submodel, folder, files, error);
    lade_loaders_destroy(&loaders);
    json_decref(record);
    return code;
}

// The sentence a record is refused with has these words.
static void
s_assert_refused(const char *folder, json_t *record, const char *submodel, lade_code_t code,
                 const char *words)
{
    lade_files_t files = {0};
    lade_error_t error = {0};
    assert_int_equal(s_files(folder, record, submodel, &files, &error), code);
    if (!strstr(error.message, words))
        fail_msg("'%s' does not say '%s'", error.message, words);
    assert_int_equal(files.count, 0);
}

static void
s_make_pipeline(const char *folder)
{
    test_text_file(
        folder, "sd/model_index.json",
        "{\"_class_name\": \"StableDiffusionPipeline\", \"unet\": [\"diffusers\", "
        "\"UNet2DConditionModel\"],"
        "\"vae\": [\"diffusers\", \"AutoencoderKL\"], \"safety_checker\": [null, null],"
        "\"scheduler\": [\"diffusers\", \"PNDMScheduler\"], \"gone\": [\"diffusers\", \"X\"],"
        "\"..\": [\"a\", \"b\"], \"requires_safety_checker\": true}");
    free(test_model(folder, "sd/unet/diffusion_pytorch_model.safetensors", "unet", 64, 0));
    free(test_model(folder, "sd/unet/diffusion_pytorch_model.fp16.safetensors", "unet", 64, 0));
    test_text_file(folder, "sd/vae/config.json", "{}");
    test_text_file(folder, "sd/scheduler/scheduler_config.json", "{}");
    test_text_file(folder, "sd/safety_checker/config.json", "{}");
}

static void
test_parts_of_a_pipeline(void **state)
{
    s_make_pipeline(*state);
    lade_files_t files = {0};
    lade_error_t error = {0};
    assert_int_equal(
        s_files(*state, test_record("m", "main", "diffusers", "sd"), "unet", &files, &error),
        LADE_OK);
    assert_int_equal(files.count, 1);
    assert_non_null(strstr(files.paths[0], "/sd/unet/diffusion_pytorch_model.safetensors"));
    lade_files_free(&files);
    json_t *record = test_record("m", "main", "diffusers", "sd");
    json_object_set_new(record, "repo_variant", json_string("fp16"));
    assert_int_equal(s_files(*state, record, "unet", &files, &error), LADE_OK);
    assert_non_null(strstr(files.paths[0], "fp16"));
    lade_files_free(&files);
    assert_int_equal(
        s_files(*state, test_record("m", "main", "diffusers", "sd"), "scheduler", &files, &error),
        LADE_OK);
    assert_int_equal(files.count, 0);
}

static void
s_assert_path(const char *folder, json_t *record, const char *submodel, const char *below)
{
    char *path = lade_loaders_path(record, submodel, folder),
         *wanted = lade_path_join(folder, below);
    assert_string_equal(path, wanted);
    free(wanted);
    free(path);
}

static void
test_parts_that_the_record_places_elsewhere(void **state)
{
    s_make_pipeline(*state);
    free(test_model(*state, "mine/model.safetensors", "vae", 64, 0));
    char *mine = lade_path_join(*state, "mine");
    json_t *record = test_record("m", "main", "diffusers", "sd");
    s_assert_path(*state, record, NULL, "sd");
    s_assert_path(*state, record, "unet", "sd/unet");
    s_assert_path(*state, record, "gone", "sd");
    json_object_set_new(record, "submodels",
                        json_pack("{s:{s:s}, s:{s:s}, s:{s:s}}", "vae", "path_or_prefix", mine,
                                  "scheduler", "path_or_prefix", "../mine", "gone",
                                  "path_or_prefix", "unet"));
    s_assert_path(*state, record, "vae", "mine");
    s_assert_path(*state, record, "scheduler", "sd/scheduler"); // nothing above the model
    s_assert_path(*state, record, "gone", "sd/unet");
    lade_files_t files = {0};
    assert_int_equal(s_files(*state, json_incref(record), "vae", &files, NULL), LADE_OK);
    assert_int_equal(files.count, 1);
    assert_non_null(strstr(files.paths[0], "/mine/model.safetensors"));
    lade_files_free(&files);
    json_decref(record);
    free(mine);
}

static json_t *
s_placing(const char *format, const char *path, const char *submodel, const char *where)
{
    json_t *record = test_record("m", "main", format, path);
    json_object_set_new(record, "submodels",
                        json_pack("{s:{s:s}}", submodel, "path_or_prefix", where));
    return record;
}

static void
test_parts_of_their_own_files_and_variants(void **state)
{
    s_make_pipeline(*state);
    char *file = test_model(*state, "better.safetensors", "vae", 64, 0);
    free(test_model(*state, "one.safetensors", "unet", 64, 0));
    lade_files_t files = {0};
    lade_error_t error = {0};
    static const struct {
        const char *format, *path;
    } rows[] = {{"diffusers", "sd"}, {"checkpoint", "one.safetensors"}};
    for (size_t i = 0; i < 2; i++) {
        json_t *record = s_placing(rows[i].format, rows[i].path, "vae", file);
        assert_true(lade_loaders_places(record, "vae"));
        assert_false(lade_loaders_places(record, "unet"));
        assert_false(lade_loaders_places(record, NULL));
        assert_int_equal(s_files(*state, json_incref(record), "vae", &files, &error), LADE_OK);
        assert_int_equal(files.count, 1);
        assert_string_equal(files.paths[0], file);
        lade_files_free(&files);
        char *path = lade_loaders_path(record, "vae", *state);
        assert_string_equal(path, file);
        free(path);
        json_decref(record);
    }
    s_assert_refused(*state, s_placing("diffusers", "sd", "vae", "/nowhere/vae"), "vae",
                     LADE_MODEL_NOT_FOUND, "its record says that its vae is at /nowhere/vae");
    json_t *record = test_record("m", "main", "diffusers", "sd");
    json_object_set_new(record, "submodels", json_pack("{s:{s:s}}", "unet", "variant", "fp16"));
    assert_int_equal(s_files(*state, json_incref(record), "unet", &files, &error), LADE_OK);
    assert_non_null(strstr(files.paths[0], "fp16"));
    lade_files_free(&files);
    json_object_set_new(record, "submodels", json_pack("{s:{s:s}}", "unet", "variant", "large"));
    assert_int_equal(s_files(*state, record, "unet", &files, &error), LADE_OK);
    assert_null(strstr(files.paths[0], "fp16")); // another kind of variant
    lade_files_free(&files);
    free(file);
}

static void
test_submodels_that_cannot_be(void **state)
{
    s_make_pipeline(*state);
    free(test_model(*state, "lora.safetensors", "l", 64, 0));
    const char *there = "unet, vae, scheduler";
    json_t *(*record)(const char *, const char *, const char *, const char *) = test_record;
    s_assert_refused(*state, record("m", "main", "diffusers", "sd"), NULL, LADE_VALUE_ERROR,
                     "a submodel is mandatory");
    s_assert_refused(*state, record("m", "main", "diffusers", "sd"), NULL, LADE_VALUE_ERROR, there);
    s_assert_refused(*state, record("m", "main", "diffusers", "sd"), "text_encoder",
                     LADE_VALUE_ERROR, there);
    s_assert_refused(*state, record("m", "main", "diffusers", "sd"), "safety_checker",
                     LADE_VALUE_ERROR, there);
    s_assert_refused(*state, record("m", "main", "diffusers", "sd"), "gone", LADE_VALUE_ERROR,
                     there);
    s_assert_refused(*state, record("m", "main", "diffusers", "sd"), "..", LADE_VALUE_ERROR, there);
    s_assert_refused(*state, record("m", "main", "diffusers", "sd"), "_class_name",
                     LADE_VALUE_ERROR, there);
    s_assert_refused(*state, record("m", "main", "diffusers", "sd"), "vae", LADE_MODEL_NOT_FOUND,
                     "holds no weights");
    s_assert_refused(*state, record("m", "lora", "lycoris", "lora.safetensors"), "unet",
                     LADE_VALUE_ERROR, "has no submodel 'unet'");
}

static void
test_records_that_cannot_be_loaded(void **state)
{
    json_t *(*record)(const char *, const char *, const char *, const char *) = test_record;
    test_text_file(*state, "empty/readme.txt", "");
    s_assert_refused(*state, record("m", "vae", "checkpoint", "gone.safetensors"), NULL,
                     LADE_MODEL_NOT_FOUND, "files for model 'm' not found at ");
    s_assert_refused(*state, record("m", "main", "diffusers", "empty"), "unet",
                     LADE_MODEL_NOT_FOUND, "model_index.json");
    s_assert_refused(*state, record("m", "vae", "diffusers", "empty"), NULL, LADE_MODEL_NOT_FOUND,
                     "holds no weights");
    s_assert_refused(*state, record("m", "unknown", "olive", "gone"), NULL, LADE_NOT_IMPLEMENTED,
                     "base=sd-1, type=unknown, format=olive");
    s_assert_refused(*state, record("m", "vae", "checkpoint", "../../etc/passwd"), NULL,
                     LADE_VALUE_ERROR, "path");
    s_assert_refused(*state, json_object(), NULL, LADE_NOT_IMPLEMENTED, "base=?");
    s_assert_refused(*state, record("m", "vae", "checkpoint", ""), NULL, LADE_INVALID_MODEL_CONFIG,
                     "path");
    test_text_file(*state, "broken/model_index.json", "{");
    s_assert_refused(*state, record("m", "main", "diffusers", "broken"), "unet", LADE_CORRUPT, "");
}

static void
test_an_absolute_path_is_taken_as_it_is(void **state)
{
    char *path = test_model(*state, "a/lora.safetensors", "l", 64, 0);
    lade_files_t files = {0};
    lade_error_t error = {0};
    assert_int_equal(
        s_files("/nowhere", test_record("m", "lora", "lycoris", path), NULL, &files, &error),
        LADE_OK);
    assert_int_equal(files.count, 1);
    assert_string_equal(files.paths[0], path);
    lade_files_free(&files);
    free(path);
}

// ---------------------------------------------------------------------------------------------------
// Every class

static void
test_every_class_there_is_has_a_loader(void **state)
{
    (void)state;
    lade_loaders_t *loaders;
    const lade_loader_t *row;
    size_t classes = 0;
    assert_int_equal(lade_loaders_new(lade_loaders_host, &loaders, NULL), LADE_OK);
    const char *const *types = lade_enum_values(LADE_ENUM_TYPE);
    const char *const *bases = lade_enum_values(LADE_ENUM_BASE);
    for (; *types; types++) {
        const char *const *formats = lade_taxonomy_formats(*types);
        for (; strcmp(*types, "unknown") && *formats; formats++, classes++)
            for (size_t b = 0; bases[b]; b++) {
                lade_error_t error = {0};
                if (lade_loaders_find(loaders, bases[b], *types, *formats, &row, &error))
                    fail_msg("%s", error.message);
            }
    }
    assert_true(classes > 40);
    lade_loaders_destroy(&loaders);
}

// The files of a model, as their names from its folder, by spaces; yours.
static char *
s_names(const char *folder, const char *base, const char *type, const char *format,
        const char *path, const char *submodel)
{
    lade_files_t files = {0};
    lade_error_t error = {0};
    json_t *record = test_record("m", type, format, path);
    json_object_set_new(record, "base", json_string(base));
    if (s_files(folder, record, submodel, &files, &error))
        fail_msg("%s.%s: %s", type, format, error.message);
    char *names = calloc(1, 1000);
    for (size_t i = 0; i < files.count; i++)
        snprintf(names + strlen(names), 1000 - strlen(names), "%s%s", i ? " " : "",
                 files.paths[i] + strlen(folder) + 1);
    lade_files_free(&files);
    return names;
}

static void
test_what_is_read_of_each_kind(void **state)
{
    static const struct {
        const char *there; // files, by spaces
        const char *base, *type, *format, *path, *submodel;
        const char *expected;
    } cases[] = {
        // clang-format off
        {"t5/text_encoder_2/model-00001-of-00002.safetensors t5/text_encoder_2/model-00002-of-00002.safetensors "
         "t5/tokenizer_2/tokenizer.json", "any", "t5_encoder", "t5_encoder", "t5", "text_encoder_2",
         "t5/text_encoder_2/model-00001-of-00002.safetensors t5/text_encoder_2/model-00002-of-00002.safetensors"},
        {"", "any", "t5_encoder", "t5_encoder", "t5", "tokenizer_2", ""},
        {"clip/text_encoder/model.safetensors clip/tokenizer/vocab.json", "any", "clip_embed", "diffusers", "clip",
         "text_encoder", "clip/text_encoder/model.safetensors"},
        {"qwen/model.safetensors", "any", "qwen3_encoder", "qwen3_encoder", "qwen", "text_encoder",
         "qwen/model.safetensors"},
        {"qwen.gguf", "any", "qwen3_encoder", "gguf_quantized", "qwen.gguf", "text_encoder", "qwen.gguf"},
        {"", "any", "qwen3_encoder", "gguf_quantized", "qwen.gguf", "tokenizer", ""},
        {"flux.safetensors", "flux", "main", "checkpoint", "flux.safetensors", "transformer", "flux.safetensors"},
        {"", "flux", "main", "checkpoint", "flux.safetensors", NULL, "flux.safetensors"},
        {"wan-00001-of-00002.gguf wan-00002-of-00002.gguf", "wan", "main", "gguf_quantized", "wan-00002-of-00002.gguf",
         "transformer", "wan-00001-of-00002.gguf wan-00002-of-00002.gguf"},
        {"sdnq/model.safetensors", "flux", "main", "sdnq_quantized", "sdnq", "transformer", "sdnq/model.safetensors"},
        {"ip/ip_adapter.bin ip/image_encoder.txt", "sd-1", "ip_adapter", "invokeai", "ip", NULL, "ip/ip_adapter.bin"},
        {"lora/pytorch_lora_weights.bin", "sd-1", "lora", "diffusers", "lora", NULL, "lora/pytorch_lora_weights.bin"},
        {"ti/learned_embeds.bin", "sd-1", "embedding", "embedding_folder", "ti", NULL, "ti/learned_embeds.bin"},
        {"onnx/unet/model.onnx onnx/unet/weights.pb onnx/unet/another.onnx onnx/scheduler/x.json", "sd-1", "onnx", "onnx",
         "onnx", "unet", "onnx/unet/model.onnx"},
        {"", "sd-1", "onnx", "olive", "onnx", "scheduler", ""},
        {"graph.onnx", "sd-1", "onnx", "onnx", "graph.onnx", NULL, "graph.onnx"},
        {"up/4x.pth", "any", "spandrel_image_to_image", "checkpoint", "up/4x.pth", NULL, "up/4x.pth"},
        // clang-format on
    };
    test_text_file(*state, "onnx/model_index.json",
                   "{\"unet\": [\"diffusers\", \"OnnxRuntimeModel\"], \"scheduler\": "
                   "[\"diffusers\", \"PNDMScheduler\"]}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char there[500], *rest = NULL;
        snprintf(there, sizeof there, "%s", cases[i].there);
        for (char *file = strtok_r(there, " ", &rest); file; file = strtok_r(NULL, " ", &rest))
            test_text_file(*state, file, "{}");
        char *names = s_names(*state, cases[i].base, cases[i].type, cases[i].format, cases[i].path,
                              cases[i].submodel);
        assert_string_equal(names, cases[i].expected);
        free(names);
    }
    json_t *(*record)(const char *, const char *, const char *, const char *) = test_record;
    s_assert_refused(*state, record("m", "t5_encoder", "t5_encoder", "t5"), NULL, LADE_VALUE_ERROR,
                     "mandatory, one of: text_encoder_2, tokenizer_2");
    s_assert_refused(*state, record("m", "t5_encoder", "t5_encoder", "t5"), "text_encoder",
                     LADE_VALUE_ERROR, "has no submodel 'text_encoder'");
    s_assert_refused(*state, record("m", "onnx", "onnx", "onnx"), NULL, LADE_VALUE_ERROR,
                     "a submodel is mandatory");
    s_assert_refused(*state, record("m", "ip_adapter", "invokeai", "ip"), "unet", LADE_VALUE_ERROR,
                     "has no submodel");
    s_assert_refused(*state, record("m", "external_image_generator", "external_api", "ip"), NULL,
                     LADE_VALUE_ERROR, "nothing to load");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_loaders_for_one_triple_are_an_error_at_the_start),
        cmocka_unit_test(test_the_exact_base_comes_before_any),
        cmocka_unit_test(test_one_set_of_a_folders_weights_is_chosen),
        cmocka_unit_test(test_shards_that_are_missing_are_counted),
        cmocka_unit_test(test_an_index_says_what_names_do_not),
        cmocka_unit_test(test_parts_of_a_pipeline),
        cmocka_unit_test(test_parts_that_the_record_places_elsewhere),
        cmocka_unit_test(test_parts_of_their_own_files_and_variants),
        cmocka_unit_test(test_submodels_that_cannot_be),
        cmocka_unit_test(test_records_that_cannot_be_loaded),
        cmocka_unit_test(test_an_absolute_path_is_taken_as_it_is),
        cmocka_unit_test(test_every_class_there_is_has_a_loader),
        cmocka_unit_test(test_what_is_read_of_each_kind),
    };
    return cmocka_run_group_tests(tests, test_folder_new, test_folder_remove);
}
