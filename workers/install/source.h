// What a user may name as the source of a model: a path, a hub repository, an URL.
//
//   /models/foo.safetensors, ./folder      a file or folder that exists on this machine
//   org/repo[@revision][:variant][:[/]subfolder]
//                                          a hub repository; revision is a branch, tag, commit or
//                                          refs/pr/N; variant is fp16 fp32 onnx openvino flax or
//                                          nothing; several subfolders are joined by '+', a
//                                          subfolder may be one file
//   http://… https://…                     one file; a hub's repository page means the repository
//
// The first form that fits counts.
#ifndef LADE_SOURCE_H
#define LADE_SOURCE_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

typedef enum { LADE_SOURCE_LOCAL, LADE_SOURCE_HUB, LADE_SOURCE_URL } lade_source_kind_t;

// Only what belongs to the kind is set, the rest is NULL.
typedef struct {
    lade_source_kind_t kind;
    char *text;      // as the record's `source` shows it
    char *path;      // local: absolute, symbolic links in it kept
    char *repo;      // hub: "org/repo"
    char *revision;  // hub: as written; NULL when none was
    char *variant;   // hub: as written; NULL when none was, "" for the default one by name
    char *subfolder; // hub: as written, without a slash at its start
    char *url;
} lade_source_t;

// Reads the text form. LADE_VALUE_ERROR with the forms there are. Free with lade_source_free
// whatever is returned. Asks the file system whether a path is there (a relative one is taken from
// the working folder).
lade_code_t lade_source_parse(const char *text, lade_source_t *self, lade_error_t *error);

// Reads the map form of `import_model`: {"type": "local" "url" "hf", "path" "url" "repo_id",
// "revision"?, "variant"?, "subfolder"?}.
lade_code_t lade_source_from_map(const json_t *map, lade_source_t *self, lade_error_t *error);

// An URL of a hub's repository page (https://HOST/org/repo, …/tree/REVISION[/FOLDER]) becomes a hub
// source, one of a file's page (…/blob/…) the URL of the file itself. HOST is huggingface.co or the
// endpoint's. Others stay as they are.
lade_code_t lade_source_resolve_page(lade_source_t *self, const char *endpoint,
                                     lade_error_t *error);

// The repository (ORG/NAME) that a hub's URL is of or below, whatever it shows of it; NULL if it is
// none. You free it.
char *lade_source_page_repo(const char *url, const char *endpoint);

// True if url begins with the scheme, host and port of endpoint.
bool lade_source_same_origin(const char *url, const char *endpoint);

// "path", "hf_repo_id" or "url": the record's source_type.
const char *lade_source_type(const lade_source_t *self);

void lade_source_free(lade_source_t *self);

#endif
