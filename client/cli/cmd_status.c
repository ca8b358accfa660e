// lade status, workers, gates, set, top.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "client/cli/table.h"
#include "common/wire.h"

#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static lade_code_t
s_ask(lade_cli_t *cli, const char *op, json_t **result_p, lade_error_t *error)
{
    return lade_cli_call(cli, "broker", op, NULL, result_p, error);
}

// ---------------------------------------------------------------------------------------------------
// status

// The counts of one kind's jobs: {"completed": 3, "error": 1} as "3 completed, 1 error".
static void
s_print_counts(const char *kind, const json_t *counts)
{
    const char *status;
    json_t *count;
    bool first = true;
    printf("  %-10s", kind);
    json_object_foreach((json_t *)counts, status, count)
    {
        if (json_integer_value(count) > 0)
            printf("%s%" JSON_INTEGER_FORMAT " %s", first ? "" : ", ", json_integer_value(count),
                   status);
        first = first && json_integer_value(count) <= 0;
    }
    puts(first ? "none" : "");
}

// What the farm reads now and may read, if there is anything to say.
static void
s_print_rate(const json_t *status)
{
    int64_t rate = lade_json_int(status, "rate", 0), most = lade_json_int(status, "bytes_per_s", 0);
    char now[LADE_SHOW_SIZE], limit[LADE_SHOW_SIZE];
    if (most > 0)
        printf("downloads %s/s, limited to %s/s\n", lade_show_bytes(rate, now),
               lade_show_bytes(most, limit));
    else if (rate > 0)
        printf("downloads %s/s\n", lade_show_bytes(rate, now));
}

static void
s_print_status(const lade_cli_t *cli, const json_t *status)
{
    char span[LADE_SHOW_SIZE], bytes[LADE_SHOW_SIZE];
    const json_t *jobs = json_object_get(status, "jobs");
    double uptime = lade_json_real(status, "uptime", 0);
    printf("broker %s at %s, up %s\n", lade_json_text(status, "version", "?"),
           lade_request_endpoint(cli->client), lade_show_span(uptime, span));
    int64_t count = lade_json_int(status, "workers", 0);
    char *epoch = lade_cli_member(status, "epoch");
    printf("workers %" PRId64 ", models %" PRId64 ", queue %" PRId64 ", keyspace %s, seq %" PRId64
           ", epoch %s\n",
           count, lade_json_int(status, "models", 0), lade_json_int(status, "queue", 0),
           lade_show_bytes(lade_json_int(status, "keyspace_bytes", 0), bytes),
           lade_json_int(status, "seq", 0), epoch);
    free(epoch);
    s_print_rate(status);
    const char *kind;
    json_t *counts;
    if (json_object_size(jobs))
        puts("jobs");
    json_object_foreach((json_t *)jobs, kind, counts)
    {
        if (json_object_size(counts))
            s_print_counts(kind, counts);
    }
}

lade_code_t
lade_cmd_status_run(lade_cli_t *cli, lade_error_t *error)
{
    json_t *status = NULL;
    lade_code_t code = s_ask(cli, "status", &status, error);
    if (code)
        return code;
    if (cli->json)
        lade_cli_print_json(json_incref(status));
    else
        s_print_status(cli, status);
    json_decref(status);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// workers

// The devices of a worker that loads models, or why it has none.
static void
s_print_devices(const lade_cli_t *cli, const json_t *worker)
{
    enum { S_INDENT = 2 };
    const json_t *stats = json_object_get(worker, "stats"), *device;
    const char *why = lade_json_text(stats, "no_device", NULL);
    char held[LADE_SHOW_SIZE], limit[LADE_SHOW_SIZE], total[LADE_SHOW_SIZE];
    size_t i;
    json_array_foreach(json_object_get(stats, "devices"), i, device)
        printf("%s  %s  %s  %s of %s for models, %s in all%s\n", lade_json_text(worker, "name", ""),
               lade_json_text(device, "name", ""), lade_json_text(device, "model", ""),
               lade_show_bytes(lade_json_int(device, "bytes", 0), held),
               lade_show_bytes(lade_json_int(device, "limit_bytes", 0), limit),
               lade_show_bytes(lade_json_int(device, "total_bytes", 0), total),
               lade_json_bool(device, "lost", false) ? "  LOST" : "");
    char *text, *wrapped;
    if (!why)
        return;
    if (asprintf(&text, "%s  no device: %s", lade_json_text(worker, "name", ""), why) < 0)
        abort();
    puts(wrapped = lade_show_wrap(text, cli->width, S_INDENT));
    free(wrapped);
    free(text);
}

static void
s_print_workers(const lade_cli_t *cli, const json_t *workers)
{
    // The name holds host and process already.
    static const lade_table_column_t columns[] = {
        {"WORKER", LADE_TABLE_CUT}, {"KINDS", LADE_TABLE_CUT},
        {"BUSY", LADE_TABLE_RIGHT}, {"SLOTS", LADE_TABLE_RIGHT},
        {"SINCE", LADE_TABLE_LEFT}, {"BEAT", LADE_TABLE_RIGHT},
        {"JOBS", LADE_TABLE_CUT},   {0}};
    lade_table_t *table = lade_table_new(columns);
    for (size_t i = 0; i < json_array_size(workers); i++) {
        const json_t *worker = json_array_get(workers, i);
        char *kinds = lade_cli_member(worker, "kinds"), *jobs = lade_cli_member(worker, "jobs");
        char since[LADE_SHOW_SIZE];
        double at = lade_json_real(worker, "since", 0),
               beat = lade_json_real(worker, "last_beat", 0);
        lade_table_add(table, lade_json_text(worker, "name", ""));
        lade_table_add(table, kinds);
        lade_table_addf(table, "%" PRId64, lade_json_int(worker, "busy", 0));
        lade_table_addf(table, "%" PRId64, lade_json_int(worker, "slots", 0));
        lade_table_add(table, at > 0 ? lade_show_time(at, since) : "");
        if (beat > 0)
            lade_table_addf(table, "%.1fs", lade_now() > beat ? lade_now() - beat : 0.0);
        else
            lade_table_add(table, "");
        lade_table_add(table, jobs);
        free(kinds);
        free(jobs);
    }
    if (json_array_size(workers))
        lade_table_print(table, stdout, cli->width);
    lade_table_destroy(&table);
    for (size_t i = 0; i < json_array_size(workers); i++)
        s_print_devices(cli, json_array_get(workers, i));
}

lade_code_t
lade_cmd_status_workers(lade_cli_t *cli, lade_error_t *error)
{
    json_t *workers = NULL;
    lade_code_t code = s_ask(cli, "workers", &workers, error);
    if (code)
        return code;
    if (cli->json)
        lade_cli_print_json(json_incref(workers));
    else
        s_print_workers(cli, workers);
    if (!cli->json && !json_array_size(workers))
        lade_cli_say(cli, "no workers: `lade up` starts one of each kind beside its broker");
    json_decref(workers);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// gates, set

static void
s_print_gates(const lade_cli_t *cli, const json_t *gates)
{
    static const lade_table_column_t columns[] = {
        {"GATE", LADE_TABLE_CUT},      {"LIMIT", LADE_TABLE_RIGHT},
        {"RUNNING", LADE_TABLE_RIGHT}, {"CONNECTIONS", LADE_TABLE_RIGHT},
        {"WAITING", LADE_TABLE_RIGHT}, {"CLOSED FOR", LADE_TABLE_RIGHT},
        {"REASON", LADE_TABLE_CUT},    {0}};
    lade_table_t *table = lade_table_new(columns);
    for (size_t i = 0; i < json_array_size(gates); i++) {
        const json_t *gate = json_array_get(gates, i);
        char span[LADE_SHOW_SIZE];
        double closed = lade_json_real(gate, "closed_until", 0) - lade_now();
        lade_table_add(table, lade_json_text(gate, "gate", ""));
        lade_table_addf(table, "%.0" PRId64, lade_json_int(gate, "limit", 0));
        lade_table_addf(table, "%" PRId64, lade_json_int(gate, "running", 0));
        lade_table_addf(table, "%.0" PRId64, lade_json_int(gate, "connections", 0));
        lade_table_addf(table, "%" PRId64, lade_json_int(gate, "waiting", 0));
        lade_table_add(table, closed > 0 ? lade_show_span(closed, span) : "");
        lade_table_add(table, lade_json_text(gate, "reason", ""));
    }
    if (json_array_size(gates))
        lade_table_print(table, stdout, cli->width);
    lade_table_destroy(&table);
}

lade_code_t
lade_cmd_status_gates(lade_cli_t *cli, lade_error_t *error)
{
    json_t *gates = NULL;
    lade_code_t code = s_ask(cli, "gates", &gates, error);
    if (code)
        return code;
    if (cli->json)
        lade_cli_print_json(json_incref(gates));
    else
        s_print_gates(cli, gates);
    if (!cli->json && !json_array_size(gates))
        lade_cli_say(cli, "no gate holds anything back");
    json_decref(gates);
    return LADE_OK;
}

// The arguments of `broker.set`, or what is wrong with those given.
static lade_code_t
s_set_args(const lade_cli_t *cli, json_t *args, lade_error_t *error)
{
    const lade_args_t *given = &cli->args;
    bool limit = lade_args_flag(given, "--limit"), close = lade_args_flag(given, "--close-for"),
         rate = lade_args_flag(given, "--rate"), job = lade_args_flag(given, "--job"),
         gate = cli->word_count > 0;
    if (gate ? !(limit || close) || rate || job : !rate || limit || close)
        return lade_error_set(error, LADE_USAGE,
                              "say what to set: GATE --limit N, GATE --close-for SECONDS, "
                              "--rate BYTES, or --job ID --rate BYTES");
    if (gate)
        json_object_set_new(args, "gate",
                            json_stringn_nocheck(cli->words[0], strlen(cli->words[0])));
    if (limit)
        json_object_set_new(args, "limit", json_integer(lade_args_number(given, "--limit", 0)));
    if (close)
        json_object_set_new(args, "closed_for_s",
                            json_real(lade_args_real(given, "--close-for", 0)));
    if (job)
        json_object_set_new(args, "job", json_integer(lade_args_number(given, "--job", 0)));
    if (rate)
        json_object_set_new(args, "bytes_per_s", json_integer(lade_args_bytes(given, "--rate", 0)));
    return LADE_OK;
}

static void
s_print_set(const lade_cli_t *cli, const json_t *answer)
{
    int64_t rate = lade_json_int(answer, "bytes_per_s", 0), id = lade_json_int(answer, "id", 0);
    char text[LADE_SHOW_SIZE] = "any number of bytes";
    if (json_object_get(answer, "gate")) {
        json_t *gates = json_pack("[O]", answer);
        s_print_gates(cli, gates);
        json_decref(gates);
        return;
    }
    if (rate)
        lade_show_bytes(rate, text);
    if (id)
        printf("job %" PRId64 " may read %s a second\n", id, text);
    else
        printf("all downloads together may read %s a second\n", text);
}

lade_code_t
lade_cmd_status_set(lade_cli_t *cli, lade_error_t *error)
{
    json_t *args = json_object(), *answer = NULL;
    lade_code_t code = s_set_args(cli, args, error);
    if (code) {
        json_decref(args);
        return code;
    }
    code = lade_cli_call(cli, "broker", "set", args, &answer, error);
    if (code)
        return code;
    if (cli->json)
        lade_cli_print_json(json_incref(answer));
    else
        s_print_set(cli, answer);
    json_decref(answer);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// top

static void
s_print_live_jobs(const lade_cli_t *cli, const json_t *jobs)
{
    static const lade_table_column_t columns[] = {
        {"JOB", LADE_TABLE_RIGHT},  {"KIND", LADE_TABLE_LEFT},       {"STATUS", LADE_TABLE_LEFT},
        {"DONE", LADE_TABLE_RIGHT}, {"SOURCE", LADE_TABLE_CUT_HEAD}, {0}};
    enum { S_MOST = 15 };
    lade_table_t *table = lade_table_new(columns);
    size_t count = json_array_size(jobs);
    for (size_t i = 0; i < count && i < S_MOST; i++) {
        const json_t *job = json_array_get(jobs, i), *progress = json_object_get(job, "progress");
        int64_t total = lade_json_int(progress, "total_bytes", 0),
                bytes = lade_json_int(progress, "bytes", 0);
        char *source = lade_cli_member(job, "source");
        lade_table_addf(table, "%" PRId64, lade_json_int(job, "id", -1));
        lade_table_add(table, lade_json_text(job, "kind", ""));
        lade_table_add(table, lade_json_text(job, "status", ""));
        if (total > 0)
            lade_table_addf(table, "%.0f%%", (double)bytes * 100 / (double)total);
        else
            lade_table_add(table, "");
        lade_table_add(table, source);
        free(source);
    }
    if (count)
        lade_table_print(table, stdout, cli->width);
    if (count > S_MOST)
        printf("… and %zu more\n", count - S_MOST);
    lade_table_destroy(&table);
}

static lade_code_t
s_print_screen(lade_cli_t *cli, lade_error_t *error)
{
    json_t *status = NULL, *workers = NULL, *snapshot = NULL;
    lade_code_t code = s_ask(cli, "status", &status, error);
    if (!code && cli->terminal)
        code = s_ask(cli, "workers", &workers, error);
    if (!code && cli->terminal)
        code = lade_cli_call(cli, "events", "snapshot", NULL, &snapshot, error);
    if (!code && cli->terminal)
        fputs("\033[H\033[J", stdout); // home, erase to the end
    if (!code && cli->json)
        lade_cli_print_json(json_incref(status));
    else if (!code)
        s_print_status(cli, status);
    if (!code && cli->terminal) {
        putchar('\n');
        s_print_workers(cli, workers);
        putchar('\n');
        s_print_live_jobs(cli, json_object_get(snapshot, "jobs"));
    }
    fflush(stdout);
    json_decref(status);
    json_decref(workers);
    json_decref(snapshot);
    return code;
}

lade_code_t
lade_cmd_status_top(lade_cli_t *cli, lade_error_t *error)
{
    int64_t left = lade_args_number(&cli->args, "--count", -1);
    int wait_ms = (int)(lade_args_real(&cli->args, "--interval", 1) * 1000);
    lade_code_t code = lade_cli_catch(cli, error);
    // The screen under ours comes back at the end.
    if (!code && cli->terminal)
        fputs("\033[?1049h\033[?25l", stdout);
    while (!code && left != 0) {
        code = s_print_screen(cli, error);
        left -= left > 0;
        if (!code && left != 0 &&
            poll(&(struct pollfd){.fd = cli->stop, .events = POLLIN}, 1, wait_ms) > 0)
            break;
    }
    if (cli->terminal)
        fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    return code == LADE_CANCELLED ? LADE_OK : code;
}
