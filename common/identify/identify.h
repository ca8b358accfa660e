// Identification: a path into what the model is. The rules are data (configs/families/*.yaml);
// families.h has their language.
#ifndef LADE_IDENTIFY_H
#define LADE_IDENTIFY_H

#include "common/config.h"
#include "common/error.h"

#include <jansson.h>
#include <stdint.h>

typedef struct lade_identify lade_identify_t;

// Reads the rules: first the *.yaml of site_folder (NULL or "": none), then the shipped ones.
// LADE_CONFIG_ERROR with file and line for a rule that is wrong.
lade_code_t lade_identify_new(const char *site_folder, lade_identify_t **self_p,
                              lade_error_t *error);

// The same by the settings families_dir and probe.max_header_mb.
lade_code_t lade_identify_by_config(const lade_config_t *config, lade_identify_t **self_p,
                                    lade_error_t *error);

// The ceiling for headers of weight files (probe.max_header_mb); LADE_TENSORS_HEADER if not set.
void lade_identify_set_max_header(lade_identify_t *self, uint64_t bytes);

// Identifies a file or folder; several threads may ask one engine at once. overrides (may be NULL)
// are fields the caller sets: they win over what is found by name or not at all, and a given type,
// base or format restricts which rules apply, so that it cannot contradict what the file proves.
// *found_p is yours: a map with type, base, format, name, description, file_size, identified_by
// (which rule, and why), variant, prediction_type, repo_variant, submodels, …, each only where it
// applies, ready to become a record but for key, path, hash and source.
// `unsafe`, if there, is what would run code if it were loaded (lade_tensors_unsafe).
//
// LADE_INVALID_MODEL_CONFIG says what was seen and how near the nearest rule came, or between which
// answers the caller has to choose. A file that is broken or no model at all keeps the code of
// lade_tensors_open (LADE_CORRUPT, LADE_NOT_A_MODEL, LADE_TOO_LARGE); a missing one is
// LADE_NOT_FOUND; one that no rule knows and that would run code is LADE_UNSAFE_FILE.
lade_code_t lade_identify_path(const lade_identify_t *self, const char *path,
                               const json_t *overrides, json_t **found_p, lade_error_t *error);

// The same, with *report_p (may be NULL; yours) saying why: {"tried": how many rules, "fits": those
// that decided, "outranked": those that fit too and count less, "nearest": if none fits, those that
// came nearest}. Each is {"rule", "why", "rank", "held": conditions and fields that held, "of": how
// many it has, "steps", and "reason" if it does not fit}; a step is a condition ({"asks", "holds",
// "found", "reason", "of"}) or a field ({"sets", "to", "how": told, given or guessed}).
lade_code_t lade_identify_explained(const lade_identify_t *self, const char *path,
                                    const json_t *overrides, json_t **found_p, json_t **report_p,
                                    lade_error_t *error);

void lade_identify_destroy(lade_identify_t **self_p);

#endif
