// Arguments of the command line: options are rows of a table, words are what is left.
#ifndef LADE_ARGS_H
#define LADE_ARGS_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    LADE_ARG_FLAG,
    LADE_ARG_TEXT,
    LADE_ARG_NUMBER,
    LADE_ARG_REAL,
    LADE_ARG_BYTES,  // "20M", "1.5GiB", "4096"
    LADE_ARG_SECRET, // a text that is blotted out in argv, where everybody on the machine could
                     // read it
} lade_arg_type_t;

typedef struct {
    const char *name;  // "--json"; NULL ends a table
    const char *value; // what --help calls its value; NULL for a flag
    lade_arg_type_t type;
    bool many;       // may be given more than once
    double min, max; // of numbers
    const char *help;
    char letter; // "-h"; 0 none
} lade_option_t;

enum { LADE_ARGS_MAX = 4096 };

typedef struct {
    const lade_option_t *row;
    const char *text; // as typed; NULL for a flag
    char *own;        // the text of a LADE_ARG_SECRET
} lade_arg_given_t;

typedef struct {
    const char **words; // what is no option, in order, the command's name first
    size_t word_count;
    lade_arg_given_t *given;
    size_t given_count;
} lade_args_t;

// Which further options there are once the first word (the command) is known; NULL if there is no
// such command.
typedef const lade_option_t *(lade_args_find_t)(const char *command);

// Reads argv[1…]. globals may stand anywhere, a command's own options after its name. LADE_USAGE
// with a sentence for an unknown option (with the nearest one), a missing or bad value, one too
// many. "--" ends the options. The texts stay argv's but for secrets, which are copied. Free with
// lade_args_free whatever is returned.
lade_code_t lade_args_read(lade_args_t *self, int argc, char **argv, const lade_option_t *globals,
                           lade_args_find_t *find, lade_error_t *error);

bool lade_args_flag(const lade_args_t *self, const char *name);
const char *lade_args_text(const lade_args_t *self, const char *name, const char *preset);
int64_t lade_args_number(const lade_args_t *self, const char *name, int64_t preset);
double lade_args_real(const lade_args_t *self, const char *name, double preset);
int64_t lade_args_bytes(const lade_args_t *self, const char *name, int64_t preset);
// The index-th value of an option that may be given more than once; NULL past the last.
const char *lade_args_each(const lade_args_t *self, const char *name, size_t index);

// How many single-letter edits lie between two words: what "did you mean" goes by.
size_t lade_args_distance(const char *a, const char *b);

void lade_args_free(lade_args_t *self);

#endif
