// Values as people read them: sizes, times, and text from elsewhere made harmless for a terminal.
#ifndef LADE_SHOW_H
#define LADE_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LADE_SHOW_SIZE = 32 }; // room every formatted value fits in

// "0 B", "1.5 KiB", "6.94 GiB". Returns text.
const char *lade_show_bytes(int64_t bytes, char text[LADE_SHOW_SIZE]);

// A span: "3s", "2m 05s", "1h 03m", "4d 02h". Returns text.
const char *lade_show_span(double seconds, char text[LADE_SHOW_SIZE]);

// A time of day in the local zone: "16:20:01", with the date in front if it is not today's. Returns
// text.
const char *lade_show_time(double seconds, char text[LADE_SHOW_SIZE]);

// Columns the text takes on a terminal.
size_t lade_show_width(const char *text);

// The text with control characters and broken UTF-8 as '?', cut to width columns (with "…" at the
// cut; from the front if the end tells more, as of a path). You free it. width 0: not cut.
char *lade_show_clean(const char *text, size_t width, bool keep_end);

// The text made harmless too, its words in lines of at most width columns: those after the first
// begin with indent spaces, where the first is expected to stand. You free it. width 0: one line.
char *lade_show_wrap(const char *text, size_t width, size_t indent);

// Columns of the terminal on descriptor: COLUMNS, else what it says, else 80.
size_t lade_show_columns(int descriptor);

#endif
