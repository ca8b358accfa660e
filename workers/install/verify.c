// The stages of a verification, and what is said of a model.
#include "workers/install/verify.h"

#include "common/hash.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/check.h"
#include "workers/install/digests.h"
#include "workers/install/scan.h"

#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    S_PAGE = 16, // models checked between two checkpoints
    S_MAX_FILES = 100000,
    S_MAX_DEPTH = 20,
};

// ---------------------------------------------------------------------------------------------------
// Asking

static void
s_ask(const lade_stage_t *job, json_t *state, const char *step, const char *after,
      lade_answer_t *answer)
{
    static const char *const fields[] = {
        "key",   "name",      "path", "hash", "file_size", "source", "source_api_response",
        "files", "created_at"};
    bool count = strcmp(step, "count") == 0;
    json_t *ask = json_pack("{s:s, s:[]}", "op", "records", "fields"),
           *wanted = json_object_get(ask, "fields");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!count || strcmp(fields[i], "file_size") == 0)
            json_array_append_new(wanted, json_string(fields[i]));
    if (!count)
        json_object_set_new(ask, "limit", json_integer(S_PAGE));
    if (json_is_array(json_object_get(job->spec, "keys")))
        json_object_set(ask, "keys", json_object_get(job->spec, "keys"));
    lade_stage_set_text(ask, "after", after);
    lade_stage_set_text(state, "step", step);
    answer->waits = true;
    answer->state = state;
    answer->jobs = json_array();
    answer->ask = json_pack("[o]", ask);
    answer->total_bytes = lade_json_int(state, "total", 0);
}

static void
s_add(json_t *state, const char *name, int64_t more)
{
    json_object_set_new(state, name, json_integer(lade_json_int(state, name, 0) + more));
}

// ---------------------------------------------------------------------------------------------------
// The files of a model

typedef struct {
    const lade_stage_t *job;
    const json_t *record;
    lade_digests_t digests;
    char *path; // absolute
    bool folder;
    lade_error_t problem; // it cannot be listed
    lade_check_t *files;
    size_t count;
    size_t bad;
} s_model_t;

static int
s_by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int
s_by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static lade_check_t *
s_add_file(s_model_t *self, const char *path, const char *relative)
{
    self->files = realloc(self->files, (self->count + 1) * sizeof *self->files);
    if (!self->files)
        abort();
    lade_check_t *file = &self->files[self->count++];
    lade_digest_t digest;
    bool known = lade_digests_find(&self->digests, relative, &digest);
    *file = (lade_check_t){.path = strdup(path),
                           .relative = strdup(relative),
                           .size = digest.size,
                           .read = lade_json_bool(self->job->spec, "record", false)};
    if (known)
        memcpy(file->sha256, digest.sha256, sizeof file->sha256);
    return file;
}

static void
s_add_tree(s_model_t *self, lade_error_t *error)
{
    char *roots[] = {self->path, NULL};
    size_t len = strlen(self->path);
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, s_by_name);
    for (FTSENT *entry; fts && (entry = fts_read(fts));) {
        struct stat st;
        if (entry->fts_level > 0 && *entry->fts_name == '.')
            fts_set(fts, entry, FTS_SKIP);
        else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR)
            lade_error_errno(error, entry->fts_errno, "reading %s", entry->fts_path);
        else if (entry->fts_level > 0 && entry->fts_level <= S_MAX_DEPTH &&
                 self->count < S_MAX_FILES &&
                 (entry->fts_info == FTS_F ||
                  (entry->fts_info == FTS_SL && stat(entry->fts_accpath, &st) == 0 &&
                   S_ISREG(st.st_mode))))
            s_add_file(self, entry->fts_path, entry->fts_path + len + 1);
    }
    if (fts)
        fts_close(fts);
}

static lade_check_t *
s_find(const s_model_t *self, const char *relative)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp(self->files[i].relative, relative) == 0)
            return &self->files[i];
    return NULL;
}

// Files whose digests were recorded and that are not there any more.
static void
s_add_recorded(s_model_t *self)
{
    for (size_t i = 0; i < json_array_size(self->digests.own); i++) {
        const char *relative = lade_json_text(json_array_get(self->digests.own, i), "path", "");
        if (!*relative || s_find(self, relative) || lade_path_check_relative(relative, NULL))
            continue;
        char *path = lade_path_join(self->path, relative);
        s_add_file(self, path, relative);
        free(path);
    }
}

static void
s_mark_weights(s_model_t *self, lade_error_t *error)
{
    char **paths = NULL;
    size_t count = 0, len = strlen(self->path);
    lade_hash_list(self->path, &paths, &count, error);
    for (size_t i = 0; paths && i < count; i++) {
        lade_check_t *file = s_find(self, paths[i] + len + 1);
        if (file)
            file->weight = true;
        free(paths[i]);
    }
    free(paths);
}

static bool
s_whole_hash(const json_t *record)
{
    return strncmp(lade_json_text(record, "hash", ""), "sha256:", 7) == 0;
}

static void
s_open_model(s_model_t *self, const lade_stage_t *job, const json_t *record)
{
    struct stat st;
    const char *path = lade_json_text(record, "path", "");
    *self = (s_model_t){.job = job, .record = record};
    lade_digests_open(&self->digests, record);
    self->path = *path == '/' ? strdup(path) : lade_path_join(job->config->models_dir, path);
    self->folder = stat(self->path, &st) == 0 && S_ISDIR(st.st_mode);
    if (self->folder) {
        s_add_tree(self, &self->problem);
        s_add_recorded(self);
        s_mark_weights(self, &self->problem);
    } else {
        lade_check_t *file = s_add_file(self, self->path, "");
        file->weight = true;
        if (file->size < 0)
            file->size = lade_json_int(record, "file_size", -1);
    }
    for (size_t i = 0; i < self->count; i++) // the model's own hash wants all bytes
        self->files[i].read |= s_whole_hash(record) && self->files[i].weight;
}

static void
s_close_model(s_model_t *self)
{
    lade_digests_close(&self->digests);
    lade_check_free(self->files, self->count);
    free(self->path);
}

// ---------------------------------------------------------------------------------------------------
// What is said

static void
s_say_bad(s_model_t *self, json_t *state, const lade_check_t *file, const char *problem,
          json_t *expected, json_t *found, const char *words)
{
    json_t *bad = json_object();
    lade_stage_set_text(bad, "key", lade_json_text(self->record, "key", ""));
    lade_stage_set_text(bad, "name", lade_json_text(self->record, "name", ""));
    lade_stage_set_text(bad, "path", lade_json_text(self->record, "path", ""));
    lade_stage_set_text(bad, "file", file ? file->path : self->path);
    lade_stage_set_text(bad, "problem", problem);
    json_object_set_new(bad, "expected", expected ? expected : json_null());
    json_object_set_new(bad, "found", found ? found : json_null());
    lade_stage_set_text(bad, "words", words);
    lade_scan_note(self->job, state, "bad", bad);
    self->bad++;
}

static void
s_time(double seconds, char *text, size_t size)
{
    time_t when = (time_t)seconds;
    struct tm parts;
    if (!gmtime_r(&when, &parts) || !strftime(text, size, "%Y-%m-%d %H:%M:%S UTC", &parts))
        snprintf(text, size, "an unknown time");
}

// Bytes that differ in a file nobody wrote to since it was installed went bad on the disk.
static void
s_say_changed(const s_model_t *self, const lade_check_t *file, char *words, size_t size)
{
    char when[64];
    double made = lade_json_real(self->record, "created_at", 0);
    s_time(file->written, when, sizeof when);
    if (file->written <= made)
        snprintf(words, size,
                 "its bytes are not those that were installed, though it was last written to at "
                 "%s, before its record was made: bit rot; install it again",
                 when);
    else
        snprintf(words, size,
                 "its bytes are not those that were installed: it was written to at %s; install it "
                 "again, or make a record of what it is now",
                 when);
}

static void
s_check_file(s_model_t *self, json_t *state, const lade_check_t *file)
{
    char words[512];
    if (file->problem.code) {
        s_say_bad(self, state, file, "unreadable", NULL, NULL, file->problem.message);
    } else if (file->found_size < 0) {
        s_say_bad(self, state, file, "missing", NULL, NULL,
                  "it is not there; `lade sync` looks for files that were moved");
    } else if (file->size >= 0 && file->size != file->found_size) {
        snprintf(words, sizeof words,
                 "it has %" PRId64 " bytes and should have %" PRId64 ": it is %s", file->found_size,
                 file->size,
                 file->found_size < file->size ? "cut off or another file" : "another file");
        s_say_bad(self, state, file, "size", json_integer(file->size),
                  json_integer(file->found_size), words);
    } else if (*file->sha256 && *file->found && strcmp(file->sha256, file->found) != 0) {
        s_say_changed(self, file, words, sizeof words);
        s_say_bad(self, state, file, "digest", json_string(file->sha256), json_string(file->found),
                  words);
    }
}

// The model's own hash from what was read of its files, "" if not all of them were.
static void
s_joined(const s_model_t *self, char *text)
{
    char **paths = NULL, *hexes = calloc(self->count + 1, 64);
    size_t weights = 0;
    *text = '\0';
    paths = calloc(self->count + 1, sizeof *paths);
    if (!hexes || !paths)
        abort();
    for (size_t i = 0; i < self->count; i++)
        if (self->files[i].weight)
            paths[weights++] = self->files[i].relative;
    qsort(paths, weights, sizeof *paths, s_by_text);
    size_t whole = 0;
    for (size_t i = 0; i < weights; i++) {
        const lade_check_t *file = s_find(self, paths[i]);
        if (*file->found)
            memcpy(hexes + 64 * whole++, file->found, 64);
    }
    if (whole == weights && self->folder)
        lade_hash_join(hexes, text);
    else if (whole == weights && weights == 1)
        snprintf(text, 72, "sha256:%.64s", hexes);
    free(hexes);
    free(paths);
}

// Compares the record's hash: all bytes, which were read already, or samples.
static lade_code_t
s_check_hash(s_model_t *self, json_t *state, lade_error_t *error)
{
    const char *wanted = lade_json_text(self->record, "hash", "");
    char joined[72], words[512], *hash = NULL;
    bool samples = strncmp(wanted, "imohash:", 8) == 0;
    lade_code_t code = LADE_OK;
    if (!samples && !s_whole_hash(self->record))
        return LADE_OK;
    if (samples)
        code = lade_hash_path(self->path, "imohash", lade_stage_stopped, (void *)self->job, &hash,
                              error);
    else
        s_joined(self, joined);
    const char *found = samples ? hash : joined;
    if (!code && *found && strcmp(found, wanted) != 0) {
        if (self->count == 1)
            s_say_changed(self, self->files, words, sizeof words);
        else
            snprintf(words, sizeof words,
                     "its files are not those that were installed: the hash over them is another");
        s_say_bad(self, state, self->count == 1 ? self->files : NULL, samples ? "samples" : "hash",
                  json_string(wanted), json_string(found), words);
    }
    free(hash);
    return code;
}

// Whether all weights were compared with a digest of all their bytes.
static bool
s_is_whole(const s_model_t *self)
{
    bool whole = s_whole_hash(self->record);
    for (size_t i = 0; i < self->count; i++)
        if (self->files[i].weight && !*self->files[i].sha256 && !whole)
            return false;
    return true;
}

static void
s_record(s_model_t *self, json_t *state)
{
    json_t *files = json_array();
    for (size_t i = 0; i < self->count; i++) {
        const lade_check_t *file = &self->files[i];
        char *name = *file->relative ? strdup(file->relative) : lade_path_name(file->path);
        if (*file->found)
            json_array_append_new(files,
                                  json_pack("{s:o, s:I, s:s}", "path",
                                            json_stringn_nocheck(name, strlen(name)), "size",
                                            (json_int_t)file->found_size, "sha256", file->found));
        free(name);
    }
    lade_scan_note(
        self->job, state, "recorded",
        json_pack("{s:O, s:o}", "key", json_object_get(self->record, "key"), "files", files));
}

static void
s_say_unverified(const s_model_t *self, json_t *state)
{
    const char *hash = lade_json_text(self->record, "hash", "");
    json_t *one = json_object();
    lade_stage_set_text(one, "key", lade_json_text(self->record, "key", ""));
    lade_stage_set_text(one, "name", lade_json_text(self->record, "name", ""));
    lade_stage_set_text(one, "path", lade_json_text(self->record, "path", ""));
    lade_stage_set_text(one, "reason",
                        strncmp(hash, "imohash:", 8) == 0 ? "compared by samples only"
                                                          : "no digest of it is known");
    lade_scan_note(self->job, state, "unverified", one);
}

static lade_code_t
s_check_model(s_model_t *self, json_t *state, lade_error_t *error)
{
    lade_code_t code = LADE_OK;
    if (self->problem.code)
        s_say_bad(self, state, NULL, "unreadable", NULL, NULL, self->problem.message);
    for (size_t i = 0; i < self->count; i++)
        s_check_file(self, state, &self->files[i]);
    if (!self->bad)
        code = s_check_hash(self, state, error);
    if (code && code != LADE_CANCELLED) {
        s_say_bad(self, state, NULL, "unreadable", NULL, NULL, error->message);
        code = LADE_OK;
    }
    s_add(state, "checked", 1);
    s_add(state, "files", (int64_t)self->count);
    if (self->bad)
        return code;
    s_add(state, "ok", 1);
    if (s_is_whole(self))
        return code;
    if (lade_json_bool(self->job->spec, "record", false))
        s_record(self, state);
    else
        s_say_unverified(self, state);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// A page of models: all their files at once

typedef struct {
    const lade_stage_t *job;
    int64_t done, total;
} s_progress_t;

static bool
s_on_bytes(void *arg, int64_t bytes)
{
    s_progress_t *self = arg;
    self->done += bytes;
    self->job->progress(self->job->arg, self->done, self->total, "verifying", NULL);
    return !lade_stage_stopped((void *)self->job);
}

static size_t
s_threads(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : (size_t)cores;
}

static lade_code_t
s_check_files(const lade_stage_t *job, s_model_t *models, size_t count, json_t *state,
              lade_error_t *error)
{
    size_t files = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        files += models[i].count;
    lade_check_t *all = calloc(files + 1, sizeof *all);
    if (!all)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to check %zu files", files);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < models[i].count; j++)
            all[at++] = models[i].files[j];
    s_progress_t progress = {job, lade_json_int(state, "bytes", 0),
                             lade_json_int(state, "total", 0)};
    lade_code_t code = lade_check_files(all, files, s_threads(), s_on_bytes, &progress, error);
    at = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < models[i].count; j++)
            models[i].files[j] = all[at++];
    free(all);
    json_object_set_new(state, "bytes", json_integer(progress.done));
    return code;
}

static lade_code_t
s_check_page(const lade_stage_t *job, const json_t *records, json_t *state, lade_error_t *error)
{
    size_t count = 0, size = json_array_size(records);
    s_model_t *models = calloc(size + 1, sizeof *models);
    if (!models)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to check %zu models", size);
    for (size_t i = 0; i < size; i++)
        if (*lade_json_text(json_array_get(records, i), "path", "")) // else it is no file of ours
            s_open_model(&models[count++], job, json_array_get(records, i));
    lade_code_t code = s_check_files(job, models, count, state, error);
    for (size_t i = 0; i < count; i++) {
        if (!code)
            code = s_check_model(&models[i], state, error);
        s_close_model(&models[i]);
    }
    free(models);
    return code == LADE_CANCELLED ? lade_stage_check(job, error) : code;
}

// ---------------------------------------------------------------------------------------------------
// Stages

static void
s_finish(const json_t *state, lade_answer_t *answer)
{
    static const char *const lists[] = {"bad", "unverified"};
    static const char *const counts[] = {
        "checked", "files", "bytes", "ok", "bad_count", "unverified_count", "recorded_count"};
    const json_t *recorded = json_object_get(state, "recorded");
    json_t *result = json_object(), *keys = json_array();
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        json_t *list = json_object_get(state, lists[i]);
        json_object_set_new(result, lists[i], list ? json_incref(list) : json_array());
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        json_object_set_new(result, counts[i], json_integer(lade_json_int(state, counts[i], 0)));
    answer->effects = json_array_size(recorded) ? json_array() : NULL;
    for (size_t i = 0; i < json_array_size(recorded); i++) {
        const json_t *one = json_array_get(recorded, i);
        json_array_append(keys, json_object_get(one, "key"));
        json_array_append_new(answer->effects,
                              json_pack("{s:s, s:O, s:{s:O}, s:b}", "op", "update_model", "key",
                                        json_object_get(one, "key"), "changes", "files",
                                        json_object_get(one, "files"), "tolerant", 1));
    }
    json_object_set_new(result, "recorded", keys);
    answer->result = result;
}

static lade_code_t
s_begin(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    (void)error;
    job->progress(job->arg, 0, 0, "verifying", NULL);
    s_ask(job, lade_stage_state(job), "count", NULL, answer);
    return LADE_OK;
}

static lade_code_t
s_count(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *page = lade_scan_answer(job, 0, error);
    if (!page)
        return error->code;
    json_t *state = lade_stage_state(job);
    const json_t *records = json_object_get(page, "records");
    const char *next = lade_json_text(page, "next", NULL);
    for (size_t i = 0; i < json_array_size(records); i++) {
        int64_t size = lade_json_int(json_array_get(records, i), "file_size", 0);
        s_add(state, "total", size > 0 ? size : 0);
    }
    s_ask(job, state, next ? "count" : "verify", next, answer);
    return LADE_OK;
}

static lade_code_t
s_verify(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *page = lade_scan_answer(job, 0, error);
    if (!page)
        return error->code;
    json_t *state = lade_stage_state(job);
    lade_code_t code = s_check_page(job, json_object_get(page, "records"), state, error);
    const char *next = lade_json_text(page, "next", NULL);
    if (!code && next) {
        s_ask(job, state, "verify", next, answer);
        return LADE_OK;
    }
    if (!code)
        s_finish(state, answer);
    json_decref(state);
    return code;
}

static const lade_step_t s_steps[] = {
    {"", s_begin},
    {"count", s_count},
    {"verify", s_verify},
    {NULL, NULL},
};

lade_code_t
lade_verify_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    return lade_stage_run(job, s_steps, answer, error);
}
