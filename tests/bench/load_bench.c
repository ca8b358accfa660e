// How fast a model comes from the page cache into shared memory, beside what the machine allows;
// and how long another process takes to attach. Run it through tests/bench/load.
//
// Each round runs every contestant once, one after the other, so that what disturbs the machine
// disturbs them all alike; the medians are compared.
#include "common/log.h"
#include "common/path.h"
#include "common/wire.h"
#include "tests/bench/load_attach.h"
#include "workers/gpu/attach.h"
#include "workers/gpu/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { S_PIECE = 8 << 20, S_MAX_ROUNDS = 99, S_MAX_THREADS = 64, S_SMALL_MB = 64 };

typedef struct {
    size_t mb, rounds, threads;
    bool json;
    char above[300], folder[320]; // the folder is made in above
    int fd;                       // of the large file
    uint64_t bytes;               // of it
    uint8_t *reused;              // as many, all touched
    lade_cache_t *warm;
    lade_attach_t *attach;
} s_bench_t;

static void
s_die(const char *what)
{
    fprintf(stderr, "load_bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int
s_by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// ---------------------------------------------------------------------------------------------------
// Files

// A safetensors file of mb MiB of F16 weights in tensors of 4 MiB.
static char *
s_make_file(const char *folder, const char *name, size_t mb)
{
    enum { S_TENSOR = 4 << 20 };
    char *path = lade_path_join(folder, name);
    lade_buf_t header = LADE_BUF(100 << 20);
    size_t count = (mb << 20) / S_TENSOR;
    for (size_t i = 0; i < count; i++)
        lade_buf_addf(&header, NULL,
                      "%c\"blocks.%zu.weight\":{\"dtype\":\"F16\",\"shape\":[1024,2048],\"data_"
                      "offsets\":[%zu,%zu]}",
                      i ? ',' : '{', i, i * S_TENSOR, (i + 1) * S_TENSOR);
    lade_buf_addf(&header, NULL, "}");
    while (header.len % 8)
        lade_buf_addf(&header, NULL, " ");
    FILE *out = fopen(path, "we");
    uint64_t len = header.len;
    uint8_t *data = malloc(S_TENSOR);
    if (!out || !data || fwrite(&len, 8, 1, out) != 1 || fwrite(header.data, len, 1, out) != 1)
        s_die(path);
    for (size_t i = 0; i < count; i++) {
        memset(data, (int)i, S_TENSOR);
        if (fwrite(data, S_TENSOR, 1, out) != 1)
            s_die(path);
    }
    if (fflush(out) || fdatasync(fileno(out)) ||
        fclose(out)) // nothing is written back while we measure
        s_die(path);
    free(data);
    lade_buf_free(&header);
    return path;
}

// ---------------------------------------------------------------------------------------------------
// The floors: the same bytes with the same threads and pieces, and nothing else

typedef struct {
    const s_bench_t *bench;
    uint8_t *to;
    const uint8_t *from; // NULL: the file
    uint64_t bytes;
    atomic_uint_fast64_t next;
} s_floor_t;

static void *
s_floor_thread(void *arg)
{
    s_floor_t *self = arg;
    uint64_t at;
    while ((at = atomic_fetch_add(&self->next, S_PIECE)) < self->bytes) {
        size_t len = self->bytes - at < S_PIECE ? (size_t)(self->bytes - at) : S_PIECE;
        if (self->from)
            memcpy(self->to + at, self->from + at, len);
        else
            for (size_t done = 0; done < len;) {
                ssize_t got =
                    pread(self->bench->fd, self->to + at + done, len - done, (off_t)(at + done));
                if (got <= 0)
                    s_die("pread");
                done += (size_t)got;
            }
    }
    return NULL;
}

static double
s_floor(const s_bench_t *bench, uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    pthread_t threads[S_MAX_THREADS];
    s_floor_t self = {.bench = bench, .to = to, .from = from, .bytes = bytes};
    double began = s_now();
    for (size_t i = 1; i < bench->threads; i++)
        if (pthread_create(&threads[i], NULL, s_floor_thread, &self))
            s_die("pthread_create");
    s_floor_thread(&self);
    for (size_t i = 1; i < bench->threads; i++)
        pthread_join(threads[i], NULL);
    return (double)bytes / (s_now() - began) * 1e-9;
}

static uint8_t *
s_pages(uint64_t bytes)
{
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        s_die("mmap");
    return pages;
}

static double
s_read_fresh(s_bench_t *bench)
{
    uint8_t *fresh = s_pages(bench->bytes);
    double rate = s_floor(bench, fresh, NULL, bench->bytes);
    munmap(fresh, bench->bytes);
    return rate;
}

static double
s_read_reused(s_bench_t *bench)
{
    return s_floor(bench, bench->reused, NULL, bench->bytes);
}

static double
s_memcpy(s_bench_t *bench)
{
    return s_floor(bench, bench->reused, bench->reused + bench->bytes / 2, bench->bytes / 2);
}

// ---------------------------------------------------------------------------------------------------
// The segment: all of a load but the messages, header, index and table included

static lade_cache_t *
s_cache_new(const s_bench_t *bench)
{
    lade_cache_options_t options = {.name = "bench",
                                    .models_dir = bench->folder,
                                    .limit = (bench->mb + S_SMALL_MB + 64) << 20,
                                    .threads = bench->threads,
                                    .rows = lade_loaders_host};
    lade_cache_t *cache;
    lade_error_t error;
    if (lade_cache_new(&options, &cache, &error)) {
        fprintf(stderr, "load_bench: %s\n", error.message);
        exit(1);
    }
    return cache;
}

static double
s_load(const s_bench_t *bench, lade_cache_t *cache, const char *name, bool lock,
       lade_cache_answer_t *answer)
{
    json_t *record = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "key", name, "name", name, "base",
                               "sd-1", "type", "vae", "format", "checkpoint", "path", name);
    lade_cache_request_t request = {.record = record, .key = name, .lock = lock};
    lade_error_t error;
    double began = s_now();
    if (lade_cache_load(cache, &request, answer, &error)) {
        fprintf(stderr, "load_bench: %s\n", error.message);
        exit(1);
    }
    double took = s_now() - began;
    json_decref(record);
    return (double)bench->bytes / took * 1e-9;
}

static double
s_segment_cold(s_bench_t *bench)
{
    lade_cache_answer_t answer;
    lade_cache_t *cache = s_cache_new(bench);
    double rate = s_load(bench, cache, "large.safetensors", false, &answer);
    lade_cache_destroy(&cache);
    return rate;
}

static double
s_segment_warm(s_bench_t *bench)
{
    lade_cache_answer_t answer;
    lade_cache_unload(bench->warm, NULL, NULL);
    return s_load(bench, bench->warm, "large.safetensors", false, &answer);
}

static const struct {
    const char *name, *what;
    double (*run)(s_bench_t *bench);
} s_contestants[] = {
    {"read_reused", "read(2) into pages in use (the floor)", s_read_reused},
    {"segment_warm", "segment, pool warm", s_segment_warm},
    {"read_fresh", "read(2) into fresh pages", s_read_fresh},
    {"segment_cold", "segment, pool cold", s_segment_cold},
    {"memcpy", "memcpy, pages in use", s_memcpy},
};
enum { S_CONTESTANTS = sizeof s_contestants / sizeof *s_contestants };

static attach_t
s_measure_attach(s_bench_t *bench, const char *name)
{
    lade_cache_answer_t answer;
    s_load(bench, bench->warm, name, true, &answer);
    attach_t result = attach_measure(lade_attach_path(bench->attach), answer.lease);
    lade_cache_unlock(bench->warm, answer.lease);
    return result;
}

// ---------------------------------------------------------------------------------------------------
// The report

static void
s_print(const s_bench_t *bench, double rates[S_CONTESTANTS][S_MAX_ROUNDS], const attach_t *small,
        const attach_t *large)
{
    double floor = rates[0][bench->rounds / 2];
    printf("file in page cache into memory: %zu MiB, %zu threads, %zu rounds, medians\n", bench->mb,
           bench->threads, bench->rounds);
    printf("  %-42s %8s %8s %14s\n", "", "GB/s", "of floor", "min-max");
    for (size_t i = 0; i < S_CONTESTANTS; i++)
        printf("  %-42s %8.2f %8.2f %7.2f-%.2f\n", s_contestants[i].what,
               rates[i][bench->rounds / 2], rates[i][bench->rounds / 2] / floor, rates[i][0],
               rates[i][bench->rounds - 1]);
    printf("attaching from a second process: %d times, microseconds\n", (int)ATTACHES);
    printf("  %-12s %8s %8s %14s %12s %12s %12s\n", "segment", "p50", "p99", "first weight",
           "private KiB", "shared KiB", "touch GB/s");
    const attach_t *attaches[] = {small, large};
    for (size_t i = 0; i < 2; i++)
        printf("  %7zu MiB  %8.1f %8.1f %14.1f %12ld %12ld %12.1f\n",
               i ? bench->mb : (size_t)S_SMALL_MB, attaches[i]->p50_us, attaches[i]->p99_us,
               attaches[i]->first_us, attaches[i]->private_kb, attaches[i]->shared_kb,
               attaches[i]->touch_gbps);
}

static json_t *
s_attach_json(const attach_t *attach, size_t mb)
{
    return json_pack("{s:I, s:f, s:f, s:f, s:I, s:I, s:f}", "mb", (json_int_t)mb, "p50_us",
                     attach->p50_us, "p99_us", attach->p99_us, "first_weight_us", attach->first_us,
                     "private_kb", (json_int_t)attach->private_kb, "shared_kb",
                     (json_int_t)attach->shared_kb, "touch_gbps", attach->touch_gbps);
}

static void
s_print_json(const s_bench_t *bench, double rates[S_CONTESTANTS][S_MAX_ROUNDS],
             const attach_t *small, const attach_t *large)
{
    size_t middle = bench->rounds / 2;
    json_t *loads = json_object();
    for (size_t i = 0; i < S_CONTESTANTS; i++)
        json_object_set_new(loads, s_contestants[i].name,
                            json_pack("{s:f, s:f, s:f, s:f}", "gbps", rates[i][middle], "of_floor",
                                      rates[i][middle] / rates[0][middle], "min", rates[i][0],
                                      "max", rates[i][bench->rounds - 1]));
    json_t *report =
        json_pack("{s:I, s:I, s:I, s:o, s:[o, o]}", "mb", (json_int_t)bench->mb, "threads",
                  (json_int_t)bench->threads, "rounds", (json_int_t)bench->rounds, "load", loads,
                  "attach", s_attach_json(small, S_SMALL_MB), s_attach_json(large, bench->mb));
    json_dumpf(report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(report);
}

// ---------------------------------------------------------------------------------------------------

// As much as the machine can hold five times over, 4 GiB at most.
static size_t
s_choose_mb(const char *folder)
{
    struct statvfs disk;
    uint64_t memory_mb = 0,
             disk_mb = statvfs(folder, &disk) ? 0 : disk.f_bavail * disk.f_frsize >> 20;
    char line[200];
    FILE *in = fopen("/proc/meminfo", "re");
    while (in && fgets(line, sizeof line, in))
        if (sscanf(line, "MemAvailable: %" SCNu64, &memory_mb) == 1)
            break;
    if (in)
        fclose(in);
    memory_mb /= 1024;
    return memory_mb >= 5 * 4096 && disk_mb >= 8192 ? 4096 : 512;
}

static void
s_open(s_bench_t *bench)
{
    lade_error_t error;
    fprintf(stderr, "load_bench: writing %zu MiB into %s\n", bench->mb + S_SMALL_MB, bench->folder);
    char *large = s_make_file(bench->folder, "large.safetensors", bench->mb);
    free(s_make_file(bench->folder, "small.safetensors", S_SMALL_MB));
    bench->fd = open(large, O_RDONLY | O_CLOEXEC);
    bench->bytes = (uint64_t)lade_path_size(large);
    bench->reused = s_pages(bench->bytes);
    free(large);
    s_read_reused(bench); // the file into the page cache, the pages into use
    bench->warm = s_cache_new(bench);
    lade_cache_answer_t answer;
    s_load(bench, bench->warm, "large.safetensors", false, &answer);
    if (lade_attach_new(bench->folder, &lade_cache_attach_ops, bench->warm, &bench->attach,
                        &error)) {
        fprintf(stderr, "load_bench: %s\n", error.message);
        exit(1);
    }
}

static void
s_run(s_bench_t *bench)
{
    static double rates[S_CONTESTANTS][S_MAX_ROUNDS];
    for (size_t round = 0; round < bench->rounds; round++) {
        fprintf(stderr, "load_bench: round %zu of %zu\n", round + 1, bench->rounds);
        for (size_t i = 0; i < S_CONTESTANTS; i++)
            rates[i][round] = s_contestants[i].run(bench);
    }
    for (size_t i = 0; i < S_CONTESTANTS; i++)
        qsort(rates[i], bench->rounds, sizeof rates[i][0], s_by_size);
    attach_t small = s_measure_attach(bench, "small.safetensors"),
             large = s_measure_attach(bench, "large.safetensors");
    (bench->json ? s_print_json : s_print)(bench, rates, &small, &large);
}

static void
s_close(s_bench_t *bench)
{
    lade_attach_destroy(&bench->attach);
    lade_cache_destroy(&bench->warm);
    munmap(bench->reused, bench->bytes);
    close(bench->fd);
}

static void
s_usage(FILE *out)
{
    fprintf(
        out,
        "Usage: load [--quick] [--json] [--mb N] [--rounds N] [--threads N] [--folder DIR]\n"
        "A file in the page cache into a shared segment, beside read(2) and memcpy; attach times.\n"
        "  --quick      512 MiB; else 4 GiB where memory and disk allow\n"
        "  --threads N  preset: one a core\n"
        "  --folder DIR where the files are made and removed; preset: $TMPDIR or /tmp\n");
}

static void
s_read_args(s_bench_t *bench, int argc, char **argv)
{
    static const struct option options[] = {
        {"quick", no_argument, NULL, 'q'},         {"json", no_argument, NULL, 'j'},
        {"mb", required_argument, NULL, 'm'},      {"rounds", required_argument, NULL, 'r'},
        {"threads", required_argument, NULL, 't'}, {"folder", required_argument, NULL, 'f'},
        {"help", no_argument, NULL, 'h'},          {0},
    };
    const char *above = getenv("TMPDIR");
    snprintf(bench->above, sizeof bench->above, "%s", above && *above ? above : "/tmp");
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'q':
            bench->mb = 512;
            break;
        case 'j':
            bench->json = true;
            break;
        case 'm':
            bench->mb = strtoul(optarg, NULL, 10) / 64 * 64;
            break;
        case 'r':
            bench->rounds = strtoul(optarg, NULL, 10);
            break;
        case 't':
            bench->threads = strtoul(optarg, NULL, 10);
            break;
        case 'f':
            snprintf(bench->above, sizeof bench->above, "%s", optarg);
            break;
        default:
            s_usage(option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    bench->mb = bench->mb ? bench->mb : s_choose_mb(bench->above);
    if (bench->rounds < 1 || bench->rounds > S_MAX_ROUNDS || bench->threads < 1 ||
        bench->threads > S_MAX_THREADS) {
        s_usage(stderr);
        exit(2);
    }
}

int
main(int argc, char **argv)
{
    lade_log_open("load_bench", LADE_LOG_ERROR);
    if (argc == 4 && !strcmp(argv[1], "--attach"))
        return attach_main(argv[2], argv[3]);
    s_bench_t bench = {.rounds = 7, .threads = (size_t)sysconf(_SC_NPROCESSORS_ONLN)};
    s_read_args(&bench, argc, argv);
    snprintf(bench.folder, sizeof bench.folder, "%s/lade-bench-XXXXXX", bench.above);
    if (!mkdtemp(bench.folder))
        s_die(bench.folder);
    s_open(&bench);
    s_run(&bench);
    s_close(&bench);
    lade_path_remove(bench.folder, NULL);
    return 0;
}
