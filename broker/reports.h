// LADEW1: what workers say, and what the broker says to them besides jobs.
#ifndef LADE_REPORTS_H
#define LADE_REPORTS_H

#include "broker/broker.h"
#include "broker/workers.h"

#include <msgpack.h>

// Handles one message of a worker. Never fails: what is wrong is logged and counted. flush ends the
// turn; it is called before a report that needs a batch of its own.
void lade_reports_handle(lade_broker_t *broker, const char *peer, size_t peer_len, int command,
                         const void *body, size_t len, msgpack_zone *zone, void (*flush)(void *arg),
                         void *arg);

// Sends BEAT to every worker and gives up those that were silent for too long.
void lade_reports_beat(lade_broker_t *broker);

// The broker knows no worker any more: each is told to say HELLO again.
void lade_reports_forget(lade_broker_t *broker);

#endif
