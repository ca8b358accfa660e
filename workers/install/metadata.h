// Jobs of kind "metadata": what a repository or page says of a model, nothing installed.
//
// spec {"url"} or {"id"}, "access_token"?; the result is the map of common/metadata.h.
#ifndef LADE_METADATA_STEP_H
#define LADE_METADATA_STEP_H

#include "workers/install/stage.h"

// url: a page of the hub (or of anything below it) or of Civitai; id: ORG/NAME[@REVISION] (what
// follows a colon is left out) or the number of a model of Civitai. LADE_UNKNOWN_METADATA for what
// looks like neither or is not there, and the codes of the requests.
lade_code_t lade_metadata_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);

#endif
