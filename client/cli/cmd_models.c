// lade ls, find, show, edit, rm.
#include "client/cli/commands.h"
#include "client/cli/follow.h"
#include "client/cli/show.h"
#include "client/cli/table.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------------------------------
// Lists

// How many digits of the keys tell these records apart.
static size_t
s_key_digits(const json_t *records)
{
    size_t digits = 8;
    for (size_t i = 0; i < json_array_size(records) && json_array_size(records) < 2000; i++)
        for (size_t j = 0; j < i && digits < 32; j++) {
            const char *a = lade_json_text(json_array_get(records, i), "key", "");
            const char *b = lade_json_text(json_array_get(records, j), "key", "-");
            while (digits < 32 && strncmp(a, b, digits) == 0)
                digits++;
        }
    return digits;
}

static void
s_print_records(const lade_cli_t *cli, const json_t *records)
{
    static const lade_table_column_t columns[] = {
        {"KEY", LADE_TABLE_LEFT},      {"NAME", LADE_TABLE_CUT},
        {"TYPE", LADE_TABLE_LEFT},     {"BASE", LADE_TABLE_LEFT},
        {"FORMAT", LADE_TABLE_LEFT},   {"VARIANT", LADE_TABLE_LEFT},
        {"PATH", LADE_TABLE_CUT_HEAD}, {0}};
    enum { S_NARROW = 100 }; // columns that leave a path no room beside the name
    // A pipe gets whole keys: they are likely to be used.
    int digits = cli->width ? (int)s_key_digits(records) : 32;
    bool paths = !cli->width || cli->width >= S_NARROW;
    lade_table_t *table = lade_table_new(columns);
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *record = json_array_get(records, i);
        lade_table_addf(table, "%.*s", digits, lade_json_text(record, "key", ""));
        for (size_t c = 1; columns[c].title; c++) {
            static const char *const keys[] = {"",       "name",    "type", "base",
                                               "format", "variant", "path"};
            bool left_out = !paths && strcmp(keys[c], "path") == 0;
            lade_table_add(table, left_out ? "" : lade_json_text(record, keys[c], ""));
        }
    }
    if (json_array_size(records))
        lade_table_print(table, stdout, cli->width);
    lade_table_destroy(&table);
}

static lade_code_t
s_show_list(lade_cli_t *cli, json_t *records, const char *empty)
{
    if (cli->json)
        lade_cli_print_json(json_incref(records));
    else
        s_print_records(cli, records);
    if (!json_array_size(records) && !cli->json)
        lade_cli_say(cli, "%s", empty);
    json_decref(records);
    return LADE_OK;
}

static const char *const s_filters[][2] = {{"--name", "name"}, {"--base", "base"},
                                           {"--type", "type"}, {"--format", "format"},
                                           {"--hash", "hash"}, {"--sort", "order_by"}};

// The options as the arguments of a search.
static json_t *
s_query(const lade_cli_t *cli)
{
    json_t *args = json_object();
    const char *tag;
    for (size_t i = 0; i < sizeof s_filters / sizeof *s_filters; i++) {
        const char *text = lade_args_text(&cli->args, s_filters[i][0], NULL);
        if (text)
            json_object_set_new(args, s_filters[i][1], json_stringn_nocheck(text, strlen(text)));
    }
    if (lade_args_flag(&cli->args, "--reverse"))
        json_object_set_new(args, "direction", json_string("desc"));
    if (lade_args_flag(&cli->args, "--tag")) {
        json_t *tags = json_array();
        for (size_t i = 0; (tag = lade_args_each(&cli->args, "--tag", i)); i++)
            json_array_append_new(tags, json_stringn_nocheck(tag, strlen(tag)));
        json_object_set_new(args, "tags", tags);
    }
    return args;
}

// Which of how many a page shows.
static void
s_say_page(lade_cli_t *cli, json_t *query, int64_t limit, int64_t page, size_t count)
{
    json_t *list = NULL;
    lade_error_t error;
    json_object_set_new(query, "per_page", json_integer(1));
    if (lade_cli_call(cli, "store", "list_models", query, &list, &error))
        return;
    int64_t first = (page - 1) * limit, total = lade_json_int(list, "total", 0);
    json_decref(list);
    if (count)
        lade_cli_say(
            cli,
            "models %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT,
            (json_int_t)(first + 1), (json_int_t)(first + (int64_t)count), (json_int_t)total);
    else
        lade_cli_say(cli,
                     "there are %" JSON_INTEGER_FORMAT " models: page %" JSON_INTEGER_FORMAT
                     " has none",
                     (json_int_t)total, (json_int_t)page);
}

// One page, or all of them.
static lade_code_t
s_list(lade_cli_t *cli, json_t **records_p, lade_error_t *error)
{
    enum { S_PAGE = 20 };
    bool paged = lade_args_flag(&cli->args, "--limit") || lade_args_flag(&cli->args, "--page");
    json_t *query = s_query(cli);
    if (!paged)
        return lade_cli_list(cli, "store", "search_by_name", query, records_p, error);
    int64_t limit = lade_args_number(&cli->args, "--limit", S_PAGE);
    int64_t page = lade_args_number(&cli->args, "--page", 1);
    json_t *args = json_copy(query);
    json_object_set_new(args, "limit", json_integer(limit));
    json_object_set_new(args, "offset", json_integer(limit * (page - 1)));
    lade_code_t code = lade_cli_call(cli, "store", "search_by_name", args, records_p, error);
    if (!code)
        s_say_page(cli, json_incref(query), limit, page, json_array_size(*records_p));
    json_decref(query);
    return code;
}

lade_code_t
lade_cmd_models_ls(lade_cli_t *cli, lade_error_t *error)
{
    json_t *records;
    lade_code_t code = s_list(cli, &records, error);
    bool paged = lade_args_flag(&cli->args, "--page");
    return code ? code
                : s_show_list(cli, records,
                              paged ? "" : "no models yet: `lade install SOURCE` brings one");
}

// What a file or folder is installed as, if the other filters have it, too.
static lade_code_t
s_find_path(lade_cli_t *cli, const char *path, json_t **records_p, lade_error_t *error)
{
    char *whole = realpath(path, NULL);
    const char *asked = whole ? whole : path;
    json_t *record = NULL, *found = NULL;
    lade_code_t code = lade_cli_call(
        cli, "store", "search_by_path",
        json_pack("{s:o}", "path", json_stringn_nocheck(asked, strlen(asked))), &record, error);
    free(whole);
    json_t *query = s_query(cli);
    *records_p = json_array();
    if (!code && json_is_object(record) && json_object_size(query)) {
        // The broker says whether it is like that: by its name it is one of few.
        const char *name = lade_json_text(record, "name", "");
        if (!json_object_get(query, "name"))
            json_object_set_new(query, "name", json_stringn_nocheck(name, strlen(name)));
        code = lade_cli_list(cli, "store", "search_by_name", json_incref(query), &found, error);
        for (size_t i = 0; i < json_array_size(found); i++)
            if (json_equal(json_array_get(found, i), record))
                json_array_append(*records_p, record);
    } else if (json_is_object(record)) {
        json_array_append(*records_p, record);
    }
    json_decref(query);
    json_decref(found);
    json_decref(record);
    return code;
}

lade_code_t
lade_cmd_models_find(lade_cli_t *cli, lade_error_t *error)
{
    json_t *records = NULL;
    const char *path = lade_args_text(&cli->args, "--path", NULL);
    lade_code_t code =
        path ? s_find_path(cli, path, &records, error) : s_list(cli, &records, error);
    if (!code)
        return s_show_list(cli, records, "no model is like that");
    json_decref(records);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// One record

// The telling fields first, what the broker keeps last. The hub's whole answer is pages
// long: --json has it.
static void
s_print_record(const lade_cli_t *cli, const json_t *record)
{
    static const char *const first[] = {"name",        "key",          "type",
                                        "base",        "bases",        "format",
                                        "variant",     "repo_variant", "prediction_type",
                                        "description", "tags",         "trigger_phrases",
                                        "path",        "file_size",    "source",
                                        "source_url",  "hash",         "default_settings",
                                        NULL};
    static const char *const last[] = {"created_at", "updated_at", "version", NULL};
    size_t count = 0;
    const char *keys[256], *key;
    json_t *value;
    for (; first[count]; count++)
        keys[count] = first[count];
    json_object_foreach((json_t *)record, key, value)
    {
        bool known = strcmp(key, "source_api_response") == 0;
        for (size_t i = 0; first[i]; i++)
            known = known || strcmp(first[i], key) == 0;
        for (size_t i = 0; last[i]; i++)
            known = known || strcmp(last[i], key) == 0;
        if (!known && count < 250)
            keys[count++] = key;
    }
    for (size_t i = 0; last[i]; i++)
        keys[count++] = last[i];
    keys[count] = NULL;
    lade_cli_print_members(cli, record, keys);
    if (json_object_get(record, "source_api_response"))
        lade_cli_say(cli, "(the hub's whole answer is there, too: --json shows it)");
}

static lade_code_t
s_show_record(const lade_cli_t *cli, json_t *record)
{
    if (cli->json)
        lade_cli_print_json(json_incref(record));
    else
        s_print_record(cli, record);
    json_decref(record);
    return LADE_OK;
}

lade_code_t
lade_cmd_models_show(lade_cli_t *cli, lade_error_t *error)
{
    char key[LADE_CLI_KEY];
    json_t *record;
    lade_code_t code = lade_cli_key(cli, cli->words[0], key, error);
    if (!code)
        code = lade_cli_call(cli, "store", "get_model", json_pack("{s:s}", "key", key), &record,
                             error);
    return code ? code : s_show_record(cli, record);
}

lade_code_t
lade_cmd_models_edit(lade_cli_t *cli, lade_error_t *error)
{
    char key[LADE_CLI_KEY];
    json_t *changes = json_object(), *record;
    lade_code_t code = LADE_OK;
    for (size_t i = 1; i < cli->word_count && !code; i++)
        code = lade_cli_set_member(changes, cli->words[i], error);
    if (!code)
        code = lade_cli_key(cli, cli->words[0], key, error);
    json_t *args = json_pack("{s:O}", "config", changes);
    if (!code)
        json_object_set_new(args, "key", json_string(key));
    if (lade_args_flag(&cli->args, "--if-version"))
        json_object_set_new(args, "version",
                            json_integer(lade_args_number(&cli->args, "--if-version", 0)));
    if (!code)
        code = lade_cli_call(cli, "store", "update_model", json_incref(args), &record, error);
    json_decref(args);
    json_decref(changes);
    return code ? code : s_show_record(cli, record);
}

// ---------------------------------------------------------------------------------------------------
// rm

static lade_code_t
s_unregister(lade_cli_t *cli, const char *key, lade_error_t *error)
{
    return lade_cli_call(cli, "install", "unregister", json_pack("{s:s}", "key", key), NULL, error);
}

static lade_code_t
s_delete(lade_cli_t *cli, const char *word, const char *key, lade_error_t *error)
{
    lade_follow_t *follow = lade_follow_new(cli, "install");
    json_t *args =
        json_pack("{s:s, s:b}", "key", key, "force", lade_args_flag(&cli->args, "--force"));
    lade_follow_submit(follow, word, "delete", args);
    lade_code_t code = lade_follow_submitted(follow, error);
    if (!code)
        code = lade_follow_run(follow, NULL, error);
    if (!code && lade_follow_error(follow, 0)->code) {
        *error = *lade_follow_error(follow, 0);
        code = error->code;
    }
    lade_follow_destroy(&follow);
    return code;
}

lade_code_t
lade_cmd_models_rm(lade_cli_t *cli, lade_error_t *error)
{
    bool keep = lade_args_flag(&cli->args, "--keep-files");
    if (keep && lade_args_flag(&cli->args, "--force"))
        return lade_error_set(error, LADE_USAGE, "--keep-files and --force exclude each other");
    json_t *removed = json_array();
    lade_code_t code = lade_cli_catch(cli, error);
    for (size_t i = 0; i < cli->word_count && !code; i++) {
        char key[LADE_CLI_KEY];
        code = lade_cli_key(cli, cli->words[i], key, error);
        if (!code)
            code = keep ? s_unregister(cli, key, error) : s_delete(cli, cli->words[i], key, error);
        if (!code)
            json_array_append_new(removed, json_string(key));
        if (!code && !cli->json)
            printf("removed %s  %s%s\n", key, strcmp(key, cli->words[i]) == 0 ? "" : cli->words[i],
                   keep ? "  (its files are still there)" : "");
    }
    if (!code && cli->json)
        lade_cli_print_json(json_pack("{s:O}", "removed", removed));
    json_decref(removed);
    return code;
}
