// A mutex, a list and an eventfd.
#include "workers/worker/inbox.h"

#include "common/log.h"

#include <czmq.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { S_MAX_GATES = 1024 }; // closed gates waiting to be told

struct lade_inbox {
    pthread_mutex_t lock; // guards first, last, gates
    lade_report_t *first, *last;
    size_t gates;
    int fd;
    size_t max_bytes;
};

lade_report_t *
lade_report_new(int command, size_t max_bytes)
{
    lade_report_t *self = zmalloc(sizeof *self);
    self->command = command;
    self->body = LADE_BUF(max_bytes);
    return self;
}

void
lade_report_number(lade_report_t *self, int64_t n)
{
    lade_buf_t body = LADE_BUF(self->body.max + 64);
    lade_pack_t pack;
    lade_pack_open(&pack, &body);
    lade_pack_map(&pack, self->pairs + 1);
    lade_pack_str(&pack, "n");
    lade_pack_int(&pack, n);
    if (self->body.len)
        lade_pack_raw(&pack, self->body.data, self->body.len);
    lade_buf_free(&self->body);
    self->body = body;
    self->n = n;
}

void
lade_report_destroy(lade_report_t **self_p)
{
    lade_report_t *self = *self_p;
    if (!self)
        return;
    lade_buf_free(&self->body);
    free(self);
    *self_p = NULL;
}

lade_inbox_t *
lade_inbox_new(size_t max_bytes)
{
    lade_inbox_t *self = zmalloc(sizeof *self);
    pthread_mutex_init(&self->lock, NULL);
    self->max_bytes = max_bytes;
    self->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->fd < 0) {
        lade_log(LADE_LOG_ERROR, "worker", "no descriptor left for an eventfd: %s",
                 strerror(errno));
        abort();
    }
    return self;
}

int
lade_inbox_fd(const lade_inbox_t *self)
{
    return self->fd;
}

size_t
lade_inbox_max_bytes(const lade_inbox_t *self)
{
    return self->max_bytes;
}

void
lade_inbox_put(lade_inbox_t *self, lade_report_t **report_p)
{
    lade_report_t *report = *report_p;
    *report_p = NULL;
    pthread_mutex_lock(&self->lock);
    bool full = report->command == LADE_W_GATE && self->gates == S_MAX_GATES;
    if (!full) {
        self->gates += report->command == LADE_W_GATE;
        if (self->last)
            self->last->next = report;
        else
            self->first = report;
        self->last = report;
    }
    pthread_mutex_unlock(&self->lock);
    if (full) {
        lade_log(LADE_LOG_WARNING, "worker", "%d closed gates wait to be told; one is forgotten",
                 S_MAX_GATES);
        lade_report_destroy(&report);
    }
    lade_inbox_wake(self);
}

void
lade_inbox_wake(lade_inbox_t *self)
{
    uint64_t one = 1;
    ssize_t done = write(self->fd, &one, sizeof one);
    (void)done; // it fails only when the counter is full, and then the loop is awake anyway
}

lade_report_t *
lade_inbox_take(lade_inbox_t *self)
{
    uint64_t count;
    ssize_t done = read(self->fd, &count, sizeof count);
    (void)done; // nothing to read is fine
    pthread_mutex_lock(&self->lock);
    lade_report_t *first = self->first;
    self->first = self->last = NULL;
    self->gates = 0;
    pthread_mutex_unlock(&self->lock);
    return first;
}

void
lade_inbox_destroy(lade_inbox_t **self_p)
{
    lade_inbox_t *self = *self_p;
    if (!self)
        return;
    for (lade_report_t *at = self->first, *next; at; at = next) {
        next = at->next;
        lade_report_destroy(&at);
    }
    close(self->fd);
    pthread_mutex_destroy(&self->lock);
    free(self);
    *self_p = NULL;
}
