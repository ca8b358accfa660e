// A growing run of bytes with a ceiling.
#ifndef LADE_BUF_H
#define LADE_BUF_H

#include "common/error.h"

#include <stddef.h>

typedef struct {
    char *data; // ended by a NUL that len does not count, so text can be used as it is; NULL while
                // empty
    size_t len;
    size_t cap;
    size_t max; // ceiling on len
} lade_buf_t;

// An empty buffer that may grow to max bytes. Nothing is allocated yet.
#define LADE_BUF(max_bytes) ((lade_buf_t){.max = (max_bytes)})

// Adds len bytes. LADE_TOO_LARGE over the ceiling, LADE_NO_MEMORY; the buffer is then as it was.
lade_code_t lade_buf_add(lade_buf_t *self, const void *bytes, size_t len, lade_error_t *error);

// Adds formatted text.
lade_code_t lade_buf_addf(lade_buf_t *self, lade_error_t *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// The bytes as a string, "" while empty. They stay the buffer's.
const char *lade_buf_text(const lade_buf_t *self);

// Forgets the content and keeps the memory.
void lade_buf_clear(lade_buf_t *self);

// Frees the memory; the buffer is empty and usable afterwards.
void lade_buf_free(lade_buf_t *self);

// Hands the bytes over to the caller, who frees them; the buffer is empty afterwards.
char *lade_buf_take(lade_buf_t *self);

#endif
