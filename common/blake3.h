// BLAKE3 of short texts: the hash over a folder's hashes. Whole models would take three times as
// long by it as by OpenSSL's sha256; those go through libblake3 (hasher.h).
#ifndef LADE_BLAKE3_H
#define LADE_BLAKE3_H

#include <stddef.h>
#include <stdint.h>

void lade_blake3(const void *data, size_t len, uint8_t out[32]);

#endif
