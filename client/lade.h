// liblade: the client library of lade, a model manager of message-queue workers.
//
// Synchronous calls, JSON in and out as text, no other library's types. A lade_t belongs to one
// thread at a time; make one per thread, they are cheap. A complete example stands in
// client/README.md. Link with pkg-config lade.
#ifndef LADE_H
#define LADE_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct lade lade_t;

// Connects to a broker. All may be NULL: config_file and data as in lade.yaml, broker an endpoint
// for requests (the events endpoint is then learnt from it). Does not block and does not fail if no
// broker is there: the first call does.
lade_code_t lade_open(const char *config_file, const char *data, const char *broker,
                      lade_t **self_p, lade_error_t *error);
void lade_close(lade_t **self_p);

// Milliseconds a call waits for a broker's first sign before LADE_BROKER_UNREACHABLE (preset 5000).
void lade_set_timeout(lade_t *self, int64_t timeout_ms);

// Calls service.op (broker/README.md lists them) with a JSON object of arguments ("" or NULL:
// none). *result_p is JSON text you free with free(); NULL may be given. Blocks until the answer;
// calls that wait in the broker (wait_for_job, load, …) block as long as they wait, also while the
// broker restarts (for at most 60 s). Submissions get a random token, so that asking again after a
// restart is the same job. After fork() open another lade_t: LADE_USAGE.
lade_code_t lade_call(lade_t *self, const char *service, const char *op, const char *args,
                      char **result_p, lade_error_t *error);

// As lade_call; progress is told each PARTIAL answer as JSON text and may return false to give up
// waiting (LADE_CANCELLED; the job goes on).
lade_code_t lade_call_progress(lade_t *self, const char *service, const char *op, const char *args,
                               bool (*progress)(void *arg, const char *partial), void *arg,
                               char **result_p, lade_error_t *error);

// Installs a source and waits for the end; *record_p is the record as JSON, yours to free. config
// is a JSON object of overrides or NULL. timeout_s 0 waits for ever.
lade_code_t lade_install(lade_t *self, const char *source, const char *config, double timeout_s,
                         char **record_p, lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Events

// Calls on_event with each event (its body as JSON text, in order of seq, none left out and none
// twice for journaled ones) until it returns false or the deadline passes. prefixes are event names
// or their beginnings (or NAME/ID/ for one job or record), ended by NULL; NULL is all, beats
// included. since: events after that seq come first (-1: from now on). on_event may make calls on
// self. Reconnects and catches up by itself after a broker restart; a broker silent for 60 s is
// LADE_BROKER_UNREACHABLE. timeout_s 0 is for ever. LADE_TOO_OLD if since is older than the
// journal, LADE_VALUE_ERROR if it is newer than its newest event. LADE_TIMEOUT at the deadline.
lade_code_t lade_watch(lade_t *self, const char *const *prefixes, int64_t since,
                       bool (*on_event)(void *arg, const char *event), void *arg, double timeout_s,
                       lade_error_t *error);

// ---------------------------------------------------------------------------------------------------
// Loaded models

typedef struct lade_model lade_model_t;

typedef struct {
    const char *name;
    const char *dtype; // "F32", "F16", "BF16", "I64", …
    uint8_t rank;
    uint64_t shape[8];
    const void *data; // read-only, valid until lade_unlock
    size_t size;      // bytes
} lade_model_tensor_t;

// Loads a model (or one submodel of it; NULL: none) and locks it: it stays where it is until
// lade_unlock or the end of this process. Attaches to the one shared copy, nothing is copied.
// timeout_s 0 waits for ever. LADE_UNKNOWN_MODEL, LADE_MODEL_NOT_FOUND, LADE_NOT_IMPLEMENTED,
// LADE_NO_MEMORY.
lade_code_t lade_load(lade_t *self, const char *key, const char *submodel, double timeout_s,
                      lade_model_t **model_p, lade_error_t *error);

// The same by attributes; LADE_VALUE_ERROR if several records match.
lade_code_t lade_load_by_attr(lade_t *self, const char *name, const char *base, const char *type,
                              const char *submodel, double timeout_s, lade_model_t **model_p,
                              lade_error_t *error);

const char *lade_model_config(const lade_model_t *self);   // the record as JSON
const char *lade_model_location(const lade_model_t *self); // "host"
size_t lade_model_bytes(const lade_model_t *self);
size_t lade_model_tensor_count(lade_model_t *self);
// False past the end, or if there is no such name.
bool lade_model_tensor(lade_model_t *self, size_t index, lade_model_tensor_t *tensor);
bool lade_model_find(lade_model_t *self, const char *name, lade_model_tensor_t *tensor);

// Gives the lock back and unmaps: tensors of the model are gone. NULL-safe; *model_p is NULL
// afterwards.
void lade_unlock(lade_model_t **model_p);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
