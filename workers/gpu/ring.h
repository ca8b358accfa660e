// Reads that are under way while we go on: an io_uring of one thread, by its system calls alone.
#ifndef LADE_GPU_RING_H
#define LADE_GPU_RING_H

#include <stddef.h>
#include <stdint.h>

typedef struct lade_ring lade_ring_t;

// A ring of at most depth reads at once. Returns 0, or the errno that says why the system gives
// none (ENOSYS, EPERM: not in this kernel, not in this sandbox).
int lade_ring_new(unsigned depth, lade_ring_t **self_p);

// Reads that have been begun and not been waited for must be none.
void lade_ring_destroy(lade_ring_t **self_p);

size_t lade_ring_under_way(const lade_ring_t *self);

// Begins a read; fewer than depth must be under way. tag comes back with its end. to must stay
// until then. Returns 0 or an errno; then nothing was begun.
int lade_ring_read(lade_ring_t *self, int fd, void *to, size_t len, uint64_t offset, uint64_t tag);

// Waits for the end of one. *got_p is what pread would have returned, or a negative errno. Aborts
// if the kernel will not tell: the memory it reads into could never be used for anything else.
void lade_ring_wait(lade_ring_t *self, uint64_t *tag_p, int64_t *got_p);

#endif
