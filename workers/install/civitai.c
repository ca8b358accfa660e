// Civitai's API.
#include "workers/install/civitai.h"

#include "common/tokens.h"
#include "common/wire.h"
#include "workers/install/api.h"
#include "workers/install/source.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const char *const s_terms[] = {"type", "format", "size", "fp"};
enum { S_TERMS = sizeof s_terms / sizeof *s_terms };

// ---------------------------------------------------------------------------------------------------
// Addresses

// What follows SITE in the URL ("/models/…"), NULL if it is not of the site.
static const char *
s_below(const char *url, const char *endpoint)
{
    static const char *const sites[] = {"https://civitai.com", "https://www.civitai.com",
                                        "http://civitai.com", "http://www.civitai.com"};
    size_t len = strlen(endpoint);
    while (len > 0 && endpoint[len - 1] == '/')
        len--;
    if (lade_source_same_origin(url, endpoint) && strncasecmp(url, endpoint, len) == 0)
        return url[len] == '/' ? url + len : NULL;
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
        if (lade_source_same_origin(url, sites[i])) {
            const char *slash = strchr(strstr(url, "://") + 3, '/');
            return slash;
        }
    return NULL;
}

// The number a part of a path is, 0 if it is none.
static int64_t
s_number(const char *text)
{
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len > 15 || !strchr("/?#", text[len]))
        return 0;
    return strtoll(text, NULL, 10);
}

// The value of a term of the query, decoded; NULL if it is not there. You free it.
static char *
s_query(const char *url, const char *name)
{
    const char *at = strchr(url, '?');
    size_t len = strlen(name);
    while (at && *at && *at != '#') {
        at++;
        size_t end = strcspn(at, "&#");
        if (end > len && strncasecmp(at, name, len) == 0 && at[len] == '=') {
            char *value = strndup(at + len + 1, end - len - 1), *out = value;
            for (char *in = value; *in; in++, out++) {
                const char hex[] = {in[0] == '%' ? in[1] : '\0', in[1] ? in[2] : '\0', '\0'};
                *out = *in == '+' ? ' ' : *in;
                if (strlen(hex) == 2 && strspn(hex, "0123456789abcdefABCDEF") == 2) {
                    *out = (char)strtoul(hex, NULL, 16);
                    in += 2;
                }
            }
            *out = '\0';
            return value;
        }
        at += end;
    }
    return NULL;
}

bool
lade_civitai_read(const char *url, const char *endpoint, lade_civitai_ref_t *ref)
{
    static const struct {
        const char *start;
        bool version, terms;
    } forms[] = {
        {"/models/", false, false},
        {"/model-versions/", true, false},
        {"/api/v1/models/", false, false},
        {"/api/v1/model-versions/", true, false},
        {"/api/download/models/", true, true},
    };
    *ref = (lade_civitai_ref_t){0};
    const char *below = endpoint && *endpoint ? s_below(url, endpoint) : NULL;
    for (size_t i = 0; below && i < sizeof forms / sizeof *forms; i++) {
        size_t len = strlen(forms[i].start);
        int64_t number = strncmp(below, forms[i].start, len) == 0 ? s_number(below + len) : 0;
        if (!number)
            continue;
        *(forms[i].version ? &ref->version : &ref->model) = number;
        char *version = forms[i].version ? NULL : s_query(url, "modelVersionId");
        if (version)
            ref->version = s_number(version);
        free(version);
        for (size_t term = 0; forms[i].terms && term < S_TERMS; term++)
            ref->terms[term] = s_query(url, s_terms[term]);
        return true;
    }
    return false;
}

void
lade_civitai_ref_free(lade_civitai_ref_t *ref)
{
    for (size_t i = 0; i < S_TERMS; i++)
        free(ref->terms[i]);
    *ref = (lade_civitai_ref_t){0};
}

// ---------------------------------------------------------------------------------------------------
// Asking

char *
lade_civitai_token(const lade_config_t *config, const char *explicit_token)
{
    if (explicit_token && *explicit_token)
        return lade_tokens_clean(explicit_token);
    lade_buf_t url = lade_api_url(config->civitai_endpoint, "/");
    char *token = lade_tokens_of_list(&config->remote_tokens, lade_buf_text(&url));
    lade_buf_free(&url);
    return token ? token
                 : lade_tokens_of_civitai(config->civitai_token, config->civitai_token_file);
}

char *
lade_civitai_login_words(const lade_config_t *config)
{
    char *words;
    if (asprintf(&words,
                 "Civitai gives it only to who is logged in (and, in early access, has bought it): "
                 "make an API key on %s/user/account and give it as --token, civitai.token_file or "
                 "CIVITAI_API_TOKEN",
                 config->civitai_endpoint) < 0)
        abort();
    return words;
}

static lade_code_t
s_check_status(const lade_civitai_request_t *request, const lade_api_answer_t *answer,
               const char *what, lade_error_t *error)
{
    const char *endpoint = request->config->civitai_endpoint;
    char *words;
    lade_code_t code;
    switch (answer->status) {
    case 200:
        return LADE_OK;
    case 404:
        return lade_error_set(error, LADE_UNKNOWN_METADATA,
                              "%s has no %s: is the address right, has it been taken down?",
                              endpoint, what);
    case 401:
    case 403:
        words = lade_civitai_login_words(request->config);
        code = lade_error_set(error, request->token ? LADE_AUTH_DENIED : LADE_AUTH_REQUIRED,
                              "%s (status %ld): %s", what, answer->status, words);
        free(words);
        return code;
    case 429:
        return lade_error_set(error, LADE_RATE_LIMITED, "%s asks to wait before more requests",
                              endpoint);
    default:
        return lade_error_set(
            error, answer->status >= 500 || answer->status == 408 ? LADE_NETWORK : LADE_HTTP_ERROR,
            "%s answered %ld for %s", endpoint, answer->status, what);
    }
}

// One answer of the API, a map. kind is "models" or "model-versions".
static lade_code_t
s_ask(lade_civitai_request_t *request, const char *kind, int64_t id, json_t **answer_p,
      lade_error_t *error)
{
    lade_api_request_t ask = {.config = request->config,
                              .endpoint = request->config->civitai_endpoint,
                              .setting = "civitai.endpoint",
                              .token = request->token,
                              .stop = request->stop,
                              .arg = request->arg};
    lade_buf_t url = lade_api_url(request->config->civitai_endpoint, "/api/v1/");
    lade_buf_addf(&url, NULL, "%s/%" PRId64, kind, id);
    char what[64];
    snprintf(what, sizeof what, "%s %" PRId64, kind[5] == 's' ? "model" : "model version", id);
    lade_api_answer_t answer;
    lade_code_t code = lade_api_get(&ask, lade_buf_text(&url), &answer, error);
    request->retry_after_s = ask.retry_after_s;
    if (!code)
        code = s_check_status(request, &answer, what, error);
    *answer_p = code ? NULL : lade_api_json(&answer);
    if (!code && !json_is_object(*answer_p)) {
        json_decref(*answer_p);
        *answer_p = NULL;
        code = lade_error_set(
            error, LADE_CORRUPT, "%s did not answer with JSON for %s%s; is civitai.endpoint right?",
            request->config->civitai_endpoint, what, answer.html ? " but with a page" : "");
    }
    lade_api_answer_free(&answer);
    lade_buf_free(&url);
    return code;
}

// The version of the model's answer: that of the id, or the first, which is the newest.
static lade_code_t
s_choose(const lade_civitai_ref_t *ref, lade_civitai_page_t *page, lade_error_t *error)
{
    const json_t *versions = json_object_get(page->model, "modelVersions");
    size_t count = json_array_size(versions), at = 0;
    while (ref->version && at < count &&
           lade_json_int(json_array_get(versions, at), "id", 0) != ref->version)
        at++;
    page->version = json_incref(json_array_get(versions, at));
    if (page->version)
        return LADE_OK;
    if (ref->version)
        return lade_error_set(error, LADE_UNKNOWN_METADATA,
                              "'%.100s' has no version %" PRId64
                              "; it has %zu, the newest is %" PRId64,
                              lade_json_text(page->model, "name", "the model"), ref->version, count,
                              lade_json_int(json_array_get(versions, 0), "id", 0));
    return lade_error_set(error, LADE_UNKNOWN_METADATA, "'%.100s' has no published version (%s)",
                          lade_json_text(page->model, "name", "the model"),
                          lade_json_text(page->model, "mode", "it may be a draft"));
}

lade_code_t
lade_civitai_fetch(lade_civitai_request_t *request, const lade_civitai_ref_t *ref,
                   lade_civitai_page_t *page, lade_error_t *error)
{
    *page = (lade_civitai_page_t){0};
    if (request->config->hub_offline)
        return lade_error_set(error, LADE_OFFLINE,
                              "hub.offline (HF_HUB_OFFLINE) is set, so Civitai is not asked: unset "
                              "it, or install from a local path");
    if (ref->model) {
        lade_code_t code = s_ask(request, "models", ref->model, &page->model, error);
        return code ? code : s_choose(ref, page, error);
    }
    lade_code_t code = s_ask(request, "model-versions", ref->version, &page->version, error);
    int64_t model = lade_json_int(page->version, "modelId", 0);
    if (code || !model)
        return code;
    // Creator, tags and license are the model's. One that is gone leaves the version as it is.
    lade_error_t gone = {0};
    code = s_ask(request, "models", model, &page->model, &gone);
    if (code == LADE_UNKNOWN_METADATA)
        return LADE_OK;
    if (code)
        lade_error_set(error, code, "%s", gone.message);
    return code;
}

void
lade_civitai_page_free(lade_civitai_page_t *page)
{
    json_decref(page->model);
    json_decref(page->version);
    *page = (lade_civitai_page_t){0};
}

// True if the date has not come yet; as ISO dates in UTC sort.
static bool
s_is_future(const char *date)
{
    char now[32];
    time_t seconds = time(NULL);
    struct tm tm;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
    return date && strncmp(date, now, strlen(now)) > 0;
}

lade_code_t
lade_civitai_check_access(const lade_civitai_request_t *request, const lade_civitai_page_t *page,
                          lade_error_t *error)
{
    const char *until = lade_json_text(page->version, "earlyAccessEndsAt", NULL);
    bool early = strcmp(lade_json_text(page->version, "availability", ""), "EarlyAccess") == 0 ||
                 s_is_future(until);
    if (!early || request->token)
        return LADE_OK;
    char *words = lade_civitai_login_words(request->config);
    lade_error_set(error, LADE_AUTH_REQUIRED, "early access%s%.10s: %s", until ? " until " : "",
                   until ? until : "", words);
    free(words);
    return LADE_AUTH_REQUIRED;
}

// ---------------------------------------------------------------------------------------------------
// The file

static const char *
s_term_of(const json_t *file, size_t term)
{
    return term == 0 ? lade_json_text(file, "type", "")
                     : lade_json_text(json_object_get(file, "metadata"), s_terms[term], "");
}

static bool
s_fits(const json_t *file, const lade_civitai_ref_t *ref)
{
    for (size_t i = 0; i < S_TERMS; i++)
        if (ref->terms[i] && *ref->terms[i] && strcasecmp(ref->terms[i], s_term_of(file, i)) != 0)
            return false;
    return true;
}

// What a model is made of comes before training data, configurations and archives.
static int
s_rank(const json_t *file)
{
    const char *type = lade_json_text(file, "type", "");
    return lade_json_bool(file, "primary", false)  ? 3
           : strcasecmp(type, "Model") == 0        ? 2
           : strcasecmp(type, "Pruned Model") == 0 ? 1
                                                   : 0;
}

static const json_t *
s_choose_file(const json_t *files, const lade_civitai_ref_t *ref)
{
    bool named = false;
    const json_t *best = NULL;
    for (size_t i = 0; i < S_TERMS; i++)
        named = named || (ref->terms[i] && *ref->terms[i]);
    for (size_t i = 0; i < json_array_size(files); i++) {
        const json_t *file = json_array_get(files, i);
        if (s_fits(file, ref) && (named || s_rank(file) > 0) &&
            (!best || s_rank(file) > s_rank(best)))
            best = file;
    }
    return best;
}

static lade_code_t
s_no_file(const json_t *files, const lade_civitai_ref_t *ref, lade_error_t *error)
{
    lade_buf_t words = LADE_BUF(4096);
    bool named = false;
    lade_buf_addf(&words, NULL, "the version has no file");
    for (size_t i = 0; i < S_TERMS; i++)
        if (ref->terms[i] && *ref->terms[i]) {
            lade_buf_addf(&words, NULL, "%s %s=%.40s", named ? "," : " with", s_terms[i],
                          ref->terms[i]);
            named = true;
        }
    lade_buf_addf(&words, NULL, json_array_size(files) ? "; it has" : " that may be downloaded");
    for (size_t i = 0; i < json_array_size(files) && i < 4; i++)
        lade_buf_addf(&words, NULL, "%s %.50s (%.20s)", i ? "," : "",
                      lade_json_text(json_array_get(files, i), "name", "?"),
                      lade_json_text(json_array_get(files, i), "type", "?"));
    lade_error_set(error, LADE_NOT_FOUND, "%s", lade_buf_text(&words));
    lade_buf_free(&words);
    return LADE_NOT_FOUND;
}

// sizeKB is the size in 1024s; where it is no whole number of bytes it was rounded.
static int64_t
s_size(const json_t *file)
{
    double bytes = lade_json_real(file, "sizeKB", -1) * 1024;
    return bytes > 0 && bytes < 0x1p50 && fabs(bytes - round(bytes)) < 0.001 ? (int64_t)round(bytes)
                                                                             : -1;
}

lade_code_t
lade_civitai_pick(const lade_civitai_page_t *page, const lade_civitai_ref_t *ref,
                  lade_civitai_file_t *file, lade_error_t *error)
{
    const json_t *files = json_object_get(page->version, "files");
    const json_t *found = s_choose_file(files, ref);
    *file = (lade_civitai_file_t){.size = -1};
    if (!found)
        return s_no_file(files, ref, error);
    file->name = lade_json_text(found, "name", "model.safetensors");
    file->url = lade_json_text(found, "downloadUrl", "");
    file->size = s_size(found);
    const char *sha256 = lade_json_text(json_object_get(found, "hashes"), "SHA256", "");
    if (strlen(sha256) == 64 && strspn(sha256, "0123456789abcdefABCDEF") == 64)
        for (size_t i = 0; i < 64; i++)
            file->sha256[i] = (char)tolower((unsigned char)sha256[i]);
    if (strncmp(file->url, "http://", 7) != 0 && strncmp(file->url, "https://", 8) != 0)
        return lade_error_set(error, LADE_CORRUPT, "%.100s has no download address", file->name);
    static const char *const scans[] = {"virusScanResult", "pickleScanResult"};
    for (size_t i = 0; i < 2; i++)
        if (strcmp(lade_json_text(found, scans[i], ""), "Danger") == 0)
            return lade_error_set(
                error, LADE_UNSAFE_FILE,
                "Civitai's scanner calls %.100s dangerous (%s): it is not fetched", file->name,
                scans[i]);
    return LADE_OK;
}
