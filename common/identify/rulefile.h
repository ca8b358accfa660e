// YAML nodes into values for the reader of family files: each mistake is an error with file and
// line.
#ifndef LADE_RULEFILE_H
#define LADE_RULEFILE_H

#include "common/error.h"
#include "common/identify/pattern.h"

#include <jansson.h>
#include <regex.h>
#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

enum { LADE_RULEFILE_MAX_DEPTH = 16, LADE_RULEFILE_MAX_LIST = 1000 };

// What is made while reading lives in blocks, as long as the rules do.
typedef struct lade_rulefile_block lade_rulefile_block_t;
struct lade_rulefile_block {
    lade_rulefile_block_t *next;
    json_t *json; // a value to let go
    regex_t *regex;
    max_align_t data[];
};

// Where the reader is.
typedef struct {
    lade_rulefile_block_t **blocks;
    lade_patterns_t *patterns; // those read are added to them
    yaml_document_t *doc;
    const char *file; // what errors call it
    int depth;        // of nested nodes; who goes down checks it against the ceiling
    lade_error_t *error;
} lade_rulefile_t;

// LADE_CONFIG_ERROR "FILE:LINE: …".
lade_code_t lade_rulefile_fail(lade_rulefile_t *reader, const yaml_node_t *node, const char *format,
                               ...) __attribute__((format(printf, 3, 4)));

// Zeroed memory, a value, a copy of a text that live with the blocks. Abort when memory runs out.
void *lade_rulefile_alloc(lade_rulefile_t *reader, size_t size);
json_t *lade_rulefile_keep(lade_rulefile_t *reader, json_t *value);
const char *lade_rulefile_keep_text(lade_rulefile_t *reader, const char *text);

yaml_node_t *lade_rulefile_node(lade_rulefile_t *reader, int index);

// The text of a scalar, else NULL. It stays the document's.
const char *lade_rulefile_scalar(const yaml_node_t *node);

// The value of a key in a map, NULL if it is not there.
yaml_node_t *lade_rulefile_find(lade_rulefile_t *reader, const yaml_node_t *map, const char *key);

// LADE_OK if the node is a map whose keys are all in a NULL-ended list, each once. what is its name
// in errors.
lade_code_t lade_rulefile_check_keys(lade_rulefile_t *reader, const yaml_node_t *map,
                                     const char *what, const char *const *keys);

// A plain scalar as what it looks like (number, true, false, null), a quoted one as text. Yours.
json_t *lade_rulefile_literal_scalar(const yaml_node_t *node);

// Any node as JSON; *value_p is yours.
lade_code_t lade_rulefile_literal(lade_rulefile_t *reader, const yaml_node_t *node,
                                  json_t **value_p);

// A list of scalars (or one scalar as a list of one), only text if texts. *list_p lives with the
// blocks.
lade_code_t lade_rulefile_list(lade_rulefile_t *reader, const yaml_node_t *node, bool texts,
                               json_t **list_p);

// One value of a kind. What is not a number lives with the blocks.
lade_code_t lade_rulefile_text(lade_rulefile_t *reader, const yaml_node_t *node,
                               const char **text_p);
lade_code_t lade_rulefile_number(lade_rulefile_t *reader, const yaml_node_t *node,
                                 double *number_p);
lade_code_t lade_rulefile_integer(lade_rulefile_t *reader, const yaml_node_t *node, int low,
                                  int high, int *value_p);
lade_code_t lade_rulefile_regex(lade_rulefile_t *reader, const yaml_node_t *node, int flags,
                                regex_t **regex_p);

// Frees all that was made.
void lade_rulefile_free(lade_rulefile_block_t **blocks_p);

#endif
