// lade convert: a checkpoint as a folder of diffusers.
#include "client/cli/commands.h"
#include "common/path.h"
#include "common/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A folder is meant as seen from here, not from the worker's.
static char *
s_absolute(const char *path)
{
    char *here = *path == '/' ? NULL : getcwd(NULL, 0);
    char *absolute = here ? lade_path_join(here, path) : strdup(path);
    free(here);
    return absolute;
}

lade_code_t
lade_cmd_convert_run(lade_cli_t *cli, lade_error_t *error)
{
    const char *dest = lade_args_text(&cli->args, "--dest", NULL);
    char key[LADE_CLI_KEY];
    json_t *path = NULL;
    lade_code_t code = lade_cli_catch(cli, error);
    if (!code)
        code = lade_cli_key(cli, cli->words[0], key, error);
    if (code)
        return code;
    double timeout_s = lade_args_real(&cli->args, "--timeout", 0);
    json_t *args = json_pack("{s:s}", "key", key);
    if (timeout_s > 0)
        json_object_set_new(args, "timeout_s", json_real(timeout_s));
    if (dest) {
        char *absolute = s_absolute(dest);
        json_object_set_new(args, "dest", json_stringn_nocheck(absolute, strlen(absolute)));
        free(absolute);
    }
    code = lade_cli_call(cli, "install", "convert", args, &path, error);
    if (!code && cli->json)
        lade_cli_print_json(json_pack("{s:s, s:O}", "key", key, "path", path));
    else if (!code)
        puts(json_string_value(path) ? json_string_value(path) : "");
    json_decref(path);
    return code;
}
