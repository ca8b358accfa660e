// The download engine: a URL into a file. One thread drives every transfer with one libcurl multi
// handle; what blocks on the disk is done by a crew. It knows nothing of brokers and jobs.
//
//   OPENING ──▶ FETCHING ──▶ FINISHING ──▶ ended, with an outcome
//      │           │ ▲ writing, hashing and checkpoints go on beside it │
//      └───────────┴─▶ KEEPING or REMOVING the partial (stopped, failed) ──▶ ended
//
// A large file comes in ranges over several connections, handed out from the front, so that the
// sha256 keeps up in the same pass. The number of connections is doubled as long as that makes it
// faster.
//
// What is promised: under the final name there is only ever the whole file, of the right size and
// digest; never over another file; an access token is sent to the URL's own origin only.
#ifndef LADE_ENGINE_H
#define LADE_ENGINE_H

#include "common/config.h"
#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct lade_engine lade_engine_t;

// What to fetch. Everything is copied.
typedef struct {
    int64_t id, attempt; // name the partial file; a higher attempt takes over what a lower one left
    const char *const *urls;  // mirrors, tried in order, ended by NULL
    const char *destination;  // the file to write, absolute; NULL: destdir and a name from the
                              // server or the URL. If it is a folder, it is taken as destdir.
    const char *destdir;      // absolute; made if it is missing
    const char *filename;     // in destdir; NULL: the server's
    const char *sha256;       // 64 hex digits, NULL: not checked
    int64_t size;             // -1: not checked
    const char *access_token; // for the origin of the first URL; NULL: none
    bool preserve_partial; // keep the partial even after a failure that another try would not mend
    int64_t connections;   // at most so many; 0: download.connections
    int64_t bytes_per_s;   // at most so many; 0: no limit
} lade_request_t;

typedef struct {
    lade_error_t error;   // code LADE_OK if the file is there
    double retry_after_s; // the server's wish, -1 if it has none
    const char
        *volume;      // the file system that is full (LADE_NO_SPACE), as its mount point; else NULL
    const char *path; // NULL while unknown
    int64_t bytes, total; // total -1 if unknown
    int64_t resumed_from; // bytes an earlier attempt or another mirror had sent
    const char *sha256, *etag, *url, *final_url, *content_type; // NULL if unknown
} lade_outcome_t;

// Called on the engine's thread; must not block.
typedef struct {
    void (*progress)(void *arg, int64_t bytes, int64_t total, const char *path);
    // What it does now: "stalled", "resumed", "verifying"; reason may be NULL.
    void (*phase)(void *arg, const char *phase, const char *reason);
    // No more connections than so many are open for it any more, after lade_engine_set_terms asked
    // for fewer.
    void (*confirm)(void *arg, int64_t connections);
    // A host asked to be left alone for so many seconds; what it is sending is taken to its end.
    void (*closed)(void *arg, const char *host, double seconds, const char *message);
    // The last call for a transfer. The outcome lives as long as the call.
    void (*end)(void *arg, const lade_outcome_t *outcome);
} lade_engine_ops_t;

typedef enum {
    LADE_ENGINE_GO = 0,
    LADE_ENGINE_CANCEL, // removes what was fetched; ends with LADE_CANCELLED
    LADE_ENGINE_PAUSE,  // keeps it, durably; ends with LADE_PAUSED
    LADE_ENGINE_LEAVE,  // keeps it for a later attempt, unless that has begun; LADE_STALE_LEASE
} lade_engine_stop_t;

// config is borrowed: the download.* settings, and those credentials come from. *self_p is NULL on
// failure.
lade_code_t lade_engine_new(lade_engine_t **self_p, const lade_config_t *config,
                            const lade_engine_ops_t *ops, lade_error_t *error);

// Starts a transfer; safe from any thread. A ticket for lade_engine_stop is returned; arg is handed
// to ops. A wrong request ends at once (through ops, like everything else).
int64_t lade_engine_add(lade_engine_t *self, const lade_request_t *request, void *arg);

// Asks a transfer to stop; safe from any thread. A ticket that has ended is no mistake. Cancel
// overrules pause, leave overrules both.
void lade_engine_stop(lade_engine_t *self, int64_t ticket, lade_engine_stop_t why);

// What holds from now on; safe from any thread. connections and bytes_per_s: 0 is no limit; hold_s
// above 0: no request is begun before so many seconds have passed.
void lade_engine_set_terms(lade_engine_t *self, int64_t ticket, int64_t connections,
                           int64_t bytes_per_s, double hold_s);

// Whether the partial of a transfer is kept after a failure; safe from any thread.
void lade_engine_set_preserve(lade_engine_t *self, int64_t ticket, bool preserve);

// Bytes a second over all transfers, 0: no limit; safe from any thread.
void lade_engine_set_rate(lade_engine_t *self, int64_t bytes_per_s);

// Bytes received since the engine was made, transfers open now, transfers ended. Safe from any
// thread.
void lade_engine_stats(lade_engine_t *self, int64_t *bytes, int64_t *open, int64_t *ended);

// Leaves every transfer (LADE_ENGINE_LEAVE), waits for their ends, and ends the thread.
void lade_engine_destroy(lade_engine_t **self_p);

#endif
