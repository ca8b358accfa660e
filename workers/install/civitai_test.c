// Civitai: addresses, and which file of a page is meant.
#include "workers/install/civitai.h"

#include "common/wire.h"
#include "workers/install/api.h"
#include "workers/install/test_folder.h"
#include "workers/install/test_server.h"

static void
test_addresses_are_told_from_other_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        int64_t model, version; // both 0: none of Civitai's
        const char *terms;      // "type|format|size|fp"
    } rows[] = {
        // clang-format off
        {"https://civitai.com/models/58390",                        58390, 0, "|||"},
        {"https://CIVITAI.com/models/58390/some-slug?x=1",          58390, 0, "|||"},
        {"http://www.civitai.com/models/58390?modelVersionId=7#y",  58390, 7, "|||"},
        {"https://civitai.com/models/58390?foo=1&modelVersionId=7", 58390, 7, "|||"},
        {"https://civitai.com/model-versions/7",                    0,     7, "|||"},
        {"https://civitai.com/api/v1/models/58390",                 58390, 0, "|||"},
        {"https://civitai.com/api/v1/model-versions/7",             0,     7, "|||"},
        {"https://civitai.com/api/download/models/7",               0,     7, "|||"},
        {"https://civitai.com/api/download/models/7?type=Pruned%20Model&format=SafeTensor&size=full&fp=fp16",
                                                                    0,     7, "Pruned Model|SafeTensor|full|fp16"},
        {"https://civitai.com/api/download/models/7?fp=bf16&type=Training+Data&other=1", 0, 7, "Training Data|||bf16"},
        {"http://mirror:80/site/models/3",                          3,     0, "|||"},
        {"http://mirror:80/models/3",                               0,     0, NULL},
        {"http://mirror:81/site/models/3",                          0,     0, NULL},
        {"https://civitai.com",                                     0,     0, NULL},
        {"https://civitai.com/models/",                             0,     0, NULL},
        {"https://civitai.com/models/x58390",                       0,     0, NULL},
        {"https://civitai.com/models/58390x",                       0,     0, NULL},
        {"https://civitai.com/models/9999999999999999999999",       0,     0, NULL},
        {"https://civitai.com/user/58390",                          0,     0, NULL},
        {"https://civitai.com.evil.org/models/58390",               0,     0, NULL},
        {"https://civitai.com@evil.org/models/58390",               0,     0, NULL},
        {"https://evil.org/?https://civitai.com/models/58390",      0,     0, NULL},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_civitai_ref_t ref;
        print_message("%s\n", rows[i].url);
        bool is = lade_civitai_read(rows[i].url, "http://mirror:80/site/", &ref);
        assert_int_equal(is, rows[i].terms != NULL);
        if (is) {
            char terms[256];
            snprintf(terms, sizeof terms, "%s|%s|%s|%s", ref.terms[0] ? ref.terms[0] : "",
                     ref.terms[1] ? ref.terms[1] : "", ref.terms[2] ? ref.terms[2] : "",
                     ref.terms[3] ? ref.terms[3] : "");
            assert_int_equal(ref.model, rows[i].model);
            assert_int_equal(ref.version, rows[i].version);
            assert_string_equal(terms, rows[i].terms);
        }
        lade_civitai_ref_free(&ref);
    }
}

#define FILE_OF(name, type, more)                                                                  \
    "{\"name\":\"" name "\",\"type\":\"" type "\",\"downloadUrl\":\"https://x/" name "\"" more "}"

static void
test_the_file_that_is_meant_is_picked(void **state)
{
    (void)state;
    static const struct {
        const char *files, *query, *name; // name NULL: refused with code
        lade_code_t code;
    } rows[] = {
        // clang-format off
        {FILE_OF("a", "Model", "") "," FILE_OF("b", "Model", ",\"primary\":true"), "", "b", LADE_OK},
        {FILE_OF("a", "Training Data", "") "," FILE_OF("b", "Pruned Model", "") "," FILE_OF("c", "Model", ""), "", "c", LADE_OK},
        {FILE_OF("a", "Model", "") "," FILE_OF("b", "Training Data", ""), "?type=training%20data", "b", LADE_OK},
        {FILE_OF("a", "Model", ",\"metadata\":{\"fp\":\"fp16\"}") "," FILE_OF("b", "Model", ",\"metadata\":{\"fp\":\"fp32\"},\"primary\":true"),
         "?fp=fp16", "a", LADE_OK},
        {FILE_OF("a", "Model", ",\"metadata\":null"), "?fp=fp16", NULL, LADE_NOT_FOUND},
        {FILE_OF("a", "Archive", ""), "", NULL, LADE_NOT_FOUND},
        {"", "", NULL, LADE_NOT_FOUND},
        {"7,[],{}", "", NULL, LADE_NOT_FOUND},
        {"{\"type\":\"Model\",\"primary\":true,\"downloadUrl\":\"file:///etc/passwd\"}", "", NULL, LADE_CORRUPT},
        {FILE_OF("a", "Model", ",\"virusScanResult\":\"Danger\""), "", NULL, LADE_UNSAFE_FILE},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[2048], url[256];
        snprintf(text, sizeof text, "{\"files\":[%s]}", rows[i].files);
        snprintf(url, sizeof url, "https://civitai.com/api/download/models/7%s", rows[i].query);
        lade_civitai_page_t page = {.version = json_loads(text, 0, NULL)};
        lade_civitai_ref_t ref;
        lade_civitai_file_t file;
        lade_error_t error = {0};
        assert_non_null(page.version);
        assert_true(lade_civitai_read(url, "https://civitai.com", &ref));
        lade_code_t code = lade_civitai_pick(&page, &ref, &file, &error);
        print_message("%s: %s\n", text, error.message);
        assert_int_equal(code, rows[i].code);
        if (!code)
            assert_string_equal(file.name, rows[i].name);
        lade_civitai_ref_free(&ref);
        lade_civitai_page_free(&page);
    }
}

static void
test_sizes_and_digests_are_taken_when_they_are_exact(void **state)
{
    (void)state;
    static const struct {
        const char *more;
        int64_t size;
        size_t digest;
    } rows[] = {
        {",\"sizeKB\":144110.6279296875", 147569283, 0},
        {",\"sizeKB\":2", 2048, 0},
        {",\"sizeKB\":144110.63", -1, 0}, // was rounded
        {",\"sizeKB\":-1", -1, 0},
        {",\"sizeKB\":\"x\"", -1, 0},
        {",\"hashes\":{\"SHA256\":"
         "\"00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF\"}",
         -1, 64},
        {",\"hashes\":{\"SHA256\":\"xyz\"}", -1, 0},
        {",\"hashes\":7", -1, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{\"files\":[{\"name\":\"a\",\"type\":\"Model\",\"downloadUrl\":"
                 "\"http://x\"%s}]}",
                 rows[i].more);
        lade_civitai_page_t page = {.version = json_loads(text, 0, NULL)};
        lade_civitai_ref_t ref = {0};
        lade_civitai_file_t file;
        print_message("%s\n", text);
        assert_int_equal(lade_civitai_pick(&page, &ref, &file, NULL), LADE_OK);
        assert_int_equal(file.size, rows[i].size);
        assert_int_equal(strlen(file.sha256), rows[i].digest);
        assert_null(strpbrk(file.sha256, "ABCDEF"));
        lade_civitai_page_free(&page);
    }
}

static const test_reply_t s_replies[] = {
    // clang-format off
    {"/api/v1/models/1",          "200 OK\r\n", "{\"id\":1,\"name\":\"One\",\"modelVersions\":[{\"id\":11},{\"id\":10}]}"},
    {"/api/v1/models/2",          "200 OK\r\n", "{\"id\":2,\"name\":\"Two\",\"mode\":\"TakenDown\"}"},
    {"/api/v1/models/3",          "401 Unauthorized\r\n", "{\"error\":\"Unauthorized\"}"},
    {"/api/v1/models/4",          "429 Too Many Requests\r\nRetry-After: 9\r\n", ""},
    {"/api/v1/models/5",          "503 Unavailable\r\n", ""},
    {"/api/v1/models/6",          "200 OK\r\n", "[1]"},
    {"/api/v1/models/8",          "418 Teapot\r\n", ""},
    {"/api/v1/model-versions/10", "200 OK\r\n", "{\"id\":10,\"modelId\":1}"},
    {"/api/v1/model-versions/20", "200 OK\r\n", "{\"id\":20,\"modelId\":404}"},
    {"/api/v1/model-versions/30", "200 OK\r\n", "{\"id\":30,\"modelId\":5}"},
    {NULL, NULL, NULL},
    // clang-format on
};

static void
test_each_answer_has_its_code(void **state)
{
    (void)state;
    static const struct {
        int64_t model, version;
        const char *token;
        lade_code_t code;
        int64_t chosen;
    } rows[] = {
        {1, 0, NULL, LADE_OK, 11},
        {1, 10, NULL, LADE_OK, 10},
        {0, 10, "key", LADE_OK, 10},
        {0, 20, NULL, LADE_OK, 20}, // its model is gone
        {0, 30, NULL, LADE_NETWORK, 0},
        {1, 12, NULL, LADE_UNKNOWN_METADATA, 0},
        {2, 0, NULL, LADE_UNKNOWN_METADATA, 0},
        {3, 0, NULL, LADE_AUTH_REQUIRED, 0},
        {3, 0, "key", LADE_AUTH_DENIED, 0},
        {4, 0, NULL, LADE_RATE_LIMITED, 0},
        {5, 0, NULL, LADE_NETWORK, 0},
        {6, 0, NULL, LADE_CORRUPT, 0},
        {7, 0, NULL, LADE_UNKNOWN_METADATA, 0},
        {8, 0, NULL, LADE_HTTP_ERROR, 0},
    };
    test_server_t *server = test_server_new(s_replies, false);
    lade_config_t config = {.civitai_endpoint = server->endpoint,
                            .hub_endpoint = "http://127.0.0.1:1",
                            .user_agent = "lade/test",
                            .ca_file = "",
                            .connect_timeout_s = 5,
                            .stall_s = 5};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_civitai_request_t request = {.config = &config, .token = rows[i].token};
        lade_civitai_ref_t ref = {.model = rows[i].model, .version = rows[i].version};
        lade_civitai_page_t page;
        lade_error_t error = {0};
        lade_code_t code = lade_civitai_fetch(&request, &ref, &page, &error);
        print_message("%d/%d: %s\n", (int)ref.model, (int)ref.version, error.message);
        assert_int_equal(code, rows[i].code);
        if (!code)
            assert_int_equal(lade_json_int(page.version, "id", 0), rows[i].chosen);
        if (code == LADE_RATE_LIMITED)
            assert_true(request.retry_after_s == 9);
        if (rows[i].token)
            assert_non_null(strstr(server->last, "Authorization: Bearer key\r\n"));
        else
            assert_null(strstr(server->last, "Authorization"));
        lade_civitai_page_free(&page);
    }
    config.hub_offline = true;
    int before = atomic_load(&server->count);
    lade_civitai_request_t request = {.config = &config};
    lade_civitai_ref_t ref = {.model = 1};
    lade_civitai_page_t page;
    assert_int_equal(lade_civitai_fetch(&request, &ref, &page, NULL), LADE_OFFLINE);
    assert_int_equal(atomic_load(&server->count), before);
    test_server_end(server);
}

static int
s_open(void **state)
{
    (void)state;
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    lade_api_open();
    return 0;
}

static int
s_close(void **state)
{
    (void)state;
    lade_api_close();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_are_told_from_other_urls),
        cmocka_unit_test(test_the_file_that_is_meant_is_picked),
        cmocka_unit_test(test_sizes_and_digests_are_taken_when_they_are_exact),
        cmocka_unit_test(test_each_answer_has_its_code),
    };
    return cmocka_run_group_tests_name("civitai", tests, s_open, s_close);
}
