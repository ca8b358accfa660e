// Holding what is handed over, in a list, until it is dropped, taken or too old.
#include "workers/keeper/keeper.h"

#include "common/keep.h"
#include "common/log.h"
#include "common/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    S_SEND_MS = 2000, // for who takes, to take it
    S_DEAF_MS = 100,  // no descriptor was left for a connection
};

typedef struct s_record {
    struct s_record *next;
    uint64_t owner;
    int fd;
    size_t len; // of text
    size_t id_len;
    char text[]; // "ID\nFACTS"
} s_record_t;

typedef struct {
    uint64_t number;
    int fd;              // -1: gone
    int64_t deadline_ms; // when what it left goes
    char name[LADE_KEEP_MAX_NAME + 1];
} s_owner_t;

struct lade_keeper {
    struct sockaddr_un address;
    int listener;
    int64_t keep_ms, deaf_until_ms;
    s_owner_t owners[LADE_KEEPER_MAX_OWNERS];
    size_t owner_count;
    uint64_t next_owner;
    s_record_t *records; // newest first
    size_t count;
    char packet[LADE_KEEP_MAX_PACKET + 1];
};

// ---------------------------------------------------------------------------------------------------
// Records

static void
s_unlink(lade_keeper_t *self, s_record_t **at)
{
    s_record_t *record = *at;
    *at = record->next;
    close(record->fd);
    free(record);
    self->count--;
}

static void
s_drop_all(lade_keeper_t *self, uint64_t owner)
{
    for (s_record_t **at = &self->records; *at;)
        if ((*at)->owner == owner)
            s_unlink(self, at);
        else
            at = &(*at)->next;
}

static void
s_drop(lade_keeper_t *self, uint64_t owner, const char *id, size_t len)
{
    for (s_record_t **at = &self->records; *at; at = &(*at)->next)
        if ((*at)->owner == owner && (*at)->id_len == len && !memcmp((*at)->text, id, len)) {
            s_unlink(self, at);
            return;
        }
}

// Takes the descriptor over. False if what was sent is no record.
static bool
s_put(lade_keeper_t *self, uint64_t owner, const char *text, size_t len, int fd)
{
    const char *end = memchr(text, '\n', len);
    size_t id_len = end ? (size_t)(end - text) : 0;
    if (!id_len || id_len > LADE_KEEP_MAX_ID || self->count >= LADE_KEEPER_MAX_RECORDS)
        return false;
    s_record_t *record = malloc(sizeof *record + len);
    if (!record)
        return false;
    s_drop(self, owner, text, id_len);
    *record =
        (s_record_t){.next = self->records, .owner = owner, .fd = fd, .len = len, .id_len = id_len};
    memcpy(record->text, text, len);
    self->records = record;
    self->count++;
    return true;
}

// ---------------------------------------------------------------------------------------------------
// Owners

// The connection is gone; what it put stays for a while.
static void
s_leave(lade_keeper_t *self, s_owner_t *owner)
{
    close(owner->fd);
    owner->fd = -1;
    owner->deadline_ms = lade_mono_ms() + self->keep_ms;
    size_t left = 0;
    for (const s_record_t *record = self->records; record; record = record->next)
        left += record->owner == owner->number;
    if (left)
        lade_log(LADE_LOG_INFO, "keeper", "%s is gone; %zu descriptors of it are kept for %lld s",
                 owner->name, left, (long long)(self->keep_ms / 1000));
    else
        owner->deadline_ms = 0;
}

// Owners that are gone and whose time is up, or that left nothing, are forgotten.
static void
s_forget(lade_keeper_t *self)
{
    int64_t now = lade_mono_ms();
    for (size_t i = self->owner_count; i-- > 0;) {
        s_owner_t *owner = &self->owners[i];
        if (owner->fd >= 0 || owner->deadline_ms > now)
            continue;
        s_drop_all(self, owner->number);
        if (owner->deadline_ms)
            lade_log(LADE_LOG_INFO, "keeper", "nobody took what %s left; it is let go",
                     owner->name);
        *owner = self->owners[--self->owner_count];
    }
}

// One process has one connection at a time: what an earlier one put is put anew.
static void
s_hello(lade_keeper_t *self, s_owner_t *owner, const char *name)
{
    for (size_t i = 0; i < self->owner_count; i++) {
        s_owner_t *other = &self->owners[i];
        if (other == owner || strcmp(other->name, name) != 0)
            continue;
        s_drop_all(self, other->number);
        if (other->fd >= 0)
            close(other->fd);
        other->fd = -1;
        other->deadline_ms = 0;
    }
    snprintf(owner->name, sizeof owner->name, "%s", name);
}

// Sends one record with its descriptor, or, with fd -1, the end.
static bool
s_send(int connection, const char *text, size_t len, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fd)];
    } control = {0};
    struct iovec part = {(void *)text, len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    return sendmsg(connection, &message, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool
s_is_gone(const lade_keeper_t *self, uint64_t number)
{
    for (size_t i = 0; i < self->owner_count; i++)
        if (self->owners[i].number == number)
            return self->owners[i].fd < 0;
    return false;
}

static bool
s_take(lade_keeper_t *self, s_owner_t *owner)
{
    for (s_record_t *record = self->records; record; record = record->next) {
        if (!s_is_gone(self, record->owner))
            continue;
        if (!s_send(owner->fd, record->text, record->len, record->fd))
            return false;
        record->owner = owner->number;
    }
    return s_send(owner->fd, "end", 3, -1);
}

// ---------------------------------------------------------------------------------------------------
// Packets

// One packet and the descriptor beside it. Returns its length, 0 at the end, -1 if there is none.
static ssize_t
s_receive(lade_keeper_t *self, int connection, int *fd_p)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {self->packet, sizeof self->packet - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    *fd_p = -1;
    ssize_t len = recvmsg(connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0)
        return errno == EAGAIN || errno == EINTR ? -1 : 0;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd_p, CMSG_DATA(head), sizeof(int));
    self->packet[len] = '\0';
    if (message.msg_flags & MSG_TRUNC)
        self->packet[0] = '\0'; // no packet of ours
    return len;
}

// What the packet says, with what follows the word; NULL if it says something else.
static const char *
s_after(const char *packet, const char *word)
{
    size_t len = strlen(word);
    return strncmp(packet, word, len) ? NULL : packet + len;
}

// False if the connection is to be closed: what it sent is none of the packets there are.
static bool
s_obey(lade_keeper_t *self, s_owner_t *owner, size_t len, int fd)
{
    const char *rest;
    bool good = false, taken = false;
    if ((rest = s_after(self->packet, "put ")))
        good = taken =
            fd >= 0 && s_put(self, owner->number, rest, len - (size_t)(rest - self->packet), fd);
    else if ((rest = s_after(self->packet, "drop "))) {
        s_drop(self, owner->number, rest, strlen(rest));
        good = true;
    } else if ((rest = s_after(self->packet, "hello ")) && strlen(rest) <= LADE_KEEP_MAX_NAME) {
        s_hello(self, owner, rest);
        good = true;
    } else if (!strcmp(self->packet, "take"))
        good = s_take(self, owner);
    else if (!strcmp(self->packet, "bye")) {
        s_drop_all(self, owner->number);
        good = true;
    }
    if (fd >= 0 && !taken)
        close(fd);
    return good;
}

// Everything that has come from an owner.
static void
s_serve(lade_keeper_t *self, s_owner_t *owner)
{
    int fd;
    for (;;) {
        ssize_t len = s_receive(self, owner->fd, &fd);
        if (len < 0)
            return;
        if (len > 0 && s_obey(self, owner, (size_t)len, fd))
            continue;
        if (!len && fd >= 0)
            close(fd);
        if (len)
            lade_log(LADE_LOG_WARNING, "keeper", "%s sent what is no packet of ours: hung up",
                     owner->name);
        s_leave(self, owner);
        return;
    }
}

static void
s_accept(lade_keeper_t *self)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    struct timeval patience = {S_SEND_MS / 1000, S_SEND_MS % 1000 * 1000};
    int fd = accept4(self->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            self->deaf_until_ms = lade_mono_ms() + S_DEAF_MS;
        return;
    }
    if (self->owner_count == LADE_KEEPER_MAX_OWNERS ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.uid != geteuid()) {
        close(fd);
        return;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    self->owners[self->owner_count++] =
        (s_owner_t){.number = ++self->next_owner, .fd = fd, .name = "a process"};
}

static int
s_timeout(const lade_keeper_t *self, int most_ms)
{
    int64_t next = self->deaf_until_ms ? self->deaf_until_ms : INT64_MAX, now = lade_mono_ms();
    for (size_t i = 0; i < self->owner_count; i++)
        if (self->owners[i].fd < 0 && self->owners[i].deadline_ms < next)
            next = self->owners[i].deadline_ms;
    if (next == INT64_MAX)
        return most_ms;
    int64_t left = next > now ? next - now : 0;
    return most_ms >= 0 && most_ms < left ? most_ms : (int)(left < 60000 ? left : 60000);
}

lade_code_t
lade_keeper_turn(lade_keeper_t *self, int stop, int timeout_ms, lade_error_t *error)
{
    struct pollfd fds[LADE_KEEPER_MAX_OWNERS + 2];
    size_t polled = self->owner_count;
    if (self->deaf_until_ms <= lade_mono_ms())
        self->deaf_until_ms = 0;
    for (size_t i = 0; i < polled; i++)
        fds[i] = (struct pollfd){.fd = self->owners[i].fd, .events = POLLIN};
    fds[polled] =
        (struct pollfd){.fd = self->deaf_until_ms ? -1 : self->listener, .events = POLLIN};
    fds[polled + 1] = (struct pollfd){.fd = stop, .events = POLLIN};
    if (poll(fds, polled + 2, s_timeout(self, timeout_ms)) < 0)
        return errno == EINTR || errno == EAGAIN ? LADE_OK
                                                 : lade_error_errno(error, errno, "cannot wait");
    if (fds[polled + 1].revents)
        return LADE_CANCELLED;
    // First those that are here: one that ended is gone before its successor asks for what it left.
    for (size_t i = 0; i < polled; i++)
        if (fds[i].revents && self->owners[i].fd >= 0)
            s_serve(self, &self->owners[i]);
    if (fds[polled].revents)
        s_accept(self);
    s_forget(self);
    return LADE_OK;
}

lade_code_t
lade_keeper_run(lade_keeper_t *self, int stop, lade_error_t *error)
{
    lade_code_t code;
    do
        code = lade_keeper_turn(self, stop, -1, error);
    while (!code);
    return code == LADE_CANCELLED ? LADE_OK : code;
}

size_t
lade_keeper_count(const lade_keeper_t *self)
{
    return self->count;
}

// ---------------------------------------------------------------------------------------------------

static bool
s_is_served(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool served = fd >= 0 && (!connect(fd, (const struct sockaddr *)address, sizeof *address) ||
                              errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return served;
}

static lade_code_t
s_listen(lade_keeper_t *self, const char *data, lade_error_t *error)
{
    self->address.sun_family = AF_UNIX;
    int len = snprintf(self->address.sun_path, sizeof self->address.sun_path, "%s/%s", data,
                       LADE_KEEP_SOCKET);
    if (len < 0 || (size_t)len >= sizeof self->address.sun_path) {
        self->address.sun_path[0] = '\0';
        return lade_error_set(
            error, LADE_CONFIG_ERROR,
            "data: %s is too long for a socket in it: a socket's path has at most %zu bytes", data,
            sizeof self->address.sun_path - 1);
    }
    if (s_is_served(&self->address)) {
        lade_code_t code = lade_error_set(error, LADE_BUSY, "a keeper listens on %s already",
                                          self->address.sun_path);
        self->address.sun_path[0] = '\0'; // not ours to remove
        return code;
    }
    unlink(self->address.sun_path);
    self->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self->listener < 0)
        return lade_error_errno(error, errno, "cannot make a socket");
    // The change of its mode, last, is what workers watch for: it listens then.
    if (bind(self->listener, (struct sockaddr *)&self->address, sizeof self->address) ||
        listen(self->listener, 16) || chmod(self->address.sun_path, 0600))
        return lade_error_errno(error, errno, "cannot listen on %s", self->address.sun_path);
    return LADE_OK;
}

lade_code_t
lade_keeper_new(const char *data, int64_t keep_ms, lade_keeper_t **self_p, lade_error_t *error)
{
    lade_keeper_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->listener = -1;
    self->keep_ms = keep_ms;
    lade_code_t code = s_listen(self, data, error);
    if (code)
        lade_keeper_destroy(&self);
    *self_p = self;
    return code;
}

void
lade_keeper_destroy(lade_keeper_t **self_p)
{
    lade_keeper_t *self = *self_p;
    if (!self)
        return;
    while (self->records)
        s_unlink(self, &self->records);
    for (size_t i = 0; i < self->owner_count; i++)
        if (self->owners[i].fd >= 0)
            close(self->owners[i].fd);
    if (self->listener >= 0)
        close(self->listener);
    if (*self->address.sun_path)
        unlink(self->address.sun_path);
    free(self);
    *self_p = NULL;
}
