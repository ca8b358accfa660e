// What a model at a path is: identified, hashed, made into a record.
#ifndef LADE_DESCRIBE_H
#define LADE_DESCRIBE_H

#include "workers/install/stage.h"

// Identifies the model. What lade does not know is taken as it was told if overrides name type,
// base and format: whoever installs it has the last word.
lade_code_t lade_describe_identify(const lade_stage_t *job, const char *path,
                                   const json_t *overrides, json_t **found_p, lade_error_t *error);

// The hash of the model by install.hash; NULL in *hash_p if that is none, or the overrides have one
// of their own, which says nothing about the content.
lade_code_t lade_describe_hash(const lade_stage_t *job, const char *path, const json_t *overrides,
                               char **hash_p, lade_error_t *error);

// The record of the model at path, with a key, and path as its path. state has what is known of the
// source. *hash_p as above.
lade_code_t lade_describe(const lade_stage_t *job, const char *path, const json_t *state,
                          json_t **record_p, char **hash_p, lade_error_t *error);

// LADE_NOT_A_MODEL if the file is an HTML page: a login page saved under a model's name is the
// usual outcome of a missing token.
lade_code_t lade_describe_refuse_page(const char *path, lade_error_t *error);

// DONE with the record, whose files are at path.
void lade_describe_done(const json_t *record, const char *path, lade_answer_t *answer);

bool lade_describe_is_file(const char *path);

#endif
