// Downloads of several files: the job itself fetches nothing. It waits for one download a file, and
// ends as they did.
//
//   spec    files: [{"url", "path" in destdir, "size"?, "sha256"?}], destdir, access_token?,
//           preserve_partial_downloads?, gates?, requires?
//   result  path (destdir), bytes, parts: [{"url", "path", "bytes", "sha256"}] in the order of
//           files
#ifndef LADE_MULTI_H
#define LADE_MULTI_H

#include "workers/worker/worker.h"

// Answers the task if it is of several files; false if it is not. Does not block.
bool lade_multi_start(lade_task_t *task);

#endif
