// The stages of an install.
#include "workers/install/install.h"

#include "common/hash.h"
#include "common/log.h"
#include "common/path.h"
#include "common/record.h"
#include "common/wire.h"
#include "workers/install/place.h"
#include "workers/install/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_MAX_FETCH_ROUNDS = 8,  // times that files which vanished are fetched again
    S_MAX_PLACE_ROUNDS = 50, // times that another install took the name first
};

// ---------------------------------------------------------------------------------------------------
// The record

static bool
s_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

// A login page saved under a model's name is the usual outcome of a missing token.
static lade_code_t
s_refuse_page(const char *path, lade_error_t *error)
{
    char head[512] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 ? read(fd, head, sizeof head - 1) : -1;
    if (fd >= 0)
        close(fd);
    const char *at = head;
    if (len > 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
        at += 3;
    at += strspn(at, " \t\r\n");
    if (strncasecmp(at, "<!doctype html", 14) != 0 && strncasecmp(at, "<html", 5) != 0)
        return LADE_OK;
    char *name = lade_path_name(path);
    lade_error_set(error, LADE_NOT_A_MODEL,
                   "%s is an HTML page, not a model; this happens when an access token is required "
                   "to download "
                   "(--token), or when the URL is that of a page instead of its download link",
                   name);
    free(name);
    return LADE_NOT_A_MODEL;
}

static lade_code_t
s_hash(const lade_stage_t *job, const char *path, const json_t *overrides, json_t *record,
       lade_error_t *error)
{
    if (json_object_get(overrides, "hash"))
        return LADE_OK;
    char *hash = NULL;
    lade_code_t code =
        lade_hash_path(path, job->config->hash, lade_stage_stopped, (void *)job, &hash, error);
    if (!code)
        lade_stage_set_text(record, "hash", hash);
    free(hash);
    return code;
}

// What the source says of the model, as far as a model of its class can have it.
static void
s_add_told(json_t *record, const json_t *state)
{
    static const char *const told[] = {
        "name", "tags", "description", "author", "license", "trigger_phrases", "cover_image"};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        json_t *value = json_object_get(state, told[i]);
        if (!value)
            continue;
        json_t *before = json_incref(json_object_get(record, told[i]));
        json_object_set(record, told[i], value);
        if (lade_record_check(record, NULL) && before)
            json_object_set(record, told[i], before);
        else if (lade_record_check(record, NULL))
            json_object_del(record, told[i]);
        json_decref(before);
    }
}

// The record of the model at path. state has what is known of the source. Its path is still that of
// the files as they lie.
static lade_code_t
s_describe(const lade_stage_t *job, const char *path, const json_t *state, json_t **record_p,
           lade_error_t *error)
{
    static const char *const copied[] = {"source", "source_type", "source_revision",
                                         "source_api_response"};
    json_t *overrides = NULL, *record = NULL;
    *record_p = NULL;
    lade_code_t code = lade_stage_overrides(job, &overrides, error);
    if (!code)
        code = job->identify(job->rules, path, overrides, &record, error);
    if (!code)
        code = s_hash(job, path, overrides, record, error);
    if (!code) {
        char key[33];
        lade_record_new_key(key);
        lade_stage_set_text(record, "key", lade_json_text(overrides, "key", key));
        lade_stage_set_text(record, "path", path);
        json_object_set_new(record, "file_size", json_integer(lade_path_size(path)));
        for (size_t i = 0; i < sizeof copied / sizeof *copied; i++)
            if (json_object_get(state, copied[i]))
                json_object_set(record, copied[i], json_object_get(state, copied[i]));
        s_add_told(record, state);
        code = lade_record_apply(record, overrides, record_p, error);
    }
    json_decref(record);
    json_decref(overrides);
    return code;
}

static void
s_done(const json_t *record, const char *path, lade_answer_t *answer)
{
    json_t *result = json_object();
    int64_t bytes = lade_path_size(path);
    lade_stage_set_text(result, "key", lade_json_text(record, "key", ""));
    lade_stage_set_text(result, "local_path", path);
    json_object_set_new(result, "bytes", json_integer(bytes));
    json_object_set_new(result, "total_bytes", json_integer(bytes));
    json_object_set(result, "config_out", (json_t *)record);
    answer->result = result;
    answer->effects = json_pack("[{s:s, s:O}]", "op", "put_model", "model", record);
}

// ---------------------------------------------------------------------------------------------------
// Place: the record is made, the files lie in the temporary folder, the final name is chosen

// The name the model's files get, if it is free. You free it.
static char *
s_wanted_name(const lade_stage_t *job, const char *path)
{
    json_t *overrides = NULL;
    lade_stage_overrides(job, &overrides, NULL); // checked before
    char *name =
        lade_place_file_name(lade_json_text(overrides, "name", NULL), path, s_is_file(path));
    json_decref(overrides);
    return name;
}

// True if both hold the same weights, as far as samples and sizes tell.
static bool
s_same_model(const lade_stage_t *job, const char *a, const char *b)
{
    char *hash_a = NULL, *hash_b = NULL;
    bool same = lade_path_size(a) == lade_path_size(b) && s_is_file(a) == s_is_file(b) &&
                !lade_hash_path(a, "imohash", lade_stage_stopped, (void *)job, &hash_a, NULL) &&
                !lade_hash_path(b, "imohash", lade_stage_stopped, (void *)job, &hash_b, NULL) &&
                strcmp(hash_a, hash_b) == 0;
    free(hash_a);
    free(hash_b);
    return same;
}

// The same model under the same name is no second model: the user installs it twice. found has type
// and base.
static lade_code_t
s_refuse_twice(const lade_stage_t *job, const json_t *found, const char *path, lade_error_t *error)
{
    char *name = s_wanted_name(job, path), *there = NULL;
    if (asprintf(&there, "%s/%s/%s/%s", job->config->models_dir, lade_json_text(found, "base", ""),
                 lade_json_text(found, "type", ""), name) < 0)
        abort();
    lade_code_t code = LADE_OK;
    if (lade_place_inode(there) && s_same_model(job, there, path))
        code = lade_error_set(
            error, LADE_DUPLICATE_MODEL,
            "this model is installed already at %s: remove it first, give another name, or, if it "
            "has no record, register it in place",
            there);
    free(there);
    free(name);
    return code;
}

// A checkpoint after which the files are moved: whoever does it, with the outcome fixed here.
static lade_code_t
s_await_place(const lade_stage_t *job, json_t *record, const char *from, const json_t *fetch,
              int64_t round, lade_answer_t *answer, lade_error_t *error)
{
    char *name = s_wanted_name(job, from), *relative = NULL;
    lade_code_t code = s_refuse_twice(job, record, from, error);
    if (!code)
        code = lade_place_choose(job->config->models_dir, lade_json_text(record, "base", ""),
                                 lade_json_text(record, "type", ""), name, s_is_file(from),
                                 &relative, error);
    if (!code) {
        lade_stage_set_text(record, "path", relative);
        json_t *state = json_object();
        lade_stage_set_text(state, "step", "place");
        lade_stage_set_text(state, "from", from);
        json_object_set(state, "record", record);
        json_object_set_new(state, "inode", json_integer((json_int_t)lade_place_inode(from)));
        json_object_set_new(state, "rounds", json_integer(round));
        json_object_set_new(state, "restarts",
                            json_integer(lade_json_int(job->state, "restarts", 0)));
        if (fetch)
            json_object_set(state, "fetch", (json_t *)fetch);
        answer->waits = true;
        answer->state = state;
        answer->jobs = json_array();
    }
    free(relative);
    free(name);
    return code;
}

// Everything about the model but its move. path: where it lies; fetch: the state to go back to
// should it vanish.
static lade_code_t
s_prepare(const lade_stage_t *job, const char *path, const json_t *state, const json_t *fetch,
          lade_answer_t *answer, lade_error_t *error)
{
    int64_t bytes = lade_path_size(path);
    lade_stage_progress(job, bytes, bytes, path);
    json_t *record = NULL;
    lade_code_t code = fetch && s_is_file(path) ? s_refuse_page(path, error) : LADE_OK;
    if (!code)
        code = s_describe(job, path, state, &record, error);
    if (!code)
        code = lade_path_sync_tree(path, error);
    if (!code)
        code = lade_stage_check(job, error);
    if (!code)
        code = s_await_place(job, record, path, fetch, 1, answer, error);
    json_decref(record);
    return code;
}

// The files went while nobody looked (an attempt that was thought dead cleaned up): back to where
// they come from.
static lade_code_t
s_start_over(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *fetch = json_object_get(job->state, "fetch");
    json_t *state = fetch ? json_deep_copy(fetch) : json_object();
    int64_t round = lade_json_int(job->state, "restarts", 0) + 1;
    if (round > S_MAX_FETCH_ROUNDS) {
        json_decref(state);
        return lade_error_set(error, LADE_IO_ERROR,
                              "the files of the install vanish again and again from %s; does "
                              "something clean that folder?",
                              job->config->models_dir);
    }
    json_object_set_new(state, "restarts", json_integer(round));
    answer->waits = true;
    answer->state = state;
    answer->jobs = json_array();
    return LADE_OK;
}

static lade_code_t
s_name_taken(const lade_stage_t *job, const char *from, lade_answer_t *answer, lade_error_t *error)
{
    int64_t round = lade_json_int(job->state, "rounds", 1) + 1;
    if (round > S_MAX_PLACE_ROUNDS)
        return lade_error_wrap(error, "the name was taken %d times by others", S_MAX_PLACE_ROUNDS);
    json_t *record = json_deep_copy(json_object_get(job->state, "record"));
    lade_code_t code = s_await_place(job, record, from, json_object_get(job->state, "fetch"), round,
                                     answer, error);
    json_decref(record);
    return code;
}

static void
s_remove_temp(const lade_stage_t *job, bool fetched)
{
    lade_error_t error = {0};
    char *temp = lade_stage_temp(job);
    if (!fetched)
        lade_stage_remove_copies(job);
    else if (lade_place_discard(job->config->models_dir, temp, &error))
        lade_log(LADE_LOG_WARNING, "install", "job %" PRId64 ": %s", job->id, error.message);
    free(temp);
}

static lade_code_t
s_place(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *record = json_object_get(job->state, "record");
    const char *from = lade_json_text(job->state, "from", "");
    uint64_t inode = (uint64_t)lade_json_int(job->state, "inode", 0);
    char *to = lade_path_join(job->config->models_dir, lade_json_text(record, "path", ""));
    lade_stage_progress(job, lade_json_int(record, "file_size", 0),
                        lade_json_int(record, "file_size", 0), from);
    lade_code_t code = lade_place_publish(from, to, inode, error);
    if (code == LADE_EXISTS) {
        code = s_name_taken(job, from, answer, error);
    } else if (code == LADE_NOT_FOUND) {
        code = s_start_over(job, answer, error);
    } else if (!code && (code = lade_stage_check(job, error))) {
        // Another attempt may hold the job by now; then the files are where it wants them.
        lade_error_t undo = {0};
        if (job->stop(job->arg) != LADE_STOP_STALE && lade_place_withdraw(from, to, inode, &undo))
            lade_log(LADE_LOG_ERROR, "install", "job %" PRId64 ": %s", job->id, undo.message);
    } else if (!code) {
        s_remove_temp(job, json_is_object(json_object_get(job->state, "fetch")));
        s_done(record, to, answer);
    }
    free(to);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Fetch: the downloads have ended

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

static lade_code_t
s_fetched(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
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
    lade_code_t code;
    if (json_array_size(missing) == 0 && from)
        code = s_prepare(job, from, job->state, job->state, answer, error);
    else
        code = s_missing(job, missing, answer, error);
    json_decref(missing);
    free(path);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Local sources

static json_t *
s_local_state(const lade_source_t *source)
{
    json_t *state = json_object();
    lade_stage_set_text(state, "source", source->text);
    lade_stage_set_text(state, "source_type", "path");
    return state;
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
    return LADE_OK;
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
    *record_p = NULL;
    lade_code_t code = s_check_local(job, path, error);
    if (!code)
        code = s_describe(job, path, state, record_p, error);
    if (!code)
        lade_stage_set_text(*record_p, "path", s_stored_path(job, path));
    json_decref(state);
    return code;
}

static lade_code_t
s_register(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
           lade_error_t *error)
{
    json_t *state = s_local_state(source), *record = NULL;
    lade_code_t code = s_describe(job, source->path, state, &record, error);
    if (!code)
        code = lade_stage_check(job, error);
    if (!code) {
        lade_stage_set_text(record, "path", s_stored_path(job, source->path));
        s_done(record, source->path, answer);
    }
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

// Copies the source into a folder only this attempt writes to.
static lade_code_t
s_copy(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
       lade_error_t *error)
{
    lade_stage_remove_copies(job);
    char *folder = lade_stage_copy(job), *name = lade_path_name(source->path);
    char *copy = lade_path_join(folder, name);
    s_copying_t copying = {.job = job, .path = source->path, .total = lade_path_size(source->path)};
    json_t *state = s_local_state(source);
    lade_code_t code = lade_path_mkdirs(folder, 0755, error);
    if (!code)
        code = lade_path_copy(source->path, copy, s_on_copied, &copying, error);
    if (!code)
        code = s_prepare(job, copy, state, NULL, answer, error);
    json_decref(state);
    free(copy);
    free(name);
    free(folder);
    return code;
}

// Identifies before anything is copied: what is no model costs nothing.
static lade_code_t
s_local(const lade_stage_t *job, const lade_source_t *source, const json_t *overrides,
        lade_answer_t *answer, lade_error_t *error)
{
    lade_code_t code = s_check_local(job, source->path, error);
    if (code)
        return code;
    int64_t bytes = lade_path_size(source->path);
    bool dry = lade_json_bool(job->spec, "dry_run", false);
    if (!dry)
        lade_stage_progress(job, 0, bytes, source->path);
    json_t *found = NULL;
    code = job->identify(job->rules, source->path, overrides, &found, error);
    if (code)
        return code;
    if (dry)
        answer->result =
            json_pack("{s:[{s:o, s:n, s:I, s:n}], s:I, s:O}", "files", "path",
                      json_string_nocheck(source->path), "url", "size", (json_int_t)bytes, "sha256",
                      "bytes", (json_int_t)bytes, "config", found);
    else if (lade_json_bool(job->spec, "inplace", false))
        code = s_register(job, source, answer, error);
    else if (!(code = s_refuse_twice(job, found, source->path, error)))
        code = s_copy(job, source, answer, error);
    json_decref(found);
    return code;
}

static lade_code_t
s_resolve(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    lade_source_t source = {0};
    json_t *overrides = NULL;
    lade_code_t code = lade_stage_overrides(job, &overrides, error);
    if (!code)
        code = lade_resolve_source(job, &source, error);
    if (!code)
        code = source.kind == LADE_SOURCE_LOCAL ? s_local(job, &source, overrides, answer, error)
                                                : lade_resolve_remote(job, &source, answer, error);
    lade_source_free(&source);
    json_decref(overrides);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The step, and what is left behind when it fails

static const struct {
    const char *step; // of the saved state
    lade_code_t (*run)(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);
} s_steps[] = {
    {"", s_resolve},
    {"fetch", s_fetched},
    {"place", s_place},
};

static void
s_clean(const lade_stage_t *job, const lade_answer_t *answer, lade_code_t code)
{
    const char *step = lade_json_text(job->state, "step", "");
    bool fetched =
        strcmp(step, "fetch") == 0 || json_is_object(json_object_get(job->state, "fetch"));
    bool again =
        code == LADE_PAUSED || job->stop(job->arg) == LADE_STOP_STALE ||
        (lade_code_retry(code) && !answer->final && job->failures + 1 < job->config->max_attempts);
    // What was fetched, or copied whole, is worth keeping for the next attempt; half a copy is not.
    if (!again || !*step)
        s_remove_temp(job, fetched);
}

lade_code_t
lade_install_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const char *step = lade_json_text(job->state, "step", "");
    lade_code_t code = lade_stage_check(job, error);
    size_t count = sizeof s_steps / sizeof *s_steps, row = 0;
    while (row < count && strcmp(s_steps[row].step, step) != 0)
        row++;
    if (!code)
        code = row < count ? s_steps[row].run(job, answer, error)
                           : lade_error_set(error, LADE_INTERNAL,
                                            "the saved state has the unknown step '%.40s'; "
                                            "a newer lade wrote it",
                                            step);
    if (code == LADE_CANCELLED && job->stop(job->arg) == LADE_STOP_PAUSE)
        code = lade_stage_check(job, error);
    if (code)
        s_clean(job, answer, code);
    return code;
}
