// The live area.
//
// A row that begins to move takes the place of one that ended, so that the lines of the others stay
// where they are. Rows that wait fill places only where there is one to fill, or room for all.
#include "client/cli/frame.h"

#include "client/cli/show.h"

#include <stdlib.h>
#include <string.h>

enum { S_LINE = 1024, S_NOBODY = -1 };

struct lade_frame {
    long *places; // rows, from top to bottom; S_NOBODY: free
    size_t count;
    lade_bar_progress_t all;
};

lade_frame_t *
lade_frame_new(void)
{
    lade_frame_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    return self;
}

static bool
s_moves(const lade_frame_row_t *row)
{
    return !row->ended && (row->progress.bytes > 0 || row->progress.rate > 0);
}

static void
s_append(lade_frame_t *self, size_t row)
{
    self->places = realloc(self->places, (self->count + 1) * sizeof *self->places);
    if (!self->places)
        abort();
    self->places[self->count++] = (long)row;
}

// Places of ended rows become free, and those below the room go.
static void
s_clear(lade_frame_t *self, const lade_frame_row_t *rows, size_t room, bool *placed)
{
    if (self->count > room)
        self->count = room;
    for (size_t i = 0; i < self->count; i++) {
        if (self->places[i] != S_NOBODY && rows[self->places[i]].ended)
            self->places[i] = S_NOBODY;
        if (self->places[i] != S_NOBODY)
            placed[self->places[i]] = true;
    }
}

static bool
s_take_free(lade_frame_t *self, size_t row)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->places[i] == S_NOBODY) {
            self->places[i] = (long)row;
            return true;
        }
    return false;
}

// The lowest place of one that waits goes to one that moves.
static bool
s_displace(lade_frame_t *self, const lade_frame_row_t *rows, size_t row, bool *placed)
{
    for (size_t i = self->count; i-- > 0;)
        if (!s_moves(&rows[self->places[i]])) {
            placed[self->places[i]] = false;
            self->places[i] = (long)row;
            return true;
        }
    return false;
}

static void
s_place_moving(lade_frame_t *self, const lade_frame_row_t *rows, size_t count, size_t room,
               bool *placed)
{
    for (size_t i = 0; i < count; i++) {
        if (placed[i] || !s_moves(&rows[i]))
            continue;
        placed[i] = s_take_free(self, i);
        if (!placed[i] && self->count < room) {
            s_append(self, i);
            placed[i] = true;
        }
        placed[i] = placed[i] || s_displace(self, rows, i, placed);
    }
}

static void
s_place_waiting(lade_frame_t *self, const lade_frame_row_t *rows, size_t count, bool all,
                bool *placed)
{
    for (size_t i = 0; i < count; i++) {
        if (placed[i] || rows[i].ended)
            continue;
        placed[i] = s_take_free(self, i);
        if (!placed[i] && !all)
            break;
        if (!placed[i])
            s_append(self, i);
        placed[i] = true;
    }
    size_t kept = 0;
    for (size_t i = 0; i < self->count; i++)
        if (self->places[i] != S_NOBODY)
            self->places[kept++] = self->places[i];
    self->count = kept;
}

// What all have together; the total is known if it is known of each. What failed does not count.
static void
s_add_up(lade_frame_t *self, const lade_frame_row_t *rows, size_t count, int64_t now_ms)
{
    int64_t bytes = 0, total = 0;
    bool known = true;
    for (size_t i = 0; i < count; i++) {
        const lade_bar_progress_t *progress = &rows[i].progress;
        if (rows[i].failed)
            continue;
        bytes += progress->bytes;
        total += progress->total > progress->bytes ? progress->total : progress->bytes;
        known = known && (rows[i].ended || progress->total > 0);
    }
    lade_bar_update(&self->all, bytes, known ? total : 0, now_ms);
}

static void
s_add_total(lade_frame_t *self, const lade_frame_row_t *rows, size_t count, size_t width,
            lade_buf_t *text)
{
    char name[128], line[S_LINE];
    size_t done = 0, failed = 0;
    for (size_t i = 0; i < count; i++) {
        done += rows[i].ended && !rows[i].failed;
        failed += rows[i].failed;
    }
    int len = snprintf(name, sizeof name, "%zu of %zu done", done, count);
    if (failed)
        snprintf(name + len, sizeof name - (size_t)len, ", %zu failed", failed);
    lade_buf_addf(text, NULL, "%s\n",
                  lade_bar_format(&self->all, name, "", width, line, sizeof line));
}

void
lade_frame_compose(lade_frame_t *self, const lade_frame_row_t *rows, size_t count, size_t width,
                   size_t height, int64_t now_ms, lade_buf_t *text)
{
    char line[S_LINE];
    size_t open = 0, room = height > 3 ? height : 3;
    bool *placed = calloc(count + 1, sizeof *placed), total = count > 1;
    if (!placed)
        abort();
    for (size_t i = 0; i < count; i++)
        open += !rows[i].ended;
    room -= total;
    bool all = open <= room;
    room -= !all; // "and N more"
    s_clear(self, rows, room, placed);
    if (!all)
        s_place_moving(self, rows, count, room, placed);
    s_place_waiting(self, rows, count, all, placed);
    for (size_t i = 0; i < self->count; i++) {
        const lade_frame_row_t *row = &rows[self->places[i]];
        lade_buf_addf(
            text, NULL, "%s\n",
            lade_bar_format(&row->progress, row->name, row->status, width, line, sizeof line));
    }
    if (open > self->count) {
        snprintf(line, sizeof line, "and %zu more", open - self->count);
        char *cut = lade_show_clean(line, width, false);
        lade_buf_addf(text, NULL, "%s\n", cut);
        free(cut);
    }
    s_add_up(self, rows, count, now_ms);
    if (total && open)
        s_add_total(self, rows, count, width, text);
    free(placed);
}

void
lade_frame_destroy(lade_frame_t **self_p)
{
    if (*self_p)
        free((*self_p)->places);
    free(*self_p);
    *self_p = NULL;
}
