// Jobs of kind "verify": installed files are read and compared with what is known of them. Nothing
// is changed but, with `record`, the digests of models of which none is known.
//
//   no state ──AWAIT, asks for sizes──▶ "count" ──AWAIT, asks for records──▶ "verify" ──▶ DONE
//                                        ▲    │                               ▲    │
//                                        └────┘ page by page                  └────┘
#ifndef LADE_VERIFY_H
#define LADE_VERIFY_H

#include "workers/install/stage.h"

lade_code_t lade_verify_step(const lade_stage_t *job, lade_answer_t *answer, lade_error_t *error);

#endif
