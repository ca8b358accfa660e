// The search for models below a folder: names and kinds of files only, nothing is opened but
// folders.
#ifndef LADE_WALK_H
#define LADE_WALK_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const char *models_dir; // what lade keeps in it for itself is passed over; NULL: none
    bool (*stop)(void *arg);
    void *arg;
} lade_walk_rules_t;

typedef struct {
    char **paths; // of models: files, and folders that are one; in order, none twice
    size_t count, cap;
    json_t *problems; // [{"path", "error_type", "error"}]: folders that could not be read
} lade_walk_t;

// Adds the models below root (absolute) to found, which begins as {0}; root itself may be one. What
// was found before is kept, so that several roots can be walked.
//
// A folder that has one of the files that make it a model (model_index.json, config.json, …) is one
// model and is not entered. Files count by their suffix. Hidden names, system folders, and what is
// deeper than 20 folders are passed over. A link is followed if what it leads to was not found
// without it, so no folder is walked twice and circles end.
//
// LADE_NOT_FOUND and the like if root cannot be read, LADE_CANCELLED, LADE_TOO_LARGE over a million
// models. A folder below that cannot be read is a problem, no error.
lade_code_t lade_walk(const lade_walk_rules_t *rules, const char *root, lade_walk_t *found,
                      lade_error_t *error);

// The path as records of lade have it: links in it resolved, but for those the models folder itself
// lies behind. You free it; NULL with LADE_NOT_FOUND and the like.
char *lade_walk_real(const char *models_dir, const char *path, lade_error_t *error);

void lade_walk_free(lade_walk_t *self);

#endif
