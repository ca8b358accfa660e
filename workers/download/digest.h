// sha256 of a file in the order of its bytes, while they come in any order.
//
// One thread at a time.
#ifndef LADE_DIGEST_H
#define LADE_DIGEST_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lade_digest lade_digest_t;

lade_digest_t *lade_digest_new(void);

// Takes the next bytes.
void lade_digest_add(lade_digest_t *self, const void *bytes, size_t len);

// How many bytes it has taken.
int64_t lade_digest_bytes(const lade_digest_t *self);

// The digest of what was taken, in hex; more may follow.
void lade_digest_hex(const lade_digest_t *self, char hex[65]);

void lade_digest_restart(lade_digest_t *self);
void lade_digest_destroy(lade_digest_t **self_p);

// Of a whole file. Blocks; stop is polled, NULL is allowed: LADE_CANCELLED if it said so.
lade_code_t lade_digest_file(const char *path, bool (*stop)(void *arg), void *arg, char hex[65],
                             lade_error_t *error);

#endif
