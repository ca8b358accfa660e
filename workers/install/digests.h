// What is known of the digests of a model's files: recorded ones (the record's `files`), and those
// the source told (source_api_response of a hub or of a site with lists of files).
#ifndef LADE_DIGESTS_H
#define LADE_DIGESTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const json_t *record;
    json_t *own;  // [{"path", "size", "sha256"}]: recorded
    json_t *told; // the same, by the source; paths are those of the source
} lade_digests_t;

// record is borrowed.
void lade_digests_open(lade_digests_t *self, const json_t *record);
void lade_digests_close(lade_digests_t *self);

typedef struct {
    int64_t size;       // -1: not known
    const char *sha256; // lower-case hex, NULL: not known; stays the digests'
    bool recorded;      // else told by the source
} lade_digest_t;

// What is known of the file at a path relative to the model ("" for a model that is one file). A
// source may have told of several that could be it: then nothing is known. False if nothing is.
bool lade_digests_find(const lade_digests_t *self, const char *relative, lade_digest_t *digest);

#endif
