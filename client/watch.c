// Events, each journaled one exactly once and in order.
//
// The SUB socket only says that something happened; whether something is missing is read from
// `seq`. A journaled event whose seq follows the last one is delivered as it is. Any other jump
// (lost messages, a restart, events that a filter kept away) is settled by events.since, which
// answers everything up to now, so that under load one question covers many events and what then
// still comes from the socket is recognised as known.
#include "client/watch.h"

#include "common/endpoint.h"
#include "common/wire.h"

#include <czmq.h>
#include <string.h>

enum { S_MAX_PREFIXES = 64, S_PAGE = 1000 };

struct lade_watch {
    lade_t *client;
    const char *const *prefixes;
    lade_watch_event_t *on_event; // of this turn
    void *arg;
    zsock_t *sub;
    int64_t seq;  // the last journaled event that was delivered or is known not to be wanted
    char *epoch;  // of the broker that spoke last, as JSON text; NULL before the first message
    bool stopped; // on_event said so
    int64_t heard_ms, left_ms; // when something came last, and when the last turn ended
};

// ---------------------------------------------------------------------------------------------------
// Delivering

// True if "EVENT/ID/" begins with one of the prefixes.
static bool
s_wanted(const lade_watch_t *self, const json_t *event)
{
    if (!self->prefixes || !self->prefixes[0])
        return true;
    char topic[512], id[32];
    const json_t *member = json_object_get(event, "id");
    snprintf(id, sizeof id, "%" JSON_INTEGER_FORMAT, json_integer_value(member));
    snprintf(topic, sizeof topic, "%s/%s/", lade_json_text(event, "event", ""),
             json_is_string(member) ? json_string_value(member) : id);
    for (size_t i = 0; self->prefixes[i]; i++)
        if (strncmp(topic, self->prefixes[i], strlen(self->prefixes[i])) == 0)
            return true;
    return false;
}

static void
s_deliver(lade_watch_t *self, const json_t *event)
{
    if (self->stopped || !s_wanted(self, event))
        return;
    self->stopped = !self->on_event(self->arg, event);
}

static bool
s_progress(const json_t *event)
{
    return lade_json_bool(event, "progress", false) ||
           strcmp(lade_json_text(event, "event", ""), "broker_beat") == 0;
}

// ---------------------------------------------------------------------------------------------------
// Catching up

// The event names of the prefixes: events.since knows no ids.
static json_t *
s_names(const lade_watch_t *self)
{
    json_t *names = json_array();
    for (size_t i = 0; self->prefixes && self->prefixes[i]; i++)
        json_array_append_new(names,
                              json_stringn(self->prefixes[i], strcspn(self->prefixes[i], "/")));
    return names;
}

static lade_code_t
s_page(lade_watch_t *self, bool *more_p, lade_error_t *error)
{
    json_t *args = json_pack("{s:I, s:i}", "seq", (json_int_t)self->seq, "limit", S_PAGE);
    json_t *names = s_names(self);
    if (json_array_size(names))
        json_object_set(args, "prefixes", names);
    json_decref(names);
    json_t *page = NULL;
    lade_code_t code =
        lade_request_json(self->client, "events", "since", args, NULL, NULL, &page, error);
    if (code)
        return code;
    const json_t *events = json_object_get(page, "events");
    int64_t before = self->seq;
    for (size_t i = 0; i < json_array_size(events) && !self->stopped; i++) {
        const json_t *event = json_array_get(events, i);
        int64_t seq = lade_json_int(event, "seq", -1);
        if (seq <= self->seq)
            continue;
        self->seq = seq;
        s_deliver(self, event);
    }
    bool more = lade_json_bool(page, "more", false) && !self->stopped;
    int64_t next =
        lade_json_int(page, "next", more ? self->seq : lade_json_int(page, "seq", self->seq));
    if (next > self->seq && !self->stopped)
        self->seq = next;
    // A page that brings nothing and claims more would go on for ever.
    *more_p = more && self->seq > before;
    json_decref(page);
    return LADE_OK;
}

static lade_code_t
s_catch_up(lade_watch_t *self, lade_error_t *error)
{
    bool more = true;
    lade_code_t code = LADE_OK;
    while (more && !code && !self->stopped)
        code = s_page(self, &more, error);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// What comes

static bool
s_same_epoch(lade_watch_t *self, const json_t *event)
{
    char *epoch = lade_request_text(json_object_get(event, "epoch"));
    bool same = self->epoch && epoch && strcmp(self->epoch, epoch) == 0;
    free(self->epoch);
    self->epoch = epoch;
    return same;
}

static lade_code_t
s_take(lade_watch_t *self, const json_t *event, lade_error_t *error)
{
    int64_t seq = lade_json_int(event, "seq", -1);
    bool progress = s_progress(event),
         beat = strcmp(lade_json_text(event, "event", ""), "broker_beat") == 0;
    bool filtered = self->prefixes && self->prefixes[0];
    bool behind = progress ? seq > self->seq && (beat || !filtered) : seq > self->seq + 1;
    lade_code_t code = LADE_OK;
    if (!s_same_epoch(self, event) || behind)
        code = s_catch_up(self, error);
    if (code || (!progress && seq <= self->seq))
        return code;
    if (!progress)
        self->seq = seq;
    s_deliver(self, event);
    return LADE_OK;
}

static json_t *
s_receive(lade_watch_t *self)
{
    zmsg_t *msg = zmsg_recv(self->sub);
    zframe_t *topic = msg ? zmsg_first(msg) : NULL, *body = topic ? zmsg_next(msg) : NULL;
    json_t *event = NULL;
    if (body)
        lade_wire_to_json(zframe_data(body), zframe_size(body), &event, NULL);
    zmsg_destroy(&msg);
    return event;
}

static lade_code_t
s_check_silence(lade_watch_t *self, lade_error_t *error)
{
    bool first = !self->epoch;
    int64_t patience =
        first ? lade_request_timeout(self->client) : lade_request_patience(self->client);
    if (lade_mono_ms() - self->heard_ms < patience)
        return LADE_OK;
    return lade_error_set(error, LADE_BROKER_UNREACHABLE,
                          "no event comes from the broker at %s for %" PRId64
                          " s (it beats every second): look whether it runs, and at "
                          "endpoints.events",
                          lade_request_endpoint(self->client), (int64_t)patience / 1000);
}

// Waits for one message. *event_p is NULL if the time passed first.
static lade_code_t
s_wait(lade_watch_t *self, int64_t until_ms, json_t **event_p, lade_error_t *error)
{
    enum { S_TURN_MS = 100 };
    *event_p = NULL;
    while (true) {
        int64_t left = until_ms - lade_mono_ms();
        zmq_pollitem_t items[] = {
            {.socket = zsock_resolve(self->sub), .events = ZMQ_POLLIN},
            {.fd = lade_request_stop(self->client), .events = ZMQ_POLLIN},
        };
        zmq_poll(items, items[1].fd >= 0 ? 2 : 1,
                 left < 0           ? 0
                 : left < S_TURN_MS ? left
                                    : S_TURN_MS);
        if (items[1].revents & ZMQ_POLLIN)
            return lade_error_set(error, LADE_CANCELLED, "interrupted");
        if (items[0].revents & ZMQ_POLLIN) {
            *event_p = s_receive(self);
            self->heard_ms = lade_mono_ms();
        }
        if (*event_p || (left <= 0 && !(items[0].revents & ZMQ_POLLIN)))
            return LADE_OK;
        lade_code_t code = s_check_silence(self, error);
        if (code)
            return code;
    }
}

// ---------------------------------------------------------------------------------------------------
// The whole

static lade_code_t
s_subscribe(lade_watch_t *self, lade_error_t *error)
{
    const char *endpoint;
    lade_code_t code = lade_request_events_endpoint(self->client, &endpoint, error);
    if (code)
        return code;
    self->sub = zsock_new(ZMQ_SUB);
    if (!self->sub)
        return lade_error_set(error, LADE_IO_ERROR, "no socket for events: %s",
                              zmq_strerror(zmq_errno()));
    zsock_set_rcvhwm(self->sub, 10000);
    size_t count = 0;
    for (; self->prefixes && self->prefixes[count]; count++) {
        if (count == S_MAX_PREFIXES)
            return lade_error_set(error, LADE_TOO_LARGE, "more than %d prefixes", S_MAX_PREFIXES);
        zsock_set_subscribe(self->sub, self->prefixes[count]);
    }
    // The beats tell a filtered subscriber that something it may have lost is there.
    zsock_set_subscribe(self->sub, count ? "broker_beat/" : "");
    return lade_endpoint_connect(self->sub, endpoint, lade_request_config(self->client), error);
}

// The seq to go on from when nothing older is wanted. Asking is also what notices at once that no
// broker is there.
static lade_code_t
s_newest(lade_t *client, int64_t *seq_p, lade_error_t *error)
{
    json_t *status = NULL;
    lade_code_t code =
        lade_request_json(client, "broker", "status", NULL, NULL, NULL, &status, error);
    *seq_p = lade_json_int(status, "seq", 0);
    json_decref(status);
    return code;
}

lade_code_t
lade_watch_open(lade_t *client, const char *const *prefixes, int64_t since, lade_watch_t **self_p,
                lade_error_t *error)
{
    lade_watch_t *self = zmalloc(sizeof *self);
    self->client = client;
    self->prefixes = prefixes;
    lade_code_t code = s_newest(client, &self->seq, error);
    if (!code && since > self->seq)
        code = lade_error_set(error, LADE_VALUE_ERROR,
                              "since %" PRId64 " is beyond the newest event, %" PRId64
                              ": another keyspace?",
                              since, self->seq);
    if (since >= 0)
        self->seq = since;
    if (!code)
        code = s_subscribe(self, error);
    self->heard_ms = self->left_ms = lade_mono_ms();
    if (code)
        lade_watch_close(&self);
    *self_p = self;
    return code;
}

lade_code_t
lade_watch_turn(lade_watch_t *self, int64_t timeout_ms, lade_watch_event_t *on_event, void *arg,
                lade_error_t *error)
{
    enum { S_MOST = 1000 }; // so that a turn ends while events storm in
    int64_t now = lade_mono_ms(), until = now + timeout_ms;
    self->heard_ms += now - self->left_ms; // nobody listened in between
    self->on_event = on_event;
    self->arg = arg;
    self->stopped = false;
    lade_code_t code = LADE_OK;
    size_t taken = 0;
    for (bool more = true; more && !code && !self->stopped && taken < S_MOST; taken++) {
        json_t *event = NULL;
        code = s_wait(self, until, &event, error);
        if (!code && event)
            code = s_take(self, event, error);
        more = event != NULL;
        json_decref(event);
        until = now; // what else is there
    }
    self->left_ms = lade_mono_ms();
    return code;
}

lade_code_t
lade_watch_catch_up(lade_watch_t *self, lade_watch_event_t *on_event, void *arg,
                    lade_error_t *error)
{
    self->on_event = on_event;
    self->arg = arg;
    self->stopped = false;
    return s_catch_up(self, error);
}

void
lade_watch_close(lade_watch_t **self_p)
{
    lade_watch_t *self = *self_p;
    if (!self)
        return;
    zsock_destroy(&self->sub);
    free(self->epoch);
    free(self);
    *self_p = NULL;
}

// ---------------------------------------------------------------------------------------------------
// The public one: text, until it is enough

typedef struct {
    bool (*on_event)(void *arg, const char *event);
    void *arg;
    bool stopped;
} s_told_t;

static bool
s_tell(void *arg, const json_t *event)
{
    s_told_t *self = arg;
    char *text = lade_request_text(event);
    self->stopped = !self->on_event(self->arg, text);
    free(text);
    return !self->stopped;
}

lade_code_t
lade_watch(lade_t *client, const char *const *prefixes, int64_t since,
           bool (*on_event)(void *arg, const char *event), void *arg, double timeout_s,
           lade_error_t *error)
{
    enum { S_TURN_MS = 1000 };
    s_told_t told = {on_event, arg, false};
    lade_watch_t *self;
    int64_t deadline = timeout_s > 0 ? lade_mono_ms() + (int64_t)(timeout_s * 1000) : INT64_MAX;
    lade_code_t code = lade_watch_open(client, prefixes, since, &self, error);
    while (!code && !told.stopped) {
        int64_t left = deadline - lade_mono_ms();
        if (left <= 0)
            code = lade_error_set(error, LADE_TIMEOUT, "no more events within the time given");
        else
            code = lade_watch_turn(self, left < S_TURN_MS ? left : S_TURN_MS, s_tell, &told, error);
    }
    lade_watch_close(&self);
    return code;
}
