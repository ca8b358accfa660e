// The stage after the downloads: is everything there?
#ifndef LADE_FETCH_H
#define LADE_FETCH_H

#include "workers/install/stage.h"

// *from_p is what was fetched, yours, if all of it is there. Else it is NULL, and either the answer
// is the AWAIT that fetches what vanished, or the error is that of the download that failed.
lade_code_t lade_fetch_check(const lade_stage_t *job, char **from_p, lade_answer_t *answer,
                             lade_error_t *error);

#endif
