// One transfer, without the loop that drives it: its request, what is known of its source, its
// file, and what an answer of the server means for it.
//
// Members are public to the engine. The engine's thread uses them; while a chore of the transfer is
// with the crew (busy), the chore has partial, journal and chore_error, and the engine only appends
// to the partial, and only during a checkpoint.
#ifndef LADE_TRANSFER_H
#define LADE_TRANSFER_H

#include "workers/download/crew.h"
#include "workers/download/engine.h"
#include "workers/download/headers.h"
#include "workers/download/partial.h"

#include <curl/curl.h>
#include <stdatomic.h>

typedef enum {
    LADE_TRANSFER_OPENING,   // the crew looks for what is there already
    LADE_TRANSFER_FETCHING,  // a request is out
    LADE_TRANSFER_FINISHING, // the crew syncs and publishes
    LADE_TRANSFER_SETTLING,  // the crew keeps or removes the partial; then it ends
} lade_transfer_state_t;

// What an answer means.
typedef enum {
    LADE_ANSWER_NONE,    // nothing was answered yet
    LADE_ANSWER_TAKE,    // its body goes into the file
    LADE_ANSWER_ANEW,    // not the continuation asked for: ask again, for everything
    LADE_ANSWER_WHOLE,   // there is nothing left to fetch
    LADE_ANSWER_COMPARE, // the name is taken: look whether by the same file
    LADE_ANSWER_REFUSED, // no file; transfer->error says why
} lade_answer_t;

// A run of bytes fetched by one request: here, all that is missing.
typedef struct {
    CURL *easy; // NULL while no request is out
    struct curl_slist *lines;
    char curl_words[CURL_ERROR_SIZE];
    int64_t from; // first byte asked for
    lade_headers_t headers;
    lade_answer_t answer;
    char *buffer;
    size_t buffered, discarded;
    CURLcode code;  // how libcurl ended it
    bool connected; // the request was sent
} lade_part_t;

typedef struct lade_transfer {
    struct lade_transfer *next;
    struct lade_engine *engine;
    int64_t ticket;
    void *arg;
    _Atomic int stop; // lade_engine_stop_t
    lade_transfer_state_t state;

    int64_t id, attempt, size;
    char **urls; // ended by NULL
    size_t url_at;
    char *destination, *destdir, *filename, *sha256, *token;
    bool preserve_partial;

    lade_chore_t chore;
    bool busy;                // the chore is with the crew
    lade_error_t chore_error; // how it went
    lade_partial_t *partial;
    lade_journal_t journal;  // of the source, and of the file on disk
    lade_journal_t snapshot; // what the chore writes down
    bool found;              // the whole file was there already
    bool published;          // by us, now

    lade_part_t part;
    lade_error_t error;
    double retry_after_s;
    size_t anew; // requests repeated from byte 0
    int64_t resumed_from, checkpoint_at, told_bytes, told_ms;
    char *path, *final_url;
    char host[256];        // of the present URL
    char answer_host[256]; // of the one that answered, after redirects
    char digest[65];
} lade_transfer_t;

// Copies the request. Never NULL.
lade_transfer_t *lade_transfer_new(const lade_request_t *request);

// LADE_VALUE_ERROR if the request cannot be done, with the member that is wrong.
lade_code_t lade_transfer_check(lade_transfer_t *self, lade_error_t *error);

const char *lade_transfer_url(const lade_transfer_t *self);

// The access token for the present URL: NULL for a mirror at another origin than the first URL's.
const char *lade_transfer_token(const lade_transfer_t *self);

// Chores. Each leaves its outcome in chore_error.
void lade_transfer_open(void *self);       // partial, journal, resumed_from; or found
void lade_transfer_checkpoint(void *self); // of snapshot
void lade_transfer_finish(void *self);     // checks, publishes
void lade_transfer_compare(void *self);    // found, or LADE_EXISTS
void lade_transfer_keep(void *self);       // of snapshot
void lade_transfer_remove(void *self);

// Notes what to write down while the transfer goes on.
void lade_transfer_snapshot(lade_transfer_t *self);

// Reads the headers of the final answer. On LADE_ANSWER_TAKE the journal holds what they say; on
// _REFUSED the error is set.
lade_answer_t lade_transfer_judge(lade_transfer_t *self);

// Forgets all bytes fetched.
lade_code_t lade_transfer_restart(lade_transfer_t *self, lade_error_t *error);

// Removes what a download of the URL that nobody works on any more left beside path, the file it
// was to become.
void lade_transfer_discard(int64_t id, const char *url, const char *path);

// Turns to the next mirror, which there has to be. With a digest to check by it goes on from the
// bytes there are, else it begins at the start.
lade_code_t lade_transfer_next(lade_transfer_t *self);

// The host of a URL in lower case, "" if it has none.
void lade_transfer_host(const char *url, char *host, size_t size);

void lade_transfer_destroy(lade_transfer_t **self_p);

#endif
