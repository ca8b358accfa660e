// What stands in the live area of a terminal: a line for each thing that is going on, in a place it
// keeps, and a line for all of them. Text in, text out.
#ifndef LADE_FRAME_H
#define LADE_FRAME_H

#include "client/cli/bar.h"
#include "common/buf.h"

typedef struct {
    const char *name, *status; // borrowed
    lade_bar_progress_t progress;
    bool ended, failed;
} lade_frame_row_t;

typedef struct lade_frame lade_frame_t;

// Aborts when memory runs out.
lade_frame_t *lade_frame_new(void);

// Adds the lines to text, each ended by '\n' and at most width columns wide, at most height of
// them. What moves has a line of its own as long as there is room; a row keeps its line while it
// goes on. rows are the same ones each time, in the same order.
void lade_frame_compose(lade_frame_t *self, const lade_frame_row_t *rows, size_t count,
                        size_t width, size_t height, int64_t now_ms, lade_buf_t *text);

void lade_frame_destroy(lade_frame_t **self_p);

#endif
