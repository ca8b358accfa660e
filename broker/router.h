// The broker's loop: three sockets, and turns with a group commit.
//
// A turn drains the sockets, applies what came in to one batch of the keyspace, hands ready jobs to
// workers with free slots, commits, and only then sends the answers, jobs and events that follow.
//
// The same turn runs without sockets (lade_router_feed_*, lade_router_turn): unit tests and fuzzers
// work on the real dispatcher with nothing between.
#ifndef LADE_ROUTER_H
#define LADE_ROUTER_H

#include "common/config.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lade_router lade_router_t;

// Opens the keyspace in config's data folder and takes up the jobs in it. No socket is made yet.
// config is borrowed and must outlive the router.
lade_code_t lade_router_open(const lade_config_t *config, lade_router_t **self_p,
                             lade_error_t *error);

// Binds the three sockets and serves until SIGTERM or SIGINT. Blocks.
lade_code_t lade_router_serve(lade_router_t *self, lade_error_t *error);

void lade_router_close(lade_router_t **self_p);

// ---------------------------------------------------------------------------------------------------
// Without sockets

typedef enum { LADE_SENT_CLIENT, LADE_SENT_WORKER, LADE_SENT_EVENT } lade_sent_t;

// Told of everything a turn sends: to is the routing id of the peer, or the topic of an event;
// command is LADE_MDP_FINAL, LADE_MDP_PARTIAL or LADE_W_*, 0 for events. The bytes are gone when it
// returns.
typedef void(lade_router_sent_fn)(void *arg, lade_sent_t kind, const char *to, size_t to_len,
                                  int command, const char *body, size_t len);
void lade_router_on_sent(lade_router_t *self, lade_router_sent_fn *sent, void *arg);

// Feeds one request body for a service, or one LADEW1 body, as if it had come from the peer with
// that routing id. Takes any bytes. Nothing is answered before lade_router_turn.
void lade_router_feed_client(lade_router_t *self, const char *peer, const char *service,
                             size_t service_len, const void *body, size_t len);
void lade_router_feed_worker(lade_router_t *self, const char *peer, int command, const void *body,
                             size_t len);

// Feeds one whole message, frame by frame, as the socket of clients or of workers would give it:
// the peer's routing id first.
void lade_router_feed_frames(lade_router_t *self, bool from_worker, const void *const *frames,
                             const size_t *lens, size_t count);

// Ends the turn: dispatches, commits, tells what would be sent; then does what time demands.
void lade_router_turn(lade_router_t *self);

// Moves the router's clock forward, for deadlines in tests.
void lade_router_skip(lade_router_t *self, int64_t ms);

// Lets the next n commits fail with LADE_NO_SPACE, for tests.
void lade_router_break_commits(lade_router_t *self, int n);

#endif
