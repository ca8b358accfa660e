// Content hashes: murmur3, imohash over it, digests, and what a folder's hash is.
#include "common/hash.h"

#include "common/blake3.h"
#include "common/hasher.h"
#include "common/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    S_SAMPLE = 16384,
    S_THRESHOLD = 131072,
    S_PIECE = 1 << 20,      // bytes between two questions whether to stop
    S_MAX_FILES = 100000,   // weight files in one folder
    S_MAX_DEPTH = 20,       // folders below the one given
    S_MAX_FULL = 256 << 20, // a file imohash takes whole, with a threshold far from the usual
};

// ---------------------------------------------------------------------------------------------------
// murmur3 x64 128

static const uint64_t S_C1 = 0x87c37b91114253d5, S_C2 = 0x4cf5ad432745937f;

static uint64_t
s_rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t
s_finish(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccd;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53;
    return x ^ x >> 33;
}

// Up to 8 bytes, the first the lowest.
static uint64_t
s_little(const uint8_t *bytes, size_t len)
{
    uint64_t x = 0;
    for (size_t i = 0; i < len; i++)
        x |= (uint64_t)bytes[i] << 8 * i;
    return x;
}

static void
s_store_big(uint64_t x, uint8_t *out)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(x >> (56 - 8 * i));
}

void
lade_hash_murmur3(const void *data, size_t len, uint8_t out[16])
{
    const uint8_t *at = data;
    uint64_t h1 = 0, h2 = 0;
    size_t left = len;
    for (; left >= 16; at += 16, left -= 16) {
        h1 ^= s_rotate(s_little(at, 8) * S_C1, 31) * S_C2;
        h1 = (s_rotate(h1, 27) + h2) * 5 + 0x52dce729;
        h2 ^= s_rotate(s_little(at + 8, 8) * S_C2, 33) * S_C1;
        h2 = (s_rotate(h2, 31) + h1) * 5 + 0x38495ab5;
    }
    if (left > 8)
        h2 ^= s_rotate(s_little(at + 8, left - 8) * S_C2, 33) * S_C1;
    if (left)
        h1 ^= s_rotate(s_little(at, left < 8 ? left : 8) * S_C1, 31) * S_C2;
    h1 ^= len;
    h2 ^= len;
    h1 += h2;
    h2 += h1;
    h1 = s_finish(h1);
    h2 = s_finish(h2);
    h1 += h2;
    h2 += h1;
    s_store_big(h1, out);
    s_store_big(h2, out + 8);
}

// ---------------------------------------------------------------------------------------------------
// Files

static lade_code_t
s_open(const char *path, int *fd_p, uint64_t *size_p, lade_error_t *error)
{
    struct stat st;
    *fd_p = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd_p < 0)
        return lade_error_errno(error, errno, "cannot open %s", path);
    if (fstat(*fd_p, &st) == 0 && S_ISREG(st.st_mode)) {
        *size_p = (uint64_t)st.st_size;
        return LADE_OK;
    }
    close(*fd_p);
    return lade_error_set(error, LADE_IO_ERROR, "%s is no regular file", path);
}

static lade_code_t
s_read_at(int fd, const char *path, uint64_t offset, uint8_t *data, size_t len, lade_error_t *error)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = pread(fd, data + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lade_error_errno(error, errno, "reading %s", path);
        if (n == 0)
            return lade_error_set(error, LADE_IO_ERROR, "%s became shorter while it was read",
                                  path);
        got += (size_t)n;
    }
    return LADE_OK;
}

// The whole of a small file, or three samples of a big one: start, middle, end.
static lade_code_t
s_imohash(int fd, const char *path, uint64_t size, uint64_t sample, uint64_t threshold,
          uint8_t out[16], lade_error_t *error)
{
    bool sampled = sample > 0 && size >= threshold && threshold > 2 * sample;
    uint64_t len = sampled ? 3 * sample : size;
    if (len > S_MAX_FULL)
        return lade_error_set(error, LADE_TOO_LARGE,
                              "%s: imohash would read %llu bytes at once, %d are the most", path,
                              (unsigned long long)len, S_MAX_FULL);
    uint8_t *data = malloc(len ? len : 1);
    if (!data)
        return lade_error_set(error, LADE_NO_MEMORY, "no memory to hash %s", path);
    lade_code_t code;
    if (sampled) {
        code = s_read_at(fd, path, 0, data, sample, error);
        if (!code)
            code = s_read_at(fd, path, size / 2, data + sample, sample, error);
        if (!code)
            code = s_read_at(fd, path, size - sample, data + 2 * sample, sample, error);
    } else {
        code = s_read_at(fd, path, 0, data, len, error);
    }
    if (!code) {
        lade_hash_murmur3(data, len, out);
        size_t i = 0; // the size, seven bits a byte, over the first bytes of the hash
        for (; size >= 0x80; size >>= 7)
            out[i++] = (uint8_t)(size | 0x80);
        out[i] = (uint8_t)size;
    }
    free(data);
    return code;
}

lade_code_t
lade_hash_imohash(const char *path, uint32_t sample_size, uint64_t sample_threshold,
                  uint8_t out[16], lade_error_t *error)
{
    int fd;
    uint64_t size;
    lade_code_t code = s_open(path, &fd, &size, error);
    if (code)
        return code;
    code = s_imohash(fd, path, size, sample_size, sample_threshold, out, error);
    close(fd);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// One file

typedef struct {
    const char *algorithm; // a digest's name, or NULL: imohash
    size_t size;           // bytes of a hash
    bool (*stop)(void *arg);
    void *arg;
    bool (*step)(void *arg, int64_t bytes); // or NULL
} s_work_t;

static lade_code_t
s_stopped(const char *path, lade_error_t *error)
{
    return lade_error_set(error, LADE_CANCELLED, "stopped while hashing %s", path);
}

static lade_code_t
s_pieces(const s_work_t *work, int fd, const char *path, uint64_t size, lade_hasher_t *hasher,
         uint8_t *piece, lade_error_t *error)
{
    for (uint64_t at = 0; at < size;) {
        if (work->stop && work->stop(work->arg))
            return s_stopped(path, error);
        size_t len = size - at < S_PIECE ? (size_t)(size - at) : S_PIECE;
        lade_code_t code = s_read_at(fd, path, at, piece, len, error);
        if (code)
            return code;
        lade_hasher_add(hasher, piece, len);
        at += len;
        if (work->step && !work->step(work->arg, (int64_t)len))
            return s_stopped(path, error);
    }
    return LADE_OK;
}

static lade_code_t
s_digest(const s_work_t *work, const char *path, uint8_t *out, lade_error_t *error)
{
    int fd;
    uint64_t size;
    lade_hasher_t *hasher = NULL;
    lade_code_t code = s_open(path, &fd, &size, error);
    if (code)
        return code;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    uint8_t *piece = malloc(S_PIECE);
    code = piece ? lade_hasher_new(work->algorithm, &hasher, error)
                 : lade_error_set(error, LADE_NO_MEMORY, "no memory to hash %s", path);
    if (!code)
        code = s_pieces(work, fd, path, size, hasher, piece, error);
    if (!code)
        lade_hasher_end(hasher, out);
    lade_hasher_destroy(&hasher);
    free(piece);
    close(fd);
    return code;
}

static lade_code_t
s_hash_file(const s_work_t *work, const char *path, uint8_t *out, lade_error_t *error)
{
    if (work->algorithm)
        return s_digest(work, path, out, error);
    if (work->stop && work->stop(work->arg))
        return s_stopped(path, error);
    return lade_hash_imohash(path, S_SAMPLE, S_THRESHOLD, out, error);
}

static char *
s_to_hex(const uint8_t *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * len] = '\0';
    return out;
}

// ---------------------------------------------------------------------------------------------------
// Folders

// The suffixes of the original, and those that count where there is none of them: to it all folders
// of GGUF or ONNX files have one and the same hash.
static const char *const s_suffixes[] = {".safetensors", ".ckpt", ".bin", ".pt", ".pth", NULL};
static const char *const s_other_suffixes[] = {".gguf", ".onnx", NULL};

static bool
s_has_suffix(const char *name, const char *const *suffixes)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && suffixes[i]; i++)
        if (strcasecmp(dot, suffixes[i]) == 0)
            return true;
    return false;
}

static bool
s_is_weight(const char *name)
{
    return s_has_suffix(name, s_suffixes) || s_has_suffix(name, s_other_suffixes);
}

// Leaves only files of the one kind if there are any.
static void
s_keep_usual(char **files, size_t *count_p)
{
    size_t usual = 0, kept = 0;
    for (size_t i = 0; i < *count_p; i++)
        usual += s_has_suffix(files[i], s_suffixes);
    for (size_t i = 0; usual && i < *count_p; i++) {
        if (s_has_suffix(files[i], s_suffixes))
            files[kept++] = files[i];
        else
            free(files[i]);
    }
    *count_p = usual ? kept : *count_p;
}

static int
s_by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool
s_is_file(const FTSENT *entry)
{
    struct stat st; // a link counts if it points to a file; folders behind links are not entered
    return entry->fts_info == FTS_F ||
           (entry->fts_info == FTS_SL && stat(entry->fts_accpath, &st) == 0 && S_ISREG(st.st_mode));
}

static lade_code_t
s_walk(FTS *fts, const char *folder, char **files, size_t *count_p, lade_error_t *error)
{
    for (FTSENT *entry; (entry = fts_read(fts));) {
        if (entry->fts_info == FTS_ERR || entry->fts_info == FTS_DNR)
            return lade_error_errno(error, entry->fts_errno, "reading %s", entry->fts_path);
        if (entry->fts_level > S_MAX_DEPTH)
            return lade_error_set(error, LADE_TOO_LARGE, "%s: folders are nested deeper than %d",
                                  folder, S_MAX_DEPTH);
        if (!s_is_weight(entry->fts_name) || !s_is_file(entry))
            continue;
        if (*count_p == S_MAX_FILES)
            return lade_error_set(error, LADE_TOO_LARGE, "%s holds more than %d weight files",
                                  folder, S_MAX_FILES);
        if (!(files[*count_p] = strdup(entry->fts_path)))
            return lade_error_set(error, LADE_NO_MEMORY, "no memory to list %s", folder);
        ++*count_p;
    }
    return LADE_OK;
}

lade_code_t
lade_hash_list(const char *folder, char ***files_p, size_t *count_p, lade_error_t *error)
{
    char *roots[] = {strdup(folder), NULL};
    *count_p = 0;
    *files_p = calloc(S_MAX_FILES, sizeof **files_p);
    FTS *fts = roots[0] && *files_p
                   ? fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL)
                   : NULL;
    lade_code_t code = fts ? s_walk(fts, folder, *files_p, count_p, error)
                           : lade_error_errno(error, errno, "reading %s", folder);
    if (fts)
        fts_close(fts);
    free(roots[0]);
    if (!code) {
        s_keep_usual(*files_p, count_p);
        qsort(*files_p, *count_p, sizeof **files_p, s_by_path);
    }
    return code;
}

// ---------------------------------------------------------------------------------------------------
// The files of a folder, several at once

enum { S_MAX_THREADS = 8, S_ASK_MS = 50 };

typedef struct {
    const s_work_t *work;
    char **files;
    size_t count;
    uint8_t *hashes; // of the files, LADE_HASHER_MOST each
    atomic_size_t next;
    atomic_bool stopped;
    pthread_mutex_t lock; // of what follows
    pthread_cond_t ended;
    size_t running;
    lade_error_t problem; // the first
} s_crew_t;

static bool
s_crew_stopped(void *arg)
{
    return atomic_load(&((s_crew_t *)arg)->stopped);
}

static void *
s_crew_run(void *arg)
{
    s_crew_t *self = arg;
    s_work_t work = *self->work;
    work.stop = s_crew_stopped;
    work.arg = self;
    lade_error_t problem = {0};
    for (size_t at; !s_crew_stopped(self) && (at = atomic_fetch_add(&self->next, 1)) < self->count;)
        if (s_hash_file(&work, self->files[at], self->hashes + at * LADE_HASHER_MOST, &problem))
            atomic_store(&self->stopped, true);
    pthread_mutex_lock(&self->lock);
    bool cancelled = self->problem.code == LADE_CANCELLED; // only since another failed
    if (problem.code && (!self->problem.code || cancelled))
        self->problem = problem;
    self->running--;
    pthread_cond_signal(&self->ended);
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

// Waits for the threads; meanwhile only this one asks whether to stop.
static void
s_crew_wait(s_crew_t *self)
{
    pthread_mutex_lock(&self->lock);
    while (self->running) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += S_ASK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&self->ended, &self->lock, &until);
        pthread_mutex_unlock(&self->lock);
        if (self->work->stop && self->work->stop(self->work->arg))
            atomic_store(&self->stopped, true);
        pthread_mutex_lock(&self->lock);
    }
    pthread_mutex_unlock(&self->lock);
}

static lade_code_t
s_hash_files(const s_work_t *work, char **files, size_t count, uint8_t *hashes, lade_error_t *error)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t wanted = cores > 1 ? (size_t)cores : 1, started = 0;
    wanted = wanted < count ? wanted : count;
    wanted = wanted < S_MAX_THREADS ? wanted : S_MAX_THREADS;
    pthread_t threads[S_MAX_THREADS];
    s_crew_t crew = {.work = work, .files = files, .count = count, .hashes = hashes};
    pthread_mutex_init(&crew.lock, NULL);
    pthread_cond_init(&crew.ended, NULL);
    pthread_mutex_lock(&crew.lock);
    while (started < wanted && lade_thread_start(&threads[started], s_crew_run, &crew))
        started++;
    crew.running = started;
    pthread_mutex_unlock(&crew.lock);
    s_crew_wait(&crew);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&crew.ended);
    pthread_mutex_destroy(&crew.lock);
    if (count && !started)
        return lade_error_set(error, LADE_NO_MEMORY, "no thread to hash %zu files", count);
    return crew.problem.code ? lade_error_set(error, crew.problem.code, "%s", crew.problem.message)
                             : LADE_OK;
}

static lade_code_t
s_hash_folder(const s_work_t *work, const char *folder, uint8_t *out, lade_error_t *error)
{
    char **files = NULL, *text = NULL;
    uint8_t *hashes = NULL;
    size_t count, width = 2 * work->size;
    lade_code_t code = lade_hash_list(folder, &files, &count, error);
    if (!code && work->stop && work->stop(work->arg))
        code = s_stopped(folder, error);
    if (!code &&
        (!(text = malloc(count * width + 1)) || !(hashes = malloc((count + 1) * LADE_HASHER_MOST))))
        code = lade_error_set(error, LADE_NO_MEMORY, "no memory to hash %s", folder);
    if (!code)
        code = s_hash_files(work, files, count, hashes, error);
    for (size_t i = 0; !code && i < count; i++)
        s_to_hex(hashes + i * LADE_HASHER_MOST, work->size, text + i * width);
    if (!code && work->algorithm)
        lade_blake3(text, count * width, out);
    else if (!code)
        lade_hash_murmur3(text, count * width, out);
    for (size_t i = 0; files && i < count; i++)
        free(files[i]);
    free(files);
    free(hashes);
    free(text);
    return code;
}

// ---------------------------------------------------------------------------------------------------
// Any path

lade_code_t
lade_hash_sha256(const char *path, bool (*step)(void *arg, int64_t bytes), void *arg, char hex[65],
                 lade_error_t *error)
{
    uint8_t out[LADE_HASHER_MOST];
    s_work_t work = {.algorithm = "sha256", .size = 32, .arg = arg, .step = step};
    *hex = '\0';
    lade_code_t code = s_digest(&work, path, out, error);
    if (!code)
        s_to_hex(out, 32, hex);
    return code;
}

void
lade_hash_join(const char *hexes, char *text)
{
    uint8_t out[32];
    strcpy(text, "sha256:");
    lade_blake3(hexes, strlen(hexes), out);
    s_to_hex(out, sizeof out, text + strlen(text));
}

bool
lade_hash_algorithm(const char *hash, char *name, size_t size)
{
    lade_hasher_t *hasher;
    size_t len = strcspn(hash, ":");
    if (!hash[len] || len >= size)
        return false;
    memcpy(name, hash, len);
    name[len] = '\0';
    if (strcmp(name, "imohash") == 0)
        return true;
    bool can = lade_hasher_new(name, &hasher, NULL) == LADE_OK;
    lade_hasher_destroy(&hasher);
    return can;
}

// A hash of nothing, another one each time: what the original calls random.
static void
s_random(uint8_t out[32])
{
    uint8_t bytes[16] = {0};
    char hex[33], text[37];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        abort();
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    s_to_hex(bytes, sizeof bytes, hex);
    snprintf(text, sizeof text, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
             hex + 20);
    lade_blake3(text, strlen(text), out);
}

static lade_code_t
s_text(const char *prefix, const uint8_t *bytes, size_t size, char **text_p, lade_error_t *error)
{
    char hex[2 * LADE_HASHER_MOST + 1] = "";
    s_to_hex(bytes, size, hex);
    if (asprintf(text_p, "%s%s%s", prefix, *prefix ? ":" : "", hex) >= 0)
        return LADE_OK;
    *text_p = NULL;
    return lade_error_set(error, LADE_NO_MEMORY, "no memory for a hash");
}

lade_code_t
lade_hash_path(const char *path, const char *algorithm, bool (*stop)(void *arg), void *arg,
               char **text_p, lade_error_t *error)
{
    uint8_t out[LADE_HASHER_MOST] = {0};
    struct stat st;
    *text_p = NULL;
    if (strcmp(algorithm, "none") == 0)
        return s_text("", out, 0, text_p, error);
    bool digest = lade_hasher_knows(algorithm), random = strcmp(algorithm, "random") == 0;
    if (!digest && !random && strcmp(algorithm, "imohash") != 0)
        return lade_error_set(error, LADE_VALUE_ERROR,
                              "there is no hash '%s': take imohash, sha256, none, or one of those "
                              "install.hash lists",
                              algorithm);
    if (stat(path, &st) != 0)
        return lade_error_errno(error, errno, "cannot hash %s", path);
    s_work_t work = {.algorithm = digest ? algorithm : NULL,
                     .size = digest ? lade_hasher_size(algorithm) : 16,
                     .stop = stop,
                     .arg = arg};
    lade_code_t code = LADE_OK;
    if (random)
        s_random(out);
    else
        code = S_ISDIR(st.st_mode) ? s_hash_folder(&work, path, out, error)
                                   : s_hash_file(&work, path, out, error);
    // the last step over a folder is BLAKE3, whatever its files are hashed with
    size_t size = random || (digest && S_ISDIR(st.st_mode)) ? 32 : work.size;
    const char *prefix = digest ? lade_hasher_prefix(algorithm) : algorithm;
    return code ? code : s_text(prefix, out, size, text_p, error);
}
