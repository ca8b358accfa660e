// From argv to a subcommand and back to an exit status.
#include "client/cli/cli.h"

#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "common/buf.h"
#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"

#include <ctype.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------
// Saying things

void
lade_cli_say(const lade_cli_t *cli, const char *format, ...)
{
    if (cli->quiet)
        return;
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

// Whether a code's help tells more than the sentences said with it.
static bool
s_helps(lade_code_t code)
{
    static const lade_code_t telling[] = {
        LADE_UNKNOWN_MODEL, LADE_UNKNOWN_JOB_ID,  LADE_MODEL_NOT_FOUND, LADE_TIMEOUT,
        LADE_QUEUE_FULL,    LADE_PAUSED,          LADE_WORKER_LOST,     LADE_CHILD_FAILED,
        LADE_AUTH_REQUIRED, LADE_DIGEST_MISMATCH, LADE_SIZE_MISMATCH,   LADE_NOT_A_MODEL,
        LADE_UNSAFE_FILE,   LADE_UNSAFE_URL,      LADE_NO_SPACE,        LADE_NO_MEMORY,
        LADE_INTERNAL};
    for (size_t i = 0; i < sizeof telling / sizeof *telling; i++)
        if (telling[i] == code)
            return true;
    return false;
}

void
lade_cli_complain(const char *about, const lade_error_t *error)
{
    enum { S_INDENT = 6 }; // the columns of "lade: "
    const char *message = error->message;
    size_t len = about ? strlen(about) : 0;
    if (len && strncmp(message, about, len) == 0)
        about = NULL; // it names it itself
    char *sentence = NULL;
    if (asprintf(&sentence, "%s%s%s", about ? about : "", about ? ": " : "", message) < 0)
        abort();
    size_t width = isatty(STDERR_FILENO) ? lade_show_columns(STDERR_FILENO) : 0;
    char *wrapped = lade_show_wrap(sentence, width, S_INDENT);
    char *help = lade_show_wrap(lade_code_help(error->code), width, S_INDENT);
    fprintf(stderr, "lade: %s\n", wrapped);
    if (s_helps(error->code))
        fprintf(stderr, "%*s%s\n", S_INDENT, "", help);
    free(help);
    free(wrapped);
    free(sentence);
}

void
lade_cli_print_json(json_t *value)
{
    char *text = lade_request_text(value);
    puts(text ? text : "null");
    fflush(stdout);
    free(text);
    json_decref(value);
}

json_t *
lade_cli_error_json(const lade_error_t *error)
{
    return json_pack("{s:s, s:o, s:s}", "code", lade_code_name(error->code), "message",
                     json_stringn_nocheck(error->message, strlen(error->message)), "help",
                     lade_code_help(error->code));
}

char *
lade_cli_member(const json_t *map, const char *key)
{
    const json_t *value = json_object_get(map, key);
    if (!value || json_is_null(value) || (json_is_object(value) && json_object_size(value) == 0))
        return strdup("");
    if (json_is_string(value))
        return strdup(json_string_value(value));
    char *text = lade_request_text(value);
    if (!json_is_array(value) || !text)
        return text;
    // ["a","b"] reads better as a, b
    lade_buf_t list = LADE_BUF(1 << 20);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *string = json_string_value(json_array_get(value, i));
        char *item = string ? strdup(string) : lade_request_text(json_array_get(value, i));
        lade_buf_addf(&list, NULL, "%s%s", i ? ", " : "", item ? item : "");
        free(item);
    }
    free(text);
    return list.data ? lade_buf_take(&list) : strdup("");
}

// The names of a map's members, "unet, vae": what is in each is for --json.
static char *
s_names(const json_t *map)
{
    lade_buf_t list = LADE_BUF(1 << 20);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
        lade_buf_addf(&list, NULL, "%s%s", list.len ? ", " : "", key);
    char *shown = lade_show_clean(lade_buf_text(&list), 0, false);
    lade_buf_free(&list);
    return shown;
}

// "steps 20, width 512".
static char *
s_settings(const json_t *map)
{
    lade_buf_t list = LADE_BUF(1 << 20);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
    {
        char *text = lade_cli_member(map, key);
        lade_buf_addf(&list, NULL, "%s%s %s", list.len ? ", " : "", key, text);
        free(text);
    }
    char *shown = lade_show_clean(lade_buf_text(&list), 0, false);
    lade_buf_free(&list);
    return shown;
}

// "3.47 billion".
static char *
s_count(double number)
{
    char *text;
    bool billions = number >= 1e9;
    if (asprintf(&text, "%.3g %s", number / (billions ? 1e9 : 1e6),
                 billions ? "billion" : "million") < 0)
        abort();
    return text;
}

// A member as a line of print_members shows it: times, sizes and maps as people read them.
static char *
s_member_shown(const json_t *map, const char *key)
{
    char text[LADE_SHOW_SIZE];
    if (strcmp(key, "submodels") == 0 && json_is_object(json_object_get(map, key)))
        return s_names(json_object_get(map, key));
    size_t len = strlen(key);
    double number = json_number_value(json_object_get(map, key));
    if (number > 0 && len > 3 && strcmp(key + len - 3, "_at") == 0)
        return strdup(lade_show_time(number, text));
    bool settings = strcmp(key, "default_settings") == 0 || strcmp(key, "training") == 0 ||
                    strcmp(key, "preview") == 0;
    if (settings && json_is_object(json_object_get(map, key)))
        return s_settings(json_object_get(map, key));
    if (number >= 1e6 && strcmp(key, "parameters") == 0)
        return s_count(number);
    if (number > 0 && strcmp(key, "file_size") == 0)
        return strdup(lade_show_bytes((int64_t)number, text));
    char *member = lade_cli_member(map, key), *clean = lade_show_clean(member, 0, false);
    free(member);
    return clean;
}

void
lade_cli_print_members(const lade_cli_t *cli, const json_t *map, const char *const *keys)
{
    size_t width = 0;
    for (size_t i = 0; keys[i]; i++) {
        char *text = s_member_shown(map, keys[i]);
        if (*text && strlen(keys[i]) > width)
            width = strlen(keys[i]);
        free(text);
    }
    for (size_t i = 0; keys[i]; i++) {
        char *text = s_member_shown(map, keys[i]);
        char *wrapped = lade_show_wrap(text, cli->width, width + 2);
        if (*text)
            printf("%-*s  %s\n", (int)width, keys[i], wrapped);
        free(wrapped);
        free(text);
    }
}

// ---------------------------------------------------------------------------------------------------
// Asking

lade_code_t
lade_cli_call(lade_cli_t *cli, const char *service, const char *op, json_t *args, json_t **result_p,
              lade_error_t *error)
{
    return lade_request_json(cli->client, service, op, args, NULL, NULL, result_p, error);
}

lade_code_t
lade_cli_list(lade_cli_t *cli, const char *service, const char *op, json_t *args, json_t **array_p,
              lade_error_t *error)
{
    enum { S_PAGE = 1000 };
    json_t *all = json_array();
    size_t got =
        1; // a page may be short because its items are large: only an empty one is the last
    lade_code_t code = LADE_OK;
    while (got && !code) {
        json_t *page = NULL, *ask = args ? json_copy(args) : json_object();
        json_object_set_new(ask, "limit", json_integer(S_PAGE));
        json_object_set_new(ask, "offset", json_integer((json_int_t)json_array_size(all)));
        code = lade_cli_call(cli, service, op, ask, &page, error);
        got = json_array_size(page);
        json_array_extend(all, page);
        json_decref(page);
    }
    json_decref(args);
    if (code) {
        json_decref(all);
        all = NULL;
    }
    *array_p = all;
    return code;
}

lade_code_t
lade_cli_catch(lade_cli_t *cli, lade_error_t *error)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    cli->stop = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (cli->stop < 0)
        return lade_error_set(error, LADE_IO_ERROR, "no descriptor for signals");
    lade_request_set_stop(cli->client, cli->stop);
    return LADE_OK;
}

lade_code_t
lade_cli_set_member(json_t *map, const char *text, lade_error_t *error)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return lade_error_set(error, LADE_USAGE, "'%s' is not of the form name=value", text);
    char *name = strndup(text, (size_t)(equals - text));
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
    if (!value)
        value = json_string(equals + 1);
    int failed = json_object_set_new(map, name, value);
    free(name);
    return failed ? lade_error_set(error, LADE_USAGE, "'%s' is not UTF-8", text) : LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Which record is meant

static lade_code_t
s_one_of(const json_t *records, const char *text, const char *what, char key[LADE_CLI_KEY],
         lade_error_t *error)
{
    if (json_array_size(records) != 1) {
        char keys[320] = "";
        for (size_t i = 0; i < json_array_size(records) && i < 4; i++) {
            const json_t *record = json_array_get(records, i);
            size_t len = strlen(keys);
            snprintf(keys + len, sizeof keys - len, "%s%s %s/%s/%s", i ? ", " : "",
                     lade_json_text(record, "key", "?"), lade_json_text(record, "type", "?"),
                     lade_json_text(record, "base", "?"), lade_json_text(record, "format", "?"));
        }
        return lade_error_set(
            error, LADE_DUPLICATE_MODEL, "%zu records have the %s '%s' (%s%s): give a key",
            json_array_size(records), what, text, keys, json_array_size(records) > 4 ? ", …" : "");
    }
    snprintf(key, LADE_CLI_KEY, "%s", lade_json_text(json_array_get(records, 0), "key", ""));
    return LADE_OK;
}

static bool
s_is_hex(const char *text)
{
    for (; *text; text++)
        if (!isxdigit((unsigned char)*text) || isupper((unsigned char)*text))
            return false;
    return true;
}

// Records whose key begins so.
static lade_code_t
s_key_by_prefix(lade_cli_t *cli, const char *text, json_t **found_p, lade_error_t *error)
{
    enum { S_FEW = 10 }; // one is meant
    json_t *found = NULL;
    lade_code_t code = lade_cli_call(
        cli, "store", "search_by_key",
        json_pack("{s:o, s:i}", "key", json_stringn_nocheck(text, strlen(text)), "limit", S_FEW),
        &found, error);
    *found_p = found;
    return code;
}

lade_code_t
lade_cli_key(lade_cli_t *cli, const char *text, char key[LADE_CLI_KEY], lade_error_t *error)
{
    if (strlen(text) == 32 && s_is_hex(text)) {
        snprintf(key, LADE_CLI_KEY, "%s", text);
        return LADE_OK;
    }
    json_t *found = NULL;
    lade_code_t code = lade_cli_list(
        cli, "store", "search_by_name",
        json_pack("{s:o}", "name", json_stringn_nocheck(text, strlen(text))), &found, error);
    const char *what = "name";
    if (!code && json_array_size(found) == 0 && *text && strlen(text) < LADE_CLI_KEY &&
        (strlen(text) >= 4 || !s_is_hex(text))) {
        json_decref(found);
        what = "beginning";
        code = s_key_by_prefix(cli, text, &found, error);
    }
    if (!code && json_array_size(found) == 0)
        code = lade_error_set(error, LADE_UNKNOWN_MODEL, "no model has the key or the name '%s'",
                              text);
    if (!code)
        code = s_one_of(found, text, what, key, error);
    json_decref(found);
    return code;
}

char *
lade_cli_program(const char *name)
{
    char self[4096], *path = NULL;
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = '\0';
    char *folder = lade_path_folder(self);
    if (asprintf(&path, "%s/lade-%s", folder, name) < 0)
        abort();
    free(folder);
    if (access(path, X_OK) == 0)
        return path;
    free(path);
    char *places = strdup(getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin"), *rest = places;
    for (const char *place = strsep(&rest, ":"); place; place = strsep(&rest, ":")) {
        if (asprintf(&path, "%s/lade-%s", *place ? place : ".", name) < 0)
            abort();
        if (access(path, X_OK) == 0) {
            free(places);
            return path;
        }
        free(path);
    }
    free(places);
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// The program

static lade_code_t
s_find_command(lade_cli_t *cli, lade_error_t *error)
{
    const char *name = cli->args.word_count ? cli->args.words[0] : "help";
    cli->command = lade_commands_find(name);
    if (!cli->command) {
        const char *nearest = lade_commands_nearest(name);
        return lade_error_set(
            error, LADE_USAGE, "there is no command '%s'%s%s%s; `lade help` lists them", name,
            nearest ? " (did you mean " : "", nearest ? nearest : "", nearest ? "?)" : "");
    }
    cli->words = cli->args.words + (cli->args.word_count ? 1 : 0);
    cli->word_count = cli->args.word_count ? cli->args.word_count - 1 : 0;
    if (lade_args_flag(&cli->args, "--help"))
        return LADE_OK;
    if (cli->word_count < cli->command->min || cli->word_count > cli->command->max)
        return lade_error_set(error, LADE_USAGE, "usage: lade %s %s", name, cli->command->usage);
    return LADE_OK;
}

static lade_code_t
s_open(lade_cli_t *cli, lade_error_t *error)
{
    const lade_args_t *args = &cli->args;
    lade_code_t code =
        lade_open(lade_args_text(args, "--config-file", NULL), lade_args_text(args, "--data", NULL),
                  lade_args_text(args, "--broker", NULL), &cli->client, error);
    if (code)
        return code;
    cli->config = lade_request_config(cli->client);
    int level = lade_log_level(cli->config->log_level);
    lade_log_open("lade", level < 0 ? LADE_LOG_INFO : (lade_log_level_t)level);
    return LADE_OK;
}

static lade_code_t
s_run(lade_cli_t *cli, int argc, char **argv, lade_error_t *error)
{
    lade_code_t code =
        lade_args_read(&cli->args, argc, argv, lade_commands_globals, lade_commands_options, error);
    // --json counts even if what follows it is wrong: the error has to be JSON as well.
    cli->json = lade_args_flag(&cli->args, "--json");
    cli->quiet = lade_args_flag(&cli->args, "--quiet");
    cli->terminal = isatty(STDOUT_FILENO) && !cli->json;
    cli->width = cli->terminal ? lade_show_columns(STDOUT_FILENO) : 0;
    if (code)
        return code;
    if (lade_args_flag(&cli->args, "--version")) {
        printf("lade %s\n", LADE_VERSION);
        return LADE_OK;
    }
    code = s_find_command(cli, error);
    if (code)
        return code;
    if (lade_args_flag(&cli->args, "--help")) {
        lade_commands_print_help(cli->args.word_count ? cli->command : NULL, stdout);
        return LADE_OK;
    }
    code = s_open(cli, error);
    return code ? code : cli->command->run(cli, error);
}

int
lade_cli_main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_DFL); // `lade ls | head` just ends
    lade_cli_t cli = {.stop = -1};
    lade_error_t error = {0};
    lade_code_t code = s_run(&cli, argc, argv, &error);
    if (code && !cli.said) {
        if (cli.json)
            lade_cli_print_json(json_pack("{s:o}", "error", lade_cli_error_json(&error)));
        lade_cli_complain(NULL, &error);
    }
    lade_close(&cli.client);
    if (cli.stop >= 0)
        close(cli.stop);
    lade_args_free(&cli.args);
    if (fflush(stdout) != 0 && !code)
        code = LADE_IO_ERROR;
    return lade_code_exit(code);
}
