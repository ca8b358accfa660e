// lade import-invokeai.
#include "client/cli/commands.h"
#include "client/cli/table.h"
#include "common/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void
s_print(const lade_cli_t *cli, const json_t *report)
{
    static const lade_table_column_t columns[] = {
        {"OUTCOME", LADE_TABLE_LEFT},  {"NAME", LADE_TABLE_CUT}, {"FROM", LADE_TABLE_LEFT},
        {"PATH", LADE_TABLE_CUT_HEAD}, {"WHY", LADE_TABLE_CUT},  {0}};
    lade_table_t *table = lade_table_new(columns);
    const json_t *models = json_object_get(report, "models");
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *one = json_array_get(models, i);
        const char *outcome = lade_json_text(one, "outcome", "");
        lade_table_add(table, outcome);
        lade_table_add(table, lade_json_text(one, "name", NULL));
        lade_table_add(table, lade_json_text(one, "from", NULL));
        lade_table_add(table, lade_json_text(one, "path", NULL));
        lade_table_add(table, strcmp(outcome, "skipped") == 0
                                  ? "a record with its key or path is there"
                                  : lade_json_text(json_object_get(one, "error"), "message", NULL));
    }
    if (json_array_size(models))
        lade_table_print(table, stdout, cli->width);
    lade_table_destroy(&table);
    printf("%s%" PRId64 " taken, %" PRId64 " skipped, %" PRId64 " failed\n",
           lade_args_flag(&cli->args, "--dry-run") ? "it would be: " : "",
           lade_json_int(report, "taken", 0), lade_json_int(report, "skipped", 0),
           lade_json_int(report, "failed", 0));
}

lade_code_t
lade_cmd_import_invokeai(lade_cli_t *cli, lade_error_t *error)
{
    char *text = NULL;
    lade_code_t code = lade_import_invokeai(cli->client, cli->words[0],
                                            lade_args_flag(&cli->args, "--dry-run"), &text, error);
    if (code)
        return code;
    json_t *report = json_loads(text, 0, NULL);
    free(text);
    if (cli->json)
        lade_cli_print_json(json_incref(report));
    else
        s_print(cli, report);
    if (lade_json_int(report, "failed", 0)) {
        code =
            lade_error_set(error, LADE_INVALID_MODEL_CONFIG, "some models could not be taken up");
        cli->said = true; // each with its reason
    }
    json_decref(report);
    return code;
}
