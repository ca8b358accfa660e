// Files as they were when they were read: what is held of them is served only while they are the
// same (device, inode, size, time of change).
#ifndef LADE_GPU_STAMPS_H
#define LADE_GPU_STAMPS_H

#include "workers/gpu/folder.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

typedef struct {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
} lade_stamp_t;

typedef struct {
    lade_stamp_t *list;
    size_t count;
} lade_stamps_t;

// Free with lade_stamps_free whatever is returned. LADE_MODEL_NOT_FOUND if one is gone,
// LADE_NO_MEMORY, LADE_IO_ERROR.
lade_code_t lade_stamps_take(lade_stamps_t *self, const lade_files_t *files, lade_error_t *error);
void lade_stamps_free(lade_stamps_t *self);

bool lade_stamps_same(const lade_stamps_t *a, const lade_stamps_t *b);

// As a list of lists of numbers (yours), and from one. False without memory.
json_t *lade_stamps_pack(const lade_stamps_t *self);
bool lade_stamps_unpack(lade_stamps_t *self, const json_t *list);

#endif
