// From files that are there to a move that is decided.
#include "workers/install/prepare.h"

#include "common/hash.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/describe.h"
#include "workers/install/equal.h"
#include "workers/install/place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The name the model's files get, if it is free. You free it.
static char *
s_wanted_name(const lade_stage_t *job, const char *path)
{
    json_t *overrides = NULL;
    lade_stage_overrides(job, &overrides, NULL); // checked before
    char *name = lade_place_file_name(lade_json_text(overrides, "name", NULL), path,
                                      lade_describe_is_file(path));
    json_decref(overrides);
    return name;
}

// True if both hold the same weights, as far as samples and sizes tell.
static bool
s_same_model(const lade_stage_t *job, const char *a, const char *b)
{
    char *hash_a = NULL, *hash_b = NULL;
    bool same = lade_path_size(a) == lade_path_size(b) &&
                lade_describe_is_file(a) == lade_describe_is_file(b) &&
                !lade_hash_path(a, "imohash", lade_stage_stopped, (void *)job, &hash_a, NULL) &&
                !lade_hash_path(b, "imohash", lade_stage_stopped, (void *)job, &hash_b, NULL) &&
                strcmp(hash_a, hash_b) == 0;
    free(hash_a);
    free(hash_b);
    return same;
}

// The same model under the same name is no second model: the user installs it twice. found has type
// and base.
lade_code_t
lade_prepare_refuse_twice(const lade_stage_t *job, const json_t *found, const char *path,
                          lade_error_t *error)
{
    char *name = s_wanted_name(job, path), *there = NULL;
    bool asked = lade_json_text(job->spec, "on_equal", NULL) &&
                 strcmp(lade_json_text(job->spec, "on_equal", ""), "refuse") != 0;
    if (asprintf(&there, "%s/%s/%s/%s", job->config->models_dir, lade_json_text(found, "base", ""),
                 lade_json_text(found, "type", ""), name) < 0)
        abort();
    lade_code_t code = LADE_OK;
    if (!asked && lade_place_inode(there) && s_same_model(job, there, path))
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
lade_code_t
lade_prepare_place(const lade_stage_t *job, json_t *record, const char *from, const json_t *fetch,
                   const char *hash, int64_t round, lade_answer_t *answer, lade_error_t *error)
{
    char *name = s_wanted_name(job, from), *relative = NULL;
    lade_code_t code = lade_place_choose(
        job->config->models_dir, lade_json_text(record, "base", ""),
        lade_json_text(record, "type", ""), name, lade_describe_is_file(from), &relative, error);
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
        if (hash)
            lade_stage_set_text(state, "hash", hash);
        answer->ask = lade_equal_ask(job, hash);
        answer->waits = true;
        answer->state = state;
        answer->jobs = json_array();
    }
    free(relative);
    free(name);
    return code;
}

lade_code_t
lade_prepare(const lade_stage_t *job, const char *path, const json_t *state, const json_t *fetch,
             lade_answer_t *answer, lade_error_t *error)
{
    int64_t bytes = lade_path_size(path);
    lade_stage_progress(job, bytes, bytes, path);
    json_t *record = NULL;
    char *hash = NULL;
    lade_code_t code =
        fetch && lade_describe_is_file(path) ? lade_describe_refuse_page(path, error) : LADE_OK;
    if (!code)
        code = lade_describe(job, path, state, &record, &hash, error);
    if (!code)
        code = lade_path_sync_tree(path, error);
    if (!code)
        code = lade_stage_check(job, error);
    if (!code)
        code = lade_prepare_place(job, record, path, fetch,
                                  lade_json_bool(state, "linked", false) ? NULL : hash, 1, answer,
                                  error);
    free(hash);
    json_decref(record);
    return code;
}
