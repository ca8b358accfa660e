// Progress bars.
#include "client/cli/bar.h"

#include "client/cli/show.h"
#include "common/buf.h"

#include <stdlib.h>
#include <string.h>

enum {
    S_SAMPLE_MS = 500,
    S_NUMBERS = 49,     // columns of the numbers
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

// What is worth saying of a job whose bytes are shown: nothing while they come.
static const char *
s_remark(const char *status)
{
    static const char *const plain[] = {"running", "fetching", "downloading", "resumed", "loading"};
    for (size_t i = 0; status && i < sizeof plain / sizeof *plain; i++)
        if (strncmp(status, plain[i], strlen(plain[i])) == 0)
            return "";
    return status ? status : "";
}

// " 46%  83.2 MiB of  180 MiB  25.7 MiB/s  4s": S_NUMBERS columns at most (but for a remark in the
// place of the time left), each number in its place.
static void
s_format_numbers(const lade_bar_progress_t *self, const char *remark, char *text, size_t size)
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
             *rate ? "/s" : "", *remark ? remark : left);
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
    char numbers[512], bar[S_MOST_BAR + 3], whole[2048];
    // The same places in every line, whatever is known of its job.
    size_t cells = width >= S_LEAST_WIDTH ? (width - S_NUMBERS - 6) / 3 : 0;
    cells = cells < S_MOST_BAR ? cells : S_MOST_BAR;
    size_t used = S_NUMBERS + 2 + (cells ? cells + 4 : 0);
    size_t room = width > used + S_LEAST_NAME ? width - used : width / 3 + 1;
    char *shown = lade_show_clean(name, room, true);
    int pad = (int)(room - lade_show_width(shown));
    if (self->bytes > 0 || self->total > 0) {
        s_format_numbers(self, s_remark(status), numbers, sizeof numbers);
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
    size_t *widths; // of the lines that stand there
    size_t drawn;
};

lade_bar_screen_t *
lade_bar_screen_new(FILE *out)
{
    lade_bar_screen_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->out = out;
    return self;
}

// Rows of the terminal that the lines take: in one that became narrower they are folded.
static size_t
s_rows(const lade_bar_screen_t *self, size_t columns)
{
    size_t rows = 0;
    for (size_t i = 0; i < self->drawn; i++)
        rows +=
            columns && self->widths[i] > columns ? (self->widths[i] + columns - 1) / columns : 1;
    return rows;
}

// Adds each line, with what stood behind it erased; returns how many.
static size_t
s_add_lines(lade_bar_screen_t *self, const char *text, bool stay, lade_buf_t *frame)
{
    size_t count = 0;
    for (const char *end; (end = strchr(text, '\n')); text = end + 1) {
        char *line = strndup(text, (size_t)(end - text));
        lade_buf_addf(frame, NULL, "%s\033[K\n", line ? line : "");
        if (stay) {
            self->widths = realloc(self->widths, (count + 1) * sizeof *self->widths);
            if (!self->widths)
                abort();
            self->widths[count] = lade_show_width(line ? line : "");
        }
        free(line);
        count++;
    }
    return count;
}

void
lade_bar_screen_draw(lade_bar_screen_t *self, const char *above, const char *lines, size_t columns)
{
    lade_buf_t frame = LADE_BUF(1 << 24);
    if (self->drawn) // up, and to the left
        lade_buf_addf(&frame, NULL, "\033[%zuA\r", s_rows(self, columns));
    s_add_lines(self, above, false, &frame);
    self->drawn = s_add_lines(self, lines, true, &frame);
    lade_buf_addf(&frame, NULL, "\033[J"); // whatever else stood below
    fwrite(lade_buf_text(&frame), 1, frame.len, self->out);
    fflush(self->out);
    lade_buf_free(&frame);
}

void
lade_bar_screen_clear(lade_bar_screen_t *self, size_t columns)
{
    if (self->drawn)
        lade_bar_screen_draw(self, "", "", columns);
}

void
lade_bar_screen_destroy(lade_bar_screen_t **self_p)
{
    if (*self_p) {
        lade_bar_screen_clear(*self_p, 0);
        free((*self_p)->widths);
    }
    free(*self_p);
    *self_p = NULL;
}
