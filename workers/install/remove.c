// Deleting a model's files.
#include "workers/install/remove.h"

#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/convert_job.h"
#include "workers/install/equal.h"
#include "workers/install/place.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// Where the record's files lie. A path with ".." is refused: what it means depends on links.
static lade_code_t
s_find_path(const lade_stage_t *job, char **path_p, lade_error_t *error)
{
    const char *stored = lade_json_text(json_object_get(job->spec, "record"), "path", "");
    size_t len = strlen(stored);
    *path_p = NULL;
    if (!*stored || strstr(stored, "/../") || strncmp(stored, "../", 3) == 0 ||
        strcmp(stored, "..") == 0 || (len >= 3 && strcmp(stored + len - 3, "/..") == 0))
        return lade_error_set(
            error, LADE_VALUE_ERROR,
            "the record's path '%.200s' cannot be deleted; unregister the model instead", stored);
    char *path = *stored == '/' ? strdup(stored) : lade_path_join(job->config->models_dir, stored);
    for (len = strlen(path); len > 1 && path[len - 1] == '/';)
        path[--len] = '\0';
    *path_p = path;
    return LADE_OK;
}

// True if the path is below the models folder by name, and the folder it is in is so with all links
// resolved.
static bool
s_is_ours(const lade_stage_t *job, const char *path)
{
    const char *models = job->config->models_dir;
    if (!lade_path_inside(models, path) || strcmp(models, path) == 0)
        return false;
    char *folder = lade_path_folder(path);
    char *real_folder = realpath(folder, NULL), *real_models = realpath(models, NULL);
    bool inside = real_folder && real_models && lade_path_inside(real_models, real_folder);
    free(folder);
    free(real_folder);
    free(real_models);
    return inside;
}

// Nothing lade itself lives in may go, whatever a record says.
static bool
s_holds_lade(const lade_stage_t *job, const char *path)
{
    const char *own[] = {job->config->models_dir, job->config->data};
    char *real = realpath(path, NULL);
    bool holds = strcmp(path, "/") == 0;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        char *real_own = realpath(own[i], NULL);
        struct stat st;
        bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode); // only the link would go
        holds = holds || lade_path_inside(path, own[i]) ||
                (!link && real && real_own && lade_path_inside(real, real_own));
        free(real_own);
    }
    free(real);
    return holds;
}

// The name the files have while they are removed: in the models folder, or beside files that lie
// elsewhere, where a rename can reach. It has the job's number, so that a later attempt finds it.
static char *
s_trash(const lade_stage_t *job, const char *path, bool ours)
{
    char *folder = ours ? strdup(job->config->models_dir) : lade_path_folder(path), name[64];
    snprintf(name, sizeof name, "%stmpdelete_%" PRId64, ours ? "" : ".", job->id);
    char *trash = lade_path_join(folder, name);
    free(folder);
    return trash;
}

static lade_code_t
s_remove_files(const lade_stage_t *job, const char *path, bool ours, bool *removed_p,
               lade_error_t *error)
{
    char *trash = s_trash(job, path, ours);
    struct stat st;
    lade_code_t code = LADE_OK;
    *removed_p = lstat(path, &st) == 0;
    if (lstat(trash, &st) == 0) // an attempt before this one came to the rename
        *removed_p = true;
    else if (*removed_p)
        code = lade_path_publish(path, trash, error);
    if (!code && lade_stage_check(job, error)) {
        lade_path_publish(trash, path, NULL);
        code = error->code;
    }
    if (!code)
        code = lade_path_remove(trash, error);
    free(trash);
    return code;
}

lade_code_t
lade_remove_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const char *key = lade_json_text(job->spec, "key", "");
    bool force = lade_json_bool(job->spec, "force", false), removed = false;
    char *path = NULL;
    if (!*key)
        return lade_error_set(error, LADE_BAD_REQUEST, "a delete job names the record's key");
    lade_code_t code = lade_stage_check(job, error);
    if (!code)
        code = s_find_path(job, &path, error);
    bool ours = !code && s_is_ours(job, path);
    if (!code && (ours || force)) {
        if (s_holds_lade(job, path))
            code = lade_error_set(
                error, LADE_VALUE_ERROR,
                "%s holds lade's own folders and is not deleted; unregister the model instead",
                path);
        else
            code = s_remove_files(job, path, ours, &removed, error);
    }
    if (!code) {
        lade_convert_job_forget(job->config, key);
        answer->result = json_pack("{s:s, s:o, s:b}", "key", key, "path", json_string_nocheck(path),
                                   "removed", removed);
        answer->effects = json_pack("[{s:s, s:s}]", "op", "del_model", "key", key);
    }
    free(path);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The old place of what was moved

// path may go: it is nothing lade lives in, and what it holds is at copy as well.
static lade_code_t
s_check_moved(const lade_stage_t *job, const char *path, const char *copy, lade_error_t *error)
{
    bool same = false;
    if (*path != '/' || strstr(path, "/../") || lade_path_inside(copy, path) ||
        lade_path_inside(path, copy) || s_holds_lade(job, path))
        return lade_error_set(error, LADE_VALUE_ERROR, "%s is not removed after its move to %s",
                              path, copy);
    lade_code_t code = lade_equal_compare(job, path, copy, &same, error);
    if (!code && !same)
        code = lade_error_set(error, LADE_VALUE_ERROR,
                              "%s was changed while it was moved to %s, so it is left where it is",
                              path, copy);
    return code;
}

lade_code_t
lade_discard_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const char *path = lade_json_text(job->spec, "path", ""),
               *copy = lade_json_text(job->spec, "copy", "");
    bool removed = false;
    struct stat st;
    lade_code_t code = lade_stage_check(job, error);
    if (!code && lstat(path, &st) == 0)
        code = s_check_moved(job, path, copy, error);
    if (!code)
        code = s_remove_files(job, path, false, &removed, error);
    if (!code)
        answer->result =
            json_pack("{s:o, s:b}", "path", json_string_nocheck(path), "removed", removed);
    return code;
}
