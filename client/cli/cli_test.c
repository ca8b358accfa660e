// The program as a whole, against a broker of our own.
#include "client/cli/cli.h"

#include "client/cli/commands.h"
#include "client/fake_test.h"

// cmocka wants these before it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    fake_t fake;
    char out[8192]; // standard output of the last command
} s_world_t;

static int
s_open(void **state)
{
    s_world_t *self = calloc(1, sizeof *self);
    fake_open(&self->fake);
    *state = self;
    return 0;
}

static int
s_close(void **state)
{
    s_world_t *self = *state;
    fake_close(&self->fake);
    free(self);
    return 0;
}

// Runs `lade --data FOLDER WORDS…`; returns the exit status.
static int
s_lade(s_world_t *self, const char *words)
{
    char line[512], path[128], *argv[32] = {"lade", "--data", self->fake.folder}, *rest = line;
    int argc = 3;
    snprintf(line, sizeof line, "%s", words);
    for (char *word = strsep(&rest, " "); word && argc < 31; word = strsep(&rest, " "))
        argv[argc++] = word;
    snprintf(path, sizeof path, "%s/out", self->fake.folder);
    fflush(stdout);
    int kept = dup(STDOUT_FILENO), file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(file, STDOUT_FILENO);
    int status = lade_cli_main(argc, argv);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    ssize_t len = pread(file, self->out, sizeof self->out - 1, 0);
    self->out[len > 0 ? len : 0] = '\0';
    close(kept);
    close(file);
    return status;
}

static void
s_check_error(s_world_t *self, const char *code)
{
    json_t *answer = json_loads(self->out, 0, NULL);
    assert_non_null(answer);
    const json_t *error = json_object_get(answer, "error");
    assert_string_equal(lade_json_text(error, "code", ""), code);
    assert_true(*lade_json_text(error, "message", "") && *lade_json_text(error, "help", ""));
    json_decref(answer);
}

static const char *const s_keys[] = {"0123456789abcdef0123456789abcdef",
                                     "0123ffff89abcdef0123456789abcdef",
                                     "deadbeef89abcdef0123456789abcdef"};

static void
s_add_models(s_world_t *self)
{
    static const char *const names[] = {"one", "two", "two"};
    for (size_t i = 0; i < 3; i++) {
        char command[128];
        snprintf(command, sizeof command, "model %s %s", s_keys[i], names[i]);
        fake_do(&self->fake, command);
    }
}

static void
test_a_key_is_found_by_key_beginning_or_name(void **state)
{
    s_world_t *self = *state;
    s_add_models(self);
    static const struct {
        const char *text;
        lade_code_t code;
        int which;
    } rows[] = {
        {"0123456789abcdef0123456789abcdef", LADE_OK, 0},
        {"01234", LADE_OK, 0},
        {"dead", LADE_OK, 2},
        {"one", LADE_OK, 0},
        {"two", LADE_DUPLICATE_MODEL, 0},
        {"0123", LADE_DUPLICATE_MODEL, 0},
        {"dea", LADE_UNKNOWN_MODEL, 0},
        {"DEADBEEF", LADE_UNKNOWN_MODEL, 0},
        {"three", LADE_UNKNOWN_MODEL, 0},
        {"", LADE_UNKNOWN_MODEL, 0},
    };
    lade_cli_t cli = {.stop = -1};
    assert_int_equal(lade_open(NULL, self->fake.folder, NULL, &cli.client, NULL), LADE_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char key[LADE_CLI_KEY] = "";
        lade_error_t error = {0};
        assert_int_equal(lade_cli_key(&cli, rows[i].text, key, &error), rows[i].code);
        assert_string_equal(key, rows[i].code ? "" : s_keys[rows[i].which]);
    }
    lade_close(&cli.client);
}

static void
test_lists_are_read_page_after_page(void **state)
{
    s_world_t *self = *state;
    for (int i = 0; i < 1005; i++) {
        char command[128];
        snprintf(command, sizeof command, "model %032x many", i);
        fake_do(&self->fake, command);
    }
    lade_cli_t cli = {.stop = -1};
    json_t *all = NULL;
    assert_int_equal(lade_open(NULL, self->fake.folder, NULL, &cli.client, NULL), LADE_OK);
    assert_int_equal(lade_cli_list(&cli, "store", "all_models", NULL, &all, NULL), LADE_OK);
    assert_int_equal(json_array_size(all), 1005);
    json_decref(all);
    lade_close(&cli.client);
}

static void
test_ls_prints_one_document_or_a_table(void **state)
{
    s_world_t *self = *state;
    s_add_models(self);
    assert_int_equal(s_lade(self, "ls --json"), 0);
    json_t *records = json_loads(self->out, 0, NULL);
    assert_int_equal(json_array_size(records), 3);
    json_decref(records);
    assert_int_equal(s_lade(self, "ls"), 0);
    assert_non_null(strstr(self->out, "KEY"));
    assert_non_null(strstr(self->out, s_keys[2])); // whole, where nobody's screen is too narrow
}

static void
test_failures_have_their_status_and_are_json_too(void **state)
{
    s_world_t *self = *state;
    assert_int_equal(s_lade(self, "show nothing --json"), 3);
    s_check_error(self, "UnknownModel");
    assert_int_equal(s_lade(self, "--json lss"), 2);
    s_check_error(self, "usage");
    assert_int_equal(s_lade(self, "ls --json --nothing"), 2);
    s_check_error(self, "usage");
    assert_int_equal(s_lade(self, "show"), 2);
    assert_string_equal(self->out, "");
    assert_int_equal(s_lade(self, "pause"), 2);
    assert_int_equal(s_lade(self, "pause 1 --all"), 2);
    assert_int_equal(s_lade(self, "cancel x"), 2);
    assert_int_equal(s_lade(self, "install ./not-there"), 3);
    assert_int_equal(s_lade(self, "edit one name"), 2);
    assert_int_equal(s_lade(self, "up --without broker"), 2);
    assert_int_equal(s_lade(self, "up --set nothing=1"), 2);
    fake_do(&self->fake, "stop");
    assert_int_equal(s_lade(self, "ls --json"), 4);
    s_check_error(self, "broker_unreachable");
}

static void
test_probe_says_what_it_is_about_when_it_fails(void **state)
{
    s_world_t *self = *state;
    assert_int_equal(s_lade(self, "probe /etc/hostname --json"), 1);
    s_check_error(self, "InvalidModelConfig");
    assert_non_null(strstr(self->out, "{\"path\":\"/etc/hostname\","));
    assert_int_equal(s_lade(self, "probe /no/such/file --json"), 3);
    s_check_error(self, "not_found");
}

static void
test_install_without_waiting_prints_the_jobs(void **state)
{
    s_world_t *self = *state;
    assert_int_equal(s_lade(self, "install a/b --no-wait --json --config name=x --priority 3"), 0);
    json_t *jobs = json_loads(self->out, 0, NULL);
    assert_int_equal(json_array_size(jobs), 1);
    assert_string_equal(lade_json_text(json_array_get(jobs, 0), "source", ""), "a/b");
    json_decref(jobs);
}

static void
test_watch_prints_a_line_an_event(void **state)
{
    s_world_t *self = *state;
    fake_do(&self->fake, "lose model_record_added abc");
    fake_do(&self->fake, "lose model_install_completed 7");
    assert_int_equal(s_lade(self, "watch --since 0 --count 2 --json"), 0);
    char *second = strchr(self->out, '\n') + 1;
    second[-1] = '\0';
    json_t *event = json_loads(self->out, 0, NULL);
    assert_int_equal(lade_json_int(event, "seq", 0), 1);
    json_decref(event);
    assert_non_null(strstr(second, "model_install_completed"));
    assert_int_equal(s_lade(self, "watch model_record --since 0 --count 1"), 0);
    assert_non_null(strstr(self->out, "model_record_added"));
}

static void
test_every_command_has_its_help(void **state)
{
    s_world_t *self = *state;
    assert_int_equal(s_lade(self, "help"), 0);
    char all[sizeof self->out], *rest = all;
    snprintf(all, sizeof all, "%s", self->out);
    size_t count = 0;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
        char name[32], command[64];
        if (sscanf(line, "  %31[a-z]  %*s", name) != 1 || !lade_commands_find(name))
            continue;
        count++;
        snprintf(command, sizeof command, "help %s", name);
        assert_int_equal(s_lade(self, command), 0);
        snprintf(command, sizeof command, "usage: lade %s ", name);
        assert_ptr_equal(strstr(self->out, command), self->out);
    }
    assert_true(count > 20);
    assert_string_equal(lade_commands_nearest("instal"), "install");
    assert_null(lade_commands_nearest("something"));
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, s_open, s_close)
    const struct CMUnitTest tests[] = {
        TEST(test_a_key_is_found_by_key_beginning_or_name),
        TEST(test_lists_are_read_page_after_page),
        TEST(test_ls_prints_one_document_or_a_table),
        TEST(test_failures_have_their_status_and_are_json_too),
        TEST(test_probe_says_what_it_is_about_when_it_fails),
        TEST(test_install_without_waiting_prints_the_jobs),
        TEST(test_watch_prints_a_line_an_event),
        TEST(test_every_command_has_its_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
