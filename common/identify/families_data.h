// The family files of configs/families, compiled in by scripts/embed.
#ifndef LADE_FAMILIES_DATA_H
#define LADE_FAMILIES_DATA_H

#include <stddef.h>

typedef struct {
    const char *name; // file name, "sd-1.yaml"; NULL ends the table
    const char *text;
    size_t len;
} lade_families_file_t;

extern const lade_families_file_t lade_families_data[];

#endif
