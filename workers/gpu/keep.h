// The load worker's end of the keeper (common/keep.h): what it hands over outlives its crash.
//
// A keeper is no condition for anything: without one, or with one that does not answer, models are
// loaded all the same, and read again after a crash. Not safe from two threads at once.
#ifndef LADE_GPU_KEEP_H
#define LADE_GPU_KEEP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct lade_keep lade_keep_t;

// Looks for a keeper in the data folder; name is the worker's.
lade_keep_t *lade_keep_new(const char *data, const char *name);

// Has the keeper drop all that was put. NULL-safe.
void lade_keep_destroy(lade_keep_t **self_p);

// From here on the keeper is told nothing more: what it holds it holds for the next worker.
void lade_keep_leave(lade_keep_t *self);
bool lade_keep_connected(const lade_keep_t *self);

// Takes over what workers left that are gone: on_record is called with each, and owns its
// descriptor; facts is the callee's to look at only. The keeper holds none of it any more: what is
// to be kept is put again.
void lade_keep_take(lade_keep_t *self, void (*on_record)(void *arg, const json_t *facts, int fd),
                    void *arg);

// Hands over a descriptor, which stays the caller's as well, and what is to be known of it. What
// does not get there is not kept.
void lade_keep_put(lade_keep_t *self, const char *id, const json_t *facts, int fd);
void lade_keep_drop(lade_keep_t *self, const char *id);

// Looks for a keeper that was lost or was not there: now, or if the last look is a while ago. True
// if it was found just now: it knows nothing of what was put before.
bool lade_keep_again(lade_keep_t *self, bool now);

// {"connected", "why": not, or null, "taken": records taken over}; yours.
json_t *lade_keep_stats(const lade_keep_t *self);

#endif
