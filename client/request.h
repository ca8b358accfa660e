// Requests of liblade below the text: json_t in and out, many in flight, alive across a broker's
// restart.
//
// A request is sent again whenever the connection comes back, which is safe because reading,
// waiting and submitting (with a token) are idempotent. The few ops that are not are answered
// LADE_BROKER_UNREACHABLE instead, with a sentence that says that nobody knows whether they
// happened.
#ifndef LADE_REQUEST_H
#define LADE_REQUEST_H

#include "client/lade.h"
#include "common/config.h"

#include <jansson.h>

typedef struct lade_request lade_request_t;

// Told each PARTIAL answer; false gives up waiting (LADE_CANCELLED).
typedef bool(lade_request_partial_t)(void *arg, const json_t *partial);

// Sends service.op without waiting. args (NULL: none) is taken. *request_p is yours: end it with
// lade_request_finish before lade_close.
lade_code_t lade_request_start(lade_t *self, const char *service, const char *op, json_t *args,
                               lade_request_partial_t *on_partial, void *arg,
                               lade_request_t **request_p, lade_error_t *error);

// Whether the answer is there, or will never be.
bool lade_request_ended(const lade_request_t *self);

// Consumes the request and gives its answer; *result_p (NULL may be given) is yours. One that has
// not ended is forgotten: LADE_CANCELLED.
lade_code_t lade_request_finish(lade_request_t **request_p, json_t **result_p, lade_error_t *error);

// Takes in what has come for any request, waiting at most timeout_ms for it. LADE_CANCELLED if the
// stop descriptor is readable. A broker that is gone is not an error here: it ends the requests.
lade_code_t lade_request_turn(lade_t *self, int64_t timeout_ms, lade_error_t *error);

// Start, turns, finish.
lade_code_t lade_request_json(lade_t *self, const char *service, const char *op, json_t *args,
                              lade_request_partial_t *on_partial, void *arg, json_t **result_p,
                              lade_error_t *error);

// A descriptor (-1: none) that ends every wait with LADE_CANCELLED once it is readable; it stays
// the caller's.
void lade_request_set_stop(lade_t *self, int descriptor);
int lade_request_stop(const lade_t *self);

// How long requests outlive a broker that was there, until it is there again (preset 60 s).
void lade_request_set_patience(lade_t *self, int64_t patience_ms);
int64_t lade_request_patience(const lade_t *self);
int64_t lade_request_timeout(const lade_t *self);

const lade_config_t *lade_request_config(const lade_t *self);
const char *lade_request_endpoint(const lade_t *self);

// The endpoint of the events: the configured one, or the one that belongs to lade_open's broker.
// Stays self's.
lade_code_t lade_request_events_endpoint(lade_t *self, const char **endpoint_p,
                                         lade_error_t *error);

// An error map of the wire ({"code", "message"}) as an error. Returns its code.
lade_code_t lade_request_read_error(const json_t *map, lade_error_t *error);

// True if the endpoint is an ipc socket nobody listens on. Does not block.
bool lade_request_nobody(const char *endpoint);

// A value as JSON text that you free, whatever bytes its strings hold: what is no UTF-8 becomes
// U+FFFD.
char *lade_request_text(const json_t *value);

#endif
