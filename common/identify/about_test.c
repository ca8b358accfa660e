// What files say of a model: texts from strangers, cut and counted.
#include "common/identify/about.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

// What is added to a model of this type, of a file with this metadata and these tensors.
static json_t *
s_about(const char *type, const char *metadata, const char *tensors)
{
    char folder[128], header[4096];
    snprintf(folder, sizeof folder, "%s/lade-about-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(folder));
    char *path = lade_path_join(folder, "a.safetensors");
    int len = snprintf(header + 8, sizeof header - 8, "{\"__metadata__\":{%s}%s%s}", metadata,
                       *tensors ? "," : "", tensors);
    memcpy(header, (unsigned char[8]){(unsigned char)len, (unsigned char)(len >> 8)}, 8);
    memset(header + 8 + len, 0, 64);
    assert_int_equal(
        lade_path_write(path, header, (size_t)len + 8 + (*tensors ? 16 : 0), 0600, NULL), LADE_OK);
    lade_subject_t *subject;
    lade_error_t error = {0};
    if (lade_subject_new(path, NULL, &subject, &error))
        fail_msg("%s", error.message);
    json_t *found = json_pack("{s:s, s:s, s:s}", "type", type, "base", "flux", "format", "x");
    lade_about_add(subject, found);
    lade_subject_destroy(&subject);
    lade_path_remove(folder, NULL);
    free(path);
    return found;
}

#define FOUR "\"w\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}"

static void
test_metadata_becomes_fields(void **state)
{
    (void)state;
    static const struct {
        const char *type, *metadata, *field, *value; // as JSON; NULL: none
    } rows[] = {
        // clang-format off
        {"lora", "\"modelspec.title\":\" A b \"", "title", "\"A b\""},
        {"lora", "\"modelspec.title\":\"\"", "title", NULL},
        {"lora", "\"modelspec.title\":\"None\"", "title", NULL},
        {"lora", "\"ss_output_name\":\"x\",\"modelspec.title\":\"y\"", "title", "\"y\""},
        {"lora", "\"modelspec.trigger_phrase\":\"one, two ,, one\"", "trigger_phrases", "[\"one\",\"two\"]"},
        {"vae", "\"modelspec.trigger_phrase\":\"one\"", "trigger_phrases", NULL},
        {"vae", "\"modelspec.tags\":\" , \"", "tags", NULL},
        {"lora", "\"ss_network_dim\":\"8\"", "training", "{\"network_dim\":8}"},
        {"lora", "\"ss_network_dim\":\"Dynamic\"", "training", "{\"network_dim\":\"Dynamic\"}"},
        {"lora", "\"ss_network_dim\":\"nan\"", "training", "{\"network_dim\":\"nan\"}"},
        {"lora", "\"ss_tag_frequency\":\"{\\\"a\\\":{\\\"x\\\":2,\\\"y\\\":3,\\\"z\\\":-1}}\"", "training", "{\"tags\":[\"y\",\"x\",\"z\"]}"},
        {"lora", "\"ss_tag_frequency\":\"{\\\"a\\\":7}\"", "training", NULL},
        {"lora", "\"ss_tag_frequency\":\"not JSON\"", "training", NULL},
        {"lora", "\"modelspec.thumbnail\":\"data:image/png;base64,AAAA\"", "preview",
            "{\"from\":\"modelspec.thumbnail\",\"media_type\":\"image/png\",\"size\":3}"},
        {"lora", "\"modelspec.thumbnail\":\"data:image/svg+xml;base64,AAAA\"", "preview", NULL},
        {"lora", "\"modelspec.thumbnail\":\"https://a/b.png\"", "preview", NULL},
        {"lora", "", "precision", "\"fp32\""},
        {"lora", "", "parameters", "4"},
        {"lora", "", "ema", NULL},
        {"ip_adapter", "", "requires", "[\"clip_vision\"]"},
        {"main", "", "requires", "[\"clip_embed (large)\",\"t5_encoder\",\"vae (flux)\"]"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *found = s_about(rows[i].type, rows[i].metadata, FOUR);
        json_t *value = json_object_get(found, rows[i].field);
        json_t *wanted = rows[i].value ? json_loads(rows[i].value, JSON_DECODE_ANY, NULL) : NULL;
        if (wanted ? !json_equal(value, wanted) : value != NULL)
            fail_msg("row %zu: %s", i, value ? json_dumps(value, JSON_ENCODE_ANY) : "nothing");
        json_decref(wanted);
        json_decref(found);
    }
}

static void
test_a_file_without_tensors_tells_no_numbers(void **state)
{
    (void)state;
    json_t *found = s_about("lora", "\"modelspec.author\":\"x\"", "");
    assert_null(json_object_get(found, "precision"));
    assert_null(json_object_get(found, "parameters"));
    assert_string_equal(json_string_value(json_object_get(found, "author")), "x");
    json_decref(found);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metadata_becomes_fields),
        cmocka_unit_test(test_a_file_without_tensors_tells_no_numbers),
    };
    return cmocka_run_group_tests_name("about", tests, NULL, NULL);
}
