// lade probe: what is this file or folder? Asks nobody but the rules.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "common/formats/tensors.h"
#include "common/hash.h"
#include "common/identify/identify.h"

#include <inttypes.h>
#include <stdio.h>
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
s_probe(lade_cli_t *cli, const char *path, json_t **found_p, json_t **report_p, lade_error_t *error)
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
        code = lade_identify_explained(rules, path, overrides, found_p, report_p, error);
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

// Findings as sentences.
static json_t *
s_sentences(const json_t *findings)
{
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(findings); i++) {
        const char *message = "", *where = "";
        json_unpack(json_array_get(findings, i), "{s:s, s:s}", "message", &message, "where",
                    &where);
        json_array_append_new(
            list, json_sprintf("%s%s%s%s", message, *where ? " (" : "", where, *where ? ")" : ""));
    }
    return list;
}

static void
s_print(const lade_cli_t *cli, json_t *whole)
{
    if (json_is_array(json_object_get(whole, "unsafe")))
        json_object_set_new(whole, "unsafe", s_sentences(json_object_get(whole, "unsafe")));
    const char *keys[128], *key;
    size_t count = 0;
    json_t *value;
    json_object_foreach((json_t *)whole, key, value) if (count < 127) keys[count++] = key;
    keys[count] = NULL;
    lade_cli_print_members(cli, whole, keys);
}

// ---------------------------------------------------------------------------------------------------
// --tensors

static json_t *
s_tensor(const lade_tensors_t *tensors, const lade_tensor_t *tensor)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    return json_pack("{s:o, s:s, s:o, s:s, s:o, s:I, s:I}", "name",
                     json_stringn_nocheck(tensor->name, tensor->name_len), "dtype",
                     lade_dtype_name(tensor->dtype), "shape", shape, "layout",
                     lade_layout_kind_name(tensor->layout), "file",
                     s_text(lade_tensors_file(tensors, tensor->file)), "offset",
                     (json_int_t)tensor->offset, "size", (json_int_t)tensor->size);
}

static void
s_print_tensor(const lade_tensor_t *tensor)
{
    char *name = lade_show_clean(tensor->name, 0, false);
    printf("%s  %s  [", name, lade_dtype_name(tensor->dtype));
    for (size_t i = 0; i < tensor->rank; i++)
        printf("%s%" PRIu64, i ? ", " : "", tensor->shape[i]);
    printf("]%s%s\n", tensor->layout ? "  " : "",
           tensor->layout ? lade_layout_kind_name(tensor->layout) : "");
    free(name);
}

static lade_code_t
s_list_tensors(const lade_cli_t *cli, const char *path, lade_error_t *error)
{
    lade_tensors_t *tensors;
    lade_code_t code = lade_tensors_open(path, &tensors, error);
    if (code)
        return code;
    json_t *list = json_array();
    for (size_t i = 0; i < lade_tensors_count(tensors); i++) {
        if (cli->json)
            json_array_append_new(list, s_tensor(tensors, lade_tensors_get(tensors, i)));
        else
            s_print_tensor(lade_tensors_get(tensors, i));
    }
    json_t *whole = json_pack(
        "{s:o, s:s, s:o, s:O, s:O, s:O}", "path", s_text(path), "container",
        lade_tensors_format(tensors), "tensors", list, "metadata", lade_tensors_metadata(tensors),
        "values", lade_tensors_value(tensors, ""), "unsafe", lade_tensors_unsafe(tensors));
    static const char *const keys[] = {"unsafe", NULL};
    if (cli->json) {
        lade_cli_print_json(json_incref(whole));
    } else {
        json_object_set_new(whole, "unsafe", s_sentences(lade_tensors_unsafe(tensors)));
        lade_cli_print_members(cli, whole, keys);
    }
    json_decref(whole);
    lade_tensors_destroy(&tensors);
    return LADE_OK;
}

lade_code_t
lade_cmd_probe_run(lade_cli_t *cli, lade_error_t *error)
{
    char *real = realpath(cli->words[0], NULL);
    const char *path = real ? real : cli->words[0];
    json_t *found = NULL, *report = NULL;
    bool list = lade_args_flag(&cli->args, "--tensors"),
         explain = lade_args_flag(&cli->args, "--explain");
    lade_code_t code = list ? s_list_tensors(cli, path, error)
                            : s_probe(cli, path, &found, explain ? &report : NULL, error);
    if (!code && !list)
        code = s_add_hash(cli, path, found, error);
    if (code && cli->json) {
        lade_cli_print_json(json_pack("{s:o, s:o, s:O*}", "path", s_text(path), "error",
                                      lade_cli_error_json(error), "explain", report));
        lade_cli_complain(NULL, error);
        cli->said = true;
    }
    json_t *whole = code || list ? NULL : s_whole(path, found);
    if (whole && cli->json && report)
        json_object_set(whole, "explain", report);
    if (whole && cli->json)
        lade_cli_print_json(json_incref(whole));
    else if (whole)
        s_print(cli, whole);
    if (report && !cli->json)
        lade_cmd_explain_print(cli, report);
    json_decref(report);
    json_decref(whole);
    json_decref(found);
    free(real);
    return code;
}
