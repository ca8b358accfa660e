// Sockets to and from the broker, with CURVE where the endpoint is tcp.
#include "common/endpoint.h"

#include "common/path.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool
s_is_tcp(const char *endpoint)
{
    return strncmp(endpoint, "tcp://", 6) == 0;
}

// Whether the endpoint has to be spoken to with CURVE; a tcp one without keys must be allowed by
// name.
static lade_code_t
s_wants_curve(const lade_config_t *config, const char *endpoint, bool *curve_p, lade_error_t *error)
{
    *curve_p = s_is_tcp(endpoint) && *config->curve_key;
    if (s_is_tcp(endpoint) && !*curve_p && !config->insecure)
        return lade_error_set(
            error, LADE_CONFIG_ERROR,
            "%s would be open to everybody: set curve.key (`lade keys` makes keys), or "
            "insecure: true if the network is trusted",
            endpoint);
    return LADE_OK;
}

lade_code_t
lade_endpoint_guard(const lade_config_t *config, zactor_t **guard_p, lade_error_t *error)
{
    *guard_p = NULL;
    const char *endpoints[] = {config->clients, config->workers, config->events};
    bool needed = false;
    for (size_t i = 0; i < 3; i++) {
        bool curve;
        lade_code_t code = s_wants_curve(config, endpoints[i], &curve, error);
        if (code)
            return code;
        needed = needed || curve;
    }
    if (!needed)
        return LADE_OK;
    struct stat st;
    if (!*config->curve_clients || stat(config->curve_clients, &st) != 0 || !S_ISDIR(st.st_mode))
        return lade_error_set(
            error, LADE_CONFIG_ERROR,
            "curve.clients: '%s' is no folder of public certificates, so nobody could connect",
            config->curve_clients);
    *guard_p = zactor_new(zauth, NULL);
    zstr_sendx(*guard_p, "CURVE", config->curve_clients, NULL);
    zsock_wait(*guard_p);
    return LADE_OK;
}

// The checks that make libzmq's "Invalid argument" a sentence.
static lade_code_t
s_check_ipc(const char *endpoint, lade_error_t *error)
{
    if (strncmp(endpoint, "ipc://", 6) != 0)
        return LADE_OK;
    const char *path = endpoint + 6;
    struct sockaddr_un address;
    if (strlen(path) >= sizeof address.sun_path)
        return lade_error_set(
            error, LADE_CONFIG_ERROR,
            "the socket path %s has %zu bytes, the system takes %zu: use a shorter data folder",
            path, strlen(path), sizeof address.sun_path - 1);
    return LADE_OK;
}

static lade_code_t
s_load_cert(const char *path, zcert_t **cert_p, const char *setting, lade_error_t *error)
{
    *cert_p = *path ? zcert_load(path) : NULL;
    if (!*cert_p)
        return lade_error_set(error, LADE_CONFIG_ERROR, "%s: cannot read a certificate from '%s'",
                              setting, path);
    return LADE_OK;
}

enum {
    S_SILENT_MS = 10000, // least time without a sign of life after which a link counts as dead
    S_SILENT_BEATS = 3,
};

// What both ends do first: the checks, and the limits.
static lade_code_t
s_prepare(zsock_t *socket, const char *endpoint, const lade_config_t *config, bool *curve_p,
          lade_error_t *error)
{
    lade_code_t code = s_check_ipc(endpoint, error);
    if (!code)
        code = s_wants_curve(config, endpoint, curve_p, error);
    if (code)
        return code;
    zsock_set_linger(socket, 0);
    zsock_set_reconnect_ivl(socket, 100);
    zsock_set_reconnect_ivl_max(socket, 0);
    if (config->beat_ms > 0 && zsock_type(socket) != ZMQ_SUB && zsock_type(socket) != ZMQ_XPUB) {
        // Nothing is read from a peer who has sent more than is taken in at once, its signs of life
        // neither, until the loop is through with that. So the link is given longer than a beat.
        int64_t silent_ms = S_SILENT_BEATS * config->beat_ms;
        zsock_set_heartbeat_ivl(socket, (int)config->beat_ms);
        zsock_set_heartbeat_timeout(socket,
                                    (int)(silent_ms > S_SILENT_MS ? silent_ms : S_SILENT_MS));
    }
    return LADE_OK;
}

lade_code_t
lade_endpoint_bind(zsock_t *socket, const char *endpoint, const lade_config_t *config,
                   lade_error_t *error)
{
    bool curve;
    lade_code_t code = s_prepare(socket, endpoint, config, &curve, error);
    if (code)
        return code;
    // A frame over the ceiling ends that peer's connection in libzmq, before it takes memory.
    zsock_set_maxmsgsize(socket, (int)(config->max_message_bytes + 4096));
    if (curve) {
        zcert_t *cert;
        code = s_load_cert(config->curve_key, &cert, "curve.key", error);
        if (code)
            return code;
        zcert_apply(cert, socket);
        zsock_set_curve_server(socket, 1);
        zcert_destroy(&cert);
    }
    if (zsock_bind(socket, "%s", endpoint) < 0)
        return lade_error_set(error, LADE_CONFIG_ERROR, "cannot listen on %s: %s", endpoint,
                              zmq_strerror(zmq_errno()));
    return LADE_OK;
}

lade_code_t
lade_endpoint_connect(zsock_t *socket, const char *endpoint, const lade_config_t *config,
                      lade_error_t *error)
{
    bool curve;
    lade_code_t code = s_prepare(socket, endpoint, config, &curve, error);
    if (code)
        return code;
    if (curve) {
        zcert_t *own = NULL, *server = NULL;
        code = s_load_cert(config->curve_key, &own, "curve.key", error);
        if (!code)
            code = s_load_cert(config->curve_server, &server, "curve.server", error);
        if (!code) {
            zcert_apply(own, socket);
            zsock_set_curve_serverkey(socket, zcert_public_txt(server));
        }
        zcert_destroy(&own);
        zcert_destroy(&server);
        if (code)
            return code;
    }
    // A broker at tcp://*:PORT is there for its own host as well.
    static const char everywhere[] = "tcp://*:";
    bool here = strncmp(endpoint, everywhere, strlen(everywhere)) == 0;
    if (zsock_connect(socket, "%s%s", here ? "tcp://127.0.0.1:" : "",
                      endpoint + (here ? strlen(everywhere) : 0)) < 0)
        return lade_error_set(error, LADE_CONFIG_ERROR, "cannot connect to %s: %s", endpoint,
                              zmq_strerror(zmq_errno()));
    return LADE_OK;
}

lade_code_t
lade_endpoint_make_keys(const char *folder, const char *name, lade_error_t *error)
{
    lade_code_t code = lade_path_check_name(name, error);
    if (!code)
        code = lade_path_mkdirs(folder, 0700, error);
    if (code)
        return code;
    char *secret = lade_path_join(folder, name);
    char *public;
    if (asprintf(&public, "%s.pub", secret) < 0)
        abort();
    if (access(secret, F_OK) == 0 || access(public, F_OK) == 0) {
        code = lade_error_set(error, LADE_EXISTS,
                              "%s is there already; remove it if you mean to replace it", secret);
    } else {
        zcert_t *cert = zcert_new();
        mode_t mask = umask(0077);
        int failed = zcert_save_secret(cert, secret);
        umask(mask);
        failed = failed ? failed : zcert_save_public(cert, public);
        if (failed)
            code = lade_error_set(error, LADE_IO_ERROR, "cannot write the certificate %s", secret);
        zcert_destroy(&cert);
    }
    free(secret);
    free(public);
    return code;
}
