// A file read from front to back through a small window, by formats that are records one after the
// other: what is skipped is not read, and no length in the file is an allocation.
#ifndef LADE_WINDOW_H
#define LADE_WINDOW_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LADE_WINDOW = 1 << 16 }; // the most that is looked at in one piece

typedef struct {
    int fd;
    uint64_t end;  // where the readable part of the file ends
    uint64_t at;   // of the next byte
    uint64_t from; // where in the file the bytes below begin
    size_t have;
    size_t step;   // bytes to read next: doubles while all is read, small again after a skip
    uint64_t read; // bytes read so far, over all
    uint64_t max;  // most that may be read
    uint8_t bytes[LADE_WINDOW];
} lade_window_t;

// For the file's bytes from 0 to end, of which at most max are read. You free it.
lade_window_t *lade_window_new(int fd, uint64_t end, uint64_t max, lade_error_t *error);

// The next len bytes (at most LADE_WINDOW), which stand until the next call; NULL if the file ends
// before (LADE_CORRUPT), cannot be read, or more than max would be (LADE_TOO_LARGE).
const uint8_t *lade_window_take(lade_window_t *self, size_t len, lade_error_t *error);

// Passes over len bytes without reading them. LADE_CORRUPT if the file ends before.
lade_code_t lade_window_skip(lade_window_t *self, uint64_t len, lade_error_t *error);

#endif
