// Asks: what a job wants to know of the keyspace when its next stage begins. AWAIT brings them, the
// broker keeps them with the job and answers each afresh whenever the stage is dispatched; the JOB
// has the answers in the same order.
#ifndef LADE_ASKS_H
#define LADE_ASKS_H

#include "broker/broker.h"
#include "broker/job.h"
#include "common/buf.h"
#include "common/error.h"

#include <msgpack.h>

// Takes the `ask` of an AWAIT (NULL or nil: none). LADE_BAD_REQUEST if it is no array of at most
// LADE_BROKER_MAX_ASKS maps, or has a secret in it.
lade_code_t lade_asks_take(lade_blob_t *ask, const msgpack_object *object, lade_error_t *error);

// Packs the array of answers to what was taken. An ask that cannot be answered is answered with
// {"error": {"code", "message"}}; the others are not touched by that.
void lade_asks_put_answers(lade_broker_t *broker, const lade_blob_t *ask, lade_buf_t *buf);

#endif
