// The download queue: handles by id, and the events of the broker told to them.
#include "client/download.h"
#include "client/watch.h"
#include "common/log.h"
#include "common/wire.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    S_TURN_MS = 1000,
    S_IDS = 10000, // in one request
};

struct lade_queue {
    lade_t *client;
    lade_watch_t *watch;
    bool quiet;
    int telling; // handlers are being called
    lade_download_handler_t *handlers;
    size_t handler_count;
    lade_download_t **jobs; // by id, rising; two handles may have one
    size_t count, cap;
    bool forgot; // some of the jobs are only waiting for handlers to return
};

// Beats keep the watch alive; the other prefixes are what lade_download_take_event knows.
static const char *const s_prefixes[] = {"download_", "job_requeued/", NULL};

// ---------------------------------------------------------------------------------------------------
// The jobs of the queue

// The first place whose id is not below.
static size_t
s_place(const lade_queue_t *self, int64_t id)
{
    size_t low = 0, high = self->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (self->jobs[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void
s_insert(lade_queue_t *self, lade_download_t *job)
{
    if (self->count == self->cap) {
        self->cap = self->cap ? self->cap * 2 : 16;
        self->jobs = realloc(self->jobs, self->cap * sizeof(lade_download_t *));
        if (!self->jobs)
            abort();
    }
    size_t at = s_place(self, job->id + 1);
    memmove(&self->jobs[at + 1], &self->jobs[at], (self->count - at) * sizeof(lade_download_t *));
    self->jobs[at] = job;
    self->count++;
    job->queue = self;
}

// Handles go when no handler can hold one any more.
static void
s_sweep(lade_queue_t *self)
{
    if (self->telling || !self->forgot)
        return;
    size_t kept = 0;
    for (size_t i = 0; i < self->count; i++)
        if (self->jobs[i]->forgotten)
            lade_download_free(&self->jobs[i]);
        else
            self->jobs[kept++] = self->jobs[i];
    self->count = kept;
    self->forgot = false;
}

static lade_code_t
s_own(const lade_queue_t *self, const lade_download_t *job, lade_error_t *error)
{
    if (job && job->queue == self && !job->forgotten)
        return LADE_OK;
    if (job && job->id >= 0)
        return lade_error_set(error, LADE_UNKNOWN_JOB_ID, "job %" PRId64 " is not of this queue",
                              job->id);
    return lade_error_set(error, LADE_UNKNOWN_JOB_ID, "the job was not submitted yet");
}

// ---------------------------------------------------------------------------------------------------
// Telling

static void
s_log(const lade_queue_t *self, const lade_download_t *job, bool started)
{
    char about[40];
    if (self->quiet)
        return;
    snprintf(about, sizeof about, "download %" PRId64, job->id);
    if (started) // addresses may be signed
        lade_log(LADE_LOG_INFO, about, "started: %.*s", (int)strcspn(job->source, "?#"),
                 job->source);
    else if (job->status == LADE_DOWNLOAD_COMPLETED)
        lade_log(LADE_LOG_INFO, about, "completed: %s, %" PRId64 " bytes",
                 job->path ? job->path : "?", job->bytes);
    else
        lade_log(LADE_LOG_INFO, about, "%s%s%s", lade_download_status_name(job->status),
                 job->error ? ": " : "", job->error ? job->error : "");
}

// The job's own, then the queue's. Lists may change meanwhile.
static void
s_tell(lade_queue_t *self, lade_download_t *job)
{
    self->telling++;
    for (size_t i = 0; i < job->handler_count; i++) {
        lade_download_handler_t handler = job->handlers[i];
        handler.handle(handler.arg, job);
    }
    for (size_t i = 0; i < self->handler_count; i++)
        self->handlers[i].handle(self->handlers[i].arg, job);
    self->telling--;
}

static bool
s_on_event(void *arg, const json_t *event)
{
    lade_queue_t *self = arg;
    int64_t id = lade_json_int(event, "id", -1);
    for (size_t i = s_place(self, id); i < self->count && self->jobs[i]->id == id; i++) {
        lade_download_t *job = self->jobs[i];
        bool never = !(job->started > 0), ended = lade_download_ended(job);
        if (job->forgotten || !lade_download_take_event(job, event))
            continue;
        if (never && job->started > 0)
            s_log(self, job, true);
        if (!ended && lade_download_ended(job))
            s_log(self, job, false);
        s_tell(self, job);
        while (self->jobs[i] != job) // a handler took others in
            i++;
    }
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Taking in

static lade_code_t
s_ask(lade_queue_t *self, const char *op, json_t *args, json_t **job_p, lade_error_t *error)
{
    return lade_request_json(self->client, "download", op, args, NULL, NULL, job_p, error);
}

// The journal does not reach back to where this queue was: each job is asked for, and what happened
// to it in between is told as one change.
static lade_code_t
s_look_anew(lade_queue_t *self, lade_error_t *error)
{
    lade_watch_close(&self->watch);
    lade_code_t code = lade_watch_open(self->client, s_prefixes, -1, &self->watch, error);
    for (size_t i = 0; i < self->count && !code; i++) {
        lade_download_t *job = self->jobs[i];
        lade_download_status_t was = job->status;
        json_t *now = NULL;
        if (job->forgotten || lade_download_ended(job))
            continue;
        code = s_ask(self, "id_to_job", json_pack("{s:I}", "id", (json_int_t)job->id), &now, error);
        if (!code)
            lade_download_take_job(job, now);
        else if (code == LADE_UNKNOWN_JOB_ID) { // pruned by somebody
            json_t *gone = json_pack("{s:s, s:s, s:s}", "event", "download_error", "error_type",
                                     "UnknownJobID", "error", error->message);
            lade_download_take_event(job, gone);
            json_decref(gone);
            code = LADE_OK;
        }
        json_decref(now);
        if (!code && job->status != was)
            s_tell(self, job);
    }
    return code;
}

static lade_code_t
s_turn(lade_queue_t *self, int64_t timeout_ms, lade_error_t *error)
{
    lade_code_t code = self->watch ? LADE_OK : s_look_anew(self, error);
    if (!code)
        code = lade_watch_turn(self->watch, timeout_ms, s_on_event, self, error);
    if (code == LADE_TOO_OLD)
        code = s_look_anew(self, error);
    s_sweep(self);
    return code;
}

// What was done to jobs is told before the call that did it returns, unless a handler made it.
static lade_code_t
s_settle(lade_queue_t *self, lade_error_t *error)
{
    if (self->telling)
        return LADE_OK;
    lade_code_t code =
        self->watch ? lade_watch_catch_up(self->watch, s_on_event, self, error) : LADE_OK;
    if (code == LADE_TOO_OLD || (!code && !self->watch))
        code = s_look_anew(self, error);
    s_sweep(self);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Opening and closing

lade_code_t
lade_queue_open(lade_t *client, const lade_download_handler_t *handlers, size_t handler_count,
                bool quiet, lade_queue_t **queue_p, lade_error_t *error)
{
    *queue_p = NULL;
    lade_queue_t *self = calloc(1, sizeof *self);
    lade_download_handler_t *copy = calloc(handler_count + 1, sizeof *copy);
    if (!self || !copy) {
        free(self);
        free(copy);
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a queue");
    }
    if (handler_count)
        memcpy(copy, handlers, handler_count * sizeof *copy);
    *self = (lade_queue_t){
        .client = client, .quiet = quiet, .handlers = copy, .handler_count = handler_count};
    lade_code_t code = lade_watch_open(client, s_prefixes, -1, &self->watch, error);
    if (code)
        lade_queue_close(&self);
    *queue_p = self;
    return code;
}

void
lade_queue_close(lade_queue_t **queue_p)
{
    lade_queue_t *self = *queue_p;
    if (!self || self->telling)
        return;
    lade_watch_close(&self->watch);
    for (size_t i = 0; i < self->count; i++)
        lade_download_free(&self->jobs[i]);
    free(self->jobs);
    free(self->handlers);
    free(self);
    *queue_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Submitting

lade_code_t
lade_queue_submit_download_job(lade_queue_t *self, lade_download_t *job, bool start,
                               lade_error_t *error)
{
    if (job->queue)
        return lade_error_set(error, LADE_USAGE, "job %" PRId64 " was submitted before", job->id);
    json_t *answer = NULL;
    lade_code_t code =
        s_ask(self, "submit_download_job",
              json_pack("{s:O, s:b}", "job", job->args, "start", start), &answer, error);
    if (code)
        return code;
    lade_download_take_job(job, answer);
    json_decref(answer);
    json_decref(job->args); // a token in it is kept no longer than needed
    job->args = NULL;
    s_insert(self, job);
    return LADE_OK;
}

lade_code_t
lade_queue_create_download_job(lade_queue_t *self, const lade_download_spec_t *spec, bool start,
                               lade_download_t **job_p, lade_error_t *error)
{
    lade_download_t *job;
    lade_code_t code = lade_download_new(spec, &job, error);
    if (!code)
        code = lade_queue_submit_download_job(self, job, start, error);
    if (code)
        lade_download_destroy(&job);
    if (job_p)
        *job_p = job;
    return code;
}

lade_code_t
lade_queue_adopt(lade_queue_t *self, int64_t id, lade_download_t **job_p, lade_error_t *error)
{
    *job_p = NULL;
    json_t *answer = NULL;
    lade_code_t code =
        s_ask(self, "id_to_job", json_pack("{s:I}", "id", (json_int_t)id), &answer, error);
    if (code)
        return code;
    lade_download_t *job = calloc(1, sizeof *job);
    if (!job)
        abort();
    lade_download_take_job(job, answer);
    json_decref(answer);
    s_insert(self, job);
    *job_p = job;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Control

static lade_code_t
s_control(lade_queue_t *self, const char *op, lade_download_t *job, lade_error_t *error)
{
    lade_code_t code = s_own(self, job, error);
    if (!code)
        code = s_ask(self, op, json_pack("{s:I}", "id", (json_int_t)job->id), NULL, error);
    return code ? code : s_settle(self, error);
}

lade_code_t
lade_queue_start_job(lade_queue_t *self, lade_download_t *job, lade_error_t *error)
{
    return s_control(self, "start_job", job, error);
}

lade_code_t
lade_queue_pause_job(lade_queue_t *self, lade_download_t *job, lade_error_t *error)
{
    return s_control(self, "pause_job", job, error);
}

lade_code_t
lade_queue_cancel_job(lade_queue_t *self, lade_download_t *job, lade_error_t *error)
{
    return s_control(self, "cancel_job", job, error);
}

// The ids from *at on of the jobs that have ended (or have not), a request's worth of them.
static json_t *
s_ids(const lade_queue_t *self, bool ended, size_t *at)
{
    json_t *ids = json_array();
    for (; *at < self->count && json_array_size(ids) < S_IDS; (*at)++) {
        const lade_download_t *job = self->jobs[*at];
        if (!job->forgotten && lade_download_ended(job) == ended)
            json_array_append_new(ids, json_integer((json_int_t)job->id));
    }
    return ids;
}

static lade_code_t
s_control_all(lade_queue_t *self, const char *op, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    for (size_t at = 0; at < self->count && !code;) {
        json_t *ids = s_ids(self, false, &at);
        size_t count = json_array_size(ids);
        json_t *args = json_pack("{s:o}", "ids", ids);
        if (count)
            code = lade_request_json(self->client, "jobs", op, args, NULL, NULL, NULL, error);
        else
            json_decref(args);
    }
    return code ? code : s_settle(self, error);
}

lade_code_t
lade_queue_start_all_jobs(lade_queue_t *self, lade_error_t *error)
{
    return s_control_all(self, "start", error);
}

lade_code_t
lade_queue_pause_all_jobs(lade_queue_t *self, lade_error_t *error)
{
    return s_control_all(self, "pause", error);
}

lade_code_t
lade_queue_cancel_all_jobs(lade_queue_t *self, lade_error_t *error)
{
    return s_control_all(self, "cancel", error);
}

static lade_code_t
s_update(lade_queue_t *self, lade_download_t *job, const char *key, json_t *value,
         lade_error_t *error)
{
    lade_code_t code = s_own(self, job, error);
    if (code) {
        json_decref(value);
        return code;
    }
    json_t *answer = NULL, *args = json_pack("{s:I, s:o}", "id", (json_int_t)job->id, key, value);
    code = s_ask(self, "update_download_job", args, &answer, error);
    if (!code) {
        job->priority = lade_json_int(answer, "priority", job->priority);
        job->preserves = lade_json_bool(answer, "preserve_partial_downloads", job->preserves);
    }
    json_decref(answer);
    return code;
}

lade_code_t
lade_queue_set_preserve(lade_queue_t *self, lade_download_t *job, bool preserve,
                        lade_error_t *error)
{
    return s_update(self, job, "preserve_partial_downloads", json_boolean(preserve), error);
}

lade_code_t
lade_queue_set_priority(lade_queue_t *self, lade_download_t *job, int64_t priority,
                        lade_error_t *error)
{
    return s_update(self, job, "priority", json_integer((json_int_t)priority), error);
}

// ---------------------------------------------------------------------------------------------------
// Waiting

static bool
s_is_active(const lade_download_t *job)
{
    return job->status == LADE_DOWNLOAD_ENQUEUED || job->status == LADE_DOWNLOAD_RUNNING;
}

static bool
s_any_active(const lade_queue_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        if (!self->jobs[i]->forgotten && s_is_active(self->jobs[i]))
            return true;
    return false;
}

// Turns as long as the job (NULL: any of the queue) goes on.
static lade_code_t
s_wait(lade_queue_t *self, const lade_download_t *job, double timeout_s, lade_error_t *error)
{
    if (self->telling)
        return lade_error_set(error, LADE_USAGE, "a handler cannot wait: nothing comes meanwhile");
    int64_t deadline = timeout_s > 0 ? lade_mono_ms() + (int64_t)(timeout_s * 1e3) : INT64_MAX;
    int64_t id = job ? job->id : -1;
    lade_code_t code = s_settle(self, error); // others may have started it again
    while (!code) {
        // A handler may have pruned it: it has ended then.
        size_t at = job ? s_place(self, id) : 0;
        bool open = !job ? s_any_active(self)
                         : at < self->count && self->jobs[at]->id == id &&
                               !lade_download_ended(self->jobs[at]);
        if (!open)
            return LADE_OK;
        int64_t left = deadline - lade_mono_ms();
        if (left <= 0)
            return lade_error_set(error, LADE_TIMEOUT, "%s not ended within %g seconds; %s on",
                                  job ? "the download has" : "some downloads have", timeout_s,
                                  job ? "it goes" : "they go");
        code = s_turn(self, left < S_TURN_MS ? left : S_TURN_MS, error);
    }
    return code;
}

lade_code_t
lade_queue_wait_for_job(lade_queue_t *self, lade_download_t *job, double timeout_s,
                        lade_error_t *error)
{
    lade_code_t code = s_own(self, job, error);
    return code ? code : s_wait(self, job, timeout_s, error);
}

lade_code_t
lade_queue_join(lade_queue_t *self, double timeout_s, lade_error_t *error)
{
    return s_wait(self, NULL, timeout_s, error);
}

lade_code_t
lade_queue_run(lade_queue_t *self, double timeout_s, lade_error_t *error)
{
    if (self->telling)
        return lade_error_set(error, LADE_USAGE, "a handler cannot wait: nothing comes meanwhile");
    int64_t deadline = lade_mono_ms() + (int64_t)(timeout_s * 1e3), left;
    lade_code_t code = s_turn(self, 0, error);
    while (!code && (left = deadline - lade_mono_ms()) > 0)
        code = s_turn(self, left < S_TURN_MS ? left : S_TURN_MS, error);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Looking, forgetting

size_t
lade_queue_list_jobs(const lade_queue_t *self, lade_download_t **jobs, size_t room)
{
    size_t count = 0;
    for (size_t i = 0; i < self->count; i++) {
        if (self->jobs[i]->forgotten)
            continue;
        if (count < room)
            jobs[count] = self->jobs[i];
        count++;
    }
    return count;
}

lade_code_t
lade_queue_id_to_job(const lade_queue_t *self, int64_t id, lade_download_t **job_p,
                     lade_error_t *error)
{
    size_t at = s_place(self, id);
    *job_p = NULL;
    if (at == self->count || self->jobs[at]->id != id || self->jobs[at]->forgotten)
        return lade_error_set(error, LADE_UNKNOWN_JOB_ID, "this queue has no job %" PRId64, id);
    *job_p = self->jobs[at];
    return LADE_OK;
}

static size_t
s_forget(lade_queue_t *self, size_t from, size_t to)
{
    size_t count = 0;
    for (size_t i = from; i < to; i++)
        if (!self->jobs[i]->forgotten && lade_download_ended(self->jobs[i])) {
            self->jobs[i]->forgotten = self->forgot = true;
            count++;
        }
    return count;
}

lade_code_t
lade_queue_prune_jobs(lade_queue_t *self, size_t *count_p, lade_error_t *error)
{
    size_t count = 0;
    lade_code_t code = LADE_OK;
    for (size_t at = 0; at < self->count && !code;) {
        size_t from = at;
        json_t *ids = s_ids(self, true, &at);
        size_t some = json_array_size(ids);
        json_t *args = json_pack("{s:o}", "ids", ids);
        if (some)
            code = lade_request_json(self->client, "jobs", "purge", args, NULL, NULL, NULL, error);
        else
            json_decref(args);
        if (!code)
            count += s_forget(self, from, at);
    }
    s_sweep(self);
    if (count_p)
        *count_p = count;
    return code;
}
