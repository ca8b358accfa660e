// lade scan --check: files below a folder that would run code if they were loaded. Asks nobody.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "common/formats/safety.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const lade_cli_t *cli;
    size_t files, unsafe, unread;
    json_t *found; // with --json: [{"path", "unsafe"}, …]
    json_t *failed;
} s_check_t;

static json_t *
s_text(const char *text)
{
    return json_stringn_nocheck(text, strlen(text));
}

static void
s_print(const char *path, const json_t *findings)
{
    char *shown = lade_show_clean(path, 0, false);
    for (size_t i = 0; i < json_array_size(findings); i++) {
        const char *message = "", *where = "";
        json_unpack(json_array_get(findings, i), "{s:s, s:s}", "message", &message, "where",
                    &where);
        printf("%s: %s%s%s%s\n", shown, message, *where ? " (" : "", where, *where ? ")" : "");
    }
    free(shown);
}

static bool
s_seen(void *arg, const char *path, const json_t *findings, const lade_error_t *error)
{
    s_check_t *self = arg;
    self->files++;
    if (error) {
        self->unread++;
        lade_cli_complain(NULL, error);
        json_array_append_new(self->failed, json_pack("{s:o, s:o}", "path", s_text(path), "error",
                                                      lade_cli_error_json(error)));
    } else if (json_array_size(findings)) {
        self->unsafe++;
        if (self->cli->json)
            json_array_append_new(self->found, json_pack("{s:o, s:O}", "path", s_text(path),
                                                         "unsafe", (json_t *)findings));
        else
            s_print(path, findings);
    }
    return true;
}

lade_code_t
lade_cmd_check_run(lade_cli_t *cli, lade_error_t *error)
{
    s_check_t self = {.cli = cli, .found = json_array(), .failed = json_array()};
    lade_code_t code = lade_safety_walk(cli->words[0], s_seen, &self, error);
    if (!code && cli->json)
        lade_cli_print_json(json_pack("{s:I, s:I, s:O, s:O}", "files", (json_int_t)self.files,
                                      "unsafe_count", (json_int_t)self.unsafe, "unsafe", self.found,
                                      "failed", self.failed));
    if (!code && !cli->json) {
        fflush(stdout);
        lade_cli_say(cli, "%zu file%s looked at, %zu of them unsafe%s", self.files,
                     self.files == 1 ? "" : "s", self.unsafe,
                     self.unread ? "; some could not be read" : "");
    }
    if (!code && (self.unsafe || self.unread)) {
        cli->said = true; // file by file
        code =
            self.unsafe
                ? lade_error_set(error, LADE_UNSAFE_FILE, "%zu unsafe files", self.unsafe)
                : lade_error_set(error, LADE_IO_ERROR, "%zu files could not be read", self.unread);
    }
    json_decref(self.found);
    json_decref(self.failed);
    return code;
}
