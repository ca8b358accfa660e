// Chores: long work on the keyspace and its files (a backup, a check) on a thread of its own, while
// the loop goes on.
//
// A chore is asked for by a call, begins after the turn's commit with a view of the keyspace as
// that commit left it, and is answered in a later turn. One at a time: a second is LADE_BUSY. It
// may take several steps: `run` works on the thread and touches nothing of the broker; `then` works
// in the loop.
#ifndef LADE_CHORES_H
#define LADE_CHORES_H

#include "broker/call.h"

#include <jansson.h>
#include <stdatomic.h>

typedef struct lade_chores lade_chores_t;
typedef struct lade_chore lade_chore_t;

typedef struct {
    const char *name; // "a backup"

    // On the thread. *result_p, a map, is what the call is answered, or what `then` gets.
    lade_code_t (*run)(lade_chore_t *chore, json_t **result_p, lade_error_t *error);

    // In the loop, in a turn before its commit; may write to the keyspace. Returns true if `run` is
    // to go on (on a thread again, with a fresh view). NULL: nothing.
    bool (*then)(lade_broker_t *broker, lade_chore_t *chore, json_t *result);

    void (*free)(void *state);
} lade_chore_kind_t;

struct lade_chore {
    const lade_chore_kind_t *kind;
    void *state;                 // the kind's own
    const lade_config_t *config; // does not change
    lade_store_t *view;          // of run; closed after it
    int round;                   // how often run was called before
    _Atomic int64_t done, total; // what PARTIAL answers tell: bytes, or records
    atomic_bool stop;            // the broker ends: give up soon
};

lade_chores_t *lade_chores_new(lade_broker_t *broker);

// Starts a chore for the call, which it will answer; partial answers {"done", "total"} if the call
// asks for them. state is taken, also on failure. LADE_BUSY.
lade_code_t lade_chores_start(lade_chores_t *self, const lade_call_t *call,
                              const lade_chore_kind_t *kind, void *state, lade_error_t *error);

// True if the chore should give up: the broker ends, or the keyspace wants its view back.
bool lade_chore_stopped(const lade_chore_t *chore);

// A descriptor that is readable when a chore wants a turn.
int lade_chores_descriptor(const lade_chores_t *self);

// Before a turn's commit: takes in what the thread has done. After it: begins what was asked for.
// The turn was not committed: what was asked for in it is refused.
void lade_chores_take(lade_chores_t *self);
void lade_chores_begin(lade_chores_t *self);
void lade_chores_fail(lade_chores_t *self, const lade_error_t *error);

// Once a beat: tells how far it is.
void lade_chores_beat(lade_chores_t *self);

// Stops and waits for the thread.
void lade_chores_destroy(lade_chores_t **self_p);

#endif
