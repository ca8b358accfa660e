// Attaching in a second process, which is the benchmark run again: a program that includes this
// calls attach_main when it is called with --attach SOCKET LEASE.
#ifndef LADE_BENCH_LOAD_ATTACH_H
#define LADE_BENCH_LOAD_ATTACH_H

#include "common/segment.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { ATTACHES = 200 };

static double
attach_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int
attach_by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

typedef struct {
    double p50_us, p99_us, first_us; // first_us: index read and one weight looked at, median
    long private_kb, shared_kb;
    double touch_gbps;
} attach_t;

static void
attach_smaps(const void *address, attach_t *result)
{
    FILE *in = fopen("/proc/self/smaps", "re");
    char line[500], name[64];
    unsigned long from, to, kb;
    bool ours = false;
    while (in && fgets(line, sizeof line, in)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            ours = (uintptr_t)address >= from && (uintptr_t)address < to;
        else if (ours && sscanf(line, "%63[A-Za-z_]: %lu kB", name, &kb) == 2) {
            result->private_kb += strncmp(name, "Private_", 8) ? 0 : (long)kb;
            result->shared_kb += strncmp(name, "Shared_", 7) ? 0 : (long)kb;
        }
    }
    if (in)
        fclose(in);
}

static lade_segment_t *
attach_once(const char *socket_path, const char *lease)
{
    lade_segment_t *segment;
    lade_error_t error;
    if (lade_segment_attach(socket_path, lease, 5000, &segment, &error)) {
        fprintf(stderr, "bench: %s\n", error.message);
        exit(1);
    }
    return segment;
}

// Looks at a byte of each page, as the second process's own mapping needs; returns GB/s.
static double
attach_touch(lade_segment_t *segment)
{
    size_t bytes = lade_segment_bytes(segment);
    const volatile uint8_t *at = lade_segment_data(segment, &(lade_tensor_t){.offset = 0});
    double began = attach_now();
    for (size_t i = 0; i < bytes; i += 4096)
        (void)at[i];
    return (double)bytes / (attach_now() - began) * 1e-9;
}

static int
attach_main(const char *socket_path, const char *lease)
{
    double took[ATTACHES], first[ATTACHES];
    attach_t result = {0};
    lade_segment_t *keep = attach_once(socket_path, lease); // or the lease would end with the first
    for (size_t i = 0; i < ATTACHES; i++) {
        double began = attach_now();
        lade_segment_t *segment = attach_once(socket_path, lease);
        took[i] = (attach_now() - began) * 1e6;
        const lade_tensor_t *tensor = lade_segment_get(segment, lade_segment_count(segment) / 2);
        if (!tensor || !lade_segment_find(segment, tensor->name))
            return 1;
        (void)*(const volatile uint8_t *)lade_segment_data(segment, tensor);
        first[i] = (attach_now() - began) * 1e6;
        lade_segment_close(&segment);
    }
    qsort(took, ATTACHES, sizeof *took, attach_by_size);
    qsort(first, ATTACHES, sizeof *first, attach_by_size);
    result.touch_gbps = attach_touch(keep);
    attach_smaps(lade_segment_data(keep, &(lade_tensor_t){.offset = 0}), &result);
    printf("%f %f %f %ld %ld %f\n", took[ATTACHES / 2], took[ATTACHES * 99 / 100],
           first[ATTACHES / 2], result.private_kb, result.shared_kb, result.touch_gbps);
    lade_segment_close(&keep);
    return 0;
}

// The lease is of a segment that serves at socket_path.
static attach_t
attach_measure(const char *socket_path, const char *lease)
{
    attach_t result = {0};
    int pipes[2];
    pid_t pid = -1;
    char line[300] = "";
    char *args[] = {"bench", "--attach", (char *)socket_path, (char *)lease, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (pipe2(pipes, O_CLOEXEC) ||
        posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO) ||
        posix_spawn(&pid, "/proc/self/exe", &actions, NULL, args, environ))
        perror("the second process");
    close(pipes[1]);
    posix_spawn_file_actions_destroy(&actions);
    FILE *in = fdopen(pipes[0], "r");
    bool good =
        in && fgets(line, sizeof line, in) &&
        sscanf(line, "%lf %lf %lf %ld %ld %lf", &result.p50_us, &result.p99_us, &result.first_us,
               &result.private_kb, &result.shared_kb, &result.touch_gbps) == 6;
    if (in)
        fclose(in);
    waitpid(pid, NULL, 0);
    if (!good) {
        fprintf(stderr, "bench: the second process says nothing\n");
        exit(1);
    }
    return result;
}

#endif
