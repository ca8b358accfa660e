// What every backend has to do, whatever it is: backend_test.c and tests/gpu/gpu_check.c run this
// against each there is. Needs nothing but the C library, so that it runs on a machine that has a
// GPU and little else.
//
// A program that includes this calls conformance_child first thing in main: the suite starts the
// program again as the process memory is shared with.
#ifndef LADE_GPU_CONFORMANCE_H
#define LADE_GPU_CONFORMANCE_H

#include "workers/gpu/backend.h"
#include "workers/gpu/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    const lade_backend_t *backend;
    size_t index;
    bool plain_ipc;
    void *device;
    unsigned failures;
} conformance_t;

#define EXPECT(self, condition, ...)                                                               \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (self)->failures++;                                                                    \
            fprintf(stderr, "%s:%d: %s: not so: %s: ", __FILE__, __LINE__, (self)->backend->name,  \
                    #condition);                                                                   \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)

enum { CONFORMANCE_LIMIT = 64 << 20, CONFORMANCE_MB = 1 << 20 };

// ---------------------------------------------------------------------------------------------------
// Numbers, worked out another way than any backend does: by searching, in doubles

static inline double
conformance_value(uint32_t bits, lade_dtype_t dtype)
{
    int exponent_bits = dtype == LADE_DTYPE_F16 ? 5 : 8;
    int mantissa_bits = dtype == LADE_DTYPE_F32 ? 23 : dtype == LADE_DTYPE_F16 ? 10 : 7;
    int bias = (1 << (exponent_bits - 1)) - 1;
    uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
    int exponent = (int)(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
    double sign = bits >> (mantissa_bits + exponent_bits) ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa ? (double)NAN : sign * HUGE_VAL;
    if (!exponent)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(1.0 + ldexp(mantissa, -mantissa_bits), exponent - bias);
}

// The positive 16-bit number nearest to value >= 0, ties to the even one; by halving.
static inline uint32_t
conformance_nearest(double value, lade_dtype_t dtype)
{
    uint32_t low = 0, high = dtype == LADE_DTYPE_F16 ? 0x7c00 : 0x7f80; // infinity
    uint32_t last = high;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (conformance_value(middle, dtype) <= value)
            low = middle;
        else
            high = middle;
    }
    double below = conformance_value(low, dtype);
    double above = high == last // what would come next if there were no infinity
                       ? 2 * below - conformance_value(low - 1, dtype)
                       : conformance_value(high, dtype);
    if (value - below == above - value)
        return low % 2 ? high : low;
    return value - below < above - value ? low : high;
}

static inline uint32_t
conformance_read(const uint8_t *from, lade_dtype_t dtype)
{
    uint32_t word = 0;
    memcpy(&word, from, lade_dtype_size(dtype)); // little-endian, as all of this is
    return word;
}

// True if bits of out is what a cast makes of was of in.
static inline bool
conformance_cast_is(uint32_t bits, lade_dtype_t out, uint32_t was, lade_dtype_t in)
{
    double value = conformance_value(was, in);
    if (in == out)
        return bits == was;
    if (isnan(value))
        return isnan(conformance_value(bits, out));
    if (out == LADE_DTYPE_F32)
        return conformance_value(bits, out) == value && bits >> 31 == (uint32_t) !!signbit(value);
    if (isinf(value))
        return conformance_value(bits, out) == value;
    return bits == (conformance_nearest(fabs(value), out) | (signbit(value) ? 0x8000u : 0));
}

// Floats that are hard to cast, then many others.
static inline void
conformance_floats(uint8_t *to, size_t count, lade_dtype_t dtype, unsigned seed)
{
    static const uint32_t hard[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00001,
                                    0x477fefff, 0x477ff000, 0x477fe000, 0x38800000, 0x387fffff,
                                    0x33000000, 0x33000001, 0x32ffffff, 0x3f801000, 0x3f803000,
                                    0x3f808000, 0x3f818000, 0x7f7fffff, 0xff7fffff, 0x00000001,
                                    0x007fffff, 0x7f800001, 0x3f808001, 0x3f807fff, 0x80000001};
    uint64_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t bits = (uint32_t)(state >> 32);
        if (dtype == LADE_DTYPE_F32 && i < sizeof hard / sizeof *hard)
            bits = hard[i];
        else if (dtype == LADE_DTYPE_F32 && i % 4) // of the size that halves have
            bits = (bits & 0x8fffffff) | (0x30000000 + (bits & 0x0f000000));
        memcpy(to + i * lade_dtype_size(dtype), &bits, lade_dtype_size(dtype));
    }
}

static inline uint8_t
conformance_byte(uint64_t at, unsigned seed)
{
    return (uint8_t)((at * 2654435761u >> 11) + seed);
}

// ---------------------------------------------------------------------------------------------------
// Help

static inline lade_block_t
conformance_block(conformance_t *self, size_t bytes)
{
    lade_block_t block = {0};
    lade_error_t error = {0};
    EXPECT(self, !self->backend->allocate(self->device, bytes, &block, &error), "%s",
           error.message);
    return block;
}

static inline void
conformance_fill(conformance_t *self, const lade_block_t *block, const lade_run_t *run)
{
    lade_error_t error = {0};
    EXPECT(
        self,
        !lade_stream_fill(self->backend, self->device, block, run, 1, 4, false, NULL, NULL, &error),
        "%s", error.message);
}

static inline uint8_t *
conformance_back(conformance_t *self, const lade_block_t *block, uint64_t from, size_t size)
{
    lade_error_t error = {0};
    uint8_t *bytes = calloc(size + 1, 1);
    if (!bytes)
        abort();
    EXPECT(self, !self->backend->read(self->device, block, from, bytes, size, &error), "%s",
           error.message);
    return bytes;
}

// An unlinked file of those bytes.
static inline int
conformance_file(const uint8_t *bytes, size_t size)
{
    const char *above = getenv("TMPDIR");
    char path[300];
    snprintf(path, sizeof path, "%s/lade-conformance-XXXXXX", above && *above ? above : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
        abort();
    unlink(path);
    return fd;
}

// ---------------------------------------------------------------------------------------------------
// The suite

static inline void
conformance_devices(conformance_t *self)
{
    lade_error_t error = {0};
    lade_device_info_t info = {0};
    size_t count = self->backend->count(&error);
    EXPECT(self, count > self->index, "%zu devices: %s", count, error.message);
    EXPECT(self, !self->backend->describe(self->index, &info, &error), "%s", error.message);
    EXPECT(self, info.name[0] && info.total && info.free <= info.total, "of %s", info.name);
    EXPECT(self, self->backend->describe(count, &info, &error) == LADE_NOT_FOUND, "device %zu",
           count);
    void *device = NULL;
    lade_backend_options_t options = {0};
    EXPECT(self, self->backend->open(count, &options, &device, &error) == LADE_NOT_FOUND && !device,
           "device %zu", count);
}

static inline void
conformance_room(conformance_t *self)
{
    lade_backend_stats_t before, stats;
    lade_error_t error = {0};
    self->backend->stats(self->device, &before);
    lade_block_t a = conformance_block(self, 1),
                 b = conformance_block(self, 5 * CONFORMANCE_MB + 3);
    EXPECT(self, a.address && a.address % LADE_BLOCK_ALIGN == 0, "%llx",
           (unsigned long long)a.address);
    EXPECT(self, b.address % LADE_BLOCK_ALIGN == 0 && b.bytes >= 5 * CONFORMANCE_MB + 3, "%llu",
           (unsigned long long)b.bytes);
    self->backend->stats(self->device, &stats);
    EXPECT(self, stats.blocks == before.blocks + 2 && stats.used == before.used + a.bytes + b.bytes,
           "%llu bytes", (unsigned long long)stats.used);
    lade_block_t large = {0};
    lade_code_t code =
        self->backend->allocate(self->device, 2 * (size_t)CONFORMANCE_LIMIT, &large, &error);
    EXPECT(self, code == LADE_NO_VRAM || code == LADE_NO_MEMORY, "%d", code);
    EXPECT(self, strstr(error.message, "134217728") && !large.own, "%s", error.message);
    self->backend->free(self->device, &b);
    self->backend->free(self->device, &a);
    EXPECT(self, !a.own && !a.address, "a freed block is none");
    self->backend->free(self->device, &a); // no block at all
    self->backend->stats(self->device, &stats);
    EXPECT(self, stats.used == before.used && stats.blocks == before.blocks, "%llu bytes",
           (unsigned long long)stats.used);
    for (size_t i = 0; i < 20; i++) { // freed memory is to be had again
        lade_block_t block = conformance_block(self, CONFORMANCE_LIMIT / 2);
        self->backend->free(self->device, &block);
    }
}

// Bytes as they are: from memory, from a file, past the page cache, in runs that share stages.
static inline void
conformance_bytes(conformance_t *self)
{
    size_t size = 19 * CONFORMANCE_MB + 1234567;
    uint8_t *bytes = malloc(size);
    if (!bytes)
        abort();
    for (size_t i = 0; i < size; i++)
        bytes[i] = conformance_byte(i, 5);
    int fd = conformance_file(bytes, size);
    for (unsigned way = 0; way < 3; way++) {
        lade_block_t block = conformance_block(self, size);
        lade_run_t runs[4];
        uint64_t at[] = {0, 4097, 4097 + 100000, 12 * CONFORMANCE_MB + 77, size};
        for (size_t i = 0; i < 4; i++)
            runs[i] = (lade_run_t){.fd = way ? fd : -1,
                                   .bytes = bytes,
                                   .name = "bytes",
                                   .from = at[i],
                                   .size = at[i + 1] - at[i],
                                   .to = at[i]};
        lade_error_t error = {0};
        EXPECT(self,
               !lade_stream_fill(self->backend, self->device, &block, runs, 4, 4, way == 2, NULL,
                                 NULL, &error),
               "%s", error.message);
        uint8_t *back = conformance_back(self, &block, 0, size);
        EXPECT(self, !memcmp(back, bytes, size), "way %u", way);
        free(back);
        back = conformance_back(self, &block, 12345, 999);
        EXPECT(self, !memcmp(back, bytes + 12345, 999), "a part, way %u", way);
        free(back);
        self->backend->free(self->device, &block);
    }
    close(fd);
    free(bytes);
}

static const lade_dtype_t conformance_dtypes[] = {LADE_DTYPE_F32, LADE_DTYPE_F16, LADE_DTYPE_BF16};

// Every pair, at places that are aligned for vectors, for elements, and not at all.
static inline void
conformance_cast(conformance_t *self, lade_dtype_t in, lade_dtype_t out)
{
    enum { S_COUNT = 70001 };
    static const size_t shifts[] = {0, 2, 4, 8, 5};
    uint8_t *bytes = calloc(S_COUNT + 64, 4);
    if (!bytes)
        abort();
    for (size_t s = 0; s < sizeof shifts / sizeof *shifts; s++) {
        uint64_t from = 4096 + shifts[s], to = shifts[s] % 2 ? 4 : shifts[s];
        uint8_t *source = calloc(1, from + S_COUNT * 4);
        if (!source)
            abort();
        conformance_floats(source + from, S_COUNT, in, (unsigned)s);
        lade_block_t block = conformance_block(self, to + S_COUNT * 4);
        lade_run_t run = {.fd = -1,
                          .bytes = source,
                          .name = "floats",
                          .from = from,
                          .size = S_COUNT * lade_dtype_size(in),
                          .to = to,
                          .in = in,
                          .out = out};
        conformance_fill(self, &block, &run);
        size_t width = lade_dtype_size(out), wrong = 0;
        uint8_t *back = conformance_back(self, &block, to, S_COUNT * width);
        for (size_t i = 0; i < S_COUNT; i++) {
            uint32_t was = conformance_read(source + from + i * lade_dtype_size(in), in);
            uint32_t is = conformance_read(back + i * width, out);
            if (!conformance_cast_is(is, out, was, in) && !wrong++)
                EXPECT(self, false, "%s %x became %s %x (element %zu, shift %zu)",
                       lade_dtype_name(in), was, lade_dtype_name(out), is, i, shifts[s]);
        }
        EXPECT(self, !wrong, "%zu of %d wrong", wrong, (int)S_COUNT);
        free(back);
        free(source);
        self->backend->free(self->device, &block);
    }
    free(bytes);
}

static inline void
conformance_casts(conformance_t *self)
{
    for (size_t i = 0; i < 3; i++)
        for (size_t o = 0; o < 3; o++)
            conformance_cast(self, conformance_dtypes[i], conformance_dtypes[o]);
}

static inline void
conformance_transpose(conformance_t *self, const uint64_t *shape, lade_dtype_t in, lade_dtype_t out,
                      size_t shift)
{
    uint64_t n_count = shape[0], channels = shape[1], area = shape[2] * shape[3];
    size_t count = n_count * channels * area, wrong = 0;
    uint8_t *source = calloc(1, shift + count * 4 + 1);
    if (!source)
        abort();
    conformance_floats(source + shift, count, in, (unsigned)count);
    lade_block_t block = conformance_block(self, 256 + count * 4);
    lade_run_t run = {.fd = -1,
                      .bytes = source,
                      .name = "weight",
                      .from = shift,
                      .size = count * lade_dtype_size(in),
                      .to = 256,
                      .in = in,
                      .out = out,
                      .channels_last = true};
    memcpy(run.shape, shape, sizeof run.shape);
    conformance_fill(self, &block, &run);
    uint8_t *back = conformance_back(self, &block, 256, count * lade_dtype_size(out));
    for (size_t i = 0; i < count; i++) { // i counts as stored: n, c, then the area
        uint64_t n = i / (channels * area), c = i / area % channels, at = i % area;
        uint64_t place = (n * area + at) * channels + c;
        uint32_t was = conformance_read(source + shift + i * lade_dtype_size(in), in);
        uint32_t is = conformance_read(back + place * lade_dtype_size(out), out);
        wrong += !conformance_cast_is(is, out, was, in);
    }
    EXPECT(self, !wrong, "%zu of %zu wrong: [%d, %d, %d, %d] %s to %s", wrong, count, (int)shape[0],
           (int)shape[1], (int)shape[2], (int)shape[3], lade_dtype_name(in), lade_dtype_name(out));
    free(back);
    free(source);
    self->backend->free(self->device, &block);
}

static inline void
conformance_channels_last(conformance_t *self)
{
    static const uint64_t shapes[][4] = {{4, 3, 3, 3},    {64, 33, 1, 1}, {5, 40, 7, 5},
                                         {320, 4, 3, 3},  {1, 1, 1, 1},   {2, 100, 40, 33},
                                         {700, 320, 3, 3}}; // the last takes more than one stage
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t i = 0; i < 9; i++)
            if (s + 1 < sizeof shapes / sizeof *shapes || i == 0)
                conformance_transpose(self, shapes[s], conformance_dtypes[i / 3],
                                      conformance_dtypes[i % 3], s % 3 == 2 ? 8 : s % 3);
    uint64_t huge[] = {1, 3 << 20, 1, 1}; // one filter is larger than a stage
    lade_block_t block = conformance_block(self, 256);
    lade_run_t run = {.fd = -1,
                      .name = "huge",
                      .size = 12 << 20,
                      .in = LADE_DTYPE_F32,
                      .out = LADE_DTYPE_F32,
                      .channels_last = true};
    memcpy(run.shape, huge, sizeof huge);
    lade_error_t error = {0};
    EXPECT(self,
           lade_stream_fill(self->backend, self->device, &block, &run, 1, 1, false, NULL, NULL,
                            &error) == LADE_TOO_LARGE,
           "%s", error.message);
    self->backend->free(self->device, &block);
}

// A convolution tells a weight that is right from one of which a few numbers are not.
static inline void
conformance_check(conformance_t *self)
{
    enum { S_N = 32, S_C = 16, S_AREA = 9, S_COUNT = S_N * S_C * S_AREA };
    static const uint64_t shape[] = {S_N, S_C, 3, 3};
    static float source[S_COUNT];
    for (size_t i = 0; i < S_COUNT; i++)
        source[i] = (float)(int)(i * 37 % 101) * 0.02f - 1;
    for (size_t o = 0; o < 3; o++) {
        lade_dtype_t out = conformance_dtypes[o];
        lade_block_t block = conformance_block(self, sizeof source);
        lade_run_t run = {.fd = -1,
                          .bytes = (const uint8_t *)source,
                          .name = "weight",
                          .size = sizeof source,
                          .in = LADE_DTYPE_F32,
                          .out = out,
                          .channels_last = true};
        memcpy(run.shape, shape, sizeof shape);
        conformance_fill(self, &block, &run);
        lade_move_t move = {.size = sizeof source,
                            .in = LADE_DTYPE_F32,
                            .out = out,
                            .channels_last = true,
                            .shape = {S_N, S_C, 3, 3}};
        lade_error_t error = {0};
        lade_code_t code = self->backend->check(self->device, &block, &move, source, &error);
        if (code == LADE_NOT_IMPLEMENTED)
            fprintf(stderr, "%s: no check: %s\n", self->backend->name, error.message);
        else {
            EXPECT(self, !code, "%s", error.message);
            run.channels_last = false; // the same numbers in the places they had
            conformance_fill(self, &block, &run);
            code = self->backend->check(self->device, &block, &move, source, &error);
            EXPECT(self, code == LADE_CORRUPT, "%d: %s", code, error.message);
        }
        self->backend->free(self->device, &block);
    }
}

// Wrong moves are refused, and cost no stage.
static inline void
conformance_refusals(conformance_t *self)
{
    static const lade_move_t wrong[] = {
        {.from = 0, .to = 4096, .size = 1},
        {.from = LADE_STAGE_BYTES - 1, .size = 2},
        {.from = UINT64_MAX, .size = 2},
        {.to = UINT64_MAX, .size = 2},
        {.size = 6, .in = LADE_DTYPE_F32, .out = LADE_DTYPE_F16},
        {.size = 4096, .in = LADE_DTYPE_F16, .out = LADE_DTYPE_F32}, // twice as much there
        {.size = 8, .in = LADE_DTYPE_I64, .out = LADE_DTYPE_F32},
        {.size = 24,
         .in = LADE_DTYPE_F32,
         .out = LADE_DTYPE_F32,
         .channels_last = true,
         .shape = {1, 2, 3, 4}},
    };
    lade_block_t block = conformance_block(self, 4096), other = conformance_block(self, 4096);
    block.bytes = 4096; // as asked for, whatever it was rounded up to
    for (size_t i = 0; i < 300; i++) {
        void *stage;
        uint8_t *bytes;
        lade_error_t error = {0};
        EXPECT(self, !self->backend->stage(self->device, &stage, &bytes, &error), "%s",
               error.message);
        memset(bytes, 1, 4096);
        lade_code_t code = self->backend->submit(
            self->device, stage, &block, &wrong[i % (sizeof wrong / sizeof *wrong)], 1, &error);
        EXPECT(self, code == LADE_VALUE_ERROR || code == LADE_NOT_IMPLEMENTED, "%d: %s", code,
               error.message);
        EXPECT(self, !self->backend->stage(self->device, &stage, &bytes, &error), "%s",
               error.message);
        self->backend->drop(self->device, stage);
    }
    lade_error_t error = {0};
    uint8_t byte;
    self->backend->finish(self->device, &block, &error);
    EXPECT(self,
           self->backend->read(self->device, &other, other.bytes, &byte, 1, &error) ==
               LADE_VALUE_ERROR,
           "%s", error.message);
    self->backend->free(self->device, &block);
    self->backend->free(self->device, &other);
}

static inline bool
conformance_stop(void *arg, uint64_t bytes)
{
    (void)bytes;
    return --*(int *)arg > 0;
}

static inline void
conformance_broken(conformance_t *self)
{
    size_t size = 20 << 20;
    uint8_t *bytes = calloc(1, size);
    int fd = conformance_file(bytes, size - 100);
    lade_block_t block = conformance_block(self, size);
    lade_run_t run = {.fd = fd, .name = "cut", .size = size};
    lade_error_t error = {0};
    for (unsigned direct = 0; direct < 2; direct++)
        EXPECT(self,
               lade_stream_fill(self->backend, self->device, &block, &run, 1, 4, direct, NULL, NULL,
                                &error) == LADE_CORRUPT &&
                   strstr(error.message, "cut"),
               "%s", error.message);
    int patience = 2;
    run.size = size - 100;
    EXPECT(self,
           lade_stream_fill(self->backend, self->device, &block, &run, 1, 1, false,
                            conformance_stop, &patience, &error) == LADE_CANCELLED,
           "%s", error.message);
    self->backend->free(self->device, &block);
    close(fd);
    free(bytes);
}

typedef struct {
    conformance_t *suite;
    unsigned seed;
    unsigned failures;
} conformance_thread_t;

static inline void *
conformance_thread(void *arg)
{
    conformance_thread_t *thread = arg;
    conformance_t self = *thread->suite;
    size_t size = 3 * CONFORMANCE_MB + thread->seed * 4099;
    uint8_t *bytes = malloc(size);
    for (size_t i = 0; bytes && i < size; i++)
        bytes[i] = conformance_byte(i, thread->seed);
    for (unsigned i = 0; bytes && i < 4; i++) {
        lade_block_t block = conformance_block(&self, size);
        lade_run_t run = {.fd = -1, .bytes = bytes, .name = "bytes", .size = size};
        conformance_fill(&self, &block, &run);
        uint8_t *back = conformance_back(&self, &block, 0, size);
        EXPECT(&self, !memcmp(back, bytes, size), "thread %u", thread->seed);
        free(back);
        self.backend->free(self.device, &block);
    }
    free(bytes);
    thread->failures = self.failures - thread->suite->failures;
    return NULL;
}

static inline void
conformance_threads(conformance_t *self)
{
    enum { S_THREADS = 8 };
    pthread_t ids[S_THREADS];
    conformance_thread_t threads[S_THREADS];
    unsigned failures = 0;
    for (unsigned i = 0; i < S_THREADS; i++) {
        threads[i] = (conformance_thread_t){.suite = self, .seed = i + 1};
        if (pthread_create(&ids[i], NULL, conformance_thread, &threads[i]))
            abort();
    }
    for (unsigned i = 0; i < S_THREADS; i++) {
        pthread_join(ids[i], NULL);
        failures += threads[i].failures;
    }
    self->failures += failures;
}

// ---------------------------------------------------------------------------------------------------
// Another process

// This program again: imports what comes over descriptor 3, answers with the sum of its bytes and
// waits for the end of it. The descriptor shared comes beside the first packet.
static inline int
conformance_child_run(const char *backend_name)
{
    const lade_backend_t *backend;
    lade_error_t error = {0};
    lade_share_t share;
    lade_import_t import;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {&share, sizeof share};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    if (lade_backend_find(backend_name, &backend, &error) ||
        recvmsg(3, &message, 0) != (ssize_t)sizeof share)
        return 1;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    share.fd = -1;
    if (head)
        memcpy(&share.fd, CMSG_DATA(head), sizeof share.fd);
    uint64_t sum = 0;
    lade_code_t code = backend->importer->import(&share, &import, &error);
    uint8_t *bytes = malloc(1 << 20);
    for (uint64_t at = 0; !code && at < share.bytes; at += 1 << 20) {
        size_t size = share.bytes - at < 1 << 20 ? (size_t)(share.bytes - at) : 1 << 20;
        code = backend->importer->peek(&import, at, bytes, size, &error);
        for (size_t i = 0; !code && i < size; i++)
            sum = sum * 31 + bytes[i];
    }
    free(bytes);
    if (code)
        fprintf(stderr, "importing: %s\n", error.message);
    char go;
    if (code || send(3, &sum, sizeof sum, 0) != (ssize_t)sizeof sum || recv(3, &go, 1, 0) < 0)
        return 1;
    backend->importer->unimport(&import);
    return import.own ? 1 : 0;
}

// The first thing main does. True if this is the other process; *status is for exit then.
static inline bool
conformance_child(int argc, char **argv, int *status)
{
    if (argc != 3 || strcmp(argv[1], "--importer") != 0)
        return false;
    *status = conformance_child_run(argv[2]);
    return true;
}

static inline pid_t
conformance_spawn(conformance_t *self, const lade_share_t *share, int *socket_p)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        abort();
    pid_t pid = fork();
    if (!pid) {
        if (dup2(ends[1], 3) != 3 || (ends[1] == 3 && fcntl(3, F_SETFD, 0)))
            _exit(127);
        execl("/proc/self/exe", "conformance", "--importer", self->backend->name, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    lade_share_t sent = *share;
    struct iovec part = {&sent, sizeof sent};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (share->fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        int fd = share->fd;
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    EXPECT(self, pid > 0 && sendmsg(ends[0], &message, MSG_NOSIGNAL) == (ssize_t)sizeof sent, "%s",
           strerror(errno));
    *socket_p = ends[0];
    return pid;
}

// Two others see the same bytes; one ends well, one is killed.
static inline void
conformance_share(conformance_t *self)
{
    size_t size = 4 * CONFORMANCE_MB + 513;
    uint8_t *bytes = malloc(size);
    lade_block_t block = conformance_block(self, size);
    lade_error_t error = {0};
    lade_share_t share = {.fd = -1};
    for (size_t i = 0; i < size; i++)
        bytes[i] = conformance_byte(i, 9);
    lade_run_t run = {.fd = -1, .bytes = bytes, .name = "bytes", .size = size};
    conformance_fill(self, &block, &run);
    EXPECT(self, !self->backend->share(self->device, &block, &share, &error), "%s", error.message);
    EXPECT(self, share.bytes >= size && share.plugin[0], "%llu", (unsigned long long)share.bytes);
    share.bytes = size;
    uint64_t sum = 0, seen[2] = {0};
    for (size_t i = 0; i < size; i++)
        sum = sum * 31 + bytes[i];
    int sockets[2], status;
    pid_t pids[2];
    for (size_t i = 0; i < 2; i++)
        pids[i] = conformance_spawn(self, &share, &sockets[i]);
    for (size_t i = 0; i < 2; i++) {
        ssize_t got = recv(sockets[i], &seen[i], sizeof seen[i], 0);
        EXPECT(self, got == (ssize_t)sizeof sum && seen[i] == sum, "process %zu saw %llx", i,
               (unsigned long long)seen[i]);
    }
    kill(pids[1], SIGKILL);
    send(sockets[0], "x", 1, MSG_NOSIGNAL);
    EXPECT(self, waitpid(pids[0], &status, 0) == pids[0] && status == 0, "status %d", status);
    EXPECT(self, waitpid(pids[1], &status, 0) == pids[1] && WIFSIGNALED(status), "status %d",
           status);
    for (size_t i = 0; i < 2; i++)
        close(sockets[i]);
    uint8_t *back = conformance_back(self, &block, 0, size); // the killed one did no harm
    EXPECT(self, !memcmp(back, bytes, size), "after the other's end");
    free(back);
    free(bytes);
    self->backend->free(self->device, &block);
}

// ---------------------------------------------------------------------------------------------------

typedef struct {
    const char *name;
    void (*run)(conformance_t *self);
} conformance_case_t;

static const conformance_case_t conformance_cases[] = {
    {"devices", conformance_devices},
    {"room", conformance_room},
    {"bytes", conformance_bytes},
    {"casts", conformance_casts},
    {"channels_last", conformance_channels_last},
    {"check", conformance_check},
    {"refusals", conformance_refusals},
    {"broken", conformance_broken},
    {"threads", conformance_threads},
    {"share", conformance_share},
};

// Runs all of it on one device; how many expectations failed.
static inline unsigned
conformance_run(const lade_backend_t *backend, size_t index, bool plain_ipc, FILE *report)
{
    conformance_t self = {.backend = backend, .index = index, .plain_ipc = plain_ipc};
    lade_backend_options_t options = {.limit = CONFORMANCE_LIMIT, .plain_ipc = plain_ipc};
    lade_error_t error = {0};
    EXPECT(&self, !backend->open(index, &options, &self.device, &error), "%s", error.message);
    for (size_t i = 0; self.device && i < sizeof conformance_cases / sizeof *conformance_cases;
         i++) {
        unsigned before = self.failures;
        conformance_cases[i].run(&self);
        if (report)
            fprintf(report, "| %s:%zu | %s | %s |\n", backend->name, index,
                    conformance_cases[i].name, self.failures == before ? "passed" : "FAILED");
    }
    lade_backend_stats_t stats = {0};
    if (self.device)
        backend->stats(self.device, &stats);
    EXPECT(&self, !stats.blocks && !stats.used && !stats.lost, "%llu blocks are left",
           (unsigned long long)stats.blocks);
    backend->close(&self.device);
    backend->close(&self.device); // NULL-safe
    return self.failures;
}

#endif
