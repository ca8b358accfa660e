// Tokens of the configuration: what is one, which entry of the list is meant, which file is read.
#include "common/tokens.h"

#include "common/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char *root;
    lade_remote_tokens_t list;
    lade_error_t error;
} s_place_t;

static int
s_set_up(void **state)
{
    s_place_t *place = calloc(1, sizeof *place);
    const char *tmp = getenv("TMPDIR");
    place->root = lade_path_join(tmp ? tmp : "/tmp", "lade-tokens-XXXXXX");
    if (!mkdtemp(place->root))
        return -1;
    setenv("HOME", place->root, 1);
    unsetenv("HF_HOME");
    *state = place;
    return 0;
}

static int
s_tear_down(void **state)
{
    s_place_t *place = *state;
    lade_tokens_free(&place->list);
    lade_path_remove(place->root, NULL);
    free(place->root);
    free(place);
    return 0;
}

static char *
s_write(s_place_t *place, const char *name, const char *text)
{
    char *path = lade_path_join(place->root, name), *folder = lade_path_folder(path);
    if (lade_path_mkdirs(folder, 0700, &place->error) ||
        lade_path_write(path, text, strlen(text), 0600, &place->error))
        fail_msg("%s", place->error.message);
    free(folder);
    return path;
}

static void
s_expect_clean(const char *text, const char *wanted)
{
    char *token = lade_tokens_clean(text);
    if (wanted)
        assert_string_equal(token, wanted);
    else
        assert_null(token);
    lade_tokens_wipe(&token);
    assert_null(token);
}

// ---------------------------------------------------------------------------------------------------

static void
test_a_token_is_one_word_of_ascii(void **state)
{
    (void)state;
    s_expect_clean("hf_x", "hf_x");
    s_expect_clean("  hf_x\r\n", "hf_x");
    s_expect_clean("!~", "!~");
    s_expect_clean("", NULL);
    s_expect_clean(" \n", NULL);
    s_expect_clean("two words", NULL);
    s_expect_clean("a\r\nHost: x", NULL);
    s_expect_clean("a\x7f", NULL);
    s_expect_clean("\xc3\xa4", NULL);
    char longest[LADE_TOKENS_MAX + 2];
    memset(longest, 'x', sizeof longest);
    longest[LADE_TOKENS_MAX + 1] = '\0';
    s_expect_clean(longest, NULL);
    longest[LADE_TOKENS_MAX] = '\0';
    s_expect_clean(longest, longest);
}

static void
test_a_token_that_others_repeat_is_hidden(void **state)
{
    (void)state;
    static const struct {
        const char *text, *token, *hidden;
    } rows[] = {
        {"no hf_s3cret42 here, hf_s3cret42", "hf_s3cret42", "no *********** here, ***********"},
        {"cut: hf_s3cret", "hf_s3cret42", "cut: *********"},
        {"cut: hf_s3cr", "hf_s3cret42", "cut: hf_s3cr"}, // nobody's yet
        {"hf_s3creX hf_s3cret4X", "hf_s3cret42", "********X **********X"},
        {"abcabc", "abc", "******"},
        {"abab", "aba", "***b"},
        {"", "abc", ""},
        {"abc", "", "abc"},
        {"abc", NULL, "abc"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s", rows[i].text);
        lade_tokens_hide(text, strlen(text), rows[i].token,
                         rows[i].token ? strlen(rows[i].token) : 0);
        assert_string_equal(text, rows[i].hidden);
    }
}

static void
s_expect_refused(s_place_t *place, const char *regex, const char *token, const char *file,
                 const char *words)
{
    size_t before = place->list.count;
    assert_int_equal(lade_tokens_add(&place->list, regex, token, file, &place->error),
                     LADE_CONFIG_ERROR);
    if (!strstr(place->error.message, words))
        fail_msg("'%s' lacks '%s'", place->error.message, words);
    assert_null(strstr(place->error.message, "s3cret"));
    assert_int_equal(place->list.count, before);
}

static void
test_wrong_entries_are_refused(void **state)
{
    s_place_t *place = *state;
    s_expect_refused(place, NULL, "s3cret", NULL, "wants url_regex");
    s_expect_refused(place, "", "s3cret", NULL, "wants url_regex");
    s_expect_refused(place, "a", NULL, NULL, "one of token and token_file");
    s_expect_refused(place, "a", "s3cret", "/f", "one of token and token_file");
    s_expect_refused(place, "a", "s3cret word", NULL, "one word");
    s_expect_refused(place, "a", "", NULL, "one word");
    s_expect_refused(place, "a", NULL, "f", "begins with / or ~/");
    s_expect_refused(place, "a(", "s3cret", NULL, "'a(' does not compile: ");
    s_expect_refused(place, "[", "s3cret", NULL, "does not compile: ");
    for (int i = 0; i < LADE_TOKENS_MAX_ENTRIES; i++)
        assert_int_equal(lade_tokens_add(&place->list, "a", "t", NULL, &place->error), LADE_OK);
    s_expect_refused(place, "a", "s3cret", NULL, "at most");
}

static void
test_the_first_expression_found_is_meant(void **state)
{
    s_place_t *place = *state;
    static const char *const expressions[] = {"^https://one\\.example/", "two\\.example/(a|b)+$",
                                              "\\?type=Model", "three"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(lade_tokens_add(&place->list, expressions[i], "t", NULL, &place->error),
                         LADE_OK);
    static const struct {
        const char *url;
        int entry; // -1: none
    } rows[] = {
        // clang-format off
        {"https://one.example/x",              0},
        {"http://one.example/x",              -1},
        {"https://x/https://one.example/",    -1},
        {"https://two.example/abab",           1},
        {"https://two.example/abc",           -1},
        {"https://x/y?type=Model&z=three",     2},
        {"https://x/three",                    3},
        {"https://three@x/",                  -1},
        {"https://u:three@x/y",               -1},
        {"https://three@x@three/y",            3},
        {"https://x/y@three",                  3},
        {"",                                  -1},
        {"three",                              3},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const lade_remote_token_t *found = lade_tokens_match(&place->list, rows[i].url);
        if (rows[i].entry < 0 ? found != NULL : found != &place->list.items[rows[i].entry])
            fail_msg("%s", rows[i].url);
    }
}

static void
test_a_file_holds_one_token(void **state)
{
    s_place_t *place = *state;
    char *path = s_write(place, "token", " s3cret\n"), *token;
    assert_int_equal(lade_tokens_read(path, &token, &place->error), LADE_OK);
    assert_string_equal(token, "s3cret");
    lade_tokens_wipe(&token);
    assert_int_equal(lade_tokens_read("~/token", &token, &place->error), LADE_OK);
    assert_string_equal(token, "s3cret");
    lade_tokens_wipe(&token);
    free(path);
    static const char *const wrong[] = {"", "\n", "s3cret words", "s3cret\nX: y\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        free(s_write(place, "token", wrong[i]));
        assert_int_equal(lade_tokens_read("~/token", &token, &place->error), LADE_CONFIG_ERROR);
        assert_null(token);
        assert_non_null(strstr(place->error.message, "holds no token"));
        assert_null(strstr(place->error.message, "s3cret"));
    }
    assert_int_equal(lade_tokens_read("/nowhere/token", &token, &place->error), LADE_CONFIG_ERROR);
    assert_non_null(strstr(place->error.message, "/nowhere/token"));
    assert_null(token);
}

static void
s_expect_of_hub(const char *setting, const char *file, const char *wanted)
{
    char *token = lade_tokens_of_hub(setting, file);
    if (wanted)
        assert_string_equal(token, wanted);
    else
        assert_null(token);
    lade_tokens_wipe(&token);
}

static void
test_the_hubs_token_is_the_nearest(void **state)
{
    s_place_t *place = *state;
    s_expect_of_hub("", "", NULL);
    s_expect_of_hub(NULL, NULL, NULL);
    free(s_write(place, ".cache/huggingface/token", "of_home\n"));
    s_expect_of_hub("", "", "of_home");
    char *folder = lade_path_join(place->root, "hf"), *file = s_write(place, "file", "of_file");
    setenv("HF_HOME", folder, 1);
    s_expect_of_hub("", "", NULL); // whoever moves it has none at home
    free(s_write(place, "hf/token", "of_hf"));
    s_expect_of_hub("", "", "of_hf");
    s_expect_of_hub("", file, "of_file");
    s_expect_of_hub("", "/nowhere", NULL);
    s_expect_of_hub("set", file, "set");
    s_expect_of_hub("two words", file, NULL);
    unsetenv("HF_HOME");
    free(folder);
    free(file);
}

static void
test_a_guarded_process_cannot_be_dumped(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        lade_tokens_guard_process();
        _exit(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    child = fork();
    if (child == 0) {
        char *text = NULL;
        lade_tokens_guard_core();
        bool seen = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1; // /proc/PID/fd stays open to others
        FILE *in = fopen("/proc/self/coredump_filter", "r");
        size_t size = 0;
        bool none = in && getline(&text, &size, in) > 0 && strtoul(text, NULL, 16) == 0;
        _exit(seen && none ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_set_up, s_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_token_is_one_word_of_ascii),
        TEST(test_a_token_that_others_repeat_is_hidden),
        TEST(test_wrong_entries_are_refused),
        TEST(test_the_first_expression_found_is_meant),
        TEST(test_a_file_holds_one_token),
        TEST(test_the_hubs_token_is_the_nearest),
        TEST(test_a_guarded_process_cannot_be_dumped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
