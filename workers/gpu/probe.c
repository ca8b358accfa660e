// Asking for a device in another process.
#include "workers/gpu/probe.h"

#include "common/wire.h"
#include "workers/gpu/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
    S_PATIENCE_MS = 20000, // a driver that waits for a device that is gone
    S_BYTES = 1 << 20,     // of the block that is made to see whether the device works
};
static const char s_flag[] = "--probe";

// ---------------------------------------------------------------------------------------------------
// Who asks

static pid_t
s_spawn(const char *device, int out)
{
    char program[] = "/proc/self/exe", flag[sizeof s_flag], name[64];
    char *argv[] = {program, flag, name, NULL};
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none;
    pid_t pid;
    strcpy(flag, s_flag);
    snprintf(name, sizeof name, "%s", device);
    sigemptyset(&none); // our threads block everything
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int failed = posix_spawn(&pid, program, &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    errno = failed;
    return failed ? -1 : pid;
}

// What it says, until it ends or the time is over. False if it is.
static bool
s_hear(int in, char *text, size_t size)
{
    int64_t until = lade_mono_ms() + S_PATIENCE_MS;
    size_t len = 0;
    text[0] = '\0';
    for (;;) {
        struct pollfd fds[] = {{in, POLLIN, 0}};
        int64_t left = until - lade_mono_ms();
        if (left <= 0)
            return false;
        if (poll(fds, 1, (int)left) <= 0)
            continue;
        char spare[256];
        bool full = len + 1 >= size;
        ssize_t got = read(in, full ? spare : text + len, full ? sizeof spare : size - 1 - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        len += full ? 0 : (size_t)got;
        text[len] = '\0';
    }
    text[strcspn(text, "\n")] = '\0';
    return true;
}

bool
lade_probe_device(const char *device, char *why, size_t size)
{
    int pipes[2], status = -1;
    if (pipe2(pipes, O_CLOEXEC)) {
        snprintf(why, size, "it cannot be asked: %s", strerror(errno));
        return false;
    }
    pid_t pid = s_spawn(device, pipes[1]);
    if (pid < 0)
        snprintf(why, size, "it cannot be asked: %s", strerror(errno));
    close(pipes[1]);
    bool heard = pid > 0 && s_hear(pipes[0], why, size);
    close(pipes[0]);
    if (pid < 0)
        return false;
    if (!heard) {
        snprintf(why, size, "it does not answer");
        kill(pid, SIGKILL);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (heard && WIFSIGNALED(status))
        snprintf(why, size, "asking for it ended with signal %d", WTERMSIG(status));
    return heard && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// ---------------------------------------------------------------------------------------------------
// Who is asked

// Opens the device and takes memory on it.
static lade_code_t
s_try(const lade_backend_t *backend, size_t index, lade_error_t *error)
{
    lade_backend_options_t options = {0};
    lade_block_t block = {0};
    void *opened = NULL;
    lade_code_t code = backend->open(index, &options, &opened, error);
    if (code)
        return code;
    code = backend->allocate(opened, S_BYTES, &block, error);
    if (code == LADE_NO_VRAM) // others have taken all of it: it works
        code = LADE_OK;
    if (block.bytes)
        backend->free(opened, &block);
    backend->close(&opened);
    return code;
}

int
lade_probe_main(int argc, char **argv)
{
    if (argc != 3 || strcmp(argv[1], s_flag) != 0)
        return -1;
    char name[64];
    size_t index = 0;
    lade_error_t error = {0};
    const lade_backend_t *backend = NULL;
    lade_code_t code =
        sscanf(argv[2], "%63[a-z]:%zu", name, &index) == 2
            ? lade_backend_find(name, &backend, &error)
            : lade_error_set(&error, LADE_VALUE_ERROR, "%s: takes a device, NAME:N", argv[2]);
    if (!code && index >= backend->count(&error))
        code = lade_error_set(&error, LADE_NO_VRAM, "there is no %s", argv[2]);
    if (!code)
        code = s_try(backend, index, &error);
    if (code)
        printf("%s\n", error.message);
    return code ? 1 : 0;
}
