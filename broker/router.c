// The loop and the turn.
//
// Whatever makes a socket readable, both are drained (up to a ceiling) before the turn ends, so
// that the one wait for the disk is shared by all that came meanwhile.
#include "broker/router.h"

#include "broker/call.h"
#include "broker/chores.h"
#include "broker/events.h"
#include "broker/gates.h"
#include "broker/outbox.h"
#include "broker/packer.h"
#include "broker/reports.h"
#include "broker/secrets.h"
#include "broker/shares.h"
#include "broker/workers.h"
#include "common/endpoint.h"
#include "common/log.h"
#include "common/path.h"
#include "common/point.h"
#include "common/wire.h"

#include <czmq.h>
#include <signal.h>
#include <sys/signalfd.h>

enum {
    S_MESSAGES = 2000,       // taken from one socket in one turn
    S_TURN_BYTES = 32 << 20, // of answers, after which a turn ends early
    S_FRAMES = 8,            // more than any of our messages has
    S_EVENTS_HWM = 10000,    // events a slow subscriber may be behind
    S_ANSWERS_HWM = 20000,   // answers a client may leave unread
    S_UNREAD_HWM = 1000,     // messages of one peer taken in before it has to wait
    S_WORKER_HWM = 4 * LADE_BROKER_MAX_SLOTS,
};

struct lade_router {
    lade_broker_t broker;
    msgpack_zone zone;
    lade_buf_t scratch;
    int64_t skew_ms; // of tests
    int64_t next_beat_ms;
    int64_t sick_ms;           // until then workers are not heard
    int break_commits;         // of tests
    bool over;                 // the state in memory could not be taken up again
    lade_router_sent_fn *sent; // instead of sockets
    void *sent_arg;
    // serving
    zloop_t *loop;
    zsock_t *clients, *workers, *events;
    void *client_socket, *worker_socket, *event_socket;
    int signals;
    int timer;        // of the loop; -1: none
    int64_t timer_ms; // when it is due
    int64_t subscriptions;
};

// ---------------------------------------------------------------------------------------------------
// Opening

static void
s_clock(lade_router_t *self)
{
    self->broker.now = lade_now() + (double)self->skew_ms / 1e3;
    self->broker.mono_ms = lade_mono_ms() + self->skew_ms;
}

// Gates and shares first: running jobs have their places there.
static lade_code_t
s_take_up(lade_broker_t *broker, lade_error_t *error)
{
    lade_code_t code = lade_shares_load(broker->shares, error);
    if (!code)
        code = lade_gates_load(broker->gates, broker, error);
    return code ? code : lade_jobs_reload(broker->jobs, error);
}

static lade_code_t
s_open(lade_router_t *self, lade_error_t *error)
{
    lade_broker_t *broker = &self->broker;
    char *folder = lade_path_join(broker->config->data, "keyspace");
    lade_code_t code = lade_path_mkdirs(folder, 0700, error);
    if (!code)
        code = lade_store_open(folder, &broker->store, error);
    free(folder);
    if (!code)
        code =
            lade_events_open(broker->store, broker->config->journal_events, &broker->events, error);
    if (!code)
        code = lade_store_commit(broker->store, error);
    if (!code)
        code = lade_secrets_open(broker->config->data, &broker->secrets, error);
    if (code)
        return code;
    broker->records = lade_records_new(broker->store, broker->config->models_dir);
    broker->gates = lade_gates_new();
    broker->workers = lade_workers_new();
    broker->outbox = lade_outbox_new();
    broker->jobs = lade_jobs_new(broker);
    broker->waits = lade_waits_new(broker);
    broker->shares = lade_shares_new(broker);
    broker->chores = lade_chores_new(broker);
    return s_take_up(broker, error);
}

lade_code_t
lade_router_open(const lade_config_t *config, lade_router_t **self_p, lade_error_t *error)
{
    lade_router_t *self = zmalloc(sizeof *self);
    *self_p = self;
    self->broker.config = config;
    self->broker.lease_ms = config->beat_ms * config->lease_beats;
    self->scratch = LADE_BUF(SIZE_MAX / 2);
    self->timer = self->signals = -1;
    msgpack_zone_init(&self->zone, 64 * 1024);
    s_clock(self);
    self->broker.started = self->broker.now;
    self->next_beat_ms = self->broker.mono_ms + config->beat_ms;
    lade_code_t code = s_open(self, error);
    if (code)
        lade_router_close(self_p);
    else if (lade_jobs_count(self->broker.jobs))
        lade_log(LADE_LOG_INFO, "jobs", "%zu that are not ended are taken up",
                 lade_jobs_count(self->broker.jobs));
    return code;
}

void
lade_router_close(lade_router_t **self_p)
{
    lade_router_t *self = *self_p;
    if (!self)
        return;
    lade_broker_t *broker = &self->broker;
    zloop_destroy(&self->loop);
    zsock_destroy(&self->clients);
    zsock_destroy(&self->workers);
    zsock_destroy(&self->events);
    if (self->signals >= 0)
        close(self->signals);
    lade_chores_destroy(&broker->chores);
    lade_waits_destroy(&broker->waits);
    lade_jobs_destroy(&broker->jobs);
    lade_secrets_close(&broker->secrets);
    lade_shares_destroy(&broker->shares);
    lade_outbox_destroy(&broker->outbox);
    lade_workers_destroy(&broker->workers);
    lade_gates_destroy(&broker->gates);
    lade_records_destroy(&broker->records);
    lade_events_close(&broker->events);
    lade_store_close(&broker->store);
    lade_buf_free(&self->scratch);
    msgpack_zone_destroy(&self->zone);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// Sending

static void
s_send(void *socket, const void *bytes, size_t len, bool more)
{
    zmq_send(socket, bytes, len, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
}

// A peer that is gone or does not read loses what is sent to it; the router drops it.
static void
s_send_letter(void *arg, const lade_letter_t *letter)
{
    lade_router_t *self = arg;
    char command = (char)letter->command;
    if (self->sent) {
        self->sent(self->sent_arg, letter->to_worker ? LADE_SENT_WORKER : LADE_SENT_CLIENT,
                   letter->peer, letter->peer_len, letter->command, letter->body, letter->len);
        return;
    }
    void *socket = letter->to_worker ? self->worker_socket : self->client_socket;
    const char *protocol = letter->to_worker ? LADE_WORKER_PROTOCOL : LADE_MDP_CLIENT;
    if (!socket)
        return;
    s_send(socket, letter->peer, letter->peer_len, true);
    s_send(socket, "", 0, true);
    s_send(socket, protocol, strlen(protocol), true);
    s_send(socket, &command, 1, true);
    if (!letter->to_worker)
        s_send(socket, letter->service, letter->service_len, true);
    s_send(socket, letter->body, letter->len, false);
}

static void
s_send_event(void *arg, const char *topic, size_t topic_len, const char *body, size_t len)
{
    lade_router_t *self = arg;
    if (self->sent) {
        self->sent(self->sent_arg, LADE_SENT_EVENT, topic, topic_len, 0, body, len);
        return;
    }
    s_send(self->event_socket, topic, topic_len, true);
    s_send(self->event_socket, body, len, false);
}

static void
s_send_all(lade_router_t *self)
{
    lade_outbox_each(self->broker.outbox, s_send_letter, self);
    lade_outbox_clear(self->broker.outbox);
    if (self->sent || self->subscriptions > 0)
        lade_events_each(self->broker.events, s_send_event, self);
}

// ---------------------------------------------------------------------------------------------------
// The turn

static void
s_on_ended(void *arg, uint64_t id)
{
    lade_waits_ended(arg, id);
}

static lade_code_t
s_commit(lade_router_t *self, lade_error_t *error)
{
    lade_broker_t *broker = &self->broker;
    lade_jobs_write(broker->jobs);
    lade_gates_write(broker->gates, broker);
    lade_shares_write(broker->shares);
    lade_events_write(broker->events);
    if (!lade_store_dirty(broker->store))
        return LADE_OK;
    broker->metrics.commits++;
    if (self->break_commits > 0) {
        self->break_commits--;
        lade_store_abort(broker->store);
        return lade_error_set(error, LADE_NO_SPACE, "commits are made to fail");
    }
    // What the keyspace refers to is there before it does.
    LADE_POINT("commit");
    lade_code_t code = lade_secrets_save(broker->secrets, error);
    if (code) {
        lade_store_abort(broker->store);
        return code;
    }
    code = lade_store_commit(broker->store, error);
    LADE_POINT("committed");
    return code;
}

// Nothing of the turn is on disk: its calls are told so, and everything is taken up again from what
// is.
static void
s_give_up(lade_router_t *self, const lade_error_t *why)
{
    lade_broker_t *broker = &self->broker;
    lade_error_t error;
    broker->metrics.commits_failed++;
    lade_log(LADE_LOG_ERROR, "keyspace", "nothing of this turn is kept: %s", why->message);
    lade_outbox_fail(broker->outbox, why);
    lade_waits_fail(broker->waits, why);
    lade_chores_fail(broker->chores, why);
    lade_reports_forget(broker);
    lade_events_turn(broker->events, false);
    s_send_all(self);
    // Reports that fail to be written would come again at once. Shorter than a lease, which is two
    // beats at least.
    self->sick_ms = broker->mono_ms + broker->config->beat_ms / 2;
    if (self->loop)
        zloop_reader_end(self->loop, self->workers);
    if (s_take_up(broker, &error)) {
        lade_log(LADE_LOG_ERROR, "keyspace", "cannot be read again, the broker ends: %s",
                 error.message);
        self->over = true;
    }
}

static void
s_end_turn(lade_router_t *self)
{
    lade_broker_t *broker = &self->broker;
    lade_error_t error;
    broker->metrics.turns++;
    lade_chores_take(broker->chores);
    lade_jobs_tick(broker->jobs);
    lade_jobs_dispatch(broker->jobs);
    if (s_commit(self, &error)) {
        s_give_up(self, &error);
        return;
    }
    lade_jobs_turn(broker->jobs, s_on_ended, broker->waits);
    lade_secrets_turn(broker->secrets, broker->mono_ms);
    lade_waits_turn(broker->waits);
    lade_chores_begin(broker->chores);
    s_send_all(self);
    lade_events_turn(broker->events, true);
}

static void
s_flush(void *arg)
{
    s_end_turn(arg);
}

static void
s_tell_beat(lade_broker_t *broker)
{
    lade_buf_t *buf =
        lade_events_begin_named(broker->events, "broker_beat", "broker", 2, false, broker->now);
    LADE_PUT_KEY(buf, "jobs");
    lade_put_uint(buf, lade_jobs_count(broker->jobs));
    LADE_PUT_KEY(buf, "workers");
    lade_put_uint(buf, lade_workers_count(broker->workers));
    lade_events_end(broker->events);
}

// A broker that was stopped itself must not take that for the silence of its workers.
static void
s_beat(lade_router_t *self)
{
    lade_broker_t *broker = &self->broker;
    int64_t late_ms = broker->mono_ms - self->next_beat_ms;
    if (late_ms < 0)
        return;
    if (late_ms > broker->config->beat_ms)
        for (size_t i = 0; i < lade_workers_count(broker->workers); i++)
            lade_workers_at(broker->workers, i)->heard_ms += late_ms;
    self->next_beat_ms = broker->mono_ms + broker->config->beat_ms;
    lade_reports_beat(broker);
    lade_shares_beat(broker->shares);
    lade_chores_beat(broker->chores);
    s_tell_beat(broker);
}

// ---------------------------------------------------------------------------------------------------
// Receiving

typedef struct {
    zmq_msg_t frames[S_FRAMES];
    size_t count; // of frames; more than S_FRAMES: the others were dropped
} s_message_t;

static void
s_close_message(s_message_t *message)
{
    for (size_t i = 0; i < message->count && i < S_FRAMES; i++)
        zmq_msg_close(&message->frames[i]);
}

// Takes one message; false if there is none.
static bool
s_receive(void *socket, s_message_t *message)
{
    int more = 1;
    for (message->count = 0; more; message->count++) {
        zmq_msg_t extra,
            *frame = message->count < S_FRAMES ? &message->frames[message->count] : &extra;
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(frame);
            if (message->count == 0)
                return false;
            return true; // a message comes whole; what came counts
        }
        more = zmq_msg_more(frame);
        if (frame == &extra)
            zmq_msg_close(frame);
    }
    return true;
}

static bool
s_frame_is(s_message_t *message, size_t at, const char *text)
{
    size_t len = strlen(text);
    return zmq_msg_size(&message->frames[at]) == len &&
           memcmp(zmq_msg_data(&message->frames[at]), text, len) == 0;
}

static void
s_bad_message(lade_router_t *self, const char *what)
{
    self->broker.metrics.bad_messages++;
    lade_log(LADE_LOG_DEBUG, what, "a message with other frames than the protocol's is dropped");
}

// peer, "", "MDPC02", 1, service, body
static void
s_on_client(lade_router_t *self, s_message_t *message)
{
    zmq_msg_t *frames = message->frames;
    if (message->count != 6 || !s_frame_is(message, 1, "") ||
        !s_frame_is(message, 2, LADE_MDP_CLIENT) || !s_frame_is(message, 3, "\x01")) {
        s_bad_message(self, "client");
        return;
    }
    lade_call_dispatch(&self->broker, zmq_msg_data(&frames[0]), zmq_msg_size(&frames[0]),
                       zmq_msg_data(&frames[4]), zmq_msg_size(&frames[4]), zmq_msg_data(&frames[5]),
                       zmq_msg_size(&frames[5]), &self->zone, &self->scratch);
}

// peer, "", "LADEW1", command, body
static void
s_on_worker(lade_router_t *self, s_message_t *message)
{
    zmq_msg_t *frames = message->frames;
    if (message->count != 5 || !s_frame_is(message, 1, "") ||
        !s_frame_is(message, 2, LADE_WORKER_PROTOCOL) || zmq_msg_size(&frames[3]) != 1) {
        s_bad_message(self, "worker");
        return;
    }
    lade_reports_handle(&self->broker, zmq_msg_data(&frames[0]), zmq_msg_size(&frames[0]),
                        *(const unsigned char *)zmq_msg_data(&frames[3]), zmq_msg_data(&frames[4]),
                        zmq_msg_size(&frames[4]), &self->zone, s_flush, self);
}

static size_t
s_drain(lade_router_t *self, void *socket,
        void (*handle)(lade_router_t *self, s_message_t *message))
{
    size_t count = 0;
    s_message_t message;
    while (count < S_MESSAGES && lade_outbox_bytes(self->broker.outbox) < S_TURN_BYTES &&
           s_receive(socket, &message)) {
        handle(self, &message);
        s_close_message(&message);
        count++;
    }
    return count;
}

static void
s_drain_subscriptions(lade_router_t *self)
{
    s_message_t message;
    while (s_receive(self->event_socket, &message)) {
        const char *bytes = zmq_msg_data(&message.frames[0]);
        if (message.count == 1 && zmq_msg_size(&message.frames[0]) > 0)
            self->subscriptions += bytes[0] == 1 ? 1 : bytes[0] == 0 ? -1 : 0;
        s_close_message(&message);
    }
}

// ---------------------------------------------------------------------------------------------------
// Serving

static int s_on_timer(zloop_t *loop, int timer, void *arg);
static int s_on_readable(zloop_t *loop, zsock_t *socket, void *arg);

static int64_t
s_due(const lade_router_t *self)
{
    int64_t due = lade_jobs_due(self->broker.jobs), waits = lade_waits_due(self->broker.waits);
    due = waits < due ? waits : due;
    due = self->next_beat_ms < due ? self->next_beat_ms : due;
    return self->sick_ms && self->sick_ms < due ? self->sick_ms : due;
}

// One timer of the loop is set to when something is due next.
static void
s_set_timer(lade_router_t *self)
{
    int64_t due = s_due(self);
    if (self->timer >= 0 && self->timer_ms == due)
        return;
    if (self->timer >= 0)
        zloop_timer_end(self->loop, self->timer);
    int64_t delay_ms = due - self->broker.mono_ms;
    self->timer = zloop_timer(self->loop, delay_ms > 1 ? (size_t)delay_ms : 1, 1, s_on_timer, self);
    self->timer_ms = due;
}

// One turn. Returns what a zloop handler returns: 0, whatever came; -1 only when the state is lost.
static int
s_turn(lade_router_t *self, bool timed)
{
    s_clock(self);
    size_t count = 0;
    if (self->sick_ms && self->broker.mono_ms >= self->sick_ms) {
        self->sick_ms = 0;
        zloop_reader(self->loop, self->workers, s_on_readable, self);
    }
    if (!self->sick_ms)
        count = s_drain(self, self->worker_socket, s_on_worker);
    count += s_drain(self, self->client_socket, s_on_client);
    if (timed)
        s_beat(self); // after what the workers said
    if (count || timed)
        s_end_turn(self);
    s_set_timer(self);
    return self->over ? -1 : 0;
}

static int
s_on_timer(zloop_t *loop, int timer, void *arg)
{
    (void)loop;
    (void)timer;
    lade_router_t *self = arg;
    self->timer = -1; // it rings once
    return s_turn(self, true);
}

static int
s_on_readable(zloop_t *loop, zsock_t *socket, void *arg)
{
    (void)loop;
    (void)socket;
    return s_turn(arg, false);
}

static int
s_on_subscription(zloop_t *loop, zsock_t *socket, void *arg)
{
    (void)loop;
    (void)socket;
    s_drain_subscriptions(arg);
    return 0;
}

static int
s_on_chore(zloop_t *loop, zmq_pollitem_t *item, void *arg)
{
    (void)loop;
    (void)item;
    return s_turn(arg, true);
}

static int
s_on_signal(zloop_t *loop, zmq_pollitem_t *item, void *arg)
{
    (void)loop;
    (void)arg;
    struct signalfd_siginfo info;
    if (read(item->fd, &info, sizeof info) != sizeof info)
        return 0;
    lade_log(LADE_LOG_INFO, "broker", "ends on signal %u", info.ssi_signo);
    return -1;
}

static lade_code_t
s_bind_one(lade_router_t *self, zsock_t **socket_p, void **raw_p, int type, int hwm,
           const char *endpoint, lade_error_t *error)
{
    *socket_p = zsock_new(type);
    if (!*socket_p)
        return lade_error_set(error, LADE_INTERNAL, "no socket for %s: %s", endpoint,
                              zmq_strerror(errno));
    zsock_set_sndhwm(*socket_p, hwm);
    zsock_set_rcvhwm(*socket_p, S_UNREAD_HWM);
    *raw_p = zsock_resolve(*socket_p);
    lade_code_t code = lade_endpoint_bind(*socket_p, endpoint, self->broker.config, error);
    if (!code)
        lade_log(LADE_LOG_INFO, "broker", "listening on %s", endpoint);
    return code;
}

// Events first, so that a client that reaches the broker can subscribe.
static lade_code_t
s_bind(lade_router_t *self, lade_error_t *error)
{
    const lade_config_t *config = self->broker.config;
    lade_code_t code = s_bind_one(self, &self->events, &self->event_socket, ZMQ_XPUB, S_EVENTS_HWM,
                                  config->events, error);
    if (!code)
        code = s_bind_one(self, &self->workers, &self->worker_socket, ZMQ_ROUTER, S_WORKER_HWM,
                          config->workers, error);
    if (!code)
        code = s_bind_one(self, &self->clients, &self->client_socket, ZMQ_ROUTER, S_ANSWERS_HWM,
                          config->clients, error);
    return code;
}

// Signals come as a descriptor, so that none is lost between looking and sleeping.
static void
s_take_signals(lade_router_t *self)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    self->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
}

lade_code_t
lade_router_serve(lade_router_t *self, lade_error_t *error)
{
    zactor_t *guard = NULL;
    zsys_init();
    zsys_handler_set(NULL);
    s_take_signals(self); // before libzmq's threads, which then never see them
    lade_code_t code = lade_endpoint_guard(self->broker.config, &guard, error);
    if (!code)
        code = s_bind(self, error);
    if (!code) {
        self->loop = zloop_new();
        zloop_set_nonstop(self->loop, true);
        zmq_pollitem_t signals = {.fd = self->signals, .events = ZMQ_POLLIN};
        zloop_poller(self->loop, &signals, s_on_signal, self);
        zmq_pollitem_t chores = {.fd = lade_chores_descriptor(self->broker.chores),
                                 .events = ZMQ_POLLIN};
        zloop_poller(self->loop, &chores, s_on_chore, self);
        zloop_reader(self->loop, self->workers, s_on_readable, self);
        zloop_reader(self->loop, self->clients, s_on_readable, self);
        zloop_reader(self->loop, self->events, s_on_subscription, self);
        s_clock(self);
        s_set_timer(self);
        zloop_start(self->loop);
        lade_secrets_turn(self->broker.secrets, INT64_MAX);
        if (self->over)
            code = lade_error_set(error, LADE_IO_ERROR, "the keyspace cannot be read any more");
    }
    zactor_destroy(&guard);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Without sockets

void
lade_router_on_sent(lade_router_t *self, lade_router_sent_fn *sent, void *arg)
{
    self->sent = sent;
    self->sent_arg = arg;
}

void
lade_router_feed_client(lade_router_t *self, const char *peer, const char *service,
                        size_t service_len, const void *body, size_t len)
{
    s_clock(self);
    lade_call_dispatch(&self->broker, peer, strlen(peer), service, service_len, body, len,
                       &self->zone, &self->scratch);
}

void
lade_router_feed_worker(lade_router_t *self, const char *peer, int command, const void *body,
                        size_t len)
{
    s_clock(self);
    lade_reports_handle(&self->broker, peer, strlen(peer), command, body, len, &self->zone, s_flush,
                        self);
}

void
lade_router_feed_frames(lade_router_t *self, bool from_worker, const void *const *frames,
                        const size_t *lens, size_t count)
{
    s_message_t message = {.count = count};
    s_clock(self);
    for (size_t i = 0; i < count && i < S_FRAMES; i++) {
        zmq_msg_init_size(&message.frames[i], lens[i]);
        memcpy(zmq_msg_data(&message.frames[i]), frames[i], lens[i]);
    }
    (from_worker ? s_on_worker : s_on_client)(self, &message);
    s_close_message(&message);
}

void
lade_router_turn(lade_router_t *self)
{
    s_clock(self);
    s_beat(self);
    s_end_turn(self);
}

void
lade_router_skip(lade_router_t *self, int64_t ms)
{
    self->skew_ms += ms;
}

void
lade_router_break_commits(lade_router_t *self, int n)
{
    self->break_commits = n;
}
