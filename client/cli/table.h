// A table for people: columns aligned, cut to the width that is there.
#ifndef LADE_TABLE_H
#define LADE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef enum {
    LADE_TABLE_LEFT,
    LADE_TABLE_RIGHT,
    LADE_TABLE_CUT,     // left; gives way when the table is too wide, cut at its end
    LADE_TABLE_CUT_HEAD // the same, cut at its front: paths and sources, whose end tells more
} lade_table_align_t;

typedef struct {
    const char *title; // NULL ends the columns
    lade_table_align_t align;
} lade_table_column_t;

typedef struct lade_table lade_table_t;

// columns stay the caller's. Aborts when memory runs out.
lade_table_t *lade_table_new(const lade_table_column_t *columns);

// Sets the next cell, row after row; the text is copied and made harmless. NULL is "-".
void lade_table_add(lade_table_t *self, const char *text);
void lade_table_addf(lade_table_t *self, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

size_t lade_table_rows(const lade_table_t *self);

// Prints titles and rows. width 0 cuts nothing. Columns with nothing but "-" are left out.
void lade_table_print(const lade_table_t *self, FILE *out, size_t width);

void lade_table_destroy(lade_table_t **self_p);

#endif
