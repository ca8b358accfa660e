// Threads for what blocks on the disk: opening and hashing kept bytes, syncing, publishing. A piece
// of work is done in one of them and then handed back to whoever collects it.
#ifndef LADE_CREW_H
#define LADE_CREW_H

#include <stdbool.h>
#include <stddef.h>

typedef struct lade_crew lade_crew_t;

// Part of whatever has work done; at most one piece each at a time.
typedef struct lade_chore {
    struct lade_chore *next;
    void (*work)(void *arg); // in a thread of the crew
    void (*then)(void *arg); // for the collector to call
    void *arg;
} lade_chore_t;

// wake is called, from a thread of the crew, when something can be collected.
lade_crew_t *lade_crew_new(size_t threads, void (*wake)(void *arg), void *arg);

void lade_crew_add(lade_crew_t *self, lade_chore_t *chore);

// The next finished chore, NULL if there is none.
lade_chore_t *lade_crew_collect(lade_crew_t *self);

// Waits for all that was added, then ends the threads.
void lade_crew_destroy(lade_crew_t **self_p);

#endif
