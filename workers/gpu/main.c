// lade-gpu: keeps models in memory and hands them to other processes.
#include "common/config.h"
#include "common/log.h"
#include "workers/gpu/loadwork.h"
#include "workers/gpu/probe.h"
#include "workers/worker/worker.h"

#include <errno.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    S_GRACE_MS = 2000
}; // a load that takes longer is given back: another worker reads it as well as we do

static void
s_stop(void *arg)
{
    lade_worker_stop(arg);
}

// Serves until it is told to end. *anew_p: it should start anew.
static lade_code_t
s_serve(const lade_config_t *config, bool *anew_p, lade_error_t *error)
{
    lade_loadwork_t *work = lade_loadwork_new(config);
    lade_worker_t *worker =
        lade_worker_new(config, &lade_loadwork_ops, work, lade_loadwork_slots(config));
    lade_loadwork_on_anew(work, s_stop, worker);
    lade_code_t code = lade_config_make_folders(config, error);
    if (!code)
        code = lade_loadwork_open(work, lade_worker_name(worker), error);
    if (!code)
        code = lade_worker_run(worker, S_GRACE_MS, error);
    *anew_p = !lade_worker_was_told(worker) && lade_loadwork_leave(work);
    lade_loadwork_destroy(&work);
    lade_worker_destroy(&worker);
    return code;
}

// The arguments as they are now: what is secret in them is blotted out when it has been read.
static char **
s_copy_args(int argc, char **argv)
{
    char **copy = calloc((size_t)argc + 1, sizeof *copy);
    for (int i = 0; copy && i < argc; i++)
        if (!(copy[i] = strdup(argv[i])))
            abort();
    if (!copy)
        abort();
    return copy;
}

static void
s_free_args(char **args)
{
    for (char **at = args; *at; at++)
        free(*at);
    free(args);
}

int
main(int argc, char **argv)
{
    lade_config_t config = {0};
    lade_error_t error = {0};
    int status = lade_probe_main(argc, argv);
    if (status >= 0)
        return status;
    char **args = s_copy_args(argc, argv);
    bool anew = false;
    if (lade_config_from_args(&config, "lade-gpu",
                              "keeps models in memory and hands them to other processes", argc,
                              argv, &status)) {
        lade_tokens_guard_core();
        lade_code_t code = s_serve(&config, &anew, &error);
        if (code)
            lade_log(LADE_LOG_ERROR, "worker", "%s", error.message);
        status = lade_code_exit(code);
    }
    lade_config_free(&config);
    if (anew) { // a new process in all but its number: a driver forgets nothing as long as one
                // lives
        (void)close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC); // a driver's too
        execv("/proc/self/exe", args);
        lade_log(LADE_LOG_ERROR, "worker", "cannot start anew: %s", strerror(errno));
        status = 1;
    }
    s_free_args(args);
    return status;
}
