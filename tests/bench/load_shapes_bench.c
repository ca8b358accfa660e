// How fast models of several shapes come from the disk and from the page cache into shared memory,
// beside what the disk and the memory allow in the same run; with --dtype models of F32 that are
// cast on the way. Run it through tests/bench/load shapes.
//
// Every contestant is a process of its own, so that its memory and its processor time are its own;
// rounds are interleaved, medians compared. Cold: the files are put out of the page cache first.
#include "common/log.h"
#include "common/path.h"
#include "common/want.h"
#include "common/wire.h"
#include "tests/bench/load_attach.h"
#include "workers/gpu/attach.h"
#include "workers/gpu/cache.h"
#include "workers/gpu/transform.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
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
    S_CAST_PIECE = 4 << 20,
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
    const char *dtype; // that is asked for; NULL: as stored
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
    const char *dtype = self->dtype ? "F32" : "F16";
    for (size_t i = 0; i < tensors; i++, at += each)
        lade_buf_addf(&header, NULL,
                      "%c\"blocks.%zu.%zu.weight\":{\"dtype\":\"%s\",\"shape\":[%llu],\"data_"
                      "offsets\":[%llu,%llu]}",
                      i ? ',' : '{', index, i, dtype,
                      (unsigned long long)each / (self->dtype ? 4 : 2), (unsigned long long)at,
                      (unsigned long long)(at + each));
    lade_buf_addf(&header, NULL, "}");
    while (header.len % 8)
        lade_buf_addf(&header, NULL, " ");
    int fd = open(self->paths[index], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t len = header.len, state = index + 1;
    uint32_t *data = malloc(S_PIECE);
    if (fd < 0 || !data || write(fd, &len, 8) != 8 || write(fd, header.data, len) != (ssize_t)len)
        s_die(self->paths[index]);
    for (uint64_t left = at; left;) {
        size_t part = left < S_PIECE ? (size_t)left : S_PIECE;
        for (size_t i = 0; i < S_PIECE / 4; i++) { // of ordinary size as floats, and as halves
            state = state * 6364136223846793005u + 1442695040888963407u;
            data[i] = 0x3c000000 | (uint32_t)(state >> 33 & 0x81ffffff);
        }
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
    uint64_t at, piece;
    pthread_mutex_t lock;
    uint8_t *to;       // NULL: into a piece of the thread's own
    lade_dtype_t cast; // by way of it, as if all of the file were floats; LADE_DTYPE_COUNT: not
} s_plain_t;

// Takes the next piece; false if there is none.
static bool
s_take(s_plain_t *self, size_t *file_p, uint64_t *at_p)
{
    pthread_mutex_lock(&self->lock);
    while (self->file < self->files->shape->files && self->at >= self->files->sizes[self->file])
        self->file++, self->at = 0;
    *file_p = self->file;
    *at_p = self->at;
    self->at += self->piece;
    pthread_mutex_unlock(&self->lock);
    return *file_p < self->files->shape->files;
}

static void *
s_plain_thread(void *arg)
{
    s_plain_t *self = arg;
    bool casts = self->cast != LADE_DTYPE_COUNT;
    uint8_t *own = self->to && !casts ? NULL : aligned_alloc(4096, self->piece);
    size_t file;
    uint64_t at;
    if (own)
        memset(own, 1, self->piece);
    while (s_take(self, &file, &at)) {
        uint64_t base = at;
        for (size_t i = 0; i < file; i++)
            base += (self->files->sizes[i] + 4095) / 4096 * 4096;
        ssize_t got = pread(self->fds[file], own ? own : self->to + base, self->piece, (off_t)at);
        if (got < 0)
            s_die("pread");
        if (casts)
            lade_transform_cast(LADE_DTYPE_F32, own, self->cast,
                                self->to + base / 4 * lade_dtype_size(self->cast),
                                (uint64_t)got / 4);
    }
    free(own);
    return NULL;
}

static void
s_plain(s_plain_t *self, const s_case_t *files, int flags, size_t threads, s_result_t *result)
{
    pthread_t all[64];
    self->files = files;
    self->file = 0;
    self->at = 0;
    pthread_mutex_init(&self->lock, NULL);
    for (size_t i = 0; i < files->shape->files; i++)
        if ((self->fds[i] = open(files->paths[i], O_RDONLY | O_CLOEXEC | flags)) < 0)
            s_die(files->paths[i]);
    double began = s_now(), cpu = s_cpu();
    for (size_t i = 0; i < threads; i++)
        if (pthread_create(&all[i], NULL, s_plain_thread, self))
            s_die("pthread_create");
    for (size_t i = 0; i < threads; i++)
        pthread_join(all[i], NULL);
    result->seconds = s_now() - began;
    result->cpu = s_cpu() - cpu;
}

static lade_want_t
s_want(const s_case_t *self)
{
    lade_want_t want;
    lade_error_t error;
    if (lade_want_read(self->dtype, NULL, NULL, &want, &error)) {
        fprintf(stderr, "load_shapes: %s\n", error.message);
        exit(2);
    }
    return want;
}

// The disk alone: the same bytes with as many reads at once, into memory that is in use already.
static void
s_disk(const s_case_t *self, s_result_t *result)
{
    s_plain_t plain = {.piece = S_PIECE, .cast = LADE_DTYPE_COUNT};
    s_plain(&plain, self, O_DIRECT, S_DEPTH, result);
}

// Shared memory as segments are made of.
static uint8_t *
s_pages(const s_case_t *self)
{
    size_t len = self->bytes + (self->shape->files + 1) * (size_t)S_PIECE;
    uint8_t *pages = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        s_die("mmap");
    madvise(pages, len, MADV_HUGEPAGE);
    return pages;
}

// The page cache alone: read(2) into shared pages that are in use already, by an earlier pass.
static void
s_page_cache(const s_case_t *self, s_result_t *result)
{
    s_plain_t plain = {.piece = S_PIECE, .to = s_pages(self), .cast = LADE_DTYPE_COUNT};
    s_plain(&plain, self, 0, self->threads, result);
    s_plain(&plain, self, 0, self->threads, result);
}

static void
s_page_cache_fresh(const s_case_t *self, s_result_t *result)
{
    s_plain_t plain = {.piece = S_PIECE, .to = s_pages(self), .cast = LADE_DTYPE_COUNT};
    s_plain(&plain, self, 0, self->threads, result);
}

static void
s_memcpy(const s_case_t *self, s_result_t *result)
{
    uint8_t *pages = s_pages(self);
    memset(pages, 1, self->bytes);
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

// Without a reader of its own: threads that each read a piece and cast it, one after the other.
static void
s_read_and_cast(const s_case_t *self, s_result_t *result)
{
    s_plain_t plain = {.piece = S_CAST_PIECE, .to = s_pages(self), .cast = s_want(self).dtype};
    s_plain(&plain, self, 0, self->threads, result);
}

static lade_cache_t *
s_cache_new(const s_case_t *self)
{
    lade_cache_options_t options = {.name = "bench",
                                    .models_dir = self->folder,
                                    .limit = self->bytes + (64 << 20),
                                    .threads = self->threads,
                                    .rows = lade_loaders_host};
    lade_cache_t *cache;
    lade_error_t error;
    if (lade_cache_new(&options, &cache, &error))
        s_die(error.message);
    return cache;
}

static void
s_load(const s_case_t *self, lade_cache_t *cache, bool lock, lade_cache_answer_t *answer)
{
    bool shards = self->shape->files > 1;
    lade_error_t error;
    json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "key", "m", "name", "m", "base",
                               "sd-1", "type", "vae", "format", shards ? "diffusers" : "checkpoint",
                               "path", shards ? self->folder : self->paths[0]);
    lade_cache_request_t request = {
        .record = record, .key = "m", .want = s_want(self), .lock = lock};
    if (lade_cache_load(cache, &request, answer, &error))
        s_die(error.message);
    json_decref(record);
}

static void
s_lade(const s_case_t *self, bool again, s_result_t *result)
{
    lade_cache_t *cache = s_cache_new(self);
    lade_cache_answer_t answer;
    for (int turn = 0; turn <= again; turn++) { // the second time into the pool's pages
        lade_cache_unload(cache, NULL, NULL);
        double began = s_now(), cpu = s_cpu();
        s_load(self, cache, false, &answer);
        result->seconds = s_now() - began;
        result->cpu = s_cpu() - cpu;
    }
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

enum { S_PLAIN = 1, S_CAST = 2, S_BOTH = 3 };

// A row is compared with the last floor before it.
static const struct {
    const char *what;
    int when; // as stored, with a cast
    bool cold, floor;
    void (*run)(const s_case_t *self, s_result_t *result);
} s_rows[] = {
    {"disk: O_DIRECT reads, 16 at once (floor)", S_BOTH, true, true, s_disk},
    {"lade, cold", S_BOTH, true, false, s_lade_fresh},
    {"read(2) and cast, cold", S_CAST, true, false, s_read_and_cast},
    {"mmap and touch, cold", S_PLAIN, true, false, s_map_and_touch},
    {"page cache: read(2), pages in use (floor)", S_BOTH, false, true, s_page_cache},
    {"lade, warm file, pool warm", S_BOTH, false, false, s_lade_pool},
    {"mmap and touch, warm", S_PLAIN, false, false, s_map_and_touch},
    {"memcpy, one thread", S_PLAIN, false, false, s_memcpy},
    {"page cache: read(2), fresh pages (floor)", S_BOTH, false, true, s_page_cache_fresh},
    {"lade, warm file, pool cold", S_BOTH, false, false, s_lade_fresh},
    {"read(2) and cast, warm, fresh pages", S_CAST, false, false, s_read_and_cast},
};
enum { S_ROWS = sizeof s_rows / sizeof *s_rows };

static bool
s_runs(const s_case_t *self, size_t row)
{
    return s_rows[row].when & (self->dtype ? S_CAST : S_PLAIN);
}

// ---------------------------------------------------------------------------------------------------

// Has a process of its own fill in result.
static void
s_fork(const char *what, const s_case_t *self, void (*run)(const s_case_t *, void *result),
       void *result, size_t size, struct rusage *used)
{
    int pipes[2], status;
    if (pipe(pipes))
        s_die("pipe");
    pid_t pid = fork();
    if (!pid) {
        run(self, result);
        _exit(write(pipes[1], result, size) != (ssize_t)size);
    }
    if (read(pipes[0], result, size) != (ssize_t)size || wait4(pid, &status, 0, used) != pid ||
        status)
        s_die(what);
    close(pipes[0]);
    close(pipes[1]);
}

typedef struct {
    s_result_t took;
    size_t row;
} s_turn_t;

static void
s_run_row(const s_case_t *self, void *arg)
{
    s_turn_t *turn = arg;
    s_rows[turn->row].run(self, &turn->took);
}

static s_result_t
s_run(const s_case_t *self, size_t row)
{
    s_turn_t turn = {.row = row};
    struct rusage used;
    (s_rows[row].cold ? s_cool : s_warm)(self);
    s_fork(s_rows[row].what, self, s_run_row, &turn, sizeof turn, &used);
    turn.took.rss_kb = used.ru_maxrss;
    return turn.took;
}

static void
s_run_attach(const s_case_t *self, void *arg)
{
    lade_cache_t *cache = s_cache_new(self);
    lade_cache_answer_t answer;
    lade_attach_t *attach;
    lade_error_t error;
    s_load(self, cache, true, &answer);
    if (lade_attach_new(self->folder, &lade_cache_attach_ops, cache, &attach, &error))
        s_die(error.message);
    *(attach_t *)arg = attach_measure(lade_attach_path(attach), answer.lease);
}

static int
s_by_seconds(const void *a, const void *b)
{
    double x = ((const s_result_t *)a)->seconds, y = ((const s_result_t *)b)->seconds;
    return x < y ? -1 : x > y;
}

// The peak of memory is beside what becomes of the model, which a cast makes smaller.
static void
s_print(const s_case_t *self, s_result_t results[S_ROWS][S_MAX_ROUNDS], size_t rounds,
        const attach_t *attach)
{
    double floor = 1, gb = (double)self->bytes * 1e-9;
    uint64_t size =
        self->dtype ? self->bytes / 4 * lade_dtype_size(s_want(self).dtype) : self->bytes;
    printf("%s, %.2f GB%s%s\n  %-44s %6s %9s %13s %9s %14s\n", self->shape->name, gb,
           self->dtype ? " of fp32 to " : "", self->dtype ? self->dtype : "", "", "GB/s",
           "of floor", "min-max", "CPU s/GB", "RSS - size MiB");
    for (size_t row = 0; row < S_ROWS; row++) {
        s_result_t *all = results[row], *middle = &all[rounds / 2];
        if (!s_runs(self, row))
            continue;
        floor = s_rows[row].floor ? gb / middle->seconds : floor;
        printf("  %-44s %6.2f %9.2f %6.2f-%-6.2f %9.2f %14ld\n", s_rows[row].what,
               gb / middle->seconds, gb / middle->seconds / floor, gb / all[rounds - 1].seconds,
               gb / all[0].seconds, middle->cpu / gb, middle->rss_kb / 1024 - (long)(size >> 20));
    }
    printf("  attaching from a second process, %d times: p50 %.1f us, p99 %.1f us; with index and "
           "one weight p50 %.1f us\n",
           (int)ATTACHES, attach->p50_us, attach->p99_us, attach->first_us);
    fflush(stdout);
}

static void
s_measure(const s_shape_t *shape, const char *above, const char *dtype, uint64_t bytes,
          size_t rounds)
{
    static s_result_t results[S_ROWS][S_MAX_ROUNDS];
    s_case_t self = {
        .shape = shape, .threads = (size_t)sysconf(_SC_NPROCESSORS_ONLN), .dtype = dtype};
    attach_t attach;
    struct rusage used;
    snprintf(self.folder, sizeof self.folder, "%.250s/lade-shapes-XXXXXX", above);
    if (!mkdtemp(self.folder))
        s_die(self.folder);
    s_make(&self, bytes);
    for (size_t round = 0; round < rounds; round++)
        for (size_t row = 0; row < S_ROWS; row++)
            if (s_runs(&self, row))
                results[row][round] = s_run(&self, row);
    s_fork("attaching", &self, s_run_attach, &attach, sizeof attach, &used);
    for (size_t row = 0; row < S_ROWS; row++)
        qsort(results[row], rounds, sizeof results[row][0], s_by_seconds);
    s_print(&self, results, rounds, &attach);
    for (size_t i = 0; i < shape->files; i++)
        free(self.paths[i]);
    lade_path_remove(self.folder, NULL);
}

static void
s_usage(FILE *out)
{
    fprintf(out, "Usage: load shapes [--dtype fp16|bf16] [--shape NAME] [MIB [ROUNDS [FOLDER]]]\n"
                 "  --dtype       models of F32 that are cast on the way\n"
                 "  --shape NAME  one of them: \"one tensor\", \"1,000 tensors\", \"8 shards\"\n");
}

int
main(int argc, char **argv)
{
    static const struct option options[] = {{"dtype", required_argument, NULL, 'd'},
                                            {"shape", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    lade_log_open("load_shapes", LADE_LOG_ERROR);
    if (argc == 4 && !strcmp(argv[1], "--attach"))
        return attach_main(argv[2], argv[3]);
    const char *dtype = NULL, *only = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'd':
            dtype = optarg;
            break;
        case 's':
            only = optarg;
            break;
        default:
            s_usage(option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    argc -= optind;
    argv += optind;
    uint64_t mb = argc > 0 ? strtoull(argv[0], NULL, 10) : 4096;
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 3;
    const char *above = argc > 2 ? argv[2] : "/tmp";
    if (mb < 64 || rounds < 1 || rounds > S_MAX_ROUNDS) {
        s_usage(stderr);
        return 2;
    }
    for (size_t i = 0; i < S_SHAPES; i++)
        if (!only || !strcmp(only, s_shapes[i].name))
            s_measure(&s_shapes[i], above, dtype, mb << 20, rounds);
    return 0;
}
