// Tasks into jobs, jobs' answers into tasks' answers.
#include "workers/install/installer.h"

#include "common/identify/identify.h"
#include "common/log.h"
#include "common/wire.h"
#include "workers/install/api.h"
#include "workers/install/cache.h"
#include "workers/install/convert_job.h"
#include "workers/install/install.h"
#include "workers/install/metadata.h"
#include "workers/install/place.h"
#include "workers/install/remove.h"
#include "workers/install/scan.h"
#include "workers/install/verify.h"

#include <czmq.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lade_installer {
    const lade_config_t *config;
    lade_identify_t *identify; // shared by the threads, which only read it
    lade_convert_rules_t *conversions;
    lade_refused_t *refused;
    lade_pool_t *pool;
    zactor_t *tidy;
    zactor_t *trim; // where nothing converted is kept
};

static const struct {
    const char *kind;
    lade_code_t (*step)(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);
} s_kinds[] = {
    // clang-format off
    {"install",  lade_install_step},
    {"delete",   lade_remove_step},
    {"discard",  lade_discard_step},
    {"scan",     lade_scan_step},
    {"verify",   lade_verify_step},
    {"metadata", lade_metadata_step},
    {"cache",    lade_cache_step},
    {"convert",  lade_convert_job_step},
    // clang-format on
};
static const char *const s_kind_names[] = {"install",  "delete", "discard", "scan", "verify",
                                           "metadata", "cache",  "convert", NULL};
_Static_assert(sizeof s_kinds / sizeof *s_kinds + 1 == sizeof s_kind_names / sizeof *s_kind_names,
               "each kind is told to the broker");

static lade_stop_t
s_stop(void *arg)
{
    return lade_task_stop(arg);
}

static void
s_progress(void *arg, int64_t bytes, int64_t total_bytes, const char *phase, const char *local_path)
{
    lade_task_progress(arg, bytes, total_bytes, phase, local_path);
}

static lade_code_t
s_identify(const void *rules, const char *path, const json_t *overrides, json_t **found_p,
           lade_error_t *error)
{
    return lade_identify_path(rules, path, overrides, found_p, error);
}

static json_t *
s_take(json_t **value)
{
    json_t *taken = *value;
    *value = NULL;
    return taken;
}

// Hands the answer over. It may share values with the task, which the loop frees at any time from
// then on: so what is not handed over is freed before.
static void
s_answer(lade_task_t *task, lade_answer_t *answer, lade_code_t code, const lade_error_t *error)
{
    char about[64], *local_path = answer->local_path;
    double retry_after_s = answer->final ? -1 : answer->retry_after_s;
    int64_t total_bytes = answer->total_bytes;
    answer->local_path = NULL;
    snprintf(about, sizeof about, "job %" PRId64, lade_task_id(task));
    if (code) {
        lade_log(LADE_LOG_INFO, about, "%s: %s", lade_code_name(code), error->message);
        lade_task_set_result(task, s_take(&answer->result));
        lade_stage_free(answer);
        lade_task_fail(&task, error, retry_after_s);
    } else if (answer->waits) {
        json_t *state = s_take(&answer->state), *jobs = s_take(&answer->jobs),
               *ask = s_take(&answer->ask);
        lade_log(LADE_LOG_DEBUG, about, "waits for %zu jobs", json_array_size(jobs));
        lade_stage_free(answer);
        lade_task_await(&task, state, jobs, ask, total_bytes, local_path);
    } else {
        json_t *result = s_take(&answer->result), *effects = s_take(&answer->effects);
        lade_log(LADE_LOG_INFO, about, "%s done", lade_task_kind(task));
        lade_task_set_undo(task, s_take(&answer->undo));
        lade_stage_free(answer);
        lade_task_done(&task, result, effects);
    }
    free(local_path);
}

// In a thread of the pool.
static void
s_run(void *arg, lade_task_t *task)
{
    lade_installer_t *self = arg;
    lade_stage_t job = {.config = self->config,
                        .identify = s_identify,
                        .rules = self->identify,
                        .conversions = self->conversions,
                        .refused = self->refused,
                        .id = lade_task_id(task),
                        .attempt = lade_task_attempt(task),
                        .failures = lade_task_failures(task),
                        .source = lade_task_source(task),
                        .spec = lade_task_spec(task),
                        .state = lade_task_state(task),
                        .children = lade_task_children(task),
                        .answers = lade_task_answers(task),
                        .stop = s_stop,
                        .progress = s_progress,
                        .arg = task};
    lade_answer_t answer = {0};
    lade_error_t error = {0};
    lade_code_t code = LADE_OK;
    size_t row = 0;
    while (row < sizeof s_kinds / sizeof *s_kinds &&
           strcmp(s_kinds[row].kind, lade_task_kind(task)) != 0)
        row++;
    if (row < sizeof s_kinds / sizeof *s_kinds)
        code = s_kinds[row].step(&job, &answer, &error);
    else
        code = lade_error_set(&error, LADE_NOT_IMPLEMENTED,
                              "this worker does no jobs of kind '%.40s'", lade_task_kind(task));
    s_answer(task, &answer, code, &error);
}

// ---------------------------------------------------------------------------------------------------
// What ended jobs left on the disk

static void
s_end(const lade_config_t *config, int64_t job, bool completed, double since)
{
    lade_error_t error = {0};
    if (lade_place_end(config, job, completed, since, &error))
        lade_log(LADE_LOG_WARNING, "install", "job %" PRId64 ": %s", job, error.message);
}

void
lade_installer_cancelled(void *config, int64_t job, const json_t *event)
{
    s_end(config, job, false, lade_json_real(event, "timestamp", 0));
}

void
lade_installer_completed(void *config, int64_t job, const json_t *event)
{
    (void)event;
    s_end(config, job, true, 0);
}

static json_t *
s_leftovers(void *arg)
{
    const lade_installer_t *self = arg;
    return lade_place_owned(self->config);
}

// An actor, as large folders take a while.
static void
s_tidy(zsock_t *pipe, void *arg)
{
    const lade_config_t *config = arg;
    uint64_t job;
    int failed;
    zsock_signal(pipe, 0);
    while (zsock_recv(pipe, "8i", &job, &failed) == 0 && job)
        s_end(config, (int64_t)job, !failed, lade_now());
}

// Of what was purged nobody knows whether it was completed: only its folder goes.
static void
s_ended(void *arg, int64_t job, const char *status)
{
    lade_installer_t *self = arg;
    if (!self->tidy) // made here, on the loop's thread, which has the signals
        self->tidy = zactor_new(s_tidy, (void *)self->config);
    bool failed = strcmp(status, "cancelled") == 0 || strcmp(status, "error") == 0;
    zsock_send(zactor_sock(self->tidy), "8i", (uint64_t)job, failed);
}

// ---------------------------------------------------------------------------------------------------
// Converted copies that nobody asks for any more

enum { S_TRIM_MS = 20000 };

// An actor that looks now and then: no job may come after the last use.
static void
s_trim(zsock_t *pipe, void *arg)
{
    const lade_installer_t *self = arg;
    char *word;
    zsock_signal(pipe, 0);
    zsock_set_rcvtimeo(pipe, S_TRIM_MS);
    while (!(word = zstr_recv(pipe)) && errno == EAGAIN) // anything that is said ends it
        lade_convert_job_trim(self->config, NULL);
    zstr_free(&word);
}

// ---------------------------------------------------------------------------------------------------

static void
s_start(void *arg, lade_task_t *task)
{
    lade_installer_t *self = arg;
    if (!self->config->convert_cache_mb && !self->trim) // made here for the signals, as s_tidy is
        self->trim = zactor_new(s_trim, self);
    lade_pool_add(self->pool, task);
}

const lade_worker_ops_t lade_installer_ops = {.name = "install",
                                              .kinds = s_kind_names,
                                              .start = s_start,
                                              .leftovers = s_leftovers,
                                              .ended = s_ended};

// ---------------------------------------------------------------------------------------------------

lade_code_t
lade_installer_new(const lade_config_t *config, lade_installer_t **self_p, lade_error_t *error)
{
    *self_p = NULL;
    lade_installer_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the worker");
    self->config = config;
    lade_code_t code = lade_identify_by_config(config, &self->identify, error);
    if (!code)
        code = lade_convert_rules_new(config->convert_dir, &self->conversions, error);
    if (code) {
        lade_installer_destroy(&self);
        return code;
    }
    lade_api_open();
    lade_place_sweep(config->models_dir);
    lade_convert_job_trim(config, self->conversions);
    self->refused = lade_refused_new();
    self->pool = lade_pool_new((size_t)config->install_slots, s_run, self);
    *self_p = self;
    return LADE_OK;
}

void
lade_installer_destroy(lade_installer_t **self_p)
{
    lade_installer_t *self = *self_p;
    if (!self)
        return;
    if (self->pool) {
        lade_pool_destroy(&self->pool);
        lade_api_close();
    }
    if (self->tidy) {
        zsock_send(zactor_sock(self->tidy), "8i", (uint64_t)0, 0);
        zactor_destroy(&self->tidy);
    }
    zactor_destroy(&self->trim); // says $TERM
    lade_identify_destroy(&self->identify);
    lade_convert_rules_destroy(&self->conversions);
    lade_refused_destroy(&self->refused);
    free(self);
    *self_p = NULL;
}
