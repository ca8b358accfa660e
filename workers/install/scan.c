// The stages of a scan. scan.h has the picture.
#include "workers/install/scan.h"

#include "common/path.h"
#include "common/wire.h"
#include "workers/install/walk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    S_PAGE = 20000,         // models asked for at once: what one AWAIT may have of children
    S_PAGE_PARTS = 16,      // of broker.max_message_bytes, one for the paths of a page
    S_BATCH = 16,           // models of a batch
    S_BYTES_OF_NOTE = 4096, // of broker.max_message_bytes for each item of a list
    S_BYTES_OF_KEY = 200,
    S_FEWEST_NOTES = 100,
};
static const int64_t s_batch_bytes = INT64_C(8) << 30; // of a batch, if all bytes are hashed

// ---------------------------------------------------------------------------------------------------
// Lists of the state

static bool
s_is_sync(const lade_stage_t *job)
{
    return lade_json_bool(job->spec, "sync", false);
}

// Whether models are copied into the models folder; a dry run only looks.
static bool
s_copies(const lade_stage_t *job)
{
    return lade_json_bool(job->spec, "install", false) &&
           !lade_json_bool(job->spec, "dry_run", false);
}

static void
s_count(json_t *state, const char *name, int64_t more)
{
    json_object_set_new(state, name, json_integer(lade_json_int(state, name, 0) + more));
}

static json_t *
s_list(json_t *state, const char *name)
{
    json_t *list = json_object_get(state, name);
    if (!json_is_array(list)) {
        list = json_array();
        json_object_set_new(state, name, list);
    }
    return list;
}

void
lade_scan_note(const lade_stage_t *job, json_t *state, const char *name, json_t *item)
{
    char count[64];
    size_t each = json_is_string(item) ? S_BYTES_OF_KEY : S_BYTES_OF_NOTE,
           most = (size_t)job->config->max_message_bytes / each;
    snprintf(count, sizeof count, "%s_count", name);
    s_count(state, count, 1);
    json_t *list = s_list(state, name);
    if (json_array_size(list) < (most > S_FEWEST_NOTES ? most : S_FEWEST_NOTES))
        json_array_append_new(list, item);
    else
        json_decref(item);
}

json_t *
lade_scan_failure(const char *path, const char *type, const char *words)
{
    return json_pack("{s:o, s:s, s:o}", "path", json_stringn_nocheck(path, strlen(path)),
                     "error_type", type, "error", json_stringn_nocheck(words, strlen(words)));
}

const json_t *
lade_scan_answer(const lade_stage_t *job, size_t index, lade_error_t *error)
{
    const json_t *answer = json_array_get(job->answers, index);
    const json_t *problem = json_object_get(answer, "error");
    if (answer && !json_is_object(problem))
        return answer;
    lade_code_t code = lade_code_find(lade_json_text(problem, "code", ""));
    lade_error_set(error, code ? code : LADE_INTERNAL, "%s",
                   lade_json_text(problem, "message", "the broker did not answer what was asked"));
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// Look: what is below the folders, and which of it is known

static lade_code_t
s_walk(const lade_stage_t *job, const json_t *state, lade_walk_t *found, lade_error_t *error)
{
    const json_t *roots = json_object_get(state, "roots");
    lade_walk_rules_t rules = {job->config->models_dir, lade_stage_stopped, (void *)job};
    lade_code_t code = LADE_OK;
    for (size_t i = 0; i < json_array_size(roots) && !code; i++) {
        code = lade_walk(&rules, json_string_value(json_array_get(roots, i)), found, error);
        // A folder of a sync that went is no reason to leave the others.
        if (code && code != LADE_CANCELLED && code != LADE_TOO_LARGE && s_is_sync(job))
            code = LADE_OK;
    }
    return code;
}

// Where the next page begins: behind the last path of the one before.
static size_t
s_page_begin(const lade_walk_t *found, const char *after)
{
    size_t at = 0, end = found->count;
    while (after && at < end) {
        size_t middle = at + (end - at) / 2;
        if (strcmp(found->paths[middle], after) <= 0)
            at = middle + 1;
        else
            end = middle;
    }
    return at;
}

// The folders a path lies in, below the root and with it: one of them may be a record.
static void
s_add_folders(json_t *folders, const char *root, const char *path)
{
    char *folder = lade_path_folder(path);
    while (lade_path_inside(root, folder) && json_object_size(folders) < S_PAGE &&
           !json_object_get(folders, folder)) {
        json_object_set_new_nocheck(folders, folder, json_true());
        char *above = lade_path_folder(folder);
        bool end = strcmp(above, folder) == 0;
        free(folder);
        folder = above;
        if (end)
            break;
    }
    free(folder);
}

static json_t *
s_folders(const json_t *state, const json_t *page)
{
    const json_t *roots = json_object_get(state, "roots");
    json_t *set = json_object(), *list = json_array();
    for (size_t i = 0; i < json_array_size(page); i++)
        for (size_t r = 0; r < json_array_size(roots); r++) {
            const char *root = json_string_value(json_array_get(roots, r)),
                       *path = json_string_value(json_array_get(page, i));
            if (lade_path_inside(root, path))
                s_add_folders(set, root, path);
        }
    const char *folder;
    json_t *value;
    json_object_foreach(set, folder, value)
        json_array_append_new(list, json_stringn_nocheck(folder, strlen(folder)));
    json_decref(set);
    return list;
}

// Which answer is which.
enum { S_ASK_PATHS, S_ASK_FOLDERS, S_ASK_JOBS, S_ASK_SOURCES };

static void
s_ask(const lade_stage_t *job, json_t *state, lade_answer_t *answer)
{
    const json_t *page = json_object_get(state, "page");
    json_t *folders = s_folders(state, page);
    json_object_set(state, "folders", folders);
    answer->ask =
        json_pack("[{s:s, s:O}, {s:s, s:o}, {s:s, s:s}]", "op", "known_paths", "paths", page, "op",
                  "known_paths", "paths", folders, "op", "live_jobs", "kind", "install");
    if (s_copies(job))
        json_array_append_new(answer->ask,
                              json_pack("{s:s, s:O}", "op", "known_sources", "sources", page));
    json_object_set_new(state, "step", json_string("known"));
    answer->waits = true;
    answer->state = state;
    answer->jobs = json_array();
}

static void
s_finish(const lade_stage_t *job, const json_t *state, lade_answer_t *answer)
{
    static const char *const lists[] = {"keys", "added", "failed"};
    static const char *const counts[] = {"found", "known", "added_count", "failed_count", "busy"};
    json_t *result = json_object();
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        json_t *list = json_object_get(state, lists[i]);
        json_object_set_new(result, lists[i], list ? json_incref(list) : json_array());
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        json_object_set_new(result, counts[i], json_integer(lade_json_int(state, counts[i], 0)));
    json_object_set_new(result, "dry_run",
                        json_boolean(lade_json_bool(job->spec, "dry_run", false)));
    answer->result = result;
}

static lade_code_t
s_end(const lade_stage_t *job, json_t *state, lade_answer_t *answer)
{
    if (s_is_sync(job))
        lade_sync_finish(job, state, answer);
    else
        s_finish(job, state, answer);
    json_decref(state);
    return LADE_OK;
}

static void
s_first_look(const lade_stage_t *job, json_t *state, const lade_walk_t *found)
{
    s_count(state, "found", (int64_t)found->count);
    for (size_t i = 0; i < json_array_size(found->problems); i++)
        lade_scan_note(job, state, "failed", json_incref(json_array_get(found->problems, i)));
}

lade_code_t
lade_scan_look(const lade_stage_t *job, json_t *state, lade_answer_t *answer, lade_error_t *error)
{
    lade_walk_t found = {0};
    json_t *page = json_array();
    const char *after = lade_json_text(state, "after", NULL);
    size_t left = (size_t)job->config->max_message_bytes / S_PAGE_PARTS;
    job->progress(job->arg, 0, 0, "scanning", NULL);
    lade_code_t code = s_walk(job, state, &found, error);
    if (!code && !after)
        s_first_look(job, state, &found);
    size_t at = s_page_begin(&found, after);
    for (; !code && at < found.count && json_array_size(page) < S_PAGE; at++) {
        size_t len = strlen(found.paths[at]);
        if (len + 8 > left && json_array_size(page))
            break;
        left -= len + 8 < left ? len + 8 : left;
        json_array_append_new(page, json_stringn_nocheck(found.paths[at], len));
    }
    json_object_set_new(state, "more", json_boolean(at < found.count));
    if (!code && json_array_size(page)) {
        lade_stage_set_text(state, "after", found.paths[at - 1]);
        json_object_set(state, "page", page);
        s_ask(job, state, answer);
    } else if (!code) {
        code = s_end(job, state, answer);
    } else {
        json_decref(state);
    }
    json_decref(page);
    lade_walk_free(&found);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Sending: batches and jobs for what is not known

static int64_t
s_bytes(const char *path)
{
    int64_t bytes = lade_path_size(path);
    return bytes > 0 ? bytes : 0;
}

// Adds a child and what it was given, which a child that dies cannot tell.
static void
s_add_child(json_t *state, lade_answer_t *answer, json_t *child, json_t *paths)
{
    json_array_append_new(answer->jobs, child);
    json_array_append(s_list(state, "sent"), paths);
}

static json_t *
s_batch_child(const lade_stage_t *job, json_t *paths, int64_t bytes)
{
    return json_pack("{s:s, s:O, s:{s:O, s:I, s:b}}", "kind", "scan", "source",
                     json_array_get(paths, 0), "spec", "batch", paths, "size", (json_int_t)bytes,
                     "dry_run", lade_json_bool(job->spec, "dry_run", false));
}

static void
s_send_batches(const lade_stage_t *job, json_t *state, const json_t *paths, size_t most,
               lade_answer_t *answer)
{
    bool whole = strcmp(job->config->hash, "sha256") == 0;
    json_t *batch = json_array();
    int64_t bytes = 0;
    for (size_t i = 0; i < json_array_size(paths); i++) {
        json_array_append(batch, json_array_get(paths, i));
        bytes += s_bytes(json_string_value(json_array_get(paths, i)));
        if (json_array_size(batch) < most && i + 1 < json_array_size(paths) &&
            (!whole || bytes < s_batch_bytes))
            continue;
        s_add_child(state, answer, s_batch_child(job, batch, bytes), batch);
        json_decref(batch);
        batch = json_array();
        bytes = 0;
    }
    json_decref(batch);
}

static void
s_send_installs(json_t *state, const json_t *paths, lade_answer_t *answer)
{
    for (size_t i = 0; i < json_array_size(paths); i++) {
        json_t *path = json_array_get(paths, i), *one = json_pack("[O]", path);
        s_add_child(state, answer,
                    json_pack("{s:s, s:O, s:{s:{s:s, s:O}, s:b}}", "kind", "install", "source",
                              path, "spec", "source", "type", "local", "path", path, "inplace", 0),
                    one);
        json_decref(one);
    }
}

// Records whose files are gone and that may be among the paths are looked for first; their paths
// leave the list.
static void
s_send_alike(const lade_stage_t *job, json_t *state, json_t *paths, lade_answer_t *answer)
{
    json_t *alike = NULL, *lost = NULL;
    lade_sync_alike(state, paths, &alike, &lost);
    if (alike) {
        json_t *child = s_batch_child(job, alike, 0);
        json_object_set(json_object_get(child, "spec"), "lost", lost);
        s_add_child(state, answer, child, alike);
    }
    json_decref(alike);
    json_decref(lost);
}

// paths: taken. first: not what was sent before and failed.
static lade_code_t
s_send(const lade_stage_t *job, json_t *state, json_t *paths, bool first, lade_answer_t *answer,
       lade_error_t *error)
{
    answer->jobs = json_array();
    json_object_del(state, "page"); // the state travels with each stage: no more than it needs
    json_object_del(state, "folders");
    json_object_set_new(state, "sent", json_array());
    if (first && s_is_sync(job))
        s_send_alike(job, state, paths, answer);
    if (s_copies(job))
        s_send_installs(state, paths, answer);
    else
        s_send_batches(job, state, paths, first ? S_BATCH : 1, answer);
    json_decref(paths);
    if (json_array_size(answer->jobs)) {
        json_object_set_new(state, "step", json_string("batch"));
        answer->waits = true;
        answer->state = state;
        return LADE_OK;
    }
    json_decref(answer->jobs);
    answer->jobs = NULL;
    return lade_json_bool(state, "more", false) ? lade_scan_look(job, state, answer, error)
                                                : s_end(job, state, answer);
}

// ---------------------------------------------------------------------------------------------------
// Known

// A file that came to its place while an install runs may be the install's, whose record is not
// there yet; the next scan will know.
static bool
s_may_be_installing(const lade_stage_t *job, const json_t *live, const char *path)
{
    struct stat st;
    double since = lade_json_real(live, "since", 0);
    return lade_json_int(live, "count", 0) > 0 && lade_path_inside(job->config->models_dir, path) &&
           stat(path, &st) == 0 && (double)st.st_ctim.tv_sec >= since - 1;
}

static json_t *
s_known_folders(const json_t *folders, const json_t *known)
{
    json_t *set = json_object();
    for (size_t i = 0; i < json_array_size(folders); i++)
        if (json_is_string(json_array_get(known, i)))
            json_object_set_new_nocheck(set, json_string_value(json_array_get(folders, i)),
                                        json_true());
    return set;
}

static bool
s_is_below_known(const json_t *folders, const char *path)
{
    char *folder = strdup(path);
    bool known = false;
    for (char *slash; folder && !known && (slash = strrchr(folder, '/')) && slash > folder;) {
        *slash = '\0';
        known = json_object_get(folders, folder) != NULL;
    }
    free(folder);
    return known;
}

static lade_code_t
s_known(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    json_t *state = lade_stage_state(job);
    const json_t *page = json_object_get(state, "page");
    const json_t *paths = lade_scan_answer(job, S_ASK_PATHS, error),
                 *below = paths ? lade_scan_answer(job, S_ASK_FOLDERS, error) : NULL,
                 *live = below ? lade_scan_answer(job, S_ASK_JOBS, error) : NULL,
                 *sources =
                     live && s_copies(job) ? lade_scan_answer(job, S_ASK_SOURCES, error) : NULL;
    if (!live || (s_copies(job) && !sources)) {
        json_decref(state);
        return error->code;
    }
    json_t *folders = s_known_folders(json_object_get(state, "folders"), below),
           *unknown = json_array();
    for (size_t i = 0; i < json_array_size(page); i++) {
        const char *path = json_string_value(json_array_get(page, i));
        if (json_is_string(json_array_get(paths, i)) ||
            json_is_string(json_array_get(sources, i)) || s_is_below_known(folders, path))
            s_count(state, "known", 1);
        else if (s_may_be_installing(job, live, path))
            s_count(state, "busy", 1);
        else
            json_array_append(unknown, json_array_get(page, i));
    }
    json_decref(folders);
    return s_send(job, state, unknown, true, answer, error);
}

// ---------------------------------------------------------------------------------------------------
// Batch: the children have ended

// What the broker refused of a batch: known since the look (two scans at once), or wrong.
static void
s_take_refused(const lade_stage_t *job, json_t *state, const json_t *refused, const char *path)
{
    const char *type = lade_json_text(refused, "error_type", "");
    if (strcmp(type, lade_code_name(LADE_DUPLICATE_MODEL)) == 0)
        s_count(state, "known", 1);
    else
        lade_scan_note(job, state, "failed",
                       lade_scan_failure(path, type, lade_json_text(refused, "error", "")));
}

static const json_t *
s_refused_at(const json_t *result, size_t at)
{
    const json_t *refused = json_object_get(result, "refused");
    for (size_t i = 0; i < json_array_size(refused); i++)
        if (lade_json_int(json_array_get(refused, i), "at", -1) == (int64_t)at)
            return json_array_get(refused, i);
    return NULL;
}

static void
s_take_batch(const lade_stage_t *job, json_t *state, const json_t *result, json_t *again)
{
    // The effects of a batch are its relinked records, then its added ones.
    const json_t *added = json_object_get(result, "added"),
                 *failed = json_object_get(result, "failed"),
                 *left = json_object_get(result, "left"),
                 *relinked = json_object_get(result, "relinked");
    size_t first = json_array_size(relinked);
    lade_sync_relinked(job, state, result);
    for (size_t i = 0; i < json_array_size(added); i++) {
        json_t *model = json_array_get(added, i);
        const json_t *refused = s_refused_at(result, first + i);
        if (refused) {
            s_take_refused(job, state, refused, lade_json_text(model, "path", ""));
            continue;
        }
        if (json_object_get(model, "key"))
            lade_scan_note(job, state, "keys", json_incref(json_object_get(model, "key")));
        lade_scan_note(job, state, "added", json_incref(model));
    }
    for (size_t i = 0; i < json_array_size(failed); i++)
        lade_scan_note(job, state, "failed", json_incref(json_array_get(failed, i)));
    for (size_t i = 0; i < json_array_size(left); i++)
        json_array_append(again, json_array_get(left, i));
}

static void
s_take_install(const lade_stage_t *job, json_t *state, const json_t *result)
{
    static const char *const fields[] = {"key", "path", "name", "type", "base", "format"};
    const json_t *record = json_object_get(result, "config_out");
    json_t *model = json_object();
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (json_object_get(record, fields[i]))
            json_object_set(model, fields[i], json_object_get(record, fields[i]));
    if (json_object_get(model, "key"))
        lade_scan_note(job, state, "keys", json_incref(json_object_get(model, "key")));
    lade_scan_note(job, state, "added", model);
}

static void
s_take_child(const lade_stage_t *job, json_t *state, const json_t *child, const json_t *sent,
             json_t *again)
{
    const json_t *result = json_object_get(child, "result");
    const char *type = lade_json_text(child, "error_type", "");
    bool done = strcmp(lade_json_text(child, "status", ""), "completed") == 0;
    if (done && strcmp(lade_json_text(child, "kind", ""), "install") == 0)
        s_take_install(job, state, result);
    else if (done)
        s_take_batch(job, state, result, again);
    else if (json_array_size(sent) > 1)
        json_array_extend(again, (json_t *)sent);
    else if (strcmp(type, lade_code_name(LADE_DUPLICATE_MODEL)) == 0)
        s_count(state, "known", 1);
    else
        lade_scan_note(
            job, state, "failed",
            lade_scan_failure(json_string_value(json_array_get(sent, 0)),
                              *type ? type : lade_code_name(LADE_CHILD_FAILED),
                              lade_json_text(child, "error", lade_json_text(child, "status", ""))));
}

static lade_code_t
s_collect(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    json_t *state = lade_stage_state(job);
    json_t *again = json_array(), *sent = json_incref(json_object_get(state, "sent"));
    for (size_t i = 0; i < json_array_size(job->children); i++)
        s_take_child(job, state, json_array_get(job->children, i), json_array_get(sent, i), again);
    json_decref(sent);
    return s_send(job, state, again, false, answer, error);
}

// ---------------------------------------------------------------------------------------------------

static lade_code_t
s_begin_folder(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const char *dir = lade_json_text(job->spec, "dir", "");
    struct stat st;
    if (*dir != '/')
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "the folder to scan has to be an absolute path, not '%.200s'", dir);
    char *real = lade_walk_real(job->config->models_dir, dir, error);
    if (!real)
        return error->code;
    lade_code_t code = LADE_OK;
    if (stat(real, &st) != 0)
        code = lade_error_errno(error, errno, "cannot look into %s", real);
    else if (!S_ISDIR(st.st_mode))
        code = lade_error_set(error, LADE_VALUE_ERROR,
                              "%s is no folder; a single model is installed with `lade install`",
                              real);
    else if (s_copies(job) && lade_path_inside(job->config->models_dir, real))
        code = lade_error_set(
            error, LADE_VALUE_ERROR,
            "%s is in the models folder: its models need no copy; scan without --install", real);
    json_t *state = json_object(), *roots = json_array();
    json_array_append_new(roots, json_stringn_nocheck(real, strlen(real)));
    json_object_set_new(state, "roots", roots);
    free(real);
    if (code)
        json_decref(state);
    return code ? code : lade_scan_look(job, state, answer, error);
}

static lade_code_t
s_begin(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    return json_is_array(json_object_get(job->spec, "batch")) ? lade_batch_step(job, answer, error)
           : s_is_sync(job)                                   ? lade_sync_begin(job, answer, error)
                                                              : s_begin_folder(job, answer, error);
}

static const lade_step_t s_steps[] = {
    {"", s_begin}, {"records", lade_sync_records}, {"known", s_known}, {"batch", s_collect},
    {NULL, NULL},
};

lade_code_t
lade_scan_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    return lade_stage_run(job, s_steps, answer, error);
}
