// lade install.
#include "client/cli/commands.h"
#include "client/cli/follow.h"
#include "client/cli/show.h"
#include "client/cli/submit.h"
#include "client/outcome.h"
#include "client/request.h"
#include "common/formats/safety.h"
#include "common/identify/identify.h"
#include "common/path.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static json_t *
s_text(const char *text)
{
    return json_stringn_nocheck(text, strlen(text));
}

// ---------------------------------------------------------------------------------------------------
// install

// The path as it is named, made absolute: what a link points to is not what is moved.
static char *
s_named(const char *word)
{
    char *folder = lade_path_folder(word), *name = lade_path_name(word);
    char *real = realpath(folder, NULL), *whole = real ? lade_path_join(real, name) : strdup(word);
    free(real);
    free(name);
    free(folder);
    return whole;
}

// Paths of this process mean nothing to a worker with another working folder. You free it; NULL
// with an error for what is clearly a path and not there.
static char *
s_source(const char *word, lade_error_t *error)
{
    if (access(word, F_OK) == 0) {
        char *whole = realpath(word, NULL);
        if (!whole)
            lade_error_set(error, LADE_NOT_FOUND, "%s cannot be followed to a file or folder",
                           word);
        return whole;
    }
    if (*word == '/' || strncmp(word, "./", 2) == 0 || strncmp(word, "../", 3) == 0) {
        lade_error_set(error, LADE_NOT_FOUND, "there is no file or folder %s", word);
        return NULL;
    }
    return strdup(word);
}

static lade_code_t
s_overrides(const lade_cli_t *cli, json_t **map_p, lade_error_t *error)
{
    *map_p = json_object();
    const char *text;
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && (text = lade_args_each(&cli->args, "--config", i)); i++)
        code = lade_cli_set_member(*map_p, text, error);
    if (lade_args_flag(&cli->args, "--quarantine"))
        json_object_set_new(*map_p, "quarantined", json_true());
    return code;
}

static lade_code_t
s_install_args(const lade_cli_t *cli, json_t **args_p, lade_error_t *error)
{
    json_t *overrides;
    *args_p = json_object();
    lade_code_t code = s_overrides(cli, &overrides, error);
    if (json_object_size(overrides))
        json_object_set(*args_p, "config", overrides);
    json_decref(overrides);
    if (lade_args_flag(&cli->args, "--inplace"))
        json_object_set_new(*args_p, "inplace", json_true());
    if (lade_args_flag(&cli->args, "--move"))
        json_object_set_new(*args_p, "move", json_true());
    const char *again = lade_args_text(&cli->args, "--again", NULL);
    if (again)
        json_object_set_new(*args_p, "on_equal", s_text(again));
    lade_submit_add_priority(cli, *args_p);
    return code ? code : lade_submit_add_token(cli, *args_p, error);
}

static void
s_print_installed(const lade_follow_t *follow, size_t i, lade_buf_t *text)
{
    const json_t *record = json_object_get(lade_follow_job(follow, i), "config_out");
    if (!json_is_object(record)) {
        lade_submit_print_queued(follow, i, text);
        return;
    }
    char *path = lade_show_clean(lade_json_text(record, "path", "-"), 0, false);
    char *name = lade_show_clean(lade_json_text(record, "name", "-"), 0, false);
    // A pipe gets the whole key: it is likely to be used.
    lade_buf_addf(text, NULL, "%.*s  %s  %s/%s/%s  %s\n", lade_follow_terminal(follow) ? 8 : 32,
                  lade_json_text(record, "key", "-"), name, lade_json_text(record, "type", "-"),
                  lade_json_text(record, "base", "-"), lade_json_text(record, "format", "-"), path);
    free(path);
    free(name);
}

// What an install of a path would do. Needs no broker.
static lade_code_t
s_local_plan(const lade_cli_t *cli, const lade_identify_t *rules, const char *source,
             const json_t *args, json_t **plan_p, lade_error_t *error)
{
    json_t *found = NULL;
    lade_code_t code =
        lade_identify_path(rules, source, json_object_get(args, "config"), &found, error);
    const json_t *unsafe = code ? NULL : json_object_get(found, "unsafe");
    char words[400];
    if (unsafe && !lade_json_bool(found, "quarantined", false)) {
        code = lade_error_set(error, LADE_UNSAFE_FILE,
                              "it would run code when loaded: %s; --quarantine installs it all "
                              "the same, to be loaded only where allow_unsafe names it",
                              lade_safety_words(unsafe, words, sizeof words));
        json_decref(found);
    }
    if (code)
        return code;
    char *place = NULL;
    if (lade_args_flag(&cli->args, "--inplace"))
        place = strdup(source);
    else if (asprintf(&place, "%s/%s/%s/%s", cli->config->models_dir,
                      lade_json_text(found, "base", "any"), lade_json_text(found, "type", "main"),
                      strrchr(source, '/') + 1) < 0)
        abort();
    json_int_t bytes = lade_path_size(source);
    *plan_p =
        json_pack("{s:o, s:s, s:o, s:[{s:o, s:n, s:I, s:n}], s:I, s:o}", "source", s_text(source),
                  "kind", "local", "path", s_text(place), "files", "path", s_text(source), "url",
                  "size", bytes, "sha256", "bytes", bytes, "config", found);
    free(place);
    return LADE_OK;
}

// What an install of a repository or URL would fetch: the worker's answer.
static lade_code_t
s_remote_plan(lade_cli_t *cli, const char *source, const json_t *args, json_t **plan_p,
              lade_error_t *error)
{
    bool url = strncasecmp(source, "http", 4) == 0 && strstr(source, "://");
    json_t *job = NULL, *ended = NULL, *asked = json_copy((json_t *)args);
    json_object_set_new(asked, "source", s_text(source));
    json_object_set_new(asked, "dry_run", json_true());
    lade_t *client = cli->client;
    lade_code_t code =
        lade_request_json(client, "install", "heuristic_import", asked, NULL, NULL, &job, error);
    if (!code) {
        asked = json_pack("{s:I}", "id", (json_int_t)lade_json_int(job, "id", -1));
        code =
            lade_request_json(client, "install", "wait_for_job", asked, NULL, NULL, &ended, error);
    }
    if (!code)
        code = lade_outcome_error(ended, error);
    if (!code) {
        *plan_p = json_pack("{s:o, s:s}", "source", s_text(source), "kind", url ? "url" : "hf");
        json_object_update(*plan_p, json_object_get(ended, "result"));
    }
    json_decref(job);
    json_decref(ended);
    return code;
}

static void
s_print_files(const json_t *plan)
{
    const json_t *files = json_object_get(plan, "files");
    char size[LADE_SHOW_SIZE];
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *file = json_array_get(files, i);
        char *path = lade_show_clean(lade_json_text(file, "path", lade_json_text(file, "url", "-")),
                                     0, false);
        int64_t bytes = lade_json_int(file, "size", -1);
        printf("%10s  %s\n", bytes < 0 ? "?" : lade_show_bytes(bytes, size), path);
        free(path);
    }
    printf("%10s  in %zu file%s\n", lade_show_bytes(lade_json_int(plan, "bytes", 0), size),
           json_array_size(files), json_array_size(files) == 1 ? "" : "s");
}

static void
s_print_plan(const json_t *plan)
{
    const json_t *found = json_object_get(plan, "config");
    char *source = lade_show_clean(lade_json_text(plan, "source", ""), 0, false),
         size[LADE_SHOW_SIZE];
    if (found) {
        printf("%s  %s/%s/%s  %s  to %s\n", source, lade_json_text(found, "type", "-"),
               lade_json_text(found, "base", "-"), lade_json_text(found, "format", "-"),
               lade_show_bytes(lade_json_int(plan, "bytes", 0), size),
               lade_json_text(plan, "path", "-"));
    } else {
        printf("%s  would fetch\n", source);
        s_print_files(plan);
    }
    free(source);
}

static lade_code_t
s_plan(lade_cli_t *cli, lade_identify_t **rules_p, const char *source, const json_t *args,
       json_t **plan_p, lade_error_t *error)
{
    if (*source != '/')
        return s_remote_plan(cli, source, args, plan_p, error);
    lade_code_t code = *rules_p ? LADE_OK : lade_identify_by_config(cli->config, rules_p, error);
    return code ? code : s_local_plan(cli, *rules_p, source, args, plan_p, error);
}

// One source is shown as its plan, several as an array of them.
static lade_code_t
s_dry_run(lade_cli_t *cli, const json_t *args, lade_error_t *error)
{
    lade_identify_t *rules = NULL;
    lade_code_t code = LADE_OK;
    json_t *plans = json_array();
    for (size_t i = 0; i < cli->word_count && !code; i++) {
        json_t *plan = NULL;
        char *source = s_source(cli->words[i], error);
        code = source ? s_plan(cli, &rules, source, args, &plan, error) : error->code;
        if (!code && !cli->json)
            s_print_plan(plan);
        if (plan)
            json_array_append_new(plans, plan);
        free(source);
    }
    if (cli->json && !code)
        lade_cli_print_json(json_incref(cli->word_count == 1 ? json_array_get(plans, 0) : plans));
    json_decref(plans);
    lade_identify_destroy(&rules);
    return code;
}

// What was moved leaves its old place by a job of its own, after the record: that it could not is
// worth an error.
static lade_code_t
s_wait_for_move(lade_cli_t *cli, const char *source, lade_error_t *error)
{
    json_t *jobs = NULL, *ended = NULL;
    lade_code_t code = lade_request_json(cli->client, "jobs", "list",
                                         json_pack("{s:s, s:i}", "kind", "discard", "limit", 10000),
                                         NULL, NULL, &jobs, error);
    for (size_t i = json_array_size(jobs); !code && i-- > 0;) {
        const json_t *job = json_array_get(jobs, i);
        if (strcmp(lade_json_text(job, "source", ""), source) != 0)
            continue;
        code = lade_request_json(cli->client, "jobs", "wait",
                                 json_pack("{s:I}", "id", (json_int_t)lade_json_int(job, "id", 0)),
                                 NULL, NULL, &ended, error);
        if (!code && lade_outcome_error(ended, error))
            code =
                lade_error_wrap(error, "%s is installed, but not gone from its old place", source);
        break;
    }
    json_decref(ended);
    json_decref(jobs);
    return code;
}

static lade_code_t
s_install(lade_cli_t *cli, const json_t *args, lade_error_t *error)
{
    lade_code_t code = lade_cli_catch(cli, error);
    bool move = lade_args_flag(&cli->args, "--move");
    lade_follow_t *follow = lade_follow_new(cli, "install");
    for (size_t i = 0; i < cli->word_count && !code; i++) {
        char *source = move ? s_named(cli->words[i]) : s_source(cli->words[i], error);
        if (!source) {
            code = error->code;
            break;
        }
        json_t *own = json_copy((json_t *)args);
        json_object_set_new(own, "source", s_text(source));
        lade_follow_submit(follow, cli->words[i], "heuristic_import", own);
        free(source);
    }
    if (!code)
        code = lade_submit_follow(cli, follow, s_print_installed, error);
    lade_follow_destroy(&follow);
    move = move && lade_submit_waits(cli);
    for (size_t i = 0; move && i < cli->word_count && !code; i++) {
        char *source = s_named(cli->words[i]);
        code = s_wait_for_move(cli, source, error);
        free(source);
    }
    return code;
}

lade_code_t
lade_cmd_install_run(lade_cli_t *cli, lade_error_t *error)
{
    json_t *args;
    lade_code_t code = s_install_args(cli, &args, error);
    if (!code)
        code = lade_args_flag(&cli->args, "--dry-run") ? s_dry_run(cli, args, error)
                                                       : s_install(cli, args, error);
    json_decref(args);
    return code;
}
