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

// The hash field of a record, "ALGORITHM:HEX". algorithm is "imohash", a digest of hasher.h
// ("sha256", "md5", "blake3", …), "random" (another one each time) or "none" (gives "").
//
// Of a folder, the files of lade_hash_list are hashed, several at once, and then their hex texts
// one after the other: with BLAKE3, whatever digest they were hashed with, as the original does;
// with murmur3 for imohash. You free *text_p. stop, if not NULL, is polled while reading, by the
// calling thread. Blocks. LADE_VALUE_ERROR for no such algorithm, LADE_NOT_IMPLEMENTED for one that
// this machine has no library for.
lade_code_t lade_hash_path(const char *path, const char *algorithm, bool (*stop)(void *arg),
                           void *arg, char **text_p, lade_error_t *error);

// True if hash is "ALGORITHM:…" of one that follows from the content and that this machine can
// make; the name goes to name.
bool lade_hash_algorithm(const char *hash, char *name, size_t size);

// The sha256 of a file's bytes as 64 lower-case hex digits. step (may be NULL) is told the bytes of
// each piece and may return false to stop (LADE_CANCELLED). Blocks.
lade_code_t lade_hash_sha256(const char *path, bool (*step)(void *arg, int64_t bytes), void *arg,
                             char hex[65], lade_error_t *error);

// The files whose hashes make a folder's, in order of their path: all below it that end with
// .safetensors, .ckpt, .bin, .pt or .pth; if there are none, those with .gguf or .onnx. Free each,
// and the list.
lade_code_t lade_hash_list(const char *folder, char ***files_p, size_t *count_p,
                           lade_error_t *error);

// "sha256:HEX" of a folder from the sha256 of each of those files, their hex texts one after the
// other. text has room for 72 bytes.
void lade_hash_join(const char *hexes, char *text);

#endif
