// Safetensors: 8 bytes of length, a JSON header, the tensors' bytes without holes. Only the header
// is read.
#ifndef LADE_SAFETENSORS_H
#define LADE_SAFETENSORS_H

#include "common/formats/tensors.h"

// True if the first bytes of a file of that size can be the start of a safetensors file.
bool lade_safetensors_is(const uint8_t *head, size_t len, uint64_t size);

// Adds the tensors of an open file to the list. Strict: LADE_CORRUPT, with the byte where it
// matters, unless every entry is exactly {dtype, shape, data_offsets}, no name is doubled, each
// size is its shape's, and the tensors fill the file from the header to its last byte.
// LADE_TOO_LARGE over a ceiling of tensor_list.h, LADE_NOT_IMPLEMENTED for a dtype lade does not
// have.
lade_code_t lade_safetensors_read(lade_tensors_t *self, int fd, const char *path, uint64_t size,
                                  lade_error_t *error);

#endif
