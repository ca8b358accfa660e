// A scanner of the JSON that stands at the head of a weight file: it reads ahead no further than it
// understands, and leaves texts in the memory they were read into.
#ifndef LADE_HEADER_H
#define LADE_HEADER_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int fd;
    char *text;  // the header; names are unescaped in place and end with a NUL over their quote
    size_t len;  // of the header
    size_t have; // bytes of it read so far
    size_t pos;
    lade_error_t *error;
} lade_header_t;

// Every one of these returns LADE_OK or the code in *error, and says at which byte of the file.
lade_code_t lade_header_fail(lade_header_t *scan, lade_code_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Reads on; false at the end, and if it cannot (then error says so).
bool lade_header_more(lade_header_t *scan);

// The next byte, -1 at the end.
static inline int
lade_header_peek(lade_header_t *scan)
{
    if (scan->pos == scan->have && !lade_header_more(scan))
        return -1;
    return (unsigned char)scan->text[scan->pos];
}

static inline int
lade_header_peek_past_space(lade_header_t *scan)
{
    int c;
    while ((c = lade_header_peek(scan)) == ' ' || c == '\n' || c == '\r' || c == '\t')
        scan->pos++;
    return c;
}

static inline lade_code_t
lade_header_expect(lade_header_t *scan, char wanted)
{
    int c = lade_header_peek_past_space(scan);
    if (c != wanted)
        return c < 0
                   ? lade_header_fail(scan, LADE_CORRUPT, "the header ends where '%c' is expected",
                                      wanted)
                   : lade_header_fail(scan, LADE_CORRUPT, "'%c' is expected in the header", wanted);
    scan->pos++;
    return LADE_OK;
}

// After a member of a list or map: true if another one follows, false after the closing mark.
static inline lade_code_t
lade_header_next(lade_header_t *scan, char closing, bool *more_p)
{
    *more_p = lade_header_peek_past_space(scan) == ',';
    if (*more_p) {
        scan->pos++;
        return LADE_OK;
    }
    return lade_header_expect(scan, closing);
}

// After an opening mark: true (and past it) if the list or map is empty.
static inline bool
lade_header_is_empty(lade_header_t *scan, char closing)
{
    if (lade_header_peek_past_space(scan) != closing)
        return false;
    scan->pos++;
    return true;
}

// A text of at most max bytes, unescaped where it stands and ended by a NUL. Strict: UTF-8 in its
// shortest form, whole surrogate pairs, no control characters, no \u0000.
lade_code_t lade_header_text(lade_header_t *scan, size_t max, char **text_p, size_t *len_p);

// A whole number of at most 64 bits.
lade_code_t lade_header_number(lade_header_t *scan, uint64_t *value_p);

#endif
