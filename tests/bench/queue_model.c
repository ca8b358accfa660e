// The bare model of lade's broker, as a yardstick: what the same turn costs when nothing but the
// transport and the disk is in it.
//
// Raw libzmq, no msgpack, no job engine: two ROUTERs and a PUB on ipc, and for each job one row in
// the queue, one in the ready list, and three journaled events, in one commit a turn. Answers, jobs
// and events go out after the commit.
//
//   queue_model FOLDER     the keyspace goes to FOLDER/keyspace, the sockets are FOLDER/clients,
//   workers, events
//
//   client -> model   [8 bytes of its own][payload]      model -> client   [the 8 bytes]
//   worker -> model   [credit, 1 byte], 0 when it leaves; [job, 8 bytes] when done
//   model -> worker   [job, 8 bytes][payload]
#include "broker/store.h"
#include "common/path.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    S_DRAIN = 512,     // messages taken from one socket a turn
    S_READY = 1 << 16, // jobs that wait, at most
    S_PAYLOAD = 256,   // bytes
    S_MAX_WORKERS = 64,
};

typedef struct {
    char bytes[16];
    size_t len;
} s_peer_t;

typedef struct {
    s_peer_t id;
    unsigned credit;
} s_worker_t;

typedef struct {
    uint64_t id;
    size_t len;
    char payload[S_PAYLOAD];
} s_job_t;

typedef struct {
    void *socket;
    s_peer_t to;
    size_t len;
    char bytes[8 + S_PAYLOAD];
} s_out_t;

typedef struct {
    lade_store_t *store;
    void *clients, *workers, *events;
    s_worker_t worker[S_MAX_WORKERS];
    size_t worker_count, next_worker;
    s_job_t ready[S_READY]; // ring
    uint64_t ready_head, ready_tail;
    uint64_t next_job, next_event;
    s_out_t *out; // what goes out after the commit
    size_t out_count, out_cap;
} s_model_t;

static const char *const s_events[] = {"job_enqueued", "job_running", "job_completed"};

static void
s_key(uint64_t number, char key[8])
{
    for (int i = 0; i < 8; i++)
        key[i] = (char)(number >> (56 - 8 * i));
}

static s_out_t *
s_send_later(s_model_t *self, void *socket, const s_peer_t *to, const void *bytes, size_t len)
{
    if (self->out_count == self->out_cap) {
        self->out_cap = self->out_cap ? self->out_cap * 2 : 4096;
        self->out = realloc(self->out, self->out_cap * sizeof *self->out);
        if (!self->out)
            abort();
    }
    s_out_t *out = &self->out[self->out_count++];
    out->socket = socket;
    out->to = *to;
    out->len = len;
    memcpy(out->bytes, bytes, len);
    return out;
}

// One journaled event: a row of about the size lade writes, and a message to whoever listens.
static void
s_event(s_model_t *self, int which, uint64_t job)
{
    char key[8], row[96];
    s_peer_t topic;
    s_key(self->next_event++, key);
    memset(row, ' ', sizeof row);
    snprintf(row, sizeof row, "%s of job %llu", s_events[which], (unsigned long long)job);
    lade_store_put(self->store, LADE_DB_EVENTS, key, sizeof key, row, sizeof row, true, NULL);
    topic.len = (size_t)snprintf(topic.bytes, sizeof topic.bytes, "%s/", s_events[which]);
    s_send_later(self, self->events, &topic, &job, sizeof job);
}

static void
s_dispatch(s_model_t *self)
{
    for (size_t tried = 0; self->ready_head != self->ready_tail && tried < self->worker_count;) {
        s_worker_t *worker = &self->worker[self->next_worker++ % self->worker_count];
        if (!worker->credit) {
            tried++;
            continue;
        }
        tried = 0;
        worker->credit--;
        s_job_t *job = &self->ready[self->ready_head++ % S_READY];
        char key[8], message[8 + S_PAYLOAD];
        s_key(job->id, key);
        lade_store_del(self->store, LADE_DB_JOBS_BY_TOKEN, key, sizeof key, NULL);
        s_event(self, 1, job->id);
        memcpy(message, &job->id, 8);
        memcpy(message + 8, job->payload, job->len);
        s_send_later(self, self->workers, &worker->id, message, 8 + job->len);
    }
}

static void
s_on_client(s_model_t *self, const s_peer_t *from, const char *bytes, size_t len)
{
    char key[8];
    if (len < 8 || len > 8 + S_PAYLOAD || self->ready_tail - self->ready_head == S_READY)
        return;
    s_job_t *job = &self->ready[self->ready_tail++ % S_READY];
    job->id = self->next_job++;
    job->len = len - 8;
    memcpy(job->payload, bytes + 8, job->len);
    s_key(job->id, key);
    lade_store_put(self->store, LADE_DB_JOBS, key, sizeof key, job->payload, job->len, true, NULL);
    lade_store_put(self->store, LADE_DB_JOBS_BY_TOKEN, key, sizeof key, "", 0, true, NULL);
    s_event(self, 0, job->id);
    s_send_later(self, self->clients, from, bytes, 8);
}

static void
s_on_worker(s_model_t *self, const s_peer_t *from, const char *bytes, size_t len)
{
    size_t i = 0;
    while (i < self->worker_count &&
           (self->worker[i].id.len != from->len ||
            memcmp(self->worker[i].id.bytes, from->bytes, from->len) != 0))
        i++;
    if (i == S_MAX_WORKERS)
        return;
    if (i == self->worker_count)
        self->worker[self->worker_count++] = (s_worker_t){.id = *from};
    if (len == 1) {
        self->worker[i].credit = (unsigned char)bytes[0];
    } else if (len == 8) {
        uint64_t job;
        char key[8], done[200] = "completed";
        memcpy(&job, bytes, 8);
        s_key(job, key);
        lade_store_put(self->store, LADE_DB_JOBS, key, sizeof key, done, sizeof done, false, NULL);
        s_event(self, 2, job);
        self->worker[i].credit++;
    }
}

static void
s_drain(s_model_t *self, void *socket,
        void (*on)(s_model_t *, const s_peer_t *, const char *, size_t))
{
    for (int i = 0; i < S_DRAIN; i++) {
        s_peer_t from;
        char bytes[8 + S_PAYLOAD];
        int id = zmq_recv(socket, from.bytes, sizeof from.bytes, ZMQ_DONTWAIT);
        if (id < 0)
            return;
        int len = zmq_recv(socket, bytes, sizeof bytes, 0);
        if (id > (int)sizeof from.bytes || len < 0 || len > (int)sizeof bytes)
            continue;
        from.len = (size_t)id;
        on(self, &from, bytes, (size_t)len);
    }
}

static void
s_send_all(s_model_t *self)
{
    for (size_t i = 0; i < self->out_count; i++) {
        zmq_send(self->out[i].socket, self->out[i].to.bytes, self->out[i].to.len,
                 ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(self->out[i].socket, self->out[i].bytes, self->out[i].len, ZMQ_DONTWAIT);
    }
    self->out_count = 0;
}

static void *
s_bind(void *context, int type, const char *folder, const char *name)
{
    void *socket = zmq_socket(context, type);
    char endpoint[512];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/%s", folder, name);
    int unlimited = 0;
    zmq_setsockopt(socket, ZMQ_SNDHWM, &unlimited, sizeof unlimited);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited);
    if (zmq_bind(socket, endpoint) != 0) {
        fprintf(stderr, "queue_model: %s: %s\n", endpoint, zmq_strerror(zmq_errno()));
        exit(1);
    }
    return socket;
}

int
main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: queue_model FOLDER\n");
        return 2;
    }
    s_model_t *self = calloc(1, sizeof *self);
    lade_error_t error = {0};
    char *folder = lade_path_join(argv[1], "keyspace");
    if (!self || lade_store_open(folder, &self->store, &error)) {
        fprintf(stderr, "queue_model: %s\n", error.message);
        return 1;
    }
    void *context = zmq_ctx_new();
    self->clients = s_bind(context, ZMQ_ROUTER, argv[1], "clients");
    self->workers = s_bind(context, ZMQ_ROUTER, argv[1], "workers");
    self->events = s_bind(context, ZMQ_PUB, argv[1], "events");
    while (true) {
        zmq_pollitem_t items[] = {{self->clients, 0, ZMQ_POLLIN, 0},
                                  {self->workers, 0, ZMQ_POLLIN, 0}};
        if (zmq_poll(items, 2, -1) < 0)
            continue;
        s_drain(self, self->clients, s_on_client);
        s_drain(self, self->workers, s_on_worker);
        s_dispatch(self);
        if (lade_store_commit(self->store, &error)) {
            fprintf(stderr, "queue_model: %s\n", error.message);
            return 1;
        }
        s_send_all(self);
    }
}
