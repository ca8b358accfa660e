// lade download --cache, lade cache --files: the cache of fetched files.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "client/cli/submit.h"
#include "common/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

lade_code_t
lade_cmd_filecache_fetch(lade_cli_t *cli, lade_error_t *error)
{
    json_t *paths = json_array();
    lade_code_t code = lade_cli_catch(cli, error);
    for (size_t i = 0; i < cli->word_count && !code; i++) {
        json_t *args = json_object(), *path = NULL;
        json_object_set_new(args, "source",
                            json_stringn_nocheck(cli->words[i], strlen(cli->words[i])));
        lade_submit_add_priority(cli, args);
        code = lade_submit_add_token(cli, args, error);
        if (code)
            json_decref(args);
        else
            code = lade_cli_call(cli, "install", "download_and_cache", args, &path, error);
        if (!code && !cli->json)
            puts(json_string_value(path) ? json_string_value(path) : "");
        json_array_append_new(paths, path ? path : json_null());
    }
    if (cli->json && !code)
        lade_cli_print_json(json_incref(paths));
    json_decref(paths);
    return code;
}

static void
s_print(const json_t *files)
{
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *file = json_array_get(files, i);
        char size[LADE_SHOW_SIZE];
        char *source = lade_show_clean(lade_json_text(file, "source", ""), 0, false);
        char *path = lade_show_clean(lade_json_text(file, "path", ""), 0, false);
        printf("%s  %s  %s%s\n", lade_show_bytes(lade_json_int(file, "bytes", 0), size), source,
               path, lade_json_bool(file, "kept", false) ? "  (not identified)" : "");
        free(path);
        free(source);
    }
}

lade_code_t
lade_cmd_filecache_show(lade_cli_t *cli, lade_error_t *error)
{
    bool clear = lade_args_flag(&cli->args, "--clear");
    json_t *answer = NULL;
    char size[LADE_SHOW_SIZE];
    lade_code_t code =
        lade_cli_call(cli, "install", clear ? "clear_cache" : "list_cache", NULL, &answer, error);
    if (code)
        return code;
    if (cli->json)
        lade_cli_print_json(json_incref(answer));
    else if (clear)
        printf("%" JSON_INTEGER_FORMAT " removed, %s\n",
               (json_int_t)lade_json_int(answer, "cleared", 0),
               lade_show_bytes(lade_json_int(answer, "bytes", 0), size));
    else
        s_print(json_object_get(answer, "files"));
    json_decref(answer);
    return LADE_OK;
}
