// How long it takes to open and identify model files, and how much of them is read.
//
//   probe_bench open|identify [--rounds N] [--cold] < PATHS
//
// Takes paths from stdin, one a line, goes through all of them N times, and prints one JSON object:
// files, seconds of each round, bytes read for a file (rchar of /proc/self/io), and for one file
// the times in order. --cold asks the kernel to drop each file's pages before a round.
#include "common/formats/tensors.h"
#include "common/identify/identify.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { S_MAX_PATHS = 100000, S_MAX_ROUNDS = 10000 };

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// Bytes that read, pread and the like have given this process.
static uint64_t
s_bytes_read(void)
{
    unsigned long long bytes = 0;
    FILE *in = fopen("/proc/self/io", "r");
    if (in && fscanf(in, "rchar: %llu", &bytes) != 1)
        bytes = 0;
    if (in)
        fclose(in);
    return bytes;
}

static void
s_drop_pages(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static void
s_stop(const char *path, const lade_error_t *error)
{
    fprintf(stderr, "probe_bench: %s: %s\n", path, error->message);
    exit(1);
}

static void
s_open(const lade_identify_t *engine, const char *path)
{
    (void)engine;
    lade_error_t error = {0};
    lade_tensors_t *tensors;
    if (lade_tensors_open(path, &tensors, &error))
        s_stop(path, &error);
    lade_tensors_destroy(&tensors);
}

static void
s_identify(const lade_identify_t *engine, const char *path)
{
    lade_error_t error = {0};
    json_t *found;
    if (lade_identify_path(engine, path, NULL, &found, &error))
        s_stop(path, &error);
    json_decref(found);
}

static size_t
s_read_paths(char **paths)
{
    char *line = NULL;
    size_t cap = 0, count = 0;
    ssize_t len;
    while (count < S_MAX_PATHS && (len = getline(&line, &cap, stdin)) > 0) {
        line[strcspn(line, "\n")] = '\0';
        paths[count++] = strdup(line);
    }
    free(line);
    return count;
}

int
main(int argc, char **argv)
{
    static char *paths[S_MAX_PATHS];
    int rounds = 1;
    bool cold = false;
    lade_error_t error = {0};
    lade_identify_t *engine;
    const char *what = argc > 1 ? argv[1] : "";
    void (*probe)(const lade_identify_t *engine, const char *path) =
        strcmp(what, "open") == 0       ? s_open
        : strcmp(what, "identify") == 0 ? s_identify
                                        : NULL;
    for (int i = 2; probe && i < argc; i++) {
        if (strcmp(argv[i], "--cold") == 0)
            cold = true;
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            rounds = atoi(argv[++i]);
        else
            probe = NULL;
    }
    if (!probe || rounds < 1 || rounds > S_MAX_ROUNDS) {
        fprintf(stderr, "probe_bench open|identify [--rounds N] [--cold] < PATHS\n");
        return 2;
    }
    double start = s_now();
    if (lade_identify_new(NULL, &engine, &error))
        s_stop("families", &error);
    printf("{\"start_s\": %.6f, ", s_now() - start);
    size_t count = s_read_paths(paths);
    uint64_t read = 0;
    printf("\"files\": %zu, \"seconds\": [", count);
    for (int round = 0; round < rounds; round++) {
        for (size_t i = 0; cold && i < count; i++)
            s_drop_pages(paths[i]);
        uint64_t before = s_bytes_read();
        start = s_now();
        for (size_t i = 0; i < count; i++)
            probe(engine, paths[i]);
        printf("%s%.6f", round ? ", " : "", s_now() - start);
        read = s_bytes_read() - before;
    }
    printf("], \"bytes_a_file\": %.0f}\n", count ? (double)read / (double)count : 0.0);
    lade_identify_destroy(&engine);
    for (size_t i = 0; i < count; i++)
        free(paths[i]);
    return 0;
}
