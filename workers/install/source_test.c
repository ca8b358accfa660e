// The grammar of sources, row by row.
#include "workers/install/source.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void
test_repository_forms_are_read_as_the_grammar_says(void **state)
{
    (void)state;
    static const struct {
        const char *text, *repo, *variant, *subfolder; // repo NULL: refused
    } rows[] = {
        // clang-format off
        {"a/b",                         "a/b",        NULL,       NULL},
        {"a/b:",                        "a/b",        NULL,       NULL},
        {"a/b:fp16",                    "a/b",        "fp16",     NULL},
        {"a/b:openvino",                "a/b",        "openvino", NULL},
        {"a/b:fp16:vae",                "a/b",        "fp16",     "vae"},
        {"a/b::vae",                    "a/b",        NULL,       "vae"},
        {"a/b::/vae",                   "a/b",        NULL,       "vae"},
        {"a/b::/vae/x.safetensors",     "a/b",        NULL,       "vae/x.safetensors"},
        {"a/b:fp32:x/y",                "a/b",        "fp32",     "x/y"},
        {"a/b::text_encoder+tokenizer", "a/b",        NULL,       "text_encoder+tokenizer"},
        {"a/b::text_encoder + tokenizer/", "a/b",     NULL,       "text_encoder + tokenizer/"},
        {"\"a/b\"",                     "a/b",        NULL,       NULL},
        {"no-such-folder/foo",          "no-such-folder/foo", NULL, NULL},
        {"a.b-c_d/E.f",                 "a.b-c_d/E.f", NULL,      NULL},
        {"a/b::",              NULL, NULL, NULL},
        {"a/b::/",             NULL, NULL, NULL},
        {"a/b:main",           NULL, NULL, NULL},
        {"a/b:default",        NULL, NULL, NULL},
        {"a/b:FP16",           NULL, NULL, NULL},
        {"a/b:fp16:",          NULL, NULL, NULL},
        {"a/b:fp32:x:z",       NULL, NULL, NULL},
        {"a/b::../x",          NULL, NULL, NULL},
        {"a/b::x/../../y",     NULL, NULL, NULL},
        {"a/b::x++y",          "a/b", NULL, "x++y"},
        {"a/b::+",             NULL, NULL, NULL},
        {"a/b/c",              NULL, NULL, NULL},
        {"a b/c",              NULL, NULL, NULL},
        {"../..",              NULL, NULL, NULL},
        {"a/..",               NULL, NULL, NULL},
        {"a/",                 NULL, NULL, NULL},
        {"foo.safetensors",    NULL, NULL, NULL},
        {"",                   NULL, NULL, NULL},
        {"\"\"",               NULL, NULL, NULL},
        {":",                  NULL, NULL, NULL},
        {"external://p/m",     NULL, NULL, NULL},
        {"ftp://host/file",    NULL, NULL, NULL},
        {"http:///x",          NULL, NULL, NULL},
        {"http://",            NULL, NULL, NULL},
        {"http://host/a b",    NULL, NULL, NULL},
        {"http://host/a\nb",   NULL, NULL, NULL},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_source_t source;
        lade_error_t error = {0};
        if (access(rows[i].text, F_OK) == 0)
            continue; // "../.." is there
        lade_code_t code = lade_source_parse(rows[i].text, &source, &error);
        print_message("%s: %s\n", rows[i].text, code ? error.message : source.repo);
        assert_int_equal(code, rows[i].repo ? LADE_OK : LADE_VALUE_ERROR);
        if (rows[i].repo) {
            assert_int_equal(source.kind, LADE_SOURCE_HUB);
            assert_string_equal(source.repo, rows[i].repo);
            assert_string_equal(source.variant ? source.variant : "-",
                                rows[i].variant ? rows[i].variant : "-");
            assert_string_equal(source.subfolder ? source.subfolder : "-",
                                rows[i].subfolder ? rows[i].subfolder : "-");
            assert_string_equal(lade_source_type(&source), "hf_repo_id");
        } else {
            assert_non_null(strstr(error.message, "source") ? error.message
                                                            : strstr(error.message, "subfolder"));
        }
        lade_source_free(&source);
    }
}

static void
test_a_path_that_exists_comes_first(void **state)
{
    (void)state;
    char folder[] = "/tmp/lade-source-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(lade_path_mkdirs("org/repo", 0755, NULL), LADE_OK);
    assert_int_equal(lade_path_write("x.safetensors", "x", 1, 0644, NULL), LADE_OK);
    assert_int_equal(symlink("../x.safetensors", "org/link"), 0);
    static const struct {
        const char *text, *below;
    } rows[] = {{"org/repo", "org/repo"},           {"./org//repo/", "org/repo"},
                {"x.safetensors", "x.safetensors"}, {"\"x.safetensors\"", "x.safetensors"},
                {"org/link", "org/link"},           {"org/../x.safetensors", "x.safetensors"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_source_t source;
        char *wanted = lade_path_join(folder, rows[i].below);
        assert_int_equal(lade_source_parse(rows[i].text, &source, NULL), LADE_OK);
        assert_int_equal(source.kind, LADE_SOURCE_LOCAL);
        assert_string_equal(source.path, wanted);
        assert_string_equal(lade_source_type(&source), "path");
        lade_source_free(&source);
        free(wanted);
    }
    lade_source_t source;
    assert_int_equal(lade_source_parse("/", &source, NULL), LADE_OK);
    assert_string_equal(source.path, "/");
    lade_source_free(&source);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(lade_path_remove(folder, NULL), LADE_OK);
}

static void
test_revisions_are_told_from_the_rest(void **state)
{
    (void)state;
    static const struct {
        const char *text, *revision, *variant, *subfolder; // revision NULL: refused
    } rows[] = {
        // clang-format off
        {"a/b@main",                 "main",            NULL,   NULL},
        {"a/b@v1.0:fp16",            "v1.0",            "fp16", NULL},
        {"a/b@v1.0:fp16:vae",        "v1.0",            "fp16", "vae"},
        {"a/b@v1.0::x@y.bin",        "v1.0",            NULL,   "x@y.bin"},
        {"a/b@refs/pr/7::vae",       "refs/pr/7",       NULL,   "vae"},
        {"a/b@feature/x-1_2",        "feature/x-1_2",   NULL,   NULL},
        {"a/b@",                     NULL, NULL, NULL},
        {"a/b@:fp16",                NULL, NULL, NULL},
        {"a/b@main:fp8",             NULL, NULL, NULL},
        {"a/b@/main",                NULL, NULL, NULL},
        {"a/b@main/",                NULL, NULL, NULL},
        {"a/b@..",                   NULL, NULL, NULL},
        {"a/b@a/../../api",          NULL, NULL, NULL},
        {"a/b@a//b",                 NULL, NULL, NULL},
        {"a/b@-x",                   NULL, NULL, NULL},
        {"a/b@x?y=1",                NULL, NULL, NULL},
        {"a/b@x@y",                  NULL, NULL, NULL},
        {"a@v1/b",                   NULL, NULL, NULL},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_source_t source;
        lade_error_t error = {0};
        lade_code_t code = lade_source_parse(rows[i].text, &source, &error);
        print_message("%s: %s\n", rows[i].text, error.message);
        assert_int_equal(code, rows[i].revision ? LADE_OK : LADE_VALUE_ERROR);
        if (rows[i].revision) {
            assert_string_equal(source.repo, "a/b");
            assert_string_equal(source.text, rows[i].text);
            assert_string_equal(source.revision, rows[i].revision);
            assert_string_equal(source.variant ? source.variant : "-",
                                rows[i].variant ? rows[i].variant : "-");
            assert_string_equal(source.subfolder ? source.subfolder : "-",
                                rows[i].subfolder ? rows[i].subfolder : "-");
        }
        lade_source_free(&source);
    }
}

static void
test_a_page_of_a_branch_is_that_revision(void **state)
{
    (void)state;
    static const struct {
        const char *url, *revision, *subfolder; // revision NULL: refused
    } rows[] = {
        // clang-format off
        {"http://hub/a/b/tree/main",              "main",      NULL},
        {"http://hub/a/b/tree/main/",             "main",      NULL},
        {"http://hub/a/b/tree/v1.0/unet/x?y=1",   "v1.0",      "unet/x"},
        {"http://hub/a/b/tree/refs%2Fpr%2F3",     "refs/pr/3", NULL},
        {"http://hub/a/b/tree/refs/pr/3/vae",     "refs/pr/3", "vae"},
        {"http://hub/a/b/tree/main/a%20b",        "main",      "a b"},
        {"http://hub/a/b/tree/main%2",            NULL,        NULL},
        {"http://hub/a/b/tree/main%00",           NULL,        NULL},
        {"http://hub/a/b/tree/main/%2e%2e/x",     NULL,        NULL},
        {"http://hub/a/b/tree/%2e%2e",            NULL,        NULL},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_source_t source;
        lade_error_t error = {0};
        assert_int_equal(lade_source_parse(rows[i].url, &source, NULL), LADE_OK);
        lade_code_t code = lade_source_resolve_page(&source, "http://hub", &error);
        print_message("%s: %s\n", rows[i].url, error.message);
        assert_int_equal(code, rows[i].revision ? LADE_OK : LADE_VALUE_ERROR);
        if (rows[i].revision) {
            assert_int_equal(source.kind, LADE_SOURCE_HUB);
            assert_string_equal(source.repo, "a/b");
            assert_string_equal(source.revision, rows[i].revision);
            assert_string_equal(source.subfolder ? source.subfolder : "-",
                                rows[i].subfolder ? rows[i].subfolder : "-");
        }
        lade_source_free(&source);
    }
}

static void
test_pages_of_a_hub_mean_what_they_show(void **state)
{
    (void)state;
    static const struct {
        const char *url, *endpoint, *repo, *becomes; // repo NULL: stays an URL
    } rows[] = {
        // clang-format off
        {"https://huggingface.co/a/b",   "https://huggingface.co", "a/b", NULL},
        {"https://HuggingFace.co/a/b/",  "https://huggingface.co", "a/b", NULL},
        {"https://huggingface.co/a/b?x=1", "http://hub:8000",      "a/b", NULL},
        {"http://hub:8000/a/b",          "http://hub:8000/",       "a/b", NULL},
        {"http://hub:8000/x/a/b",        "http://hub:8000/x",      "a/b", NULL},
        {"http://hub:8000/x/a/b",        "http://hub:8000/y",      NULL,  "http://hub:8000/x/a/b"},
        {"http://hub:8001/a/b",          "http://hub:8000",        NULL,  "http://hub:8001/a/b"},
        {"http://hub:80000/a/b",         "http://hub:8000",        NULL,  "http://hub:80000/a/b"},
        {"http://u@hub/a/b",             "http://u@hub",           NULL,  "http://u@hub/a/b"},
        {"https://huggingface.co/a",     "https://huggingface.co", NULL,  "https://huggingface.co/a"},
        {"https://huggingface.co",       "https://huggingface.co", NULL,  "https://huggingface.co"},
        {"https://huggingface.co/a/b/blob/main/v/x.bin?d=1", "http://hub", NULL,
         "https://huggingface.co/a/b/resolve/main/v/x.bin?d=1"},
        {"http://hub/a/b/blob/main/x.bin", "http://hub",           NULL,  "http://hub/a/b/resolve/main/x.bin"},
        {"http://hub/a/b/resolve/main/x.bin", "http://hub",        NULL,  "http://hub/a/b/resolve/main/x.bin"},
        {"https://huggingface.co.evil.org/a/b", "http://hub",      NULL,  "https://huggingface.co.evil.org/a/b"},
{"http://hub/files/x.safetensors", "http://hub",           NULL,  "http://hub/files/x.safetensors"},
                {"https://civitai.com/models/63006", "https://huggingface.co", NULL, "https://civitai.com/models/63006"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_source_t source;
        print_message("%s\n", rows[i].url);
        assert_int_equal(lade_source_parse(rows[i].url, &source, NULL), LADE_OK);
        assert_int_equal(source.kind, LADE_SOURCE_URL);
        assert_int_equal(lade_source_resolve_page(&source, rows[i].endpoint, NULL), LADE_OK);
        assert_string_equal(source.text, rows[i].url);
        assert_string_equal(lade_source_type(&source), "url");
        if (rows[i].repo) {
            assert_int_equal(source.kind, LADE_SOURCE_HUB);
            assert_string_equal(source.repo, rows[i].repo);
            assert_string_equal(source.variant, "");
        } else {
            assert_int_equal(source.kind, LADE_SOURCE_URL);
            assert_string_equal(source.url, rows[i].becomes);
        }
        lade_source_free(&source);
    }
}

static void
test_the_map_form_is_the_same_source(void **state)
{
    (void)state;
    static const struct {
        const char *map, *text, *variant; // text NULL: refused
    } rows[] = {
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\"}", "a/b", NULL},
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\",\"variant\":\"fp16\"}", "a/b:fp16", "fp16"},
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\",\"variant\":\"default\"}", "a/b", ""},
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\",\"subfolder\":\"vae\"}", "a/b::vae", NULL},
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\",\"variant\":\"fp32\",\"subfolder\":\"vae\"}",
         "a/b:fp32:vae", "fp32"},
        {"{\"type\":\"url\",\"url\":\"http://h/x\"}", "http://h/x", NULL},
        {"{\"type\":\"local\",\"path\":\"/tmp\"}", "/tmp", NULL},
        {"{\"type\":\"local\",\"path\":\"/no/such/path\"}", NULL, NULL},
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\",\"revision\":\"v1\",\"subfolder\":\"vae\"}",
         "a/b@v1::vae", NULL},
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\",\"revision\":\"v 1\"}", NULL, NULL},
        {"{\"type\":\"hf\",\"repo_id\":\"a\"}", NULL, NULL},
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\",\"variant\":\"fp8\"}", NULL, NULL},
        {"{\"type\":\"hf\",\"repo_id\":\"a/b\",\"subfolder\":\"../x\"}", NULL, NULL},
        {"{\"type\":\"url\",\"url\":\"file:///etc/passwd\"}", NULL, NULL},
        {"{\"type\":7}", NULL, NULL},
        {"{}", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *map = json_loads(rows[i].map, 0, NULL);
        lade_source_t source;
        print_message("%s\n", rows[i].map);
        lade_code_t code = lade_source_from_map(map, &source, NULL);
        assert_int_equal(code, rows[i].text ? LADE_OK : LADE_VALUE_ERROR);
        if (rows[i].text) {
            assert_string_equal(source.text, rows[i].text);
            assert_string_equal(source.variant ? source.variant : "-",
                                rows[i].variant ? rows[i].variant : "-");
        }
        lade_source_free(&source);
        json_decref(map);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repository_forms_are_read_as_the_grammar_says),
        cmocka_unit_test(test_a_path_that_exists_comes_first),
        cmocka_unit_test(test_revisions_are_told_from_the_rest),
        cmocka_unit_test(test_a_page_of_a_branch_is_that_revision),
        cmocka_unit_test(test_pages_of_a_hub_mean_what_they_show),
        cmocka_unit_test(test_the_map_form_is_the_same_source),
    };
    return cmocka_run_group_tests_name("source", tests, NULL, NULL);
}
