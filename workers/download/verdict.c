// Two tables. What is in neither is the network's fault (libcurl) or the server's refusal (HTTP).
#include "workers/download/verdict.h"

#include <inttypes.h>
#include <string.h>

static const struct {
    CURLcode curl;
    lade_code_t code;
    const char *words; // after "HOST: "
} s_curl[] = {
    // clang-format off
    {CURLE_COULDNT_RESOLVE_HOST,     LADE_NETWORK,     "the name is not known; check it and the DNS"},
    {CURLE_COULDNT_RESOLVE_PROXY,    LADE_NETWORK,     "the proxy's name is not known; check download.proxy, or http_proxy and https_proxy"},
    {CURLE_COULDNT_CONNECT,          LADE_NETWORK,     "cannot connect"},
    {CURLE_PARTIAL_FILE,             LADE_NETWORK,     "the connection was closed before the end"},
    {CURLE_GOT_NOTHING,              LADE_NETWORK,     "the connection was closed without an answer"},
    {CURLE_SSL_CONNECT_ERROR,        LADE_NETWORK,     "TLS could not be set up"},
    {CURLE_PEER_FAILED_VERIFICATION, LADE_HTTP_ERROR,  "its certificate cannot be trusted; if it is your own, name its authority in download.ca_file"},
    {CURLE_SSL_CACERT_BADFILE,       LADE_CONFIG_ERROR, "download.ca_file cannot be read"},
    {CURLE_UNSUPPORTED_PROTOCOL,     LADE_NETWORK,     "what it answers is not HTTP"},
    {CURLE_URL_MALFORMAT,            LADE_VALUE_ERROR, "the URL is malformed"},
    {CURLE_TOO_MANY_REDIRECTS,       LADE_HTTP_ERROR,  "it redirects in a circle (more than 10 times)"},
    {CURLE_BAD_CONTENT_ENCODING,     LADE_HTTP_ERROR,  "the body cannot be decoded"},
    {CURLE_OUT_OF_MEMORY,            LADE_NO_MEMORY,   "no memory for the transfer"},
    // clang-format on
};

static const struct {
    int status;
    lade_code_t code;
    const char *words; // after "HOST answered STATUS: "
} s_status[] = {
    // clang-format off
    {401, LADE_AUTH_REQUIRED, "it wants an access token (--token, HF_TOKEN or hub.token)"},
    {402, LADE_AUTH_DENIED,   "it wants to be paid first"},
    {403, LADE_AUTH_DENIED,   "it refuses access; check that the token may read this"},
    {404, LADE_NOT_FOUND,     "there is nothing at that URL"},
    {407, LADE_HTTP_ERROR,    "the proxy wants a login; put it into download.proxy (http://USER:PASSWORD@HOST:PORT)"},
    {408, LADE_NETWORK,       "it waited too long for the request"},
    {410, LADE_NOT_FOUND,     "what was at that URL is gone for good"},
    {425, LADE_NETWORK,       "it asks to try again"},
    {429, LADE_RATE_LIMITED,  "too many requests; it goes on when the time is over"},
    {451, LADE_AUTH_DENIED,   "it may not give this out, for legal reasons"},
    {500, LADE_NETWORK,       "it failed"},
    {502, LADE_NETWORK,       "a server behind it failed"},
    {503, LADE_NETWORK,       "it is not available at the moment"},
    {504, LADE_NETWORK,       "a server behind it did not answer in time"},
    // clang-format on
};

static lade_code_t
s_timeout(const lade_verdict_facts_t *facts, lade_error_t *error)
{
    if (facts->connected)
        return lade_error_set(error, LADE_STALLED,
                              "%s: almost nothing came for %" PRId64
                              " s (download.stall_s, download.low_speed_bytes)",
                              facts->host, facts->stall_s);
    return lade_error_set(error, LADE_NETWORK,
                          "%s: no connection after %" PRId64 " s (download.connect_timeout_s)",
                          facts->host, facts->connect_timeout_s);
}

lade_code_t
lade_verdict_curl(CURLcode code, const lade_verdict_facts_t *facts, lade_error_t *error)
{
    if (code == CURLE_OPERATION_TIMEDOUT)
        return s_timeout(facts, error);
    const char *detail = *facts->detail ? facts->detail : curl_easy_strerror(code);
    for (size_t i = 0; i < sizeof s_curl / sizeof *s_curl; i++)
        if (s_curl[i].curl == code)
            return lade_error_set(error, s_curl[i].code, "%s: %s (%s)", facts->host,
                                  s_curl[i].words, detail);
    return lade_error_set(error, LADE_NETWORK, "%s: %s", facts->host, detail);
}

lade_code_t
lade_verdict_status(const lade_headers_t *headers, const lade_verdict_facts_t *facts,
                    lade_error_t *error)
{
    int status = headers->status;
    const char *hub = headers->error_code ? headers->error_code : "";
    if (strcmp(hub, "GatedRepo") == 0)
        return lade_error_set(
            error, LADE_LICENSE_GATE,
            "%s answered %d: the repository is gated; accept its terms on its page%s", facts->host,
            status,
            facts->token ? " with the account of the token" : " and give that account's token");
    if (status == 401 && facts->token)
        return lade_error_set(error, LADE_AUTH_REQUIRED,
                              "%s answered 401: it does not accept the token; is it current?",
                              facts->host);
    if (status == 503 && headers->retry_after_s >= 0)
        return lade_error_set(error, LADE_RATE_LIMITED, "%s answered 503: it asks to wait %.0f s",
                              facts->host, headers->retry_after_s);
    for (size_t i = 0; i < sizeof s_status / sizeof *s_status; i++)
        if (s_status[i].status == status)
            return lade_error_set(error, s_status[i].code, "%s answered %d: %s%s%.100s%s",
                                  facts->host, status, s_status[i].words, *hub ? " (" : "", hub,
                                  *hub ? ")" : "");
    return lade_error_set(error, status >= 505 ? LADE_NETWORK : LADE_HTTP_ERROR,
                          "%s answered %d, which is no file", facts->host, status);
}

bool
lade_verdict_keeps(lade_code_t code)
{
    return lade_code_retry(code) && code != LADE_SIZE_MISMATCH && code != LADE_RANGE_REFUSED;
}
