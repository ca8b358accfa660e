// install: the seed's installer over jobs of the kind `install`.
#include "broker/call.h"
#include "broker/map.h"
#include "broker/packer.h"
#include "broker/surface.h"
#include "common/record.h"
#include "common/wire.h"

#include <czmq.h>

#define S_KIND "install"

// ---------------------------------------------------------------------------------------------------
// Submitting

// What `config` asks for is looked at before there is a job, and before a byte is fetched for it.
static lade_code_t
s_check_config(const lade_call_t *call, lade_error_t *error)
{
    const msgpack_object *config = lade_wire_find(call->args, "config");
    if (!config || config->type != MSGPACK_OBJECT_MAP)
        return LADE_OK; // none: another type was refused with the arguments
    json_t *overrides = lade_wire_object_to_json(config);
    lade_record_canonical(overrides);
    lade_code_t code = lade_record_check_overrides(overrides, error);
    const char *key = lade_json_text(overrides, "key", NULL);
    if (!code && key && lade_records_exists(call->broker->records, key))
        code = lade_error_set(error, LADE_DUPLICATE_MODEL, "a model with the key %s is there", key);
    json_decref(overrides);
    return code;
}

// What to do about equal content that is installed already, and with the files of a source.
static lade_code_t
s_check_ways(const lade_call_t *call, lade_error_t *error)
{
    char *on_equal = lade_wire_strdup(call->args, "on_equal");
    bool known = !on_equal || strcmp(on_equal, "refuse") == 0 || strcmp(on_equal, "link") == 0 ||
                 strcmp(on_equal, "copy") == 0;
    free(on_equal);
    if (!known)
        return lade_error_set(error, LADE_VALUE_ERROR, "on_equal: takes refuse, link or copy");
    if (lade_wire_bool(call->args, "move", false) && lade_wire_bool(call->args, "inplace", false))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "move: what stays in place is not moved; give one of the two");
    return LADE_OK;
}

static lade_code_t
s_submit(lade_call_t *call, const char *source, const char *const *members, lade_error_t *error)
{
    if (s_check_ways(call, error) || s_check_config(call, error))
        return error->code;
    lade_submission_t submission = {.kind = S_KIND,
                                    .kind_len = strlen(S_KIND),
                                    .source = source,
                                    .source_len = strlen(source),
                                    .priority = lade_wire_int(call->args, "priority", 10)};
    lade_wire_text(call->args, "token", &submission.token, &submission.token_len);
    lade_call_copy_members(call->args, members, &submission.packed_spec);
    lade_job_t *job;
    lade_code_t code = lade_jobs_submit(call->broker->jobs, &submission, &job, error);
    if (!code)
        lade_call_answer_job(call, job, true);
    return code;
}

static lade_code_t
s_heuristic_import(lade_call_t *call, lade_error_t *error)
{
    static const char *const members[] = {"config", "access_token", "inplace", "dry_run",
                                          "move",   "on_equal",     NULL};
    char *source;
    lade_code_t code = lade_call_need_text(call, "source", &source, error);
    if (!code)
        code = s_submit(call, source, members, error);
    free(source);
    return code;
}

// The text a source given as a map is known by: its path, URL, or repository with variant and
// subfolder.
static lade_code_t
s_source_text(const msgpack_object *source, char **text_p, lade_error_t *error)
{
    char *repo = lade_wire_strdup(source, "repo_id"),
         *variant = lade_wire_strdup(source, "variant");
    char *subfolder = lade_wire_strdup(source, "subfolder");
    char *revision = lade_wire_strdup(source, "revision");
    *text_p = lade_wire_strdup(source, "path");
    if (!*text_p)
        *text_p = lade_wire_strdup(source, "url");
    if (!*text_p && repo &&
        asprintf(text_p, "%s%s%s%s%s%s%s", repo, revision ? "@" : "", revision ? revision : "",
                 variant || subfolder ? ":" : "", variant ? variant : "", subfolder ? ":" : "",
                 subfolder ? subfolder : "") < 0)
        abort();
    free(repo);
    free(variant);
    free(subfolder);
    free(revision);
    if (*text_p && **text_p)
        return LADE_OK;
    free(*text_p);
    *text_p = NULL;
    return lade_error_set(error, LADE_VALUE_ERROR,
                          "source: a text, or a map with `type` and `path`, `url` or `repo_id`");
}

static lade_code_t
s_import_model(lade_call_t *call, lade_error_t *error)
{
    static const char *const members[] = {"source",  "config", "access_token", "inplace",
                                          "dry_run", "move",   "on_equal",     NULL};
    const msgpack_object *source = lade_wire_find(call->args, "source");
    if (!source || source->type != MSGPACK_OBJECT_MAP)
        return s_heuristic_import(call, error);
    char *text;
    lade_code_t code = s_source_text(source, &text, error);
    if (!code)
        code = s_submit(call, text, members, error);
    free(text);
    return code;
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
s_get_job_by_id(lade_call_t *call, lade_error_t *error)
{
    return lade_call_answer_named(call, S_KIND, error);
}

static lade_code_t
s_get_job_by_source(lade_call_t *call, lade_error_t *error)
{
    char *source;
    const msgpack_object *map = lade_wire_find(call->args, "source");
    lade_code_t code = map && map->type == MSGPACK_OBJECT_MAP
                           ? s_source_text(map, &source, error)
                           : lade_call_need_text(call, "source", &source, error);
    if (code)
        return code;
    lade_job_filter_t filter = {
        .kind = s_kind(call), .status = LADE_JOB_STATUS_COUNT, .source = source};
    code = lade_call_answer_jobs(call, &filter, true, error);
    free(source);
    return code;
}

static lade_code_t
s_cancel_job(lade_call_t *call, lade_error_t *error)
{
    lade_job_t *job;
    lade_code_t code = lade_call_need_job(call, S_KIND, &job, error);
    if (!code && !lade_job_ended(job)) // what has ended stays as it is
        code = lade_jobs_cancel(call->broker->jobs, job, error);
    if (!code)
        lade_call_answer_job(call, job, true);
    return code;
}

static lade_code_t
s_wait_for_job(lade_call_t *call, lade_error_t *error)
{
    return lade_call_wait_named(call, S_KIND, error);
}

// The newest job of each source, packed.
typedef struct {
    char *source;
    lade_buf_t job;
} s_newest_t;

typedef struct {
    lade_map_t *by_source; // of s_newest_t
    size_t bytes;
} s_newest_jobs_t;

static bool
s_take_newest(void *arg, lade_job_t *job)
{
    enum { S_MOST = 12 << 20 }; // bytes of an answer
    s_newest_jobs_t *self = arg;
    const char *source = job->source ? job->source : "";
    s_newest_t *newest = lade_map_get(self->by_source, source, strlen(source));
    if (!newest) {
        newest = zmalloc(sizeof *newest);
        *newest = (s_newest_t){strdup(source), LADE_BUF(SIZE_MAX / 2)};
        lade_map_put(self->by_source, newest->source, strlen(newest->source), newest);
    }
    self->bytes -= newest->job.len;
    newest->job.len = 0;
    lade_surface_put_job(job, true, &newest->job);
    self->bytes += newest->job.len;
    return self->bytes < S_MOST;
}

static lade_code_t
s_ended_by_source(lade_broker_t *broker, const lade_wait_t *wait, lade_buf_t *buf,
                  lade_error_t *error)
{
    lade_job_filter_t filter = {
        .kind = wait->kind, .status = LADE_JOB_STATUS_COUNT, .limit = LADE_BROKER_MAX_LIST};
    s_newest_jobs_t jobs = {lade_map_new(), 0};
    lade_code_t code = lade_jobs_each(broker->jobs, &filter, s_take_newest, &jobs, error);
    if (!code)
        lade_put_map(buf, lade_map_size(jobs.by_source));
    size_t at = 0;
    for (s_newest_t *newest; (newest = lade_map_next(jobs.by_source, &at));) {
        if (!code) {
            lade_put_str(buf, newest->source);
            lade_put_raw(buf, newest->job.data, newest->job.len);
        }
        lade_buf_free(&newest->job);
        free(newest->source);
        free(newest);
    }
    lade_map_destroy(&jobs.by_source);
    return code;
}

static lade_code_t
s_wait_for_installs(lade_call_t *call, lade_error_t *error)
{
    bool by_source = lade_wire_bool(call->args, "by_source", false);
    return lade_call_wait(call, NULL, 0, s_kind(call),
                          by_source ? s_ended_by_source : lade_call_ended_kind, error);
}

static lade_code_t
s_prune_jobs(lade_call_t *call, lade_error_t *error)
{
    return lade_call_purge(call, S_KIND, error);
}

// ---------------------------------------------------------------------------------------------------
// Records and files

// A path of the workers' host becomes a record, in place or as a copy in the models folder; the
// answer is its key.
static lade_code_t
s_from_path(lade_call_t *call, bool inplace, lade_error_t *error)
{
    char *path;
    lade_code_t code = lade_call_need_text(call, "path", &path, error);
    if (!code && *path != '/')
        code = lade_error_set(error, LADE_VALUE_ERROR,
                              "path: '%.200s' is not absolute, and means nothing to a worker in "
                              "another folder",
                              path);
    if (!code)
        code = s_check_ways(call, error);
    if (!code)
        code = s_check_config(call, error);
    if (!code) {
        const msgpack_object *config = lade_wire_find(call->args, "config");
        const msgpack_object *on_equal = lade_wire_find(call->args, "on_equal");
        lade_buf_t spec = LADE_BUF(SIZE_MAX / 2);
        lade_put_map(&spec, 3 + (on_equal != NULL));
        if (on_equal) {
            LADE_PUT_KEY(&spec, "on_equal");
            lade_put_object(&spec, on_equal);
        }
        LADE_PUT_KEY(&spec, "source");
        lade_put_map(&spec, 2);
        LADE_PUT_KEY(&spec, "type");
        lade_put_str(&spec, "local");
        LADE_PUT_KEY(&spec, "path");
        lade_put_str(&spec, path);
        LADE_PUT_KEY(&spec, "inplace");
        lade_put_bool(&spec, inplace);
        LADE_PUT_KEY(&spec, "config");
        if (config)
            lade_put_object(&spec, config);
        else
            lade_put_nil(&spec);
        lade_submission_t submission = {
            .kind = S_KIND, .source = path, .packed_spec = {spec.data, spec.len}};
        code = lade_call_submit_wait(call, &submission, lade_call_ended_key, error);
    }
    free(path);
    return code;
}

static lade_code_t
s_register_path(lade_call_t *call, lade_error_t *error)
{
    return s_from_path(call, true, error);
}

static lade_code_t
s_install_path(lade_call_t *call, lade_error_t *error)
{
    return s_from_path(call, false, error);
}

// A worker removes the files; the record goes with its DONE.
static lade_code_t
s_delete_spec(const lade_call_t *call, bool force, char **key_p, lade_blob_t *spec,
              lade_error_t *error)
{
    json_t *record = NULL;
    lade_code_t code = lade_call_need_text(call, "key", key_p, error);
    if (!code)
        code = lade_records_get(call->broker->records, *key_p, &record, error);
    if (code) {
        free(*key_p);
        *key_p = NULL;
        return code;
    }
    lade_buf_t buf = LADE_BUF(SIZE_MAX / 2);
    lade_put_map(&buf, 3);
    LADE_PUT_KEY(&buf, "key");
    lade_put_str(&buf, *key_p);
    LADE_PUT_KEY(&buf, "record");
    lade_wire_from_json(record, &buf, NULL);
    LADE_PUT_KEY(&buf, "force");
    lade_put_bool(&buf, force);
    json_decref(record);
    *spec = (lade_blob_t){buf.data, buf.len};
    return LADE_OK;
}

static lade_code_t
s_delete(lade_call_t *call, lade_error_t *error)
{
    char *key;
    lade_submission_t submission = {.kind = "delete",
                                    .kind_len = strlen("delete"),
                                    .priority = lade_wire_int(call->args, "priority", 10)};
    lade_code_t code = s_delete_spec(call, lade_wire_bool(call->args, "force", false), &key,
                                     &submission.packed_spec, error);
    if (code)
        return code;
    submission.source = key;
    submission.source_len = strlen(key);
    lade_wire_text(call->args, "token", &submission.token, &submission.token_len);
    lade_job_t *job;
    code = lade_jobs_submit(call->broker->jobs, &submission, &job, error);
    free(key);
    if (!code)
        lade_call_answer_job(call, job, true);
    return code;
}

// The files go wherever they are, and the record with them; the answer comes when they are gone.
static lade_code_t
s_unconditionally_delete(lade_call_t *call, lade_error_t *error)
{
    char *key;
    lade_submission_t submission = {.kind = "delete"};
    lade_code_t code = s_delete_spec(call, true, &key, &submission.packed_spec, error);
    if (code)
        return code;
    submission.source = key;
    code = lade_call_submit_wait(call, &submission, lade_call_ended_nil, error);
    free(key);
    return code;
}

// A worker asks the hub or Civitai what a model's page says; the answer is the metadata.
static lade_code_t
s_metadata(lade_call_t *call, lade_error_t *error)
{
    static const char *const members[] = {"url", "id", "access_token", NULL};
    bool url = lade_wire_find(call->args, "url") != NULL;
    if (url == (lade_wire_find(call->args, "id") != NULL))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "give one of url (a page) and id (ORG/NAME, or a number of Civitai)");
    char *text;
    int64_t number = url ? 0 : lade_wire_int(call->args, "id", 0);
    lade_code_t code = LADE_OK;
    if (number > 0 && asprintf(&text, "%" PRId64, number) < 0)
        abort();
    if (number <= 0)
        code = lade_call_need_text(call, url ? "url" : "id", &text, error);
    if (code)
        return code;
    lade_submission_t submission = {.kind = "metadata", .source = text};
    lade_call_copy_members(call->args, members, &submission.packed_spec);
    code = lade_call_submit_wait(call, &submission, lade_call_ended_result, error);
    free(text);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The cache of fetched files

static lade_code_t
s_download_and_cache(lade_call_t *call, lade_error_t *error)
{
    static const char *const members[] = {"access_token", NULL};
    char *source;
    lade_code_t code = lade_call_need_text(call, "source", &source, error);
    if (!code) {
        lade_submission_t submission = {.kind = "cache", .source = source};
        lade_call_copy_members(call->args, members, &submission.packed_spec);
        code = lade_call_submit_wait(call, &submission, lade_call_ended_path, error);
    }
    free(source);
    return code;
}

static lade_code_t
s_cache_op(lade_call_t *call, const char *op, lade_error_t *error)
{
    char *source = lade_wire_strdup(call->args, "source");
    lade_buf_t spec = LADE_BUF(SIZE_MAX / 2);
    lade_put_map(&spec, 1 + (source != NULL));
    LADE_PUT_KEY(&spec, "op");
    lade_put_str(&spec, op);
    if (source) {
        LADE_PUT_KEY(&spec, "source");
        lade_put_str(&spec, source);
    }
    free(source);
    lade_submission_t submission = {.kind = "cache", .packed_spec = {spec.data, spec.len}};
    return lade_call_submit_wait(call, &submission, lade_call_ended_result, error);
}

static lade_code_t
s_list_cache(lade_call_t *call, lade_error_t *error)
{
    return s_cache_op(call, "list", error);
}

static lade_code_t
s_clear_cache(lade_call_t *call, lade_error_t *error)
{
    return s_cache_op(call, "clear", error);
}

// Into the cache one conversion of a model at a time, whoever asks for it.
static void
s_pass_alone(lade_submission_t *submission, const char *key, msgpack_object gates[2],
             char name[LADE_BROKER_MAX_NAME + 1])
{
    snprintf(name, LADE_BROKER_MAX_NAME + 1, "only:convert:%.200s", key);
    gates[0] = (msgpack_object){.type = MSGPACK_OBJECT_ARRAY};
    gates[0].via.array.size = 1;
    gates[0].via.array.ptr = &gates[1];
    gates[1] = (msgpack_object){.type = MSGPACK_OBJECT_STR};
    gates[1].via.str.ptr = name;
    gates[1].via.str.size = (uint32_t)strlen(name);
    submission->gates = &gates[0];
}

// A model's checkpoint becomes a folder of diffusers; the answer is where it is.
static lade_code_t
s_convert(lade_call_t *call, lade_error_t *error)
{
    json_t *record = NULL;
    char *key, *dest = lade_wire_strdup(call->args, "dest");
    lade_code_t code = lade_call_need_text(call, "key", &key, error);
    if (!code)
        code = lade_records_get(call->broker->records, key, &record, error);
    if (!code && dest && *dest != '/')
        code = lade_error_set(error, LADE_VALUE_ERROR,
                              "dest: '%.200s' is not absolute, and means nothing to a worker in "
                              "another folder",
                              dest);
    if (!code) {
        lade_buf_t spec = LADE_BUF(SIZE_MAX / 2);
        lade_put_map(&spec, 2 + (dest != NULL));
        LADE_PUT_KEY(&spec, "key");
        lade_put_str(&spec, key);
        LADE_PUT_KEY(&spec, "record");
        lade_wire_from_json(record, &spec, NULL);
        if (dest) {
            LADE_PUT_KEY(&spec, "dest");
            lade_put_str(&spec, dest);
        }
        lade_submission_t submission = {
            .kind = "convert", .source = key, .packed_spec = {spec.data, spec.len}};
        msgpack_object gates[2];
        char name[LADE_BROKER_MAX_NAME + 1];
        if (!dest)
            s_pass_alone(&submission, key, gates, name);
        code = lade_call_submit_wait(call, &submission, lade_call_ended_path, error);
    }
    json_decref(record);
    free(dest);
    free(key);
    return code;
}

static const lade_op_t s_ops[] = {
    // clang-format off
    {"heuristic_import",       s_heuristic_import},
    {"import_model",           s_import_model},
    {"register_path",          s_register_path},
    {"install_path",           s_install_path},
    {"download_and_cache",     s_download_and_cache},
    {"list_cache",             s_list_cache},
    {"clear_cache",            s_clear_cache},
    {"convert",                s_convert},
    {"list_jobs",              s_list_jobs},
    {"get_job_by_id",          s_get_job_by_id},
    {"get_job_by_source",      s_get_job_by_source},
    {"cancel_job",             s_cancel_job},
    {"prune_jobs",             s_prune_jobs},
    {"wait_for_job",           s_wait_for_job},
    {"wait_for_installs",      s_wait_for_installs},
    {"unregister",             lade_call_del_model},
    {"delete",                 s_delete},
    {"unconditionally_delete", s_unconditionally_delete},
    {"scan_directory",         lade_call_scan_directory},
    {"sync_to_config",         lade_call_sync_to_config},
    {"verify",                 lade_call_verify},
    {"metadata",               s_metadata},
    {NULL,                     NULL},
    // clang-format on
};

const lade_service_t lade_service_install = {"install", s_ops};
