// Submitting and waiting.
#include "client/cli/submit.h"

#include "client/cli/show.h"
#include "common/path.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>

lade_code_t
lade_submit_add_token(const lade_cli_t *cli, json_t *args, lade_error_t *error)
{
    const char *token = lade_args_text(&cli->args, "--token", NULL);
    if (!token)
        return LADE_OK;
    char *read = NULL;
    if (*token == '@') {
        size_t len;
        if (lade_path_read(token + 1, 65536, &read, &len, error))
            return lade_error_wrap(error, "--token");
        token = read;
    }
    json_object_set_new(args, "access_token", json_stringn_nocheck(token, strcspn(token, "\r\n")));
    free(read);
    return LADE_OK;
}

void
lade_submit_add_priority(const lade_cli_t *cli, json_t *args)
{
    if (lade_args_flag(&cli->args, "--priority"))
        json_object_set_new(args, "priority",
                            json_integer(lade_args_number(&cli->args, "--priority", 10)));
}

void
lade_submit_print_queued(const lade_follow_t *follow, size_t i, lade_buf_t *text)
{
    const json_t *job = lade_follow_job(follow, i);
    char *name = lade_show_clean(lade_follow_name(follow, i), 0, false);
    lade_buf_addf(text, NULL, "job %" JSON_INTEGER_FORMAT "  %s  %s\n",
                  (json_int_t)lade_json_int(job, "id", -1), lade_json_text(job, "status", "?"),
                  name);
    free(name);
}

bool
lade_submit_waits(const lade_cli_t *cli)
{
    return !lade_args_flag(&cli->args, "--no-wait") && !lade_args_flag(&cli->args, "--paused");
}

lade_code_t
lade_submit_follow(lade_cli_t *cli, lade_follow_t *follow, lade_follow_print_t *print,
                   lade_error_t *error)
{
    bool wait = lade_submit_waits(cli);
    lade_code_t code = lade_follow_submitted(follow, error);
    if (!code && wait)
        code = lade_follow_run(follow, cli->json ? NULL : print, error);
    if (cli->json && (!code || cli->said))
        lade_follow_print_json(follow);
    if (code)
        return code;
    if (!cli->json)
        lade_follow_print(follow, print);
    cli->said = true;
    return lade_follow_complain(follow);
}
