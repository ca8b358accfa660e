// A binary heap of pointers whose members know their place, so that any of them can be taken out.
#ifndef LADE_HEAP_H
#define LADE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    bool (*less)(const void *a, const void *b);
    size_t place; // offset in a member of a uint32_t: its position + 1, 0 while it is in no heap
    void **items;
    size_t len, cap;
} lade_heap_t;

// An empty heap; nothing is allocated yet.
#define LADE_HEAP(type, member, less_than)                                                         \
    ((lade_heap_t){.less = (less_than), .place = offsetof(type, member)})

// Adds a member that is in no heap of that place. Aborts when memory runs out.
void lade_heap_add(lade_heap_t *self, void *item);

// The least member, NULL if there is none. It stays in.
void *lade_heap_top(const lade_heap_t *self);

// Takes the least member out; NULL if there is none.
void *lade_heap_pop(lade_heap_t *self);

// Takes a member out; what is not in is left alone.
void lade_heap_del(lade_heap_t *self, void *item);

void lade_heap_free(lade_heap_t *self);

#endif
