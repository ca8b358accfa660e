// Reading the command line.
#include "client/cli/args.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t
lade_args_distance(const char *a, const char *b)
{
    enum { S_LONGEST = 32 };
    size_t row[S_LONGEST + 1];
    size_t a_len = strnlen(a, S_LONGEST), b_len = strnlen(b, S_LONGEST);
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j], best = corner + (a[i - 1] != b[j - 1]);
            best = best < above + 1 ? best : above + 1;
            row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
            corner = above;
        }
    }
    return row[b_len];
}

static const lade_option_t *
s_find(const lade_option_t *rows, const char *text, size_t len)
{
    for (; rows && rows->name; rows++)
        if ((strlen(rows->name) == len && strncmp(rows->name, text, len) == 0) ||
            (len == 2 && text[1] != '-' && rows->letter && text[1] == rows->letter))
            return rows;
    return NULL;
}

static lade_code_t
s_unknown(const char *option, const lade_option_t *globals, const lade_option_t *own,
          lade_error_t *error)
{
    const lade_option_t *tables[] = {own, globals};
    const char *nearest = NULL;
    size_t least = 4; // further away is no typing mistake
    for (size_t t = 0; t < 2; t++)
        for (const lade_option_t *row = tables[t]; row && row->name; row++)
            if (lade_args_distance(option, row->name) < least) {
                least = lade_args_distance(option, row->name);
                nearest = row->name;
            }
    if (nearest)
        return lade_error_set(error, LADE_USAGE, "unknown option '%s'; did you mean %s?", option,
                              nearest);
    return lade_error_set(error, LADE_USAGE, "unknown option '%s'; --help shows what there is",
                          option);
}

// Bytes with a unit or none: powers of 1024, as sizes are shown. Below 0 if the text is none.
static double
s_bytes(const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    double value = strtod(text, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (end == text || (*end && !unit) || !(value >= 0))
        return -1;
    end += unit != NULL;
    if (*end && strcmp(end, "iB") != 0)
        return -1;
    for (ptrdiff_t power = unit ? unit - units + 1 : 0; power > 0; power--)
        value *= 1024;
    return value;
}

static lade_code_t
s_check_value(const lade_option_t *row, const char *text, lade_error_t *error)
{
    if (row->type == LADE_ARG_BYTES) {
        double bytes = s_bytes(text);
        return bytes >= row->min && bytes <= row->max
                   ? LADE_OK
                   : lade_error_set(error, LADE_USAGE,
                                    "%s: '%s' is not a number of bytes, such as 500K, 20M or 1.5G",
                                    row->name, text);
    }
    if (row->type != LADE_ARG_NUMBER && row->type != LADE_ARG_REAL)
        return LADE_OK;
    char *end;
    errno = 0;
    double value =
        row->type == LADE_ARG_REAL ? strtod(text, &end) : (double)strtoimax(text, &end, 10);
    if (errno || end == text || *end || !(value >= row->min && value <= row->max))
        return lade_error_set(error, LADE_USAGE, "%s: '%s' is not a number from %.0f to %.0f",
                              row->name, text, row->min, row->max);
    return LADE_OK;
}

// A copy of the text, which is overwritten where it stands.
static char *
s_blot_out(char *text)
{
    char *copy = strdup(text);
    if (!copy)
        abort();
    explicit_bzero(text, strlen(text));
    return copy;
}

// Takes the option at argv[*at] and moves *at to the last argument it used.
static lade_code_t
s_take(lade_args_t *self, int argc, char **argv, int *at, const lade_option_t *globals,
       const lade_option_t *own, lade_error_t *error)
{
    const char *option = argv[*at], *equals = option[1] == '-' ? strchr(option, '=') : NULL;
    size_t len = equals ? (size_t)(equals - option) : strlen(option);
    const lade_option_t *row = s_find(own, option, len);
    if (!row)
        row = s_find(globals, option, len);
    if (!row)
        return s_unknown(option, globals, own, error);
    if (row->type == LADE_ARG_FLAG && equals)
        return lade_error_set(error, LADE_USAGE, "%s takes no value", row->name);
    const char *text = NULL;
    if (row->type != LADE_ARG_FLAG) {
        text = equals ? equals + 1 : *at + 1 < argc ? argv[++*at] : NULL;
        if (!text)
            return lade_error_set(error, LADE_USAGE, "%s wants %s", row->name, row->value);
    }
    if (row->type != LADE_ARG_FLAG && !row->many && lade_args_each(self, row->name, 0))
        return lade_error_set(error, LADE_USAGE, "%s is given twice", row->name);
    lade_arg_given_t *given = &self->given[self->given_count++];
    *given = (lade_arg_given_t){.row = row, .text = text};
    if (row->type == LADE_ARG_SECRET && *text != '@')
        given->text = given->own = s_blot_out(argv[*at] + (text - argv[*at]));
    return text ? s_check_value(row, text, error) : LADE_OK;
}

lade_code_t
lade_args_read(lade_args_t *self, int argc, char **argv, const lade_option_t *globals,
               lade_args_find_t *find, lade_error_t *error)
{
    *self = (lade_args_t){0};
    if (argc > LADE_ARGS_MAX)
        return lade_error_set(error, LADE_USAGE, "more than %d arguments", LADE_ARGS_MAX);
    self->words = calloc((size_t)argc + 1, sizeof *self->words);
    self->given = calloc((size_t)argc + 1, sizeof *self->given);
    if (!self->words || !self->given)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for the arguments");
    const lade_option_t *own = NULL;
    bool options = true;
    lade_code_t code = LADE_OK;
    for (int i = 1; i < argc && !code; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            code = s_take(self, argc, argv, &i, globals, own, error);
        } else {
            self->words[self->word_count++] = argv[i];
            if (self->word_count == 1)
                own = find(argv[i]);
        }
    }
    return code;
}

static const lade_arg_given_t *
s_given(const lade_args_t *self, const char *name, size_t index)
{
    for (size_t i = 0; i < self->given_count; i++)
        if (strcmp(self->given[i].row->name, name) == 0 && index-- == 0)
            return &self->given[i];
    return NULL;
}

bool
lade_args_flag(const lade_args_t *self, const char *name)
{
    return s_given(self, name, 0) != NULL;
}

const char *
lade_args_each(const lade_args_t *self, const char *name, size_t index)
{
    const lade_arg_given_t *given = s_given(self, name, index);
    return given ? given->text : NULL;
}

const char *
lade_args_text(const lade_args_t *self, const char *name, const char *preset)
{
    const char *text = lade_args_each(self, name, 0);
    return text ? text : preset;
}

int64_t
lade_args_number(const lade_args_t *self, const char *name, int64_t preset)
{
    const char *text = lade_args_each(self, name, 0);
    return text ? (int64_t)strtoimax(text, NULL, 10) : preset;
}

double
lade_args_real(const lade_args_t *self, const char *name, double preset)
{
    const char *text = lade_args_each(self, name, 0);
    return text ? strtod(text, NULL) : preset;
}

int64_t
lade_args_bytes(const lade_args_t *self, const char *name, int64_t preset)
{
    const char *text = lade_args_each(self, name, 0);
    return text ? (int64_t)s_bytes(text) : preset;
}

void
lade_args_free(lade_args_t *self)
{
    for (size_t i = 0; i < self->given_count; i++)
        if (self->given[i].own) {
            explicit_bzero(self->given[i].own, strlen(self->given[i].own));
            free(self->given[i].own);
        }
    free(self->words);
    free(self->given);
    *self = (lade_args_t){0};
}
