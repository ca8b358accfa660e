// Tells when a keeper begins to listen, so that it is told at once of what there is and not only at
// the next beat.
#ifndef LADE_GPU_KEEP_WATCH_H
#define LADE_GPU_KEEP_WATCH_H

typedef struct lade_keep_watch lade_keep_watch_t;

// on_come is called in a thread of the watch's own, once or more for each keeper that comes. NULL
// if the system has no watch to give; that is said in the log.
lade_keep_watch_t *lade_keep_watch_new(const char *data, void (*on_come)(void *arg), void *arg);

// Once it returns on_come is not called any more. NULL-safe.
void lade_keep_watch_destroy(lade_keep_watch_t **self_p);

#endif
