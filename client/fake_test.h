// A broker for unit tests: one thread that speaks MDPC02 and publishes events, and does what the
// test tells it.
//
// Commands (fake_do): "stop" closes its sockets as a death would, "start" binds them again with the
// next epoch, "swallow N" leaves the next N requests unanswered (pings too), "end ID" ends the
// waits for a job, "journal NAME ID" adds an event and publishes it, "lose NAME ID" adds it and
// tells nobody, "repeat SEQ" publishes an event again, "progress NAME ID" publishes one that is not
// journaled, "oldest SEQ" forgets events, "garbage" sends the last client frames that mean nothing.
// A third word of an event is its bytes (of 100), or its error_type. Its downloads begin with id
// 101.
#ifndef LADE_FAKE_TEST_H
#define LADE_FAKE_TEST_H

#include "common/wire.h"

#include <czmq.h>
#include <jansson.h>

enum { FAKE_BEAT_MS = 20, FAKE_MAX_WAITS = 64 };

typedef struct {
    zactor_t *actor;
    char folder[64];
    char clients[128], events[128];
} fake_t;

typedef struct {
    const char *clients, *events;
    zsock_t *router, *xpub, *pipe;
    json_t *journal, *models, *seen; // seen: every request, as "service.op" and args
    json_t *downloads;
    int64_t epoch, oldest;
    long swallow;
    zframe_t *peer; // of the last request
    struct {
        zframe_t *peer;
        json_t *id;
        int64_t job;
    } waits[FAKE_MAX_WAITS];
    size_t wait_count;
} fake_state_t;

static inline void
fake_send(fake_state_t *self, zframe_t *peer, int command, const char *service, json_t *body)
{
    lade_buf_t buf = LADE_BUF(1 << 20);
    const uint8_t byte = (uint8_t)command;
    lade_wire_from_json(body, &buf, NULL);
    zmsg_t *msg = zmsg_new();
    zmsg_append(msg, &(zframe_t *){zframe_dup(peer)});
    zmsg_addmem(msg, "", 0);
    zmsg_addstr(msg, LADE_MDP_CLIENT);
    zmsg_addmem(msg, &byte, 1);
    zmsg_addstr(msg, service);
    zmsg_addmem(msg, buf.data, buf.len);
    zmsg_send(&msg, self->router);
    lade_buf_free(&buf);
    json_decref(body);
}

static inline void
fake_answer(fake_state_t *self, zframe_t *peer, const char *service, json_t *id, json_t *result)
{
    fake_send(self, peer, LADE_MDP_FINAL, service,
              json_pack("{s:O, s:b, s:o}", "id", id, "ok", 1, "result", result));
}

static inline void
fake_refuse(fake_state_t *self, zframe_t *peer, const char *service, json_t *id, const char *code,
            const char *message)
{
    fake_send(self, peer, LADE_MDP_FINAL, service,
              json_pack("{s:O, s:b, s:{s:s, s:s}}", "id", id, "ok", 0, "error", "code", code,
                        "message", message));
}

static inline int64_t
fake_seq(const fake_state_t *self)
{
    return (int64_t)json_array_size(self->journal);
}

static inline json_t *
fake_since(const fake_state_t *self, const json_t *args)
{
    int64_t seq = lade_json_int(args, "seq", 0), limit = 3; // small, so that pages are turned
    const json_t *prefixes = json_object_get(args, "prefixes");
    json_t *events = json_array();
    while (seq < fake_seq(self) && (int64_t)json_array_size(events) < limit) {
        json_t *event = json_array_get(self->journal, (size_t)seq++);
        bool wanted = json_array_size(prefixes) == 0;
        for (size_t i = 0; i < json_array_size(prefixes); i++) {
            const char *prefix = json_string_value(json_array_get(prefixes, i));
            wanted =
                wanted || strncmp(lade_json_text(event, "event", ""), prefix, strlen(prefix)) == 0;
        }
        if (wanted)
            json_array_append(events, event);
    }
    return json_pack("{s:o, s:I, s:b, s:I}", "events", events, "seq", (json_int_t)fake_seq(self),
                     "more", seq < fake_seq(self), "next", (json_int_t)seq);
}

static inline void
fake_partials(fake_state_t *self, zframe_t *peer, const char *service, json_t *id)
{
    for (int i = 1; i <= 3; i++)
        fake_send(self, peer, LADE_MDP_PARTIAL, service,
                  json_pack("{s:O, s:b, s:{s:i, s:s}}", "id", id, "ok", 1, "result", "bytes", i,
                            "status", "running"));
}

static inline json_t *
fake_find(const fake_state_t *self, const char *key, const char *value)
{
    json_t *found = json_array();
    for (size_t i = 0; i < json_array_size(self->models); i++)
        if (!value || strcmp(lade_json_text(json_array_get(self->models, i), key, ""), value) == 0)
            json_array_append(found, json_array_get(self->models, i));
    return found;
}

static inline json_t *
fake_find_key(const fake_state_t *self, const char *beginning)
{
    json_t *found = json_array();
    for (size_t i = 0; i < json_array_size(self->models); i++)
        if (strncmp(lade_json_text(json_array_get(self->models, i), "key", ""), beginning,
                    strlen(beginning)) == 0)
            json_array_append(found, json_array_get(self->models, i));
    return found;
}

static inline void
fake_page(fake_state_t *self, zframe_t *peer, json_t *id, const json_t *args, json_t *found)
{
    size_t offset = (size_t)lade_json_int(args, "offset", 0),
           limit = (size_t)lade_json_int(args, "limit", 1000);
    json_t *page = json_array();
    for (size_t i = offset; i < json_array_size(found) && i < offset + limit; i++)
        json_array_append(page, json_array_get(found, i));
    json_decref(found);
    fake_answer(self, peer, "store", id, page);
}

static inline void
fake_publish(fake_state_t *self, const json_t *event)
{
    char topic[256];
    lade_buf_t buf = LADE_BUF(1 << 20);
    json_t *id = json_object_get(event, "id");
    if (json_is_integer(id))
        snprintf(topic, sizeof topic, "%s/%" JSON_INTEGER_FORMAT "/",
                 lade_json_text(event, "event", ""), json_integer_value(id));
    else
        snprintf(topic, sizeof topic, "%s/%s/", lade_json_text(event, "event", ""),
                 lade_json_text(event, "id", ""));
    lade_wire_from_json(event, &buf, NULL);
    zmsg_t *msg = zmsg_new();
    zmsg_addstr(msg, topic);
    zmsg_addmem(msg, buf.data, buf.len);
    zmsg_send(&msg, self->xpub);
    lade_buf_free(&buf);
}

static inline json_t *
fake_event(const fake_state_t *self, const char *name, const char *id, const char *more,
           int64_t seq, bool progress)
{
    char *end;
    long number = strtol(id, &end, 10), bytes = more ? strtol(more, NULL, 10) : -1;
    json_t *event =
        json_pack("{s:s, s:o, s:I, s:I, s:f, s:b}", "event", name, "id",
                  *end ? json_string(id) : json_integer(number), "seq", (json_int_t)seq, "epoch",
                  (json_int_t)self->epoch, "timestamp", 1.5, "progress", progress);
    if (more && bytes > 0) {
        json_object_set_new(event, "bytes", json_integer(bytes));
        json_object_set_new(event, "total_bytes", json_integer(100));
        json_object_set_new(event, "download_path", json_string("/to/x"));
        json_object_set_new(event, "job_sequence", json_integer(9));
    } else if (more) {
        json_object_set_new(event, "error_type", json_string(more));
        json_object_set_new(event, "error", json_string("it went wrong"));
    }
    return event;
}

static inline void
fake_journal(fake_state_t *self, const char *name, const char *id, const char *more, bool publish)
{
    json_t *event = fake_event(self, name, id, more, fake_seq(self) + 1, false);
    json_array_append_new(self->journal, event);
    if (publish)
        fake_publish(self, event);
}

enum { FAKE_FIRST_DOWNLOAD = 101 };

static inline json_t *
fake_submit(fake_state_t *self, const json_t *args)
{
    json_t *job = json_deep_copy(json_object_get(args, "job"));
    bool start = lade_json_bool(args, "start", true);
    json_int_t id = FAKE_FIRST_DOWNLOAD + (json_int_t)json_array_size(self->downloads);
    json_object_set_new(job, "id", json_integer(id));
    json_object_set_new(job, "status", json_string(start ? "enqueued" : "idle"));
    json_object_del(job, "access_token");
    json_array_append_new(self->downloads, job);
    char text[32];
    snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, id);
    if (start)
        fake_journal(self, "download_enqueued", text, NULL, true);
    return json_incref(job);
}

// What each op does to a job: the event it tells.
static inline const char *
fake_deed(const char *op)
{
    return strncmp(op, "start", 5) == 0    ? "download_enqueued"
           : strncmp(op, "pause", 5) == 0  ? "download_paused"
           : strncmp(op, "cancel", 6) == 0 ? "download_cancelled"
                                           : NULL;
}

static inline void
fake_download(fake_state_t *self, zframe_t *peer, const char *service, json_t *id, const char *op,
              const json_t *args)
{
    json_int_t number = (json_int_t)lade_json_int(args, "id", 0);
    json_t *job = json_array_get(self->downloads, (size_t)(number - FAKE_FIRST_DOWNLOAD)),
           *ids = json_object_get(args, "ids");
    char text[32];
    snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, number);
    if (strcmp(op, "submit_download_job") == 0) {
        fake_answer(self, peer, service, id, fake_submit(self, args));
        return;
    }
    for (size_t i = 0; fake_deed(op) && i < json_array_size(ids); i++) {
        char one[32];
        snprintf(one, sizeof one, "%" JSON_INTEGER_FORMAT,
                 json_integer_value(json_array_get(ids, i)));
        fake_journal(self, fake_deed(op), one, NULL, false);
    }
    if (!ids && !job) {
        fake_refuse(self, peer, service, id, "UnknownJobID", "no such job");
        return;
    }
    if (job && fake_deed(op))
        fake_journal(self, fake_deed(op), text, NULL, false);
    if (job && strcmp(op, "update_download_job") == 0)
        json_object_update(job, (json_t *)args);
    fake_answer(self, peer, service, id, job ? json_incref(job) : json_array());
}

static inline void
fake_request(fake_state_t *self, zframe_t *peer, const char *service, const json_t *body)
{
    json_t *id = json_object_get(body, "id"), *args = json_object_get(body, "args");
    char name[128];
    snprintf(name, sizeof name, "%s.%s", service, lade_json_text(body, "op", ""));
    json_array_append_new(self->seen, json_pack("{s:s, s:O}", "name", name, "args", args));
    if (self->swallow > 0 && self->swallow--)
        return;
    if (strcmp(name, "broker.status") == 0)
        fake_answer(self, peer, service, id,
                    json_pack("{s:I, s:I}", "seq", (json_int_t)fake_seq(self), "epoch",
                              (json_int_t)self->epoch));
    else if (strcmp(name, "events.since") == 0 && lade_json_int(args, "seq", 0) < self->oldest)
        fake_refuse(self, peer, service, id, "too_old", "the journal begins later");
    else if (strcmp(name, "events.since") == 0)
        fake_answer(self, peer, service, id, fake_since(self, args));
    else if (strcmp(name, "store.all_models") == 0)
        fake_page(self, peer, id, args, fake_find(self, NULL, NULL));
    else if (strcmp(name, "store.search_by_name") == 0)
        fake_page(self, peer, id, args,
                  fake_find(self, "name", lade_json_text(args, "name", NULL)));
    else if (strcmp(name, "store.search_by_key") == 0)
        fake_page(self, peer, id, args, fake_find_key(self, lade_json_text(args, "key", "")));
    else if (strcmp(name, "test.echo") == 0)
        fake_answer(self, peer, service, id, json_incref(args));
    else if (strcmp(name, "test.seen") == 0)
        fake_answer(self, peer, service, id, json_deep_copy(self->seen));
    else if (strcmp(name, "test.bytes") == 0)
        fake_answer(self, peer, service, id, json_stringn_nocheck("a\xff\x01z", 4));
    else if (strcmp(name, "test.partial") == 0) {
        fake_partials(self, peer, service, id);
        fake_answer(self, peer, service, id, json_true());
    } else if (strcmp(name, "jobs.wait") == 0 || strcmp(name, "store.del_model") == 0) {
        if (self->wait_count < FAKE_MAX_WAITS) {
            self->waits[self->wait_count].peer = zframe_dup(peer);
            self->waits[self->wait_count].id = json_incref(id);
            self->waits[self->wait_count++].job = lade_json_int(args, "id", -1);
        }
    } else if (strcmp(name, "install.heuristic_import") == 0)
        fake_answer(self, peer, service, id,
                    json_pack("{s:i, s:s, s:O}", "id", 7, "status", "waiting", "source",
                              json_object_get(args, "source")));
    else if (strcmp(name, "install.wait_for_job") == 0)
        fake_answer(self, peer, service, id,
                    json_pack("{s:i, s:s, s:{s:s}}", "id", 7, "status", "completed", "config_out",
                              "key", "00000000000000000000000000000001"));
    else if (strcmp(service, "download") == 0 || fake_deed(lade_json_text(body, "op", "")) ||
             strcmp(name, "jobs.purge") == 0)
        fake_download(self, peer, service, id, lade_json_text(body, "op", ""), args);
    else
        fake_refuse(self, peer, service, id, "UnknownModel", "no such thing here");
}

static inline void
fake_receive(fake_state_t *self)
{
    zmsg_t *msg = zmsg_recv(self->router);
    zframe_t *peer = zmsg_pop(msg), *body;
    zframe_destroy(&self->peer);
    self->peer = zframe_dup(peer);
    zmsg_first(msg), zmsg_next(msg), zmsg_next(msg);
    char *service = zframe_strdup(zmsg_next(msg));
    body = zmsg_next(msg);
    json_t *request = NULL;
    if (strcmp(service, "mmi.service") == 0 && self->swallow <= 0) {
        zmsg_t *pong = zmsg_new();
        const uint8_t final = LADE_MDP_FINAL;
        zmsg_append(pong, &(zframe_t *){zframe_dup(peer)});
        zmsg_addmem(pong, "", 0);
        zmsg_addstr(pong, LADE_MDP_CLIENT);
        zmsg_addmem(pong, &final, 1);
        zmsg_addstr(pong, service);
        zmsg_addstr(pong, "200");
        zmsg_send(&pong, self->router);
    } else if (strcmp(service, "mmi.service") != 0 &&
               lade_wire_to_json(zframe_data(body), zframe_size(body), &request, NULL) == LADE_OK)
        fake_request(self, peer, service, request);
    json_decref(request);
    free(service);
    zframe_destroy(&peer);
    zmsg_destroy(&msg);
}

static inline void
fake_beat(fake_state_t *self)
{
    json_t *beat = fake_event(self, "broker_beat", "fake", NULL, fake_seq(self), true);
    if (self->xpub)
        fake_publish(self, beat);
    json_decref(beat);
}

static inline void
fake_bind(fake_state_t *self)
{
    self->router = zsock_new_router(self->clients);
    self->xpub = zsock_new(ZMQ_PUB);
    zsock_bind(self->xpub, "%s", self->events);
    self->epoch++;
}

static inline void
fake_end(fake_state_t *self, int64_t job)
{
    for (size_t i = 0; i < self->wait_count; i++)
        if (self->waits[i].job == job && self->router)
            fake_answer(self, self->waits[i].peer, "jobs", self->waits[i].id,
                        json_pack("{s:I, s:s}", "id", (json_int_t)job, "status", "completed"));
}

static inline void
fake_garbage(fake_state_t *self)
{
    static const char *const frames[][5] = {
        {"", "MDPC02", "\x03", "test", "no msgpack"},
        {"", "MDPC01", "\x03", "test", "\x80"},
        {"", "MDPC02", NULL},
        {"", NULL},
        {"", "MDPC02", "\x03\x03", "test", "\x80"},
        {"", "MDPC02", "\x03", "test", "\x80"},
    };
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        zmsg_t *msg = zmsg_new();
        zmsg_append(msg, &(zframe_t *){zframe_dup(self->peer)});
        for (size_t f = 0; f < 5 && frames[i][f]; f++)
            zmsg_addstr(msg, frames[i][f]);
        zmsg_send(&msg, self->router);
    }
}

static inline void
fake_command(fake_state_t *self, char *text)
{
    char *rest = text, *word = strsep(&rest, " "), *first = strsep(&rest, " "),
         *second = strsep(&rest, " "), *third = strsep(&rest, " ");
    if (strcmp(word, "stop") == 0) {
        zsock_destroy(&self->router);
        zsock_destroy(&self->xpub);
    } else if (strcmp(word, "start") == 0)
        fake_bind(self);
    else if (strcmp(word, "swallow") == 0)
        self->swallow = atol(first);
    else if (strcmp(word, "end") == 0)
        fake_end(self, atol(first));
    else if (strcmp(word, "journal") == 0 || strcmp(word, "lose") == 0) {
        fake_journal(self, first, second, third, *word == 'j');
    } else if (strcmp(word, "repeat") == 0)
        fake_publish(self, json_array_get(self->journal, (size_t)atol(first) - 1));
    else if (strcmp(word, "progress") == 0) {
        json_t *event = fake_event(self, first, second, third, fake_seq(self), true);
        fake_publish(self, event);
        json_decref(event);
    } else if (strcmp(word, "oldest") == 0)
        self->oldest = atol(first);
    else if (strcmp(word, "garbage") == 0)
        fake_garbage(self);
    else if (strcmp(word, "model") == 0)
        json_array_append_new(self->models, json_pack("{s:s, s:s}", "key", first, "name", second));
}

static inline void
fake_run(zsock_t *pipe, void *arg)
{
    fake_t *fake = arg;
    fake_state_t self = {.clients = fake->clients, .events = fake->events, .pipe = pipe};
    self.journal = json_array();
    self.models = json_array();
    self.downloads = json_array();
    self.seen = json_array();
    fake_bind(&self);
    zsock_signal(pipe, 0);
    bool running = true;
    while (running) {
        zmq_pollitem_t items[] = {
            {.socket = zsock_resolve(pipe), .events = ZMQ_POLLIN},
            {.socket = self.router ? zsock_resolve(self.router) : NULL, .events = ZMQ_POLLIN}};
        zmq_poll(items, self.router ? 2 : 1, FAKE_BEAT_MS);
        if (items[0].revents & ZMQ_POLLIN) {
            char *text = zstr_recv(pipe);
            running = text && strcmp(text, "$TERM") != 0;
            if (running) {
                fake_command(&self, text);
                zsock_signal(pipe, 0);
            }
            zstr_free(&text);
        } else if (items[1].revents & ZMQ_POLLIN)
            fake_receive(&self);
        else
            fake_beat(&self);
    }
    for (size_t i = 0; i < self.wait_count; i++) {
        zframe_destroy(&self.waits[i].peer);
        json_decref(self.waits[i].id);
    }
    zframe_destroy(&self.peer);
    json_decref(self.journal);
    json_decref(self.models);
    json_decref(self.downloads);
    json_decref(self.seen);
    zsock_destroy(&self.router);
    zsock_destroy(&self.xpub);
}

static inline void
fake_do(fake_t *self, const char *command)
{
    zstr_send(self->actor, command);
    zsock_wait(self->actor);
}

static inline void
fake_open(fake_t *self)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(self->folder, sizeof self->folder, "%.40s/lade-fake-XXXXXX",
             tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    if (!mkdtemp(self->folder))
        abort();
    snprintf(self->clients, sizeof self->clients, "ipc://%s/clients", self->folder);
    snprintf(self->events, sizeof self->events, "ipc://%s/events", self->folder);
    self->actor = zactor_new(fake_run, self);
}

static inline void
fake_close(fake_t *self)
{
    char path[128];
    static const char *const names[] = {"clients", "events", "out", "lade.yaml"};
    zactor_destroy(&self->actor);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", self->folder, names[i]);
        unlink(path);
    }
    rmdir(self->folder);
}

#endif
