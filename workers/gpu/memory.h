// Shared memory for segments, and the pool that keeps its pages.
//
// A page that was never touched costs five times as much to fill as one in use (the kernel has to
// find and clear it), so the regions of evicted models are kept, pages and page tables and all, and
// given to the next. A region is one memfd, mapped writable here for as long as it lives and, from
// its making on, for nobody else: its file is sealed against any further writable mapping and is of
// mode 0400.
//
// Regions are of huge pages where the system has them: reserved ones (hugetlbfs) first, else those
// it makes up itself (transparent ones), if it does so for shared memory. Plain pages do as well.
#ifndef LADE_GPU_MEMORY_H
#define LADE_GPU_MEMORY_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lade_memory lade_memory_t;

typedef struct lade_region {
    uint8_t *bytes;
    size_t size; // bytes of the file and the mapping, whole pages
    size_t warm; // bytes from the start whose pages are there already; who fills more raises it
    uint64_t generation; // another one each time the region is given out
    int fd;              // opened read-only: this is what readers get
    int own_fd;          // changes the size; -1: another process made it, and it can only be read
    bool fixed;          // of reserved huge pages: never another size
    struct lade_region *next;
} lade_region_t;

// A pool that never lets regions given out and regions kept together take more than total bytes, as
// long as those given out do not, and keeps at most idle bytes.
lade_memory_t *lade_memory_new(size_t total, size_t idle);

// Frees the kept regions; those given out must have come back.
void lade_memory_destroy(lade_memory_t **self_p);

// Gives out a region of at least bytes: the kept one that fits best (made shorter if much longer),
// else one made longer, else a fresh one. LADE_NO_MEMORY. Safe from any thread; blocks while the
// system takes pages back.
lade_code_t lade_memory_get(lade_memory_t *self, size_t bytes, lade_region_t **region_p,
                            lade_error_t *error);

// Takes a region back, to be kept as long as there is room. Nobody may be looking at it any more.
void lade_memory_put(lade_memory_t *self, lade_region_t **region_p);

// Takes a region that another process made and that outlived it, to be read only: it never comes
// into the pool. fd is taken over if all goes well. Generations given out later are higher.
// LADE_CORRUPT if it is not of size bytes, LADE_NO_MEMORY.
lade_code_t lade_memory_adopt(lade_memory_t *self, int fd, size_t size, uint64_t generation,
                              lade_region_t **region_p, lade_error_t *error);

// Makes sure that writing to the first bytes of the region cannot fail: touching a page for which
// there is no memory would end the process. LADE_NO_MEMORY.
lade_code_t lade_memory_touch(lade_region_t *region, size_t bytes, lade_error_t *error);

// Has the kernel find the pages of a range at once, so that writing there cannot fail. what is for
// the error: LADE_NO_MEMORY.
lade_code_t lade_memory_fault(void *bytes, size_t len, const char *what, lade_error_t *error);

// Bytes kept for reuse.
size_t lade_memory_idle(lade_memory_t *self);

// Whether this process asks for huge pages from now on, by the words of load.huge: "auto" or "off".
// LADE_CONFIG_ERROR.
lade_code_t lade_memory_choose(const char *huge, lade_error_t *error);

// {"pages": "reserved"|"transparent"|"plain", "why": what kept us from huge ones or null,
// "reserved_bytes": in huge pages given out and kept}, of this process; yours.
json_t *lade_memory_stats(void);

// Bytes of memory this process may use: of the machine, or of the control group it runs in if that
// is less.
size_t lade_memory_machine_bytes(void);

#endif
