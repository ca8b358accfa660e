// lade-keeper: holds the memory of models that load workers read, so that it outlives their
// crashes.
#include "common/config.h"
#include "common/log.h"
#include "workers/keeper/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

// Each model and each process that looks at one is a descriptor.
static void
s_raise_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static int
s_open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

int
main(int argc, char **argv)
{
    lade_config_t config = {0};
    lade_keeper_t *keeper = NULL;
    lade_error_t error = {0};
    int status = 0;
    if (!lade_config_from_args(&config, "lade-keeper",
                               "holds the memory of models that load workers read, so that it "
                               "outlives their crashes",
                               argc, argv, &status)) {
        lade_config_free(&config);
        return status;
    }
    lade_tokens_guard_core();
    s_raise_limit();
    int stop = s_open_signals();
    lade_code_t code = stop < 0 ? lade_error_errno(&error, errno, "no descriptor for signals")
                                : lade_config_make_folders(&config, &error);
    if (!code)
        code = lade_keeper_new(config.data, config.keep_s * 1000, &keeper, &error);
    if (!code) {
        lade_log(LADE_LOG_INFO, "keeper", "what a load worker leaves is kept for %lld s",
                 (long long)config.keep_s);
        code = lade_keeper_run(keeper, stop, &error);
    }
    if (code)
        lade_log(LADE_LOG_ERROR, "keeper", "%s", error.message);
    lade_keeper_destroy(&keeper);
    if (stop >= 0)
        close(stop);
    lade_config_free(&config);
    return lade_code_exit(code);
}
