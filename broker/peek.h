// Looking into packed maps without unpacking them: records are found, ordered and answered as the
// bytes they are stored as.
#ifndef LADE_PEEK_H
#define LADE_PEEK_H

#include "broker/store.h"

#include <stdbool.h>

// The packed value of a member of a map; false if the bytes are no map, are cut off or have no such
// member. Nothing is read past the end, whatever the bytes are.
bool lade_peek(lade_bytes_t map, const char *key, lade_bytes_t *value);

// The same for a member that is text (text and length), or a number (as a double).
bool lade_peek_text(lade_bytes_t map, const char *key, lade_bytes_t *text);
bool lade_peek_number(lade_bytes_t map, const char *key, double *number);

// The same of several members in one pass; values of those that are missing stay as they are.
void lade_peek_members(lade_bytes_t map, const char *const *keys, size_t count,
                       lade_bytes_t *values);

// The items of a packed array that are text, one after the other: *at begins at 0, false at the
// end.
bool lade_peek_item(lade_bytes_t array, size_t *at, lade_bytes_t *text);

// The values of several that were packed one after the other: *at begins at 0, false at the end.
bool lade_peek_next(lade_bytes_t values, size_t *at, lade_bytes_t *value);

// A packed value that is text, or a number, as such.
bool lade_peek_is_number(lade_bytes_t value, double *number);
bool lade_peek_is_text(lade_bytes_t value, lade_bytes_t *text);

#endif
