// Loading below the text: what lade_load does, with progress and the whole answer.
#ifndef LADE_MODEL_H
#define LADE_MODEL_H

#include "client/request.h"

// op is load_model_by_key or load_model_by_attr, args (taken) its arguments; the lock, the process
// and the host are added here. *model_p is set only on success.
lade_code_t lade_model_load(lade_t *self, const char *op, json_t *args,
                            lade_request_partial_t *on_partial, void *arg, lade_model_t **model_p,
                            lade_error_t *error);

// The answer of the broker (broker/README.md, "install, download, load"); stays the model's.
const json_t *lade_model_answer(const lade_model_t *self);

#endif
