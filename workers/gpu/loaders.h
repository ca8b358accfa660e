// The registry of loaders: which files of a record make up what is loaded, by (base, type, format).
//
// A loader is a row. Two rows for one triple are an error at the start, not a race about which
// comes first.
#ifndef LADE_GPU_LOADERS_H
#define LADE_GPU_LOADERS_H

#include "common/error.h"
#include "workers/gpu/folder.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

// What a loader is asked about.
typedef struct {
    const char *name;     // of the record, for errors
    const char *path;     // absolute; it is there
    const char *submodel; // NULL for none
    const char *variant;  // the record's repo_variant, "" for the default one
    const char *parts;    // the row's
    const json_t *record;
} lade_loader_request_t;

typedef struct {
    const char *base; // "any" for every base without a row of its own
    const char *type;
    const char *format;
    // Adds the files; none at all is a model without weights.
    lade_code_t (*files)(const lade_loader_request_t *request, lade_files_t *files,
                         lade_error_t *error);
    const char *parts; // the submodels it has, by spaces; NULL: none, or what its folder says
} lade_loader_t;

// The loaders that ship, ended by a row of NULLs.
extern const lade_loader_t lade_loaders_host[];

typedef struct lade_loaders lade_loaders_t;

// Takes rows ended by one of NULLs, which must outlive *self_p. LADE_CONFIG_ERROR naming a triple
// that has two.
lade_code_t lade_loaders_new(const lade_loader_t *rows, lade_loaders_t **self_p,
                             lade_error_t *error);
void lade_loaders_destroy(lade_loaders_t **self_p);

// The row of that base, else of "any". LADE_NOT_IMPLEMENTED naming the triple.
lade_code_t lade_loaders_find(const lade_loaders_t *self, const char *base, const char *type,
                              const char *format, const lade_loader_t **row_p, lade_error_t *error);

// The files of a record's model or submodel (NULL: none); a relative path is in models_dir.
// LADE_MODEL_NOT_FOUND if they are gone, LADE_VALUE_ERROR for a submodel that is missing, unknown,
// or asked of what has none.
lade_code_t lade_loaders_files(const lade_loaders_t *self, const json_t *record,
                               const char *submodel, const char *models_dir, lade_files_t *files,
                               lade_error_t *error);

// Whether the record says that a submodel (NULL: none) is elsewhere than in its model: by an
// absolute path, of a folder or a file, in `submodels`.
bool lade_loaders_places(const json_t *record, const char *submodel);

// Where a model is, or its submodel: where the record's `submodels` says, else the
// one of that name below the model, where that is there. Absolute, yours to free.
char *lade_loaders_path(const json_t *record, const char *submodel, const char *models_dir);

#endif
