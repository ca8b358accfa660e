// Settings: where values come from, who wins, what is told about a wrong one, and that
// configs/lade.yaml is current.
#include "common/config.h"

#include "common/path.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char *root, *file;
    lade_config_t config;
    lade_error_t error;
} s_place_t;

extern char **environ;

// What the person who runs the tests has set must not matter.
static void
s_forget_environment(void)
{
    static const char *const prefixes[] = {"LADE_", "HF_", "CURL_CA_BUNDLE", "XDG_DATA_HOME"};
    for (size_t i = 0; environ[i];) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(environ[i], "="), environ[i]);
        bool ours = false;
        for (size_t j = 0; j < sizeof prefixes / sizeof *prefixes; j++)
            ours = ours || strncmp(name, prefixes[j], strlen(prefixes[j])) == 0;
        if (ours)
            unsetenv(name);
        else
            i++;
    }
}

static int
s_set_up(void **state)
{
    s_place_t *place = calloc(1, sizeof *place);
    const char *tmp = getenv("TMPDIR");
    place->root = lade_path_join(tmp ? tmp : "/tmp", "lade-config-XXXXXX");
    if (!mkdtemp(place->root))
        return -1;
    place->file = lade_path_join(place->root, "lade.yaml");
    s_forget_environment();
    *state = place;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *place = *state;
    lade_config_free(&place->config);
    lade_path_remove(place->root, NULL);
    free(place->file);
    free(place->root);
    free(place);
    s_forget_environment();
    return 0;
}

static lade_code_t
s_load(s_place_t *place, const char *text)
{
    lade_config_free(&place->config);
    if (text && lade_path_write(place->file, text, strlen(text), 0600, &place->error))
        fail_msg("%s", place->error.message);
    return lade_config_load(&place->config, NULL, place->root, &place->error);
}

static void
s_expect_refused(s_place_t *place, const char *text, const char *words)
{
    assert_int_equal(s_load(place, text), LADE_CONFIG_ERROR);
    if (!strstr(place->error.message, words))
        fail_msg("'%s' lacks '%s'", place->error.message, words);
}

// ---------------------------------------------------------------------------------------------------

static void
test_presets_need_no_file(void **state)
{
    s_place_t *place = *state;
    char expected[512];
    assert_int_equal(s_load(place, NULL), LADE_OK);
    assert_int_equal(place->config.download_slots, 5);
    assert_string_equal(place->config.log_level, "");
    assert_string_equal(place->config.data, place->root);
    snprintf(expected, sizeof expected, "ipc://%s/clients", place->root);
    assert_string_equal(place->config.clients, expected);
    snprintf(expected, sizeof expected, "%s/models", place->root);
    assert_string_equal(place->config.models_dir, expected);
}

static void
test_file_then_environment_then_flag_wins(void **state)
{
    s_place_t *place = *state;
    assert_int_equal(s_load(place, "download:\n  slots: 7\n  stall_s: 11\ninsecure: yes\n"),
                     LADE_OK);
    assert_int_equal(place->config.download_slots, 7);
    assert_int_equal(place->config.stall_s, 11);
    assert_true(place->config.insecure);

    setenv("LADE_DOWNLOAD_SLOTS", "9", 1);
    setenv("HF_ENDPOINT", "http://hub", 1);
    setenv("HF_HUB_OFFLINE", "1", 1);
    assert_int_equal(s_load(place, NULL), LADE_OK);
    assert_int_equal(place->config.download_slots, 9);
    assert_int_equal(place->config.stall_s, 11);
    assert_string_equal(place->config.hub_endpoint, "http://hub");
    assert_true(place->config.hub_offline);
    setenv("LADE_HUB_ENDPOINT", "http://ours", 1); // our own name comes before the ecosystem's
    assert_int_equal(s_load(place, NULL), LADE_OK);
    assert_string_equal(place->config.hub_endpoint, "http://ours");

    assert_int_equal(lade_config_set(&place->config, "download.slots", "3", &place->error),
                     LADE_OK);
    assert_int_equal(place->config.download_slots, 3);
    assert_int_equal(lade_config_set(&place->config, "download.slot", "3", &place->error),
                     LADE_CONFIG_ERROR);
}

static void
test_wrong_files_are_told_with_their_line(void **state)
{
    s_place_t *place = *state;
    s_expect_refused(place, "insecure: false\nmodels_dirr: /m\n",
                     "lade.yaml:2: there is no setting 'models_dirr'");
    s_expect_refused(place, "download:\n  slots: many\n",
                     "lade.yaml:2: download.slots: 'many' is not a number from 1 to");
    s_expect_refused(place, "download:\n  slots: 0\n", "'0' is not a number");
    s_expect_refused(place, "download:\n  slots: 5x\n", "'5x' is not a number");
    s_expect_refused(place, "download:\n  slots: 99999999999999999999\n", "is not a number");
    s_expect_refused(place, "insecure: perhaps\n",
                     "lade.yaml:1: insecure: 'perhaps' is neither true nor false");
    s_expect_refused(place, "download: [1, 2]\n", "download takes one value");
    s_expect_refused(place, "- a list\n", "has to be a mapping");
    s_expect_refused(place, "download:\n  slots: 'unended\n", "lade.yaml:");
    s_expect_refused(place, "[a]: b\n", "a key has to be a word");
    s_expect_refused(place, "log_level: loud\n", "log_level: 'loud'");
    s_expect_refused(place, "install:\n  hash: crc32\n", "lade.yaml:2: install.hash: 'crc32'");
    s_expect_refused(place, "install:\n  precision: float8\n", "install.precision: 'float8'");
    s_expect_refused(place, "download:\n  allow_addresses: 10.0.0.0/8, 10.0.0.0/40\n",
                     "lade.yaml:2: download.allow_addresses: '10.0.0.0/40' is no");
    s_expect_refused(place, "download:\n  proxy: ftp://p\n", "lade.yaml:2: download.proxy is no");
    s_expect_refused(place, "a: &a\n  b: *a\n", "a.b takes one value"); // a map within itself
    assert_int_equal(s_load(place, "# nothing\n"), LADE_OK);
    setenv("LADE_DOWNLOAD_SLOTS", "none", 1);
    s_expect_refused(place, "{}\n", "environment variable LADE_DOWNLOAD_SLOTS");
}

static void
test_a_list_of_tokens_is_read_from_the_file_only(void **state)
{
    s_place_t *place = *state;
    const char *key, *help;
    char value[64] = "";
    assert_int_equal(s_load(place, "remote_api_tokens:\n"
                                   "  - url_regex: ^https://a\\.example/\n"
                                   "    token: hf_x\n"
                                   "  - {url_regex: b, token_file: ~/b}\n"),
                     LADE_OK);
    const lade_remote_tokens_t *list = &place->config.remote_tokens;
    assert_int_equal(list->count, 2);
    assert_string_equal(list->items[0].url_regex, "^https://a\\.example/");
    assert_string_equal(list->items[0].token, "hf_x");
    assert_string_equal(list->items[1].token_file, "~/b");
    for (size_t i = 0; lade_config_each(&place->config, i, &key, value, sizeof value, &help); i++)
        if (strcmp(key, "remote_api_tokens") == 0)
            assert_string_equal(value, "[2 entries]");
    assert_int_equal(s_load(place, "remote_api_tokens: []\n"), LADE_OK);
    assert_int_equal(place->config.remote_tokens.count, 0);
    assert_int_equal(lade_config_set(&place->config, "remote_api_tokens", "hf_x", &place->error),
                     LADE_CONFIG_ERROR);
    assert_null(strstr(place->error.message, "hf_x"));
    s_expect_refused(place, "remote_api_tokens: hf_x\n",
                     "lade.yaml:1: remote_api_tokens is a list");
    s_expect_refused(place, "remote_api_tokens:\n  - hf_x\n",
                     "lade.yaml:2: remote_api_tokens: an entry has url_regex");
    s_expect_refused(place,
                     "insecure: no\nremote_api_tokens:\n  - {url_regex: a, token: b}\n"
                     "  - {url_regex: 'a(', token: b}\n",
                     "lade.yaml:4: remote_api_tokens: url_regex 'a(' does not compile");
    s_expect_refused(place, "remote_api_tokens:\n  - {url_regex: a, tokn: b}\n",
                     "lade.yaml:2: remote_api_tokens: an entry has no other keys");
    s_expect_refused(place, "remote_api_tokens:\n  - {url_regex: a, token: [b]}\n",
                     "token is a text");
    s_expect_refused(place, "remote_api_tokens:\n  - {[a]: a}\n", "no other keys");
    s_expect_refused(place, "download:\n  slots: [1]\n", "download.slots takes one value");
    setenv("LADE_REMOTE_API_TOKENS", "hf_x", 1);
    s_expect_refused(place, "{}\n", "stands in lade.yaml only");
}

static void
test_a_token_in_a_flag_is_blotted_out(void **state)
{
    s_place_t *place = *state;
    char token[] = "--set=hub.token=s3cret", other[] = "hub.endpoint=http://h";
    char *argv[] = {"p", "--data", place->root, token, "--set", other, NULL};
    int status;
    assert_true(lade_config_from_args(&place->config, "p", "about", 6, argv, &status));
    assert_string_equal(place->config.hub_token, "s3cret");
    assert_string_equal(token, "--set=hub.token=");
    assert_string_equal(other, "hub.endpoint=http://h");
}

static void
test_named_file_has_to_be_there(void **state)
{
    s_place_t *place = *state;
    assert_int_equal(
        lade_config_load(&place->config, "/nowhere/lade.yaml", place->root, &place->error),
        LADE_CONFIG_ERROR);
    assert_non_null(strstr(place->error.message, "/nowhere/lade.yaml"));
    lade_config_free(&place->config);
    setenv("LADE_CONFIG", "/nowhere/too.yaml", 1);
    assert_int_equal(s_load(place, NULL), LADE_CONFIG_ERROR);
    assert_non_null(strstr(place->error.message, "/nowhere/too.yaml"));
}

static void
test_relative_folders_become_absolute(void **state)
{
    s_place_t *place = *state;
    char *here = getcwd(NULL, 0);
    assert_int_equal(lade_config_load(&place->config, NULL, "no/such/data", &place->error),
                     LADE_OK);
    assert_true(strncmp(place->config.data, here, strlen(here)) == 0);
    assert_int_equal(place->config.models_dir[0], '/');
    free(here);
    lade_config_free(&place->config);
    setenv("LADE_MODELS_DIR", "/m/models//", 1);
    assert_int_equal(s_load(place, NULL), LADE_OK);
    assert_string_equal(place->config.models_dir, "/m/models");
}

static void
test_folders_are_made_and_closed_to_others(void **state)
{
    s_place_t *place = *state;
    struct stat stat_of;
    assert_int_equal(s_load(place, NULL), LADE_OK);
    assert_int_equal(chmod(place->root, 0755), 0);
    assert_int_equal(lade_config_make_folders(&place->config, &place->error), LADE_OK);
    assert_int_equal(stat(place->root, &stat_of), 0);
    assert_int_equal(stat_of.st_mode & 0777, 0700);
    assert_int_equal(stat(place->config.models_dir, &stat_of), 0);
    assert_true(S_ISDIR(stat_of.st_mode));
}

static void
test_daemon_flags(void **state)
{
    s_place_t *place = *state;
    char *set[] = {"p", "--data", place->root, "--set", "download.slots=4", "--set=insecure=on",
                   NULL};
    char *wrong[] = {"p", "--data", place->root, "--set", "download.slots=0", NULL};
    char *unknown[] = {"p", "--bogus", NULL};
    char *unended[] = {"p", "--data", NULL};
    int status = -1;
    assert_true(lade_config_from_args(&place->config, "p", "about", 6, set, &status));
    assert_int_equal(status, 0); // what main starts from
    assert_int_equal(place->config.download_slots, 4);
    assert_true(place->config.insecure);
    lade_config_free(&place->config);
    int null = open("/dev/null", O_WRONLY),
        kept = dup(2); // what it tells the user is for nobody here
    dup2(null, 2);
    bool goes_on = lade_config_from_args(&place->config, "p", "about", 5, wrong, &status);
    assert_false(goes_on);
    assert_int_not_equal(status, 0);
    lade_config_free(&place->config);
    assert_false(lade_config_from_args(&place->config, "p", "about", 2, unknown, &status));
    assert_int_equal(status, 2);
    assert_false(lade_config_from_args(&place->config, "p", "about", 2, unended, &status));
    assert_int_equal(status, 2);
    dup2(kept, 2);
    close(kept);
    close(null);
}

// ---------------------------------------------------------------------------------------------------
// configs/lade.yaml: after its introduction it is what the table prints

static void
test_shipped_file_has_the_keys_and_presets_of_the_table(void **state)
{
    s_place_t *place = *state;
    char *shipped, *printed;
    size_t shipped_len, printed_len;
    if (lade_path_read("configs/lade.yaml", 1 << 20, &shipped, &shipped_len, &place->error))
        fail_msg("%s (run unit tests from the top folder)", place->error.message);
    FILE *out = open_memstream(&printed, &printed_len);
    lade_config_print_presets(out);
    fclose(out);
    const char *body = printed + strspn(printed, "\n");
    const char *from = strstr(shipped, body);
    if (!from || strlen(from) != strlen(body))
        fail_msg("configs/lade.yaml is not what lade_config_print_presets prints; it has to end "
                 "with:\n%s",
                 body);
    free(printed);
    free(shipped);

    lade_config_t bare = {0};
    char ours[1024], theirs[1024];
    const char *key, *help;
    assert_int_equal(
        lade_config_load(&place->config, "configs/lade.yaml", place->root, &place->error), LADE_OK);
    assert_int_equal(lade_config_load(&bare, NULL, place->root, &place->error), LADE_OK);
    for (size_t i = 0; lade_config_each(&bare, i, &key, ours, sizeof ours, &help); i++) {
        lade_config_each(&place->config, i, &key, theirs, sizeof theirs, NULL);
        assert_string_equal(ours, theirs);
        assert_true(strlen(help) > 0);
    }
    lade_config_free(&bare);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_presets_need_no_file),
        TEST(test_file_then_environment_then_flag_wins),
        TEST(test_wrong_files_are_told_with_their_line),
        TEST(test_a_list_of_tokens_is_read_from_the_file_only),
        TEST(test_a_token_in_a_flag_is_blotted_out),
        TEST(test_named_file_has_to_be_there),
        TEST(test_relative_folders_become_absolute),
        TEST(test_folders_are_made_and_closed_to_others),
        TEST(test_daemon_flags),
        TEST(test_shipped_file_has_the_keys_and_presets_of_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
