// The attach server: one thread, one poll, one connection a lease.
#include "workers/gpu/attach.h"

#include "common/log.h"
#include "common/segment.h"
#include "common/thread.h"
#include "common/wire.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { S_DEAF_MS = 100 };

typedef struct {
    int fd;
    bool attached;
    uint64_t id;         // what detach is told
    int64_t deadline_ms; // until when the lease has to be handed in
} s_peer_t;

struct lade_attach {
    const lade_attach_ops_t *ops;
    void *arg;
    struct sockaddr_un address;
    int listener, quit; // quit: eventfd
    s_peer_t peers[LADE_ATTACH_MAX];
    size_t count;
    int64_t deaf_until_ms; // no descriptor was left for a connection: the listener is not looked at
                           // till then
    pthread_t thread;
    bool started;
};

static void
s_drop(lade_attach_t *self, size_t index)
{
    s_peer_t *peer = &self->peers[index];
    if (peer->attached && self->ops->parted)
        self->ops->parted(self->arg, peer->fd);
    if (peer->attached)
        self->ops->detach(self->arg, peer->id);
    close(peer->fd);
    *peer = self->peers[--self->count];
}

static void
s_refuse(int fd, const lade_error_t *error)
{
    char answer[LADE_SEGMENT_MAX_ANSWER];
    int len =
        snprintf(answer, sizeof answer, "!%s %s", lade_code_name(error->code), error->message);
    (void)send(fd, answer, (size_t)len < sizeof answer ? (size_t)len : sizeof answer - 1,
               MSG_DONTWAIT | MSG_NOSIGNAL);
}

// One packet: the length (and how the data is shared, if that is on a device), and the descriptors
// beside it.
static bool
s_send_segment(int connection, int fd, uint64_t length, const lade_share_t *share)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof fd)];
    } control = {0};
    int fds[] = {fd, share->fd};
    size_t count = share->kind && share->fd >= 0 ? 2 : 1;
    struct iovec parts[] = {{&length, sizeof length}, {(void *)share, sizeof *share}};
    size_t wanted = sizeof length + (share->kind ? sizeof *share : 0);
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = share->kind ? 2 : 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(count * sizeof fd)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(count * sizeof fd);
    memcpy(CMSG_DATA(head), fds, count * sizeof fd);
    return sendmsg(connection, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)wanted;
}

// Reads the lease and answers it. False if the connection is to be closed. There is no room for
// descriptors a peer might send along, so the kernel closes them.
static bool
s_answer(lade_attach_t *self, s_peer_t *peer)
{
    char lease[LADE_SEGMENT_MAX_LEASE + 1];
    ssize_t len = recv(peer->fd, lease, sizeof lease, MSG_DONTWAIT);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (len <= 0)
        return false;
    int fd = -1;
    uint64_t length = 0;
    lade_share_t share = {.kind = LADE_SHARE_NONE, .fd = -1};
    lade_error_t error = {0};
    if (len > LADE_SEGMENT_MAX_LEASE || memchr(lease, '\0', (size_t)len))
        lade_error_set(&error, LADE_BAD_REQUEST, "what was sent is no lease");
    else {
        lease[len] = '\0';
        peer->attached =
            !self->ops->attach(self->arg, lease, &fd, &length, &share, &peer->id, &error);
    }
    if (!peer->attached) {
        s_refuse(peer->fd, &error);
        return false;
    }
    // First: whoever dies now, who has the segment is known to hold it.
    if (self->ops->attached)
        self->ops->attached(self->arg, peer->id, peer->fd);
    return s_send_segment(peer->fd, fd, length, &share);
}

static bool
s_is_us(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.uid == geteuid();
}

static void
s_accept(lade_attach_t *self)
{
    lade_error_t error;
    int fd = accept4(self->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        // Out of descriptors the listener stays readable: looking at it at once would spin.
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            self->deaf_until_ms = lade_mono_ms() + S_DEAF_MS;
        return;
    }
    if (!s_is_us(fd)) {
        lade_error_set(&error, LADE_AUTH_DENIED,
                       "only the user the load worker runs as may attach");
        s_refuse(fd, &error);
        close(fd);
        return;
    }
    if (self->count == LADE_ATTACH_MAX) {
        lade_error_set(&error, LADE_BUSY, "%d processes are attached already",
                       (int)LADE_ATTACH_MAX);
        s_refuse(fd, &error);
        close(fd);
        return;
    }
    self->peers[self->count++] =
        (s_peer_t){.fd = fd, .deadline_ms = lade_mono_ms() + LADE_ATTACH_PATIENCE_MS};
}

// Drops who hung up or handed in nothing in time, answers who did.
static void
s_serve(lade_attach_t *self, const struct pollfd *fds, size_t polled)
{
    int64_t now = lade_mono_ms();
    for (size_t i = polled; i-- > 0;) { // from the end: s_drop fills the gap with the last
        s_peer_t *peer = &self->peers[i];
        bool stay = peer->attached || peer->deadline_ms > now;
        if (stay && (fds[i].revents & POLLIN) && !peer->attached)
            stay = s_answer(self, peer);
        else if (fds[i].revents & (POLLHUP | POLLERR))
            stay = false;
        if (!stay)
            s_drop(self, i);
    }
}

// Until the next connection without a lease has to go, or the listener is looked at again; -1 if
// neither.
static int
s_timeout(const lade_attach_t *self)
{
    int64_t next = self->deaf_until_ms ? self->deaf_until_ms : INT64_MAX;
    for (size_t i = 0; i < self->count; i++)
        if (!self->peers[i].attached && self->peers[i].deadline_ms < next)
            next = self->peers[i].deadline_ms;
    int64_t left = next - lade_mono_ms();
    return next == INT64_MAX ? -1 : left > 0 ? (int)left : 0;
}

static void *
s_thread(void *arg)
{
    lade_attach_t *self = arg;
    struct pollfd fds[LADE_ATTACH_MAX + 2];
    for (;;) {
        size_t polled = self->count;
        if (self->deaf_until_ms <= lade_mono_ms())
            self->deaf_until_ms = 0;
        // Nothing is read from a connection that is attached (what it sends cannot make work);
        // POLLHUP comes unasked.
        for (size_t i = 0; i < polled; i++)
            fds[i] = (struct pollfd){.fd = self->peers[i].fd,
                                     .events = self->peers[i].attached ? 0 : POLLIN};
        fds[polled] =
            (struct pollfd){.fd = self->deaf_until_ms ? -1 : self->listener, .events = POLLIN};
        fds[polled + 1] = (struct pollfd){.fd = self->quit, .events = POLLIN};
        if (poll(fds, polled + 2, s_timeout(self)) < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            lade_log(LADE_LOG_ERROR, "attach", "no longer served: %s", strerror(errno));
            return NULL;
        }
        if (fds[polled + 1].revents)
            return NULL;
        s_serve(self, fds, polled);
        if (fds[polled].revents)
            s_accept(self);
    }
}

// ---------------------------------------------------------------------------------------------------
// The socket

static const char s_prefix[] = "load-", s_suffix[] = ".sock";

// The process a socket's name says it belongs to, 0 if the name is another's.
static pid_t
s_owner(const char *name)
{
    char *end;
    if (strncmp(name, s_prefix, strlen(s_prefix)))
        return 0;
    long pid = strtol(name + strlen(s_prefix), &end, 10);
    return pid > 0 && pid <= INT32_MAX && !strcmp(end, s_suffix) ? (pid_t)pid : 0;
}

// True if nobody listens there. Asked besides the process id, which may be of another namespace.
static bool
s_is_dead(const char *folder, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int len = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", folder, name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool dead = fd >= 0 && len > 0 && (size_t)len < sizeof address.sun_path &&
                connect(fd, (struct sockaddr *)&address, sizeof address) && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return dead;
}

// Removes the sockets of workers that were killed.
static void
s_tidy(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        pid_t pid = s_owner(entry->d_name);
        bool gone = pid && (pid == getpid() || (kill(pid, 0) && errno == ESRCH));
        if (gone && s_is_dead(folder, entry->d_name))
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir)
        closedir(dir);
}

static lade_code_t
s_listen(lade_attach_t *self, const char *folder, lade_error_t *error)
{
    self->address.sun_family = AF_UNIX;
    int len = snprintf(self->address.sun_path, sizeof self->address.sun_path, "%s/%s%d%s", folder,
                       s_prefix, (int)getpid(), s_suffix);
    if (len < 0 || (size_t)len >= sizeof self->address.sun_path)
        return lade_error_set(
            error, LADE_CONFIG_ERROR,
            "data: %s is too long for a socket in it: a socket's path has at most %zu bytes",
            folder, sizeof self->address.sun_path - 1);
    s_tidy(folder);
    self->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self->listener < 0)
        return lade_error_errno(error, errno, "cannot make a socket");
    // The mode is set between bind and listen: until then nobody can connect.
    if (bind(self->listener, (struct sockaddr *)&self->address, sizeof self->address) ||
        chmod(self->address.sun_path, 0600) || listen(self->listener, 128))
        return lade_error_errno(error, errno, "cannot listen on %s", self->address.sun_path);
    return LADE_OK;
}

// Whose segment an earlier worker sent: nothing is to be done but to see when they go.
static void
s_inherit(lade_attach_t *self)
{
    lade_attach_peer_t *peers = calloc(LADE_ATTACH_MAX, sizeof *peers);
    if (!peers)
        abort();
    size_t count = self->ops->inherited(self->arg, peers, LADE_ATTACH_MAX);
    for (size_t i = 0; i < count; i++)
        self->peers[self->count++] =
            (s_peer_t){.fd = peers[i].connection, .attached = true, .id = peers[i].id};
    free(peers);
}

lade_code_t
lade_attach_new(const char *folder, const lade_attach_ops_t *ops, void *arg, lade_attach_t **self_p,
                lade_error_t *error)
{
    lade_attach_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->ops = ops;
    self->arg = arg;
    self->listener = -1;
    self->quit = eventfd(0, EFD_CLOEXEC);
    if (ops->inherited)
        s_inherit(self);
    lade_code_t code = self->quit < 0 ? lade_error_errno(error, errno, "cannot make an eventfd")
                                      : s_listen(self, folder, error);
    if (!code && !lade_thread_start(&self->thread, s_thread, self))
        code = lade_error_set(error, LADE_NO_MEMORY, "cannot start the attach server's thread");
    self->started = !code;
    if (code)
        lade_attach_destroy(&self);
    else
        lade_log(LADE_LOG_DEBUG, "attach", "listening on %s", self->address.sun_path);
    *self_p = self;
    return code;
}

const char *
lade_attach_path(const lade_attach_t *self)
{
    return self->address.sun_path;
}

void
lade_attach_destroy(lade_attach_t **self_p)
{
    lade_attach_t *self = *self_p;
    if (!self)
        return;
    uint64_t one = 1;
    if (self->started && write(self->quit, &one, sizeof one) == sizeof one)
        pthread_join(self->thread, NULL);
    while (self->count)
        s_drop(self, 0);
    if (self->listener >= 0) {
        close(self->listener);
        unlink(self->address.sun_path);
    }
    if (self->quit >= 0)
        close(self->quit);
    free(self);
    *self_p = NULL;
}
