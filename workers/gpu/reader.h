// Reads parts of files into memory with several threads.
#ifndef LADE_GPU_READER_H
#define LADE_GPU_READER_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int fd;
    const char *name; // for errors
    uint64_t from;    // bytes from the start of the file
    uint64_t len;
    uint8_t *to;
    uint64_t warm; // bytes of to whose pages are there already; the rest is faulted in piece by
                   // piece, in bulk
} lade_reader_part_t;

// Reads all parts, cut into pieces that the threads (the caller's is one of them) take in turn.
// step, if not NULL, is called between pieces, on the caller's thread only, with the bytes read so
// far; false stops. Blocks. LADE_CANCELLED, LADE_CORRUPT for a file that ends early, LADE_NO_MEMORY
// when there is no page for what is read, LADE_IO_ERROR.
lade_code_t lade_reader_read(const lade_reader_part_t *parts, size_t count, size_t threads,
                             bool (*step)(void *arg, uint64_t bytes), void *arg,
                             lade_error_t *error);

#endif
