// The load of tests/bench/queue: 4 clients put jobs of 200 bytes, 4 workers take them and say they
// are done.
//
// One thread and one poll for all eight, so that the generator costs little beside the server;
// libzmq's for lade and the bare model, plain sockets for the peers, each in its own protocol.
// Latencies travel in the payload.
//
//   queue_load --peer lade|model|beanstalkd|redis --at ADDRESS [--window N] [--rate N] [--seconds
//   S]
//
// ADDRESS is the folder of the ipc sockets, or the path of a unix socket. --window: operations a
// client (a put without acknowledgement) and a worker (a job not done) may have outstanding.
// --rate: jobs a second in an open loop instead. Prints one JSON object.
#include "common/buf.h"
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum {
    S_CLIENTS = 4,
    S_WORKERS = 4,
    S_PEERS = S_CLIENTS + S_WORKERS, // connections: clients first, then workers
    S_PAYLOAD = 200,
    S_RING = 1 << 16,        // puts not acknowledged, jobs by id
    S_MAX_SAMPLES = 1 << 21, // latencies kept of each kind
    S_MAX_OPEN = 20000,      // jobs in flight before an open loop gives up
};
#define S_MARK "LADEBNCH"

typedef struct {
    float *ms;
    size_t count;
} s_samples_t;

typedef struct {
    int fd;
    void *socket; // libzmq's, or NULL
    lade_buf_t in, out;
    uint64_t puts, acks;   // of a client
    uint64_t dones;        // of a worker: reports sent
    uint64_t acked;        // of a worker: reports that are durable
    int replies;           // of a redis worker: integers seen since the last batch of jobs
    double stamps[S_RING]; // client: when each put was due; worker: of each job not yet
                           // acknowledged as done
    uint64_t stamp_head, stamp_tail;
} s_peer_t;

typedef struct s_load s_load_t;

typedef struct {
    const char *name;
    void (*open)(s_load_t *self);
    void (*put)(s_load_t *self, s_peer_t *client, const char *payload);
    void (*on_client)(s_load_t *self, s_peer_t *client);
    void (*on_worker)(s_load_t *self, s_peer_t *worker);
    void (*close)(s_load_t *self);
} s_protocol_t;

struct s_load {
    const s_protocol_t *protocol;
    const char *at;
    unsigned window;
    double rate, seconds;
    s_peer_t *peers; // S_PEERS
    void *context, *events;
    int timer;
    double began, counted_from, ends; // seconds, monotonic
    uint64_t put, done;               // jobs put, jobs whose worker said done
    uint64_t done_before;             // those before counted_from
    s_samples_t put_ms, delivered_ms, done_ms;
    double by_job[S_RING]; // when the job with that id was due, for its announcement
};

static void __attribute__((noreturn, format(printf, 1, 2))) s_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("queue_load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(1);
}

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void
s_sample(const s_load_t *self, s_samples_t *samples, double due)
{
    double now = s_now();
    if (due >= self->counted_from && samples->count < S_MAX_SAMPLES)
        samples->ms[samples->count++] = (float)((now - due) * 1e3);
}

// ---------------------------------------------------------------------------------------------------
// What every protocol tells

static void
s_on_acknowledged(s_load_t *self, s_peer_t *client)
{
    s_sample(self, &self->put_ms, client->stamps[client->acks++ % S_RING]);
}

// A job has reached a worker: when it was due stands in its payload.
static double
s_on_delivered(s_load_t *self, s_peer_t *worker, const void *bytes, size_t len)
{
    const char *mark = memmem(bytes, len, S_MARK, strlen(S_MARK));
    if (!mark || len - (size_t)(mark - (const char *)bytes) < S_PAYLOAD)
        s_die("%s handed out a job that is not ours", self->protocol->name);
    char digits[17] = "";
    memcpy(digits, mark + strlen(S_MARK), 16);
    double due = (double)strtoull(digits, NULL, 16) / 1e9;
    s_sample(self, &self->delivered_ms, due);
    worker->stamps[worker->stamp_tail++ % S_RING] = due;
    worker->dones++;
    self->done++;
    return due;
}

// The oldest job of this worker is known to be durably done.
static void
s_on_done(s_load_t *self, s_peer_t *worker)
{
    worker->acked++;
    s_sample(self, &self->done_ms, worker->stamps[worker->stamp_head++ % S_RING]);
}

// ---------------------------------------------------------------------------------------------------
// Plain sockets

static void
s_connect_unix(s_load_t *self, size_t index)
{
    s_peer_t *peer = &self->peers[index];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(self->at) >= sizeof address.sun_path)
        s_die("%s: path too long for a socket", self->at);
    memcpy(address.sun_path, self->at, strlen(self->at));
    peer->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(peer->fd, (struct sockaddr *)&address, sizeof address) != 0)
        s_die("%s: %s", self->at, strerror(errno));
    fcntl(peer->fd, F_SETFL, O_NONBLOCK);
    peer->in = peer->out = LADE_BUF(64 << 20);
}

static void
s_write(s_peer_t *peer)
{
    size_t sent = 0;
    while (sent < peer->out.len) {
        ssize_t len = write(peer->fd, peer->out.data + sent, peer->out.len - sent);
        if (len < 0 && errno == EAGAIN)
            break;
        if (len <= 0)
            s_die("writing: %s", strerror(errno));
        sent += (size_t)len;
    }
    if (sent)
        memmove(peer->out.data, peer->out.data + sent, peer->out.len - sent);
    peer->out.len -= sent;
}

static void
s_read(s_peer_t *peer)
{
    char bytes[65536];
    ssize_t len = read(peer->fd, bytes, sizeof bytes);
    if (len == 0 || (len < 0 && errno != EAGAIN))
        s_die("the server closed the connection");
    if (len > 0)
        lade_buf_add(&peer->in, bytes, (size_t)len, NULL);
}

static void
s_used(s_peer_t *peer, size_t len)
{
    memmove(peer->in.data, peer->in.data + len, peer->in.len - len);
    peer->in.len -= len;
}

// The end of the line that begins at `at`, behind its \r\n; 0 if it has not all come.
static size_t
s_line(const s_peer_t *peer, size_t at)
{
    const char *end =
        at < peer->in.len ? memchr(peer->in.data + at, '\n', peer->in.len - at) : NULL;
    return end ? (size_t)(end + 1 - peer->in.data) : 0;
}

// ---------------------------------------------------------------------------------------------------
// beanstalkd

static void
s_beanstalkd_open(s_load_t *self)
{
    for (size_t i = 0; i < S_PEERS; i++) {
        s_connect_unix(self, i);
        if (i >= S_CLIENTS)
            lade_buf_addf(&self->peers[i].out, NULL, "reserve\r\n");
    }
}

static void
s_beanstalkd_put(s_load_t *self, s_peer_t *client, const char *payload)
{
    (void)self;
    lade_buf_addf(&client->out, NULL, "put 0 0 60 %d\r\n%s\r\n", S_PAYLOAD, payload);
}

static void
s_beanstalkd_on_client(s_load_t *self, s_peer_t *client)
{
    s_read(client);
    size_t at = 0, end;
    while ((end = s_line(client, at))) {
        if (strncmp(client->in.data + at, "INSERTED ", 9) != 0)
            s_die("beanstalkd answered %.*s", (int)(end - at), client->in.data + at);
        s_on_acknowledged(self, client);
        at = end;
    }
    s_used(client, at);
}

static void
s_beanstalkd_on_worker(s_load_t *self, s_peer_t *worker)
{
    s_read(worker);
    size_t at = 0, end;
    while ((end = s_line(worker, at))) {
        const char *line = worker->in.data + at;
        unsigned long long id;
        if (strncmp(line, "DELETED", 7) == 0) {
            s_on_done(self, worker);
        } else if (sscanf(line, "RESERVED %llu", &id) == 1) {
            if (worker->in.len - end < S_PAYLOAD + 2)
                break;
            s_on_delivered(self, worker, worker->in.data + end, S_PAYLOAD);
            end += S_PAYLOAD + 2;
            lade_buf_addf(&worker->out, NULL, "delete %llu\r\nreserve\r\n", id);
        } else {
            s_die("beanstalkd answered %.*s", (int)(end - at), line);
        }
        at = end;
    }
    s_used(worker, at);
}

static void
s_close_unix(s_load_t *self)
{
    for (size_t i = 0; i < S_PEERS; i++) {
        close(self->peers[i].fd);
        lade_buf_free(&self->peers[i].in);
        lade_buf_free(&self->peers[i].out);
    }
}

// ---------------------------------------------------------------------------------------------------
// redis streams

// The end of the reply that begins at `at`; 0 if it has not all come.
static size_t
s_reply(const s_peer_t *peer, size_t at)
{
    size_t end = s_line(peer, at);
    if (!end)
        return 0;
    char kind = peer->in.data[at];
    long count = strtol(peer->in.data + at + 1, NULL, 10);
    if (kind == '-')
        s_die("redis answered %.*s", (int)(end - at), peer->in.data + at);
    if (kind == '$' && count >= 0) {
        end += (size_t)count + 2;
        return end <= peer->in.len ? end : 0;
    }
    for (long i = 0; kind == '*' && i < count && end; i++)
        end = s_reply(peer, end);
    return end;
}

static void
s_redis_take(const s_load_t *self, s_peer_t *worker)
{
    lade_buf_addf(&worker->out, NULL, "XREADGROUP GROUP g %zu COUNT %u BLOCK 0 STREAMS s >\r\n",
                  (size_t)(worker - self->peers), self->window);
}

static void
s_redis_open(s_load_t *self)
{
    for (size_t i = 0; i < S_PEERS; i++)
        s_connect_unix(self, i);
    s_peer_t *first = &self->peers[0];
    lade_buf_addf(&first->out, NULL, "DEL s\r\nXGROUP CREATE s g $ MKSTREAM\r\n");
    s_write(first);
    for (size_t at = 0, seen = 0; seen < 2;) {
        size_t end = s_reply(first, at);
        if (end) {
            at = end;
            seen++;
            if (seen == 2)
                s_used(first, at);
        } else {
            poll(&(struct pollfd){first->fd, POLLIN, 0}, 1, 1000);
            s_read(first);
        }
    }
    for (size_t i = S_CLIENTS; i < S_PEERS; i++)
        s_redis_take(self, &self->peers[i]);
}

static void
s_redis_put(s_load_t *self, s_peer_t *client, const char *payload)
{
    (void)self;
    lade_buf_addf(&client->out, NULL,
                  "*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nd\r\n$%d\r\n%s\r\n", S_PAYLOAD,
                  payload);
}

static void
s_redis_on_client(s_load_t *self, s_peer_t *client)
{
    s_read(client);
    size_t at = 0, end;
    while ((end = s_reply(client, at))) {
        s_on_acknowledged(self, client);
        at = end;
    }
    s_used(client, at);
}

// One whole answer of XREADGROUP: acknowledges and deletes all its entries with one command each,
// and asks for more.
static void
s_redis_jobs(s_load_t *self, s_peer_t *worker, size_t at, size_t end)
{
    lade_buf_t ids = LADE_BUF(1 << 20);
    unsigned count = 0;
    const char *bytes = worker->in.data;
    for (size_t line = at, next; line < end; line = next) {
        next = s_line(worker, line);
        if (bytes[line] != '$')
            continue;
        size_t len = (size_t)strtol(bytes + line + 1, NULL, 10);
        if (len == S_PAYLOAD)
            s_on_delivered(self, worker, bytes + next, len);
        else if (len > 10) { // an entry's id; the names of stream and field are one byte
            lade_buf_addf(&ids, NULL, "$%zu\r\n%.*s\r\n", len, (int)len, bytes + next);
            count++;
        }
        next += len + 2;
    }
    lade_buf_addf(&worker->out, NULL, "*%u\r\n$4\r\nXACK\r\n$1\r\ns\r\n$1\r\ng\r\n%s", count + 3,
                  lade_buf_text(&ids));
    lade_buf_addf(&worker->out, NULL, "*%u\r\n$4\r\nXDEL\r\n$1\r\ns\r\n%s", count + 2,
                  lade_buf_text(&ids));
    s_redis_take(self, worker);
    lade_buf_free(&ids);
}

static void
s_redis_on_worker(s_load_t *self, s_peer_t *worker)
{
    s_read(worker);
    size_t at = 0, end;
    while ((end = s_reply(worker, at))) {
        if (worker->in.data[at] == ':') { // of XACK, then of XDEL
            long count = strtol(worker->in.data + at + 1, NULL, 10);
            for (long i = 0; i < count && worker->replies % 2 == 0; i++)
                s_on_done(self, worker);
            worker->replies++;
        } else {
            s_redis_jobs(self, worker, at, end);
        }
        at = end;
    }
    s_used(worker, at);
}

// ---------------------------------------------------------------------------------------------------
// libzmq, for lade and the bare model

static void
s_connect_zmq(s_load_t *self, void **socket_p, int type, const char *name)
{
    char endpoint[512];
    int unlimited = 0, linger = 200;
    *socket_p = zmq_socket(self->context, type);
    zmq_setsockopt(*socket_p, ZMQ_SNDHWM, &unlimited, sizeof unlimited);
    zmq_setsockopt(*socket_p, ZMQ_RCVHWM, &unlimited, sizeof unlimited);
    zmq_setsockopt(*socket_p, ZMQ_LINGER, &linger, sizeof linger);
    if (type == ZMQ_SUB)
        zmq_setsockopt(*socket_p, ZMQ_SUBSCRIBE, "job_completed/", 14);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/%s", self->at, name);
    if (zmq_connect(*socket_p, endpoint) != 0)
        s_die("%s: %s", endpoint, zmq_strerror(zmq_errno()));
}

// An open loop also listens, to see when the end of a job is announced; a closed one leaves that to
// nobody.
static void
s_open_zmq(s_load_t *self)
{
    self->context = zmq_ctx_new();
    for (size_t i = 0; i < S_PEERS; i++)
        s_connect_zmq(self, &self->peers[i].socket, ZMQ_DEALER,
                      i < S_CLIENTS ? "clients" : "workers");
    if (self->rate > 0)
        s_connect_zmq(self, &self->events, ZMQ_SUB, "events");
}

static void
s_close_zmq(s_load_t *self)
{
    for (size_t i = 0; i < S_PEERS; i++)
        zmq_close(self->peers[i].socket);
    if (self->events)
        zmq_close(self->events);
    zmq_ctx_term(self->context);
}

// Receives one message; the last frame stays open in *body, which the caller closes. Returns the
// number of frames and the first byte of the last but one in *command; 0 if nothing is there.
static size_t
s_receive(void *socket, zmq_msg_t *body, int *command)
{
    size_t frames = 0;
    zmq_msg_init(body);
    while (zmq_msg_recv(body, socket, ZMQ_DONTWAIT) >= 0) {
        frames++;
        if (!zmq_msg_more(body))
            return frames;
        *command = zmq_msg_size(body) ? *(unsigned char *)zmq_msg_data(body) : 0;
    }
    zmq_msg_close(body);
    return 0;
}

// ---------------------------------------------------------------------------------------------------
// The bare model

static void
s_model_open(s_load_t *self)
{
    s_open_zmq(self);
    char credit = (char)self->window;
    for (size_t i = S_CLIENTS; i < S_PEERS; i++)
        zmq_send(self->peers[i].socket, &credit, 1, 0);
}

static void
s_model_put(s_load_t *self, s_peer_t *client, const char *payload)
{
    (void)self;
    char message[8 + S_PAYLOAD];
    memcpy(message, &client->puts, 8);
    memcpy(message + 8, payload, S_PAYLOAD);
    zmq_send(client->socket, message, sizeof message, 0);
}

static void
s_model_on_client(s_load_t *self, s_peer_t *client)
{
    char answer[8];
    while (zmq_recv(client->socket, answer, sizeof answer, ZMQ_DONTWAIT) == sizeof answer)
        s_on_acknowledged(self, client);
}

static void
s_model_on_worker(s_load_t *self, s_peer_t *worker)
{
    char job[8 + S_PAYLOAD];
    while (zmq_recv(worker->socket, job, sizeof job, ZMQ_DONTWAIT) == sizeof job) {
        uint64_t id;
        memcpy(&id, job, 8);
        self->by_job[id % S_RING] = s_on_delivered(self, worker, job + 8, S_PAYLOAD);
        worker->acked++; // it says nothing more
        zmq_send(worker->socket, job, 8, 0);
    }
}

static void
s_model_close(s_load_t *self)
{
    for (size_t i = S_CLIENTS; i < S_PEERS; i++)
        zmq_send(self->peers[i].socket, "", 1, 0);
    s_close_zmq(self);
}

// ---------------------------------------------------------------------------------------------------
// lade

// Goes over one msgpack value that the broker made; NULL past the end.
static const uint8_t *
s_skip(const uint8_t *at, const uint8_t *end)
{
    for (uint64_t left = 1; left; left--) {
        if (!at || at >= end)
            return NULL;
        static const uint8_t fixed[] = {[0xca - 0xc0] = 4, [0xcb - 0xc0] = 8, [0xcc - 0xc0] = 1,
                                        [0xcd - 0xc0] = 2, [0xce - 0xc0] = 4, [0xcf - 0xc0] = 8,
                                        [0xd0 - 0xc0] = 1, [0xd1 - 0xc0] = 2, [0xd2 - 0xc0] = 4,
                                        [0xd3 - 0xc0] = 8, [0xdf - 0xc0] = 0};
        uint8_t head = *at++;
        if (head < 0x80 || head >= 0xe0)
            continue;
        if (head < 0xa0) {
            left += (uint64_t)(head & 15) << (head < 0x90);
        } else if (head < 0xc0) {
            at += head & 31;
        } else if ((head >= 0xc4 && head <= 0xc6) || head >= 0xd9) {
            int width = head <= 0xc6   ? 1 << (head - 0xc4)
                        : head <= 0xdb ? 1 << (head - 0xd9)
                                       : 2 << (head & 1);
            uint64_t count = 0;
            for (int i = 0; i < width && at < end; i++)
                count = count << 8 | *at++;
            if (head >= 0xdc)
                left += count << (head >= 0xde);
            else
                at = count <= (uint64_t)(end - at) ? at + count : NULL;
        } else {
            at += fixed[head - 0xc0];
        }
    }
    return at && at <= end ? at : NULL;
}

// An integer member of a map, read without unpacking the rest; fallback if it is not there.
static int64_t
s_member(const void *bytes, size_t len, const char *key, int64_t fallback)
{
    const uint8_t *at = bytes, *end = at + len;
    if (!len || ((*at & 0xf0) != 0x80 && *at != 0xde))
        return fallback;
    size_t pairs = *at == 0xde ? (size_t)at[1] << 8 | at[2] : *at & 15;
    at += *at == 0xde ? 3 : 1;
    for (size_t i = 0; i < pairs && at && at < end; i++) {
        size_t key_len = *at & 31; // keys are short text
        bool found = key_len == strlen(key) && memcmp(at + 1, key, key_len) == 0;
        const uint8_t *value = at + 1 + key_len;
        at = s_skip(value, end);
        if (found && at) {
            if (*value < 0x80)
                return *value;
            int64_t number = 0;
            for (const uint8_t *digit = value + 1; digit < at; digit++)
                number = number << 8 | *digit;
            return *value == 0xc3 ? 1 : *value >= 0xcc && *value <= 0xd3 ? number : fallback;
        }
    }
    return fallback;
}

static void
s_send_worker(s_peer_t *worker, char command, const lade_buf_t *body)
{
    zmq_send(worker->socket, "", 0, ZMQ_SNDMORE);
    zmq_send(worker->socket, LADE_WORKER_PROTOCOL, strlen(LADE_WORKER_PROTOCOL), ZMQ_SNDMORE);
    zmq_send(worker->socket, &command, 1, ZMQ_SNDMORE);
    zmq_send(worker->socket, body->data, body->len, 0);
}

static void
s_lade_hello(s_load_t *self, s_peer_t *worker)
{
    char name[64];
    lade_buf_t body = LADE_BUF(1024);
    lade_pack_t pack;
    snprintf(name, sizeof name, "bench@%ld.%zu", (long)getpid(), (size_t)(worker - self->peers));
    lade_pack_open(&pack, &body);
    lade_pack_map(&pack, 8);
    lade_pack_str(&pack, "name"), lade_pack_str(&pack, name);
    lade_pack_str(&pack, "host"), lade_pack_str(&pack, "bench");
    lade_pack_str(&pack, "pid"), lade_pack_int(&pack, getpid());
    lade_pack_str(&pack, "kinds"), lade_pack_array(&pack, 1), lade_pack_str(&pack, "bench");
    lade_pack_str(&pack, "slots"), lade_pack_int(&pack, self->window);
    lade_pack_str(&pack, "labels"), lade_pack_map(&pack, 0);
    lade_pack_str(&pack, "version"), lade_pack_str(&pack, LADE_VERSION);
    lade_pack_str(&pack, "jobs"), lade_pack_array(&pack, 0);
    s_send_worker(worker, LADE_W_HELLO, &body);
    lade_buf_free(&body);
}

static void
s_lade_open(s_load_t *self)
{
    s_open_zmq(self);
    for (size_t i = S_CLIENTS; i < S_PEERS; i++)
        s_lade_hello(self, &self->peers[i]);
}

static void
s_lade_put(s_load_t *self, s_peer_t *client, const char *payload)
{
    (void)self;
    static const char before[] = "\x83\xa2id\xce....\xa2op\xa6submit\xa4"
                                 "args\x82\xa4kind\xa5"
                                 "bench\xa4spec\x81\xa1"
                                 "d\xd9\xc8";
    char body[sizeof before - 1 + S_PAYLOAD];
    memcpy(body, before, sizeof before - 1);
    for (int i = 0; i < 4; i++)
        body[5 + i] = (char)(client->puts >> (24 - 8 * i));
    memcpy(body + sizeof before - 1, payload, S_PAYLOAD);
    zmq_send(client->socket, "", 0, ZMQ_SNDMORE);
    zmq_send(client->socket, LADE_MDP_CLIENT, strlen(LADE_MDP_CLIENT), ZMQ_SNDMORE);
    zmq_send(client->socket, "\x01", 1, ZMQ_SNDMORE);
    zmq_send(client->socket, "jobs", 4, ZMQ_SNDMORE);
    zmq_send(client->socket, body, sizeof body, 0);
}

static void
s_lade_on_client(s_load_t *self, s_peer_t *client)
{
    zmq_msg_t body;
    int command;
    while (s_receive(client->socket, &body, &command)) {
        const char *bytes = zmq_msg_data(&body);
        size_t len = zmq_msg_size(&body);
        if (s_member(bytes, len, "ok", 0) != 1)
            s_die("lade answered %.*s", (int)len, bytes);
        if (s_member(bytes, len, "id", -1) != (int64_t)client->acks)
            s_die("lade answered another request than the oldest");
        s_on_acknowledged(self, client);
        zmq_msg_close(&body);
    }
}

static void
s_lade_done(s_peer_t *worker, int64_t id, int64_t attempt)
{
    lade_buf_t body = LADE_BUF(256);
    lade_pack_t pack;
    lade_pack_open(&pack, &body);
    lade_pack_map(&pack, 4);
    lade_pack_str(&pack, "n"), lade_pack_int(&pack, (int64_t)worker->dones);
    lade_pack_str(&pack, "id"), lade_pack_int(&pack, id);
    lade_pack_str(&pack, "attempt"), lade_pack_int(&pack, attempt);
    lade_pack_str(&pack, "result"), lade_pack_map(&pack, 0);
    s_send_worker(worker, LADE_W_DONE, &body);
    lade_buf_free(&body);
}

static void
s_lade_on_worker(s_load_t *self, s_peer_t *worker)
{
    zmq_msg_t body;
    int command = 0;
    while (s_receive(worker->socket, &body, &command)) {
        const char *bytes = zmq_msg_data(&body);
        size_t len = zmq_msg_size(&body);
        int64_t acked = s_member(bytes, len, "acked", 0);
        worker->acked = (uint64_t)acked > worker->acked ? (uint64_t)acked : worker->acked;
        if (command == LADE_W_JOB) {
            int64_t id = s_member(bytes, len, "id", -1);
            double due = s_on_delivered(self, worker, bytes, len);
            self->by_job[(uint64_t)id % S_RING] = due;
            s_lade_done(worker, id, s_member(bytes, len, "attempt", -1));
        }
        zmq_msg_close(&body);
    }
}

// A beat is answered with the number of the last report that is on disk.
static void
s_lade_beat(s_peer_t *worker, char command)
{
    lade_buf_t body = LADE_BUF(256);
    lade_pack_t pack;
    lade_pack_open(&pack, &body);
    lade_pack_map(&pack, 2);
    lade_pack_str(&pack, "jobs"), lade_pack_array(&pack, 0);
    lade_pack_str(&pack, "n"), lade_pack_int(&pack, (int64_t)worker->dones + 1);
    s_send_worker(worker, command, &body);
    lade_buf_free(&body);
}

static void
s_lade_close(s_load_t *self)
{
    for (size_t i = S_CLIENTS; i < S_PEERS; i++)
        s_lade_beat(&self->peers[i], LADE_W_BYE);
    s_close_zmq(self);
}

// Announcements: of lade the body is a map with the job's id, of the model it is the id.
static void
s_on_events(s_load_t *self)
{
    zmq_msg_t body;
    int command;
    while (s_receive(self->events, &body, &command)) {
        uint64_t id = (uint64_t)s_member(zmq_msg_data(&body), zmq_msg_size(&body), "id", 0);
        if (zmq_msg_size(&body) == 8)
            memcpy(&id, zmq_msg_data(&body), 8);
        s_sample(self, &self->done_ms, self->by_job[id % S_RING]);
        zmq_msg_close(&body);
    }
}

// ---------------------------------------------------------------------------------------------------
// The run

static const s_protocol_t s_protocols[] = {
    // clang-format off
    {"lade",       s_lade_open,       s_lade_put,       s_lade_on_client,       s_lade_on_worker,       s_lade_close},
    {"model",      s_model_open,      s_model_put,      s_model_on_client,      s_model_on_worker,      s_model_close},
    {"beanstalkd", s_beanstalkd_open, s_beanstalkd_put, s_beanstalkd_on_client, s_beanstalkd_on_worker, s_close_unix},
    {"redis",      s_redis_open,      s_redis_put,      s_redis_on_client,      s_redis_on_worker,      s_close_unix},
    // clang-format on
};

static void
s_put(s_load_t *self, s_peer_t *client, double due)
{
    char payload[S_PAYLOAD + 1];
    memset(payload, 'x', S_PAYLOAD);
    payload[S_PAYLOAD] = '\0';
    memcpy(payload, S_MARK, strlen(S_MARK));
    uint64_t stamp = (uint64_t)(due * 1e9);
    for (int i = 0; i < 16; i++)
        payload[strlen(S_MARK) + (size_t)i] = "0123456789abcdef"[stamp >> (60 - 4 * i) & 15];
    client->stamps[client->puts % S_RING] = due;
    self->protocol->put(self, client, payload);
    client->puts++;
    self->put++;
}

// Puts what may be put now: each client up to its window, all together so far ahead of the workers
// that both are busy.
static void
s_put_closed(s_load_t *self)
{
    uint64_t most = (uint64_t)self->window * S_PEERS;
    for (size_t i = 0; i < S_CLIENTS; i++)
        while (self->peers[i].puts - self->peers[i].acks < self->window &&
               self->put - self->done < most)
            s_put(self, &self->peers[i], s_now());
}

static void
s_put_open(s_load_t *self)
{
    double now = s_now();
    for (double due; (due = self->began + (double)self->put / self->rate) <= now;) {
        if (self->put - self->done > S_MAX_OPEN)
            s_die("%s does not keep up with %.0f jobs a second", self->protocol->name, self->rate);
        s_put(self, &self->peers[self->put % S_CLIENTS], due);
    }
    double next = self->began + (double)self->put / self->rate;
    struct itimerspec at = {
        .it_value = {(time_t)next, (long)((next - (double)(time_t)next) * 1e9)}};
    timerfd_settime(self->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void
s_wait(s_load_t *self, long timeout_ms)
{
    zmq_pollitem_t items[S_PEERS + 2];
    int count = S_PEERS;
    for (int i = 0; i < S_PEERS; i++) {
        s_peer_t *peer = &self->peers[i];
        if (!peer->socket && peer->out.len)
            s_write(peer);
        short wanted = !peer->socket && peer->out.len ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN;
        items[i] = (zmq_pollitem_t){peer->socket, peer->fd, wanted, 0};
    }
    items[count++] = (zmq_pollitem_t){NULL, self->timer, ZMQ_POLLIN, 0};
    if (self->events)
        items[count++] = (zmq_pollitem_t){self->events, 0, ZMQ_POLLIN, 0};
    zmq_poll(items, count, timeout_ms);
    for (int i = 0; i < S_PEERS; i++)
        if (items[i].revents & ZMQ_POLLIN)
            (i < S_CLIENTS ? self->protocol->on_client
                           : self->protocol->on_worker)(self, &self->peers[i]);
    if (self->events && items[count - 1].revents)
        s_on_events(self);
}

// After the time is over: everything put is done, and every done is known to be durable.
static void
s_drain(s_load_t *self)
{
    double deadline = s_now() + 5;
    timerfd_settime(self->timer, 0, &(struct itimerspec){0}, NULL);
    for (uint64_t beats = 0;; beats++) {
        uint64_t open = self->put - self->done;
        for (size_t i = 0; i < S_PEERS; i++)
            open += i < S_CLIENTS ? self->peers[i].puts - self->peers[i].acks
                                  : self->peers[i].dones - self->peers[i].acked;
        if (!open)
            return;
        if (s_now() > deadline)
            s_die("%s: %" PRIu64 " puts or reports were still open 5 s after the end",
                  self->protocol->name, open);
        if (self->put == self->done && self->protocol->open == s_lade_open && beats % 8 == 0)
            for (size_t i = S_CLIENTS; i < S_PEERS; i++)
                s_lade_beat(&self->peers[i], LADE_W_BEAT);
        s_wait(self, 10);
    }
}

static void
s_run(s_load_t *self)
{
    self->began = s_now();
    self->counted_from = self->began + self->seconds / 4; // the first quarter warms up
    self->ends = self->counted_from + self->seconds;
    double now, beat = self->began;
    while ((now = s_now()) < self->ends) {
        if (now < self->counted_from)
            self->done_before = self->done;
        if (self->protocol->open == s_lade_open && now - beat > 0.5) {
            beat = now;
            for (size_t i = S_CLIENTS; i < S_PEERS; i++)
                s_lade_beat(&self->peers[i], LADE_W_BEAT);
        }
        if (self->rate > 0)
            s_put_open(self);
        else
            s_put_closed(self);
        s_wait(self, 50);
    }
    self->ends = now;
}

// ---------------------------------------------------------------------------------------------------
// What came out

static int
s_compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void
s_print(const char *name, s_samples_t *samples)
{
    qsort(samples->ms, samples->count, sizeof *samples->ms, s_compare);
    size_t n = samples->count;
    if (n)
        printf(", \"%s\": {\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f, \"count\": %zu}", name,
               samples->ms[n / 2], samples->ms[n * 99 / 100], samples->ms[n - 1], n);
    else
        printf(", \"%s\": null", name);
}

static void
s_report(s_load_t *self, uint64_t counted)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"peer\": \"%s\", \"window\": %u, \"rate\": %.0f, \"cycles\": %" PRIu64
           ", \"cycles_per_s\": %.0f, "
           "\"jobs\": %" PRIu64 ", \"load_cpu_s\": %.3f",
           self->protocol->name, self->window, self->rate, counted,
           (double)counted / (self->ends - self->counted_from), self->put, cpu);
    s_print("put_ms", &self->put_ms);
    s_print("delivered_ms", &self->delivered_ms);
    s_print("done_ms", &self->done_ms);
    printf("}\n");
}

static void
s_parse(s_load_t *self, int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--peer") == 0)
            for (size_t j = 0; j < sizeof s_protocols / sizeof *s_protocols; j++)
                self->protocol = strcmp(s_protocols[j].name, argv[i + 1]) == 0 ? &s_protocols[j]
                                                                               : self->protocol;
        else if (strcmp(argv[i], "--at") == 0)
            self->at = argv[i + 1];
        else if (strcmp(argv[i], "--window") == 0)
            self->window = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--rate") == 0)
            self->rate = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--seconds") == 0)
            self->seconds = strtod(argv[i + 1], NULL);
    }
    if (!self->protocol || !self->at || self->window < 1 || self->window > 100 ||
        !(self->seconds > 0)) {
        fprintf(
            stderr,
            "usage: queue_load --peer lade|model|beanstalkd|redis --at ADDRESS [--window 1..100] "
            "[--rate N] [--seconds S]\n");
        exit(2);
    }
}

int
main(int argc, char **argv)
{
    s_load_t *self = calloc(1, sizeof *self);
    self->window = 1;
    self->seconds = 1;
    s_parse(self, argc, argv);
    self->peers = calloc(S_PEERS, sizeof *self->peers);
    self->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    s_samples_t *samples[] = {&self->put_ms, &self->delivered_ms, &self->done_ms};
    for (size_t i = 0; i < 3; i++)
        samples[i]->ms = malloc(S_MAX_SAMPLES * sizeof(float));
    self->protocol->open(self);
    s_run(self);
    uint64_t counted = self->done - self->done_before;
    s_drain(self);
    s_report(self, counted);
    self->protocol->close(self);
    return 0;
}
