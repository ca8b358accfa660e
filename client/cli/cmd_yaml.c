// lade export-yaml, import-yaml.
#include "client/cli/commands.h"
#include "common/path.h"
#include "common/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Replacing a file is asked for: what is there may have been edited by hand.
static lade_code_t
s_write_file(const lade_cli_t *cli, const char *path, const char *text, lade_error_t *error)
{
    if (access(path, F_OK) == 0 && !lade_args_flag(&cli->args, "--overwrite"))
        return lade_error_set(error, LADE_EXISTS,
                              "%s is there already: choose another name, or give --overwrite",
                              path);
    return lade_path_write(path, text, strlen(text), 0644, error);
}

lade_code_t
lade_cmd_yaml_export(lade_cli_t *cli, lade_error_t *error)
{
    char *text = NULL;
    bool stream = strcmp(cli->words[0], "-") == 0;
    if (stream && cli->json)
        return lade_error_set(error, LADE_USAGE,
                              "standard output is for one thing: with --json give a file");
    lade_code_t code = lade_export_yaml(cli->client, &text, error);
    if (!code && stream)
        fputs(text, stdout);
    else if (!code)
        code = s_write_file(cli, cli->words[0], text, error);
    if (!code && cli->json)
        lade_cli_print_json(json_pack("{s:o, s:I}", "path",
                                      json_stringn_nocheck(cli->words[0], strlen(cli->words[0])),
                                      "bytes", (json_int_t)strlen(text)));
    free(text);
    return code;
}

lade_code_t
lade_cmd_yaml_import(lade_cli_t *cli, lade_error_t *error)
{
    char *text = NULL;
    bool dry_run = lade_args_flag(&cli->args, "--dry-run");
    const char *conflict = lade_args_text(&cli->args, "--on-conflict", "fail");
    if (strcmp(conflict, "fail") && strcmp(conflict, "skip") && strcmp(conflict, "replace"))
        return lade_error_set(error, LADE_USAGE, "--on-conflict takes fail, skip or replace");
    lade_code_t code =
        lade_import_yaml(cli->client, cli->words[0], conflict,
                         lade_args_flag(&cli->args, "--in-parts"), dry_run, &text, error);
    if (code)
        return code;
    json_t *said = json_loads(text, 0, NULL);
    free(text);
    if (cli->json)
        lade_cli_print_json(json_incref(said));
    else
        printf("%s%" PRId64 " added, %" PRId64 " replaced, %" PRId64 " skipped\n",
               dry_run ? "it would be: " : "", lade_json_int(said, "added", 0),
               lade_json_int(said, "replaced", 0), lade_json_int(said, "skipped", 0));
    json_decref(said);
    return LADE_OK;
}
