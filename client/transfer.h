// Many records at once: reading all there are, and handing many over.
#ifndef LADE_TRANSFER_H
#define LADE_TRANSFER_H

#include "client/request.h"

// All records, in the order of all_models. *list_p is yours.
lade_code_t lade_transfer_all(lade_t *self, json_t **list_p, lade_error_t *error);

// Hands records over to store.import_models, in as many calls as they need. *said_p, yours, is
// {"added", "replaced", "skipped", "failed", "models": [{"key", "outcome", "error"?}…]} in the
// order of models. parts: each call is all or nothing by itself; else what does not fit into one is
// LADE_TOO_LARGE. each: what is wrong with one is no matter to the others.
lade_code_t lade_transfer_import(lade_t *self, const json_t *models, const char *on_conflict,
                                 bool each, bool dry_run, bool parts, json_t **said_p,
                                 lade_error_t *error);

#endif
