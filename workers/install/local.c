// Local sources.
#include "workers/install/local.h"

#include "common/path.h"
#include "common/wire.h"
#include "workers/install/describe.h"
#include "workers/install/equal.h"
#include "workers/install/install.h"
#include "workers/install/place.h"
#include "workers/install/prepare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static json_t *
s_local_state(const lade_source_t *source)
{
    json_t *state = json_object();
    lade_stage_set_text(state, "source", source->text);
    lade_stage_set_text(state, "source_type", "path");
    return state;
}

// Who may not take the files away is told before they are copied.
static lade_code_t
s_check_move(const char *path, lade_error_t *error)
{
    char *folder = lade_path_folder(path);
    lade_code_t code = LADE_OK;
    if (access(folder, W_OK | X_OK) != 0)
        code = lade_error_errno(
            error, errno, "%s cannot be moved away from its folder; install it without move", path);
    free(folder);
    return code;
}

static lade_code_t
s_check_local(const lade_stage_t *job, const char *path, lade_error_t *error)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return lade_error_errno(error, errno, "cannot read %s", path);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return lade_error_set(error, LADE_VALUE_ERROR, "%s is neither a file nor a folder", path);
    if (access(path, S_ISDIR(st.st_mode) ? R_OK | X_OK : R_OK) != 0)
        return lade_error_errno(error, errno, "cannot read %s as the user of the install worker",
                                path);
    if (S_ISDIR(st.st_mode) && (lade_path_inside(path, job->config->models_dir) ||
                                lade_path_inside(path, job->config->data)))
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "%s holds lade's own folders; name the model within", path);
    return lade_json_bool(job->spec, "move", false) ? s_check_move(path, error) : LADE_OK;
}

// The path as a record has it: relative to the models folder if it is inside.
static const char *
s_stored_path(const lade_stage_t *job, const char *path)
{
    size_t len = strlen(job->config->models_dir);
    return lade_path_inside(job->config->models_dir, path) && path[len] == '/' ? path + len + 1
                                                                               : path;
}

lade_code_t
lade_install_describe(const lade_stage_t *job, const char *path, json_t **record_p,
                      lade_error_t *error)
{
    lade_source_t source = {.text = (char *)path};
    json_t *state = s_local_state(&source);
    char *hash = NULL;
    *record_p = NULL;
    lade_code_t code = s_check_local(job, path, error);
    if (!code)
        code = lade_describe(job, path, state, record_p, &hash, error);
    if (!code)
        lade_stage_set_text(*record_p, "path", s_stored_path(job, path));
    free(hash);
    json_decref(state);
    return code;
}

static lade_code_t
s_register(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
           lade_error_t *error)
{
    json_t *state = s_local_state(source), *record = NULL;
    char *hash = NULL;
    lade_code_t code = lade_describe(job, source->path, state, &record, &hash, error);
    if (!code)
        code = lade_stage_check(job, error);
    if (!code) {
        lade_stage_set_text(record, "path", s_stored_path(job, source->path));
        lade_describe_done(record, source->path, answer);
    }
    free(hash);
    json_decref(record);
    json_decref(state);
    return code;
}

typedef struct {
    const lade_stage_t *job;
    const char *path;
    int64_t bytes, total;
} s_copying_t;

static bool
s_on_copied(void *arg, int64_t bytes)
{
    s_copying_t *self = arg;
    self->bytes += bytes;
    lade_stage_progress(self->job, self->bytes, self->total, self->path);
    return !lade_stage_stopped((void *)self->job);
}

static const json_t *
s_find_equal(const lade_stage_t *job)
{
    return lade_equal_find(job, "hash", lade_json_text(job->state, "hash", NULL));
}

// Links what a record has already, if that is asked for and it is the same to the last byte. True
// if it did; else the source is to be copied.
static bool
s_link_equal(const lade_stage_t *job, const char *path, const char *copy, lade_code_t *code_p,
             lade_error_t *error)
{
    const json_t *record = lade_equal_links(job) ? s_find_equal(job) : NULL;
    if (!record)
        return false;
    *code_p = lade_equal_link(job, record, path, copy, error);
    return *code_p != LADE_NOT_FOUND;
}

// Copies the source into a folder only this attempt writes to. What is to be moved is linked, which
// takes no space; its old name goes when the record is there (kind `discard`).
static lade_code_t
s_copy(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
       lade_error_t *error)
{
    lade_stage_remove_copies(job);
    char *folder = lade_stage_copy(job), *name = lade_path_name(source->path);
    char *copy = lade_path_join(folder, name);
    s_copying_t copying = {.job = job, .path = source->path, .total = lade_path_size(source->path)};
    json_t *state = s_local_state(source);
    lade_code_t code = lade_place_claim(job->config, job->id, error);
    if (!code)
        code = lade_path_mkdirs(folder, 0755, error);
    if (!code && s_link_equal(job, source->path, copy, &code, error))
        json_object_set_new(state, "linked", json_true());
    else if (!code || code == LADE_NOT_FOUND)
        code = (lade_json_bool(job->spec, "move", false) ? lade_path_link : lade_path_copy)(
            source->path, copy, s_on_copied, &copying, error);
    if (!code)
        code = lade_prepare(job, copy, state, NULL, answer, error);
    json_decref(state);
    free(copy);
    free(name);
    free(folder);
    return code;
}

lade_code_t
lade_local_go(const lade_stage_t *job, const lade_source_t *source, const json_t *overrides,
              lade_answer_t *answer, lade_error_t *error)
{
    json_t *found = NULL;
    const json_t *equal = s_find_equal(job);
    lade_code_t code = s_check_local(job, source->path, error);
    if (!code)
        lade_stage_progress(job, 0, lade_path_size(source->path), source->path);
    if (!code && equal && !lade_equal_links(job))
        return lade_equal_refuse(job, equal, answer, error);
    if (!code && lade_json_bool(job->spec, "inplace", false))
        return s_register(job, source, answer, error);
    if (!code)
        code = lade_describe_identify(job, source->path, overrides, &found, error);
    if (!code)
        code = lade_prepare_refuse_twice(job, found, source->path, error);
    json_decref(found);
    return code ? code : s_copy(job, source, answer, error);
}

static void
s_plan(const lade_source_t *source, const json_t *found, lade_answer_t *answer)
{
    json_int_t bytes = (json_int_t)lade_path_size(source->path);
    answer->result = json_pack("{s:[{s:o, s:n, s:I, s:n}], s:I, s:O}", "files", "path",
                               json_string_nocheck(source->path), "url", "size", bytes, "sha256",
                               "bytes", bytes, "config", found);
}

lade_code_t
lade_local_begin(const lade_stage_t *job, const lade_source_t *source, const json_t *overrides,
                 lade_answer_t *answer, lade_error_t *error)
{
    json_t *found = NULL;
    char *hash = NULL;
    bool dry = lade_json_bool(job->spec, "dry_run", false);
    lade_code_t code = s_check_local(job, source->path, error);
    if (!code && !dry)
        lade_stage_progress(job, 0, lade_path_size(source->path), source->path);
    if (!code)
        code = lade_describe_identify(job, source->path, overrides, &found, error);
    if (!code && dry)
        s_plan(source, found, answer);
    // A full hash is left to the copy, which is read anyway.
    else if (!code && strcmp(job->config->hash, "imohash") == 0)
        code = lade_describe_hash(job, source->path, overrides, &hash, error);
    if (!code && !dry && (answer->ask = lade_equal_ask(job, hash))) {
        answer->waits = true;
        answer->state = json_pack("{s:s, s:s, s:I}", "step", "local", "hash", hash, "restarts",
                                  (json_int_t)lade_json_int(job->state, "restarts", 0));
        answer->jobs = json_array();
    } else if (!code && !dry) {
        code = lade_local_go(job, source, overrides, answer, error);
    }
    free(hash);
    json_decref(found);
    return code;
}
