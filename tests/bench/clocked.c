// Runs a program and says what it took: wall time, processor time and peak memory of it and of all
// it waited for.
//
//   clocked FILE PROGRAM ARGUMENTS...     FILE gets one line of JSON; the exit status is PROGRAM's
//
// A program of its own because a process inherits the peak memory of the one it was forked from:
// started by the benchmark's interpreter, every peer would seem to need 30 MiB.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double
s_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double
s_seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

int
main(int argc, char **argv)
{
    FILE *out = argc > 2 ? fopen(argv[1], "we") : NULL;
    if (!out) {
        fprintf(stderr, "usage: clocked FILE PROGRAM ARGUMENTS...\n");
        return 2;
    }
    struct rusage used;
    int status;
    double began = s_now();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[2], argv + 2);
        fprintf(stderr, "clocked: %s: %s\n", argv[2], strerror(errno));
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &used) != pid) {
        fprintf(stderr, "clocked: %s\n", strerror(errno));
        return 1;
    }
    fprintf(out, "{\"wall_s\": %.6f, \"cpu_s\": %.6f, \"peak_kb\": %ld}\n", s_now() - began,
            s_seconds(used.ru_utime) + s_seconds(used.ru_stime), used.ru_maxrss);
    fclose(out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
