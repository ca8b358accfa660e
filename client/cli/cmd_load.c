// lade load, unload, cache.
#include "client/cli/bar.h"
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "client/cli/table.h"
#include "client/model.h"
#include "client/outcome.h"
#include "common/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { S_TENSORS = 20, S_INDENT = 2 };

// ---------------------------------------------------------------------------------------------------
// load

static char *
s_shape(const lade_model_tensor_t *tensor)
{
    char text[256] = "[";
    for (size_t d = 0; d < tensor->rank && d < 8; d++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, "%s%" PRIu64, d ? ", " : "", tensor->shape[d]);
    }
    size_t len = strlen(text);
    snprintf(text + len, sizeof text - len, "]");
    return strdup(text);
}

static void
s_print_tensors(const lade_cli_t *cli, lade_model_t *model, size_t most)
{
    static const lade_table_column_t columns[] = {{"TENSOR", LADE_TABLE_CUT_HEAD},
                                                  {"DTYPE", LADE_TABLE_LEFT},
                                                  {"SHAPE", LADE_TABLE_LEFT},
                                                  {"BYTES", LADE_TABLE_RIGHT},
                                                  {0}};
    lade_table_t *table = lade_table_new(columns);
    lade_model_tensor_t tensor;
    for (size_t i = 0; i < most && lade_model_tensor(model, i, &tensor); i++) {
        char *shape = s_shape(&tensor), bytes[LADE_SHOW_SIZE];
        lade_table_add(table, tensor.name);
        lade_table_add(table, tensor.dtype);
        lade_table_add(table, shape);
        lade_table_add(table, lade_show_bytes((int64_t)tensor.size, bytes));
        free(shape);
    }
    if (most)
        lade_table_print(table, stdout, cli->width);
    lade_table_destroy(&table);
    size_t count = lade_model_tensor_count(model);
    if (count > most && most)
        printf("… and %zu more (--tensors all)\n", count - most);
}

static json_t *
s_tensors_json(lade_model_t *model, size_t most)
{
    json_t *all = json_array();
    lade_model_tensor_t tensor;
    for (size_t i = 0; i < most && lade_model_tensor(model, i, &tensor); i++) {
        json_t *shape = json_array();
        for (size_t d = 0; d < tensor.rank; d++)
            json_array_append_new(shape, json_integer((json_int_t)tensor.shape[d]));
        json_array_append_new(all, json_pack("{s:o, s:s, s:o, s:I}", "name",
                                             json_stringn_nocheck(tensor.name, strlen(tensor.name)),
                                             "dtype", tensor.dtype, "shape", shape, "bytes",
                                             (json_int_t)tensor.size));
    }
    return all;
}

static void
s_print_loaded(const lade_cli_t *cli, lade_model_t *model, size_t most, double took_s)
{
    const json_t *answer = lade_model_answer(model), *config = json_object_get(answer, "config");
    char bytes[LADE_SHOW_SIZE], *text;
    const char *name = lade_json_text(config, "name", lade_json_text(answer, "key", "?")),
               *submodel = lade_json_text(answer, "submodel", "");
    bool ordered = !strcmp(lade_json_text(answer, "layout", ""), "channels_last");
    size_t count = lade_model_tensor_count(model);
    int len = count
                  ? asprintf(&text, "%s%s%s: %s of %s%s in %s memory at %s (%zu tensor%s, %.3f s)",
                             name, *submodel ? "/" : "", submodel,
                             lade_show_bytes((int64_t)lade_model_bytes(model), bytes),
                             lade_model_precision(model), ordered ? ", channels last," : "",
                             lade_model_location(model), lade_json_text(answer, "worker", "?"),
                             count, count == 1 ? "" : "s", took_s)
                  : asprintf(&text, "%s%s%s: it has no weights; its files are at %s", name,
                             *submodel ? "/" : "", submodel, lade_model_path(model));
    if (len < 0)
        abort();
    char *wrapped = lade_show_wrap(text, cli->width, S_INDENT);
    puts(wrapped);
    free(wrapped);
    free(text);
    if (lade_json_bool(answer, "unsafe_allowed", false))
        lade_cli_say(cli, "its files would run code when loaded by others; nothing was run here");
    if (count)
        s_print_tensors(cli, model, most);
    fflush(stdout);
}

static void
s_print_loaded_json(lade_model_t *model, size_t most, double took_s)
{
    json_t *answer = json_copy((json_t *)lade_model_answer(model));
    json_object_set_new(answer, "tensor_count",
                        json_integer((json_int_t)lade_model_tensor_count(model)));
    json_object_set_new(answer, "tensors", s_tensors_json(model, most));
    json_object_set_new(answer, "seconds", json_real(took_s));
    lade_cli_print_json(answer);
}

typedef struct {
    lade_cli_t *cli;
    lade_bar_screen_t *screen; // NULL if nobody looks
    lade_bar_progress_t progress;
} s_load_t;

// Whether what goes on is the conversion of a checkpoint that the load waits for.
static bool
s_converts(const json_t *partial, int64_t bytes)
{
    const json_t *part =
        json_array_get(json_object_get(json_object_get(partial, "progress"), "parts"), 0);
    return part && bytes > 0 && lade_json_int(part, "bytes", 0) == bytes;
}

static bool
s_on_partial(void *arg, const json_t *partial)
{
    s_load_t *self = arg;
    int64_t bytes, total;
    char line[1024];
    lade_outcome_bytes(partial, &bytes, &total);
    lade_bar_update(&self->progress, bytes, total, lade_mono_ms());
    if (self->screen) {
        const char *shown = lade_bar_format(&self->progress, self->cli->words[0],
                                            s_converts(partial, bytes)
                                                ? "converting"
                                                : lade_json_text(partial, "status", "loading"),
                                            self->cli->width - 1, line, sizeof line);
        char text[sizeof line + 1];
        snprintf(text, sizeof text, "%s\n", shown);
        lade_bar_screen_draw(self->screen, "", text, self->cli->width);
    }
    return true;
}

// The key of the one record of that name and what else is known of it.
static lade_code_t
s_key_by_attributes(lade_cli_t *cli, const char *name, const char *base, const char *type,
                    char key[LADE_CLI_KEY], lade_error_t *error)
{
    json_t *args = json_pack("{s:o}", "name", json_stringn_nocheck(name, strlen(name))),
           *record = NULL;
    if (base)
        json_object_set_new(args, "base", json_stringn_nocheck(base, strlen(base)));
    if (type)
        json_object_set_new(args, "type", json_stringn_nocheck(type, strlen(type)));
    lade_code_t code = lade_cli_call(cli, "store", "model_info_by_name", args, &record, error);
    snprintf(key, LADE_CLI_KEY, "%s", lade_json_text(record, "key", ""));
    json_decref(record);
    return code;
}

// What the word on the command line names: a file or folder, or a record. *op_p is how it is
// loaded, *id_p (yours) what it is called.
static lade_code_t
s_which(lade_cli_t *cli, const char **op_p, char **id_p, lade_error_t *error)
{
    const char *word = cli->words[0], *base = lade_args_text(&cli->args, "--base", NULL),
               *type = lade_args_text(&cli->args, "--type", NULL);
    char key[LADE_CLI_KEY];
    *op_p = "load_model_from_path";
    *id_p = !base && !type && strchr(word, '/') ? realpath(word, NULL) : NULL;
    if (*id_p)
        return LADE_OK;
    if (*word == '/' || !strncmp(word, "./", 2) || !strncmp(word, "../", 3))
        return lade_error_set(error, LADE_NOT_FOUND, "there is no file or folder %s", word);
    lade_code_t code = base || type ? s_key_by_attributes(cli, word, base, type, key, error)
                                    : lade_cli_key(cli, word, key, error);
    if (code)
        return code;
    *op_p = "load_model_by_key";
    *id_p = strdup(key);
    return LADE_OK;
}

static lade_code_t
s_load(lade_cli_t *cli, lade_model_t **model_p, lade_error_t *error)
{
    s_load_t self = {.cli = cli};
    const char *op;
    char *id = NULL;
    lade_code_t code = s_which(cli, &op, &id, error);
    if (code)
        return code;
    json_t *args = json_pack("{s:b, s:o}", "partial", 1, strstr(op, "path") ? "path" : "key",
                             json_stringn_nocheck(id, strlen(id)));
    if (cli->terminal && !cli->quiet && isatty(STDERR_FILENO))
        self.screen = lade_bar_screen_new(stderr);
    static const struct {
        const char *option, *key;
    } words[] = {{"--submodel", "submodel"}, {"--dtype", "dtype"}, {"--layout", "layout"},
                 {"--device", "device"},     {"--base", "base"},   {"--type", "type"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const char *word = lade_args_text(&cli->args, words[i].option, NULL);
        if (word)
            json_object_set_new(args, words[i].key, json_stringn_nocheck(word, strlen(word)));
    }
    if (lade_args_flag(&cli->args, "--allow-unsafe"))
        json_object_set_new(args, "allow_unsafe", json_stringn_nocheck(id, strlen(id)));
    double timeout_s = lade_args_real(&cli->args, "--timeout", 0);
    if (timeout_s > 0)
        json_object_set_new(args, "timeout_s", json_real(timeout_s));
    code = lade_model_load(cli->client, op, args, s_on_partial, &self, model_p, error);
    lade_bar_screen_destroy(&self.screen);
    free(id);
    return code;
}

static lade_code_t
s_most_tensors(const lade_cli_t *cli, size_t *most_p, lade_error_t *error)
{
    const char *text = lade_args_text(&cli->args, "--tensors", NULL);
    // People look at a few; a program that asks for JSON wants to see them all.
    *most_p = cli->json ? SIZE_MAX : S_TENSORS;
    if (!text)
        return LADE_OK;
    char *end;
    errno = 0;
    uintmax_t most = strtoumax(text, &end, 10);
    if (strcmp(text, "all") == 0)
        most = SIZE_MAX;
    else if (errno || end == text || *end || *text == '-')
        return lade_error_set(error, LADE_USAGE, "--tensors: '%s' is neither a number nor all",
                              text);
    *most_p = (size_t)most;
    return LADE_OK;
}

lade_code_t
lade_cmd_load_run(lade_cli_t *cli, lade_error_t *error)
{
    size_t most;
    lade_model_t *model = NULL;
    lade_code_t code = s_most_tensors(cli, &most, error);
    if (!code)
        code = lade_cli_catch(cli, error);
    int64_t from = lade_mono_ms();
    if (!code)
        code = s_load(cli, &model, error);
    if (code)
        return code;
    double took_s = (double)(lade_mono_ms() - from) / 1000;
    if (cli->json)
        s_print_loaded_json(model, most, took_s);
    else
        s_print_loaded(cli, model, most, took_s);
    if (lade_args_flag(&cli->args, "--hold")) {
        lade_cli_say(cli, "held; Ctrl-C gives it back");
        poll(&(struct pollfd){.fd = cli->stop, .events = POLLIN}, 1, -1);
    }
    lade_unlock(&model);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// unload, cache

lade_code_t
lade_cmd_load_unload(lade_cli_t *cli, lade_error_t *error)
{
    json_t *args = json_object(), *result = NULL;
    char key[LADE_CLI_KEY];
    const char *submodel = lade_args_text(&cli->args, "--submodel", NULL);
    lade_code_t code = cli->word_count ? lade_cli_key(cli, cli->words[0], key, error) : LADE_OK;
    if (!code && cli->word_count)
        json_object_set_new(args, "key", json_string(key));
    if (submodel)
        json_object_set_new(args, "submodel", json_stringn_nocheck(submodel, strlen(submodel)));
    if (code) {
        json_decref(args);
        return code;
    }
    code = lade_cli_call(cli, "load", "unload", args, &result, error);
    if (!code && cli->json)
        lade_cli_print_json(json_incref(result));
    else if (!code)
        printf("models freed: %" PRId64 "\n", lade_json_int(result, "unloaded", 0));
    if (!code && lade_json_int(result, "unloaded", 0) == 0)
        lade_cli_say(cli,
                     "none is in memory that nobody has locked; `lade cache` shows what is there");
    json_decref(result);
    return code;
}

// "pid 12, 17", empty if nobody has it.
static const char *
s_locked_by(const json_t *model, char *text, size_t size)
{
    const json_t *pids = json_object_get(model, "locked_by");
    *text = '\0';
    for (size_t i = 0; i < json_array_size(pids); i++) {
        const json_t *pid = json_array_get(pids, i);
        size_t len = strlen(text);
        if (json_is_integer(pid))
            snprintf(text + len, size - len, "%s%" JSON_INTEGER_FORMAT, len ? ", " : "pid ",
                     json_integer_value(pid));
    }
    return text;
}

static void
s_print_held(const lade_cli_t *cli, const json_t *models)
{
    static const lade_table_column_t columns[] = {
        {"KEY", LADE_TABLE_LEFT},      {"SUBMODEL", LADE_TABLE_LEFT},
        {"NAME", LADE_TABLE_CUT_HEAD}, {"NUMBERS", LADE_TABLE_LEFT},
        {"WHERE", LADE_TABLE_LEFT},    {"BYTES", LADE_TABLE_RIGHT},
        {"LOCKS", LADE_TABLE_RIGHT},   {"LOCKED BY", LADE_TABLE_CUT},
        {"USED", LADE_TABLE_LEFT},     {0}};
    lade_table_t *table = lade_table_new(columns);
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *model = json_array_get(models, i);
        char bytes[LADE_SHOW_SIZE], used[LADE_SHOW_SIZE], by[128];
        const char *key = lade_json_text(model, "key", "");
        double at = lade_json_real(model, "last_used", 0);
        bool ordered = !strcmp(lade_json_text(model, "layout", ""), "channels_last");
        lade_table_addf(table, "%.*s", cli->width ? 8 : 32, *key == '/' ? "-" : key); // a path
        lade_table_add(table, lade_json_text(model, "submodel", ""));
        lade_table_add(table, lade_json_text(model, "name", ""));
        lade_table_addf(table, "%s%s", lade_json_text(model, "precision", ""),
                        ordered ? ", channels last" : "");
        lade_table_add(table, lade_json_text(model, "device", "cpu"));
        lade_table_add(table, lade_show_bytes(lade_json_int(model, "bytes", 0), bytes));
        lade_table_addf(table, "%" PRId64, lade_json_int(model, "locks", 0));
        lade_table_add(table, s_locked_by(model, by, sizeof by));
        lade_table_add(table, lade_json_bool(model, "loading", false) ? "loading"
                              : at > 0                                ? lade_show_time(at, used)
                                                                      : "");
    }
    if (lade_table_rows(table))
        lade_table_print(table, stdout, cli->width);
    lade_table_destroy(&table);
}

// One line for the host, one for each device, then what is held.
static void
s_print_cache(const lade_cli_t *cli, const char *worker, const json_t *stats)
{
    char bytes[LADE_SHOW_SIZE], limit[LADE_SHOW_SIZE], most[LADE_SHOW_SIZE];
    int64_t hits = lade_json_int(stats, "hits", 0), misses = lade_json_int(stats, "misses", 0);
    char *text, *wrapped;
    if (asprintf(&text,
                 "%s: %s of %s, at most %s; %" PRId64 " models, %" PRId64 " hits, %" PRId64
                 " misses, %" PRId64 " evicted",
                 worker, lade_show_bytes(lade_json_int(stats, "bytes", 0), bytes),
                 lade_show_bytes(lade_json_int(stats, "limit_bytes", 0), limit),
                 lade_show_bytes(lade_json_int(stats, "high_watermark", 0), most),
                 lade_json_int(stats, "in_cache", 0), hits, misses,
                 lade_json_int(stats, "evictions", 0)) < 0)
        abort();
    puts(wrapped = lade_show_wrap(text, cli->width, S_INDENT));
    free(wrapped);
    free(text);
    const json_t *devices = json_object_get(stats, "devices");
    for (size_t i = 0; i < json_array_size(devices); i++) {
        const json_t *device = json_array_get(devices, i);
        printf("  %s  %s of %s, at most %s  %" PRId64 " evicted, %" PRId64 " to the host\n",
               lade_json_text(device, "name", "?"),
               lade_show_bytes(lade_json_int(device, "bytes", 0), bytes),
               lade_show_bytes(lade_json_int(device, "limit_bytes", 0), limit),
               lade_show_bytes(lade_json_int(device, "high_watermark", 0), most),
               lade_json_int(device, "evictions", 0), lade_json_int(device, "demotions", 0));
    }
    s_print_held(cli, json_object_get(stats, "models"));
}

lade_code_t
lade_cmd_load_cache(lade_cli_t *cli, lade_error_t *error)
{
    if (lade_args_flag(&cli->args, "--files") || lade_args_flag(&cli->args, "--clear"))
        return lade_cmd_filecache_show(cli, error);
    json_t *all = NULL;
    lade_code_t code = lade_cli_call(cli, "load", "cache_stats", NULL, &all, error);
    if (code)
        return code;
    const char *worker;
    json_t *stats;
    if (cli->json)
        lade_cli_print_json(json_incref(all));
    else
        json_object_foreach(all, worker, stats) s_print_cache(cli, worker, stats);
    if (!cli->json && json_object_size(all) == 0)
        lade_cli_say(cli, "no worker that loads models is there");
    json_decref(all);
    return LADE_OK;
}
