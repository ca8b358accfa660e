// The installer: the seed's methods, each a call or two.
#include "client/outcome.h"
#include "client/request.h"
#include "common/wire.h"

#include <string.h>

static void
s_set(json_t *args, const char *name, const char *text)
{
    if (text)
        json_object_set_new_nocheck(args, name, json_stringn_nocheck(text, strlen(text)));
}

// A JSON object given as text; NULL or "" is none.
static lade_code_t
s_set_object(json_t *args, const char *name, const char *text, lade_error_t *error)
{
    if (!text || !*text)
        return LADE_OK;
    json_error_t where;
    json_t *object = json_loads(text, 0, &where);
    if (!json_is_object(object)) {
        json_decref(object);
        return lade_error_set(error, LADE_VALUE_ERROR, "%s has to be a JSON object", name);
    }
    json_object_set_new(args, name, object);
    return LADE_OK;
}

// Calls install.OP; args is taken over. *result_p is yours.
static lade_code_t
s_call(lade_t *self, const char *op, json_t *args, json_t **result_p, lade_error_t *error)
{
    return lade_request_json(self, "install", op, args, NULL, NULL, result_p, error);
}

// The same, with the result as JSON text, or as it is if it is a text (text_p may be NULL).
static lade_code_t
s_call_text(lade_t *self, const char *op, json_t *args, char **text_p, lade_error_t *error)
{
    json_t *result = NULL;
    if (text_p)
        *text_p = NULL;
    lade_code_t code = s_call(self, op, args, &result, error);
    if (!code && text_p)
        *text_p =
            json_is_string(result) ? strdup(json_string_value(result)) : lade_request_text(result);
    json_decref(result);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Installing

static lade_code_t
s_submit(lade_t *self, const char *op, json_t *args, const lade_install_options_t *options,
         char **job_p, lade_error_t *error)
{
    static const lade_install_options_t preset = LADE_INSTALL_OPTIONS;
    if (!options)
        options = &preset;
    if (s_set_object(args, "config", options->config, error)) {
        json_decref(args);
        return error ? error->code : LADE_VALUE_ERROR;
    }
    s_set(args, "access_token", options->access_token);
    s_set(args, "on_equal", options->on_equal);
    json_object_set_new(args, "priority", json_integer(options->priority));
    if (options->inplace)
        json_object_set_new(args, "inplace", json_true());
    if (options->move)
        json_object_set_new(args, "move", json_true());
    return s_call_text(self, op, args, job_p, error);
}

lade_code_t
lade_installer_heuristic_import(lade_t *self, const char *source,
                                const lade_install_options_t *options, char **job_p,
                                lade_error_t *error)
{
    json_t *args = json_object();
    s_set(args, "source", source);
    return s_submit(self, "heuristic_import", args, options, job_p, error);
}

lade_code_t
lade_installer_import_model(lade_t *self, const char *source, const lade_install_options_t *options,
                            char **job_p, lade_error_t *error)
{
    json_t *args = json_object();
    if (s_set_object(args, "source", source, error)) {
        json_decref(args);
        return error ? error->code : LADE_VALUE_ERROR;
    }
    return s_submit(self, "import_model", args, options, job_p, error);
}

lade_code_t
lade_install(lade_t *self, const char *source, const char *config, double timeout_s,
             char **record_p, lade_error_t *error)
{
    if (record_p)
        *record_p = NULL;
    json_t *args = json_object(), *job = NULL, *ended = NULL;
    s_set(args, "source", source);
    lade_code_t code = s_set_object(args, "config", config, error);
    if (code)
        json_decref(args);
    else
        code = s_call(self, "heuristic_import", args, &job, error);
    if (!code)
        code = s_call(self, "wait_for_job",
                      json_pack("{s:I, s:f}", "id", (json_int_t)lade_json_int(job, "id", -1),
                                "timeout_s", timeout_s),
                      &ended, error);
    if (!code)
        code = lade_outcome_error(ended, error);
    if (!code && record_p)
        *record_p = lade_request_text(json_object_get(ended, "config_out"));
    json_decref(job);
    json_decref(ended);
    return code;
}

static lade_code_t
s_from_path(lade_t *self, const char *op, const char *path, const char *config, double timeout_s,
            char **key_p, lade_error_t *error)
{
    json_t *args = json_pack("{s:f}", "timeout_s", timeout_s);
    s_set(args, "path", path);
    if (s_set_object(args, "config", config, error)) {
        json_decref(args);
        return error ? error->code : LADE_VALUE_ERROR;
    }
    return s_call_text(self, op, args, key_p, error);
}

lade_code_t
lade_installer_register_path(lade_t *self, const char *path, const char *config, double timeout_s,
                             char **key_p, lade_error_t *error)
{
    return s_from_path(self, "register_path", path, config, timeout_s, key_p, error);
}

lade_code_t
lade_installer_install_path(lade_t *self, const char *path, const char *config, double timeout_s,
                            char **key_p, lade_error_t *error)
{
    return s_from_path(self, "install_path", path, config, timeout_s, key_p, error);
}

lade_code_t
lade_installer_download_and_cache(lade_t *self, const char *source, const char *access_token,
                                  double timeout_s, char **path_p, lade_error_t *error)
{
    json_t *args = json_pack("{s:f}", "timeout_s", timeout_s);
    s_set(args, "source", source);
    s_set(args, "access_token", access_token);
    return s_call_text(self, "download_and_cache", args, path_p, error);
}

lade_code_t
lade_installer_convert(lade_t *self, const char *key, const char *dest, double timeout_s,
                       char **path_p, lade_error_t *error)
{
    json_t *args = json_pack("{s:f}", "timeout_s", timeout_s);
    s_set(args, "key", key);
    s_set(args, "dest", dest);
    return s_call_text(self, "convert", args, path_p, error);
}

// ---------------------------------------------------------------------------------------------------
// Removing

static json_t *
s_key_args(const char *key)
{
    json_t *args = json_object();
    s_set(args, "key", key);
    return args;
}

lade_code_t
lade_installer_unregister(lade_t *self, const char *key, lade_error_t *error)
{
    return s_call(self, "unregister", s_key_args(key), NULL, error);
}

lade_code_t
lade_installer_delete(lade_t *self, const char *key, double timeout_s, lade_error_t *error)
{
    json_t *job = NULL, *ended = NULL;
    lade_code_t code = s_call(self, "delete", s_key_args(key), &job, error);
    if (!code)
        code = lade_request_json(self, "jobs", "wait",
                                 json_pack("{s:I, s:f}", "id",
                                           (json_int_t)lade_json_int(job, "id", -1), "timeout_s",
                                           timeout_s),
                                 NULL, NULL, &ended, error);
    if (!code)
        code = lade_outcome_error(ended, error);
    json_decref(job);
    json_decref(ended);
    return code;
}

lade_code_t
lade_installer_unconditionally_delete(lade_t *self, const char *key, double timeout_s,
                                      lade_error_t *error)
{
    json_t *args = s_key_args(key);
    json_object_set_new(args, "timeout_s", json_real(timeout_s));
    return s_call(self, "unconditionally_delete", args, NULL, error);
}

// ---------------------------------------------------------------------------------------------------
// Jobs

// All install jobs, however many there are: one answer holds so many at most.
static lade_code_t
s_all_jobs(lade_t *self, json_t **jobs_p, lade_error_t *error)
{
    enum { S_PAGE = 1000 };
    json_t *jobs = json_array();
    lade_code_t code = LADE_OK;
    for (size_t got = S_PAGE; got == S_PAGE && !code;) {
        json_t *page = NULL;
        code = s_call(self, "list_jobs",
                      json_pack("{s:I, s:i}", "offset", (json_int_t)json_array_size(jobs), "limit",
                                (int)S_PAGE),
                      &page, error);
        got = json_array_size(page);
        json_array_extend(jobs, page);
        json_decref(page);
    }
    if (code) {
        json_decref(jobs);
        jobs = NULL;
    }
    *jobs_p = jobs;
    return code;
}

lade_code_t
lade_installer_list_jobs(lade_t *self, char **jobs_p, lade_error_t *error)
{
    json_t *jobs;
    *jobs_p = NULL;
    lade_code_t code = s_all_jobs(self, &jobs, error);
    if (!code)
        *jobs_p = lade_request_text(jobs);
    json_decref(jobs);
    return code;
}

lade_code_t
lade_installer_get_job_by_source(lade_t *self, const char *source, char **jobs_p,
                                 lade_error_t *error)
{
    json_t *args = json_object();
    s_set(args, "source", source);
    return s_call_text(self, "get_job_by_source", args, jobs_p, error);
}

static json_t *
s_id_args(int64_t id)
{
    return json_pack("{s:I}", "id", (json_int_t)id);
}

lade_code_t
lade_installer_get_job_by_id(lade_t *self, int64_t id, char **job_p, lade_error_t *error)
{
    return s_call_text(self, "get_job_by_id", s_id_args(id), job_p, error);
}

lade_code_t
lade_installer_cancel_job(lade_t *self, int64_t id, lade_error_t *error)
{
    return s_call(self, "cancel_job", s_id_args(id), NULL, error);
}

lade_code_t
lade_installer_prune_jobs(lade_t *self, size_t *count_p, lade_error_t *error)
{
    json_t *result = NULL;
    lade_code_t code = s_call(self, "prune_jobs", NULL, &result, error);
    if (count_p)
        *count_p = (size_t)lade_json_int(result, "purged", 0);
    json_decref(result);
    return code;
}

lade_code_t
lade_installer_wait_for_job(lade_t *self, int64_t id, double timeout_s, char **job_p,
                            lade_error_t *error)
{
    json_t *args = s_id_args(id);
    json_object_set_new(args, "timeout_s", json_real(timeout_s));
    return s_call_text(self, "wait_for_job", args, job_p, error);
}

lade_code_t
lade_installer_wait_for_installs(lade_t *self, double timeout_s, char **by_source_p, char **jobs_p,
                                 lade_error_t *error)
{
    json_t *jobs = NULL, *by_source = json_object();
    lade_code_t code =
        s_call(self, "wait_for_installs",
               json_pack("{s:f, s:b}", "timeout_s", timeout_s, "by_source", 1), NULL, error);
    if (!code)
        code = s_all_jobs(self, &jobs, error);
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        json_t *job = json_array_get(jobs, i);
        json_object_set_nocheck(by_source, lade_json_text(job, "source", ""), job);
    }
    if (by_source_p)
        *by_source_p = code ? NULL : lade_request_text(by_source);
    if (jobs_p)
        *jobs_p = code ? NULL : lade_request_text(jobs);
    json_decref(by_source);
    json_decref(jobs);
    return code;
}
