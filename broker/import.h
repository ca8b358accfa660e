// Many records at once: all of them or none, or each on its own.
#ifndef LADE_IMPORT_H
#define LADE_IMPORT_H

#include "broker/call.h"

enum { LADE_IMPORT_MAX = 10000 }; // records of one call

// store.import_models {models, on_conflict?, each?, dry_run?}; broker/README.md says what it does.
lade_call_fn lade_import_call;

#endif
