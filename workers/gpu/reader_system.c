// How this process reads, found out by trying and told once; and what is in the page cache.
#include "workers/gpu/reader_private.h"

#include "common/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { S_SYS_CACHESTAT = 451 };

static const char *const s_engines[] = {"uring", "threads", "buffered"};

static struct {
    pthread_mutex_t lock;
    char why[200]; // the last reason, "" for none
} s_reason = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_int s_engine = LADE_READER_URING;
static atomic_bool s_told[2]; // by the engine that could not be
static atomic_uint_fast64_t s_direct_bytes, s_cached_bytes;

void
lade_reader_without(lade_reader_engine_t what, lade_log_level_t level, const char *why, int errnum)
{
    static const char *const words[] = {
        [LADE_READER_URING] = "no io_uring",
        [LADE_READER_THREADS] = "no direct reads",
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
        lade_reader_engine_t engine;
    } words[] = {{"auto", LADE_READER_URING},
                 {"uring", LADE_READER_URING},
                 {"threads", LADE_READER_THREADS},
                 {"buffered", LADE_READER_BUFFERED}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(words[i].word, io) != 0)
            continue;
        for (size_t way = 0; way < 2; way++)
            atomic_store(&s_told[way], false);
        pthread_mutex_lock(&s_reason.lock);
        s_reason.why[0] = '\0';
        pthread_mutex_unlock(&s_reason.lock);
        atomic_store(&s_engine, words[i].engine);
        if (words[i].engine == LADE_READER_THREADS)
            lade_reader_without(LADE_READER_URING, LADE_LOG_INFO, "load.io is threads", 0);
        if (words[i].engine == LADE_READER_BUFFERED)
            lade_reader_without(LADE_READER_THREADS, LADE_LOG_INFO, "load.io is buffered", 0);
        return LADE_OK;
    }
    return lade_error_set(error, LADE_CONFIG_ERROR,
                          "load.io: '%s' is not auto, uring, threads or buffered", io);
}

lade_reader_engine_t
lade_reader_engine(void)
{
    return atomic_load(&s_engine);
}

void
lade_reader_no_ring(int errnum)
{
    lade_reader_without(LADE_READER_URING, LADE_LOG_WARNING, "the system refuses it", errnum);
    atomic_store(&s_engine, LADE_READER_THREADS);
}

void
lade_reader_count(uint64_t direct_bytes, uint64_t cached_bytes)
{
    atomic_fetch_add(&s_direct_bytes, direct_bytes);
    atomic_fetch_add(&s_cached_bytes, cached_bytes);
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

// By a call of Linux 6.5.
bool
lade_reader_cached(int fd, uint64_t from, uint64_t len, uint64_t *bytes_p)
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

// Older kernels: its first and last page can be had without waiting.
static bool
s_is_at_hand(int fd, uint64_t from, uint64_t len)
{
    for (int end = 0; end < 2; end++) {
        uint8_t byte;
        struct iovec one = {&byte, 1};
        if (preadv2(fd, &one, 1, (off_t)(end ? from + len - 1 : from), RWF_NOWAIT) == 1)
            continue;
        return errno == EOPNOTSUPP ||
               errno == ENOSYS; // a file system that cannot say: read plainly
    }
    return true;
}

bool
lade_reader_is_at_hand(int fd, uint64_t from, uint64_t len)
{
    uint64_t bytes;
    if (lade_reader_cached(fd, from, len, &bytes))
        return bytes * 2 >= len;
    return s_is_at_hand(fd, from, len);
}
