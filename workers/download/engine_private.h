// The engine as its own files see it: engine.c is the loop, flow.c the life of a transfer, ask.c
// what is asked for, part.c a request, answer.c what a server's answer means, sink.c where the
// bytes go.
//
// Everything here is the engine's thread's, but for what the lock guards.
#ifndef LADE_ENGINE_PRIVATE_H
#define LADE_ENGINE_PRIVATE_H

#include "common/guard.h"
#include "workers/download/block.h"
#include "workers/download/engine.h"
#include "workers/download/transfer.h"

#include <pthread.h>

enum {
    LADE_ENGINE_SPARES = 32, // of libcurl's handles, kept for the next request
    LADE_ENGINE_SOCKETS = 4096,
    LADE_ENGINE_CLOSED = 64, // hosts that asked to wait, known at once
    LADE_ENGINE_MAX_CREW = 32,
};

struct s_command;

// A socket libcurl has open.
typedef struct {
    int fd, port;   // the port on our side
    char host[256]; // it was opened for
} lade_socket_t;

// A host that asked to wait.
typedef struct {
    char host[256];
    int64_t until_ms;
} lade_closed_t;

// Bytes that may come: filled with time, emptied by bytes; a debt is waited for.
typedef struct {
    int64_t bytes_per_s; // 0: no limit
    double tokens;
} lade_bucket_t;

struct lade_engine {
    const lade_config_t *config;
    lade_engine_ops_t ops;
    lade_guard_t *guard;
    CURLM *multi;
    lade_crew_t *crew;
    lade_blocks_t *blocks;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; // guards what follows
    struct s_command *first, *last;
    int64_t next_ticket;
    bool closing;
    int64_t bytes, open, ended;

    lade_transfer_t *transfers; // the engine's thread only, from here
    int64_t now_ms, tick_ms;    // monotonic; the last tick
    bool starved;               // a transfer waits for a connection to its host
    size_t drops;               // parts that ended lately
    size_t blocked;             // parts that wait for memory, for the disk or for their rate
    CURL *spares[LADE_ENGINE_SPARES];
    size_t spare_count;
    lade_bucket_t bucket;
    lade_socket_t *sockets;
    size_t socket_count, socket_room;
    lade_closed_t closed[LADE_ENGINE_CLOSED];
    size_t closed_count;
    int64_t idle_us, blocked_us, idle_since_ms; // waited for events, with bytes held up; since
    double idle_share, blocked_share;           // of the time, lately
};

// Counts bytes that came, transfers opened and ended. engine.c
void lade_engine_count(lade_engine_t *self, int64_t bytes, int64_t open, int64_t ended);

// Begins no request to the host for so many seconds. engine.c
void lade_engine_close_host(lade_engine_t *self, const char *host, double seconds);

// ---------------------------------------------------------------------------------------------------
// part.c: one request at a time over (most often) one connection

// What an answer means.
typedef enum {
    LADE_ANSWER_NONE,     // nothing was answered yet
    LADE_ANSWER_TAKE,     // its body goes into the file
    LADE_ANSWER_REDIRECT, // ask elsewhere
    LADE_ANSWER_AGAIN,    // ask for the same in another way
    LADE_ANSWER_WHOLE,    // there is nothing left to fetch
    LADE_ANSWER_REDO,     // transfer->redo says what comes first
    LADE_ANSWER_REFUSED,  // no file; part->error says why
} lade_answer_t;

struct lade_part {
    struct lade_part *next;
    lade_transfer_t *transfer;
    CURL *easy;
    struct curl_slist *lines;
    char curl_words[CURL_ERROR_SIZE];
    char *url;            // of this hop
    char host[256];       // of url
    size_t hops;          // redirects so far
    bool direct;          // asked where an earlier request was led to
    bool ranged, token;   // with Range; with credentials
    bool proxied, out;    // over a proxy; libcurl has it
    int64_t from, at, to; // asked from; the next byte; the byte after the last, -1: to the end
    lade_headers_t headers;
    lade_answer_t answer;
    lade_error_t error;
    lade_block_t *block, *ahead; // being filled; the one after it
    size_t discarded;            // bytes of a body nobody wants
    bool blocked;                // libcurl was told to wait
    bool connected;              // the request was sent
    bool refused;                // the guard did not let it connect; error says why
    bool outdated; // another answer has shown since that one has to ask in another way
    int port;      // of our side of the connection, 0: not known
    int64_t began_ms;
};

// Begins to fetch from..to (to -1: all there is). False, with transfer->error, if that is not
// possible.
bool lade_part_start(lade_transfer_t *transfer, int64_t from, int64_t to);

// Asks for another range over the same handle, or for the same at another URL (taken; NULL: as the
// transfer's).
bool lade_part_ask(lade_part_t *part, int64_t from, int64_t to, char *url);

// Ends the request and forgets the part. What it has not fetched is no longer claimed; what it has
// and is not written yet is, if keep says so, written.
void lade_part_drop(lade_part_t *part, bool keep);

// Goes on with what was blocked, if it can.
void lade_part_unblock(lade_part_t *part);

// Writes what came slowly, so that it is on the disk and told. Blocks for the page cache at most.
void lade_part_flush(lade_part_t *part);

// Takes the results of a request that libcurl has ended, and the request back from it. The URL it
// redirects to is returned, if it does; you free it.
char *lade_part_withdraw(lade_part_t *part);

// Closes idle connections to the host: those no request is out on.
void lade_part_close_idle(lade_engine_t *self, const char *host);

// ---------------------------------------------------------------------------------------------------
// answer.c

// Reads the headers of an answer. On TAKE the transfer's journal holds what they say; on REDO
// transfer->redo, on REFUSED part->error is set.
lade_answer_t lade_answer_judge(lade_part_t *part);

// The URL without what could be a secret: who is logged in, the query of a signed address. You free
// it.
char *lade_answer_public_url(const char *url);

// ---------------------------------------------------------------------------------------------------
// flow.c: the life of a transfer

// Begins it.
void lade_flow_begin(lade_engine_t *self, lade_transfer_t *transfer);

// Does whatever can be done next.
void lade_flow_advance(lade_transfer_t *transfer);

// Headers of a good answer were read.
void lade_flow_answered(lade_transfer_t *transfer);

// libcurl has ended a request.
void lade_flow_ended(lade_part_t *part, CURLcode code);

void lade_flow_stop(lade_transfer_t *transfer, lade_engine_stop_t why);
void lade_flow_set_terms(lade_transfer_t *transfer, int64_t connections, int64_t bytes_per_s,
                         double hold_s);

// Now and then: what waits for time, and the number of connections.
void lade_flow_tick(lade_transfer_t *transfer);

bool lade_flow_is_stopped(const lade_transfer_t *transfer);

// Tells progress, if there is some worth telling, or always; what it does now.
void lade_flow_tell(lade_transfer_t *transfer, bool always);
void lade_flow_phase(lade_transfer_t *transfer, const char *phase, const char *reason);

// ---------------------------------------------------------------------------------------------------
// ask.c: what to ask for next, and over how many connections

// Begins as many requests as may be out. May set transfer->error.
void lade_ask_more(lade_transfer_t *transfer);

// Another range for a part that has ended, claimed; false if there is none, or if asking has to
// wait.
bool lade_ask_next(lade_transfer_t *transfer, lade_range_t *range);

// Whether the URL's host lets itself be asked now.
bool lade_ask_is_open(const lade_transfer_t *transfer, const char *url);

// The first good answer is there; and now and then: looks whether more connections are worth it.
void lade_ask_start(lade_transfer_t *transfer);
void lade_ask_tune(lade_transfer_t *transfer);

// ---------------------------------------------------------------------------------------------------
// sink.c: blocks on their way to the disk and the digest

// Bytes came.
void lade_sink_came(lade_transfer_t *transfer, size_t bytes);

// Whether more bytes may come now: the engine's rate, the transfer's, its disk.
bool lade_sink_may_take(const lade_transfer_t *transfer);

// A block is full, or the last of its range; the sink's from here on.
void lade_sink_block(lade_transfer_t *transfer, lade_block_t *block);

// Bytes were written without a chore.
void lade_sink_written(lade_transfer_t *transfer, int64_t from, int64_t to);

// Hashes what can be hashed; begins a checkpoint if it is time.
void lade_sink_hash(lade_transfer_t *transfer);
void lade_sink_checkpoint(lade_transfer_t *transfer);

// Gives the memory of blocks back that are on the disk and wait for bytes before them.
void lade_sink_spill(lade_transfer_t *transfer);

// Forgets what is in memory; nothing may be with the crew.
void lade_sink_drop(lade_transfer_t *transfer);

#endif
