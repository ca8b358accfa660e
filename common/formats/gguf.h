// GGUF, versions 1 to 3, of either byte order: key-value pairs, then what tensors there are, then
// their bytes, each begun at a multiple of general.alignment.
#ifndef LADE_GGUF_H
#define LADE_GGUF_H

#include "common/formats/tensors.h"

bool lade_gguf_is(const uint8_t *head, size_t len, uint64_t size);

// Adds the tensors of an open file to the list, their shapes outermost dimension first (GGUF writes
// them the other way round), and its pairs to the metadata: numbers, texts, short arrays as they
// are; a long array as {"count", "type", "first"}, a long text as {"bytes", "first"}.
//
// LADE_CORRUPT with the place: a version that cannot be, a count or length the file has no room
// for, a type of value there is not, a key or tensor twice, more than five dimensions or one of 0,
// an alignment that is no power of two, tensors that overlap, leave holes or end beyond the file.
// LADE_TOO_LARGE over a ceiling, LADE_NOT_IMPLEMENTED for a later version or a type of tensor lade
// does not know.
lade_code_t lade_gguf_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                           lade_error_t *error);

#endif
