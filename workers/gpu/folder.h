// Which files of a model's folder are its weights.
//
// A folder may hold the same weights several times: in several precisions
// ("model.fp16.safetensors"), in several formats, whole and in shards. Exactly one of those sets is
// taken.
#ifndef LADE_GPU_FOLDER_H
#define LADE_GPU_FOLDER_H

#include "common/error.h"

#include <stddef.h>

typedef struct {
    char **paths;
    size_t count;
} lade_files_t;

enum { LADE_FILES_MAX = 4096 };

// Adds a file. LADE_TOO_LARGE at the ceiling, LADE_NO_MEMORY.
lade_code_t lade_files_add(lade_files_t *self, const char *folder, const char *name,
                           lade_error_t *error);
void lade_files_free(lade_files_t *self);

// Adds the weight files directly in folder: of the variant asked for ("" is the default one), else
// of the default one, else of any; safetensors before other formats. No weight file at all is no
// error: files stays as it was. LADE_MODEL_NOT_FOUND for a set of shards that is not whole.
lade_code_t lade_folder_weights(const char *folder, const char *variant, lade_files_t *files,
                                lade_error_t *error);

#endif
