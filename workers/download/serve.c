// Between the worker's loop and the engine. A job is one transfer.
#include "workers/download/serve.h"

#include "common/log.h"
#include "common/wire.h"
#include "workers/download/engine.h"
#include "workers/download/local.h"
#include "workers/download/localwork.h"
#include "workers/download/multi.h"
#include "workers/download/transfer.h"
#include "workers/worker/ended.h"

#include <czmq.h>
#include <inttypes.h>
#include <math.h>

enum {
    S_GRACE_MS =
        1000, // for transfers that are nearly done; the others go on elsewhere from where they are
    S_MAX_MIRRORS = 16,
    S_RATE_MS = 500, // over which bytes per second are measured, at least
    S_SPACE_S = 3,   // between two looks whether a full disk has room again
};

struct lade_serve {
    const lade_config_t *config;
    lade_worker_t *worker;
    lade_engine_t *engine;
    lade_pool_t *local;            // for sources on this machine
    zactor_t *ended;               // NULL if the events cannot be heard
    int64_t stats_ms, stats_bytes; // when the rate was measured last, and the bytes by then
    double rate;                   // bytes a second
};

// One job: the engine's arg.
typedef struct {
    lade_serve_t *serve;
    lade_task_t *task;
} s_job_t;

// ---------------------------------------------------------------------------------------------------
// From the job to the request

static size_t
s_urls(const lade_task_t *task, const char **urls)
{
    const json_t *spec = lade_task_spec(task), *mirrors = json_object_get(spec, "urls");
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(mirrors) && count < S_MAX_MIRRORS; i++)
        if (json_is_string(json_array_get(mirrors, i)))
            urls[count++] = json_string_value(json_array_get(mirrors, i));
    if (count == 0)
        urls[count++] = lade_json_text(spec, "url", lade_task_source(task));
    urls[count] = NULL;
    return count;
}

static void
s_start(void *arg, lade_task_t *task)
{
    lade_serve_t *self = arg;
    if (lade_multi_start(task))
        return;
    if (lade_local_is(lade_task_source(task))) {
        lade_pool_add(self->local, task);
        return;
    }
    const json_t *spec = lade_task_spec(task);
    const char *urls[S_MAX_MIRRORS + 1], *sha256 = lade_json_text(spec, "sha256", NULL);
    const lade_terms_t terms = lade_task_terms(task);
    s_urls(task, urls);
    if (sha256 && strncmp(sha256, "sha256:", 7) == 0)
        sha256 += 7;
    const lade_request_t request = {
        .id = lade_task_id(task),
        .attempt = lade_task_attempt(task),
        .urls = urls,
        .destination = lade_json_text(spec, "destination", NULL),
        .destdir = lade_json_text(spec, "destdir", NULL),
        .filename = lade_json_text(spec, "filename", NULL),
        .sha256 = sha256,
        .size = lade_json_int(spec, "size", -1),
        .access_token = lade_json_text(spec, "access_token", NULL),
        .preserve_partial = lade_json_bool(spec, "preserve_partial_downloads", false),
        .connections = terms.connections,
        .bytes_per_s = terms.bytes_per_s,
    };
    s_job_t *job = zmalloc(sizeof *job);
    job->serve = self;
    job->task = task;
    // The task is valid until this returns, even if the transfer has ended by then.
    int64_t ticket = lade_engine_add(self->engine, &request, job);
    lade_task_set_data(task, (void *)(intptr_t)ticket);
    if (terms.hold_s > 0)
        lade_engine_set_terms(self->engine, ticket, terms.connections, terms.bytes_per_s,
                              terms.hold_s);
}

static void
s_terms(void *arg, lade_task_t *task, const lade_terms_t *terms)
{
    lade_serve_t *self = arg;
    int64_t ticket = task ? (int64_t)(intptr_t)lade_task_data(task) : 0;
    if (!task)
        lade_engine_set_rate(self->engine, terms->bytes_per_s);
    if (!ticket) // ours as a whole, or a job that opens no connections
        return;
    lade_engine_set_terms(self->engine, ticket, terms->connections, terms->bytes_per_s,
                          terms->hold_s);
    if (terms->preserve)
        lade_engine_set_preserve(self->engine, ticket, terms->preserve > 0);
}

static void
s_stop(void *arg, lade_task_t *task)
{
    static const lade_engine_stop_t how[] = {[LADE_STOP_NONE] = LADE_ENGINE_GO,
                                             [LADE_STOP_CANCEL] = LADE_ENGINE_CANCEL,
                                             [LADE_STOP_PAUSE] = LADE_ENGINE_PAUSE,
                                             [LADE_STOP_STALE] = LADE_ENGINE_LEAVE};
    lade_serve_t *self = arg;
    if (!lade_local_is(lade_task_source(task))) // those of the pool ask themselves
        lade_engine_stop(self->engine, (int64_t)(intptr_t)lade_task_data(task),
                         how[lade_task_stop(task)]);
}

static json_t *
s_stats(void *arg)
{
    lade_serve_t *self = arg;
    int64_t bytes, open, ended;
    lade_engine_stats(self->engine, &bytes, &open, &ended);
    int64_t now_ms = lade_mono_ms(), ms = now_ms - self->stats_ms;
    // Stats are asked for before each answer, too, and a moment says nothing about a rate.
    if (ms >= S_RATE_MS) {
        self->rate = (double)(bytes - self->stats_bytes) * 1000 / (double)ms;
        self->stats_ms = now_ms;
        self->stats_bytes = bytes;
    }
    return json_pack("{s:I, s:I, s:I, s:f}", "bytes", (json_int_t)bytes, "transfers",
                     (json_int_t)open, "ended", (json_int_t)ended, "rate", self->rate);
}

// ---------------------------------------------------------------------------------------------------
// From the outcome to the answer

static void
s_progress(void *arg, int64_t bytes, int64_t total, const char *path)
{
    s_job_t *job = arg;
    lade_task_progress(job->task, bytes, total < 0 ? 0 : total, NULL, path);
}

static void
s_phase(void *arg, const char *phase, const char *reason)
{
    s_job_t *job = arg;
    lade_task_phase(job->task, phase, reason);
}

static void
s_confirm(void *arg, int64_t connections)
{
    s_job_t *job = arg;
    lade_task_confirm(job->task, connections);
}

static json_t *
s_text(const char *text)
{
    return text ? json_string_nocheck(text) : json_null();
}

static json_t *
s_result(const lade_outcome_t *outcome)
{
    return json_pack("{s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:I}", "path", s_text(outcome->path),
                     "bytes", (json_int_t)outcome->bytes, "sha256", s_text(outcome->sha256), "etag",
                     s_text(outcome->etag), "url", s_text(outcome->url), "final_url",
                     s_text(outcome->final_url), "content_type", s_text(outcome->content_type),
                     "resumed_from", (json_int_t)outcome->resumed_from);
}

static void
s_closed(void *arg, const char *host, double seconds, const char *message)
{
    s_job_t *job = arg;
    char gate[300];
    snprintf(gate, sizeof gate, "host:%s", host);
    lade_worker_gate(job->serve->worker, gate, seconds, message);
}

static void
s_end(void *arg, const lade_outcome_t *outcome)
{
    s_job_t *job = arg;
    char about[40];
    snprintf(about, sizeof about, "job %" PRId64, lade_task_id(job->task));
    if (outcome->error.code == LADE_OK) {
        lade_log(LADE_LOG_INFO, about,
                 "%s has %" PRId64 " bytes, %" PRId64 " of them from an earlier attempt",
                 outcome->path, outcome->bytes, outcome->resumed_from);
        lade_task_done(&job->task, s_result(outcome), NULL);
    } else {
        lade_log(LADE_LOG_INFO, about, "%s: %s", lade_code_name(outcome->error.code),
                 outcome->error.message);
    }
    if (outcome->volume) {
        char gate[300];
        snprintf(gate, sizeof gate, "space:%s", outcome->volume);
        lade_task_fail_at(&job->task, &outcome->error, gate, S_SPACE_S);
    } else if (outcome->error.code) {
        // Below 0 would mean never; a server that names no time leaves it to the code.
        lade_task_fail(&job->task, &outcome->error, fmax(outcome->retry_after_s, 0));
    }
    free(job);
}

// A download that was cancelled while it was paused or waited for its turn.
static void
s_on_cancelled(void *arg, int64_t id, const json_t *event)
{
    (void)arg;
    const char *url = lade_json_text(event, "source", ""),
               *path = lade_json_text(event, "download_path", "");
    if (*path == '/' && lade_local_is(url))
        lade_local_discard(id, path);
    else if (*path == '/')
        lade_transfer_discard(id, url, path);
}

// ---------------------------------------------------------------------------------------------------

static const char *const s_kinds[] = {"download", NULL};
static const lade_worker_ops_t s_worker_ops = {.name = "download",
                                               .kinds = s_kinds,
                                               .start = s_start,
                                               .stop = s_stop,
                                               .stats = s_stats,
                                               .terms = s_terms};
static const lade_engine_ops_t s_engine_ops = {.progress = s_progress,
                                               .phase = s_phase,
                                               .confirm = s_confirm,
                                               .closed = s_closed,
                                               .end = s_end};

lade_code_t
lade_serve_new(lade_serve_t **self_p, const lade_config_t *config, lade_error_t *error)
{
    lade_serve_t *self = zmalloc(sizeof *self);
    self->config = config;
    self->worker = lade_worker_new(config, &s_worker_ops, self, config->download_slots);
    self->local = lade_pool_new((size_t)config->download_slots, lade_localwork_run, (void *)config);
    self->ended = lade_ended_new(config, "download_cancelled", s_on_cancelled, NULL);
    lade_code_t code = lade_engine_new(&self->engine, config, &s_engine_ops, error);
    if (code)
        lade_serve_destroy(&self);
    *self_p = self;
    return code;
}

lade_code_t
lade_serve_run(lade_serve_t *self, lade_error_t *error)
{
    return lade_worker_run(self->worker, S_GRACE_MS, error);
}

void
lade_serve_destroy(lade_serve_t **self_p)
{
    lade_serve_t *self = *self_p;
    if (!self)
        return;
    zactor_destroy(&self->ended);
    lade_engine_destroy(&self->engine); // answers what is open, so before the worker
    lade_pool_destroy(&self->local);    // so does this
    lade_worker_destroy(&self->worker);
    free(self);
    *self_p = NULL;
}
