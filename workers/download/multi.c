// Several files in one job.
#include "workers/download/multi.h"

#include "common/path.h"
#include "common/wire.h"

#include <string.h>

// The spec of one part; NULL with a sentence if the file may not be where it wants to.
static json_t *
s_part_spec(const json_t *spec, const json_t *file, lade_error_t *error)
{
    static const char *const of_file[] = {"size", "sha256"}, *const of_all[] = {
                                                                 "access_token",
                                                                 "preserve_partial_downloads"};
    const char *path = lade_json_text(file, "path", "");
    if (lade_path_check_relative(path, error)) {
        lade_error_set(error, LADE_VALUE_ERROR,
                       "only relative download paths accepted, not '%.200s'", path);
        return NULL;
    }
    char *place = lade_path_join(lade_json_text(spec, "destdir", ""), path);
    json_t *part = json_pack("{s:o}", "destination", json_string_nocheck(place));
    free(place);
    for (size_t i = 0; i < 2; i++) {
        if (json_object_get(file, of_file[i]))
            json_object_set(part, of_file[i], json_object_get(file, of_file[i]));
        if (json_object_get(spec, of_all[i]))
            json_object_set(part, of_all[i], json_object_get(spec, of_all[i]));
    }
    return part;
}

static lade_code_t
s_add_part(json_t *jobs, const json_t *spec, const json_t *file, lade_error_t *error)
{
    static const char *const with_it[] = {"gates", "requires"};
    json_t *part = s_part_spec(spec, file, error);
    if (!part)
        return error->code;
    json_t *job = json_pack("{s:s, s:O?, s:o, s:b}", "kind", "download", "source",
                            json_object_get(file, "url"), "spec", part, "vital", 1);
    for (size_t i = 0; i < 2; i++)
        if (json_object_get(spec, with_it[i]))
            json_object_set(job, with_it[i], json_object_get(spec, with_it[i]));
    json_array_append_new(jobs, job);
    return LADE_OK;
}

static void
s_await(lade_task_t *task, const json_t *files)
{
    const json_t *spec = lade_task_spec(task);
    const char *dir = lade_json_text(spec, "destdir", "");
    json_t *jobs = json_array();
    lade_error_t error;
    lade_code_t code = *dir == '/' ? LADE_OK
                                   : lade_error_set(&error, LADE_VALUE_ERROR,
                                                    "destdir: an absolute path is needed");
    for (size_t i = 0; i < json_array_size(files) && !code; i++)
        code = s_add_part(jobs, spec, json_array_get(files, i), &error);
    if (!code) {
        lade_task_await(&task, json_pack("{s:b}", "awaited", 1), jobs, NULL, 0, dir);
        return;
    }
    json_decref(jobs);
    lade_task_fail(&task, &error, -1);
}

// The part that is why the others did not complete either: one that failed, else one that was
// cancelled by itself.
static const json_t *
s_culprit(const json_t *children)
{
    const json_t *culprit = NULL;
    for (size_t i = 0; i < json_array_size(children); i++) {
        const json_t *child = json_array_get(children, i);
        const char *status = lade_json_text(child, "status", "");
        if (strcmp(status, "completed") == 0)
            continue;
        if (strcmp(status, "cancelled") != 0)
            return child;
        culprit = culprit ? culprit : child;
    }
    return culprit;
}

static void
s_fail(lade_task_t *task, const json_t *child)
{
    lade_error_t error;
    if (strcmp(lade_json_text(child, "status", ""), "cancelled") == 0)
        lade_error_set(&error, LADE_CANCELLED, "one of its files was cancelled");
    else
        lade_error_set(&error, lade_code_find(lade_json_text(child, "error_type", "child_failed")),
                       "%s", lade_json_text(child, "error", "one of its files did not arrive"));
    lade_task_fail(&task, &error, -1);
}

// What is there now.
static void
s_done(lade_task_t *task, const json_t *children)
{
    static const char *const shown[] = {"path", "bytes", "sha256"};
    json_t *parts = json_array();
    json_int_t bytes = 0;
    for (size_t i = 0; i < json_array_size(children); i++) {
        const json_t *child = json_array_get(children, i),
                     *result = json_object_get(child, "result");
        json_t *part = json_pack("{s:O?}", "url", json_object_get(child, "source"));
        for (size_t m = 0; m < sizeof shown / sizeof *shown; m++)
            if (json_object_get(result, shown[m]))
                json_object_set(part, shown[m], json_object_get(result, shown[m]));
        bytes += (json_int_t)lade_json_int(result, "bytes", 0);
        json_array_append_new(parts, part);
    }
    json_t *result =
        json_pack("{s:o, s:I, s:o}", "path",
                  json_string_nocheck(lade_json_text(lade_task_spec(task), "destdir", "")), "bytes",
                  bytes, "parts", parts);
    lade_task_done(&task, result, NULL);
}

bool
lade_multi_start(lade_task_t *task)
{
    const json_t *files = json_object_get(lade_task_spec(task), "files"),
                 *children = lade_task_children(task);
    if (!json_is_array(files) || json_array_size(files) == 0)
        return false;
    const json_t *culprit = s_culprit(children);
    if (!json_array_size(children))
        s_await(task, files);
    else if (culprit)
        s_fail(task, culprit);
    else
        s_done(task, children);
    return true;
}
