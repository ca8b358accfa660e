// download: the seed's download queue over jobs of the kind `download`.
#include "broker/call.h"
#include "broker/packer.h"
#include "broker/secrets.h"
#include "broker/surface.h"
#include "common/path.h"
#include "common/wire.h"

#include <czmq.h>

#define S_KIND "download"

static bool
s_begins(const msgpack_object *text, const char *with)
{
    size_t len = strlen(with);
    return text->type == MSGPACK_OBJECT_STR && text->via.str.size > len &&
           strncasecmp(text->via.str.ptr, with, len) == 0;
}

static bool
s_is_remote(const msgpack_object *source)
{
    return s_begins(source, "http://") || s_begins(source, "https://");
}

// A path, whose file or folder is moved, or the URL of one, which is copied. The path is the
// worker's, so it has to be a whole one.
static bool
s_is_local(const msgpack_object *source)
{
    return s_begins(source, "/") || s_begins(source, "file:///") ||
           s_begins(source, "file://localhost/");
}

// What names the job: the source, or the first of several mirrors.
static lade_code_t
s_first_source(const msgpack_object *source, lade_submission_t *submission, lade_error_t *error)
{
    enum { S_MOST = 64 };
    const msgpack_object *first = source;
    bool fine = source != NULL;
    if (source && source->type == MSGPACK_OBJECT_ARRAY) {
        fine = source->via.array.size > 0 && source->via.array.size <= S_MOST;
        for (uint32_t i = 0; fine && i < source->via.array.size; i++)
            fine = s_is_remote(&source->via.array.ptr[i]) &&
                   !lade_secrets_check_url(source->via.array.ptr[i].via.str.ptr,
                                           source->via.array.ptr[i].via.str.size, NULL);
        first = fine ? &source->via.array.ptr[0] : NULL;
    }
    if (!fine || (!s_is_remote(first) && !s_is_local(first)))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "source: an http or https URL, an array of 1 to %d such mirrors "
                              "(without passwords in them), a file:// URL or an absolute path is "
                              "needed",
                              S_MOST);
    submission->source = first->via.str.ptr;
    submission->source_len = first->via.str.size;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Several files in one job

// The text of a member as a string you free; NULL if it is none.
static lade_code_t
s_check_file(const msgpack_object *file, char **path_p, lade_error_t *error)
{
    const msgpack_object *url = lade_wire_find(file, "url");
    const char *digest;
    size_t len;
    *path_p = lade_wire_strdup(file, "path");
    if (!url || (!s_is_remote(url) && !s_is_local(url)) || *url->via.str.ptr == '/')
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "url: an http, https or file:// URL is needed");
    if (lade_secrets_check_url(url->via.str.ptr, url->via.str.size, error))
        return error->code;
    if (!*path_p || lade_path_check_relative(*path_p, error))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "path: only relative download paths accepted, not '%.200s'",
                              *path_p ? *path_p : "");
    if (lade_wire_find(file, "size") && lade_wire_int(file, "size", -1) < 0)
        return lade_error_set(error, LADE_VALUE_ERROR, "size: a number of bytes");
    if (lade_wire_find(file, "sha256") && !lade_wire_text(file, "sha256", &digest, &len))
        return lade_error_set(error, LADE_VALUE_ERROR, "sha256: hexadecimal digits as text");
    return LADE_OK;
}

static int
s_compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static lade_code_t
s_check_twice(char **paths, size_t count, lade_error_t *error)
{
    qsort(paths, count, sizeof *paths, s_compare_paths);
    for (size_t i = 1; i < count; i++)
        if (strcmp(paths[i - 1], paths[i]) == 0)
            return lade_error_set(error, LADE_VALUE_ERROR, "files: the path '%.200s' comes twice",
                                  paths[i]);
    return LADE_OK;
}

// Each is complete, stays in the folder, and has a place of its own.
static lade_code_t
s_check_files(const msgpack_object *files, lade_error_t *error)
{
    if (files->type != MSGPACK_OBJECT_ARRAY || files->via.array.size == 0 ||
        files->via.array.size > LADE_BROKER_MAX_CHILDREN)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "files: an array of 1 to %d maps with `url` and `path`",
                              LADE_BROKER_MAX_CHILDREN);
    uint32_t count = files->via.array.size;
    char **paths = zmalloc(count * sizeof *paths);
    lade_code_t code = LADE_OK;
    for (uint32_t i = 0; i < count && !code; i++) {
        code = s_check_file(&files->via.array.ptr[i], &paths[i], error);
        if (code) {
            lade_error_wrap(error, "files[%u]", i);
        }
    }
    if (!code)
        code = s_check_twice(paths, count, error);
    for (uint32_t i = 0; i < count; i++)
        free(paths[i]);
    free(paths);
    return code;
}

// What one file has in a job of its own, each of several files has for itself.
static lade_code_t
s_check_multi(const msgpack_object *args, const msgpack_object *files, lade_error_t *error)
{
    static const char *const of_one[] = {"destination", "filename", "sha256", "size", NULL};
    const char *dir;
    size_t len;
    for (size_t i = 0; of_one[i]; i++)
        if (lade_wire_find(args, of_one[i]))
            return lade_error_set(error, LADE_VALUE_ERROR,
                                  "%s: is said of each of `files`, not of the job", of_one[i]);
    if (!lade_wire_text(args, "destdir", &dir, &len) || len == 0 || *dir != '/')
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "destdir: the absolute path of the folder that `files` go into, as "
                              "the workers see it, is needed");
    return s_check_files(files, error);
}

// What people call it (a repository, say), or the first file's URL.
static lade_code_t
s_multi_source(const msgpack_object *args, const msgpack_object *files,
               lade_submission_t *submission, lade_error_t *error)
{
    const msgpack_object *source = lade_wire_find(args, "source");
    if (source && source->type == MSGPACK_OBJECT_NIL)
        source = NULL;
    if (source && (source->type != MSGPACK_OBJECT_STR || source->via.str.size == 0))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "source: with `files` it is the text the job is known by");
    if (!source)
        source = lade_wire_find(&files->via.array.ptr[0], "url");
    submission->source = source->via.str.ptr;
    submission->source_len = source->via.str.size;
    // The parts go where the job's worker has to be, and through its gates.
    submission->gates = NULL;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Submitting

static lade_code_t
s_check_place(const msgpack_object *args, lade_error_t *error)
{
    const char *text;
    size_t len;
    if ((lade_wire_text(args, "destination", &text, &len) ||
         lade_wire_text(args, "destdir", &text, &len)) &&
        len > 0 && *text == '/')
        return LADE_OK;
    return lade_error_set(
        error, LADE_VALUE_ERROR,
        "destination or destdir: an absolute path, as the workers see it, is needed");
}

// Packs the spec: what the worker reads, and all mirrors or files if there are several.
static void
s_pack_spec(const msgpack_object *args, const msgpack_object *source, bool multi, lade_blob_t *spec)
{
    static const char *const members[] = {
        "destination", "destdir", "filename",    "access_token",
        "sha256",      "size",    "bytes_per_s", "preserve_partial_downloads",
        "files",       "gates",   "requires"}; // the last three of several files
    const size_t count = sizeof members / sizeof *members - (multi ? 0 : 3);
    bool mirrors = !multi && source->type == MSGPACK_OBJECT_ARRAY;
    size_t pairs = mirrors;
    for (size_t i = 0; i < count; i++)
        pairs += lade_wire_find(args, members[i]) != NULL;
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    lade_put_map(&buf, pairs);
    for (size_t i = 0; i < count; i++) {
        const msgpack_object *value = lade_wire_find(args, members[i]);
        if (value) {
            lade_put_str(&buf, members[i]);
            lade_put_object(&buf, value);
        }
    }
    if (mirrors) {
        LADE_PUT_KEY(&buf, "urls");
        lade_put_object(&buf, source);
    }
    *spec = (lade_blob_t){buf.data, buf.len};
}

static lade_code_t
s_submit(lade_call_t *call, const msgpack_object *args, bool start, lade_error_t *error)
{
    lade_submission_t submission = {.kind = S_KIND,
                                    .kind_len = strlen(S_KIND),
                                    .priority = lade_wire_int(args, "priority", 10),
                                    .gates = lade_wire_find(args, "gates"),
                                    .requires = lade_wire_find(args, "requires"),
                                    .idle = !start};
    const msgpack_object *source = lade_wire_find(args, "source"),
                         *files = lade_wire_find(args, "files");
    if (files && files->type == MSGPACK_OBJECT_NIL)
        files = NULL;
    lade_code_t code =
        files ? s_check_multi(args, files, error) : s_first_source(source, &submission, error);
    if (!code)
        code = files ? s_multi_source(args, files, &submission, error) : s_check_place(args, error);
    if (code)
        return code;
    lade_wire_text(args, "token", &submission.token, &submission.token_len);
    s_pack_spec(args, source, files != NULL, &submission.packed_spec);
    lade_job_t *job;
    code = lade_jobs_submit(call->broker->jobs, &submission, &job, error);
    if (!code)
        lade_call_answer_job(call, job, true);
    return code;
}

static lade_code_t
s_create_download_job(lade_call_t *call, lade_error_t *error)
{
    return s_submit(call, call->args, lade_wire_bool(call->args, "start", true), error);
}

static lade_code_t
s_submit_download_job(lade_call_t *call, lade_error_t *error)
{
    const msgpack_object *job = lade_wire_find(call->args, "job");
    if (!job || job->type != MSGPACK_OBJECT_MAP)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "job: a map with source and destination is needed");
    if (lade_call_check_args(job, error))
        return error->code;
    return s_submit(call, job, lade_wire_bool(call->args, "start", true), error);
}

// ---------------------------------------------------------------------------------------------------
// Jobs

static lade_kind_t *
s_kind(const lade_call_t *call)
{
    return lade_jobs_need_kind(call->broker->jobs, S_KIND, strlen(S_KIND));
}

static lade_code_t
s_list_jobs(lade_call_t *call, lade_error_t *error)
{
    lade_job_filter_t filter = {.kind = s_kind(call), .status = LADE_JOB_STATUS_COUNT};
    return lade_call_answer_jobs(call, &filter, true, error);
}

static lade_code_t
s_id_to_job(lade_call_t *call, lade_error_t *error)
{
    return lade_call_answer_named(call, S_KIND, error);
}

// What may be changed of a job that has not ended; a worker that has it hears of it.
static lade_code_t
s_update_download_job(lade_call_t *call, lade_error_t *error)
{
    lade_job_t *job;
    lade_jobs_t *jobs = call->broker->jobs;
    const msgpack_object *preserve = lade_wire_find(call->args, "preserve_partial_downloads"),
                         *priority = lade_wire_find(call->args, "priority");
    preserve = preserve && preserve->type == MSGPACK_OBJECT_BOOLEAN ? preserve : NULL;
    priority = priority && priority->type != MSGPACK_OBJECT_NIL ? priority : NULL;
    lade_code_t code = lade_call_need_job(call, S_KIND, &job, error);
    if (!code && !preserve && !priority)
        code = lade_error_set(error, LADE_VALUE_ERROR,
                              "preserve_partial_downloads or priority: what is to be changed?");
    if (!code && preserve)
        code = lade_jobs_set_preserve(jobs, job, preserve->via.boolean, error);
    if (!code && priority)
        code = lade_jobs_set_priority(jobs, job, lade_wire_int(call->args, "priority", 10), error);
    if (!code)
        lade_call_answer_job(call, job, true);
    return code;
}

typedef lade_code_t(s_act_fn)(lade_jobs_t *jobs, lade_job_t *job, lade_error_t *error);

static lade_code_t
s_act_on_one(lade_call_t *call, s_act_fn *act, lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_call_need_job(call, S_KIND, &job, error);
    if (!code && !lade_job_ended(job)) // what has ended stays as it is
        code = act(call->broker->jobs, job, error);
    if (!code)
        lade_call_answer_job(call, job, true);
    return code;
}

// Acts on every job that is not ended and answers those that changed.
static lade_code_t
s_act_on_all(lade_call_t *call, s_act_fn *act, lade_error_t *error)
{
    lade_jobs_t *jobs = call->broker->jobs;
    lade_call_ids_t ids = {0};
    lade_job_filter_t filter = {.kind = s_kind(call),
                                .status = LADE_JOB_STATUS_COUNT,
                                .not_ended = true,
                                .limit = SIZE_MAX};
    lade_code_t code = lade_jobs_each(jobs, &filter, lade_call_add_id, &ids, error);
    size_t count = 0;
    for (size_t i = 0; i < ids.count && !code; i++) {
        lade_job_t *job = lade_jobs_live(jobs, ids.ids[i]);
        if (job && act(jobs, job, NULL) == LADE_OK)
            ids.ids[count++] = ids.ids[i];
    }
    lade_buf_t *buf = code ? NULL : lade_call_begin(call);
    if (buf) {
        lade_put_array(buf, count);
        for (size_t i = 0; i < count; i++) {
            lade_job_t *job;
            lade_jobs_get(jobs, ids.ids[i], &job, NULL); // it is in memory until the turn ends
            lade_surface_put_job(job, true, buf);
        }
        lade_call_end(call);
    }
    free(ids.ids);
    return code;
}

static lade_code_t
s_start_job(lade_call_t *call, lade_error_t *error)
{
    return s_act_on_one(call, lade_jobs_start, error);
}

static lade_code_t
s_pause_job(lade_call_t *call, lade_error_t *error)
{
    return s_act_on_one(call, lade_jobs_pause, error);
}

static lade_code_t
s_cancel_job(lade_call_t *call, lade_error_t *error)
{
    return s_act_on_one(call, lade_jobs_cancel, error);
}

static lade_code_t
s_start_all_jobs(lade_call_t *call, lade_error_t *error)
{
    return s_act_on_all(call, lade_jobs_start, error);
}

static lade_code_t
s_pause_all_jobs(lade_call_t *call, lade_error_t *error)
{
    return s_act_on_all(call, lade_jobs_pause, error);
}

static lade_code_t
s_cancel_all_jobs(lade_call_t *call, lade_error_t *error)
{
    return s_act_on_all(call, lade_jobs_cancel, error);
}

static lade_code_t
s_prune_jobs(lade_call_t *call, lade_error_t *error)
{
    return lade_call_purge(call, S_KIND, error);
}

static lade_code_t
s_wait_for_job(lade_call_t *call, lade_error_t *error)
{
    return lade_call_wait_named(call, S_KIND, error);
}

static lade_code_t
s_join(lade_call_t *call, lade_error_t *error)
{
    return lade_call_wait(call, NULL, 0, s_kind(call), lade_call_ended_kind, error);
}

static const lade_op_t s_ops[] = {
    // clang-format off
    {"create_download_job", s_create_download_job},
    {"submit_download_job", s_submit_download_job},
    {"update_download_job", s_update_download_job},
    {"list_jobs",           s_list_jobs},
    {"id_to_job",           s_id_to_job},
    {"start_job",           s_start_job},
    {"pause_job",           s_pause_job},
    {"cancel_job",          s_cancel_job},
    {"start_all_jobs",      s_start_all_jobs},
    {"pause_all_jobs",      s_pause_all_jobs},
    {"cancel_all_jobs",     s_cancel_all_jobs},
    {"prune_jobs",          s_prune_jobs},
    {"wait_for_job",        s_wait_for_job},
    {"join",                s_join},
    {NULL,                  NULL},
    // clang-format on
};

const lade_service_t lade_service_download = {"download", s_ops};
