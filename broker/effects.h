// What a worker's DONE does to model records, and the events of records.
#ifndef LADE_EFFECTS_H
#define LADE_EFFECTS_H

#include "broker/broker.h"
#include "common/error.h"

#include <jansson.h>
#include <msgpack.h>

// Applies the effects in order and tells their events. If one fails, nothing of them is left: more
// than one need a batch with nothing else in it (lade_effects_need_batch), which is then given up.
// *added_p is the record of the first put_model, yours; NULL if there is none.
lade_code_t lade_effects_apply(lade_broker_t *broker, const msgpack_object *effects,
                               json_t **added_p, lade_error_t *error);

// True if applying them could leave some of them behind when a later one fails.
bool lade_effects_need_batch(const msgpack_object *effects);

// Tells model_record_added, _updated or _deleted.
void lade_effects_tell(lade_broker_t *broker, const char *event, const json_t *record);

#endif
