// What a failed transfer means: libcurl's codes and HTTP statuses as lade errors, with a sentence
// that says what to do.
#ifndef LADE_VERDICT_H
#define LADE_VERDICT_H

#include "common/error.h"
#include "workers/download/headers.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

// What the sentences tell besides the code.
typedef struct {
    const char *host;   // who answered, or should have
    const char *detail; // libcurl's own words, "" if none
    bool connected;     // the request was sent: silence after it is a stall, before it a timeout
    bool token;         // a token was sent
    int64_t stall_s, connect_timeout_s;
} lade_verdict_facts_t;

// A transfer that libcurl ended with code (not CURLE_OK).
lade_code_t lade_verdict_curl(CURLcode code, const lade_verdict_facts_t *facts,
                              lade_error_t *error);

// An answer whose status is no success.
lade_code_t lade_verdict_status(const lade_headers_t *headers, const lade_verdict_facts_t *facts,
                                lade_error_t *error);

// Whether the bytes fetched so far are of use to the next attempt.
bool lade_verdict_keeps(lade_code_t code);

#endif
