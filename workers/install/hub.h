// The model hub's HTTP API: what a repository holds.
//
// One request, GET ENDPOINT/api/models/REPO[/revision/REV]?blobs=true, answers with the whole list
// of files, their sizes and digests. Blocks; call it from a thread of the pool.
#ifndef LADE_HUB_H
#define LADE_HUB_H

#include "common/config.h"
#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *path;   // in the repository, not checked
    int64_t size;       // -1: not told
    const char *sha256; // 64 lower-case hex digits, "" if the hub has none
    const char *git;    // of a file without a sha256: its git object, 40 hex digits; else ""
} lade_hub_file_t;

typedef struct {
    json_t *info;       // the whole answer; the texts of files lie in it
    char revision[256]; // what file URLs name: the commit, else the revision asked for, else "main"
    bool pinned;        // it is a commit: what it names never changes
    bool cached;        // listed from the cache (hubcache.h); info is no answer of a hub
    lade_hub_file_t *files;
    size_t count;
} lade_hub_repo_t;

typedef struct {
    const lade_config_t *config; // hub.endpoint, download.ca_file, download.user_agent, …
    const char *token;           // or NULL
    bool (*stop)(void *arg);     // polled while it waits; or NULL
    void *arg;
    double retry_after_s; // set when the hub says when to come back
} lade_hub_request_t;

// Asks for a repository. revision NULL is the default one; one that does not exist is
// LADE_UNKNOWN_REVISION if it is required, else it is asked again without. LADE_UNKNOWN_METADATA:
// no such repository; LADE_AUTH_REQUIRED, LADE_AUTH_DENIED, LADE_LICENSE_GATE, LADE_RATE_LIMITED,
// LADE_OFFLINE, LADE_NETWORK, LADE_UNSAFE_URL (only hub.endpoint itself may be inside a network,
// common/guard.h), LADE_HTTP_ERROR, LADE_CORRUPT (no answer of a hub), LADE_TOO_LARGE,
// LADE_CANCELLED (stop said so). *repo_p is set only on success; free it with lade_hub_repo_free.
lade_code_t lade_hub_fetch(lade_hub_request_t *request, const char *repo, const char *revision,
                           bool required, lade_hub_repo_t **repo_p, lade_error_t *error);
void lade_hub_repo_free(lade_hub_repo_t **repo_p);

// Reads an answer of the hub, which is taken whatever is returned.
lade_code_t lade_hub_read(json_t *info, const char *name, const char *revision,
                          lade_hub_repo_t **repo_p, lade_error_t *error);

// The answer as JSON text of at most max_bytes: whole, else without what is long (the list of
// files, …).
char *lade_hub_describe(const lade_hub_repo_t *repo, size_t max_bytes);

// The URL of one file; you free it.
char *lade_hub_file_url(const lade_config_t *config, const char *repo, const char *revision,
                        const char *path);

// The token to use: the explicit one, that of remote_api_tokens for the endpoint, hub.token,
// hub.token_file, HF_HOME/token,
// ~/.cache/huggingface/token. NULL if there is none; you free it. A token with characters a header
// can't hold is left out, with a log line.
char *lade_hub_token(const lade_config_t *config, const char *explicit_token);

#endif
