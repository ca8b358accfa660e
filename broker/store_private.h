// What the files of the keyspace share: the struct behind lade_store_t, and LMDB. Nobody else
// includes this.
#ifndef LADE_STORE_PRIVATE_H
#define LADE_STORE_PRIVATE_H

#include "broker/store.h"
#include "broker/wal.h"
#include "common/buf.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

struct lade_store {
    char *folder;
    int lock_fd; // holds the process lock as long as it is open
    MDB_env *env;
    MDB_dbi tables[LADE_DB_COUNT];
    MDB_txn *write; // holds what was written since the last checkpoint; NULL if nothing was
    lade_wal_t *wal;
    lade_buf_t batch;      // the open batch as the log takes it
    bool logging;          // writes go to the batch; not while the log is taken up
    int64_t logged_ms;     // when the first batch of this generation was logged
    int64_t checkpoint_ms; // how long the last checkpoint took
    MDB_txn *read;         // kept and renewed, as making one costs more than a look-up
    bool reading;          // read holds a snapshot
    bool grow;             // the last batch found the map full
    lade_error_t spoiled;  // why the open batch cannot be committed
    lade_error_t broken;   // why nothing can be done any more
    lade_store_t *of;      // of a view: the store it looks at, whose env and tables it borrows
    // Views that are open. The map must not move under them.
    pthread_mutex_t views_lock;
    pthread_cond_t views_gone;
    unsigned views;
    atomic_bool wanted; // the map has to grow: views are to be closed
};

enum { LADE_STORE_WAL_BYTES = 2 << 20 }; // of a log that is new

// store.c

// A failure of LMDB as ours, with what to do about it.
lade_code_t lade_store_error(const lade_store_t *self, int rc, const char *doing,
                             lade_error_t *error);

// Begins LMDB's write transaction if there is none; lets the map grow first where it has to.
lade_code_t lade_store_begin(lade_store_t *self, lade_error_t *error);

// LMDB commits, whatever its age, and the log begins anew.
lade_code_t lade_store_commit_now(lade_store_t *self, lade_error_t *error);

// Does again what a generation of the log holds, its first `most` batches.
lade_code_t lade_store_take_up(lade_store_t *self, uint64_t generation, uint64_t most,
                               lade_error_t *error);

// Bytes of the file up to its last page; *map_p (may be NULL) is the size of the map.
size_t lade_store_used_bytes(const lade_store_t *self, size_t *map_p);

// store_view.c: of a view only.
void lade_store_close_view(lade_store_t *view);

#endif
