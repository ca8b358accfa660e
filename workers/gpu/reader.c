// Parallel reads: threads take the next piece of the parts until there is none.
//
// pread into a mapping that stays is what the hardware allows (the copy out of the page cache);
// mapping the file and copying costs a fault a page besides, and would turn a file cut short while
// it is read into a SIGBUS.
#include "workers/gpu/reader.h"

#include "common/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    S_PIECE = 8 << 20,
    S_PAGE = 4096,
    S_MAX_THREADS = 256,
};

typedef struct {
    pthread_mutex_t lock; // of what follows, up to error
    const lade_reader_part_t *parts;
    size_t count;
    size_t part; // the next piece is at offset of this part
    uint64_t offset;
    lade_error_t error; // the first that happened
    atomic_bool stop;
    atomic_uint_fast64_t done;
} s_read_t;

typedef struct {
    const lade_reader_part_t *part;
    uint64_t offset;
    size_t len;
} s_piece_t;

static void
s_fail(s_read_t *self, const lade_error_t *error)
{
    pthread_mutex_lock(&self->lock);
    if (!self->error.code)
        self->error = *error;
    pthread_mutex_unlock(&self->lock);
    atomic_store(&self->stop, true);
}

// Takes the next piece; false if there is none or the reading has stopped. Pieces end at multiples
// of S_PIECE of the file, so that none but the first and last of a part straddles a block.
static bool
s_take(s_read_t *self, s_piece_t *piece)
{
    if (atomic_load(&self->stop))
        return false;
    pthread_mutex_lock(&self->lock);
    while (self->part < self->count && self->offset == self->parts[self->part].len) {
        self->part++;
        self->offset = 0;
    }
    bool there = self->part < self->count;
    if (there) {
        const lade_reader_part_t *part = &self->parts[self->part];
        uint64_t left = part->len - self->offset;
        uint64_t len = S_PIECE - (part->from + self->offset) % S_PIECE;
        *piece = (s_piece_t){part, self->offset, len < left ? len : left};
        self->offset += piece->len;
    }
    pthread_mutex_unlock(&self->lock);
    return there;
}

// Has the kernel find the pages of a piece at once: far cheaper than a fault for each while
// reading.
static lade_code_t
s_touch(const s_piece_t *piece, lade_error_t *error)
{
    if (piece->offset + piece->len <= piece->part->warm)
        return LADE_OK;
    uintptr_t from = (uintptr_t)(piece->part->to + piece->offset), to = from + piece->len;
    from -= from % S_PAGE;
    to += (S_PAGE - to % S_PAGE) % S_PAGE;
    if (madvise((void *)from, to - from, MADV_POPULATE_WRITE) &&
        errno != EINVAL) // EINVAL: before Linux 5.14
        return lade_error_set(error, LADE_NO_MEMORY, "the system has no memory for %s: %s",
                              piece->part->name, strerror(errno));
    return LADE_OK;
}

static lade_code_t
s_read_piece(s_read_t *self, const s_piece_t *piece, lade_error_t *error)
{
    const lade_reader_part_t *part = piece->part;
    lade_code_t code = s_touch(piece, error);
    size_t done = 0;
    while (!code && done < piece->len) {
        uint64_t offset = piece->offset + done;
        ssize_t got =
            pread(part->fd, part->to + offset, piece->len - done, (off_t)(part->from + offset));
        if (got > 0)
            done += (size_t)got;
        else if (got == 0)
            code = lade_error_set(error, LADE_CORRUPT,
                                  "%s ends at byte %llu: it was cut while it was read", part->name,
                                  (unsigned long long)(part->from + offset));
        else if (errno == EFAULT)
            code = lade_error_set(error, LADE_NO_MEMORY, "the system has no memory for %s",
                                  part->name);
        else if (errno != EINTR)
            code = lade_error_errno(error, errno, "reading %s", part->name);
    }
    if (!code)
        atomic_fetch_add(&self->done, done);
    return code;
}

static void *
s_thread(void *arg)
{
    s_read_t *self = arg;
    s_piece_t piece;
    lade_error_t error = {0};
    while (s_take(self, &piece))
        if (s_read_piece(self, &piece, &error))
            s_fail(self, &error);
    return NULL;
}

// The caller's share of the work, and its questions whether to go on.
static void
s_work(s_read_t *self, bool (*step)(void *arg, uint64_t bytes), void *arg)
{
    s_piece_t piece;
    lade_error_t error = {0};
    do {
        if (step && !step(arg, atomic_load(&self->done))) {
            lade_error_set(&error, LADE_CANCELLED, "stopped while reading");
            s_fail(self, &error);
        }
        if (!s_take(self, &piece))
            return;
        if (s_read_piece(self, &piece, &error))
            s_fail(self, &error);
    } while (true);
}

// A thread more than one costs about 50 microseconds, which is a piece's time; so there is one for
// two pieces.
static size_t
s_helpers(const lade_reader_part_t *parts, size_t count, size_t threads)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += parts[i].len;
    uint64_t useful = bytes / (2 * S_PIECE);
    threads = threads < S_MAX_THREADS ? threads : S_MAX_THREADS;
    threads = threads < useful ? threads : (size_t)useful;
    return threads ? threads - 1 : 0;
}

lade_code_t
lade_reader_read(const lade_reader_part_t *parts, size_t count, size_t threads,
                 bool (*step)(void *arg, uint64_t bytes), void *arg, lade_error_t *error)
{
    s_read_t self = {.parts = parts, .count = count};
    pthread_t helpers[S_MAX_THREADS];
    size_t started = 0, wanted = s_helpers(parts, count, threads);
    pthread_mutex_init(&self.lock, NULL);
    while (started < wanted && lade_thread_start(&helpers[started], s_thread, &self))
        started++;
    s_work(&self, step, arg);
    for (size_t i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);
    pthread_mutex_destroy(&self.lock);
    if (self.error.code && error)
        *error = self.error;
    if (!self.error.code && step)
        step(arg, atomic_load(&self.done));
    return self.error.code;
}
