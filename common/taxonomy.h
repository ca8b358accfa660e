// The taxonomy behind lade_enum_t: which formats a type has, which variants a class has.
#ifndef LADE_TAXONOMY_H
#define LADE_TAXONOMY_H

#include <stdbool.h>

// Whether a list that ends with NULL has the word; NULL-safe.
bool lade_taxonomy_has(const char *const *values, const char *value);

// The formats a type comes in, ended by NULL; of a type that is none, nothing. `unknown` is one of
// each without being listed.
const char *const *lade_taxonomy_formats(const char *type);
bool lade_taxonomy_is_class(const char *type, const char *format);

// The variants of a class ("TYPE.FORMAT") of a base, ended by NULL; NULL if it has none.
const char *const *lade_taxonomy_variants(const char *class, const char *base);

#endif
