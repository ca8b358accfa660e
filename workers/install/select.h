// Which files of a hub repository make the model, and where each goes in the temporary folder.
//
// Repositories hold the same weights many times over (precisions, frameworks, pruned checkpoints).
// The rules take the configuration files and, in each folder, the weights of the variant that is
// wanted; README.md has them.
#ifndef LADE_SELECT_H
#define LADE_SELECT_H

#include "common/error.h"

#include <stddef.h>

typedef struct {
    size_t index; // of the path in the list that was given
    char *local;  // where it goes, relative to the temporary folder
} lade_pick_t;

typedef struct {
    lade_pick_t *items; // ordered by path in the repository
    size_t count;
    char *top; // first part of each `local`: the folder or file that is the model
} lade_selection_t;

// Picks from the paths of repository `repo` ("org/R"). variant: "" (default), fp16, fp32, onnx,
// openvino, flax. subfolder may be NULL, one folder, one file, or several folders joined by '+'.
// Paths come from the hub and are checked: LADE_CORRUPT for one that leaves the folder.
// LADE_INVALID_MODEL_CONFIG "No downloadable files found" with what to name instead,
// LADE_NOT_FOUND if the subfolder is not there at all. Free with lade_select_free whatever
// is returned.
lade_code_t lade_select_files(const char *const *paths, size_t count, const char *repo,
                              const char *variant, const char *subfolder,
                              lade_selection_t *selection, lade_error_t *error);

void lade_select_free(lade_selection_t *self);

#endif
