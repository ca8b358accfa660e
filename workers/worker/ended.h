// Tells a worker of jobs that were ended while nobody held them.
//
// A job that is paused, waits or is queued is in no worker's hands, so nobody is told to stop when
// it is cancelled: the event is the only sign. A thread listens for it, so that what the job left
// on the disk can go. What is cancelled while no worker of the kind listens is not told later.
#ifndef LADE_ENDED_H
#define LADE_ENDED_H

#include "common/config.h"

#include <czmq.h>
#include <jansson.h>

// Calls ended on a thread of its own for each event of that name ("download_cancelled"), a second
// after it, so that a worker that held the job has let go: job is its id, event the body, which
// stays ours. ended may block. config is borrowed. NULL if the events cannot be heard (said in the
// log): the worker works without. Make it after the worker, which blocks the signals that threads
// inherit; end it with zactor_destroy.
zactor_t *lade_ended_new(const lade_config_t *config, const char *event,
                         void (*ended)(void *arg, int64_t job, const json_t *event), void *arg);

#endif
