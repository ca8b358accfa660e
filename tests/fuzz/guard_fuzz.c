// Any text as a URL: what the guard lets through is, to libcurl, a URL of the same host, and if
// that host is written as an address, a public one. And any text as an allow-list or a proxy is
// taken or refused.
#include "common/guard.h"
#include "common/proxy.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
s_expect(bool always)
{
    if (!always)
        abort();
}

static bool
s_is_public(const lade_guard_t *guard, const char *host, bool *literal_p)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};
    bool is_ipv4 = inet_aton(host, &ipv4.sin_addr), // whatever the system's resolver takes for one
        is_ipv6 = !is_ipv4 && inet_pton(AF_INET6, host, &ipv6.sin6_addr) == 1;
    *literal_p = is_ipv4 || is_ipv6;
    const struct sockaddr *address =
        is_ipv4 ? (const struct sockaddr *)&ipv4 : (const struct sockaddr *)&ipv6;
    return !*literal_p || lade_guard_check_address(guard, "h", address, NULL) == LADE_OK;
}

static void
s_compare(const lade_guard_t *guard, const char *url, const lade_guard_url_t *parts)
{
    char *host = NULL, *scheme = NULL, *port = NULL;
    bool literal;
    CURLU *handle = curl_url();
    if (curl_url_set(handle, CURLUPART_URL, url, 0) == CURLUE_OK) {
        s_expect(curl_url_get(handle, CURLUPART_HOST, &host, CURLU_URLDECODE) == CURLUE_OK);
        s_expect(curl_url_get(handle, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK);
        s_expect(curl_url_get(handle, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK);
        size_t size = strlen(host);
        char *bare = *host == '[' ? strndup(host + 1, size - 2) : strdup(host);
        bare[strcspn(bare, "%")] = '\0';
        size = strlen(bare);
        if (size > 1 && bare[size - 1] == '.')
            bare[size - 1] = '\0';
        s_expect(s_is_public(guard, bare, &literal));
        s_expect(literal || strcasecmp(bare, parts->host) == 0);
        s_expect(strcasecmp(scheme, parts->https ? "https" : "http") == 0);
        s_expect(strtoul(port, NULL, 10) == parts->port);
        free(bare);
    }
    curl_free(host);
    curl_free(scheme);
    curl_free(port);
    curl_url_cleanup(handle);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    lade_guard_t *guard = NULL, *other = NULL;
    lade_guard_url_t parts;
    char *text = strndup((const char *)data, len);
    s_expect(lade_guard_new(&guard, "", text, NULL) == LADE_OK);
    lade_guard_destroy(&guard);
    s_expect(lade_guard_new(&guard, "", NULL, NULL) == LADE_OK);
    if (lade_guard_check_url(guard, text, NULL) == LADE_OK) {
        s_expect(lade_guard_split(text, &parts, NULL) == LADE_OK);
        s_compare(guard, text, &parts);
    }
    if (lade_guard_new(&other, text, NULL, NULL) == LADE_OK)
        lade_guard_check_url(other, "http://10.0.0.1/", NULL);
    if (lade_proxy_check(text, NULL) == LADE_OK)
        free(lade_proxy_for(text, "http://h/"));
    free(lade_proxy_for("", text));
    lade_guard_destroy(&other);
    lade_guard_destroy(&guard);
    free(text);
    return 0;
}
