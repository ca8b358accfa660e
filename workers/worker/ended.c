// A subscriber to one event.
#include "workers/worker/ended.h"

#include "common/endpoint.h"
#include "common/log.h"
#include "common/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    S_MAX_PENDING = 10000, // ended within a second; what is more is not told
    S_DELAY_MS = 1000,     // for a worker that held the job to let go
};

typedef struct {
    zsock_t *events;
    char topic[64]; // "EVENT/"
    void (*ended)(void *arg, int64_t job, const json_t *event);
    void *arg;
    struct {
        int64_t job, due_ms;
        json_t *event;
    } pending[S_MAX_PENDING]; // in order of due_ms
    size_t count;
} s_ended_t;

// The job's number in "EVENT/7/", 0 if there is none.
static int64_t
s_job_of(const s_ended_t *self, const char *topic)
{
    size_t len = strlen(self->topic);
    if (strncmp(topic, self->topic, len) != 0)
        return 0;
    char *end;
    errno = 0;
    int64_t job = strtoll(topic + len, &end, 10);
    return errno == 0 && job > 0 && *end == '/' ? job : 0;
}

static void
s_on_event(s_ended_t *self)
{
    zmsg_t *msg = zmsg_recv(self->events);
    char *topic = msg ? zmsg_popstr(msg) : NULL;
    zframe_t *body = msg ? zmsg_first(msg) : NULL;
    int64_t job = topic ? s_job_of(self, topic) : 0;
    json_t *event = NULL;
    if (job && body && self->count < S_MAX_PENDING &&
        !lade_wire_to_json(zframe_data(body), zframe_size(body), &event, NULL)) {
        self->pending[self->count].job = job;
        self->pending[self->count].event = event;
        self->pending[self->count++].due_ms = lade_mono_ms() + S_DELAY_MS;
    }
    zstr_free(&topic);
    zmsg_destroy(&msg);
}

static void
s_tell_due(s_ended_t *self)
{
    size_t due = 0;
    for (; due < self->count && self->pending[due].due_ms <= lade_mono_ms(); due++) {
        self->ended(self->arg, self->pending[due].job, self->pending[due].event);
        json_decref(self->pending[due].event);
    }
    self->count -= due;
    memmove(self->pending, self->pending + due, self->count * sizeof *self->pending);
}

static int
s_wait_ms(const s_ended_t *self)
{
    if (self->count == 0)
        return -1;
    int64_t wait_ms = self->pending[0].due_ms - lade_mono_ms();
    return wait_ms > 0 ? (int)wait_ms : 0;
}

static void
s_destroy(s_ended_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        json_decref(self->pending[i].event);
    zsock_destroy(&self->events);
    free(self);
}

static void
s_run(zsock_t *pipe, void *arg)
{
    s_ended_t *self = arg;
    zpoller_t *poller = zpoller_new(pipe, self->events, NULL);
    zpoller_set_nonstop(poller, true); // the loop in main has the signals
    zsock_signal(pipe, 0);
    void *which;
    while ((which = zpoller_wait(poller, s_wait_ms(self))) != pipe) {
        if (which == self->events)
            s_on_event(self);
        s_tell_due(self);
    }
    zpoller_destroy(&poller);
    s_destroy(self);
}

zactor_t *
lade_ended_new(const lade_config_t *config, const char *event,
               void (*ended)(void *arg, int64_t job, const json_t *event), void *arg)
{
    lade_error_t error = {0};
    s_ended_t *self = zmalloc(sizeof *self);
    self->ended = ended;
    self->arg = arg;
    snprintf(self->topic, sizeof self->topic, "%s/", event);
    self->events = zsock_new(ZMQ_SUB);
    zsock_set_rcvhwm(self->events, S_MAX_PENDING);
    zsock_set_subscribe(self->events, self->topic);
    if (lade_endpoint_connect(self->events, config->events, config, &error) == LADE_OK)
        return zactor_new(s_run, self);
    lade_log(LADE_LOG_WARNING, "events", "what cancelled jobs left is not tidied up: %s",
             error.message);
    s_destroy(self);
    return NULL;
}
