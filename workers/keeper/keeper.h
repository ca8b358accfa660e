// The keeper: holds descriptors for processes that may be killed (common/keep.h has the protocol).
// One thread, one poll; nothing in it can fail because of what it holds.
#ifndef LADE_KEEPER_KEEPER_H
#define LADE_KEEPER_KEEPER_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct lade_keeper lade_keeper_t;

enum {
    LADE_KEEPER_MAX_RECORDS = 1 << 16,
    LADE_KEEPER_MAX_OWNERS = 64,
};

// Listens on DATA/keeper.sock, of mode 0600; a socket nobody listens on any more is replaced.
// keep_ms: how long what an owner left is kept. LADE_BUSY if a keeper listens there,
// LADE_CONFIG_ERROR if the folder's name is too long for a socket.
lade_code_t lade_keeper_new(const char *data, int64_t keep_ms, lade_keeper_t **self_p,
                            lade_error_t *error);

// Serves until stop (a descriptor) is readable.
lade_code_t lade_keeper_run(lade_keeper_t *self, int stop, lade_error_t *error);

// Serves what is there to be served without waiting longer than timeout_ms; for tests.
lade_code_t lade_keeper_turn(lade_keeper_t *self, int stop, int timeout_ms, lade_error_t *error);

// Records held, those of owners that are gone included.
size_t lade_keeper_count(const lade_keeper_t *self);

// Lets go of everything and removes the socket. NULL-safe.
void lade_keeper_destroy(lade_keeper_t **self_p);

#endif
