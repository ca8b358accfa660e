// Files that were looked at and are no models, so that the next scan need not read them again: each
// counts as long as nothing about it has changed (device, inode, size, mtime, ctime). Kept in
// memory, for the life of the process, which has one set of rules.
#ifndef LADE_REFUSED_H
#define LADE_REFUSED_H

#include "common/error.h"

#include <stdbool.h>
#include <sys/stat.h>

typedef struct lade_refused lade_refused_t;

lade_refused_t *lade_refused_new(void);

// Whether the file at path was refused as it is now; *error is why. st is its stat. Safe from any
// thread, as is lade_refused_add.
bool lade_refused_find(lade_refused_t *self, const char *path, const struct stat *st,
                       lade_error_t *error);

// Remembers a refusal, if it is one that only the file's content can change.
void lade_refused_add(lade_refused_t *self, const char *path, const struct stat *st,
                      const lade_error_t *error);

void lade_refused_destroy(lade_refused_t **self_p);

#endif
