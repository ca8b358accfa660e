// Threads take the next piece of the turns, read it into memory of their own, and turn it from
// there. What needs no turning is read to where it belongs.
#include "workers/gpu/turns.h"

#include "common/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    S_PIECE = 4 << 20,
    S_PAGE = 4096,
    S_MAX_THREADS = 256,
};

typedef struct {
    pthread_mutex_t lock; // of what follows, up to error
    const lade_turn_t *turns;
    size_t count;
    size_t turn; // the next piece is at offset of this turn
    uint64_t offset;
    lade_error_t error; // the first that happened
    atomic_bool stop;
    atomic_uint_fast64_t done;
    uint8_t *data;
    uint64_t warm;
} s_turns_t;

typedef struct {
    const lade_turn_t *turn;
    uint64_t offset, len;
} s_piece_t;

// A thread's own memory.
typedef struct {
    uint8_t *bytes;
    size_t size;
} s_scratch_t;

static void
s_fail(s_turns_t *self, const lade_error_t *error)
{
    pthread_mutex_lock(&self->lock);
    if (!self->error.code)
        self->error = *error;
    pthread_mutex_unlock(&self->lock);
    atomic_store(&self->stop, true);
}

// Takes the next piece: as many units as make up S_PIECE, at least one.
static bool
s_take(s_turns_t *self, s_piece_t *piece)
{
    if (atomic_load(&self->stop))
        return false;
    pthread_mutex_lock(&self->lock);
    while (self->turn < self->count && self->offset == self->turns[self->turn].how.in_bytes) {
        self->turn++;
        self->offset = 0;
    }
    bool there = self->turn < self->count;
    if (there) {
        const lade_turn_t *turn = &self->turns[self->turn];
        uint64_t unit = lade_transform_unit(&turn->how);
        uint64_t len = unit < S_PIECE ? S_PIECE / unit * unit : unit;
        uint64_t left = turn->how.in_bytes - self->offset;
        *piece = (s_piece_t){turn, self->offset, len < left ? len : left};
        self->offset += piece->len;
    }
    pthread_mutex_unlock(&self->lock);
    return there;
}

// Has the kernel find the pages to be written at once; without memory for them that is an error
// here and not a signal there.
static lade_code_t
s_touch(const s_turns_t *self, uint64_t at, uint64_t len, lade_error_t *error)
{
    if (at + len <= self->warm)
        return LADE_OK;
    uintptr_t from = (uintptr_t)(self->data + at), to = from + len;
    from -= from % S_PAGE;
    to += (S_PAGE - to % S_PAGE) % S_PAGE;
    if (madvise((void *)from, to - from, MADV_POPULATE_WRITE) && errno != EINVAL)
        return lade_error_set(error, LADE_NO_MEMORY, "the system has no memory for a model: %s",
                              strerror(errno));
    return LADE_OK;
}

static lade_code_t
s_read(const lade_turn_t *turn, uint64_t offset, uint8_t *to, uint64_t len, lade_error_t *error)
{
    uint64_t done = 0;
    while (done < len) {
        uint64_t at = turn->from + offset + done;
        ssize_t got = pread(turn->fd, to + done, len - done, (off_t)at);
        if (got > 0)
            done += (uint64_t)got;
        else if (got == 0)
            return lade_error_set(error, LADE_CORRUPT,
                                  "%s ends at byte %llu: it was cut while it was read", turn->name,
                                  (unsigned long long)at);
        else if (errno != EINTR)
            return lade_error_errno(error, errno, "reading %s", turn->name);
    }
    return LADE_OK;
}

static lade_code_t
s_grow(s_scratch_t *scratch, uint64_t size, lade_error_t *error)
{
    if (scratch->size >= size)
        return LADE_OK;
    free(scratch->bytes);
    scratch->size = 0;
    scratch->bytes = malloc(size);
    if (!scratch->bytes)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to turn %llu bytes of a tensor",
                              (unsigned long long)size);
    scratch->size = size;
    return LADE_OK;
}

static lade_code_t
s_do(s_turns_t *self, const s_piece_t *piece, s_scratch_t *scratch, lade_error_t *error)
{
    const lade_turn_t *turn = piece->turn;
    uint64_t at = turn->to + lade_transform_out(&turn->how, piece->offset);
    bool plain = lade_transform_is_plain(&turn->how);
    lade_code_t code = s_touch(self, at, lade_transform_out(&turn->how, piece->len), error);
    if (!code && plain)
        code = s_read(turn, piece->offset, self->data + at, piece->len, error);
    if (!code && !plain)
        code = s_grow(scratch, piece->len, error);
    if (!code && !plain)
        code = s_read(turn, piece->offset, scratch->bytes, piece->len, error);
    if (!code && !plain)
        code = lade_transform_run(&turn->how, scratch->bytes, piece->len, self->data + at, error);
    if (!code)
        atomic_fetch_add(&self->done, piece->len);
    return code;
}

static void *
s_thread(void *arg)
{
    s_turns_t *self = arg;
    s_piece_t piece;
    s_scratch_t scratch = {0};
    lade_error_t error = {0};
    while (s_take(self, &piece))
        if (s_do(self, &piece, &scratch, &error))
            s_fail(self, &error);
    free(scratch.bytes);
    return NULL;
}

// The caller's share of the work, and its questions whether to go on.
static void
s_work(s_turns_t *self, uint64_t done, bool (*step)(void *arg, uint64_t bytes), void *arg)
{
    s_piece_t piece;
    s_scratch_t scratch = {0};
    lade_error_t error = {0};
    do {
        if (step && !step(arg, done + atomic_load(&self->done))) {
            lade_error_set(&error, LADE_CANCELLED, "stopped while reading");
            s_fail(self, &error);
        }
        if (!s_take(self, &piece))
            break;
        if (s_do(self, &piece, &scratch, &error))
            s_fail(self, &error);
    } while (true);
    free(scratch.bytes);
}

static size_t
s_helpers(const lade_turn_t *turns, size_t count, size_t threads)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += turns[i].how.in_bytes;
    uint64_t useful = bytes / (2 * S_PIECE); // a thread costs about as much as a piece
    threads = threads < S_MAX_THREADS ? threads : S_MAX_THREADS;
    threads = threads < useful ? threads : (size_t)useful;
    return threads ? threads - 1 : 0;
}

lade_code_t
lade_turns_run(const lade_turn_t *turns, size_t count, uint8_t *data, uint64_t warm, size_t threads,
               uint64_t done, bool (*step)(void *arg, uint64_t bytes), void *arg,
               lade_error_t *error)
{
    s_turns_t self = {.turns = turns, .count = count, .data = data, .warm = warm};
    pthread_t helpers[S_MAX_THREADS];
    size_t started = 0, wanted = s_helpers(turns, count, threads);
    pthread_mutex_init(&self.lock, NULL);
    while (started < wanted && lade_thread_start(&helpers[started], s_thread, &self))
        started++;
    s_work(&self, done, step, arg);
    for (size_t i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);
    pthread_mutex_destroy(&self.lock);
    if (self.error.code && error)
        *error = self.error;
    return self.error.code;
}
