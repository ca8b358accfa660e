// From a checkpoint's record to that of its converted copy.
#include "workers/gpu/checkpoint.h"

#include "common/converted.h"
#include "common/wire.h"
#include "workers/gpu/loaders.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { S_MAX_ROUNDS = 3 };

// What the install worker converts; of others a submodel is refused by their loader.
static const struct {
    const char *base, *type;
} s_rows[] = {
    {"sd-1", "main"},
    {"sd-2", "main"},
    {"sdxl", "main"},
    {"sdxl-refiner", "main"},
};

bool
lade_checkpoint_is(const json_t *record, const char *submodel)
{
    if (!submodel || strcmp(lade_json_text(record, "format", ""), "checkpoint") != 0 ||
        lade_loaders_places(record, submodel))
        return false;
    for (size_t i = 0; i < sizeof s_rows / sizeof *s_rows; i++)
        if (!strcmp(s_rows[i].base, lade_json_text(record, "base", "")) &&
            !strcmp(s_rows[i].type, lade_json_text(record, "type", "")))
            return true;
    return false;
}

static json_t *
s_of_copy(const char *models_dir, const json_t *record)
{
    char *path = lade_converted_path(models_dir, lade_json_text(record, "key", ""));
    json_t *copy = json_copy((json_t *)record);
    json_object_set_new(copy, "path", json_stringn_nocheck(path, strlen(path)));
    json_object_set_new(copy, "format", json_string("diffusers"));
    json_object_del(copy, "repo_variant");
    json_object_del(copy, "submodels");
    free(path);
    return copy;
}

// Of several loads that want one conversion a job each, of which one at a time is begun: the first
// does it, the others find it done and have taken no slot meanwhile.
static json_t *
s_jobs(const json_t *record)
{
    const char *key = lade_json_text(record, "key", "");
    char gate[256];
    snprintf(gate, sizeof gate, "only:convert:%.200s", key);
    return json_pack("[{s:s, s:s, s:{s:s, s:O, s:b}, s:[s], s:b}]", "kind", "convert", "source",
                     key, "spec", "key", key, "record", record, "awaited", 1, "gates", gate,
                     "vital", 1);
}

// Held before it is looked at: nobody can take it away in between.
static bool
s_find_copy(const char *models_dir, const json_t *record, int *hold_p)
{
    const char *key = lade_json_text(record, "key", "");
    *hold_p = lade_converted_hold(models_dir, key);
    if (*hold_p >= 0 && lade_converted_is_fresh(models_dir, record, NULL)) {
        lade_converted_touch(models_dir, key, 0);
        return true;
    }
    if (*hold_p >= 0)
        close(*hold_p);
    *hold_p = -1;
    return false;
}

lade_code_t
lade_checkpoint_find(const char *models_dir, const json_t *record, const json_t *children,
                     int64_t rounds, json_t **record_p, int *hold_p, json_t **jobs_p,
                     lade_error_t *error)
{
    const json_t *child = json_array_get(children, json_array_size(children) - 1);
    const char *status = lade_json_text(child, "status", "completed");
    *record_p = *jobs_p = NULL;
    if (s_find_copy(models_dir, record, hold_p)) {
        *record_p = s_of_copy(models_dir, record);
        return LADE_OK;
    }
    if (child && rounds && strcmp(status, "completed") != 0)
        return lade_error_set(error,
                              lade_code_find(lade_json_text(child, "error_type", "child_failed")),
                              "its conversion ended as %s: %s", status,
                              lade_json_text(child, "error", "no reason was told"));
    if (rounds >= S_MAX_ROUNDS)
        return lade_error_set(error, LADE_IO_ERROR,
                              "the converted copy of the model was gone each time it was looked "
                              "for: it is edited, or the cache of converted copies "
                              "(install.convert_cache_mb) is emptied at once");
    *jobs_p = s_jobs(record);
    return LADE_OK;
}
