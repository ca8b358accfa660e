// Events: numbered, journaled in the turn's batch, and told to subscribers after its commit.
//
// An event is opened with its name, id and number of payload pairs, the pairs are packed, and it is
// closed. Events that are not journaled (progress, beats) carry the newest journaled seq and
// `progress: true`.
#ifndef LADE_EVENTS_H
#define LADE_EVENTS_H

#include "broker/broker.h"
#include "common/buf.h"
#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

// Reads the counters and counts this life's epoch up (in the store's batch). max_events are kept.
lade_code_t lade_events_open(lade_store_t *store, int64_t max_events, lade_events_t **self_p,
                             lade_error_t *error);

uint64_t lade_events_seq(const lade_events_t *self);
uint64_t lade_events_epoch(const lade_events_t *self);
// The number of the oldest event in the journal; of the next one if it is empty.
uint64_t lade_events_oldest(const lade_events_t *self);

// Begins an event about a job, or about a thing with a name. Exactly `pairs` pairs go into the
// buffer that is returned, then lade_events_end. name is static text.
lade_buf_t *lade_events_begin(lade_events_t *self, const char *name, uint64_t job_id, size_t pairs,
                              bool journaled, double now);
lade_buf_t *lade_events_begin_named(lade_events_t *self, const char *name, const char *id,
                                    size_t pairs, bool journaled, double now);
void lade_events_end(lade_events_t *self);

// Writes the turn's journaled events as one value, and drops what is over the ceiling. Errors stay
// with the batch.
void lade_events_write(lade_events_t *self);

// Goes through the turn's events in order.
void lade_events_each(const lade_events_t *self,
                      void (*each)(void *arg, const char *topic, size_t topic_len, const char *body,
                                   size_t len),
                      void *arg);

// Number of the turn's events.
size_t lade_events_pending(const lade_events_t *self);

// Begins a new turn. committed: those of the last one are in the keyspace; else their numbers are
// used again.
void lade_events_turn(lade_events_t *self, bool committed);

// Packs the answer of events.since: journaled and committed events with a seq above `seq` whose
// names begin with one of the prefixes (none: all). LADE_TOO_OLD if the journal begins later.
lade_code_t lade_events_since(lade_events_t *self, uint64_t seq, const char *const *prefixes,
                              size_t prefix_count, size_t limit, size_t max_bytes, lade_buf_t *buf,
                              lade_error_t *error);

void lade_events_close(lade_events_t **self_p);

#endif
