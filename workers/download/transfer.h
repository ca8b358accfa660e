// One transfer, without the loop that drives it: what was asked for, what is known of its source,
// its file, and which bytes of it are where.
//
//   claimed   a request is out for them, or they came
//   written   in the partial file
//   durable   named by the journal on the disk
//   hashed    the digest has them; always the first ones
//
// Members are public to the engine's files (flow, part, answer). The engine's thread uses them;
// while a chore of the transfer is with the crew, the chore has what it was given: the partial is
// safe for several, journal, found, published, error_of_chore and digest belong to an exclusive
// chore (busy), snapshot to a checkpoint, the digest to the hashing.
#ifndef LADE_TRANSFER_H
#define LADE_TRANSFER_H

#include "workers/download/block.h"
#include "workers/download/crew.h"
#include "workers/download/digest.h"
#include "workers/download/engine.h"
#include "workers/download/headers.h"
#include "workers/download/partial.h"
#include "workers/download/tune.h"

#include <curl/curl.h>
#include <stdatomic.h>

typedef struct lade_part lade_part_t;

enum { LADE_TRANSFER_RETRIES = 8 }; // requests repeated within an attempt, before bytes make more

typedef enum {
    LADE_TRANSFER_OPENING,   // the crew looks for what is there already
    LADE_TRANSFER_FETCHING,  // requests are out, or about to be
    LADE_TRANSFER_FINISHING, // the crew syncs and publishes
    LADE_TRANSFER_SETTLING,  // the crew keeps or removes the partial; then it ends
} lade_transfer_state_t;

// What has to be done before more is fetched; a later one overrules.
typedef enum {
    LADE_REDO_NONE,
    LADE_REDO_RANGES,  // the file changed: forget all bytes, ask again
    LADE_REDO_WHOLE,   // ranges cannot be had: forget all bytes, ask for everything at once
    LADE_REDO_COMPARE, // the name is taken: look whether by the same file
} lade_redo_t;

// How If-Range is said: some servers take one validator and not the other.
typedef enum { LADE_IF_ETAG, LADE_IF_DATE, LADE_IF_NOTHING } lade_if_range_t;

typedef struct lade_transfer {
    struct lade_transfer *next;
    struct lade_engine *engine;
    int64_t ticket;
    void *arg;
    _Atomic int stop; // lade_engine_stop_t
    int64_t stop_ms;  // when it was asked to
    lade_transfer_state_t state;
    bool behind; // waits for an earlier attempt to end, which then leaves it all that came

    int64_t id, attempt, size;
    char **urls; // ended by NULL
    size_t url_at;
    char *destination, *destdir, *filename, *sha256, *token;
    bool preserve_partial;

    lade_chore_t chore;
    bool busy;                   // an exclusive chore is with the crew
    lade_error_t error_of_chore; // how it went
    lade_partial_t *partial;
    lade_journal_t journal; // of the source, and of the file on disk
    bool found;             // the whole file was there already
    bool published;         // by us, now

    lade_ranges_t claimed, written;
    size_t writes;        // blocks with the crew
    int64_t resumed_from; // bytes an earlier attempt or another mirror had sent
    lade_block_t *held;   // came, and wait for the hash; in the order of their places
    lade_block_t *last;   // the last block of all, for the finish to write and hash

    lade_chore_t checkpoint;
    bool checkpointing;
    lade_journal_t snapshot; // what the checkpoint writes down
    lade_error_t error_of_checkpoint;
    int64_t snapshot_bytes, durable_bytes;

    lade_digest_t *digest;
    lade_chore_t hash;
    bool hashing;
    int64_t hashed_ms;          // when it went on last
    lade_block_t *hash_blocks;  // what the chore hashes: these,
    int64_t hash_from, hash_to; // or these bytes, from the disk
    lade_error_t error_of_hash;
    int64_t reread; // bytes that were hashed from the disk

    lade_part_t *parts;
    size_t part_count;
    char *direct_url;         // where the present URL led to; NULL: not known or out of date
    bool answered;            // a good answer came from the present URL
    bool whole;               // no ranges: everything in one request
    bool reserving, reserved; // bytes wait until space is reserved
    bool verifying;           // and said so
    lade_redo_t redo;
    lade_if_range_t if_range;
    size_t anew;          // times all was forgotten
    size_t strikes;       // requests in a row that brought nothing
    int64_t retries;      // that are left; bytes that come make more
    int64_t came, earned; // bytes of this attempt from this URL; those that made retries
    bool stalled;         // and said so
    int64_t failed_ms, not_before_ms; // the last strike, and when it may be asked again
    size_t most;                      // connections, after a server refused more
    lade_tune_t tune;
    int64_t latency_ms; // of the last answer's first byte

    int64_t farm_connections, farm_rate, hold_until_ms; // terms; 0: none
    bool held_by_farm; // it is given back for the hold: the farm need not be told of it
    double tokens;     // bytes that may come now, of farm_rate

    lade_error_t error;
    double retry_after_s;
    int64_t told_bytes, told_ms;
    char *path, *final_url;
    char host[256];        // of the present URL
    char answer_host[256]; // of the one that answered, after redirects
    char volume[256];      // where the disk is full
    char digest_hex[65];
} lade_transfer_t;

// Copies the request. Never NULL.
lade_transfer_t *lade_transfer_new(const lade_request_t *request);

// LADE_VALUE_ERROR if the request cannot be done, with the member that is wrong.
lade_code_t lade_transfer_check(lade_transfer_t *self, lade_error_t *error);

const char *lade_transfer_url(const lade_transfer_t *self);

// Bytes of the whole file, -1 while unknown.
int64_t lade_transfer_total(const lade_transfer_t *self);

// Exclusive chores: nothing else of the transfer is with the crew. Each leaves its outcome in
// error_of_chore.
void lade_transfer_open(void *self);    // partial, journal, written, resumed_from; or found
void lade_transfer_reserve(void *self); // space for the whole file
void lade_transfer_restart(void *self); // forgets all bytes
void lade_transfer_finish(void *self);  // checks, publishes
void lade_transfer_compare(void *self); // found, or LADE_EXISTS
void lade_transfer_keep(void *self);    // of snapshot
void lade_transfer_remove(void *self);

// Chores that go on beside the fetching.
void lade_transfer_checkpoint(void *self); // of snapshot
void lade_transfer_hash(void *self);       // hash_blocks, else hash_from to hash_to
void lade_transfer_write(void *block);

// Notes what to write down while the transfer goes on.
void lade_transfer_snapshot(lade_transfer_t *self);

// A name that is taken is an error, unless it can be by the same file (LADE_OK: go on, what comes
// is compared). Looks at the disk, but reads no file.
lade_code_t lade_transfer_check_taken(lade_transfer_t *self, bool *compare, lade_error_t *error);

// Gives the file its name, as asked for, else as the server said, else as the URL ends.
// LADE_VALUE_ERROR if none of them can be a file's.
lade_code_t lade_transfer_name(lade_transfer_t *self, const char *said, lade_error_t *error);

// Notes which file system is full, for the gate the job waits at.
void lade_transfer_note_volume(lade_transfer_t *self);

// Removes what a download of the URL that nobody works on any more left beside path, the file it
// was to become.
void lade_transfer_discard(int64_t id, const char *url, const char *path);

// Turns to the next mirror, which there has to be. With a digest to check by it goes on from the
// bytes there are; else false: they have to be forgotten.
bool lade_transfer_next(lade_transfer_t *self);

// The host of a URL in lower case, "" if it has none.
void lade_transfer_host(const char *url, char *host, size_t size);

void lade_transfer_destroy(lade_transfer_t **self_p);

#endif
