// Which proxy a URL is asked for through.
//
// Whoever uses libcurl sets CURLOPT_PROXY to the answer, also where it is "", and CURLOPT_NOPROXY
// to
// "": libcurl then looks at no variable itself, so that it is known whether the address that is
// connected to is the target's (common/guard.h) or a proxy's.
#ifndef LADE_PROXY_H
#define LADE_PROXY_H

#include "common/error.h"

// setting: download.proxy; if it is not empty, it is the proxy for every URL. Else the variables
// http_proxy, https_proxy, HTTPS_PROXY, all_proxy and ALL_PROXY are, but for the hosts that
// no_proxy or NO_PROXY lists (names with all below them, addresses, ranges, `*`). "": none. You
// free it. It may hold a password.
char *lade_proxy_for(const char *setting, const char *url);

// LADE_CONFIG_ERROR if the text is no proxy: [SCHEME://][USER[:PASSWORD]@]HOST[:PORT] with a scheme
// of http, https, socks4, socks4a, socks5, socks5h; "" is one. The text is not repeated.
lade_code_t lade_proxy_check(const char *setting, lade_error_t *error);

#endif
