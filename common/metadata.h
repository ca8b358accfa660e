// What a repository or page says of a model besides what it takes to run it: name, author, tags,
// license, … as one kind of map, told apart by `type`.
//
//   huggingface  id (ORG/NAME), name, author, tags, tag_dict, last_modified, files, license,
//                revision, is_diffusers, ckpt_urls, trigger_phrases, description, api_response
//   civitai      id, version_id, name, version_name, author, tags, base_model, trigger_phrases,
//                description, nsfw, allow_no_credit, allow_commercial_use, allow_derivatives,
//                allow_different_license, license, cover_image, last_modified, files, api_response
//
// Nothing here fetches anything: it reads what an API answered.
#ifndef LADE_METADATA_H
#define LADE_METADATA_H

#include "common/error.h"

#include <jansson.h>
#include <stddef.h>

// From the hub's answer about a repository. endpoint makes the URLs of files; revision may be "".
// api_response is not set. Never NULL; yours.
json_t *lade_metadata_from_hub(const json_t *info, const char *endpoint, const char *revision);

// From Civitai's answers about a model (NULL: not known) and one of its versions.
json_t *lade_metadata_from_civitai(const json_t *model, const json_t *version);

// Whether value is such a map: `type` is one of the kinds, its fields are there and of their types.
// Fields nobody knows are let be. LADE_VALUE_ERROR names the field and what it takes.
lade_code_t lade_metadata_check(const json_t *value, lade_error_t *error);

// Sets in a record's attributes what the metadata has for it: tags, description, author, license,
// trigger_phrases, cover_image. What is there already stays.
void lade_metadata_fill(const json_t *metadata, json_t *record);

// One JSON text of at most max_bytes: whole, else without the members named in `long_ones` (ended
// by NULL), wherever they are at the top or one below; "{}" if that is too long as well. Yours.
char *lade_metadata_describe(const json_t *answer, const char *const *long_ones, size_t max_bytes);

#endif
