// Blocks of memory that bytes are collected in on their way from the network to the disk and the
// hash: page-aligned, so that they can be written past the page cache, and used again and again.
//
// The engine's thread only.
#ifndef LADE_BLOCK_H
#define LADE_BLOCK_H

#include "common/error.h"
#include "workers/download/crew.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LADE_BLOCK_BYTES = 1 << 20, // of a block; blocks begin at multiples of it in the file
    LADE_BLOCK_ALIGN = 4096,    // of memory, place and length, for writing past the page cache
};

typedef struct lade_block {
    struct lade_block *next; // of whoever has it
    char *data;              // LADE_BLOCK_BYTES of them
    int64_t at;              // place in the file of the first
    size_t len, flushed;     // bytes there, and how many of them are written already
    bool writing, hashing;   // a chore has it
    bool hashed;             // or need not be any more: with written, it can go
    void *owner;             // the transfer
    lade_chore_t chore;      // of its writing
    lade_error_t error;      // how that went
} lade_block_t;

typedef struct lade_blocks lade_blocks_t;

// A pool of at most so many blocks, but for those lent by need.
lade_blocks_t *lade_blocks_new(size_t limit);

// An empty block; NULL if the limit is reached and it is not needed, or memory has run out.
lade_block_t *lade_blocks_get(lade_blocks_t *self, bool need);

void lade_blocks_put(lade_blocks_t *self, lade_block_t *block);

// Whether the limit is reached.
bool lade_blocks_full(const lade_blocks_t *self);

// All blocks have to be back.
void lade_blocks_destroy(lade_blocks_t **self_p);

#endif
