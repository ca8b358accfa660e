// The table of leases and the thread that watches their processes (pidfd) and times.
#include "workers/gpu/leases.h"

#include "common/thread.h"
#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { S_LOOK_MS = 250 }; // between two looks at a process without a pidfd

typedef struct {
    uint64_t id;
    void *holds;
    pid_t pid;     // 0: bound to no process
    int pidfd;     // -1: none, or the system has no pidfds: then /proc is looked at now and then
    uint64_t born; // of the process, then: its number may be given to another
    int64_t deadline_ms; // of lade_mono_ms, 0: none
    size_t attached;     // connections
    bool over;           // ended, but still attached
} s_lease_t;

struct lade_leases {
    pthread_mutex_t *lock; // the owner's, of all below
    void (*ended)(void *arg, void *holds);
    void *arg;
    s_lease_t *leases; // in the order of their ids
    size_t count, cap;
    uint64_t next_id;
    bool quit;
    int wake; // eventfd: the thread is to look again
    pthread_t thread;
};

static void
s_wake(lade_leases_t *self)
{
    uint64_t one = 1;
    ssize_t wrote = write(self->wake, &one, sizeof one);
    (void)wrote; // can only fail when it is full, and then the thread is woken anyway
}

static s_lease_t *
s_find(const lade_leases_t *self, uint64_t id)
{
    size_t from = 0, to = self->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (self->leases[middle].id < id)
            from = middle + 1;
        else
            to = middle;
    }
    return from < self->count && self->leases[from].id == id ? &self->leases[from] : NULL;
}

static void
s_remove(lade_leases_t *self, s_lease_t *lease)
{
    void *holds = lease->holds;
    size_t at = (size_t)(lease - self->leases);
    if (lease->pidfd >= 0)
        close(lease->pidfd);
    memmove(lease, lease + 1, (self->count - at - 1) * sizeof *lease);
    self->count--;
    self->ended(self->arg, holds);
}

// ---------------------------------------------------------------------------------------------------
// Processes

// When a process was born, in ticks since the machine was started; 0 if it has ended (a zombie
// has).
static uint64_t
s_born(pid_t pid)
{
    char path[40], text[1000] = "";
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *in = fopen(path, "re");
    if (!in)
        return 0;
    text[fread(text, 1, sizeof text - 1, in)] = '\0';
    fclose(in);
    // PID (NAME) STATE and, as the twentieth word from there, the time. The name may hold brackets
    // itself.
    char *at = strrchr(text, ')'), state = 'X';
    if (at && at[1] == ' ')
        state = at[2];
    for (int word = 0; at && word < 20; word++)
        at = strchr(at + 1, ' ');
    return at && state != 'Z' && state != 'X' ? strtoull(at, NULL, 10) : 0;
}

// A pidfd is readable once its process has ended.
static bool
s_has_ended(const s_lease_t *lease)
{
    struct pollfd process = {.fd = lease->pidfd, .events = POLLIN};
    if (!lease->pid)
        return false;
    return lease->pidfd >= 0 ? poll(&process, 1, 0) > 0 : s_born(lease->pid) != lease->born;
}

// ---------------------------------------------------------------------------------------------------
// The thread

// Ends the leases whose process died or whose time is up.
static void
s_sweep(lade_leases_t *self)
{
    int64_t now = lade_mono_ms();
    for (size_t i = self->count; i-- > 0;) {
        s_lease_t *lease = &self->leases[i];
        if (!lease->attached &&
            ((lease->deadline_ms && lease->deadline_ms <= now) || s_has_ended(lease)))
            s_remove(self, lease);
    }
}

// What the thread waits for: fds[0] is the eventfd. The pidfds are copies of numbers only: one that
// is closed meanwhile makes poll return early at worst, and s_sweep looks at what is there then.
static size_t
s_waits(const lade_leases_t *self, struct pollfd *fds, int *timeout_ms)
{
    int64_t now = lade_mono_ms(), next = INT64_MAX;
    size_t count = 0;
    fds[count++] = (struct pollfd){.fd = self->wake, .events = POLLIN};
    for (size_t i = 0; i < self->count; i++) {
        const s_lease_t *lease = &self->leases[i];
        if (lease->attached)
            continue;
        if (lease->pidfd >= 0)
            fds[count++] = (struct pollfd){.fd = lease->pidfd, .events = POLLIN};
        else if (lease->pid && now + S_LOOK_MS < next)
            next = now + S_LOOK_MS;
        if (lease->deadline_ms && lease->deadline_ms < next)
            next = lease->deadline_ms;
    }
    int64_t left = next - now;
    *timeout_ms = next == INT64_MAX ? -1 : left < 0 ? 0 : left < 60000 ? (int)left : 60000;
    return count;
}

static void *
s_thread(void *arg)
{
    lade_leases_t *self = arg;
    struct pollfd *fds = NULL;
    pthread_mutex_lock(self->lock);
    while (!self->quit) {
        s_sweep(self);
        int timeout_ms = -1;
        struct pollfd *more = realloc(fds, (self->count + 1) * sizeof *fds);
        if (!more)
            abort();
        fds = more;
        size_t count = s_waits(self, fds, &timeout_ms);
        pthread_mutex_unlock(self->lock);
        poll(fds, count, timeout_ms);
        uint64_t wakes;
        if (fds[0].revents && read(self->wake, &wakes, sizeof wakes) < 0 && errno != EAGAIN)
            abort();
        pthread_mutex_lock(self->lock);
    }
    pthread_mutex_unlock(self->lock);
    free(fds);
    return NULL;
}

// ---------------------------------------------------------------------------------------------------

lade_leases_t *
lade_leases_new(pthread_mutex_t *lock, void (*ended)(void *arg, void *holds), void *arg)
{
    lade_leases_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->lock = lock;
    self->ended = ended;
    self->arg = arg;
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake < 0 || !lade_thread_start(&self->thread, s_thread, self))
        abort();
    return self;
}

void
lade_leases_destroy(lade_leases_t **self_p)
{
    lade_leases_t *self = *self_p;
    if (!self)
        return;
    pthread_mutex_lock(self->lock);
    self->quit = true;
    s_wake(self);
    pthread_mutex_unlock(self->lock);
    pthread_join(self->thread, NULL);
    for (size_t i = 0; i < self->count; i++)
        if (self->leases[i].pidfd >= 0)
            close(self->leases[i].pidfd);
    close(self->wake);
    free(self->leases);
    free(self);
    *self_p = NULL;
}

static lade_code_t
s_make_room(lade_leases_t *self, lade_error_t *error)
{
    if (self->count < self->cap)
        return LADE_OK;
    if (self->count >= LADE_LEASES_MAX)
        return lade_error_set(error, LADE_QUEUE_FULL, "%d leases are held: unlock some first",
                              (int)LADE_LEASES_MAX);
    size_t cap = self->cap ? self->cap * 2 : 16;
    s_lease_t *leases = realloc(self->leases, cap * sizeof *leases);
    if (!leases)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory for a lease");
    self->leases = leases;
    self->cap = cap;
    return LADE_OK;
}

static lade_code_t
s_open_process(s_lease_t *lease, lade_error_t *error)
{
    if (!lease->pid)
        return LADE_OK;
    int errnum = ESRCH;
    if (lease->pid > 0) {
        lease->pidfd = (int)syscall(SYS_pidfd_open, lease->pid, 0);
        errnum = lease->pidfd < 0 ? errno : 0;
    }
    if (errnum == ENOSYS || errnum == EPERM) { // not there, or not in this sandbox
        lease->born = s_born(lease->pid);
        errnum = lease->born ? 0 : ESRCH;
    }
    if (errnum == ESRCH || errnum == EINVAL)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "no process %lld runs beside this worker: a lock of another machine "
                              "takes ttl_s, not pid",
                              (long long)lease->pid);
    return errnum
               ? lade_error_errno(error, errnum, "cannot watch process %lld", (long long)lease->pid)
               : LADE_OK;
}

static int64_t
s_deadline(double ttl_s)
{
    const double most = 1e9; // 30 years; more would not fit
    return ttl_s > 0 ? lade_mono_ms() + (int64_t)((ttl_s < most ? ttl_s : most) * 1000) : 0;
}

lade_code_t
lade_leases_add(lade_leases_t *self, void *holds, pid_t pid, double ttl_s, uint64_t *id_p,
                lade_error_t *error)
{
    assert(holds);
    s_lease_t lease = {.holds = holds, .pid = pid, .pidfd = -1, .deadline_ms = s_deadline(ttl_s)};
    lade_code_t code = s_make_room(self, error);
    if (!code)
        code = s_open_process(&lease, error);
    if (code)
        return code;
    *id_p = lease.id = ++self->next_id;
    self->leases[self->count++] = lease;
    s_wake(self);
    return LADE_OK;
}

void *
lade_leases_find(lade_leases_t *self, uint64_t id)
{
    s_lease_t *lease = s_find(self, id);
    return lease && !lease->over ? lease->holds : NULL;
}

void *
lade_leases_holds(lade_leases_t *self, uint64_t id)
{
    s_lease_t *lease = s_find(self, id);
    return lease ? lease->holds : NULL;
}

bool
lade_leases_renew(lade_leases_t *self, uint64_t id, double ttl_s)
{
    s_lease_t *lease = s_find(self, id);
    if (!lease || lease->over)
        return false;
    lease->deadline_ms = s_deadline(ttl_s);
    s_wake(self);
    return true;
}

bool
lade_leases_end(lade_leases_t *self, uint64_t id)
{
    s_lease_t *lease = s_find(self, id);
    if (!lease || lease->over)
        return false;
    lease->over = true;
    if (!lease->attached)
        s_remove(self, lease);
    s_wake(self);
    return true;
}

bool
lade_leases_attach(lade_leases_t *self, uint64_t id)
{
    s_lease_t *lease = s_find(self, id);
    if (!lease || lease->over)
        return false;
    lease->attached++;
    s_wake(self);
    return true;
}

void
lade_leases_detach(lade_leases_t *self, uint64_t id)
{
    s_lease_t *lease = s_find(self, id);
    assert(lease && lease->attached);
    if (--lease->attached == 0)
        s_remove(self, lease);
    s_wake(self);
}

size_t
lade_leases_processes(const lade_leases_t *self, const void *holds, pid_t *pids, size_t room)
{
    size_t count = 0;
    for (size_t i = 0; i < self->count && count < room; i++)
        if (self->leases[i].holds == holds)
            pids[count++] = self->leases[i].pid;
    return count;
}

size_t
lade_leases_count(const lade_leases_t *self)
{
    return self->count;
}
