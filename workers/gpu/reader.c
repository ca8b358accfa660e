// Parallel reads: threads take the next piece of the parts until there is none.
//
// pread into a mapping that stays is what the hardware allows (the copy out of the page cache);
// mapping the file and copying costs a fault a page besides, and would turn a file cut short while
// it is read into a SIGBUS. Of what is not in the page cache each thread keeps several direct reads
// under way in a ring of its own, and finds pages for the next, and turns those that have come,
// while they go on.
#include "workers/gpu/reader_private.h"

#include "common/thread.h"
#include "workers/gpu/memory.h"
#include "workers/gpu/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_MAX_THREADS = 256,
    S_DEPTH = 16,        // direct reads under way at once, of all threads
    S_LEAST_DEPTH = 2,   // of one thread
    S_FRESH = 512 << 10, // bytes of fresh pages that are cleared and then filled while they are in
                         // the processor's cache
    S_STAGE_BYTES = LADE_READER_STAGE + 2 * LADE_READER_PAGE,
};

typedef struct {
    lade_reader_pieces_t pieces;
    pthread_mutex_t lock; // of error
    lade_error_t error;   // the first that happened
    atomic_bool stop;
    atomic_uint_fast64_t done;
    unsigned depth; // of a thread's ring; 0: no rings
} s_read_t;

// A piece on its way. Its byte at the file's base_at comes to base.
typedef struct {
    lade_reader_piece_t piece;
    uint8_t *base;
    uint64_t base_at;
    uint64_t from, len; // what of the file is read directly
    bool staged;
    uint8_t *stage; // kept for the next piece; NULL: none yet
    size_t stage_size;
} s_job_t;

static void
s_fail(s_read_t *self, const lade_error_t *error)
{
    pthread_mutex_lock(&self->lock);
    if (!self->error.code)
        self->error = *error;
    pthread_mutex_unlock(&self->lock);
    atomic_store(&self->stop, true);
}

// ---------------------------------------------------------------------------------------------------
// One piece

static uint64_t
s_floor(uint64_t at)
{
    return at / LADE_READER_PAGE * LADE_READER_PAGE;
}

static uint64_t
s_ceil(uint64_t at)
{
    return s_floor(at + LADE_READER_PAGE - 1);
}

// Has the kernel find the pages of a range of a part's memory at once: far cheaper than a fault for
// each while reading.
static lade_code_t
s_fault(const lade_reader_part_t *part, uint64_t offset, uint64_t len, lade_error_t *error)
{
    return offset + len <= part->warm
               ? LADE_OK
               : lade_memory_fault(part->to + offset, len, part->name, error);
}

// What a read through the page cache says that brings nothing.
static lade_code_t
s_refuse(const lade_reader_part_t *part, uint64_t at, ssize_t got, lade_error_t *error)
{
    if (!got)
        return lade_error_set(error, LADE_CORRUPT,
                              "%s ends at byte %llu: it was cut while it was read", part->name,
                              (unsigned long long)at);
    if (errno == EFAULT)
        return lade_error_set(error, LADE_NO_MEMORY, "the system has no memory for %s", part->name);
    return lade_error_errno(error, errno, "reading %s", part->name);
}

// Reads a range of the file through a descriptor. What a direct one does not give (the unaligned
// rest after a short read, a file system that has second thoughts) is left, and *done_p says how
// much was read.
static lade_code_t
s_pread(const s_job_t *job, int fd, uint64_t from, uint64_t len, uint64_t *done_p,
        lade_error_t *error)
{
    const lade_reader_part_t *part = job->piece.part;
    bool direct = fd != part->fd;
    while (*done_p < len) {
        uint64_t at = from + *done_p;
        ssize_t got = pread(fd, job->base + (at - job->base_at), len - *done_p, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && direct && errno == EINVAL)
            lade_reader_without(LADE_READER_THREADS, LADE_LOG_WARNING, part->name, errno);
        if (got <= 0)
            return direct ? LADE_OK : s_refuse(part, at, got, error);
        *done_p += (uint64_t)got;
        if (direct && *done_p % LADE_READER_PAGE)
            return LADE_OK;
    }
    return LADE_OK;
}

// From the stage to where it belongs.
static lade_code_t
s_deliver(const s_job_t *job, lade_error_t *error)
{
    const lade_reader_piece_t *piece = &job->piece;
    lade_code_t code = LADE_OK;
    for (size_t i = 0; !code && job->staged && i < piece->parts; i++) {
        const lade_reader_part_t *part = &piece->part[i];
        uint64_t from = i ? 0 : piece->offset;
        uint64_t to = i + 1 == piece->parts ? piece->last : part->len;
        const uint8_t *bytes = job->base + (part->from + from - job->base_at);
        if (part->turn)
            code = from < to ? part->turn(part, from, bytes, to - from, error) : LADE_OK;
        else if (!(code = s_fault(part, from, to - from, error)))
            memcpy(part->to + from, bytes, to - from);
    }
    return code;
}

static uint64_t
s_bytes(const lade_reader_piece_t *piece)
{
    uint64_t bytes = piece->last - piece->offset;
    for (size_t i = 0; i + 1 < piece->parts; i++)
        bytes += piece->part[i].len;
    return bytes;
}

// Reads what of a piece lies outside of the done bytes that were read directly, through the page
// cache, and delivers it.
static lade_code_t
s_finish(s_read_t *self, const s_job_t *job, uint64_t done, lade_error_t *error)
{
    const lade_reader_piece_t *piece = &job->piece;
    uint64_t end = piece->at + piece->len, before = 0, after = 0;
    uint64_t from = done ? job->from : end, to = done ? job->from + done : end;
    lade_code_t code = LADE_OK;
    if (from > piece->at)
        code = s_pread(job, piece->part->fd, piece->at, from - piece->at, &before, error);
    if (!code && to < end)
        code = s_pread(job, piece->part->fd, to, end - to, &after, error);
    if (!code)
        code = s_deliver(job, error);
    if (!code) {
        atomic_fetch_add(&self->done, s_bytes(piece));
        lade_reader_count(done, before + after);
    }
    return code;
}

// Reads a piece through the page cache to where it belongs. Fresh pages are found a few at a time:
// the kernel clears them, which is lost work unless they are filled soon.
static lade_code_t
s_copy(s_read_t *self, const s_job_t *job, lade_error_t *error)
{
    const lade_reader_piece_t *piece = &job->piece;
    const lade_reader_part_t *part = piece->part;
    lade_code_t code = LADE_OK;
    uint64_t step = piece->last <= part->warm ? piece->len : S_FRESH;
    for (uint64_t offset = piece->offset; !code && offset < piece->last;) {
        uint64_t at = part->from + offset, done = 0;
        uint64_t len = step < piece->last - offset ? step : piece->last - offset;
        if (!(code = s_fault(part, offset, len, error)))
            code = s_pread(job, part->fd, at, len, &done, error);
        offset += len;
    }
    if (!code) {
        atomic_fetch_add(&self->done, piece->len);
        lade_reader_count(0, piece->len);
    }
    return code;
}

// ---------------------------------------------------------------------------------------------------
// A thread's work

typedef struct {
    s_read_t *read;
    bool tried;        // to make a ring
    lade_ring_t *ring; // NULL: reads wait for their ends
    s_job_t *jobs;     // under way, by tag
    uint64_t *free_tags;
    size_t free_count;
    s_job_t own; // what is not in the ring
} s_hand_t;

// Makes the ring when there is a first read for it: models in the page cache need none.
static bool
s_has_ring(s_hand_t *self)
{
    unsigned depth = self->read->depth;
    if (self->tried || !depth)
        return self->ring;
    self->tried = true;
    self->jobs = calloc(depth, sizeof *self->jobs);
    self->free_tags = calloc(depth, sizeof *self->free_tags);
    int errnum = self->jobs && self->free_tags ? lade_ring_new(depth, &self->ring) : ENOMEM;
    if (errnum == ENOSYS || errnum == EPERM || errnum == EACCES)
        lade_reader_no_ring(errnum);
    for (; self->ring && self->free_count < depth; self->free_count++)
        self->free_tags[self->free_count] = self->free_count;
    return self->ring;
}

static void
s_hand_close(s_hand_t *self)
{
    lade_ring_destroy(&self->ring);
    for (unsigned i = 0; self->jobs && i < self->read->depth; i++)
        free(self->jobs[i].stage);
    free(self->own.stage);
    free(self->jobs);
    free(self->free_tags);
}

// Bytes of the pages a piece lies in.
static size_t
s_stage_size(const lade_reader_piece_t *piece)
{
    return (size_t)(s_ceil(piece->at + piece->len) - s_floor(piece->at));
}

static lade_code_t
s_take_stage(s_job_t *job, bool direct, lade_error_t *error)
{
    size_t size = s_stage_size(&job->piece);
    size = size > S_STAGE_BYTES ? size : S_STAGE_BYTES;
    if (job->stage_size < size) {
        free(job->stage);
        job->stage = aligned_alloc(LADE_READER_PAGE, size);
        job->stage_size = job->stage ? size : 0;
    }
    if (!job->stage)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to turn %zu bytes of %s", size,
                              job->piece.part->name);
    job->base = job->stage;
    job->base_at = direct ? s_floor(job->piece.at) : job->piece.at; // a copy likes it aligned
    return LADE_OK;
}

// Where the piece goes, and what of it can be read directly: in its place the whole pages within
// it, in a stage all that it lies in.
static lade_code_t
s_aim(s_job_t *job, const lade_reader_piece_t *piece, bool staged, bool direct, lade_error_t *error)
{
    uint64_t end = piece->at + piece->len;
    job->piece = *piece;
    job->staged = staged;
    job->base_at = piece->at;
    job->base = piece->part->to + piece->offset;
    job->from = staged ? s_floor(piece->at) : s_ceil(piece->at);
    end = staged ? s_ceil(end) : s_floor(end);
    job->len = end > job->from ? end - job->from : 0;
    return staged ? s_take_stage(job, direct, error) : LADE_OK;
}

// Begins the job in the ring. False if it is to be done without.
static bool
s_submit(s_hand_t *self, uint64_t tag)
{
    const s_job_t *job = &self->jobs[tag];
    if (lade_ring_read(self->ring, job->piece.direct, job->base + (job->from - job->base_at),
                       job->len, job->from, tag))
        return false;
    self->free_count--;
    return true;
}

// Bytes of a piece that a direct read brought which got so many: up to a page's end, as what
// follows is read from there, or all there are.
static uint64_t
s_brought(const s_job_t *job, uint64_t got)
{
    uint64_t all = job->piece.at + job->piece.len - job->from;
    return got < all ? s_floor(got) : all;
}

// Begins a piece in the ring, or reads it.
static lade_code_t
s_begin(s_hand_t *self, const lade_reader_piece_t *piece, lade_error_t *error)
{
    const lade_reader_part_t *part = piece->part;
    bool alike = lade_reader_lies_alike(part), alone = !part->turn && piece->parts == 1;
    bool direct = piece->direct >= 0 &&
                  (!alike || s_ceil(piece->at) < s_floor(piece->at + piece->len)) &&
                  (piece->cold || !lade_reader_is_at_hand(part->fd, piece->at, piece->len));
    bool staged = !alone || (direct && !alike);
    bool in_ring = direct && (!staged || s_stage_size(piece) <= S_STAGE_BYTES) && s_has_ring(self);
    uint64_t tag = in_ring ? self->free_tags[self->free_count - 1] : 0, done = 0;
    s_job_t *job = in_ring ? &self->jobs[tag] : &self->own;
    lade_code_t code = s_aim(job, piece, staged, direct, error);
    if (!code && !staged && !direct)
        return s_copy(self->read, job, error);
    if (!code && !staged)
        code = s_fault(part, piece->offset, piece->len, error);
    if (code || (in_ring && s_submit(self, tag)))
        return code;
    if (direct)
        code = s_pread(job, piece->direct, job->from, job->len, &done, error);
    return code ? code : s_finish(self->read, job, s_brought(job, done), error);
}

// Waits for one of the ring's reads. What it did not bring is read plainly, which also finds out
// what is wrong.
static lade_code_t
s_end(s_hand_t *self, lade_error_t *error)
{
    uint64_t tag;
    int64_t got;
    lade_ring_wait(self->ring, &tag, &got);
    self->free_tags[self->free_count++] = tag;
    const s_job_t *job = &self->jobs[tag];
    return s_finish(self->read, job, s_brought(job, got > 0 ? (uint64_t)got : 0), error);
}

static bool
s_is_full(const s_hand_t *self)
{
    return self->ring && !self->free_count;
}

static bool
s_is_idle(const s_hand_t *self)
{
    return !self->ring || !lade_ring_under_way(self->ring);
}

// Takes pieces until there are none. step is the caller's question whether to go on, NULL for the
// other threads.
static void
s_work(s_read_t *read, bool (*step)(void *arg, uint64_t bytes), void *arg)
{
    s_hand_t self = {.read = read};
    lade_reader_piece_t piece;
    lade_error_t error = {0};
    for (;;) {
        if (step && !atomic_load(&read->stop) && !step(arg, atomic_load(&read->done))) {
            lade_error_set(&error, LADE_CANCELLED, "stopped while reading");
            s_fail(read, &error);
        }
        lade_code_t code;
        if (!s_is_full(&self) && !atomic_load(&read->stop) &&
            lade_reader_pieces_take(&read->pieces, &piece))
            code = s_begin(&self, &piece, &error);
        else if (!s_is_idle(&self))
            code = s_end(&self, &error);
        else
            break;
        if (code)
            s_fail(read, &error);
    }
    s_hand_close(&self);
}

static void *
s_thread(void *arg)
{
    s_work(arg, NULL, NULL);
    return NULL;
}

// Of the parts, the bytes that are not in the page cache, as far as the system tells.
static uint64_t
s_cold_bytes(const lade_reader_part_t *parts, size_t count)
{
    uint64_t cold = 0, cached;
    for (size_t i = 0; i < count; i++)
        if (parts[i].len && lade_reader_cached(parts[i].fd, parts[i].from, parts[i].len, &cached))
            cold += cached < parts[i].len ? parts[i].len - cached : 0;
    return cold;
}

// How many threads besides the caller's. One more costs about 50 microseconds, which is a piece's
// time; so there is one for two pieces. Without rings a disk is kept busy by more threads than
// cores, which mostly wait.
static size_t
s_helpers(s_read_t *self, size_t threads)
{
    const lade_reader_pieces_t *all = &self->pieces;
    uint64_t bytes = 0, pieces = 0;
    for (size_t i = 0; i < all->count; i++) {
        const lade_reader_part_t *part = &all->parts[i];
        bytes += part->len;
        pieces += part->len / (part->turn ? LADE_READER_STAGE / 256 : LADE_READER_PIECE / 256);
    }
    uint64_t useful = pieces / 256 / 2;
    if (lade_reader_engine() == LADE_READER_THREADS && threads < S_DEPTH / 2 &&
        s_cold_bytes(all->parts, all->count) * 2 > bytes)
        threads = S_DEPTH / 2;
    threads = threads < S_MAX_THREADS ? threads : S_MAX_THREADS;
    threads = threads < useful ? threads : (size_t)useful;
    threads = threads ? threads : 1;
    if (lade_reader_engine() == LADE_READER_URING)
        self->depth =
            S_DEPTH / threads > S_LEAST_DEPTH ? S_DEPTH / (unsigned)threads : S_LEAST_DEPTH;
    return threads - 1;
}

lade_code_t
lade_reader_read(const lade_reader_part_t *parts, size_t count, size_t threads,
                 bool (*step)(void *arg, uint64_t bytes), void *arg, lade_error_t *error)
{
    s_read_t self = {0};
    pthread_t helpers[S_MAX_THREADS];
    lade_reader_pieces_open(&self.pieces, parts, count);
    size_t started = 0, wanted = s_helpers(&self, threads);
    pthread_mutex_init(&self.lock, NULL);
    while (started < wanted && lade_thread_start(&helpers[started], s_thread, &self))
        started++;
    s_work(&self, step, arg);
    for (size_t i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);
    lade_reader_pieces_close(&self.pieces);
    pthread_mutex_destroy(&self.lock);
    if (self.error.code && error)
        *error = self.error;
    if (!self.error.code && step)
        step(arg, atomic_load(&self.done));
    return self.error.code;
}
