// A hash table from bytes to pointers. The key stays the caller's, most often a member of the value
// itself.
#ifndef LADE_MAP_H
#define LADE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lade_map lade_map_t;

// Aborts when memory runs out, as all of them do.
lade_map_t *lade_map_new(void);

// The value under that key, NULL if none.
void *lade_map_get(const lade_map_t *self, const void *key, size_t len);

// Puts a value under a key, which has to stay where it is while it is in the table. A value that
// was there is replaced, with its key.
void lade_map_put(lade_map_t *self, const void *key, size_t len, void *value);

// Takes a key out; returns its value, NULL if there was none.
void *lade_map_del(lade_map_t *self, const void *key, size_t len);

size_t lade_map_size(const lade_map_t *self);

// Goes through the values in no order: *at begins as 0; NULL at the end. The table must not change
// meanwhile.
void *lade_map_next(const lade_map_t *self, size_t *at);

void lade_map_destroy(lade_map_t **self_p);

// A hash of bytes, seeded once per table, so that nobody outside can choose keys that collide.
uint64_t lade_map_hash(const void *key, size_t len, uint64_t seed);

#endif
