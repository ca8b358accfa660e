// Where lade may go on the network: what a user submits must not reach inside the operator's.
//
// Unless the operator says otherwise (download.allow_addresses), only http and https URLs are
// fetched, and only from public addresses: no loopback, private, link-local, shared (carrier),
// benchmark, documentation, multicast or reserved ones, no unique local ones, whatever the
// spelling (decimal, octal, hexadecimal, percent-encoded) and whatever they are wrapped in
// (IPv4-mapped, 6to4, ISATAP, NAT64; Teredo and IPv4-compatible ones are refused as a whole).
//
// Two questions, and both have to be asked. Of each URL before it is asked for, the first one and
// every one a redirect leads to: lade_guard_check_url. Of each address a name was resolved to, when
// the socket to it is opened: lade_guard_check_address (CURLOPT_OPENSOCKETFUNCTION); then a name
// that resolves to something else a moment later wins nothing. Where a proxy is in between
// (common/proxy.h) the proxy resolves the name, so the first question is all there is.
//
// A guard does not change once it is made: any thread may ask it.
#ifndef LADE_GUARD_H
#define LADE_GUARD_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

typedef struct lade_guard lade_guard_t;

// allowed: the setting download.allow_addresses, a list with commas of ranges (10.0.0.0/8,
// fd00::/8), addresses, names of hosts (which may then resolve to anything), or the word `any`
// (every address; the URL has to be http or https still). own: a URL whose host and port are
// allowed too, because the operator named it (hub.endpoint); NULL or "": none. LADE_CONFIG_ERROR
// names the entry of allowed that is none of these; *self_p is NULL then. An own that is no URL is
// not an error here.
lade_code_t lade_guard_new(lade_guard_t **self_p, const char *allowed, const char *own,
                           lade_error_t *error);

// LADE_OK, or LADE_UNSAFE_URL with a sentence: the scheme, the host, the port, and the host's
// address if it is written as one. A name is not resolved. Does not block.
lade_code_t lade_guard_check_url(const lade_guard_t *self, const char *url, lade_error_t *error);

// LADE_OK, or LADE_UNSAFE_URL with a sentence that names the host and does not tell the address.
// host: of the URL, as libcurl has it (CURLUPART_HOST). Does not block.
lade_code_t lade_guard_check_address(const lade_guard_t *self, const char *host,
                                     const struct sockaddr *address, lade_error_t *error);

void lade_guard_destroy(lade_guard_t **self_p);

// ---------------------------------------------------------------------------------------------------
// A URL taken apart, strictly: what a lenient reader would guess at is refused, so that nobody
// else reads another host out of it.
typedef struct {
    bool https;
    char host[256]; // decoded, lower case, without brackets and without a dot at its end
    unsigned port;  // the scheme's where none is written
} lade_guard_url_t;

// LADE_UNSAFE_URL with a sentence.
lade_code_t lade_guard_split(const char *url, lade_guard_url_t *parts, lade_error_t *error);

#endif
