// What the broker's unit tests share: a router without sockets in a temporary folder, and what its
// turns sent.
#ifndef LADE_BROKER_TEST_H
#define LADE_BROKER_TEST_H

#include "broker/router.h"
#include "common/path.h"
#include "common/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { T_MOST = 4096 };

typedef struct {
    lade_sent_t kind;
    char to[300];
    int command;
    json_t *body;
} t_sent_t;

typedef struct {
    char folder[64];
    lade_config_t config;
    lade_router_t *router;
    t_sent_t sent[T_MOST];
    size_t count, read; // sent messages, and those looked at by t_next
    int64_t id;
    int64_t n; // of reports
} t_broker_t;

static inline void
t_on_sent(void *arg, lade_sent_t kind, const char *to, size_t to_len, int command, const char *body,
          size_t len)
{
    t_broker_t *self = arg;
    assert_true(self->count < T_MOST);
    t_sent_t *sent = &self->sent[self->count++];
    *sent = (t_sent_t){.kind = kind, .command = command};
    snprintf(sent->to, sizeof sent->to, "%.*s", (int)to_len, to);
    if (lade_wire_to_json(body, len, &sent->body, NULL))
        sent->body = json_stringn(body, len);
}

static inline void
t_open(t_broker_t *self)
{
    lade_error_t error = {0};
    if (lade_router_open(&self->config, &self->router, &error))
        fail_msg("%s", error.message);
    lade_router_on_sent(self->router, t_on_sent, self);
}

static inline t_broker_t *
t_new(void)
{
    t_broker_t *self = calloc(1, sizeof *self);
    lade_error_t error = {0};
    const char *tmp = getenv("TMPDIR");
    snprintf(self->folder, sizeof self->folder, "%.40s/ladeXXXXXX", tmp && *tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(self->folder));
    unsetenv("LADE_CONFIG");
    if (lade_config_load(&self->config, NULL, self->folder, &error) ||
        lade_config_make_folders(&self->config, &error))
        fail_msg("%s", error.message);
    self->config.retry_base_ms = 1000;
    t_open(self);
    return self;
}

static inline void
t_forget(t_broker_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        json_decref(self->sent[i].body);
    self->count = self->read = 0;
}

// The broker stops (as killed: nothing more is written) and starts again on the same folder.
static inline void
t_restart(t_broker_t *self)
{
    lade_router_close(&self->router);
    t_forget(self);
    t_open(self);
}

static inline void
t_destroy(t_broker_t *self)
{
    lade_router_close(&self->router);
    t_forget(self);
    lade_path_remove(self->folder, NULL);
    lade_config_free(&self->config);
    free(self);
}

static inline void
t_turn(t_broker_t *self)
{
    lade_router_turn(self->router);
}

// Feeds a body built by json_pack, which is consumed.
static inline void
t_feed(t_broker_t *self, const char *service, const char *peer, int command, json_t *body)
{
    lade_buf_t buf = LADE_BUF(1 << 24);
    assert_non_null(body);
    assert_int_equal(lade_wire_from_json(body, &buf, NULL), LADE_OK);
    if (service)
        lade_router_feed_client(self->router, peer, service, strlen(service), buf.data, buf.len);
    else
        lade_router_feed_worker(self->router, peer, command, buf.data, buf.len);
    lade_buf_free(&buf);
    json_decref(body);
}

// Sends a request without ending the turn; returns its id.
static inline int64_t
t_send(t_broker_t *self, const char *service, const char *op, json_t *args)
{
    int64_t id = ++self->id;
    t_feed(self, service, "client", 0,
           json_pack("{s:I, s:s, s:o}", "id", (json_int_t)id, "op", op, "args",
                     args ? args : json_object()));
    return id;
}

// The final answer to a request, borrowed; NULL if there is none yet.
static inline json_t *
t_answer(const t_broker_t *self, int64_t id)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->sent[i].kind == LADE_SENT_CLIENT && self->sent[i].command == LADE_MDP_FINAL &&
            lade_json_int(self->sent[i].body, "id", 0) == id)
            return self->sent[i].body;
    return NULL;
}

// A request and its turn; the result, borrowed.
static inline json_t *
t_call(t_broker_t *self, const char *service, const char *op, json_t *args)
{
    int64_t id = t_send(self, service, op, args);
    t_turn(self);
    json_t *answer = t_answer(self, id);
    assert_non_null(answer);
    if (!lade_json_bool(answer, "ok", false))
        fail_msg("%s.%s: %s", service, op,
                 lade_json_text(json_object_get(answer, "error"), "message", "no message"));
    return json_object_get(answer, "result");
}

// A request that is refused; its code.
static inline const char *
t_refused(t_broker_t *self, const char *service, const char *op, json_t *args)
{
    int64_t id = t_send(self, service, op, args);
    t_turn(self);
    json_t *answer = t_answer(self, id);
    assert_non_null(answer);
    assert_false(lade_json_bool(answer, "ok", true));
    return lade_json_text(json_object_get(answer, "error"), "code", "");
}

static inline int64_t
t_submit(t_broker_t *self, json_t *args)
{
    return lade_json_int(t_call(self, "jobs", "submit", args), "id", 0);
}

static inline int64_t
t_submit_kind(t_broker_t *self, const char *kind)
{
    return t_submit(self, json_pack("{s:s}", "kind", kind));
}

static inline json_t *
t_job(t_broker_t *self, int64_t id)
{
    return t_call(self, "jobs", "get", json_pack("{s:I}", "id", (json_int_t)id));
}

static inline const char *
t_status(t_broker_t *self, int64_t id)
{
    return lade_json_text(t_job(self, id), "status", "");
}

// ---------------------------------------------------------------------------------------------------
// A worker is its peer, which is its name as well.

static inline void
t_hello_with(t_broker_t *self, const char *worker, const char *kind, int slots, json_t *labels,
             json_t *jobs)
{
    t_feed(self, NULL, worker, LADE_W_HELLO,
           json_pack("{s:s, s:s, s:i, s:[s], s:i, s:o, s:o}", "name", worker, "host", "here", "pid",
                     1, "kinds", kind, "slots", slots, "labels", labels ? labels : json_object(),
                     "jobs", jobs ? jobs : json_array()));
}

static inline void
t_hello(t_broker_t *self, const char *worker, const char *kind, int slots)
{
    t_hello_with(self, worker, kind, slots, NULL, NULL);
    t_turn(self);
}

// A report about a job; more is merged in, consumed.
static inline void
t_report(t_broker_t *self, const char *worker, int command, int64_t id, int64_t attempt,
         json_t *more)
{
    json_t *body = json_pack("{s:I, s:I, s:I}", "n", (json_int_t)++self->n, "id", (json_int_t)id,
                             "attempt", (json_int_t)attempt);
    if (more)
        json_object_update(body, more);
    json_decref(more);
    t_feed(self, NULL, worker, command, body);
    t_turn(self);
}

static inline void
t_done(t_broker_t *self, const char *worker, int64_t id, int64_t attempt)
{
    t_report(self, worker, LADE_W_DONE, id, attempt,
             json_pack("{s:{s:i}}", "result", "answer", 42));
}

static inline void
t_fail(t_broker_t *self, const char *worker, int64_t id, int64_t attempt, const char *code)
{
    t_report(self, worker, LADE_W_FAIL, id, attempt,
             json_pack("{s:s, s:s}", "code", code, "message", "words"));
}

// The last message of that command to a worker, borrowed; NULL if there was none.
static inline json_t *
t_told(const t_broker_t *self, const char *worker, int command)
{
    for (size_t i = self->count; i-- > 0;)
        if (self->sent[i].kind == LADE_SENT_WORKER && self->sent[i].command == command &&
            strcmp(self->sent[i].to, worker) == 0)
            return self->sent[i].body;
    return NULL;
}

// How many messages of that command a worker got.
static inline size_t
t_count_told(const t_broker_t *self, const char *worker, int command)
{
    size_t count = 0;
    for (size_t i = 0; i < self->count; i++)
        count += self->sent[i].kind == LADE_SENT_WORKER && self->sent[i].command == command &&
                 strcmp(self->sent[i].to, worker) == 0;
    return count;
}

// How many events with that topic were told; the last is put into *body_p (borrowed) if it is not
// NULL.
static inline size_t
t_events(const t_broker_t *self, const char *topic, json_t **body_p)
{
    size_t count = 0;
    for (size_t i = 0; i < self->count; i++)
        if (self->sent[i].kind == LADE_SENT_EVENT &&
            strncmp(self->sent[i].to, topic, strlen(topic)) == 0) {
            count++;
            if (body_p)
                *body_p = self->sent[i].body;
        }
    return count;
}

static inline int64_t
t_metric(t_broker_t *self, const char *name)
{
    return lade_json_int(t_call(self, "broker", "metrics", NULL), name, -1);
}

// A test gets a broker of its own.
static inline int
t_setup(void **state)
{
    *state = t_new();
    return 0;
}

static inline int
t_teardown(void **state)
{
    t_destroy(*state);
    return 0;
}

#define T_TEST(name) cmocka_unit_test_setup_teardown(name, t_setup, t_teardown)

#endif
