// The texts that rules look for in tensors' names, of all rules together, found in one pass.
//
// Hundreds of rules ask thousands of names whether they begin with, end with or contain this or
// that. All those texts make one automaton (Aho and Corasick's), through which each name goes once,
// and of a name that begins like the one before it only the rest. What comes out is, for each text,
// the list of tensors that have it.
#ifndef LADE_PARTS_H
#define LADE_PARTS_H

#include "common/formats/tensors.h"

typedef enum { LADE_PART_PREFIX, LADE_PART_SUFFIX, LADE_PART_INSIDE } lade_part_kind_t;

typedef struct lade_parts lade_parts_t;

#define LADE_PARTS_NONE UINT32_MAX

lade_parts_t *lade_parts_new(void);

// The number of a text of a kind, the same for the same text. LADE_PARTS_NONE for an empty one and
// over the ceiling of all texts together: it is to be looked for name by name.
uint32_t lade_parts_add(lade_parts_t *self, lade_part_kind_t kind, const char *text, size_t len);

// Makes the automaton; to be called after the last add and before the first find.
void lade_parts_build(lade_parts_t *self);

void lade_parts_destroy(lade_parts_t **self_p);

// Where they are in one list of tensors. Frees with lade_parts_found_destroy.
typedef struct lade_parts_found lade_parts_found_t;
lade_parts_found_t *lade_parts_find(const lade_parts_t *self, const lade_tensors_t *tensors);

// How many tensors have a text.
size_t lade_parts_found_count(const lade_parts_found_t *self, uint32_t part);

// They in order, one a call: *cursor_p starts at 0, false after the last.
bool lade_parts_found_next(const lade_parts_found_t *self, uint32_t part, uint32_t *cursor_p,
                           uint32_t *tensor_p);

void lade_parts_found_destroy(lade_parts_found_t **self_p);

#endif
