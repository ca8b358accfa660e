// Metadata without an install.
#include "workers/install/metadata.h"

#include "common/metadata.h"
#include "common/tokens.h"
#include "common/wire.h"
#include "workers/install/civitai.h"
#include "workers/install/hub.h"
#include "workers/install/source.h"

#include <stdlib.h>
#include <string.h>

static lade_code_t
s_no_page(const char *text, const lade_config_t *config, lade_error_t *error)
{
    return lade_error_set(error, LADE_UNKNOWN_METADATA,
                          "'%.200s' does not look like a model's page: %s/ORG/NAME, "
                          "%s/models/NUMBER, or as an id ORG/NAME[@REVISION] or NUMBER",
                          text, config->hub_endpoint, config->civitai_endpoint);
}

// The result, with the whole answer in it as text as far as a message may be long.
static void
s_answer(json_t *metadata, char *response, lade_answer_t *answer)
{
    lade_stage_set_text(metadata, "api_response", response);
    free(response);
    answer->result = metadata;
}

static lade_code_t
s_of_civitai(const lade_stage_t *job, const lade_civitai_ref_t *ref, lade_answer_t *answer,
             lade_error_t *error)
{
    static const char *const long_ones[] = {"modelVersions", "images", "description", NULL};
    char *token = lade_civitai_token(job->config, lade_json_text(job->spec, "access_token", NULL));
    lade_civitai_request_t request = {
        .config = job->config, .token = token, .stop = lade_stage_stopped, .arg = (void *)job};
    lade_civitai_page_t page;
    lade_code_t code = lade_civitai_fetch(&request, ref, &page, error);
    answer->retry_after_s = request.retry_after_s;
    if (!code) {
        json_t *whole = json_pack("{s:O?, s:O}", "model", page.model, "version", page.version);
        s_answer(
            lade_metadata_from_civitai(page.model, page.version),
            lade_metadata_describe(whole, long_ones, (size_t)job->config->max_message_bytes / 4),
            answer);
        json_decref(whole);
    }
    lade_civitai_page_free(&page);
    lade_tokens_wipe(&token);
    return code;
}

static lade_code_t
s_of_hub(const lade_stage_t *job, const char *repo, const char *revision, lade_answer_t *answer,
         lade_error_t *error)
{
    char *token = lade_hub_token(job->config, lade_json_text(job->spec, "access_token", NULL));
    lade_hub_request_t request = {
        .config = job->config, .token = token, .stop = lade_stage_stopped, .arg = (void *)job};
    lade_hub_repo_t *info = NULL;
    lade_code_t code = lade_hub_fetch(&request, repo, revision, revision != NULL, &info, error);
    answer->retry_after_s = request.retry_after_s;
    if (!code)
        s_answer(lade_metadata_from_hub(info->info, job->config->hub_endpoint, info->revision),
                 lade_hub_describe(info, (size_t)job->config->max_message_bytes / 4), answer);
    lade_hub_repo_free(&info);
    lade_tokens_wipe(&token);
    return code;
}

static lade_code_t
s_of_url(const lade_stage_t *job, const char *url, lade_answer_t *answer, lade_error_t *error)
{
    const lade_config_t *config = job->config;
    lade_civitai_ref_t ref = {0};
    if (lade_civitai_read(url, config->civitai_endpoint, &ref)) {
        lade_code_t code = s_of_civitai(job, &ref, answer, error);
        lade_civitai_ref_free(&ref);
        return code;
    }
    lade_source_t source = {0};
    char *repo = lade_source_page_repo(url, config->hub_endpoint);
    json_t *map = json_pack("{s:s, s:o}", "type", "url", "url", json_string_nocheck(url));
    // A branch's page is that revision; of a file's page the repository is enough.
    if (repo && !lade_source_from_map(map, &source, NULL))
        lade_source_resolve_page(&source, config->hub_endpoint, NULL);
    lade_code_t code =
        repo ? s_of_hub(job, repo, source.revision, answer, error) : s_no_page(url, config, error);
    lade_source_free(&source);
    json_decref(map);
    free(repo);
    return code;
}

static lade_code_t
s_of_id(const lade_stage_t *job, const char *id, lade_answer_t *answer, lade_error_t *error)
{
    lade_civitai_ref_t ref = {0};
    size_t digits = strspn(id, "0123456789");
    if (digits > 0 && digits <= 15 && !id[digits]) {
        ref.model = strtoll(id, NULL, 10);
        return s_of_civitai(job, &ref, answer, error);
    }
    lade_source_t source = {0};
    char *text = strndup(id, strcspn(id, ":")), *at = strchr(text, '@');
    if (at)
        *at++ = '\0';
    json_t *map = json_pack("{s:s, s:o, s:o*}", "type", "hf", "repo_id", json_string_nocheck(text),
                            "revision", at ? json_string_nocheck(at) : NULL);
    lade_code_t code = lade_source_from_map(map, &source, NULL)
                           ? s_no_page(id, job->config, error)
                           : s_of_hub(job, source.repo, source.revision, answer, error);
    lade_source_free(&source);
    json_decref(map);
    free(text);
    return code;
}

lade_code_t
lade_metadata_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error)
{
    const char *url = lade_json_text(job->spec, "url", NULL);
    // A number of Civitai may come as one; the job's source has it as text.
    const char *id = json_object_get(job->spec, "id") ? job->source : NULL;
    if (!url == !id)
        return lade_error_set(error, LADE_VALUE_ERROR, "give one of url and id");
    return url ? s_of_url(job, url, answer, error) : s_of_id(job, id, answer, error);
}
