// The stages of an install.
#include "workers/install/install.h"

#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/install/cache.h"
#include "workers/install/describe.h"
#include "workers/install/equal.h"
#include "workers/install/fetch.h"
#include "workers/install/local.h"
#include "workers/install/place.h"
#include "workers/install/prepare.h"
#include "workers/install/resolve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    S_MAX_RESTARTS = 8,      // times that files which vanished are fetched or copied again
    S_MAX_PLACE_ROUNDS = 50, // times that another install took the name first
};

// ---------------------------------------------------------------------------------------------------
// Place: the record is made, the files lie in the temporary folder, the final name is chosen

// The files went while nobody looked (an attempt that was thought dead cleaned up): back to where
// they come from.
static lade_code_t
s_start_over(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *fetch = json_object_get(job->state, "fetch");
    json_t *state = fetch ? json_deep_copy(fetch) : json_object();
    int64_t round = lade_json_int(job->state, "restarts", 0) + 1;
    if (round > S_MAX_RESTARTS) {
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
    lade_code_t code =
        lade_prepare_place(job, record, from, json_object_get(job->state, "fetch"),
                           lade_json_text(job->state, "hash", NULL), round, answer, error);
    json_decref(record);
    return code;
}

static void
s_complain(const lade_stage_t *job, const lade_error_t *error)
{
    lade_log(LADE_LOG_WARNING, "install", "job %" PRId64 ": %s", job->id, error->message);
}

static void
s_remove_temp(const lade_stage_t *job, bool fetched)
{
    lade_error_t error = {0};
    char *temp = lade_stage_temp(job);
    if (!fetched)
        lade_stage_remove_copies(job);
    else if (lade_place_discard(job->config->models_dir, temp, &error))
        s_complain(job, &error);
    free(temp);
}

// Instead of what was fetched or copied, links to what a record has of it already; true if that is
// what is to be placed now.
static bool
s_link_equal(const lade_stage_t *job, const json_t *equal, const char *from, lade_answer_t *answer,
             lade_code_t *code_p, lade_error_t *error)
{
    char *folder = lade_stage_copy(job), *name = lade_path_name(from);
    char *to = lade_path_join(folder, name);
    lade_stage_remove_copies(job);
    lade_code_t code = lade_equal_link(job, equal, from, to, error);
    bool linked = code != LADE_NOT_FOUND; // not the same after all: it is placed as it is
    if (!code)
        code = lade_place_discard(job->config->models_dir, from, error);
    if (!code) {
        json_t *record = json_deep_copy(json_object_get(job->state, "record"));
        code = lade_prepare_place(job, record, to, json_object_get(job->state, "fetch"), NULL, 1,
                                  answer, error);
        json_decref(record);
    }
    *code_p = code;
    free(to);
    free(name);
    free(folder);
    return linked;
}

// What the broker is told of a move: when it has the record, the source may go.
static void
s_add_discard(const lade_stage_t *job, const char *to, lade_answer_t *answer)
{
    lade_source_t source = {0};
    if (lade_json_bool(job->spec, "move", false) && !lade_resolve_source(job, &source, NULL) &&
        source.kind == LADE_SOURCE_LOCAL)
        json_array_append_new(
            answer->effects,
            json_pack("{s:s, s:{s:s, s:o, s:{s:o, s:o}}}", "op", "submit", "job", "kind", "discard",
                      "source", json_string_nocheck(source.path), "spec", "path",
                      json_string_nocheck(source.path), "copy", json_string_nocheck(to)));
    lade_source_free(&source);
}

static lade_code_t
s_publish(const lade_stage_t *job, const char *from, const char *to, lade_answer_t *answer,
          lade_error_t *error)
{
    const json_t *record = json_object_get(job->state, "record");
    uint64_t inode = (uint64_t)lade_json_int(job->state, "inode", 0);
    lade_error_t other = {0};
    lade_code_t code = lade_place_mark(job->config, job->id, to, inode, error);
    if (!code)
        code = lade_place_publish(from, to, inode, error);
    if (code == LADE_EXISTS)
        return s_name_taken(job, from, answer, error);
    if (code == LADE_NOT_FOUND)
        return s_start_over(job, answer, error);
    if (!code && (code = lade_stage_check(job, error))) {
        // Another attempt may hold the job by now; then the files are where it wants them.
        if (job->stop(job->arg) != LADE_STOP_STALE && lade_place_withdraw(from, to, inode, &other))
            s_complain(job, &other);
    } else if (!code) {
        if (lade_place_empty(job->config, job->id, &other))
            s_complain(job, &other);
        lade_describe_done(record, to, answer);
        s_add_discard(job, to, answer);
        answer->undo = json_deep_copy(job->state);
        lade_stage_set_text(answer->undo, "step", "undo");
    }
    return code;
}

static lade_code_t
s_place(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *record = json_object_get(job->state, "record");
    const json_t *equal = lade_equal_find(job, "hash", lade_json_text(job->state, "hash", NULL));
    const char *from = lade_json_text(job->state, "from", "");
    char *to = lade_path_join(job->config->models_dir, lade_json_text(record, "path", ""));
    lade_stage_progress(job, lade_json_int(record, "file_size", 0),
                        lade_json_int(record, "file_size", 0), from);
    lade_code_t code = LADE_OK;
    bool linked =
        equal && lade_equal_links(job) && s_link_equal(job, equal, from, answer, &code, error);
    if (!linked && equal && !lade_equal_links(job))
        code = lade_equal_refuse(job, equal, answer, error);
    else if (!linked)
        code = lade_prepare_refuse_twice(job, record, from, error);
    if (code && !linked) // an earlier attempt may have come to the move
        lade_place_withdraw(from, to, (uint64_t)lade_json_int(job->state, "inode", 0), NULL);
    if (!code && !linked)
        code = s_publish(job, from, to, answer, error);
    free(to);
    return code;
}

// The broker took no record: somebody else's has the key or the path by now.
static lade_code_t
s_undo(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const json_t *record = json_object_get(job->state, "record");
    const json_t *refused = json_object_get(job->state, "refused");
    char *to = lade_path_join(job->config->models_dir, lade_json_text(record, "path", ""));
    lade_code_t code = lade_place_withdraw(lade_json_text(job->state, "from", ""), to,
                                           (uint64_t)lade_json_int(job->state, "inode", 0), error);
    answer->final = true;
    free(to);
    return code ? code
                : lade_error_set(error, lade_code_find(lade_json_text(refused, "code", "")), "%s",
                                 lade_json_text(refused, "message", "the record was refused"));
}

// ---------------------------------------------------------------------------------------------------
// Fetch: the downloads have ended

// What lade does not know stays in the cache, for an install that says what it is.
static lade_code_t
s_fetched(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    char *from = NULL;
    lade_code_t code = lade_fetch_check(job, &from, answer, error);
    if (!code && from)
        code = lade_prepare(job, from, job->state, job->state, answer, error);
    if (code == LADE_INVALID_MODEL_CONFIG && from && !lade_cache_keep(job, from, NULL))
        code = lade_error_wrap(error,
                               "%s is kept for an install that names type, base and format "
                               "(`lade install --config`)",
                               lade_json_text(job->state, "source", "what was fetched"));
    free(from);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The source

static lade_code_t
s_go_remote(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
            lade_error_t *error)
{
    const json_t *equal = lade_equal_find(job, "source", source->text);
    lade_code_t code = equal ? lade_equal_refuse(job, equal, answer, error)
                             : lade_place_claim(job->config, job->id, error);
    if (code || lade_cache_take(job, source->text, answer))
        return code;
    return lade_resolve_remote(job, source, answer, error);
}

// Remote: asks whether it was installed before, which may save the download.
static lade_code_t
s_begin_remote(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
               lade_error_t *error)
{
    json_t *ask = lade_json_bool(job->spec, "dry_run", false)
                      ? NULL
                      : lade_equal_ask_source(job, source->text);
    if (!ask)
        return s_go_remote(job, source, answer, error);
    answer->waits = true;
    answer->ask = ask;
    answer->state = json_pack("{s:s}", "step", "source");
    answer->jobs = json_array();
    return LADE_OK;
}

static lade_code_t
s_resolve(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    lade_source_t source = {0};
    json_t *overrides = NULL;
    bool asked = *lade_json_text(job->state, "step", "") != '\0';
    lade_code_t code = lade_stage_overrides(job, &overrides, error);
    if (!code)
        code = lade_resolve_source(job, &source, error);
    if (!code && source.kind == LADE_SOURCE_LOCAL)
        code = (asked ? lade_local_go : lade_local_begin)(job, &source, overrides, answer, error);
    else if (!code)
        code = (asked ? s_go_remote : s_begin_remote)(job, &source, answer, error);
    lade_source_free(&source);
    json_decref(overrides);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The step, and what is left behind when it fails

static const lade_step_t s_steps[] = {
    // clang-format off
    {"",       s_resolve},
    {"source", s_resolve}, // with answers
    {"local",  s_resolve}, // with answers
    {"fetch",  s_fetched},
    {"place",  s_place},
    {"undo",   s_undo},
    {NULL,     NULL},
    // clang-format on
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
    bool half = !*step || strcmp(step, "local") == 0;
    if (!again || half)
        s_remove_temp(job, fetched || strcmp(step, "source") == 0);
}

lade_code_t
lade_install_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    lade_code_t code = lade_stage_run(job, s_steps, answer, error);
    if (code)
        s_clean(job, answer, code);
    return code;
}
