// Remote sources: the hub's list, the selection, the download jobs.
#include "workers/install/resolve.h"

#include "common/log.h"
#include "common/metadata.h"
#include "common/path.h"
#include "common/tokens.h"
#include "common/wire.h"
#include "workers/install/civitai.h"
#include "workers/install/hub.h"
#include "workers/install/hubcache.h"
#include "workers/install/select.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { S_MAX_FILES = 1000 }; // of one install; they travel in one message

lade_code_t
lade_resolve_source(const lade_stage_t *job, lade_source_t *source, lade_error_t *error)
{
    const json_t *map = json_object_get(job->spec, "source");
    lade_code_t code = json_is_object(map) ? lade_source_from_map(map, source, error)
                                           : lade_source_parse(job->source, source, error);
    lade_civitai_ref_t ref = {0};
    bool page = !code && source->kind == LADE_SOURCE_URL &&
                lade_civitai_read(source->url, job->config->civitai_endpoint, &ref);
    lade_civitai_ref_free(&ref);
    return code || page ? code : lade_source_resolve_page(source, job->config->hub_endpoint, error);
}

json_t *
lade_resolve_download(const lade_stage_t *job, const json_t *file)
{
    const char *url = lade_json_text(file, "url", "");
    bool cached = json_object_get(file, "hub_url") != NULL;
    bool foreign = lade_json_bool(file, "foreign", false);
    json_t *spec = json_object(), *download = json_object();
    json_object_update(spec, (json_t *)file);
    json_object_del(spec, "hub_url");
    json_object_del(spec, "foreign");
    // The one that came with the job; that of the hub the download worker finds in its own
    // settings.
    if (!cached && !foreign)
        lade_stage_set_text(spec, "access_token", lade_json_text(job->spec, "access_token", NULL));
    lade_stage_set_text(download, "kind", "download");
    lade_stage_set_text(download, "source", url);
    // A model without one of its files is none; what the cache cannot give is fetched after all.
    json_object_set_new(download, "vital", json_boolean(!cached));
    json_object_set_new(download, "spec", spec);
    return download;
}

size_t
lade_resolve_leave_cache(const lade_stage_t *job, json_t *state, json_t *missing)
{
    json_t *files = json_object_get(state, "files");
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(missing) && !job->config->hub_offline; i++) {
        json_t *lost = json_array_get(missing, i);
        size_t at = 0;
        while (at < json_array_size(files) && !json_equal(json_array_get(files, at), lost))
            at++;
        json_t *file = json_array_get(files, at), *hub_url = json_object_get(file, "hub_url");
        if (!hub_url)
            continue;
        lade_log(LADE_LOG_WARNING, "install",
                 "job %" PRId64 ": the hub's cache could not give %s, so it is fetched", job->id,
                 lade_json_text(file, "path", "a file"));
        json_object_set(file, "url", hub_url);
        json_object_del(file, "hub_url");
        json_array_set(missing, i, file);
        count++;
    }
    return count;
}

void
lade_resolve_answer(const lade_stage_t *job, json_t *state, const char *local_path,
                    lade_answer_t *answer)
{
    const json_t *files = json_object_get(state, "files");
    int64_t total = 0;
    json_t *jobs = json_array(), *list = json_array();
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *file = json_array_get(files, i);
        json_t *size = json_object_get(file, "size");
        total += json_integer_value(size);
        json_array_append_new(jobs, lade_resolve_download(job, file));
        json_t *shown = json_object();
        lade_stage_set_text(shown, "path", lade_json_text(file, "path", NULL));
        lade_stage_set_text(shown, "url", lade_json_text(file, "url", NULL));
        json_object_set_new(shown, "size", size ? json_incref(size) : json_null());
        const char *sha256 = lade_json_text(file, "sha256", NULL);
        json_object_set_new(shown, "sha256", sha256 ? json_string(sha256) : json_null());
        json_array_append_new(list, shown);
    }
    if (lade_json_bool(job->spec, "dry_run", false)) {
        answer->result = json_pack("{s:O, s:I}", "files", list, "bytes", (json_int_t)total);
    } else {
        answer->waits = true;
        answer->state = json_incref(state);
        answer->jobs = json_incref(jobs);
        answer->total_bytes = total;
        answer->local_path = strdup(local_path);
    }
    json_decref(jobs);
    json_decref(list);
}

json_t *
lade_resolve_state(const lade_source_t *source)
{
    json_t *state = json_object();
    lade_stage_set_text(state, "step", "fetch");
    lade_stage_set_text(state, "source", source->text);
    lade_stage_set_text(state, "source_type", lade_source_type(source));
    json_object_set_new(state, "rounds", json_integer(1));
    json_object_set_new(state, "files", json_array());
    return state;
}

// ---------------------------------------------------------------------------------------------------
// URLs

static lade_code_t
s_resolve_url(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
              lade_error_t *error)
{
    if (job->config->hub_offline && lade_source_same_origin(source->url, job->config->hub_endpoint))
        return lade_error_set(error, LADE_OFFLINE,
                              "hub.offline (HF_HUB_OFFLINE) is set, so %s is not fetched",
                              source->url);
    char *temp = lade_stage_temp(job);
    json_t *state = lade_resolve_state(source), *file = json_object();
    lade_stage_set_text(file, "url", source->url);
    lade_stage_set_text(file, "destdir", temp); // the server says the name
    json_array_append_new(json_object_get(state, "files"), file);
    lade_resolve_answer(job, state, temp, answer);
    json_decref(state);
    free(temp);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Repositories

// What the selection is made from, and for.
typedef struct {
    const lade_stage_t *job;
    const lade_source_t *source;
    const char *variant;
    const char *cache;     // the repository's folder in the hub library's cache, or NULL
    lade_hub_repo_t *info; // what the repository holds
} s_repo_t;

// Where one file comes from: the cache if it has it, else the hub.
static json_t *
s_file(const s_repo_t *self, const lade_hub_file_t *file, const char *local)
{
    const lade_hub_repo_t *info = self->info;
    char *temp = lade_stage_temp(self->job), *destination = lade_path_join(temp, local);
    char *url =
        lade_hub_file_url(self->job->config, self->source->repo, info->revision, file->path);
    char *cached = self->cache ? lade_hubcache_url(self->cache, file) : NULL;
    if (!cached && info->cached)
        cached = lade_hubcache_snapshot_url(self->cache, info->revision, file->path);
    json_t *item = json_object();
    lade_stage_set_text(item, "path", file->path);
    lade_stage_set_text(item, "url", cached ? cached : url);
    lade_stage_set_text(item, "hub_url", cached ? url : NULL);
    lade_stage_set_text(item, "destination", destination);
    if (file->size >= 0)
        json_object_set_new(item, "size", json_integer(file->size));
    if (*file->sha256)
        lade_stage_set_text(item, "sha256", file->sha256);
    free(cached);
    free(url);
    free(destination);
    free(temp);
    return item;
}

static void
s_keep_metadata(const lade_stage_t *job, const lade_hub_repo_t *info, json_t *state)
{
    // The record travels a few times in one message (effect, result, saved state).
    char *text = lade_hub_describe(info, (size_t)job->config->max_message_bytes / 8);
    lade_stage_set_text(state, "source_api_response", text);
    free(text);
    json_t *metadata =
        lade_metadata_from_hub(info->info, job->config->hub_endpoint, info->revision);
    lade_metadata_fill(metadata, state);
    json_decref(metadata);
}

static void
s_plan(const s_repo_t *self, const lade_selection_t *selection, lade_answer_t *answer)
{
    json_t *state = lade_resolve_state(self->source);
    for (size_t i = 0; i < selection->count; i++)
        json_array_append_new(
            json_object_get(state, "files"),
            s_file(self, &self->info->files[selection->items[i].index], selection->items[i].local));
    if (!self->info->cached)
        s_keep_metadata(self->job, self->info, state);
    if (self->info->pinned)
        lade_stage_set_text(state, "source_revision", self->info->revision);
    char *temp = lade_stage_temp(self->job), *from = lade_path_join(temp, selection->top);
    lade_stage_set_text(state, "from", from);
    lade_resolve_answer(self->job, state, from, answer);
    free(from);
    free(temp);
    json_decref(state);
}

static lade_code_t
s_too_many(const s_repo_t *self, size_t count, lade_error_t *error)
{
    const char *repo = self->source->repo;
    return lade_error_set(
        error, LADE_TOO_LARGE,
        "%s has %zu files to fetch, more than %d: install a part of it as %s::FOLDER", repo, count,
        S_MAX_FILES, repo);
}

// sure: what the cache's list leaves open is an error too.
static lade_code_t
s_check_cached(const s_repo_t *self, const lade_selection_t *selection, bool sure,
               lade_error_t *error)
{
    char words[256] = "";
    bool known = false;
    bool whole = lade_hubcache_is_whole(self->cache, self->info->revision, self->info, selection,
                                        &known, words, sizeof words);
    if (whole && (known || !sure))
        return LADE_OK;
    return lade_error_set(error, LADE_OFFLINE,
                          "the hub's cache has not all of %s (%s is missing): unset "
                          "hub.offline (HF_HUB_OFFLINE) to fetch it, or install from a local path",
                          self->source->repo, *words ? words : "the list of its files");
}

static lade_code_t
s_select(const s_repo_t *self, bool sure, lade_answer_t *answer, lade_error_t *error)
{
    const lade_hub_repo_t *info = self->info;
    const char **paths = calloc(info->count + 1, sizeof *paths);
    for (size_t i = 0; i < info->count; i++)
        paths[i] = info->files[i].path;
    lade_selection_t selection;
    lade_code_t code = lade_select_files(paths, info->count, self->source->repo, self->variant,
                                         self->source->subfolder, &selection, error);
    if (code && info->cached) {
        error->code = code = LADE_OFFLINE;
        lade_error_wrap(error, "hub.offline (HF_HUB_OFFLINE) is set, and in the hub's cache");
    }
    if (!code && info->cached)
        code = s_check_cached(self, &selection, sure, error);
    if (!code && selection.count > S_MAX_FILES)
        code = s_too_many(self, selection.count, error);
    if (!code)
        s_plan(self, &selection, answer);
    lade_select_free(&selection);
    free(paths);
    return code;
}

// Without the network: from the snapshot of the revision that is asked for.
static lade_code_t
s_resolve_cached(s_repo_t *self, bool sure, lade_answer_t *answer, lade_error_t *error)
{
    const char *asked = self->source->revision;
    char commit[65] = "";
    bool there =
        self->cache &&
        ((!asked && *self->variant && lade_hubcache_commit(self->cache, self->variant, commit)) ||
         lade_hubcache_commit(self->cache, asked, commit));
    if (!there)
        return lade_error_set(
            error, LADE_OFFLINE,
            "hub.offline (HF_HUB_OFFLINE) is set and the hub's cache has no %s%s%s"
            ": unset it, name the cache in HF_HOME or hub.cache, or install from "
            "a local path",
            self->source->repo, asked ? "@" : "", asked ? asked : "");
    lade_code_t code =
        lade_hubcache_list(self->cache, self->source->repo, commit, &self->info, error);
    if (!code)
        code = s_select(self, sure, answer, error);
    lade_hub_repo_free(&self->info);
    return code;
}

// A gate shows at the files only. Who has no credentials at all need not try each of them.
static lade_code_t
s_check_gate(const s_repo_t *self, const char *token, lade_error_t *error)
{
    const lade_config_t *config = self->job->config;
    const json_t *gated = json_object_get(self->info->info, "gated");
    bool closed = json_is_true(gated) || json_string_length(gated) > 0;
    if (!closed || token || config->remote_tokens.count > 0 || (config->netrc && *config->netrc))
        return LADE_OK;
    return lade_error_set(error, LADE_LICENSE_GATE,
                          "%s is gated: accept its terms on %s/%s, then give a token of that "
                          "account (--token, HF_TOKEN or hub.token_file)",
                          self->source->repo, config->hub_endpoint, self->source->repo);
}

static lade_code_t
s_resolve_listed(s_repo_t *self, lade_answer_t *answer, lade_error_t *error)
{
    const lade_stage_t *job = self->job;
    const char *asked = self->source->revision;
    const char *revision = asked ? asked : *self->variant ? self->variant : NULL;
    char *token = lade_hub_token(job->config, lade_json_text(job->spec, "access_token", NULL));
    lade_hub_request_t request = {
        .config = job->config, .token = token, .stop = lade_stage_stopped, .arg = (void *)job};
    lade_code_t code =
        lade_hub_fetch(&request, self->source->repo, revision, asked != NULL, &self->info, error);
    answer->retry_after_s = request.retry_after_s;
    bool dry = lade_json_bool(job->spec, "dry_run", false);
    if (!code && !dry)
        code = s_check_gate(self, token, error);
    if (!code)
        code = s_select(self, false, answer, error);
    lade_hub_repo_free(&self->info);
    lade_tokens_wipe(&token);
    return code;
}

static bool
s_is_commit(const char *revision)
{
    return revision && strlen(revision) == 40 && strspn(revision, "0123456789abcdef") == 40;
}

static lade_code_t
s_resolve_repo(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
               lade_error_t *error)
{
    const char *preset = strcmp(job->config->precision, "float32") == 0 ? "" : "fp16";
    char *cache = lade_hubcache_open(job->config, source->repo);
    s_repo_t self = {.job = job,
                     .source = source,
                     .variant = source->variant ? source->variant : preset,
                     .cache = cache};
    lade_code_t code;
    if (job->config->hub_offline)
        code = s_resolve_cached(&self, false, answer, error);
    else if (cache && s_is_commit(source->revision)) {
        lade_error_t incomplete = {0};
        code = s_resolve_cached(&self, true, answer, &incomplete);
        if (code)
            code = s_resolve_listed(&self, answer, error);
    } else {
        code = s_resolve_listed(&self, answer, error);
    }
    free(cache);
    return code;
}

lade_code_t
lade_resolve_remote(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
                    lade_error_t *error)
{
    lade_civitai_ref_t ref = {0};
    if (source->kind == LADE_SOURCE_HUB)
        return s_resolve_repo(job, source, answer, error);
    lade_code_t code = lade_civitai_read(source->url, job->config->civitai_endpoint, &ref)
                           ? lade_resolve_civitai(job, source, &ref, answer, error)
                           : s_resolve_url(job, source, answer, error);
    lade_civitai_ref_free(&ref);
    return code;
}
