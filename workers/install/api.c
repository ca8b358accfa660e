// GET requests to the APIs of hubs, over libcurl.
#include "workers/install/api.h"

#include "common/proxy.h"
#include "common/tokens.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    S_MAX_BODY = 64 << 20, // bytes of one answer
    S_TIMEOUT_S = 120,     // for a whole answer
    S_MAX_REDIRECTS = 5,
};

void
lade_api_open(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

void
lade_api_close(void)
{
    curl_global_cleanup();
}

// ---------------------------------------------------------------------------------------------------
// URLs

void
lade_api_add_escaped(lade_buf_t *url, const char *path, bool keep_slashes)
{
    for (const char *at = path; *at; at++)
        if (isalnum((unsigned char)*at) || strchr("-._~", *at) || (keep_slashes && *at == '/'))
            lade_buf_add(url, at, 1, NULL);
        else
            lade_buf_addf(url, NULL, "%%%02X", (unsigned char)*at);
}

lade_buf_t
lade_api_url(const char *endpoint, const char *below)
{
    lade_buf_t url = LADE_BUF(64 << 10);
    size_t len = strlen(endpoint);
    while (len > 0 && endpoint[len - 1] == '/')
        len--;
    lade_buf_add(&url, endpoint, len, NULL);
    lade_buf_addf(&url, NULL, "%s", below);
    return url;
}

// ---------------------------------------------------------------------------------------------------
// One request

static size_t
s_on_body(char *bytes, size_t size, size_t count, void *arg)
{
    lade_api_answer_t *answer = arg;
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
    lade_api_answer_t *answer = arg;
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
    lade_api_request_t *request = ((lade_api_answer_t *)arg)->request;
    return request->stop && request->stop(request->arg);
}

// Every connection but one to a proxy: the name was looked up a moment ago, by libcurl.
static curl_socket_t
s_on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    lade_api_answer_t *answer = arg;
    (void)purpose; // always to connect
    if (lade_guard_check_address(answer->guard, answer->at.host, &address->addr, &answer->refused))
        return CURL_SOCKET_BAD;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// What holds for every request of a chain of redirects.
static void
s_set_options(CURL *curl, lade_api_answer_t *answer)
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
s_aim(CURL *curl, lade_api_answer_t *answer, const char *url)
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
    {CURLE_URL_MALFORMAT,            LADE_HTTP_ERROR,   "it is no URL"},
    {CURLE_PEER_FAILED_VERIFICATION, LADE_HTTP_ERROR,   "its certificate cannot be trusted; if it is your own, name its authority in download.ca_file"},
    {CURLE_SSL_CACERT_BADFILE,       LADE_CONFIG_ERROR, "download.ca_file cannot be read"},
    // clang-format on
};

static lade_code_t
s_failed(const lade_api_answer_t *answer, CURLcode result, const char *words, lade_error_t *error)
{
    const char *endpoint = answer->request->endpoint;
    if (answer->refused.code)
        return lade_error_set(error, answer->refused.code, "asking %s: %s", endpoint,
                              answer->refused.message);
    if (answer->too_large)
        return lade_error_set(error, LADE_TOO_LARGE, "the answer of %s is longer than %d MiB",
                              endpoint, S_MAX_BODY >> 20);
    if (result == CURLE_ABORTED_BY_CALLBACK)
        return lade_error_set(error, LADE_CANCELLED, "stopped while asking %s", endpoint);
    for (size_t i = 0; i < sizeof s_final / sizeof *s_final; i++)
        if (s_final[i].result == result)
            return lade_error_set(error, s_final[i].code, "%s could not be asked: %s", endpoint,
                                  s_final[i].words);
    return lade_error_set(error, LADE_NETWORK,
                          "%s could not be asked: %s (is %s right, is the network up?)", endpoint,
                          *words ? words : curl_easy_strerror(result), answer->request->setting);
}

// One request; *next_p is where the answer leads, NULL if it is the last one. Yours to free.
static lade_code_t
s_get_once(lade_api_answer_t *answer, CURL *curl, const char *url, char **next_p,
           lade_error_t *error)
{
    char words[CURL_ERROR_SIZE] = "", *next = NULL;
    if (lade_guard_check_url(answer->guard, url, error) ||
        lade_guard_split(url, &answer->at, error))
        return lade_error_wrap(error, "asking %s", answer->request->endpoint);
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
s_follow(lade_api_answer_t *answer, CURL *curl, const char *url, lade_error_t *error)
{
    const char *endpoint = answer->request->endpoint;
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

lade_code_t
lade_api_get(lade_api_request_t *request, const char *url, lade_api_answer_t *answer,
             lade_error_t *error)
{
    *answer = (lade_api_answer_t){.request = request, .body = LADE_BUF(S_MAX_BODY)};
    request->retry_after_s = 0;
    CURL *curl = curl_easy_init();
    if (!curl)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a request to %s",
                              answer->request->endpoint);
    s_set_options(curl, answer);
    lade_code_t code =
        lade_guard_new(&answer->guard, request->config->allow_addresses, request->endpoint, error);
    if (!code)
        code = s_follow(answer, curl, url, error);
    curl_easy_cleanup(curl);
    lade_guard_destroy(&answer->guard);
    return code;
}

void
lade_api_answer_free(lade_api_answer_t *self)
{
    lade_buf_free(&self->body);
}

json_t *
lade_api_json(const lade_api_answer_t *self)
{
    // jansson bounds the depth itself (JSON_PARSER_MAX_DEPTH); the length was bounded while it
    // came.
    return self->body.len ? json_loadb(self->body.data, self->body.len, 0, NULL) : NULL;
}
