// Civitai: from a page, a version or a download address to the one file that is meant.
//
//   SITE/models/ID[/slug][?modelVersionId=V]     the newest version, or that one
//   SITE/model-versions/V, SITE/api/v1/models/ID, SITE/api/v1/model-versions/V
//   SITE/api/download/models/V[?type&format&size&fp]    the file these describe, else the primary
//
// SITE is civitai.com or civitai.endpoint; the API that is asked is always the endpoint's. Blocks;
// call it from a thread of the pool.
#ifndef LADE_CIVITAI_H
#define LADE_CIVITAI_H

#include "common/config.h"
#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t model, version; // 0: not named
    char *terms[4];         // of a download address: type, format, size, fp; NULL: not given
} lade_civitai_ref_t;

// False if the URL is none of these. Free it with lade_civitai_ref_free whatever is returned.
bool lade_civitai_read(const char *url, const char *endpoint, lade_civitai_ref_t *ref);
void lade_civitai_ref_free(lade_civitai_ref_t *ref);

// The key to use: the explicit one, that of remote_api_tokens for the endpoint, civitai.token,
// civitai.token_file. NULL if there is none; free it with lade_tokens_wipe.
char *lade_civitai_token(const lade_config_t *config, const char *explicit_token);

typedef struct {
    const lade_config_t *config;
    const char *token;       // or NULL
    bool (*stop)(void *arg); // polled while it waits; or NULL
    void *arg;
    double retry_after_s; // set when the site says when to come back
} lade_civitai_request_t;

typedef struct {
    json_t *model;   // the API's answer about the model; NULL: it had none
    json_t *version; // about the version
} lade_civitai_page_t;

// Asks for what ref names. LADE_UNKNOWN_METADATA: no such model or version; LADE_AUTH_REQUIRED (the
// version is in early access and there is no token, too), LADE_AUTH_DENIED, LADE_RATE_LIMITED,
// LADE_OFFLINE, LADE_NETWORK, LADE_UNSAFE_URL, LADE_HTTP_ERROR, LADE_CORRUPT, LADE_TOO_LARGE,
// LADE_CANCELLED. Free *page with lade_civitai_page_free whatever is returned.
lade_code_t lade_civitai_fetch(lade_civitai_request_t *request, const lade_civitai_ref_t *ref,
                               lade_civitai_page_t *page, lade_error_t *error);
void lade_civitai_page_free(lade_civitai_page_t *page);

// LADE_AUTH_REQUIRED if the version is in early access and no token is there.
lade_code_t lade_civitai_check_access(const lade_civitai_request_t *request,
                                      const lade_civitai_page_t *page, lade_error_t *error);

typedef struct {
    const char *name, *url; // texts of the page
    int64_t size;           // -1: not told to the byte
    char sha256[65];        // lower case; "" if the page has none
} lade_civitai_file_t;

// The file that is meant: the one the terms describe, the primary one of those first.
// LADE_NOT_FOUND with what there is; LADE_UNSAFE_FILE if the site's scanners found something.
lade_code_t lade_civitai_pick(const lade_civitai_page_t *page, const lade_civitai_ref_t *ref,
                              lade_civitai_file_t *file, lade_error_t *error);

// What to do about a file that wants a login. You free it.
char *lade_civitai_login_words(const lade_config_t *config);

#endif
