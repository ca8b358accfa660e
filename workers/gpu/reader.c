// Parallel reads: threads take the next piece of the parts until there is none.
//
// pread into a mapping that stays is what the hardware allows (the copy out of the page cache);
// mapping the file and copying costs a fault a page besides, and would turn a file cut short while
// it is read into a SIGBUS. Of what is not in the page cache each thread keeps several direct reads
// under way in a ring of its own, and finds pages for the next while they go on.
#include "workers/gpu/reader.h"

#include "common/log.h"
#include "common/thread.h"
#include "workers/gpu/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    S_PIECE = 8 << 20,
    S_PAGE = 4096,
    S_MAX_THREADS = 256,
    S_DEPTH = 16,      // direct reads under way at once, of all threads
    S_LEAST_DEPTH = 2, // of one thread
    S_SYS_CACHESTAT = 451,
};

typedef struct {
    pthread_mutex_t lock; // of what follows, up to error
    const lade_reader_part_t *parts;
    size_t count;
    size_t part; // the next piece is at offset of this part
    uint64_t offset;
    int direct;    // direct_of opened for direct reads, -1: cannot be
    int direct_of; // the file of the last piece, -1: none yet
    int *opened;   // all of those, to be closed at the end
    size_t opened_count;
    lade_error_t error; // the first that happened
    atomic_bool stop;
    atomic_uint_fast64_t done;
    unsigned depth; // of a thread's ring; 0: no rings
} s_read_t;

typedef struct {
    const lade_reader_part_t *part;
    uint64_t offset;
    size_t len;
    int direct; // -1: not to be read past the page cache
} s_piece_t;

// ---------------------------------------------------------------------------------------------------
// What the system allows, of the whole process: found out by trying, and told once

typedef enum { S_URING, S_THREADS, S_BUFFERED } s_engine_t;
static const char *const s_engines[] = {"uring", "threads", "buffered"};

static struct {
    pthread_mutex_t lock;
    char why[200]; // the last reason, "" for none
} s_reason = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_int s_engine = S_URING;
static atomic_bool s_told[2]; // by the engine that could not be
static atomic_uint_fast64_t s_direct_bytes, s_cached_bytes;

// One of the ways is closed: says so the first time, and goes on with the next.
static void
s_without(s_engine_t what, lade_log_level_t level, const char *why, int errnum)
{
    static const char *const words[] = {
        [S_URING] = "no io_uring",
        [S_THREADS] = "no direct reads",
    };
    if (atomic_exchange(&s_told[what], true))
        return;
    char text[sizeof s_reason.why];
    snprintf(text, sizeof text, "%s: %s%s%s", words[what], why, errnum ? ": " : "",
             errnum ? strerror(errnum) : "");
    pthread_mutex_lock(&s_reason.lock);
    memcpy(s_reason.why, text, sizeof text);
    pthread_mutex_unlock(&s_reason.lock);
    lade_log(level, "reader", "%s; models are read all the same, more slowly", text);
}

lade_code_t
lade_reader_choose(const char *io, lade_error_t *error)
{
    static const struct {
        const char *word;
        s_engine_t engine;
    } words[] = {
        {"auto", S_URING}, {"uring", S_URING}, {"threads", S_THREADS}, {"buffered", S_BUFFERED}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(words[i].word, io) != 0)
            continue;
        for (size_t way = 0; way < 2; way++)
            atomic_store(&s_told[way], false);
        pthread_mutex_lock(&s_reason.lock);
        s_reason.why[0] = '\0';
        pthread_mutex_unlock(&s_reason.lock);
        atomic_store(&s_engine, words[i].engine);
        if (words[i].engine == S_THREADS)
            s_without(S_URING, LADE_LOG_INFO, "load.io is threads", 0);
        if (words[i].engine == S_BUFFERED)
            s_without(S_THREADS, LADE_LOG_INFO, "load.io is buffered", 0);
        return LADE_OK;
    }
    return lade_error_set(error, LADE_CONFIG_ERROR,
                          "load.io: '%s' is not auto, uring, threads or buffered", io);
}

json_t *
lade_reader_stats(void)
{
    pthread_mutex_lock(&s_reason.lock);
    json_t *stats = json_pack("{s:s, s:s?, s:I, s:I}", "engine", s_engines[atomic_load(&s_engine)],
                              "why", *s_reason.why ? s_reason.why : NULL, "direct_bytes",
                              (json_int_t)atomic_load(&s_direct_bytes), "cached_bytes",
                              (json_int_t)atomic_load(&s_cached_bytes));
    pthread_mutex_unlock(&s_reason.lock);
    return stats;
}

// ---------------------------------------------------------------------------------------------------
// The page cache

// Bytes of the range that are in the page cache, by a call of Linux 6.5. False if there is none.
static bool
s_cachestat(int fd, uint64_t from, uint64_t len, uint64_t *bytes_p)
{
    struct {
        uint64_t off, len;
    } range = {from, len};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } found = {0};
    if (syscall(S_SYS_CACHESTAT, fd, &range, &found, 0) != 0)
        return false;
    *bytes_p = found.cached * (uint64_t)sysconf(_SC_PAGESIZE);
    return true;
}

// Older kernels: its first and last page can be had without waiting. What is read is what belongs
// there.
static bool
s_is_at_hand(int fd, uint64_t from, uint64_t len, uint8_t *to)
{
    for (int end = 0; end < 2; end++) {
        uint64_t at = end ? len - 1 : 0;
        struct iovec one = {to + at, 1};
        if (preadv2(fd, &one, 1, (off_t)(from + at), RWF_NOWAIT) == 1)
            continue;
        return errno == EOPNOTSUPP ||
               errno == ENOSYS; // a file system that cannot say: read plainly
    }
    return true;
}

static bool
s_is_cached(const lade_reader_part_t *part, uint64_t offset, uint64_t len)
{
    uint64_t bytes;
    if (s_cachestat(part->fd, part->from + offset, len, &bytes))
        return bytes * 2 >= len;
    return s_is_at_hand(part->fd, part->from + offset, len, part->to + offset);
}

// ---------------------------------------------------------------------------------------------------
// Pieces

static void
s_fail(s_read_t *self, const lade_error_t *error)
{
    pthread_mutex_lock(&self->lock);
    if (!self->error.code)
        self->error = *error;
    pthread_mutex_unlock(&self->lock);
    atomic_store(&self->stop, true);
}

static bool
s_lies_alike(const lade_reader_part_t *part)
{
    return ((uintptr_t)part->to - part->from) % S_PAGE == 0;
}

// Opens the file of the part the pieces are now of for direct reads, if it is worth it. Files whose
// file system has none are read through the page cache.
static void
s_open_direct(s_read_t *self)
{
    const lade_reader_part_t *part = &self->parts[self->part];
    if (part->fd == self->direct_of)
        return;
    char path[64];
    self->direct = -1;
    self->direct_of = part->fd;
    if (atomic_load(&s_engine) == S_BUFFERED || !self->opened)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", part->fd);
    self->direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY);
    if (self->direct >= 0) {
        self->opened[self->opened_count++] = self->direct;
        // The odd bytes at a part's ends must not have the kernel read ahead what we read
        // ourselves.
        posix_fadvise(part->fd, 0, 0, POSIX_FADV_RANDOM);
    } else if (errno == EINVAL)
        s_without(S_THREADS, LADE_LOG_WARNING, part->name, errno);
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
        s_open_direct(self);
        uint64_t left = part->len - self->offset;
        uint64_t len = S_PIECE - (part->from + self->offset) % S_PIECE;
        *piece = (s_piece_t){part, self->offset, len < left ? len : left,
                             s_lies_alike(part) ? self->direct : -1};
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

// Reads a range of a part through a descriptor. What a direct one does not give (the unaligned rest
// after a short read, a file system that has second thoughts) is left, and *done_p says how much
// was read.
static lade_code_t
s_pread(const lade_reader_part_t *part, int fd, uint64_t offset, uint64_t len, uint64_t *done_p,
        lade_error_t *error)
{
    bool direct = fd != part->fd;
    while (*done_p < len) {
        uint64_t at = offset + *done_p;
        ssize_t got = pread(fd, part->to + at, len - *done_p, (off_t)(part->from + at));
        if (got > 0)
            *done_p += (uint64_t)got;
        else if (got < 0 && errno == EINTR)
            continue;
        else if (direct) {
            if (got < 0 && errno == EINVAL)
                s_without(S_THREADS, LADE_LOG_WARNING, part->name, errno);
            return LADE_OK;
        } else if (got == 0)
            return lade_error_set(error, LADE_CORRUPT,
                                  "%s ends at byte %llu: it was cut while it was read", part->name,
                                  (unsigned long long)(part->from + at));
        else if (errno == EFAULT)
            return lade_error_set(error, LADE_NO_MEMORY, "the system has no memory for %s",
                                  part->name);
        else
            return lade_error_errno(error, errno, "reading %s", part->name);
        if (direct && *done_p % S_PAGE)
            return LADE_OK;
    }
    return LADE_OK;
}

// The pages that lie wholly within a piece, which is what can be read past the page cache. False if
// there are none.
static bool
s_whole_pages(const s_piece_t *piece, uint64_t *offset_p, uint64_t *len_p)
{
    uint64_t from = piece->part->from + piece->offset, to = from + piece->len;
    uint64_t first = (from + S_PAGE - 1) / S_PAGE * S_PAGE, last = to / S_PAGE * S_PAGE;
    *offset_p = piece->offset + (first - from);
    *len_p = last > first ? last - first : 0;
    return *len_p > 0;
}

// Reads what of a piece lies outside of the done bytes from offset on, through the page cache.
static lade_code_t
s_read_rest(s_read_t *self, const s_piece_t *piece, uint64_t offset, uint64_t done,
            lade_error_t *error)
{
    const lade_reader_part_t *part = piece->part;
    uint64_t head = offset - piece->offset, tail_at = offset + done, begun = 0;
    lade_code_t code = s_pread(part, part->fd, piece->offset, head, &begun, error);
    begun = 0;
    if (!code)
        code =
            s_pread(part, part->fd, tail_at, piece->offset + piece->len - tail_at, &begun, error);
    if (!code) {
        atomic_fetch_add(&self->done, piece->len);
        atomic_fetch_add(&s_direct_bytes, done);
        atomic_fetch_add(&s_cached_bytes, piece->len - done);
    }
    return code;
}

// ---------------------------------------------------------------------------------------------------
// A thread's work

typedef struct {
    s_read_t *read;
    bool tried;        // to make a ring
    lade_ring_t *ring; // NULL: reads wait for their ends
    s_piece_t *pieces; // under way, by tag
    uint64_t *free_tags;
    size_t free_count;
} s_hand_t;

// Makes the ring when there is a first read for it: models in the page cache need none.
static bool
s_has_ring(s_hand_t *self)
{
    unsigned depth = self->read->depth;
    if (self->tried || !depth)
        return self->ring;
    self->tried = true;
    self->pieces = calloc(depth, sizeof *self->pieces);
    self->free_tags = calloc(depth, sizeof *self->free_tags);
    int errnum = self->pieces && self->free_tags ? lade_ring_new(depth, &self->ring) : ENOMEM;
    if (errnum == ENOSYS || errnum == EPERM || errnum == EACCES) {
        s_without(S_URING, LADE_LOG_WARNING, "the system refuses it", errnum);
        atomic_store(&s_engine, S_THREADS);
    }
    for (; self->ring && self->free_count < depth; self->free_count++)
        self->free_tags[self->free_count] = self->free_count;
    return self->ring;
}

static void
s_hand_close(s_hand_t *self)
{
    lade_ring_destroy(&self->ring);
    free(self->pieces);
    free(self->free_tags);
}

// Begins a piece in the ring, or reads it.
static lade_code_t
s_begin(s_hand_t *self, const s_piece_t *piece, lade_error_t *error)
{
    uint64_t offset = piece->offset, len = 0, done = 0;
    const lade_reader_part_t *part = piece->part;
    lade_code_t code = s_touch(piece, error);
    bool direct = piece->direct >= 0 && s_whole_pages(piece, &offset, &len) &&
                  !s_is_cached(part, offset, len);
    if (code || !direct)
        return code ? code : s_read_rest(self->read, piece, piece->offset, 0, error);
    if (s_has_ring(self)) {
        uint64_t tag = self->free_tags[self->free_count - 1];
        self->pieces[tag] = *piece;
        if (!lade_ring_read(self->ring, piece->direct, part->to + offset, len, part->from + offset,
                            tag)) {
            self->free_count--;
            return LADE_OK;
        }
    }
    code = s_pread(part, piece->direct, offset, len, &done, error);
    return code ? code : s_read_rest(self->read, piece, offset, done / S_PAGE * S_PAGE, error);
}

// Waits for one of the ring's reads. What it did not bring is read plainly, which also finds out
// what is wrong.
static lade_code_t
s_end(s_hand_t *self, lade_error_t *error)
{
    uint64_t tag, offset, len;
    int64_t got;
    lade_ring_wait(self->ring, &tag, &got);
    s_piece_t piece = self->pieces[tag];
    self->free_tags[self->free_count++] = tag;
    s_whole_pages(&piece, &offset, &len);
    uint64_t done = got > 0 ? (uint64_t)got / S_PAGE * S_PAGE : 0;
    return s_read_rest(self->read, &piece, offset, done, error);
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
    s_piece_t piece;
    lade_error_t error = {0};
    for (;;) {
        if (step && !atomic_load(&read->stop) && !step(arg, atomic_load(&read->done))) {
            lade_error_set(&error, LADE_CANCELLED, "stopped while reading");
            s_fail(read, &error);
        }
        lade_code_t code;
        if (!s_is_full(&self) && s_take(read, &piece))
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
        if (parts[i].len && s_cachestat(parts[i].fd, parts[i].from, parts[i].len, &cached))
            cold += cached < parts[i].len ? parts[i].len - cached : 0;
    return cold;
}

// How many threads besides the caller's. One more costs about 50 microseconds, which is a piece's
// time; so there is one for two pieces. Without rings a disk is kept busy by more threads than
// cores, which mostly wait.
static size_t
s_helpers(s_read_t *self, size_t threads)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < self->count; i++)
        bytes += self->parts[i].len;
    uint64_t useful = bytes / (2 * S_PIECE);
    if (atomic_load(&s_engine) == S_THREADS && threads < S_DEPTH / 2 &&
        s_cold_bytes(self->parts, self->count) * 2 > bytes)
        threads = S_DEPTH / 2;
    threads = threads < S_MAX_THREADS ? threads : S_MAX_THREADS;
    threads = threads < useful ? threads : (size_t)useful;
    threads = threads ? threads : 1;
    if (atomic_load(&s_engine) == S_URING)
        self->depth =
            S_DEPTH / threads > S_LEAST_DEPTH ? S_DEPTH / (unsigned)threads : S_LEAST_DEPTH;
    return threads - 1;
}

lade_code_t
lade_reader_read(const lade_reader_part_t *parts, size_t count, size_t threads,
                 bool (*step)(void *arg, uint64_t bytes), void *arg, lade_error_t *error)
{
    s_read_t self = {.parts = parts, .count = count, .direct = -1, .direct_of = -1};
    pthread_t helpers[S_MAX_THREADS];
    size_t started = 0, wanted = s_helpers(&self, threads);
    self.opened = calloc(count + 1, sizeof *self.opened); // without it nothing is read directly
    pthread_mutex_init(&self.lock, NULL);
    while (started < wanted && lade_thread_start(&helpers[started], s_thread, &self))
        started++;
    s_work(&self, step, arg);
    for (size_t i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);
    for (size_t i = 0; i < self.opened_count; i++)
        close(self.opened[i]);
    free(self.opened);
    pthread_mutex_destroy(&self.lock);
    if (self.error.code && error)
        *error = self.error;
    if (!self.error.code && step)
        step(arg, atomic_load(&self.done));
    return self.error.code;
}
