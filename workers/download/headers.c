// One row for each header that matters.
#include "workers/download/headers.h"

#include "common/wire.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { S_MAX_VALUE = 4096, S_DAY_S = 86400 };
static const int64_t S_MAX_NUMBER = (int64_t)1 << 60;

// A whole non-negative decimal number; -1 if it is none, or too large for a file's bytes: sums of
// two such numbers fit.
static int64_t
s_number(const char *text, const char **end_p)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return -1;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end_p)
        *end_p = end;
    return errno || value > S_MAX_NUMBER || (!end_p && *end) ? -1 : value;
}

// Keeps printable ASCII only: these values are sent back, written into journals and shown.
static void
s_set(char **where, const char *value)
{
    free(*where);
    *where = NULL;
    for (const char *at = value; *at; at++)
        if (*at < 0x20 || *at > 0x7e)
            return;
    *where = strdup(value);
}

static void
s_etag(lade_headers_t *self, const char *value)
{
    s_set(&self->etag, value);
}

static void
s_last_modified(lade_headers_t *self, const char *value)
{
    s_set(&self->last_modified, value);
}

static void
s_content_type(lade_headers_t *self, const char *value)
{
    s_set(&self->content_type, value);
    char *text = self->content_type;
    if (!text)
        return;
    text[strcspn(text, "; \t")] = '\0';
    for (; *text; text++)
        *text = (char)tolower((unsigned char)*text);
}

static void
s_disposition(lade_headers_t *self, const char *value)
{
    free(self->filename);
    self->filename = lade_headers_filename(value);
}

// A word as GatedRepo, which goes into errors and logs: nothing that could be a token sent back.
static void
s_error_code(lade_headers_t *self, const char *value)
{
    bool word = *value && strlen(value) <= 40;
    for (const char *at = value; word && *at; at++)
        word = isalpha((unsigned char)*at);
    s_set(&self->error_code, word ? value : "");
}

static void
s_length(lade_headers_t *self, const char *value)
{
    self->length = s_number(value, NULL);
}

// "bytes 5-9/10", "bytes 5-9/*" or "bytes */10".
static void
s_range(lade_headers_t *self, const char *value)
{
    self->range_start = self->range_end = self->total = -1;
    if (strncasecmp(value, "bytes", 5) != 0)
        return;
    value += 5 + strspn(value + 5, " \t=");
    int64_t start = -1, last = -1;
    if (*value == '*') {
        value++;
    } else {
        start = s_number(value, &value);
        if (start < 0 || *value++ != '-' || (last = s_number(value, &value)) < start)
            return;
    }
    if (*value++ != '/')
        return;
    int64_t total = *value == '*' ? -1 : s_number(value, NULL);
    if (*value != '*' && total <= last) // no number, or the range goes past the end
        return;
    self->range_start = start;
    self->range_end = start < 0 ? -1 : last + 1;
    self->total = total;
}

static void
s_retry_after(lade_headers_t *self, const char *value)
{
    self->retry_after_s = lade_headers_retry_after(value);
}

static void
s_rate_limit(lade_headers_t *self, const char *value)
{
    self->reset_s = lade_headers_rate_limit(value);
}

static void
s_encoding(lade_headers_t *self, const char *value)
{
    self->encoded = *value && strcasecmp(value, "identity") != 0;
}

static const struct {
    const char *name;
    void (*take)(lade_headers_t *self, const char *value);
} s_names[] = {
    // clang-format off
    {"etag",                s_etag},
    {"last-modified",       s_last_modified},
    {"content-type",        s_content_type},
    {"content-disposition", s_disposition},
    {"content-length",      s_length},
    {"content-range",       s_range},
    {"content-encoding",    s_encoding},
    {"retry-after",         s_retry_after},
    {"ratelimit",           s_rate_limit},
    {"x-error-code",        s_error_code},
    // clang-format on
};

static void
s_status(lade_headers_t *self, const char *line, size_t len)
{
    size_t bytes = self->bytes;
    lade_headers_free(self);
    self->bytes = bytes;
    const char *space = memchr(line, ' ', len);
    for (size_t i = 0; space && i < 3 && space + 1 + i < line + len; i++)
        if (isdigit((unsigned char)space[1 + i]))
            self->status = self->status * 10 + space[1 + i] - '0';
}

bool
lade_headers_line(lade_headers_t *self, const char *line, size_t len)
{
    self->bytes += len;
    if (self->bytes > LADE_HEADERS_MAX)
        return false;
    if (len > 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        s_status(self, line, len);
        return true;
    }
    const char *colon = memchr(line, ':', len);
    if (!colon)
        return true;
    const char *start = colon + 1, *end = line + len;
    while (start < end && isspace((unsigned char)*start))
        start++;
    while (end > start && isspace((unsigned char)end[-1]))
        end--;
    if ((size_t)(end - start) > S_MAX_VALUE || memchr(start, 0, (size_t)(end - start)))
        return true;
    for (size_t i = 0; i < sizeof s_names / sizeof *s_names; i++) {
        if (strlen(s_names[i].name) != (size_t)(colon - line) ||
            strncasecmp(s_names[i].name, line, (size_t)(colon - line)) != 0)
            continue;
        char value[S_MAX_VALUE + 1];
        memcpy(value, start, (size_t)(end - start));
        value[end - start] = '\0';
        s_names[i].take(self, value);
    }
    return true;
}

const char *
lade_headers_validator(const char *etag, const char *last_modified)
{
    if (etag && etag[0] == '"' && etag[1] != '\0')
        return etag;
    return last_modified && *last_modified ? last_modified : NULL;
}

// ---------------------------------------------------------------------------------------------------

// "UTF-8''name%20with%20spaces" (RFC 8187) as text; NULL if it is not of that form.
static char *
s_extended(const char *value)
{
    const char *quote = strchr(value, '\'');
    const char *second = quote ? strchr(quote + 1, '\'') : NULL;
    if (!second || strncasecmp(value, "utf-8'", 6) != 0)
        return NULL;
    int len = 0;
    char *decoded = curl_easy_unescape(NULL, second + 1, 0, &len);
    char *text = decoded && len > 0 && !memchr(decoded, 0, (size_t)len) ? strdup(decoded) : NULL;
    curl_free(decoded);
    return text;
}

// Reads one parameter's value at *at_p, quoted or not, into out, and moves behind it.
static void
s_parameter(const char **at_p, char *out)
{
    const char *at = *at_p;
    if (*at == '"') {
        for (at++; *at && *at != '"'; at++) {
            if (*at == '\\' && at[1])
                at++;
            *out++ = *at;
        }
        at += *at == '"';
    } else {
        while (*at && *at != ';' && !isspace((unsigned char)*at))
            *out++ = *at++;
    }
    *out = '\0';
    *at_p = at;
}

char *
lade_headers_filename(const char *value)
{
    char *plain = NULL, *extended = NULL, *text = malloc(strlen(value) + 1);
    const char *at = text ? strchr(value, ';') : NULL;
    while (at && *at) {
        at += strspn(at, "; \t");
        const char *name = at;
        at += strcspn(at, "=;");
        size_t len = (size_t)(at - name);
        while (len && isspace((unsigned char)name[len - 1]))
            len--;
        if (*at != '=')
            continue;
        at++;
        at += strspn(at, " \t");
        s_parameter(&at, text);
        at += strcspn(at, ";");
        if (len == 9 && strncasecmp(name, "filename*", 9) == 0 && !extended)
            extended = s_extended(text);
        else if (len == 8 && strncasecmp(name, "filename", 8) == 0 && !plain && *text)
            plain = strdup(text);
    }
    free(text);
    if (!extended)
        return plain;
    free(plain);
    return extended;
}

double
lade_headers_retry_after(const char *value)
{
    int64_t seconds = s_number(value, NULL);
    double from_now = (double)seconds;
    if (seconds < 0) {
        time_t date = curl_getdate(value, NULL);
        if (date < 0)
            return -1;
        from_now = (double)date - lade_now();
    }
    return from_now < 0 ? 0 : from_now > S_DAY_S ? S_DAY_S : from_now;
}

// The number of the parameter `;NAME=`, -1 if it is absent.
static int64_t
s_item_number(const char *value, char name)
{
    for (const char *at = value; (at = strchr(at, ';'));) {
        at += 1 + strspn(at + 1, " ");
        const char *end;
        if (at[0] == name && at[1] == '=')
            return s_number(at + 2, &end);
    }
    return -1;
}

double
lade_headers_rate_limit(const char *value)
{
    int64_t seconds = s_item_number(value, 't');
    return seconds > S_DAY_S ? S_DAY_S : (double)seconds;
}

void
lade_headers_free(lade_headers_t *self)
{
    char *texts[] = {self->etag, self->last_modified, self->content_type, self->filename,
                     self->error_code};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    *self = LADE_HEADERS_NONE;
}
