// io_uring: two rings of entries shared with the kernel, and two system calls.
#include "workers/gpu/ring.h"

#include <assert.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct lade_ring {
    int fd;
    unsigned depth;
    size_t under_way;
    void *rings; // submission and completion in one mapping
    size_t rings_len;
    struct io_uring_sqe *entries;
    size_t entries_len;
    _Atomic unsigned *sq_tail, *cq_head, *cq_tail;
    unsigned *sq_array, sq_mask, cq_mask;
    struct io_uring_cqe *ends;
};

static int
s_map(lade_ring_t *self, const struct io_uring_params *params)
{
    size_t submissions = params->sq_off.array + params->sq_entries * sizeof(unsigned);
    size_t completions = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    if (!(params->features & IORING_FEAT_SINGLE_MMAP)) // before Linux 5.4, which cannot read either
        return ENOSYS;
    self->rings_len = submissions > completions ? submissions : completions;
    self->entries_len = params->sq_entries * sizeof(struct io_uring_sqe);
    self->rings = mmap(NULL, self->rings_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       self->fd, IORING_OFF_SQ_RING);
    self->entries = mmap(NULL, self->entries_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                         self->fd, IORING_OFF_SQES);
    if (self->rings == MAP_FAILED || self->entries == MAP_FAILED)
        return errno;
    uint8_t *at = self->rings;
    self->sq_tail = (_Atomic unsigned *)(void *)(at + params->sq_off.tail);
    self->sq_mask = *(unsigned *)(void *)(at + params->sq_off.ring_mask);
    self->sq_array = (unsigned *)(void *)(at + params->sq_off.array);
    self->cq_head = (_Atomic unsigned *)(void *)(at + params->cq_off.head);
    self->cq_tail = (_Atomic unsigned *)(void *)(at + params->cq_off.tail);
    self->cq_mask = *(unsigned *)(void *)(at + params->cq_off.ring_mask);
    self->ends = (struct io_uring_cqe *)(void *)(at + params->cq_off.cqes);
    return 0;
}

int
lade_ring_new(unsigned depth, lade_ring_t **self_p)
{
    struct io_uring_params params = {0};
    *self_p = NULL;
    lade_ring_t *self = calloc(1, sizeof *self);
    if (!self)
        return ENOMEM;
    self->rings = self->entries = MAP_FAILED;
    self->depth = depth;
    self->fd = (int)syscall(SYS_io_uring_setup, depth, &params);
    int errnum = self->fd < 0 ? errno : s_map(self, &params);
    if (errnum)
        lade_ring_destroy(&self);
    *self_p = self;
    return errnum;
}

void
lade_ring_destroy(lade_ring_t **self_p)
{
    lade_ring_t *self = *self_p;
    if (!self)
        return;
    assert(!self->under_way);
    if (self->rings != MAP_FAILED)
        munmap(self->rings, self->rings_len);
    if (self->entries != MAP_FAILED)
        munmap(self->entries, self->entries_len);
    if (self->fd >= 0)
        close(self->fd);
    free(self);
    *self_p = NULL;
}

size_t
lade_ring_under_way(const lade_ring_t *self)
{
    return self->under_way;
}

// 0 or an errno; interrupted calls are made again.
static int
s_enter(const lade_ring_t *self, unsigned submit, unsigned wait, unsigned flags)
{
    long done;
    do
        done = syscall(SYS_io_uring_enter, self->fd, submit, wait, flags, NULL, 0);
    while (done < 0 && errno == EINTR);
    return done < 0 ? errno : done < (long)submit ? EAGAIN : 0;
}

int
lade_ring_read(lade_ring_t *self, int fd, void *to, size_t len, uint64_t offset, uint64_t tag)
{
    assert(self->under_way < self->depth);
    unsigned tail = atomic_load_explicit(self->sq_tail, memory_order_relaxed);
    unsigned slot = tail & self->sq_mask;
    self->entries[slot] = (struct io_uring_sqe){.opcode = IORING_OP_READ,
                                                .fd = fd,
                                                .addr = (uintptr_t)to,
                                                .len = (unsigned)len,
                                                .off = offset,
                                                .user_data = tag};
    self->sq_array[slot] = slot;
    atomic_store_explicit(self->sq_tail, tail + 1, memory_order_release);
    int errnum = s_enter(self, 1, 0, 0);
    if (errnum) // not taken: it is ours again
        atomic_store_explicit(self->sq_tail, tail, memory_order_release);
    else
        self->under_way++;
    return errnum;
}

void
lade_ring_wait(lade_ring_t *self, uint64_t *tag_p, int64_t *got_p)
{
    assert(self->under_way);
    unsigned head = atomic_load_explicit(self->cq_head, memory_order_relaxed);
    while (head == atomic_load_explicit(self->cq_tail, memory_order_acquire)) {
        int errnum = s_enter(self, 0, 1, IORING_ENTER_GETEVENTS);
        if (errnum && errnum != EAGAIN && errnum != EBUSY)
            abort();
    }
    const struct io_uring_cqe *end = &self->ends[head & self->cq_mask];
    *tag_p = end->user_data;
    *got_p = end->res;
    atomic_store_explicit(self->cq_head, head + 1, memory_order_release);
    self->under_way--;
}
