// Content hashes of model files and folders.
//
// imohash: three samples of 16 KiB and the size, hashed with murmur3 x64 128; a sampled,
// constant-time fingerprint. Algorithm and test vectors:
// https://github.com/kalafut/imohash/blob/master/algorithm.md
#ifndef LADE_HASH_H
#define LADE_HASH_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// murmur3 x64 128 with seed 0, as 16 bytes in the order Go's encoding writes them (h1, h2
// big-endian).
void lade_hash_murmur3(const void *data, size_t len, uint8_t out[16]);

// imohash of a file with the given sample size and threshold (the defaults are 16384 and 131072).
lade_code_t lade_hash_imohash(const char *path, uint32_t sample_size, uint64_t sample_threshold,
                              uint8_t out[16], lade_error_t *error);

// The hash field of a record, "ALGORITHM:HEX": algorithm "imohash", "sha256" or "none" (gives "").
// For a folder, the files with weight suffixes in order of their path are hashed and the hash of
// the concatenated hex texts is taken (the same algorithm's 128 bits of murmur3 for imohash, sha256
// for sha256). You free *text_p. stop, if not NULL, is polled while reading. Blocks.
lade_code_t lade_hash_path(const char *path, const char *algorithm, bool (*stop)(void *arg),
                           void *arg, char **text_p, lade_error_t *error);

#endif
