// Whether everything that was to be fetched is there.
#include "workers/install/fetch.h"

#include "common/path.h"
#include "common/wire.h"
#include "workers/install/resolve.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { S_MAX_FETCH_ROUNDS = 8 }; // times that files which vanished are fetched again

// The child that fetched a file last, NULL if there is none.
static const json_t *
s_child_of(const lade_stage_t *job, const json_t *file)
{
    const char *url = lade_json_text(file, "url", "");
    for (size_t i = json_array_size(job->children); i-- > 0;) {
        const json_t *child = json_array_get(job->children, i);
        if (strcmp(lade_json_text(child, "source", ""), url) == 0)
            return child;
    }
    return NULL;
}

// Where the file of an entry lies, NULL if it is not there. The download worker gives the final
// name only to what is complete and verified; a file whose name the server chose is told by the
// child.
static char *
s_find_file(const lade_stage_t *job, const json_t *file)
{
    const char *path = lade_json_text(file, "destination", NULL);
    const char *folder = lade_json_text(file, "destdir", NULL);
    if (!path)
        path = lade_json_text(json_object_get(s_child_of(job, file), "result"), "path", NULL);
    if (!path || (folder && (!lade_path_inside(folder, path) || strstr(path, "/.."))))
        return NULL;
    struct stat st;
    int64_t size = lade_json_int(file, "size", -1);
    bool there = lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (size < 0 || st.st_size == size);
    return there ? strdup(path) : NULL;
}

// The child that says why a file is missing: an error before a cancellation.
static const json_t *
s_why_missing(const lade_stage_t *job, const json_t *missing)
{
    const json_t *why = NULL;
    for (size_t i = 0; i < json_array_size(missing); i++) {
        const json_t *child = s_child_of(job, json_array_get(missing, i));
        const char *status = lade_json_text(child, "status", "completed");
        if (strcmp(status, "completed") == 0)
            continue;
        if (!why || strcmp(status, "cancelled") != 0)
            why = child;
        if (strcmp(status, "cancelled") != 0)
            break;
    }
    return why;
}

// A source that knows how to log in says so where a file was not given.
static lade_code_t
s_child_failed(const lade_stage_t *job, const json_t *child, lade_answer_t *answer,
               lade_error_t *error)
{
    answer->final = true; // the download was tried as often as it may be
    const char *status = lade_json_text(child, "status", "");
    if (strcmp(status, "cancelled") == 0)
        return lade_error_set(error, LADE_CANCELLED, "the download of %.200s was cancelled",
                              lade_json_text(child, "source", "a file"));
    const char *name = lade_json_text(child, "error_type", "");
    lade_code_t code = *name ? lade_code_find(name) : LADE_CHILD_FAILED;
    const char *login = lade_json_text(job->state, "login", NULL);
    bool page = code == LADE_NOT_A_MODEL; // of a login, most likely
    if (login && (code == LADE_AUTH_REQUIRED || code == LADE_AUTH_DENIED || page))
        return lade_error_set(error, page ? LADE_AUTH_REQUIRED : code, "%s", login);
    return lade_error_set(error, code == LADE_OK ? LADE_CHILD_FAILED : code, "%s",
                          lade_json_text(child, "error", "a file could not be downloaded"));
}

// Fetches what is missing: after a retry, or when the files were removed under the job. state is
// taken.
static lade_code_t
s_fetch_again(const lade_stage_t *job, json_t *state, const json_t *missing, lade_answer_t *answer,
              lade_error_t *error)
{
    answer->state = state;
    int64_t round = lade_json_int(state, "rounds", 1) + 1;
    if (round > S_MAX_FETCH_ROUNDS)
        return lade_error_set(error, LADE_IO_ERROR,
                              "%zu files are missing after %d downloads; does something clean %s?",
                              json_array_size(missing), S_MAX_FETCH_ROUNDS,
                              job->config->models_dir);
    json_object_set_new(state, "rounds", json_integer(round));
    answer->jobs = json_array();
    for (size_t i = 0; i < json_array_size(missing); i++)
        json_array_append_new(answer->jobs, lade_resolve_download(job, json_array_get(missing, i)));
    answer->waits = true;
    return LADE_OK;
}

// What the cache of the hub could not give is fetched. A file that is missing although its download
// completed went while nobody looked, or with the failure that a retry makes good: it is asked for
// again.
static lade_code_t
s_missing(const lade_stage_t *job, json_t *missing, lade_answer_t *answer, lade_error_t *error)
{
    json_t *state = json_deep_copy(job->state);
    bool left = lade_resolve_leave_cache(job, state, missing) > 0;
    const json_t *why = s_why_missing(job, missing);
    if (left || !why)
        return s_fetch_again(job, state, missing, answer, error);
    json_decref(state);
    return s_child_failed(job, why, answer, error);
}

lade_code_t
lade_fetch_check(const lade_stage_t *job, char **from_p, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *files = json_object_get(job->state, "files");
    json_t *missing = json_array();
    char *path = NULL;
    for (size_t i = 0; i < json_array_size(files); i++) {
        free(path);
        path = s_find_file(job, json_array_get(files, i));
        if (!path)
            json_array_append(missing, json_array_get(files, i));
    }
    const char *from = lade_json_text(job->state, "from", path);
    bool whole = json_array_size(missing) == 0 && from;
    *from_p = whole ? strdup(from) : NULL;
    lade_code_t code = whole ? LADE_OK : s_missing(job, missing, answer, error);
    json_decref(missing);
    free(path);
    return code;
}
