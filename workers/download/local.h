// Sources on this machine: an absolute path, whose file or folder is moved, or a file:// URL, whose
// file or folder is copied. It knows nothing of brokers and jobs.
//
// It goes in steps, and what a step returns as state has to be on disk before the next one:
//
//   no state      looks, checks, chooses the final name; on another file system, and for a URL,
//                 copies to FOLDER/.NAME.JOB-ATTEMPT.part beside it      → state
//   state         renames to the final name, never over another; then a moved source that was
//                 copied goes, unless somebody changed it meanwhile      → done
//
// A kill at any moment leaves the source whole, or the destination, or both; the state tells the
// next attempt by its inode whether what has the final name is what it was to place.
#ifndef LADE_LOCAL_H
#define LADE_LOCAL_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// True if the source of a job is one of these: it begins with a slash or with file:.
bool lade_local_is(const char *source);

typedef struct {
    int64_t id, attempt; // name what is not ready yet
    const char *source;
    const char *destination;   // the file or folder to be; a folder that is there (or ends in a
                               // slash): placed inside. NULL: destdir and a name.
    const char *destdir;       // made if it is missing
    const char *filename;      // in destdir; NULL: the source's name
    const char *sha256;        // 64 hex digits, of a file only; NULL: not checked
    int64_t size;              // -1: not checked
    const char *data, *models; // lade's own folders: nothing in or around them is moved, and of
                               // data only models is copied. NULL: there are none.
    const json_t *state;       // what the last step left; NULL: the first step
    // path: the final one. May be NULL.
    void (*progress)(void *arg, int64_t bytes, int64_t total, const char *path);
    // LADE_OK, or LADE_CANCELLED, LADE_PAUSED, LADE_STALE_LEASE: stop. May be NULL.
    lade_code_t (*stop)(void *arg);
    void *arg;
} lade_local_t;

typedef struct {
    json_t *state; // not NULL: make it durable, then call again with it
    char *path;    // the final one
    int64_t bytes;
    char sha256[65]; // "" if nobody wanted to know
    bool left;       // the source was changed after it had been copied, and is still there
    bool final;      // of an error: trying again mends nothing, whatever the code says
} lade_local_answer_t;

// Does one step. Blocks. Free the answer with lade_local_free whatever is returned. A stop removes
// what was copied (a pause too: it starts over) and leaves the source; LADE_STALE_LEASE leaves what
// a later attempt needs. LADE_NOT_FOUND, LADE_EXISTS, LADE_DIGEST_MISMATCH, LADE_SIZE_MISMATCH,
// LADE_NO_SPACE, LADE_BUSY (changed while it was copied), LADE_VALUE_ERROR.
lade_code_t lade_local_step(const lade_local_t *request, lade_local_answer_t *answer,
                            lade_error_t *error);
void lade_local_free(lade_local_answer_t *answer);

// Removes what a job left beside its final path that was cancelled while nobody worked on it.
void lade_local_discard(int64_t id, const char *path);

#endif
