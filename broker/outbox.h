// What a turn will send once it is committed: answers to clients and messages to workers, in order.
#ifndef LADE_OUTBOX_H
#define LADE_OUTBOX_H

#include "broker/broker.h"
#include "common/buf.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

lade_outbox_t *lade_outbox_new(void);

// Begins a message to a worker; its body goes into the buffer that is returned, then
// lade_outbox_end.
lade_buf_t *lade_outbox_to_worker(lade_outbox_t *self, const char *peer, size_t peer_len,
                                  int command);

// Begins an answer to a client (command LADE_MDP_FINAL or _PARTIAL). id is the packed id of its
// request. The answer's body is begun ({"id", "ok", …): add the result and call lade_outbox_end.
lade_buf_t *lade_outbox_answer(lade_outbox_t *self, const char *peer, size_t peer_len,
                               const char *service, size_t service_len, int command, const char *id,
                               size_t id_len);

// A whole answer that says what went wrong.
void lade_outbox_refuse(lade_outbox_t *self, const char *peer, size_t peer_len, const char *service,
                        size_t service_len, const char *id, size_t id_len,
                        const lade_error_t *error);

// A whole answer of bare bytes (mmi.service).
void lade_outbox_bare(lade_outbox_t *self, const char *peer, size_t peer_len, const char *service,
                      size_t service_len, const char *body);

void lade_outbox_end(lade_outbox_t *self);

// Takes back what was put in since lade_outbox_begin_…, before lade_outbox_end.
void lade_outbox_cancel(lade_outbox_t *self);

// The turn could not be committed: every final answer becomes this error, everything else goes.
void lade_outbox_fail(lade_outbox_t *self, const lade_error_t *error);

typedef struct {
    bool to_worker;
    int command;
    const char *peer, *service, *body; // service NULL for workers
    size_t peer_len, service_len, len;
} lade_letter_t;

// Goes through the messages, those to workers first, peer by peer; to one peer they are in order.
void lade_outbox_each(lade_outbox_t *self, void (*each)(void *arg, const lade_letter_t *letter),
                      void *arg);

// What was put in now has a secret in it: the memory is wiped when the turn has sent it.
void lade_outbox_keep_secret(lade_outbox_t *self);

// Bytes held.
size_t lade_outbox_bytes(const lade_outbox_t *self);

void lade_outbox_clear(lade_outbox_t *self);
void lade_outbox_destroy(lade_outbox_t **self_p);

#endif
