// Jobs of kind "download" for the engine: spec in, result out.
//
//   spec    url, or urls (mirrors in order); else the job's source is the URL
//           destination (a file, or a folder that is there), or destdir and filename?
//           size?, sha256?, access_token?, preserve_partial_downloads?
//           files, instead of all this: see multi.h
//   result  path, bytes, sha256, etag, url, final_url (without its query), content_type,
//   resumed_from
#ifndef LADE_SERVE_H
#define LADE_SERVE_H

#include "common/config.h"
#include "common/error.h"
#include "workers/worker/worker.h"

typedef struct lade_serve lade_serve_t;

// Makes the worker and the engine. config is borrowed. *self_p is NULL on failure.
lade_code_t lade_serve_new(lade_serve_t **self_p, const lade_config_t *config, lade_error_t *error);

// Serves until told to end. Blocks.
lade_code_t lade_serve_run(lade_serve_t *self, lade_error_t *error);

void lade_serve_destroy(lade_serve_t **self_p);

#endif
