// How fast models of several shapes come from the disk and from the page cache into shared memory,
// beside what the disk and the memory allow in the same run. Run it through tests/bench/load
// shapes.
//
// Every contestant is a process of its own, so that its memory and its processor time are its own;
// rounds are interleaved, medians compared. Cold: the files are put out of the page cache first.
#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"
#include "workers/gpu/cache.h"
#include "workers/gpu/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    S_PIECE = 8 << 20,
    S_DEPTH = 16, // reads at once of the disk's floor, as many as lade has under way
    S_MAX_ROUNDS = 21,
    S_MAX_FILES = 16,
};

typedef struct {
    const char *name;
    size_t files, tensors; // in all
} s_shape_t;

static const s_shape_t s_shapes[] = {
    {"one tensor", 1, 1}, {"1,000 tensors", 1, 1000}, {"8 shards", 8, 512}};
enum { S_SHAPES = sizeof s_shapes / sizeof *s_shapes };

typedef struct {
    char folder[300];
    const s_shape_t *shape;
    char *paths[S_MAX_FILES];
    uint64_t sizes[S_MAX_FILES], bytes;
    size_t threads;
} s_case_t;

typedef struct {
    double seconds, cpu;
    long rss_kb;
} s_result_t;

static void
s_die(const char *what)
{
    fprintf(stderr, "load_shapes: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double
s_cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

// ---------------------------------------------------------------------------------------------------
// Files

static void
s_make_file(s_case_t *self, size_t index, uint64_t bytes, size_t tensors)
{
    lade_buf_t header = LADE_BUF(100 << 20);
    uint64_t each = bytes / tensors / 4096 * 4096, at = 0;
    for (size_t i = 0; i < tensors; i++, at += each)
        lade_buf_addf(&header, NULL,
                      "%c\"blocks.%zu.%zu.weight\":{\"dtype\":\"F16\",\"shape\":[%llu],\"data_"
                      "offsets\":[%llu,%llu]}",
                      i ? ',' : '{', index, i, (unsigned long long)each / 2, (unsigned long long)at,
                      (unsigned long long)(at + each));
    lade_buf_addf(&header, NULL, "}");
    while (header.len % 8)
        lade_buf_addf(&header, NULL, " ");
    int fd = open(self->paths[index], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t len = header.len, *data = malloc(S_PIECE), state = index + 1;
    if (fd < 0 || !data || write(fd, &len, 8) != 8 || write(fd, header.data, len) != (ssize_t)len)
        s_die(self->paths[index]);
    for (uint64_t left = at; left;) {
        size_t part = left < S_PIECE ? (size_t)left : S_PIECE;
        for (size_t i = 0; i < S_PIECE / 8; i += 64)
            data[i] = state = state * 6364136223846793005u + 1442695040888963407u;
        if (write(fd, data, part) != (ssize_t)part)
            s_die(self->paths[index]);
        left -= part;
    }
    if (fdatasync(fd) || close(fd))
        s_die(self->paths[index]);
    free(data);
    lade_buf_free(&header);
    self->sizes[index] = (uint64_t)lade_path_size(self->paths[index]);
    self->bytes += self->sizes[index];
}

static void
s_make(s_case_t *self, uint64_t bytes)
{
    const s_shape_t *shape = self->shape;
    for (size_t i = 0; i < shape->files; i++) {
        char name[100];
        snprintf(name, sizeof name, "diffusion_pytorch_model-%05zu-of-%05zu.safetensors", i + 1,
                 shape->files);
        self->paths[i] =
            lade_path_join(self->folder, shape->files > 1 ? name : "model.safetensors");
        s_make_file(self, i, bytes / shape->files, shape->tensors / shape->files);
    }
}

static void
s_cool(const s_case_t *self)
{
    for (size_t i = 0; i < self->shape->files; i++) {
        int fd = open(self->paths[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fdatasync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
            s_die(self->paths[i]);
        close(fd);
    }
}

static void
s_warm(const s_case_t *self)
{
    char *data = malloc(S_PIECE);
    for (size_t i = 0; i < self->shape->files; i++) {
        int fd = open(self->paths[i], O_RDONLY | O_CLOEXEC);
        while (read(fd, data, S_PIECE) > 0)
            ;
        close(fd);
    }
    free(data);
}

// ---------------------------------------------------------------------------------------------------
// Contestants: each fills in what it took

typedef struct {
    const s_case_t *files;
    int fds[S_MAX_FILES];
    size_t file;
    uint64_t at;
    pthread_mutex_t lock;
    uint8_t *to; // NULL: into a piece of the thread's own
    size_t to_len;
} s_plain_t;

static void *
s_plain_thread(void *arg)
{
    s_plain_t *self = arg;
    uint8_t *own = self->to ? NULL : aligned_alloc(4096, S_PIECE);
    uint64_t base = 0;
    if (own)
        memset(own, 1, S_PIECE);
    for (;;) {
        pthread_mutex_lock(&self->lock);
        while (self->file < self->files->shape->files && self->at >= self->files->sizes[self->file])
            self->file++, self->at = 0;
        size_t file = self->file;
        uint64_t at = self->at;
        self->at += S_PIECE;
        pthread_mutex_unlock(&self->lock);
        if (file >= self->files->shape->files)
            break;
        base = 0;
        for (size_t i = 0; i < file; i++)
            base += (self->files->sizes[i] + 4095) / 4096 * 4096;
        if (pread(self->fds[file], own ? own : self->to + base + at, S_PIECE, (off_t)at) < 0)
            s_die("pread");
    }
    free(own);
    return NULL;
}

static void
s_plain(const s_case_t *files, int flags, size_t threads, uint8_t *to, s_result_t *result)
{
    pthread_t all[64];
    s_plain_t self = {.files = files, .to = to};
    pthread_mutex_init(&self.lock, NULL);
    for (size_t i = 0; i < files->shape->files; i++)
        if ((self.fds[i] = open(files->paths[i], O_RDONLY | O_CLOEXEC | flags)) < 0)
            s_die(files->paths[i]);
    double began = s_now(), cpu = s_cpu();
    for (size_t i = 0; i < threads; i++)
        if (pthread_create(&all[i], NULL, s_plain_thread, &self))
            s_die("pthread_create");
    for (size_t i = 0; i < threads; i++)
        pthread_join(all[i], NULL);
    result->seconds = s_now() - began;
    result->cpu = s_cpu() - cpu;
}

// The disk alone: the same bytes with as many reads at once, into memory that is in use already.
static void
s_disk(const s_case_t *self, s_result_t *result)
{
    s_plain(self, O_DIRECT, S_DEPTH, NULL, result);
}

static uint8_t *
s_pages(const s_case_t *self, bool touched)
{
    size_t len = self->bytes + (self->shape->files + 1) * (size_t)S_PIECE;
    uint8_t *pages = mmap(NULL, len, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | (touched ? MAP_POPULATE : 0), -1, 0);
    if (pages == MAP_FAILED)
        s_die("mmap");
    return pages;
}

// The page cache alone: read(2) into shared pages that are in use already.
static void
s_page_cache(const s_case_t *self, s_result_t *result)
{
    s_plain(self, 0, self->threads, s_pages(self, true), result);
}

static void
s_memcpy(const s_case_t *self, s_result_t *result)
{
    uint8_t *pages = s_pages(self, true);
    double began = s_now(), cpu = s_cpu();
    memcpy(pages, pages + self->bytes / 2, self->bytes / 2);
    result->seconds = (s_now() - began) * 2;
    result->cpu = (s_cpu() - cpu) * 2;
}

// What a program does that maps the file: every page is looked at, nothing is copied.
static void
s_map_and_touch(const s_case_t *self, s_result_t *result)
{
    double began = s_now(), cpu = s_cpu();
    for (size_t i = 0; i < self->shape->files; i++) {
        int fd = open(self->paths[i], O_RDONLY | O_CLOEXEC);
        const volatile uint8_t *at = mmap(NULL, self->sizes[i], PROT_READ, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED)
            s_die("mmap");
        for (uint64_t byte = 0; byte < self->sizes[i]; byte += 4096)
            (void)at[byte];
        close(fd);
    }
    result->seconds = s_now() - began;
    result->cpu = s_cpu() - cpu;
}

static void
s_lade(const s_case_t *self, bool again, s_result_t *result)
{
    bool shards = self->shape->files > 1;
    lade_cache_options_t options = {.name = "bench",
                                    .models_dir = self->folder,
                                    .limit = self->bytes + (64 << 20),
                                    .threads = self->threads,
                                    .rows = lade_loaders_host};
    lade_cache_t *cache;
    lade_error_t error;
    lade_cache_answer_t answer;
    json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "key", "m", "name", "m", "base",
                               "sd-1", "type", "vae", "format", shards ? "diffusers" : "checkpoint",
                               "path", shards ? self->folder : self->paths[0]);
    lade_cache_request_t request = {.record = record, .key = "m"};
    if (lade_cache_new(&options, &cache, &error))
        s_die(error.message);
    for (int turn = 0; turn <= again; turn++) { // the second time into the pool's pages
        lade_cache_unload(cache, NULL, NULL);
        double began = s_now(), cpu = s_cpu();
        if (lade_cache_load(cache, &request, &answer, &error))
            s_die(error.message);
        result->seconds = s_now() - began;
        result->cpu = s_cpu() - cpu;
    }
    json_decref(record);
}

static void
s_lade_fresh(const s_case_t *self, s_result_t *result)
{
    s_lade(self, false, result);
}

static void
s_lade_pool(const s_case_t *self, s_result_t *result)
{
    s_lade(self, true, result);
}

static const struct {
    const char *what;
    bool cold, floor;
    void (*run)(const s_case_t *self, s_result_t *result);
} s_rows[] = {
    {"disk: O_DIRECT reads, 16 at once (floor)", true, true, s_disk},
    {"lade, cold", true, false, s_lade_fresh},
    {"mmap and touch, cold", true, false, s_map_and_touch},
    {"page cache: read(2), pages in use (floor)", false, true, s_page_cache},
    {"lade, warm file, pool warm", false, false, s_lade_pool},
    {"lade, warm file, pool cold", false, false, s_lade_fresh},
    {"mmap and touch, warm", false, false, s_map_and_touch},
    {"memcpy, one thread", false, false, s_memcpy},
};
enum { S_ROWS = sizeof s_rows / sizeof *s_rows };

// ---------------------------------------------------------------------------------------------------

static s_result_t
s_run(const s_case_t *self, size_t row)
{
    s_result_t result = {0};
    int pipes[2], status;
    struct rusage used;
    if (s_rows[row].cold)
        s_cool(self);
    else
        s_warm(self);
    if (pipe(pipes))
        s_die("pipe");
    pid_t pid = fork();
    if (!pid) {
        s_rows[row].run(self, &result);
        _exit(write(pipes[1], &result, sizeof result) != sizeof result);
    }
    if (read(pipes[0], &result, sizeof result) != sizeof result ||
        wait4(pid, &status, 0, &used) != pid || status)
        s_die(s_rows[row].what);
    close(pipes[0]);
    close(pipes[1]);
    result.rss_kb = used.ru_maxrss;
    return result;
}

static int
s_by_seconds(const void *a, const void *b)
{
    double x = ((const s_result_t *)a)->seconds, y = ((const s_result_t *)b)->seconds;
    return x < y ? -1 : x > y;
}

static void
s_print(const s_case_t *self, s_result_t results[S_ROWS][S_MAX_ROUNDS], size_t rounds)
{
    double floor = 1, gb = (double)self->bytes * 1e-9;
    printf("%s, %.2f GB\n  %-44s %6s %9s %13s %9s %14s\n", self->shape->name, gb, "", "GB/s",
           "of floor", "min-max", "CPU s/GB", "RSS - size MiB");
    for (size_t row = 0; row < S_ROWS; row++) {
        s_result_t *all = results[row], *middle = &all[rounds / 2];
        floor = s_rows[row].floor ? gb / middle->seconds : floor;
        printf("  %-44s %6.2f %9.2f %6.2f-%-6.2f %9.2f %14ld\n", s_rows[row].what,
               gb / middle->seconds, gb / middle->seconds / floor, gb / all[rounds - 1].seconds,
               gb / all[0].seconds, middle->cpu / gb,
               middle->rss_kb / 1024 - (long)(self->bytes >> 20));
    }
    fflush(stdout);
}

static void
s_measure(const s_shape_t *shape, const char *above, uint64_t bytes, size_t rounds)
{
    static s_result_t results[S_ROWS][S_MAX_ROUNDS];
    s_case_t self = {.shape = shape, .threads = (size_t)sysconf(_SC_NPROCESSORS_ONLN)};
    snprintf(self.folder, sizeof self.folder, "%.250s/lade-shapes-XXXXXX", above);
    if (!mkdtemp(self.folder))
        s_die(self.folder);
    s_make(&self, bytes);
    for (size_t round = 0; round < rounds; round++)
        for (size_t row = 0; row < S_ROWS; row++)
            results[row][round] = s_run(&self, row);
    for (size_t row = 0; row < S_ROWS; row++)
        qsort(results[row], rounds, sizeof results[row][0], s_by_seconds);
    s_print(&self, results, rounds);
    for (size_t i = 0; i < shape->files; i++)
        free(self.paths[i]);
    lade_path_remove(self.folder, NULL);
}

int
main(int argc, char **argv)
{
    uint64_t mb = argc > 1 ? strtoull(argv[1], NULL, 10) : 4096;
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 3;
    const char *above = argc > 3 ? argv[3] : "/tmp";
    if (mb < 64 || rounds < 1 || rounds > S_MAX_ROUNDS) {
        fprintf(stderr, "Usage: load shapes [MIB [ROUNDS [FOLDER]]]\n");
        return 2;
    }
    lade_log_open("load_shapes", LADE_LOG_ERROR);
    for (size_t i = 0; i < S_SHAPES; i++)
        s_measure(&s_shapes[i], above, mb << 20, rounds);
    return 0;
}
