// Progress bars.
#include "client/cli/bar.h"

#include "client/cli/show.h"

#include <stdlib.h>
#include <string.h>

enum { S_SAMPLE_MS = 500, S_LEAST_BAR = 8, S_MOST_BAR = 30, S_LEAST_NAME = 12 };

void
lade_bar_update(lade_bar_progress_t *self, int64_t bytes, int64_t total, int64_t now_ms)
{
    self->bytes = bytes;
    self->total = total;
    if (self->sampled_ms == 0 || bytes < self->sampled_bytes) { // the first word, or started again
        self->sampled_ms = now_ms;
        self->sampled_bytes = bytes;
        self->rate = 0;
        return;
    }
    int64_t span = now_ms - self->sampled_ms;
    if (span < S_SAMPLE_MS)
        return;
    double rate = (double)(bytes - self->sampled_bytes) * 1000 / (double)span;
    self->rate = self->rate > 0 ? self->rate * 0.7 + rate * 0.3 : rate;
    self->sampled_ms = now_ms;
    self->sampled_bytes = bytes;
}

// "  1.20 GiB of 4.00 GiB  80.1 MiB/s  35s"
static void
s_format_numbers(const lade_bar_progress_t *self, char *text, size_t size)
{
    char done[LADE_SHOW_SIZE], all[LADE_SHOW_SIZE], rate[LADE_SHOW_SIZE], left[LADE_SHOW_SIZE];
    lade_show_bytes(self->bytes, done);
    lade_show_bytes((int64_t)self->rate, rate);
    bool known = self->rate >= 1;
    if (self->total <= 0) {
        snprintf(text, size, "%s%s%s%s", done, known ? "  " : "", known ? rate : "",
                 known ? "/s" : "");
        return;
    }
    lade_show_span(known ? (double)(self->total - self->bytes) / self->rate : 0, left);
    snprintf(text, size, "%3d%%  %s of %s%s%s%s%s",
             (int)(self->bytes * 100.0 / (double)self->total), done,
             lade_show_bytes(self->total, all), known ? "  " : "", known ? rate : "",
             known ? "/s  " : "", known ? left : "");
}

static void
s_format_bar(const lade_bar_progress_t *self, size_t cells, char *text)
{
    size_t full =
        self->total > 0 ? (size_t)((double)self->bytes / (double)self->total * (double)cells) : 0;
    full = full < cells ? full : cells;
    memset(text, '#', full);
    memset(text + full, '.', cells - full);
    text[cells] = '\0';
}

const char *
lade_bar_format(const lade_bar_progress_t *self, const char *name, const char *status, size_t width,
                char *line, size_t size)
{
    char numbers[160], bar[S_MOST_BAR + 1];
    bool bytes = self->bytes > 0 || self->total > 0;
    if (bytes)
        s_format_numbers(self, numbers, sizeof numbers);
    else
        snprintf(numbers, sizeof numbers, "%s", status ? status : "");
    size_t used = lade_show_width(numbers) + 2;
    size_t room = width > used ? width - used : 0; // for name and bar
    size_t cells =
        self->total > 0 && room > S_LEAST_NAME + S_LEAST_BAR + 4 ? room - S_LEAST_NAME - 4 : 0;
    cells = cells > room / 2 ? room / 2 : cells;
    cells = cells > S_MOST_BAR ? S_MOST_BAR : cells;
    s_format_bar(self, cells, bar);
    size_t name_width = room > (cells ? cells + 4 : 0) ? room - (cells ? cells + 4 : 0) : 0;
    char *shown = name_width ? lade_show_clean(name, name_width, true) : strdup("");
    int pad = name_width ? (int)(name_width - lade_show_width(shown)) : 0;
    snprintf(line, size, "%s%*s%s%s%s  %s", shown, pad, "", cells ? "  [" : "", bar,
             cells ? "]" : "", numbers);
    free(shown);
    if (lade_show_width(line) > width) {
        char *cut = lade_show_clean(line, width, false);
        snprintf(line, size, "%s", cut);
        free(cut);
    }
    return line;
}

struct lade_bar_screen {
    FILE *out;
    size_t columns;
    size_t drawn; // lines that stand there
};

lade_bar_screen_t *
lade_bar_screen_new(FILE *out, size_t columns)
{
    lade_bar_screen_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    *self = (lade_bar_screen_t){out, columns, 0};
    return self;
}

void
lade_bar_screen_clear(lade_bar_screen_t *self)
{
    if (self->drawn)
        fprintf(self->out, "\033[%zuA\r\033[J", self->drawn); // up, to the left, erase to the end
    self->drawn = 0;
    fflush(self->out);
}

void
lade_bar_screen_draw(lade_bar_screen_t *self, const char *const *lines, size_t count)
{
    if (self->drawn)
        fprintf(self->out, "\033[%zuA\r", self->drawn);
    for (size_t i = 0; i < count; i++)
        fprintf(self->out, "%s\033[K\n", lines[i]);
    fputs("\033[J", self->out);
    self->drawn = count;
    fflush(self->out);
}

void
lade_bar_screen_destroy(lade_bar_screen_t **self_p)
{
    if (*self_p)
        lade_bar_screen_clear(*self_p);
    free(*self_p);
    *self_p = NULL;
}
