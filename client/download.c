// A download's handle. Its fields change only by what the broker said.
#include "client/download.h"

#include "common/wire.h"

#include <stdlib.h>
#include <string.h>

static const char *const s_statuses[] = {
    // clang-format off
    [LADE_DOWNLOAD_IDLE]      = "idle",
    [LADE_DOWNLOAD_ENQUEUED]  = "enqueued",
    [LADE_DOWNLOAD_RUNNING]   = "running",
    [LADE_DOWNLOAD_PAUSED]    = "paused",
    [LADE_DOWNLOAD_COMPLETED] = "completed",
    [LADE_DOWNLOAD_ERROR]     = "error",
    [LADE_DOWNLOAD_CANCELLED] = "cancelled",
    // clang-format on
};
enum { S_STATUSES = sizeof s_statuses / sizeof *s_statuses };

// ---------------------------------------------------------------------------------------------------
// Making

static json_t *
s_text(const char *text)
{
    return json_stringn_nocheck(text, strlen(text));
}

static void
s_add_text(json_t *map, const char *key, const char *text)
{
    if (text)
        json_object_set_new(map, key, s_text(text));
}

static void
s_add_number(json_t *map, const char *key, int64_t number, int64_t least)
{
    if (number >= least)
        json_object_set_new(map, key, json_integer((json_int_t)number));
}

static json_t *
s_files(const lade_download_spec_t *spec)
{
    json_t *files = json_array();
    for (size_t i = 0; i < spec->file_count; i++) {
        const lade_download_file_t *file = &spec->files[i];
        json_t *one = json_object();
        s_add_text(one, "url", file->url);
        s_add_text(one, "path", file->path);
        s_add_text(one, "sha256", file->sha256);
        s_add_number(one, "size", file->size, 1);
        json_array_append_new(files, one);
    }
    return files;
}

static json_t *
s_args(const lade_download_spec_t *spec)
{
    const struct {
        const char *key, *text;
    } texts[] = {{"source", spec->source},   {"destination", spec->destination},
                 {"destdir", spec->destdir}, {"filename", spec->filename},
                 {"sha256", spec->sha256},   {"access_token", spec->access_token}};
    json_t *args = json_object();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        s_add_text(args, texts[i].key, texts[i].text);
    if (spec->mirrors && spec->mirrors[0]) {
        json_t *mirrors = json_array();
        if (spec->source)
            json_array_append_new(mirrors, s_text(spec->source));
        for (size_t i = 0; spec->mirrors[i]; i++)
            json_array_append_new(mirrors, s_text(spec->mirrors[i]));
        json_object_set_new(args, "source", mirrors);
    }
    if (spec->file_count)
        json_object_set_new(args, "files", s_files(spec));
    s_add_number(args, "priority", spec->priority, INT64_MIN);
    s_add_number(args, "size", spec->size, 0);
    s_add_number(args, "bytes_per_s", spec->bytes_per_s, 1);
    if (spec->preserve_partial_downloads)
        json_object_set_new(args, "preserve_partial_downloads", json_true());
    return args;
}

static char *
s_copy(const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        abort();
    return copy;
}

lade_code_t
lade_download_new(const lade_download_spec_t *spec, lade_download_t **job_p, lade_error_t *error)
{
    *job_p = NULL;
    const char *first = spec->source                        ? spec->source
                        : spec->mirrors && spec->mirrors[0] ? spec->mirrors[0]
                        : spec->file_count                  ? spec->files[0].url
                                                            : NULL;
    if (!first)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "one of source, mirrors and files says what to fetch");
    lade_download_t *self = calloc(1, sizeof *self);
    if (!self)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a download's handle");
    self->id = -1;
    self->args = s_args(spec);
    self->priority = spec->priority;
    self->preserves = spec->preserve_partial_downloads;
    self->source = s_copy(first);
    self->destination = s_copy(spec->destination ? spec->destination : spec->destdir);
    for (size_t i = 0; i < spec->handler_count; i++)
        lade_download_add_event_handler(self, spec->handlers[i]);
    *job_p = self;
    return LADE_OK;
}

void
lade_download_free(lade_download_t **self_p)
{
    lade_download_t *self = *self_p;
    if (!self)
        return;
    json_decref(self->args);
    free(self->source);
    free(self->destination);
    free(self->path);
    free(self->error_type);
    free(self->error);
    free(self->handlers);
    free(self);
    *self_p = NULL;
}

void
lade_download_destroy(lade_download_t **job_p)
{
    if (*job_p && !(*job_p)->queue)
        lade_download_free(job_p);
}

// ---------------------------------------------------------------------------------------------------
// What the broker says

static void
s_set(char **text_p, const char *text)
{
    char *copy = s_copy(text && *text ? text : NULL);
    free(*text_p);
    *text_p = copy;
}

static void
s_set_if_told(char **text_p, const json_t *map, const char *key)
{
    const char *text = lade_json_text(map, key, NULL);
    if (text)
        s_set(text_p, text);
}

// `waiting` is a job of several files whose parts are under way, `dead` one that took its workers
// with it.
static lade_download_status_t
s_status(const char *name)
{
    for (int i = 0; i < S_STATUSES; i++)
        if (strcmp(s_statuses[i], name) == 0)
            return (lade_download_status_t)i;
    return strcmp(name, "dead") == 0 ? LADE_DOWNLOAD_ERROR : LADE_DOWNLOAD_RUNNING;
}

void
lade_download_take_job(lade_download_t *self, const json_t *job)
{
    self->id = lade_json_int(job, "id", -1);
    self->status = s_status(lade_json_text(job, "status", "idle"));
    self->priority = lade_json_int(job, "priority", self->priority);
    self->bytes = lade_json_int(job, "bytes", 0);
    self->total_bytes = lade_json_int(job, "total_bytes", 0);
    self->sequence = lade_json_int(job, "job_sequence", 0);
    self->started = lade_json_real(job, "job_started", 0);
    self->ended = lade_json_real(job, "job_ended", 0);
    self->preserves = lade_json_bool(job, "preserve_partial_downloads", self->preserves);
    s_set_if_told(&self->source, job, "source");
    s_set_if_told(&self->destination, job, "destination");
    s_set_if_told(&self->path, job, "download_path");
    s_set(&self->error_type, lade_json_text(job, "error_type", NULL));
    s_set(&self->error, lade_json_text(job, "error", NULL));
}

// Once more: what its last end was is over.
static void
s_begin_again(lade_download_t *self)
{
    if (!lade_download_ended(self))
        return;
    self->started = self->ended = 0;
    s_set(&self->error_type, NULL);
    s_set(&self->error, NULL);
}

static void
s_take_failure(lade_download_t *self, const json_t *event, const char *name)
{
    if (strcmp(name, "job_requeued") == 0)
        s_set(&self->error, lade_json_text(event, "reason", NULL)); // why it is tried again
    else if (self->status == LADE_DOWNLOAD_ERROR) {
        s_set(&self->error_type, lade_json_text(event, "error_type", "internal"));
        s_set(&self->error, lade_json_text(event, "error", "failed without a reason"));
    } else if (self->status == LADE_DOWNLOAD_COMPLETED)
        s_set(&self->error, NULL);
}

bool
lade_download_take_event(lade_download_t *self, const json_t *event)
{
    static const struct {
        const char *event;
        lade_download_status_t status;
    } rows[] = {
        // clang-format off
        {"download_enqueued",  LADE_DOWNLOAD_ENQUEUED},
        {"download_running",   LADE_DOWNLOAD_RUNNING},
        {"download_paused",    LADE_DOWNLOAD_PAUSED},
        {"download_completed", LADE_DOWNLOAD_COMPLETED},
        {"download_error",     LADE_DOWNLOAD_ERROR},
        {"download_cancelled", LADE_DOWNLOAD_CANCELLED},
        {"job_requeued",       LADE_DOWNLOAD_ENQUEUED},
        // clang-format on
    };
    const char *name = lade_json_text(event, "event", "");
    size_t row = 0;
    while (row < sizeof rows / sizeof *rows && strcmp(rows[row].event, name) != 0)
        row++;
    // Progress may come late, when its job is known to have ended.
    bool progress = lade_json_bool(event, "progress", false);
    if (row == sizeof rows / sizeof *rows || (progress && self->status != LADE_DOWNLOAD_RUNNING))
        return false;
    s_begin_again(self);
    self->status = rows[row].status;
    self->bytes = lade_json_int(event, "bytes", self->bytes);
    self->total_bytes = lade_json_int(event, "total_bytes", self->total_bytes);
    self->sequence = lade_json_int(event, "job_sequence", self->sequence);
    s_set_if_told(&self->path, event, "download_path");
    double now = lade_json_real(event, "timestamp", 0);
    if (self->status == LADE_DOWNLOAD_RUNNING && !(self->started > 0))
        self->started = now;
    if (lade_download_ended(self))
        self->ended = now;
    s_take_failure(self, event, name);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Handlers

void
lade_download_add_event_handler(lade_download_t *self, lade_download_handler_t handler)
{
    self->handlers = realloc(self->handlers, (self->handler_count + 1) * sizeof *self->handlers);
    if (!self->handlers)
        abort();
    self->handlers[self->handler_count++] = handler;
}

void
lade_download_clear_event_handlers(lade_download_t *self)
{
    self->handler_count = 0;
}

// ---------------------------------------------------------------------------------------------------
// Looking

bool
lade_download_ended(const lade_download_t *self)
{
    return self->status >= LADE_DOWNLOAD_COMPLETED;
}

lade_queue_t *
lade_download_queue(const lade_download_t *self)
{
    return self->queue;
}

int64_t
lade_download_id(const lade_download_t *self)
{
    return self->id;
}

lade_download_status_t
lade_download_status(const lade_download_t *self)
{
    return self->status;
}

const char *
lade_download_status_name(lade_download_status_t status)
{
    return (unsigned)status < S_STATUSES ? s_statuses[status] : "unknown";
}

int64_t
lade_download_priority(const lade_download_t *self)
{
    return self->priority;
}

const char *
lade_download_source(const lade_download_t *self)
{
    return self->source;
}

const char *
lade_download_destination(const lade_download_t *self)
{
    return self->destination;
}

const char *
lade_download_path(const lade_download_t *self)
{
    return self->path;
}

int64_t
lade_download_bytes(const lade_download_t *self)
{
    return self->bytes;
}

int64_t
lade_download_total_bytes(const lade_download_t *self)
{
    return self->total_bytes;
}

double
lade_download_job_started(const lade_download_t *self)
{
    return self->started;
}

double
lade_download_job_ended(const lade_download_t *self)
{
    return self->ended;
}

int64_t
lade_download_job_sequence(const lade_download_t *self)
{
    return self->sequence;
}

bool
lade_download_preserves(const lade_download_t *self)
{
    return self->preserves;
}

lade_code_t
lade_download_outcome(const lade_download_t *self, lade_error_t *error)
{
    switch (self->status) {
    case LADE_DOWNLOAD_COMPLETED:
        return LADE_OK;
    case LADE_DOWNLOAD_CANCELLED:
        return lade_error_set(error, LADE_CANCELLED, "the download was cancelled");
    case LADE_DOWNLOAD_ERROR:
        return lade_error_set(error, lade_code_find(self->error_type), "%s",
                              self->error ? self->error : "failed without a reason");
    default:
        return lade_error_set(error, LADE_TIMEOUT, "the download is %s",
                              lade_download_status_name(self->status));
    }
}

const char *
lade_download_error_type(const lade_download_t *self)
{
    return self->error_type;
}

const char *
lade_download_error(const lade_download_t *self)
{
    return self->error;
}
