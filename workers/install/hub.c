// The hub's API over libcurl.
#include "workers/install/hub.h"

#include "common/log.h"
#include "common/tokens.h"
#include "common/wire.h"
#include "workers/install/api.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { S_MAX_FILES = 200000 }; // of one repository

static const int64_t S_MAX_SIZE = (int64_t)1 << 50; // of a file; a repository's sum fits

// ---------------------------------------------------------------------------------------------------
// Tokens

char *
lade_hub_token(const lade_config_t *config, const char *explicit_token)
{
    if (!explicit_token || !*explicit_token) {
        lade_buf_t url = lade_api_url(config->hub_endpoint, "/");
        char *token = lade_tokens_of_list(&config->remote_tokens, lade_buf_text(&url));
        lade_buf_free(&url);
        return token ? token : lade_tokens_of_hub(config->hub_token, config->hub_token_file);
    }
    char *token = lade_tokens_clean(explicit_token);
    if (!token)
        lade_log(LADE_LOG_WARNING, "hub",
                 "the token in the request is not one word of ASCII; it is left out");
    return token;
}

// ---------------------------------------------------------------------------------------------------
// URLs

char *
lade_hub_file_url(const lade_config_t *config, const char *repo, const char *revision,
                  const char *path)
{
    lade_buf_t url = lade_api_url(config->hub_endpoint, "/");
    lade_api_add_escaped(&url, repo, true);
    lade_buf_addf(&url, NULL, "/resolve/");
    lade_api_add_escaped(&url, revision, false);
    lade_buf_addf(&url, NULL, "/");
    lade_api_add_escaped(&url, path, true);
    return lade_buf_take(&url);
}

static char *
s_api_url(const lade_config_t *config, const char *repo, const char *revision)
{
    lade_buf_t url = lade_api_url(config->hub_endpoint, "/api/models/");
    lade_api_add_escaped(&url, repo, true);
    if (revision) {
        lade_buf_addf(&url, NULL, "/revision/");
        lade_api_add_escaped(&url, revision, false);
    }
    lade_buf_addf(&url, NULL, "?blobs=true");
    return lade_buf_take(&url);
}

// ---------------------------------------------------------------------------------------------------
// What a status means

static lade_code_t
s_no_repo(const lade_api_answer_t *answer, const char *repo, lade_error_t *error)
{
    return lade_error_set(
        error, LADE_UNKNOWN_METADATA,
        "'%s' not found on %s: check the spelling (a local path has to exist), or, if it is "
        "private, %s",
        repo, answer->request->endpoint,
        answer->request->token ? "take a token of an account that may see it"
                               : "give a token (--token, HF_TOKEN or hub.token_file)");
}

static lade_code_t
s_unauthorized(const lade_api_answer_t *answer, const char *repo, lade_error_t *error)
{
    if (strcmp(answer->error_code, "GatedRepo") == 0)
        return lade_error_set(
            error, LADE_LICENSE_GATE,
            "%s is gated: accept its terms on its page, then give a token of that account", repo);
    // The hub tells strangers 401 for what does not exist, so that they cannot find out what does.
    if (strcmp(answer->error_code, "RepoNotFound") == 0)
        return s_no_repo(answer, repo, error);
    if (answer->request->token)
        return lade_error_set(error, LADE_AUTH_DENIED,
                              "the hub does not accept the token for %s (status 401)", repo);
    return lade_error_set(
        error, LADE_AUTH_REQUIRED,
        "%s is private or does not exist: give a token (--token, HF_TOKEN or hub.token_file) or "
        "check the spelling",
        repo);
}

static lade_code_t
s_forbidden(const lade_api_answer_t *answer, const char *repo, lade_error_t *error)
{
    bool gated = strcmp(answer->error_code, "GatedRepo") == 0 ||
                 strcasestr(answer->error_message, "gated") ||
                 strcasestr(lade_buf_text(&answer->body), "gated");
    if (gated)
        return lade_error_set(
            error, LADE_LICENSE_GATE,
            "%s is gated: accept its terms on its page with the account of the token", repo);
    return lade_error_set(error, LADE_AUTH_DENIED, "the token may not read %s (status 403%s%s)",
                          repo, *answer->error_message ? ": " : "", answer->error_message);
}

static lade_code_t
s_check_status(const lade_api_answer_t *answer, const char *repo, lade_error_t *error)
{
    const char *endpoint = answer->request->endpoint;
    switch (answer->status) {
    case 200:
        return LADE_OK;
    case 404:
        return s_no_repo(answer, repo, error);
    case 401:
        return s_unauthorized(answer, repo, error);
    case 403:
        return s_forbidden(answer, repo, error);
    case 429:
        return lade_error_set(error, LADE_RATE_LIMITED, "%s asks to wait before more requests",
                              endpoint);
    case 408:
    case 500:
    case 502:
    case 503:
    case 504:
        return lade_error_set(error, LADE_NETWORK, "%s answered %ld for %s", endpoint,
                              answer->status, repo);
    default:
        return lade_error_set(error, LADE_HTTP_ERROR, "%s answered %ld for %s", endpoint,
                              answer->status, repo);
    }
}

// ---------------------------------------------------------------------------------------------------
// What the answer holds

static bool
s_is_hex(const char *text, size_t len)
{
    return strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

static void
s_read_file(const json_t *item, lade_hub_file_t *file)
{
    const json_t *lfs = json_object_get(item, "lfs");
    const char *digest = lade_json_text(lfs, "sha256", lade_json_text(lfs, "oid", ""));
    if (strncmp(digest, "sha256:", 7) == 0)
        digest += 7;
    file->path = lade_json_text(item, "rfilename", "");
    file->size = lade_json_int(item, "size", lade_json_int(lfs, "size", -1));
    file->sha256 = s_is_hex(digest, 64) ? digest : "";
    digest = json_is_object(lfs) ? "" : lade_json_text(item, "blobId", "");
    file->git = s_is_hex(digest, 40) ? digest : "";
    if (file->size < -1 || file->size > S_MAX_SIZE)
        file->size = -1;
}

static lade_code_t
s_read_files(lade_hub_repo_t *repo, const char *name, lade_error_t *error)
{
    const json_t *siblings = json_object_get(repo->info, "siblings");
    size_t count = json_array_size(siblings);
    if (count > S_MAX_FILES)
        return lade_error_set(error, LADE_TOO_LARGE, "%s has %zu files, more than %d", name, count,
                              S_MAX_FILES);
    repo->files = calloc(count + 1, sizeof *repo->files);
    for (size_t i = 0; i < count; i++) {
        s_read_file(json_array_get(siblings, i), &repo->files[repo->count]);
        repo->count += *repo->files[repo->count].path != '\0';
    }
    return LADE_OK;
}

lade_code_t
lade_hub_read(json_t *info, const char *name, const char *revision, lade_hub_repo_t **repo_p,
              lade_error_t *error)
{
    lade_hub_repo_t *repo = calloc(1, sizeof *repo);
    repo->info = info;
    const char *sha = lade_json_text(info, "sha", "");
    repo->pinned = s_is_hex(sha, 40) || s_is_hex(sha, 64);
    snprintf(repo->revision, sizeof repo->revision, "%s",
             repo->pinned ? sha
             : revision   ? revision
                          : "main");
    lade_code_t code = s_read_files(repo, name, error);
    if (code)
        lade_hub_repo_free(&repo);
    *repo_p = repo;
    return code;
}

static lade_code_t
s_read_info(const lade_api_answer_t *answer, const char *name, const char *revision,
            lade_hub_repo_t **repo_p, lade_error_t *error)
{
    json_t *info = lade_api_json(answer);
    if (json_is_object(info))
        return lade_hub_read(info, name, revision, repo_p, error);
    json_decref(info);
    return lade_error_set(error, LADE_CORRUPT,
                          "%s did not answer with JSON for %s%s; is hub.endpoint a hub?",
                          answer->request->endpoint, name, answer->html ? " but with a page" : "");
}

// *no_revision_p: the repository may be there, the revision is not.
static lade_code_t
s_ask(lade_hub_request_t *request, const char *repo, const char *revision, bool *no_revision_p,
      lade_hub_repo_t **repo_p, lade_error_t *error)
{
    lade_api_request_t ask = {.config = request->config,
                              .endpoint = request->config->hub_endpoint,
                              .setting = "hub.endpoint",
                              .token = request->token,
                              .stop = request->stop,
                              .arg = request->arg};
    lade_api_answer_t answer;
    char *url = s_api_url(request->config, repo, revision);
    lade_code_t code = lade_api_get(&ask, url, &answer, error);
    request->retry_after_s = ask.retry_after_s;
    *no_revision_p = !code && revision && (answer.status == 404 || answer.status == 400) &&
                     strcmp(answer.error_code, "RepoNotFound") != 0;
    if (!code)
        code = s_check_status(&answer, repo, error);
    if (!code)
        code = s_read_info(&answer, repo, revision, repo_p, error);
    lade_api_answer_free(&answer);
    free(url);
    return code;
}

lade_code_t
lade_hub_fetch(lade_hub_request_t *request, const char *repo, const char *revision, bool required,
               lade_hub_repo_t **repo_p, lade_error_t *error)
{
    *repo_p = NULL;
    if (request->config->hub_offline)
        return lade_error_set(
            error, LADE_OFFLINE,
            "hub.offline (HF_HUB_OFFLINE) is set, so %s cannot be looked up: unset it, or install "
            "from a local path",
            repo);
    bool no_revision = false;
    lade_code_t code = s_ask(request, repo, revision, &no_revision, repo_p, error);
    if (code && no_revision && required)
        return lade_error_set(error, LADE_UNKNOWN_REVISION,
                              "%s has no revision '%.100s': give a branch, a tag, a commit or "
                              "refs/pr/N of it, or leave it out for the newest",
                              repo, revision);
    if (code && no_revision)
        code = s_ask(request, repo, NULL, &no_revision, repo_p, error);
    return code;
}

void
lade_hub_repo_free(lade_hub_repo_t **repo_p)
{
    lade_hub_repo_t *repo = *repo_p;
    if (!repo)
        return;
    json_decref(repo->info);
    free(repo->files);
    free(repo);
    *repo_p = NULL;
}

char *
lade_hub_describe(const lade_hub_repo_t *repo, size_t max_bytes)
{
    char *text = json_dumps(repo->info, JSON_COMPACT);
    if (text && strlen(text) <= max_bytes)
        return text;
    free(text);
    json_t *less = json_object();
    static const char *const kept[] = {"id",           "author",       "sha", "lastModified",
                                       "pipeline_tag", "library_name", "tags"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (json_object_get(repo->info, kept[i]))
            json_object_set(less, kept[i], json_object_get(repo->info, kept[i]));
    text = json_dumps(less, JSON_COMPACT);
    json_decref(less);
    if (text && strlen(text) <= max_bytes)
        return text;
    free(text);
    return strdup("{}");
}
