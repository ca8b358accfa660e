// What is known of conversions: files of YAML (configs/convert/README.md has their language), a
// site's own before the shipped ones.
#ifndef LADE_CONVERT_RULES_H
#define LADE_CONVERT_RULES_H

#include "common/error.h"
#include "workers/install/convert_map.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct lade_convert_rules lade_convert_rules_t;

// Reads the *.yaml of site_folder (NULL or "": none), then the shipped ones; of two words, maps or
// configs of one name the first counts. LADE_CONFIG_ERROR with the file for what is wrong.
lade_code_t lade_convert_rules_new(const char *site_folder, lade_convert_rules_t **self_p,
                                   lade_error_t *error);

// The kind of conversion for a record, a map of the files; NULL if there is none.
const json_t *lade_convert_rules_find(const lade_convert_rules_t *self, const json_t *record);

const lade_convert_map_t *lade_convert_rules_map(const lade_convert_rules_t *self,
                                                 const char *name); // NULL: none
const json_t *lade_convert_rules_config(const lade_convert_rules_t *self, const char *name);
const json_t *lade_convert_rules_words(const lade_convert_rules_t *self);

// A digest of all files: conversions by others are other conversions.
const char *lade_convert_rules_digest(const lade_convert_rules_t *self);

void lade_convert_rules_destroy(lade_convert_rules_t **self_p);

#endif
