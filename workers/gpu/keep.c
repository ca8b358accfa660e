// Packets to the keeper and from it.
#include "workers/gpu/keep.h"

#include "common/keep.h"
#include "common/log.h"
#include "common/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    S_AGAIN_MS = 1000,   // between two looks for a keeper
    S_PATIENCE_MS = 500, // for one that is there
};

struct lade_keep {
    char *name;
    struct sockaddr_un address; // no path: it has no name a socket could have
    int fd;                     // -1: no keeper
    int64_t again_ms;
    bool told; // that there is none
    bool left;
    char why[160];
    uint64_t taken;
};

// The keeper is not there, or not any more. Said once, until one is.
static void
s_lose(lade_keep_t *self, const char *what, int errnum)
{
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
    self->again_ms = lade_mono_ms() + S_AGAIN_MS;
    snprintf(self->why, sizeof self->why, "%s: %s", what, strerror(errnum));
    if (!self->told)
        lade_log(LADE_LOG_INFO, "keep", "%s; models are read again after a crash", self->why);
    self->told = true;
}

static bool
s_send(lade_keep_t *self, const void *bytes, size_t len, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fd)];
    } control = {0};
    struct iovec part = {(void *)bytes, len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (self->fd < 0)
        return false;
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    ssize_t sent;
    do
        sent = sendmsg(self->fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent != (ssize_t)len)
        s_lose(self, "the keeper does not answer", sent < 0 ? errno : EMSGSIZE);
    return self->fd >= 0;
}

static bool
s_say(lade_keep_t *self, const char *word, const char *rest)
{
    char packet[LADE_KEEP_MAX_NAME + 20];
    int len = snprintf(packet, sizeof packet, "%s%s", word, rest);
    return len > 0 && (size_t)len < sizeof packet && s_send(self, packet, (size_t)len, -1);
}

static bool
s_connect(lade_keep_t *self)
{
    struct timeval patience = {S_PATIENCE_MS / 1000, S_PATIENCE_MS % 1000 * 1000};
    if (!*self->address.sun_path)
        return false;
    self->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (self->fd >= 0) {
        setsockopt(self->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        setsockopt(self->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    }
    if (self->fd < 0 ||
        connect(self->fd, (struct sockaddr *)&self->address, sizeof self->address)) {
        s_lose(self, "no keeper", errno);
        return false;
    }
    if (!s_say(self, "hello ", self->name))
        return false;
    self->told = false;
    self->why[0] = '\0';
    return true;
}

lade_keep_t *
lade_keep_new(const char *data, const char *name)
{
    lade_keep_t *self = calloc(1, sizeof *self);
    if (!self || !(self->name = strdup(name)))
        abort();
    self->fd = -1;
    self->address.sun_family = AF_UNIX;
    int len = snprintf(self->address.sun_path, sizeof self->address.sun_path, "%s/%s", data,
                       LADE_KEEP_SOCKET);
    if (len < 0 || (size_t)len >= sizeof self->address.sun_path) {
        self->address.sun_path[0] = '\0';
        snprintf(self->why, sizeof self->why, "no keeper: the data folder's name is too long");
    }
    s_connect(self);
    return self;
}

void
lade_keep_destroy(lade_keep_t **self_p)
{
    lade_keep_t *self = *self_p;
    if (!self)
        return;
    s_say(self, "bye", "");
    if (self->fd >= 0)
        close(self->fd);
    free(self->name);
    free(self);
    *self_p = NULL;
}

// One answer to take: "ID\nFACTS" with its descriptor. False at the end, or if there is no more.
static bool
s_receive(lade_keep_t *self, char *packet, size_t size, int *fd_p)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {packet, size - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t len;
    *fd_p = -1;
    do
        len = recvmsg(self->fd, &message, MSG_CMSG_CLOEXEC);
    while (len < 0 && errno == EINTR);
    if (len <= 0) {
        s_lose(self, "the keeper does not answer", len ? errno : ECONNRESET);
        return false;
    }
    packet[len] = '\0';
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd_p, CMSG_DATA(head), sizeof(int));
    return *fd_p >= 0;
}

void
lade_keep_take(lade_keep_t *self, void (*on_record)(void *arg, const json_t *facts, int fd),
               void *arg)
{
    char *packet = malloc(LADE_KEEP_MAX_PACKET + 1);
    int fd;
    if (!packet)
        abort();
    if (s_say(self, "take", ""))
        while (s_receive(self, packet, LADE_KEEP_MAX_PACKET + 1, &fd)) {
            char *end = strchr(packet, '\n');
            json_t *facts = end ? json_loads(end + 1, 0, NULL) : NULL;
            if (facts) {
                self->taken++;
                on_record(arg, facts, fd);
            } else
                close(fd);
            json_decref(facts);
        }
    s_say(self, "bye", "");
    free(packet);
}

void
lade_keep_put(lade_keep_t *self, const char *id, const json_t *facts, int fd)
{
    if (self->fd < 0)
        return;
    char *text = json_dumps(facts, JSON_COMPACT), *packet = NULL;
    int len = text ? asprintf(&packet, "put %s\n%s", id, text) : -1;
    if (len > 0 && len <= LADE_KEEP_MAX_PACKET)
        s_send(self, packet, (size_t)len, fd);
    else
        lade_log(LADE_LOG_INFO, "keep", "%s is not kept: too much is to be known of it", id);
    free(len < 0 ? NULL : packet);
    free(text);
}

void
lade_keep_drop(lade_keep_t *self, const char *id)
{
    if (self->fd >= 0)
        s_say(self, "drop ", id);
}

void
lade_keep_leave(lade_keep_t *self)
{
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
    self->left = true;
}

bool
lade_keep_connected(const lade_keep_t *self)
{
    return self->fd >= 0;
}

bool
lade_keep_again(lade_keep_t *self, bool now)
{
    char byte;
    if (self->fd >= 0 && !recv(self->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK))
        s_lose(self, "the keeper is gone", ECONNRESET);
    if (self->left || self->fd >= 0 || (!now && lade_mono_ms() < self->again_ms))
        return false;
    return s_connect(self);
}

json_t *
lade_keep_stats(const lade_keep_t *self)
{
    return json_pack("{s:b, s:s?, s:I}", "connected", self->fd >= 0, "why",
                     *self->why ? self->why : NULL, "taken", (json_int_t)self->taken);
}
