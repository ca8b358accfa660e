// Digests of all bytes, by name: OpenSSL's through EVP, which takes the CPU's own instructions, and
// blake3 where the machine has libblake3.
#ifndef LADE_HASHER_H
#define LADE_HASHER_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LADE_HASHER_MOST = 64 }; // bytes of a digest

// "sha256", "md5", "blake3_single", …: true if there is a digest of that name, whether or not this
// machine can make it.
bool lade_hasher_knows(const char *algorithm);

// What stands before the colon in a record: the name, but "blake3" for each of its ways.
const char *lade_hasher_prefix(const char *algorithm);

size_t lade_hasher_size(const char *algorithm);

typedef struct lade_hasher lade_hasher_t;

// LADE_NOT_IMPLEMENTED for one that this machine cannot make, with what to do.
lade_code_t lade_hasher_new(const char *algorithm, lade_hasher_t **self_p, lade_error_t *error);
void lade_hasher_add(lade_hasher_t *self, const void *bytes, size_t len);
void lade_hasher_end(lade_hasher_t *self, uint8_t out[LADE_HASHER_MOST]);
void lade_hasher_destroy(lade_hasher_t **self_p);

#endif
