// lade jobs, job, pause, resume, cancel, retry, prune.
#include "client/cli/commands.h"
#include "client/cli/show.h"
#include "client/cli/table.h"
#include "client/outcome.h"
#include "common/buf.h"
#include "common/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static lade_code_t
s_id(const char *word, json_int_t *id_p, lade_error_t *error)
{
    char *end;
    errno = 0;
    intmax_t id = strtoimax(word, &end, 10);
    if (errno || end == word || *end || id < 0)
        return lade_error_set(error, LADE_USAGE, "'%s' is no job's id; `lade jobs` lists them",
                              word);
    *id_p = (json_int_t)id;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// jobs

// "1.2 GiB of 4 GiB", or the reason of a failure: what one wants to know of a job at a glance.
static char *
s_remark(const json_t *job)
{
    const char *failure = lade_json_text(job, "error", NULL);
    int64_t bytes, total;
    char done[LADE_SHOW_SIZE], all[LADE_SHOW_SIZE], *text = NULL;
    lade_outcome_bytes(job, &bytes, &total);
    if (failure && *failure)
        return strdup(failure);
    if (total > 0 && bytes < total && !lade_outcome_ended(job)) {
        if (asprintf(&text, "%s of %s", lade_show_bytes(bytes, done), lade_show_bytes(total, all)) <
            0)
            text = NULL;
    } else if (bytes > 0)
        text = strdup(lade_show_bytes(bytes, done));
    return text ? text : strdup("");
}

static void
s_print_jobs(const lade_cli_t *cli, const json_t *jobs)
{
    static const lade_table_column_t columns[] = {
        {"ID", LADE_TABLE_RIGHT},    {"KIND", LADE_TABLE_LEFT},
        {"STATUS", LADE_TABLE_LEFT}, {"FAILED", LADE_TABLE_RIGHT},
        {"SINCE", LADE_TABLE_LEFT},  {"SOURCE", LADE_TABLE_CUT_HEAD},
        {"REMARK", LADE_TABLE_CUT},  {0}};
    lade_table_t *table = lade_table_new(columns);
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        const json_t *job = json_array_get(jobs, i);
        if (json_is_object(json_object_get(job, "error")))
            continue; // a refusal, told on standard error
        int64_t failed = lade_json_int(job, "failures", 0) + lade_json_int(job, "deaths", 0);
        double since = lade_json_real(job, "job_ended", 0);
        since = since > 0 ? since : lade_json_real(job, "job_started", 0);
        since = since > 0 ? since : lade_json_real(job, "job_submitted", 0);
        char time_text[LADE_SHOW_SIZE] = "", *remark = s_remark(job),
             *source = lade_cli_member(job, "source");
        lade_table_addf(table, "%" PRId64, lade_json_int(job, "id", -1));
        lade_table_add(table, lade_json_text(job, "kind", ""));
        lade_table_add(table, lade_json_text(job, "status", ""));
        lade_table_addf(table, "%.0" PRId64, failed);
        lade_table_add(table, since > 0 ? lade_show_time(since, time_text) : "");
        lade_table_add(table, source);
        lade_table_add(table, remark);
        free(remark);
        free(source);
    }
    if (lade_table_rows(table))
        lade_table_print(table, stdout, cli->width);
    lade_table_destroy(&table);
}

// The downloads of an install say little beside it: they are listed with it alone, or when asked
// for.
static void
s_drop_parts(json_t *jobs)
{
    for (size_t i = json_array_size(jobs); i-- > 0;)
        if (lade_json_int(json_array_get(jobs, i), "parent", 0) > 0)
            json_array_remove(jobs, i);
}

static void
s_add_option(const lade_cli_t *cli, const char *option, const char *key, json_t *args)
{
    const char *text = lade_args_text(&cli->args, option, NULL);
    if (text)
        json_object_set_new(args, key, json_stringn_nocheck(text, strlen(text)));
}

lade_code_t
lade_cmd_jobs_list(lade_cli_t *cli, lade_error_t *error)
{
    json_t *args = json_object(), *jobs;
    s_add_option(cli, "--kind", "kind", args);
    s_add_option(cli, "--status", "status", args);
    lade_code_t code = lade_cli_list(cli, "jobs", "list", args, &jobs, error);
    if (code)
        return code;
    const lade_args_t *given = &cli->args;
    if (!lade_args_flag(given, "--all") && !lade_args_flag(given, "--kind") &&
        !lade_args_flag(given, "--status"))
        s_drop_parts(jobs);
    size_t last = (size_t)lade_args_number(&cli->args, "--last", INT32_MAX);
    while (json_array_size(jobs) > last)
        json_array_remove(jobs, 0);
    if (cli->json)
        lade_cli_print_json(json_incref(jobs));
    else
        s_print_jobs(cli, jobs);
    if (!cli->json && !json_array_size(jobs))
        lade_cli_say(cli, "no jobs");
    json_decref(jobs);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// job

static void
s_set_text(json_t *map, const char *key, const char *text)
{
    json_object_set_new(map, key, json_stringn_nocheck(text, strlen(text)));
}

// {"host": "a", "gpu": "h100"} as "host=a, gpu=h100". You free it.
static char *
s_labels(const json_t *labels)
{
    lade_buf_t list = LADE_BUF(1 << 20);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)labels, key, value)
        lade_buf_addf(&list, NULL, "%s%s=%s", list.len ? ", " : "", key,
                      json_is_string(value) ? json_string_value(value) : "?");
    return list.data ? lade_buf_take(&list) : strdup("");
}

// Members of a download and of what came of it, under the names people read.
static void
s_add_download(json_t *shown, const json_t *job)
{
    static const char *const of_result[] = {"etag", "sha256", "final_url", "content_type"};
    const json_t *result = json_object_get(job, "result");
    char text[LADE_SHOW_SIZE];
    const char *path = lade_json_text(job, "download_path", NULL),
               *asked = lade_json_text(job, "destination", NULL);
    if (path && asked && strcmp(path, asked) != 0)
        s_set_text(shown, "file", path);
    for (size_t i = 0; i < sizeof of_result / sizeof *of_result; i++)
        if (lade_json_text(result, of_result[i], NULL))
            s_set_text(shown, of_result[i], lade_json_text(result, of_result[i], ""));
    if (lade_json_int(result, "resumed_from", 0) > 0)
        s_set_text(shown, "resumed_from",
                   lade_show_bytes(lade_json_int(result, "resumed_from", 0), text));
    if (lade_json_bool(job, "preserve_partial_downloads", false))
        s_set_text(shown, "on failure", "what was fetched is kept");
}

// How fast it goes, from two looks at it.
static void
s_add_rate(lade_cli_t *cli, json_t *job)
{
    enum { S_LOOK_MS = 400 };
    char text[LADE_SHOW_SIZE], rate[LADE_SHOW_SIZE + 16];
    int64_t before, after, total, start = lade_mono_ms();
    json_t *now = NULL;
    if (strcmp(lade_json_text(job, "status", ""), "running") != 0 &&
        strcmp(lade_json_text(job, "status", ""), "waiting") != 0)
        return;
    lade_outcome_bytes(job, &before, &total);
    struct timespec span = {.tv_nsec = S_LOOK_MS * 1000000L};
    nanosleep(&span, NULL);
    if (lade_cli_call(cli, "jobs", "get",
                      json_pack("{s:I}", "id", (json_int_t)lade_json_int(job, "id", 0)), &now,
                      NULL))
        return;
    lade_outcome_bytes(now, &after, &total);
    int64_t took = lade_mono_ms() - start;
    if (after > before && took > 0) {
        snprintf(rate, sizeof rate, "%s/s", lade_show_bytes((after - before) * 1000 / took, text));
        s_set_text(job, "rate", rate);
    }
    json_decref(now);
}

static void
s_print_job(const lade_cli_t *cli, const json_t *job, const json_t *why)
{
    static const char *const keys[] = {
        "id",        "kind",    "status",    "why",          "source",      "destination",
        "file",      "bytes",   "rate",      "at most",      "connections", "resumed_from",
        "etag",      "sha256",  "final_url", "content_type", "on failure",  "priority",
        "failures",  "deaths",  "worker",    "parent",       "gates",       "requires",
        "submitted", "started", "ended",     "error_type",   "error",       NULL};
    static const char *const zeros[] = {"failures", "deaths", "connections"}; // not worth a line
    static const char *const times[][2] = {
        {"job_submitted", "submitted"}, {"job_started", "started"}, {"job_ended", "ended"}};
    char text[LADE_SHOW_SIZE], all[LADE_SHOW_SIZE], both[2 * LADE_SHOW_SIZE + 8];
    json_t *shown = json_copy((json_t *)job);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (lade_json_real(job, times[i][0], 0) > 0)
            s_set_text(shown, times[i][1],
                       lade_show_time(lade_json_real(job, times[i][0], 0), text));
    int64_t bytes, total;
    lade_outcome_bytes(job, &bytes, &total);
    snprintf(both, sizeof both, "%s of %s", lade_show_bytes(bytes, text),
             total ? lade_show_bytes(total, all) : "an unknown number");
    bool all_there = lade_outcome_ended(job) && bytes >= total;
    s_set_text(shown, "bytes", bytes || total ? all_there ? text : both : "");
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++)
        if (lade_json_int(job, zeros[i], 0) == 0)
            json_object_del(shown, zeros[i]);
    snprintf(both, sizeof both, "%s a second",
             lade_show_bytes(lade_json_int(job, "bytes_per_s", 0), text));
    s_set_text(shown, "at most", lade_json_int(job, "bytes_per_s", 0) ? both : "");
    char *labels = s_labels(json_object_get(job, "requires"));
    s_set_text(shown, "requires", labels);
    free(labels);
    if (strcmp(lade_json_text(job, "kind", ""), "download") == 0)
        s_add_download(shown, job);
    s_set_text(shown, "why", lade_outcome_ended(job) ? "" : lade_json_text(why, "why", ""));
    lade_cli_print_members(cli, shown, keys);
    json_decref(shown);
}

lade_code_t
lade_cmd_jobs_show(lade_cli_t *cli, lade_error_t *error)
{
    json_int_t id;
    json_t *job = NULL, *why = NULL, *children = NULL;
    lade_code_t code = s_id(cli->words[0], &id, error);
    if (!code)
        code = lade_cli_call(cli, "jobs", "get", json_pack("{s:I}", "id", id), &job, error);
    if (!code)
        code = lade_cli_call(cli, "jobs", "why", json_pack("{s:I}", "id", id), &why, error);
    if (!code && cli->json) {
        json_object_set(job, "why", why);
        lade_cli_print_json(json_incref(job));
    } else if (!code) {
        if (strcmp(lade_json_text(job, "kind", ""), "download") == 0)
            s_add_rate(cli, job);
        s_print_job(cli, job, why);
        code =
            lade_cli_list(cli, "jobs", "list", json_pack("{s:I}", "parent", id), &children, error);
        if (json_array_size(children))
            puts("its parts");
        s_print_jobs(cli, children);
    }
    json_decref(children);
    json_decref(job);
    json_decref(why);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// pause, resume, cancel, retry

static lade_code_t
s_ids(const lade_cli_t *cli, json_t *ids, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < cli->word_count && !code; i++) {
        json_int_t id = 0;
        code = s_id(cli->words[i], &id, error);
        json_array_append_new(ids, json_integer(id));
    }
    return code;
}

// Adds the jobs of an answer: one job or several.
static void
s_extend(json_t *jobs, json_t *answer)
{
    if (json_is_array(answer))
        json_array_extend(jobs, answer);
    else if (json_is_object(answer))
        json_array_append(jobs, answer);
    json_decref(answer);
}

// One request a job, so that each is told what is the matter with it. The first failure is
// returned.
static lade_code_t
s_change_each(lade_cli_t *cli, const char *op, const json_t *ids, json_t *changed,
              lade_error_t *error)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        json_t *id = json_array_get(ids, i), *answer = NULL;
        lade_error_t own = {0};
        lade_code_t code =
            lade_cli_call(cli, "jobs", op, json_pack("{s:O}", "id", id), &answer, &own);
        s_extend(changed, answer);
        if (!code)
            continue;
        if (!error->code)
            *error = own;
        if (json_array_size(ids) == 1 || code == LADE_BROKER_UNREACHABLE)
            return error->code;
        cli->said = true;
        lade_cli_complain(cli->words[i], &own);
        json_array_append_new(
            changed, json_pack("{s:O, s:o}", "id", id, "error", lade_cli_error_json(&own)));
    }
    return error->code;
}

static lade_code_t
s_change_all(lade_cli_t *cli, const char *op, json_t *changed, lade_error_t *error)
{
    json_t *args = json_pack("{s:b}", "all", 1), *answer = NULL;
    s_add_option(cli, "--kind", "kind", args);
    lade_code_t code = lade_cli_call(cli, "jobs", op, args, &answer, error);
    s_extend(changed, answer);
    return code;
}

// "50 jobs paused: 48 download, 2 install".
static void
s_print_summary(const lade_cli_t *cli, const json_t *jobs)
{
    static const char *const deeds[][2] = {
        {"pause", "paused"}, {"resume", "resumed"}, {"cancel", "cancelled"}, {"retry", "retried"}};
    const char *deed = "changed", *kind;
    json_t *counts = json_object(), *count;
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++)
        if (strcmp(cli->command->name, deeds[i][0]) == 0)
            deed = deeds[i][1];
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        kind = lade_json_text(json_array_get(jobs, i), "kind", "?");
        json_object_set_new(counts, kind,
                            json_integer((json_int_t)lade_json_int(counts, kind, 0) + 1));
    }
    size_t all = json_array_size(jobs), n = 0;
    printf("%zu job%s %s: ", all, all == 1 ? "" : "s", deed);
    json_object_foreach(counts, kind, count)
        printf("%s%" JSON_INTEGER_FORMAT " %s", n++ ? ", " : "", json_integer_value(count), kind);
    putchar('\n');
    json_decref(counts);
}

lade_code_t
lade_cmd_jobs_change(lade_cli_t *cli, lade_error_t *error)
{
    const char *op = strcmp(cli->command->name, "resume") == 0 ? "start" : cli->command->name;
    bool all = lade_args_flag(&cli->args, "--all");
    if (all == (cli->word_count > 0))
        return lade_error_set(error, LADE_USAGE,
                              "say which jobs: their ids, or --all (and not both)");
    json_t *ids = json_array(), *changed = json_array();
    lade_code_t code = s_ids(cli, ids, error);
    if (!code)
        code = all ? s_change_all(cli, op, changed, error)
                   : s_change_each(cli, op, ids, changed, error);
    if (cli->json && (!code || cli->said))
        lade_cli_print_json(json_incref(changed));
    else if (!cli->json && json_array_size(changed))
        (all ? s_print_summary : s_print_jobs)(cli, changed);
    else if (!code && !json_array_size(changed))
        lade_cli_say(cli, "no job to %s", cli->command->name);
    json_decref(ids);
    json_decref(changed);
    return code;
}

lade_code_t
lade_cmd_jobs_prune(lade_cli_t *cli, lade_error_t *error)
{
    json_t *args = json_object(), *ids = json_array(), *result = NULL;
    lade_code_t code = s_ids(cli, ids, error);
    if (json_array_size(ids))
        json_object_set(args, "ids", ids);
    json_decref(ids);
    s_add_option(cli, "--kind", "kind", args);
    if (code) {
        json_decref(args);
        return code;
    }
    code = lade_cli_call(cli, "jobs", "purge", args, &result, error);
    if (!code && cli->json)
        lade_cli_print_json(json_incref(result));
    else if (!code)
        printf("ended jobs forgotten: %" PRId64 "\n", lade_json_int(result, "purged", 0));
    json_decref(result);
    return code;
}
