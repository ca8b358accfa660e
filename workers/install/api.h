// GET requests to the APIs of hubs: small answers, kept in memory.
//
// Redirects are followed one by one, as each has to pass the guard (common/guard.h: only the
// endpoint itself may be inside a network), and only requests to the origin of the first URL carry
// the token. Blocks; call it from a thread of the pool.
#ifndef LADE_API_H
#define LADE_API_H

#include "common/buf.h"
#include "common/config.h"
#include "common/error.h"
#include "common/guard.h"

#include <jansson.h>
#include <stdbool.h>

// Before and after everything else; not thread-safe (they set up libcurl).
void lade_api_open(void);
void lade_api_close(void);

typedef struct {
    const lade_config_t *config; // download.ca_file, download.user_agent, …
    const char *endpoint;        // as configured: may be inside a network
    const char *setting;         // that names it, for sentences: "hub.endpoint"
    const char *token;           // or NULL
    bool (*stop)(void *arg);     // polled while it waits; or NULL
    void *arg;
    double retry_after_s; // set when the server says when to come back
} lade_api_request_t;

// What one request brought, and what is known while it is made.
typedef struct {
    lade_api_request_t *request;
    lade_guard_t *guard;
    lade_guard_url_t first, at; // where it began, where a redirect led to
    lade_error_t refused;       // what the guard said of an address
    lade_buf_t body;
    bool too_large;
    long status;
    char error_code[64];     // X-Error-Code
    char error_message[200]; // X-Error-Message
    bool html;
} lade_api_answer_t;

// LADE_OK means that an answer came, whatever its status. LADE_NETWORK, LADE_UNSAFE_URL,
// LADE_HTTP_ERROR, LADE_TOO_LARGE (64 MiB), LADE_CANCELLED (stop said so). Free the answer whatever
// is returned.
lade_code_t lade_api_get(lade_api_request_t *request, const char *url, lade_api_answer_t *answer,
                         lade_error_t *error);
void lade_api_answer_free(lade_api_answer_t *self);

// The body as JSON, NULL if it is none. Yours.
json_t *lade_api_json(const lade_api_answer_t *self);

// ENDPOINT and what follows it, a slash at the endpoint's end or not.
lade_buf_t lade_api_url(const char *endpoint, const char *below);

// Adds text with %XX for all but letters, digits and -._~.
void lade_api_add_escaped(lade_buf_t *url, const char *text, bool keep_slashes);

#endif
