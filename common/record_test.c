// Records: what passes the check, what does not and what it is told, and how changes are applied.
#include "common/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char s_main[] =
    "{\"name\": \"model\", \"type\": \"main\", \"base\": \"sd-1\", \"format\": \"diffusers\", "
    "\"path\": \"sd-1/main/model\"}";
static const char s_embedding[] =
    "{\"name\": \"words\", \"type\": \"embedding\", \"base\": \"sd-1\", "
    "\"format\": \"embedding_file\", \"path\": \"a.pt\"}";

static json_t *
s_json(const char *text)
{
    json_error_t error;
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value)
        fail_msg("%s: %s", text, error.text);
    return value;
}

// A record with some fields changed, null removing one.
static json_t *
s_with(const char *record, const char *changes)
{
    json_t *value = s_json(record), *more = s_json(changes);
    json_object_update(value, more);
    json_decref(more);
    return value;
}

static void
test_enumerations_hold_the_taxonomy(void **state)
{
    (void)state;
    assert_true(lade_enum_has(LADE_ENUM_TYPE, "spandrel_image_to_image"));
    assert_true(lade_enum_has(LADE_ENUM_BASE, "sdxl-refiner"));
    assert_true(lade_enum_has(LADE_ENUM_FORMAT, "embedding_folder"));
    assert_true(lade_enum_has(LADE_ENUM_VARIANT, "inpaint"));
    assert_true(lade_enum_has(LADE_ENUM_PREDICTION, "v_prediction"));
    assert_true(lade_enum_has(LADE_ENUM_REPO_VARIANT, ""));
    assert_true(lade_enum_has(LADE_ENUM_SUBMODEL, "text_encoder_2"));
    assert_true(lade_enum_has(LADE_ENUM_SOURCE_TYPE, "hf_repo_id"));
    assert_false(lade_enum_has(LADE_ENUM_TYPE, "Main"));
    assert_false(lade_enum_has(LADE_ENUM_TYPE, NULL));
    for (int which = 0; which < LADE_ENUM_COUNT; which++) {
        const char *const *values = lade_enum_values((lade_enum_t)which);
        for (size_t i = 0; values[i]; i++)
            for (size_t j = i + 1; values[j]; j++)
                assert_string_not_equal(values[i], values[j]);
    }
}

static void
test_records_that_are_whole_pass(void **state)
{
    (void)state;
    static const struct {
        const char *record, *changes;
    } cases[] = {
        // clang-format off
        {s_main, "{}"},
        {s_main, "{\"key\": \"0123456789abcdef0123456789abcdef\", \"hash\": \"imohash:00\", \"description\": \"\"}"},
        {s_main, "{\"variant\": \"inpaint\", \"prediction_type\": \"epsilon\", \"upcast_attention\": true}"},
        {s_main, "{\"variant\": null, \"prediction_type\": null, \"hash\": null}"},
        {s_main, "{\"base\": \"flux\", \"variant\": \"schnell\"}"},
        {s_main, "{\"base\": \"flux2\", \"variant\": \"dev\"}"},
        {s_main, "{\"tags\": [\"a\", \"b\"], \"bases\": [\"sd-1\", \"sd-2\"], \"trigger_phrases\": []}"},
        {s_main, "{\"format\": \"checkpoint\", \"config_path\": \"v1-inference.yaml\", \"file_size\": 4265380512}"},
        {s_main, "{\"submodels\": {\"vae\": {\"path\": \"vae\"}}, \"source_api_response\": {\"id\": 1}}"},
        {s_main, "{\"source_api_response\": \"{}\", \"created_at\": 1.5, \"updated_at\": 2, \"version\": 3}"},
        {s_main, "{\"default_settings\": {\"steps\": 20, \"cfg_scale\": 7.5, \"width\": 512, \"scheduler\": \"euler\"}}"},
        {s_main, "{\"default_settings\": null, \"something_newer\": [1, {\"x\": null}]}"},
        {s_main, "{\"name\": \"\\u00fcber/model \\ud83d\\ude80\"}"},
        {s_main, "{\"repo_variant\": \"\"}"},
        {s_main, "{\"base\": \"wan\", \"expert\": \"none\", \"has_dual_expert\": true, \"boundary_ratio\": 0.875}"},
        {s_main, "{\"type\": \"lora\", \"base\": \"wan\", \"format\": \"lycoris\", \"expert\": \"high\", \"variant\": \"5b\"}"},
        {s_main, "{\"type\": \"vae\", \"base\": \"wan\", \"latent_channels\": 48, \"cpu_only\": true}"},
        {s_main, "{\"type\": \"controlnet\", \"base\": \"anima\", \"format\": \"checkpoint\", \"cond_in_channels\": 3}"},
        {s_main, "{\"type\": \"qwen3_encoder\", \"format\": \"qwen3_encoder\", \"variant\": \"qwen3_4b\", \"cpu_only\": null}"},
        {s_main, "{\"type\": \"external_image_generator\", \"base\": \"external\", \"format\": \"external_api\", "
                 "\"provider_id\": \"p\", \"provider_model_id\": \"m\", \"capabilities\": {\"modes\": []}, "
                 "\"default_settings\": {\"steps\": 3}}"},
        {s_main, "{\"type\": \"onnx\", \"base\": \"sd-2\", \"format\": \"olive\", \"prediction_type\": \"v_prediction\", "
                 "\"upcast_attention\": false}"},
        {s_main, "{\"type\": \"unknown\", \"base\": \"unknown\", \"format\": \"unknown\", \"variant\": \"dev\", \"expert\": \"low\"}"},
        {s_main, "{\"format\": \"unknown\", \"image_encoder_model_id\": \"x\"}"},
        {s_main, "{\"format\": \"checkpoint\", \"converted_at\": 1700000000.5, \"source_url\": \"https://x.example/m\"}"},
        {s_main, "{\"submodels\": {\"vae\": {\"path_or_prefix\": \"vae\", \"model_type\": \"vae\", \"variant\": null, \"new\": 1}}}"},
        {s_main, "{\"bases\": [\"sd-2\", \"sd-1\"]}"},
        {s_embedding, "{\"type\": \"lora\", \"format\": \"omi\", \"default_settings\": "
                      "{\"weight\": 3, \"weight_min\": 0, \"weight_max\": 4}}"},
        {s_embedding, "{\"type\": \"lora\", \"format\": \"lycoris\", \"default_settings\": {\"weight\": 0.7}}"},
        {s_embedding, "{\"type\": \"controlnet\", \"format\": \"diffusers\", \"default_settings\": {\"preprocessor\": null}}"},
        {s_embedding, "{\"type\": \"ip_adapter\", \"format\": \"invokeai\", \"image_encoder_model_id\": \"x/y\"}"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lade_error_t error = {0};
        json_t *record = s_with(cases[i].record, cases[i].changes);
        if (lade_record_check(record, &error))
            fail_msg("%s: %s", cases[i].changes, error.message);
        json_decref(record);
    }
}

static void
test_what_is_wrong_is_named_with_what_it_takes(void **state)
{
    (void)state;
    static const struct {
        const char *record, *changes, *words, *more;
    } cases[] = {
        // clang-format off
        {s_main, "{\"name\": null}", "name: missing", ""},
        {s_main, "{\"type\": null}", "type: missing", ""},
        {s_main, "{\"path\": \"\"}", "path: \"\"", "1 to 4096 bytes"},
        {s_main, "{\"name\": 5}", "name: 5", "takes text"},
        {s_main, "{\"type\": \"mainn\"}", "type: \"mainn\"", "one of onnx, main, vae"},
        {s_main, "{\"base\": \"sd-9\"}", "base: \"sd-9\"", "sdxl-refiner"},
        {s_main, "{\"format\": \"zip\"}", "format: \"zip\"", "diffusers, checkpoint"},
        {s_main, "{\"variant\": \"schnell\"}", "variant: \"schnell\"", "normal, inpaint, depth"},
        {s_main, "{\"base\": \"flux\", \"variant\": \"normal\"}", "variant: \"normal\"", "schnell, dev, dev_fill"},
        {s_embedding, "{\"variant\": \"normal\"}", "variant: models of class embedding.embedding_file", ""},
        {s_embedding, "{\"upcast_attention\": true}", "upcast_attention: models of class embedding.", ""},
        {s_main, "{\"upcast_attention\": 1}", "upcast_attention: 1", "true or false"},
        {s_main, "{\"repo_variant\": \"fp8\"}", "repo_variant: \"fp8\"", "one of \"\", fp16"},
        {s_main, "{\"key\": \"a/b\"}", "key: \"a/b\"", "letters, digits"},
        {s_main, "{\"key\": \".hidden\"}", "key: ", "no dot first"},
        {s_main, "{\"key\": \"\"}", "key: \"\"", ""},
        {s_main, "{\"key\": \"0123456789012345678901234567890123456789012345678901234567890123456789\"}", "key: ", "64"},
        {s_main, "{\"name\": \"a\\u0000b\"}", "name: \"a\\u0000b\"", "takes text"},
        {s_main, "{\"tags\": \"a\"}", "tags: \"a\"", "a list"},
        {s_main, "{\"tags\": [\"a\", 1]}", "tags: [\"a\",1]", "a list"},
        {s_main, "{\"tags\": [\"\"]}", "tags: ", "a list"},
        {s_main, "{\"bases\": [\"sd-1\", \"sd-7\"]}", "bases: ", "one of any, sd-1"},
        {s_main, "{\"file_size\": -1}", "file_size: -1", "an integer from 0"},
        {s_main, "{\"file_size\": 1.5}", "file_size: 1.5", "an integer"},
        {s_main, "{\"version\": 0}", "version: 0", "from 1"},
        {s_main, "{\"submodels\": []}", "submodels: []", "a map"},
        {s_main, "{\"source_api_response\": 1}", "source_api_response: 1", "or a map"},
        {s_main, "{\"default_settings\": {\"weight\": 1}}", "default_settings: weight: models of class main", ""},
        {s_main, "{\"default_settings\": {\"preprocessor\": \"x\"}}", "default_settings: preprocessor", ""},
        {s_main, "{\"default_settings\": {\"stepz\": 1}}", "no setting \"stepz\"", ""},
        {s_main, "{\"default_settings\": {\"steps\": 0}}", "default_settings: steps: 0", "from 1 to"},
        {s_main, "{\"default_settings\": {\"width\": 100}}", "default_settings: width: 100", "multiple of 8 from 64"},
        {s_main, "{\"default_settings\": {\"cfg_rescale_multiplier\": 1}}", "cfg_rescale_multiplier: 1", "from 0"},
        {s_main, "{\"default_settings\": {\"cfg_scale\": 0.5}}", "cfg_scale: 0.5", "a number from 1"},
        {s_main, "{\"default_settings\": {\"vae_precision\": \"fp64\"}}", "vae_precision", "fp16, fp32"},
        {s_main, "{\"bases\": []}", "bases: []", "one or more"},
        {s_main, "{\"bases\": [\"sd-2\"]}", "bases: sd-1, the base,", "among them"},
        {s_main, "{\"format\": \"lycoris\"}", "format: lycoris does not do for a model of type main; it takes one of diffusers, "
                 "checkpoint, bnb_quantized_nf4b, gguf_quantized, sdnq_quantized, or unknown", ""},
        {s_main, "{\"type\": \"clip_vision\", \"format\": \"checkpoint\"}", "format: checkpoint does not do", "takes one of diffusers,"},
        {s_main, "{\"type\": \"ip_adapter\", \"format\": \"invokeai\"}", "image_encoder_model_id: missing", "of class ip_adapter.invokeai"},
        {s_main, "{\"expert\": \"high\"}", "expert: only models of base wan", "of base sd-1"},
        {s_main, "{\"base\": \"wan\", \"expert\": \"middle\"}", "expert: \"middle\"", "high, low, none"},
        {s_main, "{\"type\": \"lora\", \"base\": \"wan\", \"format\": \"lycoris\", \"expert\": \"none\"}", "expert: \"none\"", "high, low"},
        {s_main, "{\"base\": \"wan\", \"boundary_ratio\": 1.5}", "boundary_ratio: 1.5", "from 0 to 1"},
        {s_main, "{\"type\": \"vae\", \"base\": \"wan\", \"latent_channels\": 17}", "latent_channels: 17", "16 or 48"},
        {s_main, "{\"cpu_only\": true}", "cpu_only: models of class main", ""},
        {s_main, "{\"capabilities\": {}}", "capabilities: models of class main", ""},
        {s_main, "{\"source_url\": \"ftp://x\"}", "source_url: \"ftp://x\"", "http:// or https://"},
        {s_main, "{\"submodels\": {\"vae\": 1}}", "submodels: \"vae\" takes a map", ""},
        {s_main, "{\"submodels\": {\"vae\": {\"model_type\": \"v\"}}}", "submodels: \"vae\": model_type: \"v\"", "one of onnx"},
        {s_main, "{\"default_settings\": {\"scheduler\": \"fast\"}}", "scheduler: \"fast\"", "euler_a"},
        {s_embedding, "{\"type\": \"lora\", \"format\": \"lycoris\", \"default_settings\": {\"weight_min\": 2}}",
            "default_settings: weight_min: 2", "below weight_max, which is 2"},
        {s_embedding, "{\"type\": \"lora\", \"format\": \"lycoris\", \"default_settings\": {\"weight\": 2.5}}",
            "default_settings: weight: 2.5", "are -1 and 2"},
        {s_embedding, "{\"type\": \"t2i_adapter\", \"format\": \"diffusers\", \"default_settings\": {\"fp8_storage\": true}}",
            "default_settings: preprocessor: missing", "null"},
        {s_embedding, "{\"repo_variant\": \"\"}", "repo_variant: models of class embedding.embedding_file", ""},
        {s_main, "{\"config_path\": \"x.yaml\"}", "config_path: models of class main.diffusers", ""},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lade_error_t error = {0};
        json_t *record = s_with(cases[i].record, cases[i].changes);
        assert_int_equal(lade_record_check(record, &error), LADE_INVALID_MODEL_CONFIG);
        if (!strstr(error.message, cases[i].words) || !strstr(error.message, cases[i].more))
            fail_msg("%s: '%s' lacks '%s' or '%s'", cases[i].changes, error.message, cases[i].words,
                     cases[i].more);
        json_decref(record);
    }
}

static void
test_what_is_no_record_at_all_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"[]", "\"main\"", "null", "{}", "7"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *value = s_json(texts[i]);
        assert_int_equal(lade_record_check(value, NULL), LADE_INVALID_MODEL_CONFIG);
        json_decref(value);
    }
    assert_int_equal(lade_record_check(NULL, NULL), LADE_INVALID_MODEL_CONFIG);
    assert_int_equal(lade_record_check_changes(NULL, NULL), LADE_INVALID_MODEL_CONFIG);
}

static void
test_text_that_is_no_utf8_or_too_long_is_refused(void **state)
{
    (void)state;
    lade_error_t error = {0};
    json_t *record = s_json(s_main);
    json_object_set_new_nocheck(record, "name", json_string_nocheck("caf\xe9"));
    assert_int_equal(lade_record_check(record, &error), LADE_INVALID_MODEL_CONFIG);
    assert_non_null(strstr(error.message, "UTF-8"));

    char *text = calloc(1, 70000);
    memset(text, 'x', 69999);
    json_object_set_new(record, "name", json_string("model"));
    json_object_set_new(record, "description", json_string(text));
    assert_int_equal(lade_record_check(record, &error), LADE_INVALID_MODEL_CONFIG);
    assert_non_null(strstr(error.message, "description"));
    assert_non_null(strstr(error.message, "65536"));
    free(text);
    json_decref(record);
}

static void
test_new_keys_are_32_hex_digits_and_differ(void **state)
{
    (void)state;
    char one[33], other[33];
    lade_record_new_key(one);
    lade_record_new_key(other);
    assert_int_equal(strlen(one), 32);
    assert_int_equal(strspn(one, "0123456789abcdef"), 32);
    assert_string_not_equal(one, other);
}

static void
test_aliases_become_the_fields_they_stand_for(void **state)
{
    (void)state;
    json_t *record = s_json(
        "{\"base_model\": \"sd-1\", \"model_type\": \"main\", \"model_format\": \"checkpoint\", "
        "\"format\": \"diffusers\", \"config\": \"c.yaml\", \"other\": 1}");
    json_t *wanted = s_json("{\"base\": \"sd-1\", \"type\": \"main\", \"format\": \"diffusers\", "
                            "\"config_path\": \"c.yaml\", \"other\": 1}");
    lade_record_canonical(record);
    assert_true(json_equal(record, wanted));
    json_decref(record);
    json_decref(wanted);
}

static void
s_apply(const char *record, const char *changes, lade_code_t code, const char *expected)
{
    lade_error_t error = {0};
    json_t *before = s_json(record), *copy = json_deep_copy(before), *given = s_json(changes),
           *result;
    assert_int_equal(lade_record_apply(before, given, &result, &error), code);
    assert_true(json_equal(before, copy));
    if (code) {
        assert_null(result);
        assert_non_null(strstr(error.message, expected));
    } else {
        json_t *wanted = s_json(expected);
        if (!json_equal(result, wanted))
            fail_msg("%s gives %s", changes, json_dumps(result, 0));
        json_decref(wanted);
    }
    json_decref(result);
    json_decref(given);
    json_decref(copy);
    json_decref(before);
}

static void
test_changes_are_applied_to_a_copy(void **state)
{
    (void)state;
    static const char record[] =
        "{\"key\": \"k\", \"name\": \"old name\", \"type\": \"main\", \"base\": \"sd-1\", "
        "\"format\": \"diffusers\", "
        "\"path\": \"p\", \"variant\": \"inpaint\", \"description\": \"d\", \"newer_field\": [1]}";
    s_apply(record, "{\"name\": \"new name\", \"description\": null, \"newer_field\": [1, 2]}",
            LADE_OK,
            "{\"key\": \"k\", \"name\": \"new name\", \"type\": \"main\", \"base\": \"sd-1\", "
            "\"format\": \"diffusers\", "
            "\"path\": \"p\", \"variant\": \"inpaint\", \"newer_field\": [1, 2]}");
    s_apply(
        record, "{\"key\": \"k\", \"base_model\": \"sd-2\"}", LADE_OK,
        "{\"key\": \"k\", \"name\": \"old name\", \"type\": \"main\", \"base\": \"sd-2\", "
        "\"format\": \"diffusers\", "
        "\"path\": \"p\", \"variant\": \"inpaint\", \"description\": \"d\", \"newer_field\": [1]}");
    s_apply(record, "{\"key\": \"other\"}", LADE_INVALID_MODEL_CONFIG, "key: ");
    s_apply(record, "{\"name\": null}", LADE_INVALID_MODEL_CONFIG, "name: missing");
    s_apply(record, "{\"variant\": \"dev\"}", LADE_INVALID_MODEL_CONFIG, "normal, inpaint, depth");
    s_apply(record, "[]", LADE_INVALID_MODEL_CONFIG, "a map");
}

static void
test_another_class_drops_what_it_does_not_have(void **state)
{
    (void)state;
    static const char record[] = "{\"name\": \"n\", \"type\": \"main\", \"base\": \"sd-1\", "
                                 "\"format\": \"checkpoint\", \"path\": \"p\", "
                                 "\"variant\": \"normal\", \"config_path\": \"c.yaml\", "
                                 "\"prediction_type\": \"epsilon\", \"unknown\": 1}";
    s_apply(record, "{\"type\": \"lora\", \"format\": \"lycoris\", \"base\": \"sdxl\"}", LADE_OK,
            "{\"name\": \"n\", \"type\": \"lora\", \"base\": \"sdxl\", \"format\": \"lycoris\", "
            "\"path\": \"p\", "
            "\"unknown\": 1}");
    s_apply(record, "{\"type\": \"lora\", \"format\": \"lycoris\", \"variant\": \"normal\"}",
            LADE_INVALID_MODEL_CONFIG, "variant: models of class lora.lycoris");
}

static void
test_a_new_type_takes_a_format_that_fits(void **state)
{
    (void)state;
    static const char record[] =
        "{\"name\": \"n\", \"type\": \"qwen3_encoder\", \"base\": \"any\", "
        "\"format\": \"qwen3_encoder\", \"path\": \"p\", "
        "\"variant\": \"qwen3_4b\", \"cpu_only\": true}";
    s_apply(
        record, "{\"type\": \"text_llm\"}", LADE_OK,
        "{\"name\": \"n\", \"type\": \"text_llm\", \"base\": \"any\", \"format\": \"diffusers\", "
        "\"path\": \"p\", \"cpu_only\": true}");
    s_apply(record, "{\"type\": \"text_llm\", \"format\": \"checkpoint\"}",
            LADE_INVALID_MODEL_CONFIG, "it takes one of diffusers, or unknown");
    s_apply(record, "{\"type\": \"text_llm\", \"variant\": \"qwen3_8b\"}",
            LADE_INVALID_MODEL_CONFIG, "variant: ");
    s_apply(record, "{\"type\": \"ip_adapter\"}", LADE_OK,
            "{\"name\": \"n\", \"type\": \"ip_adapter\", \"base\": \"any\", \"format\": "
            "\"checkpoint\", \"path\": \"p\"}");
    // A variant and settings that only the old class takes go, too.
    s_apply("{\"name\": \"n\", \"type\": \"main\", \"base\": \"sd-1\", \"format\": \"diffusers\", "
            "\"path\": \"p\", \"variant\": \"inpaint\", \"default_settings\": {\"steps\": 5}}",
            "{\"base\": \"flux\"}", LADE_OK,
            "{\"name\": \"n\", \"type\": \"main\", \"base\": \"flux\", \"format\": \"diffusers\", "
            "\"path\": \"p\", \"default_settings\": {\"steps\": 5}}");
}

static void
test_base_and_bases_stay_in_step(void **state)
{
    (void)state;
    static const struct {
        const char *changes, *base, *bases;
    } cases[] = {
        {"{\"base\": \"sd-2\"}", "sd-2", "[\"sd-1\", \"sd-2\"]"},
        {"{\"base_model\": \"sdxl\"}", "sdxl", "[\"sdxl\", \"sd-2\"]"},
        {"{\"bases\": [\"sdxl\", \"sd-1\", \"sdxl\"]}", "sd-1", "[\"sdxl\", \"sd-1\"]"},
        {"{\"bases\": [\"sd-2\", \"sdxl\"]}", "sd-2", "[\"sd-2\", \"sdxl\"]"},
        {"{\"bases\": [\"sd-2\"], \"base\": \"sdxl\"}", "sdxl", "[\"sdxl\", \"sd-2\"]"},
        {"{\"bases\": null}", "sd-1", NULL},
        {"{\"bases\": [\"sd-9\"]}", NULL, NULL},
        {"{\"bases\": []}", NULL, NULL},
        {"{\"base\": \"sd-9\"}", NULL, NULL},
    };
    json_t *record = s_with(s_main, "{\"bases\": [\"sd-1\", \"sd-2\"]}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *changes = s_json(cases[i].changes), *result;
        lade_code_t code = lade_record_apply(record, changes, &result, NULL);
        assert_int_equal(code, cases[i].base ? LADE_OK : LADE_INVALID_MODEL_CONFIG);
        if (!code) {
            json_t *bases = cases[i].bases ? s_json(cases[i].bases) : NULL;
            assert_string_equal(json_string_value(json_object_get(result, "base")), cases[i].base);
            assert_true(bases ? json_equal(bases, json_object_get(result, "bases"))
                              : !json_object_get(result, "bases"));
            json_decref(bases);
        }
        json_decref(result);
        json_decref(changes);
    }
    json_decref(record);
}

static void
test_changes_alone_are_checked_by_field(void **state)
{
    (void)state;
    static const struct {
        const char *changes;
        bool fine;
        const char *words;
    } cases[] = {
        // clang-format off
        {"{}", true, ""},
        {"{\"name\": \"x\", \"unknown\": {}}", true, ""},
        {"{\"description\": null}", true, ""},
        {"{\"variant\": \"dev\"}", true, ""},
        {"{\"model_type\": \"vae\"}", true, ""},
        {"{\"default_settings\": {\"preprocessor\": \"canny\"}}", true, ""},
        {"{\"default_settings\": {\"vae\": \"x\"}}", true, ""},
        {"{\"default_settings\": {\"weight\": 0.5}}", true, ""},
        {"{\"default_settings\": {\"weight\": 5}}", false, "weight: 5"},
        {"{\"default_settings\": {\"weight\": 0.5, \"steps\": 3}}", false, "default_settings: "},
        {"{\"default_settings\": {\"nothing\": 0.5}}", false, "no setting \"nothing\""},
        {"{\"image_encoder_model_id\": null, \"expert\": \"low\"}", true, ""},
        {"{\"type\": \"main\", \"format\": \"lycoris\"}", false, "format: lycoris"},
        {"{\"name\": null}", false, "name"},
        {"{\"variant\": \"huge\"}", false, "variant"},
        {"{\"model_type\": \"vaes\"}", false, "type: "},
        {"{\"key\": \"x\"}", false, "key"},
        {"{\"name\": 1}", false, "name: 1"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lade_error_t error = {0};
        json_t *changes = s_json(cases[i].changes);
        lade_code_t code = lade_record_check_changes(changes, &error);
        if ((code == LADE_OK) != cases[i].fine || !strstr(error.message, cases[i].words))
            fail_msg("%s: '%s'", cases[i].changes, error.message);
        json_decref(changes);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enumerations_hold_the_taxonomy),
        cmocka_unit_test(test_records_that_are_whole_pass),
        cmocka_unit_test(test_what_is_wrong_is_named_with_what_it_takes),
        cmocka_unit_test(test_what_is_no_record_at_all_is_refused),
        cmocka_unit_test(test_text_that_is_no_utf8_or_too_long_is_refused),
        cmocka_unit_test(test_new_keys_are_32_hex_digits_and_differ),
        cmocka_unit_test(test_aliases_become_the_fields_they_stand_for),
        cmocka_unit_test(test_changes_are_applied_to_a_copy),
        cmocka_unit_test(test_another_class_drops_what_it_does_not_have),
        cmocka_unit_test(test_a_new_type_takes_a_format_that_fits),
        cmocka_unit_test(test_base_and_bases_stay_in_step),
        cmocka_unit_test(test_changes_alone_are_checked_by_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
