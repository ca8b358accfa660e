// lade scan, sync, verify: jobs over many models, and what they found.
#include "client/cli/commands.h"
#include "client/cli/follow.h"
#include "client/cli/show.h"
#include "client/cli/submit.h"
#include "common/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void
s_print_queued(const lade_follow_t *follow, size_t i, lade_buf_t *text)
{
    lade_submit_print_queued(follow, i, text);
}

// Submits install.OP and waits for its job; *result_p is yours, NULL if it was not waited for.
static lade_code_t
s_run(lade_cli_t *cli, const char *name, const char *op, json_t *args, json_t **result_p,
      lade_error_t *error)
{
    *result_p = NULL;
    lade_submit_add_priority(cli, args);
    json_object_set_new(args, "wait", json_false());
    lade_code_t code = lade_cli_catch(cli, error);
    if (code) {
        json_decref(args);
        return code;
    }
    lade_follow_t *follow = lade_follow_new(cli, "install");
    lade_follow_submit(follow, name, op, args);
    bool wait = lade_submit_waits(cli);
    code = lade_follow_submitted(follow, error);
    if (!code && wait)
        code = lade_follow_run(follow, NULL, error);
    if (!code && lade_follow_error(follow, 0)->code) {
        *error = *lade_follow_error(follow, 0);
        code = error->code;
    }
    if (!code && wait)
        *result_p = json_incref(json_object_get(lade_follow_job(follow, 0), "result"));
    else if (!code && cli->json)
        lade_cli_print_json(json_incref((json_t *)lade_follow_job(follow, 0)));
    else if (!code)
        lade_follow_print(follow, s_print_queued);
    lade_follow_destroy(&follow);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Lists

static void
s_print_models(const lade_cli_t *cli, const char *mark, const json_t *models)
{
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *model = json_array_get(models, i);
        char *path = lade_show_clean(lade_json_text(model, "path", "-"), 0, false),
             *name = lade_show_clean(lade_json_text(model, "name", "-"), 0, false);
        printf("%s  %.*s  %s", mark, cli->terminal ? 8 : 32, lade_json_text(model, "key", "-"),
               name);
        if (json_object_get(model, "type"))
            printf("  %s/%s/%s", lade_json_text(model, "type", "-"),
                   lade_json_text(model, "base", "-"), lade_json_text(model, "format", "-"));
        printf("  %s", path);
        if (json_object_get(model, "reason")) {
            char *reason = lade_show_clean(lade_json_text(model, "reason", ""), 0, false);
            printf("  (%s)", reason);
            free(reason);
        }
        putchar('\n');
        free(path);
        free(name);
    }
}

static void
s_complain(const json_t *failed)
{
    for (size_t i = 0; i < json_array_size(failed); i++) {
        const json_t *one = json_array_get(failed, i);
        char *path = lade_show_clean(lade_json_text(one, "path", ""), 0, false),
             *words = lade_show_clean(lade_json_text(one, "error", ""), 0, false);
        fprintf(stderr, "lade: %s: %s\n", path, words);
        free(path);
        free(words);
    }
}

// ---------------------------------------------------------------------------------------------------

// Files that may be an install's own were left alone.
static void
s_say_busy(const lade_cli_t *cli, const json_t *result)
{
    int64_t busy = lade_json_int(result, "busy", 0);
    if (busy)
        lade_cli_say(cli,
                     "%lld that came while an install runs may be its own: do it again afterwards",
                     (long long)busy);
}

lade_code_t
lade_cmd_scan_run(lade_cli_t *cli, lade_error_t *error)
{
    if (lade_args_flag(&cli->args, "--check"))
        return lade_cmd_check_run(cli, error);
    char *dir = realpath(cli->words[0], NULL);
    if (!dir)
        return lade_error_errno(error, errno, "cannot look into %s", cli->words[0]);
    bool dry = lade_args_flag(&cli->args, "--dry-run");
    json_t *args = json_pack("{s:o, s:b, s:b}", "scan_dir", json_stringn_nocheck(dir, strlen(dir)),
                             "install", (int)lade_args_flag(&cli->args, "--install"), "dry_run",
                             (int)dry),
           *result;
    lade_code_t code = s_run(cli, dir, "scan_directory", args, &result, error);
    free(dir);
    if (code || !result)
        return code;
    if (cli->json) {
        lade_cli_print_json(json_incref(result));
    } else {
        s_print_models(cli, dry ? "would add" : "added", json_object_get(result, "added"));
        fflush(stdout);
        s_complain(json_object_get(result, "failed"));
        lade_cli_say(cli, "%lld found: %lld %s, %lld known, %lld failed",
                     (long long)lade_json_int(result, "found", 0),
                     (long long)lade_json_int(result, "added_count", 0),
                     dry ? "would be added" : "added", (long long)lade_json_int(result, "known", 0),
                     (long long)lade_json_int(result, "failed_count", 0));
        s_say_busy(cli, result);
    }
    json_decref(result);
    return LADE_OK;
}

lade_code_t
lade_cmd_scan_sync(lade_cli_t *cli, lade_error_t *error)
{
    static const struct {
        const char *list, *mark, *dry_mark;
    } rows[] = {
        // clang-format off
        {"added",        "added",        "would add"},
        {"relinked",     "relinked",     "would relink"},
        {"missing",      "missing",      "missing"},
        {"unavailable",  "unavailable",  "unavailable"},
        {"unregistered", "unregistered", "would unregister"},
        // clang-format on
    };
    bool dry = lade_args_flag(&cli->args, "--dry-run"),
         unregister = lade_args_flag(&cli->args, "--unregister");
    json_t *args = json_pack("{s:b, s:b}", "unregister", (int)unregister, "dry_run", (int)dry),
           *result;
    lade_code_t code = s_run(cli, "sync", "sync_to_config", args, &result, error);
    if (code || !result)
        return code;
    if (cli->json) {
        lade_cli_print_json(json_incref(result));
    } else {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            s_print_models(cli, dry ? rows[i].dry_mark : rows[i].mark,
                           json_object_get(result, rows[i].list));
        fflush(stdout);
        s_complain(json_object_get(result, "failed"));
        int64_t missing = lade_json_int(result, "missing_count", 0);
        lade_cli_say(cli, "%lld added, %lld relinked, %lld missing, %lld unavailable",
                     (long long)lade_json_int(result, "added_count", 0),
                     (long long)lade_json_int(result, "relinked_count", 0), (long long)missing,
                     (long long)lade_json_int(result, "unavailable_count", 0));
        s_say_busy(cli, result);
        if (missing && !unregister)
            lade_cli_say(cli, "`lade sync --unregister` removes the records of what is missing");
    }
    json_decref(result);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------

static lade_code_t
s_keys(lade_cli_t *cli, json_t *args, lade_error_t *error)
{
    json_t *keys = json_array();
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < cli->word_count && !code; i++) {
        char key[LADE_CLI_KEY];
        code = lade_cli_key(cli, cli->words[i], key, error);
        if (!code)
            json_array_append_new(keys, json_string(key));
    }
    if (json_array_size(keys))
        json_object_set(args, "keys", keys);
    json_decref(keys);
    return code;
}

static void
s_print_verified(const lade_cli_t *cli, const json_t *result)
{
    const json_t *bad = json_object_get(result, "bad");
    for (size_t i = 0; i < json_array_size(bad); i++) {
        const json_t *one = json_array_get(bad, i);
        char *file = lade_show_clean(lade_json_text(one, "file", ""), 0, false),
             *words = lade_show_clean(lade_json_text(one, "words", ""), 0, false);
        printf("%s  %.*s  %s: %s\n", lade_json_text(one, "problem", "bad"), cli->terminal ? 8 : 32,
               lade_json_text(one, "key", "-"), file, words);
        free(file);
        free(words);
    }
    s_print_models(cli, "unverified", json_object_get(result, "unverified"));
    fflush(stdout);
    char size[LADE_SHOW_SIZE];
    lade_cli_say(
        cli, "%lld models, %lld files, %s: %lld as they should be, %lld of them by samples only",
        (long long)lade_json_int(result, "checked", 0),
        (long long)lade_json_int(result, "files", 0),
        lade_show_bytes(lade_json_int(result, "bytes", 0), size),
        (long long)lade_json_int(result, "ok", 0),
        (long long)lade_json_int(result, "unverified_count", 0));
    if (lade_json_int(result, "unverified_count", 0))
        lade_cli_say(cli, "`lade verify --record` reads those whole and stores the sha256 of each "
                          "file for later");
    if (lade_json_int(result, "recorded_count", 0))
        lade_cli_say(cli, "the sha256 of %lld models is recorded now",
                     (long long)lade_json_int(result, "recorded_count", 0));
}

lade_code_t
lade_cmd_scan_verify(lade_cli_t *cli, lade_error_t *error)
{
    json_t *args = json_pack("{s:b}", "record", (int)lade_args_flag(&cli->args, "--record")),
           *result;
    lade_code_t code = s_keys(cli, args, error);
    if (code) {
        json_decref(args);
        return code;
    }
    code = s_run(cli, "verify", "verify", args, &result, error);
    if (code || !result)
        return code;
    if (cli->json)
        lade_cli_print_json(json_incref(result));
    else
        s_print_verified(cli, result);
    int64_t bad = lade_json_int(result, "bad_count", 0);
    json_decref(result);
    if (!bad)
        return LADE_OK;
    lade_error_set(error, LADE_CORRUPT, "%lld of the files are not what they should be",
                   (long long)bad);
    lade_cli_complain(NULL, error); // standard output has the result
    cli->said = true;
    return LADE_CORRUPT;
}
