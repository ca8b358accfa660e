// The JSON files of model folders (config.json, model_index.json, …), read with ceilings.
#ifndef LADE_JSON_FILE_H
#define LADE_JSON_FILE_H

#include "common/error.h"

#include <jansson.h>
#include <stddef.h>

enum { LADE_JSON_FILE_MAX_CONFIG = 4 << 20 }; // bytes: no config of a model comes near

// Reads a JSON file of at most max bytes; *value_p is yours. LADE_NOT_FOUND, LADE_TOO_LARGE,
// LADE_CORRUPT with line and reason.
lade_code_t lade_json_file_read(const char *path, size_t max, json_t **value_p,
                                lade_error_t *error);

// The value at a dotted path ("text_config.hidden_size", "architectures.0"), NULL if there is none.
// It stays root's.
const json_t *lade_json_file_at(const json_t *root, const char *path);

// What a config says it is: its _class_name, else the first of its architectures; NULL if neither
// is a text.
const char *lade_json_file_class(const json_t *config);

#endif
