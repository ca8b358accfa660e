// Converted copies of checkpoints: MODELS/.convert_cache/KEY, a folder as diffusers has it.
//
// Made by install workers, read by load workers. Beside the model lies `.entry`, JSON that says
// what it was made from; its time of change is when the copy was asked for last. A copy appears by
// one rename and goes by one. Who reads it holds it; who removes it claims it.
#ifndef LADE_CONVERTED_H
#define LADE_CONVERTED_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

// MODELS/.convert_cache, and KEY in it; you free them.
char *lade_converted_root(const char *models_dir);
char *lade_converted_path(const char *models_dir, const char *key);

// The file that a whole conversion of the record has: model_index.json of a pipeline, else
// config.json.
const char *lade_converted_sentinel(const json_t *record);

// Where the record's file is, absolute; yours. LADE_INVALID_MODEL_CONFIG if its path is none.
lade_code_t lade_converted_source(const char *models_dir, const json_t *record, char **path_p,
                                  lade_error_t *error);

// What a conversion of the record as it is now is made from: its file's size and time of change,
// the record's updated_at. A new map; NULL if the file is not there.
json_t *lade_converted_note(const char *models_dir, const json_t *record);

// Whether there is a copy that was made from just that; *note_p (may be NULL) is what its `.entry`
// says, yours, NULL if there is none. Any change of the record or the file makes it stale.
bool lade_converted_is_fresh(const char *models_dir, const json_t *record, json_t **note_p);

// The copy was asked for now; with ahead_s by somebody who will read it within so many seconds.
void lade_converted_touch(const char *models_dir, const char *key, double ahead_s);

// Keeps the copy from being replaced or evicted until the descriptor is closed; -1 if there is
// none. What it is made from is to be looked at afterwards.
int lade_converted_hold(const char *models_dir, const char *key);

// The right to remove it, until *fd_p is closed (-1: there is nothing that anybody could hold).
// LADE_BUSY while it is held.
lade_code_t lade_converted_claim(const char *models_dir, const char *key, int *fd_p,
                                 lade_error_t *error);

#endif
