// Cutting runs into pieces of a stage each, and the threads that read them.
#include "workers/gpu/stream.h"

#include "common/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_PAGE = 4096,
    S_GAP = 64 << 10, // bytes between two runs that are rather read than begun anew
    S_MAX_THREADS = 256,
};

// What one stage gets: a part of one source, and what becomes of it.
typedef struct {
    const lade_run_t *source; // its file or memory
    int direct;               // the same file past the page cache; -1 without
    uint64_t from, len;
    size_t move, moves; // the first of them, and how many
} s_piece_t;

typedef struct {
    const lade_backend_t *backend;
    void *device;
    const lade_block_t *block;
    s_piece_t *pieces;
    size_t piece_count, piece_room;
    lade_move_t *moves;
    size_t move_count, move_room;
    int direct_of, direct; // the file opened last for it, and that descriptor
    int *opened;
    size_t opened_count;

    atomic_size_t next;
    atomic_uint_fast64_t done;
    atomic_bool stop;
    pthread_mutex_t lock; // of error
    lade_error_t error;   // the first that happened
} s_stream_t;

// ---------------------------------------------------------------------------------------------------
// Planning

static bool
s_is_plain(const lade_run_t *run)
{
    return run->in == run->out && !run->channels_last;
}

// A run is cut only between units.
static uint64_t
s_unit(const lade_run_t *run)
{
    if (run->channels_last)
        return run->shape[1] * run->shape[2] * run->shape[3] * lade_dtype_size(run->in);
    return s_is_plain(run) ? 1 : lade_dtype_size(run->in);
}

static uint64_t
s_out(const lade_run_t *run, uint64_t size)
{
    return s_is_plain(run) ? size : size / lade_dtype_size(run->in) * lade_dtype_size(run->out);
}

uint64_t
lade_run_out(const lade_run_t *run)
{
    return s_out(run, run->size);
}

static bool
s_same_source(const lade_run_t *a, const lade_run_t *b)
{
    return a->fd == b->fd && (a->fd >= 0 || a->bytes == b->bytes);
}

// The file a second time, past the page cache; -1 where that is not to be had.
static int
s_direct(s_stream_t *self, const lade_run_t *run)
{
    if (run->fd < 0)
        return -1;
    if (self->opened_count && self->direct_of == run->fd)
        return self->direct;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", run->fd);
    int *opened = realloc(self->opened, (self->opened_count + 1) * sizeof *opened);
    if (!opened)
        return -1;
    self->opened = opened;
    self->direct_of = run->fd;
    self->direct = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    self->opened[self->opened_count++] = self->direct;
    return self->direct;
}

static bool
s_grow(void **list, size_t *room, size_t count, size_t each)
{
    if (count < *room)
        return true;
    size_t wanted = *room ? *room * 2 : 64;
    void *grown = realloc(*list, wanted * each);
    if (!grown)
        return false;
    *list = grown;
    *room = wanted;
    return true;
}

// Adds as much of the run from offset on as the last piece takes; 0 if it takes none.
static uint64_t
s_add_move(s_stream_t *self, const lade_run_t *run, uint64_t offset)
{
    s_piece_t *piece = self->piece_count ? &self->pieces[self->piece_count - 1] : NULL;
    uint64_t at = run->from + offset, unit = s_unit(run);
    if (!piece || !s_same_source(piece->source, run) || at < piece->from ||
        at > piece->from + piece->len + S_GAP || at - piece->from >= LADE_STAGE_BYTES)
        return 0;
    uint64_t room = LADE_STAGE_BYTES - (at - piece->from), size = run->size - offset;
    size = size < room ? size : room / unit * unit;
    if (!size)
        return 0;
    lade_move_t *move = &self->moves[self->move_count++];
    *move = (lade_move_t){.from = at - piece->from,
                          .to = run->to + s_out(run, offset),
                          .size = size,
                          .in = run->in,
                          .out = run->out,
                          .channels_last = run->channels_last};
    if (run->channels_last) {
        move->shape[0] = (uint32_t)(size / unit);
        for (size_t d = 1; d < 4; d++)
            move->shape[d] = (uint32_t)run->shape[d];
    }
    piece->moves++;
    uint64_t end = move->from + size;
    piece->len = end > piece->len ? end : piece->len;
    return size;
}

static lade_code_t
s_plan_run(s_stream_t *self, const lade_run_t *run, bool direct, lade_error_t *error)
{
    if (s_unit(run) > LADE_STAGE_BYTES - S_PAGE)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "%s: a filter of %llu bytes is too large for channels_last: load the "
                              "model with the layout as stored",
                              run->name, (unsigned long long)s_unit(run));
    for (uint64_t offset = 0; offset < run->size;) {
        if (!s_grow((void **)&self->moves, &self->move_room, self->move_count,
                    sizeof *self->moves) ||
            !s_grow((void **)&self->pieces, &self->piece_room, self->piece_count,
                    sizeof *self->pieces))
            return lade_error_set(error, LADE_NO_MEMORY, "no memory for a plan of %zu pieces",
                                  self->piece_count);
        uint64_t size = s_add_move(self, run, offset);
        if (!size) {
            uint64_t at = run->from + offset;
            s_piece_t *piece = &self->pieces[self->piece_count++];
            *piece = (s_piece_t){.source = run,
                                 .direct = direct ? s_direct(self, run) : -1,
                                 .from = at - at % S_PAGE,
                                 .move = self->move_count};
        }
        offset += size;
    }
    return LADE_OK;
}

// ---------------------------------------------------------------------------------------------------
// Reading

static void
s_fail(s_stream_t *self, const lade_error_t *error)
{
    pthread_mutex_lock(&self->lock);
    if (!self->error.code)
        self->error = *error;
    pthread_mutex_unlock(&self->lock);
    atomic_store(&self->stop, true);
}

// Past the page cache as far as that goes: whole pages, to the file's end; the rest and whatever is
// refused (EINVAL) is read the usual way.
static lade_code_t
s_read_file(const s_piece_t *piece, uint8_t *to, lade_error_t *error)
{
    const lade_run_t *run = piece->source;
    bool direct = piece->direct >= 0;
    for (uint64_t done = 0; done < piece->len;) {
        uint64_t left = piece->len - done;
        direct = direct && done % S_PAGE == 0;
        ssize_t got = direct
                          ? pread(piece->direct, to + done, (left + S_PAGE - 1) / S_PAGE * S_PAGE,
                                  (off_t)(piece->from + done))
                          : pread(run->fd, to + done, left, (off_t)(piece->from + done));
        if (got > 0)
            done += (uint64_t)got;
        else if (direct)
            direct = false;
        else if (got == 0)
            return lade_error_set(error, LADE_CORRUPT,
                                  "%s ends at byte %llu: it was cut while it was read", run->name,
                                  (unsigned long long)(piece->from + done));
        else if (errno != EINTR)
            return lade_error_errno(error, errno, "reading %s", run->name);
    }
    return LADE_OK;
}

static lade_code_t
s_send(s_stream_t *self, const s_piece_t *piece, lade_error_t *error)
{
    void *stage;
    uint8_t *bytes;
    lade_code_t code = self->backend->stage(self->device, &stage, &bytes, error);
    if (code)
        return code;
    if (piece->source->fd >= 0)
        code = s_read_file(piece, bytes, error);
    else
        memcpy(bytes, piece->source->bytes + piece->from, piece->len);
    if (code) {
        self->backend->drop(self->device, stage);
        return code;
    }
    code = self->backend->submit(self->device, stage, self->block, self->moves + piece->move,
                                 piece->moves, error);
    atomic_fetch_add(&self->done, piece->len);
    return code;
}

static bool
s_send_next(s_stream_t *self)
{
    lade_error_t error = {0};
    size_t next = atomic_load(&self->stop) ? SIZE_MAX : atomic_fetch_add(&self->next, 1);
    if (next >= self->piece_count)
        return false;
    if (s_send(self, &self->pieces[next], &error))
        s_fail(self, &error);
    return true;
}

static void *
s_thread(void *arg)
{
    while (s_send_next(arg))
        ;
    return NULL;
}

static void
s_run(s_stream_t *self, size_t threads, bool (*step)(void *arg, uint64_t bytes), void *arg)
{
    pthread_t helpers[S_MAX_THREADS];
    size_t started = 0, useful = self->piece_count / 2;
    threads = threads < S_MAX_THREADS ? threads : S_MAX_THREADS;
    threads = threads < useful ? threads : useful;
    while (started + 1 < threads && lade_thread_start(&helpers[started], s_thread, self))
        started++;
    do {
        if (step && !step(arg, atomic_load(&self->done))) {
            lade_error_t error;
            lade_error_set(&error, LADE_CANCELLED, "stopped while reading");
            s_fail(self, &error);
        }
    } while (s_send_next(self));
    for (size_t i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);
    lade_error_t error = {0};
    if (self->backend->finish(self->device, self->block, &error))
        s_fail(self, &error);
    if (!self->error.code && step)
        step(arg, atomic_load(&self->done));
}

lade_code_t
lade_stream_fill(const lade_backend_t *backend, void *device, const lade_block_t *block,
                 const lade_run_t *runs, size_t count, size_t threads, bool direct,
                 bool (*step)(void *arg, uint64_t bytes), void *arg, lade_error_t *error)
{
    s_stream_t self = {.backend = backend, .device = device, .block = block};
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && i < count; i++)
        code = s_plan_run(&self, &runs[i], direct, error);
    if (!code) {
        pthread_mutex_init(&self.lock, NULL);
        s_run(&self, threads, step, arg);
        pthread_mutex_destroy(&self.lock);
        code = self.error.code;
        if (code && error)
            *error = self.error;
    }
    for (size_t i = 0; i < self.opened_count; i++)
        if (self.opened[i] >= 0)
            close(self.opened[i]);
    free(self.opened);
    free(self.pieces);
    free(self.moves);
    return code;
}
