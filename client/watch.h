// Following the events, bit by bit: what lade_watch, the download queue and the command share.
#ifndef LADE_WATCH_H
#define LADE_WATCH_H

#include "client/request.h"

typedef struct lade_watch lade_watch_t;

// Told each event; false ends the turn, what comes after it is told in the next one. May make calls
// on the client, but none on the watch.
typedef bool(lade_watch_event_t)(void *arg, const json_t *event);

// As lade_watch; prefixes are borrowed. *self_p is NULL on failure.
lade_code_t lade_watch_open(lade_t *client, const char *const *prefixes, int64_t since,
                            lade_watch_t **self_p, lade_error_t *error);

// Tells what has come; waits at most timeout_ms for the first of it (that nothing came is no
// error). What the time between two turns brought is told in the next.
lade_code_t lade_watch_turn(lade_watch_t *self, int64_t timeout_ms, lade_watch_event_t *on_event,
                            void *arg, lade_error_t *error);

// Asks the broker for what it has journaled until now and tells it, without waiting for it to come.
lade_code_t lade_watch_catch_up(lade_watch_t *self, lade_watch_event_t *on_event, void *arg,
                                lade_error_t *error);

void lade_watch_close(lade_watch_t **self_p);

#endif
