// Watching the data folder for the keeper's socket, in a thread that does nothing else.
#include "workers/gpu/keep_watch.h"

#include "common/keep.h"
#include "common/log.h"
#include "common/thread.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

struct lade_keep_watch {
    void (*on_come)(void *arg);
    void *arg;
    int events, quit; // inotify; eventfd
    pthread_t thread;
};

// Whether one of the events that have come is of the socket. Those that were lost may have been.
static bool
s_has_come(int events)
{
    union {
        struct inotify_event align;
        char bytes[4096];
    } buf;
    bool come = false;
    ssize_t len;
    while ((len = read(events, &buf, sizeof buf)) > 0)
        for (const char *at = buf.bytes; at < buf.bytes + len;) {
            const struct inotify_event *event = (const void *)at;
            come |= event->mask & IN_Q_OVERFLOW ||
                    (event->len && !strcmp(event->name, LADE_KEEP_SOCKET));
            at += sizeof *event + event->len;
        }
    return come;
}

static void *
s_watch(void *arg)
{
    lade_keep_watch_t *self = arg;
    struct pollfd fds[] = {{self->events, POLLIN, 0}, {self->quit, POLLIN, 0}};
    while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
        if (fds[1].revents)
            break;
        if (fds[0].revents && s_has_come(self->events))
            self->on_come(self->arg);
    }
    return NULL;
}

lade_keep_watch_t *
lade_keep_watch_new(const char *data, void (*on_come)(void *arg), void *arg)
{
    lade_keep_watch_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->on_come = on_come;
    self->arg = arg;
    self->events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    self->quit = eventfd(0, EFD_CLOEXEC);
    if (self->events >= 0 && self->quit >= 0 &&
        inotify_add_watch(self->events, data, IN_CREATE | IN_ATTRIB | IN_MOVED_TO) >= 0 &&
        lade_thread_start(&self->thread, s_watch, self))
        return self;
    lade_log(LADE_LOG_INFO, "keep",
             "%s cannot be watched (%s): a keeper is looked for at each beat", data,
             strerror(errno));
    if (self->events >= 0)
        close(self->events);
    if (self->quit >= 0)
        close(self->quit);
    free(self);
    return NULL;
}

void
lade_keep_watch_destroy(lade_keep_watch_t **self_p)
{
    lade_keep_watch_t *self = *self_p;
    if (!self)
        return;
    eventfd_write(self->quit, 1);
    pthread_join(self->thread, NULL);
    close(self->events);
    close(self->quit);
    free(self);
    *self_p = NULL;
}
