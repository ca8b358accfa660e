// Remote sources: the hub's list, the selection, the download jobs.
#include "workers/install/resolve.h"

#include "common/path.h"
#include "common/tokens.h"
#include "common/wire.h"
#include "workers/install/hub.h"
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
    return code ? code : lade_source_resolve_page(source, job->config->hub_endpoint, error);
}

json_t *
lade_resolve_download(const lade_stage_t *job, const json_t *file)
{
    const char *url = lade_json_text(file, "url", "");
    json_t *spec = json_object(), *download = json_object();
    json_object_update(spec, (json_t *)file);
    // The one that came with the job; that of the hub the download worker finds in its own
    // settings.
    lade_stage_set_text(spec, "access_token", lade_json_text(job->spec, "access_token", NULL));
    lade_stage_set_text(download, "kind", "download");
    lade_stage_set_text(download, "source", url);
    json_object_set_new(download, "vital", json_true()); // a model without one of its files is none
    json_object_set_new(download, "spec", spec);
    return download;
}

// AWAIT for the files, or, in a dry run, DONE with their list.
static void
s_answer(const lade_stage_t *job, json_t *state, const char *local_path, lade_answer_t *answer)
{
    const json_t *files = json_object_get(state, "files");
    int64_t total = 0;
    json_t *jobs = json_array(), *list = json_array();
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *file = json_array_get(files, i);
        int64_t size = lade_json_int(file, "size", 0);
        total += size;
        json_array_append_new(jobs, lade_resolve_download(job, file));
        json_t *shown = json_object();
        lade_stage_set_text(shown, "path", lade_json_text(file, "path", NULL));
        lade_stage_set_text(shown, "url", lade_json_text(file, "url", NULL));
        json_object_set_new(shown, "size", size ? json_integer(size) : json_null());
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

static json_t *
s_new_state(const lade_source_t *source)
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
    json_t *state = s_new_state(source), *file = json_object();
    lade_stage_set_text(file, "url", source->url);
    lade_stage_set_text(file, "destdir", temp); // the server says the name
    json_array_append_new(json_object_get(state, "files"), file);
    s_answer(job, state, temp, answer);
    json_decref(state);
    free(temp);
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Repositories

static json_t *
s_file(const lade_stage_t *job, const char *repo, const lade_hub_repo_t *info,
       const lade_hub_file_t *file, const char *local)
{
    char *temp = lade_stage_temp(job), *destination = lade_path_join(temp, local);
    char *url = lade_hub_file_url(job->config, repo, info->revision, file->path);
    json_t *item = json_object();
    lade_stage_set_text(item, "path", file->path);
    lade_stage_set_text(item, "url", url);
    lade_stage_set_text(item, "destination", destination);
    if (file->size >= 0)
        json_object_set_new(item, "size", json_integer(file->size));
    if (*file->sha256)
        lade_stage_set_text(item, "sha256", file->sha256);
    free(url);
    free(destination);
    free(temp);
    return item;
}

// The hub's tags, as far as they are short text.
static json_t *
s_tags(const lade_hub_repo_t *info)
{
    enum { MAX_TAGS = 200, MAX_TAG = 200 };
    const json_t *tags = json_object_get(info->info, "tags");
    json_t *taken = json_array();
    for (size_t i = 0; i < json_array_size(tags) && json_array_size(taken) < MAX_TAGS; i++) {
        json_t *tag = json_array_get(tags, i);
        size_t len = json_string_length(tag);
        if (json_is_string(tag) && len > 0 && len <= MAX_TAG &&
            strlen(json_string_value(tag)) == len)
            json_array_append(taken, tag);
    }
    return taken;
}

static void
s_keep_metadata(const lade_stage_t *job, const lade_hub_repo_t *info, json_t *state)
{
    // The record travels a few times in one message (effect, result, saved state).
    char *text = lade_hub_describe(info, (size_t)job->config->max_message_bytes / 8);
    lade_stage_set_text(state, "source_api_response", text);
    free(text);
    json_object_set_new(state, "tags", s_tags(info));
    const char *words = lade_json_text(info->info, "description", NULL);
    if (!words)
        words = lade_json_text(json_object_get(info->info, "cardData"), "description", NULL);
    if (words && *words && strlen(words) <= 4096)
        lade_stage_set_text(state, "description", words);
}

static lade_code_t
s_select(const lade_stage_t *job, const lade_source_t *source, const char *variant,
         const lade_hub_repo_t *info, lade_answer_t *answer, lade_error_t *error)
{
    const char **paths = calloc(info->count + 1, sizeof *paths);
    for (size_t i = 0; i < info->count; i++)
        paths[i] = info->files[i].path;
    lade_selection_t selection;
    lade_code_t code = lade_select_files(paths, info->count, source->repo, variant,
                                         source->subfolder, &selection, error);
    if (!code && selection.count > S_MAX_FILES)
        code = lade_error_set(
            error, LADE_TOO_LARGE,
            "%s has %zu files to fetch, more than %d: install a part of it as %s::FOLDER",
            source->repo, selection.count, S_MAX_FILES, source->repo);
    if (!code) {
        json_t *state = s_new_state(source);
        for (size_t i = 0; i < selection.count; i++)
            json_array_append_new(json_object_get(state, "files"),
                                  s_file(job, source->repo, info,
                                         &info->files[selection.items[i].index],
                                         selection.items[i].local));
        s_keep_metadata(job, info, state);
        char *temp = lade_stage_temp(job), *from = lade_path_join(temp, selection.top);
        lade_stage_set_text(state, "from", from);
        s_answer(job, state, from, answer);
        free(from);
        free(temp);
        json_decref(state);
    }
    lade_select_free(&selection);
    free(paths);
    return code;
}

static lade_code_t
s_resolve_repo(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
               lade_error_t *error)
{
    const char *preset = strcmp(job->config->precision, "float32") == 0 ? "" : "fp16";
    const char *variant = source->variant ? source->variant : preset;
    char *token = lade_hub_token(job->config, lade_json_text(job->spec, "access_token", NULL));
    lade_hub_request_t request = {
        .config = job->config, .token = token, .stop = lade_stage_stopped, .arg = (void *)job};
    lade_hub_repo_t *info = NULL;
    lade_code_t code =
        lade_hub_fetch(&request, source->repo, *variant ? variant : NULL, &info, error);
    answer->retry_after_s = request.retry_after_s;
    if (!code)
        code = s_select(job, source, variant, info, answer, error);
    lade_hub_repo_free(&info);
    lade_tokens_wipe(&token);
    return code;
}

lade_code_t
lade_resolve_remote(const lade_stage_t *job, const lade_source_t *source, lade_answer_t *answer,
                    lade_error_t *error)
{
    return source->kind == LADE_SOURCE_HUB ? s_resolve_repo(job, source, answer, error)
                                           : s_resolve_url(job, source, answer, error);
}
