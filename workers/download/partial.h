// A file that is being fetched: the partial file, the journal beside it, and the step that makes it
// whole.
//
//     FOLDER/.BASE.JOB-ATTEMPT.part   the bytes
//     FOLDER/.BASE.JOB.journal        what of them is durable, and of which version of the source
//
// The journal is written after the bytes it tells of are on disk, so it never claims what a power
// loss can take. A new attempt takes the bytes of the one before it into a file that nobody else
// has open: it renames the old partial if a lease on it proves that, else it copies. So a worker
// that was stopped and goes on writes into a file of its own, never into what its successor
// publishes.
//
// One thread at a time uses a partial, but for lade_partial_checkpoint, which may run beside
// lade_partial_append.
#ifndef LADE_PARTIAL_H
#define LADE_PARTIAL_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lade_partial lade_partial_t;

// What the journal keeps.
typedef struct {
    char *source;                              // digest of the URL: URLs can carry secrets
    char *etag, *last_modified, *content_type; // of the source, NULL if it said none
    char *name;                                // the file's final name, NULL while unknown
    char *part;                                // name of the partial file
    char *sha256;                              // of the whole file, when publishing
    int64_t total;                             // bytes of the whole file, -1 while unknown
    int64_t bytes;                             // durable in the partial
    int64_t attempt;                           // who wrote it
    bool publishing; // the bytes are complete and verified; inode is about to get its final name
    uint64_t inode, device;
    int64_t mtime_ns; // inode numbers are used again
} lade_journal_t;

lade_journal_t lade_journal_copy(const lade_journal_t *self);
void lade_journal_free(lade_journal_t *self);

// Where the partial of a job lies. base is the name in the hidden names; it need not be the final
// one.
typedef struct {
    const char *folder, *base, *source; // source: the URL
    int64_t id, attempt;
    bool (*stop)(void *arg); // polled while kept bytes are read; may be NULL
    void *arg;
} lade_partial_where_t;

// Opens the partial of an attempt, with the bytes an earlier attempt left (hashed again, once) if
// its journal is of the same source. *journal is filled with what is known; free it. Removes what
// older attempts left otherwise. If the earlier attempt had published already, *self_p is NULL,
// LADE_OK is returned and journal->publishing is true. Blocks. LADE_CANCELLED if stop said so:
// *self_p is then there with no bytes, to be removed or closed. LADE_STALE_LEASE if a later attempt
// has the journal. LADE_NO_SPACE and LADE_NO_MEMORY leave what was there for another try.
lade_code_t lade_partial_open(lade_partial_t **self_p, const lade_partial_where_t *where,
                              lade_journal_t *journal, lade_error_t *error);

// Bytes there are, in the file and the hash.
int64_t lade_partial_bytes(const lade_partial_t *self);

lade_code_t lade_partial_append(lade_partial_t *self, const void *bytes, size_t len,
                                lade_error_t *error);

// Forgets all bytes and the journal.
lade_code_t lade_partial_restart(lade_partial_t *self, lade_error_t *error);

// Makes the first journal->bytes bytes durable, then says so in the journal. Blocks.
// LADE_STALE_LEASE if a later attempt has the journal.
lade_code_t lade_partial_checkpoint(lade_partial_t *self, const lade_journal_t *journal,
                                    lade_error_t *error);

// sha256 of all bytes, in hex.
void lade_partial_digest(const lade_partial_t *self, char hex[65]);

// Gives the complete file its final name, journal->name in the folder, durably and never over
// another; then removes the journal. Blocks. LADE_EXISTS if the name is taken: the partial is still
// there then.
lade_code_t lade_partial_publish(lade_partial_t *self, lade_journal_t *journal,
                                 lade_error_t *error);

// Removes partial and journal (the latter not, if a later attempt has it).
void lade_partial_remove(lade_partial_t *self);

// Removes what all attempts of a job left, unless somebody has a partial of it open or its journal
// is of another source. For a job that nobody works on any more; where->attempt does not matter.
void lade_partial_discard(const lade_partial_where_t *where);

// Closes; the files stay.
void lade_partial_close(lade_partial_t **self_p);

// sha256 of a file, in hex. Blocks; LADE_CANCELLED if stop said so.
lade_code_t lade_partial_hash_file(const char *path, bool (*stop)(void *arg), void *arg,
                                   char hex[65], lade_error_t *error);

#endif
