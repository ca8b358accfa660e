// The headers of one HTTP answer, read line by line into what a download wants to know.
//
// Lines come from a server and are hostile: what is malformed or too long counts as absent.
#ifndef LADE_HEADERS_H
#define LADE_HEADERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int status;
    char *etag;           // as sent, NULL if absent
    char *last_modified;  // as sent, NULL if absent
    char *content_type;   // without parameters, in lower case; NULL if absent
    char *filename;       // of Content-Disposition, not checked; NULL if absent
    char *error_code;     // X-Error-Code of the hub, NULL if absent
    int64_t length;       // Content-Length, -1 if absent
    int64_t range_start;  // of Content-Range, -1 if absent or "*"
    int64_t range_end;    // the byte after the last; -1 if absent or "*"
    int64_t total;        // of Content-Range, -1 if absent or "*"
    double retry_after_s; // from now; -1 if absent
    double reset_s;       // of RateLimit, when nothing remains: from now; -1 if absent
    bool encoded;         // a Content-Encoding other than identity
    size_t bytes;         // of all lines so far, redirects included
} lade_headers_t;

#define LADE_HEADERS_NONE                                                                          \
    ((lade_headers_t){.length = -1,                                                                \
                      .range_start = -1,                                                           \
                      .range_end = -1,                                                             \
                      .total = -1,                                                                 \
                      .retry_after_s = -1,                                                         \
                      .reset_s = -1})

enum { LADE_HEADERS_MAX = 1 << 20 }; // bytes of all header lines before a server is taken for mad

// Takes one line as libcurl gives it, with its line end. A status line begins anew. False when the
// ceiling is reached.
bool lade_headers_line(lade_headers_t *self, const char *line, size_t len);

// The ETag if it is a strong one, else Last-Modified, else NULL: what If-Range can carry.
const char *lade_headers_validator(const char *etag, const char *last_modified);

// The file name in a Content-Disposition value: filename* before filename. You free it; NULL if
// there is none.
char *lade_headers_filename(const char *value);

// Seconds from now that a Retry-After value names, as a number or as a date; -1 if it is neither.
// At most a day.
double lade_headers_retry_after(const char *value);

// Seconds until a `RateLimit: "NAME";r=REMAINING;t=SECONDS` header's window ends (the IETF draft
// "RateLimit header fields for HTTP", as the hub sends it); -1 if it is none. At most a day.
double lade_headers_rate_limit(const char *value);

void lade_headers_free(lade_headers_t *self);

#endif
