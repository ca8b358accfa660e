// lade-install: the worker that turns sources into installed models.
#include "workers/install/installer.h"
#include "workers/worker/ended.h"

#include "common/log.h"

#include <stdio.h>

// What runs at SIGTERM has this long to end; the rest goes back to the queue.
enum { S_GRACE_MS = 5000 };

int
main(int argc, char **argv)
{
    int status = 0;
    lade_config_t config;
    lade_installer_t *installer = NULL;
    lade_error_t error = {0};
    if (!lade_config_from_args(&config, "lade-install", "resolves, identifies and places models",
                               argc, argv, &status))
        goto done;
    lade_tokens_guard_process();
    lade_code_t code = lade_config_make_folders(&config, &error);
    if (!code)
        code = lade_installer_new(&config, &installer, &error);
    if (!code) {
        lade_worker_t *worker =
            lade_worker_new(&config, &lade_installer_ops, installer, config.install_slots);
        zactor_t *cancelled =
            lade_ended_new(&config, "model_install_cancelled", lade_installer_cancelled, &config);
        zactor_t *others = // of them, those that fetched for the cache
            lade_ended_new(&config, "job_cancelled", lade_installer_cancelled, &config);
        zactor_t *completed =
            lade_ended_new(&config, "model_install_completed", lade_installer_completed, &config);
        code = lade_worker_run(worker, S_GRACE_MS, &error);
        zactor_destroy(&completed);
        zactor_destroy(&others);
        zactor_destroy(&cancelled);
        lade_installer_destroy(&installer);
        lade_worker_destroy(&worker);
    }
    if (code) {
        lade_log(LADE_LOG_ERROR, "install", "%s", error.message);
        status = lade_code_exit(code);
    }
done:
    lade_config_free(&config);
    return status;
}
