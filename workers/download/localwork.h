// Jobs of kind "download" whose source is a path or a file:// URL, between the worker's loop and
// local.h. What takes long (a copy to another file system) is done here, in a thread of a pool;
// between its two steps a job goes through the broker, which keeps what the next one needs.
//
//   spec    destination, or destdir and filename?; size?, sha256? (of a file)
//   result  path, bytes, sha256, url (the source), left (true: the source of a move was changed
//           after it had been copied, and is still there); the others of serve.h, null
#ifndef LADE_LOCALWORK_H
#define LADE_LOCALWORK_H

#include "workers/worker/worker.h"

// Does one step and answers the task. What lade_pool_new takes, with the lade_config_t as its arg.
void lade_localwork_run(void *config, lade_task_t *task);

#endif
