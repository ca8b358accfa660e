// The worker's socket: LADEW1 frames out and in, never blocking. It knows no jobs.
#ifndef LADE_LINK_H
#define LADE_LINK_H

#include "common/buf.h"
#include "common/config.h"
#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct lade_link lade_link_t;

// config is borrowed.
lade_link_t *lade_link_new(const lade_config_t *config);

// Gives up the present connection with all that is queued on it, either way, and makes a new one in
// the background.
lade_code_t lade_link_renew(lade_link_t *self, lade_error_t *error);

// What zmq_poll takes.
void *lade_link_socket(const lade_link_t *self);

// Sends one message; false if there is no connection or it is full. Nothing is queued for a
// connection that is not there, so a broker that comes back is never greeted by old messages.
bool lade_link_send(lade_link_t *self, int command, const void *body, size_t len);

// Takes one message: its command and its body, a map that is yours. Malformed ones are logged and
// passed over. False if there is none.
bool lade_link_receive(lade_link_t *self, int *command_p, json_t **body_p);

void lade_link_destroy(lade_link_t **self_p);

#endif
