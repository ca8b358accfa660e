// Tar files from strangers: their members, and headers that two readers could understand
// differently.
#ifndef LADE_TAR_H
#define LADE_TAR_H

#include "common/formats/tensors.h"

enum { LADE_TAR_BLOCK = 512, LADE_TAR_MAX_MEMBERS = 20000 };

typedef struct {
    char name[260]; // ended by a NUL
    uint64_t at;    // where its bytes begin in the file
    uint64_t size;
} lade_tar_member_t;

// True if the first block of a file is the header of a tar file. It is told by its checksum alone,
// as old ones have nothing else (and torch asks for nothing else).
bool lade_tar_is(const uint8_t *head, size_t len);

// Returns false to end the walk.
typedef bool lade_tar_see_t(void *arg, const lade_tar_member_t *member);

// Tells of each member that is a file, in the order of the archive. Findings go to list.
// LADE_CORRUPT for a member that reaches beyond the file, LADE_TOO_LARGE for too many.
lade_code_t lade_tar_each(int fd, uint64_t size, lade_tensors_t *list, lade_tar_see_t *see,
                          void *arg, lade_error_t *error);

#endif
