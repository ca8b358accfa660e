// lade metadata: what a model's page says of it. Nothing is installed.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "client/cli/submit.h"
#include "client/lade.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void
s_print(const json_t *metadata)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)metadata, name, value)
    {
        if (strcmp(name, "api_response") == 0)
            continue;
        char *text = json_is_string(value) ? strdup(json_string_value(value))
                                           : json_dumps(value, JSON_ENCODE_ANY);
        char *shown = lade_show_clean(text ? text : "", 0, false);
        printf("%-24s%s\n", name, shown);
        free(shown);
        free(text);
    }
}

lade_code_t
lade_cmd_metadata_run(lade_cli_t *cli, lade_error_t *error)
{
    const char *word = cli->words[0];
    bool url = strncasecmp(word, "http://", 7) == 0 || strncasecmp(word, "https://", 8) == 0;
    json_t *args = json_object(), *metadata = NULL;
    char *text = NULL;
    lade_code_t code = lade_submit_add_token(cli, args, error);
    const char *token = lade_json_text(args, "access_token", NULL);
    if (!code)
        code = (url ? lade_metadata_from_url : lade_metadata_from_id)(cli->client, word, token,
                                                                      &text, error);
    if (!code)
        metadata = json_loads(text, 0, NULL);
    if (!code && cli->json)
        lade_cli_print_json(json_incref(metadata));
    else if (!code)
        s_print(metadata);
    json_decref(metadata);
    json_decref(args);
    free(text);
    return code;
}
