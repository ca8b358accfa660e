// The faces of jobs. An event belongs to the status shown, so that the two never disagree.
#include "broker/surface.h"

#include "broker/events.h"
#include "broker/packer.h"
#include "broker/secrets.h"
#include "common/path.h"
#include "common/want.h"
#include "common/wire.h"

#include <czmq.h>

// Statuses shown: those of jobs, and one that only installs have.
enum { S_DOWNLOADING = LADE_JOB_STATUS_COUNT, S_SHOWN_COUNT };

typedef struct {
    size_t pairs;
    void (*put)(const lade_job_t *job, lade_buf_t *buf);
    size_t (*more)(const lade_job_t *job); // pairs besides, NULL: none
} s_payload_t;

typedef struct {
    const char *status;
    const char *event; // NULL: nothing is told
    const s_payload_t *payload;
} s_row_t;

struct lade_surface {
    const char *kind;
    uint8_t (*shown)(const lade_job_t *job); // NULL: the status itself
    s_row_t rows[S_SHOWN_COUNT];
    uint8_t progress;      // the status whose event tells progress; 0: none
    const char *stalls[2]; // events of a job that goes on, that has stalled; NULL: none
    size_t extra;          // pairs put_extra packs
    void (*put_extra)(const lade_job_t *job, lade_buf_t *buf);
};

// ---------------------------------------------------------------------------------------------------
// Looking into packed members

typedef struct {
    msgpack_unpacked unpacked;
    const msgpack_object *map; // NULL if there is nothing
} s_open_t;

static void
s_open(s_open_t *self, const lade_blob_t *blob)
{
    msgpack_unpacked_init(&self->unpacked);
    self->map = NULL;
    if (blob->len &&
        msgpack_unpack_next(&self->unpacked, blob->data, blob->len, NULL) == MSGPACK_UNPACK_SUCCESS)
        self->map = &self->unpacked.data;
}

static void
s_close(s_open_t *self)
{
    msgpack_unpacked_destroy(&self->unpacked);
}

static void
s_put_member(lade_buf_t *buf, const msgpack_object *map, const char *key)
{
    const msgpack_object *value = lade_wire_find(map, key);
    if (value)
        lade_put_object(buf, value);
    else
        lade_put_nil(buf);
}

// The first of some members that is text; nil if none is.
static void
s_put_first_text(lade_buf_t *buf, const msgpack_object *map, const char *const *keys,
                 const char *preset)
{
    const char *text;
    size_t len;
    for (; *keys; keys++)
        if (lade_wire_text(map, *keys, &text, &len)) {
            lade_put_strn(buf, text, len);
            return;
        }
    lade_put_str(buf, preset);
}

// ---------------------------------------------------------------------------------------------------
// Payloads

static void
s_put_source(const lade_job_t *job, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "source");
    lade_put_str(buf, job->source);
}

static void
s_put_error(const lade_job_t *job, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "error_type");
    lade_put_str(buf, job->error_type ? job->error_type : lade_job_status_name(job->status));
    LADE_PUT_KEY(buf, "error");
    lade_put_str(buf, job->error ? job->error : "");
}

static void
s_put_source_error(const lade_job_t *job, lade_buf_t *buf)
{
    s_put_source(job, buf);
    s_put_error(job, buf);
}

static void
s_put_job(const lade_job_t *job, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "kind");
    lade_put_str(buf, job->kind->name);
    s_put_source(job, buf);
}

static void
s_put_job_error(const lade_job_t *job, lade_buf_t *buf)
{
    s_put_job(job, buf);
    s_put_error(job, buf);
}

static void
s_put_bytes(const lade_job_t *job, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "bytes");
    lade_put_int(buf, job->progress.bytes);
    LADE_PUT_KEY(buf, "total_bytes");
    lade_put_int(buf, job->progress.total_bytes);
}

static void
s_put_parts(const lade_job_t *job, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "parts");
    lade_put_array(buf, job->child_count);
    for (size_t i = 0; i < job->child_count; i++) {
        lade_put_map(buf, 4);
        LADE_PUT_KEY(buf, "source");
        lade_put_str(buf, job->parts[i].source);
        LADE_PUT_KEY(buf, "local_path");
        lade_put_str(buf, job->parts[i].local_path);
        LADE_PUT_KEY(buf, "bytes");
        lade_put_int(buf, job->parts[i].bytes);
        LADE_PUT_KEY(buf, "total_bytes");
        lade_put_int(buf, job->parts[i].total_bytes);
    }
}

static void
s_put_downloading(const lade_job_t *job, lade_buf_t *buf)
{
    s_put_source(job, buf);
    LADE_PUT_KEY(buf, "local_path");
    lade_put_str(buf, job->progress.local_path);
    s_put_bytes(job, buf);
    s_put_parts(job, buf);
}

static void
s_put_installed(const lade_job_t *job, lade_buf_t *buf)
{
    s_open_t result;
    s_open(&result, &job->result);
    s_put_source(job, buf);
    LADE_PUT_KEY(buf, "total_bytes");
    lade_put_int(buf, job->progress.total_bytes);
    LADE_PUT_KEY(buf, "key");
    s_put_member(buf, result.map, "key");
    s_close(&result);
}

static void
s_put_download_path(const lade_job_t *job, lade_buf_t *buf)
{
    static const char *const in_result[] = {"download_path", "path", NULL};
    static const char *const in_spec[] = {"destination", NULL};
    s_open_t result, spec;
    s_open(&result, &job->result);
    s_open(&spec, &job->spec);
    const char *text;
    size_t len;
    LADE_PUT_KEY(buf, "download_path");
    if (lade_wire_text(result.map, "download_path", &text, &len) || !job->progress.local_path)
        s_put_first_text(buf, result.map ? result.map : spec.map, result.map ? in_result : in_spec,
                         NULL);
    else
        lade_put_str(buf, job->progress.local_path);
    s_close(&spec);
    s_close(&result);
}

static void
s_put_transfer(const lade_job_t *job, lade_buf_t *buf)
{
    s_put_source(job, buf);
    s_put_download_path(job, buf);
    s_put_bytes(job, buf);
    LADE_PUT_KEY(buf, "job_sequence");
    lade_put_uint(buf, job->sequence);
}

static void
s_put_stopped(const lade_job_t *job, lade_buf_t *buf)
{
    s_put_source(job, buf);
    s_put_download_path(job, buf);
}

// What the caller of a load wants repeated in its events, and that it overrides a refusal.
static size_t
s_context_pairs(const lade_job_t *job)
{
    s_open_t spec;
    s_open(&spec, &job->spec);
    const msgpack_object *context = lade_wire_find(spec.map, "context");
    size_t pairs = context && context->type == MSGPACK_OBJECT_MAP ? context->via.map.size : 0;
    pairs += lade_wire_find(spec.map, "allow_unsafe") != NULL;
    s_close(&spec);
    return pairs;
}

static void
s_put_context(const msgpack_object *spec, lade_buf_t *buf)
{
    if (lade_wire_find(spec, "allow_unsafe")) {
        LADE_PUT_KEY(buf, "allow_unsafe");
        s_put_member(buf, spec, "allow_unsafe");
    }
    const msgpack_object *context = lade_wire_find(spec, "context");
    for (uint32_t i = 0;
         context && context->type == MSGPACK_OBJECT_MAP && i < context->via.map.size; i++) {
        lade_secrets_put_hidden_pair(buf, &context->via.map.ptr[i]);
    }
}

// Which model, and which part of it.
static void
s_put_model(const msgpack_object *spec, lade_buf_t *buf)
{
    LADE_PUT_KEY(buf, "model_key");
    s_put_member(buf, spec, "key");
    LADE_PUT_KEY(buf, "name");
    s_put_member(buf, lade_wire_find(spec, "config"), "name");
    LADE_PUT_KEY(buf, "submodel_type");
    s_put_member(buf, spec, "submodel");
}

// Where a load puts a model, in the words of its result.
static void
s_put_location(const msgpack_object *spec, lade_buf_t *buf)
{
    char *device = lade_wire_strdup(spec, "device");
    lade_put_str(buf, device && *device && strcmp(device, "cpu") != 0 ? device : "host");
    free(device);
}

// The precision a load is to have, in the words of its result: the one asked for, else the
// record's; nil where neither says.
static void
s_put_precision(const msgpack_object *spec, lade_buf_t *buf)
{
    static const struct {
        lade_dtype_t dtype;
        const char *name;
    } names[] = {
        {LADE_DTYPE_F32, "float32"}, {LADE_DTYPE_F16, "float16"}, {LADE_DTYPE_BF16, "bfloat16"}};
    char *asked = lade_wire_strdup(spec, "dtype"),
         *stored = lade_wire_strdup(lade_wire_find(spec, "config"), "precision");
    lade_want_t want;
    bool known = !lade_want_read(asked, NULL, NULL, &want, NULL) && want.cast;
    if (!known)
        known = !lade_want_read(stored, NULL, NULL, &want, NULL) && want.cast;
    const char *name = NULL;
    for (size_t i = 0; known && i < sizeof names / sizeof *names; i++)
        name = names[i].dtype == want.dtype ? names[i].name : name;
    lade_put_str(buf, name);
    free(stored);
    free(asked);
}

static void
s_put_load(const lade_job_t *job, lade_buf_t *buf)
{
    s_open_t spec, result;
    s_open(&spec, &job->spec);
    s_open(&result, &job->result);
    s_put_model(spec.map, buf);
    LADE_PUT_KEY(buf, "hash");
    s_put_member(buf, lade_wire_find(spec.map, "config"), "hash");
    LADE_PUT_KEY(buf, "location");
    if (result.map)
        s_put_member(buf, result.map, "location");
    else
        s_put_location(spec.map, buf);
    LADE_PUT_KEY(buf, "precision");
    if (result.map)
        s_put_member(buf, result.map, "precision");
    else
        s_put_precision(spec.map, buf);
    s_put_context(spec.map, buf);
    s_close(&result);
    s_close(&spec);
}

static void
s_put_load_error(const lade_job_t *job, lade_buf_t *buf)
{
    s_open_t spec;
    s_open(&spec, &job->spec);
    s_put_model(spec.map, buf);
    s_put_context(spec.map, buf);
    s_close(&spec);
    s_put_error(job, buf);
}

static const s_payload_t s_source = {1, s_put_source, NULL};
static const s_payload_t s_source_error = {3, s_put_source_error, NULL};
static const s_payload_t s_job = {2, s_put_job, NULL};
static const s_payload_t s_job_error = {4, s_put_job_error, NULL};
static const s_payload_t s_downloading = {5, s_put_downloading, NULL};
static const s_payload_t s_installed = {3, s_put_installed, NULL};
static const s_payload_t s_transfer = {5, s_put_transfer, NULL};
static const s_payload_t s_stopped = {2, s_put_stopped, NULL};
static const s_payload_t s_load = {6, s_put_load, s_context_pairs};
static const s_payload_t s_load_error = {5, s_put_load_error, s_context_pairs};

// ---------------------------------------------------------------------------------------------------
// Statuses and fields of installs and downloads

// A worker that says `installing` has all files and works on them; before, it finds out what to
// fetch.
static uint8_t
s_install_shown(const lade_job_t *job)
{
    if (job->status > LADE_JOB_WAITING)
        return job->status;
    if (job->status == LADE_JOB_WAITING)
        return S_DOWNLOADING;
    if (job->progress.phase && strcmp(job->progress.phase, "installing") == 0)
        return LADE_JOB_RUNNING;
    return job->child_count ? S_DOWNLOADING : LADE_JOB_WAITING;
}

static void
s_put_install_extra(const lade_job_t *job, lade_buf_t *buf)
{
    s_open_t spec, result;
    s_open(&spec, &job->spec);
    s_open(&result, &job->result);
    LADE_PUT_KEY(buf, "config_in");
    const msgpack_object *config = lade_wire_find(spec.map, "config");
    if (config)
        lade_secrets_put_hidden(buf, config);
    else
        lade_put_nil(buf);
    LADE_PUT_KEY(buf, "config_out");
    s_put_member(buf, result.map, "config_out");
    LADE_PUT_KEY(buf, "inplace");
    lade_put_bool(buf, lade_wire_bool(spec.map, "inplace", false));
    LADE_PUT_KEY(buf, "local_path");
    lade_put_str(buf, job->progress.local_path);
    s_put_bytes(job, buf);
    s_close(&result);
    s_close(&spec);
}

// A job of several files runs while its parts do, a load while what it is made of is converted.
static uint8_t
s_whole_shown(const lade_job_t *job)
{
    bool parts = job->child_count > 0 && job->status == LADE_JOB_ENQUEUED;
    return job->status == LADE_JOB_WAITING || parts ? LADE_JOB_RUNNING : job->status;
}

// What was asked for: the file, or the folder it goes into.
static void
s_put_destination(const msgpack_object *spec, lade_buf_t *buf)
{
    char *file = lade_wire_strdup(spec, "destination"), *dir = lade_wire_strdup(spec, "destdir"),
         *name = lade_wire_strdup(spec, "filename");
    char *joined = !file && dir && name ? lade_path_join(dir, name) : NULL;
    lade_put_str(buf, file ? file : joined ? joined : dir);
    free(joined);
    free(name);
    free(dir);
    free(file);
}

static void
s_put_download_extra(const lade_job_t *job, lade_buf_t *buf)
{
    s_open_t spec;
    s_open(&spec, &job->spec);
    LADE_PUT_KEY(buf, "destination");
    s_put_destination(spec.map, buf);
    LADE_PUT_KEY(buf, "preserve_partial_downloads");
    lade_put_bool(buf, lade_wire_bool(spec.map, "preserve_partial_downloads", false));
    s_close(&spec);
    s_put_bytes(job, buf);
    s_put_download_path(job, buf);
}

static const lade_surface_t s_surfaces[] = {
    // clang-format off
    {"install", s_install_shown, {
        [LADE_JOB_WAITING]   = {"waiting",     NULL,                        NULL},
        [S_DOWNLOADING]      = {"downloading", "model_install_downloading", &s_downloading},
        [LADE_JOB_RUNNING]   = {"running",     "model_install_running",     &s_source},
        [LADE_JOB_PAUSED]    = {"paused",      "job_paused",                &s_job},
        [LADE_JOB_COMPLETED] = {"completed",   "model_install_completed",   &s_installed},
        [LADE_JOB_ERROR]     = {"error",       "model_install_error",       &s_source_error},
        [LADE_JOB_CANCELLED] = {"cancelled",   "model_install_cancelled",   &s_source},
        [LADE_JOB_DEAD]      = {"dead",        "model_install_error",       &s_source_error},
    }, S_DOWNLOADING, {NULL, NULL}, 6, s_put_install_extra},
    {"download", s_whole_shown, {
        [LADE_JOB_ENQUEUED]  = {"enqueued",    "download_enqueued",         &s_source},
        [LADE_JOB_RUNNING]   = {"running",     "download_running",          &s_transfer},
        [LADE_JOB_PAUSED]    = {"paused",      "download_paused",           &s_source},
        [LADE_JOB_COMPLETED] = {"completed",   "download_completed",        &s_transfer},
        [LADE_JOB_ERROR]     = {"error",       "download_error",            &s_source_error},
        [LADE_JOB_CANCELLED] = {"cancelled",   "download_cancelled",        &s_stopped},
        [LADE_JOB_DEAD]      = {"dead",        "download_error",            &s_source_error},
    }, LADE_JOB_RUNNING, {"download_resumed", "download_stalled"}, 5, s_put_download_extra},
    {"load", s_whole_shown, {
        [LADE_JOB_RUNNING]   = {"running",     "model_load_started",        &s_load},
        [LADE_JOB_PAUSED]    = {"paused",      "job_paused",                &s_job},
        [LADE_JOB_COMPLETED] = {"completed",   "model_load_completed",      &s_load},
        [LADE_JOB_ERROR]     = {"error",       "model_load_error",          &s_load_error},
        [LADE_JOB_CANCELLED] = {"cancelled",   "model_load_error",          &s_load_error},
        [LADE_JOB_DEAD]      = {"dead",        "model_load_error",          &s_load_error},
    }, 0, {NULL, NULL}, 0, NULL},
    {NULL, NULL, {
        [LADE_JOB_ENQUEUED]  = {"enqueued",    "job_enqueued",              &s_job},
        [LADE_JOB_RUNNING]   = {"running",     "job_running",               &s_job},
        [LADE_JOB_PAUSED]    = {"paused",      "job_paused",                &s_job},
        [LADE_JOB_COMPLETED] = {"completed",   "job_completed",             &s_job},
        [LADE_JOB_ERROR]     = {"error",       "job_error",                 &s_job_error},
        [LADE_JOB_CANCELLED] = {"cancelled",   "job_cancelled",             &s_job},
    }, 0, {NULL, NULL}, 0, NULL},
    // clang-format on
};

const lade_surface_t *
lade_surface_of(const char *kind)
{
    const lade_surface_t *surface = s_surfaces;
    while (surface->kind && strcmp(surface->kind, kind) != 0)
        surface++;
    return surface;
}

uint8_t
lade_surface_shown(const lade_job_t *job)
{
    const lade_surface_t *surface = job->kind->surface;
    return surface->shown ? surface->shown(job) : (uint8_t)job->status;
}

const char *
lade_surface_status(const lade_job_t *job)
{
    const char *name = job->kind->surface->rows[lade_surface_shown(job)].status;
    return name ? name : lade_job_status_name(job->status);
}

// ---------------------------------------------------------------------------------------------------
// Telling

static void
s_tell(lade_broker_t *broker, const lade_job_t *job, const s_row_t *row, bool journaled)
{
    size_t pairs = row->payload->pairs + (row->payload->more ? row->payload->more(job) : 0);
    row->payload->put(
        job, lade_events_begin(broker->events, row->event, job->id, pairs, journaled, broker->now));
    lade_events_end(broker->events);
}

void
lade_surface_announce(lade_broker_t *broker, lade_job_t *job)
{
    uint8_t shown = lade_surface_shown(job);
    if (shown == job->shown)
        return;
    job->shown = shown;
    const s_row_t *row = &job->kind->surface->rows[shown];
    if (row->event)
        s_tell(broker, job, row, true);
}

void
lade_surface_progress(lade_broker_t *broker, const lade_job_t *job)
{
    const lade_surface_t *surface = job->kind->surface;
    if (!surface->progress || job->shown != surface->progress)
        return;
    broker->metrics.progress_events++;
    s_tell(broker, job, &surface->rows[surface->progress], false);
}

void
lade_surface_tell_stalled(lade_broker_t *broker, const lade_job_t *job)
{
    const char *event = job->kind->surface->stalls[job->stalled];
    if (!event)
        return;
    lade_buf_t *buf =
        lade_events_begin(broker->events, event, job->id, s_transfer.pairs + 1, true, broker->now);
    s_put_transfer(job, buf);
    LADE_PUT_KEY(buf, "reason");
    lade_put_str(buf, job->progress.reason);
    lade_events_end(broker->events);
}

static void
s_tell_again(lade_broker_t *broker, const lade_job_t *job, const char *event, const char *reason)
{
    lade_buf_t *buf = lade_events_begin(broker->events, event, job->id, 6, true, broker->now);
    s_put_job(job, buf);
    LADE_PUT_KEY(buf, "attempt");
    lade_put_int(buf, job->attempt);
    LADE_PUT_KEY(buf, "deaths");
    lade_put_int(buf, job->deaths);
    LADE_PUT_KEY(buf, "failures");
    lade_put_int(buf, job->failures);
    LADE_PUT_KEY(buf, "reason");
    lade_put_str(buf, reason);
    lade_events_end(broker->events);
}

void
lade_surface_tell_requeued(lade_broker_t *broker, const lade_job_t *job, const char *reason)
{
    broker->metrics.jobs_requeued++;
    s_tell_again(broker, job, "job_requeued", reason);
}

void
lade_surface_tell_dead(lade_broker_t *broker, const lade_job_t *job, const char *reason)
{
    broker->metrics.jobs_dead++;
    s_tell_again(broker, job, "job_dead", reason);
}

void
lade_surface_put_job(const lade_job_t *job, bool own, lade_buf_t *buf)
{
    const lade_surface_t *surface = job->kind->surface;
    lade_put_map(buf, LADE_JOB_PAIRS + surface->extra);
    lade_job_put_pairs(job, own ? lade_surface_status(job) : lade_job_status_name(job->status),
                       buf);
    if (surface->extra)
        surface->put_extra(job, buf);
}
