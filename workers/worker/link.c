// One DEALER.
#include "workers/worker/link.h"

#include "common/endpoint.h"
#include "common/log.h"
#include "common/point.h"
#include "common/wire.h"

#include <czmq.h>
#include <limits.h>

struct lade_link {
    const lade_config_t *config;
    zsock_t *socket;
};

lade_link_t *
lade_link_new(const lade_config_t *config)
{
    lade_link_t *self = zmalloc(sizeof *self);
    self->config = config;
    return self;
}

lade_code_t
lade_link_renew(lade_link_t *self, lade_error_t *error)
{
    zsock_destroy(&self->socket);
    self->socket = zsock_new(ZMQ_DEALER);
    if (!self->socket)
        return lade_error_set(error, LADE_INTERNAL, "cannot make a socket: %s",
                              zmq_strerror(errno));
    zsock_set_linger(self->socket, 0);
    zsock_set_immediate(self->socket, 1);
    // A JOB holds what came to the broker in several messages: spec, state, results of children.
    int64_t most = 4 * self->config->max_message_bytes;
    most = most > LADE_WIRE_MAX_BODY ? most : LADE_WIRE_MAX_BODY;
    zsock_set_maxmsgsize(self->socket, most < INT_MAX ? (int)most : INT_MAX);
    return lade_endpoint_connect(self->socket, self->config->workers, self->config, error);
}

void *
lade_link_socket(const lade_link_t *self)
{
    return zsock_resolve(self->socket);
}

bool
lade_link_send(lade_link_t *self, int command, const void *body, size_t len)
{
    void *socket = zsock_resolve(self->socket);
    const char byte = (char)command;
    if (command != LADE_W_BEAT && command != LADE_W_PROGRESS) // those come as time goes
        LADE_POINT(lade_worker_command_name(command));
    const struct {
        const void *data;
        size_t len;
    } frames[] = {
        {"", 0}, {LADE_WORKER_PROTOCOL, strlen(LADE_WORKER_PROTOCOL)}, {&byte, 1}, {body, len}};
    for (size_t i = 0; i < 4; i++)
        if (zmq_send(socket, frames[i].data, frames[i].len,
                     ZMQ_DONTWAIT | (i < 3 ? ZMQ_SNDMORE : 0)) < 0)
            return false; // only the first can: a message that began has its place
    if (command != LADE_W_BEAT && command != LADE_W_PROGRESS)
        LADE_POINT("sent");
    return true;
}

// The command and body of a message, or why it is none.
static lade_code_t
s_parse(zmsg_t *msg, int *command_p, json_t **body_p, lade_error_t *error)
{
    zframe_t *empty = zmsg_first(msg), *protocol = zmsg_next(msg), *command = zmsg_next(msg);
    zframe_t *body = zmsg_next(msg);
    if (zmsg_size(msg) != 4 || zframe_size(empty) != 0 ||
        !zframe_streq(protocol, LADE_WORKER_PROTOCOL) || zframe_size(command) != 1)
        return lade_error_set(error, LADE_BAD_REQUEST, "the frames are not those of %s",
                              LADE_WORKER_PROTOCOL);
    *command_p = zframe_data(command)[0];
    lade_code_t code = lade_wire_to_json(zframe_data(body), zframe_size(body), body_p, error);
    if (!code && !json_is_object(*body_p)) {
        json_decref(*body_p);
        *body_p = NULL;
        code = lade_error_set(error, LADE_BAD_REQUEST, "the body of %s is no map",
                              lade_worker_command_name(*command_p));
    }
    return code;
}

bool
lade_link_receive(lade_link_t *self, int *command_p, json_t **body_p)
{
    while (zsock_events(self->socket) & ZMQ_POLLIN) {
        zmsg_t *msg = zmsg_recv(self->socket);
        if (!msg)
            return false;
        lade_error_t error;
        lade_code_t code = s_parse(msg, command_p, body_p, &error);
        zmsg_destroy(&msg);
        if (!code)
            return true;
        lade_log(LADE_LOG_WARNING, "worker", "a message of the broker is passed over: %s",
                 error.message);
    }
    return false;
}

void
lade_link_destroy(lade_link_t **self_p)
{
    lade_link_t *self = *self_p;
    if (!self)
        return;
    zsock_destroy(&self->socket);
    free(self);
    *self_p = NULL;
}
