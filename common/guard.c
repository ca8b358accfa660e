// Which URLs and addresses may be asked for.
#include "common/guard.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    S_MAX_ENTRIES = 1000, // of an allow-list
    S_MAX_HOST = 255,     // bytes of a name
    S_MAPPED_BITS = 96,   // of ::ffff:0:0/96: addresses of both kinds are kept as IPv6 ones
};

static const char S_BETWEEN[] = ", \t\n"; // entries of an allow-list

typedef struct {
    unsigned char bytes[16];
} s_address_t;

typedef struct {
    s_address_t address;
    unsigned bits;
} s_range_t;

struct lade_guard {
    bool any;
    s_range_t *ranges;
    size_t range_count;
    char **hosts; // lower case, without a dot at the end
    size_t host_count;
    bool has_own;
    lade_guard_url_t own;
};

// ---------------------------------------------------------------------------------------------------
// Addresses

static bool
s_within(const s_address_t *address, const unsigned char *prefix, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(address->bytes, prefix, whole) != 0)
        return false;
    return !rest || ((address->bytes[whole] ^ prefix[whole]) >> (8 - rest)) == 0;
}

static s_address_t
s_of_ipv4(const unsigned char ipv4[4])
{
    s_address_t address = {{[10] = 0xff, [11] = 0xff}};
    memcpy(address.bytes + 12, ipv4, 4);
    return address;
}

// What is not global unicast among IPv4 (IANA's registry of special-purpose addresses).
static bool
s_public_ipv4(const unsigned char ipv4[4])
{
    static const struct {
        unsigned char prefix[4], bits;
    } closed[] = {
        // clang-format off
        {{0, 0, 0, 0},       8},  // this network
        {{10, 0, 0, 0},      8},  // private
        {{100, 64, 0, 0},    10}, // shared by a carrier's customers
        {{127, 0, 0, 0},     8},  // loopback
        {{169, 254, 0, 0},   16}, // link-local, and where clouds tell secrets
        {{172, 16, 0, 0},    12}, // private
        {{192, 0, 0, 0},     24}, // protocol assignments
        {{192, 0, 2, 0},     24}, // documentation
        {{192, 88, 99, 0},   24}, // 6to4 relays that were
        {{192, 168, 0, 0},   16}, // private
        {{198, 18, 0, 0},    15}, // benchmarks
        {{198, 51, 100, 0},  24}, // documentation
        {{203, 0, 113, 0},   24}, // documentation
        {{224, 0, 0, 0},     4},  // multicast
        {{240, 0, 0, 0},     4},  // reserved, broadcast
        // clang-format on
    };
    s_address_t address = s_of_ipv4(ipv4);
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        s_address_t prefix = s_of_ipv4(closed[i].prefix);
        if (s_within(&address, prefix.bytes, S_MAPPED_BITS + closed[i].bits))
            return false;
    }
    return true;
}

// The same among IPv6: only 2000::/3 is given out, and these parts of it are not for hosts.
static bool
s_public_ipv6(const s_address_t *address)
{
    static const struct {
        unsigned char prefix[4], bits;
    } closed[] = {
        // clang-format off
        {{0x20, 0x01, 0x00, 0x00}, 23}, // protocol assignments, with Teredo, ORCHID, benchmarks
        {{0x20, 0x01, 0x0d, 0xb8}, 32}, // documentation
        {{0x3f, 0xff, 0x00, 0x00}, 20}, // documentation
        // clang-format on
    };
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++)
        if (s_within(address, closed[i].prefix, closed[i].bits))
            return false;
    return (address->bytes[0] & 0xe0) == 0x20;
}

// If packets for this address end at an IPv4 one: that one, as every address is kept. Else itself.
static s_address_t
s_unwrapped(const s_address_t *address)
{
    static const struct {
        unsigned char prefix[12], bits, at;
    } wraps[] = {
        {{[1] = 0x64, [2] = 0xff, [3] = 0x9b}, 96, 12}, // NAT64
        {{0x20, 0x02}, 16, 2},                          // 6to4
    };
    for (size_t i = 0; i < sizeof wraps / sizeof *wraps; i++)
        if (s_within(address, wraps[i].prefix, wraps[i].bits))
            return s_of_ipv4(address->bytes + wraps[i].at);
    return *address;
}

static const unsigned char *
s_mapped(const s_address_t *address)
{
    static const unsigned char prefix[12] = {[10] = 0xff, [11] = 0xff};
    return s_within(address, prefix, S_MAPPED_BITS) ? address->bytes + 12 : NULL;
}

// An interface identifier that ISATAP made out of an IPv4 address, under any prefix.
static const unsigned char *
s_isatap(const s_address_t *address)
{
    static const unsigned char mark[4] = {0x00, 0x00, 0x5e, 0xfe};
    const unsigned char *at = address->bytes + 8;
    return (at[0] & 0xfd) == mark[0] && memcmp(at + 1, mark + 1, 3) == 0 ? at + 4 : NULL;
}

static bool
s_public(const s_address_t *address)
{
    const unsigned char *ipv4 = s_mapped(address), *within = s_isatap(address);
    if (ipv4)
        return s_public_ipv4(ipv4);
    return s_public_ipv6(address) && (!within || s_public_ipv4(within));
}

static bool
s_in_ranges(const lade_guard_t *self, const s_address_t *address)
{
    for (size_t i = 0; i < self->range_count; i++)
        if (s_within(address, self->ranges[i].address.bytes, self->ranges[i].bits))
            return true;
    return false;
}

static bool
s_reachable(const lade_guard_t *self, const s_address_t *address)
{
    s_address_t inner = s_unwrapped(address);
    return self->any || s_in_ranges(self, address) || s_in_ranges(self, &inner) || s_public(&inner);
}

// ---------------------------------------------------------------------------------------------------
// Addresses as text

// One number of an IPv4 address: decimal or 0x hexadecimal. A zero in front makes it octal to some
// readers and not to others, so that one address would be checked and another one asked: refused.
static bool
s_read_number(const char *text, size_t len, uint64_t *number_p)
{
    bool hex = len > 1 && text[0] == '0' && text[1] == 'x';
    if (hex)
        text += 2, len -= 2;
    else if (len == 0 || (len > 1 && text[0] == '0'))
        return false;
    *number_p = 0; // "0x" is a zero
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (*number_p > UINT32_MAX || !(hex ? isxdigit(c) : isdigit(c)))
            return false;
        *number_p = *number_p * (hex ? 16 : 10) + (unsigned)(isdigit(c) ? c - '0' : c - 'a' + 10);
    }
    return true;
}

// 1 to 4 numbers with dots, in lower case, the last of which fills what is left: "127.1",
// "2130706433".
static bool
s_read_ipv4(const char *text, unsigned char ipv4[4])
{
    uint64_t numbers[4], value = 0;
    size_t count = 0;
    for (const char *at = text;; at++) {
        size_t len = strcspn(at, ".");
        if (count == 4 || !s_read_number(at, len, &numbers[count++]))
            return false;
        at += len;
        if (!*at)
            break;
    }
    for (size_t i = 0; i + 1 < count; i++) {
        if (numbers[i] > 255)
            return false;
        value = value << 8 | numbers[i];
    }
    unsigned left = 8 * (unsigned)(5 - count);
    if (numbers[count - 1] >> left)
        return false;
    value = value << left | numbers[count - 1];
    for (size_t i = 0; i < 4; i++)
        ipv4[i] = (unsigned char)(value >> (24 - 8 * i));
    return true;
}

static bool
s_read_ipv6(const char *text, s_address_t *address)
{
    char bare[S_MAX_HOST + 1];
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(text, "%"), text); // a zone is no matter here
    return inet_pton(AF_INET6, bare, address->bytes) == 1;
}

// Whether a reader would take the (lower-case) name for an IPv4 address: its last part is a number.
static bool
s_ends_in_number(const char *host)
{
    const char *dot = strrchr(host, '.'), *last = dot ? dot + 1 : host;
    bool hex = strncmp(last, "0x", 2) == 0;
    const char *digits = hex ? last + 2 : last;
    return (hex || *last) &&
           digits[strspn(digits, hex ? "0123456789abcdef" : "0123456789")] == '\0';
}

typedef enum { S_NAME, S_LITERAL, S_NEITHER } s_kind_t;

// What a host is, and the address it is written as.
static s_kind_t
s_read_host(const char *host, s_address_t *address)
{
    unsigned char ipv4[4];
    size_t len = strlen(host);
    if (strchr(host, ':'))
        return s_read_ipv6(host, address) ? S_LITERAL : S_NEITHER;
    if (s_ends_in_number(host)) {
        if (!s_read_ipv4(host, ipv4))
            return S_NEITHER;
        *address = s_of_ipv4(ipv4);
        return S_LITERAL;
    }
    // Never anything but this machine (RFC 6761), whoever resolves it.
    if (strcmp(host, "localhost") == 0 ||
        (len > 10 && strcmp(host + len - 10, ".localhost") == 0)) {
        *address = s_of_ipv4((const unsigned char[4]){127, 0, 0, 1});
        return S_LITERAL;
    }
    return S_NAME;
}

// Lower case, and without the dot that only says that a name is whole.
static void
s_fold(char *host)
{
    size_t len = strlen(host);
    if (len > 1 && host[len - 1] == '.')
        host[len - 1] = '\0';
    for (; *host; host++)
        *host = (char)tolower((unsigned char)*host);
}

// ---------------------------------------------------------------------------------------------------
// URLs

static bool
s_is_name_char(unsigned char c)
{
    return isalnum(c) || c == '-' || c == '_' || c == '.';
}

// Undoes percent-encoding; false for what no host can have in it.
static bool
s_decode_host(const char *text, size_t len, char *host, size_t size)
{
    size_t out = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '%') {
            if (i + 2 >= len || !isxdigit((unsigned char)text[i + 1]) ||
                !isxdigit((unsigned char)text[i + 2]))
                return false;
            const char digits[] = {text[i + 1], text[i + 2], '\0'};
            c = (unsigned char)strtoul(digits, NULL, 16);
            i += 2;
        }
        if (!s_is_name_char(c) || out + 1 >= size)
            return false;
        host[out++] = (char)c;
    }
    host[out] = '\0';
    bool fine = out > 0 && *host != '.' && !strstr(host, "..");
    s_fold(host);
    return fine;
}

// The text between brackets.
static bool
s_copy_ipv6(const char *text, size_t len, char *host, size_t size)
{
    s_address_t address;
    if (len + 1 > size || memchr(text, '\0', len))
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    s_fold(host);
    return strchr(host, ':') && s_read_ipv6(host, &address);
}

static bool
s_read_port(const char *text, size_t len, unsigned *port)
{
    unsigned number = 0;
    if (len == 0) // "host:" has the scheme's
        return true;
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)text[i]) || number > 65535)
            return false;
        number = number * 10 + (unsigned)(text[i] - '0');
    }
    *port = number;
    return number > 0 && number <= 65535;
}

static lade_code_t
s_unsafe(lade_error_t *error, const char *why)
{
    return lade_error_set(error, LADE_UNSAFE_URL, "the URL %s", why);
}

// HOST[:PORT], after the user and before the path.
static lade_code_t
s_split_host(const char *text, size_t len, lade_guard_url_t *parts, lade_error_t *error)
{
    const char *end = text + len, *host_end;
    bool fine;
    if (len > 0 && *text == '[') {
        host_end = memchr(text, ']', len);
        fine = host_end && s_copy_ipv6(text + 1, (size_t)(host_end - text - 1), parts->host,
                                       sizeof parts->host);
        host_end = host_end ? host_end + 1 : end;
    } else {
        host_end = memchr(text, ':', len);
        host_end = host_end ? host_end : end;
        fine = s_decode_host(text, (size_t)(host_end - text), parts->host, sizeof parts->host);
    }
    if (!fine)
        return s_unsafe(error, "has no host that is a plain name or an address (a name in other "
                               "letters is written as xn--…)");
    if (host_end < end && (*host_end != ':' ||
                           !s_read_port(host_end + 1, (size_t)(end - host_end - 1), &parts->port)))
        return s_unsafe(error, "has a port that is no number from 1 to 65535");
    return LADE_OK;
}

lade_code_t
lade_guard_split(const char *url, lade_guard_url_t *parts, lade_error_t *error)
{
    *parts = (lade_guard_url_t){0};
    parts->https = strncasecmp(url, "https://", 8) == 0;
    if (!parts->https && strncasecmp(url, "http://", 7) != 0)
        return s_unsafe(error, "has to begin with http:// or https://");
    parts->port = parts->https ? 443 : 80;
    const char *from = strchr(url, ':') + 3;
    size_t len = strcspn(from, "/?#");
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)from[i] <= ' ' || (unsigned char)from[i] >= 0x7f || from[i] == '\\')
            return s_unsafe(error, "has a character before its path that may not be there");
    const char *at = memchr(from, '@', len);
    if (at) { // readers disagree on which of two separates the user from the host
        len -= (size_t)(at + 1 - from);
        from = at + 1;
        if (memchr(from, '@', len))
            return s_unsafe(error, "has more than one @ before its path");
    }
    return s_split_host(from, len, parts, error);
}

// ---------------------------------------------------------------------------------------------------
// The allow-list

static void
s_add_range(lade_guard_t *self, const s_address_t *address, unsigned bits)
{
    self->ranges[self->range_count++] = (s_range_t){*address, bits};
}

// ADDRESS or ADDRESS/BITS.
static bool
s_allow_range(lade_guard_t *self, const char *entry)
{
    char text[S_MAX_HOST + 1];
    s_address_t address;
    unsigned char ipv4[4];
    const char *slash = strchr(entry, '/');
    char *end = NULL;
    unsigned long bits = slash ? strtoul(slash + 1, &end, 10) : 0, before = S_MAPPED_BITS;
    if (slash && (!isdigit((unsigned char)slash[1]) || *end))
        return false;
    snprintf(text, sizeof text, "%.*s", slash ? (int)(slash - entry) : S_MAX_HOST, entry);
    if (inet_pton(AF_INET, text, ipv4) == 1)
        address = s_of_ipv4(ipv4);
    else if (inet_pton(AF_INET6, text, address.bytes) == 1)
        before = 0;
    else
        return false;
    if (slash && bits > 128 - before)
        return false;
    s_add_range(self, &address, slash ? (unsigned)(before + bits) : 128);
    return true;
}

static bool
s_allow_host(lade_guard_t *self, const char *entry)
{
    for (const char *at = entry; *at; at++)
        if (!s_is_name_char((unsigned char)*at))
            return false;
    char *host = strdup(entry);
    bool fine = *host != '.' && !strstr(host, "..");
    s_fold(host);
    if (!fine || s_ends_in_number(host)) {
        free(host);
        return false;
    }
    self->hosts[self->host_count++] = host;
    return true;
}

static lade_code_t
s_allow(lade_guard_t *self, const char *entry, lade_error_t *error)
{
    if (strcmp(entry, "any") == 0)
        self->any = true;
    else if (self->range_count + self->host_count == S_MAX_ENTRIES)
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "download.allow_addresses has more than %d entries", S_MAX_ENTRIES);
    else if (strlen(entry) > S_MAX_HOST ||
             (!s_allow_range(self, entry) && !s_allow_host(self, entry)))
        return lade_error_set(error, LADE_CONFIG_ERROR,
                              "download.allow_addresses: '%.100s' is no address, no range as "
                              "10.0.0.0/8, no host name and not the word any",
                              entry);
    return LADE_OK;
}

lade_code_t
lade_guard_new(lade_guard_t **self_p, const char *allowed, const char *own, lade_error_t *error)
{
    lade_guard_t *self = calloc(1, sizeof *self);
    char *copy = strdup(allowed ? allowed : ""), *rest = copy, *entry;
    lade_code_t code = LADE_OK;
    size_t most = 1;
    for (const char *at = copy; *at && most < S_MAX_ENTRIES; at++)
        most += strchr(S_BETWEEN, *at) != NULL;
    self->ranges = calloc(most, sizeof *self->ranges);
    self->hosts = calloc(most, sizeof *self->hosts);
    while (!code && (entry = strsep(&rest, S_BETWEEN)))
        if (*entry)
            code = s_allow(self, entry, error);
    free(copy);
    self->has_own = own && *own && lade_guard_split(own, &self->own, NULL) == LADE_OK;
    if (code)
        lade_guard_destroy(&self);
    *self_p = self;
    return code;
}

void
lade_guard_destroy(lade_guard_t **self_p)
{
    lade_guard_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->host_count; i++)
        free(self->hosts[i]);
    free(self->hosts);
    free(self->ranges);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// The questions

static bool
s_host_allowed(const lade_guard_t *self, const char *host, unsigned port)
{
    for (size_t i = 0; i < self->host_count; i++)
        if (strcmp(self->hosts[i], host) == 0)
            return true;
    return self->has_own && self->own.port == port && strcmp(self->own.host, host) == 0;
}

static lade_code_t
s_refuse(const char *host, lade_error_t *error)
{
    return lade_error_set(error, LADE_UNSAFE_URL,
                          "%.200s is not a public address; if it may be reached, an operator names "
                          "it in download.allow_addresses",
                          host);
}

lade_code_t
lade_guard_check_url(const lade_guard_t *self, const char *url, lade_error_t *error)
{
    lade_guard_url_t parts;
    s_address_t address;
    lade_code_t code = lade_guard_split(url, &parts, error);
    if (code)
        return code;
    s_kind_t kind = s_read_host(parts.host, &address);
    if (kind == S_NEITHER)
        return lade_error_set(error, LADE_UNSAFE_URL,
                              "%.200s looks like an address and is none: write it as a.b.c.d",
                              parts.host);
    if (kind == S_NAME || s_host_allowed(self, parts.host, parts.port) ||
        s_reachable(self, &address))
        return LADE_OK;
    return s_refuse(parts.host, error);
}

// Address and port of a socket's other end; false for what is neither IPv4 nor IPv6.
static bool
s_read_sockaddr(const struct sockaddr *from, s_address_t *address, unsigned *port)
{
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    if (from->sa_family == AF_INET) {
        memcpy(&ipv4, from, sizeof ipv4);
        unsigned char bytes[4];
        memcpy(bytes, &ipv4.sin_addr, sizeof bytes);
        *address = s_of_ipv4(bytes);
        *port = ntohs(ipv4.sin_port);
        return true;
    }
    if (from->sa_family != AF_INET6)
        return false;
    memcpy(&ipv6, from, sizeof ipv6);
    memcpy(address->bytes, &ipv6.sin6_addr, sizeof address->bytes);
    *port = ntohs(ipv6.sin6_port);
    return true;
}

lade_code_t
lade_guard_check_address(const lade_guard_t *self, const char *host, const struct sockaddr *from,
                         lade_error_t *error)
{
    char name[S_MAX_HOST + 1];
    s_address_t address;
    unsigned port;
    size_t len = strlen(host);
    bool brackets = len > 2 && *host == '[' && host[len - 1] == ']';
    snprintf(name, sizeof name, "%.*s", (int)(len - 2 * brackets), host + brackets);
    s_fold(name);
    if (s_read_sockaddr(from, &address, &port) &&
        (s_host_allowed(self, name, port) || s_reachable(self, &address)))
        return LADE_OK;
    return s_refuse(name, error);
}
