// lade config, keys.
#include "client/cli/commands.h"
#include "common/endpoint.h"
#include "common/path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What nobody should see over one's shoulder.
static bool
s_secret(const char *key, const char *value)
{
    return strcmp(key, "hub.token") == 0 || strcmp(key, "civitai.token") == 0 ||
           (strcmp(key, "download.proxy") == 0 && strchr(value, '@')); // USER:PASSWORD@HOST
}

lade_code_t
lade_cmd_config_run(lade_cli_t *cli, lade_error_t *error)
{
    (void)error;
    if (lade_args_flag(&cli->args, "--presets")) {
        lade_config_print_presets(stdout);
        return LADE_OK;
    }
    json_t *all = json_object();
    json_object_set_new(all, "data",
                        json_stringn_nocheck(cli->config->data, strlen(cli->config->data)));
    if (!cli->json)
        printf("%-28s%s\n", "data", cli->config->data);
    const char *key;
    char value[4096];
    for (size_t i = 0; lade_config_each(cli->config, i, &key, value, sizeof value, NULL); i++) {
        if (s_secret(key, value) && *value)
            snprintf(value, sizeof value, "***");
        json_object_set_new(all, key, json_stringn_nocheck(value, strlen(value)));
        if (!cli->json)
            printf("%-28s%s\n", key, *value ? value : "\"\"");
    }
    if (cli->json)
        lade_cli_print_json(json_incref(all));
    json_decref(all);
    return LADE_OK;
}

lade_code_t
lade_cmd_config_keys(lade_cli_t *cli, lade_error_t *error)
{
    const char *name = cli->words[0], *dest = lade_args_text(&cli->args, "--dest", NULL);
    char *folder = dest ? strdup(dest) : lade_path_join(cli->config->data, "keys");
    lade_code_t code = lade_path_check_name(name, error);
    if (!code)
        code = lade_path_mkdirs(folder, 0700, error);
    if (!code)
        code = lade_endpoint_make_keys(folder, name, error);
    if (!code && cli->json)
        lade_cli_print_json(json_pack("{s:o, s:o}", "secret", json_sprintf("%s/%s", folder, name),
                                      "public", json_sprintf("%s/%s.pub", folder, name)));
    else if (!code)
        printf(
            "secret  %s/%s  (curve.key of its owner; show it to nobody)\n"
            "public  %s/%s.pub  (into the broker's curve.clients, or the others' curve.server)\n",
            folder, name, folder, name);
    free(folder);
    return code;
}
