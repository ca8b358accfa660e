// Tidies up after installs that were cancelled while they waited for their downloads.
//
// Such a job is in no worker's hands, so nobody is told to stop: the event is the only sign. A
// thread listens for it and removes the temporary folder. A cancel that comes while no install
// worker runs leaves the folder; README.md says what to do about it.
#ifndef LADE_SWEEP_H
#define LADE_SWEEP_H

#include "common/config.h"

#include <czmq.h>

// Starts the thread; config is borrowed. NULL if the events cannot be heard (said in the log): the
// worker works without. Create it after the worker, which blocks the signals that threads inherit.
// End it with zactor_destroy.
zactor_t *lade_sweep_new(const lade_config_t *config);

#endif
