// Progress bars: a line per job that is going on, drawn over itself in a terminal.
#ifndef LADE_BAR_H
#define LADE_BAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// How fast a job goes, from what it said so far.
typedef struct {
    int64_t bytes, total; // total 0: unknown
    double rate;          // bytes a second, smoothed; 0 unknown
    int64_t sampled_bytes, sampled_ms;
} lade_bar_progress_t;

// Takes in how far it is at now_ms.
void lade_bar_update(lade_bar_progress_t *self, int64_t bytes, int64_t total, int64_t now_ms);

// One line of at most width columns: name, bar, percent, bytes, rate, and the time left or (if it
// is another than that it runs) the status; or name and status while nothing is known of its bytes.
// Returns line.
const char *lade_bar_format(const lade_bar_progress_t *self, const char *name, const char *status,
                            size_t width, char *line, size_t size);

typedef struct lade_bar_screen lade_bar_screen_t;

// Lines on out that are drawn again and again.
lade_bar_screen_t *lade_bar_screen_new(FILE *out);

// Draws lines in place of the last ones, and what stays above them; both are lines that end with
// '\n' each. columns is the terminal's width now. One write.
void lade_bar_screen_draw(lade_bar_screen_t *self, const char *above, const char *lines,
                          size_t columns);

// Takes the lines away.
void lade_bar_screen_clear(lade_bar_screen_t *self, size_t columns);

void lade_bar_screen_destroy(lade_bar_screen_t **self_p);

#endif
