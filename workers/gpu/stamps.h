// Files as they were when they were read: what is held of them is served only while they are the
// same (device, inode, size, time of change). Some name others beside them, as ONNX graphs do;
// those are known once they are read, and belong to it.
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
    char *beside; // the path, of a file that another names; else NULL
} lade_stamp_t;

typedef struct {
    lade_stamp_t *list;
    size_t count;
} lade_stamps_t;

// Free with lade_stamps_free whatever is returned. LADE_MODEL_NOT_FOUND if one is gone,
// LADE_NO_MEMORY, LADE_IO_ERROR.
lade_code_t lade_stamps_take(lade_stamps_t *self, const lade_files_t *files, lade_error_t *error);
void lade_stamps_free(lade_stamps_t *self);

// Adds a file that another names, as it is open at fd. LADE_NO_MEMORY, LADE_IO_ERROR.
lade_code_t lade_stamps_add(lade_stamps_t *self, int fd, const char *path, lade_error_t *error);

bool lade_stamps_same(const lade_stamps_t *a, const lade_stamps_t *b);

// Whether all is as it was: what was taken is what is taken now, and what was added is still there,
// for which it is looked at.
bool lade_stamps_still(const lade_stamps_t *was, const lade_stamps_t *now);

// As a list of lists of numbers (yours), and from one. False without memory.
json_t *lade_stamps_pack(const lade_stamps_t *self);
bool lade_stamps_unpack(lade_stamps_t *self, const json_t *list);

#endif
