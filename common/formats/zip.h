// Zip archives from strangers: the directory, and what in an archive does not fit together.
//
// Readers of zip archives believe different parts of them. What two readers could understand
// differently (and so could show one file to a scanner and another to a loader) becomes a finding
// here: headers that disagree, members that are there twice or lie over each other, bytes that
// belong to no member. Nothing but the directory and the members' headers is read on opening.
#ifndef LADE_ZIP_H
#define LADE_ZIP_H

#include "common/formats/tensors.h"

enum {
    LADE_ZIP_MAX_MEMBERS = 1 << 18,
    LADE_ZIP_MAX_DIRECTORY = 64 << 20, // bytes
    LADE_ZIP_MAX_NAME = 1024,          // bytes
};

typedef struct {
    const char *name; // ended by a NUL
    uint64_t packed;  // bytes in the archive
    uint64_t size;    // bytes unpacked
    uint64_t header;  // where its local header begins in the file
    uint64_t data;    // where its bytes begin; 0 if its local header is none
    uint32_t crc;
    uint16_t flags;
    uint16_t method; // 0 stored, 8 deflated
} lade_zip_member_t;

typedef struct lade_zip lade_zip_t;

// True if the last bytes of an open file are the end of a zip archive.
bool lade_zip_is(int fd, uint64_t size);

// Reads the directory and every member's local header. Findings go to list. fd stays the caller's
// and has to outlive the archive. LADE_CORRUPT for what is no archive, LADE_TOO_LARGE.
lade_code_t lade_zip_open(int fd, uint64_t size, lade_tensors_t *list, lade_zip_t **self_p,
                          lade_error_t *error);

size_t lade_zip_count(const lade_zip_t *self);
const lade_zip_member_t *lade_zip_get(const lade_zip_t *self, size_t index); // as in the directory

// The index of the member of that name, lade_zip_count if there is none.
size_t lade_zip_find(const lade_zip_t *self, const char *name);

// True if the member's bytes lie in the file as they are: stored, not encrypted.
bool lade_zip_is_plain(const lade_zip_member_t *member);

// A whole member, unpacked, of at most max bytes; *data_p is yours to free. A checksum or size that
// is wrong is a finding. One that says it is encrypted is read as if it were not, as torch does.
// LADE_CORRUPT, LADE_TOO_LARGE.
lade_code_t lade_zip_read(lade_zip_t *self, size_t index, size_t max, uint8_t **data_p,
                          size_t *len_p, lade_error_t *error);

// Up to len first bytes of a member, unpacked; returns how many, 0 if it cannot be read.
size_t lade_zip_head(lade_zip_t *self, size_t index, uint8_t *bytes, size_t len);

void lade_zip_destroy(lade_zip_t **self_p);

#endif
