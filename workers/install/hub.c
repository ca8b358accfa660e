// The hub's API over libcurl.
#include "workers/install/hub.h"

#include "common/guard.h"
#include "common/log.h"
#include "common/proxy.h"
#include "common/tokens.h"
#include "common/wire.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    S_MAX_BODY = 64 << 20, // bytes of one answer
    S_MAX_FILES = 200000,  // of one repository
    S_TIMEOUT_S = 120,     // for a whole answer
    S_MAX_REDIRECTS = 5,
};

static const int64_t S_MAX_SIZE = (int64_t)1 << 50; // of a file; a repository's sum fits

// What one request brought, and what is known while it is made.
typedef struct {
    lade_hub_request_t *request;
    lade_guard_t *guard;
    lade_guard_url_t first, at; // where it began, where a redirect led to
    lade_error_t refused;       // what the guard said of an address
    lade_buf_t body;
    bool too_large;
    long status;
    char error_code[64];     // X-Error-Code
    char error_message[200]; // X-Error-Message
    bool html;
} s_answer_t;

void
lade_hub_open(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

void
lade_hub_close(void)
{
    curl_global_cleanup();
}

// ---------------------------------------------------------------------------------------------------
// Tokens

char *
lade_hub_token(const lade_config_t *config, const char *explicit_token)
{
    if (!explicit_token || !*explicit_token)
        return lade_tokens_of_hub(config->hub_token, config->hub_token_file);
    char *token = lade_tokens_clean(explicit_token);
    if (!token)
        lade_log(LADE_LOG_WARNING, "hub",
                 "the token in the request is not one word of ASCII; it is left out");
    return token;
}

// ---------------------------------------------------------------------------------------------------
// URLs

static lade_code_t
s_add_escaped(lade_buf_t *url, const char *path, bool keep_slashes)
{
    for (const char *at = path; *at; at++)
        if (isalnum((unsigned char)*at) || strchr("-._~", *at) || (keep_slashes && *at == '/'))
            lade_buf_add(url, at, 1, NULL);
        else
            lade_buf_addf(url, NULL, "%%%02X", (unsigned char)*at);
    return LADE_OK;
}

static lade_buf_t
s_endpoint_url(const lade_config_t *config, const char *below)
{
    lade_buf_t url = LADE_BUF(64 << 10);
    size_t len = strlen(config->hub_endpoint);
    while (len > 0 && config->hub_endpoint[len - 1] == '/')
        len--;
    lade_buf_add(&url, config->hub_endpoint, len, NULL);
    lade_buf_addf(&url, NULL, "%s", below);
    return url;
}

char *
lade_hub_file_url(const lade_config_t *config, const char *repo, const char *revision,
                  const char *path)
{
    lade_buf_t url = s_endpoint_url(config, "/");
    s_add_escaped(&url, repo, true);
    lade_buf_addf(&url, NULL, "/resolve/");
    s_add_escaped(&url, revision, false);
    lade_buf_addf(&url, NULL, "/");
    s_add_escaped(&url, path, true);
    return lade_buf_take(&url);
}

static char *
s_api_url(const lade_config_t *config, const char *repo, const char *revision)
{
    lade_buf_t url = s_endpoint_url(config, "/api/models/");
    s_add_escaped(&url, repo, true);
    if (revision) {
        lade_buf_addf(&url, NULL, "/revision/");
        s_add_escaped(&url, revision, false);
    }
    lade_buf_addf(&url, NULL, "?blobs=true");
    return lade_buf_take(&url);
}

// ---------------------------------------------------------------------------------------------------
// One request

static size_t
s_on_body(char *bytes, size_t size, size_t count, void *arg)
{
    s_answer_t *answer = arg;
    if (lade_buf_add(&answer->body, bytes, size * count, NULL) == LADE_OK)
        return size * count;
    answer->too_large = true;
    return 0;
}

// The value of a header line if it is the one with that name, copied without its end of line.
static bool
s_header(const char *line, size_t len, const char *name, char *value, size_t size)
{
    size_t name_len = strlen(name);
    if (len <= name_len || strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
        return false;
    line += name_len + 1, len -= name_len + 1;
    while (len > 0 && (*line == ' ' || *line == '\t'))
        line++, len--;
    size_t out = 0;
    for (size_t i = 0; i < len && out + 1 < size && (unsigned char)line[i] >= ' '; i++)
        value[out++] = line[i];
    value[out] = '\0';
    return true;
}

static size_t
s_on_header(char *line, size_t size, size_t count, void *arg)
{
    s_answer_t *answer = arg;
    size_t len = size * count;
    char value[64];
    if (len > 5 && strncasecmp(line, "HTTP/", 5) == 0) { // a redirect's answer is over
        answer->error_code[0] = answer->error_message[0] = '\0';
        answer->html = false;
        lade_buf_clear(&answer->body);
    }
    s_header(line, len, "X-Error-Code", answer->error_code, sizeof answer->error_code);
    s_header(line, len, "X-Error-Message", answer->error_message, sizeof answer->error_message);
    // It goes into errors and logs; a hub may say there which token it means.
    const char *token = answer->request->token;
    lade_tokens_hide(answer->error_message, strlen(answer->error_message), token,
                     token ? strlen(token) : 0);
    if (s_header(line, len, "Content-Type", value, sizeof value))
        answer->html = strncasecmp(value, "text/html", 9) == 0;
    return len;
}

static int
s_on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
    (void)total, (void)now, (void)up_total, (void)up_now;
    lade_hub_request_t *request = ((s_answer_t *)arg)->request;
    return request->stop && request->stop(request->arg);
}

// Every connection but one to a proxy: the name was looked up a moment ago, by libcurl.
static curl_socket_t
s_on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    s_answer_t *answer = arg;
    (void)purpose; // always to connect
    if (lade_guard_check_address(answer->guard, answer->at.host, &address->addr, &answer->refused))
        return CURL_SOCKET_BAD;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// What holds for every request of a chain of redirects.
static void
s_set_options(CURL *curl, s_answer_t *answer)
{
    const lade_config_t *config = answer->request->config;
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(curl, CURLOPT_USERAGENT, config->user_agent);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)config->connect_timeout_s);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)config->stall_s);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)S_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, s_on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, s_on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, s_on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, answer);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "");
    if (config->ca_file && *config->ca_file) { // besides the system's folder of authorities
        curl_easy_setopt(curl, CURLOPT_CAINFO, config->ca_file);
        curl_easy_setopt(curl, CURLOPT_PROXY_CAINFO, config->ca_file);
    }
}

static bool
s_same_origin(const lade_guard_url_t *one, const lade_guard_url_t *other)
{
    return one->https == other->https && one->port == other->port &&
           strcmp(one->host, other->host) == 0;
}

// What holds for one of them: its URL, the way there, and the token if it is still the hub's.
static void
s_aim(CURL *curl, s_answer_t *answer, const char *url)
{
    const char *token = s_same_origin(&answer->at, &answer->first) ? answer->request->token : NULL;
    char *proxy = lade_proxy_for(answer->request->config->proxy, url);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, proxy);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, *proxy ? NULL : s_on_open);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, answer);
    curl_easy_setopt(curl, CURLOPT_HTTPAUTH, token ? CURLAUTH_BEARER : CURLAUTH_BASIC);
    curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, token);
    free(proxy);
}

// What asking again would not mend.
static const struct {
    CURLcode result;
    lade_code_t code;
    const char *words;
} s_final[] = {
    // clang-format off
    {CURLE_URL_MALFORMAT,            LADE_HTTP_ERROR,   "hub.endpoint is no URL"},
    {CURLE_PEER_FAILED_VERIFICATION, LADE_HTTP_ERROR,   "its certificate cannot be trusted; if it is your own, name its authority in download.ca_file"},
    {CURLE_SSL_CACERT_BADFILE,       LADE_CONFIG_ERROR, "download.ca_file cannot be read"},
    // clang-format on
};

static lade_code_t
s_failed(const s_answer_t *answer, CURLcode result, const char *words, lade_error_t *error)
{
    const char *endpoint = answer->request->config->hub_endpoint;
    if (answer->refused.code)
        return lade_error_set(error, answer->refused.code, "asking the hub %s: %s", endpoint,
                              answer->refused.message);
    if (answer->too_large)
        return lade_error_set(error, LADE_TOO_LARGE, "the hub's answer is longer than %d MiB",
                              S_MAX_BODY >> 20);
    if (result == CURLE_ABORTED_BY_CALLBACK)
        return lade_error_set(error, LADE_CANCELLED, "stopped while asking the hub");
    for (size_t i = 0; i < sizeof s_final / sizeof *s_final; i++)
        if (s_final[i].result == result)
            return lade_error_set(error, s_final[i].code, "the hub %s could not be asked: %s",
                                  endpoint, s_final[i].words);
    return lade_error_set(
        error, LADE_NETWORK,
        "the hub %s could not be asked: %s (is hub.endpoint right, is the network up?)", endpoint,
        *words ? words : curl_easy_strerror(result));
}

// One request; *next_p is where the answer leads, NULL if it is the last one. Yours to free.
static lade_code_t
s_get_once(s_answer_t *answer, CURL *curl, const char *url, char **next_p, lade_error_t *error)
{
    char words[CURL_ERROR_SIZE] = "", *next = NULL;
    if (lade_guard_check_url(answer->guard, url, error) ||
        lade_guard_split(url, &answer->at, error))
        return lade_error_wrap(error, "asking the hub %s", answer->request->config->hub_endpoint);
    if (!*answer->first.host)
        answer->first = answer->at;
    answer->refused.code = LADE_OK;
    s_aim(curl, answer, url);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, words);
    CURLcode result = curl_easy_perform(curl);
    curl_off_t wait_s = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->status);
    curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &wait_s);
    answer->request->retry_after_s = (double)(wait_s > 86400 ? 86400 : wait_s);
    if (result != CURLE_OK)
        return s_failed(answer, result, words, error);
    curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &next);
    *next_p = next ? strdup(next) : NULL;
    return LADE_OK;
}

// Runs the request and those its redirects lead to; LADE_OK means that an answer came, whatever its
// status. Redirects are followed here, as each has to pass the guard.
static lade_code_t
s_follow(s_answer_t *answer, CURL *curl, const char *url, lade_error_t *error)
{
    const char *endpoint = answer->request->config->hub_endpoint;
    char *at = strdup(url);
    lade_code_t code = LADE_OK;
    for (int hops = 0; !code && at; hops++) {
        char *next = NULL;
        code = s_get_once(answer, curl, at, &next, error);
        if (next && hops == S_MAX_REDIRECTS)
            code = lade_error_set(error, LADE_HTTP_ERROR, "%s redirects more than %d times",
                                  endpoint, S_MAX_REDIRECTS);
        // An answer over https must not continue in the clear.
        if (next && answer->first.https && strncasecmp(next, "https:", 6) != 0)
            code = lade_error_set(error, LADE_HTTP_ERROR, "%s redirects away from https", endpoint);
        free(at);
        at = next;
    }
    free(at);
    return code;
}

static lade_code_t
s_get(s_answer_t *answer, const char *url, lade_error_t *error)
{
    const lade_config_t *config = answer->request->config;
    CURL *curl = curl_easy_init();
    if (!curl)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a request to the hub");
    s_set_options(curl, answer);
    lade_code_t code =
        lade_guard_new(&answer->guard, config->allow_addresses, config->hub_endpoint, error);
    if (!code)
        code = s_follow(answer, curl, url, error);
    curl_easy_cleanup(curl);
    lade_guard_destroy(&answer->guard);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// What a status means

static lade_code_t
s_no_repo(const s_answer_t *answer, const char *repo, lade_error_t *error)
{
    return lade_error_set(
        error, LADE_UNKNOWN_METADATA,
        "'%s' not found on %s: check the spelling (a local path has to exist), or give a token "
        "that may see it",
        repo, answer->request->config->hub_endpoint);
}

static lade_code_t
s_unauthorized(const s_answer_t *answer, const char *repo, lade_error_t *error)
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
s_forbidden(const s_answer_t *answer, const char *repo, lade_error_t *error)
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
s_check_status(const s_answer_t *answer, const char *repo, lade_error_t *error)
{
    const char *endpoint = answer->request->config->hub_endpoint;
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

static lade_code_t
s_read_info(const s_answer_t *answer, const char *name, const char *revision,
            lade_hub_repo_t **repo_p, lade_error_t *error)
{
    json_error_t wrong;
    // jansson bounds the depth itself (JSON_PARSER_MAX_DEPTH); the length was bounded while it
    // came.
    json_t *info =
        answer->body.len ? json_loadb(answer->body.data, answer->body.len, 0, &wrong) : NULL;
    if (!json_is_object(info)) {
        json_decref(info);
        return lade_error_set(
            error, LADE_CORRUPT, "%s did not answer with JSON for %s%s; is hub.endpoint a hub?",
            answer->request->config->hub_endpoint, name, answer->html ? " but with a page" : "");
    }
    lade_hub_repo_t *repo = calloc(1, sizeof *repo);
    repo->info = info;
    const char *sha = lade_json_text(info, "sha", "");
    snprintf(repo->revision, sizeof repo->revision, "%s",
             s_is_hex(sha, 40) || s_is_hex(sha, 64) ? sha
             : revision                             ? revision
                                                    : "main");
    lade_code_t code = s_read_files(repo, name, error);
    if (code)
        lade_hub_repo_free(&repo);
    *repo_p = repo;
    return code;
}

static lade_code_t
s_ask(lade_hub_request_t *request, const char *repo, const char *revision, bool *no_revision_p,
      lade_hub_repo_t **repo_p, lade_error_t *error)
{
    s_answer_t answer = {.request = request, .body = LADE_BUF(S_MAX_BODY)};
    char *url = s_api_url(request->config, repo, revision);
    lade_code_t code = s_get(&answer, url, error);
    *no_revision_p = !code && revision && (answer.status == 404 || answer.status == 400) &&
                     strcmp(answer.error_code, "RepoNotFound") != 0;
    if (!code)
        code = s_check_status(&answer, repo, error);
    if (!code)
        code = s_read_info(&answer, repo, revision, repo_p, error);
    lade_buf_free(&answer.body);
    free(url);
    return code;
}

lade_code_t
lade_hub_fetch(lade_hub_request_t *request, const char *repo, const char *revision,
               lade_hub_repo_t **repo_p, lade_error_t *error)
{
    *repo_p = NULL;
    if (request->config->hub_offline)
        return lade_error_set(
            error, LADE_OFFLINE,
            "hub.offline (HF_HUB_OFFLINE) is set, so %s cannot be looked up: unset it, or install "
            "from a local path",
            repo);
    bool no_revision;
    lade_code_t code = s_ask(request, repo, revision, &no_revision, repo_p, error);
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
