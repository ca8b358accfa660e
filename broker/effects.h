// What a worker's DONE does to model records, and the events of records.
#ifndef LADE_EFFECTS_H
#define LADE_EFFECTS_H

#include "broker/broker.h"
#include "common/error.h"

#include <jansson.h>
#include <msgpack.h>

// What applying came to. Both are yours, NULL if there is none.
typedef struct {
    json_t *added;   // the record, if exactly one was added
    json_t *refused; // [{"at", "error_type", "error"}]: which of the tolerant ones, and why
} lade_effects_done_t;

// Applies the effects in order and tells their events. If one fails, nothing of them is left: more
// than one need a batch with nothing else in it (lade_effects_need_batch), which is then given up.
// One that is `tolerant` may be refused for what it says (a model that is there already, a field
// that is wrong): the others stand.
lade_code_t lade_effects_apply(lade_broker_t *broker, const msgpack_object *effects,
                               lade_effects_done_t *done, lade_error_t *error);

// True if applying them could leave some of them behind when a later one fails.
bool lade_effects_need_batch(const msgpack_object *effects);

// Tells model_record_added, _updated or _deleted.
void lade_effects_tell(lade_broker_t *broker, const char *event, const json_t *record);

#endif
