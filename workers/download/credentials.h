// Which credentials a request takes along: none, an access token, or a user and a password.
//
// Asked anew for each request, redirects included, so that what an operator changed in a token file
// or in a netrc holds from the next attempt on, and so that no credential reaches an origin
// (scheme, host and port) other than its own. In this order, the first that applies:
//
// - the job's token: at the origin of the URL it was given for
// - remote_api_tokens: the first entry whose url_regex is found in the URL the user named, at that
//   URL's origin
// - the hub's token (hub.token, hub.token_file, HF_HOME/token): at the origin of hub.endpoint
// - Civitai's (civitai.token, civitai.token_file): at that of civitai.endpoint
// - download.netrc: the entry of the host; after a redirect away from https, none
//
// It knows nothing of transfers; it reads small files (the token file, the netrc) each time it is
// asked.
#ifndef LADE_CREDENTIALS_H
#define LADE_CREDENTIALS_H

#include "common/config.h"
#include "common/error.h"

#include <stdbool.h>

typedef struct {
    const char *url;    // of the request about to be made
    const char *source; // the URL the user named that led here: the mirror in turn. The same as url
                        // but after a redirect.
    const char *token;  // given with the job; NULL or "": none
    const char *token_url; // the URL it was given for: the first of the job's. NULL: source.
} lade_credentials_ask_t;

typedef enum {
    LADE_CREDENTIALS_NONE,
    LADE_CREDENTIALS_BEARER, // token: "Authorization: Bearer TOKEN"
    LADE_CREDENTIALS_BASIC,  // user and password: HTTP basic, and nothing weaker or stronger
} lade_credentials_kind_t;

// A token has no blanks, control characters or non-ASCII in it, so that it can be no second header;
// a user has no colon.
typedef struct {
    lade_credentials_kind_t kind;
    char *token, *user, *password; // NULL if they are not of the kind
    char
        from[64]; // where they come from, for sentences: "--token", "remote_api_tokens, entry 2", …
} lade_credentials_t;

// Fills *out, whatever is returned; free it with lade_credentials_free. Safe from any thread.
// LADE_CONFIG_ERROR if a file that is meant cannot be used: a token_file that is not there or is
// empty, a netrc that is not there, is no netrc, or that others than its owner may read (the
// sentence says chmod 600). LADE_VALUE_ERROR for a token of the job that no header can hold. The
// error names no secret.
lade_code_t lade_credentials_find(const lade_config_t *config, const lade_credentials_ask_t *ask,
                                  lade_credentials_t *out, lade_error_t *error);

// Wipes the memory before it goes.
void lade_credentials_free(lade_credentials_t *self);

// True if both are http or https URLs of one scheme, host and port, read as libcurl reads them.
bool lade_credentials_same_origin(const char *url, const char *other);

#endif
