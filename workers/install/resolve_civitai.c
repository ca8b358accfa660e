// Civitai's pages as sources: one file, and what the page says of it.
#include "common/metadata.h"
#include "common/path.h"
#include "common/tokens.h"
#include "common/wire.h"
#include "workers/install/place.h"
#include "workers/install/resolve.h"

#include <stdlib.h>
#include <string.h>

// "Model - version", unless the version is named like the model.
static void
s_set_name(const json_t *metadata, json_t *state)
{
    const char *model = lade_json_text(metadata, "name", ""),
               *version = lade_json_text(metadata, "version_name", "");
    if (*version && !strstr(model, version))
        json_object_set_new(state, "name", json_sprintf("%.300s - %.200s", model, version));
    else
        lade_stage_set_text(state, "name", model);
}

static void
s_keep_metadata(const lade_stage_t *job, const lade_civitai_page_t *page, json_t *state)
{
    static const char *const long_ones[] = {"modelVersions", "images", "description", NULL};
    json_t *answer = json_pack("{s:O?, s:O}", "model", page->model, "version", page->version);
    char *text =
        lade_metadata_describe(answer, long_ones, (size_t)job->config->max_message_bytes / 8);
    lade_stage_set_text(state, "source_api_response", text);
    free(text);
    json_decref(answer);
    json_t *metadata = lade_metadata_from_civitai(page->model, page->version);
    lade_metadata_fill(metadata, state);
    s_set_name(metadata, state);
    json_decref(metadata);
}

static void
s_plan(const lade_stage_t *job, const lade_source_t *source, const lade_civitai_page_t *page,
       const lade_civitai_file_t *found, lade_answer_t *answer)
{
    json_t *state = lade_resolve_state(source), *file = json_object();
    char *temp = lade_stage_temp(job), *name = lade_place_safe_name(found->name);
    char *destination = lade_path_join(temp, name);
    char *login = lade_civitai_login_words(job->config);
    lade_stage_set_text(file, "path", found->name);
    lade_stage_set_text(file, "url", found->url);
    lade_stage_set_text(file, "destination", destination);
    if (found->size >= 0)
        json_object_set_new(file, "size", json_integer(found->size));
    if (*found->sha256)
        lade_stage_set_text(file, "sha256", found->sha256);
    // Whoever answers the API names the download's address; a token is for the site alone.
    if (!lade_source_same_origin(found->url, job->config->civitai_endpoint))
        json_object_set_new(file, "foreign", json_true());
    json_array_append_new(json_object_get(state, "files"), file);
    s_keep_metadata(job, page, state);
    lade_stage_set_text(state, "login", login);
    lade_stage_set_text(state, "from", destination);
    lade_resolve_answer(job, state, destination, answer);
    free(login);
    free(destination);
    free(name);
    free(temp);
    json_decref(state);
}

lade_code_t
lade_resolve_civitai(const lade_stage_t *job, const lade_source_t *source,
                     const lade_civitai_ref_t *ref, lade_answer_t *answer, lade_error_t *error)
{
    char *token = lade_civitai_token(job->config, lade_json_text(job->spec, "access_token", NULL));
    lade_civitai_request_t request = {
        .config = job->config, .token = token, .stop = lade_stage_stopped, .arg = (void *)job};
    lade_civitai_page_t page;
    lade_civitai_file_t file;
    lade_code_t code = lade_civitai_fetch(&request, ref, &page, error);
    answer->retry_after_s = request.retry_after_s;
    if (!code)
        code = lade_civitai_pick(&page, ref, &file, error);
    if (!code && !lade_json_bool(job->spec, "dry_run", false))
        code = lade_civitai_check_access(&request, &page, error);
    if (!code)
        s_plan(job, source, &page, &file, answer);
    lade_civitai_page_free(&page);
    lade_tokens_wipe(&token);
    return code;
}
