// Progress bars.
#include "client/cli/bar.h"

#include "client/cli/show.h"

#include <stdlib.h>
#include <string.h>

enum {
    S_SAMPLE_MS = 500,
    S_NUMBERS = 47,     // columns of the numbers
    S_MOST_BAR = 30,    // cells
    S_LEAST_WIDTH = 72, // of a line with a bar
    S_LEAST_NAME = 8,
};

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

// " 46%  83.2 MiB of  180 MiB  25.7 MiB/s  4s": S_NUMBERS columns at most, each number in its
// place.
static void
s_format_numbers(const lade_bar_progress_t *self, char *text, size_t size)
{
    char done[LADE_SHOW_SIZE], all[LADE_SHOW_SIZE] = "", rate[LADE_SHOW_SIZE] = "",
                               left[LADE_SHOW_SIZE] = "", percent[8] = "";
    lade_show_bytes(self->bytes, done);
    if (self->rate >= 1)
        lade_show_bytes((int64_t)self->rate, rate);
    if (self->total > 0) {
        double part = (double)self->bytes / (double)self->total;
        snprintf(percent, sizeof percent, "%d%%", part < 1 ? (int)(part * 100) : 100);
        lade_show_bytes(self->total, all);
    }
    if (self->total > self->bytes && self->rate >= 1)
        lade_show_span((double)(self->total - self->bytes) / self->rate, left);
    snprintf(text, size, "%4s  %8s %2s %8s  %8s%2s  %s", percent, done, *all ? "of" : "", all, rate,
             *rate ? "/s" : "", left);
}

static void
s_format_bar(const lade_bar_progress_t *self, size_t cells, char *text)
{
    double part = self->total > 0 ? (double)self->bytes / (double)self->total : 0;
    size_t full = part < 1 ? (size_t)(part * (double)cells) : cells;
    bool known = self->total > 0 && cells > 0;
    memset(text + 1, '#', full);
    memset(text + 1 + full, known ? '.' : ' ', cells - full);
    text[0] = known ? '[' : ' ';
    text[cells + 1] = known ? ']' : ' ';
    text[cells + 2] = '\0';
}

const char *
lade_bar_format(const lade_bar_progress_t *self, const char *name, const char *status, size_t width,
                char *line, size_t size)
{
    char numbers[160], bar[S_MOST_BAR + 3], whole[2048];
    // The same places in every line, whatever is known of its job.
    size_t cells = width >= S_LEAST_WIDTH ? (width - S_NUMBERS - 6) / 3 : 0;
    cells = cells < S_MOST_BAR ? cells : S_MOST_BAR;
    size_t used = S_NUMBERS + 2 + (cells ? cells + 4 : 0);
    size_t room = width > used + S_LEAST_NAME ? width - used : width / 3 + 1;
    char *shown = lade_show_clean(name, room, true);
    int pad = (int)(room - lade_show_width(shown));
    if (self->bytes > 0 || self->total > 0) {
        s_format_numbers(self, numbers, sizeof numbers);
        s_format_bar(self, cells, bar);
        snprintf(whole, sizeof whole, "%s%*s  %s%s%s", shown, pad, "", cells ? bar : "",
                 cells ? "  " : "", numbers);
    } else
        snprintf(whole, sizeof whole, "%s%*s  %s", shown, pad, "", status ? status : "");
    free(shown);
    char *cut = lade_show_clean(whole, width, false);
    snprintf(line, size, "%s", cut);
    free(cut);
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
