// The attach server: hands the segments' descriptors to other processes (common/segment.h has the
// protocol).
#ifndef LADE_GPU_ATTACH_H
#define LADE_GPU_ATTACH_H

#include "common/error.h"
#include "common/share.h"

#include <stddef.h>
#include <stdint.h>

typedef struct lade_attach lade_attach_t;

// A connection that is attached, and what detach is told.
typedef struct {
    int connection;
    uint64_t id;
} lade_attach_peer_t;

// What stands behind the server. Called on its thread.
typedef struct {
    // A connection hands in a lease. Gives a descriptor that stays the callee's and is open until
    // detach, the segment's length, and what detach is told; for a segment on a device also how its
    // data is shared (else share stays as it is).
    lade_code_t (*attach)(void *self, const char *lease, int *fd_p, uint64_t *length_p,
                          lade_share_t *share, uint64_t *id_p, lade_error_t *error);
    // The connection is gone.
    void (*detach)(void *self, uint64_t id);

    // These may be NULL: a connection is about to be given its segment, and is about to be closed
    // (called before detach, also if the segment could not be sent); those there are already when
    // the server is made, which become the server's.
    void (*attached)(void *self, uint64_t id, int connection);
    void (*parted)(void *self, int connection);
    size_t (*inherited)(void *self, lade_attach_peer_t *peers, size_t most);
} lade_attach_ops_t;

enum {
    LADE_ATTACH_MAX = 1024,         // connections at once
    LADE_ATTACH_PATIENCE_MS = 5000, // for a connection to hand in its lease
};

// Listens on a socket of mode 0600 in folder, named after this process, and starts the thread.
// Sockets there of processes that are gone are removed. LADE_CONFIG_ERROR if the folder's name is
// too long for a socket.
lade_code_t lade_attach_new(const char *folder, const lade_attach_ops_t *ops, void *arg,
                            lade_attach_t **self_p, lade_error_t *error);

const char *lade_attach_path(const lade_attach_t *self);

// Ends the thread, closes the connections (each with detach) and removes the socket.
void lade_attach_destroy(lade_attach_t **self_p);

#endif
