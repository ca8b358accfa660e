// Who gets which credentials, and above all who does not.
#include "workers/download/credentials.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define TOKEN "job-token"

typedef struct {
    char *root, *netrc;
    lade_config_t config;
    lade_credentials_t found;
    lade_error_t error;
} s_place_t;

static int
s_set_up(void **state)
{
    s_place_t *place = calloc(1, sizeof *place);
    const char *tmp = getenv("TMPDIR");
    place->root = lade_path_join(tmp ? tmp : "/tmp", "lade-credentials-XXXXXX");
    if (!mkdtemp(place->root))
        return -1;
    place->netrc = lade_path_join(place->root, "netrc");
    setenv("HOME", place->root, 1);
    unsetenv("HF_HOME");
    place->config = (lade_config_t){.hub_endpoint = strdup("https://hub.example"),
                                    .hub_token = strdup(""),
                                    .hub_token_file = strdup(""),
                                    .netrc = strdup("")};
    *state = place;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *place = *state;
    lade_credentials_free(&place->found);
    lade_config_free(&place->config);
    lade_path_remove(place->root, NULL);
    free(place->netrc);
    free(place->root);
    free(place);
    return 0;
}

static void
s_set(char **text_p, const char *text)
{
    free(*text_p);
    *text_p = strdup(text);
}

static void
s_add(s_place_t *place, const char *regex, const char *token, const char *file)
{
    if (lade_tokens_add(&place->config.remote_tokens, regex, token, file, &place->error))
        fail_msg("%s", place->error.message);
}

static void
s_write_netrc(s_place_t *place, const char *text)
{
    if (lade_path_write(place->netrc, text, strlen(text), 0600, &place->error))
        fail_msg("%s", place->error.message);
    s_set(&place->config.netrc, place->netrc);
}

static lade_code_t
s_find(s_place_t *place, const char *url, const char *source, const char *token,
       const char *token_url)
{
    const lade_credentials_ask_t ask = {url, source, token, token_url};
    lade_credentials_free(&place->found);
    return lade_credentials_find(&place->config, &ask, &place->found, &place->error);
}

// What comes out as one text: "", "bearer TOKEN", "basic USER:PASSWORD", or the error.
static const char *
s_told(s_place_t *place, const char *url, const char *source, const char *token,
       const char *token_url)
{
    static char told[6000];
    if (s_find(place, url, source, token, token_url))
        snprintf(told, sizeof told, "error %s", place->error.message);
    else if (place->found.kind == LADE_CREDENTIALS_NONE)
        told[0] = '\0';
    else if (place->found.kind == LADE_CREDENTIALS_BEARER)
        snprintf(told, sizeof told, "bearer %s", place->found.token);
    else
        snprintf(told, sizeof told, "basic %s:%s", place->found.user, place->found.password);
    return told;
}

static void
s_expect_error(s_place_t *place, const char *url, lade_code_t code, const char *words)
{
    assert_int_equal(s_find(place, url, NULL, NULL, NULL), code);
    if (!strstr(place->error.message, words))
        fail_msg("'%s' lacks '%s'", place->error.message, words);
    assert_int_equal(place->found.kind, LADE_CREDENTIALS_NONE);
}

// ---------------------------------------------------------------------------------------------------

static void
test_origins_are_scheme_host_and_port(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } rows[] = {
        // clang-format off
        {"https://a.example/x",      "https://a.example/y?z#w",    true},
        {"https://A.example/x",      "HTTPS://a.EXAMPLE:443/",     true},
        {"http://a.example",         "http://a.example:80/x",      true},
        {"http://u:p@a.example/x",   "http://a.example/",          true},
        {"http://[::1]:8000/",       "http://[::1]:8000/x",        true},
        {"https://a.example/",       "http://a.example/",          false},
        {"https://a.example/",       "https://a.example:444/",     false},
        {"https://a.example/",       "https://b.a.example/",       false},
        {"https://a.example/",       "https://a.example.evil/",    false},
        {"https://a.example/",       "https://a.example@evil/",    false},
        {"https://a.example/",       "https://evil/a.example/",    false},
        {"https://a.example/",       "https://evil/?https://a.example/", false},
        {"https://a.example/",       "https://a.example./",        false},
        {"file:///etc/passwd",       "file:///etc/passwd",         false},
        {"ftp://a.example/",         "ftp://a.example/",           false},
        {"no url at all",            "no url at all",              false},
        {"",                         "",                           false},
        {NULL,                       "http://a.example/",          false},
        {"http://a.example/",        NULL,                         false},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (lade_credentials_same_origin(rows[i].a, rows[i].b) != rows[i].same)
            fail_msg("%s and %s", rows[i].a, rows[i].b);
}

static void
test_a_given_token_stays_at_its_origin(void **state)
{
    s_place_t *place = *state;
    const char *from = "https://a.example/f";
    assert_string_equal(s_told(place, from, NULL, TOKEN, NULL), "bearer " TOKEN);
    assert_string_equal(place->found.from, "--token");
    assert_string_equal(s_told(place, "https://a.example/moved", from, TOKEN, from),
                        "bearer " TOKEN);
    static const char *const others[] = {"https://b.example/f",
                                         "http://a.example/f",
                                         "https://a.example:8443/f",
                                         "https://a.example@b.example",
                                         "https://b.example/?u=https://a.example/f",
                                         "https://a.example.b.example/"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_string_equal(s_told(place, others[i], from, TOKEN, from), "");
        assert_string_equal(s_told(place, others[i], others[i], TOKEN, from), ""); // a mirror
    }
    assert_string_equal(s_told(place, from, NULL, "", NULL), "");
    assert_string_equal(s_told(place, from, NULL, NULL, NULL), "");
    assert_string_equal(s_told(place, from, NULL, " " TOKEN "\n", NULL), "bearer " TOKEN);
}

static void
test_a_token_that_could_be_a_second_header_is_refused(void **state)
{
    s_place_t *place = *state;
    static const char *const wrong[] = {"a b", "a\r\nHost: x", "a\tb", "\xc3\xa4", "\x01"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(s_find(place, "http://a.example/", NULL, wrong[i], NULL),
                         LADE_VALUE_ERROR);
        assert_null(strstr(place->error.message, wrong[i]));
        assert_int_equal(place->found.kind, LADE_CREDENTIALS_NONE);
    }
    char longest[LADE_TOKENS_MAX + 2];
    memset(longest, 'x', sizeof longest);
    longest[LADE_TOKENS_MAX + 1] = '\0';
    assert_int_equal(s_find(place, "http://a.example/", NULL, longest, NULL), LADE_VALUE_ERROR);
    longest[LADE_TOKENS_MAX] = '\0';
    assert_int_equal(s_find(place, "http://a.example/", NULL, longest, NULL), LADE_OK);
}

static void
test_the_first_expression_found_in_the_url_wins(void **state)
{
    s_place_t *place = *state;
    s_add(place, "models\\.example/private", "first", NULL);
    s_add(place, "models\\.example", "second", NULL);
    s_add(place, "^https://[a-z]+\\.example/[0-9]{3}$", "third", NULL);
    assert_string_equal(s_told(place, "https://models.example/private/x", NULL, NULL, NULL),
                        "bearer first");
    assert_string_equal(place->found.from, "remote_api_tokens, entry 1");
    assert_string_equal(s_told(place, "https://models.example/public", NULL, NULL, NULL),
                        "bearer second");
    assert_string_equal(s_told(place, "https://x.example/123", NULL, NULL, NULL), "bearer third");
    assert_string_equal(s_told(place, "https://x.example/1234", NULL, NULL, NULL), "");
    assert_string_equal(s_told(place, "https://models.example/private/x", NULL, TOKEN, NULL),
                        "bearer " TOKEN);
    // A given token that is for another origin leaves a mirror to the list.
    assert_string_equal(s_told(place, "https://models.example/m", "https://models.example/m", TOKEN,
                               "https://a.example/m"),
                        "bearer second");
}

// A server can put any text into the URL it redirects to.
static void
test_the_list_is_asked_for_urls_of_users_only(void **state)
{
    s_place_t *place = *state;
    s_add(place, "models\\.example", "listed", NULL);
    const char *from = "https://models.example/f";
    assert_string_equal(s_told(place, "https://models.example/moved", from, NULL, NULL),
                        "bearer listed");
    assert_string_equal(s_told(place, "https://evil/?models.example", from, NULL, NULL), "");
    assert_string_equal(s_told(place, "https://evil/models.example", "https://evil/", NULL, NULL),
                        "");
    assert_string_equal(s_told(place, "http://models.example/f", from, NULL, NULL), "");
    assert_string_equal(s_told(place, "https://models.example@evil/", NULL, NULL, NULL), "");
    assert_string_equal(s_told(place, "https://x:models.example@evil/", NULL, NULL, NULL), "");
}

static void
test_a_token_file_is_read_each_time(void **state)
{
    s_place_t *place = *state;
    char *path = lade_path_join(place->root, "token");
    s_add(place, "a\\.example", NULL, path);
    s_add(place, "b\\.example", NULL, "~/token");
    s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "remote_api_tokens, entry 1");
    lade_path_write(path, "one\n", 4, 0600, NULL);
    assert_string_equal(s_told(place, "http://a.example/", NULL, NULL, NULL), "bearer one");
    lade_path_write(path, "  two", 5, 0600, NULL);
    assert_string_equal(s_told(place, "http://a.example/", NULL, NULL, NULL), "bearer two");
    assert_string_equal(s_told(place, "http://b.example/", NULL, NULL, NULL), "bearer two");
    lade_path_write(path, "\n", 1, 0600, NULL);
    s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "holds no token");
    lade_path_write(path, "se cret", 7, 0600, NULL);
    s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "holds no token");
    assert_null(strstr(place->error.message, "cret"));
    free(path);
}

static void
test_the_hubs_token_goes_to_the_hub(void **state)
{
    s_place_t *place = *state;
    const char *file = "https://hub.example/o/r/resolve/main/f";
    assert_string_equal(s_told(place, file, NULL, NULL, NULL), "");
    char *cache = lade_path_join(place->root, ".cache/huggingface"),
         *logged_in = lade_path_join(cache, "token");
    lade_path_mkdirs(cache, 0700, NULL);
    lade_path_write(logged_in, "logged-in\n", 10, 0600, NULL);
    assert_string_equal(s_told(place, file, NULL, NULL, NULL), "bearer logged-in");
    s_set(&place->config.hub_token_file, logged_in);
    s_set(&place->config.hub_token, "set");
    assert_string_equal(s_told(place, file, NULL, NULL, NULL), "bearer set");
    assert_string_equal(s_told(place, file, NULL, TOKEN, NULL), "bearer " TOKEN);
    assert_string_equal(s_told(place, "https://cdn.example/f", file, NULL, NULL), "");
    assert_string_equal(s_told(place, "http://hub.example/f", file, NULL, NULL), "");
    assert_string_equal(s_told(place, "https://hub.example.evil/f", NULL, NULL, NULL), "");
    s_set(&place->config.hub_token, "");
    assert_string_equal(s_told(place, file, NULL, NULL, NULL), "bearer logged-in");
    s_add(place, "hub\\.example", "listed", NULL); // what was written down for the URL comes first
    assert_string_equal(s_told(place, file, NULL, NULL, NULL), "bearer listed");
    free(logged_in);
    free(cache);
}

static void
test_netrc_is_looked_up_by_host(void **state)
{
    s_place_t *place = *state;
    s_write_netrc(place,
                  "# comment machine no.example login x password y\n"
                  "machine a.example login ann password s3cret\n"
                  "machine b.example\n\tlogin bob\n\taccount z password \"two words \\\" q\"\n"
                  "macdef init\ncd /\nmachine m.example login no password no\n\n"
                  "machine c.example login cat password #hash\n"
                  "machine a.example login second password second\n"
                  "machine d.example login dan\r\n"
                  "default login any password one\n"
                  "machine e.example login late password late\n");
    static const struct {
        const char *url, *told;
    } rows[] = {
        // clang-format off
        {"https://a.example/f",  "basic ann:s3cret"},
        {"http://A.Example:81/", "basic ann:s3cret"},
        {"https://b.example/",   "basic bob:two words \" q"},
        {"https://c.example/",   "basic cat:#hash"},
        {"https://d.example/",   "basic dan:"},
        {"https://e.example/",   "basic any:one"}, // default comes before it
        {"https://m.example/",   "basic any:one"},
        {"https://no.example/",  "basic any:one"},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(s_told(place, rows[i].url, NULL, NULL, NULL), rows[i].told);
    assert_string_equal(place->found.from, "download.netrc");
    s_add(place, "a\\.example", "listed", NULL);
    assert_string_equal(s_told(place, "https://a.example/", NULL, NULL, NULL), "bearer listed");
    assert_string_equal(s_told(place, "ftp://a.example/", NULL, NULL, NULL), "");
}

static void
test_netrc_after_a_redirect(void **state)
{
    s_place_t *place = *state;
    s_write_netrc(place, "machine store.example login ann password s3cret\n"
                         "default login any password one\n");
    const char *from = "https://a.example/f";
    assert_string_equal(s_told(place, from, from, NULL, NULL), "basic any:one");
    assert_string_equal(s_told(place, "https://store.example/f", from, NULL, NULL),
                        "basic ann:s3cret");
    assert_string_equal(s_told(place, "http://store.example/f", from, NULL, NULL), "");
    assert_string_equal(s_told(place, "https://evil/f", from, NULL, NULL), "");
    assert_string_equal(s_told(place, "http://a.example/f", from, NULL, NULL), "");
}

static void
test_a_netrc_others_can_read_is_refused(void **state)
{
    s_place_t *place = *state;
    s_write_netrc(place, "machine a.example login ann password s3cret\n");
    static const mode_t wrong[] = {0640, 0604, 0644, 0660, 0620, 0601};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        chmod(place->netrc, wrong[i]);
        s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "chmod 600");
        s_expect_error(place, "http://b.example/", LADE_CONFIG_ERROR, place->netrc);
    }
    chmod(place->netrc, 0400);
    assert_string_equal(s_told(place, "http://a.example/", NULL, NULL, NULL), "basic ann:s3cret");
}

static void
test_what_is_no_netrc_is_told_without_its_text(void **state)
{
    s_place_t *place = *state;
    static const char *const wrong[] = {
        "machine a.example password s3cret\n",
        "machine a.example login ann password \"s3cret\n",
        "machine a.example login ann passwort s3cret\n",
        "s3cret",
        "machine a.example login",
        "machine",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        s_write_netrc(place, wrong[i]);
        s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "is no netrc");
        assert_null(strstr(place->error.message, "s3cret"));
    }
    s_write_netrc(place, "machine a.example login a:b password s3cret");
    s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "colon");
    s_write_netrc(place, "");
    assert_string_equal(s_told(place, "http://a.example/", NULL, NULL, NULL), "");
    assert_int_equal(truncate(place->netrc, 2 << 20), 0);
    s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "bytes");
    s_set(&place->config.netrc, "~/netrc");
    s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, place->netrc);
    s_set(&place->config.netrc, place->root);
    s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "no file");
    s_set(&place->config.netrc, "/nowhere/netrc");
    s_expect_error(place, "http://a.example/", LADE_CONFIG_ERROR, "/nowhere/netrc");
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_origins_are_scheme_host_and_port),
        TEST(test_a_given_token_stays_at_its_origin),
        TEST(test_a_token_that_could_be_a_second_header_is_refused),
        TEST(test_the_first_expression_found_in_the_url_wins),
        TEST(test_the_list_is_asked_for_urls_of_users_only),
        TEST(test_a_token_file_is_read_each_time),
        TEST(test_the_hubs_token_goes_to_the_hub),
        TEST(test_netrc_is_looked_up_by_host),
        TEST(test_netrc_after_a_redirect),
        TEST(test_a_netrc_others_can_read_is_refused),
        TEST(test_what_is_no_netrc_is_told_without_its_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
