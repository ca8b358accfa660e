// Records and disk: which records have lost their files, and whether that can be believed.
//
// A file that is not there is `missing`. But a drive that is not there takes its models along
// without a word, so everything that looks like that makes its records `unavailable`: they are told
// and left alone.
#include "workers/install/scan.h"

#include "common/away.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/walk.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    S_FIELDS = 5,
    S_MANY = 3, // records that vanish at once from one place, with more than half of what it had
    S_MAX_EFFECTS = 10000,
    S_MAX_PLACES = 10000,
};
static const char *const s_fields[S_FIELDS] = {"key", "name", "path", "hash", "file_size"};

// ---------------------------------------------------------------------------------------------------
// Records, page by page

static void
s_ask_records(json_t *state, const char *after, lade_answer_t *answer)
{
    json_t *ask = json_pack("{s:s, s:[s, s, s, s, s]}", "op", "records", "fields", s_fields[0],
                            s_fields[1], s_fields[2], s_fields[3], s_fields[4]);
    lade_stage_set_text(ask, "after", after);
    json_object_set_new(state, "step", json_string("records"));
    answer->waits = true;
    answer->state = state;
    answer->jobs = json_array();
    answer->ask = json_pack("[o]", ask);
}

lade_code_t
lade_sync_begin(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    (void)error;
    job->progress(job->arg, 0, 0, "checking", NULL);
    s_ask_records(json_object(), NULL, answer);
    return LADE_OK;
}

static void
s_add(json_t *counts, const char *name)
{
    if (json_object_get(counts, name) || json_object_size(counts) < S_MAX_PLACES)
        json_object_set_new_nocheck(counts, name, json_integer(lade_json_int(counts, name, 0) + 1));
}

static json_t *
s_map(json_t *state, const char *name)
{
    json_t *map = json_object_get(state, name);
    if (!json_is_object(map)) {
        map = json_object();
        json_object_set_new(state, name, map);
    }
    return map;
}

static char *
s_absolute(const lade_stage_t *job, const char *path)
{
    return *path == '/' ? strdup(path) : lade_path_join(job->config->models_dir, path);
}

// What is there is counted by its folder, so that what is not can be compared with it.
static void
s_look_at(const lade_stage_t *job, json_t *state, json_t *record)
{
    const char *path = lade_json_text(record, "path", "");
    struct stat st;
    if (!*path)
        return; // a model of somebody else's server
    char *whole = s_absolute(job, path);
    if (stat(whole, &st) == 0) {
        char *folder = lade_path_folder(whole);
        s_add(s_map(state, "present"), *path == '/' ? folder : job->config->models_dir);
        free(folder);
    } else {
        int problem = errno;
        json_t *lost = json_copy(record);
        if (problem != ENOENT && problem != ENOTDIR && problem != ELOOP)
            json_object_set_new(lost, "problem", json_string(strerror(problem)));
        lade_scan_note(job, state, "lost", lost);
    }
    free(whole);
}

// ---------------------------------------------------------------------------------------------------
// Missing or unavailable

typedef struct {
    const json_t *present, *lost; // counts by folder, and the records
    const char *models_dir;
} s_places_t;

// How many records are there and how many are lost in or below a folder.
static void
s_compare(const s_places_t *places, const char *folder, size_t *there_p, size_t *lost_p)
{
    const char *name;
    json_t *count;
    *there_p = *lost_p = 0;
    json_object_foreach((json_t *)places->present, name,
                        count) if (lade_path_inside(folder, name)) *there_p +=
        (size_t)json_integer_value(count);
    for (size_t i = 0; i < json_array_size(places->lost); i++) {
        const char *path = lade_json_text(json_array_get(places->lost, i), "path", "");
        *lost_p += *path == '/' ? lade_path_inside(folder, path)
                                : lade_path_inside(folder, places->models_dir);
    }
}

// Whether that many went at once that something else than a deletion is likely.
static bool
s_went_at_once(const s_places_t *places, const char *folder, char *words, size_t size)
{
    size_t there, lost;
    s_compare(places, folder, &there, &lost);
    if (lost < S_MANY || lost <= there)
        return false;
    snprintf(words, size, "%zu of the %zu models in %.200s went at once: is it the right drive?",
             lost, lost + there, folder);
    return true;
}

static bool
s_is_away(const lade_stage_t *job, const s_places_t *places, const json_t *record, char *words,
          size_t size)
{
    const char *path = lade_json_text(record, "path", ""),
               *problem = lade_json_text(record, "problem", NULL);
    if (problem) {
        snprintf(words, size, "it cannot be looked at: %s", problem);
        return true;
    }
    bool inside = *path != '/';
    char *whole = s_absolute(job, path);
    char *above = inside ? strdup(places->models_dir) : lade_away_standing(whole);
    bool away = lade_away(whole, inside ? places->models_dir : NULL, words, size) ||
                s_went_at_once(places, above, words, size);
    free(above);
    free(whole);
    return away;
}

static void
s_sort_lost(const lade_stage_t *job, json_t *state)
{
    s_places_t places = {json_object_get(state, "present"), json_object_get(state, "lost"),
                         job->config->models_dir};
    for (size_t i = 0; i < json_array_size(places.lost); i++) {
        char words[512];
        json_t *record = json_array_get(places.lost, i);
        bool away = s_is_away(job, &places, record, words, sizeof words);
        if (away)
            lade_stage_set_text(record, "reason", words);
        lade_scan_note(job, state, away ? "unavailable" : "missing", json_incref(record));
    }
    json_object_del(state, "lost");
    json_object_del(state, "present");
}

lade_code_t
lade_sync_records(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    json_t *state = lade_stage_state(job);
    const json_t *page = lade_scan_answer(job, 0, error);
    lade_code_t code = page ? LADE_OK : error->code;
    const json_t *records = json_object_get(page, "records");
    for (size_t i = 0; i < json_array_size(records) && !code; i++) {
        code = lade_stage_check(job, error);
        if (!code)
            s_look_at(job, state, json_array_get(records, i));
    }
    if (code) {
        json_decref(state);
        return code;
    }
    const char *next = lade_json_text(page, "next", NULL);
    if (next) {
        s_ask_records(state, next, answer);
        return LADE_OK;
    }
    s_sort_lost(job, state);
    json_t *roots = json_array();
    lade_stage_set_text(state, "step", "known");
    json_array_append_new(roots, json_string_nocheck(job->config->models_dir));
    lade_error_t none = {0}; // a folder that is not there has nothing to register
    char *import = *job->config->autoimport_dir
                       ? lade_walk_real(job->config->models_dir, job->config->autoimport_dir, &none)
                       : NULL;
    if (import)
        json_array_append_new(roots, json_string_nocheck(import));
    free(import);
    json_object_set_new(state, "roots", roots);
    return lade_scan_look(job, state, answer, error);
}

// ---------------------------------------------------------------------------------------------------
// Files that turned up elsewhere: those of the size of a lost one are looked at

static void
s_add_sizes(const json_t *list, json_t *sizes)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *record = json_array_get(list, i);
        char size[24];
        int64_t bytes = lade_json_int(record, "file_size", 0);
        if (bytes <= 0 || !*lade_json_text(record, "hash", ""))
            continue;
        snprintf(size, sizeof size, "%" PRId64, bytes);
        json_t *same = json_object_get(sizes, size);
        if (!same) {
            same = json_array();
            json_object_set_new(sizes, size, same);
        }
        json_array_append(same, record);
    }
}

void
lade_sync_alike(const json_t *state, json_t *paths, json_t **alike_p, json_t **lost_p)
{
    json_t *sizes = json_object(), *alike = json_array(), *lost = json_array();
    s_add_sizes(json_object_get(state, "missing"), sizes);
    s_add_sizes(json_object_get(state, "unavailable"), sizes);
    for (size_t i = json_object_size(sizes) ? json_array_size(paths) : 0; i-- > 0;) {
        char size[24];
        json_t *path = json_array_get(paths, i);
        snprintf(size, sizeof size, "%" PRId64, lade_path_size(json_string_value(path)));
        json_t *same = json_object_get(sizes, size);
        if (!same)
            continue;
        json_array_insert(alike, 0, path);
        json_array_remove(paths, i);
        json_array_extend(lost, same); // once: it is emptied
        json_array_clear(same);
    }
    json_decref(sizes);
    bool any = json_array_size(alike) > 0;
    if (!any) {
        json_decref(alike);
        json_decref(lost);
    }
    *alike_p = any ? alike : NULL;
    *lost_p = any ? lost : NULL;
}

static void
s_forget(json_t *state, const char *name, const char *key)
{
    json_t *list = json_object_get(state, name);
    char count[64];
    snprintf(count, sizeof count, "%s_count", name);
    for (size_t i = json_array_size(list); i-- > 0;)
        if (strcmp(lade_json_text(json_array_get(list, i), "key", ""), key) == 0) {
            json_array_remove(list, i);
            json_object_set_new(state, count, json_integer(lade_json_int(state, count, 1) - 1));
        }
}

void
lade_sync_relinked(const lade_stage_t *job, json_t *state, const json_t *result)
{
    const json_t *relinked = json_object_get(result, "relinked"),
                 *refused = json_object_get(result, "refused");
    for (size_t i = 0; i < json_array_size(relinked); i++) {
        json_t *found = json_array_get(relinked, i);
        const json_t *why = NULL;
        for (size_t r = 0; r < json_array_size(refused) && !why; r++)
            if (lade_json_int(json_array_get(refused, r), "at", -1) == (int64_t)i)
                why = json_array_get(refused, r);
        if (why) {
            lade_scan_note(job, state, "failed",
                           lade_scan_failure(lade_json_text(found, "path", ""),
                                             lade_json_text(why, "error_type", ""),
                                             lade_json_text(why, "error", "")));
            continue;
        }
        s_forget(state, "missing", lade_json_text(found, "key", ""));
        s_forget(state, "unavailable", lade_json_text(found, "key", ""));
        lade_scan_note(job, state, "relinked", json_incref(found));
    }
}

// ---------------------------------------------------------------------------------------------------
// The end

static json_t *
s_told(const json_t *records)
{
    json_t *list = json_array();
    static const char *const told[] = {"key", "name", "path", "reason"};
    for (size_t i = 0; i < json_array_size(records); i++) {
        json_t *record = json_array_get(records, i), *one = json_object();
        for (size_t j = 0; j < sizeof told / sizeof *told; j++)
            if (json_object_get(record, told[j]))
                json_object_set(one, told[j], json_object_get(record, told[j]));
        json_array_append_new(list, one);
    }
    return list;
}

// What came back meanwhile keeps its record.
static json_t *
s_still_missing(const lade_stage_t *job, const json_t *missing)
{
    json_t *list = json_array();
    struct stat st;
    for (size_t i = 0; i < json_array_size(missing) && i < S_MAX_EFFECTS; i++) {
        char *whole = s_absolute(job, lade_json_text(json_array_get(missing, i), "path", ""));
        if (stat(whole, &st) != 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
            json_array_append(list, json_array_get(missing, i));
        free(whole);
    }
    return list;
}

void
lade_sync_finish(const lade_stage_t *job, const json_t *state, lade_answer_t *answer)
{
    static const char *const lists[] = {"added", "missing", "unavailable", "relinked", "failed"};
    static const char *const counts[] = {"found",          "known",         "busy",
                                         "added_count",    "missing_count", "unavailable_count",
                                         "relinked_count", "failed_count"};
    bool dry = lade_json_bool(job->spec, "dry_run", false),
         unregister = lade_json_bool(job->spec, "unregister", false);
    const json_t *missing = json_object_get(state, "missing");
    json_t *result = json_object(),
           *gone = unregister ? s_still_missing(job, missing) : json_array();
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        json_t *list = json_object_get(state, lists[i]);
        bool records = strcmp(lists[i], "missing") == 0 || strcmp(lists[i], "unavailable") == 0;
        json_object_set_new(result, lists[i],
                            records ? s_told(list)
                            : list  ? json_incref(list)
                                    : json_array());
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        json_object_set_new(result, counts[i], json_integer(lade_json_int(state, counts[i], 0)));
    json_object_set_new(result, "unregistered", s_told(gone));
    json_object_set_new(result, "dry_run", json_boolean(dry));
    answer->result = result;
    if (!dry && json_array_size(gone)) {
        answer->effects = json_array();
        for (size_t i = 0; i < json_array_size(gone); i++)
            json_array_append_new(answer->effects,
                                  json_pack("{s:s, s:O}", "op", "del_model", "key",
                                            json_object_get(json_array_get(gone, i), "key")));
    }
    json_decref(gone);
}
