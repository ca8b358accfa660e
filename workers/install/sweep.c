// A subscriber to one event.
#include "workers/install/sweep.h"

#include "common/endpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "workers/install/place.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char s_topic[] = "model_install_cancelled/";

enum {
    S_MAX_PENDING = 1024, // cancelled at once; more are left where they are
    S_DELAY_MS = 1000,    // for download workers to let go of their partial files
};

typedef struct {
    const lade_config_t *config;
    zsock_t *events;
    struct {
        int64_t job, due_ms;
    } pending[S_MAX_PENDING]; // in order of due_ms
    size_t count;
} s_sweep_t;

// The job's number in "model_install_cancelled/7/", 0 if there is none.
static int64_t
s_job_of(const char *topic)
{
    if (strncmp(topic, s_topic, strlen(s_topic)) != 0)
        return 0;
    char *end;
    errno = 0;
    int64_t job = strtoll(topic + strlen(s_topic), &end, 10);
    return errno == 0 && job > 0 && *end == '/' ? job : 0;
}

static void
s_on_event(s_sweep_t *self)
{
    zmsg_t *msg = zmsg_recv(self->events);
    char *topic = msg ? zmsg_popstr(msg) : NULL;
    int64_t job = topic ? s_job_of(topic) : 0;
    if (job && self->count < S_MAX_PENDING) {
        self->pending[self->count].job = job;
        self->pending[self->count++].due_ms = lade_mono_ms() + S_DELAY_MS;
    }
    zstr_free(&topic);
    zmsg_destroy(&msg);
}

static void
s_discard_due(s_sweep_t *self)
{
    size_t due = 0;
    for (; due < self->count && self->pending[due].due_ms <= lade_mono_ms(); due++) {
        char *temp = lade_place_temp(self->config->models_dir, self->pending[due].job);
        lade_error_t error = {0};
        if (lade_place_discard(self->config->models_dir, temp, &error))
            lade_log(LADE_LOG_WARNING, "sweep", "job %" PRId64 ": %s", self->pending[due].job,
                     error.message);
        free(temp);
    }
    self->count -= due;
    memmove(self->pending, self->pending + due, self->count * sizeof *self->pending);
}

static int
s_wait_ms(const s_sweep_t *self)
{
    if (self->count == 0)
        return -1;
    int64_t wait_ms = self->pending[0].due_ms - lade_mono_ms();
    return wait_ms > 0 ? (int)wait_ms : 0;
}

static void
s_run(zsock_t *pipe, void *arg)
{
    s_sweep_t *self = arg;
    zpoller_t *poller = zpoller_new(pipe, self->events, NULL);
    zpoller_set_nonstop(poller, true); // the loop in main has the signals
    zsock_signal(pipe, 0);
    void *which;
    while ((which = zpoller_wait(poller, s_wait_ms(self))) != pipe) {
        if (which == self->events)
            s_on_event(self);
        s_discard_due(self);
    }
    zpoller_destroy(&poller);
    zsock_destroy(&self->events);
    free(self);
}

zactor_t *
lade_sweep_new(const lade_config_t *config)
{
    lade_error_t error = {0};
    s_sweep_t *self = zmalloc(sizeof *self);
    self->config = config;
    self->events = zsock_new(ZMQ_SUB);
    zsock_set_subscribe(self->events, s_topic);
    if (lade_endpoint_connect(self->events, config->events, config, &error) == LADE_OK)
        return zactor_new(s_run, self);
    lade_log(LADE_LOG_WARNING, "sweep", "cancelled installs are not tidied up: %s", error.message);
    zsock_destroy(&self->events);
    free(self);
    return NULL;
}
