// Tables.
#include "client/cli/table.h"

#include "client/cli/show.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { S_MAX_COLUMNS = 16, S_LEAST = 8, S_GAP = 2 };

struct lade_table {
    const lade_table_column_t *columns;
    size_t column_count;
    char **cells;
    size_t count, room;
};

lade_table_t *
lade_table_new(const lade_table_column_t *columns)
{
    lade_table_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->columns = columns;
    while (self->column_count < S_MAX_COLUMNS && columns[self->column_count].title)
        self->column_count++;
    return self;
}

void
lade_table_add(lade_table_t *self, const char *text)
{
    if (self->count == self->room) {
        self->room = self->room ? self->room * 2 : 64;
        self->cells = realloc(self->cells, self->room * sizeof *self->cells);
        if (!self->cells)
            abort();
    }
    self->cells[self->count++] = lade_show_clean(text && *text ? text : "-", 0, false);
}

void
lade_table_addf(lade_table_t *self, const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    lade_table_add(self, text);
    free(text);
}

size_t
lade_table_rows(const lade_table_t *self)
{
    return self->count / self->column_count;
}

// The width each column wants; 0 for one that is empty in every row.
static void
s_measure(const lade_table_t *self, size_t *widths)
{
    for (size_t c = 0; c < self->column_count; c++) {
        bool used = self->count < self->column_count; // a table without rows shows all its titles
        widths[c] = lade_show_width(self->columns[c].title);
        for (size_t i = c; i < self->count; i += self->column_count) {
            size_t width = lade_show_width(self->cells[i]);
            widths[c] = width > widths[c] ? width : widths[c];
            used = used || strcmp(self->cells[i], "-") != 0;
        }
        if (!used)
            widths[c] = 0;
    }
}

// Takes columns from the widest that may be cut until the line fits or nothing is left to take.
static void
s_fit(const lade_table_t *self, size_t *widths, size_t width)
{
    while (true) {
        size_t total = 0, widest = self->column_count;
        for (size_t c = 0; c < self->column_count; c++) {
            total += widths[c] ? widths[c] + (total ? S_GAP : 0) : 0;
            if (self->columns[c].align >= LADE_TABLE_CUT && widths[c] > S_LEAST &&
                (widest == self->column_count || widths[c] > widths[widest]))
                widest = c;
        }
        if (total <= width || widest == self->column_count)
            return;
        widths[widest]--;
    }
}

static void
s_print_cell(FILE *out, const char *text, size_t width, lade_table_align_t align, bool last)
{
    char *cut = lade_show_clean(text, width, align == LADE_TABLE_CUT_HEAD);
    int pad = (int)(width - lade_show_width(cut));
    if (align == LADE_TABLE_RIGHT)
        fprintf(out, "%*s%s", pad, "", cut);
    else
        fprintf(out, "%s%*s", cut, last ? 0 : pad, "");
    free(cut);
}

void
lade_table_print(const lade_table_t *self, FILE *out, size_t width)
{
    size_t widths[S_MAX_COLUMNS], last = 0;
    s_measure(self, widths);
    if (width)
        s_fit(self, widths, width);
    for (size_t c = 0; c < self->column_count; c++)
        last = widths[c] ? c : last;
    for (size_t row = 0; row <= lade_table_rows(self); row++) {
        bool first = true;
        for (size_t c = 0; c < self->column_count; c++) {
            if (!widths[c])
                continue;
            if (!first)
                fprintf(out, "%*s", S_GAP, "");
            first = false;
            const lade_table_column_t *column = &self->columns[c];
            const char *text =
                row ? self->cells[(row - 1) * self->column_count + c] : column->title;
            s_print_cell(out, text, widths[c], column->align, c == last);
        }
        fputc('\n', out);
    }
}

void
lade_table_destroy(lade_table_t **self_p)
{
    lade_table_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++)
        free(self->cells[i]);
    free(self->cells);
    free(self);
    *self_p = NULL;
}
