// A set of byte ranges: what of a file is claimed, written, durable.
//
// Ordered, never touching each other. A file has few of them, since bytes are handed out from the
// front: they are looked through, not searched. Not for several threads.
#ifndef LADE_RANGES_H
#define LADE_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t from, to; // the byte after the last
} lade_range_t;

// {0} is the empty set.
typedef struct {
    lade_range_t *items;
    size_t count, room;
    int64_t bytes; // in all of them
} lade_ranges_t;

// Adds from..to, which may be there in part. Aborts when memory runs out.
void lade_ranges_add(lade_ranges_t *self, int64_t from, int64_t to);

// Takes from..to out, which may be there in part.
void lade_ranges_remove(lade_ranges_t *self, int64_t from, int64_t to);

// The first byte at or after at that is not in the set.
int64_t lade_ranges_gap(const lade_ranges_t *self, int64_t at);

// The first byte at or after at that is in the set; INT64_MAX if there is none.
int64_t lade_ranges_next(const lade_ranges_t *self, int64_t at);

// The byte after the last one; 0 if empty.
int64_t lade_ranges_end(const lade_ranges_t *self);

lade_ranges_t lade_ranges_copy(const lade_ranges_t *self);
void lade_ranges_free(lade_ranges_t *self);

#endif
