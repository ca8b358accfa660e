// A growing run of bytes with a ceiling.
#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static lade_code_t
s_reserve(lade_buf_t *self, size_t more, lade_error_t *error)
{
    if (more > self->max || self->len > self->max - more)
        return lade_error_set(error, LADE_TOO_LARGE, "over the ceiling of %zu bytes", self->max);
    size_t need = self->len + more + 1;
    if (need <= self->cap)
        return LADE_OK;
    size_t cap = self->cap ? self->cap : 64;
    while (cap < need)
        cap *= 2;
    char *data = realloc(self->data, cap);
    if (!data)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for %zu bytes", cap);
    self->data = data;
    self->cap = cap;
    return LADE_OK;
}

lade_code_t
lade_buf_add(lade_buf_t *self, const void *bytes, size_t len, lade_error_t *error)
{
    lade_code_t code = s_reserve(self, len, error);
    if (code)
        return code;
    if (len)
        memcpy(self->data + self->len, bytes, len);
    self->len += len;
    self->data[self->len] = '\0';
    return LADE_OK;
}

lade_code_t
lade_buf_addf(lade_buf_t *self, lade_error_t *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0)
        return lade_error_set(error, LADE_INTERNAL, "cannot format '%s'", format);
    lade_code_t code = s_reserve(self, (size_t)len, error);
    if (code)
        return code;
    va_start(args, format);
    vsnprintf(self->data + self->len, (size_t)len + 1, format, args);
    va_end(args);
    self->len += (size_t)len;
    return LADE_OK;
}

const char *
lade_buf_text(const lade_buf_t *self)
{
    return self->data ? self->data : "";
}

void
lade_buf_clear(lade_buf_t *self)
{
    self->len = 0;
    if (self->data)
        self->data[0] = '\0';
}

void
lade_buf_free(lade_buf_t *self)
{
    free(self->data);
    self->data = NULL;
    self->len = self->cap = 0;
}

char *
lade_buf_take(lade_buf_t *self)
{
    char *data = self->data;
    self->data = NULL;
    self->len = self->cap = 0;
    return data;
}
