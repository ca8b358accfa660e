// lade watch: events as they happen.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "common/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    lade_cli_t *cli;
    bool beats; // asked for by name
    int64_t left;
} s_watch_t;

// What is told of an event besides its time, name, id and bytes, in this order, where it is there.
// Members joined by a slash stand together.
static const char *const s_telling[] = {
    "source",        "name",      "type/base/format", "path",  "key",   "model_key",
    "submodel_type", "precision", "location",         "kind",  "kinds", "host",
    "why",           "reason",    "error_type",       "error", NULL};

static void
s_add(char *line, size_t size, const char *text)
{
    size_t len = strlen(line);
    if (*text && len < size - 1)
        snprintf(line + len, size - len, "  %s", text);
}

// Keys are shortened for people who look on; the beginning is enough to name one.
static void
s_shorten(const lade_cli_t *cli, char *text)
{
    if (cli->width && strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32)
        text[8] = '\0';
}

static void
s_add_bytes(char *line, size_t size, const json_t *event)
{
    char bytes[LADE_SHOW_SIZE], total[LADE_SHOW_SIZE], text[2 * LADE_SHOW_SIZE + 8];
    int64_t all = lade_json_int(event, "total_bytes", 0),
            so_far = lade_json_int(event, "bytes", -1);
    if (so_far < 0)
        return;
    snprintf(text, sizeof text, "%s%s%s", lade_show_bytes(so_far, bytes), all ? " of " : "",
             all ? lade_show_bytes(all, total) : "");
    s_add(line, size, text);
}

// The members named "a/b/c" as one text, empty if none is there.
static void
s_join(const json_t *event, const char *names, char *text, size_t size)
{
    *text = '\0';
    for (const char *at = names; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL) {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, "/"), at);
        char *member = lade_cli_member(event, name);
        size_t len = strlen(text);
        if (*member)
            snprintf(text + len, size - len, "%s%s", len ? "/" : "", member);
        free(member);
    }
}

void
lade_cmd_watch_print(const lade_cli_t *cli, const json_t *event)
{
    char when[LADE_SHOW_SIZE], line[4096], text[1024], last[1024] = "";
    char *id = lade_cli_member(event, "id");
    s_shorten(cli, id);
    snprintf(line, sizeof line, "%s  %-25s  %s",
             lade_show_time(lade_json_real(event, "timestamp", 0), when),
             lade_json_text(event, "event", "?"), id);
    s_add_bytes(line, sizeof line, event);
    for (size_t i = 0; s_telling[i]; i++) {
        s_join(event, s_telling[i], text, sizeof text);
        s_shorten(cli, text);
        if (strcmp(text, id) != 0 && strcmp(text, last) != 0) // a path is its model's name and key
            s_add(line, sizeof line, text);
        if (*text)
            snprintf(last, sizeof last, "%s", text);
    }
    char *clean = lade_show_clean(line, cli->width, false);
    puts(clean);
    free(clean);
    free(id);
}

static bool
s_on_event(void *arg, const char *text)
{
    s_watch_t *self = arg;
    json_t *event = json_loads(text, JSON_ALLOW_NUL, NULL);
    bool beat = strcmp(lade_json_text(event, "event", ""), "broker_beat") == 0;
    if (event && (!beat || self->beats)) {
        if (self->cli->json)
            puts(text);
        else
            lade_cmd_watch_print(self->cli, event);
        fflush(stdout);
        self->left -= self->left > 0;
    }
    json_decref(event);
    return self->left != 0;
}

// --since 0 is all there is, wherever the journal begins by now.
static lade_code_t
s_since(lade_cli_t *cli, int64_t *since_p, lade_error_t *error)
{
    json_t *status = NULL;
    *since_p = lade_args_number(&cli->args, "--since", -1);
    if (*since_p != 0)
        return LADE_OK;
    lade_code_t code = lade_cli_call(cli, "broker", "status", NULL, &status, error);
    *since_p = lade_json_int(status, "journal_from", 1) - 1;
    json_decref(status);
    return code;
}

lade_code_t
lade_cmd_watch_run(lade_cli_t *cli, lade_error_t *error)
{
    s_watch_t self = {.cli = cli, .left = lade_args_number(&cli->args, "--count", -1)};
    for (size_t i = 0; i < cli->word_count; i++)
        self.beats = self.beats || strncmp(cli->words[i], "broker", 6) == 0;
    int64_t since;
    lade_code_t code = lade_cli_catch(cli, error);
    if (!code)
        code = s_since(cli, &since, error);
    if (code)
        return code;
    code = lade_watch(cli->client, cli->word_count ? cli->words : NULL, since, s_on_event, &self,
                      lade_args_real(&cli->args, "--timeout", 0), error);
    // Both are the ends one asked for.
    return code == LADE_CANCELLED ||
                   (code == LADE_TIMEOUT && lade_args_flag(&cli->args, "--timeout"))
               ? LADE_OK
               : code;
}
