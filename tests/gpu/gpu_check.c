// The loader's parts for devices on a machine with a GPU and little else: conformance, and how fast
// a file comes from the page cache into VRAM. Run it through scripts/gpu-check.
//
//   gpu_check conformance            every device, shared by descriptors and by handles
//   gpu_check load FILE MB ROUNDS    makes FILE and loads it: as stored, cast, with channels last
//   gpu_check attach MB              how long a second process takes to see a block
//   gpu_check kill MB                what is free again when a consumer or a loader is killed
//
// Writes rows of Markdown tables on standard output; the status is 1 if something is wrong.
#include "common/plugin.h"
#include "workers/gpu/conformance.h"

#include <time.h>

enum { S_N = 512, S_C = 228, S_AREA = 9, S_MAX_ROUNDS = 50, S_THREADS = 16 };

static const uint64_t s_tensor = (uint64_t)S_N * S_C * S_AREA * 4;

// Of backend.h, without the host's backend, which needs libraries this program does without.
lade_code_t
lade_backend_find(const char *name, const lade_backend_t **backend_p, lade_error_t *error)
{
    const void *table;
    lade_code_t code = lade_plugin_open(name, LADE_BACKEND_SYMBOL, &table, error);
    *backend_p = table;
    return code;
}

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void
s_die(const char *what, const lade_error_t *error)
{
    fprintf(stderr, "gpu_check: %s: %s\n", what, error ? error->message : strerror(errno));
    exit(1);
}

// Opens the first device.
static const lade_backend_t *
s_open(void **device_p)
{
    const lade_backend_t *backend;
    lade_error_t error = {0};
    lade_backend_options_t options = {0};
    if (lade_backend_find("cuda", &backend, &error) || backend->open(0, &options, device_p, &error))
        s_die("cuda:0", &error);
    return backend;
}

// ---------------------------------------------------------------------------------------------------
// conformance

static int
s_conformance(void)
{
    const lade_backend_t *backend;
    lade_error_t error = {0};
    if (lade_backend_find("cuda", &backend, &error))
        s_die("the plug-in", &error);
    size_t count = backend->count(&error);
    unsigned failures = 0;
    if (!count)
        s_die("no device", &error);
    for (size_t i = 0; i < count; i++)
        for (int plain = 0; plain < 2; plain++) {
            printf(
                "\ncuda:%zu, memory shared by %s\n\n| device | case | result |\n| --- | --- | --- "
                "|\n",
                i, plain ? "IPC handles" : "VMM descriptors");
            failures += conformance_run(backend, i, plain, stdout);
        }
    printf("\n%u expectations failed\n", failures);
    return failures ? 1 : 0;
}

// ---------------------------------------------------------------------------------------------------
// load

// A safetensors file of convolution weights in F32; its bytes before the first of them.
static uint64_t
s_make_file(const char *path, size_t mb, size_t *count_p)
{
    size_t count = ((uint64_t)mb << 20) / s_tensor, room = count * 160 + 64, len = 0;
    char *header = malloc(room);
    float *weight = malloc(s_tensor);
    FILE *out = fopen(path, "we");
    if (!header || !weight || !out)
        s_die(path, NULL);
    for (size_t i = 0; i < count; i++)
        len +=
            (size_t)snprintf(header + len, room - len,
                             "%c\"blocks.%zu.conv.weight\":{\"dtype\":\"F32\",\"shape\":[%d,%d,3,"
                             "3],\"data_offsets\":[%llu,%llu]}",
                             i ? ',' : '{', i, S_N, S_C, (unsigned long long)(i * s_tensor),
                             (unsigned long long)((i + 1) * s_tensor));
    header[len++] = '}';
    while (len % 8)
        header[len++] = ' ';
    uint64_t prefix = len;
    bool good = fwrite(&prefix, 8, 1, out) == 1 && fwrite(header, len, 1, out) == 1;
    for (size_t i = 0; i < s_tensor / 4; i++)
        weight[i] = (float)(int)(i * 37 % 10007) * 0.0002f - 1;
    for (size_t i = 0; good && i < count; i++) {
        weight[0] = (float)i;
        good = fwrite(weight, s_tensor, 1, out) == 1;
    }
    if (!good || fflush(out) || fdatasync(fileno(out)) || fclose(out))
        s_die(path, NULL);
    free(header);
    free(weight);
    *count_p = count;
    return 8 + prefix;
}

typedef struct {
    const char *name;
    lade_dtype_t out;
    bool channels_last;
} s_way_t;

static const s_way_t s_ways[] = {
    {"as stored", LADE_DTYPE_F32, false},          {"cast to fp16", LADE_DTYPE_F16, false},
    {"cast to bf16", LADE_DTYPE_BF16, false},      {"channels last", LADE_DTYPE_F32, true},
    {"channels last, fp16", LADE_DTYPE_F16, true},
};
enum { S_WAYS = sizeof s_ways / sizeof *s_ways };

static void
s_make_runs(lade_run_t *runs, size_t count, int fd, const char *path, uint64_t data_at,
            const s_way_t *way)
{
    uint64_t out = way->out == LADE_DTYPE_F32 ? s_tensor : s_tensor / 2;
    for (size_t i = 0; i < count; i++)
        runs[i] = (lade_run_t){.fd = fd,
                               .name = path,
                               .from = data_at + i * s_tensor,
                               .size = s_tensor,
                               .to = i * out,
                               .in = LADE_DTYPE_F32,
                               .out = way->out,
                               .channels_last = way->channels_last,
                               .shape = {S_N, S_C, 3, 3}};
}

// A few numbers of the last tensor, from where they have to be.
static void
s_assert_right(const lade_backend_t *backend, void *device, const lade_block_t *block, size_t count,
               const s_way_t *way)
{
    conformance_t self = {.backend = backend, .device = device};
    size_t width = way->out == LADE_DTYPE_F32 ? 4 : 2;
    for (size_t i = 1; i < s_tensor / 4; i += 100003) {
        size_t n = i / (S_C * S_AREA), c = i / S_AREA % S_C, at = i % S_AREA;
        size_t place = way->channels_last ? (n * S_AREA + at) * S_C + c : i;
        float value = (float)(int)(i * 37 % 10007) * 0.0002f - 1;
        uint32_t was, is = 0;
        lade_error_t error = {0};
        memcpy(&was, &value, sizeof was);
        uint64_t from = ((count - 1) * (s_tensor / 4) + place) * width;
        EXPECT(&self, !backend->read(device, block, from, &is, width, &error), "%s", error.message);
        EXPECT(&self, conformance_cast_is(is, way->out, was, LADE_DTYPE_F32), "number %zu, %s: %x",
               i, way->name, is);
    }
    if (self.failures)
        exit(1);
}

static int
s_by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int
s_load(const char *path, size_t mb, size_t rounds)
{
    void *device;
    size_t count;
    double seconds[S_WAYS][S_MAX_ROUNDS];
    lade_error_t error = {0};
    const lade_backend_t *backend = s_open(&device);
    uint64_t data_at = s_make_file(path, mb, &count), bytes = count * s_tensor;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    lade_run_t *runs = calloc(count, sizeof *runs);
    lade_block_t block;
    if (fd < 0 || !runs || backend->allocate(device, bytes, &block, &error))
        s_die(path, &error);
    for (size_t round = 0; round <= rounds; round++) // the first one makes the ring
        for (size_t w = 0; w < S_WAYS; w++) {
            s_make_runs(runs, count, fd, path, data_at, &s_ways[w]);
            double began = s_now();
            if (lade_stream_fill(backend, device, &block, runs, count, S_THREADS, false, NULL, NULL,
                                 &error))
                s_die(s_ways[w].name, &error);
            seconds[w][round ? round - 1 : 0] = s_now() - began;
            if (!round)
                s_assert_right(backend, device, &block, count, &s_ways[w]);
        }
    printf("| page cache to VRAM, %zu tensors | GB/s | against as stored |\n| --- | --- | --- |\n",
           count);
    for (size_t w = 0; w < S_WAYS; w++) {
        qsort(seconds[w], rounds, sizeof(double), s_by_size);
        printf("| %s | %.2f | %+.1f %% |\n", s_ways[w].name,
               (double)bytes / seconds[w][rounds / 2] * 1e-9,
               (seconds[w][rounds / 2] / seconds[0][rounds / 2] - 1) * 100);
    }
    lade_block_t again = block; // a block as a loader makes one: allocation and all
    double began = s_now();
    backend->free(device, &again);
    if (backend->allocate(device, bytes, &block, &error))
        s_die("allocating", &error);
    printf("\nallocating and freeing %zu MiB: %.1f ms\n", mb, (s_now() - began) * 1e3);
    backend->free(device, &block);
    backend->close(&device);
    free(runs);
    close(fd);
    return 0;
}

// ---------------------------------------------------------------------------------------------------
// attach and kill: other processes

// Gets a share from descriptor 3 and its descriptor.
static bool
s_receive(lade_share_t *share)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {share, sizeof *share};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    if (recvmsg(3, &message, 0) != (ssize_t)sizeof *share)
        return false;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    share->fd = -1;
    if (head)
        memcpy(&share->fd, CMSG_DATA(head), sizeof share->fd);
    return true;
}

typedef struct {
    double first_ms, again_ms, peek_ms;
    uint64_t seen;
} s_report_t;

// The consumer: attaches twice (the first makes the context, which a program that computes has
// already), looks at the last bytes, says so, and waits for its end.
static int
s_consumer(void)
{
    const lade_backend_t *backend;
    lade_error_t error = {0};
    lade_share_t share;
    lade_import_t import;
    s_report_t report = {0};
    if (lade_backend_find("cuda", &backend, &error) || !s_receive(&share))
        return 1;
    for (int i = 0; i < 2; i++) {
        double began = s_now();
        if (backend->importer->import(&share, &import, &error))
            s_die("importing", &error);
        *(i ? &report.again_ms : &report.first_ms) = (s_now() - began) * 1e3;
        if (!i)
            backend->importer->unimport(&import);
    }
    double began = s_now();
    if (backend->importer->peek(&import, share.bytes - 8, &report.seen, 8, &error))
        s_die("looking", &error);
    report.peek_ms = (s_now() - began) * 1e3;
    char go;
    bool told = send(3, &report, sizeof report, 0) == (ssize_t)sizeof report;
    (void)!recv(3, &go, 1, 0);
    backend->importer->unimport(&import);
    return told ? 0 : 1;
}

// A loader: fills a block, says so, and waits to be killed.
static int
s_loader(const char *mb)
{
    void *device;
    lade_block_t block;
    lade_error_t error = {0};
    const lade_backend_t *backend = s_open(&device);
    if (backend->allocate(device, strtoull(mb, NULL, 10) << 20, &block, &error))
        s_die("allocating", &error);
    char byte = 1;
    if (send(3, &byte, 1, 0) != 1 || recv(3, &byte, 1, 0) < 0)
        return 1;
    return 0;
}

static pid_t
s_spawn(const char *what, const char *argument, int *socket_p)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        s_die("socketpair", NULL);
    pid_t pid = fork();
    if (!pid) {
        if (dup2(ends[1], 3) != 3 || (ends[1] == 3 && fcntl(3, F_SETFD, 0)))
            _exit(127);
        execl("/proc/self/exe", "gpu_check", what, argument, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *socket_p = ends[0];
    return pid;
}

static void
s_send(int socket, const lade_share_t *share)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)share, sizeof *share};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (share->fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &share->fd, sizeof(int));
    }
    if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
        s_die("sendmsg", NULL);
}

// Zeros but for the last eight bytes.
static void
s_fill(const lade_backend_t *backend, void *device, const lade_block_t *block, uint64_t mark)
{
    lade_error_t error = {0};
    lade_run_t run = {.fd = -1,
                      .bytes = (const uint8_t *)&mark,
                      .name = "mark",
                      .size = sizeof mark,
                      .to = block->bytes - sizeof mark};
    if (lade_stream_fill(backend, device, block, &run, 1, 1, false, NULL, NULL, &error))
        s_die("filling", &error);
}

static int
s_attach(size_t mb)
{
    int failed = 0;
    printf("| a second process, %zu MiB | first attach with its context, ms | attach, ms | first "
           "use, ms | right |\n| --- | --- | --- | --- | --- |\n",
           mb);
    for (int plain = 0; plain < 2; plain++) {
        const lade_backend_t *backend;
        lade_error_t error = {0};
        lade_backend_options_t options = {.plain_ipc = plain};
        void *device = NULL;
        lade_block_t block;
        lade_share_t share;
        uint64_t mark = 0x1ade1ade00 + (uint64_t)plain;
        if (lade_backend_find("cuda", &backend, &error) ||
            backend->open(0, &options, &device, &error) ||
            backend->allocate(device, mb << 20, &block, &error) ||
            backend->share(device, &block, &share, &error))
            s_die("sharing", &error);
        s_fill(backend, device, &block, mark);
        share.bytes = block.bytes;
        int socket, status;
        s_report_t report = {0};
        pid_t pid = s_spawn("--consumer", "", &socket);
        s_send(socket, &share);
        bool told = recv(socket, &report, sizeof report, 0) == (ssize_t)sizeof report;
        close(socket);
        waitpid(pid, &status, 0);
        bool right = told && report.seen == mark && status == 0;
        printf("| %s | %.1f | %.2f | %.2f | %s |\n",
               share.kind == LADE_SHARE_VMM ? "VMM descriptor" : "IPC handle", report.first_ms,
               report.again_ms, report.peek_ms, right ? "yes" : "NO");
        failed += !right;
        backend->free(device, &block);
        backend->close(&device);
    }
    return failed ? 1 : 0;
}

// MiB free; after a process ends the driver may take a moment, so it is asked until it is so much.
static double
s_free_mb(const lade_backend_t *backend, void *device, double wanted)
{
    lade_backend_stats_t stats = {0};
    double until = s_now() + 10, mb = 0;
    do {
        backend->stats(device, &stats);
        mb = (double)stats.free / (1 << 20);
    } while (mb < wanted && s_now() < until && !usleep(10000));
    return mb;
}

static int
s_kill(const char *text)
{
    size_t mb = strtoull(text, NULL, 10);
    void *device;
    lade_error_t error = {0};
    lade_block_t block;
    lade_share_t share;
    int socket, status;
    s_report_t report;
    char byte;
    const lade_backend_t *backend = s_open(&device);
    double before = s_free_mb(backend, device, 0), slack = 64;
    if (backend->allocate(device, mb << 20, &block, &error) ||
        backend->share(device, &block, &share, &error))
        s_die("sharing", &error);
    share.bytes = block.bytes;
    s_fill(backend, device, &block, 1);
    pid_t pid = s_spawn("--consumer", "", &socket);
    s_send(socket, &share);
    bool attached = recv(socket, &report, sizeof report, 0) == (ssize_t)sizeof report;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    close(socket);
    double held = s_free_mb(backend, device, before - (double)mb - slack);
    backend->free(device, &block);
    double after = s_free_mb(backend, device, before - slack);
    pid = s_spawn("--loader", text, &socket);
    bool loaded = recv(socket, &byte, 1, 0) == 1;
    double during = s_free_mb(backend, device, 0);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    close(socket);
    double last = s_free_mb(backend, device, before - slack);
    bool good = attached && loaded && after >= before - slack && last >= before - slack &&
                during <= before - (double)mb + slack;
    printf(
        "| MiB free of cuda:0, %zu MiB loaded | before | while loaded | after |\n| --- | --- | --- "
        "| --- |\n| consumer killed, then the loader frees | %.0f | %.0f | %.0f |\n| loader "
        "killed | %.0f | %.0f | %.0f |\n\n%s\n",
        mb, before, held, after, after, during, last,
        good ? "All of it came back." : "NOT all of it came back.");
    backend->close(&device);
    return good ? 0 : 1;
}

int
main(int argc, char **argv)
{
    int status = 2;
    const char *what = argc > 1 ? argv[1] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (conformance_child(argc, argv, &status))
        return status;
    if (!strcmp(what, "--consumer"))
        return s_consumer();
    if (!strcmp(what, "--loader") && argc == 3)
        return s_loader(argv[2]);
    if (!strcmp(what, "conformance"))
        return s_conformance();
    if (!strcmp(what, "load") && argc == 5 && atoi(argv[4]) > 0 && atoi(argv[4]) < S_MAX_ROUNDS)
        return s_load(argv[2], strtoull(argv[3], NULL, 10), (size_t)atoi(argv[4]));
    if (!strcmp(what, "attach") && argc == 3)
        return s_attach(strtoull(argv[2], NULL, 10));
    if (!strcmp(what, "kill") && argc == 3)
        return s_kill(argv[2]);
    fprintf(stderr, "usage: gpu_check conformance | load FILE MB ROUNDS | attach MB | kill MB\n");
    return 2;
}
