// Configs of converted models: JSON in which some values are looked up.
//
//   {$record: FIELD, map: {VALUE: …}, else: …}  the record's field; with map what that says of it
//   {$shape: TENSOR, axis: N, by: D, else: …}   a dimension of a tensor of the part, divided by D
//   {$count: PATTERN}                           how many tensors of the part have such a name
//   {$if: TENSOR, then: …, else: …}             whether the part has a tensor of that name
//   {$has: TENSOR}                              whether the checkpoint has a tensor of that name
#ifndef LADE_CONVERT_CONFIG_H
#define LADE_CONVERT_CONFIG_H

#include "workers/install/convert_part.h"

#include <jansson.h>

typedef struct {
    const json_t *record;
    const lade_tensors_t *list;      // the checkpoint
    const lade_convert_part_t *part; // NULL for a config beside the parts
    const json_t *words;             // for patterns
} lade_convert_about_t;

// The config with its values in it; *value_p is yours. LADE_INVALID_MODEL_CONFIG if a tensor it
// asks for is not there, LADE_CONFIG_ERROR for a value that is none.
lade_code_t lade_convert_config(const lade_convert_about_t *about, const json_t *config,
                                json_t **value_p, lade_error_t *error);

#endif
