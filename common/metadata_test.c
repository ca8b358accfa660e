// Metadata from the answers of hubs, and what is let in as metadata.
#include "common/metadata.h"

#include "common/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *
s_read(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

static void
test_a_field_that_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words; // words NULL: fine
    } rows[] = {
        // clang-format off
        {"{\"type\":\"huggingface\",\"id\":\"a/b\",\"name\":\"b\"}", NULL},
        {"{\"type\":\"huggingface\",\"id\":\"a/b\",\"name\":\"b\",\"author\":null,\"tags\":[],\"later\":7}", NULL},
        {"{\"type\":\"huggingface\",\"id\":\"a/b\",\"name\":\"b\",\"last_modified\":\"2023-10-30T16:03:47.000Z\"}", NULL},
        {"{\"type\":\"civitai\",\"id\":1,\"version_id\":2,\"name\":\"x\",\"nsfw\":false}", NULL},
        {"[]", "a map"},
        {"{}", "type: "},
        {"{\"type\":7}", "type: "},
        {"{\"type\":\"gitlab\",\"id\":\"a/b\",\"name\":\"b\"}", "type: 'huggingface' or 'civitai'"},
        {"{\"type\":\"huggingface\",\"name\":\"b\"}", "id: huggingface metadata needs it"},
        {"{\"type\":\"huggingface\",\"id\":null,\"name\":\"b\"}", "id: huggingface metadata needs it"},
        {"{\"type\":\"huggingface\",\"id\":7,\"name\":\"b\"}", "id: a text, not 7"},
        {"{\"type\":\"huggingface\",\"id\":\"a/b\",\"name\":\"b\",\"tags\":\"x\"}", "tags: an array of text, not \"x\""},
        {"{\"type\":\"huggingface\",\"id\":\"a/b\",\"name\":\"b\",\"tags\":[1]}", "tags: an array of text, not [1]"},
        {"{\"type\":\"huggingface\",\"id\":\"a/b\",\"name\":\"b\",\"tag_dict\":[]}", "tag_dict: a map"},
        {"{\"type\":\"huggingface\",\"id\":\"a/b\",\"name\":\"b\",\"last_modified\":\"yesterday\"}", "last_modified: a date"},
        {"{\"type\":\"huggingface\",\"id\":\"a/b\",\"name\":\"b\",\"last_modified\":\"2023-1\"}", "last_modified: a date"},
        {"{\"type\":\"civitai\",\"id\":\"1\",\"version_id\":2,\"name\":\"x\"}", "id: an integer, not \"1\""},
        {"{\"type\":\"civitai\",\"id\":1,\"version_id\":2,\"name\":\"x\",\"nsfw\":0}", "nsfw: true or false, not 0"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *value = s_read(rows[i].text);
        lade_error_t error = {0};
        lade_code_t code = lade_metadata_check(value, &error);
        print_message("%s: %s\n", rows[i].text, error.message);
        assert_int_equal(code, rows[i].words ? LADE_VALUE_ERROR : LADE_OK);
        assert_true(!rows[i].words || strstr(error.message, rows[i].words));
        json_decref(value);
    }
}

// What an answer of the hub may be, however odd: the metadata made of it is always whole.
static void
test_whatever_a_hub_answers_becomes_metadata(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "{}",
        "[]",
        "7",
        "{\"id\":7,\"tags\":{},\"siblings\":[1,{\"rfilename\":2}],\"cardData\":[]}",
        "{\"id\":\"a/"
        "b\",\"lastModified\":\"never\",\"cardData\":{\"license\":[7],\"instance_prompt\":{}}}",
        "{\"id\":\"a/b\",\"cardData\":{\"license\":[\"mit\"]},\"tags\":[\"x\",3,\"\"],"
        "\"siblings\":[{\"rfilename\":\"config.json\"},{\"rfilename\":\"m.bin\"}]}",
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        json_t *answer = s_read(answers[i]), *record = json_object();
        json_t *metadata = lade_metadata_from_hub(answer, "http://hub", "");
        lade_error_t error = {0};
        bool named = strstr(answers[i], "a/b") != NULL;
        assert_int_equal(lade_metadata_check(metadata, &error) == LADE_OK, named);
        lade_metadata_fill(metadata, record);
        json_t *civitai = lade_metadata_from_civitai(answer, answer);
        assert_int_equal(lade_metadata_check(civitai, &error), LADE_OK);
        lade_metadata_fill(civitai, record);
        if (i + 1 == sizeof answers / sizeof *answers) {
            assert_string_equal(lade_json_text(record, "license", ""), "mit");
            assert_int_equal(json_array_size(json_object_get(metadata, "tags")), 1);
            assert_true(lade_json_bool(metadata, "is_diffusers", false));
        }
        json_decref(civitai);
        json_decref(metadata);
        json_decref(record);
        json_decref(answer);
    }
}

static void
test_a_description_is_plain_text_of_bounded_length(void **state)
{
    (void)state;
    static const struct {
        const char *html, *text;
    } rows[] = {
        {"<p>One &amp; <b>two</b></p><p>three</p>", "One & two\nthree"},
        {"no tags", "no tags"},
        {"<br/><br>a<br>b", "a\nb"},
        {"<unclosed", ""},
        {"1 &lt; 2 &unknown; &", "1 < 2 &unknown; &"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *model = json_pack("{s:s}", "description", rows[i].html);
        json_t *metadata = lade_metadata_from_civitai(model, NULL);
        assert_string_equal(lade_json_text(metadata, "description", ""), rows[i].text);
        json_decref(metadata);
        json_decref(model);
    }
    // Characters of three bytes are not cut in two.
    char *text = malloc(30001);
    for (size_t i = 0; i < 10000; i++)
        memcpy(text + 3 * i, "\xe2\x82\xac", 3);
    text[30000] = '\0';
    json_t *model = json_pack("{s:s}", "description", text), *record = json_object();
    json_t *metadata = lade_metadata_from_civitai(model, NULL);
    const char *kept = lade_json_text(metadata, "description", "");
    assert_true(strlen(kept) > 4000 && strlen(kept) <= 4096 && strlen(kept) % 3 == 0);
    lade_metadata_fill(metadata, record);
    assert_string_equal(lade_json_text(record, "description", ""), kept);
    json_decref(metadata);
    json_decref(record);
    json_decref(model);
    free(text);
}

static void
test_what_a_record_has_stays(void **state)
{
    (void)state;
    json_t *metadata =
        s_read("{\"tags\":[\"a\",\"a\",\"b\"],\"description\":\"new\",\"author\":\"x\"}");
    json_t *record = s_read("{\"description\":\"mine\"}");
    lade_metadata_fill(metadata, record);
    assert_string_equal(lade_json_text(record, "description", ""), "mine");
    assert_string_equal(lade_json_text(record, "author", ""), "x");
    assert_int_equal(json_array_size(json_object_get(record, "tags")), 2);
    json_decref(record);
    json_decref(metadata);
}

static void
test_long_answers_lose_what_is_long(void **state)
{
    (void)state;
    static const char *const long_ones[] = {"files", NULL};
    json_t *answer =
        s_read("{\"id\":1,\"files\":[1,2,3],\"below\":{\"files\":[4],\"name\":\"x\"}}");
    static const struct {
        size_t max;
        const char *text;
    } rows[] = {{1000, "{\"id\":1,\"files\":[1,2,3],\"below\":{\"files\":[4],\"name\":\"x\"}}"},
                {40, "{\"id\":1,\"below\":{\"name\":\"x\"}}"},
                {5, "{}"}};
    for (size_t i = 0; i < 3; i++) {
        char *text = lade_metadata_describe(answer, long_ones, rows[i].max);
        assert_string_equal(text, rows[i].text);
        free(text);
    }
    json_decref(answer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_field_that_is_wrong_is_named),
        cmocka_unit_test(test_whatever_a_hub_answers_becomes_metadata),
        cmocka_unit_test(test_a_description_is_plain_text_of_bounded_length),
        cmocka_unit_test(test_what_a_record_has_stays),
        cmocka_unit_test(test_long_answers_lose_what_is_long),
    };
    return cmocka_run_group_tests_name("metadata", tests, NULL, NULL);
}
