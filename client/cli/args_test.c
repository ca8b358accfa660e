// Arguments: what is taken, and what is said about what is not.
#include "client/cli/args.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static const lade_option_t s_globals[] = {
    {.name = "--json", .type = LADE_ARG_FLAG, .letter = 'j'},
    {.name = "--data", .value = "DIR", .type = LADE_ARG_TEXT},
    {0},
};
static const lade_option_t s_own[] = {
    {.name = "--count", .value = "N", .type = LADE_ARG_NUMBER, .min = -5, .max = 10},
    {.name = "--rate", .value = "R", .type = LADE_ARG_REAL, .min = 0, .max = 1},
    {.name = "--speed", .value = "B", .type = LADE_ARG_BYTES, .min = 0, .max = 1e15},
    {.name = "--tag", .value = "T", .type = LADE_ARG_TEXT, .many = true},
    {.name = "--token", .value = "T", .type = LADE_ARG_SECRET, .many = true},
    {0},
};

static const lade_option_t *
s_find(const char *command)
{
    return strcmp(command, "go") == 0 ? s_own : NULL;
}

typedef struct {
    lade_args_t args;
    lade_error_t error;
} s_read_t;

// Reads "a b c" as three arguments.
static lade_code_t
s_read(s_read_t *self, char *line)
{
    char *argv[32] = {"lade"};
    int argc = 1;
    for (char *word = strsep(&line, " "); word && argc < 31; word = strsep(&line, " "))
        argv[argc++] = word;
    self->error = (lade_error_t){0};
    return lade_args_read(&self->args, argc, argv, s_globals, s_find, &self->error);
}

static void
test_bytes_have_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes; // -1: refused
    } cases[] = {
        // clang-format off
        {"0", 0},            {"4096", 4096},        {"20M", 20 << 20},  {"20m", 20 << 20},
        {"1.5K", 1536},      {"1GiB", 1 << 30},     {"2T", INT64_C(2) << 40},
        {"", -1},            {"M", -1},             {"-1", -1},         {"20X", -1},
        {"20MB", -1},        {"20Mi", -1},          {"nan", -1},        {"inf", -1},
        {"1e300", -1},       {"20 M", -1},          {"20M/s", -1},
        // clang-format on
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char option[32];
        snprintf(option, sizeof option, "--speed=%s", cases[i].text);
        char *argv[] = {"lade", "go", option};
        lade_args_t args;
        lade_error_t error = {0};
        lade_code_t code = lade_args_read(&args, 3, argv, s_globals, s_find, &error);
        assert_int_equal(code, cases[i].bytes < 0 ? LADE_USAGE : LADE_OK);
        if (!code)
            assert_int_equal(lade_args_bytes(&args, "--speed", -1), cases[i].bytes);
        lade_args_free(&args);
    }
}

static void
test_a_secret_is_blotted_out_of_argv(void **state)
{
    (void)state;
    char separate[] = "s3cret", joined[] = "--token=0ther", file[] = "@a/file", last[] = "--json";
    char *argv[] = {"lade", "go", "--token", separate, joined, "--token", file, last};
    lade_args_t args;
    lade_error_t error = {0};
    assert_int_equal(lade_args_read(&args, 8, argv, s_globals, s_find, &error), LADE_OK);
    assert_string_equal(lade_args_each(&args, "--token", 0), "s3cret");
    assert_string_equal(lade_args_each(&args, "--token", 1), "0ther");
    assert_string_equal(lade_args_each(&args, "--token", 2), "@a/file");
    assert_true(lade_args_flag(&args, "--json"));
    for (size_t i = 0; i < sizeof separate; i++)
        assert_int_equal(separate[i], 0);
    for (size_t i = strlen("--token="); i < sizeof joined; i++)
        assert_int_equal(joined[i], 0);
    assert_string_equal(file, "@a/file"); // the name of a file is no secret
    lade_args_free(&args);
}

static void
test_globals_stand_before_and_after_the_command(void **state)
{
    (void)state;
    s_read_t read;
    char line[] = "--data /x go one --json two --count=3";
    assert_int_equal(s_read(&read, line), LADE_OK);
    assert_int_equal(read.args.word_count, 3);
    assert_string_equal(read.args.words[0], "go");
    assert_string_equal(read.args.words[2], "two");
    assert_true(lade_args_flag(&read.args, "--json"));
    assert_string_equal(lade_args_text(&read.args, "--data", ""), "/x");
    assert_int_equal(lade_args_number(&read.args, "--count", 0), 3);
    assert_int_equal(lade_args_number(&read.args, "--other", 7), 7);
    lade_args_free(&read.args);
}

static void
test_repeated_options_come_in_order(void **state)
{
    (void)state;
    s_read_t read;
    char line[] = "go --tag a --tag=b --rate 0.5 --count -2 -j";
    assert_int_equal(s_read(&read, line), LADE_OK);
    assert_string_equal(lade_args_each(&read.args, "--tag", 0), "a");
    assert_string_equal(lade_args_each(&read.args, "--tag", 1), "b");
    assert_null(lade_args_each(&read.args, "--tag", 2));
    assert_true(lade_args_real(&read.args, "--rate", 0) == 0.5);
    assert_int_equal(lade_args_number(&read.args, "--count", 0), -2);
    assert_true(lade_args_flag(&read.args, "--json"));
    lade_args_free(&read.args);
}

static void
test_two_dashes_end_the_options(void **state)
{
    (void)state;
    s_read_t read;
    char line[] = "go -- --json - -x";
    assert_int_equal(s_read(&read, line), LADE_OK);
    assert_int_equal(read.args.word_count, 4);
    assert_false(lade_args_flag(&read.args, "--json"));
    lade_args_free(&read.args);
}

static void
test_what_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words;
    } rows[] = {
        {"go --jsn", "did you mean --json?"},
        {"go --something-else", "unknown option '--something-else'"},
        {"--count 3 go", "unknown option '--count'"}, // a command's own option comes after it
        {"go --count", "--count wants N"},
        {"go --count x", "'x' is not a number from -5 to 10"},
        {"go --count 11", "'11' is not a number"},
        {"go --count=", "is not a number"},
        {"go --count 99999999999999999999999", "is not a number"},
        {"go --rate nan", "is not a number"},
        {"go --data /x --data /y", "given twice"},
        {"go --json=yes", "takes no value"},
        {"go -x", "unknown option '-x'"},
        {"stay --count 1", "unknown option"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        s_read_t read;
        char line[128];
        snprintf(line, sizeof line, "%s", rows[i].line);
        assert_int_equal(s_read(&read, line), LADE_USAGE);
        if (!strstr(read.error.message, rows[i].words))
            fail_msg("'%s' says: %s", rows[i].line, read.error.message);
        lade_args_free(&read.args);
    }
}

static void
test_too_many_arguments_are_refused(void **state)
{
    (void)state;
    s_read_t read = {0};
    char *argv[LADE_ARGS_MAX + 1];
    for (size_t i = 0; i <= LADE_ARGS_MAX; i++)
        argv[i] = "x";
    assert_int_equal(
        lade_args_read(&read.args, LADE_ARGS_MAX + 1, argv, s_globals, s_find, &read.error),
        LADE_USAGE);
    lade_args_free(&read.args);
}

static void
test_distance_counts_edits(void **state)
{
    (void)state;
    assert_int_equal(lade_args_distance("install", "install"), 0);
    assert_int_equal(lade_args_distance("instal", "install"), 1);
    assert_int_equal(lade_args_distance("", "abc"), 3);
    assert_int_equal(lade_args_distance("kitten", "sitting"), 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_have_units),
        cmocka_unit_test(test_a_secret_is_blotted_out_of_argv),
        cmocka_unit_test(test_globals_stand_before_and_after_the_command),
        cmocka_unit_test(test_repeated_options_come_in_order),
        cmocka_unit_test(test_two_dashes_end_the_options),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_too_many_arguments_are_refused),
        cmocka_unit_test(test_distance_counts_edits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
