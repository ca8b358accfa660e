// Reads parts of files into memory with several threads.
//
// What is in the page cache is copied out of it; what is not is read past it (O_DIRECT), with
// several reads under way at once: through io_uring where the kernel gives one, else by more
// threads. What is to be turned on the way (cast, laid out otherwise) is turned by the same threads
// while other reads go on. Whatever of that the system does not allow is done without, and said
// once.
#ifndef LADE_GPU_READER_H
#define LADE_GPU_READER_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lade_reader_part lade_reader_part_t;

// What becomes of len bytes of a part from offset on: a multiple of its unit, or up to its end.
// Called on any of the threads, of several parts and pieces at once.
typedef lade_code_t lade_reader_turn_t(const lade_reader_part_t *part, uint64_t offset,
                                       const uint8_t *bytes, uint64_t len, lade_error_t *error);

struct lade_reader_part {
    int fd;
    const char *name; // for errors
    uint64_t from;    // bytes from the start of the file
    uint64_t len;
    uint8_t *to;
    uint64_t warm; // bytes of to whose pages are there already; the rest is faulted in piece by
                   // piece, in bulk

    lade_reader_turn_t *turn; // puts the bytes where they belong; NULL: they go to to as they are
    const void *how;          // turn's
    uint64_t unit;            // bytes that can be turned without those around them
};

// Reads all parts, cut into pieces that the threads (the caller's is one of them) take in turn.
// step, if not NULL, is called between pieces, on the caller's thread only, with the bytes read so
// far; false stops. Blocks. LADE_CANCELLED, LADE_CORRUPT for a file that ends early, LADE_NO_MEMORY
// when there is no page for what is read, LADE_IO_ERROR, or what a turn returns.
//
// Parts of one file that are turned are best in the order of the file: neighbours are read in one
// piece. They, and what does not lie alike in the file and in memory (from and to equal modulo
// 4096), go by way of stages: 2 MiB for each read under way, and as long as a unit if that is more.
lade_code_t lade_reader_read(const lade_reader_part_t *parts, size_t count, size_t threads,
                             bool (*step)(void *arg, uint64_t bytes), void *arg,
                             lade_error_t *error);

// How this process reads from now on, by the words of load.io: "auto", "uring", "threads" (direct
// reads, one a thread) or "buffered" (everything through the page cache). LADE_CONFIG_ERROR.
lade_code_t lade_reader_choose(const char *io, lade_error_t *error);

// {"engine": "uring"|"threads"|"buffered", "why": what kept us from a better one or null,
// "direct_bytes", "cached_bytes"}, of this process; yours.
json_t *lade_reader_stats(void);

#endif
