// YAML documents as json_t and back, for what people edit.
//
// Reading takes the core of YAML 1.2: plain null, true, false and decimal, 0x and 0o numbers are
// what they look like, everything else and whatever stands in quotes is text (also 0123, yes, 1:20
// and dates). Aliases are taken, but count as often as they are used. Writing quotes each text that
// some reader could take for something else; text that is not UTF-8 becomes !!binary.
#ifndef LADE_YAML_H
#define LADE_YAML_H

#include "common/buf.h"
#include "common/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LADE_YAML_MAX_DEPTH = 32, // maps and lists within each other
    LADE_YAML_MAX_VALUES =
        4 << 20, // values of one document, those of aliases as often as they are used
    LADE_YAML_MAX_BYTES = 256 << 20,
};

// Reads the one document of the text; name is what messages call it. *value_p is yours; NULL for an
// empty document. lines_p (may be NULL) is where things stand, for lade_yaml_line. LADE_CORRUPT
// with "NAME:LINE: …", LADE_TOO_LARGE.
lade_code_t lade_yaml_parse(const char *name, const void *text, size_t len, json_t **value_p,
                            json_t **lines_p, lade_error_t *error);

// The same of a file; "-" is standard input.
lade_code_t lade_yaml_read(const char *path, json_t **value_p, json_t **lines_p,
                           lade_error_t *error);

// The line of a member of the top map, or of its member `field`; the nearest that is known, at
// least 1.
int64_t lade_yaml_line(const json_t *lines, const char *key, const char *field);

// Appends a map, a list or a value as a block; members in their order.
lade_code_t lade_yaml_write(const json_t *value, lade_buf_t *buf, lade_error_t *error);

#endif
