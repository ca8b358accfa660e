// What the files of the reader share: reader.c (threads, reads under way), reader_pieces.c
// (cutting) and reader_system.c (what the system allows, what is in the page cache).
#ifndef LADE_GPU_READER_PRIVATE_H
#define LADE_GPU_READER_PRIVATE_H

#include "common/log.h"
#include "workers/gpu/reader.h"

#include <pthread.h>

enum {
    LADE_READER_PAGE = 4096,
    LADE_READER_PIECE = 8 << 20, // bytes read at once to where they belong
    LADE_READER_STAGE = 2 << 20, // bytes read at once by way of a stage
};

// ---------------------------------------------------------------------------------------------------
// reader_system.c

typedef enum { LADE_READER_URING, LADE_READER_THREADS, LADE_READER_BUFFERED } lade_reader_engine_t;

lade_reader_engine_t lade_reader_engine(void);

// One of the ways is closed: says so the first time.
void lade_reader_without(lade_reader_engine_t what, lade_log_level_t level, const char *why,
                         int errnum);

// The same of rings, which this process goes on without.
void lade_reader_no_ring(int errnum);

// Bytes of the range that are in the page cache. False if the system does not say.
bool lade_reader_cached(int fd, uint64_t from, uint64_t len, uint64_t *bytes_p);

// True if the range is rather read through the page cache.
bool lade_reader_is_at_hand(int fd, uint64_t from, uint64_t len);

// For the statistics.
void lade_reader_count(uint64_t direct_bytes, uint64_t cached_bytes);

// ---------------------------------------------------------------------------------------------------
// reader_pieces.c

// What is read at once: of one part, or of several neighbours by way of a stage.
typedef struct {
    const lade_reader_part_t *part; // the first
    size_t parts;
    uint64_t offset; // where it begins in the first
    uint64_t last;   // where it ends in the last
    uint64_t at;     // where it begins in the file
    uint64_t len;    // from there to its end
    int direct;      // the file opened past the page cache; -1: is not
    bool cold;       // next to nothing of the file is in it
} lade_reader_piece_t;

typedef struct {
    pthread_mutex_t lock; // of all below
    const lade_reader_part_t *parts;
    size_t count;
    size_t part; // the next piece begins at offset of this part
    uint64_t offset;
    int direct;    // direct_of opened for direct reads, -1: cannot be
    bool cold;     // of the same file
    int direct_of; // the file of the last piece, -1: none yet
    int *opened;   // all of those; NULL: no memory, nothing is read directly
    size_t opened_count;
} lade_reader_pieces_t;

void lade_reader_pieces_open(lade_reader_pieces_t *self, const lade_reader_part_t *parts,
                             size_t count);
void lade_reader_pieces_close(lade_reader_pieces_t *self);

// Takes the next one; false if there is none. Safe from any thread.
bool lade_reader_pieces_take(lade_reader_pieces_t *self, lade_reader_piece_t *piece);

// True if a part is read to where it belongs also past the page cache.
bool lade_reader_lies_alike(const lade_reader_part_t *part);

#endif
