// Files and folder trees of this machine: looked at, and copied as they are.
//
// Links in a folder are copied as links and never followed, so that nothing outside of it is read;
// what is neither file, folder nor link is refused. Folders are walked by their descriptors: one
// that is exchanged for a link meanwhile leads nowhere else.
#ifndef LADE_TREE_H
#define LADE_TREE_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    bool folder;
    int64_t bytes; // of all files
    // Of the names, kinds, sizes, times and inodes of all that is in it: the same as long as nobody
    // changed anything (by accident; it is no digest).
    uint64_t print[2];
} lade_tree_t;

// Looks at a file or folder; the path itself may be a link. Reads no file. Blocks. LADE_NOT_FOUND,
// LADE_VALUE_ERROR for what is no file or folder, LADE_TOO_LARGE over 64 folders in each other.
lade_code_t lade_tree_look(const char *path, lade_tree_t *tree, lade_error_t *error);

bool lade_tree_same(const lade_tree_t *one, const lade_tree_t *other);

// How to copy or read.
typedef struct {
    // Told the bytes of each piece, at most 8 MiB; may answer a code to stop with (LADE_OK: go on).
    // NULL: nobody is told.
    lade_code_t (*step)(void *arg, int64_t bytes);
    void *arg;
    char *sha256; // of a file: 65 bytes, filled with the digest in hex. NULL: not wanted.
} lade_tree_how_t;

// Copies a file or a folder to a new name, with its permissions (not those of set-user-id) and
// times: in no time where the file system can share the bytes, else its bytes, in one pass with the
// digest. Everything is durable when it returns, but for the entry of to in its folder. Blocks.
// LADE_EXISTS, LADE_NO_SPACE (asked for before the bytes of a file are written), the code of step.
// After an error what was copied is left for the caller to remove (lade_path_remove).
lade_code_t lade_tree_copy(const char *from, const char *to, const lade_tree_how_t *how,
                           lade_error_t *error);

// The digest of a file (how->sha256 is needed). Blocks.
lade_code_t lade_tree_hash(const char *path, const lade_tree_how_t *how, lade_error_t *error);

#endif
