// The request socket of liblade.
#include "client/request.h"

#include "common/endpoint.h"
#include "common/wire.h"

#include <czmq.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    S_TIMEOUT_MS = 5000,
    S_PATIENCE_MS = 60000,
    S_NOBODY_MS = 200, // an ipc socket without listener: how long it may take to appear
    S_PING_MS = 1000,  // silence after which a waiting client asks for a sign of life
    S_TURN_MS = 100,   // longest sleep of a turn, so that the clocks are looked at
    S_MAX_PENDING = 65536,
};

struct lade_request {
    lade_request_t *next;
    lade_t *client; // NULL once ended
    uint64_t id;
    char *service, *op;
    json_t *args;
    lade_request_partial_t *on_partial;
    void *arg;
    int64_t started_ms;
    double timeout_s; // of args; shortened when the request is sent again
    bool once;        // must not be sent twice
    bool queued;      // given to the socket
    bool delivered;   // the connection was up then, so a broker may have read it
    json_t *result;
    lade_error_t error;
};

struct lade {
    lade_config_t config;
    char *endpoint; // requests
    char *events;   // NULL until learnt
    zsock_t *dealer;
    zsock_t *monitor; // PAIR that hears of the connection
    bool connected;
    int64_t heard_ms; // when the broker last said anything; 0 never
    int64_t pinged_ms;
    int64_t timeout_ms, patience_ms;
    uint64_t next_id;
    size_t pending_count;
    lade_request_t *pending;
    int stop;
    pid_t owner; // sockets do not survive a fork
};

// What is special about an op. Everything else may simply be asked again.
enum { S_TOKEN = 1, S_TOKEN_IN_JOB = 2, S_ONCE = 4 };
static const struct {
    const char *service, *op;
    int flags;
} s_ops[] = {
    // clang-format off
    {"jobs",     "submit",                 S_TOKEN},
    {"install",  "heuristic_import",       S_TOKEN},
    {"install",  "import_model",           S_TOKEN},
    {"install",  "register_path",          S_TOKEN},
    {"install",  "install_path",           S_TOKEN},
    {"install",  "download_and_cache",     S_TOKEN},
    {"install",  "convert",                S_TOKEN},
    {"install",  "scan_directory",         S_TOKEN},
    {"install",  "sync_to_config",         S_TOKEN},
    {"install",  "verify",                 S_TOKEN},
    {"install",  "delete",                 S_ONCE},
    {"install",  "unconditionally_delete", S_ONCE},
    {"install",  "unregister",             S_ONCE},
    {"download", "create_download_job",    S_TOKEN},
    {"download", "submit_download_job",    S_TOKEN_IN_JOB},
    {"load",     "load_model_by_key",      S_TOKEN},
    {"load",     "load_model_by_attr",     S_TOKEN},
    {"load",     "load_model_by_config",   S_TOKEN},
    {"load",     "load_model_from_path",   S_TOKEN},
    {"load",     "lock",                   S_TOKEN},
    {"store",    "add_model",              S_ONCE},
    {"store",    "update_model",           S_ONCE}, // with a version, the second would be stale
    {"store",    "del_model",              S_ONCE},
    // clang-format on
};

static int
s_flags(const char *service, const char *op)
{
    for (size_t i = 0; i < sizeof s_ops / sizeof *s_ops; i++)
        if (strcmp(s_ops[i].service, service) == 0 && strcmp(s_ops[i].op, op) == 0)
            return s_ops[i].flags;
    return 0;
}

// ---------------------------------------------------------------------------------------------------
// Opening and closing

static void
s_disconnect(lade_t *self)
{
    if (self->dealer && self->monitor)
        zmq_socket_monitor(zsock_resolve(self->dealer), NULL, 0);
    zsock_destroy(&self->monitor);
    zsock_destroy(&self->dealer);
}

static lade_code_t
s_make_sockets(lade_t *self, lade_error_t *error)
{
    // czmq would take SIGINT and SIGTERM for itself on its first use; they are the program's.
    struct sigaction interrupt, terminate;
    sigaction(SIGINT, NULL, &interrupt);
    sigaction(SIGTERM, NULL, &terminate);
    zsys_init();
    sigaction(SIGINT, &interrupt, NULL);
    sigaction(SIGTERM, &terminate, NULL);
    self->dealer = zsock_new(ZMQ_DEALER);
    if (!self->dealer)
        return lade_error_set(error, LADE_IO_ERROR, "no socket to be had: %s",
                              zmq_strerror(zmq_errno()));
    zsock_set_sndtimeo(self->dealer, 0);
    zsock_set_sndhwm(self->dealer, S_MAX_PENDING);
    zsock_set_rcvhwm(self->dealer, S_MAX_PENDING);
    // A host that vanished without a word is noticed by libzmq's own beats.
    zsock_set_heartbeat_ivl(self->dealer, 2000);
    zsock_set_heartbeat_timeout(self->dealer, 6000);
    zsock_set_heartbeat_ttl(self->dealer, 10000);

    // A closed monitor keeps its address for a moment, so each has one of its own.
    uint64_t nonce = 0;
    char address[64];
    if (getrandom(&nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce)
        nonce = (uintptr_t)self ^ (uint64_t)lade_mono_ms();
    snprintf(address, sizeof address, "inproc://lade-monitor-%016" PRIx64, nonce);
    void *handle = zsock_resolve(self->dealer);
    if (zmq_socket_monitor(handle, address,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED) == 0) {
        zsock_t *pair = zsock_new(ZMQ_PAIR);
        if (pair && zsock_connect(pair, "%s", address) == 0)
            self->monitor = pair;
        else
            zsock_destroy(&pair);
    }
    if (!self->monitor)
        return lade_error_set(error, LADE_IO_ERROR, "no monitor of the connection: %s",
                              zmq_strerror(zmq_errno()));
    return LADE_OK;
}

// At the first request, so that programs and commands that never ask need no keys and start no
// threads.
static lade_code_t
s_connect(lade_t *self, lade_error_t *error)
{
    lade_code_t code = s_make_sockets(self, error);
    if (!code)
        code = lade_endpoint_connect(self->dealer, self->endpoint, &self->config, error);
    if (code)
        s_disconnect(self);
    return code;
}

lade_code_t
lade_open(const char *config_file, const char *data, const char *broker, lade_t **self_p,
          lade_error_t *error)
{
    *self_p = NULL;
    lade_t *self = zmalloc(sizeof *self);
    self->timeout_ms = S_TIMEOUT_MS;
    self->patience_ms = S_PATIENCE_MS;
    self->stop = -1;
    self->owner = getpid();
    self->next_id = 1;
    lade_code_t code = lade_config_load(&self->config, config_file, data, error);
    if (!code) {
        self->endpoint = strdup(broker ? broker : self->config.clients);
        self->events = broker ? NULL : strdup(self->config.events);
    }
    if (code)
        lade_close(&self);
    *self_p = self;
    return code;
}

void
lade_close(lade_t **self_p)
{
    lade_t *self = *self_p;
    if (!self)
        return;
    while (self->pending) { // the caller finishes them after us
        lade_request_t *request = self->pending;
        self->pending = request->next;
        request->client = NULL;
        lade_error_set(&request->error, LADE_CANCELLED, "the client was closed");
    }
    // Sockets made before a fork belong to the parent: closing them here would wait for threads
    // that are not ours.
    if (self->owner == getpid())
        s_disconnect(self);
    lade_config_free(&self->config);
    free(self->endpoint);
    free(self->events);
    free(self);
    *self_p = NULL;
}

void
lade_set_timeout(lade_t *self, int64_t timeout_ms)
{
    self->timeout_ms = timeout_ms > 0 ? timeout_ms : 1;
}

void
lade_request_set_stop(lade_t *self, int descriptor)
{
    self->stop = descriptor;
}

int
lade_request_stop(const lade_t *self)
{
    return self->stop;
}

void
lade_request_set_patience(lade_t *self, int64_t patience_ms)
{
    self->patience_ms = patience_ms;
}

int64_t
lade_request_patience(const lade_t *self)
{
    return self->patience_ms;
}

int64_t
lade_request_timeout(const lade_t *self)
{
    return self->timeout_ms;
}

const lade_config_t *
lade_request_config(const lade_t *self)
{
    return &self->config;
}

const char *
lade_request_endpoint(const lade_t *self)
{
    return self->endpoint;
}

// ---------------------------------------------------------------------------------------------------
// Sending

static void
s_end(lade_request_t *request)
{
    lade_request_t **at = &request->client->pending;
    while (*at != request)
        at = &(*at)->next;
    *at = request->next;
    request->client->pending_count--;
    request->client = NULL;
}

static void
s_refuse(lade_request_t *request, lade_code_t code, const char *words)
{
    lade_error_set(&request->error, code, "%s.%s: %s", request->service, request->op, words);
    s_end(request);
}

static zmsg_t *
s_message(const char *service, const void *body, size_t len)
{
    zmsg_t *msg = zmsg_new();
    const uint8_t command = LADE_MDP_REQUEST;
    zmsg_addmem(msg, "", 0);
    zmsg_addstr(msg, LADE_MDP_CLIENT);
    zmsg_addmem(msg, &command, 1);
    zmsg_addstr(msg, service);
    zmsg_addmem(msg, body, len);
    return msg;
}

static lade_code_t
s_pack(const lade_request_t *request, lade_buf_t *body, lade_error_t *error)
{
    lade_pack_t pack;
    lade_pack_open(&pack, body);
    lade_pack_map(&pack, 3);
    lade_pack_str(&pack, "id");
    lade_pack_int(&pack, (int64_t)request->id);
    lade_pack_str(&pack, "op");
    lade_pack_str(&pack, request->op);
    lade_pack_str(&pack, "args");
    lade_pack_json(&pack, request->args);
    return lade_pack_failed(&pack, error);
}

// A request that could not be given to the socket stays unqueued and is tried again at the next
// turn.
static void
s_send(lade_request_t *request)
{
    lade_t *self = request->client;
    if (request->timeout_s > 0 && request->delivered) {
        double left = request->timeout_s - (double)(lade_mono_ms() - request->started_ms) / 1000;
        json_object_set_new(request->args, "timeout_s", json_real(left > 0.001 ? left : 0.001));
    }
    lade_buf_t body = LADE_BUF(LADE_WIRE_MAX_BODY);
    if (s_pack(request, &body, &request->error)) {
        s_end(request);
    } else {
        zmsg_t *msg = s_message(request->service, body.data, body.len);
        request->queued = zmsg_send(&msg, self->dealer) == 0;
        request->delivered = request->queued && self->connected;
        zmsg_destroy(&msg);
    }
    lade_buf_free(&body);
}

static void
s_add_token(json_t *args)
{
    if (!json_is_object(args) || json_object_get(args, "token"))
        return;
    uint8_t random[16];
    char token[2 * sizeof random + 1];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return; // sent without, it is only less safe to repeat
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(token + 2 * i, 3, "%02x", random[i]);
    json_object_set_new(args, "token", json_string(token));
}

lade_code_t
lade_request_start(lade_t *self, const char *service, const char *op, json_t *args,
                   lade_request_partial_t *on_partial, void *arg, lade_request_t **request_p,
                   lade_error_t *error)
{
    *request_p = NULL;
    if (!args)
        args = json_object();
    lade_code_t code = LADE_OK;
    if (self->owner != getpid())
        code = lade_error_set(error, LADE_USAGE,
                              "a lade_t does not survive fork(): open another in the child");
    else if (self->pending_count >= S_MAX_PENDING)
        code = lade_error_set(error, LADE_QUEUE_FULL, "%d requests are in flight on one lade_t",
                              S_MAX_PENDING);
    else if (!self->dealer)
        code = s_connect(self, error);
    if (code) {
        json_decref(args);
        return code;
    }
    int flags = s_flags(service, op);
    if (flags & (S_TOKEN | S_TOKEN_IN_JOB))
        s_add_token(flags & S_TOKEN ? args : json_object_get(args, "job"));
    lade_request_t *request = zmalloc(sizeof *request);
    *request = (lade_request_t){.next = self->pending,
                                .client = self,
                                .id = self->next_id++,
                                .service = strdup(service),
                                .op = strdup(op),
                                .args = args,
                                .on_partial = on_partial,
                                .arg = arg,
                                .started_ms = lade_mono_ms(),
                                .timeout_s = lade_json_real(args, "timeout_s", 0),
                                .once = flags & S_ONCE};
    self->pending = request;
    self->pending_count++;
    s_send(request);
    *request_p = request;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// The connection

static void
s_reconnected(lade_t *self)
{
    lade_request_t *next;
    for (lade_request_t *request = self->pending; request; request = next) {
        next = request->next;
        if (request->delivered && !request->once)
            s_send(request);
        request->delivered = true; // it was in the socket's queue, which is being emptied now
    }
}

static void
s_disconnected(lade_t *self)
{
    lade_request_t *next;
    for (lade_request_t *request = self->pending; request; request = next) {
        next = request->next;
        if (request->once && request->delivered)
            s_refuse(request, LADE_BROKER_UNREACHABLE,
                     "the broker went away before it answered, so it may have happened or not: "
                     "look before you "
                     "repeat it");
    }
}

static void
s_take_monitor(lade_t *self)
{
    zmsg_t *msg = zmsg_recv(self->monitor);
    zframe_t *frame = msg ? zmsg_first(msg) : NULL;
    uint16_t event = 0;
    if (frame && zframe_size(frame) >= sizeof event)
        memcpy(&event, zframe_data(frame), sizeof event);
    zmsg_destroy(&msg);
    bool up = event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
    if (up == self->connected)
        return;
    self->connected = up;
    if (up)
        s_reconnected(self);
    else
        s_disconnected(self);
}

bool
lade_request_nobody(const char *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strncmp(endpoint, "ipc://", 6) != 0 || endpoint[6] == '@' ||
        strlen(endpoint + 6) >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, endpoint + 6, strlen(endpoint + 6));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool nobody = connect(fd, (struct sockaddr *)&address, sizeof address) != 0 &&
                  (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR);
    close(fd);
    return nobody;
}

static void
s_ping(lade_t *self, int64_t now)
{
    int64_t every = self->timeout_ms / 4 < S_PING_MS ? self->timeout_ms / 4 : S_PING_MS;
    if (!self->connected || now - self->heard_ms < every || now - self->pinged_ms < every)
        return;
    zmsg_t *msg = s_message("mmi.service", "jobs", 4);
    if (zmsg_send(&msg, self->dealer) == 0)
        self->pinged_ms = now;
    zmsg_destroy(&msg);
}

// Ends the requests a broker has left alone for too long. One that was there a moment ago is given
// time to restart.
static void
s_check_clocks(lade_t *self)
{
    int64_t now = lade_mono_ms();
    s_ping(self, now);
    int64_t patience = self->heard_ms ? self->heard_ms + self->patience_ms : 0;
    bool asked = false, nobody = false;
    lade_request_t *next;
    for (lade_request_t *request = self->pending; request; request = next) {
        next = request->next;
        int64_t waited = now - request->started_ms;
        if (now < patience || waited < S_NOBODY_MS)
            continue;
        if (!asked && !self->connected)
            nobody = lade_request_nobody(self->endpoint);
        asked = true;
        if (!nobody && waited < self->timeout_ms)
            continue;
        lade_error_set(
            &request->error, LADE_BROKER_UNREACHABLE,
            nobody ? "nobody listens on %s: start a broker with `lade up`"
            : self->connected
                ? "the broker at %s does not answer: look at its log, or start one with `lade up`"
            : strncmp(self->endpoint, "tcp://", 6) == 0
                ? "no broker can be reached at %s: it does not run, or it does not know the public "
                  "key of curve.key, or curve.server is not its own"
                : "no broker can be reached at %s: start one with `lade up`",
            self->endpoint);
        s_end(request);
    }
}

// ---------------------------------------------------------------------------------------------------
// Receiving

lade_code_t
lade_request_read_error(const json_t *map, lade_error_t *error)
{
    return lade_error_set(error, lade_code_find(lade_json_text(map, "code", "internal")), "%s",
                          lade_json_text(map, "message", "the broker gave no reason"));
}

// The request an answer is for. Without id (the broker could not read the request) it is the oldest
// of that service.
static lade_request_t *
s_request_of(lade_t *self, const json_t *body, const char *service)
{
    const json_t *id = json_object_get(body, "id");
    lade_request_t *oldest = NULL;
    for (lade_request_t *request = self->pending; request; request = request->next) {
        if (json_is_integer(id) && (uint64_t)json_integer_value(id) == request->id)
            return request;
        if (!json_is_integer(id) && strcmp(request->service, service) == 0)
            oldest = request;
    }
    return oldest;
}

static void
s_take_answer(lade_t *self, bool final, const char *service, const json_t *body)
{
    lade_request_t *request = s_request_of(self, body, service);
    if (!request)
        return; // the second answer to a request that was sent twice
    bool ok = lade_json_bool(body, "ok", false);
    json_t *result = json_object_get(body, "result");
    if (!final) {
        // The callback may make calls of its own, in which this one can end.
        if (request->on_partial && ok && !request->on_partial(request->arg, result) &&
            request->client)
            s_refuse(request, LADE_CANCELLED, "given up waiting; the job goes on");
        return;
    }
    if (ok)
        request->result = result ? json_incref(result) : json_null();
    else
        lade_request_read_error(json_object_get(body, "error"), &request->error);
    s_end(request);
}

static void
s_take_message(lade_t *self)
{
    zmsg_t *msg = zmsg_recv(self->dealer);
    if (!msg)
        return;
    self->heard_ms = lade_mono_ms();
    zframe_t *empty = zmsg_first(msg), *protocol = zmsg_next(msg), *command = zmsg_next(msg);
    zframe_t *service = zmsg_next(msg), *body = zmsg_next(msg);
    json_t *value = NULL;
    // zmsg_next begins anew at the end, so the number of frames has to be asked for.
    if (zmsg_size(msg) >= 5 && zframe_size(empty) == 0 && zframe_streq(protocol, LADE_MDP_CLIENT) &&
        zframe_size(command) == 1 && !zframe_streq(service, "mmi.service") &&
        lade_wire_to_json(zframe_data(body), zframe_size(body), &value, NULL) == LADE_OK) {
        char *name = zframe_strdup(service);
        s_take_answer(self, *zframe_data(command) == LADE_MDP_FINAL, name, value);
        free(name);
    }
    json_decref(value);
    zmsg_destroy(&msg);
}

static void
s_send_unqueued(lade_t *self)
{
    lade_request_t *next;
    for (lade_request_t *request = self->pending; request; request = next) {
        next = request->next;
        if (!request->queued)
            s_send(request);
    }
}

lade_code_t
lade_request_turn(lade_t *self, int64_t timeout_ms, lade_error_t *error)
{
    if (!self->dealer)
        return LADE_OK;
    s_send_unqueued(self);
    zmq_pollitem_t items[] = {
        {.socket = zsock_resolve(self->monitor), .events = ZMQ_POLLIN},
        {.socket = zsock_resolve(self->dealer), .events = ZMQ_POLLIN},
        {.fd = self->stop, .events = ZMQ_POLLIN},
    };
    long wait_ms = timeout_ms < S_TURN_MS ? (long)timeout_ms : S_TURN_MS;
    zmq_poll(items, self->stop >= 0 ? 3 : 2, wait_ms > 0 ? wait_ms : 0);
    if (items[0].revents & ZMQ_POLLIN)
        s_take_monitor(self);
    if (items[1].revents & ZMQ_POLLIN)
        s_take_message(self);
    s_check_clocks(self);
    if (items[2].revents & ZMQ_POLLIN)
        return lade_error_set(error, LADE_CANCELLED, "interrupted");
    return LADE_OK;
}

bool
lade_request_ended(const lade_request_t *self)
{
    return !self->client;
}

lade_code_t
lade_request_finish(lade_request_t **request_p, json_t **result_p, lade_error_t *error)
{
    lade_request_t *request = *request_p;
    if (result_p)
        *result_p = NULL;
    if (!request)
        return LADE_OK;
    if (request->client)
        s_refuse(request, LADE_CANCELLED, "given up waiting");
    lade_code_t code = request->error.code;
    if (code && error)
        *error = request->error;
    if (!code && result_p) {
        *result_p = request->result;
        request->result = NULL;
    }
    json_decref(request->result);
    json_decref(request->args);
    free(request->service);
    free(request->op);
    free(request);
    *request_p = NULL;
    return code;
}

lade_code_t
lade_request_json(lade_t *self, const char *service, const char *op, json_t *args,
                  lade_request_partial_t *on_partial, void *arg, json_t **result_p,
                  lade_error_t *error)
{
    lade_request_t *request;
    if (result_p)
        *result_p = NULL;
    lade_code_t code =
        lade_request_start(self, service, op, args, on_partial, arg, &request, error);
    while (!code && !lade_request_ended(request))
        code = lade_request_turn(self, S_TURN_MS, error);
    if (code) {
        lade_request_finish(&request, NULL, NULL);
        return code;
    }
    return lade_request_finish(&request, result_p, error);
}

// ---------------------------------------------------------------------------------------------------
// Where the events are

static char *
s_events_beside(const char *endpoint)
{
    static const char tail[] = "/clients";
    size_t len = strlen(endpoint), cut = sizeof tail - 1;
    char *events = NULL;
    if (strncmp(endpoint, "ipc://", 6) == 0 && len > cut &&
        strcmp(endpoint + len - cut, tail) == 0 &&
        asprintf(&events, "%.*s/events", (int)(len - cut), endpoint) < 0)
        events = NULL;
    return events;
}

lade_code_t
lade_request_events_endpoint(lade_t *self, const char **endpoint_p, lade_error_t *error)
{
    if (!self->events)
        self->events = s_events_beside(self->endpoint);
    if (!self->events) {
        json_t *status = NULL;
        lade_code_t code =
            lade_request_json(self, "broker", "status", NULL, NULL, NULL, &status, error);
        if (code)
            return code;
        const char *told = lade_json_text(json_object_get(status, "endpoints"), "events", NULL);
        // A broker bound to every interface cannot say by which name we reach it; the settings can.
        bool usable = told && !strstr(told, "//*") && !strstr(told, "//0.0.0.0");
        self->events = strdup(usable ? told : self->config.events);
        json_decref(status);
    }
    *endpoint_p = self->events;
    return LADE_OK;
}
