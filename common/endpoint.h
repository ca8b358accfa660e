// Sockets to and from the broker, with CURVE where the endpoint is tcp.
//
// ipc:// and inproc:// need no keys: the data folder is closed to others. A tcp:// endpoint without
// keys is LADE_CONFIG_ERROR unless the configuration says `insecure: true`.
#ifndef LADE_ENDPOINT_H
#define LADE_ENDPOINT_H

#include "common/config.h"
#include "common/error.h"

#include <czmq.h>

// Starts the process's CURVE authenticator (which lets in the certificates of curve.clients) if one
// of the broker's endpoints needs it; *guard_p is NULL if none does. Before the first bind. End it
// with zactor_destroy.
lade_code_t lade_endpoint_guard(const lade_config_t *config, zactor_t **guard_p,
                                lade_error_t *error);

// Binds; sets the limits every socket has (linger 0, message ceiling). An ipc path that is too long
// for the system, or a folder that is missing, is LADE_CONFIG_ERROR that says so. A socket file a
// dead broker left is taken over.
lade_code_t lade_endpoint_bind(zsock_t *socket, const char *endpoint, const lade_config_t *config,
                               lade_error_t *error);

// Connects; libzmq reconnects by itself afterwards (every 100 ms). Where a broker of this host
// listens everywhere (tcp://*:PORT), that is 127.0.0.1.
lade_code_t lade_endpoint_connect(zsock_t *socket, const char *endpoint,
                                  const lade_config_t *config, lade_error_t *error);

// Makes a certificate pair NAME (secret, 0600) and NAME.pub in folder, for `lade keys`.
lade_code_t lade_endpoint_make_keys(const char *folder, const char *name, lade_error_t *error);

#endif
