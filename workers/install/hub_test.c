// The hub's API against a server that says what the test wants.
#include "workers/install/api.h"
#include "workers/install/hub.h"

#include "workers/install/test_folder.h"
#include "workers/install/test_server.h"

#include <netdb.h>

#define SHA "0123456789abcdef0123456789abcdef01234567"
#define DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static const char s_info[] =
    "{\"id\":\"o/r\",\"sha\":\"" SHA "\",\"tags\":[\"diffusers\"],\"siblings\":["
    "{\"rfilename\":\"a.json\",\"size\":12,\"blobId\":\"x\"},"
    "{\"rfilename\":\"u/w.safetensors\",\"size\":99,\"lfs\":{\"sha256\":\"" DIGEST
    "\",\"size\":99}},"
    "{\"rfilename\":\"old.bin\",\"lfs\":{\"oid\":\"sha256:" DIGEST "\",\"size\":7}},"
    "{\"rfilename\":\"odd.bin\",\"size\":-5,\"lfs\":{\"sha256\":\"XYZ\"}},"
    "{\"rfilename\":\"vast.bin\",\"size\":9223372036854775807},"
    "{\"rfilename\":7},{},\"x\"]}";

#define API "/api/models/"
#define Q "?blobs=true"
static const test_reply_t s_replies[] = {
    // clang-format off
    {API "o/r" Q,               "200 OK\r\nContent-Type: application/json\r\n", s_info},
    {API "o/r/revision/fp16" Q, "404 Not Found\r\nX-Error-Code: RevisionNotFound\r\n", "{}"},
    {API "o/r/revision/refs%2Fpr%2F1" Q, "404 Not Found\r\nX-Error-Code: RevisionNotFound\r\n", "{}"},
    {API "o/missing/revision/v1" Q, "404 Not Found\r\nX-Error-Code: RepoNotFound\r\n", "{}"},
    {API "o/branch/revision/fp16" Q, "200 OK\r\n", "{\"siblings\":[{\"rfilename\":\"x.bin\"}]}"},
    {API "o/missing" Q,         "404 Not Found\r\nX-Error-Code: RepoNotFound\r\n", "{}"},
    {API "o/hidden" Q,          "401 Unauthorized\r\nX-Error-Code: RepoNotFound\r\n", "{}"},
    {API "o/private" Q,         "401 Unauthorized\r\n", "{\"error\":\"Invalid username or password.\"}"},
    {API "o/gated" Q,           "403 Forbidden\r\nX-Error-Code: GatedRepo\r\n", "{}"},
    {API "o/gated401" Q,        "401 Unauthorized\r\nX-Error-Code: GatedRepo\r\n", "{}"},
    {API "o/gatedwords" Q,      "403 Forbidden\r\n", "{\"error\":\"Access to model o/gatedwords is restricted: gated\"}"},
    {API "o/forbidden" Q,       "403 Forbidden\r\nX-Error-Message: no\r\n", ""},
    {API "o/echo" Q,            "403 Forbidden\r\nX-Error-Message: no token hf_s3cretX9 here\r\n", ""},
    {API "o/busy" Q,            "429 Too Many Requests\r\nRetry-After: 17\r\n", ""},
    {API "o/down" Q,            "503 Unavailable\r\n", ""},
    {API "o/teapot" Q,          "418 Teapot\r\n", ""},
    {API "o/page" Q,            "200 OK\r\nContent-Type: text/html\r\n", "<!doctype html><html></html>"},
    {API "o/list" Q,            "200 OK\r\n", "[1,2]"},
    {API "o/cut" Q,             "200 OK\r\n", "{\"siblings\":["},
    {API "o/empty" Q,           "200 OK\r\n", ""},
    {API "o/closes" Q,          NULL, NULL},
    {API "o/renamed" Q,         "307 Temporary Redirect\r\nLocation: " API "o/r" Q "\r\n", "moved"},
    {API "o/loop" Q,            "307 Temporary Redirect\r\nLocation: " API "o/loop" Q "\r\n", ""},
    {API "o/file" Q,            "302 Found\r\nLocation: file:///etc/passwd\r\n", ""},
    {API "o/inside" Q,          "302 Found\r\nLocation: http://127.0.0.2:9/\r\n", ""},
    {API "o/hidden-inside" Q,   "302 Found\r\nLocation: http://2852039166/latest/meta-data\r\n", ""},
    {API "o/other-port" Q,      "302 Found\r\nLocation: http://127.0.0.1:1/\r\n", ""},
    {NULL, NULL, NULL},
    // clang-format on
};

static lade_config_t
s_config(const char *endpoint)
{
    return (lade_config_t){.hub_endpoint = (char *)endpoint,
                           .hub_token = "",
                           .hub_token_file = "",
                           .user_agent = "lade/test",
                           .ca_file = "",
                           .connect_timeout_s = 5,
                           .stall_s = 5};
}

static void
test_a_revision_that_was_asked_for_has_to_be_there(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, false);
    lade_config_t config = s_config(server->endpoint);
    lade_hub_request_t request = {.config = &config};
    lade_hub_repo_t *repo;
    lade_error_t error = {0};
    assert_int_equal(lade_hub_fetch(&request, "o/r", "refs/pr/1", true, &repo, &error),
                     LADE_UNKNOWN_REVISION);
    assert_non_null(strstr(error.message, "no revision 'refs/pr/1'"));
    assert_null(repo);
    assert_int_equal(lade_hub_fetch(&request, "o/missing", "v1", true, &repo, &error),
                     LADE_UNKNOWN_METADATA);
    test_server_end(server);
}

static void
test_the_list_of_files_is_read(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, false);
    lade_config_t config = s_config(server->endpoint);
    lade_hub_request_t request = {.config = &config, .token = "hf_secret"};
    lade_hub_repo_t *repo;
    lade_error_t error = {0};
    assert_int_equal(lade_hub_fetch(&request, "o/r", NULL, false, &repo, &error), LADE_OK);
    assert_non_null(strstr(server->last, "Authorization: Bearer hf_secret\r\n"));
    assert_non_null(strstr(server->last, "User-Agent: lade/test\r\n"));
    assert_string_equal(repo->revision, SHA);
    assert_int_equal(repo->count, 5);
    assert_string_equal(repo->files[0].path, "a.json");
    assert_int_equal(repo->files[0].size, 12);
    assert_string_equal(repo->files[0].sha256, "");
    assert_string_equal(repo->files[1].sha256, DIGEST);
    assert_int_equal(repo->files[2].size, 7);
    assert_string_equal(repo->files[2].sha256, DIGEST);
    assert_int_equal(repo->files[3].size, -1);
    assert_string_equal(repo->files[3].sha256, "");
    assert_int_equal(repo->files[4].size, -1); // no file; sums of it would not fit
    char *text = lade_hub_describe(repo, 100000);
    assert_non_null(strstr(text, "u/w.safetensors"));
    free(text);
    text = lade_hub_describe(repo, 200);
    assert_null(strstr(text, "siblings"));
    assert_non_null(strstr(text, SHA));
    free(text);
    text = lade_hub_describe(repo, 3);
    assert_string_equal(text, "{}");
    free(text);
    lade_hub_repo_free(&repo);
    test_server_end(server);
}

static void
test_a_revision_that_is_missing_falls_back(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, false);
    lade_config_t config = s_config(server->endpoint);
    lade_hub_request_t request = {.config = &config};
    lade_hub_repo_t *repo;
    assert_int_equal(lade_hub_fetch(&request, "o/r", "fp16", false, &repo, NULL), LADE_OK);
    assert_int_equal(atomic_load(&server->count), 2);
    assert_string_equal(repo->revision, SHA);
    lade_hub_repo_free(&repo);
    assert_int_equal(lade_hub_fetch(&request, "o/branch", "fp16", false, &repo, NULL), LADE_OK);
    assert_string_equal(repo->revision, "fp16");
    lade_hub_repo_free(&repo);
    test_server_end(server);
}

static void
test_each_refusal_has_its_own_code(void **state)
{
    (void)state;
    static const struct {
        const char *repo, *token;
        lade_code_t code;
        const char *words;
    } rows[] = {
        {"o/missing", NULL, LADE_UNKNOWN_METADATA, "'o/missing' not found"},
        {"o/nowhere", NULL, LADE_UNKNOWN_METADATA, "'o/nowhere' not found"},
        {"o/hidden", NULL, LADE_UNKNOWN_METADATA, "give a token"},
        {"o/private", NULL, LADE_AUTH_REQUIRED, "--token"},
        {"o/private", "hf_x", LADE_AUTH_DENIED, "token"},
        {"o/gated", NULL, LADE_LICENSE_GATE, "accept its terms"},
        {"o/gated401", NULL, LADE_LICENSE_GATE, "accept its terms"},
        {"o/gatedwords", "hf_x", LADE_LICENSE_GATE, "accept its terms"},
        {"o/forbidden", "hf_x", LADE_AUTH_DENIED, "403: no"},
        {"o/busy", NULL, LADE_RATE_LIMITED, "wait"},
        {"o/down", NULL, LADE_NETWORK, "503"},
        {"o/teapot", NULL, LADE_HTTP_ERROR, "418"},
        {"o/page", NULL, LADE_CORRUPT, "page"},
        {"o/list", NULL, LADE_CORRUPT, "JSON"},
        {"o/cut", NULL, LADE_CORRUPT, "JSON"},
        {"o/empty", NULL, LADE_CORRUPT, "JSON"},
        {"o/closes", NULL, LADE_NETWORK, "hub.endpoint"},
        {"o/loop", NULL, LADE_HTTP_ERROR, "redirect"},
        {"o/file", NULL, LADE_UNSAFE_URL, "http://"},
        {"o/inside", NULL, LADE_UNSAFE_URL, "127.0.0.2"},
        {"o/hidden-inside", NULL, LADE_UNSAFE_URL, "169.254.169.254"},
        {"o/other-port", NULL, LADE_UNSAFE_URL, "download.allow_addresses"},
        {"o/renamed", NULL, LADE_OK, ""},
    };
    test_server_t *server = test_server_new(s_replies, false);
    lade_config_t config = s_config(server->endpoint);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lade_hub_request_t request = {.config = &config, .token = rows[i].token};
        lade_hub_repo_t *repo;
        lade_error_t error = {0};
        lade_code_t code = lade_hub_fetch(&request, rows[i].repo, NULL, false, &repo, &error);
        print_message("%s: %s: %s\n", rows[i].repo, lade_code_name(code), error.message);
        assert_int_equal(code, rows[i].code);
        assert_non_null(strcasestr(error.message, rows[i].words));
        assert_null(strstr(error.message, "hf_x"));
        assert_true(request.retry_after_s == (code == LADE_RATE_LIMITED ? 17 : 0));
        lade_hub_repo_free(&repo);
    }
    test_server_end(server);
}

static void
test_a_token_that_the_hub_repeats_is_hidden(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, false);
    lade_config_t config = s_config(server->endpoint);
    lade_hub_request_t request = {.config = &config, .token = "hf_s3cretX9"};
    lade_hub_repo_t *repo = NULL;
    lade_error_t error = {0};
    assert_int_equal(lade_hub_fetch(&request, "o/echo", NULL, false, &repo, &error),
                     LADE_AUTH_DENIED);
    assert_null(strstr(error.message, "hf_s3cret"));
    assert_non_null(strstr(error.message, "no token *"));
    test_server_end(server);
}

static void
test_a_token_does_not_follow_to_another_origin(void **state)
{
    (void)state;
    test_server_t *other = test_server_new(s_replies, false);
    char headers[256];
    snprintf(headers, sizeof headers, "302 Found\r\nLocation: %s" API "o/r" Q "\r\n",
             other->endpoint);
    const test_reply_t replies[] = {{API "o/away" Q, headers, ""}, {NULL, NULL, NULL}};
    test_server_t *server = test_server_new(replies, false);
    lade_config_t config = s_config(server->endpoint);
    config.allow_addresses = "127.0.0.1";
    lade_hub_request_t request = {.config = &config, .token = "hf_secret"};
    lade_hub_repo_t *repo;
    assert_int_equal(lade_hub_fetch(&request, "o/away", NULL, false, &repo, NULL), LADE_OK);
    assert_non_null(strstr(server->last, "hf_secret"));
    assert_null(strstr(other->last, "hf_secret"));
    lade_hub_repo_free(&repo);
    test_server_end(server);
    test_server_end(other);
}

// Whether this machine's own name leads to a loopback address, as in most hosts files.
static bool
s_name_is_inside(char *name, size_t size)
{
    struct addrinfo *found = NULL, wanted = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    bool inside = gethostname(name, size) == 0 && strcmp(name, "localhost") != 0 &&
                  getaddrinfo(name, NULL, &wanted, &found) == 0 &&
                  ntohl(((struct sockaddr_in *)found->ai_addr)->sin_addr.s_addr) >> 24 == 127;
    if (found)
        freeaddrinfo(found);
    return inside;
}

static void
test_a_name_that_leads_inside_is_refused_when_it_is_connected_to(void **state)
{
    (void)state;
    char name[65], headers[256];
    if (!s_name_is_inside(name, sizeof name))
        skip();
    test_server_t *inside = test_server_new(s_replies, false);
    snprintf(headers, sizeof headers, "302 Found\r\nLocation: http://%s%s" API "o/r" Q "\r\n", name,
             strrchr(inside->endpoint, ':'));
    const test_reply_t replies[] = {{API "o/away" Q, headers, ""}, {NULL, NULL, NULL}};
    test_server_t *hub = test_server_new(replies, false);
    lade_config_t config = s_config(hub->endpoint);
    lade_hub_request_t request = {.config = &config};
    lade_hub_repo_t *repo;
    lade_error_t error = {0};
    assert_int_equal(lade_hub_fetch(&request, "o/away", NULL, false, &repo, &error),
                     LADE_UNSAFE_URL);
    assert_int_equal(atomic_load(&inside->count), 0);
    assert_non_null(strstr(error.message, name));
    config.allow_addresses = name;
    assert_int_not_equal(lade_hub_fetch(&request, "o/away", NULL, false, &repo, &error),
                         LADE_UNSAFE_URL);
    lade_hub_repo_free(&repo);
    test_server_end(inside);
    test_server_end(hub);
}

static bool
s_stop_later(void *arg)
{
    return ++*(int *)arg > 1;
}

static void
test_a_silent_hub_can_be_left(void **state)
{
    (void)state;
    test_server_t *server = test_server_new(s_replies, true);
    lade_config_t config = s_config(server->endpoint);
    int asked = 0;
    lade_hub_request_t request = {.config = &config, .stop = s_stop_later, .arg = &asked};
    lade_hub_repo_t *repo;
    assert_int_equal(lade_hub_fetch(&request, "o/r", NULL, false, &repo, NULL), LADE_CANCELLED);
    assert_null(repo);
    test_server_end(server);
}

static void
test_offline_asks_nobody(void **state)
{
    (void)state;
    lade_config_t config = s_config("http://127.0.0.1:1");
    config.hub_offline = true;
    lade_hub_request_t request = {.config = &config};
    lade_hub_repo_t *repo;
    assert_int_equal(lade_hub_fetch(&request, "o/r", NULL, false, &repo, NULL), LADE_OFFLINE);
    config.hub_offline = false; // nobody listens there
    assert_int_equal(lade_hub_fetch(&request, "o/r", NULL, false, &repo, NULL), LADE_NETWORK);
}

static void
test_urls_are_escaped(void **state)
{
    (void)state;
    lade_config_t config = s_config("http://hub:8000/mirror//");
    char *url = lade_hub_file_url(&config, "o/r", "refs/pr/1", "a b/c?#%.bin");
    assert_string_equal(url,
                        "http://hub:8000/mirror/o/r/resolve/refs%2Fpr%2F1/a%20b/c%3F%23%25.bin");
    free(url);
}

static void
s_expect_token(const lade_config_t *config, const char *given, const char *wanted)
{
    char *token = lade_hub_token(config, given);
    if (wanted)
        assert_string_equal(token, wanted);
    else
        assert_null(token);
    free(token);
}

static void
test_the_token_is_the_nearest_one(void **state)
{
    (void)state;
    char *folder = test_folder_new();
    char *home_token = test_folder_write(folder, "home/.cache/huggingface/token", "hf_home\n");
    char *hf_token = test_folder_write(folder, "hf/token", " hf_cache \n");
    char *file_token = test_folder_write(folder, "file", "hf_file");
    char *home = lade_path_join(folder, "home"), *hf = lade_path_join(folder, "hf");
    lade_config_t config = s_config("http://hub");
    setenv("HOME", home, 1);
    unsetenv("HF_HOME");
    s_expect_token(&config, NULL, "hf_home");
    setenv("HF_HOME", hf, 1);
    s_expect_token(&config, NULL, "hf_cache");
    setenv("HF_HOME", folder, 1);
    s_expect_token(&config, NULL, NULL);
    config.hub_token_file = file_token;
    s_expect_token(&config, NULL, "hf_file");
    config.hub_token = "hf_config";
    s_expect_token(&config, "", "hf_config");
    s_expect_token(&config, "hf_given", "hf_given");
    s_expect_token(&config, "two words", NULL);
    s_expect_token(&config, "a\r\nX-Header: b", NULL);
    free(home_token);
    free(hf_token);
    free(file_token);
    free(home);
    free(hf);
    test_folder_end(folder);
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
        cmocka_unit_test(test_the_list_of_files_is_read),
        cmocka_unit_test(test_a_revision_that_was_asked_for_has_to_be_there),
        cmocka_unit_test(test_a_revision_that_is_missing_falls_back),
        cmocka_unit_test(test_each_refusal_has_its_own_code),
        cmocka_unit_test(test_a_token_that_the_hub_repeats_is_hidden),
        cmocka_unit_test(test_a_token_does_not_follow_to_another_origin),
        cmocka_unit_test(test_a_name_that_leads_inside_is_refused_when_it_is_connected_to),
        cmocka_unit_test(test_a_silent_hub_can_be_left),
        cmocka_unit_test(test_offline_asks_nobody),
        cmocka_unit_test(test_urls_are_escaped),
        cmocka_unit_test(test_the_token_is_the_nearest_one),
    };
    return cmocka_run_group_tests_name("hub", tests, s_open, s_close);
}
