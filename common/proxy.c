// Proxies: from the setting or from the environment, as libcurl reads it.
#include "common/proxy.h"

#include "common/guard.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *
s_variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

// HTTP_PROXY is left out on purpose: to a CGI program it is a header of its client.
static const char *
s_of_environment(bool https)
{
    static const char *const names[2][4] = {
        {"http_proxy", "all_proxy", "ALL_PROXY"},
        {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}};
    for (size_t i = 0; i < 4 && names[https][i]; i++)
        if (s_variable(names[https][i]))
            return s_variable(names[https][i]);
    return "";
}

// Whether the host is the name, or below it.
static bool
s_is_below(const char *host, const char *name, size_t len)
{
    if (len > 0 && name[len - 1] == '.')
        len--;
    size_t host_len = strlen(host);
    if (len == 0 || host_len < len || strncasecmp(host + host_len - len, name, len) != 0)
        return false;
    return host_len == len || host[host_len - len - 1] == '.';
}

// Whether the host is written as an address and is within ADDRESS or ADDRESS/BITS.
static bool
s_is_within(const char *host, const char *entry)
{
    char text[64];
    unsigned char address[16], prefix[16];
    const char *slash = strchr(entry, '/');
    size_t len = slash ? (size_t)(slash - entry) : strlen(entry);
    int family = strchr(host, ':') ? AF_INET6 : AF_INET;
    unsigned long most = family == AF_INET6 ? 128 : 32,
                  bits = slash ? strtoul(slash + 1, NULL, 10) : most;
    bool brackets = len > 2 && *entry == '[' && entry[len - 1] == ']';
    if (len >= sizeof text || bits > most || (slash && !isdigit((unsigned char)slash[1])))
        return false;
    memcpy(text, entry + brackets, len);
    text[len - 2 * brackets] = '\0';
    if (inet_pton(family, host, address) != 1 || inet_pton(family, text, prefix) != 1)
        return false;
    size_t whole = bits / 8, rest = bits % 8;
    return memcmp(address, prefix, whole) == 0 &&
           (!rest || (address[whole] ^ prefix[whole]) >> (8 - rest) == 0);
}

static bool
s_is_excepted(const char *host)
{
    const char *list = s_variable("no_proxy");
    list = list ? list : s_variable("NO_PROXY");
    char *copy = strdup(list ? list : ""), *rest = copy, *entry;
    bool found = strcmp(copy, "*") == 0;
    while (!found && (entry = strsep(&rest, ", "))) {
        const char *name = entry + (*entry == '.');
        found = s_is_below(host, name, strlen(name)) || s_is_within(host, entry);
    }
    free(copy);
    return found;
}

char *
lade_proxy_for(const char *setting, const char *url)
{
    if (setting && *setting)
        return strdup(setting);
    lade_guard_url_t parts;
    if (lade_guard_split(url, &parts, NULL) || s_is_excepted(parts.host))
        return strdup("");
    return strdup(s_of_environment(parts.https));
}

lade_code_t
lade_proxy_check(const char *setting, lade_error_t *error)
{
    static const char *const schemes[] = {"http",    "https",  "socks4",
                                          "socks4a", "socks5", "socks5h"};
    const char *end = strstr(setting, "://"), *from = end ? end + 3 : setting;
    bool fine = !end;
    for (size_t i = 0; end && i < sizeof schemes / sizeof *schemes; i++)
        fine = fine || (strlen(schemes[i]) == (size_t)(end - setting) &&
                        strncasecmp(schemes[i], setting, (size_t)(end - setting)) == 0);
    for (const char *at = setting; *at; at++)
        fine = fine && (unsigned char)*at > ' ' && *at != 0x7f;
    // What is left has the form of a URL's host; the guard reads that as strictly.
    lade_guard_url_t parts;
    char *url = malloc(strlen(from) + 8);
    strcpy(stpcpy(url, "http://"), from);
    size_t len = 7 + strcspn(from, "/?#");
    fine = fine && lade_guard_split(url, &parts, NULL) == LADE_OK &&
           (url[len] == '\0' || strcmp(url + len, "/") == 0);
    free(url);
    if (*setting && !fine)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "download.proxy is no proxy: write http://HOST:PORT (or https, "
                              "socks4, socks4a, socks5, socks5h)");
    return LADE_OK;
}
