// The window: one pread when what is asked for is not in it.
#include "common/formats/window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { S_STEP = 4096 };

lade_window_t *
lade_window_new(int fd, uint64_t end, uint64_t max, lade_error_t *error)
{
    lade_window_t *self = malloc(sizeof *self);
    if (!self) {
        lade_error_set(error, LADE_NO_MEMORY, "no memory to read a file");
        return NULL;
    }
    self->fd = fd;
    self->end = end;
    self->max = max;
    self->at = self->from = self->read = 0;
    self->have = 0;
    self->step = S_STEP;
    return self;
}

static lade_code_t
s_short(const lade_window_t *self, uint64_t len, lade_error_t *error)
{
    return lade_error_set(error, LADE_CORRUPT,
                          "%llu bytes are to follow at byte %llu, where %llu are left: it is cut "
                          "short, or a length in it is wrong",
                          (unsigned long long)len, (unsigned long long)self->at,
                          (unsigned long long)(self->end - self->at));
}

// Fills the window from the next byte on, keeping what of it is there already.
static lade_code_t
s_fill(lade_window_t *self, size_t len, lade_error_t *error)
{
    size_t kept = 0;
    if (self->at >= self->from && self->at - self->from <= self->have) {
        kept = self->have - (size_t)(self->at - self->from);
        memmove(self->bytes, self->bytes + (self->have - kept), kept);
        self->step = self->step < LADE_WINDOW ? 2 * self->step : LADE_WINDOW;
    } else {
        self->step = S_STEP;
    }
    size_t want = len > self->step ? len : self->step;
    self->from = self->at;
    self->have = kept;
    while (self->have < len) {
        uint64_t left = self->end - self->from - self->have;
        size_t room = (want > self->have ? want : LADE_WINDOW) - self->have;
        if (self->read >= self->max)
            return lade_error_set(error, LADE_TOO_LARGE,
                                  "more than %llu bytes of it would have to be read",
                                  (unsigned long long)self->max);
        ssize_t n = pread(self->fd, self->bytes + self->have, left < room ? (size_t)left : room,
                          (off_t)(self->from + self->have));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lade_error_errno(error, errno, "reading at byte %llu",
                                    (unsigned long long)(self->from + self->have));
        if (n == 0)
            return s_short(self, len, error);
        self->have += (size_t)n;
        self->read += (size_t)n;
    }
    return LADE_OK;
}

const uint8_t *
lade_window_take(lade_window_t *self, size_t len, lade_error_t *error)
{
    if (len > self->end - self->at) {
        s_short(self, len, error);
        return NULL;
    }
    bool there = self->at >= self->from && self->at - self->from <= self->have &&
                 len <= self->have - (size_t)(self->at - self->from);
    if (!there && s_fill(self, len, error))
        return NULL;
    const uint8_t *bytes = self->bytes + (self->at - self->from);
    self->at += len;
    return bytes;
}

lade_code_t
lade_window_skip(lade_window_t *self, uint64_t len, lade_error_t *error)
{
    if (len > self->end - self->at)
        return s_short(self, len, error);
    self->at += len;
    return LADE_OK;
}
