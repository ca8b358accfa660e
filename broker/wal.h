// The write-ahead log of the keyspace: small batches, each durable with one wait for the disk.
//
// A file whose blocks are all written when it is made, and when it grows, so that appending changes
// data only and the file system has nothing of its own to make durable. It holds the batches since
// the last checkpoint; a checkpoint raises the generation and begins at the front again, over what
// is there.
//
//   record   magic "LWAL", length (4 bytes), generation (8), number within it (8), check (16), then
//   the batch,
//            padded to 512 bytes so that a write torn by a power cut cannot touch the record before
//            it; little-endian; check is murmur3 128 of the head before it and the batch
#ifndef LADE_WAL_H
#define LADE_WAL_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lade_wal lade_wal_t;

// Opens the log in folder, making it (bytes long) if it is not there. LADE_NO_SPACE, LADE_IO_ERROR.
lade_code_t lade_wal_open(const char *folder, size_t bytes, lade_wal_t **self_p,
                          lade_error_t *error);

// Gives each whole record of that generation to apply, in order, up to the first that is not there
// and at most that many, and goes on appending after the last. apply's failure ends it.
lade_code_t lade_wal_replay(lade_wal_t *self, uint64_t generation, uint64_t most,
                            lade_code_t (*apply)(void *arg, const void *batch, size_t len,
                                                 lade_error_t *error),
                            void *arg, lade_error_t *error);

// Begins at the front again: what the log holds belongs to an older generation from now on.
void lade_wal_restart(lade_wal_t *self, uint64_t generation);

// Makes the log longer, if it is shorter than that; on failure it stays as it is. Only right after
// lade_wal_restart.
void lade_wal_grow(lade_wal_t *self, size_t bytes);
size_t lade_wal_bytes(const lade_wal_t *self);

// True if a batch of that length can be appended.
bool lade_wal_fits(const lade_wal_t *self, size_t len);

// Appends a batch and waits until it is on disk. After a failure nothing more fits until
// lade_wal_restart: whether the batch would be replayed is not known.
lade_code_t lade_wal_append(lade_wal_t *self, const void *batch, size_t len, lade_error_t *error);

uint64_t lade_wal_generation(const lade_wal_t *self);

// Batches appended in this generation.
uint64_t lade_wal_count(const lade_wal_t *self);

void lade_wal_close(lade_wal_t **self_p);

#endif
