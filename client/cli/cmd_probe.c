// lade probe: what is this file or folder? Asks nobody but the rules.
#include "client/cli/commands.h"
#include "common/hash.h"
#include "common/identify/identify.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Members that are always there, null where they do not apply.
static const char *const s_members[] = {
    "path", "type", "base",         "format", "variant", "prediction_type",
    "name", "hash", "repo_variant", "unsafe", NULL};

static json_t *
s_text(const char *text)
{
    return json_stringn_nocheck(text, strlen(text));
}

static lade_code_t
s_probe(lade_cli_t *cli, const char *path, json_t **found_p, lade_error_t *error)
{
    lade_identify_t *rules = NULL;
    json_t *overrides = json_object();
    const char *text;
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && (text = lade_args_each(&cli->args, "--config", i)); i++)
        code = lade_cli_set_member(overrides, text, error);
    if (!code && access(path, R_OK) != 0)
        code =
            lade_error_set(error, LADE_NOT_FOUND, "there is no readable file or folder %s", path);
    if (!code)
        code = lade_identify_by_config(cli->config, &rules, error);
    if (!code)
        code = lade_identify_path(rules, path, overrides, found_p, error);
    lade_identify_destroy(&rules);
    json_decref(overrides);
    return code;
}

static lade_code_t
s_add_hash(lade_cli_t *cli, const char *path, json_t *found, lade_error_t *error)
{
    char *hash = NULL;
    if (!lade_args_flag(&cli->args, "--hash"))
        return LADE_OK;
    lade_code_t code = lade_hash_path(path, cli->config->hash, NULL, NULL, &hash, error);
    if (!code && *hash)
        json_object_set_new(found, "hash", json_string(hash));
    free(hash);
    return code;
}

// The members in their order, then what else was found.
static json_t *
s_whole(const char *path, const json_t *found)
{
    json_t *whole = json_object();
    for (size_t i = 0; s_members[i]; i++) {
        json_t *value = json_object_get(found, s_members[i]);
        json_object_set_new(whole, s_members[i], value ? json_incref(value) : json_null());
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)found, key, value) json_object_set(whole, key, value);
    json_object_set_new(whole, "path", s_text(path));
    return whole;
}

static void
s_print(const lade_cli_t *cli, const json_t *whole)
{
    const char *keys[128], *key;
    size_t count = 0;
    json_t *value;
    json_object_foreach((json_t *)whole, key, value) if (count < 127) keys[count++] = key;
    keys[count] = NULL;
    lade_cli_print_members(cli, whole, keys);
}

lade_code_t
lade_cmd_probe_run(lade_cli_t *cli, lade_error_t *error)
{
    char *real = realpath(cli->words[0], NULL);
    const char *path = real ? real : cli->words[0];
    json_t *found = NULL;
    lade_code_t code = s_probe(cli, path, &found, error);
    if (!code)
        code = s_add_hash(cli, path, found, error);
    if (code && cli->json) {
        lade_cli_print_json(
            json_pack("{s:o, s:o}", "path", s_text(path), "error", lade_cli_error_json(error)));
        lade_cli_complain(NULL, error);
        cli->said = true;
    }
    json_t *whole = code ? NULL : s_whole(path, found);
    if (!code && cli->json)
        lade_cli_print_json(json_incref(whole));
    else if (!code)
        s_print(cli, whole);
    json_decref(whole);
    json_decref(found);
    free(real);
    return code;
}
