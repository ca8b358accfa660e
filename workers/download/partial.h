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
// lade_partial_write, _read and _checkpoint are safe from several threads at once; the rest is for
// one thread while nobody else uses the partial.
#ifndef LADE_PARTIAL_H
#define LADE_PARTIAL_H

#include "common/error.h"
#include "workers/download/ranges.h"

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
    lade_ranges_t ranges;                      // durable in the partial
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

// Opens the partial of an attempt, with the bytes an earlier attempt left if its journal is of the
// same source. *journal is filled with what is known; free it. Removes what older attempts left
// otherwise. If the earlier attempt had published already, *self_p is NULL, LADE_OK is returned and
// journal->publishing is true. Blocks. LADE_CANCELLED if stop said so while bytes were copied:
// *self_p is then there with no bytes, to be removed or closed. LADE_STALE_LEASE if a later attempt
// has the journal. LADE_NO_SPACE and LADE_NO_MEMORY leave what was there for another try.
lade_code_t lade_partial_open(lade_partial_t **self_p, const lade_partial_where_t *where,
                              lade_journal_t *journal, lade_error_t *error);

// Takes the space of a file of so many bytes from the file system, so that no other transfer can;
// where the file system cannot promise space the free space is looked at. LADE_NO_SPACE leaves as
// much as was used before. Blocks; nobody may write meanwhile.
lade_code_t lade_partial_reserve(lade_partial_t *self, int64_t total, lade_error_t *error);

// Writes bytes at their place; past the page cache if memory, place and length are aligned for that
// (LADE_BLOCK_ALIGN). Blocks.
lade_code_t lade_partial_write(lade_partial_t *self, int64_t at, const void *bytes, size_t len,
                               lade_error_t *error);

// Reads bytes that were written. LADE_CORRUPT if the file is shorter.
lade_code_t lade_partial_read(lade_partial_t *self, int64_t at, void *bytes, size_t len,
                              lade_error_t *error);

// Forgets all bytes and the journal. Space that was reserved is given back.
lade_code_t lade_partial_restart(lade_partial_t *self, lade_error_t *error);

// Folder of mounted file systems' root the partial lies in, as an operator knows it; you free it.
char *lade_partial_volume(const char *folder);

// Makes what is written durable, then says so in the journal: journal->ranges have to have been
// written before this was called. Blocks. LADE_STALE_LEASE if a later attempt has the journal.
lade_code_t lade_partial_checkpoint(lade_partial_t *self, const lade_journal_t *journal,
                                    lade_error_t *error);

// Gives the complete file of journal->total bytes and journal->sha256 its final name, journal->name
// in the folder, durably and never over another; then removes the journal. If the journal has never
// been written (a small file) that is left out: after a crash between the rename and the answer the
// next attempt finds the name taken and compares. Blocks. LADE_EXISTS if the name is taken: the
// partial is still there then.
lade_code_t lade_partial_publish(lade_partial_t *self, lade_journal_t *journal,
                                 lade_error_t *error);

// Removes partial and journal (the latter not, if a later attempt has it).
void lade_partial_remove(lade_partial_t *self);

// Removes what all attempts of a job left, unless somebody has a partial of it open or its journal
// is of another source. For a job that nobody works on any more; where->attempt does not matter.
void lade_partial_discard(const lade_partial_where_t *where);

// Closes; the files stay.
void lade_partial_close(lade_partial_t **self_p);

#endif
