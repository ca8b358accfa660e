// Chores: one thread beside the loop, and one place where they meet: a descriptor that says it is
// done.
#include "broker/chores.h"

#include "broker/outbox.h"
#include "broker/packer.h"
#include "common/log.h"
#include "common/wire.h"

#include <czmq.h>
#include <pthread.h>
#include <sys/eventfd.h>

typedef enum { S_NONE, S_ASKED, S_RUNNING } s_state_t;

struct lade_chores {
    lade_broker_t *broker;
    int descriptor;
    s_state_t state;
    lade_chore_t chore;
    // who asked
    char *peer, *service;
    size_t peer_len;
    lade_blob_t id;
    bool partial;
    int64_t told;
    // the thread, and what it came to
    pthread_t thread;
    atomic_bool ended;
    json_t *result;
    lade_error_t error;
};

lade_chores_t *
lade_chores_new(lade_broker_t *broker)
{
    lade_chores_t *self = zmalloc(sizeof *self);
    self->broker = broker;
    self->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return self;
}

int
lade_chores_descriptor(const lade_chores_t *self)
{
    return self->descriptor;
}

bool
lade_chore_stopped(const lade_chore_t *chore)
{
    return atomic_load(&chore->stop) || (chore->view && lade_store_wanted(chore->view));
}

lade_code_t
lade_chores_start(lade_chores_t *self, const lade_call_t *call, const lade_chore_kind_t *kind,
                  void *state, lade_error_t *error)
{
    if (self->state != S_NONE || self->descriptor < 0) {
        kind->free(state);
        return lade_error_set(error, LADE_BUSY, "%s is under way: ask again when it has ended",
                              self->state == S_NONE ? "nothing" : self->chore.kind->name);
    }
    self->chore = (lade_chore_t){.kind = kind, .state = state, .config = self->broker->config};
    lade_job_set_text(&self->peer, call->peer, call->peer_len);
    self->peer_len = call->peer_len;
    lade_job_set_text(&self->service, call->service, strlen(call->service));
    lade_blob_set(&self->id, call->id, call->id_len);
    self->partial = lade_wire_bool(call->args, "partial", false);
    self->told = -1;
    self->state = S_ASKED;
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Answering

static void
s_forget(lade_chores_t *self)
{
    self->chore.kind->free(self->chore.state);
    self->chore.state = NULL;
    json_decref(self->result);
    self->result = NULL;
    self->state = S_NONE;
}

static void
s_refuse(lade_chores_t *self, const lade_error_t *error)
{
    lade_log(LADE_LOG_WARNING, "keyspace", "%s failed: %s", self->chore.kind->name, error->message);
    lade_outbox_refuse(self->broker->outbox, self->peer, self->peer_len, self->service,
                       strlen(self->service), self->id.data, self->id.len, error);
    s_forget(self);
}

static void
s_answer(lade_chores_t *self)
{
    lade_outbox_t *outbox = self->broker->outbox;
    lade_error_t error;
    lade_buf_t *buf =
        lade_outbox_answer(outbox, self->peer, self->peer_len, self->service, strlen(self->service),
                           LADE_MDP_FINAL, self->id.data, self->id.len);
    if (lade_wire_from_json(self->result, buf, &error)) {
        lade_outbox_cancel(outbox);
        s_refuse(self, &error);
        return;
    }
    lade_outbox_end(outbox);
    s_forget(self);
}

void
lade_chores_beat(lade_chores_t *self)
{
    int64_t done = atomic_load(&self->chore.done), total = atomic_load(&self->chore.total);
    if (self->state != S_RUNNING || !self->partial || done == self->told)
        return;
    self->told = done;
    lade_buf_t *buf =
        lade_outbox_answer(self->broker->outbox, self->peer, self->peer_len, self->service,
                           strlen(self->service), LADE_MDP_PARTIAL, self->id.data, self->id.len);
    lade_put_map(buf, 2);
    LADE_PUT_KEY(buf, "done");
    lade_put_int(buf, done);
    LADE_PUT_KEY(buf, "total");
    lade_put_int(buf, total);
    lade_outbox_end(self->broker->outbox);
}

// ---------------------------------------------------------------------------------------------------
// The thread

static void *
s_work(void *arg)
{
    lade_chores_t *self = arg;
    uint64_t one = 1;
    self->chore.kind->run(&self->chore, &self->result, &self->error);
    lade_store_close(&self->chore.view);
    atomic_store(&self->ended, true);
    if (write(self->descriptor, &one, sizeof one) != sizeof one)
        lade_log(LADE_LOG_DEBUG, "keyspace", "the loop finds out by itself");
    return NULL;
}

static lade_code_t
s_begin(lade_chores_t *self, lade_error_t *error)
{
    lade_store_t *store = self->broker->store;
    self->error = (lade_error_t){0};
    json_decref(self->result);
    self->result = NULL;
    atomic_store(&self->ended, false);
    lade_code_t code = lade_store_checkpoint(store, error);
    if (!code)
        code = lade_store_view(store, &self->chore.view, error);
    int failed = code ? 0 : pthread_create(&self->thread, NULL, s_work, self);
    if (failed) {
        lade_store_close(&self->chore.view);
        code = lade_error_errno(error, failed, "no thread for %s", self->chore.kind->name);
    }
    return code;
}

void
lade_chores_begin(lade_chores_t *self)
{
    lade_error_t error;
    if (self->state != S_ASKED)
        return;
    self->state = S_RUNNING;
    if (s_begin(self, &error))
        s_refuse(self, &error);
}

void
lade_chores_take(lade_chores_t *self)
{
    uint64_t count;
    if (self->state != S_RUNNING || !atomic_load(&self->ended))
        return;
    if (read(self->descriptor, &count, sizeof count) != sizeof count && errno != EAGAIN)
        lade_log(LADE_LOG_DEBUG, "keyspace", "cannot read a descriptor of our own");
    pthread_join(self->thread, NULL);
    const lade_chore_kind_t *kind = self->chore.kind;
    if (self->error.code)
        s_refuse(self, &self->error);
    else if (kind->then && kind->then(self->broker, &self->chore, self->result)) {
        self->chore.round++;
        self->state = S_ASKED;
    } else {
        s_answer(self);
    }
}

void
lade_chores_fail(lade_chores_t *self, const lade_error_t *error)
{
    if (self->state == S_ASKED)
        s_refuse(self, error);
}

void
lade_chores_destroy(lade_chores_t **self_p)
{
    lade_chores_t *self = *self_p;
    if (!self)
        return;
    atomic_store(&self->chore.stop, true);
    if (self->state == S_RUNNING)
        pthread_join(self->thread, NULL);
    if (self->state != S_NONE)
        s_forget(self);
    if (self->descriptor >= 0)
        close(self->descriptor);
    free(self->peer);
    free(self->service);
    lade_blob_free(&self->id);
    free(self);
    *self_p = NULL;
}
